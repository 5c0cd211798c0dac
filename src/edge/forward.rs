//! Forwards requests of readers to the Edge API unchanged.

use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use secrecy::ExposeSecret;

use super::Edge;
use super::held::{self, ByteLimit, HeldBytes, NotRead};

/// An unchanged answer of the Edge API.
#[derive(Debug)]
pub struct Forwarded {
    pub status: u16,
    pub content_type: Option<String>,
    pub retry_after: Option<Duration>,
    pub body: Vec<u8>,
    /// The bytes of the body.
    pub held: HeldBytes,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error(transparent)]
    Call(#[from] ureq::Error),
    #[error(transparent)]
    Body(#[from] NotRead),
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
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

/// The query of a forwarded request, encoded.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Query(String);

impl Query {
    /// Rebuilds the query of a request; `None` if it is not UTF-8. A plus sign stays one, and `%2B` stays `%2B`: for
    /// servers of forms the first is a space.
    pub fn rebuilt(text: &str) -> Option<Self> {
        let mut query = Self::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            query.push(&rebuilt(name)?, &rebuilt(value)?);
        }
        Some(query)
    }

    /// Returns the query with one more pair, given decoded.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.push(&encoded(name), &encoded(value));
        self
    }

    fn push(&mut self, name: &str, value: &str) {
        let separator = if self.0.is_empty() { '?' } else { '&' };
        self.0.push(separator);
        self.0.extend([name, "=", value]);
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, QUERY).to_string()
}

/// Decodes a name or a value and encodes it again, between its plus signs.
fn rebuilt(text: &str) -> Option<String> {
    let part = |part| Some(encoded(&percent_decode_str(part).decode_utf8().ok()?));
    let parts: Option<Vec<String>> = text.split('+').map(part).collect();
    Some(parts?.join("+"))
}

impl Edge {
    /// Requests a path, given as its decoded segments, and a query. The URL is rebuilt from these, so that the text of a
    /// reader cannot change the target. `via` names the processes that the request came through, and `limit` bounds
    /// the bytes of the answers.
    pub async fn forward(
        &self,
        segments: &[String],
        query: &Query,
        via: &str,
        limit: &ByteLimit,
    ) -> Result<Forwarded, ForwardError> {
        let mut url = self.config.url.as_str().trim_end_matches('/').to_owned();
        for segment in segments {
            url.push('/');
            url.extend(utf8_percent_encode(segment, SEGMENT));
        }
        url.push_str(&query.0);
        let request = self
            .agent
            .get(url)
            .header("X-API-KEY", self.config.api_key.expose_secret())
            .header("X-API-VERSION", "1")
            .header("Via", via);
        let limit = limit.clone();
        let answer = tokio::task::spawn_blocking(move || -> Result<Forwarded, ForwardError> {
            let mut answer = request.call()?;
            let text = |name: &str| Some(answer.headers().get(name)?.to_str().ok()?.to_owned());
            let (content_type, retry_after) = (text("content-type"), text("retry-after"));
            let (body, held) = held::read_body(&mut answer, MAX_BODY_BYTES, &limit)?;
            Ok(Forwarded {
                status: answer.status().as_u16(),
                content_type,
                retry_after: retry_after
                    .and_then(|secs| secs.trim().parse().ok())
                    .map(Duration::from_secs),
                body,
                held,
            })
        });
        answer.await?
    }
}

#[cfg(test)]
mod tests {
    use super::Query;

    #[test]
    fn a_rebuilt_query_means_the_same() {
        for (text, expected) in [
            ("", ""),
            ("q=my+plan", "?q=my+plan"),
            ("q=my%2Bplan", "?q=my%2Bplan"),
            ("q=my%2bplan%20b+c", "?q=my%2Bplan%20b+c"),
            ("a+b=+", "?a+b=+"),
            ("a=b%26c&d=e", "?a=b%26c&d=e"),
            ("&&a&b=c=d&", "?a=&b=c%3Dd"),
            ("a=%23%2F..%2F%3F%00", "?a=%23%2F..%2F%3F%00"),
            ("a=%C3%BC", "?a=%C3%BC"),
        ] {
            assert_eq!(Query::rebuilt(text), Some(Query(expected.into())), "{text}");
        }
        assert_eq!(Query::rebuilt("a=%ff"), None);
    }

    #[test]
    fn a_plus_sign_of_an_id_is_no_space() {
        let query = Query::default().with("resourceId", "r+1 &=").with("a", "b");
        assert_eq!(query, Query("?resourceId=r%2B1%20%26%3D&a=b".into()));
    }
}
