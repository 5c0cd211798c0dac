//! What goes wrong, in an order and for spans of time that the seed gives.

use std::time::Duration;

use fastrand::Rng;
use testkit::Signal;
use tokio::time::sleep;

use super::world::World;
use crate::faults::{Kind, QUEUE, of_queue, spaced};

/// To the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strike {
    Kill,
    /// Right after SIGUSR1: a snapshot is being written.
    KillInSnapshot,
    /// Soon after the start: it is being restored, or the journal is begun.
    KillTwice,
    Freeze,
    Term,
}

/// To what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    Queue(Kind),
    DiskFull,
    FolderAway,
}

#[derive(Debug, Clone, Copy)]
pub struct Episode {
    pub strike: Option<Strike>,
    pub trouble: Option<Trouble>,
    pause: Duration,
    hold: Duration,
    /// From SIGUSR1, or from the start, to the kill.
    moment: Duration,
}

/// Deals every kind once before any comes again.
pub struct Deck {
    rng: Rng,
    strikes: Vec<Strike>,
    troubles: Vec<Trouble>,
}

impl Trouble {
    pub fn name(self) -> String {
        match self {
            Trouble::Queue(kind) => kind.name(),
            other => spaced(&format!("{other:?}")),
        }
    }
}

impl Deck {
    pub fn new(seed: u64) -> Deck {
        Deck {
            rng: Rng::with_seed(seed ^ 0x3e_3012),
            strikes: Vec::new(),
            troubles: Vec::new(),
        }
    }

    /// Half of the time both at once.
    pub fn deal(&mut self, disk_can_be_full: bool) -> Episode {
        let rng = &mut self.rng;
        let which = rng.u8(..4);
        if self.strikes.is_empty() {
            use Strike::{Freeze, Kill, KillInSnapshot, KillTwice, Term};
            self.strikes = vec![
                Kill,
                Kill,
                KillInSnapshot,
                KillInSnapshot,
                KillTwice,
                Freeze,
                Term,
            ];
            rng.shuffle(&mut self.strikes);
        }
        if self.troubles.is_empty() {
            self.troubles = QUEUE.map(Trouble::Queue).into();
            self.troubles.extend([Trouble::FolderAway; 2]);
            if disk_can_be_full {
                self.troubles.extend([Trouble::DiskFull; 3]);
            }
            rng.shuffle(&mut self.troubles);
        }
        let trouble = (which != 0).then(|| self.troubles.pop()).flatten();
        let mut strike = (which != 1).then(|| self.strikes.pop()).flatten();
        if trouble == Some(Trouble::FolderAway) && strike.is_some() {
            // A process that starts without its folder begins another one, as on a new machine.
            strike = Some(Strike::Freeze);
        }
        Episode {
            strike,
            trouble,
            pause: Duration::from_millis(rng.u64(50..600)),
            hold: Duration::from_millis(rng.u64(600..2_500)),
            moment: Duration::from_micros(rng.u64(0..40_000)),
        }
    }
}

pub async fn inflict(world: &World, episode: Episode) {
    sleep(episode.pause).await;
    if let Some(trouble) = episode.trouble {
        begin(world, trouble).await;
    }
    sleep(episode.hold / 2).await;
    if let Some(strike) = episode.strike {
        carry_out(world, strike, episode).await;
    }
    sleep(episode.hold / 2).await;
    match episode.trouble {
        Some(Trouble::Queue(_)) => world.queue_faults.clear_all(),
        Some(Trouble::DiskFull) => world.disk.free(),
        Some(Trouble::FolderAway) => world.disk.bring_back(),
        None => {}
    }
    world.host.look();
}

async fn begin(world: &World, trouble: Trouble) {
    match trouble {
        Trouble::DiskFull => world.disk.fill(),
        Trouble::FolderAway => {
            // It is made when the process starts.
            world.host.wait_ready().await;
            world.disk.take_away();
        }
        Trouble::Queue(Kind::QueueRecreated) => world.recreate_queue().await,
        Trouble::Queue(Kind::QueueHangs) => {
            for (action, fault) in of_queue(Kind::QueueHangs) {
                world.queue_faults.times(action, 4, fault);
            }
        }
        Trouble::Queue(kind) => {
            for (action, fault) in of_queue(kind) {
                world.queue_faults.always(action, fault);
            }
        }
    }
}

async fn carry_out(world: &World, strike: Strike, episode: Episode) {
    let host = &world.host;
    match strike {
        Strike::Kill => {
            host.kill().await;
            host.start_again();
        }
        Strike::KillInSnapshot => {
            host.wait_alive().await;
            host.signal(Signal::SIGUSR1);
            sleep(episode.moment).await;
            host.kill().await;
            host.start_again();
        }
        Strike::KillTwice => {
            host.kill().await;
            host.start_again();
            sleep(episode.moment * 20).await;
            host.kill().await;
            host.start_again();
        }
        Strike::Freeze => {
            host.signal(Signal::SIGSTOP);
            // At times longer than the visibility timeout.
            sleep(episode.moment * 100).await;
            host.signal(Signal::SIGCONT);
        }
        Strike::Term => {
            // Before its handler of signals is there, SIGTERM ends it by itself.
            host.wait_alive().await;
            host.term(episode.trouble.is_none()).await;
            host.start_again();
        }
    }
}
