//! The users file: who is let in with a password or a token, and with which roles. `lakegate user` writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use secrecy::{ExposeSecret, SecretString};

use crate::config::access::values::{Moment, PasswordHash, TokenHash, is_role_name};
use crate::config::access::{Spot, low};
use crate::config::problem::Problem;
use crate::config::reader::{At, Named, SourceFile, low_table};
use crate::config::values::{FormatVersion, Text};

low_table! {
    /// The whole of a users file.
    LowUsers {
        /// Version of this format.
        version: FormatVersion = 1;
        /// Who is let in, by name.
        users: Named<LowUser> = {};
    }
}

low_table! {
    /// `[users.NAME]`
    LowUser {
        /// The password's argon2id hash; without one only tokens let the user in.
        password: PasswordHash;
        /// Roles the user has.
        roles: Vec<At<Text>> = [];
        /// Personal tokens.
        tokens: Vec<At<LowToken>> = [];
    }
}

low_table! {
    /// `[[users.NAME.tokens]]`
    LowToken {
        /// Names the token; the part of it between the underscores.
        id: Text;
        /// BLAKE3 of the token.
        hash: TokenHash;
        /// What it is for, for people.
        label: Text;
        /// When it was made.
        created_at: Moment;
        /// From when on it no longer counts; never where nothing is given.
        expires_at: Moment;
    }
}

/// Who is let in with a password or a token.
#[derive(Clone, Debug, Default)]
pub struct UserList {
    /// The users by name.
    pub users: BTreeMap<String, User>,
}

/// One user.
#[derive(Clone, Debug)]
pub struct User {
    /// The password's argon2id hash as a PHC string; without one only tokens let the user in.
    pub password: Option<SecretString>,
    /// Roles the user has; a membership in the grants file adds to them.
    pub roles: BTreeSet<String>,
    /// Personal tokens.
    pub tokens: Vec<UserToken>,
    /// Where the user stands; nothing for one that is not written yet.
    pub spot: Option<Spot>,
}

/// A personal token, without the token itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserToken {
    /// Names the token.
    pub id: String,
    /// BLAKE3 of the whole token.
    pub hash: [u8; 32],
    /// What it is for, for people.
    pub label: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// From when on it no longer counts; never where there is nothing.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Why a text cannot be the name of a user.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidName {
    /// Letters that credentials or files could not hold.
    #[error("{0:?} is no name of a user; it is 1 to 64 of the letters A-Z, a-z, digits and . _ - + @")]
    Letters(String),
    /// The same of a name that somebody else gives.
    #[error("{0:?} is no name of somebody; it is 1 to 256 of the letters A-Z, a-z, digits and . _ - + @ : / |")]
    ForeignLetters(String),
    /// A name that means something else.
    #[error("the name `{0}` means something else to lakegate; take another one")]
    Reserved(String),
}

/// Checks that a text can be the name of a user.
///
/// # Errors
/// When it has other letters, or means something else.
pub fn check_user_name(name: &str) -> Result<(), InvalidName> {
    if name.is_empty() || name.len() > 64 || !name.chars().all(is_letter_of_names) {
        return Err(InvalidName::Letters(name.to_owned()));
    }
    check_reserved(name)
}

/// Checks that a name which a certificate or an identity provider gives can be that of somebody. It may be an address, and
/// providers put `|` between the parts of a subject.
///
/// # Errors
/// When it has other letters, or means something else.
pub fn check_foreign_name(name: &str) -> Result<(), InvalidName> {
    let allowed = |letter: char| is_letter_of_names(letter) || matches!(letter, ':' | '/' | '|');
    if name.is_empty() || name.len() > 256 || !name.chars().all(allowed) {
        return Err(InvalidName::ForeignLetters(name.chars().take(64).collect()));
    }
    check_reserved(name)
}

fn is_letter_of_names(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-' | '+' | '@')
}

fn check_reserved(name: &str) -> Result<(), InvalidName> {
    /// `token` is the user name that goes with a token in Basic credentials; the others are principals of their own.
    const RESERVED: &[&str] = &["anonymous", "everyone", "operator", "token"];
    match RESERVED.contains(&name) {
        true => Err(InvalidName::Reserved(name.to_owned())),
        false => Ok(()),
    }
}

