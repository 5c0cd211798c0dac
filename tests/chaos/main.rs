//! The campaign: several workers between one queue and one Redis, all of which fail at random for minutes, and one
//! model that knows what Redis must hold. `script/chaos [--seed N] [--minutes M]`.
//!
//! The seed gives the messages, their order, and the faults with their spans and order. When exactly a fault meets a
//! message depends on the machine, so a failure that a seed has shown once it shows again often, not always.

#![allow(clippy::unwrap_used)]

mod faults;
mod fleet;
mod model;
mod report;
mod story;
mod writer;
/// What the integration tests stand on.
#[path = "../it"]
mod it {
    pub mod support;
}

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{QueueAttributeName, SendMessageBatchRequestEntry};
use clap::Parser;
use tokio::time::sleep;

use faults::{Deck, Kind, WorkerFaults};
use fleet::{Fleet, METRICS};
use it::support::{self, FaultProxy, Redis, Sqs, TestQueue, repo};
use model::{Dump, Fact, Model, Moment};
use report::Report;
use story::{CANARIES, Emission, Owner, PREFIX, Story};
use writer::{Counts, Writers};

#[derive(Parser, Clone)]
#[command(name = "chaos")]
struct Arguments {
    /// The same seed gives the same messages and faults. Without it: a random one, which is printed
    #[arg(long)]
    seed: Option<u64>,
    /// How long, settling included; about
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Log filter of the workers; their logs are kept in target/chaos
    #[arg(long, default_value = "info")]
    log: String,
}

/// Messages a second while faults go on.
const RATE: u64 = 170;
/// Messages in the queue at which publishing waits; the local SQS slows down beyond a few thousand.
const BACKLOG: u64 = 1_300;
const VISIBILITY_SECS: &str = "4";
/// What a round takes beside its faults.
const EPISODES: usize = 9;
const ROUND: f64 = 42.0;
const SETTLING: f64 = 35.0;
/// After a fault of Redis the next message is to be applied sooner than this.
const RECOVERY: Duration = Duration::from_secs(5);
/// The queue must be empty and everyone idle within this after the last fault.
const QUIET: Duration = Duration::from_secs(90);

/// What everyone shares.
pub struct World {
    began: Instant,
    pub redis: Redis,
    /// A file of options that a restarted Redis reads.
    pub redis_options: PathBuf,
    sqs: Sqs,
    queue: TestQueue,
    queue_attributes: Vec<(&'static str, String)>,
    dead: Option<TestQueue>,
    pub queue_faults: FaultProxy,
    pub fleet: Fleet,
    pub owners: Vec<Owner>,
    pub common: usize,
    /// The newest source time that was published.
    pub clock: AtomicU64,
    /// Of whom messages are about to be published, and their times.
    pub upcoming: Mutex<Vec<(usize, u64)>>,
    model: Mutex<Model>,
    pub sdk: Counts,
    /// By marker: invalid messages that are not with the dead letters yet, and those that are.
    invalid: Mutex<BTreeMap<String, Emission>>,
    dead_lettered: Mutex<HashSet<String>>,
    lost_letters: AtomicU64,
    losses: Mutex<Vec<Moment>>,
    /// Valid messages with the dead letters, to be sent again.
    redriven: Mutex<Vec<Emission>>,
    /// All messages of the round by their markers.
    published: Mutex<HashMap<String, Emission>>,
    resend: AtomicBool,
    hung_at: AtomicI64,
    /// Messages to be published at once, whatever the pace.
    pub surge: AtomicU64,
    /// Faults of Redis that go on now.
    pub redis_ails: AtomicU64,
}

impl World {
    pub fn now(&self) -> Moment {
        1 + i64::try_from(self.began.elapsed().as_micros()).unwrap()
    }

    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }

    /// Calls hang from now on; a worker that deletes by one may not end in time.
    pub fn queue_hangs(&self) {
        self.hung_at.store(self.now(), Ordering::SeqCst);
    }

    pub fn queue_hung(&self) -> bool {
        let hung_at = self.hung_at.load(Ordering::SeqCst);
        hung_at > 0 && self.now() - hung_at < 30_000_000
    }

    pub fn lost_data(&self, from: Moment) {
        self.model().lose(from, self.now());
        self.losses.lock().unwrap().push(from);
        if self.dead.is_none() {
            let invalid = std::mem::take(&mut *self.invalid.lock().unwrap());
            self.lost_letters
                .fetch_add(invalid.len() as u64, Ordering::Relaxed);
        }
    }

