//! Events of an unknown kind beside changes in one message: the changes are applied, then a copy of the message is kept,
//! then the message leaves the queue.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use testkit::events::{ACME, at, seats, usage};
use testkit::redis::Redis;
use testkit::sqs::Sqs;
use testkit::until;
use testkit::worker::Worker;

const SOON: Duration = Duration::from_secs(30);
const ACKNOWLEDGED: &str = "entitlement_sync_messages_acknowledged_total";
const UNRECOGNISED: &str =
    r#"entitlement_sync_messages_processed_total{kind="other",outcome="unrecognised"}"#;
const APPLIED: &str =
    r#"entitlement_sync_messages_processed_total{kind="measurement_reported",outcome="applied"}"#;
const SEATS: &str = "production:c_acme:f_seats";
const LETTERS: &str = "production:dead-letter";

/// The usage of seats, beside an event of an unknown kind.
fn with_unknown(current: u64) -> String {
    let unknown = json!({"type": "customer.merged", "id": format!("canary-{current}")});
    format!(
        "[{},{unknown}]",
        usage(ACME, "seats", current, at(1 + current))
    )
}

fn used(redis: &Redis) -> String {
    redis.get(SEATS).unwrap_or_default()
}

fn letters(redis: &Redis) -> Vec<BTreeMap<String, String>> {
    let stream = redis.cmd(&["XRANGE", LETTERS, "-", "+"]);
    let stream: Vec<(String, BTreeMap<String, String>)> = redis::from_redis_value(stream).unwrap();
    stream.into_iter().map(|(_, letter)| letter).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_beside_an_unknown_event_are_applied_and_ten_copies_are_kept() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let worker = Worker::builder(&redis, &queue).start().await;
    queue.send(&seats(ACME, 10, at(1))).await;
    queue.wait_empty(SOON).await;
    queue.send_all((1..=12).map(with_unknown)).await;
    queue.wait_empty(SOON).await;
    until("they are counted", SOON, async || {
        worker.metric(UNRECOGNISED).await == 12.0 && worker.metric(ACKNOWLEDGED).await == 13.0
    })
    .await;
    assert_eq!(used(&redis), r#"{"currentUsage":12}"#);
    let logs = worker.logs();
    assert_eq!(logs.matches("customer.merged").count(), 1, "{logs}");
    assert!(
        logs.contains("an event of an unknown kind was not recognised"),
        "{logs}"
    );
    assert!(!logs.contains("canary"), "{logs}");
    let kept = letters(&redis);
    assert_eq!(kept.len(), 10, "{kept:#?}");
    for letter in kept {
        assert!(letter["body"].contains("customer.merged"), "{letter:#?}");
        assert!(
            letter["reason"].starts_with("unrecognised: one of its events has an unknown kind"),
            "{letter:#?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn types_in_a_list_of_other_things_are_not_kinds() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let worker = Worker::builder(&redis, &queue).start().await;
    let inner = json!({"customerId": "acme", "entitlements": []});
    let body = json!({"envelope": {"actors": [{"type": "user", "id": "u"}], "inner": inner}});
    queue.send(&body.to_string()).await;
    queue.wait_empty(SOON).await;
    until("it is acknowledged", SOON, async || {
        worker.metric(ACKNOWLEDGED).await == 1.0
    })
    .await;
    assert_eq!(redis.get("production:c_acme").as_deref(), Some("{}"));
    assert_eq!(worker.metric(UNRECOGNISED).await, 0.0);
    assert!(letters(&redis).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_copy_is_kept_only_when_the_changes_are_applied() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let worker = Worker::builder(&redis, &queue)
        .env("CACHE_LOCK_RETRY_COUNT", 1_000)
        .start()
        .await;
    queue.send(&seats(ACME, 10, at(1))).await;
    queue.wait_empty(SOON).await;
    redis.set("production-acme", "an SDK");
    queue.send(&with_unknown(7)).await;
    until("it meets the lock", SOON, async || {
        worker.metric("entitlement_sync_locked_retries_total").await >= 3.0
    })
    .await;
    assert!(letters(&redis).is_empty(), "kept before it is applied");
    redis.cmd(&["DEL", "production-acme"]);
    queue.wait_empty(SOON).await;
    assert_eq!(used(&redis), r#"{"currentUsage":7}"#);
    assert_eq!(letters(&redis).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_copy_can_be_kept_the_changes_are_applied_and_the_message_stays() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let worker = Worker::builder(&redis, &queue).start().await;
    queue.send(&seats(ACME, 10, at(1))).await;
    queue.wait_empty(SOON).await;
    redis.set(LETTERS, "no stream");
    queue.send(&with_unknown(7)).await;
    queue.send(r#"{"type": "customer.split", "id": 1}"#).await;
    until("both are said", SOON, async || {
        let logs = worker.logs();
        logs.matches("cannot keep an unrecognised message; it stays in the queue")
            .count()
            >= 2
    })
    .await;
    until("the changes are applied", SOON, async || {
        used(&redis) == r#"{"currentUsage":7}"#
    })
    .await;
    queue.send(&seats(("other", None), 10, at(1))).await;
    until("another customer is applied", SOON, async || {
        redis.get("production:c_other").is_some()
    })
    .await;
    assert_eq!(worker.metric(UNRECOGNISED).await, 0.0);
    until("both are left", SOON, async || queue.depth().await == 2).await;
    redis.cmd(&["DEL", LETTERS]);
    queue.wait_empty(2 * SOON).await;
    assert_eq!(letters(&redis).len(), 2);
    until("they are counted", SOON, async || {
        worker.metric(UNRECOGNISED).await == 2.0 && worker.metric(APPLIED).await == 1.0
    })
    .await;
}
