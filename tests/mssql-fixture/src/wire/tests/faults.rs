//! Attention, and the faults that a test can put into an answer.

use std::time::Duration;

use futures::TryStreamExt;
use tiberius::QueryItem;

use super::Stage;

#[tokio::test]
async fn packets_of_one_byte_carry_the_same_rows() {
    let stage = Stage::new().await;
    let mut client = stage.client().await.unwrap();
    stage.front.database.faults().split_packets(true);
    let rows = client.simple_query("count 200").await.unwrap().into_first_result().await.unwrap();
    assert_eq!(rows.len(), 200);
}

#[tokio::test]
async fn a_cut_answer_is_an_error_wherever_it_is_cut() {
    let stage = Stage::new().await;
    for after in [0, 1, 7, 8, 9, 100, 4095, 4096, 4097, 8192, 20_000] {
        let mut client = stage.client().await.unwrap();
        stage.front.database.faults().cut(after);
        let result = async { client.simple_query("count 2000").await?.into_first_result().await }.await;
        assert!(result.is_err(), "cut after {after} bytes");
        let mut next = stage.client().await.unwrap();
        assert_eq!(next.simple_query("count 3").await.unwrap().into_first_result().await.unwrap().len(), 3);
    }
}

#[tokio::test]
async fn a_stalled_answer_goes_on_when_it_is_released() {
    let stage = Stage::new().await;
    let mut client = stage.client().await.unwrap();
    let faults = stage.front.database.faults();
    faults.stall(10_000, None);
    let mut stream = client.simple_query("count 2000").await.unwrap();
    let mut rows = 0;
    while let Some(item) = stream.try_next().await.unwrap() {
        rows += usize::from(matches!(item, QueryItem::Row(_)));
        if rows == 50 {
            faults.release();
        }
    }
    assert_eq!(rows, 2000);
}

#[tokio::test]
async fn an_attention_ends_a_run_that_has_sent_nothing() {
    let stage = Stage::new().await;
    let mut raw = raw_client(&stage).await;
    raw.batch("wait").await;
    raw.attention().await;
    assert!(raw.reads_attention_answer().await);
    raw.batch("count 1").await;
    assert!(raw.read_message().await.contains(&0xD1));
}

#[tokio::test]
async fn an_attention_in_the_middle_of_rows_ends_them() {
    let stage = Stage::new().await;
    let mut client = stage.client().await.unwrap();
    let mut stream = client.simple_query("count 100000000").await.unwrap();
    for _ in 0..1000 {
        stream.try_next().await.unwrap();
    }
    drop(stream);
    client.cancel_query().await.unwrap();
    assert_eq!(client.simple_query("count 3").await.unwrap().into_first_result().await.unwrap().len(), 3);
}

#[tokio::test]
async fn an_attention_between_requests_is_answered() {
    let stage = Stage::new().await;
    let mut raw = raw_client(&stage).await;
    raw.attention().await;
    assert!(raw.reads_attention_answer().await);
    raw.batch("count 1").await;
    assert!(raw.read_message().await.contains(&0xD1));
}

#[tokio::test]
async fn a_slow_attention_is_answered_when_it_is_released() {
    let stage = Stage::new().await;
    let faults = stage.front.database.faults().clone();
    faults.slow_attention(Some(Duration::from_secs(600)));
    let mut raw = raw_client(&stage).await;
    raw.batch("wait").await;
    raw.attention().await;
    let answer = raw.reads_attention_answer();
    tokio::pin!(answer);
    // Whenever the server begins to wait, a later release lets it go on.
    let answered = loop {
        tokio::select! {
            answered = &mut answer => break answered,
            () = tokio::task::yield_now() => faults.release(),
        }
    };
    assert!(answered);
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_run() {
    let stage = Stage::new().await;
    let mut raw = raw_client(&stage).await;
    raw.batch("wait").await;
    drop(raw);
    // The player's wait ends only by being cancelled; the runtime could not shut down else.
}

/// A client that speaks packets and nothing else.
struct Raw(tokio::net::TcpStream);

async fn raw_client(stage: &Stage) -> Raw {
    use tokio::io::AsyncWriteExt;
    let mut raw = Raw(tokio::net::TcpStream::connect(stage.address).await.unwrap());
    let mut login = vec![0; 94];
    login[4..8].copy_from_slice(&0x7400_0004u32.to_le_bytes());
    for (field, text) in [(40, "sa"), (44, "pässword")] {
        let mut units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        if field == 44 {
            units.iter_mut().for_each(|byte| *byte = byte.rotate_left(4) ^ 0xA5);
        }
        let offset = u16::try_from(login.len()).unwrap();
        login[field..field + 2].copy_from_slice(&offset.to_le_bytes());
        login[field + 2..field + 4].copy_from_slice(&u16::try_from(units.len() / 2).unwrap().to_le_bytes());
        login.extend_from_slice(&units);
    }
    raw.0.write_all(&packet(0x10, &login)).await.unwrap();
    assert!(raw.read_message().await.contains(&0xAD));
    raw
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind, 1];
    packet.extend_from_slice(&u16::try_from(body.len() + 8).unwrap().to_be_bytes());
    packet.extend_from_slice(&[0, 0, 1, 0]);
    packet.extend_from_slice(body);
    packet
}

impl Raw {
    async fn batch(&mut self, text: &str) {
        use tokio::io::AsyncWriteExt;
        let mut body = vec![4, 0, 0, 0];
        body.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
        self.0.write_all(&packet(1, &body)).await.unwrap();
    }

    async fn attention(&mut self) {
        use tokio::io::AsyncWriteExt;
        self.0.write_all(&packet(6, &[])).await.unwrap();
    }

    async fn read_message(&mut self) -> Vec<u8> {
        use tokio::io::AsyncReadExt;
        let mut message = Vec::new();
        loop {
            let mut header = [0; 8];
            self.0.read_exact(&mut header).await.unwrap();
            let mut payload = vec![0; usize::from(u16::from_be_bytes([header[2], header[3]])) - 8];
            self.0.read_exact(&mut payload).await.unwrap();
            message.extend_from_slice(&payload);
            if header[1] & 1 != 0 {
                return message;
            }
        }
    }

    /// Whether the next message ends with DONE that answers an attention.
    async fn reads_attention_answer(&mut self) -> bool {
        let message = self.read_message().await;
        message.len() >= 13 && message[message.len() - 13..message.len() - 10] == [0xFD, 0x20, 0]
    }
}
