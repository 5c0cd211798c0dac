//! A restart from damaged files: changes that were acknowledged are missing, and the queue no longer has them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::process::{drained, is_proven, limit, until_limit};
use super::restart::{NO_EDGE, kept_in, kill};
use testkit::events::{ACME, at, seats};
use testkit::{Answer, EdgeMock, Reader, Sqs, until};

const SOON: Duration = Duration::from_secs(60);
const OTHER: (&str, Option<&str>) = ("other", None);
const FRESH: &str = "entitlement-sync; hit";
const STALE: &str = "entitlement-sync; hit; detail=unproven";

fn journal(folder: &Path) -> PathBuf {
    let files = std::fs::read_dir(folder).unwrap();
    let mut paths = files.map(|file| file.unwrap().path());
    paths
        .find(|path| path.extension().is_some_and(|it| it == "journal"))
        .unwrap()
}

fn length(path: &Path) -> usize {
    usize::try_from(std::fs::metadata(path).unwrap().len()).unwrap()
}

/// Damages each frame between two ends of frames.
fn damage(path: &Path, from: usize, to: usize) {
    // Its kind, its length, and a checksum of both.
    const LEAD: usize = 9;
    let mut bytes = std::fs::read(path).unwrap();
    let mut place = from;
    while place < to {
        let length = bytes[place + 1..place + 5].try_into().unwrap();
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap();
        bytes[place + LEAD + length / 2] ^= 1;
        place += LEAD + length;
    }
    assert_eq!(place, to);
    std::fs::write(path, bytes).unwrap();
}

fn now_ms() -> u64 {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

async fn proven(reader: &Reader) {
    until("the state is proven", SOON, async || {
        is_proven(reader).await
    })
    .await;
}

async fn certainty(reader: &Reader, customer: &str) -> String {
    let path = format!("/v1/c/{customer}/entitlements.json");
    reader.get(&path).await.header("cache-status").to_owned()
}

async fn until_unconfirmed(reader: &Reader, owners: f64) {
    until("the owners are counted", SOON, async || {
        reader.metric("entitlement_sync_memory_unconfirmed").await == owners
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_damaged_files_brought_is_stale_until_the_edge_api_or_a_newer_message_confirms_it() {
    let (sqs, edge) = (Sqs::start().await, EdgeMock::start().await);
    let folder = TempDir::new().unwrap();
    let queue = sqs.queue_with("q", &[("VisibilityTimeout", "2")]).await;
    let builder = kept_in(folder.path(), &queue, NO_EDGE);
    let reader = builder.start().await;
    let tell = async |body: String| {
        queue.send(&body).await;
        drained(&queue).await;
    };
    tell(seats(ACME, 10, at(1))).await;
    proven(&reader).await;
    let journal = journal(folder.path());
    let from = length(&journal);
    // The change that the damage takes.
    tell(seats(ACME, 3, at(2))).await;
    let to = length(&journal);
    tell(seats(OTHER, 20, at(3))).await;
    kill(reader).await;
    damage(&journal, from, to);

    let reader = builder.start().await;
    assert!(
        reader.logs().contains("changes are missing"),
        "{}",
        reader.logs()
    );
    // The queue is empty, which says nothing of what was acknowledged.
    proven(&reader).await;
    assert_eq!(certainty(&reader, "acme").await, STALE);
    assert_eq!(certainty(&reader, "other").await, STALE);
    assert_eq!(limit(&reader, "acme").await, Some(10));
    until_unconfirmed(&reader, 2.0).await;
    let status = reader.http("/status").await.json()["memory"].clone();
    assert_eq!(status["unconfirmed"], 2, "{status}");
    let warning = status["warning"].as_str().unwrap();
    assert!(warning.contains("changes are missing"), "{warning}");
    // It may be older than what is missing.
    tell(seats(ACME, 11, at(5))).await;
    until_limit(&reader, "acme", Some(11)).await;
    assert_eq!(certainty(&reader, "acme").await, STALE);
    tell(seats(ACME, 12, now_ms())).await;
    until_limit(&reader, "acme", Some(12)).await;
    assert_eq!(certainty(&reader, "acme").await, FRESH);
    tell(seats(("new", None), 5, now_ms())).await;
    until_limit(&reader, "new", Some(5)).await;
    assert_eq!(certainty(&reader, "new").await, FRESH);
    until_unconfirmed(&reader, 1.0).await;
    reader.term();
    assert_eq!(reader.wait_exit(SOON).await, 0);

    // The snapshot is whole, and says who was not confirmed.
    let list = json!({"data": {"entitlements": [{"__typename": "Entitlement", "isGranted": true, "usageLimit": 21,
        "hasUnlimitedUsage": false, "hasSoftLimit": false, "currentUsage": 1,
        "usageUpdatedAt": "2026-01-01T00:00:00.000Z", "entitlementUpdatedAt": "2026-01-01T00:00:00.000Z",
        "feature": {"refId": "seats", "featureType": "NUMBER", "meterType": "Fluctuating"}}]}});
    let path = "/v1/c/other/entitlements.json";
    edge.answer(path, Answer::text(503, ""));
    let reader = kept_in(folder.path(), &queue, &edge.url()).start().await;
    proven(&reader).await;
    assert_eq!(certainty(&reader, "acme").await, FRESH);
    assert_eq!(certainty(&reader, "other").await, STALE);
    assert_eq!(limit(&reader, "other").await, Some(20));
    edge.answer(path, Answer::json(200, &list));
    until_limit(&reader, "other", Some(21)).await;
    until("it is confirmed", SOON, async || {
        certainty(&reader, "other").await == FRESH
    })
    .await;
    until_unconfirmed(&reader, 0.0).await;
    let status = reader.http("/status").await.json();
    assert!(status["memory"]["warning"].is_null(), "{status}");
}
