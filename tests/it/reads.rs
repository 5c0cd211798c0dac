//! The read API, asked by those who ask it.

mod clients;
mod openfeature;
mod rules;
mod sdk;
