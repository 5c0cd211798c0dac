//! The binary under test as a process of its own, started with a small environment and nothing of ours.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::http::{self, Reply};
use super::process::Process;
use super::{Redis, Signal, TestQueue, free_port, program, until};

pub struct Worker {
    process: Process,
    _folder: TempDir,
    port: u16,
}

#[derive(Clone)]
pub struct Builder {
    arguments: Vec<String>,
    env: BTreeMap<String, String>,
}

impl Worker {
    /// A worker between a queue and a Redis: production-like, two consumers, an Edge API without a listener.
    pub fn builder(redis: &Redis, queue: &TestQueue) -> Builder {
        Builder::of_command(&[], redis).consuming(queue)
    }

    /// A worker that is its own store, and answers too.
    pub fn in_memory(queue: &TestQueue) -> Builder {
        Builder::new(&[])
            .env("STORE", "memory")
            // So that one that is started again is found where it was.
            .env("READ_PORT", free_port())
            .consuming(queue)
    }
}

impl Builder {
    fn consuming(self, queue: &TestQueue) -> Builder {
        self.env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("QUEUE_URL", &queue.url)
            .env("CONSUMERS", "2")
            .env("BATCH_SIZE", "10")
    }
}

impl Builder {
    /// The binary with these arguments, and what each of its processes needs.
    pub fn of_command(arguments: &[&str], redis: &Redis) -> Builder {
        Builder::new(arguments)
            .env("REDIS_HOST", "127.0.0.1")
            .redis_port(redis.port())
    }

    /// The binary with these arguments, without a Redis.
    pub fn new(arguments: &[&str]) -> Builder {
        let builder = Builder {
            arguments: arguments.iter().map(ToString::to_string).collect(),
            env: BTreeMap::new(),
        };
        builder
            .env("SERVER_API_KEY", "test-key")
            .env("EDGE_API_URL", "http://127.0.0.1:1")
            .env("ENVIRONMENT_PREFIX", "production")
            .env("DISABLE_SENTRY", "1")
            .env("LOG_FORMAT", "text")
            .env("PATH", std::env::var("PATH").unwrap_or_default())
    }

    /// The value of a variable that was set here, or the empty string.
    pub fn get(&self, name: &str) -> &str {
        self.env.get(name).map_or("", String::as_str)
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl ToString) -> Builder {
        self.env.insert(name.to_owned(), value.to_string());
        self
    }

    #[must_use]
    pub fn unset(mut self, name: &str) -> Builder {
        self.env.remove(name);
        self
    }

    /// By way of a `TcpProxy`, for instance.
    #[must_use]
    pub fn redis_port(self, port: u16) -> Builder {
        self.env("REDIS_PORT", port)
    }

    /// By way of a `FaultProxy`, for instance.
    #[must_use]
    pub fn endpoint(self, url: impl ToString) -> Builder {
        self.env("AWS_ENDPOINT_URL_SQS", url)
    }

    /// Starts the process, and does not wait for it.
    pub fn spawn(&self) -> Worker {
        self.spawn_by(Process::spawn)
    }

    /// The same, with a standard error of its own: `logs` is empty.
    pub fn spawn_with_stderr(&self, stderr: impl Into<Stdio>) -> Worker {
        self.spawn_by(|command, log| {
            Process::spawn_with(command, log, Stdio::null(), stderr.into())
        })
    }

    fn spawn_by(&self, spawn: impl FnOnce(&mut Command, &Path) -> Process) -> Worker {
        let folder = TempDir::new().unwrap();
        let port = match self.env.get("PORT") {
            Some(port) => port.parse().unwrap_or_default(),
            None => free_port(),
        };
        let mut command = Command::new(program());
        command
            .args(&self.arguments)
            .env_clear()
            // The process must find no profile of the user who runs the tests.
            .env("HOME", folder.path())
            .env("PORT", port.to_string())
            .envs(&self.env)
            .current_dir(folder.path());
        let process = spawn(&mut command, &folder.path().join("worker.log"));
        Worker {
            process,
            _folder: folder,
            port,
        }
    }

    /// Starts the process and waits until it is ready.
    pub async fn start(&self) -> Worker {
        let worker = self.spawn();
        worker.wait_ready().await;
        worker
    }
}

impl Worker {
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its exit code, once it has ended.
    pub fn exit_code(&self) -> Option<i32> {
        self.process.exit_code()
    }