/// The users of a file; nothing where one of them could not be read.
pub(super) fn read(file: &Arc<SourceFile>, problems: &mut Vec<Problem>) -> Option<UserList> {
    let low: LowUsers = low(file, problems)?;
    low.version.value()?;
    let mut users = BTreeMap::new();
    let mut whole = true;
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    for (name, at) in &low.users.value()?.0 {
        let user = at.as_ref().and_then(|at| user(name, at, &mut ids, problems));
        whole &= user.is_some();
        users.extend(user.map(|user| (name.clone(), user)));
    }
    whole.then_some(UserList { users })
}

fn user(name: &str, at: &At<LowUser>, ids: &mut BTreeMap<String, String>, problems: &mut Vec<Problem>) -> Option<User> {
    if let Err(error) = check_user_name(name) {
        problems.push(at.place.problem(error.to_string()));
        return None;
    }
    let low = &at.value;
    let roles: BTreeSet<_> = low.roles.value()?.iter().map(|role| role.value.0.clone()).collect();
    if let Some(role) = low.roles.value()?.iter().find(|role| !is_role_name(&role.value.0)) {
        let problem = role.place.problem(format!("{:?} is no name of a role", role.value.0));
        problems.push(problem.expected("letters, digits and . _ -"));
        return None;
    }
    let password = crate::config::lakegate_file::optional(&low.password)?.map(|hash| hash.0);
    let tokens = low.tokens.value()?;
    let read: Vec<_> = tokens.iter().filter_map(|at| token(at, problems)).collect();
    for (token, at) in read.iter().zip(tokens) {
        if let Some(other) = ids.insert(token.id.clone(), name.to_owned()) {
            problems.push(at.place.problem(format!("a token of {other} has the same id; which one is meant?")));
            return None;
        }
    }
    let whole = read.len() == tokens.len();
    whole.then_some(User { password, roles, tokens: read, spot: Some(at.place.spot()) })
}

fn token(at: &At<LowToken>, problems: &mut Vec<Problem>) -> Option<UserToken> {
    let low = &at.value;
    let missing =
        [("id", low.id.is_missing()), ("hash", low.hash.is_missing()), ("created_at", low.created_at.is_missing())];
    for (key, _) in missing.iter().filter(|(_, missing)| *missing) {
        problems.push(at.place.problem(format!("the token has no `{key}`")));
    }
    let optional_text = crate::config::lakegate_file::optional(&low.label)?;
    Some(UserToken {
        id: low.id.copied()?.0,
        hash: low.hash.copied()?.0,
        label: optional_text.map(|text| text.0),
        created_at: low.created_at.copied()?.0,
        expires_at: crate::config::lakegate_file::optional(&low.expires_at)?.map(|moment| moment.0),
    })
}

impl UserList {
    /// These users as far as a later list has them too: whom it no longer names is gone, passwords and tokens are those of
    /// the later one, and roles those that both give. Nobody may do more by it than by this list.
    pub fn narrowed_to(&self, later: &Self) -> Self {
        let narrowed = |(name, user): (&String, &User)| {
            let later = later.users.get(name)?;
            let roles = user.roles.intersection(&later.roles).cloned().collect();
            Some((name.clone(), User { roles, ..later.clone() }))
        };
        Self { users: self.users.iter().filter_map(narrowed).collect() }
    }

    /// The text of a users file with these users.
    pub fn to_toml(&self) -> String {
        let mut text = String::from(
            "# Who is let in with a password or a token. Written by `lakegate user`; comments are not kept.\n\
             # Passwords stand here as argon2id hashes, tokens as BLAKE3 hashes.\n",
        );
        for (name, user) in &self.users {
            let name = quoted(name);
            // Writing to a string cannot fail.
            let _ = write!(text, "\n[users.{name}]\n");
            if let Some(password) = &user.password {
                let _ = writeln!(text, "password = {}", quoted(password.expose_secret()));
            }
            let roles: Vec<_> = user.roles.iter().map(|role| quoted(role)).collect();
            let _ = writeln!(text, "roles = [{}]", roles.join(", "));
            for token in &user.tokens {
                let _ = write!(text, "\n[[users.{name}.tokens]]\n");
                let _ = writeln!(text, "id = {}", quoted(&token.id));
                let _ = writeln!(text, "hash = \"{}\"", blake3::Hash::from_bytes(token.hash).to_hex());
                if let Some(label) = &token.label {
                    let _ = writeln!(text, "label = {}", quoted(label));
                }
                let _ = writeln!(text, "created_at = {}", moment(token.created_at));
                if let Some(expires_at) = token.expires_at {
                    let _ = writeln!(text, "expires_at = {}", moment(expires_at));
                }
            }
        }
        text
    }
}

