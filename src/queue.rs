//! The delivery contract, in our own words and types.

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

/// One message as it was handed out. It is ours until `expires`; then it is handed out again,
/// whatever we do with it.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub message_id: String,
    pub body: String,
    pub attributes: Attributes,
    /// Of the producer, from `AWSTraceHeader`.
    pub trace_header: Option<String>,
    /// How often it was handed out, this time included.
    pub receive_count: u32,
    pub receipt: String,
    pub expires: Instant,
}

/// What the queue is set to, as far as we may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    pub visibility_timeout: Duration,
    /// The redrive policy's own limit: at it the queue moves a message to its dead-letter queue.
    pub max_receive_count: Option<u32>,
    pub depth: Option<Depth>,
}

/// How many messages the queue holds, roughly: SQS counts them a minute late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Depth {
    pub visible: u64,
    /// Handed out and neither deleted nor given back.
    pub in_flight: u64,
    pub delayed: u64,
}

impl Default for Settings {
    /// What SQS has unless told otherwise, and no dead-letter queue that we know of.
    fn default() -> Self {
        Self {
            visibility_timeout: Duration::from_secs(30),
            max_receive_count: None,
            depth: None,
        }
    }
}

/// A queue that hands out messages at least once, in no order that we rely on.
///
/// All calls have their own timeouts and none retries for ever; what a caller does after an error
/// is its own business, as only it knows how long to wait.
pub trait Queue: Send + Sync + 'static {
    /// Waits up to `wait` for messages and returns at most `most` of them; none is no error.
    /// Dropping the future may leave messages handed out to nobody: they come again after their
    /// visibility timeout.
    fn receive(
        &self,
        most: usize,
        wait: Duration,
    ) -> impl Future<Output = Result<Vec<Delivery>, QueueError>> + Send;

    /// Deletes at most ten messages. `Ok` holds, by position, those that were refused; the others
    /// are gone. Deleting twice is harmless. An empty list is no call.
    fn acknowledge(
        &self,
        receipts: &[&str],
    ) -> impl Future<Output = Result<Vec<Refused>, QueueError>> + Send;

    /// Makes at most ten messages visible after `delay` from now, zero included: to give them back
    /// or to keep them longer. As for refusals, see [`acknowledge`](Self::acknowledge).
    fn change_visibility(
        &self,
        changes: &[(&str, Duration)],
    ) -> impl Future<Output = Result<Vec<Refused>, QueueError>> + Send;

    /// What the queue is set to.
    fn settings(&self) -> impl Future<Output = Result<Settings, QueueError>> + Send;
}

/// One entry of a batch that was not carried out though the call was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub position: usize,
    pub code: String,
    /// Our own fault, such as an expired receipt: the same again would fail again.
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
    #[error("the clock is off")]
    Clock,
    #[error("KMS refuses the key of the queue")]
    Kms,
    #[error("the answer is not one of SQS")]
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

    /// Someone has to do something before it heals: worth an error, and patience between tries.
    pub fn needs_a_person(self) -> bool {
        !matches!(
            self,
            Self::Throttled | Self::Timeout | Self::Unreachable | Self::Failed
        )
    }

    /// What that someone can do.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Throttled => "fewer CONSUMERS, or a larger BATCH_SIZE",
            Self::CredentialsExpired => {
                "session credentials in the environment are never renewed: use a role, or none to use the Edge API's"
            }
            Self::Credentials => "check the AWS variables or the role of this process",
            Self::AccessDenied => {
                "allow sqs:ReceiveMessage, sqs:DeleteMessage and sqs:ChangeMessageVisibility on the queue"
            }
            Self::NoQueue => "check QUEUE_URL, AWS_REGION and AWS_ENDPOINT_URL_SQS",
            Self::Clock => {
                "set the clock of this machine by NTP: AWS refuses what is signed 5 minutes off"
            }
            Self::Kms => {
                "allow kms:Decrypt on the key of the queue to the role of this process, and enable the key"
            }
            Self::Foreign => {
                "does the server at QUEUE_URL or AWS_ENDPOINT_URL_SQS speak SQS's JSON protocol? A proxy or a portal may answer in its place: check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
            }
            Self::Proxy => {
                "check the user and password in HTTPS_PROXY or HTTP_PROXY, or name the host in NO_PROXY"
            }
            Self::Timeout | Self::Unreachable => "check the network between here and the queue",
            Self::Failed => "it is tried again",
        }
    }
}
