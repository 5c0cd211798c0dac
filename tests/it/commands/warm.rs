//! `warm` and `verify`, between a Redis and an Edge API.

use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::commands::messages::{Cli, ended};
use crate::stand::state;
use testkit::{Answer, EdgeMock, Redis, free_port, sdk, until};

const UPDATED: &str = "2025-11-14T19:59:45.133Z";
const UPDATED_MS: &str = "1763150385133";

fn cli(redis: &Redis, edge: &EdgeMock) -> Cli {
    Cli::new(redis)
        .env("EDGE_API_URL", edge.url())
        .env("SERVER_API_KEY", "test-key")
}

fn calls(limit: u64, used: u64) -> Value {
    json!({"__typename": "Entitlement", "isGranted": true, "accessDeniedReason": null, "usageLimit": limit,
        "hasUnlimitedUsage": false, "hasSoftLimit": false, "currentUsage": used, "enumValues": null,
        "entitlementUpdatedAt": UPDATED, "usageUpdatedAt": "2025-11-14T19:50:00.000Z", "resetPeriod": null,
        "resetPeriodConfiguration": null,
        "feature": {"__typename": "EntitlementFeature", "refId": "calls", "displayName": "Calls",
            "featureType": "NUMBER", "meterType": "Incremental", "featureUnits": "call", "featureUnitsPlural": "calls"}})
}

fn sso() -> Value {
    json!({"usageLimit": null, "hasUnlimitedUsage": false, "hasSoftLimit": false, "currentUsage": null,
        "entitlementUpdatedAt": UPDATED,
        "feature": {"refId": "sso", "featureType": "BOOLEAN", "meterType": "None"}})
}

fn entitlements(list: &[Value]) -> Answer {
    Answer::json(200, &json!({"data": {"entitlements": list}}))
}

