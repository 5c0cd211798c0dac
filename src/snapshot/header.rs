//! The plain header of a file: who wrote it, when, for whom, and with which key.

use std::io::{self, Read};

use aws_lc_rs::digest::{SHA256, digest};

use super::files::MAX_NUMBER;
use super::keys::{Derivation, KeyId, SALT_BYTES};

pub const VERSION: u16 = 1;
const MAGIC: [u8; 8] = *b"ENTSYNC\x1a";
/// Magic, role, a zero, version, length of the body. Each version begins so.
const PREAMBLE_BYTES: usize = 16;
/// Ends each header, so that a damaged one is not taken for one of another key, prefix or version.
const CHECKSUM_BYTES: usize = 8;
const MAX_BODY_BYTES: usize = 4_096;
const MAX_PREFIX_BYTES: usize = 1_024;

pub type FileSalt = [u8; 32];

/// The role of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The snapshot holds all of the journals up to this number.
    Snapshot { covers: u64 },
    /// The journal before this one, and how many of its frames were known to be on disk when this one began.
    Journal { previous: u64, frames: u64 },
}

impl Part {
    pub fn is_snapshot(self) -> bool {
        matches!(self, Self::Snapshot { .. })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub part: Part,
    /// As in the name of the file.
    pub number: u64,
    pub created_ms: u64,
    pub derivation: Derivation,
    pub key_id: KeyId,
    pub file_salt: FileSalt,
    /// `ENVIRONMENT_PREFIX` of the process that wrote it.
    pub prefix: String,
    /// The version of the program that wrote it.
    pub program: String,
}

/// Why a header cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("it is empty")]
    Empty,
    #[error("it ends within its header")]
    Cut,
    #[error("it is not a file of this program")]
    Foreign,
    #[error("its header is damaged")]
    Damaged,
    #[error("its format has version {0}, and this program reads version {VERSION}")]
    Newer(u16),
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&digest(&SHA256, bytes).as_ref()[..CHECKSUM_BYTES]);
    sum
}

impl Header {
    /// Returns the header as it stands in the file. `None`: a text is too long.
    pub fn encode(&self) -> Option<Vec<u8>> {
        if self.prefix.len() > MAX_PREFIX_BYTES || self.program.len() > MAX_PREFIX_BYTES {
            return None;
        }
        let (role, first, second) = match self.part {
            Part::Snapshot { covers } => (1, covers, 0),
            Part::Journal { previous, frames } => (2, previous, frames),
        };
        let (rounds, salt) = match self.derivation {
            Derivation::None => (0, [0; SALT_BYTES]),
            Derivation::Pbkdf2 { rounds, salt } => (rounds, salt),
        };
        let mut body = Vec::new();
        for number in [self.number, self.created_ms, first, second] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        body.extend_from_slice(&rounds.to_le_bytes());
        body.extend_from_slice(&salt);
        body.extend_from_slice(&self.key_id);
        body.extend_from_slice(&self.file_salt);
        for text in [&self.prefix, &self.program] {
            body.extend_from_slice(&u16::try_from(text.len()).ok()?.to_le_bytes());
            body.extend_from_slice(text.as_bytes());
        }
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[role, 0]);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(body.len()).ok()?.to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(&checksum(&bytes));
        Some(bytes)
    }

    /// Reads a header; returns its bytes too, since each part of the file is bound to them.
    pub fn read(input: &mut impl Read) -> Result<(Self, Vec<u8>), Unusable> {
        let mut bytes = Vec::new();
        let count = read_on(input, &mut bytes, PREAMBLE_BYTES)?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(Unusable::Empty);
        }
        if bytes.get(..MAGIC.len()).is_some_and(|it| it != MAGIC) {
            return Err(Unusable::Foreign);
        }
        if count < PREAMBLE_BYTES {
            let is_ours = MAGIC.starts_with(&bytes[..count.min(MAGIC.len())]);
            return Err(if is_ours {
                Unusable::Cut
            } else {
                Unusable::Foreign
            });
        }
        let mut fields = Fields(&bytes[MAGIC.len()..]);
        let (role, version, length) = preamble(&mut fields).ok_or(Unusable::Damaged)?;
        if length > MAX_BODY_BYTES {
            return Err(Unusable::Damaged);
        }
        let length = length + CHECKSUM_BYTES;
        if read_on(input, &mut bytes, length)? < length {
            return Err(Unusable::Cut);
        }
        let (checked, sum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
        if checksum(checked) != sum {
            return Err(Unusable::Damaged);
        }
        if version > VERSION {
            return Err(Unusable::Newer(version));
        }
        let mut body = Fields(&checked[PREAMBLE_BYTES..]);
        let header = Self::decode(role, &mut body).filter(|it| it.derivation.is_sound());
        let is_whole = version == VERSION && body.0.is_empty();
        match header.filter(|_| is_whole) {
            Some(header) => Ok((header, bytes)),
            None => Err(Unusable::Damaged),
        }
    }

    fn decode(role: u8, body: &mut Fields<'_>) -> Option<Self> {
        let [number, created_ms] = [body.u64()?, body.u64()?];
        let part = match (role, body.u64()?, body.u64()?) {
            (1, covers, 0) => Part::Snapshot { covers },
            (2, previous, frames) => Part::Journal { previous, frames },
            _ => return None,
        };
        let (Part::Snapshot { covers: other }
        | Part::Journal {
            previous: other, ..
        }) = part;
        if number.max(other) > MAX_NUMBER {
            return None;
        }
        let derivation = match (body.u32()?, body.array()?) {
            (0, _) => Derivation::None,
            (rounds, salt) => Derivation::Pbkdf2 { rounds, salt },
        };
        Some(Self {
            part,
            number,
            created_ms,
            derivation,
            key_id: body.array()?,
            file_salt: body.array()?,
            prefix: body.text()?,
            program: body.text()?,
        })
    }
}

fn preamble(fields: &mut Fields<'_>) -> Option<(u8, u16, usize)> {
    let [role, _] = fields.array()?;
    let version = u16::from_le_bytes(fields.array()?);
    Some((role, version, usize::try_from(fields.u32()?).ok()?))
}

/// Appends up to `count` bytes; returns how many there were.
fn read_on(input: &mut impl Read, bytes: &mut Vec<u8>, count: usize) -> io::Result<usize> {
    let most = u64::try_from(count).unwrap_or(u64::MAX);
    input.by_ref().take(most).read_to_end(bytes)
}

/// Takes fields from the front of a slice.
pub struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::from(u16::from_le_bytes(self.array()?));
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(taken.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests;
