//! Memory, connections and sizes have bounds, and a client that exceeds them disturbs no other.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{Client, SOON, context, map, path, store, version};
use testkit::reader::KEY;
use testkit::{EdgeMock, Reader, Redis, http, until};

/// They take 50 MiB of RSS if `LOCAL_MAX_BYTES` is 1 GiB.
const CUSTOMERS: u64 = 30_000;
const LIMIT: f64 = 4.0 * 1024.0 * 1024.0;

#[tokio::test(flavor = "multi_thread")]
async fn memory_holds_under_many_customers_asked_in_turn() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let mut conn = redis.conn();
    for chunk in (0..CUSTOMERS).collect::<Vec<_>>().chunks(1_000) {
        let mut write = redis::cmd("MSET");
        for number in chunk {
            let key = format!("production:c_c{number}");
            write.arg(&key).arg(map(*number).to_string());
            write.arg(format!("{key}#timestamp")).arg("1");
        }
        write.exec(&mut conn).unwrap();
    }
    let reader = Reader::builder(&redis, &edge.url())
        .env("LOCAL_MAX_BYTES", LIMIT)
        .start()
        .await;
    let before = reader.rss_kib();
    let port = reader.read_port();
    let mut clients = JoinSet::new();
    for part in 0..8 {
        clients.spawn(async move {
            let mut client = Client::connect(port).await;
            for number in (part..CUSTOMERS).step_by(8) {
                let reply = client.get(&path(&format!("c{number}"))).await;
                assert_eq!(version(&reply), Some(number), "{reply:?}");
            }
        });
    }
    let mut most = 0.0_f64;
    while !clients.is_empty() {
        let bytes = reader.metric("entitlement_sync_read_copies_bytes").await;
        most = most.max(bytes);
        assert!(bytes <= LIMIT, "{bytes} bytes are copied");
        if let Ok(Some(ended)) =
            tokio::time::timeout(Duration::from_secs(1), clients.join_next()).await
        {
            ended.unwrap();
        }
    }
    let grown = reader.rss_kib().saturating_sub(before);
    assert!(grown < 24 * 1024, "{grown} KiB more");
    assert!(most > LIMIT / 4.0, "the copy is not used: {most} bytes");
    until("the evictions are counted", SOON, async || {
        reader.metric("entitlement_sync_read_evictions_total").await > CUSTOMERS as f64 / 2.0
    })
    .await;
    // Those that made room are asked for again.
    let mut client = Client::connect(port).await;
    for number in 0..1_000 {
        let reply = client.get(&path(&format!("c{number}"))).await;
        assert_eq!(version(&reply), Some(number), "{reply:?}");
    }
    assert!(edge.requests_to("/v1/c/").is_empty());
}

/// Writes a part of a request now and then, until the server closes the connection.
async fn drip(port: u16, begin: String, piece: &'static [u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(begin.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    loop {
        let mut buffer = [0; 4_096];
        tokio::select! {
            read = stream.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return answer,
                Ok(count) => answer.extend_from_slice(&buffer[..count]),
            },
            () = tokio::time::sleep(Duration::from_millis(200)) => {
                if stream.write_all(piece).await.is_err() {
                    return answer;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_disconnected_and_delay_no_other() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    store(&redis, "acme", &map(1), 1);
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    let port = reader.read_port();
    let mut slow = JoinSet::new();
    for _ in 0..300 {
        let head = format!(
            "GET {} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\n",
            path("acme")
        );
        slow.spawn(drip(port, head, b"a: b\r\n"));
        let head = format!(
            "POST /ofrep/v1/evaluate/flags HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: 60000\r\n\r\n"
        );
        slow.spawn(drip(port, head, b" "));
        // Nothing at all.
        slow.spawn(drip(port, String::new(), b""));
    }
    let mut client = Client::connect(port).await;
    for _ in 0..500 {
        assert_eq!(version(&client.get(&path("acme")).await), Some(1));
    }
    let answers = tokio::time::timeout(SOON, slow.join_all()).await;
    let answers = answers.expect("all slow connections are ended");
    let refused = answers
        .iter()
        .filter(|answer| answer.starts_with(b"HTTP/1.1 408"));
    assert!(refused.count() >= 300);
    assert!(
        answers
            .iter()
            .all(|answer| !answer.starts_with(b"HTTP/1.1 200"))
    );
    assert_eq!(reader.get(&path("acme")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    store(&redis, "acme", &map(1), 1);
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    let port = reader.read_port();
    let flags = "/ofrep/v1/evaluate/flags";
    let mut context = context("acme");
    context["padding"] = "x".repeat(1 << 20).into();
    let body = json!({ "context": context }).to_string();
    for _ in 0..20 {
        let key = [("x-api-key", KEY)];
        // The connection may end before all is sent.
        if let Ok(reply) = http::request(port, ("POST", flags), &key, &body).await {
            assert_eq!(reply.status, 413, "{reply:?}");
        }
        let huge = "x".repeat(1 << 20);
        let headers = [("x-api-key", KEY), ("x-huge", &huge)];
        if let Ok(reply) = http::request(port, ("GET", &path("acme")), &headers, "").await {
            assert!((400..500).contains(&reply.status), "{reply:?}");
        }
        let id = "x".repeat(10_000);
        assert_eq!(reader.get(&path(&id)).await.status, 400);
        let reply = reader
            .get(&format!("{}?resourceId={id}", path("acme")))
            .await;
        assert_eq!(reply.status, 400);
        let reply = reader.flag(&id, &super::context("acme")).await;
        assert_eq!(
            (reply.status, &reply.json()["errorCode"]),
            (400, &json!("PARSE_ERROR"))
        );
        // A body where none is expected.
        let reply = http::request(port, ("GET", &path("acme")), &key, &body[..60_000]).await;
        assert!(reply.is_ok_and(|reply| reply.status == 200));
        assert_eq!(version(&reader.get(&path("acme")).await), Some(1));
    }
    assert!(edge.requests_to("/v1/c/").is_empty());
    assert_eq!(reader.exit_code(), None);
    // Who needs no key cannot fill the log.
    assert!(!reader.logs().contains("stream error"), "{}", reader.logs());
}

/// Connections that say nothing: others still get in.
#[tokio::test(flavor = "multi_thread")]
async fn many_connections_leave_room_for_others() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    store(&redis, "acme", &map(1), 1);
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    let port = reader.read_port();
    let before = reader.rss_kib();
    let mut kept = Vec::new();
    for _ in 0..3_000 {
        let mut client = Client::connect(port).await;
        assert_eq!(version(&client.get(&path("acme")).await), Some(1));
        kept.push(client);
    }
    let grown = reader.rss_kib().saturating_sub(before);
    assert!(
        grown < 128 * 1024,
        "{grown} KiB for {} connections",
        kept.len()
    );
    assert_eq!(version(&reader.get(&path("acme")).await), Some(1));
    for client in &mut kept {
        assert_eq!(version(&client.get(&path("acme")).await), Some(1));
    }
}
