//! Names in the cache. They are those of the Python client (`python-client/src/lakegate/_cache.py` and `_rows_file.py`), to the
//! letter, so that what one of them fetched the other need not fetch again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::Crc;
use ring::digest::{SHA256, digest};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::flight::announcement::is_identity;
use crate::flight::client::{ClientCredentials, ClientOptions};

/// Letters of an owner's or a question's name.
const NAME_LETTERS: usize = 32;

/// A file with rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// Where it is.
    pub(super) path: PathBuf,
    /// The server's name for the result.
    pub(super) identity: String,
    /// The result whose rows come before those in the file; none where it has all of them.
    pub(super) before: Option<String>,
    /// Its bytes, as its name says.
    pub(super) length: u64,
    /// The CRC-32 over them, as its name says.
    pub(super) checksum: u32,
    /// When it was read or written last.
    pub(super) used_at: SystemTime,
}

impl Stored {
    /// The name of a file with rows.
    pub(super) fn name(identity: &str, before: Option<&str>, length: u64, checksum: u32) -> String {
        let before = before.map(|before| format!("+{before}")).unwrap_or_default();
        format!("{identity}{before}-{length}-{checksum:08x}.arrow")
    }

    /// Reads the name of a file; none where it is none with rows, or has just gone.
    fn read(path: PathBuf) -> Option<Self> {
        let (identity, before, length, checksum) = parts(path.file_name()?.to_str()?)?;
        let used_at = fs::metadata(&path).ok()?.accessed().ok()?;
        Some(Self { path, identity, before, length, checksum, used_at })
    }
}

/// Identity, identity before, length and checksum.
fn parts(name: &str) -> Option<(String, Option<String>, u64, u32)> {
    let mut parts = name.strip_suffix(".arrow")?.split('-');
    let (results, length, checksum) = (parts.next()?, parts.next()?, parts.next()?);
    let (identity, before) = match results.split_once('+') {
        Some((identity, before)) => (identity, Some(before)),
        None => (results, None),
    };
    let is_sound = parts.next().is_none()
        && is_identity(identity)
        && before.is_none_or(is_identity)
        && length.bytes().all(|letter| letter.is_ascii_digit())
        && checksum.len() == 8;
    if !is_sound {
        return None;
    }
    let checksum = u32::from_str_radix(checksum, 16).ok()?;
    Some((identity.to_owned(), before.map(str::to_owned), length.parse().ok()?, checksum))
}

/// The files with rows in one owner's folder; none where there is no such folder.
pub(super) fn stored(folder: &Path) -> Vec<Stored> {
    paths(folder).filter_map(Stored::read).collect()
}

/// Those of one result, the one used last first.
pub(super) fn stored_of(folder: &Path, identity: &str) -> Vec<Stored> {
    let begins =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(identity.as_bytes()));
    let files = paths(folder).filter(begins).filter_map(Stored::read);
    let mut found: Vec<_> = files.filter(|file| file.identity == identity).collect();
    found.sort_by_key(|file| std::cmp::Reverse(file.used_at));
    found
}

/// What is remembered of questions in one owner's folder.
pub(super) fn known(folder: &Path) -> Vec<PathBuf> {
    paths(folder).filter(|path| path.extension().is_some_and(|ending| ending == "known")).collect()
}

/// The folders of owners in a cache's folder.
pub(super) fn owners(root: &Path) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(is_owner);
    paths(root).filter(is_one).collect()
}

fn is_owner(name: &str) -> bool {
    name.len() == NAME_LETTERS && is_identity(name)
}

