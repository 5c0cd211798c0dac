//! TLS to Redis: whom it believes, and what it says of whom it does not.

use std::fs;
use std::time::Duration;

use crate::stand::{SOON, state};
use testkit::certs::Certs;
use testkit::sqs::{Sqs, TestQueue};
use testkit::worker::{Builder, Worker};
use testkit::{Redis, free_port, until};

const LIMIT: Duration = Duration::from_secs(30);

pub struct Tls {
    pub redis: Redis,
    pub port: u16,
}

/// A server that shows this certificate on a port of its own, and asks for those of clients or not.
pub async fn server(certs: &Certs, name: &str, asks: &str) -> Tls {
    let port = free_port();
    let redis = Redis::start_with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &certs.file(&format!("{name}.pem")),
        "--tls-key-file",
        &certs.file(&format!("{name}.key")),
        "--tls-ca-cert-file",
        &certs.file("ca.pem"),
        "--tls-auth-clients",
        asks,
    ])
    .await;
    Tls { redis, port }
}

fn worker(tls: &Tls, queue: &TestQueue) -> Builder {
    Worker::builder(&tls.redis, queue)
        .redis_port(tls.port)
        .env("REDIS_TLS", 1)
}

async fn says(worker: &Worker, text: &str) {
    until(&format!("it says {text}"), SOON, async || {
        let reply = worker.try_http("/readyz?verbose").await;
        reply.is_ok_and(|reply| reply.status == 503 && reply.body.contains(text))
    })
    .await;
    // Probes know a moment before the log does.
    until("the log says it as an error", SOON, async || {
        let logs = worker.logs();
        logs.lines()
            .any(|line| line.contains("ERROR") && line.contains(text))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_certificate_is_taken_and_any_other_named() {
    let (certs, sqs) = (Certs::new(), Sqs::start().await);
    let queue = sqs.queue("q").await;
    certs.signed("good", "IP:127.0.0.1,DNS:localhost");
    certs.signed("named", "DNS:redis.test");
    certs.expired("old", "IP:127.0.0.1");
    certs.authority("other");
    let (good, named, old) = tokio::join!(
        server(&certs, "good", "no"),
        server(&certs, "named", "no"),
        server(&certs, "old", "no")
    );
    let ca = certs.file("ca.pem");

    let ready = worker(&good, &queue)
        .env("REDIS_TLS_CA_FILE", &ca)
        .start()
        .await;
    queue.send(&state("acme", 1_000)).await;
    queue.wait_empty(LIMIT).await;
    assert!(good.redis.get("production:c_acme").is_some());
    drop(ready);
    // By its URL, and under a name.
    let url = format!("rediss://localhost:{}/0", good.port);
    let by_url = worker(&good, &queue)
        .unset("REDIS_HOST")
        .unset("REDIS_PORT")
        .unset("REDIS_TLS")
        .env("REDIS_URL", url)
        .env("REDIS_TLS_CA_FILE", &ca);
    drop(by_url.start().await);
    let named_right = worker(&named, &queue)
        .env("REDIS_TLS_CA_FILE", &ca)
        .env("REDIS_TLS_SERVER_NAME", "redis.test");
    drop(named_right.start().await);

    let wrong_ca = worker(&good, &queue).env("REDIS_TLS_CA_FILE", certs.file("other.pem"));
    says(&wrong_ca.spawn(), "no trusted CA signed the certificate").await;
    says(&worker(&good, &queue).spawn(), "set REDIS_TLS_CA_FILE").await;
    let wrong_name = worker(&named, &queue).env("REDIS_TLS_CA_FILE", &ca);
    says(
        &wrong_name.spawn(),
        "the certificate of Redis is for another name",
    )
    .await;
    let expired = worker(&old, &queue).env("REDIS_TLS_CA_FILE", &ca);
    says(&expired.spawn(), "the certificate of Redis has expired").await;
    let blind = worker(&old, &queue)
        .env("REDIS_TLS_INSECURE_SKIP_VERIFY", 1)
        .start()
        .await;
    let warned =
        |line: &str| line.contains("WARN") && line.contains("REDIS_TLS_INSECURE_SKIP_VERIFY");
    assert!(blind.logs().lines().any(warned), "it is loud");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_shown_and_read_again() {
    let (certs, sqs) = (Certs::new(), Sqs::start().await);
    let queue = sqs.queue("q").await;
    certs.signed("server", "IP:127.0.0.1");
    certs.signed("client", "DNS:client");
    certs.expired("old", "DNS:client");
    let tls = server(&certs, "server", "yes").await;
    let builder = worker(&tls, &queue).env("REDIS_TLS_CA_FILE", certs.file("ca.pem"));
    says(&builder.spawn(), "Redis requires a client certificate").await;

    fs::copy(certs.path("old.pem"), certs.path("mine.pem")).unwrap();
    fs::copy(certs.path("old.key"), certs.path("mine.key")).unwrap();
    let worker = builder
        .env("REDIS_TLS_CERT_FILE", certs.file("mine.pem"))
        .env("REDIS_TLS_KEY_FILE", certs.file("mine.key"))
        .spawn();
    says(&worker, "our client certificate has expired").await;
    fs::copy(certs.path("client.pem"), certs.path("mine.pem")).unwrap();
    fs::copy(certs.path("client.key"), certs.path("mine.key")).unwrap();
    worker.wait_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_no_certificates_end_it_at_start() {
    let (certs, sqs) = (Certs::new(), Sqs::start().await);
    let (queue, redis) = (sqs.queue("q").await, Redis::start().await);
    fs::write(certs.path("none.pem"), "nothing\n").unwrap();
    let builder = Worker::builder(&redis, &queue).env("REDIS_TLS", 1);
    let worker = builder
        .env("REDIS_TLS_CA_FILE", certs.file("none.pem"))
        .spawn();
    assert_eq!(worker.wait_exit(SOON).await, 70);
    assert!(
        worker.logs().contains("REDIS_TLS_CA_FILE"),
        "{}",
        worker.logs()
    );
    assert!(
        worker.logs().contains("contains no certificate"),
        "{}",
        worker.logs()
    );
}
