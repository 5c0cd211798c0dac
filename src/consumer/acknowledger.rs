//! Deletes finished messages for all consumers of a process, in full batches, without making them wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};

use crate::metrics::{Metrics, Operation};
use crate::queue::{Queue, QueueError};
use crate::store::Durability;

/// A finished message.
#[derive(Debug)]
pub struct Acknowledgement {
    pub message_id: String,
    pub receipt: String,
    pub expires: Instant,
}

/// Takes acknowledgements; clones share one task. When the last is dropped, the task deletes the rest and ends.
#[derive(Debug, Clone)]
pub struct Acknowledger {
    sender: mpsc::Sender<Acknowledgement>,
}

/// The most messages in one delete call.
const MAX_ENTRIES: usize = 10;
/// How long the first message of a batch waits for more. In a FIFO queue its group waits too.
const MAX_WAIT: Duration = Duration::from_millis(50);
const MAX_WAIT_FIFO: Duration = Duration::from_millis(5);
/// The backlog of acknowledgements at which consumers wait too.
const MAX_BACKLOG: usize = 2_000;
/// Tries of a batch that fails on the server's side, and the pause between them.
const MAX_TRIES: u32 = 4;
const RETRY_PAUSE: Duration = Duration::from_millis(150);

impl Acknowledger {
    /// Starts the task. At most `calls` delete calls are in flight at once.
    pub fn start<Q: Queue>(
        queue: Arc<Q>,
        metrics: Metrics,
        calls: usize,
        fifo: bool,
        durability: Durability,
    ) -> (Self, JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel(MAX_BACKLOG);
        let task = tokio::spawn(run(
            queue,
            metrics,
            receiver,
            Arc::new(Semaphore::new(calls)),
            durability,
            if fifo { MAX_WAIT_FIFO } else { MAX_WAIT },
        ));
        (Self { sender }, task)
    }

    /// Passes on a message, which is deleted soon.
    pub async fn acknowledge(&self, acknowledgement: Acknowledgement) {
        // The task outlives every sender unless it panics; then SQS redelivers the message.
        if self.sender.send(acknowledgement).await.is_err() {
            tracing::error!("the acknowledger stopped; SQS will redeliver messages");
        }
    }
}

async fn run<Q: Queue>(
    queue: Arc<Q>,
    metrics: Metrics,
    mut receiver: mpsc::Receiver<Acknowledgement>,
    calls: Arc<Semaphore>,
    durability: Durability,
    patience: Duration,
) {
    let mut under_way = JoinSet::new();
    while let Some(batch) = next_batch(&mut receiver, patience).await {
        let Ok(permit) = calls.clone().acquire_owned().await else {
            break;
        };
        let (queue, metrics, durability) = (queue.clone(), metrics.clone(), durability.clone());
        under_way.spawn(async move {
            durability.durable().await;
            delete(queue, metrics, batch, permit).await;
        });
        while under_way.try_join_next().is_some() {}
    }
    while under_way.join_next().await.is_some() {}
}

/// Returns a full batch, or the messages so far when the first has waited long enough; `None` at the end.
async fn next_batch(
    receiver: &mut mpsc::Receiver<Acknowledgement>,
    patience: Duration,
) -> Option<Vec<Acknowledgement>> {
    let mut batch = Vec::with_capacity(MAX_ENTRIES);
    if receiver.recv_many(&mut batch, MAX_ENTRIES).await == 0 {
        return None;
    }
    let deadline = tokio::time::Instant::now() + patience;
    while batch.len() < MAX_ENTRIES {
        let room = MAX_ENTRIES - batch.len();
        match tokio::time::timeout_at(deadline, receiver.recv_many(&mut batch, room)).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    Some(batch)
}

async fn delete<Q: Queue>(
    queue: Arc<Q>,
    metrics: Metrics,
    mut batch: Vec<Acknowledgement>,
    _permit: OwnedSemaphorePermit,
) {
    let total = batch.len();
    let mut looked = None;
    for attempt in 1..=MAX_TRIES {
        looked = Some(say_late(&batch, looked, &metrics));
        let receipts: Vec<&str> = batch.iter().map(|it| it.receipt.as_str()).collect();
        let started = Instant::now();
        let answer = queue.acknowledge(&receipts).await;
        metrics.called(Operation::Acknowledge, started, &answer);
        match answer {
            Ok(refused) => {
                metrics
                    .acknowledged
                    .inc_by(batch.len().saturating_sub(refused.len()) as u64);
                let mut again = Vec::new();
                for entry in refused {
                    if entry.sender_fault {
                        metrics.acknowledge_failed.inc();
                        let message_id = batch.get(entry.position).map(|it| it.message_id.as_str());
                        tracing::warn!(
                            message_id,
                            code = entry.code,
                            "failed to delete a message (not retryable); SQS may redeliver it, which is harmless"
                        );
                    } else {
                        again.push(entry.position);
                    }
                }
                if again.is_empty() {
                    return;
                }
                let mut position = 0;
                batch.retain(|_| {
                    position += 1;
                    again.contains(&(position - 1))
                });
            }
            Err(error) => {
                if give_up(&error, attempt) {
                    break;
                }
            }
        }
        if attempt < MAX_TRIES {
            let jitter = fastrand::u32(50..150);
            tokio::time::sleep(RETRY_PAUSE * 2_u32.pow(attempt - 1) * jitter / 100).await;
        }
    }
    metrics.acknowledge_failed.inc_by(batch.len() as u64);
    tracing::warn!(
        messages = batch.len(),
        of = total,
        "failed to delete applied messages; SQS will redeliver them, which is harmless"
    );
}

/// Logs how many messages have expired since the last report.
fn say_late(batch: &[Acknowledgement], before: Option<Instant>, metrics: &Metrics) -> Instant {
    let now = Instant::now();
    let is_news = |expires| expires <= now && before.is_none_or(|before| expires > before);
    let late = batch.iter().filter(|it| is_news(it.expires)).count();
    if late > 0 {
        metrics.acknowledged_late.inc_by(late as u64);
        tracing::warn!(
            messages = late,
            "messages acknowledged after their visibility timeout; SQS may have redelivered them, which is harmless; raise the queue's visibility timeout if this persists"
        );
    }
    now
}

fn give_up(error: &QueueError, attempt: u32) -> bool {
    if error.kind.needs_a_person() {
        tracing::error!(%error, advice = error.kind.advice(), "cannot delete messages");
        return true;
    }
    tracing::debug!(%error, attempt, "a delete call failed");
    false
}

#[cfg(test)]
mod tests;
