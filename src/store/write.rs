//! Compares and writes by one script call: encodes steps as its arguments and reads its replies.

mod parts;

use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::clients::Client;
use fred::types::{Key, Value};
use tokio::sync::Semaphore;

use self::parts::{Part, fitting, parts_of, weight};
use super::StoreError;
use super::primary::Primary;
use super::replicas::Replicas;
use super::script::Script;
use crate::config::WriteConfig;
use crate::keys;
use crate::plan::{Action, Condition, Step};

/// The outcome of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    Written {
        written: u32,
        stale: u32,
    },
    /// An SDK process is writing this owner: retry shortly.
    Locked,
    /// Nothing of this owner is cached, so nothing was written.
    NotCached,
    /// The message is older than the lifetime of keys and no timestamp is stored, so its order is unknown.
    Expired,
    /// This step failed; the other steps of the call did not.
    Failed(StoreError),
}

/// The known outcomes after steps were sent.
#[derive(Debug)]
pub struct Attempt {
    /// The outcomes of the first steps; those of the later steps are unknown. `Failed` with a temporary error
    /// also means "unknown": Redis may have applied such a step, or may still apply it.
    pub applied: Vec<Applied>,
    /// Why an outcome is unknown. Sending the step again is safe.
    pub error: Option<StoreError>,
}

impl Attempt {
    /// Returns all outcomes, or the error.
    pub fn complete(self) -> Result<Vec<Applied>, StoreError> {
        self.error.map_or(Ok(self.applied), Err)
    }
}

/// Calls the script. Clones share one connection, on which concurrent calls are pipelined.
#[derive(Clone)]
pub(super) struct Writer {
    primary: Primary,
    replicas: Replicas,
    script: Script,
    room: Arc<Semaphore>,
    ttl: i64,
    update_if_exists: bool,
}

/// The lifetime of a tombstone: longer than the maximum retention of SQS, 14 days, so no older message is left then.
pub const TOMBSTONE_TTL_SECS: u32 = 14 * 24 * 60 * 60;
/// Milliseconds between two tries of an owner that an SDK has locked; the writes of an SDK take about as long.
pub const LOCKED_PAUSE: std::ops::Range<u64> = 25..150;
/// The maximum weight in flight on the one connection, counted by [`weight`]: Redis runs all calls that it has read of a
/// connection before it serves another, and the timeout of each starts when it is sent.
const MAX_WEIGHT_IN_FLIGHT: u32 = 2_000;

impl Writer {
    pub fn new(primary: Primary, replicas: Replicas, writes: &WriteConfig) -> Self {
        Self {
            primary,
            replicas,
            script: Script::new(include_str!("apply.lua")),
            room: Arc::new(Semaphore::new(MAX_WEIGHT_IN_FLIGHT as usize)),
            ttl: writes.ttl_secs.map_or(0, i64::from),
            update_if_exists: writes.update_if_exists,
        }
    }

    /// Returns this writer with another rule: it also writes customers that are not cached.
    pub fn upserting(&self) -> Self {
        Self {
            update_if_exists: false,
            ..self.clone()
        }
    }

    /// Applies steps, in one round trip unless they are many or large. `took` gets the duration of each
    /// call. The first call that fails is the last.
    pub async fn apply(&self, steps: &[&Step], took: impl Fn(Duration)) -> Attempt {
        let parts = parts_of(steps, self.update_if_exists);
        let mut answered = Vec::with_capacity(parts.len());
        let mut rest = &*parts;
        while !rest.is_empty() {
            let (call, later) = rest.split_at(fitting(rest));
            let room = self
                .room
                .acquire_many(weight(call).min(MAX_WEIGHT_IN_FLIGHT))
                .await;
            let started = Instant::now();
            let answers = self.call(call).await;
            drop(room);
            took(started.elapsed());
            let error = match answers {
                Ok(answers) if answers.len() == call.len() => {
                    answered.extend(answers.into_iter().map(outcome));
                    rest = later;
                    continue;
                }
                Ok(_) => StoreError::protocol(),
                Err(error) => error,
            };
            return Attempt {
                applied: parts::joined(&parts, answered),
                error: Some(error),
            };
        }
        let applied = parts::joined(&parts, answered);
        // An error within a script may concern Redis as well as the key.
        let error = applied.iter().find_map(|applied| match applied {
            Applied::Failed(error) if error.heals() => Some(error.clone()),
            _ => None,
        });
        Attempt { applied, error }
    }

