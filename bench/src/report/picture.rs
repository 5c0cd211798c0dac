//! The picture of the tables.

use std::fmt::Write;

use anyhow::Result;

use super::Results;
use crate::contestants::Kind;
use crate::measure::Drained;
use bench::figure::{Figure, grouped};

impl Results {
    /// Bars for 10 consumers and batches of 10: the rate at each distance, CPU and memory.
    pub(super) fn picture(&self) -> Result<String> {
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
