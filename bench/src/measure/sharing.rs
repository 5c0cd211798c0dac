//! What other users of the same Redis notice of a drain: their own calls wait for the worker's.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Bench, Scale};
use crate::contestants::{Contestant, Kind};
use bench::page::cores;
use bench::process::{pin, pin_thread, put_thread_first, set_uninterrupted};
use bench::servers::{Calls, command};
use testkit::mix::{self, CUSTOMERS};

/// A body of about 100 kB, so that a receive of ten has what SQS allows.
const LARGE_FEATURES: usize = 180;
const LARGE_BODIES: usize = 1_000;
/// Between two calls of the other user.
const GET_PAUSE: Duration = Duration::from_micros(500);

/// The bodies of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bodies {
    Mix,
    Large,
}

impl Bodies {
    pub const ALL: [Self; 2] = [Self::Mix, Self::Large];

    pub fn name(self) -> &'static str {
        match self {
            Self::Mix => "as above",
            Self::Large => "of 100 kB: entitlements of 180 features",
        }
    }
}

/// Of one drain; times in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Shared {
    pub per_second: f64,
    /// Of Redis, a message.
    pub redis_us: f64,
    /// The worker's.
    pub calls: Calls,
    /// A GET of another client.
    pub alone: Quantiles,
    pub beside: Quantiles,
}

#[derive(Debug, Clone, Copy)]
pub struct Quantiles {
    pub p50_ms: f64,
    pub p99_ms: f64,
}

impl Bench {
    /// Redis and its other user have a core of their own, and nothing interrupts Redis: the figures are of Redis, not of
    /// waiting for a core.
    pub fn shared(&mut self, bodies: Bodies, way: SocketAddr) -> Result<Shared> {
        let last = cores() - 1;
        let others = [std::process::id(), self.queue.process.id()];
        if last > 0 {
            pin(self.redis.process.id(), "0");
            set_uninterrupted(self.redis.process.id(), true);
            for id in others {
                pin(id, &format!("1-{last}"));
            }
        }
        let shared = self.drain_shared(bodies, way);
        set_uninterrupted(self.redis.process.id(), false);
        for id in others.into_iter().chain([self.redis.process.id()]) {
            pin(id, &format!("0-{last}"));
        }
        shared
    }

    fn drain_shared(&mut self, bodies: Bodies, way: SocketAddr) -> Result<Shared> {
        let ours = Contestant {
            kind: Kind::Ours,
            batch: 10,
            consumers: 10,
        };
        self.redis.reset(CUSTOMERS)?;
        let getting = Gets::start(self.redis.port, Arc::new(AtomicBool::new(true)))?;
        std::thread::sleep(self.window);
        let alone = getting.end()?;

        let (corpus, messages) = match bodies {
            Bodies::Mix => (self.corpus.clone(), self.messages),
            Bodies::Large => (self.large_corpus()?, LARGE_BODIES),
        };
        self.redis.log_calls()?;
        let getting = Gets::start(self.redis.port, self.in_window.clone())?;
        let scale = Scale {
            messages,
            customers: CUSTOMERS,
        };
        let drained = self.drain_at(scale, &corpus, ours, way)?;
        Ok(Shared {
            per_second: drained.per_second,
            redis_us: drained.redis_us,
            calls: self.redis.calls()?,
            alone,
            beside: getting.end()?,
        })
    }

    fn large_corpus(&self) -> Result<PathBuf> {
        let path = self.tools.installed.join("corpus-large.jsonl");
        write_large(&path).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

fn write_large(path: &Path) -> Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    for rank in 0..LARGE_BODIES {
        let features: Vec<Value> = (0..LARGE_FEATURES).map(large_entitlement).collect();
        let customer = mix::customer(u32::try_from(rank)?);
        let body = json!({"type": "ENTITLEMENTS_UPDATED", "timestamp": "2025-11-14T00:00:00.000Z",
            "payload": {"customerId": customer, "entitlements": features}});
        writeln!(file, "{body}")?;
    }
    Ok(file.flush()?)
}

/// Six of ten are metered, as in the mix.
fn large_entitlement(number: usize) -> Value {
    let is_metered = number % 10 < 6;
    let (kind, meter) = match is_metered {
        true => ("NUMBER", "Incremental"),
        false => ("BOOLEAN", "None"),
    };
    json!({"__typename": "Entitlement", "isGranted": true, "usageLimit": is_metered.then_some(1_000),
        "hasUnlimitedUsage": false, "hasSoftLimit": false, "currentUsage": is_metered.then_some(number),
        "usagePeriodStart": "2025-11-01T00:00:00.000Z", "usagePeriodEnd": "2025-12-01T00:00:00.000Z",
        "resetPeriod": "MONTH", "resetPeriodConfiguration": {"__typename": "MonthlyResetPeriodConfig",
            "monthlyAccordingTo": "SubscriptionStart"},
        "feature": {"__typename": "EntitlementFeature", "refId": format!("feature-{number:03}"),
            "displayName": format!("A feature with a long name, number {number}"), "featureType": kind, "meterType": meter}})
}

/// Another user of Redis: one GET after the other, on a connection of its own.
struct Gets {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<Vec<Duration>>>,
}

impl Gets {
    /// Calls count while `in_window` is set.
    fn start(redis: u16, in_window: Arc<AtomicBool>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", redis))?);
        stream.get_ref().set_nodelay(true)?;
        let task = std::thread::spawn({
            let stop = stop.clone();
            let key = format!("production:c_{}#timestamp", mix::customer(0));
            let get = command(&["GET", &key]);
            move || {
                pin_thread("0");
                // It asks as if from elsewhere: it waits for Redis, and not for the core of Redis.
                put_thread_first();
                let (mut took, mut line) = (Vec::new(), String::new());
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    stream.get_mut().write_all(get.as_bytes())?;
                    line.clear();
                    stream.read_line(&mut line)?;
                    let elapsed = began.elapsed();
                    // Redis answers "$-1", without a value, if the key does not exist.
                    if line.trim_end() != "$-1" {
                        stream.read_line(&mut line)?;
                    }
                    if in_window.load(Ordering::Relaxed) {
                        took.push(elapsed);
                    }
                    std::thread::sleep(GET_PAUSE);
                }
                Ok(took)
            }
        });
        Ok(Self { stop, task })
    }

    fn end(self) -> Result<Quantiles> {
        self.stop.store(true, Ordering::Relaxed);
        let took = self.task.join();
        let mut took = took.map_err(|_| anyhow::anyhow!("the other user of Redis failed"))??;
        took.sort();
        let last = took.len().checked_sub(1).context("no GET was measured")?;
        let quantile =
            |share: f64| took[(last as f64 * share).round() as usize].as_secs_f64() * 1e3;
        Ok(Quantiles {
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
        })
    }
}
