//! What SDK 4.55.0 with its store 1.29.0 finds in Redis after the worker has written. Both run unmodified; the modules
//! that npm does not have are stood in for by `tests/sdk/standin.cjs`, which says what that shows and what it cannot.

use std::time::Duration;

use serde_json::{Value, json};

use testkit::edge::{Answer, EdgeMock};
use testkit::events::purge;
use testkit::{Operator, Redis, Sqs, TestQueue, Worker, sdk, until};

const SOON: Duration = Duration::from_secs(30);
const UPDATED: &str = "2025-11-14T19:59:45.133Z";

fn calls() -> Value {
    json!({"usageLimit": 100, "hasUnlimitedUsage": false, "hasSoftLimit": false, "currentUsage": 7,
        "entitlementUpdatedAt": UPDATED, "usageUpdatedAt": "2025-11-14T19:50:00.000Z", "resetPeriod": "MONTH",
        "feature": {"refId": "calls", "featureType": "NUMBER", "meterType": "Incremental"}})
}

fn sso() -> Value {
    json!({"usageLimit": null, "entitlementUpdatedAt": UPDATED, "feature": {"refId": "sso", "featureType": "BOOLEAN"}})
}

fn set(customer: &str, resource: Option<&str>, entitlements: &[Value]) -> String {
    json!({"data": {"entitlementsUpdated": {"customerId": customer, "resourceId": resource,
        "entitlements": entitlements}}})
    .to_string()
}

fn query(method: &str, customer: &str, feature: &str) -> Value {
    json!({"method": method, "args": {"customerId": customer, "featureId": feature}})
}

fn state_path(customer: &str) -> String {
    format!("/v1/c/{customer}/entitlements-state.json")
}

struct Stage {
    redis: Redis,
    queue: TestQueue,
    edge: EdgeMock,
    _worker: Worker,
    _sqs: Sqs,
}

impl Stage {
    async fn start(policy: &str) -> Stage {
        let (redis, sqs, edge) = (
            Redis::start().await,
            Sqs::start().await,
            EdgeMock::start().await,
        );
        let queue = sqs.queue("q").await;
        let worker = Worker::builder(&redis, &queue)
            .env("CACHE_UPDATE_POLICY", policy)
            .start()
            .await;
        Stage {
            redis,
            queue,
            edge,
            _worker: worker,
            _sqs: sqs,
        }
    }

    async fn apply(&self, bodies: &[String]) {
        for body in bodies {
            self.queue.send(body).await;
            self.queue.wait_empty(SOON).await;
        }
    }

    async fn ask(&self, queries: &[Value]) -> Vec<Value> {
        sdk::ask_4(&self.redis, "production", &self.edge.url(), queries).await
    }

