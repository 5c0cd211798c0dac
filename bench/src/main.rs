//! Drives the bench: the same messages, the same queue server and the same Redis for everybody, in
//! turn. docs/performance.md says how to read it.

mod contestants;
mod measure;
mod report;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use bench::environment::{number, numbers};
use bench::process;
use contestants::{Contestant, Kind};
use measure::{Bench, Bodies, Scale};
use report::Results;
use testkit::TcpProxy;
use testkit::mix::{CUSTOMERS, Shape, messages_of};

/// Where the programs are; `script/bench` tells.
pub struct Tools {
    pub worker: PathBuf,
    pub floor: PathBuf,
    pub node: PathBuf,
    pub python: PathBuf,
    /// The directory of our own scripts.
    pub peers: PathBuf,
    /// The directory that holds `node_modules`.
    pub installed: PathBuf,
}

/// How much is measured.
struct Plan {
    seed: u64,
    rounds: usize,
    messages: usize,
    warm: Duration,
    window: Duration,
    steady: Duration,
    idle: Duration,
    batches: Vec<usize>,
    consumers: Vec<usize>,
    round_trips: Vec<u64>,
    kinds: Vec<Kind>,
    scales: Vec<Scale>,
    sharing: Vec<Bodies>,
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.spawn(async {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            process::kill_all();
            std::process::exit(130);
        }
    });
    let tools = Tools {
        worker: path("BENCH_WORKER")?,
        floor: path("BENCH_FLOOR")?,
        node: path("BENCH_NODE")?,
        python: path("BENCH_PYTHON")?,
        peers: path("BENCH_PEERS")?,
        installed: path("BENCH_MODULES")?,
    };
    let plan = Plan::from_environment()?;
    let corpus = tools.installed.join("corpus.jsonl");
    write_corpus(&corpus, CUSTOMERS, &plan)?;
    let results = run(tools, runtime, corpus, &plan)?;
    results.publish(&path("BENCH_DOCS")?)
}

impl Plan {
    fn from_environment() -> Result<Self> {
        let millis = |name, default| number(name, default).map(Duration::from_millis);
        let seconds = |name, default| number(name, default).map(Duration::from_secs);
        let only = std::env::var("BENCH_ONLY").unwrap_or_default();
        Ok(Self {
            seed: number("BENCH_SEED", 1)?,
            rounds: number("BENCH_ROUNDS", 5)?,
            messages: number("BENCH_MESSAGES", 40_000)?,
            warm: millis("BENCH_WARM_MS", 400)?,
            window: millis("BENCH_WINDOW_MS", 1_500)?,
            steady: seconds("BENCH_STEADY_SECS", 4)?,
            idle: seconds("BENCH_IDLE_SECS", 60)?,
            batches: numbers("BENCH_BATCHES", &[1, 10])?,
            consumers: numbers("BENCH_CONSUMERS", &[1, 10, 40])?,
            round_trips: numbers("BENCH_ROUND_TRIPS", &[0, 10, 25])?,
            kinds: Kind::ALL
                .into_iter()
                .filter(|kind| only.is_empty() || only.split(',').any(|key| key == kind.key()))
                .collect(),
            scales: match number("BENCH_SCALE", 1)? {
                0 => Vec::new(),
                _ => Scale::all().collect(),
            },
            sharing: match number("BENCH_SHARING", 1)? {
                0 => Vec::new(),
                _ => Bodies::ALL.to_vec(),
            },
        })
    }

    /// Everything that drains, in an order that is turned from round to round.
    fn drains(&self) -> Vec<(u64, Contestant)> {
        let mut drains = Vec::new();
        for &round_trip in &self.round_trips {
            for &consumers in &self.consumers {
                for &batch in &self.batches {
                    for &kind in &self.kinds {
                        // Two processes are of use where the queue's distance is the limit, and
                        // Python is there for comparison, not to be tuned.
                        let left_out = match kind {
                            Kind::OursTwice => round_trip == 0 || consumers > 10 || batch == 1,
                            Kind::Python => consumers != 10 || batch == 1,
                            _ => false,
                        };
                        if !left_out {
                            let contestant = Contestant {
                                kind,
                                batch,
                                consumers,
                            };
                            drains.push((round_trip, contestant));
                        }
                    }
                }
            }
        }
        drains
    }

