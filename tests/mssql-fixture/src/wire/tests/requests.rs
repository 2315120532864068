//! Batches, procedure calls and transactions.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};
use tiberius::{IsolationLevel, Query};

use super::{Stage, number};
use crate::engine::Output;
use crate::value::{SqlType, Value};
use crate::wire::cursor::Cursor;
use crate::wire::reply::{CHUNKS_IN_FLIGHT, Reply, ReplyStyle};
use crate::wire::rpc::{PreparedStatements, read_calls, run_call};
use crate::wire::type_info::Abilities;

#[tokio::test]
async fn a_batch_of_two_results_gives_both() {
    let stage = Stage::new().await;
    let mut client = stage.client().await.unwrap();
    let results = client.simple_query("twice 700").await.unwrap().into_results().await.unwrap();
    assert_eq!(results.iter().map(Vec::len).collect::<Vec<_>>(), [700, 700]);
    assert_eq!(results[1][699].get::<i64, _>(0), Some(699));
    assert_eq!(results[1][699].get::<&str, _>(1), Some("row 699"));
}

#[tokio::test]
async fn parameters_arrive_with_their_types() {
    let stage = Stage::new().await;
    let mut client = stage.client().await.unwrap();
    let mut query = Query::new("echo");
    query.bind(7i32);
    query.bind("héllo 漢字");
    query.bind(Option::<i64>::None);
    query.bind(vec![1u8, 2, 3]);
    query.bind(true);
    query.bind(2.5f64);
    query.bind(tiberius::numeric::Numeric::new_with_scale(-12345, 2));
    let row = query.query(&mut client).await.unwrap().into_row().await.unwrap().unwrap();
    assert_eq!(row.get::<i32, _>(0), Some(7));
    assert_eq!(row.get::<&str, _>(1), Some("héllo 漢字"));
    assert_eq!(row.get::<i64, _>(2), None);
    assert_eq!(row.get::<&[u8], _>(3), Some(&[1u8, 2, 3][..]));
    assert_eq!(row.get::<bool, _>(4), Some(true));
    assert_eq!(row.get::<f64, _>(5), Some(2.5));
    assert_eq!(row.get::<tiberius::numeric::Numeric, _>(6).map(|n| n.value()), Some(-12345));
    let seen = stage.seen();
    assert_eq!(seen.parameters[0].name, "@P1");
    assert_eq!(seen.parameters[0].sql_type, SqlType::Int);
}

#[tokio::test]
async fn a_long_text_crosses_packets_both_ways() {
    let stage = Stage::new().await;
    let mut client = stage.client().await.unwrap();
    let long = "漢字 and more ".repeat(50_000);
    let mut query = Query::new("echo");
    query.bind(Cow::Borrowed(long.as_str()));
    let row = query.query(&mut client).await.unwrap().into_row().await.unwrap().unwrap();
    assert_eq!(row.get::<&str, _>(0), Some(long.as_str()));
}

#[tokio::test]
async fn an_error_after_rows_comes_after_them_and_the_connection_goes_on() {
    let stage = Stage::new().await;
    let mut client = stage.client().await.unwrap();
    let error = client.simple_query("deadlock 1000").await.unwrap().into_first_result().await.unwrap_err();
    assert_eq!(number(&error), Some(1205));
    assert_eq!(client.simple_query("count 5").await.unwrap().into_first_result().await.unwrap().len(), 5);
}

#[tokio::test]
async fn a_value_that_does_not_fit_its_column_is_an_error_and_no_broken_stream() {
    let stage = Stage::new().await;
    let mut client = stage.client().await.unwrap();
    let error = client.simple_query("misfit").await.unwrap().into_first_result().await.unwrap_err();
    assert_eq!(number(&error), Some(50000));
    assert_eq!(client.simple_query("count 5").await.unwrap().into_first_result().await.unwrap().len(), 5);
}

