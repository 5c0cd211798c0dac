//! The project itself: its design, its documents, and the tools of the tests.

mod architecture;
mod docs;
mod examples;
mod first_contact;
mod harness;
