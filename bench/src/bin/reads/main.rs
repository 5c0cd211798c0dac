//! Drives the bench of the read API: the same questions to the floor, to `serve`, and to the vendor's SDK in a Node
//! server. Servers run on one core, questions come from another.

mod ask;
mod customers;

use std::collections::BTreeMap;
use std::net::TcpStream as StdTcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bench::environment::{number, numbers};
use bench::process::{Process, free_port};
use bench::servers::Redis;

use ask::{ask_all, measure, request, visible};
use bench::questions::one;
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

/// What one run measured.
#[derive(Debug, Clone, Copy, Default)]
struct Figure {
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
    };
    // The questions come from the second core, if there is one.
    pin(std::process::id(), 1);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let measured = run(&runtime, &plan);
    bench::process::kill_all();
    print(&plan, &measured?);
    Ok(())
}

fn pin(id: u32, core: usize) {
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) {
        let _ = Command::new("taskset")
            .args(["-a", "-cp", &core.to_string(), &id.to_string()])
            .stdout(std::process::Stdio::null())
            .status();
    }
}

/// A process on the first core alone.
fn on_first_core(program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "0", program]);
    command
}

struct Measured {
    figures: BTreeMap<(Question, usize, Who), Figure>,
    rss_kib: (u64, u64),
    visible_millis: (f64, f64),
}

fn run(runtime: &tokio::runtime::Runtime, plan: &Plan) -> Result<Measured> {
    let Redis {
        process: redis,
        port: redis_port,
    } = Redis::start()?;
    fill(redis_port, plan)?;

    let worker = program("BENCH_WORKER")?;
    let serve = |max_bytes: &str| -> Result<(Process, u16)> {
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
        Ok((process, read_port))
    };
    let (ours, ours_port) = serve("1073741824")?;
    // So small that nearly each question goes to Redis.
    let (small, small_port) = serve("1048576")?;
    let before = ours.usage()?.rss_kib;
    runtime.block_on(ask_all(ours_port, plan))?;
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

    let mut all: BTreeMap<(Question, usize, Who), Vec<Figure>> = BTreeMap::new();
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
                    let figure = runtime.block_on(measure(
                        (process, &redis, port),
                        (who, question, connections),
                        changes,
                        plan,
                    ))?;
                    all.entry((question, connections, who))
                        .or_default()
                        .push(figure);
                }
            }
        }
    }
    let visible = runtime.block_on(visible(ours_port, redis_port, plan))?;
    Ok(Measured {
        figures: all
            .into_iter()
            .map(|(key, runs)| (key, median(runs)))
            .collect(),
        rss_kib: (before, after),
        visible_millis: visible,
    })
}

fn median(mut runs: Vec<Figure>) -> Figure {
    runs.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    runs[runs.len() / 2]
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

fn print(plan: &Plan, measured: &Measured) {
    let Plan {
        customers,
        features,
        rounds,
        ..
    } = plan;
    println!("{customers} customers of {features} features, median of {rounds} rounds\n");
    println!(
        "| Question | Connections | | Questions/s | of the floor | CPU, us | with Redis, us | p50, us | p99, us | p99, of the floor |"
    );
    println!("|---|---:|---|---:|---:|---:|---:|---:|---:|---:|");
    for ((question, connections, who), figure) in &measured.figures {
        let floor = &measured.figures[&(*question, *connections, Who::Floor)];
        let question = match question {
            Question::Flag => "one flag",
            Question::List => "all entitlements",
        };
        println!(
            "| {question} | {connections} | {} | {:.0} | {:.0} % | {:.1} | {:.1} | {:.0} | {:.0} | {:.1} |",
            who.name(),
            figure.rate,
            figure.rate / floor.rate * 100.0,
            figure.cpu_micros,
            figure.with_redis_micros,
            figure.p50_micros,
            figure.p99_micros,
            figure.p99_micros / floor.p99_micros,
        );
    }
    let (before, after) = measured.rss_kib;
    println!(
        "\nMemory: {:.1} MB before, {:.1} MB with {customers} customers: {:.0} bytes a customer.",
        before as f64 / 1024.0,
        after as f64 / 1024.0,
        (after.saturating_sub(before) * 1024) as f64 / *customers as f64,
    );
    let (median, late) = measured.visible_millis;
    println!("A change is answered {median:.2} ms after it was sent (median), {late:.2} ms (p99).");
}
