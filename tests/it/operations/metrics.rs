//! `/metrics`: each metric moves, the text is OpenMetrics, no id is in it, and all that docs and alerts name is
//! there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use testkit::edge::{Answer, EdgeMock};
use testkit::events;
use testkit::fault::{Fault, FaultProxy};
use testkit::redis::Redis;
use testkit::sqs::Sqs;
use testkit::worker::Worker;
use testkit::{Reader, free_port, repo, until};

const LIMIT: Duration = Duration::from_secs(30);
/// 2025-11-14T20:00:00Z.
const NEW: u64 = 1_763_150_400_000;
const OLD: u64 = NEW - 3_600_000;

/// What no fault from outside brings about reliably, and the unit test that moves it instead. A consumer panics only by
/// a bug, and stalls only in a process that stands still for 45 s: what is silent then is a matter of who wakes first.
/// Lines are dropped where standard error is full: tests/it/operations/logging.rs.
const ELSEWHERE: [(&str, &str, &str); 2] = [
    (
        "entitlement_sync_consumers_restarted",
        "src/pool.rs",
        "fn a_consumer_that_stalls_or_panics_is_replaced",
    ),
    (
        "entitlement_sync_log_lines_dropped",
        "src/telemetry/lines.rs",
        "fn what_does_not_fit_is_dropped_and_the_rest_is_written_redacted_and_in_order",
    ),
];

fn entitlements(customer: &str, at: u64) -> String {
    events::entitlements((customer, None), at, &[])
}

fn usage(customer: &str) -> String {
    events::usage((customer, None), "canary-feature", 3, NEW)
}

/// An event of this kind about the customer.
fn event(kind: &str, mut more: Value) -> String {
    (more["type"], more["timestamp"]) = (kind.into(), events::iso(NEW).into());
    events::event(("canary-customer", None), more)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_metric_moves() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let mut seen = Seen::default();
    let ids = everyday(&redis, &sqs, &mut seen).await;
    faults_of_redis(&redis, &sqs, &mut seen).await;
    depth_of_the_queue(&redis, &sqs, &mut seen).await;
    answers(&redis, &mut seen).await;

    for (family, file, test) in ELSEWHERE {
        let text = fs::read_to_string(repo(file)).unwrap();
        let field = family.trim_start_matches("entitlement_sync_");
        assert!(
            text.contains(test) && text.contains(&format!("metrics.{field}.get()")),
            "{file} moves {family} no longer"
        );
        seen.moved.insert(family.to_owned());
    }
    let page = Page::parse(&seen.last);
    let still: Vec<&String> = page
        .families
        .iter()
        .filter(|(name, family)| family.kind != "info" && !seen.moved.contains(*name))
        .map(|(name, _)| name)
        .collect();
    assert!(still.is_empty(), "nothing moved {still:?}");
    for outcome in [
        "applied", "stale", "skipped", "ignored", "invalid", "failed",
    ] {
        seen.must_have_moved(&format!("outcome=\"{outcome}\""));
    }
    for kind in [
        "entitlements_updated",
        "measurement_reported",
        "credit_balance_updated",
        "purge",
        "package_published",
        "other",
    ] {
        seen.must_have_moved(&format!("kind=\"{kind}\""));
    }
    for operation in ["receive", "acknowledge", "change_visibility", "attributes"] {
        seen.must_have_moved(&format!("queue_errors_total{{operation=\"{operation}\""));
        seen.must_have_moved(&format!(
            "queue_call_duration_seconds_count{{operation=\"{operation}\""
        ));
    }
    for state in ["visible", "in_flight", "delayed"] {
        seen.must_have_moved(&format!("queue_messages{{state=\"{state}\"}}"));
    }
    for error in ["throttled", "access_denied", "failed"] {
        seen.must_have_moved(&format!("error=\"{error}\""));
    }
    for result in [
        "fresh",
        "redis",
        "upstream",
        "stale",
        "cannot_tell",
        "denied",
        "refused",
    ] {
        seen.must_have_moved(&format!("result=\"{result}\""));
    }
    for route in [
        "entitlements",
        "entitlements_state",
        "flag",
        "flags",
        "configuration",
        "passed_through",
    ] {
        seen.must_have_moved(&format!(
            "read_answer_duration_seconds_count{{route=\"{route}\"}}"
        ));
    }
    for outcome in ["found", "not_found", "refused", "failed", "skipped"] {
        seen.must_have_moved(&format!(
            "read_upstream_requests_total{{outcome=\"{outcome}\"}}"
        ));
    }
    for reason in [
        "absent",
        "unreadable",
        "torn",
        "stale_resource",
        "usage",
        "expired",
        "credits",
    ] {
        seen.must_have_moved(&format!("read_misses_total{{reason=\"{reason}\"}}"));
    }
    for id in ids.iter().map(String::as_str).chain(["canary"]) {
        assert!(!seen.last.contains(id), "{id} is in /metrics");
    }
}

