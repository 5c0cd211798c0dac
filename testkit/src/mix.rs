//! The messages: the same ones for everybody, determined by a seed.

use std::fmt::Write;

/// Of these, a hundredth gets about a fifth of the messages.
pub const CUSTOMERS: u32 = 20_000;
/// 2025-11-14T00:00:00Z.
const START_MS: u64 = 1_763_078_400_000;
const STEP_MS: u64 = 7;

/// The wrapping and the field names of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// GraphQL's fields under `payload`.
    Payload,
    /// The webhook's body.
    Webhook,
    /// The body of a GraphQL subscription.
    Subscription,
    /// `Payload` as a string in an SNS notification.
    Notification,
}

/// `count` messages: 70 % usage, 25 % entitlements of 5 to 40 features, 5 % of other kinds.
pub fn messages(seed: u64, shape: Shape, count: usize) -> impl Iterator<Item = String> {
    messages_of(CUSTOMERS, seed, shape, count)
}

/// The same, for so many customers.
pub fn messages_of(
    customers: u32,
    seed: u64,
    shape: Shape,
    count: usize,
) -> impl Iterator<Item = String> {
    let mut random = Random(seed);
    (0..count as u64).map(move |index| {
        let customer = customer(random.skewed(customers));
        message(&mut random, shape, &customer, START_MS + index * STEP_MS)
    })
}

/// The name of a customer, by its rank.
pub fn customer(rank: u32) -> String {
    format!("customer-{rank:05}")
}

/// Entitlements of a customer that no other message concerns, to measure when they become visible.
pub fn probe(customer: &str) -> String {
    let mut random = Random(7);
    let body = entitlements(&mut random, Shape::Payload, customer, 5, START_MS);
    envelope(Shape::Payload, "ENTITLEMENTS_UPDATED", "", &body, START_MS)
}

