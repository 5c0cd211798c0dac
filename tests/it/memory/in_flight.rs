//! Messages may be in flight to a process that is gone, and no receive shows them: until the queue must have given them back,
//! no empty answer proves the state.

use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::process::{drained, is_proven, limit, until_limit};
use super::restart::{NO_EDGE, kept_in, kill, snapshots};
use testkit::events::{ACME, at, seats};
use testkit::reader::Builder;
use testkit::{Fault, FaultProxy, Reader, Signal, Sqs, TestQueue, until};

const SOON: Duration = Duration::from_secs(60);
/// Far longer than a test takes.
const LONG: [(&str, &str); 1] = [("VisibilityTimeout", "600")];
const NOT_SETTLED: &str = "messages may be in flight to this process";

async fn proven(reader: &Reader) {
    until("the state is proven", SOON, async || {
        is_proven(reader).await
    })
    .await;
}

async fn ended(reader: &Reader) {
    reader.term();
    assert_eq!(reader.wait_exit(SOON).await, 0);
}

/// What is answered once empty answers to receives that waited would have proven the state.
async fn answer_to_an_empty_queue(reader: &Reader) -> String {
    until("the queue answers that it is empty", SOON, async || {
        let empty = reader.metric("entitlement_sync_empty_receives_total").await;
        // The first receive of each consumer does not wait.
        empty > 3.0
    })
    .await;
    let reply = reader.get("/v1/c/acme/entitlements.json").await;
    reply.header("cache-status").to_owned()
}

const FRESH: &str = "entitlement-sync; hit";
const STALE: &str = "entitlement-sync; hit; detail=unproven";

