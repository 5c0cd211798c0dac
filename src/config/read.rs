//! Reads the variables one by one and collects the errors.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::{ConfigErrors, Uses};

/// Parses values and collects every problem and every secret.
#[derive(Default)]
pub struct Reader {
    problems: Vec<String>,
    secrets: Vec<SecretString>,
    warnings: Vec<String>,
    /// The services whose required variables must be set.
    uses: Vec<Uses>,
}

impl Reader {
    pub fn new(uses: &[Uses]) -> Self {
        Self {
            uses: uses.to_vec(),
            ..Self::default()
        }
    }

    /// Whether the command connects to this service.
    pub fn uses(&self, service: Uses) -> bool {
        self.uses.contains(&service)
    }

    /// Reports a missing required variable if the command uses its service.
    fn missing(&mut self, name: &str) {
        let Some(variable) = super::VARIABLES.iter().find(|it| it.name == name) else {
            return;
        };
        if self.uses.iter().any(|uses| uses.requires(name)) {
            let example = variable.example;
            self.problem(
                name,
                format!("is not set: set it, for example {name}={example}"),
            );
        }
    }

    pub fn problem(&mut self, name: &str, what: impl Display) {
        self.problems.push(format!("{name} {what}"));
    }

    /// Adds a warning about a variable: a possible mistake that works.
    pub fn warn(&mut self, what: impl Into<String>) {
        self.warnings.push(what.into());
    }

    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Adds a warning whose text names the variable itself.
    pub fn complain(&mut self, problem: String) {
        self.problems.push(problem);
    }

