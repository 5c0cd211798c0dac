//! One set of rules: random states of Redis, asked of SDK 3.95 on that Redis, of SDK 3.95 without a Redis at `serve`, and
//! of `serve` itself, and every field that both have compared.

mod state;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use state::{Kind, State};
use testkit::edge::EdgeMock;
use testkit::reader::Reader;
use testkit::{Redis, sdk};

const STATES: usize = 90;

/// A question, put to a customer of its own, so that the requests to the Edge API tell its misses.
struct Question {
    state: State,
    customer: String,
    /// `None`: all entitlements.
    feature: Option<String>,
    query: Value,
    /// What the remote evaluation protocol is asked beside the customer.
    context: Value,
}

impl Question {
    fn of_list(state: &State, customer: String) -> Question {
        let mut args = vec![customer.as_str()];
        args.extend(state.resource());
        Question {
            query: json!({"method": "getEntitlements", "args": args}),
            state: state.clone(),
            feature: None,
            context: json!({}),
            customer,
        }
    }

    fn of_feature(
        state: &State,
        customer: String,
        feature: &str,
        random: &mut fastrand::Rng,
    ) -> Question {
        let kind = state.kind(feature);
        let mut options = json!({});
        match kind {
            Some(Kind::Metered) if random.bool() => {
                let amounts = [0.0, 1.0, 2.5, 9.0, 1_000.0, -1.0];
                options["requestedUsage"] = amounts[random.usize(..amounts.len())].into();
            }
            Some(Kind::Enum) if random.bool() => {
                let values: [&[&str]; 4] = [&[], &["gold"], &["gold", "lead"], &["silver"]];
                options["requestedValues"] = json!(values[random.usize(..values.len())]);
            }
            _ => {}
        }
        let method = match kind {
            Some(Kind::Boolean) => "getBooleanEntitlement",
            Some(Kind::Numeric) => "getNumericEntitlement",
            Some(Kind::Metered) => "getMeteredEntitlement",
            Some(Kind::Enum) => "getEnumEntitlement",
            // A type that an SDK does not know, or no such feature.
            Some(Kind::Odd) | None => "getBooleanEntitlement",
        };
        let mut context = options.clone();
        let mut args = json!({"customerId": &customer, "featureId": feature, "options": options});
        if let Some(resource) = state.resource() {
            args["resourceId"] = resource.into();
            context["resourceId"] = resource.into();
        }
        context["targetingKey"] = customer.as_str().into();
        Question {
            query: json!({"method": method, "args": args}),
            state: state.clone(),
            feature: Some(feature.to_owned()),
            context,
            customer,
        }
    }

    fn path(&self) -> String {
        let resource = self.state.resource();
        let query = resource.map_or_else(String::new, |id| format!("?resourceId={id}"));
        format!("/v1/c/{}/entitlements.json{query}", self.customer)
    }

    fn path_of(&self, feature: &str) -> String {
        let path = self.path();
        let mark = if path.contains('?') { '&' } else { '?' };
        let usage = &self.query["args"]["options"]["requestedUsage"];
        let usage = match usage {
            Value::Null => String::new(),
            usage => format!("&requestedUsage={usage}"),
        };
        format!("{path}{mark}featureId={feature}{usage}")
    }

    fn misses(&self, edge: &EdgeMock) -> bool {
        let path = format!("/v1/c/{}/", self.customer);
        !edge.requests_to(&path).is_empty()
    }

    fn at(&self) -> String {
        format!("{} {}\n{:#?}", self.customer, self.query, self.state)
    }
}

/// The seed of this run; `SEED` repeats one.
fn seed() -> u64 {
    let given = std::env::var("SEED").ok();
    let seed = given.and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    eprintln!("SEED={seed} repeats this run");
    seed
}

