//! The floor: receives and deletes, and nothing else. No parsing, no Redis, no metrics.
//!
//! Deletes go in batches of ten from all pollers together, or what there is after 50 ms, and no
//! poller waits for them: less cannot be asked of the same SDK for the same messages. It has as many
//! threads as the worker.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sqs::types::DeleteMessageBatchRequestEntry;
use entitlement_sync::runtime;
use tokio::sync::mpsc;

const FULL: usize = 10;
const PATIENCE: Duration = Duration::from_millis(50);

static READY: AtomicBool = AtomicBool::new(false);

fn main() -> anyhow::Result<()> {
    runtime::for_consumers(consumers())?.block_on(run())
}

fn number(name: &str) -> Option<usize> {
    std::env::var(name).ok()?.parse().ok()
}

fn consumers() -> usize {
    number("CONSUMERS").unwrap_or(10)
}

async fn run() -> anyhow::Result<()> {
    let url = std::env::var("QUEUE_URL").context("QUEUE_URL")?;
    let endpoint = std::env::var("AWS_ENDPOINT_URL_SQS").context("AWS_ENDPOINT_URL_SQS")?;
    let batch = number("BATCH_SIZE").unwrap_or(1);
    let tell = std::env::var("FLOOR_TELL").is_ok();
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .credentials_provider(Credentials::new("bench", "bench", None, None, "bench"))
        .build();
    let client = Client::from_conf(config);
    let (sender, receiver) = mpsc::channel(2_000);
    for _ in 0..consumers() {
        tokio::spawn(poll(
            client.clone(),
            url.clone(),
            batch,
            tell,
            sender.clone(),
        ));
    }
    drop(sender);
    delete(client, url, receiver).await;
    Ok(())
}

async fn poll(
    client: Client,
    url: String,
    batch: usize,
    tell: bool,
    receipts: mpsc::Sender<String>,
) {
    let mut wait = 0;
    loop {
        let answer = client
            .receive_message()
            .queue_url(&url)
            .max_number_of_messages(batch as i32)
            .wait_time_seconds(wait)
            .send()
            .await;
        let messages = match answer {
            Ok(answer) => answer.messages.unwrap_or_default(),
            Err(error) => {
                eprintln!("receive: {error:?}");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        wait = 20;
        if !READY.swap(true, Ordering::Relaxed) {
            println!("ready");
        }
        if tell && !messages.is_empty() {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_micros();
            let mut out = std::io::stdout().lock();
            for id in messages
                .iter()
                .filter_map(|message| message.message_id.as_ref())
            {
                if writeln!(out, "{id} {now}").is_err() {
                    return;
                }
            }
        }
        for receipt in messages
            .into_iter()
            .filter_map(|message| message.receipt_handle)
        {
            if receipts.send(receipt).await.is_err() {
                return;
            }
        }
    }
}

async fn delete(client: Client, url: String, mut receipts: mpsc::Receiver<String>) {
    loop {
        let mut batch = Vec::with_capacity(FULL);
        if receipts.recv_many(&mut batch, FULL).await == 0 {
            return;
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while batch.len() < FULL {
            let room = FULL - batch.len();
            match tokio::time::timeout_at(deadline, receipts.recv_many(&mut batch, room)).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        let entries = batch.into_iter().enumerate().map(|(id, receipt)| {
            DeleteMessageBatchRequestEntry::builder()
                .id(id.to_string())
                .receipt_handle(receipt)
                .build()
        });
        let entries: Vec<_> = match entries.collect() {
            Ok(entries) => entries,
            Err(error) => {
                eprintln!("delete: {error:?}");
                return;
            }
        };
        let call = client
            .delete_message_batch()
            .queue_url(&url)
            .set_entries(Some(entries));
        tokio::spawn(async move {
            if let Err(error) = call.send().await {
                eprintln!("delete: {error:?}");
            }
        });
    }
}
