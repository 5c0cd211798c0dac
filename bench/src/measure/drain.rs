//! Draining a full queue.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;

use anyhow::Result;

use super::Bench;
use crate::contestants::Contestant;
use bench::drain::{Sample, Timing, warm_up, watch};
use bench::page::cores;
use bench::process::Usage;
use testkit::mix::CUSTOMERS;

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
        let timing = Timing {
            warm: self.warm,
            window: self.window,
        };
        warm_up(&mut self.queue, &queue, total, timing)?;
        let (redis, in_window) = (&self.redis, &self.in_window);
        in_window.store(true, Ordering::Relaxed);
        let drained = watch(&mut self.queue, &queue, total, timing, |queue_server| {
            Ok([
                running.usage()?,
                queue_server.usage()?,
                redis.process.usage()?,
                Usage::of_self()?,
            ])
        });
        in_window.store(false, Ordering::Relaxed);
        drop(running);
        self.queue.drop(&queue)?;

        let (first, last) = drained?;
        let seconds = last.at.duration_since(first.at).as_secs_f64();
        let messages = (last.counts.deleted - first.counts.deleted) as f64;
        let calls = |sample: &Sample<_>| sample.counts.calls.values().sum::<u64>() as f64;
        let cpu = |of: usize| (last.of[of].cpu - first.of[of].cpu).as_secs_f64();
        let machine = seconds * cores() as f64;
        Ok(Drained {
            per_second: messages / seconds,
            cpu_us: cpu(0) * 1e6 / messages,
            peak_rss_mb: last.of[0].peak_rss_kib as f64 / 1024.0,
            calls_per_thousand: (calls(&last) - calls(&first)) * 1000.0 / messages,
            queue_share: cpu(1) / machine,
            redis_share: cpu(2) / machine,
            own_share: cpu(3) / machine,
            redis_us: cpu(2) * 1e6 / messages,
        })
    }
}
