//! Chooses the number of threads for the consumers. Health and metrics have a thread of their own.

use std::io;
use std::num::NonZero;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};

/// The number of consumers that saturate one thread, at batches of ten and calls of 13 ms. A second
/// thread costs a fifth more CPU per message: threads wake each other and share data across their
/// caches.
const CONSUMERS_PER_THREAD: usize = 20;

/// Returns the number of threads for a number of consumers.
pub fn for_consumers(consumers: usize) -> io::Result<Runtime> {
    let cores = available_parallelism().map_or(1, NonZero::get);
    let mut builder = match threads(consumers, cores) {
        1 => Builder::new_current_thread(),
        threads => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(threads);
            builder
        }
    };
    builder.enable_all().build()
}

/// `cores` are those that the process may use: containers have limits.
fn threads(consumers: usize, cores: usize) -> usize {
    consumers.div_ceil(CONSUMERS_PER_THREAD).min(cores).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_thread_for_every_twenty_consumers_and_never_more_than_cores() {
        for (consumers, cores, expected) in [
            (1, 8, 1),
            (20, 8, 1),
            (21, 8, 2),
            (40, 8, 2),
            (40, 1, 1),
            (1_000, 4, 4),
            (0, 0, 1),
        ] {
            assert_eq!(threads(consumers, cores), expected, "{consumers}, {cores}");
        }
    }
}
