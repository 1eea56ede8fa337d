//! A CA that somebody else made: the files of Istio's secret `cacerts` (semantics 5.4).
//!
//! What it signs is shown to the verifier that every workload uses, before anything is served: files that are incomplete,
//! or do not belong together, stop the start instead of falling back to a root of our own.

mod follow;

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use identity::pki::{self, Fingerprint};
use identity::{Anchors, Purpose};
use model::{SpiffeId, TrustDomain};
use rcgen::{Issuer, KeyPair};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, ParsedExtension, X509Certificate};
use zeroize::Zeroizing;

use crate::config::CaError;
use crate::csr;
use crate::root::Root;
use crate::sign::certify;

pub(crate) use follow::follow;

#[cfg(test)]
pub(crate) mod tests;

/// The largest file, bytes.
const MAX_FILE: u64 = 1024 * 1024;
/// The most certificates between the signer and the root.
const MAX_CHAIN: usize = 6;
/// The lifetime of the leaf that is tried.
const TRIAL: time::Duration = time::Duration::minutes(1);

/// The files of a CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate that signs: `ca-cert.pem`, or `tls.crt`.
    pub certificate: PathBuf,
    /// Its key: `ca-key.pem`, or `tls.key`.
    pub key: PathBuf,
    /// The certificates between it and the root, in any order: `cert-chain.pem`, or what follows in `tls.crt`. It may hold
    /// the signer and the root as well.
    pub chain: Option<PathBuf>,
    /// The roots: `root-cert.pem`, or `ca.crt`.
    pub roots: PathBuf,
    /// Revocation lists: `ca-crl.pem`.
    pub lists: Option<PathBuf>,
}

/// The names that Istio's secret has.
const ISTIO: [&str; 4] = ["ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem"];
/// The names that a secret of type `kubernetes.io/tls` has.
const TLS: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];
/// Revocation lists, with either.
const LISTS: &str = "ca-crl.pem";

impl Files {
    /// The files of a directory.
    ///
    /// # Errors
    /// Neither form is complete, or there are files of both.
    pub fn of(dir: &Path) -> Result<Self, CaError> {
        let there = |name: &&&str| dir.join(name).exists();
        let (istio, tls) = (
            ISTIO.iter().filter(there).count(),
            TLS.iter().filter(there).count(),
        );
        let fail = |path: &Path, why: String| Err(CaError::file("plugged-in CA", path, why));
        if istio > 0 && tls > 0 {
            let why = format!(
                "files of both forms ({}; {}): remove one",
                ISTIO.join(", "),
                TLS.join(", ")
            );
            return fail(dir, why);
        }
        let names: &[&str] = if tls > 0 { &TLS } else { &ISTIO };
        if let Some(missing) = names.iter().find(|name| !dir.join(name).exists()) {
            let why = format!(
                "missing: a CA is {}; give all of them, or leave the directory out to have a root made",
                names.join(", ")
            );
            return fail(&dir.join(missing), why);
        }
        let at = |name: &str| dir.join(name);
        let lists = Some(at(LISTS)).filter(|path| path.exists());
        Ok(if tls > 0 {
            Self {
                certificate: at("tls.crt"),
                key: at("tls.key"),
                chain: Some(at("tls.crt")),
                roots: at("ca.crt"),
                lists,
            }
        } else {
            Self {
                certificate: at("ca-cert.pem"),
                key: at("ca-key.pem"),
                chain: Some(at("cert-chain.pem")),
                roots: at("root-cert.pem"),
                lists,
            }
        })
    }
}

/// Whether the CA of a directory could sign for this trust domain.
///
/// # Errors
/// As of [`Files::of`] and [`Root::plugged`].
pub fn check(dir: &Path, trust_domain: &TrustDomain) -> Result<(), CaError> {
    Root::plugged(&Files::of(dir)?, trust_domain, OffsetDateTime::now_utc()).map(|_| ())
}

/// A file and what was read from it.
struct Text<'f> {
    what: &'static str,
    path: &'f Path,
    pem: Zeroizing<String>,
}

impl<'f> Text<'f> {
    fn read(what: &'static str, path: &'f Path) -> Result<Self, CaError> {
        let mut pem = Zeroizing::new(String::new());
        let file = fs::File::open(path).map_err(|e| CaError::file(what, path, e))?;
        let read = file
            .take(MAX_FILE + 1)
            .read_to_string(&mut pem)
            .map_err(|e| CaError::file(what, path, e))?;
        if u64::try_from(read).unwrap_or(u64::MAX) > MAX_FILE {
            return Err(CaError::file(what, path, format!("larger than {MAX_FILE} bytes")));
        }
        Ok(Self { what, path, pem })
    }

