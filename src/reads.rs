//! Answers questions about customers from memory, from Redis, else from the Edge API.
//!
//! An answer is *fresh* if Redis would have notified a change, see [`Tracked`](crate::store::Tracked). What is not fresh
//! is read again. While Redis is away, what was last known is answered for `LOCAL_TTL_SECS`, marked as stale, and the
//! Edge API is asked in the background. What is kept in memory is never written to Redis from there: what was fetched
//! is, by the write rule of the worker.

mod access;
mod bodies;
mod breaker;
mod concurrency;
mod copy;
mod flights;
mod forwarding;
mod load;
mod max_bytes;
mod observe;
mod refill;
mod saved;
mod sources;

pub use access::Access;
pub use bodies::{Bodies, Body, Form, etag};
pub use forwarding::{ForwardRequest, Forwarding};
pub use load::NotLoaded;
pub use max_bytes::{MaxBytes, max_bytes};
pub use saved::CopyEntry;
pub use sources::Sources;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::clock;
use crate::config::{ReadConfig, WriteConfig};
use crate::edge::Edge;
use crate::keys::{Keys, Owner};
use crate::metrics::{Metrics, ReadMetrics};
use crate::reader::State;
use crate::store::{Store, Tracked, Tracking};
use copy::{Copy, OwnerKey, Slot};
use flights::{Flights, Joined};
use load::{Loaded, Loader};

/// Answers questions. Clones share one copy.
#[derive(Clone)]
pub struct Reads {
    loader: Arc<Loader>,
    copy: Arc<Copy>,
    flights: Arc<Flights<Result<Loaded, NotLoaded>>>,
    ttl: Option<Duration>,
    fresh: Duration,
    /// For pages of the Edge API that are forwarded.
    pub pages: Arc<Forwarding>,
    /// For states of customers that are forwarded.
    pub states: Arc<Forwarding>,
    pub metrics: ReadMetrics,
}

/// Where an answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The copy, which is fresh.
    Copy,
    /// Redis, read for this question.
    Redis,
    /// The Edge API, asked for this question.
    Upstream,
    /// The copy, which can no longer be confirmed.
    Unproven,
}

/// The state of an owner, and where it comes from.
#[derive(Debug, Clone)]
pub struct Answer {
    slot: Arc<Slot>,
    pub origin: Origin,
    /// How long ago it was last known to be true.
    pub age: Duration,
}

impl Answer {
    pub fn state(&self) -> &State {
        &self.slot.state
    }

    /// The store holds the state; else it is in memory only.
    pub fn is_stored(&self) -> bool {
        self.slot.is_stored
    }

    /// The Edge API does not know the customer.
    pub fn is_unknown(&self) -> bool {
        self.slot.is_unknown
    }
}

/// A question fails after this, while its load goes on: SDKs wait 10 s.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(8);
/// The timeout of a request to the Edge API: shorter, so that the question reports its failure.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(5);
/// How often an owner that can only be answered stale is asked for upstream.
const STALE_RETRY_INTERVAL: Duration = Duration::from_secs(30);

impl Reads {
    pub fn start(
        config: &ReadConfig,
        writes: &WriteConfig,
        (store, tracked, edge): (Store, Tracked, Edge),
        memory_limit: Option<u64>,
        metrics: &Metrics,
    ) -> Self {
        let max = max_bytes(config.max_bytes, memory_limit);
        let bytes = match &tracked {
            Tracked::Redis(_) => max.total,
            Tracked::Memory(_) => max.total - max.of_state,
        };
        let keys = Keys::new(&writes.prefix);
        let loader = Loader::new(
            tracked,
            // As an SDK does on its miss: the policy is about events.
            store.upserting(),
            (keys, writes.rules),
            edge.within(UPSTREAM_TIMEOUT),
            metrics.reads.clone(),
        );
        let reads = Self {
            loader: Arc::new(loader),
            copy: Arc::new(Copy::new(bytes)),
            flights: Arc::new(Flights::new(Handle::current())),
            ttl: config.ttl,
            fresh: config.fresh,
            pages: Forwarding::of_pages(&edge),
            states: Forwarding::of_states(&edge),
            metrics: metrics.reads.clone(),
        };
        metrics
            .reads
            .copy_bytes_limit
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
        tokio::spawn(refill::run(reads.clone(), metrics.redis_data_lost.clone()));
        tokio::spawn(observe::watch(reads.clone()));
        reads
    }

    /// Returns the state of an owner, or why there is none. `via`: the processes of this program that the question came
    /// through, as their `Via` list.
    pub async fn ask(&self, owner: Owner<'_>, via: Option<&str>) -> Result<Answer, NotLoaded> {
        let tracked = &self.loader.tracked;
        let known = self.copy.get(owner);
        if let Some(slot) = &known
            && let Some(age) = self.fresh_age(owner, slot)
            && (slot.is_settled()
                || slot.settled_until.is_none() && slot.state.miss(now_ms()).is_none())
        {
            return Ok(Answer {
                slot: slot.clone(),
                origin: Origin::Copy,
                age,
            });
        }
        let known = match tracked.is_up() {
            true => known,
            false => self.in_this_process(owner, known).await,
        };
        if let Some(slot) = &known
            && !tracked.is_up()
            && let Some(answer) = self.stale(owner, slot.clone())
        {
            // Nobody waits for it.
            if slot.retry_is_due(STALE_RETRY_INTERVAL) {
                drop(self.load(owner, via));
            }
            return Ok(answer);
        }
        let error = match timeout(QUESTION_TIMEOUT, self.load(owner, via)).await {
            Ok(Some(Ok(loaded))) => {
                return Ok(self.answer(owner, loaded.slot, loaded.origin));
            }
            Ok(Some(Err(error))) => error,
            Ok(None) | Err(_) => NotLoaded::Upstream,
        };
        // A load that began later may have kept something meanwhile.
        let known = self.copy.get(owner).or(known);
        let known = self.in_this_process(owner, known).await;
        known.and_then(|slot| self.stale(owner, slot)).ok_or(error)
    }

