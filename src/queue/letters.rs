//! Reads a dead-letter queue for the commands.

use std::time::Duration;

use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};

use super::error::queue_error;
use super::sqs::{SqsQueue, delivery};
use super::{Delivery, QueueError};

/// A message of a dead-letter queue, held for a limited time.
#[derive(Debug, Clone)]
pub struct HeldLetter {
    pub delivery: Delivery,
    /// Of a FIFO queue.
    pub group: Option<String>,
    /// The message attributes `type` and `eventType`, if present.
    pub attributes: Vec<(String, String)>,
}

/// The time of a long poll, which asks all servers of SQS; a short poll may miss messages.
const POLL_SECS: i32 = 1;

impl SqsQueue {
    pub fn is_fifo(&self) -> bool {
        self.is_fifo
    }

    /// Receives at most `most` messages, ten at most, and hides them from others for `hold`. Each call raises their
    /// receive counts.
    pub async fn hold(&self, hold: Duration, most: usize) -> Result<Vec<HeldLetter>, QueueError> {
        let answer = self
            .receiving
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(i32::try_from(most.clamp(1, 10)).unwrap_or(10))
            .wait_time_seconds(POLL_SECS)
            .visibility_timeout(i32::try_from(hold.as_secs()).unwrap_or(30))
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_system_attribute_names(MessageSystemAttributeName::MessageGroupId)
            .message_attribute_names("type")
            .message_attribute_names("eventType")
            .send()
            .await
            .map_err(queue_error)?;
        let expires = std::time::Instant::now() + hold;
        let messages = answer.messages.unwrap_or_default().into_iter();
        Ok(messages.map(|message| held(message, expires)).collect())
    }
}

fn held(message: Message, expires: std::time::Instant) -> HeldLetter {
    let group = message
        .attributes
        .as_ref()
        .and_then(|attributes| attributes.get(&MessageSystemAttributeName::MessageGroupId));
    let mut attributes: Vec<(String, String)> = message
        .message_attributes
        .iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), value.string_value.clone()?)))
        .collect();
    attributes.sort();
    HeldLetter {
        group: group.cloned(),
        attributes,
        delivery: delivery(message, expires),
    }
}
