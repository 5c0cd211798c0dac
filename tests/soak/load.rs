//! The customers, what Redis must hold of each, and the messages that change it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use fastrand::Rng;
use serde_json::{Value, json};
use testkit::events;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// The feature whose limit counts the entitlements events of its customer.
pub const VERSION: &str = "version";
/// The metered feature.
pub const CALLS: &str = "calls";
/// Entitlements of one event, beside those two.
const OTHERS: usize = 8;
const BATCH: usize = 10;
/// Batches under way; more would hide that the queue does not keep up.
const MAX_SENDS: usize = 8;

/// Quantity the newest messages of a customer say.
#[derive(Debug, Clone)]
pub struct Customer {
    pub id: String,
    pub version: u64,
    pub updated_at: u64,
    pub usage: u64,
    pub usage_at: u64,
    /// The time of the newest message of either kind.
    newest: u64,
}

pub struct Load {
    pub customers: Vec<Customer>,
    client: Client,
    queue_url: String,
    rng: Rng,
}

/// Quantity was sent in how long it was to take.
#[derive(Debug, Default)]
pub struct Sent {
    pub entitlements: u64,
    pub usage: u64,
    pub without_effect: u64,
}

impl Sent {
    pub fn total(&self) -> u64 {
        self.entitlements + self.usage + self.without_effect
    }
}

impl Load {
    pub fn new(customers: usize, client: Client, queue_url: String) -> Load {
        let customer = |number| Customer {
            id: id_of(number),
            version: 0,
            updated_at: 0,
            usage: 0,
            usage_at: 0,
            newest: 0,
        };
        Load {
            customers: (0..customers).map(customer).collect(),
            client,
            queue_url,
            rng: Rng::with_seed(1),
        }
    }

    /// One entitlements event for each customer.
    pub async fn send_everyone(&mut self) {
        for from in (0..self.customers.len()).step_by(BATCH) {
            let to = self.customers.len().min(from + BATCH);
            let some = self.customers[from..to].iter_mut();
            let bodies = some.map(Customer::entitlements).collect();
            send(self.client.clone(), self.queue_url.clone(), bodies).await;
        }
    }

    /// So many messages a second, in batches of ten at even distances.
    pub async fn send_steadily(&mut self, rate: u64, length: Duration) -> Sent {
        let mut ticks = interval(Duration::from_secs_f64(BATCH as f64 / rate as f64));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let batches = (length.as_secs_f64() * rate as f64 / BATCH as f64).round() as usize;
        let mut sends = JoinSet::new();
        let mut sent = Sent::default();
        for _ in 0..batches {
            ticks.tick().await;
            while sends.len() >= MAX_SENDS {
                sends.join_next().await.unwrap().unwrap();
            }
            let bodies = (0..BATCH).map(|_| self.message(&mut sent)).collect();
            sends.spawn(send(self.client.clone(), self.queue_url.clone(), bodies));
        }
        while let Some(ended) = sends.join_next().await {
            ended.unwrap();
        }
        sent
    }

    /// As in the bench: mostly usage, a quarter entitlements, a few of a kind without effect.
    fn message(&mut self, sent: &mut Sent) -> String {
        let place = self.rng.usize(..self.customers.len());
        let customer = &mut self.customers[place];
        match self.rng.u32(..100) {
            0..70 => {
                sent.usage += 1;
                customer.usage()
            }
            70..95 => {
                sent.entitlements += 1;
                customer.entitlements()
            }
            _ => {
                sent.without_effect += 1;
                json!({"type": "PLAN_UPDATED", "payload": {"id": "plan", "name": "Plan"}})
                    .to_string()
            }
        }
    }
}

impl Customer {
    /// No two messages of a customer have the same time.
    fn next_time(&mut self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        self.newest = (self.newest + 1).max(now.as_millis() as u64);
        self.newest
    }

    /// The usage in it is as old as the event itself.
    fn entitlements(&mut self) -> String {
        let at = self.next_time();
        self.version += 1;
        (self.updated_at, self.usage_at) = (at, at);
        let mut list = vec![
            entitlement(VERSION, "NUMBER", Some(self.version), None),
            entitlement(CALLS, "NUMBER", Some(1 << 40), Some(self.usage)),
        ];
        let others = (0..OTHERS).map(|other| format!("feature-{other}"));
        list.extend(others.map(|other| entitlement(&other, "BOOLEAN", None, None)));
        events::entitlements((&self.id, None), at, &list)
    }

    fn usage(&mut self) -> String {
        let at = self.next_time();
        self.usage += 1;
        self.usage_at = at;
        events::usage((&self.id, None), CALLS, self.usage, at)
    }
}

pub fn id_of(number: usize) -> String {
    format!("customer-{number:06}")
}

fn entitlement(feature: &str, kind: &str, limit: Option<u64>, usage: Option<u64>) -> Value {
    let meter = if usage.is_some() {
        "Incremental"
    } else {
        "None"
    };
    json!({"__typename": "Entitlement", "isGranted": true, "usageLimit": limit, "hasUnlimitedUsage": false,
        "hasSoftLimit": false, "currentUsage": usage,
        "feature": {"__typename": "EntitlementFeature", "refId": feature, "featureType": kind, "meterType": meter}})
}

async fn send(client: Client, queue_url: String, bodies: Vec<String>) {
    let entry = |(place, body): (usize, String)| {
        let entry = SendMessageBatchRequestEntry::builder().id(place.to_string());
        entry.message_body(body).build().unwrap()
    };
    let entries = bodies.into_iter().enumerate().map(entry).collect();
    let request = client.send_message_batch().queue_url(queue_url);
    let answer = request.set_entries(Some(entries)).send().await.unwrap();
    assert!(answer.failed.is_empty(), "{:?}", answer.failed);
}
