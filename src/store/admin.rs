//! Connects commands to Redis: one try without retries, and an error with the reason.

mod browse;
mod letters;
mod probe;

pub use browse::{Browse, KEYS_PER_PAGE};
pub use letters::KeptLetter;
pub use probe::{CachedCustomers, RedisFacts, RedisInfo};

use std::collections::HashSet;
use std::time::Duration;

use fred::prelude::*;
use fred::types::{Key, Value};
use prometheus_client::metrics::counter::Counter;

use super::primary::Primary;
use super::replicas::Replicas;
use super::write::{LOCKED_PAUSE, Writer};
use super::{Applied, StoreError};
use crate::config::{RedisConfig, WriteConfig};
use crate::keys::Keys;
use crate::plan::Step;

/// A connection without a gate or a monitor.
#[derive(Clone)]
pub struct AdminClient {
    client: Client,
    writer: Writer,
}

/// Keys per call: Redis serves no other client while a call runs.
const KEYS_PER_CALL: usize = 500;

/// Seconds until the key expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    Missing,
    Forever,
    Secs(u64),
}

impl Ttl {
    /// Returns the earlier expiry of two; a missing key does not count.
    pub fn soonest(self, other: Self) -> Self {
        match (self, other) {
            (Self::Missing, other) | (other, Self::Missing) => other,
            (Self::Forever, other) | (other, Self::Forever) => other,
            (Self::Secs(one), Self::Secs(other)) => Self::Secs(one.min(other)),
        }
    }
}

impl AdminClient {
    /// Connects, or returns why it cannot.
    pub async fn connect(redis: &RedisConfig, writes: &WriteConfig) -> anyhow::Result<Self> {
        let primary = Primary::once(redis).await?;
        let client = primary.client()?;
        let marker = Keys::new(&writes.prefix).marker();
        let replicas = Replicas::new(redis.wait_replicas, marker, Counter::default());
        Ok(Self {
            writer: Writer::new(primary, replicas, writes),
            client,
        })
    }

    /// Returns the values of keys, in their order; `None` for a key that is missing or holds no string.
    pub async fn values(&self, keys: &[String]) -> Result<Vec<Option<String>>, StoreError> {
        let mut values = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(KEYS_PER_CALL) {
            let chunk: Vec<Key> = chunk.iter().map(|key| key.as_str().into()).collect();
            let found: Vec<Value> = self.client.mget(chunk).await?;
            values.extend(found.iter().map(text));
        }
        Ok(values)
    }

    /// Returns the times to live of keys, in their order.
    pub async fn ttls(&self, keys: &[String]) -> Result<Vec<Ttl>, StoreError> {
        let mut ttls = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(KEYS_PER_CALL) {
            let pipeline = self.client.pipeline();
            for key in chunk {
                let () = pipeline.ttl(key.as_str()).await?;
            }
            let answers: Vec<i64> = pipeline.all().await?;
            ttls.extend(answers.into_iter().map(|secs| match secs {
                -2 => Ttl::Missing,
                secs => u64::try_from(secs).map_or(Ttl::Forever, Ttl::Secs),
            }));
        }
        Ok(ttls)
    }

    /// Compares and writes as the worker does.
    pub async fn apply(&self, steps: &[&Step]) -> Result<Vec<Applied>, StoreError> {
        self.writer.apply(steps, |_| {}).await.complete()
    }

    /// Compares and writes, and retries customers that an SDK has locked up to `retries` times, as the worker
    /// does. Customers that are still locked are returned as locked.
    pub async fn apply_when_unlocked(
        &self,
        steps: &[&Step],
        retries: u32,
    ) -> Result<Vec<Applied>, StoreError> {
        let mut applied = self.apply(steps).await?;
        for _ in 0..retries {
            let left = not_done(steps, &applied);
            if left.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(fastrand::u64(LOCKED_PAUSE))).await;
            let again: Vec<&Step> = left.iter().map(|&place| steps[place]).collect();
            let answers = self.apply(&again).await?;
            for (place, answer) in left.into_iter().zip(answers) {
                applied[place] = answer;
            }
        }
        Ok(applied)
    }

    /// Closes the connection.
    pub async fn close(&self) {
        // An error does not matter: the connection is no longer needed.
        let _ = self.client.quit().await;
    }
}

/// Returns the locked steps, and the later steps of their owners, which must wait for them.
fn not_done(steps: &[&Step], applied: &[Applied]) -> Vec<usize> {
    let mut owners = HashSet::new();
    let places = 0..applied.len();
    places
        .filter(|&place| match applied[place] {
            Applied::Locked => {
                owners.insert(steps[place].lock.as_str());
                true
            }
            _ => owners.contains(steps[place].lock.as_str()),
        })
        .collect()
}

/// Decodes a value as readers do: invalid UTF-8 becomes replacement characters.
fn text(value: &Value) -> Option<String> {
    let bytes = value.as_bytes()?;
    Some(String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Action;

    #[test]
    fn steps_after_a_locked_one_of_the_same_owner_are_repeated_with_it() {
        let step = |owner: &str| Step {
            action: Action::SetCustomer,
            at: 1,
            lock: owner.into(),
            tombstone: String::new(),
            items: Vec::new(),
        };
        let steps = ["a", "b", "a", "b"].map(step);
        let steps: Vec<&Step> = steps.iter().collect();
        let written = Applied::Written {
            written: 1,
            stale: 0,
        };
        let applied = [
            written.clone(),
            Applied::Locked,
            written.clone(),
            Applied::NotCached,
        ];
        assert_eq!(not_done(&steps, &applied), [1, 3]);
        assert!(not_done(&steps[..1], &applied[..1]).is_empty());
    }
}
