//! Follows the Redis primary through sentinels or cluster nodes. A standalone address never changes.
//!
//! fred could follow both, but the worker does not use that: fred forgets the sentinel that answered last,
//! reports no reason for a sentinel that failed, and connects to all nodes of a cluster or to none. All keys
//! of an environment are on one primary, so one connection to it is enough.

pub(super) mod locate;

use std::sync::Arc;
use std::time::Duration;

use fred::prelude::*;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::{StoreError, connect};
use crate::config::{Address, RedisConfig, Topology};
use locate::Locator;

/// Clones share one connection.
#[derive(Clone)]
pub struct Primary {
    state: watch::Receiver<State>,
    /// Wakes the lookup when the known primary fails.
    lost: Arc<Notify>,
}

#[derive(Clone, Default)]
struct State {
    client: Option<Client>,
    /// Why the last lookup of the primary failed.
    trouble: Option<StoreError>,
}

/// The interval of routine lookups at sentinels: an old primary that is cut off from them does not know
/// that it was replaced.
const SENTINEL_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The interval of routine lookups in a cluster, for nodes that are gone: a running node reports that the slot moved.
const CLUSTER_CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// The pause between two lookups while the primary is unknown.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

impl Primary {
    /// Starts to connect and retries without limit; never waits.
    pub fn start(redis: &RedisConfig) -> anyhow::Result<Self> {
        let period = match &redis.topology {
            Topology::Standalone(_) | Topology::Unix(_) => {
                return Ok(Self::to(connect::connect(redis, None)?));
            }
            Topology::Sentinel { .. } => SENTINEL_CHECK_INTERVAL,
            Topology::Cluster { .. } => CLUSTER_CHECK_INTERVAL,
        };
        // Errors of certificates are reported at start.
        connect::check(redis)?;
        let (sender, state) = watch::channel(State::default());
        let lost = Arc::new(Notify::new());
        tokio::spawn(follow(redis.clone(), sender, lost.clone(), period));
        Ok(Self { state, lost })
    }

    /// Connects once, or returns why it cannot.
    pub async fn once(redis: &RedisConfig) -> anyhow::Result<Self> {
        let at = match &redis.topology {
            Topology::Standalone(_) | Topology::Unix(_) => None,
            _ => Some(Locator::new(redis).primary().await?),
        };
        let client = connect::connect_once(redis, at.as_ref()).await?;
        Ok(Self::to(client))
    }

    /// Returns a connection to one fixed server.
    pub fn to(client: Client) -> Self {
        let state = State {
            client: Some(client),
            trouble: None,
        };
        // Without a sender the last value stays.
        let (_, state) = watch::channel(state);
        Self {
            state,
            lost: Arc::default(),
        }
    }

    /// Returns the connection to the primary, if it is known.
    pub fn client(&self) -> Result<Client, StoreError> {
        let state = self.state.borrow();
        let unknown = || state.trouble.clone().unwrap_or_else(StoreError::looking);
        state.client.clone().ok_or_else(unknown)
    }

    /// Returns why the lookup of the primary fails, if it fails.
    pub fn trouble(&self) -> Option<StoreError> {
        self.state.borrow().trouble.clone()
    }

    /// Requests a new lookup of the primary.
    pub fn look_again(&self) {
        self.lost.notify_one();
    }
}

async fn follow(
    redis: RedisConfig,
    sender: watch::Sender<State>,
    lost: Arc<Notify>,
    period: Duration,
) {
    let mut locator = Locator::new(&redis);
    let mut known: Option<Address> = None;
    while !sender.is_closed() {
        let found = locator.primary().await;
        let trouble = match found {
            Ok(address) if known.as_ref() == Some(&address) => None,
            Ok(address) => match connect::connect(&redis, Some(&address)) {
                Ok(client) => {
                    tracing::info!(primary = %address, "Redis primary located");
                    let before = sender.send_replace(State {
                        client: Some(client),
                        trouble: None,
                    });
                    before.client.map(|client| tokio::spawn(retire(client)));
                    known = Some(address);
                    None
                }
                Err(error) => Some(StoreError::setup(&error)),
            },
            Err(error) => Some(error),
        };
        let is_in_trouble = trouble.is_some();
        let mut before = trouble.clone();
        sender.send_modify(|state| std::mem::swap(&mut state.trouble, &mut before));
        match (before, trouble) {
            (None, Some(error)) => {
                tracing::warn!(%error, "cannot locate the Redis primary");
            }
            (Some(_), None) => tracing::info!("Redis primary located again"),
            _ => {}
        }
        if is_in_trouble {
            sleep(RETRY_INTERVAL).await;
            continue;
        }
        tokio::select! {
            () = lost.notified() => {
                sleep(RETRY_INTERVAL).await;
                locator.ask_another();
            }
            () = sleep(period) => {}
        }
    }
}

/// Closes an unused client. While its server is unreachable it would retry without limit, and
/// it notices the request to quit only between two tries.
async fn retire(client: Client) {
    for _ in 0..20 {
        let _ = timeout(SENTINEL_CHECK_INTERVAL, client.quit()).await;
        sleep(RETRY_INTERVAL).await;
    }
}
