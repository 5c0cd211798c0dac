//! What goes wrong, in an order and for spans of time that the seed gives.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::time::sleep;

use crate::world::World;
use testkit::{Fault, Redis};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    RedisRestarted,
    RedisLostItsData,
    RedisFrozen,
    RedisLoading,
    RedisReadOnly,
    RedisFull,
    RedisRefusesBriefly,
    RedisScriptsFlushed,
    RedisPasswordChanged,
    LinkCut,
    LinkReset,
    LinkHalfOpen,
    LinkDelayed,
    LinkTrickles,
    QueueServerErrors,
    QueueThrottles,
    QueueHangs,
    QueueResets,
    QueueMalformed,
    QueueCredentialsExpired,
    QueueAnswersLost,
    DeleteAnswersLost,
    DeleteEntriesFail,
    ReceiptsExpired,
    QueueRecreated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkerFault {
    Term,
    Kill,
    Freeze,
    ScaleUp,
    ScaleDown,
}

use Kind::*;

const REDIS: [Kind; 14] = [
    RedisRestarted,
    RedisLostItsData,
    RedisFrozen,
    RedisLoading,
    RedisReadOnly,
    RedisFull,
    RedisRefusesBriefly,
    RedisScriptsFlushed,
    RedisPasswordChanged,
    LinkCut,
    LinkReset,
    LinkHalfOpen,
    LinkDelayed,
    LinkTrickles,
];
pub const QUEUE: [Kind; 11] = [
    QueueServerErrors,
    QueueThrottles,
    QueueHangs,
    QueueResets,
    QueueMalformed,
    QueueCredentialsExpired,
    QueueAnswersLost,
    DeleteAnswersLost,
    DeleteEntriesFail,
    ReceiptsExpired,
    QueueRecreated,
];

/// One fault, or one of Redis and one of the queue at once.
#[derive(Debug, Clone)]
pub struct Episode {
    pub faults: Vec<Planned>,
    pub pause: Duration,
}

#[derive(Debug, Clone, Copy)]
pub struct Planned {
    pub kind: Kind,
    pub hold: Duration,
    /// For a link: that of one worker alone, or those of all.
    pub alone: Option<usize>,
    /// Workers are killed during it, with messages in flight: one of them, or all that no other fault concerns.
    pub strike: Option<Strike>,
}

#[derive(Debug, Clone, Copy)]
pub enum Strike {
    One,
    All,
}

impl Kind {
    pub fn is_of_redis(self) -> bool {
        REDIS.contains(&self)
    }

    pub fn name(self) -> String {
        spaced(&format!("{self:?}"))
    }

    fn hold(self, rng: &mut Rng) -> Duration {
        let ms = match self {
            // Longer than every timeout of a Redis call and than the queue's visibility timeout.
            RedisFrozen => 6_000..7_500,
            LinkHalfOpen => 3_500..6_500,
            RedisScriptsFlushed | LinkReset => 0..1,
            RedisLoading => 200..400,
            // Several times within it.
            RedisRefusesBriefly => 4_000..6_000,
            QueueHangs | QueueCredentialsExpired => 1_500..2_500,
            _ => 1_000..2_800,
        };
        Duration::from_millis(rng.u64(ms))
    }
}

pub fn spaced(name: &str) -> String {
    let mut spaced = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !spaced.is_empty() {
            spaced.push(' ');
        }
        spaced.extend(letter.to_lowercase());
    }
    spaced
}

/// Deals every kind once before it repeats one.
pub struct Deck {
    rng: Rng,
    redis: Vec<Kind>,
    queue: Vec<Kind>,
}

impl Deck {
    pub fn new(seed: u64) -> Deck {
        Deck {
            rng: Rng::with_seed(seed ^ 0xfa_0175),
            redis: Vec::new(),
            queue: Vec::new(),
        }
    }

