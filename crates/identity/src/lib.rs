//! Who a workload is, and how it proves it.
//!
//! Keys are made here and never leave the process; certificates come from a [`CertificateAuthority`] and are renewed at
//! half life by the [`Store`], which also ends and begins the mesh's mutual TLS: [`Store::accept`], [`Store::connect`].
//! A [`PeerIdentity`] can be had from those two alone (or from [`Store::local_peer`], where both ends are here): it is
//! the proof that a peer's certificate was verified.
//!
//! Sessions are never resumed: each connection proves anew who is at both ends, by certificates that are valid now.

#![warn(missing_docs)]

mod ahead;
mod authority;
mod clock;
mod error;
pub mod pki;
pub mod sniff;
mod store;
mod tls;
pub mod token;
mod verify;

pub use ahead::ReadAhead;
pub use authority::{CaClient, CaName, CertificateAuthority, Signing, TokenFile};
pub use clock::{Clock, SystemClock};
pub use error::{IssueError, PeerProblem, RootsError, TlsError};
pub use store::{CertificateStatus, Standing, Store, StoreOptions};
pub use tls::{Accepted, ClientStream, Connected, PeerIdentity, ServerStream};
pub use verify::{Anchors, ListStatus, Purpose, crypto};
