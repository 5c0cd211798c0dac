//! Parses the environment into the configuration. No other module reads the environment.
//!
//! `envy` reads it into [`Raw`], flat and as strings; one pass turns that into [`Config`] and
//! collects every error on the way.

mod aws;
mod effective;
mod foreign;
mod net;
mod read;
mod reads;
mod redis;
mod secret_file;
mod snapshot_keys;
mod snapshots;
mod tidy;
mod traces;
mod unknown;
mod uses;
mod variables;
mod writes;

pub use aws::{QueueConfig, RoleConfig, StaticCredentials};
pub use effective::{Entry, Origin};
pub use net::NetConfig;
pub use reads::{ReadConfig, ReaderKeys};
pub use redis::{Address, IamConfig, Login, Password, RedisConfig, RedisTls, Topology};
pub use snapshot_keys::snapshot_keys;
pub use snapshots::SnapshotConfig;
pub use traces::TracesConfig;
pub use uses::Uses;
pub use variables::{Need, VARIABLES, Variable};

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use crate::plan::Rules;
use read::{Reader, text};
use variables::Raw;

/// The checked configuration of the process.
#[derive(Debug, Clone)]
pub struct Config {
    pub queue: QueueConfig,
    /// `None`: the process itself is the store.
    pub redis: Option<RedisConfig>,
    /// `None`: no snapshots are written.
    pub snapshots: Option<SnapshotConfig>,
    /// `None`: there are no administration routes.
    pub admin_token: Option<SecretString>,
    pub writes: WriteConfig,
    pub edge: EdgeConfig,
    /// `None`: the read API is off.
    pub reads: Option<ReadConfig>,
    pub sentry: SentryConfig,
    pub log: LogConfig,
    /// `None`: no traces are sent.
    pub traces: Option<TracesConfig>,
    pub port: u16,
    pub shutdown_timeout: Duration,
    /// Variables and their effective values; for a secret, only that it is set.
    pub effective: BTreeMap<&'static str, String>,
    /// Possible mistakes, which the worker logs at start.
    pub warnings: Vec<String>,
}

/// How state is written.
#[derive(Debug, Clone)]
pub struct WriteConfig {
    pub prefix: String,
    /// `None`: keys do not expire.
    pub ttl_secs: Option<u32>,
    /// Write entitlements only of customers that are cached.
    pub update_if_exists: bool,
    pub rules: Rules,
    pub lock_retries: u32,
}

#[derive(Debug, Clone)]
pub struct EdgeConfig {
    pub url: Url,
    pub api_key: SecretString,
    pub net: NetConfig,
}

#[derive(Debug, Clone)]
pub enum SentryConfig {
    Off,
    Dsn(SecretString),
    /// Ask the Edge API.
    Remote,
}

#[derive(Debug, Clone)]
pub struct LogConfig {
    /// `None`: text on a terminal, JSON elsewhere.
    pub json: Option<bool>,
    pub filter: String,
    /// Secret values, which no log line may contain.
    pub secrets: Vec<SecretString>,
}

/// Every error in the environment. None contains the value of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        let noun = if count == 1 { "error" } else { "errors" };
        write!(f, "{count} configuration {noun}:")?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl std::error::Error for ConfigErrors {}

/// Returns the variables of this process. Names and values that are not Unicode are skipped: this service has none.
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Reads only the port, for a probe that needs no other variable.
pub fn port(environment: Vec<(String, String)>) -> Result<u16, ConfigErrors> {
    let mut read = Reader::default();
    let value = environment.into_iter().find(|(name, _)| name == "PORT");
    let port = read.number("PORT", value.map(|(_, value)| value), PORT, 1..=65_535);
    read.finish(port)
}

const PORT: u16 = 4000;
/// Begins the names of variables that mean nothing without a Redis.
const REDIS: &str = "REDIS_";

/// Returns every variable that has a value, set or by default, in the order of the table. A secret, and a
/// wrong value, is not shown.
pub fn entries(environment: &[(String, String)]) -> Vec<Entry> {
    let mut entries = effective::entries(environment);
    let errors = match Config::load(environment.to_vec()) {
        Ok(config) => {
            entries.retain(|entry| config.redis.is_some() || !entry.name.starts_with(REDIS));
            return entries;
        }
        Err(ConfigErrors(errors)) => errors,
    };
    let is_wrong = |name: &str| {
        let mut named = errors.iter().filter_map(|error| error.split(' ').next());
        named.any(|of_error| of_error == name)
    };
    for entry in &mut entries {
        let alias = match entry.origin {
            Origin::Alias(alias) => is_wrong(alias),
            Origin::Default | Origin::Environment => false,
        };
        if alias || is_wrong(entry.name) && entry.origin != Origin::Default {
            entry.value = "not shown (invalid)".to_owned();
        }
    }
    entries
}

/// Names the store and its topology, for people.
pub fn store_name(config: &Config) -> &'static str {
    config
        .redis
        .as_ref()
        .map_or("memory", |redis| redis.topology.name())
}

impl Config {
    #[cfg(test)]
    fn redis(&self) -> &RedisConfig {
        self.redis.as_ref().expect("the store is Redis")
    }

