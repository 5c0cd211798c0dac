//! Keeps the last warnings and errors for `/status`.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::Redactor;
use crate::clock;

/// The last lines. Clones share them.
#[derive(Clone)]
pub struct Recent {
    lines: Arc<Mutex<VecDeque<RecentLine>>>,
    redactor: Arc<Redactor>,
}

/// One warning or error of ours, redacted like the log.
#[derive(Debug, Clone, Serialize)]
pub struct RecentLine {
    pub at_ms: u64,
    pub level: &'static str,
    pub message: String,
    /// The cause in the line, without ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

const MAX_LINES: usize = 20;

impl Recent {
    pub fn new(redactor: Arc<Redactor>) -> Self {
        Self {
            lines: Arc::default(),
            redactor,
        }
    }

    /// Returns the lines, newest first.
    pub fn all(&self) -> Vec<RecentLine> {
        let lines = self.lines.lock().unwrap_or_else(|lock| lock.into_inner());
        lines.iter().rev().cloned().collect()
    }

    pub fn layer<S: tracing::Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        RecentLayer(self.clone())
    }
}

struct RecentLayer(Recent);

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for RecentLayer {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let level = *metadata.level();
        if level > tracing::Level::WARN || !metadata.target().starts_with("entitlement_sync") {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let redact = |text: &str| self.0.redactor.redact(text).into_owned();
        let line = RecentLine {
            at_ms: clock::now_ms(),
            level: level.as_str(),
            message: redact(&fields.message),
            cause: (!fields.cause.is_empty()).then(|| redact(&fields.cause)),
        };
        let mut kept = self.0.lines.lock().unwrap_or_else(|lock| lock.into_inner());
        if kept.len() == MAX_LINES {
            kept.pop_front();
        }
        kept.push_back(line);
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    cause: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            "error" | "kind" | "detail" | "reason" | "location" => {
                if !self.cause.is_empty() {
                    self.cause.push_str(": ");
                }
                self.cause.push_str(value);
            }
            _ => {}
        }
    }
}
