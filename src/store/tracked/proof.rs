//! Knows until when what was read is proven true. Pure: every time is a number that the caller gives.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Mark;

/// Customers share slots. Two that share one cost a read that was not needed, never a stale answer.
const CUSTOMER_SLOTS: usize = 1 << 17;
/// A session that has not answered for so many microseconds may be half open.
pub const PROVEN_MICROS: u64 = 1_500_000;
/// Sessions that are remembered after their end, to tell how old a value is.
const PAST_SESSIONS: usize = 64;
/// The lowest bit of `current`: the server notifies changes.
const TRACKED: u64 = 1;

/// All times are microseconds since one beginning, and sessions have numbers from 1 on.
pub struct Proof {
    /// By slot: the last notification about a customer of it.
    changed: Box<[AtomicU64]>,
    seed: RandomState,
    /// The last notification that everything changed.
    flushed: AtomicU64,
    /// The session of now, shifted by one, and whether it is tracked; 0 while there is none.
    current: AtomicU64,
    /// When the session of now last proved to be alive.
    beat: AtomicU64,
    /// Tracked sessions that ended, each with its last beat.
    past: Mutex<VecDeque<(u64, u64)>>,
    /// How long a value that was read is fresh where the server does not tell of changes.
    fresh_micros: u64,
    /// A session that has not answered for so long proves nothing.
    proven_micros: u64,
}

impl Proof {
    pub fn new(fresh_micros: u64, proven_micros: u64) -> Self {
        Self {
            changed: (0..CUSTOMER_SLOTS).map(|_| AtomicU64::new(0)).collect(),
            seed: RandomState::new(),
            flushed: AtomicU64::new(0),
            current: AtomicU64::new(0),
            beat: AtomicU64::new(0),
            past: Mutex::default(),
            fresh_micros,
            proven_micros,
        }
    }

    /// A session begins; it proved to be alive at `at`.
    pub fn begin(&self, session: u64, is_tracked: bool, at: u64) {
        self.beat.fetch_max(at, Ordering::AcqRel);
        let current = session << 1 | u64::from(is_tracked);
        self.current.store(current, Ordering::Release);
    }

    /// The session was asked at `at`, and has answered.
    pub fn beat(&self, at: u64) {
        self.beat.fetch_max(at, Ordering::AcqRel);
    }

    /// The session of now ends: nothing is proven from here on. Returns when it last proved to be alive.
    pub fn end(&self) -> u64 {
        let current = self.current.swap(0, Ordering::AcqRel);
        if current & TRACKED == 0 {
            return self.beat.load(Ordering::Acquire);
        }
        let mut past = self.past.lock().unwrap_or_else(|lock| lock.into_inner());
        if past.len() == PAST_SESSIONS {
            past.pop_front();
        }
        let beat = self.beat.load(Ordering::Acquire);
        past.push_back((current >> 1, beat));
        beat
    }

    /// A customer changed, its resources included.
    pub fn change(&self, customer: &str, at: u64) {
        self.slot(customer).fetch_max(at, Ordering::AcqRel);
    }

    /// Everything changed.
    pub fn flush(&self, at: u64) {
        self.flushed.fetch_max(at, Ordering::AcqRel);
    }

    pub fn mark(&self, at: u64) -> Mark {
        Mark {
            at,
            known: at,
            session: self.current.load(Ordering::Acquire) >> 1,
        }
    }

    /// The age of a value that is fresh at `now`, see [`Self::age`]; `None`: it is not.
    pub fn fresh_age(&self, customer: &str, mark: Mark, now: u64) -> Option<u64> {
        // The beat first: if its session is still there afterwards, it is no beat of a later one.
        let beat = self.beat.load(Ordering::Acquire);
        let current = self.current.load(Ordering::Acquire);
        match current >> 1 {
            0 => None,
            _ if current & TRACKED == 0 => {
                let is_recent = now.saturating_sub(mark.at) < self.fresh_micros;
                is_recent.then(|| self.unproven_age(customer, mark, now))
            }
            session => {
                let is_proven = session == mark.session
                    && now.saturating_sub(beat) < self.proven_micros
                    && mark.at > self.last_change(customer);
                is_proven.then_some(0)
            }
        }
    }