    fn deal(&mut self, of_redis: bool, wiped: &mut bool) -> Planned {
        let (deck, all): (&mut Vec<Kind>, &[Kind]) = if of_redis {
            (&mut self.redis, &REDIS)
        } else {
            (&mut self.queue, &QUEUE)
        };
        if deck.is_empty() {
            deck.extend(all);
            self.rng.shuffle(deck);
        }
        // Once a round at most; more would leave the model little to be strict about.
        let blocked = |kind: &Kind| *kind == RedisLostItsData && *wiped;
        let place = deck.iter().rposition(|kind| !blocked(kind));
        let kind = place.map_or(RedisRestarted, |place| deck.remove(place));
        *wiped |= kind == RedisLostItsData;
        Planned {
            kind,
            hold: kind.hold(&mut self.rng),
            alone: (self.rng.u32(0..3) == 0).then(|| self.rng.usize(0..2)),
            strike: match self.rng.u32(0..4) {
                0 => Some(Strike::One),
                1 => Some(Strike::All),
                _ => None,
            },
        }
    }

    /// In each round Redis refuses briefly at least once: five times in a row.
    pub fn round(&mut self, count: usize) -> Vec<Episode> {
        let mut wiped = false;
        let mut episodes: Vec<Episode> = (1..count)
            .map(|_| {
                let mut faults = Vec::new();
                match self.rng.u32(0..10) {
                    0..5 => faults.push(self.deal(true, &mut wiped)),
                    5..8 => faults.push(self.deal(false, &mut wiped)),
                    _ => {
                        faults.push(self.deal(true, &mut wiped));
                        faults.push(self.deal(false, &mut wiped));
                    }
                }
                Episode {
                    faults,
                    pause: Duration::from_millis(self.rng.u64(200..900)),
                }
            })
            .collect();
        let brief = Planned {
            kind: RedisRefusesBriefly,
            hold: RedisRefusesBriefly.hold(&mut self.rng),
            alone: None,
            strike: None,
        };
        let place = self.rng.usize(0..count);
        episodes.insert(
            place,
            Episode {
                faults: vec![brief],
                pause: Duration::from_millis(300),
            },
        );
        episodes
    }
}

/// Begins a fault, holds it and ends it.
pub async fn inflict(world: &World, planned: Planned) {
    let of_redis = u64::from(planned.kind.is_of_redis());
    if of_redis > 0 {
        // A queue with few messages is empty at once; the fault is to find everyone at work.
        world.surge.store(250, Ordering::SeqCst);
        sleep(Duration::from_millis(120)).await;
    }
    world.redis_ails.fetch_add(of_redis, Ordering::SeqCst);
    tokio::join!(carry_out(world, planned), strike(world, planned));
    world.redis_ails.fetch_sub(of_redis, Ordering::SeqCst);
}

/// What is acknowledged too soon, or kept nowhere but in memory, is lost now.
async fn strike(world: &World, planned: Planned) {
    let Some(strike) = planned.strike.filter(|_| planned.kind.is_of_redis()) else {
        return;
    };
    if planned.hold < Duration::from_millis(100) {
        return;
    }
    sleep((planned.hold / 2).min(Duration::from_millis(700))).await;
    let mut struck = world.fleet.unclaimed();
    if matches!(strike, Strike::One) {
        struck.truncate(1);
    }
    // All at once: while one is being killed, no other fault may choose another of them.
    struck.retain(|slot| world.fleet.claim(*slot));
    for slot in &struck {
        world.fleet.kill(*slot).await;
    }
    for slot in struck {
        world.fleet.start(slot, world.now());
        world.fleet.release(slot);
    }
}

