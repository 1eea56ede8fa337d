//! The sets of conformance data that are played on a running mesh.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops where it fails"
)]

mod dashboards;
mod observed;
mod security;
