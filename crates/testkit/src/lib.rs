//! For tests only: whole meshes started and ended, the data that others wrote, and honest counting.

#![warn(missing_docs)]
#![expect(clippy::panic, reason = "a test that cannot go on says why and ends")]

pub mod conformance;
pub mod decisions;
pub mod edges;
pub mod golden;
#[cfg(feature = "hostile")]
pub mod hostile;
pub mod issuer;
pub mod mesh;
pub mod ports;
