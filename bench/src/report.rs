//! Tables, a picture, and what they say of the targets.

mod picture;
mod sharing;
mod targets;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::Tools;
use crate::contestants::{Contestant, Kind};
use crate::measure::{Bodies, Drained, Idle, Scale, Shared, Steady};
use bench::figure::{Figure, grouped};
use bench::page;

const PICTURE: &str = "bench.svg";

#[derive(Default)]
pub struct Results {
    pub rounds: usize,
    binary_mb: f64,
    round_trips: BTreeMap<u64, Duration>,
    drained: BTreeMap<(u64, usize, usize, Kind), Vec<Drained>>,
    steady: BTreeMap<(usize, Kind), Vec<Steady>>,
    scaled: BTreeMap<Scale, Vec<Drained>>,
    shared: BTreeMap<Bodies, Vec<Shared>>,
    idle: BTreeMap<Kind, Idle>,
}

impl Results {
    pub fn new(tools: &Tools) -> Result<Self> {
        let size = fs::metadata(&tools.worker)
            .context("the worker is not built")?
            .len();
        Ok(Self {
            binary_mb: size as f64 / 1e6,
            ..Self::default()
        })
    }

    pub fn round_trip(&mut self, asked: u64, measured: Duration) {
        self.round_trips.insert(asked, measured);
    }

    pub fn drained(&mut self, round_trip: u64, contestant: Contestant, drained: Drained) {
        let Contestant {
            kind,
            batch,
            consumers,
        } = contestant;
        let key = (round_trip, consumers, batch, kind);
        self.drained.entry(key).or_default().push(drained);
    }

    pub fn steady(&mut self, contestant: Contestant, steady: Steady) {
        let key = (contestant.batch, contestant.kind);
        self.steady.entry(key).or_default().push(steady);
    }

    pub fn scaled(&mut self, scale: Scale, drained: Drained) {
        self.scaled.entry(scale).or_default().push(drained);
    }

    pub fn shared(&mut self, bodies: Bodies, shared: Shared) {
        self.shared.entry(bodies).or_default().push(shared);
    }

    pub fn idle(&mut self, contestant: Contestant, idle: Idle) {
        self.idle.insert(contestant.kind, idle);
    }

    /// Prints everything; if `docs` is a directory, puts it into its performance.md as well.
    pub fn publish(&self, docs: &Path) -> Result<()> {
        let text = self.markdown()?;
        println!("{text}");
        if !docs.is_dir() {
            return Ok(());
        }
        page::replace(docs, "bench", &text)?;
        fs::write(docs.join(PICTURE), self.picture()?)?;
        Ok(())
    }

    fn figure(&self, key: (u64, usize, usize, Kind), of: fn(&Drained) -> f64) -> Option<Figure> {
        Some(Figure::of(self.drained.get(&key)?.iter().map(of)))
    }

    fn markdown(&self) -> Result<String> {
        let mut out = String::new();
        writeln!(out, "{}\n", page::heading(self.rounds)?)?;
        writeln!(out, "The worker's binary has {:.1} MB.\n", self.binary_mb)?;
        for (&asked, measured) in &self.round_trips {
            let distance = match asked {
                0 => "loopback".to_owned(),
                _ => format!("{asked} ms of simulated round trip"),
            };
            writeln!(
                out,
                "### Draining a full queue, {distance} (a call that returns at once takes {:.1} ms)\n",
                measured.as_secs_f64() * 1e3
            )?;
            out += "| consumers | batch | | messages/s | CPU µs a message | peak RSS, MB | SQS calls a thousand messages | of the machine: queue server | Redis | driver and proxy |\n|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|\n";
            for ((round_trip, consumers, batch, kind), values) in &self.drained {
                if *round_trip != asked {
                    continue;
                }
                let figure = |of: fn(&Drained) -> f64, decimals| {
                    Figure::of(values.iter().map(of)).text(decimals)
                };
                let share = |of: fn(&Drained) -> f64| {
                    format!("{:.0} %", 100.0 * Figure::of(values.iter().map(of)).median)
                };
                writeln!(
                    out,
                    "| {consumers} | {batch} | {} | {} | {} | {} | {} | {} | {} | {} |",
                    kind.name(),
                    figure(|it| it.per_second, 0),
                    figure(|it| it.cpu_us, 0),
                    figure(|it| it.peak_rss_mb, 1),
                    figure(|it| it.calls_per_thousand, 0),
                    share(|it| it.queue_share),
                    share(|it| it.redis_share),
                    share(|it| it.own_share),
                )?;
            }
            out.push('\n');
        }
        self.steady_table(&mut out)?;
        self.scale_table(&mut out)?;
        self.sharing_table(&mut out)?;
        self.idle_table(&mut out)?;
        self.targets(&mut out)?;
        writeln!(out, "![Messages a second, CPU and memory]({PICTURE})\n")?;
        Ok(out)
    }

    fn steady_table(&self, out: &mut String) -> Result<()> {
        if self.steady.is_empty() {
            return Ok(());
        }
        *out += "### A steady 200 messages/s, 10 consumers, loopback\n\nFrom SendMessage to the key's being set in Redis; of the floor, to its being received.\n\n| batch | | p50, ms | p99, ms | CPU, % of a core | start to ready, ms |\n|---:|---|---:|---:|---:|---:|\n";
        for ((batch, kind), values) in &self.steady {
            let figure =
                |of: fn(&Steady) -> f64, decimals| Figure::of(values.iter().map(of)).text(decimals);
            writeln!(
                out,
                "| {batch} | {} | {} | {} | {} | {} |",
                kind.name(),
                figure(|it| it.p50_ms, 2),
                figure(|it| it.p99_ms, 2),
                figure(|it| 100.0 * it.cpu_share, 1),
                figure(|it| it.ready_ms, 0),
            )?;
        }
        out.push('\n');
        Ok(())
    }

    fn scale_table(&self, out: &mut String) -> Result<()> {
        if self.scaled.is_empty() {
            return Ok(());
        }
        *out += "### More messages, more customers: 10 consumers, batches of 10, loopback\n\n| messages in the queue | customers in Redis and in the messages | messages/s | CPU µs a message | of Redis, CPU µs a message | peak RSS, MB |\n|---:|---:|---:|---:|---:|---:|\n";
        for (scale, values) in &self.scaled {
            let figure = |of: fn(&Drained) -> f64, decimals| {
                Figure::of(values.iter().map(of)).text(decimals)
            };
            writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} |",
                grouped(scale.messages as f64, 0),
                grouped(f64::from(scale.customers), 0),
                figure(|it| it.per_second, 0),
                figure(|it| it.cpu_us, 0),
                figure(|it| it.redis_us, 0),
                figure(|it| it.peak_rss_mb, 1),
            )?;
        }
        out.push('\n');
        Ok(())
    }

    fn idle_table(&self, out: &mut String) -> Result<()> {
        if self.idle.is_empty() {
            return Ok(());
        }
        *out += "### Idle, 10 consumers, all side by side\n\n| | CPU, % of a core | RSS, MB | receives a minute |\n|---|---:|---:|---:|\n";
        for (kind, idle) in &self.idle {
            let cpu = Figure::of(idle.cpu_share.iter().map(|share| 100.0 * share));
            writeln!(
                out,
                "| {} | {} | {:.1} | {} |",
                kind.name(),
                cpu.text(2),
                idle.rss_mb,
                idle.receives_per_minute
                    .map_or("not measured".into(), |it| format!("{it:.0}")),
            )?;
        }
        out.push('\n');
        Ok(())
    }
}