fn questions(random: &mut fastrand::Rng) -> Vec<Question> {
    let mut questions = Vec::new();
    for number in 0..STATES {
        let state = State::random(random, number);
        let mut customer = (0..).map(|of| format!("c{number}.{of}"));
        let mut next = || customer.next().unwrap();
        questions.push(Question::of_list(&state, next()));
        for feature in state.features() {
            questions.push(Question::of_feature(&state, next(), &feature, random));
        }
        questions.push(Question::of_feature(&state, next(), "absent", random));
    }
    questions
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_and_we_answer_alike_over_random_states() {
    let mut random = fastrand::Rng::with_seed(seed());
    let redis = Redis::start().await;
    // None of them knows any customer: a miss is a request, and writes nothing.
    let (of_sdk, of_us) = (EdgeMock::start().await, EdgeMock::start().await);
    let questions = questions(&mut random);
    let mut stored = BTreeMap::new();
    for question in &questions {
        stored.extend(question.state.keys(&question.customer));
    }
    state::write(&redis, &stored);
    let reader = Reader::builder(&redis, &of_us.url())
        .env("READ_API_KEYS", format!("test-key,{}", sdk::KEY))
        .start()
        .await;

    let queries: Vec<Value> = questions.iter().map(|it| it.query.clone()).collect();
    let on_redis = sdk::ask(&redis, "production", &of_sdk.url(), &queries).await;
    let at_us = sdk::ask_without_redis(&reader.url(), &queries).await;
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for ((question, on_redis), at_us) in questions.iter().zip(&on_redis).zip(&at_us) {
        let stricter = question.state.stricter();
        match (question.misses(&of_sdk), question.misses(&of_us)) {
            // The Edge API knows nobody, so both gave the same fallback, and we deny.
            (true, true) => {
                assert_eq!(at_us, on_redis, "{}", question.at());
                is_unknown(&reader, question).await;
                *seen.entry("miss").or_default() += 1;
            }
            // Rules that are ours: an SDK that is asked for one feature looks at no other, and at no timestamp but
            // that of a resource.
            (false, true) => {
                assert!(
                    stricter
                        .as_ref()
                        .is_some_and(|rule| rule.holds_for(question.feature.as_deref())),
                    "{stricter:?}: {}",
                    question.at()
                );
                *seen.entry("stricter").or_default() += 1;
            }
            (true, false) => panic!("we answer what an SDK asks for: {}", question.at()),
            (false, false) => {
                assert_eq!(stricter, None, "{}", question.at());
                assert_eq!(at_us, on_redis, "{}", question.at());
                match &question.feature {
                    None => same_list(&reader, question, on_redis).await,
                    Some(feature) => same_feature(&reader, question, feature, on_redis).await,
                }
                *seen.entry("hit").or_default() += 1;
            }
        }
    }
    eprintln!("{seen:?}");
    let enough = |name, least| seen.get(name).is_some_and(|count| *count >= least);
    // Every seed gives some of each: about 180, 90 and 75 of them, seldom half as many.
    assert!(
        enough("hit", 50) && enough("miss", 10) && enough("stricter", 5),
        "{seen:?}"
    );
    assert_eq!(state::read(&redis), stored, "asking has changed Redis");
}

/// With the Edge API away too, what an SDK finds in Redis is answered, one feature without another's usage.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_answered_alike_without_the_edge_api() {
    let mut random = fastrand::Rng::with_seed(seed());
    let redis = Redis::start().await;
    let of_sdk = EdgeMock::start().await;
    let questions = questions(&mut random);
    let mut stored = BTreeMap::new();
    for question in &questions {
        stored.extend(question.state.keys(&question.customer));
    }
    state::write(&redis, &stored);
    let reader = Reader::builder(&redis, "http://127.0.0.1:1").start().await;
    let queries: Vec<Value> = questions.iter().map(|it| it.query.clone()).collect();
    let on_redis = sdk::ask(&redis, "production", &of_sdk.url(), &queries).await;
    let (mut alike, mut cannot_tell) = (0, 0);
    for (question, on_redis) in questions.iter().zip(&on_redis) {
        let Some(feature) = &question.feature else {
            continue;
        };
        let ours = reader.flag(feature, &question.context).await;
        let is_torn = question.state.stricter().is_some_and(|rule| rule.is_torn());
        let misses = question.misses(&of_sdk);
        if ours.status == 503 {
            cannot_tell += 1;
            // Nothing that an SDK would answer is withheld, but what is torn.
            let is_odd = question.state.kind(feature) == Some(Kind::Odd);
            assert!(misses || is_torn || is_odd, "{}", question.at());
        } else if misses {
            // An SDK without an Edge API would give its fallback; what has expired is denied.
            assert!(question.state.has_expired(), "{}", question.at());
            assert_eq!(ours.json()["value"], false, "{}", question.at());
        } else {
            assert_eq!(
                ours.json()["value"],
                on_redis["hasAccess"],
                "{}",
                question.at()
            );
            alike += 1;
        }
    }
    assert!(alike > 30 && cannot_tell > 5, "{alike}, {cannot_tell}");
}

