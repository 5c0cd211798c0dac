//! Compares the state in Redis with the newest messages, by raw commands, and then the answers of both processes.

use serde_json::Value;
use testkit::Redis;

use crate::load::{CALLS, Customer, VERSION};
use crate::questions::Client;

/// Customers of whom each process is asked at the end.
const ASKED: usize = 200;

#[derive(Debug, Default)]
pub struct Compared {
    pub keys: u64,
    /// Keys that are missing, or older than the newest message.
    pub lost: u64,
    /// Keys with another value or a newer time than the newest message.
    pub wrong: u64,
    /// Values without their time, and times without their value.
    pub torn: u64,
    pub answers: u64,
    pub wrong_answers: u64,
}

pub async fn compare(redis: &Redis, customers: &[Customer], ports: &[u16]) -> Compared {
    let mut compared = Compared::default();
    for customer in customers {
        compared.customer(redis, customer);
    }
    for port in ports {
        let mut client = Client::connect(*port).await;
        for customer in customers.iter().step_by((customers.len() / ASKED).max(1)) {
            compared.answers += 2;
            let list = client.list(&customer.id).await;
            let by_flag = client.version_by_flag(&customer.id).await;
            compared.wrong_answers += u64::from(!is_right(list, customer));
            compared.wrong_answers += u64::from(by_flag != Some(customer.version));
        }
    }
    compared
}

impl Compared {
    fn customer(&mut self, redis: &Redis, customer: &Customer) {
        let key = format!("production:c_{}", customer.id);
        let version = |value: &Value| {
            value[VERSION]["calculatedEntitlement"]["usageLimit"] == customer.version
        };
        self.pair(redis, &key, customer.updated_at, version);
        let key = format!("{key}:f_{CALLS}");
        let usage = |value: &Value| value["currentUsage"] == customer.usage;
        self.pair(redis, &key, customer.usage_at, usage);
    }

    /// A value and its time.
    fn pair(&mut self, redis: &Redis, key: &str, at: u64, is_right: impl Fn(&Value) -> bool) {
        self.keys += 2;
        let stored = redis.get(&format!("{key}#timestamp"));
        let stored = stored.and_then(|time| time.parse::<u64>().ok());
        match (redis.get(key), stored) {
            (None, None) => self.lost += 1,
            (None, Some(_)) | (Some(_), None) => self.torn += 1,
            (Some(_), Some(stored)) if stored < at => self.lost += 1,
            (Some(value), Some(stored)) => {
                let value = serde_json::from_str(&value).unwrap_or_default();
                self.wrong += u64::from(stored > at || !is_right(&value));
            }
        }
    }
}

fn is_right(list: Option<Vec<Value>>, customer: &Customer) -> bool {
    let list = list.unwrap_or_default();
    let of = |feature: &str| list.iter().find(|it| it["feature"]["refId"] == feature);
    let limit = of(VERSION).map(|it| it["usageLimit"] == customer.version);
    let usage = of(CALLS).map(|it| it["currentUsage"] == customer.usage);
    (limit, usage) == (Some(true), Some(true))
}
