//! Asks both processes at a steady rate, over connections that are kept.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use testkit::reader::KEY;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::load::{VERSION, id_of};

/// Connections to each process.
const CONNECTIONS: usize = 2;

/// Quantity was answered.
#[derive(Debug, Default)]
pub struct Asked {
    pub right: u64,
    /// Answers with another status than 200, and connections that broke.
    pub failed: u64,
    /// Answers that are older than an earlier answer on the same connection.
    pub went_back: u64,
    /// Microseconds, sorted by [`Asked::sort`].
    took: Vec<u32>,
}

impl Asked {
    fn add(&mut self, other: Asked) {
        self.right += other.right;
        self.failed += other.failed;
        self.went_back += other.went_back;
        self.took.extend(other.took);
    }

    /// In milliseconds.
    pub fn quantile(&self, share: f64) -> f64 {
        let last = self.took.len().saturating_sub(1);
        let place = (last as f64 * share).round() as usize;
        f64::from(self.took.get(place).copied().unwrap_or_default()) / 1e3
    }
}

pub struct Questions {
    askers: JoinSet<Asked>,
}

impl Questions {
    pub fn start(
        ports: &[u16],
        rate: u64,
        customers: usize,
        over: &CancellationToken,
    ) -> Questions {
        let mut askers = JoinSet::new();
        let connections = ports.len() * CONNECTIONS;
        let distance = Duration::from_secs_f64(connections as f64 / rate as f64);
        for (number, port) in ports.repeat(CONNECTIONS).into_iter().enumerate() {
            let rng = Rng::with_seed(number as u64);
            askers.spawn(ask_steadily(port, distance, customers, rng, over.clone()));
        }
        Questions { askers }
    }

    pub async fn end(mut self) -> Asked {
        let mut all = Asked::default();
        while let Some(asked) = self.askers.join_next().await {
            all.add(asked.unwrap());
        }
        all.took.sort_unstable();
        all
    }
}

/// In both forms, once for each customer.
pub async fn ask_about_all(port: u16, customers: usize) {
    let mut client = Client::connect(port).await;
    for customer in 0..customers {
        let id = id_of(customer);
        assert!(client.version_in_list(&id).await.is_some(), "{id}");
        assert!(client.version_by_flag(&id).await.is_some(), "{id}");
    }
}

async fn ask_steadily(
    port: u16,
    distance: Duration,
    customers: usize,
    mut rng: Rng,
    over: CancellationToken,
) -> Asked {
    let mut asked = Asked::default();
    let mut last: BTreeMap<usize, u64> = BTreeMap::new();
    let mut client = Client::connect(port).await;
    let mut ticks = tokio::time::interval(distance);
    loop {
        tokio::select! {
            _ = over.cancelled() => return asked,
            _ = ticks.tick() => {}
        }
        let customer = rng.usize(..customers);
        let began = Instant::now();
        let version = match rng.bool() {
            true => client.version_in_list(&id_of(customer)).await,
            false => client.version_by_flag(&id_of(customer)).await,
        };
        asked.took.push(began.elapsed().as_micros() as u32);
        match version {
            None => {
                asked.failed += 1;
                client = Client::connect(port).await;
            }
            Some(version) => {
                asked.right += 1;
                let before = last.insert(customer, version);
                asked.went_back += u64::from(before > Some(version));
            }
        }
    }
}

/// One connection.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    pub async fn connect(port: u16) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Client { sender }
    }

    /// The entitlements of a customer, by feature.
    pub async fn list(&mut self, customer: &str) -> Option<Vec<Value>> {
        let request =
            Request::get(format!("/v1/c/{customer}/entitlements.json")).body(Full::default());
        let answer = self.ask(request).await?;
        answer["data"]["entitlements"].as_array().cloned()
    }

    async fn version_in_list(&mut self, customer: &str) -> Option<u64> {
        let list = self.list(customer).await?;
        let of = |it: &&Value| it["feature"]["refId"] == VERSION;
        list.iter().find(of)?["usageLimit"].as_u64()
    }

    pub async fn version_by_flag(&mut self, customer: &str) -> Option<u64> {
        let context = json!({"context": {"targetingKey": customer}}).to_string();
        let path = format!("/ofrep/v1/evaluate/flags/{VERSION}%40limit");
        let request = Request::post(path).header("content-type", "application/json");
        let answer = self.ask(request.body(Full::from(context))).await?;
        answer["value"].as_u64()
    }

    /// The body of an answer with status 200.
    async fn ask(&mut self, request: hyper::http::Result<Request<Full<Bytes>>>) -> Option<Value> {
        let mut request = request.unwrap();
        for (name, value) in [("host", "localhost"), ("x-api-key", KEY)] {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        self.sender.ready().await.ok()?;
        let answer = self.sender.send_request(request).await.ok()?;
        let is_ok = answer.status() == 200;
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        serde_json::from_slice(&body).ok().filter(|_| is_ok)
    }
}
