//! The files of SNAPSHOT_PATH: synced records are there after any end, and damage is reported.

mod command;
mod damage;
mod faults;
mod fixture;
mod fuzz;
mod journal;
mod keys;
mod kills;
mod retention;

use std::fs;
use std::path::{Path, PathBuf};

use entitlement_sync::snapshot::{Folder, OpenError, RestoreError, Restored, Secret};
use tempfile::TempDir;

pub const KEY: &str = "9a1cc83b6a2b4f6f8fd46a0a41a9d37d3e6a9a0f4d0f1f6cbb5c4a1e2d3c4b5a";
pub const OTHER_KEY: &str = "1a1cc83b6a2b4f6f8fd46a0a41a9d37d3e6a9a0f4d0f1f6cbb5c4a1e2d3c4b5a";
pub const PREFIX: &str = "production";

pub fn secret(text: &str) -> Secret {
    Secret::parse(text).unwrap()
}

pub fn try_open(path: &Path) -> Result<Folder, OpenError> {
    Folder::open(path, PREFIX, secret(KEY), None, 3)
}

pub fn open(path: &Path) -> Folder {
    try_open(path).unwrap()
}

/// The records of a restore, in order, as text.
pub fn restore(folder: &Folder) -> Result<(Restored, Vec<String>), RestoreError> {
    let mut records = Vec::new();
    let restored = folder.restore(|record| {
        records.push(String::from_utf8(record.to_vec()).unwrap());
        Ok(())
    })?;
    Ok((restored, records))
}

/// What a new process would restore.
pub fn restored(path: &Path) -> (Restored, Vec<String>) {
    restore(&open(path)).unwrap()
}

/// Appends records and makes them durable, in one frame.
pub fn write(folder: &Folder, records: &[&str]) {
    for record in records {
        folder.journal().append(record.as_bytes()).unwrap();
    }
    folder.journal().sync().unwrap();
}

/// Writes a snapshot of these records.
pub fn snapshot(folder: &Folder, records: &[&str]) -> PathBuf {
    let covers = folder.rotate();
    let mut writer = folder.snapshot(covers).unwrap();
    for record in records {
        writer.put(record.as_bytes()).unwrap();
    }
    writer.finish().unwrap().unwrap().path
}

/// The names of the files, sorted, without the lock.
pub fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".lock"))
        .collect();
    names.sort();
    names
}

/// The only file with this ending, or the last.
pub fn last(path: &Path, ending: &str) -> PathBuf {
    let names = names(path);
    let name = names.iter().rfind(|name| name.ends_with(ending)).unwrap();
    path.join(name)
}

/// A copy of a folder, to damage.
pub fn copy(from: &Path) -> TempDir {
    let to = TempDir::new().unwrap();
    for name in names(from) {
        fs::copy(from.join(&name), to.path().join(&name)).unwrap();
    }
    to
}