/// A process that was told one change, which is acknowledged.
async fn told(queue: &TestQueue, builder: &Builder) -> Reader {
    let reader = builder.start().await;
    queue.send(&seats(ACME, 10, at(1))).await;
    drained(queue).await;
    reader
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_an_empty_queue_proves_nothing_until_the_visibility_timeout_has_passed() {
    let (sqs, folder) = (Sqs::start().await, TempDir::new().unwrap());
    let queue = sqs.queue_with("q", &LONG).await;
    let builder = kept_in(folder.path(), &queue, NO_EDGE);
    let reader = told(&queue, &builder).await;
    // Nothing is in the journal after this snapshot, and still the process is killed.
    reader.signal(Signal::SIGUSR1);
    until("a snapshot is written", SOON, async || {
        snapshots(folder.path()) > 0
    })
    .await;
    kill(reader).await;
    let reader = builder.start().await;
    assert_eq!(answer_to_an_empty_queue(&reader).await, STALE);
    assert!(!is_proven(&reader).await);
    // An end in order, too early, does not make the messages come back.
    ended(&reader).await;
    assert!(reader.logs().contains(NOT_SETTLED), "{}", reader.logs());
    let reader = builder.start().await;
    assert_eq!(answer_to_an_empty_queue(&reader).await, STALE);
    assert!(!is_proven(&reader).await);
}

/// Held messages are extended by more than that timeout.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_a_short_visibility_timeout_is_no_proof_before_extensions_have_passed() {
    const EXTENSION: Duration = Duration::from_secs(10);
    let (sqs, folder) = (Sqs::start().await, TempDir::new().unwrap());
    let queue = sqs.queue_with("q", &[("VisibilityTimeout", "2")]).await;
    let builder = kept_in(folder.path(), &queue, NO_EDGE);
    kill(told(&queue, &builder).await).await;
    let started = Instant::now();
    let reader = builder.start().await;
    proven(&reader).await;
    assert!(started.elapsed() >= EXTENSION, "{:?}", started.elapsed());
    assert_eq!(answer_to_an_empty_queue(&reader).await, FRESH);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_process_that_ends_in_order_leaves_nothing_in_flight() {
    let (sqs, folder) = (Sqs::start().await, TempDir::new().unwrap());
    let queue = sqs.queue_with("q", &LONG).await;
    let builder = kept_in(folder.path(), &queue, NO_EDGE);
    let reader = told(&queue, &builder).await;
    // Its receives wait for long from here on.
    proven(&reader).await;
    ended(&reader).await;
    assert!(!reader.logs().contains(NOT_SETTLED), "{}", reader.logs());
    let reader = builder.start().await;
    proven(&reader).await;
    assert_eq!(answer_to_an_empty_queue(&reader).await, FRESH);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receive_that_the_end_interrupts_may_have_taken_messages() {
    let (sqs, folder) = (Sqs::start().await, TempDir::new().unwrap());
    let queue = sqs.queue_with("q", &LONG).await;
    let calls = FaultProxy::start(sqs.endpoint()).await;
    let builder = kept_in(folder.path(), &queue, NO_EDGE).env("AWS_ENDPOINT_URL_SQS", calls.url());
    let reader = told(&queue, &builder).await;
    proven(&reader).await;
    hang(&calls).await;
    ended(&reader).await;
    assert!(reader.logs().contains(NOT_SETTLED), "{}", reader.logs());
    calls.clear("ReceiveMessage");
    let reader = builder.start().await;
    assert_eq!(answer_to_an_empty_queue(&reader).await, STALE);
}

/// From here on receives get no answer.
pub async fn hang(calls: &FaultProxy) {
    let before = calls.calls("ReceiveMessage");
    calls.always("ReceiveMessage", Fault::Hang);
    until("a receive gets no answer", SOON, async || {
        calls.calls("ReceiveMessage") > before
    })
    .await;
}

/// The answer brings the change, and never arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_receive_whose_answer_is_lost_may_have_taken_messages() {
    let (sqs, folder) = (Sqs::start().await, TempDir::new().unwrap());
    let queue = sqs.queue_with("q", &LONG).await;
    let calls = FaultProxy::start(sqs.endpoint()).await;
    let builder = kept_in(folder.path(), &queue, NO_EDGE)
        .env("AWS_ENDPOINT_URL_SQS", calls.url())
        .env("CONSUMERS", 1);
    let reader = told(&queue, &builder).await;
    proven(&reader).await;
    let before = calls.calls("ReceiveMessage");
    calls.always("ReceiveMessage", Fault::LoseAnswer);
    until("an answer will be lost", SOON, async || {
        calls.calls("ReceiveMessage") > before
    })
    .await;
    queue.send(&seats(ACME, 11, at(2))).await;
    until("the change is in flight", SOON, async || {
        queue.in_flight().await == 1
    })
    .await;
    until("the receive has failed", SOON, async || {
        let failed = r#"entitlement_sync_queue_errors_total{operation="receive"}"#;
        reader.metric(failed).await > 0.0
    })
    .await;
    calls.clear("ReceiveMessage");
    ended(&reader).await;
    assert!(reader.logs().contains(NOT_SETTLED), "{}", reader.logs());
    let reader = builder.start().await;
    assert_eq!(answer_to_an_empty_queue(&reader).await, STALE);
    assert_eq!(limit(&reader, "acme").await, Some(10));
}

/// Messages that arrive after the end began are returned. If that fails, they are in flight to nobody.
#[tokio::test(flavor = "multi_thread")]
async fn messages_that_the_end_cannot_return_are_waited_for() {
    const DELAY: Duration = Duration::from_secs(3);
    for is_returned in [true, false] {
        let (sqs, folder) = (Sqs::start().await, TempDir::new().unwrap());
        let queue = sqs.queue_with("q", &LONG).await;
        let calls = FaultProxy::start(sqs.endpoint()).await;
        let builder = kept_in(folder.path(), &queue, NO_EDGE)
            .env("AWS_ENDPOINT_URL_SQS", calls.url())
            .env("SHUTDOWN_TIMEOUT_SECS", 60)
            .env("CONSUMERS", 1);
        let reader = told(&queue, &builder).await;
        proven(&reader).await;
        if !is_returned {
            calls.always("ChangeMessageVisibilityBatch", Fault::server_error());
        }
        // The receive that finds the change begins before the end and is answered after it.
        let before = calls.calls("ReceiveMessage");
        calls.always("ReceiveMessage", Fault::Delay(DELAY));
        until("a receive is in flight", SOON, async || {
            calls.calls("ReceiveMessage") > before
        })
        .await;
        reader.term();
        queue.send(&seats(ACME, 11, at(2))).await;
        assert_eq!(reader.wait_exit(SOON).await, 0);
        let logs = reader.logs();
        assert!(logs.contains("returned to the queue at shutdown"), "{logs}");
        assert_eq!(logs.contains(NOT_SETTLED), !is_returned, "{logs}");
        calls.clear_all();
        let reader = builder.start().await;
        if is_returned {
            until_limit(&reader, "acme", Some(11)).await;
            proven(&reader).await;
        } else {
            assert_eq!(answer_to_an_empty_queue(&reader).await, STALE);
            assert_eq!(limit(&reader, "acme").await, Some(10));
        }
    }
}
