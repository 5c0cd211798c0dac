//! The in-process copy: what was last known of the owners that were asked for, bounded by weight. By S3-FIFO, those make
//! room first that were not asked for again since they came, then those that were not asked for lately.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Equivalent, Lifecycle, OptionsBuilder, Weighter};

use super::bodies::Bodies;
use crate::keys::Owner;
use crate::reader::State;
use crate::store::Mark;

/// An [`Owner`] that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OwnerKey {
    customer: Box<str>,
    resource: Option<Box<str>>,
}

impl OwnerKey {
    pub fn of(owner: Owner<'_>) -> Self {
        Self {
            customer: owner.customer.into(),
            resource: owner.resource.map(Box::from),
        }
    }

    pub fn owner(&self) -> Owner<'_> {
        Owner {
            customer: &self.customer,
            resource: self.resource.as_deref(),
        }
    }

    pub fn weight(&self) -> usize {
        self.customer.len() + self.resource.as_ref().map_or(0, |resource| resource.len())
    }
}

/// So that a look-up takes no copy of the ids. Both hash alike: the same fields in the same order.
impl Equivalent<OwnerKey> for Owner<'_> {
    fn equivalent(&self, key: &OwnerKey) -> bool {
        *self == key.owner()
    }
}

/// What was last learnt of an owner.
#[derive(Debug)]
pub struct Slot {
    pub state: State,
    pub mark: Mark,
    /// When the load began that brought it.
    pub began: Instant,
    /// Redis holds it, so it notifies all its changes.
    pub is_stored: bool,
    /// The Edge API does not know the customer.
    pub is_unknown: bool,
    /// Until then what is missing is not asked for again.
    pub settled_until: Option<Instant>,
    /// Rises with each load, in the order in which loads began.
    pub order: u64,
    /// How often it was asked for, and when last, in seconds since the copy began.
    uses: AtomicU32,
    used_at: AtomicU64,
    /// When it was last asked for upstream.
    retried_at: Mutex<Option<Instant>>,
}

impl Slot {
    pub fn new(state: State, mark: Mark, order: u64) -> Self {
        Self {
            state,
            mark,
            began: Instant::now(),
            is_stored: true,
            is_unknown: false,
            settled_until: None,
            order,
            uses: AtomicU32::new(0),
            used_at: AtomicU64::new(0),
            retried_at: Mutex::new(None),
        }
    }

    /// Notes that it was asked for upstream at `at`, unless it was asked for later.
    pub fn retried(&self, at: Option<Instant>) {
        let mut retried_at = self.retried_at();
        *retried_at = at.max(*retried_at);
    }

    fn retried_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.retried_at
            .lock()
            .unwrap_or_else(|lock| lock.into_inner())
    }

    /// Whether nothing was tried within `period`. If so, the caller must try.
    pub fn retry_is_due(&self, period: Duration) -> bool {
        let mut retried_at = self.retried_at();
        let is_due = retried_at.is_none_or(|at| at.elapsed() >= period);
        if is_due {
            *retried_at = Some(Instant::now());
        }
        is_due
    }

    pub fn is_settled(&self) -> bool {
        self.settled_until
            .is_some_and(|until| Instant::now() < until)
    }
}

#[derive(Clone)]
struct ByBytes;

/// What the cache keeps for an entry, and what the allocator adds: a customer of five features takes 760 bytes of RSS,
/// and weighs 780.
const OVERHEAD_BYTES: usize = 160;

impl Weighter<OwnerKey, Arc<Slot>> for ByBytes {
    fn weight(&self, key: &OwnerKey, slot: &Arc<Slot>) -> u64 {
        let own = size_of::<Slot>() + slot.state.heap_bytes();
        let bytes = key.weight() + own + OVERHEAD_BYTES;
        bytes as u64
    }
}

/// Counts what had to make room.
#[derive(Clone, Default)]
pub struct Evictions(Arc<AtomicU64>);

impl<K, V> Lifecycle<K, V> for Evictions {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: K, _: V) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A cache bounded by weight.
pub type Weighted<K, V, W> = Cache<K, V, W, DefaultHashBuilder, Evictions>;

pub struct Copy {
    slots: Weighted<OwnerKey, Arc<Slot>, ByBytes>,
    /// Of the states in the slots.
    pub bodies: Bodies,
    evictions: Evictions,
    /// Held from a look at the slot until a newer one is in its place.
    keeping: Mutex<()>,
    began: Instant,
    order: AtomicU64,
    searched: Mutex<Option<Searched>>,
}

/// What the last search through all slots found.
enum Searched {
    /// This owner is good, unless its slot has changed.
    Found(OwnerKey),
    /// None was good at this time.
    Nothing(Instant),
}