async fn is_unknown(reader: &Reader, question: &Question) {
    let ours = reader.get(&question.path()).await;
    assert_eq!(ours.status, 404, "{}", question.at());
    if let Some(feature) = &question.feature {
        let flag = reader.flag(feature, &question.context).await;
        assert_eq!(flag.status, 200, "{}", question.at());
        assert_eq!(flag.json()["value"], false, "{}", question.at());
        assert_eq!(
            flag.json()["metadata"]["accessDeniedReason"],
            "CustomerNotFound"
        );
    }
}

/// Fields of an SDK's answer, and where ours has the same.
fn assert_fields(question: &Question, ours: &Value, answer: &Value) {
    let at = question.at();
    let is_metered = answer["type"] == "METERED";
    let same = |of: &str, ours: &Value, answer: &Value| {
        // What JavaScript leaves undefined is not in its JSON.
        let same = ours == answer || ours.as_f64().is_some() && ours.as_f64() == answer.as_f64();
        assert!(same, "{of}: {ours} and {answer}\n{at}");
    };
    let feature = &answer["feature"];
    same("feature", &ours["feature"]["refId"], &feature["id"]);
    for (name, theirs) in [
        ("featureType", "featureType"),
        ("meterType", "meterType"),
        ("featureUnits", "units"),
        ("featureUnitsPlural", "unitsPlural"),
    ] {
        same(name, &ours["feature"][name], &feature[theirs]);
    }
    if answer["type"] == "NUMERIC" {
        same("value", &ours["usageLimit"], &answer["value"]);
    }
    if answer["type"] == "ENUM" {
        same("enumValues", &ours["enumValues"], &answer["enumValues"]);
    }
    if answer["isUnlimited"].is_boolean() {
        same(
            "unlimited",
            &ours["hasUnlimitedUsage"],
            &answer["isUnlimited"],
        );
    }
    if is_metered {
        for (name, theirs) in [
            ("usageLimit", "usageLimit"),
            ("hasSoftLimit", "hasSoftLimit"),
            ("currentUsage", "currentUsage"),
            ("resetPeriod", "resetPeriod"),
            ("usagePeriodAnchor", "usagePeriodAnchor"),
        ] {
            same(name, &ours[name], &answer[theirs]);
        }
    }
}

async fn same_list(reader: &Reader, question: &Question, answer: &Value) {
    let ours = reader.get(&question.path()).await;
    assert_eq!(ours.status, 200, "{}", question.at());
    let ours = ours.json();
    let ours = ours["data"]["entitlements"].as_array().unwrap();
    let answers = answer.as_array().unwrap();
    assert_eq!(ours.len(), answers.len(), "{}", question.at());
    for (ours, answer) in ours.iter().zip(answers) {
        let feature = ours["feature"]["refId"].as_str().unwrap();
        // Of a type that it does not know an SDK makes nothing.
        if question.state.kind(feature) == Some(Kind::Odd) {
            assert_eq!(answer, &Value::Null, "{}", question.at());
            assert_eq!(ours["isGranted"], false, "{}", question.at());
            continue;
        }
        assert_fields(question, ours, answer);
        // Their list takes the usage of a period that has passed, and ours what is used now.
        if !question.state.is_over(feature) {
            assert_eq!(ours["isGranted"], answer["hasAccess"], "{}", question.at());
        }
    }
}

