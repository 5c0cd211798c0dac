//! More customers than fit into the copy, each asked for once.

use std::time::Duration;

use anyhow::{Context, Result};
use bench::process::Process;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::ask::ask_all;

/// The default in a container of 256 MB.
pub const BOUND: u64 = 64 << 20;

/// What the process held at most.
pub struct Crowd {
    pub customers: usize,
    pub most_counted: f64,
    pub peak_rss_kib: u64,
    pub evicted: f64,
}

/// Asks the process for each customer, and watches what it holds meanwhile.
pub async fn measure(
    (process, port, read_port): (&Process, u16, u16),
    customers: usize,
) -> Result<Crowd> {
    let asking = ask_all(read_port, customers);
    tokio::pin!(asking);
    let mut most_counted = 0.0_f64;
    loop {
        tokio::select! {
            asked = &mut asking => break asked?,
            () = tokio::time::sleep(Duration::from_millis(500)) => {
                most_counted = most_counted.max(metric(port, "entitlement_sync_read_copies_bytes").await?);
            }
        }
    }
    most_counted = most_counted.max(metric(port, "entitlement_sync_read_copies_bytes").await?);
    Ok(Crowd {
        customers,
        most_counted,
        peak_rss_kib: process.usage()?.peak_rss_kib,
        evicted: metric(port, "entitlement_sync_read_evictions_total").await?,
    })
}

async fn metric(port: u16, name: &str) -> Result<f64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
        .await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.with_context(|| format!("/metrics has no {name}"))?;
    Ok(value.trim().parse()?)
}
