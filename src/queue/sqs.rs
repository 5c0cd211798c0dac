//! Implements the queue with SQS. No other module receives or deletes through the AWS SDK.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aws_config::retry::RetryConfig;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry,
    DeleteMessageBatchRequestEntry, Message, MessageSystemAttributeName, QueueAttributeName,
};

use super::answer::ReadReceived;
use super::client::{settings, shared, short};
use super::error::{build_error, queue_error};
use super::{Delivery, Depth, Queue, QueueError, Refused, Settings};
use crate::config::QueueConfig;
use crate::message::Attributes;

/// A queue in SQS, or in a server that speaks its JSON protocol.
#[derive(Debug)]
pub struct SqsQueue {
    pub(super) url: String,
    pub(super) is_fifo: bool,
    /// Never retries: the consumer retries, with a back-off that depends on the error. The
    /// SDK's retry bucket would drain and then fail at once.
    pub(super) receiving: Client,
    /// The client of short calls, which are safe to retry at once.
    pub(super) short: Client,
    visibility_ms: AtomicU64,
}

/// The timeout of an answer, in addition to the long poll.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(7);
const MAX_POLL: Duration = Duration::from_secs(20);

impl SqsQueue {
    /// Sets up the clients; nothing is sent yet.
    pub async fn new(config: &QueueConfig, credentials: SharedCredentialsProvider) -> Self {
        let shared = shared(config, credentials);
        // Without these a receive may hang without limit: the SDK has no read timeout.
        let receive = MAX_POLL + ANSWER_TIMEOUT;
        let receiving = settings(&shared, RetryConfig::disabled(), receive, receive);
        Self {
            url: config.url.to_string(),
            is_fifo: config.is_fifo(),
            receiving: Client::from_conf(receiving.interceptor(ReadReceived).build()),
            short: short(&shared),
            visibility_ms: AtomicU64::new(
                u64::try_from(Settings::default().visibility_timeout.as_millis()).unwrap_or(30_000),
            ),
        }
    }
}

impl SqsQueue {
    /// Returns a client for calls of commands.
    pub(super) fn client(&self) -> &Client {
        &self.short
    }
}

impl Queue for SqsQueue {
    async fn receive(&self, most: usize, wait: Duration) -> Result<Vec<Delivery>, QueueError> {
        let answer = self
            .receiving
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(i32::try_from(most.clamp(1, 10)).unwrap_or(10))
            .wait_time_seconds(i32::try_from(wait.min(MAX_POLL).as_secs()).unwrap_or(20))
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_system_attribute_names(
                MessageSystemAttributeName::ApproximateFirstReceiveTimestamp,
            )
            .message_system_attribute_names(MessageSystemAttributeName::AwsTraceHeader)
            .message_attribute_names("type")
            .message_attribute_names("eventType")
            .send()
            .await
            .map_err(queue_error)?;
        let visibility = Duration::from_millis(self.visibility_ms.load(Ordering::Relaxed));
        let expires = Instant::now() + visibility;
        let messages = answer.messages.unwrap_or_default();
        Ok(messages
            .into_iter()
            .map(|message| delivery(message, expires))
            .collect())
    }

