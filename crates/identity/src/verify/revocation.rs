//! Certificate revocation lists (RFC 5280 section 5): distributed beside the roots, `ca-crl.pem` of Istio's `cacerts`.
//!
//! A list binds those whose issuer it is of. While there is a list of an issuer and it is past its end or not signed by
//! that issuer, nothing that the issuer has signed is believed: a list that somebody keeps back must not help him.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use rustls::pki_types::CertificateRevocationListDer;
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::asn1_rs::{Oid, oid};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, ParsedExtension};
use x509_parser::x509::X509Name;

use super::certificate::{Cert, Signed};
use super::constraints;
use crate::error::PeerProblem;

/// `cRLNumber`, which must not be critical (RFC 5280 section 5.2.3).
const NUMBER: Oid<'static> = oid!(2.5.29.20);
/// `authorityKeyIdentifier`, which must not be critical either.
const AUTHORITY: Oid<'static> = oid!(2.5.29.35);

/// A list that has been read.
#[derive(Debug)]
pub(super) struct List {
    der: CertificateRevocationListDer<'static>,
    revoked: CertRevocationList<'static>,
    issuer: Vec<u8>,
    key_id: Option<Vec<u8>>,
    this_update: i64,
    next_update: i64,
    /// The key of the root that signed it, where a root did.
    signer: Option<Vec<u8>>,
    /// The key of the intermediate that was first seen to have signed it: a long list is not hashed for each handshake.
    seen: OnceLock<Vec<u8>>,
    name: String,
}

/// How a revocation list stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListStatus {
    /// Who issued it.
    pub issuer: String,
    /// When it was made, Unix seconds.
    pub this_update: i64,
    /// Until when it counts, Unix seconds. From then on nothing that this issuer has signed is believed.
    pub next_update: i64,
}

impl List {
    /// Reads a list.
    ///
    /// # Errors
    /// It is malformed, or of a kind that is not supported: without an end, for changes only, for a part of what its
    /// issuer signs.
    pub(super) fn read(der: CertificateRevocationListDer<'static>) -> Result<Self, String> {
        let owned = OwnedCertRevocationList::from_der(&der).map_err(|e| e.to_string())?;
        let revoked = CertRevocationList::from(owned);
        if revoked.issuing_distribution_point().is_some() {
            return Err("it is for a part of its issuer's certificates; give the whole list".to_owned());
        }
        let (_, parsed) = CertificateRevocationList::from_der(&der).map_err(|e| e.to_string())?;
        if parsed
            .extensions()
            .iter()
            .any(|e| e.critical && (e.oid == NUMBER || e.oid == AUTHORITY))
        {
            return Err("an extension is critical that must not be".to_owned());
        }
        let mut seen = BTreeSet::new();
        if !parsed.extensions().iter().all(|e| seen.insert(e.oid.as_bytes())) {
            return Err("an extension stands in it twice".to_owned());
        }
        let key_id = parsed
            .extensions()
            .iter()
            .find_map(|e| match e.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    id.key_identifier.as_ref().map(|k| k.0.to_vec())
                }
                _ => None,
            });
        let next_update = parsed.next_update().ok_or("it has no end")?;
        Ok(Self {
            issuer: parsed.tbs_cert_list.issuer.as_raw().to_vec(),
            name: parsed.issuer().to_string(),
            key_id,
            this_update: parsed.last_update().timestamp(),
            next_update: next_update.timestamp(),
            signer: None,
            seen: OnceLock::new(),
            revoked,
            der,
        })
    }

    /// Notes that a root signed it, if it did.
    pub(super) fn sign_off(&mut self, root: &Cert<'_>) {
        if self.is_by(root) {
            self.signer = Some(root.key().to_vec());
        }
    }

    /// Whether `other` is an older list of the same issuer.
    pub(super) fn replaces(&self, other: &Self) -> bool {
        self.issuer == other.issuer
            && self.key_id == other.key_id
            && self.signer == other.signer
            && self.this_update > other.this_update
    }

    /// The last second in which it counts, Unix seconds.
    pub(super) fn end(&self) -> i64 {
        self.next_update.saturating_sub(1)
    }

    pub(super) fn status(&self) -> ListStatus {
        ListStatus {
            issuer: self.name.clone(),
            this_update: self.this_update,
            next_update: self.next_update,
        }
    }

    /// Whether this issuer signed it, however its name is written in it.
    pub(super) fn is_by(&self, issuer: &Cert<'_>) -> bool {
        (self.is_named_by(issuer) || self.is_named_like(issuer)) && self.is_signed_by(issuer)
    }

    /// Whether its issuer's name is this one's.
    fn is_named_by(&self, issuer: &Cert<'_>) -> bool {
        self.issuer == issuer.subject()
    }

    /// Whether it says that another key signed it.
    fn names_another_key(&self, issuer: &Cert<'_>) -> bool {
        matches!((&self.key_id, issuer.key_id()), (Some(named), Some(id)) if named != id)
    }

    /// Whether its issuer's name is this one's in another writing: another kind of string, or case.
    fn is_named_like(&self, issuer: &Cert<'_>) -> bool {
        self.issuer != issuer.subject()
            && X509Name::from_der(&self.issuer)
                .is_ok_and(|(_, name)| constraints::same_name(&name, issuer.x509.subject()))
    }

    fn is_signed_by(&self, issuer: &Cert<'_>) -> bool {
        if self.seen.get().is_some_and(|key| key == issuer.key()) {
            return true;
        }
        let signed = Signed::read(&self.der).is_some_and(|s| s.is_by(issuer.key()).is_ok());
        if signed {
            let _ = self.seen.set(issuer.key().to_vec());
        }
        signed
    }

    /// Whether `cert`, which `issuer` signed, may still be believed at `now`, Unix seconds.
    pub(super) fn check(&self, cert: &Cert<'_>, issuer: &Cert<'_>, now: i64) -> Result<(), PeerProblem> {
        let named = self.is_named_by(issuer);
        if !named && !self.is_named_like(issuer) {
            return Ok(());
        }
        let unusable = |why: &str| Err(PeerProblem::RevocationList(why.to_owned()));
        match &self.signer {
            // Roots of one name and different keys stand side by side while they are exchanged.
            Some(signer) if signer != issuer.key() => return Ok(()),
            Some(_) => {}
            None if self.is_signed_by(issuer) => {}
            None if named && !self.names_another_key(issuer) => return unusable("is not signed by it"),
            None => return Ok(()),
        }
        if issuer.key_usage().is_some_and(|u| !u.crl_sign()) {
            return unusable("is signed by a key whose usage has no cRLSign");
        }
        if now >= self.next_update {
            return unusable("has expired");
        }
        match self.revoked.find_serial(cert.x509.raw_serial()) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(PeerProblem::Revoked),
            Err(_) => unusable("cannot be read"),
        }
    }
}
