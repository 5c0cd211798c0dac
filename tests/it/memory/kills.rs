//! A small campaign: a process without a Redis is killed, frozen, cut off from the queue and from its folder at random
//! moments, while events arrive. In the end every change is answered, and nothing is left in the queue.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::process::{flag, limit};
use super::restart::{KEY, NO_EDGE};
use testkit::events::{at, purge, seats, usage};
use testkit::{Fault, FaultProxy, Reader, Signal, Sqs, TestQueue, until};

const SOON: Duration = Duration::from_secs(120);
const CUSTOMERS: usize = 60;

/// What the last event of a customer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Limit { limit: u64, usage: u64 },
    Purged,
}

struct Story {
    now: u64,
    last: BTreeMap<String, Last>,
    /// Customers that the process holds for certain: usage of others is skipped, since events have no order.
    held: BTreeSet<String>,
}

impl Story {
    /// A few events, each newer than all before it.
    fn next(&mut self) -> Vec<String> {
        let mut bodies = Vec::new();
        for _ in 0..fastrand::usize(1..20) {
            self.now += 1;
            let now = self.now;
            let customer = format!("customer-{}", fastrand::usize(..CUSTOMERS));
            let owner = (customer.as_str(), None);
            let before = self.last.get(&customer).copied();
            let (body, last) = match (fastrand::u8(..6), before) {
                (0, Some(_)) => (purge([owner], at(now)), Last::Purged),
                (1 | 2, Some(Last::Limit { limit, .. })) if self.held.contains(&customer) => (
                    usage(owner, "seats", now, at(now)),
                    Last::Limit { limit, usage: now },
                ),
                _ => (
                    seats(owner, now, at(now)),
                    Last::Limit {
                        limit: now,
                        usage: 1,
                    },
                ),
            };
            if last == Last::Purged {
                self.held.remove(&customer);
            }
            bodies.push(body);
            self.last.insert(customer, last);
        }
        bodies
    }

    /// All that was sent is applied.
    fn settle(&mut self) {
        let held = self.last.iter().filter(|(_, last)| **last != Last::Purged);
        self.held = held.map(|(customer, _)| customer.clone()).collect();
    }
}

/// Does something to the process, or to what it needs, for a moment.
async fn disturb(reader: &Reader, folder: &std::path::Path, faults: &FaultProxy) {
    let pause = async |ms| tokio::time::sleep(Duration::from_millis(ms)).await;
    match fastrand::u8(..6) {
        0 => reader.signal(Signal::SIGUSR1),
        1 => {
            reader.freeze();
            pause(fastrand::u64(50..400)).await;
            reader.thaw();
        }
        2 => {
            let aside = folder.with_extension("aside");
            if std::fs::rename(folder, &aside).is_ok() {
                pause(fastrand::u64(50..600)).await;
                std::fs::rename(&aside, folder).unwrap();
            }
        }
        3 => {
            faults.once("ReceiveMessage", Fault::server_error());
            faults.times("DeleteMessageBatch", 3, Fault::server_error());
        }
        _ => {}
    }
}

async fn answers_all(reader: &Reader, story: &Story) -> Result<(), String> {
    for (customer, last) in &story.last {
        match last {
            Last::Limit {
                limit: wanted,
                usage,
            } => {
                let found = limit(reader, customer).await;
                if found != Some(*wanted) {
                    return Err(format!("{customer}: limit {found:?}, not {wanted}"));
                }
                let reply = flag(reader, "seats@usage", customer).await;
                if reply.json()["value"].as_u64() != Some(*usage) {
                    return Err(format!("{customer}: usage {}, not {usage}", reply.body));
                }
            }
            Last::Purged => {
                let reply = flag(reader, "seats@limit", customer).await;
                if reply.status == 200 && reply.json()["reason"] != "STALE" {
                    return Err(format!("{customer} was purged: {}", reply.body));
                }
            }
        }
    }
    Ok(())
}

async fn settled(queue: &TestQueue) {
    until("the queue is empty", SOON, async || {
        queue.depth().await == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_the_process_every_change_is_answered_in_the_end() {
    let seed = fastrand::get_seed();
    let secs = std::env::var("KILLS_SECS").map_or(20, |secs| secs.parse().unwrap());
    let (sqs, parent) = (Sqs::start().await, TempDir::new().unwrap());
    let queue = sqs.queue_with("q", &[("VisibilityTimeout", "2")]).await;
    let faults = FaultProxy::start(sqs.endpoint()).await;
    let folder = parent.path().join("state");
    let builder = Reader::in_memory(&queue, NO_EDGE)
        .env("SNAPSHOT_PATH", folder.display())
        .env("SNAPSHOT_KEY", KEY)
        .env("SNAPSHOT_INTERVAL_SECS", 2)
        .env("MAX_RECEIVE_COUNT", 1_000)
        .env("AWS_ENDPOINT_URL_SQS", faults.url());
    let mut story = Story {
        now: 1,
        last: BTreeMap::new(),
        held: BTreeSet::new(),
    };
    let (started, mut kills) = (Instant::now(), 0);
    while started.elapsed() < Duration::from_secs(secs) {
        let reader = builder.start().await;
        for _ in 0..fastrand::usize(1..8) {
            queue.send_all(story.next()).await;
            disturb(&reader, &folder, &faults).await;
        }
        if fastrand::u8(..4) == 0 {
            settled(&queue).await;
            story.settle();
            if let Err(problem) = answers_all(&reader, &story).await {
                panic!("seed {seed}, after {kills} kills: {problem}");
            }
        }
        reader.kill();
        reader.wait_exit(SOON).await;
        kills += 1;
    }
    let reader = builder.start().await;
    settled(&queue).await;
    let first = answers_all(&reader, &story).await;
    assert_eq!(first, Ok(()), "seed {seed}, {kills} kills");
    // Nobody but the journal can tell now.
    reader.kill();
    reader.wait_exit(SOON).await;
    let reader = builder.start().await;
    assert_eq!(
        answers_all(&reader, &story).await,
        Ok(()),
        "seed {seed}, {kills} kills"
    );
    eprintln!(
        "{kills} kills, {} events, {} customers",
        story.now,
        story.last.len()
    );
}