async fn same_feature(reader: &Reader, question: &Question, feature: &str, answer: &Value) {
    let at = question.at();
    let single = reader.get(&question.path_of(feature)).await;
    assert_eq!(single.status, 200, "{at}");
    let single = single.json()["data"]["entitlement"].take();
    let flag = reader.flag(feature, &question.context).await;
    if question.state.kind(feature) == Some(Kind::Odd) {
        assert_eq!(answer["isFallback"], true, "{at}");
        // Ours is no answer either, so that the caller's default counts; but what is denied whatever its type is denied.
        let expected = match question.state.is_denied(feature) {
            true => (200, json!(false)),
            false => (503, Value::Null),
        };
        assert_eq!((flag.status, flag.json()["value"].take()), expected, "{at}");
        assert_eq!(single["isGranted"], false, "{at}");
        return;
    }
    let flag = flag.json();
    assert_eq!(answer["isFallback"], false, "{at}");
    let reason = &answer["accessDeniedReason"];
    assert_eq!(flag["value"], answer["hasAccess"], "{flag:#}\n{at}");
    assert_eq!(&flag["metadata"]["accessDeniedReason"], reason, "{at}");
    // The single form takes no values of an enum.
    if question.query["args"]["options"]["requestedValues"].is_null() {
        assert_eq!(single["isGranted"], answer["hasAccess"], "{at}");
        assert_eq!(&single["accessDeniedReason"], reason, "{at}");
    }
    if question.state.kind(feature).is_none() {
        assert_eq!(single["feature"], Value::Null, "{at}");
        return;
    }
    assert_fields(question, &single, answer);
    same_aspects(reader, question, feature, answer).await;
}

/// Limits, usages and values are those that an SDK gives.
async fn same_aspects(reader: &Reader, question: &Question, feature: &str, answer: &Value) {
    let at = question.at();
    let aspect = async |name: &str| {
        let key = format!("{feature}@{name}");
        let flag = reader.flag(&key, &question.context).await;
        flag.json()["value"].take()
    };
    let number = |value: &Value| value.as_f64();
    let whole = aspect("entitlement").await;
    assert_eq!(whole["hasAccess"], answer["hasAccess"], "{at}");
    assert_eq!(
        whole["accessDeniedReason"], answer["accessDeniedReason"],
        "{at}"
    );
    match answer["type"].as_str().unwrap() {
        "ENUM" => {
            assert_eq!(
                aspect("values").await["values"],
                answer["enumValues"],
                "{at}"
            );
        }
        "METERED" => {
            let usage = number(&answer["currentUsage"]);
            assert_eq!(number(&aspect("usage").await), usage, "{at}");
            assert_eq!(number(&whole["currentUsage"]), usage, "{at}");
            let limit = number(&answer["usageLimit"]);
            let is_unlimited = answer["isUnlimited"] == true;
            let expected = limit.filter(|_| !is_unlimited);
            assert_eq!(number(&aspect("limit").await), expected, "{at}");
            let left = expected.map(|limit| (limit - usage.unwrap()).max(0.0));
            assert_eq!(number(&aspect("remaining").await), left, "{at}");
            assert_eq!(whole["hasSoftLimit"], answer["hasSoftLimit"], "{at}");
        }
        "NUMERIC" => {
            let is_unlimited = answer["isUnlimited"] == true;
            let expected = number(&answer["value"]).filter(|_| !is_unlimited);
            assert_eq!(number(&aspect("limit").await), expected, "{at}");
        }
        _ => {}
    }
}
