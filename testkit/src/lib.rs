//! What the integration tests, the chaos campaign and the bench share.

#![allow(clippy::unwrap_used)]

pub mod mix;
#[cfg(feature = "servers")]
mod servers;

#[cfg(feature = "servers")]
pub use servers::*;
