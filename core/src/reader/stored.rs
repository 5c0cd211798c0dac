//! The stored values of one owner, as a reader needs them.

use std::collections::BTreeMap;

use super::{Entitlement, Kind, Map, StoredUsage};

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
        .filter(|(feature, stored)| {
            let read = Entitlement::read(feature, stored.get(), |_| StoredUsage::default(), 0.0);
            read.kind == Kind::Metered
        })
        .map(|(feature, _)| feature)
        .collect()
}
