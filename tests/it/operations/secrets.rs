//! No secret and no body leaves the process, whatever goes wrong and however much is logged.

use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::stand::{SOON, Stand, state};
use testkit::events::usage;
use testkit::worker::Builder;
use testkit::{Answer, EdgeMock, Fault, Worker, until};

/// Every secret and every body holds this word, and nothing else does. Long ones repeat it, so that it shows in a dump
/// of a few bytes a line too.
const CANARY: &str = "canary";
const PASSWORD: &str = "canarycanarycanary-redis";

const SECRETS: [(&str, &str); 5] = [
    ("SERVER_API_KEY", "canarycanarycanarycanary-server"),
    ("AWS_SECRET_ACCESS_KEY", "canary/canarycanary+canary"),
    ("AWS_SESSION_TOKEN", "canarycanarycanarycanary=="),
    ("REDIS_PASSWORD", PASSWORD),
    ("SENTRY_DSN", "http://canarycanarycanary@127.0.0.1:1/1"),
];

/// Bodies that are refused, each for another reason, and the canary in whatever is refused.
const BAD: [&str; 9] = [
    "canary",
    r#"{"canary":"#,
    r#"["canary"]"#,
    r#"{"type":"ENTITLEMENTS_UPDATED","payload":{"customerId":"canary","entitlements":"canary"}}"#,
    r#"{"type":"ENTITLEMENTS_UPDATED","timestamp":"canary","payload":{"customerId":"canary","entitlements":[]}}"#,
    r#"{"type":"ENTITLEMENTS_UPDATED","payload":{"customerId":"canary:f_x","entitlements":[]}}"#,
    r#"{"type":"ENTITLEMENTS_UPDATED","payload":{"customerId":"canary","entitlements":[{"usageLimit":"canary","feature":{"id":"canary","featureType":"canary"}}]}}"#,
    r#"{"type":"measurement.reported","currentUsage":"canary","customer":{"id":"canary"},"feature":{"id":"canary"}}"#,
    r#"{"Type":"Notification","Message":"canary"}"#,
];

fn assert_clean(what: &str, text: &str) {
    // The line alone: the rest would drown it.
    let dirty: Vec<&str> = text
        .lines()
        .filter(|line| line.to_lowercase().contains(CANARY))
        .take(3)
        .collect();
    assert!(
        dirty.is_empty(),
        "{what} holds a secret or a body:\n{}",
        dirty.join("\n")
    );
}

async fn pages_are_clean(worker: &Worker) {
    for path in [
        "/livez",
        "/readyz",
        "/readyz?verbose",
        "/metrics",
        "/status",
        "/",
    ] {
        if let Ok(reply) = worker.try_http(path).await {
            assert_clean(path, &reply.body);
        }
    }
}

