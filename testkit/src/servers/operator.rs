//! The commands of an operator, as a person or a script calls them.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use super::{Redis, TestQueue, program};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Variables of an operator's shell; nothing of ours is in it.
#[derive(Clone)]
pub struct Operator {
    env: BTreeMap<String, String>,
}

/// What came of a command.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    /// The one document on standard output.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Operator {
    pub fn of(redis: &Redis) -> Operator {
        let env = BTreeMap::new();
        Operator { env }
            .env("REDIS_HOST", "127.0.0.1")
            .env("REDIS_PORT", redis.port())
    }

    /// Of a process without a Redis.
    pub fn in_memory() -> Operator {
        let env = BTreeMap::new();
        Operator { env }
            .env("STORE", "memory")
            .env("READ_PORT", super::free_port())
    }

    #[must_use]
    pub fn queue(self, queue: &TestQueue) -> Operator {
        self.sqs().env("QUEUE_URL", &queue.url)
    }

    /// May speak to SQS, of whichever queue.
    #[must_use]
    pub fn sqs(self) -> Operator {
        self.env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_EC2_METADATA_DISABLED", "true")
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl ToString) -> Operator {
        self.env.insert(name.to_owned(), value.to_string());
        self
    }

    #[must_use]
    pub fn unset(mut self, name: &str) -> Operator {
        self.env.remove(name);
        self
    }

    /// Runs a command to its end.
    pub async fn run(&self, arguments: &[&str]) -> Done {
        self.run_with(arguments, "").await
    }

    /// With something on its standard input.
    pub async fn run_with(&self, arguments: &[&str], stdin: &str) -> Done {
        let folder = TempDir::new().unwrap();
        let mut child = self.command(arguments, &folder).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        // A command that reads nothing may be gone already.
        let _ = input.write_all(stdin.as_bytes()).await;
        drop(input);
        let output = tokio::time::timeout(TIMEOUT, child.wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("{arguments:?} does not end"));
        let output = output.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let done = Done {
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        };
        assert!(
            !done.stdout.contains('\x1b') && !done.stderr.contains('\x1b'),
            "colours where no terminal is: {done:?}"
        );
        assert!(!done.stderr.contains("panicked"), "{done:?}");
        done
    }

    /// Runs a command, and gives it while it runs.
    pub fn start(&self, arguments: &[&str]) -> (Child, TempDir) {
        let folder = TempDir::new().unwrap();
        (self.command(arguments, &folder).spawn().unwrap(), folder)
    }

    fn command(&self, arguments: &[&str], folder: &TempDir) -> Command {
        let mut command = Command::new(program());
        command
            .args(arguments)
            .env_clear()
            // The process must find no profile of the user who runs the tests.
            .env("HOME", folder.path())
            .envs(&self.env)
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}
