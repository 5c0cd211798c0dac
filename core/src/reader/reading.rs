//! Reads a stored entry of the entitlements.

use serde_json::Value;

use super::entitlement::{Marks, Verdict};
use super::javascript::truthy;
use super::{Datum, Entitlement, Fact, Kind};

/// An entry of the entitlements, and why it may not suffice.
#[derive(Debug)]
pub struct Reading {
    pub entitlement: Entitlement<'static>,
    /// The stored entry.
    pub entry: Value,
    pub credit_currency: Option<String>,
    /// Why this entitlement makes an SDK ask the Edge API.
    pub misses: Vec<String>,
    /// Why it makes SDK 4.x ask the Edge API, where 3.x does not.
    pub misses_newer: Vec<String>,
    /// Written by the vendor's service 3.0.0 or later.
    pub is_newer_layout: bool,
}

/// A stored usage, with its timestamp.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoredUsage<'a> {
    pub value: Option<&'a str>,
    pub has_timestamp: bool,
}

impl Reading {
    /// Reads an entry. `usage_of` finds the usage key of a metered feature.
    pub fn of<'a>(
        feature: &str,
        stored: &str,
        usage_of: impl Fn(&str) -> StoredUsage<'a>,
        now: f64,
    ) -> Self {
        let entry = serde_json::from_str(stored).unwrap_or_default();
        Self::of_value(feature, entry, usage_of, now)
    }

    pub(super) fn of_value<'a>(
        feature: &str,
        entry: Value,
        usage_of: impl Fn(&str) -> StoredUsage<'a>,
        now: f64,
    ) -> Self {
        let calculated = &entry["calculatedEntitlement"];
        let kind = Kind::of(&calculated["feature"]);
        let mut misses = Vec::new();
        let mut misses_newer = Vec::new();
        if calculated.is_null() {
            misses.push(format!("the entry of {feature} is not an entitlement"));
        }
        let mut merged = entry["featureUsage"].clone();
        if kind == Kind::Metered {
            let usage = usage_of(feature);
            match usage.value.map(serde_json::from_str::<Value>) {
                None => misses.push(format!("the usage of {feature} is missing")),
                Some(Err(_)) => misses.push(format!("the usage of {feature} is not JSON")),
                Some(Ok(Value::Null)) => misses.push(format!("the usage of {feature} is null")),
                Some(Ok(value)) => merge(&mut merged, value),
            }
            if usage.value.is_some() && !usage.has_timestamp {
                misses_newer.push(format!("the usage of {feature} has no timestamp"));
            }
        }
        let mut entitlement = entitlement(feature, kind, &entry, &merged).at(now);
        if entitlement.valid_until().is_some_and(|at| at <= now) {
            misses.push(format!("{feature} was valid until a time that has passed"));
        }
        let is_whole = misses.is_empty() && misses_newer.is_empty();
        entitlement.marks.set(Marks::WHOLE, is_whole);
        let currency = &calculated["creditRate"]["currencyId"];
        Self {
            entitlement,
            credit_currency: currency.as_str().map(str::to_owned),
            misses,
            misses_newer,
            is_newer_layout: is_newer_layout(&entry),
            entry,
        }
    }
}

/// Extracts what an SDK makes of an entry, with its merged usage.
fn entitlement(feature: &str, kind: Kind, entry: &Value, usage: &Value) -> Entitlement<'static> {
    let calculated = &entry["calculatedEntitlement"];
    let of_feature = &calculated["feature"];
    let is_limited =
        kind == Kind::Metered || (kind == Kind::Numeric && of_feature["meterType"] != "None");
    let mut marks = Marks::default();
    for (mark, is_set) in [
        (Marks::UNLIMITED, truthy(&calculated["hasUnlimitedUsage"])),
        (Marks::SOFT_LIMIT, truthy(&calculated["hasSoftLimit"])),
        (Marks::LIMITED, is_limited),
        (Marks::HAS_CURRENT, usage.get("currentUsage").is_some()),
        (Marks::HAS_FEATURE, of_feature.is_object()),
        (Marks::FALSY, !truthy(entry)),
    ] {
        marks.set(mark, is_set);
    }
    let verdict = match verdict(calculated, kind) {
        Verdict::Open if is_limited && !usage.is_object() => Verdict::NoUsage,
        verdict => verdict,
    };
    Entitlement {
        feature: feature.to_owned().into(),
        kind,
        is_period_over: false,
        verdict,
        marks,
        facts: Fact::ALL.map(|fact| stored_fact(fact, calculated, usage)),
    }
}

fn stored_fact(fact: Fact, calculated: &Value, usage: &Value) -> Datum<'static> {
    let feature = &calculated["feature"];
    let text = |value: &Value| value.as_str().map_or(Datum::Null, |_| Datum::of(value));
    let number = |value: &Value| value.as_f64().map_or(Datum::Null, |_| Datum::of(value));
    match fact {
        Fact::AccessDeniedReason => Datum::of(&calculated["accessDeniedReason"]),
        Fact::CreditRate => Datum::of(&calculated["creditRate"]),
        Fact::CurrentUsage => Datum::of(&usage["currentUsage"]),
        Fact::Description => Datum::of(&feature["description"]),
        Fact::DisplayName => text(&feature["displayName"]),
        Fact::EnumValues => Datum::of(&calculated["enumValues"]),
        Fact::FeatureType => Datum::of(&feature["featureType"]),
        Fact::MeterType => Datum::of(&feature["meterType"]),
        Fact::PeriodAnchor => number(&usage["usagePeriodAnchor"]),
        Fact::PeriodEnd => number(&usage["usagePeriodEnd"]),
        Fact::PeriodStart => number(&usage["usagePeriodStart"]),
        Fact::ResetPeriod => Datum::of(&usage["resetPeriod"]),
        Fact::ResetPeriodOfLimit if usage["resetPeriod"].is_string() => Datum::Null,
        Fact::ResetPeriodOfLimit => text(&calculated["resetPeriod"]),
        Fact::ResetPeriodConfiguration => Datum::of(&usage["resetPeriodConfiguration"]),
        Fact::ResourceId => Datum::of(&calculated["resourceId"]),
        Fact::UnitTransformation => Datum::of(&feature["unitTransformation"]),
        Fact::Units => Datum::of(&feature["units"]),
        Fact::UnitsPlural => Datum::of(&feature["unitsPlural"]),
        // It is stored beside the usage.
        Fact::UsageAt => Datum::Null,
        Fact::UsageLimit => Datum::of(&calculated["usageLimit"]),
        Fact::ValidUntil => Datum::of(&calculated["validUntil"]),
    }
}

fn verdict(calculated: &Value, kind: Kind) -> Verdict {
    if calculated.is_null() {
        Verdict::NoEntitlement
    } else if !truthy(&calculated["feature"]) {
        Verdict::NoFeature
    } else if truthy(&calculated["accessDeniedReason"]) {
        Verdict::Denied
    } else if kind == Kind::Unknown {
        Verdict::UnknownType
    } else {
        Verdict::Open
    }
}

/// Returns whether the vendor's service 3.0.0 or later wrote this entry.
pub(super) fn is_newer_layout(entry: &Value) -> bool {
    !entry["usageData"].is_null() || !entry["calculatedEntitlement"]["type"].is_null()
}

/// Merges `{...featureUsage, ...cachedUsage}`, including the old name of the end of a period.
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
