//! Certification paths (RFC 5280 section 6): from a leaf over the intermediates that a peer sent to a root.
//!
//! webpki and aws-lc read certificates and verify signatures; the search and the rules are here, since webpki refuses
//! what a mesh needs (constraints on URIs and on directory names, self-issued intermediates) and leaves out what RFC 5280
//! and X509-SVID ask for. Everything is bounded: what is sent, the depth, signatures, comparisons of names.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use webpki::EndEntityCert;

use super::certificate::Cert;
use super::constraints;
use super::revocation::{List, ListStatus};
use crate::error::{PeerProblem, RootsError};
use crate::pki::{self, Facts};

/// The most intermediates of one path, self-issued ones not counted.
const MAX_INTERMEDIATES: usize = 6;
/// The longest path, self-issued certificates counted.
const MAX_LENGTH: usize = 12;
/// The most certificates that a peer may send beside its own.
pub(super) const MAX_SENT: usize = 16;
/// The most signatures that are verified for one peer.
const MAX_SIGNATURES: usize = 64;
/// The most revocation lists.
const MAX_LISTS: usize = 64;

/// What a certificate is to be used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Its holder calls.
    Client,
    /// Its holder is called.
    Server,
}

/// The roots that are believed, and the revocation lists beside them. Without any, nobody is.
#[derive(Clone, Debug)]
pub struct Anchors {
    roots: Arc<[Root]>,
    lists: Arc<[List]>,
    max_intermediates: usize,
}

#[derive(Debug)]
struct Root {
    subject: Vec<u8>,
    /// Its last second.
    end: i64,
    der: CertificateDer<'static>,
}

impl Default for Anchors {
    fn default() -> Self {
        Self {
            roots: Arc::default(),
            lists: Arc::default(),
            max_intermediates: MAX_INTERMEDIATES,
        }
    }
}

impl Anchors {
    /// Takes roots and revocation lists. A root that cannot be used is left out and logged; one that is left out never
    /// makes another believed.
    ///
    /// # Errors
    /// There is no root that can be used, or a list cannot be read: roots are not believed without the lists that were
    /// given with them.
    pub fn new(
        roots: Vec<CertificateDer<'static>>,
        lists: Vec<CertificateRevocationListDer<'static>>,
    ) -> Result<Self, RootsError> {
        let mut usable = Vec::new();
        let mut read = Vec::new();
        let mut why = None;
        if lists.len() > MAX_LISTS {
            return Err(RootsError(format!("more than {MAX_LISTS} revocation lists")));
        }
        for list in lists {
            read.push(List::read(list).map_err(|e| RootsError(format!("a revocation list: {e}")))?);
        }
        for der in roots {
            match Cert::root(&der) {
                Ok(root) => {
                    for list in &mut read {
                        list.sign_off(&root);
                    }
                    usable.push(Root {
                        subject: root.subject().to_vec(),
                        end: root.x509.validity().not_after.timestamp(),
                        der: der.clone(),
                    });
                }
                Err(problem) => {
                    tracing::warn!("a trust root is left out: {problem}");
                    why = Some(problem);
                }
            }
        }
        if usable.is_empty() {
            return Err(RootsError(why.map_or_else(
                || "none given".to_owned(),
                |why| format!("none that can be used: {why}"),
            )));
        }
        Ok(Self {
            roots: usable.into(),
            lists: newest(read).into(),
            max_intermediates: MAX_INTERMEDIATES,
        })
    }

    /// Takes roots and revocation lists out of texts in PEM.
    ///
    /// # Errors
    /// As [`Self::new`], or a text is not PEM.
    pub fn from_pem(texts: &[String]) -> Result<Self, RootsError> {
        let (mut roots, mut lists) = (Vec::new(), Vec::new());
        for text in texts {
            roots.extend(pki::certificates(text).map_err(RootsError)?);
            for list in CertificateRevocationListDer::pem_slice_iter(text.as_bytes()).take(MAX_LISTS + 1) {
                lists.push(list.map_err(|e| RootsError(format!("not PEM: {e}")))?);
            }
        }
        Self::new(roots, lists)
    }

