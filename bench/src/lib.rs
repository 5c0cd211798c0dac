//! What the programs of the bench share.

pub mod mix;
pub mod process;
