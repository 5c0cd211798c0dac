//! A process that is its own store: it answers what the queue has told it, and nothing else.

use std::collections::BTreeSet;

use serde_json::json;

use std::time::Duration;
use testkit::events::{ACME, SITE, at, entitlements, metered, purge, seats, usage};
use testkit::http::Reply;
use testkit::{
    Answer, EdgeMock, Fault, FaultProxy, Operator, Reader, Sqs, TestQueue, Worker, repo, until,
};

const SOON: Duration = Duration::from_secs(60);
const NO_EDGE: &str = "http://127.0.0.1:1";

/// What is answered of a flag: whether it is granted, and how it is known.
pub async fn flag(reader: &Reader, key: &str, customer: &str) -> Reply {
    reader.flag(key, &json!({"targetingKey": customer})).await
}

pub async fn limit(reader: &Reader, customer: &str) -> Option<u64> {
    let reply = flag(reader, "seats@limit", customer).await;
    (reply.status == 200).then(|| reply.json()["value"].as_u64())?
}

pub async fn until_limit(reader: &Reader, customer: &str, wanted: Option<u64>) {
    until(
        &format!("the limit of {customer} is {wanted:?}"),
        SOON,
        async || limit(reader, customer).await == wanted,
    )
    .await;
}

/// Waits until every message was acknowledged.
pub async fn drained(queue: &TestQueue) {
    until("all is acknowledged", SOON, async || {
        queue.depth().await == 0
    })
    .await;
}

