//! What is true of an owner, from Redis, else from the Edge API.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::breaker::Breaker;
use super::concurrency::ConcurrencyLimit;
use super::copy::{Copy, Slot};
use super::{Origin, now_ms};
use crate::edge::{Edge, EdgeError, EntitlementList};
use crate::keys::{Keys, Owner};
use crate::metrics::{ReadMetrics, UpstreamOutcome};
use crate::plan::{self, Fetched, NotPlanned, Rules};
use crate::reader::{NO_CUSTOMER, State};
use crate::store::{Mark, Store, Tracked};

/// For this time the read API does not ask again for what the Edge API does not know, or did not give whole.
const MISS_TTL: Duration = Duration::from_secs(30);
/// Requests to the Edge API in flight, and those that may wait.
const MAX_FETCHES: usize = 64;
const MAX_WAITING_FETCHES: usize = 256;

/// Loads owners.
pub struct Loader {
    pub tracked: Tracked,
    pub store: Store,
    pub keys: Keys,
    pub rules: Rules,
    pub edge: Edge,
    pub breaker: Breaker,
    pub metrics: ReadMetrics,
    limit: ConcurrencyLimit,
}

/// What a load brought.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub slot: Arc<Slot>,
    pub origin: Origin,
}

/// Why an owner could not be loaded, without its id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotLoaded {
    #[error("the Edge API does not answer, and Redis does not know the customer")]
    Upstream,
    #[error("the Edge API refuses SERVER_API_KEY")]
    Refused,
    #[error("the answer of the Edge API cannot be read")]
    Malformed,
    #[error("the Edge API does not take the request for this customer")]
    Declined,
    #[error("too many customers are being loaded")]
    Busy,
}

impl Loader {
    pub fn new(
        tracked: Tracked,
        store: Store,
        (keys, rules): (Keys, Rules),
        edge: Edge,
        metrics: ReadMetrics,
    ) -> Self {
        Self {
            tracked,
            store,
            keys,
            rules,
            edge,
            breaker: Breaker::default(),
            metrics,
            limit: ConcurrencyLimit::new(MAX_FETCHES, MAX_WAITING_FETCHES),
        }
    }

