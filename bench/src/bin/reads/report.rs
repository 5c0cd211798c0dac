//! The tables, and what they say of the targets.

use std::fmt::Write;

use anyhow::Result;

use bench::figure::{Figure, grouped};

use super::crowd::BOUND;
use super::{Measured, Plan, Question, Sample, Who};

const MIB: f64 = 1024.0;

pub fn text(heading: &str, plan: &Plan, measured: &Measured) -> Result<String> {
    let mut out = format!("{heading}\n\n");
    table(&mut out, plan, measured)?;
    memory(&mut out, plan, measured)?;
    targets(&mut out, plan, measured)?;
    Ok(out)
}

/// The figures of one kind of question, by round.
type Asked = (Question, usize, Who);

fn figure(measured: &Measured, asked: Asked, of: fn(&Sample) -> f64) -> Figure {
    Figure::of(measured.samples[&asked].iter().map(of))
}

/// Of a figure of `than`, in the same round.
fn ratio(measured: &Measured, asked: Asked, than: Who, of: fn(&Sample) -> f64) -> Figure {
    let (question, connections, _) = asked;
    let (ours, others) = (
        &measured.samples[&asked],
        &measured.samples[&(question, connections, than)],
    );
    Figure::of(ours.iter().zip(others).map(|(it, than)| of(it) / of(than)))
}

fn table(out: &mut String, plan: &Plan, measured: &Measured) -> Result<()> {
    writeln!(
        out,
        "{} customers of {} features.\n",
        grouped(plan.customers as f64, 0),
        plan.features
    )?;
    *out += "| Question | Connections | Server | Questions/s | of the floor | CPU, µs | with Redis, µs | p50, µs | p99, µs | p99, of the floor |\n|---|---:|---|---:|---:|---:|---:|---:|---:|---:|\n";
    for asked in measured.samples.keys() {
        let (question, connections, who) = *asked;
        let of = |of: fn(&Sample) -> f64| figure(measured, *asked, of);
        writeln!(
            out,
            "| {} | {connections} | {} | {} | {} | {} | {} | {} | {} | {} |",
            question.name(),
            who.name(),
            of(|it| it.rate).text(0),
            ratio(measured, *asked, Who::Floor, |it| it.rate).text(2),
            of(|it| it.cpu_micros).text(1),
            of(|it| it.with_redis_micros).text(1),
            of(|it| it.p50_micros).text(0),
            of(|it| it.p99_micros).text(0),
            ratio(measured, *asked, Who::Floor, |it| it.p99_micros).text(1),
        )?;
    }
    out.push('\n');
    Ok(())
}

fn memory(out: &mut String, plan: &Plan, measured: &Measured) -> Result<()> {
    let (before, after) = measured.rss_kib;
    writeln!(
        out,
        "Memory: {:.1} MB before, {:.1} MB with {} customers: {:.0} bytes a customer. A change is answered {:.2} ms after it \
         was sent (median), {:.2} ms (p99).\n",
        before as f64 / MIB,
        after as f64 / MIB,
        grouped(plan.customers as f64, 0),
        (after.saturating_sub(before) * 1024) as f64 / plan.customers as f64,
        measured.visible_millis.0,
        measured.visible_millis.1,
    )?;
    if let Some(crowd) = &measured.crowd {
        writeln!(
            out,
            "{} customers, asked for in turn with `LOCAL_MAX_BYTES={BOUND}`, which is the default in a container of 256 MB: at \
             most {:.1} MB were counted and {:.1} MB resident; {} copies were evicted.\n",
            grouped(crowd.customers as f64, 0),
            crowd.most_counted / MIB / 1024.0,
            crowd.peak_rss_kib as f64 / MIB,
            grouped(crowd.evicted, 0),
        )?;
    }
    Ok(())
}

fn targets(out: &mut String, plan: &Plan, measured: &Measured) -> Result<()> {
    *out += "| Target | Measured | |\n|---|---:|---|\n";
    let mut row = |aim: &str, measured: &str, is_met: bool| {
        let verdict = if is_met { "met" } else { "**missed**" };
        writeln!(out, "| {aim} | {measured} | {verdict} |")
    };
    for question in [Question::Flag, Question::List] {
        for &connections in &plan.connections {
            let asked = (question, connections, Who::Copy);
            if !measured.samples.contains_key(&asked) {
                continue;
            }
            let name = format!("{}, {connections} connections", question.name());
            let rate = ratio(measured, asked, Who::Floor, |it| it.rate);
            let aim = format!("{name}: at least 0.70 of the floor's rate");
            row(&aim, &rate.text(2), rate.median >= 0.7)?;
            let late = ratio(measured, asked, Who::Floor, |it| it.p99_micros);
            let aim = format!("{name}: p99 at most 2 times the floor's");
            row(&aim, &late.text(1), late.median <= 2.0)?;
            let node = (question, connections, Who::Node);
            if !measured.samples.contains_key(&node) {
                continue;
            }
            let cpu = |asked| figure(measured, asked, |it| it.cpu_micros).median;
            let of_node = |of| cpu(node) / cpu((question, connections, of));
            let aim = format!("{name}: CPU at most 1/10 of Node's");
            let found = format!(
                "1/{:.1} (the floor itself: 1/{:.1})",
                of_node(Who::Copy),
                of_node(Who::Floor)
            );
            row(&aim, &found, of_node(Who::Copy) >= 10.0)?;
        }
    }
    let held = measured.rss_kib.1 as f64 / MIB;
    let aim = format!(
        "{} customers in at most 200 MB",
        grouped(plan.customers as f64, 0)
    );
    row(&aim, &format!("{held:.1} MB"), held <= 200.0)?;
    let median = measured.visible_millis.0;
    row(
        "a change is answered within 50 ms at the median",
        &format!("{median:.2} ms"),
        median <= 50.0,
    )?;
    if let Some(crowd) = &measured.crowd {
        let resident = crowd.peak_rss_kib as f64 / MIB;
        let is_met = crowd.most_counted <= BOUND as f64 && resident <= 256.0;
        let aim = "`LOCAL_MAX_BYTES` holds, and 256 MB are enough, for a million customers";
        row(aim, &format!("{resident:.1} MB resident"), is_met)?;
    }
    out.push('\n');
    Ok(())
}
