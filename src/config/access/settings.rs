//! `[access]`, `[access.oidc]` and `[serve.tls]`: how people prove who they are, and how connections are encrypted.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::access::AccessFiles;
use crate::config::lakegate_file::{Surroundings, optional, positive};
use crate::config::reader::{At, Field, OneOrMany, low_table};
use crate::config::values::{Choice, Chosen, Count, Span, Text};

low_table! {
    /// `[access]`
    LowAccess {
        /// File with users, their passwords' hashes and tokens; users.toml, where there is one.
        users: Text;
        /// File with roles, grants, row filters and masks; grants.toml, where there is one.
        grants: Text;
        /// How long the token of a handshake lets its holder in.
        session_lifetime: Span = "24h";
        /// How long a name has to wait at an address after a wrong password; twice as long after each further one.
        failure_delay: Span = "500ms";
        /// The longest such wait.
        longest_delay: Span = "1m";
        /// Passwords that are checked at the same time; each check takes 19 MiB.
        parallel_checks: Count = 4;
        /// Which part of a client's certificate is its name.
        certificate_name: Chosen<CertificateName> = "common_name";
        /// The identity provider whose tokens let people in.
        oidc: LowOidc;
    }
}

low_table! {
    /// `[access.oidc]`
    LowOidc {
        /// Who issues the tokens, as their claim iss has it.
        issuer: Text;
        /// For whom they are issued, as their claim aud has it; one or several.
        audience: OneOrMany<Text>;
        /// The provider's keys (JWKS): a file, or an https:// address.
        jwks: Text;
        /// The claim that is the name of who asks.
        name_claim: Text = "sub";
        /// Claims whose values give roles, by way of the grants file; dots lead into claims that hold others.
        role_claims: Vec<At<Text>> = ["groups", "roles"];
        /// How far the clocks of provider and server may be apart.
        clock_skew: Span = "60s";
    }
}

low_table! {
    /// `[serve.tls]`
    LowTls {
        /// PEM file with the server's certificate and those between it and its authority.
        certificate: Text;
        /// PEM file with its private key.
        key: Text;
        /// PEM file with the authorities whose certificates let clients in.
        client_ca: Text;
    }
}

/// Who is let in, and how they prove who they are.
#[derive(Clone, Debug)]
pub struct AccessSettings {
    /// The users file, whether it is there or not.
    pub users_file: PathBuf,
    /// Whether it was named, and so has to be there.
    pub users_named: bool,
    /// The grants file, whether it is there or not.
    pub grants_file: PathBuf,
    /// Whether it was named, and so has to be there.
    pub grants_named: bool,
    /// How long the token of a handshake lets its holder in.
    pub session_lifetime: Duration,
    /// How long a name has to wait at an address after a wrong password; twice as long after each further one.
    pub failure_delay: Duration,
    /// The longest such wait.
    pub longest_delay: Duration,
    /// Passwords that are checked at the same time.
    pub parallel_checks: NonZeroUsize,
    /// Which part of a client's certificate is its name.
    pub certificate_name: CertificateName,
    /// Whether certificates of clients let them in.
    pub certificates: bool,
    /// The identity provider whose tokens let people in.
    pub oidc: Option<OidcSettings>,
    /// What the two files held when they were read first.
    pub files: AccessFiles,
}

/// An identity provider.
#[derive(Clone, Debug)]
pub struct OidcSettings {
    /// Who issues the tokens.
    pub issuer: String,
    /// For whom they are issued; one of them has to be named.
    pub audience: Vec<String>,
    /// Where the provider's keys are.
    pub jwks: KeySetPlace,
    /// The claim that is the name of who asks.
    pub name_claim: String,
    /// Claims whose values give roles.
    pub role_claims: Vec<String>,
    /// How far clocks may be apart.
    pub clock_skew: Duration,
}

/// Where a set of keys is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySetPlace {
    /// A file.
    File(PathBuf),
    /// An address.
    Url(url::Url),
}

/// Which part of a client's certificate is its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateName {
    /// The subject's common name.
    CommonName,
    /// The first e-mail address of the alternative names.
    Email,
    /// The first URI of the alternative names, as SPIFFE has it.
    Uri,
}

impl Choice for CertificateName {
    const WORDS: &'static [(&'static str, Self)] =
        &[("common_name", Self::CommonName), ("email", Self::Email), ("uri", Self::Uri)];
}

/// How connections are encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// The server's certificate, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authorities whose certificates let clients in.
    pub client_ca: Option<PathBuf>,
}

impl AccessSettings {
    /// Whether people have to prove who they are.
    pub fn is_closed(&self) -> bool {
        self.files.users.is_some() || self.knows_others()
    }

    /// Whether others are let in than those of the users file.
    pub(super) fn knows_others(&self) -> bool {
        self.oidc.is_some() || self.certificates
    }
}

