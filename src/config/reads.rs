//! Reads the variables of the read API.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::read::{Reader, shown, text};
use super::secret_file::{SecretFile, shown_path};
use super::variables::Raw;

/// The settings of the read API.
#[derive(Debug, Clone)]
pub struct ReadConfig {
    pub port: u16,
    pub keys: ReaderKeys,
    /// How long unconfirmed state is still returned; `None`: without limit.
    pub ttl: Option<Duration>,
    /// How long state counts as fresh where Redis does not report changes.
    pub fresh: Duration,
    /// `None`: a share of the memory limit.
    pub max_bytes: Option<u64>,
}

/// The API keys that readers may use.
#[derive(Debug, Clone)]
pub struct ReaderKeys {
    pub keys: Vec<SecretString>,
    /// The file that holds the keys, if they are in a file.
    file: Option<SecretFile>,
}

impl ReaderKeys {
    /// Reads the keys from the file again; `None` where there is no file.
    pub fn read_again(&self) -> Option<Result<Vec<SecretString>, String>> {
        self.file.as_ref().map(read_file)
    }
}

const PORT_OF_SERVE: u16 = 4001;
const NO_KEY: &str = "holds no key: write one key or several, separated by commas";

/// Reads the settings; `None`: the read API is off. `is_served`: the process runs only the read API.
pub fn read(read: &mut Reader, raw: &mut Raw, is_served: bool, port: u16) -> Option<ReadConfig> {
    let own = read.optional_number("READ_PORT", raw.read_port.take(), 1..=65_535);
    let own = own.or(is_served.then_some(PORT_OF_SERVE));
    if own == Some(port) {
        read.problem(
            "READ_PORT",
            format!("is {port}, which is also PORT: write two different ports"),
        );
    }
    let keys = keys(read, raw);
    let ttl = ttl(read, raw);
    let fresh = read.number(
        "LOCAL_FRESH_MS",
        raw.local_fresh_ms.take(),
        1_000,
        0..=60_000,
    );
    let max_bytes = read.optional_number(
        "LOCAL_MAX_BYTES",
        raw.local_max_bytes.take(),
        1 << 20..=1 << 40,
    );
    Some(ReadConfig {
        port: own?,
        keys,
        ttl: u64::try_from(ttl).ok().map(Duration::from_secs),
        fresh: Duration::from_millis(fresh),
        max_bytes,
    })
}

fn keys(read: &mut Reader, raw: &mut Raw) -> ReaderKeys {
    let listed = text(raw.read_api_keys.take());
    let path = text(raw.read_api_keys_file.take());
    let file = path.map(|path| SecretFile {
        variable: "READ_API_KEYS_FILE",
        path: path.into(),
    });
    let keys = match (&listed, &file) {
        (Some(_), Some(_)) => {
            read.problem(
                "READ_API_KEYS_FILE",
                "is set, and so is READ_API_KEYS: set one of them",
            );
            Vec::new()
        }
        (Some(listed), None) => {
            let keys = split(listed);
            if keys.is_empty() {
                read.problem("READ_API_KEYS", NO_KEY);
            }
            keys
        }
        (None, Some(file)) => match read_file(file) {
            Ok(keys) => keys,
            Err(problem) => {
                read.complain(problem);
                Vec::new()
            }
        },
        (None, None) => text(raw.server_api_key.clone())
            .map(SecretString::from)
            .into_iter()
            .collect(),
    };
    for key in &keys {
        let _ = read.secret(Some(key.expose_secret().to_owned()));
    }
    ReaderKeys { keys, file }
}

fn read_file(file: &SecretFile) -> Result<Vec<SecretString>, String> {
    let SecretFile { variable, path } = file;
    let path_shown = shown_path(path);
    let content = std::fs::read_to_string(path)
        .map_err(|error| format!("{variable} is {path_shown}, which cannot be read: {error}"))?;
    let keys = split(content.trim_start_matches('\u{feff}'));
    match keys.is_empty() {
        true => Err(format!("{variable} is {path_shown}, which {NO_KEY}")),
        false => Ok(keys),
    }
}

fn split(keys: &str) -> Vec<SecretString> {
    keys.split([',', '\n', '\r'])
        .map(str::trim)
        .filter(|key| !key.is_empty())
        .map(SecretString::from)
        .collect()
}

const DEFAULT_TTL_SECS: i64 = 3_600;

fn ttl(read: &mut Reader, raw: &mut Raw) -> i64 {
    let own = seconds(read, "LOCAL_TTL_SECS", raw.local_ttl_secs.take());
    let alias = seconds(read, "CACHE_TTL", raw.cache_ttl.take());
    if let (Some(own), Some(alias)) = (own, alias)
        && own != alias
    {
        read.problem(
            "LOCAL_TTL_SECS",
            format!(
                "is {own} s but CACHE_TTL is {alias} s: they are one setting, so set one of them"
            ),
        );
    }
    own.or(alias).unwrap_or(DEFAULT_TTL_SECS)
}

/// Reads whole seconds, or a text with units.
pub fn seconds(read: &mut Reader, name: &str, value: Option<String>) -> Option<i64> {
    let value = text(value)?;
    let parsed = value.parse().ok().or_else(|| with_units(&value));
    if parsed.is_none() {
        read.problem(
            name,
            format!(
                "is {}: write seconds, or a duration, for example 30s, 5m or 1h30m",
                shown(&value)
            ),
        );
    }
    parsed
}

/// Parses a duration with units: `1h30m`, `5m`, `-1s`.
fn with_units(value: &str) -> Option<i64> {
    let (sign, mut rest) = match value.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, value),
    };
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        let unit = match rest.as_bytes().get(digits)? {
            b's' => 1,
            b'm' => 60,
            b'h' => 3_600,
            b'd' => 86_400,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[digits + 1..];
    }
    Some(sign * total)
}

#[cfg(test)]
mod tests {
    use super::with_units;

    #[test]
    fn durations_are_read_with_their_units() {
        for (text, seconds) in [
            ("30s", Some(30)),
            ("5m", Some(300)),
            ("1h30m", Some(5_400)),
            ("1m30s", Some(90)),
            ("2d", Some(172_800)),
            ("-1s", Some(-1)),
            ("5", None),
            ("5x", None),
            ("m", None),
            ("", Some(0)),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(with_units(text), seconds, "{text}");
        }
    }
}
