//! A message from the queue to Redis, and what readers then find.

mod acknowledgement;
mod batches;
pub mod fixtures;
pub mod fuzz;
mod large;
pub mod memory;
mod ordering;
mod purge;
mod remarks;
mod sdk;
mod sdk4;
mod ttl;
mod unknown;
mod visibility;
mod wrappings;
