//! `inspect`: it says what the vendor's SDK says, and shows whatever is stored.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use testkit::events::FAR_FUTURE;
use testkit::{EdgeMock, Operator, Redis, free_port, sdk};

const AT: u64 = 1_763_000_000_000;

fn entitlement(feature: &str, of_feature: Value, own: Value, usage: Value) -> Value {
    let mut calculated = json!({
        "feature": {"id": feature, "units": "", "unitsPlural": ""},
        "usageLimit": null, "hasUnlimitedUsage": false, "hasSoftLimit": false, "enumValues": [],
    });
    extend(&mut calculated["feature"], of_feature);
    extend(&mut calculated, own);
    let mut of_usage =
        json!({"resetPeriod": null, "resetPeriodConfiguration": null, "currentUsage": 0});
    extend(&mut of_usage, usage);
    json!({"calculatedEntitlement": calculated, "featureUsage": of_usage})
}

fn extend(object: &mut Value, with: Value) {
    let Value::Object(with) = with else { panic!() };
    object.as_object_mut().unwrap().extend(with);
}

fn seats(own: Value) -> Value {
    let feature = json!({"featureType": "NUMBER", "meterType": "Fluctuating"});
    let mut calculated = json!({"usageLimit": 10});
    extend(&mut calculated, own);
    entitlement("seats", feature, calculated, json!({"currentUsage": 1}))
}

fn sso(own: Value) -> Value {
    entitlement("sso", json!({"featureType": "BOOLEAN"}), own, json!({}))
}

fn all() -> Value {
    json!({
        "seats": seats(json!({"creditRate": {"amount": 2, "currencyId": "tokens"}})),
        "sso": sso(json!({"validUntil": FAR_FUTURE})),
        "audit": entitlement("audit", json!({"featureType": "BOOLEAN"}), json!({"accessDeniedReason": "Revoked"}), json!({})),
        "tier": entitlement("tier", json!({"featureType": "ENUM"}), json!({"enumValues": ["gold", "silver"]}), json!({})),
        "regions": entitlement("regions", json!({"featureType": "NUMBER", "meterType": "None"}), json!({"usageLimit": 4294967296.5}), json!({})),
    })
}

/// What is stored of one customer, or of its resource `site-1`; each part may be missing.
#[derive(Clone)]
struct Situation {
    name: &'static str,
    map: Option<String>,
    at: Option<u64>,
    usage: Option<&'static str>,
    usage_at: Option<u64>,
    /// For a resource: the time of the customer's own entitlements.
    global: Option<Option<u64>>,
}

