//! Runs work on many customers: their list, a bounded rate, stop and resume.

mod customers;
mod pace;
mod source;
mod unloaded;

pub use customers::{Customer, Finished, read as read_customers};
pub use pace::{Pace, rate};
pub use source::Source;
pub use unloaded::{Problem, Unloaded};

use std::future::Future;
use std::time::Duration;

use entitlement_sync::config::Config;
use entitlement_sync::shutdown::Signals;
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use super::progress::Progress;
use super::{BAD_CONFIGURATION, Failure};

/// Limits of requests to the Edge API.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Bounds {
    /// Requests in flight at once, 1 to 100
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub concurrency: u8,
    /// Maximum requests per second to the Edge API
    #[arg(long, value_name = "R", default_value = "50", value_parser = rate)]
    pub rate: f64,
}

/// The interval of progress lines where there is no terminal for a bar.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Refuses to write entitlements if only SDKs write them: their layout may be newer than ours.
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

/// Returns a token that SIGINT and SIGTERM cancel; a second signal ends the process.
pub fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    Ok(Signals::register()?.watch(|code| std::process::exit(code))?)
}

/// Runs `work` for each customer, a bounded number at once. `done` gets the result, or `None` for a customer that has
/// nothing to load. An error of `done`, of Redis or of all requests ends the run. After `stop` no more work starts.
pub async fn each<'a, T, F: Future<Output = Result<T, Problem>>>(
    what: &'static str,
    customers: &'a [Customer],
    bounds: Bounds,
    stop: &CancellationToken,
    work: impl Fn(&'a Customer) -> F,
    mut done: impl FnMut(&'a Customer, Option<T>) -> anyhow::Result<()>,
) -> (Unloaded, anyhow::Result<()>) {
    let mut progress = Progress::start(what, Some(customers.len() as u64));
    let mut unloaded = Unloaded::default();
    let started = customers.iter().take_while(|_| !stop.is_cancelled());
    let work = |customer| {
        let work = work(customer);
        async move { (customer, work.await) }
    };
    let mut results = futures_util::stream::iter(started)
        .map(work)
        .buffer_unordered(usize::from(bounds.concurrency));
    let mut line = tokio::time::interval(LINE_INTERVAL);
    line.reset();
    let mut ended = Ok(());
    while ended.is_ok() {
        let result = tokio::select! {
            result = results.next() => result,
            _ = line.tick() => {
                progress.line();
                continue;
            }
        };
        let Some((customer, result)) = result else {
            break;
        };
        progress.add(1);
        ended = match result {
            Ok(result) => {
                unloaded.reached();
                done(customer, Some(result))
            }
            Err(problem) => match unloaded.add(customer, problem, &progress) {
                Ok(true) => done(customer, None),
                Ok(false) => Ok(()),
                Err(error) => Err(error),
            },
        };
    }
    progress.finish();
    unloaded.stopped |= stop.is_cancelled();
    (unloaded, ended)
}
