//! Holds the messages of a consumer and extends their visibility timeouts. While the consumer waits, each timeout
//! that is half over is extended.

use std::convert::Infallible;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Mutex as AsyncMutex;

use super::Shared;
use super::acknowledger::Acknowledgement;
use crate::metrics::Operation;
use crate::queue::{Delivery, Queue};

/// How often the visibility timeouts are checked.
pub const LEASE_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest time by which a message is extended.
const MIN_EXTENSION: Duration = Duration::from_secs(10);

/// Returns for how long the queue hides a message that this process holds, at most.
pub fn longest_hidden(visibility: Duration) -> Duration {
    visibility.max(MIN_EXTENSION)
}

/// The messages that one consumer has received and neither acknowledged nor returned.
#[derive(Debug)]
pub struct Leases {
    inner: Mutex<Inner>,
    /// Locked while visibilities change, so that an extension in flight never arrives after the
    /// return of its message.
    changing: AsyncMutex<()>,
    in_flight: Gauge,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    all: Vec<Lease>,
}

#[derive(Debug)]
struct Lease {
    id: u64,
    receipt: String,
    expires: Instant,
    extended: Option<Instant>,
}

/// A received message. Its visibility timeout is extended until this is dropped.
#[derive(Debug)]
pub struct Held {
    delivery: Delivery,
    lease: u64,
    leases: Arc<Leases>,
}

impl Leases {
    pub fn new(in_flight: Gauge) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            changing: AsyncMutex::default(),
            in_flight,
        })
    }

    pub fn hold(self: &Arc<Self>, delivery: Delivery) -> Held {
        let mut inner = self.lock();
        let lease = inner.next;
        inner.next += 1;
        inner.all.push(Lease {
            id: lease,
            receipt: delivery.receipt.clone(),
            expires: delivery.expires,
            extended: None,
        });
        self.in_flight.inc();
        Held {
            delivery,
            lease,
            leases: self.clone(),
        }
    }

    /// Extends the visibility timeouts while this is polled.
    pub async fn keep<Q: Queue>(&self, shared: &Shared<Q>) -> Infallible {
        loop {
            tokio::time::sleep(LEASE_CHECK_INTERVAL).await;
            while self.extend(shared).await {}
        }
    }

    /// Extends up to ten messages; false if none is due.
    async fn extend<Q: Queue>(&self, shared: &Shared<Q>) -> bool {
        let visibility = shared.flow.settings.borrow().visibility_timeout;
        let _changing = self.changing.lock().await;
        let due = self.due(visibility / 2);
        if due.is_empty() {
            return false;
        }
        let timeout = longest_hidden(visibility);
        let changes: Vec<(&str, Duration)> = due
            .iter()
            .map(|(_, receipt)| (receipt.as_str(), timeout))
            .collect();
        let Some(refused) = change_visibility(shared, &changes).await else {
            return true;
        };
        let expires = Instant::now() + timeout;
        for (position, (id, _)) in due.iter().enumerate() {
            // Another consumer may have a refused message by now. The work continues: the write rule makes
            // that safe.
            if !refused.contains(&position) {
                shared.watch.metrics.extended.inc();
                if let Some(lease) = self.lock().all.iter_mut().find(|it| it.id == *id) {
                    lease.expires = expires;
                }
            }
        }
        true
    }

    /// Returns up to ten messages with less than `half` of their time left, each once per check. Expired messages
    /// cannot be extended; their acknowledgement reports it.
    fn due(&self, half: Duration) -> Vec<(u64, String)> {
        let now = Instant::now();
        let mut inner = self.lock();
        let due = inner.all.iter_mut().filter(|lease| {
            lease.expires > now
                && lease.expires - now < half
                && lease
                    .extended
                    .is_none_or(|at| now - at >= LEASE_CHECK_INTERVAL)
        });
        due.take(10)
            .map(|lease| {
                lease.extended = Some(now);
                (lease.id, lease.receipt.clone())
            })
            .collect()
    }

    /// Returns messages to the queue, which redelivers them after their delay, or after their visibility
    /// timeout if the call fails. Returns whether none failed.
    pub async fn release<Q: Queue>(
        &self,
        shared: &Shared<Q>,
        messages: Vec<(Held, Duration)>,
    ) -> bool {
        let mut are_all_released = true;
        let changes: Vec<(String, Duration)> = messages
            .into_iter()
            .map(|(held, delay)| (held.done().receipt, delay))
            .collect();
        for chunk in changes.chunks(10) {
            let changes: Vec<(&str, Duration)> = chunk
                .iter()
                .map(|(receipt, delay)| (receipt.as_str(), *delay))
                .collect();
            let _changing = self.changing.lock().await;
            let refused = change_visibility(shared, &changes).await;
            are_all_released &= refused.as_ref().is_some_and(Vec::is_empty);
            if let Some(refused) = refused {
                let released = changes.len().saturating_sub(refused.len());
                shared.watch.metrics.released.inc_by(released as u64);
            }
        }
        are_all_released
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|lock| lock.into_inner())
    }
}

impl Held {
    /// Ends the lease. The acknowledger deletes the message.
    pub fn done(mut self) -> Acknowledgement {
        let expires = {
            let inner = self.leases.lock();
            let lease = inner.all.iter().find(|it| it.id == self.lease);
            lease.map_or(self.delivery.expires, |lease| lease.expires)
        };
        Acknowledgement {
            message_id: std::mem::take(&mut self.delivery.message_id),
            receipt: std::mem::take(&mut self.delivery.receipt),
            expires,
        }
    }
}

impl Deref for Held {
    type Target = Delivery;

    fn deref(&self) -> &Delivery {
        &self.delivery
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut inner = self.leases.lock();
        inner.all.retain(|lease| lease.id != self.lease);
        self.leases.in_flight.dec();
    }
}

/// Returns the refused positions, or `None` if the call failed.
async fn change_visibility<Q: Queue>(
    shared: &Shared<Q>,
    changes: &[(&str, Duration)],
) -> Option<Vec<usize>> {
    let started = Instant::now();
    let answer = shared.work.queue.change_visibility(changes).await;
    shared
        .watch
        .metrics
        .called(Operation::ChangeVisibility, started, &answer);
    match answer {
        Ok(refused) => Some(refused.into_iter().map(|entry| entry.position).collect()),
        Err(error) => {
            tracing::warn!(%error, messages = changes.len(), "cannot change the visibility of messages");
            None
        }
    }
}