    fn steady(&self) -> Vec<Contestant> {
        let mut steady = Vec::new();
        for &batch in &self.batches {
            for &kind in &self.kinds {
                if kind != Kind::OursTwice && (kind != Kind::Python || batch > 1) {
                    steady.push(Contestant {
                        kind,
                        batch,
                        consumers: 10,
                    });
                }
            }
        }
        steady
    }

    fn idle(&self) -> Vec<Contestant> {
        let kinds = self.kinds.iter().filter(|kind| **kind != Kind::OursTwice);
        kinds
            .map(|&kind| Contestant {
                kind,
                batch: 10,
                consumers: 10,
            })
            .collect()
    }
}

fn run(
    tools: Tools,
    runtime: tokio::runtime::Runtime,
    corpus: PathBuf,
    plan: &Plan,
) -> Result<Results> {
    let mut results = Results::new(&tools)?;
    let mut bench = Bench::new(
        tools,
        runtime,
        corpus,
        plan.messages,
        plan.warm,
        plan.window,
    )?;
    let direct = bench.queue.address;
    let mut ways: Vec<(u64, SocketAddr)> = Vec::new();
    // The longer ways, for as long as they are needed.
    let mut proxies: Vec<TcpProxy> = Vec::new();
    for &millis in &plan.round_trips {
        let way = match millis {
            0 => direct,
            _ => {
                let proxy = bench.runtime.block_on(TcpProxy::start(direct.port()));
                proxy.delay(Duration::from_millis(millis) / 2);
                let port = proxy.port();
                proxies.push(proxy);
                SocketAddr::from(([127, 0, 0, 1], port))
            }
        };
        results.round_trip(millis, bench.round_trip(way)?);
        ways.push((millis, way));
    }
    let mut scales: Vec<(Scale, PathBuf)> = Vec::new();
    for &scale in &plan.scales {
        let of = format!("corpus-{}.jsonl", scale.customers);
        let corpus = bench.tools.installed.join(of);
        write_corpus(&corpus, scale.customers, plan)?;
        scales.push((scale, corpus));
    }
    let started = Instant::now();
    let (mut drains, mut steady) = (plan.drains(), plan.steady());
    for round in 0..plan.rounds {
        for &(round_trip, contestant) in &drains {
            let way = ways.iter().find(|(millis, _)| *millis == round_trip);
            let (_, way) = way.context("a way for each round trip")?;
            let drained = bench
                .drain(contestant, *way)
                .with_context(|| format!("{contestant:?} at {round_trip} ms"))?;
            results.drained(round_trip, contestant, drained);
        }
        if !plan.steady.is_zero() {
            for &contestant in &steady {
                let measured = bench
                    .steady(contestant, plan.steady)
                    .with_context(|| format!("{contestant:?} at a steady load"))?;
                results.steady(contestant, measured);
            }
        }
        for (scale, corpus) in &scales {
            let ours = Contestant {
                kind: Kind::Ours,
                batch: 10,
                consumers: 10,
            };
            let drained = bench
                .drain_at(*scale, corpus, ours, direct)
                .with_context(|| format!("{scale:?}"))?;
            results.scaled(*scale, drained);
        }
        for &bodies in &plan.sharing {
            let shared = bench
                .shared(bodies, direct)
                .with_context(|| format!("{bodies:?} beside another client"))?;
            results.shared(bodies, shared);
        }
        // Everybody is first once, and has another one before it.
        let turn = drains.len() / plan.rounds.max(1) + 1;
        let by = turn % drains.len().max(1);
        drains.rotate_left(by);
        steady.rotate_left(1);
        scales.reverse();
        eprintln!(
            "round {} of {} done after {} s",
            round + 1,
            plan.rounds,
            started.elapsed().as_secs()
        );
    }
    if !plan.idle.is_zero() {
        let idle = plan.idle();
        for (contestant, measured) in idle.iter().zip(bench.idle(&idle, plan.idle)?) {
            results.idle(*contestant, measured);
        }
    }
    results.rounds = plan.rounds;
    Ok(results)
}

/// Of messages for so many customers.
fn write_corpus(to: &Path, customers: u32, plan: &Plan) -> Result<()> {
    let mut file = BufWriter::new(File::create(to)?);
    for message in messages_of(customers, plan.seed, Shape::Payload, plan.messages) {
        writeln!(file, "{message}")?;
    }
    Ok(file.flush()?)
}

fn path(name: &str) -> Result<PathBuf> {
    let path =
        std::env::var_os(name).with_context(|| format!("{name} is not set: run script/bench"))?;
    Ok(path.into())
}
