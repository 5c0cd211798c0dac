//! A worker ends in time after a signal, during any work, and loses nothing.

use std::collections::HashSet;
use std::time::Duration;

use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};
use futures_util::future::join_all;

use crate::stand::{SOON, Stand, TWO_SECS, state};
use testkit::{Fault, Signal, Worker, until};

const DOWN: &str = r#"{"status":"DOWN","consumers":0,"redis":"DISCONNECTED"}"#;
/// Docker kills after 10 s.
const IN_TIME: Duration = Duration::from_secs(8);
const DRAINED: i32 = 0;
const SHUTDOWN_OVERRAN: i32 = 75;
const LOCK: &str = "production-acme";

/// A worker whose consumers all poll an empty queue.
async fn idle() -> (Stand, Worker) {
    idle_with(&[]).await
}

async fn idle_with(queue: &[(&str, &str)]) -> (Stand, Worker) {
    let stand = Stand::start_with(&[], queue).await;
    let worker = stand.worker().start().await;
    stand.wait_polls(2).await;
    (stand, worker)
}

async fn wait_draining(worker: &Worker) {
    until("the worker drains", TWO_SECS, async || {
        worker.http("/readyz").await.body == DOWN
    })
    .await;
}

/// Holds the customer acme, as an SDK process that writes would.
fn lock(stand: &Stand) {
    stand.redis.cmd(&["SET", LOCK, "random", "PX", "60000"]);
}

/// A worker that waits for a locked customer: its drain takes as long as it may.
async fn locked() -> (Stand, Worker) {
    let (stand, worker) = idle().await;
    lock(&stand);
    stand.send("acme", 1_000).await;
    until("the worker meets the lock", SOON, async || {
        worker.metric("entitlement_sync_locked_retries_total").await > 0.0
    })
    .await;
    (stand, worker)
}

