//! A message leaves the queue when Redis holds what it says, or when it is given up; never before, and never by accident.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use serde_json::{Value, json};

use testkit::events::{ACME, at, entitlements, limit_in, seats, usage_in};
use testkit::fault::{Fault, FaultProxy};
use testkit::proxy::TcpProxy;
use testkit::redis::Redis;
use testkit::sqs::{Sqs, TestQueue};
use testkit::until;
use testkit::worker::Worker;

const SOON: Duration = Duration::from_secs(30);
const DELETE: &str = "DeleteMessageBatch";
const CHANGE: &str = "ChangeMessageVisibilityBatch";
const ACKNOWLEDGED: &str = "entitlement_sync_messages_acknowledged_total";
const REDELIVERED: &str = "entitlement_sync_messages_redelivered_total";
const DEAD_LETTERED: &str = "entitlement_sync_messages_dead_lettered_total";
const NO_JSON: &str = "no JSON: \u{fc}\n\"{";

fn customers(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("customer-{number}"))
        .collect()
}

async fn send_seats(queue: &TestQueue, customers: &[String]) {
    let bodies = customers
        .iter()
        .map(|customer| seats((customer, None), 10, at(1)));
    queue.send_all(bodies).await;
}

/// The customers whose entitlements stand in Redis.
fn cached(redis: &Redis) -> BTreeSet<String> {
    redis
        .dump("production:c_")
        .into_keys()
        .filter_map(|key| {
            let customer = key.strip_prefix("production:c_")?;
            (!customer.contains([':', '#'])).then(|| customer.to_owned())
        })
        .collect()
}

fn entries(calls: &[Value]) -> Vec<Vec<&Value>> {
    let entries = |call: &'static str| move |body: &Value| body[call].as_array().is_some();
    assert!(calls.iter().all(entries("Entries")), "{calls:?}");
    calls
        .iter()
        .map(|body| body["Entries"].as_array().unwrap().iter().collect())
        .collect()
}

fn receipts(call: &[&Value]) -> Vec<String> {
    call.iter()
        .map(|entry| entry["ReceiptHandle"].as_str().unwrap().to_owned())
        .collect()
}

