//! What is published: limits, usages and purges of one metered feature, each with a number of its own. The number is the
//! value and the time, so that an answer tells which message it is from.

use std::collections::BTreeSet;
use std::ops::Range;

use fastrand::Rng;
use serde_json::{Value, json};

pub const CUSTOMERS: usize = 600;
/// Those that change only right before some kills: nothing newer covers what such a kill has undone.
pub const WITNESSES: Range<usize> = 560..CUSTOMERS;
pub const FEATURE: &str = "seats";
/// Messages that may be sent again later.
const REMEMBERED: usize = 2_000;

pub type Number = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// Limit and usage.
    Set,
    Usage,
    Purge,
}

#[derive(Debug, Clone)]
pub struct Message {
    pub customer: usize,
    pub number: Number,
    pub fact: Fact,
}

pub struct Story {
    rng: Rng,
    number: Number,
    /// Customers that the process has for certain. Usage of others is skipped or not, by the order of arrival.
    held: BTreeSet<usize>,
    past: Vec<Message>,
}

impl Story {
    pub fn new(seed: u64) -> Story {
        Story {
            rng: Rng::with_seed(seed ^ 0x5e_a75),
            number: 0,
            held: BTreeSet::new(),
            past: Vec::new(),
        }
    }

    /// One limit for everyone.
    pub fn load(&mut self) -> Vec<Message> {
        (0..CUSTOMERS)
            .map(|customer| self.tell(customer, Fact::Set))
            .collect()
    }

    /// News in an order of their own, and now and then old news again.
    pub fn next(&mut self, count: usize) -> Vec<Message> {
        let mut messages: Vec<Message> = (0..count).map(|_| self.one()).collect();
        self.rng.shuffle(&mut messages);
        messages
    }

    /// News of all witnesses.
    pub fn witnesses(&mut self) -> Vec<Message> {
        WITNESSES
            .map(|customer| self.number_next(customer, Fact::Set))
            .collect()
    }

    /// All that was published is applied: these have a limit now.
    pub fn settle(&mut self, held: impl Iterator<Item = usize>) {
        self.held = held.collect();
    }

    fn one(&mut self) -> Message {
        if !self.past.is_empty() && self.rng.u8(..10) == 0 {
            let place = self.rng.usize(..self.past.len());
            return self.past[place].clone();
        }
        // A tenth of the customers have half of the messages.
        let of = [WITNESSES.start, CUSTOMERS / 10][usize::from(self.rng.bool())];
        let customer = self.rng.usize(..of);
        let fact = match self.rng.u8(..8) {
            0 => Fact::Purge,
            1..4 if self.held.contains(&customer) => Fact::Usage,
            _ => Fact::Set,
        };
        self.tell(customer, fact)
    }

    fn tell(&mut self, customer: usize, fact: Fact) -> Message {
        if fact == Fact::Purge {
            self.held.remove(&customer);
        }
        let message = self.number_next(customer, fact);
        if self.past.len() < REMEMBERED {
            self.past.push(message.clone());
        } else {
            let place = self.rng.usize(..REMEMBERED);
            self.past[place] = message.clone();
        }
        message
    }

    fn number_next(&mut self, customer: usize, fact: Fact) -> Message {
        self.number += 1;
        Message {
            customer,
            number: self.number,
            fact,
        }
    }
}

impl Message {
    pub fn body(&self) -> String {
        let (number, id) = (self.number, name(self.customer));
        let time = at(number);
        let body: Value = match self.fact {
            Fact::Set => json!({
                "type": "ENTITLEMENTS_UPDATED",
                "customerId": id,
                "resourceId": null,
                "entitlementsUpdatedAt": time,
                "entitlements": [{
                    "feature": {
                        "id": FEATURE, "featureType": "NUMBER", "meterType": "Fluctuating", "units": "seat",
                        "unitsPlural": "seats",
                    },
                    "usageLimit": number,
                    "currentUsage": number,
                    "usageUpdatedAt": time,
                }],
            }),
            Fact::Usage => json!({
                "type": "MEASUREMENT_REPORTED",
                "customerId": id,
                "resourceId": null,
                "featureId": FEATURE,
                "currentUsage": number,
                "usageUpdatedAt": time,
            }),
            Fact::Purge => json!({
                "type": "SUBSCRIPTIONS_MIGRATED",
                "timestamp": time,
                "customers": [{"customerId": id, "resourceId": null}],
            }),
        };
        body.to_string()
    }
}

pub fn name(customer: usize) -> String {
    format!("customer-{customer}")
}

/// In the past, so that no time is ahead.
fn at(number: Number) -> u64 {
    1_763_000_000_000 + number
}
