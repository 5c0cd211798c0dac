//! The journal: records are gathered in memory, and made durable together.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use super::error::while_doing;
use super::files::Role;
use super::folder::{LastJournal, Shared};
use super::frame::{self, PART_BYTES};
use super::header::Part;
use super::place;
use super::records::{self, MAX_RECORD_BYTES};
use super::seal::{FileKey, Kind};
use crate::clock::now_ms;

/// The number of frames of a journal that is not counted yet.
pub const UNCOUNTED: u64 = u64::MAX;

/// Records on their way to disk, in order.
pub struct Journal {
    shared: Arc<Shared>,
    buffer: Mutex<Buffer>,
    /// Held while a round is written: a caller that waited for it finds its records durable.
    segment: Mutex<Option<Segment>>,
}

struct Buffer {
    /// Rows of records, each one frame.
    blocks: Vec<Vec<u8>>,
    /// Records until they are durable.
    bytes: usize,
    appended: u64,
    durable: u64,
    /// The number of the file that was written last, or is being written.
    current: u64,
    /// The next round begins a file.
    is_fresh: bool,
    /// The last file that was begun, and its durable frames.
    previous: (u64, u64),
}

/// A file of the journal that takes more frames.
struct Segment {
    file: File,
    path: PathBuf,
    number: u64,
    key: FileKey,
    /// Durable frames, and the length of the file up to them.
    frames: u64,
    length: u64,
    /// The file before this one, and its durable frames.
    previous: (u64, u64),
}

/// The records that one call makes durable.
struct Round {
    blocks: Vec<Vec<u8>>,
    upto: u64,
    number: u64,
    previous: (u64, u64),
}

impl Journal {
    pub(super) fn new(shared: Arc<Shared>, last: LastJournal) -> Self {
        Self {
            shared,
            buffer: Mutex::new(Buffer {
                blocks: Vec::new(),
                bytes: 0,
                appended: 0,
                durable: 0,
                current: last.number,
                is_fresh: true,
                previous: (last.follows, UNCOUNTED),
            }),
            segment: Mutex::new(None),
        }
    }

