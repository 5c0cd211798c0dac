//! Receives messages and always returns them to the queue.

use std::collections::HashMap;
use std::time::Duration;

use entitlement_sync::queue::{HeldLetter, Queue, SqsQueue};
use tokio_util::sync::CancellationToken;

use crate::commands::session;

/// Messages that were received and returned.
pub struct Taken {
    pub messages: Vec<HeldLetter>,
    /// Warnings for the operator.
    pub warnings: Vec<String>,
}

/// How long a message stays hidden if this process dies.
const HOLD_TIME: Duration = Duration::from_secs(30);
/// Messages of one call.
const MESSAGES_PER_CALL: usize = 10;
/// Tries to return messages, before their timeout ends.
const MAX_TRIES: usize = 3;

/// Receives up to `count` messages and returns them. It never drops a call in flight, because its
/// messages would stay hidden; `stop` ends it after the call. It also ends at a message that was
/// delivered `limit` times, which the queue would move away instead of delivering it again.
pub async fn take(
    queue: &SqsQueue,
    count: usize,
    limit: Option<u32>,
    stop: &CancellationToken,
) -> anyhow::Result<Taken> {
    let mut taken = Taken {
        messages: Vec::new(),
        warnings: Vec::new(),
    };
    let mut receipts: HashMap<String, String> = HashMap::new();
    let mut failure = None;
    while taken.messages.len() < count && !stop.is_cancelled() {
        let most = (count - taken.messages.len()).min(MESSAGES_PER_CALL);
        let page = match queue.hold(HOLD_TIME, most).await {
            Ok(page) if page.is_empty() => break,
            Ok(page) => page,
            Err(error) => {
                failure = Some(session::queue_failure(&error, error.kind));
                break;
            }
        };
        let before = taken.messages.len();
        for letter in page {
            let delivery = &letter.delivery;
            let newest = delivery.receipt.clone();
            let held = receipts.insert(delivery.message_id.clone(), newest);
            if held.is_none() {
                taken.messages.push(letter);
            }
        }
        let is_last =
            |letter: &&HeldLetter| limit.is_some_and(|it| letter.delivery.receive_count >= it);
        let last = taken.messages[before..].iter().filter(is_last).count();
        if last > 0 {
            taken.warnings.push(format!(
                "this was the last delivery that the redrive policy allows of {last} messages (delivery {} and later): the queue moves \
                 them to its dead-letter queue, and `dead-letter replay --queue-url` brings them back. No more are looked at",
                limit.unwrap_or_default()
            ));
            break;
        }
        // The hold of the first message has expired, so return those received so far.
        if taken.messages.len() == before {
            break;
        }
    }
    let hidden = give_back(queue, receipts.into_values().collect()).await;
    if hidden > 0 {
        taken.warnings.push(format!(
            "cannot return {hidden} messages: they stay hidden for {} s at most",
            HOLD_TIME.as_secs()
        ));
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(taken),
    }
}

/// Makes messages visible again. Returns the number that the queue rejected.
async fn give_back(queue: &SqsQueue, receipts: Vec<String>) -> usize {
    let mut left = receipts;
    for _ in 0..MAX_TRIES {
        let mut refused = Vec::new();
        for chunk in left.chunks(MESSAGES_PER_CALL) {
            let changes: Vec<_> = chunk
                .iter()
                .map(|receipt| (receipt.as_str(), Duration::ZERO))
                .collect();
            match queue.change_visibility(&changes).await {
                Ok(entries) => {
                    let places = entries.iter().map(|entry| chunk[entry.position].clone());
                    refused.extend(places);
                }
                Err(_) => refused.extend(chunk.iter().cloned()),
            }
        }
        left = refused;
        if left.is_empty() {
            break;
        }
    }
    left.len()
}
