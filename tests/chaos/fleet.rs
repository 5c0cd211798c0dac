//! The workers: started, ended, frozen, and watched.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::model::Moment;
use testkit::worker::Builder;
use testkit::{FaultProxy, Redis, TcpProxy, TestQueue, Worker};

pub const MAX_SIZE: usize = 5;
/// SHUTDOWN_TIMEOUT_SECS is 8, and a machine may be busy.
const SHUTDOWN: Duration = Duration::from_secs(12);

pub const METRICS: [&str; 10] = [
    "entitlement_sync_messages_received_total",
    "entitlement_sync_messages_redelivered_total",
    "entitlement_sync_messages_processed_total{outcome=\"applied\"}",
    "entitlement_sync_messages_processed_total{outcome=\"stale\"}",
    "entitlement_sync_messages_processed_total{outcome=\"skipped\"}",
    "entitlement_sync_items_coalesced_total",
    "entitlement_sync_locked_retries_total",
    "entitlement_sync_acknowledged_late_total",
    "entitlement_sync_redis_data_lost_total",
    "entitlement_sync_consumers_restarted_total",
];
const LOSSES: &str = "entitlement_sync_redis_data_lost_total";
pub const IN_HAND: &str = "entitlement_sync_inflight_messages";

pub struct Fleet {
    slots: Vec<Slot>,
    logs: PathBuf,
    /// Of workers that have ended.
    totals: Mutex<BTreeMap<String, f64>>,
    pub exits: Mutex<BTreeMap<String, u64>>,
    pub bad_exits: Mutex<Vec<String>>,
    pub started: AtomicU64,
    claims: AtomicU64,
    pub max_rss_kib: AtomicU64,
}

struct Slot {
    number: usize,
    /// Its own link to Redis, so that one worker alone can be cut off.
    link: TcpProxy,
    builder: Builder,
    worker: Mutex<Option<Arc<Worker>>>,
    frozen: AtomicBool,
    /// Something is being done to it.
    claimed: AtomicBool,
    started: AtomicI64,
    seen: Mutex<BTreeMap<String, f64>>,
}

impl Fleet {
    pub async fn new(
        redis: &Redis,
        queue: &TestQueue,
        faults: &FaultProxy,
        logs: PathBuf,
        log: &str,
        max_receive_count: u32,
    ) -> Fleet {
        let mut slots = Vec::new();
        for number in 0..MAX_SIZE {
            let link = TcpProxy::start(redis.port()).await;
            let builder = Worker::builder(redis, queue)
                .redis_port(link.port())
                .endpoint(faults.url())
                .env("QUEUE_URL", faults.queue_url(queue))
                .env("CONSUMERS", 4)
                .env("MAX_RECEIVE_COUNT", max_receive_count)
                .env("RUST_LOG", log);
            slots.push(Slot {
                number,
                link,
                builder,
                worker: Mutex::default(),
                frozen: AtomicBool::new(false),
                claimed: AtomicBool::new(false),
                started: AtomicI64::new(0),
                seen: Mutex::default(),
            });
        }
        Fleet {
            slots,
            logs,
            totals: Mutex::default(),
            exits: Mutex::default(),
            bad_exits: Mutex::default(),
            started: AtomicU64::new(0),
            claims: AtomicU64::new(0),
            max_rss_kib: AtomicU64::new(0),
        }
    }

    pub fn link(&self, slot: usize) -> &TcpProxy {
        &self.slots[slot].link
    }

    pub fn running(&self) -> Vec<usize> {
        let running = self.slots.iter().filter(|slot| slot.worker().is_some());
        running.map(|slot| slot.number).collect()
    }

    /// The running workers that no fault concerns.
    pub fn unclaimed(&self) -> Vec<usize> {
        let mut running = self.running();
        running.retain(|slot| !self.slots[*slot].claimed.load(Ordering::SeqCst));
        running
    }

    pub fn vacant(&self) -> Option<usize> {
        let vacant = self
            .slots
            .iter()
            .find(|slot| slot.worker().is_none() && !slot.claimed.load(Ordering::SeqCst))?;
        Some(vacant.number)
    }

