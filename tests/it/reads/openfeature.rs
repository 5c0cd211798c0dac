//! Clients of OpenFeature that others wrote, for Node, Python and Rust, at `serve`. Every request and answer on the way
//! is checked against what the protocol publishes.

mod protocol;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::SOON;
use super::sdk::{entitlements, know};
use protocol::{Recorder, failure, flags, success};
use testkit::openfeature::{CLIENTS, Client};
use testkit::reader::KEY;
use testkit::{EdgeMock, Reader, Redis, free_port};

fn question(kind: &str, flag: &str, default: Value, context: Value) -> Value {
    json!({"type": kind, "flag": flag, "default": default, "context": context})
}

fn of_acme(own: &Value) -> Value {
    let mut context = json!({"targetingKey": "acme"});
    let own = own.as_object().unwrap().clone();
    context.as_object_mut().unwrap().extend(own);
    context
}

/// Questions, and what the caller shall have. Every default is the opposite of it, so that it is no default.
fn told() -> Vec<(Value, Value)> {
    let access = |flag: &str, own: Value, expected: bool| {
        let question = question("boolean", flag, (!expected).into(), of_acme(&own));
        (question, json!(expected))
    };
    let value = |kind: &str, flag: &str, default: Value, expected: Value| {
        (question(kind, flag, default, of_acme(&json!({}))), expected)
    };
    let unknown = json!({"targetingKey": "unknown"});
    vec![
        access("sso", json!({}), true),
        // Denied is denied, whatever the caller's default.
        access("audit", json!({}), false),
        access("seats", json!({"requestedUsage": 7.5}), true),
        access("seats", json!({"requestedUsage": 8}), false),
        access("tier", json!({"requestedValues": "gold"}), true),
        access("tier", json!({"requestedValues": "lead"}), false),
        access("calls", json!({}), true),
        access("storage", json!({}), true),
        access(
            "seats",
            json!({"resourceId": "site-1", "requestedUsage": 8}),
            true,
        ),
        value("integer", "seats@limit", json!(-1), json!(10)),
        value("float", "seats@usage", json!(-1.5), json!(2.5)),
        value("float", "seats@remaining", json!(-1.5), json!(7.5)),
        value("float", "regions@limit", json!(-1.5), json!(10.5)),
        value("integer", "calls@usage", json!(-1), json!(0)),
        value(
            "object",
            "tier@values",
            json!({}),
            json!({"values": ["gold", "silver"]}),
        ),
        // Nor is what is not known left to the caller's default.
        access("absent", json!({}), false),
        value("integer", "absent@limit", json!(-1), json!(0)),
        (
            question("boolean", "sso", json!(true), unknown.clone()),
            json!(false),
        ),
        (
            question("integer", "seats@limit", json!(-1), unknown),
            json!(0),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_three_languages_get_the_same_answers() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    know(&edge, "acme", None, &entitlements(10));
    know(&edge, "acme", Some("site-1"), &entitlements(11));
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    for client in CLIENTS {
        let recorder = Recorder::before(reader.read_port()).await;
        let told = told();
        let questions: Vec<Value> = told.iter().map(|(question, _)| question.clone()).collect();
        let answers = client.ask(&recorder.url(), KEY, &questions).await;
        assert_eq!(answers.len(), told.len());
        for ((question, expected), answer) in told.iter().zip(&answers) {
            assert_eq!(
                &answer["value"], expected,
                "{client:?}: {question}: {answer}"
            );
            assert_eq!(answer["errorCode"], Value::Null, "{client:?}: {question}");
        }
        assert_eq!(answers[1]["variant"], "denied", "{client:?}");
        if client == Client::Rust {
            assert_eq!(
                (&answers[1]["reason"], &answers[1]["metadata"]),
                (&json!("Static"), &Value::Null)
            );
        } else {
            let reasons = ["TARGETING_MATCH", "CACHED"];
            assert!(
                reasons.iter().any(|it| answers[1]["reason"] == *it),
                "{}",
                answers[1]
            );
            assert_eq!(answers[1]["metadata"]["accessDeniedReason"], "Revoked");
            assert_eq!(
                answers[17]["metadata"]["accessDeniedReason"],
                "CustomerNotFound"
            );
            assert_eq!(answers[2]["metadata"]["usageLimit"], 10);
        }
        assert_eq!(recorder.checked(), told.len());

        let whole = question(
            "object",
            "seats@entitlement",
            json!({}),
            of_acme(&json!({})),
        );
        let whole = client.ask(&recorder.url(), KEY, &[whole]).await.remove(0);
        let expected = [
            ("hasAccess", json!(true)),
            ("usageLimit", json!(10)),
            ("currentUsage", json!(2.5)),
        ];
        for (field, expected) in expected {
            assert_eq!(whole["value"][field], expected, "{client:?}: {whole}");
        }
        // What is unlimited has no number: the caller's default counts.
        let unlimited = question("integer", "exports@limit", json!(77), of_acme(&json!({})));
        let unlimited = client.ask(&recorder.url(), KEY, &[unlimited]).await;
        assert_eq!(unlimited[0]["value"], 77, "{client:?}");
        let says_so = unlimited[0]["metadata"]["unlimited"] == true;
        assert_eq!(
            says_so,
            client == Client::Python,
            "{client:?}: {}",
            unlimited[0]
        );
        let has_error = !unlimited[0]["errorCode"].is_null();
        assert_eq!(
            has_error,
            client != Client::Python,
            "{client:?}: {}",
            unlimited[0]
        );
    }
    assert_eq!(edge.requests_to("/v1/c/acme/").len(), 2);

    // What can no longer be confirmed is an answer too.
    redis.kill();
    reader.wait_redis("DISCONNECTED").await;
    for client in CLIENTS {
        let asked = question("boolean", "sso", json!(false), of_acme(&json!({})));
        let answer = client.ask(&reader.url(), KEY, &[asked]).await.remove(0);
        assert_eq!(answer["value"], true, "{client:?}: {answer}");
        if client != Client::Rust {
            assert_eq!(answer["reason"], "STALE", "{client:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_answer_is_left_to_the_caller() {
    let redis = Redis::start().await;
    let away = Reader::builder(&redis, &format!("http://127.0.0.1:{}", free_port()))
        .redis_port(free_port())
        .spawn();
    away.wait_redis("DISCONNECTED").await;
    let edge = EdgeMock::start().await;
    know(&edge, "acme", None, &entitlements(10));
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    for client in CLIENTS {
        // Neither Redis nor the Edge API: whatever the default is.
        let recorder = Recorder::before(away.read_port()).await;
        for default in [true, false] {
            let asked = question("boolean", "sso", default.into(), of_acme(&json!({})));
            let answer = client.ask(&recorder.url(), KEY, &[asked]).await.remove(0);
            assert_eq!(answer["value"], default, "{client:?}: {answer}");
            assert_ne!(answer["errorCode"], Value::Null, "{client:?}: {answer}");
        }
        let number = question("integer", "seats@limit", json!(3), of_acme(&json!({})));
        let answer = client.ask(&recorder.url(), KEY, &[number]).await.remove(0);
        assert_eq!(answer["value"], 3, "{client:?}: {answer}");
        assert_eq!(recorder.checked(), 3);

        // A question without a customer, and a wrong key: an error code.
        let nobody = question("boolean", "sso", json!(false), json!({"plan": "pro"}));
        let answers = client.ask(&reader.url(), KEY, &[nobody]).await;
        let answer = &answers[0];
        let expected = match client {
            // It takes every 400 for this.
            Client::Rust => "InvalidContext",
            Client::Node | Client::Python => "TARGETING_KEY_MISSING",
        };
        assert_eq!(answer["errorCode"], expected, "{client:?}: {answer}");
        assert_eq!(answer["value"], false, "{client:?}");
        let asked = question("boolean", "sso", json!(false), of_acme(&json!({})));
        let answer = client.ask(&reader.url(), "wrong", &[asked]).await.remove(0);
        assert_eq!(answer["value"], false, "{client:?}: {answer}");
        assert_ne!(answer["errorCode"], Value::Null, "{client:?}: {answer}");
    }
}

/// What docs/reading.md says of the providers' types.
#[tokio::test(flavor = "multi_thread")]
async fn providers_take_numbers_and_lists_each_in_its_way() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    know(&edge, "acme", None, &entitlements(10));
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    let acme = of_acme(&json!({}));
    let whole = question("float", "seats@limit", json!(-1.5), acme.clone());
    let fraction = question("integer", "seats@usage", json!(-1), acme.clone());
    let list = of_acme(&json!({"requestedValues": ["gold", "silver"]}));
    let list = question("boolean", "tier", json!(false), list);
    for client in CLIENTS {
        let numbers = [whole.clone(), fraction.clone()];
        let answers = client.ask(&reader.url(), KEY, &numbers).await;
        let found: Vec<f64> = answers
            .iter()
            .filter_map(|it| it["value"].as_f64())
            .collect();
        let expected = match client {
            Client::Node => [10.0, 2.5],
            // A whole number is no float, and a fraction no integer.
            Client::Python => [-1.5, -1.0],
            Client::Rust => [10.0, -1.0],
        };
        assert_eq!(found, expected, "{client:?}");
        // None escapes the key of a flag: this is a path and a query.
        let odd = question("boolean", "sso?x", json!(false), acme.clone());
        let answer = client.ask(&reader.url(), KEY, &[odd]).await;
        assert_eq!(answer[0]["value"], true, "{client:?}");
        // Its contexts hold no lists.
        if client != Client::Rust {
            let answer = client
                .ask(&reader.url(), KEY, std::slice::from_ref(&list))
                .await;
            assert_eq!(answer[0]["value"], true, "{client:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_flags_of_a_customer_have_a_version() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    know(&edge, "acme", None, &entitlements(10));
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    let recorder = Recorder::before(reader.read_port()).await;
    let asked =
        json!({"url": recorder.url(), "key": KEY, "questions": [], "all": of_acme(&json!({}))});
    let answer = Client::Node.run(&asked).await;
    assert_eq!(answer["all"], json!([200, 304]));
    assert_eq!(recorder.checked(), 2);

    // The list has what is asked for alone, and a change has another version.
    let path = "/ofrep/v1/evaluate/flags";
    let body = json!({"context": of_acme(&json!({}))});
    let all = reader.post(path, &body).await;
    let listed = all.json()["flags"].take();
    for flag in listed.as_array().unwrap() {
        let key = flag["key"].as_str().unwrap();
        let alone = reader.flag(key, &body["context"]).await.json();
        assert_eq!(alone["value"], flag["value"], "{key}");
        assert_eq!(alone["variant"], flag["variant"], "{key}");
    }
    let keys: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["key"].as_str().unwrap())
        .collect();
    assert_eq!(
        keys,
        [
            "sso",
            "audit",
            "regions",
            "regions@limit",
            "tier",
            "tier@values",
            "seats",
            "seats@limit",
            "seats@usage",
            "seats@remaining",
            "calls",
            "calls@limit",
            "calls@usage",
            "calls@remaining",
            "storage",
            "storage@limit",
            "storage@usage",
            "storage@remaining",
            "exports",
            "exports@limit",
            "exports@usage",
            "exports@remaining"
        ]
    );
    let more = json!({"context": {"targetingKey": "acme", "requestedUsage": 8}});
    let more = reader.post(path, &more).await;
    assert_ne!(more.header("etag"), all.header("etag"));
    // A customer that the Edge API does not know has none.
    let unknown = reader
        .post(path, &json!({"context": {"targetingKey": "unknown"}}))
        .await;
    assert_eq!(
        (unknown.status, unknown.json()),
        (200, json!({"flags": []}))
    );
    flags(&unknown.json()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_question_is_refused_as_the_protocol_says() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    let cases = [
        ("", "PARSE_ERROR"),
        ("{", "PARSE_ERROR"),
        ("[]", "PARSE_ERROR"),
        ("{}", "TARGETING_KEY_MISSING"),
        (r#"{"context":null}"#, "TARGETING_KEY_MISSING"),
        (r#"{"context":{}}"#, "TARGETING_KEY_MISSING"),
        (
            r#"{"context":{"targetingKey":""}}"#,
            "TARGETING_KEY_MISSING",
        ),
        (r#"{"context":"acme"}"#, "INVALID_CONTEXT"),
        (
            r#"{"context":{"targetingKey":["acme"]}}"#,
            "INVALID_CONTEXT",
        ),
        (r#"{"context":{"targetingKey":"a:f_x"}}"#, "INVALID_CONTEXT"),
        (
            r#"{"context":{"targetingKey":"acme","resourceId":{}}}"#,
            "INVALID_CONTEXT",
        ),
        (
            r#"{"context":{"targetingKey":"acme","requestedUsage":"many"}}"#,
            "INVALID_CONTEXT",
        ),
        (
            r#"{"context":{"targetingKey":"acme","requestedValues":[1]}}"#,
            "INVALID_CONTEXT",
        ),
    ];
    let headers = [("x-api-key", KEY), ("content-type", "application/json")];
    for (body, code) in cases {
        for path in ["/ofrep/v1/evaluate/flags/sso", "/ofrep/v1/evaluate/flags"] {
            let refused = reader.ask(("POST", path), &headers, body).await;
            assert_eq!(refused.status, 400, "{path} {body}");
            let answer = refused.json();
            assert_eq!(answer["errorCode"], code, "{path} {body}");
            failure(&answer, path.ends_with("/sso")).unwrap();
        }
    }
    assert_eq!(edge.count(), 0);
    // It was in the protocol until May 2025. No provider needs it, and none takes 404 for an error.
    assert_eq!(reader.get("/ofrep/v1/configuration").await.status, 404);
}

/// Sends a request by hand, and returns all that is answered until the connection ends.
async fn answer_to(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(SOON, stream.read_to_end(&mut answer)).await;
    read.expect("the connection ends").unwrap();
    String::from_utf8(answer).unwrap()
}

/// The body is 60,000 bytes short, or more than the server takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_arrive_whole_is_refused_as_the_protocol_says() {
    let (redis, edge) = (Redis::start().await, EdgeMock::start().await);
    let reader = Reader::builder(&redis, &edge.url()).start().await;
    let large = "x".repeat(64 * 1024 + 1);
    let bodies = [
        (408, "content-length: 60000\r\n\r\n{".to_owned()),
        (
            413,
            format!("content-length: {}\r\n\r\n{large}", large.len()),
        ),
    ];
    for (status, body) in bodies {
        for path in ["/ofrep/v1/evaluate/flags/sso", "/ofrep/v1/evaluate/flags"] {
            let request = format!(
                "POST {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\nconnection: close\r\n{body}"
            );
            let answer = answer_to(reader.read_port(), &request).await;
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status} ")),
                "{path}: {head}"
            );
            let body: Value = serde_json::from_str(body).unwrap();
            failure(&body, path.ends_with("/sso")).unwrap();
            assert_eq!(body["errorCode"], "PARSE_ERROR", "{path}");
            let details = body["errorDetails"].as_str().unwrap();
            assert!(details.starts_with("the body "), "{details}");
        }
    }
}

#[test]
fn the_checker_finds_what_breaks_the_protocol() {
    let good = json!({"key": "f", "reason": "CACHED", "variant": "granted", "value": true, "metadata": {"a": 1}});
    success(&good).unwrap();
    for (field, value) in [
        ("key", json!(1)),
        ("key", Value::Null),
        ("reason", json!("BECAUSE")),
        ("reason", Value::Null),
        ("variant", json!(1)),
        ("value", json!([1])),
        ("value", Value::Null),
        ("metadata", json!({"a": null})),
        ("metadata", json!({"a": {}})),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        assert!(success(&bad).is_err(), "{bad}");
    }
    assert!(failure(&json!({"errorCode": "GENERAL"}), true).is_err());
    assert!(failure(&json!({"key": "f", "errorCode": "ODD"}), true).is_err());
    assert!(flags(&json!({"flags": [{"key": "f"}]})).is_err());
}
