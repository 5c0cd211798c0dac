//! The journal of a process without a Redis: what it takes, when a snapshot ends it, and what happens while it cannot be
//! written.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use entitlement_sync::keys::{Keys, Owner};
use entitlement_sync::memory::{Entry, Lifetimes, Memory};
use entitlement_sync::plan::{Action, Condition, Item, Step};
use entitlement_sync::snapshot::{Folder, Secret};
use serde_json::json;
use tempfile::TempDir;

use super::process::{drained, flag, limit};
use super::restart::{KEY, NO_EDGE, kept_in, kill, snapshots};
use testkit::events::{ACME, at, seats};
use testkit::{Answer, EdgeMock, Sqs, until};

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

fn open(folder: &Path) -> Folder {
    let key = Secret::parse(KEY).unwrap();
    Folder::open(folder, "production", key, None, 3).unwrap()
}

fn journals(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|it| it == "journal"))
        .collect()
}

fn is_written_for(logs: &str, why: &str) -> bool {
    let mut lines = logs.lines();
    lines.any(|line| line.contains("snapshot written") && line.contains(why))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_more_than_256_mib_ends_with_a_snapshot() {
    for (mib, is_large) in [(255, false), (257, true)] {
        let (sqs, folder) = (Sqs::start().await, TempDir::new().unwrap());
        let queue = sqs.queue("q").await;
        let builder = kept_in(folder.path(), &queue, NO_EDGE);
        let reader = builder.start().await;
        queue.send(&seats(ACME, 10, at(1))).await;
        drained(&queue).await;
        kill(reader).await;
        // Zeros at its end, as a file system may leave them after a power cut: they take no room on the disk.
        let files = journals(folder.path());
        let [journal] = &files[..] else {
            panic!("{files:?}")
        };
        let file = File::options().write(true).open(journal).unwrap();
        file.set_len(mib * MIB).unwrap();
        let reader = builder.start().await;
        if is_large {
            until("a snapshot is written", SOON, async || {
                is_written_for(&reader.logs(), "the size of the journal")
            })
            .await;
        } else {
            // It is measured just before it is compared.
            until("the journal is measured", SOON, async || {
                let bytes = reader.metric("entitlement_sync_snapshot_journal_bytes");
                bytes.await >= (mib * MIB) as f64
            })
            .await;
        }
        assert_eq!(snapshots(folder.path()), usize::from(is_large), "{mib} MiB");
        kill(reader).await;
        let reader = builder.start().await;
        assert_eq!(limit(&reader, "acme").await, Some(10), "{mib} MiB");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_was_removed_is_made_good_by_a_snapshot() {
    let (sqs, folder) = (Sqs::start().await, TempDir::new().unwrap());
    let queue = sqs.queue("q").await;
    let builder = kept_in(folder.path(), &queue, NO_EDGE);
    let reader = builder.start().await;
    queue.send(&seats(("before", None), 10, at(1))).await;
    drained(&queue).await;
    for journal in journals(folder.path()) {
        fs::remove_file(journal).unwrap();
    }
    queue.send(&seats(("after", None), 11, at(1))).await;
    drained(&queue).await;
    until("a snapshot is written", SOON, async || {
        is_written_for(&reader.logs(), "a journal was removed")
    })
    .await;
    kill(reader).await;
    let reader = builder.start().await;
    assert_eq!(limit(&reader, "before").await, Some(10));
    assert_eq!(limit(&reader, "after").await, Some(11));
    let logs = reader.logs();
    assert!(!logs.contains("a journal is missing"), "{logs}");
}

/// Each start begins a journal: without a snapshot they would add up.
#[tokio::test(flavor = "multi_thread")]
async fn many_journals_end_with_a_snapshot_if_there_is_something_to_write() {
    let (sqs, folder) = (Sqs::start().await, TempDir::new().unwrap());
    let queue = sqs.queue("q").await;
    let builder = kept_in(folder.path(), &queue, NO_EDGE);
    let begin = |count| {
        let one = open(folder.path());
        one.restore(|_| Ok(())).unwrap();
        for _ in 0..count {
            one.rotate();
            one.journal().append(br#"{"entry":"begun"}"#).unwrap();
            one.journal().sync().unwrap();
        }
    };
    begin(30);
    let reader = builder.start().await;
    until("the journals are measured", SOON, async || {
        let bytes = reader.metric("entitlement_sync_snapshot_journal_bytes");
        bytes.await > 0.0
    })
    .await;
    let failures = reader.metric("entitlement_sync_snapshot_failures_total");
    assert_eq!(failures.await, 0.0, "there is nothing to write");
    queue.send(&seats(ACME, 10, at(1))).await;
    drained(&queue).await;
    until("a snapshot is written", SOON, async || {
        is_written_for(&reader.logs(), "the number of journals")
    })
    .await;
    let failures = reader.metric("entitlement_sync_snapshot_failures_total");
    assert_eq!(failures.await, 0.0);
    kill(reader).await;
    let reader = builder.start().await;
    assert_eq!(limit(&reader, "acme").await, Some(10));
    assert_eq!(snapshots(folder.path()), 1);
}

fn from_edge(limit: u64) -> Answer {
    let updated = "2026-01-01T00:00:00.000Z";
    let list = json!({"data": {"entitlements": [{"__typename": "Entitlement", "isGranted": true, "usageLimit": limit,
        "hasUnlimitedUsage": false, "hasSoftLimit": false, "currentUsage": 1, "usageUpdatedAt": updated,
        "entitlementUpdatedAt": updated,
        "feature": {"refId": "seats", "featureType": "NUMBER", "meterType": "Fluctuating"}}]}});
    Answer::json(200, &list)
}

/// Nothing bounds the questions, so what they bring must not gather in memory.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_fetched_while_the_journal_cannot_be_written_is_answered_and_not_stored() {
    let (sqs, edge, parent) = (
        Sqs::start().await,
        EdgeMock::start().await,
        TempDir::new().unwrap(),
    );
    let queue = sqs.queue("q").await;
    let (folder, away) = (parent.path().join("state"), parent.path().join("away"));
    let builder = kept_in(&folder, &queue, &edge.url());
    let later: Vec<String> = (0..50).map(|n| format!("later-{n}")).collect();
    for customer in later.iter().map(String::as_str).chain(["first"]) {
        let path = format!("/v1/c/{customer}/entitlements.json");
        edge.answer(&path, from_edge(20));
    }
    let reader = builder.start().await;
    fs::rename(&folder, &away).unwrap();
    assert_eq!(limit(&reader, "first").await, Some(20));
    // No message waits for the journal: it is synced all the same.
    until("the failure is noticed", SOON, async || {
        reader.http("/readyz").await.status == 503
    })
    .await;
    for customer in &later {
        assert_eq!(limit(&reader, customer).await, Some(20), "{customer}");
    }
    fs::rename(&away, &folder).unwrap();
    reader.wait_ready().await;
    kill(reader).await;
    let reader = builder.env("EDGE_API_URL", NO_EDGE).start().await;
    assert_eq!(limit(&reader, "first").await, Some(20));
    for customer in &later {
        let reply = flag(&reader, "seats@limit", customer).await;
        assert_eq!(reply.status, 503, "{customer}: {}", reply.body);
    }
}

fn memory() -> Memory {
    let lifetimes = Lifetimes {
        ttl_secs: Some(604_800),
        tombstone_secs: 1_209_600,
    };
    Memory::new(Keys::new("production"), lifetimes, u64::MAX)
}

const OWNER: Owner<'static> = Owner {
    customer: "acme",
    resource: None,
};

fn step(value: &str, at: u64) -> Step {
    let keys = Keys::new("production");
    Step {
        action: Action::SetCustomer,
        at,
        lock: keys.lock(OWNER),
        tombstone: keys.tombstone(OWNER),
        items: vec![Item {
            key: keys.entitlements(OWNER),
            at,
            value: value.to_owned(),
            condition: Condition::NotOlder,
        }],
    }
}

/// What a new process would hold, with its folder.
fn restored(folder: &Path) -> (Folder, Memory) {
    let (one, memory) = (open(folder), memory());
    let taken = one.restore(|bytes| {
        let entry: Entry<'_> = serde_json::from_slice(bytes)?;
        memory.restore(entry);
        Ok(())
    });
    assert!(taken.unwrap().is_whole);
    (one, memory)
}

#[test]
fn what_is_written_again_as_it_is_takes_little_of_the_journal() {
    const TIMES: usize = 1_000;
    let folder = TempDir::new().unwrap();
    let (one, memory) = restored(folder.path());
    let journal = one.journal();
    memory.log_to(journal.clone());
    let value = "x".repeat(10_000);
    memory.apply(&step(&value, 5), false);
    let before = journal.buffered_bytes();
    assert!(before > value.len());
    for _ in 0..TIMES {
        memory.apply(&step(&value, 5), false);
    }
    let each = (journal.buffered_bytes() - before) / TIMES;
    assert!(each < 200, "{each} bytes");
    journal.sync().unwrap();
    let live = memory.record(OWNER).unwrap();
    drop((one, memory));

    let (one, memory) = restored(folder.path());
    let record = memory.record(OWNER).unwrap();
    assert_eq!(record.changed, live.changed, "when it was last confirmed");
    let cell = record.cell("", 0).unwrap();
    assert_eq!((&*cell.value, cell.at), (&*value, 5));
    assert_eq!(cell.expires, live.cell("", 0).unwrap().expires);
    // Another value at the same time is a change.
    memory.log_to(one.journal().clone());
    memory.apply(&step("another", 5), false);
    one.journal().sync().unwrap();
    drop((one, memory));

    let (_one, memory) = restored(folder.path());
    let record = memory.record(OWNER).unwrap();
    assert_eq!(&*record.cell("", 0).unwrap().value, "another");
}
