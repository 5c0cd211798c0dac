//! `dead-letter`: what was given up is looked at, mended and replayed until a worker has applied it.

use std::time::Duration;

use aws_sdk_sqs::types::MessageSystemAttributeName;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::messages::Cli;
use testkit::events::{at, limit_in, seats};
use testkit::{Fault, FaultProxy, Operator, Redis, Sqs, TestQueue, Worker, until};

const SOON: Duration = Duration::from_secs(30);
const STREAM: &str = "production:dead-letter";

/// As the worker keeps them.
fn keep(redis: &Redis, kind: &str, sent_at: &str, body: &str) -> String {
    let id = redis.cmd(&[
        "XADD",
        STREAM,
        "*",
        "message_id",
        &format!("message-{}", fastrand::u32(..)),
        "reason",
        "because",
        "kind",
        kind,
        "receive_count",
        "5",
        "sent_at",
        sent_at,
        "body",
        body,
    ]);
    redis::from_redis_value(id).unwrap()
}

/// The same, of a message whose attribute named its kind.
fn keep_typed(redis: &Redis, sent_at: &str, body: &str, kind: &str) {
    let fields = [
        ("message_id", "message-typed"),
        ("reason", "because"),
        ("kind", "entitlements_updated"),
        ("receive_count", "5"),
        ("sent_at", sent_at),
        ("body", body),
        ("type", kind),
    ];
    let fields = fields.iter().flat_map(|(name, value)| [*name, *value]);
    let command: Vec<&str> = ["XADD", STREAM, "*"].into_iter().chain(fields).collect();
    redis.cmd(&command);
}

fn kept(redis: &Redis) -> u64 {
    redis::from_redis_value(redis.cmd(&["XLEN", STREAM])).unwrap()
}

fn outcomes(json: &Value) -> Vec<(&str, &str)> {
    let letters = json["letters"].as_array().unwrap().iter();
    letters
        .map(|it| (it["id"].as_str().unwrap(), it["outcome"].as_str().unwrap()))
        .collect()
}