    /// Whether all of a text in PEM can be used, each root and each list of it, where [`Self::from_pem`] leaves out what
    /// cannot.
    ///
    /// # Errors
    /// What cannot be used, and why.
    pub fn check(text: &str) -> Result<(), RootsError> {
        Self::from_pem(&[text.to_owned()])?;
        for (at, der) in pki::certificates(text).map_err(RootsError)?.iter().enumerate() {
            Cert::root(der).map_err(|why| RootsError(format!("certificate {}: {why}", at + 1)))?;
        }
        Ok(())
    }

    /// Allows so many intermediates in a path, self-issued ones not counted; 6 by default.
    #[must_use]
    pub fn with_max_intermediates(mut self, most: usize) -> Self {
        self.max_intermediates = most.min(MAX_LENGTH);
        self
    }

    /// Whether nobody is believed.
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// The last seconds of all roots and revocation lists, Unix seconds.
    pub(super) fn ends(&self) -> impl Iterator<Item = i64> {
        let roots = self.roots.iter().map(|root| root.end);
        roots.chain(self.lists.iter().map(List::end))
    }

    /// How the revocation lists stand.
    pub fn lists(&self) -> Vec<ListStatus> {
        self.lists.iter().map(List::status).collect()
    }

    /// The lists that none of these CAs has signed.
    pub fn orphans(&self, authorities: &[CertificateDer<'_>]) -> Vec<ListStatus> {
        let known: Vec<_> = authorities
            .iter()
            .filter_map(|der| Cert::root(der).ok())
            .collect();
        let ours = |list: &&List| known.iter().any(|ca| list.is_by(ca));
        self.lists
            .iter()
            .filter(|list| !ours(list))
            .map(List::status)
            .collect()
    }

    /// Whether a path leads from the leaf to a root, now and for this purpose. Who the leaf is of, is not looked at.
    ///
    /// # Errors
    /// Why there is none.
    pub fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        now: UnixTime,
        purpose: Purpose,
    ) -> Result<(), PeerProblem> {
        self.path(leaf, sent, now, purpose, false)
    }

    /// As [`Self::verify`], and the leaf is a server's of this DNS name or address: TLS outside the mesh.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn verify_name(
        &self,
        leaf: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        now: UnixTime,
        name: &ServerName<'_>,
    ) -> Result<(), PeerProblem> {
        self.path(leaf, sent, now, Purpose::Server, false)?;
        EndEntityCert::try_from(leaf)
            .and_then(|leaf| leaf.verify_is_valid_for_subject_name(name))
            .map_err(|_| PeerProblem::Name)
    }

    /// As [`Self::verify`], and the leaf is an X509-SVID of a workload.
    ///
    /// # Errors
    /// Why it proves no identity.
    pub fn verify_identity(
        &self,
        leaf: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        now: UnixTime,
        purpose: Purpose,
    ) -> Result<Facts, PeerProblem> {
        self.path(leaf, sent, now, purpose, true)?;
        pki::facts(leaf).map_err(PeerProblem::Identity)
    }

    fn path(
        &self,
        leaf: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        now: UnixTime,
        purpose: Purpose,
        svid: bool,
    ) -> Result<(), PeerProblem> {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let leaf = Cert::leaf(leaf)?;
        leaf.in_time(now)?;
        leaf.serves(purpose)?;
        if svid {
            super::svid::leaf(&leaf)?;
        }
        if sent.len() > MAX_SENT {
            return Err(PeerProblem::Other(format!(
                "more than {MAX_SENT} certificates beside its own"
            )));
        }
        // What cannot be used leads nowhere; it does not matter unless nothing else leads to a root.
        let mut first = None;
        let mut intermediates = Vec::new();
        for der in sent {
            let usable = Cert::intermediate(der).and_then(|cert| {
                cert.in_time(now)?;
                cert.serves(purpose)?;
                if svid {
                    super::svid::signing(&cert)?;
                }
                Ok(cert)
            });
            match usable {
                Ok(cert) => intermediates.push(cert),
                Err(problem) => first = first.or(Some(problem)),
            }
        }
        let mut search = Search {
            anchors: self,
            intermediates: &intermediates,
            now,
            purpose,
            signatures: MAX_SIGNATURES,
            names: constraints::Budget::default(),
            problem: None,
        };
        if search.extend(&mut vec![&leaf])? {
            return Ok(());
        }
        Err(search.problem.or(first).unwrap_or(PeerProblem::UnknownIssuer))
    }
}

