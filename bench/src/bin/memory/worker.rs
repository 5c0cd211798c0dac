//! A worker in either mode, and what it tells of itself.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::runtime::Runtime;

use bench::process::{Process, free_port, ready};
use bench::questions::one;
use bench::servers::consuming;
use testkit::worker::sum_of;

use super::{Plan, Servers};

/// Where the state is.
pub enum Store<'a> {
    Redis,
    /// In the process, with its journal and snapshots in this folder.
    Memory(&'a Path),
}

pub struct Worker {
    pub process: Process,
    port: u16,
    pub read_port: u16,
}

/// Enough for everything that is loaded here.
pub const MAX_BYTES: u64 = 4 << 30;
const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

impl Worker {
    /// Ten consumers with batches of ten, as for production.
    pub fn start(plan: &Plan, servers: &Servers, queue: &str, store: &Store<'_>) -> Result<Self> {
        Self::bounded(plan, servers, queue, store, MAX_BYTES)
    }

    /// The same, with this `LOCAL_MAX_BYTES`.
    pub fn bounded(
        plan: &Plan,
        servers: &Servers,
        queue: &str,
        store: &Store<'_>,
        max_bytes: u64,
    ) -> Result<Self> {
        let (port, read_port) = (free_port()?, free_port()?);
        let mut environment = consuming(servers.queue.address, queue);
        environment.extend([
            ("BATCH_SIZE", "10".to_owned()),
            ("CONSUMERS", "10".to_owned()),
            ("PORT", port.to_string()),
            ("SERVER_API_KEY", "bench".to_owned()),
            ("DISABLE_SENTRY", "1".to_owned()),
            ("EDGE_API_URL", "http://127.0.0.1:9".to_owned()),
            ("LOG_LEVEL", "error".to_owned()),
        ]);
        match store {
            Store::Redis => environment.extend([
                ("REDIS_HOST", "127.0.0.1".to_owned()),
                ("REDIS_PORT", servers.redis.port.to_string()),
            ]),
            Store::Memory(folder) => environment.extend([
                ("STORE", "memory".to_owned()),
                ("READ_PORT", read_port.to_string()),
                ("LOCAL_MAX_BYTES", max_bytes.to_string()),
                ("SNAPSHOT_PATH", folder.display().to_string()),
                ("SNAPSHOT_KEY", KEY.to_owned()),
                ("ADMIN_TOKEN", "bench-admin-token".to_owned()),
            ]),
        }
        let process = Process::start(&mut Command::new(&plan.worker), &environment)?;
        let worker = Self {
            process,
            port,
            read_port,
        };
        ready(port)?;
        Ok(worker)
    }

    /// The value of a metric.
    pub fn metric(&self, runtime: &Runtime, name: &str) -> Result<f64> {
        let request = "GET /metrics HTTP/1.1\r\nHost: bench\r\n\r\n";
        let page = runtime.block_on(one(self.port, request))?;
        sum_of(&page, name).with_context(|| format!("no metric {name}"))
    }

    /// Writes a snapshot, and returns when it is written.
    pub async fn save(&self) -> Result<()> {
        let request = "POST /admin/snapshot HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer bench-admin-token\r\nContent-Length: 0\r\n\r\n";
        one(self.port, request).await.map(drop)
    }

    /// Waits until the queue has been read to its end, so that answers are fresh.
    pub fn wait_proven(&self, runtime: &Runtime) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.metric(runtime, "entitlement_sync_memory_proven")? < 1.0 {
            if Instant::now() > deadline {
                bail!("the state is not proven after 60 s");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    pub fn rss_bytes(&self) -> Result<f64> {
        Ok(self.process.usage()?.rss_kib as f64 * 1024.0)
    }
}

/// Waits until all messages of the queue are deleted.
pub fn drained(servers: &mut Servers, queue: &str, count: usize) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(300);
    while servers.queue.counts(queue)?.deleted < count as u64 {
        if Instant::now() > deadline {
            bail!("{count} messages are not deleted after 300 s");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
