//! Reads the variables of snapshots, of the store and of the administration routes.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::Uses;
use super::read::{Reader, text};
use super::reads::seconds;
use super::secret_file::{self, SecretSource};
use super::variables::Raw;
use crate::snapshot::Secret;

/// Where and how snapshots are written.
#[derive(Debug, Clone)]
pub struct SnapshotConfig {
    pub path: PathBuf,
    pub key: SecretString,
    /// Is tried for reading only.
    pub previous_key: Option<SecretString>,
    /// `None`: not by time.
    pub interval: Option<Duration>,
    pub keep: usize,
}

/// Seconds between two snapshots where only `MEM_AUTO_SAVE_ENABLED` is set.
const DEFAULT_INTERVAL_SECS: i64 = 300;
const MAX_INTERVAL_SECS: i64 = 7 * 24 * 60 * 60;
const NO_PATH: &str = "is set, but SNAPSHOT_PATH is not: set it, for example SNAPSHOT_PATH=/data";

/// Returns whether the process itself is the store. Variables of Redis are then an error.
pub fn is_memory(read: &mut Reader, raw: &mut Raw, environment: &[(String, String)]) -> bool {
    let own = read.one_of("STORE", raw.store.take(), &["redis", "memory"]);
    let alias = read.one_of(
        "MEM_OR_EXTERNAL",
        raw.mem_or_external.take(),
        &["REDIS", "MEM"],
    );
    if let (Some(own), Some(alias)) = (own, alias)
        && own != alias
    {
        read.problem(
            "STORE",
            "and MEM_OR_EXTERNAL differ: they are one setting, so set one of them",
        );
    }
    let is_memory = own.or(alias) == Some(1);
    if is_memory {
        for (name, value) in environment {
            // Kubernetes sets REDIS_PORT to tcp://… where a Service is named redis.
            let is_of_redis = name.starts_with("REDIS_")
                && name != "REDIS_ENVIRONMENT_PREFIX"
                && !value.trim().is_empty()
                && !value.starts_with("tcp://");
            if is_of_redis {
                read.problem(
                    name,
                    "is set, but STORE is memory, which uses no Redis: unset one of them",
                );
            }
        }
        if read.uses(Uses::Reads) {
            read.problem(
                "STORE",
                "is memory, and serve has no state of its own: run the worker with READ_PORT instead",
            );
        } else if read.uses(Uses::Queue) && text(raw.read_port.clone()).is_none() {
            read.problem(
                "READ_PORT",
                "is not set, but STORE is memory, so no reader could ask about the state: set it, for example READ_PORT=4001",
            );
        }
    }
    is_memory
}

/// Reads the settings of snapshots; `None`: none are written.
pub fn read(read: &mut Reader, raw: &mut Raw) -> Option<SnapshotConfig> {
    let path = read.either(
        ("SNAPSHOT_PATH", raw.snapshot_path.take()),
        ("MEM_DUMP_PATH", raw.mem_dump_path.take()),
    );
    let key = key(read, raw);
    let previous = secret_file::given(
        read,
        ("SNAPSHOT_KEY_PREVIOUS", raw.snapshot_key_previous.take()),
        (
            "SNAPSHOT_KEY_PREVIOUS_FILE",
            raw.snapshot_key_previous_file.take(),
        ),
    );
    let previous = checked(read, "SNAPSHOT_KEY_PREVIOUS", previous);
    let interval = interval(read, raw);
    let keep = read.number("SNAPSHOT_KEEP", raw.snapshot_keep.take(), 3, 1..=100);
    let Some(path) = path else {
        for (name, is_set) in [
            ("SNAPSHOT_KEY", key.is_some()),
            ("SNAPSHOT_INTERVAL_SECS", interval.is_some()),
        ] {
            if is_set {
                read.problem(name, NO_PATH);
            }
        }
        return None;
    };
    if key.is_none() {
        read.problem(
            "SNAPSHOT_KEY",
            "is not set, but SNAPSHOT_PATH is: set it, for example to the output of openssl rand -hex 32",
        );
    }
    Some(SnapshotConfig {
        path: path.into(),
        key: key?,
        previous_key: previous,
        interval,
        keep,
    })
}

fn key(read: &mut Reader, raw: &mut Raw) -> Option<SecretString> {
    let own = secret_file::given(
        read,
        ("SNAPSHOT_KEY", raw.snapshot_key.take()),
        ("SNAPSHOT_KEY_FILE", raw.snapshot_key_file.take()),
    );
    let alias = read.secret(raw.mem_encryption_key.take());
    let own = checked(read, "SNAPSHOT_KEY", own);
    if let (Some(own), Some(alias)) = (&own, &alias)
        && own.expose_secret() != alias.expose_secret()
    {
        read.problem(
            "SNAPSHOT_KEY",
            "and MEM_ENCRYPTION_KEY differ: they are one setting, so set one of them",
        );
    }
    let alias = alias.map(|secret| SecretSource { secret, file: None });
    own.or_else(|| checked(read, "MEM_ENCRYPTION_KEY", alias))
}

/// Returns the secret; a problem is reported and does not count as missing.
fn checked(read: &mut Reader, name: &str, source: Option<SecretSource>) -> Option<SecretString> {
    let SecretSource { secret, .. } = source?;
    if let Err(problem) = Secret::parse(secret.expose_secret()) {
        read.problem(name, problem);
    }
    Some(secret)
}

