//! The Edge API as the source of customers, at a bounded pace.

use std::time::Duration;

use entitlement_sync::config::Config;
use entitlement_sync::edge::{Edge, Unloaded};
use entitlement_sync::keys::Keys;
use entitlement_sync::message::{self, Attributes, Millis, StateChange, TimeSource};
use entitlement_sync::plan::{self, Condition, Item, Rules, Step};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use super::{Bounds, Customer, Pace};
use crate::commands::messages::now;

/// Asks the Edge API for customers, and plans what Redis is to hold of them.
pub struct Source {
    edge: Edge,
    keys: Keys,
    rules: Rules,
    pace: Pace,
    stop: CancellationToken,
}

/// A customer as its source has it.
#[derive(Debug)]
pub struct Answer {
    pub step: Step,
    pub entitlements: usize,
    /// The source says since when the entitlements are true. If not, they are written only where
    /// nothing is stored.
    pub dated: bool,
}

#[derive(Debug)]
pub enum Trouble {
    /// The source does not know this customer.
    NotFound,
    /// It has credit entitlements, which the layout cannot hold: SDKs load it themselves.
    Credits,
    /// This customer cannot be had.
    Failed(String),
    /// Nor can this one, as the Edge API does not answer at all.
    Unreachable(String),
    /// Nor can any other.
    Refused(String),
    /// There was no time for it.
    Stopped,
}

/// Tries of one customer: about ten seconds where the server does not say how long to wait.
const TRIES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(300);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How far a time of the source may lie ahead of the request that asked for it.
const MAX_AHEAD_MS: Millis = 5 * 60 * 1000;

impl Source {
    pub fn new(config: &Config, keys: Keys, bounds: Bounds, stop: CancellationToken) -> Self {
        Self {
            edge: Edge::new(&config.edge),
            keys,
            rules: config.writes.rules,
            pace: Pace::new(Some(bounds.rate)),
            stop,
        }
    }

    /// Asks for one customer, trying again what may heal.
    pub async fn load(&self, customer: &Customer) -> Result<Answer, Trouble> {
        for attempt in 1.. {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Trouble::Stopped),
                () = self.pace.turn() => {}
            }
            let asked = now();
            let owner = customer.owner();
            let (text, after, reached) =
                match self.edge.entitlements(owner.customer, owner.resource).await {
                    Ok(entitlements) => return self.plan(customer, &entitlements, asked),
                    Err(Unloaded::NotFound) => return Err(Trouble::NotFound),
                    Err(Unloaded::Refused(text)) => return Err(Trouble::Refused(text)),
                    Err(Unloaded::Final(text)) => return Err(Trouble::Failed(text)),
                    Err(Unloaded::Passing {
                        text,
                        after,
                        reached,
                    }) => (text, after, reached),
                };
            if attempt >= TRIES {
                return Err(match reached {
                    true => Trouble::Failed(text),
                    false => Trouble::Unreachable(text),
                });
            }
            let own = FIRST_PAUSE * (1 << (attempt - 1));
            let own = own.mul_f64(0.5 + fastrand::f64() / 2.0);
            match after {
                // It speaks for all requests.
                Some(after) => self.pace.hold(after.min(LONGEST_PAUSE)),
                None => tokio::select! {
                    () = self.stop.cancelled() => return Err(Trouble::Stopped),
                    () = tokio::time::sleep(own) => {}
                },
            }
        }
        Err(Trouble::Stopped)
    }

    /// Reads the answer as the event that would bring it, so that there is one mapping.
    fn plan(
        &self,
        customer: &Customer,
        entitlements: &RawValue,
        asked: Millis,
    ) -> Result<Answer, Trouble> {
        let body = event(customer, entitlements).map_err(|it| Trouble::Failed(it.to_string()))?;
        let reading = message::read(&body, &Attributes::default()).map_err(|unreadable| {
            let reason = unreadable.reason;
            Trouble::Failed(format!("the answer of the Edge API is malformed: {reason}"))
        })?;
        let [change] = reading.changes.as_slice() else {
            return Err(Trouble::Failed("the answer plans nothing".into()));
        };
        let (change, source) = (&change.state, change.time);
        let StateChange::SetCustomer {
            entitlements,
            credits,
            ..
        } = change
        else {
            return Err(Trouble::Failed("the answer plans nothing".into()));
        };
        if !credits.is_empty() && !self.rules.omit_credits {
            return Err(Trouble::Credits);
        }
        let rules = Rules {
            invalidate: false,
            ..self.rules
        };
        // The steps of one answer are of one owner, so one atomic step does them all.
        let steps = plan::steps(&self.keys, change, rules);
        let step = steps.into_iter().reduce(|mut all, step| {
            all.items.extend(step.items);
            all
        });
        let Some(mut step) = step else {
            return Err(Trouble::Failed("the answer plans nothing".into()));
        };
        // This answer holds no reason why a customer as a whole is denied. None is not "no reason".
        let metadata = self.keys.metadata(customer.owner());
        step.items.retain(|item| item.key != metadata);
        for item in &mut step.items {
            restrict(item, asked);
        }
        // A tombstone keeps out what was sent before the purge. This was asked for afterwards, as an
        // SDK does on its miss; its items keep the times of their source.
        step.at = asked;
        Ok(Answer {
            step,
            entitlements: entitlements.len(),
            dated: source == TimeSource::NewestEntitlement,
        })
    }
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
fn event(customer: &Customer, entitlements: &RawValue) -> serde_json::Result<String> {
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
    let owner = customer.owner();
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
