//! A dead-letter queue as an operator looks at it, and sending what is to be tried again.

use std::time::Duration;

use aws_sdk_sqs::types::{Message, MessageAttributeValue, MessageSystemAttributeName};

use super::error::{build_error, queue_error};
use super::sqs::{SqsQueue, delivery};
use super::{Delivery, QueueError};

/// A message of a dead-letter queue, held for a while.
#[derive(Debug, Clone)]
pub struct HeldLetter {
    pub delivery: Delivery,
    /// Of a FIFO queue.
    pub group: Option<String>,
    /// The message attributes `type` and `eventType`, where it has them.
    pub attributes: Vec<(String, String)>,
}

/// A message to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Resent<'a> {
    pub body: &'a str,
    /// String attributes.
    pub attributes: &'a [(String, String)],
    /// For a FIFO queue, which needs both: the group, and an id that is sent but once in 5 minutes.
    pub group: &'a str,
    pub deduplication: &'a str,
}

/// A long poll asks all of SQS's servers; a short one may find nothing where there is something.
const LOOK_SECS: i32 = 1;

impl SqsQueue {
    pub fn is_fifo(&self) -> bool {
        self.url.ends_with(".fifo")
    }

    /// At most `most` messages, of ten at most, hidden from others for `hold`. Each call raises their
    /// receive counts.
    pub async fn hold(&self, hold: Duration, most: usize) -> Result<Vec<HeldLetter>, QueueError> {
        let answer = self
            .receiving
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(i32::try_from(most.clamp(1, 10)).unwrap_or(10))
            .wait_time_seconds(LOOK_SECS)
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

    /// Sends a message; returns its id. After an error it may have been sent all the same.
    pub async fn send(&self, message: Resent<'_>) -> Result<String, QueueError> {
        let mut request = self
            .short
            .send_message()
            .queue_url(&self.url)
            .message_body(message.body);
        for (name, value) in message.attributes {
            let value = MessageAttributeValue::builder()
                .data_type("String")
                .string_value(value)
                .build()
                .map_err(build_error)?;
            request = request.message_attributes(name, value);
        }
        if self.is_fifo() {
            request = request
                .message_group_id(message.group)
                .message_deduplication_id(message.deduplication);
        }
        let answer = request.send().await.map_err(queue_error)?;
        Ok(answer.message_id.unwrap_or_default())
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