fn interval(read: &mut Reader, raw: &mut Raw) -> Option<Duration> {
    let own = seconds(
        read,
        "SNAPSHOT_INTERVAL_SECS",
        raw.snapshot_interval_secs.take(),
    );
    let alias = seconds(read, "MEM_AUTO_SAVE_FREQ", raw.mem_auto_save_freq.take());
    let is_on = read.boolean(
        "MEM_AUTO_SAVE_ENABLED",
        raw.mem_auto_save_enabled.take(),
        alias.is_some(),
    );
    if let (Some(own), Some(alias)) = (own, alias)
        && own != alias
    {
        read.problem(
            "SNAPSHOT_INTERVAL_SECS",
            format!(
                "is {own} s but MEM_AUTO_SAVE_FREQ is {alias} s: they are one setting, so set one of them"
            ),
        );
    }
    let alias = is_on.then(|| alias.unwrap_or(DEFAULT_INTERVAL_SECS));
    let secs = own.or(alias).unwrap_or(0);
    if !(0..=MAX_INTERVAL_SECS).contains(&secs) {
        read.problem(
            "SNAPSHOT_INTERVAL_SECS",
            format!("is {secs} s: write seconds from 0 (off) to {MAX_INTERVAL_SECS}"),
        );
    }
    u64::try_from(secs)
        .ok()
        .filter(|secs| *secs > 0)
        .map(Duration::from_secs)
}

/// Reads the token of the administration routes; `None`: the routes do not exist.
pub fn admin_token(read: &mut Reader, raw: &mut Raw) -> Option<SecretString> {
    let token = secret_file::given(
        read,
        ("ADMIN_TOKEN", raw.admin_token.take()),
        ("ADMIN_TOKEN_FILE", raw.admin_token_file.take()),
    )?
    .secret;
    if token.expose_secret().trim().len() < MIN_TOKEN_CHARACTERS {
        read.problem(
            "ADMIN_TOKEN",
            format!("is shorter than {MIN_TOKEN_CHARACTERS} characters: set it, for example, to the output of openssl rand -hex 32"),
        );
    }
    Some(token)
}

const MIN_TOKEN_CHARACTERS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::tests::{errors, load};

    const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde0";

    /// Without Redis, with these variables.
    fn in_memory(more: &[(&str, &str)]) -> Config {
        let all = [("REDIS_HOST", ""), ("READ_PORT", "4001")];
        load(&[&all, more].concat()).unwrap()
    }

    #[test]
    fn the_other_names_work() {
        let config = in_memory(&[
            ("MEM_OR_EXTERNAL", "MEM"),
            ("MEM_DUMP_PATH", "/data"),
            ("MEM_ENCRYPTION_KEY", KEY),
            ("MEM_AUTO_SAVE_FREQ", "5m"),
        ]);
        assert!(config.redis.is_none());
        let snapshots = config.snapshots.unwrap();
        assert_eq!(snapshots.path, PathBuf::from("/data"));
        assert_eq!(snapshots.key.expose_secret(), KEY);
        assert_eq!(
            (snapshots.interval, snapshots.keep),
            (Some(Duration::from_secs(300)), 3)
        );
        let interval = |variables: &[(&str, &str)]| {
            let own = [
                ("STORE", "memory"),
                ("SNAPSHOT_PATH", "/data"),
                ("SNAPSHOT_KEY", KEY),
            ];
            let config = in_memory(&[&own, variables].concat());
            config.snapshots.unwrap().interval.map(|it| it.as_secs())
        };
        assert_eq!(interval(&[]), None);
        assert_eq!(interval(&[("MEM_AUTO_SAVE_ENABLED", "true")]), Some(300));
        assert_eq!(
            interval(&[
                ("MEM_AUTO_SAVE_FREQ", "60"),
                ("MEM_AUTO_SAVE_ENABLED", "false")
            ]),
            None
        );
        assert_eq!(interval(&[("SNAPSHOT_INTERVAL_SECS", "60")]), Some(60));
    }

    #[test]
    fn two_names_of_one_setting_must_agree() {
        for (variables, name) in [
            (
                &[("STORE", "redis"), ("MEM_OR_EXTERNAL", "MEM")][..],
                "STORE and",
            ),
            (
                &[("SNAPSHOT_PATH", "/a"), ("MEM_DUMP_PATH", "/b")],
                "SNAPSHOT_PATH is",
            ),
            (
                &[("SNAPSHOT_INTERVAL_SECS", "1"), ("MEM_AUTO_SAVE_FREQ", "2")],
                "SNAPSHOT_INTERVAL_SECS is 1 s",
            ),
        ] {
            let errors = errors(variables);
            assert!(
                errors.iter().any(|error| error.starts_with(name)),
                "{errors:?}"
            );
        }
    }

    #[test]
    fn what_would_write_nothing_is_an_error() {
        let found = |variables: &[(&str, &str)]| errors(variables).join("\n");
        assert!(
            found(&[("SNAPSHOT_KEY", KEY)])
                .contains("SNAPSHOT_KEY is set, but SNAPSHOT_PATH is not")
        );
        let unread = found(&[("SNAPSHOT_PATH", "/data"), ("SNAPSHOT_KEY", KEY)]);
        assert!(unread.contains("there is nothing to write"), "{unread}");
        assert!(found(&[("ADMIN_TOKEN", "short")]).contains("ADMIN_TOKEN is shorter"));
    }
}
