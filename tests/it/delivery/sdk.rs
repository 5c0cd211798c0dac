//! What the vendor's SDK reads after the worker has written, with no call to the network.

use std::time::Duration;

use serde_json::{Value, json};

use testkit::edge::{Answer, EdgeMock};
use testkit::events::{FAR_FUTURE, purge};
use testkit::redis::Redis;
use testkit::sdk;
use testkit::sqs::{Sqs, TestQueue};
use testkit::worker::Worker;

const SOON: Duration = Duration::from_secs(30);
const UPDATED: &str = "2025-11-14T19:59:45.133Z";
const RESOURCE_UPDATED: &str = "2025-11-14T19:59:46.000Z";
const USED: &str = "2025-11-14T19:50:00.000Z";
const PERIOD_START: &str = "2025-11-01T00:00:00.000Z";
const PERIOD_END: &str = "2100-01-01T00:00:00.000Z";

/// The customers of these tests, each in the shape of another event.
const WEBHOOK: &str = "by-webhook";
const GRAPHQL: &str = "by-graphql";
const PAYLOAD: &str = "by-payload";
const CUSTOMERS: [&str; 3] = [WEBHOOK, GRAPHQL, PAYLOAD];

struct Stage {
    redis: Redis,
    queue: TestQueue,
    edge: EdgeMock,
    _worker: Worker,
    _sqs: Sqs,
}

async fn stage() -> Stage {
    stage_with("UPSERT").await
}

