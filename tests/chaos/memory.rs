//! The campaign in memory mode: one process without a Redis, whose queue, disk, clock and life fail at random. Readers ask it all
//! the time, and a model knows what may be answered. The Edge API is away, so there is no other source.
//! `script/chaos --memory [--seed N] [--minutes M]`.

mod ask;
mod disk;
mod faults;
mod host;
mod model;
mod report;
mod story;
mod world;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::Arguments;
use ask::{ask_everyone, keep_asking};
use faults::Deck;
use report::Report;
use world::World;

/// About what a round takes: its faults, and the questions after it.
const ROUND: f64 = 38.0;
const FAULTY: Duration = Duration::from_secs(15);
const TICK: Duration = Duration::from_millis(250);

/// The report and the logs of the processes.
pub fn folder() -> PathBuf {
    crate::folder().with_file_name("chaos-memory")
}

pub async fn run(arguments: &Arguments) -> Report {
    let began = Instant::now();
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(1..100_000));
    let rounds = (arguments.minutes * 60.0 / ROUND).round().max(1.0) as usize;
    println!("chaos: seed {seed}, {rounds} rounds, without a Redis");
    let _ = std::fs::remove_dir_all(folder());
    std::fs::create_dir_all(folder()).unwrap();
    let world = World::start(&arguments.log, seed).await;
    let mut report = Report {
        seed,
        minutes: arguments.minutes,
        rate: arguments.rate,
        rounds,
        disk: match world.disk.is_mounted {
            true => "its own, 32 MiB",
            false => "never full, since none can be mounted here",
        },
        ..Report::default()
    };
    let mut deck = Deck::new(seed);
    world.host.wait_ready().await;
    let load = world.story().load();
    world.publish(&load).await;
    settle(&world, &mut report, "after loading").await;
    for round in 1..=rounds {
        println!(
            "chaos: {:>4} s: round {round} of {rounds}",
            began.elapsed().as_secs()
        );
        let over = AtomicBool::new(false);
        let ((), (), (asked, part)) = tokio::join!(
            fault_lane(&world, &mut deck, &mut report, &over),
            publish(&world, arguments.rate, &over),
            keep_asking(&world, seed + round as u64, &over),
        );
        report.busy.add(&asked);
        report.add(&format!("in round {round}"), part);
        settle(&world, &mut report, &format!("after round {round}")).await;
    }
    report.snapshots = world.host.snapshots().await;
    world.host.term(true).await;
    finish(&world, &mut report);
    report.seconds_taken = began.elapsed().as_secs();
    report
}

fn finish(world: &World, report: &mut Report) {
    let host = &world.host;
    report.published = world.published.load(Ordering::SeqCst);
    report.told = world.model().told();
    report.lives = host.life();
    report.exits = std::mem::take(&mut host.exits.lock().unwrap());
    report.failures = std::mem::take(&mut host.failures.lock().unwrap());
    report.max_rss_mib = host.max_rss_kib.load(Ordering::SeqCst) / 1024;
}

async fn fault_lane(world: &World, deck: &mut Deck, report: &mut Report, over: &AtomicBool) {
    let began = Instant::now();
    while began.elapsed() < FAULTY {
        let episode = deck.deal(world.disk.is_mounted);
        faults::inflict(world, episode).await;
        if let Some(trouble) = episode.trouble {
            *report.troubles.entry(trouble.name()).or_default() += 1;
        }
        if let Some(strike) = episode.strike {
            let name = crate::faults::spaced(&format!("{strike:?}"));
            *report.strikes.entry(name).or_default() += 1;
        }
    }
    over.store(true, Ordering::SeqCst);
}

async fn publish(world: &World, rate: u64, over: &AtomicBool) {
    let count = rate as usize * TICK.as_millis() as usize / 1_000;
    while !over.load(Ordering::SeqCst) {
        let turn = world.turn.lock().await;
        let news = world.story().next(count);
        world.publish(&news).await;
        drop(turn);
        sleep(TICK).await;
    }
}

/// The queue is read to its end, and everyone is asked: fresh at first; then after a kill, when only the files can tell;
/// then after an orderly end, when only the last snapshot can.
async fn settle(world: &World, report: &mut Report, when: &str) {
    world.host.wait_ready().await;
    world.drained().await;
    world.host.wait_proven().await;
    let held = world.model().settle();
    world.story().settle(held.into_iter());
    judge(world, report, true, when).await;
    world.host.kill().await;
    world.host.start_again();
    world.host.wait_ready().await;
    judge(world, report, false, &format!("{when} and a kill")).await;
    world.host.term(true).await;
    world.host.start_again();
    world.host.wait_ready().await;
    judge(world, report, false, &format!("{when} and an orderly end")).await;
}

async fn judge(world: &World, report: &mut Report, is_proven: bool, when: &str) {
    let (asked, part) = ask_everyone(world, is_proven).await;
    report.calm.add(&asked);
    report.add(when, part);
}
