//! Sends messages, and tells the model before each.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use tokio::time::sleep;

use crate::model::Moment;
use crate::story::{Emission, Story, real_time};
use crate::world::{World, depth};

/// Messages in the queue at which publishing waits; the local SQS slows down beyond a few thousand.
const BACKLOG: u64 = 1_300;

/// Under which messages with an event of an unknown kind beside their changes are counted.
pub const BESIDE_UNKNOWN: &str = "beside an unknown kind";

/// One for all of a run.
pub struct Publisher {
    world: Arc<World>,
    client: Client,
    pending: VecDeque<Emission>,
    sent: Vec<Emission>,
    pub counts: BTreeMap<String, u64>,
    pub published: u64,
    pub duplicates: u64,
    pub resent: u64,
    /// Both in bytes and in number.
    backlog: u64,
    looked: Instant,
    /// Messages a second while faults go on.
    rate: u64,
}

impl Publisher {
    pub fn new(world: Arc<World>, rate: u64) -> Publisher {
        Publisher {
            client: world.sqs.client(),
            world,
            pending: VecDeque::new(),
            sent: Vec::new(),
            counts: BTreeMap::new(),
            published: 0,
            duplicates: 0,
            resent: 0,
            backlog: 0,
            looked: Instant::now(),
            rate,
        }
    }

