//! Request authentication: who a request says that it comes from, proven by a token (semantics 4).
//!
//! [`Authenticator`] is compiled from the RequestAuthentications that select a workload and from the keys of their
//! issuers. It does no I/O and reads no clock: keys are handed in, time is an argument.

#![warn(missing_docs)]

mod authenticate;
mod spec;

pub use authenticate::{Authenticated, Authenticator, Claims, Edits, Memory, Rejection, RequestView};
pub use spec::{AuthenticationSpec, ClaimHeader, HeaderLocation, Jwks, KeySource, RuleSpec};