    fn fail(&self, why: impl ToString) -> CaError {
        CaError::file(self.what, self.path, why)
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, CaError> {
        pki::certificates(&self.pem).map_err(|e| self.fail(e))
    }
}

impl Root {
    /// A CA that was plugged in.
    ///
    /// # Errors
    /// A file cannot be read or is not what it should be; the key is not the certificate's; nothing leads from the
    /// certificate to a root; it or what leads to the root has expired, was revoked or may not sign for workloads; a
    /// revocation list is of nobody here or has expired. The message names the file and what to do.
    pub fn plugged(files: &Files, trust_domain: &TrustDomain, now: OffsetDateTime) -> Result<Self, CaError> {
        let certificate = Text::read("CA certificate", &files.certificate)?;
        let key = Text::read("CA key", &files.key)?;
        let roots = Text::read("root certificates", &files.roots)?;
        let lists = files
            .lists
            .as_deref()
            .map(|path| Text::read("revocation lists", path))
            .transpose()?;
        let der = certificate.certificates()?.swap_remove(0);
        let (_, parsed) =
            X509Certificate::from_der(&der).map_err(|e| certificate.fail(format!("no certificate: {e}")))?;
        let pair = pair(&key)?;
        if rcgen::PublicKeyData::der_bytes(&pair) != parsed.public_key().subject_public_key.data.as_ref() {
            return Err(key.fail(format!("not the key of `{}`", files.certificate.display())));
        }
        warn_of_readers(&files.key);

        let believed = roots.certificates()?;
        let Some(first) = believed.first() else {
            return Err(roots.fail("it holds no certificate"));
        };
        let mut pool = vec![];
        if let Some(path) = &files.chain {
            pool = Text::read("certificate chain", path)?.certificates()?;
        }
        let chain = chain(&der, &pool, &believed);
        let not_after = end(&der, &chain, &believed);
        let issuer = Issuer::from_ca_cert_der(&der, pair).map_err(|e| certificate.fail(e))?;
        let has_key_id = parsed
            .extensions()
            .iter()
            .any(|e| matches!(e.parsed_extension(), ParsedExtension::SubjectKeyIdentifier(_)));
        let signer = Self::foreign(
            (pem(&believed).concat(), Fingerprint::of(first)),
            pem(&chain),
            lists.as_ref().map(blocks).transpose()?.unwrap_or_default(),
            has_key_id,
            (parsed.validity().not_before.to_datetime(), not_after),
            issuer,
        );
        if now >= not_after {
            let why = format!("it, or what it leads to, expired at {not_after}; give a new one");
            return Err(certificate.fail(why));
        }
        if let Some(lists) = &lists {
            check_lists(lists, &signer, &roots, now)?;
        }
        signer
            .try_out(trust_domain, &chain, now)
            .map_err(|why| certificate.fail(why))?;
        tracing::info!(
            subject = %parsed.subject(), not_after = %not_after, intermediates = chain.len(), roots = believed.len(),
            "a plugged-in CA signs"
        );
        Ok(signer)
    }

