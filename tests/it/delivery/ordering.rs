//! The newest state stays, in any order of messages and with any other writers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use testkit::events::{
    ACME, FAR_FUTURE, Owner, at, credit, entitlements, limit_in, metered, seats, usage, usage_in,
};
use testkit::fault::{Fault, FaultProxy};
use testkit::redis::Redis;
use testkit::sdk::{self, Running};
use testkit::sqs::{Sqs, TestQueue};
use testkit::until;
use testkit::worker::Worker;

const SOON: Duration = Duration::from_secs(30);
const LOCKED: &str = "entitlement_sync_locked_retries_total";
const ACKNOWLEDGED: &str = "entitlement_sync_messages_acknowledged_total";

/// One event in the life of a customer.
#[derive(Clone, Copy)]
enum Event {
    /// Entitled to that many seats, two of a feature's usages known. An older plan had `exports` too.
    Plan {
        at: u64,
        limit: u64,
        used_at: u64,
        exports: bool,
    },
    Usage {
        at: u64,
        current: u64,
    },
    Credit {
        at: u64,
        consumed: u64,
    },
}

/// A number that tells the states of a key apart, and its timestamp; by what follows the customer's key.
type Picture = BTreeMap<&'static str, (u64, u64)>;

const SUFFIXES: [&str; 5] = ["", ":metadata", ":f_seats", ":f_exports", ":credit_tokens"];

impl Event {
    fn body(self, owner: Owner<'_>) -> String {
        match self {
            Event::Plan {
                at: time,
                limit,
                used_at,
                exports,
            } => {
                let mut all = vec![metered("seats", limit, limit + 1000, at(used_at))];
                if exports {
                    all.push(metered("exports", limit, limit + 2000, at(used_at)));
                }
                entitlements(owner, at(time), &all)
            }
            Event::Usage { at: time, current } => usage(owner, "seats", current, at(time)),
            Event::Credit { at: time, consumed } => credit(owner, "tokens", consumed, at(time)),
        }
    }

    /// What it says of each key, and as of when.
    fn items(self) -> Vec<(&'static str, u64, u64)> {
        match self {
            Event::Plan {
                at,
                limit,
                used_at,
                exports,
            } => {
                let mut items = vec![
                    ("", limit, at),
                    (":metadata", 0, at),
                    (":f_seats", limit + 1000, used_at),
                ];
                if exports {
                    items.push((":f_exports", limit + 2000, used_at));
                }
                items
            }
            Event::Usage { at, current } => vec![(":f_seats", current, at)],
            Event::Credit { at, consumed } => vec![(":credit_tokens", consumed, at)],
        }
    }
}

/// What must stand in Redis after these events, in whatever order: of each key the newest.
fn newest(events: &[Event]) -> Picture {
    let mut newest = Picture::new();
    for (suffix, number, time) in events.iter().flat_map(|event| event.items()) {
        let state = newest.entry(suffix).or_insert((number, at(time)));
        if state.1 < at(time) {
            *state = (number, at(time));
        }
    }
    newest
}

/// What stands in Redis.
fn picture(dump: &BTreeMap<String, String>, customer: &str) -> Picture {
    let mut found = Picture::new();
    for suffix in SUFFIXES {
        let key = format!("production:c_{customer}{suffix}");
        let value = dump.get(&key);
        let number = match suffix {
            "" => limit_in(value),
            ":metadata" => value.map(|_| 0),
            _ => usage_in(value),
        };
        let time = dump.get(&format!("{key}#timestamp"));
        assert_eq!(number.is_some(), time.is_some(), "{key} and its timestamp");
        if let (Some(number), Some(time)) = (number, time) {
            found.insert(suffix, (number, time.parse().unwrap()));
        }
    }
    found
}

fn assert_all(redis: &Redis, expected: &BTreeMap<String, Picture>) {
    let dump = redis.dump("production:c_");
    for (customer, expected) in expected {
        assert_eq!(&picture(&dump, customer), expected, "of {customer}");
    }
}

/// Every customer is cached first: usage of one that is not is skipped, and rightly so.
const FIRST: Event = Event::Plan {
    at: 0,
    limit: 1,
    used_at: 0,
    exports: false,
};

