//! An HTTP proxy in front of an SQS server that fails on demand, as no local SQS does by itself: throttling, server
//! errors, half-failed batches, answers that get lost.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use hyper::{Request, Response};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::TestQueue;
use super::http::{self, Outcome, Received, Server};

pub struct FaultProxy {
    server: Server,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// By action. The first rule applies until it is used up.
    rules: HashMap<String, VecDeque<Rule>>,
    /// How far the clock that answers show is ahead.
    skew_secs: i64,
    received: Vec<(String, Received)>,
    open: HashMap<String, usize>,
}

struct Rule {
    fault: Fault,
    /// `None`: until it is cleared.
    left: Option<usize>,
}

impl FaultProxy {
    /// A proxy to the server at `endpoint`, such as `http://127.0.0.1:4566`, that passes everything on for now.
    pub async fn start(endpoint: &str) -> FaultProxy {
        let target = endpoint
            .trim_end_matches('/')
            .rsplit_once(':')
            .unwrap()
            .1
            .parse()
            .unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let server = Server::start({
            let state = state.clone();
            move |request| handle(request, target, state.clone())
        })
        .await;
        FaultProxy { server, state }
    }

    /// Its address, for `Worker::builder(..).endpoint(..)`.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The URL of a queue by way of this proxy.
    pub fn queue_url(&self, queue: &TestQueue) -> String {
        let path = queue.url.splitn(4, '/').nth(3).unwrap();
        format!("{}/{path}", self.url())
    }

    /// Applies a fault to the next call of an action, such as `ReceiveMessage`; after the faults already set for it.
    pub fn once(&self, action: &str, fault: Fault) {
        self.times(action, 1, fault);
    }

    pub fn times(&self, action: &str, count: usize, fault: Fault) {
        self.add(
            action,
            Rule {
                fault,
                left: Some(count),
            },
        );
    }

    /// Applies a fault to every call of an action, until `clear`.
    pub fn always(&self, action: &str, fault: Fault) {
        self.add(action, Rule { fault, left: None });
    }

    /// Ends the faults of an action. Calls that hang go on hanging, until their client gives up.
    pub fn clear(&self, action: &str) {
        lock(&self.state).rules.remove(action);
    }

    pub fn clear_all(&self) {
        lock(&self.state).rules.clear();
    }

    /// Every answer from now on has a `Date` that is off by that much.
    pub fn skew(&self, secs: i64) {
        lock(&self.state).skew_secs = secs;
    }

    /// How many calls of an action came in, those that met a fault too.
    pub fn calls(&self, action: &str) -> usize {
        lock(&self.state)
            .received
            .iter()
            .filter(|(of, _)| of == action)
            .count()
    }

    /// The bodies of the calls of an action.
    pub fn bodies(&self, action: &str) -> Vec<Value> {
        self.requests(action).iter().map(Received::json).collect()
    }

    /// The calls of an action, with their headers and times.
    pub fn requests(&self, action: &str) -> Vec<Received> {
        let state = lock(&self.state);
        state
            .received
            .iter()
            .filter(|(of, _)| of == action)
            .map(|(_, request)| request.clone())
            .collect()
    }

    /// How many calls of an action wait for their answer now.
    pub fn open(&self, action: &str) -> usize {
        lock(&self.state)
            .open
            .get(action)
            .copied()
            .unwrap_or_default()
    }

    fn add(&self, action: &str, rule: Rule) {
        lock(&self.state)
            .rules
            .entry(action.to_owned())
            .or_default()
            .push_back(rule);
    }
}

#[derive(Clone, Debug)]
pub enum Fault {
    /// Answers by itself. The code is what SQS says in the header `x-amzn-query-error`.
    Answer {
        status: u16,
        code: &'static str,
        body: String,
    },
    /// Never answers.
    Hang,
    /// Resets the connection before the call reaches the server.
    Reset,
    /// Passes the call on, and then closes the connection instead of answering.
    LoseAnswer,
    /// Passes the call on after that long.
    Delay(Duration),
    /// Passes a batch call on without some of its entries, and says that those failed.
    FailEntries { which: Matching, sender_fault: bool },
}

#[derive(Clone, Debug)]
pub enum Matching {
    All,
    /// By position in the call, from 0.
    At(Vec<usize>),
}

impl Fault {
    pub fn throttle() -> Fault {
        Fault::error(
            400,
            "RequestThrottled;Sender",
            "com.amazonaws.sqs#RequestThrottled",
            "Rate exceeded.",
        )
    }

    pub fn server_error() -> Fault {
        let kind = "com.amazonaws.sqs#InternalFailure";
        Fault::error(
            500,
            "InternalFailure;Receiver",
            kind,
            "We encountered an internal error. Please try again.",
        )
    }

    pub fn expired_token() -> Fault {
        let kind = "com.amazon.coral.service#ExpiredTokenException";
        Fault::error(
            403,
            "ExpiredToken;Sender",
            kind,
            "The security token included in the request is expired",
        )
    }

    pub fn access_denied() -> Fault {
        let kind = "com.amazon.coral.service#AccessDeniedException";
        Fault::error(
            403,
            "AccessDenied;Sender",
            kind,
            "Access to the resource is denied.",
        )
    }

    pub fn no_such_queue() -> Fault {
        let code = "AWS.SimpleQueueService.NonExistentQueue;Sender";
        Fault::error(
            400,
            code,
            "com.amazonaws.sqs#QueueDoesNotExist",
            "The specified queue does not exist.",
        )
    }

