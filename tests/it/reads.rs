//! Questions asked of `serve`, and of the worker with `READ_PORT`.

mod away;
mod bounds;
mod clients;
mod closed;
mod forwarded;
mod fresh;
mod headers;
mod openfeature;
mod rules;
mod sdk;
mod settings;
mod stampede;
mod status;
mod stored;
mod unknown;
mod validators;

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use testkit::events::entitlements;
use testkit::http::Reply;
use testkit::reader::KEY;
use testkit::{Answer, EdgeMock, Reader, Redis};

/// For what has no limit of its own.
const SOON: Duration = Duration::from_secs(60);

/// One connection that is kept.
struct Client {
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    async fn connect(port: u16) -> Client {
        Client::try_connect(port).await.unwrap()
    }

    async fn try_connect(port: u16) -> Result<Client, String> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        Ok(Client { sender })
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Reply, String> {
        let told = |error: hyper::Error| error.to_string();
        self.sender.ready().await.map_err(told)?;
        let answer = self.sender.send_request(request).await.map_err(told)?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.map_err(told)?.to_bytes();
        Ok(Reply {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    /// `GET` with the key.
    async fn get(&mut self, path: &str) -> Reply {
        let request = Request::get(path)
            .header("host", "localhost")
            .header("x-api-key", KEY)
            .body(Full::default())
            .unwrap();
        self.send(request).await.unwrap()
    }
}

/// Where the entitlements of a customer are asked for, here and at the Edge API.
fn path(customer: &str) -> String {
    format!("/v1/c/{customer}/entitlements.json")
}

/// The feature whose limit tells which state is answered.
const VERSION: &str = "version";

/// What the Edge API answers.
fn listed(version: u64, at: &str) -> Answer {
    Answer::json(
        200,
        &json!({"data": {"entitlements": [{"__typename": "Entitlement", "isGranted": true, "usageLimit": version,
            "hasUnlimitedUsage": false, "hasSoftLimit": false, "currentUsage": null, "entitlementUpdatedAt": at,
            "feature": {"refId": VERSION, "featureType": "NUMBER", "meterType": "None"}}]}}),
    )
}

const UPDATED: &str = "2025-11-14T19:59:45.133Z";
const UPDATED_MS: u64 = 1_763_150_385_133;

fn entitlement(feature: &str, kind: &str, limit: Option<u64>) -> Value {
    json!({"calculatedEntitlement": {"feature": {"id": feature, "featureType": kind, "meterType": "None",
            "units": "", "unitsPlural": ""}, "usageLimit": limit, "hasUnlimitedUsage": false, "hasSoftLimit": false,
            "enumValues": []},
        "featureUsage": {"resetPeriod": null, "resetPeriodConfiguration": null, "currentUsage": 0}})
}

/// What Redis holds of a customer at this version.
fn map(version: u64) -> Value {
    json!({VERSION: entitlement(VERSION, "NUMBER", Some(version))})
}

/// Writes the state of a customer as the worker does: value and time at once.
fn store(redis: &Redis, customer: &str, map: &Value, at: u64) {
    let key = format!("production:c_{customer}");
    let (time, at, map) = (format!("{key}#timestamp"), at.to_string(), map.to_string());
    redis.cmd(&["MSET", &key, &map, &time, &at]);
}

/// The same as an event.
fn event(customer: &str, version: u64) -> String {
    let entitlement = json!({"usageLimit": version, "feature": {"id": VERSION, "featureType": "NUMBER", "meterType": "None"}});
    entitlements((customer, None), UPDATED_MS + version, &[entitlement])
}

/// The version that an answer holds.
fn version(reply: &Reply) -> Option<u64> {
    let list = reply.json()["data"]["entitlements"].clone();
    let list = list.as_array()?;
    let of = |it: &&Value| it["feature"]["refId"] == VERSION;
    list.iter().find(of)?["usageLimit"].as_u64()
}

fn context(customer: &str) -> Value {
    json!({"targetingKey": customer})
}

/// A reader with this `CACHE_UPDATE_POLICY`, and its sources.
async fn with_policy(policy: &str) -> (Redis, EdgeMock, Reader) {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let reader = Reader::builder(&redis, &edge.url())
        .env("CACHE_UPDATE_POLICY", policy)
        .start()
        .await;
    (redis, edge, reader)
}
