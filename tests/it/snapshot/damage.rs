//! Files that are cut, flipped, foreign or empty: the content of other files is restored, and the damage is reported.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{copy, last, names, open, restored, snapshot, write};

/// Two snapshots with their journals, and a third journal of three frames.
fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    let one = open(folder.path());
    write(&one, &["a"]);
    snapshot(&one, &["a"]);
    write(&one, &["b"]);
    snapshot(&one, &["a", "b"]);
    for record in ["c", "d", "e"] {
        write(&one, &[record]);
    }
    folder
}

const ALL: [&str; 5] = ["a", "b", "c", "d", "e"];

/// The same file in a copy of the folder.
fn copied(file: &Path) -> (TempDir, PathBuf) {
    let folder = copy(file.parent().unwrap());
    let file = folder.path().join(file.file_name().unwrap());
    (folder, file)
}

fn sorted(mut records: Vec<String>) -> Vec<String> {
    records.sort();
    records.dedup();
    records
}

#[test]
fn a_snapshot_cut_at_every_byte_gives_way_to_the_one_before_and_its_journals() {
    let folder = folder();
    let newest = last(folder.path(), "snapshot");
    let bytes = fs::read(&newest).unwrap();
    for cut in 0..bytes.len() {
        let (folder, newest) = copied(&newest);
        fs::write(&newest, &bytes[..cut]).unwrap();
        let (restored, records) = restored(folder.path());
        assert_eq!(sorted(records), ALL, "cut at {cut}");
        assert_eq!(restored.snapshot.unwrap().number, 1, "cut at {cut}");
        assert!(restored.is_whole, "cut at {cut}");
        let [damage] = &restored.damaged[..] else {
            panic!("cut at {cut}: {:?}", restored.damaged)
        };
        assert_eq!(damage.file, newest);
        let renamed = damage.renamed_to.as_ref().unwrap();
        assert!(!newest.exists() && fs::read(renamed).unwrap() == bytes[..cut]);
    }
}

#[test]
fn a_bit_flipped_anywhere_in_a_snapshot_is_damage_and_never_another_key_or_prefix() {
    let folder = folder();
    let newest = last(folder.path(), "snapshot");
    let bytes = fs::read(&newest).unwrap();
    for at in 0..bytes.len() {
        let (folder, newest) = copied(&newest);
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&newest, &bytes).unwrap();
        let (restored, records) = restored(folder.path());
        assert_eq!(sorted(records), ALL, "byte {at}");
        assert_eq!(restored.damaged.len(), 1, "byte {at}");
    }
}

#[test]
fn bytes_after_the_end_of_a_snapshot_are_damage() {
    let folder = folder();
    let newest = last(folder.path(), "snapshot");
    let mut bytes = fs::read(&newest).unwrap();
    bytes.push(0);
    fs::write(&newest, &bytes).unwrap();
    let (restored, records) = restored(folder.path());
    assert_eq!(sorted(records), ALL);
    assert_eq!(restored.damaged.len(), 1);
}

/// What is left of three frames when their file is cut here.
fn left(cut: usize, ends: &[usize]) -> Vec<&'static str> {
    let whole = ends.iter().filter(|end| **end <= cut).count();
    ALL[..2 + whole].to_vec()
}

/// Where each frame ends: nine bytes of lead, eight of time, five of record, sixteen of tag.
fn ends(bytes: &[u8]) -> Vec<usize> {
    const FRAME: usize = 9 + 8 + 5 + 16;
    (0..3).rev().map(|it| bytes.len() - it * FRAME).collect()
}

#[test]
fn the_last_journal_cut_at_every_byte_gives_the_frames_before_and_is_no_damage() {
    let folder = folder();
    let journal = last(folder.path(), "journal");
    let bytes = fs::read(&journal).unwrap();
    let ends = ends(&bytes);
    let head = ends[0] - 38;
    for cut in 0..bytes.len() {
        let (folder, journal) = copied(&journal);
        for zeros in [0, 3, 5_000] {
            // A file system may keep the length and lose what was written; never a part of the header alone.
            if zeros > 0 && (1..head).contains(&cut) {
                continue;
            }
            let mut content = bytes[..cut].to_vec();
            content.resize(cut + zeros, 0);
            fs::write(&journal, &content).unwrap();
            let (restored, records) = restored(folder.path());
            let is_cut = bytes[cut..].iter().any(|byte| *byte != 0);
            assert!(is_cut, "the last byte is zero: change the key of the test");
            assert_eq!(records, left(cut, &ends), "cut at {cut}, {zeros} zeros");
            assert!(
                restored.is_whole,
                "cut at {cut}, {zeros} zeros: {restored:?}"
            );
            assert!(restored.damaged.is_empty(), "cut at {cut}, {zeros} zeros");
        }
    }
}

