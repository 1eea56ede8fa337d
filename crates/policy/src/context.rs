//! What a decision depends on beside the policies.

use model::{Profile, TrustDomain};

use crate::path::Mode;

/// Whether the engine is Istio exactly or takes the listed closed deviations (semantics 14).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Compat {
    /// Where upstream fails open, this fails closed.
    #[default]
    Secure,
    /// Upstream's decisions, surprises included.
    Istio,
}

impl From<Profile> for Compat {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::Secure => Self::Secure,
            Profile::Istio => Self::Istio,
        }
    }
}

/// What of the mesh's settings a decision depends on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Context {
    /// The mesh's trust domain.
    pub trust_domain: TrustDomain,
    /// Other names of the same mesh (semantics 2.15).
    pub aliases: Vec<TrustDomain>,
    /// Whether a workload that no ALLOW policy selects is closed (P3).
    pub deny_by_default: bool,
    /// Which semantics apply where ours and upstream's differ.
    pub compat: Compat,
    /// The form in which the mesh writes paths; a path of another form in a policy never matches (R50).
    pub paths: Mode,
}
