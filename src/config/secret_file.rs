//! Reads secrets from files: `REDIS_PASSWORD_FILE` and the other `_FILE` variables.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::read::{Reader, text};
use super::tidy;
use super::variables::Raw;

/// A file that holds only a secret; a newline at its end is not part of the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// The variable that names it, for errors.
    pub variable: &'static str,
    pub path: PathBuf,
}

impl SecretFile {
    /// Reads the secret again, or returns the error of the file.
    pub fn read(&self) -> Result<SecretString, String> {
        let Self { variable, path } = self;
        let shown = shown_path(path);
        let content = std::fs::read_to_string(path)
            .map_err(|error| format!("{variable} is {shown}, which cannot be read: {error}"))?;
        let content = content.strip_prefix('\u{feff}').unwrap_or(&content);
        let secret = tidy::without_last_break(content);
        if secret.is_empty() {
            return Err(format!("{variable} is {shown}, which is empty"));
        }
        if tidy::has_break(secret) {
            return Err(format!("{variable} is {shown}, which {}", tidy::BREAK));
        }
        Ok(secret.into())
    }
}

/// Quotes a path, but hides a text that may be the secret itself.
pub fn shown_path(path: &Path) -> String {
    match path.to_str() {
        Some(text) if text.starts_with(['/', '.', '~']) => format!("\"{text}\""),
        _ => "a relative path that is not shown".to_owned(),
    }
}

/// A secret, and the file it was read from.
pub struct SecretSource {
    pub secret: SecretString,
    pub file: Option<SecretFile>,
}

/// Reads a secret from its variable or from its file. Both at once are an error.
pub fn given(
    read: &mut Reader,
    (name, value): (&'static str, Option<String>),
    (variable, path): (&'static str, Option<String>),
) -> Option<SecretSource> {
    let Some(path) = text(path) else {
        let secret = read.secret(value)?;
        return Some(SecretSource { secret, file: None });
    };
    if value.is_some_and(|value| !value.is_empty()) {
        read.problem(
            variable,
            format!("is set, and so is {name}: set one of them"),
        );
    }
    let file = SecretFile {
        variable,
        path: path.into(),
    };
    match file.read() {
        Ok(secret) => {
            if let Some(doubt) = tidy::doubt(variable, secret.expose_secret()) {
                read.warn(doubt);
            }
            Some(SecretSource {
                secret: read.secret(Some(secret.expose_secret().to_owned()))?,
                file: Some(file),
            })
        }
        Err(problem) => {
            read.complain(problem);
            None
        }
    }
}

/// Reads a secret that is read once, at start.
fn once(
    read: &mut Reader,
    value: (&'static str, Option<String>),
    file: (&'static str, Option<String>),
) -> Option<String> {
    let is_file = text(file.1.clone()).is_some();
    if !is_file {
        return value.1;
    }
    match given(read, value, file) {
        Some(given) => Some(given.secret.expose_secret().to_owned()),
        // A placeholder, so that the secret is not also reported as missing.
        None => Some("https://unreadable@invalid/1".to_owned()),
    }
}

/// Replaces the secrets that are read once by the content of their files.
pub fn resolve(read: &mut Reader, raw: &mut Raw) {
    for (name, value, variable, file) in [
        (
            "SERVER_API_KEY",
            &mut raw.server_api_key,
            "SERVER_API_KEY_FILE",
            &mut raw.server_api_key_file,
        ),
        (
            "AWS_ACCESS_KEY_ID",
            &mut raw.aws_access_key_id,
            "AWS_ACCESS_KEY_ID_FILE",
            &mut raw.aws_access_key_id_file,
        ),
        (
            "AWS_SECRET_ACCESS_KEY",
            &mut raw.aws_secret_access_key,
            "AWS_SECRET_ACCESS_KEY_FILE",
            &mut raw.aws_secret_access_key_file,
        ),
        (
            "AWS_SESSION_TOKEN",
            &mut raw.aws_session_token,
            "AWS_SESSION_TOKEN_FILE",
            &mut raw.aws_session_token_file,
        ),
        (
            "SENTRY_DSN",
            &mut raw.sentry_dsn,
            "SENTRY_DSN_FILE",
            &mut raw.sentry_dsn_file,
        ),
    ] {
        *value = once(read, (name, value.take()), (variable, file.take()));
    }
}
