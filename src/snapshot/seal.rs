//! Seals the parts of one file with AES-256-GCM, bound to its header and to their order.

use std::io;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};

use super::keys::Master;

pub const TAG_BYTES: usize = 16;

/// The kind of a sealed part. Its number precedes the part, and is bound to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Nothing but the proof that the header is authentic.
    Header = 0,
    /// Records of a snapshot, compressed.
    Chunk = 1,
    /// The counts of a snapshot, which are readable without the key.
    Trailer = 2,
    /// Records of a journal.
    Frame = 3,
}

impl Kind {
    pub fn read(byte: u8) -> Option<Self> {
        [Self::Header, Self::Chunk, Self::Trailer, Self::Frame]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// The key of one file. A salt makes it new for each file, so a counter is enough as nonce.
pub struct FileKey {
    key: LessSafeKey,
    header: [u8; 32],
}

fn failed() -> io::Error {
    io::Error::other("the cryptography library failed")
}

impl FileKey {
    pub fn new(master: &Master, salt: &[u8], header: &[u8]) -> io::Result<Self> {
        let key = master.for_file(salt).ok_or_else(failed)?;
        let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| failed())?;
        let digest = digest(&SHA256, header);
        Ok(Self {
            key: LessSafeKey::new(key),
            header: digest.as_ref().try_into().map_err(|_| failed())?,
        })
    }

    fn nonce(kind: Kind, index: u64) -> Nonce {
        let mut nonce = [0; 12];
        nonce[0] = kind as u8;
        nonce[4..].copy_from_slice(&index.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    fn bound(&self, kind: Kind, index: u64, plain: &[u8]) -> Aad<Vec<u8>> {
        let mut bound = Vec::with_capacity(41 + plain.len());
        bound.extend_from_slice(&self.header);
        bound.push(kind as u8);
        bound.extend_from_slice(&index.to_le_bytes());
        bound.extend_from_slice(plain);
        Aad::from(bound)
    }

    /// Encrypts `buffer` from this place on, and appends the tag.
    pub fn seal(
        &self,
        kind: Kind,
        index: u64,
        buffer: &mut Vec<u8>,
        from: usize,
    ) -> io::Result<()> {
        let (nonce, bound) = (Self::nonce(kind, index), self.bound(kind, index, &[]));
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, bound, &mut buffer[from..]);
        buffer.extend_from_slice(tag.map_err(|_| failed())?.as_ref());
        Ok(())
    }

    /// Decrypts in place. `None`: not sealed with this key, for this header and place.
    pub fn open<'a>(&self, kind: Kind, index: u64, sealed: &'a mut [u8]) -> Option<&'a [u8]> {
        let (nonce, bound) = (Self::nonce(kind, index), self.bound(kind, index, &[]));
        let opened = self.key.open_in_place(nonce, bound, sealed);
        opened.ok().map(|plain| &*plain)
    }

    /// Returns the tag of a part that stays readable.
    pub fn sign(&self, kind: Kind, index: u64, plain: &[u8]) -> io::Result<[u8; TAG_BYTES]> {
        let (nonce, bound) = (Self::nonce(kind, index), self.bound(kind, index, plain));
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, bound, &mut [])
            .map_err(|_| failed())?;
        tag.as_ref().try_into().map_err(|_| failed())
    }

    /// Returns whether this is the tag of a part that stayed readable.
    pub fn verifies(&self, kind: Kind, index: u64, plain: &[u8], tag: &[u8]) -> bool {
        let (nonce, bound) = (Self::nonce(kind, index), self.bound(kind, index, plain));
        let mut tag = tag.to_vec();
        self.key.open_in_place(nonce, bound, &mut tag).is_ok()
    }
}
