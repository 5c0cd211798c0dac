//! Records in the journal: durable after a sync, in order, shared by those who wait.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use entitlement_sync::snapshot::{MAX_RECORD_BYTES, Ring, examine};
use tempfile::TempDir;

use super::{KEY, copy, last, names, open, restored, secret, snapshot, write};

#[test]
fn what_is_synced_is_restored_in_order_and_what_is_not_is_not() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("new/deeper");
    let one = open(&path);
    assert_eq!(one.path(), path);
    let (first, records) = super::restore(&one).unwrap();
    assert!(first.is_whole && first.snapshot.is_none() && records.is_empty());
    write(&one, &["a", "b"]);
    write(&one, &["c"]);
    one.journal().append(b"not synced").unwrap();
    assert_eq!(one.journal().buffered_bytes(), 4 + "not synced".len());
    drop(one);

    let two = open(&path);
    let (second, records) = super::restore(&two).unwrap();
    assert_eq!(records, ["a", "b", "c"]);
    assert!(second.is_whole && second.damaged.is_empty());
    assert_eq!((second.journals, second.journal_records), (1, 3));
    assert!(second.newest_frame_ms.is_some());
    write(&two, &["d"]);
    drop(two);

    let (third, records) = restored(&path);
    assert_eq!(records, ["a", "b", "c", "d"]);
    assert!(third.is_whole, "{third:?}");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for name in names(&path) {
        assert_eq!(mode(&path.join(&name)), 0o600, "{name}");
    }
}

#[test]
fn nothing_of_a_record_stands_readable_in_a_file() {
    let folder = TempDir::new().unwrap();
    let one = open(folder.path());
    write(&one, &["customer-in-the-journal"]);
    snapshot(&one, &["customer-in-the-snapshot"]);
    for name in names(folder.path()) {
        let bytes = fs::read(folder.path().join(&name)).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("customer"), "{name}");
        assert!(text.contains("production"), "{name} has its prefix");
    }
}

#[test]
fn one_sync_is_one_frame_and_records_of_any_size_fit() {
    let folder = TempDir::new().unwrap();
    let one = open(folder.path());
    let large = "x".repeat(3 << 20);
    write(&one, &["a", "", "b"]);
    write(&one, &["c", &large, "d"]);
    // Nothing new: nothing is written.
    let before = fs::metadata(last(folder.path(), "journal")).unwrap().len();
    one.journal().sync().unwrap();
    assert_eq!(
        before,
        fs::metadata(last(folder.path(), "journal")).unwrap().len()
    );
    assert_eq!(one.journal().bytes(), before);

    let too_large = vec![0; MAX_RECORD_BYTES + 1];
    assert!(one.journal().append(&too_large).is_err());
    let mut writer = one.snapshot(one.rotate()).unwrap();
    assert!(writer.put(&too_large).is_err());
    drop(writer);

    let keys = Ring::new([secret(KEY)]);
    let examined = examine(&last(folder.path(), "journal"), Some(&keys), |_| Ok(())).unwrap();
    let holds = examined.holds.unwrap();
    // The large record has a frame of its own.
    assert_eq!((holds.records, holds.parts), (Some(6), 4));
    drop(one);
    let (_, records) = restored(folder.path());
    assert_eq!(records, ["a", "", "b", "c", &large, "d"]);
}