#[tokio::test]
async fn transactions_by_request_reach_the_engine() {
    let stage = Stage::new().await;
    let mut client = stage.client().await.unwrap();
    client.begin_transaction_with_isolation(IsolationLevel::Snapshot).await.unwrap();
    client.commit_transaction().await.unwrap();
    client.begin_transaction().await.unwrap();
    client.rollback_transaction().await.unwrap();
    assert_eq!(stage.seen().events, ["begin snapshot", "commit", "begin", "rollback"]);
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_engine_after_a_bounded_part() {
    let (sender, mut chunks) = tokio::sync::mpsc::channel(CHUNKS_IN_FLIGHT);
    let engine = tokio::task::spawn_blocking(move || {
        let mut reply = Reply::new(style(), sender, Default::default());
        let _ = reply.columns(&[super::column("n", SqlType::BigInt)]);
        (0i64..).take_while(|number| reply.row(&[Value::Int(*number)]).is_continue()).count()
    });
    let mut received = 0;
    for _ in 0..40 {
        received += chunks.recv().await.unwrap().len();
    }
    drop(chunks);
    let produced = engine.await.unwrap() * 10;
    // What was read, what waited in the channel, and one chunk in the making.
    assert!(produced <= received + (CHUNKS_IN_FLIGHT + 2) * (70 << 10), "{produced} of {received}");
}

fn style() -> ReplyStyle {
    ReplyStyle {
        packet_size: 4096,
        spid: 1,
        server: "s".into(),
        null_bitmaps: false,
        abilities: Abilities::default(),
        database: "ops".into(),
    }
}

/// An RPC message: the procedure's number, then parameters without names.
fn call(procedure: u16, parameters: &[Parameter<'_>]) -> BytesMut {
    let mut message = BytesMut::new();
    message.put_u16_le(0xFFFF);
    message.put_u16_le(procedure);
    message.put_u16_le(0);
    for parameter in parameters {
        message.put_u8(0);
        match parameter {
            Parameter::Handle(handle) => {
                message.put_slice(&[1, 0x26, 4, 4]);
                message.put_i32_le(*handle);
            }
            Parameter::Text(text) => {
                message.put_slice(&[0, 0xE7, 0xFF, 0xFF, 9, 4, 0xD0, 0, 52]);
                message.put_u64_le(u64::MAX - 1);
                message.put_u32_le(u32::try_from(text.len() * 2).unwrap());
                text.encode_utf16().for_each(|unit| message.put_u16_le(unit));
                message.put_u32_le(0);
            }
        }
    }
    message
}

enum Parameter<'a> {
    Handle(i32),
    Text(&'a str),
}

#[tokio::test]
async fn a_prepared_statement_runs_by_its_handle_until_it_is_unprepared() {
    let stage = Stage::new().await;
    let seen = std::sync::Arc::clone(&stage.seen);
    tokio::task::spawn_blocking(move || {
        let mut player = super::Player { seen: seen.clone(), ..super::Player::default() };
        let mut prepared = PreparedStatements::default();
        let mut run = |message: BytesMut| {
            let (sender, mut chunks) = tokio::sync::mpsc::channel(64);
            let mut reply = Reply::new(style(), sender, Default::default());
            for call in read_calls(&mut Cursor::new(&message)).unwrap() {
                run_call(call, &mut player, &mut prepared, &mut reply).unwrap();
            }
            reply.finish();
            chunks.try_recv().unwrap()
        };
        let declaration = Parameter::Text("@n int, @m nvarchar(max)");
        let answer =
            run(call(13, &[Parameter::Handle(0), declaration, Parameter::Text("echo x"), Parameter::Handle(5)]));
        // RETURNVALUE @handle int 1 near the end, then DONEPROC.
        assert_eq!(&answer[answer.len() - 13 - 7..answer.len() - 13], [0x26, 4, 4, 1, 0, 0, 0]);
        assert_eq!(answer[answer.len() - 13], 0xFE);
        run(call(12, &[Parameter::Handle(1), Parameter::Handle(6), Parameter::Text("t")]));
        {
            let seen = seen.lock().unwrap();
            assert_eq!(seen.batches, ["echo x", "echo x"]);
            let names: Vec<_> = seen.parameters.iter().map(|p| (p.name.as_str(), p.value.clone())).collect();
            assert_eq!(names, [("@n", Value::Int(6)), ("@m", Value::Text("t".into()))]);
        }
        run(call(15, &[Parameter::Handle(1)]));
        let refused = run(call(12, &[Parameter::Handle(1)]));
        let error = refused.iter().position(|byte| *byte == 0xAA).unwrap();
        assert_eq!(refused[error + 3..error + 7], 8179i32.to_le_bytes());
    })
    .await
    .unwrap();
}
