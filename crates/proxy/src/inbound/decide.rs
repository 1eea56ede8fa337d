//! What is known of a connection or a request, and what the newest snapshot says of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use meshward_http::{HeaderMap, Request, header};
use model::{MtlsMode, Reason, SpiffeId, WorkloadUid};
use policy::path::Mode;
use policy::{Denial, Facts, HeaderLookup, HttpFacts, Permit, PolicySet, authorize, authorize_with};
use snapshot::{Index, PathNormalization};

use super::external::Answers;
use super::{Callee, Caller};

/// Everything about a connection that a decision looks at, kept for the next one.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    uid: WorkloadUid,
    peer: Option<SpiffeId>,
    source: SocketAddr,
    to: SocketAddr,
    sni: Option<Arc<str>>,
    /// What external authorizers have said of it.
    answers: Option<Arc<Answers>>,
}

/// And about a request.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: Box<str>,
    pub(super) authority: Box<str>,
    /// Path and query, normalised.
    pub(super) path: Box<str>,
    pub(super) headers: HeaderMap,
}

/// A refusal.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The workload is not in the snapshot any more, or what came does not fit its mode.
    Floor(Reason),
    /// By policy.
    Policy(Box<Denial>),
}

impl Refusal {
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Floor(reason) => *reason,
            Self::Policy(denial) => denial.reason,
        }
    }
}

impl Subject {
    pub(super) fn new(caller: &Caller, callee: &Callee) -> Self {
        Self {
            uid: callee.local.uid.clone(),
            peer: caller.peer.as_ref().map(|peer| peer.id().clone()),
            source: caller.address,
            to: callee.address,
            sni: caller.sni.clone(),
            answers: None,
        }
    }

    /// Keeps what external authorizers have said of it, for this decision and later ones.
    pub(super) fn answered(&mut self, answers: Answers) {
        self.answers = Some(Arc::new(answers));
    }

    /// Which external authorizers must be asked before it is decided.
    ///
    /// # Errors
    /// It is not admitted, whatever they say.
    pub(super) fn providers(
        &self,
        index: &Index,
        asked: Option<&Asked>,
    ) -> Result<BTreeSet<String>, Refusal> {
        self.look(index, asked, policy::providers)
    }

    /// Decides a connection, or a request of it.
    ///
    /// # Errors
    /// It is not admitted.
    pub(super) fn decide(&self, index: &Index, asked: Option<&Asked>) -> Result<Permit, Refusal> {
        let decided = self.look(index, asked, |facts, policies| match &self.answers {
            Some(answers) => authorize_with(facts, policies, &**answers),
            None => authorize(facts, policies),
        })?;
        decided.map_err(|denial| Refusal::Policy(Box::new(denial)))
    }

    /// Asks the policies of the workload about it.
    fn look<T>(
        &self,
        index: &Index,
        asked: Option<&Asked>,
        ask: impl FnOnce(&Facts<'_>, &PolicySet) -> T,
    ) -> Result<T, Refusal> {
        let gone = || Refusal::Floor(Reason::NotReady);
        let workload = index.workload(&self.uid).ok_or_else(gone)?;
        let inbound = workload.inbound.as_ref().ok_or_else(gone)?;
        let (mode, _) = inbound.port(self.to.port());
        if self.peer.is_none() && mode == MtlsMode::Strict {
            return Err(Refusal::Floor(Reason::PlaintextRefused));
        }
        if self.peer.is_some() && mode == MtlsMode::Disable {
            // Mutual TLS is not terminated there: over the wire its bytes would be no protocol (MT-10).
            return Err(Refusal::Floor(Reason::NoFilterChain));
        }
        let policies = index.policies(&self.uid).ok_or_else(gone)?;
        let headers = asked.map(|a| Lines(&a.headers));
        let facts = Facts {
            peer: self.peer.as_ref(),
            source_ip: self.source.ip(),
            remote_ip: remote_ip(index, self.source, asked),
            destination_ip: self.to.ip(),
            destination_port: self.to.port(),
            sni: self.sni.as_deref(),
            http: asked.zip(headers.as_ref()).map(|(asked, headers)| HttpFacts {
                method: &asked.method,
                authority: &asked.authority,
                path: &asked.path,
                headers,
                claims: None,
            }),
        };
        Ok(ask(&facts, policies))
    }

    /// The question for later snapshots: whether what was admitted still is.
    pub(super) fn check(
        &self,
        asked: Option<Arc<Asked>>,
    ) -> impl Fn(&Index) -> Result<(), Reason> + Send + Sync + 'static {
        let subject = self.clone();
        move |index| match subject.decide(index, asked.as_deref()) {
            Ok(_) => Ok(()),
            Err(_) => Err(Reason::PolicyChanged),
        }
    }
}

/// `remote.ip` (semantics 2.9): the peer, and under Istio's profile the right-most entry of X-Forwarded-For, which upstream
/// believes (R10).
fn remote_ip(index: &Index, source: SocketAddr, asked: Option<&Asked>) -> std::net::IpAddr {
    let believed = (index.mesh().profile == model::Profile::Istio)
        .then_some(asked)
        .flatten();
    let forwarded = believed.and_then(|asked| {
        let last = asked.headers.get_all("x-forwarded-for").iter().next_back()?;
        last.to_str().ok()?.rsplit(',').next()?.trim().parse().ok()
    });
    forwarded.map_or_else(|| source.ip(), model::canonical_ip)
}

/// Header fields, each line a value of its own.
struct Lines<'a>(&'a HeaderMap);

impl HeaderLookup for Lines<'_> {
    fn any(&self, name: &str, visit: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.0.get_all(name).iter().any(|value| visit(value.as_bytes()))
    }
}

/// `:authority`, or Host.
pub(super) fn authority(request: &Request) -> &str {
    request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default()
}

/// Whether a request that was made ready by one snapshot is the one that another would have made of it.
pub(super) fn reads_alike(one: &Index, other: &Index) -> bool {
    let read = |index: &Index| {
        let mesh = index.mesh();
        (
            mesh.path_normalization,
            mesh.strict_paths,
            mesh.strict_hosts,
            mesh.xfcc,
        )
    };
    read(one) == read(other)
}

/// The path in the form that decisions, events and the application see.
///
/// # Errors
/// Why it is refused.
pub(super) fn normalize(index: &Index, path: &str) -> Result<String, String> {
    let mesh = index.mesh();
    if mesh.strict_paths {
        policy::path::strict_check(path.as_bytes()).map_err(|e| e.to_string())?;
    }
    let mode = match mesh.path_normalization {
        PathNormalization::None => Mode::None,
        PathNormalization::Base => Mode::Base,
        PathNormalization::MergeSlashes => Mode::MergeSlashes,
        PathNormalization::DecodeAndMergeSlashes => Mode::DecodeAndMergeSlashes,
    };
    let normal = policy::path::normalize(path.as_bytes(), mode).map_err(|e| e.to_string())?;
    Ok(normal.into_owned())
}