    /// Whether there is a session that has answered lately.
    pub fn is_proven(&self, now: u64) -> bool {
        let beat = self.beat.load(Ordering::Acquire);
        let is_there = self.current.load(Ordering::Acquire) != 0;
        is_there && now.saturating_sub(beat) < self.proven_micros
    }

    /// Whether a change was notified since the mark.
    pub fn has_changed(&self, customer: &str, mark: Mark) -> bool {
        mark.at <= self.last_change(customer)
    }

    /// Whether the mark was taken in the session of now, or while there was none, as there is none now.
    pub fn is_of_session(&self, mark: Mark) -> bool {
        self.current.load(Ordering::Acquire) >> 1 == mark.session
    }

    /// For how many microseconds a value has not been known to be true. Where the server does not notify changes: since it
    /// was read, also while it counts as fresh.
    pub fn age(&self, customer: &str, mark: Mark, now: u64) -> u64 {
        self.fresh_age(customer, mark, now)
            .unwrap_or_else(|| self.unproven_age(customer, mark, now))
    }

    fn unproven_age(&self, customer: &str, mark: Mark, now: u64) -> u64 {
        let proven = self.last_beat(mark.session).map_or(mark.known, |beat| {
            let change = self.last_change(customer);
            let until = if change > mark.at {
                beat.min(change)
            } else {
                beat
            };
            until.max(mark.known)
        });
        now.saturating_sub(proven)
    }

    /// When a tracked session last proved to be alive.
    pub fn last_beat(&self, session: u64) -> Option<u64> {
        // Held, so that a session that ends is found in one of the two places.
        let past = self.past.lock().unwrap_or_else(|lock| lock.into_inner());
        let beat = self.beat.load(Ordering::Acquire);
        if self.current.load(Ordering::Acquire) == session << 1 | TRACKED {
            return Some(beat);
        }
        let ended = past.iter().rev().find(|(ended, _)| *ended == session);
        ended.map(|(_, beat)| *beat)
    }

    fn last_change(&self, customer: &str) -> u64 {
        let changed = self.slot(customer).load(Ordering::Acquire);
        changed.max(self.flushed.load(Ordering::Acquire))
    }

