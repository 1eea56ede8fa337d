//! Request authentication, case by case, and properties that hold of all tokens.
#![allow(
    clippy::cloned_ref_to_slice_refs,
    clippy::type_complexity,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    reason = "tests may panic and report"
)]

mod authorized;
mod keys;
mod locations;
mod memory;
mod outcome;
mod property;
mod speed;
mod validation;
mod world;
