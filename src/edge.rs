//! Calls Stigg's Edge API: queue credentials, the Sentry DSN, and the state of customers.

mod forward;
mod held;
mod load;

pub use forward::{ForwardError, Forwarded, Query};
pub use held::{ByteLimit, HeldBytes, NotRead};
pub use load::EntitlementList;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use url::Url;

use crate::config::EdgeConfig;
use crate::http_agent;

/// A client of the Edge API that retries temporary errors. Clones share connections.
#[derive(Debug, Clone)]
pub struct Edge {
    config: EdgeConfig,
    agent: ureq::Agent,
    via: Arc<str>,
    /// Bounds the answers that this program reads itself.
    answers: ByteLimit,
}

/// The start of the `Via` entry of each process of this program.
const VIA_PREFIX: &str = "1.1 entitlement-sync-";
const MAX_TRIES: u32 = 3;
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);
/// An answer is in memory up to four times while it is read: as text, as a list, as an event and as values.
const MAX_ANSWERS_BYTES: usize = 16 << 20;
const MAX_ANSWER_BYTES: u64 = 10 << 20;

impl Edge {
    pub fn new(config: &EdgeConfig) -> Self {
        Self {
            config: config.clone(),
            agent: http_agent::for_host_of(&config.net, &config.url, http_agent::TIMEOUT),
            via: format!("{VIA_PREFIX}{:016x}", fastrand::u64(..)).into(),
            answers: ByteLimit::new(MAX_ANSWERS_BYTES),
        }
    }

    /// Returns this client with another timeout of requests.
    pub fn within(&self, limit: Duration) -> Self {
        Self {
            agent: http_agent::for_host_of(&self.config.net, &self.config.url, limit),
            ..self.clone()
        }
    }

    /// Returns this client for a request that came through these processes, a `Via` list, so that one of them that is
    /// asked again recognizes its own request.
    pub fn behind(&self, via: &str) -> Self {
        Self {
            via: format!("{via}, {}", self.via).into(),
            ..self.clone()
        }
    }

    /// Returns the `Via` entry that identifies requests of this process, to detect loops.
    pub fn via(&self) -> &str {
        &self.via
    }

    /// Returns the address of the Edge API.
    pub fn url(&self) -> &Url {
        &self.config.url
    }

    /// Returns the Sentry DSN that the vendor's own service would use, if there is one.
    pub async fn sentry_dsn(&self) -> anyhow::Result<Option<SecretString>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer {
            data: Option<Data>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Data {
            sdk_configuration: Option<SdkConfiguration>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct SdkConfiguration {
            sentry_dsn: Option<String>,
        }
        let answer: Answer = self
            .get("v1/config/server-sdk-configuration.json", &[])
            .await?;
        let configuration = answer.data.and_then(|data| data.sdk_configuration);
        let dsn = configuration.and_then(|configuration| configuration.sentry_dsn);
        Ok(dsn.filter(|dsn| !dsn.is_empty()).map(SecretString::from))
    }

    /// Returns temporary credentials for one queue, valid for an hour.
    async fn queue_credentials(&self, queue: &Url) -> anyhow::Result<Credentials> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer {
            access_key_id: String,
            secret_access_key: String,
            session_token: String,
            expiration: String,
        }
        let query = [("queueUrl", queue.as_str()), ("durationSeconds", "3600")];
        let answer: Answer = self.get("v1/credentials/event-queue.json", &query).await?;
        let expiration = OffsetDateTime::parse(&answer.expiration, &Rfc3339)
            .context("the expiration of the queue credentials is not an ISO 8601 time")?;
        Ok(Credentials::new(
            answer.access_key_id,
            answer.secret_access_key,
            Some(answer.session_token),
            Some(SystemTime::from(expiration)),
            "EdgeApi",
        ))
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> anyhow::Result<T> {
        let mut url = self.config.url.clone();
        url.path_segments_mut()
            .map_err(|()| anyhow::anyhow!("EDGE_API_URL is not an http or https URL"))?
            .pop_if_empty()
            .extend(path.split('/'));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        for attempt in 1.. {
            let (text, wait) = match self.ask(url.to_string(), path).await {
                Ok(answer) => {
                    return parse(&answer.text)
                        .with_context(|| format!("invalid answer of the Edge API to {path}"));
                }
                Err(EdgeError::MayPass { text, after, .. }) => (text, after),
                Err(EdgeError::NoRoom(text)) => (text, None),
                Err(error) => return Err(error.into()),
            };
            if attempt >= MAX_TRIES {
                bail!(text);
            }
            let own = Duration::from_millis(u64::from(fastrand::u32(250..750)) << attempt);
            tokio::time::sleep(wait.unwrap_or(own).min(MAX_RETRY_AFTER)).await;
        }
        bail!("unreachable")
    }

    /// Sends one request; its errors contain `path`.
    async fn ask(&self, url: String, path: &str) -> Result<AnswerText, EdgeError> {
        let (edge, path) = (self.clone(), path.to_owned());
        let answer = tokio::task::spawn_blocking(move || edge.request(&url, &path));
        answer
            .await
            .unwrap_or_else(|error| Err(EdgeError::Final(error.to_string())))
    }
}

/// Why one request to the Edge API failed.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    #[error("{0}")]
    NotFound(String),
    /// The Edge API rejects `SERVER_API_KEY`, for every request.
    #[error("{0}")]
    Refused(String),
    /// The Edge API rejects this request; others may succeed.
    #[error("{0}")]
    Declined(String),
    #[error("{0}")]
    Final(String),
    /// The answers in memory have too many bytes; a retry may succeed.
    #[error("{0}")]
    NoRoom(String),
    /// A retry may succeed, after the pause that the server requested.
    #[error("{text}")]
    MayPass {
        text: String,
        after: Option<Duration>,
        /// The Edge API answered, for example with a 500.
        reached: bool,
    },
}

