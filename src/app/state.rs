//! Puts the store together: a Redis, or the state in this process with its snapshots.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use secrecy::SecretString;
use tokio::sync::watch;

use crate::clock;
use crate::config::Config;
use crate::consumer::budget::memory_limit;
use crate::health::Health;
use crate::keys::Keys;
use crate::memory::{Entry, INCOMPLETE, Lifetimes, Memory, NOT_KEPT, Past};
use crate::metrics::{MemoryMetrics, Metrics};
use crate::queue::Settings;
use crate::reads;
use crate::saving::{self, Saver, Source};
use crate::serve::Answering;
use crate::server::{Admin, Kept};
use crate::status::ObservedMemory;
use crate::store::{self, Store, TOMBSTONE_TTL_SECS};

/// The store, and the writer of its snapshots.
pub struct State {
    pub store: Store,
    pub saver: Option<Saver>,
    /// The state, if it is in this process.
    pub memory: Option<InMemory>,
}

/// A state in this process.
pub struct InMemory {
    pub state: Arc<Memory>,
    pub metrics: MemoryMetrics,
}

const OBSERVE_INTERVAL: Duration = Duration::from_secs(1);
/// To count the owners that are not confirmed looks at each of them.
const OBSERVATIONS_PER_COUNT: u32 = 10;

impl State {
    /// Connects to Redis, or restores the state in memory. Without a Redis this takes as long as the restore.
    pub fn begin(
        config: &Config,
        metrics: &Metrics,
        registry: &mut Registry,
        health: &Arc<Health>,
    ) -> anyhow::Result<Self> {
        let keys = Keys::new(&config.writes.prefix);
        let Some(redis) = &config.redis else {
            return Self::in_memory(config, keys, metrics, registry, health);
        };
        let store = Store::connect(redis, &config.writes, keys, metrics.clone(), health.clone())?;
        if !config.writes.rules.invalidate {
            tokio::spawn(store::warn_of_newer_layout(store.clone()));
        }
        Ok(Self {
            store,
            saver: None,
            memory: None,
        })
    }

    fn in_memory(
        config: &Config,
        keys: Keys,
        metrics: &Metrics,
        registry: &mut Registry,
        health: &Arc<Health>,
    ) -> anyhow::Result<Self> {
        let lifetimes = Lifetimes {
            ttl_secs: config.writes.ttl_secs,
            tombstone_secs: TOMBSTONE_TTL_SECS,
        };
        let max_bytes = config.reads.as_ref().and_then(|reads| reads.max_bytes);
        let bytes = reads::max_bytes(max_bytes, memory_limit());
        let memory = Arc::new(Memory::new(keys, lifetimes, bytes.of_state));
        let (mut past, mut is_whole, mut begun) = (Past::default(), true, Ok(()));
        let folder = match &config.snapshots {
            Some(snapshots) => {
                let prefix = &config.writes.prefix;
                let folder;
                (folder, is_whole) = saving::begin(snapshots, prefix, |bytes| {
                    let entry: Entry<'_> = serde_json::from_slice(bytes)?;
                    past.note(&entry);
                    memory.restore(entry);
                    Ok(())
                })?;
                if !is_whole {
                    memory.doubt(clock::now_ms());
                    tracing::error!(owners = memory.doubted(), "{INCOMPLETE}");
                }
                memory.log_to(folder.journal().clone());
                begun = folder.journal().sync();
                tracing::info!(owners = memory.owners(), "the state is in memory");
                Some(folder)
            }
            None => {
                tracing::warn!("{NOT_KEPT}");
                None
            }
        };
        let journal = folder.as_ref().map(|folder| folder.journal().clone());
        let store = Store::in_memory(
            memory.clone(),
            journal,
            config.writes.update_if_exists,
            metrics.clone(),
            health.clone(),
        );
        if let Err(error) = begun {
            store.await_journal(&error);
        }
        let of_memory = MemoryMetrics::default();
        of_memory.register(registry);
        tokio::spawn(observe(memory.clone(), store.clone(), of_memory.clone()));
        store.restored(past.known_at, past.was_killed() || !is_whole);
        let saver = match (folder, &config.snapshots) {
            (Some(folder), Some(snapshots)) => {
                metrics.snapshots.register(registry);
                let source = Source::Memory(memory.clone(), Box::new(store.clone()));
                Some(Saver::start(
                    folder,
                    source,
                    snapshots.interval,
                    metrics.snapshots.clone(),
                )?)
            }
            _ => None,
        };
        Ok(Self {
            store,
            saver,
            memory: Some(InMemory {
                state: memory,
                metrics: of_memory,
            }),
        })
    }