async fn cache(queue: &TestQueue, customers: impl Iterator<Item = &String>) {
    queue
        .send_all(customers.map(|customer| FIRST.body((customer, None))))
        .await;
    queue.wait_empty(SOON).await;
}

fn permutations(events: &[Event]) -> Vec<Vec<Event>> {
    if events.is_empty() {
        return vec![Vec::new()];
    }
    (0..events.len())
        .flat_map(|first| {
            let mut rest = events.to_vec();
            let event = rest.remove(first);
            permutations(&rest).into_iter().map(move |mut rest| {
                rest.insert(0, event);
                rest
            })
        })
        .collect()
}

/// One after the other, so that Redis alone decides, and ten at once, so that neighbours in the batch supersede each other.
async fn every_order_converges(batch_size: u32, events: usize) {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let worker = Worker::builder(&redis, &queue)
        .env("CONSUMERS", 1)
        .env("BATCH_SIZE", batch_size)
        .start()
        .await;
    let history = [
        Event::Plan {
            at: 10,
            limit: 10,
            used_at: 25,
            exports: true,
        },
        Event::Usage { at: 20, current: 7 },
        Event::Plan {
            at: 30,
            limit: 30,
            used_at: 5,
            exports: false,
        },
        Event::Usage { at: 40, current: 8 },
        Event::Credit {
            at: 50,
            consumed: 60,
        },
    ];
    let history = &history[..events];
    let orders: BTreeMap<String, Vec<Event>> = permutations(history)
        .into_iter()
        .enumerate()
        .map(|(number, order)| (format!("customer-{number}"), order))
        .collect();
    cache(&queue, orders.keys()).await;
    let bodies = orders.iter().flat_map(|(customer, order)| {
        order
            .iter()
            .map(move |event| event.body((customer.as_str(), None)))
    });
    queue.send_all(bodies).await;
    queue.wait_empty(SOON).await;

    let mut all = history.to_vec();
    all.push(FIRST);
    let expected = orders
        .keys()
        .map(|customer| (customer.clone(), newest(&all)))
        .collect();
    assert_all(&redis, &expected);
    let coalesced = worker
        .metric("entitlement_sync_items_coalesced_total")
        .await;
    assert_eq!(coalesced > 0.0, batch_size > 1, "{coalesced} coalesced");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_order_of_a_history_leaves_the_newest_state() {
    every_order_converges(1, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_order_of_a_history_leaves_the_newest_state_in_batches_too() {
    every_order_converges(10, 5).await;
}

/// Histories of one customer, in which no two events are of the same time.
fn random_history(random: &mut fastrand::Rng) -> Vec<Event> {
    let mut times: Vec<u64> = (1..=40).collect();
    random.shuffle(&mut times);
    let mut next = || times.pop().unwrap();
    (0..8)
        .map(|_| match random.u8(..3) {
            0 => Event::Plan {
                at: next(),
                limit: random.u64(..1000),
                used_at: next(),
                exports: random.bool(),
            },
            1 => Event::Usage {
                at: next(),
                current: random.u64(..1000),
            },
            _ => Event::Credit {
                at: next(),
                consumed: random.u64(..1000),
            },
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_one_queue_converge_on_stale_duplicate_and_shuffled_messages() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let builder = Worker::builder(&redis, &queue).env("CONSUMERS", 3);
    let workers = [builder.start().await, builder.start().await];
    let customers: Vec<String> = (0..12).map(|number| format!("customer-{number}")).collect();

    for seed in [1, 2, 3, 4] {
        redis.cmd(&["FLUSHALL"]);
        cache(&queue, customers.iter()).await;
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bodies = Vec::new();
        let mut expected = BTreeMap::new();
        for customer in &customers {
            let mut history = random_history(&mut random);
            history.push(FIRST);
            expected.insert(customer.clone(), newest(&history));
            // Twice in a while the queue hands out a message once more.
            let again = history[random.usize(..history.len())];
            history.push(again);
            bodies.extend(
                history
                    .iter()
                    .map(|event| event.body((customer.as_str(), None))),
            );
        }
        random.shuffle(&mut bodies);
        queue.send_all(bodies).await;
        queue.wait_empty(SOON).await;
        assert_all(&redis, &expected);
    }
    for worker in &workers {
        assert!(worker.metric(ACKNOWLEDGED).await > 0.0);
    }
}

/// What `lock.mjs` writes as an SDK: that many seats, and their usage.
fn written_by_sdk(customer: &str, limit: u64, time: u64) -> Value {
    let mut entitlement = metered("seats", limit, limit + 1000, at(time));
    entitlement["feature"] = json!({
        "refId": "seats", "featureType": "NUMBER", "meterType": "Fluctuating",
        "featureUnits": "seat", "featureUnitsPlural": "seats",
    });
    entitlement["usagePeriodEnd"] = FAR_FUTURE.into();
    json!({
        "op": "setCustomer", "customerId": customer, "timestamp": at(time), "entitlements": [entitlement],
        "usageTimestamps": {"seats": at(time)},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_never_lands_between_what_an_sdk_reads_and_what_it_writes() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let worker = Worker::builder(&redis, &queue).start().await;
    cache(&queue, [&"acme".to_owned()].into_iter()).await;

    let input = json!({
        "redis": sdk::place(&redis, "production"), "gapMs": 1500, "writes": [written_by_sdk("acme", 10, 10)],
    });
    let sdk = Running::start("lock.mjs", &input).await;
    until("the SDK is about to write", SOON, async || {
        redis.get("production-acme").is_some()
    })
    .await;
    // Newer than what the SDK has yet to write, so the SDK would overwrite them unseen.
    let newer = [seats(ACME, 20, at(20)), usage(ACME, "seats", 21, at(21))];
    queue.send_all(newer).await;
    assert_eq!(sdk.finish().await, json!({"done": 1, "errors": []}));
    queue.wait_empty(SOON).await;

    let expected = Picture::from([
        ("", (20, at(20))),
        (":metadata", (0, at(20))),
        (":f_seats", (21, at(21))),
    ]);
    assert_all(&redis, &[("acme".to_owned(), expected)].into());
    assert!(worker.metric(LOCKED).await >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_and_an_sdk_that_write_at_the_same_time_converge() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let _worker = Worker::builder(&redis, &queue).start().await;
    let mut random = fastrand::Rng::with_seed(7);
    let (mut writes, mut bodies, mut expected) = (Vec::new(), Vec::new(), BTreeMap::new());
    for number in 0..15 {
        let customer = format!("customer-{number}");
        let mut times: Vec<u64> = (1..=8).collect();
        random.shuffle(&mut times);
        for (position, &time) in times.iter().enumerate() {
            if position % 2 == 0 {
                writes.push(written_by_sdk(&customer, time, time));
            } else {
                let plan = Event::Plan {
                    at: time,
                    limit: time,
                    used_at: time,
                    exports: false,
                };
                bodies.push(plan.body((&customer, None)));
            }
        }
        expected.insert(customer, (8, at(8)));
    }
    random.shuffle(&mut writes);
    random.shuffle(&mut bodies);

    let input = json!({"redis": sdk::place(&redis, "production"), "gapMs": 15, "writes": writes});
    let sdk = Running::start("lock.mjs", &input).await;
    until("the SDK has begun", SOON, async || {
        !redis.dump("production:c_").is_empty()
    })
    .await;
    // By and by, so that the two meet again and again.
    for body in bodies {
        queue.send(&body).await;
    }
    assert_eq!(
        sdk.finish().await,
        json!({"done": writes.len(), "errors": []})
    );
    queue.wait_empty(SOON).await;

    let dump = redis.dump("production:c_");
    for (customer, state) in expected {
        let found = picture(&dump, &customer);
        assert_eq!(found[""], state, "of {customer}");
        assert_eq!(
            found[":f_seats"],
            (state.0 + 1000, state.1),
            "of {customer}"
        );
    }
}

fn hold(redis: &Redis, customer: &str, ms: u64) -> Value {
    let lock = json!({"customerId": customer, "ms": ms});
    json!({"redis": sdk::place(redis, "production"), "holdLock": lock})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_for_a_locked_customer_waits_and_its_neighbours_do_not() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let mut sdk = Running::start("lock.mjs", &hold(&redis, "locked", 8000)).await;
    assert_eq!(sdk.line().await.as_deref(), Some("locked"));
    // Before the worker is there, so that it receives them as one batch.
    let bodies = ["first", "locked", "last"].map(|customer| seats((customer, None), 10, at(1)));
    queue.send_all(bodies).await;
    let worker = Worker::builder(&redis, &queue)
        .env("CONSUMERS", 1)
        .start()
        .await;

    until("its neighbours are acknowledged", SOON, async || {
        queue.depth().await == 1
    })
    .await;
    until("the locked one is tried again", SOON, async || {
        worker.metric(LOCKED).await >= 2.0
    })
    .await;
    for neighbour in ["production:c_first", "production:c_last"] {
        assert_eq!(limit_in(redis.get(neighbour).as_ref()), Some(10));
    }
    assert_eq!(redis.get("production:c_locked"), None);
    assert!(
        redis.get("production-locked").is_some(),
        "the lock was not held for long enough to see anything"
    );

    assert_eq!(sdk.line().await.as_deref(), Some("released"));
    queue.wait_empty(SOON).await;
    let value = redis.get("production:c_locked");
    assert_eq!(limit_in(value.as_ref()), Some(10));
    // It waited in our hands, and was handed out only once.
    let received = "entitlement_sync_messages_received_total";
    assert_eq!(worker.metric(received).await, 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_of_a_resource_delays_only_that_resource() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let worker = Worker::builder(&redis, &queue).start().await;
    redis.set("production-acme:site-1", "held");
    let owners = [ACME, ("acme", Some("site-1")), ("acme", Some("site-2"))];
    queue
        .send_all(owners.map(|owner| seats(owner, 10, at(1))))
        .await;
    until("the others are written", SOON, async || {
        queue.depth().await == 1 && worker.metric(LOCKED).await >= 1.0
    })
    .await;
    assert!(redis.get("production:c_acme").is_some());
    assert!(redis.get("production:c_acme:r_site-2").is_some());
    assert_eq!(redis.get("production:c_acme:r_site-1"), None);
    redis.cmd(&["DEL", "production-acme:site-1"]);
    queue.wait_empty(SOON).await;
    assert!(redis.get("production:c_acme:r_site-1").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_no_lock_retries_a_locked_message_is_returned_at_once_and_redelivered() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    // Long enough that nothing but being given back brings the message again.
    let queue = sqs.queue_with("q", &[("VisibilityTimeout", "600")]).await;
    let worker = Worker::builder(&redis, &queue)
        .env("CACHE_LOCK_RETRY_COUNT", 0)
        .start()
        .await;
    let mut sdk = Running::start("lock.mjs", &hold(&redis, "acme", 3000)).await;
    assert_eq!(sdk.line().await.as_deref(), Some("locked"));
    queue.send(&seats(ACME, 10, at(1))).await;
    let released = "entitlement_sync_messages_released_total";
    until("it is given back", SOON, async || {
        worker.metric(released).await >= 1.0
    })
    .await;
    assert!(redis.get("production-acme").is_some(), "still locked");
    assert_eq!(sdk.line().await.as_deref(), Some("released"));

    queue.wait_empty(SOON).await;
    assert_eq!(limit_in(redis.get("production:c_acme").as_ref()), Some(10));
    // One try for each delivery that found the lock.
    assert_eq!(worker.metric(LOCKED).await, worker.metric(released).await);
    let redelivered = "entitlement_sync_messages_redelivered_total";
    assert_eq!(
        worker.metric(redelivered).await,
        worker.metric(released).await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_customer_delays_no_other_while_the_other_consumers_sleep() {
    let nothing = Fault::Answer {
        status: 200,
        code: "",
        body: "{}".to_owned(),
    };
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let faults = FaultProxy::start(sqs.endpoint()).await;
    faults.times("ReceiveMessage", 10, nothing.clone());
    let worker = Worker::builder(&redis, &queue)
        .env("CONSUMERS", 2)
        .env("MIN_POLLERS", 1)
        .env("CACHE_LOCK_RETRY_COUNT", 100_000)
        .endpoint(faults.url())
        .start()
        .await;
    until("one sleeps, and the other polls", SOON, async || {
        faults.calls("ReceiveMessage") > 10 && faults.open("ReceiveMessage") == 1
    })
    .await;

    redis.set("production-acme", "held");
    queue.send(&seats(ACME, 10, at(1))).await;
    until("it is locked", SOON, async || {
        worker.metric(LOCKED).await >= 1.0
    })
    .await;
    // The one that was woken instead finds nothing for a while, and is the only one to watch the queue.
    faults.times("ReceiveMessage", 3, nothing);
    queue.send(&seats(("first", None), 10, at(1))).await;
    until("it has polled in vain", SOON, async || {
        redis.get("production:c_first").is_some() && faults.calls("ReceiveMessage") >= 13
    })
    .await;
    queue.send(&seats(("other", None), 10, at(1))).await;
    until("the other customer is written", SOON, async || {
        redis.get("production:c_other").is_some()
    })
    .await;
    assert_eq!(redis.get("production:c_acme"), None);
}

/// Every command that Redis carries out, scripts' own included.
struct Monitor(Arc<Mutex<Vec<String>>>);

impl Monitor {
    fn start(redis: &Redis) -> Monitor {
        let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).unwrap();
        stream.write_all(b"MONITOR\r\n").unwrap();
        let mut lines = BufReader::new(stream).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "+OK");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let monitor = Monitor(seen.clone());
        // It ends with the server.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                seen.lock().unwrap().push(line);
            }
        });
        monitor
    }

    fn count(&self, words: &str) -> usize {
        let seen = self.0.lock().unwrap();
        seen.iter().filter(|line| line.contains(words)).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn usages_of_one_key_in_a_batch_are_written_once_and_all_acknowledged() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    for key in ["production:c_acme", "production:c_other"] {
        redis.set(key, "{}");
        redis.set(&format!("{key}#timestamp"), "1");
    }
    queue
        .send_all([
            usage(ACME, "seats", 5, at(1)),
            usage(("other", None), "seats", 9, at(1)),
            usage(ACME, "seats", 6, at(2)),
            usage(ACME, "seats", 7, at(3)),
        ])
        .await;
    let monitor = Monitor::start(&redis);
    let worker = Worker::builder(&redis, &queue)
        .env("CONSUMERS", 1)
        .start()
        .await;
    queue.wait_empty(SOON).await;
    redis.cmd(&["ECHO", "the end"]);
    until("the monitor has seen it all", SOON, async || {
        monitor.count("\"the end\"") == 1
    })
    .await;

    assert_eq!(monitor.count(r#""SET" "production:c_acme:f_seats" "#), 1);
    assert_eq!(
        monitor.count(r#""SET" "production:c_acme:f_seats#timestamp" "#),
        1
    );
    assert_eq!(monitor.count(r#""SET" "production:c_other:f_seats" "#), 1);
    let value = redis.get("production:c_acme:f_seats");
    assert_eq!(usage_in(value.as_ref()), Some(7));
    let coalesced = "entitlement_sync_items_coalesced_total";
    assert_eq!(worker.metric(coalesced).await, 2.0);
    until("all four are acknowledged", SOON, async || {
        worker.metric(ACKNOWLEDGED).await == 4.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_superseded_message_is_kept_until_what_supersedes_it_is_written() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    redis.set("production-acme", "held");
    let bodies = [
        seats(ACME, 10, at(1)),
        seats(ACME, 20, at(2)),
        seats(("other", None), 10, at(1)),
    ];
    queue.send_all(bodies).await;
    let worker = Worker::builder(&redis, &queue)
        .env("CONSUMERS", 1)
        .start()
        .await;
    until("the batch was tried twice", SOON, async || {
        redis.get("production:c_other").is_some() && worker.metric(LOCKED).await >= 2.0
    })
    .await;
    until("the neighbour is acknowledged", SOON, async || {
        worker.metric(ACKNOWLEDGED).await >= 1.0
    })
    .await;
    assert_eq!(redis.get("production:c_acme"), None);
    assert_eq!(
        queue.depth().await,
        2,
        "both messages of the locked customer"
    );
    redis.cmd(&["DEL", "production-acme"]);
    queue.wait_empty(SOON).await;
    assert_eq!(limit_in(redis.get("production:c_acme").as_ref()), Some(20));
}
