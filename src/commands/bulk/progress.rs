//! How far long work is: a bar for whoever watches, a line now and then for a log.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::commands::output;

/// On standard error; results go to standard output.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    /// None: nobody watches.
    bar: Option<ProgressBar>,
    total: u64,
    done: u64,
    started: Instant,
}

impl Progress {
    pub fn start(what: &'static str, total: u64) -> Self {
        let bar = output::has_watcher().then(|| {
            let bar = ProgressBar::new(total);
            let template = "{bar:30} {pos} of {len} {msg}, {per_sec}, {eta} left";
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

    pub fn add(&mut self, count: u64) {
        self.done += count;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        }
    }

    /// Says something beside the bar.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// A line for a log, where there is no bar.
    pub fn line(&self) {
        if self.bar.is_none() {
            eprintln!("{}", self.text(self.started.elapsed()));
        }
    }

    fn text(&self, elapsed: Duration) -> String {
        let rate = self.done as f64 / elapsed.as_secs_f64().max(0.001);
        let left = match self.done {
            0 => "no end in sight".into(),
            _ => format!("{:.0} s left", (self.total - self.done) as f64 / rate),
        };
        let (done, total, what) = (self.done, self.total, self.what);
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
        let mut progress = Progress::start("loaded", 100);
        assert!(
            progress
                .text(Duration::from_secs(1))
                .contains("no end in sight")
        );
        progress.add(20);
        assert_eq!(
            progress.text(Duration::from_secs(10)),
            "20 of 100 loaded, 2.0/s, 40 s left"
        );
    }
}