    fn slot(&self, customer: &str) -> &AtomicU64 {
        let hash = self.seed.hash_one(customer);
        // The remainder is below CUSTOMER_SLOTS, so it fits.
        &self.changed[(hash % CUSTOMER_SLOTS as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn is_fresh(proof: &Proof, customer: &str, mark: Mark, now: u64) -> bool {
        proof.fresh_age(customer, mark, now).is_some()
    }

    fn tracked() -> Proof {
        let proof = Proof::new(SECOND, PROVEN_MICROS);
        proof.begin(1, true, 10);
        proof
    }

    #[test]
    fn a_change_ends_what_was_read_before_it_and_nothing_else() {
        let proof = tracked();
        let (before, other) = (proof.mark(20), proof.mark(20));
        assert!(is_fresh(&proof, "a", before, 30));
        proof.change("a", 30);
        assert!(!is_fresh(&proof, "a", before, 40));
        assert!(is_fresh(&proof, "b", other, 40));
        assert!(
            !is_fresh(&proof, "a", proof.mark(30), 40),
            "at the same time"
        );
        assert!(is_fresh(&proof, "a", proof.mark(31), 40));
        // One that is processed late does not take back what came later.
        proof.change("a", 25);
        assert!(!is_fresh(&proof, "a", proof.mark(28), 40));
    }

    /// The push is processed while the read is in flight, or after its value was kept.
    #[test]
    fn the_order_of_a_push_and_a_reply_does_not_matter() {
        let proof = tracked();
        let sent = proof.mark(20);
        proof.change("a", 25);
        assert!(!is_fresh(&proof, "a", sent, 30), "the push came first");
        let sent = proof.mark(40);
        assert!(is_fresh(&proof, "a", sent, 45), "the reply came first");
        proof.change("a", 50);
        assert!(!is_fresh(&proof, "a", sent, 55));
    }

    #[test]
    fn a_flush_ends_everything() {
        let proof = tracked();
        let mark = proof.mark(20);
        proof.flush(20);
        assert!(!is_fresh(&proof, "a", mark, 21));
        assert!(is_fresh(&proof, "a", proof.mark(21), 22));
    }

    #[test]
    fn another_session_proves_nothing_of_the_one_before() {
        let proof = tracked();
        let mark = proof.mark(20);
        proof.end();
        assert!(!is_fresh(&proof, "a", mark, 21), "while away");
        let away = proof.mark(22);
        proof.begin(2, true, 30);
        assert!(!is_fresh(&proof, "a", mark, 31));
        assert!(!is_fresh(&proof, "a", away, 31), "taken while away");
        assert!(is_fresh(&proof, "a", proof.mark(31), 32));
    }

    #[test]
    fn a_mark_is_of_the_session_in_which_it_was_taken() {
        let proof = tracked();
        let mark = proof.mark(20);
        assert!(proof.is_of_session(mark));
        proof.end();
        let away = proof.mark(30);
        assert!(!proof.is_of_session(mark) && proof.is_of_session(away));
        proof.begin(2, true, 40);
        assert!(!proof.is_of_session(mark) && !proof.is_of_session(away));
        proof.end();
        proof.begin(3, false, 50);
        assert!(proof.is_of_session(proof.mark(60)) && !proof.is_of_session(mark));
    }

    #[test]
    fn a_session_that_does_not_answer_proves_nothing() {
        let proof = tracked();
        let mark = proof.mark(20);
        assert!(is_fresh(&proof, "a", mark, 10 + PROVEN_MICROS - 1));
        assert!(!is_fresh(&proof, "a", mark, 10 + PROVEN_MICROS));
        proof.beat(9 + PROVEN_MICROS);
        assert!(is_fresh(&proof, "a", mark, 10 + PROVEN_MICROS));
    }

    #[test]
    fn without_tracking_the_time_decides() {
        let proof = Proof::new(SECOND, PROVEN_MICROS);
        let away = proof.mark(5);
        assert!(!is_fresh(&proof, "a", away, 6), "Redis is away");
        proof.begin(1, false, 10);
        for mark in [away, proof.mark(5)] {
            assert!(is_fresh(&proof, "a", mark, 4 + SECOND));
            assert!(!is_fresh(&proof, "a", mark, 5 + SECOND));
            for now in [10, 4 + SECOND, 5 + SECOND] {
                assert_eq!(proof.age("a", mark, now), now - 5, "since it was read");
            }
        }
    }

    #[test]
    fn the_age_begins_when_the_value_was_last_proven() {
        let proof = tracked();
        let mark = proof.mark(20);
        proof.beat(100);
        assert_eq!(proof.age("a", mark, 110), 0);
        assert_eq!(
            proof.age("a", mark, 100 + PROVEN_MICROS),
            PROVEN_MICROS,
            "no answer since"
        );
        proof.change("a", 60);
        assert_eq!(proof.age("a", mark, 110), 50, "since the change");
        assert_eq!(proof.age("b", mark, 110), 0);
        proof.end();
        assert_eq!(proof.age("b", mark, 150), 50, "since the last beat");
        let late = Mark {
            at: 120,
            known: 120,
            ..mark
        };
        assert_eq!(proof.age("b", late, 150), 30, "read after the last beat");
        proof.begin(2, true, 200);
        proof.change("b", 210);
        assert_eq!(proof.age("b", mark, 250), 150);
        assert_eq!(
            proof.age(
                "b",
                Mark {
                    at: 90,
                    known: 90,
                    session: 0
                },
                250
            ),
            160
        );
    }

    #[test]
    fn the_last_64_sessions_are_remembered() {
        let proof = tracked();
        let mark = proof.mark(20);
        proof.beat(100);
        proof.end();
        for session in 2..=64 {
            proof.begin(session, true, 100 + session);
            proof.end();
        }
        assert_eq!(proof.age("a", mark, 1_000), 900);
        proof.begin(65, true, 500);
        proof.end();
        assert_eq!(
            proof.age("a", mark, 1_000),
            980,
            "forgotten: since it was read"
        );
    }
}
