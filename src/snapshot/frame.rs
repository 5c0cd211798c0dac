//! The parts of a file after its header: a kind, a length, and that many bytes. Reading trusts none of them.
//!
//! A checksum after the length tells a length that is wrong from a part that was cut.

use std::io::{self, Read};

use aws_lc_rs::digest::{SHA256, digest};

use super::records::MAX_RECORD_BYTES;
use super::seal::{FileKey, Kind, TAG_BYTES};

/// Kind, length and the checksum of both.
const LEAD_BYTES: usize = 9;
/// A part holds one record at least, and begins a new one when it has this many bytes.
pub const PART_BYTES: usize = 256 << 10;
/// Records of a part and what stands around them. Compression adds little to what does not shrink.
const MAX_PART_BYTES: usize = MAX_RECORD_BYTES + (1 << 20);

/// Appends a sealed part to a buffer.
pub fn push(
    key: &FileKey,
    (kind, index): (Kind, u64),
    plain: &[&[u8]],
    out: &mut Vec<u8>,
) -> io::Result<()> {
    let length = plain.iter().map(|part| part.len()).sum::<usize>() + TAG_BYTES;
    lead(kind, length, out)?;
    let from = out.len();
    for part in plain {
        out.extend_from_slice(part);
    }
    key.seal(kind, index, out, from)
}

/// Appends a part that stays readable, with its tag.
pub fn push_signed(
    key: &FileKey,
    (kind, index): (Kind, u64),
    plain: &[u8],
    out: &mut Vec<u8>,
) -> io::Result<()> {
    lead(kind, plain.len() + TAG_BYTES, out)?;
    out.extend_from_slice(plain);
    out.extend_from_slice(&key.sign(kind, index, plain)?);
    Ok(())
}

fn lead(kind: Kind, length: usize, out: &mut Vec<u8>) -> io::Result<()> {
    let short = u32::try_from(length)
        .ok()
        .filter(|_| length <= MAX_PART_BYTES);
    let length = short.ok_or_else(|| io::Error::other("a part is too large"))?;
    let start = out.len();
    out.push(kind as u8);
    out.extend_from_slice(&length.to_le_bytes());
    let sum = checksum(&out[start..]);
    out.extend_from_slice(&sum);
    Ok(())
}

fn checksum(lead: &[u8]) -> [u8; 4] {
    let mut sum = [0; 4];
    sum.copy_from_slice(&digest(&SHA256, lead).as_ref()[..4]);
    sum
}

/// Reads the bytes before a part.
fn read_lead(lead: &[u8]) -> Option<(Kind, u32)> {
    let (head, sum) = lead.split_at_checked(5)?;
    let kind = Kind::read(head[0]).filter(|kind| *kind != Kind::Header)?;
    let length = u32::from_le_bytes(head[1..].try_into().ok()?);
    let size = usize::try_from(length).ok()?;
    let is_sound = checksum(head) == sum && (TAG_BYTES..=MAX_PART_BYTES).contains(&size);
    is_sound.then_some((kind, length))
}

/// The next part of a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Part(Kind),
    /// The file ends here.
    End,
    /// The file ends within a part.
    Cut,
    /// No part begins so. `is_blank`: only zeros follow, as after a power cut.
    Wrong {
        is_blank: bool,
    },
}

/// Reads part after part. `left` bounds what it takes memory for.
pub struct Parts<R> {
    input: R,
    left: u64,
}

impl<R: Read> Parts<R> {
    pub fn new(input: R, left: u64) -> Self {
        Self { input, left }
    }

    /// Returns whether nothing follows.
    pub fn is_at_end(&self) -> bool {
        self.left == 0
    }

    /// Reads the next part into `sealed`.
    pub fn next(&mut self, sealed: &mut Vec<u8>) -> io::Result<Next> {
        sealed.clear();
        let lead = u64::try_from(LEAD_BYTES).unwrap_or(u64::MAX);
        match self.fill(sealed, lead)? {
            true => {}
            false if sealed.is_empty() => return Ok(Next::End),
            false => return Ok(Next::Cut),
        }
        let Some((kind, length)) = read_lead(sealed) else {
            let is_blank = self.is_blank()?;
            return Ok(Next::Wrong { is_blank });
        };
        sealed.clear();
        if u64::from(length) > self.left {
            self.left = 0;
            return Ok(Next::Cut);
        }
        match self.fill(sealed, u64::from(length))? {
            true => Ok(Next::Part(kind)),
            false => Ok(Next::Cut),
        }
    }

    fn fill(&mut self, buffer: &mut Vec<u8>, count: u64) -> io::Result<bool> {
        let most = count.min(self.left);
        let read = self.input.by_ref().take(most).read_to_end(buffer)?;
        let read = u64::try_from(read).unwrap_or(u64::MAX);
        // A file that became shorter meanwhile has ended too.
        let is_whole = read == count;
        self.left = if is_whole { self.left - read } else { 0 };
        Ok(is_whole)
    }

    fn is_blank(&mut self) -> io::Result<bool> {
        let mut block = [0; 4_096];
        loop {
            match self.input.read(&mut block)? {
                0 => return Ok(true),
                count if block[..count].iter().any(|byte| *byte != 0) => return Ok(false),
                _ => {}
            }
        }
    }
}
