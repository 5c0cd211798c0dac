//! Plans the writes of an owner whose entitlements were fetched from the Edge API.

use serde::Serialize;
use serde_json::value::RawValue;

use super::{Condition, Item, Rules, Step, steps};
use crate::keys::{KeyKind, Keys, Owner};
use crate::message::{self, Attributes, Millis, StateChange, TimeSource};
use crate::reader::{Pair, Stored};

/// A fetched owner.
#[derive(Debug)]
pub struct Fetched {
    pub step: Step,
    /// The number of its entitlements.
    pub entitlements: usize,
    /// Whether the source returns the time of the entitlements. If not, they are written only where
    /// nothing is stored.
    pub dated: bool,
}

impl Fetched {
    /// Returns the values that Redis would hold after only this write.
    pub fn stored(&self, keys: &Keys) -> Stored {
        let mut stored = Stored::default();
        for item in &self.step.items {
            let pair = Pair {
                value: Some(item.value.clone()),
                timestamp: Some(item.at.to_string()),
            };
            match keys.read(&item.key).map(|key| key.kind) {
                Some(KeyKind::Entitlements) => stored.entitlements = pair,
                Some(KeyKind::Metadata) => stored.metadata = pair,
                Some(KeyKind::FeatureUsage(feature)) => {
                    stored.usages.insert(feature.to_owned(), pair);
                }
                Some(KeyKind::CreditUsage(_) | KeyKind::Tombstone) | None => {}
            }
        }
        stored
    }
}

/// Why there is no step for an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum NotPlanned {
    /// The answer lists credit entitlements, which the layout cannot hold: SDKs load such a customer themselves.
    Credits,
    /// The answer is malformed. The reason names no values.
    Malformed(String),
}

/// How far a time of the source may be ahead of the request.
const MAX_AHEAD_MS: Millis = 5 * 60 * 1000;

/// Plans the one step that writes an answer fetched at `asked`. The answer is read as the event with the same state, so
/// that there is one mapping. `rules.invalidate` does not apply: the answer is the state itself.
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
    let nothing =
        || NotPlanned::Malformed("the answer of the Edge API has no state to write".into());
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
    // The steps of one answer concern one owner, so one step covers them all.
    let step = steps(keys, &change.state, rules)
        .into_iter()
        .reduce(|mut all, step| {
            all.items.extend(step.items);
            all
        });
    let mut step = step.ok_or_else(nothing)?;
    // This answer never contains the reason why the whole customer is denied. Its absence does not mean "no reason".
    let metadata = keys.metadata(owner);
    step.items.retain(|item| item.key != metadata);
    for item in &mut step.items {
        restrict(item, asked);
    }
    // A tombstone rejects state that was sent before the purge. This state was requested later, as an
    // SDK does on its miss; its items keep the times of their source.
    step.at = asked;
    Ok(Fetched {
        step,
        entitlements: entitlements.len(),
        dated: change.time == TimeSource::NewestEntitlement,
    })
}

/// Restricts the items that may be replaced. An item without a time from its source is
/// written only where nothing is stored. A time ahead of the request comes from a wrong clock.
fn restrict(item: &mut Item, asked: Millis) {
    if item.at == 0 {
        item.condition = Condition::Absent;
        item.at = asked;
    } else if item.at > asked.saturating_add(MAX_AHEAD_MS) {
        item.at = asked;
    }
}

/// Returns the event in the GraphQL shape.
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