    /// All that it has written so far, to stdout and stderr.
    pub fn logs(&self) -> String {
        self.settle();
        self.process.logs()
    }

    /// Waits until the thread that writes the log has nothing left to write, so that it sleeps. One that is always busy
    /// is left alone after a second.
    fn settle(&self) {
        let started = Instant::now();
        while self.is_writing() && started.elapsed() < Duration::from_secs(1) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_writing(&self) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid()));
        tasks.into_iter().flatten().flatten().any(|task| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.contains("(log) R")
        })
    }

    /// `GET` on its own HTTP server. No answer within 2 s fails the test.
    pub async fn http(&self, path: &str) -> Reply {
        self.try_http(path)
            .await
            .unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    pub async fn try_http(&self, path: &str) -> Result<Reply, String> {
        http::get(self.port, path).await
    }

    /// Waits until `/readyz` says yes; fails at once if the process has ended.
    pub async fn wait_ready(&self) {
        until("the worker is ready", Duration::from_secs(20), async || {
            if let Some(code) = self.process.exit_code() {
                panic!("the worker ended with code {code} before it was ready");
            }
            self.try_http("/readyz")
                .await
                .is_ok_and(|reply| reply.status == 200)
        })
        .await;
    }

    /// Waits until `/readyz` answers, and says no.
    pub async fn wait_unready(&self) {
        until(
            "the worker is not ready",
            Duration::from_secs(20),
            async || {
                self.try_http("/readyz")
                    .await
                    .is_ok_and(|reply| reply.status == 503)
            },
        )
        .await;
    }

    /// The sum of a metric's series: `messages_total` for all of them, `messages_total{outcome="written"}` for those
    /// that have at least these labels. 0 if it has no such series yet; a name that `/metrics` does not know at all
    /// fails the test.
    pub async fn metric(&self, selector: &str) -> f64 {
        let text = self.http("/metrics").await.body;
        sum_of(&text, selector).unwrap_or_else(|| panic!("/metrics has no {selector}:\n{text}"))
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    pub fn term(&self) {
        self.signal(Signal::SIGTERM);
    }

    pub fn kill(&self) {
        self.process.kill();
    }

    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Waits for its end and gives its exit code; 128 plus the signal if a signal ended it.
    pub async fn wait_exit(&self, timeout: Duration) -> i32 {
        let mut code = None;
        until("the worker has ended", timeout, async || {
            code = self.process.exit_code();
            code.is_some()
        })
        .await;
        code.unwrap()
    }

    /// The memory it holds now.
    pub fn rss_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.process.kill();
            eprintln!(
                "--- the end of the worker's log ---\n{}\n---",
                self.process.tail(60)
            );
        }
    }
}

/// The sum of the series that `selector` selects in a page of OpenMetrics, or `None` if the page has no such metric.
pub fn sum_of(page: &str, selector: &str) -> Option<f64> {
    let (name, labels) = selector.split_once('{').unwrap_or((selector, ""));
    let wanted = labels_of(labels.trim_end_matches('}'));
    let mut known = false;
    let mut sum = 0.0;
    for line in page.lines() {
        if let Some((family, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|line| line.split_once(' '))
        {
            let suffixes: &[&str] = match kind {
                "counter" => &["_total"],
                "histogram" => &["_count", "_sum", "_bucket"],
                "info" => &["_info"],
                _ => &[""],
            };
            known |= name
                .strip_prefix(family)
                .is_some_and(|suffix| suffixes.contains(&suffix));
        }
        let Some(rest) = line.strip_prefix(name) else {
            continue;
        };
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.split_once("} ")?,
            None => ("", rest.strip_prefix(' ').unwrap_or_default()),
        };
        let found = labels_of(labels);
        // Empty where the name is only the beginning of another one. A time or an exemplar may follow the value.
        let value = value.split(' ').next().unwrap_or_default();
        if !value.is_empty() && wanted.iter().all(|label| found.contains(label)) {
            known = true;
            sum += value.parse::<f64>().ok()?;
        }
    }
    known.then_some(sum)
}

/// The labels in `a="x",b="y"`. Values may hold anything but quotes.
fn labels_of(text: &str) -> Vec<(&str, &str)> {
    let mut parts = text.split('"');
    let mut labels = Vec::new();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        labels.push((name.trim_start_matches(',').trim_end_matches('='), value));
    }
    labels
}
