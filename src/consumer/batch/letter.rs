//! Keeps bodies in the store: of messages given up, and of the first messages of each unrecognised kind. While the store
//! takes no writes they stay with the consumer, so that an outage does not raise their receive count.

use super::Batch;
use super::apply::while_alive;
use super::judge::Finished;
use super::retry::retry_delay;
use crate::consumer::lease::Held;
use crate::health::ConsumerView;
use crate::message::{self, Kind};
use crate::metrics::Outcome;
use crate::queue::Queue;
use crate::store::{DeadLetter, StoreError};

/// Failures to keep a body after which its message returns to the queue: Redis may deny only the
/// stream.
const MAX_FAILURES: u32 = 3;

/// A message whose body must be kept before it is acknowledged.
pub(super) struct Letter {
    pub held: Held,
    kind: Kind,
    reason: String,
    cause: Cause,
    failures: u32,
}

enum Cause {
    GivenUp,
    Unrecognised {
        name: String,
        finished: Finished,
        /// The number of kept messages of its kind, including this one.
        seen: u32,
    },
}

impl Letter {
    pub fn given_up(held: Held, kind: Kind, reason: String) -> Self {
        Self {
            held,
            kind,
            reason,
            cause: Cause::GivenUp,
            failures: 0,
        }
    }

    pub fn unrecognised(held: Held, name: String, seen: u32, finished: Finished) -> Self {
        let reason = match finished.outcome {
            Outcome::Unrecognised => {
                "unrecognised: its kind is unknown, and no change was found in it".into()
            }
            others => format!(
                "unrecognised: one of its events has an unknown kind, and no change was found in it; outcome of the others: {}",
                others.as_str()
            ),
        };
        Self {
            held,
            kind: finished.kind,
            reason,
            cause: Cause::Unrecognised {
                name,
                finished,
                seen,
            },
            failures: 0,
        }
    }
}

impl<Q: Queue> Batch<'_, Q> {
    /// Keeps a body and ends its message. Returns the letter if Redis takes no writes, to keep it later.
    pub(super) async fn keep(&self, mut letter: Letter, view: &ConsumerView) -> Option<Letter> {
        // A letter that failed may be the cause, so it is then kept with no other call in flight.
        let calls = &self.shared.flow.suspects.calls;
        let kept = if letter.failures > 0 {
            let _alone = while_alive(view, calls.write()).await;
            self.put(&letter).await
        } else {
            let _beside = while_alive(view, calls.read()).await;
            self.put(&letter).await
        };
        match kept {
            None => return Some(letter),
            Some(Ok(())) => self.kept(letter).await,
            Some(Err(error)) => {
                letter.failures += 1;
                if error.heals() && letter.failures < MAX_FAILURES {
                    return Some(letter);
                }
                self.not_kept(letter, &error).await;
            }
        }
        None
    }

    /// Adds the body to the stream; `None` where Redis takes no writes.
    async fn put(&self, letter: &Letter) -> Option<Result<(), StoreError>> {
        let store = &self.shared.work.store;
        if !store.gate().is_open() {
            return None;
        }
        let held = &letter.held;
        let dead = DeadLetter {
            message_id: &held.message_id,
            reason: &letter.reason,
            kind: letter.kind.as_str(),
            receive_count: held.receive_count,
            sent_at: held.attributes.sent,
            body: &held.body,
            type_attribute: held.attributes.kind.as_deref(),
            must_last: matches!(letter.cause, Cause::GivenUp),
        };
        Some(
            store
                .keep(dead, self.shared.work.policy.dead_letter_max_len)
                .await,
        )
    }

    async fn kept(&self, letter: Letter) {
        let Letter {
            held, kind, reason, ..
        } = letter;
        let message_id = &held.message_id;
        let kept_in = self.shared.work.store.letters();
        match letter.cause {
            Cause::GivenUp => {
                self.shared.flow.suspects.forget(message_id);
                self.shared.watch.metrics.dead_lettered.inc();
                tracing::error!(
                    message_id,
                    kind = kind.as_str(),
                    receive_count = held.receive_count,
                    reason,
                    kept_in,
                    "gave up on a message; its body is kept"
                );
                self.shared.work.acknowledger.acknowledge(held.done()).await;
            }
            Cause::Unrecognised {
                name,
                finished,
                seen,
            } => {
                if seen == 1 {
                    self.say_unrecognised(&held, &name, &finished);
                }
                self.finish(held, &finished).await;
            }
        }
    }

    /// Logs the first message of an unknown kind.
    fn say_unrecognised(&self, held: &Held, name: &str, finished: &Finished) {
        let message_id = &held.message_id;
        let event = self.shared.watch.unknown.shown(name);
        let skeleton = message::skeleton(&held.body);
        let kept_in = self.shared.work.store.letters();
        match finished.outcome {
            Outcome::Unrecognised => tracing::warn!(
                message_id,
                event,
                skeleton,
                kept_in,
                "a message of an unknown kind was not recognised and is acknowledged; the first 10 of this kind are kept"
            ),
            others => tracing::warn!(
                message_id,
                event,
                skeleton,
                outcome_of_others = others.as_str(),
                kept_in,
                "an event of an unknown kind was not recognised; the message is acknowledged after its other events, and the first 10 with this kind are kept"
            ),
        }
    }

    async fn not_kept(&self, letter: Letter, error: &StoreError) {
        let (held, message_id) = (&letter.held, &letter.held.message_id);
        match &letter.cause {
            Cause::GivenUp => {
                if let Some(suppressed) = self.shared.watch.refusals.allow() {
                    tracing::warn!(message_id, %error, suppressed, "cannot keep a message to give up on; it stays in the queue");
                }
            }
            Cause::Unrecognised { name, .. } => {
                self.shared.watch.unknown.forget(name);
                if let Some(suppressed) = self.shared.watch.refusals.allow() {
                    tracing::warn!(message_id, %error, suppressed, "cannot keep an unrecognised message; it stays in the queue");
                }
            }
        }
        let delay = retry_delay(held.receive_count);
        self.release(letter.held, delay).await;
    }
}
