//! What is answered while Redis, the Edge API or both are away: the table of docs/reading-away.md, cell by cell.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::{
    Client, SOON, UPDATED, UPDATED_MS, VERSION, context, entitlement, listed, map, path, store,
    version,
};
use testkit::http::Reply;
use testkit::{Answer, EdgeMock, Reader, Redis, TcpProxy, http, repo, until};

const PAST_VALID: &str = "asked before, past `validUntil`";
const PAST_PERIOD: &str = "asked before, past the end of its period";
const UNKNOWN: &str = "unknown to the Edge API";
const ASKED_UNKNOWN: &str = "unknown to the Edge API, asked within 30 s";
const KINDS: [(&str, &str); 7] = [
    ("asked before", "known"),
    ("in Redis", "stored"),
    ("not in Redis", "absent"),
    (ASKED_UNKNOWN, "nobody"),
    (UNKNOWN, "unknown"),
    (PAST_VALID, "expired"),
    (PAST_PERIOD, "ended"),
];
/// Each question is about a customer of its own: the first answer may change the second.
const EDGE_ROUTE: usize = 0;
const OFREP: usize = 1;
const DENIED: usize = 2;
const TWINS: [usize; 3] = [EDGE_ROUTE, OFREP, DENIED];

/// A row of the table: what is away, the customer, and the answer.
struct Row {
    away: String,
    customer: String,
    answer: String,
}

/// The rows of the page, with the answers of one column.
fn rows(column: &str) -> Vec<Row> {
    let page = std::fs::read_to_string(repo("docs/reading-away.md")).unwrap();
    let cells = |line: &str| -> Vec<String> {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    };
    let mut lines = page.lines().skip_while(|line| !line.starts_with("| away"));
    let titles = cells(lines.next().unwrap());
    let at = titles.iter().position(|title| title == column).unwrap();
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|line| {
        let cells = cells(line);
        Row {
            away: cells[0].clone(),
            customer: cells[1].clone(),
            answer: cells[at].clone(),
        }
    })
    .collect()
}

pub(super) struct Stage {
    pub(super) redis: Redis,
    pub(super) to_redis: TcpProxy,
    pub(super) edge: EdgeMock,
    pub(super) to_edge: TcpProxy,
}

impl Stage {
    pub(super) async fn start() -> Stage {
        let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
        let port = edge.url().rsplit_once(':').unwrap().1.parse().unwrap();
        Stage {
            to_redis: TcpProxy::start(redis.port()).await,
            to_edge: TcpProxy::start(port).await,
            redis,
            edge,
        }
    }

    pub(super) fn reader(&self, ttl: &str) -> testkit::reader::Builder {
        let url = format!("http://127.0.0.1:{}", self.to_edge.port());
        Reader::builder(&self.redis, &url)
            .redis_port(self.to_redis.port())
            .env("LOCAL_TTL_SECS", ttl)
    }