    /// Customers that were loaded from the Edge API so far.
    fn loads(&self, customer: &str) -> usize {
        self.edge.requests_to(&state_path(customer)).len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_worker_writes_is_found_and_migrated() {
    let stage = Stage::start("UPSERT").await;
    let usage = json!({"type": "measurement.reported", "customerId": "acme", "featureId": "calls", "currentUsage": 9,
        "timestamp": "2025-11-14T20:00:00.000Z"});
    let denied = json!({"type": "ENTITLEMENTS_UPDATED", "customerId": "denied", "entitlementsUpdatedAt": UPDATED,
        "accessDeniedReason": "NoActiveSubscription", "entitlements": []});
    stage
        .apply(&[
            set("acme", None, &[calls(), sso()]),
            set("acme", Some("site"), &[sso()]),
            usage.to_string(),
            denied.to_string(),
        ])
        .await;
    let mut of_resource = query("getBooleanEntitlement", "acme", "sso");
    of_resource["args"]["resourceId"] = "site".into();
    let answers = stage
        .ask(&[
            query("getMeteredEntitlement", "acme", "calls"),
            query("getBooleanEntitlement", "acme", "sso"),
            of_resource,
            query("getBooleanEntitlement", "denied", "sso"),
            query("getBooleanEntitlement", "acme", "absent"),
        ])
        .await;
    // The older layout is migrated on read, and the usage key wins over what stands beside the limit.
    let found = &answers[0]["found"];
    assert_eq!(
        (&found["type"], &found["usageLimit"], &found["resetPeriod"]),
        (&json!("FEATURE"), &json!(100), &json!("MONTH")),
        "{answers:#?}"
    );
    assert_eq!(answers[0]["usage"]["currentUsage"], 9);
    assert_eq!(answers[0]["usage"]["usageUpdatedAt"], 1_763_150_400_000_u64);
    assert_eq!(answers[1]["found"]["feature"]["id"], "sso");
    assert_eq!(answers[2]["found"]["feature"]["id"], "sso");
    assert_eq!(answers[3]["accessDeniedReason"], "NoActiveSubscription");
    // What is not in the map is a denial, and no reason to load the customer.
    assert_eq!(answers[4]["found"], Value::Null);
    assert_eq!(stage.edge.requests_to("/v1/c/").len(), 0);

    // Without the metadata key, as `warm` leaves it, it is a hit still.
    for key in ["", "#timestamp"] {
        let key = format!("production:c_acme:metadata{key}");
        stage.redis.cmd(&["DEL", &key]);
    }
    let answers = stage
        .ask(&[query("getBooleanEntitlement", "acme", "sso")])
        .await;
    assert_eq!(answers[0]["found"]["feature"]["id"], "sso");
    assert_eq!(stage.edge.requests_to("/v1/c/").len(), 0);

    // A usage without its time is a miss of that feature alone.
    stage
        .redis
        .cmd(&["DEL", "production:c_acme:f_calls#timestamp"]);
    stage
        .ask(&[query("getBooleanEntitlement", "acme", "sso")])
        .await;
    assert_eq!(stage.loads("acme"), 0);
    stage
        .ask(&[query("getMeteredEntitlement", "acme", "calls")])
        .await;
    assert!(stage.loads("acme") > 0);

    // A resource that is older than its customer, and a customer that was purged, are misses.
    stage
        .apply(&[purge([("denied", None)], 1_763_150_400_000)])
        .await;
    assert_eq!(stage.loads("denied"), 0);
    stage
        .ask(&[query("getBooleanEntitlement", "denied", "sso")])
        .await;
    assert!(stage.loads("denied") > 0);
}

/// As docs/compatibility.md recommends it for fleets of 4.12 and later.
#[tokio::test(flavor = "multi_thread")]
async fn with_invalidate_each_event_has_the_sdk_load_its_own_layout() {
    let stage = Stage::start("INVALIDATE").await;
    let mut loaded = calls();
    loaded["__typename"] = "FeatureEntitlement".into();
    let credit = json!({"__typename": "CreditEntitlement", "currency": {"currencyId": "tokens"}, "usageLimit": 500,
        "currentUsage": 60, "entitlementUpdatedAt": UPDATED, "usageUpdatedAt": "2025-11-14T19:50:00.000Z"});
    let state = json!({"data": {"entitlementsState": {"__typename": "EntitlementsState", "accessDeniedReason": null,
        "entitlements": [], "entitlementsV2": [loaded, credit]}}});
    stage
        .edge
        .answer(&state_path("acme"), Answer::json(200, &state));
    let credits = json!({"method": "getCreditEntitlement", "args": {"customerId": "acme", "currencyId": "tokens"}});
    let ask = async || stage.ask(std::slice::from_ref(&credits)).await.remove(0);

    stage.apply(&[set("acme", None, &[calls()])]).await;
    assert_eq!(stage.redis.get("production:c_acme"), None);
    let answer = ask().await;
    assert_eq!(answer["usage"]["currentUsage"], 60, "{answer:#}");
    assert_eq!(stage.loads("acme"), 1);
    until("the SDK has written", SOON, async || {
        stage.redis.get("production:c_acme").is_some()
    })
    .await;
    // The credit is in the cache, and a usage event of it is seen without another load.
    let used = json!({"type": "CREDIT_BALANCE_UPDATED", "customerId": "acme", "currencyId": "tokens",
        "totalConsumed": 75, "timestamp": "2025-11-14T20:00:00.000Z"});
    stage.apply(&[used.to_string()]).await;
    let answer = ask().await;
    assert_eq!(answer["usage"]["currentUsage"], 75, "{answer:#}");
    assert_eq!(stage.loads("acme"), 1);

    // What the vendor's store wrote is what `check` looks for.
    let found = Operator::of(&stage.redis)
        .queue(&stage.queue)
        .env("SERVER_API_KEY", "key")
        .env("EDGE_API_URL", stage.edge.url())
        .run(&["check"])
        .await;
    assert!(
        found
            .stdout
            .contains("1 of 1 customers are in the layout of SDK 4.12 and later"),
        "{found:?}"
    );

    // The next event of its entitlements has it loaded again, once.
    let later = set("acme", None, &[calls()]).replace(UPDATED, "2025-11-14T20:10:00.000Z");
    stage.apply(&[later]).await;
    assert_eq!(stage.redis.get("production:c_acme"), None);
    ask().await;
    ask().await;
    assert_eq!(stage.loads("acme"), 2);
}
