//! A large body, written in pieces.
//!
//! The server copies what a body gives into its own buffer, and takes more when the reader has taken some. So a body in
//! pieces stays in this program, where its bytes count, until the reader takes it. The server has no limit for that:
//! a body of which nothing was taken for a while is dropped.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;

use crate::edge::HeldBytes;

/// The largest piece. A smaller body needs none: the server's buffer takes it at once.
pub const PIECE_BYTES: usize = 16 << 10;
/// A reader that takes nothing for this time gets no more.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A body in pieces. Its connection ends early if its reader stalls.
pub struct Pieces {
    size: u64,
    rest: Rc<RefCell<Rest>>,
}

/// The part that is not taken yet.
struct Rest {
    bytes: Bytes,
    held: Option<HeldBytes>,
    taken_at: Instant,
    is_dropped: bool,
}

/// The reader took nothing for too long.
#[derive(Debug, thiserror::Error)]
#[error("the reader does not take its answer")]
pub struct Stalled;

impl Pieces {
    /// Must be called on a thread of the server.
    pub fn new(body: Vec<u8>, held: HeldBytes) -> Self {
        let size = body.len() as u64;
        let rest = Rc::new(RefCell::new(Rest {
            bytes: body.into(),
            held: Some(held),
            taken_at: Instant::now(),
            is_dropped: false,
        }));
        actix_web::rt::spawn(drop_when_stalled(Rc::downgrade(&rest)));
        Self { size, rest }
    }
}

impl MessageBody for Pieces {
    type Error = Stalled;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.size)
    }

    fn poll_next(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Stalled>>> {
        Poll::Ready(self.rest.borrow_mut().take_piece())
    }
}

impl Rest {
    fn take_piece(&mut self) -> Option<Result<Bytes, Stalled>> {
        if self.is_dropped {
            return Some(Err(Stalled));
        }
        if self.bytes.is_empty() {
            return None;
        }
        self.taken_at = Instant::now();
        let piece = self.bytes.split_to(self.bytes.len().min(PIECE_BYTES));
        if self.bytes.is_empty() {
            self.held = None;
        }
        Some(Ok(piece))
    }

    /// Drops the bytes that are left, if any are.
    fn drop_bytes(&mut self) {
        self.is_dropped = !self.bytes.is_empty();
        self.bytes = Bytes::new();
        self.held = None;
    }
}

async fn drop_when_stalled(rest: Weak<RefCell<Rest>>) {
    while let Some(rest) = rest.upgrade() {
        let idle = rest.borrow().taken_at.elapsed();
        if idle >= STALL_TIMEOUT {
            rest.borrow_mut().drop_bytes();
            return;
        }
        drop(rest);
        actix_web::rt::time::sleep(STALL_TIMEOUT - idle).await;
    }
}