    async fn call(&self, steps: &[Part<'_>]) -> Result<Vec<Value>, StoreError> {
        // One primary for the whole call, even if the next call uses another.
        let client = self.primary.client()?;
        let writing = self.replicas.watch(&client);
        let answer = self.script.run(&client, || self.encode(steps)).await?;
        self.replicas.confirm(writing).await?;
        Ok(answer)
    }

    /// Runs the script as the worker does, for a step that changes nothing.
    pub async fn probe(&self, client: &Client, harmless: &Step) -> Result<(), StoreError> {
        let words = || self.encode(&[Part::whole(harmless)]);
        let answers: Vec<Value> = self.script.run(client, words).await?;
        match answers.into_iter().next().map(outcome) {
            Some(Applied::Failed(error)) => Err(error),
            Some(_) => Ok(()),
            None => Err(StoreError::protocol()),
        }
    }

    fn encode(&self, parts: &[Part<'_>]) -> (Vec<Key>, Vec<Value>) {
        let (mut items, mut of_keys, mut of_values) = (0, 0, 0);
        for Part {
            step, items: own, ..
        } in parts
        {
            items += own.len();
            of_keys += 3 * (step.lock.len() + keys::TIMESTAMP.len());
            for item in *own {
                of_keys += 2 * item.key.len() + keys::TIMESTAMP.len();
                of_values += item.value.len();
            }
        }
        let words = 2 * items + 3 * parts.len();
        let mut keys = Words::with_capacity(words, of_keys);
        let mut arguments =
            Words::with_capacity(words + 3, of_values + MAX_TIME_DIGITS * (words + 3));
        arguments.number(self.ttl);
        arguments.number(u32::from(self.update_if_exists));
        arguments.number(TOMBSTONE_TTL_SECS);
        for Part { step, items, .. } in parts {
            keys.push(&[&step.lock]);
            keys.push(&[&step.tombstone]);
            let action = match &step.action {
                Action::SetCustomer => "S",
                Action::UpdateUsage { customer } => {
                    keys.push(&[customer, keys::TIMESTAMP]);
                    "U"
                }
                Action::Purge => "P",
            };
            arguments.push(&[action]);
            arguments.number(items.len());
            arguments.number(step.at);
            for item in *items {
                keys.push(&[&item.key, keys::TIMESTAMP]);
            }
            for item in *items {
                keys.push(&[&item.key]);
            }
            if !matches!(step.action, Action::Purge) {
                for item in *items {
                    match item.condition {
                        Condition::NotOlder => arguments.number(item.at),
                        Condition::Absent => arguments.number(format_args!("A{}", item.at)),
                        Condition::Present => arguments.number(format_args!("P{}", item.at)),
                    }
                    arguments.push(&[&item.value]);
                }
            }
        }
        (
            keys.each().map(Key::from).collect(),
            arguments.each().map(Value::Bytes).collect(),
        )
    }
}

/// The maximum digits of a time.
const MAX_TIME_DIGITS: usize = 13;

/// The words of a call, in one allocation: a customer needs dozens.
struct Words {
    text: String,
    ends: Vec<usize>,
}

impl Words {
    fn with_capacity(words: usize, bytes: usize) -> Self {
        Self {
            text: String::with_capacity(bytes),
            ends: Vec::with_capacity(words),
        }
    }

    fn push(&mut self, parts: &[&str]) {
        for part in parts {
            self.text.push_str(part);
        }
        self.ends.push(self.text.len());
    }

    fn number(&mut self, number: impl fmt::Display) {
        // Writing to a string cannot fail.
        let _ = write!(self.text, "{number}");
        self.ends.push(self.text.len());
    }

    fn each(self) -> impl Iterator<Item = Bytes> {
        let text = Bytes::from(self.text);
        let mut from = 0;
        self.ends.into_iter().map(move |end| {
            let word = text.slice(from..end);
            from = end;
            word
        })
    }
}

fn outcome(answer: Value) -> Applied {
    const STALE: i64 = 65_536;
    match answer {
        Value::Integer(-1) => Applied::Locked,
        Value::Integer(-2) => Applied::NotCached,
        Value::Integer(-3) => Applied::Expired,
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
