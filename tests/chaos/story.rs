//! The histories: who gets which message in which order, all from the seed.
//!
//! A message is a [`Spec`]: what it says at its source, and how its body spells that. From the same spec come the body
//! that is sent and the [`Fact`](crate::model::Fact)s that the model gets, with the exact bytes that readers must find. The bytes are
//! written here by hand and share no code with the worker.

mod body;
mod clock;
mod owner;
mod spec;
mod value;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use fastrand::Rng;

pub use clock::{ahead, real_time};
pub use owner::Owner;
pub use spec::{Event, Metered, Set, Spec, Used};

pub const PREFIX: &str = "production";
/// The first source time; each message of the story is `STEP` later than the one before.
const BASE: u64 = 1_700_000_000_000;
pub const STEP: u64 = 10;
/// Customers with a steady stream of entitlements and no other events: they show that messages are applied.
pub const CANARIES: usize = 10;
/// Metered features; others are neither counted nor kept in keys of their own.
const METERED: u8 = 6;
const CREDITS: u8 = 2;
const PERIOD: (u64, u64) = (1_825_027_200_000, 1_827_619_200_000);

/// A message on its way into the queue.
#[derive(Debug, Clone)]
pub struct Emission {
    pub spec: Arc<Spec>,
    pub duplicate: bool,
}

pub struct Story {
    rng: Rng,
    pub owners: Vec<Owner>,
    /// The owners that messages are drawn from: all but the canaries.
    pub common: usize,
    /// The last time of each owner.
    last: Vec<u64>,
    pub clock: u64,
    pub seq: u64,
    /// An owner of whom the next messages tell: how many, and from when on their times are.
    burst: Option<(usize, u32, u64)>,
    position: u64,
    /// By position; what is far behind comes in a later round.
    waiting: BinaryHeap<Reverse<(u64, u64, bool)>>,
    specs: HashMap<u64, Arc<Spec>>,
}

impl Story {
    pub fn new(seed: u64) -> Story {
        let (owners, common) = owner::all();
        Story {
            rng: Rng::with_seed(seed),
            last: vec![BASE; owners.len()],
            owners,
            common,
            clock: BASE + 1_000_000,
            seq: 1,
            burst: None,
            position: 0,
            waiting: BinaryHeap::new(),
            specs: HashMap::new(),
        }
    }

    pub fn spec(&mut self, what: Event) -> Arc<Spec> {
        self.spec_ahead(what, None)
    }

    pub fn spec_ahead(&mut self, what: Event, ahead: Option<u64>) -> Arc<Spec> {
        let seq = self.next_seq();
        Arc::new(Spec { seq, what, ahead })
    }

    pub fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    fn once(spec: Arc<Spec>) -> Emission {
        Emission {
            spec,
            duplicate: false,
        }
    }

    /// Entitlements for everyone.
    pub fn load(&mut self) -> Vec<Emission> {
        (0..self.owners.len())
            .map(|owner| {
                let at = self.tick();
                let set = self.set(owner, at);
                Self::once(self.spec(Event::Set(set)))
            })
            .collect()
    }

    /// The next `count` messages in the order in which they are sent: reordered, repeated, late. The last round brings
    /// everything that is still behind.
    pub fn round(
        &mut self,
        count: usize,
        invalid: bool,
        oversize: usize,
        last: bool,
    ) -> Vec<Emission> {
        for number in 0..count {
            let large =
                oversize > 0 && number % (count / oversize + 1) == count / (2 * oversize + 1);
            let spec = self.next(invalid, large);
            let position = self.position + number as u64;
            let delay = match self.rng.u32(0..100) {
                0..60 => 0,
                60..88 => self.rng.u64(0..60),
                88..97 => self.rng.u64(0..1_500),
                _ => self.rng.u64(0..6_000),
            };
            let dead = matches!(spec.what, Event::Invalid(_));
            if !dead && self.rng.u32(0..100) < 14 {
                let again = match self.rng.u32(0..4) {
                    0 => 1,
                    1 | 2 => self.rng.u64(0..400),
                    _ => self.rng.u64(0..8_000),
                };
                self.waiting
                    .push(Reverse((position + delay + again, spec.seq, true)));
            }
            let delay = if dead { 0 } else { delay };
            self.waiting
                .push(Reverse((position + delay, spec.seq, false)));
            self.specs.insert(spec.seq, spec);
        }
        self.position += count as u64;
        let mut emissions = Vec::new();
        while let Some(Reverse((position, seq, duplicate))) = self.waiting.peek().copied() {
            if position >= self.position && !last {
                break;
            }
            self.waiting.pop();
            emissions.push(Emission {
                spec: self.specs[&seq].clone(),
                duplicate,
            });
        }
        emissions
    }