async fn nothing_leaks(format: &str, filter: &str) {
    let stand =
        Stand::start_with(&["--requirepass", PASSWORD], &[("VisibilityTimeout", "1")]).await;
    let sentry = EdgeMock::start().await;
    let mut builder = stand
        .worker()
        .unset("DISABLE_SENTRY")
        .env("RUST_LOG", filter)
        .env("LOG_FORMAT", format)
        .env("MAX_RECEIVE_COUNT", 1)
        .env("CACHE_LOCK_RETRY_COUNT", 0)
        .env("AWS_ACCESS_KEY_ID", "AKIACANARYCANARY");
    for (name, value) in SECRETS {
        builder = builder.env(name, value);
    }
    let dsn = sentry
        .sentry_dsn()
        .replace("public@", "canarycanarycanary@");
    let worker = builder.env("SENTRY_DSN", dsn).start().await;

    // What goes well: written, stale, skipped, purged, unknown, locked.
    stand.applies("canary-customer", 2_000, SOON).await;
    stand.send("canary-customer", 1_000).await;
    stand
        .queue
        .send(&usage(("canary-customer", None), "calls", 7, 2_000))
        .await;
    stand
        .queue
        .send(&usage(("canary-nobody", None), "calls", 7, 2_000))
        .await;
    stand
        .queue
        .send(r#"{"type":"SOMETHING_ELSE","canary":"canary"}"#)
        .await;
    stand
        .queue
        .send(r#"{"type":"CUSTOMER_DELETED","timestamp":2500,"customerId":"canary-customer"}"#)
        .await;
    stand
        .redis
        .cmd(&["SET", "production-canary-locked", "canary", "PX", "1000"]);
    stand.send("canary-locked", 1_000).await;
    stand.queue.wait_empty(SOON).await;

    // What cannot be applied.
    for body in BAD {
        stand.queue.send(body).await;
    }
    stand.queue.wait_empty(SOON).await;
    let given_up = worker
        .metric("entitlement_sync_messages_dead_lettered_total")
        .await;
    assert!(
        given_up as usize >= BAD.len() - 1,
        "only {given_up} are given up"
    );
    pages_are_clean(&worker).await;

    // Redis refuses our password, then hangs, with a message in flight.
    let mut admin = stand.redis.conn();
    for password in ["other", PASSWORD] {
        redis::cmd("CONFIG")
            .arg(&["SET", "requirepass", password])
            .exec(&mut admin)
            .unwrap();
        redis::cmd("CLIENT")
            .arg(&["KILL", "TYPE", "normal"])
            .exec(&mut admin)
            .unwrap();
        if password == "other" {
            worker.wait_unready().await;
            until("the reason is known", SOON, async || {
                worker
                    .http("/readyz?verbose")
                    .await
                    .body
                    .contains("WRONGPASS")
            })
            .await;
            pages_are_clean(&worker).await;
        }
    }
    worker.wait_ready().await;
    stand.link.blackhole();
    stand.send("canary-frozen", 1_000).await;
    worker.wait_unready().await;
    pages_are_clean(&worker).await;
    stand.link.restore().await;
    worker.wait_ready().await;

    // The queue fails in every way.
    for fault in [
        Fault::expired_token(),
        Fault::access_denied(),
        Fault::malformed(),
        Fault::Reset,
        Fault::LoseAnswer,
        Fault::Answer {
            status: 403,
            code: "InvalidClientTokenId;Sender",
            body: r#"{"__type":"com.amazon.coral.service#UnrecognizedClientException","message":"no"}"#.into(),
        },
    ] {
        stand.calls.once("ReceiveMessage", fault.clone());
        stand.calls.once("DeleteMessageBatch", fault);
    }
    for round in 0..8 {
        stand.send("canary-queue", 3_000 + round).await;
    }
    stand.queue.wait_empty(3 * SOON).await;
    pages_are_clean(&worker).await;

    // And the end, with a message in flight.
    stand
        .redis
        .cmd(&["SET", "production-canary-customer", "canary", "PX", "10000"]);
    stand.queue.send(&state("canary-customer", 9_000)).await;
    worker.term();
    worker.wait_exit(SOON).await;
    assert_clean("the log", &worker.logs());
    assert!(
        worker.logs().lines().count() > 50,
        "the log is too short to mean anything"
    );
    let reports = sentry.requests();
    assert!(!reports.is_empty());
    for report in reports {
        assert_clean("a report", &report.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaks_into_text_at_trace_level() {
    nothing_leaks("text", "trace").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaks_into_json_at_trace_level() {
    nothing_leaks("json", "trace").await;
}

/// A filter that names a module of a library must not open what is closed for the library.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaks_by_a_filter_that_names_modules() {
    let filter = "trace,fred=trace,fred::router=trace,fred::protocol=trace,aws_smithy_runtime=trace,\
        aws_smithy_runtime::client::orchestrator=trace,aws_smithy_runtime::client::http=trace,aws_runtime::auth=trace,\
        aws_sigv4::http_request=trace,aws_sdk_sqs=trace,aws_config::profile=trace,hyper_util::client=trace,\
        hyper=trace,ureq=trace,ureq_proto=trace,rustls=trace,sentry=trace,entitlement_sync=trace";
    nothing_leaks("json", filter).await;
}

/// A service may quote what it was sent: SQS the token, Redis the password.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaks_of_what_a_service_echoes() {
    let stand = Stand::start().await;
    let token = SECRETS[2].1;
    let echo = Fault::Answer {
        status: 403,
        code: "AccessDenied;Sender",
        body: json!({
            "__type": "com.amazon.coral.service#AccessDeniedException",
            "message": format!("no access with {token}, really"),
        })
        .to_string(),
    };
    for action in ["ReceiveMessage", "GetQueueAttributes"] {
        stand.calls.always(action, echo.clone());
    }
    let worker = stand.worker().env("AWS_SESSION_TOKEN", token).spawn();
    until("the queue has refused a consumer", SOON, async || {
        let status = worker.try_http("/status").await;
        status.is_ok_and(|it| it.json()["consumer_states"][0]["last_error"].is_string())
    })
    .await;
    let status = worker.http("/status").await.json();
    assert_eq!(
        status["consumer_states"][0]["last_error"],
        "access denied: AccessDenied: no access with [REDACTED], really"
    );
    pages_are_clean(&worker).await;
    assert!(worker.logs().contains("no access with [REDACTED], really"));
    assert_clean("the log", &worker.logs());
    drop(worker);
    stand.calls.clear_all();

    let echoing =
        listener_that_answers(format!("-ERR no access with {PASSWORD}, really\r\n")).await;
    let worker = stand
        .worker()
        .redis_port(echoing)
        .env("REDIS_PASSWORD", PASSWORD)
        .spawn();
    until("Redis has refused us", SOON, async || {
        let verbose = worker.try_http("/readyz?verbose").await;
        verbose.is_ok_and(|it| it.body.contains("no access with "))
    })
    .await;
    let verbose = worker.http("/readyz?verbose").await.body;
    assert!(verbose.contains("no access with … really"), "{verbose}");
    let status = worker.http("/status").await.json();
    let reason = status["unready_reason"].as_str().unwrap();
    assert!(reason.contains("no access with … really"), "{reason}");
    pages_are_clean(&worker).await;
    assert_clean("the log", &worker.logs());
}

/// Redis quotes the arguments of what it refuses, and names keys, channels and users.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaks_of_what_redis_quotes() {
    let rename = [
        "--rename-command",
        "EVALSHA",
        "",
        "--rename-command",
        "EVAL",
        "",
    ];
    for rename in [
        &rename[..],
        // Errors inside the script.
        &["--rename-command", "SET", ""],
        &["--rename-command", "MGET", ""],
    ] {
        let renamed = Stand::start_with(rename, &[]).await;
        refused_cleanly(&renamed, &[], &[]).await;
    }

    let stand = Stand::start().await;
    let open = [
        "ACL", "SETUSER", "default", "reset", "on", "nopass", "~*", "&*", "+@all",
    ];
    for denied in [
        &["-evalsha", "-eval"][..],
        &["-set"],
        &["-mget"],
        &["resetkeys", "~production:entitlement-sync"],
        &["resetkeys", "~canary*"],
    ] {
        let rule = [&["ACL", "SETUSER", "default"][..], denied].concat();
        refused_cleanly(&stand, &rule, &open).await;
    }
    let full = ["CONFIG", "SET", "maxmemory", "1"];
    refused_cleanly(&stand, &full, &["CONFIG", "SET", "maxmemory", "0"]).await;
    let replica = ["REPLICAOF", "127.0.0.1", "1"];
    refused_cleanly(&stand, &replica, &["REPLICAOF", "NO", "ONE"]).await;
    busy_cleanly(&stand).await;
    of_the_wrong_type_cleanly(&stand).await;
    // A proxy that says it in its own way.
    for answer in [
        "-ERR unsupported command EVALSHA production:c_canary\r\n",
        "-ERR unknown redis command 'canary' for production-canary\r\n",
        "-canary production:c_canary\r\n",
        "-DENIED no access to canary\r\n",
        "-MOVED 1 canary:7001\r\n",
        "-ERR Error running script (call to f_canary): @user_script:9: canary\r\n",
    ] {
        let port = listener_that_answers(answer.to_owned()).await;
        let worker = stand.worker().redis_port(port).spawn();
        until("Redis has refused us", SOON, async || {
            let verbose = worker.try_http("/readyz?verbose").await;
            verbose.is_ok_and(|it| !it.body.contains("not connected yet"))
        })
        .await;
        pages_are_clean(&worker).await;
        assert_clean("the log", &worker.logs());
    }
}

/// Has a message of a canary refused by Redis, once it is as `spoil` makes it, until `heal`.
async fn refused_cleanly(stand: &Stand, spoil: &[&str], heal: &[&str]) {
    let sentry = EdgeMock::start().await;
    let worker = reporting(stand, &sentry).spawn();
    if !spoil.is_empty() {
        worker.wait_ready().await;
        // Others work on, so that the refusal meets a call for the canary, not only the probe.
        stand.redis.cmd(spoil);
    }
    for _ in 0..5 {
        stand.send("canary-customer", 1_000).await;
    }
    worker.wait_unready().await;
    until("the reason is known", SOON, async || {
        let verbose = worker.try_http("/readyz?verbose").await;
        verbose.is_ok_and(|it| it.body.contains("redis:") && !it.body.contains("not connected"))
    })
    .await;
    pages_are_clean(&worker).await;
    if !heal.is_empty() {
        stand.redis.cmd(heal);
        stand.queue.wait_empty(SOON).await;
    }
    pages_are_clean(&worker).await;
    ends_cleanly(worker, &sentry).await;
}

/// A worker that logs all it can, and reports errors.
fn reporting(stand: &Stand, sentry: &EdgeMock) -> Builder {
    stand
        .worker()
        .unset("DISABLE_SENTRY")
        .env("SENTRY_DSN", sentry.sentry_dsn())
        .env("RUST_LOG", "trace")
}

/// Another client runs a script that does not end: Redis answers BUSY to everyone, to calls for the canary too.
async fn busy_cleanly(stand: &Stand) {
    stand.redis.cmd(&["CONFIG", "SET", "lua-time-limit", "1"]);
    let sentry = EdgeMock::start().await;
    let worker = reporting(stand, &sentry)
        .env("CACHE_LOCK_RETRY_COUNT", 1_000)
        .start()
        .await;
    // Calls for the canary go on as long as an SDK has the lock.
    stand.redis.set("production-canary-busy", "an SDK");
    for _ in 0..5 {
        stand.send("canary-busy", 1_000).await;
    }
    until("they meet the lock", SOON, async || {
        let locked = worker.metric("entitlement_sync_locked_retries_total").await;
        locked >= 5.0
    })
    .await;
    // The probe may close the gate before such a call meets BUSY.
    for round in 0.. {
        assert!(round < 20, "no call for the canary meets BUSY");
        while_busy(stand, &worker).await;
        worker.wait_ready().await;
        // The failures of the probe do not count.
        if worker.metric("entitlement_sync_redis_errors_total").await > 0.0 {
            break;
        }
    }
    stand.redis.cmd(&["DEL", "production-canary-busy"]);
    stand.queue.wait_empty(SOON).await;
    assert!(stand.holds("canary-busy", 1_000));
    pages_are_clean(&worker).await;
    ends_cleanly(worker, &sentry).await;
}

/// Keeps Redis busy until the worker says so.
async fn while_busy(stand: &Stand, worker: &Worker) {
    let mut looping = stand.redis.conn();
    looping
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let script = std::thread::spawn(move || {
        // It is killed.
        let _ = redis::cmd("EVAL")
            .arg(&["while true do end", "0"])
            .exec(&mut looping);
    });
    until("it is said", SOON, async || {
        let verbose = worker.try_http("/readyz?verbose").await;
        verbose.is_ok_and(|it| it.body.contains("is busy running a script"))
    })
    .await;
    pages_are_clean(worker).await;
    stand.redis.cmd(&["SCRIPT", "KILL"]);
    script.join().unwrap();
}

/// Ends a worker: neither its log nor its reports name the canary.
async fn ends_cleanly(worker: Worker, sentry: &EdgeMock) {
    worker.term();
    worker.wait_exit(SOON).await;
    assert_clean("the log", &worker.logs());
    for report in sentry.requests() {
        assert_clean("a report", &report.text());
    }
}

/// A customer's keys, and the stream of what is given up, hold something else than we write.
async fn of_the_wrong_type_cleanly(stand: &Stand) {
    let customer = "production:c_canary-type";
    for suffix in ["", "#timestamp", "#purged", ":metadata"] {
        let key = format!("{customer}{suffix}");
        stand.redis.cmd(&["RPUSH", &key, "canary"]);
    }
    stand.redis.set("production:dead-letter", "canary");
    let sentry = EdgeMock::start().await;
    let worker = reporting(stand, &sentry)
        .env("MAX_RECEIVE_COUNT", 1)
        .start()
        .await;
    stand.send("canary-type", 1_000).await;
    stand.queue.wait_empty(SOON).await;
    assert!(stand.holds("canary-type", 1_000));
    stand.queue.send("canary").await;
    until("it is said", SOON, async || {
        let logs = worker.logs();
        logs.contains("cannot keep a message") && logs.contains("WRONGTYPE")
    })
    .await;
    pages_are_clean(&worker).await;
    stand.redis.cmd(&["DEL", "production:dead-letter"]);
    stand.queue.wait_empty(2 * SOON).await;
    ends_cleanly(worker, &sentry).await;
}

/// Answers every command with this, as a Redis that refuses everything.
async fn listener_that_answers(answer: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut asked = [0; 4096];
                while stream.read(&mut asked).await.is_ok_and(|bytes| bytes > 0) {
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// Keys that the Edge API gives are not known in advance, so no redaction can remove them from a line.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaks_of_requests_to_the_edge_api_and_its_answers() {
    let (stand, edge) = (Stand::start().await, EdgeMock::start().await);
    let credentials = json!({
        "accessKeyId": "ASIACANARYCANARYCANARY",
        "secretAccessKey": "canarycanarycanarycanary",
        "sessionToken": "canarycanarycanarycanarycanary",
        "expiration": "2100-01-01T00:00:00Z",
    });
    let dsn = edge.sentry_dsn().replace("public@", "canarycanarycanary@");
    let configuration = json!({"data": {"sdkConfiguration": {"sentryDsn": dsn}}});
    edge.answer_in_turn(
        "/v1/credentials/event-queue.json",
        [
            Answer::text(500, "canary"),
            Answer::text(200, "canary"),
            Answer::json(200, &credentials),
        ],
    );
    edge.answer_in_turn(
        "/v1/config/server-sdk-configuration.json",
        [
            Answer::text(500, "canary"),
            Answer::json(200, &configuration),
        ],
    );
    let worker = stand
        .worker()
        .unset("AWS_ACCESS_KEY_ID")
        .unset("AWS_SECRET_ACCESS_KEY")
        .unset("DISABLE_SENTRY")
        .env("EDGE_API_URL", edge.url())
        .env("SERVER_API_KEY", SECRETS[0].1)
        .env("MAX_RECEIVE_COUNT", 1)
        .env("RUST_LOG", "trace")
        .start()
        .await;
    stand.applies("canary-customer", 1_000, SOON).await;
    until("it is known where reports go", SOON, async || {
        worker.logs().contains("errors are reported to Sentry")
    })
    .await;
    stand.queue.send("canary").await;
    until("a report is sent", SOON, async || {
        !edge.envelopes().is_empty()
    })
    .await;
    pages_are_clean(&worker).await;
    assert_clean("the log", &worker.logs());
    for report in edge.envelopes() {
        assert_clean("a report", &report);
    }
}

#[test]
fn no_secret_is_in_help_or_in_a_refusal() {
    // Wrong in each way that a secret can be: a DSN that is none, a key without its other half, a URL with a login.
    let wrong = [
        ("SENTRY_DSN", "canary"),
        ("AWS_SECRET_ACCESS_KEY", "canary"),
        ("AWS_SESSION_TOKEN", "canary"),
        ("SERVER_API_KEY", "canary"),
        ("REDIS_PASSWORD", "canary"),
        ("REDIS_URL", "redis://canary:canary@localhost?canary=canary"),
        ("REDIS_SENTINEL_PASSWORD", "canary"),
        ("REDIS_HOST", "redis://:canary@localhost"),
        (
            "QUEUE_URL",
            "https://canary:canary@sqs.us-east-1.amazonaws.com/1/q",
        ),
        ("EDGE_API_URL", "https://canary:canary@localhost"),
    ];
    for (arguments, code) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&[], 78),
        (&["--canarx"], 2),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_entitlement-sync"))
            .args(arguments)
            .env_clear()
            .envs(SECRETS)
            .envs(wrong)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert_clean("standard output", &String::from_utf8_lossy(&output.stdout));
        assert_clean("standard error", &String::from_utf8_lossy(&output.stderr));
    }
}
