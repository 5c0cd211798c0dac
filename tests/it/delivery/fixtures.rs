//! Every fixture through the whole worker: what stands in Redis afterwards is compared with the
//! fixture to the byte, and nothing else stands there.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::Value;

use testkit::redis::Redis;
use testkit::sqs::Sqs;
use testkit::worker::Worker;
use testkit::{repo, until};

pub struct Fixture {
    pub name: String,
    json: Value,
}

pub fn load() -> Vec<Fixture> {
    let mut fixtures: Vec<Fixture> = std::fs::read_dir(repo("tests/fixtures"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .map(|path| Fixture {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            json: serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap(),
        })
        .collect();
    fixtures.sort_by(|a, b| a.name.cmp(&b.name));
    fixtures
}

impl Fixture {
    pub fn body(&self) -> String {
        match &self.json["body"] {
            Value::String(body) => body.clone(),
            body => body.to_string(),
        }
    }

    pub fn text(&self, field: &str) -> &str {
        self.json[field].as_str().unwrap_or_default()
    }

    pub fn attributes(&self) -> HashMap<String, String> {
        serde_json::from_value(self.json["message_attributes"].clone()).unwrap_or_default()
    }

    /// Keys and values with the prefix put in.
    pub fn keys(&self, field: &str, prefix: &str) -> BTreeMap<String, String> {
        let keys = self.json[field].as_object().into_iter().flatten();
        keys.map(|(key, value)| {
            let key = key.strip_prefix('P').unwrap();
            (format!("{prefix}{key}"), value.as_str().unwrap().to_owned())
        })
        .collect()
    }
}

/// One worker for each policy, all fixtures of that policy at once, each under its own prefix would
/// be another environment: so each has its own worker, a few at a time.
#[tokio::test(flavor = "multi_thread")]
async fn each_fixture_leaves_exactly_its_keys() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let mut wrong = Vec::new();
    for group in load().chunks(8) {
        let checks = group.iter().map(|fixture| check(&redis, &sqs, fixture));
        wrong.extend(
            futures_util::future::join_all(checks)
                .await
                .into_iter()
                .flatten(),
        );
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// What is wrong with this fixture, if anything.
async fn check(redis: &Redis, sqs: &Sqs, fixture: &Fixture) -> Option<String> {
    let prefix = fixture.name.as_str();
    let queue = sqs.queue(prefix).await;
    for (key, value) in fixture.keys("before", prefix) {
        redis.set(&key, &value);
    }
    let attributes = fixture.attributes();
    let attributes: Vec<(&str, &str)> = attributes
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    queue.send_with(&fixture.body(), &attributes).await;
    let policy = match fixture.text("policy") {
        "" => "UPSERT",
        policy => policy,
    };
    let worker = Worker::builder(redis, &queue)
        .env("ENVIRONMENT_PREFIX", prefix)
        .env("CACHE_UPDATE_POLICY", policy)
        .env("CREDIT_ENTITLEMENTS", fixture.text("credit_entitlements"))
        .env("CONSUMERS", 1)
        .start()
        .await;
    let kind = match fixture.text("kind") {
        "" => String::new(),
        kind => format!("kind=\"{kind}\","),
    };
    let outcome = fixture.text("outcome");
    let selector =
        format!("entitlement_sync_messages_processed_total{{{kind}outcome=\"{outcome}\"}}");
    let total = "entitlement_sync_messages_processed_total";
    until(
        &format!("{prefix} is processed"),
        Duration::from_secs(20),
        async || worker.metric(total).await >= 1.0,
    )
    .await;
    if !kind.is_empty() && worker.metric(&selector).await < 1.0 {
        return Some(format!("{prefix}: not {selector}"));
    }
    let mut found = redis.dump(&format!("{prefix}:c_"));
    let mut expected = fixture.keys("after", prefix);
    // The time of sending is known only now; it must be a time of today.
    for (key, value) in &mut expected {
        if value == "<SENT>" {
            let sent: u64 = found
                .get(key)
                .and_then(|sent| sent.parse().ok())
                .unwrap_or(0);
            let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
            if now.abs_diff(sent) < 120_000 {
                *value = found.remove(key).unwrap();
                found.insert(key.clone(), value.clone());
            }
        }
    }
    (found != expected).then(|| format!("{prefix}: found {found:#?}\nexpected {expected:#?}"))
}
