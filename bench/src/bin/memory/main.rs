//! Drives the bench of memory mode: draining beside Redis mode, answers while a snapshot is written, and the memory that
//! customers take. docs/performance.md says how to read it.

mod answers;
mod customers;
mod drains;
mod report;
mod size;
mod worker;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use bench::drain::Timing;
use bench::environment::{number, numbers};
use bench::process::kill_all;
use bench::servers::{QueueServer, Redis};

/// How much is measured, and where.
struct Plan {
    rounds: usize,
    messages: usize,
    timing: Timing,
    customers: usize,
    connections: Vec<usize>,
    worker: PathBuf,
    /// A folder on disk for everything that is written, and one in memory.
    disk: PathBuf,
    tmpfs: PathBuf,
}

/// What the workers consume and write to.
struct Servers {
    queue: QueueServer,
    redis: Redis,
    queues: u32,
}

impl Servers {
    fn new_queue(&mut self) -> String {
        self.queues += 1;
        format!("memory-{}", self.queues)
    }
}

fn main() -> Result<()> {
    let plan = Plan::from_environment()?;
    let measured = run(&plan);
    kill_all();
    // What is left in them is of no use.
    let _ = std::fs::remove_dir_all(&plan.tmpfs);
    let _ = std::fs::remove_dir_all(&plan.disk);
    let text = measured?;
    println!("{text}");
    match std::env::var("BENCH_DOCS") {
        Ok(docs) if !docs.is_empty() => bench::page::replace(docs.as_ref(), "bench memory", &text),
        _ => Ok(()),
    }
}

fn run(plan: &Plan) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    for folder in [&plan.disk, &plan.tmpfs] {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let mut servers = Servers {
        queue: QueueServer::start(
            &path("BENCH_NODE")?,
            &path("BENCH_PEERS")?,
            &path("BENCH_MODULES")?,
        )?,
        redis: Redis::start()?,
        queues: 0,
    };
    let drains = drains::measure(&runtime, &mut servers, plan)?;
    eprintln!("draining is measured");
    let sizes = size::measure(&runtime, &mut servers, plan)?;
    eprintln!("memory is measured");
    let answers = answers::measure(&runtime, &mut servers, plan)?;
    report::text(plan, &drains, &answers, &sizes)
}

impl Plan {
    fn from_environment() -> Result<Self> {
        let millis =
            |name, default| number(name, default).map(|it| Duration::from_millis(it as u64));
        let own = format!("bench-memory-{}", std::process::id());
        Ok(Self {
            rounds: number("BENCH_ROUNDS", 7)?,
            messages: number("BENCH_MESSAGES", 40_000)?,
            timing: Timing {
                warm: millis("BENCH_WARM_MS", 400)?,
                window: millis("BENCH_WINDOW_MS", 1_500)?,
            },
            customers: number("BENCH_MEMORY_CUSTOMERS", 100_000)?,
            connections: numbers("BENCH_CONNECTIONS", &[1, 8])?,
            worker: path("BENCH_WORKER")?,
            disk: path("BENCH_FOLDER")?.join(&own),
            tmpfs: PathBuf::from("/dev/shm").join(&own),
        })
    }
}

fn path(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os(name);
    let path = path.with_context(|| format!("{name} is not set: run script/bench --memory"))?;
    Ok(path.into())
}
