//! Draining a full queue.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{Bench, cores};
use crate::contestants::Contestant;
use crate::servers::Counts;
use bench::process::Usage;
use testkit::mix::CUSTOMERS;

/// Of so few messages, one more or less would tell: the window gets longer, up to so many times.
const FEW: u64 = 100;
const LONGEST: f64 = 4.0;

/// How much there is of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scale {
    pub messages: usize,
    pub customers: u32,
}

impl Scale {
    pub const MESSAGES: [Self; 2] = [
        Self::new(10_000, CUSTOMERS),
        Self::new(1_000_000, CUSTOMERS),
    ];
    pub const CUSTOMERS: [Self; 2] = [Self::new(40_000, 1_000), Self::new(40_000, 1_000_000)];

    const fn new(messages: usize, customers: u32) -> Self {
        Self {
            messages,
            customers,
        }
    }

    pub fn all() -> impl Iterator<Item = Self> {
        [Self::MESSAGES, Self::CUSTOMERS].into_iter().flatten()
    }
}

/// Of one drain.
#[derive(Debug, Clone, Copy)]
pub struct Drained {
    pub per_second: f64,
    pub cpu_us: f64,
    pub peak_rss_mb: f64,
    pub calls_per_thousand: f64,
    /// Shares of all cores.
    pub queue_share: f64,
    pub redis_share: f64,
    pub own_share: f64,
    /// Of Redis, a message.
    pub redis_us: f64,
}

impl Drained {
    /// The share of all cores that was in use, the contestant's own included.
    pub fn busy(&self) -> f64 {
        let own = self.per_second * self.cpu_us / 1e6 / cores() as f64;
        own + self.queue_share + self.redis_share + self.own_share
    }
}

impl Bench {
    /// A full queue, of which a window is looked at once the contestant is warm. All counts are of
    /// that window alone.
    pub fn drain(&mut self, contestant: Contestant, way: SocketAddr) -> Result<Drained> {
        let scale = Scale::new(self.messages, CUSTOMERS);
        self.drain_at(scale, &self.corpus.clone(), contestant, way)
    }

    /// The same, of so many messages and customers.
    pub fn drain_at(
        &mut self,
        scale: Scale,
        corpus: &Path,
        contestant: Contestant,
        way: SocketAddr,
    ) -> Result<Drained> {
        let Scale {
            messages: total,
            customers,
        } = scale;
        self.redis.reset(customers)?;
        let queue = self.new_queue_of(corpus, total)?;
        let running = contestant.start(&self.tools, &queue, way, self.redis.port, false)?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.queue.counts(&queue)?.deleted == 0 {
            if Instant::now() > deadline {
                bail!("{contestant:?} has deleted nothing within 30 s");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // Whoever is so fast that the queue runs dry is looked at while there is enough left.
        let enough = (total / 4) as u64;
        let warm = Instant::now() + self.warm;
        while Instant::now() < warm && self.queue.counts(&queue)?.left > 3 * enough {
            std::thread::sleep(Duration::from_millis(10));
        }
        let sample = |bench: &mut Self| -> Result<(Instant, Counts, [Usage; 4])> {
            let before = Instant::now();
            let counts = bench.queue.counts(&queue)?;
            let at = before + before.elapsed() / 2;
            let usages = [
                running.usage()?,
                bench.queue.process.usage()?,
                bench.redis.process.usage()?,
                Usage::of_self()?,
            ];
            Ok((at, counts, usages))
        };
        self.in_window.store(true, Ordering::Relaxed);
        let first = sample(self)?;
        let last = loop {
            std::thread::sleep(Duration::from_millis(20));
            let now = sample(self)?;
            let dry = now.1.left < (total / 50) as u64;
            let windows = now.0.duration_since(first.0).as_secs_f64() / self.window.as_secs_f64();
            let few = now.1.deleted - first.1.deleted < FEW;
            if dry || windows >= LONGEST || windows >= 1.0 && !few {
                break now;
            }
        };
        self.in_window.store(false, Ordering::Relaxed);
        drop(running);
        self.queue.drop(&queue)?;

        let seconds = last.0.duration_since(first.0).as_secs_f64();
        let messages = (last.1.deleted - first.1.deleted) as f64;
        if messages < 1.0 {
            bail!("{contestant:?} deleted nothing within the window");
        }
        let calls = |counts: &Counts| counts.calls.values().sum::<u64>() as f64;
        let cpu = |of: usize| (last.2[of].cpu - first.2[of].cpu).as_secs_f64();
        let machine = seconds * cores() as f64;
        Ok(Drained {
            per_second: messages / seconds,
            cpu_us: cpu(0) * 1e6 / messages,
            peak_rss_mb: last.2[0].peak_rss_kib as f64 / 1024.0,
            calls_per_thousand: (calls(&last.1) - calls(&first.1)) * 1000.0 / messages,
            queue_share: cpu(1) / machine,
            redis_share: cpu(2) / machine,
            own_share: cpu(3) / machine,
            redis_us: cpu(2) * 1e6 / messages,
        })
    }
}
