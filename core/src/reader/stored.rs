//! The stored values of one owner, as a reader needs them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Kind, Map};

/// A value and its timestamp.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pair {
    pub value: Option<String>,
    pub timestamp: Option<String>,
}

/// The values of one customer, or of one of its resources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    pub entitlements: Pair,
    pub metadata: Pair,
    /// By feature.
    pub usages: BTreeMap<String, Pair>,
    /// The time of the customer, where the owner is one of its resources.
    pub customer_timestamp: Option<String>,
}

/// Returns the features of an entitlements value whose usage has a key of its own.
pub fn metered_features(map: Option<&str>) -> Vec<String> {
    let Map::Entries(entries) = Map::read(map) else {
        return Vec::new();
    };
    entries
        .into_iter()
        .filter(|(_, stored)| {
            let entry: Value = serde_json::from_str(stored.get()).unwrap_or_default();
            Kind::of(&entry["calculatedEntitlement"]["feature"]) == Kind::Metered
        })
        .map(|(feature, _)| feature)
        .collect()
}
