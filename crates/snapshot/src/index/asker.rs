//! Who wants to go somewhere, and what it says of where that is.

use model::WorkloadUid;

use super::Index;
use crate::{Egress, Scope, Service};

/// Who wants to go somewhere: its namespace, and what it knows of the registry.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    pub(super) namespace: &'a str,
    pub(super) scope: Option<&'a Scope>,
    pub(super) egress: Egress,
}

/// What a client says of where it goes, besides the address that it dialled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Claim<'a> {
    /// Nothing: bytes, or nothing has been read yet.
    #[default]
    Nothing,
    /// The Host header or `:authority` of a request.
    Host(&'a str),
    /// The name that its TLS asks for, where it asks for one.
    Sni(Option<&'a str>),
}

impl<'a> From<Option<&'a str>> for Claim<'a> {
    fn from(authority: Option<&'a str>) -> Self {
        authority.map_or(Self::Nothing, Self::Host)
    }
}

impl<'a> Claim<'a> {
    /// The name that is claimed, as names are compared: in lower case, without a port or a trailing dot.
    pub fn name(self) -> Option<std::borrow::Cow<'a, str>> {
        let host = match self {
            Self::Nothing | Self::Sni(None) => return None,
            Self::Host(authority) => model::split_authority(authority)?.0,
            Self::Sni(Some(name)) => name,
        };
        Some(super::names::canonical(host))
    }
}

impl Index {
    /// A workload of a namespace; a Sidecar may be for it alone. Without one, or where it is not there, any workload of the
    /// namespace.
    pub fn asker<'a>(&'a self, namespace: &'a str, workload: Option<&WorkloadUid>) -> Asker<'a> {
        let workload = workload.and_then(|uid| self.workloads.get(uid));
        let own = workload.and_then(|workload| workload.inbound.as_ref()?.scope.as_ref());
        let scope = own.or_else(|| self.mesh().scope(namespace));
        Asker {
            namespace,
            scope,
            egress: self.mesh().egress_in(scope),
        }
    }
}

impl Asker<'_> {
    /// Whether it may know the Service: by its Sidecar, which closes nothing where everything may leave (semantics 7.5).
    pub(super) fn may_know(&self, service: &Service) -> bool {
        let knows = || self.scope.is_none_or(|scope| scope.knows(service));
        service.is_exported_to(self.namespace) && (self.egress == Egress::AllowAny || knows())
    }
}
