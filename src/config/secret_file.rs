//! Secrets that are files: `REDIS_PASSWORD_FILE` and its like.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::read::{Reader, text};
use super::tidy;
use super::variables::Raw;

/// A file that holds a secret and nothing else; a newline at its end is not part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// The variable that names it, for errors.
    pub variable: &'static str,
    pub path: PathBuf,
}

impl SecretFile {
    /// The secret as it is now, or what is wrong with the file.
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

/// A path, in quotes; not what may be the secret itself in the place of its file.
pub fn shown_path(path: &Path) -> String {
    match path.to_str() {
        Some(text) if text.starts_with(['/', '.', '~']) => format!("\"{text}\""),
        _ => "a relative path that is not shown".to_owned(),
    }
}

/// A secret, and the file that it came from.
pub struct SecretSource {
    pub secret: SecretString,
    pub file: Option<SecretFile>,
}

/// A secret given as it is, or as a file; both at once contradict each other.
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

/// The same for a secret that is read once, at start.
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
        // Whatever would be said of its absence is not what is wrong.
        None => Some("https://unreadable@invalid/1".to_owned()),
    }
}

/// Puts the content of files in the place of the secrets that are read once.
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
