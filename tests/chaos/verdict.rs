//! When all is quiet, and whether Redis then holds what it must.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::fleet::METRICS;
use crate::model::{Dump, Fact};
use crate::publisher::{BESIDE_UNKNOWN, Publisher};
use crate::report::Report;
use crate::story::{PREFIX, Story};
use crate::world::{World, depth};
use testkit::Redis;

/// The queue must be empty and everyone idle within this after the last fault.
const QUIET: Duration = Duration::from_secs(90);

/// Waits until the queue is empty but for invalid messages on their way to the dead-letter queue, and everyone is idle.
pub async fn quiet(world: &Arc<World>, publisher: &mut Publisher, report: &mut Report, when: &str) {
    world.fleet.find_dead().await;
    while world.fleet.running().len() < 3 {
        let vacant = world.fleet.vacant();
        vacant
            .into_iter()
            .for_each(|slot| world.fleet.start(slot, world.now()));
    }
    let began = Instant::now();
    let mut times = 0;
    let mut seen = (None, None);
    while times < 3 {
        if began.elapsed() > QUIET {
            let ready = world.fleet.in_hand().await;
            report.fail(format!(
                "not quiet {QUIET:?} after {when}: {seen:?} in the queue and in flight ({ready:?} now)"
            ));
            return;
        }
        sleep(Duration::from_millis(150)).await;
        world.drain_dead_letters().await;
        let redriven = std::mem::take(&mut *world.redriven.lock().unwrap());
        if !redriven.is_empty() {
            report.valid_redriven += redriven.len() as u64;
            if world.dead.is_none() {
                let markers: Vec<_> = redriven.iter().map(|it| it.spec.marker()).collect();
                report.fail(format!("valid messages were given up: {markers:?}"));
            }
            publisher.send_all(redriven).await;
        }
        let depth = depth(&world.sqs.client(), &world.queue.url).await;
        let in_hand = world.fleet.in_hand().await;
        seen = (depth, in_hand);
        let on_their_way = match world.dead {
            Some(_) => world.invalid.lock().unwrap().len() as u64,
            None => 0,
        };
        let idle = in_hand == Some(0.0) && depth.is_some_and(|depth| depth <= on_their_way);
        times = if idle { times + 1 } else { 0 };
    }
}

/// The whole of Redis, by raw commands.
fn dump(redis: &Redis) -> Dump {
    dump_of(redis, "*")
}

/// The keys of a glob pattern.
pub fn dump_of(redis: &Redis, pattern: &str) -> Dump {
    let mut conn = redis.conn();
    let mut found = Dump::new();
    let mut cursor = 0_u64;
    loop {
        let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg(&["MATCH", pattern, "COUNT", "2000", "TYPE", "string"])
            .query(&mut conn)
            .unwrap();
        if !keys.is_empty() {
            let values: Vec<Option<String>> =
                redis::cmd("MGET").arg(&keys).query(&mut conn).unwrap();
            for (key, value) in keys.into_iter().zip(values) {
                found.extend(value.map(|value| (key, value)));
            }
        }
        if next == 0 {
            return found;
        }
        cursor = next;
    }
}

pub fn judge(world: &World, report: &mut Report, when: &str) {
    let mut dump = dump(&world.redis);
    // A lock of an SDK whose connection broke expires by itself.
    dump.retain(|key, _| !key.starts_with(&format!("{PREFIX}-")));
    report.keys_compared += dump.len() as u64;
    let mut model = world.model();
    model.by_time_told(&mut dump);
    let wrong = model.judge(&dump);
    drop(model);
    report.judge(when, wrong);
}

/// The last word on everyone; then every key is known exactly.
pub async fn settle(
    world: &Arc<World>,
    story: &mut Story,
    publisher: &mut Publisher,
    report: &mut Report,
) {
    let credits = world.model().credits();
    let mut last: Vec<(usize, Fact)> = Vec::new();
    let sets = story.settle();
    last.extend(sets.iter().flat_map(|it| it.spec.facts(0)));
    println!("chaos: settling");
    world.published.lock().unwrap().clear();
    publisher.send_all(sets).await;
    quiet(world, publisher, report, "the last entitlements").await;
    judge(world, report, "after the last entitlements");
    let usages = story.settle_usages(&credits);
    last.extend(usages.iter().flat_map(|it| it.spec.facts(0)));
    publisher.send_all(usages).await;
    quiet(world, publisher, report, "the last usages").await;
    judge(world, report, "after the last usages");
    // The invalid ones as well now.
    let began = Instant::now();
    while !world.invalid.lock().unwrap().is_empty() && began.elapsed() < QUIET {
        sleep(Duration::from_millis(300)).await;
        world.drain_dead_letters().await;
    }
    let left = world.invalid.lock().unwrap().len();
    let depth = depth(&world.sqs.client(), &world.queue.url).await;
    if left > 0 || depth != Some(0) {
        report.fail(format!(
            "at the end {left} invalid messages are not among the dead letters, and the queue holds {depth:?}"
        ));
    }
    let mut dump = dump(&world.redis);
    world.model().by_time_told(&mut dump);
    report.keys_compared += dump.len() as u64;
    let wrong = world.model().settled(&last, &dump);
    report.judge("at the end", wrong);
    let immortal = dump
        .keys()
        .filter(|key| key.starts_with(&format!("{PREFIX}:c_")))
        .take(500)
        .filter(|key| world.redis.ttl(key) <= 0)
        .count();
    if immortal > 0 {
        report.fail(format!("{immortal} of 500 keys never expire"));
    }
}

pub fn finish(world: &World, publisher: &Publisher, report: &mut Report) {
    report.messages = publisher.counts.clone();
    report.published = publisher.published;
    report.duplicates = publisher.duplicates;
    report.resent = publisher.resent;
    let totals = METRICS.map(|name| world.fleet.total(name));
    [
        report.received,
        report.redeliveries,
        report.applied,
        report.stale,
        report.skipped,
        report.coalesced,
        report.locked_retries,
        report.acknowledged_late,
        report.data_losses_noticed,
        report.consumers_restarted,
    ] = totals;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    report.sdk_writes = BTreeMap::from([
        ("written", count(&world.sdk.written)),
        ("stale", count(&world.sdk.stale)),
        ("refused", count(&world.sdk.refused)),
        ("doubtful", count(&world.sdk.doubtful)),
        ("lock taken", count(&world.sdk.lock_taken)),
    ]);
    report.invalid_lost_with_data = count(&world.lost_letters);
    report.unrecognised_kept = count(&world.unrecognised_kept);
    if report.messages.contains_key("unknown kind") && report.unrecognised_kept == 0 {
        report.fail("no message of an unknown kind was kept");
    }
    if report.messages.contains_key(BESIDE_UNKNOWN) && count(&world.copies_kept) == 0 {
        report.fail("no message with changes beside an unknown kind was kept");
    }
    report.invalid_dead_lettered = world.dead_lettered.lock().unwrap().len() as u64;
    report.invalid_published = report.invalid_dead_lettered
        + report.invalid_lost_with_data
        + world.invalid.lock().unwrap().len() as u64;
    report.workers_started = count(&world.fleet.started);
    report.worker_exits = world.fleet.exits.lock().unwrap().clone();
    report.max_rss_mib = count(&world.fleet.max_rss_kib) / 1024;
    for bad in world.fleet.bad_exits.lock().unwrap().iter() {
        report.fail(bad.clone());
    }
}
