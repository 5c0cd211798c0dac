//! Anything at all may stand in a file. Snapshots and journals that are cut, spliced, flipped and swollen are read:
//! none panics or takes much memory, and no record comes out that did not go in. A folder of many such files is restored:
//! what is missing is reported.
//!
//! `FUZZ_SEED` repeats a run, `FUZZ_ROUNDS` makes it longer.

use std::collections::BTreeSet;
use std::fs;

use aws_lc_rs::digest::{SHA256, digest};
use entitlement_sync::snapshot::{Checked, RestoreError, Ring, examine};
use tempfile::TempDir;

use super::{KEY, copy, last, names, open, restore, secret, snapshot, write};
use crate::delivery::fuzz::number;
use crate::delivery::memory::peak_rss_mib;

const LIMIT_MIB: u64 = 128;
const MAGIC_AND_LENGTH: usize = 16;

/// Files of both kinds, with one part and with several.
fn corpus() -> Vec<Vec<u8>> {
    let folder = TempDir::new().unwrap();
    let one = open(folder.path());
    let long = "record ".repeat(50_000);
    let mut files = Vec::new();
    for records in [
        &["record 1", "record 2"][..],
        &["record 1", &long, "record 2"],
    ] {
        for record in records {
            write(&one, &[record]);
        }
        files.push(last(folder.path(), "journal"));
        files.push(snapshot(&one, records));
    }
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Makes the checksum of the header right again, so that what stands behind it is reached.
fn correct_checksums(bytes: &mut [u8]) {
    let Some(length) = bytes
        .get(12..16)
        .map(|it| u32::from_le_bytes(it.try_into().unwrap()))
    else {
        return;
    };
    let end = MAGIC_AND_LENGTH.saturating_add(length as usize);
    if let Some(end_of_sum) = end.checked_add(8)
        && end_of_sum <= bytes.len()
    {
        let sum = digest(&SHA256, &bytes[..end]);
        bytes[end..end_of_sum].copy_from_slice(&sum.as_ref()[..8]);
    }
}

fn mutate(random: &mut fastrand::Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let bytes = corpus[random.usize(..corpus.len())].clone();
    mutate_one(random, bytes, corpus)
}

fn mutate_one(random: &mut fastrand::Rng, mut bytes: Vec<u8>, corpus: &[Vec<u8>]) -> Vec<u8> {
    for _ in 0..random.usize(1..6) {
        // Most that matters stands at the front.
        let most = if random.bool() {
            bytes.len().min(260)
        } else {
            bytes.len()
        };
        let at = random.usize(..=most);
        match random.u8(..7) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            2 if at < bytes.len() => bytes[at] = random.u8(..),
            3 => {
                let number = [0, 1, 15, 16, 255, 65_535, 1 << 24, 1 << 31, u32::MAX];
                let number = number[random.usize(..number.len())].to_le_bytes();
                let end = (at + 4).min(bytes.len());
                bytes.splice(at..end, number).for_each(drop);
            }
            4 => {
                let end = (at + random.usize(..60)).min(bytes.len());
                bytes.drain(at..end);
            }
            5 => {
                let other = &corpus[random.usize(..corpus.len())];
                let from = random.usize(..other.len());
                let to = (from + random.usize(..400)).min(other.len());
                bytes
                    .splice(at..at, other[from..to].iter().copied())
                    .for_each(drop);
            }
            _ => bytes.extend(std::iter::repeat_n(random.u8(..), random.usize(..3_000))),
        }
    }
    if random.u8(..3) == 0 {
        correct_checksums(&mut bytes);
    }
    bytes
}

