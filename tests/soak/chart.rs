//! Draws the samples: a panel for each quantity, a line for each process.

use std::fmt::Write as _;

use crate::samples::{Quantity, Samples, Series};

const WIDTH: f64 = 720.0;
const LEFT: f64 = 50.0;
const PLOT: f64 = 560.0;
const HEIGHT: f64 = 90.0;
/// From the top of a panel to the top of the next.
const STEP: f64 = HEIGHT + 50.0;
const TOP: f64 = 60.0;

pub fn draw(samples: &Samples) -> String {
    let panels = [
        Quantity::RssMib,
        Quantity::UsedMemoryMib,
        Quantity::FileDescriptors,
        Quantity::Threads,
    ];
    let height = TOP + panels.len() as f64 * STEP;
    let length = samples.seconds.last().copied().unwrap_or_default();
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="10" y="22" font-size="14" font-weight="bold">A steady load for {:.0} minutes</text>
"##,
        length / 60.0
    );
    for (place, what) in panels.into_iter().enumerate() {
        let lines: Vec<&Series> = samples.series.iter().filter(|it| it.what == what).collect();
        panel(&mut svg, TOP + place as f64 * STEP, what, &lines, samples);
    }
    svg + "</svg>\n"
}

fn panel(svg: &mut String, top: f64, what: Quantity, lines: &[&Series], samples: &Samples) {
    let values = || lines.iter().flat_map(|line| &line.values);
    let most = values().copied().fold(1.0, f64::max) * 1.1;
    let length = samples.seconds.last().copied().unwrap_or(1.0).max(1.0);
    let (bottom, right) = (top + HEIGHT, LEFT + PLOT);
    let middle = LEFT + PLOT / 2.0;
    writeln!(
        svg,
        r##"<text x="10" y="{:.0}" font-weight="bold">{}</text>
<path d="M{LEFT} {top}V{bottom}H{right}" stroke="#202124" fill="none"/>
<path d="M{middle} {top}V{bottom}" stroke="#dadce0" fill="none"/>
<text x="{:.0}" y="{:.0}" text-anchor="end">{most:.0}</text>
<text x="{:.0}" y="{bottom:.0}" text-anchor="end">0</text>
<text x="{right}" y="{:.0}" text-anchor="end">{:.0} min</text>"##,
        top - 8.0,
        what.name(),
        LEFT - 6.0,
        top + 8.0,
        LEFT - 6.0,
        bottom + 14.0,
        length / 60.0
    )
    .unwrap();
    for line in lines {
        let colour = match line.of {
            "worker" => "#1a73e8",
            "serve" => "#e8710a",
            _ => "#9aa0a6",
        };
        let height = |value: f64| bottom - value / most * HEIGHT;
        let mut points = String::new();
        for (seconds, value) in samples.seconds.iter().zip(&line.values) {
            let along = LEFT + seconds / length * PLOT;
            write!(points, "{along:.1},{:.1} ", height(*value)).unwrap();
        }
        let last = line.values.last().copied().unwrap_or_default();
        writeln!(
            svg,
            r#"<polyline points="{}" stroke="{colour}" fill="none"/>
<text x="{:.0}" y="{:.1}" fill="{colour}">{} {last:.1}</text>"#,
            points.trim_end(),
            right + 6.0,
            height(last) + 4.0,
            line.of
        )
        .unwrap();
    }
}
