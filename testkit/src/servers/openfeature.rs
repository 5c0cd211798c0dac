//! Clients of OpenFeature's remote evaluation protocol that others wrote: the programs in `tests/openfeature/`.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::{repo, tool};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    Node,
    Python,
    Rust,
}

pub const CLIENTS: [Client; 3] = [Client::Node, Client::Python, Client::Rust];

const TIMEOUT: Duration = Duration::from_secs(60);

impl Client {
    fn command(self) -> Command {
        let tools = tool("openfeature");
        let of = |program: &str, script: &str| {
            let mut command = Command::new(program);
            command.arg(repo("tests/openfeature").join(script));
            command
        };
        let mut command = match self {
            Client::Node => of("node", "client.mjs"),
            Client::Python => of(&tools.join("py/bin/python").to_string_lossy(), "client.py"),
            Client::Rust => Command::new(tools.join("bin/openfeature-client")),
        };
        for proxy in ["http_proxy", "https_proxy", "all_proxy"] {
            command.env_remove(proxy).env_remove(proxy.to_uppercase());
        }
        command.env("OPENFEATURE_DIR", tools);
        command
    }

    /// Its answers to `{"type", "flag", "default", "context"}`, in their order.
    pub async fn ask(self, url: &str, key: &str, questions: &[Value]) -> Vec<Value> {
        let asked = json!({"url": url, "key": key, "questions": questions});
        match self.run(&asked).await["answers"].take() {
            Value::Array(answers) => answers,
            other => panic!("{self:?} gave no list of answers but {other}"),
        }
    }

    pub async fn run(self, asked: &Value) -> Value {
        let mut child = self
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {self:?}: {error}"));
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(asked.to_string().as_bytes()).await.unwrap();
        drop(stdin);
        let output = timeout(TIMEOUT, child.wait_with_output()).await;
        let output = output
            .unwrap_or_else(|_| panic!("{self:?} does not end"))
            .unwrap();
        assert!(output.status.success(), "{self:?}: {}", output.status);
        serde_json::from_slice(&output.stdout).unwrap()
    }
}