    /// Returns false if another has claimed it.
    pub fn claim(&self, slot: usize) -> bool {
        let is_ours = !self.slots[slot].claimed.swap(true, Ordering::SeqCst);
        self.claims.fetch_add(u64::from(is_ours), Ordering::SeqCst);
        is_ours
    }

    /// Counts the claims so far. A worker that fails is claimed before, and released after.
    pub fn claims(&self) -> u64 {
        self.claims.load(Ordering::SeqCst)
    }

    pub fn is_any_claimed(&self) -> bool {
        let mut slots = self.slots.iter();
        slots.any(|slot| slot.claimed.load(Ordering::SeqCst))
    }

    pub fn release(&self, slot: usize) {
        self.slots[slot].claimed.store(false, Ordering::SeqCst);
    }

    pub fn start(&self, slot: usize, now: Moment) {
        self.started.fetch_add(1, Ordering::Relaxed);
        self.slots[slot].started.store(now, Ordering::SeqCst);
        *self.slots[slot].worker.lock().unwrap() = Some(Arc::new(self.slots[slot].builder.spawn()));
    }

    /// SIGTERM; the exit code must be 0, or 75 ("the shutdown took too long") where the queue hung.
    pub async fn term(&self, slot: usize, queue_hung: impl Fn() -> bool) {
        let Some(worker) = self.slots[slot].worker() else {
            return;
        };
        self.sample_one(&self.slots[slot]).await;
        let began = Instant::now();
        worker.term();
        let code = exit_code(&worker, SHUTDOWN).await;
        let text = code.map_or("none".to_owned(), |code| code.to_string());
        self.count_exit(&format!("SIGTERM, code {text}"));
        // The signal came before the process had its handlers, and before it received anything.
        let had_not_begun = code == Some(143) && worker.logs().is_empty();
        if code != Some(0) && !had_not_begun && !(code == Some(75) && queue_hung()) {
            let after = began.elapsed().as_millis();
            self.bad(format!(
                "worker {slot} ended with code {text} {after} ms after SIGTERM:\n{}",
                tail(&worker.logs())
            ));
        }
        self.bury(slot);
    }

    pub async fn kill(&self, slot: usize) {
        let Some(worker) = self.slots[slot].worker() else {
            return;
        };
        self.sample_one(&self.slots[slot]).await;
        worker.kill();
        self.count_exit("SIGKILL");
        self.bury(slot);
    }

    pub fn freeze(&self, slot: usize) {
        if let Some(worker) = self.slots[slot].worker() {
            self.slots[slot].frozen.store(true, Ordering::SeqCst);
            worker.freeze();
        }
    }

    pub fn thaw(&self, slot: usize) {
        if let Some(worker) = self.slots[slot].worker() {
            worker.thaw();
            self.slots[slot].frozen.store(false, Ordering::SeqCst);
        }
    }

    /// Takes a worker out of the books: its counters, its log.
    fn bury(&self, slot: usize) {
        let slot = &self.slots[slot];
        let Some(worker) = slot.worker.lock().unwrap().take() else {
            return;
        };
        slot.frozen.store(false, Ordering::SeqCst);
        let seen = std::mem::take(&mut *slot.seen.lock().unwrap());
        let mut totals = self.totals.lock().unwrap();
        for (name, value) in seen.into_iter().filter(|(name, _)| name != IN_HAND) {
            *totals.entry(name).or_default() += value;
        }
        let name = format!("worker-{}-{}.log", slot.number, worker.pid());
        let _ = fs::write(self.logs.join(name), worker.logs());
    }

    pub fn bury_all(&self) {
        for slot in 0..MAX_SIZE {
            self.bury(slot);
        }
    }

    fn count_exit(&self, how: &str) {
        *self
            .exits
            .lock()
            .unwrap()
            .entry(how.to_owned())
            .or_default() += 1;
    }

    fn bad(&self, what: String) {
        eprintln!("chaos: {what}");
        self.bad_exits.lock().unwrap().push(what);
    }

    /// Looks at everyone who is not frozen; replaces who ended unasked, which is a failure.
    pub async fn sample(&self) {
        for slot in &self.slots {
            self.sample_one(slot).await;
        }
    }

