//! What only the Edge API can answer: pages, and states of customers whose credits Redis does not hold.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::clients::without_credits;
use super::sdk::{entitlements, know};
use super::stored::credit;
use super::{SOON, with_policy};
use testkit::reader::KEY;
use testkit::{Answer, EdgeMock, Reader, Redis, until};

const PAGE: &str = "/v1/paywall.json";
/// What SDK 4.x gives a question before it answers with its fallback.
const SDK_TIMEOUT: Duration = Duration::from_secs(10);

fn state_path(customer: &str) -> String {
    format!("/v1/c/{customer}/entitlements-state.json")
}

/// An answer that could not be made from a list of entitlements.
fn state(reason: Option<&str>, entitlements: &Value) -> Answer {
    let state = json!({"__typename": "EntitlementsState", "accessDeniedReason": reason, "entitlements": entitlements,
        "entitlementsV2": entitlements, "ofTheEdgeApi": true});
    Answer::json(200, &json!({"data": {"entitlementsState": state}}))
}

/// Asks for a state, and returns it if the Edge API gave it.
async fn forwarded(reader: &Reader, path: &str) -> Option<Value> {
    let reply = reader.get(path).await;
    assert_eq!(reply.status, 200, "{path}: {reply:?}");
    let state = reply.json()["data"]["entitlementsState"].take();
    (state["ofTheEdgeApi"] == true).then_some(state)
}

