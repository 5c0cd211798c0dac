//! Shows the progress of a long command on standard error: a bar on a terminal, else a line at intervals.

use std::time::{Duration, Instant};

use entitlement_sync::store::KEYS_PER_PAGE;
use indicatif::{ProgressBar, ProgressStyle};

use super::output;

#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    /// `None` where standard error is not a terminal.
    bar: Option<ProgressBar>,
    /// `None` where the total is unknown.
    total: Option<u64>,
    done: u64,
    started: Instant,
}

impl Progress {
    /// `what` completes the sentence "20 of 100 ...".
    pub fn start(what: &'static str, total: Option<u64>) -> Self {
        let bar = output::has_watcher().then(|| {
            let (bar, template) = match total {
                Some(total) => (
                    ProgressBar::new(total),
                    "{bar:30} {pos} of {len} {msg}, {per_sec}, {eta} left",
                ),
                None => (ProgressBar::new_spinner(), "{spinner} {pos} {msg}"),
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_message(what);
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self {
            what,
            bar,
            total,
            done: 0,
            started: Instant::now(),
        }
    }

    /// Counts the keys of Redis; `keys` is their number, if Redis reports it.
    pub fn through_keys(keys: Option<u64>) -> Self {
        Self::start("keys", keys)
    }

    pub fn add(&mut self, count: u64) {
        self.done += count;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        }
    }

    /// Counts one page of a SCAN.
    pub fn add_page(&mut self) {
        self.add(u64::from(KEYS_PER_PAGE));
    }

    /// Prints a text without breaking the bar.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// Prints a line if there is no bar.
    pub fn line(&self) {
        if self.bar.is_none() {
            eprintln!("{}", self.text(self.started.elapsed()));
        }
    }

    fn text(&self, elapsed: Duration) -> String {
        let rate = self.done as f64 / elapsed.as_secs_f64().max(0.001);
        let (done, what) = (self.done, self.what);
        let Some(total) = self.total else {
            return format!("{done} {what}, {rate:.1}/s");
        };
        let left = match done {
            0 => "time left unknown".into(),
            _ => format!("{:.0} s left", total.saturating_sub(done) as f64 / rate),
        };
        format!("{done} of {total} {what}, {rate:.1}/s, {left}")
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_the_rate_and_the_rest() {
        let mut progress = Progress::start("loaded", Some(100));
        let after = |progress: &Progress, secs| progress.text(Duration::from_secs(secs));
        assert!(after(&progress, 1).contains("time left unknown"));
        progress.add(20);
        assert_eq!(after(&progress, 10), "20 of 100 loaded, 2.0/s, 40 s left");
        let mut endless = Progress::start("keys", None);
        endless.add_page();
        assert_eq!(after(&endless, 10), "1000 keys, 100.0/s");
    }
}
