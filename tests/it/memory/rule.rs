//! The in-process store follows the same rule as the script in Redis: random histories go through both, and after every
//! step the verdicts, values, timestamps and lifetimes are compared. The same after restarts; and with a bound, where
//! what is still there is compared.

mod restarts;

use std::collections::BTreeMap;
use std::fmt::Debug;

use entitlement_sync::keys::{self, Keys, Owner};
use entitlement_sync::memory::{Lifetimes, Memory};
use entitlement_sync::plan::{Action, Condition, Fate, Item, Step, restrict_to_stored};

use testkit::{Redis, until};

const SCRIPT: &str = include_str!("../../../src/store/apply.lua");
const TOMBSTONE_SECS: u32 = 1_209_600;
const STEPS: usize = 100_000;
/// How far apart the two clocks may read, in milliseconds: all lifetimes are seconds or longer.
const SLACK_MS: i64 = 30_000;

/// The settings of one history.
#[derive(Debug, Clone, Copy)]
struct Settings {
    ttl_secs: Option<u32>,
    update_if_exists: bool,
}

struct Both {
    redis: redis::Connection,
    sha: String,
    memory: Memory,
    settings: Settings,
    keys: Keys,
}

fn new_memory(settings: Settings, max_bytes: u64) -> Memory {
    let lifetimes = Lifetimes {
        ttl_secs: settings.ttl_secs,
        tombstone_secs: TOMBSTONE_SECS,
    };
    Memory::new(Keys::new("production"), lifetimes, max_bytes)
}

/// What is stored of a key: its value, and its lifetime in milliseconds (-1: it does not expire).
type Seen = BTreeMap<String, (String, i64)>;

impl Both {
    fn new(server: &Redis, settings: Settings) -> Self {
        server.cmd(&["FLUSHALL"]);
        let mut redis = server.conn();
        let mut load = redis::cmd("SCRIPT");
        let sha = load.arg("LOAD").arg(SCRIPT).query(&mut redis).unwrap();
        Self {
            redis,
            sha,
            memory: new_memory(settings, u64::MAX),
            settings,
            keys: Keys::new("production"),
        }
    }

    /// The script's answer: the counts of a step that is done, or a negative number.
    fn in_redis(&mut self, step: &Step) -> i64 {
        let answers: Vec<i64> = self.call(step).query(&mut self.redis).unwrap();
        answers[0]
    }

    /// The call of the script, whose answer is a list of one.
    fn call(&self, step: &Step) -> redis::Cmd {
        let (mut names, mut words) = (vec![step.lock.clone(), step.tombstone.clone()], Vec::new());
        words.push(self.settings.ttl_secs.unwrap_or(0).to_string());
        words.push(u8::from(self.settings.update_if_exists).to_string());
        words.push(TOMBSTONE_SECS.to_string());
        let letter = match &step.action {
            Action::SetCustomer => "S",
            Action::UpdateUsage { customer } => {
                names.push(keys::timestamp(customer));
                "U"
            }
            Action::Purge => "P",
        };
        words.extend([
            letter.into(),
            step.items.len().to_string(),
            step.at.to_string(),
        ]);
        names.extend(step.items.iter().map(|item| keys::timestamp(&item.key)));
        names.extend(step.items.iter().map(|item| item.key.clone()));
        if letter != "P" {
            for item in &step.items {
                let sign = match item.condition {
                    Condition::NotOlder => "",
                    Condition::Absent => "A",
                    Condition::Present => "P",
                };
                words.extend([format!("{sign}{}", item.at), item.value.clone()]);
            }
        }
        let mut call = redis::cmd("EVALSHA");
        call.arg(&self.sha).arg(names.len()).arg(names).arg(words);
        call
    }

    fn in_memory(&self, step: &Step) -> i64 {
        match self.memory.apply(step, self.settings.update_if_exists) {
            Fate::Locked => -1,
            Fate::NotCached => -2,
            Fate::Done {
                items,
                leaves_tombstone,
            } => match Fate::counts(&items, leaves_tombstone) {
                Some((written, stale)) => i64::from(written) + 65_536 * i64::from(stale),
                None => -3,
            },
        }
    }

    fn seen_in_redis(&mut self, names: &[String]) -> Seen {
        seen_by(redis::pipe(), names, &mut self.redis).1
    }

