//! What is known of a connection or a request, and what the newest snapshot says of it.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use jwt::{Claims, Memory, Rejection};
use meshward_http::{HeaderMap, Request, header};
use model::{MtlsMode, Reason, SpiffeId, Text, WorkloadUid};
use policy::path::Mode;
use policy::{Denial, Facts, HeaderLookup, HttpFacts, Permit, PolicySet, authorize, authorize_with};
use snapshot::{Index, PathNormalization};
use telemetry::Wire;

use super::denials::Decided;
use super::external::Answers;
use super::token::{self, Parts, Proof};
use super::{Callee, Caller};

/// Everything that a decision looks at but for the request itself, kept for the next one. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// Shared by all requests of a connection.
    ends: Arc<Ends>,
    /// What external authorizers have said of it.
    answers: Option<Arc<Answers>>,
}

/// Who is called, and all that is known of who calls.
#[derive(Debug)]
struct Ends {
    uid: WorkloadUid,
    peer: Option<SpiffeId>,
    source: SocketAddr,
    to: SocketAddr,
    sni: Option<Arc<str>>,
    /// Whether it came by a tunnel, which has mutual TLS of its own.
    tunnelled: bool,
}

/// And about a request.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: Text,
    pub(super) authority: Text,
    /// Path and query, normalised.
    pub(super) path: Text,
    pub(super) headers: HeaderMap,
    /// What its tokens prove; `None` before they were looked at.
    pub(super) proof: Option<Proof>,
}

impl Asked {
    /// A request whose path has its form, before its tokens are looked at.
    pub(super) fn of(request: &Request) -> Self {
        let parts = Parts::of(request);
        Self {
            method: parts.method.into(),
            authority: parts.authority.into(),
            path: parts.path.into(),
            headers: parts.headers.clone(),
            proof: None,
        }
    }

    /// Whether path or headers are others than those that came.
    pub(super) fn is_changed(&self) -> bool {
        self.proof.as_ref().is_some_and(Proof::is_changed)
    }

    fn parts(&self) -> Parts<'_> {
        Parts {
            method: &self.method,
            authority: &self.authority,
            path: &self.path,
            headers: &self.headers,
        }
    }
}

/// A refusal.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The workload is not in the snapshot any more, or what came does not fit its mode.
    Floor(Reason),
    /// By policy.
    Policy(Box<Denial>),
    /// A token does not verify, or a RequestAuthentication is invalid or has not arrived.
    Token(Box<Rejection>),
}

impl Refusal {
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Floor(reason) => *reason,
            Self::Policy(denial) => denial.reason,
            Self::Token(rejection) => rejection.reason(),
        }
    }
}

impl Subject {
    pub(super) fn new(caller: &Caller, callee: &Callee) -> Self {
        let ends = Ends {
            uid: callee.local.uid.clone(),
            peer: caller.peer.as_ref().map(|peer| peer.id().clone()),
            source: caller.address,
            to: callee.address,
            sni: caller.sni.clone(),
            tunnelled: caller.wire == Wire::Hbone,
        };
        Self {
            ends: Arc::new(ends),
            answers: None,
        }
    }

    /// Keeps what external authorizers have said of it, for this decision and later ones.
    pub(super) fn answered(&mut self, answers: Answers) {
        self.answers = Some(Arc::new(answers));
    }

    /// Whether external authorizers may have to be asked about a request: where not, nobody needs to look.
    pub(super) fn asks(&self, index: &Index) -> bool {
        index
            .policies(&self.ends.uid)
            .is_some_and(|policies| policies.asks())
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
        self.floor(index)?;
        let policies = index
            .policies(&self.ends.uid)
            .ok_or(Refusal::Floor(Reason::NotReady))?;
        let proof = asked.and_then(|asked| Some((asked, asked.proof.as_ref()?)));
        let claims = match proof {
            Some((asked, proof)) => proof.claims(index, &self.ends.uid, &asked.parts())?,
            None => None,
        };
        let remote = remote_ip(index, self.ends.source, asked);
        Ok(self.with_facts(remote, asked, claims.as_ref(), |facts| ask(facts, policies)))
    }

    /// What external authorizers have said of it, where they were asked.
    pub(super) fn answers(&self) -> Option<&Answers> {
        self.answers.as_deref()
    }

