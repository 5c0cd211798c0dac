//! A message: its content at the source, and the facts that the model gets.

use std::sync::Arc;

use super::value::{self, Feature};
use super::{CREDITS, METERED, PERIOD};
use crate::model::{Fact, Item};

#[derive(Debug)]
pub struct Spec {
    pub seq: u64,
    pub what: Event,
    /// The source's clock is ahead: its times are this many milliseconds after the message is sent. They count as the
    /// time of sending.
    pub ahead: Option<u64>,
}

#[derive(Debug)]
pub enum Event {
    Set(Set),
    Usage { owner: usize, of: Metered, at: u64 },
    Purge { owners: Vec<usize>, at: u64 },
    Package,
    Unknown { owner: usize },
    Invalid(u8),
}

#[derive(Debug, Clone)]
pub struct Set {
    pub owner: usize,
    pub at: u64,
    /// Metered features, and what the message says of their usage.
    pub(super) metered: Vec<(u8, Used)>,
    pub(super) denied: bool,
    /// Further features, to make the body large.
    pub(super) bulk: usize,
}

/// The usage of a feature in a list of entitlements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Used {
    /// Without a time of its own.
    Now,
    At(u64),
    /// `currentUsage` is null, and no time is given: 0 where no usage is stored.
    Missing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metered {
    Feature(u8),
    Credit(u8),
}

impl Metered {
    pub const ALL: [Metered; (METERED + CREDITS) as usize] = [
        Metered::Feature(0),
        Metered::Feature(1),
        Metered::Feature(2),
        Metered::Feature(3),
        Metered::Feature(4),
        Metered::Feature(5),
        Metered::Credit(0),
        Metered::Credit(1),
    ];

    pub fn suffix(self) -> String {
        match self {
            Metered::Feature(feature) => format!(":f_feature-{feature}"),
            Metered::Credit(currency) => format!(":credit_currency-{currency}"),
        }
    }
}

impl Spec {
    pub fn kind(&self) -> &'static str {
        match &self.what {
            Event::Set(set) if set.bulk > 0 => "entitlements oversize",
            Event::Set(_) => "entitlements",
            Event::Usage { of, .. } => match of {
                Metered::Feature(_) => "usage",
                Metered::Credit(_) => "credit",
            },
            Event::Purge { owners, .. } if owners.len() > 1 => "purge of several",
            Event::Purge { .. } => "purge",
            Event::Package => "package published",
            Event::Unknown { .. } if self.is_unrecognised() => "unknown kind",
            Event::Unknown { .. } => "kind without effect",
            Event::Invalid(_) => "invalid",
        }
    }

    /// Of a kind that is published nowhere: acknowledged, and some of them are kept.
    pub fn is_unrecognised(&self) -> bool {
        matches!(self.what, Event::Unknown { .. }) && self.seq.is_multiple_of(2)
    }

    /// Beside an event of an unknown kind: its changes are applied, and some of these messages are kept too.
    pub fn has_unknown_beside(&self) -> bool {
        let has_changes = match &self.what {
            Event::Set(set) => set.bulk == 0,
            Event::Usage { .. } | Event::Purge { .. } => true,
            Event::Package | Event::Unknown { .. } | Event::Invalid(_) => false,
        };
        has_changes && self.seq % 13 == 7
    }

    /// The one owner that it is of.
    pub fn owner(&self) -> Option<usize> {
        match &self.what {
            Event::Set(set) => Some(set.owner),
            Event::Usage { owner, .. } => Some(*owner),
            _ => None,
        }
    }

    /// The time at its source, by a clock that is right.
    pub fn at(&self) -> Option<u64> {
        match &self.what {
            Event::Set(set) => Some(set.at),
            Event::Usage { at, .. } | Event::Purge { at, .. } => Some(*at),
            Event::Package | Event::Unknown { .. } | Event::Invalid(_) => None,
        }
    }

    /// Found in the body, so that a message in a dead-letter queue can be told.
    pub fn marker(&self) -> String {
        format!("chaos-{}", self.seq)
    }

    /// What the message says, of each owner, if it is sent at `sent`.
    pub fn facts(&self, sent: u64) -> Vec<(usize, Fact)> {
        let limited = |at: u64| if self.ahead.is_some() { sent } else { at };
        match &self.what {
            Event::Set(set) => {
                let set = match self.ahead {
                    Some(_) => set.told_at(sent, self.seq),
                    None => set.clone(),
                };
                vec![(set.owner, set.fact(self.seq))]
            }
            Event::Usage { owner, of, at } => vec![(
                *owner,
                Fact::Usage(Item {
                    of: *of,
                    at: limited(*at),
                    value: value::usage(value::current(self.seq, 0), value::periods(self.seq, *of)),
                    only_if_absent: false,
                }),
            )],
            Event::Purge { owners, at } => owners
                .iter()
                .map(|owner| (*owner, Fact::Purge { at: limited(*at) }))
                .collect(),
            Event::Package | Event::Unknown { .. } | Event::Invalid(_) => Vec::new(),
        }
    }
}

impl Set {
    pub(super) fn features(&self, seq: u64) -> Vec<Feature> {
        let mut features: Vec<Feature> = self
            .metered
            .iter()
            .enumerate()
            .map(|(place, (id, used))| {
                Feature::metered(*id, value::current(seq, place as u64), *used)
            })
            .collect();
        if seq.is_multiple_of(3) && !features.is_empty() {
            features.push(Feature::plain("flag", "BOOLEAN", seq));
            features.push(Feature::plain("plan", "ENUM", seq));
        }
        for number in 0..self.bulk {
            features.push(Feature::plain(&format!("bulk-{number}"), "BOOLEAN", seq));
        }
        features
    }

    /// The same, with another time; that of every other usage, where it has one, too.
    pub(super) fn told_at(&self, at: u64, seq: u64) -> Set {
        let mut set = Set { at, ..self.clone() };
        for (place, (_, used)) in set.metered.iter_mut().enumerate() {
            if matches!(used, Used::At(_)) && (seq as usize + place).is_multiple_of(2) {
                *used = Used::At(at);
            }
        }
        set
    }

    pub fn fact(&self, seq: u64) -> Fact {
        let features = self.features(seq);
        Fact::Set {
            at: self.at,
            entitlements: value::entitlements(&features),
            metadata: match self.reason(seq) {
                Some(reason) => format!(r#"{{"accessDeniedReason":"{reason}"}}"#).into(),
                None => r#"{"accessDeniedReason":null}"#.into(),
            },
            usages: self.usages(seq),
        }
    }

    pub fn entitlements(&self, seq: u64) -> Arc<str> {
        value::entitlements(&self.features(seq))
    }

    pub fn usages(&self, seq: u64) -> Vec<Item> {
        self.metered
            .iter()
            .enumerate()
            .map(|(place, (id, used))| {
                let current = match used {
                    Used::Missing => "0".to_owned(),
                    Used::Now | Used::At(_) => value::current(seq, place as u64),
                };
                Item {
                    of: Metered::Feature(*id),
                    at: match used {
                        Used::At(at) => *at,
                        Used::Now | Used::Missing => self.at,
                    },
                    value: value::usage(current, Some(PERIOD)),
                    only_if_absent: *used == Used::Missing,
                }
            })
            .collect()
    }

    pub(super) fn reason(&self, seq: u64) -> Option<String> {
        self.denied.then(|| format!("NoActiveSubscription-{seq}"))
    }
}
