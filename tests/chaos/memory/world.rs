//! What everyone shares: the queue, the process, its disk, the books.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use testkit::{Clock, FaultProxy, Reader, Sqs, TestQueue, until};
use tokio::time::sleep;

use super::disk::Disk;
use super::folder;
use super::host::Host;
use super::model::Model;
use super::story::{Message, Story};

/// Shorter than a freeze may be, and long enough for a restarted process to read what is in the queue.
pub const VISIBILITY: Duration = Duration::from_secs(4);
const ATTRIBUTES: [(&str, &str); 1] = [("VisibilityTimeout", "4")];
const KEY: &str = "9a1cc83b6a2b4f6f8fd46a0a41a9d37d3e6a9a0f4d0f1f6cbb5c4a1e2d3c4b5a";
const NO_EDGE: &str = "http://127.0.0.1:1";

pub struct World {
    sqs: Sqs,
    queue: TestQueue,
    pub queue_faults: FaultProxy,
    pub host: Host,
    pub disk: Disk,
    /// That of the process.
    pub clock: Clock,
    model: Mutex<Model>,
    story: Mutex<Story>,
    /// Held by who publishes.
    pub turn: tokio::sync::Mutex<()>,
    /// Whether readers ask mostly about the witnesses.
    pub asks_witnesses: AtomicBool,
    /// All of the round: a queue that is recreated has lost them. Held while messages are being sent.
    sent: tokio::sync::Mutex<Vec<String>>,
    pub published: AtomicU64,
}

impl World {
    pub async fn start(log: &str, seed: u64) -> World {
        let sqs = Sqs::start().await;
        let queue = sqs.queue_with("chaos", &ATTRIBUTES).await;
        let queue_faults = FaultProxy::start(sqs.endpoint()).await;
        let (disk, clock) = (Disk::new(), Clock::new());
        let builder = Reader::in_memory(&queue, NO_EDGE)
            .env("AWS_ENDPOINT_URL_SQS", queue_faults.url())
            .env("QUEUE_URL", queue_faults.queue_url(&queue))
            .env("SNAPSHOT_PATH", disk.folder().display())
            .env("SNAPSHOT_KEY", KEY)
            .env("SNAPSHOT_INTERVAL_SECS", 1)
            // No valid message is given up.
            .env("MAX_RECEIVE_COUNT", 1_000)
            .env("CONSUMERS", 4)
            .env("RUST_LOG", log);
        let builder = clock
            .env()
            .into_iter()
            .fold(builder, |builder, (name, value)| builder.env(name, value));
        World {
            host: Host::start(builder, folder()),
            sqs,
            queue,
            queue_faults,
            disk,
            clock,
            model: Mutex::new(Model::new()),
            story: Mutex::new(Story::new(seed)),
            turn: tokio::sync::Mutex::default(),
            asks_witnesses: AtomicBool::new(false),
            sent: tokio::sync::Mutex::default(),
            published: AtomicU64::new(0),
        }
    }

    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn story(&self) -> MutexGuard<'_, Story> {
        self.story.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the model, and then the queue.
    pub async fn publish(&self, messages: &[Message]) {
        for message in messages {
            self.model().tell(message);
        }
        let bodies: Vec<String> = messages.iter().map(Message::body).collect();
        let mut sent = self.sent.lock().await;
        self.queue.send_all(&bodies).await;
        self.published
            .fetch_add(bodies.len() as u64, Ordering::SeqCst);
        sent.extend(bodies);
    }

    /// The messages in it are gone, and are sent again.
    pub async fn recreate_queue(&self) {
        let sent = self.sent.lock().await;
        let client = self.sqs.client();
        let delete = client.delete_queue().queue_url(&self.queue.url);
        delete.send().await.unwrap();
        sleep(Duration::from_millis(400)).await;
        self.sqs.queue_with(&self.queue.name, &ATTRIBUTES).await;
        self.queue.send_all(sent.iter()).await;
    }

    /// Waits until the queue is empty, which acknowledges all of the round.
    pub async fn drained(&self) {
        until("the queue is empty", Duration::from_secs(90), async || {
            self.host.look();
            self.queue.depth().await == 0
        })
        .await;
        self.sent.lock().await.clear();
    }
}
