//! `check`, `config`, `completions` and `--version`, as a person uses them.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use entitlement_sync::config::{Need, VARIABLES};
use serde_json::{Value, json};

use crate::redis::tls;
use crate::stand::{SOON, Stand};
use testkit::aws::Sts;
use testkit::certs::Certs;
use testkit::https::{Authority, TlsFront};
use testkit::{Answer, EdgeMock, Fault, Redis, free_port, repo, until};

const ALL: [&str; 21] = [
    "configuration",
    "region",
    "queue-dns",
    "queue-link",
    "clock",
    "credentials",
    "identity",
    "queue",
    "right-receive",
    "right-delete",
    "right-visibility",
    "visibility-timeout",
    "redrive-policy",
    "redis-dns",
    "redis-link",
    "redis-writes",
    "redis-version",
    "redis-eviction",
    "redis-data",
    "redis-layout",
    "edge-api",
];

#[derive(Clone)]
struct Caller(BTreeMap<String, String>);

struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout, self.stderr))
    }
}

impl Caller {
    /// Between a queue and a Redis, and an Edge API that knows the key.
    fn new(stand: &Stand, edge: &EdgeMock) -> Caller {
        edge.answer(
            "/v1/config/server-sdk-configuration.json",
            Answer::json(
                200,
                &json!({"data": {"sdkConfiguration": {"sentryDsn": null}}}),
            ),
        );
        Caller(BTreeMap::new())
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "canary-secret")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("HOME", "/nonexistent")
            .env("QUEUE_URL", &stand.queue.url)
            .env("AWS_ENDPOINT_URL_SQS", stand.calls.url())
            .env("SERVER_API_KEY", "canary-server-key")
            .env("EDGE_API_URL", edge.url())
            .env("REDIS_HOST", "127.0.0.1")
            .env("REDIS_PORT", stand.redis.port())
    }

    fn env(mut self, name: &str, value: impl ToString) -> Caller {
        self.0.insert(name.to_owned(), value.to_string());
        self
    }

    fn without(mut self, name: &str) -> Caller {
        self.0.remove(name);
        self
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        let output = self.command(arguments).output().unwrap();
        Ended {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_entitlement-sync"));
        command.args(arguments).env_clear().envs(&self.0);
        command
    }

    /// Runs `check --json` in a thread, since the servers of the test answer meanwhile.
    async fn check(&self) -> Found {
        self.check_with(&["check", "--json"]).await
    }

    async fn check_with(&self, arguments: &'static [&'static str]) -> Found {
        let caller = self.clone();
        let run = move || caller.run(arguments);
        let ended = tokio::task::spawn_blocking(run).await.unwrap();
        let report = ended.json();
        assert_eq!(
            report["ok"].as_bool(),
            Some(ended.code == Some(0)),
            "{report}"
        );
        assert!(!ended.stdout.contains("canary"), "{}", ended.stdout);
        assert!(ended.stderr.is_empty(), "{}", ended.stderr);
        Found {
            code: ended.code,
            checks: report["checks"].as_array().unwrap().clone(),
        }
    }
}

struct Found {
    code: Option<i32>,
    checks: Vec<Value>,
}

impl Found {
    fn names(&self) -> Vec<&str> {
        self.checks
            .iter()
            .map(|check| check["name"].as_str().unwrap())
            .collect()
    }

    fn of(&self, name: &str) -> &Value {
        let found = self.checks.iter().find(|check| check["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {:?}", self.names()))
    }

    /// That it has this status, says this, and advises what has this in it (nothing: no advice).
    fn is(&self, name: &str, status: &str, says: &str, advises: &str) {
        let check = self.of(name);
        let text = |field: &str| check[field].as_str().unwrap_or_default();
        assert_eq!(text("status"), status, "{check}");
        assert!(text("detail").contains(says), "{check}");
        assert!(text("advice").contains(advises), "{check}");
        assert_eq!(check["advice"].is_null(), status == "pass", "{check}");
    }

