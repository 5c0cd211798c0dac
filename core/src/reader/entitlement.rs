//! Reads one entitlement and decides access as an SDK does.

use serde_json::Value;

use super::javascript::{plain, truthy};

/// One entitlement, with the decision of an SDK.
#[derive(Debug)]
pub struct Entitlement {
    pub feature: String,
    /// The stored entry of the map.
    pub entry: Value,
    /// Its usage: for a metered feature, the usage key merged over the usage in the entry.
    pub merged: Value,
    pub kind: Kind,
    pub limit: Value,
    pub unlimited: bool,
    pub soft_limit: bool,
    pub enum_values: Vec<String>,
    pub reset_period: Option<String>,
    /// The usage of a metered feature.
    pub usage: Option<Usage>,
    pub valid_until: Option<f64>,
    pub credit_currency: Option<String>,
    /// The usage to compare with the limit: that of the usage key, or for other numbers that of the entry.
    current: Value,
    /// Whether there is such a usage, which may be null.
    has_current: bool,
    /// Whether a limit applies at all.
    is_limited: bool,
    /// Why it is denied for every request, or why it is unreadable.
    verdict: Option<Access>,
    /// Why this entitlement makes an SDK ask the Edge API.
    pub misses: Vec<String>,
    /// Why it makes SDK 4.x ask the Edge API, where 3.x does not.
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
    /// Another type, or not an entitlement.
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
    /// Whether `usagePeriodEnd` has passed: `getMeteredEntitlement` then answers 0, and `getEntitlements` the
    /// stored usage.
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
    /// An SDK returns its fallback.
    Unreadable(&'static str),
}

/// A stored usage, with its timestamp.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoredUsage<'a> {
    pub value: Option<&'a str>,
    pub has_timestamp: bool,
}

impl Entitlement {
    /// Reads an entry of the map. `usage_of` finds the usage key of a metered feature.
    pub fn read<'a>(
        feature: &str,
        stored: &str,
        usage_of: impl Fn(&str) -> StoredUsage<'a>,
        now: f64,
    ) -> Self {
        let entry: Value = serde_json::from_str(stored).unwrap_or_default();
        let calculated = &entry["calculatedEntitlement"];
        let of_feature = &calculated["feature"];
        let kind = kind(of_feature);
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
        let is_limited =
            kind == Kind::Metered || (kind == Kind::Numeric && of_feature["meterType"] != "None");
        let verdict = match verdict(calculated, kind) {
            None if is_limited && !merged.is_object() => {
                Some(Access::Unreadable("featureUsage is missing"))
            }
            verdict => verdict,
        };
        let current = match &usage {
            Some(usage) => usage.answered(),
            None => merged["currentUsage"].clone(),
        };
        Self {
            has_current: merged.get("currentUsage").is_some(),
            current,
            verdict,
            is_limited,
            feature: feature.to_owned(),
            kind,
            limit: calculated["usageLimit"].clone(),
            unlimited: truthy(&calculated["hasUnlimitedUsage"]),
            soft_limit: truthy(&calculated["hasSoftLimit"]),
            enum_values: enum_values
                .map_or_else(Vec::new, |values| values.iter().map(plain).collect()),
            // In the newer layout it is next to the limit.
            reset_period: text(&merged["resetPeriod"]).or_else(|| text(&calculated["resetPeriod"])),
            usage,
            valid_until,
            credit_currency: text(&calculated["creditRate"]["currencyId"]),
            misses,
            misses_newer,
            is_newer_layout: is_newer_layout(&entry),
            merged,
            entry,
        }
    }
}

/// The request of a caller for a feature; the default is any use.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// The requested usage, in addition to the current one.
    pub usage: f64,
    /// The requested values of an enum.
    pub values: Vec<String>,
}

impl Entitlement {
    /// Decides whether the customer has access to the request: `decideEntitlementPolicy` of the SDK.
    pub fn decide(&self, request: &Request) -> Access {
        let denied = |reason: &str| Access::Denied(reason.to_owned());
        if let Some(verdict) = &self.verdict {
            return verdict.clone();
        }
        if self.kind == Kind::Enum {
            let is_granted = |value: &String| self.enum_values.contains(value);
            return match request.values.iter().all(is_granted) {
                true => Access::Granted,
                false => denied("RequestedValuesMismatch"),
            };
        }
        if !self.is_limited || self.unlimited || self.soft_limit {
            return Access::Granted;
        }
        let limit = self.limit.as_f64().unwrap_or(0.0);
        // Adds as JavaScript does: null counts as 0, and a missing value makes NaN.
        let current = match &self.current {
            Value::Null if self.has_current => Some(0.0),
            current => current.as_f64(),
        };
        match current {
            Some(current) if current + request.usage <= limit => Access::Granted,
            _ => denied("RequestedUsageExceedingLimit"),
        }
    }

    /// Returns whether a limit applies.
    pub fn is_limited(&self) -> bool {
        self.is_limited || self.kind == Kind::Numeric
    }

    /// Returns the end of its usage period.
    pub fn period_end(&self) -> Option<f64> {
        self.merged["usagePeriodEnd"]
            .as_f64()
            .filter(|end| *end != 0.0)
    }

    /// Returns whether the stored value is false in JavaScript: an SDK asked for this feature treats it as missing.
    pub fn is_falsy(&self) -> bool {
        !truthy(&self.entry)
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

/// The part of `decideEntitlementPolicy` that does not depend on what is requested.
fn verdict(calculated: &Value, kind: Kind) -> Option<Access> {
    let denied = |reason: &str| Some(Access::Denied(reason.to_owned()));
    if calculated.is_null() {
        return Some(Access::Unreadable("no entitlement"));
    }
    if !truthy(&calculated["feature"]) {
        return denied(NO_FEATURE);
    }
    let reason = &calculated["accessDeniedReason"];
    if truthy(reason) {
        return denied(&plain(reason));
    }
    (kind == Kind::Unknown).then_some(Access::Unreadable("featureType is unknown"))
}

/// The reason of an SDK where a customer has no entitlement for the feature.
pub const NO_FEATURE: &str = "NoFeatureEntitlementInSubscription";
/// The reason of an SDK where a customer has no entitlement at all.
pub const NO_CUSTOMER: &str = "CustomerNotFound";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(stored: &str, usage: Option<&str>) -> Entitlement {
        let usage = StoredUsage {
            value: usage,
            has_timestamp: true,
        };
        Entitlement::read("f", stored, |_| usage, 1_000.0)
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
                assert_ne!(
                    read.decide(&Request::default()),
                    Access::Granted,
                    "{stored}"
                );
            }
        }
    }
}
