//! Builds a state from stored values.

use serde_json::Value;

use super::{Miss, State};
use crate::reader::pack::Writer;
use crate::reader::reading::is_newer_layout;
use crate::reader::{Datum, Fact, Kind, Reading, Stored, StoredUsage, millis};

/// Collects the entitlements of a state.
pub(super) struct Building {
    /// By feature, in stored order.
    packed: Vec<(String, Writer)>,
    miss: Option<Miss>,
    expires_at: f64,
    has_credits: bool,
    has_metered: bool,
}

impl Default for Building {
    fn default() -> Self {
        Self {
            packed: Vec::new(),
            miss: None,
            expires_at: f64::INFINITY,
            has_credits: false,
            has_metered: false,
        }
    }
}

impl Building {
    pub(super) fn add(
        &mut self,
        feature: String,
        entry: &str,
        stored: &Stored,
    ) -> Result<(), Miss> {
        let value: Value = serde_json::from_str(entry).map_err(|_| Miss::Unreadable)?;
        let (feature, entry) = match is_newer_layout(&value) {
            true => older_layout(value).ok_or(Miss::Credits)?,
            false => (feature, value),
        };
        let pair = stored.usages.get(&feature);
        let usage = pair.and_then(|pair| pair.value.as_deref());
        let usage_at = pair.and_then(|pair| millis(pair.timestamp.as_deref()?));
        let found = StoredUsage {
            value: usage,
            has_timestamp: usage_at.is_some(),
        };
        let read = Reading::of_value(&feature, entry, |_| found, f64::NEG_INFINITY);
        let mut entitlement = read.entitlement;
        entitlement.set(Fact::UsageAt, usage_at.map_or(Datum::Null, Datum::Int));
        if !entitlement.is_whole() {
            let miss = if usage.is_some() && usage_at.is_none() {
                Miss::Torn
            } else {
                Miss::Usage
            };
            self.miss.get_or_insert(miss);
        }
        if let Some(until) = entitlement.valid_until() {
            self.expires_at = self.expires_at.min(until);
        }
        self.has_metered |= entitlement.kind == Kind::Metered;
        self.has_credits |= read.credit_currency.is_some();
        let mut writer = Writer::default();
        entitlement.pack(&mut writer);
        // The newer layout may name a feature twice.
        self.packed.retain(|(before, _)| *before != feature);
        self.packed.push((feature, writer));
        Ok(())
    }

    pub(super) fn finish(self, updated_at: Option<i64>, denied: Option<Box<str>>) -> State {
        let packed: Vec<&[u8]> = self.packed.iter().map(|(_, it)| it.0.as_slice()).collect();
        State {
            packed: packed.concat().into(),
            updated_at,
            denied,
            expires_at: self.expires_at,
            miss: self.miss,
            has_credits: self.has_credits,
            has_metered: self.has_metered,
            omits_credits: false,
        }
    }
}

/// Converts an entry of the newer layout to the older one, with its feature; `None` for a credit.
fn older_layout(mut entry: Value) -> Option<(String, Value)> {
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
    Some((feature, normalized))
}
