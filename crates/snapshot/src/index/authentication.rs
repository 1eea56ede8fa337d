//! What the requests to a workload are authenticated by.

use std::collections::HashMap;
use std::sync::Arc;

use jwt::{AuthenticationSpec, Authenticator, Jwks, KeySource};
use model::WorkloadUid;
use policy::PolicyId;

use super::Index;
use crate::{Resource, Resources};

/// The RequestAuthentications that select a workload, compiled with the keys of their issuers. One for all workloads that
/// have the same list, and the same one for as long as neither a rule nor a key of it changes.
#[derive(Debug)]
pub struct Authentication {
    authenticator: Authenticator,
    made_of: Parts,
}

/// What an [`Authentication`] follows from.
#[derive(PartialEq, Eq, Debug)]
struct Parts {
    specs: Vec<Arc<AuthenticationSpec>>,
    /// Known by name, and not here.
    missing: Vec<PolicyId>,
    /// By source, of those that some rule names: the keys, `None` where there are none.
    keys: Vec<(String, Option<Arc<Jwks>>)>,
    strict: bool,
}

impl Authentication {
    fn new(parts: Parts) -> Self {
        let find = |source: &str| {
            let at = parts.keys.binary_search_by(|(own, _)| own.as_str().cmp(source));
            at.ok()
                .and_then(|at| parts.keys.get(at))
                .and_then(|(_, keys)| keys.clone())
        };
        Self {
            authenticator: Authenticator::compile(&parts.specs, &parts.missing, &find, parts.strict),
            made_of: parts,
        }
    }

    /// Verifies tokens.
    pub fn authenticator(&self) -> &Authenticator {
        &self.authenticator
    }
}

/// Compiles each distinct list once, or takes what `before` has of it.
pub(super) fn compile(
    index: &Index,
    resources: &Resources,
    before: Option<&Index>,
) -> HashMap<WorkloadUid, Arc<Authentication>> {
    let mut specs: HashMap<&PolicyId, &Arc<AuthenticationSpec>> = HashMap::new();
    let mut keys: HashMap<&str, &Arc<Jwks>> = HashMap::new();
    for (_, resource) in resources.iter() {
        match resource.as_ref() {
            Resource::Authentication(spec) => drop(specs.insert(&spec.id, spec)),
            Resource::Jwks(jwks) => drop(keys.insert(&jwks.source, jwks)),
            _ => {}
        }
    }
    let mut made: HashMap<&[PolicyId], Arc<Authentication>> = HashMap::new();
    let mut out = HashMap::new();
    for workload in index.workloads.values() {
        let Some(wanted) = workload.inbound.as_ref().map(|i| i.authentications.as_slice()) else {
            continue;
        };
        let one = made.entry(wanted).or_insert_with(|| {
            let parts = parts(wanted, &specs, &keys, index.mesh.jwt_strict);
            let mut held = before
                .into_iter()
                .flat_map(|before| before.authentications.values());
            match held.find(|held| held.made_of == parts) {
                Some(held) => Arc::clone(held),
                None => Arc::new(Authentication::new(parts)),
            }
        });
        out.insert(workload.uid.clone(), Arc::clone(one));
    }
    out
}

fn parts(
    wanted: &[PolicyId],
    specs: &HashMap<&PolicyId, &Arc<AuthenticationSpec>>,
    keys: &HashMap<&str, &Arc<Jwks>>,
    strict: bool,
) -> Parts {
    let (known, missing): (Vec<_>, Vec<_>) = wanted.iter().partition(|id| specs.contains_key(id));
    let specs: Vec<_> = known
        .into_iter()
        .filter_map(|id| specs.get(id))
        .map(|spec| Arc::clone(spec))
        .collect();
    let sources = specs.iter().flat_map(|spec| &spec.rules);
    let mut sources: Vec<&str> = sources
        .filter_map(|rule| match &rule.keys {
            KeySource::Fetched(source) => Some(source.as_str()),
            KeySource::Inline(_) => None,
        })
        .collect();
    sources.sort_unstable();
    sources.dedup();
    Parts {
        keys: sources
            .into_iter()
            .map(|source| (source.to_owned(), keys.get(source).map(|keys| Arc::clone(keys))))
            .collect(),
        missing: missing.into_iter().cloned().collect(),
        specs,
        strict,
    }
}