    async fn sample_one(&self, slot: &Slot) {
        let Some(worker) = slot.worker() else {
            return;
        };
        if slot.frozen.load(Ordering::SeqCst) {
            return;
        }
        let Some(rss) = rss_kib(worker.pid()) else {
            // No memory: it has ended, and is a zombie until someone asks. Whoever ended it takes it out of the books.
            return;
        };
        self.max_rss_kib.fetch_max(rss, Ordering::Relaxed);
        let Ok(page) = worker.try_http("/metrics").await else {
            return;
        };
        let mut seen = slot.seen.lock().unwrap();
        for name in METRICS.iter().chain([&IN_HAND]) {
            seen.insert((*name).to_owned(), sum(&page.body, name));
        }
    }

    /// Workers that ended without a signal. Called while no fault ends any.
    pub async fn find_dead(&self) {
        for slot in &self.slots {
            let Some(worker) = slot.worker() else {
                continue;
            };
            if rss_kib(worker.pid()).is_none() {
                let code = exit_code(&worker, Duration::from_secs(1)).await;
                self.count_exit(&format!("unasked, code {code:?}"));
                self.bad(format!(
                    "worker {} ended unasked with {code:?}:\n{}",
                    slot.number,
                    tail(&worker.logs())
                ));
                self.bury(slot.number);
            }
        }
    }

    /// Messages in the hands of all; `None` if someone does not answer or is not ready.
    pub async fn in_hand(&self) -> Option<f64> {
        let mut total = 0.0;
        for slot in &self.slots {
            let Some(worker) = slot.worker() else {
                continue;
            };
            if worker.try_http("/readyz").await.ok()?.status != 200 {
                return None;
            }
            total += sum(&worker.try_http("/metrics").await.ok()?.body, IN_HAND);
        }
        Some(total)
    }

    /// Everyone counts each loss of data that he lived through; `losses` is when they began.
    pub async fn unnoticed(&self, losses: &[Moment]) -> Vec<String> {
        /// A worker knows the data only some time after its start.
        const KNOWN: Moment = 5_000_000;
        let mut unnoticed = Vec::new();
        for slot in &self.slots {
            let Some(worker) = slot.worker() else {
                continue;
            };
            let started = slot.started.load(Ordering::SeqCst);
            let since = |after: Moment| losses.iter().filter(|loss| **loss > after).count() as f64;
            let Ok(page) = worker.try_http("/metrics").await else {
                continue;
            };
            let counted = sum(&page.body, LOSSES);
            if counted < since(started + KNOWN) || counted > since(started) {
                unnoticed.push(format!(
                    "worker {} counted {counted} losses of Redis' data; there were {} since its start",
                    slot.number,
                    since(started)
                ));
            }
        }
        unnoticed
    }

    pub fn total(&self, name: &str) -> u64 {
        let mut total = self
            .totals
            .lock()
            .unwrap()
            .get(name)
            .copied()
            .unwrap_or(0.0);
        for slot in &self.slots {
            total += slot.seen.lock().unwrap().get(name).copied().unwrap_or(0.0);
        }
        total as u64
    }
}

impl Slot {
    fn worker(&self) -> Option<Arc<Worker>> {
        self.worker.lock().unwrap().clone()
    }
}

/// `None` if it does not end in time.
async fn exit_code(worker: &Arc<Worker>, timeout: Duration) -> Option<i32> {
    let deadline = Instant::now() + timeout;
    while rss_kib(worker.pid()).is_some() {
        if Instant::now() > deadline {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Some(worker.wait_exit(Duration::from_secs(5)).await)
}

/// `None` of a process that has ended.
fn rss_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

fn sum(page: &str, selector: &str) -> f64 {
    let (name, label) = selector.split_once('{').unwrap_or((selector, ""));
    let label = label.trim_end_matches('}');
    page.lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            if !rest.starts_with([' ', '{']) || !rest.contains(label) {
                return None;
            }
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        })
        .sum()
}

fn tail(logs: &str) -> String {
    let lines: Vec<&str> = logs.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}
