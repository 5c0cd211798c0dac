//! An SDK process as a second writer: the algorithm of `RedisCacheService.setCustomer` of
//! `@stigg/node-server-sdk` 3.95 step by step. It takes the lock, reads the timestamps, compares, writes what is not
//! older in one MULTI, and gives the lock back by compare-and-delete. It talks to Redis directly, and suffers what Redis suffers.
//!
//! One thing is added, for the model only: the MULTI also reads the lock, which tells whether it was still held.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fastrand::Rng;
use redis::{Connection, RedisError, RedisResult, Value};

use crate::model::{Fact, Item};
use crate::story::{Owner, Story};
use crate::world::World;
use testkit::Redis;

/// Also the SDK's own.
const LOCK_MS: u64 = 5_000;
const TTL_SECS: u64 = 7 * 24 * 60 * 60;
const RETRIES: u32 = 10;
/// Its facts are told apart from those of the queue by their numbers.
const FIRST_SEQ: u64 = 1 << 40;

#[derive(Default)]
pub struct Counts {
    pub written: AtomicU64,
    pub stale: AtomicU64,
    pub refused: AtomicU64,
    pub doubtful: AtomicU64,
    pub lock_taken: AtomicU64,
}

pub struct Writers {
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

struct Shared {
    paused: AtomicBool,
    stopped: AtomicBool,
    busy: AtomicU64,
}

impl Writers {
    pub fn start(world: &Arc<World>, count: u64, seed: u64) -> Writers {
        let shared = Arc::new(Shared {
            paused: AtomicBool::new(true),
            stopped: AtomicBool::new(false),
            busy: AtomicU64::new(0),
        });
        let threads = (0..count)
            .map(|number| {
                let (world, shared) = (world.clone(), shared.clone());
                let rng = Rng::with_seed(seed ^ (0x5d_0000 + number));
                thread::spawn(move || {
                    let seq = FIRST_SEQ * (number + 1);
                    Writer {
                        world,
                        rng,
                        seq,
                        conn: None,
                    }
                    .run(&shared);
                })
            })
            .collect();
        Writers { threads, shared }
    }

    pub fn resume(&self) {
        self.shared.paused.store(false, Ordering::SeqCst);
    }

