//! Other clients of the Edge API: requests as the vendor's Python client makes them, and SDK 4.55 without a Redis, whose
//! missing modules `tests/sdk/standin.cjs` stands in for.

use serde_json::{Value, json};

use super::sdk::{entitlements, know};
use testkit::edge::Answer;
use testkit::http::Reply;
use testkit::{EdgeMock, Reader, Redis, sdk};

/// It sends these two and nothing else of its own.
const HEADERS: [(&str, &str); 2] = [("X-API-KEY", "test-key"), ("X-API-VERSION", "1")];

async fn ask(reader: &Reader, path: &str) -> Reply {
    let reply = reader.ask(("GET", path), &HEADERS, "").await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.body);
    assert_eq!(reply.header("content-type"), "application/json", "{path}");
    reply
}

/// What its models require of an entitlement; without it, they refuse the whole answer.
fn is_complete(entitlement: &Value, typename: &str) {
    assert_eq!(entitlement["__typename"], typename, "{entitlement}");
    for field in ["isGranted", "hasUnlimitedUsage"] {
        assert!(entitlement[field].is_boolean(), "{field}: {entitlement}");
    }
    let feature = &entitlement["feature"];
    for field in ["displayName", "refId", "featureType", "__typename"] {
        assert!(feature[field].is_string(), "{field}: {entitlement}");
    }
    // Without them an SDK takes now for the time, which would hide what the worker writes.
    for field in ["entitlementUpdatedAt", "usageUpdatedAt"] {
        let is_metered = feature["meterType"].as_str().is_some_and(|it| it != "None");
        let is_needed = field == "entitlementUpdatedAt" || is_metered;
        assert!(
            !is_needed || entitlement[field].is_string(),
            "{field}: {entitlement}"
        );
    }
}

