//! The binary and its environment: what it refuses, what it says, and that each variable does what it is for.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use entitlement_sync::config::{Need, VARIABLES};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::stand::{SOON, Stand, TWO_SECS, state};
use testkit::worker::Builder;
use testkit::{Answer, EdgeMock, Redis, Sqs, Worker, free_port, until};

const CREDENTIALS: &str = "/v1/credentials/event-queue.json";
const CONFIGURATION: &str = "/v1/config/server-sdk-configuration.json";

struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs the binary to its end with this environment and no other.
fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_entitlement-sync"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

async fn wait_log(worker: &Worker, part: &str) {
    until(&format!("the log says {part}"), SOON, async || {
        worker.logs().contains(part)
    })
    .await;
}

fn lines<'a>(log: &'a str, part: &str) -> Vec<&'a str> {
    log.lines().filter(|line| line.contains(part)).collect()
}

#[test]
fn all_that_is_missing_is_said_at_once() {
    let ended = run(&[], &[]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(78), ""));
    let required: Vec<_> = VARIABLES
        .iter()
        .filter(|variable| variable.need == Need::Required)
        .collect();
    assert!(required.len() >= 4);
    for variable in &required {
        let advice = format!("{}={}", variable.name, variable.example);
        assert!(ended.stderr.contains(&advice), "{}", ended.stderr);
    }
    assert!(
        ended
            .stderr
            .starts_with(&format!("{} configuration errors:", required.len()))
    );
    assert_eq!(ended.stderr.lines().count(), 1 + required.len());
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let wrong = [
        ("AWS_REGION", "eu-west-1"),
        ("QUEUE_URL", "https://sqs.us-east-1.amazonaws.com/1/q"),
        ("SERVER_API_KEY", "key"),
        ("REDIS_HOST", "redis://host"),
        ("REDIS_TLS", "maybe"),
        ("BATCH_SIZE", "11"),
        ("KEYS_TTL_IN_SECS", "0"),
        ("ENVIRONMENT_PREFIX", "a"),
        ("REDIS_ENVIRONMENT_PREFIX", "b"),
        ("AWS_SECRET_ACCESS_KEY", "canary"),
        ("SENTRY_DSN", "canary"),
        ("PORT", "http"),
    ];
    let ended = run(&[], &wrong);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(78), ""));
    for name in [
        "AWS_REGION",
        "REDIS_HOST",
        "REDIS_TLS",
        "BATCH_SIZE",
        "KEYS_TTL_IN_SECS",
        "ENVIRONMENT_PREFIX",
        "AWS_ACCESS_KEY_ID",
        "SENTRY_DSN",
        "PORT",
    ] {
        assert!(
            ended.stderr.contains(&format!("\n  {name} ")),
            "{name}: {}",
            ended.stderr
        );
    }
    assert!(!ended.stderr.contains("canary"), "{}", ended.stderr);
}