#[test]
fn a_journal_that_others_follow_is_damaged_when_a_synced_frame_is_missing() {
    let folder = folder();
    let journal = last(folder.path(), "journal");
    let next = open(folder.path());
    super::restore(&next).unwrap();
    write(&next, &["f"]);
    drop(next);
    let bytes = fs::read(&journal).unwrap();
    for cut in 0..=bytes.len() {
        let (folder, journal) = copied(&journal);
        fs::write(&journal, &bytes[..cut]).unwrap();
        let (restored, records) = restored(folder.path());
        let mut expected = left(cut, &ends(&bytes));
        expected.push("f");
        assert_eq!(records, expected, "cut at {cut}");
        assert_eq!(restored.is_whole, cut == bytes.len(), "cut at {cut}");
        if cut < bytes.len() {
            assert_eq!(restored.damaged.len(), 1, "cut at {cut}");
        }
    }
}

#[test]
fn a_damaged_frame_is_passed_over_and_the_frames_after_it_are_taken() {
    let folder = folder();
    let journal = last(folder.path(), "journal");
    let bytes = fs::read(&journal).unwrap();
    let ends = ends(&bytes);
    for at in ends[0]..ends[1] {
        let (folder, journal) = copied(&journal);
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        fs::write(&journal, &bytes).unwrap();
        for start in 0..2 {
            let next = open(folder.path());
            let (restored, records) = super::restore(&next).unwrap();
            // A length or kind that is wrong hides where the next frame begins.
            let is_lead = at < ends[0] + 9;
            if !is_lead {
                assert_eq!(records[..4], ["a", "b", "c", "e"], "byte {at}");
            }
            assert_eq!(records[..3], ["a", "b", "c"], "byte {at}");
            assert!(!restored.is_whole, "byte {at}, start {start}");
            assert_eq!(restored.damaged[0].renamed_to, None);
            assert!(journal.exists(), "the whole frames are needed again");
            write(&next, &["f"]);
        }
    }
}

#[test]
fn frames_and_files_in_another_order_are_damage() {
    let folder = folder();
    let journal = last(folder.path(), "journal");
    let bytes = fs::read(&journal).unwrap();
    let ends = ends(&bytes);
    let mut swapped = bytes[..ends[0]].to_vec();
    swapped.extend_from_slice(&bytes[ends[1]..ends[2]]);
    swapped.extend_from_slice(&bytes[ends[0]..ends[1]]);
    fs::write(&journal, &swapped).unwrap();
    let (first, records) = restored(folder.path());
    assert_eq!(records, ["a", "b", "c"]);
    assert!(!first.is_whole);

    // An old snapshot under the name of a new one.
    let newest = last(folder.path(), "snapshot");
    let oldest = newest.with_file_name("entitlement-sync-0000000001.snapshot");
    fs::copy(oldest, &newest).unwrap();
    let (second, _) = restored(folder.path());
    assert_eq!(second.snapshot.unwrap().number, 1);
    assert_eq!(second.damaged[0].file, newest);
}

#[test]
fn empty_foreign_and_other_files_under_our_names_are_set_aside() {
    for content in [
        &b""[..],
        b"DMP1 by another program",
        b"\x7fELF",
        b"{}",
        &[0; 4_096],
        &[0xff; 100_000],
    ] {
        let folder = folder();
        let newest = folder.path().join("entitlement-sync-0000000007.snapshot");
        fs::write(&newest, content).unwrap();
        let journal = folder.path().join("entitlement-sync-0000000009.journal");
        fs::write(&journal, content).unwrap();
        let (restored, records) = restored(folder.path());
        assert_eq!(records, ALL);
        let is_blank = content.iter().all(|byte| *byte == 0);
        // A journal without a byte was never begun.
        assert_eq!(restored.is_whole, is_blank, "{content:?}");
        assert_eq!(restored.damaged.len(), if is_blank { 1 } else { 2 });
        assert_eq!(restored.damaged[0].file, newest);
        let names = names(folder.path());
        assert!(names.contains(&"entitlement-sync-0000000007.snapshot.damaged".to_owned()));
    }
}

#[test]
fn folders_links_and_other_names_are_left_alone() {
    let folder = folder();
    let inside = |name: &str| folder.path().join(name);
    fs::create_dir(inside("entitlement-sync-0000000008.snapshot")).unwrap();
    fs::write(inside("entitlement-sync-8.snapshot"), "x").unwrap();
    fs::write(inside("notes.txt"), "x").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", inside("entitlement-sync-0000000010.journal"))
        .unwrap();
    let before = names(folder.path());
    let (restored, records) = restored(folder.path());
    assert_eq!(records, ALL);
    assert!(restored.damaged.is_empty() && restored.is_whole);
    assert_eq!(names(folder.path()), before);
}

#[test]
fn a_record_that_the_caller_refuses_stops_the_restore() {
    let folder = folder();
    let one = open(folder.path());
    let error = one
        .restore(|_| Err(anyhow::anyhow!("unknown kind")))
        .unwrap_err();
    // A restart would find the same record.
    assert!(error.is_configuration());
    assert!(
        error.to_string().ends_with("snapshot: unknown kind"),
        "{error}"
    );
}
