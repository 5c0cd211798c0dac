//! SDK 3.95 without a Redis of its own, its `baseEdgeUri` at `serve`.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use testkit::edge::{Answer, EdgeMock};
use testkit::{Reader, Redis, free_port, sdk};

const UPDATED: &str = "2025-11-14T19:59:45.133Z";
const CONFIGURATION: &str = "/v1/config/server-sdk-configuration.json";
const ASKED: &str = "entitlement_sync_read_questions_total";

/// Slashes, spaces, plus signs, percent signs and letters beyond ASCII: the SDK escapes none of them itself.
const CUSTOMERS: [&str; 6] = [
    "acme",
    "a/b c",
    "zoë@example.com",
    "x+y&z=1",
    "100%",
    "a.b:c,d;e",
];
const RESOURCES: [&str; 2] = ["site-1", "site 2/ü"];

fn entitlement(feature: Value, own: Value) -> Value {
    let mut it = json!({
        "__typename": "Entitlement", "isGranted": true, "accessDeniedReason": null, "usageLimit": null,
        "hasUnlimitedUsage": false, "hasSoftLimit": false, "currentUsage": null, "enumValues": null,
        "entitlementUpdatedAt": UPDATED, "usageUpdatedAt": UPDATED, "usagePeriodAnchor": null,
        "usagePeriodStart": null, "usagePeriodEnd": null, "resetPeriod": null, "resetPeriodConfiguration": null,
        "feature": feature,
    });
    let own = own.as_object().unwrap().clone();
    it.as_object_mut().unwrap().extend(own);
    it
}

fn feature(id: &str, kind: &str, meter: Option<&str>) -> Value {
    json!({"__typename": "EntitlementFeature", "refId": id, "displayName": id, "featureType": kind, "meterType": meter,
        "featureUnits": "unit", "featureUnitsPlural": "units"})
}

/// One of each kind, with limits that tell one owner from another.
pub fn entitlements(limit: u64) -> Value {
    json!([
        entitlement(feature("sso", "BOOLEAN", None), json!({})),
        entitlement(
            feature("audit", "BOOLEAN", Some("None")),
            json!({"isGranted": false, "accessDeniedReason": "Revoked"})
        ),
        entitlement(
            feature("regions", "NUMBER", Some("None")),
            json!({"usageLimit": limit as f64 + 0.5})
        ),
        entitlement(
            feature("tier", "ENUM", None),
            json!({"enumValues": ["gold", "silver"]})
        ),
        entitlement(
            feature("seats", "NUMBER", Some("Fluctuating")),
            json!({"usageLimit": limit, "currentUsage": 2.5, "validUntil": 4_102_444_800_000_u64,
                "creditRate": {"amount": 2, "currencyId": "tokens"}})
        ),
        entitlement(
            feature("calls", "NUMBER", Some("Incremental")),
            json!({"usageLimit": limit, "currentUsage": limit + 7, "resetPeriod": "MONTH",
                "resetPeriodConfiguration": {"__typename": "MonthlyResetPeriodConfig",
                    "monthlyAccordingTo": "SubscriptionStart"},
                "usagePeriodAnchor": "2025-01-31T00:00:00.000Z", "usagePeriodStart": "2025-01-31T00:00:00.000Z",
                "usagePeriodEnd": "2025-02-28T00:00:00.000Z"})
        ),
        entitlement(
            feature("storage", "NUMBER", Some("Incremental")),
            json!({"usageLimit": 1, "currentUsage": 9, "hasSoftLimit": true})
        ),
        entitlement(
            feature("exports", "NUMBER", Some("Incremental")),
            json!({"hasUnlimitedUsage": true, "currentUsage": 1_000_000})
        ),
    ])
}

