//! Every fixture in tests/fixtures is parsed here; what it makes of Redis is tested in tests/it.

use super::*;
use serde_json::Value;
use std::fs;

struct Fixture {
    name: String,
    json: Value,
}

fn fixtures() -> Vec<Fixture> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    let mut fixtures: Vec<Fixture> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "json"))
        .map(|path| Fixture {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            json: serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap(),
        })
        .collect();
    fixtures.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(fixtures.len() > 100);
    fixtures
}

fn body(fixture: &Fixture) -> String {
    match &fixture.json["body"] {
        Value::String(body) => body.clone(),
        body => body.to_string(),
    }
}

fn attributes(fixture: &Fixture) -> Attributes {
    let attributes = &fixture.json["message_attributes"];
    let kind = attributes["type"]
        .as_str()
        .or(attributes["eventType"].as_str());
    Attributes {
        kind: kind.map(str::to_owned),
        sent: Some(1_764_000_000_000),
    }
}

/// What was parsed by the way is used once; after that the text is.
#[test]
fn a_change_is_the_same_when_asked_for_twice() {
    let mut wrapped = 0;
    for fixture in fixtures() {
        let (body, attributes) = (body(&fixture), attributes(&fixture));
        let Ok(opened) = open(&body, &attributes) else {
            continue;
        };
        wrapped += usize::from(opened.wrappings.contains(&Wrapping::Payload));
        let [first, second] = [(); 2].map(|()| opened.change(attributes.sent));
        assert_eq!(first, second, "{}", fixture.name);
    }
    assert!(wrapped > 0);
}

#[test]
fn wrappings_are_taken_off_to_the_same_depth_however_they_are_read() {
    const EVENT: &str = r#"{"customerId":"c","featureId":"f","currentUsage":1}"#;
    for depth in 0..12 {
        let wrap =
            |text: String, _| format!(r#"{{"type":"MEASUREMENT_REPORTED","payload":{text}}}"#);
        let body = (0..depth).fold(EVENT.to_owned(), wrap);
        let named = Attributes {
            kind: Some("MEASUREMENT_REPORTED".into()),
            sent: None,
        };
        let opened = open(&body, &named).unwrap();
        assert_eq!(opened.wrappings.len(), depth.min(6), "{depth}");
        assert_eq!(opened.change(None).is_ok(), depth <= 6, "{depth}");
    }
}

#[test]
fn every_fixture_is_of_its_kind_and_invalid_ones_say_why() {
    let mut wrong = Vec::new();
    for fixture in fixtures() {
        let (name, body) = (&fixture.name, body(&fixture));
        let attributes = attributes(&fixture);
        let opened = open(&body, &attributes);
        let change = match &opened {
            Ok(opened) => opened.change(attributes.sent).map(|_| opened.kind.as_str()),
            Err(reason) => Err(reason.clone()),
        };
        match (change, fixture.json["outcome"].as_str()) {
            (Err(reason), Some("invalid")) => {
                let part = fixture.json["error_contains"].as_str().unwrap_or_default();
                if !reason.to_string().contains(part) {
                    wrong.push(format!("{name}: \"{reason}\" does not name {part}"));
                }
            }
            (Ok(kind), Some(outcome)) if outcome != "invalid" => {
                if fixture.json["kind"] != kind {
                    wrong.push(format!("{name}: is {kind}"));
                }
            }
            (change, outcome) => wrong.push(format!("{name}: {change:?}, expected {outcome:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Reasons go to the log, where no part of a body belongs.
#[test]
fn reasons_quote_nothing() {
    let bodies = [
        r#"{"type":"entitlements.updated","customerId":"acme","entitlements":"CANARY"}"#,
        r#"{"type":"entitlements.updated","customerId":"acme","entitlements":[{"usageLimit":"CANARY"}]}"#,
        r#"{"type":"entitlements.updated","customerId":"acme","entitlements":[{"feature":{"id":"f","featureType":"CANARY"}}]}"#,
        r#"{"type":"entitlements.updated","customerId":["CANARY"],"entitlements":[]}"#,
        r#"{"type":"usage.updated","customerId":"acme","featureId":"f","currentUsage":1,"usageUpdatedAt":"CANARY"}"#,
        r#"{"type":"usage.updated","customerId":"acme:f_CANARY","featureId":"f","currentUsage":1}"#,
        r#"CANARY"#,
        r#""CANARY""#,
        r#"{"type":"x","CANARY"}"#,
    ];
    for body in bodies {
        let reason = match open(body, &Attributes::default()) {
            Ok(opened) => opened.change(None).map(|_| ()).unwrap_err(),
            Err(reason) => reason,
        };
        assert!(!reason.to_string().contains("CANARY"), "{reason}");
        assert!(reason.to_string().len() > 8, "{reason}");
    }
}

#[test]
fn what_no_sender_means_is_refused_and_never_panics() {
    let deep =
        |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000));
    let bodies = [
        String::new(),
        "null".into(),
        "[]".into(),
        "\u{0}".into(),
        "{".repeat(1000),
        deep("[", "]"),
        format!(r#"{{"type":"entitlements.updated","customerId":"a","entitlements":{}}}"#, deep("[", "]")),
        deep(r#"{"data":"#, "}"),
        r#"{"type":"usageUpdated","customerId":"a","featureId":"f","currentUsage":1e999}"#.into(),
        r#"{"type":"usageUpdated","customerId":"a","customerId":"b","featureId":"f","currentUsage":1}"#.into(),
        r#"{"type":"usageUpdated","customerId":"\ud800","featureId":"f","currentUsage":1}"#.into(),
        r#"{"type":"usageUpdated","customerId":"","featureId":"f","currentUsage":1}"#.into(),
        r#"{"type":"usageUpdated","customerId":"a","featureId":"","currentUsage":1}"#.into(),
        r#"{"Type":"Notification","Message":7}"#.into(),
        r#"{"Type":"SubscriptionConfirmation","Message":"x"}"#.into(),
    ];
    for body in bodies {
        let shown: String = body.chars().take(80).collect();
        let refused = match open(&body, &Attributes::default()) {
            Ok(opened) => opened.change(None).is_err(),
            Err(_) => true,
        };
        assert!(refused, "{shown}");
    }
}

#[test]
fn odd_ids_are_taken_as_they_are() {
    let long = "x".repeat(10_000);
    for id in [
        "a:b",
        "#",
        "{tag}",
        "a\0b",
        "a\r\nb",
        long.as_str(),
        "é😀",
        " ",
    ] {
        let body = serde_json::json!({
            "type": "usageUpdated", "customerId": id, "featureId": id, "currentUsage": 1,
        });
        let body = body.to_string();
        let opened = open(&body, &Attributes::default()).unwrap();
        let Ok(StateChange::UpdateUsage { owner, of, .. }) = opened.change(Some(1)) else {
            panic!("refused");
        };
        assert_eq!(owner.customer, id);
        assert_eq!(of, Metered::Feature(id.into()));
    }
}
