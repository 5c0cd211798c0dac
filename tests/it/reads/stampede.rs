//! Many questions at once, and an Edge API that is slow, fails or says nothing of use.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use super::{Client, SOON, UPDATED, VERSION, context, listed, path, version};
use testkit::http::Reply;
use testkit::reader::KEY;
use testkit::{Answer, EdgeMock, Reader, Redis, http, until};

const REQUESTS: &str = "entitlement_sync_read_upstream_requests_total";

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_questions_at_once_are_one_fetch() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    let slow = listed(2, UPDATED).after(Duration::from_secs(4));
    edge.answer(&path("acme"), slow);
    let port = reader.read_port();
    let mut questions = JoinSet::new();
    for _ in 0..10_000 {
        questions.spawn(async move {
            // The system takes so many new connections at a time.
            let mut client = loop {
                if let Ok(client) = Client::try_connect(port).await {
                    break client;
                }
            };
            version(&client.get(&path("acme")).await)
        });
    }
    let answers = questions.join_all().await;
    assert_eq!(answers.len(), 10_000);
    assert!(answers.iter().all(|version| *version == Some(2)));
    assert_eq!(edge.requests_to("/v1/c/").len(), 1);
    let joined = reader.metric("entitlement_sync_read_joined_total").await;
    assert!(joined > 100.0, "only {joined} waited for the same fetch");
}

/// A resource is answered beside its customer, which all of its resources have in common.
#[tokio::test(flavor = "multi_thread")]
async fn the_customer_of_many_resources_is_fetched_once() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    let slow = listed(2, UPDATED).after(Duration::from_secs(1));
    edge.answer(&path("acme"), slow);
    let port = reader.read_port();
    let mut questions = JoinSet::new();
    for site in 0..40 {
        questions.spawn(async move {
            let mut client = Client::connect(port).await;
            version(
                &client
                    .get(&format!("{}?resourceId=site-{site}", path("acme")))
                    .await,
            )
        });
    }
    let answers = questions.join_all().await;
    assert!(answers.iter().all(|version| *version == Some(2)));
    // Each resource, and the customer.
    assert_eq!(edge.requests_to("/v1/c/acme").len(), 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_that_does_not_exist_is_asked_for_once() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    for _ in 0..50 {
        assert_eq!(reader.get(&path("nobody")).await.status, 404);
        let reply = reader.flag(VERSION, &context("nobody")).await;
        assert_eq!((reply.status, &reply.json()["value"]), (200, &json!(false)));
    }
    assert_eq!(edge.requests_to("/v1/c/nobody").len(), 1);
    // An event tells that it exists now.
    super::store(&redis, "nobody", &super::map(1), 1);
    until("it is known", SOON, async || {
        reader.get(&path("nobody")).await.status == 200
    })
    .await;
}

