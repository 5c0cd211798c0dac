//! Where the state is: in Redis, which this module reads and writes through fred, or in this process. No other module
//! uses fred.

mod admin;
mod connect;
mod error;
mod layout;
mod local;
mod monitor;
mod primary;
mod remote;
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
pub use local::{Durability, Watched};
pub use monitor::Gate;
pub use tally::Tally;
pub use tracked::{Mark, Tracked, Tracking};
pub use write::{Applied, Attempt, LOCKED_PAUSE, TOMBSTONE_TTL_SECS};

use std::sync::Arc;
use std::time::Duration;

#[cfg(test)]
use fred::clients::Client;

use crate::clock;
use crate::config::{RedisConfig, WriteConfig};
use crate::health::Health;
use crate::keys::Keys;
use crate::memory::Memory;
use crate::message::Millis;
use crate::metrics::Metrics;
use crate::plan::Step;
use crate::queue::Delivery;
use crate::snapshot::Journal;
use local::Local;
use monitor::Probe;
use primary::Primary;
use remote::Remote;
use replicas::Replicas;
use write::Writer;

/// Compares and writes. Clones share one connection, or one state in memory.
#[derive(Clone)]
pub struct Store {
    place: Place,
    metrics: Metrics,
    gate: Gate,
}

/// Where the state is.
#[derive(Clone)]
enum Place {
    Redis(Remote),
    Memory(Local),
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
            place: Place::Redis(Remote {
                writer,
                replicas,
                primary,
                keys,
            }),
            metrics,
            gate,
        })
    }

    /// Returns a store that holds the state in this process. With a journal, each change is durable before its message
    /// is acknowledged.
    pub fn in_memory(
        memory: Arc<Memory>,
        journal: Option<Arc<Journal>>,
        update_if_exists: bool,
        metrics: Metrics,
        health: Arc<Health>,
    ) -> Self {
        let gate = Gate::of_journal(health, metrics.clone());
        Self {
            place: Place::Memory(Local::start(
                memory,
                journal,
                update_if_exists,
                gate.clone(),
            )),
            metrics,
            gate,
        }
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
            place: Place::Redis(Remote {
                writer: Writer::new(primary.clone(), replicas.clone(), &writes),
                replicas,
                primary,
                keys: Keys::new("p"),
            }),
            gate: Gate::opened_for_good(health, metrics.clone()),
            metrics,
        }
    }

    /// Returns this store with another rule: it also writes customers that are not cached, whatever the policy.
    pub fn upserting(&self) -> Self {
        let place = match &self.place {
            Place::Redis(remote) => Place::Redis(Remote {
                writer: remote.writer.upserting(),
                ..remote.clone()
            }),
            Place::Memory(local) => Place::Memory(local.upserting()),
        };
        Self {
            place,
            ..self.clone()
        }
    }

    /// Open while the store takes writes.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Applies steps, in Redis in one round trip unless they are many or large. An error closes the gate. It does not
    /// delay the next opening if the call itself may be the cause and `blames_calls` is set: the caller then searches
    /// for it.
    pub async fn apply(&self, steps: &[&Step], blames_calls: bool) -> Attempt {
        let remote = match &self.place {
            Place::Redis(remote) => remote,
            Place::Memory(local) => return local.apply(steps),
        };
        let took = |time: Duration| self.metrics.redis_calls.observe(time.as_secs_f64());
        let attempt = remote.writer.apply(steps, took).await;
        if let Some(error) = &attempt.error {
            let is_expected = error.is_busy() || (blames_calls && error.may_be_of_the_call());
            self.failed(remote, error, is_expected);
        }
        attempt
    }

    fn failed(&self, remote: &Remote, error: &StoreError, is_expected: bool) {
        self.metrics.redis_errors.inc();
        self.gate.close(error, is_expected);
        remote.primary.look_again();
    }

    /// Returns whether the store takes what the read API fetched. One in memory does not while its journal cannot be
    /// written: messages wait in the queue then, and what is fetched would only fill the memory.
    pub fn takes_fetched(&self) -> bool {
        match &self.place {
            Place::Redis(_) => true,
            Place::Memory(local) => self.gate.is_open() && local.has_room(),
        }
    }

    /// Keeps a message that cannot be applied, in full, among at most `most` messages.
    pub async fn keep(&self, letter: DeadLetter<'_>, most: u64) -> Result<(), StoreError> {
        let remote = match &self.place {
            Place::Redis(remote) => remote,
            Place::Memory(local) => return local.keep(letter, most),
        };
        let kept = remote.keep(letter, most).await;
        kept.inspect_err(|error: &StoreError| {
            if error.heals() {
                self.failed(remote, error, false);
            }
        })
    }

    /// Returns the state in memory as a source of the read API; `None` where the state is in Redis.
    pub fn watched(&self) -> Option<Watched> {
        match &self.place {
            Place::Redis(_) => None,
            Place::Memory(local) => Some(local.watched()),
        }
    }

    /// Names the place of the messages that were given up.
    pub fn letters(&self) -> &'static str {
        match &self.place {
            Place::Redis(_) => "the dead-letter stream in Redis",
            Place::Memory(_) => "/admin/dead-letters",
        }
    }

    /// Returns how acknowledgements wait for the store.
    pub fn durability(&self) -> Durability {
        match &self.place {
            Place::Redis(_) => Durability::default(),
            Place::Memory(local) => local.durability(),
        }
    }

    /// Sets when the state in memory that was restored was last known to be true, and whether messages may be in flight to
    /// the process before this one.
    pub fn restored(&self, at: Millis, was_killed: bool) {
        if let Place::Memory(local) = &self.place {
            local.proven.restored(at, was_killed, clock::now_ms());
        }
    }

    /// Whether the queue proves the state in memory.
    pub fn is_proven(&self) -> bool {
        match &self.place {
            Place::Redis(_) => false,
            Place::Memory(local) => local.proven.is_proven(),
        }
    }

    /// Returns when the state in memory was last known to be true; 0: never.
    pub fn known_at(&self) -> Millis {
        match &self.place {
            Place::Redis(_) => 0,
            Place::Memory(local) => local.proven.known_at(clock::now_ms()),
        }
    }

    /// Whether an empty answer of the queue would prove the state in memory, so that it should come soon.
    pub fn awaits_proof(&self) -> bool {
        self.is_in_memory() && !self.is_proven()
    }

    /// Records the answer to a receive that could wait for `wait`: where the state is in memory, it proves that the
    /// state is true. `hidden`: for how long the queue hides a message that is in flight, at most.
    pub fn received(&self, messages: &[Delivery], wait: Duration, hidden: Duration) {
        if let Place::Memory(local) = &self.place {
            local.received(messages, wait, hidden);
        }
    }

    /// Records that messages may be in flight to a consumer that is gone: an interrupted receive, or a failed consumer.
    pub fn stranded(&self) {
        if let Place::Memory(local) = &self.place {
            local.proven.stranded();
        }
    }

    /// Records that the answer to a receive was lost, perhaps with messages.
    pub fn answer_lost(&self) {
        if let Place::Memory(local) = &self.place {
            local.proven.answer_lost();
        }
    }

    /// Returns whether no message is in flight to a consumer that is gone, as far as a state in memory must know.
    pub fn is_settled(&self) -> bool {
        match &self.place {
            Place::Redis(_) => true,
            Place::Memory(local) => local.proven.is_settled(),
        }
    }

    /// Returns whether the state is in this process.
    pub fn is_in_memory(&self) -> bool {
        matches!(self.place, Place::Memory(_))
    }

    /// Closes the gate until the journal can be begun, after its first sync failed. A process that receives before the
    /// journal says so could be killed with messages in flight, and the next one would not know.
    pub fn await_journal(&self, error: &std::io::Error) {
        if let Place::Memory(local) = &self.place {
            self.gate.close(&StoreError::of_journal(error), true);
            let durability = local.durability();
            tokio::spawn(async move { durability.durable().await });
        }
    }

    /// Returns the layouts of a sample of customers in Redis.
    pub async fn layouts(&self) -> Result<Layouts, StoreError> {
        match &self.place {
            Place::Redis(remote) => remote.layouts().await,
            Place::Memory(_) => Ok(Layouts::default()),
        }
    }

    /// The version of Redis, once connected.
    pub fn version(&self) -> Option<String> {
        match &self.place {
            Place::Redis(remote) => remote.version(),
            Place::Memory(_) => None,
        }
    }

    /// Ends: closes the connection, or makes the last changes durable.
    pub async fn close(&self) {
        match &self.place {
            Place::Redis(remote) => remote.close().await,
            Place::Memory(local) => local.durability().durable().await,
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
    /// Whether its message is deleted for it: a sample may get lost, a message may not.
    pub must_last: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Lifetimes;
    use crate::snapshot::{Folder, Secret};

    #[tokio::test]
    async fn while_the_journal_cannot_be_begun_nothing_is_received() {
        let parent = tempfile::tempdir().unwrap();
        let (path, aside) = (parent.path().join("here"), parent.path().join("aside"));
        let secret = Secret::parse("a passphrase of some length").unwrap();
        let folder = Folder::open(&path, "p", secret, None, 1).unwrap();
        let lifetimes = Lifetimes {
            ttl_secs: None,
            tombstone_secs: 1,
        };
        let memory = Arc::new(Memory::new(Keys::new("p"), lifetimes, u64::MAX));
        let journal = folder.journal().clone();
        memory.log_to(journal.clone());
        std::fs::rename(&path, &aside).unwrap();
        let error = journal.sync().unwrap_err();
        let health = Arc::new(Health::in_memory());
        let store = Store::in_memory(memory, Some(journal), false, Metrics::new().0, health);
        store.await_journal(&error);
        assert!(!store.gate().is_open());
        std::fs::rename(&aside, &path).unwrap();
        store.gate().opened().await;
    }
}
