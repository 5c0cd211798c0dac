//! Everything around one worker with a hand on each link: Redis behind a TCP proxy, the queue behind a proxy that fails
//! on demand, and long polls as SQS has them.

use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use hyper::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use serde_json::Value;
use tokio::time::Instant;

use testkit::events;
use testkit::http::{self, Outcome, Received, Server};
use testkit::worker::Builder;
use testkit::{FaultProxy, Redis, Sqs, TcpProxy, TestQueue, Worker, until};

/// What the issue allows Redis to be gone before receiving stops, and to be back before it goes on.
pub const TWO_SECS: Duration = Duration::from_secs(2);
/// For what has no limit of its own.
pub const SOON: Duration = Duration::from_secs(20);

pub struct Stand {
    pub redis: Redis,
    /// Between the worker and Redis.
    pub link: TcpProxy,
    pub queue: TestQueue,
    /// Between the worker and the queue.
    pub calls: FaultProxy,
    _polls: Server,
    _sqs: Sqs,
}

impl Stand {
    pub async fn start() -> Stand {
        Stand::start_with(&[], &[]).await
    }

    /// With options for redis-server and attributes of the queue.
    pub async fn start_with(redis: &[&str], queue: &[(&str, &str)]) -> Stand {
        let (redis, sqs) = tokio::join!(Redis::start_with(redis), Sqs::start());
        let polls = honest_polls(sqs.endpoint()).await;
        Stand {
            link: TcpProxy::start(redis.port()).await,
            queue: sqs.queue_with("q", queue).await,
            calls: FaultProxy::start(&polls.url()).await,
            redis,
            _polls: polls,
            _sqs: sqs,
        }
    }

    /// A worker between the proxies.
    pub fn worker(&self) -> Builder {
        Worker::builder(&self.redis, &self.queue)
            .redis_port(self.link.port())
            .endpoint(self.calls.url())
            // All of them, so that what polls can be counted.
            .env("MIN_POLLERS", 2)
    }

    /// Sends the state of a customer at a time.
    pub async fn send(&self, customer: &str, at: u64) {
        self.queue.send(&state(customer, at)).await;
    }

    /// Whether Redis holds what `send` sent, whole.
    pub fn holds(&self, customer: &str, at: u64) -> bool {
        let key = format!("production:c_{customer}");
        let found = |key: &str| self.redis.get(key).unwrap_or_default();
        found(&key) == "{}"
            && found(&format!("{key}#timestamp")) == at.to_string()
            && found(&format!("{key}:metadata")) == reason(at)
            && found(&format!("{key}:metadata#timestamp")) == at.to_string()
    }

    /// Sends the state of a customer and waits until Redis holds it.
    pub async fn applies(&self, customer: &str, at: u64, timeout: Duration) {
        self.send(customer, at).await;
        until(
            &format!("the state of {customer} is in Redis"),
            timeout,
            async || self.holds(customer, at),
        )
        .await;
    }

    /// Receives under way.
    pub fn polls(&self) -> usize {
        self.calls.open("ReceiveMessage")
    }

    /// Waits until that many consumers wait for messages.
    pub async fn wait_polls(&self, count: usize) {
        until("the consumers poll", SOON, async || self.polls() == count).await;
    }

    /// Starts a second worker beside the faults: it must find all that is left, and nothing may be lost.
    pub async fn is_finished_by_another(&self, customers: &[(&str, u64)]) {
        let another = Worker::builder(&self.redis, &self.queue).start().await;
        self.queue.wait_empty(Duration::from_secs(60)).await;
        for (customer, at) in customers {
            assert!(self.holds(customer, *at), "{customer} is lost");
        }
        drop(another);
    }
}

pub fn state(customer: &str, at: u64) -> String {
    events::denied((customer, None), &format!("Reason{at}"), at)
}

fn reason(at: u64) -> String {
    format!(r#"{{"accessDeniedReason":"Reason{at}"}}"#)
}

/// A server in front of the local SQS that holds the long polls itself, by asking again and again: the local server
/// hands messages to polls whose client has gone, and SQS does not.
async fn honest_polls(endpoint: &str) -> Server {
    let target = endpoint.rsplit_once(':').unwrap().1.parse().unwrap();
    Server::start(move |request| poll(request, target)).await
}

async fn poll(request: Received, target: u16) -> Outcome {
    // Whoever only knocks sends none.
    let mut call: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let is_receive = request.header("x-amz-target").ends_with(".ReceiveMessage");
    let wait = call["WaitTimeSeconds"].as_u64().unwrap_or(0);
    if is_receive {
        call["WaitTimeSeconds"] = 0.into();
    }
    let deadline = Instant::now() + Duration::from_secs(wait);
    loop {
        let mut onward = Request::builder()
            .method(request.method.as_str())
            .uri(&request.path)
            .body(Full::new(match is_receive {
                true => call.to_string().into(),
                false => request.body.clone(),
            }))
            .unwrap();
        *onward.headers_mut() = request.headers.clone();
        onward.headers_mut().remove(CONTENT_LENGTH);
        onward.headers_mut().remove(TRANSFER_ENCODING);
        let Ok(mut response) = http::send(target, onward).await else {
            return Outcome::Close;
        };
        let answer: Value = serde_json::from_slice(response.body()).unwrap_or_default();
        let is_empty =
            response.status() == 200 && answer["Messages"].as_array().is_none_or(Vec::is_empty);
        if !is_receive || !is_empty || Instant::now() >= deadline {
            response.headers_mut().remove(CONTENT_LENGTH);
            response.headers_mut().remove(TRANSFER_ENCODING);
            return Outcome::Answer(response.map(Full::new));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