    fn seen_in_memory(&self, owner: Owner<'_>) -> Seen {
        let now = now_ms();
        let life = |expires: u64| match expires {
            u64::MAX => -1,
            expires => i64::try_from(expires - now).unwrap(),
        };
        let entitlements = self.keys.entitlements(owner);
        let Some(record) = self.memory.record(owner) else {
            return Seen::new();
        };
        let mut seen = Seen::new();
        for cell in record.cells(now) {
            let key = [&*entitlements, &cell.suffix].concat();
            let life = life(cell.expires);
            seen.insert(keys::timestamp(&key), (cell.at.to_string(), life));
            seen.insert(key, (cell.value.to_string(), life));
        }
        if let Some((at, expires)) = record.tombstone(now) {
            let key = self.keys.tombstone(owner);
            seen.insert(key, (at.to_string(), life(expires)));
        }
        seen
    }

    fn step_and_compare(&mut self, step: &Step, owner: Owner<'_>, what: &str) {
        let names = names_of(&self.keys, owner);
        let mut calls = redis::pipe();
        calls.add_command(self.call(step));
        let (answers, stored) = seen_by(calls, &names, &mut self.redis);
        let expected: Vec<i64> = redis::from_redis_value(answers).unwrap();
        assert_eq!(
            self.in_memory(step),
            expected[0],
            "the verdict: {what}: {step:#?}"
        );
        compare(&self.seen_in_memory(owner), &stored, &(what, step));
    }

    fn compare(&mut self, owner: Owner<'_>, what: &str) {
        let stored = self.seen_in_redis(&names_of(&self.keys, owner));
        compare(&self.seen_in_memory(owner), &stored, &what);
    }
}

/// Sends these calls, at most one, and then asks for these keys: the answer to the one, and what is stored.
fn seen_by(
    mut calls: redis::Pipeline,
    names: &[String],
    redis: &mut redis::Connection,
) -> (redis::Value, Seen) {
    calls.cmd("MGET").arg(names);
    for name in names {
        calls.cmd("PTTL").arg(name);
    }
    let mut answers: Vec<redis::Value> = calls.query(redis).unwrap();
    let lives = answers.split_off(answers.len() - names.len());
    let values: Vec<Option<String>> = redis::from_redis_value(answers.pop().unwrap()).unwrap();
    let mut seen = Seen::new();
    for ((name, value), life) in names.iter().zip(values).zip(lives) {
        if let Some(value) = value {
            seen.insert(
                name.clone(),
                (value, redis::from_redis_value(life).unwrap()),
            );
        }
    }
    (answers.pop().unwrap_or(redis::Value::Nil), seen)
}

/// `what` is written out only where they differ: for each of so many steps it would take longer than the steps.
fn compare(found: &Seen, expected: &Seen, what: &dyn Debug) {
    let values = |seen: &Seen| -> Vec<(String, String)> {
        seen.iter()
            .map(|(key, (value, _))| (key.clone(), value.clone()))
            .collect()
    };
    assert_eq!(values(found), values(expected), "the values: {what:#?}");
    for (key, (_, life)) in expected {
        let apart = (found[key].1 - life).abs();
        assert!(
            apart < SLACK_MS,
            "the lifetime of {key}: {what:#?}: {found:?} {expected:?}"
        );
        assert_eq!(
            found[key].1 < 0,
            *life < 0,
            "whether {key} expires: {what:#?}"
        );
    }
}

