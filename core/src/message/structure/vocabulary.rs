//! Recognises the names of fields in any spelling.

use crate::message::kind::words;

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

/// More names, and other names of the published fields.
const OTHERS: [(&str, &str); 19] = [
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
    ("entitlementsv2", "entitlementsV2"),
    ("specversion", "specversion"),
    ("traceid", "traceId"),
    ("entitlementsstate", "entitlementsState"),
    // The names of kind and time in Stigg's event log, Lambda, Pub/Sub and Kinesis.
    ("eventlogtype", "eventType"),
    ("senttimestamp", "time"),
    ("publishtime", "time"),
    ("approximatearrivaltimestamp", "time"),
];

/// Maximum length; every name is shorter.
const MAX_NAME_BYTES: usize = 40;

/// Returns the published spelling of a name, whatever its case and separators; `None` for a name that the
/// published shapes do not have.
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

/// Returns the published spelling of a name in a header, which may have a prefix, as in `ce-type` or `x-event-type`.
pub fn spelled_in_header(name: &str) -> Option<&'static str> {
    let prefixes = ["ce-", "ce_", "x-", "x_"];
    let mut bare = name;
    for prefix in prefixes {
        if let Some(start) = bare.get(..prefix.len())
            && start.eq_ignore_ascii_case(prefix)
        {
            bare = &bare[prefix.len()..];
        }
    }
    spelled(bare)
}

/// Returns whether the value under a name is not the current state of its customer: an earlier state, or an
/// offer.
pub fn is_of_no_customer(name: &str) -> bool {
    const WORDS: [&str; 16] = [
        "before",
        "old",
        "previous",
        "prev",
        "prior",
        "former",
        "history",
        "removed",
        "deleted",
        "scheduled",
        "upcoming",
        "draft",
        "preview",
        "promotional",
        "subscription",
        "subscriptions",
    ];
    let words = words(name);
    words.iter().any(|word| WORDS.contains(&word.as_str())) || is_on_offer(name)
}

/// Returns whether a name is that of a plan or another product, whose entitlements belong to no customer.
pub fn is_on_offer(name: &str) -> bool {
    const WORDS: [&str; 22] = [
        "plan",
        "plans",
        "addon",
        "addons",
        "ons",
        "package",
        "packages",
        "product",
        "products",
        "offer",
        "offers",
        "coupon",
        "coupons",
        "template",
        "templates",
        "bundle",
        "bundles",
        "catalog",
        "paywall",
        "price",
        "prices",
        "pricing",
    ];
    let words = words(name);
    words.iter().any(|word| WORDS.contains(&word.as_str()))
}

/// Returns whether the value under a name has a type and a name of its own, which are not those of an event.
pub fn is_entity(name: &str) -> bool {
    matches!(
        spelled(name),
        Some(
            "customer"
                | "customers"
                | "resource"
                | "feature"
                | "currency"
                | "entitlement"
                | "entitlements"
                | "entitlementsV2"
                | "entitlementReference"
                | "creditRate"
                | "usage"
        )
    )
}
