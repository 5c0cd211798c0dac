//! Tables, a picture, and what they say of the targets.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::Tools;
use crate::contestants::{Contestant, Kind};
use crate::measure::{Drained, Idle, Steady, cores};

const BEGIN: &str = "<!-- bench: begin -->";
const END: &str = "<!-- bench: end -->";
const PICTURE: &str = "bench.svg";

#[derive(Default)]
pub struct Results {
    pub rounds: usize,
    binary_mb: f64,
    round_trips: BTreeMap<u64, Duration>,
    drained: BTreeMap<(u64, usize, usize, Kind), Vec<Drained>>,
    steady: BTreeMap<(usize, Kind), Vec<Steady>>,
    idle: BTreeMap<Kind, Idle>,
}

/// A figure of several rounds.
#[derive(Clone, Copy)]
struct Figure {
    median: f64,
    least: f64,
    most: f64,
}

impl Figure {
    fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let half = values.len() / 2;
        let median = match values.len() {
            0 => f64::NAN,
            length if length % 2 == 1 => values[half],
            _ => (values[half - 1] + values[half]) / 2.0,
        };
        Self {
            median,
            least: values.first().copied().unwrap_or(f64::NAN),
            most: values.last().copied().unwrap_or(f64::NAN),
        }
    }

    fn text(self, decimals: usize) -> String {
        let number = |value: f64| grouped(value, decimals);
        if number(self.least) == number(self.most) {
            return number(self.median);
        }
        format!(
            "{} ({}–{})",
            number(self.median),
            number(self.least),
            number(self.most)
        )
    }
}