    /// The messages in it are gone by definition, and are sent again.
    pub async fn recreate_queue(&self) {
        let client = self.sqs.client();
        client
            .delete_queue()
            .queue_url(&self.queue.url)
            .send()
            .await
            .unwrap();
        sleep(Duration::from_millis(400)).await;
        let attributes: Vec<(&str, &str)> = self
            .queue_attributes
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        self.sqs.queue_with(&self.queue.name, &attributes).await;
        self.resend.store(true, Ordering::SeqCst);
    }

    /// Takes the dead letters that are there now into the books.
    pub async fn drain_dead_letters(&self) {
        let mut bodies = Vec::new();
        if let Some(dead) = &self.dead {
            for message in dead.receive_all().await {
                bodies.push(message.body.clone().unwrap_or_default());
                self.sqs
                    .client()
                    .delete_message()
                    .queue_url(&dead.url)
                    .receipt_handle(message.receipt_handle.unwrap_or_default())
                    .send()
                    .await
                    .unwrap();
            }
        }
        // Also there if a worker could not ask yet whether the queue has a dead-letter queue.
        let key = format!("{PREFIX}:dead-letter");
        let answer = self.redis.try_cmd(&["XRANGE", &key, "-", "+"]);
        type Entries = Vec<(String, HashMap<String, String>)>;
        let entries: Entries = answer
            .ok()
            .and_then(|answer| redis::from_redis_value(answer).ok())
            .unwrap_or_default();
        for (id, mut fields) in entries {
            bodies.extend(fields.remove("body"));
            self.redis.cmd(&["XDEL", &key, &id]);
        }
        for body in bodies {
            let marker = marker_in(&body);
            let invalid = self.invalid.lock().unwrap().remove(&marker).is_some();
            if invalid {
                self.dead_lettered.lock().unwrap().insert(marker);
            } else if let Some(emission) = self.published.lock().unwrap().get(&marker)
                && emission.spec.kind() != "invalid"
            {
                self.redriven.lock().unwrap().push(emission.clone());
            }
        }
    }
}

/// `chaos-` and a number.
fn marker_in(body: &str) -> String {
    body.rfind("chaos-").map_or(String::new(), |at| {
        let digits = body[at + 6..].chars().take_while(char::is_ascii_digit);
        format!("chaos-{}", digits.collect::<String>())
    })
}

/// Sends messages, and tells the model before each.
struct Publisher {
    world: Arc<World>,
    client: Client,
    pending: VecDeque<Emission>,
    sent: Vec<Emission>,
    counts: BTreeMap<String, u64>,
    published: u64,
    duplicates: u64,
    resent: u64,
    /// Both in bytes and in number.
    backlog: u64,
    looked: Instant,
}