    /// Parses all variables, or returns every error in them.
    pub fn load(environment: Vec<(String, String)>) -> Result<Self, ConfigErrors> {
        Self::load_for(environment, &Uses::ALL)
    }

    /// Parses all variables for a command that connects to some of the services. The settings of the others are
    /// placeholders where they are not set.
    pub fn load_for(
        environment: Vec<(String, String)>,
        uses: &[Uses],
    ) -> Result<Self, ConfigErrors> {
        let mut read = Reader::new(uses);
        let mut warnings = unknown::warnings(&environment);
        let environment = tidy::values(&mut read, environment, &mut warnings);
        let mut effective = effective::effective(&environment);
        let (known, rest): (Vec<_>, Vec<_>) = environment
            .iter()
            .cloned()
            .partition(|(name, _)| VARIABLES.iter().any(|variable| variable.name == name));
        let mut raw: Raw = envy::from_iter(known)
            .map_err(|error| ConfigErrors(vec![format!("cannot read the environment: {error}")]))?;

        secret_file::resolve(&mut read, &mut raw);
        let is_memory = snapshots::is_memory(&mut read, &mut raw, &environment);
        if is_memory {
            effective.retain(|name, _| !name.starts_with(REDIS));
        }
        let redis =
            (!is_memory).then(|| redis::read(&mut read, &mut raw, &mut effective, &mut warnings));
        let snapshots = snapshots::read(&mut read, &mut raw);
        let admin_token = snapshots::admin_token(&mut read, &mut raw);

        let urls = [
            &raw.aws_endpoint_url,
            &raw.aws_endpoint_url_sqs,
            &raw.aws_endpoint_url_sts,
        ];
        let has_endpoints = urls.into_iter().any(|url| text(url.clone()).is_some());
        let region = text(raw.aws_region.clone()).unwrap_or_default();
        foreign::read(&mut read, &rest, &region, has_endpoints, &mut warnings);
        let net = net::read(&mut read, &mut raw, &rest, &mut warnings);
        let queue = aws::read(&mut read, &mut raw, &rest, &mut warnings, net.clone());

        let port = read.number("PORT", raw.port.take(), PORT, 1..=65_535);
        let reads = reads::read(&mut read, &mut raw, uses.contains(&Uses::Reads), port);

        if snapshots.is_some() && redis.is_some() && reads.is_none() && uses.contains(&Uses::Queue)
        {
            read.problem(
                "SNAPSHOT_PATH",
                "is set, but there is nothing to write: set READ_PORT, or STORE=memory",
            );
        }

        let traces = traces::read(&mut read, &mut raw, &rest, &mut warnings);

        let writes = writes::read(&mut read, &mut raw, &mut warnings);
        let edge = edge(&mut read, &mut raw, net);
        let sentry = sentry(&mut read, &mut raw, &mut warnings);
        let log = log(&mut read, &mut raw);

        warnings.append(&mut read.take_warnings());
        let shutdown_timeout = Duration::from_secs(read.number(
            "SHUTDOWN_TIMEOUT_SECS",
            raw.shutdown_timeout_secs,
            8,
            2..=300,
        ));

        read.finish(Self {
            queue,
            redis,
            snapshots,
            admin_token,
            writes,
            edge,
            reads,
            sentry,
            log,
            traces,
            port,
            shutdown_timeout,
            effective,
            warnings,
        })
    }
}

fn edge(read: &mut Reader, raw: &mut Raw, net: NetConfig) -> EdgeConfig {
    EdgeConfig {
        url: read
            .url(
                "EDGE_API_URL",
                raw.edge_api_url.take(),
                Some("https://edge.api.stigg.io"),
            )
            .unwrap_or_else(placeholder),
        api_key: read
            .required("SERVER_API_KEY", raw.server_api_key.take())
            .unwrap_or_default()
            .into(),
        net,
    }
}

fn sentry(read: &mut Reader, raw: &mut Raw, warnings: &mut Vec<String>) -> SentryConfig {
    let dsn = read.dsn("SENTRY_DSN", raw.sentry_dsn.take());
    let disabled = read.boolean("DISABLE_SENTRY", raw.disable_sentry.take(), false);
    match (disabled, dsn) {
        (true, _) => SentryConfig::Off,
        (false, Err(())) => {
            warnings.push("SENTRY_DSN is a word that means none, so no errors are reported: write DISABLE_SENTRY=1 instead".into());
            SentryConfig::Off
        }
        (false, Ok(Some(dsn))) => SentryConfig::Dsn(dsn),
        (false, Ok(None)) => SentryConfig::Remote,
    }
}

/// Reads last: all secrets are known then, and none may be in a log line.
fn log(read: &mut Reader, raw: &mut Raw) -> LogConfig {
    LogConfig {
        json: read
            .one_of("LOG_FORMAT", raw.log_format.take(), &["json", "text"])
            .map(|format| format == 0),
        filter: read.log_filter(raw.rust_log.take(), raw.log_level.take()),
        secrets: read.secrets(),
    }
}

/// Replaces an invalid URL. A configuration that holds it is never returned.
fn placeholder() -> Url {
    Url::parse("http://invalid").expect("a constant")
}

#[cfg(test)]
mod tests;
