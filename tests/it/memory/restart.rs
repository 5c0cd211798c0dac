//! A restart of a process without a Redis: what was acknowledged is answered, and what is not certain says so.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::process::{drained, flag, is_proven, limit, until_limit};
use testkit::events::{ACME, at, purge, seats, usage};
use testkit::reader::Builder;
use testkit::{Answer, EdgeMock, Reader, Redis, Signal, Sqs, TestQueue, http, until};

const SOON: Duration = Duration::from_secs(60);
pub const NO_EDGE: &str = "http://127.0.0.1:1";
pub const KEY: &str = "9a1cc83b6a2b4f6f8fd46a0a41a9d37d3e6a9a0f4d0f1f6cbb5c4a1e2d3c4b5a";
pub const OTHER_KEY: &str = "1a1cc83b6a2b4f6f8fd46a0a41a9d37d3e6a9a0f4d0f1f6cbb5c4a1e2d3c4b5a";

pub fn kept_in(folder: &Path, queue: &TestQueue, edge_url: &str) -> Builder {
    Reader::in_memory(queue, edge_url)
        .env("SNAPSHOT_PATH", folder.display())
        .env("SNAPSHOT_KEY", KEY)
}

pub fn snapshots(folder: &Path) -> usize {
    let files = std::fs::read_dir(folder).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".snapshot")).count()
}