impl Publisher {
    fn new(world: Arc<World>) -> Publisher {
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
        }
    }

    /// Waits until the queue has room.
    async fn wait_for_room(&mut self) {
        loop {
            if self.looked.elapsed() > Duration::from_millis(300) {
                self.looked = Instant::now();
                self.backlog = self.depth().await.unwrap_or(u64::MAX);
            }
            if self.backlog < BACKLOG {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
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
        let mut batch: Vec<(Emission, String)> = Vec::new();
        let mut bytes = 0;
        while batch.len() < most.min(10) {
            let Some(emission) = self.pending.front() else {
                break;
            };
            let body = emission.spec.body(&self.world.owners);
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
        self.tell(&batch, from);
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
        let count = batch.len();
        self.sent
            .extend(batch.into_iter().map(|(emission, _)| emission));
        self.backlog += count as u64;
        count
    }

    fn tell(&self, batch: &[(Emission, String)], from: Moment) {
        let world = &self.world;
        let soon = self.pending.iter().skip(10).take(40);
        let soon = soon.filter_map(|emission| Some((emission.spec.owner()?, emission.spec.at()?)));
        *world.upcoming.lock().unwrap() = soon.filter(|(owner, _)| *owner < world.common).collect();
        let mut model = world.model();
        for (emission, _) in batch {
            for (owner, fact) in emission.spec.facts() {
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
    async fn send_all(&mut self, emissions: Vec<Emission>) {
        self.pending.extend(emissions);
        loop {
            self.wait_for_room().await;
            if self.send_some(10).await == 0 {
                return;
            }
        }
    }

    /// Sends at a steady pace, with canaries between, until all is sent and the faults are over.
    async fn send_round(&mut self, story: &mut Story, emissions: Vec<Emission>, over: &AtomicBool) {
        self.sent.clear();
        self.pending.extend(emissions);
        let began = Instant::now();
        let (mut paced, mut canaries) = (0, 0);
        loop {
            let elapsed = began.elapsed();
            while canaries < elapsed.as_millis() as u64 / 100 {
                self.pending.push_front(story.canary(canaries));
                canaries += 1;
                // Not all at once after a pause.
                canaries = canaries.max((elapsed.as_millis() as u64 / 100).saturating_sub(5));
            }
            let due = (elapsed.as_millis() as u64 * RATE / 1000).saturating_sub(paced);
            let surge = self.world.surge.load(Ordering::SeqCst);
            let due = due.max(surge);
            let done = self.pending.is_empty();
            if done && over.load(Ordering::SeqCst) && !self.world.resend.load(Ordering::SeqCst) {
                return;
            }
            if due > 0 && !done {
                self.wait_for_room().await;
                let sent = self.send_some(usize::try_from(due).unwrap_or(10)).await as u64;
                self.world
                    .surge
                    .fetch_sub(sent.min(surge), Ordering::SeqCst);
                paced += sent;
                // What could not be sent in time is not caught up with.
                paced = paced.max((elapsed.as_millis() as u64 * RATE / 1000).saturating_sub(RATE));
            } else {
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn depth(client: &Client, url: &str) -> Option<u64> {
    let names = [
        QueueAttributeName::ApproximateNumberOfMessages,
        QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
        QueueAttributeName::ApproximateNumberOfMessagesDelayed,
    ];
    let request = client.get_queue_attributes().queue_url(url);
    let answer = request
        .set_attribute_names(Some(names.to_vec()))
        .send()
        .await
        .ok()?;
    let attributes = answer.attributes?;
    let count = |name| attributes.get(&name)?.parse::<u64>().ok();
    names.into_iter().map(count).sum()
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let report = runtime.block_on(run(&arguments));
    print!("{}", report.text());
    let file = folder().join("report.json");
    std::fs::write(&file, serde_json::to_string_pretty(&report).unwrap()).unwrap();
    if report.passed() {
        println!("chaos: passed");
        ExitCode::SUCCESS
    } else {
        println!(
            "chaos: FAILED; again with script/chaos --seed {} --minutes {}",
            report.seed, report.minutes
        );
        ExitCode::FAILURE
    }
}

/// The report and the workers' logs.
fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repo("target"), PathBuf::from);
    target.join("chaos")
}

async fn run(arguments: &Arguments) -> Report {
    let began = Instant::now();
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(1..100_000));
    let rounds = ((arguments.minutes * 60.0 - SETTLING) / ROUND)
        .round()
        .max(1.0) as usize;
    println!("chaos: seed {seed}, {rounds} rounds");
    let mut report = Report {
        seed,
        minutes: arguments.minutes,
        rounds,
        ..Report::default()
    };
    let _ = std::fs::remove_dir_all(folder());
    std::fs::create_dir_all(folder()).unwrap();

    let mut story = Story::new(seed);
    let world = Arc::new(start(arguments, &story, seed).await);
    report.dead_letters = match world.dead {
        Some(_) => "dead-letter queue and stream",
        None => "dead-letter stream",
    };
    let mut publisher = Publisher::new(world.clone());
    let writers = Writers::start(&world, 8, seed);
    let sampler = tokio::spawn({
        let world = world.clone();
        async move {
            loop {
                world.fleet.sample().await;
                sleep(Duration::from_millis(700)).await;
            }
        }
    });

    // Everyone is cached, before anything goes wrong.
    for slot in 0..3 {
        world.fleet.start(slot, world.now());
    }
    publisher.send_all(story.load()).await;
    quiet(&world, &mut publisher, &mut report, "loading").await;
    judge(&world, &mut report, "after loading");

    let mut deck = Deck::new(seed);
    let mut worker_faults = WorkerFaults::new(seed);
    for round in 1..=rounds {
        let last = round == rounds;
        let episodes = deck.round(EPISODES);
        let faulty: Duration = episodes
            .iter()
            .map(|episode| {
                let hold = episode.faults.iter().map(|fault| fault.hold).max();
                hold.unwrap_or_default() + episode.pause + Duration::from_millis(500)
            })
            .sum();
        let count = (faulty.as_millis() as u64 * RATE / 1000) as usize;
        // Where a dead-letter queue takes them only after many receives, they come early.
        let invalid = world.dead.is_none() || round <= rounds.div_ceil(2);
        let emissions = story.round(count, invalid, 3, last);
        println!(
            "chaos: {:>4} s: round {round} of {rounds}, {} messages",
            began.elapsed().as_secs(),
            emissions.len()
        );
        world.published.lock().unwrap().clear();
        writers.resume();
        let over = AtomicBool::new(false);
        let (recoveries, inflicted, ()) = tokio::join!(
            fault_lane(&world, episodes, &over),
            worker_lane(&world, &mut worker_faults, &over),
            publisher.send_round(&mut story, emissions, &over),
        );
        for fault in inflicted {
            *report.worker_faults.entry(fault).or_default() += 1;
        }
        for (faults, took) in recoveries {
            note_recovery(&mut report, &faults, took);
        }
        writers.pause().await;
        quiet(
            &world,
            &mut publisher,
            &mut report,
            &format!("round {round}"),
        )
        .await;
        judge(&world, &mut report, &format!("after round {round}"));
        let losses = world.losses.lock().unwrap().clone();
        for unnoticed in world.fleet.unnoticed(&losses).await {
            report.fail(format!("round {round}: {unnoticed}"));
        }
        if report.failures.iter().any(|it| it.contains("not quiet")) {
            break;
        }
    }
    writers.stop();

    settle(&world, &mut story, &mut publisher, &mut report).await;
    for slot in world.fleet.running() {
        world.fleet.term(slot, || false).await;
    }
    sampler.abort();
    world.fleet.bury_all();
    finish(&world, &publisher, &mut report);
    report.seconds_taken = began.elapsed().as_secs();
    report
}

async fn start(arguments: &Arguments, story: &Story, seed: u64) -> World {
    let redis_options = folder().join("redis-options.conf");
    std::fs::write(&redis_options, "").unwrap();
    let durable = ["--appendonly", "yes", "--appendfsync", "always"];
    let include = ["--include", redis_options.to_str().unwrap()];
    let options: Vec<&str> = durable.into_iter().chain(include).collect();
    let (redis, sqs) = tokio::join!(Redis::start_with(&options), Sqs::start());
    let mut attributes = vec![("VisibilityTimeout", VISIBILITY_SECS.to_owned())];
    // Every other seed has a dead-letter queue; where there is none, Redis keeps the dead letters.
    let (dead, max_receive_count) = if seed.is_multiple_of(2) {
        (None, 3)
    } else {
        let dead = sqs.queue("chaos-dead").await;
        let answer = sqs
            .client()
            .get_queue_attributes()
            .queue_url(&dead.url)
            .attribute_names(QueueAttributeName::QueueArn)
            .send()
            .await
            .unwrap();
        let arn = &answer.attributes.unwrap()[&QueueAttributeName::QueueArn];
        let policy = serde_json::json!({"deadLetterTargetArn": arn, "maxReceiveCount": 5});
        attributes.push(("RedrivePolicy", policy.to_string()));
        (Some(dead), 5)
    };
    let borrowed: Vec<(&str, &str)> = attributes
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let queue = sqs.queue_with("chaos", &borrowed).await;
    let queue_faults = FaultProxy::start(sqs.endpoint()).await;
    let fleet = Fleet::new(
        &redis,
        &queue,
        &queue_faults,
        folder(),
        &arguments.log,
        max_receive_count,
    )
    .await;
    World {
        began: Instant::now(),
        redis,
        redis_options,
        sqs,
        queue,
        queue_attributes: attributes,
        dead,
        queue_faults,
        fleet,
        owners: story.owners.clone(),
        common: story.common,
        clock: AtomicU64::new(story.clock),
        upcoming: Mutex::default(),
        model: Mutex::new(Model::new(story.owners.clone())),
        sdk: Counts::default(),
        invalid: Mutex::default(),
        dead_lettered: Mutex::default(),
        lost_letters: AtomicU64::new(0),
        losses: Mutex::default(),
        redriven: Mutex::default(),
        published: Mutex::default(),
        resend: AtomicBool::new(false),
        hung_at: AtomicI64::new(0),
        surge: AtomicU64::new(0),
        redis_ails: AtomicU64::new(0),
    }
}

type Recoveries = Vec<(Vec<Kind>, Option<Duration>)>;

async fn fault_lane(
    world: &World,
    episodes: Vec<faults::Episode>,
    over: &AtomicBool,
) -> Recoveries {
    let mut recoveries = Vec::new();
    for episode in episodes {
        sleep(episode.pause).await;
        let inflicted = episode
            .faults
            .iter()
            .map(|fault| faults::inflict(world, *fault));
        futures_util::future::join_all(inflicted).await;
        let kinds = episode.faults.iter().map(|fault| fault.kind).collect();
        recoveries.push((kinds, recovery(world).await));
    }
    over.store(true, Ordering::SeqCst);
    recoveries
}

async fn worker_lane(world: &World, faults: &mut WorkerFaults, over: &AtomicBool) -> Vec<String> {
    let mut inflicted = Vec::new();
    while !over.load(Ordering::SeqCst) {
        let fault = faults.next(world).await;
        inflicted.push(faults::spaced(&format!("{fault:?}")));
    }
    inflicted
}

/// From now until a canary's entitlements change: a message was applied.
async fn recovery(world: &World) -> Option<Duration> {
    let began = Instant::now();
    let mut words = vec!["MGET".to_owned()];
    let canaries = &world.owners[world.common..world.common + CANARIES];
    words.extend(
        canaries
            .iter()
            .map(|owner| format!("{}#timestamp", owner.key())),
    );
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let stamps = || -> Option<Vec<Option<String>>> {
        redis::from_redis_value(world.redis.try_cmd(&words).ok()?).ok()
    };
    let before = stamps();
    while began.elapsed() < Duration::from_secs(45) {
        sleep(Duration::from_millis(15)).await;
        let now = stamps();
        if now.is_some() && now != before {
            return Some(began.elapsed());
        }
    }
    None
}

fn note_recovery(report: &mut Report, kinds: &[Kind], took: Option<Duration>) {
    for kind in kinds {
        *report.faults.entry(kind.name()).or_default() += 1;
    }
    let name = match kinds {
        [kind] => kind.name(),
        _ => "one of Redis and one of the queue at once".to_owned(),
    };
    let ms = took.map_or(u64::MAX, |took| took.as_millis() as u64);
    report.recovery_ms.entry(name.clone()).or_default().add(ms);
    let of_redis = matches!(kinds, [kind] if kind.is_of_redis());
    if took.is_none() {
        report.fail(format!("nothing was applied for 45 s after {name}"));
    } else if of_redis && took > Some(RECOVERY) {
        report.fail(format!("the first message after {name} took {ms} ms"));
    }
}

/// Waits until the queue is empty but for invalid messages on their way to the dead-letter queue, and everyone is idle.
async fn quiet(world: &Arc<World>, publisher: &mut Publisher, report: &mut Report, when: &str) {
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
                "not quiet {QUIET:?} after {when}: {seen:?} in the queue and in hand ({ready:?} now)"
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
    let mut conn = redis.conn();
    let mut found = Dump::new();
    let mut cursor = 0_u64;
    loop {
        let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg(&["COUNT", "2000", "TYPE", "string"])
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

fn judge(world: &World, report: &mut Report, when: &str) {
    let mut dump = dump(&world.redis);
    // A lock of an SDK whose connection broke expires by itself.
    dump.retain(|key, _| !key.starts_with(&format!("{PREFIX}-")));
    report.keys_compared += dump.len() as u64;
    let wrong = world.model().judge(&dump);
    report.judge(when, wrong);
}

/// The last word on everyone; then every key is known exactly.
async fn settle(
    world: &Arc<World>,
    story: &mut Story,
    publisher: &mut Publisher,
    report: &mut Report,
) {
    let credits = world.model().credits();
    let mut last: Vec<(usize, Fact)> = Vec::new();
    let sets = story.settle();
    last.extend(sets.iter().flat_map(|it| it.spec.facts()));
    println!("chaos: settling");
    world.published.lock().unwrap().clear();
    publisher.send_all(sets).await;
    quiet(world, publisher, report, "the last entitlements").await;
    judge(world, report, "after the last entitlements");
    let usages = story.settle_usages(&credits);
    last.extend(usages.iter().flat_map(|it| it.spec.facts()));
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
    let dump = dump(&world.redis);
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

fn finish(world: &World, publisher: &Publisher, report: &mut Report) {
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
