//! The names of the fields that matter, in whatever way they are spelled.

/// The names of the published shapes.
const NAMES: [&str; 59] = [
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
const OTHERS: [(&str, &str); 15] = [
    ("typename", "__typename"),
    ("detailtype", "detail-type"),
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

/// Longer than any name.
const MAX_NAME_BYTES: usize = 40;

/// How the published shapes spell a name, whatever its case and separators; `None` for a name that they
/// do not have.
pub fn spelled(name: &str) -> Option<&'static str> {
    let mut letters = [0; MAX_NAME_BYTES];
    if name.len() > MAX_NAME_BYTES {
        return None;
    }
    let mut length = 0;
    for letter in name.bytes().filter(|it| !b"_-. ".contains(it)) {
        letters[length] = letter;
        length += 1;
    }
    let letters = &letters[..length];
    let is_same = |known: &str| known.as_bytes().eq_ignore_ascii_case(letters);
    let other = OTHERS.iter().find(|(it, _)| is_same(it));
    other
        .map(|(_, name)| *name)
        .or_else(|| NAMES.into_iter().find(|it| is_same(it)))
}