fn path(customer: &str) -> String {
    format!("/v1/c/{customer}/entitlements.json")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_answers_from_what_warm_loaded() {
    let (redis, edge, witness) = (
        Redis::start().await,
        EdgeMock::start().await,
        EdgeMock::start().await,
    );
    edge.answer(&path("acme"), entitlements(&[calls(100, 7), sso()]));
    let cli = cli(&redis, &edge);
    // The policy of the worker is none of a warm-up.
    let cli = cli.env("CACHE_UPDATE_POLICY", "UPDATE_IF_EXISTS");
    cli.run(&["warm", "--customers", "-"], "acme\n")
        .await
        .says(0, &["1 loaded, 0 stale, 0 empty, 0 not found, 0 failed"]);
    assert_eq!(
        redis.get("production:c_acme#timestamp").as_deref(),
        Some(UPDATED_MS)
    );
    assert_eq!(
        redis.get("production:c_acme:f_calls").as_deref(),
        Some(r#"{"currentUsage":7}"#)
    );
    assert_eq!(
        redis.get("production:c_acme:f_calls#timestamp").as_deref(),
        Some("1763149800000")
    );
    // The source says nothing of it.
    assert_eq!(redis.get("production:c_acme:metadata"), None);
    assert_eq!(redis.ttl("production:c_acme") / 1000, 604);
    let request = &edge.requests()[0];
    assert_eq!(
        (request.header("x-api-key"), request.header("x-api-version")),
        ("test-key", "1")
    );

    let query = |method: &str, feature: &str| json!({"method": method, "args": {"customerId": "acme", "featureId": feature}});
    let queries = [
        query("getMeteredEntitlement", "calls"),
        query("getBooleanEntitlement", "sso"),
    ];
    let answers = sdk::ask(&redis, "production", &witness.url(), &queries).await;
    assert_eq!(
        (&answers[0]["currentUsage"], &answers[0]["usageLimit"]),
        (&json!(7), &json!(100)),
        "{answers:?}"
    );
    assert_eq!(answers[1]["hasAccess"], true, "{answers:?}");
    let asked: Vec<_> = witness
        .requests_to("/v1/c/")
        .iter()
        .map(|it| it.path.clone())
        .collect();
    assert!(asked.is_empty(), "the SDK asked the Edge API: {asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_says_what_came_of_each() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    edge.answer(&path("acme"), entitlements(&[calls(100, 7)]));
    edge.answer(&path("empty"), entitlements(&[]));
    edge.answer(&path("older"), entitlements(&[sso()]));
    edge.answer(
        &path("odd"),
        Answer::text(
            200,
            "{\"data\":{\"entitlements\":[{\"usageLimit\":\"x\"}]}}",
        ),
    );
    edge.answer(&path("cut"), Answer::text(200, "{\"data\":{\"entitl"));
    edge.answer(
        &path("wrong"),
        Answer::json(200, &json!({"errors": [{"message": "no"}], "data": null})),
    );
    edge.answer(&path("a%2Fb%20c%3F"), entitlements(&[sso()]));
    for (key, value) in [
        ("", "{}"),
        ("#timestamp", "9999999999999"),
        (":metadata", "{}"),
        (":metadata#timestamp", "9999999999999"),
    ] {
        redis.set(&format!("production:c_older{key}"), value);
    }
    let cli = cli(&redis, &edge);
    let list = "acme\n\nempty\nolder\nnobody\nodd\ncut\nwrong\na/b c?\nacme\n{\"customerId\":\"acme\",\"resourceId\":\"no/where\"}\n..\n";
    let ran = cli.run(&["warm", "--json", "--customers", "-"], list).await;
    assert_eq!(ran.code, 1, "{}", ran.err);
    let mut report = ran.json();
    let failures = report["failures"].take();
    assert_eq!(
        report,
        json!({"loaded": 3, "stale": 1, "empty": 1, "kept": 0, "credits": 0, "not_found": 1, "failed": 4, "done_before": 0,
        "behind": 0, "failures": null})
    );
    let reason = |customer: &str| {
        let failures = failures.as_array().unwrap();
        let failure = failures.iter().find(|it| it["customer_id"] == customer);
        failure.unwrap_or_else(|| panic!("{customer}"))["reason"].to_string()
    };
    for (customer, part) in [
        ("odd", "entitlements[0].usageLimit"),
        ("cut", "malformed"),
        ("wrong", "it contains errors"),
        ("..", "path"),
    ] {
        assert!(reason(customer).contains(part), "{}", reason(customer));
    }
    let resource = edge
        .requests_to(&path("acme"))
        .into_iter()
        .find(|it| !it.query.is_empty())
        .unwrap();
    assert_eq!(resource.query, "resourceId=no%2Fwhere");
    // Named twice, asked for once; and the resource.
    assert_eq!(edge.requests_to(&path("acme")).len(), 2);
    assert_eq!(redis.get("production:c_empty").as_deref(), Some("{}"));
    assert_eq!(redis.get("production:c_older").as_deref(), Some("{}"));
    assert!(redis.get("production:c_a/b c?").is_some());
    // Without a time of the source's own it is as old as the request.
    let at: u128 = redis
        .get("production:c_empty#timestamp")
        .unwrap()
        .parse()
        .unwrap();
    assert!(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() - at < 60_000);
}

/// What Redis holds of acme: entitlements and usage, each as of a time.
fn hold(redis: &Redis, entitlements: &str, usage: &str) {
    for (key, value, at) in [
        ("", "{}", entitlements),
        (
            ":metadata",
            r#"{"accessDeniedReason":"NoActiveSubscription"}"#,
            entitlements,
        ),
        (":f_calls", r#"{"currentUsage":50}"#, usage),
    ] {
        redis.set(&format!("production:c_acme{key}"), value);
        redis.set(&format!("production:c_acme{key}#timestamp"), at);
    }
}

fn without_times(mut entitlement: Value) -> Value {
    let fields = entitlement.as_object_mut().unwrap();
    fields.retain(|name, _| !name.ends_with("UpdatedAt"));
    entitlement
}

/// The Edge API's list does not hold the reason why a customer as a whole is denied.
#[tokio::test(flavor = "multi_thread")]
async fn the_reason_of_a_denial_outlives_warm_and_repair() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    edge.answer(&path("acme"), entitlements(&[calls(100, 7), sso()]));
    let cli = cli(&redis, &edge);
    for command in [&["warm"][..], &["verify", "--repair"]] {
        hold(&redis, "1763150000000", "1763140000000");
        let words = [command, &["--customers", "-"]].concat();
        assert_eq!(cli.run(&words, "acme").await.code, 0);
        assert_eq!(
            redis.get("production:c_acme#timestamp").as_deref(),
            Some(UPDATED_MS)
        );
        assert_eq!(
            redis.get("production:c_acme:metadata").as_deref(),
            Some(r#"{"accessDeniedReason":"NoActiveSubscription"}"#)
        );
        assert_eq!(
            redis.get("production:c_acme:metadata#timestamp").as_deref(),
            Some("1763150000000")
        );
    }
    // What is torn there cannot be repaired from this source, and is reported.
    redis.cmd(&["DEL", "production:c_acme:metadata#timestamp"]);
    cli.run(&["verify", "--repair", "--customers", "-"], "acme")
        .await
        .says(1, &["torn, left", "production:c_acme:metadata"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_time_is_written_only_where_nothing_is_stored() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let cli = cli(&redis, &edge);
    let answers = [
        vec![without_times(calls(100, 7)), without_times(sso())],
        vec![],
    ];
    for answer in answers {
        edge.answer(&path("acme"), entitlements(&answer));
        hold(&redis, "1763150000000", "1763140000000");
        let before = redis.dump("");
        cli.run(&["warm", "--customers", "-"], "acme").await.says(
            0,
            &[
                "0 loaded, 0 stale, 0 empty",
                "1 left unchanged: the Edge API returns no time to compare",
            ],
        );
        assert_eq!(redis.dump(""), before);
        cli.run(&["verify", "--repair", "--customers", "-"], "acme")
            .await
            .says(
                u8::from(!answer.is_empty()).into(),
                &[if answer.is_empty() {
                    "1 the same"
                } else {
                    "1 drifted (0 repaired)"
                }],
            );
        assert_eq!(redis.dump(""), before);
        redis.cmd(&["FLUSHALL"]);
        cli.run(&["warm", "--customers", "-"], "acme").await.says(
            0,
            &[if answer.is_empty() {
                "1 empty"
            } else {
                "1 loaded"
            }],
        );
        assert!(redis.get("production:c_acme#timestamp").is_some());
        redis.cmd(&["FLUSHALL"]);
    }
    // The usage has a time of its own, and the entitlements have none.
    let mut dated = calls(100, 7);
    dated
        .as_object_mut()
        .unwrap()
        .remove("entitlementUpdatedAt");
    edge.answer(&path("acme"), entitlements(&[dated]));
    hold(&redis, "1763150000000", "1763140000000");
    cli.run(&["warm", "--json", "--customers", "-"], "acme")
        .await
        .says(0, &[r#""kept": 1"#]);
    assert_eq!(redis.get("production:c_acme").as_deref(), Some("{}"));
    assert_eq!(
        redis.get("production:c_acme:f_calls").as_deref(),
        Some(r#"{"currentUsage":7}"#)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn loaded_means_that_the_entitlements_were_written() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    edge.answer(&path("acme"), entitlements(&[calls(100, 7), sso()]));
    // Newer entitlements, older usage.
    hold(&redis, "1763150385134", "1763140000000");
    cli(&redis, &edge)
        .run(&["warm", "--customers", "-"], "acme")
        .await
        .says(0, &["0 loaded, 1 stale"]);
    assert_eq!(redis.get("production:c_acme").as_deref(), Some("{}"));
    assert_eq!(
        redis.get("production:c_acme:f_calls").as_deref(),
        Some(r#"{"currentUsage":7}"#)
    );
}

/// Our layout cannot hold credit entitlements: a customer that has them would seem to have none.
#[tokio::test(flavor = "multi_thread")]
async fn customers_with_credits_are_left_to_sdks_and_counted() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let credits = json!({"__typename": "CreditEntitlement", "isGranted": true, "usageLimit": 100, "currentUsage": 60,
        "usageUpdatedAt": UPDATED, "entitlementUpdatedAt": UPDATED, "currency": {"currencyId": "tokens"}});
    edge.answer(&path("rich"), entitlements(&[calls(100, 7), credits]));
    edge.answer(&path("plain"), entitlements(&[calls(100, 7)]));
    // What an SDK of 4.12 wrote.
    let theirs = r#"{"calls":{"calculatedEntitlement":{"type":"FEATURE"},"usageData":{}}}"#;
    redis.set("production:c_rich", theirs);
    redis.set("production:c_rich#timestamp", "1763150385000");
    let list = "rich\nplain";
    let cli = cli(&redis, &edge);
    for command in ["warm", "verify"] {
        let before = redis.dump("production:c_rich");
        let ran = cli
            .run(&[command, "--json", "--customers", "-"], list)
            .await;
        assert_eq!(ran.code, 0, "{command}: {}", ran.err);
        let report = ran.json();
        assert_eq!(report["credits"], 1, "{command}: {report}");
        let done = if command == "warm" { "loaded" } else { "same" };
        assert_eq!(report[done], 1, "{command}: {report}");
        assert_eq!(redis.dump("production:c_rich"), before, "{command}");
    }
    // Not by a repair either.
    cli.run(&["verify", "--repair", "--customers", "-"], list)
        .await
        .says(0, &["1 the same", "credit"]);
    assert_eq!(redis.get("production:c_rich").as_deref(), Some(theirs));

    // Where all readers are 3.x, the list is written without them.
    let omitting = cli.env("CREDIT_ENTITLEMENTS", "omit");
    omitting
        .run(&["verify", "--repair", "--customers", "-"], list)
        .await
        .says(0, &["1 drifted (1 repaired)"]);
    let written = redis.get("production:c_rich").unwrap();
    assert!(
        written.contains("calls") && !written.contains("tokens"),
        "{written}"
    );
    omitting
        .run(&["warm", "--customers", "-"], list)
        .await
        .says(0, &["2 loaded"]);
    omitting
        .run(&["verify", "--customers", "-"], list)
        .await
        .says(0, &["2 the same"]);
}

/// A clock that was ahead at the source must not keep out later state.
#[tokio::test(flavor = "multi_thread")]
async fn a_time_ahead_counts_as_the_time_of_the_request() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let mut ahead = calls(100, 7);
    for time in ["entitlementUpdatedAt", "usageUpdatedAt"] {
        ahead[time] = "2999-01-01T00:00:00.000Z".into();
    }
    edge.answer(&path("acme"), entitlements(&[ahead]));
    cli(&redis, &edge)
        .run(&["warm", "--customers", "-"], "acme")
        .await
        .says(0, &["1 loaded"]);
    for key in [
        "production:c_acme#timestamp",
        "production:c_acme:f_calls#timestamp",
    ] {
        let at: u128 = redis.get(key).unwrap().parse().unwrap();
        assert!(at <= std::time::UNIX_EPOCH.elapsed().unwrap().as_millis());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_only_sdks_write_entitlements_no_command_does() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    edge.answer(&path("acme"), entitlements(&[calls(100, 7)]));
    let cli = cli(&redis, &edge).env("CACHE_UPDATE_POLICY", "INVALIDATE");
    for command in [&["warm"][..], &["verify", "--repair"]] {
        cli.run(&[command, &["--customers", "-"]].concat(), "acme")
            .await
            .says(78, &["only SDKs write them"]);
    }
    assert!(redis.dump("").is_empty());
    assert_eq!(edge.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_loads_what_was_purged_before() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    edge.answer(&path("acme"), entitlements(&[sso()]));
    // Later than the entitlements changed, earlier than they are asked for.
    redis.set("production:c_acme#purged", "1763150400000");
    let cli = cli(&redis, &edge);
    cli.run(&["warm", "--customers", "-"], "acme")
        .await
        .says(0, &["1 loaded"]);
    assert_eq!(
        redis.get("production:c_acme#timestamp").as_deref(),
        Some(UPDATED_MS)
    );
    // What was sent before the purge is kept out still.
    let late = json!({"type": "measurement.reported", "customerId": "acme", "featureId": "calls", "currentUsage": 1,
        "timestamp": 1763150399999_u64});
    cli.run(&["apply", "-"], &late.to_string())
        .await
        .says(0, &["stale"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_finds_the_resources_that_redis_holds() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    edge.answer(&path("acme"), entitlements(&[sso()]));
    for key in [
        "acme:r_site-1",
        "acme:r_site-2",
        "globex:r_site-3",
        "acme:f_x:r_site-4",
    ] {
        redis.set(&format!("production:c_{key}"), "{}");
    }
    let cli = cli(&redis, &edge);
    cli.run(&["warm", "--customers", "-"], "acme")
        .await
        .says(0, &["1 loaded"]);
    assert_eq!(edge.count(), 1);
    cli.run(&["warm", "--with-resources", "--customers", "-"], "acme")
        .await
        .says(0, &["3 loaded"]);
    let mut asked: Vec<String> = edge.requests()[1..]
        .iter()
        .map(|it| it.query.clone())
        .collect();
    asked.sort();
    assert_eq!(asked, ["", "resourceId=site-1", "resourceId=site-2"]);
    assert_eq!(
        redis.get("production:c_acme:r_site-1#timestamp").as_deref(),
        Some(UPDATED_MS)
    );
    // A resource that readers will not take is reported.
    redis.set("production:c_acme#timestamp", "1763150385134");
    cli.run(&["warm", "--customers", "-"], "acme\tsite-1")
        .await
        .says(0, &["1 resources are older than their customer"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_and_absent_servers_have_their_codes() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let with = cli(&redis, &edge);
    for command in ["warm", "verify"] {
        with.run(&[command, "--customers", "absent"], "")
            .await
            .says(66, &["cannot read "]);
        with.run(&[command, "--customers", "-"], "\n")
            .await
            .says(66, &["contains no customers"]);
        with.run(&[command, "--customers", "-"], "a\n{\"id\":1}\na:f_b\n")
            .await
            .says(66, &["line 2", "line 3", ":f_"]);
        with.run(&[command], "").await.says(2, &["--customers"]);
        with.run(&[command, "--customers", "-", "--rate", "0"], "")
            .await
            .says(2, &["--rate"]);
        with.run(&[command, "--customers", "-", "--concurrency", "0"], "")
            .await
            .says(2, &["--concurrency"]);
        let none = Cli::new(&redis);
        none.run(&[command, "--customers", "-"], "acme")
            .await
            .says(78, &["SERVER_API_KEY is not set"]);
        let away = with_redis_at(free_port(), &edge);
        away.run(&[command, "--customers", "-"], "acme")
            .await
            .says(69, &["Redis: not reachable"]);
        let away = Cli::new(&redis)
            .env("SERVER_API_KEY", "k")
            .env("EDGE_API_URL", format!("http://127.0.0.1:{}", free_port()));
        away.run(&[command, "--customers", "-"], "acme")
            .await
            .says(69, &["acme: the Edge API is not reachable"]);
        edge.answer(&path("acme"), Answer::text(401, "{}"));
        with.run(&[command, "--customers", "-"], "acme")
            .await
            .says(77, &["SERVER_API_KEY was refused"]);
    }
    with.run(&["verify", "--customers", "-", "--sample", "1"], "")
        .await
        .says(2, &["cannot be used with"]);
    assert!(redis.dump("").is_empty());
}

fn with_redis_at(port: u16, edge: &EdgeMock) -> Cli {
    Cli::bare()
        .env("REDIS_HOST", "127.0.0.1")
        .env("REDIS_PORT", port)
        .env("EDGE_API_URL", edge.url())
        .env("SERVER_API_KEY", "test-key")
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_waits_as_long_as_it_is_told() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let slow_down = Answer::text(429, "{}").header("retry-after", "1");
    edge.answer_in_turn(
        &path("acme"),
        [
            slow_down,
            Answer::text(503, "{}"),
            Answer::close(),
            entitlements(&[sso()]),
        ],
    );
    let cli = cli(&redis, &edge);
    cli.run(&["warm", "--customers", "-"], "acme")
        .await
        .says(0, &["1 loaded"]);
    let requests = edge.requests();
    assert_eq!(requests.len(), 4);
    let waited = requests[1].at - requests[0].at;
    assert!(waited >= Duration::from_millis(950), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_keeps_to_its_bounds() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let list: Vec<String> = (0..20).map(|at| format!("c{at}")).collect();
    for customer in &list {
        edge.answer(
            &path(customer),
            entitlements(&[sso()]).after(Duration::from_millis(300)),
        );
    }
    let cli = cli(&redis, &edge);
    cli.run(
        &[
            "warm",
            "--rate",
            "20",
            "--concurrency",
            "20",
            "--customers",
            "-",
        ],
        &list.join("\n"),
    )
    .await
    .says(0, &["20 loaded"]);
    let at: Vec<_> = edge.requests().iter().map(|it| it.at).collect();
    assert!(
        at[19] - at[0] >= Duration::from_millis(850),
        "{:?}",
        at[19] - at[0]
    );

    cli.run(
        &[
            "warm",
            "--rate",
            "1000",
            "--concurrency",
            "2",
            "--customers",
            "-",
        ],
        &list[..6].join("\n"),
    )
    .await
    .says(0, &["6 loaded"]);
    let at: Vec<_> = edge.requests()[20..].iter().map(|it| it.at).collect();
    for later in 2..6 {
        assert!(at[later] - at[later - 2] >= Duration::from_millis(280));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_goes_on_where_it_was_stopped() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let list: Vec<String> = (0..30).map(|at| format!("c{at}")).collect();
    for customer in &list {
        edge.answer(&path(customer), entitlements(&[sso()]));
    }
    let cli = cli(&redis, &edge);
    cli.file("customers", &list.join("\n"));
    let words = [
        "warm",
        "--customers",
        "customers",
        "--resume",
        "done",
        "--rate",
        "20",
        "--json",
    ];
    let child = cli.spawn(&words);
    let pid = Pid::from_raw(child.id().unwrap().cast_signed());
    until("some are loaded", Duration::from_secs(20), async || {
        edge.count() >= 4
    })
    .await;
    signal::kill(pid, Signal::SIGINT).unwrap();
    let ran = ended(child, "").await;
    ran.says(130, &["stopped", "--resume done"]);
    assert_eq!(ran.json()["stopped"], true);
    let first = edge.count();
    assert!((4..30).contains(&first), "{first}");

    let ran = cli
        .run(
            &[
                "warm",
                "--customers",
                "customers",
                "--resume",
                "done",
                "--json",
            ],
            "",
        )
        .await;
    assert_eq!(
        (ran.code, &ran.json()["done_before"]),
        (0, &json!(first)),
        "{}",
        ran.err
    );
    for customer in &list {
        assert_eq!(edge.requests_to(&path(customer)).len(), 1, "{customer}");
        assert!(redis.get(&format!("production:c_{customer}")).is_some());
    }
    let ran = cli
        .run(
            &["warm", "--customers", "customers", "--resume", "done"],
            "",
        )
        .await;
    ran.says(0, &["0 loaded", "30 skipped"]);
    assert_eq!(edge.count(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_drift_and_repairs_it() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let list = ["same", "missing", "torn", "differs", "used", "older"];
    for customer in list {
        edge.answer(&path(customer), entitlements(&[calls(100, 7), sso()]));
    }
    let cli = cli(&redis, &edge);
    let lines = list.join("\n");
    cli.run(&["warm", "--customers", "-"], &lines)
        .await
        .says(0, &["6 loaded"]);
    cli.run(&["verify", "--customers", "-"], &lines)
        .await
        .says(0, &["6 the same, 0 drifted, 0 not found, 0 failed"]);

    let key = |rest: &str| format!("production:c_{rest}");
    let all: Vec<String> = redis.dump(&key("missing")).into_keys().collect();
    for name in &all {
        redis.cmd(&["DEL", name]);
    }
    redis.cmd(&["DEL", &key("torn#timestamp")]);
    redis.set(
        &key("differs"),
        &redis
            .get(&key("differs"))
            .unwrap()
            .replace(r#""usageLimit":100"#, r#""usageLimit":90"#),
    );
    redis.set(&key("used:f_calls"), r#"{"currentUsage":6}"#);
    redis.set(&key("older#timestamp"), "1763150385132");
    let before = redis.dump("");
    let ran = cli
        .run(&["verify", "--json", "--customers", "-"], &lines)
        .await;
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert_eq!(redis.dump(""), before);
    let report = ran.json();
    assert_eq!(
        (&report["same"], &report["drifted"]),
        (&json!(1), &json!(5))
    );
    let mut drift: Vec<String> = report["drift"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            let place = it["field"].as_str().unwrap_or(it["key"].as_str().unwrap());
            format!(
                "{} {} {place} {} {}",
                it["customer_id"].as_str().unwrap(),
                it["drift"].as_str().unwrap(),
                it["redis"],
                it["source"]
            )
        })
        .collect();
    drift.sort();
    assert_eq!(
        drift,
        [
            "differs differs calls.calculatedEntitlement.usageLimit 90 100",
            "missing missing production:c_missing null null",
            "older older production:c_older 1763150385132 1763150385133",
            "torn torn production:c_torn null null",
            "used usage_differs currentUsage 6 7",
        ]
    );
    cli.run(&["verify", "--repair", "--customers", "-"], &lines)
        .await
        .says(0, &["5 drifted (5 repaired)", "usage differs, repaired"]);
    cli.run(&["verify", "--customers", "-"], &lines)
        .await
        .says(0, &["6 the same"]);

    // What is newer here than there stays, and is reported.
    redis.set(&key("used:f_calls"), r#"{"currentUsage":8}"#);
    redis.set(&key("used:f_calls#timestamp"), "1763150400000");
    cli.run(&["verify", "--repair", "--customers", "-"], &lines)
        .await
        .says(1, &["1 drifted (0 repaired)", "usage differs, left"]);
    assert_eq!(
        redis.get(&key("used:f_calls")).as_deref(),
        Some(r#"{"currentUsage":8}"#)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_looks_twice_before_it_calls_a_difference_drift() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let answers = [7, 7, 8].map(|used| entitlements(&[calls(100, used)]));
    edge.answer_in_turn(&path("acme"), answers);
    let cli = cli(&redis, &edge);
    cli.run(&["warm", "--customers", "-"], "acme")
        .await
        .says(0, &["1 loaded"]);
    redis.set("production:c_acme:f_calls", r#"{"currentUsage":8}"#);
    cli.run(&["verify", "--customers", "-"], "acme")
        .await
        .says(0, &["1 the same, 0 drifted"]);
    assert_eq!(edge.count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_takes_a_sample_of_what_redis_holds() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let cli = cli(&redis, &edge);
    for customer in ["acme", "globex"] {
        edge.answer(&path(customer), entitlements(&[sso()]));
    }
    cli.run(&["warm", "--customers", "-"], "acme\nacme\tsite\nglobex")
        .await
        .says(0, &["3 loaded"]);
    cli.run(&["verify", "--sample", "100"], "")
        .await
        .says(0, &["3 the same"]);
    cli.run(&["verify", "--sample", "2"], "")
        .await
        .says(0, &["2 the same"]);
    cli.run(&["verify", "--customers", "-"], "nobody")
        .await
        .says(0, &["1 not found"]);
    // Known here and not there.
    cli.run(&["apply", "-"], &state("gone", 5))
        .await
        .says(0, &["applied"]);
    cli.run(&["verify", "--sample", "100", "--repair"], "")
        .await
        .says(1, &["gone", "unknown to the source, left"]);
    let empty = Redis::start().await;
    let none = with_redis_at(empty.port(), &edge);
    none.run(&["verify", "--sample", "5"], "")
        .await
        .says(0, &["0 the same"]);
}

/// The rights that docs/operations.md names for the worker, and what it adds for looking through the keys.
#[tokio::test(flavor = "multi_thread")]
async fn the_documented_rights_are_enough() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    edge.answer(&path("acme"), entitlements(&[calls(100, 7)]));
    let document = std::fs::read_to_string(testkit::repo("docs/operations.md")).unwrap();
    let line = document
        .lines()
        .find(|line| line.starts_with("ACL SETUSER"))
        .unwrap();
    redis.cmd(&line.split_whitespace().collect::<Vec<_>>());
    let cli = cli(&redis, &edge)
        .env("REDIS_USER", "sync")
        .env("REDIS_PASSWORD", "password");
    cli.run(&["warm", "--customers", "-"], "acme")
        .await
        .says(0, &["1 loaded"]);
    cli.run(&["verify", "--customers", "-"], "acme")
        .await
        .says(0, &["1 the same"]);
    cli.run(&["explain", "-"], &state("acme", 5))
        .await
        .says(0, &["stale"]);
    cli.run(&["verify", "--sample", "1"], "")
        .await
        .says(77, &["NOPERM"]);
    redis.cmd(&["ACL", "SETUSER", "sync", "+scan"]);
    cli.run(&["verify", "--sample", "1"], "")
        .await
        .says(0, &["1 the same"]);
    cli.run(&["warm", "--with-resources", "--customers", "-"], "acme")
        .await
        .says(0, &["1 loaded"]);
}