/// A text as TOML writes it in quotes.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn moment(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> (Option<UserList>, Vec<String>) {
        let file = Arc::new(SourceFile { name: "users.toml".into(), text: text.to_owned() });
        let mut problems = Vec::new();
        let list = read(&file, &mut problems);
        (list, problems.iter().map(ToString::to_string).collect())
    }

    const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA";

    #[test]
    fn what_is_written_is_read_back() {
        let token = UserToken {
            id: "k1".to_owned(),
            hash: [7; 32],
            label: Some("a \"laptop\"\nof hers".to_owned()),
            created_at: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
            expires_at: None,
        };
        let ann = User {
            password: Some(HASH.into()),
            roles: BTreeSet::from(["admin".to_owned(), "sales".to_owned()]),
            tokens: vec![token.clone(), UserToken { id: "k2".to_owned(), expires_at: Some(token.created_at), ..token }],
            spot: None,
        };
        let bob = User { password: None, roles: BTreeSet::new(), tokens: vec![], spot: None };
        let list = UserList { users: BTreeMap::from([("ann".to_owned(), ann), ("bob@x.org".to_owned(), bob)]) };
        let (again, problems) = read_text(&list.to_toml());
        assert_eq!(problems, [""; 0]);
        let again = again.unwrap();
        assert_eq!(again.users.keys().collect::<Vec<_>>(), ["ann", "bob@x.org"]);
        let (ann, was) = (&again.users["ann"], &list.users["ann"]);
        assert_eq!((&ann.roles, &ann.tokens), (&was.roles, &was.tokens));
        assert_eq!(ann.password.as_ref().unwrap().expose_secret(), HASH);
        assert_eq!(again.users["bob@x.org"].spot.as_ref().unwrap().file.to_str(), Some("users.toml"));
        assert_eq!(list.to_toml(), again.to_toml());
    }

    #[test]
    fn names_that_others_give_may_be_addresses_and_mean_nothing_else() {
        for name in ["ann", "ann@example.org", "spiffe://example.org/ann", "auth0|5f7c8ec7c33c6c004bbafe82"] {
            assert_eq!(check_foreign_name(name), Ok(()), "{name}");
        }
        for name in ["operator", "everyone", "anonymous", "token"] {
            assert_eq!(check_foreign_name(name), Err(InvalidName::Reserved(name.to_owned())));
        }
        for name in ["", "ann m", "\u{430}nn", "a\nb", "a'b", "a\"b", &"a".repeat(257)] {
            assert!(matches!(check_foreign_name(name), Err(InvalidName::ForeignLetters(_))), "{name}");
        }
    }

    #[test]
    fn mistakes_are_named_and_hashes_are_not_shown() {
        let said = |text: &str| read_text(text).1.join("\n");
        assert!(said("[users.ann]\npasword = \"x\"").contains("users.toml:2:1: users.ann.pasword: `pasword` is no known key here; expected one of password, roles, tokens; did you mean `password`?"));
        let wrong = said("[users.ann]\npassword = \"plain-hidden\"");
        assert!(wrong.contains("no argon2id hash") && !wrong.contains("hidden"), "{wrong}");
        assert!(said("[users.\"a:b\"]").contains("is no name of a user"));
        assert!(said("[users.token]").contains("means something else"));
        assert!(said("[users.ann]\nroles = [\"every one\"]").contains("is no name of a role"));
        assert!(said("[[users.ann.tokens]]\nid = \"a\"").contains("the token has no `hash`"));
        let twice = format!(
            "[[users.a.tokens]]\nid = \"a\"\nhash = \"{0}\"\ncreated_at = 2026-01-01T00:00:00Z\n[[users.b.tokens]]\nid = \"a\"\nhash = \"{0}\"\ncreated_at = 2026-01-01T00:00:00Z\n",
            "00".repeat(32)
        );
        assert!(said(&twice).contains("a token of a has the same id"), "{}", said(&twice));
        assert!(!format!("{:?}", read_text(&format!("[users.ann]\npassword = \"{HASH}\"")).0).contains("aGFzaGhhc2"));
    }
}
