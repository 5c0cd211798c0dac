//! Knows whether the queue has been read on to its end, which proves that the state in memory is true.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::memory::Certainty;
use crate::message::Millis;
use crate::store::Mark;
use crate::store::tracked::{BEGINNING_MICROS, Proof, micros};

/// What the queue has proven, and what has changed since.
pub struct Proven {
    pub proof: Proof,
    beginning: Instant,
    /// When all of the state was last known to be true, before the session of now, on the scale of [`now`](Self::now): by the
    /// process before this one, or by a session that ended.
    known: AtomicU64,
    reading: Mutex<Reading>,
}

/// How far the queue has been read. Wall clocks have no part in it: this one and the queue's may differ, or jump.
#[derive(Debug)]
struct Reading {
    /// Messages that were sent later are news.
    since: Instant,
    /// Receives in a row that brought only news.
    current: u32,
    /// Counts the times that the end was reached.
    session: u64,
    is_at_end: bool,
    /// Since when messages may be in flight to a process or a consumer that is gone, where no receive shows them.
    stranded: Option<Instant>,
    /// When an answer to a receive was lost: its messages may be in flight too.
    lost: Option<Instant>,
    /// For how long the queue hides a message that is in flight, at most; `None`: it has not answered yet.
    hidden: Option<Duration>,
}

/// Longer than a receive that waits for messages takes. Without an answer for so long, nothing is proven.
const SILENCE: Duration = Duration::from_secs(45);
/// Receives in a row with nothing but news, after which a queue that is never empty counts as read to its end.
const CURRENT_RECEIVES: u32 = 20;

impl Proven {
    pub fn new() -> Self {
        let beginning = Instant::now();
        Self {
            proof: Proof::new(0, micros(SILENCE)),
            beginning,
            known: AtomicU64::new(0),
            reading: Mutex::new(Reading {
                since: beginning,
                current: 0,
                session: 0,
                is_at_end: false,
                stranded: None,
                lost: None,
                hidden: None,
            }),
        }
    }

    /// Sets when the state that was restored was last known to be true, and whether messages may be in flight to the
    /// process before this one. `now_ms`: the time of now.
    pub fn restored(&self, at: Millis, was_killed: bool, now_ms: Millis) {
        let known = self.past(at, now_ms, self.now());
        self.known.store(known, Ordering::Relaxed);
        self.reading().stranded = was_killed.then_some(self.beginning);
    }

    /// Records an answer of the queue. `waited`: the longest time that a message of it was in the queue, of those that were
    /// delivered for the first time. `hidden`: for how long the queue hides a message that is in flight, at most. For that
    /// time it proves nothing after messages were stranded.
    pub fn received(&self, is_empty: bool, waited: Option<Duration>, hidden: Duration) {
        let at = self.now();
        let mut reading = self.reading();
        reading.hidden = Some(hidden);
        if reading.stranded.is_some_and(|at| at.elapsed() < hidden) {
            return;
        }
        reading.stranded = None;
        if reading.is_at_end && !self.proof.is_proven(at) {
            self.end(&mut reading);
        }
        if !reading.is_at_end {
            match waited {
                Some(waited) if waited <= reading.since.elapsed() => reading.current += 1,
                Some(_) => reading.current = 0,
                // Redeliveries alone tell nothing.
                None => {}
            }
            if is_empty || reading.current >= CURRENT_RECEIVES {
                reading.is_at_end = true;
                reading.session += 1;
                self.proof.begin(reading.session, true, at);
                tracing::info!("the queue is read to its end: the state in memory is proven");
            }
        }
        self.proof.beat(at);
    }

    /// Records that messages may be in flight to a consumer that is gone: nothing is proven until they are back.
    pub fn stranded(&self) {
        let mut reading = self.reading();
        reading.stranded = Some(Instant::now());
        if reading.is_at_end {
            self.end(&mut reading);
        }
    }

    /// Records that the answer to a receive was lost. The state stays proven: messages are late, as any may be. But a process
    /// that ends now says nothing of messages in flight.
    pub fn answer_lost(&self) {
        self.reading().lost = Some(Instant::now());
    }

