//! The table of what other users of the same Redis notice.

use std::fmt::Write;

use anyhow::Result;

use super::Results;
use crate::measure::Shared;
use bench::figure::{Figure, grouped};

impl Results {
    pub(super) fn sharing_table(&self, out: &mut String) -> Result<()> {
        if self.shared.is_empty() {
            return Ok(());
        }
        *out += "### Redis, shared with other clients: 10 consumers, batches of 10, loopback\n\nA GET of another client, without the worker and during a full drain. Redis and that client have a core of their own, where Redis is not interrupted.\n\n| bodies | messages/s | of Redis, CPU µs a message | longest call of the worker, ms | its arguments | calls over 2 ms | GET alone: p50, ms | p99, ms | GET during the drain: p50, ms | p99, ms |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";
        for (bodies, values) in &self.shared {
            let figure =
                |of: fn(&Shared) -> f64, decimals| Figure::of(values.iter().map(of)).text(decimals);
            let sum =
                |of: fn(&Shared) -> u64| grouped(values.iter().map(of).sum::<u64>() as f64, 0);
            let (late, calls) = (sum(|it| it.calls.late), sum(|it| it.calls.count));
            writeln!(
                out,
                "| {} | {} | {} | {} | {} | {late} of {calls} | {} | {} | {} | {} |",
                bodies.name(),
                figure(|it| it.per_second, 0),
                figure(|it| it.redis_us, 0),
                figure(|it| it.calls.longest.as_secs_f64() * 1e3, 2),
                figure(|it| it.calls.words as f64 - 3.0, 0),
                figure(|it| it.alone.p50_ms, 2),
                figure(|it| it.alone.p99_ms, 2),
                figure(|it| it.beside.p50_ms, 2),
                figure(|it| it.beside.p99_ms, 2),
            )?;
        }
        out.push('\n');
        Ok(())
    }
}