    /// A success by its status, and no JSON.
    pub fn malformed() -> Fault {
        Fault::Answer {
            status: 200,
            code: "",
            body: r#"{"Messages": [{"#.to_owned(),
        }
    }

    pub fn fail_entries(positions: &[usize], sender_fault: bool) -> Fault {
        Fault::FailEntries {
            which: Matching::At(positions.to_vec()),
            sender_fault,
        }
    }

    pub fn fail_all_entries(sender_fault: bool) -> Fault {
        Fault::FailEntries {
            which: Matching::All,
            sender_fault,
        }
    }

    fn error(status: u16, code: &'static str, kind: &str, message: &str) -> Fault {
        Fault::Answer {
            status,
            code,
            body: json!({"__type": kind, "message": message}).to_string(),
        }
    }
}

async fn handle(request: Received, target: u16, state: Arc<Mutex<State>>) -> Outcome {
    let action = request
        .header("x-amz-target")
        .rsplit('.')
        .next()
        .unwrap_or_default()
        .to_owned();
    let fault = lock(&state).take(&action, &request);
    let skew_secs = lock(&state).skew_secs;
    let _open = Open::new(action, state);
    let mut outcome = fail(request, target, fault).await;
    if let Outcome::Answer(answer) = &mut outcome
        && skew_secs != 0
    {
        let date = OffsetDateTime::now_utc() + time::Duration::seconds(skew_secs);
        let date = date.format(&Rfc2822).unwrap().replace("+0000", "GMT");
        answer.headers_mut().insert(DATE, date.parse().unwrap());
    }
    outcome
}

async fn fail(request: Received, target: u16, fault: Option<Fault>) -> Outcome {
    match fault {
        None => forward(&request, target, request.body.clone()).await,
        Some(Fault::Answer { status, code, body }) => {
            let json = ("content-type", "application/x-amz-json-1.0");
            http::answer(
                status,
                &[json, ("x-amzn-query-error", code)][..if code.is_empty() { 1 } else { 2 }],
                body,
            )
        }
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Reset) => Outcome::Reset,
        Some(Fault::LoseAnswer) => {
            forward(&request, target, request.body.clone()).await;
            Outcome::Close
        }
        Some(Fault::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            forward(&request, target, request.body.clone()).await
        }
        Some(Fault::FailEntries {
            which,
            sender_fault,
        }) => fail_entries(&request, target, &which, sender_fault).await,
    }
}

async fn forward(request: &Received, target: u16, body: Bytes) -> Outcome {
    match exchange(request, target, body).await {
        Ok(response) => Outcome::Answer(response.map(Full::new)),
        Err(_) => Outcome::Close,
    }
}

async fn exchange(request: &Received, target: u16, body: Bytes) -> Result<Response<Bytes>, String> {
    let mut onward = Request::builder()
        .method(request.method.as_str())
        .uri(&request.path)
        .body(Full::new(body))
        .unwrap();
    *onward.headers_mut() = request.headers.clone();
    // hyper sets the length anew: the body may be another one.
    onward.headers_mut().remove(CONTENT_LENGTH);
    onward.headers_mut().remove(TRANSFER_ENCODING);
    let mut response = http::send(target, onward).await?;
    response.headers_mut().remove(CONTENT_LENGTH);
    response.headers_mut().remove(TRANSFER_ENCODING);
    Ok(response)
}

async fn fail_entries(
    request: &Received,
    target: u16,
    which: &Matching,
    sender_fault: bool,
) -> Outcome {
    let mut call = request.json();
    let entries = call["Entries"].as_array().cloned().unwrap_or_default();
    let (failed, passed): (Vec<_>, Vec<_>) =
        entries
            .into_iter()
            .enumerate()
            .partition(|(position, _)| match which {
                Matching::All => true,
                Matching::At(positions) => positions.contains(position),
            });
    let mut answer = json!({"Successful": []});
    if !passed.is_empty() {
        call["Entries"] = passed.into_iter().map(|(_, entry)| entry).collect();
        let Ok(response) = exchange(request, target, call.to_string().into()).await else {
            return Outcome::Close;
        };
        if response.status() != 200 {
            return Outcome::Answer(response.map(Full::new));
        }
        answer = serde_json::from_slice(response.body()).unwrap();
    }
    let code = if sender_fault {
        "ReceiptHandleIsInvalid"
    } else {
        "InternalError"
    };
    let failed = failed.into_iter().map(|(_, entry)| {
        json!({"Id": entry["Id"], "Code": code, "Message": "Failed by the test.", "SenderFault": sender_fault})
    });
    match &mut answer["Failed"] {
        Value::Array(already) => already.extend(failed),
        none => *none = failed.collect(),
    }
    http::answer(
        200,
        &[("content-type", "application/x-amz-json-1.0")],
        answer.to_string(),
    )
}

impl State {
    fn take(&mut self, action: &str, request: &Received) -> Option<Fault> {
        self.received.push((action.to_owned(), request.clone()));
        let rules = self.rules.get_mut(action)?;
        let rule = rules.front_mut()?;
        let fault = rule.fault.clone();
        if let Some(left) = &mut rule.left {
            *left -= 1;
            if *left == 0 {
                rules.pop_front();
            }
        }
        Some(fault)
    }
}

/// Counts a call for as long as it waits for its answer.
struct Open {
    action: String,
    state: Arc<Mutex<State>>,
}

impl Open {
    fn new(action: String, state: Arc<Mutex<State>>) -> Open {
        *lock(&state).open.entry(action.clone()).or_default() += 1;
        Open { action, state }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        *lock(&self.state)
            .open
            .entry(self.action.clone())
            .or_default() -= 1;
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
