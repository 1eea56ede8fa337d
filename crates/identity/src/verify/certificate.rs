//! One certificate of a path, read strictly, and what RFC 5280 demands of it besides what webpki looks at.
//!
//! webpki reads the bytes (version, repeated and unknown critical extensions, signature algorithms); here is what it
//! leaves to others: key usage, weak keys, serial numbers, key identifiers, names that cannot be read.

use std::collections::BTreeSet;

use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use webpki::{EndEntityCert, RawPublicKeyEntity};
use x509_parser::asn1_rs::{Any, FromDer as _, Oid, oid};
use x509_parser::prelude::{
    GeneralName, KeyUsage, NameConstraints, ParsedExtension, X509Certificate, X509Version,
};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::path::Purpose;
use super::{constraints, strict};
use crate::error::PeerProblem;

/// The longest serial number, bytes (RFC 5280 section 4.1.2.2).
const MAX_SERIAL: usize = 20;
/// RSA keys, bits (semantics 5.3; webpki verifies by no smaller or larger ones).
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

const RSA: Oid<'static> = oid!(1.2.840.113549.1.1.1);
const EC: Oid<'static> = oid!(1.2.840.10045.2.1);
const ED25519: Oid<'static> = oid!(1.3.101.112);
const CURVES: [Oid<'static>; 3] = [oid!(1.2.840.10045.3.1.7), oid!(1.3.132.0.34), oid!(1.3.132.0.35)];
/// The extensions that may be critical: key usage, basic constraints, name constraints, alternative names, extended key
/// usage. What else is critical has not been acted on (RFC 5280 section 4.2).
const KNOWN: [Oid<'static>; 5] = [
    oid!(2.5.29.15),
    oid!(2.5.29.19),
    NAME_CONSTRAINTS,
    oid!(2.5.29.17),
    oid!(2.5.29.37),
];
const NAME_CONSTRAINTS: Oid<'static> = oid!(2.5.29.30);
/// Extensions whose values are acted on: those above and the two key identifiers.
const KEY_IDS: [Oid<'static>; 2] = [oid!(2.5.29.14), oid!(2.5.29.35)];

fn because(why: &str) -> PeerProblem {
    PeerProblem::Other(why.to_owned())
}

/// A certificate that has been read and is fit for its place in a path.
#[derive(Debug)]
pub(super) struct Cert<'a> {
    pub(super) x509: X509Certificate<'a>,
    signed: Signed<'a>,
}

/// What is signed, by which algorithm, and the signature; of certificates and of revocation lists.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signed<'a> {
    message: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Signed<'a> {
    /// Takes the three parts of `SEQUENCE { message, algorithm, BIT STRING }` apart.
    pub(super) fn read(der: &'a [u8]) -> Option<Self> {
        let (_, outer) = Any::from_der(der).ok()?;
        let (rest, _) = Any::from_der(outer.data).ok()?;
        let message = outer.data.get(..outer.data.len() - rest.len())?;
        let (rest, algorithm) = Any::from_der(rest).ok()?;
        let (rest, bits) = Any::from_der(rest).ok()?;
        let (unused, signature) = bits.data.split_first()?;
        (rest.is_empty() && *unused == 0).then_some(Self {
            message,
            algorithm: algorithm.data,
            signature,
        })
    }

    /// Whether the key of `issuer` (SubjectPublicKeyInfo, DER) made the signature, by an algorithm that is taken.
    pub(super) fn is_by(&self, issuer: &[u8]) -> Result<(), webpki::Error> {
        let info = SubjectPublicKeyInfoDer::from(issuer);
        let key = RawPublicKeyEntity::try_from(&info)?;
        let all = super::algorithms().all;
        let fit = all
            .iter()
            .filter(|a| a.signature_alg_id().as_ref() == self.algorithm);
        let mut outcome = Err(webpki::Error::InvalidSignatureForPublicKey);
        for algorithm in fit {
            // One signature algorithm goes with several kinds of key; the other kinds' errors say nothing.
            match key.verify_signature(*algorithm, self.message, self.signature) {
                Ok(()) => return Ok(()),
                Err(webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)) => {}
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }
}

impl<'a> Cert<'a> {
    /// Reads a leaf.
    ///
    /// # Errors
    /// It is malformed, a CA's, or not as RFC 5280 has it.
    pub(super) fn leaf(der: &'a CertificateDer<'a>) -> Result<Self, PeerProblem> {
        EndEntityCert::try_from(der).map_err(super::problem)?;
        let cert = Self::read(der)?;
        if cert.is_ca() {
            return Err(PeerProblem::Purpose);
        }
        let usage = cert.key_usage();
        if usage.is_some_and(|u| u.key_cert_sign()) {
            return Err(because("its key usage is a CA's while it is none"));
        }
        if cert.constraints().is_some() {
            return Err(because("name constraints in a leaf"));
        }
        let empty = cert.x509.subject().iter_rdn().next().is_none();
        if empty
            && !cert
                .x509
                .subject_alternative_name()
                .is_ok_and(|s| s.is_some_and(|s| s.critical))
        {
            return Err(because("no subject, and no critical subject alternative name"));
        }
        cert.fit()?;
        Ok(cert)
    }

    /// Reads the certificate of an intermediate CA.
    ///
    /// # Errors
    /// It is malformed, no CA's, or not as RFC 5280 has it.
    pub(super) fn intermediate(der: &'a CertificateDer<'a>) -> Result<Self, PeerProblem> {
        EndEntityCert::try_from(der).map_err(super::problem)?;
        let cert = Self::read(der)?;
        cert.fit()?;
        cert.authority()?;
        Ok(cert)
    }

    /// Reads a root. It is believed without proof, so that it may be of version 1, and its serial number is anything.
    ///
    /// # Errors
    /// It is malformed, no CA's, or not as RFC 5280 has it.
    pub(super) fn root(der: &'a CertificateDer<'a>) -> Result<Self, PeerProblem> {
        let cert = Self::read(der)?;
        if cert.x509.signature_algorithm != cert.x509.tbs_certificate.signature {
            return Err(because("its two signature algorithms differ"));
        }
        if cert.x509.subject().iter_rdn().next().is_none() {
            return Err(because("a CA without a name"));
        }
        if cert.x509.version() != X509Version::V3 {
            return if cert.x509.extensions().is_empty() {
                Ok(cert)
            } else {
                Err(PeerProblem::Malformed)
            };
        }
        if !cert
            .x509
            .basic_constraints()
            .is_ok_and(|b| b.is_some_and(|b| b.critical))
        {
            return Err(because("a root needs critical basic constraints"));
        }
        cert.authority()?;
        if let Some(id) = cert.authority_key_id()?
            && cert.self_issued()
            && cert.key_id() != Some(id)
        {
            return Err(because("its key identifiers differ"));
        }
        Ok(cert)
    }

    /// What holds for every certificate.
    fn read(der: &'a CertificateDer<'a>) -> Result<Self, PeerProblem> {
        let (rest, x509) = X509Certificate::from_der(der).map_err(|_| PeerProblem::Malformed)?;
        let signed = Signed::read(der).filter(|_| rest.is_empty());
        let cert = Self {
            x509,
            signed: signed.ok_or(PeerProblem::Malformed)?,
        };
        let mut seen = BTreeSet::new();
        for extension in cert.x509.extensions() {
            if !seen.insert(extension.oid.as_bytes()) {
                return Err(PeerProblem::Malformed);
            }
            if let ParsedExtension::ParseError { .. } = extension.parsed_extension() {
                return Err(PeerProblem::Malformed);
            }
            let acted_on = KNOWN.contains(&extension.oid);
            if extension.critical && !acted_on {
                let why = format!("its critical extension {} is not known", extension.oid);
                return Err(PeerProblem::Other(why));
            }
            let whole = !(acted_on || KEY_IDS.contains(&extension.oid)) || strict::is_der(extension.value);
            let bound = extension.oid != NAME_CONSTRAINTS || strict::is_constraints(extension.value);
            if !whole || !bound {
                return Err(PeerProblem::Malformed);
            }
        }
        if !strong(cert.x509.public_key()) {
            return Err(because("its key is of a kind or size that is not taken"));
        }
        for name in cert.names() {
            constraints::well_formed(name)?;
        }
        Ok(cert)
    }

    /// What is asked of certificates that others have issued: not of roots, which are believed as they are.
    fn fit(&self) -> Result<(), PeerProblem> {
        if !strict::is_certificate(self.signed.message) {
            return Err(PeerProblem::Malformed);
        }
        let serial = self.x509.raw_serial();
        let positive = serial.first().is_some_and(|b| *b < 0x80) && serial.iter().any(|b| *b != 0);
        if !positive || serial.len() > MAX_SERIAL {
            return Err(because(
                "its serial number is not a positive one of at most 20 bytes",
            ));
        }
        let names = self.x509.subject_alternative_name().ok().flatten();
        if names.is_some_and(|n| n.value.general_names.is_empty()) {
            return Err(PeerProblem::Malformed);
        }
        Ok(())
    }

    /// What is asked of every CA's certificate of version 3.
    fn authority(&self) -> Result<(), PeerProblem> {
        if !self.is_ca() {
            return Err(PeerProblem::Purpose);
        }
        if self.x509.subject().iter_rdn().next().is_none() {
            return Err(because("a CA without a name"));
        }
        if self.key_usage().is_some_and(|u| !u.key_cert_sign()) {
            return Err(because("a CA whose key usage has no keyCertSign"));
        }
        if let Some(constraints) = self.constraints() {
            constraints::check(constraints)?;
        }
        Ok(())
    }

    /// Subject, DER.
    pub(super) fn subject(&self) -> &'a [u8] {
        self.x509.subject.as_raw()
    }

    /// Issuer, DER.
    pub(super) fn issuer(&self) -> &'a [u8] {
        self.x509.issuer.as_raw()
    }

    /// SubjectPublicKeyInfo, DER.
    pub(super) fn key(&self) -> &'a [u8] {
        self.x509.subject_pki.raw
    }

    /// Whether subject and issuer are the same (RFC 5280 section 6.1).
    pub(super) fn self_issued(&self) -> bool {
        self.subject() == self.issuer()
    }

    pub(super) fn is_ca(&self) -> bool {
        self.x509
            .basic_constraints()
            .is_ok_and(|b| b.is_some_and(|b| b.value.ca))
    }

    /// How many intermediates may follow; `None` where it does not say.
    pub(super) fn path_len(&self) -> Option<usize> {
        let constraints = self.x509.basic_constraints().ok().flatten()?;
        constraints
            .value
            .path_len_constraint
            .map(|n| usize::try_from(n).unwrap_or(usize::MAX))
    }

    pub(super) fn key_usage(&self) -> Option<&KeyUsage> {
        self.x509.key_usage().ok().flatten().map(|u| u.value)
    }

    pub(super) fn constraints(&self) -> Option<&NameConstraints<'a>> {
        self.x509
            .extensions()
            .iter()
            .find_map(|e| match e.parsed_extension() {
                ParsedExtension::NameConstraints(constraints) => Some(constraints),
                _ => None,
            })
    }

    /// The subject alternative names.
    pub(super) fn names(&self) -> impl Iterator<Item = &GeneralName<'a>> {
        let names = self.x509.subject_alternative_name().ok().flatten();
        names.into_iter().flat_map(|n| n.value.general_names.iter())
    }

    /// The subject key identifier.
    pub(super) fn key_id(&self) -> Option<&[u8]> {
        self.x509
            .extensions()
            .iter()
            .find_map(|e| match e.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
                _ => None,
            })
    }

    /// The authority key identifier: one that is there names a key (RFC 5280 section 4.2.1.1).
    fn authority_key_id(&self) -> Result<Option<&[u8]>, PeerProblem> {
        let found = self
            .x509
            .extensions()
            .iter()
            .find_map(|e| match e.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => Some(id.key_identifier.as_ref()),
                _ => None,
            });
        match found {
            None => Ok(None),
            Some(Some(id)) => Ok(Some(id.0)),
            Some(None) => Err(because("its authority key identifier names no key")),
        }
    }

    /// Whether it is valid at `now`, Unix seconds; both ends are included.
    pub(super) fn in_time(&self, now: i64) -> Result<(), PeerProblem> {
        let validity = self.x509.validity();
        if now < validity.not_before.timestamp() {
            return Err(PeerProblem::NotYetValid);
        }
        if now > validity.not_after.timestamp() {
            return Err(PeerProblem::Expired);
        }
        Ok(())
    }

    /// Whether it may be used so: as its extended key usage says, where it has one. That of a CA bounds what it issues.
    pub(super) fn serves(&self, purpose: Purpose) -> Result<(), PeerProblem> {
        let usage = self
            .x509
            .extended_key_usage()
            .map_err(|_| PeerProblem::Malformed)?;
        let Some(usage) = usage.map(|u| u.value) else {
            return Ok(());
        };
        let named = match purpose {
            Purpose::Client => usage.client_auth,
            Purpose::Server => usage.server_auth,
        };
        if named || (usage.any && self.is_ca()) {
            Ok(())
        } else {
            Err(PeerProblem::Purpose)
        }
    }

    /// Whether this one and `issuer` speak of the same key. No signature is looked at.
    pub(super) fn agrees_with(&self, issuer: &Cert<'_>) -> Result<(), PeerProblem> {
        match (self.authority_key_id()?, issuer.key_id()) {
            (None, None) => Ok(()),
            (Some(named), Some(id)) if named == id => Ok(()),
            (Some(_), Some(_)) => Err(PeerProblem::UnknownIssuer),
            (None, Some(_)) => Err(because("no authority key identifier")),
            (Some(_), None) => Err(because("its issuer has no subject key identifier")),
        }
    }

    /// Whether `issuer` signed this one.
    pub(super) fn is_by(&self, issuer: &Cert<'_>) -> Result<(), PeerProblem> {
        // A CA of the same name whose key did not sign this is another CA.
        self.signed.is_by(issuer.key()).map_err(|e| match e {
            webpki::Error::InvalidSignatureForPublicKey => PeerProblem::UnknownIssuer,
            other => super::problem(other),
        })
    }
}

/// Whether a key is of a kind and size that is believed: RSA of 2048 bits and more, P-256, P-384, P-521, Ed25519.
fn strong(key: &SubjectPublicKeyInfo<'_>) -> bool {
    let algorithm = &key.algorithm;
    if algorithm.algorithm == RSA {
        let Ok(PublicKey::RSA(rsa)) = key.parsed() else {
            return false;
        };
        let modulus: &[u8] = match rsa.modulus {
            [0, rest @ ..] => rest,
            all => all,
        };
        let whole = modulus.first().is_some_and(|b| *b >= 0x80);
        let odd = rsa.try_exponent().is_ok_and(|e| e >= 3 && e % 2 == 1);
        return whole && odd && RSA_BITS.contains(&(modulus.len() * 8));
    }
    if algorithm.algorithm == EC {
        let curve = algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
        return curve.is_some_and(|c| CURVES.contains(&c));
    }
    algorithm.algorithm == ED25519
}