    /// Returns whether no message is in flight to a process or a consumer that is gone.
    pub fn is_settled(&self) -> bool {
        let reading = self.reading();
        let last = reading.stranded.max(reading.lost);
        last.is_none_or(|last| {
            let hidden = reading.hidden;
            hidden.is_some_and(|hidden| last.elapsed() >= hidden)
        })
    }

    /// Ends the proof. The queue must be read to its end again.
    fn end(&self, reading: &mut Reading) {
        self.known.fetch_max(self.proof.end(), Ordering::Relaxed);
        reading.is_at_end = false;
        reading.since = Instant::now();
        reading.current = 0;
    }

    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_proven(&self) -> bool {
        self.proof.is_proven(self.now())
    }

    /// Returns when all of the state was last known to be true, as epoch milliseconds; 0: never. `now_ms`: the time of now.
    pub fn known_at(&self, now_ms: Millis) -> Millis {
        let now = self.now();
        match self.known(self.proof.mark(now)) {
            0 => 0,
            known => now_ms.saturating_sub(now.saturating_sub(known) / 1000),
        }
    }

    /// Returns the last answer of the queue in the session of a mark, or before it.
    fn known(&self, mark: Mark) -> u64 {
        let beat = self.proof.last_beat(mark.session);
        beat.unwrap_or_else(|| self.known.load(Ordering::Relaxed))
    }

    /// Returns the mark of a read that begins now.
    pub fn mark(&self) -> Mark {
        self.proof.mark(self.now())
    }

    /// Returns the mark of what was read, and is so certain. To read memory proves nothing: what is there was last known to be
    /// true at the last answer of the queue, or when the change came. The queue proves nothing of an owner that is doubted.
    pub fn mark_of(&self, mark: Mark, certainty: Certainty, now_ms: Millis) -> Mark {
        let changed = self.past(certainty.changed, now_ms, mark.at);
        if certainty.is_doubted {
            return Mark {
                known: changed.min(mark.at),
                session: 0,
                ..mark
            };
        }
        Mark {
            known: self.known(mark).max(changed).min(mark.at),
            ..mark
        }
    }

    /// Returns a time of the past on the scale of `now`. One that is ahead comes from a clock that was, and was before this
    /// process began, or since: only the former is certain.
    fn past(&self, at: Millis, now_ms: Millis, now: u64) -> u64 {
        match now_ms.checked_sub(at) {
            Some(ago) => now.saturating_sub(ago.saturating_mul(1000)),
            None => BEGINNING_MICROS,
        }
    }

