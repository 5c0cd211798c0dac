//! Sentinels: the primary fails under load, and what was acknowledged is on the new one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::stand::{SOON, TWO_SECS, state};
use testkit::sentinel::{MASTER, Sentinels};
use testkit::sqs::Sqs;
use testkit::worker::{Builder, Worker};
use testkit::{Redis, repo, until};

/// What docs/operations.md tells people to grant on sentinels, and no more.
const RIGHTS: &str = "+ping +info +client|id +client|setname +sentinel|get-master-addr-by-name";
const LONG: Duration = Duration::from_secs(60);

/// A primary and its replicas.
pub async fn servers(replicas: usize, options: &[&str]) -> Vec<Redis> {
    let mut options = options.to_vec();
    options.extend(["--repl-diskless-sync-delay", "0"]);
    let primary = Redis::start_with(&options).await;
    let port = primary.port().to_string();
    let mut servers = vec![primary];
    for _ in 0..replicas {
        let mut options = options.clone();
        options.extend(["--replicaof", "127.0.0.1", &port]);
        servers.push(Redis::start_with(&options).await);
    }
    for replica in &servers[1..] {
        until("the replica is linked", SOON, async || {
            replica.info("master_link_status") == "up"
        })
        .await;
    }
    servers
}

fn by_sentinels(builder: Builder, sentinels: &Sentinels) -> Builder {
    builder
        .unset("REDIS_HOST")
        .unset("REDIS_PORT")
        .env("REDIS_SENTINEL_HOSTS", sentinels.hosts())
        .env("REDIS_SENTINEL_MASTER", MASTER)
}

