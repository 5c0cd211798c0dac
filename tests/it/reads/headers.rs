//! What answers say beside their bodies: their version, their age, and which request they are the answer to.

use serde_json::json;

use super::stored::{limit, list};
use super::{SOON, UPDATED, VERSION, context, map, path, store, version};
use testkit::http::Reply;
use testkit::reader::KEY;
use testkit::{EdgeMock, Reader, Redis, until};

const HIT: &str = "entitlement-sync; hit";

async fn get_unless(reader: &Reader, path: &str, known: &str) -> Reply {
    let headers = [("x-api-key", KEY), ("if-none-match", known)];
    reader.ask(("GET", path), &headers, "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_the_version_gets_it_confirmed_without_a_body() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    store(&redis, "acme", &map(1), 1);
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    let routes = [
        "entitlements.json",
        "entitlements.json?featureId=version",
        "entitlements-state.json",
    ];
    let mut before = Vec::new();
    for route in routes {
        let asked = format!("/v1/c/acme/{route}");
        let first = reader.get(&asked).await;
        let etag = first.header("etag").to_owned();
        assert_eq!((first.status, etag.len()), (200, 34), "{route}: {first:?}");
        for known in [
            etag.clone(),
            format!("W/{etag}"),
            format!("\"other\", {etag}"),
            "*".to_owned(),
        ] {
            let reply = get_unless(&reader, &asked, &known).await;
            assert_eq!(
                (reply.status, reply.body.as_str()),
                (304, ""),
                "{route} {known}"
            );
            assert_eq!(reply.header("etag"), etag, "{route} {known}");
            assert_eq!(reply.header("age"), "0", "{route} {known}");
            assert!(reply.header("cache-status").starts_with(HIT), "{reply:?}");
        }
        for known in ["\"other\"", etag.trim_matches('"'), ""] {
            let reply = get_unless(&reader, &asked, known).await;
            assert_eq!(
                (reply.status, &reply.body),
                (200, &first.body),
                "{route} {known}"
            );
        }
        before.push((asked, etag));
    }
    store(&redis, "acme", &map(2), 2);
    until("the change is answered", SOON, async || {
        version(&reader.get(&path("acme")).await) == Some(2)
    })
    .await;
    for (asked, etag) in before {
        let reply = get_unless(&reader, &asked, &etag).await;
        assert_eq!(reply.status, 200, "{asked}: the version is another one");
        assert_ne!(reply.header("etag"), etag, "{asked}");
    }
}

/// Asks until the copy is a second old. It stays fresh, and is not read again.
async fn ages_while_fresh(reader: &Reader, customer: &str) {
    until("the copy is a second old", SOON, async || {
        let reply = reader.get(&path(customer)).await;
        assert_eq!(reply.header("cache-status"), HIT);
        reply.header("age") != "0"
    })
    .await;
    let flag = reader.flag(VERSION, &context(customer)).await.json();
    assert_eq!(flag["reason"], "CACHED");
    assert!(
        flag["metadata"]["ageMs"].as_u64() >= Some(1_000),
        "{flag:#}"
    );
}

/// Nothing would have told of a change, so the copy is as old as its read.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_fresh_by_time_has_the_age_of_its_read() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let user = ["on", ">secret", "~*", "&*", "+@all", "-client|tracking"];
    redis.cmd(&[&["ACL", "SETUSER", "reads"][..], &user[..]].concat());
    store(&redis, "acme", &map(1), 1);
    let untracked = Reader::builder(&redis, &edge.url())
        .env("REDIS_USERNAME", "reads")
        .env("REDIS_PASSWORD", "secret")
        .env("LOCAL_FRESH_MS", 60_000)
        .start()
        .await;
    let first = untracked.get(&path("acme")).await;
    assert_eq!((version(&first), first.header("age")), (Some(1), "0"));
    ages_while_fresh(&untracked, "acme").await;

    // Usage that Redis does not hold changes without a word from it.
    let usage = list(&json!([limit("Fluctuating", Some(UPDATED))]));
    edge.answer(&path("metered"), usage);
    let tracked = Reader::builder(&redis, &edge.url())
        .env("CACHE_UPDATE_POLICY", "INVALIDATE")
        .env("LOCAL_FRESH_MS", 60_000)
        .start()
        .await;
    let first = tracked.get(&path("metered")).await;
    assert_eq!((version(&first), first.header("age")), (Some(7), "0"));
    ages_while_fresh(&tracked, "metered").await;
    assert_eq!(edge.requests_to(&path("metered")).len(), 1);
}

fn is_made(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_is_echoed_or_made() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    store(&redis, "acme", &map(1), 1);
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    let (known, unknown) = (path("acme"), path("nobody"));
    let flags = "/ofrep/v1/evaluate/flags";
    let requests = [
        (200, "GET", known.as_str(), KEY),
        (404, "GET", &unknown, KEY),
        (401, "GET", &known, "wrong"),
        (405, "POST", &known, KEY),
        (404, "GET", "/v1/paywall.json", KEY),
        (403, "GET", "/v1/credentials/event-queue.json", KEY),
        (200, "POST", flags, KEY),
        (200, "GET", "/livez", ""),
        (200, "GET", "/readyz", ""),
    ];
    let body = json!({"context": context("acme")}).to_string();
    for (status, method, path, key) in requests {
        let ask = async |id: Option<&str>| {
            let mut headers = vec![("x-api-key", key)];
            headers.extend(id.map(|id| ("x-request-id", id)));
            let reply = reader.ask((method, path), &headers, &body).await;
            assert_eq!(reply.status, status, "{method} {path}: {reply:?}");
            reply.header("x-request-id").to_owned()
        };
        let longest = "x".repeat(128);
        for good in ["abc-123", "!#$%&'*+-.^_`|~{}", &longest] {
            assert_eq!(ask(Some(good)).await, good, "{method} {path}");
        }
        let too_long = "x".repeat(129);
        for bad in ["", "two words", "tab\tbed", &too_long] {
            let made = ask(Some(bad)).await;
            assert!(is_made(&made), "{method} {path}: {made}");
        }
        let (one, other) = (ask(None).await, ask(None).await);
        assert!(is_made(&one) && is_made(&other) && one != other);
    }
}
