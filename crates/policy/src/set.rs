//! The policies that select one workload, compiled.

use std::sync::Arc;

use model::{Profile, TrustDomain};

use crate::{PolicyId, PolicySpec};

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
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The mesh's trust domain.
    pub trust_domain: TrustDomain,
    /// Other names of the same mesh (semantics 2.15).
    pub aliases: Vec<TrustDomain>,
    /// Whether a workload that no ALLOW policy selects is closed (P3).
    pub deny_by_default: bool,
    /// Which semantics apply where ours and upstream's differ.
    pub compat: Compat,
}

/// The policies that select one workload, compiled. Cheap to share, immutable.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    len: usize,
}

impl PolicySet {
    /// Compiles the policies that select a workload. The order of `specs` has no influence on any decision.
    ///
    /// `missing` are policies known by name that have not arrived: they deny (R34). A policy that is marked
    /// invalid, or (secure) holds a value that cannot be evaluated, denies all that it selects (R15).
    pub fn compile(specs: &[Arc<PolicySpec>], missing: &[PolicyId], _context: &Context) -> Self {
        Self {
            len: specs.len() + missing.len(),
        }
    }

    /// Whether no policy at all selects the workload.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether some policy names a field that only an HTTP request has (semantics 2.11).
    pub fn needs_http(&self) -> bool {
        false
    }

    /// The policies that were found unusable here, with a sentence why; they deny everything.
    pub fn defects(&self) -> impl Iterator<Item = (&PolicyId, &str)> {
        std::iter::empty()
    }
}