// --- Written first, deleted then ---

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_write_cannot_happen_is_not_deleted() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    // The local SQS hands messages to polls that were given up too: few polls, and a short time.
    let patience = Duration::from_secs(60);
    let queue = sqs.queue_with("q", &[("VisibilityTimeout", "5")]).await;
    let link = TcpProxy::start(redis.port()).await;
    let faults = FaultProxy::start(sqs.endpoint()).await;
    let worker = Worker::builder(&redis, &queue)
        .env("CONSUMERS", 1)
        .redis_port(link.port())
        .endpoint(faults.url())
        .start()
        .await;

    for (round, outage) in ["frozen", "silent", "cut"].into_iter().enumerate() {
        let before = faults.calls(DELETE);
        match outage {
            "frozen" => redis.freeze(),
            "silent" => link.blackhole(),
            _ => link.cut().await,
        }
        let key = format!("production:c_{outage}");
        queue.send(&seats((outage, None), 10, at(1))).await;
        worker.wait_unready().await;
        assert_eq!(queue.depth().await, 1, "{outage}");
        assert_eq!(faults.calls(DELETE), before, "{outage}");

        match outage {
            "frozen" => redis.thaw(),
            _ => link.restore().await,
        }
        queue.wait_empty(patience).await;
        assert_eq!(limit_in(redis.get(&key).as_ref()), Some(10), "{outage}");
        worker.wait_ready().await;
        until("it is counted", SOON, async || {
            worker.metric(ACKNOWLEDGED).await == (round + 1) as f64
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_deleted_before_its_value_stands_in_redis() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let (queue, link) = (sqs.queue("q").await, TcpProxy::start(redis.port()).await);
    let faults = FaultProxy::start(sqs.endpoint()).await;
    let _worker = Worker::builder(&redis, &queue)
        .redis_port(link.port())
        .endpoint(faults.url())
        .start()
        .await;
    // A write takes longer than an acknowledgement waits for company.
    link.delay(Duration::from_millis(150));
    for round in 0..5 {
        let customers: Vec<String> = (0..8).map(|number| format!("{round}-{number}")).collect();
        send_seats(&queue, &customers).await;
        until("all of them are deleted", SOON, async || {
            // In this order: what is deleted by now was written before now.
            let deleted: usize = entries(&faults.bodies(DELETE)).iter().map(Vec::len).sum();
            let written = cached(&redis).len();
            assert!(deleted <= written, "{deleted} deleted, {written} written");
            deleted == 8 * (round + 1)
        })
        .await;
    }
    queue.wait_empty(SOON).await;
}

// --- Deleting ---

#[tokio::test(flavor = "multi_thread")]
async fn only_the_entries_that_failed_are_deleted_again() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let faults = FaultProxy::start(sqs.endpoint()).await;
    send_seats(&queue, &customers(5)).await;
    faults.once(DELETE, Fault::fail_entries(&[1, 3], false));
    let worker = Worker::builder(&redis, &queue)
        .env("CONSUMERS", 1)
        .endpoint(faults.url())
        .start()
        .await;
    queue.wait_empty(SOON).await;
    until("it is counted", SOON, async || {
        worker.metric(ACKNOWLEDGED).await == 5.0
    })
    .await;

    let bodies = faults.bodies(DELETE);
    let calls = entries(&bodies);
    assert_eq!(calls.len(), 2);
    let (first, second) = (receipts(&calls[0]), receipts(&calls[1]));
    assert_eq!(first.len(), 5);
    assert_eq!(second, [first[1].clone(), first[3].clone()]);
    let failures = "entitlement_sync_acknowledge_failures_total";
    assert_eq!(worker.metric(failures).await, 0.0);
    assert_eq!(worker.metric(REDELIVERED).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_failed_by_our_own_fault_is_not_deleted_again() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue_with("q", &[("VisibilityTimeout", "3")]).await;
    let faults = FaultProxy::start(sqs.endpoint()).await;
    send_seats(&queue, &customers(3)).await;
    faults.once(DELETE, Fault::fail_entries(&[1], true));
    let worker = Worker::builder(&redis, &queue)
        .env("CONSUMERS", 1)
        .endpoint(faults.url())
        .start()
        .await;
    let failures = "entitlement_sync_acknowledge_failures_total";
    until("the failure is counted", SOON, async || {
        worker.metric(failures).await == 1.0
    })
    .await;
    // SQS redelivers it, with another receipt.
    queue.wait_empty(SOON).await;
    until("it is counted", SOON, async || {
        worker.metric(ACKNOWLEDGED).await == 3.0
    })
    .await;
    assert_eq!(worker.metric(REDELIVERED).await, 1.0);
    let bodies = faults.bodies(DELETE);
    let calls = entries(&bodies);
    assert_eq!(calls.len(), 2);
    assert!(!receipts(&calls[0]).contains(&receipts(&calls[1])[0]));
    assert_eq!(cached(&redis).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_a_delete_that_is_lost_does_no_harm() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let faults = FaultProxy::start(sqs.endpoint()).await;
    let worker = Worker::builder(&redis, &queue)
        .endpoint(faults.url())
        .start()
        .await;
    faults.once(DELETE, Fault::LoseAnswer);
    send_seats(&queue, &customers(5)).await;
    until("it is deleted once more", SOON, async || {
        faults.calls(DELETE) >= 2 && queue.depth().await == 0
    })
    .await;
    let before = redis.dump("production:");

    queue.send(&seats(("later", None), 10, at(1))).await;
    queue.wait_empty(SOON).await;
    let mut after = redis.dump("production:");
    after.retain(|key, _| !key.starts_with("production:c_later"));
    assert_eq!(after, before);
    assert_eq!(cached(&redis).len(), 6);
    assert_eq!(worker.metric(REDELIVERED).await, 0.0);
    assert_eq!(worker.http("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_numbered_by_position_and_name_no_message_twice() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let faults = FaultProxy::start(sqs.endpoint()).await;
    let _worker = Worker::builder(&redis, &queue)
        .env("MAX_RECEIVE_COUNT", 2)
        .endpoint(faults.url())
        .start()
        .await;
    let mut bodies: Vec<String> = customers(60)
        .iter()
        .map(|customer| seats((customer, None), 10, at(1)))
        .collect();
    bodies.extend((0..5).map(|number| format!("{NO_JSON}{number}")));
    queue.send_all(bodies).await;
    queue.wait_empty(SOON).await;

    for action in [DELETE, CHANGE] {
        let bodies = faults.bodies(action);
        let mut seen = HashSet::new();
        for call in entries(&bodies) {
            assert!((1..=10).contains(&call.len()), "{action}: {}", call.len());
            for (position, entry) in call.iter().enumerate() {
                assert_eq!(entry["Id"], position.to_string(), "{action}");
            }
            for receipt in receipts(&call) {
                assert!(seen.insert(receipt), "{action} twice by one receipt");
            }
        }
        assert_eq!(
            seen.len(),
            if action == DELETE { 65 } else { 5 },
            "{action}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_received_one_by_one_are_deleted_ten_at_a_time_all_the_same() {
    const MANY: usize = 200;
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let mut calls = BTreeMap::new();
    for batch_size in [1, 10] {
        let queue = sqs.queue(&format!("by-{batch_size}")).await;
        let faults = FaultProxy::start(sqs.endpoint()).await;
        send_seats(&queue, &customers(MANY)).await;
        let worker = Worker::builder(&redis, &queue)
            .env("CONSUMERS", 40)
            .env("BATCH_SIZE", batch_size)
            .endpoint(faults.url())
            .start()
            .await;
        queue.wait_empty(SOON).await;
        until("it is counted", SOON, async || {
            worker.metric(ACKNOWLEDGED).await == MANY as f64
        })
        .await;
        calls.insert(batch_size, faults.calls(DELETE));
    }
    assert!(calls[&1] <= 3 * calls[&10], "{calls:?}");
    assert!(calls[&1] <= MANY / 4, "{calls:?}");
}

// --- Receiving ---

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_poll_is_followed_by_another_and_by_nothing_else() {
    let nothing = || Fault::Answer {
        status: 200,
        code: "",
        body: "{}".to_owned(),
    };
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let faults = FaultProxy::start(sqs.endpoint()).await;
    let worker = Worker::builder(&redis, &queue)
        .env("CONSUMERS", 2)
        .env("MIN_POLLERS", 2)
        .endpoint(faults.url())
        .start()
        .await;
    let receive = "ReceiveMessage";
    until("both poll", SOON, async || faults.open(receive) == 2).await;
    until("start-up is over", SOON, async || {
        worker.logs().contains("settings of the queue read")
    })
    .await;
    let (lines, polls) = (worker.logs(), faults.calls(receive));

    // What takes 20 s in life takes none here; the first message ends the poll under way.
    faults.times(receive, 100, nothing());
    queue.send(r#"{"type": "PACKAGE_PUBLISHED"}"#).await;
    until("it polls and polls", SOON, async || {
        faults.calls(receive) >= polls + 100 && faults.open(receive) == 2
    })
    .await;
    queue.wait_empty(SOON).await;
    assert_eq!(worker.logs(), lines);
    assert_eq!(faults.calls(DELETE), 1, "of the message");
    assert_eq!(faults.calls(CHANGE), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_without_effect_are_acknowledged_and_named_once() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let worker = Worker::builder(&redis, &queue).start().await;
    let kinds = ["PLAN_CREATED", "coupon.updated", "PLAN_CREATED"];
    let bodies = (0..12).map(|number| json!({"type": kinds[number % 3], "number": number}));
    queue.send_all(bodies.map(|body| body.to_string())).await;
    queue.wait_empty(SOON).await;
    until("they are counted", SOON, async || {
        let ignored =
            r#"entitlement_sync_messages_processed_total{kind="other",outcome="ignored"}"#;
        worker.metric(ignored).await == 12.0 && worker.metric(ACKNOWLEDGED).await == 12.0
    })
    .await;
    let logs = worker.logs();
    for kind in &kinds[..2] {
        assert_eq!(logs.matches(kind).count(), 1, "{kind} in {logs}");
    }
    assert!(cached(&redis).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_each_unknown_kind_ten_are_kept_and_all_are_acknowledged() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let worker = Worker::builder(&redis, &queue).start().await;
    let kinds = ["customer.merged", "Promotion-Created"];
    let bodies = (0..24).map(|number| {
        json!({"type": kinds[number % 2], "id": format!("canary-{number}"), "canary-name": {"id": 1}})
    });
    queue.send_all(bodies.map(|body| body.to_string())).await;
    queue.wait_empty(SOON).await;
    until("they are counted", SOON, async || {
        let unrecognised =
            r#"entitlement_sync_messages_processed_total{kind="other",outcome="unrecognised"}"#;
        worker.metric(unrecognised).await == 24.0 && worker.metric(ACKNOWLEDGED).await == 24.0
    })
    .await;
    let logs = worker.logs();
    for kind in kinds {
        assert_eq!(logs.matches(kind).count(), 1, "{kind} in {logs}");
    }
    assert!(
        logs.contains("{id:string,type:string,?:{id:number}}") || logs.contains("type:string"),
        "{logs}"
    );
    assert!(!logs.contains("canary"), "{logs}");
    let kept = format!(
        "{:?}",
        redis.cmd(&["XRANGE", "production:dead-letter", "-", "+"])
    );
    assert_eq!(kept.matches("unrecognised: ").count(), 20, "{kept}");
    assert!(cached(&redis).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_aws_itself_are_acknowledged_after_one_warning() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let worker = Worker::builder(&redis, &queue).start().await;
    let test_event = json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "canary"});
    let confirm =
        json!({"Type": "SubscriptionConfirmation", "Token": "canary", "Message": "canary"});
    let bodies = [&test_event, &confirm, &test_event, &confirm];
    queue.send_all(bodies.map(|body| body.to_string())).await;
    queue.wait_empty(SOON).await;
    until("they are acknowledged", SOON, async || {
        worker.metric(ACKNOWLEDGED).await == 4.0
    })
    .await;
    let logs = worker.logs();
    for notice in ["s3:TestEvent", "SubscriptionConfirmation"] {
        assert_eq!(logs.matches(notice).count(), 1, "{notice} in {logs}");
    }
    assert!(!logs.contains("canary"), "{logs}");
    assert_eq!(worker.metric(DEAD_LETTERED).await, 0.0);
}

// --- What cannot be applied ---

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_messages_hold_up_no_neighbour_and_come_again_later_and_later() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue_with("q", &[("VisibilityTimeout", "600")]).await;
    let faults = FaultProxy::start(sqs.endpoint()).await;
    let mut bodies = vec![
        NO_JSON.to_owned(),
        seats(("first", None), 10, at(1)),
        r#"{"type": "ENTITLEMENTS_UPDATED", "customerId": "acme"}"#.to_owned(),
        seats(("last", None), 10, at(1)),
    ];
    bodies.extend((0..6).map(|number| format!("{NO_JSON}{number}")));
    queue.send_all(bodies).await;
    let worker = Worker::builder(&redis, &queue)
        .env("CONSUMERS", 1)
        .env("MAX_RECEIVE_COUNT", 4)
        .endpoint(faults.url())
        .start()
        .await;
    until("the readable ones are acknowledged", SOON, async || {
        worker.metric(ACKNOWLEDGED).await >= 2.0
    })
    .await;
    assert_eq!(cached(&redis), ["first", "last"].map(String::from).into());
    until(
        "the others are given up",
        Duration::from_secs(60),
        async || worker.metric(DEAD_LETTERED).await == 8.0,
    )
    .await;
    queue.wait_empty(SOON).await;

    // Eight messages, each given back three times and given up at the fourth.
    let delays: Vec<u64> = entries(&faults.bodies(CHANGE))
        .into_iter()
        .flatten()
        .map(|entry| entry["VisibilityTimeout"].as_u64().unwrap())
        // What was received before the queue's settings were known may be extended by them.
        .filter(|&delay| delay != 600)
        .collect();
    assert_eq!(delays.len(), 24, "{delays:?}");
    assert!(
        delays.iter().all(|delay| (1..=8).contains(delay)),
        "{delays:?}"
    );
    assert!(delays[..8].iter().all(|&delay| delay <= 2), "{delays:?}");
    assert!(delays.iter().any(|&delay| delay > 2), "{delays:?}");
    let received = "entitlement_sync_messages_received_total";
    assert_eq!(worker.metric(received).await, 2.0 + 8.0 * 4.0);
    let logs = worker.logs();
    assert!(!logs.contains(NO_JSON.lines().next().unwrap()), "{logs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_redrive_policy_an_unreadable_message_ends_in_the_dead_letter_queue() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let attributes = [("VisibilityTimeout", "600")];
    let (queue, dead) = sqs.queue_with_dead_letters("q", 2, &attributes).await;
    let worker = Worker::builder(&redis, &queue).start().await;
    until("the queue's settings are known", SOON, async || {
        worker.logs().contains("settings of the queue read")
    })
    .await;
    let id = queue.send(NO_JSON).await;
    until("the queue has moved it", SOON, async || {
        dead.depth().await == 1
    })
    .await;
    assert_eq!(queue.depth().await, 0);
    let found = dead.receive_all().await;
    assert_eq!(found[0].body(), Some(NO_JSON));
    assert_eq!(found[0].message_id(), Some(id.as_str()));
    assert_eq!(worker.metric(DEAD_LETTERED).await, 1.0);
    let streams: i64 =
        redis::from_redis_value(redis.cmd(&["EXISTS", "production:dead-letter"])).unwrap();
    assert_eq!(streams, 0, "kept twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_given_up_before_the_redrive_policy_is_known() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let (queue, dead) = sqs.queue_with_dead_letters("q", 2, &[]).await;
    let faults = FaultProxy::start(sqs.endpoint()).await;
    faults.once("GetQueueAttributes", Fault::Delay(Duration::from_secs(3)));
    queue.send(NO_JSON).await;
    let _worker = Worker::builder(&redis, &queue)
        .env("MAX_RECEIVE_COUNT", 1)
        .endpoint(faults.url())
        .start()
        .await;
    until("the queue has moved it", SOON, async || {
        dead.depth().await == 1
    })
    .await;
    assert!(dead_letters(&redis).is_empty(), "kept twice");
}

type Stream = Vec<(String, BTreeMap<String, String>)>;

fn dead_letters(redis: &Redis) -> Stream {
    let stream = redis.cmd(&["XRANGE", "production:dead-letter", "-", "+"]);
    redis::from_redis_value(stream).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_redrive_policy_an_unreadable_message_is_kept_whole_and_then_deleted() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let worker = Worker::builder(&redis, &queue)
        .env("MAX_RECEIVE_COUNT", 2)
        .start()
        .await;
    let no_json = queue.send(NO_JSON).await;
    let lacking =
        r#"{"type": "CREDIT_BALANCE_UPDATED", "customerId": "acme", "currencyId": "tokens"}"#;
    let lacking_id = queue.send(lacking).await;
    queue.wait_empty(SOON).await;

    let letters: BTreeMap<String, BTreeMap<String, String>> = dead_letters(&redis)
        .into_iter()
        .map(|(_, letter)| (letter["message_id"].clone(), letter))
        .collect();
    assert_eq!(letters.len(), 2, "{letters:#?}");
    for (id, body, kind, reason) in [
        (no_json, NO_JSON, "other", "JSON"),
        (
            lacking_id,
            lacking,
            "credit_balance_updated",
            "totalConsumed",
        ),
    ] {
        let letter = &letters[&id];
        assert_eq!(letter["body"], body);
        assert_eq!(letter["kind"], kind);
        assert_eq!(letter["receive_count"], "2");
        assert!(letter["reason"].contains(reason), "{}", letter["reason"]);
    }
    assert_eq!(worker.metric(DEAD_LETTERED).await, 2.0);
}

/// Lines about retried messages are limited; each message that is given up is logged.
#[tokio::test(flavor = "multi_thread")]
async fn every_message_that_is_given_up_is_named_in_the_log() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let worker = Worker::builder(&redis, &queue)
        .env("MAX_RECEIVE_COUNT", 2)
        .start()
        .await;
    let mut ids = Vec::new();
    for _ in 0..40 {
        ids.push(queue.send(NO_JSON).await);
    }
    queue.wait_empty(SOON).await;
    let logs = worker.logs();
    let given_up: Vec<&str> = logs
        .lines()
        .filter(|line| line.contains("gave up on a message"))
        .collect();
    assert_eq!(given_up.len(), 40, "{logs}");
    for id in ids {
        assert!(given_up.iter().any(|line| line.contains(&id)), "{id}");
    }
}

/// A queue that cannot be asked yet may have a dead-letter queue all the same.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_given_up_before_it_is_known_whether_there_is_a_dead_letter_queue() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let (queue, dead) = sqs.queue_with_dead_letters("q", 3, &[]).await;
    let faults = FaultProxy::start(sqs.endpoint()).await;
    faults.always("GetQueueAttributes", Fault::no_such_queue());
    let worker = Worker::builder(&redis, &queue)
        .endpoint(faults.url())
        .env("MAX_RECEIVE_COUNT", 1)
        .start()
        .await;
    until("it is said", SOON, async || {
        worker.logs().contains("cannot read the queue's settings")
    })
    .await;
    queue.send(NO_JSON).await;
    until("it was refused", SOON, async || {
        worker.logs().contains("SQS will redeliver it")
    })
    .await;
    faults.clear("GetQueueAttributes");
    until(
        "the queue has moved it",
        Duration::from_secs(60),
        async || dead.depth().await == 1,
    )
    .await;
    assert_eq!(dead_letters(&redis).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_dead_letters_are_kept_than_configured() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let worker = Worker::builder(&redis, &queue)
        .env("CONSUMERS", 1)
        .env("MAX_RECEIVE_COUNT", 1)
        .env("DEAD_LETTER_MAX_LEN", 3)
        .start()
        .await;
    for number in 0..8 {
        queue.send(&format!("letter {number}")).await;
        queue.wait_empty(SOON).await;
    }
    let kept: Vec<String> = dead_letters(&redis)
        .into_iter()
        .map(|(_, letter)| letter["body"].clone())
        .collect();
    assert_eq!(kept, ["letter 5", "letter 6", "letter 7"]);
    assert_eq!(worker.metric(DEAD_LETTERED).await, 8.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_message_does_not_stop_its_fifo_group_for_long() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.fifo_queue("q").await;
    let faults = FaultProxy::start(sqs.endpoint()).await;
    let worker = Worker::builder(&redis, &queue)
        .env("MAX_RECEIVE_COUNT", 4)
        .endpoint(faults.url())
        .start()
        .await;
    for (body, group) in [
        (seats(ACME, 10, at(1)), "acme"),
        (NO_JSON.to_owned(), "acme"),
        (seats(ACME, 20, at(2)), "acme"),
        (seats(ACME, 30, at(3)), "acme"),
        (seats(("other", None), 10, at(1)), "other"),
    ] {
        queue.send_fifo(&body, group).await;
    }
    queue.wait_empty(SOON).await;
    assert_eq!(limit_in(redis.get("production:c_acme").as_ref()), Some(30));
    assert_eq!(limit_in(redis.get("production:c_other").as_ref()), Some(10));
    assert_eq!(dead_letters(&redis).len(), 1);
    until("all are counted", SOON, async || {
        worker.metric(ACKNOWLEDGED).await == 5.0
    })
    .await;
    // Given back three times, to be handed out again at once: a body does not get better.
    let bodies = faults.bodies(CHANGE);
    let delays: Vec<&Value> = entries(&bodies)
        .into_iter()
        .flatten()
        .map(|entry| &entry["VisibilityTimeout"])
        .collect();
    assert_eq!(delays, [0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_many_fifo_groups_leave_the_last_state_of_each() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.fifo_queue("q").await;
    let _worker = Worker::builder(&redis, &queue)
        .env("CONSUMERS", 4)
        .start()
        .await;
    let groups = customers(6);
    for second in 1..=5 {
        for group in &groups {
            let body = seats((group, None), second, at(second));
            queue.send_fifo(&body, group).await;
        }
    }
    queue.wait_empty(SOON).await;
    for group in &groups {
        let value = redis.get(&format!("production:c_{group}"));
        assert_eq!(limit_in(value.as_ref()), Some(5), "{group}");
    }
}

// --- Size and number ---

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_nearly_a_mebibyte_is_applied() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let _worker = Worker::builder(&redis, &queue).start().await;
    // As terse as can be, so that one message writes as many keys as any ever can.
    let entitlement = |number: usize| {
        let id = format!("f{number}");
        json!({"feature": {"id": id, "featureType": "NUMBER", "meterType": "Incremental"}, "currentUsage": number})
    };
    let most = 1 << 20;
    let each = entitlement(10_000).to_string().len() + 1;
    let features = most / each - 2;
    let all: Vec<Value> = (0..features).map(entitlement).collect();
    let body = entitlements(ACME, at(1), &all);
    assert!(
        (most - 50_000..=most).contains(&body.len()),
        "{}",
        body.len()
    );
    queue.send(&body).await;
    queue.wait_empty(SOON).await;

    let value: Value = serde_json::from_str(&redis.get("production:c_acme").unwrap()).unwrap();
    assert_eq!(value.as_object().unwrap().len(), features);
    let used = redis.dump("production:c_acme:f_");
    assert_eq!(used.len(), 2 * features);
    for number in [0, features / 2, features - 1] {
        let key = format!("production:c_acme:f_f{number}");
        assert_eq!(usage_in(used.get(&key)), Some(number as u64));
    }

    queue.send(&seats(("later", None), 10, at(1))).await;
    queue.wait_empty(SOON).await;
    assert!(cached(&redis).contains("later"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_a_queue_and_lose_nothing() {
    const MANY: usize = 2000;
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let customers = customers(MANY);
    let builder = Worker::builder(&redis, &queue).env("CONSUMERS", 4);
    let workers = [builder.start().await, builder.start().await];
    send_seats(&queue, &customers).await;
    queue.wait_empty(Duration::from_secs(60)).await;

    assert_eq!(cached(&redis), customers.into_iter().collect());
    let acknowledged = async || {
        [
            workers[0].metric(ACKNOWLEDGED).await,
            workers[1].metric(ACKNOWLEDGED).await,
        ]
    };
    until("each message is counted once", SOON, async || {
        acknowledged().await.iter().sum::<f64>() == MANY as f64
    })
    .await;
    let shares = acknowledged().await;
    assert!(shares.iter().all(|&share| share > 0.0), "{shares:?}");
}