/// A search that finds nothing looks at every slot, so it is not repeated at once.
const SEARCH_INTERVAL: Duration = Duration::from_secs(1);
/// A customer of a few features.
const TYPICAL_BYTES: u64 = 800;

impl Copy {
    pub fn new(max_bytes: u64) -> Self {
        let evictions = Evictions::default();
        Self {
            slots: by_weight(max_bytes / 4 * 3, ByBytes, evictions.clone()),
            bodies: Bodies::new(max_bytes / 4),
            evictions,
            keeping: Mutex::new(()),
            began: Instant::now(),
            order: AtomicU64::new(0),
            searched: Mutex::new(None),
        }
    }

    /// The place of a load that begins now among all loads.
    pub fn next_order(&self) -> u64 {
        self.order.fetch_add(1, Ordering::Relaxed)
    }

    pub fn get(&self, owner: Owner<'_>) -> Option<Arc<Slot>> {
        let slot = self.slots.get(&owner)?;
        slot.uses.fetch_add(1, Ordering::Relaxed);
        slot.used_at
            .store(self.began.elapsed().as_secs(), Ordering::Relaxed);
        Some(slot)
    }

    /// The same for our own purposes: it does not count as a use.
    pub fn peek(&self, owner: Owner<'_>) -> Option<Arc<Slot>> {
        self.slots.peek(&owner)
    }

    /// Keeps what was learnt, unless a load that began later has been kept already. Returns what is kept then.
    pub fn keep(&self, owner: Owner<'_>, slot: Slot) -> Arc<Slot> {
        let _keeping = self.keeping.lock().unwrap_or_else(|lock| lock.into_inner());
        let before = self.slots.peek(&owner);
        let replaced = before.as_ref().map(|before| before.order);
        if let Some(before) = before {
            if before.order > slot.order {
                return before;
            }
            // A load does not count as a use: a refill loads owners without questions.
            let (uses, used_at) = (&before.uses, &before.used_at);
            slot.uses
                .store(uses.load(Ordering::Relaxed), Ordering::Relaxed);
            slot.used_at
                .store(used_at.load(Ordering::Relaxed), Ordering::Relaxed);
            // So that a load does not make the next one due at once.
            slot.retried(*before.retried_at());
        } else {
            let now = self.began.elapsed().as_secs();
            slot.used_at.store(now, Ordering::Relaxed);
        }
        let slot = Arc::new(slot);
        self.slots.insert(OwnerKey::of(owner), slot.clone());
        if let Some(order) = replaced {
            self.bodies.forget(order);
        }
        slot
    }

    /// All owners and what is known of them.
    pub fn all(&self) -> Vec<(OwnerKey, Arc<Slot>)> {
        self.slots.iter().collect()
    }

    /// Counts the loads that began.
    pub fn loads(&self) -> u64 {
        self.order.load(Ordering::Relaxed)
    }

    /// The owners that were asked for within `period`, most often first.
    pub fn recent(&self, period: Duration) -> Vec<OwnerKey> {
        let since = self.began.elapsed().saturating_sub(period).as_secs();
        let mut recent: Vec<(u32, OwnerKey)> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.used_at.load(Ordering::Relaxed) >= since && !slot.is_unknown)
            .map(|(key, slot)| (slot.uses.load(Ordering::Relaxed), key))
            .collect();
        recent.sort_by_key(|(uses, _)| std::cmp::Reverse(*uses));
        recent.into_iter().map(|(_, key)| key).collect()
    }

    pub fn owners(&self) -> usize {
        self.slots.len()
    }

    pub fn bytes(&self) -> u64 {
        self.slots.weight() + self.bodies.bytes()
    }

    /// How many had to make room for others.
    pub fn evictions(&self) -> u64 {
        self.evictions.0.load(Ordering::Relaxed)
    }

    /// Whether there is a good slot. One that appears is found within a second.
    pub fn any(&self, is_good: impl Fn(Owner<'_>, &Slot) -> bool) -> bool {
        let mut searched = self
            .searched
            .lock()
            .unwrap_or_else(|lock| lock.into_inner());
        let is_still_good = |key: &OwnerKey| {
            let slot = self.peek(key.owner());
            slot.is_some_and(|slot| is_good(key.owner(), &slot))
        };
        match &*searched {
            Some(Searched::Found(key)) if is_still_good(key) => return true,
            Some(Searched::Nothing(at)) if at.elapsed() < SEARCH_INTERVAL => return false,
            _ => {}
        }
        let mut slots = self.slots.iter();
        let found = slots.find(|(key, slot)| is_good(key.owner(), slot));
        let is_found = found.is_some();
        *searched = Some(match found {
            Some((key, _)) => Searched::Found(key),
            None => Searched::Nothing(Instant::now()),
        });
        is_found
    }
}

