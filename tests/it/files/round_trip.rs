//! Random tables written as csv and ndjson and read back: not a value lost, doubled or changed.

use proptest::prelude::*;

use super::*;

/// One row: an integer, a decimal in hundredths, a day, and a text, each of them maybe NULL.
type Row = (Option<i64>, Option<i64>, Option<i32>, Option<String>);

const COLUMNS: [(&str, &str); 4] = [("n", "bigint"), ("d", "decimal(18,2)"), ("day", "date"), ("t", "string")];

fn row() -> impl Strategy<Value = Row> {
    let text = prop_oneof![
        proptest::string::string_regex("[a-zé,\"\r\n\\\\ #'\u{1F600}]{0,12}").unwrap(),
        Just(String::new()),
        Just("NULL".to_owned()),
    ];
    let cents = -999_999_999_999_999_i64..999_999_999_999_999;
    (
        proptest::option::of(any::<i64>()),
        proptest::option::of(cents),
        proptest::option::of(-700_000..2_900_000_i32),
        proptest::option::of(text),
    )
}

fn day(days: i32) -> String {
    let date = chrono::NaiveDate::default() + chrono::TimeDelta::days(i64::from(days));
    date.format("%Y-%m-%d").to_string()
}

fn decimal(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", cents.unsigned_abs() / 100, cents.unsigned_abs() % 100)
}

fn json_row((n, d, days, text): &Row) -> String {
    let mut fields = Vec::new();
    fields.extend(n.map(|n| format!("\"n\":{n}")));
    fields.extend(d.map(|d| format!("\"d\":{}", decimal(d))));
    fields.extend(days.map(|days| format!("\"day\":\"{}\"", day(days))));
    fields.extend(text.as_ref().map(|text| format!("\"t\":{}", serde_json::to_string(text).unwrap())));
    format!("{{{}}}", fields.join(","))
}

fn csv_text(rows: &[Row], line_end: &str) -> String {
    let mut text = format!("n,d,day,t{line_end}");
    for (n, d, days, word) in rows {
        let word = word.as_ref().map_or(String::new(), |word| format!("\"{}\"", word.replace('"', "\"\"")));
        let n = n.map_or(String::new(), |n| n.to_string());
        let d = d.map_or(String::new(), decimal);
        let days = days.map_or(String::new(), day);
        text.push_str(&format!("{n},{d},{days},{word}{line_end}"));
    }
    text
}

fn read(name: &str, format: FileFormat, content: &str, columns: &[(&str, &str)]) -> Loaded {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    runtime.block_on(async {
        let mut landing = Landing::new("*", format).columns(columns);
        landing.put(name, content, 1);
        landing.load().await
    })
}

proptest! {
    // A failing case is printed with the seed that makes it again.
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_as_csv_is_read_back(rows in proptest::collection::vec(row(), 0..40), windows in any::<bool>()) {
        let text = csv_text(&rows, if windows { "\r\n" } else { "\n" });
        let loaded = read("f.csv", csv(), &text, &COLUMNS);
        prop_assert_eq!(loaded.reasons(), vec![]);
        prop_assert_eq!(loaded.rows(), rows.iter().map(json_row).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_written_as_ndjson_is_read_back(rows in proptest::collection::vec(row(), 0..40)) {
        let text: String = rows.iter().map(|row| json_row(row) + "\n").collect();
        let loaded = read("f.ndjson", FileFormat::Ndjson, &text, &COLUMNS);
        prop_assert_eq!(loaded.reasons(), vec![]);
        prop_assert_eq!(loaded.rows(), rows.iter().map(json_row).collect::<Vec<_>>());
    }

    #[test]
    fn inferred_types_lose_nothing(values in proptest::collection::vec("[0-9]{1,22}(\\.[0-9]{1,3})?|true|[a-z]{0,3}", 1..30)) {
        let text: String = values.iter().map(|value| format!("\"{value}\",x\n")).collect();
        let loaded = read("f.csv", csv(), &format!("v,x\n{text}"), &[]);
        prop_assert_eq!(loaded.reasons(), vec![]);
        prop_assert_eq!(loaded.rows().len(), values.len());
        if loaded.types()[0] == "v string" {
            let wanted: Vec<String> = values.iter().map(|value| format!("{{\"v\":\"{value}\",\"x\":\"x\"}}")).collect();
            prop_assert_eq!(loaded.rows(), wanted);
        }
    }
}
