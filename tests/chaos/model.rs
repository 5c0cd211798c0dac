//! What Redis must hold.
//!
//! A run is a row of rounds. At the end of each, when the queue is empty and no worker has a message in flight, Redis is
//! read whole and judged; what was found and accepted is the **base** of the next round. So the model only has to think
//! about one round: the base, and the facts told since, each with the span of real time in which it was published (or,
//! for an SDK process, written).
//!
//! A fact from the queue is **sure** if it was published after the last loss of Redis' data in this round (or there was
//! none): it is applied at least once, at any time from its publication to the end of the round, in any order, any
//! number of times. If it was published before the loss it is **possible**: applied and forgotten, or applied after the
//! loss. An SDK's write is applied once, in its span; it is sure if its transaction saw the SDK's own lock held while it
//! was carried out. If that is not known, or the lock had expired, it is **doubtful**: that is the vendor's race and not
//! the worker's, and the model is generous with the few keys concerned. A loss clears the base and forgets SDK writes
//! before it.
//!
//! Times below are source times. `P` are the purges of the owner, `tomb` the base's tombstone.
//!
//! **Metadata** (only the queue writes it). Let `s` be the newest sure set (or base), `p` the newest sure purge (or
//! tombstone). Right is: any set told whose time is >= `s` and >= `p` (so the newest; of equal times any). Nothing is right
//! if there is no sure set, or any purge is >= `s`.
//!
//! **Entitlements** are the same for what the queue says, also measured against SDK writes: a set `t` must be >= every
//! sure SDK write. SDK writes know no tombstones ("SDK refetches do not see it and are not hindered"), so one with an
//! older time than a purge stands if it was written after the purge was applied. It is right if it is not older than the
//! newest sure set (unless a purge that may have been applied before the write keeps that set out), no sure purge >= its
//! time was published after the write, no later SDK write was as new, and each earlier and newer SDK write may
//! have been purged before it. Nothing is right if each sure set has a purge >= its time and each sure SDK write
//! has such a purge in this round.
//!
//! **Usage.** Nothing deletes usage, so the stored time only grows, and the value is right if it was told with exactly
//! its time and is not older than the newest item that must have been written. Those are: the base's; the sure SDK
//! writes; those of a sure set that no purge told is newer than (the step as a whole is measured against the
//! tombstone); and a sure usage update that no purge told is newer than, of an owner who was cached all the while: by
//! the base or by an SDK write that ended before the publication, and no purge of the round could delete that. Not right
//! are items that cannot have been written: older than the tombstone of the base (as a step), or a usage update of an owner whom nobody
//! can have cached in this round. Nothing is right if no item must have been written.
//!
//! An item that the message does not tell (`currentUsage` is null and has no time) is right only if the base holds no
//! usage. If its set must have been written, some usage must be stored, of whatever time.
//!
//! **Tombstone**: the newest sure purge, or a possible one that is newer.
//!
//! **Doubtful writes** `d`: right is also `d` itself and whatever was told with a time >= that of `d`, and for
//! entitlements nothing, if any purge is >= `d`.
//!
//! Each value must have its timestamp and each timestamp its value (torn otherwise), and there must be no other key. After the
//! last round everyone is told entitlements and usages newer than all before, in two steps with an empty queue between;
//! then no ambiguity is left, and `settled` compares every key with one value and time.
//!
//! A time that is **ahead** of the message counts as the time of sending, which is later than every other time of these
//! histories. It is told as the moment before its batch is sent; what is found to lie in that span is taken for it. Such
//! batches never share a millisecond.
//!
//! Not told in these histories: times of 0 ("unknown", always written), as they have no order.

mod history;
mod settled;
mod sorted;
mod usage;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::story::{Metered, Owner};

/// Microseconds since the start of the run.
pub type Moment = i64;
pub type Dump = HashMap<String, String>;

#[derive(Debug, Clone)]
pub struct Item {
    pub of: Metered,
    pub at: u64,
    pub value: Arc<str>,
    /// Not told, but made up where nothing is stored.
    pub only_if_absent: bool,
}

#[derive(Debug, Clone)]
pub enum Fact {
    Set {
        at: u64,
        entitlements: Arc<str>,
        metadata: Arc<str>,
        usages: Vec<Item>,
    },
    Usage(Item),
    Purge {
        at: u64,
    },
    Sdk {
        at: u64,
        entitlements: Arc<str>,
        usages: Vec<Item>,
        fenced: bool,
    },
    /// An SDK's write of which only the usage was new.
    SdkUsage {
        item: Item,
        fenced: bool,
    },
}

#[derive(Debug, Clone)]
struct Event {
    fact: Fact,
    from: Moment,
    to: Moment,
    seq: u64,
}

#[derive(Debug, Default, Clone)]
struct Base {
    entitlements: Option<(u64, Arc<str>)>,
    metadata: Option<(u64, Arc<str>)>,
    usages: BTreeMap<String, (u64, Arc<str>)>,
    tombstone: Option<u64>,
}