fn receive_count(message: &Message) -> u32 {
    let count = MessageSystemAttributeName::ApproximateReceiveCount;
    message.attributes.as_ref().unwrap()[&count]
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_ends_within_two_seconds() {
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ] {
        let (_stand, worker) = idle().await;
        worker.signal(signal);
        assert_eq!(worker.wait_exit(TWO_SECS).await, DRAINED, "{signal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_worker_is_not_ready_but_alive() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (_stand, worker) = locked().await;
        worker.signal(signal);
        wait_draining(&worker).await;
        let reply = worker.http("/readyz").await;
        assert_eq!((reply.status, reply.body.as_str()), (503, DOWN));
        assert_eq!(reply.header("content-type"), "application/json");
        let reply = worker.http("/readyz?verbose").await;
        assert_eq!(reply.body, "not ready: shutting down\n");
        assert_eq!(worker.http("/livez").await.status, 200);
        assert_eq!(worker.wait_exit(IN_TIME).await, DRAINED);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_worker_receives_no_more() {
    let (stand, worker) = locked().await;
    worker.term();
    wait_draining(&worker).await;
    until("the last polls have ended", TWO_SECS, async || {
        stand.polls() == 0
    })
    .await;
    let calls = stand.calls.calls("ReceiveMessage");
    stand.send("late", 1_000).await;
    assert_eq!(worker.wait_exit(IN_TIME).await, DRAINED);
    assert_eq!(stand.calls.calls("ReceiveMessage"), calls);
    stand.redis.cmd(&["DEL", LOCK]);
    stand
        .is_finished_by_another(&[("acme", 1_000), ("late", 1_000)])
        .await;
}

/// Redis takes 0.6 s for an answer: messages in flight are written and deleted, and the others are untouched.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_in_flight_is_finished_and_acknowledged() {
    let (stand, worker) = idle().await;
    stand.link.delay(Duration::from_millis(300));
    stand
        .queue
        .send_all((0..40).map(|n| state(&n.to_string(), 1_000)))
        .await;
    until("batches are in flight", SOON, async || {
        stand.queue.in_flight().await >= 10
    })
    .await;
    worker.term();
    assert_eq!(worker.wait_exit(IN_TIME).await, DRAINED);

    // Visible at once, or this would not find them.
    let left: HashSet<String> = stand
        .queue
        .receive_all()
        .await
        .into_iter()
        .filter_map(|it| it.body)
        .collect();
    let applied = (0..40)
        .filter(|n| stand.holds(&n.to_string(), 1_000))
        .count();
    assert!(
        applied >= 10,
        "only {applied} of the messages in flight were applied"
    );
    for n in 0..40 {
        let customer = n.to_string();
        let (applied, left) = (
            stand.holds(&customer, 1_000),
            left.contains(&state(&customer, 1_000)),
        );
        assert!(
            applied || left,
            "{customer} is lost, or hidden for its visibility timeout"
        );
        assert!(!(applied && left), "{customer} is applied and redelivered");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_after_the_signal_goes_back_at_once() {
    // Of ten polls only one may get it, or its receive count is burnt by those who do not want it.
    let stand = Stand::start().await;
    let worker = stand
        .worker()
        .env("CONSUMERS", 10)
        .env("MIN_POLLERS", 10)
        .start()
        .await;
    stand.wait_polls(10).await;
    worker.term();
    wait_draining(&worker).await;
    // The polls under way are given another second.
    stand.send("late", 1_000).await;
    assert_eq!(worker.wait_exit(IN_TIME).await, DRAINED);
    let again = stand.queue.receive_all().await;
    assert_eq!(again.len(), 1, "it is hidden, or gone");
    assert_eq!(receive_count(&again[0]), 2, "it never arrived");
    assert!(!stand.holds("late", 1_000));
    let calls = stand.calls.bodies("ChangeMessageVisibilityBatch");
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0]["Entries"][0]["VisibilityTimeout"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_in_flight_are_returned_if_redis_is_away() {
    for frozen in [true, false] {
        let (stand, worker) = idle().await;
        if frozen {
            stand.link.blackhole();
        } else {
            stand.link.cut().await;
        }
        let customers = ["a", "b", "c", "d", "e"];
        stand
            .queue
            .send_all(customers.map(|customer| state(customer, 1_000)))
            .await;
        until("the outage is known", SOON, async || {
            stand.polls() == 0 && worker.http("/readyz").await.status == 503
        })
        .await;
        let in_hand = stand.queue.in_flight().await;
        worker.term();
        assert_eq!(worker.wait_exit(IN_TIME).await, DRAINED, "frozen: {frozen}");
        assert_eq!(
            stand.queue.visible().await,
            5,
            "frozen: {frozen}, in flight: {in_hand}"
        );
        stand
            .is_finished_by_another(&customers.map(|customer| (customer, 1_000)))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_customer_does_not_hold_up_the_end() {
    let (stand, worker) = locked().await;
    stand.send("other", 1_000).await;
    worker.term();
    assert_eq!(worker.wait_exit(IN_TIME).await, DRAINED);
    assert!(stand.queue.visible().await >= 1);
    assert!(!stand.holds("acme", 1_000));
    stand.redis.cmd(&["DEL", LOCK]);
    stand
        .is_finished_by_another(&[("acme", 1_000), ("other", 1_000)])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_call_that_hangs_is_tried_once_more() {
    let (stand, worker) = idle().await;
    stand.calls.once("DeleteMessageBatch", Fault::Hang);
    stand.send("acme", 1_000).await;
    until("it is being deleted", SOON, async || {
        stand.holds("acme", 1_000) && stand.calls.open("DeleteMessageBatch") == 1
    })
    .await;
    worker.term();
    assert_eq!(worker.wait_exit(IN_TIME).await, DRAINED);
    assert_eq!(stand.queue.depth().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_calls_that_all_hang_are_left_in_time() {
    let (stand, worker) = idle_with(&[("VisibilityTimeout", "2")]).await;
    stand.calls.always("DeleteMessageBatch", Fault::Hang);
    stand.send("acme", 1_000).await;
    until("it is being deleted", SOON, async || {
        stand.holds("acme", 1_000) && stand.calls.open("DeleteMessageBatch") == 1
    })
    .await;
    worker.term();
    assert_eq!(worker.wait_exit(IN_TIME).await, SHUTDOWN_OVERRAN);
    assert!(
        worker.logs().contains("SHUTDOWN_TIMEOUT_SECS"),
        "{}",
        worker.logs()
    );
    stand.is_finished_by_another(&[("acme", 1_000)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_hangs_does_not_hold_up_the_end() {
    let stand = Stand::start().await;
    for action in ["ReceiveMessage", "GetQueueAttributes"] {
        stand.calls.always(action, Fault::Hang);
    }
    let worker = stand.worker().spawn();
    stand.wait_polls(2).await;
    worker.term();
    assert_eq!(worker.wait_exit(TWO_SECS).await, DRAINED);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_to_end_is_as_configured() {
    let stand = Stand::start().await;
    let worker = stand.worker().env("SHUTDOWN_TIMEOUT_SECS", 3).start().await;
    lock(&stand);
    stand.send("acme", 1_000).await;
    until("it is in flight", SOON, async || {
        stand.queue.in_flight().await == 1
    })
    .await;
    worker.term();
    assert_eq!(worker.wait_exit(Duration::from_secs(3)).await, DRAINED);
    assert_eq!(stand.queue.visible().await, 1);
}

/// A terminal that closes sends SIGHUP more than once, and others send signals that would end a process by default.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_order_to_end_ends_nothing() {
    let (_stand, worker) = locked().await;
    for (signal, name) in [(Signal::SIGUSR1, "SIGUSR1"), (Signal::SIGUSR2, "SIGUSR2")] {
        worker.signal(signal);
        until(&format!("{name} is ignored"), SOON, async || {
            let log = worker.logs();
            log.lines().any(|line| {
                line.contains("the signal does not end the process") && line.contains(name)
            })
        })
        .await;
    }
    assert_eq!(worker.http("/readyz").await.status, 200);
    worker.signal(Signal::SIGHUP);
    wait_draining(&worker).await;
    worker.signal(Signal::SIGHUP);
    worker.signal(Signal::SIGUSR1);
    assert_eq!(worker.wait_exit(Duration::from_secs(10)).await, 0);
}

/// Reading a pipe without a writer holds up the start, as a slow volume does.
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_before_the_configuration_is_read_is_a_drain_too() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let path = folder.path().join(signal.as_str());
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let worker = stand
            .worker()
            .env("SERVER_API_KEY_FILE", path.display())
            .unset("SERVER_API_KEY")
            .spawn();
        let status = format!("/proc/{}/status", worker.pid());
        until("the handlers are in place", SOON, async || {
            let status = std::fs::read_to_string(&status).unwrap_or_default();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let caught = caught.map(|mask| u64::from_str_radix(mask.trim(), 16).unwrap());
            caught.is_some_and(|mask| mask >> (signal as i32 - 1) & 1 == 1)
        })
        .await;
        worker.signal(signal);
        let write = tokio::task::spawn_blocking(move || std::fs::write(path, "key"));
        assert_eq!(worker.wait_exit(SOON).await, 0, "{}", worker.logs());
        write.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once() {
    for (first, second, code) in [
        (Signal::SIGTERM, Signal::SIGTERM, 143),
        (Signal::SIGINT, Signal::SIGINT, 130),
        (Signal::SIGTERM, Signal::SIGINT, 130),
    ] {
        let (_stand, worker) = locked().await;
        worker.signal(first);
        wait_draining(&worker).await;
        worker.signal(second);
        // The drain would take 6 s.
        assert_eq!(worker.wait_exit(TWO_SECS).await, code);
    }
}

/// Redis takes 0.4 s for an answer, so most are killed between receiving and writing.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_time_loses_nothing() {
    let stand = Stand::start_with(&[], &[("VisibilityTimeout", "2")]).await;
    stand.link.delay(Duration::from_millis(200));
    let mut customers = Vec::new();
    for round in 1..=8_u64 {
        let of_round = (0..20).map(|n| format!("{round}-{n}"));
        stand
            .queue
            .send_all(of_round.clone().map(|customer| state(&customer, 1_000)))
            .await;
        customers.extend(of_round);
        let worker = stand.worker().spawn();
        until("a message is in flight", SOON, async || {
            stand.queue.in_flight().await > 0
        })
        .await;
        // Somewhere between the first receive and the last delete.
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..800))).await;
        worker.kill();
        // What is on its way to Redis goes with it.
        stand.link.cut().await;
        stand.link.restore().await;
        stand.link.delay(Duration::from_millis(200));
    }
    let all: Vec<(&str, u64)> = customers
        .iter()
        .map(|customer| (customer.as_str(), 1_000))
        .collect();
    stand.is_finished_by_another(&all).await;
}

/// Where a consumer, or the process, may be when the signal comes.
#[derive(Clone, Copy, Debug)]
enum Point {
    Starting,
    IdlePoll,
    Asleep,
    Receiving,
    Applying,
    LockedWait,
    WaitingForRedis,
    GivingBack,
    Deleting,
    DeletingAgain,
    BackingOff,
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_it_is_at_it_ends_in_time_and_loses_nothing() {
    use Point::*;
    let points = [
        Starting,
        IdlePoll,
        Asleep,
        Receiving,
        Applying,
        LockedWait,
        WaitingForRedis,
        GivingBack,
        Deleting,
        DeletingAgain,
        BackingOff,
    ];
    // A few at a time: each has servers of its own.
    for points in points.chunks(4) {
        join_all(points.iter().map(|point| ends_at(*point))).await;
    }
}

async fn ends_at(point: Point) {
    let stand = Stand::start_with(&[], &[("VisibilityTimeout", "10")]).await;
    let customers = ["acme", "b", "c", "d", "e"].map(|customer| (customer, 1_000));
    let send = async || {
        stand
            .queue
            .send_all(customers.map(|(customer, at)| state(customer, at)))
            .await
    };
    let reached = async |what: &str, condition: &dyn Fn() -> bool| {
        until(&format!("{point:?}: {what}"), SOON, async || condition()).await;
    };
    let start = async || {
        let worker = stand.worker().start().await;
        stand.wait_polls(2).await;
        worker
    };
    let deletes = || stand.calls.open("DeleteMessageBatch");
    let worker = match point {
        Point::Starting => {
            send().await;
            stand.link.blackhole();
            let worker = stand.worker().spawn();
            until("HTTP is up", SOON, async || {
                worker.try_http("/livez").await.is_ok()
            })
            .await;
            worker
        }
        Point::IdlePoll => start().await,
        Point::Asleep => {
            let nothing = Fault::Answer {
                status: 200,
                code: "",
                body: "{}".into(),
            };
            stand.calls.times("ReceiveMessage", 4, nothing);
            let worker = stand.worker().env("MIN_POLLERS", 1).start().await;
            reached("one polls", &|| {
                stand.polls() == 1 && stand.calls.calls("ReceiveMessage") >= 5
            })
            .await;
            worker
        }
        Point::Receiving => {
            let worker = start().await;
            worker.term();
            wait_draining(&worker).await;
            send().await;
            worker
        }
        Point::Applying => {
            let worker = start().await;
            stand.link.delay(Duration::from_millis(400));
            send().await;
            until("a message is in flight", SOON, async || {
                stand.queue.in_flight().await > 0
            })
            .await;
            worker
        }
        Point::LockedWait => {
            let worker = start().await;
            lock(&stand);
            send().await;
            until("the lock is met", SOON, async || {
                worker.metric("entitlement_sync_locked_retries_total").await > 0.0
            })
            .await;
            worker
        }
        Point::WaitingForRedis => {
            let worker = start().await;
            stand.link.blackhole();
            send().await;
            reached("the outage is known", &|| stand.polls() == 0).await;
            worker
        }
        Point::GivingBack => {
            stand.calls.once(
                "ChangeMessageVisibilityBatch",
                Fault::Delay(Duration::from_secs(1)),
            );
            lock(&stand);
            let worker = stand
                .worker()
                .env("CACHE_LOCK_RETRY_COUNT", 0)
                .start()
                .await;
            send().await;
            reached("giving back", &|| {
                stand.calls.open("ChangeMessageVisibilityBatch") > 0
            })
            .await;
            worker
        }
        Point::Deleting => {
            let worker = start().await;
            stand
                .calls
                .always("DeleteMessageBatch", Fault::Delay(Duration::from_secs(1)));
            send().await;
            reached("deleting", &|| deletes() > 0).await;
            worker
        }
        Point::DeletingAgain => {
            let worker = start().await;
            stand
                .calls
                .times("DeleteMessageBatch", 2, Fault::fail_all_entries(false));
            send().await;
            reached("the first has failed", &|| {
                stand.calls.calls("DeleteMessageBatch") > 0 && deletes() == 0
            })
            .await;
            worker
        }
        Point::BackingOff => {
            send().await;
            stand.calls.always("ReceiveMessage", Fault::throttle());
            let worker = stand.worker().spawn();
            reached("both have failed", &|| {
                stand.calls.calls("ReceiveMessage") >= 2 && stand.polls() == 0
            })
            .await;
            worker
        }
    };
    if !matches!(point, Point::Receiving) {
        worker.term();
    }
    assert_eq!(worker.wait_exit(IN_TIME).await, DRAINED, "{point:?}");
    stand.redis.cmd(&["DEL", LOCK]);
    match point {
        Point::IdlePoll | Point::Asleep => stand.is_finished_by_another(&[]).await,
        _ => stand.is_finished_by_another(&customers).await,
    }
}
