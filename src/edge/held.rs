//! Bounds the bytes of answers that are in memory at a time.

use std::io::{self, Read};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The bytes that answers may take together. Clones share the limit.
#[derive(Debug, Clone)]
pub struct ByteLimit {
    free_kib: Arc<Semaphore>,
}

/// Bytes of an answer, which count until this is dropped.
#[derive(Debug)]
pub struct HeldBytes {
    _permit: OwnedSemaphorePermit,
}

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub enum NotRead {
    #[error("the answers of the Edge API in memory have too many bytes")]
    NoRoom,
    #[error(transparent)]
    Failed(#[from] io::Error),
}

/// The first bytes that a body of unknown length may take. They double when they are full.
const FIRST_BYTES: usize = 16 << 10;

impl ByteLimit {
    pub fn new(bytes: usize) -> Self {
        Self {
            free_kib: Arc::new(Semaphore::new(kib(bytes))),
        }
    }

    /// Reads a body to its end. If there is no room it fails and does not wait: bodies that are half read could wait for
    /// each other. `length` is the announced length.
    pub fn read(
        &self,
        mut body: impl Read,
        length: Option<usize>,
    ) -> Result<(Vec<u8>, HeldBytes), NotRead> {
        let first = length.unwrap_or(FIRST_BYTES).max(1);
        let mut permit = self.take(first)?;
        let mut bytes = Vec::with_capacity(first);
        loop {
            let spare = bytes.capacity() - bytes.len();
            let count = body.by_ref().take(spare as u64).read_to_end(&mut bytes)?;
            if count < spare {
                break;
            }
            // Either the body ends here, or it is longer.
            let mut next = Vec::new();
            if body.by_ref().take(1).read_to_end(&mut next)? == 0 {
                break;
            }
            let more = bytes.len().max(FIRST_BYTES);
            permit.merge(self.take(more)?);
            bytes.reserve_exact(more);
            bytes.extend(next);
        }
        bytes.shrink_to_fit();
        let excess = permit.num_permits().saturating_sub(kib(bytes.len()));
        drop(permit.split(excess));
        Ok((bytes, HeldBytes { _permit: permit }))
    }

    fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, NotRead> {
        let kib = u32::try_from(kib(bytes)).map_err(|_| NotRead::NoRoom)?;
        let permit = self.free_kib.clone().try_acquire_many_owned(kib);
        permit.map_err(|_| NotRead::NoRoom)
    }
}

/// Reads the body of an answer, at most `max` bytes.
pub fn read_body(
    answer: &mut ureq::http::Response<ureq::Body>,
    max: u64,
    limit: &ByteLimit,
) -> Result<(Vec<u8>, HeldBytes), NotRead> {
    let length = answer.body().content_length();
    // The limit of the reader refuses a longer one.
    let length = length.filter(|length| *length <= max);
    let length = length.and_then(|length| usize::try_from(length).ok());
    let body = answer.body_mut().with_config().limit(max).reader();
    limit.read(body, length)
}

fn kib(bytes: usize) -> usize {
    bytes.div_ceil(1024).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;

    fn body(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| at as u8).collect()
    }

    #[test]
    fn a_body_is_read_whole_and_holds_its_bytes() {
        for bytes in [0, 1, 1_000, 16 * KIB, 16 * KIB + 1, 100 * KIB, 200_000] {
            for length in [None, Some(bytes), Some(bytes / 2), Some(2 * bytes)] {
                let limit = ByteLimit::new(1_000 * KIB);
                let body = body(bytes);
                let (read, held) = limit.read(body.as_slice(), length).unwrap();
                assert_eq!(read, body, "{bytes} {length:?}");
                assert_eq!(read.capacity(), bytes);
                let free = limit.free_kib.available_permits();
                assert_eq!(free, 1_000 - kib(bytes), "{bytes} {length:?}");
                drop(held);
                assert_eq!(limit.free_kib.available_permits(), 1_000);
            }
        }
    }

    #[test]
    fn a_body_without_room_is_not_read() {
        let limit = ByteLimit::new(100 * KIB);
        let held = limit.read(body(60 * KIB).as_slice(), None).unwrap();
        for length in [None, Some(60 * KIB)] {
            let refused = limit.read(body(60 * KIB).as_slice(), length);
            assert!(matches!(refused, Err(NotRead::NoRoom)));
        }
        // What was refused holds nothing.
        assert_eq!(limit.free_kib.available_permits(), 40);
        limit.read(body(30 * KIB).as_slice(), None).unwrap();
        drop(held);
        assert!(limit.read(body(60 * KIB).as_slice(), None).is_ok());
    }

    #[test]
    fn an_error_of_the_body_is_returned() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
        let limit = ByteLimit::new(100 * KIB);
        let failed = limit.read(body(20 * KIB).as_slice().chain(Broken), None);
        assert!(matches!(failed, Err(NotRead::Failed(_))));
        assert_eq!(limit.free_kib.available_permits(), 100);
    }
}