#[test]
fn a_caller_returns_when_its_records_are_written_and_callers_share_a_write() {
    let folder = TempDir::new().unwrap();
    let one = open(folder.path());
    let (keys, early) = (Arc::new(Ring::new([secret(KEY)])), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (one, keys, early, path) = (one.clone(), keys.clone(), &early, folder.path());
            scope.spawn(move || {
                for round in 0..40 {
                    let own = format!("{thread}-{round}");
                    write(&one, &[&own]);
                    if round % 10 == 0 {
                        let mut is_there = false;
                        let look = |record: &[u8]| {
                            is_there |= record == own.as_bytes();
                            Ok(())
                        };
                        examine(&last(path, "journal"), Some(&keys), look).unwrap();
                        early.fetch_add(u64::from(!is_there), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(early.into_inner(), 0, "a sync returned before the write");
    assert_eq!(one.journal().buffered_bytes(), 0);
    drop(one);
    let (restored, records) = restored(folder.path());
    assert_eq!(records.len(), 320);
    assert!(restored.is_whole);
    for thread in 0..8 {
        let own: Vec<String> = (0..40).map(|round| format!("{thread}-{round}")).collect();
        let of_thread = |it: &&String| it.starts_with(&format!("{thread}-"));
        assert!(records.iter().filter(of_thread).eq(own.iter()), "{thread}");
    }
}

#[test]
fn a_snapshot_covers_what_was_appended_before_rotate_and_no_more() {
    let folder = TempDir::new().unwrap();
    let one = open(folder.path());
    write(&one, &["a"]);
    one.journal().append(b"b").unwrap();
    let covers = one.rotate();
    let mut writer = one.snapshot(covers).unwrap();
    write(&one, &["c"]);
    for record in ["a", "b"] {
        writer.put(record.as_bytes()).unwrap();
    }
    let written = writer.finish().unwrap().unwrap();
    assert_eq!((written.number, written.records), (1, 2));
    assert_eq!(written.bytes, fs::metadata(&written.path).unwrap().len());
    // The journal before the snapshot counts no more.
    let current = fs::metadata(last(folder.path(), "journal")).unwrap().len();
    assert_eq!(one.journal().bytes(), current);
    drop(one);
    let (restored, records) = restored(folder.path());
    // b was written again after the snapshot, which does no harm.
    assert_eq!(records, ["a", "b", "b", "c"]);
    let taken = restored.snapshot.unwrap();
    assert_eq!((taken.number, taken.records, taken.covers), (1, 2, covers));
    assert_eq!(taken.path, last(folder.path(), "snapshot"));
    assert!(restored.is_whole);
}

/// The journals of a folder that this process has open.
fn open_journals(folder: &Path) -> usize {
    let open = fs::read_dir("/proc/self/fd").unwrap();
    let paths = open.filter_map(|it| fs::read_link(it.unwrap().path()).ok());
    let is_journal = |path: &PathBuf| path.extension().is_some_and(|it| it == "journal");
    paths
        .filter(|path| path.starts_with(folder) && is_journal(path))
        .count()
}

/// A process may open a thousand files, and each start begins a journal.
#[test]
fn a_restore_opens_one_journal_at_a_time() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().canonicalize().unwrap();
    let one = open(&path);
    let written: Vec<String> = (0..60).map(|it| it.to_string()).collect();
    for record in &written {
        one.rotate();
        write(&one, &[record]);
    }
    assert_eq!(one.journals(), 60);
    drop(one);
    let one = open(&path);
    let (mut records, mut most) = (Vec::new(), 0);
    let restored = one.restore(|record| {
        records.push(String::from_utf8(record.to_vec()).unwrap());
        most = most.max(open_journals(&path));
        Ok(())
    });
    assert!(restored.unwrap().is_whole);
    assert_eq!((records, most), (written, 1));
    snapshot(&one, &["all"]);
    assert_eq!(one.journals(), 0);
}

#[test]
fn an_abandoned_or_empty_snapshot_leaves_nothing_behind() {
    let folder = TempDir::new().unwrap();
    let one = open(folder.path());
    write(&one, &["a"]);
    let mut writer = one.snapshot(one.rotate()).unwrap();
    writer.put(b"a").unwrap();
    assert_eq!(names(folder.path()).len(), 2);
    drop(writer);
    assert_eq!(names(folder.path()).len(), 1);
    let empty = one.snapshot(one.rotate()).unwrap();
    assert_eq!(empty.finish().unwrap(), None);
    assert_eq!(names(folder.path()).len(), 1);
    // What a killed process leaves is removed by the next.
    drop(one);
    let left = folder
        .path()
        .join("entitlement-sync-0000000009.snapshot.tmp");
    fs::write(&left, "half").unwrap();
    fs::write(folder.path().join("of-somebody-else.tmp"), "").unwrap();
    let (_, records) = restored(folder.path());
    assert_eq!(records, ["a"]);
    assert!(!left.exists());
    assert!(names(folder.path()).contains(&"of-somebody-else.tmp".to_owned()));
}

#[test]
fn a_path_with_an_extension_names_files_beside_others() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("dump.bin");
    fs::write(&path, "DMP1 of another program").unwrap();
    for round in ["a", "b"] {
        let one = open(&path);
        let (_, records) = super::restore(&one).unwrap();
        assert_eq!(records.len(), usize::from(round == "b"));
        write(&one, &[round]);
    }
    let names = names(folder.path());
    assert_eq!(
        names,
        [
            "dump-0000000001.journal",
            "dump-0000000002.journal",
            "dump.bin"
        ]
    );
    assert_eq!(fs::read(&path).unwrap(), b"DMP1 of another program");
    assert_eq!(names.len(), super::names(copy(folder.path()).path()).len());
}
