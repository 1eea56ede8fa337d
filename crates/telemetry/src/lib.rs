//! What happened: one [`Event`] on every way out of a proxy, turned into an access-log line and metrics.
//!
//! This is the only crate that names a metrics format. A caller fills an [`Event`] and hands it to
//! [`Telemetry::emit`], which never blocks and never fails: what cannot be written is counted.

#![warn(missing_docs)]

mod event;
mod metrics;
mod render;
mod sink;

pub use event::{Decision, Event, EventKind, ExtAuthz, HttpEvent, Peer, PolicyRef, Reporter, Wire};
pub use render::{Format, text};
pub use sink::{LOG_BACKLOG, LOG_QUEUE, LogTarget, Subscription, Telemetry, TelemetryOptions};
