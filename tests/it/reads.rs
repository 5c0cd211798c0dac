//! The read API, asked by those who ask it.

mod openfeature;
mod rules;
mod sdk;
