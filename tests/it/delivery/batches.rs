//! Many messages in one receive: none is lost for a neighbour, repeated for a neighbour, or stopped by one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};
use serde_json::{Value, json};

use crate::stand::Stand;
use testkit::events::{ACME, at, credit, entitlements, metered, purge, seats, usage, usage_in};
use testkit::redis::Redis;
use testkit::sqs::{Sqs, TestQueue};
use testkit::until;
use testkit::worker::Worker;

const SOON: Duration = Duration::from_secs(60);
const ACKNOWLEDGED: &str = "entitlement_sync_messages_acknowledged_total";
const REDELIVERED: &str = "entitlement_sync_messages_redelivered_total";
const LATE: &str = "entitlement_sync_acknowledged_late_total";

async fn acknowledged(worker: &Worker, messages: usize) {
    until("all are acknowledged", SOON, async || {
        worker.metric(ACKNOWLEDGED).await >= messages as f64
    })
    .await;
}

fn used(redis: &Redis, key: &str) -> Option<u64> {
    usage_in(redis.get(&format!("production:{key}")).as_ref())
}

async fn one_consumer(redis: &Redis, queue: &TestQueue) -> Worker {
    Worker::builder(redis, queue)
        .env("CONSUMERS", 1)
        .start()
        .await
}

// --- Nothing is dropped that something between reads ---

