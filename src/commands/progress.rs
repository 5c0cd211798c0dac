//! How far a long command has come, on standard error, for whoever watches it there.

use entitlement_sync::store::LOOKED_AT;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output;

pub struct Progress(ProgressBar);

impl Progress {
    /// Through all keys of Redis, of which there are this many where that is known.
    pub fn through_keys(keys: Option<u64>) -> Self {
        Self::new(keys, "keys")
    }

    pub fn new(length: Option<u64>, of: &str) -> Self {
        let target = if output::has_watcher() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(length, target);
        let template = match length {
            Some(_) => format!("{{bar:30}} {{pos}} of {{len}} {of}, {{eta}} left"),
            None => format!("{{spinner}} {{pos}} {of}"),
        };
        // A template that is not understood leaves the default one.
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// One page of a SCAN.
    pub fn page(&self) {
        self.0.inc(u64::from(LOOKED_AT));
    }

    pub fn add(&self, count: u64) {
        self.0.inc(count);
    }

    pub fn clear(&self) {
        self.0.finish_and_clear();
    }
}
