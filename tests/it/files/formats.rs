//! What is in the files: every format, every packing, and bad input by name.

use std::io::Write;

use arrow::array::{
    ArrayRef, Decimal128Array, Float64Array, Int32Array, Int64Array, ListArray, StringArray, StructArray,
    Time64MicrosecondArray, TimestampNanosecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Int32Type};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use super::*;

async fn read_csv(content: impl AsRef<[u8]>) -> Loaded {
    let mut landing = Landing::new("*.csv", csv());
    landing.put("f.csv", content, 1);
    landing.load().await
}

fn parquet(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

#[tokio::test]
async fn csv_types_are_inferred_over_all_rows() {
    let mut text = "id,code,price,day,at,ok,empty,word\n".to_owned();
    for n in 0..300_000 {
        text.push_str(&format!("{n},{n},{n},2013-01-01,2013-01-01T10:00:00Z,true,,{n}\n"));
    }
    text.push_str("9223372036854775807,007,0.5,2013-01-02,2013-01-01T10:00:00+02:00,FALSE,,x\n");
    let loaded = read_csv(text).await;
    assert_eq!(
        loaded.types(),
        [
            "id bigint",
            "code string",
            "price double",
            "day date",
            "at timestamp",
            "ok boolean",
            "empty string",
            "word string"
        ]
    );
    assert_eq!(loaded.end.files[0].rows, 300_001);
    assert!(loaded.batches.len() > 3, "more than one block was read");
    assert_eq!(loaded.progress, loaded.total);
    assert!(loaded.rows()[300_000].contains(r#""code":"007","price":0.5"#));
}

#[tokio::test]
async fn an_empty_file_and_one_with_a_header_only_have_no_rows() {
    let mut landing = Landing::new("*.csv", csv());
    landing.put("empty.csv", "", 1);
    assert!(landing.try_load().await.unwrap().is_none(), "an empty file makes no table");
    landing.put("header.csv", "a,b\n", 2);
    let loaded = landing.load().await;
    assert_eq!(loaded.types(), ["a string", "b string"]);
    assert!(loaded.rows().is_empty() && loaded.rejects.is_empty());
    assert_eq!(loaded.statuses().len(), 2);
    assert!(landing.try_load().await.unwrap().is_none());
}

#[tokio::test]
async fn a_second_header_is_rejected_and_does_not_spoil_the_types() {
    let loaded = read_csv("a,b\n1,2\na,b\n3,4\n").await;
    assert_eq!(loaded.types(), ["a bigint", "b bigint"]);
    assert_eq!(loaded.rows().len(), 2);
    assert_eq!(loaded.reasons()[0].0, Some(3));
    assert!(loaded.reasons()[0].2.contains("header again"));
}

#[tokio::test]
async fn marks_line_ends_and_quotes_are_understood() {
    let loaded = read_csv(b"\xEF\xBB\xBFa,b\r\n1,\"two\r\nlines, \"\"quoted\"\"\"\r\n2,x").await;
    assert_eq!(loaded.types(), ["a bigint", "b string"]);
    assert_eq!(loaded.rows(), [r#"{"a":1,"b":"two\r\nlines, \"quoted\""}"#, r#"{"a":2,"b":"x"}"#]);
}

#[tokio::test]
async fn quotes_across_lines_survive_the_cutting_into_blocks() {
    let row = |n: usize| format!("{n},\"line one\nline \"\"two\"\", {}\"\n", "y".repeat(300));
    let text = format!("n,t\n{}", (0..30_000).map(row).collect::<String>());
    let loaded = read_csv(text).await;
    assert!(loaded.rejects.is_empty(), "{:?}", loaded.reasons());
    assert_eq!(loaded.end.files[0].rows, 30_000);
    assert!(loaded.batches.len() > 3);
    assert!(loaded.rows()[29_999].starts_with(r#"{"n":29999,"t":"line one\nline \"two\", yyy"#));
}

#[tokio::test]
async fn latin_letters_are_decoded_and_bad_bytes_rejected() {
    let latin = CsvOptions { encoding: encoding_rs::WINDOWS_1252, delimiter: b';', ..csv_options() };
    let mut landing = Landing::new("*.csv", FileFormat::Csv(latin));
    landing.put("f.csv", b"stra\xDFe;n\nZ\xFCrich;1\n", 1);
    assert_eq!(landing.load().await.rows(), [r#"{"straße":"Zürich","n":1}"#]);
    let loaded = read_csv(b"a,b\n1,Z\xFCrich\n2,ok\n").await;
    assert_eq!(loaded.rows(), [r#"{"a":2,"b":"ok"}"#]);
    assert_eq!((loaded.reasons()[0].0, loaded.reasons()[0].1), (Some(2), Some("b")));
    assert!(loaded.reasons()[0].2.contains("encoding"));
}

#[tokio::test]
async fn a_line_of_ten_megabytes_is_a_row() {
    let long = "x".repeat(10_000_000);
    let loaded = read_csv(format!("a,b\n1,{long}\n2,y\n")).await;
    assert_eq!(loaded.end.files[0].rows, 2);
    let mut landing = Landing::new("*.ndjson", FileFormat::Ndjson);
    landing.put("f.ndjson", format!("{{\"a\":\"{long}\"}}\n{{\"a\":\"y\"}}\n{{\"a\":{long}}}"), 1);
    let loaded = landing.load().await;
    assert_eq!((loaded.end.files[0].rows, loaded.end.files[0].rejected), (2, 1));
    assert!(loaded.rejects[0].raw.len() < 20_000, "a reject is cut");
}

#[tokio::test]
async fn duplicate_column_names_refuse_the_file_by_name() {
    let mut landing = Landing::new("*.csv", csv()).columns(&[("a", "bigint")]);
    landing.put("bad.csv", "a,b,A\n1,2,3\n", 1);
    landing.put("good.csv", "a\n1\n", 2);
    let loaded = landing.load().await;
    assert_eq!(loaded.rows(), [r#"{"a":1}"#]);
    assert!(loaded.rejects[0].file.ends_with("bad.csv"));
    assert_eq!(loaded.rejects[0].reason, "columns 1 (`a`) and 3 (`A`) have the same name; rename one of them");
}

#[tokio::test]
async fn declared_columns_decide_what_fits() {
    let mut landing = Landing::new("*.csv", csv());
    let mut day = column("day", "date");
    (day.from, day.formats) = (Some("Day".to_owned()), vec!["%d/%m/%Y".to_owned(), "%Y-%m-%d".to_owned()]);
    let mut id = column("id", "smallint");
    id.nullable = false;
    landing.definition.columns = vec![id, day, column("price", "decimal(6,2)"), column("missing", "string")];
    let body =
        "Day,id,extra,price\n31/01/2013,1,x,1.5\n2013-02-01,2,x,\n2013-02-30,3,x,1\n,40000,x,1\n,,x,1\n,6,x,1.234\n";
    landing.put("f.csv", body, 1);
    let loaded = landing.load().await;
    assert_eq!(loaded.types(), ["id smallint", "day date", "price decimal(6,2)", "missing string"]);
    assert_eq!(loaded.rows(), [r#"{"id":1,"day":"2013-01-31","price":1.50}"#, r#"{"id":2,"day":"2013-02-01"}"#]);
    let reasons: Vec<_> =
        loaded.reasons().into_iter().map(|(line, column, _)| (line.unwrap(), column.unwrap())).collect();
    assert_eq!(reasons, [(4, "day"), (5, "id"), (6, "id"), (7, "price")]);
    assert_eq!(loaded.rejects[0].raw, "2013-02-30,3,x,1");
    landing.put("g.csv", "day2,price\n1,2\n", 2);
    let refused = landing.load().await;
    assert!(refused.rejects[0].reason.contains("no column `id`"), "{}", refused.rejects[0].reason);
}

#[tokio::test]
async fn files_without_header_go_by_position() {
    let headless = CsvOptions { header: false, comment: Some(b'#'), ..csv_options() };
    let mut landing = Landing::new("*.csv", FileFormat::Csv(headless));
    landing.put("f.csv", "# made by hand\n1,x\n2,y\n", 1);
    let loaded = landing.load().await;
    assert_eq!(loaded.types(), ["column_1 bigint", "column_2 string"]);
    assert_eq!(loaded.rows().len(), 2);
    let mut landing = landing.columns(&[("n", "int"), ("t", "string")]);
    landing.known = Known::default();
    assert_eq!(landing.load().await.rows(), [r#"{"n":1,"t":"x"}"#, r#"{"n":2,"t":"y"}"#]);
}

#[tokio::test]
async fn what_the_table_has_stays_and_what_is_new_is_added() {
    let mut landing = Landing::new("*.csv", csv());
    landing.put("a.csv", "n,t\n1,x\n", 1);
    landing.load().await;
    landing.put("b.csv", "T,new one,n\ny,2.5,2\nz,,many\n", 2);
    let loaded = landing.load().await;
    assert_eq!(loaded.types(), ["n bigint", "t string", "new_one double"]);
    assert_eq!(loaded.rows(), [r#"{"n":2,"t":"y","new_one":2.5}"#]);
    assert_eq!(loaded.reasons(), [(Some(3), Some("n"), "`many` is not an integer")]);
}

#[tokio::test]
async fn packed_files_are_unpacked_and_cut_ones_refused() {
    let gzip = |text: &[u8]| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(text).unwrap();
        packer.finish().unwrap()
    };
    let bzip2 = |text: &[u8]| {
        let mut packer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        packer.write_all(text).unwrap();
        packer.finish().unwrap()
    };
    for declared in [false, true] {
        let mut landing = Landing::new("*.csv.*", csv());
        if declared {
            landing = landing.columns(&[("n", "bigint"), ("t", "string")]);
        }
        let rows: String = (0..50_000).map(|n| format!("{n},{}\n", n * 7919 % 10_007)).collect();
        let text = format!("n,t\n{rows}");
        landing.put("a.csv.gz", [gzip(text.as_bytes()), gzip(b"7,joined\n")].concat(), 1);
        landing.put("b.csv.zst", zstd::encode_all(text.as_bytes(), 1).unwrap(), 2);
        landing.put("c.csv.bz2", bzip2(text.as_bytes()), 3);
        for (name, packed) in [("d.csv.gz", gzip(text.as_bytes())), ("e.csv.bz2", bzip2(text.as_bytes()))] {
            landing.put(name, &packed[..packed.len() / 2], 4);
        }
        landing.put("f.csv.zst", "n,t\n1,not packed\n", 5);
        let loaded = landing.load().await;
        let rows: Vec<_> = loaded.end.files.iter().map(|file| (file.rows, file.status)).collect();
        let refused = (0, FileStatus::Refused);
        let wanted = [50_001, 50_000, 50_000].map(|rows| (rows, FileStatus::Loaded));
        assert_eq!(rows, [wanted.as_slice(), &[refused; 3]].concat(), "declared: {declared}");
        assert_eq!(loaded.progress, loaded.total);
        let reasons = loaded.reasons();
        assert!(reasons[0].2.contains("cut off"), "{}", reasons[0].2);
        assert!(reasons.iter().all(|(line, _, reason)| line.is_none() && reason.contains("compressed data")));
        assert!(landing.try_load().await.unwrap().is_none(), "what was refused is known");
    }
}

#[tokio::test]
async fn ndjson_keeps_structs_and_lists() {
    let mut landing = Landing::new("*.ndjson", FileFormat::Ndjson);
    let text = r#"{"id":1,"engine":{"count":2,"kinds":["a","b"]},"deep":[{"x":1},{"x":null,"y":"2013-01-01"}]}

{"id":2,"engine":null,"deep":[],"big":123456789012345678901234567890}
{"ID":3,"engine":{"maker":"é\u00e9"},"at":"2013-01-01T10:00:00Z"}
"#;
    landing.put("f.ndjson", text, 1);
    let loaded = landing.load().await;
    assert_eq!(
        loaded.types(),
        [
            "id bigint",
            "engine struct<count: bigint, kinds: array<string>, maker: string>",
            "deep array<struct<x: bigint, y: date>>",
            "big decimal(38,0)",
            "at timestamp"
        ]
    );
    assert!(loaded.rejects.is_empty(), "{:?}", loaded.reasons());
    assert_eq!(
        loaded.rows(),
        [
            r#"{"id":1,"engine":{"count":2,"kinds":["a","b"]},"deep":[{"x":1},{"y":"2013-01-01"}]}"#,
            r#"{"id":2,"deep":[],"big":123456789012345678901234567890}"#,
            r#"{"id":3,"engine":{"maker":"éé"},"at":"2013-01-01T10:00:00Z"}"#
        ]
    );
}

#[tokio::test]
async fn mixed_types_in_one_field_become_json_text() {
    let mut landing = Landing::new("*.ndjson", FileFormat::Ndjson);
    landing.put("f.ndjson", "{\"v\":1.50}\n{\"v\":\"one\"}\n{\"v\":{\"x\": [1]}}\n{\"v\":null}\n{\"v\":true}\n", 1);
    let loaded = landing.load().await;
    assert_eq!(loaded.types(), ["v string"]);
    assert_eq!(
        loaded.rows(),
        [r#"{"v":"1.50"}"#, r#"{"v":"one"}"#, r#"{"v":"{\"x\": [1]}"}"#, "{}", r#"{"v":"true"}"#]
    );
}

#[tokio::test]
async fn json_that_does_not_fit_is_rejected_by_line_and_column() {
    let mut landing = Landing::new("*.ndjson", FileFormat::Ndjson).columns(&[
        ("n", "int"),
        ("d", "decimal(5,2)"),
        ("s", "struct<a: int, l: array<smallint>>"),
        ("m", "map<string, double>"),
    ]);
    let text = br#"{"n":1,"d":1.10,"s":{"a":1,"l":[1,2],"unknown":0},"m":{"x":1,"y":2.5},"extra":{}}
{"n":1,"d":
{"n":"1"}
{"n":2147483648}
{"d":1.234}
{"s":{"a":{}}}
{"s":{"l":[1,70000]}}
{"s":[1]}
{"n":1,"n":2}
{"m":{"x":1,"x":2}}
[1]
7 8
{"s":{"a":1,"A":2}}
{"n":1} x
{"m":{"x":"}"}}
{"m":null,"s":{},"d":-999.99}
"#;
    landing.put("f.ndjson", [text.as_slice(), b"{\"m\":\"\xFF\"}\n"].concat(), 1);
    let loaded = landing.load().await;
    assert_eq!(
        loaded.rows(),
        [r#"{"n":1,"d":1.10,"s":{"a":1,"l":[1,2]},"m":{"x":1.0,"y":2.5}}"#, r#"{"d":-999.99,"s":{}}"#]
    );
    let found: Vec<_> =
        loaded.reasons().into_iter().map(|(line, column, _)| (line.unwrap(), column.unwrap_or(""))).collect();
    let wanted = [
        (2, ""),
        (3, "n"),
        (4, "n"),
        (5, "d"),
        (6, "s.a"),
        (7, "s.l[]"),
        (8, "s"),
        (9, "n"),
        (10, "m"),
        (11, ""),
        (12, ""),
        (13, "s.a"),
        (14, ""),
        (15, "m[]"),
        (17, ""),
    ];
    assert_eq!(found, wanted, "{:?}", loaded.reasons());
    assert_eq!(loaded.rejects[1].raw, r#"{"n":"1"}"#);
}

#[tokio::test]
async fn a_json_array_is_read_element_by_element() {
    let mut landing = Landing::new("*.json", FileFormat::Json);
    let elements: Vec<String> =
        (0..40_000).map(|n| format!("{{\n  \"n\": {n},\n  \"t\": \"{}\"\n}}", "z".repeat(100))).collect();
    landing.put("array.json", format!("\u{FEFF}[{}]\n", elements.join(",\n")), 1);
    landing.put("object.json", "{\"n\": 1,\n \"t\": \"one\"}", 2);
    landing.put("broken.json", "[{\"n\":1},\n{\"n\":},\n{\"n\":3},\n{\"n\":4", 3);
    landing.put("cut.json", "[{\"n\":5},", 4);
    let loaded = landing.load().await;
    let counts: Vec<_> = loaded.end.files.iter().map(|file| (file.rows, file.rejected)).collect();
    assert_eq!(counts, [(40_000, 0), (1, 0), (2, 2), (1, 1)], "{:?}", loaded.reasons());
    assert!(loaded.batches.len() > 4, "the array was read in several blocks");
    assert_eq!(loaded.rejects.iter().map(|reject| reject.line).collect::<Vec<_>>(), [Some(2), Some(4), Some(1)]);
    assert!(loaded.reasons()[2].2.contains("cut off"));
}

#[tokio::test]
async fn parquet_keeps_its_types() {
    let nested = StructArray::from(vec![(
        Arc::new(Field::new("count", DataType::Int32, true)),
        Arc::new(Int32Array::from(vec![Some(1), None])) as ArrayRef,
    )]);
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
    let mut landing = Landing::new("*.parquet", FileFormat::Parquet);
    let file = parquet(vec![
        ("i", Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef),
        ("u", Arc::new(UInt64Array::from(vec![u64::MAX, 0]))),
        ("at", Arc::new(TimestampNanosecondArray::from(vec![1_500, 0]).with_timezone("UTC"))),
        ("clock", Arc::new(Time64MicrosecondArray::from(vec![1_000_000, 0]))),
        ("engine", Arc::new(nested)),
        ("list", Arc::new(list)),
    ]);
    landing.put("f.parquet", file, 1);
    let loaded = landing.load().await;
    assert_eq!(
        loaded.types(),
        ["i int", "u decimal(20,0)", "at timestamp", "clock string", "engine struct<count: int>", "list array<int>"]
    );
    assert_eq!(
        loaded.rows()[0],
        r#"{"i":1,"u":18446744073709551615,"at":"1970-01-01T00:00:00.000001Z","clock":"00:00:01","engine":{"count":1},"list":[1,null]}"#
    );
    assert_eq!((loaded.end.files[0].rows, loaded.progress), (2, loaded.total));
    assert_eq!(
        loaded.end.files[0].content_hash,
        blake3::hash(&fs::read(landing.path("f.parquet")).unwrap()).to_hex().as_str()
    );
}

#[tokio::test]
async fn a_parquet_file_cut_in_half_is_refused_and_the_others_are_read() {
    for declared in [false, true] {
        let mut landing = Landing::new("*.parquet", FileFormat::Parquet);
        if declared {
            landing = landing.columns(&[("n", "bigint")]);
        }
        let whole = parquet(vec![("n", Arc::new(Int64Array::from((0..10_000).collect::<Vec<_>>())) as ArrayRef)]);
        landing.put("a.parquet", &whole[..whole.len() / 2], 1);
        landing.put("b.parquet", "n\n1\n", 2);
        landing.put("c.parquet", "", 3);
        landing.put("d.parquet", &whole, 4);
        let loaded = landing.load().await;
        let statuses = loaded.statuses();
        assert_eq!(
            statuses.iter().filter(|(_, status)| *status == FileStatus::Refused).count(),
            3,
            "declared: {declared}"
        );
        assert_eq!(loaded.batches.iter().map(|(_, _, rows)| rows.num_rows()).sum::<usize>(), 10_000);
        let reason = loaded.reasons()[0].2;
        assert!(
            loaded.rejects[0].file.ends_with("a.parquet") && reason.contains("not a whole Parquet file"),
            "{reason}"
        );
        assert!(landing.try_load().await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_parquet_file_damaged_within_fails_the_load_by_name() {
    let mut landing = Landing::new("*.parquet", FileFormat::Parquet);
    let texts: Vec<String> = (0..60_000_u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_string()).collect();
    let batch = RecordBatch::try_from_iter([("t", Arc::new(StringArray::from(texts)) as ArrayRef)]).unwrap();
    let properties =
        WriterProperties::builder().set_max_row_group_row_count(Some(20_000)).set_dictionary_enabled(false);
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties.build())).unwrap();
    writer.write(&batch).unwrap();
    let mut whole = writer.into_inner().unwrap();
    let middle = whole.len() * 2 / 3;
    whole[middle..middle + 5000].fill(0xFF);
    landing.put("f.parquet", whole, 1);
    let error = landing.failure().await;
    assert_eq!(error.kind(), ErrorKind::DataLoss);
    assert!(error.to_string().contains("f.parquet"), "{error}");
}

#[tokio::test]
async fn parquet_with_another_schema_is_refused_by_column_and_type() {
    let mut landing = Landing::new("*.parquet", FileFormat::Parquet);
    landing.put("a.parquet", parquet(vec![("n", Arc::new(Int32Array::from(vec![1])) as ArrayRef)]), 1);
    landing.put("b.parquet", parquet(vec![("n", Arc::new(StringArray::from(vec!["1"])) as ArrayRef)]), 2);
    landing.put("c.parquet", parquet(vec![("m", Arc::new(Int64Array::from(vec![3])) as ArrayRef)]), 3);
    let loaded = landing.load().await;
    assert_eq!(loaded.rows(), [r#"{"n":1}"#, r#"{"m":3}"#]);
    assert_eq!(
        loaded.reasons()[0].2,
        "column `n` is int in the files before it and string in this file, which does not fit"
    );
    landing.put("d.parquet", parquet(vec![("N", Arc::new(Int64Array::from(vec![i64::MAX])) as ArrayRef)]), 4);
    let wider = landing.load().await;
    assert_eq!((wider.types()[0].as_str(), wider.rows().len()), ("n bigint", 1));
    landing.put("e.parquet", parquet(vec![("n", Arc::new(StringArray::from(vec!["1"])) as ArrayRef)]), 5);
    assert!(landing.load().await.reasons()[0].2.contains("is bigint in the table and string in this file"));
}

#[tokio::test]
async fn parquet_values_that_a_column_cannot_hold_exactly_are_rejected() {
    let mut landing = Landing::new("*.parquet", FileFormat::Parquet).columns(&[
        ("i", "smallint"),
        ("f", "bigint"),
        ("d", "decimal(6,1)"),
        ("t", "date"),
    ]);
    let decimals = Decimal128Array::from(vec![150, 150, 150, 155, 150]).with_precision_and_scale(10, 2).unwrap();
    let file = parquet(vec![
        ("i", Arc::new(Int32Array::from(vec![1, 40_000, 3, 4, 5])) as ArrayRef),
        ("f", Arc::new(Float64Array::from(vec![Some(1.0), Some(2.0), Some(2.5), None, None]))),
        ("d", Arc::new(decimals)),
        ("t", Arc::new(StringArray::from(vec![Some("2013-01-01"), None, None, None, Some("soon")]))),
        ("extra", Arc::new(Int32Array::from(vec![1, 2, 3, 4, 5]))),
    ]);
    landing.put("f.parquet", file, 1);
    let loaded = landing.load().await;
    assert_eq!(loaded.rows(), [r#"{"i":1,"f":1,"d":1.5,"t":"2013-01-01"}"#]);
    let found: Vec<_> =
        loaded.reasons().into_iter().map(|(line, column, _)| (line.unwrap(), column.unwrap())).collect();
    assert_eq!(found, [(2, "i"), (3, "f"), (4, "d"), (5, "t")]);
    assert_eq!(loaded.rejects[3].raw, "i=5, f=NULL, d=1.50, t=soon");
}
