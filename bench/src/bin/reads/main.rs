//! Drives the bench of the read API: the same questions to the floor, to `serve`, and to the vendor's SDK in a Node
//! server. Servers and Redis run on one core, questions come from another, which never sleeps.

mod ask;
mod crowd;
mod customers;
mod report;

use std::collections::BTreeMap;
use std::net::TcpStream as StdTcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bench::environment::{number, numbers};
use bench::process::{Process, free_port, pin};
use bench::servers::Redis;

use ask::{ask_all, measure, request, visible};
use bench::questions::one;
use crowd::Crowd;
use customers::fill;

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Floor,
    Copy,
    Redis,
    Changing,
    Node,
}

impl Who {
    const ALL: [Self; 5] = [
        Self::Floor,
        Self::Copy,
        Self::Redis,
        Self::Changing,
        Self::Node,
    ];

    /// The name in `BENCH_ONLY`.
    fn word(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Copy => "copy",
            Self::Redis => "redis",
            Self::Changing => "changing",
            Self::Node => "node",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Copy => "ours, from the copy",
            Self::Redis => "ours, from Redis",
            Self::Changing => "ours, 1,000 changes a second",
            Self::Node => "SDK 3.95 in Node, from Redis",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Question {
    Flag,
    List,
}

impl Question {
    fn name(self) -> &'static str {
        match self {
            Self::Flag => "one flag",
            Self::List => "all entitlements",
        }
    }
}

/// What one window measured.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    rate: f64,
    cpu_micros: f64,
    /// Of the server and of Redis.
    with_redis_micros: f64,
    p50_micros: f64,
    p99_micros: f64,
}

struct Plan {
    customers: usize,
    features: usize,
    window: Duration,
    rounds: usize,
    connections: Vec<usize>,
    who: Vec<Who>,
    /// How many customers are asked for in turn of a process that cannot hold them; 0: none.
    crowd: usize,
}

/// All, or those that `BENCH_ONLY` names.
fn contestants() -> Vec<Who> {
    let only = std::env::var("BENCH_ONLY").ok();
    let is_asked = |who: &Who| match &only {
        Some(only) => only.split(',').any(|word| word == who.word()),
        None => true,
    };
    // Ratios need the floor.
    let all = Who::ALL.into_iter();
    all.filter(|who| *who == Who::Floor || is_asked(who))
        .collect()
}

fn program(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: use script/bench --reads"))
}

fn main() -> Result<()> {
    let plan = Plan {
        customers: number("BENCH_READS_CUSTOMERS", 100_000)?,
        features: number("BENCH_READS_FEATURES", 5)?,
        window: Duration::from_millis(number("BENCH_WINDOW_MS", 3_000)? as u64),
        rounds: number("BENCH_ROUNDS", 3)?,
        connections: numbers("BENCH_CONNECTIONS", &[1, 32, 256])?,
        who: contestants(),
        crowd: number("BENCH_READS_CROWD", 1_000_000)?,
    };
    // The questions come from the second core, if there is one.
    // Before the pin: it tells of all cores.
    let heading = bench::page::heading(plan.rounds)?;
    if bench::page::cores() > 1 {
        pin(std::process::id(), "1");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let measured = run(&runtime, &plan);
    bench::process::kill_all();
    let text = report::text(&heading, &plan, &measured?)?;
    println!("{text}");
    match std::env::var("BENCH_DOCS") {
        Ok(docs) if !docs.is_empty() => bench::page::replace(docs.as_ref(), "bench reads", &text),
        _ => Ok(()),
    }
}

/// A process on the first core alone.
fn on_first_core(program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "0", program]);
    command
}

/// Holds all customers of the plan.
const COPY_BYTES: &str = "268435456";

struct Measured {
    /// By round.
    samples: BTreeMap<(Question, usize, Who), Vec<Sample>>,
    rss_kib: (u64, u64),
    visible_millis: (f64, f64),
    crowd: Option<Crowd>,
}

