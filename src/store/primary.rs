//! The way to the primary, wherever it is now. Without sentinels and clusters it never changes.
//!
//! fred can follow both by itself. It is not asked to: it forgets the sentinel that it asked last,
//! says of none why it did not answer, and connects to all nodes of a cluster or to none. All keys
//! of an environment are on one primary anyway, so one connection to that is all it takes.

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
    /// Someone cannot work with the primary as it is known.
    lost: Arc<Notify>,
}

#[derive(Clone, Default)]
struct State {
    client: Option<Client>,
    /// Why the primary could not be looked up at the last try.
    trouble: Option<StoreError>,
}

/// How often sentinels are asked without need: an old primary that is cut off from them does not
/// know that it is none any more.
const SENTINEL_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// A node of a cluster says itself that it is no longer the one; this is for those that are gone.
const CLUSTER_CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Between two tries while it is not found.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

impl Primary {
    /// Begins to connect and goes on trying for ever; never waits.
    pub fn start(redis: &RedisConfig) -> anyhow::Result<Self> {
        let period = match &redis.topology {
            Topology::Standalone(_) | Topology::Unix(_) => {
                return Ok(Self::to(connect::connect(redis, None)?));
            }
            Topology::Sentinel { .. } => SENTINEL_CHECK_INTERVAL,
            Topology::Cluster { .. } => CLUSTER_CHECK_INTERVAL,
        };
        // What is wrong with certificates is said at start.
        connect::check(redis)?;
        let (sender, state) = watch::channel(State::default());
        let lost = Arc::new(Notify::new());
        tokio::spawn(follow(redis.clone(), sender, lost.clone(), period));
        Ok(Self { state, lost })
    }

    /// Connects once, or says why it cannot.
    pub async fn once(redis: &RedisConfig) -> anyhow::Result<Self> {
        let at = match &redis.topology {
            Topology::Standalone(_) | Topology::Unix(_) => None,
            _ => Some(Locator::new(redis).primary().await?),
        };
        let client = connect::connect_once(redis, at.as_ref()).await?;
        Ok(Self::to(client))
    }

    /// To one server for good.
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

    /// The connection to the primary, as far as it is known.
    pub fn client(&self) -> Result<Client, StoreError> {
        let state = self.state.borrow();
        let unknown = || state.trouble.clone().unwrap_or_else(StoreError::looking);
        state.client.clone().ok_or_else(unknown)
    }

    /// Why nobody says where the primary is, if nobody does.
    pub fn trouble(&self) -> Option<StoreError> {
        self.state.borrow().trouble.clone()
    }

    /// Has the primary looked up again, soon.
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
                    tracing::info!(primary = %address, "Redis' primary was found");
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
                tracing::warn!(%error, "nobody says where Redis' primary is");
            }
            (Some(_), None) => tracing::info!("it is known again where Redis' primary is"),
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

/// Closes what is not used any more. While it cannot be reached it would go on trying for ever, and
/// it hears of its end only between two tries.
async fn retire(client: Client) {
    for _ in 0..20 {
        let _ = timeout(SENTINEL_CHECK_INTERVAL, client.quit()).await;
        sleep(RETRY_INTERVAL).await;
    }
}
