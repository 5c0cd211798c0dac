//! Reads dead letters one after the other from their place, and deletes those that are finished.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use entitlement_sync::queue::{Queue, SqsQueue};
use entitlement_sync::store::{AdminClient, StoreError};

use super::letter::Letter;
use super::process::Process;
use crate::commands::{FAILED, Failure, session};

pub enum Place {
    Stream(Stream),
    Queue(Box<Held>),
    /// Of memory mode.
    Process(Process),
}

pub struct Stream {
    redis: AdminClient,
    key: String,
    after: Option<String>,
    /// Letters that existed at the start. Letters that a worker adds meanwhile are not read.
    left: u64,
}

pub struct Held {
    queue: SqsQueue,
    /// Receipts by message, which the command returns at the end.
    held: HashMap<String, String>,
    /// Messages that were read or must be skipped.
    seen: HashSet<String>,
    /// Deliveries since the last new message.
    repeats: usize,
    /// Why the queue may hold more messages than were read.
    cut_short: Option<&'static str>,
}

/// The time for which the messages read stay hidden from others.
const HOLD_TIME: Duration = Duration::from_secs(60);
/// Maximum messages of one page.
const LETTERS_PER_PAGE: usize = 10;
/// Deliveries of known messages, as a multiple of all messages seen, after which the search ends.
const MAX_REPEATS: usize = 5;

const FIFO_BLOCKED: &str = "the queue delivers no more messages of a group while some of them are in flight: there may be more. \
     Run the command again once these are replayed or deleted";
const ONLY_REPEATS: &str =
    "the queue keeps delivering known messages: there may be more. Run the command again";

impl Place {
    pub async fn stream(redis: AdminClient, key: String) -> anyhow::Result<Self> {
        let left = redis.count_letters(&key).await.map_err(failed)?;
        Ok(Self::Stream(Stream {
            redis,
            key,
            after: None,
            left,
        }))
    }

    pub fn queue(queue: SqsQueue) -> Self {
        Self::Queue(Box::new(Held {
            queue,
            held: HashMap::new(),
            seen: HashSet::new(),
            repeats: 0,
            cut_short: None,
        }))
    }

    /// Returns the next letters; none when all were read.
    pub async fn next(&mut self) -> anyhow::Result<Vec<Letter>> {
        match self {
            Self::Stream(stream) => stream.next().await,
            Self::Queue(held) => held.next().await,
            Self::Process(process) => process.next(),
        }
    }

    /// Finds the letter with an id.
    pub async fn find(&mut self, id: &str) -> anyhow::Result<Option<Letter>> {
        if let Self::Stream(stream) = self {
            let at_once = stream.redis.letter(&stream.key, id).await;
            if let Some(letter) = at_once.map_err(failed)? {
                return Ok(Some(letter.into()));
            }
        }
        loop {
            let page = self.next().await?;
            if page.is_empty() {
                return Ok(None);
            }
            if let Some(letter) = page.into_iter().find(|letter| letter.is_called(id)) {
                return Ok(Some(letter));
            }
        }
    }

    /// Deletes a letter permanently. A letter that is already gone is not an error.
    pub async fn delete(&mut self, letter: &Letter) -> anyhow::Result<()> {
        match self {
            Self::Stream(stream) => {
                let id = std::slice::from_ref(&letter.id);
                let deleted = stream.redis.forget_letters(&stream.key, id).await;
                deleted.map(drop).map_err(failed)
            }
            Self::Queue(held) => held.delete(letter).await,
            Self::Process(process) => process.delete(letter),
        }
    }

    /// Skips a message that this run sent, if the queue delivers it.
    pub fn leave_out(&mut self, message_id: String) {
        if let Self::Queue(held) = self {
            held.seen.insert(message_id);
        }
    }

    /// Returns why there may be more letters, after [`next`](Self::next) found none.
    pub fn cut_short(&self) -> Option<&'static str> {
        match self {
            Self::Stream(_) | Self::Process(_) => None,
            Self::Queue(held) => held.cut_short,
        }
    }

    /// Returns all held messages to the queue.
    pub async fn close(self) {
        match self {
            Self::Stream(stream) => stream.redis.close().await,
            Self::Queue(held) => held.give_back().await,
            Self::Process(_) => {}
        }
    }
}

fn failed(error: StoreError) -> anyhow::Error {
    session::redis_failure(&error.into())
}

impl Stream {
    async fn next(&mut self) -> anyhow::Result<Vec<Letter>> {
        let page = self.redis.letters(&self.key, self.after.as_deref()).await;
        let mut page = page.map_err(failed)?;
        page.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= page.len() as u64;
        if let Some(last) = page.last() {
            self.after = Some(last.id.clone());
        }
        Ok(page.into_iter().map(Letter::from).collect())
    }
}

impl Held {
    /// Receives new letters. Letters that were left return after [`HOLD_TIME`], so a page of
    /// them alone does not mean that there are no others: only an empty page ends it.
    async fn next(&mut self) -> anyhow::Result<Vec<Letter>> {
        loop {
            let page = self.queue.hold(HOLD_TIME, LETTERS_PER_PAGE).await;
            let page = page.map_err(|error| session::queue_failure(&error, error.kind))?;
            if page.is_empty() {
                // A FIFO queue delivers no more of a group while some of its messages are in flight.
                let is_blocked = self.queue.is_fifo() && !self.held.is_empty();
                self.cut_short = is_blocked.then_some(FIFO_BLOCKED);
                return Ok(Vec::new());
            }
            let mut letters = Vec::with_capacity(page.len());
            for letter in page.into_iter().map(Letter::from) {
                // Only the newest receipt is valid.
                let receipt = letter.receipt.clone().unwrap_or_default();
                self.held.insert(letter.message_id.clone(), receipt);
                if self.seen.insert(letter.message_id.clone()) {
                    letters.push(letter);
                    self.repeats = 0;
                } else {
                    self.repeats += 1;
                }
            }
            if !letters.is_empty() {
                return Ok(letters);
            }
            if self.repeats > MAX_REPEATS * self.seen.len() + LETTERS_PER_PAGE {
                self.cut_short = Some(ONLY_REPEATS);
                return Ok(letters);
            }
        }
    }

    async fn delete(&mut self, letter: &Letter) -> anyhow::Result<()> {
        let Some(receipt) = self.held.get(&letter.message_id) else {
            return Ok(());
        };
        let refused = self.queue.acknowledge(&[receipt.as_str()]).await;
        let refused = refused.map_err(|error| session::queue_failure(&error, error.kind))?;
        match refused.first() {
            None => {
                self.held.remove(&letter.message_id);
                Ok(())
            }
            Some(refused) => Err(Failure::with(
                FAILED,
                format!(
                    "the queue did not delete message {}: {}",
                    letter.message_id, refused.code
                ),
            )),
        }
    }

    async fn give_back(self) {
        let receipts: Vec<&String> = self.held.values().collect();
        for chunk in receipts.chunks(10) {
            let chunk: Vec<_> = chunk
                .iter()
                .map(|it| (it.as_str(), Duration::ZERO))
                .collect();
            // Otherwise they become visible after the timeout.
            let _ = self.queue.change_visibility(&chunk).await;
        }
    }
}
