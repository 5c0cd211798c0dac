//! Asks questions over connections that are kept.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Asks for one flag of a customer.
pub fn flag(customer: &str) -> String {
    let body = format!(r#"{{"context":{{"targetingKey":"{customer}"}}}}"#);
    format!(
        "POST /ofrep/v1/evaluate/flags/feature-00 HTTP/1.1\r\nHost: bench\r\nX-API-Key: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Reads one answer; returns where it ends.
pub async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<usize> {
    buffer.clear();
    let mut chunk = [0; 16_384];
    let mut end = None;
    loop {
        let count = stream.read(&mut chunk).await?;
        if count == 0 {
            bail!("the server closed the connection");
        }
        buffer.extend_from_slice(&chunk[..count]);
        if end.is_none()
            && let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n")
        {
            let head = std::str::from_utf8(&buffer[..at])?;
            let length = head
                .split("\r\n")
                .find_map(|line| {
                    line.to_ascii_lowercase()
                        .strip_prefix("content-length: ")?
                        .parse::<usize>()
                        .ok()
                })
                .context("no content-length")?;
            if !head.starts_with("HTTP/1.1 200") {
                bail!("{}", head.lines().next().unwrap_or_default());
            }
            end = Some(at + 4 + length);
        }
        if let Some(end) = end
            && buffer.len() >= end
        {
            return Ok(end);
        }
    }
}

pub async fn one(port: u16, request: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut buffer = Vec::new();
    let end = answer(&mut stream, &mut buffer).await?;
    Ok(String::from_utf8_lossy(&buffer[..end]).into_owned())
}

/// Questions over connections that are kept, each asked as soon as the one before is answered.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub connections: usize,
    /// How many customers are asked about.
    pub hot: usize,
    /// Answers count from here to the end.
    pub warm: Instant,
    pub end: Instant,
}

/// Returns how long the answers took, the shortest first.
pub async fn ask(
    port: u16,
    load: Load,
    request: impl Fn(usize) -> String,
) -> Result<Vec<Duration>> {
    let Load { hot, end, .. } = load;
    let request = &request;
    let mut tasks = Vec::new();
    for connection in 0..load.connections {
        tasks.push(async move {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
            stream.set_nodelay(true)?;
            let (mut buffer, mut times) = (Vec::new(), Vec::new());
            let mut rank = connection.wrapping_mul(7_919) % hot;
            loop {
                let started = Instant::now();
                if started >= end {
                    return anyhow::Ok(times);
                }
                stream.write_all(request(rank).as_bytes()).await?;
                answer(&mut stream, &mut buffer).await?;
                if started >= load.warm {
                    times.push(started.elapsed());
                }
                rank = (rank + 104_729) % hot;
            }
        });
    }
    let mut times: Vec<Duration> = join(tasks).await?.into_iter().flatten().collect();
    times.sort_unstable();
    if times.is_empty() {
        bail!("nothing was answered");
    }
    Ok(times)
}

/// The time within which this part of the answers came, in microseconds.
pub fn quantile(times: &[Duration], part: f64) -> f64 {
    times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6
}

pub async fn join<T>(tasks: Vec<impl Future<Output = Result<T>>>) -> Result<Vec<T>> {
    let local = tokio::task::LocalSet::new();
    let mut results = Vec::new();
    for result in local.run_until(futures_util::future::join_all(tasks)).await {
        results.push(result?);
    }
    Ok(results)
}