/// A cache of a weight, whose entries are small.
pub fn by_weight<K, V, W>(max_bytes: u64, weighter: W, evictions: Evictions) -> Weighted<K, V, W>
where
    K: Eq + std::hash::Hash,
    V: Clone,
    W: Weighter<K, V> + Clone,
{
    let items = usize::try_from(max_bytes / TYPICAL_BYTES)
        .unwrap_or(usize::MAX)
        .max(64);
    let options = OptionsBuilder::new()
        .estimated_items_capacity(items)
        .weight_capacity(max_bytes)
        .shards(16)
        .build();
    match options {
        Ok(options) => {
            Cache::with_options(options, weighter, DefaultHashBuilder::default(), evictions)
        }
        // Both capacities are given above.
        Err(_) => unreachable!("the options are complete"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Answer, Form, Origin};
    use super::*;

    fn slot(copy: &Copy) -> Slot {
        Slot::new(State::empty(None), Mark::default(), copy.next_order())
    }

    fn owner(customer: &str) -> Owner<'_> {
        Owner {
            customer,
            resource: None,
        }
    }

    #[test]
    fn a_good_slot_is_found_among_any_number_of_others() {
        let copy = Copy::new(64 << 20);
        for number in 0..5_000 {
            let mut unknown = slot(&copy);
            unknown.is_unknown = true;
            copy.keep(owner(&format!("unknown-{number}")), unknown);
        }
        let is_found = || copy.any(|_, slot| !slot.is_unknown);
        assert!(!is_found());
        copy.keep(owner("known"), slot(&copy));
        // As if the search that found nothing were a second ago.
        *copy.searched.lock().unwrap() = None;
        assert!(is_found() && is_found());
        // The slot that was found is another one now.
        let mut unknown = slot(&copy);
        unknown.is_unknown = true;
        copy.keep(owner("known"), unknown);
        assert!(!is_found());
    }

    #[test]
    fn a_search_that_finds_nothing_is_not_repeated_at_once() {
        let copy = Copy::new(1 << 20);
        copy.keep(owner("unknown"), slot(&copy));
        let looks = AtomicU32::new(0);
        let search = || {
            copy.any(|_, _| {
                looks.fetch_add(1, Ordering::Relaxed);
                false
            })
        };
        assert!(!search() && !search());
        assert_eq!(looks.load(Ordering::Relaxed), 1);
        *copy.searched.lock().unwrap() = Some(Searched::Nothing(Instant::now() - SEARCH_INTERVAL));
        assert!(!search());
        assert_eq!(looks.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_question_is_a_use_and_a_load_is_none() {
        let mut copy = Copy::new(1 << 20);
        copy.began -= Duration::from_secs(100);
        for customer in ["asked", "loaded"] {
            copy.keep(owner(customer), slot(&copy));
        }
        copy.began -= Duration::from_secs(100);
        copy.get(owner("asked")).unwrap();
        for customer in ["asked", "loaded"] {
            copy.keep(owner(customer), slot(&copy));
        }
        let recent = copy.recent(Duration::from_secs(50));
        assert_eq!(recent, [OwnerKey::of(owner("asked"))]);
        assert_eq!(copy.recent(Duration::from_secs(150)).len(), 2);
    }

    #[test]
    fn a_state_that_is_replaced_takes_its_bodies_with_it() {
        let copy = Copy::new(1 << 20);
        let answer = Answer {
            slot: copy.keep(owner("a"), slot(&copy)),
            origin: Origin::Redis,
            age: Duration::ZERO,
        };
        let made = || Ok::<_, ()>("body".to_owned());
        copy.bodies.get(Form::State, &answer, 1.0, made).unwrap();
        assert!(copy.bodies.bytes() > 0);
        copy.keep(owner("a"), slot(&copy));
        assert_eq!(copy.bodies.bytes(), 0);
    }

    #[test]
    fn a_load_does_not_make_the_next_one_due() {
        let copy = Copy::new(1 << 20);
        let owner = Owner {
            customer: "a",
            resource: None,
        };
        let period = Duration::from_secs(30);
        let first = copy.keep(owner, slot(&copy));
        assert!(first.retry_is_due(period), "nothing was tried yet");
        let second = copy.keep(owner, slot(&copy));
        assert!(!second.retry_is_due(period), "the first one's try counts");
        assert!(second.retry_is_due(Duration::ZERO), "the period is over");
        // What the Edge API brought was asked for, although no slot was there before.
        let brought = slot(&copy);
        brought.retried(Some(Instant::now()));
        assert!(!brought.retry_is_due(period));
    }
}
