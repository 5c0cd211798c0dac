//! The answers of the probes.

use serde::Serialize;

/// The answer of `/livez`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Liveness {
    pub status: Status,
}

/// The answer of `/readyz`, its fields in the vendor's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Readiness {
    pub status: Status,
    pub consumers: usize,
    #[serde(flatten)]
    pub store: StoreLink,
}

/// Whether the store takes changes, under the name of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreLink {
    Redis(Link),
    /// In this process.
    Store(Link),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    Up,
    Down,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Link {
    Connected,
    Disconnected,
}
