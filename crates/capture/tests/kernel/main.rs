//! Capture on the kernel that is there: real namespaces, links, rules and sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of it is tests, the functions that they share included"
)]

mod attempts;
mod dropped;
mod packets;
mod passes;
mod rootless;
mod world;