    /// Where the state is in this process and the queue does not prove it, or not that of this owner: returns what is stored,
    /// if the copy is older.
    async fn in_this_process(
        &self,
        owner: Owner<'_>,
        known: Option<Arc<Slot>>,
    ) -> Option<Arc<Slot>> {
        let tracked = &self.loader.tracked;
        let is_current = |slot: &Arc<Slot>| !tracked.has_changed(owner.customer, slot.mark);
        if !tracked.is_memory() || known.as_ref().is_some_and(is_current) {
            return known;
        }
        let order = self.copy.next_order();
        match self.loader.stored(owner, order).await {
            Some(slot) => Some(self.copy.keep(owner, slot)),
            None => known,
        }
    }

    /// Loads an owner from the Edge API, whatever is known of it; returns whether the Edge API knows the customer.
    pub async fn reload(&self, owner: Owner<'_>) -> Result<bool, NotLoaded> {
        let order = self.copy.next_order();
        let (slot, _) = self.loader.fetch(owner, None, order).await?;
        Ok(!self.copy.keep(owner, slot).is_unknown)
    }

    /// Its age if nothing has changed since it was learnt. What Redis does not hold changes without a word from Redis,
    /// unless each change leaves a tombstone there; of usage none does.
    fn fresh_age(&self, owner: Owner<'_>, slot: &Slot) -> Option<Duration> {
        let of_mark = self.loader.tracked.fresh_age(owner.customer, slot.mark)?;
        let is_reported = self.reports_changes(slot);
        if is_reported && slot.settled_until.is_none() {
            return Some(of_mark);
        }
        let since_learnt = slot.began.elapsed();
        (is_reported || since_learnt < self.fresh).then_some(since_learnt)
    }

    /// Whether the store notifies changes. A store in this process notifies each change that the queue brings.
    fn reports_changes(&self, slot: &Slot) -> bool {
        let leaves_tombstones = self.loader.rules.invalidate || slot.state.has_credits();
        self.loader.tracked.is_memory()
            || slot.is_stored
            || slot.settled_until.is_some()
            || leaves_tombstones && !slot.state.has_metered()
    }

    /// How long ago it was last known to be true. Not every event about a customer that is unknown or has nothing leaves a
    /// trace in Redis.
    fn age(&self, owner: Owner<'_>, slot: &Slot) -> Duration {
        match self.reports_changes(slot) && slot.settled_until.is_none() {
            true => self.loader.tracked.age(owner.customer, slot.mark),
            false => slot.began.elapsed(),
        }
    }

    /// Begins a load, or joins one under way. A question of another process of this program joins none: a load under way may
    /// wait for that process, and both would wait for each other.
    fn load(
        &self,
        owner: Owner<'_>,
        via: Option<&str>,
    ) -> flights::Flight<Result<Loaded, NotLoaded>> {
        let begin = || {
            let (reads, key) = (self.clone(), OwnerKey::of(owner));
            let via = via.map(str::to_owned);
            async move { reads.load_now(key.owner(), via.as_deref()).await }
        };
        if via.is_some() {
            return self.flights.alone(begin());
        }
        let tracked = &self.loader.tracked;
        let is_current = |mark| !tracked.has_changed(owner.customer, mark);
        let (flight, joined) = self.flights.join(owner, tracked.mark(), is_current, begin);
        if joined == Joined::Other {
            self.metrics.joined.inc();
        }
        flight
    }

    async fn load_now(&self, owner: Owner<'_>, via: Option<&str>) -> Result<Loaded, NotLoaded> {
        let customer = Owner {
            resource: None,
            ..owner
        };
        let load_customer = || self.load(customer, via);
        let is_answerable = |slot: &Slot| self.is_answerable(owner, slot);
        let known = (&*self.copy, is_answerable);
        self.loader.load((owner, via), known, load_customer).await
    }

    fn answer(&self, owner: Owner<'_>, slot: Arc<Slot>, origin: Origin) -> Answer {
        let age = match origin {
            Origin::Redis | Origin::Upstream => Duration::ZERO,
            Origin::Copy | Origin::Unproven => self.age(owner, &slot),
        };
        Answer { slot, origin, age }
    }

    /// The last known state, as long as it may be answered. That the Edge API does not know a customer is remembered for
    /// a short time only: after it, nothing is known.
    fn stale(&self, owner: Owner<'_>, slot: Arc<Slot>) -> Option<Answer> {
        let is_over = slot.is_unknown && !slot.is_settled();
        let answer = self.answer(owner, slot, Origin::Unproven);
        let is_recent = self.ttl.is_none_or(|ttl| answer.age < ttl);
        (is_recent && !is_over).then_some(answer)
    }

    /// Whether the state is in this process.
    pub fn is_memory(&self) -> bool {
        self.loader.tracked.is_memory()
    }

    pub fn tracking(&self) -> Tracking {
        self.loader.tracked.tracking()
    }

    /// The finished bodies of answers.
    pub fn bodies(&self) -> &Bodies {
        &self.copy.bodies
    }

    pub fn owners(&self) -> usize {
        self.copy.owners()
    }

    pub fn bytes(&self) -> u64 {
        self.copy.bytes()
    }

    pub async fn close(&self) {
        self.loader.tracked.close().await;
    }
}

/// Milliseconds since 1970, as JavaScript has them.
pub fn now_ms() -> f64 {
    clock::now_ms() as f64
}
