//! Memory stays bounded whatever stands in the queue.

use std::time::Duration;

use serde_json::json;

use crate::support::redis::Redis;
use crate::support::sqs::Sqs;
use crate::support::worker::Worker;

/// The largest that SQS takes, nearly.
fn body(customer: usize) -> String {
    let padding = "x".repeat(1_040_000);
    json!({
        "type": "entitlements.updated",
        "timestamp": "2025-11-14T19:59:45.200Z",
        "customer": {"id": format!("customer-{customer}"), "name": padding},
        "entitlements": [],
    })
    .to_string()
}

fn peak_rss_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_consumers_with_batches_of_1_mib_bodies_fit_in_256_mib() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("large").await;
    for customer in 0..110 {
        queue.send(&body(customer)).await;
    }
    let worker = Worker::builder(&redis, &queue)
        .env("CONSUMERS", 10)
        .env("BATCH_SIZE", 10)
        .start()
        .await;
    queue.wait_empty(Duration::from_secs(60)).await;
    assert_eq!(redis.dump("production:c_").len(), 4 * 110);
    let peak = peak_rss_mib(worker.pid());
    assert!(peak < 256, "peak resident memory was {peak} MiB");
    assert!(worker.metric("entitlement_sync_inflight_messages").await == 0.0);
}

/// A plan weighs many times what its body does, and one connection carries those of all consumers.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_with_thousands_of_metered_features_are_applied_and_fit_in_256_mib() {
    const FEATURES: usize = 11_000;
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("wide").await;
    let entitlements: Vec<_> = (0..FEATURES)
        .map(|number| {
            json!({"feature": {"id": number.to_string(), "featureType": "NUMBER", "meterType": "Incremental"},
                "currentUsage": 1})
        })
        .collect();
    for customer in 0..20 {
        let body = json!({
            "type": "entitlements.updated",
            "timestamp": "2025-11-14T19:59:45.200Z",
            "customerId": format!("customer-{customer}"),
            "entitlements": entitlements,
        });
        let body = body.to_string();
        assert!((900_000..1_048_576).contains(&body.len()), "{}", body.len());
        queue.send(&body).await;
    }
    let worker = Worker::builder(&redis, &queue)
        .env("CONSUMERS", 10)
        .env("BATCH_SIZE", 10)
        .env("MAX_INFLIGHT_BYTES", 32 << 20)
        .start()
        .await;
    queue.wait_empty(Duration::from_secs(120)).await;
    for customer in 0..20 {
        let last = format!("production:c_customer-{customer}:f_{}", FEATURES - 1);
        assert_eq!(redis.get(&last).as_deref(), Some(r#"{"currentUsage":1}"#));
    }
    let peak = peak_rss_mib(worker.pid());
    assert!(peak < 256, "peak resident memory was {peak} MiB");
}