#[tokio::test(flavor = "multi_thread")]
async fn usage_of_a_customer_that_the_same_batch_loads_is_kept() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    queue
        .send_all([
            entitlements(ACME, at(1), &[metered("calls", 100, 1, at(0))]),
            credit(ACME, "tokens", 60, at(2)),
            usage(ACME, "calls", 7, at(5)),
            entitlements(ACME, at(3), &[metered("calls", 100, 1, at(0))]),
        ])
        .await;
    let worker = one_consumer(&redis, &queue).await;
    queue.wait_empty(SOON).await;
    acknowledged(&worker, 4).await;
    assert_eq!(used(&redis, "c_acme:credit_tokens"), Some(60));
    assert_eq!(used(&redis, "c_acme:f_calls"), Some(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_of_many_customers_that_their_batches_load_is_kept() {
    const CUSTOMERS: usize = 300;
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let mut bodies = Vec::new();
    for customer in (0..CUSTOMERS).map(|number| format!("customer-{number}")) {
        let owner = (customer.as_str(), None);
        bodies.push(seats(owner, 10, at(1)));
        bodies.push(credit(owner, "tokens", 60, at(2)));
        bodies.push(seats(owner, 20, at(3)));
    }
    queue.send_all(bodies).await;
    let worker = one_consumer(&redis, &queue).await;
    queue.wait_empty(SOON).await;
    acknowledged(&worker, 3 * CUSTOMERS).await;
    let lost = (0..CUSTOMERS)
        .filter(|number| used(&redis, &format!("c_customer-{number}:credit_tokens")) != Some(60))
        .count();
    assert_eq!(lost, 0, "customers without their credit");
}

// --- What is done is not done again ---

/// What an SDK does after a miss: loads the customer, as it was before the purge.
fn load(redis: &Redis, customer: &str) {
    redis.set(&format!("production:c_{customer}"), "{}");
    let stamp = format!("production:c_{customer}#timestamp");
    redis.set(&stamp, &at(1).to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_of_many_is_not_repeated_for_all_while_one_of_them_is_locked() {
    const MANY: usize = 51;
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let customers: Vec<String> = (0..MANY).map(|number| format!("c{number}")).collect();
    for customer in &customers {
        load(&redis, customer);
    }
    let (last, others) = customers.split_last().unwrap();
    let lock = format!("production-{last}");
    redis.set(&lock, "held");
    let worker = one_consumer(&redis, &queue).await;
    queue
        .send(&purge(
            customers.iter().map(|it| (it.as_str(), None)),
            at(9),
        ))
        .await;

    // SDKs load each customer on its miss, as long as the lock is held.
    let is_cached = |customer: &String| redis.get(&format!("production:c_{customer}")).is_some();
    let mut loads: BTreeMap<&String, u32> = BTreeMap::new();
    let locked = "entitlement_sync_locked_retries_total";
    until("the purge was tried for some time", SOON, async || {
        for customer in others.iter().filter(|it| !is_cached(it)) {
            load(&redis, customer);
            *loads.entry(customer).or_default() += 1;
        }
        worker.metric(locked).await >= 20.0 && loads.len() == others.len()
    })
    .await;
    redis.cmd(&["DEL", &lock]);
    queue.wait_empty(SOON).await;
    acknowledged(&worker, 1).await;
    assert!(loads.values().all(|&loads| loads == 1), "{loads:?}");
    assert!(others.iter().all(is_cached), "what was loaded stays");
    assert!(!is_cached(last), "the locked one is purged too");
}

// --- One that stops a call stops no neighbour ---

fn receive_count(message: &Message) -> u32 {
    let attributes = message.attributes.as_ref().unwrap();
    attributes[&MessageSystemAttributeName::ApproximateReceiveCount]
        .parse()
        .unwrap()
}

/// What the dead-letter stream holds.
fn letters(redis: &Redis) -> Vec<BTreeMap<String, String>> {
    let letters = redis.cmd(&["XRANGE", "production:dead-letter", "-", "+"]);
    let letters: Vec<(String, BTreeMap<String, String>)> =
        redis::from_redis_value(letters).unwrap();
    letters.into_iter().map(|(_, letter)| letter).collect()
}

/// Entitlements to so many features: 50 bytes each, and 300 as the value in Redis.
fn many_features(customer: &str, count: usize) -> String {
    let feature =
        |number| json!({"feature": {"id": format!("feature-{number}"), "featureType": "BOOLEAN"}});
    let list: Vec<Value> = (0..count).map(feature).collect();
    entitlements((customer, None), at(1), &list)
}

/// The local SQS hands messages to polls that a worker has cut short, so a gate that stays closed for longer than a
/// connection takes to come back costs deliveries here.
#[tokio::test(flavor = "multi_thread")]
async fn messages_on_which_redis_closes_the_connection_are_given_up_alone() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    // The least that Redis can be set to: a longer value ends the connection.
    redis.cmd(&["CONFIG", "SET", "proto-max-bulk-len", "1048576"]);
    let queue = sqs.queue("q").await;
    let poison: Vec<String> = (0..3)
        .map(|number| many_features(&format!("poison-{number}"), 9_000))
        .collect();
    let mut bodies: Vec<String> = (0..40)
        .map(|number| seats((&format!("c{number}"), None), 10, at(1)))
        .collect();
    bodies.splice(5..5, poison.iter().cloned());
    for body in bodies {
        queue.send(&body).await;
    }
    let worker = Worker::builder(&redis, &queue)
        .env("CONSUMERS", 4)
        .env("MAX_RECEIVE_COUNT", 2)
        .start()
        .await;
    acknowledged(&worker, 43).await;
    queue.wait_empty(SOON).await;
    for number in 0..40 {
        let key = format!("production:c_c{number}");
        assert!(redis.get(&key).is_some(), "{key}");
    }
    let letters = letters(&redis);
    let mut kept: Vec<&String> = letters.iter().map(|letter| &letter["body"]).collect();
    kept.sort_unstable();
    assert_eq!(kept, poison.iter().collect::<Vec<_>>());
    for letter in &letters {
        assert_eq!(letter["receive_count"], "2");
        let reason = "the call to Redis fails only for this message";
        assert!(letter["reason"].contains(reason), "{}", letter["reason"]);
    }
    let redelivered = worker.metric(REDELIVERED).await;
    assert_eq!(redelivered, 3.0, "each of the three once, and no neighbour");
    worker.wait_ready().await;
}

/// Redis gives no answer to the call of one body, and answers every other: each of the messages that were sent with it is
/// tried alone, and the one is given up by its receive count.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_whose_call_redis_gives_no_answer_is_given_up_alone() {
    let stand = Stand::start().await;
    stand.link.swallow("production:c_poison");
    let poison = seats(("poison", None), 10, at(1));
    let mut bodies: Vec<String> = (0..9)
        .map(|number| seats((&format!("c{number}"), None), 10, at(1)))
        .collect();
    bodies.insert(5, poison.clone());
    stand.queue.send_all(bodies).await;
    let worker = stand
        .worker()
        .env("CONSUMERS", 1)
        .env("MIN_POLLERS", 1)
        .env("MAX_RECEIVE_COUNT", 2)
        .start()
        .await;
    acknowledged(&worker, 10).await;
    stand.queue.wait_empty(SOON).await;
    for number in 0..9 {
        let key = format!("production:c_c{number}");
        assert!(stand.redis.get(&key).is_some(), "{key}");
    }
    assert_eq!(stand.redis.get("production:c_poison"), None);
    let letters = letters(&stand.redis);
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["body"], poison);
    assert_eq!(letters[0]["receive_count"], "2");
    let reason = "the call to Redis fails only for this message: Redis does not answer in time";
    assert!(letters[0]["reason"].contains(reason), "{:?}", letters[0]);
    assert_eq!(worker.metric(REDELIVERED).await, 1.0, "of the poison alone");
    worker.wait_ready().await;
}

/// The calls of large bodies, which stay whole with `UPDATE_IF_EXISTS`, take longer than Redis lets others wait, so that calls
/// of another process get BUSY. None of those messages is to blame.
#[tokio::test(flavor = "multi_thread")]
async fn messages_that_meet_a_busy_redis_are_applied() {
    const LARGE: usize = 12;
    const SMALL: usize = 300;
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    redis.cmd(&["CONFIG", "SET", "lua-time-limit", "1"]);
    let (large, small) = (sqs.queue("large").await, sqs.queue("small").await);
    for number in 0..LARGE {
        let features: Vec<_> = (0..5_000)
            .map(|feature| metered(&format!("f{feature}"), 10, 1, at(1)))
            .collect();
        let customer = format!("large-{number}");
        let body = entitlements((&customer, None), at(1), &features);
        assert!(body.len() < 1 << 20, "{}", body.len());
        large.send(&body).await;
        let cached = format!("production:c_{customer}#timestamp");
        redis.set(&cached, &at(0).to_string());
    }
    let bodies = (0..SMALL).map(|number| seats((&format!("c{number}"), None), 10, at(1)));
    small.send_all(bodies.collect::<Vec<_>>()).await;
    let start = async |queue: &TestQueue, policy: &str| {
        let worker = Worker::builder(&redis, queue).env("MAX_RECEIVE_COUNT", 2);
        let worker = worker.env("CACHE_UPDATE_POLICY", policy);
        worker.env("BATCH_SIZE", 2).start().await
    };
    let (of_large, of_small) =
        tokio::join!(start(&large, "UPDATE_IF_EXISTS"), start(&small, "UPSERT"));
    acknowledged(&of_large, LARGE).await;
    acknowledged(&of_small, SMALL).await;
    large.wait_empty(SOON).await;
    small.wait_empty(SOON).await;
    let errors = format!("{:?}", redis.cmd(&["INFO", "errorstats"]));
    assert!(
        errors.contains("errorstat_BUSY"),
        "Redis was never busy: {errors}"
    );
    // Of each customer its entitlements and metadata, and its usage; each with a time.
    let keys = LARGE * (4 + 2 * 5_000) + SMALL * (4 + 2);
    assert_eq!(redis.dump("production:c_").len(), keys);
    assert!(letters(&redis).is_empty());
    of_large.wait_ready().await;
    of_small.wait_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_far_beyond_its_receive_limit_is_given_up_unread() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue_with("q", &[("VisibilityTimeout", "1")]).await;
    // Received as often as by workers that die of it.
    let receive = async |body: &str, times: u32| {
        until("it is received so often", SOON, async || {
            let received = queue.receive_all().await;
            let of_body = received.iter().find(|it| it.body() == Some(body));
            of_body.is_some_and(|message| receive_count(message) >= times)
        })
        .await;
    };
    let dying = seats(("dying", None), 10, at(1));
    let unlucky = seats(("unlucky", None), 10, at(1));
    queue.send(&dying).await;
    receive(&dying, 7).await;
    queue.send(&unlucky).await;
    receive(&unlucky, 3).await;
    receive(&dying, 10).await;
    queue.send(&seats(("new", None), 10, at(1))).await;
    let worker = Worker::builder(&redis, &queue)
        .env("MAX_RECEIVE_COUNT", 2)
        .start()
        .await;
    queue.wait_empty(SOON).await;
    acknowledged(&worker, 3).await;
    // One that was received too often only is applied all the same.
    for customer in ["new", "unlucky"] {
        assert!(redis.get(&format!("production:c_{customer}")).is_some());
    }
    assert_eq!(redis.get("production:c_dying"), None);
    let letters = letters(&redis);
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["body"], dying);
    let reason = &letters[0]["reason"];
    assert!(reason.contains("without an outcome"), "{reason}");
}

