//! Asks questions over connections that are kept, and measures the answers.

use std::time::{Duration, Instant};

use anyhow::Result;
use bench::process::Process;
use bench::questions::{self, Load, answer, join, quantile};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::customers::{change, customer, write_customer};
use super::{Plan, Question, Sample, Who};

pub fn request(question: Question, rank: usize) -> String {
    let customer = customer(rank);
    match question {
        Question::Flag => questions::flag(&customer),
        Question::List => format!(
            "GET /v1/c/{customer}/entitlements.json HTTP/1.1\r\nHost: bench\r\nX-API-Key: bench\r\n\r\n"
        ),
    }
}

pub fn node_request(question: Question, rank: usize) -> String {
    let path = match question {
        Question::Flag => format!("/flag?customer={}&feature=feature-00", customer(rank)),
        Question::List => format!("/list?customer={}", customer(rank)),
    };
    format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n")
}

/// Every customer once, so that the copy holds all of them, or as many as fit.
pub async fn ask_all(port: u16, customers: usize) -> Result<()> {
    let mut tasks = Vec::new();
    for first in 0..32 {
        tasks.push(async move {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
            let mut buffer = Vec::new();
            for rank in (first..customers).step_by(32) {
                stream
                    .write_all(request(Question::Flag, rank).as_bytes())
                    .await?;
                answer(&mut stream, &mut buffer).await?;
            }
            anyhow::Ok(())
        });
    }
    join(tasks).await.map(drop)
}

pub async fn measure(
    (process, redis, port): (&Process, &Process, u16),
    (who, question, connections): (Who, Question, usize),
    changes: Option<u16>,
    plan: &Plan,
) -> Result<Sample> {
    // Hot customers: those of the copy are its own, and all of them are asked by the one that reads Redis.
    let hot = match who {
        Who::Redis => plan.customers,
        _ => plan.customers.min(10_000),
    };
    let ask = |rank: usize| match who {
        Who::Node => node_request(question, rank),
        _ => request(question, rank),
    };
    let warm = Instant::now() + Duration::from_millis(500);
    let end = warm + plan.window;
    let usage = async {
        tokio::time::sleep_until(warm.into()).await;
        let before = (process.usage()?.cpu, redis.usage()?.cpu);
        tokio::time::sleep_until(end.into()).await;
        let (server, redis) = (
            process.usage()?.cpu - before.0,
            redis.usage()?.cpu - before.1,
        );
        anyhow::Ok((server, server + redis))
    };
    let writing = async {
        if let Some(redis_port) = changes {
            change(redis_port, hot, plan.features, end).await?;
        }
        anyhow::Ok(())
    };
    let load = Load {
        connections,
        hot,
        warm,
        end,
    };
    // A server that is slower than we are would pay for waking us with each answer, and one that is faster would not.
    let awake = tokio::spawn(stay_awake());
    let (times, cpu, wrote) = tokio::join!(questions::ask(port, load, ask), usage, writing);
    awake.abort();
    wrote?;
    let times = times?;
    let (server, with_redis) = cpu?;
    let micros_each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / times.len() as f64;
    Ok(Sample {
        rate: times.len() as f64 / plan.window.as_secs_f64(),
        cpu_micros: micros_each(server),
        with_redis_micros: micros_each(with_redis),
        p50_micros: quantile(&times, 0.5),
        p99_micros: quantile(&times, 0.99),
    })
}

/// Keeps this thread from sleeping.
async fn stay_awake() {
    loop {
        tokio::task::yield_now().await;
    }
}

/// From the write to the first answer that has it: median and 99th part of a hundred.
pub async fn visible(port: u16, redis_port: u16, plan: &Plan) -> Result<(f64, f64)> {
    let mut redis = TcpStream::connect(("127.0.0.1", redis_port)).await?;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (mut buffer, mut times) = (Vec::new(), Vec::new());
    for round in 0..300_usize {
        let usage = 500_000 + round;
        let at = 1_763_100_000_000 + round as u64;
        let started = Instant::now();
        redis
            .write_all(write_customer(round, plan.features, usage, at).as_bytes())
            .await?;
        let mut ok = [0; 5];
        redis.read_exact(&mut ok).await?;
        let expected = format!("\"currentUsage\":{usage}");
        loop {
            stream
                .write_all(request(Question::Flag, round).as_bytes())
                .await?;
            let end = answer(&mut stream, &mut buffer).await?;
            if String::from_utf8_lossy(&buffer[..end]).contains(&expected) {
                break;
            }
        }
        times.push(started.elapsed().as_secs_f64() * 1_000.0);
    }
    times.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2], times[times.len() * 99 / 100]))
}