fn queries(customer: &str, resource: Option<&str>) -> Vec<Value> {
    let one = |method: &str, feature: &str, options: Value| {
        let mut args = json!({"customerId": customer, "featureId": feature, "options": options});
        if let Some(resource) = resource {
            args["resourceId"] = resource.into();
        }
        json!({"method": method, "args": args})
    };
    let mut queries = vec![
        one("getBooleanEntitlement", "sso", json!({})),
        one("getBooleanEntitlement", "audit", json!({})),
        one("getNumericEntitlement", "regions", json!({})),
        one(
            "getEnumEntitlement",
            "tier",
            json!({"requestedValues": ["gold"]}),
        ),
        one(
            "getEnumEntitlement",
            "tier",
            json!({"requestedValues": ["gold", "lead"]}),
        ),
        one(
            "getMeteredEntitlement",
            "seats",
            json!({"requestedUsage": 7.5}),
        ),
        one(
            "getMeteredEntitlement",
            "seats",
            json!({"requestedUsage": 1_000}),
        ),
        one("getMeteredEntitlement", "calls", json!({})),
        one("getMeteredEntitlement", "storage", json!({})),
        one("getMeteredEntitlement", "exports", json!({})),
        // A method for another type of feature, and one for all types.
        one("getBooleanEntitlement", "seats", json!({})),
        one("getEntitlement", "seats", json!({"requestedUsage": 1})),
        one(
            "getEntitlement",
            "tier",
            json!({"requestedValues": ["lead"]}),
        ),
        one("getBooleanEntitlement", "absent", json!({})),
        one("getMeteredEntitlement", "absent", json!({})),
    ];
    let mut owner = vec![customer];
    owner.extend(resource);
    queries.push(json!({"method": "getEntitlements", "args": owner}));
    queries
}

/// What the Edge API knows of an owner, under the path of the SDK, who escapes what the HTTP layer must, and under ours,
/// where an id is one segment.
pub fn know(edge: &EdgeMock, customer: &str, resource: Option<&str>, entitlements: &Value) {
    let answer = Answer::json(200, &json!({"data": {"entitlements": entitlements}}));
    let by_sdk = |text: &str| {
        text.replace(' ', "%20")
            .replace('ë', "%C3%AB")
            .replace('ü', "%C3%BC")
    };
    // What JavaScript's `encodeURIComponent` leaves alone, of what is used here.
    const OURS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.');
    let by_us = |text: &str| utf8_percent_encode(text, OURS).to_string();
    let paths = match resource {
        None => {
            [by_sdk(customer), by_us(customer)].map(|it| format!("/v1/c/{it}/entitlements.json"))
        }
        Some(resource) => [
            format!(
                "/v1/c/{}/entitlements.json?resourceId={}",
                by_sdk(customer),
                by_sdk(resource)
            ),
            format!(
                "/v1/c/{}/entitlements.json?resourceId={}",
                by_us(customer),
                by_us(resource)
            ),
        ],
    };
    for path in paths {
        edge.answer(&path, answer.clone());
    }
}

fn knows_its_configuration(edge: &EdgeMock) {
    let answer = json!({"data": {"sdkConfiguration": {"sentryDsn": null}}});
    edge.answer(CONFIGURATION, Answer::json(200, &answer));
}

