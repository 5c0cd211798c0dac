//! Combines the facts and the answer, and prints them as JSON.

use entitlement_sync::keys::{self, Keys, Owner};
use entitlement_sync::store::{AdminClient, StoreError};

use super::gather::{Found, Pair};
use crate::commands::when;
use entitlement_sync::reader::{self, Map, Reading, StoredUsage, millis};

/// Where the values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Redis,
    /// A file of SNAPSHOT_PATH.
    Snapshot,
}

impl Place {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Redis => "Redis",
            Self::Snapshot => "the snapshot",
        }
    }
}

pub struct Report<'a> {
    pub(super) place: Place,
    pub(super) owner: Owner<'a>,
    pub(super) feature: Option<&'a str>,
    pub(super) found: Found,
    pub(super) resources: Vec<Resource>,
    pub(super) now: u64,
    pub(super) map: Map,
    pub(super) entitlements: Vec<Reading>,
    /// Why an SDK asks the Edge API; empty: it answers from Redis.
    pub(super) misses: Vec<String>,
    /// Why 4.x asks it where 3.x does not.
    pub(super) misses_newer: Vec<String>,
}

/// A resource of the customer that is looked at.
pub struct Resource {
    pub(super) id: String,
    pub(super) at: Option<i64>,
    /// Why an SDK misses for it.
    pub(super) miss: Option<&'static str>,
}

impl Resource {
    /// Compares its timestamp with that of the customer.
    pub fn new(id: &str, at: Option<&str>, global: Option<&str>) -> Self {
        Self {
            id: id.to_owned(),
            miss: reader::resource_miss(at, global),
            at: at.and_then(millis),
        }
    }
}

/// Returns the resources found, and whether they are as new as the customer.
pub async fn resources(
    redis: &AdminClient,
    keys: &Keys,
    owner: Owner<'_>,
    found: &Found,
) -> Result<Vec<Resource>, StoreError> {
    let ids: Vec<&String> = found.searched.resources.iter().collect();
    let key = |id: &&String| {
        let resource = Some(id.as_str());
        keys::timestamp(&keys.entitlements(Owner { resource, ..owner }))
    };
    let timestamps = redis
        .values(&ids.iter().map(key).collect::<Vec<_>>())
        .await?;
    let global = found.entitlements.timestamp.as_deref();
    let resource = |(id, at): (&String, Option<String>)| Resource::new(id, at.as_deref(), global);
    Ok(ids.into_iter().zip(timestamps).map(resource).collect())
}

impl<'a> Report<'a> {
    pub fn new(
        place: Place,
        owner: Owner<'a>,
        feature: Option<&'a str>,
        found: Found,
        resources: Vec<Resource>,
        now: u64,
    ) -> Self {
        let map = Map::read(found.entitlements.value.as_deref());
        let usage_of = |feature: &str| match found.usages.get(feature) {
            Some(pair) => StoredUsage {
                value: pair.value.as_deref(),
                has_timestamp: pair.timestamp.is_some(),
            },
            None => StoredUsage::default(),
        };
        let entitlements: Vec<Reading> = match &map {
            Map::Entries(entries) => entries
                .iter()
                .filter(|(id, _)| feature.is_none_or(|feature| feature == id))
                .map(|(id, stored)| Reading::of(id, stored.get(), usage_of, now as f64))
                // A request for one feature treats a value that is false in JavaScript as missing.
                .filter(|it| feature.is_none() || !it.entitlement.is_falsy())
                .collect(),
            Map::Missing | Map::Unreadable(_) => Vec::new(),
        };
        let mut misses = Vec::new();
        match &map {
            Map::Missing => misses.push(format!("it has no entitlements in {}", place.as_str())),
            Map::Unreadable(why) => misses.push(format!("its entitlements value {why}")),
            Map::Entries(_) => {}
        }
        if owner.resource.is_some() {
            let own = found.entitlements.timestamp.as_deref();
            let global = found.global_timestamp.as_deref();
            // Without entitlements of its own it is a miss in any case.
            if let (Some(miss), Map::Entries(_)) = (reader::resource_miss(own, global), &map) {
                misses.push(miss.to_owned());
            }
        }
        let mut misses_newer = Vec::new();
        if found.entitlements.value.is_some() && found.entitlements.timestamp.is_none() {
            misses_newer.push("its entitlements have no timestamp".to_owned());
        }
        for entitlement in &entitlements {
            misses.extend(entitlement.misses.iter().cloned());
            misses_newer.extend(entitlement.misses_newer.iter().cloned());
        }
        Self {
            place,
            owner,
            feature,
            resources,
            now,
            map,
            entitlements,
            misses,
            misses_newer,
            found,
        }
    }

