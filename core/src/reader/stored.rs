//! What is stored of one owner: all that a reader needs to answer.

use std::collections::BTreeMap;

use super::{Entitlement, Kind, Map, StoredUsage};

/// A value and the timestamp beside it.
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
    /// When the customer itself was true, where the owner is one of its resources.
    pub customer_timestamp: Option<String>,
}

/// The features of an entitlements value whose usage is stored apart, under a key of its own.
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
