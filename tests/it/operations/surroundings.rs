//! Environments as they really are: variables of others, odd values, and answers that are not SQS's.

use std::process::Command;

use crate::stand::{SOON, Stand};
use testkit::aws::Sts;
use testkit::edge::EdgeMock;
use testkit::worker::Builder;
use testkit::{Answer, Worker, until};

async fn wait_log(worker: &Worker, part: &str) {
    until(&format!("the log says {part}"), SOON, async || {
        worker.logs().contains(part)
    })
    .await;
}

/// It works, and says once of each of these names that it has no effect.
async fn works_and_names(stand: &Stand, builder: Builder, names: &[&str]) {
    let worker = builder.start().await;
    stand.send("acme", 1_000).await;
    stand.queue.wait_empty(SOON).await;
    let log = worker.logs();
    for name in names {
        let said = log
            .lines()
            .filter(|line| line.contains("WARN") && line.contains(name));
        assert_eq!(said.count(), 1, "{name}: {log}");
    }
    assert!(!log.contains("panicked"), "{log}");
    worker.term();
    assert_eq!(worker.wait_exit(SOON).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_variable_of_the_sdk_of_aws_keeps_the_worker_from_its_work() {
    let stand = Stand::start().await;
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        config.path(),
        "[default]\nretry_mode = legacy\nmax_attempts = 0\nuse_fips_endpoint = true\nregion\n[[x\n",
    )
    .unwrap();
    for odd in [
        ("AWS_USE_FIPS_ENDPOINT", "true"),
        ("AWS_USE_DUALSTACK_ENDPOINT", "true"),
        ("AWS_RETRY_MODE", "legacy"),
        ("AWS_MAX_ATTEMPTS", "0"),
        ("AWS_DEFAULTS_MODE", "nonsense"),
        ("AWS_SDK_UA_APP_ID", "not an id / at all"),
        ("AWS_ACCOUNT_ID_ENDPOINT_MODE", "required"),
        ("AWS_REQUEST_CHECKSUM_CALCULATION", "nonsense"),
        ("AWS_REQUEST_MIN_COMPRESSION_SIZE_BYTES", "-1"),
        ("AWS_SIGV4A_SIGNING_REGION_SET", "*"),
        ("AWS_STS_REGIONAL_ENDPOINTS", "legacy"),
    ] {
        let builder = stand.worker().env(odd.0, odd.1);
        works_and_names(&stand, builder, &[odd.0]).await;
    }
    let builder = stand
        .worker()
        .env("AWS_CONFIG_FILE", config.path().display())
        .env("AWS_PROFILE", "absent");
    works_and_names(&stand, builder, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_variables_of_opentelemetry_mean_what_they_mean_elsewhere() {
    let (stand, collector) = (Stand::start().await, EdgeMock::start().await);
    for path in ["/v1/traces", "/own"] {
        collector.answer(path, Answer::text(200, ""));
    }
    let traced = async |more: &[(&str, &str)]| {
        let mut builder = stand
            .worker()
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url());
        for (name, value) in more {
            builder = builder.env(name, value);
        }
        let before = collector.count();
        let worker = builder.start().await;
        stand.send("acme", 1_000).await;
        stand.queue.wait_empty(SOON).await;
        worker.term();
        assert_eq!(worker.wait_exit(SOON).await, 0);
        let log = worker.logs();
        assert!(!log.contains("canary"), "{log}");
        (collector.requests()[before..].to_vec(), log)
    };
    let holds = |body: &[u8], part: &str| {
        body.windows(part.len())
            .any(|window| window == part.as_bytes())
    };
    let (plain, _) = traced(&[]).await;
    assert!(holds(&plain[0].body, "entitlement-sync") && plain[0].path == "/v1/traces");
    let own = format!("{}/own?dataset=a", collector.url().trim_end_matches('/'));
    let (named, _) = traced(&[
        ("OTEL_SERVICE_NAME", "the-sync-of-tests"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment=of-tests",
        ),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-team=Bearer%20canary-team"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &own),
        ("RUST_LOG", "trace"),
    ])
    .await;
    assert_eq!(named[0].path, "/own");
    assert_eq!(named[0].header("x-team"), "Bearer canary-team");
    for part in ["the-sync-of-tests", "of-tests"] {
        assert!(holds(&named[0].body, part), "{part}");
    }
    for off in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
    ] {
        let (requests, _) = traced(&[off]).await;
        assert_eq!(requests.len(), 0, "{off:?}");
    }
    let (_, log) = traced(&[
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
    ])
    .await;
    assert!(
        log.contains("OTEL_EXPORTER_OTLP_PROTOCOL is \"grpc\""),
        "{log}"
    );
    assert!(
        log.contains("OTEL_EXPORTER_OTLP_COMPRESSION has no effect"),
        "{log}"
    );
}

/// Runs a command to its end; returns its exit code and its output.
fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let ended = Command::new(env!("CARGO_BIN_EXE_entitlement-sync"))
        .args(arguments)
        .env_clear()
        .envs([
            ("AWS_REGION", "us-east-1"),
            ("QUEUE_URL", "https://sqs.us-east-1.amazonaws.com/1/q"),
            ("SERVER_API_KEY", "key"),
            ("REDIS_HOST", "redis"),
        ])
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    (
        ended.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn a_value_that_is_wrong_is_refused_by_name_and_shown_nowhere() {
    let azure =
        "mycache.redis.cache.windows.net:6380,password=s3cretKey=,ssl=True,abortConnect=False";
    for (name, value) in [
        ("REDIS_HOST", azure),
        ("REDIS_SENTINEL_HOSTS", "a:26379,password=s3cretKey="),
        ("REDIS_URL", "redis://default:57#s3cretKey@127.0.0.1:6379/0"),
        ("REDIS_PORT", "6380,password=s3cretKey="),
        ("HTTPS_PROXY", "http://user:57#s3cretKey@proxy:3128"),
        ("REDIS_PASSWORD_FILE", "s3cretKey"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "s3cretKey"),
    ] {
        for arguments in [&["config"][..], &[], &["config", "--json"]] {
            let (code, said) = run(arguments, &[(name, value)]);
            assert_eq!(code, Some(78), "{said}");
            assert!(said.contains(name), "{said}");
            assert!(!said.contains("s3cret"), "{name}: {said}");
        }
    }
    for (name, value) in [
        ("ENVIRONMENT_PREFIX", "\"production\""),
        ("ENVIRONMENT_PREFIX", "production # the prefix"),
        ("REDIS_HOST", "'redis'"),
        ("REDIS_PASSWORD", "two\nlines"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "nonsense"),
    ] {
        let (code, said) = run(&[], &[(name, value)]);
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains(&format!("  {name} ")), "{said}");
    }
    let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3cretKey");
    let (code, said) = run(&["config"], &[headers]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains(headers.0) && !said.contains("s3cret"),
        "{said}"
    );
}

/// The cause is in the log and in `/readyz?verbose`.
async fn says_why(worker: &Worker, parts: &[&str]) {
    until("the cause is reported", SOON, async || {
        let log = worker.logs();
        let reply = worker.try_http("/readyz?verbose").await;
        let verbose = reply.map(|reply| reply.body).unwrap_or_default();
        parts
            .iter()
            .all(|part| log.contains(part) && verbose.contains(part))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_of_sqs_is_named_with_its_likely_cause() {
    let stand = Stand::start().await;
    let odd = EdgeMock::start().await;
    let html =
        |status| Answer::text(status, "<html>canary</html>").header("content-type", "text/html");
    let xml = "<ErrorResponse><Error><Code>InvalidAction</Code><Message>no such action</Message></Error></ErrorResponse>";
    for (answer, parts) in [
        (
            Answer::text(400, xml).header("content-type", "text/xml"),
            &["InvalidAction: no such action", "text/xml"][..],
        ),
        (html(200), &["HTTP 200 with text/html"]),
        (html(403), &["HTTP 403 with text/html"]),
        (html(407), &["407 from the proxy"]),
        (
            Answer::text(301, "").header("location", "https://portal.example.com/x?canary"),
            &["HTTP 301", "https://portal.example.com,"],
        ),
    ] {
        odd.answer("/", answer);
        let worker = stand.worker().endpoint(odd.url()).spawn();
        says_why(&worker, parts).await;
        wait_log(&worker, "cannot receive from the queue").await;
        let log = worker.logs();
        assert!(
            !log.contains("unknown error") && !log.contains("canary"),
            "{log}"
        );
        let advice = match parts[0].contains("407") {
            true => "add the host to NO_PROXY",
            false => "uses the JSON protocol of SQS",
        };
        assert!(log.contains(advice), "{log}");
        worker.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_wants_a_password_is_named() {
    let (stand, proxy) = (Stand::start().await, EdgeMock::start().await);
    let _ = proxy.url();
    let worker = stand
        .worker()
        .unset("AWS_ENDPOINT_URL_SQS")
        .env("AWS_REGION", "us-east-1")
        .env("QUEUE_URL", "https://sqs.us-east-1.amazonaws.com/1/q")
        .env("HTTPS_PROXY", refusing_proxy().await)
        .spawn();
    wait_log(&worker, "refused by the proxy").await;
    says_why(&worker, &["refused by the proxy"]).await;
}

/// Answers each CONNECT by 407.
async fn refusing_proxy() -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = [0; 4096];
            let _ = stream.read(&mut bytes).await;
            let refusal =
                b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
            let _ = stream.write_all(refusal).await;
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_clocks_and_keys_differ_from_those_of_credentials_and_permissions() {
    let stand = Stand::start().await;
    let odd = EdgeMock::start().await;
    for (code, message, advice) in [
        (
            "com.amazon.coral.service#InvalidSignatureException",
            "Signature expired: 20261126T000000Z is now earlier than 20261126T010000Z",
            "synchronize the clock of this machine by NTP",
        ),
        (
            "com.amazon.coral.service#RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
            "synchronize the clock of this machine by NTP",
        ),
        (
            "com.amazonaws.sqs#KmsAccessDenied",
            "The ciphertext refers to a customer master key that is not accessible",
            "kms:Decrypt on the key of the queue",
        ),
        (
            "com.amazonaws.sqs#KmsDisabled",
            "the key is disabled",
            "enable the key",
        ),
    ] {
        let body = serde_json::json!({"__type": code, "message": message});
        odd.answer("/", Answer::json(400, &body));
        let worker = stand.worker().endpoint(odd.url()).spawn();
        says_why(&worker, &[message]).await;
        wait_log(&worker, "cannot receive from the queue").await;
        let log = worker.logs();
        let line = log.lines().find(|line| line.contains("cannot receive"));
        let line = line.unwrap();
        assert!(line.contains("ERROR") && line.contains(advice), "{line}");
        worker.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_file_that_cannot_be_read_is_named_with_its_variable() {
    let (stand, sts) = (Stand::start().await, Sts::start().await);
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("token");
    let by_token = |path: &std::path::Path| {
        stand
            .worker()
            .unset("AWS_ACCESS_KEY_ID")
            .unset("AWS_SECRET_ACCESS_KEY")
            .env("AWS_ENDPOINT_URL_STS", sts.url())
            .env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/sync")
            .env("AWS_WEB_IDENTITY_TOKEN_FILE", path.display())
    };
    let worker = by_token(&absent).spawn();
    let path = absent.to_str().unwrap();
    says_why(
        &worker,
        &["AWS_WEB_IDENTITY_TOKEN_FILE", path, "os error 2"],
    )
    .await;
    worker.kill();

    // What STS says of it is about the role; a clock is a clock.
    std::fs::write(&absent, "token").unwrap();
    sts.refuse("InvalidIdentityToken", "No OpenIDConnect provider found");
    let worker = by_token(&absent).spawn();
    says_why(
        &worker,
        &[
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "No OpenIDConnect provider found",
        ],
    )
    .await;
    worker.kill();
    sts.refuse("RequestTimeTooSkewed", "too far off");
    let worker = by_token(&absent).spawn();
    says_why(&worker, &["the clock of this machine is wrong"]).await;
}

/// Files of other ways to credentials, and an STS that is none.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_gives_no_credentials_is_named_with_its_variable() {
    let (stand, odd) = (Stand::start().await, EdgeMock::start().await);
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "token").unwrap();
    let config = folder.path().join("config");
    std::fs::write(&config, "[profile sync]\ncredential_process = /bin/false\n").unwrap();
    let html = "<html>canary</html>";
    odd.answer(
        "/",
        Answer::text(403, html).header("content-type", "text/html"),
    );
    let absent = folder.path().join("absent");
    let (token, config, absent, url) = (
        token.to_str().unwrap(),
        config.to_str().unwrap(),
        absent.to_str().unwrap(),
        odd.url(),
    );
    for (variables, parts) in [
        (
            &[
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", absent),
            ][..],
            &["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", absent][..],
        ),
        (
            &[("AWS_CONFIG_FILE", config), ("AWS_PROFILE", "sync")],
            &["AWS_PROFILE is sync", "an AWS profile"],
        ),
        // A profile that is in no file gives way to the next source, which fails.
        (
            &[("AWS_CONFIG_FILE", config), ("AWS_PROFILE", "misspelled")],
            &[
                "an AWS profile gave no credentials",
                "AWS_PROFILE is misspelled",
                "the Edge API",
            ],
        ),
        (
            &[
                ("AWS_PROFILE", "misspelled"),
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", absent),
            ],
            &[
                "an AWS profile gave no credentials, AWS_PROFILE is misspelled",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
                absent,
            ],
        ),
        (
            &[
                ("AWS_ENDPOINT_URL_STS", url.as_str()),
                ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/sync"),
                ("AWS_WEB_IDENTITY_TOKEN_FILE", token),
            ],
            &[
                "AWS_WEB_IDENTITY_TOKEN_FILE",
                "HTTP 403 with text/html and without an error of STS",
            ],
        ),
    ] {
        let mut builder = stand
            .worker()
            .unset("AWS_ACCESS_KEY_ID")
            .unset("AWS_SECRET_ACCESS_KEY");
        for (name, value) in variables {
            builder = builder.env(name, value);
        }
        let worker = builder.spawn();
        says_why(&worker, parts).await;
        assert!(!worker.logs().contains("canary"), "{}", worker.logs());
        worker.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_redis_does_not_have_is_named() {
    let stand = Stand::start().await;
    let worker = stand.worker().env("REDIS_DB", "99").spawn();
    wait_log(&worker, "check REDIS_DB").await;
    until("the cause is reported", SOON, async || {
        let reply = worker.try_http("/readyz?verbose").await;
        reply.is_ok_and(|reply| reply.body.contains("DB index is out of range"))
    })
    .await;
    assert!(
        !worker.logs().contains("check REDIS_PASSWORD"),
        "{}",
        worker.logs()
    );
    worker.term();
    assert_eq!(worker.wait_exit(SOON).await, 0);
}
