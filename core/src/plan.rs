//! Plans the writes of a [`StateChange`]. Pure.
//!
//! Values equal those of the vendor's SDK 3.95 byte for byte: the same fields, order and
//! omissions.

mod coalesce;
mod fetched;
mod predict;
mod value;

pub use coalesce::{Position, coalesce};
pub use fetched::{Fetched, NotPlanned, fetched};
pub use predict::{Fate, Guards, Held, ItemFate};

use crate::keys::{Keys, Owner};
use crate::message::{Change, Credit, Metered, Millis, StateChange};

/// One change to the keys of one owner: atomic, unless a store divides it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub action: Action,
    /// The time of the change at its source; a purge deletes state of this time or older.
    pub at: Millis,
    /// The lock: while this key exists an SDK process is writing, and the step is refused.
    pub lock: String,
    /// The tombstone: a step older than its time is stale.
    pub tombstone: String,
    /// The entitlements first, then what a reader needs beside them.
    pub items: Vec<Item>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    SetCustomer,
    /// Applies the step only if this customer key is cached: readers load the whole of an uncached customer.
    UpdateUsage {
        customer: String,
    },
    /// Deletes the items, unless they are newer than the purge.
    Purge,
}

/// A value, its key, and its time at the source, which is written to the timestamp key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub key: String,
    pub at: Millis,
    pub value: String,
    pub condition: Condition,
}

/// The condition on the stored state for writing an item, in addition to the owner's tombstone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Condition {
    /// No newer state is stored.
    #[default]
    NotOlder,
    /// Neither a value nor a timestamp is stored.
    Absent,
    /// A timestamp is stored, and it is not newer.
    Present,
}

/// Restricts steps of a message that was sent longer ago than the lifetime of keys: where no timestamp is
/// stored, the order of states is unknown, so nothing is written. Purges are not restricted.
pub fn restrict_to_stored(steps: &mut [Step]) {
    for step in steps {
        if !matches!(step.action, Action::Purge) {
            step.items
                .retain(|item| item.condition != Condition::Absent);
            for item in &mut step.items {
                item.condition = Condition::Present;
            }
        }
    }
}

/// The configured rules for writing entitlements.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// `CACHE_UPDATE_POLICY=INVALIDATE`: entitlements are not written; their owner is purged.
    pub invalidate: bool,
    /// `CREDIT_ENTITLEMENTS=omit`: lists with credit entitlements are written without them.
    pub omit_credits: bool,
}

/// Plans the messages of one environment by the configured rules.
#[derive(Debug, Clone)]
pub struct Planner {
    pub keys: Keys,
    pub rules: Rules,
    /// Lifetime of keys in seconds; `None` where they do not expire.
    pub ttl_secs: Option<u32>,
}

impl Planner {
    /// Returns the steps of all changes of a message, in their order.
    pub fn all_steps(
        &self,
        changes: &[Change<'_>],
        sent: Option<Millis>,
        now: Millis,
    ) -> Vec<Step> {
        let steps = |change: &Change<'_>| self.steps(&change.state, sent, now);
        changes.iter().flat_map(steps).collect()
    }

    /// Returns the steps of a change whose message was sent at `sent`, if that is known.
    pub fn steps(&self, change: &StateChange<'_>, sent: Option<Millis>, now: Millis) -> Vec<Step> {
        let mut steps = steps(&self.keys, change, self.rules);
        let lives = self.ttl_secs.map(|secs| u64::from(secs) * 1000);
        if let (Some(sent), Some(lives)) = (sent, lives)
            && sent.saturating_add(lives) < now
        {
            restrict_to_stored(&mut steps);
            steps.retain(|step| !step.items.is_empty());
        }
        steps
    }
}

/// Returns the steps of one change, in the order to apply them.
pub fn steps(keys: &Keys, change: &StateChange<'_>, rules: Rules) -> Vec<Step> {
    match change {
        StateChange::SetCustomer {
            owner, credits, at, ..
        } if rules.invalidate || !(rules.omit_credits || credits.is_empty()) => {
            let owner = owner.as_owner();
            let mut steps = vec![purge(keys, owner, *at)];
            steps.extend(credits_step(keys, owner, credits, *at));
            steps
        }
        StateChange::SetCustomer {
            owner,
            entitlements,
            credits,
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
                condition: Condition::NotOlder,
            });
            items.push(Item {
                key: keys.metadata(owner),
                at: *at,
                value: value::metadata(access_denied_reason.as_deref()),
                condition: Condition::NotOlder,
            });
            for entitlement in each {
                let Some(feature) = entitlement.feature.as_ref().filter(|it| it.is_metered())
                else {
                    continue;
                };
                items.push(Item {
                    key: keys.feature_usage(owner, &feature.id),
                    // Without a time of its own it has the time of the message; the write rule
                    // protects a newer usage.
                    at: entitlement.usage_at.unwrap_or(*at),
                    value: value::usage(&entitlement.usage),
                    condition: match entitlement.usage_is_known {
                        true => Condition::NotOlder,
                        false => Condition::Absent,
                    },
                });
            }
            let mut steps = vec![step(keys, owner, Action::SetCustomer, *at, items)];
            steps.extend(credits_step(keys, owner, credits, *at));
            steps
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
                condition: Condition::NotOlder,
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
            .map(|owner| purge(keys, owner.as_owner(), *at))
            .collect(),
    }
}

/// Deletes the entitlements and metadata of an owner unless they are newer, and stores a tombstone.
fn purge(keys: &Keys, owner: Owner<'_>, at: Millis) -> Step {
    let items = [keys.entitlements(owner), keys.metadata(owner)].map(|key| Item {
        key,
        at,
        value: String::new(),
        condition: Condition::NotOlder,
    });
    step(keys, owner, Action::Purge, at, items.into())
}

/// Writes the usage of credit entitlements. Unlike a usage message it does not require that the
/// customer is cached: it replaces the entitlements that the layout cannot hold.
fn credits_step(keys: &Keys, owner: Owner<'_>, credits: &[Credit<'_>], at: Millis) -> Option<Step> {
    let mut items: Vec<Item> = Vec::new();
    for credit in credits {
        let (Some(currency), Some(usage)) = (&credit.currency, &credit.usage) else {
            continue;
        };
        let item = Item {
            key: keys.credit_usage(owner, currency),
            at: credit.usage_at.unwrap_or(at),
            value: value::usage(usage),
            condition: Condition::NotOlder,
        };
        // Of a currency that is listed twice, the last entry counts.
        items.retain(|other| other.key != item.key);
        items.push(item);
    }
    (!items.is_empty()).then(|| step(keys, owner, Action::SetCustomer, at, items))
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
