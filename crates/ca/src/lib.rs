//! The certificate authority: Istio's certificate service, authenticated by service account tokens.
//!
//! The only crate that touches the signing key. A certificate's name comes from the caller's token and from nothing
//! else; of the signing request only the public key is taken (ID-02). Impersonation (ID-05) is not offered: a node
//! asks for each workload with that workload's own token.

#![warn(missing_docs)]

mod config;
mod csr;
mod files;
mod keys;
mod plugged;
mod root;
mod roots;
mod rotation;
mod serve;
mod sign;

pub use config::{CaError, Config, Holder};
pub use plugged::{Files, check};
pub use root::Root;
pub use serve::run;
pub use sign::{Issued, MAX_LIFETIME, MAX_REQUEST, SignError, sign};

#[cfg(test)]
mod tests;
