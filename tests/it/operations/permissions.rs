//! Missing permissions in Redis: one error in the log, and a fix is picked up without a restart.

use std::time::Duration;

use serde_json::json;

use testkit::cluster::Cluster;
use testkit::edge::{Answer, EdgeMock};
use testkit::redis::Redis;
use testkit::sqs::{Sqs, TestQueue};
use testkit::worker::Worker;
use testkit::{Reader, until};

const LIMIT: Duration = Duration::from_secs(30);
/// What docs/operations.md tells people to grant, and no more.
const RIGHTS: &str = "~production:* ~production-* +ping +info +client|id +client|setname +select +wait +eval +evalsha +get +mget +set +del +xadd";

/// The same of a process that only answers.
const RIGHTS_OF_READERS: &str = "~production:* ~production-* +ping +info +client|id +client|setname +client|tracking +hello +select +eval +evalsha +get +mget +set +del";

fn grant(redis: &Redis, rights: &str) {
    let mut command = vec!["ACL", "SETUSER", "sync", "reset", "on", ">pass"];
    command.extend(rights.split(' '));
    redis.cmd(&command);
}

/// With an entitlement of each sort: a metered one without a usage is looked up before it is written.
fn body() -> String {
    json!({
        "type": "entitlements.updated",
        "timestamp": "2025-11-14T19:59:45.200Z",
        "customerId": "acme",
        "entitlements": [
            {"feature": {"id": "on", "featureType": "BOOLEAN"}},
            {"feature": {"id": "used", "featureType": "NUMBER", "meterType": "Incremental"}, "currentUsage": 3},
            {"feature": {"id": "unknown", "featureType": "NUMBER", "meterType": "Incremental"}},
        ],
    })
    .to_string()
}

/// Everything that the worker does in Redis: entitlements, usage, a purge, a body that is kept.
async fn send_everything(queue: &TestQueue) {
    let usage = json!({
        "type": "measurement.reported",
        "timestamp": "2025-11-14T19:59:46.200Z",
        "customerId": "acme",
        "featureId": "used",
        "currentUsage": 4,
    });
    let purge = json!({"type": "customer.deleted", "customerId": "gone"});
    for body in [
        body(),
        usage.to_string(),
        purge.to_string(),
        "no JSON".into(),
    ] {
        queue.send(&body).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_rights_suffice() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("rights").await;
    grant(&redis, RIGHTS);
    let port = redis.port().to_string();
    let _replica = Redis::start_with(&["--replicaof", "127.0.0.1", &port]).await;
    until("the replica confirms writes", LIMIT, async || {
        redis.set("apart", "1");
        let confirmed = redis.cmd(&["WAIT", "1", "500"]);
        redis::from_redis_value::<u32>(confirmed).unwrap() == 1
    })
    .await;
    let worker = Worker::builder(&redis, &queue)
        .env("REDIS_USERNAME", "sync")
        .env("REDIS_PASSWORD", "pass")
        .env("MAX_RECEIVE_COUNT", 1)
        .env("REDIS_WAIT_REPLICAS", 1)
        .start()
        .await;
    send_everything(&queue).await;
    queue.wait_empty(LIMIT).await;
    assert!(redis.get("production:c_acme").is_some());
    assert!(redis.get("production:c_acme:f_unknown").is_some());
    assert!(redis.get("production:c_gone#purged").is_some());
    assert_eq!(
        worker.metric("entitlement_sync_redis_errors_total").await,
        0.0
    );
    let operations = std::fs::read_to_string(testkit::repo("docs/operations.md")).unwrap();
    assert!(
        operations.contains(RIGHTS),
        "docs/operations.md does not name {RIGHTS}"
    );
}

/// Redis notifies changes, and what was fetched is written, its metered usage included.
#[tokio::test(flavor = "multi_thread")]
async fn the_rights_documented_for_readers_suffice() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    grant(&redis, RIGHTS_OF_READERS);
    let feature = json!({"refId": "seats", "featureType": "NUMBER", "meterType": "Fluctuating"});
    let list = json!({"data": {"entitlements": [{
        "isGranted": true, "entitlementUpdatedAt": "2025-11-14T19:59:45.200Z", "usageUpdatedAt": "2025-11-14T19:59:45.200Z",
        "usageLimit": 10, "currentUsage": 3, "feature": feature,
    }]}});
    edge.answer("/v1/c/acme/entitlements.json", Answer::json(200, &list));
    let reader = Reader::builder(&redis, &edge.url())
        .env("REDIS_USER", "sync")
        .env("REDIS_PASSWORD", "pass")
        .start()
        .await;
    let metric = async |name: &str| reader.metric(&format!("entitlement_sync_{name}")).await;
    until(
        "Redis notifies changes and takes writes",
        LIMIT,
        async || metric("read_tracking_up").await == 1.0 && metric("redis_up").await == 1.0,
    )
    .await;
    let reply = reader.get("/v1/c/acme/entitlements.json").await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert!(redis.get("production:c_acme").is_some());
    assert!(redis.get("production:c_acme:f_seats").is_some());
    assert_eq!(metric("redis_errors_total").await, 0.0);
    assert!(!reader.logs().contains("NOPERM"), "{}", reader.logs());
    let operations = std::fs::read_to_string(testkit::repo("docs/operations.md")).unwrap();
    assert!(
        operations.contains(RIGHTS_OF_READERS),
        "docs/operations.md does not name {RIGHTS_OF_READERS}"
    );
}

