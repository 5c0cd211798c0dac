//! Who the worker is to AWS, and how it gets there: docs/aws.md says what these hold.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::stand::{SOON, Stand};
use testkit::aws::{Agent, Sts};
use testkit::forward::HttpProxy;
use testkit::https::{Authority, TlsFront};
use testkit::worker::Builder;
use testkit::{Answer, EdgeMock, Fault, Worker, until};

const ROLE: &str = "arn:aws:iam::123456789012:role/entitlements";
const CREDENTIALS: &str = "/v1/credentials/event-queue.json";

/// A worker without keys, and with nothing else to know AWS by.
fn without_keys(stand: &Stand) -> Builder {
    stand
        .worker()
        .unset("AWS_ACCESS_KEY_ID")
        .unset("AWS_SECRET_ACCESS_KEY")
}

/// How many receives were signed by this key, and whether they had this session's token.
fn signed(stand: &Stand, key: &str, token: &str) -> usize {
    let calls = stand.calls.requests("ReceiveMessage");
    let by_key = |call: &&testkit::http::Received| {
        call.header("authorization")
            .contains(&format!("Credential={key}/"))
            && call.header("x-amz-security-token") == token
    };
    calls.iter().filter(by_key).count()
}

async fn in_use(worker: &Worker) -> Value {
    worker.http("/status").await.json()["queue"]["credentials"].clone()
}

/// The source is shown and logged, once, and no secret of it is.
async fn is_told(worker: &Worker, source: &str) {
    assert_eq!(in_use(worker).await["source"], source);
    let log = worker.logs();
    let said: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("AWS credentials loaded"))
        .collect();
    assert_eq!(said.len(), 1, "{log}");
    assert!(said[0].contains(source), "{log}");
    let status = worker.http("/status").await.body;
    for text in [&log, &status] {
        assert!(
            !text.contains("canary") && !text.contains("token-"),
            "{text}"
        );
    }
}