/// One worker that meets every kind and outcome, and faults of the queue. Returns the message ids.
async fn everyday(redis: &Redis, sqs: &Sqs, seen: &mut Seen) -> Vec<String> {
    let queue = sqs.queue_with("all", &[("VisibilityTimeout", "2")]).await;
    let faults = FaultProxy::start(sqs.endpoint()).await;
    // So that the first look comes before it.
    faults.once("GetQueueAttributes", Fault::Delay(Duration::from_secs(3)));
    // In one batch: the older is not written.
    queue
        .send_all([entitlements("acme", OLD), entitlements("acme", NEW)])
        .await;
    let worker = Worker::builder(redis, &queue)
        .endpoint(faults.url())
        .env("CONSUMERS", 3)
        .env("MAX_RECEIVE_COUNT", 2)
        .env("CACHE_LOCK_RETRY_COUNT", 1000)
        .start()
        .await;
    let page = seen.look(&worker).await;
    let series = page.of_every_worker();
    seen.wait(&worker, "items_coalesced_total", 1.0).await;
    until("the settings are known", LIMIT, async || {
        worker.logs().contains("visibility_timeout_secs=2")
    })
    .await;

    let credits = json!({"currency": {"currencyId": "canary"}, "creditBalance": {}});
    let ahead = json!({"canary": {"customerId": "canary-ahead", "entitlements": [], "timestamp": "2999-01-01"}});
    let credit = json!({"type": "CREDIT", "currency": {"currencyId": "canary"}, "usageLimit": 5});
    let with_credits = events::entitlements(("canary-credits", None), NEW, &[credit]);
    let mut ids = vec![
        queue.send(&with_credits).await,
        queue.send(&entitlements("canary-customer", NEW)).await,
        queue.send(&event("package.published", json!({}))).await,
        queue.send(&event("canary.unknown", json!({}))).await,
        queue.send(&ahead.to_string()).await,
        queue.send(&event("credit.balance.updated", credits)).await,
        queue.send("canary: no JSON").await,
    ];
    seen.wait(&worker, "messages_dead_lettered_total", 1.0)
        .await;
    ids.push(queue.send(&usage("canary-customer")).await);
    ids.push(queue.send(&event("customer.deleted", json!({}))).await);
    ids.push(queue.send(&usage("nobody")).await);
    queue.wait_empty(LIMIT).await;

    // While an SDK writes: in flight, retried, extended.
    redis.set("production-acme", "an SDK");
    faults.times("ChangeMessageVisibilityBatch", 2, Fault::server_error());
    ids.push(queue.send(&entitlements("acme", NEW)).await);
    seen.wait(&worker, "inflight_messages", 1.0).await;
    seen.wait(&worker, "visibility_extensions_total", 1.0).await;
    redis.cmd(&["DEL", "production-acme"]);
    queue.wait_empty(LIMIT).await;

    // The same, but its visibility cannot be extended: it is handed out a second time.
    let redelivered = worker
        .metric("entitlement_sync_messages_redelivered_total")
        .await;
    redis.set("production-acme", "an SDK");
    faults.always(
        "ChangeMessageVisibilityBatch",
        Fault::fail_all_entries(true),
    );
    ids.push(queue.send(&entitlements("acme", NEW)).await);
    seen.wait(&worker, "messages_redelivered_total", redelivered + 1.0)
        .await;
    redis.cmd(&["DEL", "production-acme"]);
    seen.wait(&worker, "acknowledged_late_total", 1.0).await;
    faults.clear_all();
    queue.wait_empty(LIMIT).await;

    faults.once("DeleteMessageBatch", Fault::fail_all_entries(true));
    ids.push(queue.send(&entitlements("acme", NEW)).await);
    seen.wait(&worker, "acknowledge_failures_total", 1.0).await;
    // The SDK tries short calls twice by itself.
    faults.times("DeleteMessageBatch", 2, Fault::server_error());
    faults.times("ReceiveMessage", 2, Fault::throttle());
    queue.wait_empty(LIMIT).await;
    seen.wait(&worker, "empty_receives_total", 1.0).await;
    seen.look(&worker).await;

    redis.freeze();
    worker.wait_unready().await;
    seen.wait(&worker, "redis_up", 0.0).await;
    redis.thaw();
    worker.wait_ready().await;
    // As another process leaves it that finds Redis empty.
    redis.set("production:entitlement-sync", "another");
    seen.wait(&worker, "redis_data_lost_total", 1.0).await;
    let page = seen.look(&worker).await;
    assert_eq!(
        page.of_every_worker(),
        series,
        "series have come with the load"
    );
    ids
}

