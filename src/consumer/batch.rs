//! Processes received messages from body to verdict. It returns no errors: every message is
//! acknowledged or returned to the queue.

mod apply;
mod judge;
mod letter;
mod refuse;
mod retry;
mod understand;
mod work;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Shared;
use super::ahead::Ahead;
use super::budget::Reserved;
use super::lease::{Held, LEASE_CHECK_INTERVAL, Leases};
use crate::health::ConsumerView;
use crate::message::Unreadable;
use crate::metrics::Outcome;
use crate::queue::Queue;
use crate::store::LOCKED_PAUSE;
use letter::Letter;
use understand::Understood;
use work::Work;

/// Maximum bytes of bodies planned at once, unless one body is larger.
const MAX_PLANNED_BYTES: usize = 1 << 20;
/// The size from which a body counts as large: its plan may need many times as much.
const LARGE_BODY_BYTES: usize = 256 << 10;
/// The size from which a plan counts as large, even if its body is small: a compressed body may unpack
/// to many times its size.
pub(super) const HEAVY_PLAN_BYTES: usize = 2 << 20;
/// The part of the drain that is reserved for the steps after the consumers: deleting, closing and reporting.
const SHUTDOWN_RESERVE: Duration = Duration::from_secs(2);

/// Messages that were received together.
pub struct Batch<'a, Q> {
    shared: &'a Shared<Q>,
    leases: &'a Leases,
    /// Not started.
    waiting: VecDeque<Held>,
    /// Not started either: each is planned alone, after all that are waiting.
    apart: VecDeque<Held>,
    /// Messages whose plans are large, although their bodies are small.
    heavy: HashSet<String>,
    /// Parsed and planned, not yet in Redis.
    pending: Vec<Work>,
    /// Messages whose bodies must be kept in Redis.
    letters: VecDeque<Letter>,
    release_by: Option<Instant>,
    /// The room that the bodies take.
    _reserved: Vec<Reserved>,
}

/// The room that a message needs before it is planned.
enum Room {
    Here(OwnedSemaphorePermit),
    /// There is no room yet, and there is other work.
    NotYet,
}

impl<'a, Q: Queue> Batch<'a, Q> {
    pub fn new(
        shared: &'a Shared<Q>,
        leases: &'a Leases,
        received: Vec<Held>,
        reserved: Reserved,
    ) -> Self {
        let mut batch = Self {
            shared,
            leases,
            waiting: VecDeque::with_capacity(received.len()),
            apart: VecDeque::new(),
            heavy: HashSet::new(),
            pending: Vec::new(),
            letters: VecDeque::new(),
            release_by: None,
            _reserved: Vec::new(),
        };
        batch.take(received, reserved);
        batch
    }

    fn take(&mut self, received: Vec<Held>, reserved: Reserved) {
        for held in received {
            if self.is_large(&held) || self.is_doubtful(&held) || self.is_suspect(&held) {
                self.apart.push_back(held);
            } else {
                self.waiting.push_back(held);
            }
        }
        self._reserved.push(reserved);
    }

    /// Takes the messages requested ahead, so that they do not wait for a lock, for room or for Redis
    /// behind unrelated messages. Returns whether there were any.
    fn take_over(&mut self, ahead: &mut Ahead) -> bool {
        let messages = ahead.messages();
        let is_some = messages.is_some();
        if let Some((received, reserved)) = messages {
            self.take(received, reserved);
        }
        is_some
    }

    fn is_large(&self, held: &Held) -> bool {
        held.body.len() >= LARGE_BODY_BYTES || self.heavy.contains(&held.message_id)
    }

    /// Returns whether a message was received more often than the limit: its earlier deliveries ended
    /// without a verdict, perhaps because the process died.
    fn is_doubtful(&self, held: &Held) -> bool {
        held.receive_count > self.receive_limit()
    }

    /// Returns whether its call to Redis failed alone in an earlier delivery.
    fn is_suspect(&self, held: &Held) -> bool {
        held.receive_count > 1 && self.shared.flow.suspects.knows(&held.message_id)
    }

