//! Who takes part, and how each is started.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::Tools;
use bench::process::{Process, Usage, free_port, ready};
use bench::servers::consuming;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Floor,
    Ours,
    /// Two processes of ours on one queue.
    OursTwice,
    Node,
    Python,
}

impl Kind {
    pub const ALL: [Self; 5] = [
        Self::Floor,
        Self::Ours,
        Self::OursTwice,
        Self::Node,
        Self::Python,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Ours => "ours",
            Self::OursTwice => "ours, 2 processes",
            Self::Node => "Node",
            Self::Python => "Python",
        }
    }

    /// For choosing by `BENCH_ONLY`.
    pub fn key(self) -> &'static str {
        match self {
            Self::OursTwice => "twice",
            Self::Floor => "floor",
            Self::Ours => "ours",
            Self::Node => "node",
            Self::Python => "python",
        }
    }
}

/// A contestant as it is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contestant {
    pub kind: Kind,
    pub batch: usize,
    pub consumers: usize,
}

/// A contestant at work.
pub struct Running {
    processes: Vec<(Process, Option<u16>)>,
}

impl Contestant {
    /// `at` is where SQS is, or the way to it.
    pub fn start(
        self,
        tools: &Tools,
        queue: &str,
        at: SocketAddr,
        redis: u16,
        tell: bool,
    ) -> Result<Running> {
        let count = if self.kind == Kind::OursTwice { 2 } else { 1 };
        let processes = (0..count)
            .map(|_| self.start_one(tools, queue, at, redis, tell))
            .collect::<Result<_>>()?;
        Ok(Running { processes })
    }

    fn start_one(
        self,
        tools: &Tools,
        queue: &str,
        at: SocketAddr,
        redis: u16,
        tell: bool,
    ) -> Result<(Process, Option<u16>)> {
        let mut environment = consuming(at, queue);
        environment.extend([
            ("BATCH_SIZE", self.batch.to_string()),
            ("CONSUMERS", self.consumers.to_string()),
            ("REDIS_HOST", "127.0.0.1".to_owned()),
            ("REDIS_PORT", redis.to_string()),
        ]);
        let mut port = None;
        let mut command = match self.kind {
            Kind::Ours | Kind::OursTwice => {
                let own = free_port()?;
                port = Some(own);
                environment.extend([
                    ("PORT", own.to_string()),
                    ("SERVER_API_KEY", "bench".to_owned()),
                    ("DISABLE_SENTRY", "1".to_owned()),
                    ("EDGE_API_URL", "http://127.0.0.1:1".to_owned()),
                    ("LOG_LEVEL", "warn".to_owned()),
                ]);
                Command::new(&tools.worker)
            }
            Kind::Floor => {
                if tell {
                    environment.push(("FLOOR_TELL", "1".to_owned()));
                }
                Command::new(&tools.floor)
            }
            Kind::Node => {
                environment.push(("BENCH_MODULES", tools.installed.display().to_string()));
                let mut command = Command::new(&tools.node);
                command.arg(tools.peers.join("node.mjs"));
                command
            }
            Kind::Python => {
                let mut command = Command::new(&tools.python);
                command.arg(tools.peers.join("worker.py"));
                command
            }
        };
        Ok((Process::start(&mut command, &environment)?, port))
    }
}

impl Running {
    /// Waits until all are ready: `/readyz` of ours, the first answers of queue and Redis of others.
    /// Returns the time from the start of the first.
    pub fn ready(&self) -> Result<Duration> {
        let mut longest = Duration::ZERO;
        for (process, port) in &self.processes {
            let at = match port {
                Some(port) => ready(*port)?,
                None => process.line()?.0,
            };
            longest = longest.max(at.duration_since(process.started()));
        }
        Ok(longest)
    }

    pub fn usage(&self) -> Result<Usage> {
        let mut sum = Usage::default();
        for (process, _) in &self.processes {
            let usage = process.usage()?;
            sum.cpu += usage.cpu;
            sum.rss_kib += usage.rss_kib;
            sum.peak_rss_kib += usage.peak_rss_kib;
        }
        Ok(sum)
    }

    /// Lines of stdout since the last look.
    pub fn lines(&self) -> Vec<String> {
        let lines = self
            .processes
            .iter()
            .flat_map(|(process, _)| process.lines());
        lines.map(|(_, line)| line).collect()
    }
}
