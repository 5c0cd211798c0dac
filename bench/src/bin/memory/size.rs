//! The memory that customers take, and the bound on it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use tokio::runtime::Runtime;

use super::worker::{MAX_BYTES, Store, Worker, drained};
use super::{Plan, Servers, customers};

/// A process at rest.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// What is in the queue so far.
    pub customers: usize,
    pub held: f64,
    pub evicted: f64,
    pub rss: f64,
    /// What it counts itself, for `LOCAL_MAX_BYTES`.
    pub counted: f64,
}

pub struct Sizes {
    /// At none, at all, and at twice as many customers.
    pub free: Vec<Size>,
    /// The same with a bound that is smaller than they are.
    pub bounded: Vec<Size>,
}

/// The `LOCAL_MAX_BYTES` of the second process.
pub const BOUND: u64 = 64 << 20;
/// What was freed goes back to the system by then.
const REST: Duration = Duration::from_secs(2);

pub fn measure(runtime: &Runtime, servers: &mut Servers, plan: &Plan) -> Result<Sizes> {
    let corpora = [
        customers::write(&plan.disk, 0..plan.customers)?,
        customers::write(&plan.disk, plan.customers..2 * plan.customers)?,
    ];
    Ok(Sizes {
        free: load(runtime, servers, plan, &corpora, MAX_BYTES)?,
        bounded: load(runtime, servers, plan, &corpora, BOUND)?,
    })
}

fn load(
    runtime: &Runtime,
    servers: &mut Servers,
    plan: &Plan,
    corpora: &[PathBuf],
    max_bytes: u64,
) -> Result<Vec<Size>> {
    let queue = servers.new_queue();
    servers.queue.fill(&queue, &corpora[0], 0)?;
    let folder = plan.disk.join(format!("size-{max_bytes}"));
    let worker = Worker::bounded(plan, servers, &queue, &Store::Memory(&folder), max_bytes)?;
    let mut sizes = vec![at_rest(runtime, &worker, 0)?];
    for (number, corpus) in (1..).zip(corpora) {
        servers.queue.fill(&queue, corpus, plan.customers)?;
        drained(servers, &queue, number * plan.customers)?;
        sizes.push(at_rest(runtime, &worker, number * plan.customers)?);
    }
    drop(worker);
    servers.queue.drop(&queue)?;
    std::fs::remove_dir_all(folder)?;
    Ok(sizes)
}

fn at_rest(runtime: &Runtime, worker: &Worker, customers: usize) -> Result<Size> {
    std::thread::sleep(REST);
    let metric = |name| worker.metric(runtime, name);
    Ok(Size {
        customers,
        held: metric("entitlement_sync_memory_owners")?,
        evicted: metric("entitlement_sync_memory_evictions_total")?,
        counted: metric("entitlement_sync_memory_state_bytes")?,
        rss: worker.rss_bytes()?,
    })
}
