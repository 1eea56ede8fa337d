//! The Unix socket by which the command line speaks with the parts of a mesh.
//!
//! One request a connection: a line of JSON, `{"verb": "...", "body": ...}`, with file descriptors beside it
//! where the verb wants some, as beside an item where it gives some. The answer is lines of JSON: any number of `{"item": ...}`, then one `{"ok": ...}` or
//! `{"error": {"message", "exit"}}`. Who may speak is decided by the kernel's word on the peer ([`permitted`]),
//! before a byte is read; nothing here listens on a network.

#![warn(missing_docs)]

mod client;
mod failure;
mod line;
mod rundir;
mod server;
pub mod trust;
pub mod verbs;

pub use client::{Answer, CallError, call};
pub use failure::{Exit, Failure};
pub use line::{MAX_FDS, MAX_LINE};
pub use rundir::{BASE_VARIABLE, MAX_NAME, NameError, RunDir, base};
pub use server::{Call, Handler, Items, MAX_CALLS, permitted, serve, serve_instead};

#[cfg(test)]
mod tests;
