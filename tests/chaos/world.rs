//! What everyone shares: Redis, the queue, the workers, the books.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::QueueAttributeName;
use tokio::time::sleep;

use crate::fleet::Fleet;
use crate::folder;
use crate::model::{Model, Moment};
use crate::story::{Emission, Owner, PREFIX, Story};
use crate::writer::Counts;
use testkit::{FaultProxy, Redis, Sqs, TestQueue};

const VISIBILITY_SECS: &str = "4";

/// What everyone shares.
pub struct World {
    pub began: Instant,
    pub redis: Redis,
    /// A file of options that a restarted Redis reads.
    pub redis_options: PathBuf,
    pub sqs: Sqs,
    pub queue: TestQueue,
    pub queue_attributes: Vec<(&'static str, String)>,
    pub dead: Option<TestQueue>,
    pub queue_faults: FaultProxy,
    pub fleet: Fleet,
    pub owners: Vec<Owner>,
    pub common: usize,
    /// The newest source time that was published.
    pub clock: AtomicU64,
    /// Of whom messages are about to be published, and their times.
    pub upcoming: Mutex<Vec<(usize, u64)>>,
    pub model: Mutex<Model>,
    pub sdk: Counts,
    /// By marker: invalid messages that are not with the dead letters yet, and those that are.
    pub invalid: Mutex<BTreeMap<String, Emission>>,
    pub dead_lettered: Mutex<HashSet<String>>,
    pub lost_letters: AtomicU64,
    /// Messages of unknown kinds that were kept.
    pub unrecognised_kept: AtomicU64,
    /// Messages with changes that were kept because of an event of an unknown kind beside them.
    pub copies_kept: AtomicU64,
    pub losses: Mutex<Vec<Moment>>,
    /// Valid messages with the dead letters, to be sent again.
    pub redriven: Mutex<Vec<Emission>>,
    /// All messages of the round by their markers.
    pub published: Mutex<HashMap<String, Emission>>,
    pub resend: AtomicBool,
    pub hung_at: AtomicI64,
    /// Messages to be published at once, whatever the pace.
    pub surge: AtomicU64,
    /// Faults of Redis that go on now.
    pub redis_ails: AtomicU64,
}

impl World {
    /// Everything but the workers, who are started later.
    pub async fn start(log: &str, story: &Story, seed: u64) -> World {
        let redis_options = folder().join("redis-options.conf");
        std::fs::write(&redis_options, "").unwrap();
        let durable = ["--appendonly", "yes", "--appendfsync", "always"];
        let include = ["--include", redis_options.to_str().unwrap()];
        let options: Vec<&str> = durable.into_iter().chain(include).collect();
        let (redis, sqs) = tokio::join!(Redis::start_with(&options), Sqs::start());
        let mut attributes = vec![("VisibilityTimeout", VISIBILITY_SECS.to_owned())];
        // Every other seed has a dead-letter queue; where there is none, Redis keeps the dead letters.
        let (dead, max_receive_count) = if seed.is_multiple_of(2) {
            (None, 3)
        } else {
            let dead = sqs.queue("chaos-dead").await;
            let answer = sqs
                .client()
                .get_queue_attributes()
                .queue_url(&dead.url)
                .attribute_names(QueueAttributeName::QueueArn)
                .send()
                .await
                .unwrap();
            let arn = &answer.attributes.unwrap()[&QueueAttributeName::QueueArn];
            let policy = serde_json::json!({"deadLetterTargetArn": arn, "maxReceiveCount": 5});
            attributes.push(("RedrivePolicy", policy.to_string()));
            (Some(dead), 5)
        };
        let borrowed: Vec<(&str, &str)> = attributes
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let queue = sqs.queue_with("chaos", &borrowed).await;
        let queue_faults = FaultProxy::start(sqs.endpoint()).await;
        let fleet = Fleet::new(
            &redis,
            &queue,
            &queue_faults,
            folder(),
            log,
            max_receive_count,
        )
        .await;
        World {
            began: Instant::now(),
            redis,
            redis_options,
            sqs,
            queue,
            queue_attributes: attributes,
            dead,
            queue_faults,
            fleet,
            owners: story.owners.clone(),
            common: story.common,
            clock: AtomicU64::new(story.clock),
            upcoming: Mutex::default(),
            model: Mutex::new(Model::new(story.owners.clone())),
            sdk: Counts::default(),
            invalid: Mutex::default(),
            dead_lettered: Mutex::default(),
            lost_letters: AtomicU64::new(0),
            unrecognised_kept: AtomicU64::new(0),
            copies_kept: AtomicU64::new(0),
            losses: Mutex::default(),
            redriven: Mutex::default(),
            published: Mutex::default(),
            resend: AtomicBool::new(false),
            hung_at: AtomicI64::new(0),
            surge: AtomicU64::new(0),
            redis_ails: AtomicU64::new(0),
        }
    }