    async fn acknowledge(&self, receipts: &[&str]) -> Result<Vec<Refused>, QueueError> {
        if receipts.is_empty() {
            return Ok(Vec::new());
        }
        // Ids by position: two deliveries of a message share one message id.
        let entries = receipts
            .iter()
            .enumerate()
            .map(|(position, receipt)| {
                DeleteMessageBatchRequestEntry::builder()
                    .id(position.to_string())
                    .receipt_handle(*receipt)
                    .build()
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(build_error)?;
        let answer = self
            .short
            .delete_message_batch()
            .queue_url(&self.url)
            .set_entries(Some(entries))
            .send()
            .await
            .map_err(queue_error)?;
        refused(answer.failed, receipts.len())
    }

    async fn change_visibility(
        &self,
        changes: &[(&str, Duration)],
    ) -> Result<Vec<Refused>, QueueError> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let entries = changes
            .iter()
            .enumerate()
            .map(|(position, (receipt, delay))| {
                ChangeMessageVisibilityBatchRequestEntry::builder()
                    .id(position.to_string())
                    .receipt_handle(*receipt)
                    .visibility_timeout(i32::try_from(delay.as_secs()).unwrap_or(43_200))
                    .build()
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(build_error)?;
        let answer = self
            .short
            .change_message_visibility_batch()
            .queue_url(&self.url)
            .set_entries(Some(entries))
            .send()
            .await
            .map_err(queue_error)?;
        refused(answer.failed, changes.len())
    }

    async fn settings(&self) -> Result<Settings, QueueError> {
        let answer = self
            .short
            .get_queue_attributes()
            .queue_url(&self.url)
            .attribute_names(QueueAttributeName::VisibilityTimeout)
            .attribute_names(QueueAttributeName::RedrivePolicy)
            .attribute_names(QueueAttributeName::ApproximateNumberOfMessages)
            .attribute_names(QueueAttributeName::ApproximateNumberOfMessagesNotVisible)
            .attribute_names(QueueAttributeName::ApproximateNumberOfMessagesDelayed)
            .send()
            .await
            .map_err(queue_error)?;
        let attributes = answer.attributes.unwrap_or_default();
        let mut settings = Settings::default();
        if let Some(seconds) = attributes
            .get(&QueueAttributeName::VisibilityTimeout)
            .and_then(|seconds| seconds.parse().ok())
        {
            settings.visibility_timeout = Duration::from_secs(seconds);
        }
        settings.max_receive_count = attributes
            .get(&QueueAttributeName::RedrivePolicy)
            .and_then(|policy| max_receive_count(policy));
        let count = |name| attributes.get(&name).and_then(|count| count.parse().ok());
        settings.depth =
            count(QueueAttributeName::ApproximateNumberOfMessages).map(|visible| Depth {
                visible,
                in_flight: count(QueueAttributeName::ApproximateNumberOfMessagesNotVisible)
                    .unwrap_or(0),
                delayed: count(QueueAttributeName::ApproximateNumberOfMessagesDelayed).unwrap_or(0),
            });
        let visibility = u64::try_from(settings.visibility_timeout.as_millis()).unwrap_or(u64::MAX);
        self.visibility_ms.store(visibility, Ordering::Relaxed);
        Ok(settings)
    }
}

/// Reads the limit of a redrive policy, which may be a number or a string.
pub(super) fn max_receive_count(policy: &str) -> Option<u32> {
    let policy: serde_json::Value = serde_json::from_str(policy).ok()?;
    let count = policy.get("maxReceiveCount")?;
    match count {
        serde_json::Value::String(count) => count.parse().ok(),
        count => count.as_u64().and_then(|count| u32::try_from(count).ok()),
    }
}

pub(super) fn delivery(message: Message, expires: Instant) -> Delivery {
    let system = |name: MessageSystemAttributeName| {
        message
            .attributes
            .as_ref()
            .and_then(|attributes| attributes.get(&name))
    };
    let number = |name| system(name).and_then(|number| number.parse::<u64>().ok());
    let kind = message.message_attributes.as_ref().and_then(|attributes| {
        let attribute = attributes
            .get("type")
            .or_else(|| attributes.get("eventType"));
        attribute.and_then(|attribute| attribute.string_value.clone())
    });
    let receive_count = number(MessageSystemAttributeName::ApproximateReceiveCount).unwrap_or(1);
    let sent = number(MessageSystemAttributeName::SentTimestamp);
    let first = number(MessageSystemAttributeName::ApproximateFirstReceiveTimestamp);
    let waited = first
        .zip(sent)
        .map(|(first, sent)| first.saturating_sub(sent));
    Delivery {
        attributes: Attributes { kind, sent },
        waited: waited.map(Duration::from_millis),
        trace_header: system(MessageSystemAttributeName::AwsTraceHeader).cloned(),
        receive_count: u32::try_from(receive_count).unwrap_or(u32::MAX),
        message_id: message.message_id.unwrap_or_default(),
        body: message.body.unwrap_or_default(),
        receipt: message.receipt_handle.unwrap_or_default(),
        expires,
    }
}

/// Returns the refused entries, each once. An entry that was not sent makes the answer invalid.
pub(super) fn refused(
    failed: Vec<BatchResultErrorEntry>,
    entries: usize,
) -> Result<Vec<Refused>, QueueError> {
    let mut refused = BTreeMap::new();
    for entry in failed {
        let position = entry.id.parse().ok().filter(|position| *position < entries);
        let position =
            position.ok_or_else(|| build_error("the answer names an entry that was not sent"))?;
        refused.entry(position).or_insert(Refused {
            position,
            code: entry.code,
            sender_fault: entry.sender_fault,
        });
    }
    Ok(refused.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_refused_once_and_a_strange_one_makes_the_answer_worthless() {
        let entry = |id: &str| {
            let entry = BatchResultErrorEntry::builder().id(id).code("Some");
            entry.sender_fault(false).build().unwrap()
        };
        let positions = |failed| {
            let refused = refused(failed, 3)?;
            Ok::<_, QueueError>(refused.iter().map(|it| it.position).collect::<Vec<_>>())
        };
        let twice = vec![entry("2"), entry("0"), entry("2")];
        assert_eq!(positions(twice), Ok(vec![0, 2]));
        for strange in ["3", "x", ""] {
            assert!(positions(vec![entry(strange)]).is_err(), "{strange}");
        }
    }

    #[test]
    fn a_redrive_policy_is_read_in_both_spellings() {
        assert_eq!(max_receive_count(r#"{"maxReceiveCount":3}"#), Some(3));
        assert_eq!(max_receive_count(r#"{"maxReceiveCount":"7"}"#), Some(7));
        assert_eq!(max_receive_count("{}"), None);
        assert_eq!(max_receive_count("x"), None);
    }
}
