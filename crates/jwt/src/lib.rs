//! Request authentication: who a request says that it comes from, proven by a token (semantics 4).
//!
//! [`Authenticator`] is compiled from the RequestAuthentications that select a workload and from the keys of their
//! issuers. It does no I/O and reads no clock: keys are handed in, time is an argument.
//!
//! It never demands a token (P56): a request without one passes with nothing proven, and authorization decides it.

#![warn(missing_docs)]

mod authenticate;
mod claims;
mod fault;
mod json;
mod keys;
mod locations;
mod memory;
mod request;
mod rule;
mod signature;
mod spec;
mod token;

pub use authenticate::{Authenticated, Authenticator};
pub use claims::{Claims, MAX_HEADER_VALUE};
pub use fault::{Fault, Rejection};
pub use keys::{KeyProblem, Keys, MAX_JWKS, MAX_KEYS, MAX_TRIED};
pub use locations::MAX_TOKENS;
pub use memory::{MAX_REMEMBERED, MAX_REMEMBERED_TOKEN, Memory};
pub use request::{Edits, RequestView};
pub use rule::{Problem, ProblemKind, SKEW};
pub use spec::{AuthenticationSpec, ClaimHeader, HeaderLocation, Jwks, KeySource, RuleSpec};
pub use token::MAX_TOKEN;
