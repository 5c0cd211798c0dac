//! What is measured, and how.

mod drain;
mod sharing;

pub use drain::{Drained, Scale};
pub use sharing::{Bodies, Shared};

use std::collections::HashMap;
use std::io::BufRead;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use tokio::runtime::Runtime;

use crate::Tools;
use crate::contestants::{Contestant, Kind};
use bench::servers::{QueueServer, Redis};
use testkit::mix;

pub struct Bench {
    pub tools: Tools,
    pub runtime: Runtime,
    pub queue: QueueServer,
    pub redis: Redis,
    pub corpus: PathBuf,
    pub messages: usize,
    pub warm: Duration,
    pub window: Duration,
    /// Set while a drain is looked at.
    pub in_window: Arc<AtomicBool>,
    queues: u32,
}

/// Of a steady load.
#[derive(Debug, Clone, Copy)]
pub struct Steady {
    pub ready_ms: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// Share of one core.
    pub cpu_share: f64,
}

/// Of a process without work.
#[derive(Debug, Clone)]
pub struct Idle {
    /// Shares of one core, in slices of the time.
    pub cpu_share: Vec<f64>,
    pub rss_mb: f64,
    /// If the time was long enough to tell: a long poll lasts 20 s.
    pub receives_per_minute: Option<f64>,
}

impl Bench {
    pub fn new(
        tools: Tools,
        runtime: Runtime,
        corpus: PathBuf,
        messages: usize,
        warm: Duration,
        window: Duration,
    ) -> Result<Self> {
        Ok(Self {
            queue: QueueServer::start(&tools.node, &tools.peers, &tools.installed)?,
            redis: Redis::start()?,
            tools,
            runtime,
            corpus,
            messages,
            warm,
            window,
            in_window: Arc::default(),
            queues: 0,
        })
    }

    fn new_queue(&mut self) -> Result<String> {
        self.new_queue_of(&self.corpus.clone(), 0)
    }

    fn new_queue_of(&mut self, corpus: &Path, messages: usize) -> Result<String> {
        self.queues += 1;
        let name = format!("bench-{}", self.queues);
        self.queue.fill(&name, corpus, messages)?;
        Ok(name)
    }

    /// 200 messages a second into an empty queue; each is of a customer of its own, and seen when
    /// that customer's key is set. The floor sets none: it tells what it received.
    pub fn steady(&mut self, contestant: Contestant, lasting: Duration) -> Result<Steady> {
        const EVERY: Duration = Duration::from_millis(5);
        self.redis.reset(0)?;
        let queue = self.new_queue()?;
        let way = self.queue.address;
        let watch = self.redis.watch()?;
        let stop = watch.get_ref().try_clone()?;
        let seen = Arc::new(Mutex::new(HashMap::new()));
        let watching = {
            let seen = seen.clone();
            std::thread::spawn(move || {
                for line in watch.lines().map_while(Result::ok) {
                    let number = line.strip_prefix("production:c_probe-");
                    if let Some(number) = number.and_then(|it| it.parse::<u32>().ok()) {
                        lock(&seen).entry(number).or_insert_with(now_us);
                    }
                }
            })
        };
        let running = contestant.start(&self.tools, &queue, way, self.redis.port, true)?;
        let ready = running.ready()?;
        std::thread::sleep(Duration::from_millis(500));

        let client = client(way);
        let url = format!("http://{way}/000000000000/{queue}");
        let count = (lasting.as_micros() / EVERY.as_micros()) as u32;
        let before = (Instant::now(), running.usage()?);
        let sent: Vec<(u32, String, u64)> = self.runtime.block_on(async {
            let mut tick = tokio::time::interval(EVERY);
            let mut sends = tokio::task::JoinSet::new();
            for number in 0..count {
                tick.tick().await;
                let call = client
                    .send_message()
                    .queue_url(&url)
                    .message_body(mix::probe(&format!("probe-{number}")));
                sends.spawn(async move {
                    let at = now_us();
                    let id = call.send().await.ok().and_then(|answer| answer.message_id);
                    (number, id.unwrap_or_default(), at)
                });
            }
            sends.join_all().await
        });
        std::thread::sleep(Duration::from_millis(300));
        let cpu = (running.usage()?.cpu - before.1.cpu).as_secs_f64();
        let cpu_share = cpu / before.0.elapsed().as_secs_f64();
        let told: HashMap<String, u64> = running
            .lines()
            .iter()
            .filter_map(|line| {
                let (id, at) = line.split_once(' ')?;
                Some((id.to_owned(), at.parse().ok()?))
            })
            .collect();
        drop(running);
        // The watching thread ends with its stream.
        let _ = stop.shutdown(std::net::Shutdown::Both);
        let _ = watching.join();
        self.redis.unwatch()?;
        self.queue.drop(&queue)?;

        let seen = lock(&seen);
        let mut took: Vec<f64> = sent
            .iter()
            .filter_map(|(number, id, sent)| {
                let at = match contestant.kind {
                    Kind::Floor => told.get(id)?,
                    _ => seen.get(number)?,
                };
                Some(at.saturating_sub(*sent) as f64 / 1e3)
            })
            .collect();
        if took.len() < sent.len() * 99 / 100 {
            bail!(
                "{contestant:?}: of {} messages only {} were seen",
                sent.len(),
                took.len()
            );
        }
        took.sort_by(f64::total_cmp);
        let quantile = |share: f64| took[((took.len() - 1) as f64 * share).round() as usize];
        Ok(Steady {
            ready_ms: ready.as_secs_f64() * 1e3,
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            cpu_share,
        })
    }

