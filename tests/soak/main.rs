//! The soak: one worker that also answers questions, and one `serve`, under a steady load. Nothing fails; what is
//! looked for is what grows. `script/soak [--minutes N] [--rate N]`.

#![allow(clippy::unwrap_used)]

mod chart;
mod load;
mod questions;
mod report;
mod samples;
mod trend;
mod verdict;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use testkit::{Reader, Redis, Sqs, TestQueue, Worker, free_port, repo};
use tokio_util::sync::CancellationToken;

use load::Load;
use questions::Questions;
use report::Report;
use samples::Sampler;

#[derive(Parser, Clone)]
#[command(name = "soak")]
struct Arguments {
    /// How long the steady load lasts
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Messages a second
    #[arg(long, default_value_t = 500)]
    rate: u64,
    /// Questions a second, half of them to each process
    #[arg(long, default_value_t = 200)]
    questions: u64,
    /// Customers, all of whom are in Redis before the load begins
    #[arg(long, default_value_t = 5_000)]
    customers: usize,
    /// Write the picture and the report into docs
    #[arg(long)]
    docs: bool,
}

/// For a queue to become empty, with a margin for a machine that is busy.
const SETTLING: Duration = Duration::from_secs(120);
/// As for the shutdown of the worker, with a margin.
const SHUTDOWN: Duration = Duration::from_secs(15);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let folder = folder();
    std::fs::create_dir_all(&folder).unwrap();
    let report = runtime.block_on(run(&arguments, &folder));
    let text = report.text();
    print!("{text}");
    report.write(&folder);
    if arguments.docs {
        report.publish(&repo("docs"));
    }
    match report.passed() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// The samples, the picture, the report and the logs.
fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repo("target"), PathBuf::from);
    target.join("soak")
}

async fn run(arguments: &Arguments, folder: &Path) -> Report {
    let (redis, sqs) = tokio::join!(Redis::start(), Sqs::start());
    let redis = Arc::new(redis);
    let queue = sqs.queue("soak").await;
    let read_port = free_port();
    let worker = Worker::builder(&redis, &queue)
        .env("CONSUMERS", 10)
        .env("AWS_ENDPOINT_URL_SQS", sqs.endpoint())
        .env("READ_PORT", read_port)
        .start()
        .await;
    let reader = Reader::builder(&redis, "http://127.0.0.1:1").start().await;

    let mut load = Load::new(arguments.customers, sqs.client(), queue.url.clone());
    println!("soak: loads {} customers", arguments.customers);
    load.send_everyone().await;
    queue.wait_empty(SETTLING).await;

    let ports = [read_port, reader.read_port()];
    // Both have all customers in memory before anything is sampled.
    for port in ports {
        questions::ask_about_all(port, arguments.customers).await;
    }

    let length = Duration::from_secs_f64(arguments.minutes * 60.0);
    println!(
        "soak: {} messages and {} questions a second for {} s",
        arguments.rate,
        arguments.questions,
        length.as_secs()
    );
    let over = CancellationToken::new();
    let questions = Questions::start(&ports, arguments.questions, arguments.customers, &over);
    let processes = [("worker", worker.pid()), ("serve", reader.pid())];
    let sampler = Sampler::start(redis.clone(), queue.clone(), &processes, length, &over);
    let began = Instant::now();
    let sent = load.send_steadily(arguments.rate, length).await;
    let took = began.elapsed();
    over.cancel();
    let asked = questions.end().await;
    let samples = sampler.end().await;

    let mut report = Report::new(arguments, took, sent, asked, samples);
    settle(&queue, &mut report).await;
    report.compared = verdict::compare(&redis, &load.customers, &ports).await;
    report.take_metrics(&worker, &reader).await;
    for (name, process) in [("worker", &worker), ("serve", &*reader)] {
        process.term();
        let code = process.wait_exit(SHUTDOWN).await;
        report.check(code == 0, format!("{name} ended with code {code}"));
        std::fs::write(folder.join(format!("{name}.log")), process.logs()).unwrap();
    }
    report
}

async fn settle(queue: &TestQueue, report: &mut Report) {
    let began = Instant::now();
    while queue.depth().await > 0 {
        if began.elapsed() > SETTLING {
            report.check(false, format!("{} messages are left", queue.depth().await));
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