fn now_ms() -> u64 {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

const FEATURES: [&str; 2] = ["calls", "seats"];

/// All keys that a step of this owner may touch.
fn names_of(keys: &Keys, owner: Owner<'_>) -> Vec<String> {
    let mut names = vec![keys.entitlements(owner), keys.metadata(owner)];
    names.extend(FEATURES.map(|feature| keys.feature_usage(owner, feature)));
    names.push(keys.credit_usage(owner, "tokens"));
    let stamps: Vec<String> = names.iter().map(|name| keys::timestamp(name)).collect();
    names.extend(stamps);
    names.push(keys.tombstone(owner));
    names
}

/// A time out of few, so that equal, older and newer ones meet; now and then none.
fn time() -> u64 {
    match fastrand::u8(..12) {
        0 => 0,
        _ => 1_763_150_000_000 + fastrand::u64(..12),
    }
}

/// A step as planned: all that an owner may be told, with the conditions that items may have.
fn random_step(keys: &Keys, owner: Owner<'_>) -> Step {
    let at = time();
    let item = |key: String| Item {
        key,
        at: if fastrand::bool() { at } else { time() },
        // Often the same, so that some are written again as they are.
        value: match fastrand::bool() {
            true => format!("{{\"n\":{}}}", fastrand::u32(..)),
            false => "{}".to_owned(),
        },
        condition: match fastrand::u8(..5) {
            0 => Condition::Absent,
            _ => Condition::NotOlder,
        },
    };
    let usage = |feature: &str| item(keys.feature_usage(owner, feature));
    let (action, items) = match fastrand::u8(..10) {
        0..=4 => {
            let mut items = vec![item(keys.entitlements(owner)), item(keys.metadata(owner))];
            items.retain(|item| !item.key.ends_with(":metadata") || fastrand::u8(..4) > 0);
            items.extend(
                FEATURES
                    .iter()
                    .filter(|_| fastrand::bool())
                    .map(|it| usage(it)),
            );
            (Action::SetCustomer, items)
        }
        5 => (
            Action::SetCustomer,
            vec![item(keys.credit_usage(owner, "tokens"))],
        ),
        6..=7 => {
            let customer = keys.entitlements(owner);
            let of = fastrand::choice(FEATURES).unwrap();
            (Action::UpdateUsage { customer }, vec![usage(of)])
        }
        _ => {
            let purged = |key| Item {
                at,
                value: String::new(),
                condition: Condition::NotOlder,
                key,
            };
            let items = [keys.entitlements(owner), keys.metadata(owner)].map(purged);
            (Action::Purge, items.into())
        }
    };
    let mut steps = [Step {
        action,
        at,
        lock: keys.lock(owner),
        tombstone: keys.tombstone(owner),
        items,
    }];
    let [step] = &mut steps;
    // Sent longer ago than keys live.
    if fastrand::u8(..8) == 0
        && step
            .items
            .iter()
            .any(|it| it.condition == Condition::NotOlder)
    {
        restrict_to_stored(&mut steps);
    }
    let [step] = steps;
    step
}

fn random_owner(owners: &[String]) -> Owner<'_> {
    let customer = &owners[fastrand::usize(..owners.len())];
    Owner {
        customer,
        resource: (fastrand::u8(..4) == 0).then_some("site"),
    }
}

fn settings() -> [Settings; 3] {
    let of = |ttl_secs, update_if_exists| Settings {
        ttl_secs,
        update_if_exists,
    };
    [
        of(Some(604_800), false),
        of(None, false),
        of(Some(604_800), true),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verdict_value_time_and_lifetime_is_that_of_the_script() {
    let server = Redis::start().await;
    let seed = fastrand::get_seed();
    let steps = std::env::var("RULE_STEPS").map_or(STEPS, |steps| steps.parse().unwrap());
    let settings = settings();
    for settings in settings {
        let mut both = Both::new(&server, settings);
        let owners: Vec<String> = (0..12).map(|n| format!("customer-{n}")).collect();
        for number in 0..steps / 3 + 1 {
            let owner = random_owner(&owners);
            let step = random_step(&both.keys, owner);
            both.step_and_compare(
                &step,
                owner,
                &format!("seed {seed} step {number} {settings:?}"),
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_is_gone_for_both() {
    let server = Redis::start().await;
    let seed = fastrand::get_seed();
    for update_if_exists in [false, true] {
        let mut both = Both::new(
            &server,
            Settings {
                ttl_secs: Some(1),
                update_if_exists,
            },
        );
        let owners: Vec<String> = (0..300).map(|n| format!("customer-{n}")).collect();
        for round in 0..2 {
            // Nothing is compared here: one of the two may find expired what the other still has.
            for owner in &owners {
                let owner = Owner {
                    customer: owner,
                    resource: None,
                };
                for _ in 0..4 {
                    let step = random_step(&both.keys, owner);
                    both.in_redis(&step);
                    both.in_memory(&step);
                }
            }
            until(
                "all values have expired",
                std::time::Duration::from_secs(20),
                async || {
                    server
                        .dump("production:c_")
                        .keys()
                        .all(|key| key.ends_with("#purged"))
                },
            )
            .await;
            let last = now_ms() + 1;
            until(
                "the clock is past them",
                std::time::Duration::from_secs(5),
                async || now_ms() > last,
            )
            .await;
            for owner in &owners {
                let owner = Owner {
                    customer: owner,
                    resource: None,
                };
                let what = format!("seed {seed} round {round}");
                both.compare(owner, &what);
                let step = random_step(&both.keys, owner);
                let (expected, found) = (both.in_redis(&step), both.in_memory(&step));
                assert_eq!(found, expected, "{what}: {step:#?}");
            }
        }
        both.memory.sweep();
    }
}
