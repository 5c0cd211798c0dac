//! What the programs of the bench share.

pub mod process;
