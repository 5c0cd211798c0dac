//! One acknowledger for all consumers of a process: it deletes in full batches, and nobody waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};

use crate::metrics::{Metrics, Operation};
use crate::queue::{Queue, QueueError};

/// A message that is done with.
#[derive(Debug)]
pub struct Acknowledgement {
    pub message_id: String,
    pub receipt: String,
    pub expires: Instant,
}

/// Takes acknowledgements; clones share one task. It ends, all deleted, when the last is dropped.
#[derive(Debug, Clone)]
pub struct Acknowledger {
    sender: mpsc::Sender<Acknowledgement>,
}

/// What one delete call takes.
const MAX_ENTRIES: usize = 10;
/// How long the first of a batch waits for company. In a FIFO queue its group waits too.
const MAX_WAIT: Duration = Duration::from_millis(50);
const MAX_WAIT_FIFO: Duration = Duration::from_millis(5);
/// Waiting acknowledgements at which consumers begin to wait too.
const MAX_BACKLOG: usize = 2_000;
/// Tries of a batch whose call or entries fail on the server's side, and the pause before the next.
const MAX_TRIES: u32 = 4;
const RETRY_PAUSE: Duration = Duration::from_millis(150);

impl Acknowledger {
    /// Starts the task. At most `calls` delete calls are under way at once.
    pub fn start<Q: Queue>(
        queue: Arc<Q>,
        metrics: Metrics,
        calls: usize,
        fifo: bool,
    ) -> (Self, JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel(MAX_BACKLOG);
        let task = tokio::spawn(run(
            queue,
            metrics,
            receiver,
            Arc::new(Semaphore::new(calls)),
            if fifo { MAX_WAIT_FIFO } else { MAX_WAIT },
        ));
        (Self { sender }, task)
    }

    /// Hands over a message to be deleted soon.
    pub async fn acknowledge(&self, acknowledgement: Acknowledgement) {
        // The task outlives every sender but for a panic; then the message comes again.
        if self.sender.send(acknowledgement).await.is_err() {
            tracing::error!("the acknowledger is gone; messages will come again");
        }
    }
}

async fn run<Q: Queue>(
    queue: Arc<Q>,
    metrics: Metrics,
    mut receiver: mpsc::Receiver<Acknowledgement>,
    calls: Arc<Semaphore>,
    patience: Duration,
) {
    let mut under_way = JoinSet::new();
    while let Some(batch) = next_batch(&mut receiver, patience).await {
        let Ok(permit) = calls.clone().acquire_owned().await else {
            break;
        };
        under_way.spawn(delete(queue.clone(), metrics.clone(), batch, permit));
        while under_way.try_join_next().is_some() {}
    }
    while under_way.join_next().await.is_some() {}
}

/// A full batch, or what there is when the first has waited long enough; `None` at the end.
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
                            "could not delete a message, and trying again would not help; if it is still there it comes again, harmlessly"
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
        "could not delete messages that were applied; they come again, harmlessly"
    );
}

/// Says how many have expired since the time before, if there was one.
fn say_late(batch: &[Acknowledgement], before: Option<Instant>, metrics: &Metrics) -> Instant {
    let now = Instant::now();
    let is_news = |expires| expires <= now && before.is_none_or(|before| expires > before);
    let late = batch.iter().filter(|it| is_news(it.expires)).count();
    if late > 0 {
        metrics.acknowledged_late.inc_by(late as u64);
        tracing::warn!(
            messages = late,
            "acknowledging after the visibility timeout: someone else may work on them too, harmlessly; raise the queue's visibility timeout if this stays"
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
