//! Bodies for tests that tell a story, in one shape: every shape and wrapping has a fixture.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A customer, or a resource of one.
pub type Owner<'a> = (&'a str, Option<&'a str>);

pub const ACME: Owner<'static> = ("acme", None);
pub const SITE: Owner<'static> = ("acme", Some("site-1"));

/// Later than any test runs: a usage period that has ended is answered as unused.
pub const FAR_FUTURE: u64 = 4_102_444_800_000;

/// The `n`th second of a story in 2025.
pub fn at(n: u64) -> u64 {
    1_763_000_000_000 + 1000 * n
}

/// An entitlement to a metered feature.
pub fn metered(feature: &str, limit: u64, usage: u64, used_at: u64) -> Value {
    json!({
        "feature": {"id": feature, "featureType": "NUMBER", "meterType": "Fluctuating", "units": "seat", "unitsPlural": "seats"},
        "usageLimit": limit,
        "currentUsage": usage,
        "usageUpdatedAt": iso(used_at),
    })
}

pub fn entitlements(owner: Owner<'_>, at: u64, entitlements: &[Value]) -> String {
    event(
        owner,
        json!({"type": "ENTITLEMENTS_UPDATED", "entitlementsUpdatedAt": iso(at), "entitlements": entitlements}),
    )
}

/// Entitled to nothing, for this reason.
pub fn denied(owner: Owner<'_>, reason: &str, at: u64) -> String {
    event(
        owner,
        json!({"type": "ENTITLEMENTS_UPDATED", "entitlementsUpdatedAt": iso(at), "accessDeniedReason": reason,
            "entitlements": []}),
    )
}

/// Entitled to `limit` seats, of which one is used.
pub fn seats(owner: Owner<'_>, limit: u64, at: u64) -> String {
    entitlements(owner, at, &[metered("seats", limit, 1, at)])
}

pub fn usage(owner: Owner<'_>, feature: &str, current: u64, at: u64) -> String {
    event(
        owner,
        json!({"type": "MEASUREMENT_REPORTED", "featureId": feature, "currentUsage": current, "usageUpdatedAt": iso(at)}),
    )
}

pub fn credit(owner: Owner<'_>, currency: &str, consumed: u64, at: u64) -> String {
    event(
        owner,
        json!({"type": "CREDIT_BALANCE_UPDATED", "currencyId": currency, "totalConsumed": consumed, "usageUpdatedAt": iso(at)}),
    )
}

pub fn purge<'a>(owners: impl IntoIterator<Item = Owner<'a>>, at: u64) -> String {
    let customers: Vec<Value> = owners
        .into_iter()
        .map(|(customer, resource)| json!({"customerId": customer, "resourceId": resource}))
        .collect();
    json!({"type": "SUBSCRIPTIONS_MIGRATED", "timestamp": iso(at), "customers": customers})
        .to_string()
}

/// An event about this owner.
pub fn event((customer, resource): Owner<'_>, mut event: Value) -> String {
    event["customerId"] = customer.into();
    event["resourceId"] = resource.into();
    event.to_string()
}

/// A time as text: as a number a small one would count seconds.
pub fn iso(at: u64) -> String {
    let nanos = i128::from(at) * 1_000_000;
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap();
    time.format(&Rfc3339).unwrap()
}

/// The usage limit in an entitlements value as it stands in Redis.
pub fn limit_in(value: Option<&String>) -> Option<u64> {
    let value: Value = serde_json::from_str(value?).unwrap();
    value["seats"]["calculatedEntitlement"]["usageLimit"].as_u64()
}

/// The usage in a usage value as it stands in Redis.
pub fn usage_in(value: Option<&String>) -> Option<u64> {
    let value: Value = serde_json::from_str(value?).unwrap();
    value["currentUsage"].as_u64()
}
