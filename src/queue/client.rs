//! Builds the clients of the queue: endpoint, credentials and timeouts.

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

/// The name that AWS logs as part of `userAgent`.
const APP_NAME: &str = concat!("entitlement-sync-", env!("CARGO_PKG_VERSION"));

pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The timeout of a short call, including its second try.
pub const SHORT_CALL_TIMEOUT: Duration = Duration::from_secs(9);

/// The configuration that all clients of a queue share.
pub fn shared(config: &QueueConfig, credentials: SharedCredentialsProvider) -> SdkConfig {
    told(config, credentials)
        .into_builder()
        .endpoint_url(config.endpoint.as_str())
        .http_client(http::client_for(&config.endpoint, &config.net))
        .build()
}

/// Returns the whole configuration of AWS clients. The loader of the SDK would read more from the
/// environment and the profiles, and panic at some values.
pub fn told(config: &QueueConfig, credentials: SharedCredentialsProvider) -> SdkConfig {
    let mut shared = SdkConfig::builder();
    shared.set_app_name(AppName::new(APP_NAME).ok());
    shared
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(config.region.clone()))
        .credentials_provider(credentials)
        // One provider for all clients, so that credentials are requested once.
        .identity_cache(IdentityCache::lazy().build())
        .sleep_impl(TokioSleep::new())
        .time_source(SystemTimeSource::new())
        .retry_config(RetryConfig::standard())
        // It counts the bytes of each piece of a body, which is not needed: our calls have timeouts.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .build()
}

/// Configures short calls, which are safe to retry at once.
pub fn short(shared: &SdkConfig) -> Client {
    let retries = RetryConfig::standard().with_max_attempts(2);
    Client::from_conf(settings(shared, retries, Duration::from_secs(4), SHORT_CALL_TIMEOUT).build())
}

/// Returns the configuration of a client, with its tries and timeouts.
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
