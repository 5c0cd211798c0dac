//! Decides how much memory the copy may take.

/// What is kept in memory without a memory limit, and at most.
const MAX_BYTES: u64 = 256 << 20;

/// How much memory may be taken.
#[derive(Debug, Clone, Copy)]
pub struct MaxBytes {
    pub total: u64,
    /// For a state in this process.
    pub of_state: u64,
}

/// Returns how much memory may be taken: as configured, else by the memory limit.
pub fn max_bytes(configured: Option<u64>, memory_limit: Option<u64>) -> MaxBytes {
    let of_limit = |limit: u64| (limit / 4).min(MAX_BYTES);
    let total = configured.unwrap_or_else(|| memory_limit.map_or(MAX_BYTES, of_limit));
    MaxBytes {
        total,
        of_state: total / 4 * 3,
    }
}