fn run(runtime: &tokio::runtime::Runtime, plan: &Plan) -> Result<Measured> {
    let Redis {
        process: redis,
        port: redis_port,
    } = Redis::start()?;
    // The other core is always busy, so Redis runs on the core of the servers.
    if bench::page::cores() > 1 {
        pin(redis.id(), "0");
    }
    fill(redis_port, plan.features, 0..plan.customers)?;

    let worker = program("BENCH_WORKER")?;
    let serve = |max_bytes: &str| -> Result<(Process, u16, u16)> {
        let (port, read_port) = (free_port()?, free_port()?);
        let process = Process::start(
            on_first_core(&worker).arg("serve"),
            &[
                ("REDIS_HOST", "127.0.0.1".into()),
                ("REDIS_PORT", redis_port.to_string()),
                ("SERVER_API_KEY", "bench".into()),
                ("EDGE_API_URL", "http://127.0.0.1:9".into()),
                ("DISABLE_SENTRY", "1".into()),
                ("LOG_LEVEL", "error".into()),
                ("PORT", port.to_string()),
                ("READ_PORT", read_port.to_string()),
                ("LOCAL_MAX_BYTES", max_bytes.into()),
            ],
        )?;
        wait_port(read_port)?;
        Ok((process, port, read_port))
    };
    let (ours, _, ours_port) = serve(COPY_BYTES)?;
    // So small that nearly each question goes to Redis.
    let (small, _, small_port) = serve("1048576")?;
    let before = ours.usage()?.rss_kib;
    runtime.block_on(ask_all(ours_port, plan.customers))?;
    let after = ours.usage()?.rss_kib;

    let node_port = free_port()?;
    let node = Process::start(
        on_first_core(&program("BENCH_NODE")?)
            .arg(format!("{}/reads.mjs", program("BENCH_PEERS")?)),
        &[
            ("BENCH_MODULES", program("BENCH_MODULES")?),
            // It asks for its configuration at start, and for nothing else: Redis holds every customer.
            ("EDGE_API_URL", format!("http://127.0.0.1:{ours_port}")),
            ("REDIS_PORT", redis_port.to_string()),
            ("READ_PORT", node_port.to_string()),
        ],
    )?;
    node.line()?;

    let mut floors = BTreeMap::new();
    for question in [Question::Flag, Question::List] {
        let answer = runtime.block_on(one(ours_port, &request(question, 0)))?;
        let file = std::env::temp_dir().join(format!("floor-{}-{question:?}", std::process::id()));
        std::fs::write(&file, answer)?;
        let port = free_port()?;
        let floor = Process::start(
            &mut on_first_core(&program("BENCH_READS_FLOOR")?),
            &[
                ("READ_PORT", port.to_string()),
                ("FLOOR_ANSWER", file.display().to_string()),
            ],
        )?;
        wait_port(port)?;
        floors.insert(question, (floor, port));
    }

    let mut samples: BTreeMap<_, Vec<Sample>> = BTreeMap::new();
    for round in 0..plan.rounds {
        for question in [Question::Flag, Question::List] {
            for &connections in &plan.connections {
                let mut everybody = plan.who.clone();
                everybody.rotate_left(round % plan.who.len());
                for who in everybody {
                    let (process, port) = match who {
                        Who::Floor => {
                            let (floor, port) = &floors[&question];
                            (floor, *port)
                        }
                        Who::Copy | Who::Changing => (&ours, ours_port),
                        Who::Redis => (&small, small_port),
                        Who::Node => (&node, node_port),
                    };
                    let changes = (who == Who::Changing).then_some(redis_port);
                    let sample = runtime.block_on(measure(
                        (process, &redis, port),
                        (who, question, connections),
                        changes,
                        plan,
                    ))?;
                    let asked = (question, connections, who);
                    samples.entry(asked).or_default().push(sample);
                }
            }
        }
    }
    let visible = runtime.block_on(visible(ours_port, redis_port, plan))?;
    drop((ours, small, node, floors));
    let mut crowd = None;
    if plan.crowd > 0 {
        eprintln!("the questions are measured");
        fill(redis_port, plan.features, plan.customers..plan.crowd)?;
        let (process, port, read_port) = serve(&crowd::BOUND.to_string())?;
        let asked = crowd::measure((&process, port, read_port), plan.crowd);
        crowd = Some(runtime.block_on(asked)?);
    }
    Ok(Measured {
        samples,
        rss_kib: (before, after),
        visible_millis: visible,
        crowd,
    })
}

fn wait_port(port: u16) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while StdTcpStream::connect(("127.0.0.1", port)).is_err() {
        if Instant::now() > deadline {
            bail!("nothing listens on port {port}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
