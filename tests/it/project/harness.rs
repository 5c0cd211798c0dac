//! Tests of what the other tests rely on.

use std::time::{Duration, Instant};

use aws_sdk_sqs::error::SdkError;
use aws_sdk_sqs::operation::receive_message::{ReceiveMessageError, ReceiveMessageOutput};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use testkit::http::{self, Received};
use testkit::worker::sum_of;
use testkit::{
    Answer, EdgeMock, Fault, FaultProxy, Redis, Sqs, TcpProxy, TestQueue, free_port, sqs, until,
};

const SOON: Duration = Duration::from_secs(5);
/// Long enough for an answer on loopback that is not held back.
const A_MOMENT: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_read_back_through_raw_commands() {
    let redis = Redis::start().await;
    redis.set("p:a", "1");
    redis.set("p:b", "2");
    redis.set("q:c", "3");
    redis.cmd(&["SADD", "p:set", "x"]);
    redis.cmd(&["EXPIRE", "p:b", "100"]);
    let expected =
        [("p:a", "1"), ("p:b", "2")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(redis.dump("p:"), expected.into());
    assert_eq!(redis.get("p:a").as_deref(), Some("1"));
    assert_eq!(redis.get("p:none"), None);
    assert_eq!((redis.ttl("p:a"), redis.ttl("p:none")), (-1, -2));
    assert!((90..=100).contains(&redis.ttl("p:b")));
    assert!(
        redis
            .try_cmd(&["GET", "p:set"])
            .unwrap_err()
            .to_string()
            .contains("WRONGTYPE")
    );
    assert!(
        redis
            .info("total_commands_processed")
            .parse::<u64>()
            .unwrap()
            > 5
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_freezes_and_thaws() {
    let redis = Redis::start().await;
    let mut conn = redis.conn();
    conn.set_read_timeout(Some(A_MOMENT)).unwrap();
    redis.freeze();
    assert!(
        redis::cmd("PING")
            .query::<String>(&mut conn)
            .unwrap_err()
            .is_timeout()
    );
    redis.thaw();
    until("Redis answers again", SOON, async || {
        redis.try_cmd(&["PING"]).is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_restarts_empty_or_with_its_data() {
    let (empty, durable) = tokio::join!(Redis::start(), Redis::durable());
    for redis in [&empty, &durable] {
        let port = redis.port();
        redis.set("key", "value");
        redis.kill();
        assert!(redis.try_conn().is_err());
        redis.restart().await;
        assert_eq!(redis.port(), port);
    }
    assert_eq!(empty.get("key"), None);
    assert_eq!(durable.get("key").as_deref(), Some("value"));
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_takes_options() {
    let redis = Redis::start_with(&["--requirepass", "secret", "--maxmemory", "1"]).await;
    let error = redis.try_cmd(&["SET", "key", "value"]).unwrap_err();
    assert!(error.to_string().contains("OOM"), "{error}");
    let stranger = redis::Client::open(format!("redis://127.0.0.1:{}", redis.port())).unwrap();
    let error = redis::cmd("GET")
        .arg("key")
        .query::<()>(&mut stranger.get_connection().unwrap())
        .unwrap_err();
    assert!(error.to_string().contains("NOAUTH"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sqs_hides_what_was_received_until_its_timeout() {
    let sqs = Sqs::start().await;
    let queue = sqs.queue_with("q", &[("VisibilityTimeout", "1")]).await;
    queue.send_all((0..25).map(|n| n.to_string())).await;
    assert_eq!(
        (
            queue.visible().await,
            queue.in_flight().await,
            queue.depth().await
        ),
        (25, 0, 25)
    );
    assert_eq!(queue.receive_all().await.len(), 25);
    until("the messages are visible again", SOON, async || {
        queue.visible().await == 25
    })
    .await;
    let messages = queue.receive_all().await;
    for message in &messages {
        let handle = message.receipt_handle().unwrap();
        sqs.client()
            .delete_message()
            .queue_url(&queue.url)
            .receipt_handle(handle)
            .send()
            .await
            .unwrap();
    }
    queue.wait_empty(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqs_keeps_attributes_and_groups_and_moves_the_dead() {
    let sqs = Sqs::start().await;

    let queue = sqs.queue("q").await;
    let id = queue.send_with("body", &[("type", "X")]).await;
    let messages = queue.receive_all().await;
    assert_eq!(messages[0].message_id(), Some(id.as_str()));
    assert_eq!(
        messages[0].message_attributes().unwrap()["type"].string_value(),
        Some("X")
    );

    let fifo = sqs.fifo_queue("q").await;
    assert!(fifo.url.ends_with("/q.fifo"));
    for (body, group) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
        fifo.send_fifo(body, group).await;
    }
    let mut bodies: Vec<_> = fifo
        .receive_all()
        .await
        .into_iter()
        .filter_map(|message| message.body)
        .collect();
    bodies.sort();
    assert_eq!(bodies, ["a1", "a2", "b1"]);

    let (queue, dead) = sqs
        .queue_with_dead_letters("r", 1, &[("VisibilityTimeout", "0")])
        .await;
    queue.send("bad").await;
    until("the message is with the dead letters", SOON, async || {
        receive(sqs.endpoint(), &queue).await.unwrap();
        dead.depth().await == 1
    })
    .await;
    assert_eq!(queue.depth().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_proxy_cuts_and_restores() {
    let (proxy, _echo) = echo().await;
    let mut stream = connect(&proxy).await;
    assert!(answers(&mut stream).await);
    assert_eq!((proxy.connections(), proxy.accepted()), (1, 1));

    proxy.cut().await;
    assert_eq!(proxy.connections(), 0);
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    let refused = TcpStream::connect(("127.0.0.1", proxy.port()))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

    proxy.restore().await;
    assert!(answers(&mut connect(&proxy).await).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_proxy_resets() {
    let (proxy, _echo) = echo().await;
    let mut stream = connect(&proxy).await;
    assert!(answers(&mut stream).await);
    proxy.reset().await;
    assert_eq!(
        stream.read(&mut [0]).await.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
    assert!(answers(&mut connect(&proxy).await).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_proxy_is_a_black_hole() {
    let (proxy, _echo) = echo().await;
    let mut stream = connect(&proxy).await;
    proxy.blackhole();
    assert!(is_silent(&mut stream).await);
    assert!(is_silent(&mut connect(&proxy).await).await);
    proxy.restore().await;
    let mut late = [0];
    stream.read_exact(&mut late).await.unwrap();
    assert!(answers(&mut stream).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_proxy_delays_and_trickles() {
    let (proxy, _echo) = echo().await;
    let mut stream = connect(&proxy).await;

    proxy.delay(Duration::from_millis(100));
    let start = Instant::now();
    for _ in 0..10 {
        stream.write_all(b"x").await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stream.read_exact(&mut [0; 10]).await.unwrap();
    let took = start.elapsed().as_millis();
    // Once each way, and not once for each piece.
    assert!((200..1000).contains(&took), "{took} ms");
    proxy.restore().await;

    proxy.trickle(1000);
    let start = Instant::now();
    stream.write_all(&[0; 200]).await.unwrap();
    stream.read_exact(&mut [0; 200]).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(150));
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_proxy_carries_redis() {
    let redis = Redis::start().await;
    let proxy = TcpProxy::start(redis.port()).await;
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", proxy.port())).unwrap();
    let mut conn = client.get_connection().unwrap();
    let value = "x".repeat(1 << 20);
    redis::cmd("SET")
        .arg("key")
        .arg(&value)
        .exec(&mut conn)
        .unwrap();
    assert_eq!(redis.get("key"), Some(value));
    drop(conn);
    until("the connection has ended", SOON, async || {
        proxy.connections() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_proxy_passes_on_and_counts() {
    let (sqs, queue, proxy) = faulty().await;
    let client = sqs::client(&proxy.url());
    queue.send("body").await;
    assert_eq!(proxy.calls("ReceiveMessage"), 0);

    let through = proxy.queue_url(&queue);
    let messages = client
        .receive_message()
        .queue_url(&through)
        .send()
        .await
        .unwrap();
    assert_eq!(messages.messages()[0].body(), Some("body"));
    assert_eq!(proxy.calls("ReceiveMessage"), 1);
    assert_eq!(
        proxy.bodies("ReceiveMessage")[0]["QueueUrl"],
        through.as_str()
    );
    assert!(
        proxy.requests("ReceiveMessage")[0]
            .header("authorization")
            .contains("Credential=test/")
    );

    // A long poll is open for as long as its client waits for it.
    let poll = client
        .receive_message()
        .queue_url(&queue.url)
        .wait_time_seconds(20)
        .send();
    let poll = tokio::spawn(poll);
    until("the poll is open", SOON, async || {
        proxy.open("ReceiveMessage") == 1
    })
    .await;
    poll.abort();
    until("the poll has ended", SOON, async || {
        proxy.open("ReceiveMessage") == 0
    })
    .await;
    drop(sqs);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_proxy_answers_with_errors() {
    let (_sqs, queue, proxy) = faulty().await;
    let faults = [
        (Fault::throttle(), 400, "RequestThrottled"),
        (Fault::server_error(), 500, "InternalFailure"),
        (Fault::expired_token(), 403, "ExpiredToken"),
        (Fault::access_denied(), 403, "AccessDenied"),
        (
            Fault::no_such_queue(),
            400,
            "AWS.SimpleQueueService.NonExistentQueue",
        ),
    ];
    for (fault, status, code) in faults {
        proxy.once("ReceiveMessage", fault);
        let error = receive(&proxy.url(), &queue).await.unwrap_err();
        assert_eq!(error.raw_response().unwrap().status().as_u16(), status);
        let error = error.into_service_error();
        assert_eq!(error.meta().code(), Some(code));
        receive(&proxy.url(), &queue).await.unwrap();
    }
    proxy.once("ReceiveMessage", Fault::no_such_queue());
    let error = receive(&proxy.url(), &queue).await.unwrap_err();
    assert!(error.into_service_error().is_queue_does_not_exist());

    proxy.once("ReceiveMessage", Fault::malformed());
    let error = receive(&proxy.url(), &queue).await.unwrap_err();
    assert_eq!(error.raw_response().unwrap().status().as_u16(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_proxy_applies_its_rules_in_order_and_clears_them() {
    let (_sqs, queue, proxy) = faulty().await;
    proxy.times("ReceiveMessage", 2, Fault::throttle());
    proxy.always("ReceiveMessage", Fault::server_error());
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let error = receive(&proxy.url(), &queue).await.unwrap_err();
        statuses.push(error.raw_response().unwrap().status().as_u16());
    }
    assert_eq!(statuses, [400, 400, 500, 500]);
    assert_eq!(proxy.calls("ReceiveMessage"), 4);
    proxy.clear("ReceiveMessage");
    receive(&proxy.url(), &queue).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_proxy_hangs_resets_delays_and_loses_answers() {
    let (_sqs, queue, proxy) = faulty().await;

    proxy.once("ReceiveMessage", Fault::Hang);
    assert!(
        tokio::time::timeout(A_MOMENT, receive(&proxy.url(), &queue))
            .await
            .is_err()
    );

    proxy.once("ReceiveMessage", Fault::Reset);
    let error = receive(&proxy.url(), &queue).await.unwrap_err();
    assert!(
        format!("{error:?}").contains("ConnectionReset"),
        "{error:?}"
    );

    proxy.once("ReceiveMessage", Fault::Delay(A_MOMENT));
    let start = Instant::now();
    receive(&proxy.url(), &queue).await.unwrap();
    assert!(start.elapsed() >= A_MOMENT);

    queue.send("body").await;
    proxy.once("ReceiveMessage", Fault::LoseAnswer);
    assert!(receive(&proxy.url(), &queue).await.is_err());
    assert_eq!(queue.in_flight().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_proxy_fails_entries_of_a_batch() {
    let (sqs, queue, proxy) = faulty().await;
    queue.send_all(["a", "b", "c"]).await;
    let messages = queue.receive_all().await;
    let delete = async || {
        let mut request = sqs::client(&proxy.url())
            .delete_message_batch()
            .queue_url(&queue.url);
        for (position, message) in messages.iter().enumerate() {
            let entry = aws_sdk_sqs::types::DeleteMessageBatchRequestEntry::builder()
                .id(position.to_string())
                .receipt_handle(message.receipt_handle().unwrap())
                .build()
                .unwrap();
            request = request.entries(entry);
        }
        request.send().await.unwrap()
    };

    proxy.once("DeleteMessageBatch", Fault::fail_all_entries(false));
    let answer = delete().await;
    assert_eq!((answer.successful.len(), answer.failed.len()), (0, 3));
    assert!(answer.failed.iter().all(|entry| !entry.sender_fault));
    assert_eq!(queue.depth().await, 3);

    proxy.once("DeleteMessageBatch", Fault::fail_entries(&[1], true));
    let answer = delete().await;
    assert_eq!((answer.successful.len(), answer.failed.len()), (2, 1));
    assert_eq!(
        (answer.failed[0].id.as_str(), answer.failed[0].sender_fault),
        ("1", true)
    );
    assert_eq!(queue.depth().await, 1);
    assert_eq!(
        proxy.bodies("DeleteMessageBatch")[1]["Entries"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    drop(sqs);
}

#[tokio::test(flavor = "multi_thread")]
async fn edge_mock_answers_and_remembers() {
    let edge = EdgeMock::start().await;
    let port = edge.url().rsplit_once(':').unwrap().1.parse().unwrap();
    assert_eq!(edge.count(), 0);

    edge.answer_in_turn(
        "/a",
        [Answer::text(500, "no"), Answer::json(200, &json!({"n": 1}))],
    );
    assert_eq!(http::get(port, "/a?x=1").await.unwrap().status, 500);
    assert_eq!(http::get(port, "/a").await.unwrap().json(), json!({"n": 1}));
    assert_eq!(
        http::get(port, "/a").await.unwrap().header("content-type"),
        "application/json"
    );
    assert_eq!(http::get(port, "/b").await.unwrap().status, 404);
    assert_eq!((edge.count(), edge.requests_to("/a").len()), (4, 3));
    assert_eq!(edge.requests()[0].query, "x=1");

    edge.answer("/c", Answer::close());
    http::get(port, "/c").await.unwrap_err();
    edge.answer("/c", Answer::hang());
    assert!(
        tokio::time::timeout(A_MOMENT, http::get(port, "/c"))
            .await
            .is_err()
    );
    edge.answer(
        "/c",
        Answer::text(200, "late")
            .header("retry-after", "1")
            .after(A_MOMENT),
    );
    let start = Instant::now();
    assert_eq!(
        http::get(port, "/c").await.unwrap().header("retry-after"),
        "1"
    );
    assert!(start.elapsed() >= A_MOMENT);

    let envelope = hyper::Request::post("/api/1/envelope/")
        .body("{}\n".into())
        .unwrap();
    assert_eq!(http::send(port, envelope).await.unwrap().status(), 200);
    assert_eq!(edge.envelopes(), ["{}\n"]);
    assert_eq!(
        edge.requests().last().map(Received::text).as_deref(),
        Some("{}\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "waited 50ms in vain: pigs fly")]
async fn waiting_in_vain_fails_the_test() {
    until("pigs fly", Duration::from_millis(50), async || false).await;
}

/// A proxy in front of a server that sends back what it gets.
async fn echo() -> (TcpProxy, tokio::task::JoinHandle<()>) {
    let port = free_port();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
        .await
        .unwrap();
    let echo = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    (TcpProxy::start(port).await, echo)
}

async fn connect(proxy: &TcpProxy) -> TcpStream {
    TcpStream::connect(("127.0.0.1", proxy.port()))
        .await
        .unwrap()
}

async fn answers(stream: &mut TcpStream) -> bool {
    stream.write_all(b"x").await.unwrap();
    tokio::time::timeout(SOON, stream.read_exact(&mut [0]))
        .await
        .is_ok_and(|read| read.is_ok())
}

async fn is_silent(stream: &mut TcpStream) -> bool {
    stream.write_all(b"x").await.unwrap();
    tokio::time::timeout(A_MOMENT, stream.read_exact(&mut [0]))
        .await
        .is_err()
}

async fn faulty() -> (Sqs, TestQueue, FaultProxy) {
    let sqs = Sqs::start().await;
    let queue = sqs.queue("q").await;
    let proxy = FaultProxy::start(sqs.endpoint()).await;
    (sqs, queue, proxy)
}

async fn receive(
    endpoint: &str,
    queue: &TestQueue,
) -> Result<ReceiveMessageOutput, SdkError<ReceiveMessageError>> {
    sqs::client(endpoint)
        .receive_message()
        .queue_url(&queue.url)
        .send()
        .await
}

#[test]
fn a_metric_is_the_sum_of_its_series() {
    let page = "# TYPE a counter\n\
        a_total{x=\"1,2\",y=\"3\"} 2\n\
        a_total{x=\"1,2\",y=\"4\"} 3 # {} 1\n\
        # TYPE ab gauge\n\
        ab 7\n\
        # TYPE c counter\n\
        # EOF\n";
    assert_eq!(sum_of(page, "a_total"), Some(5.0));
    assert_eq!(sum_of(page, "a_total{y=\"3\"}"), Some(2.0));
    assert_eq!(sum_of(page, "a_total{y=\"4\",x=\"1,2\"}"), Some(3.0));
    assert_eq!(sum_of(page, "a_total{y=\"5\"}"), Some(0.0));
    assert_eq!(sum_of(page, "ab"), Some(7.0));
    assert_eq!(sum_of(page, "c_total"), Some(0.0));
    assert_eq!(sum_of(page, "c"), None);
    assert_eq!(sum_of(page, "d"), None);
}
