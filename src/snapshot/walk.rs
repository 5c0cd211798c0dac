//! Goes through the records of an open file.

use std::io::Read;

use flate2::read::DeflateDecoder;

use super::frame::Next;
use super::header::Fields;
use super::open::Opened;
use super::records::{MAX_RECORD_BYTES, Records};
use super::seal::{Kind, TAG_BYTES};

/// Deflate makes nothing larger than this many times its input.
const MAX_RATIO: usize = 1_100;

/// Receives each record.
pub type Take<'a> = dyn FnMut(&[u8]) -> anyhow::Result<()> + 'a;

/// The counts at the end of a snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trailer {
    pub records: u64,
    pub chunks: u64,
    /// Before compression.
    pub bytes: u64,
    pub finished_ms: u64,
}

impl Trailer {
    pub fn encode(self) -> Vec<u8> {
        [self.records, self.chunks, self.bytes, self.finished_ms]
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect()
    }

    /// Reads a trailer with the tag after it.
    pub fn read(part: &[u8]) -> Option<(Self, &[u8], &[u8])> {
        let (plain, tag) = part.split_at_checked(part.len().checked_sub(TAG_BYTES)?)?;
        let mut fields = Fields(plain);
        let trailer = Self {
            records: fields.u64()?,
            chunks: fields.u64()?,
            bytes: fields.u64()?,
            finished_ms: fields.u64()?,
        };
        fields.0.is_empty().then_some((trailer, plain, tag))
    }
}

/// Why a walk through a snapshot ended early.
pub enum Stopped {
    Damaged(String),
    /// The caller refused a record.
    Refused(anyhow::Error),
}

fn damaged<T>(what: impl Into<String>) -> Result<T, Stopped> {
    Err(Stopped::Damaged(what.into()))
}

/// Goes through a snapshot to its end; anything but a whole one is damaged.
pub fn snapshot(opened: Opened, take: &mut Take<'_>) -> Result<Trailer, Stopped> {
    let Opened { key, mut parts, .. } = opened;
    let (mut sealed, mut raw) = (Vec::new(), Vec::new());
    let mut counted = Trailer::default();
    loop {
        let kind = match parts.next(&mut sealed) {
            Ok(Next::Part(kind)) => kind,
            Ok(Next::End | Next::Cut) => return damaged("it is cut: its end is missing"),
            Ok(Next::Wrong { .. }) => return damaged("a length or a kind in it is wrong"),
            Err(error) => return damaged(format!("it cannot be read: {error}")),
        };
        if kind == Kind::Trailer {
            let Some((trailer, plain, tag)) = Trailer::read(&sealed) else {
                return damaged("its counts are damaged");
            };
            let index = counted.chunks + 1;
            if !key.verifies(Kind::Trailer, index, plain, tag) || !parts.is_at_end() {
                return damaged("its end is damaged");
            }
            counted.finished_ms = trailer.finished_ms;
            return match counted == trailer {
                true => Ok(trailer),
                false => damaged("its counts are wrong"),
            };
        }
        counted.chunks += 1;
        let plain = key.open(Kind::Chunk, counted.chunks, &mut sealed);
        let unpacked = plain.and_then(|plain| unpack(plain, &mut raw));
        if unpacked.is_none() || Records(&raw).any(|record| record.is_none()) {
            return damaged(format!("its part {} is damaged", counted.chunks));
        }
        for record in Records(&raw).flatten() {
            take(record).map_err(Stopped::Refused)?;
            counted.records += 1;
        }
        counted.bytes += u64::try_from(raw.len()).unwrap_or(0);
    }
}

/// Unpacks a chunk to exactly the size that it states.
fn unpack(plain: &[u8], raw: &mut Vec<u8>) -> Option<()> {
    let mut fields = Fields(plain);
    let size = usize::try_from(fields.u32()?).ok()?;
    let packed = fields.0;
    let most = (MAX_RECORD_BYTES + (1 << 20)).min(packed.len().saturating_mul(MAX_RATIO) + 64);
    if size > most {
        return None;
    }
    raw.clear();
    raw.reserve(size);
    let one_more = u64::try_from(size).ok()? + 1;
    let mut decoder = DeflateDecoder::new(packed).take(one_more);
    decoder.read_to_end(raw).ok()?;
    (raw.len() == size).then_some(())
}

/// The contents of a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frames {
    pub records: u64,
    /// The number of the last frame that is whole.
    pub last: u64,
    pub newest_ms: Option<u64>,
    /// Frames before the last whole one that are damaged.
    pub skipped: u64,
    pub tail: Tail,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Tail {
    #[default]
    Clean,
    /// The last frame was not written to its end, as when a process is killed.
    Cut,
    /// More than an unfinished frame.
    Wrong(String),
}

/// Goes through a journal. A damaged frame is passed over: each of the others proves itself, and replay needs no order.
pub fn journal(opened: Opened, take: &mut Take<'_>) -> anyhow::Result<Frames> {
    let Opened { key, mut parts, .. } = opened;
    let mut sealed = Vec::new();
    let mut frames = Frames::default();
    let mut index = 0;
    loop {
        match parts.next(&mut sealed) {
            Ok(Next::Part(_)) => {}
            Ok(Next::End) => break,
            Ok(Next::Cut | Next::Wrong { is_blank: true }) => {
                frames.tail = Tail::Cut;
                break;
            }
            Ok(Next::Wrong { is_blank: false }) => {
                frames.tail = Tail::Wrong("a length or a kind in it is wrong".into());
                break;
            }
            Err(error) => {
                frames.tail = Tail::Wrong(format!("it cannot be read: {error}"));
                break;
            }
        }
        index += 1;
        let plain = key.open(Kind::Frame, index, &mut sealed);
        let Some((at, rows)) = plain.and_then(frame) else {
            continue;
        };
        for record in Records(rows).flatten() {
            take(record)?;
            frames.records += 1;
        }
        frames.skipped += index - frames.last - 1;
        frames.last = index;
        frames.newest_ms = frames.newest_ms.max(Some(at));
    }
    match (index - frames.last, &frames.tail) {
        (0, _) => {}
        (1, Tail::Clean | Tail::Cut) => frames.tail = Tail::Cut,
        _ => frames.tail = Tail::Wrong("the frames at its end are damaged".into()),
    }
    Ok(frames)
}

/// Splits a frame into its time and its records.
fn frame(plain: &[u8]) -> Option<(u64, &[u8])> {
    let mut fields = Fields(plain);
    let at = fields.u64()?;
    let is_whole = Records(fields.0).all(|record| record.is_some());
    is_whole.then_some((at, fields.0))
}

#[cfg(test)]
mod tests;
