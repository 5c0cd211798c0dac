//! The names of the fields that matter, in whatever way they are spelled.

/// The names of the published shapes.
const NAMES: [&str; 61] = [
    "__typename",
    "accessDeniedReason",
    "accordingTo",
    "amount",
    "creditRate",
    "currencyId",
    "currency",
    "currentUsage",
    "customer",
    "customerId",
    "customerIds",
    "customers",
    "data",
    "detail",
    "detail-type",
    "entitlement",
    "entitlementReference",
    "entitlementUpdatedAt",
    "entitlements",
    "entitlementsUpdatedAt",
    "enumValues",
    "event",
    "eventName",
    "eventType",
    "feature",
    "featureId",
    "featureType",
    "featureUnits",
    "featureUnitsPlural",
    "hasSoftLimit",
    "hasUnlimitedUsage",
    "id",
    "kind",
    "message",
    "messageAttributes",
    "messageType",
    "meterType",
    "monthlyAccordingTo",
    "name",
    "nextResetDate",
    "payload",
    "refId",
    "resetPeriod",
    "resetPeriodConfiguration",
    "resource",
    "resourceId",
    "time",
    "timestamp",
    "topic",
    "totalConsumed",
    "traceId",
    "type",
    "unit",
    "units",
    "unitsPlural",
    "usage",
    "usageLimit",
    "usagePeriodAnchor",
    "usagePeriodEnd",
    "usagePeriodStart",
    "usageUpdatedAt",
];

/// More names, and other names for the same.
const OTHERS: [(&str, &str); 13] = [
    ("validuntil", "validUntil"),
    ("weeklyaccordingto", "weeklyAccordingTo"),
    ("yearlyaccordingto", "yearlyAccordingTo"),
    ("action", "action"),
    ("customerrefid", "customerId"),
    ("customerrefids", "customerIds"),
    ("resourcerefid", "resourceId"),
    ("featurerefid", "featureId"),
    ("currencyrefid", "currencyId"),
    ("entitlementsv2", "entitlements"),
    ("specversion", "specversion"),
    ("traceid", "traceId"),
    ("entitlementsstate", "entitlementsState"),
];

/// How the published shapes spell a name; `None` for a name that they do not have.
pub fn spelled(name: &str) -> Option<&'static str> {
    if name.len() > 40 {
        return None;
    }
    let other = OTHERS.iter().find(|(it, _)| is_same(it, name));
    other
        .map(|(_, name)| *name)
        .or_else(|| NAMES.into_iter().find(|it| is_same(it, name)))
}

/// Compares without case and separators.
fn is_same(one: &str, other: &str) -> bool {
    letters(one).eq(letters(other))
}

fn letters(name: &str) -> impl Iterator<Item = char> {
    let letters = name
        .chars()
        .filter(|it| !matches!(it, '_' | '-' | '.' | ' '));
    letters.map(|it| it.to_ascii_lowercase())
}
