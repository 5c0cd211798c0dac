//! The vendor's SDK as a reader, and a writer, of the same Redis: the programs in `tests/sdk/`. What they
//! read and write is described at the top of each.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::{Redis, repo, tool};

const TIMEOUT: Duration = Duration::from_secs(30);

/// The key that the programs present.
pub const KEY: &str = "server-test-key";

/// Asks the SDK and gives its answers, in the order of the queries. A query is
/// `{"method": "getBooleanEntitlement", "args": {..}}`, or has a list of plain arguments in `args`.
pub async fn ask(redis: &Redis, prefix: &str, edge_url: &str, queries: &[Value]) -> Vec<Value> {
    let question = json!({"redis": place(redis, prefix), "edgeUrl": edge_url, "queries": queries});
    answers(run("reader.mjs", &question).await)
}

/// The same without a Redis: the SDK asks `edge_url`, for its configuration too.
pub async fn ask_without_redis(edge_url: &str, queries: &[Value]) -> Vec<Value> {
    let question = json!({"edgeUrl": edge_url, "remoteConfig": true, "queries": queries});
    answers(run("reader.mjs", &question).await)
}

fn answers(mut answer: Value) -> Vec<Value> {
    match answer["answers"].take() {
        Value::Array(answers) => answers,
        other => panic!("the reader gave no list of answers but {other}"),
    }
}

/// The same of SDK 4.55.0, whose missing modules `standin.cjs` stands in for: each answer is what the SDK found in Redis,
/// as `found`, `usage` and `accessDeniedReason`.
pub async fn ask_4(redis: &Redis, prefix: &str, edge_url: &str, queries: &[Value]) -> Vec<Value> {
    let question = json!({"redis": place(redis, prefix), "edgeUrl": edge_url, "queries": queries});
    let running = Running::start_with("reader.mjs", &question, Sdk::Four).await;
    answers(running.finish().await)
}

/// The same without a Redis.
pub async fn ask_4_without_redis(edge_url: &str, queries: &[Value]) -> Vec<Value> {
    let question = json!({"edgeUrl": edge_url, "remoteConfig": true, "queries": queries});
    let running = Running::start_with("reader.mjs", &question, Sdk::Four).await;
    answers(running.finish().await)
}

#[derive(Clone, Copy)]
enum Sdk {
    Three,
    Four,
}

/// The `redis` part of a program's input.
pub fn place(redis: &Redis, prefix: &str) -> Value {
    json!({"host": "127.0.0.1", "port": redis.port(), "db": 0, "environmentPrefix": prefix})
}

/// Runs one of the programs and gives the last line that it prints.
pub async fn run(program: &str, input: &Value) -> Value {
    Running::start(program, input).await.finish().await
}

/// One of the programs on its way; for `lock.mjs`, which says when it holds the lock.
pub struct Running {
    program: String,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    pub async fn start(program: &str, input: &Value) -> Running {
        Running::start_with(program, input, Sdk::Three).await
    }

    async fn start_with(program: &str, input: &Value, version: Sdk) -> Running {
        let sdk = tool("sdk");
        let mut node = Command::new("node");
        match version {
            Sdk::Three => node.env("ENTITLEMENT_SYNC_SDK_DIR", &sdk),
            // What it depends on is taken from where the other one has it.
            Sdk::Four => node
                .arg("--require")
                .arg(repo("tests/sdk/standin.cjs"))
                .env("ENTITLEMENT_SYNC_SDK_DIR", tool("sdk4")),
        };
        // Its stderr is the test's own, which is shown when the test fails.
        let mut child = node
            .arg(repo("tests/sdk").join(program))
            .env("NODE_PATH", sdk.join("node_modules"))
            .current_dir(&sdk)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start node: {error}"));
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.to_string().as_bytes()).await.unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Running {
            program: program.to_owned(),
            child,
            lines,
        }
    }

    /// The next line that it prints; `None` after its last.
    pub async fn line(&mut self) -> Option<String> {
        let line = timeout(TIMEOUT, self.lines.next_line()).await;
        line.unwrap_or_else(|_| panic!("{} has printed nothing in {TIMEOUT:?}", self.program))
            .unwrap()
    }

    /// Waits for its end and gives its last line.
    pub async fn finish(mut self) -> Value {
        let mut last = String::new();
        while let Some(line) = self.line().await {
            last = line;
        }
        let ended = timeout(TIMEOUT, self.child.wait()).await;
        let status = ended
            .unwrap_or_else(|_| panic!("{} does not end", self.program))
            .unwrap();
        assert!(
            status.success(),
            "{} failed with {status}: {last}",
            self.program
        );
        serde_json::from_str(&last)
            .unwrap_or_else(|error| panic!("{}: {error} in {last:?}", self.program))
    }
}
