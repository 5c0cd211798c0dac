//! What the probes say, and what the worker does, while Redis or the queue is away, and after.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;

use crate::stand::{SOON, Stand, TWO_SECS, state};
use testkit::events::{ACME, usage};
use testkit::{Fault, Redis, Sqs, TcpProxy, Worker, http, until};

const UP: &str = r#"{"status":"UP"}"#;
const READY: &str = r#"{"status":"UP","consumers":2,"redis":"CONNECTED"}"#;
const DOWN: &str = r#"{"status":"DOWN","consumers":0,"redis":"DISCONNECTED"}"#;
const NO_QUEUE: &str = r#"{"status":"DOWN","consumers":0,"redis":"CONNECTED"}"#;

async fn working_with(redis: &[&str]) -> (Stand, Worker) {
    let stand = Stand::start_with(redis, &[]).await;
    let worker = stand.worker().start().await;
    stand.wait_polls(2).await;
    wait_both(&worker).await;
    stand.applies("before", 1_000, SOON).await;
    stand.wait_polls(2).await;
    (stand, worker)
}

/// One answer of the queue makes a worker ready; the other consumer may have none yet.
async fn wait_both(worker: &Worker) {
    until("both consumers have had an answer", SOON, async || {
        worker.http("/readyz").await.body == READY
    })
    .await;
}

async fn working() -> (Stand, Worker) {
    working_with(&[]).await
}

/// Within 2 s of the fault nothing is received any more and `/readyz` says no; it stays so, and the process lives.
async fn goes_down(stand: &Stand, worker: &Worker) {
    until("receiving stops", TWO_SECS, async || {
        stand.polls() == 0 && worker.http("/readyz").await.body == DOWN
    })
    .await;
    let calls = stand.calls.calls("ReceiveMessage");
    let since = Instant::now();
    until("some time has passed", SOON, async || {
        let (ready, live) = (worker.http("/readyz").await, worker.http("/livez").await);
        assert_eq!((ready.status, ready.body.as_str()), (503, DOWN));
        assert_eq!((live.status, live.body.as_str()), (200, UP));
        assert_eq!(stand.calls.calls("ReceiveMessage"), calls);
        since.elapsed() > TWO_SECS
    })
    .await;
}

/// The first message sent is applied within 2 s, and the probes agree.
async fn goes_on(stand: &Stand, worker: &Worker) {
    stand.applies("after", 2_000, TWO_SECS).await;
    worker.wait_ready().await;
    stand.queue.wait_empty(SOON).await;
}

async fn wait_verbose(worker: &Worker, part: &str) {
    until(&format!("the reason is {part}"), SOON, async || {
        let reply = worker.try_http("/readyz?verbose").await;
        reply.is_ok_and(|reply| reply.status == 503 && reply.body.contains(part))
    })
    .await;
}

async fn wait_log(worker: &Worker, part: &str) {
    until(&format!("the log says {part}"), SOON, async || {
        worker.logs().contains(part)
    })
    .await;
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn probe_answers_are_the_documented_bytes() {
    let (_stand, worker) = working().await;
    for (path, body) in [("/livez", UP), ("/readyz", READY)] {
        let reply = worker.http(path).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, body), "{path}");
        assert_eq!(reply.header("content-type"), "application/json", "{path}");
        assert_eq!(reply.header("cache-control"), "no-store", "{path}");

        let head = Request::head(path)
            .header("host", "localhost")
            .body(Full::<Bytes>::default())
            .unwrap();
        let reply = http::send(worker.port(), head).await.unwrap();
        assert_eq!(reply.status(), 200, "HEAD {path}");
        assert_eq!(reply.headers()["content-type"], "application/json");
        assert_eq!(reply.headers()["content-length"], body.len().to_string());
        assert!(reply.body().is_empty(), "HEAD {path}");
    }
    assert_eq!(worker.http("/readyz?verbose").await.status, 200);
    assert_eq!(worker.http("/nothing").await.status, 404);
}

