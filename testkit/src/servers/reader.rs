//! The binary under test as `serve`: a process that answers questions on its `READ_PORT`.

use std::ops::Deref;
use std::time::Duration;

use serde_json::Value;

use super::http::{self, Reply};
use super::{Redis, Worker, free_port, until, worker};

/// The key that readers present, unless a test says otherwise.
pub const KEY: &str = "test-key";

pub struct Reader {
    process: Worker,
    port: u16,
}

#[derive(Clone)]
pub struct Builder {
    process: worker::Builder,
}

impl Reader {
    /// Answers from a Redis and an Edge API.
    pub fn builder(redis: &Redis, edge_url: &str) -> Builder {
        let process = worker::Builder::of_command(&["serve"], redis);
        Builder { process }.env("EDGE_API_URL", edge_url)
    }
}

impl Builder {
    #[must_use]
    pub fn env(self, name: &str, value: impl ToString) -> Builder {
        let process = self.process.env(name, value);
        Builder { process }
    }

    #[must_use]
    pub fn unset(self, name: &str) -> Builder {
        let process = self.process.unset(name);
        Builder { process }
    }

    /// By way of a `TcpProxy`, for instance.
    #[must_use]
    pub fn redis_port(self, port: u16) -> Builder {
        self.env("REDIS_PORT", port)
    }

    /// Starts the process, and does not wait for it.
    pub fn spawn(&self) -> Reader {
        let port = match self.process.get("READ_PORT") {
            "" => free_port(),
            port => port.parse().unwrap(),
        };
        Reader {
            process: self.process.clone().env("READ_PORT", port).spawn(),
            port,
        }
    }

    /// Starts the process and waits until it can ask its Redis.
    pub async fn start(&self) -> Reader {
        let reader = self.spawn();
        reader.wait_redis("CONNECTED").await;
        reader
    }
}

impl Reader {
    /// The process alone.
    pub fn into_process(self) -> Worker {
        self.process
    }

    /// The port of the read API; `port` is the one of the probes.
    pub fn read_port(&self) -> u16 {
        self.port
    }

    /// What an SDK or a provider is pointed at.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// `GET` on the read API with the key.
    pub async fn get(&self, path: &str) -> Reply {
        self.ask(("GET", path), &[("x-api-key", KEY)], "").await
    }

    /// `POST` of a JSON body on the read API with the key.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        let headers = [("x-api-key", KEY), ("content-type", "application/json")];
        self.ask(("POST", path), &headers, &body.to_string()).await
    }

    /// A request on the read API with no other headers than these.
    pub async fn ask(&self, what: (&str, &str), headers: &[(&str, &str)], body: &str) -> Reply {
        http::request(self.port, what, headers, body)
            .await
            .unwrap_or_else(|error| panic!("{} {}: {error}", what.0, what.1))
    }

    /// Evaluates one flag of the remote evaluation protocol.
    pub async fn flag(&self, key: &str, context: &Value) -> Reply {
        let key = percent_encoding::utf8_percent_encode(key, percent_encoding::NON_ALPHANUMERIC);
        let path = format!("/ofrep/v1/evaluate/flags/{key}");
        self.post(&path, &serde_json::json!({ "context": context }))
            .await
    }

    /// Waits until `/readyz` of the read API has this word for Redis: `CONNECTED` or `DISCONNECTED`.
    pub async fn wait_redis(&self, word: &str) {
        let what = format!("Redis is {word} to the reader");
        until(&what, Duration::from_secs(20), async || {
            if let Some(code) = self.process.exit_code() {
                panic!("serve ended with code {code}:\n{}", self.logs());
            }
            match http::get(self.port, "/readyz").await {
                Ok(reply) => reply.json()["redis"] == word,
                Err(_) => false,
            }
        })
        .await;
    }
}

/// Its logs, metrics and signals are those of any process of ours.
impl Deref for Reader {
    type Target = Worker;

    fn deref(&self) -> &Worker {
        &self.process
    }
}
