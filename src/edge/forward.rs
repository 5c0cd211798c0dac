//! Requests of readers that are passed on as they are.

use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use secrecy::ExposeSecret;

use super::Edge;

/// An answer of the Edge API, as it came.
#[derive(Debug)]
pub struct Forwarded {
    pub status: u16,
    pub content_type: Option<String>,
    pub retry_after: Option<Duration>,
    pub body: Vec<u8>,
}

/// What may be passed on; paywalls of large catalogues take some hundred kilobytes.
const MAX_BODY_BYTES: u64 = 16 << 20;

/// What has a meaning of its own in a segment of a path.
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');
/// The same in a query.
const QUERY: &AsciiSet = &SEGMENT.add(b'&').add(b'+').add(b'=');

impl Edge {
    /// Asks for a path, given as its segments, and a query, given as its pairs, all decoded. The path is built anew
    /// of these, so that nothing of what a reader wrote decides where the request goes. `via` names the processes that
    /// it came through.
    pub async fn forward(
        &self,
        segments: &[String],
        query: &[(String, String)],
        via: &str,
    ) -> anyhow::Result<Forwarded> {
        let mut url = self.config.url.as_str().trim_end_matches('/').to_owned();
        for segment in segments {
            url.push('/');
            url.extend(utf8_percent_encode(segment, SEGMENT));
        }
        for (at, (name, value)) in query.iter().enumerate() {
            url.push(if at == 0 { '?' } else { '&' });
            url.extend(utf8_percent_encode(name, QUERY));
            url.push('=');
            url.extend(utf8_percent_encode(value, QUERY));
        }
        let request = self
            .agent
            .get(url)
            .header("X-API-KEY", self.config.api_key.expose_secret())
            .header("X-API-VERSION", "1")
            .header("Via", via);
        let answer = tokio::task::spawn_blocking(move || -> anyhow::Result<Forwarded> {
            let mut answer = request.call()?;
            let text = |name: &str| Some(answer.headers().get(name)?.to_str().ok()?.to_owned());
            let (content_type, retry_after) = (text("content-type"), text("retry-after"));
            Ok(Forwarded {
                status: answer.status().as_u16(),
                content_type,
                retry_after: retry_after
                    .and_then(|secs| secs.trim().parse().ok())
                    .map(Duration::from_secs),
                body: answer
                    .body_mut()
                    .with_config()
                    .limit(MAX_BODY_BYTES)
                    .read_to_vec()?,
            })
        });
        answer.await?
    }
}