/// A worker that may write what its probe writes and no customer, whose queue does not tell its settings.
async fn faults_of_redis(redis: &Redis, sqs: &Sqs, seen: &mut Seen) {
    let queue = sqs.queue("refused").await;
    let faults = FaultProxy::start(sqs.endpoint()).await;
    faults.always("GetQueueAttributes", Fault::access_denied());
    let rights = "ACL SETUSER sync on >pass ~production*entitlement-sync* +@all";
    redis.cmd(&rights.split(' ').collect::<Vec<_>>());
    let builder = Worker::builder(redis, &queue).endpoint(faults.url());
    let worker = builder
        .clone()
        .env("REDIS_USER", "sync")
        .env("REDIS_PASSWORD", "pass")
        .start()
        .await;
    seen.look(&worker).await;
    queue.send(&entitlements("acme", NEW)).await;
    seen.wait(&worker, "redis_errors_total", 2.0).await;
    seen.wait(&worker, "queue_errors_total{operation=\"attributes\"}", 1.0)
        .await;
    let page = seen.look(&worker).await;
    assert!(
        !page
            .families
            .contains_key("entitlement_sync_queue_messages"),
        "a depth that nobody told"
    );
    drop(worker);

    // Replicas that are not there.
    let worker = builder.clone().env("REDIS_WAIT_REPLICAS", 1).spawn();
    until("it answers", LIMIT, async || {
        worker.try_http("/livez").await.is_ok()
    })
    .await;
    seen.look(&worker).await;
    seen.wait(&worker, "redis_replicas_missing_total", 2.0)
        .await;
    drop(worker);

    // An SDK that never lets go.
    let queue = sqs.queue("locked").await;
    let worker = Worker::builder(redis, &queue)
        .env("CACHE_LOCK_RETRY_COUNT", 1)
        .env("MAX_INFLIGHT_BYTES", 2 << 20)
        .start()
        .await;
    seen.look(&worker).await;
    redis.set("production-acme", "an SDK");
    queue.send(&entitlements("acme", NEW)).await;
    seen.wait(&worker, "messages_processed_total{outcome=\"failed\"}", 1.0)
        .await;
    seen.look(&worker).await;
}

