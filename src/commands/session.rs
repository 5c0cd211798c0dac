//! Starts a command: loads the configuration that it needs, and connects or explains the failure.

use anyhow::Context;
use entitlement_sync::config::{self, Config, Uses};
use entitlement_sync::edge::Edge;
use entitlement_sync::keys::Keys;
use entitlement_sync::plan::Planner;
use entitlement_sync::queue::{self, QueueErrorKind, Sender, SqsQueue};
use entitlement_sync::store::{AdminClient, StoreError};

use super::{BAD_CONFIGURATION, Failure, NO_INPUT, NO_PERMISSION, UNAVAILABLE};

/// Loads the configuration; only the variables of the services used are required.
pub fn configuration(uses: &[Uses]) -> anyhow::Result<Config> {
    configuration_of(config::environment(), uses)
}

/// Loads the configuration from other variables than those of the process.
pub fn configuration_of(
    environment: Vec<(String, String)>,
    uses: &[Uses],
) -> anyhow::Result<Config> {
    let config = Config::load_for(environment, uses);
    let config = config.map_err(|errors| Failure::with(BAD_CONFIGURATION, errors))?;
    // One provider for all TLS. If one is already installed, it stays.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Ok(config)
}

pub fn keys(config: &Config) -> Keys {
    Keys::new(&config.writes.prefix)
}

/// Plans messages as the worker does.
pub fn planner(config: &Config) -> Planner {
    Planner {
        keys: keys(config),
        rules: config.writes.rules,
        ttl_secs: config.writes.ttl_secs,
    }
}

const NEEDS_REDIS: &str = "this command needs Redis, and STORE is memory: a process in memory mode is asked on READ_PORT and changed through /admin on PORT, see docs/memory.md";

/// Connects to Redis.
pub async fn redis(config: &Config) -> anyhow::Result<AdminClient> {
    let Some(redis) = &config.redis else {
        return Err(Failure::with(BAD_CONFIGURATION, NEEDS_REDIS));
    };
    AdminClient::connect(redis, &config.writes)
        .await
        .map_err(|error| redis_failure(&error))
}

/// Converts an error of Redis to a failure with its exit code.
pub fn redis_failure(error: &anyhow::Error) -> anyhow::Error {
    let refused = error
        .downcast_ref::<StoreError>()
        .is_some_and(StoreError::needs_a_person);
    let code = if refused { NO_PERMISSION } else { UNAVAILABLE };
    Failure::with(code, format!("Redis: {error:#}"))
}

/// Returns a client of the configured queue; nothing is sent yet.
pub async fn queue(config: &Config) -> SqsQueue {
    let credentials = queue::credentials(&config.queue, &Edge::new(&config.edge)).await;
    SqsQueue::new(&config.queue, credentials).await
}

/// Returns a sender to the configured queue; nothing is sent yet.
pub async fn sender(config: &Config) -> Sender {
    let credentials = queue::credentials(&config.queue, &Edge::new(&config.edge)).await;
    Sender::new(&config.queue, credentials).await
}

/// Converts an error of the queue to a failure with its exit code.
pub fn queue_failure(text: impl std::fmt::Display, kind: QueueErrorKind) -> anyhow::Error {
    let code = match kind {
        QueueErrorKind::NoQueue | QueueErrorKind::Foreign | QueueErrorKind::Proxy => UNAVAILABLE,
        kind if kind.needs_a_person() => NO_PERMISSION,
        _ => UNAVAILABLE,
    };
    Failure::with(code, format!("the queue: {text}"))
}

/// Reads a file, or standard input for `-`, without a byte order mark.
pub fn input(path: &str) -> anyhow::Result<String> {
    let text = if path == "-" {
        std::io::read_to_string(std::io::stdin()).context("cannot read standard input")
    } else {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
    };
    let text = text.map_err(|error| Failure::with(NO_INPUT, format!("{error:#}")))?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}
