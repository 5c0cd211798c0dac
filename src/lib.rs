//! Keeps the Redis keys that Stigg's server SDK reads up to date from an SQS queue.
//!
//! The modules in the order of the data: [`consumer`], of which there is a [`pool`], receives from [`queue`]; [`message`]
//! reads what a body says; [`plan`] decides what to write; [`store`] compares and writes, atomically. Only what Redis holds
//! is acknowledged.
//!
//! Around them: only [`config`] reads the environment, and only [`keys`] builds a key.
//! [`health`] holds the health of the process, [`server`] serves it, [`telemetry`] and
//! [`metrics`] record the work, [`edge`] calls the vendor's API, [`shutdown`] handles signals, and [`app`]
//! connects the parts.
//!
//! Deliberately absent: coordination between processes; a trait in front of the store; retries of
//! the SDKs around receiving and writing; globals; anything that logs a body. docs/architecture.md
//! says more, and a test holds it.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod app;
pub mod clock;
pub mod config;
pub mod consumer;
pub mod edge;
mod foreign_text;
pub mod health;
mod http_agent;
pub mod memory;
pub mod metrics;
pub mod pool;
pub mod queue;
pub mod reads;
pub mod runtime;
pub mod saving;
pub mod serve;
pub mod server;
pub mod shutdown;
pub mod snapshot;
pub mod status;
pub mod store;
pub mod telemetry;
pub mod version;

pub use entitlement_core::{keys, message, plan, reader};