fn message(random: &mut Random, shape: Shape, customer: &str, at: u64) -> String {
    match random.below(100) {
        0..70 => {
            let feature = random.below(40);
            let used = random.below(100_000);
            let body = usage(shape, customer, feature, used, at);
            match shape {
                Shape::Webhook => envelope(shape, "measurement.reported", "", &body, at),
                _ => envelope(shape, "MEASUREMENT_REPORTED", "usageUpdated", &body, at),
            }
        }
        70..95 => {
            let features = 5 + random.below(36);
            let body = entitlements(random, shape, customer, features, at);
            match shape {
                Shape::Webhook => envelope(shape, "entitlements.updated", "", &body, at),
                _ => envelope(
                    shape,
                    "ENTITLEMENTS_UPDATED",
                    "entitlementsUpdated",
                    &body,
                    at,
                ),
            }
        }
        95 | 96 => {
            let consumed = random.below(1_000);
            let body = format!(
                r#""customerId":"{customer}","resourceId":null,"currencyId":"tokens","currentBalance":{},"totalGranted":1000,"totalConsumed":{consumed}"#,
                1_000 - consumed
            );
            envelope(
                shape,
                "CREDIT_BALANCE_UPDATED",
                "creditBalanceUpdated",
                &body,
                at,
            )
        }
        97 => {
            let body = format!(r#""customerId":"{customer}""#);
            envelope(shape, "CUSTOMER_DELETED", "customerDeleted", &body, at)
        }
        98 => {
            let body = r#""packageRefId":"plan-basic","packageType":"Plan","versionNumber":3"#;
            envelope(shape, "PACKAGE_PUBLISHED", "packagePublished", body, at)
        }
        _ => {
            let body =
                format!(r#""customerId":"{customer}","subscriptionId":"subscription-1","seats":4"#);
            envelope(shape, "SUBSCRIPTION_CREATED", "", &body, at)
        }
    }
}

fn envelope(shape: Shape, name: &str, field: &str, body: &str, at: u64) -> String {
    let time = iso(at);
    let typed = || format!(r#"{{"type":"{name}","timestamp":"{time}","payload":{{{body}}}}}"#);
    match shape {
        Shape::Webhook => format!(
            r#"{{"type":"{name}","messageId":"m-{at}","traceId":"t-{at}","timestamp":"{time}","environmentId":"e",{body}}}"#
        ),
        Shape::Subscription if !field.is_empty() => {
            format!(r#"{{"data":{{"{field}":{{{body}}}}}}}"#)
        }
        Shape::Payload | Shape::Subscription => typed(),
        Shape::Notification => format!(
            r#"{{"Type":"Notification","MessageId":"m-{at}","TopicArn":"arn:aws:sns:us-east-1:000000000000:t","Message":{},"Timestamp":"{time}"}}"#,
            quoted(&typed())
        ),
    }
}

fn usage(shape: Shape, customer: &str, feature: u64, used: u64, at: u64) -> String {
    let time = iso(at);
    let period = r#""usagePeriodStart":"2025-11-01T00:00:00.000Z","usagePeriodEnd":"2025-12-01T00:00:00.000Z""#;
    match shape {
        Shape::Webhook => format!(
            r#""currentUsage":{used},{period},"feature":{{"id":"feature-{feature:02}","featureType":"NUMBER","meterType":"INCREMENTAL"}},"customer":{{"id":"{customer}","name":"Customer"}},"resource":null"#
        ),
        Shape::Subscription => format!(
            r#""usage":{{"customerId":"{customer}","resourceId":null,"featureId":"feature-{feature:02}","currentUsage":{used},{period}}},"entitlement":{{"usageUpdatedAt":"{time}"}}"#
        ),
        Shape::Payload | Shape::Notification => format!(
            r#""customerId":"{customer}","resourceId":null,"featureId":"feature-{feature:02}","currentUsage":{used},{period},"usageUpdatedAt":"{time}""#
        ),
    }
}

fn entitlements(
    random: &mut Random,
    shape: Shape,
    customer: &str,
    features: u64,
    at: u64,
) -> String {
    let time = iso(at);
    let mut body = match shape {
        Shape::Webhook => format!(
            r#""customer":{{"id":"{customer}","name":"Customer"}},"entitlementsUpdatedAt":"{time}","entitlements":["#
        ),
        _ => format!(r#""customerId":"{customer}","resourceId":null,"entitlements":["#),
    };
    for feature in 0..features {
        if feature > 0 {
            body.push(',');
        }
        entitlement(&mut body, random, shape, feature, &time);
    }
    body.push(']');
    body
}

fn entitlement(body: &mut String, random: &mut Random, shape: Shape, feature: u64, time: &str) {
    let webhook = shape == Shape::Webhook;
    let (kind, meter, limit, used, values) = match random.below(10) {
        0..6 => (
            "NUMBER",
            if webhook {
                r#""INCREMENTAL""#
            } else {
                r#""Incremental""#
            },
            (1_000 + random.below(9_000)).to_string(),
            random.below(1_000),
            "null",
        ),
        6..9 => ("BOOLEAN", "null", "null".to_owned(), 0, "null"),
        _ => ("ENUM", "null", "null".to_owned(), 0, r#"["basic","pro"]"#),
    };
    let metered = kind == "NUMBER";
    let period = if metered {
        let name = if webhook {
            r#""accordingTo":"SubscriptionStart""#
        } else {
            r#""__typename":"MonthlyResetPeriodConfig","monthlyAccordingTo":"SubscriptionStart""#
        };
        format!(
            r#""usagePeriodAnchor":"2025-11-01T00:00:00.000Z","usagePeriodStart":"2025-11-01T00:00:00.000Z","usagePeriodEnd":"2025-12-01T00:00:00.000Z","resetPeriod":"MONTH","resetPeriodConfiguration":{{{name}}}"#
        )
    } else {
        r#""usagePeriodAnchor":null,"usagePeriodStart":null,"usagePeriodEnd":null,"resetPeriod":null,"resetPeriodConfiguration":null"#.to_owned()
    };
    let written = if webhook {
        write!(
            body,
            r#"{{"feature":{{"id":"feature-{feature:02}","name":"Feature {feature}","featureType":"{kind}","meterType":{meter},"unit":"call","units":"calls","status":"NEW"}},"#
        )
    } else {
        write!(
            body,
            r#"{{"__typename":"Entitlement","isGranted":true,"accessDeniedReason":null,"entitlementUpdatedAt":"{time}","usageUpdatedAt":"{time}","feature":{{"__typename":"EntitlementFeature","refId":"feature-{feature:02}","displayName":"Feature {feature}","featureType":"{kind}","meterType":{meter},"featureUnits":"call","featureUnitsPlural":"calls"}},"#
        )
    };
    let written = written.and_then(|()| {
        write!(
            body,
            r#""usageLimit":{limit},"hasUnlimitedUsage":false,"hasSoftLimit":false,"currentUsage":{used},"enumValues":{values},{period}}}"#
        )
    });
    debug_assert!(written.is_ok(), "writing to a string does not fail");
}

/// As JSON; only quotes are in need of an escape here.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\\\""))
}

/// All times lie on the first day: 12 million messages fit.
fn iso(at: u64) -> String {
    let of_day = (at - START_MS) % 86_400_000;
    let (seconds, millis) = (of_day / 1_000, of_day % 1_000);
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("2025-11-14T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z")
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn skewed(&mut self, end: u32) -> u32 {
        let uniform = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        (uniform.powi(3) * f64::from(end)) as u32
    }
}
