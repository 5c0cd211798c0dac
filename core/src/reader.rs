//! Computes the answer of an SDK from the state in Redis. Pure.
//!
//! The rules are those of `@stigg/node-server-sdk` 3.95.0 (`redisCacheService`, `entitlementsService`,
//! `entitlementDecisionService` in its `dist`), truthiness and all; a test asks it the same questions.
//! What 4.x does beyond that is read from the published `@stigg/cache-redis-store` 1.29.0.

mod datum;
mod entitlement;
mod fact;
mod flags;
mod graphql;
mod javascript;
mod object;
mod pack;
mod reading;
mod state;
mod stored;
mod time;

pub use datum::Datum;
pub use entitlement::{Access, Entitlement, Kind, NO_CUSTOMER, NO_FEATURE, Request, Usage};
pub use fact::Fact;
pub use flags::{Evaluated, Flag, NotEvaluated, flag, flags};
pub use graphql::{Incomplete, Listing, entitlements, entitlements_state, single};
pub use javascript::{millis, plain, truthy};
pub use reading::{Reading, StoredUsage};
pub use state::{Entry, Miss, State};
pub use stored::{Pair, Stored, metered_features};

use serde_json::Value;
use serde_json::value::RawValue;

use object::Object;

/// The entitlements value of an owner, if it is readable.
#[derive(Debug)]
pub enum Map {
    Missing,
    /// The error in the value.
    Unreadable(&'static str),
    Entries(Vec<(String, Box<RawValue>)>),
}

impl Map {
    pub fn read(text: Option<&str>) -> Self {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return Self::Missing;
        };
        if let Ok(Object(entries)) = serde_json::from_str(text) {
            return Self::Entries(entries);
        }
        // The result of `Object.entries` for other values.
        let values: Vec<Value> = match serde_json::from_str(text) {
            Ok(Value::Null) => return Self::Unreadable("is null"),
            Ok(Value::String(text)) => text.chars().map(|it| it.to_string().into()).collect(),
            Ok(Value::Array(values)) => values,
            Ok(_) => Vec::new(),
            Err(_) => return Self::Unreadable("is not JSON"),
        };
        let entry = |(at, value): (usize, &Value)| {
            Some((at.to_string(), serde_json::value::to_raw_value(value).ok()?))
        };
        Self::Entries(values.iter().enumerate().filter_map(entry).collect())
    }
}

/// Returns why a reader of a resource misses: its entitlements must be as new as those of the customer.
pub fn resource_miss(own: Option<&str>, global: Option<&str>) -> Option<&'static str> {
    match (own.and_then(millis), global.and_then(millis)) {
        (_, None) => Some("the customer itself has no timestamp, and a resource needs it"),
        (None, _) => Some("the entitlements of the resource have no timestamp"),
        (Some(own), Some(global)) if own < global => {
            Some("the resource is stale: the customer's own entitlements are newer")
        }
        _ => None,
    }
}