    /// Waits until none of them is at work.
    pub async fn pause(&self) {
        self.shared.paused.store(true, Ordering::SeqCst);
        while self.shared.busy.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn stop(self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

struct Writer {
    world: Arc<World>,
    rng: Rng,
    seq: u64,
    conn: Option<Connection>,
}

impl Writer {
    fn run(mut self, shared: &Shared) {
        while !shared.stopped.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(self.rng.u64(10..60)));
            shared.busy.fetch_add(1, Ordering::SeqCst);
            if !shared.paused.load(Ordering::SeqCst) && self.write().is_err() {
                // A client of ours would reconnect by itself.
                self.conn = None;
                thread::sleep(Duration::from_millis(100));
            }
            shared.busy.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn write(&mut self) -> RedisResult<()> {
        let world = self.world.clone();
        let counts = &world.sdk;
        // Often someone of whom a message is just coming, who then finds the lock taken.
        let upcoming = match self.rng.u32(0..3) {
            0 => None,
            _ => {
                let upcoming = world.upcoming.lock().unwrap();
                self.rng.choice(upcoming.iter()).copied()
            }
        };
        let (owner, now) = upcoming.unwrap_or_else(|| {
            let now = world.clock.load(Ordering::SeqCst);
            (self.rng.usize(0..world.common), now)
        });
        // What the API says now; or said a little ago, when the answer was long under way.
        let at = now - self.rng.u64(0..400) * self.rng.u64(0..3).min(1);
        let set = Story::refetched(&mut self.rng, owner, at);
        self.seq += 1;
        let seq = self.seq;
        let (entitlements, usages) = (set.entitlements(seq), set.usages(seq));
        let of_owner = &world.owners[owner];
        let lock = of_owner.lock();
        let token = format!("{:032x}", self.rng.u128(..));

        let from = world.now();
        let conn = match &mut self.conn {
            Some(conn) => conn,
            none => none.insert(world.redis.try_conn()?),
        };
        if !acquire(conn, &lock, &token, &mut self.rng)? {
            counts.lock_taken.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let prefix = of_owner.key();
        let mut items: Vec<(String, u64, Arc<str>, Option<Item>)> =
            vec![(prefix.clone(), at, entitlements.clone(), None)];
        for item in usages {
            let key = format!("{prefix}{}", item.of.suffix());
            items.push((key, item.at, item.value.clone(), Some(item)));
        }
        let stamps: Vec<Option<String>> = redis::cmd("MGET")
            .arg(
                items
                    .iter()
                    .map(|item| format!("{}#timestamp", item.0))
                    .collect::<Vec<_>>(),
            )
            .query(conn)?;
        // The moment in which a writer that ignores the lock would be overwritten.
        let gap = match upcoming {
            Some(_) => self.rng.u64(50..500),
            None => self.rng.u64(0..5),
        };
        thread::sleep(Duration::from_millis(gap));
        let mut multi = redis::pipe();
        multi.atomic().cmd("GET").arg(&lock);
        let mut written = Vec::new();
        let mut sets_entitlements = false;
        for ((key, at, value, item), stamp) in items.into_iter().zip(stamps) {
            let stored: Option<u64> = stamp.and_then(|stamp| stamp.parse().ok());
            if stored.is_none_or(|stored| stored <= at) {
                let expiry = ("EX", TTL_SECS);
                multi
                    .cmd("SET")
                    .arg(&key)
                    .arg(&*value)
                    .arg(expiry.0)
                    .arg(expiry.1);
                multi
                    .cmd("SET")
                    .arg(format!("{key}#timestamp"))
                    .arg(at)
                    .arg(expiry.0)
                    .arg(expiry.1);
                sets_entitlements |= item.is_none();
                written.extend(item);
            }
        }
        if !sets_entitlements && written.is_empty() {
            counts.stale.fetch_add(1, Ordering::Relaxed);
            return release(conn, &lock, &token);
        }
        let answer: RedisResult<Vec<Value>> = multi.query(conn);
        let to = world.now();
        let fenced = match &answer {
            Ok(values) => {
                let holder: Option<String> = values
                    .first()
                    .and_then(|value| redis::from_redis_value(value.clone()).ok());
                holder.as_deref() == Some(&token)
            }
            Err(error) if is_refusal(error) => {
                counts.refused.fetch_add(1, Ordering::Relaxed);
                return answer.map(drop);
            }
            Err(_) => false,
        };
        let count = if fenced {
            &counts.written
        } else {
            &counts.doubtful
        };
        count.fetch_add(1, Ordering::Relaxed);
        // A write in doubt may still be carried out until the end of the round.
        let to = if answer.is_ok() { to } else { i64::MAX };
        let mut model = world.model();
        if sets_entitlements {
            model.tell(
                owner,
                Fact::Sdk {
                    at,
                    entitlements,
                    usages: written,
                    fenced,
                },
                from,
                to,
                seq,
            );
        } else {
            for item in written {
                let fact = Fact::SdkUsage { item, fenced };
                model.tell(owner, fact, from, to, seq);
            }
        }
        drop(model);
        answer?;
        release(conn, &lock, &token)
    }
}

/// Redlock's: once, and then ten times with a jittered pause.
fn acquire(conn: &mut Connection, lock: &str, token: &str, rng: &mut Rng) -> RedisResult<bool> {
    for attempt in 0..=RETRIES {
        let answer: Option<String> = redis::cmd("SET")
            .arg(lock)
            .arg(token)
            .arg("NX")
            .arg("PX")
            .arg(LOCK_MS)
            .query(conn)?;
        if answer.is_some() {
            return Ok(true);
        }
        if attempt < RETRIES {
            thread::sleep(Duration::from_millis(rng.u64(100..300)));
        }
    }
    Ok(false)
}

fn release(conn: &mut Connection, lock: &str, token: &str) -> RedisResult<()> {
    const SCRIPT: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";
    redis::cmd("EVAL")
        .arg(SCRIPT)
        .arg(1)
        .arg(lock)
        .arg(token)
        .query::<i64>(conn)
        .map(drop)
}

/// Redis refused the command before it did anything.
fn is_refusal(error: &RedisError) -> bool {
    let text = error.to_string();
    ["EXECABORT", "READONLY", "OOM", "NOAUTH", "LOADING"]
        .iter()
        .any(|code| text.contains(code))
}

/// Loads one owner as an SDK process does after a miss, while no other process writes.
pub fn load(redis: &Redis, owner: &Owner, fact: &Fact) -> RedisResult<()> {
    let Fact::Sdk {
        at,
        entitlements,
        usages,
        ..
    } = fact
    else {
        return Ok(());
    };
    let mut conn = redis.try_conn()?;
    let (lock, prefix) = (owner.lock(), owner.key());
    while !acquire(&mut conn, &lock, "a-load", &mut Rng::new())? {}
    let mut items = vec![(prefix.clone(), *at, entitlements.clone())];
    for item in usages {
        let key = format!("{prefix}{}", item.of.suffix());
        items.push((key, item.at, item.value.clone()));
    }
    let mut multi = redis::pipe();
    multi.atomic();
    for (key, at, value) in items {
        let stamp = format!("{key}#timestamp");
        let stored: Option<u64> = redis::cmd("GET").arg(&stamp).query(&mut conn)?;
        if stored.is_none_or(|stored| stored <= at) {
            let options = ("EX", TTL_SECS);
            multi.cmd("SET").arg(key).arg(&*value).arg(options);
            multi.cmd("SET").arg(stamp).arg(at).arg(options);
        }
    }
    multi.query::<()>(&mut conn)?;
    release(&mut conn, &lock, "a-load")
}
