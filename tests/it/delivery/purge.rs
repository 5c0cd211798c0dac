//! What a purge takes away, what it leaves behind, and what may be written after it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use testkit::edge::{Answer, EdgeMock};
use testkit::events::{
    ACME, FAR_FUTURE, Owner, SITE, at, credit, iso, limit_in, purge, seats, usage, usage_in,
};
use testkit::redis::Redis;
use testkit::sdk::{self, Running};
use testkit::sqs::{Sqs, TestQueue};
use testkit::until;
use testkit::worker::Worker;

const SOON: Duration = Duration::from_secs(30);
/// As long as SQS keeps a message at most.
const FOURTEEN_DAYS: i64 = 1_209_600;

struct Stage {
    redis: Redis,
    queue: TestQueue,
    worker: Worker,
    _sqs: Sqs,
}

async fn stage() -> Stage {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let worker = Worker::builder(&redis, &queue).start().await;
    Stage {
        redis,
        queue,
        worker,
        _sqs: sqs,
    }
}

impl Stage {
    async fn apply(&self, body: &str) {
        self.queue.send(body).await;
        self.queue.wait_empty(SOON).await;
    }

    fn limit(&self, key: &str) -> Option<u64> {
        limit_in(self.redis.get(key).as_ref())
    }

    async fn outcomes(&self, outcome: &str) -> f64 {
        let selector =
            format!("entitlement_sync_messages_processed_total{{outcome=\"{outcome}\"}}");
        self.worker.metric(&selector).await
    }
}

fn four_keys(customer_key: &str) -> BTreeSet<String> {
    ["", "#timestamp", ":metadata", ":metadata#timestamp"]
        .map(|suffix| format!("{customer_key}{suffix}"))
        .into()
}

