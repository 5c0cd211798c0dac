//! Which files stay.

use std::fs;

use tempfile::TempDir;

use super::{KEY, PREFIX, last, names, open, restored, secret, snapshot, write};
use entitlement_sync::snapshot::Folder;

fn numbers(names: &[String], ending: &str) -> Vec<u64> {
    let of_ending = names.iter().filter_map(|name| name.strip_suffix(ending));
    of_ending
        .map(|name| name.rsplit('-').next().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn the_last_snapshots_stay_and_the_journals_that_they_need() {
    let folder = TempDir::new().unwrap();
    let one = open(folder.path());
    let mut records = Vec::new();
    for round in 1..=5_u64 {
        let record = format!("r{round}");
        write(&one, &[&record]);
        records.push(record);
        let all: Vec<&str> = records.iter().map(String::as_str).collect();
        snapshot(&one, &all);
        let names = names(folder.path());
        let first = round.saturating_sub(2).max(1);
        let kept: Vec<u64> = (first..=round).collect();
        assert_eq!(numbers(&names, ".snapshot"), kept);
        // Journals go with the oldest snapshot of three; with fewer, none goes.
        let from = if round < 3 { 1 } else { first + 1 };
        let kept: Vec<u64> = (from..=round).collect();
        assert_eq!(numbers(&names, ".journal"), kept, "after {round}");
    }
    write(&one, &["r6"]);
    drop(one);
    // Each of the three gives everything, if those after it are damaged.
    for left in (1..=3_u64).rev() {
        let (restored, mut all) = restored(folder.path());
        all.sort();
        all.dedup();
        assert_eq!(
            all,
            ["r1", "r2", "r3", "r4", "r5", "r6"],
            "{left} snapshots"
        );
        assert!(restored.is_whole);
        let newest = restored.snapshot.unwrap();
        assert_eq!(newest.number, left + 2);
        let bytes = fs::read(&newest.path).unwrap();
        fs::write(&newest.path, &bytes[..bytes.len() - 1]).unwrap();
    }
    // Without any of them the first changes are missing, and it says so.
    let (restored, all) = restored(folder.path());
    assert_eq!(all, ["r4", "r5", "r6"]);
    assert!(!restored.is_whole && restored.snapshot.is_none());
    assert_eq!(restored.damaged.len(), 1);
    assert_eq!(
        numbers(&names(folder.path()), ".snapshot.damaged"),
        [3, 4, 5]
    );
    // No number is used again.
    let next = open(folder.path());
    super::restore(&next).unwrap();
    write(&next, &["r7"]);
    assert_eq!(numbers(&names(folder.path()), ".journal"), [4, 5, 6, 7]);
    snapshot(&next, &["all"]);
    assert_eq!(numbers(&names(folder.path()), ".snapshot"), [6]);
}

#[test]
fn one_kept_snapshot_ends_the_journals_before_it() {
    let folder = TempDir::new().unwrap();
    let one = Folder::open(folder.path(), PREFIX, secret(KEY), None, 0).unwrap();
    for round in 1..=3_u64 {
        write(&one, &["a"]);
        snapshot(&one, &["a"]);
        assert_eq!(names(folder.path()).len(), 1, "{round}");
        assert_eq!(one.journal().bytes(), 0);
    }
    assert_eq!(numbers(&names(folder.path()), ".snapshot"), [3]);
}

#[test]
fn a_missing_journal_is_reported_even_later() {
    let folder = TempDir::new().unwrap();
    for record in ["a", "b", "c"] {
        let one = open(folder.path());
        super::restore(&one).unwrap();
        write(&one, &[record]);
    }
    fs::remove_file(folder.path().join("entitlement-sync-0000000002.journal")).unwrap();
    for round in 0..2 {
        let one = open(folder.path());
        let (restored, records) = super::restore(&one).unwrap();
        assert_eq!(records[..2], ["a", "c"]);
        assert!(!restored.is_whole, "{round}");
        write(&one, &["d"]);
    }
    let one = open(folder.path());
    super::restore(&one).unwrap();
    snapshot(&one, &["what is there is what there is"]);
    drop(one);
    let (restored, _) = restored(folder.path());
    assert!(restored.is_whole);
    assert!(last(folder.path(), "snapshot").exists());
}
