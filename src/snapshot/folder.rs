//! A folder of snapshots and journals, locked for this process.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use super::RestoreError;
use super::error::OpenError;
use super::files::{Found, Role, State};
use super::header::{Header, Part};
use super::journal::Journal;
use super::keys::{Derivation, Master, Ring, random};
use super::open;
use super::place::Place;
use super::restore::{self, Restored};
use super::seal::{FileKey, Kind};
use super::secret::Secret;
use super::walk::Take;
use super::writer::Writer;
use crate::clock::now_ms;

/// A folder that this process alone uses. Clones are the same folder.
#[derive(Clone)]
pub struct Folder {
    shared: Arc<Shared>,
    journal: Arc<Journal>,
}

/// The state that the journal and the writers of snapshots share.
pub struct Shared {
    pub place: Place,
    pub prefix: String,
    pub ring: Ring,
    /// The key that writes.
    derivation: Derivation,
    master: Arc<Master>,
    keep: usize,
    known: Mutex<Known>,
}

/// The files that are there, by number.
pub struct Known {
    /// The number of the last journal that each snapshot holds; `None` for one whose header cannot be read.
    pub snapshots: BTreeMap<u64, Option<u64>>,
    /// The bytes of each journal.
    pub journals: BTreeMap<u64, u64>,
    pub next_snapshot: u64,
    /// A journal that vanished after its records were acknowledged. Only a snapshot makes them durable again.
    pub lost: Option<u64>,
}

impl Folder {
    /// Creates and locks the folder of `path`, and removes the files of interrupted writes. `keep`: the number of
    /// snapshots to keep, at least 1.
    pub fn open(
        path: &Path,
        prefix: &str,
        secret: Secret,
        previous: Option<Secret>,
        keep: usize,
    ) -> Result<Self, OpenError> {
        let place = Place::open(path)?;
        let failed = |error| OpenError::io(&place.base.folder, error);
        let found = place.base.list().map_err(failed)?;
        let ring = Ring::new(std::iter::once(secret).chain(previous));
        let seen = found.iter().rev().find_map(salted);
        let Some((derivation, master)) = ring.writing(seen) else {
            return Err(failed(io::Error::other("the cryptography library failed")));
        };
        let known = Known::of(&found);
        let last = last_journal(&found, &known);
        let shared = Arc::new(Shared {
            place,
            prefix: prefix.to_owned(),
            ring,
            derivation,
            master,
            keep: keep.max(1),
            known: Mutex::new(known),
        });
        let journal = Arc::new(Journal::new(shared.clone(), last));
        Ok(Self { shared, journal })
    }

    /// Passes every record of the newest whole snapshot to `take`, then those of the journals after it. `take` gets only
    /// authentic records. Call it before the first record is appended.
    pub fn restore(
        &self,
        mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> Result<Restored, RestoreError> {
        let take: &mut Take<'_> = &mut take;
        let restored = restore::restore(&self.shared, take)?;
        self.journal.follow(restored.last_frames);
        Ok(restored)
    }

    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// Ends the journal's file, and returns the number up to which a snapshot that begins now covers the journal.
    /// It does no I/O: call it under the lock that orders the records, before the first of them is read.
    pub fn rotate(&self) -> u64 {
        self.journal.rotate()
    }

    /// Begins a snapshot that holds all of the journal up to `covers`.
    pub fn snapshot(&self, covers: u64) -> io::Result<Writer> {
        Writer::begin(self.shared.clone(), self.journal.clone(), covers)
    }

    /// Returns whether acknowledged records are in memory alone, since a file vanished: write a snapshot now.
    pub fn needs_snapshot(&self) -> bool {
        self.shared.known().lost.is_some()
    }

    /// Counts the journals that the newest snapshot does not hold. Each start begins one.
    pub fn journals(&self) -> usize {
        let known = self.shared.known();
        known.journals.range(known.covered() + 1..).count()
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        &self.shared.place.base.folder
    }
}

impl Known {
    fn of(found: &[Found]) -> Self {
        let of_role = |role| found.iter().filter(move |file| file.role == role);
        let ready = |role| of_role(role).filter(|file| file.state == State::Ready);
        let last = of_role(Role::Snapshot).map(|file| file.number).max();
        let size = |file: &Found| fs::metadata(&file.path).map_or(0, |it| it.len());
        Self {
            snapshots: ready(Role::Snapshot)
                .map(|file| (file.number, covers(file)))
                .collect(),
            journals: ready(Role::Journal)
                .map(|file| (file.number, size(file)))
                .collect(),
            next_snapshot: last.unwrap_or(0).saturating_add(1),
            lost: None,
        }
    }

