//! What operators see of a process without a Redis: it never names one, and says what nothing keeps.

use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::process::{drained, is_proven};
use super::restart::{NO_EDGE, kept_in};
use testkit::events::{ACME, at, seats};
use testkit::{Operator, Reader, Sqs, until};

const SOON: Duration = Duration::from_secs(60);
const DANGERS: [&str; 2] = [
    "a restart begins with nothing",
    "no lock keeps a second process from the queue",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_danger_of_a_state_that_nothing_keeps_is_said_at_start_in_check_and_in_status() {
    let sqs = Sqs::start().await;
    let queue = sqs.queue("q").await;
    let reader = Reader::in_memory(&queue, NO_EDGE).start().await;
    let check = Operator::in_memory()
        .queue(&queue)
        .env("SERVER_API_KEY", "test-key")
        .run(&["check"])
        .await;
    let status = reader.http("/status").await.json();
    let warning = status["memory"]["warning"].as_str().unwrap();
    for danger in DANGERS {
        assert!(reader.logs().contains(danger), "{}", reader.logs());
        assert!(check.stdout.contains(danger), "{check:?}");
        assert!(warning.contains(danger), "{warning}");
    }
    assert!(
        check.stdout.contains("set SNAPSHOT_PATH and SNAPSHOT_KEY"),
        "{check:?}"
    );
    assert_eq!(status["memory"]["journal_bytes"], Value::Null);

    let folder = TempDir::new().unwrap();
    let kept = || kept_in(folder.path(), &queue, NO_EDGE);
    let reader = kept().start().await;
    let status = reader.http("/status").await.json();
    assert_eq!(status["memory"]["warning"], Value::Null);
    for danger in DANGERS {
        assert!(!reader.logs().contains(danger), "{}", reader.logs());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_is_counted_and_nothing_names_redis() {
    let (sqs, folder) = (Sqs::start().await, TempDir::new().unwrap());
    let queue = sqs.queue("q").await;
    let reader = kept_in(folder.path(), &queue, NO_EDGE)
        .env("SNAPSHOT_INTERVAL_SECS", 1)
        .start()
        .await;
    queue.send(&seats(ACME, 10, at(1))).await;
    drained(&queue).await;
    until("the state is proven", SOON, async || {
        is_proven(&reader).await
    })
    .await;
    until("a snapshot is counted", SOON, async || {
        !reader.http("/status").await.json()["memory"]["snapshot_age_secs"].is_null()
    })
    .await;
    let memory = reader.http("/status").await.json()["memory"].clone();
    assert_eq!(
        (&memory["proven"], &memory["owners"]),
        (&true.into(), &1.into())
    );
    assert!(memory["bytes"].as_u64() > Some(100), "{memory}");
    assert!(memory["journal_bytes"].is_u64(), "{memory}");
    let config = Operator::in_memory()
        .queue(&queue)
        .env("SERVER_API_KEY", "test-key")
        .run(&["config"])
        .await;
    assert!(!config.stdout.contains("REDIS"), "{config:?}");
    let ready = reader.http("/readyz").await;
    assert_eq!(
        ready.body,
        r#"{"status":"UP","consumers":2,"store":"CONNECTED"}"#
    );
    for path in ["/status", "/readyz", "/readyz?verbose", "/livez"] {
        let body = reader.http(path).await.body;
        assert!(!body.to_lowercase().contains("redis"), "{path}: {body}");
    }
}
