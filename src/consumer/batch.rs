//! The road of the messages in hand, from body to verdict. No error leaves it: every message is
//! acknowledged or given back.

mod judge;
mod refuse;
mod understand;
mod visibility;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::OwnedSemaphorePermit;

use super::Shared;
use super::ahead::Ahead;
use super::budget::Reserved;
use crate::health::ConsumerView;
use crate::message::{Kind, Unreadable};
use crate::metrics::Outcome;
use crate::plan::{self, Step};
use crate::queue::{Delivery, Queue};
use crate::store::LOCKED_PAUSE;
use understand::Understood;

/// Bytes that are planned at once, or one body.
const SLICE: usize = 1 << 20;
/// A body of so many bytes may weigh many times as much once it is planned.
const LARGE: usize = 256 << 10;
/// Kept of the drain for what comes after the consumers: deleting, closing, reporting.
const AFTERWARDS: Duration = Duration::from_secs(2);
/// How often a message in hand is looked at while we wait.
const LOOK: Duration = Duration::from_secs(1);

/// Messages that were received together.
pub struct Batch<'a, Q> {
    shared: &'a Shared<Q>,
    /// Not begun.
    waiting: VecDeque<Delivery>,
    /// Parsed and planned, not yet in Redis.
    pending: Vec<Work>,
    release_by: Option<Instant>,
    /// The room that the bodies take.
    _reserved: Vec<Reserved>,
    in_flight: InFlight,
}

struct Work {
    delivery: Delivery,
    kind: Kind,
    trace_id: Option<String>,
    steps: Vec<Step>,
    /// Values of these steps, those included that a neighbour supersedes.
    items: usize,
    locked_tries: u32,
    /// Held by a large body for as long as its plan is there.
    _large: Option<OwnedSemaphorePermit>,
}

impl Work {
    fn bytes(&self) -> usize {
        let items = self.steps.iter().flat_map(|step| &step.items);
        items.map(|item| item.key.len() + item.value.len()).sum()
    }

    /// Whether it relies on a neighbour for some of its values.
    fn is_superseded(&self) -> bool {
        self.steps
            .iter()
            .map(|step| step.items.len())
            .sum::<usize>()
            < self.items
    }
}

/// The messages of one batch in the gauge of all; those that are left when a consumer fails leave
/// it too.
struct InFlight {
    all: Gauge,
    count: AtomicI64,
}

impl InFlight {
    fn add(&self, messages: usize) {
        let messages = i64::try_from(messages).unwrap_or(0);
        self.count.fetch_add(messages, Ordering::Relaxed);
        self.all.inc_by(messages);
    }

    fn done(&self, messages: usize) {
        let messages = i64::try_from(messages).unwrap_or(0);
        self.count.fetch_sub(messages, Ordering::Relaxed);
        self.all.dec_by(messages);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let left = self.count.load(Ordering::Relaxed);
        self.all.dec_by(left);
    }
}

impl<'a, Q: Queue> Batch<'a, Q> {
    pub fn new(shared: &'a Shared<Q>, received: Vec<Delivery>, reserved: Reserved) -> Self {
        let mut batch = Self {
            shared,
            waiting: VecDeque::new(),
            pending: Vec::new(),
            release_by: None,
            _reserved: Vec::new(),
            in_flight: InFlight {
                all: shared.metrics.inflight_messages.clone(),
                count: AtomicI64::new(0),
            },
        };
        batch.take(received, reserved);
        batch
    }

    fn take(&mut self, received: Vec<Delivery>, reserved: Reserved) {
        self.in_flight.add(received.len());
        let mut received = VecDeque::from(received);
        match self.waiting.is_empty() {
            true => self.waiting = received,
            false => self.waiting.append(&mut received),
        }
        self._reserved.push(reserved);
    }

    /// Takes what was asked for ahead: it is not to wait for a lock or for Redis unattended.
    fn take_over(&mut self, ahead: &mut Ahead<'_>) {
        if let Some((received, reserved)) = ahead.messages() {
            self.take(received, reserved);
        }
    }

    /// Works until nothing is in hand: acknowledged, given up, or given back at shutdown.
    pub async fn work(mut self, view: &ConsumerView, ahead: &mut Ahead<'_>) {
        loop {
            view.progress();
            ahead.during(self.plan(view)).await;
            if self.pending.is_empty() && self.waiting.is_empty() {
                return;
            }
            if self.is_overdue() {
                return self.release_all().await;
            }
            ahead.during(self.extend()).await;
            match ahead.during(self.apply(view)).await {
                Some(0) => {}
                Some(_locked) => {
                    let pause = Duration::from_millis(fastrand::u64(LOCKED_PAUSE));
                    ahead.during(tokio::time::sleep(pause)).await;
                    self.take_over(ahead);
                }
                None => {
                    if self.wait_for_redis(view, ahead).await {
                        return self.release_all().await;
                    }
                }
            }
        }
    }