async fn unready_for(worker: &Worker, reason: &str) {
    until(&format!("it is not ready: {reason}"), SOON, async || {
        let reply = worker.try_http("/readyz?verbose").await;
        reply.is_ok_and(|reply| {
            reply
                .body
                .starts_with(&format!("not ready: queue: {reason}: "))
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_taken_on_by_the_keys_given_and_renewed() {
    let (stand, sts) = (Stand::start().await, Sts::start().await);
    sts.lifetimes(&[Duration::from_secs(15)]);
    let worker = stand
        .worker()
        .env("AWS_ENDPOINT_URL_STS", sts.url())
        .env("SQS_ROLE_ARN", ROLE)
        .env("SQS_ROLE_EXTERNAL_ID", "agreed-upon")
        .start()
        .await;
    let form = &sts.forms()[0];
    assert_eq!(form["Action"], "AssumeRole");
    assert_eq!(form["RoleArn"], ROLE);
    assert_eq!(form["ExternalId"], "agreed-upon");
    assert_eq!(form["RoleSessionName"], "entitlement-sync");
    let signature = sts.requests()[0].header("authorization").to_owned();
    assert!(
        signature.contains("Credential=test/") && signature.contains("/us-east-1/sts/"),
        "{signature}"
    );
    assert!(signed(&stand, "ASIASTS1", "token-sts-1") > 0);
    assert_eq!(signed(&stand, "test", ""), 0);
    let source = format!("role {ROLE}, by keys in the environment");
    is_told(&worker, &source).await;
    let end = in_use(&worker).await["expires_at"]
        .as_str()
        .unwrap()
        .to_owned();
    let end = OffsetDateTime::parse(&end, &Rfc3339).unwrap();
    assert!(end < OffsetDateTime::now_utc() + Duration::from_secs(16));

    let mut at = 1_000;
    until("the next ones are used", SOON, async || {
        at += 1_000;
        stand.applies("acme", at, SOON).await;
        signed(&stand, "ASIASTS2", "token-sts-2") > 0
    })
    .await;
    is_told(&worker, &source).await;
    assert_eq!(
        worker.metric("entitlement_sync_queue_errors_total").await,
        0.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_role_and_expired_keys_have_different_errors() {
    for (code, message, reason) in [
        (
            "AccessDenied",
            "not authorized to perform sts:AssumeRole",
            "credentials are missing or wrong",
        ),
        (
            "ExpiredToken",
            "The security token included in the request is expired",
            "credentials have expired",
        ),
    ] {
        let (stand, sts) = (Stand::start().await, Sts::start().await);
        sts.refuse(code, message);
        let worker = stand
            .worker()
            .env("AWS_ENDPOINT_URL_STS", sts.url())
            .env("SQS_ROLE_ARN", ROLE)
            .spawn();
        unready_for(&worker, reason).await;
        assert_eq!(in_use(&worker).await, Value::Null);
        let log = worker.logs();
        assert!(log.contains(code) && log.contains(message), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_never_taken_on_by_the_credentials_of_the_edge_api() {
    let (stand, edge, sts) = (
        Stand::start().await,
        EdgeMock::start().await,
        Sts::start().await,
    );
    let worker = without_keys(&stand)
        .env("EDGE_API_URL", edge.url())
        .env("AWS_ENDPOINT_URL_STS", sts.url())
        .env("SQS_ROLE_ARN", ROLE)
        .spawn();
    unready_for(&worker, "credentials are missing or wrong").await;
    assert!(edge.requests_to(CREDENTIALS).is_empty());
    assert!(sts.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_identity_token_is_exchanged_as_irsa_has_it() {
    let (stand, sts, folder) = (
        Stand::start().await,
        Sts::start().await,
        TempDir::new().unwrap(),
    );
    let token = folder.path().join("token");
    fs::write(&token, "the-token-of-the-pod").unwrap();
    let worker = without_keys(&stand)
        .env("AWS_ENDPOINT_URL_STS", sts.url())
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", token.display())
        .env("AWS_ROLE_ARN", ROLE)
        .start()
        .await;
    let form = &sts.forms()[0];
    assert_eq!(form["Action"], "AssumeRoleWithWebIdentity");
    assert_eq!(form["RoleArn"], ROLE);
    assert_eq!(form["WebIdentityToken"], "the-token-of-the-pod");
    assert!(signed(&stand, "ASIASTS1", "token-sts-1") > 0);
    is_told(&worker, "a web identity token (IRSA)").await;
    assert!(!worker.logs().contains("AWS_ROLE_ARN"), "it is no typo");

    // Another role on top of it.
    let worker = without_keys(&stand)
        .env("AWS_ENDPOINT_URL_STS", sts.url())
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", token.display())
        .env("AWS_ROLE_ARN", ROLE)
        .env("SQS_ROLE_ARN", "arn:aws:iam::210987654321:role/theirs")
        .start()
        .await;
    is_told(
        &worker,
        "role arn:aws:iam::210987654321:role/theirs, by a web identity token (IRSA)",
    )
    .await;
    assert_eq!(sts.forms().last().unwrap()["Action"], "AssumeRole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_identity_token_that_has_expired_is_named_so() {
    let (stand, sts, folder) = (
        Stand::start().await,
        Sts::start().await,
        TempDir::new().unwrap(),
    );
    let token = folder.path().join("token");
    fs::write(&token, "old").unwrap();
    sts.refuse(
        "ExpiredTokenException",
        "Token expired: current date/time must be before the expiration date/time",
    );
    let worker = without_keys(&stand)
        .env("AWS_ENDPOINT_URL_STS", sts.url())
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", token.display())
        .env("AWS_ROLE_ARN", ROLE)
        .spawn();
    unready_for(&worker, "credentials have expired").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_of_the_pod_is_asked_as_pod_identity_has_it() {
    let (stand, agent, folder) = (
        Stand::start().await,
        Agent::start().await,
        TempDir::new().unwrap(),
    );
    let token = folder.path().join("token");
    fs::write(&token, "the-token-of-the-pod").unwrap();
    let worker = without_keys(&stand)
        .env(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            format!("{}/v1/credentials", agent.url()),
        )
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.display())
        .start()
        .await;
    let request = &agent.requests()[0];
    assert_eq!(request.path, "/v1/credentials");
    assert_eq!(request.header("authorization"), "the-token-of-the-pod");
    assert!(signed(&stand, "ASIAPOD", "token-pod") > 0);
    is_told(&worker, "container credentials (EKS Pod Identity or ECS)").await;

    // Keys win over it, and that is warned of.
    let asked = agent.requests().len();
    let worker = stand
        .worker()
        .env(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            format!("{}/v1/credentials", agent.url()),
        )
        .start()
        .await;
    is_told(&worker, "keys in the environment").await;
    assert_eq!(in_use(&worker).await["expires_at"], Value::Null);
    assert!(
        worker
            .logs()
            .contains("the identity of AWS_CONTAINER_CREDENTIALS_FULL_URI is not used"),
        "{}",
        worker.logs()
    );
    assert_eq!(agent.requests().len(), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_is_used() {
    let (stand, folder) = (Stand::start().await, TempDir::new().unwrap());
    let file = folder.path().join("credentials");
    fs::write(
        &file,
        "[sync]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = canary-profile\n",
    )
    .unwrap();
    let worker = without_keys(&stand)
        .env("AWS_SHARED_CREDENTIALS_FILE", file.display())
        .env("AWS_PROFILE", "sync")
        .start()
        .await;
    assert!(signed(&stand, "AKIAPROFILE", "") > 0);
    is_told(&worker, "an AWS profile").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edge_api_is_named_as_the_source() {
    let (stand, edge) = (Stand::start().await, EdgeMock::start().await);
    let end = OffsetDateTime::now_utc() + Duration::from_secs(3600);
    let end = end.replace_nanosecond(0).unwrap().format(&Rfc3339).unwrap();
    edge.answer(
        CREDENTIALS,
        Answer::json(
            200,
            &json!({"accessKeyId": "ASIAEDGE", "secretAccessKey": "canary", "sessionToken": "token-edge", "expiration": end}),
        ),
    );
    let worker = without_keys(&stand)
        .env("EDGE_API_URL", edge.url())
        .start()
        .await;
    is_told(&worker, "the Edge API").await;
    assert_eq!(in_use(&worker).await["expires_at"], end);
}

/// Static session credentials end, and are not renewed.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_have_expired_are_named_so_in_readiness() {
    let stand = Stand::start().await;
    stand.calls.always("ReceiveMessage", Fault::expired_token());
    let worker = stand.worker().env("AWS_SESSION_TOKEN", "token-x").spawn();
    unready_for(&worker, "credentials have expired").await;
    let status = worker.http("/status").await.json();
    let reason = status["unready_reason"].as_str().unwrap();
    assert!(
        reason.starts_with("queue: credentials have expired: "),
        "{reason}"
    );
    is_told(&worker, "temporary keys in the environment").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_to_the_queue_name_this_program_and_its_version() {
    let stand = Stand::start().await;
    let worker = stand.worker().start().await;
    stand.applies("acme", 1, SOON).await;
    stand.queue.wait_empty(SOON).await;
    drop(worker);
    for action in ["ReceiveMessage", "DeleteMessageBatch", "GetQueueAttributes"] {
        let calls = stand.calls.requests(action);
        assert!(!calls.is_empty(), "{action}");
        for call in calls {
            let name = concat!(" app/entitlement-sync-", env!("CARGO_PKG_VERSION"));
            for header in ["user-agent", "x-amz-user-agent"] {
                let agent = call.header(header);
                assert!(agent.ends_with(name), "{action}: {header}: {agent}");
            }
        }
    }
}

/// Plain http: for STS and the queue the proxy gets the whole URL.
#[tokio::test(flavor = "multi_thread")]
async fn http_goes_by_the_proxy_but_for_what_is_excepted() {
    let (stand, sts) = (Stand::start().await, Sts::start().await);
    for (upper, lower) in [(true, false), (false, true), (true, true)] {
        let proxy = HttpProxy::start().await;
        let name = if upper { "HTTP_PROXY" } else { "http_proxy" };
        let mut builder = stand
            .worker()
            .env(name, proxy.url_with("us%20er", "canary"))
            .env("AWS_ENDPOINT_URL_STS", sts.url())
            .env("SQS_ROLE_ARN", ROLE);
        if upper && lower {
            builder = builder.env("http_proxy", "http://127.0.0.1:1");
        }
        let worker = builder.start().await;
        assert!(
            proxy.count(&format!("POST {}/", stand.calls.url())) > 0,
            "{:?}",
            proxy.heads()
        );
        assert!(
            proxy.count(&format!("POST {}/", sts.url())) > 0,
            "{:?}",
            proxy.heads()
        );
        let heads = proxy.heads().join("").to_lowercase();
        // "us er:canary"
        assert!(
            heads.contains("proxy-authorization: basic dxmgzxi6y2fuyxj5"),
            "{heads}"
        );
        assert!(!worker.logs().contains("canary"), "{}", worker.logs());
        assert!(!worker.http("/status").await.body.contains("canary"));
        drop(worker);

        // Excepted as a network, in either spelling.
        let before = proxy.heads().len();
        let name = if upper { "NO_PROXY" } else { "no_proxy" };
        let worker = stand
            .worker()
            .env("HTTP_PROXY", proxy.url())
            .env("AWS_ENDPOINT_URL_STS", sts.url())
            .env("SQS_ROLE_ARN", ROLE)
            .env(name, "example.com,127.0.0.0/8")
            .start()
            .await;
        drop(worker);
        assert_eq!(proxy.heads().len(), before);
    }
}

/// https: by CONNECT, and with an authority that the system does not know. The Edge API the same way.
#[tokio::test(flavor = "multi_thread")]
async fn https_goes_by_the_proxy_with_an_authority_of_ones_own() {
    let (stand, edge, sts) = (
        Stand::start().await,
        EdgeMock::start().await,
        Sts::start().await,
    );
    let authority = Authority::new();
    let port = |url: String| url.rsplit_once(':').unwrap().1.parse().unwrap();
    let queue = TlsFront::start(&authority, port(stand.calls.url())).await;
    let tls_edge = TlsFront::start(&authority, port(edge.url())).await;
    let tls_sts = TlsFront::start(&authority, sts.port()).await;
    edge.answer(
        "/v1/config/server-sdk-configuration.json",
        Answer::json(
            200,
            &json!({"data": {"sdkConfiguration": {"sentryDsn": null}}}),
        ),
    );
    let all = |builder: Builder| {
        builder
            .endpoint(queue.url())
            .unset("DISABLE_SENTRY")
            .env("EDGE_API_URL", tls_edge.url())
            .env("AWS_ENDPOINT_URL_STS", tls_sts.url())
            .env("SQS_ROLE_ARN", ROLE)
    };
    for (proxy_name, ca_name) in [
        ("HTTPS_PROXY", "AWS_CA_BUNDLE"),
        ("https_proxy", "SSL_CERT_FILE"),
    ] {
        let (proxy, asked) = (HttpProxy::start().await, edge.count());
        let worker = all(stand.worker())
            .env(proxy_name, proxy.url())
            .env(ca_name, authority.file().display())
            .start()
            .await;
        for front in [&queue, &tls_sts] {
            let tunnel = format!("CONNECT 127.0.0.1:{} ", front.port);
            assert!(proxy.count(&tunnel) > 0, "{tunnel}: {:?}", proxy.heads());
        }
        until("the Edge API is asked too", SOON, async || {
            edge.count() > asked
        })
        .await;
        let tunnel = format!("CONNECT 127.0.0.1:{} ", tls_edge.port);
        assert!(proxy.count(&tunnel) > 0, "{tunnel}: {:?}", proxy.heads());
        stand.applies("acme", 1_000, SOON).await;
        drop(worker);

        // Not for http.
        let before = proxy.heads().len();
        let worker = stand.worker().env(proxy_name, proxy.url()).start().await;
        drop(worker);
        assert_eq!(proxy.heads().len(), before);
    }

    // Without the authority no server is trusted, and the reason is in the log.
    let asked = sts.requests().len();
    let worker = all(stand.worker()).spawn();
    until("the certificate is refused", SOON, async || {
        worker.logs().contains("UnknownIssuer")
    })
    .await;
    assert_eq!(sts.requests().len(), asked);
}
