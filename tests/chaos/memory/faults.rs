//! What goes wrong, in an order and for spans of time that the seed gives.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;
use testkit::Signal;
use tokio::time::sleep;

use super::world::{VISIBILITY, World};
use crate::faults::{Kind, QUEUE, of_queue, spaced};

/// To the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strike {
    Kill,
    /// Right after SIGUSR1: a snapshot is being written.
    KillInSnapshot,
    /// Soon after the start: it is being restored, or the journal is begun.
    KillTwice,
    /// While the disk is full: changes that were answered are gone with the process, and in flight to it.
    KillBeforeSync,
    /// The same, and the next process ends in order before the messages in flight to the killed one are back.
    KillBeforeSyncThenTerm,
    Freeze,
    Term,
}

/// To what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    Queue(Kind),
    DiskFull,
    FolderAway,
    /// The wall clock of the process jumps forward and back, by minutes.
    ClockJumps,
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

/// Deals every kind once before it repeats one.
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
            use Strike::{
                Freeze, Kill, KillBeforeSync, KillBeforeSyncThenTerm, KillInSnapshot, KillTwice,
                Term,
            };
            self.strikes = vec![
                Kill,
                Kill,
                KillInSnapshot,
                KillInSnapshot,
                KillTwice,
                Freeze,
                Term,
            ];
            if disk_can_be_full {
                self.strikes.extend([KillBeforeSync; 2]);
                self.strikes.push(KillBeforeSyncThenTerm);
            }
            rng.shuffle(&mut self.strikes);
        }
        if self.troubles.is_empty() {
            self.troubles = QUEUE.map(Trouble::Queue).into();
            self.troubles.extend([Trouble::FolderAway; 2]);
            self.troubles.extend([Trouble::ClockJumps; 2]);
            if disk_can_be_full {
                self.troubles.extend([Trouble::DiskFull; 3]);
            }
            rng.shuffle(&mut self.troubles);
        }
        let mut strike = (which != 1).then(|| self.strikes.pop()).flatten();
        let trouble = match strike {
            // It fills the disk itself, and the queue must answer.
            Some(Strike::KillBeforeSync | Strike::KillBeforeSyncThenTerm) => {
                Some(Trouble::ClockJumps)
            }
            _ => (which != 0).then(|| self.troubles.pop()).flatten(),
        };
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
    if episode.trouble != Some(Trouble::ClockJumps) {
        return hold(world, episode).await;
    }
    tokio::select! {
        () = hold(world, episode) => {}
        () = jump(world, episode) => {}
    }
    world.clock.set_ahead(0);
}

/// Moves the wall clock of the process again and again.
async fn jump(world: &World, episode: Episode) {
    const MOST_SECS: i64 = 10 * 60;
    let mut rng = Rng::with_seed(episode.moment.as_micros() as u64);
    loop {
        world.clock.set_ahead(rng.i64(-MOST_SECS..=MOST_SECS));
        sleep(episode.pause).await;
    }
}

async fn hold(world: &World, episode: Episode) {
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
        Some(Trouble::ClockJumps) | None => {}
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
        // It goes on beside.
        Trouble::ClockJumps => {}
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
        Strike::KillBeforeSync => kill_before_sync(world, false).await,
        Strike::KillBeforeSyncThenTerm => kill_before_sync(world, true).await,
        Strike::Freeze => {
            host.signal(Signal::SIGSTOP);
            // At times longer than the visibility timeout.
            sleep(episode.moment * 150).await;
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

/// Readers see changes that are in no journal; then the process is killed. Until the queue delivers these changes again,
/// no answer about them may be called fresh.
async fn kill_before_sync(world: &World, and_term: bool) {
    const SEEN: Duration = Duration::from_millis(500);
    let turn = world.turn.lock().await;
    world.drained().await;
    world.disk.fill();
    let news = world.story().witnesses();
    world.publish(&news).await;
    world.asks_witnesses.store(true, Ordering::SeqCst);
    sleep(SEEN).await;
    world.host.kill().await;
    world.disk.free();
    world.host.start_again();
    if and_term {
        // Its receives wait for a second now: the one after it begins before the messages are back.
        world.host.wait_alive().await;
        world.host.term(true).await;
        world.host.start_again();
    }
    drop(turn);
    sleep(VISIBILITY).await;
    world.asks_witnesses.store(false, Ordering::SeqCst);
}
