//! `/status`, request ids, and what the log says of messages and minutes.

use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};

use testkit::http;
use testkit::redis::Redis;
use testkit::sqs::Sqs;
use testkit::until;
use testkit::worker::{Builder, Worker};

const LIMIT: Duration = Duration::from_secs(30);
/// One for each variable that holds a secret.
const CANARIES: [(&str, &str); 6] = [
    ("SERVER_API_KEY", "canary-server-key"),
    ("AWS_ACCESS_KEY_ID", "AKIACANARY0000000000"),
    ("AWS_SECRET_ACCESS_KEY", "canary/secret+access=key"),
    ("AWS_SESSION_TOKEN", "canary-session-token"),
    ("REDIS_PASSWORD", "canary-redis-password"),
    ("SENTRY_DSN", "http://canarydsn@127.0.0.1:1/1"),
];

fn body(customer: &str, more: Value) -> String {
    let mut body = json!({
        "type": "entitlements.updated",
        "timestamp": "2025-11-14T19:59:45.200Z",
        "customerId": customer,
        "entitlements": [],
    });
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body.to_string()
}

fn with_canaries(mut builder: Builder) -> Builder {
    for (name, value) in CANARIES {
        builder = builder.env(name, value);
    }
    builder.env("DISABLE_SENTRY", "0")
}

