//! Reads a body and plans its steps, and decides on messages of unknown kinds.

use std::sync::atomic::Ordering;

use super::work::bytes_of;
use super::{Batch, HEAVY_PLAN_BYTES};
use crate::clock::now_ms;
use crate::message::{self, Kind, Unreadable};
use crate::metrics::Outcome;
use crate::plan::Step;
use crate::queue::{Delivery, Queue};

/// The plan of a message.
pub(super) struct Understood {
    pub kind: Kind,
    pub trace_id: Option<String>,
    /// Empty where no change is needed; `outcome` then says why.
    pub steps: Vec<Step>,
    pub outcome: Outcome,
    /// The unknown kind of an event in which no change was found: a copy of the message is kept.
    pub unrecognised: Option<String>,
}

impl<Q: Queue> Batch<'_, Q> {
    /// Reads and plans a message; `None` where the plan is large and `is_roomy` is false.
    pub(super) fn parse(
        &self,
        delivery: &Delivery,
        is_roomy: bool,
    ) -> Result<Option<Understood>, Unreadable> {
        let shared = self.shared;
        let reading = message::read(&delivery.body, &delivery.attributes)?;
        if let Some(notice) = reading.notice {
            shared.watch.unknown.warn_once(notice.as_str());
        } else if reading.kind == Kind::Other && reading.unrecognised.is_none() {
            shared.watch.unknown.say_once(&reading.name);
        }
        let (sent, now) = (delivery.attributes.sent, now_ms());
        let steps = shared.work.planner.all_steps(&reading.changes, sent, now);
        if !is_roomy && bytes_of(&steps) > HEAVY_PLAN_BYTES {
            return Ok(None);
        }
        let ahead: u32 = reading.changes.iter().map(|change| change.ahead).sum();
        if ahead > 0 {
            shared.watch.metrics.times_ahead.inc_by(u64::from(ahead));
            if let Some(suppressed) = shared.watch.refusals.allow() {
                tracing::warn!(
                    message_id = delivery.message_id,
                    kind = reading.kind.as_str(),
                    times = ahead,
                    suppressed,
                    "times of a message are more than 5 minutes later than its sending; the worker uses the time of sending"
                );
            }
        }
        if reading.changes.iter().any(|change| change.path.is_some()) {
            shared.watch.metrics.found_by_structure.inc();
        }
        if reading.changes.iter().any(|it| it.state.lists_credits()) {
            self.count_credits();
        }
        Ok(Some(Understood {
            kind: reading.kind,
            steps,
            outcome: match (reading.changes.is_empty(), &reading.unrecognised) {
                // All its state is older than the lifetime of keys.
                (false, _) => Outcome::Expired,
                (true, Some(_)) => Outcome::Unrecognised,
                (true, None) => Outcome::Ignored,
            },
            unrecognised: reading.unrecognised,
            trace_id: reading.trace_id.or_else(|| delivery.trace_header.clone()),
        }))
    }

    /// Counts a message that lists credit entitlements, and logs the first of this process.
    fn count_credits(&self) {
        let (watch, rules) = (&self.shared.watch, self.shared.work.planner.rules);
        watch.metrics.credit_entitlements.inc();
        // With INVALIDATE the worker writes no entitlements, whatever they are.
        if rules.invalidate || watch.credits_logged.swap(true, Ordering::Relaxed) {
            return;
        }
        match rules.omit_credits {
            false => tracing::warn!(
                "messages list credit entitlements, which the layout of the cache cannot hold; the worker removes such customers, and readers load them again; set CREDIT_ENTITLEMENTS=omit if all readers are SDK 3.x"
            ),
            true => tracing::info!(
                "messages list credit entitlements, which the layout of the cache cannot hold; the worker writes such customers without them, because of CREDIT_ENTITLEMENTS=omit"
            ),
        }
    }
}
