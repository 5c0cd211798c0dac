//! Who is answered, what leaves the process, and where requests go.

use http_body_util::Full;
use hyper::Request;
use serde_json::json;

use super::{Client, SOON, UPDATED, context, listed, map, path, store, version};
use testkit::reader::KEY;
use testkit::{Answer, EdgeMock, Reader, Redis, free_port, until};

const UNAUTHENTICATED: &str =
    r#"{"errors":[{"message":"Unauthenticated","extensions":{"code":"Unauthenticated"}}]}"#;
const ROUTES: [(&str, &str); 12] = [
    ("GET", "/v1/c/acme/entitlements.json"),
    ("GET", "/v1/c/acme/entitlements-state.json"),
    ("GET", "/v1/config/server-sdk-configuration.json"),
    ("GET", "/v1/paywall.json"),
    ("GET", "/v1/credentials/event-queue.json"),
    ("POST", "/v1/c/acme/entitlements.json"),
    ("POST", "/ofrep/v1/evaluate/flags/version"),
    ("POST", "/ofrep/v1/evaluate/flags"),
    ("GET", "/"),
    ("GET", "/metrics"),
    ("GET", "/v1/c/%00/entitlements.json"),
    ("DELETE", "/x"),
];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_answered_without_a_key() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    store(&redis, "acme", &map(1), 1);
    let reader = Reader::builder(&redis, &edge.url())
        .env("READ_API_KEYS", "one-key, other-key")
        .start()
        .await;
    let body = json!({"context": context("acme")}).to_string();
    let wrong: [&[(&str, &str)]; 8] = [
        &[],
        &[("x-api-key", "")],
        &[("x-api-key", "one-ke")],
        &[("x-api-key", "one-key2")],
        &[("x-api-key", "one-key, other-key")],
        // Readers have keys of their own here.
        &[("x-api-key", KEY)],
        &[("authorization", "Basic one-key")],
        &[("authorization", "Bearer  one-key")],
    ];
    for (method, path) in ROUTES {
        for headers in wrong {
            let reply = reader.ask((method, path), headers, &body).await;
            assert_eq!(
                (reply.status, reply.body.as_str()),
                (401, UNAUTHENTICATED),
                "{method} {path} {headers:?}"
            );
        }
    }
    assert!(edge.requests_to("/v1/c/").is_empty() && edge.requests_to("/v1/paywall").is_empty());
    let right = [
        ("x-api-key", "one-key"),
        ("X-API-Key", "other-key"),
        ("X-API-KEY", "one-key"),
        ("authorization", "Bearer one-key"),
        ("Authorization", "bearer other-key"),
    ];
    for header in right {
        let reply = reader.ask(("GET", &path("acme")), &[header], "").await;
        assert_eq!(version(&reply), Some(1), "{header:?}");
    }
    for route in ["/livez", "/readyz"] {
        assert_eq!(reader.ask(("GET", route), &[], "").await.status, 200);
        assert_eq!(reader.ask(("POST", route), &[], "").await.status, 405);
    }
}

