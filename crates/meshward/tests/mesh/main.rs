//! Whole meshes, started as users start them, with real programs in real network namespaces.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops where it fails"
)]

mod addressing;
mod clean;
mod explain;
mod external;
mod host;
mod live;
mod modes;
mod pki;
mod policy;
mod session;
mod tokens;
mod websocket;
mod wire;
mod world;
