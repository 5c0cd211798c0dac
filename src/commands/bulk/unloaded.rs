//! Collects the customers that a run could not load, and the reasons.

use entitlement_sync::edge::EdgeError;
use entitlement_sync::store::StoreError;
use serde::Serialize;

use super::Customer;
use crate::commands::progress::Progress;
use crate::commands::{Failure, NO_PERMISSION, UNAVAILABLE, session};

/// Why a customer was not loaded.
#[derive(Debug)]
pub enum Problem {
    /// The Edge API failed after all retries.
    Edge(EdgeError),
    /// Redis itself failed.
    Redis(StoreError),
    /// The customer has credit entitlements, which the layout cannot hold: SDKs load it themselves.
    Credits,
    /// The error concerns only this customer.
    Customer(String),
    /// The run stopped first.
    Stopped,
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::Redis(error)
    }
}

/// The customers not loaded, as reports show them.
#[derive(Serialize, Default)]
pub struct Unloaded {
    pub not_found: u64,
    pub credits: u64,
    pub failed: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    failures: Vec<FailedCustomer>,
    /// Customers in a row for which the Edge API was unreachable.
    #[serde(skip)]
    unreachable: u32,
}

#[derive(Serialize)]
struct FailedCustomer {
    #[serde(flatten)]
    customer: Customer,
    reason: String,
}

/// Customers in a row after which the Edge API counts as down.
const MAX_UNREACHABLE: u32 = 20;

impl Unloaded {
    /// Counts one customer. Returns whether it is finished; an error ends the run.
    pub(super) fn add(
        &mut self,
        customer: &Customer,
        problem: Problem,
        progress: &Progress,
    ) -> anyhow::Result<bool> {
        let reason = match problem {
            Problem::Edge(EdgeError::NotFound(_)) => {
                self.not_found += 1;
                self.reached();
                return Ok(true);
            }
            Problem::Credits => {
                self.credits += 1;
                self.reached();
                return Ok(true);
            }
            Problem::Stopped => {
                self.stopped = true;
                return Ok(false);
            }
            Problem::Redis(error) => return Err(session::redis_failure(&error.into())),
            Problem::Edge(EdgeError::Refused(reason)) => {
                return Err(Failure::with(NO_PERMISSION, reason));
            }
            Problem::Edge(EdgeError::MayPass {
                text,
                reached: false,
                ..
            }) => {
                self.unreachable += 1;
                if self.unreachable >= MAX_UNREACHABLE {
                    return Err(Failure::with(UNAVAILABLE, text));
                }
                text
            }
            Problem::Edge(
                EdgeError::MayPass { text, .. }
                | EdgeError::Declined(text)
                | EdgeError::Final(text)
                | EdgeError::NoRoom(text),
            )
            | Problem::Customer(text) => text,
        };
        progress.say(&format!("{customer}: {reason}"));
        self.failed += 1;
        self.failures.push(FailedCustomer {
            customer: customer.clone(),
            reason,
        });
        Ok(false)
    }

    pub(super) fn reached(&mut self) {
        self.unreachable = 0;
    }

    /// Returns whether the Edge API was unreachable for the last customers.
    pub fn is_unreachable(&self) -> bool {
        self.unreachable > 0
    }
}
