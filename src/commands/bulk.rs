//! What work on many customers needs: the list of them, a pace, progress, a way to stop and to go on.

mod customers;
mod pace;
mod progress;
mod source;

pub use customers::{Customer, Finished, read as read_customers};
pub use pace::{Pace, rate};
pub use progress::Progress;
pub use source::{Source, Trouble};

use std::future::Future;
use std::time::Duration;

use entitlement_sync::config::Config;
use entitlement_sync::shutdown::Signals;
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use super::{BAD_CONFIGURATION, Failure};

/// Bounds of what is asked of the Edge API.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Bounds {
    /// Requests under way at once, 1 to 100
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub concurrency: u8,
    /// Requests to the Edge API a second at most
    #[arg(long, value_name = "R", default_value = "50", value_parser = rate)]
    pub rate: f64,
}

/// How often a line is written where nobody watches a bar.
const LINE: Duration = Duration::from_secs(10);

/// Refuses to write entitlements where only SDKs write them, in a layout that may be newer than ours.
pub fn refuse_invalidate(config: &Config, command: &str) -> anyhow::Result<()> {
    if !config.writes.rules.invalidate {
        return Ok(());
    }
    let text = format!(
        "{command} would write entitlements, and with CACHE_UPDATE_POLICY=INVALIDATE only SDKs write them; \
         unset it if all SDKs are 3.x"
    );
    Err(Failure::with(BAD_CONFIGURATION, text))
}

/// Is cancelled by SIGINT and SIGTERM; a second one ends the process.
pub fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    Ok(Signals::register()?.watch(|code| std::process::exit(code))?)
}

/// Does `work` for each customer, a bounded number of them at once, and hands what came of it to
/// `done`, whose error ends it all. After `stop` nothing more is begun.
pub async fn each<'a, T, F: Future<Output = T>>(
    customers: &'a [Customer],
    bounds: Bounds,
    stop: &CancellationToken,
    progress: &mut Progress,
    work: impl Fn(&'a Customer) -> F,
    mut done: impl FnMut(&'a Customer, T, &Progress) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let begun = customers.iter().take_while(|_| !stop.is_cancelled());
    let work = |customer| {
        let work = work(customer);
        async move { (customer, work.await) }
    };
    let mut results = futures_util::stream::iter(begun)
        .map(work)
        .buffer_unordered(usize::from(bounds.concurrency));
    let mut line = tokio::time::interval(LINE);
    line.reset();
    loop {
        let result = tokio::select! {
            result = results.next() => result,
            _ = line.tick() => {
                progress.line();
                continue;
            }
        };
        let Some((customer, result)) = result else {
            return Ok(());
        };
        progress.add(1);
        done(customer, result, progress)?;
    }
}
