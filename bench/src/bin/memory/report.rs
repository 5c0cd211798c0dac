//! The tables, and what they say of the targets.

use std::fmt::Write;

use anyhow::Result;

use bench::figure::{Figure, grouped};
use bench::page;

use super::Plan;
use super::answers::{Round, Window};
use super::customers::FEATURES;
use super::drains::{Drained, Drains, Way};
use super::size::{BOUND, Size, Sizes};

const MB: f64 = 1024.0 * 1024.0;

pub fn text(plan: &Plan, drains: &Drains, answers: &[Round], sizes: &Sizes) -> Result<String> {
    let mut out = String::new();
    writeln!(out, "{}\n", page::heading(plan.rounds)?)?;
    drain_table(&mut out, drains)?;
    answer_table(&mut out, plan, answers)?;
    size_table(&mut out, sizes)?;
    targets(&mut out, plan, drains, answers, sizes)?;
    Ok(out)
}

fn drain_table(out: &mut String, drains: &Drains) -> Result<()> {
    writeln!(
        out,
        "Draining a full queue, 10 consumers, batches of ten, loopback. A sync of 16 kB takes {:.2} ms on this disk.\n",
        drains.sync_ms
    )?;
    *out += "| State | Messages/s | of Redis mode | CPU, µs a message | Peak RSS, MB |\n|---|---:|---:|---:|---:|\n";
    for way in Way::ALL {
        let of = |of: fn(&Drained) -> f64| {
            Figure::of(drains.rounds.iter().map(|round| of(&round[way as usize])))
        };
        writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            way.name(),
            of(|it| it.per_second).text(0),
            ratio(drains, way).text(2),
            of(|it| it.cpu_us).text(0),
            of(|it| it.peak_rss_mb).text(1),
        )?;
    }
    out.push('\n');
    Ok(())
}

/// Of the rate in Redis mode, in the same round.
fn ratio(drains: &Drains, way: Way) -> Figure {
    let rounds = drains.rounds.iter();
    Figure::of(rounds.map(|round| round[way as usize].per_second / round[0].per_second))
}

fn answer_table(out: &mut String, plan: &Plan, answers: &[Round]) -> Result<()> {
    writeln!(
        out,
        "Answers about one flag, {} customers of {FEATURES} features, while snapshots are written one after the other, and \
         without. With one connection the questions leave a core free.\n",
        grouped(plan.customers as f64, 0)
    )?;
    *out += "| Connections | Snapshots in 3 s | Questions/s | p50, µs | p99, µs |\n|---:|---:|---:|---:|---:|\n";
    for &connections in &plan.connections {
        for of in [|it: &Round| it.without, |it: &Round| it.with] {
            let rounds = answers.iter().filter(|it| it.connections == connections);
            let windows: Vec<Window> = rounds.map(of).collect();
            let figure = |get: fn(&Window) -> f64| Figure::of(windows.iter().map(get));
            writeln!(
                out,
                "| {connections} | {} | {} | {} | {} |",
                figure(|it| f64::from(it.snapshots)).text(0),
                figure(|it| it.per_second).text(0),
                figure(|it| it.p50_us).text(0),
                figure(|it| it.p99_us).text(0),
            )?;
        }
    }
    out.push('\n');
    Ok(())
}

fn slowdown(answers: &[Round], connections: usize) -> Figure {
    let rounds = answers.iter().filter(|it| it.connections == connections);
    Figure::of(rounds.map(|it| it.with.p99_us / it.without.p99_us))
}

fn size_table(out: &mut String, sizes: &Sizes) -> Result<()> {
    writeln!(
        out,
        "Memory of customers of {FEATURES} features, loaded by the queue. The last rows have `LOCAL_MAX_BYTES={BOUND}`.\n"
    )?;
    *out += "| Customers in the queue | Held | Evicted | RSS, MB | RSS, bytes a customer | Counted, bytes a customer |\n|---:|---:|---:|---:|---:|---:|\n";
    for steps in [&sizes.free, &sizes.bounded] {
        for size in &steps[1..] {
            writeln!(
                out,
                "| {} | {} | {} | {:.1} | {:.0} | {:.0} |",
                grouped(size.customers as f64, 0),
                grouped(size.held, 0),
                grouped(size.evicted, 0),
                size.rss / MB,
                (size.rss - steps[0].rss) / size.held,
                size.counted / size.held,
            )?;
        }
    }
    let [none, .., most] = sizes.free.as_slice() else {
        return Ok(());
    };
    let million = none.rss + 1e6 * (most.rss - none.rss) / most.held;
    // Three quarters of it are for the state.
    let bound = 1e6 * most.counted / most.held / 0.75;
    writeln!(
        out,
        "\nAn empty process has {:.1} MB. On paper, a million such customers need {:.0} MB, and a `LOCAL_MAX_BYTES` of at \
         least {:.0} MB.\n",
        none.rss / MB,
        million / MB,
        bound / MB,
    )?;
    Ok(())
}

fn targets(
    out: &mut String,
    plan: &Plan,
    drains: &Drains,
    answers: &[Round],
    sizes: &Sizes,
) -> Result<()> {
    *out += "| Target | Measured | |\n|---|---:|---|\n";
    let mut row = |aim: &str, measured: String, is_met: bool| {
        let verdict = if is_met { "met" } else { "**missed**" };
        writeln!(out, "| {aim} | {measured} | {verdict} |")
    };
    for (way, least) in [(Way::Tmpfs, 0.9), (Way::Disk, 0.6)] {
        let found = ratio(drains, way);
        let aim = format!(
            "{}: at least {least} times the rate of Redis mode",
            way.name()
        );
        row(&aim, found.text(2), found.median >= least)?;
    }
    for &connections in &plan.connections {
        let found = slowdown(answers, connections);
        let aim = format!(
            "p99 while snapshots are written, over {connections}, at most 2 times that without"
        );
        row(&aim, found.text(2), found.median <= 2.0)?;
    }
    let growth = |sizes: &[Size]| sizes.last().map_or(0.0, |it| it.rss) - sizes[0].rss;
    let grown = growth(&sizes.bounded);
    let aim = "memory grows by at most `LOCAL_MAX_BYTES`";
    let measured = format!("{:.0} of {:.0} MB", grown / MB, BOUND as f64 / MB);
    row(aim, measured, grown <= BOUND as f64)?;
    out.push('\n');
    Ok(())
}
