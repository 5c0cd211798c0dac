//! Histories with restarts: what the journal and snapshots bring back is what was there. With a bound, owners are
//! forgotten on the way; what is still there is true, and nothing older comes back.

use entitlement_sync::memory::Entry;
use entitlement_sync::snapshot::{Folder, Secret};
use tempfile::TempDir;

use super::*;
use crate::memory::restart::KEY;

const OWNERS: usize = 40;
/// Steps between two restarts, and between two snapshots.
const RESTART_EVERY: usize = 120;
const SNAPSHOT_EVERY: usize = 1_000;
/// Room for about a quarter of the owners.
const FEW_BYTES: u64 = 6_000;

/// A history in Redis and in a memory with a folder.
struct Kept {
    both: Both,
    folder: Option<Folder>,
    path: TempDir,
    max_bytes: u64,
    /// Owners that made room for others while they were restored.
    evicted_by_restores: u64,
}

impl Kept {
    fn new(server: &Redis, settings: Settings, max_bytes: u64) -> Self {
        let mut kept = Self {
            both: Both::new(server, settings),
            folder: None,
            path: TempDir::new().unwrap(),
            max_bytes,
            evicted_by_restores: 0,
        };
        kept.restart("the first start");
        kept
    }

    /// Ends the process, and starts another one on its folder.
    fn restart(&mut self, what: &str) {
        if let Some(before) = &self.folder {
            before.journal().sync().unwrap();
        }
        // Both hold the lock of the folder.
        self.folder = None;
        self.both.memory = new_memory(self.both.settings, self.max_bytes);
        let key = Secret::parse(KEY).unwrap();
        let folder = Folder::open(self.path.path(), "production", key, None, 2).unwrap();
        let memory = &self.both.memory;
        let restored = folder.restore(|bytes| {
            let entry: Entry<'_> = serde_json::from_slice(bytes)?;
            memory.restore(entry);
            Ok(())
        });
        assert!(restored.unwrap().is_whole, "{what}");
        self.evicted_by_restores += memory.evictions();
        memory.log_to(folder.journal().clone());
        self.folder = Some(folder);
    }

    fn snapshot(&self) {
        let folder = self.folder.as_ref().unwrap();
        let covers = folder.rotate();
        let mut writer = folder.snapshot(covers).unwrap();
        let put = |entry: &Entry<'_>| writer.put(&serde_json::to_vec(entry).unwrap());
        self.both.memory.entries(put).unwrap();
        writer.finish().unwrap();
    }

    /// Goes on by one step's worth of time.
    fn after(&mut self, number: usize, what: &str) {
        if number % SNAPSHOT_EVERY == SNAPSHOT_EVERY - 1 {
            self.snapshot();
        }
        if number % RESTART_EVERY == RESTART_EVERY - 1 {
            self.restart(what);
        }
    }

    /// Compares what is still in memory with Redis; returns whether anything is.
    fn compare_what_is_there(&mut self, owner: Owner<'_>, what: &str) -> bool {
        let mut found = self.both.seen_in_memory(owner);
        // It stands for all that was forgotten with it, and Redis has none of that time.
        found.remove(&self.both.keys.tombstone(owner));
        let names: Vec<String> = found.keys().cloned().collect();
        if names.is_empty() {
            return false;
        }
        let expected = self.both.seen_in_redis(&names);
        for (key, (value, _)) in &found {
            let expected = expected.get(key).map(|(value, _)| value);
            assert_eq!(Some(value), expected, "{key}: {what}");
        }
        true
    }
}

fn owners() -> Vec<String> {
    (0..OWNERS).map(|n| format!("customer-{n}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_brings_back_every_value_time_and_lifetime() {
    let server = Redis::start().await;
    let seed = fastrand::get_seed();
    for settings in settings() {
        let mut kept = Kept::new(&server, settings, u64::MAX);
        let owners = owners();
        for number in 0..3_000 {
            let owner = random_owner(&owners);
            let step = random_step(&kept.both.keys, owner);
            let what = format!("seed {seed} step {number} {settings:?}");
            kept.both.step_and_compare(&step, owner, &what);
            kept.after(number, &what);
            if number % RESTART_EVERY == RESTART_EVERY - 1 {
                for customer in &owners {
                    for resource in [None, Some("site")] {
                        kept.both.compare(Owner { customer, resource }, &what);
                    }
                }
            }
        }
    }
}

/// Makes a step comparable: of an owner that was forgotten, memory skips what Redis takes under a condition, without a
/// time, or by an older time of an item. Times go on, so that there is news to the end.
fn comparable(mut step: Step, number: u64) -> Step {
    step.at = step.at.max(1_763_150_000_000) + number / 40;
    for item in &mut step.items {
        item.condition = Condition::NotOlder;
        item.at = step.at;
    }
    step
}

/// Customers that share one part of the store: only they make room for each other.
fn owners_of_one_part(keys: &Keys) -> Vec<String> {
    let hash = |text: String| {
        let bytes = text.into_bytes().into_iter();
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        })
    };
    let is_of_part = |customer: &String| {
        let owner = Owner {
            customer,
            resource: None,
        };
        hash(keys.entitlements(owner)).is_multiple_of(256)
    };
    let customers = (0..).map(|n| format!("customer-{n}"));
    customers.filter(is_of_part).take(OWNERS).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_bound_what_is_there_is_true_and_nothing_older_comes_back() {
    let server = Redis::start().await;
    let seed = fastrand::get_seed();
    let settings = Settings {
        ttl_secs: Some(604_800),
        update_if_exists: false,
    };
    let mut kept = Kept::new(&server, settings, FEW_BYTES);
    let owners = owners_of_one_part(&kept.both.keys);
    let (mut held, mut forgotten, mut refused) = (0, 0, 0);
    for number in 0..20_000 {
        let owner = Owner {
            customer: &owners[fastrand::usize(..OWNERS)],
            resource: None,
        };
        let step = comparable(random_step(&kept.both.keys, owner), number as u64);
        let record = kept.both.memory.record(owner);
        let is_held = record.is_some_and(|it| it.cell("", now_ms()).is_some());
        // Usage of a customer that is not there is skipped, and Redis would remember its time.
        if matches!(step.action, Action::UpdateUsage { .. }) && !is_held {
            continue;
        }
        let what = format!("seed {seed} step {number}: {step:#?}");
        refused += u32::from(kept.both.in_redis(&step) != kept.both.in_memory(&step));
        match kept.compare_what_is_there(owner, &what) {
            true => held += 1,
            false => forgotten += 1,
        }
        assert!(kept.both.memory.bytes() <= 2 * FEW_BYTES, "{what}");
        kept.after(number, &what);
        if number % RESTART_EVERY == RESTART_EVERY - 1 {
            for customer in &owners {
                let resource = None;
                kept.compare_what_is_there(Owner { customer, resource }, &what);
            }
        }
    }
    let by_restores = kept.evicted_by_restores;
    println!("{held} held, {forgotten} not, {refused} other verdicts, {by_restores} by restores");
    assert!(held > 1_000 && forgotten > 100 && refused > 100);
    assert!(by_restores > 100);
}
