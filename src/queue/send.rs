//! Sends messages for the commands. The worker itself sends nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{MessageAttributeValue, SendMessageBatchRequestEntry};

use super::client::{shared, short};
use super::error::{build_error, queue_error};
use super::sqs::refused;
use super::{QueueError, QueueErrorKind, Refused};
use crate::config::QueueConfig;

/// A message to be sent.
#[derive(Debug, Clone, Default)]
pub struct Outgoing {
    pub body: String,
    /// Message attributes, all of them strings.
    pub attributes: Vec<(String, String)>,
    /// The message group: required in a FIFO queue, and the key of fair queues in a standard queue.
    pub group: Option<String>,
    /// For FIFO queues; a retry of a message keeps its id.
    pub deduplication: Option<String>,
}

impl Outgoing {
    /// Returns the bytes that SQS counts towards the size of a message and of a batch.
    pub fn bytes(&self) -> usize {
        let attributes = self.attributes.iter();
        // The data type counts too; it is always "String".
        let attributes = attributes.map(|(name, value)| name.len() + value.len() + 6);
        self.body.len() + attributes.sum::<usize>()
    }
}

/// The answer to sending several messages.
#[derive(Debug, Default)]
pub struct Sent {
    /// The message ids from SQS, by position.
    pub ids: BTreeMap<usize, String>,
    /// The messages that were refused permanently, by position.
    pub refused: Vec<Refused>,
}

/// Sends to one queue.
#[derive(Debug, Clone)]
pub struct Sender {
    url: String,
    client: Client,
}

/// The limits of SQS for one call.
const MAX_MESSAGES: usize = 10;
const MAX_BYTES: usize = 1 << 20;
/// Tries of messages that failed on the server's side.
const MAX_TRIES: u32 = 5;

impl Sender {
    /// The largest message that a queue accepts, in bytes.
    pub const MAX_MESSAGE_BYTES: usize = MAX_BYTES;

    /// Sets up the client; nothing is sent yet.
    pub async fn new(config: &QueueConfig, credentials: SharedCredentialsProvider) -> Self {
        Self {
            url: config.url.to_string(),
            client: short(&shared(config, credentials)),
        }
    }

    /// Returns how many of the first messages fit into one call; at least one, if there is one.
    pub fn fitting(messages: &[Outgoing]) -> usize {
        let mut bytes = 0;
        let fits = |(place, message): &(usize, &Outgoing)| {
            bytes += message.bytes();
            *place == 0 || bytes <= MAX_BYTES
        };
        let first = messages.iter().take(MAX_MESSAGES).enumerate();
        first.take_while(fits).count()
    }

    /// Sends one message; returns its id. After an error the message may be in the queue.
    pub async fn send_one(&self, message: Outgoing) -> Result<String, QueueError> {
        let mut sent = self.send(std::slice::from_ref(&message)).await?;
        if let Some(refused) = sent.refused.pop() {
            return Err(QueueError {
                kind: QueueErrorKind::Failed,
                detail: format!("SQS refused the message: {}", refused.code),
            });
        }
        Ok(sent.ids.remove(&0).unwrap_or_default())
    }

    /// Sends the messages of one call, as counted by [`fitting`](Self::fitting). Messages that are not refused
    /// are in the queue. It retries failures on the server's side, so after a lost answer a standard queue may hold
    /// a message twice. After an error, any of the messages may be in the
    /// queue.
    pub async fn send(&self, messages: &[Outgoing]) -> Result<Sent, QueueError> {
        let mut left: Vec<usize> = (0..messages.len()).collect();
        let mut sent = Sent::default();
        for attempt in 1.. {
            let passing = match self.call(messages, &left, &mut sent.ids).await {
                Ok(failed) => {
                    let (fault, passing): (Vec<_>, Vec<_>) =
                        failed.into_iter().partition(|entry| entry.sender_fault);
                    sent.refused.extend(fault);
                    left = passing.iter().map(|entry| entry.position).collect();
                    passing
                }
                Err(error) if error.kind.needs_a_person() || attempt >= MAX_TRIES => {
                    return Err(error);
                }
                Err(_) => Vec::new(),
            };
            if left.is_empty() || attempt >= MAX_TRIES {
                sent.refused.extend(passing);
                break;
            }
            let pause = Duration::from_millis(100) * (1 << attempt);
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
        Ok(sent)
    }

    /// Makes one call for the messages at `places`, and returns those that failed by their place.
    async fn call(
        &self,
        messages: &[Outgoing],
        places: &[usize],
        ids: &mut BTreeMap<usize, String>,
    ) -> Result<Vec<Refused>, QueueError> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let entries = places
            .iter()
            .map(|&place| entry(place, &messages[place]))
            .collect::<Result<Vec<_>, _>>()?;
        let answer = self
            .client
            .send_message_batch()
            .queue_url(&self.url)
            .set_entries(Some(entries))
            .send()
            .await
            .map_err(queue_error)?;
        let done = answer.successful.len() + answer.failed.len();
        if done < places.len() {
            return Err(QueueError {
                kind: QueueErrorKind::Failed,
                detail: "the answer to a batch does not cover all its messages".into(),
            });
        }
        let sent = answer.successful.into_iter();
        ids.extend(sent.filter_map(|entry| Some((entry.id.parse().ok()?, entry.message_id))));
        refused(answer.failed, messages.len())
    }
}

fn entry(place: usize, message: &Outgoing) -> Result<SendMessageBatchRequestEntry, QueueError> {
    let mut entry = SendMessageBatchRequestEntry::builder()
        .id(place.to_string())
        .message_body(&message.body)
        .set_message_group_id(message.group.clone())
        .set_message_deduplication_id(message.deduplication.clone());
    for (name, value) in &message.attributes {
        let value = MessageAttributeValue::builder()
            .data_type("String")
            .string_value(value)
            .build()
            .map_err(build_error)?;
        entry = entry.message_attributes(name, value);
    }
    entry.build().map_err(build_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: usize) -> Outgoing {
        Outgoing {
            body: "x".repeat(bytes),
            ..Outgoing::default()
        }
    }

    #[test]
    fn a_call_holds_ten_messages_and_a_mebibyte_at_most() {
        assert_eq!(Sender::fitting(&[]), 0);
        assert_eq!(Sender::fitting(&vec![of(10); 12]), 10);
        assert_eq!(Sender::fitting(&vec![of(400 << 10); 5]), 2);
        assert_eq!(Sender::fitting(&[of(2 << 20), of(1)]), 1);
        let mut with_attribute = of(MAX_BYTES - 20);
        with_attribute.attributes = vec![("type".into(), "measurement".into())];
        assert_eq!(with_attribute.bytes(), MAX_BYTES + 1);
    }
}
