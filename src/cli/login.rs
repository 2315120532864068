//! Who asks a server: from the command line, the environment, or a question.

use std::path::Path;

use secrecy::SecretString;

use crate::cli::CliError;
use crate::cli::arguments::Login;
use crate::cli::passwords;
use crate::config::{ClientEnvironment, client_environment};
use crate::flight::{ClientCredentials, ClientOptions};

/// What a client of a server is told.
pub(super) fn options(login: &Login) -> Result<ClientOptions, CliError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| CliError::Usage(format!("cannot read {}: {error}", path.display())))
    };
    let certificate = match (&login.certificate, &login.key) {
        (Some(certificate), Some(key)) => {
            let key = String::from_utf8(read(key)?)
                .map_err(|_| CliError::Usage(format!("{} is no PEM file", key.display())))?;
            Some((read(certificate)?, SecretString::from(key)))
        }
        _ => None,
    };
    Ok(ClientOptions {
        credentials: credentials(login, client_environment())?,
        authorities: login.ca_file.as_deref().map(read).transpose()?,
        certificate,
        allow_plaintext: login.allow_plaintext,
        headers: Vec::new(),
    })
}

/// The command line counts before the environment, and a token before a password.
fn credentials(login: &Login, environment: ClientEnvironment) -> Result<Option<ClientCredentials>, CliError> {
    if let Some(file) = &login.token_file {
        let token = std::fs::read_to_string(file)
            .map_err(|error| CliError::Usage(format!("cannot read the token from {}: {error}", file.display())))?;
        return Ok(Some(ClientCredentials::Token(token.trim().into())));
    }
    if let (None, Some(token)) = (&login.user, environment.token) {
        return Ok(Some(ClientCredentials::Token(token)));
    }
    let Some(user) = login.user.clone().or(environment.user) else { return Ok(None) };
    let password = match environment.password {
        Some(password) => password,
        None => passwords::ask(&format!("Password of {user}: "))?,
    };
    Ok(Some(ClientCredentials::Password(user, password)))
}