    pub fn finish<T>(self, config: T) -> Result<T, ConfigErrors> {
        if self.problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigErrors(self.problems))
        }
    }

    /// Returns the secrets read so far, for redaction.
    pub fn secrets(&self) -> Vec<SecretString> {
        self.secrets.clone()
    }

    pub fn required(&mut self, name: &'static str, value: Option<String>) -> Option<String> {
        let value = text(value);
        let secret = name == "SERVER_API_KEY";
        match &value {
            None => self.missing(name),
            Some(value) if secret => self.secrets.push(value.clone().into()),
            Some(_) => {}
        }
        value
    }

    pub fn secret(&mut self, value: Option<String>) -> Option<SecretString> {
        // Not trimmed: a password may begin or end with a space.
        let secret: SecretString = value.filter(|value| !value.is_empty())?.into();
        self.secrets.push(secret.clone());
        Some(secret)
    }

    /// Reads a variable and its alias: both may be set if they agree.
    pub fn either(
        &mut self,
        (name, value): (&str, Option<String>),
        (alias, other): (&str, Option<String>),
    ) -> Option<String> {
        let (value, other) = (text(value), text(other));
        if let (Some(one), Some(two)) = (&value, &other)
            && one != two
        {
            self.problem(
                name,
                format!(
                    "is {} but {alias} is {}: they are one setting, so set one of them",
                    shown(one),
                    shown(two)
                ),
            );
        }
        value.or(other)
    }

    pub fn number<T>(
        &mut self,
        name: &str,
        value: Option<String>,
        default: T,
        range: RangeInclusive<T>,
    ) -> T
    where
        T: FromStr + PartialOrd + Display + Copy,
    {
        self.optional_number(name, value, range).unwrap_or(default)
    }

    pub fn optional_number<T>(
        &mut self,
        name: &str,
        value: Option<String>,
        range: RangeInclusive<T>,
    ) -> Option<T>
    where
        T: FromStr + PartialOrd + Display + Copy,
    {
        let value = text(value)?;
        let number = value.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            let (from, to) = range.into_inner();
            self.problem(
                name,
                format!(
                    "is {}: write a whole number from {from} to {to}",
                    shown(&value)
                ),
            );
        }
        number
    }

    pub fn boolean(&mut self, name: &str, value: Option<String>, default: bool) -> bool {
        let Some(value) = text(value) else {
            return default;
        };
        match value.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => true,
            "0" | "false" | "no" | "off" => false,
            _ => {
                let value = shown(&value);
                self.problem(
                    name,
                    format!("is {value}: write 0 or 1 (true, false, yes, no, on and off work too)"),
                );
                default
            }
        }
    }

    /// Returns the index of the value among those allowed, compared without case.
    pub fn one_of(&mut self, name: &str, value: Option<String>, allowed: &[&str]) -> Option<usize> {
        let value = text(value)?;
        let place = allowed
            .iter()
            .position(|it| it.eq_ignore_ascii_case(&value));
        if place.is_none() {
            self.problem(
                name,
                format!("is {}: write {}", shown(&value), allowed.join(" or ")),
            );
        }
        place
    }

    pub fn url(
        &mut self,
        name: &'static str,
        value: Option<String>,
        default: Option<&str>,
    ) -> Option<Url> {
        let value = match text(value).or_else(|| default.map(str::to_owned)) {
            Some(value) => value,
            None => self.required(name, None)?,
        };
        let url = Url::parse(&value)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
        match url {
            // Credentials in a URL would end up in logs.
            Some(url) if !url.username().is_empty() || url.password().is_some() => {
                self.problem(name, "holds a user or password: write the URL without them");
                None
            }
            Some(url) if url.query().is_some() || url.fragment().is_some() => {
                self.problem(
                    name,
                    "has a query or a fragment (? or #): write the URL without it",
                );
                None
            }
            Some(url) => Some(url),
            None => {
                self.problem(
                    name,
                    "is not an http or https URL: write it whole, for example https://host/path",
                );
                None
            }
        }
    }

    /// Reads an optional URL that is used unchanged, with its query.
    pub fn whole_url(&mut self, name: &'static str, value: Option<String>) -> Option<Url> {
        let whole = Url::parse(&text(value)?).ok();
        let query = whole
            .as_ref()
            .and_then(|url| url.query().map(str::to_owned));
        let rest = whole.map_or_else(String::new, |mut url| {
            url.set_query(None);
            url.into()
        });
        let mut url = self.url(
            name,
            Some(rest).filter(|it| !it.is_empty()).or(Some("-".into())),
            None,
        )?;
        url.set_query(query.as_deref());
        Some(url)
    }

    pub fn optional_url(&mut self, name: &'static str, value: Option<String>) -> Option<Url> {
        let value = text(value)?;
        self.url(name, Some(value), None)
    }

    /// Reads a Sentry DSN; its public key counts as a secret. `Err` for a word that means "none".
    pub fn dsn(&mut self, name: &str, value: Option<String>) -> Result<Option<SecretString>, ()> {
        const NONE: [&str; 10] = [
            "", "0", "false", "no", "none", "off", "disabled", "null", "nil", "-",
        ];
        let Some(dsn) = text(value) else {
            return Ok(None);
        };
        let word = dsn.trim_matches(['"', '\'']).trim().to_ascii_lowercase();
        if NONE.contains(&word.as_str()) {
            return Err(());
        }
        let dsn = self.secret(Some(dsn));
        if dsn.as_ref().is_some_and(|dsn| !is_dsn(dsn.expose_secret())) {
            self.problem(
                name,
                "is not a Sentry DSN: write https://<key>@<host>/<project>, or DISABLE_SENTRY=1",
            );
        }
        Ok(dsn)
    }

    /// Returns `RUST_LOG` unchanged, or a filter: the level for our own lines, and warnings for the libraries.
    pub fn log_filter(&mut self, rust_log: Option<String>, level: Option<String>) -> String {
        const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
        let level = LEVELS[self.one_of("LOG_LEVEL", level, &LEVELS).unwrap_or(2)];
        if let Some(filter) = text(rust_log) {
            if let Err(error) = filter.parse::<tracing_subscriber::EnvFilter>() {
                self.problem("RUST_LOG", format!("is not a log filter: {error}"));
            }
            return filter;
        }
        match level {
            "error" => "error".into(),
            // fred warns of each failed command; the worker logs the failure itself, once.
            level => format!("warn,fred=error,entitlement_sync={level}"),
        }
    }
}

/// Quotes a wrong value, but not one that may hold a secret, for example a whole connection string.
pub fn shown(value: &str) -> String {
    let is_harmless = |letter: char| letter.is_ascii_alphanumeric() || "-_.+ ".contains(letter);
    match value.len() <= 32 && value.chars().all(is_harmless) {
        true => format!("\"{value}\""),
        false => "a value that is not shown".to_owned(),
    }
}

/// Trims a value; an empty string counts as unset.
pub fn text(value: Option<String>) -> Option<String> {
    let value = value?;
    let trimmed = value.trim();
    (!trimmed.is_empty()).then(|| trimmed.to_owned())
}

/// Returns whether a text has the parts of a Sentry DSN: a key, a host and a project.
fn is_dsn(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else {
        return false;
    };
    let project = url.path_segments().and_then(|mut parts| parts.next_back());
    matches!(url.scheme(), "http" | "https")
        && !url.username().is_empty()
        && url.has_host()
        && project.is_some_and(|project| !project.is_empty())
}