    /// That it failed, and that what to do is in the finding alone.
    fn advises_in_its_text(&self, name: &str, says: &str) {
        let check = self.of(name);
        let detail = check["detail"].as_str().unwrap_or_default();
        assert!(
            check["status"] == "fail" && detail.contains(says),
            "{check}"
        );
        assert!(check["advice"].is_null(), "{check}");
    }

    /// That nothing else failed.
    fn only_fails(&self, names: &[&str]) {
        let failed = self.checks.iter().filter(|check| check["status"] == "fail");
        let failed: Vec<&str> = failed
            .map(|check| check["name"].as_str().unwrap())
            .collect();
        assert_eq!(failed, names, "{:#?}", self.checks);
        assert_eq!(self.code, Some(i32::from(!names.is_empty())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_looked_at_and_nothing_is_touched() {
    let (stand, edge, sts) = (
        Stand::start().await,
        EdgeMock::start().await,
        Sts::start().await,
    );
    stand.redis.set("production:c_acme", "{}");
    stand.redis.set("other", "1");
    stand.send("acme", 1_000).await;
    let before = stand.redis.dump("");
    let found = Caller::new(&stand, &edge)
        .env("AWS_ENDPOINT_URL_STS", sts.url())
        .check()
        .await;
    found.only_fails(&[]);
    assert_eq!(found.names(), ALL);
    found.is("credentials", "pass", "keys in the environment", "");
    found.is("identity", "pass", "assumed-role/sync/here", "");
    found.is("queue", "pass", "about 1 messages", "");
    found.is("visibility-timeout", "pass", "30 s", "");
    found.is("redrive-policy", "warn", "none", "dead-letter queue");
    found.is(
        "redis-version",
        "pass",
        &stand.redis.info("redis_version"),
        "",
    );
    found.is("redis-data", "pass", "customers are cached", "");
    found.is("edge-api", "pass", "accepts the key", "");
    assert_eq!(edge.requests()[0].header("x-api-key"), "canary-server-key");

    // The next receive returns the message, as if there had been none before.
    let messages = stand.queue.receive_all().await;
    assert_eq!(messages.len(), 1);
    let attributes = messages[0].attributes.as_ref().unwrap();
    let count = aws_sdk_sqs::types::MessageSystemAttributeName::ApproximateReceiveCount;
    assert_eq!(attributes[&count], "1");
    assert_eq!(stand.redis.dump(""), before);
    // No call but these, and none that could succeed.
    for (action, field, value) in [
        ("ReceiveMessage", "MaxNumberOfMessages", json!(0)),
        (
            "DeleteMessage",
            "ReceiptHandle",
            json!("entitlement-sync-check"),
        ),
        (
            "ChangeMessageVisibility",
            "ReceiptHandle",
            json!("entitlement-sync-check"),
        ),
    ] {
        let bodies = stand.calls.bodies(action);
        assert_eq!(bodies.len(), 1, "{action}");
        assert_eq!(bodies[0][field], value);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_get_a_table_and_what_to_do() {
    let (stand, edge) = (Stand::start().await, EdgeMock::start().await);
    let caller = Caller::new(&stand, &edge).env("REDIS_HOTS", "x");
    let ended = {
        let caller = caller.clone();
        tokio::task::spawn_blocking(move || caller.run(&["check"]))
            .await
            .unwrap()
    };
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let text = &ended.stdout;
    let line = |start: &str| {
        let line = text.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("no {start} in {text}"))
    };
    assert!(line("CHECK").contains("FOUND"));
    assert!(line("configuration").contains("did you mean REDIS_HOST?"));
    assert!(line("redis-link").contains("pass") && line("redis-link").contains("answers"));
    assert!(line("redis-data").contains("warn"));
    assert!(line("  warn redis-data:").contains("ENVIRONMENT_PREFIX"));
    assert!(text.contains("0 failed"), "{text}");
    assert!(
        !text.contains('\u{1b}'),
        "colours without a terminal: {text:?}"
    );
    assert!(!text.contains("canary"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_named() {
    let (stand, edge) = (Stand::start().await, EdgeMock::start().await);
    let found = Caller::new(&stand, &edge)
        .env("REDIS_PORT", 1)
        .env("EDGE_API_URL", "http://127.0.0.1:1")
        .check()
        .await;
    found.only_fails(&["redis-link"]);
    found.is("redis-link", "fail", "Connection refused", "REDIS_HOST");
    found.is("edge-api", "warn", "not reachable", "EDGE_API_URL");

    let found = Caller::new(&stand, &edge)
        .env("REDIS_HOST", "nowhere.invalid")
        .env("AWS_ENDPOINT_URL_SQS", "http://nowhere.invalid:1")
        .check()
        .await;
    found.only_fails(&[
        "queue-dns",
        "queue-link",
        "queue",
        "redis-dns",
        "redis-link",
    ]);
    found.is("queue-dns", "fail", "nowhere.invalid", "QUEUE_URL");
    found.is("redis-dns", "fail", "nowhere.invalid", "REDIS_HOST");

    let found = Caller::new(&stand, &edge)
        .env("QUEUE_URL", format!("{}-gone", stand.queue.url))
        .check()
        .await;
    found.only_fails(&["queue"]);
    found.is("queue", "fail", "does not exist", "QUEUE_URL");

    edge.answer(
        "/v1/config/server-sdk-configuration.json",
        Answer::text(401, "no"),
    );
    let found = Caller(Caller::new(&stand, &EdgeMock::start().await).0)
        .env("EDGE_API_URL", edge.url())
        .check()
        .await;
    found.only_fails(&[]);
    found.is(
        "edge-api",
        "warn",
        "SERVER_API_KEY was refused",
        "SERVER_API_KEY",
    );
}

/// Whatever hangs, it ends.
#[tokio::test(flavor = "multi_thread")]
async fn what_hangs_is_not_waited_for() {
    let (stand, edge) = (Stand::start().await, EdgeMock::start().await);
    let caller = Caller::new(&stand, &edge);
    edge.answer("/v1/config/server-sdk-configuration.json", Answer::hang());
    stand.redis.freeze();
    stand.calls.always("GetQueueAttributes", Fault::Hang);
    let started = Instant::now();
    let found = caller.check().await;
    // As the help promises.
    assert!(started.elapsed() < Duration::from_secs(60));
    found.only_fails(&["queue", "redis-link"]);
    found.is("queue", "fail", "timed out", "network");
    found.is("redis-link", "fail", "in time", "REDIS_HOST");
    found.is("edge-api", "warn", "", "EDGE_API_URL");
    stand.redis.thaw();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_right_in_aws_is_told_apart() {
    let (stand, edge) = (Stand::start().await, EdgeMock::start().await);
    let caller = Caller::new(&stand, &edge);
    for (action, name) in [
        ("ReceiveMessage", "right-receive"),
        ("DeleteMessage", "right-delete"),
        ("ChangeMessageVisibility", "right-visibility"),
    ] {
        stand.calls.always(action, Fault::access_denied());
        let found = caller.check().await;
        found.only_fails(&[name]);
        found.is(
            name,
            "fail",
            &format!("sqs:{action} is denied"),
            &format!("allow sqs:{action}"),
        );
        stand.calls.clear(action);
    }
    // This one the worker does without.
    stand
        .calls
        .always("GetQueueAttributes", Fault::access_denied());
    let found = caller.check().await;
    found.only_fails(&[]);
    found.is("queue", "warn", "assumes", "allow sqs:GetQueueAttributes");
    found.is("right-receive", "pass", "", "");
    stand.calls.clear("GetQueueAttributes");
    stand
        .calls
        .always("GetQueueAttributes", Fault::expired_token());
    let found = caller.check().await;
    found.only_fails(&["queue"]);
    found.is("queue", "fail", "credentials have expired", "never renewed");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_we_are_is_asked_of_sts_where_it_answers() {
    let (stand, edge, sts) = (
        Stand::start().await,
        EdgeMock::start().await,
        Sts::start().await,
    );
    let caller = Caller::new(&stand, &edge);
    // A local queue, and no STS named: its keys are shown to nobody else.
    let found = caller.check().await;
    assert!(!found.names().contains(&"identity"));
    let found = caller
        .clone()
        .env("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")
        .check()
        .await;
    found.only_fails(&[]);
    found.is("identity", "warn", "STS does not answer", "STS");
    sts.refuse(
        "InvalidClientTokenId",
        "The security token included in the request is invalid.",
    );
    let caller = caller.env("AWS_ENDPOINT_URL_STS", sts.url());
    let found = caller.check().await;
    found.only_fails(&["identity"]);
    found.is("identity", "fail", "InvalidClientTokenId", "AWS variables");
    // Not an STS at all.
    sts.refuse("InvalidAction", "no such action here");
    let found = caller.check().await;
    found.only_fails(&[]);
    found.is("identity", "warn", "InvalidAction", "STS");
    // Nothing to begin with.
    let caller = caller
        .without("AWS_ACCESS_KEY_ID")
        .without("AWS_SECRET_ACCESS_KEY");
    let found = caller.check().await;
    found.only_fails(&["credentials"]);
    found.is("credentials", "fail", "404", "docs/aws.md");
    // A role that may not be taken on.
    sts.refuse("AccessDenied", "not authorized to perform sts:AssumeRole");
    let found = caller
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "canary")
        .env(
            "SQS_ROLE_ARN",
            "arn:aws:iam::123456789012:role/entitlements",
        )
        .check()
        .await;
    found.only_fails(&["credentials"]);
    found.is(
        "credentials",
        "fail",
        "not authorized to perform sts:AssumeRole",
        "role",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_is_noticed_before_aws_does() {
    let (stand, edge) = (Stand::start().await, EdgeMock::start().await);
    let caller = Caller::new(&stand, &edge);
    for (skew, status, says) in [
        (0, "pass", "within"),
        (120, "warn", "behind"),
        (-120, "warn", "ahead"),
        (3600, "fail", "5 minutes"),
    ] {
        stand.calls.skew(skew);
        let found = caller.check().await;
        let advises = if status == "pass" { "" } else { "NTP" };
        found.is("clock", status, says, advises);
        assert_eq!(found.code, Some(i32::from(status == "fail")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_set_badly_is_warned_of() {
    let dead = [("VisibilityTimeout", "5")];
    let stand = Stand::start_with(
        &["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"],
        &dead,
    )
    .await;
    let edge = EdgeMock::start().await;
    let found = Caller::new(&stand, &edge).check().await;
    found.only_fails(&[]);
    found.is("visibility-timeout", "warn", "5 s", "30 to 60 s");
    found.is("redis-eviction", "warn", "allkeys-lru", "volatile-ttl");
    found.is("redis-data", "warn", "no customer", "ENVIRONMENT_PREFIX");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_that_refuses_us_says_why() {
    let (stand, edge) = (
        Stand::start_with(&["--requirepass", "canary"], &[]).await,
        EdgeMock::start().await,
    );
    let caller = Caller::new(&stand, &edge);
    let found = caller.check().await;
    found.only_fails(&["redis-link"]);
    found.is("redis-link", "fail", "NOAUTH", "REDIS_PASSWORD");
    let found = caller.clone().env("REDIS_PASSWORD", "wrong").check().await;
    found.only_fails(&["redis-link"]);
    found.is("redis-link", "fail", "WRONGPASS", "REDIS_PASSWORD");

    // As documented, and not a right more: it passes. A right less, and it is named.
    let rights = "~production:* ~production-* +ping +info +client|id +client|setname +select +eval +evalsha +get +mget +set +del +xadd";
    let sync = caller
        .env("REDIS_USER", "sync")
        .env("REDIS_PASSWORD", "canary-pass");
    let grant = |rights: &str| {
        let mut command = vec!["ACL", "SETUSER", "sync", "reset", "on", ">canary-pass"];
        command.extend(rights.split(' '));
        stand.redis.cmd(&command);
    };
    grant(rights);
    let found = sync.check().await;
    found.only_fails(&[]);
    found.is("redis-link", "pass", "as sync", "");
    found.is("redis-writes", "pass", "", "");
    found.is("redis-data", "pass", "not tested: NOPERM", "");
    found.is("redis-layout", "pass", "not tested: NOPERM", "");
    grant(&rights.replace(" +set", ""));
    let found = sync.check().await;
    found.only_fails(&["redis-writes"]);
    found.is("redis-writes", "fail", "NOPERM", "docs/operations.md");
    grant(&rights.replace("~production:*", "~staging:*"));
    let found = sync.check().await;
    found.only_fails(&["redis-writes"]);
    assert!(stand.redis.dump("").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_error_itself_advises_is_not_contradicted() {
    for command in ["GET", "MGET", "SET", "DEL"] {
        let renamed = ["--rename-command", command, ""];
        let (stand, edge) = (
            Stand::start_with(&renamed, &[]).await,
            EdgeMock::start().await,
        );
        let found = Caller::new(&stand, &edge).check().await;
        found.advises_in_its_text("redis-writes", "remove rename-command of GET, MGET, SET");
    }

    let (stand, edge, certs) = (Stand::start().await, EdgeMock::start().await, Certs::new());
    certs.signed("server", "IP:127.0.0.1");
    certs.signed("named", "DNS:redis.test");
    certs.expired("old", "IP:127.0.0.1");
    let of = |port: u16, ca: &str| {
        Caller::new(&stand, &edge)
            .env("REDIS_PORT", port)
            .env("REDIS_TLS", 1)
            .env("REDIS_TLS_CA_FILE", certs.file(ca))
    };
    let strict = tls::server(&certs, "server", "yes").await;
    let found = of(strict.port, "ca.pem").check().await;
    found.advises_in_its_text(
        "redis-link",
        "set REDIS_TLS_CERT_FILE and REDIS_TLS_KEY_FILE",
    );
    let old = of(strict.port, "ca.pem")
        .env("REDIS_TLS_CERT_FILE", certs.file("old.pem"))
        .env("REDIS_TLS_KEY_FILE", certs.file("old.key"));
    let found = old.check().await;
    found.advises_in_its_text("redis-link", "our client certificate has expired: check");
    let named = tls::server(&certs, "named", "no").await;
    let found = of(named.port, "ca.pem").check().await;
    found.advises_in_its_text("redis-link", "set REDIS_TLS_SERVER_NAME");
    certs.authority("other");
    let found = of(named.port, "other.pem").check().await;
    found.advises_in_its_text("redis-link", "set REDIS_TLS_CA_FILE");
    let expired = tls::server(&certs, "old", "no").await;
    let found = of(expired.port, "ca.pem").check().await;
    found.is(
        "redis-link",
        "fail",
        "the certificate of Redis has expired",
        "renew",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_told_from_its_primary() {
    let (stand, edge) = (Stand::start().await, EdgeMock::start().await);
    let port = stand.redis.port().to_string();
    let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &port]).await;
    testkit::until("it follows", Duration::from_secs(20), async || {
        replica.info("master_link_status") == "up"
    })
    .await;
    let found = Caller::new(&stand, &edge)
        .env("REDIS_PORT", replica.port())
        .check()
        .await;
    found.only_fails(&["redis-writes"]);
    found.is("redis-writes", "fail", "READONLY", "primary");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_knows_is_named() {
    let (stand, edge) = (Stand::start().await, EdgeMock::start().await);
    let authority = Authority::new();
    let port = stand
        .calls
        .url()
        .rsplit_once(':')
        .unwrap()
        .1
        .parse()
        .unwrap();
    let front = TlsFront::start(&authority, port).await;
    let caller = Caller::new(&stand, &edge).env("AWS_ENDPOINT_URL_SQS", front.url());
    let found = caller.check().await;
    found.only_fails(&["queue-link", "queue"]);
    found.is("queue-link", "fail", "UnknownIssuer", "AWS_CA_BUNDLE");
    let found = caller
        .env("AWS_CA_BUNDLE", authority.file().display())
        .check()
        .await;
    found.only_fails(&[]);
    found.is("queue-link", "pass", "certificate is trusted", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_seen_enough_is_no_failure() {
    let (stand, edge) = (Stand::start().await, EdgeMock::start().await);
    let caller = Caller::new(&stand, &edge);
    for arguments in [&["check"][..], &["config"], &["config", "--json"]] {
        let mut command = caller.command(arguments);
        let ended = tokio::task::spawn_blocking(move || {
            let mut child = command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            drop(child.stdout.take());
            child.wait_with_output().unwrap()
        });
        let ended = ended.await.unwrap();
        assert_eq!(ended.status.code(), Some(0), "{arguments:?}");
        assert!(ended.stderr.is_empty(), "{arguments:?}");
    }
}

fn alone() -> Caller {
    Caller(BTreeMap::new())
        .env("AWS_REGION", "us-east-1")
        .env(
            "QUEUE_URL",
            "https://sqs.us-east-1.amazonaws.com/123456789012/q",
        )
        .env("SERVER_API_KEY", "canary-server-key")
        .env("REDIS_HOST", "redis")
}

#[test]
fn the_configuration_is_shown_with_where_it_is_from() {
    let caller = alone()
        .env("REDIS_ENVIRONMENT_PREFIX", "staging")
        .env("BATCH_SIZE", "10")
        .env("https_proxy", "http://user:canary@proxy:3128")
        .env("REDIS_PASSWORD", "canary")
        .env("CONSUMER", "4");
    let ended = caller.run(&["config"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert!(!ended.stdout.contains("canary"), "{}", ended.stdout);
    let line = |start: &str| -> Vec<String> {
        let line = ended.stdout.lines().find(|line| line.starts_with(start));
        let line = line.unwrap_or_else(|| panic!("no {start} in {}", ended.stdout));
        line.split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(line("BATCH_SIZE"), ["BATCH_SIZE", "10", "environment"]);
    assert_eq!(line("CONSUMERS"), ["CONSUMERS", "10", "default"]);
    assert_eq!(
        line("ENVIRONMENT_PREFIX"),
        [
            "ENVIRONMENT_PREFIX",
            "staging",
            "alias REDIS_ENVIRONMENT_PREFIX"
        ]
    );
    assert_eq!(
        line("REDIS_PASSWORD"),
        ["REDIS_PASSWORD", "set", "environment"]
    );
    assert_eq!(
        line("HTTPS_PROXY"),
        ["HTTPS_PROXY", "http://proxy:3128/", "alias https_proxy"]
    );
    let last = ended.stdout.lines().last().unwrap();
    assert!(
        last.starts_with("warning CONSUMER ") && last.contains("CONSUMERS?"),
        "{last}"
    );

    let report = caller.run(&["config", "--json"]).json();
    let of = |name: &str| {
        let variables = report["variables"].as_array().unwrap();
        variables
            .iter()
            .find(|it| it["name"] == name)
            .cloned()
            .unwrap_or_default()
    };
    assert_eq!(
        of("BATCH_SIZE"),
        json!({"name": "BATCH_SIZE", "value": "10", "origin": "environment"})
    );
    assert_eq!(of("SERVER_API_KEY")["value"], "set");
    assert_eq!(report["warnings"].as_array().unwrap().len(), 1);
    assert_eq!(report["errors"], json!([]));
    for variable in VARIABLES {
        if let Need::Default(_) = variable.need {
            assert!(!of(variable.name).is_null(), "{}", variable.name);
        }
    }
}

#[test]
fn a_wrong_configuration_is_said_whole_with_its_exit_code() {
    let wrong = alone()
        .env("BATCH_SIZE", "99")
        .env("AWS_REGION", "eu-west-1")
        .env("SQS_ROLE_EXTERNAL_ID", "x")
        .env("HTTPS_PROXY", "socks5://canary@proxy")
        .env("AWS_CA_BUNDLE", "/nonexistent.pem");
    let names = [
        "BATCH_SIZE",
        "AWS_REGION",
        "SQS_ROLE_EXTERNAL_ID",
        "HTTPS_PROXY",
        "AWS_CA_BUNDLE",
    ];
    for arguments in [
        &["config"][..],
        &["config", "--json"],
        &["check"],
        &["check", "--json"],
    ] {
        let ended = wrong.run(arguments);
        assert_eq!(ended.code, Some(78), "{arguments:?}");
        assert!(
            ended.stderr.contains("5 configuration errors"),
            "{}",
            ended.stderr
        );
        for name in names {
            assert!(
                ended.stderr.contains(&format!("\n  {name} ")),
                "{name}: {}",
                ended.stderr
            );
        }
        assert!(!ended.stderr.contains("canary"), "{}", ended.stderr);
    }
    let report = wrong.run(&["config", "--json"]).json();
    assert_eq!(report["errors"].as_array().unwrap().len(), names.len());
    let half = alone().env("SQS_ROLE_ARN", "entitlements").run(&["config"]);
    assert!(
        half.stderr
            .contains("SQS_ROLE_ARN is \"entitlements\": write the whole ARN"),
        "{}",
        half.stderr
    );
}

#[test]
fn help_teaches() {
    let bare = Caller(BTreeMap::new());
    let help = bare.run(&["--help"]).stdout;
    for name in ["check", "config", "completions", "healthcheck"] {
        assert!(help.contains(&format!("\n  {name} ")), "{help}");
    }
    for (command, parts) in [
        (
            "check",
            ["Receives no messages", "Examples:", "Exit codes:", "--json"],
        ),
        (
            "config",
            ["secrets hidden", "Examples:", "Exit codes:", "--json"],
        ),
    ] {
        let ended = bare.run(&[command, "--help"]);
        assert_eq!(ended.code, Some(0));
        for part in parts {
            assert!(ended.stdout.contains(part), "{command}: {}", ended.stdout);
        }
    }
    let ended = bare.run(&["chekc"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("'check'"), "{}", ended.stderr);
    assert_eq!(bare.run(&["check", "--jsn"]).code, Some(2));
}

#[test]
fn every_shell_has_its_completions() {
    let bare = Caller(BTreeMap::new());
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ended = bare.run(&["completions", shell]);
        assert_eq!(
            (ended.code, ended.stderr.as_str()),
            (Some(0), ""),
            "{shell}"
        );
        for word in ["entitlement-sync", "check", "config"] {
            assert!(ended.stdout.contains(word), "{shell}: {}", ended.stdout);
        }
    }
    let ended = bare.run(&["completions", "tcsh"]);
    assert_eq!(ended.code, Some(2));
    assert!(
        ended.stderr.contains("bash, elvish, fish, powershell, zsh"),
        "{}",
        ended.stderr
    );
    // It is a script that bash can read.
    let script = bare.run(&["completions", "bash"]).stdout;
    let read = Command::new("bash")
        .args(["-n", "-c", &script])
        .output()
        .unwrap();
    assert!(read.status.success() && read.stderr.is_empty());
}

#[test]
fn the_version_names_the_layout_of_the_data() {
    let ended = Caller(BTreeMap::new()).run(&["--version"]);
    let expected = format!(
        "entitlement-sync {} (data layout {})\n",
        env!("CARGO_PKG_VERSION"),
        entitlement_sync::version::DATA_LAYOUT
    );
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), expected.as_str())
    );
}

/// docs/commands.md has every check, and every exit code that there is a word for.
#[test]
fn the_commands_are_documented_as_they_are() {
    let text = std::fs::read_to_string(repo("docs/commands.md")).unwrap();
    for name in ALL {
        assert!(text.contains(&format!("`{name}`")), "{name}");
    }
    for code in [0, 1, 2, 66, 69, 70, 77, 78] {
        assert!(text.contains(&format!("\n| {code} |")), "{code}");
    }
}

/// As the vendor's store 1.29.0 writes a customer.
const NEWER: &str = r#"{"sso":{"calculatedEntitlement":{"type":"FEATURE","feature":{"id":"sso","featureType":"BOOLEAN"}},"usageData":{"currentUsage":0}}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_that_is_newer_than_ours_is_found_by_check_and_at_the_start_of_the_worker() {
    let (stand, edge) = (Stand::start().await, EdgeMock::start().await);
    let caller = Caller::new(&stand, &edge);
    // Ours, and what merely speaks of the other.
    for n in 0..150 {
        let ours = r#"{"sso":{"calculatedEntitlement":{"accessDeniedReason":"\"usageData\":{"},"featureUsage":{}}}"#;
        stand.redis.set(&format!("production:c_ours-{n}"), ours);
        stand
            .redis
            .set(&format!("production:c_ours-{n}:metadata"), "{}");
    }
    let found = caller.check().await;
    found.is("redis-layout", "pass", "100 customers sampled, none", "");
    stand.redis.cmd(&["FLUSHALL"]);
    stand.redis.set("production:c_ours", "{}");
    stand.redis.set("production:c_theirs", NEWER);
    stand.redis.set("production:c_theirs:r_site", NEWER);
    stand.redis.set("other:c_theirs", NEWER);
    let found = caller.check().await;
    found.only_fails(&[]);
    found.is(
        "redis-layout",
        "warn",
        "2 of 3 customers are in the layout of SDK 4.12 and later",
        "CACHE_UPDATE_POLICY=INVALIDATE",
    );
    let invalidate = caller.env("CACHE_UPDATE_POLICY", "INVALIDATE");
    let found = invalidate.check().await;
    found.is("redis-layout", "pass", "INVALIDATE leaves to SDKs", "");

    const LINE: &str = "customers in Redis are in the layout of SDK 4.12 and later";
    let worker = stand.worker().start().await;
    until("the worker warns", SOON, async || {
        worker.logs().contains(LINE)
    })
    .await;
    let policy = ("CACHE_UPDATE_POLICY", "INVALIDATE");
    let silent = stand.worker().env(policy.0, policy.1).start().await;
    stand.send("acme", 1).await;
    assert!(!silent.logs().contains(LINE));
}

/// What `serve` needs, without a queue.
#[tokio::test(flavor = "multi_thread")]
async fn what_serve_needs_is_looked_at_without_a_queue() {
    let (stand, edge) = (Stand::start().await, EdgeMock::start().await);
    let caller = Caller::new(&stand, &edge)
        .without("QUEUE_URL")
        .without("AWS_REGION")
        .env("READ_API_KEYS", "canary-one,canary-two")
        .env("READ_PORT", free_port());
    let found = caller.check_with(&["check", "--reads", "--json"]).await;
    found.only_fails(&[]);
    assert!(
        found
            .names()
            .iter()
            .all(|name| !name.contains("queue") && !name.contains("right")),
        "{:?}",
        found.names()
    );
    found.is("read-keys", "pass", "2 keys", "");
    found.is("read-port", "pass", "is free", "");
    found.is("redis-tracking", "pass", "reports changes", "");

    let taken = std::net::TcpListener::bind(("::", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let found = caller
        .clone()
        .env("READ_PORT", port)
        .check_with(&["check", "--reads", "--json"])
        .await;
    found.is("read-port", "warn", "cannot bind port", "READ_PORT");

    // A user that may read and write, and get no notifications of changes.
    stand.redis.cmd(&[
        "ACL",
        "SETUSER",
        "reader",
        "on",
        ">canary-password",
        "~*",
        "+@all",
        "-client|tracking",
    ]);
    let found = caller
        .env("REDIS_USER", "reader")
        .env("REDIS_PASSWORD", "canary-password")
        .check_with(&["check", "--reads", "--json"])
        .await;
    found.is(
        "redis-tracking",
        "warn",
        "up to 1000 ms old",
        "+client|tracking",
    );
}
