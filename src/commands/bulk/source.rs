//! The Edge API as the source of customers, at a bounded pace.

use std::time::Duration;

use entitlement_sync::config::Config;
use entitlement_sync::edge::{Edge, Unloaded};
use entitlement_sync::keys::Keys;
use entitlement_sync::plan::{self, Fetched, NotPlanned, Rules};
use tokio_util::sync::CancellationToken;

use super::{Bounds, Customer, Pace};
use crate::commands::messages::now;

/// Asks the Edge API for customers, and plans what Redis is to hold of them.
pub struct Source {
    edge: Edge,
    keys: Keys,
    rules: Rules,
    pace: Pace,
    stop: CancellationToken,
}

#[derive(Debug)]
pub enum Trouble {
    /// The source does not know this customer.
    NotFound,
    /// It has credit entitlements, which the layout cannot hold: SDKs load it themselves.
    Credits,
    /// This customer cannot be had.
    Failed(String),
    /// Nor can this one, as the Edge API does not answer at all.
    Unreachable(String),
    /// Nor can any other.
    Refused(String),
    /// There was no time for it.
    Stopped,
}

/// Tries of one customer: about ten seconds where the server does not say how long to wait.
const TRIES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(300);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

impl Source {
    pub fn new(config: &Config, keys: Keys, bounds: Bounds, stop: CancellationToken) -> Self {
        Self {
            edge: Edge::new(&config.edge),
            keys,
            rules: config.writes.rules,
            pace: Pace::new(Some(bounds.rate)),
            stop,
        }
    }

    /// Asks for one customer, trying again what may heal.
    pub async fn load(&self, customer: &Customer) -> Result<Fetched, Trouble> {
        for attempt in 1.. {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Trouble::Stopped),
                () = self.pace.turn() => {}
            }
            let asked = now();
            let owner = customer.owner();
            let (text, after, reached) =
                match self.edge.entitlements(owner.customer, owner.resource).await {
                    Ok(entitlements) => {
                        let planned =
                            plan::fetched(&self.keys, owner, &entitlements, asked, self.rules);
                        return planned.map_err(|refused| match refused {
                            NotPlanned::Credits => Trouble::Credits,
                            NotPlanned::Malformed(reason) => Trouble::Failed(reason),
                        });
                    }
                    Err(Unloaded::NotFound) => return Err(Trouble::NotFound),
                    Err(Unloaded::Refused(text)) => return Err(Trouble::Refused(text)),
                    Err(Unloaded::Final(text)) => return Err(Trouble::Failed(text)),
                    Err(Unloaded::Passing {
                        text,
                        after,
                        reached,
                    }) => (text, after, reached),
                };
            if attempt >= TRIES {
                return Err(match reached {
                    true => Trouble::Failed(text),
                    false => Trouble::Unreachable(text),
                });
            }
            let own = FIRST_PAUSE * (1 << (attempt - 1));
            let own = own.mul_f64(0.5 + fastrand::f64() / 2.0);
            match after {
                // It speaks for all requests.
                Some(after) => self.pace.hold(after.min(LONGEST_PAUSE)),
                None => tokio::select! {
                    () = self.stop.cancelled() => return Err(Trouble::Stopped),
                    () = tokio::time::sleep(own) => {}
                },
            }
        }
        Err(Trouble::Stopped)
    }
}
