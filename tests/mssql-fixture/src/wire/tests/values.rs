//! Every type, through tiberius and back through the wire's own decoder.

use bytes::BytesMut;
use tiberius::ColumnData;

use super::{Stage, Table, column};
use crate::value::{Collation, Column, SqlType, Value};
use crate::wire::cursor::Cursor;
use crate::wire::decode::WireType;
use crate::wire::prelogin::Encryption;
use crate::wire::type_info::{Abilities, ColumnShape};

/// A value of every type.
fn samples() -> Vec<(Column, Value)> {
    let text = |text: &str| Value::Text(text.to_owned());
    let in_collation =
        |name: &str, sql_type, collation: &str| Column::new(name, sql_type, Collation::parse(collation).unwrap());
    let varchar = || SqlType::VarChar { length: Some(50) };
    vec![
        (column("bit", SqlType::Bit), Value::Bit(true)),
        (column("tinyint", SqlType::TinyInt), Value::Int(255)),
        (column("smallint", SqlType::SmallInt), Value::Int(-32768)),
        (column("int", SqlType::Int), Value::Int(i64::from(i32::MIN))),
        (column("bigint", SqlType::BigInt), Value::Int(i64::MIN)),
        (
            column("dec9", SqlType::Decimal { precision: 9, scale: 2 }),
            Value::Decimal { unscaled: -123_456_789, scale: 2 },
        ),
        (
            column("dec38", SqlType::Decimal { precision: 38, scale: 10 }),
            Value::Decimal { unscaled: 10i128.pow(38) - 1, scale: 10 },
        ),
        (column("money", SqlType::Money), Value::Money(9_223_372_036_854_775_806)),
        (column("smallmoney", SqlType::SmallMoney), Value::Money(-2_147_483_648)),
        (column("real", SqlType::Real), Value::Real(1.5)),
        (column("float", SqlType::Float), Value::Float(-0.1)),
        (column("char", SqlType::Char { length: 5 }), text("ab   ")),
        (column("varchar", varchar()), text("naïve €")),
        (in_collation("utf8", varchar(), "Latin1_General_100_CI_AS_SC_UTF8"), text("héllo 漢字")),
        (in_collation("cp850", varchar(), "SQL_Latin1_General_CP850_CI_AS"), text("Ðþ")),
        (column("varcharmax", SqlType::VarChar { length: None }), text(&"long ".repeat(20_000))),
        (column("text", SqlType::Text), text("old text")),
        (column("nchar", SqlType::NChar { length: 3 }), text("字  ")),
        (column("nvarchar", SqlType::NVarChar { length: Some(20) }), text("漢字 🎉")),
        (column("nvarcharmax", SqlType::NVarChar { length: None }), text("")),
        (column("ntext", SqlType::NText), text("漢")),
        (column("binary", SqlType::Binary { length: 3 }), Value::Bytes(vec![1, 0, 255])),
        (column("varbinary", SqlType::VarBinary { length: Some(9) }), Value::Bytes(Vec::new())),
        (column("varbinarymax", SqlType::VarBinary { length: None }), Value::Bytes(vec![7; 100_000])),
        (column("image", SqlType::Image), Value::Bytes(vec![9; 10])),
        (column("rowversion", SqlType::RowVersion), Value::Bytes(vec![0, 0, 0, 0, 0, 0, 7, 209])),
        (column("date", SqlType::Date), Value::Date(3_652_058)),
        (column("time0", SqlType::Time { scale: 0 }), Value::Time(863_990_000_000)),
        (column("time3", SqlType::Time { scale: 3 }), Value::Time(863_999_990_000)),
        (column("time7", SqlType::Time { scale: 7 }), Value::Time(863_999_999_999)),
        (column("datetime", SqlType::DateTime), Value::DateTime { days: -53_690, ticks: 25_919_999 }),
        (column("smalldatetime", SqlType::SmallDateTime), Value::SmallDateTime { days: 65_535, minutes: 1439 }),
        (column("datetime2", SqlType::DateTime2 { scale: 7 }), Value::DateTime2 { days: 737_000, time: 1 }),
        (column("datetime2_3", SqlType::DateTime2 { scale: 3 }), Value::DateTime2 { days: 0, time: 10_000 }),
        (
            column("offset", SqlType::DateTimeOffset { scale: 7 }),
            Value::DateTimeOffset { days: 737_767, time: 341_000_000_000, minutes: -90 },
        ),
        (
            column("guid", SqlType::UniqueIdentifier),
            Value::Guid([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
        ),
        (column("xml", SqlType::Xml), text("<a>漢</a>")),
        (column("json", SqlType::Json), text("{\"a\":1}")),
        (column("vector", SqlType::Vector { dimensions: 2 }), text("[1.0,2.5]")),
        (column("variant", SqlType::Variant), text("either")),
    ]
}

#[test]
fn every_value_reads_back_as_it_was_written() {
    for (column, value) in samples() {
        for value in [value, Value::Null] {
            for abilities in [Abilities::default(), Abilities { json: true }] {
                let shape = ColumnShape::of(&column, abilities);
                let mut bytes = BytesMut::new();
                shape.put_type_info(&column, &mut bytes);
                shape.put_value(&value, &mut bytes).unwrap();
                let mut input = Cursor::new(&bytes);
                let wire_type = WireType::read(&mut input).unwrap();
                assert_eq!(wire_type.read_row_value(&mut input), Ok(value.clone()), "{}", column.name);
                assert!(input.is_empty(), "{}", column.name);
            }
        }
    }
}

#[test]
fn a_value_cut_short_is_short_and_never_a_panic() {
    for (column, value) in samples() {
        let shape = ColumnShape::of(&column, Abilities::default());
        let mut bytes = BytesMut::new();
        shape.put_value(&value, &mut bytes).unwrap();
        let mut info = BytesMut::new();
        shape.put_type_info(&column, &mut info);
        let wire_type = WireType::read(&mut Cursor::new(&info)).unwrap();
        for length in 0..bytes.len().min(40) {
            assert!(wire_type.read_row_value(&mut Cursor::new(&bytes[..length])).is_err(), "{} {length}", column.name);
        }
        for length in 0..info.len() {
            assert!(WireType::read(&mut Cursor::new(&info[..length])).is_err(), "{} {length}", column.name);
        }
    }
}

#[test]
fn null_in_a_column_that_is_not_null_is_refused() {
    let mut column = column("n", SqlType::Int);
    column.nullable = false;
    let mut bytes = BytesMut::new();
    assert!(ColumnShape::of(&column, Abilities::default()).put_value(&Value::Null, &mut bytes).is_err());
    assert!(bytes.is_empty());
}

#[test]
fn nonsense_is_refused_and_never_a_panic() {
    use rand::{Rng, SeedableRng};
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    for _ in 0..20_000 {
        let mut message = vec![0; random.random_range(0..200)];
        random.fill(message.as_mut_slice());
        // Small numbers are where lengths and counts go on to be read.
        message.iter_mut().filter(|byte| **byte > 100).for_each(|byte| *byte %= 5);
        let _ = crate::wire::login::Login::decode(&message);
        let _ = crate::wire::prelogin::wanted_encryption(&message);
        let _ = crate::wire::rpc::read_calls(&mut Cursor::new(&message));
        let _ = Cursor::new(&message).all_headers();
        if let Ok(wire_type) = WireType::read(&mut Cursor::new(&message)) {
            let _ = wire_type.read_value(&mut Cursor::new(&message));
            let _ = wire_type.read_row_value(&mut Cursor::new(&message));
        }
        let mut load = crate::wire::bulk::BulkLoad::new(vec![column("n", SqlType::Int)]);
        load.push(&[0x81, 1, 0, 0, 0, 0, 0, 9, 0, message.first().copied().unwrap_or(0x26)]);
        load.push(&message);
        let _ = load.finish(&mut super::Player::default());
    }
}

/// One row of all samples tiberius can read, one of NULLs, one of all again.
fn table() -> Table {
    let (columns, values): (Vec<Column>, Vec<Value>) =
        samples().into_iter().filter(|(column, _)| column.name != "cp850").unzip();
    let nulls = vec![Value::Null; values.len()];
    ("samples".to_owned(), columns, vec![values.clone(), nulls, values])
}

async fn read(null_bitmaps: bool) -> Vec<tiberius::Row> {
    let stage = Stage::with(Encryption::LoginOnly, null_bitmaps, vec![table()]).await;
    let mut client = stage.client().await.unwrap();
    client.simple_query("samples").await.unwrap().into_first_result().await.unwrap()
}

#[tokio::test]
async fn tiberius_reads_every_type() {
    for null_bitmaps in [false, true] {
        let rows = read(null_bitmaps).await;
        assert_eq!(rows.len(), 3);
        for row in [&rows[0], &rows[2]] {
            assert_eq!(row.get::<bool, _>("bit"), Some(true));
            assert_eq!(row.get::<u8, _>("tinyint"), Some(255));
            assert_eq!(row.get::<i64, _>("bigint"), Some(i64::MIN));
            assert_eq!(row.get::<tiberius::numeric::Numeric, _>("dec38").unwrap().value(), 10i128.pow(38) - 1);
            assert_eq!(row.get::<&str, _>("varchar"), Some("naïve €"));
            assert_eq!(row.get::<&str, _>("varcharmax").map(str::len), Some(100_000));
            assert_eq!(row.get::<&str, _>("ntext"), Some("漢"));
            assert_eq!(row.get::<&[u8], _>("rowversion"), Some(&[0, 0, 0, 0, 0, 0, 7, 209][..]));
            assert_eq!(row.get::<&str, _>("json"), Some("{\"a\":1}"));
            assert_eq!(row.get::<tiberius::Uuid, _>("guid").unwrap().as_bytes()[..4], [0, 1, 2, 3]);
            assert_eq!(row.get::<&str, _>("variant"), Some("either"));
        }
        let null = rows.into_iter().nth(1).unwrap();
        // smalldatetime's NULL comes as another type's out of an NBCROW; it is NULL all the same.
        let present: Vec<ColumnData<'static>> =
            null.into_iter().filter(|data| !format!("{data:?}").contains("None")).collect();
        assert!(present.is_empty(), "{present:?}");
    }
}

#[tokio::test]
async fn columns_that_are_not_null_are_read_too() {
    let (name, mut columns, rows) = table();
    columns.iter_mut().for_each(|column| column.nullable = false);
    let stage = Stage::with(Encryption::LoginOnly, false, vec![(name, columns, vec![rows[0].clone()])]).await;
    let mut client = stage.client().await.unwrap();
    let row = client.simple_query("samples").await.unwrap().into_row().await.unwrap().unwrap();
    assert_eq!(row.get::<i32, _>("int"), Some(i32::MIN));
    assert_eq!(row.get::<f64, _>("float"), Some(-0.1));
    assert_eq!(row.get::<i64, _>("bigint"), Some(i64::MIN));
}
