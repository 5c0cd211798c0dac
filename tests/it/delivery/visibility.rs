//! A batch does not outlive its visibility timeout unnoticed.

use std::time::Duration;

use serde_json::json;

use testkit::fault::FaultProxy;
use testkit::proxy::TcpProxy;
use testkit::redis::Redis;
use testkit::sqs::Sqs;
use testkit::until;
use testkit::worker::Worker;

const LIMIT: Duration = Duration::from_secs(30);

fn body(customer: &str) -> String {
    json!({
        "type": "entitlements.updated",
        "timestamp": "2025-11-14T19:59:45.200Z",
        "customerId": customer,
        "entitlements": [],
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_in_flight_while_redis_is_away_are_extended_and_not_redelivered() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue_with("short", &[("VisibilityTimeout", "4")]).await;
    let (link, faults) = (
        TcpProxy::start(redis.port()).await,
        FaultProxy::start(sqs.endpoint()).await,
    );
    let worker = Worker::builder(&redis, &queue)
        .redis_port(link.port())
        .endpoint(faults.url())
        .start()
        .await;
    until("the queue's settings are known", LIMIT, async || {
        worker.logs().contains("visibility_timeout_secs=4")
    })
    .await;
    // In hand when Redis stops answering: the probe has half a second at most to notice first.
    until(
        "a message is in flight while Redis is away",
        LIMIT,
        async || {
            link.restore().await;
            worker.wait_ready().await;
            link.blackhole();
            queue.send(&body("acme")).await;
            worker.wait_unready().await;
            worker.metric("entitlement_sync_inflight_messages").await == 1.0
        },
    )
    .await;
    until("it was extended", LIMIT, async || {
        worker
            .metric("entitlement_sync_visibility_extensions_total")
            .await
            >= 2.0
    })
    .await;
    let redelivered = worker
        .metric("entitlement_sync_messages_redelivered_total")
        .await;
    link.restore().await;
    queue.wait_empty(LIMIT).await;
    assert!(redis.get("production:c_acme").is_some());
    assert_eq!(
        worker
            .metric("entitlement_sync_messages_redelivered_total")
            .await,
        redelivered
    );
    assert_eq!(
        worker
            .metric("entitlement_sync_acknowledged_late_total")
            .await,
        0.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledging_after_the_timeout_is_said() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue_with("short", &[("VisibilityTimeout", "2")]).await;
    let link = TcpProxy::start(redis.port()).await;
    let worker = Worker::builder(&redis, &queue)
        .redis_port(link.port())
        .start()
        .await;
    until("the queue's settings are known", LIMIT, async || {
        worker.logs().contains("visibility_timeout_secs=2")
    })
    .await;
    // The process stands still with a message in flight for longer than the timeout: with its writes on the way, so that
    // it is in flight for long enough to be caught.
    // It is not late if the worker still extends the timeout first, or was done before it stood still: then again.
    until("a message is acknowledged late", LIMIT * 3, async || {
        link.delay(Duration::from_millis(300));
        queue.send(&body("acme")).await;
        until("it is in flight", LIMIT, async || {
            worker.metric("entitlement_sync_inflight_messages").await >= 1.0
        })
        .await;
        worker.freeze();
        // Asked in this order: what is in flight becomes visible, and not the other way round.
        until("its time is over, or it is done", LIMIT, async || {
            let in_flight = queue.in_flight().await;
            queue.visible().await > 0 || in_flight == 0
        })
        .await;
        link.restore().await;
        worker.thaw();
        queue.wait_empty(LIMIT).await;
        let late = "entitlement_sync_acknowledged_late_total";
        worker.metric(late).await >= 1.0
    })
    .await;
    assert!(
        worker
            .logs()
            .contains("messages acknowledged after their visibility timeout")
    );
    queue.wait_empty(LIMIT).await;
    assert!(redis.get("production:c_acme").is_some());
}

/// As long as a virtual machine is stopped to be moved, and longer than what the supervisor takes for a standstill. Others
/// may have the messages meanwhile; the consumers are well, and nothing is lost. There are so many of them that on waking
/// the supervisor looks before all of them have made progress.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_stopped_for_50_s_with_messages_in_flight_goes_on() {
    const STOPPED: Duration = Duration::from_secs(50);
    const MESSAGES: usize = 40;
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue_with("short", &[("VisibilityTimeout", "5")]).await;
    let link = TcpProxy::start(redis.port()).await;
    let worker = Worker::builder(&redis, &queue)
        .redis_port(link.port())
        .env("CONSUMERS", 40)
        .env("MIN_POLLERS", 40)
        .start()
        .await;
    link.delay(Duration::from_millis(300));
    for number in 0..MESSAGES {
        queue.send(&body(&format!("c{number}"))).await;
    }
    until("messages are in flight", LIMIT, async || {
        worker.metric("entitlement_sync_inflight_messages").await >= 1.0
    })
    .await;
    worker.freeze();
    let since = std::time::Instant::now();
    until("it was stopped for long", 2 * STOPPED, async || {
        since.elapsed() > STOPPED
    })
    .await;
    link.restore().await;
    worker.thaw();
    worker.wait_ready().await;
    queue.wait_empty(2 * LIMIT).await;
    for number in 0..MESSAGES {
        let key = format!("production:c_c{number}");
        assert!(redis.get(&key).is_some(), "{key}");
    }
    let restarted = "entitlement_sync_consumers_restarted_total";
    assert_eq!(worker.metric(restarted).await, 0.0, "{}", worker.logs());
    worker.wait_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_ask_30_s_and_no_dead_letter_queue_are_assumed() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("unknown").await;
    let faults = FaultProxy::start(sqs.endpoint()).await;
    faults.always("GetQueueAttributes", testkit::fault::Fault::access_denied());
    let worker = Worker::builder(&redis, &queue)
        .endpoint(faults.url())
        .env("MAX_RECEIVE_COUNT", 1)
        .start()
        .await;
    until("it is said", LIMIT, async || {
        worker
            .logs()
            .contains("assumes a visibility timeout of 30 s")
    })
    .await;
    queue.send("no JSON").await;
    queue.wait_empty(LIMIT).await;
    let kept: Vec<redis::Value> = redis::cmd("XRANGE")
        .arg("production:dead-letter")
        .arg("-")
        .arg("+")
        .query(&mut redis.conn())
        .unwrap();
    assert_eq!(kept.len(), 1);
}
