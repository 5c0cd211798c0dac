//! Defines the queue: its trait, its delivery contract, and its errors.

mod answer;
mod client;
mod credentials;
mod error;
mod http;
mod letters;
pub mod probe;
mod send;
mod settings;
mod sqs;

pub use client::SHORT_CALL_TIMEOUT;
pub use credentials::{Identity, credentials, known_credentials};
pub use letters::HeldLetter;
pub use send::{Outgoing, Sender, Sent};
pub use settings::watch_settings;
pub use sqs::SqsQueue;

use std::future::Future;
use std::time::{Duration, Instant};

use crate::message::Attributes;

/// One delivery of a message. This process owns it until `expires`; then the queue redelivers it.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub message_id: String,
    pub body: String,
    pub attributes: Attributes,
    /// How long the message was in the queue before its first delivery, by the clock of the queue.
    pub waited: Option<Duration>,
    /// The trace of the producer, from `AWSTraceHeader`.
    pub trace_header: Option<String>,
    /// The number of deliveries, including this one.
    pub receive_count: u32,
    pub receipt: String,
    pub expires: Instant,
}

/// The settings of the queue that the worker may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    pub visibility_timeout: Duration,
    /// The limit of the redrive policy, at which the queue moves a message to its dead-letter queue.
    pub max_receive_count: Option<u32>,
    pub depth: Option<Depth>,
}

/// The approximate number of messages in the queue: SQS counts them a minute late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Depth {
    pub visible: u64,
    /// Messages in flight: delivered, and neither deleted nor returned.
    pub in_flight: u64,
    pub delayed: u64,
}

impl Default for Settings {
    /// The defaults of SQS, without a dead-letter queue.
    fn default() -> Self {
        Self {
            visibility_timeout: Duration::from_secs(30),
            max_receive_count: None,
            depth: None,
        }
    }
}

/// A queue with at-least-once delivery, in no order that the worker relies on.
///
/// All calls have their own timeouts and none retries without limit. The caller decides what to do after an error,
/// because only it knows how long to wait.
pub trait Queue: Send + Sync + 'static {
    /// Waits up to `wait` for messages and returns at most `most` of them. An empty result is not an error.
    /// Dropping the future may strand messages in flight: the queue redelivers them after their
    /// visibility timeout.
    fn receive(
        &self,
        most: usize,
        wait: Duration,
    ) -> impl Future<Output = Result<Vec<Delivery>, QueueError>> + Send;

    /// Deletes at most ten messages. `Ok` holds, by position, the refused ones; the others
    /// are deleted. Deleting twice is harmless. An empty list makes no call.
    fn acknowledge(
        &self,
        receipts: &[&str],
    ) -> impl Future<Output = Result<Vec<Refused>, QueueError>> + Send;

    /// Makes at most ten messages visible after `delay` from now, which may be zero: to return them
    /// or to keep them longer. Refusals are reported as by [`acknowledge`](Self::acknowledge).
    fn change_visibility(
        &self,
        changes: &[(&str, Duration)],
    ) -> impl Future<Output = Result<Vec<Refused>, QueueError>> + Send;

    /// Reads the settings of the queue.
    fn settings(&self) -> impl Future<Output = Result<Settings, QueueError>> + Send;
}

/// One failed entry of a batch whose call succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub position: usize,
    pub code: String,
    /// Whether the request is at fault, for example an expired receipt: a retry would fail too.
    pub sender_fault: bool,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {detail}")]
pub struct QueueError {
    pub kind: QueueErrorKind,
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum QueueErrorKind {
    #[error("throttled")]
    Throttled,
    #[error("credentials have expired")]
    CredentialsExpired,
    #[error("credentials are missing or wrong")]
    Credentials,
    #[error("access denied")]
    AccessDenied,
    #[error("queue does not exist")]
    NoQueue,
    #[error("the clock of this machine is wrong")]
    Clock,
    #[error("KMS denies the key of the queue")]
    Kms,
    #[error("the answer is not from SQS")]
    Foreign,
    #[error("refused by the proxy")]
    Proxy,
    #[error("timed out")]
    Timeout,
    #[error("not reachable")]
    Unreachable,
    #[error("failed")]
    Failed,
}

impl QueueErrorKind {
    pub const ALL: [Self; 12] = [
        Self::Throttled,
        Self::CredentialsExpired,
        Self::Credentials,
        Self::AccessDenied,
        Self::NoQueue,
        Self::Clock,
        Self::Kms,
        Self::Foreign,
        Self::Proxy,
        Self::Timeout,
        Self::Unreachable,
        Self::Failed,
    ];

    /// For labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::CredentialsExpired => "credentials_expired",
            Self::Credentials => "credentials",
            Self::AccessDenied => "access_denied",
            Self::NoQueue => "no_queue",
            Self::Clock => "clock",
            Self::Kms => "kms",
            Self::Foreign => "foreign",
            Self::Proxy => "proxy",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Failed => "failed",
        }
    }

    /// Returns whether an operator must act: the worker logs an error, and waits longer between tries.
    pub fn needs_a_person(self) -> bool {
        !matches!(
            self,
            Self::Throttled | Self::Timeout | Self::Unreachable | Self::Failed
        )
    }

    /// Returns whether SQS may have carried out the call: its answer was lost, or is not known to be from SQS.
    pub fn may_be_done(self) -> bool {
        matches!(
            self,
            Self::Foreign | Self::Timeout | Self::Unreachable | Self::Failed
        )
    }

    /// Returns advice for the operator.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Throttled => "lower CONSUMERS, or raise BATCH_SIZE",
            Self::CredentialsExpired => {
                "session credentials in the environment are never renewed: use a role, or unset them to use those of the Edge API"
            }
            Self::Credentials => "check the AWS variables or the role of this process",
            Self::AccessDenied => {
                "allow sqs:ReceiveMessage, sqs:DeleteMessage and sqs:ChangeMessageVisibility on the queue"
            }
            Self::NoQueue => "check QUEUE_URL, AWS_REGION and AWS_ENDPOINT_URL_SQS",
            Self::Clock => {
                "synchronize the clock of this machine by NTP: AWS rejects requests signed 5 minutes off"
            }
            Self::Kms => {
                "allow the role of this process kms:Decrypt on the key of the queue, and enable the key"
            }
            Self::Foreign => {
                "check that the server at QUEUE_URL or AWS_ENDPOINT_URL_SQS uses the JSON protocol of SQS; a proxy or a portal may answer instead: check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
            }
            Self::Proxy => {
                "check the user and password in HTTPS_PROXY or HTTP_PROXY, or add the host to NO_PROXY"
            }
            Self::Timeout | Self::Unreachable => "check the network between here and the queue",
            Self::Failed => "the worker retries",
        }
    }
}
