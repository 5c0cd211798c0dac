//! The variables of the read API, and the worker beside it.

use serde_json::json;

use super::{SOON, context, event, map, path, store, version};
use crate::stand::{Stand, state};
use testkit::reader::KEY;
use testkit::{EdgeMock, Reader, Redis, free_port, http, until};

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_are_named_all_at_once() {
    let redis = Redis::start().await;
    let port = free_port();
    let reader = Reader::builder(&redis, "http://127.0.0.1:1")
        .env("PORT", port)
        .env("READ_PORT", port)
        .env("READ_API_KEYS", "a-key")
        .env("READ_API_KEYS_FILE", "/dev/null")
        .env("LOCAL_TTL_SECS", "30")
        .env("CACHE_TTL", "5m")
        .env("LOCAL_FRESH_MS", "soon")
        .env("LOCAL_MAX_BYTES", "1")
        .spawn();
    assert_eq!(reader.wait_exit(SOON).await, 78);
    let logs = reader.logs();
    for part in [
        &format!("READ_PORT is {port}, which is also PORT"),
        "READ_API_KEYS_FILE is set, and so is READ_API_KEYS",
        "LOCAL_TTL_SECS is 30 s but CACHE_TTL is 300 s",
        "LOCAL_FRESH_MS",
        "LOCAL_MAX_BYTES",
    ] {
        assert!(logs.contains(part), "{part} is missing:\n{logs}");
    }
    assert!(logs.starts_with("5 configuration errors:"), "{logs}");
    assert!(!logs.contains("a-key"), "{logs}");
    for (name, value) in [
        ("READ_PORT", "70000"),
        ("READ_API_KEYS", " , "),
        ("READ_API_KEYS_FILE", "/nowhere/at/all"),
        ("CACHE_TTL", "5x"),
        ("LOCAL_TTL_SECS", "soon"),
        ("LOCAL_FRESH_MS", "-1"),
    ] {
        let builder = Reader::builder(&redis, "http://127.0.0.1:1");
        let reader = match name {
            "READ_PORT" => {
                let builder = testkit::worker::Builder::of_command(&["serve"], &redis);
                builder.env(name, value).spawn()
            }
            _ => builder.env(name, value).spawn().into_process(),
        };
        assert_eq!(reader.wait_exit(SOON).await, 78, "{name}={value}");
        assert!(
            reader.logs().contains(name),
            "{name}={value}:\n{}",
            reader.logs()
        );
    }
    // The same value twice is no contradiction.
    let reader = Reader::builder(&redis, "http://127.0.0.1:1")
        .env("LOCAL_TTL_SECS", "300")
        .env("CACHE_TTL", "5m")
        .start()
        .await;
    reader.term();
    assert_eq!(reader.wait_exit(SOON).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_answers_beside_its_work() {
    let (stand, edge) = (Stand::start().await, EdgeMock::start().await);
    let port = free_port();
    let worker = stand
        .worker()
        .env("EDGE_API_URL", edge.url())
        .env("READ_PORT", port)
        .start()
        .await;
    let ask = async |customer: &str| {
        let path = path(customer);
        http::request(port, ("GET", &path), &[("x-api-key", KEY)], "")
            .await
            .unwrap()
    };
    store(&stand.redis, "acme", &map(1), 1);
    until("the reads follow Redis", SOON, async || {
        worker.metric("entitlement_sync_read_tracking_up").await == 1.0
    })
    .await;
    assert_eq!(version(&ask("acme").await), Some(1));
    // What it consumes is what it answers.
    stand.queue.send(&event("acme", 2)).await;
    until("the change is answered", SOON, async || {
        version(&ask("acme").await) == Some(2)
    })
    .await;
    let reply = http::request(
        port,
        ("POST", "/ofrep/v1/evaluate/flags/version"),
        &[("x-api-key", KEY)],
        &json!({"context": context("acme")}).to_string(),
    )
    .await
    .unwrap();
    assert_eq!(reply.json()["metadata"]["usageLimit"], 2, "{reply:?}");
    // The probes are on the other port only.
    assert_eq!(ask("acme").await.status, 200);
    let reply = http::request(port, ("GET", "/metrics"), &[("x-api-key", KEY)], "").await;
    assert_eq!(reply.unwrap().status, 404);
    // Questions are answered until the end, and consumption goes on.
    stand.queue.send(&state("other", 3_000)).await;
    stand.queue.wait_empty(SOON).await;
    worker.term();
    assert_eq!(worker.wait_exit(SOON).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_port_nothing_of_it_is_started() {
    let stand = Stand::start().await;
    let worker = stand.worker().start().await;
    stand.applies("acme", 2_000, SOON).await;
    let metrics = worker.http("/metrics").await.body;
    assert!(!metrics.contains("entitlement_sync_read_"), "{metrics}");
    let clients = stand.redis.cmd(&["CLIENT", "LIST"]);
    let clients: String = redis::from_redis_value(clients).unwrap();
    assert!(!clients.contains("entitlement-sync-reads"), "{clients}");
    let status = worker.http("/status").await.json();
    assert!(status["reads"].is_null(), "{status}");
}