    /// Loads an owner and keeps what was learnt. A resource is answered only beside its customer, which `customer` loads
    /// where Redis does not answer for the resource. `via`: see [`Reads::ask`](super::Reads::ask). `is_answerable`: whether a
    /// slot of the copy may be answered although nothing confirms it.
    pub async fn load<F: Future>(
        &self,
        (owner, via): (Owner<'_>, Option<&str>),
        (copy, is_answerable): (&Copy, impl Fn(&Slot) -> bool),
        customer: impl FnOnce() -> F,
    ) -> Result<Loaded, NotLoaded> {
        let order = copy.next_order();
        let keep = |slot: Slot, origin| Loaded {
            slot: copy.keep(owner, slot),
            origin,
        };
        let partial = match self.stored(owner, order).await {
            // What was restored and is not proven yet: the Edge API is asked first.
            Some(slot) if !self.tracked.proves(slot.mark) => None,
            Some(slot) => match slot.state.miss(now_ms()) {
                None => return Ok(keep(slot, self.of_store())),
                Some(miss) => {
                    self.metrics.missed(miss);
                    Some(slot)
                }
            },
            None => None,
        };
        // The recent answer of the Edge API about an owner that Redis does not hold.
        if let Some(before) = copy.peek(owner)
            && before.is_settled()
            && self.tracked.has_followed(owner.customer, before.mark)
        {
            let origin = match self.tracked.is_up() {
                true => Origin::Copy,
                false => Origin::Unproven,
            };
            return Ok(Loaded {
                slot: before,
                origin,
            });
        }
        if owner.resource.is_some() {
            // If it cannot be had, the resource is asked for all the same.
            drop(customer().await);
        }
        let error = match self.fetch(owner, via, order).await {
            // It replaces no state that may still be answered: without Redis nothing confirms that the customer is gone.
            Ok((slot, origin))
                if slot.is_unknown
                    && !self.tracked.is_up()
                    && copy
                        .peek(owner)
                        .is_some_and(|before| is_answerable(&before)) =>
            {
                return Ok(Loaded {
                    slot: Arc::new(slot),
                    origin,
                });
            }
            Ok((slot, origin)) => return Ok(keep(slot, origin)),
            Err(error) => error,
        };
        // Some of it can be answered, and some not.
        let of_store = self.of_store();
        partial.map(|slot| keep(slot, of_store)).ok_or(error)
    }

    fn of_store(&self) -> Origin {
        match self.tracked.is_memory() {
            true => Origin::Copy,
            false => Origin::Redis,
        }
    }

    /// What Redis holds, if it can be read at all.
    pub async fn stored(&self, owner: Owner<'_>, order: u64) -> Option<Slot> {
        let (stored, mark) = self.tracked.read(owner).await.ok()?;
        let state = State::read(&stored, owner.resource.is_some());
        if let Err(miss) = state {
            self.metrics.missed(miss);
        }
        Some(Slot::new(state.ok()?, mark, order))
    }

    /// What the Edge API says. It is written to Redis by the write rule, so that it can undo nothing newer.
    pub async fn fetch(
        &self,
        owner: Owner<'_>,
        via: Option<&str>,
        order: u64,
    ) -> Result<(Slot, Origin), NotLoaded> {
        let (asked, mark, began) = (now_ms() as u64, self.tracked.mark(), Instant::now());
        let list = match self.entitlements(owner, via).await? {
            Some(list) => list,
            None => {
                let mut slot =
                    self.in_memory(State::empty(Some(NO_CUSTOMER)), mark, (order, began));
                slot.is_unknown = true;
                return Ok((slot, Origin::Upstream));
            }
        };
        let planned = match plan::fetched(&self.keys, owner, &list, asked, self.rules) {
            // Answered from memory; Redis' layout cannot hold all of it.
            Err(NotPlanned::Credits) => {
                let omitted = Rules {
                    omit_credits: true,
                    ..self.rules
                };
                (
                    plan::fetched(&self.keys, owner, &list, asked, omitted),
                    false,
                )
            }
            planned => (planned, true),
        };
        let (Ok(fetched), is_whole) = planned else {
            return Err(NotLoaded::Malformed);
        };
        // An empty list, or one without its time, could hide what an event of a moment ago brings.
        let is_written =
            is_whole && fetched.dated && fetched.entitlements > 0 && self.takes_fetched();
        if is_written {
            // Whatever comes of it: what Redis holds then is read.
            drop(self.store.apply(&[&fetched.step], false).await);
            if let Some(mut slot) = self.stored(owner, order).await
                && slot.state.miss(now_ms()).is_none()
            {
                slot.mark = slot.mark.confirmed(mark);
                slot.retried(Some(began));
                return Ok((slot, Origin::Upstream));
            }
        }
        let state = match is_whole {
            true => self.state(&fetched),
            false => self.state(&fetched).omitting_credits(),
        };
        let slot = self.in_memory(state, mark, (order, began));
        Ok((slot, Origin::Upstream))
    }

    /// Whether the store takes what was fetched. With `CACHE_UPDATE_POLICY=INVALIDATE`, SDKs of another layout read
    /// from Redis.
    fn takes_fetched(&self) -> bool {
        let is_of_readers =
            self.tracked.is_memory() || (self.tracked.is_up() && !self.rules.invalidate);
        is_of_readers && self.store.takes_fetched()
    }

    fn state(&self, fetched: &Fetched) -> State {
        let stored = fetched.stored(&self.keys);
        // It was asked for alone, so it need not be compared with its customer.
        State::read(&stored, false).unwrap_or_else(|_| State::empty(None))
    }

    /// What Redis does not hold. What is not there, or not whole, is not asked for again for a while.
    fn in_memory(&self, state: State, mark: Mark, (order, began): (u64, Instant)) -> Slot {
        let is_provisional = state.is_empty() || state.miss(now_ms()).is_some();
        let mut slot = Slot::new(state, mark, order);
        slot.settled_until = is_provisional.then(|| began + MISS_TTL);
        slot.is_stored = false;
        slot.began = began;
        slot.retried(Some(began));
        slot
    }

    /// The list of an owner; `None`: the Edge API does not know it.
    async fn entitlements(
        &self,
        owner: Owner<'_>,
        via: Option<&str>,
    ) -> Result<Option<EntitlementList>, NotLoaded> {
        let Some(_permit) = self.limit.take().await else {
            self.metrics.upstream(UpstreamOutcome::Skipped);
            return Err(NotLoaded::Busy);
        };
        let Some(attempt) = self.breaker.admit() else {
            self.metrics.upstream(UpstreamOutcome::Skipped);
            return Err(NotLoaded::Upstream);
        };
        let started = Instant::now();
        let (customer, resource) = (owner.customer, owner.resource);
        let answer = match via {
            None => self.edge.entitlements(customer, resource).await,
            Some(via) => self.edge.behind(via).entitlements(customer, resource).await,
        };
        self.metrics.upstream_took(started.elapsed());
        let (outcome, error, pause) = match answer {
            Ok(list) => {
                attempt.succeeded();
                self.metrics.upstream(UpstreamOutcome::Found);
                return Ok(Some(list));
            }
            Err(EdgeError::NotFound(_)) => {
                attempt.succeeded();
                self.metrics.upstream(UpstreamOutcome::NotFound);
                return Ok(None);
            }
            Err(EdgeError::Declined(_)) => {
                // It does not take this question, and is well.
                attempt.succeeded();
                self.metrics.upstream(UpstreamOutcome::Failed);
                return Err(NotLoaded::Declined);
            }
            Err(EdgeError::NoRoom(_)) => {
                attempt.succeeded();
                self.metrics.upstream(UpstreamOutcome::Skipped);
                return Err(NotLoaded::Busy);
            }
            Err(EdgeError::Refused(_)) => (UpstreamOutcome::Refused, NotLoaded::Refused, None),
            Err(EdgeError::Final(_)) => (UpstreamOutcome::Failed, NotLoaded::Malformed, None),
            Err(EdgeError::MayPass { after, .. }) => {
                (UpstreamOutcome::Failed, NotLoaded::Upstream, after)
            }
        };
        attempt.failed(pause);
        self.metrics.upstream(outcome);
        Err(error)
    }
}