// --- An outage costs no receive counts ---

#[tokio::test(flavor = "multi_thread")]
async fn quick_refusals_of_redis_have_nothing_handed_out_twice() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue_with("q", &[("VisibilityTimeout", "120")]).await;
    let worker = Worker::builder(&redis, &queue)
        .env("CONSUMERS", 8)
        .env("MIN_POLLERS", 8)
        .start()
        .await;
    let mut sent = 0;
    for round in 0..5 {
        let (refuse, allow): (&[&str], &[&str]) = match round % 3 {
            0 => (
                &["CONFIG", "SET", "maxmemory", "1"],
                &["CONFIG", "SET", "maxmemory", "0"],
            ),
            1 => (
                &["REPLICAOF", "127.0.0.1", "1"],
                &["REPLICAOF", "NO", "ONE"],
            ),
            _ => (
                &["CONFIG", "SET", "min-replicas-to-write", "1"],
                &["CONFIG", "SET", "min-replicas-to-write", "0"],
            ),
        };
        let since = Instant::now();
        let mut is_refused = false;
        // Sent all the time: before, during and after.
        until("the refusals are over", SOON, async || {
            let bodies =
                (sent..sent + 40).map(|number| seats((&format!("c{number}"), None), 10, at(1)));
            queue.send_all(bodies.collect::<Vec<_>>()).await;
            sent += 40;
            if !is_refused {
                redis.cmd(refuse);
                worker.wait_unready().await;
                is_refused = true;
            }
            since.elapsed() > Duration::from_millis(1_500)
        })
        .await;
        redis.cmd(allow);
        worker.wait_ready().await;
    }
    acknowledged(&worker, sent).await;
    assert_eq!(worker.metric(REDELIVERED).await, 0.0);
    assert_eq!(worker.metric(ACKNOWLEDGED).await, sent as f64);
    queue.wait_empty(SOON).await;
}

