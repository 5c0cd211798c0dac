//! Redis, through fred. The only module that knows it.

mod connect;
mod error;
mod monitor;

pub use error::StoreError;
pub use monitor::Gate;

use std::sync::Arc;
use std::time::Instant;

use bytes_utils::Str;
use fred::prelude::*;
use fred::types::{Key, Value};
use tokio::sync::Semaphore;

use crate::config::{RedisConfig, WriteConfig};
use crate::health::Health;
use crate::keys::{self, Keys};
use crate::metrics::Metrics;
use crate::plan::{Action, Step};

/// What became of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    Written {
        written: u32,
        stale: u32,
    },
    /// An SDK process is writing this owner right now: try again shortly.
    Locked,
    /// Nothing of this owner is cached, so nothing was to be written.
    NotCached,
    /// This step failed and its neighbours did not.
    Failed(StoreError),
}

/// Compares and writes. Clones share one connection, on which concurrent calls are pipelined.
#[derive(Clone)]
pub struct Store {
    client: Client,
    keys: Keys,
    script: Arc<Script>,
    room: Arc<Semaphore>,
    ttl: i64,
    update_if_exists: bool,
    metrics: Metrics,
    gate: Gate,
}

struct Script {
    source: Str,
    sha1: Str,
}

impl Script {
    fn new(source: &'static str) -> Self {
        Self {
            source: Str::from_static(source),
            sha1: fred::util::sha1_hash(source).into(),
        }
    }
}

/// Long enough for SQS's longest retention, 14 days: no message from before the purge is left then.
const TOMBSTONE_TTL_SECS: i64 = 14 * 24 * 60 * 60;
/// Arguments and bytes of one call: Redis serves nobody else while it runs.
const MOST_ARGUMENTS: usize = 4_000;
const MOST_BYTES: usize = 1 << 20;
/// What may be under way at once on the one connection, counted by [`weight`]: Redis answers one call
/// after the other, and each has its timeout from when it was sent.
const ROOM: u32 = 16_000;

impl Store {
    /// Begins to connect and goes on trying for ever; never waits.
    pub fn connect(
        redis: &RedisConfig,
        writes: &WriteConfig,
        keys: Keys,
        metrics: Metrics,
        health: Arc<Health>,
    ) -> anyhow::Result<Self> {
        let client = connect::connect(redis)?;
        let gate = Gate::start(client.clone(), keys.marker(), health, metrics.clone());
        Ok(Self {
            client,
            keys,
            script: Arc::new(Script::new(include_str!("store/apply.lua"))),
            room: Arc::new(Semaphore::new(ROOM as usize)),
            ttl: writes.ttl_secs.map_or(0, i64::from),
            update_if_exists: writes.update_if_exists,
            metrics,
            gate,
        })
    }

    /// For tests of what does not reach Redis: never connected, its gate open.
    #[cfg(test)]
    pub fn unconnected(metrics: Metrics, health: Arc<Health>) -> Self {
        Self {
            client: Client::default(),
            keys: Keys::new("p"),
            script: Arc::new(Script::new("")),
            room: Arc::new(Semaphore::new(1)),
            ttl: 1,
            update_if_exists: false,
            gate: Gate::opened_for_good(health, metrics.clone()),
            metrics,
        }
    }

    /// Open while Redis takes writes.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Applies steps, in one round trip unless they are many or large. An error means "unknown":
    /// any of them may have been or may yet be applied. Doing it again is safe.
    pub async fn apply(&self, steps: &[&Step]) -> Result<Vec<Applied>, StoreError> {
        let mut applied = Vec::with_capacity(steps.len());
        let mut rest = steps;
        while !rest.is_empty() {
            let (call, later) = rest.split_at(fitting(rest));
            let room = self.room.acquire_many(weight(call).min(ROOM)).await;
            let started = Instant::now();
            let answers = self.call(call).await;
            drop(room);
            self.metrics
                .redis_calls
                .observe(started.elapsed().as_secs_f64());
            match answers {
                Ok(answers) if answers.len() == call.len() => {
                    applied.extend(answers.into_iter().map(outcome));
                }
                Ok(_) => return Err(self.failed(StoreError::protocol())),
                Err(error) => return Err(self.failed(error.into())),
            }
            rest = later;
        }
        // Errors that a script caught are Redis's own state as often as the key's.
        let trouble = applied.iter().find_map(|applied| match applied {
            Applied::Failed(error) if error.heals() => Some(error.clone()),
            _ => None,
        });
        match trouble {
            Some(error) => Err(self.failed(error)),
            None => Ok(applied),
        }
    }

    fn failed(&self, error: StoreError) -> StoreError {
        self.metrics.redis_errors.inc();
        self.gate.close(&error);
        error
    }

