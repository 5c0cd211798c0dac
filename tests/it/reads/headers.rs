//! What answers say beside their bodies.

use serde_json::json;

use super::stored::{limit, list};
use super::{SOON, UPDATED, VERSION, context, map, path, store, version};
use testkit::{EdgeMock, Reader, Redis, until};

const HIT: &str = "entitlement-sync; hit";

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
