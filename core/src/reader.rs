//! What an SDK would answer from what Redis holds. Pure.
//!
//! The rules are those of `@stigg/node-server-sdk` 3.95.0 (`redisCacheService`, `entitlementsService`,
//! `entitlementDecisionService` in its `dist`), truthiness and all; a test asks it the same questions.
//! What 4.x does beyond that is read from the published `@stigg/cache-redis-store` 1.29.0.

mod javascript;
mod object;
mod stored;

pub use javascript::{millis, plain, truthy};
pub use stored::{Pair, Stored, metered_features};

use serde_json::Value;
use serde_json::value::RawValue;

use object::Object;

/// The entitlements value of an owner, as far as it can be read.
#[derive(Debug)]
pub enum Map {
    Missing,
    /// Why nothing can be made of it.
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
        // What `Object.entries` makes of the rest.
        let values: Vec<Value> = match serde_json::from_str(text) {
            Ok(Value::Null) => return Self::Unreadable("is null"),
            Ok(Value::String(text)) => text.chars().map(|it| it.to_string().into()).collect(),
            Ok(Value::Array(values)) => values,
            Ok(_) => Vec::new(),
            Err(_) => return Self::Unreadable("is no JSON"),
        };
        let entry = |(at, value): (usize, &Value)| {
            Some((at.to_string(), serde_json::value::to_raw_value(value).ok()?))
        };
        Self::Entries(values.iter().enumerate().filter_map(entry).collect())
    }
}

/// One entitlement, with what an SDK would say of it.
#[derive(Debug)]
pub struct Entitlement {
    pub feature: String,
    pub stored: Box<RawValue>,
    pub kind: Kind,
    pub limit: Value,
    pub unlimited: bool,
    pub soft_limit: bool,
    pub enum_values: Vec<String>,
    pub reset_period: Option<String>,
    /// Of metered features.
    pub usage: Option<Usage>,
    pub valid_until: Option<f64>,
    pub credit_currency: Option<String>,
    pub access: Access,
    /// Why it alone makes an SDK ask the Edge API.
    pub misses: Vec<String>,
    /// Why it makes 4.x do so, where 3.x does not.
    pub misses_newer: Vec<String>,
    /// Written by the vendor's service 3.0.0 or later.
    pub is_newer_layout: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Boolean,
    Numeric,
    Metered,
    Enum,
    /// Neither of these, or no entitlement at all.
    Unknown,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Numeric => "numeric",
            Self::Metered => "metered",
            Self::Enum => "enum",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Debug)]
pub struct Usage {
    pub stored: Value,
    /// `usagePeriodEnd` has passed: `getMeteredEntitlement` answers 0, `getEntitlements` what is
    /// stored.
    pub is_over: bool,
}

