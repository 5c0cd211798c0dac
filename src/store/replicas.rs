//! Waits until replicas confirm writes, before messages are acknowledged: `REDIS_WAIT_REPLICAS`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::prelude::*;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Mutex;
use tokio::sync::broadcast::Receiver;

use super::StoreError;
use super::script::Script;

/// Reads and writes the marker.
pub(super) const PROBE: &str = include_str!("probe.lua");
/// The timeout for replicas. Redis serves nothing else on this connection meanwhile.
const MAX_REPLICA_WAIT: Duration = Duration::from_millis(500);

/// Clones share the last confirmation.
#[derive(Clone)]
pub(super) struct Replicas {
    least: u8,
    marker: String,
    missing: Counter,
    script: Script,
    last: Arc<Mutex<Option<Confirmed>>>,
}

/// A confirmation of all writes before its request.
struct Confirmed {
    asked: Instant,
    client: String,
    outcome: Result<(), StoreError>,
}

/// A write that is not confirmed yet.
pub(super) struct Writing {
    client: Client,
    /// The connection of the write. A new connection may lead to another primary without the write.
    reconnects: Receiver<Server>,
}

impl Replicas {
    pub fn new(least: u8, marker: String, missing: Counter) -> Self {
        Self {
            least,
            marker,
            missing,
            script: Script::new(PROBE),
            last: Arc::default(),
        }
    }

    /// Marks the start of a write; `None` where no confirmation is required.
    pub fn watch(&self, client: &Client) -> Option<Writing> {
        (self.least > 0).then(|| Writing {
            client: client.clone(),
            reconnects: client.reconnect_rx(),
        })
    }

    /// Returns once enough replicas have the write. An error means "unknown", as for the
    /// write itself.
    pub async fn confirm(&self, writing: Option<Writing>) -> Result<(), StoreError> {
        let Some(mut writing) = writing else {
            return Ok(());
        };
        let written = Instant::now();
        // One at a time: Redis answers nothing else on the connection while it waits. Callers that arrive
        // meanwhile share the next answer.
        let mut last = self.last.lock().await;
        let shared = last
            .as_ref()
            .filter(|last| last.asked > written && last.client == writing.client.id());
        let outcome = match shared {
            Some(shared) => shared.outcome.clone(),
            None => {
                let asked = Instant::now();
                let outcome = self.ask(&writing.client).await;
                *last = Some(Confirmed {
                    asked,
                    client: writing.client.id().to_owned(),
                    outcome: outcome.clone(),
                });
                outcome
            }
        };
        drop(last);
        outcome?;
        if writing.reconnects.try_recv().is_ok() {
            return Err(StoreError::unconfirmed("the connection was lost"));
        }
        Ok(())
    }

    async fn ask(&self, client: &Client) -> Result<(), StoreError> {
        // WAIT concerns the last write of this connection. This write makes sure that there is one,
        // even if the batch changed nothing: it may be a retry.
        let fresh = format!("{:032x}", fastrand::u128(..));
        let words = || {
            (
                vec![self.marker.as_str().into()],
                vec![fresh.as_str().into()],
            )
        };
        let _: String = self.script.run(client, words).await?;
        let millis = i64::try_from(MAX_REPLICA_WAIT.as_millis()).unwrap_or(i64::MAX);
        let confirmed: i64 = client.wait(self.least.into(), millis).await?;
        if confirmed < self.least.into() {
            self.missing.inc();
            return Err(StoreError::unconfirmed(&format!(
                "{confirmed} of {} replicas confirmed the write in time (REDIS_WAIT_REPLICAS)",
                self.least
            )));
        }
        Ok(())
    }
}
