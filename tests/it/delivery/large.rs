//! A customer larger than one call to Redis may be: written in several, with the rules of one.

use std::time::Duration;

use testkit::events::{ACME, at, entitlements, metered, purge, usage, usage_in};
use testkit::redis::Redis;
use testkit::sqs::{Sqs, TestQueue};
use testkit::until;
use testkit::worker::Worker;

use crate::stand::Stand;

const SOON: Duration = Duration::from_secs(60);
/// Five calls: one has room for 62 keys with their timestamps.
const FEATURES: u64 = 300;
/// The arguments of a call, its name, the digest and the number of its keys.
const MAX_WORDS: usize = 3 + 256;

/// The customer with so much used of each feature, at that time.
fn large(used: u64, time: u64) -> String {
    let features: Vec<_> = (0..FEATURES)
        .map(|number| metered(&format!("n{number}"), 1_000, used, time))
        .collect();
    entitlements(ACME, time, &features)
}

fn used(redis: &Redis, feature: u64) -> Option<u64> {
    usage_in(
        redis
            .get(&format!("production:c_acme:f_n{feature}"))
            .as_ref(),
    )
}

/// How much is used of each feature, where something is stored.
fn all_used(redis: &Redis) -> Vec<u64> {
    (0..FEATURES).filter_map(|it| used(redis, it)).collect()
}

/// The number of words of each call of the script: Redis' log names 31 of a command and counts the others.
fn words_of_calls(redis: &Redis) -> Vec<usize> {
    let entries: Vec<Vec<redis::Value>> =
        redis::from_redis_value(redis.cmd(&["SLOWLOG", "GET", "-1"])).unwrap();
    let commands = entries
        .into_iter()
        .map(|mut entry| redis::from_redis_value::<Vec<String>>(entry.remove(3)).unwrap());
    let calls = commands.filter(|words| words[0].starts_with("EVAL"));
    let words = calls.map(|words| {
        let last = words.last().unwrap();
        let others = last
            .strip_prefix("... (")
            .and_then(|it| it.strip_suffix(" more arguments)"));
        others.map_or(words.len(), |it| {
            words.len() - 1 + it.parse::<usize>().unwrap()
        })
    });
    words.collect()
}

async fn with_log_of_calls() -> Redis {
    Redis::start_with(&[
        "--slowlog-log-slower-than",
        "0",
        "--slowlog-max-len",
        "1000000",
    ])
    .await
}

async fn started(variables: &[(&str, &str)]) -> (Redis, Sqs, TestQueue, Worker) {
    let (redis, sqs) = tokio::join!(with_log_of_calls(), Sqs::start());
    let queue = sqs.queue_with("large", &[("VisibilityTimeout", "2")]).await;
    let mut worker = Worker::builder(&redis, &queue);
    for (name, value) in variables {
        worker = worker.env(name, value);
    }
    let worker = worker.start().await;
    (redis, sqs, queue, worker)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_larger_than_256_arguments() {
    let (redis, _sqs, queue, _worker) = started(&[]).await;
    queue.send(&large(3, at(1))).await;
    queue.wait_empty(SOON).await;
    assert_eq!(all_used(&redis), [3; FEATURES as usize]);
    let words = words_of_calls(&redis);
    assert!(words.iter().all(|it| *it <= MAX_WORDS), "{words:?}");
    let full = words.iter().filter(|it| **it > MAX_WORDS - 10).count();
    assert!(full >= 4, "the customer is in full calls: {words:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_part_is_compared_with_what_is_stored() {
    let (redis, _sqs, queue, worker) = started(&[]).await;
    queue.send(&large(1, at(1))).await;
    queue.wait_empty(SOON).await;
    for feature in [0, 150, 299] {
        let newer = usage(ACME, &format!("n{feature}"), 9, at(5));
        queue.send(&newer).await;
    }
    queue.wait_empty(SOON).await;
    queue.send(&large(2, at(3))).await;
    queue.wait_empty(SOON).await;
    for feature in 0..FEATURES {
        let newer = [0, 150, 299].contains(&feature);
        let expected = if newer { 9 } else { 2 };
        assert_eq!(used(&redis, feature), Some(expected), "feature {feature}");
    }
    // Older state, whole, and after a purge that is newer than it.
    queue.send(&large(7, at(2))).await;
    queue.wait_empty(SOON).await;
    assert!(!all_used(&redis).contains(&7));
    queue.send(&purge([ACME], at(10))).await;
    queue.wait_empty(SOON).await;
    queue.send(&large(8, at(9))).await;
    queue.wait_empty(SOON).await;
    assert!(!all_used(&redis).contains(&8), "purged state came back");
    assert_eq!(redis.get("production:c_acme"), None);
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_an_sdk_has_the_lock_no_part_is_written() {
    let (redis, _sqs, queue, worker) = started(&[]).await;
    redis.set("production-acme", "1");
    queue.send(&large(4, at(1))).await;
    until("the lock is met", SOON, async || {
        worker.metric("entitlement_sync_locked_retries_total").await >= 3.0
    })
    .await;
    assert!(all_used(&redis).is_empty());
    redis.cmd(&["DEL", "production-acme"]);
    queue.wait_empty(SOON).await;
    assert_eq!(all_used(&redis), [4; FEATURES as usize]);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_update_if_exists_one_stored_key_decides_about_all() {
    let policy = [("CACHE_UPDATE_POLICY", "UPDATE_IF_EXISTS")];
    let (redis, _sqs, queue, _worker) = started(&policy).await;
    queue.send(&large(4, at(1))).await;
    queue.wait_empty(SOON).await;
    assert!(redis.dump("production:c_").is_empty(), "it is not cached");
    // As a reader stores it that has not looked at usage.
    redis.set("production:c_acme", "{}");
    redis.set("production:c_acme#timestamp", &at(0).to_string());
    queue.send(&large(5, at(2))).await;
    queue.wait_empty(SOON).await;
    assert_eq!(all_used(&redis), [5; FEATURES as usize]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_half_written_when_redis_goes_is_finished() {
    let stand = Stand::start_with(&[], &[("VisibilityTimeout", "2")]).await;
    let worker = stand.worker().start().await;
    stand.applies("before", 1, SOON).await;
    // The second call does not arrive.
    stand.link.swallow("f_n200");
    stand.queue.send(&large(6, at(1))).await;
    until("the first part is written", SOON, async || {
        used(&stand.redis, 299) == Some(6)
    })
    .await;
    assert_eq!(used(&stand.redis, 0), None);
    let entitlements = stand.redis.get("production:c_acme");
    assert_eq!(entitlements, None, "readers find them with their usage");
    assert!(stand.queue.depth().await > 0, "it is not acknowledged");
    stand.link.swallow("no such bytes");
    stand.queue.wait_empty(SOON).await;
    assert_eq!(all_used(&stand.redis), [6; FEATURES as usize]);
    worker.wait_ready().await;
}
