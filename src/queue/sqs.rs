//! The queue in SQS. The only module that knows the AWS SDK for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aws_config::retry::RetryConfig;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry,
    DeleteMessageBatchRequestEntry, Message, MessageSystemAttributeName, QueueAttributeName,
};

use super::client::{client, shared, short};
use super::{Delivery, Depth, Queue, QueueError, QueueErrorKind, Refused, Settings};
use crate::config::QueueConfig;
use crate::message::Attributes;

/// A queue in SQS, or in a server that speaks its JSON protocol.
#[derive(Debug)]
pub struct SqsQueue {
    url: String,
    /// Never retries: the consumer does, with a back-off of its own that knows the reason. The
    /// SDK's retry bucket would drain and then fail at once.
    receiving: Client,
    /// Short calls whose retry is safe and wanted at once.
    short: Client,
    visibility_ms: AtomicU64,
}

/// What an answer may take beyond the long poll itself.
const ANSWER: Duration = Duration::from_secs(7);
const LONGEST_POLL: Duration = Duration::from_secs(20);

impl SqsQueue {
    /// Sets up the clients; nothing is sent yet.
    pub async fn new(config: &QueueConfig, credentials: SharedCredentialsProvider) -> Self {
        let shared = shared(config, credentials).await;
        // Without these a receive can hang for ever: the SDK has no read timeout.
        let receive = LONGEST_POLL + ANSWER;
        Self {
            url: config.url.to_string(),
            receiving: client(&shared, RetryConfig::disabled(), receive, receive),
            short: short(&shared),
            visibility_ms: AtomicU64::new(
                u64::try_from(Settings::default().visibility_timeout.as_millis()).unwrap_or(30_000),
            ),
        }
    }
}

impl Queue for SqsQueue {
    async fn receive(&self, most: usize, wait: Duration) -> Result<Vec<Delivery>, QueueError> {
        let answer = self
            .receiving
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(i32::try_from(most.clamp(1, 10)).unwrap_or(10))
            .wait_time_seconds(i32::try_from(wait.min(LONGEST_POLL).as_secs()).unwrap_or(20))
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_system_attribute_names(MessageSystemAttributeName::MessageGroupId)
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
        // Ids by position: a message that was handed out twice has one message id.
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
        Ok(refused(answer.failed))
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
        Ok(refused(answer.failed))
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

/// The limit in a redrive policy; some write it as a number, some as a string.
fn max_receive_count(policy: &str) -> Option<u32> {
    let policy: serde_json::Value = serde_json::from_str(policy).ok()?;
    let count = policy.get("maxReceiveCount")?;
    match count {
        serde_json::Value::String(count) => count.parse().ok(),
        count => count.as_u64().and_then(|count| u32::try_from(count).ok()),
    }
}

fn delivery(message: Message, expires: Instant) -> Delivery {
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
    Delivery {
        attributes: Attributes {
            kind,
            sent: number(MessageSystemAttributeName::SentTimestamp),
        },
        trace_header: system(MessageSystemAttributeName::AwsTraceHeader).cloned(),
        receive_count: u32::try_from(receive_count).unwrap_or(u32::MAX),
        message_id: message.message_id.unwrap_or_default(),
        body: message.body.unwrap_or_default(),
        receipt: message.receipt_handle.unwrap_or_default(),
        expires,
    }
}

pub(super) fn refused(failed: Vec<BatchResultErrorEntry>) -> Vec<Refused> {
    failed
        .into_iter()
        .filter_map(|entry| {
            Some(Refused {
                position: entry.id.parse().ok()?,
                code: entry.code,
                sender_fault: entry.sender_fault,
            })
        })
        .collect()
}

pub(super) fn build_error(error: impl std::fmt::Display) -> QueueError {
    QueueError {
        kind: QueueErrorKind::Failed,
        detail: error.to_string(),
    }
}

pub(super) fn queue_error<E>(error: SdkError<E>) -> QueueError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let kind = match &error {
        SdkError::TimeoutError(_) => QueueErrorKind::Timeout,
        SdkError::DispatchFailure(failure) if failure.is_timeout() => QueueErrorKind::Timeout,
        SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) => {
            if is_credentials(&error) {
                QueueErrorKind::Credentials
            } else {
                QueueErrorKind::Unreachable
            }
        }
        SdkError::ServiceError(service) => kind_of(service.err().code().unwrap_or_default()),
        _ => QueueErrorKind::Failed,
    };
    let detail = match error.as_service_error() {
        Some(service) => {
            let code = service.code().unwrap_or("unknown error");
            format!("{code}: {}", service.message().unwrap_or("no message"))
        }
        None => innermost(&error),
    };
    QueueError { kind, detail }
}

type Cause<'a> = &'a (dyn std::error::Error + 'static);

/// An error and its causes, from the top to the bottom.
fn causes<'a>(error: Cause<'a>) -> impl Iterator<Item = Cause<'a>> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

fn is_credentials(error: Cause<'_>) -> bool {
    causes(error).any(|error| error.is::<CredentialsError>())
}

/// The cause at the bottom says most: "connection refused" rather than "dispatch failure".
fn innermost(error: Cause<'_>) -> String {
    causes(error)
        .last()
        .map_or_else(String::new, ToString::to_string)
}

fn kind_of(code: &str) -> QueueErrorKind {
    // `AWS.SimpleQueueService.NonExistentQueue` in the old protocol.
    match code.rsplit('.').next().unwrap_or(code) {
        "RequestThrottled"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequestsException"
        | "OverLimit"
        | "SlowDown"
        | "RequestLimitExceeded"
        | "KmsThrottled" => QueueErrorKind::Throttled,
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" | "TokenRefreshRequired" => {
            QueueErrorKind::CredentialsExpired
        }
        "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "InvalidSecurity"
        | "MissingAuthenticationToken"
        | "IncompleteSignature"
        | "InvalidToken" => QueueErrorKind::Credentials,
        "AccessDenied" | "AccessDeniedException" | "KmsAccessDenied" | "NotAuthorized" => {
            QueueErrorKind::AccessDenied
        }
        "QueueDoesNotExist" | "NonExistentQueue" | "QueueDeletedRecently" => {
            QueueErrorKind::NoQueue
        }
        _ => QueueErrorKind::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart_by_their_codes() {
        for (code, kind) in [
            ("RequestThrottled", QueueErrorKind::Throttled),
            ("OverLimit", QueueErrorKind::Throttled),
            ("ExpiredToken", QueueErrorKind::CredentialsExpired),
            ("InvalidClientTokenId", QueueErrorKind::Credentials),
            ("AccessDeniedException", QueueErrorKind::AccessDenied),
            (
                "AWS.SimpleQueueService.NonExistentQueue",
                QueueErrorKind::NoQueue,
            ),
            ("QueueDoesNotExist", QueueErrorKind::NoQueue),
            ("InternalFailure", QueueErrorKind::Failed),
            ("", QueueErrorKind::Failed),
        ] {
            assert_eq!(kind_of(code), kind, "{code}");
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