/// With a space between thousands.
fn grouped(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text
        .split_once('.')
        .map_or((text.as_str(), None), |(whole, fraction)| {
            (whole, Some(fraction))
        });
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    if let Some(fraction) = fraction {
        grouped.push('.');
        grouped.push_str(fraction);
    }
    grouped
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
        let page = docs.join("performance.md");
        let before = fs::read_to_string(&page).context("docs/performance.md")?;
        let (head, rest) = before
            .split_once(BEGIN)
            .context("docs/performance.md has lost the mark at which the results begin")?;
        let (_, tail) = rest
            .split_once(END)
            .context("docs/performance.md has lost the mark at which the results end")?;
        fs::write(&page, format!("{head}{BEGIN}\n{text}{END}{tail}"))?;
        fs::write(docs.join(PICTURE), self.picture()?)?;
        Ok(())
    }

    fn figure(&self, key: (u64, usize, usize, Kind), of: fn(&Drained) -> f64) -> Option<Figure> {
        Some(Figure::of(self.drained.get(&key)?.iter().map(of)))
    }

    fn markdown(&self) -> Result<String> {
        let mut out = String::new();
        let rounds = match self.rounds {
            1 => "one round, so not to be relied on".to_owned(),
            rounds => format!("{rounds} rounds, the order turned; median (least–most)"),
        };
        writeln!(
            out,
            "{}, {} cores, Linux {}; {}; `{}`; {rounds}.\n",
            cpu_model(),
            cores(),
            fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
            date(),
            std::env::var("BENCH_COMMAND").unwrap_or_else(|_| "script/bench".into()),
        )?;
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

    /// What was aimed at, and what came out, by medians.
    fn targets(&self, out: &mut String) -> Result<()> {
        *out += "### Targets\n\n| aim | measured | |\n|---|---|---|\n";
        let median = |key, of| self.figure(key, of).map(|figure| figure.median);
        let rate: fn(&Drained) -> f64 = |it| it.per_second;
        let cpu: fn(&Drained) -> f64 = |it| it.cpu_us;
        let mut row = |aim: String, measured: String, met: bool| {
            writeln!(
                out,
                "| {aim} | {measured} | {} |",
                if met { "met" } else { "**missed**" }
            )
        };
        let of_ours = self.drained.keys().filter(|key| key.3 == Kind::Ours);
        for &(round_trip, consumers, batch, _) in of_ours.clone() {
            let of = |kind| (round_trip, consumers, batch, kind);
            let both = median(of(Kind::Ours), rate).zip(median(of(Kind::Floor), rate));
            if let Some((ours, floor)) = both.filter(|_| round_trip > 0) {
                row(
                    format!(
                        "{round_trip} ms, {consumers} consumers, batch {batch}: at least 95 % of the floor's rate"
                    ),
                    format!("{:.0} %", 100.0 * ours / floor),
                    ours >= 0.95 * floor,
                )?;
            }
        }
        for &(round_trip, consumers, batch, _) in of_ours {
            if round_trip > 0 || consumers != 10 {
                continue;
            }
            let of = |kind| (round_trip, consumers, batch, kind);
            let Some(ours) = median(of(Kind::Ours), cpu) else {
                continue;
            };
            if let Some(floor) = median(of(Kind::Floor), cpu) {
                row(
                    format!("batch {batch}: CPU at most 1.5 times the floor's"),
                    format!("{:.2} times", ours / floor),
                    ours <= 1.5 * floor,
                )?;
            }
            if let Some(node) = median(of(Kind::Node), cpu) {
                row(
                    format!("batch {batch}: CPU at most a tenth of Node's"),
                    format!("1/{:.1}", node / ours),
                    ours <= node / 10.0,
                )?;
            }
            if let Some(rss) = median(of(Kind::Ours), |it| it.peak_rss_mb) {
                row(
                    format!("batch {batch}: at most 25 MB of RSS, 10 consumers, busy"),
                    format!("{rss:.1} MB"),
                    rss <= 25.0,
                )?;
            }
        }
        for &round_trip in self.round_trips.keys() {
            let of = |kind| (round_trip, 10, 10, kind);
            let both = median(of(Kind::OursTwice), rate).zip(median(of(Kind::Ours), rate));
            if let Some((two, one)) = both {
                row(
                    format!("{round_trip} ms: two processes at least 1.9 times as fast as one"),
                    format!("{:.2} times", two / one),
                    two >= 1.9 * one,
                )?;
            }
        }
        for (&(batch, _), ours) in self
            .steady
            .iter()
            .filter(|((_, kind), _)| *kind == Kind::Ours)
        {
            if let Some(floor) = self.steady.get(&(batch, Kind::Floor)) {
                let p99 = |of: &[Steady]| Figure::of(of.iter().map(|it| it.p99_ms)).median;
                let (ours, floor) = (p99(ours), p99(floor));
                row(
                    format!("batch {batch}: p99 to visible at most twice the bare receive's"),
                    format!("{:.2} times", ours / floor),
                    ours <= 2.0 * floor,
                )?;
            }
            let ready = Figure::of(ours.iter().map(|it| it.ready_ms)).median;
            row(
                format!("batch {batch}: start to ready at most 150 ms"),
                format!("{ready:.0} ms"),
                ready <= 150.0,
            )?;
        }
        if let Some(idle) = self.idle.get(&Kind::Ours) {
            row(
                "idle RSS at most 15 MB".into(),
                format!("{:.1} MB", idle.rss_mb),
                idle.rss_mb <= 15.0,
            )?;
            if let Some(receives) = idle.receives_per_minute {
                row(
                    "idle: at most 3 receives a minute for each consumer".into(),
                    format!("{:.1}", receives / 10.0),
                    receives <= 30.0,
                )?;
            }
        }
        out.push('\n');
        Ok(())
    }

    /// Bars for 10 consumers and batches of 10: the rate at each distance, CPU and memory.
    fn picture(&self) -> Result<String> {
        const WIDTH: f64 = 720.0;
        const LEFT: f64 = 130.0;
        const ROW: f64 = 20.0;
        let mut panels: Vec<(String, Vec<(Kind, Figure)>)> = Vec::new();
        let bars = |round_trip, of: fn(&Drained) -> f64| -> Vec<(Kind, Figure)> {
            let bar = |kind| Some((kind, self.figure((round_trip, 10, 10, kind), of)?));
            Kind::ALL.into_iter().filter_map(bar).collect()
        };
        for &round_trip in self.round_trips.keys() {
            panels.push((
                format!("messages/s, {round_trip} ms of simulated round trip to the queue"),
                bars(round_trip, |it| it.per_second),
            ));
        }
        panels.push(("CPU µs a message, loopback".into(), bars(0, |it| it.cpu_us)));
        panels.push((
            "peak RSS in MB, loopback".into(),
            bars(0, |it| it.peak_rss_mb),
        ));
        panels.retain(|(_, bars)| !bars.is_empty());
        let rows: usize = panels.iter().map(|(_, bars)| bars.len()).sum();
        let height = 40.0 + panels.len() as f64 * 40.0 + rows as f64 * ROW;

        let mut svg = String::new();
        writeln!(
            svg,
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="10" y="22" font-size="14" font-weight="bold">10 consumers, batches of 10: medians, least and most of {} rounds</text>"##,
            self.rounds
        )?;
        let mut y = 50.0;
        for (title, bars) in &panels {
            writeln!(
                svg,
                r#"<text x="10" y="{y}" font-weight="bold">{title}</text>"#
            )?;
            y += 8.0;
            let most = bars.iter().map(|(_, it)| it.most).fold(0.0, f64::max);
            let scale = (WIDTH - LEFT - 110.0) / most;
            for (kind, figure) in bars {
                let middle = y + ROW / 2.0;
                let colour = match kind {
                    Kind::Floor => "#9aa0a6",
                    Kind::Ours => "#1a73e8",
                    Kind::OursTwice => "#8ab4f8",
                    Kind::Node => "#e8710a",
                    Kind::Python => "#f9ab00",
                };
                let (end, least, most) = (
                    LEFT + figure.median * scale,
                    LEFT + figure.least * scale,
                    LEFT + figure.most * scale,
                );
                writeln!(
                    svg,
                    r##"<text x="{:.0}" y="{:.1}" text-anchor="end">{}</text>
<rect x="{LEFT:.0}" y="{:.1}" width="{:.1}" height="14" fill="{colour}"/>
<path d="M{least:.1} {middle:.1}H{most:.1}M{least:.1} {:.1}v6M{most:.1} {:.1}v6" stroke="#202124" fill="none"/>
<text x="{:.1}" y="{:.1}">{}</text>"##,
                    LEFT - 6.0,
                    middle + 4.0,
                    kind.name(),
                    y + 3.0,
                    end - LEFT,
                    middle - 3.0,
                    middle - 3.0,
                    most.max(end) + 6.0,
                    middle + 4.0,
                    grouped(figure.median, 0),
                )?;
                y += ROW;
            }
            y += 32.0;
        }
        svg += "</svg>\n";
        Ok(svg)
    }
}

fn cpu_model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or("unknown CPU", |(_, model)| model).to_owned()
}

/// The day, in UTC.
fn date() -> String {
    let days = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.as_secs() / 86_400) as i64;
    // Howard Hinnant's civil_from_days, for days since 1970.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let of_era = z.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}
