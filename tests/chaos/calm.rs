//! The calm between the rounds: no fault, no SDK writer, a queue and one worker of its own. One consumer receives ten
//! messages at once, always, so that what meets in one batch is known, and so is the order in which it counts.
//!
//! Two things are tried. **Bursts**: ten messages of a few owners, most of whom are not cached, sent by one call and
//! received by one; Redis must then hold exactly what the messages leave one after the other. **Purges of many while
//! one is locked**: SDK processes load the others meanwhile, with times before the purge, and these loads must stand.

mod burst;
mod order;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use fastrand::Rng;
use tokio::time::sleep;

use crate::model::{Dump, Fact, Wrong};
use crate::report::Report;
use crate::story::{Event, Owner, PREFIX, Spec, Story, real_time};
use crate::verdict::dump_of;
use crate::world::{World, depth};
use crate::writer::load;
use order::InOrder;
use testkit::{TestQueue, Worker};

/// How many in each phase.
const BURSTS: usize = 30;
/// All of them named by one purge.
const PURGED: usize = 30;
/// Several retries of a purge that finds a lock fall into this.
const LOCKED: Duration = Duration::from_millis(1_000);
/// The queue must be empty within this.
const PATIENCE: Duration = Duration::from_secs(30);
const REDELIVERED: &str = "entitlement_sync_messages_redelivered_total";

/// Kept for the whole run.
pub struct Calm {
    queue: TestQueue,
    rng: Rng,
    owners: Vec<Owner>,
}

/// One phase.
struct Phase<'a> {
    world: &'a World,
    story: &'a mut Story,
    calm: &'a mut Calm,
    worker: Worker,
    expected: InOrder,
    /// What was sent of each owner, in order.
    history: BTreeMap<usize, Vec<String>>,
    /// Of these a message was delivered twice, so the order is not known.
    loose: BTreeSet<usize>,
    redelivered: f64,
}

impl Calm {
    pub async fn new(world: &World, seed: u64) -> Calm {
        let visibility = ("VisibilityTimeout", "30");
        Calm {
            queue: world.sqs.queue_with("chaos-calm", &[visibility]).await,
            rng: Rng::with_seed(seed ^ 0xca_1300),
            owners: Vec::new(),
        }
    }

    /// Call it while no fault goes on and no SDK writer is at work.
    pub async fn phase(
        &mut self,
        world: &World,
        story: &mut Story,
        report: &mut Report,
        when: &str,
    ) {
        let worker = Worker::builder(&world.redis, &self.queue)
            .env("CONSUMERS", 1)
            .env("BATCH_SIZE", 10)
            .start()
            .await;
        let mut phase = Phase {
            world,
            story,
            calm: self,
            worker,
            expected: InOrder::default(),
            history: BTreeMap::new(),
            loose: BTreeSet::new(),
            redelivered: 0.0,
        };
        let done = phase.run(report).await;
        if let Err(what) = done {
            report.fail(format!("calm {when}: {what}"));
        }
        let wrong = phase.judge(report);
        report.judge(&format!("calm {when}"), wrong);
        let Phase { worker, loose, .. } = phase;
        report.calm.loose += loose.len() as u64;
        worker.term();
        let code = worker.wait_exit(Duration::from_secs(15)).await;
        if code != 0 {
            report.fail(format!("calm {when}: the worker ended with code {code}"));
        }
        forget(world);
    }

    fn owner(&mut self) -> usize {
        let number = self.owners.len();
        let customer = match number % 12 {
            5 => format!("calm-{number}-{}", "x".repeat(980)),
            6 => format!("calm-c\u{fc}st {{{number}}}#x"),
            _ => format!("calm-{number}"),
        };
        let resource = number.is_multiple_of(4).then(|| "site-1".to_owned());
        self.owners.push(Owner { customer, resource });
        number
    }
}