    /// Writes the customers of a situation. Returns when what ends soon has ended.
    fn write(&self, name: &str) -> u64 {
        let soon = now() + 2_500;
        for (kind, short) in KINDS {
            for twin in TWINS {
                let customer = format!("{name}-{short}-{twin}");
                let is_unknown = [UNKNOWN, ASKED_UNKNOWN].contains(&kind);
                if !is_unknown {
                    self.edge.answer(&path(&customer), listed(2, UPDATED));
                }
                let mut state = map(1);
                match kind {
                    PAST_VALID => {
                        state[VERSION]["calculatedEntitlement"]["validUntil"] = soon.into();
                        state["sso"] = entitlement("sso", "BOOLEAN", None);
                    }
                    PAST_PERIOD => {
                        state["calls"] = entitlement("calls", "NUMBER", Some(10));
                        state["calls"]["calculatedEntitlement"]["feature"]["meterType"] =
                            "Incremental".into();
                        let usage = json!({"currentUsage": 7, "usagePeriodStart": 1, "usagePeriodEnd": soon});
                        let key = format!("production:c_{customer}:f_calls");
                        let time = format!("{key}#timestamp");
                        let usage = usage.to_string();
                        self.redis.cmd(&["MSET", &key, &usage, &time, "1"]);
                    }
                    _ if is_unknown || kind == "not in Redis" => continue,
                    _ => {}
                }
                store(&self.redis, &customer, &state, UPDATED_MS - 1);
            }
        }
        soon
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// How an answer of the Edge API's route reads in the table.
pub(super) fn answer_of(reply: &Reply) -> String {
    let age: Option<u64> = reply.header("age").parse().ok();
    let text = match (reply.status, reply.header("cache-status"), age) {
        (200, "entitlement-sync; hit", Some(0)) => "copy",
        (200, "entitlement-sync; hit; detail=redis", Some(0)) => "Redis",
        (200, "entitlement-sync; fwd=miss; stored", Some(0)) => "Edge API",
        (200, "entitlement-sync; hit; detail=unproven", Some(_)) => "stale copy",
        (404, source, Some(0..30)) if source.starts_with("entitlement-sync; ") => "unknown",
        (503, "", None) if reply.header("retry-after") == "30" => "cannot tell",
        _ => return format!("{reply:?}"),
    };
    text.to_owned()
}

/// Whether an answer by OFREP is the one of the table.
fn is_answer(reply: &Reply, answer: &str) -> bool {
    let body = reply.json();
    let is = |reason: &str, cache: &str| {
        reply.status == 200
            && body["reason"] == reason
            && reply.header("cache-status").ends_with(cache)
    };
    match answer {
        "copy" => is("CACHED", "; hit") && body["metadata"]["ageMs"] == 0,
        "Redis" => is("TARGETING_MATCH", "detail=redis"),
        "Edge API" => is("TARGETING_MATCH", "stored"),
        "stale copy" => is("STALE", "detail=unproven"),
        "unknown" => reply.status == 200 && body["value"] == false && body["variant"] == "denied",
        "cannot tell" => {
            reply.status == 503
                && reply.header("retry-after") == "30"
                && body["errorCode"] == "GENERAL"
                && body.get("value").is_none()
        }
        _ => false,
    }
}

async fn every_cell(ttl: &str) {
    let all = rows(ttl);
    let stage = Stage::start().await;
    let mut situations: Vec<&str> = all.iter().map(|row| row.away.as_str()).collect();
    situations.dedup();
    assert_eq!(situations.len(), 7);
    for (number, away) in situations.into_iter().enumerate() {
        let name = format!("s{number}");
        let is_late = away.ends_with("started");
        let (what, _) = away.split_once(',').unwrap_or((away, ""));
        let (no_redis, no_edge) = match what {
            "nothing" => (false, false),
            "Edge API" => (false, true),
            "Redis" => (true, false),
            "both" => (true, true),
            other => panic!("{other}"),
        };
        // Started first: what ends soon is asked for before it ends.
        let mut reader = None;
        if !is_late {
            reader = Some(stage.reader(ttl).start().await);
        }
        let soon = stage.write(&name);
        if let Some(reader) = &reader {
            let asked = ["known", "expired", "ended"]
                .map(|short| TWINS.map(|twin| path(&format!("{name}-{short}-{twin}"))));
            for path in asked.iter().flatten() {
                let reply = reader.get(path).await;
                assert_eq!(answer_of(&reply), "Redis", "{away}: {path}");
                assert_eq!(version(&reply), Some(1));
            }
            // A notification of what was just written may arrive after the answer: it is read from Redis once more.
            until("the copies are fresh", SOON, async || {
                let mut are_fresh = true;
                for path in asked.iter().flatten() {
                    are_fresh &= answer_of(&reader.get(path).await) == "copy";
                }
                are_fresh
            })
            .await;
            for twin in [EDGE_ROUTE, OFREP] {
                let reply = reader.get(&path(&format!("{name}-nobody-{twin}"))).await;
                assert_eq!(answer_of(&reply), "unknown", "{away}");
            }
        }
        if no_redis {
            stage.to_redis.cut().await;
        }
        if no_edge {
            stage.to_edge.cut().await;
        }
        let reader = match reader {
            Some(reader) => reader,
            None => stage.reader(ttl).spawn(),
        };
        reader
            .wait_redis(if no_redis {
                "DISCONNECTED"
            } else {
                "CONNECTED"
            })
            .await;
        until("what ends soon has ended", SOON, async || now() > soon).await;
        for row in all.iter().filter(|row| row.away == away) {
            let kind = KINDS.iter().find(|(kind, _)| *kind == row.customer);
            let (_, short) = kind.expect("a customer of the table");
            let cell = format!(
                "LOCAL_TTL_SECS={ttl}, away: {away}, customer: {}",
                row.customer
            );
            let reply = reader
                .get(&path(&format!("{name}-{short}-{EDGE_ROUTE}")))
                .await;
            assert_eq!(answer_of(&reply), row.answer, "{cell}");
            let customer = format!("{name}-{short}-{OFREP}");
            let (flag, other) = match row.customer.as_str() {
                PAST_PERIOD if row.answer != "Edge API" => ("calls@usage", Some(json!(0))),
                PAST_VALID if row.answer != "Edge API" => ("sso", Some(json!(true))),
                _ => (VERSION, None),
            };
            let reply = reader.flag(flag, &context(&customer)).await;
            assert!(is_answer(&reply, &row.answer), "{cell}: {reply:?}");
            if row.answer == "cannot tell" {
                continue;
            }
            if let Some(value) = other {
                assert_eq!(reply.json()["value"], value, "{cell}");
            }
            if row.customer == PAST_VALID && row.answer != "Edge API" {
                let customer = format!("{name}-{short}-{DENIED}");
                let reply = reader.flag(VERSION, &context(&customer)).await;
                assert_eq!(reply.json()["variant"], "denied", "{cell}: {reply:?}");
            }
        }
        if no_redis && no_edge {
            let ready = http::get(reader.read_port(), "/readyz").await.unwrap();
            let can_answer = !is_late && ttl != "0";
            assert_eq!(ready.json()["copies"], can_answer, "{away}: {ready:?}");
        }
        // All of it ends without a restart, whichever is back first.
        store(
            &stage.redis,
            &format!("{name}-known-0"),
            &map(3),
            UPDATED_MS + 1,
        );
        stage.to_redis.restore().await;
        until("Redis is asked again", SOON, async || {
            let reply = reader.get(&path(&format!("{name}-known-0"))).await;
            reply.status == 200
                && version(&reply) == Some(3)
                && ["copy", "Redis"].contains(&answer_of(&reply).as_str())
        })
        .await;
        stage.to_edge.restore().await;
        until("the Edge API is asked again", SOON, async || {
            let reply = reader.get(&path(&format!("{name}-absent-0"))).await;
            reply.status == 200 && version(&reply) == Some(2)
        })
        .await;
        until(
            "what was fetched is in Redis, and copied",
            SOON,
            async || {
                let reply = reader.get(&path(&format!("{name}-absent-0"))).await;
                let key = format!("production:c_{name}-absent-0");
                answer_of(&reply) == "copy" && stage.redis.get(&key).is_some()
            },
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cell_of_a_positive_ttl() {
    every_cell("3600").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cell_without_a_ttl() {
    every_cell("0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cell_of_a_negative_ttl() {
    every_cell("-1").await;
}

/// A process that is not ready gets no questions, and only a question finds out that the Edge API is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_could_answer_nothing_is_ready_again_when_the_edge_api_alone_is_back() {
    let stage = Stage::start().await;
    stage.edge.answer(&path("acme"), listed(2, UPDATED));
    stage.to_redis.cut().await;
    stage.to_edge.cut().await;
    let reader = stage.reader("3600").spawn();
    reader.wait_redis("DISCONNECTED").await;
    let ready = async || {
        let reply = http::get(reader.read_port(), "/readyz").await.unwrap();
        (reply.status, reply.json()["upstream"].clone())
    };
    until("it is not ready", SOON, async || {
        let reply = reader.get(&path("acme")).await;
        assert_eq!(answer_of(&reply), "cannot tell");
        ready().await == (503, json!("DISCONNECTED"))
    })
    .await;
    stage.to_edge.restore().await;
    // From here on nobody asks.
    until("it is ready", SOON, async || {
        ready().await == (200, json!("CONNECTED")) && reader.http("/readyz").await.status == 200
    })
    .await;
    assert_eq!(answer_of(&reader.get(&path("acme")).await), "Edge API");
    stage.to_redis.restore().await;
    until("it is in Redis, and copied", SOON, async || {
        let reply = reader.get(&path("acme")).await;
        answer_of(&reply) == "copy" && stage.redis.get("production:c_acme").is_some()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_answers_end_with_the_ttl_and_start_again_when_redis_is_back() {
    let stage = Stage::start().await;
    store(&stage.redis, "acme", &map(1), 1);
    let reader = stage.reader("2").start().await;
    assert_eq!(reader.get(&path("acme")).await.status, 200);
    stage.to_edge.cut().await;
    stage.to_redis.cut().await;
    reader.wait_redis("DISCONNECTED").await;
    let mut ages = Vec::new();
    until("the answer has ended", SOON, async || {
        let reply = reader.get(&path("acme")).await;
        if reply.status == 200 {
            assert_eq!(answer_of(&reply), "stale copy");
            ages.push(reply.header("age").parse::<u64>().unwrap());
        }
        reply.status == 503
    })
    .await;
    assert!(!ages.is_empty() && ages.is_sorted(), "{ages:?}");
    assert!(ages.iter().all(|age| *age < 2), "{ages:?}");
    stage.to_redis.restore().await;
    until("Redis answers", SOON, async || {
        answer_of(&reader.get(&path("acme")).await) == "Redis"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_redis_is_refilled_with_what_is_asked_for_most_first() {
    let stage = Stage::start().await;
    let reader = stage.reader("3600").start().await;
    let customers = [("cold", 1), ("hot", 9), ("purged", 5), ("warm", 4)];
    for (customer, questions) in customers {
        stage.edge.answer(&path(customer), listed(2, UPDATED));
        for _ in 0..questions {
            assert_eq!(reader.get(&path(customer)).await.status, 200);
        }
    }
    // The worker's purge, and the vendor has forgotten the customer.
    stage
        .edge
        .answer(&path("purged"), Answer::json(404, &json!({})));
    let key = "production:c_purged";
    let (time, tombstone) = (format!("{key}#timestamp"), format!("{key}#purged"));
    stage.redis.cmd(&["DEL", key, &time]);
    stage.redis.cmd(&["SET", &tombstone, "1"]);
    let before = stage.edge.requests_to("/v1/c/").len();
    stage.redis.cmd(&["FLUSHALL"]);
    let refilled = async || {
        let asked = stage.edge.requests_to("/v1/c/").len() - before;
        let line = "the customers of the last hour were loaded";
        asked >= customers.len() && reader.logs().contains(line)
    };
    until("Redis is refilled", SOON, refilled).await;
    let asked = stage.edge.requests_to("/v1/c/").split_off(before);
    let asked: Vec<&str> = asked.iter().map(|it| it.path.as_str()).collect();
    let expected = ["hot", "purged", "warm", "cold"].map(path);
    assert_eq!(asked, expected);
    for customer in ["hot", "warm", "cold"] {
        let key = format!("production:c_{customer}");
        assert!(stage.redis.get(&key).is_some(), "{customer}");
    }
    assert_eq!(stage.redis.get(key), None, "the purged customer returned");
    assert_eq!(reader.get(&path("purged")).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refill_goes_on_when_the_edge_api_is_back() {
    let stage = Stage::start().await;
    let reader = stage.reader("3600").start().await;
    let customers: Vec<String> = (0..20).map(|number| format!("c{number}")).collect();
    for (number, customer) in customers.iter().enumerate() {
        stage.edge.answer(&path(customer), listed(2, UPDATED));
        for _ in 0..customers.len() - number {
            assert_eq!(reader.get(&path(customer)).await.status, 200);
        }
    }
    stage.to_edge.cut().await;
    let before = stage.edge.requests_to("/v1/c/").len();
    stage.redis.cmd(&["FLUSHALL"]);
    let failed = "entitlement_sync_read_upstream_requests_total{outcome=\"failed\"}";
    until("the breaker is open", SOON, async || {
        reader.metric(failed).await >= 5.0
    })
    .await;
    // Nobody asks for any of them.
    stage.to_edge.restore().await;
    let line = "the customers of the last hour were loaded";
    until("Redis is refilled", SOON, async || {
        reader.logs().contains(line)
    })
    .await;
    for customer in &customers {
        let key = format!("production:c_{customer}");
        assert!(stage.redis.get(&key).is_some(), "{customer}");
    }
    let asked = stage.edge.requests_to("/v1/c/").split_off(before);
    let asked: Vec<&str> = asked.iter().map(|it| it.path.as_str()).collect();
    let expected: Vec<String> = customers.iter().map(|it| path(it)).collect();
    assert_eq!(asked, expected, "most often asked for first, each once");
    let refilled = reader.metric("entitlement_sync_read_refilled_total").await;
    assert_eq!(refilled, 20.0);
}

/// `serve` receives nothing, so no line may say that receiving stops.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_what_serve_does_while_redis_takes_no_writes() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    edge.answer(&path("acme"), listed(2, UPDATED));
    let logged = async |line: &str| {
        until(line, SOON, async || reader.logs().contains(line)).await;
    };
    logged("Redis takes writes").await;
    redis.cmd(&["CONFIG", "SET", "maxmemory", "1"]);
    logged("Redis takes no writes; fetched customers are kept in memory only until it does").await;
    assert_eq!(version(&reader.get(&path("acme")).await), Some(2));
    assert_eq!(redis.get("production:c_acme"), None);
    redis.cmd(&["CONFIG", "SET", "maxmemory", "0"]);
    until("it is stored", SOON, async || {
        assert_eq!(version(&reader.get(&path("acme")).await), Some(2));
        redis.get("production:c_acme").is_some()
    })
    .await;
    redis.cmd(&["FLUSHALL"]);
    logged("Redis lost its data: the customers of the last hour are loaded from the Edge API")
        .await;
    let mut kill = redis::cmd("CLIENT");
    kill.arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]);
    let mut set = redis::cmd("CONFIG");
    set.arg(&["SET", "requirepass", "another"]);
    let mut both = redis::pipe();
    both.add_command(set).add_command(kill);
    both.exec(&mut redis.conn()).unwrap();
    logged("Redis denied access: check REDIS_PASSWORD, REDIS_USER and its permissions").await;
    let logs = reader.logs();
    assert!(!logs.contains("receiving"), "{logs}");
}

/// Each of so many requests, one after the other: if each waited for a timeout, the test would never end.
const MANY: usize = 500;

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_costs_one_wait() {
    let stage = Stage::start().await;
    let reader = stage.reader("-1").start().await;
    for number in 0..64 {
        let customer = format!("c{number}");
        store(&stage.redis, &customer, &map(1), 1);
        // It is asked in the background.
        stage.edge.answer(&path(&customer), listed(1, UPDATED));
        assert_eq!(reader.get(&path(&customer)).await.status, 200);
    }
    let losses = "entitlement_sync_read_tracking_losses_total";
    let before = reader.metric(losses).await;
    stage.redis.freeze();
    let mut client = Client::connect(reader.read_port()).await;
    for number in 0..MANY {
        let reply = client.get(&path(&format!("c{}", number % 64))).await;
        assert_eq!((reply.status, version(&reply)), (200, Some(1)));
    }
    // Those too that it never heard of: the Edge API does not know them.
    for number in 0..MANY {
        let reply = client.get(&path(&format!("new{number}"))).await;
        assert_eq!(reply.status, 404);
    }
    until("the loss is counted", SOON, async || {
        reader.metric(losses).await - before == 1.0
    })
    .await;
    stage.redis.thaw();
    until("Redis answers", SOON, async || {
        // A load in the background may have been first.
        ["Redis", "copy"].contains(&&*answer_of(&client.get(&path("c1")).await))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_api_that_hangs_costs_one_wait() {
    let stage = Stage::start().await;
    let reader = stage.reader("3600").start().await;
    store(&stage.redis, "known", &map(1), 1);
    stage.to_edge.blackhole();
    let mut client = Client::connect(reader.read_port()).await;
    for number in 0..MANY {
        let reply = client.get(&path(&format!("absent{number}"))).await;
        assert_eq!(answer_of(&reply), "cannot tell");
        let reply = client.get(&path("known")).await;
        assert_eq!(version(&reply), Some(1));
    }
    // What is passed on has a breaker of its own.
    for _ in 0..MANY {
        let reply = client.get("/v1/paywall.json").await;
        assert_eq!((reply.status, reply.header("retry-after")), (503, "120"));
    }
    let tried = reader
        .metric("entitlement_sync_read_upstream_requests_total{outcome=\"failed\"}")
        .await;
    assert!((1.0..10.0).contains(&tried), "{tried} requests waited");
    stage.edge.answer(&path("back"), listed(2, UPDATED));
    stage.to_edge.restore().await;
    until("the Edge API is asked again", SOON, async || {
        client.get(&path("back")).await.status == 200
    })
    .await;
}

/// A load that brought something does not make the next one due.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_stale_is_asked_for_upstream_once_in_30_s() {
    let stage = Stage::start().await;
    let reader = stage.reader("3600").start().await;
    stage.edge.answer(&path("acme"), listed(2, UPDATED));
    stage.to_redis.cut().await;
    reader.wait_redis("DISCONNECTED").await;
    let started = Instant::now();
    assert_eq!(answer_of(&reader.get(&path("acme")).await), "Edge API");
    let mut client = Client::connect(reader.read_port()).await;
    for _ in 0..2_000 {
        assert_eq!(answer_of(&client.get(&path("acme")).await), "stale copy");
    }
    let asked = stage.edge.requests_to(&path("acme")).len() as u64;
    let periods = started.elapsed().as_secs() / 30;
    assert!(asked <= 1 + periods, "{asked} requests for 2,000 questions");
}

/// A customer that waits for an answer delays no other.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_keeps_no_other_customer_waiting() {
    let stage = Stage::start().await;
    let reader = stage.reader("3600").start().await;
    let slow = listed(2, UPDATED).after(Duration::from_secs(3));
    stage.edge.answer(&path("slow"), slow);
    store(&stage.redis, "known", &map(1), 1);
    let asked = path("slow");
    let (slow, answered) = tokio::join!(reader.get(&asked), async {
        until("the slow one is asked for", SOON, async || {
            !stage.edge.requests_to("/v1/c/slow").is_empty()
        })
        .await;
        let mut client = Client::connect(reader.read_port()).await;
        let mut answered = 0;
        while reader
            .metric("entitlement_sync_read_upstream_requests_total{outcome=\"found\"}")
            .await
            == 0.0
        {
            assert_eq!(version(&client.get(&path("known")).await), Some(1));
            answered += 1;
        }
        answered
    });
    assert_eq!(version(&slow), Some(2));
    assert!(answered > 10, "{answered}");
}
