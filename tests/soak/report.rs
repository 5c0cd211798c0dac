//! The report of a soak, and where it is written.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use testkit::Worker;

use crate::Arguments;
use crate::chart;
use crate::load::Sent;
use crate::questions::Asked;
use crate::samples::{Quantity, Samples};
use crate::trend::Trend;
use crate::verdict::Compared;

/// Less than this share of the wanted rate is a failure: the load was not the one that the report names.
const MIN_RATE: f64 = 0.95;
const BEGIN: &str = "<!-- soak: begin -->";
const END: &str = "<!-- soak: end -->";

pub struct Report {
    command: String,
    took: Duration,
    sent: Sent,
    asked: Asked,
    samples: Samples,
    pub compared: Compared,
    restarted: f64,
    redelivered: f64,
    failures: Vec<String>,
}

impl Report {
    pub fn new(
        arguments: &Arguments,
        took: Duration,
        sent: Sent,
        asked: Asked,
        samples: Samples,
    ) -> Report {
        let mut report = Report {
            command: format!(
                "script/soak --minutes {} --rate {} --questions {} --customers {}",
                arguments.minutes, arguments.rate, arguments.questions, arguments.customers
            ),
            took,
            sent,
            asked,
            samples,
            compared: Compared::default(),
            restarted: 0.0,
            redelivered: 0.0,
            failures: Vec::new(),
        };
        let wanted = [arguments.rate as f64, arguments.questions as f64];
        for (rate, wanted) in report.rates().into_iter().zip(wanted) {
            report.check(
                rate >= MIN_RATE * wanted,
                format!("{rate:.0} a second in place of {wanted}"),
            );
        }
        report
    }

    /// Of messages and of questions.
    fn rates(&self) -> [f64; 2] {
        let seconds = self.took.as_secs_f64();
        let questions = self.asked.right + self.asked.failed;
        [
            self.sent.total() as f64 / seconds,
            questions as f64 / seconds,
        ]
    }

    pub fn check(&mut self, is_right: bool, otherwise: String) {
        if !is_right {
            self.failures.push(otherwise);
        }
    }

    pub async fn take_metrics(&mut self, worker: &Worker, reader: &Worker) {
        let restarted = "entitlement_sync_consumers_restarted_total";
        let redelivered = "entitlement_sync_messages_redelivered_total";
        self.restarted = worker.metric(restarted).await;
        self.redelivered = worker.metric(redelivered).await;
        for process in [worker, reader] {
            let logs = process.logs();
            let errors = logs.lines().filter(|line| line.contains(" ERROR "));
            let errors = errors.count();
            self.check(errors == 0, format!("{errors} lines of errors in a log"));
        }
    }

    fn trends(&self) -> impl Iterator<Item = (String, Trend)> + '_ {
        let judged = self.samples.series.iter();
        let judged = judged.filter(|series| series.what != Quantity::Queued);
        judged.map(|series| {
            let name = format!("{}: {}", series.of, series.what.name());
            (name, Trend::of(series, &self.samples.seconds))
        })
    }

    pub fn passed(&self) -> bool {
        let Compared {
            lost,
            wrong,
            torn,
            wrong_answers,
            ..
        } = self.compared;
        let Asked {
            failed, went_back, ..
        } = self.asked;
        lost + wrong + torn + wrong_answers + failed + went_back == 0
            && self.restarted == 0.0
            && self.failures.is_empty()
            && self.trends().all(|(_, trend)| trend.is_flat)
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, what: String| writeln!(text, "{name:<26}{what}").unwrap();
        let [messages, questions] = self.rates();
        line(
            "messages",
            format!(
                "{} in {:.0} s, {messages:.0} a second: usage {}, entitlements {}, without effect {}; redeliveries {}",
                self.sent.total(),
                self.took.as_secs_f64(),
                self.sent.usage,
                self.sent.entitlements,
                self.sent.without_effect,
                self.redelivered
            ),
        );
        line(
            "questions",
            format!(
                "{} answered, {questions:.0} a second: median {:.2} ms, p99 {:.2} ms; failed {}, older than the answer before {}",
                self.asked.right,
                self.asked.quantile(0.5),
                self.asked.quantile(0.99),
                self.asked.failed,
                self.asked.went_back
            ),
        );
        line("consumers restarted", self.restarted.to_string());
        for (name, trend) in self.trends() {
            line(
                &name,
                format!(
                    "first {:.1}, at most {:.1}; second half: mean {:.1}, growth {:+.2}: {}",
                    trend.first,
                    trend.most,
                    trend.mean,
                    trend.growth,
                    if trend.is_flat { "flat" } else { "GROWS" }
                ),
            );
        }
        line("keys compared", self.compared.keys.to_string());
        line("lost", self.compared.lost.to_string());
        line("wrong", self.compared.wrong.to_string());
        line("torn", self.compared.torn.to_string());
        line(
            "answers compared",
            format!(
                "{}, wrong {}",
                self.compared.answers, self.compared.wrong_answers
            ),
        );
        for failure in &self.failures {
            line("FAILED", failure.clone());
        }
        let end = if self.passed() { "passed" } else { "FAILED" };
        text + &format!("soak: {end}\n")
    }

    /// Into the folder of this run.
    pub fn write(&self, folder: &Path) {
        fs::write(folder.join("samples.csv"), self.samples.csv()).unwrap();
        fs::write(folder.join("soak.svg"), chart::draw(&self.samples)).unwrap();
        fs::write(folder.join("report.txt"), self.text()).unwrap();
    }

    /// Into docs/reliability.md, between its two marks, and beside it.
    pub fn publish(&self, docs: &Path) {
        fs::write(docs.join("soak.svg"), chart::draw(&self.samples)).unwrap();
        let page = docs.join("reliability.md");
        let text = fs::read_to_string(&page).unwrap();
        let (before, rest) = text.split_once(BEGIN).unwrap();
        let (_, after) = rest.split_once(END).unwrap();
        let run = format!(
            "{BEGIN}\n`{}`:\n\n```\n{}```\n\n![Memory, file descriptors and threads](soak.svg)\n{END}",
            self.command,
            self.text()
        );
        fs::write(page, format!("{before}{run}{after}")).unwrap();
    }
}