impl Phase<'_> {
    async fn run(&mut self, report: &mut Report) -> Result<(), String> {
        for _ in 0..BURSTS {
            let burst = burst::next(self.story, self.calm);
            self.send(&burst).await?;
            report.calm.bursts += 1;
        }
        self.purge_under_lock().await?;
        report.calm.purges += 1;
        Ok(())
    }

    /// Sends up to ten messages by one call, waits until they are acknowledged, and tells the model.
    async fn send(&mut self, specs: &[Arc<Spec>]) -> Result<(), String> {
        let sent = self.publish(specs).await;
        self.expected.sent(sent, real_time());
        self.wait_until_empty().await?;
        let redelivered = self.worker.metric(REDELIVERED).await;
        let again = redelivered > self.redelivered;
        self.redelivered = redelivered;
        for spec in specs {
            for (owner, fact) in spec.facts(sent) {
                if again {
                    self.loose.insert(owner);
                }
                self.tell(owner, &fact, &format!("{:?} {:?}", spec.what, spec.ahead));
            }
        }
        Ok(())
    }

    fn tell(&mut self, owner: usize, fact: &Fact, said: &str) {
        let key = self.calm.owners[owner].key();
        self.expected.apply(&key, owner, fact);
        let history = self.history.entry(owner).or_default();
        history.push(said.chars().take(200).collect());
    }

    /// Gives the moment before.
    async fn publish(&self, specs: &[Arc<Spec>]) -> u64 {
        let sent = real_time();
        let entry = |(position, spec): (usize, &Arc<Spec>)| {
            SendMessageBatchRequestEntry::builder()
                .id(position.to_string())
                .message_body(spec.body(&self.calm.owners, sent))
                .build()
                .unwrap()
        };
        let entries = specs.iter().enumerate().map(entry).collect();
        let answer = self
            .world
            .sqs
            .client()
            .send_message_batch()
            .queue_url(&self.calm.queue.url)
            .set_entries(Some(entries))
            .send()
            .await
            .unwrap();
        assert!(answer.failed.is_empty(), "not sent: {:?}", answer.failed);
        sent
    }

    async fn wait_until_empty(&self) -> Result<(), String> {
        let (began, client) = (Instant::now(), self.world.sqs.client());
        loop {
            let depth = depth(&client, &self.calm.queue.url).await;
            if depth == Some(0) {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("{depth:?} messages are left after {PATIENCE:?}"));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn purge_under_lock(&mut self) -> Result<(), String> {
        let owners: Vec<usize> = (0..PURGED).map(|_| self.calm.owner()).collect();
        let since = self.story.tick();
        let sets: Vec<Arc<Spec>> = owners
            .iter()
            .map(|&owner| {
                let set = self.story.set(owner, since);
                self.story.spec(Event::Set(set))
            })
            .collect();
        for ten in sets.chunks(10) {
            self.send(ten).await?;
        }
        let (before, at) = (self.story.tick(), self.story.tick());
        let locked = owners[self.calm.rng.usize(0..PURGED)];
        let lock = self.calm.owners[locked].lock();
        let redis = &self.world.redis;
        redis.cmd(&["SET", &lock, "an-sdk", "PX", "20000"]);
        let purge = self.story.spec(Event::Purge {
            owners: owners.clone(),
            at,
        });
        self.publish(std::slice::from_ref(&purge)).await;
        let others: Vec<usize> = owners.into_iter().filter(|it| *it != locked).collect();
        let began = Instant::now();
        while others
            .iter()
            .any(|&owner| redis.get(&self.calm.owners[owner].key()).is_some())
        {
            if began.elapsed() > PATIENCE {
                return Err("a purge waits for one that is locked".to_owned());
            }
            sleep(Duration::from_millis(10)).await;
        }
        for &owner in &others {
            self.tell(owner, &Fact::Purge { at }, "purge");
            let set = Story::refetched(&mut self.calm.rng, owner, before);
            let seq = self.story.next_seq();
            let fact = Fact::Sdk {
                at: before,
                entitlements: set.entitlements(seq),
                usages: set.usages(seq),
                fenced: true,
            };
            load(redis, &self.calm.owners[owner], &fact).map_err(|error| error.to_string())?;
            self.tell(owner, &fact, "SDK set");
        }
        sleep(LOCKED).await;
        redis.cmd(&["DEL", &lock]);
        self.wait_until_empty().await?;
        self.tell(locked, &Fact::Purge { at }, "purge");
        if self.worker.metric(REDELIVERED).await > self.redelivered {
            self.loose.extend(others);
        }
        Ok(())
    }

    /// Every key of these owners, and no other.
    fn judge(&self, report: &mut Report) -> Vec<Wrong> {
        let found: Dump = dump_of(&self.world.redis, &keys());
        report.keys_compared += found.len() as u64;
        self.expected.judge(&found, &self.loose, &self.history)
    }
}

fn keys() -> String {
    format!("{PREFIX}:c_calm-*")
}

/// The campaign's own model knows nothing of these owners.
fn forget(world: &World) {
    for key in dump_of(&world.redis, &keys()).keys() {
        world.redis.cmd(&["UNLINK", key]);
    }
}
