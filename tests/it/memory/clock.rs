//! Whether the state is proven does not depend on the wall clock of the process, which may be wrong or jump.

use std::time::Duration;

use tempfile::TempDir;

use super::in_flight::hang;
use super::process::{drained, flag, is_proven};
use super::restart::{NO_EDGE, kept_in};
use testkit::events::{at, seats};
use testkit::reader::Builder;
use testkit::{Clock, FaultProxy, Reader, Sqs, TestQueue, until};

const SOON: Duration = Duration::from_secs(60);
const TEN_MINUTES: i64 = 600;

async fn send(queue: &TestQueue, customers: std::ops::Range<u64>) {
    let bodies = customers.map(|n| seats((&format!("customer-{n}"), None), n + 1, at(1)));
    queue.send_all(&bodies.collect::<Vec<_>>()).await;
}

fn by(clock: &Clock, builder: Builder) -> Builder {
    let variables = clock.env().into_iter();
    variables.fold(builder, |builder, (name, value)| builder.env(name, value))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_behind_does_not_prove_the_state_early() {
    const BACKLOG: u64 = 300;
    let (sqs, clock) = (Sqs::start().await, Clock::new());
    let queue = sqs.queue("q").await;
    send(&queue, 0..BACKLOG).await;
    clock.set_ahead(-TEN_MINUTES);
    let one_by_one = Reader::in_memory(&queue, NO_EDGE)
        .env("CONSUMERS", 1)
        .env("BATCH_SIZE", 1);
    let reader = by(&clock, one_by_one).start().await;
    until("an answer is fresh", SOON, async || {
        let reply = flag(&reader, "seats", "customer-0").await;
        reply.status == 200 && reply.json()["reason"] != "STALE"
    })
    .await;
    let received = reader.metric("entitlement_sync_messages_received_total");
    assert_eq!(received.await, BACKLOG as f64, "all was read before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_ahead_does_not_keep_the_state_unproven() {
    let (sqs, clock) = (Sqs::start().await, Clock::new());
    let queue = sqs.queue("q").await;
    send(&queue, 0..10).await;
    clock.set_ahead(TEN_MINUTES);
    let one = Reader::in_memory(&queue, NO_EDGE).env("CONSUMERS", 1);
    let reader = by(&clock, one).start().await;
    // No receive is empty, since one message comes after the other, and the first poll, which does not wait, finds ten.
    until("the state is proven", SOON, async || {
        send(&queue, 0..1).await;
        is_proven(&reader).await
    })
    .await;
}

/// A change of one customer proves nothing of the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_one_customer_makes_no_other_one_younger() {
    const HALF_AN_HOUR: i64 = 1_800;
    let (sqs, clock, folder) = (Sqs::start().await, Clock::new(), TempDir::new().unwrap());
    let queue = sqs.queue_with("q", &[("VisibilityTimeout", "600")]).await;
    let calls = FaultProxy::start(sqs.endpoint()).await;
    let builder = kept_in(folder.path(), &queue, NO_EDGE)
        .env("AWS_ENDPOINT_URL_SQS", calls.url())
        .env("CONSUMERS", 1);
    let builder = by(&clock, builder);
    let kill = async |reader: Reader| {
        reader.kill();
        reader.wait_exit(SOON).await;
    };
    let reader = builder.start().await;
    send(&queue, 0..1).await;
    drained(&queue).await;
    until("the state is proven", SOON, async || {
        is_proven(&reader).await
    })
    .await;
    // Else the queue may answer a receive of the killed process with the next message.
    hang(&calls).await;
    kill(reader).await;
    calls.clear("ReceiveMessage");
    clock.set_ahead(HALF_AN_HOUR);
    // Messages may be in flight to the process that was killed, so nothing is proven in this life.
    let reader = builder.start().await;
    send(&queue, 1..2).await;
    drained(&queue).await;
    assert!(!is_proven(&reader).await);
    kill(reader).await;
    let reader = builder.start().await;
    let age = async |customer: &str| {
        let path = format!("/v1/c/{customer}/entitlements.json");
        let reply = reader.get(&path).await;
        assert_eq!(
            reply.header("cache-status"),
            "entitlement-sync; hit; detail=unproven"
        );
        reply.header("age").parse::<i64>().unwrap()
    };
    let (unchanged, changed) = (age("customer-0").await, age("customer-1").await);
    assert!(
        unchanged >= HALF_AN_HOUR && changed < HALF_AN_HOUR,
        "{unchanged} s and {changed} s"
    );
}