fn paths(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

/// A name for a file that is not whole; it goes with this process, and [`sweep`] knows it.
pub(super) fn part() -> String {
    format!("part-{}-{}-{:016x}.arrow", host(), std::process::id(), rand::random::<u64>())
}

/// Removes unfinished files of processes of this machine that are no more.
pub(super) fn sweep(folder: &Path) {
    for path in paths(folder) {
        let owner = path.file_name().and_then(|name| name.to_str()).and_then(|name| process_of(name, &host()));
        if owner.is_some_and(|process| !is_alive(process)) {
            // Another process swept it before.
            let _ = fs::remove_file(path);
        }
    }
}

/// The process that writes an unfinished file, where that is one of this machine.
fn process_of(name: &str, host: &str) -> Option<i32> {
    let mut parts = name.strip_prefix("part-")?.strip_suffix(".arrow")?.split('-');
    let (at, process, random) = (parts.next()?, parts.next()?, parts.next()?);
    let is_ours = at == host && random.len() == 16 && parts.next().is_none();
    process.parse().ok().filter(|_| is_ours)
}

fn is_alive(process: i32) -> bool {
    Pid::from_raw(process).is_some_and(|process| test_kill_process(process) != Err(Errno::SRCH))
}

/// A short name of this machine: a home folder may be shared by several.
fn host() -> String {
    let mut checksum = Crc::new();
    checksum.update(hostname::get().unwrap_or_default().as_encoded_bytes());
    format!("{:08x}", checksum.sum())
}

/// A name for a question, from which it cannot be read. Values stand beside the text, so that no two questions are one.
pub(crate) fn question(sql: &str, parameters: &[String]) -> String {
    let mut parts = digest(&SHA256, sql.as_bytes()).as_ref().to_vec();
    if !parameters.is_empty() {
        let values = format!("as texts: {}", Value::from(parameters));
        parts.extend_from_slice(digest(&SHA256, values.as_bytes()).as_ref());
    }
    short(&parts)
}

/// A name for a server and the one who asks it, from which neither can be read.
pub(crate) fn owner(server: &str, options: &ClientOptions) -> String {
    let server = if server.contains("://") { server.to_owned() } else { format!("grpc://{server}") };
    let (user, token) = match &options.credentials {
        Some(ClientCredentials::Password(user, _)) => (Some(user.clone()), None),
        Some(ClientCredentials::Token(token)) => (None, Some(subject(token.expose_secret()))),
        None => (None, None),
    };
    let certificate = options.certificate.as_ref().map(|(pem, _)| hex(digest(&SHA256, pem).as_ref()));
    let who = [Some(server), user, token, certificate]
        .map(|part| part.map_or_else(|| "null".to_owned(), |part| quoted(&part)));
    let mut headers: Vec<_> = options.headers.iter().collect();
    headers.sort();
    let headers: Vec<_> =
        headers.iter().map(|(name, value)| format!("[{}, {}]", quoted(name), quoted(value))).collect();
    short(format!("[[{}], [{}]]", who.join(", "), headers.join(", ")).as_bytes())
}

/// Whom a token is about: an identity provider's is renewed each hour, and stays about the same person.
fn subject(token: &str) -> String {
    told_subject(token).unwrap_or_else(|| token.to_owned())
}

fn told_subject(token: &str) -> Option<String> {
    let [_, claims, _]: [&str; 3] = token.split('.').collect::<Vec<_>>().try_into().ok()?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?).ok()?;
    let text = |name: &str| claims.get(name)?.as_str().filter(|text| !text.is_empty()).map(quoted);
    Some(format!("[{}, {}]", text("iss")?, text("sub")?))
}

/// A text as Python's `json.dumps` writes it: in ASCII.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(letter),
            other => {
                let mut units = [0; 2];
                out.extend(other.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
            }
        }
    }
    out.push('"');
    out
}

