//! `explain`, `apply` and `publish`, as a person uses them.

use std::collections::{BTreeMap, HashSet};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::delivery::fixtures;
use crate::stand::state;
use testkit::events::usage;
use testkit::{Fault, FaultProxy, Redis, Sqs, TestQueue, free_port};

/// The binary on a command line, with a small environment and a folder of its own.
pub struct Cli {
    env: BTreeMap<String, String>,
    pub folder: TempDir,
}

pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Cli {
    pub fn new(redis: &Redis) -> Cli {
        Cli::bare()
            .env("REDIS_HOST", "127.0.0.1")
            .env("REDIS_PORT", redis.port())
    }

    pub fn bare() -> Cli {
        let cli = Cli {
            env: BTreeMap::new(),
            folder: TempDir::new().unwrap(),
        };
        cli.env("PATH", std::env::var("PATH").unwrap_or_default())
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("EDGE_API_URL", "http://127.0.0.1:1")
    }

    #[must_use]
    pub fn queue(self, url: &str) -> Cli {
        self.env("QUEUE_URL", url)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl ToString) -> Cli {
        self.env.insert(name.to_owned(), value.to_string());
        self
    }

    /// A file in its folder; gives its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn spawn(&self, words: &[&str]) -> Child {
        self.command(env!("CARGO_BIN_EXE_entitlement-sync"), words)
            .spawn()
            .unwrap()
    }

    fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(words)
            .env_clear()
            .env("HOME", self.folder.path())
            .envs(&self.env)
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub async fn run(&self, words: &[&str], stdin: &str) -> Ran {
        ended(self.spawn(words), stdin).await
    }

    /// A line of bash, in which `$B` is the binary.
    async fn shell(&self, line: &str, stdin: &str) -> Ran {
        let mut command = self.command("bash", &["-o", "pipefail", "-c", line]);
        command.env("B", env!("CARGO_BIN_EXE_entitlement-sync"));
        ended(command.spawn().unwrap(), stdin).await
    }
}

pub async fn ended(mut child: Child, stdin: &str) -> Ran {
    let mut input = child.stdin.take().unwrap();
    let (stdin, wait) = (stdin.to_owned(), Duration::from_secs(60));
    let output = async {
        let write = async move {
            // It may end without having read everything.
            let _ = input.write_all(stdin.as_bytes()).await;
        };
        tokio::join!(write, child.wait_with_output()).1.unwrap()
    };
    let output = tokio::time::timeout(wait, output).await.expect("it ends");
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Ran {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error} in {:?}; {}", self.out, self.err))
    }

    /// Ends with this code, and says these words, whichever way.
    #[track_caller]
    pub fn says(&self, code: i32, words: &[&str]) {
        let said = format!("{}{}", self.out, self.err);
        assert_eq!(self.code, code, "{said}");
        for words in words {
            assert!(said.contains(words), "not said: {words:?}\n{said}");
        }
    }
}

/// What `explain` says a message would leave behind, by key.
fn predicted(explained: &Value) -> BTreeMap<String, Option<String>> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut keys = BTreeMap::new();
    for key in explained["keys"].as_array().unwrap() {
        let redis = &key["redis"];
        assert!(redis.is_object(), "{key}");
        keys.insert(text(&key["key"]).unwrap(), text(&redis["after"]));
        if let Some(stamp) = text(&key["timestamp_key"]) {
            keys.insert(stamp, text(&redis["after_at"]));
        }
    }
    keys
}

const SENT: &str = "1763150700000";

