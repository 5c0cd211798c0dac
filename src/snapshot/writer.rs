//! Writes a snapshot beside the others, and gives it its name when it is whole and on disk.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::DeflateEncoder;

use super::error::while_doing;
use super::files::{self, Role};
use super::folder::Shared;
use super::frame::{self, PART_BYTES};
use super::header::Part;
use super::journal::Journal;
use super::place;
use super::records::{self, MAX_RECORD_BYTES};
use super::seal::{FileKey, Kind};
use super::walk::Trailer;
use crate::clock::now_ms;

/// Written bytes between syncs, so that the last one, and the journal's, do not wait for all of them.
const SYNC_EVERY: u64 = 8 << 20;

/// A snapshot that is being written. Dropped before `finish`, it leaves nothing behind.
pub struct Writer {
    shared: Arc<Shared>,
    journal: Arc<Journal>,
    covers: u64,
    number: u64,
    file: File,
    /// `None` once the file has its name.
    temporary: Option<PathBuf>,
    key: FileKey,
    rows: Vec<u8>,
    packed: Vec<u8>,
    out: Vec<u8>,
    counted: Trailer,
    length: u64,
    unsynced: u64,
}

/// A snapshot that is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub path: PathBuf,
    pub number: u64,
    pub records: u64,
    /// The size of the file.
    pub bytes: u64,
}

impl Writer {
    pub(super) fn begin(
        shared: Arc<Shared>,
        journal: Arc<Journal>,
        covers: u64,
    ) -> io::Result<Self> {
        let number = {
            let mut known = shared.known();
            let number = known.next_snapshot;
            known.next_snapshot += 1;
            number
        };
        let (key, head) = shared.begin(Part::Snapshot { covers }, number)?;
        let path = shared.place.base.file(Role::Snapshot, number);
        let temporary = files::temporary(&path);
        let file = shared.place.create(&temporary);
        let mut writer = Self {
            file: file.map_err(|error| while_doing("begin a snapshot", &error))?,
            shared,
            journal,
            covers,
            number,
            temporary: Some(temporary),
            key,
            rows: Vec::new(),
            packed: Vec::new(),
            out: head,
            counted: Trailer::default(),
            length: 0,
            unsynced: 0,
        };
        writer.flush()?;
        Ok(writer)
    }

    /// Adds a record. It fails if the file cannot be written, and for a record of more than `MAX_RECORD_BYTES`.
    pub fn put(&mut self, record: &[u8]) -> io::Result<()> {
        if !self.rows.is_empty() && self.rows.len() + record.len() > PART_BYTES {
            self.chunk()?;
        }
        if !records::push(&mut self.rows, record) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a record is larger than {MAX_RECORD_BYTES} bytes"),
            ));
        }
        self.counted.records += 1;
        Ok(())
    }

    /// Makes the snapshot durable, gives it its name, and removes what it replaces. `None`: there was no record, and
    /// an empty snapshot never takes the place of a full one.
    pub fn finish(mut self) -> io::Result<Option<Written>> {
        if self.counted.records == 0 {
            return Ok(None);
        }
        self.chunk()?;
        self.counted.finished_ms = now_ms();
        let place = (Kind::Trailer, self.counted.chunks + 1);
        frame::push_signed(&self.key, place, &self.counted.encode(), &mut self.out)?;
        self.flush()?;
        let synced = self.file.sync_all();
        synced.map_err(|error| while_doing("sync the snapshot", &error))?;
        self.shared.place.check()?;
        let path = self.rename()?;
        self.shared.place.sync()?;
        {
            let mut known = self.shared.known();
            known.snapshots.insert(self.number, Some(self.covers));
            known.lost = known.lost.filter(|lost| *lost > self.covers);
        }
        self.journal.prune();
        Ok(Some(Written {
            path,
            number: self.number,
            records: self.counted.records,
            bytes: self.length,
        }))
    }

    fn rename(&mut self) -> io::Result<PathBuf> {
        let path = self.shared.place.base.file(Role::Snapshot, self.number);
        let gone = || io::Error::new(io::ErrorKind::NotFound, "the unfinished file was removed");
        let temporary = self.temporary.as_ref().ok_or_else(gone)?;
        if !place::is_same(&self.file, temporary)? {
            return Err(while_doing("finish the snapshot", &gone()));
        }
        fs::rename(temporary, &path).map_err(|error| while_doing("name the snapshot", &error))?;
        self.temporary = None;
        Ok(path)
    }

    /// Compresses and seals the records so far.
    fn chunk(&mut self) -> io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.rows);
        self.packed.clear();
        let mut encoder = DeflateEncoder::new(&mut self.packed, Compression::fast());
        encoder.write_all(&rows)?;
        encoder.finish()?;
        self.counted.chunks += 1;
        self.counted.bytes += u64::try_from(rows.len()).unwrap_or(0);
        let size = u32::try_from(rows.len()).map_err(io::Error::other)?;
        let place = (Kind::Chunk, self.counted.chunks);
        let plain: &[&[u8]] = &[&size.to_le_bytes(), &self.packed];
        frame::push(&self.key, place, plain, &mut self.out)?;
        self.rows = rows;
        self.rows.clear();
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        let failed = |error: io::Error| while_doing("write the snapshot", &error);
        self.file.write_all(&self.out).map_err(failed)?;
        let written = u64::try_from(self.out.len()).unwrap_or(0);
        self.out.clear();
        self.length += written;
        self.unsynced += written;
        if self.unsynced >= SYNC_EVERY {
            self.file.sync_data().map_err(failed)?;
            self.unsynced = 0;
        }
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = fs::remove_file(temporary);
        }
    }
}
