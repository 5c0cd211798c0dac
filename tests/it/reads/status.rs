//! What `/status` shows of the read API.

use serde_json::json;

use super::{SOON, UPDATED, context, listed, map, path, store};
use testkit::{EdgeMock, Reader, Redis, until};

const LIMIT: u64 = 4 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn the_status_counts_questions_and_says_which_sources_answer() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    store(&redis, "acme", &map(1), 1);
    edge.answer(&path("absent"), listed(2, UPDATED));
    let reader = Reader::builder(&redis, &edge.url())
        .env("LOCAL_MAX_BYTES", LIMIT)
        .start()
        .await;
    let reads = async || reader.http("/status").await.json()["reads"].take();
    let before = reads().await;
    let nothing = json!({"fresh": 0, "redis": 0, "upstream": 0, "stale": 0, "cannot_tell": 0, "denied": 0,
        "refused": 0});
    let of_edge = |found: u64, not_found: u64| json!({"found": found, "not_found": not_found, "refused": 0, "failed": 0, "skipped": 0});
    let expected = json!({
        "tracking": true, "tracking_reason": null, "redis": true, "upstream": true, "copies": 0, "copy_bytes": 0,
        "copy_bytes_limit": LIMIT, "evictions": 0, "invalidations": 0, "joined": 0, "questions": nothing,
        "upstream_requests": of_edge(0, 0),
    });
    for (name, expected) in expected.as_object().unwrap() {
        assert_eq!(&before[name], expected, "{name}: {before}");
    }

    for customer in ["acme", "absent", "nobody"] {
        reader.get(&path(customer)).await;
    }
    let wrong = [("x-api-key", "wrong")];
    reader.ask(("GET", &path("acme")), &wrong, "").await;
    reader.get("/v1/c/%00/entitlements.json").await;
    until("the copy is answered", SOON, async || {
        let flag = reader.flag("version", &context("acme")).await;
        flag.json()["reason"] == "CACHED"
    })
    .await;
    // What was fetched is in Redis, which notifies that.
    until("the change is counted", SOON, async || {
        reads().await["invalidations"].as_u64() > Some(0)
    })
    .await;
    let after = reads().await;
    assert_eq!(
        (&after["copies"], &after["upstream"]),
        (&json!(3), &json!(true))
    );
    let bytes = after["copy_bytes"].as_u64().unwrap();
    assert!((1_000..LIMIT).contains(&bytes), "{bytes}");
    assert_eq!(after["upstream_requests"], of_edge(1, 1));
    let questions = &after["questions"];
    for (result, count) in [
        ("upstream", 2),
        ("denied", 1),
        ("refused", 1),
        ("cannot_tell", 0),
    ] {
        assert_eq!(questions[result], count, "{result}: {questions}");
    }
    for result in ["fresh", "redis"] {
        assert!(
            questions[result].as_u64() > Some(0),
            "{result}: {questions}"
        );
    }

    redis.kill();
    reader.wait_redis("DISCONNECTED").await;
    until("the stale answer is counted", SOON, async || {
        reader.get(&path("acme")).await;
        reads().await["questions"]["stale"].as_u64() > Some(0)
    })
    .await;
    let away = reads().await;
    assert_eq!(
        (&away["redis"], &away["tracking"]),
        (&json!(false), &json!(false))
    );
    let reason = &away["tracking_reason"];
    assert!(reason.as_str().is_some_and(|it| !it.is_empty()), "{reason}");
    let text = away.to_string();
    assert!(!text.contains("acme") && !text.contains("nobody"), "{text}");
}