#[derive(Default)]
struct State {
    base: Base,
    events: Vec<Event>,
}

pub struct Model {
    owners: Vec<Owner>,
    states: Vec<State>,
    loss: Option<(Moment, Moment)>,
    /// Spans of the publications of messages whose times are ahead.
    ahead: Vec<(u64, u64)>,
    /// Usage keys of owners that were ever told.
    told: std::collections::BTreeSet<(usize, String)>,
}

#[derive(Debug, Clone, serde::Serialize)]
pub struct Wrong {
    pub key: String,
    /// `lost` (older than it must be, or missing), `torn`, `unexpected`, or `wrong`.
    pub what: &'static str,
    pub expected: String,
    pub found: String,
    pub history: Vec<String>,
}

/// If not right: whether something is lost, and what was expected.
type Verdict = Result<(), (bool, String)>;

/// What is found under one key and beside it.
#[derive(Debug, Clone, Copy)]
struct Found<'a> {
    value: Option<&'a str>,
    stamp: Option<&'a str>,
}

impl Found<'_> {
    fn is(&self, at: u64, value: &str) -> bool {
        self.value == Some(value) && self.at() == Some(at)
    }

    fn at(&self) -> Option<u64> {
        self.stamp?.parse().ok()
    }

    fn is_absent(&self) -> bool {
        self.value.is_none() && self.stamp.is_none()
    }

    fn is_torn(&self) -> bool {
        self.value.is_some() != self.stamp.is_some()
    }
}

fn max<T: Ord>(items: impl Iterator<Item = T>) -> Option<T> {
    items.max()
}

impl Model {
    pub fn new(owners: Vec<Owner>) -> Model {
        Model {
            states: owners.iter().map(|_| State::default()).collect(),
            owners,
            loss: None,
            ahead: Vec::new(),
            told: std::collections::BTreeSet::new(),
        }
    }

    /// Tells a fact before it can have any effect. `to` of what comes from the queue is not looked at.
    pub fn tell(&mut self, owner: usize, fact: Fact, from: Moment, to: Moment, seq: u64) {
        match &fact {
            Fact::Usage(item) | Fact::SdkUsage { item, .. } => {
                self.told.insert((owner, item.of.suffix()));
            }
            Fact::Set { usages, .. } | Fact::Sdk { usages, .. } => {
                for item in usages {
                    self.told.insert((owner, item.of.suffix()));
                }
            }
            Fact::Purge { .. } => {}
        }
        self.states[owner].events.push(Event {
            fact,
            from,
            to,
            seq,
        });
    }

    /// Messages whose times are ahead were sent from `from` to `to`, no others meanwhile. They are told with a time of
    /// `from`, and are stored with the time of sending.
    pub fn sent_ahead(&mut self, from: u64, to: u64) {
        self.ahead.push((from, to));
    }

    /// Puts the times of telling in the place of times of sending.
    pub fn by_time_told(&self, dump: &mut Dump) {
        for (key, time) in dump.iter_mut() {
            if !key.ends_with("#timestamp") && !key.ends_with("#purged") {
                continue;
            }
            let Ok(at) = time.parse::<u64>() else {
                continue;
            };
            let after = self.ahead.partition_point(|(from, _)| *from <= at);
            if let Some((from, to)) = after.checked_sub(1).map(|place| self.ahead[place])
                && at <= to
            {
                *time = from.to_string();
            }
        }
    }

    /// Redis was killed at `from` and came back without its data at `to`.
    pub fn lose(&mut self, from: Moment, to: Moment) {
        let from = self.loss.map_or(from, |(first, _)| first.min(from));
        self.loss = Some((from, to));
    }

    /// Credits that may be stored for their owners.
    pub fn credits(&self) -> Vec<(usize, Metered)> {
        let by_suffix: HashMap<String, Metered> = Metered::ALL
            .into_iter()
            .filter(|of| matches!(of, Metered::Credit(_)))
            .map(|of| (of.suffix(), of))
            .collect();
        self.told
            .iter()
            .filter_map(|(owner, suffix)| Some((*owner, *by_suffix.get(suffix)?)))
            .collect()
    }