/// A body is kept in Redis before its message is acknowledged. While Redis takes none, the consumer keeps the message.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_be_given_up_waits_for_redis_and_is_not_handed_out_again() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue_with("q", &[("VisibilityTimeout", "120")]).await;
    let worker = Worker::builder(&redis, &queue)
        .env("MIN_POLLERS", 2)
        .env("MAX_RECEIVE_COUNT", 1)
        .start()
        .await;
    let held = "entitlement_sync_inflight_messages";
    let mut sent = 0;
    until("messages are held while Redis is full", SOON, async || {
        redis.cmd(&["CONFIG", "SET", "maxmemory", "0"]);
        worker.wait_ready().await;
        acknowledged(&worker, sent).await;
        redis.cmd(&["CONFIG", "SET", "maxmemory", "1"]);
        let bodies = ["no JSON".to_owned(), format!(r#"{{"type":"NEW_{sent}"}}"#)];
        sent += bodies.len();
        queue.send_all(bodies).await;
        worker.wait_unready().await;
        worker.metric(held).await == 2.0
    })
    .await;
    let since = Instant::now();
    until("Redis is full for some time", SOON, async || {
        since.elapsed() > Duration::from_secs(3)
    })
    .await;
    assert_eq!(worker.metric(held).await, 2.0);
    redis.cmd(&["CONFIG", "SET", "maxmemory", "0"]);
    acknowledged(&worker, sent).await;
    queue.wait_empty(SOON).await;
    let letters = letters(&redis);
    assert_eq!(letters.len(), sent);
    assert!(letters.iter().all(|letter| letter["receive_count"] == "1"));
    assert_eq!(worker.metric(REDELIVERED).await, 0.0);
}

// --- Every message that is held is extended ---

#[tokio::test(flavor = "multi_thread")]
async fn what_was_received_ahead_is_extended_while_a_large_body_waits_for_room() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue_with("q", &[("VisibilityTimeout", "4")]).await;
    // Two large bodies may be planned at once, and these wait for locks: the third consumer waits for room,
    // and each has received one more ahead.
    let customers: Vec<String> = (0..6).map(|number| format!("large-{number}")).collect();
    for customer in &customers {
        redis.set(&format!("production-{customer}"), "held");
    }
    let worker = Worker::builder(&redis, &queue)
        .env("CONSUMERS", 3)
        .env("MIN_POLLERS", 3)
        .env("BATCH_SIZE", 1)
        .start()
        .await;
    until("the queue's settings are known", SOON, async || {
        worker.logs().contains("visibility_timeout_secs=4")
    })
    .await;
    for customer in &customers {
        queue.send(&many_features(customer, 6_000)).await;
    }
    let extended = "entitlement_sync_visibility_extensions_total";
    until("twice the timeout has passed", SOON, async || {
        worker.metric(extended).await >= 12.0
    })
    .await;
    for customer in &customers {
        redis.cmd(&["DEL", &format!("production-{customer}")]);
    }
    queue.wait_empty(SOON).await;
    acknowledged(&worker, 6).await;
    assert_eq!(worker.metric(LATE).await, 0.0);
    assert_eq!(worker.metric(REDELIVERED).await, 0.0);
}

