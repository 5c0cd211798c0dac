//! `dead-letter` on what a running process keeps: listed, shown, mended, replayed with its attribute, deleted.

use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::process::{drained, until_limit};
use super::restart::{NO_EDGE, kept_in};
use testkit::events::{ACME, at, seats};
use testkit::{Operator, Reader, Sqs, TestQueue, http, until};

const SOON: Duration = Duration::from_secs(60);
const TOKEN: &str = "token-of-sixteen-characters";

fn operator(queue: &TestQueue, reader: &Reader) -> Operator {
    let operator = Operator::in_memory().queue(queue);
    operator
        .env("PORT", reader.port())
        .env("ADMIN_TOKEN", TOKEN)
}

/// An event whose kind is in an attribute alone, and that names no customer.
fn nameless(limit: u64) -> String {
    let mut body: serde_json::Value = serde_json::from_str(&seats(ACME, limit, at(limit))).unwrap();
    body.as_object_mut().unwrap().remove("type");
    body["customerId"] = "".into();
    body.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_messages_are_listed_corrected_replayed_and_deleted() {
    let (sqs, folder) = (Sqs::start().await, TempDir::new().unwrap());
    let queue = sqs.queue("q").await;
    let reader = kept_in(folder.path(), &queue, NO_EDGE)
        .env("ADMIN_TOKEN", TOKEN)
        .env("MAX_RECEIVE_COUNT", 1)
        .start()
        .await;
    let operator = operator(&queue, &reader);
    let run =
        async |arguments: &[&str]| operator.run(&[&["dead-letter"], arguments].concat()).await;
    assert_eq!(run(&["list"]).await.stdout, "no dead letters\n");
    let kind = [("type", "ENTITLEMENTS_UPDATED")];
    for limit in [10, 11, 12] {
        queue.send_with(&nameless(limit), &kind).await;
        drained(&queue).await;
    }

    let listed = run(&["list", "--json"]).await;
    assert_eq!(listed.code, 0, "{listed:?}");
    let letters = listed.json()["letters"].as_array().unwrap().clone();
    assert_eq!(letters.len(), 3, "{listed:?}");
    assert_eq!(
        letters[0]["attributes"],
        json!({"type": "ENTITLEMENTS_UPDATED"})
    );
    assert_eq!(letters[0]["reason"], "customer id is missing or empty");
    assert!(
        !listed.stdout.contains("usageLimit"),
        "a list has no bodies"
    );
    let text = run(&["list"]).await.stdout;
    assert!(text.contains("entitlements_updated"), "{text}");
    let ids: Vec<&str> = letters
        .iter()
        .map(|it| it["id"].as_str().unwrap())
        .collect();
    let shown = run(&["show", ids[0]]).await;
    assert_eq!(shown.stdout.trim_end(), nameless(10), "{shown:?}");

    let unreadable = run(&["replay", ids[0]]).await;
    assert_eq!(unreadable.code, 1, "{unreadable:?}");
    let file = folder.path().join("body.json");
    std::fs::write(
        &file,
        nameless(10).replace(r#""customerId":"""#, r#""customerId":"acme""#),
    )
    .unwrap();
    let replayed = run(&["replay", ids[0], "--body", file.to_str().unwrap()]).await;
    assert_eq!(replayed.code, 0, "{replayed:?}");
    // The body names no kind: the attribute came with it.
    until_limit(&reader, "acme", Some(10)).await;
    let left = async || {
        run(&["list", "--json"]).await.json()["letters"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(left().await, 2);

    let dry = run(&["purge", "--all", "--dry-run"]).await;
    assert_eq!((dry.code, left().await), (0, 2), "{dry:?}");
    assert_eq!(run(&["purge", ids[1], "--yes"]).await.code, 0);
    assert_eq!(run(&["purge", ids[1], "--yes"]).await.code, 1, "it is gone");
    // It is sent as it is, given up again, and kept under a new id.
    assert_eq!(run(&["replay", ids[2], "--anyway"]).await.code, 0);
    until("it is given up again", SOON, async || {
        let letters = run(&["list", "--json"]).await.json()["letters"].clone();
        letters.as_array().unwrap().len() == 1 && letters[0]["id"] != *ids[2]
    })
    .await;
    assert_eq!(run(&["purge", "--all", "--yes"]).await.code, 0);
    assert_eq!(left().await, 0);
    let applied = run(&["replay", "--all", "--apply"]).await;
    assert_eq!(
        applied.code, 78,
        "there is no Redis to apply to: {applied:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_cannot_be_asked_is_an_error_that_says_what_to_do() {
    let sqs = Sqs::start().await;
    let queue = sqs.queue("q").await;
    let reader = Reader::in_memory(&queue, NO_EDGE)
        .env("ADMIN_TOKEN", TOKEN)
        .start()
        .await;
    let without = Reader::in_memory(&queue, NO_EDGE).start().await;
    let operator = operator(&queue, &reader);
    for (operator, code, said) in [
        (
            operator.clone().unset("ADMIN_TOKEN"),
            78,
            "ADMIN_TOKEN is not set",
        ),
        (
            operator
                .clone()
                .env("ADMIN_TOKEN", "another-token-of-an-operator"),
            77,
            "the process rejects ADMIN_TOKEN",
        ),
        (
            operator.clone().env("PORT", without.port()),
            78,
            "start it with ADMIN_TOKEN",
        ),
        (
            operator.clone().env("PORT", testkit::free_port()),
            69,
            "run the command where the process runs",
        ),
    ] {
        let done = operator.run(&["dead-letter", "list"]).await;
        assert_eq!(done.code, code, "{done:?}");
        assert!(done.stderr.contains(said), "{done:?}");
        assert!(!done.stderr.contains(TOKEN) && !done.stderr.contains("another-token"));
    }
}

/// A deletion that only the memory knows is undone by a kill.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_is_answered_when_it_is_on_disk() {
    let (sqs, parent) = (Sqs::start().await, TempDir::new().unwrap());
    let queue = sqs.queue("q").await;
    let (folder, aside) = (parent.path().join("state"), parent.path().join("aside"));
    let builder = kept_in(&folder, &queue, NO_EDGE)
        .env("ADMIN_TOKEN", TOKEN)
        .env("MAX_RECEIVE_COUNT", 1);
    let reader = builder.start().await;
    let kind = [("type", "ENTITLEMENTS_UPDATED")];
    queue.send_with(&nameless(10), &kind).await;
    drained(&queue).await;
    let admin = async |reader: &Reader, method: &str, path: &str| {
        let bearer = format!("Bearer {TOKEN}");
        let headers = [("authorization", bearer.as_str())];
        let reply = http::request(reader.port(), (method, path), &headers, "").await;
        reply.unwrap()
    };
    let kept = admin(&reader, "GET", "/admin/dead-letters").await.json()["letters"].clone();
    let id = kept[0]["id"].as_u64().unwrap();
    let path = format!("/admin/dead-letters/{id}");
    std::fs::rename(&folder, &aside).unwrap();
    let done = operator(&queue, &reader)
        .run(&["dead-letter", "purge", &id.to_string(), "--yes"])
        .await;
    assert_eq!(done.code, 69, "{done:?}");
    assert!(done.stderr.contains("cannot write its journal"), "{done:?}");
    // It is gone from memory, and on disk it is not.
    let refused = admin(&reader, "DELETE", &path).await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    std::fs::rename(&aside, &folder).unwrap();
    reader.wait_ready().await;
    assert_eq!(admin(&reader, "DELETE", &path).await.status, 404);
    reader.kill();
    reader.wait_exit(SOON).await;
    let reader = builder.start().await;
    let left = admin(&reader, "GET", "/admin/dead-letters").await.json();
    assert_eq!(left["letters"], json!([]));
}
