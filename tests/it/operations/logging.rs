//! Standard error that is not read stops nothing: not the start, not the work, not the end.

use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::stand::{SOON, Stand, state};
use testkit::until;

/// What a pipe holds on Linux.
const PIPE: usize = 65_536;

/// A pipe that takes no byte more.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&[b'\n'; PIPE]).unwrap();
    (reader, writer)
}

/// Reads a log to its end in a thread. Sends each number of dropped lines that the log reports.
fn reports_of_dropped_lines(reader: PipeReader) -> Receiver<f64> {
    let (sender, reports) = channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(reader).lines().map_while(Result::ok);
        for line in lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok()) {
            if line["message"]
                == "log lines were dropped because standard error was not read in time"
            {
                let _ = sender.send(line["dropped"].as_f64().unwrap());
            }
        }
    });
    reports
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_standard_error_stops_neither_start_nor_work_nor_end() {
    let stand = Stand::start().await;
    let (_reader, writer) = full_pipe();
    let worker = stand
        .worker()
        .env("LOG_LEVEL", "debug")
        .env("RUST_LOG", "trace")
        .spawn_with_stderr(writer);
    worker.wait_ready().await;
    for round in 0..20 {
        stand.send(&format!("customer-{round}"), 1_000).await;
    }
    stand.queue.wait_empty(SOON).await;
    assert_eq!(worker.http("/livez").await.status, 200);
    assert_eq!(worker.http("/readyz").await.status, 200);
    worker.term();
    assert_eq!(worker.wait_exit(Duration::from_secs(8)).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_dropped_is_counted_and_said_once_the_reader_reads_again() {
    let stand = Stand::start().await;
    let (reader, writer) = full_pipe();
    let worker = stand
        .worker()
        .env("LOG_FORMAT", "json")
        .env("RUST_LOG", "trace")
        .spawn_with_stderr(writer);
    worker.wait_ready().await;
    until("lines are dropped", Duration::from_secs(60), async || {
        // The worker logs many lines for each message at this level.
        let bodies = (0..100).map(|round| state("acme", 1_000 + round));
        stand.queue.send_all(bodies).await;
        worker
            .metric("entitlement_sync_log_lines_dropped_total")
            .await
            > 0.0
    })
    .await;
    let reports = reports_of_dropped_lines(reader);
    let mut reported = 0.0;
    until("the log reports all dropped lines", SOON, async || {
        reported = reports.try_iter().last().unwrap_or(reported);
        let dropped = worker
            .metric("entitlement_sync_log_lines_dropped_total")
            .await;
        assert!(reported <= dropped);
        reported == dropped
    })
    .await;
    worker.term();
    assert_eq!(worker.wait_exit(Duration::from_secs(8)).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once_with_a_full_standard_error_too() {
    let stand = Stand::start().await;
    let (_reader, writer) = full_pipe();
    let worker = stand
        .worker()
        .env("LOG_LEVEL", "debug")
        .env("SHUTDOWN_TIMEOUT_SECS", "60")
        .spawn_with_stderr(writer);
    worker.wait_ready().await;
    // A locked customer lets the drain take as long as it may.
    stand
        .redis
        .cmd(&["SET", "production-acme", "random", "PX", "60000"]);
    stand.send("acme", 1_000).await;
    until("the worker meets the lock", SOON, async || {
        worker.metric("entitlement_sync_locked_retries_total").await > 0.0
    })
    .await;
    worker.term();
    worker.wait_unready().await;
    worker.term();
    assert_eq!(worker.wait_exit(Duration::from_secs(5)).await, 143);
}

/// The reader is gone altogether, as after `| head`.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_standard_error_is_no_reason_to_stop() {
    let stand = Stand::start().await;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let worker = stand
        .worker()
        .env("LOG_LEVEL", "debug")
        .spawn_with_stderr(writer);
    worker.wait_ready().await;
    stand.send("acme", 1_000).await;
    stand.queue.wait_empty(SOON).await;
    worker.term();
    assert_eq!(worker.wait_exit(Duration::from_secs(8)).await, 0);
}

/// A wrong configuration, a port in use, and a probe: each says why on a pipe that is full, and ends.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_ends_at_once_ends_with_a_full_standard_error_too() {
    let stand = Stand::start().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let (_reader, writer) = full_pipe();
    let worker = stand
        .worker()
        .env("BATCH_SIZE", "99")
        .spawn_with_stderr(writer.try_clone().unwrap());
    assert_eq!(worker.wait_exit(SOON).await, 78);
    let worker = stand
        .worker()
        .env("PORT", port)
        .spawn_with_stderr(writer.try_clone().unwrap());
    assert_eq!(worker.wait_exit(SOON).await, 70);

    let mut probe = Command::new(env!("CARGO_BIN_EXE_entitlement-sync"))
        .arg("healthcheck")
        .env_clear()
        .env("PORT", "1")
        .stderr(Stdio::from(writer))
        .spawn()
        .unwrap();
    let started = Instant::now();
    let mut code = None;
    until("the probe has ended", SOON, async || {
        code = probe.try_wait().unwrap().and_then(|status| status.code());
        code.is_some() || started.elapsed() > SOON
    })
    .await;
    assert_eq!(code, Some(1));
}