/// A worker without Redis, so that its queue stays as it is.
async fn depth_of_the_queue(redis: &Redis, sqs: &Sqs, seen: &mut Seen) {
    let queue = sqs
        .queue_with("deep", &[("VisibilityTimeout", "600")])
        .await;
    queue
        .send_all([entitlements("a", NEW), entitlements("b", NEW)])
        .await;
    let received = sqs.client().receive_message().queue_url(&queue.url);
    let received = received.max_number_of_messages(10).send().await.unwrap();
    assert_eq!(received.messages().len(), 2);
    queue
        .send_all(["c", "d", "e"].map(|customer| entitlements(customer, NEW)))
        .await;
    for _ in 0..4 {
        let delayed = sqs.client().send_message().queue_url(&queue.url);
        let body = entitlements("f", NEW);
        delayed
            .message_body(body)
            .delay_seconds(600)
            .send()
            .await
            .unwrap();
    }
    let worker = Worker::builder(redis, &queue)
        .redis_port(free_port())
        .spawn();
    until("it serves", LIMIT, async || {
        worker.try_http("/livez").await.is_ok()
    })
    .await;
    let depth = |state| format!("entitlement_sync_queue_messages{{state=\"{state}\"}}");
    until("the depth is known", LIMIT, async || {
        let page = seen.look(&worker).await;
        page.samples.contains_key(&depth("visible"))
    })
    .await;
    for (state, count) in [("visible", 3.0), ("in_flight", 2.0), ("delayed", 4.0)] {
        assert_eq!(worker.metric(&depth(state)).await, count, "{state}");
    }
}