    pub fn now(&self) -> u64 {
        BEGINNING_MICROS + micros(self.beginning.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = 1_763_150_000_000;
    const VISIBILITY: Duration = Duration::from_secs(30);

    /// Of messages that were sent before the process began, and after.
    const OLD: Option<Duration> = Some(Duration::from_secs(3_600));
    const NEWS: Option<Duration> = Some(Duration::ZERO);

    #[test]
    fn an_empty_answer_proves_the_state() {
        let proven = Proven::new();
        assert!(!proven.is_proven());
        proven.received(false, OLD, VISIBILITY);
        assert!(!proven.is_proven(), "there is more");
        proven.received(true, None, VISIBILITY);
        assert!(proven.is_proven());
    }

    #[test]
    fn after_a_kill_nothing_is_proven_while_messages_may_be_in_flight_to_the_process_that_is_gone()
    {
        let proven = Proven::new();
        proven.restored(NOW, true, NOW);
        proven.received(true, None, VISIBILITY);
        assert!(!proven.is_proven());
        proven.received(true, None, Duration::ZERO);
        assert!(proven.is_proven());
    }

    #[test]
    fn a_consumer_that_is_gone_ends_the_proof_until_its_messages_are_back() {
        let proven = Proven::new();
        proven.received(true, None, VISIBILITY);
        proven.stranded();
        assert!(!proven.is_proven());
        proven.received(true, None, VISIBILITY);
        assert!(!proven.is_proven() && !proven.is_settled());
        proven.received(true, None, Duration::ZERO);
        assert!(proven.is_proven() && proven.is_settled());
    }

    #[test]
    fn what_may_be_in_flight_to_nobody_is_known_to_the_end() {
        let proven = Proven::new();
        assert!(proven.is_settled(), "nothing was ever received");
        proven.restored(NOW, true, NOW);
        assert!(!proven.is_settled(), "the queue has not said for how long");
        proven.received(true, None, VISIBILITY);
        assert!(!proven.is_settled(), "too early");
        proven.received(true, None, Duration::ZERO);
        assert!(proven.is_settled());
        proven.answer_lost();
        proven.received(true, None, VISIBILITY);
        assert!(proven.is_proven() && !proven.is_settled());
        proven.received(true, None, Duration::ZERO);
        assert!(proven.is_settled());
    }

    #[test]
    fn a_queue_that_is_never_empty_is_at_its_end_when_it_brings_only_news() {
        let proven = Proven::new();
        for _ in 1..CURRENT_RECEIVES {
            proven.received(false, NEWS, VISIBILITY);
        }
        // One that was sent before the start resets the count; a redelivery does not.
        proven.received(false, OLD, VISIBILITY);
        for _ in 1..CURRENT_RECEIVES {
            proven.received(false, NEWS, VISIBILITY);
            proven.received(false, None, VISIBILITY);
        }
        assert!(!proven.is_proven());
        proven.received(false, NEWS, VISIBILITY);
        assert!(proven.is_proven());
    }

    /// The age in seconds of an owner that last changed at a time, if it is read now.
    fn age(proven: &Proven, changed: Millis) -> u64 {
        let read = proven.mark();
        let certainty = Certainty {
            changed,
            is_doubted: false,
        };
        let mark = proven.mark_of(read, certainty, NOW);
        proven.proof.age("a", mark, read.at) / 1_000_000
    }

    #[test]
    fn what_was_restored_is_as_old_as_it_was_last_known_to_be_true() {
        let proven = Proven::new();
        assert_eq!(proven.known_at(NOW), 0);
        proven.restored(NOW - 60_000, false, NOW);
        assert_eq!((NOW - proven.known_at(NOW)) / 1_000, 60);
        assert_eq!(age(&proven, NOW - 500_000), 60);
        assert_eq!(age(&proven, NOW - 2_000), 2, "changed since");
    }

    #[test]
    fn times_of_a_clock_that_was_ahead_do_not_make_the_state_young_for_long() {
        let mut proven = Proven::new();
        proven.restored(NOW + 600_000, false, NOW);
        pass(&mut proven, 100);
        assert_eq!(age(&proven, NOW - 500_000), 100);
        let changed_ahead = NOW + 600_000;
        assert_eq!(age(&proven, changed_ahead), 100);
    }

    #[test]
    fn while_the_queue_is_silent_the_state_ages_since_its_last_answer() {
        let mut proven = Proven::new();
        proven.restored(NOW - 7_200_000, false, NOW);
        pass(&mut proven, 300);
        proven.received(true, None, VISIBILITY);
        assert_eq!(age(&proven, 0), 0);
        pass(&mut proven, 60);
        assert_eq!((NOW - proven.known_at(NOW)) / 1_000, 60);
        // Nothing was received since, and what is read for the first time is as old as the rest.
        assert!(!proven.is_proven());
        assert_eq!(age(&proven, 0), 60);
        // A backlog: the session is over, and the next one has not begun.
        proven.received(false, OLD, VISIBILITY);
        assert!(!proven.is_proven());
        assert_eq!(age(&proven, 0), 60);
        pass(&mut proven, 10);
        assert_eq!(age(&proven, 0), 70);
        assert_eq!((NOW - proven.known_at(NOW)) / 1_000, 70);
    }

    #[test]
    fn the_queue_proves_nothing_of_an_owner_that_is_doubted() {
        let proven = Proven::new();
        proven.restored(NOW - 10_000, false, NOW);
        proven.received(true, None, VISIBILITY);
        let certainty = Certainty {
            changed: NOW - 60_000,
            is_doubted: true,
        };
        let read = proven.mark();
        let mark = proven.mark_of(read, certainty, NOW);
        assert_eq!(proven.proof.fresh_age("a", mark, read.at), None);
        assert_eq!(proven.proof.age("a", mark, read.at), 60_000_000);
    }

    /// Lets time pass.
    fn pass(proven: &mut Proven, secs: u64) {
        proven.beginning -= Duration::from_secs(secs);
    }
}
