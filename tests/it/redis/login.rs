//! The other ways in: URLs, sockets, databases, passwords and where they are kept.

use std::fs;
use std::time::Duration;

use tempfile::TempDir;

use crate::stand::{SOON, state};
use testkit::sqs::Sqs;
use testkit::worker::Worker;
use testkit::{Redis, until};

const LIMIT: Duration = Duration::from_secs(30);

async fn says(worker: &Worker, text: &str) {
    until(&format!("it says {text}"), SOON, async || {
        let reply = worker.try_http("/readyz?verbose").await;
        reply.is_ok_and(|reply| reply.status == 503 && reply.body.contains(text))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_says_where_who_and_which_database() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("redis.sock");
    let redis = Redis::start_with(&["--unixsocket", socket.to_str().unwrap()]).await;
    redis.cmd(&["ACL", "SETUSER", "sync", "on", ">p@ss/word", "~*", "+@all"]);
    let sqs = Sqs::start().await;
    let port = redis.port();
    for (number, url, mode) in [
        (
            1,
            format!("redis://sync:p%40ss%2Fword@127.0.0.1:{port}/3"),
            "standalone",
        ),
        (2, format!("valkey://127.0.0.1:{port}/4"), "standalone"),
        (3, format!("unix://{}?db=5", socket.display()), "unix"),
        (4, format!("redis+unix://{}", socket.display()), "unix"),
    ] {
        let queue = sqs.queue(&format!("q{number}")).await;
        let worker = Worker::builder(&redis, &queue)
            .unset("REDIS_HOST")
            .unset("REDIS_PORT")
            .env("REDIS_URL", &url)
            .start()
            .await;
        queue.send(&state("acme", number)).await;
        queue.wait_empty(LIMIT).await;
        let status: serde_json::Value =
            serde_json::from_str(&worker.http("/status").await.body).unwrap();
        assert_eq!(status["redis_mode"], mode);
        assert!(!worker.logs().contains("p@ss/word") && !worker.logs().contains("p%40ss"));
    }
    for (database, at) in [(3, "1"), (4, "2"), (5, "3"), (0, "4")] {
        let mut conn = redis.conn();
        let _: () = redis::cmd("SELECT").arg(database).query(&mut conn).unwrap();
        let found: String = redis::cmd("GET")
            .arg("production:c_acme#timestamp")
            .query(&mut conn)
            .unwrap();
        assert_eq!(found, at, "database {database}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_login_or_a_database_is_said_and_no_timeout() {
    let (redis, sqs) = (
        Redis::start_with(&["--requirepass", "right-one"]).await,
        Sqs::start().await,
    );
    let open = Redis::start_with(&["--databases", "4"]).await;
    let queue = sqs.queue_with("q", &[("VisibilityTimeout", "2")]).await;
    let wrong = Worker::builder(&redis, &queue)
        .env("REDIS_PASSWORD", "wrong-one")
        .spawn();
    says(&wrong, "WRONGPASS").await;
    let none = Worker::builder(&redis, &queue).spawn();
    says(&none, "NOAUTH").await;
    let database = Worker::builder(&open, &queue).env("REDIS_DB", 7).spawn();
    says(&database, "DB index is out of range").await;
    for worker in [&wrong, &none, &database] {
        until("it needs a person, so it is an error", SOON, async || {
            worker.logs().contains("ERROR")
        })
        .await;
        assert!(
            !worker.logs().contains("wrong-one"),
            "a secret is in the log"
        );
    }
    redis.cmd(&["CONFIG", "SET", "requirepass", "wrong-one"]);
    wrong.wait_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_file_is_rotated_under_a_running_worker() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("password");
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue_with("q", &[("VisibilityTimeout", "2")]).await;
    redis.cmd(&["ACL", "SETUSER", "sync", "on", ">canary-one", "~*", "+@all"]);
    fs::write(&file, "canary-one\n").unwrap();
    let worker = Worker::builder(&redis, &queue)
        .env("REDIS_USER", "sync")
        .env("REDIS_PASSWORD_FILE", file.display())
        .start()
        .await;
    redis.cmd(&["ACL", "SETUSER", "sync", "resetpass", ">canary-two"]);
    redis.cmd(&["CLIENT", "KILL", "USER", "sync"]);
    says(&worker, "WRONGPASS").await;
    fs::remove_file(&file).unwrap();
    says(&worker, "REDIS_PASSWORD_FILE").await;
    fs::write(&file, "canary-two\n").unwrap();
    worker.wait_ready().await;
    queue.send(&state("acme", 1_000)).await;
    queue.wait_empty(LIMIT).await;
    assert!(redis.get("production:c_acme").is_some());
    assert!(!worker.logs().contains("canary"), "a secret is in the log");
}

/// Until a replica has it, a message is not acknowledged; a late confirmation is logged and counted.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_before_a_replica_has_it() {
    let (primary, sqs) = (
        Redis::start_with(&["--repl-diskless-sync-delay", "0"]).await,
        Sqs::start().await,
    );
    let queue = sqs.queue_with("q", &[("VisibilityTimeout", "2")]).await;
    let port = primary.port().to_string();
    let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &port]).await;
    let linked = async || replica.info("master_link_status") == "up";
    until("the replica is linked", SOON, linked).await;
    let worker = Worker::builder(&primary, &queue)
        .env("REDIS_WAIT_REPLICAS", 1)
        .start()
        .await;
    queue.send(&state("acme", 1_000)).await;
    queue.wait_empty(LIMIT).await;
    assert!(
        replica.get("production:c_acme").is_some(),
        "it was there before it was acknowledged"
    );

    // The socket stays open, and nothing comes of it.
    replica.freeze();
    says(&worker, "0 of 1 replicas confirmed").await;
    queue.send(&state("acme", 2_000)).await;
    assert!(
        worker
            .metric("entitlement_sync_redis_replicas_missing_total")
            .await
            >= 1.0
    );
    replica.thaw();
    worker.wait_ready().await;
    queue.wait_empty(LIMIT).await;
    let stamp = replica.get("production:c_acme#timestamp");
    assert_eq!(stamp.as_deref(), Some("2000"));
}
