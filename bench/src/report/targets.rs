//! What was aimed at, and what came out, by medians.

use std::fmt::Write;

use anyhow::Result;

use super::Results;
use crate::contestants::Kind;
use crate::measure::{Drained, Scale, Steady};
use bench::figure::Figure;

/// From this share of all cores on, more work takes longer for any program.
const FULL: f64 = 0.9;
/// What two runs of the same differ by on a shared machine.
const SAME: f64 = 1.1;

enum Verdict {
    Met,
    Missed,
    /// The share of all cores that was in use.
    Full(f64),
}

impl Verdict {
    fn of(met: bool) -> Self {
        if met { Self::Met } else { Self::Missed }
    }
}

fn row(out: &mut String, aim: &str, measured: &str, verdict: Verdict) -> Result<()> {
    let verdict = match verdict {
        Verdict::Met => "met".to_owned(),
        Verdict::Missed => "**missed**".to_owned(),
        Verdict::Full(share) => format!("**missed**: {:.0} % of all cores in use", 100.0 * share),
    };
    writeln!(out, "| {aim} | {measured} | {verdict} |")?;
    Ok(())
}

type Key = (u64, usize, usize, Kind);

impl Results {
    pub(super) fn targets(&self, out: &mut String) -> Result<()> {
        *out += "### Targets\n\n| aim | measured | |\n|---|---|---|\n";
        self.rates(out)?;
        self.costs(out)?;
        self.two_processes(out)?;
        self.latencies(out)?;
        self.growth(out)?;
        self.idleness(out)?;
        out.push('\n');
        Ok(())
    }

    fn median(&self, key: Key, of: fn(&Drained) -> f64) -> Option<f64> {
        self.figure(key, of).map(|figure| figure.median)
    }

    /// Missed, by the machine where all of it was in use.
    fn judge(&self, met: bool, key: Key) -> Verdict {
        match self.median(key, Drained::busy) {
            Some(share) if !met && share >= FULL => Verdict::Full(share),
            _ => Verdict::of(met),
        }
    }

    fn of_ours(&self) -> impl Iterator<Item = Key> {
        let keys = self.drained.keys().copied();
        keys.filter(|key| key.3 == Kind::Ours)
    }

    fn rates(&self, out: &mut String) -> Result<()> {
        for key @ (round_trip, consumers, batch, _) in self.of_ours() {
            let of = |kind| self.median((round_trip, consumers, batch, kind), |it| it.per_second);
            let both = of(Kind::Ours).zip(of(Kind::Floor));
            if let Some((ours, floor)) = both.filter(|_| round_trip > 0 && consumers == 10) {
                let aim = format!(
                    "{round_trip} ms, {consumers} consumers, batch {batch}: at least 95 % of the floor's rate"
                );
                let verdict = self.judge(ours >= 0.95 * floor, key);
                row(
                    out,
                    &aim,
                    &format!("{:.0} %", 100.0 * ours / floor),
                    verdict,
                )?;
            }
        }
        Ok(())
    }

    fn costs(&self, out: &mut String) -> Result<()> {
        for (round_trip, consumers, batch, _) in self.of_ours() {
            if round_trip > 0 || consumers != 10 {
                continue;
            }
            let of = |kind| self.median((round_trip, consumers, batch, kind), |it| it.cpu_us);
            let Some(ours) = of(Kind::Ours) else {
                continue;
            };
            if let Some(node) = of(Kind::Node) {
                let share = if batch == 1 { 10.0 } else { 8.0 };
                let aim = format!("batch {batch}: CPU at most 1/{share} of Node's");
                let mut measured = format!("1/{:.1}", node / ours);
                if let Some(floor) = of(Kind::Floor) {
                    write!(measured, " (the floor itself: 1/{:.1})", node / floor)?;
                }
                row(out, &aim, &measured, Verdict::of(ours <= node / share))?;
            }
            let key = (round_trip, consumers, batch, Kind::Ours);
            if let Some(rss) = self.median(key, |it| it.peak_rss_mb) {
                let aim = format!("batch {batch}: at most 30 MB of RSS, 10 consumers, busy");
                row(out, &aim, &format!("{rss:.1} MB"), Verdict::of(rss <= 30.0))?;
            }
        }
        Ok(())
    }

    fn two_processes(&self, out: &mut String) -> Result<()> {
        for (round_trip, consumers, batch, _) in self.of_ours() {
            let key = |kind| (round_trip, consumers, batch, kind);
            let of = |kind| self.median(key(kind), |it| it.per_second);
            if let Some((two, one)) = of(Kind::OursTwice).zip(of(Kind::Ours)) {
                let aim = format!(
                    "{round_trip} ms, {consumers} consumers, batch {batch}: two processes at least 1.9 times as fast as one"
                );
                let verdict = self.judge(two >= 1.9 * one, key(Kind::OursTwice));
                row(out, &aim, &format!("{:.2} times", two / one), verdict)?;
            }
        }
        Ok(())
    }

    fn latencies(&self, out: &mut String) -> Result<()> {
        let of_ours = self.steady.iter();
        for (&(batch, _), ours) in of_ours.filter(|((_, kind), _)| *kind == Kind::Ours) {
            if let Some(floor) = self.steady.get(&(batch, Kind::Floor)) {
                let p99 = |of: &[Steady]| Figure::of(of.iter().map(|it| it.p99_ms)).median;
                let (ours, floor) = (p99(ours), p99(floor));
                let aim = format!("batch {batch}: p99 to visible at most twice the bare receive's");
                let measured = format!("{:.2} times", ours / floor);
                row(out, &aim, &measured, Verdict::of(ours <= 2.0 * floor))?;
            }
            let ready = Figure::of(ours.iter().map(|it| it.ready_ms)).median;
            let aim = format!("batch {batch}: start to ready at most 150 ms");
            row(
                out,
                &aim,
                &format!("{ready:.0} ms"),
                Verdict::of(ready <= 150.0),
            )?;
        }
        Ok(())
    }

    fn growth(&self, out: &mut String) -> Result<()> {
        let cpu = |scale| {
            let values = self.scaled.get(&scale)?;
            Some(Figure::of(values.iter().map(|it| it.cpu_us)).median)
        };
        for (what, [few, many]) in [
            ("10 k to 1 M queued messages", Scale::MESSAGES),
            ("1 k to 1 M customers in Redis", Scale::CUSTOMERS),
        ] {
            if let Some((few, many)) = cpu(few).zip(cpu(many)) {
                let aim = format!("{what}: CPU a message does not grow (by more than a tenth)");
                let measured = format!("{:.2} times", many / few);
                row(out, &aim, &measured, Verdict::of(many <= SAME * few))?;
            }
        }
        Ok(())
    }

    fn idleness(&self, out: &mut String) -> Result<()> {
        let Some(idle) = self.idle.get(&Kind::Ours) else {
            return Ok(());
        };
        let measured = format!("{:.1} MB", idle.rss_mb);
        let verdict = Verdict::of(idle.rss_mb <= 25.0);
        row(out, "idle RSS at most 25 MB", &measured, verdict)?;
        if let Some(receives) = idle.receives_per_minute {
            let aim = "idle: at most 3 receives a minute for each consumer";
            let measured = format!("{:.1}", receives / 10.0);
            row(out, aim, &measured, Verdict::of(receives <= 30.0))?;
        }
        Ok(())
    }
}
