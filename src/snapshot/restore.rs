//! Restores from the newest whole snapshot and the journals after it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::RestoreError;
use super::files::{self, Found, Role, State};
use super::folder::Shared;
use super::header::Part;
use super::journal::UNCOUNTED;
use super::open::{self, Opened, Refusal};
use super::walk::{self, Frames, Stopped, Tail, Take};

/// The result of a restore.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// `None`: there was no whole snapshot.
    pub snapshot: Option<TakenSnapshot>,
    /// Journals after the snapshot, and their records.
    pub journals: u64,
    pub journal_records: u64,
    /// When the newest record of a journal was written.
    pub newest_frame_ms: Option<u64>,
    pub damaged: Vec<Damage>,
    /// Nothing that was acknowledged is known to be missing. `false` after damage that no other file makes good.
    pub is_whole: bool,
    /// Frames of the newest journal that are on disk; the next one says how many it followed.
    pub(super) last_frames: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenSnapshot {
    pub path: PathBuf,
    pub number: u64,
    pub created_ms: u64,
    pub records: u64,
    /// It holds all of the journal up to this number.
    pub covers: u64,
}

/// A file that is damaged, and its new name if it got one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub file: PathBuf,
    pub what: String,
    pub renamed_to: Option<PathBuf>,
}

pub fn restore(shared: &Shared, take: &mut Take<'_>) -> Result<Restored, RestoreError> {
    let base = &shared.place.base;
    let files = base.list();
    let files = files.map_err(|error| RestoreError::io(&base.folder, error))?;
    let mut restored = Restored {
        is_whole: true,
        ..Restored::default()
    };
    let mut unusable = Vec::new();
    let snapshot = newest_whole(shared, &files, &mut unusable)?;
    let covers = snapshot.as_ref().map_or(0, |(_, covers)| *covers);
    let journals = journals(shared, &files, covers, &mut unusable)?;
    // Not before all headers are known to be ours: an error leaves every file as it is.
    for (file, what) in unusable {
        restored.is_whole &= file.role == Role::Snapshot;
        shared.known().forget(file);
        restored.damaged.push(set_aside(&file.path, what));
    }
    if let Some((opened, covers)) = snapshot {
        take_snapshot(opened, covers, take, &mut restored)?;
    }
    take_journals(shared, (covers, journals), take, &mut restored)?;
    // Nothing says what a damaged snapshot held, unless the journals reach back to the beginning.
    if restored.snapshot.is_none() && restored.journals == 0 && !restored.damaged.is_empty() {
        restored.is_whole = false;
    }
    Ok(restored)
}

/// Finds the newest snapshot that is whole to its end. Adds the damaged ones before it to `unusable`, with what is wrong.
fn newest_whole<'a>(
    shared: &Shared,
    files: &'a [Found],
    unusable: &mut Vec<(&'a Found, String)>,
) -> Result<Option<(Opened, u64)>, RestoreError> {
    let is_snapshot = |file: &&'a Found| file.role == Role::Snapshot && file.state == State::Ready;
    for file in files.iter().rev().filter(is_snapshot) {
        let what = match try_snapshot(shared, file) {
            Ok(found) => return Ok(Some(found)),
            Err(Refusal::Fatal(error)) => return Err(error),
            Err(Refusal::Blank) => "it is empty, or ends within its header".to_owned(),
            Err(Refusal::Damaged(what)) => what,
        };
        unusable.push((file, what));
    }
    Ok(None)
}

/// Reads a snapshot to its end, before a record of it is given to anyone, and opens it again.
fn try_snapshot(shared: &Shared, file: &Found) -> Result<(Opened, u64), Refusal> {
    let open = || {
        let name = (Role::Snapshot, file.number);
        open::open(&file.path, name, &shared.ring, &shared.prefix)
    };
    match walk::snapshot(open()?, &mut |_| Ok(())) {
        Ok(_) => {}
        Err(Stopped::Damaged(what)) => return Err(Refusal::Damaged(what)),
        Err(Stopped::Refused(error)) => return Err(Refusal::Damaged(error.to_string())),
    }
    let opened = open()?;
    match opened.header.part {
        Part::Snapshot { covers } => Ok((opened, covers)),
        Part::Journal { .. } => Err(Refusal::Damaged("it is a journal".into())),
    }
}

/// Journals by number, with what their headers say; `None`: one that was never begun.
type Journals = BTreeMap<u64, (PathBuf, Option<Part>)>;

/// Reads the header of every journal that the snapshot does not cover. No record is taken before all headers are known to
/// be ours. The files are closed again: there may be more of them than a process may open. Adds the damaged ones to
/// `unusable`, with what is wrong.
fn journals<'a>(
    shared: &Shared,
    files: &'a [Found],
    covers: u64,
    unusable: &mut Vec<(&'a Found, String)>,
) -> Result<Journals, RestoreError> {
    let mut journals = Journals::new();
    let is_needed = |file: &&'a Found| {
        file.role == Role::Journal && file.state == State::Ready && file.number > covers
    };
    for file in files.iter().filter(is_needed) {
        let name = (Role::Journal, file.number);
        match open::open(&file.path, name, &shared.ring, &shared.prefix) {
            Ok(opened) => {
                let part = opened.header.part;
                journals.insert(file.number, (file.path.clone(), Some(part)));
            }
            Err(Refusal::Blank) => {
                journals.insert(file.number, (file.path.clone(), None));
            }
            Err(Refusal::Fatal(error)) => return Err(error),
            Err(Refusal::Damaged(what)) => unusable.push((file, what)),
        }
    }
    Ok(journals)
}

