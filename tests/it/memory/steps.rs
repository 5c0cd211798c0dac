//! The steps of docs/memory.md, walked: restart, rotate the key, move to another machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::process::{drained, limit};
use super::restart::{KEY, NO_EDGE, OTHER_KEY, kept_in};
use testkit::events::{ACME, at, seats};
use testkit::reader::Builder;
use testkit::{Operator, Reader, Sqs, TestQueue, http};

const SOON: Duration = Duration::from_secs(60);
const TOKEN: &str = "token-of-sixteen-characters";

/// A process that was told one change, and ended.
async fn filled(queue: &TestQueue, folder: &Path) -> Builder {
    let builder = kept_in(folder, queue, NO_EDGE).env("ADMIN_TOKEN", TOKEN);
    let reader = builder.start().await;
    queue.send(&seats(ACME, 10, at(1))).await;
    drained(queue).await;
    end(&reader, "snapshot written").await;
    builder
}

/// Ends a process with SIGTERM; its log then has this line.
async fn end(reader: &Reader, line: &str) {
    reader.term();
    assert_eq!(reader.wait_exit(SOON).await, 0);
    assert!(reader.logs().contains(line), "{}", reader.logs());
}

/// The snapshots and journals of a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let is_ours = |path: &PathBuf| path.extension().is_some_and(|it| it != "lock");
    paths.filter(is_ours).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_by_the_steps_loses_nothing() {
    let (sqs, folder) = (Sqs::start().await, TempDir::new().unwrap());
    let queue = sqs.queue("q").await;
    let builder = filled(&queue, folder.path()).await;
    let reader = builder.start().await;
    assert!(
        reader.logs().contains("state restored"),
        "{}",
        reader.logs()
    );
    // Neither the queue nor the Edge API can tell.
    assert_eq!(limit(&reader, "acme").await, Some(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_rotated_by_the_steps() {
    let (sqs, folder) = (Sqs::start().await, TempDir::new().unwrap());
    let queue = sqs.queue("q").await;
    let builder = filled(&queue, folder.path())
        .await
        .env("SNAPSHOT_KEY", OTHER_KEY)
        .env("SNAPSHOT_KEY_PREVIOUS", KEY);
    let reader = builder.start().await;
    let key_ids = async || {
        let mut ids = std::collections::BTreeSet::new();
        for file in files(folder.path()) {
            let arguments = ["snapshot", "inspect", "--json", file.to_str().unwrap()];
            let shown = Operator::in_memory().run(&arguments).await.json();
            ids.insert(shown["key_id"].as_str().unwrap().to_owned());
        }
        ids
    };
    assert_eq!(key_ids().await.len(), 2, "files of both keys");
    for _ in 0..3 {
        let bearer = format!("Bearer {TOKEN}");
        let headers = [("authorization", bearer.as_str())];
        let written = http::request(reader.port(), ("POST", "/admin/snapshot"), &headers, "").await;
        assert_eq!(written.unwrap().status, 200);
    }
    assert_eq!(key_ids().await.len(), 1, "files of the new key alone");
    end(&reader, "snapshot written").await;
    let reader = builder.unset("SNAPSHOT_KEY_PREVIOUS").start().await;
    assert_eq!(limit(&reader, "acme").await, Some(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_is_moved_by_the_steps() {
    let (sqs, folder) = (Sqs::start().await, TempDir::new().unwrap());
    let queue = sqs.queue("q").await;
    let builder = filled(&queue, folder.path()).await;
    let elsewhere = TempDir::new().unwrap();
    for file in files(folder.path()) {
        let copy = elsewhere.path().join(file.file_name().unwrap());
        std::fs::copy(&file, &copy).unwrap();
        let verified = Operator::in_memory()
            .env("SNAPSHOT_KEY", KEY)
            .run(&["snapshot", "verify", copy.to_str().unwrap()])
            .await;
        assert_eq!(verified.code, 0, "{verified:?}");
    }
    drop(folder);
    let reader = builder
        .env("SNAPSHOT_PATH", elsewhere.path().display())
        .start()
        .await;
    assert_eq!(limit(&reader, "acme").await, Some(10));
}
