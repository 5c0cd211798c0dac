//! What the programs of the bench share.

pub mod drain;
pub mod environment;
pub mod figure;
pub mod page;
pub mod process;
pub mod questions;
pub mod servers;