    /// Hands over what a decision looks at.
    pub(super) fn with_facts<T>(
        &self,
        remote_ip: IpAddr,
        asked: Option<&Asked>,
        claims: Option<&Arc<Claims>>,
        look: impl FnOnce(&Facts<'_>) -> T,
    ) -> T {
        let headers = asked.map(|a| Lines(&a.headers));
        look(&Facts {
            peer: self.ends.peer.as_ref(),
            source_ip: self.ends.source.ip(),
            remote_ip,
            destination_ip: self.ends.to.ip(),
            destination_port: self.ends.to.port(),
            sni: self.ends.sni.as_deref(),
            http: asked.zip(headers.as_ref()).map(|(asked, headers)| HttpFacts {
                method: &asked.method,
                authority: &asked.authority,
                path: &asked.path,
                headers,
                claims: token::lookup(claims),
            }),
        })
    }

    /// What the decision by this snapshot was made of, for whoever asks why; `None` where no policy was asked.
    pub(super) fn decided(&self, index: &Index, asked: Option<&Arc<Asked>>) -> Option<Decided> {
        Some(Decided {
            subject: self.clone(),
            remote: remote_ip(index, self.ends.source, asked.map(AsRef::as_ref)),
            asked: asked.cloned(),
            policies: Arc::clone(index.policies(&self.ends.uid)?),
        })
    }

    /// What is known of a request that has just arrived: as the application will get it, with what its tokens prove.
    ///
    /// # Errors
    /// It must be answered with the refusal.
    pub(super) fn ask(
        &self,
        index: &Index,
        request: &Request,
        memory: &Arc<Memory>,
    ) -> Result<Asked, Refusal> {
        self.floor(index)?;
        let parts = Parts::of(request);
        let (proof, changed) = Proof::of(index, &self.ends.uid, &parts, memory)?;
        let (path, headers) = changed.unwrap_or_else(|| (parts.path.into(), parts.headers.clone()));
        Ok(Asked {
            method: parts.method.into(),
            authority: parts.authority.into(),
            path,
            headers,
            proof: Some(proof),
        })
    }

    /// Whether the snapshot asks of the request's tokens what was asked of them when it arrived.
    pub(super) fn stands(&self, index: &Index, asked: &Asked) -> bool {
        let proof = asked.proof.as_ref();
        proof.is_some_and(|proof| proof.stands(index, &self.ends.uid))
    }

    /// What has to hold before anything is looked at.
    fn floor(&self, index: &Index) -> Result<(), Refusal> {
        let gone = || Refusal::Floor(Reason::NotReady);
        let workload = index.workload(&self.ends.uid).ok_or_else(gone)?;
        let inbound = workload.inbound.as_ref().ok_or_else(gone)?;
        let (mode, _) = inbound.port(self.ends.to.port());
        if self.ends.peer.is_none() && mode == MtlsMode::Strict {
            return Err(Refusal::Floor(Reason::PlaintextRefused));
        }
        if self.ends.peer.is_some() && mode == MtlsMode::Disable && !self.ends.tunnelled {
            // Mutual TLS is not terminated there: over the wire its bytes would be no protocol (MT-10). Tunnels always have it,
            // and DISABLE means nothing to them (semantics 1.8).
            return Err(Refusal::Floor(Reason::NoFilterChain));
        }
        Ok(())
    }

    /// The question for later snapshots: whether what was admitted still is.
    pub(super) fn check(
        &self,
        asked: Option<Arc<Asked>>,
    ) -> impl Fn(&Index) -> Result<(), Reason> + Send + Sync + 'static {
        let subject = self.clone();
        move |index| match subject.decide(index, asked.as_deref()) {
            Ok(_) => Ok(()),
            // The workload has left: nobody has judged what is under way.
            Err(Refusal::Floor(Reason::NotReady)) => Err(Reason::NotReady),
            Err(_) => Err(Reason::PolicyChanged),
        }
    }
}

/// `remote.ip` (semantics 2.9): the peer, and under Istio's profile the right-most entry of X-Forwarded-For, which upstream
/// believes (R10).
fn remote_ip(index: &Index, source: SocketAddr, asked: Option<&Asked>) -> IpAddr {
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
pub(super) fn normalize<'p>(index: &Index, path: &'p str) -> Result<Cow<'p, str>, String> {
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
    policy::path::normalize(path.as_bytes(), mode).map_err(|e| e.to_string())
}
