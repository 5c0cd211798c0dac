//! Watches a full queue while somebody drains it.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::process::Process;
use crate::servers::{Counts, QueueServer};

/// Of so few messages, one more or less would tell: the window gets longer, up to so many times.
const FEW: u64 = 100;
const LONGEST: f64 = 4.0;

#[derive(Debug, Clone, Copy)]
pub struct Timing {
    pub warm: Duration,
    pub window: Duration,
}

/// The queue at one moment, and what else was looked at.
#[derive(Debug)]
pub struct Sample<T> {
    pub at: Instant,
    pub counts: Counts,
    pub of: T,
}

/// Waits until messages are deleted, and for the warm-up. Ends it early if the queue would run dry.
pub fn warm_up(server: &mut QueueServer, queue: &str, total: usize, timing: Timing) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while server.counts(queue)?.deleted == 0 {
        if Instant::now() > deadline {
            bail!("nothing was deleted within 30 s");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let enough = (total / 4) as u64;
    let warm = Instant::now() + timing.warm;
    while Instant::now() < warm && server.counts(queue)?.left > 3 * enough {
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Returns the first and the last sample of a window. `of` is given the process of the queue server.
pub fn watch<T>(
    server: &mut QueueServer,
    queue: &str,
    total: usize,
    timing: Timing,
    mut of: impl FnMut(&Process) -> Result<T>,
) -> Result<(Sample<T>, Sample<T>)> {
    let mut sample = || -> Result<Sample<T>> {
        let before = Instant::now();
        let counts = server.counts(queue)?;
        let at = before + before.elapsed() / 2;
        let of = of(&server.process)?;
        Ok(Sample { at, counts, of })
    };
    let first = sample()?;
    let last = loop {
        std::thread::sleep(Duration::from_millis(20));
        let now = sample()?;
        let dry = now.counts.left < (total / 50) as u64;
        let windows = now.at.duration_since(first.at).as_secs_f64() / timing.window.as_secs_f64();
        let few = now.counts.deleted - first.counts.deleted < FEW;
        if dry || windows >= LONGEST || windows >= 1.0 && !few {
            break now;
        }
    };
    if last.counts.deleted == first.counts.deleted {
        bail!("nothing was deleted within the window");
    }
    Ok((first, last))
}