fn loads(edge: &EdgeMock) -> usize {
    edge.requests_to("/v1/c/").len()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_is_answered_as_on_redis_and_as_by_the_edge_api() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let (directly, nobody) = (EdgeMock::start().await, EdgeMock::start().await);
    let mut asked = Vec::new();
    let mut owners = 0;
    for (at, customer) in CUSTOMERS.into_iter().enumerate() {
        for (of, resource) in [None, Some(RESOURCES[0]), Some(RESOURCES[1])]
            .into_iter()
            .enumerate()
        {
            let limit = 10 + 10 * at + of;
            for mock in [&edge, &directly] {
                know(mock, customer, resource, &entitlements(limit as u64));
            }
            asked.extend(queries(customer, resource));
            owners += 1;
        }
    }
    // A customer without any entitlement, and one that the Edge API does not know.
    for mock in [&edge, &directly] {
        know(mock, "empty", None, &json!([]));
        knows_its_configuration(mock);
    }
    let without_any = [queries("empty", None), queries("unknown", None)].concat();
    let reader = Reader::builder(&redis, &edge.url())
        .env("READ_API_KEYS", sdk::KEY)
        .start()
        .await;

    let by_edge = sdk::ask_without_redis(&directly.url(), &asked).await;
    let by_us = sdk::ask_without_redis(&reader.url(), &asked).await;
    for ((query, by_us), by_edge) in asked.iter().zip(&by_us).zip(&by_edge) {
        assert_eq!(by_us, by_edge, "{query}");
        assert_eq!(by_us["error"], Value::Null, "{query}");
    }
    // Nothing was answered by a fallback but what was asked by a method for another type.
    let fell_back = |answer: &&Value| answer["isFallback"] == true;
    assert_eq!(by_us.iter().filter(fell_back).count(), owners);

    // Each owner was loaded once, however often it was asked for, and is not loaded again while it is fresh.
    assert_eq!(loads(&edge), owners);
    assert_eq!(loads(&directly), asked.len());
    let again = sdk::ask_without_redis(&reader.url(), &asked).await;
    assert_eq!(again, by_us);
    assert_eq!(loads(&edge), owners);
    let fresh = format!("{ASKED}{{route=\"entitlements\",result=\"fresh\"}}");
    assert!(reader.metric(&fresh).await >= asked.len() as f64);
    assert_eq!(
        reader
            .metric(&format!("{ASKED}{{route=\"entitlements\"}}"))
            .await,
        2.0 * asked.len() as f64
    );
    assert_eq!(edge.requests_to(CONFIGURATION).len(), 1);

    // The same SDK on the Redis that these answers were kept in.
    let on_redis = sdk::ask(&redis, "production", &nobody.url(), &asked).await;
    for ((query, on_redis), by_us) in asked.iter().zip(&on_redis).zip(&by_us) {
        assert_eq!(on_redis, by_us, "{query}");
    }
    assert_eq!(nobody.count(), 0);

    let by_edge = sdk::ask_without_redis(&directly.url(), &without_any).await;
    let by_us = sdk::ask_without_redis(&reader.url(), &without_any).await;
    assert_eq!(by_us, by_edge);
    assert_eq!(by_us[0]["accessDeniedReason"], "CustomerNotFound");
    assert_eq!(by_us[0]["isFallback"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_all_else_away_the_sdk_starts_and_gives_its_fallback_without_a_retry() {
    let redis = Redis::start().await;
    let reader = Reader::builder(&redis, &format!("http://127.0.0.1:{}", free_port()))
        .env("READ_API_KEYS", sdk::KEY)
        .redis_port(free_port())
        .spawn();
    reader.wait_redis("DISCONNECTED").await;
    let mut asked = queries("acme", None);
    asked.extend(queries("acme", Some("site-1")));
    for query in asked.iter_mut().filter(|query| query["args"].is_object()) {
        query["args"]["options"]["fallback"] = json!({"hasAccess": true});
    }
    let answers = sdk::ask_without_redis(&reader.url(), &asked).await;
    for (query, answer) in asked.iter().zip(&answers) {
        if query["method"] == "getEntitlements" {
            assert_eq!(answer, &json!([]), "{query}");
        } else {
            assert_eq!(answer["isFallback"], true, "{query}: {answer}");
            assert_eq!(answer["hasAccess"], true, "{query}: {answer}");
        }
    }
    // A retry would be another request, four seconds later in all.
    let cannot_tell = format!("{ASKED}{{route=\"entitlements\",result=\"cannot_tell\"}}");
    assert_eq!(reader.metric(&cannot_tell).await, asked.len() as f64);
    assert_eq!(
        reader
            .metric(&format!("{ASKED}{{route=\"entitlements\"}}"))
            .await,
        asked.len() as f64
    );
    assert_eq!(
        reader
            .metric(&format!("{ASKED}{{route=\"configuration\"}}"))
            .await,
        1.0
    );
}