/// Without credits: what they grant only the Edge API can tell.
pub fn without_credits(limit: u64) -> Value {
    let mut all = entitlements(limit);
    for entitlement in all.as_array_mut().unwrap() {
        entitlement.as_object_mut().unwrap().remove("creditRate");
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_finds_all_that_its_models_require() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    know(&edge, "acme", None, &without_credits(10));
    know(&edge, "acme", Some("r+1"), &without_credits(20));
    know(&edge, "empty", None, &json!([]));
    edge.answer(
        "/v1/c/empty/entitlements-state.json",
        state(&json!([]), None),
    );
    let reader = Reader::builder(&redis, &edge.url()).start().await;

    let all = ask(&reader, "/v1/c/acme/entitlements.json").await.json();
    let all = all["data"]["entitlements"].as_array().unwrap();
    assert_eq!(all.len(), 8);
    for entitlement in all {
        is_complete(entitlement, "Entitlement");
    }

    let one = async |query: &str| {
        let path = format!("/v1/c/acme/entitlements.json?{query}");
        let mut answer = ask(&reader, &path).await.json();
        // One object and no list.
        assert_eq!(answer["data"].as_object().unwrap().len(), 1, "{answer}");
        answer["data"]["entitlement"].take()
    };
    for (query, is_granted, reason) in [
        ("featureId=seats", true, Value::Null),
        ("featureId=seats&requestedUsage=7.5", true, Value::Null),
        (
            "featureId=seats&requestedUsage=8",
            false,
            json!("RequestedUsageExceedingLimit"),
        ),
        // It escapes no value of a query: a plus sign is one.
        (
            "featureId=seats&resourceId=r+1&requestedUsage=17",
            true,
            Value::Null,
        ),
        (
            "featureId=seats&resourceId=r+1&requestedUsage=18",
            false,
            json!("RequestedUsageExceedingLimit"),
        ),
        ("featureId=audit", false, json!("Revoked")),
        ("featureId=sso", true, Value::Null),
    ] {
        let one = one(query).await;
        is_complete(&one, "Entitlement");
        assert_eq!(one["isGranted"], is_granted, "{query}");
        assert_eq!(one["accessDeniedReason"], reason, "{query}");
    }
    // Too large a number is no number: it would count as none, and be granted.
    for usage in ["many", "1e400", "inf", "-inf", "NaN"] {
        let path = format!("/v1/c/acme/entitlements.json?featureId=seats&requestedUsage={usage}");
        let reply = reader.ask(("GET", &path), &HEADERS, "").await;
        assert_eq!(reply.status, 400, "{usage}: {}", reply.body);
    }
    // It decides nothing by the end of a period itself.
    assert_eq!(one("featureId=calls").await["currentUsage"], 0);
    let absent = one("featureId=absent").await;
    assert_eq!(absent["isGranted"], false);
    assert_eq!(absent["hasUnlimitedUsage"], false);
    assert_eq!(
        absent["accessDeniedReason"],
        "NoFeatureEntitlementInSubscription"
    );
    assert_eq!(absent["__typename"], "Entitlement");

    let state = ask(&reader, "/v1/c/acme/entitlements-state.json")
        .await
        .json();
    let state = &state["data"]["entitlementsState"];
    assert_eq!(state["__typename"], "EntitlementsState");
    for (list, typename) in [
        ("entitlements", "Entitlement"),
        ("entitlementsV2", "FeatureEntitlement"),
    ] {
        assert_eq!(state[list].as_array().unwrap().len(), 8, "{list}");
        for entitlement in state[list].as_array().unwrap() {
            is_complete(entitlement, typename);
        }
    }
    let empty = ask(&reader, "/v1/c/empty/entitlements-state.json")
        .await
        .json();
    let empty = &empty["data"]["entitlementsState"];
    assert_eq!(
        (&empty["entitlements"], &empty["entitlementsV2"]),
        (&json!([]), &json!([]))
    );
}

fn query(method: &str, feature: &str) -> Value {
    json!({"method": method, "args": {"customerId": "acme", "featureId": feature}})
}

/// As the Edge API answers SDK 4.x.
fn state(entitlements: &Value, credit: Option<Value>) -> Answer {
    let mut list = entitlements.as_array().unwrap().clone();
    for entitlement in &mut list {
        entitlement["__typename"] = "FeatureEntitlement".into();
    }
    list.extend(credit);
    let state = json!({"__typename": "EntitlementsState", "accessDeniedReason": null, "entitlements": entitlements,
        "entitlementsV2": list});
    Answer::json(200, &json!({"data": {"entitlementsState": state}}))
}

#[tokio::test(flavor = "multi_thread")]
async fn sdk_4_without_redis_finds_what_the_edge_api_gives() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let directly = EdgeMock::start().await;
    let all = without_credits(10);
    know(&edge, "acme", None, &all);
    let path = "/v1/c/acme/entitlements-state.json";
    directly.answer(path, state(&all, None));
    let configuration = json!({"data": {"sdkConfiguration": {}}});
    directly.answer(
        "/v1/config/server-sdk-configuration.json",
        Answer::json(200, &configuration),
    );
    let reader = Reader::builder(&redis, &edge.url())
        .env("READ_API_KEYS", sdk::KEY)
        .start()
        .await;
    let queries = [
        query("getBooleanEntitlement", "sso"),
        query("getBooleanEntitlement", "audit"),
        query("getNumericEntitlement", "regions"),
        query("getMeteredEntitlement", "seats"),
        query("getMeteredEntitlement", "calls"),
        query("getBooleanEntitlement", "absent"),
    ];
    let by_us = sdk::ask_4_without_redis(&reader.url(), &queries).await;
    let by_edge = sdk::ask_4_without_redis(&directly.url(), &queries).await;
    assert_eq!(by_us[3]["found"]["usageLimit"], 10, "{by_us:#?}");
    assert_eq!(by_us[3]["usage"]["currentUsage"], 2.5);
    for (at, (by_us, by_edge)) in by_us.iter().zip(&by_edge).enumerate() {
        assert_eq!(by_us["found"], by_edge["found"], "{}", queries[at]);
        // Of what is not metered the layout keeps no usage.
        if at >= 3 {
            assert_eq!(by_us["usage"], by_edge["usage"], "{}", queries[at]);
        }
    }
    assert_eq!(by_us[5]["found"], Value::Null);
    // It was loaded once, and asked for at each question.
    assert_eq!(edge.requests_to("/v1/c/").len(), 1);
    assert_eq!(directly.requests_to(path).len(), queries.len());
}

/// The layout of Redis keeps no credit entitlements, so the Edge API answers for them.
#[tokio::test(flavor = "multi_thread")]
async fn sdk_4_is_given_its_credits_by_the_edge_api() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let all = entitlements(10);
    know(&edge, "acme", None, &all);
    let path = "/v1/c/acme/entitlements-state.json";
    let credit = json!({"__typename": "CreditEntitlement", "currency": {"currencyId": "tokens"}, "usageLimit": 500,
        "currentUsage": 60, "usageUpdatedAt": "2025-11-14T19:50:00.000Z", "entitlementUpdatedAt": "2025-11-14T19:50:00.000Z"});
    edge.answer(path, state(&all, Some(credit)));
    let reader = Reader::builder(&redis, &edge.url())
        .env("READ_API_KEYS", sdk::KEY)
        .start()
        .await;
    let credits = json!({"method": "getCreditEntitlement", "args": {"customerId": "acme", "currencyId": "tokens"}});
    let answers = sdk::ask_4_without_redis(&reader.url(), &[credits]).await;
    assert_eq!(answers[0]["usage"]["currentUsage"], 60, "{answers:#?}");
    assert_eq!(edge.requests_to(path).len(), 1);
}