#[test]
fn help_names_every_variable_and_shows_no_value() {
    let environment: Vec<(&str, &str)> = VARIABLES
        .iter()
        .map(|variable| (variable.name, "canary"))
        .collect();
    let ended = run(&["--help"], &environment);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    for variable in VARIABLES {
        let line = ended.stdout.lines().find(|line| {
            line.trim_start()
                .starts_with(&format!("{} ", variable.name))
        });
        let line = line.unwrap_or_else(|| panic!("{} is not named", variable.name));
        assert!(line.contains(variable.about), "{line}");
        if let Need::Default(default) = variable.need {
            assert!(line.ends_with(&format!("[default: {default}]")), "{line}");
        }
    }
    assert!(!ended.stdout.contains("canary"), "{}", ended.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_likely_typo_is_warned_about_with_the_name_that_was_meant() {
    let stand = Stand::start().await;
    let worker = stand
        .worker()
        .env("REDIS_HOTS", "canary")
        .env("UNRELATED", "x")
        .start()
        .await;
    let log = worker.logs();
    let warned = lines(&log, "REDIS_HOTS");
    assert_eq!(warned.len(), 1, "{log}");
    assert!(
        warned[0].contains("WARN") && warned[0].contains("did you mean REDIS_HOST?"),
        "{log}"
    );
    assert!(
        !log.contains("canary") && !log.contains("UNRELATED"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_line_at_the_start_tells_the_effective_configuration() {
    let stand = Stand::start().await;
    let worker = stand
        .worker()
        .env("LOG_FORMAT", "json")
        .env("KEYS_TTL_IN_SECS", 60)
        .env("CACHE_UPDATE_POLICY", "update_if_exists")
        .env("MAX_INFLIGHT_BYTES", 2 << 20)
        .start()
        .await;
    let log = worker.logs();
    let starting: Vec<Value> = log
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        })
        .filter(|line| line["message"] == "starting")
        .collect();
    assert_eq!(starting.len(), 1, "{log}");
    let expected = json!({
        "level": "INFO",
        "queue": stand.queue.url,
        "region": "us-east-1",
        "endpoint": format!("{}/", stand.calls.url()),
        "consumers": 2,
        "batch_size": 10,
        "min_pollers": 2,
        "max_inflight_bytes": 2 << 20,
        "max_receive_count": 5,
        "dead_letter_max_len": 1000,
        "redis": format!("127.0.0.1:{}/0", stand.link.port()),
        "redis_tls": false,
        "prefix": "production",
        "keys_ttl_secs": 60,
        "update_if_exists": true,
        "port": worker.port(),
        "shutdown_timeout_secs": 8,
        "sentry": false,
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&starting[0][name], value, "{name} in {}", starting[0]);
    }
}

/// The other spellings, a database, a user, and requests to the origin of `QUEUE_URL`.
#[tokio::test(flavor = "multi_thread")]
async fn aliases_and_addresses_work_end_to_end() {
    let stand = Stand::start().await;
    stand
        .redis
        .cmd(&["ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all"]);
    let worker = stand
        .worker()
        .unset("ENVIRONMENT_PREFIX")
        .unset("AWS_ENDPOINT_URL_SQS")
        .env("QUEUE_URL", stand.calls.queue_url(&stand.queue))
        .env("REDIS_ENVIRONMENT_PREFIX", "alias")
        .env("REDIS_USERNAME", "app")
        .env("REDIS_PASSWORD", "secret")
        .env("REDIS_DB", 3)
        .start()
        .await;
    stand.send("acme", 1_000).await;
    stand.queue.wait_empty(SOON).await;
    let mut conn = stand.redis.conn();
    let clients: String = redis::cmd("CLIENT").arg("LIST").query(&mut conn).unwrap();
    assert!(
        lines(&clients, "user=app")
            .iter()
            .any(|line| line.contains(" db=3 ")),
        "{clients}"
    );
    redis::cmd("SELECT").arg(3).exec(&mut conn).unwrap();
    let found: Option<String> = redis::cmd("GET")
        .arg("alias:c_acme#timestamp")
        .query(&mut conn)
        .unwrap();
    assert_eq!(found.as_deref(), Some("1000"));
    assert!(
        stand.redis.dump("").is_empty(),
        "something is in database 0"
    );
    assert!(stand.calls.calls("ReceiveMessage") > 0);
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_a_failure_that_names_it() {
    let stand = Stand::start().await;
    let port = free_port();
    let _taken = TcpListener::bind(("0.0.0.0", port)).unwrap();
    let worker = stand.worker().env("PORT", port).spawn();
    assert_eq!(worker.wait_exit(SOON).await, 70);
    let log = worker.logs();
    let said = log.lines().last().unwrap();
    assert!(
        said.contains(&format!("cannot serve HTTP on port {port}: set PORT")),
        "{log}"
    );
}

/// Whether `/livez` answers on this address.
fn lives(address: IpAddr, port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((address, port)) else {
        return false;
    };
    write!(stream, "GET /livez HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.starts_with("HTTP/1.0 200 ")
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_are_answered_by_ipv6_and_by_ipv4() {
    let stand = Stand::start().await;
    let worker = stand.worker().start().await;
    for address in [
        IpAddr::from(Ipv6Addr::LOCALHOST),
        Ipv4Addr::LOCALHOST.into(),
    ] {
        assert!(lives(address, worker.port()), "no answer on {address}");
    }
}

#[test]
fn the_health_check_asks_by_ipv4_and_by_ipv6() {
    for address in [
        IpAddr::from(Ipv6Addr::LOCALHOST),
        Ipv4Addr::LOCALHOST.into(),
    ] {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4];
            stream.read_exact(&mut request).unwrap();
            write!(stream, "HTTP/1.0 200 OK\r\n\r\n").unwrap();
            // What was sent is read to its end, or closing would be a reset.
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
        });
        let ended = run(&["healthcheck"], &[("PORT", &port)]);
        assert_eq!(
            (ended.code, ended.stderr.as_str()),
            (Some(0), ""),
            "{address}"
        );
        answering.join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_check_exits_with_what_the_probes_say() {
    let stand = Stand::start().await;
    let worker = stand.worker().start().await;
    let port = worker.port().to_string();
    let check = |arguments: &[&str], port: &str| run(arguments, &[("PORT", port)]);
    let (live, ready) = (&["healthcheck"][..], &["healthcheck", "--ready"][..]);
    for arguments in [live, ready] {
        let ended = check(arguments, &port);
        assert_eq!(
            (ended.code, ended.stderr.as_str()),
            (Some(0), ""),
            "{arguments:?}"
        );
    }
    stand.redis.kill();
    worker.wait_unready().await;
    assert_eq!(check(live, &port).code, Some(0));
    let ended = check(ready, &port);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("503") && ended.stderr.contains("DISCONNECTED"),
        "{}",
        ended.stderr
    );
    worker.kill();
    for arguments in [live, ready] {
        let ended = check(arguments, &port);
        assert_eq!(ended.code, Some(1), "{arguments:?}");
        assert!(
            ended.stderr.contains(&format!("port {port}")),
            "{}",
            ended.stderr
        );
    }
    let ended = check(live, "http");
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("PORT"), "{}", ended.stderr);
}

fn credentials(name: &str, lifetime_secs: i64) -> Answer {
    let expiration = OffsetDateTime::now_utc() + Duration::from_secs(lifetime_secs.unsigned_abs());
    Answer::json(
        200,
        &json!({
            "accessKeyId": format!("ASIA{name}"),
            "secretAccessKey": format!("secret-{name}"),
            "sessionToken": format!("token-{name}"),
            "expiration": expiration.format(&Rfc3339).unwrap(),
        }),
    )
}

/// A worker with no credentials but `SERVER_API_KEY`.
fn without_keys(stand: &Stand, edge: &EdgeMock) -> Builder {
    stand
        .worker()
        .unset("AWS_ACCESS_KEY_ID")
        .unset("AWS_SECRET_ACCESS_KEY")
        .env("EDGE_API_URL", edge.url())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edge_api_gives_credentials_and_renews_them() {
    let (stand, edge) = (Stand::start().await, EdgeMock::start().await);
    // A failure that heals is tried again.
    edge.answer_in_turn(
        CREDENTIALS,
        [
            Answer::text(503, "later"),
            credentials("FIRST", 15),
            credentials("SECOND", 3600),
        ],
    );
    // A profile that is in no file gives way each time.
    let worker = without_keys(&stand, &edge)
        .env("AWS_PROFILE", "absent")
        .start()
        .await;
    stand.applies("acme", 1_000, SOON).await;

    let requests = edge.requests_to(CREDENTIALS);
    assert_eq!(requests.len(), 2);
    for request in &requests {
        let query: Vec<(String, String)> = url::form_urlencoded::parse(request.query.as_bytes())
            .into_owned()
            .collect();
        let expected = [
            ("queueUrl", stand.queue.url.as_str()),
            ("durationSeconds", "3600"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(query, expected);
        assert_eq!(request.header("x-api-key"), "test-key");
        assert_eq!(request.header("x-api-version"), "1");
    }
    let signed = |name: &str| {
        let calls = stand.calls.requests("ReceiveMessage");
        let calls = calls.iter().filter(|call| {
            call.header("authorization")
                .contains(&format!("Credential=ASIA{name}/"))
                && call.header("x-amz-security-token") == format!("token-{name}")
        });
        calls.count()
    };
    assert_eq!(signed("FIRST"), stand.calls.calls("ReceiveMessage"));

    // Renewed before the first ones end.
    let mut at = 1_000;
    until("the second ones are used", SOON, async || {
        at += 1_000;
        stand.applies("acme", at, SOON).await;
        signed("SECOND") > 0
    })
    .await;
    assert_eq!(edge.requests_to(CREDENTIALS).len(), 3);
    assert_eq!(
        worker.metric("entitlement_sync_queue_errors_total").await,
        0.0
    );
    assert_eq!(edge.requests().len(), 3, "DISABLE_SENTRY is set");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_api_that_gives_no_credentials_is_named_and_waited_for() {
    let (stand, edge) = (Stand::start().await, EdgeMock::start().await);
    edge.answer(CREDENTIALS, Answer::text(401, "no"));
    let worker = without_keys(&stand, &edge).spawn();
    until("the reason is known", SOON, async || {
        let reply = worker.try_http("/readyz?verbose").await;
        reply.is_ok_and(|reply| {
            reply
                .body
                .starts_with("not ready: queue: credentials are missing or wrong: ")
        })
    })
    .await;
    wait_log(&worker, "SERVER_API_KEY was refused").await;
    // A 200 may hold errors.
    edge.answer(
        CREDENTIALS,
        Answer::json(200, &json!({"errors": [{"message": "no"}]})),
    );
    let before = edge.count();
    until("it is asked again", SOON, async || {
        edge.count() > before + 1
    })
    .await;
    assert_eq!(worker.http("/readyz").await.status, 503);
    edge.answer(CREDENTIALS, credentials("LATE", 3600));
    worker.wait_ready().await;
    stand.applies("acme", 1_000, SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_reports_go_is_asked_of_the_edge_api_and_said_once() {
    let (stand, edge, sentry) = (
        Stand::start().await,
        EdgeMock::start().await,
        EdgeMock::start().await,
    );
    let answer = json!({"data": {"sdkConfiguration": {"sentryDsn": sentry.sentry_dsn()}}});
    edge.answer_in_turn(
        CONFIGURATION,
        [Answer::text(500, "later"), Answer::json(200, &answer)],
    );
    let worker = stand
        .worker()
        .unset("DISABLE_SENTRY")
        .env("EDGE_API_URL", edge.url())
        .env("MAX_RECEIVE_COUNT", 1)
        .start()
        .await;
    wait_log(&worker, "errors are reported to Sentry").await;
    let log = worker.logs();
    let said = lines(&log, "reported");
    assert_eq!(said.len(), 1, "{log}");
    assert!(
        said[0].contains("127.0.0.1") && said[0].contains("DISABLE_SENTRY=1 stops this"),
        "{log}"
    );
    assert_eq!(edge.requests_to(CONFIGURATION).len(), 2);
    assert_eq!(edge.requests()[0].header("x-api-key"), "test-key");
    assert_eq!(edge.requests()[0].header("x-api-version"), "1");

    stand.queue.send("no JSON").await;
    until("a report arrives there", SOON, async || {
        !sentry.envelopes().is_empty()
    })
    .await;
}

/// A worker that reports what it gives up, and gives up at once.
fn reporting(stand: &Stand, sentry: &EdgeMock) -> Builder {
    stand
        .worker()
        .env("SENTRY_DSN", sentry.sentry_dsn())
        .env("EDGE_API_URL", sentry.url())
        .env("SERVER_API_KEY", "canary-server-key")
        .env("MAX_RECEIVE_COUNT", 1)
}

const BAD: &str = r#"{"type":"ENTITLEMENTS_UPDATED","canary":1,"payload":{"customerId":"canary-id","entitlements":"canary"}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_report_names_no_customer_and_is_sent_once() {
    let (stand, sentry) = (Stand::start().await, EdgeMock::start().await);
    let worker = reporting(&stand, &sentry)
        .unset("DISABLE_SENTRY")
        .start()
        .await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(stand.queue.send(BAD).await);
    }
    until("all are given up", SOON, async || {
        worker
            .metric("entitlement_sync_messages_dead_lettered_total")
            .await
            == 5.0
    })
    .await;
    // What waits to be sent is sent before it ends.
    worker.term();
    assert_eq!(worker.wait_exit(Duration::from_secs(8)).await, 0);
    let reports = sentry.envelopes().join("\n");
    assert_eq!(
        reports
            .matches(r#""message":"gave up on a message"#)
            .count(),
        1,
        "{reports}"
    );
    assert_eq!(sentry.envelopes().len(), 1, "{reports}");
    assert!(!reports.contains("canary"), "{reports}");
    for id in ids {
        assert!(!reports.contains(&id), "{reports}");
    }
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    assert!(
        host.trim().is_empty() || !reports.contains(host.trim()),
        "{reports}"
    );
    assert_eq!(
        sentry.count(),
        1,
        "the Edge API was asked though SENTRY_DSN is set"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn disable_sentry_makes_no_request_at_all() {
    for value in ["1", "true", "YES"] {
        let (stand, sentry) = (Stand::start().await, EdgeMock::start().await);
        let worker = reporting(&stand, &sentry)
            .env("DISABLE_SENTRY", value)
            .start()
            .await;
        stand.queue.send(BAD).await;
        until("it is given up", SOON, async || {
            worker
                .metric("entitlement_sync_messages_dead_lettered_total")
                .await
                == 1.0
        })
        .await;
        assert!(
            worker.logs().contains("error reports are off"),
            "{}",
            worker.logs()
        );
        worker.term();
        assert_eq!(worker.wait_exit(Duration::from_secs(8)).await, 0);
        assert_eq!(sentry.count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_edge_api_costs_one_warning_and_nothing_else() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let worker = Worker::builder(&redis, &queue)
        .unset("DISABLE_SENTRY")
        .start()
        .await;
    queue.send(&state("acme", 1_000)).await;
    queue.wait_empty(SOON).await;
    wait_log(&worker, "the request for a DSN to the Edge API failed").await;
    let log = worker.logs();
    assert_eq!(lines(&log, " WARN ").len(), 1, "{log}");
    assert!(lines(&log, " ERROR ").is_empty(), "{log}");
    assert_eq!(worker.http("/readyz").await.status, 200);
    worker.term();
    assert_eq!(worker.wait_exit(TWO_SECS).await, 0);
}
