//! `peek`: the real queue is looked at, and nothing of it is lost or kept.

use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::commands::messages::ended;
use testkit::events::{at, seats};
use testkit::{Fault, FaultProxy, Operator, Redis, Sqs, TestQueue, Worker, until};

const SOON: Duration = Duration::from_secs(30);

async fn counts(queue: &TestQueue) -> Vec<u32> {
    let of = |message: &aws_sdk_sqs::types::Message| {
        let attributes = message.attributes.as_ref().unwrap();
        let name = aws_sdk_sqs::types::MessageSystemAttributeName::ApproximateReceiveCount;
        attributes[&name].parse::<u32>().unwrap()
    };
    queue.receive_all().await.iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_become_of_each_is_shown_and_all_is_given_back() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    for n in 0..24 {
        queue
            .send(&seats((&format!("customer-{n}"), None), 10, at(1)))
            .await;
    }
    let operator = Operator::of(&redis).queue(&queue);
    let asked = operator.run(&["peek"]).await;
    assert_eq!(asked.code, 2, "{asked:?}");
    assert!(
        asked.stderr.contains("receive count of each rises by one")
            && asked.stderr.contains("--yes"),
        "{asked:?}"
    );
    let before = redis.dump("");
    let done = operator
        .run(&["peek", "--count", "30", "--yes", "--json"])
        .await;
    assert_eq!(done.code, 0, "{done:?}");
    let json = done.json();
    assert_eq!(json["redis"], "looked at");
    let messages = json["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 24);
    for message in messages {
        assert_eq!(message["outcome"], "applied", "{message:#}");
        assert_eq!(message["receive_count"], 1);
        assert!(message["message_id"].is_string() && message["sent_at"].is_u64());
    }
    assert_eq!(redis.dump(""), before);
    // They are there for a worker at once, and were delivered once before.
    assert_eq!(queue.visible().await, 24);
    let text = operator
        .run(&["peek", "--count", "3", "--yes", "--no-redis"])
        .await;
    assert_eq!(text.code, 0, "{text:?}");
    assert!(
        text.stdout.contains("message 3 (delivery ") && !text.stdout.contains("message 4"),
        "{text:?}"
    );
    let worker = Worker::builder(&redis, &queue).start().await;
    queue.wait_empty(SOON).await;
    assert!(redis.get("production:c_customer-23").is_some());
    drop(worker);
    let none = operator.run(&["peek", "--yes"]).await;
    assert_eq!((none.code, none.stdout.as_str()), (0, ""), "{none:?}");
    assert!(none.stderr.contains("delivered no message"), "{none:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_read_is_named_and_its_skeleton_holds_no_value() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let body = json!({"type": "secret.kind", "customer": {"id": "secret"}, "features": {"secret-seats": {"usageLimit": 4711}},
        "Message": "{\"deep-secret\":{\"customerId\":\"secret\"}}"});
    queue
        .send_with(&body.to_string(), &[("type", "secret")])
        .await;
    queue.send("secret").await;
    let operator = Operator::of(&redis).queue(&queue);
    let done = operator.run(&["peek", "--yes"]).await;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(
        done.stdout.contains("invalid") && done.stdout.contains("outcome   unrecognised"),
        "{done:?}"
    );

    let done = operator.run(&["peek", "--skeleton", "--yes"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    let printed = format!("{}{}", done.stdout, done.stderr);
    assert!(
        !printed.contains("secret") && !printed.contains("4711"),
        "{done:?}"
    );
    let shape = "{Message:string of {?:{customerId:string}},customer:{id:string},features:{?:{usageLimit:number}},type:string} \
                 (attributes type)";
    let mut shapes: Vec<&str> = done.stdout.lines().collect();
    shapes.sort_unstable();
    assert_eq!(shapes, ["not JSON", shape]);
    let json = operator
        .run(&["peek", "--skeleton", "--yes", "--json"])
        .await
        .json();
    let attributes = json.as_array().unwrap().iter();
    let attributes: Vec<&Value> = attributes.map(|it| &it["attributes"]).collect();
    assert!(attributes.contains(&&json!(["type"])), "{json:#}");
    assert_eq!(queue.visible().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_event_beside_changes_is_shown() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let body = json!([{"type": "usageUpdated", "customerId": "acme", "featureId": "f", "currentUsage": 7},
        {"type": "customer.merged", "id": 1}]);
    queue.send(&body.to_string()).await;
    let operator = Operator::of(&redis).queue(&queue);
    let done = operator.run(&["peek", "--yes"]).await;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(
        done.stdout
            .contains("with an event of the unknown kind customer.merged")
            && done.stdout.contains("outcome   skipped"),
        "{done:?}"
    );
    let json = operator.run(&["peek", "--yes", "--json"]).await.json();
    assert_eq!(json["messages"][0]["unrecognised"], "customer.merged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_it_after_everything_was_given_back() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    for n in 0..20 {
        queue
            .send(&seats((&format!("customer-{n}"), None), 10, at(1)))
            .await;
    }
    let proxy = FaultProxy::start(sqs.endpoint()).await;
    let operator = Operator::of(&redis)
        .queue(&queue)
        .env("AWS_ENDPOINT_URL_SQS", proxy.url());
    // The second page is under way when the signal comes.
    proxy.once("ReceiveMessage", Fault::Delay(Duration::ZERO));
    proxy.once("ReceiveMessage", Fault::Delay(Duration::from_millis(1_500)));
    let (child, _folder) = operator.start(&["peek", "--count", "20", "--yes"]);
    let pid = Pid::from_raw(child.id().unwrap().cast_signed());
    until("the second page is asked for", SOON, async || {
        proxy.calls("ReceiveMessage") == 2
    })
    .await;
    signal::kill(pid, Signal::SIGINT).unwrap();
    let ran = ended(child, "").await;
    ran.says(130, &["all messages received were returned"]);
    assert_eq!(queue.visible().await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_pushed_into_the_dead_letter_queue_unsaid() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let (once, dead) = sqs.queue_with_dead_letters("once", 1, &[]).await;
    once.send("nonsense").await;
    let operator = Operator::of(&redis);
    let refused = operator.clone().queue(&once).run(&["peek", "--yes"]).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("maxReceiveCount"), "{refused:?}");
    assert_eq!((once.visible().await, dead.depth().await), (1, 0));
    assert_eq!(counts(&once).await, [1]);

    let (queue, dead) = sqs.queue_with_dead_letters("twice", 2, &[]).await;
    for n in 0..30 {
        queue
            .send(&seats((&format!("customer-{n}"), None), 10, at(1)))
            .await;
    }
    let operator = operator.queue(&queue);
    let asked = operator.run(&["peek"]).await;
    assert!(asked.stderr.contains("after 2 deliveries"), "{asked:?}");
    let first = operator.run(&["peek", "--count", "30", "--yes"]).await;
    assert_eq!(first.code, 0, "{first:?}");
    // The last delivery that is allowed: it ends at the first page.
    let second = operator
        .run(&["peek", "--count", "30", "--yes", "--json"])
        .await;
    assert_eq!(second.code, 1, "{second:?}");
    assert!(second.stderr.contains("last delivery"), "{second:?}");
    let seen = second.json()["messages"].as_array().unwrap().len();
    assert!((1..=10).contains(&seen), "{seen}");
    assert_eq!((queue.visible().await, dead.depth().await), (30, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_half_way_gives_back_what_was_received() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    for n in 0..20 {
        queue.send(&format!("nonsense {n}")).await;
    }
    let proxy = FaultProxy::start(sqs.endpoint()).await;
    let operator = Operator::of(&redis)
        .queue(&queue)
        .env("AWS_ENDPOINT_URL_SQS", proxy.url());
    proxy.once("ReceiveMessage", Fault::Delay(Duration::ZERO));
    proxy.always("ReceiveMessage", Fault::access_denied());
    let failed = operator.run(&["peek", "--count", "20", "--yes"]).await;
    assert_eq!(failed.code, 77, "{failed:?}");
    assert_eq!(queue.visible().await, 20);

    proxy.clear_all();
    proxy.always("ChangeMessageVisibilityBatch", Fault::access_denied());
    let hidden = operator.run(&["peek", "--count", "1", "--yes"]).await;
    assert_eq!(hidden.code, 1, "{hidden:?}");
    assert!(hidden.stderr.contains("stay hidden for 30 s"), "{hidden:?}");
    // Whether there is a redrive policy may be a secret too.
    proxy.clear_all();
    proxy.always("GetQueueAttributes", Fault::access_denied());
    let asked = operator.run(&["peek"]).await;
    assert!(asked.stderr.contains("sqs:GetQueueAttributes"), "{asked:?}");
}