    /// Parses and plans what fits; what asks for nothing or for nonsense ends here.
    async fn plan(&mut self, view: &ConsumerView) {
        let mut planned: usize = self.pending.iter().map(Work::bytes).sum();
        while planned < SLICE {
            let Some(next) = self.waiting.front() else {
                break;
            };
            let large = if next.body.len() < LARGE {
                None
            } else if !self.pending.is_empty() {
                break;
            } else {
                match self.room_for_a_large_one(view).await {
                    Some(room) => Some(room),
                    None => return,
                }
            };
            let Some(delivery) = self.waiting.pop_front() else {
                break;
            };
            // Each refusal is a call to the queue, which may take as long as its timeout.
            view.progress();
            let understood = match self.parse(&delivery) {
                Ok(understood) => understood,
                Err(Unreadable { kind, reason }) => {
                    self.refuse(delivery, kind, Outcome::Invalid, &reason.to_string())
                        .await;
                    continue;
                }
            };
            if let Some(name) = &understood.unrecognised
                && let Err(error) = self.keep_unrecognised(&delivery, name).await
            {
                tracing::debug!(%error, "an unrecognised message could not be kept");
                let delay = visibility::retry_delay(delivery.receive_count);
                self.release(&[(delivery, delay)]).await;
                continue;
            }
            let Understood {
                kind,
                trace_id,
                steps,
                outcome,
                ..
            } = understood;
            if steps.is_empty() {
                self.finish(delivery, kind, trace_id.as_deref(), outcome)
                    .await;
                continue;
            }
            let work = Work {
                delivery,
                kind,
                trace_id,
                items: steps.iter().map(|step| step.items.len()).sum(),
                steps,
                locked_tries: 0,
                _large: large,
            };
            planned += work.bytes();
            self.pending.push(work);
        }
        let mut steps: Vec<&mut Step> = self
            .pending
            .iter_mut()
            .flat_map(|work| &mut work.steps)
            .collect();
        if steps.len() > 1 {
            let dropped = plan::coalesce(&mut steps, self.shared.policy.update_if_exists);
            self.shared.metrics.coalesced.inc_by(dropped as u64);
        }
    }

    /// Waits until few enough large bodies are planned in this process; `None` if it is to end first.
    async fn room_for_a_large_one(&mut self, view: &ConsumerView) -> Option<OwnedSemaphorePermit> {
        let mut room = std::pin::pin!(self.shared.large.clone().acquire_owned());
        loop {
            view.progress();
            tokio::select! {
                // Never closed, so never an error.
                room = &mut room => return room.ok(),
                () = tokio::time::sleep(LOOK) => self.extend().await,
            }
            if self.is_overdue() {
                return None;
            }
        }
    }

    /// Waits until Redis takes writes, keeping what is in hand. True if the process is to end
    /// first: then others shall have it.
    async fn wait_for_redis(&mut self, view: &ConsumerView, ahead: &mut Ahead<'_>) -> bool {
        loop {
            view.progress();
            self.take_over(ahead);
            tokio::select! {
                biased;
                () = self.shared.shutdown.cancelled() => return true,
                () = self.shared.store.gate().opened() => return false,
                () = ahead.during(tokio::time::sleep(LOOK)) => self.extend().await,
            }
        }
    }

    fn is_overdue(&mut self) -> bool {
        if !self.shared.shutdown.is_cancelled() {
            return false;
        }
        let drain = self
            .shared
            .drain
            .saturating_sub(AFTERWARDS)
            .max(Duration::from_millis(500));
        *self
            .release_by
            .get_or_insert_with(|| Instant::now() + drain)
            <= Instant::now()
    }

    /// Gives everything in hand back to the queue, to be handed out at once.
    pub async fn release_all(mut self) {
        let pending = std::mem::take(&mut self.pending)
            .into_iter()
            .map(|work| work.delivery);
        let all: Vec<_> = pending
            .chain(std::mem::take(&mut self.waiting))
            .map(|delivery| (delivery, Duration::ZERO))
            .collect();
        tracing::info!(messages = all.len(), "given back to the queue at shutdown");
        for chunk in all.chunks(10) {
            self.release(chunk).await;
        }
    }
}
