//! Reads gauges of the process at each scrape.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::watch;

use crate::health::Health;
use crate::queue::{Depth, Settings};

/// Encodes gauges whose values other modules hold.
#[derive(Debug)]
pub struct Scrape {
    pub health: Arc<Health>,
    pub pollers: Arc<AtomicUsize>,
    pub configured: usize,
    pub settings: watch::Receiver<Settings>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Held {
    state: &'static str,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // An unknown depth is not zero: without the permission there is no such series.
        if let Some(depth) = self.settings.borrow().depth {
            encode_depth(&mut encoder, depth)?;
        }
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
            "Consumers that are not asleep",
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

fn encode_depth(encoder: &mut DescriptorEncoder<'_>, depth: Depth) -> fmt::Result {
    let mut family = encoder.encode_descriptor(
        "entitlement_sync_queue_messages",
        "Approximate number of messages in the queue, read once a minute",
        None,
        MetricType::Gauge,
    )?;
    for (state, count) in [
        ("visible", depth.visible),
        ("in_flight", depth.in_flight),
        ("delayed", depth.delayed),
    ] {
        ConstGauge::new(count as f64).encode(family.encode_family(&Held { state })?)?;
    }
    Ok(())
}

struct Process {
    resident_bytes: f64,
    open_files: f64,
    start_secs: f64,
    cpu_secs: f64,
}

/// The unit of times in `/proc`, on every processor.
const TICKS_PER_SEC: f64 = 100.0;

impl Process {
    fn read() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The name in parentheses may contain spaces, so fields are counted after it.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |index: usize| fields.get(index)?.parse::<f64>().ok();
        let boot = std::fs::read_to_string("/proc/stat").ok()?;
        let boot = boot.lines().find_map(|line| line.strip_prefix("btime "))?;
        Some(Self {
            cpu_secs: (field(11)? + field(12)?) / TICKS_PER_SEC,
            start_secs: boot.parse::<f64>().ok()? + field(19)? / TICKS_PER_SEC,
            resident_bytes: resident_bytes(&std::fs::read_to_string("/proc/self/status").ok()?)?,
            open_files: std::fs::read_dir("/proc/self/fd").ok()?.count() as f64,
        })
    }
}

/// Reads the memory from `/proc/self/status`: `stat` counts in pages, whose size is 4, 16 or 64 KiB on arm64.
fn resident_bytes(status: &str) -> Option<f64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib = line.trim().strip_suffix("kB")?.trim_end();
    Some(kib.parse::<f64>().ok()? * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_whatever_the_size_of_a_page() {
        let status = "Name:\tx\nVmHWM:\t   99999 kB\nVmRSS:\t   12345 kB\nRssAnon:\t 1 kB\n";
        assert_eq!(resident_bytes(status), Some(12345.0 * 1024.0));
        assert_eq!(resident_bytes("Name:\tx\n"), None);
        assert!(Process::read().unwrap().resident_bytes > 1e6);
    }
}
