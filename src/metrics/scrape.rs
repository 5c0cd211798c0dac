//! What is known only when someone asks: the state of the process, read at each scrape.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::health::Health;

/// Encodes gauges of what others keep.
#[derive(Debug)]
pub struct Scrape {
    pub health: Arc<Health>,
    pub pollers: Arc<AtomicUsize>,
    pub configured: usize,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut gauge = |name, help, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        let polling = self.health.readiness().consumers;
        gauge(
            "entitlement_sync_consumers",
            "Consumers in use: polling or asleep beside one that polls",
            polling as f64,
        )?;
        gauge(
            "entitlement_sync_consumers_configured",
            "CONSUMERS",
            self.configured as f64,
        )?;
        gauge(
            "entitlement_sync_pollers",
            "Consumers that are not asleep for want of messages",
            self.pollers.load(Ordering::Relaxed) as f64,
        )?;
        gauge(
            "entitlement_sync_uptime_seconds",
            "Time since the start",
            self.health.uptime().as_secs_f64(),
        )?;
        let Some(process) = Process::read() else {
            return Ok(());
        };
        gauge(
            "process_resident_memory_bytes",
            "Resident memory",
            process.resident_bytes,
        )?;
        gauge(
            "process_open_fds",
            "Open file descriptors",
            process.open_files,
        )?;
        gauge(
            "process_start_time_seconds",
            "Start of the process since the epoch",
            process.start_secs,
        )?;
        let cpu = ConstCounter::new(process.cpu_secs);
        let help = "User and system time spent";
        cpu.encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            help,
            None,
            cpu.metric_type(),
        )?)
    }
}

struct Process {
    resident_bytes: f64,
    open_files: f64,
    start_secs: f64,
    cpu_secs: f64,
}

/// Linux counts in these, whatever the processor.
const TICKS_PER_SEC: f64 = 100.0;
const PAGE_BYTES: f64 = 4096.0;

impl Process {
    fn read() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The name in parentheses may hold spaces; fields count from after it.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |index: usize| fields.get(index)?.parse::<f64>().ok();
        let boot = std::fs::read_to_string("/proc/stat").ok()?;
        let boot = boot.lines().find_map(|line| line.strip_prefix("btime "))?;
        Some(Self {
            cpu_secs: (field(11)? + field(12)?) / TICKS_PER_SEC,
            start_secs: boot.parse::<f64>().ok()? + field(19)? / TICKS_PER_SEC,
            resident_bytes: field(21)? * PAGE_BYTES,
            open_files: std::fs::read_dir("/proc/self/fd").ok()?.count() as f64,
        })
    }
}
