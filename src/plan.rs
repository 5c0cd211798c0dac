//! From a [`StateChange`] to what is to be written: the meaning of the service. Pure.
//!
//! Values are byte for byte what the vendor's SDK 3.95 writes itself: same fields, same order, same
//! omissions.

mod coalesce;
mod predict;
mod value;

pub use coalesce::coalesce;
pub use predict::{Fate, ItemFate};

use crate::keys::{Keys, Owner};
use crate::message::{Metered, Millis, StateChange};

/// What is done to one owner in one atomic step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub action: Action,
    /// When the change was true at its source; a purge deletes what is as old or older.
    pub at: Millis,
    /// While this key exists an SDK process is writing, and the step is refused.
    pub lock: String,
    /// A step older than what this key holds is stale.
    pub tombstone: String,
    pub items: Vec<Item>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    SetCustomer,
    /// Only if this customer key is cached: readers load an uncached customer whole.
    UpdateUsage {
        customer: String,
    },
    /// The items are deleted, unless they are newer than the purge.
    Purge,
}

/// A value, its key, and when it was true at its source. The timestamp is written beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub key: String,
    pub at: Millis,
    pub value: String,
}

/// The steps of one change, one for each owner it concerns.
pub fn steps(keys: &Keys, change: &StateChange<'_>) -> Vec<Step> {
    match change {
        StateChange::SetCustomer {
            owner,
            entitlements,
            access_denied_reason,
            at,
        } => {
            let owner = owner.as_owner();
            let each = value::last_of_each(entitlements);
            let mut items = Vec::with_capacity(2 + each.len());
            items.push(Item {
                key: keys.entitlements(owner),
                at: *at,
                value: value::entitlements(&each),
            });
            items.push(Item {
                key: keys.metadata(owner),
                at: *at,
                value: value::metadata(access_denied_reason.as_deref()),
            });
            for entitlement in each {
                let Some(feature) = entitlement.feature.as_ref().filter(|it| it.is_metered())
                else {
                    continue;
                };
                items.push(Item {
                    key: keys.feature_usage(owner, &feature.id),
                    // Without a time of its own it is as old as the message; the write rule
                    // protects a newer usage.
                    at: entitlement.usage_at.unwrap_or(*at),
                    value: value::usage(&entitlement.usage),
                });
            }
            vec![step(keys, owner, Action::SetCustomer, *at, items)]
        }
        StateChange::UpdateUsage {
            owner,
            of,
            usage,
            at,
        } => {
            let owner = owner.as_owner();
            let item = Item {
                key: match of {
                    Metered::Feature(feature) => keys.feature_usage(owner, feature),
                    Metered::Credit(currency) => keys.credit_usage(owner, currency),
                },
                at: *at,
                value: value::usage(usage),
            };
            let customer = keys.entitlements(owner);
            vec![step(
                keys,
                owner,
                Action::UpdateUsage { customer },
                *at,
                vec![item],
            )]
        }
        StateChange::Purge { owners, at } => owners
            .iter()
            .map(|owner| {
                let owner = owner.as_owner();
                let items = [keys.entitlements(owner), keys.metadata(owner)]
                    .map(|key| Item {
                        key,
                        at: *at,
                        value: String::new(),
                    })
                    .into();
                step(keys, owner, Action::Purge, *at, items)
            })
            .collect(),
        StateChange::Nothing => Vec::new(),
    }
}

fn step(keys: &Keys, owner: Owner<'_>, action: Action, at: Millis, items: Vec<Item>) -> Step {
    Step {
        action,
        at,
        lock: keys.lock(owner),
        tombstone: keys.tombstone(owner),
        items,
    }
}
