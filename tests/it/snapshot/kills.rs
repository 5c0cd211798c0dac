//! A process that is killed at any point, and a second one beside it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use entitlement_sync::snapshot::OpenError;
use tempfile::TempDir;

use super::{open, restore, restored, try_open};

const FOLDER: &str = "TEST_SNAPSHOT_FOLDER";
const FIRST: &str = "TEST_SNAPSHOT_FIRST";

/// The body of the process that is killed: does nothing in a run of the tests.
#[test]
fn writes_on_and_on_in_a_process_of_its_own() {
    let Ok(folder) = std::env::var(FOLDER) else {
        return;
    };
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let one = open(Path::new(&folder));
    let mut all = Vec::new();
    restore(&one)
        .unwrap()
        .1
        .into_iter()
        .for_each(|it| all.push(it));
    println!("\nready");
    let mut random = fastrand::Rng::with_seed(first);
    let mut writer: Option<std::thread::JoinHandle<()>> = None;
    for number in first.. {
        let record = number.to_string();
        one.journal().append(record.as_bytes()).unwrap();
        all.push(record);
        if random.u8(..4) > 0 {
            one.journal().sync().unwrap();
            println!("{number}");
        }
        let is_free = writer.as_ref().is_none_or(|it| it.is_finished());
        if is_free && random.u8(..20) == 0 {
            let (covers, one, records) = (one.rotate(), one.clone(), all.clone());
            writer = Some(std::thread::spawn(move || {
                let mut writer = one.snapshot(covers).unwrap();
                for record in records {
                    writer.put(record.as_bytes()).unwrap();
                }
                writer.finish().unwrap();
            }));
        }
    }
}

fn start(folder: &Path, first: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("snapshot::kills::writes_on_and_on_in_a_process_of_its_own")
        .env(FOLDER, folder)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_process_that_is_killed_at_any_point_loses_nothing_that_was_synced() {
    let folder = TempDir::new().unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let mut acknowledged: Vec<u64> = Vec::new();
    for round in 0..20 {
        let first = acknowledged.last().map_or(0, |last| last + 1_000);
        let mut child = start(folder.path(), first);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines
            .by_ref()
            .map(Result::unwrap)
            .any(|line| line == "ready");
        assert!(ready, "round {round}: the process did not start");
        for _ in 0..random.usize(1..60) {
            acknowledged.push(lines.next().unwrap().unwrap().parse().unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it ended counts too.
        acknowledged.extend(
            lines
                .map_while(Result::ok)
                .filter_map(|it| it.parse::<u64>().ok()),
        );
        let (restored, records) = restored(folder.path());
        let there: std::collections::HashSet<u64> =
            records.iter().map(|it| it.parse().unwrap()).collect();
        let lost: Vec<_> = acknowledged
            .iter()
            .filter(|it| !there.contains(it))
            .collect();
        assert!(lost.is_empty(), "round {round}: {lost:?} of {restored:?}");
        assert!(
            restored.is_whole && restored.damaged.is_empty(),
            "{restored:?}"
        );
    }
}

#[test]
fn a_second_process_is_refused_with_the_holder_of_the_folder() {
    let folder = TempDir::new().unwrap();
    let mut child = start(folder.path(), 0);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(
        lines
            .by_ref()
            .map(Result::unwrap)
            .any(|line| line == "ready")
    );
    let Err(OpenError::Held { holder, .. }) = try_open(folder.path()) else {
        panic!("two processes use one folder")
    };
    assert!(
        holder.starts_with(&format!("process {} on ", child.id())),
        "{holder}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    // However a process ends, its lock ends with it.
    let one = open(folder.path());
    let Err(error) = try_open(folder.path()) else {
        panic!("one process uses a folder twice")
    };
    let text = error.to_string();
    assert!(
        text.contains(&format!("in use by process {}", std::process::id())),
        "{text}"
    );
    assert!(text.contains("SNAPSHOT_PATH"), "{text}");
    drop(one);
    open(folder.path());
}
