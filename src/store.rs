//! Reads and writes Redis through fred. No other module uses fred.

mod admin;
mod connect;
mod error;
mod layout;
mod monitor;
mod primary;
mod replicas;
mod script;
mod tally;
mod tracked;
mod write;

pub use admin::{
    AdminClient, Browse, CachedCustomers, KEYS_PER_PAGE, KeptLetter, RedisFacts, RedisInfo, Ttl,
};
pub use error::StoreError;
pub use layout::{Layouts, NEWER_LAYOUT_ADVICE, warn_of_newer_layout};
pub use monitor::Gate;
pub use tally::Tally;
pub use tracked::{Mark, Tracked, Tracking};
pub use write::{Applied, Attempt, LOCKED_PAUSE, TOMBSTONE_TTL_SECS};

use std::sync::Arc;

use fred::prelude::*;
use fred::types::Value;

use crate::config::{RedisConfig, WriteConfig};
use crate::health::Health;
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::plan::Step;
use monitor::Probe;
use primary::Primary;
use replicas::Replicas;
use write::Writer;

/// Compares and writes. Clones share one connection, on which concurrent calls are pipelined.
#[derive(Clone)]
pub struct Store {
    primary: Primary,
    keys: Keys,
    writer: Writer,
    replicas: Replicas,
    metrics: Metrics,
    gate: Gate,
}

impl Store {
    /// Starts to connect and retries without limit; never waits.
    pub fn connect(
        redis: &RedisConfig,
        writes: &WriteConfig,
        keys: Keys,
        metrics: Metrics,
        health: Arc<Health>,
    ) -> anyhow::Result<Self> {
        let primary = Primary::start(redis)?;
        let missing = metrics.redis_replicas_missing.clone();
        let replicas = Replicas::new(redis.wait_replicas, keys.marker(), missing);
        let writer = Writer::new(primary.clone(), replicas.clone(), writes);
        let probe = Probe::new(primary.clone(), replicas.clone(), writer.clone(), &keys);
        let gate = Gate::start(probe, health, metrics.clone());
        Ok(Self {
            writer,
            replicas,
            primary,
            keys,
            metrics,
            gate,
        })
    }

    /// Returns a store for tests that do not reach Redis: never connected, its gate open.
    #[cfg(test)]
    pub fn unconnected(metrics: Metrics, health: Arc<Health>) -> Self {
        let writes = WriteConfig {
            prefix: "p".into(),
            ttl_secs: Some(1),
            update_if_exists: false,
            rules: Default::default(),
            lock_retries: 0,
        };
        let primary = Primary::to(Client::default());
        let replicas = Replicas::new(0, String::new(), Default::default());
        Self {
            writer: Writer::new(primary.clone(), replicas.clone(), &writes),
            replicas,
            primary,
            keys: Keys::new("p"),
            gate: Gate::opened_for_good(health, metrics.clone()),
            metrics,
        }
    }

    /// Returns this store with another rule: it also writes customers that are not cached, whatever the policy.
    pub fn upserting(&self) -> Self {
        Self {
            writer: self.writer.upserting(),
            ..self.clone()
        }
    }

    /// Open while Redis takes writes.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Applies steps, in one round trip unless they are many or large. An error closes the gate. It does not delay the
    /// next opening if the call itself may be the cause and `blames_calls` is set: the caller then searches for it.
    pub async fn apply(&self, steps: &[&Step], blames_calls: bool) -> Attempt {
        let took = |time: std::time::Duration| self.metrics.redis_calls.observe(time.as_secs_f64());
        let attempt = self.writer.apply(steps, took).await;
        if let Some(error) = &attempt.error {
            let is_expected = error.is_busy() || (blames_calls && error.may_be_of_the_call());
            self.failed(error, is_expected);
        }
        attempt
    }

    fn failed(&self, error: &StoreError, is_expected: bool) {
        self.metrics.redis_errors.inc();
        self.gate.close(error, is_expected);
        self.primary.look_again();
    }

    /// Adds a message that cannot be applied, in full, to a stream of at most `most` messages.
    pub async fn keep(&self, letter: DeadLetter<'_>, most: u64) -> Result<(), StoreError> {
        let mut fields: Vec<(&str, Value)> = vec![
            ("message_id", letter.message_id.into()),
            ("reason", letter.reason.into()),
            ("kind", letter.kind.into()),
            (
                "receive_count",
                Value::Integer(i64::from(letter.receive_count)),
            ),
            (
                "sent_at",
                letter
                    .sent_at
                    .map_or(String::new(), |at| at.to_string())
                    .into(),
            ),
            ("body", letter.body.into()),
        ];
        if let Some(attribute) = letter.type_attribute {
            fields.push(("type", attribute.into()));
        }
        let cap = ("MAXLEN", "=", i64::try_from(most).unwrap_or(i64::MAX));
        let kept = async {
            let client = self.primary.client()?;
            let writing = self.replicas.watch(&client);
            let key = self.keys.dead_letters();
            let _: String = client.xadd(key, false, cap, "*", fields).await?;
            self.replicas.confirm(writing).await
        };
        kept.await.inspect_err(|error: &StoreError| {
            if error.heals() {
                self.failed(error, false);
            }
        })
    }

    /// Returns the layouts of a sample of customers in Redis.
    pub async fn layouts(&self) -> Result<Layouts, StoreError> {
        layout::look(&self.primary.client()?, &self.keys).await
    }

    /// The server's version, once connected.
    pub fn version(&self) -> Option<String> {
        let client = self.primary.client().ok()?;
        client.server_version().map(|version| version.to_string())
    }

    /// Closes the connection.
    pub async fn close(&self) {
        let Ok(client) = self.primary.client() else {
            return;
        };
        if let Err(error) = client.quit().await {
            tracing::debug!(%error, "cannot close the connection to Redis");
        }
    }
}

/// A message that the worker gave up on, and the reason.
#[derive(Debug, Clone, Copy)]
pub struct DeadLetter<'a> {
    pub message_id: &'a str,
    pub reason: &'a str,
    pub kind: &'a str,
    pub receive_count: u32,
    pub sent_at: Option<u64>,
    pub body: &'a str,
    /// The message attribute that named its kind, which the body may lack.
    pub type_attribute: Option<&'a str>,
}
