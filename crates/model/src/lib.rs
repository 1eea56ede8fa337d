//! The words that every other crate speaks: identities, names, addresses, protocols and reasons.
//!
//! Everything here is a value: parsed once, total to print, cheap to clone. Nothing here does I/O,
//! reads a clock or draws a random number, and nothing here knows a configuration format or a wire.

#![warn(missing_docs)]

mod cidr;
mod dialled;
mod host;
mod identity;
mod name;
mod protocol;
mod reason;
mod text;

pub use cidr::{Cidr, CidrError, canonical_ip};
pub use dialled::may_dial;
pub use host::{Host, HostError, split_authority};
pub use identity::{SpiffeId, SpiffeIdError, SpiffeUri, TrustDomain, TrustDomainError};
pub use name::{ServiceName, WorkloadId, WorkloadUid};
pub use protocol::{MtlsMode, Profile, Protocol};
pub use reason::Reason;
pub use text::Text;