/// An answer, whose bytes count until it is dropped.
struct AnswerText {
    text: String,
    held: HeldBytes,
}

impl Edge {
    fn request(&self, url: &str, path: &str) -> Result<AnswerText, EdgeError> {
        let answer = self
            .agent
            .get(url)
            .header("X-API-KEY", self.config.api_key.expose_secret())
            .header("X-API-VERSION", "1")
            .header("Via", &*self.via)
            .call();
        let mut answer = answer.map_err(|error| EdgeError::MayPass {
            text: format!(
                "the Edge API is not reachable: {:#}",
                anyhow::Error::new(error)
            ),
            after: None,
            reached: false,
        })?;
        let status = answer.status().as_u16();
        if (300..400).contains(&status) {
            let to = answer.headers().get("location");
            let to = to.and_then(|to| target(url, to.to_str().ok()?));
            let to = to.as_deref().unwrap_or("an unnamed target");
            return Err(EdgeError::Final(format!(
                "the Edge API answered {status} to /{path}, a redirect to {to}, which is not followed because the request carries SERVER_API_KEY: check EDGE_API_URL and the proxy"
            )));
        }
        if status >= 400 {
            let text = format!("the Edge API answered {status} to /{path}");
            let after = answer.headers().get("retry-after");
            let after = after.and_then(|after| after.to_str().ok()?.trim().parse().ok());
            return Err(match status {
                429 | 500.. => EdgeError::MayPass {
                    text,
                    after: after.map(Duration::from_secs),
                    reached: true,
                },
                401 | 403 => EdgeError::Refused(format!("SERVER_API_KEY was refused: {text}")),
                404 if is_json_object(&mut answer) => EdgeError::NotFound(text),
                404 => EdgeError::Declined(format!("{text} without JSON: check EDGE_API_URL")),
                _ => EdgeError::Declined(text),
            });
        }
        let (bytes, held) =
            held::read_body(&mut answer, MAX_ANSWER_BYTES, &self.answers).map_err(|error| {
                match error {
                    NotRead::NoRoom => EdgeError::NoRoom(error.to_string()),
                    NotRead::Failed(error) => cut_short(error.to_string()),
                }
            })?;
        let text = String::from_utf8(bytes).map_err(|error| cut_short(error.to_string()))?;
        Ok(AnswerText { text, held })
    }
}

/// An answer that began, and whose body could not be read.
fn cut_short(text: String) -> EdgeError {
    EdgeError::MayPass {
        text,
        after: None,
        reached: true,
    }
}

/// The maximum of a body that tells what an error is.
const MAX_ERROR_BYTES: u64 = 64 * 1024;

/// Returns whether the body is a JSON object, as the Edge API answers. A proxy that finds no route answers a page.
fn is_json_object(answer: &mut ureq::http::Response<ureq::Body>) -> bool {
    let body = answer.body_mut().with_config().limit(MAX_ERROR_BYTES);
    body.read_to_vec().is_ok_and(|body| {
        serde_json::from_slice::<HashMap<String, serde::de::IgnoredAny>>(&body).is_ok()
    })
}

/// Returns whether a `Via` entry is of a process of this program.
pub fn is_of_this_program(via: &str) -> bool {
    via.starts_with(VIA_PREFIX)
}

/// Returns the target of a redirect of `url`: scheme, host and port. Its path and query may contain keys.
pub fn target(url: &str, location: &str) -> Option<String> {
    let target = Url::parse(url).ok()?.join(location).ok()?;
    target.host()?;
    Some(target.origin().ascii_serialization())
}

/// Returns an error if a 200 has a non-empty `errors` array.
fn parse<T: DeserializeOwned>(body: &str) -> anyhow::Result<T> {
    #[derive(Deserialize)]
    struct Errors {
        #[serde(default)]
        errors: Vec<serde::de::IgnoredAny>,
    }
    if serde_json::from_str::<Errors>(body).is_ok_and(|answer| !answer.errors.is_empty()) {
        bail!("it contains errors");
    }
    // The text of serde's error may quote a value.
    serde_json::from_str(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        anyhow::anyhow!("it is not the expected JSON, at line {line} column {column}")
    })
}

/// Queue credentials for a worker without AWS credentials. The SDK requests new ones before they expire.
#[derive(Debug)]
pub struct QueueCredentials {
    pub edge: Edge,
    pub queue: Arc<Url>,
}

impl ProvideCredentials for QueueCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let credentials = self.edge.queue_credentials(&self.queue).await;
            credentials.map_err(|error| {
                CredentialsError::provider_error(Box::<dyn std::error::Error + Send + Sync>::from(
                    format!("{error:#}"),
                ))
            })
        })
    }
}
