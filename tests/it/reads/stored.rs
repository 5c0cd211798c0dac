//! What the read API writes to Redis, and how long the rest is fresh.

use serde_json::{Value, json};

use super::{SOON, UPDATED, VERSION, path, version, with_policy};
use testkit::{Answer, EdgeMock, Reader, Redis, until};

pub fn list(entitlements: &Value) -> Answer {
    Answer::json(200, &json!({"data": {"entitlements": entitlements}}))
}

pub fn limit(meter: &str, at: Option<&str>) -> Value {
    json!({"__typename": "Entitlement", "isGranted": true, "usageLimit": 7, "currentUsage": 1,
        "entitlementUpdatedAt": at, "usageUpdatedAt": at,
        "feature": {"refId": VERSION, "featureType": "NUMBER", "meterType": meter}})
}

/// A credit entitlement, which the layout of Redis does not hold.
pub fn credit() -> Value {
    json!({"__typename": "CreditEntitlement", "currency": {"currencyId": "tokens"}, "usageLimit": 500,
        "currentUsage": 60, "usageUpdatedAt": UPDATED, "entitlementUpdatedAt": UPDATED})
}

/// A customer of each kind: what the Edge API tells of it, and whether Redis may hold it.
fn customers() -> [(&'static str, Value, bool); 4] {
    let dated = limit("None", Some(UPDATED));
    [
        ("whole", json!([dated]), true),
        // It could hide what an event of a moment ago brings.
        ("empty", json!([]), false),
        ("undated", json!([limit("None", None)]), false),
        ("credits", json!([dated, credit()]), false),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_redis_can_hold_is_written_to_it() {
    for policy in ["UPSERT", "INVALIDATE"] {
        let (redis, edge, reader) = with_policy(policy).await;
        for (customer, entitlements, may_be_stored) in customers() {
            edge.answer(&path(customer), list(&entitlements));
            let reply = reader.get(&path(customer)).await;
            assert_eq!(reply.status, 200, "{policy}, {customer}: {reply:?}");
            let expected = (customer != "empty").then_some(7);
            assert_eq!(version(&reply), expected, "{policy}, {customer}");
            let is_stored = redis.get(&format!("production:c_{customer}")).is_some();
            let is_expected = may_be_stored && policy == "UPSERT";
            assert_eq!(is_stored, is_expected, "{policy}, {customer}");
        }
    }
}

/// Redis tells of an invalidated customer by its tombstone, and of usage by nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_redis_does_not_hold_is_fresh_for_its_time_if_it_has_usage() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let reader = Reader::builder(&redis, &edge.url())
        .env("CACHE_UPDATE_POLICY", "INVALIDATE")
        .env("LOCAL_FRESH_MS", 300)
        .start()
        .await;
    for (customer, meter) in [("plain", "None"), ("metered", "Fluctuating")] {
        let entitlement = limit(meter, Some(UPDATED));
        edge.answer(&path(customer), list(&json!([entitlement])));
    }
    let asked = |customer: &str| edge.requests_to(&path(customer)).len();
    until("usage is asked for again", SOON, async || {
        for customer in ["plain", "metered"] {
            assert_eq!(version(&reader.get(&path(customer)).await), Some(7));
        }
        asked("metered") >= 3
    })
    .await;
    assert_eq!(asked("plain"), 1);
    redis.set("production:c_plain#purged", "1");
    until("an invalidated customer is asked for", SOON, async || {
        assert_eq!(version(&reader.get(&path("plain")).await), Some(7));
        asked("plain") == 2
    })
    .await;
}