async fn applied(redis: &Redis, customer: &str, limit: u64) {
    until("the replayed state is applied", SOON, async || {
        limit_in(redis.get(&format!("production:c_{customer}")).as_ref()) == Some(limit)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_given_up_is_corrected_and_applied() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let _worker = Worker::builder(&redis, &queue)
        .env("MAX_RECEIVE_COUNT", 1)
        .start()
        .await;
    let good = seats(("acme", None), 10, at(1));
    let bad = good.replace("acme", "");
    queue.send(&bad).await;
    // The worker keeps it first and deletes it then.
    until("the message is kept and deleted", SOON, async || {
        kept(&redis) == 1 && queue.depth().await == 0
    })
    .await;
    let operator = Operator::of(&redis).queue(&queue);

    let list = operator.run(&["dead-letter", "list"]).await;
    assert_eq!(list.code, 0, "{list:?}");
    for part in ["entitlements_updated", "customer id is missing or empty"] {
        assert!(list.stdout.contains(part), "{}", list.stdout);
    }
    assert!(
        !list.stdout.contains("entitlementsUpdatedAt"),
        "no body: {}",
        list.stdout
    );
    let json = operator
        .run(&["dead-letter", "list", "--json"])
        .await
        .json();
    assert_eq!(json["letters"][0]["receive_count"], 1, "{json:#}");
    assert_eq!(json["letters"][0].get("body"), None);
    let id = json["letters"][0]["id"].as_str().unwrap();
    let message_id = json["letters"][0]["message_id"].as_str().unwrap();

    for id in [id, message_id] {
        let shown = operator.run(&["dead-letter", "show", id]).await;
        assert_eq!(shown.code, 0, "{shown:?}");
        assert_eq!(shown.stdout.trim_end(), bad);
    }
    assert_eq!(operator.run(&["dead-letter", "show", "1-1"]).await.code, 1);
    assert_eq!(
        operator.run(&["dead-letter", "show", "other"]).await.code,
        1
    );

    // As it stands it would be given up again.
    let refused = operator.run(&["dead-letter", "replay", id]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stdout.contains("unreadable"), "{refused:?}");
    assert_eq!(kept(&redis), 1);
    assert_eq!(queue.depth().await, 0);

    let folder = TempDir::new().unwrap();
    let file = folder.path().join("body.json");
    std::fs::write(&file, format!("{good}\n")).unwrap();
    let file = file.to_str().unwrap();
    let dry = operator
        .run(&["dead-letter", "replay", id, "--body", file, "--dry-run"])
        .await;
    assert!(dry.stdout.contains("would be sent"), "{dry:?}");
    assert_eq!((kept(&redis), queue.depth().await), (1, 0));
    let done = operator
        .run(&["dead-letter", "replay", id, "--body", file])
        .await;
    assert_eq!(done.code, 0, "{done:?}");
    applied(&redis, "acme", 10).await;
    assert_eq!(kept(&redis), 0);
    let missing = operator
        .run(&["dead-letter", "replay", id, "--body", "/nonexistent"])
        .await;
    assert_eq!(missing.code, 66, "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_replayed_passes_for_no_newer_than_it_is() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let _worker = Worker::builder(&redis, &queue).start().await;
    queue.send(&seats(("acme", None), 30, at(30))).await;
    applied(&redis, "acme", 30).await;
    // Sent at 20, and without a time of its own; its kind was in an attribute.
    let mut old: Value = serde_json::from_str(&seats(("acme", None), 20, 0)).unwrap();
    let fields = old.as_object_mut().unwrap();
    fields.retain(|name, _| name != "type" && name != "entitlementsUpdatedAt");
    let sent = at(20).to_string();
    keep_typed(&redis, &sent, &old.to_string(), "ENTITLEMENTS_UPDATED");
    let mut fresh = old.clone();
    fresh["customerId"] = "globex".into();
    keep_typed(&redis, &sent, &fresh.to_string(), "ENTITLEMENTS_UPDATED");
    let operator = Operator::of(&redis).queue(&queue);
    let done = operator.run(&["dead-letter", "replay", "--all"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    applied(&redis, "globex", 20).await;
    queue.wait_empty(SOON).await;
    let stored = redis.get("production:c_globex#timestamp");
    assert_eq!(stored, Some(at(20).to_string()));
    assert_eq!(limit_in(redis.get("production:c_acme").as_ref()), Some(30));
    assert_eq!(kept(&redis), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_send_they_are_applied_directly() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let proxy = FaultProxy::start(sqs.endpoint()).await;
    proxy.always("SendMessageBatch", Fault::access_denied());
    let id = keep(
        &redis,
        "entitlements_updated",
        "",
        &seats(("acme", None), 10, at(1)),
    );
    let old = keep(
        &redis,
        "entitlements_updated",
        "",
        &seats(("acme", None), 5, at(0)),
    );
    let nonsense = keep(&redis, "other", "", "nonsense");
    let operator = Operator::of(&redis)
        .queue(&queue)
        .env("AWS_ENDPOINT_URL_SQS", proxy.url());
    let refused = operator.run(&["dead-letter", "replay", &id]).await;
    assert_eq!(refused.code, 77, "{refused:?}");
    assert!(refused.stderr.contains("--apply"), "{refused:?}");
    assert_eq!(kept(&redis), 3);

    let without_queue = Operator::of(&redis);
    let before = redis.dump("");
    let dry = without_queue
        .run(&[
            "dead-letter",
            "replay",
            "--all",
            "--apply",
            "--dry-run",
            "--json",
        ])
        .await;
    assert_eq!(outcomes(&dry.json())[0].1, "would_be_applied");
    assert_eq!((redis.dump(""), kept(&redis)), (before, 3));
    let done = without_queue
        .run(&["dead-letter", "replay", "--all", "--apply", "--json"])
        .await;
    assert_eq!(done.code, 1, "{done:?}");
    assert_eq!(
        outcomes(&done.json()),
        [
            (&*id, "applied"),
            (&*old, "stale"),
            (&*nonsense, "unreadable")
        ]
    );
    assert_eq!(limit_in(redis.get("production:c_acme").as_ref()), Some(10));
    assert_eq!(kept(&redis), 1);
    assert_eq!(queue.depth().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_deleted_when_it_is_meant() {
    let redis = Redis::start().await;
    let operator = Operator::of(&redis);
    let ids: Vec<String> = (0..120)
        .map(|n| keep(&redis, "purge", "", &format!("body {n}")))
        .collect();
    let some = operator
        .run(&["dead-letter", "list", "--json"])
        .await
        .json();
    assert_eq!(some["letters"].as_array().unwrap().len(), 100);
    assert_eq!(some["is_all"], false);
    let all = operator
        .run(&["dead-letter", "list", "--json", "--limit", "120"])
        .await
        .json();
    assert_eq!(all["letters"].as_array().unwrap().len(), 120);
    assert_eq!(all["is_all"], true);

    let dry = operator
        .run(&["dead-letter", "purge", "--all", "--dry-run"])
        .await;
    assert_eq!(dry.code, 0, "{dry:?}");
    assert_eq!(kept(&redis), 120);
    let one = operator
        .run(&["dead-letter", "purge", &ids[7], "1-1", "--yes", "--json"])
        .await;
    assert_eq!(one.code, 1, "{one:?}");
    assert_eq!(one.json()["deleted"], json!([ids[7]]));
    assert_eq!(one.json()["not_found"], json!(["1-1"]));
    assert_eq!(kept(&redis), 119);
    let rest = operator
        .run(&["dead-letter", "purge", "--all", "--yes"])
        .await;
    assert_eq!(rest.code, 0, "{rest:?}");
    assert_eq!(kept(&redis), 0);
    let none = operator.run(&["dead-letter", "list"]).await;
    assert_eq!((none.code, none.stdout.trim()), (0, "no dead letters"));
    let none = operator
        .run(&["dead-letter", "replay", "--all", "--apply"])
        .await;
    assert_eq!((none.code, none.stdout.trim()), (0, "no dead letters"));
}

/// Runs a command on a dead-letter queue, without anything else being configured.
fn arguments<'a>(dead: &'a TestQueue, arguments: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["dead-letter"];
    all.extend(arguments);
    all.extend(["--queue-url", &dead.url]);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_queue_is_replayed_until_the_worker_has_applied_it() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let (queue, dead) = sqs
        .queue_with_dead_letters("q", 3, &[("VisibilityTimeout", "2")])
        .await;
    for n in 0..14 {
        dead.send(&seats((&format!("customer-{n}"), None), 10, at(1)))
            .await;
    }
    let body = seats(("acme", None), 10, at(1)).replace("\"type\"", "\"was\"");
    let typed = dead
        .send_with(&body, &[("eventType", "ENTITLEMENTS_UPDATED")])
        .await;
    let nonsense = dead.send("nonsense").await;
    let operator = Operator::of(&redis).unset("REDIS_HOST").sqs();

    let list = operator.run(&arguments(&dead, &["list", "--json"])).await;
    assert_eq!(list.code, 0, "{list:?}");
    let letters = list.json()["letters"].as_array().unwrap().clone();
    assert_eq!(letters.len(), 16);
    let of = |id: &str| letters.iter().find(|letter| letter["id"] == id).unwrap();
    assert_eq!(of(&typed)["kind"], "entitlements_updated");
    assert_eq!(of(&typed)["reason"], Value::Null);
    assert!(
        of(&nonsense)["reason"]
            .as_str()
            .unwrap()
            .contains("not JSON")
    );
    // What was looked at is there for others at once.
    assert_eq!(dead.visible().await, 16);

    let shown = operator.run(&arguments(&dead, &["show", &typed])).await;
    assert_eq!(shown.stdout.trim_end(), body, "{shown:?}");
    assert_eq!(dead.visible().await, 16);

    let nowhere = operator.run(&arguments(&dead, &["replay", "--all"])).await;
    assert_eq!(nowhere.code, 78, "{nowhere:?}");
    assert!(nowhere.stderr.contains("QUEUE_URL"), "{nowhere:?}");
    let same = operator.clone().queue(&dead);
    let same = same.run(&arguments(&dead, &["replay", "--all"])).await;
    assert_eq!(same.code, 2, "{same:?}");

    let operator = operator.queue(&queue);
    let dry = operator
        .run(&arguments(&dead, &["replay", "--all", "--dry-run"]))
        .await;
    assert_eq!(dry.code, 1, "{dry:?}");
    assert_eq!((queue.depth().await, dead.visible().await), (0, 16));

    let _worker = Worker::builder(&redis, &queue).start().await;
    let done = operator
        .run(&arguments(&dead, &["replay", "--all", "--json"]))
        .await;
    assert_eq!(done.code, 1, "the nonsense is left: {done:?}");
    applied(&redis, "acme", 10).await;
    for n in 0..14 {
        applied(&redis, &format!("customer-{n}"), 10).await;
    }
    assert_eq!((dead.depth().await, dead.visible().await), (1, 1));

    let purged = operator
        .run(&arguments(&dead, &["purge", &nonsense, "--yes"]))
        .await;
    assert_eq!(purged.code, 0, "{purged:?}");
    assert_eq!(dead.depth().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_sent_stays_where_it_is() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let (queue, dead) = sqs.queue_with_dead_letters("q", 3, &[]).await;
    let proxy = FaultProxy::start(sqs.endpoint()).await;
    proxy.always("SendMessageBatch", Fault::server_error());
    dead.send(&seats(("acme", None), 10, at(1))).await;
    let operator = Operator::of(&redis)
        .queue(&queue)
        .env("AWS_ENDPOINT_URL_SQS", proxy.url());
    let failed = operator.run(&arguments(&dead, &["replay", "--all"])).await;
    assert_eq!(failed.code, 69, "{failed:?}");
    assert_eq!((queue.depth().await, dead.visible().await), (0, 1));
    // Sent, and then not deleted: it is there twice, and the command says so.
    proxy.clear_all();
    proxy.always("DeleteMessageBatch", Fault::access_denied());
    let failed = operator.run(&arguments(&dead, &["replay", "--all"])).await;
    assert_eq!(failed.code, 77, "{failed:?}");
    assert!(
        failed.stderr.contains("was replayed but not deleted"),
        "{failed:?}"
    );
    assert_eq!((queue.depth().await, dead.visible().await), (1, 1));

    let nobody = operator.env("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:1");
    let nobody = nobody.run(&arguments(&dead, &["list"])).await;
    assert_eq!(nobody.code, 69, "{nobody:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifo_queues_keep_their_groups_and_take_the_same_body_again() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let (queue, dead) = (sqs.fifo_queue("q").await, sqs.fifo_queue("dead").await);
    let body = seats(("acme", None), 10, at(1));
    let operator = Operator::of(&redis).queue(&queue);
    // Its body has been in the queue a moment ago.
    queue.send_fifo(&body, "acme").await;
    dead.send_fifo(&body, "acme").await;
    let done = operator.run(&arguments(&dead, &["replay", "--all"])).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(dead.depth().await, 0);
    assert_eq!(queue.depth().await, 2);
    let groups: Vec<String> = queue
        .receive_all()
        .await
        .iter()
        .map(|message| {
            message.attributes.as_ref().unwrap()[&MessageSystemAttributeName::MessageGroupId]
                .clone()
        })
        .collect();
    assert!(groups.iter().all(|group| group == "acme"), "{groups:?}");

    // From the stream, which knows no group.
    keep(&redis, "entitlements_updated", "", &body);
    let done = operator.run(&["dead-letter", "replay", "--all"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(queue.depth().await, 3);
}

/// A page of a queue's answer, of messages that are not in the real one.
fn page(ids: &[&str]) -> Fault {
    let message = |id: &&str| {
        json!({"MessageId": id, "ReceiptHandle": format!("receipt-{id}-{}", fastrand::u32(..)), "Body": "nonsense",
            "Attributes": {"SentTimestamp": "1763150385133", "ApproximateReceiveCount": "9"}})
    };
    let messages: Vec<Value> = ids.iter().map(message).collect();
    Fault::Answer {
        status: 200,
        code: "",
        body: json!({ "Messages": messages }).to_string(),
    }
}

/// What was left comes back while the others are still being sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_letters_that_were_seen_is_not_the_end() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let (queue, dead) = (sqs.queue("q").await, sqs.queue("dead").await);
    let proxy = FaultProxy::start(sqs.endpoint()).await;
    let unreadable: Vec<String> = (0..10).map(|n| format!("unreadable-{n}")).collect();
    let unreadable: Vec<&str> = unreadable.iter().map(String::as_str).collect();
    for _ in 0..3 {
        proxy.once("ReceiveMessage", page(&unreadable));
    }
    for n in 0..15 {
        dead.send(&seats((&format!("customer-{n}"), None), 10, at(1)))
            .await;
    }
    let operator = Operator::of(&redis)
        .queue(&queue)
        .env("AWS_ENDPOINT_URL_SQS", proxy.url());
    let done = operator
        .run(&arguments(&dead, &["replay", "--all", "--json"]))
        .await;
    assert_eq!(done.code, 1, "{done:?}");
    let json = done.json();
    let count = |wanted: &str| {
        let outcomes = outcomes(&json);
        outcomes.iter().filter(|(_, it)| *it == wanted).count()
    };
    assert_eq!((count("unreadable"), count("sent")), (10, 15));
    assert_eq!((queue.depth().await, dead.depth().await), (15, 0));

    // The command reports a queue that returns nothing else.
    proxy.always("ReceiveMessage", page(&unreadable));
    let listed = operator.run(&arguments(&dead, &["list", "--json"])).await;
    assert_eq!(listed.json()["is_all"], false);
    assert!(listed.stderr.contains("there may be more"), "{listed:?}");
}

/// With sends so slow that the letters which cannot be read become visible again (after a minute) before all others are
/// sent.
#[tokio::test(flavor = "multi_thread")]
async fn slow_sends_leave_no_letter_behind() {
    const READABLE: usize = 140;
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let (queue, dead) = (sqs.queue("q").await, sqs.queue("dead").await);
    for n in 0..10 {
        dead.send(&format!("unreadable {n}")).await;
    }
    for n in 0..READABLE {
        dead.send(&seats((&format!("customer-{n}"), None), 10, at(1)))
            .await;
    }
    let proxy = FaultProxy::start(sqs.endpoint()).await;
    let slow = Fault::Delay(Duration::from_secs(1));
    proxy.always("SendMessageBatch", slow);
    let cli = Cli::new(&redis)
        .queue(&queue.url)
        .env("AWS_ENDPOINT_URL_SQS", proxy.url());
    let mut child = cli.spawn(&["dead-letter", "replay", "--all", "--queue-url", &dead.url]);
    let mut code = None;
    until("it has ended", Duration::from_secs(400), async || {
        code = child.try_wait().unwrap();
        code.is_some()
    })
    .await;
    assert_eq!(code.unwrap().code(), Some(1), "ten are left");
    assert_eq!(queue.depth().await, READABLE as u64);
    assert_eq!(dead.depth().await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_group_is_reported() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let dead = sqs.fifo_queue("dead").await;
    for n in 0..12 {
        dead.send_fifo(&format!("nonsense {n}"), "acme").await;
    }
    let operator = Operator::of(&redis).sqs();
    let listed = operator.run(&arguments(&dead, &["list"])).await;
    assert_eq!(listed.code, 0, "{listed:?}");
    assert!(
        listed.stderr.contains("no more messages of a group"),
        "{listed:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_kept_is_replayed_with_the_attribute_that_named_its_kind() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let body = seats(("acme", None), 10, at(1)).replace("\"type\"", "\"was\"");
    let worker = Worker::builder(&redis, &queue)
        .env("MAX_RECEIVE_COUNT", 1)
        .start()
        .await;
    // The worker keeps it, attribute and all.
    let bad = body.replace("acme", "");
    queue
        .send_with(&bad, &[("eventType", "entitlements.updated")])
        .await;
    until("the message is kept", SOON, async || kept(&redis) == 1).await;
    let operator = Operator::of(&redis).queue(&queue);
    let json = operator
        .run(&["dead-letter", "list", "--json"])
        .await
        .json();
    let letter = &json["letters"][0];
    assert_eq!(
        letter["attributes"],
        json!({"type": "entitlements.updated"})
    );
    let id = letter["id"].as_str().unwrap();
    let shown = operator.run(&["dead-letter", "show", id]).await;
    assert!(
        shown.stderr.contains("attribute type=entitlements.updated"),
        "{shown:?}"
    );
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("body.json");
    std::fs::write(&file, &body).unwrap();
    let file = file.to_str().unwrap();
    let done = operator
        .run(&["dead-letter", "replay", id, "--body", file])
        .await;
    assert_eq!(done.code, 0, "{done:?}");
    applied(&redis, "acme", 10).await;
    drop(worker);
}

/// Sent again it would count as new, and win over what was true after it.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_given_its_time_is_not_sent() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let body = seats(("acme", None), 10, 0).replace("\"entitlementsUpdatedAt\":0,", "");
    let undated = json!({"type": "CUSTOMER_DELETED", "customerId": "acme", "timestamp": 0});
    keep(&redis, "purge", &at(1).to_string(), &undated.to_string());
    keep(&redis, "entitlements_updated", "", &body);
    let operator = Operator::of(&redis).queue(&queue);
    let done = operator.run(&["dead-letter", "replay", "--all"]).await;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stdout.contains("would count as new"), "{done:?}");
    assert_eq!((kept(&redis), queue.depth().await), (2, 0));
    let done = operator
        .run(&["dead-letter", "replay", "--all", "--anyway"])
        .await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!((kept(&redis), queue.depth().await), (0, 2));
}