    /// All contestants side by side, each on an empty queue of its own.
    pub fn idle(&mut self, contestants: &[Contestant], lasting: Duration) -> Result<Vec<Idle>> {
        const SLICES: u32 = 5;
        let mut running = Vec::new();
        for contestant in contestants {
            let queue = self.new_queue()?;
            let way = self.queue.address;
            let one = contestant.start(&self.tools, &queue, way, self.redis.port, false)?;
            one.ready()?;
            running.push((queue, one));
        }
        // What follows a start is over by then.
        std::thread::sleep(Duration::from_secs(2));
        let mut idle = Vec::new();
        let mut first = Vec::new();
        let mut last = Vec::new();
        for (queue, one) in &running {
            first.push(self.receives(queue)?);
            last.push(one.usage()?.cpu);
            idle.push(Idle {
                cpu_share: Vec::new(),
                rss_mb: 0.0,
                receives_per_minute: None,
            });
        }
        for _ in 0..SLICES {
            let slice = lasting / SLICES;
            std::thread::sleep(slice);
            for (at, (_, one)) in running.iter().enumerate() {
                let usage = one.usage()?;
                let share = (usage.cpu - last[at]).as_secs_f64() / slice.as_secs_f64();
                idle[at].cpu_share.push(share);
                idle[at].rss_mb = usage.rss_kib as f64 / 1024.0;
                last[at] = usage.cpu;
            }
        }
        for (at, (queue, _)) in running.iter().enumerate() {
            let receives = (self.receives(queue)? - first[at]) as f64;
            let minutes = lasting.as_secs_f64() / 60.0;
            idle[at].receives_per_minute = (minutes >= 1.0).then_some(receives / minutes);
        }
        for (queue, one) in running {
            drop(one);
            self.queue.drop(&queue)?;
        }
        Ok(idle)
    }

    fn receives(&mut self, queue: &str) -> Result<u64> {
        let calls = self.queue.counts(queue)?.calls;
        Ok(calls.get("ReceiveMessage").copied().unwrap_or_default())
    }

    /// The median time of a short call over this way.
    pub fn round_trip(&mut self, way: SocketAddr) -> Result<Duration> {
        let queue = self.new_queue()?;
        let client = client(way);
        let url = format!("http://{way}/000000000000/{queue}");
        let mut took = Vec::new();
        for _ in 0..25 {
            let started = Instant::now();
            let call = client.receive_message().queue_url(&url).send();
            self.runtime.block_on(call).context("a short call failed")?;
            took.push(started.elapsed());
        }
        took.sort();
        self.queue.drop(&queue)?;
        Ok(took[took.len() / 2])
    }
}

fn client(way: SocketAddr) -> Client {
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .endpoint_url(format!("http://{way}"))
        .credentials_provider(Credentials::new("bench", "bench", None, None, "bench"))
        .build();
    Client::from_conf(config)
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_micros() as u64
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
