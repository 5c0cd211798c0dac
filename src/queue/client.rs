//! How clients of the queue are set up: where to, who we are, and how long they wait.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::Builder;

use super::agent::UserAgent;
use super::http;
use crate::config::QueueConfig;

const CONNECT: Duration = Duration::from_secs(3);
/// What a short call may take, its second try included.
pub const SHORT: Duration = Duration::from_secs(9);

/// What all clients of a queue have in common.
pub async fn shared(config: &QueueConfig, credentials: SharedCredentialsProvider) -> SdkConfig {
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .region(Region::new(config.region.clone()))
        .endpoint_url(config.endpoint.as_str())
        .http_client(http::client_for(&config.endpoint, &config.net))
        .credentials_provider(credentials)
        // It counts the bytes of each piece of a body; our calls have ends of their own.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .load()
        .await
}

/// For short calls whose retry is safe and wanted at once.
pub fn short(shared: &SdkConfig) -> Client {
    let retries = RetryConfig::standard().with_max_attempts(2);
    Client::from_conf(settings(shared, retries, Duration::from_secs(4), SHORT).build())
}

/// What a client is made of: how often and how long it tries.
pub fn settings(
    shared: &SdkConfig,
    retries: RetryConfig,
    attempt: Duration,
    operation: Duration,
) -> Builder {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_attempt_timeout(attempt)
        .operation_timeout(operation)
        .build();
    Builder::from(shared)
        .retry_config(retries)
        .timeout_config(timeouts)
        .interceptor(UserAgent)
}