/// Of several lists of one issuer the newest counts.
fn newest(mut lists: Vec<List>) -> Vec<List> {
    let mut kept: Vec<List> = Vec::new();
    while let Some(list) = lists.pop() {
        if !kept.iter().chain(&lists).any(|other| other.replaces(&list)) {
            kept.push(list);
        }
    }
    kept
}

/// A search for a path, depth first, with what it may still spend.
struct Search<'s, 'c> {
    anchors: &'s Anchors,
    intermediates: &'s [Cert<'c>],
    now: i64,
    purpose: Purpose,
    signatures: usize,
    names: constraints::Budget,
    /// Why the first way that came near a root was none.
    problem: Option<PeerProblem>,
}

impl<'s, 'c> Search<'s, 'c> {
    /// Whether the path, leaf first, leads on to a root. An error ends the whole search.
    fn extend(&mut self, path: &mut Vec<&'s Cert<'c>>) -> Result<bool, PeerProblem> {
        let Some(head) = path.last().copied() else {
            return Ok(false);
        };
        for root in self.anchors.roots.iter().filter(|r| r.subject == head.issuer()) {
            // It was read when it was taken in.
            let Ok(root) = Cert::root(&root.der) else { continue };
            match self.finish(path, &root) {
                Ok(()) => return Ok(true),
                Err(problem) => self.note(problem),
            }
        }
        if path.len() >= MAX_LENGTH {
            return Ok(false);
        }
        for next in self.intermediates.iter().filter(|c| c.subject() == head.issuer()) {
            let turns_back = path
                .iter()
                .any(|c| c.subject() == next.subject() && c.key() == next.key());
            if turns_back {
                continue;
            }
            if let Err(problem) = head.agrees_with(next) {
                self.note(problem);
                continue;
            }
            self.spend()?;
            if let Err(problem) = head.is_by(next) {
                self.note(problem);
                continue;
            }
            path.push(next);
            if self.extend(path)? {
                return Ok(true);
            }
            path.pop();
        }
        Ok(false)
    }

    fn note(&mut self, problem: PeerProblem) {
        if problem != PeerProblem::UnknownIssuer && self.problem.is_none() {
            self.problem = Some(problem);
        }
    }

    fn spend(&mut self) -> Result<(), PeerProblem> {
        self.signatures = self
            .signatures
            .checked_sub(1)
            .ok_or_else(|| PeerProblem::Other("too many ways to a root".to_owned()))?;
        Ok(())
    }

    /// The root's signature, and the rules that concern the path as a whole: from the root down, as the RFC has them.
    fn finish(&mut self, path: &[&Cert<'_>], root: &Cert<'_>) -> Result<(), PeerProblem> {
        let (Some(head), Some((_, cas))) = (path.last(), path.split_first()) else {
            return Err(PeerProblem::UnknownIssuer);
        };
        head.agrees_with(root)?;
        self.spend()?;
        head.is_by(root)?;
        root.in_time(self.now)?;
        root.serves(self.purpose)?;
        let counted = cas.iter().filter(|c| !c.self_issued()).count();
        if counted > self.anchors.max_intermediates {
            return Err(PeerProblem::Other("the path is too long".to_owned()));
        }
        let mut issuer = root;
        for (depth, cert) in path.iter().enumerate().rev() {
            // Intermediates below this issuer; the leaf counts as none of them.
            let below = path
                .iter()
                .take(depth + 1)
                .skip(1)
                .filter(|c| !c.self_issued())
                .count();
            if issuer.path_len().is_some_and(|most| below > most) {
                return Err(PeerProblem::Other(
                    "the path is longer than its CA allows".to_owned(),
                ));
            }
            if let Some(constraints) = issuer.constraints() {
                for (index, named) in path.iter().take(depth + 1).enumerate() {
                    if index == 0 || !named.self_issued() {
                        constraints::admit(constraints, named, &mut self.names)?;
                    }
                }
            }
            for list in self.anchors.lists.iter() {
                list.check(cert, issuer, self.now)?;
            }
            issuer = cert;
        }
        Ok(())
    }
}
