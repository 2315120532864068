//! TLS: who the server is, and who a client's certificate names.

use arrow_flight::flight_service_client::FlightServiceClient;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::door::{Door, House, PASSWORD, who};
use crate::support::credentials::{basic, bearer, token_header};

/// Somebody who vouches for others.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certificate and key for a host, or for somebody.
    fn vouch(&self, host: Option<&str>, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(host.map(str::to_owned).into_iter().collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

/// A house with users whose door has a certificate of an authority.
fn house(authority: &Authority, clients: Option<&Authority>) -> House {
    let house = House::with_users();
    let (certificate, key) = authority.vouch(Some("localhost"), "server");
    house.write("certificate.pem", certificate);
    house.write("key.pem", key);
    let mut text = "[serve.tls]\ncertificate = \"certificate.pem\"\nkey = \"key.pem\"\n".to_owned();
    if let Some(clients) = clients {
        house.write("clients.pem", clients.pem());
        text.push_str("client_ca = \"clients.pem\"\n");
    }
    house.write("lakegate.toml", text);
    house
}

/// A connection whose client trusts an authority, and may show a certificate.
async fn connect(
    door: &Door,
    trusted: &Authority,
    own: Option<&(String, String)>,
) -> Result<FlightServiceClient<Channel>, tonic::transport::Error> {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(trusted.pem())).domain_name("localhost");
    if let Some((certificate, key)) = own {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    let endpoint = Endpoint::new(format!("https://{}", door.address)).unwrap().tls_config(tls).unwrap();
    Ok(FlightServiceClient::new(endpoint.connect().await?))
}

#[tokio::test]
async fn connections_are_encrypted_and_the_server_is_who_it_says() {
    let (authority, other) = (Authority::new(), Authority::new());
    let door = house(&authority, None).open().await;
    let mut client = connect(&door, &authority, None).await.unwrap();
    let named = who(&mut client, &door.engine.asked, Some(&basic("ann", PASSWORD))).await.unwrap();
    assert_eq!(named, "ann sales");
    assert!(connect(&door, &other, None).await.is_err(), "nobody the client trusts vouches for it");
    // Whoever speaks in the clear gets no answer.
    let plain = Endpoint::new(format!("http://{}", door.address)).unwrap().connect().await;
    if let Ok(channel) = plain {
        let answer = who(&mut FlightServiceClient::new(channel), &door.engine.asked, None).await.unwrap_err();
        assert_ne!(answer.code(), Code::Unauthenticated);
    }
}

#[tokio::test]
async fn a_new_certificate_counts_for_new_connections_and_a_wrong_one_does_not() {
    let (before, after) = (Authority::new(), Authority::new());
    let house = house(&before, None);
    let door = house.open().await;
    let mut old = connect(&door, &before, None).await.unwrap();
    house.write("key.pem", "nothing");
    door.reload().await;
    connect(&door, &before, None).await.unwrap();
    let (certificate, key) = after.vouch(Some("localhost"), "server");
    house.write("certificate.pem", certificate);
    house.write("key.pem", key);
    door.reload().await;
    connect(&door, &after, None).await.unwrap();
    assert!(connect(&door, &before, None).await.is_err());
    let named = who(&mut old, &door.engine.asked, Some(&basic("ann", PASSWORD))).await.unwrap();
    assert_eq!(named, "ann sales", "what is connected stays so");
}

#[tokio::test]
async fn a_certificate_names_who_asks() {
    let (authority, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let house = house(&authority, Some(&clients));
    let bobs = house.token("bob", None);
    let door = house.open().await;
    let ann = clients.vouch(None, "ann");
    let mut client = connect(&door, &authority, Some(&ann)).await.unwrap();
    let asked = &door.engine.asked;
    assert_eq!(who(&mut client, asked, None).await.unwrap(), "ann sales");
    assert_eq!(who(&mut client, asked, Some("Bearer None")).await.unwrap(), "ann sales");
    assert_eq!(who(&mut client, asked, Some(&basic("ann", PASSWORD))).await.unwrap(), "ann sales");
    let two = who(&mut client, asked, Some(&token_header(&bobs))).await.unwrap_err();
    assert_eq!(two.code(), Code::Unauthenticated, "one certificate, somebody else's token");

    // Without a certificate something else has to be shown.
    let mut bare = connect(&door, &authority, None).await.unwrap();
    assert_eq!(who(&mut bare, asked, None).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(who(&mut bare, asked, Some(&token_header(&bobs))).await.unwrap(), "bob sales");

    // A certificate nobody vouches for is worth less than none. With TLS 1.3 the client learns it at its first call.
    let stranger = strangers.vouch(None, "ann");
    match connect(&door, &authority, Some(&stranger)).await {
        Err(_) => {}
        Ok(mut client) => drop(who(&mut client, asked, None).await.unwrap_err()),
    }
}

#[tokio::test]
async fn a_certificate_cannot_name_somebody_who_is_nobodys_to_be() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let door = house(&authority, Some(&clients)).open().await;
    let asked = &door.engine.asked;
    for name in ["operator", "everyone", "anonymous", "token", "ann m", "\u{430}nn"] {
        let mut client = connect(&door, &authority, Some(&clients.vouch(None, name))).await.unwrap();
        for header in [None, Some(basic("ann", PASSWORD))] {
            let refused = who(&mut client, asked, header.as_deref()).await.unwrap_err();
            assert_eq!(refused.code(), Code::Unauthenticated, "{name}");
            assert!(refused.message().starts_with("user, password or token are not accepted"), "{refused:?}");
        }
        let empty = futures::stream::empty::<arrow_flight::HandshakeRequest>();
        assert_eq!(client.handshake(empty).await.unwrap_err().code(), Code::Unauthenticated, "{name}");
    }
}

#[tokio::test]
async fn the_session_of_a_certificate_is_worth_nothing_without_it() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let door = house(&authority, Some(&clients)).open().await;
    let ann = clients.vouch(None, "ann");
    let mut client = connect(&door, &authority, Some(&ann)).await.unwrap();
    let empty = futures::stream::empty::<arrow_flight::HandshakeRequest>();
    let session = bearer(&client.handshake(empty).await.unwrap()).unwrap();
    let header = format!("Bearer {session}");
    let asked = &door.engine.asked;
    assert_eq!(who(&mut client, asked, Some(&header)).await.unwrap(), "ann sales");
    let mut bare = connect(&door, &authority, None).await.unwrap();
    assert_eq!(who(&mut bare, asked, Some(&header)).await.unwrap_err().code(), Code::Unauthenticated);
}
