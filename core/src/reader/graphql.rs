//! Prints entitlements in the GraphQL shape of the Edge API.
//!
//! Fields that the layout of Redis does not keep are filled: the display name of a feature is its id, others are null.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Access, Entry, NO_CUSTOMER, NO_FEATURE, Request, State};

/// Why a list is incomplete.
#[derive(Debug, PartialEq, Eq)]
pub struct Incomplete;

/// Returns the list of a customer, or why it is incomplete.
pub type Listing = Result<String, Incomplete>;

/// Returns the answer of `entitlements.json`.
pub fn entitlements(state: &State, now: f64) -> Listing {
    let list = list(state, now, entitlement)?;
    Ok(json!({"data": {"entitlements": list}}).to_string())
}

/// Returns the answer of `entitlements-state.json`.
pub fn entitlements_state(state: &State, now: f64) -> Listing {
    let answer = json!({"data": {"entitlementsState": {
        "__typename": "EntitlementsState",
        "accessDeniedReason": state.denied(),
        "entitlements": list(state, now, entitlement)?,
        "entitlementsV2": list(state, now, entitlement_v2)?,
    }}});
    Ok(answer.to_string())
}

/// Returns the answer of `entitlements.json` for one feature.
pub fn single(state: &State, feature: &str, request: &Request, now: f64) -> Listing {
    let found = state.find(feature, now);
    let entitlement = match &found {
        Some(entry) if !entry.is_whole && !entry.is_expired => return Err(Incomplete),
        Some(entry) => {
            let mut entitlement = entitlement(state, entry, now);
            decided(&mut entitlement, entry.decide(request));
            // The reader of this answer does not check the end of the period, as an SDK would.
            if let Some(usage) = &entry.entitlement.usage {
                entitlement["currentUsage"] = usage.answered();
            }
            entitlement
        }
        None => {
            let reason = if state.is_empty() {
                NO_CUSTOMER
            } else {
                NO_FEATURE
            };
            json!({
                "__typename": "Entitlement",
                "isGranted": false,
                "accessDeniedReason": reason,
                "hasUnlimitedUsage": false,
                "entitlementUpdatedAt": iso(state.updated_at().map(|at| at as f64)),
                "feature": null,
            })
        }
    };
    Ok(json!({"data": {"entitlement": entitlement}}).to_string())
}

fn decided(entitlement: &mut Value, access: Access) {
    let (is_granted, reason) = match access {
        Access::Granted => (true, Value::Null),
        Access::Denied(reason) => (false, reason.into()),
        Access::Unreadable(_) => (false, Value::Null),
    };
    entitlement["isGranted"] = is_granted.into();
    entitlement["accessDeniedReason"] = reason;
}

fn list(
    state: &State,
    now: f64,
    one: impl Fn(&State, &Entry, f64) -> Value,
) -> Result<Vec<Value>, Incomplete> {
    let mut list = Vec::new();
    for entry in state.entries(now) {
        if !entry.is_whole && !entry.is_expired {
            return Err(Incomplete);
        }
        list.push(one(state, &entry, now));
    }
    Ok(list)
}

/// Returns the fields of both versions of an entitlement.
fn common(state: &State, entry: &Entry) -> Value {
    let it = &entry.entitlement;
    let calculated = &it.entry["calculatedEntitlement"];
    let feature = &calculated["feature"];
    let usage = &it.merged;
    let denied = match entry.is_expired {
        // A reader would ask again, get this answer again, and grant an expired entitlement.
        true => NO_FEATURE.into(),
        false => calculated["accessDeniedReason"].clone(),
    };
    let feature = match feature.is_object() {
        false => Value::Null,
        true => json!({
            "__typename": "EntitlementFeature",
            "refId": it.feature,
            "displayName": feature["displayName"].as_str().unwrap_or(&it.feature),
            "description": feature["description"],
            "featureType": feature["featureType"],
            "meterType": feature["meterType"],
            "featureUnits": feature["units"],
            "featureUnitsPlural": feature["unitsPlural"],
            "unitTransformation": feature["unitTransformation"],
        }),
    };
    let is_granted = entry.decide(&Request::default()) == Access::Granted;
    json!({
        "isGranted": is_granted,
        "accessDeniedReason": denied,
        "usageLimit": calculated["usageLimit"],
        "hasUnlimitedUsage": it.unlimited,
        "hasSoftLimit": it.soft_limit,
        // The stored value: an SDK checks the end of the period itself.
        "currentUsage": usage["currentUsage"],
        "enumValues": calculated["enumValues"],
        "entitlementUpdatedAt": iso(state.updated_at().map(|at| at as f64)),
        "usageUpdatedAt": iso(entry.usage_at.map(|at| at as f64)),
        "usagePeriodAnchor": iso(usage["usagePeriodAnchor"].as_f64()),
        "usagePeriodStart": iso(usage["usagePeriodStart"].as_f64()),
        "usagePeriodEnd": iso(usage["usagePeriodEnd"].as_f64()),
        "resetPeriod": usage["resetPeriod"],
        "resetPeriodConfiguration": usage["resetPeriodConfiguration"],
        "creditRate": calculated["creditRate"],
        "feature": feature,
    })
}

fn entitlement(state: &State, entry: &Entry, _: f64) -> Value {
    let mut entitlement = common(state, entry);
    let calculated = &entry.entitlement.entry["calculatedEntitlement"];
    entitlement["__typename"] = "Entitlement".into();
    entitlement["customerId"] = Value::Null;
    entitlement["resourceId"] = calculated["resourceId"].clone();
    entitlement["requestedUsage"] = Value::Null;
    entitlement["requestedValues"] = Value::Null;
    entitlement["nextResetDate"] = entitlement["usagePeriodEnd"].clone();
    entitlement["validUntil"] = match entry.is_expired {
        // Its reason denies it; with this time, a reader would ask again for each question about it.
        true => Value::Null,
        false => calculated["validUntil"].clone(),
    };
    entitlement
}

fn entitlement_v2(state: &State, entry: &Entry, now: f64) -> Value {
    let mut entitlement = common(state, entry);
    entitlement["__typename"] = "FeatureEntitlement".into();
    let until = entry.entitlement.valid_until.filter(|until| *until > now);
    entitlement["validUntil"] = iso(until);
    entitlement
}

/// Formats a time as GraphQL does.
pub(super) fn iso(millis: Option<f64>) -> Value {
    let Some(millis) = millis else {
        return Value::Null;
    };
    let nanos = millis as i128 * 1_000_000;
    let Ok(time) = OffsetDateTime::from_unix_timestamp_nanos(nanos) else {
        return Value::Null;
    };
    // Three digits of a second, always.
    match time.format(&Rfc3339) {
        Ok(text) if !text.contains('.') => text.replace('Z', ".000Z").into(),
        Ok(text) => {
            let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
            format!("{whole}.{:0<3}Z", fraction.trim_end_matches('Z')).into()
        }
        Err(_) => Value::Null,
    }
}
