//! Bulk loads.

use tiberius::{IntoSql, TokenRow};

use super::{Stage, column};
use crate::value::{SqlType, Value};
use crate::wire::prelogin::Encryption;

fn target() -> super::Table {
    let columns = vec![
        column("id", SqlType::Int),
        column("name", SqlType::NVarChar { length: None }),
        column("amount", SqlType::Decimal { precision: 18, scale: 4 }),
    ];
    ("SELECT".to_owned(), columns, Vec::new())
}

#[tokio::test]
async fn rows_in_bulk_arrive_in_order_whatever_their_size() {
    let stage = Stage::with(Encryption::LoginOnly, false, vec![target()]).await;
    let mut client = stage.client().await.unwrap();
    let mut load = client.bulk_insert("t").await.unwrap();
    let long = "漢字".repeat(15_000);
    for id in 0..5000i32 {
        let mut row = TokenRow::new();
        row.push(id.into_sql());
        row.push(if id == 4321 { long.as_str().into_sql() } else { Some("short").filter(|_| id % 3 != 0).into_sql() });
        row.push(tiberius::numeric::Numeric::new_with_scale(i128::from(id), 4).into_sql());
        load.send(row).await.unwrap();
    }
    assert_eq!(load.finalize().await.unwrap().total(), 5000);
    let seen = stage.seen();
    assert_eq!(seen.bulk_rows.len(), 5000);
    assert_eq!(seen.bulk_rows[4321][1], Value::Text(long));
    assert_eq!(seen.bulk_rows[3][1], Value::Null);
    assert_eq!(seen.bulk_rows[4999][2], Value::Decimal { unscaled: 4999, scale: 4 });
    assert_eq!(seen.events, ["begin", "commit"]);
}

#[tokio::test]
async fn a_bulk_load_that_ends_too_soon_is_rolled_back() {
    use crate::wire::bulk::BulkLoad;
    let stage = Stage::new().await;
    let mut player = super::Player { seen: stage.seen.clone(), ..super::Player::default() };
    let mut load = BulkLoad::new(vec![column("id", SqlType::Int)]);
    // COLMETADATA of one intn, two rows, the second cut short, no DONE.
    load.push(&[0x81, 1, 0, 0, 0, 0, 0, 9, 0, 0x26, 4, 1, b'i', 0, 0xD1, 4, 1, 0, 0, 0, 0xD1, 4, 2]);
    assert_eq!(load.finish(&mut player).unwrap_err().number, 4804);
    assert_eq!(stage.seen().events, ["begin", "rollback"]);
}

#[tokio::test]
async fn a_value_larger_than_many_packets_is_put_together() {
    use crate::wire::bulk::BulkLoad;
    let stage = Stage::new().await;
    let mut player = super::Player { seen: stage.seen.clone(), ..super::Player::default() };
    let mut load = BulkLoad::new(vec![column("data", SqlType::VarBinary { length: None })]);
    let mut message = vec![0x81, 1, 0, 0, 0, 0, 0, 9, 0, 0xA5, 0xFF, 0xFF, 1, b'd', 0, 0xD1];
    message.extend_from_slice(&(u64::MAX - 1).to_le_bytes());
    for part in 0..20u8 {
        message.extend_from_slice(&100_000u32.to_le_bytes());
        message.extend(std::iter::repeat_n(part, 100_000));
    }
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(&[0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for packet in message.chunks(4088) {
        if load.push(packet) {
            load.insert(&mut player);
        }
    }
    assert_eq!(load.finish(&mut player), Ok(1));
    let seen = stage.seen();
    assert!(matches!(&seen.bulk_rows[0][0], Value::Bytes(bytes) if bytes.len() == 2_000_000 && bytes[1_950_000] == 19));
}

#[tokio::test]
async fn a_load_may_end_with_its_message_and_no_done() {
    use crate::wire::bulk::BulkLoad;
    let stage = Stage::new().await;
    let mut player = super::Player { seen: stage.seen.clone(), ..super::Player::default() };
    let mut load = BulkLoad::new(vec![column("id", SqlType::Int), column("x", SqlType::Text)]);
    // As FreeTDS sends it: the name of the table in one, a text pointer, nothing behind the last row.
    let name: Vec<u8> = "ops.dbo.b3".encode_utf16().flat_map(u16::to_le_bytes).collect();
    load.push(&[0x81, 2, 0, 0, 0, 0, 0, 8, 0, 0x38, 2, b'i', 0, b'd', 0]);
    load.push(&[0, 0, 0, 0, 9, 0, 0x23, 0xFF, 0xFF, 0xFF, 0x7F, 9, 4, 0xD0, 0, 52, 10, 0]);
    load.push(&name);
    load.push(&[1, b'x', 0, 0xD1, 7, 0, 0, 0, 0x10]);
    load.push(&[0xFF; 24]);
    load.push(&[4, 0, 0, 0, b't', b'e', b'x', b't']);
    assert_eq!(load.finish(&mut player), Ok(1));
    assert_eq!(stage.seen().bulk_rows, [[Value::Int(7), Value::Text("text".into())]]);
}
