//! What Redis must hold after messages that are applied one after the other: the write rule of docs/compatibility.md,
//! written once more, in the order of delivery and without a thought for what might happen at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{Dump, Fact, Item, Wrong};

#[derive(Debug, Default)]
pub struct InOrder {
    stored: BTreeMap<String, Stored>,
    tombstones: BTreeMap<String, (u64, usize)>,
    /// Spans of sending, by their beginnings, as which times that are ahead are told.
    sent: BTreeMap<u64, u64>,
}

#[derive(Debug)]
struct Stored {
    at: u64,
    value: Arc<str>,
    owner: usize,
}

impl InOrder {
    /// `key` is that of the owner's entitlements.
    pub fn apply(&mut self, key: &str, owner: usize, fact: &Fact) {
        let tombstone = self.tombstones.get(key).map(|(at, _)| *at);
        let purged = |at: u64| tombstone.is_some_and(|tombstone| tombstone > at);
        match fact {
            Fact::Set {
                at,
                entitlements,
                metadata,
                usages,
            } if !purged(*at) => {
                self.put(key.to_owned(), owner, *at, entitlements);
                self.put(format!("{key}:metadata"), owner, *at, metadata);
                self.put_all(key, owner, usages);
            }
            Fact::Usage(item) if !purged(item.at) && self.stored.contains_key(key) => {
                self.put_all(key, owner, std::slice::from_ref(item));
            }
            Fact::Set { .. } | Fact::Usage(_) => {}
            Fact::Purge { at } => {
                for key in [key.to_owned(), format!("{key}:metadata")] {
                    if self.stored.get(&key).is_some_and(|it| it.at <= *at) {
                        self.stored.remove(&key);
                    }
                }
                let newest = tombstone.unwrap_or(0).max(*at);
                self.tombstones.insert(key.to_owned(), (newest, owner));
            }
            // SDK processes do not see tombstones.
            Fact::Sdk {
                at,
                entitlements,
                usages,
                ..
            } => {
                self.put(key.to_owned(), owner, *at, entitlements);
                self.put_all(key, owner, usages);
            }
            Fact::SdkUsage { item, .. } => self.put_all(key, owner, std::slice::from_ref(item)),
        }
    }

    /// Times of `from` are those of sending, until `to`.
    pub fn sent(&mut self, from: u64, to: u64) {
        self.sent.insert(from, to);
    }

    fn is_at(&self, told: u64, found: u64) -> bool {
        let to = self.sent.get(&told).copied().unwrap_or(told);
        (told..=to).contains(&found)
    }

    fn put_all(&mut self, key: &str, owner: usize, items: &[Item]) {
        for item in items {
            let key = format!("{key}{}", item.of.suffix());
            if item.only_if_absent && self.stored.contains_key(&key) {
                continue;
            }
            self.put(key, owner, item.at, &item.value);
        }
    }

    fn put(&mut self, key: String, owner: usize, at: u64, value: &Arc<str>) {
        if self.stored.get(&key).is_none_or(|it| it.at <= at) {
            let value = value.clone();
            self.stored.insert(key, Stored { at, value, owner });
        }
    }

    /// Compares every key but those of the `loose` owners.
    pub fn judge(
        &self,
        found: &Dump,
        loose: &BTreeSet<usize>,
        history: &BTreeMap<usize, Vec<String>>,
    ) -> Vec<Wrong> {
        let mut left: BTreeMap<&str, &str> = found
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let mut wrong = Vec::new();
        let mut report =
            |key: &str, what, expected: String, found: String, owner: Option<usize>| {
                wrong.push(Wrong {
                    key: key.to_owned(),
                    what,
                    expected: shorten(&expected),
                    found: shorten(&found),
                    history: owner
                        .and_then(|owner| history.get(&owner).cloned())
                        .unwrap_or_default(),
                });
            };
        for (key, stored) in &self.stored {
            let value = left.remove(key.as_str());
            let stamp = left.remove(format!("{key}#timestamp").as_str());
            let at = stamp.and_then(|stamp| stamp.parse::<u64>().ok());
            if value.is_some() != stamp.is_some() {
                let found = format!("{stamp:?}: {value:?}");
                report(key, "torn", "both".into(), found, Some(stored.owner));
                continue;
            }
            let is_at = at.is_some_and(|at| self.is_at(stored.at, at));
            let is_right = is_at && value == Some(&*stored.value);
            if !is_right && !loose.contains(&stored.owner) {
                let what = match at {
                    Some(at) if at >= stored.at => "wrong",
                    _ => "lost",
                };
                let expected = format!("{}: {}", stored.at, stored.value);
                let found = format!("{stamp:?}: {value:?}");
                report(key, what, expected, found, Some(stored.owner));
            }
        }
        for (key, (at, owner)) in &self.tombstones {
            let key = format!("{key}#purged");
            let stamp = left.remove(key.as_str());
            let found = stamp.and_then(|it| it.parse().ok());
            let is_right = found.is_some_and(|found| self.is_at(*at, found));
            if !is_right && !loose.contains(owner) {
                let found = format!("{stamp:?}");
                report(&key, "wrong", at.to_string(), found, Some(*owner));
            }
        }
        if loose.is_empty() {
            for (key, value) in left {
                report(key, "unexpected", "nothing".into(), value.to_owned(), None);
            }
        }
        wrong
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(160).collect()
}
