//! Provides the AWS credentials and reports their source.

use std::sync::Arc;
use std::time::SystemTime;

use aws_config::ecs::EcsCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use secrecy::ExposeSecret;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;

use super::client::{CONNECT_TIMEOUT, told};
use super::http;
use crate::config::{QueueConfig, StaticCredentials};
use crate::edge::{Edge, QueueCredentials};

/// The source of the credentials in use, without the credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// A description for logs and reports.
    pub source: String,
    /// When they expire, as ISO 8601; the SDK renews them before. `None`: unknown, or never.
    pub expires_at: Option<String>,
}

const KEYS: &str = "keys in the environment";
const SESSION_KEYS: &str = "temporary keys in the environment";
const PROFILE: &str = "an AWS profile";
const WEB_IDENTITY: &str = "a web identity token (IRSA)";
const CONTAINER: &str = "container credentials (EKS Pod Identity or ECS)";
const INSTANCE: &str = "the role of the instance (EC2 metadata)";
const EDGE: &str = "the Edge API";

/// The timeout of STS, below the 5 s after which the SDK's cache of credentials gives up.
const STS_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(4);

/// Returns static keys, else credentials of the platform, else the Edge API's credentials for this queue.
/// With a role: the credentials of the role, assumed by the first two sources.
pub async fn credentials(config: &QueueConfig, edge: &Edge) -> SharedCredentialsProvider {
    known_credentials(config, edge, watch::Sender::new(None)).await
}

/// Returns the credentials, and sends their source to `known` at first and after each change.
pub async fn known_credentials(
    config: &QueueConfig,
    edge: &Edge,
    known: watch::Sender<Option<Identity>>,
) -> SharedCredentialsProvider {
    let (used, passed_over) = (watch::Sender::new(""), watch::Sender::new(false));
    let named = |source, inner: SharedCredentialsProvider| TrackedProvider {
        source,
        named_by: named_by(config, source),
        inner,
        used: used.clone(),
        passed_over: (source == PROFILE).then(|| passed_over.clone()),
    };
    let base = match &config.credentials {
        Some(keys) => {
            let temporary = keys.session_token.is_some();
            let source = if temporary { SESSION_KEYS } else { KEYS };
            SharedCredentialsProvider::new(named(source, given(keys)))
        }
        None => {
            let platform = platform(config, named);
            SharedCredentialsProvider::new(match config.role {
                // The Edge API's credentials are only for the queue, and cannot assume a role.
                Some(_) => platform,
                None => {
                    let edge = SharedCredentialsProvider::new(QueueCredentials {
                        edge: edge.clone(),
                        queue: Arc::new(config.url.clone()),
                    });
                    platform.or_else("EdgeApi", named(EDGE, edge))
                }
            })
        }
    };
    let inner = match &config.role {
        None => base,
        Some(role) => {
            let mut provider = AssumeRoleProvider::builder(&role.arn)
                .configure(&sts(config, base))
                .session_name("entitlement-sync");
            if let Some(id) = &role.external_id {
                provider = provider.external_id(id);
            }
            SharedCredentialsProvider::new(provider.build().await)
        }
    };
    SharedCredentialsProvider::new(ReportingProvider {
        inner,
        role: config.role.as_ref().map(|role| role.arn.clone()),
        used: used.subscribe(),
        profile: named_by(config, PROFILE),
        passed_over: passed_over.subscribe(),
        known,
    })
}

/// Configures clients of STS: with these credentials, in the queue's region.
pub(super) fn sts(config: &QueueConfig, credentials: SharedCredentialsProvider) -> SdkConfig {
    let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT);
    let mut sts = told(config, credentials)
        .into_builder()
        .http_client(http::client(&config.net))
        .timeout_config(timeouts.operation_timeout(STS_TIMEOUT).build())
        .use_fips(config.use_fips)
        .use_dual_stack(config.use_dual_stack);
    sts.set_endpoint_url(config.sts.as_ref().map(|url| url.as_str().to_owned()));
    sts.build()
}

/// Returns the files and profiles of one source, with the variables that name them.
fn named_by(config: &QueueConfig, source: &str) -> String {
    let names: &[&str] = match source {
        WEB_IDENTITY => &["AWS_WEB_IDENTITY_TOKEN_FILE"],
        CONTAINER => &["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"],
        PROFILE => &[
            "AWS_PROFILE",
            "AWS_CONFIG_FILE",
            "AWS_SHARED_CREDENTIALS_FILE",
        ],
        _ => &[],
    };
    let set = config.identity.iter();
    let set = set.filter(|(name, _)| names.contains(&name.as_str()));
    set.map(|(name, value)| format!(", {name} is {value}"))
        .collect()
}

fn given(keys: &StaticCredentials) -> SharedCredentialsProvider {
    let token = keys.session_token.as_ref();
    SharedCredentialsProvider::new(Credentials::new(
        keys.access_key_id.expose_secret(),
        keys.secret_access_key.expose_secret(),
        token.map(|token| token.expose_secret().to_owned()),
        None,
        "Environment",
    ))
}

