//! Sends one request without credentials to the endpoint of the queue.

use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::config::QueueConfig;
use crate::http_agent;

#[derive(Debug)]
pub struct EndpointAnswer {
    /// How far the clock of the endpoint is ahead of ours, if its answer has a time.
    pub clock_skew_secs: Option<i64>,
}

/// Sends one request. Any answer counts, also an error.
pub async fn ask_endpoint(config: &QueueConfig) -> Result<EndpointAnswer, String> {
    let agent = http_agent::for_host_of(&config.net, &config.endpoint, http_agent::TIMEOUT);
    let url = config.endpoint.to_string();
    let asked = tokio::task::spawn_blocking(move || {
        let before = SystemTime::now();
        // AWS redirects this to a page about SQS; the agent does not follow it.
        let answer = agent.get(&url).call().map_err(|error| error.to_string())?;
        let date = answer.headers().get("date").cloned();
        let date = date.and_then(|date| OffsetDateTime::parse(date.to_str().ok()?, &Rfc2822).ok());
        // The server wrote the time between request and answer, in whole seconds.
        let half = before.elapsed().unwrap_or_default() / 2;
        let ours = OffsetDateTime::from(before + half);
        Ok(EndpointAnswer {
            clock_skew_secs: date.map(|date| (date - ours).whole_seconds()),
        })
    });
    asked.await.map_err(|error| error.to_string())?
}