fn situation(name: &'static str, map: impl ToString) -> Situation {
    Situation {
        name,
        map: Some(map.to_string()),
        at: Some(AT),
        usage: Some(r#"{"currentUsage":4}"#),
        usage_at: Some(AT),
        global: None,
    }
}

fn situations() -> Vec<Situation> {
    let one = |name, seats| situation(name, json!({"seats": seats, "sso": sso(json!({}))}));
    let with_usage = |name, usage| Situation {
        usage,
        ..situation(name, all())
    };
    let of_resource = |name, own, global| Situation {
        at: own,
        global: Some(global),
        ..situation(name, all())
    };
    vec![
        situation("all", all()),
        one("exceeded", seats(json!({"usageLimit": 3}))),
        one("exactly", seats(json!({"usageLimit": 4}))),
        one("no-limit", seats(json!({"usageLimit": null}))),
        one(
            "unlimited",
            seats(json!({"hasUnlimitedUsage": true, "usageLimit": 1})),
        ),
        one(
            "soft",
            seats(json!({"hasSoftLimit": true, "usageLimit": 1})),
        ),
        one("fraction", seats(json!({"usageLimit": 4.5}))),
        one("expired", seats(json!({"validUntil": AT}))),
        one("valid-zero", seats(json!({"validUntil": 0}))),
        with_usage("usage-missing", None),
        with_usage("usage-no-json", Some("{")),
        with_usage("usage-null", Some("null")),
        with_usage("usage-number", Some("7")),
        with_usage("usage-empty", Some("{}")),
        with_usage(
            "period-over",
            Some(r#"{"currentUsage":40,"usagePeriodEnd":2}"#),
        ),
        with_usage(
            "period-over-old",
            Some(r#"{"currentUsage":40,"nextResetDate":2}"#),
        ),
        with_usage(
            "period-to-come",
            Some(r#"{"currentUsage":40,"usagePeriodEnd":4102444800000}"#),
        ),
        Situation {
            usage_at: None,
            ..situation("usage-torn", all())
        },
        Situation {
            at: None,
            ..situation("torn", all())
        },
        Situation {
            map: None,
            ..situation("timestamp-alone", "")
        },
        Situation {
            map: None,
            at: None,
            usage: None,
            usage_at: None,
            ..situation("nothing", "")
        },
        situation("empty", "{}"),
        situation("empty-text", ""),
        situation("no-json", "{\"seats\""),
        situation("null", "null"),
        situation("array", "[]"),
        situation("array-of-something", "[1]"),
        situation("text", "\"seats\""),
        situation("number", "5"),
        situation("entry-null", json!({"seats": null, "sso": sso(json!({}))})),
        situation("entry-number", json!({"seats": 5, "sso": sso(json!({}))})),
        situation("entry-empty", json!({"seats": {}, "sso": sso(json!({}))})),
        situation(
            "without-feature",
            json!({"": {"calculatedEntitlement": {"usageLimit": 1}, "featureUsage": {"currentUsage": 0}}}),
        ),
        situation(
            "newer-layout",
            json!({
                "sso": {"calculatedEntitlement": {"type": "FEATURE", "feature": {"id": "sso", "featureType": "BOOLEAN"}}, "usageData": {"currentUsage": 0}},
                "seats": {"calculatedEntitlement": {"type": "FEATURE", "feature": {"id": "seats", "featureType": "NUMBER", "meterType": "Incremental"}, "usageLimit": 10, "resetPeriod": "MONTH"}, "usageData": {"currentUsage": 1}},
            }),
        ),
        of_resource("resource-fresh", Some(AT), Some(AT - 1)),
        of_resource("resource-equal", Some(AT), Some(AT)),
        of_resource("resource-stale", Some(AT), Some(AT + 1)),
        of_resource("resource-without-customer", Some(AT), None),
        of_resource("resource-torn", None, Some(AT)),
    ]
}

impl Situation {
    fn resource(&self) -> Option<&'static str> {
        self.global.map(|_| "site-1")
    }

    fn store(&self, redis: &Redis, customer: &str) {
        let customer = format!("production:c_{customer}");
        let owner = match self.resource() {
            Some(resource) => format!("{customer}:r_{resource}"),
            None => customer.clone(),
        };
        let set = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                redis.cmd(&["SET", key, &value, "EX", "1000"]);
            }
        };
        let number = |at: Option<u64>| at.map(|at| at.to_string());
        set(&owner, self.map.clone());
        set(&format!("{owner}#timestamp"), number(self.at));
        set(&format!("{owner}:f_seats"), self.usage.map(Into::into));
        set(&format!("{owner}:f_seats#timestamp"), number(self.usage_at));
        if let Some(global) = self.global {
            set(&format!("{customer}#timestamp"), number(global));
        }
    }
}

fn query(feature: &str, customer: &str, resource: Option<&str>) -> Value {
    let method = match feature {
        "seats" => "getMeteredEntitlement",
        "tier" => "getEnumEntitlement",
        "regions" => "getNumericEntitlement",
        _ => "getBooleanEntitlement",
    };
    let mut args = json!({"customerId": customer, "featureId": feature});
    if let Some(resource) = resource {
        args["resourceId"] = resource.into();
    }
    json!({"method": method, "args": args})
}

/// Both are asked for every situation, as a whole and feature by feature. Each question has a
/// customer of its own, so that requests to the Edge API tell who was a miss.
#[tokio::test(flavor = "multi_thread")]
async fn it_says_what_the_sdk_says() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let operator = Operator::of(&redis);
    let mut asked = Vec::new();
    for situation in situations() {
        for feature in [None, Some("seats"), Some("sso"), Some("absent")] {
            let customer = format!("{}.{}", situation.name, feature.unwrap_or("list"));
            situation.store(&redis, &customer);
            let resource = situation.resource();
            let query = match feature {
                Some(feature) => query(feature, &customer, resource),
                None => {
                    let mut args = vec![customer.as_str()];
                    args.extend(resource);
                    json!({"method": "getEntitlements", "args": args})
                }
            };
            let mut arguments = vec!["inspect", &customer, "--quick", "--json"];
            arguments.extend(resource.iter().flat_map(|id| ["--resource", id]));
            arguments.extend(feature.iter().flat_map(|id| ["--feature", id]));
            let said = operator.run(&arguments).await;
            let from_redis = said.json()["answer"]["from"] == "redis";
            assert_eq!(said.code, i32::from(!from_redis), "{said:?}");
            asked.push((customer, feature, query, said.json()));
        }
    }
    let queries: Vec<Value> = asked.iter().map(|(_, _, query, _)| query.clone()).collect();
    let answers = sdk::ask(&redis, "production", &edge.url(), &queries).await;
    let (mut hits, mut misses) = (0, 0);
    for ((customer, feature, _, said), answer) in asked.iter().zip(&answers) {
        let requests = edge.requests_to(&format!("/v1/c/{customer}/")).len();
        let is_hit = requests == 0;
        let expected = if is_hit { "redis" } else { "edge-api" };
        assert_eq!(
            said["answer"]["from"], expected,
            "{customer}: {said:#}\n{answer:#}"
        );
        if !is_hit {
            misses += 1;
            continue;
        }
        hits += 1;
        let entitlements = said["entitlements"].as_array().unwrap();
        match feature {
            None => {
                let answers = answer.as_array().unwrap();
                assert_eq!(entitlements.len(), answers.len(), "{customer}");
                for (said, answer) in entitlements.iter().zip(answers) {
                    // The list takes the usage as it is stored.
                    if said["usage_period_is_over"] != true {
                        assert_same(customer, said, answer);
                    }
                    assert_eq!(said["usage_stored"], answer["currentUsage"], "{customer}");
                }
            }
            Some(_) => match &entitlements[..] {
                [said] => {
                    assert_same(customer, said, answer);
                    assert_eq!(said["usage"], answer["currentUsage"], "{customer}");
                }
                [] => {
                    assert_eq!(answer["hasAccess"], false, "{customer}");
                    let reason = &answer["accessDeniedReason"];
                    assert_eq!(&said["access_denied_reason"], reason, "{customer}");
                }
                several => panic!("{customer}: {several:#?}"),
            },
        }
    }
    assert!(hits > 50 && misses > 30, "{hits} hits, {misses} misses");
}

