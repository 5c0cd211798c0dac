//! What commands begin with: the configuration they need, and a connection or a clear word why not.

use anyhow::Context;
use entitlement_sync::config::{self, Config, Uses};
use entitlement_sync::edge::Edge;
use entitlement_sync::keys::Keys;
use entitlement_sync::plan::Planner;
use entitlement_sync::queue::{self, QueueErrorKind, Sender, SqsQueue};
use entitlement_sync::store::{AdminClient, StoreError};

use super::{BAD_CONFIGURATION, Failure, NO_INPUT, NO_PERMISSION, UNAVAILABLE};

/// The configuration, of which only what is used must be there.
pub fn configuration(uses: &[Uses]) -> anyhow::Result<Config> {
    configuration_of(config::environment(), uses)
}

/// The same, of other variables than those of the process.
pub fn configuration_of(
    environment: Vec<(String, String)>,
    uses: &[Uses],
) -> anyhow::Result<Config> {
    let config = Config::load_for(environment, uses);
    let config = config.map_err(|errors| Failure::with(BAD_CONFIGURATION, errors))?;
    // One provider for everything that speaks TLS. That there is one already is no harm.
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

/// A connection to Redis.
pub async fn redis(config: &Config) -> anyhow::Result<AdminClient> {
    AdminClient::connect(&config.redis, &config.writes)
        .await
        .map_err(|error| redis_failure(&error))
}

/// What went wrong with Redis, with the exit code that says so.
pub fn redis_failure(error: &anyhow::Error) -> anyhow::Error {
    let refused = error
        .downcast_ref::<StoreError>()
        .is_some_and(StoreError::needs_a_person);
    let code = if refused { NO_PERMISSION } else { UNAVAILABLE };
    Failure::with(code, format!("Redis: {error:#}"))
}

/// The queue of a configuration; nothing is sent yet.
pub async fn queue(config: &Config) -> SqsQueue {
    let credentials = queue::credentials(&config.queue, &Edge::new(&config.edge)).await;
    SqsQueue::new(&config.queue, credentials).await
}

/// Sends to the queue of a configuration; nothing is sent yet.
pub async fn sender(config: &Config) -> Sender {
    let credentials = queue::credentials(&config.queue, &Edge::new(&config.edge)).await;
    Sender::new(&config.queue, credentials).await
}

/// What went wrong with a queue, with the exit code that says so.
pub fn queue_failure(text: impl std::fmt::Display, kind: QueueErrorKind) -> anyhow::Error {
    let code = match kind {
        QueueErrorKind::NoQueue | QueueErrorKind::Foreign | QueueErrorKind::Proxy => UNAVAILABLE,
        kind if kind.needs_a_person() => NO_PERMISSION,
        _ => UNAVAILABLE,
    };
    Failure::with(code, format!("the queue: {text}"))
}

/// A file, or standard input for `-`; without a byte order mark.
pub fn input(path: &str) -> anyhow::Result<String> {
    let text = if path == "-" {
        std::io::read_to_string(std::io::stdin()).context("standard input cannot be read")
    } else {
        std::fs::read_to_string(path).with_context(|| format!("{path} cannot be read"))
    };
    let text = text.map_err(|error| Failure::with(NO_INPUT, format!("{error:#}")))?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}