async fn carry_out(world: &World, planned: Planned) {
    let Planned {
        kind, hold, alone, ..
    } = planned;
    let redis = &world.redis;
    let links = || match alone {
        Some(slot) => vec![world.fleet.link(slot)],
        None => (0..crate::fleet::MAX_SIZE)
            .map(|slot| world.fleet.link(slot))
            .collect(),
    };
    match kind {
        RedisRestarted => {
            redis.kill();
            sleep(hold).await;
            redis.restart().await;
        }
        RedisLostItsData => lose_data(world, hold).await,
        RedisFrozen => {
            redis.freeze();
            sleep(hold).await;
            redis.thaw();
        }
        RedisLoading => load_slowly(world, hold).await,
        RedisReadOnly => {
            // Nobody listens there, so it keeps what it has.
            redis.cmd(&["REPLICAOF", "127.0.0.1", "1"]);
            sleep(hold).await;
            redis.cmd(&["REPLICAOF", "NO", "ONE"]);
        }
        RedisRefusesBriefly => refuse_briefly(redis, hold).await,
        RedisFull => {
            redis.cmd(&["CONFIG", "SET", "maxmemory", "1"]);
            sleep(hold).await;
            redis.cmd(&["CONFIG", "SET", "maxmemory", "0"]);
        }
        RedisScriptsFlushed => {
            redis.cmd(&["SCRIPT", "FLUSH"]);
        }
        RedisPasswordChanged => {
            let mut conn = redis.conn();
            let mut say = |words: &[&str]| {
                redis::Cmd::new()
                    .arg(words)
                    .query::<redis::Value>(&mut conn)
                    .unwrap();
            };
            say(&["CONFIG", "SET", "requirepass", "another"]);
            say(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
            sleep(hold).await;
            say(&["CONFIG", "SET", "requirepass", ""]);
        }
        LinkCut => {
            for link in links() {
                link.cut().await;
            }
            sleep(hold).await;
            restore(links()).await;
        }
        LinkReset => {
            for link in links() {
                link.reset().await;
            }
        }
        LinkHalfOpen => {
            links().iter().for_each(|link| link.blackhole());
            sleep(hold).await;
            restore(links()).await;
        }
        LinkDelayed => {
            links()
                .iter()
                .for_each(|link| link.delay(Duration::from_millis(150)));
            sleep(hold).await;
            restore(links()).await;
        }
        LinkTrickles => {
            links().iter().for_each(|link| link.trickle(30_000));
            sleep(hold).await;
            restore(links()).await;
        }
        QueueRecreated => {
            world.recreate_queue().await;
        }
        _ => {
            let faults = &world.queue_faults;
            for (action, fault) in of_queue(kind) {
                match kind {
                    // What hangs goes on hanging until its client gives up, so not everyone's.
                    QueueHangs => {
                        world.queue_hangs();
                        faults.times(action, 4, fault);
                    }
                    _ => faults.always(action, fault),
                }
            }
            sleep(hold).await;
            faults.clear_all();
        }
    }
}

const RECEIVE: &str = "ReceiveMessage";
const DELETE: &str = "DeleteMessageBatch";
const VISIBILITY: &str = "ChangeMessageVisibilityBatch";

pub fn of_queue(kind: Kind) -> Vec<(&'static str, Fault)> {
    let all = |fault: Fault| {
        [RECEIVE, DELETE, VISIBILITY, "GetQueueAttributes"].map(|action| (action, fault.clone()))
    };
    match kind {
        QueueServerErrors => all(Fault::server_error()).into(),
        QueueThrottles => all(Fault::throttle()).into(),
        QueueHangs => all(Fault::Hang).into(),
        QueueResets => all(Fault::Reset).into(),
        QueueMalformed => all(Fault::malformed()).into(),
        QueueCredentialsExpired => all(Fault::expired_token()).into(),
        QueueAnswersLost => vec![(RECEIVE, Fault::LoseAnswer)],
        DeleteAnswersLost => vec![(DELETE, Fault::LoseAnswer)],
        DeleteEntriesFail => vec![
            (DELETE, Fault::fail_entries(&[0, 2, 3, 7], false)),
            (VISIBILITY, Fault::fail_entries(&[0], false)),
        ],
        _ => vec![
            (DELETE, Fault::fail_all_entries(true)),
            (VISIBILITY, Fault::fail_all_entries(true)),
        ],
    }
}

async fn restore(links: Vec<&testkit::TcpProxy>) {
    for link in links {
        link.restore().await;
    }
}

/// Refuses writes at once, for less than a second, again and again: full or read-only by turns. Receives that are under
/// way bring messages meanwhile.
async fn refuse_briefly(redis: &Redis, hold: Duration) {
    const TIMES: u32 = 5;
    for time in 0..TIMES {
        let (refuse, allow): (&[&str], &[&str]) = match time % 2 {
            0 => (
                &["CONFIG", "SET", "maxmemory", "1"],
                &["CONFIG", "SET", "maxmemory", "0"],
            ),
            _ => (
                &["REPLICAOF", "127.0.0.1", "1"],
                &["REPLICAOF", "NO", "ONE"],
            ),
        };
        redis.cmd(refuse);
        sleep(hold / TIMES * 2 / 3).await;
        redis.cmd(allow);
        sleep(hold / TIMES / 3).await;
    }
}

async fn lose_data(world: &World, hold: Duration) {
    let redis = &world.redis;
    let folder: Vec<String> =
        redis::from_redis_value(redis.cmd(&["CONFIG", "GET", "dir"])).unwrap();
    world.drain_dead_letters().await;
    let from = world.now();
    redis.kill();
    std::fs::remove_dir_all(std::path::Path::new(&folder[1]).join("appendonlydir")).unwrap();
    sleep(hold).await;
    redis.restart().await;
    world.lost_data(from);
}

/// Killed, and slow to read its file: it answers, but nothing other than LOADING.
async fn load_slowly(world: &World, hold: Duration) {
    let redis = &world.redis;
    // What is left in the file is about one entry a key.
    redis.cmd(&["BGREWRITEAOF"]);
    while redis.info("aof_rewrite_in_progress") != "0" || redis.info("aof_rewrite_scheduled") != "0"
    {
        sleep(Duration::from_millis(50)).await;
    }
    let keys: u64 = redis::from_redis_value(redis.cmd(&["DBSIZE"])).unwrap();
    // Each pause takes about 60 us more than asked for.
    let pause = (2_500_000 / keys.max(1))
        .saturating_sub(60)
        .clamp(1, 10_000);
    redis.kill();
    std::fs::write(
        &world.redis_options,
        format!("key-load-delay {pause}\nloading-process-events-interval-bytes 4096\n"),
    )
    .unwrap();
    sleep(hold).await;
    redis.restart().await;
    std::fs::write(&world.redis_options, "").unwrap();
    redis.cmd(&["CONFIG", "SET", "key-load-delay", "0"]);
}

/// The workers' own faults, for as long as the others go on.
pub struct WorkerFaults {
    rng: Rng,
    deck: Vec<WorkerFault>,
}

impl WorkerFaults {
    pub fn new(seed: u64) -> WorkerFaults {
        WorkerFaults {
            rng: Rng::with_seed(seed ^ 0x40_4e4e),
            deck: Vec::new(),
        }
    }

    /// Often the worst moment: Redis fails, and all workers have messages in flight.
    async fn wait_for_trouble(&mut self, world: &World) {
        let began = Instant::now();
        while world.redis_ails.load(Ordering::SeqCst) == 0 {
            if began.elapsed() > Duration::from_secs(6) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        sleep(Duration::from_millis(self.rng.u64(200..900))).await;
    }

    /// Inflicts the next one, on one worker.
    pub async fn next(&mut self, world: &World) -> WorkerFault {
        use WorkerFault::*;
        sleep(Duration::from_millis(self.rng.u64(400..2_200))).await;
        if self.deck.is_empty() {
            self.deck = vec![Term, Term, Kill, Freeze, ScaleUp, ScaleDown];
            self.rng.shuffle(&mut self.deck);
        }
        let fault = self.deck.pop().unwrap_or(Term);
        if fault == Term && self.rng.bool() {
            self.wait_for_trouble(world).await;
        }
        let fleet = &world.fleet;
        let running = fleet.running();
        let chance = self.rng.f64();
        let unclaimed = fleet.unclaimed();
        // Those that are being killed in the midst of another fault are left alone.
        let Some(&one) = unclaimed.get((chance * unclaimed.len() as f64) as usize) else {
            return fault;
        };
        if !fleet.claim(one) {
            return fault;
        }
        match fault {
            Term => {
                fleet.term(one, || world.queue_hung()).await;
                sleep(Duration::from_millis(self.rng.u64(0..800))).await;
                fleet.start(one, world.now());
            }
            Kill => {
                fleet.kill(one).await;
                sleep(Duration::from_millis(self.rng.u64(0..800))).await;
                fleet.start(one, world.now());
            }
            Freeze => {
                fleet.freeze(one);
                // Longer than the visibility timeout.
                sleep(Duration::from_millis(self.rng.u64(5_000..7_000))).await;
                fleet.thaw(one);
            }
            ScaleUp => {
                if let Some(slot) = fleet.vacant() {
                    fleet.start(slot, world.now());
                }
            }
            ScaleDown => {
                if running.len() > 2 {
                    fleet.term(one, || world.queue_hung()).await;
                }
            }
        }
        fleet.release(one);
        fault
    }
}
