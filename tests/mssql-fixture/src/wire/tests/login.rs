//! Logins: encryption of every kind, refusals, routing.

use tiberius::error::Error;
use tiberius::{AuthMethod, EncryptionLevel};

use super::{Stage, connect, number};
use crate::wire::prelogin::Encryption;

async fn counts(stage: &Stage, encryption: EncryptionLevel) -> tiberius::Result<usize> {
    let mut client = connect(stage.config(encryption)).await?;
    Ok(client.simple_query("count 3000").await?.into_first_result().await?.len())
}

#[tokio::test]
async fn every_kind_of_encryption_serves_queries() {
    let stage = Stage::new().await;
    for encryption in [
        EncryptionLevel::NotSupported,
        EncryptionLevel::Off,
        EncryptionLevel::On,
        EncryptionLevel::Required,
        EncryptionLevel::Strict,
    ] {
        assert_eq!(counts(&stage, encryption).await.unwrap(), 3000, "{encryption:?}");
    }
}

#[tokio::test]
async fn a_server_that_requires_encryption_gives_it_to_a_client_that_would_only_encrypt_the_login() {
    let stage = Stage::with(Encryption::Required, false, Vec::new()).await;
    assert_eq!(counts(&stage, EncryptionLevel::Off).await.unwrap(), 3000);
}

#[tokio::test]
async fn a_server_without_encryption_is_left_by_a_client_that_insists() {
    let stage = Stage::with(Encryption::Off, false, Vec::new()).await;
    assert!(counts(&stage, EncryptionLevel::Required).await.is_err());
    assert!(counts(&stage, EncryptionLevel::Strict).await.is_err());
    assert_eq!(counts(&stage, EncryptionLevel::NotSupported).await.unwrap(), 3000);
}

#[tokio::test]
async fn a_client_that_does_not_know_the_authority_goes_away() {
    let stage = Stage::new().await;
    let mut config = stage.config(EncryptionLevel::Required);
    let other = Stage::new().await;
    config = {
        let mut strange = other.config(EncryptionLevel::Required);
        strange.port(stage.address.port());
        drop(config);
        strange
    };
    assert!(connect(config).await.is_err());
}

#[tokio::test]
async fn a_wrong_password_is_18456_and_an_unknown_database_4060() {
    let stage = Stage::new().await;
    let mut wrong = stage.config(EncryptionLevel::On);
    wrong.authentication(AuthMethod::sql_server("sa", "guess"));
    assert_eq!(number(&connect(wrong).await.unwrap_err()), Some(18456));
    let mut elsewhere = stage.config(EncryptionLevel::On);
    elsewhere.database("payroll");
    assert_eq!(number(&connect(elsewhere).await.unwrap_err()), Some(4060));
}

#[tokio::test]
async fn a_login_fails_with_the_number_that_a_test_asks_for() {
    let stage = Stage::new().await;
    stage.front.database.faults().login_failure(Some(40613));
    assert_eq!(number(&stage.client().await.unwrap_err()), Some(40613));
    stage.front.database.faults().login_failure(None);
    assert!(stage.client().await.is_ok());
}

#[tokio::test]
async fn a_client_is_sent_to_another_server() {
    let stage = Stage::new().await;
    stage.front.database.faults().routing(Some("127.0.0.9:1499".parse().unwrap()));
    match stage.client().await.unwrap_err() {
        Error::Routing { host, port } => assert_eq!((host.as_str(), port), ("127.0.0.9", 1499)),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn packets_have_the_size_that_the_client_asks_for() {
    let stage = Stage::new().await;
    for size in [512, 4096, 32767] {
        let mut config = stage.config(EncryptionLevel::NotSupported);
        config.packet_size(size);
        let mut client = connect(config).await.unwrap();
        let rows = client.simple_query("count 5000").await.unwrap().into_first_result().await.unwrap();
        assert_eq!(rows.len(), 5000, "{size}");
    }
}