#[test]
fn no_file_panics_takes_much_memory_or_gives_a_record_that_was_not_written() {
    let seed = number("FUZZ_SEED", 20_261_126);
    let rounds = number("FUZZ_ROUNDS", 3_000);
    let mut random = fastrand::Rng::with_seed(seed);
    let corpus = corpus();
    let keys = Ring::new([secret(KEY)]);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file");
    let (mut whole, mut damaged, mut refused, mut other) = (0, 0, 0, 0);
    for round in 0..rounds {
        let bytes = mutate(&mut random, &corpus);
        fs::write(&path, &bytes).unwrap();
        let take = |record: &[u8]| {
            assert!(
                record.starts_with(b"record "),
                "round {round} of seed {seed}"
            );
            Ok(())
        };
        let is_new = !corpus.contains(&bytes);
        match examine(&path, Some(&keys), take).map(|it| (it.header, it.checked)) {
            // A journal may be cut between two frames, and nobody can tell from it alone.
            Ok((header, Checked::Whole | Checked::Cut)) => {
                whole += 1;
                let is_snapshot = header.part.is_snapshot();
                assert!(!is_snapshot || !is_new, "round {round} of seed {seed}");
            }
            Ok((_, Checked::Damaged(_))) => damaged += 1,
            Ok((_, Checked::OtherKey | Checked::Without)) => other += 1,
            Err(_) => refused += 1,
        }
        let _ = examine(&path, None, |_| panic!("a record without a key"));
    }
    println!("{whole} whole, {damaged} damaged, {other} of other keys, {refused} refused");
    assert!(whole > 0 && damaged > 0 && refused > 0 && other > 0);
    let peak = peak_rss_mib(std::process::id());
    assert!(peak < LIMIT_MIB, "{peak} MiB for files of seed {seed}");
}

/// A folder of three snapshots, and of many journals by two processes, with all records of them.
fn many_files() -> (TempDir, BTreeSet<String>) {
    let folder = TempDir::new().unwrap();
    let mut all: Vec<String> = Vec::new();
    for process in 0..2 {
        let one = open(folder.path());
        restore(&one).unwrap();
        for journal in 0..12 {
            one.rotate();
            for _ in 0..3 {
                let record = format!("record {}", all.len());
                write(&one, &[&record]);
                all.push(record);
            }
            // The last journals are in no snapshot.
            if journal % 4 == 3 && (process, journal) != (1, 11) {
                let records: Vec<&str> = all.iter().map(String::as_str).collect();
                snapshot(&one, &records);
            }
        }
    }
    (folder, all.into_iter().collect())
}

#[test]
fn a_folder_with_damaged_files_gives_everything_or_says_that_something_is_missing() {
    let seed = number("FUZZ_SEED", 20_261_127);
    let rounds = number("FUZZ_ROUNDS", 3_000) / 10;
    let mut random = fastrand::Rng::with_seed(seed);
    let (original, all) = many_files();
    let names = names(original.path());
    let read = |name: &String| fs::read(original.path().join(name)).unwrap();
    let corpus: Vec<Vec<u8>> = names.iter().map(read).collect();
    let newest = last(original.path(), "journal");
    let (mut whole, mut missing, mut refused) = (0, 0, 0);
    for round in 0..rounds {
        let what = format!("round {round} of seed {seed}");
        let folder = copy(original.path());
        for _ in 0..random.usize(1..5) {
            let place = random.usize(..names.len());
            // No file tells how far the newest journal went.
            if newest.ends_with(&names[place]) {
                continue;
            }
            let path = folder.path().join(&names[place]);
            match random.u8(..6) {
                0 => drop(fs::remove_file(&path)),
                1 => fs::write(&path, &corpus[random.usize(..corpus.len())]).unwrap(),
                _ => {
                    let bytes = mutate_one(&mut random, corpus[place].clone(), &corpus);
                    fs::write(&path, bytes).unwrap();
                }
            }
        }
        let one = open(folder.path());
        let (restored, records) = match restore(&one) {
            Ok(restored) => restored,
            Err(error) => {
                let is_of_header = matches!(
                    error,
                    RestoreError::Key { .. }
                        | RestoreError::Prefix { .. }
                        | RestoreError::Newer { .. }
                );
                assert!(is_of_header, "{what}: {error}");
                refused += 1;
                continue;
            }
        };
        let found: BTreeSet<String> = records.into_iter().collect();
        assert!(found.is_subset(&all), "{what}");
        match restored.is_whole {
            true => {
                assert_eq!(found, all, "{what}: {restored:?}");
                whole += 1;
            }
            false => missing += 1,
        }
        // The folder can be used, and a restart finds the same and more.
        write(&one, &["record of later"]);
        drop(one);
        let (_, records) = restore(&open(folder.path())).unwrap();
        let again: BTreeSet<String> = records.into_iter().collect();
        assert!(again.contains("record of later"), "{what}");
        assert!(again.is_superset(&found), "{what}");
    }
    println!("{whole} whole, {missing} with something missing, {refused} refused");
    assert!(whole > 0 && missing > 0 && refused > 0);
    let peak = peak_rss_mib(std::process::id());
    assert!(peak < LIMIT_MIB, "{peak} MiB for folders of seed {seed}");
}