/// A reader whose Edge API knows the entitlements of acme, which Redis does not have.
async fn knowing_acme() -> (Redis, EdgeMock, Reader) {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    know(&edge, "acme", None, &entitlements(10));
    (redis, edge, reader)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_fails_pauses_no_state() {
    let (_redis, edge, reader) = knowing_acme().await;
    let acme = state_path("acme");
    edge.answer(&acme, state(None, &entitlements(10)));
    edge.answer(PAGE, Answer::text(503, "no").header("retry-after", "30"));
    for _ in 0..3 {
        let reply = reader.get(PAGE).await;
        assert_eq!((reply.status, reply.header("retry-after")), (503, "120"));
    }
    // The first one opened the breaker of pages.
    assert_eq!(edge.requests_to(PAGE).len(), 1);
    assert!(forwarded(&reader, &acme).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_fails_pauses_no_page() {
    let (_redis, edge, reader) = knowing_acme().await;
    let acme = state_path("acme");
    edge.answer(&acme, Answer::text(503, "no").header("retry-after", "30"));
    edge.answer(PAGE, Answer::json(200, &json!({"data": 1})));
    for _ in 0..3 {
        let reply = reader.get(&acme).await;
        assert_eq!((reply.status, reply.header("retry-after")), (503, "30"));
    }
    assert_eq!(edge.requests_to(&acme).len(), 1);
    assert_eq!(reader.get(PAGE).await.status, 200);
}

/// A question waits for the list of the customer, and then for its state: together less than an SDK gives it.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_hangs_is_given_up_before_an_sdk_gives_up() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    let list = json!({"data": {"entitlements": entitlements(10)}});
    let slow = Answer::json(200, &list).after(Duration::from_secs(2));
    edge.answer(&super::path("acme"), slow);
    edge.answer(&state_path("acme"), Answer::hang());
    let asked = state_path("acme");
    let reply = tokio::time::timeout(SDK_TIMEOUT, reader.get(&asked)).await;
    let reply = reply.expect("the answer comes before an SDK gives up");
    assert_eq!((reply.status, reply.header("retry-after")), (503, "30"));
    assert_eq!(edge.requests_to(&state_path("acme")).len(), 1);
}

/// Redis holds no credit entitlements: without them, SDK 4.x would deny what they grant.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_with_credit_entitlements_is_that_of_the_edge_api() {
    for policy in ["UPSERT", "INVALIDATE"] {
        let (_redis, edge, reader) = with_policy(policy).await;
        let features = without_credits(10);
        let mut all = features.clone();
        all.as_array_mut().unwrap().push(credit());
        for (customer, resource, list, is_forwarded) in [
            ("plain", None, &features, false),
            ("both", None, &all, true),
            ("both", Some("site-1"), &all, true),
            ("credits-only", None, &json!([credit()]), true),
        ] {
            know(&edge, customer, resource, list);
            edge.answer(&state_path(customer), state(None, &all));
            let query = resource.map_or_else(String::new, |it| format!("?resourceId={it}"));
            let asked = format!("{}{query}", state_path(customer));
            // Also once the customer is in memory.
            for _ in 0..2 {
                let state = forwarded(&reader, &asked).await;
                assert_eq!(state.is_some(), is_forwarded, "{policy}, {asked}");
                let v2 = state.map(|mut state| state["entitlementsV2"].take());
                assert!(v2.is_none_or(|v2| v2 == all), "{policy}, {asked}");
            }
        }
    }
}

/// A list of no entitlements does not say why there are none.
#[tokio::test(flavor = "multi_thread")]
async fn the_edge_api_tells_why_a_customer_without_entitlements_is_denied() {
    let reason = "NoActiveSubscription";
    for policy in ["UPSERT", "INVALIDATE"] {
        let (redis, edge, reader) = with_policy(policy).await;
        for (customer, resource) in [("acme", ""), ("acme", "?resourceId=site-1")] {
            edge.answer(
                &super::path(customer),
                Answer::json(200, &json!({"data": {"entitlements": []}})),
            );
            edge.answer(&state_path(customer), state(Some(reason), &json!([])));
            for _ in 0..2 {
                let asked = format!("{}{resource}", state_path(customer));
                let state = forwarded(&reader, &asked).await;
                let state = state.expect("the Edge API tells");
                assert_eq!(state["accessDeniedReason"], reason, "{policy}, {asked}");
            }
        }
        // Redis has the reason, and is read for it.
        super::store(&redis, "stored", &json!({}), 1);
        let key = "production:c_stored:metadata";
        redis.set(key, r#"{"accessDeniedReason":"CustomerIsArchived"}"#);
        redis.set(&format!("{key}#timestamp"), "1");
        let reply = reader.get(&state_path("stored")).await.json();
        let state = &reply["data"]["entitlementsState"];
        assert_eq!(state["accessDeniedReason"], "CustomerIsArchived", "{reply}");
        assert!(edge.requests_to(&state_path("stored")).is_empty());
    }
}

const CONFIGURATION: &str = "/v1/config/server-sdk-configuration.json";

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_with_errors_is_not_kept() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    let good = json!({"data": {"sdkConfiguration": {"sentryDsn": "https://key@example.com/1"}}});
    let failed = json!({"errors": [{"message": "no"}], "data": good["data"]});
    let answers = [&failed, &good].map(|answer| Answer::json(200, answer));
    edge.answer_in_turn(CONFIGURATION, answers);
    let first = reader.get(CONFIGURATION).await;
    assert_eq!(first.status, 200, "{first:?}");
    let first = first.json();
    let dsn = &first["data"]["sdkConfiguration"]["sentryDsn"];
    assert_eq!((dsn, first.get("errors")), (&Value::Null, None));
    until("the Edge API is asked again", SOON, async || {
        reader.get(CONFIGURATION).await.json() == good
    })
    .await;
    assert_eq!(edge.requests_to(CONFIGURATION).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sdks_that_start_are_one_request() {
    for (answer, expected) in [
        (
            Answer::json(
                200,
                &json!({"data": {"sdkConfiguration": {"sentryDsn": "x"}}}),
            ),
            json!("x"),
        ),
        (Answer::text(500, "no"), Value::Null),
    ] {
        let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
        let reader = Reader::builder(&redis, &edge.url()).start().await;
        edge.answer(CONFIGURATION, answer.after(Duration::from_secs(1)));
        let asked = [(); 50].map(|()| reader.get(CONFIGURATION));
        for reply in futures_util::future::join_all(asked).await {
            assert_eq!(reply.status, 200, "{reply:?}");
            let dsn = reply.json()["data"]["sdkConfiguration"]["sentryDsn"].take();
            assert_eq!(dsn, expected);
        }
        assert_eq!(edge.requests_to(CONFIGURATION).len(), 1);
    }
}

/// The largest body that is forwarded. Two of them fill the room of all pages.
const LARGEST: usize = 16 << 20;
const SMALL_PAGE: &str = "/v1/small.json";

/// Asks for the page, and takes nothing of its answer.
async fn send(reader: &Reader) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", reader.read_port()))
        .await
        .unwrap();
    let head = format!("GET {PAGE} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// Takes the start of the answer only.
async fn begin(reader: &Reader) -> (TcpStream, String) {
    let mut stream = send(reader).await;
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    (stream, String::from_utf8_lossy(&start).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_take_nothing_keep_a_bounded_number_of_bytes() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    let mut page = "abcdefghijklmnopqrstuvwxyz".repeat(LARGEST / 26 + 1);
    page.truncate(LARGEST);
    edge.answer(PAGE, Answer::text(200, &page));
    edge.answer(SMALL_PAGE, Answer::text(200, "small"));
    for _ in 0..3 {
        let reply = reader.get(PAGE).await;
        assert!(reply.status == 200 && reply.body == page);
    }
    let mut stalled = Vec::new();
    for status in ["HTTP/1.1 200", "HTTP/1.1 200", "HTTP/1.1 503"] {
        let (stream, start) = begin(&reader).await;
        assert_eq!(start, status);
        stalled.push(stream);
    }
    let reply = reader.get(SMALL_PAGE).await;
    assert_eq!((reply.status, reply.header("retry-after")), (503, "120"));
    assert!(reply.body.contains("too many bytes"), "{reply:?}");
    // It says nothing about the Edge API, and nothing about states.
    know(&edge, "acme", None, &entitlements(10));
    edge.answer(&state_path("acme"), state(None, &entitlements(10)));
    assert!(forwarded(&reader, &state_path("acme")).await.is_some());
    until("the bytes of stalled readers are free", SOON, async || {
        reader.get(SMALL_PAGE).await.body == "small"
    })
    .await;
    let mut rest = Vec::new();
    let _ = stalled[0].read_to_end(&mut rest).await;
    assert!(rest.len() < LARGEST, "{} bytes", rest.len());
}

/// Else readers that come and go could have any number of requests in flight.
#[tokio::test(flavor = "multi_thread")]
async fn requests_whose_readers_have_gone_still_count() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    edge.answer(PAGE, Answer::hang());
    edge.answer(SMALL_PAGE, Answer::text(200, "small"));
    let mut gone = Vec::new();
    for _ in 0..32 {
        gone.push(send(&reader).await);
    }
    until("all are in flight", SOON, async || {
        edge.requests_to(PAGE).len() == gone.len()
    })
    .await;
    for stream in gone {
        stream.set_zero_linger().unwrap();
    }
    // It waits for the first of them, whose failure pauses the requests for pages.
    let reply = reader.get(SMALL_PAGE).await;
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(reply.body.contains("are paused"), "{reply:?}");
    assert!(edge.requests_to(SMALL_PAGE).is_empty());
}

/// The largest resident set that a process has had.
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    kib.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn loads_of_large_answers_are_bounded() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    let list = json!({"data": {"entitlements": without_credits(10)}}).to_string();
    let large = format!("{}{list}", " ".repeat(9 << 20));
    let answer = Answer::text(200, &large).after(Duration::from_secs(1));
    edge.answer(&super::path("acme"), answer);
    let before = peak_kib(reader.pid());
    let of_resource = |at: u32| format!("{}?resourceId=site-{at}", super::path("acme"));
    let asked: Vec<String> = (0..24).map(of_resource).collect();
    let replies = asked.iter().map(|path| reader.get(path));
    let replies = futures_util::future::join_all(replies).await;
    let grown = peak_kib(reader.pid()) - before;
    assert!(grown < 100 << 10, "{grown} KiB more");
    let skipped = "entitlement_sync_read_upstream_requests_total{outcome=\"skipped\"}";
    assert!(reader.metric(skipped).await > 0.0, "all had room");
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        assert_eq!((reply.status, reply.header("retry-after")), (503, "30"));
    }
    // One alone has room. A load that took long may have paused the next ones for a moment.
    edge.answer(&super::path("acme"), Answer::text(200, &large));
    until("a large answer is read", SOON, async || {
        reader.get(&of_resource(99)).await.status == 200
    })
    .await;
}