    async fn call(&self, steps: &[&Step]) -> Result<Vec<Value>, Error> {
        let (keys, arguments) = self.encode(steps);
        let answer = self
            .client
            .evalsha(self.script.sha1.clone(), keys, arguments)
            .await;
        match answer {
            // Redis forgets scripts on restart, failover and SCRIPT FLUSH.
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                let (keys, arguments) = self.encode(steps);
                self.client
                    .eval(self.script.source.clone(), keys, arguments)
                    .await
            }
            answer => answer,
        }
    }

    fn encode(&self, steps: &[&Step]) -> (Vec<Key>, Vec<Value>) {
        let items: usize = steps.iter().map(|step| step.items.len()).sum();
        let mut keys: Vec<Key> = Vec::with_capacity(2 * items + 3 * steps.len());
        let mut arguments: Vec<Value> = Vec::with_capacity(2 * items + 3 * steps.len() + 3);
        arguments.extend([
            Value::Integer(self.ttl),
            Value::Integer(i64::from(self.update_if_exists)),
            Value::Integer(TOMBSTONE_TTL_SECS),
        ]);
        for step in steps {
            keys.push(step.lock.as_str().into());
            keys.push(step.tombstone.as_str().into());
            let action = match &step.action {
                Action::SetCustomer => "S",
                Action::UpdateUsage { customer } => {
                    keys.push(keys::timestamp(customer).into());
                    "U"
                }
                Action::Purge => "P",
            };
            arguments.push(Value::from_static_str(action));
            arguments.push(integer(step.items.len() as u64));
            arguments.push(integer(step.at));
            keys.extend(
                step.items
                    .iter()
                    .map(|item| Key::from(keys::timestamp(&item.key))),
            );
            keys.extend(step.items.iter().map(|item| Key::from(item.key.as_str())));
            if !matches!(step.action, Action::Purge) {
                for item in &step.items {
                    arguments.push(integer(item.at));
                    arguments.push(item.value.as_str().into());
                }
            }
        }
        (keys, arguments)
    }

    /// Keeps a message that cannot be applied, whole, in a stream of at most `most` messages.
    pub async fn keep(&self, letter: DeadLetter<'_>, most: u64) -> Result<(), StoreError> {
        let mut fields: Vec<(&str, Value)> = vec![
            ("message_id", letter.message_id.into()),
            ("reason", letter.reason.into()),
            ("kind", letter.kind.into()),
            (
                "receive_count",
                Value::Integer(i64::from(letter.receive_count)),
            ),
            ("sent_at", letter.sent_at.map_or("".into(), integer)),
            ("body", letter.body.into()),
        ];
        if let Some(attribute) = letter.type_attribute {
            fields.push(("type", attribute.into()));
        }
        let cap = ("MAXLEN", "=", i64::try_from(most).unwrap_or(i64::MAX));
        let id: Result<String, Error> = self
            .client
            .xadd(self.keys.dead_letters(), false, cap, "*", fields)
            .await;
        id.map(drop).map_err(|error| {
            let error = StoreError::from(error);
            if error.heals() {
                self.failed(error)
            } else {
                error
            }
        })
    }

    /// The server's version, once connected.
    pub fn version(&self) -> Option<String> {
        self.client
            .server_version()
            .map(|version| version.to_string())
    }

    /// Closes the connection.
    pub async fn close(&self) {
        if let Err(error) = self.client.quit().await {
            tracing::debug!(%error, "closing the Redis connection failed");
        }
    }
}

/// A message given up, and why.
#[derive(Debug, Clone, Copy)]
pub struct DeadLetter<'a> {
    pub message_id: &'a str,
    pub reason: &'a str,
    pub kind: &'a str,
    pub receive_count: u32,
    pub sent_at: Option<u64>,
    pub body: &'a str,
    /// The message attribute that named its kind: without it the body may say nothing.
    pub type_attribute: Option<&'a str>,
}

/// How many of the first steps go into one call; at least one.
fn fitting(steps: &[&Step]) -> usize {
    let (mut arguments, mut bytes) = (0, 0);
    steps
        .iter()
        .take_while(|step| {
            let first = arguments == 0;
            arguments += 6 + 4 * step.items.len();
            bytes += step
                .items
                .iter()
                .map(|item| item.value.len())
                .sum::<usize>();
            first || (arguments <= MOST_ARGUMENTS && bytes <= MOST_BYTES)
        })
        .count()
}

/// Arguments, and one more for each 256 bytes of values.
fn weight(steps: &[&Step]) -> u32 {
    let weights = steps.iter().map(|step| {
        let bytes: usize = step.items.iter().map(|item| item.value.len()).sum();
        6 + 4 * step.items.len() + bytes / 256
    });
    u32::try_from(weights.sum::<usize>()).unwrap_or(u32::MAX)
}

fn integer(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn outcome(answer: Value) -> Applied {
    const STALE: i64 = 65_536;
    match answer {
        Value::Integer(-1) => Applied::Locked,
        Value::Integer(-2) => Applied::NotCached,
        Value::Integer(counts @ 0..) => Applied::Written {
            written: u32::try_from(counts % STALE).unwrap_or(u32::MAX),
            stale: u32::try_from(counts / STALE).unwrap_or(u32::MAX),
        },
        other => Applied::Failed(match other.as_str() {
            Some(text) => StoreError::of_redis(&text),
            None => StoreError::protocol(),
        }),
    }
}
