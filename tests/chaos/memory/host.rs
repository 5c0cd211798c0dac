//! The one process, which is started again and again in the same place.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use testkit::worker::sum_of;
use testkit::{Reader, Signal, reader, until};

/// A drain of 10 s, the last snapshot, and a machine that is busy.
const SHUTDOWN: Duration = Duration::from_secs(20);
/// Longer than the visibility timeout that is assumed while the queue does not tell it, and a receive after it.
const SOON: Duration = Duration::from_secs(90);
const PROVEN: &str = "entitlement_sync_memory_proven";
const WRITTEN: &str = "entitlement_sync_snapshot_written_total";

pub struct Host {
    builder: reader::Builder,
    reader: Mutex<Arc<Reader>>,
    logs: PathBuf,
    lives: AtomicU64,
    pub exits: Mutex<BTreeMap<String, u64>>,
    pub failures: Mutex<Vec<String>>,
    /// Of processes that have ended, as far as they were asked.
    snapshots: AtomicU64,
    pub max_rss_kib: AtomicU64,
}

impl Host {
    pub fn start(builder: reader::Builder, logs: PathBuf) -> Host {
        Host {
            reader: Mutex::new(Arc::new(builder.spawn())),
            builder,
            logs,
            lives: AtomicU64::new(1),
            exits: Mutex::default(),
            failures: Mutex::default(),
            snapshots: AtomicU64::new(0),
            max_rss_kib: AtomicU64::new(0),
        }
    }

    pub fn reader(&self) -> Arc<Reader> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        reader.clone()
    }

    pub fn life(&self) -> u64 {
        self.lives.load(Ordering::SeqCst)
    }

    pub async fn kill(&self) {
        let reader = self.reader();
        self.take_figures(&reader).await;
        match reader.exit_code() {
            Some(code) => self.ended_unasked(&reader, code),
            None => self.count("SIGKILL".to_owned()),
        }
        reader.kill();
        self.bury(&reader);
    }

    /// SIGTERM. The exit code must be 0, unless something that the end needs is away: then 75 and 1 are right too.
    pub async fn term(&self, all_is_well: bool) {
        let reader = self.reader();
        self.take_figures(&reader).await;
        if let Some(code) = reader.exit_code() {
            self.ended_unasked(&reader, code);
            return self.bury(&reader);
        }
        reader.term();
        let ended = tokio::time::timeout(SHUTDOWN, reader.wait_exit(2 * SHUTDOWN)).await;
        let code = ended.map_or("none".to_owned(), |code| code.to_string());
        self.count(format!("SIGTERM, code {code}"));
        if code != "0" && (all_is_well || !["1", "75"].contains(&code.as_str())) {
            self.fail(&format!("code {code} after SIGTERM"), &reader);
        }
        reader.kill();
        self.bury(&reader);
    }

    /// The next life.
    pub fn start_again(&self) {
        let next = Arc::new(self.builder.spawn());
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        *reader = next;
        self.lives.fetch_add(1, Ordering::SeqCst);
    }

    pub fn signal(&self, signal: Signal) {
        self.reader().signal(signal);
    }

    /// A process that ended without a signal is a failure, and is started again.
    pub fn look(&self) {
        let reader = self.reader();
        if let Some(code) = reader.exit_code() {
            self.ended_unasked(&reader, code);
            self.bury(&reader);
            self.start_again();
        }
    }

    pub async fn wait_ready(&self) {
        until("the process is ready", SOON, async || {
            self.look();
            let reply = self.reader().try_http("/readyz").await;
            reply.is_ok_and(|reply| reply.status == 200)
        })
        .await;
    }

    pub async fn wait_alive(&self) {
        until("the process is alive", SOON, async || {
            self.look();
            self.reader().try_http("/livez").await.is_ok()
        })
        .await;
    }

    pub async fn wait_proven(&self) {
        until("the state is proven", SOON, async || {
            let page = self.reader().try_http("/metrics").await;
            page.is_ok_and(|page| sum_of(&page.body, PROVEN) == Some(1.0))
        })
        .await;
    }

    pub async fn snapshots(&self) -> u64 {
        self.take_figures(&self.reader()).await;
        self.snapshots.load(Ordering::SeqCst)
    }

    async fn take_figures(&self, reader: &Reader) {
        if reader.exit_code().is_some() {
            return;
        }
        self.max_rss_kib
            .fetch_max(reader.rss_kib(), Ordering::SeqCst);
        if let Ok(page) = reader.try_http("/metrics").await {
            let written = sum_of(&page.body, WRITTEN).unwrap_or(0.0);
            self.snapshots.fetch_add(written as u64, Ordering::SeqCst);
        }
    }

    fn ended_unasked(&self, reader: &Reader, code: i32) {
        self.count(format!("unasked, code {code}"));
        self.fail(&format!("ended unasked with code {code}"), reader);
    }

    fn count(&self, how: String) {
        let mut exits = self.exits.lock().unwrap_or_else(PoisonError::into_inner);
        *exits.entry(how).or_default() += 1;
    }

    fn fail(&self, what: &str, reader: &Reader) {
        let logs = reader.logs();
        let lines: Vec<&str> = logs.lines().collect();
        let tail = lines[lines.len().saturating_sub(25)..].join("\n");
        eprintln!("chaos: life {}: {what}", self.life());
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.push(format!("life {}: {what}\n{tail}", self.life()));
    }

    fn bury(&self, reader: &Reader) {
        let name = format!("process-{}.log", self.life());
        let _ = fs::write(self.logs.join(name), reader.logs());
    }
}