    /// Works until it holds no message: each is acknowledged, given up, or returned at shutdown.
    pub async fn work(mut self, view: &ConsumerView, ahead: &mut Ahead) {
        loop {
            view.progress();
            self.plan(view, ahead).await;
            if self.is_empty() {
                return;
            }
            if self.is_overdue() {
                return self.release_all().await;
            }
            match self.apply(view).await {
                Some(0) => {}
                Some(_locked) => {
                    let pause = Duration::from_millis(fastrand::u64(LOCKED_PAUSE));
                    tokio::time::sleep(pause).await;
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

    fn is_empty(&self) -> bool {
        self.pending.is_empty()
            && self.letters.is_empty()
            && self.waiting.is_empty()
            && self.apart.is_empty()
    }

    /// Parses and plans the messages that fit. Messages that need no change or are invalid end here.
    async fn plan(&mut self, view: &ConsumerView, ahead: &mut Ahead) {
        // Suspects are tried first, and alone.
        if self.pending.iter().any(|work| work.is_suspect) {
            return;
        }
        let mut planned: usize = self.pending.iter().map(Work::bytes).sum();
        while planned < MAX_PLANNED_BYTES {
            // Each refusal makes a call to the queue, which may take as long as its timeout.
            view.progress();
            let is_alone = self.waiting.is_empty();
            let (mut doubtful, mut large) = (None, None);
            if let Some(next) = self.apart.front().filter(|_| is_alone) {
                if !self.pending.is_empty() {
                    break;
                }
                let (is_doubtful, is_large) = (self.is_doubtful(next), self.is_large(next));
                if is_doubtful {
                    let room = self.shared.flow.doubtful.clone();
                    match self.room(room, view, ahead).await {
                        Room::Here(room) => doubtful = Some(room),
                        Room::NotYet => break,
                    }
                }
                if is_large {
                    let room = self.shared.flow.large.clone();
                    match self.room(room, view, ahead).await {
                        Room::Here(room) => large = Some(room),
                        Room::NotYet => break,
                    }
                }
            }
            let next = match is_alone {
                true => self.apart.pop_front(),
                false => self.waiting.pop_front(),
            };
            let Some(held) = next else {
                break;
            };
            if self.is_hopeless(&held) {
                self.refuse_hopeless(held).await;
                continue;
            }
            let understood = match self.parse(&held, large.is_some()) {
                Ok(Some(understood)) => understood,
                Ok(None) => {
                    self.heavy.insert(held.message_id.clone());
                    self.apart.push_back(held);
                    continue;
                }
                Err(Unreadable { kind, reason }) => {
                    self.refuse(held, kind, Outcome::Invalid, &reason.to_string())
                        .await;
                    continue;
                }
            };
            let Understood {
                kind,
                trace_id,
                steps,
                outcome,
                unrecognised,
            } = understood;
            let is_suspect = self.is_suspect(&held);
            let mut work = Work::new(held, kind, trace_id, steps);
            work.unrecognised = unrecognised;
            if work.steps.is_empty() {
                self.end(work, outcome).await;
                continue;
            }
            work.is_suspect = is_suspect;
            (work.doubtful, work.large) = (doubtful, large);
            planned += work.bytes();
            self.pending.push(work);
            if is_suspect {
                break;
            }
        }
    }

    /// Waits until this process has room for a large or suspect message.
    async fn room(&mut self, room: Arc<Semaphore>, view: &ConsumerView, ahead: &mut Ahead) -> Room {
        let mut room = std::pin::pin!(room.acquire_owned());
        loop {
            view.progress();
            tokio::select! {
                biased;
                // Never closed, so never an error.
                Ok(room) = &mut room => return Room::Here(room),
                () = tokio::time::sleep(LEASE_CHECK_INTERVAL) => {}
            }
            if self.take_over(ahead) || self.is_overdue() {
                return Room::NotYet;
            }
        }
    }

    /// Waits until Redis takes writes, and keeps the messages. Returns true if the shutdown comes
    /// first: then the messages return to the queue.
    async fn wait_for_redis(&mut self, view: &ConsumerView, ahead: &mut Ahead) -> bool {
        loop {
            view.progress();
            self.take_over(ahead);
            tokio::select! {
                biased;
                () = self.shared.flow.shutdown.cancelled() => return true,
                () = self.shared.work.store.gate().opened() => return false,
                () = tokio::time::sleep(LEASE_CHECK_INTERVAL) => {}
            }
        }
    }

    fn is_overdue(&mut self) -> bool {
        if !self.shared.flow.shutdown.is_cancelled() {
            return false;
        }
        let drain = self
            .shared
            .flow
            .drain
            .saturating_sub(SHUTDOWN_RESERVE)
            .max(Duration::from_millis(500));
        *self
            .release_by
            .get_or_insert_with(|| Instant::now() + drain)
            <= Instant::now()
    }

    /// Returns all messages to the queue, which redelivers them at once.
    pub async fn release_all(self) {
        let pending = self.pending.into_iter().map(|work| work.held);
        let letters = self.letters.into_iter().map(|letter| letter.held);
        let all: Vec<_> = pending
            .chain(letters)
            .chain(self.waiting)
            .chain(self.apart)
            .map(|held| (held, Duration::ZERO))
            .collect();
        tracing::info!(
            messages = all.len(),
            "messages returned to the queue at shutdown"
        );
        if !self.leases.release(self.shared, all).await {
            self.shared.work.store.stranded();
        }
    }
}
