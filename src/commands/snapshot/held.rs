//! Gathers what a file holds of one customer, or of one of its resources.

use std::collections::BTreeMap;

use entitlement_sync::keys::{KeyKind, Keys, Owner};
use entitlement_sync::memory::{Entry, OwnerEntry, StepEntry};
use entitlement_sync::message::Millis;
use entitlement_sync::plan::Action;
use entitlement_sync::reader::State;
use entitlement_sync::reads::CopyEntry;
use serde::Serialize;

/// What the records of a file say of an owner.
pub struct Held<'a> {
    pub keys: Keys,
    pub owner: Owner<'a>,
    /// All that is stored, as a snapshot of memory mode holds it.
    pub stored: Option<OwnerEntry>,
    /// The timestamp of the customer itself, where the owner is a resource.
    pub customer_at: Option<Millis>,
    /// The last known state, as a snapshot of a process with Redis holds it, and when it was known to be true.
    pub copied: Option<(State, Millis)>,
    /// What happened, as a journal holds it.
    pub changes: Vec<Change>,
    /// The resources of the customer, with the time of their entitlements. Empty where the owner is a resource.
    pub resources: BTreeMap<String, Option<Millis>>,
}

/// A change of one value, or of the owner as a whole.
#[derive(Serialize)]
pub struct Change {
    /// When the worker applied it; `None` where the journal does not say.
    pub applied_at: Option<Millis>,
    pub change: &'static str,
    /// For example `usage of seats`.
    pub name: String,
    /// The time at the source.
    pub at: Millis,
    pub value: Option<String>,
}

impl<'a> Held<'a> {
    pub fn new(keys: Keys, owner: Owner<'a>) -> Self {
        Self {
            keys,
            owner,
            stored: None,
            customer_at: None,
            copied: None,
            changes: Vec::new(),
            resources: BTreeMap::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.stored.is_none() && self.copied.is_none() && self.changes.is_empty()
    }

    /// Takes a record of the file, if it is about the owner.
    pub fn take(&mut self, record: &[u8]) {
        match serde_json::from_slice(record) {
            Ok(entry) => self.take_entry(entry),
            Err(_) => {
                if let Ok(copy) = serde_json::from_slice(record) {
                    self.take_copy(&copy);
                }
            }
        }
    }

    fn take_entry(&mut self, entry: Entry<'_>) {
        match entry {
            Entry::Owner(entry) => {
                let at = entry.cells.iter().find(|cell| cell.suffix.is_empty());
                let at = at.map(|cell| cell.at);
                if self.is_about(&entry.owner, at) {
                    self.stored = Some(entry);
                }
            }
            Entry::Step(step) => self.take_step(&step),
            Entry::Forgotten { owner, newest } => self.note(&owner, "forgotten", None, newest),
            Entry::Expired { owner, at } => self.note(&owner, "expired", Some(at), at),
            Entry::Floors { .. }
            | Entry::Proven { .. }
            | Entry::Begun
            | Entry::Ended
            | Entry::Letter(_)
            | Entry::LetterDeleted { .. } => {}
        }
    }

    /// Returns whether a key of entitlements is the owner's; notes the customer of it and its resources.
    fn is_about(&mut self, key: &str, at: Option<Millis>) -> bool {
        let Some(other) = self.keys.owner_of(key) else {
            return false;
        };
        self.is_owner(other, at)
    }

    fn is_owner(&mut self, other: Owner<'_>, at: Option<Millis>) -> bool {
        if other.customer != self.owner.customer {
            return false;
        }
        match (self.owner.resource, other.resource) {
            (None, Some(resource)) => {
                let newest = self.resources.entry(resource.to_owned()).or_default();
                *newest = at.max(*newest);
            }
            (Some(_), None) => self.customer_at = at,
            _ => {}
        }
        self.owner == other
    }

    fn take_step(&mut self, entry: &StepEntry<'_>) {
        let step = entry.step();
        let of_map = step.items.iter().find(|item| item.key == entry.owner());
        if !self.is_about(entry.owner(), of_map.map(|item| item.at)) {
            return;
        }
        let change = match step.action {
            Action::SetCustomer => "set",
            Action::UpdateUsage { .. } => "usage",
            Action::Purge => "purge",
        };
        if step.action == Action::Purge {
            self.note(entry.owner(), change, Some(entry.now), step.at);
            return;
        }
        for item in step.items {
            let name = self.name(&item.key);
            self.changes.push(Change {
                applied_at: Some(entry.now),
                change,
                name,
                at: item.at,
                value: Some(item.value),
            });
        }
    }

    fn note(&mut self, owner: &str, change: &'static str, applied_at: Option<Millis>, at: Millis) {
        if self.is_about(owner, None) {
            self.changes.push(Change {
                applied_at,
                change,
                name: "all".to_owned(),
                at,
                value: None,
            });
        }
    }

    fn take_copy(&mut self, copy: &CopyEntry<'_>) {
        let Some(state) = copy.state() else { return };
        let at = state.updated_at().and_then(|at| u64::try_from(at).ok());
        if self.is_owner(copy.owner(), at) {
            self.copied = Some((state, copy.known_at));
        }
    }

    /// Returns the display name of a key, as `inspect` shows it.
    pub fn name(&self, key: &str) -> String {
        match self.keys.read(key).map(|key| key.kind) {
            Some(KeyKind::Metadata) => "metadata".to_owned(),
            Some(KeyKind::FeatureUsage(feature)) => format!("usage of {feature}"),
            Some(KeyKind::CreditUsage(currency)) => format!("credit {currency}"),
            Some(KeyKind::Entitlements | KeyKind::Tombstone) | None => "entitlements".to_owned(),
        }
    }
}
