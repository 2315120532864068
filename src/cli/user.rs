//! `lakegate user`: who is let in, with which passwords and tokens.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::access::{self, AccessError, NewToken};
use crate::cli::CliError;
use crate::cli::arguments::{Common, Token, TokenAdd, TokenList, User, UserAdd, UserPassword};
use crate::cli::{passwords, program};
use crate::config::{self, User as Kept, UserToken, check_user_name};
use crate::error::{Classify, ErrorKind};
use crate::runtime::clock::{Clock, SystemClock};

pub(super) fn run(common: &Common, command: &User) -> Result<(), CliError> {
    let file = UsersFile::of(common)?;
    match command {
        User::Add(arguments) => add(&file, arguments),
        User::Passwd(arguments) => password(&file, arguments),
        User::Remove(arguments) => remove(&file, &arguments.name),
        User::List(arguments) => list(&file, arguments.json),
        User::Token(Token::Add(arguments)) => add_token(&file, arguments),
        User::Token(Token::List(arguments)) => list_tokens(&file, arguments),
        User::Token(Token::Revoke(arguments)) => revoke(&file, &arguments.id),
    }
}

/// The users file, and the folder it is named from.
struct UsersFile {
    path: PathBuf,
    folder: PathBuf,
}

impl UsersFile {
    fn of(common: &Common) -> Result<Self, CliError> {
        let (folder, config_file) = program::place(common)?;
        let path = config::users_file(&folder, config_file.as_deref())
            .map_err(|problems| CliError::Usage(problems.to_string()))?;
        let folder = path.parent().map(PathBuf::from).unwrap_or(folder);
        Ok(Self { path, folder })
    }

    fn read(&self) -> Result<config::UserList, CliError> {
        config::read_users(&self.path, &self.folder).map_err(|problems| CliError::Usage(problems.to_string()))
    }

    fn change<T>(&self, change: impl FnOnce(&mut config::UserList) -> Result<T, AccessError>) -> Result<T, CliError> {
        access::change_users(&self.path, &self.folder, change).map_err(tell)
    }
}

fn tell(error: AccessError) -> CliError {
    match error.kind() {
        ErrorKind::InvalidInput | ErrorKind::NotFound | ErrorKind::AlreadyExists => CliError::Usage(error.to_string()),
        _ => CliError::failed(&error),
    }
}

fn add(file: &UsersFile, arguments: &UserAdd) -> Result<(), CliError> {
    let name = &arguments.name;
    check_user_name(name).map_err(|error| CliError::Usage(error.to_string()))?;
    if file.read()?.users.contains_key(name) {
        return Err(tell(AccessError::UserExists(name.clone())));
    }
    let password = match arguments.no_password {
        true => None,
        false => Some(new_password(name, arguments.password_stdin)?),
    };
    let roles = arguments.roles.iter().cloned().collect();
    let user = Kept { password, roles, tokens: Vec::new(), spot: None };
    file.change(|list| match list.users.contains_key(name) {
        true => Err(AccessError::UserExists(name.clone())),
        false => {
            list.users.insert(name.clone(), user);
            Ok(())
        }
    })?;
    say(&format!("{name} can log in; what they may see is said in grants.toml, and `lakegate grants explain` tells it"))
}

fn password(file: &UsersFile, arguments: &UserPassword) -> Result<(), CliError> {
    let name = &arguments.name;
    if !file.read()?.users.contains_key(name) {
        return Err(tell(AccessError::NoUser(name.clone())));
    }
    let password = new_password(name, arguments.password_stdin)?;
    file.change(|list| {
        let user = list.users.get_mut(name).ok_or_else(|| AccessError::NoUser(name.clone()))?;
        user.password = Some(password);
        Ok(())
    })?;
    say(&format!("{name} has another password; sessions begun with the old one end"))
}

fn remove(file: &UsersFile, name: &str) -> Result<(), CliError> {
    let user = file.change(|list| list.users.remove(name).ok_or_else(|| AccessError::NoUser(name.to_owned())))?;
    let tokens = user.tokens.len();
    say(&format!(
        "{name} is let in no more, and neither are {tokens} tokens of theirs; grants.toml may still name them"
    ))
}

fn list(file: &UsersFile, as_json: bool) -> Result<(), CliError> {
    let list = file.read()?;
    let mut out = std::io::stdout().lock();
    if as_json {
        let users = list.users.iter().map(|(name, user)| {
            json!({ "name": name, "roles": user.roles, "password": user.password.is_some(), "tokens": user.tokens.len() })
        });
        return writeln!(out, "{:#}", json!(users.collect::<Vec<_>>())).map_err(CliError::stdout);
    }
    let rows = list.users.iter().map(|(name, user)| {
        let roles = user.roles.iter().cloned().collect::<Vec<_>>().join(", ");
        let password = if user.password.is_some() { "yes" } else { "no" };
        [name.clone(), password.to_owned(), user.tokens.len().to_string(), roles]
    });
    table(&mut out, ["user", "password", "tokens", "roles"], rows.collect())
}

