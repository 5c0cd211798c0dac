//! Reads facts about the queue and the caller for the command `check`. It receives and changes nothing.

mod endpoint;
mod permissions;

pub use endpoint::{EndpointAnswer, ask_endpoint};
pub use permissions::Permission;

use std::time::Duration;

use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_sqs::types::QueueAttributeName;
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use tokio::sync::watch;

use super::credentials::{Identity, known_credentials, sts};
use super::error::{described, explained, kind_of_both, kind_of_credentials, queue_error};
use super::sqs::max_receive_count;
use super::{QueueError, QueueErrorKind, SqsQueue};
use crate::config::QueueConfig;
use crate::edge::Edge;
use crate::foreign_text::cut_aws;

/// Why STS did not identify the caller.
#[derive(Debug)]
pub struct CallerError {
    /// `None` where the answer has no known error code.
    pub kind: Option<QueueErrorKind>,
    pub detail: String,
}

/// The caller, as AWS identifies it by the credentials.
#[derive(Debug)]
pub struct Caller {
    provider: SharedCredentialsProvider,
    /// The source of the credentials, if known.
    pub identity: Option<Identity>,
}

/// The facts about the queue.
#[derive(Debug)]
pub struct QueueFacts {
    pub attributes: Result<QueueAttributes, QueueError>,
    /// Empty if the queue did not answer.
    pub permissions: Vec<Permission>,
}

#[derive(Debug)]
pub struct QueueAttributes {
    /// The approximate number of waiting messages.
    pub waiting: Option<String>,
    pub kms_key: Option<String>,
    pub visibility_timeout: Option<Duration>,
    /// Of the redrive policy.
    pub max_receive_count: Option<u32>,
}

impl Caller {
    /// Loads credentials as the worker does.
    pub async fn load(config: &QueueConfig, edge: &Edge) -> Result<Self, CallerError> {
        let known = watch::Sender::new(None);
        let provider = known_credentials(config, edge, known.clone()).await;
        match provider.provide_credentials().await {
            Ok(_) => Ok(Self {
                provider,
                identity: known.borrow().clone(),
            }),
            Err(error) => Err(CallerError {
                kind: kind_of_credentials(&error),
                detail: explained(&error),
            }),
        }
    }

    /// Asks STS for the caller's ARN. `None` where neither AWS nor an STS endpoint is configured: the keys
    /// of a local server are not sent to AWS.
    pub async fn arn(&self, config: &QueueConfig) -> Option<Result<String, CallerError>> {
        if !config.is_of_aws() && config.sts.is_none() {
            return None;
        }
        let client = aws_sdk_sts::Client::new(&sts(config, self.provider.clone()));
        let error = match client.get_caller_identity().send().await {
            Ok(answer) => {
                return Some(Ok(answer
                    .arn
                    .unwrap_or_else(|| "STS returned no ARN".into())));
            }
            Err(error) => error,
        };
        let (kind, detail) = match &error {
            SdkError::ServiceError(service) => match service.err().code() {
                Some(code) => {
                    let message = service.err().message().unwrap_or("no message");
                    let kind = kind_of_both(code, message);
                    (Some(kind), format!("{code}: {}", cut_aws(message)))
                }
                None => {
                    let answer = described(service.raw());
                    (None, format!("{answer} and without an error of STS"))
                }
            },
            error => (None, format!("STS does not answer: {}", explained(error))),
        };
        Some(Err(CallerError { kind, detail }))
    }

    /// Reads the attributes of the queue and tests the caller's permissions.
    pub async fn look_at_queue(&self, config: &QueueConfig) -> QueueFacts {
        let queue = SqsQueue::new(config, self.provider.clone()).await;
        let asked = queue
            .client()
            .get_queue_attributes()
            .queue_url(config.url.as_str())
            .attribute_names(QueueAttributeName::All)
            .send();
        let attributes = asked.await.map_err(queue_error).map(|answer| {
            let attributes = answer.attributes.unwrap_or_default();
            let of = |name| attributes.get(&name).map(String::as_str);
            let visible = of(QueueAttributeName::VisibilityTimeout);
            let redrive = of(QueueAttributeName::RedrivePolicy);
            let key = of(QueueAttributeName::KmsMasterKeyId).filter(|key| !key.is_empty());
            QueueAttributes {
                waiting: of(QueueAttributeName::ApproximateNumberOfMessages).map(str::to_owned),
                kms_key: key.map(str::to_owned),
                visibility_timeout: visible
                    .and_then(|secs| secs.parse().ok())
                    .map(Duration::from_secs),
                max_receive_count: redrive.and_then(max_receive_count),
            }
        });
        let permissions = match &attributes {
            Err(error) if error.kind != QueueErrorKind::AccessDenied => Vec::new(),
            _ => permissions::try_all(config, queue.client()).await,
        };
        QueueFacts {
            attributes,
            permissions,
        }
    }
}