fn short(content: &[u8]) -> String {
    let mut name = hex(digest(&SHA256, content).as_ref());
    name.truncate(NAME_LETTERS);
    name
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(credentials: Option<ClientCredentials>) -> ClientOptions {
        ClientOptions { credentials, ..ClientOptions::default() }
    }

    fn token(text: &str) -> ClientOptions {
        options(Some(ClientCredentials::Token(text.into())))
    }

    /// What the Python client's `owner` and `question` give for the same.
    #[test]
    fn names_are_those_of_the_python_client() {
        assert_eq!(question("select 1", &[]), "21afd95a417bd58284160925cb05633c");
        assert_eq!(question("select 'Zoë'", &[]), "d734bcddd1be5118f0dfcf221b0011a3");
        let server = "grpc://127.0.0.1:8815";
        assert_eq!(owner(server, &options(None)), "89b5661e95e78896d18b692fad716282");
        let user = ClientCredentials::Password("Zoë \"x\"\u{7f}\u{1f600}".to_owned(), "secret".into());
        assert_eq!(owner(server, &options(Some(user))), "fb0aa1d6bb783c24136dd324f83bacdb");
        assert_eq!(owner(server, &token("lgp_abc")), "67fb82ba416244198baf3a9b325731ca");
        assert_eq!(
            owner(
                server,
                &token(
                    "e30.eyJpc3MiOiAiaHR0cHM6Ly9sb2dpbi5leGFtcGxlL1x1MDBlOSIsICJzdWIiOiAiYW5uIiwgImV4cCI6IDF9.sealed"
                )
            ),
            "bbdcfc26858affa917d3d9f2aba8526b"
        );
        let with_certificate = ClientOptions { certificate: Some((b"pem".to_vec(), "key".into())), ..token("lgp_abc") };
        assert_eq!(owner(server, &with_certificate), "56c2f1cecaf0a92f85deda805eca56bb");
        let headers = [("lakegate-precision", "float32"), ("a", "b")].map(|(name, value)| (name.into(), value.into()));
        let with_headers = ClientOptions { headers: headers.into(), ..ClientOptions::default() };
        assert_eq!(owner("grpc://localhost:8815", &with_headers), "11d1dd4fe27ac728d562c60509f439e2");
    }

    #[test]
    fn each_server_person_and_question_has_a_name_of_its_own() {
        let server = "grpc://lake:8815";
        let password = |user: &str| options(Some(ClientCredentials::Password(user.to_owned(), "x".into())));
        let names = [
            owner(server, &options(None)),
            owner("grpc://other:8815", &options(None)),
            owner(server, &password("ann")),
            owner(server, &password("bob")),
            owner(server, &token("ann")),
            question("select 1", &[]),
            question("select ?", &["1".to_owned()]),
            question("select ?", &["1".to_owned(), "2".to_owned()]),
            question("select ?", &["1\",\"2".to_owned()]),
        ];
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len());
        assert_eq!(owner("lake:8815", &options(None)), names[0], "the same address, shorter");
        assert!(names.iter().all(|name| is_owner(name)));
    }

    #[test]
    fn a_renewed_token_is_the_same_person() {
        let of = |claims: &str| format!("e30.{}.sealed", URL_SAFE_NO_PAD.encode(claims));
        let first = token(&of(r#"{"iss":"i","sub":"ann","exp":1}"#));
        let renewed = token(&of(r#"{"iss":"i","sub":"ann","exp":2}"#));
        let others = token(&of(r#"{"iss":"i","sub":"bob","exp":1}"#));
        let server = "grpc://lake:8815";
        assert_eq!(owner(server, &first), owner(server, &renewed));
        assert_ne!(owner(server, &first), owner(server, &others));
    }

    #[test]
    fn only_files_of_the_cache_are_taken_for_such() {
        let (identity, before) = ("ab".repeat(32), "0123456789abcdef");
        let name = Stored::name(&identity, None, 17, 0xab);
        assert_eq!(parts(&name), Some((identity.clone(), None, 17, 0xab)));
        let name = Stored::name(&identity, Some(before), 17, u32::MAX);
        assert_eq!(parts(&name), Some((identity.clone(), Some(before.to_owned()), 17, u32::MAX)));
        for other in [
            "x.arrow".to_owned(),
            format!("{identity}-17.arrow"),
            format!("{identity}-17-000000ab.parquet"),
            format!("{identity}-17-ab.arrow"),
            format!("{identity}-x-000000ab.arrow"),
            format!("{}-17-000000ab.arrow", identity.to_uppercase()),
            format!("{identity}+-17-000000ab.arrow"),
            part(),
        ] {
            assert_eq!(parts(&other), None, "{other}");
        }
    }

    #[test]
    fn what_dead_processes_left_is_swept_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let left = format!("part-{}-{}-0123456789abcdef.arrow", host(), dead.id());
        let elsewhere = format!("part-00000000-{}-0123456789abcdef.arrow", dead.id());
        let own = part();
        for name in [&left, &elsewhere, &own, &"kept.arrow".to_owned()] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        sweep(folder.path());
        let mut found: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let mut wanted = [elsewhere, own, "kept.arrow".to_owned()].map(std::ffi::OsString::from);
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted);
    }
}
