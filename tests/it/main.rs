//! The integration tests: the real binary between a real Redis and a local SQS. nextest gives every
//! test its own process, and every test starts the servers it needs and takes them down with it.

#![allow(clippy::unwrap_used)]

mod commands;
mod delivery;
mod memory;
mod operations;
mod project;
mod reads;
mod redis;
mod snapshot;
mod stand;
