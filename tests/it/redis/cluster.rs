//! A cluster: slots move, nodes are lost, and the worker follows.

use std::time::Duration;

use crate::stand::{SOON, state};
use testkit::cluster::Cluster;
use testkit::sqs::{Sqs, TestQueue};
use testkit::until;
use testkit::worker::{Builder, Worker};

/// The slot of `{production}`.
const SLOT: u16 = 15_882;
const LONG: Duration = Duration::from_secs(60);

fn worker(cluster: &Cluster, queue: &TestQueue) -> Builder {
    let seeds: Vec<String> = cluster
        .nodes
        .iter()
        .take(3)
        .map(|node| format!("127.0.0.1:{}", node.port()))
        .collect();
    Worker::builder(&cluster.nodes[0], queue)
        .unset("REDIS_PORT")
        .env("REDIS_HOST", seeds.join(","))
        .env("ENVIRONMENT_PREFIX", "{production}")
}

fn holds(cluster: &Cluster, customer: &str, at: u64) -> bool {
    let key = format!("{{production}}:c_{customer}");
    cluster.get(&key).as_deref() == Some("{}")
        && cluster.get(&format!("{key}#timestamp")) == Some(at.to_string())
}

async fn sent(queue: &TestQueue, from: u64, count: u64) {
    for number in from..from + count {
        queue.send(&state(&format!("c{number}"), number)).await;
    }
}

async fn all_are_there(cluster: &Cluster, queue: &TestQueue, count: u64) {
    queue.wait_empty(LONG).await;
    for number in 1..=count {
        assert!(
            holds(cluster, &format!("c{number}"), number),
            "c{number} is lost"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_moves_while_messages_flow() {
    let (cluster, sqs) = (Cluster::start(0, SLOT).await, Sqs::start().await);
    let queue = sqs
        .queue_with("cluster", &[("VisibilityTimeout", "2")])
        .await;
    let worker = worker(&cluster, &queue).start().await;
    let status: serde_json::Value =
        serde_json::from_str(&worker.http("/status").await.body).unwrap();
    assert_eq!(status["redis_mode"], "cluster");
    assert!(
        worker.logs().contains("cluster 127.0.0.1:"),
        "the line at start tells"
    );
    sent(&queue, 1, 30).await;
    until("some are applied", SOON, async || holds(&cluster, "c1", 1)).await;
    let (from, to) = (cluster.owner(SLOT), cluster.other(SLOT));
    tokio::join!(sent(&queue, 31, 60), cluster.move_slot(SLOT, from, to));
    sent(&queue, 91, 10).await;
    all_are_there(&cluster, &queue, 100).await;
    assert_eq!(cluster.owner(SLOT).port(), to.port());
    assert!(
        to.get("{production}:c_c100").is_some(),
        "the new owner has it"
    );
    worker.wait_ready().await;
    let lost = worker
        .metric("entitlement_sync_redis_data_lost_total")
        .await;
    assert_eq!(lost, 0.0, "moved data are not lost data");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_lost_and_come_back() {
    let (cluster, sqs) = (Cluster::start(1, SLOT).await, Sqs::start().await);
    let queue = sqs
        .queue_with("cluster", &[("VisibilityTimeout", "2")])
        .await;
    let first = cluster.nodes[0].port();
    // One address of a cluster, which only the mode can tell.
    let worker = worker(&cluster, &queue)
        .unset("REDIS_HOST")
        .env("REDIS_URL", format!("redis://127.0.0.1:{first}"))
        .env("REDIS_MODE", "cluster")
        .start()
        .await;
    sent(&queue, 1, 10).await;
    all_are_there(&cluster, &queue, 10).await;

    // One that has nothing to do with us, the only one that was configured.
    let other = &cluster.nodes[0];
    assert_ne!(cluster.owner(SLOT).port(), other.port());
    other.kill();
    sent(&queue, 11, 10).await;
    all_are_there(&cluster, &queue, 20).await;
    other.restart().await;
    cluster.wait_whole(&[&cluster.nodes[1]]).await;

    let owner = cluster.owner(SLOT);
    until("the replica has all that its owner has", SOON, async || {
        cluster.nodes[3].info("slave_repl_offset") == owner.info("master_repl_offset")
    })
    .await;
    owner.kill();
    worker.wait_unready().await;
    sent(&queue, 21, 10).await;
    until("the replica takes over", LONG, async || {
        cluster.has_owner(SLOT)
    })
    .await;
    worker.wait_ready().await;
    all_are_there(&cluster, &queue, 30).await;
    assert_ne!(cluster.owner(SLOT).port(), owner.port());
    owner.restart().await;
    until("it comes back as a replica", LONG, async || {
        owner.role().as_deref() == Some("slave")
    })
    .await;
    sent(&queue, 31, 10).await;
    all_are_there(&cluster, &queue, 40).await;
    worker.wait_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_takes_a_cluster_for_one_server_says_so() {
    let (cluster, sqs) = (Cluster::start(0, SLOT).await, Sqs::start().await);
    let queue = sqs
        .queue_with("cluster", &[("VisibilityTimeout", "2")])
        .await;
    let worker = Worker::builder(cluster.other(SLOT), &queue)
        .env("ENVIRONMENT_PREFIX", "{production}")
        .spawn();
    until("it is said", SOON, async || {
        let reply = worker.try_http("/readyz?verbose").await;
        reply.is_ok_and(|reply| reply.body.contains("REDIS_MODE=cluster"))
    })
    .await;
}
