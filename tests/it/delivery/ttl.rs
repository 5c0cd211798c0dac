//! How long keys live.

use std::time::Duration;

use testkit::events::{ACME, at, credit, limit_in, purge, seats, usage, usage_in};
use testkit::redis::Redis;
use testkit::sqs::{Sqs, TestQueue};
use testkit::until;
use testkit::worker::{Builder, Worker};

const SOON: Duration = Duration::from_secs(20);
const WEEK: i64 = 604_800;
const ALL_KEYS: [&str; 8] = [
    "production:c_acme",
    "production:c_acme#timestamp",
    "production:c_acme:metadata",
    "production:c_acme:metadata#timestamp",
    "production:c_acme:f_seats",
    "production:c_acme:f_seats#timestamp",
    "production:c_acme:credit_tokens",
    "production:c_acme:credit_tokens#timestamp",
];

struct Stage {
    redis: Redis,
    queue: TestQueue,
    worker: Worker,
    _sqs: Sqs,
}

async fn stage(setting: impl FnOnce(Builder) -> Builder) -> Stage {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let worker = setting(Worker::builder(&redis, &queue)).start().await;
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

    /// Of every key of the layout, each at least once written.
    async fn write_all(&self, second: u64) {
        self.apply(&seats(ACME, 10, at(second))).await;
        self.apply(&usage(ACME, "seats", 2, at(second))).await;
        self.apply(&credit(ACME, "tokens", 3, at(second))).await;
    }

    fn assert_ttls(&self, keys: &[&str], expected: i64) {
        for key in keys {
            let ttl = self.redis.ttl(key);
            assert!(
                (expected - 60..=expected).contains(&ttl),
                "{key} lives {ttl} s instead of {expected} s"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_live_a_week_by_default() {
    let stage = stage(|builder| builder).await;
    stage.write_all(1).await;
    stage.assert_ttls(&ALL_KEYS, WEEK);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_live_as_long_as_configured() {
    let stage = stage(|builder| builder.env("KEYS_TTL_IN_SECS", 7200)).await;
    stage.write_all(1).await;
    stage.assert_ttls(&ALL_KEYS, 7200);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_write_lets_its_keys_live_on_and_a_stale_one_does_not() {
    let stage = stage(|builder| builder).await;
    stage.write_all(5).await;
    let (of_customer, of_usage) = (&ALL_KEYS[..4], &ALL_KEYS[4..6]);
    let nearly_expired = || {
        for key in ALL_KEYS {
            stage.redis.cmd(&["EXPIRE", key, "1000"]);
        }
    };

    nearly_expired();
    stage.apply(&seats(ACME, 10, at(4))).await;
    stage.apply(&usage(ACME, "seats", 2, at(4))).await;
    stage.assert_ttls(&ALL_KEYS, 1000);

    // The very same state again is a write too.
    stage.apply(&usage(ACME, "seats", 2, at(5))).await;
    stage.assert_ttls(of_usage, WEEK);
    stage.assert_ttls(of_customer, 1000);

    nearly_expired();
    stage.write_all(6).await;
    stage.assert_ttls(&ALL_KEYS, WEEK);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_negative_ttl_keys_never_expire() {
    let stage = stage(|builder| builder.env("KEYS_TTL_IN_SECS", -1)).await;
    stage.write_all(1).await;
    for key in ALL_KEYS {
        assert_eq!(stage.redis.ttl(key), -1, "{key}");
        stage.redis.cmd(&["EXPIRE", key, "1000"]);
    }
    // An expiry from former times ends with the next write.
    stage.write_all(2).await;
    for key in ALL_KEYS {
        assert_eq!(stage.redis.ttl(key), -1, "{key}");
    }
    assert_eq!(stage.worker.metric("entitlement_sync_redis_up").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ttl_of_zero_is_refused_at_the_start() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let worker = Worker::builder(&redis, &queue)
        .env("KEYS_TTL_IN_SECS", 0)
        .spawn();
    assert_eq!(worker.wait_exit(SOON).await, 78);
    let logs = worker.logs();
    let line = logs
        .lines()
        .find(|line| line.contains("KEYS_TTL_IN_SECS"))
        .unwrap_or_else(|| panic!("the variable is not named in {logs}"));
    assert!(line.contains("is 0") && line.contains("-1"), "{line}");
}

/// Readers load what has expired whole, so what is older than the keys live finds nothing that it could
/// be ordered by.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_longer_ago_than_keys_live_writes_only_where_a_stamp_is_stored() {
    const TTL_SECS: u64 = 4;
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let cached = |customer: &str, second: u64| {
        for key in ["", ":metadata", ":f_seats"] {
            let key = format!("production:c_{customer}{key}");
            redis.set(&key, r#"{"currentUsage":0}"#);
            redis.set(&format!("{key}#timestamp"), &at(second).to_string());
        }
    };
    cached("older", 1);
    cached("newer", 9);
    cached("purged", 1);
    for customer in ["older", "newer", "absent"] {
        queue.send(&seats((customer, None), 10, at(5))).await;
        queue
            .send(&usage((customer, None), "calls", 3, at(5)))
            .await;
        queue
            .send(&credit((customer, None), "tokens", 3, at(5)))
            .await;
    }
    queue.send(&purge([("purged", None)], at(5))).await;
    let sent = std::time::Instant::now();
    until("the messages are too old", SOON, async || {
        sent.elapsed() > Duration::from_secs(TTL_SECS)
    })
    .await;

    let worker = Worker::builder(&redis, &queue)
        .env("KEYS_TTL_IN_SECS", TTL_SECS)
        .start()
        .await;
    let get = |customer: &str, key: &str| redis.get(&format!("production:c_{customer}{key}"));
    // What is written lives for the TTL only.
    until("the older state is replaced", SOON, async || {
        limit_in(get("older", "").as_ref()) == Some(10)
            && usage_in(get("older", ":f_seats").as_ref()) == Some(1)
            && get("older", "#timestamp") == Some(at(5).to_string())
    })
    .await;
    queue.wait_empty(SOON).await;
    assert_eq!(get("newer", "#timestamp"), Some(at(9).to_string()));
    assert_eq!(usage_in(get("newer", ":f_seats").as_ref()), Some(0));
    assert_eq!(get("purged", ""), None);
    assert_eq!(get("purged", "#purged"), Some(at(5).to_string()));
    assert!(redis.dump("production:c_absent").is_empty());
    for customer in ["older", "newer"] {
        assert_eq!(get(customer, ":f_calls"), None, "{customer}");
        assert_eq!(get(customer, ":credit_tokens"), None, "{customer}");
    }
    let mut outcomes = Vec::new();
    for outcome in ["applied", "stale", "skipped", "expired", "ignored"] {
        let selector =
            format!("entitlement_sync_messages_processed_total{{outcome=\"{outcome}\"}}");
        outcomes.push((outcome, worker.metric(&selector).await));
    }
    // Applied: the state of "older" and the purge. Usage of a customer that is not cached is skipped.
    let expected = [
        ("applied", 2.0),
        ("stale", 1.0),
        ("skipped", 2.0),
        ("expired", 5.0),
        ("ignored", 0.0),
    ];
    assert_eq!(outcomes, expected);
}
