//! What OpenFeature's remote evaluation protocol requires of bodies: `service/openapi.yaml` of `open-feature/protocol`,
//! version 0.3.0, put in words of our own. A schema of it is named where it is checked.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use serde_json::Value;

use testkit::http::{self, Outcome, Received, Server};

pub type Checked = Result<(), String>;

/// `evaluationSuccess.reason` has the first five. `CACHED` and `STALE` are of OpenFeature's own types
/// (`specification/types`, resolution reason), which the description of the field refers to.
const REASONS: [&str; 7] = [
    "STATIC",
    "TARGETING_MATCH",
    "SPLIT",
    "DISABLED",
    "UNKNOWN",
    "CACHED",
    "STALE",
];
/// `evaluationFailure.errorCode`.
const CODES: [&str; 4] = [
    "PARSE_ERROR",
    "TARGETING_KEY_MISSING",
    "INVALID_CONTEXT",
    "GENERAL",
];

fn text<'a>(of: &'a Value, field: &str) -> Result<&'a str, String> {
    of[field]
        .as_str()
        .ok_or_else(|| format!("{field} is no text: {of}"))
}

fn optional_text(of: &Value, field: &str) -> Checked {
    match of.get(field) {
        None => Ok(()),
        Some(_) => text(of, field).map(drop),
    }
}

/// `metadata`: an object of booleans, texts and numbers.
fn metadata(of: &Value) -> Checked {
    let is_plain = |it: &Value| it.is_boolean() || it.is_string() || it.is_number();
    match of.get("metadata") {
        None => Ok(()),
        Some(Value::Object(fields)) if fields.values().all(is_plain) => Ok(()),
        Some(_) => Err(format!("metadata is not flat: {of}")),
    }
}

/// `serverEvaluationSuccess`.
pub fn success(answer: &Value) -> Checked {
    text(answer, "key")?;
    let reason = text(answer, "reason")?;
    if !REASONS.contains(&reason) {
        return Err(format!("reason is {reason}"));
    }
    optional_text(answer, "variant")?;
    metadata(answer)?;
    // Without a value it is a `codeDefaultFlag`.
    match answer.get("value") {
        Some(Value::Null | Value::Array(_)) => Err(format!("value is of no type: {answer}")),
        _ => Ok(()),
    }
}

/// `evaluationFailure`, or without a key `bulkEvaluationFailure`.
pub fn failure(answer: &Value, is_of_flag: bool) -> Checked {
    if is_of_flag {
        text(answer, "key")?;
    }
    let code = text(answer, "errorCode")?;
    if !CODES.contains(&code) {
        return Err(format!("errorCode is {code}"));
    }
    optional_text(answer, "errorDetails")?;
    metadata(answer)
}

/// `bulkEvaluationSuccess`.
pub fn flags(answer: &Value) -> Checked {
    metadata(answer)?;
    let flags = answer["flags"].as_array();
    let flags = flags.ok_or_else(|| format!("flags is no list: {answer}"))?;
    for flag in flags {
        success(flag)
            .or_else(|why| failure(flag, true).map_err(|also| format!("{why}; {also}")))?;
    }
    Ok(())
}

/// `evaluationRequest` and `bulkEvaluationRequest`.
fn request(received: &Received) -> Checked {
    if received.method != "POST" {
        return Err(format!("the method is {}", received.method));
    }
    if !received
        .header("content-type")
        .starts_with("application/json")
    {
        return Err("the body is not said to be JSON".into());
    }
    text(&received.json()["context"], "targetingKey").map(drop)
}

fn response(path: &str, status: u16, body: &Bytes) -> Checked {
    let json = || serde_json::from_slice(body).map_err(|error| format!("{error}: {body:?}"));
    let is_of_flag = path != "/ofrep/v1/evaluate/flags";
    match status {
        200 if is_of_flag => success(&json()?),
        200 => flags(&json()?),
        304 if body.is_empty() && !is_of_flag => Ok(()),
        400 => failure(&json()?, is_of_flag),
        // It names no 503: what it requires of any other failure of the server is less than this.
        503 => failure(&json()?, is_of_flag),
        _ => Err(format!("a status of {status}")),
    }
}

/// Stands before a server and checks what passes.
pub struct Recorder {
    server: Server,
    seen: Arc<Mutex<Vec<Checked>>>,
}

impl Recorder {
    pub async fn before(port: u16) -> Recorder {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let server = Server::start({
            let seen = seen.clone();
            move |received: Received| {
                let seen = seen.clone();
                async move {
                    let (outcome, checked) = pass(port, received).await;
                    seen.lock().unwrap().push(checked);
                    outcome
                }
            }
        })
        .await;
        Recorder { server, seen }
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    /// How many exchanges there were; all of them kept to the protocol.
    pub fn checked(&self) -> usize {
        let seen = self.seen.lock().unwrap();
        for checked in &*seen {
            assert_eq!(checked, &Ok(()));
        }
        seen.len()
    }
}

async fn pass(port: u16, received: Received) -> (Outcome, Checked) {
    let mut passed = Request::builder()
        .method(received.method.as_str())
        .uri(&received.path);
    for (name, value) in &received.headers {
        passed = passed.header(name, value);
    }
    let passed = passed.body(Full::from(received.body.clone())).unwrap();
    let answer = http::send(port, passed).await.unwrap();
    let status = answer.status().as_u16();
    let checked = request(&received).and_then(|()| response(&received.path, status, answer.body()));
    let mut headers = Vec::new();
    for name in ["content-type", "etag", "retry-after"] {
        if let Some(value) = answer.headers().get(name) {
            headers.push((name, value.to_str().unwrap()));
        }
    }
    (
        http::answer(status, &headers, answer.body().clone()),
        checked,
    )
}
