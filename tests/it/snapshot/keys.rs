//! Keys, passphrases, their rotation; prefixes and versions of others.

use std::fs;

use aws_lc_rs::digest::{SHA256, digest};
use entitlement_sync::snapshot::{Folder, RestoreError};
use tempfile::TempDir;

use super::{KEY, OTHER_KEY, PREFIX, last, names, open, secret, snapshot, write};

const PASSPHRASE: &str = "correct horse battery staple";

fn with(folder: &TempDir, key: &str, previous: Option<&str>) -> Folder {
    Folder::open(folder.path(), PREFIX, secret(key), previous.map(secret), 3).unwrap()
}

#[test]
fn another_key_stops_the_restore_before_a_record_and_touches_no_file() {
    for (wrote, reads) in [
        (KEY, OTHER_KEY),
        (KEY, PASSPHRASE),
        (PASSPHRASE, KEY),
        (PASSPHRASE, "correct horse battery stapler"),
    ] {
        for with_snapshot in [true, false] {
            let folder = TempDir::new().unwrap();
            let one = with(&folder, wrote, None);
            if with_snapshot {
                snapshot(&one, &["a"]);
            }
            write(&one, &["b"]);
            drop(one);
            let before = names(folder.path());
            let two = with(&folder, reads, None);
            let error = two.restore(|_| panic!("a record")).unwrap_err();
            assert!(error.is_configuration());
            assert!(matches!(error, RestoreError::Key { .. }));
            let text = error.to_string();
            assert!(text.contains("SNAPSHOT_KEY_PREVIOUS"), "{text}");
            assert!(!text.contains(reads) && !text.contains(wrote));
            assert_eq!(names(folder.path()), before);
        }
    }
}

/// A damaged snapshot that is newer than the one that tells of the other key.
#[test]
fn another_key_or_prefix_changes_no_file_whatever_else_is_damaged() {
    let folder = TempDir::new().unwrap();
    let one = open(folder.path());
    write(&one, &["a"]);
    let first = snapshot(&one, &["a"]);
    write(&one, &["b"]);
    let second = snapshot(&one, &["a", "b"]);
    write(&one, &["c"]);
    drop(one);
    let mut bytes = fs::read(&second).unwrap();
    // Of the header: what it says does not count then.
    bytes[20] ^= 1;
    fs::write(&second, &bytes).unwrap();
    let before = names(folder.path());
    for (prefix, key) in [(PREFIX, OTHER_KEY), ("staging", KEY)] {
        let other = Folder::open(folder.path(), prefix, secret(key), None, 3).unwrap();
        let error = other.restore(|_| panic!("a record")).unwrap_err();
        assert!(error.is_configuration(), "{error}");
        assert_eq!(names(folder.path()), before);
    }
    // The snapshot before is damaged too, and the journals tell.
    let mut bytes = fs::read(&first).unwrap();
    bytes[20] ^= 1;
    fs::write(&first, &bytes).unwrap();
    let other = with(&folder, OTHER_KEY, None);
    assert!(other.restore(|_| panic!("a record")).is_err());
    assert_eq!(names(folder.path()), before);
    drop(other);
    // And the first of the journals.
    let journals = before.iter().filter(|name| name.ends_with(".journal"));
    let journal = folder.path().join(journals.min().unwrap());
    let mut bytes = fs::read(&journal).unwrap();
    bytes[20] ^= 1;
    fs::write(&journal, &bytes).unwrap();
    let other = with(&folder, OTHER_KEY, None);
    assert!(other.restore(|_| panic!("a record")).is_err());
    assert_eq!(names(folder.path()), before);
    drop(other);
    // The right key, then: what cannot be used is set aside.
    let (restored, _) = super::restore(&open(folder.path())).unwrap();
    assert_eq!(restored.damaged.len(), 3, "{restored:?}");
    assert_ne!(names(folder.path()), before);
}

#[test]
fn a_key_is_rotated_by_naming_the_one_before() {
    let folder = TempDir::new().unwrap();
    let steps = [
        (KEY, None),
        (PASSPHRASE, Some(KEY)),
        // The old key goes once a snapshot and the journals after it are written with the new one.
        (PASSPHRASE, None),
        (OTHER_KEY, Some(PASSPHRASE)),
        (OTHER_KEY, None),
    ];
    for (round, (key, previous)) in steps.into_iter().enumerate() {
        let one = with(&folder, key, previous);
        let (restored, records) = super::restore(&one).unwrap();
        assert_eq!(records.len(), usize::from(round > 0) * 2, "round {round}");
        assert!(restored.is_whole);
        snapshot(&one, &["a"]);
        write(&one, &["b"]);
    }
    // The new key alone does not read what the old one wrote.
    let one = with(&folder, KEY, None);
    assert!(super::restore(&one).is_err());
}

#[test]
fn a_passphrase_is_stretched_with_one_salt_and_files_share_no_key() {
    let folder = TempDir::new().unwrap();
    let mut salts = Vec::new();
    for _ in 0..3 {
        let one = with(&folder, PASSPHRASE, None);
        write(&one, &["a"]);
        let bytes = fs::read(last(folder.path(), "journal")).unwrap();
        // Preamble 16, four numbers of 8, rounds 4; then the salt, key id 8, and the salt of the file.
        assert_eq!(bytes[48..52], 600_000_u32.to_le_bytes());
        salts.push((bytes[52..68].to_vec(), bytes[76..108].to_vec()));
    }
    assert!(salts.iter().all(|(salt, _)| *salt == salts[0].0));
    assert!(salts[0].1 != salts[1].1 && salts[1].1 != salts[2].1);
}

#[test]
fn another_prefix_is_refused_and_says_which() {
    let folder = TempDir::new().unwrap();
    let staging = Folder::open(folder.path(), "staging", secret(KEY), None, 3).unwrap();
    write(&staging, &["a"]);
    drop(staging);
    for round in 0..2 {
        let one = open(folder.path());
        let error = one.restore(|_| panic!("a record")).unwrap_err();
        assert!(matches!(error, RestoreError::Prefix { .. }) && error.is_configuration());
        let text = error.to_string();
        let said = "belongs to the prefix \"staging\", and ENVIRONMENT_PREFIX is \"production\"";
        assert!(text.contains(said), "{text}");
        if round == 0 {
            drop(one);
            let staging = Folder::open(folder.path(), "staging", secret(KEY), None, 3).unwrap();
            snapshot(&staging, &["a"]);
        }
    }
}

#[test]
fn a_newer_version_is_refused_and_stays() {
    for ending in ["snapshot", "journal"] {
        let folder = TempDir::new().unwrap();
        let one = open(folder.path());
        snapshot(&one, &["a"]);
        write(&one, &["b"]);
        drop(one);
        let file = last(folder.path(), ending);
        let mut bytes = fs::read(&file).unwrap();
        // The version, and the checksum of the header.
        bytes[10] = 2;
        let body = usize::from(bytes[12]) + 256 * usize::from(bytes[13]);
        let sum = digest(&SHA256, &bytes[..16 + body]);
        bytes[16 + body..24 + body].copy_from_slice(&sum.as_ref()[..8]);
        fs::write(&file, &bytes).unwrap();
        let one = open(folder.path());
        let error = one.restore(|_| panic!("a record")).unwrap_err();
        assert!(matches!(error, RestoreError::Newer { version: 2, .. }));
        assert!(error.is_configuration());
        let text = error.to_string();
        assert!(text.contains("has format version 2"), "{text}");
        assert_eq!(fs::read(&file).unwrap(), bytes);
    }
}
