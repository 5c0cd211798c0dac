//! A folder in each version of the format, which every later program must read.

use std::path::Path;

use entitlement_sync::snapshot::Folder;

use super::{PREFIX, copy, secret};
use testkit::repo;

const PASSPHRASE: &str = "the passphrase of the fixtures";

#[test]
fn format_version_1_is_read() {
    let folder = copy(Path::new(&repo("tests/fixtures/snapshot/v1")));
    let one = Folder::open(folder.path(), PREFIX, secret(PASSPHRASE), None, 3).unwrap();
    let (restored, records) = super::restore(&one).unwrap();
    let names: Vec<String> = (0..40)
        .map(|it| format!("record {it} of a snapshot"))
        .collect();
    assert_eq!(records[..40], names);
    assert_eq!(
        records[40..],
        ["the first of a journal", "the second", "the last"]
    );
    assert!(restored.is_whole && restored.damaged.is_empty());
    let taken = restored.snapshot.unwrap();
    assert_eq!((taken.number, taken.covers, taken.records), (2, 1, 40));
    assert_eq!((restored.journals, restored.journal_records), (2, 3));
}