fn is_cannot_tell(reply: &Reply) -> bool {
    reply.status == 503 && reply.header("retry-after") == "30"
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_api_that_fails_is_left_alone() {
    let failures = [
        ("500", Answer::text(500, "no")),
        ("garbage", Answer::text(200, "<html>")),
        (
            "errors",
            Answer::json(200, &json!({"errors": [{"message": "no"}], "data": null})),
        ),
        (
            "no list",
            Answer::json(200, &json!({"data": {"entitlements": {}}})),
        ),
        ("closed", Answer::close()),
        (
            "redirect",
            Answer::text(302, "").header("location", "http://127.0.0.1:1/"),
        ),
        ("401", Answer::text(401, "no")),
        ("429", Answer::text(429, "no").header("retry-after", "7")),
    ];
    for (name, answer) in failures {
        let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
        let reader = Reader::builder(&redis, &edge.url()).start().await;
        for number in 0..500 {
            edge.answer(&path(&format!("c{number}")), answer.clone());
        }
        let mut client = Client::connect(reader.read_port()).await;
        for number in 0..500 {
            let reply = client.get(&path(&format!("c{number}"))).await;
            assert!(is_cannot_tell(&reply), "{name}: {reply:?}");
        }
        let asked = edge.requests_to("/v1/c/").len();
        let most = if name == "429" { 1 } else { 5 };
        // The pauses between the next tries grow to half a minute.
        assert!((1..most + 20).contains(&asked), "{name}: {asked} requests");
        until("the breaker is open", SOON, async || {
            reader.metric("entitlement_sync_read_breaker_open").await == 1.0
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_declined_says_nothing_of_the_others() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    edge.answer(&path("odd"), Answer::text(400, "no"));
    for _ in 0..20 {
        assert!(is_cannot_tell(&reader.get(&path("odd")).await));
    }
    edge.answer(&path("acme"), listed(2, UPDATED));
    assert_eq!(version(&reader.get(&path("acme")).await), Some(2));
}

fn threads(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .count()
}

/// 64 under way and 256 that wait; all others are told at once.
#[tokio::test(flavor = "multi_thread")]
async fn an_edge_api_that_hangs_keeps_only_so_many_waiting() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    let before = (reader.rss_kib(), threads(reader.pid()));
    let port = reader.read_port();
    for number in 0..1_000 {
        edge.answer(&path(&format!("c{number}")), Answer::hang());
    }
    let mut questions = JoinSet::new();
    for number in 0..1_000 {
        questions.spawn(async move {
            let mut client = Client::connect(port).await;
            client.get(&path(&format!("c{number}"))).await
        });
    }
    let mut refused = 0;
    while refused < 1_000 - 64 - 256 {
        let reply = questions.join_next().await.unwrap().unwrap();
        assert!(is_cannot_tell(&reply), "{reply:?}");
        assert!(reply.body.contains("too many customers"), "{reply:?}");
        refused += 1;
    }
    // All of that before the first one has failed.
    let failed = format!("{REQUESTS}{{outcome=\"failed\"}}");
    assert_eq!(reader.metric(&failed).await, 0.0);
    assert_eq!(edge.requests_to("/v1/c/").len(), 64);
    let replies = questions.join_all().await;
    assert_eq!(replies.len(), 64 + 256);
    assert!(replies.iter().all(is_cannot_tell));
    assert!(edge.requests_to("/v1/c/").len() <= 64 + 4);
    until("the threads that waited have ended", SOON, async || {
        threads(reader.pid()) <= before.1 + 8
    })
    .await;
    let grown = reader.rss_kib().saturating_sub(before.0);
    assert!(grown < 128 * 1024, "{grown} KiB more");
}

/// The same for what is passed on.
#[tokio::test(flavor = "multi_thread")]
async fn an_edge_api_that_hangs_keeps_only_so_many_passed_on() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    edge.answer("/v1/paywall.json", Answer::hang());
    edge.answer(&path("acme"), listed(2, UPDATED));
    let port = reader.read_port();
    let mut questions = JoinSet::new();
    for _ in 0..1_000 {
        questions.spawn(async move { Client::connect(port).await.get("/v1/paywall.json").await });
    }
    let mut refused = 0;
    while refused < 1_000 - 32 - 128 {
        let reply = questions.join_next().await.unwrap().unwrap();
        assert_eq!((reply.status, reply.header("retry-after")), (503, "120"));
        assert!(reply.body.contains("too many requests"), "{reply:?}");
        refused += 1;
    }
    assert_eq!(edge.requests_to("/v1/paywall").len(), 32);
    // Customers are fetched meanwhile.
    assert_eq!(version(&reader.get(&path("acme")).await), Some(2));
    let replies = questions.join_all().await;
    assert!(replies.iter().all(|reply| reply.status == 503));
    assert!(edge.requests_to("/v1/paywall").len() <= 32 + 4);
}

/// What the test asks is what the Edge API is asked, whatever the id.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_asked_for_to_the_letter() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    let reader = Arc::new(reader);
    let mut client = Client::connect(reader.read_port()).await;
    let letters: Vec<char> = "aZ0-_.~ /\\?#%&+=:;@,$!'()*[]{}|^`<>\"éß日😀\u{7f}\n\r\0"
        .chars()
        .collect();
    let mut refused = 0;
    let mut expected = HashMap::new();
    for round in 0..600 {
        let length = fastrand::usize(1..12);
        let mut id: String = (0..length)
            .map(|_| letters[fastrand::usize(..letters.len())])
            .collect();
        if round % 10 == 0 {
            id = [
                "..",
                "a/../b",
                "../a",
                "a/..",
                "%2e%2e",
                "a%2fb",
                "//",
                "a//b",
                "./a",
                "credentials",
            ][round / 10 % 10]
                .to_owned();
        }
        let own = percent_encoding::utf8_percent_encode(&id, percent_encoding::NON_ALPHANUMERIC)
            .to_string();
        let resource = fastrand::bool().then(|| format!("r{round}"));
        let query = resource
            .as_ref()
            .map_or(String::new(), |it| format!("?resourceId={it}"));
        let before = edge.count();
        let reply = client
            .get(&format!("/v1/c/{own}/entitlements.json{query}"))
            .await;
        let asked = edge.requests().split_off(before);
        if reply.status == 400 {
            refused += 1;
            assert!(asked.is_empty(), "{id:?} was refused, and asked for");
            continue;
        }
        // One that was asked before is remembered.
        assert_eq!(reply.status, 404, "{id:?}: {reply:?}");
        for request in asked {
            let path = request.path.strip_prefix("/v1/c/").unwrap();
            let path = path.strip_suffix("/entitlements.json").unwrap();
            assert!(!path.contains('/'), "{id:?}: {path}");
            let path = percent_encoding::percent_decode_str(path)
                .decode_utf8()
                .unwrap();
            assert_eq!(path, id);
            let mut own = expected.entry(id.clone()).or_insert_with(Vec::new).clone();
            own.push(request.query.clone());
            let queries = [String::new(), query.trim_start_matches('?').to_owned()];
            assert!(own.iter().all(|it| queries.contains(it)), "{id:?}: {own:?}");
        }
    }
    assert!((60..400).contains(&refused), "{refused} were refused");
    for (path, key) in [
        ("/v1/c/acme/entitlements.json?resourceId=%ff", "acme"),
        ("/v1/c/acme/entitlements.json?%ff=x", "acme"),
        ("/v1/c/acme/entitlements-state.json?resourceId=%ff", "acme"),
        ("/v1/c/acme/entitlements.json?resource%49d=a%00", "acme"),
    ] {
        let reply = http::request(reader.read_port(), ("GET", path), &[("x-api-key", KEY)], "")
            .await
            .unwrap();
        assert_eq!(reply.status, 400, "{path}");
        assert!(
            edge.requests_to(&format!("/v1/c/{key}")).is_empty(),
            "{path}"
        );
    }
}
