//! Opens a file for reading: its header, its key, and the proof that both belong together.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::error::RestoreError;
use super::files::Role;
use super::frame::Parts;
use super::header::{Header, Unusable};
use super::keys::Ring;
use super::seal::{FileKey, Kind, TAG_BYTES};

pub struct Opened {
    pub path: PathBuf,
    pub header: Header,
    pub key: FileKey,
    pub parts: Parts<BufReader<File>>,
}

/// Why a file of the folder cannot be read.
pub enum Refusal {
    /// Nothing was written yet: the process ended while it began the file.
    Blank,
    Damaged(String),
    Fatal(RestoreError),
}

impl Refusal {
    fn of(path: &Path, unusable: Unusable) -> Self {
        let file = path.to_owned();
        match unusable {
            Unusable::Empty | Unusable::Cut => Self::Blank,
            Unusable::Newer(version) => Self::Fatal(RestoreError::Newer { file, version }),
            Unusable::Io(error) => Self::Fatal(RestoreError::io(file, error)),
            Unusable::Foreign | Unusable::Damaged => Self::Damaged(unusable.to_string()),
        }
    }
}

/// A file whose header was read.
pub struct Headed {
    pub header: Header,
    bytes: Vec<u8>,
    input: BufReader<File>,
    left: u64,
}

/// Reads the header of a file, which needs no key.
pub fn head(path: &Path) -> Result<Headed, Unusable> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut input = BufReader::with_capacity(64 << 10, file);
    let (header, bytes) = Header::read(&mut input)?;
    let read = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    Ok(Headed {
        header,
        bytes,
        input,
        left: length.saturating_sub(read),
    })
}

impl Headed {
    /// Returns the key of the file; `None` if no secret gives it.
    fn key(&self, ring: &Ring) -> Option<std::io::Result<FileKey>> {
        let Header {
            derivation, key_id, ..
        } = &self.header;
        let master = ring.find(*derivation, key_id)?;
        Some(FileKey::new(&master, &self.header.file_salt, &self.bytes))
    }

    /// Goes on to the parts of the file. `Ok(None)`: no secret gives its key. `Err`: the header is not authentic.
    pub fn unlock(mut self, path: &Path, ring: &Ring) -> Result<Option<Opened>, Unusable> {
        let Some(key) = self.key(ring) else {
            return Ok(None);
        };
        let key = key?;
        let tag = self.tag()?;
        if !key.verifies(Kind::Header, 0, &[], &tag) {
            return Err(Unusable::Damaged);
        }
        let path = path.to_owned();
        let (header, parts) = self.skim();
        Ok(Some(Opened {
            path,
            header,
            key,
            parts,
        }))
    }

    /// Reads the proof that the header is authentic.
    pub fn tag(&mut self) -> Result<Vec<u8>, Unusable> {
        let mut tag = Vec::new();
        let mut input = self.input.by_ref().take(TAG_BYTES.try_into().unwrap_or(0));
        input.read_to_end(&mut tag)?;
        if tag.len() < TAG_BYTES {
            return Err(Unusable::Cut);
        }
        self.left = self.left.saturating_sub(TAG_BYTES.try_into().unwrap_or(0));
        Ok(tag)
    }

    /// Returns the parts as they are, sealed.
    pub fn skim(self) -> (Header, Parts<BufReader<File>>) {
        (self.header, Parts::new(self.input, self.left))
    }
}

/// Opens a file of the folder, and checks that it is the one that its name says.
pub fn open(
    path: &Path,
    (role, number): (Role, u64),
    ring: &Ring,
    prefix: &str,
) -> Result<Opened, Refusal> {
    let headed = head(path).map_err(|unusable| Refusal::of(path, unusable))?;
    let header = &headed.header;
    if header.part.is_snapshot() != (role == Role::Snapshot) || header.number != number {
        return Err(Refusal::Damaged("its name is that of another file".into()));
    }
    if header.prefix != prefix {
        return Err(Refusal::Fatal(RestoreError::Prefix {
            file: path.to_owned(),
            found: header.prefix.clone(),
            ours: prefix.to_owned(),
        }));
    }
    match headed.unlock(path, ring) {
        Ok(Some(opened)) => Ok(opened),
        Ok(None) => {
            let file = path.to_owned();
            Err(Refusal::Fatal(RestoreError::Key { file }))
        }
        Err(unusable) => Err(Refusal::of(path, unusable)),
    }
}
