//! `purge`: by the worker's rule, and only when it is meant.

use std::time::Duration;

use serde_json::Value;

use crate::commands::messages::Cli;
use testkit::events::{at, seats};
use testkit::{Operator, Redis, Sqs, Worker};

const ACME: [&str; 4] = [
    "production:c_acme",
    "production:c_acme#timestamp",
    "production:c_acme:metadata",
    "production:c_acme:metadata#timestamp",
];
const USAGE: &str = "production:c_acme:f_seats";

fn store(redis: &Redis, customer: &str, at: u64) {
    let key = format!("production:c_{customer}");
    for key in [
        key.clone(),
        format!("{key}:metadata"),
        format!("{key}:f_seats"),
    ] {
        redis.set(&key, "{}");
        redis.set(&format!("{key}#timestamp"), &at.to_string());
    }
}

fn outcomes(json: &Value) -> Vec<&str> {
    let customers = json["customers"].as_array().unwrap().iter();
    customers
        .map(|it| it["outcome"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_deletes_four_keys_and_leaves_a_tombstone_that_the_worker_honours() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let _worker = Worker::builder(&redis, &queue).start().await;
    let operator = Operator::of(&redis);
    store(&redis, "acme", at(1));
    store(&redis, "acme:r_site-1", at(1));

    let before = redis.dump("production:c_");
    let dry = operator.run(&["purge", "acme", "--dry-run"]).await;
    assert_eq!(dry.code, 0, "{dry:?}");
    assert!(dry.stdout.contains("would be purged"), "{dry:?}");
    assert_eq!(redis.dump("production:c_"), before);

    // Nobody can be asked, so it is not done.
    let refused = operator.run(&["purge", "acme"]).await;
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("--yes"), "{refused:?}");
    assert_eq!(redis.dump("production:c_"), before);

    let time = at(5).to_string();
    let done = operator
        .run(&["purge", "acme", "--yes", "--at", &time, "--json"])
        .await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(outcomes(&done.json()), ["purged"]);
    let mut expected = before;
    for key in ACME {
        expected.remove(key).unwrap();
    }
    expected.insert("production:c_acme#purged".into(), time);
    assert_eq!(redis.dump("production:c_"), expected);
    assert!(expected.contains_key(USAGE));

    // What is older than the purge does not come back; what is newer does.
    queue.send(&seats(("acme", None), 10, at(4))).await;
    queue.wait_empty(Duration::from_secs(20)).await;
    assert_eq!(redis.get("production:c_acme"), None);
    queue.send(&seats(("acme", None), 10, at(6))).await;
    queue.wait_empty(Duration::from_secs(20)).await;
    assert!(redis.get("production:c_acme").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_state_and_locked_or_unknown_customers_are_named() {
    let redis = Redis::start().await;
    let operator = Operator::of(&redis);
    store(&redis, "old", at(1));
    store(&redis, "new", at(9));
    store(&redis, "held", at(1));
    redis.set("production-held", "an SDK");
    let time = at(5).to_string();
    for dry_run in [true, false] {
        let mut arguments = vec!["purge", "-", "--yes", "--json", "--at", &time];
        arguments.extend(dry_run.then_some("--dry-run"));
        let input = "old\r\nnew\n\nheld\nnobody\nold\n";
        let done = operator.run_with(&arguments, input).await;
        assert_eq!(done.code, 1, "{done:?}");
        assert_eq!(
            outcomes(&done.json()),
            ["purged", "newer", "locked", "not_there"]
        );
    }
    assert_eq!(redis.get("production:c_old"), None);
    assert!(redis.get("production:c_new").is_some());
    assert!(redis.get("production:c_held").is_some());
    let text = operator
        .run(&["purge", "new", "--yes", "--at", &time])
        .await;
    assert!(text.stdout.contains("kept: newer than 2025-"), "{text:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_let_go_of_is_waited_for() {
    let redis = Redis::start().await;
    store(&redis, "acme", at(1));
    redis.cmd(&["SET", "production-acme", "an SDK", "PX", "1500"]);
    let done = Operator::of(&redis).run(&["purge", "acme", "--yes"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(redis.get("production:c_acme"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_resource_is_purged_alone_and_ids_are_taken_to_the_letter() {
    let redis = Redis::start().await;
    let operator = Operator::of(&redis);
    for customer in ["a*", "ab"] {
        store(&redis, customer, at(1));
        store(&redis, &format!("{customer}:r_x y"), at(1));
    }
    let done = operator
        .run(&[
            "purge",
            "a*",
            "--resource",
            "x y",
            "--yes",
            "--at",
            "2026-01-01T00:00:00Z",
        ])
        .await;
    assert_eq!(done.code, 0, "{done:?}");
    assert!(redis.get("production:c_a*").is_some());
    assert_eq!(redis.get("production:c_a*:r_x y"), None);
    assert!(redis.get("production:c_ab:r_x y").is_some());
    let tombstone = redis.get("production:c_a*:r_x y#purged");
    assert_eq!(tombstone.as_deref(), Some("1767225600000"));
}

/// It would keep out all true state of the customer for the life of a tombstone.
#[tokio::test(flavor = "multi_thread")]
async fn a_time_far_ahead_is_refused_wherever_it_would_be_written() {
    let redis = Redis::start().await;
    let operator = Operator::of(&redis);
    store(&redis, "acme", at(1));
    let before = redis.dump("");
    let event = r#"{"type":"SUBSCRIPTIONS_MIGRATED","customerId":"acme"}"#;
    let ahead = |minutes: u64| {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        (now + Duration::from_secs(minutes * 60))
            .as_millis()
            .to_string()
    };
    for time in ["2999-01-01T00:00:00Z", &ahead(6), "0", "soon"] {
        for command in [
            &["purge", "acme", "--yes", "--at"][..],
            &["apply", "-", "--sent"],
        ] {
            let arguments = [command, &[time]].concat();
            let refused = operator.run_with(&arguments, event).await;
            assert_eq!(refused.code, 2, "{refused:?}");
            assert_eq!(redis.dump(""), before, "{arguments:?}");
        }
    }
    let refused = operator
        .run(&["purge", "acme", "--yes", "--at", "2999-01-01T00:00:00Z"])
        .await;
    assert!(
        refused.stderr.contains("ahead of this machine's clock"),
        "{refused:?}"
    );
    // Clocks differ a little.
    let done = operator
        .run(&["purge", "acme", "--yes", "--at", &ahead(4)])
        .await;
    assert_eq!(done.code, 0, "{done:?}");
}

/// SDKs load on their misses what was purged: it must not be purged again while one customer is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_of_one_does_not_purge_the_others_again() {
    let redis = Redis::start().await;
    let names: Vec<String> = (0..60).map(|n| format!("customer-{n}")).collect();
    for name in &names {
        store(&redis, name, at(1));
    }
    redis.cmd(&["SET", "production-customer-59", "an SDK", "PX", "3000"]);
    let operator = Operator::of(&redis);
    let first = "production:c_customer-0";
    let list = names.join("\n");
    let purging = tokio::spawn(async move {
        operator
            .run_with(&["purge", "-", "--yes", "--json"], &list)
            .await
    });
    testkit::until("the first is purged", Duration::from_secs(20), async || {
        redis.get(first).is_none()
    })
    .await;
    // Older than the purge, as what an SDK loads may well be.
    for name in &names[..59] {
        store(&redis, name, at(1));
    }
    let done = purging.await.unwrap();
    assert_eq!(done.code, 0, "{done:?}");
    for name in &names[..59] {
        assert!(
            redis.get(&format!("production:c_{name}")).is_some(),
            "{name}"
        );
    }
    assert_eq!(redis.get("production:c_customer-59"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_purged_before_redis_failed_is_shown() {
    let redis = Redis::start().await;
    let names: Vec<String> = (0..250).map(|n| format!("customer-{n}")).collect();
    for name in &names {
        store(&redis, name, at(1));
    }
    // The second call of the command waits for this one, and Redis goes meanwhile.
    redis.cmd(&["SET", "production-customer-249", "an SDK", "PX", "60000"]);
    let operator = Operator::of(&redis);
    let list = names.join("\n");
    let purging = tokio::spawn(async move {
        operator
            .run_with(&["purge", "-", "--yes", "--json"], &list)
            .await
    });
    testkit::until("most are purged", Duration::from_secs(20), async || {
        redis.get("production:c_customer-248").is_none()
    })
    .await;
    redis.kill();
    let done = purging.await.unwrap();
    assert_eq!(done.code, 69, "{done:?}");
    assert_eq!(outcomes(&done.json()).len(), 200);
    assert!(
        done.stderr.contains("stopped after 200 of 250 customers"),
        "{done:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_customers_may_begin_with_a_byte_order_mark() {
    let redis = Redis::start().await;
    store(&redis, "acme", at(1));
    store(&redis, "globex", at(1));
    let done = Cli::new(&redis)
        .run(&["purge", "-", "--yes"], "\u{feff}acme\r\nglobex\r\n")
        .await;
    assert_eq!(done.code, 0, "{} {}", done.out, done.err);
    assert_eq!(redis.get("production:c_acme"), None);
    assert_eq!(redis.get("production:c_globex"), None);
}