fn take_snapshot(
    opened: Opened,
    covers: u64,
    take: &mut Take<'_>,
    restored: &mut Restored,
) -> Result<(), RestoreError> {
    let (path, header) = (opened.path.clone(), opened.header.clone());
    let failed = |error| RestoreError::Refused {
        file: path.clone(),
        error,
    };
    let trailer = walk::snapshot(opened, take).map_err(|stopped| match stopped {
        Stopped::Refused(error) => failed(error),
        Stopped::Damaged(what) => changed(&path, &what),
    })?;
    restored.snapshot = Some(TakenSnapshot {
        path,
        number: header.number,
        created_ms: header.created_ms,
        records: trailer.records,
        covers,
    });
    Ok(())
}

fn changed(file: &Path, what: &str) -> RestoreError {
    let error = format!("it changed while it was read: {what}");
    RestoreError::io(file, io::Error::other(error))
}

/// Restores the whole frames of each journal, and reports the damage.
fn take_journals(
    shared: &Shared,
    (covers, journals): (u64, Journals),
    take: &mut Take<'_>,
    restored: &mut Restored,
) -> Result<(), RestoreError> {
    let expected = expected(&journals);
    let mut reached = covers;
    for (number, (path, part)) in journals {
        let frames = match part {
            Some(part) => {
                check_previous(&path, part, reached, restored);
                walk::journal(open_again(shared, &path, number)?, take)
            }
            None => Ok(Frames::default()),
        };
        let file = path.clone();
        let frames = frames.map_err(|error| RestoreError::Refused { file, error })?;
        reached = number;
        let damage = damage(&frames, expected.get(&number).copied());
        restored.journals += 1;
        restored.journal_records += frames.records;
        restored.newest_frame_ms = restored.newest_frame_ms.max(frames.newest_ms);
        // The journal that follows a damaged one does not say how much of it was there: it stays damaged.
        restored.last_frames = damage.is_none().then_some(frames.last);
        if let Some(what) = damage {
            restored.is_whole = false;
            restored.damaged.push(keep_in_place(&path, what));
        }
    }
    Ok(())
}

/// Opens a journal whose header was read before.
fn open_again(shared: &Shared, path: &Path, number: u64) -> Result<Opened, RestoreError> {
    let name = (Role::Journal, number);
    let opened = open::open(path, name, &shared.ring, &shared.prefix);
    opened.map_err(|refusal| match refusal {
        Refusal::Fatal(error) => error,
        Refusal::Blank => changed(path, "it is empty"),
        Refusal::Damaged(what) => changed(path, &what),
    })
}

/// Returns how many frames of each journal its follower knew to be on disk.
fn expected(journals: &Journals) -> BTreeMap<u64, u64> {
    let parts = journals.values().filter_map(|(_, part)| *part);
    parts
        .filter_map(|part| match part {
            Part::Journal { frames, .. } if frames == UNCOUNTED => None,
            Part::Journal { previous, frames } => Some((previous, frames)),
            Part::Snapshot { .. } => None,
        })
        .collect()
}

/// Reports a missing journal, if this one followed one that is not there.
fn check_previous(path: &Path, part: Part, reached: u64, restored: &mut Restored) {
    if let Part::Journal { previous, .. } = part
        && previous > reached
    {
        restored.is_whole = false;
        tracing::warn!(
            file = %path.display(),
            missing = previous,
            "a journal is missing before this one; changes that it held are not restored"
        );
    }
}

/// Returns the damage of a journal. A last frame that is cut was never acknowledged, so it does not count.
fn damage(frames: &Frames, expected: Option<u64>) -> Option<String> {
    if frames.skipped > 0 {
        return Some(format!("{} frames in it are damaged", frames.skipped));
    }
    match (expected, &frames.tail) {
        (Some(expected), _) if frames.last < expected => {
            let missing = expected - frames.last;
            Some(format!(
                "{missing} frames at its end are missing or damaged"
            ))
        }
        (None, Tail::Wrong(what)) => Some(what.clone()),
        _ => None,
    }
}

/// Renames a damaged file that is of no use, so that the next start does not read it again.
fn set_aside(path: &Path, what: String) -> Damage {
    let to = files::damaged(path);
    let renamed_to = match fs::rename(path, &to) {
        Ok(()) => Some(to),
        Err(error) => {
            tracing::warn!(file = %path.display(), error = %error, "a damaged file could not be renamed");
            None
        }
    };
    say(path, what, renamed_to)
}

/// Leaves a damaged journal in place: most of it is whole, and the next start needs that until a snapshot holds it.
fn keep_in_place(path: &Path, what: String) -> Damage {
    say(path, what, None)
}

fn say(path: &Path, what: String, renamed_to: Option<PathBuf>) -> Damage {
    tracing::warn!(
        file = %path.display(),
        renamed_to = renamed_to.as_ref().map(|path| path.display().to_string()),
        "a file of SNAPSHOT_PATH is damaged: {what}; what other files hold is restored"
    );
    Damage {
        file: path.to_owned(),
        what,
        renamed_to,
    }
}
