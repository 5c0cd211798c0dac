//! Drives the bench of the read API: the same questions to the floor, to `serve`, and to the vendor's SDK in a Node
//! server. Servers run on one core, questions come from another.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream as StdTcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bench::process::{Process, free_port};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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

fn number(name: &str, default: usize) -> Result<usize> {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .with_context(|| format!("{name} is not a number")),
        Err(_) => Ok(default),
    }
}

/// Numbers, separated by commas.
fn numbers(name: &str, default: &[usize]) -> Result<Vec<usize>> {
    let Ok(text) = std::env::var(name) else {
        return Ok(default.to_vec());
    };
    let numbers: Result<Vec<usize>, _> = text.split(',').map(str::parse).collect();
    numbers.map_err(|_| anyhow::anyhow!("{name} is not a list of numbers"))
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
    let redis_port = free_port()?;
    let _redis = Process::start(
        Command::new("redis-server")
            .args(["--port", &redis_port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--loglevel", "warning"]),
        &[],
    )?;
    wait_port(redis_port)?;
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
                        (process, port),
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

fn customer(rank: usize) -> String {
    format!("customer-{rank:07}")
}

/// The entitlements of a customer: half of them metered.
fn entitlements(features: usize, usage: usize) -> (String, Vec<(String, String)>) {
    let mut map = serde_json::Map::new();
    let mut usages = Vec::new();
    for at in 0..features {
        let id = format!("feature-{at:02}");
        let is_metered = at % 2 == 0;
        let feature = match is_metered {
            true => {
                json!({"id": id, "featureType": "NUMBER", "meterType": "Fluctuating", "units": "seat", "unitsPlural": "seats"})
            }
            false => json!({"id": id, "featureType": "BOOLEAN", "units": "", "unitsPlural": ""}),
        };
        map.insert(id.clone(), json!({
            "calculatedEntitlement": {"feature": feature, "usageLimit": 1_000_000, "hasUnlimitedUsage": false, "hasSoftLimit": false, "enumValues": []},
            "featureUsage": {"resetPeriod": "MONTH", "resetPeriodConfiguration": {"__typename": "MonthlyResetPeriodConfig", "monthlyAccordingTo": "SubscriptionStart"},
                "currentUsage": 0, "usagePeriodAnchor": 1_761_955_200_000_u64, "usagePeriodStart": 1_761_955_200_000_u64, "usagePeriodEnd": 4_102_444_800_000_u64},
        }));
        if is_metered {
            usages.push((id, json!({"currentUsage": usage, "usagePeriodStart": 1_761_955_200_000_u64, "usagePeriodEnd": 4_102_444_800_000_u64}).to_string()));
        }
    }
    (serde_json::Value::Object(map).to_string(), usages)
}

fn command(words: &[&str]) -> String {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text += &format!("${}\r\n{word}\r\n", word.len());
    }
    text
}

/// The commands that write a customer, one for all its keys.
fn write_customer(rank: usize, features: usize, usage: usize, at: u64) -> String {
    let key = format!("production:c_{}", customer(rank));
    let (map, usages) = entitlements(features, usage);
    let at = at.to_string();
    let mut words = vec![
        "MSET".to_owned(),
        key.clone(),
        map,
        format!("{key}#timestamp"),
        at.clone(),
    ];
    for (feature, value) in usages {
        words.extend([format!("{key}:f_{feature}"), value]);
        words.extend([format!("{key}:f_{feature}#timestamp"), at.clone()]);
    }
    command(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

fn fill(redis_port: u16, plan: &Plan) -> Result<()> {
    let mut stream = StdTcpStream::connect(("127.0.0.1", redis_port))?;
    let mut answers = stream.try_clone()?;
    let expected = plan.customers * 5;
    let reading = std::thread::spawn(move || {
        let mut bytes = vec![0; expected];
        std::io::Read::read_exact(&mut answers, &mut bytes)
    });
    for rank in 0..plan.customers {
        stream.write_all(write_customer(rank, plan.features, 1, 1_763_000_000_000).as_bytes())?;
    }
    reading
        .join()
        .map_err(|_| anyhow::anyhow!("reading failed"))??;
    Ok(())
}

fn request(question: Question, rank: usize) -> String {
    let customer = customer(rank);
    match question {
        Question::Flag => {
            let body = format!(r#"{{"context":{{"targetingKey":"{customer}"}}}}"#);
            format!(
                "POST /ofrep/v1/evaluate/flags/feature-00 HTTP/1.1\r\nHost: bench\r\nX-API-Key: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        }
        Question::List => format!(
            "GET /v1/c/{customer}/entitlements.json HTTP/1.1\r\nHost: bench\r\nX-API-Key: bench\r\n\r\n"
        ),
    }
}

fn node_request(question: Question, rank: usize) -> String {
    let path = match question {
        Question::Flag => format!("/flag?customer={}&feature=feature-00", customer(rank)),
        Question::List => format!("/list?customer={}", customer(rank)),
    };
    format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n")
}

/// Reads one answer; returns where it ends.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<usize> {
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

async fn one(port: u16, request: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut buffer = Vec::new();
    let end = answer(&mut stream, &mut buffer).await?;
    Ok(String::from_utf8_lossy(&buffer[..end]).into_owned())
}

/// Every customer once, so that the copy holds all of them.
async fn ask_all(port: u16, plan: &Plan) -> Result<()> {
    let mut tasks = Vec::new();
    for first in 0..32 {
        let (customers, step) = (plan.customers, 32);
        tasks.push(async move {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
            let mut buffer = Vec::new();
            for rank in (first..customers).step_by(step) {
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

async fn join<T>(tasks: Vec<impl Future<Output = Result<T>>>) -> Result<Vec<T>> {
    let local = tokio::task::LocalSet::new();
    let mut results = Vec::new();
    for result in local.run_until(futures_util::future::join_all(tasks)).await {
        results.push(result?);
    }
    Ok(results)
}

async fn measure(
    (process, port): (&Process, u16),
    (who, question, connections): (Who, Question, usize),
    changes: Option<u16>,
    plan: &Plan,
) -> Result<Figure> {
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
    let mut tasks = Vec::new();
    for connection in 0..connections {
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
                stream.write_all(ask(rank).as_bytes()).await?;
                answer(&mut stream, &mut buffer).await?;
                if started >= warm {
                    times.push(started.elapsed());
                }
                rank = (rank + 104_729) % hot;
            }
        });
    }
    let usage = async {
        tokio::time::sleep_until(warm.into()).await;
        let before = process.usage()?.cpu;
        tokio::time::sleep_until(end.into()).await;
        anyhow::Ok(process.usage()?.cpu - before)
    };
    let writing = async {
        if let Some(redis_port) = changes {
            change(redis_port, hot, plan.features, end).await?;
        }
        anyhow::Ok(())
    };
    let (times, cpu, wrote) = tokio::join!(join(tasks), usage, writing);
    wrote?;
    let mut times: Vec<Duration> = times?.into_iter().flatten().collect();
    times.sort_unstable();
    if times.is_empty() {
        bail!("nothing was answered");
    }
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    Ok(Figure {
        rate: times.len() as f64 / plan.window.as_secs_f64(),
        cpu_micros: cpu?.as_secs_f64() * 1e6 / times.len() as f64,
        p50_micros: at(0.5),
        p99_micros: at(0.99),
    })
}

/// A thousand customers a second, spread evenly.
async fn change(redis_port: u16, hot: usize, features: usize, end: Instant) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", redis_port)).await?;
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let (mut rank, mut usage) = (0, 2);
    let mut answers = vec![0; 50];
    while Instant::now() < end {
        ticks.tick().await;
        let mut commands = String::new();
        for _ in 0..10 {
            rank = (rank + 7_907) % hot;
            usage += 1;
            commands += &write_customer(rank, features, usage, 1_763_000_000_000 + usage as u64);
        }
        stream.write_all(commands.as_bytes()).await?;
        stream.read_exact(&mut answers).await?;
    }
    Ok(())
}

/// From the write to the first answer that has it: median and 99th part of a hundred.
async fn visible(port: u16, redis_port: u16, plan: &Plan) -> Result<(f64, f64)> {
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

fn print(plan: &Plan, measured: &Measured) {
    let Plan {
        customers,
        features,
        rounds,
        ..
    } = plan;
    println!("{customers} customers of {features} features, median of {rounds} rounds\n");
    println!(
        "| Question | Connections | | Questions/s | of the floor | CPU, us | p50, us | p99, us | p99, of the floor |"
    );
    println!("|---|---:|---|---:|---:|---:|---:|---:|---:|");
    for ((question, connections, who), figure) in &measured.figures {
        let floor = &measured.figures[&(*question, *connections, Who::Floor)];
        let question = match question {
            Question::Flag => "one flag",
            Question::List => "all entitlements",
        };
        println!(
            "| {question} | {connections} | {} | {:.0} | {:.0} % | {:.1} | {:.0} | {:.0} | {:.1} |",
            who.name(),
            figure.rate,
            figure.rate / floor.rate * 100.0,
            figure.cpu_micros,
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
