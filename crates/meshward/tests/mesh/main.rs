//! Whole meshes, started as users start them, with real programs in real network namespaces.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where it fails"
)]

mod addressing;
mod change;
mod clean;
mod egress;
mod explain;
mod external;
mod faults;
mod garbage;
mod host;
mod live;
mod modes;
mod names;
mod pki;
mod policy;
mod secrets;
mod seen;
mod session;
mod steady;
mod strangers;
mod survey;
mod tokens;
mod tracing;
mod websocket;
mod wire;
mod world;
