//! TLS 1.2 and later: the server's certificate, exchanged while it runs, and who a client's certificate names.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::config::{CertificateName, TlsSettings};
use crate::flight::FlightError;

/// HTTP/2, which is all that gRPC speaks.
const PROTOCOL: &[u8] = b"h2";

/// How connections are encrypted at this moment.
#[derive(Debug)]
pub(crate) struct Tls {
    settings: TlsSettings,
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads certificate and key.
    pub(crate) fn open(settings: &TlsSettings) -> Result<Self, FlightError> {
        Ok(Self { settings: settings.clone(), config: RwLock::new(Arc::new(server_config(settings)?)) })
    }

    /// Reads the files anew, for connections that are made from now on.
    ///
    /// # Errors
    /// When they cannot be used; then all stays as it was.
    pub(crate) fn reload(&self) -> Result<(), FlightError> {
        let config = Arc::new(server_config(&self.settings)?);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// What holds for a new connection.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn server_config(settings: &TlsSettings) -> Result<ServerConfig, FlightError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let unusable = |path: &Path, reason: String| FlightError::Certificate { path: path.to_owned(), reason };
    let certificates = certificates(&settings.certificate)?;
    let key =
        PrivateKeyDer::from_pem_file(&settings.key).map_err(|error| unusable(&settings.key, error.to_string()))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&settings.certificate, error.to_string()))?;
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in self::certificates(path)? {
                roots.add(authority).map_err(|error| unusable(path, error.to_string()))?;
            }
            // A client may come without a certificate: then it has to show something else.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = verifier.allow_unauthenticated().build();
            builder.with_client_cert_verifier(verifier.map_err(|error| unusable(path, error.to_string()))?)
        }
    };
    let mut config = builder
        .with_single_cert(certificates, key)
        .map_err(|error| unusable(&settings.certificate, format!("it cannot be used with the key: {error}")))?;
    config.alpn_protocols.push(PROTOCOL.to_vec());
    Ok(config)
}

/// The certificates in a PEM file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FlightError> {
    let unusable = |reason: String| FlightError::Certificate { path: path.to_owned(), reason };
    let read = CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))?;
    let read: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| unusable(error.to_string()))?;
    match read.is_empty() {
        true => Err(unusable("it holds no certificate in PEM form".to_owned())),
        false => Ok(read),
    }
}

/// Whom a client's certificate names; nothing where it names nobody. It was verified before.
pub(crate) fn certificate_name(certificate: &CertificateDer<'_>, part: CertificateName) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let alternative = |wanted: fn(&GeneralName<'_>) -> Option<String>| {
        let names = certificate.subject_alternative_name().ok()??;
        names.value.general_names.iter().find_map(wanted)
    };
    let name = match part {
        CertificateName::CommonName => {
            certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok()).map(str::to_owned)
        }
        CertificateName::Email => alternative(|name| match name {
            GeneralName::RFC822Name(name) => Some((*name).to_owned()),
            _ => None,
        }),
        CertificateName::Uri => alternative(|name| match name {
            GeneralName::URI(name) => Some((*name).to_owned()),
            _ => None,
        }),
    };
    name.filter(|name| !name.is_empty() && !name.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn a_certificate_names_who_is_configured_to_be_named() {
        let mut params = CertificateParams::new(vec!["host.example".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "ann");
        params.subject_alt_names.push(SanType::Rfc822Name("ann@example.org".try_into().unwrap()));
        params.subject_alt_names.push(SanType::URI("spiffe://example.org/ann".try_into().unwrap()));
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let name = |part| certificate_name(certificate.der(), part);
        assert_eq!(name(CertificateName::CommonName).as_deref(), Some("ann"));
        assert_eq!(name(CertificateName::Email).as_deref(), Some("ann@example.org"));
        assert_eq!(name(CertificateName::Uri).as_deref(), Some("spiffe://example.org/ann"));
        let nobody = CertificateParams::new(vec!["host.example".to_owned()]).unwrap();
        let nobody = nobody.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(certificate_name(nobody.der(), CertificateName::Email), None);
    }

    #[test]
    fn a_wrong_file_is_named_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let make = || {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
            (certificate.pem(), key.serialize_pem())
        };
        let ((certificate, key), (_, other_key)) = (make(), make());
        write("c.pem", &certificate);
        write("k.pem", &key);
        let path = |name: &str| folder.path().join(name);
        let settings = TlsSettings { certificate: path("c.pem"), key: path("k.pem"), client_ca: None };
        let tls = Tls::open(&settings).unwrap();
        let before = tls.config();
        write("k.pem", &other_key);
        let error = tls.reload().unwrap_err().to_string();
        assert!(error.contains("c.pem") && error.contains("cannot be used with the key"), "{error}");
        write("c.pem", "nothing");
        let error = tls.reload().unwrap_err().to_string();
        assert!(error.contains("no certificate in PEM form"), "{error}");
        assert!(Arc::ptr_eq(&before, &tls.config()));
        write("c.pem", &certificate);
        write("k.pem", &key);
        tls.reload().unwrap();
        assert!(!Arc::ptr_eq(&before, &tls.config()));
    }
}