/// A process that only answers, and meets every result.
async fn answers(redis: &Redis, seen: &mut Seen) {
    redis.cmd(&["FLUSHALL"]);
    let edge = EdgeMock::start().await;
    let of = |customer: &str| format!("/v1/c/{customer}/entitlements.json");
    let granted = json!({"data": {"entitlements": [{
        "isGranted": true, "entitlementUpdatedAt": NEW,
        "feature": {"refId": "canary-feature", "featureType": "BOOLEAN"},
    }]}});
    let builder = Reader::builder(redis, &edge.url());
    let reader = builder.start().await;
    let series = seen.look(&reader).await.of_every_worker();
    seen.wait(&reader, "read_tracking_up", 1.0).await;

    // One answer of the Edge API for those who ask at once.
    edge.answer(
        &of("canary"),
        Answer::json(200, &granted).after(Duration::from_millis(300)),
    );
    let path = of("canary");
    let together = [(); 8].map(|()| reader.get(&path));
    for reply in futures_util::future::join_all(together).await {
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
    seen.wait(&reader, "read_joined_total", 1.0).await;
    reader.get(&of("canary")).await;
    reader.get(&of("canary-unknown")).await;
    reader.get("/v1/c/canary/entitlements-state.json").await;
    reader.get("/v1/config/server-sdk-configuration.json").await;
    reader.get("/v1/canary").await;
    reader.get("/canary").await;
    reader.get("/v1/credentials/canary").await;
    let canary = json!({"context": {"targetingKey": "canary"}});
    reader.flag("canary-feature", &canary["context"]).await;
    reader.post("/ofrep/v1/evaluate/flags", &canary).await;
    reader
        .ask(("GET", &of("canary")), &[("x-api-key", "canary")], "")
        .await;
    // A change, which Redis tells of.
    redis.set("production:c_canary:f_canary-feature", "{}");
    seen.wait(&reader, "read_invalidations_total", 1.0).await;

    // What Redis holds, and what of it cannot be answered from.
    let entry = |more: &str| {
        format!(
            r#"{{"canary":{{"calculatedEntitlement":{{"feature":{{"id":"canary","featureType":"NUMBER"{more}}}}}}}}}"#
        )
    };
    let stored = [
        ("read", entry(""), true),
        ("unreadable", "{".to_owned(), true),
        ("torn", entry(""), false),
        ("usage", entry(r#","meterType":"Incremental""#), true),
        (
            "expired",
            entry("").replace("}}}}", r#"},"validUntil":1}}}"#),
            true,
        ),
        (
            "credits",
            r#"{"canary":{"calculatedEntitlement":{"type":"CREDIT"}}}"#.to_owned(),
            true,
        ),
        ("old:r_site", entry(""), true),
    ];
    for (customer, value, is_stamped) in &stored {
        let key = format!("production:c_{customer}");
        redis.set(&key, value);
        if *is_stamped {
            redis.set(&format!("{key}#timestamp"), "1763150400000");
        }
    }
    edge.answer(&of("unreadable"), Answer::text(403, "{}"));
    for (customer, ..) in stored {
        let (customer, query) = match customer.split_once(":r_") {
            Some((customer, resource)) => (customer, format!("?resourceId={resource}")),
            None => (customer, String::new()),
        };
        reader.get(&format!("{}{query}", of(customer))).await;
    }
    seen.look(&reader).await;

    // The Edge API fails, until it is left alone.
    for number in 0..7 {
        edge.answer(&of(&format!("failing-{number}")), Answer::text(500, "{}"));
        reader.get(&of(&format!("failing-{number}"))).await;
    }
    seen.wait(&reader, "read_breaker_open", 1.0).await;

    // Redis is away: what is known is answered, as long as it may be.
    redis.freeze();
    reader.wait_redis("DISCONNECTED").await;
    reader.get(&of("read")).await;
    let verbose = reader.http("/readyz?verbose").await;
    // The Edge API may be asked again by now.
    assert!(
        verbose.body.ends_with("memory answers\n"),
        "{}",
        verbose.body
    );
    assert!(!verbose.body.contains("Redis"), "{}", verbose.body);
    seen.wait(&reader, "read_tracking_up", 0.0).await;
    redis.thaw();
    reader.wait_redis("CONNECTED").await;
    seen.wait(&reader, "read_tracking_losses_total", 1.0).await;

    // As another process leaves it that finds Redis empty.
    seen.wait(&reader, "redis_up", 1.0).await;
    redis.set("production:entitlement-sync", "another");
    seen.wait(&reader, "read_refilled_total", 1.0).await;
    let page = seen.look(&reader).await;
    assert_eq!(
        page.of_every_worker(),
        series,
        "series have come with the load"
    );
    drop(reader);

    // More than there is room for.
    let reader = builder.env("LOCAL_MAX_BYTES", 1 << 20).start().await;
    let features: Vec<String> = (0..40)
        .map(|at| entry("").replace(r#"{"canary""#, &format!(r#""canary-{at}""#)))
        .map(|entry| entry[..entry.len() - 1].to_owned())
        .collect();
    let map = format!("{{{}}}", features.join(","));
    for number in 0..800 {
        let key = format!("production:c_large-{number}");
        redis.cmd(&[
            "MSET",
            &key,
            &map,
            &format!("{key}#timestamp"),
            "1763150400000",
        ]);
        let reply = reader.get(&of(&format!("large-{number}"))).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
    seen.wait(&reader, "read_evictions_total", 1.0).await;
    assert_eq!(
        reader.metric("entitlement_sync_consumers_configured").await,
        0.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_text_is_openmetrics_and_docs_metrics_md_names_all_of_it() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("text").await;
    let worker = Worker::builder(&redis, &queue)
        .env("READ_PORT", free_port())
        .start()
        .await;
    until("the depth of the queue is known", LIMIT, async || {
        worker.logs().contains("settings of the queue read")
            && worker
                .http("/metrics")
                .await
                .body
                .contains("queue_messages{")
    })
    .await;
    let reply = worker.http("/metrics").await;
    assert_eq!(
        reply.header("content-type"),
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    let page = Page::parse(&reply.body);
    for (name, family) in &page.families {
        assert!(
            name.starts_with("entitlement_sync_") || name.starts_with("process_"),
            "{name}"
        );
        assert!(!family.help.is_empty(), "{name} has no help");
        assert!(
            matches!(
                family.kind.as_str(),
                "counter" | "gauge" | "histogram" | "info"
            ),
            "{name} is {}",
            family.kind
        );
        assert!(!family.labels.is_empty() || !family.series.is_empty());
        const BOUNDED: [&str; 12] = [
            "state",
            "kind",
            "outcome",
            "operation",
            "error",
            "le",
            "version",
            "revision",
            "data_layout",
            "route",
            "result",
            "reason",
        ];
        for label in &family.labels {
            assert!(
                BOUNDED.contains(&label.as_str()),
                "{name} has a label {label}"
            );
        }
    }
    assert!(page.samples.len() < 500, "{} series", page.samples.len());
    let version = env!("CARGO_PKG_VERSION");
    assert!(reply.body.contains(&format!(
        "entitlement_sync_build_info{{version=\"{version}\","
    )));

    let docs = fs::read_to_string(repo("docs/metrics.md")).unwrap();
    let mut documented: BTreeMap<String, (String, String, String)> = docs
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line
                .strip_prefix("| `")?
                .split('|')
                .map(|cell| cell.trim().trim_matches('`'))
                .collect();
            let [
                name,
                kind @ ("counter" | "gauge" | "histogram" | "info"),
                unit,
                labels,
                ..,
            ] = cells[..]
            else {
                return None;
            };
            let rest = (kind.to_owned(), unit.to_owned(), labels.to_owned());
            Some((name.to_owned(), rest))
        })
        .collect();
    let exposed: BTreeMap<String, (String, String, String)> = page
        .families
        .iter()
        .map(|(name, family)| {
            let suffix = match family.kind.as_str() {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            let labels: Vec<&str> = family
                .labels
                .iter()
                .map(String::as_str)
                .filter(|label| *label != "le")
                .collect();
            let unit = ["seconds", "bytes"]
                .into_iter()
                .find(|unit| name.ends_with(&format!("_{unit}")));
            let rest = (
                family.kind.clone(),
                unit.unwrap_or_default().to_owned(),
                labels.join(", "),
            );
            (format!("{name}{suffix}"), rest)
        })
        .collect();
    // Those of a process without Redis: see `memory::process`.
    documented.retain(|name, _| {
        !["entitlement_sync_memory_", "entitlement_sync_snapshot_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    });
    assert_eq!(
        documented, exposed,
        "left: docs/metrics.md, right: /metrics"
    );
}

#[test]
fn each_alert_has_its_runbook() {
    let alerts = fs::read_to_string(repo("helm/entitlement-sync/files/alerts.yaml")).unwrap();
    let names: Vec<&str> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(!names.is_empty());
    let index = fs::read_to_string(repo("docs/runbooks/README.md")).unwrap();
    for name in names {
        let file = format!("{}.md", kebab(name.trim_start_matches("EntitlementSync")));
        let text = fs::read_to_string(repo("docs/runbooks").join(&file))
            .unwrap_or_else(|error| panic!("{name}: docs/runbooks/{file}: {error}"));
        assert!(
            text.contains(&format!("`{name}`")),
            "docs/runbooks/{file} does not name {name}"
        );
        assert!(
            index.contains(&format!("| `{name}` | [{file}]({file}) |")),
            "docs/runbooks/README.md does not list {name}"
        );
    }
    for url in alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("runbook_url: "))
    {
        let file = url.rsplit('/').next().unwrap().trim_matches('"');
        assert!(repo("docs/runbooks").join(file).is_file(), "{url}");
    }
}

/// `LagHigh` as `lag-high`.
fn kebab(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

/// What several looks at several workers have shown.
#[derive(Default)]
struct Seen {
    first: BTreeMap<String, String>,
    moved: BTreeSet<String>,
    moved_series: BTreeSet<String>,
    last: String,
}

impl Seen {
    async fn look(&mut self, worker: &Worker) -> Page {
        self.last = worker.http("/metrics").await.body;
        let page = Page::parse(&self.last);
        for (name, family) in &page.families {
            for series in &family.series {
                let value = &page.samples[series];
                let first = self.first.entry(series.clone()).or_insert(value.clone());
                if first != value {
                    self.moved.insert(name.clone());
                    self.moved_series.insert(series.clone());
                }
            }
        }
        page
    }

    /// Looks until a metric has a value, or more than that.
    async fn wait(&mut self, worker: &Worker, metric: &str, value: f64) {
        let metric = format!("entitlement_sync_{metric}");
        until(&format!("{metric} is {value}"), LIMIT, async || {
            self.look(worker).await;
            let now = worker.metric(&metric).await;
            if value == 0.0 {
                now == 0.0
            } else {
                now >= value
            }
        })
        .await;
    }

    fn must_have_moved(&self, part: &str) {
        assert!(
            self.moved_series.iter().any(|series| series.contains(part)),
            "nothing moved a series of {part}"
        );
    }
}

/// A page of OpenMetrics, checked by the rules of its specification.
struct Page {
    families: BTreeMap<String, Family>,
    samples: BTreeMap<String, String>,
}

#[derive(Default)]
struct Family {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
    series: Vec<String>,
}

impl Page {
    fn parse(text: &str) -> Page {
        let mut page = Page {
            families: BTreeMap::new(),
            samples: BTreeMap::new(),
        };
        let text = text
            .strip_suffix("# EOF\n")
            .expect("the text ends with # EOF");
        let mut current = String::new();
        for line in text.lines() {
            let Some(comment) = line.strip_prefix("# ") else {
                page.sample(&current, line);
                continue;
            };
            let mut words = comment.splitn(3, ' ');
            let (what, name, rest) = (
                words.next().unwrap(),
                words.next().unwrap(),
                words.next().unwrap_or_default(),
            );
            if name != current {
                let before = page.families.insert(name.to_owned(), Family::default());
                assert!(before.is_none(), "{name} is there twice");
                name.clone_into(&mut current);
            }
            let family = page.families.get_mut(name).unwrap();
            match what {
                "HELP" => rest.clone_into(&mut family.help),
                "TYPE" => rest.clone_into(&mut family.kind),
                "UNIT" => assert!(name.ends_with(&format!("_{rest}")), "{name} is in {rest}"),
                _ => panic!("neither HELP, TYPE nor UNIT: {line}"),
            }
        }
        page.check_histograms();
        page
    }

    /// How many series, without those that come once the queue has told its depth.
    fn of_every_worker(&self) -> usize {
        let series = self.samples.keys();
        series
            .filter(|name| !name.starts_with("entitlement_sync_queue_messages"))
            .count()
    }

    fn sample(&mut self, family: &str, line: &str) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let of = self.families.get_mut(family).expect("a TYPE comes first");
        let suffixes: &[&str] = match of.kind.as_str() {
            "counter" => &["_total"],
            "histogram" => &["_count", "_sum", "_bucket"],
            "info" => &["_info"],
            _ => &[""],
        };
        let suffix = name.strip_prefix(family).unwrap_or("?");
        assert!(suffixes.contains(&suffix), "{line} is not of {family}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let names = labels
            .trim_end_matches('}')
            .split(',')
            .filter(|label| !label.is_empty())
            .map(|label| label.split_once('=').unwrap().0.to_owned());
        of.labels.extend(names);
        of.series.push(series.to_owned());
        let before = self.samples.insert(series.to_owned(), value.to_owned());
        assert!(before.is_none(), "{series} is there twice");
    }

    /// Buckets grow, and the last holds all.
    fn check_histograms(&self) {
        for family in self.families.values().filter(|it| it.kind == "histogram") {
            let mut before = 0.0;
            for series in &family.series {
                let value: f64 = self.samples[series].parse().unwrap();
                if series.contains("_count") {
                    before = 0.0;
                } else if series.contains("_bucket") {
                    assert!(value >= before, "{series} is less than the bucket before");
                    before = value;
                }
                if series.contains("le=\"+Inf\"") {
                    let labels = series
                        .split_once('{')
                        .unwrap()
                        .1
                        .replace("le=\"+Inf\"", "")
                        .trim_end_matches('}')
                        .trim_matches(',')
                        .to_owned();
                    let name = series.split_once("_bucket").unwrap().0;
                    let count = if labels.is_empty() {
                        format!("{name}_count")
                    } else {
                        format!("{name}_count{{{labels}}}")
                    };
                    assert_eq!(self.samples[&count].parse::<f64>().unwrap(), value);
                }
            }
        }
    }
}
