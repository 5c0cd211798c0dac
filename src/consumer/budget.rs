//! Limits the bytes of bodies in flight, so that memory stays bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::Metrics;

/// Bytes in flight, shared by all consumers. A receive reserves the bytes of its answer, estimated from
/// the largest recent body, and keeps its actual bytes until the messages are finished.
#[derive(Debug, Clone)]
pub struct Budget {
    room: Arc<Semaphore>,
    total: u32,
    /// The largest recent body, in KiB.
    largest: Arc<AtomicUsize>,
    in_use: Gauge,
}

/// Bytes that stay reserved until this is dropped.
#[derive(Debug)]
pub struct Reserved {
    permit: OwnedSemaphorePermit,
    in_use: Gauge,
    bytes: i64,
}

/// The largest body in SQS.
const MAX_BODY_KIB: usize = 1024;
/// The smallest estimate of a body, which is also the first one.
const MIN_ESTIMATE_KIB: usize = 16;

/// Returns the effective limit: `bytes`, or a quarter of `memory_limit` and at most 64 MiB; one body fits in any case.
pub fn limit_kib(bytes: Option<usize>, memory_limit: Option<u64>) -> u32 {
    const MAX_DEFAULT_BYTES: usize = 64 << 20;
    let bytes = bytes.unwrap_or_else(|| {
        let quarter = memory_limit.map_or(usize::MAX, |limit| {
            usize::try_from(limit / 4).unwrap_or(usize::MAX)
        });
        quarter.min(MAX_DEFAULT_BYTES)
    });
    u32::try_from(bytes >> 10).unwrap_or(u32::MAX).max(1024)
}

impl Budget {
    /// Creates a budget of `bytes`, or a quarter of `memory_limit` and at most 64 MiB.
    pub fn new(bytes: Option<usize>, memory_limit: Option<u64>, metrics: &Metrics) -> Self {
        let total = limit_kib(bytes, memory_limit);
        metrics.inflight_bytes_limit.set(i64::from(total) << 10);
        Self {
            room: Arc::new(Semaphore::new(total as usize)),
            total,
            largest: Arc::new(AtomicUsize::new(MIN_ESTIMATE_KIB)),
            in_use: metrics.inflight_bytes.clone(),
        }
    }

    /// Waits for room for `messages`. A request above the limit waits for the whole limit.
    pub async fn reserve(&self, messages: usize) -> Reserved {
        let kib = self.expected_kib(messages);
        match self.room.clone().acquire_many_owned(kib).await {
            Ok(permit) => Reserved::new(permit, self.in_use.clone()),
            Err(_) => unreachable!("the semaphore is never closed"),
        }
    }

    /// Reserves room for `messages` if there is room now.
    pub fn try_reserve(&self, messages: usize) -> Option<Reserved> {
        let kib = self.expected_kib(messages);
        let permit = self.room.clone().try_acquire_many_owned(kib).ok()?;
        Some(Reserved::new(permit, self.in_use.clone()))
    }

    fn expected_kib(&self, messages: usize) -> u32 {
        let kib = self.largest.load(Ordering::Relaxed) * messages;
        u32::try_from(kib).unwrap_or(u32::MAX).min(self.total)
    }

    /// Adjusts a reservation to the bytes received: releases the rest, or takes more.
    pub fn settle(&self, reserved: &mut Reserved, bodies: impl Iterator<Item = usize>) {
        let (mut total, mut largest) = (0, 0);
        for bytes in bodies {
            let kib = bytes.div_ceil(1024).max(1);
            total += kib;
            largest = largest.max(kib);
        }
        self.learn(largest.min(MAX_BODY_KIB));
        let held = reserved.permit.num_permits();
        if total < held {
            drop(reserved.permit.split(held - total));
        } else {
            // The messages are already in memory, so it does not wait; later receives wait instead.
            let more = (total - held).min(self.room.available_permits());
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            if let Ok(more) = self.room.clone().try_acquire_many_owned(more) {
                reserved.permit.merge(more);
            }
        }
        reserved.measure();
    }

    /// Raises the estimate at once after a larger body, and lowers it slowly.
    fn learn(&self, largest: usize) {
        if largest == 0 {
            return;
        }
        let before = self.largest.load(Ordering::Relaxed);
        let now = if largest >= before {
            largest
        } else {
            before - (before - largest).div_ceil(64)
        };
        self.largest
            .store(now.max(MIN_ESTIMATE_KIB), Ordering::Relaxed);
    }
}

impl Reserved {
    fn new(permit: OwnedSemaphorePermit, in_use: Gauge) -> Self {
        let mut reserved = Self {
            permit,
            in_use,
            bytes: 0,
        };
        reserved.measure();
        reserved
    }

    fn measure(&mut self) {
        let bytes = i64::try_from(self.permit.num_permits() << 10).unwrap_or(i64::MAX);
        self.in_use.inc_by(bytes - self.bytes);
        self.bytes = bytes;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.in_use.dec_by(self.bytes);
    }
}

/// Returns the memory limit of this process's cgroup, if there is one.
pub fn memory_limit() -> Option<u64> {
    let limit = |path| {
        std::fs::read_to_string(path)
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    };
    limit("/sys/fs/cgroup/memory.max")
        .or_else(|| limit("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
        // Version 1 writes "none" as a number near the maximum.
        .filter(|limit| *limit < 1 << 50)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(bytes: usize) -> Budget {
        Budget::new(Some(bytes), None, &Metrics::new().0)
    }

    #[tokio::test]
    async fn large_bodies_make_the_next_receives_wait() {
        let budget = budget(4 << 20);
        let mut first = budget.reserve(10).await;
        budget.settle(&mut first, std::iter::repeat_n(1 << 20, 3));
        let waits = tokio::time::timeout(std::time::Duration::from_millis(20), budget.reserve(10));
        assert!(waits.await.is_err(), "there is room for 1 MiB only");
        drop(first);
        let _second = budget.reserve(10).await;
        assert_eq!(budget.in_use.get(), 4 << 20);
    }

    #[tokio::test]
    async fn what_was_reserved_in_vain_is_given_back() {
        let budget = budget(4 << 20);
        let mut reserved = budget.reserve(10).await;
        budget.settle(&mut reserved, std::iter::empty());
        assert_eq!(budget.room.available_permits(), 4 << 10);
        drop(reserved);
        assert_eq!(budget.in_use.get(), 0);
    }

    #[tokio::test]
    async fn a_large_body_is_forgotten_slowly() {
        let budget = budget(64 << 20);
        budget.learn(1024);
        for _ in 0..50 {
            budget.learn(1);
        }
        let largest = budget.largest.load(Ordering::Relaxed);
        assert!((200..800).contains(&largest), "{largest}");
    }

    #[test]
    fn the_default_is_a_quarter_of_the_limit_and_64_mib_at_most() {
        let total = |limit| Budget::new(None, limit, &Metrics::new().0).total >> 10;
        assert_eq!(total(Some(128 << 20)), 32);
        assert_eq!(total(Some(4 << 30)), 64);
        assert_eq!(total(None), 64);
    }
}