    /// Forgets a file that a restore cannot use.
    pub fn forget(&mut self, file: &Found) {
        match file.role {
            Role::Snapshot => drop(self.snapshots.remove(&file.number)),
            Role::Journal => drop(self.journals.remove(&file.number)),
        }
    }

    /// Returns the number up to which the newest snapshot covers the journal.
    pub fn covered(&self) -> u64 {
        let last = self.snapshots.last_key_value();
        last.and_then(|(_, covers)| *covers).unwrap_or(0)
    }
}

/// Returns the journal that a new one follows.
fn last_journal(found: &[Found], known: &Known) -> LastJournal {
    let journals = found.iter().filter(|file| file.role == Role::Journal);
    let there = journals.map(|file| file.number).max();
    let covered = known.snapshots.values().copied().flatten().max();
    LastJournal {
        number: there.max(covered).unwrap_or(0),
        follows: there.or(covered).unwrap_or(0),
    }
}

/// The highest number given so far, and the journal that was there last.
pub struct LastJournal {
    pub number: u64,
    pub follows: u64,
}

fn covers(file: &Found) -> Option<u64> {
    match open::head(&file.path).ok()?.header.part {
        Part::Snapshot { covers } => Some(covers),
        Part::Journal { .. } => None,
    }
}

/// Returns how the key of a file came from a passphrase.
fn salted(file: &Found) -> Option<Derivation> {
    let header = open::head(&file.path).ok()?.header;
    (header.derivation != Derivation::None).then_some(header.derivation)
}

impl Shared {
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(|lock| lock.into_inner())
    }

    /// Returns the key and the first bytes of a new file.
    pub fn begin(&self, part: Part, number: u64) -> io::Result<(FileKey, Vec<u8>)> {
        let failed = || io::Error::other("cannot make the header of a file");
        let header = Header {
            part,
            number,
            created_ms: now_ms(),
            derivation: self.derivation,
            key_id: self.master.id,
            file_salt: random().ok_or_else(failed)?,
            prefix: self.prefix.clone(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let mut bytes = header.encode().ok_or_else(failed)?;
        let key = FileKey::new(&self.master, &header.file_salt, &bytes)?;
        bytes.extend_from_slice(&key.sign(Kind::Header, 0, &[])?);
        Ok((key, bytes))
    }

    /// Removes snapshots beyond those to keep. When there are as many as that, it removes the journals that the oldest
    /// holds: until then a restore can do without any snapshot.
    pub fn prune(&self) {
        let mut known = self.known();
        let old = known.snapshots.len().saturating_sub(self.keep);
        let old: Vec<u64> = known.snapshots.keys().take(old).copied().collect();
        for number in old {
            if self.remove(Role::Snapshot, number) {
                known.snapshots.remove(&number);
            }
        }
        if known.snapshots.len() < self.keep {
            return;
        }
        // A snapshot that could not be removed, or whose header cannot be read, may need its journals.
        let covered = known.snapshots.values().map(|covers| covers.unwrap_or(0));
        let covered = covered.min().unwrap_or(0);
        let old: Vec<u64> = known.journals.range(..=covered).map(|it| *it.0).collect();
        for number in old {
            if self.remove(Role::Journal, number) {
                known.journals.remove(&number);
            }
        }
    }

    fn remove(&self, role: Role, number: u64) -> bool {
        let path = self.place.base.file(role, number);
        match fs::remove_file(&path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => {
                tracing::warn!(
                    file = %path.display(),
                    error = %error,
                    "an old file could not be removed; check the permissions of SNAPSHOT_PATH"
                );
                false
            }
        }
    }
}
