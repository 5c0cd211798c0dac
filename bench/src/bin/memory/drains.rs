//! Draining a full queue: into Redis, and into memory with the journal in memory and on disk.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use tokio::runtime::Runtime;

use bench::drain::{warm_up, watch};
use testkit::mix::{CUSTOMERS, Shape, messages};

use super::worker::{Store, Worker, drained};
use super::{Plan, Servers, customers};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    Redis,
    Tmpfs,
    Disk,
}

impl Way {
    pub const ALL: [Self; 3] = [Self::Redis, Self::Tmpfs, Self::Disk];

    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "Redis",
            Self::Tmpfs => "memory, journal on tmpfs",
            Self::Disk => "memory, journal on disk",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Drained {
    pub per_second: f64,
    pub cpu_us: f64,
    pub peak_rss_mb: f64,
}

pub struct Drains {
    /// By round, in the order of `Way::ALL`.
    pub rounds: Vec<[Drained; 3]>,
    /// The median time of one sync of 16 kB on the disk.
    pub sync_ms: f64,
}

pub fn measure(runtime: &Runtime, servers: &mut Servers, plan: &Plan) -> Result<Drains> {
    let corpus = plan.disk.join("corpus.jsonl");
    let mut file = BufWriter::new(File::create(&corpus)?);
    for message in messages(1, Shape::Payload, plan.messages) {
        writeln!(file, "{message}")?;
    }
    file.flush()?;
    let cached = cached(runtime, servers, plan)?;
    let mut rounds = Vec::new();
    for round in 0..plan.rounds {
        let mut ways = Way::ALL;
        ways.rotate_left(round % Way::ALL.len());
        let mut found = Vec::new();
        for way in ways {
            let drained =
                drain(servers, plan, way, &corpus, &cached).with_context(|| format!("{way:?}"))?;
            found.push((way, drained));
        }
        found.sort_by_key(|(way, _)| *way);
        rounds.push([found[0].1, found[1].1, found[2].1]);
    }
    Ok(Drains {
        rounds,
        sync_ms: sync_ms(&plan.disk)?,
    })
}

/// A folder whose snapshot has the customers that Redis has before a drain.
fn cached(runtime: &Runtime, servers: &mut Servers, plan: &Plan) -> Result<PathBuf> {
    let folder = plan.disk.join("cached");
    let corpus = customers::write_empty(&plan.disk)?;
    let queue = servers.new_queue();
    let count = CUSTOMERS as usize;
    servers.queue.fill(&queue, &corpus, count)?;
    let worker = Worker::start(plan, servers, &queue, &Store::Memory(&folder))?;
    drained(servers, &queue, count)?;
    runtime.block_on(worker.save())?;
    drop(worker);
    servers.queue.drop(&queue)?;
    Ok(folder)
}

fn drain(
    servers: &mut Servers,
    plan: &Plan,
    way: Way,
    corpus: &Path,
    cached: &Path,
) -> Result<Drained> {
    let own = match way {
        Way::Redis => None,
        Way::Tmpfs => Some(plan.tmpfs.join("state")),
        Way::Disk => Some(plan.disk.join("state")),
    };
    match &own {
        None => servers.redis.reset(CUSTOMERS)?,
        Some(folder) => copy(cached, folder)?,
    }
    let queue = servers.new_queue();
    servers.queue.fill(&queue, corpus, plan.messages)?;
    let store = own.as_deref().map_or(Store::Redis, Store::Memory);
    let worker = Worker::start(plan, servers, &queue, &store)?;
    warm_up(&mut servers.queue, &queue, plan.messages, plan.timing)?;
    let watched = watch(
        &mut servers.queue,
        &queue,
        plan.messages,
        plan.timing,
        |_| worker.process.usage(),
    );
    drop(worker);
    servers.queue.drop(&queue)?;
    if let Some(folder) = own {
        fs::remove_dir_all(folder)?;
    }
    let (first, last) = watched?;
    let messages = (last.counts.deleted - first.counts.deleted) as f64;
    Ok(Drained {
        per_second: messages / last.at.duration_since(first.at).as_secs_f64(),
        cpu_us: (last.of.cpu - first.of.cpu).as_secs_f64() * 1e6 / messages,
        peak_rss_mb: last.of.peak_rss_kib as f64 / 1024.0,
    })
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for file in fs::read_dir(from)? {
        let file = file?;
        fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}

fn sync_ms(folder: &Path) -> Result<f64> {
    let mut file = File::create(folder.join("sync"))?;
    let mut took = Vec::new();
    for _ in 0..51 {
        let started = Instant::now();
        file.write_all(&[7; 16_384])?;
        file.sync_data()?;
        took.push(started.elapsed().as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    Ok(took[took.len() / 2])
}