/// The look at the layout is the one thing that needs SCAN: without it the worker says so, and works.
#[tokio::test(flavor = "multi_thread")]
async fn the_look_at_the_layout_needs_scan_and_nothing_else_does() {
    const NEWER: &str = "customers in Redis are in the layout of SDK 4.12 and later";
    const NOT_LOOKED: &str = "the layout of customers in Redis was not checked";
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    redis.set("production:c_theirs", r#"{"sso":{"usageData":{}}}"#);
    for (more, line, other) in [("", NOT_LOOKED, NEWER), (" +scan", NEWER, NOT_LOOKED)] {
        grant(&redis, &format!("{RIGHTS}{more}"));
        // The polls of the worker before would take messages of the same.
        let queue = sqs.queue(&format!("rights-{}", more.len())).await;
        let worker = Worker::builder(&redis, &queue)
            .env("REDIS_USERNAME", "sync")
            .env("REDIS_PASSWORD", "pass")
            .env("MAX_RECEIVE_COUNT", 1)
            .start()
            .await;
        until("it is said", LIMIT, async || worker.logs().contains(line)).await;
        send_everything(&queue).await;
        queue.wait_empty(LIMIT).await;
        assert!(!worker.logs().contains(other));
        let errors = worker.metric("entitlement_sync_redis_errors_total").await;
        assert_eq!(errors, 0.0, "{more}");
    }
    let operations = std::fs::read_to_string(testkit::repo("docs/operations.md")).unwrap();
    assert!(operations.contains("So does the look at the layout at the worker's start"));
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
    send_everything(&queue).await;
    queue.wait_empty(LIMIT).await;
    assert!(cluster.get("{production}:c_acme").is_some());
    assert!(cluster.get("{production}:c_acme:f_unknown").is_some());
    assert_eq!(
        worker.metric("entitlement_sync_redis_errors_total").await,
        0.0
    );
    let operations = std::fs::read_to_string(testkit::repo("docs/operations.md")).unwrap();
    assert!(
        operations.contains(&rights),
        "docs/operations.md does not name {rights}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_permission_closes_the_gate_is_named_and_is_picked_up_without_a_restart() {
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

/// The probe tries what the work uses, so the gate stays closed instead of opening for each try.
#[tokio::test(flavor = "multi_thread")]
async fn a_permission_that_is_missing_on_some_keys_only_keeps_the_worker_down_and_steady() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("rights").await;
    // The marker may be written; keys of customers may not.
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
        .spawn();
    queue.send(&body()).await;
    stays_down(&redis, &worker, "NOPERM").await;
    grant(&redis, RIGHTS);
    queue.wait_empty(LIMIT).await;
    assert!(redis.get("production:c_acme").is_some());
    assert_eq!(
        worker
            .metric("entitlement_sync_messages_redelivered_total")
            .await,
        0.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_without_evalsha_is_worked_with_by_eval() {
    let (redis, sqs) = (without(&["EVALSHA"]).await, Sqs::start().await);
    let queue = sqs.queue("rights").await;
    let worker = Worker::builder(&redis, &queue).start().await;
    queue.send(&body()).await;
    queue.wait_empty(LIMIT).await;
    assert!(redis.get("production:c_acme").is_some());
    assert_eq!(
        worker.metric("entitlement_sync_redis_errors_total").await,
        0.0
    );
    // Refused once for each of the two scripts and copies of them, not at each call.
    let refused: u64 = redis.info("total_error_replies").parse().unwrap();
    assert!(refused < 8, "refused {refused} times");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_evalsha_is_worked_with_by_eval() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("rights").await;
    grant(&redis, &RIGHTS.replace(" +evalsha", ""));
    let _worker = Worker::builder(&redis, &queue)
        .env("REDIS_USER", "sync")
        .env("REDIS_PASSWORD", "pass")
        .start()
        .await;
    queue.send(&body()).await;
    queue.wait_empty(LIMIT).await;
    assert!(redis.get("production:c_acme").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_without_scripts_is_an_error_that_says_what_is_needed() {
    let (redis, sqs) = (without(&["EVALSHA", "EVAL"]).await, Sqs::start().await);
    let queue = sqs.queue("rights").await;
    let worker = Worker::builder(&redis, &queue).spawn();
    queue.send(&body()).await;
    stays_down(&redis, &worker, "does not have EVAL").await;
    assert!(redis.get("production:c_acme").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_scripts_gets_the_name_of_the_missing_permission() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("rights").await;
    grant(&redis, &RIGHTS.replace(" +eval +evalsha", ""));
    let worker = Worker::builder(&redis, &queue)
        .env("REDIS_USER", "sync")
        .env("REDIS_PASSWORD", "pass")
        .spawn();
    stays_down(&redis, &worker, "grant +eval and +evalsha").await;
    queue.send(&body()).await;
    grant(&redis, RIGHTS);
    queue.wait_empty(LIMIT).await;
}

/// Proxies and servers with a renamed command refuse it, and a connection begins with database 0.
#[tokio::test(flavor = "multi_thread")]
async fn database_0_is_not_selected() {
    let (redis, sqs) = (without(&["SELECT"]).await, Sqs::start().await);
    let queue = sqs.queue("rights").await;
    let _worker = Worker::builder(&redis, &queue)
        .env("REDIS_DB", 0)
        .start()
        .await;
    queue.send(&body()).await;
    queue.wait_empty(LIMIT).await;
    assert!(redis.get("production:c_acme").is_some());
}

/// A Redis that does not know some commands.
async fn without(commands: &[&str]) -> Redis {
    let mut options = Vec::new();
    for command in commands {
        options.extend(["--rename-command", command, ""]);
    }
    Redis::start_with(&options).await
}

/// Waits until the worker says why it is not ready, and then for more probes: nothing else is logged, and the gate stays closed.
async fn stays_down(redis: &Redis, worker: &Worker, reason: &str) {
    until("it is said", LIMIT, async || {
        worker
            .try_http("/readyz?verbose")
            .await
            .is_ok_and(|reply| reply.body.contains(reason))
    })
    .await;
    let refused = || {
        redis
            .info("total_error_replies")
            .parse::<u64>()
            .unwrap_or(0)
    };
    let before = refused();
    until("Redis is probed some more", LIMIT, async || {
        let reply = worker.http("/readyz").await;
        assert_eq!(reply.status, 503, "the gate opened");
        refused() >= before + 8
    })
    .await;
    let said = worker.logs().matches(reason).count();
    assert!(said <= 2, "said {said} times:\n{}", worker.logs());
    assert!(worker.logs().contains("ERROR"));
    assert!(!worker.logs().contains("Redis takes writes"));
}