fn assert_no_canary(what: &str, text: &str) {
    for (name, value) in CANARIES {
        for spelling in [value, value.trim_start_matches("http://")] {
            assert!(!text.contains(spelling), "{what} holds {name}:\n{text}");
        }
    }
    assert!(!text.contains("canarydsn"), "{what} holds the DSN's key");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_all_but_secrets_and_moves() {
    let redis = Redis::start_with(&["--requirepass", "canary-redis-password"]).await;
    let sqs = Sqs::start().await;
    let queue = sqs.queue("status").await;
    let worker = with_canaries(Worker::builder(&redis, &queue))
        .env("LOG_LEVEL", "trace")
        .start()
        .await;
    until("the settings are known", LIMIT, async || {
        !worker.http("/status").await.json()["queue"]["depth"].is_null()
    })
    .await;
    let reply = worker.http("/status").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(reply.header("cache-control"), "no-store");
    let before = reply.json();
    assert_eq!(before["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(before["data_layout"], "sdk-3");
    assert!(before["uptime_secs"].as_u64().unwrap() < 60);
    assert_eq!(
        (&before["status"], &before["redis"]),
        (&json!("UP"), &json!("CONNECTED"))
    );
    assert_eq!(before["redis_version"], redis.info("redis_version"));
    assert_eq!(before["queue"]["visibility_timeout_secs"], 30);
    assert_eq!(before["queue"]["redrive_after"], Value::Null);
    assert_eq!(
        before["queue"]["depth"],
        json!({"visible": 0, "in_flight": 0, "delayed": 0})
    );
    assert_eq!(before["lag"]["p50_ms"], Value::Null);
    assert_eq!(before["counters"]["applied"], 0);
    assert_eq!(before["history"], json!([]));
    let configuration = before["configuration"].as_object().unwrap();
    assert_eq!(configuration["CONSUMERS"], "2");
    assert_eq!(configuration["ENVIRONMENT_PREFIX"], "production");

    queue
        .send_all((0..20).map(|at| body(&format!("canary-customer-{at}"), json!({}))))
        .await;
    queue.send("canary: no JSON").await;
    until("the numbers move", LIMIT, async || {
        let counters = &worker.http("/status").await.json()["counters"];
        counters["acknowledged"] == 20 && counters["invalid"].as_u64() > Some(0)
    })
    .await;
    let after = worker.http("/status").await.json();
    assert_eq!(after["counters"]["applied"], 20);
    assert!(after["lag"]["messages"].as_u64().unwrap() >= 21);
    assert!(after["lag"]["p50_ms"].is_u64() && after["lag"]["p99_ms"].is_u64());
    assert!(after["history"][0]["messages"].as_u64() > Some(0));
    let states = after["consumer_states"].as_array().unwrap();
    assert_eq!(states.len(), 2);
    let worked: u64 = states
        .iter()
        .map(|it| it["messages"].as_u64().unwrap())
        .sum();
    assert!(worked >= 21);
    let refusal = &after["recent_errors"][0];
    assert_eq!(refusal["level"], "WARN");
    assert!(
        refusal["message"]
            .as_str()
            .unwrap()
            .contains("cannot apply a message")
    );

    // An outage is in it, and the reason.
    redis.kill();
    worker.wait_unready().await;
    let down = worker.http("/status").await;
    assert_eq!(down.status, 200, "it is no probe");
    let state = down.json();
    assert_eq!(
        (&state["status"], &state["redis"]),
        (&json!("DOWN"), &json!("DISCONNECTED"))
    );
    assert!(
        state["unready_reason"]
            .as_str()
            .unwrap()
            .starts_with("redis: ")
    );
    assert_eq!(state["recent_errors"][0]["level"], "WARN");

    for path in ["/status", "/", "/metrics", "/readyz?verbose"] {
        let text = worker.http(path).await.body;
        assert_no_canary(path, &text);
        assert!(
            !text.contains("canary-customer"),
            "{path} names a customer:\n{text}"
        );
    }
    assert_no_canary("the log at trace", &worker.logs());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_is_echoed_or_made() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("ids").await;
    let worker = Worker::builder(&redis, &queue)
        .env("LOG_LEVEL", "debug")
        .start()
        .await;
    let ask = async |path: &str, id: Option<&[u8]>| {
        let mut request = Request::get(path).header("host", "localhost");
        if let Some(id) = id {
            request = request.header("x-request-id", id);
        }
        let request = request.body(Full::default()).unwrap();
        let reply = http::send(worker.port(), request).await.unwrap();
        String::from_utf8(reply.headers()["x-request-id"].as_bytes().to_vec()).unwrap()
    };
    let longest = "x".repeat(128);
    for good in ["abc-123", "!#$%&'*+-.^_`|~{}", longest.as_str()] {
        for path in ["/livez", "/readyz", "/metrics", "/status", "/", "/nowhere"] {
            assert_eq!(ask(path, Some(good.as_bytes())).await, good, "{path}");
        }
    }
    let too_long = "x".repeat(129);
    let bad: [&[u8]; 5] = [
        b"",
        b"two words",
        b"tab\tbed",
        "é".as_bytes(),
        too_long.as_bytes(),
    ];
    for bad in bad {
        let made = ask("/livez", Some(bad)).await;
        assert!(is_made(&made), "{made}");
    }
    let (one, other) = (ask("/livez", None).await, ask("/livez", None).await);
    assert!(is_made(&one) && is_made(&other) && one != other);
    assert!(worker.logs().contains("abc-123"), "it is in the log");
}

fn is_made(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The lines of a JSON log that say this.
fn lines(worker: &Worker, message: &str) -> Vec<Value> {
    worker
        .logs()
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line)
                .unwrap_or_else(|error| panic!("{error} in the line {line}"))
        })
        .filter(|line| line["message"] == message)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_json_names_what_became_of_a_message_and_sums_up_each_minute() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("log").await;
    let worker = Worker::builder(&redis, &queue)
        .unset("LOG_FORMAT")
        .env("LOG_LEVEL", "debug")
        .start()
        .await;
    let quiet = Worker::builder(&redis, &sqs.queue("quiet").await)
        .unset("LOG_FORMAT")
        .start()
        .await;

    let traced = queue
        .send(&body("acme", json!({"traceId": "trace-of-the-body"})))
        .await;
    let by_header = aws_trace(&sqs, &queue.url).await;
    queue.wait_empty(LIMIT).await;
    let done = lines(&worker, "done");
    for (id, trace) in [
        (&traced, "trace-of-the-body"),
        (&by_header, "Root=1-5759e988-bd862e3fe1be46a994272793"),
    ] {
        let line = done
            .iter()
            .find(|line| line["message_id"] == **id)
            .unwrap_or_else(|| panic!("no line for {id} in {done:?}"));
        assert_eq!(line["level"], "DEBUG");
        assert_eq!(line["kind"], "entitlements_updated");
        assert_eq!(line["outcome"], "applied");
        assert_eq!(line["receive_count"], 1);
        assert!(line["lag_ms"].as_u64().unwrap() < 30_000);
        assert_eq!(line["trace_id"], trace);
        assert!(line["timestamp"].is_string() && line["target"].is_string());
    }
    for customer in ["acme", "beta"] {
        assert!(
            !worker.logs().contains(customer),
            "{customer} is in the log"
        );
    }

    // Nothing but the clock brings it about.
    until(
        "the minute is summed up",
        Duration::from_secs(75),
        async || !lines(&worker, "summary of the last minute").is_empty(),
    )
    .await;
    let minute = &lines(&worker, "summary of the last minute")[0];
    assert_eq!(minute["level"], "INFO");
    assert_eq!(
        (&minute["received"], &minute["applied"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(minute["consumers"], 2);
    assert!(minute["lag_p50_ms"].is_u64() && minute["lag_p99_ms"].is_u64());
    assert!(
        lines(&quiet, "done").is_empty(),
        "no line for each message at info"
    );
}

/// A message with a trace header of X-Ray, as a producer in AWS sends it.
async fn aws_trace(sqs: &Sqs, url: &str) -> String {
    use aws_sdk_sqs::types::{
        MessageSystemAttributeNameForSends as Name, MessageSystemAttributeValue as Header,
    };
    let header = Header::builder()
        .data_type("String")
        .string_value("Root=1-5759e988-bd862e3fe1be46a994272793")
        .build()
        .unwrap();
    let request = sqs
        .client()
        .send_message()
        .queue_url(url)
        .message_body(body("beta", json!({})))
        .message_system_attributes(Name::AwsTraceHeader, header);
    request.send().await.unwrap().message_id.unwrap()
}
