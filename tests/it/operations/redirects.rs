//! A redirect never takes a key to another host.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::stand::{SOON, Stand};
use testkit::{Answer, EdgeMock, until};

const CREDENTIALS: &str = "/v1/credentials/event-queue.json";
const CONFIGURATION: &str = "/v1/config/server-sdk-configuration.json";

fn moved(status: u16, to: &str) -> Answer {
    Answer::text(status, "moved").header("location", to)
}

/// `check --json` or another command, with this Edge API.
async fn run(stand: &Stand, edge: &str, arguments: &[&'static str]) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_entitlement-sync"));
    command
        .args(arguments)
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("QUEUE_URL", &stand.queue.url)
        .env("SERVER_API_KEY", "canary-server-key")
        .env("EDGE_API_URL", edge)
        .env("REDIS_HOST", "127.0.0.1")
        .env("REDIS_PORT", stand.redis.port().to_string());
    let ended = tokio::task::spawn_blocking(move || {
        let outputs = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = outputs.stdin(Stdio::piped()).spawn().unwrap();
        // Of customers, where one is asked for.
        let _ = child.stdin.take().unwrap().write_all(b"acme\n");
        child.wait_with_output().unwrap()
    })
    .await
    .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&ended.stdout), text(&ended.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn check_does_not_follow_the_edge_api_elsewhere_and_says_where_it_leads() {
    let (stand, edge, other) = (
        Stand::start().await,
        EdgeMock::start().await,
        EdgeMock::start().await,
    );
    for status in [301, 302, 303, 307, 308] {
        let to = format!("{}/login?token=canary-token", other.url());
        edge.answer(CONFIGURATION, moved(status, &to));
        let (stdout, _) = run(&stand, &edge.url(), &["check", "--json"]).await;
        let report: Value = serde_json::from_str(&stdout).unwrap();
        let checks = report["checks"].as_array().unwrap();
        let found = checks.iter().find(|it| it["name"] == "edge-api").unwrap();
        let detail = found["detail"].as_str().unwrap();
        assert_eq!(found["status"], "warn", "{found}");
        for part in [
            &status.to_string(),
            other.url().trim_end_matches('/'),
            "EDGE_API_URL",
        ] {
            assert!(detail.contains(part), "{part}: {detail}");
        }
        assert!(!stdout.contains("canary"), "{stdout}");
    }
    // To another path of the host that it came from, and to nowhere.
    edge.answer(CONFIGURATION, moved(302, "/elsewhere"));
    let (stdout, _) = run(&stand, &edge.url(), &["check", "--json"]).await;
    assert!(
        stdout.contains("a redirect to http://127.0.0.1"),
        "{stdout}"
    );
    edge.answer(CONFIGURATION, Answer::text(302, ""));
    let (stdout, _) = run(&stand, &edge.url(), &["check", "--json"]).await;
    assert!(stdout.contains("an unnamed target"), "{stdout}");
    assert_eq!(edge.requests_to("/elsewhere").len(), 0);
    assert_eq!(other.count(), 0, "{:?}", other.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_is_not_loaded_from_where_a_redirect_leads() {
    let (stand, edge, other) = (
        Stand::start().await,
        EdgeMock::start().await,
        EdgeMock::start().await,
    );
    edge.answer("/v1/c/acme/entitlements.json", moved(302, &other.url()));
    let (stdout, stderr) = run(&stand, &edge.url(), &["warm", "--customers", "-"]).await;
    assert_eq!(edge.requests_to("/v1/c/").len(), 1, "{stdout}{stderr}");
    assert_eq!(other.count(), 0, "{:?}", other.requests());
    let said = stdout + &stderr;
    assert!(said.contains("a redirect to"), "{said}");
}

/// Queue credentials, error reports and traces: each carries a secret of its own.
#[tokio::test(flavor = "multi_thread")]
async fn the_worker_follows_no_redirect() {
    let (stand, edge, other) = (
        Stand::start().await,
        EdgeMock::start().await,
        EdgeMock::start().await,
    );
    for path in [CREDENTIALS, "/v1/traces", "/api/1/envelope/"] {
        edge.answer(path, moved(307, &other.url()));
    }
    let worker = stand
        .worker()
        .unset("AWS_ACCESS_KEY_ID")
        .unset("AWS_SECRET_ACCESS_KEY")
        .unset("DISABLE_SENTRY")
        .env("EDGE_API_URL", edge.url())
        .env("SENTRY_DSN", edge.sentry_dsn())
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", edge.url())
        .spawn();
    // That there are no credentials is an error, and so a report.
    until("an error is reported", SOON, async || {
        !edge.envelopes().is_empty() && !edge.requests_to(CREDENTIALS).is_empty()
    })
    .await;
    assert!(worker.logs().contains("a redirect to"), "{}", worker.logs());
    worker.term();
    worker.wait_exit(Duration::from_secs(15)).await;

    // With keys there are batches to trace.
    stand.send("acme", 1_000).await;
    let worker = stand
        .worker()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", edge.url())
        .start()
        .await;
    stand.queue.wait_empty(SOON).await;
    worker.term();
    worker.wait_exit(Duration::from_secs(15)).await;
    assert!(!edge.requests_to("/v1/traces").is_empty());
    assert_eq!(other.count(), 0, "{:?}", other.requests());
}
