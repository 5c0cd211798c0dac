//! Judges whether a quantity grows in its second half.

use crate::samples::Series;

/// A growth over the second half up to this share is flat.
const MAX_GROWTH: f64 = 0.03;

pub struct Trend {
    pub first: f64,
    pub mean: f64,
    pub most: f64,
    /// From the middle to the end: of memory by the line of least squares. File descriptors and threads go up and down with
    /// the connections to the queue, so of these by the maximum of each half.
    pub growth: f64,
    pub is_flat: bool,
}

impl Trend {
    pub fn of(series: &Series, seconds: &[f64]) -> Trend {
        let half = seconds.len() / 2;
        let (times, values) = (&seconds[half..], &series.values[half..]);
        let mean = mean(values);
        let span = times.last().unwrap_or(&0.0) - times.first().unwrap_or(&0.0);
        let growth = match series.what.is_count() {
            true => most(values) - most(&series.values[..half]),
            false => slope(times, values) * span,
        };
        Trend {
            first: series.values.first().copied().unwrap_or_default(),
            mean,
            most: most(&series.values),
            growth,
            is_flat: growth <= (MAX_GROWTH * mean).max(series.what.noise()),
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

fn slope(times: &[f64], values: &[f64]) -> f64 {
    let (time, value) = (mean(times), mean(values));
    let pairs = || times.iter().zip(values);
    let along: f64 = pairs().map(|(t, v)| (t - time) * (v - value)).sum();
    let spread: f64 = times.iter().map(|t| (t - time).powi(2)).sum();
    if spread > 0.0 { along / spread } else { 0.0 }
}