async fn stage_with(policy: &str) -> Stage {
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

impl Stage {
    async fn apply(&self, bodies: impl IntoIterator<Item = Value>) {
        let bodies = bodies.into_iter().map(|body| body.to_string());
        self.queue.send_all(bodies).await;
        self.queue.wait_empty(SOON).await;
    }

    async fn ask(&self, queries: &[Value]) -> Vec<Value> {
        sdk::ask(&self.redis, "production", &self.edge.url(), queries).await
    }

    /// The SDK gives these answers, and asks only Redis for them.
    async fn assert_answers(&self, cases: &[(Value, Value)]) {
        let before = self.edge.count();
        let queries: Vec<Value> = cases.iter().map(|(query, _)| query.clone()).collect();
        let answers = self.ask(&queries).await;
        for ((query, expected), answer) in cases.iter().zip(&answers) {
            assert_eq!(answer, expected, "answer to {query}");
        }
        assert_eq!(answers.len(), cases.len());
        assert_eq!(self.edge.count() - before, 0, "requests to the Edge API");
    }
}

fn with(mut object: Value, own: Value) -> Value {
    let fields = object.as_object_mut().unwrap();
    fields.extend(own.as_object().unwrap().clone());
    object
}

/// All kinds of entitlements, as webhooks tell of them.
fn webhook_entitlements(seats: u64, used: u64) -> Value {
    let entitlement = |id: &str, feature: Value, own: Value| {
        let feature = with(json!({"id": id, "name": id, "status": "ACTIVE"}), feature);
        let common = json!({
            "feature": feature, "usageLimit": null, "hasUnlimitedUsage": false, "hasSoftLimit": false,
            "currentUsage": 0, "usagePeriodAnchor": null, "usagePeriodStart": null, "usagePeriodEnd": null,
            "resetPeriod": null, "resetPeriodConfiguration": null, "enumValues": null,
        });
        with(common, own)
    };
    json!([
        entitlement("sso", json!({"featureType": "BOOLEAN"}), json!({})),
        entitlement(
            "audit",
            json!({"featureType": "BOOLEAN", "meterType": "NONE"}),
            json!({"accessDeniedReason": "Revoked"})
        ),
        entitlement(
            "regions",
            json!({"featureType": "NUMBER", "meterType": "NONE", "unit": "region", "units": "regions"}),
            json!({"usageLimit": 4294967296.5}),
        ),
        entitlement(
            "tier",
            json!({"featureType": "ENUM"}),
            json!({"enumValues": ["gold", "silver"]})
        ),
        entitlement(
            "seats",
            json!({"featureType": "NUMBER", "meterType": "FLUCTUATING", "unit": "seat", "units": "seats"}),
            json!({
                "usageLimit": seats, "currentUsage": used, "usagePeriodAnchor": PERIOD_START,
                "usagePeriodStart": PERIOD_START, "usagePeriodEnd": PERIOD_END, "resetPeriod": "MONTH",
                "resetPeriodConfiguration": {"accordingTo": "SubscriptionStart"},
            }),
        ),
    ])
}

/// The same, as GraphQL tells of them.
fn graphql_entitlements(seats: u64, used: u64, updated: &str) -> Value {
    let entitlement = |id: &str, feature: Value, own: Value| {
        let feature = with(
            json!({"__typename": "EntitlementFeature", "refId": id, "displayName": id, "meterType": null}),
            feature,
        );
        let common = json!({
            "__typename": "Entitlement", "isGranted": true, "accessDeniedReason": null, "usageLimit": null,
            "hasUnlimitedUsage": false, "hasSoftLimit": false, "currentUsage": 0, "enumValues": null,
            "entitlementUpdatedAt": updated, "usageUpdatedAt": null, "usagePeriodAnchor": null,
            "usagePeriodStart": null, "usagePeriodEnd": null, "resetPeriod": null,
            "resetPeriodConfiguration": null, "feature": feature,
        });
        with(common, own)
    };
    json!([
        entitlement("sso", json!({"featureType": "BOOLEAN"}), json!({})),
        entitlement(
            "audit",
            json!({"featureType": "BOOLEAN", "meterType": "None"}),
            json!({"isGranted": false, "accessDeniedReason": "Revoked"}),
        ),
        entitlement(
            "regions",
            json!({"featureType": "NUMBER", "meterType": "None", "featureUnits": "region", "featureUnitsPlural": "regions"}),
            json!({"usageLimit": 4294967296.5}),
        ),
        entitlement(
            "tier",
            json!({"featureType": "ENUM"}),
            json!({"enumValues": ["gold", "silver"]})
        ),
        entitlement(
            "seats",
            json!({"featureType": "NUMBER", "meterType": "Fluctuating", "featureUnits": "seat", "featureUnitsPlural": "seats"}),
            json!({
                "usageLimit": seats, "currentUsage": used, "usageUpdatedAt": USED, "usagePeriodAnchor": PERIOD_START,
                "usagePeriodStart": PERIOD_START, "usagePeriodEnd": PERIOD_END, "resetPeriod": "MONTH",
                "resetPeriodConfiguration": {
                    "__typename": "MonthlyResetPeriodConfig", "monthlyAccordingTo": "SubscriptionStart",
                },
                "creditRate": {"amount": 2, "currencyId": "tokens"}, "validUntil": FAR_FUTURE,
            }),
        ),
    ])
}

/// The event about a customer or resource, in the shape of that customer.
fn told(customer: &str, resource: Option<&str>, seats: u64, used: u64) -> Value {
    let updated = match resource {
        None => UPDATED,
        Some(_) => RESOURCE_UPDATED,
    };
    let graphql = graphql_entitlements(seats, used, updated);
    match customer {
        WEBHOOK => json!({
            "type": "entitlements.updated", "messageId": "ce26", "timestamp": updated, "environmentId": "e",
            "customer": {"id": customer, "name": "Acme"}, "resource": resource.map(|id| json!({"id": id})),
            "entitlementsUpdatedAt": updated, "entitlements": webhook_entitlements(seats, used),
        }),
        GRAPHQL => json!({"data": {"entitlementsUpdated": {
            "customerId": customer, "resourceId": resource, "entitlements": graphql,
        }}}),
        _ => json!({"type": "ENTITLEMENTS_UPDATED", "timestamp": updated, "payload": {
            "customerId": customer, "resourceId": resource, "entitlements": graphql,
        }}),
    }
}

fn query(
    method: &str,
    customer: &str,
    resource: Option<&str>,
    feature: &str,
    options: Value,
) -> Value {
    let mut args = json!({"customerId": customer, "featureId": feature, "options": options});
    if let Some(resource) = resource {
        args["resourceId"] = resource.into();
    }
    json!({"method": method, "args": args})
}

fn list(customer: &str, resource: Option<&str>) -> Value {
    let mut args = vec![customer];
    args.extend(resource);
    json!({"method": "getEntitlements", "args": args})
}

fn answer(kind: &str, id: &str, feature: Value, own: Value) -> Value {
    let feature = with(
        json!({"id": id, "units": "", "unitsPlural": "", "isMetered": false}),
        feature,
    );
    let common = json!({"type": kind, "isFallback": false, "hasAccess": true, "feature": feature});
    with(common, own)
}

fn sso() -> Value {
    answer(
        "BOOLEAN",
        "sso",
        json!({"featureType": "BOOLEAN"}),
        json!({}),
    )
}

fn audit() -> Value {
    answer(
        "BOOLEAN",
        "audit",
        json!({"featureType": "BOOLEAN", "meterType": "None"}),
        json!({"hasAccess": false, "accessDeniedReason": "Revoked"}),
    )
}

fn regions() -> Value {
    answer(
        "NUMERIC",
        "regions",
        json!({"featureType": "NUMBER", "meterType": "None", "units": "region", "unitsPlural": "regions"}),
        json!({"isUnlimited": false, "value": 4294967296.5}),
    )
}

fn tier() -> Value {
    let enum_values = json!({"enumValues": ["gold", "silver"]});
    answer("ENUM", "tier", json!({"featureType": "ENUM"}), enum_values)
}

fn seats(limit: u64, used: u64, requested: u64) -> Value {
    let mut answer = answer(
        "METERED",
        "seats",
        json!({
            "featureType": "NUMBER", "meterType": "Fluctuating", "units": "seat", "unitsPlural": "seats",
            "isMetered": true,
        }),
        json!({
            "isUnlimited": false, "hasSoftLimit": false, "usageLimit": limit, "currentUsage": used,
            "requestedUsage": requested, "resetPeriod": "MONTH", "usagePeriodAnchor": PERIOD_START,
            "usagePeriodStart": PERIOD_START, "usagePeriodEnd": PERIOD_END, "nextResetDate": PERIOD_END,
        }),
    );
    if used + requested > limit {
        answer["hasAccess"] = false.into();
        answer["accessDeniedReason"] = "RequestedUsageExceedingLimit".into();
    }
    answer
}

/// Every way to ask, and what must be answered.
fn cases(customer: &str, resource: Option<&str>, limit: u64, used: u64) -> Vec<(Value, Value)> {
    let ask = |method, feature, options| query(method, customer, resource, feature, options);
    let left = limit - used;
    vec![
        (ask("getBooleanEntitlement", "sso", json!({})), sso()),
        (ask("getBooleanEntitlement", "audit", json!({})), audit()),
        (
            ask("getNumericEntitlement", "regions", json!({})),
            regions(),
        ),
        (
            ask(
                "getMeteredEntitlement",
                "seats",
                json!({"requestedUsage": left}),
            ),
            seats(limit, used, left),
        ),
        (
            ask(
                "getMeteredEntitlement",
                "seats",
                json!({"requestedUsage": left + 1}),
            ),
            seats(limit, used, left + 1),
        ),
        (
            ask(
                "getEnumEntitlement",
                "tier",
                json!({"requestedValues": ["gold"]}),
            ),
            with(tier(), json!({"requestedValues": ["gold"]})),
        ),
        (
            ask(
                "getEnumEntitlement",
                "tier",
                json!({"requestedValues": ["lead"]}),
            ),
            with(
                tier(),
                json!({
                    "requestedValues": ["lead"], "hasAccess": false, "accessDeniedReason": "RequestedValuesMismatch",
                }),
            ),
        ),
        (
            list(customer, resource),
            json!([sso(), audit(), regions(), tier(), seats(limit, used, 0)]),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_answers_from_redis_alone_whatever_the_shape_of_the_messages() {
    let stage = stage().await;
    stage
        .apply(CUSTOMERS.map(|customer| told(customer, None, 10, 4)))
        .await;
    stage
        .apply(CUSTOMERS.map(|customer| told(customer, Some("site-1"), 6, 2)))
        .await;
    let mut all = Vec::new();
    for customer in CUSTOMERS {
        all.extend(cases(customer, None, 10, 4));
        all.extend(cases(customer, Some("site-1"), 6, 2));
        all.push((
            query(
                "getBooleanEntitlement",
                customer,
                None,
                "nothing-of-ours",
                json!({}),
            ),
            json!({
                "type": "BOOLEAN", "isFallback": false, "hasAccess": false,
                "accessDeniedReason": "NoFeatureEntitlementInSubscription",
            }),
        ));
    }
    stage.assert_answers(&all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_answers_with_the_usage_reported_since() {
    let stage = stage().await;
    let sites = [None, Some("site-1")];
    for resource in sites {
        stage
            .apply(CUSTOMERS.map(|customer| told(customer, resource, 10, 4)))
            .await;
    }
    let later = "2025-11-14T20:00:00.000Z";
    let usages = sites.iter().flat_map(|resource| {
        [
            json!({
                "type": "measurement.reported", "messageId": "a6ce", "timestamp": later, "currentUsage": 7,
                "usagePeriodStart": PERIOD_START, "usagePeriodEnd": PERIOD_END,
                "feature": {"id": "seats", "featureType": "NUMBER", "meterType": "FLUCTUATING"},
                "customer": {"id": WEBHOOK}, "resource": resource.map(|id| json!({"id": id})),
            }),
            json!({"data": {"usageUpdated": {
                "usage": {
                    "customerId": GRAPHQL, "resourceId": resource, "featureId": "seats", "currentUsage": 7,
                    "usagePeriodStart": 1_761_955_200_000_u64, "usagePeriodEnd": FAR_FUTURE,
                },
                "entitlement": {"usageUpdatedAt": later},
            }}}),
            json!({"type": "usageUpdatedV2", "payload": {
                "customerId": PAYLOAD, "resourceId": resource, "entitlementReference": {"id": "seats", "type": "FEATURE"},
                "usage": {
                    "currentUsage": 7, "usageUpdatedAt": later, "usagePeriodStart": PERIOD_START,
                    "usagePeriodEnd": PERIOD_END,
                },
            }}),
        ]
    });
    stage.apply(usages).await;
    let mut all = Vec::new();
    for customer in CUSTOMERS {
        for resource in sites {
            all.extend(cases(customer, resource, 10, 7));
        }
    }
    stage.assert_answers(&all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_without_entitlements_is_known_and_not_asked_for() {
    let stage = stage().await;
    stage
        .apply([json!({"type": "ENTITLEMENTS_UPDATED", "timestamp": UPDATED, "payload": {
            "customerId": "acme", "accessDeniedReason": "NoActiveSubscription", "entitlements": [],
        }})])
        .await;
    stage
        .assert_answers(&[(list("acme", None), json!([]))])
        .await;
    let sso = query("getBooleanEntitlement", "acme", None, "sso", json!({}));
    let answers = stage.ask(&[sso]).await;
    assert_eq!(answers[0]["hasAccess"], false, "{}", answers[0]);
    assert_eq!(answers[0]["isFallback"], false, "{}", answers[0]);
    assert_eq!(stage.edge.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_loads_a_purged_customer_once_and_answers_from_redis_again() {
    let stage = stage().await;
    stage.apply([told(GRAPHQL, None, 10, 4)]).await;
    stage.assert_answers(&cases(GRAPHQL, None, 10, 4)).await;
    stage
        .queue
        .send(&purge([(GRAPHQL, None)], 1_763_200_000_000))
        .await;
    stage.queue.wait_empty(SOON).await;

    let path = format!("/v1/c/{GRAPHQL}/entitlements.json");
    let loaded = graphql_entitlements(20, 5, UPDATED);
    let loaded = json!({"data": {"entitlements": loaded}});
    stage.edge.answer(&path, Answer::json(200, &loaded));
    let metered = query("getMeteredEntitlement", GRAPHQL, None, "seats", json!({}));
    let answers = stage.ask(&[metered.clone(), metered]).await;
    assert_eq!(answers, [seats(20, 5, 0), seats(20, 5, 0)]);
    assert_eq!(stage.edge.requests_to(&path).len(), 1);
    assert_eq!(stage.edge.count(), 1);
    stage.assert_answers(&cases(GRAPHQL, None, 20, 5)).await;
}

/// What removes a customer: any list of entitlements under INVALIDATE, and one with credits under UPSERT.
#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_loads_a_customer_afresh_where_the_layout_cannot_hold_a_list() {
    let credit = json!({"__typename": "CreditEntitlement", "currency": {"currencyId": "tokens"}, "usageLimit": 100,
        "currentUsage": 60, "usageUpdatedAt": USED, "entitlementUpdatedAt": RESOURCE_UPDATED});
    for (policy, more) in [("INVALIDATE", None), ("UPSERT", Some(credit))] {
        let stage = stage_with(policy).await;
        let path = format!("/v1/c/{GRAPHQL}/entitlements.json");
        let load = |seats, used| {
            let loaded = graphql_entitlements(seats, used, UPDATED);
            let answer = json!({"data": {"entitlements": loaded}});
            stage.edge.answer(&path, Answer::json(200, &answer));
        };
        let metered = query("getMeteredEntitlement", GRAPHQL, None, "seats", json!({}));
        load(10, 4);
        let answers = stage.ask(&[metered.clone(), metered.clone()]).await;
        assert_eq!(answers, [seats(10, 4, 0), seats(10, 4, 0)]);
        assert_eq!(stage.edge.requests_to(&path).len(), 1);

        let mut entitlements = graphql_entitlements(20, 5, RESOURCE_UPDATED);
        entitlements.as_array_mut().unwrap().extend(more.clone());
        load(20, 5);
        stage
            .apply([json!({"data": {"entitlementsUpdatedV2": {
                "customerId": GRAPHQL, "resourceId": null, "entitlements": entitlements}}})])
            .await;
        let key = format!("production:c_{GRAPHQL}");
        assert_eq!(stage.redis.get(&key), None, "{policy}");
        let credit_key = format!("{key}:credit_tokens");
        let expected = more.map(|_| r#"{"currentUsage":60}"#.to_owned());
        assert_eq!(stage.redis.get(&credit_key), expected, "{policy}");
        let answers = stage.ask(&[metered.clone(), metered.clone()]).await;
        assert_eq!(answers, [seats(20, 5, 0), seats(20, 5, 0)], "{policy}");
        assert_eq!(stage.edge.requests_to(&path).len(), 2, "{policy}");

        // Usage is applied as ever.
        stage
            .apply([
                json!({"type": "MEASUREMENT_REPORTED", "customerId": GRAPHQL, "featureId": "seats",
                "currentUsage": 7, "usageUpdatedAt": "2025-11-14T21:00:00.000Z",
                "usagePeriodStart": PERIOD_START, "usagePeriodEnd": PERIOD_END}),
            ])
            .await;
        let answers = stage.ask(&[metered]).await;
        assert_eq!(answers, [seats(20, 7, 0)], "{policy}");
        assert_eq!(stage.edge.requests_to(&path).len(), 2, "{policy}");
    }
}
