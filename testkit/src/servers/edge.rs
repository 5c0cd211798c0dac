//! An HTTP server with canned answers that remembers what it was asked: the Edge API, or a Sentry, or a witness that
//! no client called at all.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;

use super::http::{self, Outcome, Received, Server};

pub struct EdgeMock {
    server: Server,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    answers: HashMap<String, VecDeque<Answer>>,
    received: Vec<Received>,
}

impl EdgeMock {
    /// Until told otherwise it takes Sentry's envelopes, and answers 404 to anything else.
    pub async fn start() -> EdgeMock {
        let state = Arc::new(Mutex::new(State::default()));
        let server = Server::start({
            let state = state.clone();
            move |request| {
                let state = state.clone();
                async move {
                    // Bound first: the lock must not be held while the answer is on its way.
                    let answer = lock(&state).take(request);
                    answer.give().await
                }
            }
        })
        .await;
        EdgeMock { server, state }
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    /// A DSN whose events arrive here.
    pub fn sentry_dsn(&self) -> String {
        format!("http://public@127.0.0.1:{}/1", self.server.port)
    }

    /// Answers a path, whatever its query, from now on; or, with its query, this one alone.
    pub fn answer(&self, path: &str, answer: Answer) {
        self.answer_in_turn(path, [answer]);
    }

    /// Answers a path by one after the other, and then by the last one for good.
    pub fn answer_in_turn(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        lock(&self.state)
            .answers
            .insert(path.to_owned(), answers.into_iter().collect());
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Received> {
        lock(&self.state).received.clone()
    }

    /// The requests so far whose path starts with `path`.
    pub fn requests_to(&self, path: &str) -> Vec<Received> {
        let mut requests = self.requests();
        requests.retain(|request| request.path.starts_with(path));
        requests
    }

    pub fn count(&self) -> usize {
        lock(&self.state).received.len()
    }

    /// The bodies that came to Sentry's endpoint.
    pub fn envelopes(&self) -> Vec<String> {
        let mut requests = self.requests();
        requests.retain(|request| is_envelope(&request.path));
        requests.iter().map(Received::text).collect()
    }
}

impl State {
    fn take(&mut self, request: Received) -> Answer {
        let exact = format!("{}?{}", request.path, request.query);
        let known = match self.answers.contains_key(&exact) {
            true => &exact,
            false => &request.path,
        };
        let answer = match self.answers.get_mut(known) {
            Some(answers) if answers.len() > 1 => answers.pop_front(),
            Some(answers) => answers.front().cloned(),
            None => None,
        };
        let answer = answer.unwrap_or_else(|| {
            let status = if is_envelope(&request.path) { 200 } else { 404 };
            Answer::text(status, "{}").header("content-type", "application/json")
        });
        self.received.push(request);
        answer
    }
}

fn is_envelope(path: &str) -> bool {
    path.starts_with("/api/") && path.ends_with("/envelope/")
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[derive(Clone)]
pub struct Answer {
    delay: Duration,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Reply {
        status: u16,
        headers: Vec<(String, String)>,
        body: String,
    },
    Close,
    Hang,
}

impl Answer {
    pub fn json(status: u16, body: &Value) -> Answer {
        Answer::text(status, &body.to_string()).header("content-type", "application/json")
    }

    pub fn text(status: u16, body: &str) -> Answer {
        Answer::of(Kind::Reply {
            status,
            headers: Vec::new(),
            body: body.to_owned(),
        })
    }

    /// Ends the connection without an answer.
    pub fn close() -> Answer {
        Answer::of(Kind::Close)
    }

    /// Never answers.
    pub fn hang() -> Answer {
        Answer::of(Kind::Hang)
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Answer {
        if let Kind::Reply { headers, .. } = &mut self.kind {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Takes that long first.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Answer {
        self.delay = delay;
        self
    }

    fn of(kind: Kind) -> Answer {
        Answer {
            delay: Duration::ZERO,
            kind,
        }
    }

    async fn give(self) -> Outcome {
        tokio::time::sleep(self.delay).await;
        match self.kind {
            Kind::Reply {
                status,
                headers,
                body,
            } => {
                let headers: Vec<(&str, &str)> = headers
                    .iter()
                    .map(|(n, v)| (n.as_str(), v.as_str()))
                    .collect();
                http::answer(status, &headers, body)
            }
            Kind::Close => Outcome::Close,
            Kind::Hang => std::future::pending().await,
        }
    }
}
