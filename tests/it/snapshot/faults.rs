//! Disks and folders that fail while the process runs.

use std::fs;
use std::path::Path;
use std::process::Command;

use entitlement_sync::snapshot::OpenError;
use tempfile::TempDir;

use super::{copy, last, names, open, restore, restored, snapshot, try_open, write};

/// A disk of its own, small or read-only.
struct Disk(TempDir);

impl Disk {
    /// `None`, with the reason, where this user may not mount.
    fn mount(kib: u32) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let size = format!("size={kib}k");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "none"])
            .arg(folder.path())
            .output();
        match mount {
            Ok(done) if done.status.success() => Some(Self(folder)),
            Ok(done) => {
                let why = String::from_utf8_lossy(&done.stderr).into_owned();
                println!("skipped, since no disk can be mounted: {why}");
                None
            }
            Err(error) => {
                println!("skipped, since no disk can be mounted: {error}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, options: &str) {
        let done = Command::new("mount")
            .args(["-o", &format!("remount,{options}"), "none"])
            .arg(self.path())
            .status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[test]
fn a_full_disk_fails_syncs_and_snapshots_and_loses_nothing() {
    let Some(disk) = Disk::mount(256) else { return };
    let path = disk.path().join("folder");
    let one = open(&path);
    write(&one, &["before"]);
    let ballast = disk.path().join("ballast");
    let full = fs::write(&ballast, vec![1; 1 << 20]);
    assert!(full.is_err());
    let record = "x".repeat(30_000);
    one.journal().append(record.as_bytes()).unwrap();
    for round in 0..5 {
        let error = one.journal().sync().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
        assert!(error.to_string().starts_with("cannot "), "{error}");
        assert_eq!(one.journal().buffered_bytes(), 4 + record.len());
        let later = format!("later {round}");
        assert!(names(&path).len() <= 2, "failed tries leave files");
        let mut writer = match one.snapshot(one.rotate()) {
            Ok(writer) => writer,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
                continue;
            }
        };
        let random: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
            .take(400_000)
            .collect();
        let put = writer.put(&random).and_then(|()| writer.finish().map(drop));
        assert_eq!(
            put.unwrap_err().kind(),
            std::io::ErrorKind::StorageFull,
            "{later}"
        );
    }
    // What a restart would find now.
    let (now, records) = restored(copy(&path).path());
    assert_eq!(records, ["before"]);
    assert!(now.is_whole);
    // A start on a full disk restores too.
    drop(one);
    let one = open(&path);
    assert_eq!(restore(&one).unwrap().1, ["before"]);
    one.journal().append(record.as_bytes()).unwrap();
    assert!(one.journal().sync().is_err());
    fs::remove_file(&ballast).unwrap();
    write(&one, &["after"]);
    assert_eq!(one.journal().buffered_bytes(), 0);
    drop(one);
    let (after, records) = restored(&path);
    assert_eq!(records, ["before", &record, "after"]);
    assert!(after.is_whole && after.damaged.is_empty(), "{after:?}");
}

#[test]
fn a_disk_that_becomes_read_only_fails_and_recovers() {
    let Some(disk) = Disk::mount(256) else { return };
    let one = open(disk.path());
    write(&one, &["a"]);
    // A file that is open for writing keeps a disk from becoming read-only.
    drop(one);
    disk.remount("ro");
    let Err(OpenError::Io { error, .. }) = try_open(disk.path()) else {
        panic!("a folder that nobody can write was opened")
    };
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    disk.remount("rw");
    let (_, records) = restored(disk.path());
    assert_eq!(records, ["a"]);
}

#[test]
fn a_folder_that_cannot_be_made_says_so() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let Err(error) = try_open(&file.join("below")) else {
        panic!("a folder below a file was opened")
    };
    let text = error.to_string();
    assert!(text.contains("check SNAPSHOT_PATH"), "{text}");
}

#[test]
fn a_folder_that_is_gone_fails_until_it_is_back() {
    let parent = TempDir::new().unwrap();
    let (path, away) = (parent.path().join("here"), parent.path().join("away"));
    let one = open(&path);
    write(&one, &["a"]);
    fs::rename(&path, &away).unwrap();
    one.journal().append(b"b").unwrap();
    for is_replaced in [false, true, true] {
        if is_replaced && !path.exists() {
            // Another folder in its place, as where a disk was unmounted.
            fs::create_dir(&path).unwrap();
        }
        let error = one.journal().sync().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
        assert!(one.snapshot(one.rotate()).is_err());
    }
    assert!(names(&path).is_empty());
    fs::remove_dir(&path).unwrap();
    fs::rename(&away, &path).unwrap();
    write(&one, &["c"]);
    drop(one);
    let (restored, mut records) = restored(&path);
    records.dedup();
    assert_eq!(records, ["a", "b", "c"]);
    assert!(restored.is_whole, "{restored:?}");
}

#[test]
fn a_journal_that_was_removed_fails_once_and_asks_for_a_snapshot() {
    let folder = TempDir::new().unwrap();
    let one = open(folder.path());
    write(&one, &["a"]);
    assert!(!one.needs_snapshot());
    fs::remove_file(last(folder.path(), "journal")).unwrap();
    one.journal().append(b"b").unwrap();
    let error = one.journal().sync().unwrap_err();
    assert!(
        error.to_string().contains("a snapshot is needed"),
        "{error}"
    );
    assert!(one.needs_snapshot());
    write(&one, &["c"]);
    assert!(one.needs_snapshot());
    // A restart now would say that changes are missing.
    let (now, records) = restored(copy(folder.path()).path());
    assert_eq!(records, ["b", "c"]);
    assert!(!now.is_whole);
    snapshot(&one, &["a", "b", "c"]);
    assert!(!one.needs_snapshot());
    drop(one);
    let (after, records) = restored(folder.path());
    assert_eq!(records, ["a", "b", "c"]);
    assert!(after.is_whole);
}

#[test]
fn a_snapshot_whose_unfinished_file_was_removed_fails() {
    let folder = TempDir::new().unwrap();
    let one = open(folder.path());
    let mut writer = one.snapshot(one.rotate()).unwrap();
    writer.put(b"a").unwrap();
    fs::remove_file(last(folder.path(), ".tmp")).unwrap();
    let error = writer.finish().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    assert!(names(folder.path()).is_empty());
    let (restored, _) = restore(&one).unwrap();
    assert!(restored.snapshot.is_none());
}