    /// Judges Redis at the end of a round, and takes what it holds for the base of the next.
    pub fn judge(&mut self, dump: &Dump) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        let mut known = 0;
        for index in 0..self.owners.len() {
            known += self.judge_owner(index, dump, &mut wrong);
        }
        let total = dump.keys().filter(|key| !own_key(key)).count();
        if known != total {
            self.unexpected(dump, &mut wrong);
        }
        for index in 0..self.owners.len() {
            self.rebase(index, dump);
        }
        self.loss = None;
        wrong
    }

    fn judge_owner(&self, index: usize, dump: &Dump, wrong: &mut Vec<Wrong>) -> usize {
        let prefix = self.owners[index].key();
        let sorted = self.sort(index);
        let mut known = 0;
        let mut judge = |key: String, verdict: &dyn Fn(Found<'_>) -> Verdict| {
            let stamp_key = format!("{key}#timestamp");
            let found = Found {
                value: dump.get(&key).map(String::as_str),
                stamp: dump.get(&stamp_key).map(String::as_str),
            };
            known += usize::from(found.value.is_some()) + usize::from(found.stamp.is_some());
            let judged = if found.is_torn() {
                Err((false, "a value with its timestamp, or neither".to_owned()))
            } else {
                verdict(found)
            };
            if let Err((lost, expected)) = judged {
                wrong.push(Wrong {
                    what: match (found.is_torn(), lost) {
                        (true, _) => "torn",
                        (_, true) => "lost",
                        _ => "wrong",
                    },
                    expected,
                    found: describe(found),
                    history: self.history(index),
                    key,
                });
            }
        };
        judge(prefix.clone(), &|found| sorted.entitlements(found));
        judge(format!("{prefix}:metadata"), &|found| {
            sorted.metadata(found, self.base(index).metadata.as_ref())
        });
        for of in Metered::ALL {
            let suffix = of.suffix();
            judge(format!("{prefix}{suffix}"), &|found| {
                self.usage(index, &sorted, of, &suffix, found)
            });
        }
        let tombstone = dump.get(&format!("{prefix}#purged"));
        known += usize::from(tombstone.is_some());
        let tombstone = tombstone.map(|it| it.parse::<u64>().unwrap_or(u64::MAX));
        let sure = max(sorted.sure_purges());
        let told = |at: u64| {
            sorted.tombstone == Some(at) || sorted.purges.iter().any(|purge| purge.at == at)
        };
        let right = match tombstone {
            None => sure.is_none(),
            Some(at) => told(at) && sure.is_none_or(|sure| at >= sure),
        };
        if !right {
            wrong.push(Wrong {
                key: format!("{prefix}#purged"),
                what: "wrong",
                expected: format!("at least {sure:?}"),
                found: format!("{tombstone:?}"),
                history: self.history(index),
            });
        }
        known
    }

    fn base(&self, index: usize) -> Base {
        match self.loss {
            Some(_) => Base::default(),
            None => self.states[index].base.clone(),
        }
    }

    fn sure(&self, event: &Event) -> bool {
        self.loss.is_none_or(|(_, to)| event.from >= to)
    }

    /// `None`: lost with the data. Otherwise whether it is sure.
    fn fate(&self, event: &Event, fenced: bool) -> Option<bool> {
        match self.loss {
            Some((from, _)) if event.to < from => None,
            Some((_, to)) if event.from < to => Some(false),
            _ => Some(fenced),
        }
    }

    fn unexpected(&self, dump: &Dump, wrong: &mut Vec<Wrong>) {
        let mut known = std::collections::HashSet::new();
        for owner in &self.owners {
            let prefix = owner.key();
            let mut suffixes = vec![String::new(), ":metadata".to_owned()];
            suffixes.extend(Metered::ALL.map(Metered::suffix));
            for suffix in suffixes {
                known.insert(format!("{prefix}{suffix}"));
                known.insert(format!("{prefix}{suffix}#timestamp"));
            }
            known.insert(format!("{prefix}#purged"));
        }
        for key in dump
            .keys()
            .filter(|key| !known.contains(*key) && !own_key(key))
        {
            wrong.push(Wrong {
                key: key.clone(),
                what: "unexpected",
                expected: "no such key".into(),
                found: shorten(&dump[key]),
                history: Vec::new(),
            });
        }
    }

    fn rebase(&mut self, index: usize, dump: &Dump) {
        let prefix = self.owners[index].key();
        let pair = |suffix: &str| -> Option<(u64, Arc<str>)> {
            let value = dump.get(&format!("{prefix}{suffix}"))?;
            let stamp = dump.get(&format!("{prefix}{suffix}#timestamp"))?;
            Some((stamp.parse().ok()?, value.as_str().into()))
        };
        let base = Base {
            entitlements: pair(""),
            metadata: pair(":metadata"),
            usages: Metered::ALL
                .into_iter()
                .map(Metered::suffix)
                .filter_map(|suffix| Some((suffix.clone(), pair(&suffix)?)))
                .collect(),
            tombstone: dump
                .get(&format!("{prefix}#purged"))
                .and_then(|at| at.parse().ok()),
        };
        self.states[index] = State {
            base,
            events: Vec::new(),
        };
    }
}

/// What the worker keeps for itself.
fn own_key(key: &str) -> bool {
    use crate::story::PREFIX;
    key.strip_prefix(PREFIX)
        .is_some_and(|rest| rest == ":dead-letter" || rest == ":entitlement-sync")
}

fn describe(found: Found<'_>) -> String {
    match (found.stamp, found.value) {
        (None, None) => "nothing".into(),
        (stamp, value) => format!(
            "{}: {}",
            stamp.unwrap_or("no timestamp"),
            value.map_or("no value".into(), shorten)
        ),
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(160).collect()
}
