//! The expression and the Arrow type of every type, and what is refused.

use super::*;
use crate::source::mssql::column::Computed;

fn plan(sql_type: SqlType) -> ColumnPlan {
    ColumnPlan::new(&SourceColumn::plain("c", sql_type), &ColumnOptions::default()).unwrap()
}

fn text(sql_type: SqlType, collation: &str, code_page: i32) -> SourceColumn {
    SourceColumn {
        collation: Some(collation.to_owned()),
        code_page: Some(code_page),
        ..SourceColumn::plain("c", sql_type)
    }
}

fn selected(column: &SourceColumn) -> Vec<String> {
    ColumnPlan::new(column, &ColumnOptions::default()).unwrap().select("T")
}

#[test]
fn every_type_has_its_expression_and_its_arrow_type() {
    let ntz = || DataType::Timestamp(TimeUnit::Microsecond, None);
    let utc = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    for (sql_type, expression, arrow) in [
        (SqlType::Bit, "T.[c]", DataType::Boolean),
        (SqlType::TinyInt, "T.[c]", DataType::Int16),
        (SqlType::SmallInt, "T.[c]", DataType::Int16),
        (SqlType::Int, "T.[c]", DataType::Int32),
        (SqlType::BigInt, "T.[c]", DataType::Int64),
        (SqlType::Decimal { precision: 38, scale: 38 }, "T.[c]", DataType::Decimal128(38, 38)),
        (SqlType::Money, "CAST(T.[c] AS decimal(19,4))", DataType::Decimal128(19, 4)),
        (SqlType::SmallMoney, "CAST(T.[c] AS decimal(10,4))", DataType::Decimal128(10, 4)),
        (SqlType::Real, "T.[c]", DataType::Float32),
        (SqlType::Float, "T.[c]", DataType::Float64),
        (SqlType::NChar { length: 4 }, "T.[c]", DataType::Utf8),
        (SqlType::NVarChar { length: Some(4) }, "T.[c]", DataType::Utf8),
        (SqlType::Binary { length: 4 }, "T.[c]", DataType::Binary),
        (SqlType::VarBinary { length: Some(4) }, "T.[c]", DataType::Binary),
        (SqlType::RowVersion, "T.[c]", DataType::Binary),
        (SqlType::Date, "T.[c]", DataType::Date32),
        (SqlType::Time { scale: 7 }, "T.[c]", DataType::Utf8),
        (SqlType::DateTime, "T.[c]", ntz()),
        (SqlType::SmallDateTime, "T.[c]", ntz()),
        (SqlType::DateTime2 { scale: 7 }, "T.[c]", ntz()),
        (SqlType::DateTimeOffset { scale: 7 }, "T.[c]", utc()),
        (SqlType::UniqueIdentifier, "T.[c]", DataType::Utf8),
        (SqlType::Vector { dimensions: 3 }, "CAST(T.[c] AS nvarchar(max))", DataType::Utf8),
        (SqlType::HierarchyId, "T.[c].ToString()", DataType::Utf8),
    ] {
        let plan = plan(sql_type.clone());
        assert_eq!(plan.select("T"), [expression], "{sql_type}");
        assert_eq!(plan.fields, [Field::new("c", arrow, true)], "{sql_type}");
        assert_eq!(plan.width(), 1);
    }
}

#[test]
fn large_values_are_guarded_by_their_length() {
    for (sql_type, value) in [
        (SqlType::NVarChar { length: None }, "T.[c]"),
        (SqlType::NText, "T.[c]"),
        (SqlType::VarBinary { length: None }, "T.[c]"),
        (SqlType::Image, "T.[c]"),
        (SqlType::VarChar { length: None }, "CAST(T.[c] AS nvarchar(max))"),
        (SqlType::Text, "CAST(T.[c] AS nvarchar(max))"),
        (SqlType::Xml, "CAST(T.[c] AS nvarchar(max))"),
        (SqlType::Json, "CAST(T.[c] AS nvarchar(max))"),
        (SqlType::Geography, "T.[c].AsBinaryZM()"),
        (SqlType::Geometry, "T.[c].AsBinaryZM()"),
    ] {
        let guarded = format!("CASE WHEN DATALENGTH(T.[c]) > 67108864 THEN NULL ELSE {value} END");
        let plan = plan(sql_type.clone());
        assert_eq!(plan.select("T"), [guarded, "DATALENGTH(T.[c])".to_owned()], "{sql_type}");
        assert_eq!((plan.width(), plan.fields.len()), (2, 1));
    }
    let options = ColumnOptions { max_cell_bytes: 10, ..ColumnOptions::default() };
    let column = SourceColumn::plain("c", SqlType::Image);
    let expressions = ColumnPlan::new(&column, &options).unwrap().select("CT");
    assert_eq!(expressions[0], "CASE WHEN DATALENGTH(CT.[c]) > 10 THEN NULL ELSE CT.[c] END");
}

