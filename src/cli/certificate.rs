//! `lakegate cert dev`: a certificate that vouches for itself.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use chrono::Datelike;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};

use crate::cli::CliError;
use crate::cli::arguments::CertDev;
use crate::config::units;
use crate::runtime::clock::{Clock, SystemClock};

/// The hosts it is for where none are named.
const THIS_MACHINE: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

pub(super) fn dev(arguments: &CertDev) -> Result<(), CliError> {
    let hosts: Vec<String> = match arguments.hosts.as_slice() {
        [] => THIS_MACHINE.map(str::to_owned).to_vec(),
        hosts => hosts.to_vec(),
    };
    let (certificate, key) = make(&hosts, &arguments.expires)?;
    let folder = &arguments.folder;
    let failed = |source| CliError::Output { to: folder.display().to_string(), source };
    std::fs::create_dir_all(folder).map_err(failed)?;
    // The key first: a certificate without its key would be of no use to anybody.
    write_new(&folder.join("key.pem"), &key, 0o600)?;
    write_new(&folder.join("certificate.pem"), &certificate, 0o644)?;
    let text = format!(
        "{folder}/certificate.pem is for {hosts}; {folder}/key.pem is its key, for the server alone.\n\n\
         Give them to the server, in lakegate.toml:\n\n    [serve.tls]\n    certificate = \"{folder}/certificate.pem\"\n    \
         key = \"{folder}/key.pem\"\n\n\
         Clients trust it when they get certificate.pem, which is no secret:\n\n    \
         lakegate query \"select 1\" --server grpc+tls://{host}:8815 --ca-file certificate.pem\n    \
         lakegate.connect(\"grpc+tls://{host}:8815\", tls_ca_file=\"certificate.pem\")\n\n\
         Nobody else vouches for it: hand it over on a way that cannot be tampered with.",
        folder = folder.display(),
        hosts = hosts.join(", "),
        host = hosts.first().map_or("localhost", String::as_str),
    );
    writeln!(std::io::stdout(), "{text}").map_err(CliError::stdout)
}

/// Certificate and private key in PEM. The certificate is no authority: whoever steals its key can pass for this
/// server and for nobody else.
fn make(hosts: &[String], expires: &str) -> Result<(String, String), CliError> {
    let failed = |error: rcgen::Error| CliError::Usage(format!("no certificate can be made for these hosts: {error}"));
    let lifetime = units::duration(expires)
        .map_err(|error| CliError::Usage(format!("--expires {expires}: {error}; write a time such as 90d")))?;
    let now = SystemClock.now();
    let end = chrono::Duration::from_std(lifetime).ok().and_then(|lifetime| now.checked_add_signed(lifetime));
    let end = end.ok_or_else(|| CliError::Usage(format!("--expires {expires}: the time is too long")))?;
    let mut params = CertificateParams::new(hosts.to_vec()).map_err(failed)?;
    params.distinguished_name.push(DnType::CommonName, hosts.first().map_or("localhost", String::as_str));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // From the day before on: clocks differ.
    let (begin, end) = (now - chrono::Duration::days(1), end + chrono::Duration::days(1));
    // Months and days are small numbers.
    let small = |number: u32| u8::try_from(number).unwrap_or(1);
    params.not_before = date_time_ymd(begin.year(), small(begin.month()), small(begin.day()));
    params.not_after = date_time_ymd(end.year(), small(end.month()), small(end.day()));
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Writes a file that is not there yet.
fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), CliError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => CliError::Usage(format!(
            "{} is there already; take it away, or name another folder with --folder",
            path.display()
        )),
        _ => CliError::Output { to: path.display().to_string(), source },
    })
}
