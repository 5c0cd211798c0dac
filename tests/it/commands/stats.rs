//! `stats`: counts what is there, without blocking Redis.

use std::time::{SystemTime, UNIX_EPOCH};

use testkit::{Operator, Redis};

/// Customers, each with metadata and a usage: six keys.
fn fill(redis: &Redis, customers: usize, at: u64) {
    let mut conn = redis.conn();
    for start in (0..customers).step_by(1_000) {
        let mut pipeline = redis::pipe();
        for id in start..customers.min(start + 1_000) {
            let key = format!("production:c_customer-{id}");
            for key in [
                key.clone(),
                format!("{key}:metadata"),
                format!("{key}:f_seats"),
            ] {
                pipeline.set_ex(&key, "{}", 1_000).ignore();
                pipeline.set_ex(key + "#timestamp", at, 1_000).ignore();
            }
        }
        pipeline.query::<()>(&mut conn).unwrap();
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_customers_are_counted_in_small_steps() {
    let redis = Redis::start().await;
    fill(&redis, 10_000, now() - 3_600_000);
    let key = "production:c_customer-1";
    redis.set("production:c_a:r_b", "{}");
    redis.set(
        "production:c_a:r_b#timestamp",
        &(now() - 7_200_000).to_string(),
    );
    redis.set(&format!("{key}:credit_tokens"), "{}");
    redis.set(&format!("{key}:f_alone#timestamp"), "1");
    redis.set(&format!("{key}#purged"), "1");
    redis.set("production:entitlement-sync", "marker");
    redis.cmd(&["XADD", "production:dead-letter", "*", "body", "x"]);
    for other in ["production2:c_x", "productionx", "staging:c_a", "other"] {
        redis.set(other, "x");
    }
    let before = redis.dump("");
    let operator = Operator::of(&redis);
    redis.cmd(&["CONFIG", "RESETSTAT"]);
    let done = operator.run(&["stats", "--json"]).await;
    // In pages of a thousand: no single call looks at much more.
    let scans = redis.info("cmdstat_scan");
    let calls = scans.strip_prefix("calls=").unwrap().split(',').next();
    assert!(calls.unwrap().parse::<u32>().unwrap() >= 50, "{scans}");
    // Torn: a credit without a timestamp, a timestamp without a usage.
    assert_eq!(done.code, 1, "{done:?}");
    let json = done.json();
    for (field, expected) in [
        ("customers", 10_000),
        ("resources", 1),
        ("tombstones", 1),
        ("torn_pairs", 2),
        ("dead_letters", 1),
        ("keys_counted", 60_007),
        ("keys_in_redis", 60_011),
    ] {
        assert_eq!(json[field], expected, "{field}: {json:#}");
    }
    for (kind, expected) in [
        ("usage", 10_000),
        ("metadata", 10_000),
        ("credits", 1),
        ("timestamps", 30_002),
        ("other", 2),
    ] {
        assert_eq!(json["keys"][kind]["count"], expected, "{kind}: {json:#}");
    }
    let number = |pointer: &str| json.pointer(pointer).unwrap().as_u64().unwrap();
    assert!(
        (3_600..3_700).contains(&number("/age_secs/median")),
        "{json:#}"
    );
    assert!(
        (7_200..7_300).contains(&number("/age_secs/most")),
        "{json:#}"
    );
    assert!(
        (800..=1_000).contains(&number("/ttl_secs/median")),
        "{json:#}"
    );
    assert!(number("/bytes") > 60_000 * 40, "{json:#}");
    assert_eq!(json["bytes_by"], "memory_usage");
    assert_eq!(json["is_sample"], false);
    assert_eq!(redis.dump(""), before, "it changes nothing");

    let text = operator.run(&["stats"]).await;
    assert!(text.stdout.contains("customers   10000"), "{}", text.stdout);
    assert!(text.stdout.contains("torn pairs: 2"), "{}", text.stdout);
    assert_eq!(text.stderr, "", "no progress where no terminal is");

    let sample = operator
        .run(&["stats", "--limit", "5000", "--json"])
        .await
        .json();
    assert_eq!(sample["keys_counted"], 5_000, "{sample:#}");
    assert_eq!(sample["is_sample"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_redis_and_one_without_memory_usage_are_counted_too() {
    let redis = Redis::start().await;
    let empty = Operator::of(&redis).run(&["stats", "--json"]).await;
    assert_eq!(empty.code, 0, "{empty:?}");
    assert_eq!(empty.json()["customers"], 0);

    fill(&redis, 3, now());
    redis.cmd(&[
        "ACL",
        "SETUSER",
        "ops",
        "on",
        ">pw",
        "~production*",
        "+scan",
        "+dbsize",
        "+mget",
        "+ttl",
        "+exists",
        "+xlen",
        "+ping",
        "+info",
        "+client",
        "+select",
    ]);
    let operator = Operator::of(&redis)
        .env("REDIS_USER", "ops")
        .env("REDIS_PASSWORD", "pw");
    let json = operator.run(&["stats", "--json"]).await.json();
    assert_eq!(json["bytes_by"], "value_lengths", "{json:#}");
    assert_eq!(json["keys"]["customers"]["bytes"], 6, "{json:#}");

    redis.cmd(&["ACL", "SETUSER", "ops", "-scan"]);
    let refused = operator.run(&["stats"]).await;
    assert_eq!(refused.code, 77, "{refused:?}");
    assert!(refused.stderr.contains("scan"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_prefix_is_taken_to_the_letter() {
    let redis = Redis::start().await;
    redis.set("p*[1]:c_a", "{}");
    redis.set("px1:c_b", "{}");
    let operator = Operator::of(&redis).env("ENVIRONMENT_PREFIX", "p*[1]");
    let json = operator.run(&["stats", "--json"]).await.json();
    assert_eq!(json["customers"], 1, "{json:#}");
    assert_eq!(json["keys_counted"], 1, "{json:#}");
}
