//! What is to be written of an owner whose entitlements were fetched from the Edge API.

use serde::Serialize;
use serde_json::value::RawValue;

use super::{Condition, Item, Rules, Step, steps};
use crate::keys::{Keys, Owner, What};
use crate::message::{self, Attributes, Millis, StateChange, TimeSource};
use crate::reader::{Pair, Stored};

/// A fetched owner.
#[derive(Debug)]
pub struct Fetched {
    pub step: Step,
    /// How many entitlements it has.
    pub entitlements: usize,
    /// The source gives the time since which the entitlements are true. If it does not, they are written only where
    /// nothing is stored.
    pub dated: bool,
}

impl Fetched {
    /// What Redis would hold if nothing else were written.
    pub fn stored(&self, keys: &Keys) -> Stored {
        let mut stored = Stored::default();
        for item in &self.step.items {
            let pair = Pair {
                value: Some(item.value.clone()),
                timestamp: Some(item.at.to_string()),
            };
            match keys.read(&item.key).map(|key| key.what) {
                Some(What::Entitlements) => stored.entitlements = pair,
                Some(What::Metadata) => stored.metadata = pair,
                Some(What::FeatureUsage(feature)) => {
                    stored.usages.insert(feature.to_owned(), pair);
                }
                Some(What::CreditUsage(_) | What::Tombstone) | None => {}
            }
        }
        stored
    }
}

/// Why an answer plans no step.
#[derive(Debug, PartialEq, Eq)]
pub enum NotPlanned {
    /// It lists credit entitlements, which the layout cannot hold: SDKs load such a customer themselves.
    Credits,
    /// The reason names no values.
    Malformed(String),
}

/// How far a time of the source may lie ahead of the request that asked for it.
const MAX_AHEAD_MS: Millis = 5 * 60 * 1000;

/// Plans the one step that writes what was fetched at `asked`. The answer is read as the event that would bring it, so
/// that there is one mapping. `rules.invalidate` does not matter: what was fetched is the state itself.
pub fn fetched(
    keys: &Keys,
    owner: Owner<'_>,
    entitlements: &RawValue,
    asked: Millis,
    rules: Rules,
) -> Result<Fetched, NotPlanned> {
    let malformed = |reason: String| {
        NotPlanned::Malformed(format!("the answer of the Edge API is malformed: {reason}"))
    };
    let nothing = || NotPlanned::Malformed("the answer of the Edge API plans nothing".into());
    let body = event(owner, entitlements).map_err(|error| malformed(error.to_string()))?;
    let reading = message::read(&body, &Attributes::default())
        .map_err(|it| malformed(it.reason.to_string()))?;
    let [change] = reading.changes.as_slice() else {
        return Err(nothing());
    };
    let StateChange::SetCustomer {
        entitlements,
        credits,
        ..
    } = &change.state
    else {
        return Err(nothing());
    };
    if !credits.is_empty() && !rules.omit_credits {
        return Err(NotPlanned::Credits);
    }
    let rules = Rules {
        invalidate: false,
        ..rules
    };
    // The steps of one answer are of one owner, so one atomic step does them all.
    let step = steps(keys, &change.state, rules)
        .into_iter()
        .reduce(|mut all, step| {
            all.items.extend(step.items);
            all
        });
    let mut step = step.ok_or_else(nothing)?;
    // This answer holds no reason why a customer as a whole is denied. None is not "no reason".
    let metadata = keys.metadata(owner);
    step.items.retain(|item| item.key != metadata);
    for item in &mut step.items {
        restrict(item, asked);
    }
    // A tombstone keeps out what was sent before the purge. This was asked for afterwards, as an
    // SDK does on its miss; its items keep the times of their source.
    step.at = asked;
    Ok(Fetched {
        step,
        entitlements: entitlements.len(),
        dated: change.time == TimeSource::NewestEntitlement,
    })
}

/// Restricts what an item may replace by what its source knows of its time. Without a time it is
/// written only where nothing is stored. A time ahead of the request comes from a wrong clock.
fn restrict(item: &mut Item, asked: Millis) {
    if item.at == 0 {
        item.condition = Condition::Absent;
        item.at = asked;
    } else if item.at > asked.saturating_add(MAX_AHEAD_MS) {
        item.at = asked;
    }
}

/// The event in the GraphQL shape.
fn event(owner: Owner<'_>, entitlements: &RawValue) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Body<'a> {
        data: Data<'a>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Data<'a> {
        entitlements_updated: Event<'a>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Event<'a> {
        customer_id: &'a str,
        resource_id: Option<&'a str>,
        entitlements: &'a RawValue,
    }
    serde_json::to_string(&Body {
        data: Data {
            entitlements_updated: Event {
                customer_id: owner.customer,
                resource_id: owner.resource,
                entitlements,
            },
        },
    })
}