    /// Waits until the queue has room.
    async fn wait_for_room(&mut self) {
        while !self.has_room().await {
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn has_room(&mut self) -> bool {
        if self.looked.elapsed() > Duration::from_millis(300) {
            self.looked = Instant::now();
            self.backlog = self.depth().await.unwrap_or(u64::MAX);
        }
        self.backlog < BACKLOG
    }

    /// `None` while there is no queue.
    async fn depth(&self) -> Option<u64> {
        depth(&self.client, &self.world.queue.url).await
    }

    /// Sends up to ten messages; what was lost with its queue goes first.
    async fn send_some(&mut self, most: usize) -> usize {
        if self.world.resend.swap(false, Ordering::SeqCst) {
            let mut again = std::mem::take(&mut self.sent);
            let invalid = self.world.invalid.lock().unwrap();
            let known: HashSet<u64> = again.iter().map(|it| it.spec.seq).collect();
            again.extend(
                invalid
                    .values()
                    .filter(|it| !known.contains(&it.spec.seq))
                    .cloned(),
            );
            drop(invalid);
            self.resent += again.len() as u64;
            for emission in again.into_iter().rev() {
                self.pending.push_front(emission);
            }
        }
        let sent = real_time();
        let mut batch: Vec<(Emission, String)> = Vec::new();
        let mut bytes = 0;
        while batch.len() < most.min(10) {
            let Some(emission) = self.pending.front() else {
                break;
            };
            let body = emission.spec.body(&self.world.owners, sent);
            assert!(body.len() <= 1 << 20, "{} bytes", body.len());
            if bytes > 0 && bytes + body.len() > 1 << 20 {
                break;
            }
            bytes += body.len();
            batch.extend(self.pending.pop_front().map(|emission| (emission, body)));
        }
        if batch.is_empty() {
            return 0;
        }
        let from = self.world.now();
        self.tell(&batch, from, sent);
        for (emission, _) in &batch {
            let kind = emission.spec.kind();
            let marker = emission.spec.marker();
            if kind == "invalid" && !self.world.dead_lettered.lock().unwrap().contains(&marker) {
                let mut invalid = self.world.invalid.lock().unwrap();
                invalid.insert(marker.clone(), emission.clone());
            }
            let mut published = self.world.published.lock().unwrap();
            published.insert(marker, emission.clone());
            *self.counts.entry(kind.to_owned()).or_default() += 1;
            if emission.spec.ahead.is_some() {
                *self.counts.entry("of a clock ahead".into()).or_default() += 1;
            }
            if emission.spec.has_unknown_beside() {
                *self.counts.entry(BESIDE_UNKNOWN.into()).or_default() += 1;
            }
            self.published += 1;
            self.duplicates += u64::from(emission.duplicate);
        }
        let entries: Vec<_> = batch
            .iter()
            .enumerate()
            .map(|(position, (_, body))| {
                SendMessageBatchRequestEntry::builder()
                    .id(position.to_string())
                    .message_body(body)
                    .build()
                    .unwrap()
            })
            .collect();
        loop {
            let request = self
                .client
                .send_message_batch()
                .queue_url(&self.world.queue.url)
                .set_entries(Some(entries.clone()));
            match request.send().await {
                Ok(answer) => {
                    assert!(answer.failed.is_empty(), "not sent: {:?}", answer.failed);
                    break;
                }
                // The queue is just being created again. What was sent before is sent again anyway.
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
        if batch
            .iter()
            .any(|(emission, _)| emission.spec.ahead.is_some())
        {
            self.world.model().sent_ahead(sent, real_time());
            // The next batch is sent in another millisecond.
            sleep(Duration::from_millis(2)).await;
        }
        let count = batch.len();
        self.sent
            .extend(batch.into_iter().map(|(emission, _)| emission));
        // `has_room` sets it to `u64::MAX` while there is no queue.
        self.backlog = self.backlog.saturating_add(count as u64);
        count
    }

    fn tell(&self, batch: &[(Emission, String)], from: Moment, sent: u64) {
        let world = &self.world;
        let soon = self.pending.iter().skip(10).take(40);
        let soon = soon.filter_map(|emission| Some((emission.spec.owner()?, emission.spec.at()?)));
        *world.upcoming.lock().unwrap() = soon.filter(|(owner, _)| *owner < world.common).collect();
        let mut model = world.model();
        for (emission, _) in batch {
            for (owner, fact) in emission.spec.facts(sent) {
                if owner < world.common {
                    world
                        .clock
                        .fetch_max(emission.spec.at().unwrap_or(0), Ordering::SeqCst);
                }
                model.tell(owner, fact, from, Moment::MAX, emission.spec.seq);
            }
        }
    }

    /// Sends all that is pending as fast as the queue takes it.
    pub async fn send_all(&mut self, emissions: Vec<Emission>) {
        self.pending.extend(emissions);
        loop {
            self.wait_for_room().await;
            if self.send_some(10).await == 0 {
                return;
            }
        }
    }

    /// Sends at a steady pace, with canaries between, until all is sent and the faults are over.
    pub async fn send_round(
        &mut self,
        story: &mut Story,
        emissions: Vec<Emission>,
        over: &AtomicBool,
    ) {
        self.sent.clear();
        self.pending.extend(emissions);
        let began = Instant::now();
        let (mut paced, mut canaries) = (0, 0);
        loop {
            let elapsed = began.elapsed();
            while canaries < elapsed.as_millis() as u64 / 100 {
                // Whether there is room or not: they show that messages are applied again.
                self.pending.push_front(story.canary(canaries));
                self.send_some(1).await;
                canaries += 1;
                // Not all at once after a pause.
                canaries = canaries.max((elapsed.as_millis() as u64 / 100).saturating_sub(5));
            }
            let due = (elapsed.as_millis() as u64 * self.rate / 1000).saturating_sub(paced);
            let surge = self.world.surge.load(Ordering::SeqCst);
            let due = due.max(surge);
            let done = self.pending.is_empty();
            if done && over.load(Ordering::SeqCst) && !self.world.resend.load(Ordering::SeqCst) {
                return;
            }
            if due > 0 && !done && self.has_room().await {
                let sent = self.send_some(usize::try_from(due).unwrap_or(10)).await as u64;
                self.world
                    .surge
                    .fetch_sub(sent.min(surge), Ordering::SeqCst);
                paced += sent;
                // What could not be sent in time is not caught up with.
                let due = elapsed.as_millis() as u64 * self.rate / 1000;
                paced = paced.max(due.saturating_sub(self.rate));
            } else {
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
}