async fn says(worker: &Worker, text: &str) {
    until(&format!("it says {text}"), SOON, async || {
        let reply = worker.try_http("/readyz?verbose").await;
        reply.is_ok_and(|reply| reply.status == 503 && reply.body.contains(text))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_under_load_loses_nothing_that_was_acknowledged() {
    let (servers, sqs) = tokio::join!(servers(2, &[]), Sqs::start());
    let queue = sqs.queue_with("q", &[("VisibilityTimeout", "5")]).await;
    let sentinels = Sentinels::start(&servers[0], 2, "").await;
    let worker = by_sentinels(Worker::builder(&servers[0], &queue), &sentinels)
        .env("REDIS_WAIT_REPLICAS", 1)
        .start()
        .await;
    assert!(
        worker.logs().contains("by sentinels"),
        "the line at start tells"
    );

    let (count, stop) = (AtomicU64::new(0), Arc::new(AtomicBool::new(false)));
    let load = async {
        while !stop.load(Ordering::Relaxed) {
            let number = count.fetch_add(1, Ordering::Relaxed) + 1;
            queue.send(&state(&format!("c{number}"), number)).await;
        }
    };
    let failover = async {
        until("the load is applied", SOON, async || {
            servers[0].get("production:c_c20").is_some()
        })
        .await;
        servers[0].kill();
        let gone = tokio::time::Instant::now();
        worker.wait_unready().await;
        assert!(
            gone.elapsed() < 2 * TWO_SECS,
            "unready after {:?}",
            gone.elapsed()
        );
        // A primary that is gone is not reported as there.
        until("the sentinels agree on another", LONG, async || {
            let primary = sentinels.primary();
            let is_new = primary.is_some_and(|port| port != servers[0].port());
            if !is_new && primary.is_some() {
                let status = worker.http("/readyz").await.status;
                let still = sentinels.primary();
                assert!(status == 503 || still != primary, "ready without a primary");
            }
            is_new
        })
        .await;
        worker.wait_ready().await;
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(load, failover);
    queue.wait_empty(LONG).await;
    let port = sentinels.primary().unwrap();
    let primary = servers.iter().find(|server| server.port() == port).unwrap();
    for number in 1..=count.load(Ordering::Relaxed) {
        let stamp = primary.get(&format!("production:c_c{number}#timestamp"));
        assert_eq!(stamp, Some(number.to_string()), "c{number} is lost");
    }

    // The old one comes back, and does not confuse anyone.
    servers[0].restart().await;
    until("it is a replica now", LONG, async || {
        servers[0].role().as_deref() == Some("slave")
    })
    .await;
    queue.send(&state("later", 9_000_000)).await;
    queue.wait_empty(LONG).await;
    assert!(primary.get("production:c_later").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_only_cut_off_is_left_all_the_same() {
    let (servers, sqs) = tokio::join!(servers(1, &[]), Sqs::start());
    let queue = sqs.queue_with("q", &[("VisibilityTimeout", "2")]).await;
    let sentinels = Sentinels::start(&servers[0], 1, "").await;
    let first = sentinels.hosts();
    let (first, others) = first.split_once(',').unwrap();
    let url = format!(
        "redis-sentinel://{first}?sentinelServiceName={MASTER}&node={}",
        others.replace(',', "&node=")
    );
    let worker = Worker::builder(&servers[0], &queue)
        .unset("REDIS_HOST")
        .unset("REDIS_PORT")
        .env("REDIS_URL", url)
        .start()
        .await;
    servers[0].freeze();
    worker.wait_unready().await;
    worker.wait_ready().await;
    queue.send(&state("acme", 1_000)).await;
    queue.wait_empty(LONG).await;
    assert!(servers[1].get("production:c_acme").is_some());
    servers[0].thaw();
    until("it is a replica now", LONG, async || {
        servers[0].role().as_deref() == Some("slave")
    })
    .await;
    assert!(worker.http("/readyz").await.status == 200);
    // Any one sentinel is enough, whichever was asked before.
    sentinels.kill(0);
    sentinels.kill(1);
    queue.send(&state("acme", 2_000)).await;
    queue.wait_empty(LONG).await;
    assert_eq!(
        worker.http("/readyz").await.status,
        200,
        "Redis itself is well"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_have_passwords_of_their_own_and_what_they_do_not_know_is_said() {
    let (servers, sqs) = tokio::join!(servers(0, &[]), Sqs::start());
    let queue = sqs.queue_with("q", &[("VisibilityTimeout", "2")]).await;
    let sentinels =
        Sentinels::start(&servers[0], 0, &format!("user guard on >watch {RIGHTS}\n")).await;
    servers[0].cmd(&["ACL", "SETUSER", "sync", "on", ">pass", "~*", "&*", "+@all"]);
    let builder = by_sentinels(Worker::builder(&servers[0], &queue), &sentinels)
        .env("REDIS_USER", "sync")
        .env("REDIS_PASSWORD", "pass")
        .env("REDIS_SENTINEL_USER", "guard")
        .env("REDIS_SENTINEL_PASSWORD", "watch");
    drop(builder.start().await);
    let operations = std::fs::read_to_string(repo("docs/operations.md")).unwrap();
    assert!(
        operations.contains(RIGHTS),
        "docs/operations.md does not name {RIGHTS}"
    );
    let worker = builder
        .clone()
        .env("REDIS_SENTINEL_PASSWORD", "wrong-one")
        .spawn();
    says(&worker, "no sentinel answers").await;
    says(&worker, "WRONGPASS").await;
    until("it needs a person, so it is an error", SOON, async || {
        worker.logs().contains("ERROR")
    })
    .await;
    assert!(!worker.logs().contains("wrong-one"));
    let worker = builder
        .clone()
        .env("REDIS_SENTINEL_MASTER", "another")
        .spawn();
    says(&worker, "no sentinel knows a primary named \"another\"").await;
    let worker = builder
        .clone()
        .env("REDIS_SENTINEL_HOSTS", "127.0.0.1:1,127.0.0.1:2")
        .spawn();
    says(&worker, "127.0.0.1:2 not reachable: Connection refused").await;
}