fn add_token(file: &UsersFile, arguments: &TokenAdd) -> Result<(), CliError> {
    let now = SystemClock.now();
    let expires_at = arguments.expires.as_deref().map(|text| expiry(text, now)).transpose()?;
    let token = NewToken::make().map_err(tell)?;
    let kept = UserToken {
        id: token.id.clone(),
        hash: token.hash,
        label: arguments.label.clone(),
        created_at: now,
        expires_at,
    };
    file.change(|list| {
        let user = list.users.get_mut(&arguments.name).ok_or_else(|| AccessError::NoUser(arguments.name.clone()))?;
        user.tokens.push(kept);
        Ok(())
    })?;
    writeln!(std::io::stdout(), "{}", token.text.expose_secret()).map_err(CliError::stdout)?;
    say(&format!("this is the only time that the token {} is shown", token.id))
}

fn list_tokens(file: &UsersFile, arguments: &TokenList) -> Result<(), CliError> {
    let list = file.read()?;
    if let Some(name) = arguments.name.as_ref().filter(|name| !list.users.contains_key(*name)) {
        return Err(tell(AccessError::NoUser(name.clone())));
    }
    let users = list.users.iter().filter(|(name, _)| arguments.name.as_ref().is_none_or(|wanted| wanted == *name));
    let tokens = users.flat_map(|(name, user)| user.tokens.iter().map(move |token| (name, token)));
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let tokens = tokens.map(|(name, token)| {
            json!({
                "user": name, "id": token.id, "label": token.label, "created_at": shown(token.created_at),
                "expires_at": token.expires_at.map(shown),
            })
        });
        return writeln!(out, "{:#}", json!(tokens.collect::<Vec<_>>())).map_err(CliError::stdout);
    }
    let now = SystemClock.now();
    let rows = tokens.map(|(name, token)| {
        let expires = match token.expires_at {
            None => "never".to_owned(),
            Some(end) if end <= now => format!("{} (over)", shown(end)),
            Some(end) => shown(end),
        };
        [name.clone(), token.id.clone(), shown(token.created_at), expires, token.label.clone().unwrap_or_default()]
    });
    table(&mut out, ["user", "id", "created", "expires", "label"], rows.collect())
}

fn revoke(file: &UsersFile, id: &str) -> Result<(), CliError> {
    // Somebody in a hurry may paste the whole token.
    let token = SecretString::from(id);
    let id = access::token_id(&token).unwrap_or(id);
    file.change(|list| {
        let count = |list: &config::UserList| list.users.values().map(|user| user.tokens.len()).sum::<usize>();
        let before = count(list);
        for user in list.users.values_mut() {
            user.tokens.retain(|token| token.id != id);
        }
        if count(list) == before { Err(AccessError::NoToken(id.to_owned())) } else { Ok(()) }
    })?;
    say(&format!("the token {id} lets nobody in any more"))
}

fn new_password(name: &str, from_standard_input: bool) -> Result<SecretString, CliError> {
    let password = match from_standard_input {
        true => passwords::from_standard_input()?,
        false => passwords::ask_new(name)?,
    };
    access::hash_password(&password).map_err(tell)
}

fn expiry(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, CliError> {
    let wrong = |reason: &str| CliError::Usage(format!("--expires {text}: {reason}; write a time such as 90d or 12h"));
    let lifetime = config::units::duration(text).map_err(|error| wrong(&error.to_string()))?;
    if lifetime == Duration::ZERO {
        return Err(wrong("the time is zero"));
    }
    chrono::Duration::from_std(lifetime)
        .ok()
        .and_then(|lifetime| now.checked_add_signed(lifetime))
        .ok_or_else(|| wrong("the time is too long"))
}

fn shown(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Columns for people.
fn table<const N: usize>(out: &mut impl Write, heads: [&str; N], rows: Vec<[String; N]>) -> Result<(), CliError> {
    let widest = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heads[column].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..N).map(widest).collect();
    for row in std::iter::once(&heads.map(str::to_owned)).chain(&rows) {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        writeln!(out, "{}", line.trim_end()).map_err(CliError::stdout)?;
    }
    Ok(())
}

/// Tells a person what was done, beside what a program may read.
fn say(text: &str) -> Result<(), CliError> {
    writeln!(std::io::stderr(), "{text}").map_err(|source| CliError::Output { to: "standard error".to_owned(), source })
}
