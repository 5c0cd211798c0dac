//! Reports the contents of one file, and whether it is whole, without the other files of its folder.

use std::fs;
use std::io;
use std::path::Path;

use super::frame::{Next, Parts};
use super::header::{Header, Unusable};
use super::keys::Ring;
use super::open;
use super::seal::Kind;
use super::walk::{self, Stopped, Tail, Take, Trailer};

/// The header and the contents of a file.
#[derive(Debug)]
pub struct Examined {
    pub header: Header,
    pub size: u64,
    /// `None`: it is damaged, or the key is needed to know.
    pub holds: Option<Holds>,
    pub checked: Checked,
}

/// Counts of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holds {
    /// `None`: a journal does not say without the key.
    pub records: Option<u64>,
    /// Chunks of a snapshot, or frames of a journal.
    pub parts: u64,
    /// Of the records of a snapshot, before compression.
    pub bytes: Option<u64>,
    /// When the snapshot was finished, or the newest frame of a journal written.
    pub newest_ms: Option<u64>,
}

/// Whether a file is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// Every part is authentic and in its place.
    Whole,
    /// All but the last frame of a journal, which is being written or was when its process ended.
    Cut,
    Damaged(String),
    /// There is no key.
    Without,
    /// The file was written with a key that was not given.
    OtherKey,
}

#[derive(Debug, thiserror::Error)]
pub enum ExamineError {
    #[error("it cannot be read: {0}")]
    Io(io::Error),
    #[error("its format has version {0}: run a newer version of this program")]
    Newer(u16),
    #[error("{0}")]
    Unusable(String),
}

impl From<Unusable> for ExamineError {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Io(error) => Self::Io(error),
            Unusable::Newer(version) => Self::Newer(version),
            other => Self::Unusable(other.to_string()),
        }
    }
}

/// Examines a file. With keys, each record of a whole part is given to `take`.
pub fn examine(
    path: &Path,
    keys: Option<&Ring>,
    mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> Result<Examined, ExamineError> {
    let take: &mut Take<'_> = &mut take;
    let size = fs::metadata(path).map_err(ExamineError::Io)?.len();
    let headed = open::head(path)?;
    let header = headed.header.clone();
    let mut checked = Checked::Without;
    if let Some(keys) = keys {
        match headed.unlock(path, keys) {
            Ok(Some(opened)) => {
                let (holds, checked) = match header.part.is_snapshot() {
                    true => snapshot(walk::snapshot(opened, take)),
                    false => journal(walk::journal(opened, take)),
                };
                return Ok(Examined {
                    header,
                    size,
                    holds,
                    checked,
                });
            }
            Ok(None) => checked = Checked::OtherKey,
            Err(Unusable::Cut) if !header.part.is_snapshot() => checked = Checked::Cut,
            Err(unusable) => checked = Checked::Damaged(unusable.to_string()),
        }
    }
    let holds = skim(path).ok().flatten();
    Ok(Examined {
        header,
        size,
        holds,
        checked,
    })
}

fn snapshot(walked: Result<Trailer, Stopped>) -> (Option<Holds>, Checked) {
    match walked {
        Ok(trailer) => (Some(trailer.into()), Checked::Whole),
        Err(Stopped::Damaged(what)) => (None, Checked::Damaged(what)),
        Err(Stopped::Refused(error)) => (None, Checked::Damaged(error.to_string())),
    }
}

fn journal(walked: anyhow::Result<walk::Frames>) -> (Option<Holds>, Checked) {
    let frames = match walked {
        Ok(frames) => frames,
        Err(error) => return (None, Checked::Damaged(error.to_string())),
    };
    let checked = match frames.tail {
        _ if frames.skipped > 0 => {
            Checked::Damaged(format!("{} frames in it are damaged", frames.skipped))
        }
        Tail::Clean => Checked::Whole,
        Tail::Cut => Checked::Cut,
        Tail::Wrong(what) => Checked::Damaged(what),
    };
    let holds = Holds {
        records: Some(frames.records),
        parts: frames.last - frames.skipped,
        bytes: None,
        newest_ms: frames.newest_ms,
    };
    (Some(holds), checked)
}

impl From<Trailer> for Holds {
    fn from(trailer: Trailer) -> Self {
        Self {
            records: Some(trailer.records),
            parts: trailer.chunks,
            bytes: Some(trailer.bytes),
            newest_ms: Some(trailer.finished_ms),
        }
    }
}

/// Counts the parts of a file without its key; nothing of that is proven.
fn skim(path: &Path) -> Result<Option<Holds>, Unusable> {
    let mut headed = open::head(path)?;
    headed.tag()?;
    let (header, mut parts) = headed.skim();
    let (mut part, mut count) = (Vec::new(), 0);
    loop {
        match next(&mut parts, &mut part)? {
            Some(Kind::Trailer) => return Ok(Trailer::read(&part).map(|it| it.0.into())),
            Some(_) => count += 1,
            None if header.part.is_snapshot() => return Ok(None),
            None => break,
        }
    }
    Ok(Some(Holds {
        records: None,
        parts: count,
        bytes: None,
        newest_ms: None,
    }))
}

fn next<R: io::Read>(parts: &mut Parts<R>, part: &mut Vec<u8>) -> io::Result<Option<Kind>> {
    Ok(match parts.next(part)? {
        Next::Part(kind) => Some(kind),
        Next::End | Next::Cut | Next::Wrong { .. } => None,
    })
}
