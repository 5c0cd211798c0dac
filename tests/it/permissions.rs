//! Rights that are missing in Redis: said once, as an error, and mended without a restart.

use std::time::Duration;

use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::redis::Redis;
use crate::support::sqs::Sqs;
use crate::support::until;
use crate::support::worker::Worker;

const LIMIT: Duration = Duration::from_secs(30);
/// What docs/operations.md tells people to grant, and no more.
const RIGHTS: &str = "~production:* ~production-* +ping +info +client|id +client|setname +select +wait +eval +evalsha +get +mget +set +del +xadd";

fn grant(redis: &Redis, rights: &str) {
    let mut command = vec!["ACL", "SETUSER", "sync", "reset", "on", ">pass"];
    command.extend(rights.split(' '));
    redis.cmd(&command);
}

fn body() -> String {
    json!({
        "type": "entitlements.updated",
        "timestamp": "2025-11-14T19:59:45.200Z",
        "customerId": "acme",
        "entitlements": [],
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_rights_suffice() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("rights").await;
    grant(&redis, RIGHTS);
    let port = redis.port().to_string();
    let _replica = Redis::start_with(&["--replicaof", "127.0.0.1", &port]).await;
    let worker = Worker::builder(&redis, &queue)
        .env("REDIS_USERNAME", "sync")
        .env("REDIS_PASSWORD", "pass")
        .env("MAX_RECEIVE_COUNT", 1)
        .env("REDIS_WAIT_REPLICAS", 1)
        .start()
        .await;
    queue.send(&body()).await;
    queue
        .send(&json!({"type": "customer.deleted", "customerId": "gone"}).to_string())
        .await;
    queue.send("no JSON").await;
    queue.wait_empty(LIMIT).await;
    assert!(redis.get("production:c_acme").is_some());
    assert!(redis.get("production:c_gone#purged").is_some());
    assert_eq!(
        worker.metric("entitlement_sync_redis_errors_total").await,
        0.0
    );
    let operations = std::fs::read_to_string(crate::support::repo("docs/operations.md")).unwrap();
    assert!(
        operations.contains(RIGHTS),
        "docs/operations.md does not name {RIGHTS}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_documented_for_a_cluster_suffice() {
    const SLOT: u16 = 15_882;
    let rights = RIGHTS
        .replace("production", "{production}")
        .replace("+select", "+cluster|slots");
    let (cluster, sqs) = (Cluster::start(0, SLOT).await, Sqs::start().await);
    let queue = sqs.queue("rights").await;
    for node in &cluster.nodes {
        grant(node, &rights);
    }
    let worker = Worker::builder(&cluster.nodes[0], &queue)
        .env("REDIS_MODE", "cluster")
        .env("ENVIRONMENT_PREFIX", "{production}")
        .env("REDIS_USER", "sync")
        .env("REDIS_PASSWORD", "pass")
        .env("MAX_RECEIVE_COUNT", 1)
        .start()
        .await;
    queue.send(&body()).await;
    queue.send("no JSON").await;
    queue.wait_empty(LIMIT).await;
    assert!(cluster.get("{production}:c_acme").is_some());
    assert_eq!(
        worker.metric("entitlement_sync_redis_errors_total").await,
        0.0
    );
    let operations = std::fs::read_to_string(crate::support::repo("docs/operations.md")).unwrap();
    assert!(
        operations.contains(&rights),
        "docs/operations.md does not name {rights}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_closes_the_gate_names_itself_and_is_mended_without_a_restart() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("rights").await;
    grant(&redis, &RIGHTS.replace(" +set", ""));
    let worker = Worker::builder(&redis, &queue)
        .env("REDIS_USER", "sync")
        .env("REDIS_PASSWORD", "pass")
        .spawn();
    until("it is said", LIMIT, async || {
        worker
            .try_http("/readyz?verbose")
            .await
            .is_ok_and(|reply| reply.body.contains("NOPERM"))
    })
    .await;
    assert!(
        worker.logs().contains("ERROR"),
        "it needs a person, so it is an error"
    );
    queue.send(&body()).await;
    grant(&redis, RIGHTS);
    worker.wait_ready().await;
    queue.wait_empty(LIMIT).await;
    assert!(redis.get("production:c_acme").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_missing_on_some_keys_only_makes_no_hot_loop_and_loses_nothing() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("rights").await;
    // The marker may be written, so the probe finds nothing wrong; customers may not.
    grant(
        &redis,
        &RIGHTS.replace(
            "~production:* ~production-*",
            "~production:entitlement-sync",
        ),
    );
    let worker = Worker::builder(&redis, &queue)
        .env("REDIS_USER", "sync")
        .env("REDIS_PASSWORD", "pass")
        .start()
        .await;
    queue.send(&body()).await;
    until("it fails again and again", LIMIT, async || {
        worker.metric("entitlement_sync_redis_errors_total").await >= 4.0
    })
    .await;
    let said = worker.logs().matches("Redis refuses us").count();
    assert!(said < 12, "said {said} times");
    assert_eq!(
        worker
            .metric("entitlement_sync_messages_redelivered_total")
            .await,
        0.0
    );
    grant(&redis, RIGHTS);
    queue.wait_empty(LIMIT).await;
    assert!(redis.get("production:c_acme").is_some());
}
