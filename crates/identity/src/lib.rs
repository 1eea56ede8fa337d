//! Who a workload is, and how it proves it.
//!
//! Keys are made here and never leave the process; certificates come from a [`CertificateAuthority`] and are renewed at
//! half life by the [`Store`], which also ends and begins the mesh's mutual TLS: [`Store::accept`], [`Store::connect`].
//! A [`PeerIdentity`] can be had from those two alone: it is the proof that a peer's certificate was verified.

#![warn(missing_docs)]

mod authority;
mod error;
pub mod pki;
pub mod sniff;
mod store;
mod tls;
pub mod token;
mod verify;

pub use authority::{CaClient, CertificateAuthority, Signing, TokenFile};
pub use error::{IssueError, RootsError, TlsError};
pub use store::{CertificateStatus, Clock, Store, StoreOptions, SystemClock};
pub use tls::{Accepted, Connected, PeerIdentity};
