//! Customers that the Edge API does not know: how long that is remembered, and what does not count as such an answer.

use serde_json::json;

use super::away::{Stage, answer_of};
use super::{SOON, UPDATED, VERSION, context, listed, map, path, store, version};
use testkit::http::Reply;
use testkit::{Answer, EdgeMock, Reader, Redis, http, until};

const REQUESTED: &str = "entitlement-sync; fwd=miss; stored";
const REMEMBERED: &str = "entitlement-sync; hit";
const UNPROVEN: &str = "entitlement-sync; hit; detail=unproven";

fn age(reply: &Reply) -> u64 {
    reply.header("age").parse().unwrap()
}

/// No event tells of the customer, so only the end of the memory does.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_remembered_for_30_s_with_its_age() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    let acme = path("acme");
    let first = reader.get(&acme).await;
    assert_eq!(
        (first.status, first.header("cache-status"), age(&first)),
        (404, REQUESTED, 0)
    );
    edge.answer(&acme, listed(2, UPDATED));
    let mut ages = Vec::new();
    until("the Edge API is asked again", SOON, async || {
        let reply = reader.get(&acme).await;
        if reply.status == 200 {
            return true;
        }
        assert_eq!(
            (reply.status, reply.header("cache-status")),
            (404, REMEMBERED)
        );
        ages.push(age(&reply));
        let flag = reader.flag(VERSION, &context("acme")).await;
        if flag.json()["reason"] == "CACHED" && age(&flag) > 0 {
            assert!(flag.json()["metadata"]["ageMs"].as_u64() >= Some(1_000));
        }
        false
    })
    .await;
    assert!(ages.is_sorted() && ages.iter().all(|age| *age < 30));
    assert!(ages.last() > Some(&0), "{ages:?}");
    assert_eq!(edge.requests_to(&acme).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_not_answered_for_longer_while_redis_and_the_edge_api_are_away() {
    let stage = Stage::start().await;
    // What is known of a customer would be answered without a limit.
    let reader = stage.reader("-1").start().await;
    for customer in ["by-route", "by-flag"] {
        assert_eq!(reader.get(&path(customer)).await.status, 404);
    }
    stage.to_redis.cut().await;
    stage.to_edge.cut().await;
    reader.wait_redis("DISCONNECTED").await;
    until("nothing can be told", SOON, async || {
        let reply = reader.get(&path("by-route")).await;
        if reply.status == 404 {
            assert_eq!(reply.header("cache-status"), UNPROVEN);
            assert!(age(&reply) < 30);
        }
        answer_of(&reply) == "cannot tell"
    })
    .await;
    until("no flag can be told", SOON, async || {
        let reply = reader.flag(VERSION, &context("by-flag")).await;
        reply.status == 503 && reply.json()["errorCode"] == "GENERAL"
    })
    .await;
    let ready = http::get(reader.read_port(), "/readyz").await.unwrap();
    assert_eq!(ready.json()["copies"], false, "it is no state of them");
}

/// Redis lists no tombstone to readers, so only the notification tells of it; while there is no connection, nothing does.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_forgotten_when_the_connection_to_redis_was_lost() {
    let stage = Stage::start().await;
    let reader = stage
        .reader("3600")
        .env("CACHE_UPDATE_POLICY", "INVALIDATE")
        .start()
        .await;
    let acme = path("acme");
    assert_eq!(reader.get(&acme).await.status, 404);
    stage.to_redis.cut().await;
    reader.wait_redis("DISCONNECTED").await;
    stage.edge.answer(&acme, listed(2, UPDATED));
    stage.redis.set("production:c_acme#purged", "1");
    stage.to_redis.restore().await;
    reader.wait_redis("CONNECTED").await;
    let reply = reader.get(&acme).await;
    assert_eq!((reply.status, version(&reply)), (200, Some(2)), "{reply:?}");
}

/// Redis is read again for each question, and does not hold the customer.
#[tokio::test(flavor = "multi_thread")]
async fn without_tracking_it_is_remembered_too_and_does_not_pass_as_requested_now() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let grant = "on >secret ~* &* +@all -client|tracking";
    let grant = ["ACL", "SETUSER", "reads"]
        .into_iter()
        .chain(grant.split(' '));
    redis.cmd(&grant.collect::<Vec<_>>());
    let reader = Reader::builder(&redis, &edge.url())
        .env("REDIS_USERNAME", "reads")
        .env("REDIS_PASSWORD", "secret")
        .env("LOCAL_FRESH_MS", 1)
        .start()
        .await;
    let acme = path("acme");
    assert_eq!(reader.get(&acme).await.header("cache-status"), REQUESTED);
    until("it is a second old", SOON, async || {
        let reply = reader.get(&acme).await;
        assert_eq!(
            (reply.status, reply.header("cache-status")),
            (404, REMEMBERED)
        );
        age(&reply) > 0
    })
    .await;
    assert_eq!(edge.requests_to(&acme).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_404_replaces_no_known_state_while_redis_is_away() {
    let stage = Stage::start().await;
    store(&stage.redis, "acme", &map(1), 1);
    let reader = stage.reader("3600").start().await;
    let acme = path("acme");
    assert_eq!(version(&reader.get(&acme).await), Some(1));
    stage.to_redis.cut().await;
    reader.wait_redis("DISCONNECTED").await;
    assert_eq!(answer_of(&reader.get(&acme).await), "stale copy");
    let not_found = "entitlement_sync_read_upstream_requests_total{outcome=\"not_found\"}";
    until("the Edge API was asked meanwhile", SOON, async || {
        reader.metric(not_found).await >= 1.0
    })
    .await;
    for _ in 0..50 {
        let reply = reader.get(&acme).await;
        assert_eq!(answer_of(&reply), "stale copy");
        assert_eq!(version(&reply), Some(1));
    }
    // Once Redis is back and does not know it either, it is gone.
    let key = "production:c_acme";
    stage.redis.cmd(&["DEL", key, &format!("{key}#timestamp")]);
    stage.to_redis.restore().await;
    until("the customer is unknown", SOON, async || {
        answer_of(&reader.get(&acme).await) == "unknown"
    })
    .await;
}

/// A proxy that finds no route answers 404 to everything.
#[tokio::test(flavor = "multi_thread")]
async fn a_404_that_is_not_of_the_edge_api_tells_nothing() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    let html = "<html><body>404 Not Found</body></html>";
    let answers = [
        Answer::text(404, html).header("content-type", "text/html"),
        Answer::text(404, ""),
        Answer::text(404, "\"no\"").header("content-type", "application/json"),
        Answer::text(404, &"{".repeat(100_000)),
    ];
    for answer in answers {
        edge.answer(&path("acme"), answer);
        for _ in 0..4 {
            assert_eq!(answer_of(&reader.get(&path("acme")).await), "cannot tell");
            let flag = reader.flag(VERSION, &context("acme")).await;
            assert_eq!((flag.status, flag.json().get("value")), (503, None));
        }
    }
    // Of the others it says nothing.
    edge.answer(&path("other"), listed(2, UPDATED));
    assert_eq!(version(&reader.get(&path("other")).await), Some(2));
    let body = json!({"errors": [{"message": "no"}]});
    edge.answer(&path("acme"), Answer::json(404, &body));
    assert_eq!(answer_of(&reader.get(&path("acme")).await), "unknown");
}