    /// Signs for a workload, and has it judged as every peer will.
    fn try_out(
        &self,
        trust_domain: &TrustDomain,
        chain: &[CertificateDer<'static>],
        now: OffsetDateTime,
    ) -> Result<(), String> {
        let anchors = Anchors::from_pem(&[self.bundle()]).map_err(|e| e.to_string())?;
        let id = SpiffeId::new(trust_domain.clone(), "default", "default").map_err(|e| e.to_string())?;
        let request = pki::Request::new(&id)?;
        let proven = csr::read(&request.csr_pem).map_err(|e| e.to_string())?;
        let issued = certify(self, &id, &[], &proven, TRIAL, now).map_err(|e| e.to_string())?;
        let leaf = pki::certificates(&issued.leaf)?.swap_remove(0);
        let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        for purpose in [Purpose::Server, Purpose::Client] {
            anchors.verify_identity(&leaf, chain, at, purpose).map_err(|problem| {
                format!(
                    "what it signs for `{id}` would be refused by every workload: {problem}; the root file must hold its \
                     root and the chain file every certificate in between"
                )
            })?;
        }
        Ok(())
    }
}

fn pair(key: &Text<'_>) -> Result<KeyPair, CaError> {
    let der = PrivateKeyDer::from_pem_slice(key.pem.as_bytes()).map_err(|e| {
        // The parser's words never hold bytes of the key.
        key.fail(format!("no private key in PEM, unencrypted: {e}"))
    })?;
    KeyPair::try_from(&der).map_err(|e| key.fail(format!("of no kind that signs here: {e}")))
}

/// Secrets are mounted readable by all in many places, so that this does not stop the start.
fn warn_of_readers(key: &Path) {
    if let Ok(meta) = fs::metadata(key)
        && meta.mode() & 0o077 != 0
    {
        let mode = format!("{:o}", meta.mode() & 0o777);
        tracing::warn!(file = %key.display(), mode, "others can read the CA's key; make it 0600");
    }
}

/// What is sent behind a leaf: the signer, then its issuer, until a root follows. Of what is given only that is taken.
fn chain(
    signer: &CertificateDer<'static>,
    pool: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
) -> Vec<CertificateDer<'static>> {
    let mut path = Vec::new();
    let mut next = Some(signer.clone());
    while let Some(der) = next.take() {
        if roots.contains(&der) || path.contains(&der) || path.len() >= MAX_CHAIN {
            break;
        }
        let issuer = X509Certificate::from_der(&der)
            .ok()
            .map(|(_, c)| c.issuer().as_raw().to_vec());
        path.push(der);
        let is_issuer = |c: &&CertificateDer<'static>| {
            let subject = X509Certificate::from_der(c)
                .ok()
                .map(|(_, c)| c.subject().as_raw().to_vec());
            subject == issuer
        };
        if !roots.iter().any(|c| is_issuer(&c)) {
            next = pool.iter().find(is_issuer).cloned();
        }
    }
    path
}

/// When the first of those ends that a leaf depends on: the signer, what leads to the root, and the root that lasts longest.
fn end(
    signer: &CertificateDer<'static>,
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
) -> OffsetDateTime {
    let end = |der: &CertificateDer<'static>| {
        X509Certificate::from_der(der).map_or(OffsetDateTime::UNIX_EPOCH, |(_, c)| {
            c.validity().not_after.to_datetime()
        })
    };
    let signing = chain.iter().map(end).fold(end(signer), OffsetDateTime::min);
    let root = roots.iter().map(end).max().unwrap_or(OffsetDateTime::UNIX_EPOCH);
    signing.min(root)
}

/// A list that has expired, or that nobody here has signed, would have everybody refused, or nobody.
fn check_lists(
    lists: &Text<'_>,
    signer: &Root,
    roots: &Text<'_>,
    now: OffsetDateTime,
) -> Result<(), CaError> {
    let anchors = Anchors::from_pem(&[signer.bundle()]).map_err(|e| lists.fail(e))?;
    let mut issuers: Vec<CertificateDer<'static>> = roots.certificates()?;
    for pem in signer.chain() {
        issuers.extend(pki::certificates(pem).map_err(|e| lists.fail(e))?);
    }
    let known = anchors.lists();
    if known.is_empty() {
        return Err(lists.fail("no revocation list in PEM in it; remove the file if there is none"));
    }
    if let Some(orphan) = anchors.orphans(&issuers).first() {
        let why = format!(
            "the list of `{}` is signed by no CA that leads to a root here",
            orphan.issuer
        );
        return Err(lists.fail(why));
    }
    if let Some(old) = known.iter().find(|list| now.unix_timestamp() >= list.next_update) {
        let why = format!(
            "the list of `{}` has expired: nothing that it signed would be believed; give a new list",
            old.issuer
        );
        return Err(lists.fail(why));
    }
    Ok(())
}

fn pem(certificates: &[CertificateDer<'static>]) -> Vec<String> {
    certificates
        .iter()
        .map(|der| pem_of("CERTIFICATE", der))
        .collect()
}

fn pem_of(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at_checked(64).unwrap_or((rest, ""));
        out.push_str(line);
        out.push('\n');
        rest = more;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

/// The revocation lists of a file and nothing else of it: what else stands there must not be published.
fn blocks(lists: &Text<'_>) -> Result<String, CaError> {
    CertificateRevocationListDer::pem_slice_iter(lists.pem.as_bytes())
        .map(|list| list.map(|der| pem_of("X509 CRL", &der)))
        .collect::<Result<_, _>>()
        .map_err(|e| lists.fail(format!("not PEM: {e}")))
}