#[test]
fn only_code_page_1252_is_left_to_the_driver() {
    let short = || SqlType::VarChar { length: Some(20) };
    for (collation, code_page, expression) in [
        ("SQL_Latin1_General_CP1_CI_AS", 1252, "T.[c]"),
        ("Latin1_General_100_CS_AS", 1252, "T.[c]"),
        ("LATIN1_GENERAL_BIN2", 1252, "T.[c]"),
        ("Latin1_General_100_CI_AS_SC_UTF8", 65001, "CAST(T.[c] AS nvarchar(20))"),
        ("SQL_Latin1_General_CP850_CI_AS", 850, "CAST(T.[c] AS nvarchar(20))"),
        ("SQL_Latin1_General_CP1250_CI_AS", 1250, "CAST(T.[c] AS nvarchar(20))"),
        ("Cyrillic_General_CI_AS", 1251, "CAST(T.[c] AS nvarchar(20))"),
        ("Danish_Norwegian_CI_AS", 1252, "CAST(T.[c] AS nvarchar(20))"),
    ] {
        assert_eq!(selected(&text(short(), collation, code_page)), [expression], "{collation}");
    }
    assert_eq!(selected(&SourceColumn::plain("c", short())), ["CAST(T.[c] AS nvarchar(20))"]);
}

#[test]
fn a_cast_never_cuts() {
    let utf8 = |sql_type| text(sql_type, "Latin1_General_100_CI_AS_SC_UTF8", 65001);
    let char = |length| selected(&utf8(SqlType::Char { length }));
    assert_eq!(char(4000), ["CAST(T.[c] AS nvarchar(4000))"]);
    assert_eq!(char(4001), ["CAST(T.[c] AS nvarchar(max))"]);
    assert_eq!(selected(&utf8(SqlType::VarChar { length: Some(8000) })), ["CAST(T.[c] AS nvarchar(max))"]);
    let old = selected(&text(SqlType::Text, "Latin1_General_CI_AS", 1252));
    assert_eq!(old[0], "CASE WHEN DATALENGTH(T.[c]) > 67108864 THEN NULL ELSE T.[c] END");
}

#[test]
fn names_are_quoted() {
    for (name, quoted) in [("a b", "T.[a b]"), ("a]b[", "T.[a]]b[]"), ("a'\"b", "T.[a'\"b]"), ("🚀", "T.[🚀]")] {
        assert_eq!(selected(&SourceColumn::plain(name, SqlType::Int)), [quoted]);
    }
}

#[test]
fn what_cannot_be_read_says_what_to_do() {
    let plain = |sql_type| SourceColumn::plain("secret", sql_type);
    let secret = plain(SqlType::Int);
    for (column, kind, advice) in [
        (SourceColumn { encrypted: true, ..secret.clone() }, ProblemKind::Encrypted, "leave it out"),
        (SourceColumn { masked: true, ..secret.clone() }, ProblemKind::Masked, "GRANT UNMASK"),
        (
            SourceColumn { column_set: true, sql_type: SqlType::Xml, ..secret.clone() },
            ProblemKind::ColumnSet,
            "leave it out",
        ),
        (plain(SqlType::Variant), ProblemKind::Variant, "variants = \"text\""),
        (plain(SqlType::UserDefined { name: "Point".to_owned() }), ProblemKind::ClrType, "read a view"),
        (plain(SqlType::Other { name: "qubit".to_owned() }), ProblemKind::UnknownType, "read a view"),
    ] {
        let problem = ColumnPlan::new(&column, &ColumnOptions::default()).unwrap_err();
        assert_eq!(problem.kind, kind);
        let text = problem.to_string();
        let begin = format!("column `secret` ({})", column.sql_type);
        assert!(text.starts_with(&begin) && text.contains(advice), "{text}");
    }
}

#[test]
fn a_variant_becomes_text_when_asked_for() {
    let options = ColumnOptions { variants: Variants::Text, ..ColumnOptions::default() };
    let plan = ColumnPlan::new(&SourceColumn::plain("c", SqlType::Variant), &options).unwrap();
    assert_eq!(plan.fields, [Field::new("c", DataType::Utf8, true)]);
    let expression = plan.select("T").remove(0);
    assert!(expression.starts_with("CASE CAST(SQL_VARIANT_PROPERTY(T.[c], 'BaseType') AS nvarchar(128))"));
    assert!(expression.contains(" WHEN N'money' THEN CONVERT(nvarchar(max), CAST(T.[c] AS money), 2)"));
    assert!(expression.ends_with(" ELSE CAST(T.[c] AS nvarchar(max)) END"));
}

