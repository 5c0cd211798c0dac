//! Holds the readable state of one owner, compact and complete enough to answer without Redis.

use std::ops::Range;

use serde_json::Value;

use super::entitlement::is_newer_layout;
use super::{
    Access, Entitlement, Kind, Map, NO_FEATURE, Request, Stored, StoredUsage, millis, resource_miss,
};

/// Why the stored state cannot answer, so that the Edge API is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Miss {
    /// There is no entitlements value.
    Absent,
    /// The entitlements value is unreadable.
    Unreadable,
    /// A value without its timestamp, which prevents comparisons.
    Torn,
    /// A resource that is older than its customer, or whose customer is missing.
    StaleResource,
    /// The usage of a metered feature is missing.
    Usage,
    /// An entitlement was valid until a time that has passed.
    Expired,
    /// A credit entitlement: its layout is not published.
    Credits,
}

impl Miss {
    pub const ALL: [Self; 7] = [
        Self::Absent,
        Self::Unreadable,
        Self::Torn,
        Self::StaleResource,
        Self::Usage,
        Self::Expired,
        Self::Credits,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Unreadable => "unreadable",
            Self::Torn => "torn",
            Self::StaleResource => "stale_resource",
            Self::Usage => "usage",
            Self::Expired => "expired",
            Self::Credits => "credits",
        }
    }
}

/// The parsed state of one owner.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Features, entries and usages, one after the other.
    text: Box<str>,
    entries: Box<[Held]>,
    updated_at: Option<i64>,
    denied: Option<Box<str>>,
    miss: Option<Miss>,
    expires_at: f64,
    /// Ends of usage periods, in order.
    turns: Box<[f64]>,
    has_credits: bool,
    has_metered: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Held {
    feature: Range<u32>,
    entry: Range<u32>,
    usage: Option<Range<u32>>,
    usage_at: Option<i64>,
    is_whole: bool,
}

/// An entitlement of a [`State`] at one time.
#[derive(Debug)]
pub struct Entry {
    pub entitlement: Entitlement,
    /// The time of its usage.
    pub usage_at: Option<i64>,
    /// Whether its usage is missing, so that it cannot be decided.
    pub is_whole: bool,
    /// It was valid until a time that has passed.
    pub is_expired: bool,
}

impl Entry {
    /// Decides whether the customer has access to the request. An expired entitlement is denied.
    pub fn decide(&self, request: &Request) -> Access {
        if self.is_expired {
            return Access::Denied(NO_FEATURE.to_owned());
        }
        if !self.is_whole {
            return Access::Unreadable("its usage is missing");
        }
        self.entitlement.decide(request)
    }
}

impl State {
    /// Parses the stored values, or returns why they cannot answer anything.
    pub fn read(stored: &Stored, is_resource: bool) -> Result<Self, Miss> {
        let entries = match Map::read(stored.entitlements.value.as_deref()) {
            Map::Missing => return Err(Miss::Absent),
            Map::Unreadable(_) => return Err(Miss::Unreadable),
            Map::Entries(entries) => entries,
        };
        let updated_at = stored.entitlements.timestamp.as_deref().and_then(millis);
        let own = stored.entitlements.timestamp.as_deref();
        let of_customer = stored.customer_timestamp.as_deref();
        if updated_at.is_none() {
            return Err(Miss::Torn);
        }
        if is_resource && resource_miss(own, of_customer).is_some() {
            return Err(Miss::StaleResource);
        }
        let mut building = Building::default();
        for (feature, entry) in entries {
            building.add(feature, entry.get(), stored)?;
        }
        let metadata = stored.metadata.value.as_deref();
        let metadata: Value = metadata
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let denied = metadata["accessDeniedReason"].as_str().map(Box::from);
        Ok(building.finish(updated_at, denied))
    }

    /// Returns the state of a customer without any entitlement and without a time.
    pub fn empty(denied: Option<&str>) -> Self {
        Building::default().finish(None, denied.map(Box::from))
    }

    /// Returns why the Edge API must be asked all the same, if it must.
    pub fn miss(&self, now: f64) -> Option<Miss> {
        self.miss
            .or((self.expires_at <= now).then_some(Miss::Expired))
    }

    /// Returns when an answer of now expires by time alone, in milliseconds since 1970.
    pub fn good_until(&self, now: f64) -> f64 {
        let turn = self.turns.iter().copied().find(|at| *at >= now);
        let turn = turn.unwrap_or(f64::INFINITY);
        if self.expires_at > now {
            turn.min(self.expires_at)
        } else {
            turn
        }
    }

    /// Returns the time of the entitlements at their source.
    pub fn updated_at(&self) -> Option<i64> {
        self.updated_at
    }

    /// Returns the metadata: why the whole customer is denied.
    pub fn denied(&self) -> Option<&str> {
        self.denied.as_deref()
    }

    /// Returns whether the entitlements include credits.
    pub fn has_credits(&self) -> bool {
        self.has_credits
    }

    /// Returns whether access depends on usage.
    pub fn has_metered(&self) -> bool {
        self.has_metered
    }

    /// Returns whether the customer has no entitlement.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the entitlement of a feature.
    pub fn find(&self, feature: &str, now: f64) -> Option<Entry> {
        let held = self
            .entries
            .iter()
            .find(|held| self.text(&held.feature) == feature)?;
        let entry = self.entry(held, now);
        // A request for one feature treats a value that is false in JavaScript as missing.
        (!entry.entitlement.is_falsy()).then_some(entry)
    }

