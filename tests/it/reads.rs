//! The read API, asked by those who ask it.

mod rules;
mod sdk;
