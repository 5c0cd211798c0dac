//! What the integration tests, the chaos campaign and the bench share.

#![allow(clippy::unwrap_used)]

mod servers;

pub use servers::*;
