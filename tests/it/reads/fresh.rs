//! A change is answered at once, and nothing from before it passes as fresh afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use super::{Client, SOON, UPDATED, VERSION, context, event, listed, map, path, store, version};
use crate::stand::Stand;
use testkit::cluster::Cluster;
use testkit::http::Reply;
use testkit::sentinel::{MASTER, Sentinels};
use testkit::{Answer, EdgeMock, Reader, Redis, TcpProxy, until};

/// Of keys that begin with `{production}`.
const SLOT: u16 = 15_882;
const NO_EDGE: &str = "http://127.0.0.1:1";

/// Whether an answer says of itself that it is fresh.
fn is_fresh(reply: &Reply) -> bool {
    reply.header("cache-status") == "entitlement-sync; hit"
}

async fn answers(reader: &Reader, customer: &str, wanted: u64) {
    until(&format!("{wanted} is answered"), SOON, async || {
        let reply = reader.get(&path(customer)).await;
        reply.status == 200 && version(&reply) == Some(wanted)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_worker_reaches_each_reader() {
    let stand = Stand::start().await;
    let worker = stand.worker().start().await;
    let readers = [
        Reader::builder(&stand.redis, NO_EDGE).start().await,
        Reader::builder(&stand.redis, NO_EDGE).start().await,
    ];
    for round in 1..=20_u64 {
        stand.queue.send(&event("acme", round)).await;
        for reader in &readers {
            until("the change is answered", SOON, async || {
                let reply = reader.flag(VERSION, &context("acme")).await;
                reply.json()["metadata"]["usageLimit"] == round
            })
            .await;
            let reply = reader.flag(VERSION, &context("acme")).await;
            assert_eq!(
                reply.json()["reason"],
                "CACHED",
                "it is not read again for each question"
            );
        }
    }
    drop(worker);
}

/// An old proxy, or permissions: the server tells of no changes.
#[tokio::test(flavor = "multi_thread")]
async fn without_tracking_a_copy_is_fresh_for_its_time_only() {
    let redis = Redis::start().await;
    redis.cmd(&[
        "ACL",
        "SETUSER",
        "reads",
        "on",
        ">secret",
        "~*",
        "&*",
        "+@all",
        "-client|tracking",
    ]);
    let reader = Reader::builder(&redis, NO_EDGE)
        .env("REDIS_USERNAME", "reads")
        .env("REDIS_PASSWORD", "secret")
        .env("LOCAL_FRESH_MS", 300)
        .start()
        .await;
    store(&redis, "acme", &map(1), 1);
    answers(&reader, "acme", 1).await;
    assert_eq!(
        reader.metric("entitlement_sync_read_tracking_up").await,
        0.0
    );
    for round in 2..8 {
        let written = Instant::now();
        store(&redis, "acme", &map(round), round);
        until("the change is answered", SOON, async || {
            let asked = Instant::now();
            let reply = reader.get(&path("acme")).await;
            let is_new = version(&reply) == Some(round);
            // An old answer was read before the change, so its 300 ms end 300 ms after the change.
            let is_too_old = asked.duration_since(written) >= Duration::from_millis(300);
            assert!(
                is_new || !is_too_old,
                "an old answer after {:?}",
                written.elapsed()
            );
            is_new
        })
        .await;
    }
}

struct Race {
    stop: AtomicBool,
    written: AtomicU64,
    checked: AtomicU64,
    /// The newest answer of each reader, over all connections.
    newest: [AtomicU64; 2],
}

/// A reader never goes back: an answer is never older than an earlier one, over all connections.
async fn ask_in_turn(race: Arc<Race>, (number, port): (usize, u16), route: usize) {
    let mut client = Client::connect(port).await;
    let newest = &race.newest[number];
    while !race.stop.load(Ordering::SeqCst) {
        let least = newest.load(Ordering::SeqCst);
        let reply = match route {
            0 => client.get(&path("acme")).await,
            _ => {
                client
                    .get("/v1/c/acme/entitlements.json?featureId=version")
                    .await
            }
        };
        assert_eq!(reply.status, 200, "{reply:?}");
        let found = match route {
            0 => version(&reply),
            _ => reply.json()["data"]["entitlement"]["usageLimit"].as_u64(),
        };
        let found = found.unwrap_or_else(|| panic!("{reply:?}"));
        assert!(found >= least, "{found} after {least}");
        newest.fetch_max(found, Ordering::SeqCst);
        race.checked.fetch_add(1, Ordering::SeqCst);
    }
    // Nobody writes now.
    let last = race.written.load(Ordering::SeqCst);
    let catches_up = async { while version(&client.get(&path("acme")).await) != Some(last) {} };
    let in_time = tokio::time::timeout(SOON, catches_up).await;
    in_time.expect("the last change is answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_goes_back_while_a_writer_races() {
    let redis = Redis::start().await;
    store(&redis, "acme", &map(1), 1);
    let readers = [
        Reader::builder(&redis, NO_EDGE).start().await,
        Reader::builder(&redis, NO_EDGE).start().await,
    ];
    let race = Arc::new(Race {
        stop: AtomicBool::new(false),
        written: AtomicU64::new(1),
        checked: AtomicU64::new(0),
        newest: [AtomicU64::new(0), AtomicU64::new(0)],
    });
    let mut clients = JoinSet::new();
    for (number, reader) in readers.iter().enumerate() {
        let reader = (number, reader.read_port());
        for route in 0..8 {
            clients.spawn(ask_in_turn(race.clone(), reader, route % 2));
        }
    }
    let writer = {
        let race = race.clone();
        let mut conn = redis.conn();
        tokio::task::spawn_blocking(move || {
            for round in 2..=6_000_u64 {
                let key = "production:c_acme";
                redis::pipe()
                    .atomic()
                    .cmd("SET")
                    .arg(&[key, &map(round).to_string()])
                    .cmd("SET")
                    .arg(&[format!("{key}#timestamp"), round.to_string()])
                    .exec(&mut conn)
                    .unwrap();
                race.written.store(round, Ordering::SeqCst);
                // Without a pause everything would be read from Redis.
                if round % 16 == 0 {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            race.stop.store(true, Ordering::SeqCst);
        })
    };
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    writer.await.unwrap();
    let checked = race.checked.load(Ordering::SeqCst);
    assert!(checked > 5_000, "only {checked} answers");
    let fresh = readers[0]
        .metric("entitlement_sync_read_questions_total{result=\"fresh\"}")
        .await;
    assert!(fresh > 100.0, "only {fresh} from the copy");
}

/// A load is under way when the customer changes, and ends after one that began later.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_from_before_a_change_answers_no_question_after_it() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    // So that Redis orders nothing: what is fetched is in memory only.
    let reader = Reader::builder(&redis, &edge.url())
        .env("CACHE_UPDATE_POLICY", "INVALIDATE")
        .start()
        .await;
    let acme = path("acme");
    let answers = [
        listed(1, UPDATED).after(Duration::from_secs(4)),
        listed(2, UPDATED),
        Answer::text(500, "no"),
    ];
    edge.answer_in_turn(&acme, answers);
    let change = async |number: u64| {
        redis.set("production:c_acme#purged", &number.to_string());
        until("the change is known", SOON, async || {
            let told = "entitlement_sync_read_invalidations_total";
            reader.metric(told).await == number as f64
        })
        .await;
    };
    let (slow, quick) = tokio::join!(reader.get(&acme), async {
        until("the first load is under way", SOON, async || {
            edge.requests_to(&acme).len() == 1
        })
        .await;
        change(1).await;
        reader.get(&acme).await
    });
    // The second question did not join the first load.
    assert_eq!(version(&quick), Some(2));
    // After that answer no question gets an older one.
    assert_eq!(version(&slow), Some(2));
    change(2).await;
    let stale = reader.get(&acme).await;
    assert_eq!(version(&stale), Some(2));
    assert!(stale.header("cache-status").ends_with("unproven"));
}

/// A usage is only answered with the entitlements that it was written with.
#[tokio::test(flavor = "multi_thread")]
async fn entitlements_and_their_usage_hold_together() {
    let redis = Redis::start().await;
    let write = |conn: &mut redis::Connection, round: u64| {
        let mut state = json!({"calls": super::entitlement("calls", "NUMBER", Some(round))});
        state["calls"]["calculatedEntitlement"]["feature"]["meterType"] = "Incremental".into();
        let key = "production:c_acme";
        let usage = json!({"currentUsage": round}).to_string();
        redis::cmd("MSET")
            .arg(&[key, &state.to_string()])
            .arg(&[format!("{key}#timestamp"), round.to_string()])
            .arg(&[format!("{key}:f_calls"), usage])
            .arg(&[format!("{key}:f_calls#timestamp"), round.to_string()])
            .exec(conn)
            .unwrap();
    };
    let mut conn = redis.conn();
    write(&mut conn, 1);
    let reader = Reader::builder(&redis, NO_EDGE).start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let done = stop.clone();
    let writer = tokio::task::spawn_blocking(move || {
        for round in 2..3_000 {
            write(&mut conn, round);
            if round % 4 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        done.store(true, Ordering::SeqCst);
    });
    let mut client = Client::connect(reader.read_port()).await;
    let mut answered = 0;
    while !stop.load(Ordering::SeqCst) {
        let reply = client.get(&path("acme")).await;
        // Redis may change 3 times while it is read, and the Edge API is away.
        if reply.status == 200 {
            let entry = &reply.json()["data"]["entitlements"][0];
            assert_eq!(entry["usageLimit"], entry["currentUsage"], "{entry}");
            answered += 1;
        }
    }
    writer.await.unwrap();
    assert!(answered > 100, "{answered}");
}

/// While the connection is lost a change goes unnoticed, so nothing may pass as fresh.
#[tokio::test(flavor = "multi_thread")]
async fn what_changed_while_tracking_was_lost_is_not_answered_as_fresh() {
    let redis = Redis::start().await;
    let link = TcpProxy::start(redis.port()).await;
    let reader = Reader::builder(&redis, NO_EDGE)
        .redis_port(link.port())
        .start()
        .await;
    let mut at = 1;
    let mut client = Client::connect(reader.read_port()).await;
    for round in 0..12 {
        store(&redis, "acme", &map(at), at);
        until("a fresh copy", SOON, async || {
            let reply = client.get(&path("acme")).await;
            is_fresh(&reply) && version(&reply) == Some(at)
        })
        .await;
        at += 1;
        match round % 3 {
            0 => {
                // The server ends the connection, and the change follows at once.
                redis.cmd(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
                store(&redis, "acme", &map(at), at);
            }
            1 => {
                link.cut().await;
                store(&redis, "acme", &map(at), at);
                // The reader notices when the connection ends, or when its next proof has no answer.
                until("the copy is not fresh", SOON, async || {
                    !is_fresh(&client.get(&path("acme")).await)
                })
                .await;
                link.restore().await;
            }
            _ => {
                redis.cmd(&["FLUSHALL"]);
                // Redis tells of it, and says that the customer is not there: nothing can be confirmed.
                until("the copy is not fresh", SOON, async || {
                    !is_fresh(&client.get(&path("acme")).await)
                })
                .await;
                store(&redis, "acme", &map(at), at);
            }
        }
        let mut seen_new = false;
        until("the change is answered as fresh", SOON, async || {
            let reply = client.get(&path("acme")).await;
            let is_new = version(&reply) == Some(at);
            assert!(
                is_new || !seen_new,
                "an old answer after the new one: {reply:?}"
            );
            seen_new |= is_new;
            is_new && is_fresh(&reply)
        })
        .await;
    }
}

/// A link that is silent without an end: the copy counts as fresh for 1.5 s more, and not longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_link_ends_freshness() {
    let redis = Redis::start().await;
    let link = TcpProxy::start(redis.port()).await;
    let reader = Reader::builder(&redis, NO_EDGE)
        .redis_port(link.port())
        .start()
        .await;
    store(&redis, "acme", &map(1), 1);
    answers(&reader, "acme", 1).await;
    link.blackhole();
    store(&redis, "acme", &map(2), 2);
    let mut client = Client::connect(reader.read_port()).await;
    until("the copy is stale", SOON, async || {
        client
            .get(&path("acme"))
            .await
            .header("cache-status")
            .ends_with("unproven")
    })
    .await;
    for _ in 0..500 {
        let reply = client.get(&path("acme")).await;
        assert!(!is_fresh(&reply), "{reply:?}");
    }
    link.restore().await;
    answers(&reader, "acme", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_the_new_primary_is_answered() {
    let first = Redis::start().await;
    let second = Redis::start_with(&["--replicaof", &format!("127.0.0.1 {}", first.port())]).await;
    let sentinels = Sentinels::start(&first, 1, "").await;
    store(&first, "acme", &map(1), 1);
    until("the replica has it", SOON, async || {
        second.get("production:c_acme").is_some()
    })
    .await;
    let reader = Reader::builder(&first, NO_EDGE)
        .unset("REDIS_HOST")
        .unset("REDIS_PORT")
        .env("REDIS_SENTINEL_HOSTS", sentinels.hosts())
        .env("REDIS_SENTINEL_MASTER", MASTER)
        .start()
        .await;
    answers(&reader, "acme", 1).await;
    first.kill();
    until("the replica is the primary", SOON, async || {
        second.role().as_deref() == Some("master")
    })
    .await;
    store(&second, "acme", &map(2), 2);
    let mut seen_new = false;
    until("the new primary is answered", SOON, async || {
        let reply = reader.get(&path("acme")).await;
        let is_new = version(&reply) == Some(2);
        assert!(is_new || !is_fresh(&reply), "{reply:?}");
        assert!(is_new || !seen_new, "{reply:?}");
        seen_new |= is_new;
        is_new && is_fresh(&reply)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_moves_leaves_nothing_stale() {
    let slot = SLOT;
    let cluster = Cluster::start(0, slot).await;
    let write = |at: u64| {
        let key = "{production}:c_acme";
        let (time, text) = (format!("{key}#timestamp"), at.to_string());
        cluster
            .owner(slot)
            .cmd(&["MSET", key, &map(at).to_string(), &time, &text]);
    };
    write(1);
    let nodes = cluster.nodes.iter();
    let seeds: Vec<String> = nodes
        .map(|node| format!("127.0.0.1:{}", node.port()))
        .collect();
    let reader = Reader::builder(cluster.owner(slot), NO_EDGE)
        .unset("REDIS_PORT")
        .env("REDIS_HOST", seeds.join(","))
        .env("ENVIRONMENT_PREFIX", "{production}")
        .start()
        .await;
    answers(&reader, "acme", 1).await;
    let (from, to) = (cluster.owner(slot), cluster.other(slot));
    cluster.move_slot(slot, from, to).await;
    write(2);
    let mut seen_new = false;
    until("the new node is answered", SOON, async || {
        let reply = reader.get(&path("acme")).await;
        let is_new = version(&reply) == Some(2);
        assert!(is_new || !seen_new, "{reply:?}");
        seen_new |= is_new;
        is_new && is_fresh(&reply)
    })
    .await;
    write(3);
    answers(&reader, "acme", 3).await;
}
