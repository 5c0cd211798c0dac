//! Servers, faults, and the worker itself, each a value that lives as long as its test.

pub mod aws;
pub mod certs;
pub mod clock;
pub mod cluster;
pub mod edge;
pub mod fault;
pub mod forward;
pub mod http;
pub mod https;
pub mod openfeature;
pub mod operator;
pub mod process;
pub mod proxy;
pub mod reader;
pub mod redis;
pub mod sdk;
pub mod sentinel;
pub mod sqs;
pub mod worker;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

pub use clock::Clock;
pub use edge::{Answer, EdgeMock};
pub use fault::{Fault, FaultProxy};
pub use nix::sys::signal::Signal;
pub use operator::Operator;
pub use proxy::TcpProxy;
pub use reader::Reader;
pub use redis::Redis;
pub use sqs::{Sqs, TestQueue};
pub use worker::Worker;

/// Waits for a condition, asking every 20 ms, and fails the test with `what` if it has not come true in time.
/// Tests wait with this and never sleep for luck.
pub async fn until(what: &str, timeout: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(timeout, wait).await.is_err() {
        panic!("waited {timeout:?} in vain: {what}");
    }
}

/// A loopback port without a listener. It lies below the range that the system takes the ports of outgoing
/// connections from, so a server that goes away and comes back finds its port still free. Each of the tests that
/// nextest runs at once has ports of its own, so that none is taken between the look and the use.
pub fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    const PORTS: u16 = 1_500;
    const TESTS: u16 = 14;
    let slot = std::env::var("NEXTEST_TEST_GLOBAL_SLOT").ok();
    let slot: u16 = slot.and_then(|slot| slot.parse().ok()).unwrap_or(0);
    let next = NEXT.get_or_init(|| AtomicU16::new(fastrand::u16(..PORTS)));
    loop {
        let port = next.fetch_add(1, Ordering::Relaxed) % PORTS;
        let port = 10_000 + slot % TESTS * PORTS + port;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A file of this repository.
pub fn repo(path: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join(path)
}

/// The program under test. cargo and nextest name it to the tests of its package at run time; a constant of the compiler
/// would exist in those tests only.
pub fn program() -> PathBuf {
    let named = ["NEXTEST", "CARGO"].map(|by| format!("{by}_BIN_EXE_entitlement-sync"));
    let path = named.iter().find_map(std::env::var_os);
    path.map(PathBuf::from)
        .unwrap_or_else(|| panic!("{named:?} are not set: run the tests by cargo or nextest"))
}

/// Something that `script/setup` installs.
fn tool(path: &str) -> PathBuf {
    let found = repo(".tools").join(path);
    assert!(
        found.exists(),
        "{} is not there: run script/setup first",
        found.display()
    );
    found
}

/// A port for a server of ours that runs in a task.
async fn listen(port: u16) -> tokio::net::TcpListener {
    tokio::net::TcpListener::bind(("127.0.0.1", port))
        .await
        .unwrap()
}
