//! Keeps encrypted snapshots and a journal in a folder, so that a restart loses nothing that was acknowledged.
//!
//! Records are opaque bytes. All calls block; callers run them on a thread for blocking work.
//! docs/snapshots.md describes the format and what a restart does with each kind of damage.

mod error;
mod examine;
mod files;
mod folder;
mod frame;
mod header;
mod journal;
mod keys;
mod lock;
mod open;
mod place;
mod records;
mod restore;
mod seal;
mod secret;
mod walk;
mod writer;

pub use error::{OpenError, RestoreError};
pub use examine::{Checked, ExamineError, Examined, Holds, examine};
pub use folder::Folder;
pub use header::{Header, Part, VERSION as FORMAT_VERSION};
pub use journal::Journal;
pub use keys::{Derivation, Ring};
pub use records::MAX_RECORD_BYTES;
pub use restore::{Damage, Restored, TakenSnapshot};
pub use secret::Secret;
pub use writer::{Writer, Written};