/// Across the end of the long polls, when all consumers but one go to sleep.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_stays_ready() {
    let stand = Stand::start().await;
    let worker = stand.worker().unset("MIN_POLLERS").start().await;
    stand.wait_polls(2).await;
    let ready = async || {
        let reply = worker.http("/readyz").await;
        assert_eq!((reply.status, reply.body.as_str()), (200, READY));
    };
    wait_both(&worker).await;
    let calls = stand.calls.calls("ReceiveMessage");
    until("both polls have ended", 2 * SOON, async || {
        ready().await;
        stand.calls.calls("ReceiveMessage") > calls && stand.polls() == 1
    })
    .await;
    stand.applies("acme", 1_000, SOON).await;
    ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redis_stops_receiving_until_it_is_back() {
    let (stand, worker) = working().await;
    stand.redis.kill();
    goes_down(&stand, &worker).await;
    stand.redis.restart().await;
    goes_on(&stand, &worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_stops_receiving_until_it_thaws() {
    let (stand, worker) = working().await;
    stand.redis.freeze();
    goes_down(&stand, &worker).await;
    stand.redis.thaw();
    goes_on(&stand, &worker).await;
}

/// Longer than each timeout, and than the visibility timeout of what the worker holds meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_was_stopped_for_50_s_under_load_costs_only_time() {
    const STOPPED: Duration = Duration::from_secs(50);
    const CUSTOMERS: usize = 200;
    let (stand, worker) = working().await;
    let customer = |number: usize| format!("load-{number}");
    stand.link.delay(Duration::from_millis(100));
    for number in 0..CUSTOMERS / 2 {
        stand.send(&customer(number), 1_000).await;
    }
    until("messages are in flight", SOON, async || {
        worker.metric("entitlement_sync_inflight_messages").await >= 10.0
    })
    .await;
    let since = Instant::now();
    stand.redis.freeze();
    for number in CUSTOMERS / 2..CUSTOMERS {
        stand.send(&customer(number), 1_000).await;
    }
    goes_down(&stand, &worker).await;
    until("it was stopped for long", 2 * STOPPED, async || {
        since.elapsed() > STOPPED
    })
    .await;
    assert!(stand.queue.depth().await >= CUSTOMERS as u64 / 2);
    stand.link.restore().await;
    stand.redis.thaw();
    let applied = || {
        let written = stand.redis.dump("production:c_load-");
        (0..CUSTOMERS)
            .filter(move |it| written.contains_key(&format!("production:c_{}", customer(*it))))
            .count()
    };
    let before = applied();
    until("the next is applied", TWO_SECS, async || applied() > before).await;
    stand.queue.wait_empty(3 * SOON).await;
    assert_eq!(applied(), CUSTOMERS);
    assert_eq!(
        worker
            .metric("entitlement_sync_consumers_restarted_total")
            .await,
        0.0
    );
    goes_on(&stand, &worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_link_to_redis_stops_receiving_until_it_is_whole() {
    let (stand, worker) = working().await;
    stand.link.blackhole();
    goes_down(&stand, &worker).await;
    stand.link.restore().await;
    goes_on(&stand, &worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_redis_stops_receiving_until_it_takes_writes() {
    let (stand, worker) = working().await;
    stand.redis.cmd(&["REPLICAOF", "127.0.0.1", "1"]);
    goes_down(&stand, &worker).await;
    wait_verbose(&worker, "READONLY").await;
    stand.redis.cmd(&["REPLICAOF", "NO", "ONE"]);
    goes_on(&stand, &worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_stops_receiving_until_it_has_room() {
    let (stand, worker) = working().await;
    stand
        .redis
        .cmd(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    stand.redis.cmd(&["CONFIG", "SET", "maxmemory", "1"]);
    goes_down(&stand, &worker).await;
    wait_verbose(&worker, "OOM").await;
    stand.redis.cmd(&["CONFIG", "SET", "maxmemory", "0"]);
    goes_on(&stand, &worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_redis_password_stops_receiving_until_it_is_right_again() {
    for (password, cause) in [("", "NOAUTH"), ("right", "WRONGPASS")] {
        let options: &[&str] =
            &["--requirepass", password][..if password.is_empty() { 0 } else { 2 }];
        let stand = Stand::start_with(options, &[]).await;
        let worker = stand.worker().env("REDIS_PASSWORD", password).start().await;
        stand.wait_polls(2).await;
        let mut admin = stand.redis.conn();
        let mut set_password = |password: &str| {
            let command = ["CONFIG", "SET", "requirepass", password];
            redis::cmd(command[0])
                .arg(&command[1..])
                .exec(&mut admin)
                .unwrap();
            let kill = ["CLIENT", "KILL", "TYPE", "normal"];
            redis::cmd(kill[0])
                .arg(&kill[1..])
                .exec(&mut admin)
                .unwrap();
        };
        set_password("changed");
        goes_down(&stand, &worker).await;
        wait_verbose(&worker, cause).await;
        wait_log(&worker, cause).await;
        wait_log(&worker, "check REDIS_PASSWORD").await;
        set_password(password);
        goes_on(&stand, &worker).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loading_redis_stops_receiving_until_it_has_loaded() {
    let (stand, worker) = working_with(&[
        "--dbfilename",
        "dump.rdb",
        // 5.6 s for what is written below.
        "--key-load-delay",
        "7000",
        "--loading-process-events-interval-bytes",
        "1024",
    ])
    .await;
    let fill = "for i = 1, 800 do redis.call('SET', 'filler' .. i, string.rep('x', 100)) end";
    stand.redis.cmd(&["EVAL", fill, "0"]);
    stand.redis.cmd(&["SAVE"]);
    let check = async {
        goes_down(&stand, &worker).await;
        wait_verbose(&worker, "LOADING").await;
    };
    tokio::join!(stand.redis.restart(), check);
    goes_on(&stand, &worker).await;
    assert!(stand.holds("before", 1_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_and_queue_may_come_later_than_the_worker() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let port = sqs.endpoint().rsplit_once(':').unwrap().1.parse().unwrap();
    let link = TcpProxy::start(port).await;
    redis.kill();
    link.cut().await;
    let worker = Worker::builder(&redis, &queue)
        .endpoint(format!("http://127.0.0.1:{}", link.port()))
        .spawn();

    // HTTP comes first.
    until("the worker is alive", SOON, async || {
        worker
            .try_http("/livez")
            .await
            .is_ok_and(|reply| reply.body == UP)
    })
    .await;
    wait_verbose(&worker, "redis").await;
    let reply = worker.http("/readyz").await;
    assert_eq!((reply.status, reply.body.as_str()), (503, DOWN));

    // Then Redis.
    redis.restart().await;
    until("Redis is connected", SOON, async || {
        worker.http("/readyz").await.body == NO_QUEUE
    })
    .await;
    wait_verbose(&worker, "not reachable").await;

    // Then the queue, and nothing was lost of what it held.
    queue.send(&state("early", 1_000)).await;
    link.restore().await;
    worker.wait_ready().await;
    queue.wait_empty(SOON).await;
    let at = redis.get("production:c_early#timestamp");
    assert_eq!(at.as_deref(), Some("1000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_answer_at_once_while_everything_else_hangs() {
    let (stand, worker) = working().await;
    for action in [
        "ReceiveMessage",
        "DeleteMessageBatch",
        "ChangeMessageVisibilityBatch",
        "GetQueueAttributes",
    ] {
        stand.calls.always(action, Fault::Hang);
    }
    for customer in 0..20 {
        stand.send(&customer.to_string(), 1_000).await;
    }
    stand.redis.freeze();
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(5) {
        for path in ["/livez", "/readyz", "/readyz?verbose", "/metrics"] {
            let asked = Instant::now();
            worker.http(path).await;
            // 50 ms when nothing else runs on this machine; a hang would be minutes.
            let took = asked.elapsed();
            assert!(took < Duration::from_secs(1), "{path} took {took:?}");
        }
    }
    assert_eq!(worker.http("/readyz").await.body, DOWN);
    assert_eq!(worker.http("/livez").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn why_the_queue_fails_is_said_and_its_recovery_noticed() {
    let faults = [
        (Fault::throttle(), "throttled"),
        (Fault::expired_token(), "credentials have expired"),
        (Fault::access_denied(), "access denied"),
        (Fault::no_such_queue(), "queue does not exist"),
        (Fault::server_error(), "failed"),
        (Fault::Reset, "not reachable"),
        (Fault::malformed(), "failed"),
    ];
    let checks = faults.into_iter().map(async |(fault, cause)| {
        let stand = Stand::start().await;
        stand.calls.always("ReceiveMessage", fault.clone());
        let worker = stand.worker().spawn();
        wait_verbose(&worker, cause).await;
        let body = worker.http("/readyz?verbose").await.body;
        let start = format!("not ready: queue: {cause}: ");
        assert!(
            body.starts_with(&start) && body.trim_end().len() > start.len(),
            "{body}"
        );
        let reply = worker.http("/readyz").await;
        assert_eq!(
            (reply.status, reply.body.as_str()),
            (503, NO_QUEUE),
            "{fault:?}"
        );
        assert_eq!(worker.http("/livez").await.body, UP);
        let said = format!("kind=\"{cause}\"");
        wait_log(&worker, &said).await;
        // One consumer says it for all, and once.
        assert_eq!(
            count(&worker.logs(), &said),
            1,
            "{fault:?}: {}",
            worker.logs()
        );

        stand.calls.clear("ReceiveMessage");
        worker.wait_ready().await;
        wait_log(&worker, "the queue answers again").await;
        until("both consumers poll", SOON, async || {
            worker
                .http("/readyz")
                .await
                .body
                .contains("\"consumers\":2")
        })
        .await;
        stand.applies("after", 1_000, SOON).await;
        let again = count(&worker.logs(), "the queue answers again");
        assert_eq!(again, 1, "{fault:?}: {}", worker.logs());
    });
    futures_util::future::join_all(checks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_was_deleted_is_named_and_found_again() {
    let (stand, worker) = working().await;
    let client = testkit::sqs::client(&stand.calls.url());
    client
        .delete_queue()
        .queue_url(&stand.queue.url)
        .send()
        .await
        .unwrap();
    wait_verbose(&worker, "queue does not exist").await;
    client
        .create_queue()
        .queue_name(&stand.queue.name)
        .send()
        .await
        .unwrap();
    worker.wait_ready().await;
    stand.applies("after", 2_000, SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lasting_errors_of_the_queue_are_not_answered_with_a_hot_loop() {
    let faults = [
        Fault::throttle(),
        Fault::access_denied(),
        Fault::server_error(),
        Fault::Reset,
    ];
    let checks = faults.into_iter().map(async |fault| {
        let stand = Stand::start().await;
        stand.calls.always("ReceiveMessage", fault.clone());
        let worker = stand.worker().spawn();
        wait_verbose(&worker, "queue").await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        // 100 to 200 ms after the first failure, twice that after the next: by then 4 to 7 for each of two consumers.
        let calls = stand.calls.calls("ReceiveMessage");
        assert!((4..=16).contains(&calls), "{fault:?}: {calls} calls");
        assert!(worker.logs().lines().count() < 30, "{}", worker.logs());
    });
    futures_util::future::join_all(checks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lasting_error_of_redis_is_not_answered_with_a_hot_loop() {
    let (stand, worker) = working().await;
    stand.redis.cmd(&["REPLICAOF", "127.0.0.1", "1"]);
    goes_down(&stand, &worker).await;
    let commands = || {
        stand
            .redis
            .info("total_commands_processed")
            .parse::<u64>()
            .unwrap()
    };
    let (before, connections) = (commands(), stand.link.accepted());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (commands, connections) = (commands() - before, stand.link.accepted() - connections);
    assert!(commands < 200, "{commands} commands in 5 s");
    assert!(connections < 30, "{connections} connections in 5 s");
    assert_eq!(count(&worker.logs(), "READONLY"), 1, "{}", worker.logs());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_redis_burns_no_receive_counts() {
    let stand = Stand::start_with(&[], &[("VisibilityTimeout", "2")]).await;
    let worker = stand.worker().start().await;
    stand.wait_polls(2).await;
    stand.link.blackhole();
    // Before the outage is known: two batches of these are in flight when it is.
    stand
        .queue
        .send_all((0..30).map(|n| state(&n.to_string(), 1_000)))
        .await;
    goes_down(&stand, &worker).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    worker.term();
    worker.wait_exit(Duration::from_secs(8)).await;
    let mut received = Vec::new();
    until("all of them are handed out again", SOON, async || {
        received.extend(stand.queue.receive_all().await);
        let ids: std::collections::BTreeSet<_> = received
            .iter()
            .filter_map(|message| message.message_id.clone())
            .collect();
        ids.len() == 30
    })
    .await;
    for message in received.iter().take(30) {
        let count = &message.attributes.as_ref().unwrap()
            [&aws_sdk_sqs::types::MessageSystemAttributeName::ApproximateReceiveCount];
        // This receive is one.
        assert!(count.parse::<u32>().unwrap() <= 2, "received {count} times");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_in_flight_when_redis_fails_are_applied_when_it_is_back() {
    let (stand, worker) = working().await;
    stand.link.blackhole();
    stand.send("in-hand", 1_000).await;
    until("it is in flight", SOON, async || {
        stand.queue.in_flight().await == 1
    })
    .await;
    goes_down(&stand, &worker).await;
    stand.link.restore().await;
    until("it is applied", TWO_SECS, async || {
        stand.holds("in-hand", 1_000)
    })
    .await;
    stand.queue.wait_empty(SOON).await;
    assert_eq!(
        worker
            .metric("entitlement_sync_messages_redelivered_total")
            .await,
        0.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_data_is_noticed_once_and_nothing_is_half_cached() {
    let (stand, worker) = working().await;
    let lost = "entitlement_sync_redis_data_lost_total";
    let skipped = "entitlement_sync_messages_processed_total{outcome=\"skipped\"}";
    let mut losses = 0.0;
    for restarted in [false, true, false] {
        stand.applies("acme", 1_000, SOON).await;
        stand.queue.send(&usage(ACME, "calls", 7, 1_000)).await;
        until("usage is written", SOON, async || {
            stand.redis.get("production:c_acme:f_calls").is_some()
        })
        .await;
        stand.queue.wait_empty(SOON).await;
        assert_eq!(worker.metric(lost).await, losses);

        if restarted {
            stand.redis.restart().await;
        } else {
            stand.redis.cmd(&["FLUSHALL"]);
        }
        losses += 1.0;
        until("the loss is counted", SOON, async || {
            worker.metric(lost).await == losses
        })
        .await;
        assert_eq!(
            count(&worker.logs(), "Redis lost its data"),
            losses as usize
        );

        let before = worker.metric(skipped).await;
        stand.queue.send(&usage(ACME, "calls", 8, 2_000)).await;
        until("usage is skipped", SOON, async || {
            worker.metric(skipped).await == before + 1.0
        })
        .await;
        assert!(stand.redis.dump("production:c_").is_empty());
    }
    assert_eq!(worker.metric(lost).await, losses);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_redis_with_its_data_is_no_loss() {
    let (stand, worker) = working_with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    stand.redis.restart().await;
    until("Redis is asked for its data again", SOON, async || {
        // Right after the restart nothing has been asked yet, and then there is no such line.
        let stats: String = redis::cmd("INFO")
            .arg("commandstats")
            .query(&mut stand.redis.conn())
            .unwrap();
        let calls = stats.lines().find_map(|line| {
            let calls = line.strip_prefix("cmdstat_evalsha:calls=")?;
            calls.split(',').next()?.parse::<u64>().ok()
        });
        calls.is_some_and(|calls| calls >= 3)
    })
    .await;
    goes_on(&stand, &worker).await;
    assert!(stand.holds("before", 1_000));
    assert_eq!(
        worker
            .metric("entitlement_sync_redis_data_lost_total")
            .await,
        0.0
    );
}