pub async fn kill(reader: Reader) {
    reader.kill();
    reader.wait_exit(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_undoes_nothing_that_was_acknowledged() {
    let (sqs, folder) = (Sqs::start().await, TempDir::new().unwrap());
    let queue = sqs.queue_with("q", &[("VisibilityTimeout", "2")]).await;
    let builder = kept_in(folder.path(), &queue, NO_EDGE);
    let mut now = 0;
    let customers: Vec<String> = (0..40).map(|n| format!("customer-{n}")).collect();
    // By customer: the limit, and `None` after a purge.
    let mut expected: Vec<Option<u64>> = vec![None; customers.len()];
    for round in 0..6 {
        let reader = builder.start().await;
        for (customer, limit) in customers.iter().zip(&expected) {
            // Nobody else can tell: the queue is empty, and the Edge API is away.
            let found = super::process::limit(&reader, customer).await;
            assert_eq!(found, *limit, "{customer} in round {round}");
        }
        let mut bodies = Vec::new();
        for (customer, limit) in customers.iter().zip(&mut expected) {
            now += 1;
            let owner = (customer.as_str(), None);
            match fastrand::u8(..4) {
                0 => {
                    bodies.push(purge([owner], at(now)));
                    *limit = None;
                }
                1 => {}
                _ => {
                    bodies.push(seats(owner, now, at(now)));
                    *limit = Some(now);
                }
            }
        }
        queue.send_all(&bodies).await;
        drained(&queue).await;
        if round == 2 {
            reader.signal(Signal::SIGUSR1);
            until("a snapshot is written", SOON, async || {
                snapshots(folder.path()) > 0
            })
            .await;
        }
        kill(reader).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_end_leaves_a_snapshot_and_usage_is_part_of_it() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (sqs, folder) = (Sqs::start().await, TempDir::new().unwrap());
        let queue = sqs.queue("q").await;
        let builder = kept_in(folder.path(), &queue, NO_EDGE);
        let reader = builder.start().await;
        queue.send(&seats(ACME, 10, at(1))).await;
        queue.send(&usage(ACME, "seats", 4, at(2))).await;
        drained(&queue).await;
        reader.signal(signal);
        assert_eq!(reader.wait_exit(SOON).await, 0, "{signal}");
        assert_eq!(snapshots(folder.path()), 1, "{signal}");
        let reader = builder.start().await;
        let reply = flag(&reader, "seats@remaining", "acme").await;
        assert_eq!(reply.json()["value"], 6, "{signal}: {}", reply.body);
        // What came before the snapshot is still newer than what comes late.
        queue.send(&seats(ACME, 99, at(0))).await;
        drained(&queue).await;
        assert_eq!(limit(&reader, "acme").await, Some(10), "{signal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_restored_says_so_until_the_queue_is_read_to_its_end() {
    let (sqs, folder) = (Sqs::start().await, TempDir::new().unwrap());
    let queue = sqs.queue("q").await;
    let builder = kept_in(folder.path(), &queue, NO_EDGE);
    let reader = builder.start().await;
    queue.send(&seats(ACME, 10, at(1))).await;
    until_limit(&reader, "acme", Some(10)).await;
    until("the state is proven", SOON, async || {
        is_proven(&reader).await
    })
    .await;
    reader.term();
    reader.wait_exit(SOON).await;
    // The queue does not answer.
    let away = builder.clone().env("AWS_ENDPOINT_URL_SQS", NO_EDGE).spawn();
    until("it answers", SOON, async || {
        let ready = http::get(away.read_port(), "/readyz").await;
        ready.is_ok_and(|reply| reply.status == 200)
    })
    .await;
    let reply = away.get("/v1/c/acme/entitlements.json").await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(
        reply.header("cache-status"),
        "entitlement-sync; hit; detail=unproven"
    );
    let of_flag = flag(&away, "seats", "acme").await;
    assert_eq!(of_flag.json()["reason"], "STALE");
    kill(away).await;
    let none = builder
        .clone()
        .env("AWS_ENDPOINT_URL_SQS", NO_EDGE)
        .env("LOCAL_TTL_SECS", 0)
        .spawn();
    until("it cannot tell", SOON, async || {
        let reply = http::get(none.read_port(), "/livez").await;
        reply.is_ok() && flag(&none, "seats", "acme").await.status == 503
    })
    .await;
    kill(none).await;
    let back = builder.start().await;
    until("the state is proven", SOON, async || is_proven(&back).await).await;
    let reply = back.get("/v1/c/acme/entitlements.json").await;
    assert_eq!(reply.header("cache-status"), "entitlement-sync; hit");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edge_api_confirms_what_was_restored() {
    let (sqs, edge) = (Sqs::start().await, EdgeMock::start().await);
    let folder = TempDir::new().unwrap();
    let queue = sqs.queue("q").await;
    let builder = kept_in(folder.path(), &queue, &edge.url());
    let reader = builder.start().await;
    queue.send(&seats(ACME, 10, at(1))).await;
    drained(&queue).await;
    kill(reader).await;
    let list = json!({"data": {"entitlements": [{"__typename": "Entitlement", "isGranted": true, "usageLimit": 20,
        "hasUnlimitedUsage": false, "hasSoftLimit": false, "currentUsage": 1,
        "usageUpdatedAt": "2026-01-01T00:00:00.000Z", "entitlementUpdatedAt": "2026-01-01T00:00:00.000Z",
        "feature": {"refId": "seats", "featureType": "NUMBER", "meterType": "Fluctuating"}}]}});
    edge.answer("/v1/c/acme/entitlements.json", Answer::json(200, &list));
    let away = builder.clone().env("AWS_ENDPOINT_URL_SQS", NO_EDGE).spawn();
    until("the newer state is answered", SOON, async || {
        http::get(away.read_port(), "/livez").await.is_ok()
            && limit(&away, "acme").await == Some(20)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_has_the_folder_and_the_wrong_key_or_prefix_ends_with_78() {
    let (sqs, folder) = (Sqs::start().await, TempDir::new().unwrap());
    let queue = sqs.queue("q").await;
    let builder = kept_in(folder.path(), &queue, NO_EDGE);
    let first = builder.start().await;
    queue.send(&seats(ACME, 10, at(1))).await;
    drained(&queue).await;
    let second = builder
        .clone()
        .env("READ_PORT", testkit::free_port())
        .spawn();
    assert_eq!(second.wait_exit(SOON).await, 78);
    let logs = second.logs();
    assert!(
        logs.contains(&first.pid().to_string()),
        "says which process: {logs}"
    );
    first.term();
    first.wait_exit(SOON).await;
    for (name, value, part) in [
        ("SNAPSHOT_KEY", OTHER_KEY, "SNAPSHOT_KEY_PREVIOUS"),
        (
            "ENVIRONMENT_PREFIX",
            "staging",
            "ENVIRONMENT_PREFIX is \"staging\"",
        ),
    ] {
        let refused = builder.clone().env(name, value).spawn();
        assert_eq!(refused.wait_exit(SOON).await, 78, "{name}");
        assert!(refused.logs().contains(part), "{}", refused.logs());
    }
    let rotated = builder
        .clone()
        .env("SNAPSHOT_KEY", OTHER_KEY)
        .env("SNAPSHOT_KEY_PREVIOUS", KEY)
        .start()
        .await;
    assert_eq!(limit(&rotated, "acme").await, Some(10));
    rotated.term();
    rotated.wait_exit(SOON).await;
    let after = builder.clone().env("SNAPSHOT_KEY", OTHER_KEY).start().await;
    assert_eq!(limit(&after, "acme").await, Some(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_written_on_request_and_by_time() {
    let (sqs, folder) = (Sqs::start().await, TempDir::new().unwrap());
    let queue = sqs.queue("q").await;
    let token = "token-of-sixteen-characters";
    let reader = kept_in(folder.path(), &queue, NO_EDGE)
        .env("ADMIN_TOKEN", token)
        .env("SNAPSHOT_INTERVAL_SECS", 1)
        .start()
        .await;
    let admin = async |path: &str, token: &str, body: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        http::request(reader.port(), ("POST", path), &headers, body)
            .await
            .unwrap()
    };
    assert_eq!(
        admin("/admin/snapshot", "another-token-here", "")
            .await
            .status,
        401
    );
    queue.send(&seats(ACME, 10, at(1))).await;
    until("one is written by time", SOON, async || {
        snapshots(folder.path()) > 0
    })
    .await;
    let reply = admin("/admin/snapshot", token, "").await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let file = reply.json()["file"].as_str().unwrap().to_owned();
    assert!(folder.path().join(&file).exists());
    for _ in 0..4 {
        assert_eq!(admin("/admin/snapshot", token, "").await.status, 200);
    }
    assert_eq!(snapshots(folder.path()), 3);
    let reply = admin("/admin/reload", token, r#"{"customerId":"acme"}"#).await;
    assert_eq!(reply.status, 503, "the Edge API is away: {}", reply.body);
    for body in [
        "{}",
        r#"{"customerId":".."}"#,
        r#"{"customerId":"acme:r_x"}"#,
    ] {
        assert_eq!(
            admin("/admin/reload", token, body).await.status,
            400,
            "{body}"
        );
    }
    // Without a token there is no such route.
    let other = Reader::in_memory(&queue, NO_EDGE).start().await;
    let reply = http::request(other.port(), ("POST", "/admin/snapshot"), &[], "")
        .await
        .unwrap();
    assert_eq!(reply.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_journal_cannot_be_written_nothing_is_acknowledged() {
    let (sqs, parent) = (Sqs::start().await, TempDir::new().unwrap());
    let queue = sqs.queue_with("q", &[("VisibilityTimeout", "2")]).await;
    let folder = parent.path().join("state");
    let reader = kept_in(&folder, &queue, NO_EDGE).start().await;
    queue.send(&seats(ACME, 10, at(1))).await;
    drained(&queue).await;
    std::fs::rename(&folder, parent.path().join("elsewhere")).unwrap();
    queue.send(&seats(ACME, 11, at(2))).await;
    reader.wait_unready().await;
    assert_eq!(queue.depth().await, 1);
    let verbose = reader.http("/readyz?verbose").await;
    assert!(
        verbose.body.contains("store: cannot write the journal"),
        "{}",
        verbose.body
    );
    std::fs::rename(parent.path().join("elsewhere"), &folder).unwrap();
    reader.wait_ready().await;
    drained(&queue).await;
    kill(reader).await;
    let reader = kept_in(&folder, &queue, NO_EDGE).start().await;
    assert_eq!(limit(&reader, "acme").await, Some(11));
}

/// With a Redis, the copy of the read API is what a snapshot holds.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_answers_after_a_restart_with_redis_and_the_edge_api_away() {
    let (redis, folder) = (Redis::start().await, TempDir::new().unwrap());
    let builder = Reader::builder(&redis, NO_EDGE)
        .env("SNAPSHOT_PATH", folder.path().display())
        .env("SNAPSHOT_KEY", KEY);
    let key = "production:c_acme";
    let map = json!({"seats": {"calculatedEntitlement": {"feature": {"id": "seats", "featureType": "NUMBER",
        "meterType": "None", "units": "", "unitsPlural": ""}, "usageLimit": 10, "hasUnlimitedUsage": false,
        "hasSoftLimit": false, "enumValues": []},
        "featureUsage": {"resetPeriod": null, "resetPeriodConfiguration": null, "currentUsage": 0}}});
    let stamp = at(1).to_string();
    redis.cmd(&[
        "MSET",
        key,
        &map.to_string(),
        &format!("{key}#timestamp"),
        &stamp,
    ]);
    let reader = builder.start().await;
    assert_eq!(limit(&reader, "acme").await, Some(10));
    reader.term();
    assert_eq!(reader.wait_exit(SOON).await, 0);
    let away = builder.clone().redis_port(testkit::free_port()).spawn();
    until("it answers", SOON, async || {
        let ready = http::get(away.read_port(), "/readyz").await;
        ready.is_ok_and(|reply| reply.status == 200)
    })
    .await;
    let reply = away.get("/v1/c/acme/entitlements.json").await;
    assert_eq!(
        reply.header("cache-status"),
        "entitlement-sync; hit; detail=unproven"
    );
    assert_eq!(limit(&away, "acme").await, Some(10));
    kill(away).await;
    // Redis is there, and has changed meanwhile.
    let changed = map
        .to_string()
        .replace("\"usageLimit\":10", "\"usageLimit\":20");
    let stamp = at(2).to_string();
    redis.cmd(&["MSET", key, &changed, &format!("{key}#timestamp"), &stamp]);
    let back = builder.start().await;
    assert_eq!(limit(&back, "acme").await, Some(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_given_up_is_kept_over_a_restart_and_shown() {
    let (sqs, folder) = (Sqs::start().await, TempDir::new().unwrap());
    let queue = sqs.queue("q").await;
    let token = "token-of-sixteen-characters";
    let builder = kept_in(folder.path(), &queue, NO_EDGE)
        .env("ADMIN_TOKEN", token)
        .env("MAX_RECEIVE_COUNT", 1);
    let reader = builder.start().await;
    let bad = seats(ACME, 10, at(1)).replace("acme", "");
    queue.send(&bad).await;
    drained(&queue).await;
    let logs = reader.logs();
    assert!(logs.contains("kept_in=\"/admin/dead-letters\""), "{logs}");
    kill(reader).await;
    let reader = builder.start().await;
    let admin = async |method: &str, path: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        http::request(reader.port(), (method, path), &headers, "")
            .await
            .unwrap()
    };
    let letters = admin("GET", "/admin/dead-letters").await.json();
    assert_eq!(letters["letters"][0]["body"], bad, "{letters}");
    let path = format!("/admin/dead-letters/{}", letters["letters"][0]["id"]);
    assert_eq!(admin("DELETE", &path).await.status, 200);
    assert_eq!(admin("DELETE", &path).await.status, 404);
    let without = http::request(reader.port(), ("GET", "/admin/dead-letters"), &[], "").await;
    assert_eq!(without.unwrap().status, 401);
}

/// Without a place to keep it, a message is not deleted.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_journal_a_message_that_cannot_be_applied_stays_in_the_queue() {
    let sqs = Sqs::start().await;
    let queue = sqs.queue("q").await;
    let reader = Reader::in_memory(&queue, NO_EDGE)
        .env("MAX_RECEIVE_COUNT", 1)
        .start()
        .await;
    queue
        .send(&seats(ACME, 10, at(1)).replace("acme", ""))
        .await;
    until("it is said", SOON, async || {
        reader.logs().contains("it stays in the queue")
    })
    .await;
    assert_eq!(queue.depth().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_bound_holds_from_the_start() {
    let (sqs, folder) = (Sqs::start().await, TempDir::new().unwrap());
    let queue = sqs.queue("q").await;
    let builder = kept_in(folder.path(), &queue, NO_EDGE);
    let reader = builder
        .clone()
        .env("LOCAL_MAX_BYTES", 64 << 20)
        .start()
        .await;
    let bodies = (0..3_000).map(|n| seats((&format!("customer-{n}"), None), 10, at(1)));
    queue.send_all(bodies).await;
    drained(&queue).await;
    reader.term();
    assert_eq!(reader.wait_exit(SOON).await, 0);
    let reader = builder.env("LOCAL_MAX_BYTES", 1 << 20).start().await;
    let metric = async |name: &str| {
        reader
            .metric(&format!("entitlement_sync_memory_{name}"))
            .await
    };
    until("the state is counted", SOON, async || {
        metric("owners").await > 0.0
    })
    .await;
    let (bytes, most) = (
        metric("state_bytes").await,
        metric("state_limit_bytes").await,
    );
    assert!(bytes <= most * 1.1, "{bytes} of {most}");
}