fn assert_same(customer: &str, said: &Value, answer: &Value) {
    assert_eq!(answer["isFallback"], false, "{customer}: {answer}");
    assert_eq!(
        said["has_access"], answer["hasAccess"],
        "{customer}: {said:#}"
    );
    let reason = &answer["accessDeniedReason"];
    assert_eq!(
        &said["access_denied_reason"], reason,
        "{customer}: {said:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_text_report_shows_everything() {
    let redis = Redis::start().await;
    let operator = Operator::of(&redis);
    situation("", all()).store(&redis, "acme");
    redis.cmd(&[
        "SET",
        "production:c_acme:credit_tokens",
        r#"{"currentUsage":60}"#,
    ]);
    redis.cmd(&["SET", "production:c_acme:r_site-1", "{}"]);
    redis.cmd(&[
        "SET",
        "production:c_acme:r_site-1#timestamp",
        &(AT - 1).to_string(),
    ]);
    redis.cmd(&["SET", "production:c_acme#purged", &(AT + 1).to_string()]);
    redis.cmd(&["SET", "production-acme", "held", "EX", "100"]);
    let before = redis.dump("");
    let said = operator.run(&["inspect", "acme"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    for part in [
        "An SDK would answer from Redis.",
        "seats    metered  10            4",
        "gold, silver",
        "4294967296.5",
        "denied: Revoked",
        "2100-01-01T00:00:00.000Z",
        "usage of seats",
        r#"{"currentUsage":60}"#,
        "torn pair: credit tokens has a value and no timestamp",
        "site-1",
        "a miss: the resource is stale",
        "an SDK holds the lock, for 1 min",
        "purged as of 2025-11-13T02:13:20.001Z; the stored state is older",
    ] {
        assert!(said.stdout.contains(part), "{part} in {}", said.stdout);
    }
    let one = operator
        .run(&["inspect", "acme", "--feature", "seats"])
        .await;
    let stored = all()["seats"].to_string();
    assert!(one.stdout.contains(&stored), "{}", one.stdout);
    assert!(!one.stdout.contains("silver"), "{}", one.stdout);

    redis.cmd(&["DEL", "production:c_acme:f_seats"]);
    let miss = operator.run(&["inspect", "acme"]).await;
    assert_eq!(miss.code, 1);
    let because = "An SDK would miss and ask the Edge API, because the usage of seats is missing.";
    assert!(miss.stdout.contains(because), "{}", miss.stdout);

    redis.cmd(&["DEL", "production:c_acme#timestamp"]);
    let json = operator.run(&["inspect", "acme", "--json"]).await.json();
    assert_eq!(json["answer_4x"]["from"], "edge-api", "{json:#}");
    let mut left = redis.dump("");
    left.insert(
        "production:c_acme:f_seats".into(),
        before["production:c_acme:f_seats"].clone(),
    );
    left.insert("production:c_acme#timestamp".into(), AT.to_string());
    assert_eq!(left, before, "it changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_no_entitlement_is_said() {
    let redis = Redis::start().await;
    let operator = Operator::of(&redis);
    let nobody = operator.run(&["inspect", "nobody"]).await;
    assert_eq!(nobody.code, 1);
    assert!(
        nobody.stdout.starts_with("nobody is not in Redis."),
        "{}",
        nobody.stdout
    );
    assert_eq!(
        operator.run(&["inspect", "nobody", "--json"]).await.json()["is_there"],
        false
    );

    redis.cmd(&["SET", "production:c_broken", "no JSON at all"]);
    let broken = operator.run(&["inspect", "broken"]).await;
    assert_eq!(broken.code, 1);
    assert!(
        broken.stdout.contains("no JSON at all"),
        "{}",
        broken.stdout
    );

    redis.cmd(&["RPUSH", "production:c_list", "x"]);
    let list = operator.run(&["inspect", "list"]).await;
    assert_eq!(list.code, 1);
    assert!(list.stdout.contains("(not a string)"), "{}", list.stdout);

    // Not UTF-8; the test's own connection sends bytes as they are.
    let mut conn = redis.conn();
    let () = redis::cmd("SET")
        .arg("production:c_bytes")
        .arg(&b"{\"\xff\xfe\": 1}"[..])
        .query(&mut conn)
        .unwrap();
    let bytes = operator.run(&["inspect", "bytes"]).await;
    assert_eq!(bytes.code, 1, "{bytes:?}");

    situation("", json!({"sso": {"calculatedEntitlement": {"type": "FEATURE", "feature": {"id": "sso", "featureType": "BOOLEAN"}}, "usageData": {}}})).store(&redis, "newer");
    let newer = operator.run(&["inspect", "newer"]).await;
    assert!(
        newer
            .stdout
            .contains("layout of the vendor's service 3.0.0"),
        "{}",
        newer.stdout
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_taken_to_the_letter() {
    let redis = Redis::start().await;
    let operator = Operator::of(&redis);
    for customer in ["a b", "a*", "a?", "[ab]", "a\\*", "^-a", "ä→😀", "{a}:b"] {
        redis.cmd(&["FLUSHALL"]);
        situation("", all()).store(&redis, customer);
        let key = format!("production:c_{customer}:credit_*");
        redis.cmd(&["SET", &key, r#"{"currentUsage":1}"#]);
        redis.cmd(&["SET", &format!("production:c_{customer}:r_s [x]"), "{}"]);
        // Of others, whom a glob would find too.
        for other in ["a b2", "ab", "aa", "a", "b", "^-ab"] {
            redis.cmd(&["SET", &format!("production:c_{other}:credit_theirs"), "{}"]);
            redis.cmd(&["SET", &format!("production:c_{other}:r_theirs"), "{}"]);
        }
        let said = operator.run(&["inspect", customer, "--json"]).await;
        let json = said.json();
        let names: Vec<&str> = json["stored"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| pair["name"].as_str().unwrap())
            .collect();
        assert_eq!(
            names,
            ["entitlements", "usage of seats", "credit *"],
            "{customer}"
        );
        assert_eq!(json["resources"].as_array().unwrap().len(), 1, "{customer}");
        assert_eq!(json["resources"][0]["id"], "s [x]", "{customer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_scan_the_rest_is_shown() {
    let redis = Redis::start().await;
    situation("", all()).store(&redis, "acme");
    redis.cmd(&[
        "ACL",
        "SETUSER",
        "ops",
        "on",
        ">pw",
        "~production*",
        "+mget",
        "+ttl",
        "+ping",
        "+info",
        "+client",
        "+select",
    ]);
    let operator = Operator::of(&redis)
        .env("REDIS_USER", "ops")
        .env("REDIS_PASSWORD", "pw");
    let said = operator.run(&["inspect", "acme"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.contains("not scanned"), "{}", said.stdout);
    assert!(said.stdout.contains("NOPERM"), "{}", said.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_and_a_bad_redis_end_with_the_codes_that_are_documented() {
    let redis = Redis::start_with(&["--requirepass", "secret-word"]).await;
    let operator = Operator::of(&redis).env("REDIS_PASSWORD", "secret-word");
    let nobody_listens = operator.clone().env("REDIS_PORT", free_port());
    let wrong = operator.clone().env("REDIS_PASSWORD", "wrong-word");
    let unset = operator.clone().unset("REDIS_HOST");
    for command in [
        &["inspect", "acme"][..],
        &["stats"],
        &["purge", "acme", "--yes"],
        &["dead-letter", "list"],
    ] {
        for (operator, code, part) in [
            (&nobody_listens, 69, "Redis: "),
            (&wrong, 77, "Redis: "),
            (&unset, 78, "REDIS_HOST is not set"),
        ] {
            let done = operator.run(command).await;
            assert_eq!(done.code, code, "{command:?}: {done:?}");
            assert!(done.stderr.contains(part), "{command:?}: {done:?}");
            assert_eq!(done.stdout, "", "{command:?}: {done:?}");
            assert!(!done.stderr.contains("-word"), "{command:?}: {done:?}");
        }
    }
    for arguments in [
        &["inspect"][..],
        &["inspect", ""],
        &["inspect", "a:f_b"],
        &["inspect", "a", "--resource", "b#timestamp"],
        &["inspect", "a", "--feature", "b#purged"],
        &["inspect", "a", "--watch", "0"],
        &["stats", "--limit", "0"],
        &["purge"],
        &["purge", "a:r_b", "--yes"],
        &["purge", "a", "--at", "yesterday", "--yes"],
        &["purge", "a"],
        &["dead-letter"],
        &["dead-letter", "show"],
        &["dead-letter", "replay"],
        &["dead-letter", "replay", "1-0", "--all"],
        &["dead-letter", "purge", "--all"],
    ] {
        let done = operator.run(arguments).await;
        assert_eq!(done.code, 2, "{arguments:?}: {done:?}");
        assert_eq!(done.stdout, "", "{arguments:?}: {done:?}");
        assert!(!done.stderr.is_empty(), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_looks_again_until_its_reader_has_seen_enough() {
    let redis = Redis::start().await;
    situation("", all()).store(&redis, "acme");
    let (mut child, _folder) =
        Operator::of(&redis).start(&["inspect", "acme", "--json", "--watch", "1"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = lines.next_line().await.unwrap().unwrap();
        serde_json::from_str::<Value>(&line).unwrap()
    };
    assert_eq!(next().await["answer"]["from"], "redis");
    redis.cmd(&["DEL", "production:c_acme"]);
    tokio::time::timeout(Duration::from_secs(20), async {
        while next().await["answer"]["from"] != "edge-api" {}
    })
    .await
    .expect("the change is seen");
    drop(lines);
    let done = tokio::time::timeout(Duration::from_secs(20), child.wait_with_output()).await;
    let done = done.expect("a closed pipe ends it").unwrap();
    assert_eq!(done.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&done.stderr), "");
}