    /// Returns the stored text of a feature.
    pub(super) fn stored(&self, feature: &str) -> &str {
        let entries = match &self.map {
            Map::Entries(entries) => entries.as_slice(),
            Map::Missing | Map::Unreadable(_) => &[],
        };
        let found = entries.iter().find(|(id, _)| id == feature);
        found.map_or("", |(_, stored)| stored.get())
    }

    /// Whether an SDK would answer from the values alone.
    pub fn is_answered(&self) -> bool {
        self.misses.is_empty()
    }

    pub(super) fn name(&self) -> String {
        match self.owner.resource {
            Some(resource) => format!("{}, resource {resource}", self.owner.customer),
            None => self.owner.customer.to_owned(),
        }
    }

    pub(super) fn age(&self, timestamp: &str) -> Option<i64> {
        let at = millis(timestamp).filter(|at| *at != 0)?;
        Some(
            i64::try_from(self.now)
                .unwrap_or(i64::MAX)
                .saturating_sub(at),
        )
    }

    /// Returns the answer of an SDK for a feature without an entitlement.
    pub(super) fn absent(&self) -> &'static str {
        match &self.map {
            Map::Entries(entries) if entries.is_empty() => "CustomerNotFound",
            _ => "NoFeatureEntitlementInSubscription",
        }
    }

    /// Returns notes for the report.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for pair in self.found.pairs().filter(|pair| pair.is_torn()) {
            let (has, lacks) = match pair.value {
                Some(_) => ("a value", "no timestamp"),
                None => ("a timestamp", "no value"),
            };
            notes.push(format!("torn pair: {} has {has} and {lacks}", pair.name));
        }
        if let Some(ttl) = self.found.lock {
            notes.push(format!(
                "an SDK holds the lock, for {} at most: the worker writes nothing meanwhile",
                when::ttl(ttl)
            ));
        }
        if let Some(text) = &self.found.tombstone {
            notes.push(self.tombstone_note(text));
        }
        if self.entitlements.iter().any(|it| it.is_newer_layout) {
            notes.push(
                "layout of the vendor's service 3.0.0 or later: SDKs before 4.12.1 may misread it"
                    .into(),
            );
        }
        for Reading { entitlement, .. } in &self.entitlements {
            if let Some(usage) = entitlement.usage().filter(|usage| usage.is_over) {
                notes.push(format!(
                    "the usage period of {} is over: getMeteredEntitlement answers 0, getEntitlements {}",
                    entitlement.feature,
                    usage.stored.plain()
                ));
            }
        }
        if let Some(why) = &self.found.searched.left_out {
            notes.push(format!(
                "not scanned: resources, credits and usage that no entitlement names ({why})"
            ));
        }
        notes
    }

    fn tombstone_note(&self, text: &str) -> String {
        let Some(at) = millis(text) else {
            return "purged, at an invalid time".into();
        };
        let stored = self.found.entitlements.timestamp.as_deref();
        let than = match stored.and_then(millis) {
            Some(stored) if stored < at => {
                "; the stored state is older, so an SDK has loaded it since"
            }
            Some(_) => "; the stored state is newer",
            None => "",
        };
        format!("purged as of {}{than}", when::point(at))
    }

    /// Returns the pairs that exist, of one feature if requested.
    pub(super) fn shown_pairs(&self) -> impl Iterator<Item = &Pair> {
        let usage = self.feature.and_then(|id| self.found.usages.get(id));
        self.found.pairs().filter(move |pair| {
            let is_asked = self.feature.is_none()
                || pair.key == self.found.entitlements.key
                || usage.is_some_and(|usage| usage.key == pair.key);
            is_asked && pair.is_there()
        })
    }
}
