//! Memory stays bounded whatever stands in the queue.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use testkit::redis::Redis;
use testkit::sqs::Sqs;
use testkit::worker::Worker;

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

pub fn peak_rss_mib(pid: u32) -> u64 {
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

/// Bodies of 1 MiB and less that are made to weigh much more once they are read, each for a worker of
/// its own, and often enough that several consumers have one.
async fn assert_fit(bodies: &[(&str, String)]) {
    const LIMIT_MIB: u64 = 256;
    const COPIES: usize = 3;
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let mut peaks = String::new();
    let mut is_too_large = false;
    for (name, body) in bodies {
        assert!(body.len() <= 1 << 20, "{name}: {}", body.len());
        let queue = sqs.queue(name).await;
        for _ in 0..COPIES {
            queue.send(body).await;
        }
        let worker = Worker::builder(&redis, &queue)
            .env("CONSUMERS", 10)
            .env("BATCH_SIZE", 1)
            .env("MAX_RECEIVE_COUNT", 1)
            .start()
            .await;
        queue.wait_empty(Duration::from_secs(120)).await;
        let peak = peak_rss_mib(worker.pid());
        is_too_large |= peak >= LIMIT_MIB;
        writeln!(peaks, "{peak:>4} MiB {name}").unwrap();
        drop(worker);
        redis.cmd(&["FLUSHALL"]);
    }
    println!("{peaks}");
    assert!(!is_too_large, "the limit is {LIMIT_MIB} MiB:\n{peaks}");
}

fn metered_features(count: usize) -> Vec<Value> {
    let feature = |number: usize| {
        json!({"feature": {"id": number.to_string(), "featureType": "NUMBER", "meterType": "Incremental"},
            "currentUsage": 1})
    };
    (0..count).map(feature).collect()
}

fn entitlements_of(customer: &str, entitlements: &[Value]) -> String {
    json!({"type": "ENTITLEMENTS_UPDATED", "customerId": customer, "entitlements": entitlements})
        .to_string()
}

fn empty_objects(kind: &str, count: usize) -> String {
    let list = vec!["{}"; count].join(",");
    format!(r#"{{"type":"{kind}","customerId":"acme","entitlements":[{list}]}}"#)
}

fn purge_of(ids: usize, length: usize) -> String {
    let ids: Vec<String> = (0..ids)
        .map(|id| format!("{:0length$}", id % 10_usize.pow(length.min(9) as u32)))
        .collect();
    json!({"type": "CUSTOMER_DELETED", "customerIds": ids}).to_string()
}

/// Base64 of gzip.
fn packed(text: &str) -> String {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(text.as_bytes()).unwrap();
    STANDARD.encode(gzip.finish().unwrap())
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

fn wide_object(members: usize) -> String {
    let members: Vec<String> = (0..members).map(|it| format!(r#""{it}":0"#)).collect();
    format!("{{{}}}", members.join(","))
}

#[tokio::test(flavor = "multi_thread")]
async fn long_ids_and_long_lists_fit() {
    assert_fit(&[
        (
            "id-of-4000-letters",
            entitlements_of(&"x".repeat(4_000), &metered_features(9_000)),
        ),
        (
            "id-of-450-letters",
            entitlements_of(&"x".repeat(450), &metered_features(9_000)),
        ),
        (
            "empty-340000",
            empty_objects("ENTITLEMENTS_UPDATED", 340_000),
        ),
        ("empty-32768", empty_objects("ENTITLEMENTS_UPDATED", 32_768)),
        ("purge-170000", purge_of(170_000, 3)),
        ("purge-32768", purge_of(32_768, 28)),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_searched_by_structure_fits() {
    let nested = |open: &str, close: &str, depth: usize| {
        format!("{}1{}", open.repeat(depth), close.repeat(depth))
    };
    let strings = (0..6).fold(r#"{"a":1}"#.to_owned(), |text, _| {
        format!(
            r#"{{"x":{},"padding":"{}"}}"#,
            quoted(&text),
            "y".repeat(10_000)
        )
    });
    let long = "z".repeat(350_000);
    let many = |entry: &str, count: usize| vec![entry; count].join(",");
    assert_fit(&[
        ("empty-ignored", empty_objects("PLAN_CREATED", 340_000)),
        ("empty-unknown", empty_objects("something.new", 340_000)),
        ("lists-in-lists", nested("[", "]", 500_000)),
        ("objects-in-objects", nested(r#"{"a":"#, "}", 160_000)),
        ("strings-in-strings", strings),
        ("wide-object", wide_object(100_000)),
        ("base64-700-kib", STANDARD.encode("x".repeat(700 << 10))),
        (
            "objects-of-one",
            format!("[{}]", many(r#"{"":0}"#, 149_000)),
        ),
        (
            "long-name",
            format!(
                r#"{{"type":"{long}","customerId":"a","featureId":"f","events":[{}]}}"#,
                many(r#"{"currentUsage":1}"#, 30_000)
            ),
        ),
        (
            "long-reason",
            format!(
                r#"{{"accessDeniedReason":"{long}","customerId":"a","events":[{}]}}"#,
                many(r#"{"entitlements":[]}"#, 20_000)
            ),
        ),
        (
            "lists-of-empty",
            format!(
                r#"{{"customerId":"a","events":[{}]}}"#,
                many(
                    &format!(r#"{{"entitlements":[{}]}}"#, many("{}", 30_000)),
                    11
                )
            ),
        ),
        (
            "lists-in-payloads",
            (0..7).fold("1".to_owned(), |payload, _| {
                format!(
                    r#"{{"type":"ENTITLEMENTS_UPDATED","entitlements":[{}],"payload":{payload}}}"#,
                    many("{}", 32_768)
                )
            }),
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unpacked_fits() {
    let list = |entry: &str| {
        let entries = vec![entry; (8 << 20) / (entry.len() + 1) - 20];
        entries.join(",")
    };
    let within = |list: &str| format!(r#"{{"customerId":"a","entitlements":[{list}]}}"#);
    assert_fit(&[
        (
            "bomb-too-large",
            packed(&format!("[{}]", list("0,0,0,0,0,0"))),
        ),
        ("bomb-zeros", packed(&format!("[{}]", list("0")))),
        ("bomb-objects", packed(&format!("[{}]", list(r#"{"":0}"#)))),
        ("bomb-members", packed(&wide_object(300_000))),
        (
            "bomb-in-string",
            format!(r#"{{"x":"{}"}}"#, packed(&format!("[{}]", list("[]")))),
        ),
        (
            "bomb-data",
            packed(&format!(r#"{{"data":{}}}"#, wide_object(300_000))),
        ),
        ("bomb-entitlements", packed(&within(&list("{}")))),
        (
            "bomb-enum-values",
            packed(&within(&format!(
                r#"{{"enumValues":[{}]}}"#,
                list(r#""a""#)
            ))),
        ),
        (
            "bomb-times",
            packed(&(0..7).fold("1".to_owned(), |inner, _| {
                format!(
                    r#"{{"usageUpdatedAt":{inner},"padding":"{}"}}"#,
                    "p".repeat(1_000_000)
                )
            })),
        ),
        (
            "metered-32000",
            packed(&entitlements_of("acme", &metered_features(32_000))),
        ),
    ])
    .await;
}