    pub fn now(&self) -> Moment {
        1 + i64::try_from(self.began.elapsed().as_micros()).unwrap()
    }

    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }

    /// Calls hang from now on; a worker that deletes by one may not end in time.
    pub fn queue_hangs(&self) {
        self.hung_at.store(self.now(), Ordering::SeqCst);
    }

    pub fn queue_hung(&self) -> bool {
        let hung_at = self.hung_at.load(Ordering::SeqCst);
        hung_at > 0 && self.now() - hung_at < 30_000_000
    }

    pub fn lost_data(&self, from: Moment) {
        self.model().lose(from, self.now());
        self.losses.lock().unwrap().push(from);
        if self.dead.is_none() {
            let invalid = std::mem::take(&mut *self.invalid.lock().unwrap());
            self.lost_letters
                .fetch_add(invalid.len() as u64, Ordering::Relaxed);
        }
    }

    /// The messages in it are gone by definition, and are sent again.
    pub async fn recreate_queue(&self) {
        let client = self.sqs.client();
        client
            .delete_queue()
            .queue_url(&self.queue.url)
            .send()
            .await
            .unwrap();
        sleep(Duration::from_millis(400)).await;
        let attributes: Vec<(&str, &str)> = self
            .queue_attributes
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        self.sqs.queue_with(&self.queue.name, &attributes).await;
        self.resend.store(true, Ordering::SeqCst);
    }

    /// Takes the dead letters that are there now into the books.
    pub async fn drain_dead_letters(&self) {
        let mut bodies = Vec::new();
        if let Some(dead) = &self.dead {
            for message in dead.receive_all().await {
                bodies.push(message.body.clone().unwrap_or_default());
                self.sqs
                    .client()
                    .delete_message()
                    .queue_url(&dead.url)
                    .receipt_handle(message.receipt_handle.unwrap_or_default())
                    .send()
                    .await
                    .unwrap();
            }
        }
        // Also there if a worker could not ask yet whether the queue has a dead-letter queue.
        let key = format!("{PREFIX}:dead-letter");
        let answer = self.redis.try_cmd(&["XRANGE", &key, "-", "+"]);
        type Entries = Vec<(String, HashMap<String, String>)>;
        let entries: Entries = answer
            .ok()
            .and_then(|answer| redis::from_redis_value(answer).ok())
            .unwrap_or_default();
        for (id, mut fields) in entries {
            let reason = fields.remove("reason").unwrap_or_default();
            match reason.starts_with("unrecognised: one of its events") {
                // Its changes are applied.
                true => {
                    self.copies_kept.fetch_add(1, Ordering::Relaxed);
                }
                false => bodies.extend(fields.remove("body")),
            }
            self.redis.cmd(&["XDEL", &key, &id]);
        }
        for body in bodies {
            let marker = marker_in(&body);
            let invalid = self.invalid.lock().unwrap().remove(&marker).is_some();
            if invalid {
                self.dead_lettered.lock().unwrap().insert(marker);
            } else if let Some(emission) = self.published.lock().unwrap().get(&marker)
                && emission.spec.kind() != "invalid"
            {
                if emission.spec.is_unrecognised() {
                    self.unrecognised_kept.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                self.redriven.lock().unwrap().push(emission.clone());
            }
        }
    }
}

/// `chaos-` and a number; a body that is packed has it beside what is packed.
fn marker_in(body: &str) -> String {
    body.rfind("chaos-").map_or(String::new(), |at| {
        let digits = body[at + 6..].chars().take_while(char::is_ascii_digit);
        format!("chaos-{}", digits.collect::<String>())
    })
}

/// Messages in the queue; `None` while there is no queue.
pub async fn depth(client: &Client, url: &str) -> Option<u64> {
    let names = [
        QueueAttributeName::ApproximateNumberOfMessages,
        QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
        QueueAttributeName::ApproximateNumberOfMessagesDelayed,
    ];
    let request = client.get_queue_attributes().queue_url(url);
    let answer = request
        .set_attribute_names(Some(names.to_vec()))
        .send()
        .await
        .ok()?;
    let attributes = answer.attributes?;
    let count = |name| attributes.get(&name)?.parse::<u64>().ok();
    names.into_iter().map(count).sum()
}