    fn next(&mut self, invalid: bool, large: bool) -> Arc<Spec> {
        let (owner, at) = self.owner_and_time();
        let what = match self.rng.u32(0..1000) {
            _ if large => {
                let mut set = self.set(owner, at);
                // About 470 bytes each, one in three near the limit of 1 MiB.
                set.bulk = if self.rng.u32(0..3) == 0 {
                    2_000
                } else {
                    self.rng.usize(200..1_200)
                };
                Event::Set(set)
            }
            0..370 => Event::Set(self.set(owner, at)),
            370..780 => Event::Usage {
                owner,
                of: Metered::Feature(self.rng.u8(0..METERED)),
                at,
            },
            780..880 => Event::Usage {
                owner,
                of: Metered::Credit(self.rng.u8(0..CREDITS)),
                at,
            },
            880..930 => Event::Purge {
                owners: vec![owner],
                at,
            },
            930..950 => {
                let mut owners: Vec<usize> =
                    (0..self.rng.usize(2..6)).map(|_| self.owner()).collect();
                owners.push(owner);
                owners.sort_unstable();
                owners.dedup();
                Event::Purge { owners, at }
            }
            950..960 => Event::Package,
            960..992 => Event::Unknown { owner },
            _ if invalid => Event::Invalid(self.rng.u8(0..4)),
            _ => Event::Unknown { owner },
        };
        let is_fast = |owner: &usize| self.owners[*owner].has_fast_clock();
        let ahead = match &what {
            // Such a time counts as newer than all others of these histories, so the rest is kept from it.
            Event::Purge { owners, .. } if !owners.iter().all(is_fast) => None,
            _ if is_fast(&owner) && self.rng.bool() => Some(ahead(&mut self.rng)),
            _ => None,
        };
        self.spec_ahead(what, ahead)
    }

    /// Now and then several messages in a row tell of one owner, in no order of their times: they meet in one batch.
    fn owner_and_time(&mut self) -> (usize, u64) {
        if self.burst.is_none() && self.rng.u32(0..100) < 4 {
            let owner = self.rng.usize(0..self.common);
            self.burst = Some((owner, self.rng.u32(3..8), self.clock));
        }
        match self.burst.take() {
            Some((owner, left, since)) => {
                if left > 1 {
                    self.burst = Some((owner, left - 1, since));
                }
                let at = since + self.rng.u64(0..8) * STEP;
                self.tick();
                self.last[owner] = self.last[owner].max(at);
                (owner, at)
            }
            None => {
                let owner = self.owner();
                (owner, self.time(owner))
            }
        }
    }

    /// A few are busy, so that their messages meet in one batch and in several workers.
    fn owner(&mut self) -> usize {
        match self.rng.u32(0..100) {
            0..15 => self.rng.usize(0..8),
            15..50 => self.rng.usize(0..150),
            _ => self.rng.usize(0..self.common),
        }
    }

    pub fn tick(&mut self) -> u64 {
        self.clock += STEP;
        self.clock
    }

    /// Mostly now; often equal to the last one of this owner, sometimes older.
    fn time(&mut self, owner: usize) -> u64 {
        let now = self.tick();
        let at = match self.rng.u32(0..100) {
            0..12 => self.last[owner],
            12..18 => self.last[owner].saturating_sub(self.rng.u64(1..200)),
            18..24 => now - self.rng.u64(0..20_000),
            _ => now,
        };
        self.last[owner] = self.last[owner].max(at);
        at
    }

    pub fn set(&mut self, owner: usize, at: u64) -> Set {
        let count = match self.rng.u32(0..20) {
            0 => 0,
            _ => self.rng.usize(1..=usize::from(METERED)),
        };
        let mut ids: Vec<u8> = (0..METERED).collect();
        self.rng.shuffle(&mut ids);
        let metered = ids[..count]
            .iter()
            .map(|&id| {
                let used = match self.rng.u32(0..20) {
                    0..7 => Used::Now,
                    7..10 => Used::Missing,
                    10..16 => Used::At(at - self.rng.u64(0..300)),
                    _ => Used::At(at + self.rng.u64(0..150)),
                };
                (id, used)
            })
            .collect();
        Set {
            owner,
            at,
            metered,
            denied: self.rng.u32(0..4) == 0,
            bulk: 0,
        }
    }

    pub fn canary(&mut self, number: u64) -> Emission {
        let owner = self.common + (number as usize % CANARIES);
        let at = self.tick();
        let set = Set {
            owner,
            at,
            metered: vec![(0, Used::Now)],
            denied: false,
            bulk: 0,
        };
        Self::once(self.spec(Event::Set(set)))
    }

    /// The last word on everyone, newer than all before, and than the time of sending: entitlements with all metered
    /// features.
    pub fn settle(&mut self) -> Vec<Emission> {
        self.clock = real_time() + 1_000;
        (0..self.owners.len())
            .map(|owner| {
                let at = self.tick();
                let set = Set {
                    owner,
                    at,
                    metered: (0..METERED).map(|id| (id, Used::Now)).collect(),
                    denied: owner.is_multiple_of(2),
                    bulk: 0,
                };
                Self::once(self.spec(Event::Set(set)))
            })
            .collect()
    }

    /// And then the usages that `wanted` names, and one feature of every third.
    pub fn settle_usages(&mut self, wanted: &[(usize, Metered)]) -> Vec<Emission> {
        self.clock += 1_000;
        let mut all: Vec<(usize, Metered)> = wanted.to_vec();
        let some = (0..self.common).step_by(3);
        all.extend(some.map(|owner| (owner, Metered::Feature((owner % 6) as u8))));
        all.into_iter()
            .map(|(owner, of)| {
                let at = self.tick();
                Self::once(self.spec(Event::Usage { owner, of, at }))
            })
            .collect()
    }

    /// A set as an SDK process has it from the API, with times of its own for every usage.
    pub fn refetched(rng: &mut Rng, owner: usize, at: u64) -> Set {
        let metered = (0..METERED)
            .filter_map(|id| {
                let older = rng.u64(0..50) * u64::from(id % 2);
                (rng.u32(0..4) > 0).then_some((id, Used::At(at - older)))
            })
            .collect();
        Set {
            owner,
            at,
            metered,
            denied: false,
            bulk: 0,
        }
    }
}
