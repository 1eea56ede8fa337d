//! What happened: one [`Event`] on every way out of a proxy, turned into an access-log line and metrics.
//!
//! This is the only crate that names a metrics format. A caller fills an [`Event`] and hands it to
//! [`Telemetry::emit`], which never blocks and never fails: what cannot be written is counted.

#![warn(missing_docs)]

mod board;
mod event;
mod metrics;
pub mod otlp;
mod process;
mod redact;
mod render;
mod sink;
mod trace;
mod traffic;

pub use board::{Board, Counts, Spread};
pub use event::{Decision, Event, EventKind, ExtAuthz, HttpEvent, Peer, PolicyRef, Reporter, Wire};
pub use render::{Format, text};
pub use sink::{
    Attached, FLUSH, LOG_BACKLOG, LOG_QUEUE, LogTarget, SPAN_QUEUE, Subscription, Telemetry, TelemetryOptions,
};
pub use trace::{Finished, Span, SpanKind, SpanOwner, TraceContext};
pub use traffic::{Flow, Known, Progress};
