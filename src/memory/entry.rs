//! The entries of the journal and of snapshots, as JSON. Readers skip fields that they do not know.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::table::{Cell, owner_of, suffix_of};
use crate::keys;
use crate::message::Millis;
use crate::plan::{Action, Condition, Item, Step};

/// One entry.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum Entry<'a> {
    /// A step that changed something, or confirmed what is there.
    #[serde(borrow)]
    Step(StepEntry<'a>),
    /// All that is stored of an owner.
    Owner(OwnerEntry),
    /// An owner was forgotten for want of room.
    Forgotten {
        #[serde(borrow)]
        owner: Cow<'a, str>,
        newest: Millis,
    },
    /// What had expired of an owner at a time was removed.
    Expired {
        #[serde(borrow)]
        owner: Cow<'a, str>,
        at: Millis,
    },
    /// The floors of one part of the store, see `Table::forget`.
    Floors {
        part: u32,
        floors: Vec<(u32, Millis)>,
    },
    /// The state was known to be true.
    Proven { at: Millis },
    /// A process began: from here on it may have messages in flight.
    Begun,
    /// The process ended after its drain: it has no message in flight.
    Ended,
    /// A message that was given up is kept.
    Letter(Letter),
    /// A kept message was deleted.
    LetterDeleted { id: u64 },
}

/// A step that was applied at `now`.
#[derive(Debug, Serialize, Deserialize)]
pub struct StepEntry<'a> {
    pub now: Millis,
    action: ActionName,
    at: Millis,
    #[serde(borrow)]
    owner: Cow<'a, str>,
    #[serde(borrow)]
    items: Vec<ItemEntry<'a>>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ActionName {
    Set,
    Usage,
    Purge,
}

#[derive(Debug, Serialize, Deserialize)]
struct ItemEntry<'a> {
    #[serde(borrow)]
    suffix: Cow<'a, str>,
    at: Millis,
    #[serde(borrow)]
    value: Cow<'a, str>,
}

impl<'a> StepEntry<'a> {
    /// Returns the entry of the items of a step that changed. Without any, it tells that the owner was true at `now`.
    pub fn new(step: &'a Step, changed: &[bool], now: Millis) -> Self {
        let owner = owner_of(step);
        let entry_of = |(item, is_changed): (&'a Item, &bool)| {
            is_changed.then(|| ItemEntry {
                suffix: suffix_of(owner, &item.key).into(),
                at: item.at,
                value: item.value.as_str().into(),
            })
        };
        Self {
            now,
            action: match step.action {
                Action::SetCustomer => ActionName::Set,
                Action::UpdateUsage { .. } => ActionName::Usage,
                Action::Purge => ActionName::Purge,
            },
            at: step.at,
            owner: owner.into(),
            items: step
                .items
                .iter()
                .zip(changed)
                .filter_map(entry_of)
                .collect(),
        }
    }

    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Returns the step. It has no conditions: they were met when it was applied.
    pub fn step(&self) -> Step {
        let owner = &*self.owner;
        Step {
            action: match self.action {
                ActionName::Set => Action::SetCustomer,
                ActionName::Usage => Action::UpdateUsage {
                    customer: owner.to_owned(),
                },
                ActionName::Purge => Action::Purge,
            },
            at: self.at,
            lock: String::new(),
            tombstone: keys::tombstone_of(owner),
            items: self
                .items
                .iter()
                .map(|item| Item {
                    key: [owner, &item.suffix].concat(),
                    at: item.at,
                    value: item.value.clone().into_owned(),
                    condition: Condition::NotOlder,
                })
                .collect(),
        }
    }
}

/// All that is stored of an owner.
#[derive(Debug, Serialize, Deserialize)]
pub struct OwnerEntry {
    pub owner: Box<str>,
    /// Its time, and the last millisecond of its life.
    pub tombstone: Option<(Millis, Millis)>,
    pub changed: Millis,
    /// When a restore found that changes of it may be missing; 0: it is certain.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub doubted_at: Millis,
    pub cells: Vec<CellEntry>,
}

// By reference, as serde calls it.
fn is_zero(at: &Millis) -> bool {
    *at == 0
}

#[derive(Debug, Serialize, Deserialize)]
pub struct CellEntry {
    pub suffix: Box<str>,
    pub value: Box<str>,
    pub at: Millis,
    pub expires: Millis,
}

impl From<&Cell> for CellEntry {
    fn from(cell: &Cell) -> Self {
        Self {
            suffix: cell.suffix.clone(),
            value: cell.value.clone(),
            at: cell.at,
            expires: cell.expires,
        }
    }
}

impl From<CellEntry> for Cell {
    fn from(entry: CellEntry) -> Self {
        Self {
            suffix: entry.suffix,
            value: entry.value,
            at: entry.at,
            expires: entry.expires,
        }
    }
}

/// A message that the worker gave up on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Letter {
    pub id: u64,
    pub message_id: String,
    pub reason: String,
    pub kind: String,
    pub receive_count: u32,
    pub sent_at: Option<Millis>,
    pub kept_at: Millis,
    pub body: String,
    pub type_attribute: Option<String>,
}
