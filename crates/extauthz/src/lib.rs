//! External authorization: what an authorizer is asked, and what is made of its answer. No I/O and no clock.
//!
//! An authorizer is asked by Envoy's `ext_authz` v3 over gRPC, or by an HTTP request (semantics 2.13). [`question`]
//! makes the message, [`answer`] reads what comes back, all or nothing, and [`Changes`] is what an admitting answer
//! does to the request and its response. Nothing that an authorizer says can speak for the proxy.

#![warn(missing_docs)]

mod answer;
mod changes;
mod frame;
mod question;

pub use answer::{Answer, AnswerError, Denied};
pub use changes::{Changes, Field, How, Unfit};
pub use frame::{FrameError, MAX_MESSAGE, frame, unframe};
pub use question::{Asked, CHECK_METHOD, Connection, HttpQuestion, Party, SeenBody};

/// What comes back, as a value: from gRPC, from HTTP.
pub mod read {
    pub use super::answer::{grpc, http};
}

/// What is asked: by gRPC, by HTTP.
pub mod ask {
    pub use super::question::{grpc, http};
}