#[test]
fn options_choose_how_times_are_kept() {
    let fields = |sql_type, options: ColumnOptions| {
        ColumnPlan::new(&SourceColumn::plain("c", sql_type), &options).unwrap().fields
    };
    let text = ColumnOptions { sub_microseconds: SubMicroseconds::Text, ..ColumnOptions::default() };
    let type_of = |sql_type, options| fields(sql_type, options)[0].data_type().clone();
    assert_eq!(type_of(SqlType::DateTime2 { scale: 7 }, text), DataType::Utf8);
    assert_eq!(type_of(SqlType::DateTimeOffset { scale: 7 }, text), DataType::Utf8);
    assert_ne!(type_of(SqlType::DateTime2 { scale: 6 }, text), DataType::Utf8);
    assert_ne!(type_of(SqlType::DateTimeOffset { scale: 6 }, text), DataType::Utf8);
    assert_ne!(type_of(SqlType::DateTime, text), DataType::Utf8);
    let numbers = ColumnOptions { times: Times::Microseconds, ..ColumnOptions::default() };
    assert_eq!(type_of(SqlType::Time { scale: 7 }, numbers), DataType::Int64);
    let exact = ColumnOptions { times: Times::Microseconds, ..text };
    assert_eq!(type_of(SqlType::Time { scale: 7 }, exact), DataType::Utf8);
    assert_eq!(type_of(SqlType::Time { scale: 6 }, exact), DataType::Int64);
    let utc = ColumnOptions { timestamps: Timestamps::Utc, ..ColumnOptions::default() };
    let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    assert_eq!(type_of(SqlType::DateTime, utc), zoned);
}

#[test]
fn companions_keep_what_would_be_lost() {
    let options = ColumnOptions { companions: true, ..ColumnOptions::default() };
    let of = |sql_type| ColumnPlan::new(&SourceColumn::plain("c", sql_type), &options).unwrap();
    let offset = of(SqlType::DateTimeOffset { scale: 7 });
    assert_eq!(offset.fields[1], Field::new("c__offset_min", DataType::Int16, true));
    assert_eq!(offset.select("T"), ["T.[c]"]);
    let shape = of(SqlType::Geometry);
    assert_eq!(shape.fields[1], Field::new("c__srid", DataType::Int32, true));
    assert_eq!(shape.select("T")[2], "T.[c].STSrid");
    assert_eq!(shape.width(), 3);
}

#[test]
fn losses_are_noted() {
    let notes = |column: &SourceColumn| ColumnPlan::new(column, &ColumnOptions::default()).unwrap().notes;
    let plain = |sql_type| notes(&SourceColumn::plain("c", sql_type));
    assert_eq!(plain(SqlType::Int), Vec::<String>::new());
    assert_eq!(plain(SqlType::DateTime2 { scale: 6 }), Vec::<String>::new());
    assert!(plain(SqlType::DateTime2 { scale: 7 })[0].contains("seventh digit"));
    assert_eq!(plain(SqlType::DateTimeOffset { scale: 7 }).len(), 2);
    assert!(plain(SqlType::Xml)[0].contains("not byte for byte"));
    assert!(plain(SqlType::Geography)[0].contains("spatial reference"));
    let computed =
        SourceColumn { computed: Some(Computed { persisted: false }), ..SourceColumn::plain("c", SqlType::Int) };
    assert!(notes(&computed)[0].contains("computed when it is read"));
}

#[test]
fn keys_lose_nothing() {
    let key = |sql_type| ColumnPlan::for_key(&SourceColumn::plain("c", sql_type), &ColumnOptions::default());
    assert_eq!(key(SqlType::DateTime2 { scale: 7 }).unwrap().cell, Cell::Moment { utc: false, exact: true });
    assert_eq!(key(SqlType::DateTime2 { scale: 7 }).unwrap().notes, Vec::<String>::new());
    for sql_type in [
        SqlType::Float,
        SqlType::Real,
        SqlType::Variant,
        SqlType::NVarChar { length: None },
        SqlType::Text,
        SqlType::Xml,
        SqlType::Vector { dimensions: 2 },
        SqlType::Geography,
    ] {
        assert_eq!(key(sql_type.clone()).unwrap_err().kind, ProblemKind::NoKey, "{sql_type}");
    }
    let options = ColumnOptions { sub_microseconds: SubMicroseconds::Text, ..ColumnOptions::default() };
    let column = SourceColumn::plain("c", SqlType::DateTimeOffset { scale: 7 });
    assert_eq!(ColumnPlan::for_key(&column, &options).unwrap().cell, Cell::InstantText { utc: true });
    assert_eq!(ColumnPlan::new(&column, &options).unwrap().cell, Cell::InstantText { utc: false });
}