pub async fn is_proven(reader: &Reader) -> bool {
    reader.metric("entitlement_sync_memory_proven").await > 0.0
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_alone_is_answered_from() {
    let (sqs, edge) = (Sqs::start().await, EdgeMock::start().await);
    let queue = sqs.queue("q").await;
    let reader = Reader::in_memory(&queue, &edge.url()).start().await;
    // A question before would ask upstream.
    queue.send(&seats(ACME, 10, at(1))).await;
    drained(&queue).await;
    until("the state is proven", SOON, async || {
        is_proven(&reader).await
    })
    .await;
    until_limit(&reader, "acme", Some(10)).await;
    queue.send(&usage(ACME, "seats", 4, at(2))).await;
    until("the usage is answered", SOON, async || {
        let reply = flag(&reader, "seats@usage", "acme").await;
        reply.json()["value"] == 4
    })
    .await;
    // Older than what is there.
    queue.send(&seats(ACME, 99, at(0))).await;
    drained(&queue).await;
    assert_eq!(limit(&reader, "acme").await, Some(10));
    let of_site = entitlements(SITE, at(3), &[metered("seats", 3, 1, at(3))]);
    queue.send(&of_site).await;
    drained(&queue).await;
    until("the resource is answered", SOON, async || {
        let context = json!({"targetingKey": "acme", "resourceId": "site-1"});
        let reply = reader.flag("seats@limit", &context).await;
        reply.status == 200 && reply.json()["value"] == 3
    })
    .await;
    until("the state is proven", SOON, async || {
        is_proven(&reader).await
    })
    .await;
    let reply = reader.get("/v1/c/acme/entitlements.json").await;
    assert_eq!(reply.header("cache-status"), "entitlement-sync; hit");
    assert_eq!(
        edge.requests_to("/v1/c/").len(),
        0,
        "nothing is asked upstream"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purged_customer_is_asked_upstream_and_never_passes_as_fresh() {
    let (sqs, edge) = (Sqs::start().await, EdgeMock::start().await);
    let queue = sqs.queue("q").await;
    let reader = Reader::in_memory(&queue, &edge.url()).start().await;
    queue.send(&seats(ACME, 10, at(1))).await;
    until_limit(&reader, "acme", Some(10)).await;
    edge.answer("/v1/c/acme/entitlements.json", Answer::text(503, ""));
    queue.send(&purge([ACME], at(5))).await;
    drained(&queue).await;
    let is_certain = async || {
        let reply = flag(&reader, "seats@limit", "acme").await;
        reply.status == 200 && reply.json()["reason"] != "STALE"
    };
    until("no answer is certain", SOON, async || !is_certain().await).await;
    // Sent before the purge, and delivered after it.
    queue.send(&seats(ACME, 11, at(4))).await;
    drained(&queue).await;
    assert!(!is_certain().await);
    assert_ne!(limit(&reader, "acme").await, Some(11));
    queue.send(&seats(ACME, 12, at(6))).await;
    until_limit(&reader, "acme", Some(12)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_had_to_make_room_is_asked_upstream_and_never_denied() {
    let sqs = Sqs::start().await;
    let queue = sqs.queue("q").await;
    let reader = Reader::in_memory(&queue, NO_EDGE)
        .env("LOCAL_MAX_BYTES", 1 << 20)
        .start()
        .await;
    let customer = |n: usize| format!("customer-{n:04}");
    for batch in (0..4_000).collect::<Vec<usize>>().chunks(10) {
        let bodies: Vec<String> = batch
            .iter()
            .map(|n| seats((&customer(*n), None), 10 + *n as u64, at(1)))
            .collect();
        queue.send_all(&bodies).await;
    }
    drained(&queue).await;
    assert!(
        reader
            .metric("entitlement_sync_memory_evictions_total")
            .await
            > 100.0
    );
    let bytes = reader.metric("entitlement_sync_memory_state_bytes").await;
    let most = reader
        .metric("entitlement_sync_memory_state_limit_bytes")
        .await;
    assert!(bytes <= most * 1.1, "{bytes} of {most}");
    let (mut known, mut unknown) = (0, 0);
    for n in (0..4_000).step_by(7) {
        let reply = flag(&reader, "seats", &customer(n)).await;
        match reply.status {
            200 => {
                assert_eq!(reply.json()["value"], true, "{}", reply.body);
                known += 1;
            }
            503 => unknown += 1,
            other => panic!("{other}: {}", reply.body),
        }
    }
    assert!(known > 0 && unknown > 0, "{known} known, {unknown} not");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_refused_by_name_and_all_at_once() {
    let sqs = Sqs::start().await;
    let queue = sqs.queue("q").await;
    let refused = Worker::in_memory(&queue)
        .unset("READ_PORT")
        .env("REDIS_HOST", "redis")
        .env("SNAPSHOT_PATH", "/nowhere")
        .env("SNAPSHOT_INTERVAL_SECS", "x")
        .spawn();
    assert_eq!(refused.wait_exit(SOON).await, 78);
    let logs = refused.logs();
    for part in [
        "REDIS_HOST is set, but STORE is memory",
        "READ_PORT is not set, but STORE is memory",
        "SNAPSHOT_KEY is not set, but SNAPSHOT_PATH is",
        "SNAPSHOT_INTERVAL_SECS is \"x\"",
    ] {
        assert!(logs.contains(part), "{part}: {logs}");
    }
    let weak = Worker::in_memory(&queue)
        .env("SNAPSHOT_PATH", "/nowhere")
        .env("SNAPSHOT_KEY", "short-secret")
        .spawn();
    assert_eq!(weak.wait_exit(SOON).await, 78);
    let logs = weak.logs();
    assert!(logs.contains("SNAPSHOT_KEY is too short"), "{logs}");
    assert!(!logs.contains("short-secret"), "{logs}");
}

/// The names that begin with one of these, of the lines of `# TYPE` or of the tables.
fn of_memory<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let prefixes = ["entitlement_sync_memory_", "entitlement_sync_snapshot_"];
    names
        .filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn docs_metrics_md_names_the_metrics_of_memory_and_snapshots() {
    let (sqs, folder) = (Sqs::start().await, tempfile::TempDir::new().unwrap());
    let queue = sqs.queue("q").await;
    let reader = Reader::in_memory(&queue, NO_EDGE)
        .env("SNAPSHOT_PATH", folder.path().display())
        .env("SNAPSHOT_KEY", "a passphrase of some length")
        .start()
        .await;
    let page = reader.http("/metrics").await.body;
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let exposed = of_memory(samples.filter_map(|line| line.split(' ').next()));
    let docs = std::fs::read_to_string(repo("docs/metrics.md")).unwrap();
    let rows = docs.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented = of_memory(rows.filter_map(|row| row.split('`').next()));
    assert!(exposed.len() > 10, "{exposed:?}");
    assert_eq!(
        documented, exposed,
        "left: docs/metrics.md, right: /metrics"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn check_looks_at_the_folder_and_commands_for_redis_say_that_there_is_none() {
    let (sqs, folder) = (Sqs::start().await, tempfile::TempDir::new().unwrap());
    let queue = sqs.queue("q").await;
    let operator = || {
        Operator::in_memory()
            .queue(&queue)
            .env("SERVER_API_KEY", "test-key")
    };
    let row = async |operator: Operator| {
        let report = operator.run(&["check", "--json"]).await.json();
        let checks = report["checks"].as_array().unwrap().clone();
        let of_folder = checks.iter().find(|check| check["name"] == "snapshots");
        of_folder.unwrap_or_else(|| panic!("{checks:#?}")).clone()
    };
    let none = row(operator()).await;
    assert_eq!(none["status"], "warn", "{none}");
    let kept = || {
        let key = "9a1cc83b6a2b4f6f8fd46a0a41a9d37d3e6a9a0f4d0f1f6cbb5c4a1e2d3c4b5a";
        operator()
            .env("SNAPSHOT_PATH", folder.path().display())
            .env("SNAPSHOT_KEY", key)
    };
    let free = row(kept()).await;
    assert_eq!(free["status"], "pass", "{free}");
    let unusable = row(kept().env("SNAPSHOT_PATH", "/dev/null/state")).await;
    assert_eq!(unusable["status"], "fail", "{unusable}");
    for command in NEEDING_REDIS {
        let done = kept().run_with(command, "acme").await;
        assert_eq!(done.code, 78, "{command:?}: {done:?}");
        assert!(
            done.stderr.contains("needs Redis, and STORE is memory"),
            "{command:?}: {done:?}"
        );
    }
    let done = kept().run(&["serve"]).await;
    assert_eq!(done.code, 78, "{done:?}");
    assert!(
        done.stderr.contains("serve has no state of its own"),
        "{done:?}"
    );
    // A new command is of one kind or of the other.
    let help = kept().run(&["--help"]).await.stdout;
    let (_, rest) = help.split_once("Commands:\n").unwrap();
    let lines = rest.lines().take_while(|line| !line.is_empty());
    let named = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let found: BTreeSet<&str> = named.filter(|name| !name.is_empty()).collect();
    let known = NEEDING_REDIS.iter().map(|command| command[0]);
    let known: BTreeSet<&str> = known.chain(WITHOUT_REDIS).collect();
    assert_eq!(found, known);
}

const NEEDING_REDIS: [&[&str]; 6] = [
    &["inspect", "acme"],
    &["stats"],
    &["purge", "acme", "--yes"],
    &["apply", "-"],
    &["warm", "--customers", "-"],
    &["verify", "--customers", "-"],
];
const WITHOUT_REDIS: [&str; 12] = [
    "run",
    "serve",
    "healthcheck",
    "check",
    "config",
    "dead-letter",
    "peek",
    "explain",
    "publish",
    "snapshot",
    "completions",
    "help",
];

/// A receive that does not wait asks some of the servers of SQS, and may find nothing although messages are there.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_answer_to_a_receive_that_does_not_wait_proves_nothing() {
    const BACKLOG: u64 = 300;
    let sqs = Sqs::start().await;
    let queue = sqs.queue("q").await;
    let bodies = (0..BACKLOG).map(|n| seats((&format!("customer-{n}"), None), n + 1, at(1)));
    queue.send_all(bodies.collect::<Vec<_>>()).await;
    let calls = FaultProxy::start(sqs.endpoint()).await;
    let empty = Fault::Answer {
        status: 200,
        code: "",
        body: "{}".to_owned(),
    };
    calls.once("ReceiveMessage", empty);
    let reader = Reader::in_memory(&queue, NO_EDGE)
        .env("AWS_ENDPOINT_URL_SQS", calls.url())
        .env("CONSUMERS", 1)
        .env("BATCH_SIZE", 1)
        .start()
        .await;
    until("the state is proven", SOON, async || {
        is_proven(&reader).await
    })
    .await;
    let receives = calls.bodies("ReceiveMessage");
    assert_eq!(receives[0]["WaitTimeSeconds"], 0, "the first one");
    let received = reader.metric("entitlement_sync_messages_received_total");
    assert_eq!(received.await, BACKLOG as f64, "all was read before");
}