/// `[access]`, without what its files hold.
pub(in crate::config) fn access_settings(
    low: &LowAccess,
    certificates: bool,
    around: &mut Surroundings<'_>,
) -> Option<AccessSettings> {
    let session_lifetime = positive(&low.session_lifetime, around);
    let oidc = match &low.oidc {
        Field::Missing => Some(None),
        Field::Wrong => None,
        Field::Given(at) => oidc_settings(at, around).map(Some),
    };
    let users = optional(&low.users)?;
    let grants = optional(&low.grants)?;
    let file = |named: &Option<Text>, default: &str| {
        around.folder.join(named.as_ref().map_or(default, |text| text.0.as_str()))
    };
    Some(AccessSettings {
        users_file: file(&users, "users.toml"),
        users_named: users.is_some(),
        grants_file: file(&grants, "grants.toml"),
        grants_named: grants.is_some(),
        session_lifetime: session_lifetime?,
        failure_delay: low.failure_delay.copied()?.0,
        longest_delay: low.longest_delay.copied()?.0,
        parallel_checks: low.parallel_checks.copied()?.0,
        certificate_name: low.certificate_name.copied()?.0,
        certificates,
        oidc: oidc?,
        files: AccessFiles::default(),
    })
}

fn oidc_settings(at: &At<LowOidc>, around: &mut Surroundings<'_>) -> Option<OidcSettings> {
    let low = &at.value;
    let missing =
        [("issuer", low.issuer.is_missing()), ("audience", low.audience.is_missing()), ("jwks", low.jwks.is_missing())];
    for (key, _) in missing.iter().filter(|(_, missing)| *missing) {
        let problem = at.place.problem(format!("`{key}` is missing: any token of anybody would do"));
        around.problems.push(problem.expected("issuer, audience and jwks"));
    }
    let jwks = low.jwks.given().and_then(|at| key_set_place(at, around));
    let texts = |list: &[At<Text>]| list.iter().map(|text| text.value.0.clone()).collect::<Vec<_>>();
    let audience = texts(&low.audience.value()?.0);
    if let (true, Some(at)) = (audience.is_empty(), low.audience.given()) {
        around.problems.push(at.place.problem("the list is empty").expected("one audience at least"));
        return None;
    }
    Some(OidcSettings {
        issuer: low.issuer.copied()?.0,
        audience,
        jwks: jwks?,
        name_claim: low.name_claim.copied()?.0,
        role_claims: texts(low.role_claims.value()?),
        clock_skew: low.clock_skew.copied()?.0,
    })
}

fn key_set_place(at: &At<Text>, around: &mut Surroundings<'_>) -> Option<KeySetPlace> {
    let text = &at.value.0;
    if !text.contains("://") {
        return Some(KeySetPlace::File(around.folder.join(text)));
    }
    let url = url::Url::parse(text).ok().filter(url::Url::has_host);
    match url {
        Some(url) if url.scheme() == "https" || (url.scheme() == "http" && is_this_machine(&url)) => {
            Some(KeySetPlace::Url(url))
        }
        _ => {
            let problem = at.place.problem(format!("keys cannot be trusted that come from {text:?}"));
            around.problems.push(problem.expected("a file, an https:// address, or http:// on this machine"));
            None
        }
    }
}

fn is_this_machine(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// `[serve.tls]`; nothing where there is none.
pub(in crate::config) fn tls_settings(
    field: &Field<LowTls>,
    around: &mut Surroundings<'_>,
) -> Option<Option<TlsSettings>> {
    let at = match field {
        Field::Missing => return Some(None),
        Field::Wrong => return None,
        Field::Given(at) => at,
    };
    let low = &at.value;
    for (key, missing) in [("certificate", low.certificate.is_missing()), ("key", low.key.is_missing())] {
        if missing {
            let problem = at.place.problem(format!("`{key}` is missing"));
            around.problems.push(problem.expected("certificate and key, as `lakegate cert dev` makes them"));
        }
    }
    let certificate = pem_file(&low.certificate, around);
    let key = pem_file(&low.key, around);
    let client_ca = match low.client_ca.is_missing() {
        true => Some(None),
        false => pem_file(&low.client_ca, around).map(Some),
    };
    Some(Some(TlsSettings { certificate: certificate?, key: key?, client_ca: client_ca? }))
}

/// A file that has to be there.
fn pem_file(field: &Field<Text>, around: &mut Surroundings<'_>) -> Option<PathBuf> {
    let at = field.given()?;
    let path = around.folder.join(&at.value.0);
    if let Err(error) = std::fs::File::open(&path) {
        around.problems.push(at.place.problem(format!("the file {} cannot be read: {error}", at.value.0)));
        return None;
    }
    Some(path)
}
