//! Bodies for tests that tell a story. Every shape and wrapping has a fixture; here one will do.

use serde_json::{Value, json};

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
        "usageUpdatedAt": used_at,
    })
}

pub fn entitlements(owner: Owner<'_>, at: u64, entitlements: &[Value]) -> String {
    event(
        owner,
        json!({"type": "ENTITLEMENTS_UPDATED", "entitlementsUpdatedAt": at, "entitlements": entitlements}),
    )
}

/// Entitled to `limit` seats, of which one is used.
pub fn seats(owner: Owner<'_>, limit: u64, at: u64) -> String {
    entitlements(owner, at, &[metered("seats", limit, 1, at)])
}

pub fn usage(owner: Owner<'_>, feature: &str, current: u64, at: u64) -> String {
    event(
        owner,
        json!({"type": "MEASUREMENT_REPORTED", "featureId": feature, "currentUsage": current, "usageUpdatedAt": at}),
    )
}

pub fn credit(owner: Owner<'_>, currency: &str, consumed: u64, at: u64) -> String {
    event(
        owner,
        json!({"type": "CREDIT_BALANCE_UPDATED", "currencyId": currency, "totalConsumed": consumed, "usageUpdatedAt": at}),
    )
}

pub fn purge<'a>(owners: impl IntoIterator<Item = Owner<'a>>, at: u64) -> String {
    let customers: Vec<Value> = owners
        .into_iter()
        .map(|(customer, resource)| json!({"customerId": customer, "resourceId": resource}))
        .collect();
    json!({"type": "SUBSCRIPTIONS_MIGRATED", "timestamp": at, "customers": customers}).to_string()
}

fn event((customer, resource): Owner<'_>, mut event: Value) -> String {
    event["customerId"] = customer.into();
    event["resourceId"] = resource.into();
    event.to_string()
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