    /// Adds a record in memory. It is durable when a later call of `sync` has returned `Ok`. It fails only for a
    /// record of more than `MAX_RECORD_BYTES`.
    pub fn append(&self, record: &[u8]) -> io::Result<()> {
        let mut buffer = self.buffer();
        let is_full = |block: &Vec<u8>| block.len() + record.len() > PART_BYTES;
        if buffer.blocks.last().is_none_or(is_full) {
            buffer.blocks.push(Vec::new());
        }
        let Some(block) = buffer.blocks.last_mut() else {
            return Ok(());
        };
        let before = block.len();
        if !records::push(block, record) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a record is larger than {MAX_RECORD_BYTES} bytes"),
            ));
        }
        let added = block.len() - before;
        buffer.bytes += added;
        buffer.appended += 1;
        Ok(())
    }

    /// Makes every record durable that was appended before this call. Calls at the same time share one write. After
    /// an error the records stay in memory, and the next call writes them to a new file.
    pub fn sync(&self) -> io::Result<()> {
        let target = self.buffer().appended;
        let mut segment = self.segment.lock().unwrap_or_else(|lock| lock.into_inner());
        let Some(round) = self.take(target) else {
            return Ok(());
        };
        let written = self.write(&mut segment, &round);
        if written.is_err() {
            self.give_up(&mut segment);
        }
        self.settle(round, written)
    }

    /// The bytes of records that are not durable yet.
    pub fn buffered_bytes(&self) -> usize {
        self.buffer().bytes
    }

    /// The bytes on disk that the newest snapshot does not hold.
    pub fn bytes(&self) -> u64 {
        let known = self.shared.known();
        known
            .journals
            .range(known.covered() + 1..)
            .map(|(_, bytes)| bytes)
            .sum()
    }

    pub(super) fn rotate(&self) -> u64 {
        let mut buffer = self.buffer();
        buffer.is_fresh = true;
        buffer.current
    }

    /// Notes how many frames of the journal before this one a restore found.
    pub(super) fn follow(&self, frames: Option<u64>) {
        self.buffer().previous.1 = frames.unwrap_or(UNCOUNTED);
    }

    /// Removes old files, never one that is being written.
    pub(super) fn prune(&self) {
        let _segment = self.segment.lock().unwrap_or_else(|lock| lock.into_inner());
        self.shared.prune();
    }

    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(|lock| lock.into_inner())
    }

    /// Takes the records to write; `None` if all before `target` are durable.
    fn take(&self, target: u64) -> Option<Round> {
        let mut buffer = self.buffer();
        if buffer.durable >= target {
            return None;
        }
        if std::mem::take(&mut buffer.is_fresh) {
            buffer.current += 1;
        }
        Some(Round {
            blocks: std::mem::take(&mut buffer.blocks),
            upto: buffer.appended,
            number: buffer.current,
            previous: buffer.previous,
        })
    }

    fn write(&self, segment: &mut Option<Segment>, round: &Round) -> io::Result<()> {
        if segment.as_ref().is_none_or(|it| it.number != round.number) {
            *segment = None;
            *segment = Some(self.begin(round.number, round.previous)?);
        }
        let Some(segment) = segment else {
            return Err(io::Error::other("there is no journal"));
        };
        segment.write(&round.blocks)?;
        self.shared.place.check()?;
        if !place::is_same(&segment.file, &segment.path)? {
            self.shared.known().lost = Some(segment.number);
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the journal was removed while this process ran; a snapshot is needed",
            ));
        }
        self.buffer().previous = (segment.number, segment.frames);
        let mut known = self.shared.known();
        known.journals.insert(segment.number, segment.length);
        Ok(())
    }

    fn begin(&self, number: u64, before: (u64, u64)) -> io::Result<Segment> {
        let (previous, frames) = before;
        let part = Part::Journal { previous, frames };
        let (key, head) = self.shared.begin(part, number)?;
        let path = self.shared.place.base.file(Role::Journal, number);
        let failed = |error: io::Error| while_doing("begin a journal", &error);
        let mut file = self.shared.place.create(&path).map_err(failed)?;
        let written = file
            .write_all(&head)
            .and_then(|()| self.shared.place.sync());
        if let Err(error) = written {
            let _ = std::fs::remove_file(&path);
            return Err(failed(error));
        }
        Ok(Segment {
            file,
            path,
            number,
            key,
            frames: 0,
            length: u64::try_from(head.len()).unwrap_or(0),
            previous: before,
        })
    }

    /// Leaves a file that could not be written: which of its pages are on disk is unknown now.
    fn give_up(&self, segment: &mut Option<Segment>) {
        let Some(left) = segment.take() else { return };
        // A disk that stays full must not fill with empty files.
        if left.frames == 0 && std::fs::remove_file(&left.path).is_ok() {
            self.buffer().previous = left.previous;
            return;
        }
        // The part that is cut off was not acknowledged.
        let _ = left.file.set_len(left.length);
        self.shared
            .known()
            .journals
            .insert(left.number, left.length);
        self.buffer().previous = (left.number, left.frames);
    }

    fn settle(&self, round: Round, written: io::Result<()>) -> io::Result<()> {
        let mut buffer = self.buffer();
        match written {
            Ok(()) => {
                let bytes: usize = round.blocks.iter().map(Vec::len).sum();
                buffer.bytes -= bytes;
                buffer.durable = round.upto;
            }
            Err(_) => {
                buffer.is_fresh = true;
                let later = std::mem::replace(&mut buffer.blocks, round.blocks);
                buffer.blocks.extend(later);
            }
        }
        written
    }
}

impl Segment {
    /// Appends a frame for each block, and waits until they are on disk.
    fn write(&mut self, blocks: &[Vec<u8>]) -> io::Result<()> {
        let at = now_ms().to_le_bytes();
        let (mut out, mut frames, mut length) = (Vec::new(), self.frames, self.length);
        for block in blocks {
            out.clear();
            frames += 1;
            let place = (Kind::Frame, frames);
            frame::push(&self.key, place, &[&at, block], &mut out)?;
            let written = self.file.write_all(&out);
            written.map_err(|error| while_doing("write the journal", &error))?;
            length += u64::try_from(out.len()).unwrap_or(0);
        }
        let synced = self.file.sync_data();
        synced.map_err(|error| while_doing("sync the journal", &error))?;
        (self.frames, self.length) = (frames, length);
        Ok(())
    }
}
