//! Classifies answers that contain no error of SQS: those of other protocols, proxies and portals.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use url::Url;

use super::kind_of_both;
use crate::foreign_text::cut_aws;
use crate::queue::{QueueError, QueueErrorKind};

/// Classifies an answer by its status, its headers and an XML error. `None`: invalid JSON in the protocol of
/// SQS.
pub fn foreign(answer: &HttpResponse) -> Option<QueueError> {
    let status = answer.status().as_u16();
    let header = |name: &str| answer.headers().get(name).unwrap_or_default();
    let body = answer.body().bytes().unwrap_or_default();
    let body = String::from_utf8_lossy(&body[..body.len().min(MAX_INSPECTED_BYTES)]);
    let body = body.trim_start_matches('\u{feff}').trim_start();
    let of = |kind, detail| Some(QueueError { kind, detail });
    if status == 407 {
        return of(QueueErrorKind::Proxy, "HTTP 407 from the proxy".to_owned());
    }
    if (300..400).contains(&status) {
        let target = target(header("location"));
        let detail = format!("HTTP {status}, a redirect to {target}, which is not followed");
        return of(QueueErrorKind::Foreign, detail);
    }
    let content = content_type(header("content-type"));
    if let Some(code) = element(body, "Code").filter(|_| body.starts_with('<')) {
        let message = element(body, "Message").unwrap_or("no message");
        let kind = match kind_of_both(code, message) {
            QueueErrorKind::Failed if status < 500 => QueueErrorKind::Foreign,
            kind => kind,
        };
        let (code, message) = (cut_aws(code), cut_aws(message));
        let detail =
            format!("{code}: {message} (HTTP {status} with {content}, not SQS's JSON protocol)");
        return of(kind, detail);
    }
    let is_json = body.starts_with('{') || content.contains("json");
    let is_empty = body.is_empty() && status >= 400;
    match status {
        500.. => of(
            QueueErrorKind::Failed,
            format!("{} and without an error of SQS", described(answer)),
        ),
        400.. if is_json || is_empty => of(
            QueueErrorKind::Foreign,
            format!("{} and without an error of SQS", described(answer)),
        ),
        _ if is_json => None,
        _ => of(
            QueueErrorKind::Foreign,
            format!("{} instead of SQS's JSON", described(answer)),
        ),
    }
}

/// Describes the status and the content type of an answer.
pub fn described(answer: &HttpResponse) -> String {
    let content = answer.headers().get("content-type").unwrap_or_default();
    let status = answer.status().as_u16();
    format!("HTTP {status} with {}", content_type(content))
}

/// The number of bytes that are inspected of a body that is not from SQS.
const MAX_INSPECTED_BYTES: usize = 64 << 10;

/// Returns the target of a redirect without its path and query, which may contain keys.
fn target(location: &str) -> String {
    let url = Url::parse(location).ok().filter(Url::has_host);
    url.map_or_else(
        || "another path".to_owned(),
        |url| url.origin().ascii_serialization(),
    )
}

fn content_type(header: &str) -> &str {
    let kind = header.split(';').next().unwrap_or_default().trim();
    let is_harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"/+.-".contains(&byte);
    match kind {
        "" => "no content type",
        kind if kind.len() <= 60 && kind.bytes().all(is_harmless) => kind,
        _ => "an odd content type",
    }
}

/// Returns the text of the first element with a name.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once("</")?;
    Some(text.trim()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use aws_smithy_types::body::SdkBody;

    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> HttpResponse {
        let status = status.try_into().unwrap();
        let mut answer = HttpResponse::new(status, SdkBody::from(body));
        for (name, value) in headers {
            answer.headers_mut().insert(*name, *value);
        }
        answer
    }

    #[test]
    fn what_is_no_error_of_sqs_is_named_by_its_status_type_and_code() {
        let html = [("content-type", "text/html; charset=utf-8")];
        let xml = [("content-type", "text/xml")];
        let error = |code: &str| {
            format!(
                "<?xml version=\"1.0\"?><ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>why</Message></Error></ErrorResponse>"
            )
        };
        use QueueErrorKind as Kind;
        for (status, headers, body, kind, says) in [
            (
                200,
                &html[..],
                "<html>canary".to_owned(),
                Kind::Foreign,
                "HTTP 200 with text/html",
            ),
            (
                403,
                &html[..],
                "<html>canary".to_owned(),
                Kind::Foreign,
                "HTTP 403 with text/html",
            ),
            (
                407,
                &html[..],
                "<html>canary".to_owned(),
                Kind::Proxy,
                "407 from the proxy",
            ),
            (
                503,
                &html[..],
                "<html>canary".to_owned(),
                Kind::Failed,
                "HTTP 503 with text/html",
            ),
            (
                404,
                &[][..],
                String::new(),
                Kind::Foreign,
                "HTTP 404 with no content type",
            ),
            (
                400,
                &xml[..],
                error("InvalidAction"),
                Kind::Foreign,
                "InvalidAction: why (HTTP 400 with text/xml",
            ),
            (
                403,
                &xml[..],
                error("AccessDenied"),
                Kind::AccessDenied,
                "AccessDenied: why",
            ),
            (
                403,
                &xml[..],
                error("RequestTimeTooSkewed"),
                Kind::Clock,
                "RequestTimeTooSkewed: why",
            ),
            (
                500,
                &xml[..],
                error("InternalError"),
                Kind::Failed,
                "InternalError: why",
            ),
            (
                200,
                &xml[..],
                "<ReceiveMessageResponse/>".to_owned(),
                Kind::Foreign,
                "HTTP 200 with text/xml",
            ),
            (
                301,
                &[("location", "https://portal.example.com/login?key=canary")][..],
                String::new(),
                Kind::Foreign,
                "HTTP 301, a redirect to https://portal.example.com,",
            ),
            (
                302,
                &[("location", "/canary")][..],
                String::new(),
                Kind::Foreign,
                "another path",
            ),
        ] {
            let found = foreign(&answer(status, headers, &body)).unwrap();
            assert_eq!(found.kind, kind, "{status} {body}");
            assert!(found.detail.contains(says), "{}", found.detail);
            assert!(!found.detail.contains("canary"), "{}", found.detail);
        }
        let json = [("content-type", "application/x-amz-json-1.0")];
        assert_eq!(foreign(&answer(200, &json, "{\"Messages\": [")), None);
    }
}