/// Returns the SDK's default chain in its order, without the keys in the environment, which are read
/// separately. It is listed here so that the worker knows which source provided the credentials.
fn platform(
    config: &QueueConfig,
    named: impl Fn(&'static str, SharedCredentialsProvider) -> TrackedProvider,
) -> CredentialsProviderChain {
    let profile = Profile {
        region: config.region.clone(),
        http: http::client(&config.net),
        use_fips: config.use_fips,
        use_dual_stack: config.use_dual_stack,
    };
    let provider = profile.provider();
    let token = WebIdentityTokenCredentialsProvider::builder().configure(&provider);
    let container = EcsCredentialsProvider::builder().configure(&provider);
    let instance = ImdsCredentialsProvider::builder().configure(&provider);
    let link = |source, inner| named(source, inner);
    CredentialsProviderChain::first_try(
        "Profile",
        link(PROFILE, SharedCredentialsProvider::new(profile)),
    )
    .or_else(
        "WebIdentityToken",
        link(WEB_IDENTITY, SharedCredentialsProvider::new(token.build())),
    )
    .or_else(
        "EcsContainer",
        link(CONTAINER, SharedCredentialsProvider::new(container.build())),
    )
    .or_else(
        "Ec2InstanceMetadata",
        link(INSTANCE, SharedCredentialsProvider::new(instance.build())),
    )
}

/// Reads the profile again for each request. The SDK's provider reads it once, and if the profile is missing, its second
/// answer is an error that ends the chain: credentials of another source could not be renewed.
#[derive(Debug)]
struct Profile {
    region: String,
    http: SharedHttpClient,
    use_fips: bool,
    use_dual_stack: bool,
}

impl Profile {
    fn provider(&self) -> ProviderConfig {
        ProviderConfig::without_region()
            .with_region(Some(Region::new(self.region.clone())))
            .with_behavior_version(Some(BehaviorVersion::v2026_01_12()))
            .with_http_client(self.http.clone())
            .with_use_fips(Some(self.use_fips))
            .with_use_dual_stack(Some(self.use_dual_stack))
    }
}

impl ProvideCredentials for Profile {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let profile = ProfileFileCredentialsProvider::builder().configure(&self.provider());
            profile.build().provide_credentials().await
        })
    }
}

/// A source that provided no credentials, and why.
#[derive(Debug, thiserror::Error)]
#[error("{by}")]
struct Refused {
    by: String,
    source: CredentialsError,
}

/// One source of credentials, which records its name when it provides them.
#[derive(Debug)]
struct TrackedProvider {
    source: &'static str,
    /// The variable that configures the source, for errors.
    named_by: String,
    inner: SharedCredentialsProvider,
    used: watch::Sender<&'static str>,
    /// Whether it has no credentials, so that the next source was asked.
    passed_over: Option<watch::Sender<bool>>,
}

impl ProvideCredentials for TrackedProvider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let asked = self.inner.provide_credentials().await;
            if let Some(passed_over) = &self.passed_over {
                let has_none = matches!(asked, Err(CredentialsError::CredentialsNotLoaded(_)));
                passed_over.send_replace(has_none);
            }
            let credentials = asked.map_err(|error| match error {
                // Not configured, so the next source is asked.
                CredentialsError::CredentialsNotLoaded(_) => error,
                error => CredentialsError::provider_error(Refused {
                    by: format!("{}{}", self.source, self.named_by),
                    source: error,
                }),
            })?;
            self.used.send_replace(self.source);
            Ok(credentials)
        })
    }

    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        self.inner.fallback_on_interrupt()
    }
}

/// All sources in order; records which one is in use.
#[derive(Debug)]
struct ReportingProvider {
    inner: SharedCredentialsProvider,
    role: Option<String>,
    used: watch::Receiver<&'static str>,
    /// The variables that name a profile, for example `, AWS_PROFILE is sync`; empty if none is set.
    profile: String,
    passed_over: watch::Receiver<bool>,
    known: watch::Sender<Option<Identity>>,
}

impl ProvideCredentials for ReportingProvider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let asked = self.inner.provide_credentials().await;
            let credentials = asked.map_err(|error| self.explain(error))?;
            self.tell(credentials.expiry());
            Ok(credentials)
        })
    }

    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        self.inner.fallback_on_interrupt()
    }
}

impl ReportingProvider {
    /// Adds to an error that a configured profile gave no credentials, so that other sources were asked.
    fn explain(&self, error: CredentialsError) -> CredentialsError {
        if self.profile.is_empty() || !*self.passed_over.borrow() {
            return error;
        }
        let is_none = matches!(error, CredentialsError::CredentialsNotLoaded(_));
        let explained = Refused {
            by: format!(
                "{PROFILE} gave no credentials{}; the next source",
                self.profile
            ),
            source: error,
        };
        match is_none {
            true => CredentialsError::not_loaded(explained),
            false => CredentialsError::provider_error(explained),
        }
    }

    fn tell(&self, expiry: Option<SystemTime>) {
        let base = *self.used.borrow();
        let source = match &self.role {
            Some(role) => format!("role {role}, by {base}"),
            None => base.to_owned(),
        };
        let expires_at =
            expiry.and_then(|expiry| OffsetDateTime::from(expiry).format(&Rfc3339).ok());
        let identity = Identity { source, expires_at };
        let before = self.known.send_replace(Some(identity.clone()));
        let Identity { source, expires_at } = identity;
        if before.is_some_and(|before| before.source == source) {
            tracing::debug!(source, expires_at, "AWS credentials renewed");
        } else {
            tracing::info!(source, expires_at, "AWS credentials loaded");
        }
    }
}