/// Its keys would take more than a gigabyte in a call, and Redis would answer BUSY to everyone.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_65000_letters_is_refused_and_its_neighbours_are_applied() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let features: Vec<_> = (0..9_000)
        .map(|number| {
            json!({"feature": {"id": number.to_string(), "featureType": "NUMBER", "meterType": "Incremental"}})
        })
        .collect();
    let body = entitlements((&"x".repeat(65_000), None), at(1), &features);
    assert!((650_000..1 << 20).contains(&body.len()), "{}", body.len());
    for neighbour in 0..40 {
        if neighbour == 20 {
            queue.send(&body).await;
        }
        let customer = format!("customer-{neighbour}");
        queue.send(&seats((&customer, None), 10, at(1))).await;
    }
    let worker = Worker::builder(&redis, &queue)
        .env("CONSUMERS", 10)
        .env("MAX_RECEIVE_COUNT", 2)
        .start()
        .await;
    let mut unready = 0;
    until("all is done with", Duration::from_secs(30), async || {
        unready += u32::from(worker.http("/readyz").await.status != 200);
        assert!(redis.try_cmd(&["PING"]).is_ok(), "Redis serves nobody");
        queue.depth().await == 0
    })
    .await;
    assert_eq!(unready, 0, "readiness went down");
    for neighbour in 0..40 {
        let key = format!("production:c_customer-{neighbour}");
        assert!(redis.get(&key).is_some(), "{key} is not there");
    }
    let errors = format!("{:?}", redis.cmd(&["INFO", "errorstats"]));
    assert!(!errors.contains("BUSY"), "{errors}");
    let letters = letters(&redis);
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (&letters[0]["body"], &*letters[0]["receive_count"]),
        (&body, "2")
    );
    worker.wait_ready().await;
    let logs = worker.logs();
    let reason = "customer id is 65000 bytes long, and the limit is 1024";
    assert!(logs.contains(reason), "{logs}");
    let applied = r#"entitlement_sync_messages_processed_total{outcome="applied"}"#;
    assert_eq!(worker.metric(applied).await, 40.0);
}