/// Explains, applies for show, and applies a message in earnest; what was foreseen is what happens, and nothing
/// happens before it. Gives what is wrong.
async fn foreseen_is_done(
    cli: &Cli,
    redis: &Redis,
    prefix: &str,
    body: &str,
    attributes: &[String],
) -> Result<String, String> {
    let mut words = vec!["--json", "--sent", SENT];
    for attribute in attributes {
        words.extend(["--attribute", attribute.as_str()]);
    }
    words.push("-");
    let with = |first: &[&'static str]| -> Vec<String> {
        let all = first.iter().copied().chain(words.iter().copied());
        all.map(str::to_owned).collect()
    };
    let run = async |first: &[&'static str]| {
        let words = with(first);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        cli.run(&words, body).await
    };
    let before = redis.dump(prefix);
    let (explained, shown) = tokio::join!(run(&["explain"]), run(&["apply", "--dry-run"]));
    if redis.dump(prefix) != before {
        return Err("explain or a dry run has written".into());
    }
    let applied = run(&["apply"]).await;
    let after = redis.dump(prefix);
    let message = &explained.json()["messages"][0];
    let outcome = applied.json()["messages"][0].clone();
    if shown.json()["messages"][0] != outcome {
        return Err(format!(
            "a dry run says {}, and then it is {outcome}",
            shown.out
        ));
    }
    let word = outcome["outcome"].as_str().unwrap().to_owned();
    if word == "invalid" {
        return match (
            explained.code,
            applied.code,
            message["reason"] == outcome["reason"],
        ) {
            (1, 1, true) => Ok(outcome["reason"].to_string()),
            _ => Err(format!("invalid, but {}", explained.out)),
        };
    }
    if explained.code != 0 {
        return Err(format!(
            "explain ends with {}: {}",
            explained.code, explained.err
        ));
    }
    let asks_for_nothing = ["ignored", "unrecognised"].contains(&word.as_str());
    if !asks_for_nothing && message["outcome"] != outcome["outcome"] {
        return Err(format!("foreseen {}, done {outcome}", message["outcome"]));
    }
    let mut expected = before;
    for (key, value) in predicted(message) {
        expected.remove(&key);
        expected.extend(value.map(|value| (key, value)));
    }
    match expected == after {
        true => Ok(word),
        false => Err(format!("foreseen {expected:#?}\ndone {after:#?}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_explain_foresees_is_what_apply_does() {
    let redis = Redis::start().await;
    let mut wrong = Vec::new();
    for group in fixtures::load().chunks(4) {
        let checks = group.iter().map(|fixture| {
            let (redis, prefix) = (&redis, fixture.name.as_str());
            async move {
                for (key, value) in fixture.keys("before", prefix) {
                    redis.set(&key, &value);
                }
                let policy = match fixture.text("policy") {
                    "" => "UPSERT",
                    policy => policy,
                };
                let cli = Cli::new(redis)
                    .env("ENVIRONMENT_PREFIX", prefix)
                    // The fixtures were "sent" in 2025: longer ago than keys live by default.
                    .env("KEYS_TTL_IN_SECS", "-1")
                    .env("CACHE_UPDATE_POLICY", policy)
                    .env("CREDIT_ENTITLEMENTS", fixture.text("credit_entitlements"));
                let attributes: Vec<String> = fixture
                    .attributes()
                    .into_iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                let within = format!("{prefix}:c_");
                let found =
                    foreseen_is_done(&cli, redis, &within, &fixture.body(), &attributes).await;
                let mut expected = fixture.keys("after", prefix);
                for value in expected.values_mut().filter(|value| *value == "<SENT>") {
                    *value = SENT.into();
                }
                match found {
                    Err(error) => Some(format!("{prefix}: {error}")),
                    Ok(reason) if fixture.text("outcome") == "invalid" => {
                        let part = fixture.text("error_contains");
                        (!reason.contains(part))
                            .then(|| format!("{prefix}: not {part} but {reason}"))
                    }
                    Ok(word) if word != fixture.text("outcome") => {
                        Some(format!("{prefix}: {word}"))
                    }
                    Ok(_) if redis.dump(&within) != expected => {
                        Some(format!("{prefix}: not as the worker leaves it"))
                    }
                    Ok(_) => None,
                }
            }
        });
        let found = futures_util::future::join_all(checks).await;
        wrong.extend(found.into_iter().flatten());
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Times that this project never writes, and that the script compares nevertheless.
#[tokio::test(flavor = "multi_thread")]
async fn odd_times_are_foreseen_as_the_script_compares_them() {
    let redis = Redis::start().await;
    let odd = [
        "",
        "no time",
        " 1763150400001 ",
        "1763150400000.5",
        "1.7631504e12",
        "0x19a8435e101",
        "-1",
        "inf",
        "nan",
        "0x",
        "12a",
        "1763150400000",
        "1763150400001",
        "+5",
        "1e",
        ".5",
    ];
    let cli = Cli::new(&redis).env("KEYS_TTL_IN_SECS", "-1");
    let set = json!({"type": "entitlements.updated", "customerId": "acme", "timestamp": 1763150400000_u64,
        "entitlements": [{"feature": {"id": "f", "featureType": "NUMBER", "meterType": "INCREMENTAL"}}]})
    .to_string();
    let purge =
        json!({"type": "customer.deleted", "customerId": "acme", "timestamp": 1763150400000_u64})
            .to_string();
    let used = json!({"type": "measurement.reported", "customerId": "acme", "timestamp": 1763150400000_u64,
        "featureId": "f", "currentUsage": 5}).to_string();
    let mut words = HashSet::new();
    for stamp in odd {
        for key in ["#timestamp", ":f_f#timestamp", "#purged"] {
            for body in [&set, &purge, &used] {
                redis.cmd(&["FLUSHALL"]);
                redis.set("production:c_acme", "{}");
                redis.set(&format!("production:c_acme{key}"), stamp);
                let found = foreseen_is_done(&cli, &redis, "production", body, &[]).await;
                words.insert(
                    found.unwrap_or_else(|error| panic!("{stamp:?} in {key}, {body}: {error}")),
                );
            }
        }
    }
    assert_eq!(words.len(), 3, "{words:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_foreseen_and_waited_for() {
    let redis = Redis::start().await;
    let cli = Cli::new(&redis).env("CACHE_LOCK_RETRY_COUNT", 2);
    let file = cli.file("event.json", &state("acme", 5));
    redis.set("production-acme", "an SDK");
    let before = redis.dump("");
    cli.run(&["explain", &file], "")
        .await
        .says(0, &["locked", "production-acme"]);
    cli.run(&["apply", &file], "")
        .await
        .says(1, &["locked", "an SDK holds its lock"]);
    assert_eq!(redis.dump(""), before);
    let patient = Cli::new(&redis);
    redis.cmd(&["SET", "production-acme", "an SDK", "PX", "700"]);
    patient
        .run(&["apply", &file], "")
        .await
        .says(0, &["applied: 2 written, 0 stale"]);
    assert_eq!(
        redis.get("production:c_acme#timestamp").as_deref(),
        Some("5")
    );
    assert_eq!(redis.ttl("production:c_acme") / 1000, 604);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_messages_are_processed_in_turn_and_a_bad_one_delays_no_other() {
    let redis = Redis::start().await;
    let cli = Cli::new(&redis);
    let bad = r#"{"type":"entitlements.updated","customerId":"acme","entitlements":[{"usageLimit":"x"}]}"#;
    let purge =
        r#"{"type":"customer.deleted","customerId":"acme","timestamp":"1970-01-01T00:00:00.007Z"}"#;
    let lines = [
        &state("acme", 5),
        bad,
        "{no",
        purge,
        &state("acme", 6),
        &state("globex", 1),
    ]
    .join("\n\n");
    let file = cli.file("events.jsonl", &lines);
    let explained = cli.run(&["explain", "--json", &file], "").await;
    assert_eq!(explained.code, 1);
    let messages = explained.json()["messages"].clone();
    let of = |field: &str| -> Vec<Value> {
        let messages = messages.as_array().unwrap();
        messages
            .iter()
            .map(|message| message[field].clone())
            .collect()
    };
    assert_eq!(of("line"), [1, 3, 5, 7, 9, 11]);
    let outcomes = json!(["applied", null, null, "applied", "stale", "applied"]);
    assert_eq!(json!(of("outcome")), outcomes);
    let reason = messages[1]["reason"].as_str().unwrap();
    assert!(reason.contains("entitlements[0].usageLimit"), "{reason}");
    assert!(!reason.contains("\"x\""), "{reason}");
    assert!(redis.dump("").is_empty());

    let applied = cli.run(&["apply", &file], "").await;
    applied.says(
        1,
        &[
            "message 2 (line 3): entitlements_updated invalid: entitlements[0].usageLimit",
            "not JSON",
        ],
    );
    assert_eq!(applied.out.lines().count(), 6);
    assert_eq!(redis.get("production:c_acme"), None);
    assert_eq!(redis.get("production:c_acme#purged").as_deref(), Some("7"));
    assert_eq!(
        redis.get("production:c_globex#timestamp").as_deref(),
        Some("1")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_how_it_found_out() {
    let cli = Cli::bare();
    let event = json!({"data": {"usageUpdated": {"usage": {"customerId": "acme", "resourceId": "site",
        "featureId": "f1", "currentUsage": 8}, "entitlement": {"usageUpdatedAt": "2025-11-14T20:00:00.000Z"}}}});
    let sns = json!({"Type": "Notification", "Message": event.to_string()}).to_string();
    cli.run(&["explain", "-"], &sns).await.says(
        0,
        &[
            "Redis: not looked at: REDIS_HOST is not set",
            "usageUpdated, kind measurement_reported, named by the one field under data",
            "SNS notification > GraphQL data",
            "set the usage of feature f1 of customer acme, resource site to 8, if it is cached",
            "2025-11-14T20:00:00.000Z (1763150400000), from usageUpdatedAt; lives 604800 s",
            "production:c_acme:r_site:f_f1",
            r#"{"currentUsage":8}"#,
        ],
    );
    let bare = r#"{"customerId":"acme","featureId":"f1","currentUsage":8}"#;
    let words = [
        "explain",
        "--json",
        "--no-redis",
        "--attribute",
        "type=USAGE_UPDATED",
        "--sent",
    ];
    let ran = cli
        .run(&[&words[..], &["2025-11-14T20:00:00Z", "-"]].concat(), bare)
        .await;
    let message = ran.json()["messages"][0].clone();
    assert_eq!(message["named_by"], "a message attribute");
    assert_eq!(message["time"]["from"], "SentTimestamp");
    assert_eq!(message["keys"][0]["time"]["at"], 1763150400000_u64);
    assert_eq!(message["keys"][0]["redis"], Value::Null);
    let forever = cli.env("KEYS_TTL_IN_SECS", "-1");
    forever
        .run(&["explain", "-"], &sns)
        .await
        .says(0, &["never expires"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_shows_what_was_found_by_structure_and_which_rule_gave_each_time() {
    let cli = Cli::bare();
    let used = json!({"customerId": "acme", "featureId": "calls", "currentUsage": 7});
    let cases = [
        (
            json!({"topic": "x", "body": {"items": [json!({"timestamp": 1763150400, "x": used}).to_string()]}}),
            ["by structure, at $.*.*[0].*", "timestamp"],
        ),
        (
            json!({"detail-type": "measurement.reported", "time": "2025-11-14T20:00:00Z", "detail": used}),
            ["EventBridge event", "the time of the envelope"],
        ),
        (
            json!({"type": "measurement.reported", "timestamp": "2999-01-01", "payload": used}),
            ["payload", "more than 5 minutes later"],
        ),
        (
            json!({"type": "customer.merged"}),
            ["other", "keeps the first 10 of a kind"],
        ),
        (
            json!([used, {"type": "customer.merged", "id": 1}]),
            [
                "set the usage of feature calls of customer acme to 7",
                "the worker also keeps the message in the dead-letter stream, if it is one of the first 10 with an event of \
                 the unknown kind customer.merged",
            ],
        ),
        (
            json!({"Service": "Amazon S3", "Event": "s3:TestEvent"}),
            [
                "other",
                "an S3 bucket sends its notifications to this queue",
            ],
        ),
    ];
    for (body, parts) in cases {
        // A byte order mark, as some editors leave it, is none of the message.
        let file = cli.file("event.json", &format!("\u{feff}{body}"));
        let explained = cli.run(&["explain", "--no-redis", &file], "").await;
        explained.says(0, &parts);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_and_absent_servers_have_their_codes() {
    let redis = Redis::start().await;
    let cli = Cli::new(&redis);
    let file = cli.file("event.json", &state("acme", 5));
    let blank = cli.file("blank", " \n");
    for command in ["explain", "apply", "publish"] {
        cli.run(&[command, "absent.json"], "")
            .await
            .says(66, &["cannot read "]);
        cli.run(&[command, &blank], "")
            .await
            .says(66, &["contains no message"]);
        cli.run(&[command], "").await.says(2, &["<FILE>"]);
    }
    for odd in ["x", "colour=blue", "type="] {
        cli.run(&["explain", "--attribute", odd, &file], "")
            .await
            .says(2, &["--attribute"]);
    }
    cli.run(&["explain", "--sent", "yesterday", &file], "")
        .await
        .says(2, &["ISO 8601 or epoch milliseconds"]);
    let away = Cli::bare()
        .env("REDIS_HOST", "127.0.0.1")
        .env("REDIS_PORT", free_port());
    away.run(&["apply", &file], "")
        .await
        .says(69, &["Redis: not reachable: Connection refused"]);
    away.run(&["explain", &file], "").await.says(
        0,
        &["not looked at: Redis: not reachable", "production:c_acme"],
    );
    Cli::bare()
        .run(&["apply", &file], "")
        .await
        .says(78, &["REDIS_HOST is not set"]);
    Cli::bare()
        .run(&["publish", &file], "")
        .await
        .says(78, &["QUEUE_URL is not set", "AWS_REGION is not set"]);
    let wrong = Cli::bare().env("KEYS_TTL_IN_SECS", 0);
    wrong
        .run(&["explain", &file], "")
        .await
        .says(78, &["KEYS_TTL_IN_SECS"]);

    redis.cmd(&[
        "ACL",
        "SETUSER",
        "reader",
        "on",
        ">secret",
        "~*",
        "+@read",
        "+@connection",
        "+info",
        "+evalsha",
        "+eval",
    ]);
    let reader = Cli::new(&redis)
        .env("REDIS_USER", "reader")
        .env("REDIS_PASSWORD", "secret");
    reader
        .run(&["explain", &file], "")
        .await
        .says(0, &["written: no time is stored"]);
    reader
        .run(&["apply", &file], "")
        .await
        .says(77, &["NOPERM"]);
    let refused = Cli::new(&redis)
        .env("REDIS_USER", "reader")
        .env("REDIS_PASSWORD", "wrong-secret");
    let ran = refused.run(&["apply", &file], "").await;
    assert_ne!(ran.code, 0);
    assert!(!ran.err.contains("wrong-secret"), "{}", ran.err);
    assert!(redis.dump("").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_pipe_is_no_failure() {
    let redis = Redis::start().await;
    let cli = Cli::new(&redis);
    let many: Vec<String> = (0..3_000)
        .map(|at| state(&format!("c{at}"), at + 1))
        .collect();
    cli.file("many.jsonl", &many.join("\n"));
    let ran = cli
        .shell("$B explain --no-redis many.jsonl | head -1", "")
        .await;
    ran.says(0, &["Redis: left alone"]);
    assert_eq!(ran.err, "");
    let ran = cli
        .shell("$B explain --no-redis --json many.jsonl | head -1", "")
        .await;
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
}

fn names(bodies: impl IntoIterator<Item = Value>) -> Vec<String> {
    let mut all: Vec<String> = bodies
        .into_iter()
        .map(|body| body["customerId"].as_str().unwrap().to_owned())
        .collect();
    all.sort();
    all
}

async fn arrived(queue: &TestQueue) -> Vec<String> {
    let messages = queue.receive_all().await;
    names(
        messages
            .iter()
            .map(|message| serde_json::from_str(message.body().unwrap()).unwrap()),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_sends_in_batches_and_repeats_as_configured() {
    let sqs = Sqs::start().await;
    let queue = sqs.queue("q").await;
    let calls = FaultProxy::start(sqs.endpoint()).await;
    let cli = Cli::bare().queue(&calls.queue_url(&queue));
    let lines: Vec<String> = (0..13).map(|at| state(&format!("c{at:02}"), 1)).collect();
    let file = cli.file("events.jsonl", &lines.join("\n"));
    let ran = cli
        .run(
            &[
                "publish",
                "--repeat",
                "2",
                "--attribute",
                "type=ENTITLEMENTS_UPDATED",
                "--json",
                &file,
            ],
            "",
        )
        .await;
    assert_eq!(ran.json()["sent"], 26, "{}", ran.err);
    assert_eq!((ran.code, calls.calls("SendMessageBatch")), (0, 4));
    let messages = queue.receive_all().await;
    assert_eq!(messages.len(), 26);
    let kind = |message: &aws_sdk_sqs::types::Message| {
        message.message_attributes.as_ref().unwrap()["type"]
            .string_value
            .clone()
    };
    assert!(
        messages
            .iter()
            .all(|message| kind(message).as_deref() == Some("ENTITLEMENTS_UPDATED"))
    );
    let bodies: HashSet<String> = messages
        .iter()
        .map(|message| message.body().unwrap().to_owned())
        .collect();
    assert_eq!(bodies, lines.into_iter().collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_tries_again_what_the_queue_fails_to_take() {
    let sqs = Sqs::start().await;
    let queue = sqs.queue("q").await;
    let calls = FaultProxy::start(sqs.endpoint()).await;
    let cli = Cli::bare().queue(&calls.queue_url(&queue));
    let lines: Vec<String> = (0..10).map(|at| state(&format!("c{at}"), 1)).collect();
    let file = cli.file("events.jsonl", &lines.join("\n"));
    calls.once("SendMessageBatch", Fault::fail_entries(&[0, 3], false));
    calls.once("SendMessageBatch", Fault::fail_entries(&[1], false));
    cli.run(&["publish", &file], "")
        .await
        .says(0, &["10 sent", "0 failed"]);
    let expected: Vec<String> = (0..10).map(|at| format!("c{at}")).collect();
    assert_eq!(arrived(&queue).await, expected);

    calls.once("SendMessageBatch", Fault::fail_entries(&[2], true));
    cli.run(&["publish", &file], "")
        .await
        .says(1, &["9 sent", "1 failed", "1 by ReceiptHandleIsInvalid"]);
    assert_eq!(arrived(&queue).await.len(), 9);
    calls.once("SendMessageBatch", Fault::access_denied());
    cli.run(&["publish", &file], "")
        .await
        .says(77, &["sqs:SendMessage"]);
    calls.always("SendMessageBatch", Fault::no_such_queue());
    cli.run(&["publish", &file], "")
        .await
        .says(69, &["queue does not exist", "QUEUE_URL"]);
    let away = Cli::bare().queue(&format!("http://127.0.0.1:{}/1/q", free_port()));
    away.run(&["publish", &file], "")
        .await
        .says(69, &["the queue: not reachable"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_gives_fifo_messages_a_group_and_an_identity() {
    let sqs = Sqs::start().await;
    // Without content-based deduplication the queue refuses what has no identity.
    let queue = sqs.queue_with("q.fifo", &[("FifoQueue", "true")]).await;
    let calls = FaultProxy::start(sqs.endpoint()).await;
    let cli = Cli::bare().queue(&calls.queue_url(&queue));
    let file = cli.file(
        "events.jsonl",
        &[
            state("acme", 1),
            usage(("globex", None), "calls", 3, 2),
            r#"{"type":"a.b"}"#.into(),
        ]
        .join("\n"),
    );
    cli.run(&["publish", "--repeat", "2", &file], "")
        .await
        .says(0, &["6 sent"]);
    let entries: Vec<Value> = calls
        .bodies("SendMessageBatch")
        .iter()
        .flat_map(|body| body["Entries"].as_array().unwrap().clone())
        .collect();
    let groups: Vec<&str> = entries
        .iter()
        .map(|entry| entry["MessageGroupId"].as_str().unwrap())
        .collect();
    assert_eq!(
        groups,
        [
            "acme",
            "globex",
            "entitlement-sync",
            "acme",
            "globex",
            "entitlement-sync"
        ]
    );
    let identities: HashSet<String> = entries
        .iter()
        .map(|entry| entry["MessageDeduplicationId"].to_string())
        .collect();
    assert_eq!(identities.len(), 6);
    assert_eq!(queue.depth().await, 6);
    // A call whose answer is lost is made again, and the queue knows it again.
    calls.once("SendMessageBatch", Fault::LoseAnswer);
    cli.run(&["publish", "--group", "one", &file], "")
        .await
        .says(0, &["3 sent"]);
    assert_eq!(queue.depth().await, 9);
    assert_eq!(
        calls.bodies("SendMessageBatch").last().unwrap()["Entries"][0]["MessageGroupId"],
        "one"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_sends_nothing_by_mistake() {
    let sqs = Sqs::start().await;
    let queue = sqs.queue("q").await;
    let cli = Cli::bare().queue(&queue.url);
    let file = cli.file("mixed", "{\"type\":\"a\"}\nhello\n");
    cli.run(&["publish", &file], "").await.says(
        1,
        &[
            "message 2 (line 2) is not JSON",
            "--raw",
            "nothing was sent",
        ],
    );
    let large = cli.file("large", &format!("\"{}\"", "x".repeat(1 << 20)));
    cli.run(&["publish", &large], "")
        .await
        .says(1, &["larger than 1 MiB", "nothing was sent"]);
    assert_eq!(queue.depth().await, 0);
    cli.run(&["publish", "--raw", &file], "")
        .await
        .says(0, &["2 sent"]);
    assert_eq!(queue.depth().await, 2);
    let aws = Cli::bare().queue("https://sqs.us-east-1.amazonaws.com/123456789012/entitlements");
    aws.run(&["publish", &file], "")
        .await
        .says(2, &["sqs.us-east-1.amazonaws.com belongs to AWS", "--yes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_keeps_to_its_rate() {
    let sqs = Sqs::start().await;
    let queue = sqs.queue("q").await;
    let cli = Cli::bare().queue(&queue.url);
    let file = cli.file("event.json", &state("acme", 1));
    let started = Instant::now();
    cli.run(&["publish", "--repeat", "15", "--rate", "10", &file], "")
        .await
        .says(0, &["15 sent"]);
    assert!(
        started.elapsed() >= Duration::from_millis(1_300),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(queue.depth().await, 15);
}
