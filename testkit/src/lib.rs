//! What the integration tests, the chaos campaign and the bench share.

// What goes wrong here fails a test, and what is made here costs files and processes, which no default value should.
#![allow(clippy::unwrap_used, clippy::new_without_default)]

#[cfg(feature = "servers")]
pub mod events;
pub mod mix;
#[cfg(feature = "servers")]
mod servers;

#[cfg(feature = "servers")]
pub use servers::*;
