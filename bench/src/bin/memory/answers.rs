//! Answers while a snapshot is written, and without.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::runtime::Runtime;

use bench::questions::{Load, ask, flag, quantile};

use super::worker::{Store, Worker, drained};
use super::{Plan, Servers, customers};

/// Of one window.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// That were begun in it.
    pub snapshots: u32,
}

/// One window without snapshots, and one with one after the other.
pub struct Round {
    pub connections: usize,
    pub without: Window,
    pub with: Window,
}

const WARM: Duration = Duration::from_millis(500);
const WINDOW: Duration = Duration::from_secs(3);

pub fn measure(runtime: &Runtime, servers: &mut Servers, plan: &Plan) -> Result<Vec<Round>> {
    let corpus = customers::write(&plan.disk, 0..plan.customers)?;
    let queue = servers.new_queue();
    servers.queue.fill(&queue, &corpus, plan.customers)?;
    let folder = plan.disk.join("answers");
    let worker = Worker::start(plan, servers, &queue, &Store::Memory(&folder))?;
    drained(servers, &queue, plan.customers)?;
    worker.wait_proven(runtime)?;
    let mut rounds = Vec::new();
    for round in 0..plan.rounds {
        for &connections in &plan.connections {
            let window = |saves| runtime.block_on(window(&worker, plan, connections, saves));
            // Each is first in turn.
            let (without, with) = if round % 2 == 0 {
                (window(false)?, window(true)?)
            } else {
                let with = window(true)?;
                (window(false)?, with)
            };
            rounds.push(Round {
                connections,
                without,
                with,
            });
        }
    }
    drop(worker);
    servers.queue.drop(&queue)?;
    Ok(rounds)
}

async fn window(worker: &Worker, plan: &Plan, connections: usize, saves: bool) -> Result<Window> {
    let warm = Instant::now() + WARM;
    let load = Load {
        connections,
        hot: plan.customers.min(10_000),
        warm,
        end: warm + WINDOW,
    };
    let written = Cell::new(0);
    let saving = async {
        while saves && Instant::now() < load.end {
            written.set(written.get() + 1);
            worker.save().await?;
        }
        anyhow::Ok(())
    };
    let asking = ask(worker.read_port, load, |rank| flag(&customers::name(rank)));
    let (times, saved) = tokio::join!(asking, saving);
    saved?;
    let times = times?;
    Ok(Window {
        per_second: times.len() as f64 / WINDOW.as_secs_f64(),
        p50_us: quantile(&times, 0.5),
        p99_us: quantile(&times, 0.99),
        snapshots: written.get(),
    })
}