fn difference(
    from: &BTreeMap<String, String>,
    without: &BTreeMap<String, String>,
) -> BTreeSet<String> {
    from.keys()
        .filter(|key| !without.contains_key(*key))
        .cloned()
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_four_keys_of_each_one_named_are_deleted_and_a_tombstone_is_left() {
    let stage = stage().await;
    let other: Owner<'_> = ("acme-2", None);
    let other_site: Owner<'_> = ("acme", Some("site-2"));
    for owner in [ACME, SITE, other, other_site] {
        stage.apply(&seats(owner, 10, at(1))).await;
        stage.apply(&usage(owner, "seats", 4, at(1))).await;
        stage.apply(&credit(owner, "tokens", 6, at(1))).await;
    }

    let mut before = stage.redis.dump("production:");
    for (owners, customer_keys, second) in [
        (vec![ACME], vec!["production:c_acme"], 2),
        (
            vec![SITE, other],
            vec!["production:c_acme:r_site-1", "production:c_acme-2"],
            3,
        ),
    ] {
        stage.apply(&purge(owners, at(second))).await;
        let after = stage.redis.dump("production:");
        let deleted: BTreeSet<String> = customer_keys.iter().copied().flat_map(four_keys).collect();
        assert_eq!(difference(&before, &after), deleted);
        let tombstones: BTreeSet<String> = customer_keys
            .iter()
            .map(|key| format!("{key}#purged"))
            .collect();
        assert_eq!(difference(&after, &before), tombstones);
        for tombstone in &tombstones {
            assert_eq!(after[tombstone], at(second).to_string());
            let ttl = stage.redis.ttl(tombstone);
            assert!(
                (FOURTEEN_DAYS - 60..=FOURTEEN_DAYS).contains(&ttl),
                "{tombstone} lives {ttl} s"
            );
        }
        for (key, value) in &after {
            assert_eq!(before.get(key).unwrap_or(value), value, "{key} was changed");
        }
        before = after;
    }
    let kept = usage_in(before.get("production:c_acme:f_seats"));
    assert_eq!(kept, Some(4));
    assert!(before.contains_key("production:c_acme:r_site-1:credit_tokens#timestamp"));
}

#[tokio::test(flavor = "multi_thread")]
async fn state_from_before_a_purge_that_arrives_after_it_is_stale_and_newer_state_is_not() {
    let stage = stage().await;
    let key = "production:c_acme";
    stage.apply(&seats(ACME, 1, at(1))).await;
    stage.apply(&purge([ACME], at(20))).await;

    stage.apply(&seats(ACME, 19, at(19))).await;
    stage.apply(&usage(ACME, "seats", 3, at(21))).await;
    assert_eq!(stage.redis.get(key), None);
    assert_eq!(stage.outcomes("stale").await, 1.0);
    assert_eq!(stage.outcomes("skipped").await, 1.0);

    stage.apply(&seats(ACME, 20, at(20))).await;
    assert_eq!(stage.limit(key), Some(20), "as old as the purge");
    stage.apply(&credit(ACME, "tokens", 4, at(19))).await;
    let consumed = stage.redis.get("production:c_acme:credit_tokens");
    assert_eq!(consumed, None, "usage from before the purge");
    stage.apply(&seats(ACME, 21, at(21))).await;
    assert_eq!(stage.limit(key), Some(21));
    // Of the customer, not of its resources.
    stage.apply(&seats(SITE, 5, at(5))).await;
    assert_eq!(stage.limit("production:c_acme:r_site-1"), Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_purge_deletes_no_newer_state_and_moves_no_tombstone_back() {
    let stage = stage().await;
    let keys = four_keys("production:c_acme");
    let tombstone = "production:c_acme#purged";
    stage.apply(&seats(ACME, 30, at(30))).await;
    stage.apply(&purge([ACME], at(29))).await;
    let left = stage.redis.dump("production:c_acme");
    assert!(keys.iter().all(|key| left.contains_key(key)), "{left:#?}");
    assert_eq!(left[tombstone], at(29).to_string());

    stage.apply(&purge([ACME], at(28))).await;
    assert_eq!(stage.redis.get(tombstone), Some(at(29).to_string()));
    assert_eq!(stage.limit("production:c_acme"), Some(30));

    stage.apply(&purge([ACME], at(30))).await;
    assert_eq!(stage.redis.get("production:c_acme"), None);
    assert_eq!(stage.redis.get(tombstone), Some(at(30).to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_and_the_states_around_it_converge_in_every_order() {
    let stage = stage().await;
    let steps = |customer: &str| {
        let owner = (customer, None);
        [
            seats(owner, 10, at(10)),
            purge([owner], at(20)),
            seats(owner, 30, at(30)),
        ]
    };
    let orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    for batched in [false, true] {
        stage.redis.cmd(&["FLUSHALL"]);
        for (number, order) in orders.iter().enumerate() {
            let steps = steps(&format!("customer-{number}"));
            if batched {
                stage
                    .queue
                    .send_all(order.map(|step| steps[step].clone()))
                    .await;
            } else {
                for &step in order {
                    stage.apply(&steps[step]).await;
                }
            }
        }
        // And with nothing newer: the customer is gone.
        let gone = [("gone-0", [0, 1]), ("gone-1", [1, 0])];
        for (customer, order) in gone {
            let steps = steps(customer);
            for step in order {
                stage.apply(&steps[step]).await;
            }
        }
        stage.queue.wait_empty(SOON).await;
        for (customer, order) in gone {
            let key = format!("production:c_{customer}");
            assert_eq!(stage.redis.get(&key), None, "after {order:?}");
        }
        for (number, order) in orders.iter().enumerate() {
            let key = format!("production:c_customer-{number}");
            assert_eq!(stage.limit(&key), Some(30), "after {order:?}");
            let tombstone = stage.redis.get(&format!("{key}#purged"));
            assert_eq!(tombstone, Some(at(20).to_string()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_purges_three_thousand_customers() {
    const MANY: usize = 3000;
    let stage = stage().await;
    let customers: Vec<String> = (0..MANY)
        .map(|number| format!("customer-{number}"))
        .collect();
    let mut conn = stage.redis.conn();
    let mut cached = redis::pipe();
    for customer in &customers {
        let value = format!("production:c_{customer}");
        for key in four_keys(&value) {
            cached.cmd("SET").arg(key).arg(at(1)).ignore();
        }
        cached
            .cmd("SET")
            .arg(format!("{value}:f_seats"))
            .arg("{}")
            .ignore();
    }
    cached.exec(&mut conn).unwrap();

    let owners = customers.iter().map(|customer| (customer.as_str(), None));
    stage.apply(&purge(owners, at(2))).await;
    let expected: BTreeMap<String, String> = customers
        .iter()
        .flat_map(|customer| {
            let key = format!("production:c_{customer}");
            [
                (format!("{key}#purged"), at(2).to_string()),
                (format!("{key}:f_seats"), "{}".to_owned()),
            ]
        })
        .collect();
    let left = stage.redis.dump("production:c_");
    assert!(left == expected, "{} keys are left", left.len());
    assert_eq!(stage.outcomes("applied").await, 1.0);
}

/// As the Edge API answers it.
fn loaded(limit: u64, time: u64) -> Value {
    json!([{
        "__typename": "Entitlement", "isGranted": true, "usageLimit": limit, "hasUnlimitedUsage": false,
        "hasSoftLimit": false, "currentUsage": 2, "entitlementUpdatedAt": iso(time), "usageUpdatedAt": iso(time),
        "usagePeriodEnd": iso(FAR_FUTURE),
        "feature": {
            "__typename": "EntitlementFeature", "refId": "seats", "featureType": "NUMBER", "meterType": "Fluctuating",
            "featureUnits": "seat", "featureUnitsPlural": "seats",
        },
    }])
}

fn asked(customer: &str) -> Value {
    json!({"method": "getMeteredEntitlement", "args": {"customerId": customer, "featureId": "seats"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_sdk_loads_a_purged_customer_again_despite_the_tombstone() {
    let stage = stage().await;
    stage.apply(&seats(ACME, 1, at(1))).await;
    stage.apply(&purge([ACME], at(20))).await;

    // The entitlements did not change at the purge, so what is loaded is older than it.
    let refetch = json!({
        "redis": sdk::place(&stage.redis, "production"), "queries": [asked("acme"), asked("acme")],
        "entitlements": loaded(10, at(10)),
    });
    let seen = sdk::run("refetch.mjs", &refetch).await;
    assert_eq!(seen["requests"], json!(["/v1/c/acme/entitlements.json"]));
    for answer in [&seen["answers"][0], &seen["answers"][1]] {
        assert_eq!(
            (&answer["usageLimit"], &answer["isFallback"]),
            (&json!(10), &json!(false))
        );
    }
    assert_eq!(stage.limit("production:c_acme"), Some(10));

    // Its usage goes on, and older entitlements stay away.
    stage.apply(&usage(ACME, "seats", 5, at(22))).await;
    stage.apply(&seats(ACME, 15, at(15))).await;
    let edge = EdgeMock::start().await;
    let answers = sdk::ask(&stage.redis, "production", &edge.url(), &[asked("acme")]).await;
    assert_eq!(answers[0]["usageLimit"], 10);
    assert_eq!(answers[0]["currentUsage"], 5);
    assert_eq!(edge.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_purge_worker_and_sdk_leave_no_older_value_in_any_order() {
    let stage = stage().await;
    let key = "production:c_acme";

    // The SDK first, with something newer than the message.
    stage.apply(&purge([ACME], at(10))).await;
    let refetch = json!({
        "redis": sdk::place(&stage.redis, "production"), "queries": [asked("acme")],
        "entitlements": loaded(30, at(30)),
    });
    sdk::run("refetch.mjs", &refetch).await;
    stage.apply(&seats(ACME, 20, at(20))).await;
    assert_eq!(stage.limit(key), Some(30));

    // The worker first: while the SDK still waits for an answer that is older.
    stage.apply(&purge([ACME], at(40))).await;
    let edge = EdgeMock::start().await;
    let older = Answer::json(200, &json!({"data": {"entitlements": loaded(45, at(45))}}));
    edge.answer(
        "/v1/c/acme/entitlements.json",
        older.after(Duration::from_secs(2)),
    );
    let question = json!({
        "redis": sdk::place(&stage.redis, "production"), "edgeUrl": edge.url(), "queries": [asked("acme")],
    });
    let reader = Running::start("reader.mjs", &question).await;
    until("the SDK has missed the customer", SOON, async || {
        edge.count() == 1
    })
    .await;
    stage.apply(&seats(ACME, 50, at(50))).await;
    reader.finish().await;
    assert_eq!(stage.limit(key), Some(50));
    assert_eq!(
        stage.redis.get("production:c_acme#timestamp"),
        Some(at(50).to_string())
    );
}
