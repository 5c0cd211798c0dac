//! Forwards requests of readers to the Edge API unchanged.

use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use secrecy::ExposeSecret;

use super::Edge;

/// An unchanged answer of the Edge API.
#[derive(Debug)]
pub struct Forwarded {
    pub status: u16,
    pub content_type: Option<String>,
    pub retry_after: Option<Duration>,
    pub body: Vec<u8>,
}

/// The maximum body to forward; paywalls of large catalogues have a few hundred kilobytes.
const MAX_BODY_BYTES: u64 = 16 << 20;

/// Characters with a special meaning in a segment of a path.
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
/// Characters with a special meaning in a query.
const QUERY: &AsciiSet = &SEGMENT.add(b'&').add(b'+').add(b'=');

impl Edge {
    /// Requests a path, given as its segments, and a query, given as its pairs, all decoded. The URL is rebuilt
    /// from these, so that the text of a reader cannot change the target. `via` names the processes that
    /// the request came through.
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
