//! How clients of the queue are set up: where to, who we are, and how long they wait.

use std::time::Duration;

use aws_config::identity::IdentityCache;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::Builder;
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_async::time::SystemTimeSource;

use super::http;
use crate::config::QueueConfig;

/// What AWS logs as part of `userAgent`.
const APP_NAME: &str = concat!("entitlement-sync-", env!("CARGO_PKG_VERSION"));

pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// What a short call may take, its second try included.
pub const SHORT_CALL_TIMEOUT: Duration = Duration::from_secs(9);

/// What all clients of a queue have in common.
pub fn shared(config: &QueueConfig, credentials: SharedCredentialsProvider) -> SdkConfig {
    told(config, credentials)
        .into_builder()
        .endpoint_url(config.endpoint.as_str())
        .http_client(http::client_for(&config.endpoint, &config.net))
        .build()
}

/// What clients of AWS are told. Nothing else is: the loader of the SDK would look into the
/// environment and the profiles for the rest, and panic at some of it.
pub fn told(config: &QueueConfig, credentials: SharedCredentialsProvider) -> SdkConfig {
    let mut shared = SdkConfig::builder();
    shared.set_app_name(AppName::new(APP_NAME).ok());
    shared
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(config.region.clone()))
        .credentials_provider(credentials)
        // One for all clients, so that credentials are asked for once.
        .identity_cache(IdentityCache::lazy().build())
        .sleep_impl(TokioSleep::new())
        .time_source(SystemTimeSource::new())
        .retry_config(RetryConfig::standard())
        // It counts the bytes of each piece of a body; our calls have ends of their own.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .build()
}

/// For short calls whose retry is safe and wanted at once.
pub fn short(shared: &SdkConfig) -> Client {
    let retries = RetryConfig::standard().with_max_attempts(2);
    Client::from_conf(settings(shared, retries, Duration::from_secs(4), SHORT_CALL_TIMEOUT).build())
}

/// What a client is made of: how often and how long it tries.
pub fn settings(
    shared: &SdkConfig,
    retries: RetryConfig,
    attempt: Duration,
    operation: Duration,
) -> Builder {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(attempt)
        .operation_timeout(operation)
        .build();
    Builder::from(shared)
        .retry_config(retries)
        .timeout_config(timeouts)
}
