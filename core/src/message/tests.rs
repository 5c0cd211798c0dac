//! Every fixture in tests/fixtures is parsed here; what it makes of Redis is tested in tests/it.

use super::*;
use serde_json::Value;
use std::fs;

struct Fixture {
    name: String,
    json: Value,
}

fn fixtures() -> Vec<Fixture> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures");
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
        let reading = read(&body, &named);
        let paths = |reading: &Reading<'_>| reading.changes[0].path.clone();
        match depth {
            0..=6 => {
                let reading = reading.unwrap();
                assert_eq!(reading.wrappings.len(), depth, "{depth}");
                assert_eq!(paths(&reading), None, "{depth}");
            }
            7..=8 => assert!(paths(&reading.unwrap()).is_some(), "{depth}"),
            _ => assert!(reading.is_err(), "{depth}"),
        }
    }
}

#[test]
fn every_fixture_is_of_its_kind_and_invalid_ones_say_why() {
    let mut wrong = Vec::new();
    for fixture in fixtures() {
        let (name, body) = (&fixture.name, body(&fixture));
        let attributes = attributes(&fixture);
        let reading = read(&body, &attributes);
        let change = match &reading {
            Ok(reading) => Ok(reading.kind.as_str()),
            Err(unreadable) => Err(unreadable.reason.clone()),
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
                let unrecognised = reading.ok().and_then(|it| it.unrecognised);
                let is_right = match outcome {
                    "unrecognised" => unrecognised.is_some(),
                    _ => unrecognised.as_deref() == fixture.json["unrecognised"].as_str(),
                };
                if !is_right {
                    wrong.push(format!("{name}: of the unknown kind {unrecognised:?}"));
                }
            }
            (change, outcome) => wrong.push(format!("{name}: {change:?}, expected {outcome:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_body_of_lines_holds_an_event_in_each() {
    let event = |id| {
        format!(r#"{{"type":"usageUpdated","customerId":"{id}","featureId":"f","currentUsage":1}}"#)
    };
    let customers = |body: &str| -> Vec<String> {
        let reading = read(body, &Attributes::default()).unwrap();
        let owner = |change: &Change<'_>| match &change.state {
            StateChange::UpdateUsage { owner, .. } => owner.customer.to_string(),
            other => panic!("{other:?}"),
        };
        reading.changes.iter().map(owner).collect()
    };
    for between in ["\n", "\r\n", "", "\n\n"] {
        let body = [event("a"), event("b")].join(between);
        assert_eq!(customers(&body), ["a", "b"], "{between:?}");
    }
    let broken = format!("{}\n{}", event("a"), &event("b")[1..]);
    assert!(read(&broken, &Attributes::default()).is_err());
}

/// Reasons go to the log, where no part of a body belongs.
#[test]
fn reasons_quote_nothing() {
    let bodies = [
        r#"{"type":"entitlements.updated","customerId":"acme","entitlements":"CANARY"}"#,
        r#"{"type":"entitlements.updated","customerId":"acme","entitlements":[{"usageLimit":"CANARY"}]}"#,
        r#"{"type":"entitlements.updated","customerId":"acme","entitlements":[{"feature":{"id":"f","featureType":["CANARY"]}}]}"#,
        r#"{"CANARY":"entitlements.updated","customerId":"CANARY","currentUsage":"CANARY","featureId":"CANARY"}"#,
        r#"{"type":"entitlements.updated","customerId":["CANARY"],"entitlements":[]}"#,
        r#"{"type":"entitlements.updated","customerId":"acme","entitlements":{"CANARY":1}}"#,
        r#"{"type":"customer.deleted","customers":[5.5,"CANARY"]}"#,
        r#"{"type":"usage.updated","payload":{"customerId":["CANARY"],"featureId":"f","currentUsage":1}}"#,
        r#"{"type":"usage.updated","customerId":"acme","featureId":"f","currentUsage":1,"usageUpdatedAt":"CANARY"}"#,
        r#"{"type":"usage.updated","customerId":"acme:f_CANARY","featureId":"f","currentUsage":1}"#,
        r#"CANARY"#,
        r#""CANARY""#,
        r#"{"type":"x","CANARY"}"#,
    ];
    for body in bodies {
        let reason = match read(body, &Attributes::default()) {
            Ok(reading) => panic!("{body}: {reading:?}"),
            Err(unreadable) => unreadable.reason,
        };
        assert!(!reason.to_string().contains("CANARY"), "{reason}");
        let reason = reason.to_string();
        assert!(reason.len() > 8, "{reason}");
        assert!(reason.matches(", expected").count() <= 1, "{reason}");
        assert!(
            !reason.contains("struct ") && !reason.contains("enum "),
            "{reason}"
        );
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
        format!(
            r#"{{"type":"entitlements.updated","customerId":"a","entitlements":{}}}"#,
            deep("[", "]")
        ),
        deep(r#"{"data":"#, "}"),
        r#"{"type":"usageUpdated","customerId":"a","featureId":"f","currentUsage":1e999}"#.into(),
        r#"{"type":"usageUpdated","customerId":"","featureId":"f","currentUsage":1}"#.into(),
        r#"{"type":"usageUpdated","customerId":"a","featureId":"","currentUsage":1}"#.into(),
        r#"{"Type":"Notification","Message":7}"#.into(),
        r#"{"type":"usageUpdated","customerId":["a"],"featureId":"f","currentUsage":1}"#.into(),
        r#"{"type":"usageUpdated","customer":["a"],"featureId":"f","currentUsage":1}"#.into(),
        r#"{"type":"usageUpdated","customerId":"a","usage":["a",null,"f",1],"featureId":"f"}"#
            .into(),
        r#"{"type":"entitlements.updated","customerId":"a","entitlements":[["a"]]}"#.into(),
        r#"{"type":"customer.deleted","customers":[["a"]]}"#.into(),
    ];
    for body in bodies {
        let shown: String = body.chars().take(80).collect();
        let reading = read(&body, &Attributes::default());
        assert!(reading.is_err(), "{shown}: {reading:?}");
    }
}

#[test]
fn odd_ids_are_taken_as_they_are() {
    let long = "x".repeat(1024);
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
        let reading = read(&body, &Attributes::default()).unwrap();
        let StateChange::UpdateUsage { owner, of, .. } = &reading.changes[0].state else {
            panic!("{reading:?}");
        };
        assert_eq!(owner.customer, id);
        assert_eq!(*of, Metered::Feature(id.into()));
    }
}

#[test]
fn ids_lists_and_keys_are_bounded() {
    let long = "x".repeat(1025);
    let many = |entry: &str, count: usize| format!("[{}]", vec![entry; count].join(","));
    let metered = r#"{"feature":{"id":"f","featureType":"NUMBER","meterType":"Incremental"}}"#;
    for (body, part) in [
        (
            format!(
                r#"{{"type":"usageUpdated","customerId":"{long}","featureId":"f","currentUsage":1}}"#
            ),
            "customer id is 1025 bytes long, and the limit is 1024",
        ),
        (
            format!(
                r#"{{"type":"usageUpdated","customerId":"a","resourceId":"{long}","featureId":"f","currentUsage":1}}"#
            ),
            "resource id is 1025 bytes long",
        ),
        (
            format!(
                r#"{{"type":"usageUpdated","customerId":"a","featureId":"{long}","currentUsage":1}}"#
            ),
            "feature id is 1025 bytes long",
        ),
        (
            format!(r#"{{"type":"customerDeleted","customerIds":["{long}"]}}"#),
            "customerIds[0]: customer id is 1025 bytes long",
        ),
        (
            format!(
                r#"{{"type":"entitlementsUpdated","customerId":"a","entitlements":{}}}"#,
                many("{}", 40_000)
            ),
            "entitlements: the list has more than 32768 entries; split it",
        ),
        (
            format!(
                r#"{{"type":"entitlementsUpdated","customerId":"{}","entitlements":{}}}"#,
                &long[1..],
                many(metered, 9_000)
            ),
            "bytes of ids in keys, and the limit is 4194304; split it",
        ),
    ] {
        let reason = read(&body, &Attributes::default())
            .unwrap_err()
            .reason
            .to_string();
        assert!(reason.contains(part), "{reason}");
    }
}
