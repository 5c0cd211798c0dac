//! Loads customers from the Edge API, at a bounded rate.

use std::time::Duration;

use entitlement_sync::clock::now_ms;
use entitlement_sync::config::Config;
use entitlement_sync::edge::{Edge, EdgeError};
use entitlement_sync::keys::Keys;
use entitlement_sync::plan::{self, Fetched, NotPlanned, Rules};
use tokio_util::sync::CancellationToken;

use super::{Bounds, Customer, Pace, Problem};

/// Loads customers from the Edge API and plans their writes to Redis.
pub struct Source {
    edge: Edge,
    keys: Keys,
    rules: Rules,
    pace: Pace,
    stop: CancellationToken,
}

/// Tries of one customer, which take about 10 s if the server sends no Retry-After.
const MAX_TRIES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(300);
const MAX_PAUSE: Duration = Duration::from_secs(60);

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

    /// Loads one customer and retries temporary errors.
    pub async fn load(&self, customer: &Customer) -> Result<Fetched, Problem> {
        for attempt in 1.. {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Problem::Stopped),
                () = self.pace.turn() => {}
            }
            let asked = now_ms();
            let owner = customer.owner();
            let loaded = self.edge.entitlements(owner.customer, owner.resource).await;
            let after = match loaded {
                Ok(entitlements) => {
                    let planned =
                        plan::fetched(&self.keys, owner, &entitlements, asked, self.rules);
                    return planned.map_err(|refused| match refused {
                        NotPlanned::Credits => Problem::Credits,
                        NotPlanned::Malformed(reason) => Problem::Customer(reason),
                    });
                }
                Err(EdgeError::MayPass { after, .. }) if attempt < MAX_TRIES => after,
                Err(EdgeError::NoRoom(_)) if attempt < MAX_TRIES => None,
                Err(error) => return Err(Problem::Edge(error)),
            };
            let own = FIRST_PAUSE * (1 << (attempt - 1));
            let own = own.mul_f64(0.5 + fastrand::f64() / 2.0);
            match after {
                // The answer applies to all requests.
                Some(after) => self.pace.hold(after.min(MAX_PAUSE)),
                None => tokio::select! {
                    () = self.stop.cancelled() => return Err(Problem::Stopped),
                    () = tokio::time::sleep(own) => {}
                },
            }
        }
        Err(Problem::Stopped)
    }
}