/// Whoever needs no key for it could keep all connections for good.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_no_connection_is_kept() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    store(&redis, "acme", &map(1), 1);
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    let acme = path("acme");
    for (route, key, status, connection) in [
        ("/livez", "", 200, "close"),
        ("/readyz", "", 200, "close"),
        (&acme, "wrong", 401, "close"),
        ("/nowhere", "wrong", 401, "close"),
        (&acme, KEY, 200, ""),
        ("/nowhere", KEY, 404, ""),
    ] {
        let mut client = Client::connect(reader.read_port()).await;
        let request = Request::get(route)
            .header("host", "localhost")
            .header("x-api-key", key);
        let reply = client.send(request.body(Full::default()).unwrap()).await;
        let reply = reply.unwrap();
        let found = (reply.status, reply.header("connection"));
        assert_eq!(found, (status, connection), "{route} {key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_with_their_file() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    store(&redis, "acme", &map(1), 1);
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("keys");
    std::fs::write(&file, "old-key\n").unwrap();
    let reader = Reader::builder(&redis, &edge.url())
        .env("READ_API_KEYS_FILE", file.display())
        .start()
        .await;
    let acme = path("acme");
    let status = async |key: &str| {
        reader
            .ask(("GET", &acme), &[("x-api-key", key)], "")
            .await
            .status
    };
    assert_eq!(
        (status("old-key").await, status("new-key").await),
        (200, 401)
    );
    std::fs::write(&file, "old-key,new-key\n").unwrap();
    until("the new key is taken", SOON, async || {
        status("new-key").await == 200
    })
    .await;
    assert_eq!(status("old-key").await, 200);
    std::fs::write(&file, "new-key\n").unwrap();
    until("the old key is refused", SOON, async || {
        status("old-key").await == 401
    })
    .await;
    // What cannot be read changes nothing.
    std::fs::write(&file, " \n,\n").unwrap();
    until("the log says so", SOON, async || {
        reader
            .logs()
            .contains("the keys of readers stay as they were")
    })
    .await;
    assert_eq!((status("new-key").await, status("").await), (200, 401));
    assert!(!reader.logs().contains("-key"), "{}", reader.logs());
}

const CANARY: &str = "canary";

fn assert_clean(what: &str, text: &str) {
    let dirty: Vec<&str> = text
        .lines()
        .filter(|line| line.to_lowercase().contains(CANARY))
        .take(3)
        .collect();
    assert!(
        dirty.is_empty(),
        "{what} holds a key or an id:\n{}",
        dirty.join("\n")
    );
}

async fn nothing_leaks(filter: &str) {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let reader = Reader::builder(&redis, &edge.url())
        .env("READ_API_KEYS", "canary-reader,canary-other")
        .env("SERVER_API_KEY", "canary-server")
        .env("RUST_LOG", filter)
        .start()
        .await;
    edge.answer(&path("canary-absent"), listed(2, UPDATED));
    for (customer, answer) in [
        ("canary-odd", Answer::text(200, "canary")),
        (
            "canary-errors",
            Answer::json(200, &json!({"errors": [{"message": "canary"}]})),
        ),
        ("canary-closed", Answer::close()),
        (
            "canary-moved",
            Answer::text(302, "").header("location", "http://canary.example/canary"),
        ),
        ("canary-refused", Answer::text(401, "canary")),
    ] {
        edge.answer(&path(customer), answer);
    }
    store(
        &redis,
        "canary-known",
        &json!({"canary-feature": super::entitlement("canary-feature", "BOOLEAN", None)}),
        1,
    );
    store(&redis, "canary-torn", &json!("canary"), 1);
    let customers = [
        "known", "torn", "absent", "unknown", "odd", "errors", "closed", "moved", "refused",
    ];
    let key = [("x-api-key", "canary-reader")];
    let mut errors = Vec::new();
    for round in 0..2 {
        for customer in customers {
            let customer = format!("canary-{customer}");
            let state = format!("/v1/c/{customer}/entitlements-state.json");
            for asked in [
                path(&customer),
                state,
                format!("{}?resourceId=canary-r", path(&customer)),
            ] {
                let reply = reader.ask(("GET", &asked), &key, "").await;
                if reply.status >= 400 {
                    errors.push(reply.body);
                }
            }
            let body = json!({"context": {"targetingKey": customer, "resourceId": "canary-r"}});
            for asked in [
                "/ofrep/v1/evaluate/flags",
                "/ofrep/v1/evaluate/flags/version",
            ] {
                let reply = reader.ask(("POST", asked), &key, &body.to_string()).await;
                if reply.status >= 400 {
                    errors.push(reply.body);
                }
            }
        }
        for asked in [
            "/v1/c/canary%00/entitlements.json",
            "/v1/c/canary:f_x/entitlements.json",
            "/v1/canary/..%2f/canary",
            "/v1/canary.json?canary=%ff",
            "/canary",
            "/v1/canary.json?customerId=canary",
        ] {
            errors.push(reader.ask(("GET", asked), &key, "").await.body);
        }
        for body in [
            r#"{"context":"canary"}"#,
            "canary",
            r#"{"context":{"targetingKey":["canary"]}}"#,
        ] {
            let reply = reader
                .ask(("POST", "/ofrep/v1/evaluate/flags"), &key, body)
                .await;
            errors.push(reply.body);
        }
        let wrong = [
            ("x-api-key", "canary-wrong"),
            ("authorization", "Bearer canary-wrong"),
        ];
        errors.push(
            reader
                .ask(("GET", &path("canary-known")), &wrong, "")
                .await
                .body,
        );
        if round == 0 {
            redis.freeze();
            reader.wait_redis("DISCONNECTED").await;
        }
    }
    assert!(errors.len() > 30);
    for error in errors {
        assert_clean("an error", &error);
    }
    redis.thaw();
    for page in ["/metrics", "/status", "/", "/readyz?verbose"] {
        assert_clean(page, &reader.http(page).await.body);
    }
    assert_clean(
        "/readyz",
        &reader.ask(("GET", "/readyz"), &[], "").await.body,
    );
    reader.term();
    assert_eq!(reader.wait_exit(SOON).await, 0);
    assert_clean("the log", &reader.logs());
    assert!(reader.logs().lines().count() > 5, "{}", reader.logs());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_and_no_id_leaks_at_debug_level() {
    nothing_leaks("debug").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_and_no_id_leaks_at_trace_level() {
    nothing_leaks("trace,entitlement_sync=trace,actix_http=trace,actix_web=trace,actix_server=trace,ureq=trace,ureq_proto=trace").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_get_is_passed_on_and_only_to_the_edge_api() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let witness = EdgeMock::start().await;
    let reader = Reader::builder(&redis, &edge.url())
        .env("READ_API_KEYS", "reader-key")
        .start()
        .await;
    edge.answer("/v1/paywall.json", Answer::json(200, &json!({"data": 1})));
    let moved = Answer::text(302, "moved").header("location", &format!("{}/x", witness.url()));
    edge.answer("/v1/moved.json", moved);
    let headers = [
        ("x-api-key", "reader-key"),
        ("authorization", "Bearer reader-key"),
        ("cookie", "session=reader-key"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-custom", "reader"),
        ("accept", "text/x-reader"),
    ];
    let before = edge.count();
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let reply = reader
            .ask((method, "/v1/paywall.json"), &headers, "{}")
            .await;
        assert_eq!(
            (reply.status, reply.header("allow")),
            (405, "GET, HEAD"),
            "{method}"
        );
    }
    assert_eq!(edge.count(), before, "something was passed on");
    let reply = reader
        .ask(("GET", "/v1/paywall.json?a=b%26c&d=e+f%2Bg"), &headers, "")
        .await;
    assert_eq!((reply.status, reply.body.as_str()), (200, r#"{"data":1}"#));
    let request = &edge.requests_to("/v1/paywall.json")[0];
    assert_eq!(
        (request.method.as_str(), request.query.as_str()),
        ("GET", "a=b%26c&d=e+f%2Bg")
    );
    assert_eq!(request.header("x-api-key"), "test-key");
    let sent = format!("{:?}", request.headers);
    assert!(!sent.contains("reader"), "{sent}");
    for absent in ["authorization", "cookie", "x-forwarded-for", "x-custom"] {
        assert_eq!(request.header(absent), "", "{absent}");
    }
    let reply = reader.ask(("GET", "/v1/moved.json"), &headers, "").await;
    assert_eq!(
        (reply.status, reply.header("location")),
        (503, ""),
        "{reply:?}"
    );
    assert_eq!(witness.count(), 0, "a redirect was followed");
    // A refusal of our key is not the reader's.
    edge.answer("/v1/refused.json", Answer::text(401, UNAUTHENTICATED));
    assert_eq!(
        reader
            .ask(("GET", "/v1/refused.json"), &headers, "")
            .await
            .status,
        503
    );
    for spelling in [
        "/v1/credentials/event-queue.json",
        "/v1/Credentials/event-queue.json",
        "/v1/%63redentials/event-queue.json",
        "/v1//credentials/event-queue.json",
        "/v1/./credentials/event-queue.json",
        "/v1/x/../credentials/event-queue.json",
        "/v1/x/%2e%2e/credentials/event-queue.json",
        "/v1/c%72edentials%2fevent-queue.json",
        "/v1/credentials",
        "/v1/c/../credentials/entitlements.json/../event-queue.json",
    ] {
        let reply = reader.ask(("GET", spelling), &headers, "").await;
        assert!([400, 403].contains(&reply.status), "{spelling}: {reply:?}");
    }
    let asked: Vec<_> = edge
        .requests()
        .iter()
        .map(|it| it.path.to_lowercase())
        .collect();
    assert!(
        asked.iter().all(|path| !path.contains("credentials")),
        "{asked:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_round_ends() {
    let redis = Redis::start().await;
    let port = free_port();
    let reader = Reader::builder(&redis, &format!("http://127.0.0.1:{port}"))
        .env("READ_PORT", port)
        .start()
        .await;
    let reply = reader.get("/v1/paywall.json").await;
    assert_eq!(reply.status, 508, "{reply:?}");
    // A question cannot be told, and does not wait for itself: its fetch has ended with a 508, not in time.
    let mut client = Client::connect(port).await;
    for number in 0..200 {
        let reply = client.get(&path(&format!("c{number}"))).await;
        assert_eq!(reply.status, 503, "{reply:?}");
        let reply = client.get("/v1/config/server-sdk-configuration.json").await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
}

/// Each asks the other, and would wait for its own answer.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_that_ask_each_other_end_at_once() {
    let redis = Redis::start().await;
    let ports = [free_port(), free_port()];
    let start = async |own: usize, other: usize| {
        Reader::builder(&redis, &format!("http://127.0.0.1:{}", ports[other]))
            .env("READ_PORT", ports[own])
            .start()
            .await
    };
    let (first, second) = tokio::join!(start(0, 1), start(1, 0));
    let reply = first.get("/v1/paywall.json").await;
    assert_eq!(reply.status, 508, "{reply:?}");
    let asked = [path("acme"), format!("{}?resourceId=site", path("acme"))];
    for asked in &asked {
        let (of_first, of_second) = tokio::join!(first.get(asked), second.get(asked));
        assert_eq!((of_first.status, of_second.status), (503, 503));
    }
    let metric = async |name: &str| {
        let name = format!("entitlement_sync_read_{name}");
        first.metric(&name).await + second.metric(&name).await
    };
    // A question that waits for itself joins its own load, and ends in time.
    assert_eq!(metric("joined_total").await, 0.0);
    // A process refuses its own request, and the other one answers that it cannot tell.
    assert!(metric("questions_total{route=\"entitlements\",result=\"refused\"}").await >= 1.0);
    assert!(metric("questions_total{route=\"entitlements\",result=\"cannot_tell\"}").await >= 5.0);
    let line = "a request to the Edge API came back to this process: check EDGE_API_URL";
    assert!([&first, &second].iter().any(|it| it.logs().contains(line)));
}

/// One behind the other is no loop.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_may_ask_another_one() {
    let (near, far) = (Redis::start().await, Redis::start().await);
    let edge = EdgeMock::start().await;
    edge.answer(&path("acme"), listed(2, UPDATED));
    let far = Reader::builder(&far, &edge.url()).start().await;
    let near = Reader::builder(&near, &far.url()).start().await;
    assert_eq!(version(&near.get(&path("acme")).await), Some(2));
    assert_eq!(near.get(&path("nobody")).await.status, 404);
    assert_eq!(edge.requests_to(&path("acme")).len(), 1);
}

/// What names no customer is refused before Redis or the Edge API is asked.
#[tokio::test(flavor = "multi_thread")]
async fn what_names_no_customer_is_refused() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    store(&redis, "acme", &map(1), 1);
    let long = "x".repeat(10_000);
    let ids = [
        "",
        ".",
        "..",
        "%2e%2e",
        "a%00",
        "a%0d%0ab",
        "%ff",
        "acme:f_x",
        "acme%3Ar_site",
        "acme%23timestamp",
        &long,
    ];
    for id in ids {
        for file in ["entitlements.json", "entitlements-state.json"] {
            let reply = reader.get(&format!("/v1/c/{id}/{file}")).await;
            assert_eq!(reply.status, 400, "{id}: {reply:?}");
        }
        if id.contains('%') {
            continue;
        }
        let reply = reader.flag("version", &context(id)).await;
        let expected = if [".", ".."].contains(&id) || !id.is_empty() {
            "INVALID_CONTEXT"
        } else {
            "TARGETING_KEY_MISSING"
        };
        assert_eq!(
            (reply.status, &reply.json()["errorCode"]),
            (400, &json!(expected)),
            "{id}"
        );
    }
    for id in ["a\0", "a\r\nb", "acme:r_site"] {
        let reply = reader.flag("version", &context(id)).await;
        assert_eq!(
            (reply.status, &reply.json()["errorCode"]),
            (400, &json!("INVALID_CONTEXT"))
        );
    }
    assert!(edge.requests_to("/v1/c/").is_empty());
    assert_eq!(version(&reader.get(&path("acme")).await), Some(1));
}
