//! Traces go where they are asked to, and name the producer.

use std::time::Duration;

use aws_sdk_sqs::types::{MessageSystemAttributeNameForSends, MessageSystemAttributeValue};

use testkit::edge::{Answer, EdgeMock};
use testkit::redis::Redis;
use testkit::sqs::{Sqs, TestQueue};
use testkit::until;
use testkit::worker::Worker;

const BODY: &str = r#"{"type":"entitlements.updated","customerId":"acme","entitlements":[]}"#;
const TRACE: &str = "5759e988bd862e3fe1be46a994272793";
const HEADER: &str = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

fn holds(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

async fn send_traced(sqs: &Sqs, queue: &TestQueue) {
    let header = MessageSystemAttributeValue::builder()
        .data_type("String")
        .string_value(HEADER)
        .build()
        .unwrap();
    sqs.client()
        .send_message()
        .queue_url(&queue.url)
        .message_body(BODY)
        .message_system_attributes(MessageSystemAttributeNameForSends::AwsTraceHeader, header)
        .send()
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_a_span_that_links_to_the_producer_and_is_sent_before_the_end() {
    let (redis, sqs, collector) = (
        Redis::start().await,
        Sqs::start().await,
        EdgeMock::start().await,
    );
    collector.answer("/v1/traces", Answer::text(200, ""));
    let queue = sqs.queue("traced").await;
    send_traced(&sqs, &queue).await;
    let worker = Worker::builder(&redis, &queue)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .start()
        .await;
    queue.wait_empty(Duration::from_secs(20)).await;
    worker.term();
    assert_eq!(worker.wait_exit(Duration::from_secs(10)).await, 0);
    let sent = collector.requests_to("/v1/traces");
    let bodies: Vec<&[u8]> = sent.iter().map(|request| &request.body[..]).collect();
    for part in [
        &bytes_of(TRACE)[..],
        &bytes_of("53995c3f42cd8ad8"),
        b"messaging.batch.message_count",
        b"aws_sqs",
        b"traced",
        b"entitlement-sync",
    ] {
        assert!(
            bodies.iter().any(|body| holds(body, part)),
            "no span holds {part:?}"
        );
    }
    assert!(
        !bodies.iter().any(|body| holds(body, b"acme")),
        "a span names a customer"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_nothing() {
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("traced").await;
    let worker = Worker::builder(&redis, &queue)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        .start()
        .await;
    queue.send(BODY).await;
    queue.wait_empty(Duration::from_secs(20)).await;
    until("it is applied", Duration::from_secs(5), async || {
        redis.get("production:c_acme").is_some()
    })
    .await;
    worker.term();
    assert_eq!(worker.wait_exit(Duration::from_secs(10)).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentry_that_hangs_takes_no_time_from_the_last_traces() {
    let (redis, sqs, collector, sentry) = (
        Redis::start().await,
        Sqs::start().await,
        EdgeMock::start().await,
        EdgeMock::start().await,
    );
    collector.answer("/v1/traces", Answer::text(200, ""));
    sentry.answer("/api/1/envelope/", Answer::hang());
    let queue = sqs.queue("traced").await;
    let worker = Worker::builder(&redis, &queue)
        .unset("DISABLE_SENTRY")
        .env("SENTRY_DSN", sentry.sentry_dsn())
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .env("MAX_RECEIVE_COUNT", 1)
        .start()
        .await;
    queue.send("no JSON").await;
    until(
        "an error is on its way to Sentry",
        Duration::from_secs(20),
        async || sentry.count() > 0,
    )
    .await;
    send_traced(&sqs, &queue).await;
    queue.wait_empty(Duration::from_secs(20)).await;
    worker.term();
    assert_eq!(worker.wait_exit(Duration::from_secs(10)).await, 0);
    let sent = collector.requests_to("/v1/traces");
    let trace = bytes_of(TRACE);
    assert!(
        sent.iter().any(|request| holds(&request.body, &trace)),
        "the last span is not among {} requests",
        sent.len()
    );
}