impl Usage {
    pub fn answered(&self) -> Value {
        if self.is_over {
            0.into()
        } else {
            self.stored.clone()
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    Granted,
    Denied(String),
    /// An SDK gives its fallback.
    Unreadable(&'static str),
}

/// A stored usage, beside its timestamp.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoredUsage<'a> {
    pub value: Option<&'a str>,
    pub has_timestamp: bool,
}

impl Entitlement {
    /// Reads an entry of the map. `usage_of` finds the usage key of a metered feature.
    pub fn read<'a>(
        feature: &str,
        stored: &RawValue,
        usage_of: impl Fn(&str) -> StoredUsage<'a>,
        now: f64,
    ) -> Self {
        let entry: Value = serde_json::from_str(stored.get()).unwrap_or_default();
        let calculated = &entry["calculatedEntitlement"];
        let of_feature = &calculated["feature"];
        let kind = kind(of_feature);
        let mut misses = Vec::new();
        let mut misses_newer = Vec::new();
        if calculated.is_null() {
            misses.push(format!("the entry of {feature} is no entitlement"));
        }
        let mut merged = entry["featureUsage"].clone();
        if kind == Kind::Metered {
            let usage = usage_of(feature);
            match usage.value.map(serde_json::from_str::<Value>) {
                None => misses.push(format!("the usage of {feature} is missing")),
                Some(Err(_)) => misses.push(format!("the usage of {feature} is no JSON")),
                Some(Ok(Value::Null)) => misses.push(format!("the usage of {feature} is null")),
                Some(Ok(value)) => merge(&mut merged, value),
            }
            if usage.value.is_some() && !usage.has_timestamp {
                misses_newer.push(format!("the usage of {feature} has no timestamp"));
            }
        }
        let valid_until = calculated["validUntil"].as_f64().filter(|at| *at != 0.0);
        if valid_until.is_some_and(|at| at <= now) {
            misses.push(format!("{feature} was valid until a time that has passed"));
        }
        let usage = (kind == Kind::Metered).then(|| Usage {
            stored: merged["currentUsage"].clone(),
            is_over: merged["usagePeriodEnd"]
                .as_f64()
                .is_some_and(|end| end != 0.0 && end < now),
        });
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let enum_values = calculated["enumValues"].as_array();
        Self {
            access: access(calculated, usage.as_ref(), &merged),
            feature: feature.to_owned(),
            stored: stored.to_owned(),
            kind,
            limit: calculated["usageLimit"].clone(),
            unlimited: truthy(&calculated["hasUnlimitedUsage"]),
            soft_limit: truthy(&calculated["hasSoftLimit"]),
            enum_values: enum_values
                .map_or_else(Vec::new, |values| values.iter().map(plain).collect()),
            // The newer layout has it beside the limit.
            reset_period: text(&merged["resetPeriod"]).or_else(|| text(&calculated["resetPeriod"])),
            usage,
            valid_until,
            credit_currency: text(&calculated["creditRate"]["currencyId"]),
            misses,
            misses_newer,
            is_newer_layout: !entry["usageData"].is_null() || !calculated["type"].is_null(),
        }
    }
}

impl Entitlement {
    /// Whether what is stored is false to JavaScript: asked for alone, an SDK takes it for none.
    pub fn is_falsy(&self) -> bool {
        let value: Value = serde_json::from_str(self.stored.get()).unwrap_or_default();
        !truthy(&value)
    }
}

fn kind(feature: &Value) -> Kind {
    let meter = &feature["meterType"];
    match feature["featureType"].as_str() {
        Some("BOOLEAN") => Kind::Boolean,
        Some("ENUM") => Kind::Enum,
        Some("NUMBER") if meter == "Incremental" || meter == "Fluctuating" => Kind::Metered,
        Some("NUMBER") => Kind::Numeric,
        _ => Kind::Unknown,
    }
}

/// `{...featureUsage, ...cachedUsage}`, with the old name of the end of a period.
fn merge(usage: &mut Value, mut cached: Value) {
    let Some(cached) = cached.as_object_mut() else {
        return;
    };
    let is_nil = |value: Option<&Value>| value.is_none_or(Value::is_null);
    if !is_nil(cached.get("nextResetDate")) && is_nil(cached.get("usagePeriodEnd")) {
        let end = cached.remove("nextResetDate").unwrap_or_default();
        cached.insert("usagePeriodEnd".to_owned(), end);
    }
    if !usage.is_object() {
        *usage = Value::Object(serde_json::Map::new());
    }
    if let Some(usage) = usage.as_object_mut() {
        usage.extend(std::mem::take(cached));
    }
}

/// `decideEntitlementPolicy`, with nothing requested.
fn access(calculated: &Value, usage: Option<&Usage>, merged: &Value) -> Access {
    let denied = |reason: &str| Access::Denied(reason.to_owned());
    if calculated.is_null() {
        return Access::Unreadable("no entitlement");
    }
    let feature = &calculated["feature"];
    if !truthy(feature) {
        return denied("NoFeatureEntitlementInSubscription");
    }
    let reason = &calculated["accessDeniedReason"];
    if truthy(reason) {
        return Access::Denied(plain(reason));
    }
    match kind(feature) {
        Kind::Boolean | Kind::Enum => return Access::Granted,
        Kind::Unknown => return Access::Unreadable("featureType is none that is known"),
        Kind::Numeric | Kind::Metered => {}
    }
    if feature["meterType"] == "None"
        || truthy(&calculated["hasUnlimitedUsage"])
        || truthy(&calculated["hasSoftLimit"])
    {
        return Access::Granted;
    }
    if !merged.is_object() {
        return Access::Unreadable("featureUsage is missing");
    }
    let current = match usage {
        Some(usage) => usage.answered(),
        None => merged["currentUsage"].clone(),
    };
    let limit = calculated["usageLimit"].as_f64().unwrap_or(0.0);
    if current.as_f64().is_some_and(|current| current <= limit) {
        Access::Granted
    } else {
        denied("RequestedUsageExceedingLimit")
    }
}

/// Why a reader of a resource misses: its entitlements must be as new as those of the customer.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(stored: &str, usage: Option<&str>) -> Entitlement {
        let raw = RawValue::from_string(stored.into()).expect("JSON");
        let usage = StoredUsage {
            value: usage,
            has_timestamp: true,
        };
        Entitlement::read("f", &raw, |_| usage, 1_000.0)
    }

    #[test]
    fn whatever_is_stored_is_read_without_a_panic() {
        for stored in [
            "null",
            "5",
            "\"x\"",
            "[]",
            "{}",
            "[1]",
            r#"{"calculatedEntitlement":5}"#,
            r#"{"calculatedEntitlement":{"feature":[]}}"#,
            r#"{"calculatedEntitlement":{"feature":{"featureType":"NUMBER","meterType":"Incremental"},"enumValues":{},"usageLimit":"x"},"featureUsage":7}"#,
        ] {
            for usage in [
                None,
                Some("null"),
                Some("x"),
                Some("[]"),
                Some("{}"),
                Some("7"),
            ] {
                let read = read(stored, usage);
                assert_ne!(read.access, Access::Granted, "{stored}");
            }
        }
    }
}
