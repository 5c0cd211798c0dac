//! Decides what a message means and what a reader gets as an answer. Pure: no I/O, no clock, no runtime.
//!
//! - [`message`] reads a body and returns its changes.
//! - [`keys`] builds and parses the Redis keys.
//! - [`plan`] turns a change into the keys and values to write.
//! - [`reader`] turns stored values into the answer that an SDK would give.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod keys;
pub mod message;
pub mod plan;
pub mod reader;
