use serde_json::json;

use super::*;
use crate::reader::{Pair, flag, flags, single};

const NOW: f64 = 1_000_000.0;

fn pair(value: &str, timestamp: &str) -> Pair {
    Pair {
        value: Some(value.into()),
        timestamp: Some(timestamp.into()),
    }
}

fn feature(kind: &str, meter: Option<&str>) -> Value {
    json!({"id": "f", "featureType": kind, "meterType": meter, "units": "", "unitsPlural": ""})
}

/// A customer with one feature of each type; `seats` has a limit of 10 and a usage of 7.
fn acme() -> Stored {
    let map = json!({
        "sso": {"calculatedEntitlement": {"feature": feature("BOOLEAN", None)}},
        "region": {"calculatedEntitlement": {"feature": feature("ENUM", None), "enumValues": ["eu", "us"]}},
        "size": {"calculatedEntitlement": {"feature": feature("NUMBER", Some("None")), "usageLimit": 5}},
        "seats": {"calculatedEntitlement": {"feature": feature("NUMBER", Some("Fluctuating")), "usageLimit": 10}, "featureUsage": {"currentUsage": 1}},
    });
    let usages = [("seats".to_owned(), pair(r#"{"currentUsage":7}"#, "41"))];
    Stored {
        entitlements: pair(&map.to_string(), "40"),
        usages: usages.into(),
        ..Stored::default()
    }
}

fn evaluated(state: &State, key: &str) -> Value {
    let flag = flag(state, key, &Request::default(), NOW).unwrap();
    serde_json::to_value(flag.evaluated(key, "CACHED", None)).unwrap()
}

fn value(state: &State, key: &str) -> Option<Value> {
    evaluated(state, key).get("value").cloned()
}

#[test]
fn every_type_of_feature_is_answered() {
    let state = State::read(&acme(), false).unwrap();
    assert_eq!(state.miss(NOW), None);
    for (key, expected) in [
        ("sso", json!(true)),
        ("region", json!(true)),
        ("region@values", json!({"values": ["eu", "us"]})),
        ("size@limit", json!(5)),
        ("seats", json!(true)),
        ("seats@limit", json!(10)),
        ("seats@usage", json!(7)),
        ("seats@remaining", json!(3)),
        ("nothing", json!(false)),
        ("nothing@remaining", json!(0)),
    ] {
        assert_eq!(value(&state, key), Some(expected), "{key}");
    }
    let asked = |usage, values: &[&str]| Request {
        usage,
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    };
    for (key, request, granted) in [
        ("seats", asked(3.0, &[]), true),
        ("seats", asked(3.5, &[]), false),
        ("region", asked(0.0, &["us"]), true),
        ("region", asked(0.0, &["us", "jp"]), false),
    ] {
        let flag = flag(&state, key, &request, NOW).unwrap();
        assert_eq!(flag.is_granted(), granted, "{key} {request:?}");
    }
    let keys: Vec<String> = flags(&state, &Request::default(), NOW)
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert!(keys.contains(&"seats@remaining".into()) && keys.contains(&"sso".into()));
    assert!(!keys.contains(&"sso@limit".into()));
}

#[test]
fn what_is_torn_or_missing_is_a_miss() {
    let mut stored = acme();
    stored.entitlements.timestamp = None;
    assert_eq!(State::read(&stored, false).unwrap_err(), Miss::Torn);
    stored.entitlements.value = None;
    assert_eq!(State::read(&stored, false).unwrap_err(), Miss::Absent);
    stored.entitlements.value = Some("null".into());
    assert_eq!(State::read(&stored, false).unwrap_err(), Miss::Unreadable);

    for (usage, miss) in [
        (Pair::default(), Miss::Usage),
        (
            Pair {
                timestamp: None,
                ..pair("{}", "1")
            },
            Miss::Torn,
        ),
    ] {
        let mut stored = acme();
        stored.usages.insert("seats".into(), usage);
        let state = State::read(&stored, false).unwrap();
        assert_eq!(state.miss(NOW), Some(miss));
        // The others stand.
        assert_eq!(value(&state, "sso"), Some(json!(true)));
        assert!(flag(&state, "seats", &Request::default(), NOW).is_err());
        assert!(crate::reader::entitlements(&state, NOW).is_err());
    }
}

#[test]
fn a_resource_is_as_new_as_its_customer() {
    let mut stored = acme();
    for (of_customer, is_answered) in [(None, false), (Some("41"), false), (Some("40"), true)] {
        stored.customer_timestamp = of_customer.map(str::to_owned);
        let read = State::read(&stored, true);
        assert_eq!(read.is_ok(), is_answered, "{of_customer:?}");
    }
}

#[test]
fn time_alone_ends_usage_and_entitlements() {
    let mut stored = acme();
    let map = json!({
        "sso": {"calculatedEntitlement": {"feature": feature("BOOLEAN", None), "validUntil": NOW + 50.0}},
        "seats": {"calculatedEntitlement": {"feature": feature("NUMBER", Some("Incremental")), "usageLimit": 10}},
    });
    stored.entitlements = pair(&map.to_string(), "40");
    let usage = json!({"currentUsage": 11, "usagePeriodEnd": NOW + 20.0});
    stored
        .usages
        .insert("seats".into(), pair(&usage.to_string(), "41"));
    let state = State::read(&stored, false).unwrap();
    let granted = |key, now| {
        flag(&state, key, &Request::default(), now)
            .unwrap()
            .is_granted()
    };
    assert_eq!(state.good_until(NOW), NOW + 20.0);
    assert!(!granted("seats", NOW) && granted("seats", NOW + 21.0));
    assert_eq!(state.good_until(NOW + 21.0), NOW + 50.0);
    assert!(granted("sso", NOW + 49.0) && !granted("sso", NOW + 50.0));
    assert_eq!(state.miss(NOW + 50.0), Some(Miss::Expired));
    // An SDK that is answered so denies it, and does not ask again.
    let list: Value =
        serde_json::from_str(&crate::reader::entitlements(&state, NOW + 50.0).unwrap()).unwrap();
    let sso = &list["data"]["entitlements"][1];
    assert_eq!(sso["feature"]["refId"], "sso");
    assert_eq!(sso["accessDeniedReason"], NO_FEATURE);
    assert!(sso["validUntil"].is_null());
    // The list has usage as it is stored, one alone as it counts.
    assert_eq!(list["data"]["entitlements"][0]["currentUsage"], 11);
    let one = single(&state, "seats", &Request::default(), NOW + 21.0).unwrap();
    let one: Value = serde_json::from_str(&one).unwrap();
    assert_eq!(one["data"]["entitlement"]["currentUsage"], 0);
    assert_eq!(one["data"]["entitlement"]["isGranted"], true);
}

#[test]
fn the_newer_layout_is_read_by_the_id_of_its_feature() {
    let map = json!({
        "FEATURE:seats": {
            "calculatedEntitlement": {"type": "FEATURE", "feature": {"id": "seats", "displayName": "Seats", "featureType": "NUMBER", "meterType": "Fluctuating"}, "usageLimit": 10, "resetPeriod": "MONTH"},
            "usageData": {"currentUsage": 1, "updatedAt": 3},
        },
    });
    let mut stored = acme();
    stored.entitlements = pair(&map.to_string(), "40");
    let state = State::read(&stored, false).unwrap();
    assert_eq!(value(&state, "seats@usage"), Some(json!(7)));
    let entry = state.find("seats", NOW).unwrap();
    assert_eq!(entry.entitlement.reset_period(), Some("MONTH"));

    let credit = json!({"x": {"calculatedEntitlement": {"type": "CREDIT", "currency": {"currencyId": "tokens"}}, "usageData": {}}});
    stored.entitlements = pair(&credit.to_string(), "40");
    assert_eq!(State::read(&stored, false).unwrap_err(), Miss::Credits);
}

#[test]
fn an_id_that_ends_like_a_suffix_wins_over_it() {
    let map = json!({
        "seats": {"calculatedEntitlement": {"feature": feature("NUMBER", Some("None")), "usageLimit": 3}},
        "seats@limit": {"calculatedEntitlement": {"feature": feature("BOOLEAN", None)}},
    });
    let stored = Stored {
        entitlements: pair(&map.to_string(), "40"),
        ..Stored::default()
    };
    let state = State::read(&stored, false).unwrap();
    assert_eq!(value(&state, "seats@limit"), Some(json!(true)));
    assert_eq!(value(&state, "seats@limit@limit"), None);
    // In the list too, where each key is there once.
    let request = Request::default();
    let flags = flags(&state, &request, NOW);
    let keys: Vec<&str> = flags.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["seats", "seats@limit"]);
    for (key, flag) in &flags {
        let listed = flag.as_ref().unwrap().evaluated(key, "CACHED", None);
        assert_eq!(
            serde_json::to_value(listed).unwrap(),
            evaluated(&state, key)
        );
    }
}

#[test]
fn an_expired_entitlement_is_not_unlimited() {
    let unlimited = |until: Option<f64>| {
        let map = json!({
            "seats": {"calculatedEntitlement": {"feature": feature("NUMBER", Some("Fluctuating")),
                "hasUnlimitedUsage": true, "validUntil": until}},
        });
        let mut stored = acme();
        stored.entitlements = pair(&map.to_string(), "40");
        State::read(&stored, false).unwrap()
    };
    let expired = unlimited(Some(NOW));
    for key in ["seats@limit", "seats@remaining"] {
        assert_eq!(value(&unlimited(None), key), None, "the caller's default");
        assert_eq!(value(&expired, key), Some(json!(0)), "{key}");
    }
    for (state, is_unlimited) in [(unlimited(None), true), (expired, false)] {
        let limit = evaluated(&state, "seats@limit");
        assert_eq!(limit["metadata"]["unlimited"], is_unlimited);
        let whole = value(&state, "seats@entitlement").unwrap();
        assert_eq!(whole["isUnlimited"], is_unlimited);
        assert_eq!(whole["hasAccess"], is_unlimited);
        let list = crate::reader::entitlements(&state, NOW).unwrap();
        let list: Value = serde_json::from_str(&list).unwrap();
        let seats = &list["data"]["entitlements"][0];
        assert_eq!(seats["hasUnlimitedUsage"], is_unlimited);
    }
}

#[test]
fn numbers_keep_their_digits() {
    let map = r#"{"n":{"calculatedEntitlement":{"feature":{"id":"n","featureType":"NUMBER","meterType":"None"},"usageLimit":9007199254740993}},"x":{"calculatedEntitlement":{"feature":{"id":"x","featureType":"NUMBER","meterType":"None"},"usageLimit":0.1}}}"#;
    let stored = Stored {
        entitlements: pair(map, "40"),
        ..Stored::default()
    };
    let state = State::read(&stored, false).unwrap();
    let list = crate::reader::entitlements(&state, NOW).unwrap();
    assert!(
        list.contains("\"usageLimit\":9007199254740993") && list.contains("\"usageLimit\":0.1")
    );
}

#[test]
fn a_customer_without_entitlements_is_denied() {
    for state in [
        State::empty(None),
        State::read(
            &Stored {
                entitlements: pair("{}", "4"),
                ..Stored::default()
            },
            false,
        )
        .unwrap(),
    ] {
        let flag = evaluated(&state, "seats");
        assert_eq!(flag["value"], false);
        assert_eq!(flag["metadata"]["accessDeniedReason"], "CustomerNotFound");
    }
}

#[test]
fn a_state_is_the_same_after_it_was_bytes() {
    let mut stored = acme();
    stored.metadata = pair(r#"{"accessDeniedReason":"Archived"}"#, "1");
    let torn = Pair {
        timestamp: None,
        ..pair("{}", "1")
    };
    let whole = State::read(&stored, false).unwrap();
    stored.usages.insert("seats".into(), torn);
    let states = [
        whole.clone().omitting_credits(),
        whole,
        State::read(&stored, false).unwrap(),
        State::empty(None),
        State::empty(Some("Archived")),
    ];
    for state in states {
        let bytes = state.to_bytes();
        assert_eq!(State::from_bytes(&bytes).as_ref(), Some(&state));
        for end in 0..bytes.len() {
            assert_eq!(State::from_bytes(&bytes[..end]), None, "cut at {end}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(State::from_bytes(&longer), None);
    }
}

#[test]
fn damaged_bytes_are_refused_or_answered_without_a_panic() {
    let bytes = State::read(&acme(), false).unwrap().to_bytes();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..20_000 {
        let mut damaged = bytes.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..damaged.len());
            damaged[at] = random.u8(..);
        }
        let Some(state) = State::from_bytes(&damaged) else {
            continue;
        };
        let request = Request::default();
        drop(crate::reader::entitlements_state(&state, NOW));
        drop(single(&state, "seats", &request, NOW));
        for (key, flag) in flags(&state, &request, NOW) {
            if let Ok(flag) = flag {
                serde_json::to_value(flag.evaluated(&key, "", None)).unwrap();
            }
        }
    }
}

/// Bytes of a version that was released must be read by each later one: snapshots hold them.
#[test]
fn the_bytes_of_a_state_do_not_change() {
    let map = r#"{"s":{"calculatedEntitlement":{"feature":{"featureType":"NUMBER","meterType":"Fluctuating","units":"seat"},"usageLimit":-300,"hasSoftLimit":true,"enumValues":[],"creditRate":{"a":1}},"featureUsage":{"currentUsage":0.5,"resetPeriod":"MONTH"}}}"#;
    let stored = Stored {
        entitlements: pair(map, "40"),
        usages: [("s".to_owned(), pair("{}", "41"))].into(),
        ..Stored::default()
    };
    let bytes = State::read(&stored, false).unwrap().to_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, FIRST_VERSION);
}

const FIRST_VERSION: &str = "0600000000000000f07f28000000000000000029280173025ee6913407077b2261223a317d05000000000000e03f9282868a060473656174022903ab02";
