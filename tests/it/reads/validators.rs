//! `ETag` and `If-None-Match` on the routes of the Edge API.

use super::{SOON, map, path, store};
use testkit::http::Reply;
use testkit::reader::KEY;
use testkit::{EdgeMock, Reader, Redis, until};

async fn ask_with(reader: &Reader, path: &str, known: &str) -> Reply {
    let headers = [("x-api-key", KEY), ("if-none-match", known)];
    reader.ask(("GET", path), &headers, "").await
}

fn assert_not_modified(reply: &Reply, etag: &str, what: &str) {
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (304, ""),
        "{what}: {reply:?}"
    );
    assert_eq!(reply.header("etag"), etag, "{what}");
    assert_eq!(reply.header("cache-control"), "private, no-cache", "{what}");
    for header in ["age", "cache-status"] {
        assert_ne!(reply.header(header), "", "{what}: {header} is missing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_a_reader_has_is_not_sent_again() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    let mut etags = Vec::new();
    for (customer, route) in [
        ("list", path("list")),
        ("state", "/v1/c/state/entitlements-state.json".to_owned()),
        ("single", format!("{}?featureId=version", path("single"))),
    ] {
        store(&redis, customer, &map(1), 1);
        let first = reader.get(&route).await;
        let etag = first.header("etag");
        assert!(first.status == 200 && etag.len() == 34, "{first:?}");
        for known in [
            etag.to_owned(),
            format!("W/{etag}"),
            format!("\"other\", {etag}"),
            "*".to_owned(),
        ] {
            let reply = ask_with(&reader, &route, &known).await;
            assert_not_modified(&reply, etag, &format!("{route} {known}"));
        }
        for known in ["\"other\"", etag.trim_matches('"'), ""] {
            let reply = ask_with(&reader, &route, known).await;
            assert_eq!(reply.status, 200, "{route} {known}");
            assert_eq!((&reply.body, reply.header("etag")), (&first.body, etag));
        }
        store(&redis, customer, &map(2), 2);
        until("the change is answered", SOON, async || {
            ask_with(&reader, &route, etag).await.status == 200
        })
        .await;
        let second = reader.get(&route).await;
        assert_ne!(second.body, first.body, "{route}");
        assert_ne!(second.header("etag"), etag, "{route}");
        etags.push((route, second.header("etag").to_owned()));
    }
    // What the reader has is also what is answered while Redis is away.
    redis.freeze();
    reader.wait_redis("DISCONNECTED").await;
    for (route, etag) in etags {
        let reply = ask_with(&reader, &route, &etag).await;
        assert_not_modified(&reply, &etag, &route);
        let status = reply.header("cache-status");
        assert!(status.ends_with("detail=unproven"), "{route}: {status}");
    }
    redis.thaw();
}