    /// Returns the ids of all features, in stored order.
    pub fn features(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|held| self.text(&held.feature))
    }

    /// Returns all entitlements, in stored order.
    pub fn entries(&self, now: f64) -> impl Iterator<Item = Entry> {
        self.entries.iter().map(move |held| self.entry(held, now))
    }

    /// Returns its approximate bytes in memory.
    pub fn weight(&self) -> usize {
        size_of::<Self>()
            + self.text.len()
            + self.entries.len() * size_of::<Held>()
            + self.turns.len() * 8
    }

    fn entry(&self, held: &Held, now: f64) -> Entry {
        let usage = StoredUsage {
            value: held.usage.as_ref().map(|usage| self.text(usage)),
            has_timestamp: held.usage_at.is_some(),
        };
        let entitlement = Entitlement::read(
            self.text(&held.feature),
            self.text(&held.entry),
            |_| usage,
            now,
        );
        Entry {
            usage_at: held.usage_at,
            is_whole: held.is_whole,
            is_expired: entitlement.valid_until.is_some_and(|until| until <= now),
            entitlement,
        }
    }

    fn text(&self, range: &Range<u32>) -> &str {
        self.text
            .get(range.start as usize..range.end as usize)
            .unwrap_or_default()
    }
}

#[derive(Default)]
struct Building {
    text: String,
    entries: Vec<Held>,
    miss: Option<Miss>,
    expires_at: Option<f64>,
    turns: Vec<f64>,
    has_credits: bool,
    has_metered: bool,
}

impl Building {
    fn add(&mut self, feature: String, entry: &str, stored: &Stored) -> Result<(), Miss> {
        let value: Value = serde_json::from_str(entry).map_err(|_| Miss::Unreadable)?;
        let (feature, entry) = match is_newer_layout(&value) {
            true => older_layout(value).ok_or(Miss::Credits)?,
            false => (feature, entry.to_owned()),
        };
        let pair = stored.usages.get(&feature);
        let usage = pair.and_then(|pair| pair.value.as_deref());
        let usage_at = pair.and_then(|pair| millis(pair.timestamp.as_deref()?));
        let found = StoredUsage {
            value: usage,
            has_timestamp: usage_at.is_some(),
        };
        let read = Entitlement::read(&feature, &entry, |_| found, f64::NEG_INFINITY);
        let is_whole = read.misses.is_empty() && read.misses_newer.is_empty();
        if !is_whole {
            let miss = if usage.is_some() && usage_at.is_none() {
                Miss::Torn
            } else {
                Miss::Usage
            };
            self.miss.get_or_insert(miss);
        }
        if let Some(until) = read.valid_until {
            self.expires_at = Some(self.expires_at.map_or(until, |at| at.min(until)));
        }
        self.turns
            .extend(read.period_end().filter(|_| read.usage.is_some()));
        self.has_metered |= read.kind == Kind::Metered;
        self.has_credits |= read.credit_currency.is_some();
        self.entries.retain(|held| {
            self.text[held.feature.start as usize..held.feature.end as usize] != feature
        });
        let held = Held {
            feature: self.push(&feature),
            entry: self.push(&entry),
            usage: usage.map(|usage| self.push(usage)),
            usage_at,
            is_whole,
        };
        self.entries.push(held);
        Ok(())
    }

    /// Converts a position. Values of Redis have at most 512 MB; a total above 4 GB is cut, and its entries read as empty.
    fn push(&mut self, part: &str) -> Range<u32> {
        let start = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        self.text.push_str(part);
        start..u32::try_from(self.text.len()).unwrap_or(u32::MAX)
    }

    fn finish(mut self, updated_at: Option<i64>, denied: Option<Box<str>>) -> State {
        self.turns.sort_by(f64::total_cmp);
        self.turns.dedup();
        State {
            text: self.text.into(),
            entries: self.entries.into(),
            updated_at,
            denied,
            miss: self.miss,
            expires_at: self.expires_at.unwrap_or(f64::INFINITY),
            turns: self.turns.into(),
            has_credits: self.has_credits,
            has_metered: self.has_metered,
        }
    }
}

/// Converts an entry of the newer layout to the older one, with its feature; `None` for a credit.
fn older_layout(mut entry: Value) -> Option<(String, String)> {
    let usage = entry["usageData"].take();
    let mut usage = match usage {
        Value::Object(usage) => usage,
        _ => match entry["featureUsage"].take() {
            Value::Object(usage) => usage,
            _ => serde_json::Map::new(),
        },
    };
    let mut calculated = entry["calculatedEntitlement"].take();
    let kind = calculated["type"].as_str().unwrap_or("FEATURE");
    let feature = calculated["feature"]["id"].as_str()?.to_owned();
    if kind != "FEATURE" {
        return None;
    }
    for name in [
        "usagePeriodAnchor",
        "resetPeriod",
        "resetPeriodConfiguration",
    ] {
        let moved = calculated.get_mut(name).map(Value::take);
        if let Some(moved) = moved.filter(|moved| !moved.is_null()) {
            usage.entry(name).or_insert(moved);
        }
    }
    let normalized =
        serde_json::json!({"calculatedEntitlement": calculated, "featureUsage": usage});
    Some((feature, normalized.to_string()))
}

#[cfg(test)]
mod tests;