    /// Watches for another consumer of the queue, where the state is in memory.
    pub fn watch_for_others(&self, settings: &watch::Receiver<Settings>, metrics: &Metrics) {
        if let Some(memory) = &self.memory {
            let own = metrics.inflight_messages.clone();
            let of_memory = memory.metrics.clone();
            tokio::spawn(watch_for_others(settings.clone(), own, of_memory));
        }
    }

    /// Returns what `/status` shows of a state in this process.
    pub fn observed(&self) -> Option<ObservedMemory> {
        let metrics = self.memory.as_ref()?.metrics.clone();
        let is_kept = self.saver.is_some();
        Some(ObservedMemory { metrics, is_kept })
    }

    /// Returns what the administration routes act on; `None`: there are none.
    pub fn admin(
        &self,
        token: Option<&SecretString>,
        answering: Option<&Answering>,
    ) -> Option<Admin> {
        let of_copies = || answering.and_then(|answering| answering.saver.clone());
        let saver = self.saver.clone().or_else(of_copies);
        let reads = answering.map(|answering| answering.reads.clone());
        let memory = self.memory.as_ref().map(|memory| Kept {
            state: memory.state.clone(),
            durability: self.store.durability(),
        });
        token.map(|token| Admin::new(token, saver, reads, memory))
    }
}

/// Readings in a row, one a minute, after which messages in flight elsewhere are no coincidence.
const FOREIGN_READINGS: u32 = 3;
/// Messages in flight that the approximate count of SQS may show too many.
const APPROXIMATE: u64 = 20;

/// Watches for another process that receives from the queue: a state in memory would see only its share.
async fn watch_for_others(
    mut settings: watch::Receiver<Settings>,
    own: Gauge,
    metrics: MemoryMetrics,
) {
    let mut readings = 0;
    while settings.changed().await.is_ok() {
        let depth = settings.borrow_and_update().depth;
        let in_flight = depth.map_or(0, |depth| depth.in_flight);
        let own = u64::try_from(own.get()).unwrap_or(0);
        let foreign = in_flight.saturating_sub(own);
        readings = if foreign > APPROXIMATE {
            readings + 1
        } else {
            0
        };
        let foreign = if readings >= FOREIGN_READINGS {
            foreign
        } else {
            0
        };
        metrics
            .foreign_in_flight
            .set(i64::try_from(foreign).unwrap_or(i64::MAX));
        if readings == FOREIGN_READINGS {
            tracing::error!(
                in_flight,
                own,
                "another process seems to receive from this queue, so this one sees only a part of the changes: STORE=memory needs the queue for itself"
            );
        }
    }
}

/// Keeps the gauges up to date.
async fn observe(memory: Arc<Memory>, store: Store, metrics: MemoryMetrics) {
    let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    metrics.bytes_limit.set(gauge(memory.max_bytes()));
    for observations in 0_u32.. {
        if observations.is_multiple_of(OBSERVATIONS_PER_COUNT) {
            metrics.unconfirmed.set(gauge(memory.doubted() as u64));
        }
        metrics.owners.set(gauge(memory.owners() as u64));
        metrics.bytes.set(gauge(memory.bytes()));
        metrics.proven.set(i64::from(store.is_proven()));
        let evicted = memory.evictions().saturating_sub(metrics.evictions.get());
        metrics.evictions.inc_by(evicted);
        tokio::time::sleep(OBSERVE_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Depth;

    #[tokio::test]
    async fn messages_in_flight_elsewhere_count_after_three_readings() {
        let (sender, settings) = watch::channel(Settings::default());
        let (own, metrics) = (Gauge::default(), MemoryMetrics::default());
        own.set(10);
        tokio::spawn(watch_for_others(settings, own, metrics.clone()));
        let mut seen = Vec::new();
        for in_flight in [100, 100, 100, 15] {
            sender.send_modify(|settings| {
                settings.depth = Some(Depth {
                    visible: 0,
                    in_flight,
                    delayed: 0,
                });
            });
            tokio::task::yield_now().await;
            seen.push(metrics.foreign_in_flight.get());
        }
        assert_eq!(seen, [0, 0, 90, 0]);
    }
}
