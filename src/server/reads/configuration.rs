//! The configuration that SDKs ask for when they start.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Shared;
use super::edge_api::outgoing;
use super::respond::Answered;
use crate::edge::Query;
use crate::metrics::ReadResult;

/// The last configuration that the Edge API gave.
#[derive(Default)]
pub struct Configuration {
    known: Mutex<Known>,
    /// Held during a request to the Edge API.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default, Clone)]
struct Known {
    /// The last one, and when it arrived.
    text: Option<(Arc<str>, Instant)>,
    /// When the last request ended, whatever it brought.
    asked_at: Option<Instant>,
}

const TTL: Duration = Duration::from_secs(300);
/// For this time after a failure the Edge API is not asked again.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// It has a few hundred bytes.
const MAX_BYTES: usize = 64 << 10;
/// An SDK reads nothing else of it to start.
const WITHOUT_DSN: &str =
    r#"{"data":{"sdkConfiguration":{"sentryDsn":null,"isWidgetWatermarkEnabled":false}}}"#;

impl Known {
    fn fresh(&self) -> Option<Arc<str>> {
        let (text, at) = self.text.as_ref()?;
        (at.elapsed() < TTL).then(|| text.clone())
    }

    fn was_asked_within(&self, period: Duration) -> bool {
        self.asked_at.is_some_and(|at| at.elapsed() < period)
    }

    /// Returns the last one, else one that an SDK starts with.
    fn last(self) -> Arc<str> {
        self.text
            .map_or_else(|| WITHOUT_DSN.into(), |(text, _)| text)
    }
}

impl Configuration {
    fn known(&self) -> Known {
        let known = self.known.lock();
        known.unwrap_or_else(|lock| lock.into_inner()).clone()
    }

    fn learn(&self, text: Option<&Arc<str>>) {
        let mut known = self.known.lock().unwrap_or_else(|lock| lock.into_inner());
        let now = Instant::now();
        known.asked_at = Some(now);
        if let Some(text) = text {
            known.text = Some((text.clone(), now));
        }
    }
}

/// Answers with the last configuration. Of the requests that find none or an old one, one asks the Edge API; the others
/// wait if there is none, and are answered with the old one otherwise.
pub async fn configuration(request: &HttpRequest, shared: &Shared) -> Answered {
    let configuration = &shared.configuration;
    let known = configuration.known();
    if let Some(text) = known.fresh() {
        return json(&text, ReadResult::Fresh);
    }
    let _asking = match configuration.asking.try_lock() {
        Ok(asking) => asking,
        Err(_) if known.text.is_some() => return json(&known.last(), ReadResult::Stale),
        Err(_) => configuration.asking.lock().await,
    };
    // Another request may have asked meanwhile.
    let known = configuration.known();
    if let Some(text) = known.fresh() {
        return json(&text, ReadResult::Fresh);
    }
    if known.was_asked_within(RETRY_INTERVAL) {
        return json(&known.last(), ReadResult::Stale);
    }
    let found = fetch(request, shared).await;
    configuration.learn(found.as_ref());
    match found {
        Some(text) => json(&text, ReadResult::Upstream),
        None => json(&known.last(), ReadResult::Stale),
    }
}

/// Asks the Edge API; `None` if its answer is none to keep.
async fn fetch(request: &HttpRequest, shared: &Shared) -> Option<Arc<str>> {
    let segments = ["v1", "config", "server-sdk-configuration.json"].map(str::to_owned);
    let outgoing = outgoing(request, shared, &segments, Query::default());
    let answer = shared.reads.pages.forward(outgoing).await.ok()?;
    let text = String::from_utf8(answer.body).ok()?;
    let is_kept = answer.status == 200 && text.len() <= MAX_BYTES && is_configuration(&text);
    is_kept.then(|| text.into())
}

/// Returns whether an answer is a configuration: an answer with errors is a failure whatever its status.
fn is_configuration(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Document {
        errors: Option<Vec<IgnoredAny>>,
        data: Option<IgnoredAny>,
    }
    let document = serde_json::from_str::<Document>(text);
    document.is_ok_and(|it| it.data.is_some() && it.errors.is_none_or(|errors| errors.is_empty()))
}

fn json(text: &str, result: ReadResult) -> Answered {
    let response = HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "private, no-cache"))
        .insert_header((CONTENT_TYPE, "application/json"))
        .body(text.to_owned());
    Answered::new(result, response)
}

#[cfg(test)]
mod tests {
    use super::is_configuration;

    #[test]
    fn an_answer_with_errors_is_no_configuration() {
        for text in [
            r#"{"data":{"sdkConfiguration":{}}}"#,
            r#"{"data":{"sdkConfiguration":{"sentryDsn":null}},"errors":null}"#,
            r#"{"errors":[],"data":{}}"#,
        ] {
            assert!(is_configuration(text), "{text}");
        }
        for text in [
            r#"{"errors":[{"message":"no"}]}"#,
            r#"{"errors":[{"message":"no"}],"data":{"sdkConfiguration":{}}}"#,
            r#"{"errors":{"message":"no"},"data":{}}"#,
            r#"{"data":null}"#,
            "{}",
            "[]",
            "<html>",
            "",
        ] {
            assert!(!is_configuration(text), "{text}");
        }
    }
}
