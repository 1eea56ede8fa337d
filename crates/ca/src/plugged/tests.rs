//! Directories of CAs, good and bad.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName,
    DnType, IsCa, KeyIdMethod, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use time::Duration as Span;

use super::*;

type Ca = CertifiedIssuer<'static, KeyPair>;

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn params(name: &str, days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = now() - Span::days(400);
    params.not_after = now() + Span::days(days);
    params.serial_number = Some(SerialNumber::from(1000));
    params
}

pub(crate) fn root(days: i64) -> Ca {
    CertifiedIssuer::self_signed(params("Root CA", days), KeyPair::generate().unwrap()).unwrap()
}

pub(crate) fn intermediate(root: &Ca, days: i64) -> Ca {
    let mut params = params("Intermediate CA", days);
    params.use_authority_key_identifier_extension = true;
    CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), root).unwrap()
}

pub(crate) fn list(issuer: &Ca, serial: Option<&[u8]>, until: Span) -> String {
    let revoked = serial.map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from_slice(serial),
        revocation_time: now() - Span::hours(1),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: now() - Span::days(2),
        next_update: now() + until,
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.into_iter().collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).unwrap().pem().unwrap()
}

/// A directory with the files of Istio's secret.
pub(crate) fn directory(root: &Ca, ca: &Ca) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    put("ca-cert.pem", &ca.pem());
    put("ca-key.pem", &ca.key().serialize_pem());
    put("cert-chain.pem", &format!("{}{}", ca.pem(), root.pem()));
    put("root-cert.pem", &root.pem());
    dir
}

fn load(dir: &tempfile::TempDir) -> Result<Root, String> {
    Files::of(dir.path())
        .and_then(|files| Root::plugged(&files, &TrustDomain::default(), now()))
        .map_err(|e| e.to_string())
}

fn refused(dir: &tempfile::TempDir, file: &str, why: &str) {
    let error = load(dir).unwrap_err();
    assert!(error.contains(file) && error.contains(why), "{error}");
}

#[test]
fn a_complete_directory_signs_in_either_form() {
    let root = root(100);
    let ca = intermediate(&root, 50);
    let dir = directory(&root, &ca);
    let signer = load(&dir).unwrap();
    assert_eq!(signer.chain().len(), 1);
    assert!(signer.not_after() < now() + Span::days(51));
    let other = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| fs::write(other.path().join(name), text).unwrap();
    put("tls.crt", &ca.pem());
    put("tls.key", &ca.key().serialize_pem());
    put("ca.crt", &root.pem());
    assert_eq!(load(&other).unwrap().chain(), signer.chain());
    put("root-cert.pem", &root.pem());
    refused(&other, "tls.crt", "both forms");
}

#[test]
fn a_root_may_sign_itself() {
    let root = root(100);
    let signer = load(&directory(&root, &root)).unwrap();
    assert!(signer.chain().is_empty());
}

#[test]
fn what_is_missing_is_named_and_nothing_is_made_instead() {
    for name in ISTIO {
        let root = root(100);
        let dir = directory(&root, &intermediate(&root, 50));
        fs::remove_file(dir.path().join(name)).unwrap();
        refused(&dir, name, "missing");
    }
    refused(&tempfile::tempdir().unwrap(), "ca-cert.pem", "missing");
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let (root, stranger) = (root(100), root(100));
    let ca = intermediate(&root, 50);
    let dir = directory(&root, &ca);
    let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    put("ca-key.pem", &stranger.key().serialize_pem());
    refused(&dir, "ca-key.pem", "not the key of");
    put("ca-key.pem", "not PEM");
    refused(&dir, "ca-key.pem", "no private key in PEM");
    put("ca-key.pem", &ca.key().serialize_pem());
    put("root-cert.pem", &stranger.pem());
    refused(&dir, "ca-cert.pem", "unknown issuer");
    put("root-cert.pem", "");
    refused(&dir, "root-cert.pem", "no certificate");
}

#[test]
fn what_nobody_would_believe_does_not_sign() {
    let root = root(100);
    refused(
        &directory(&root, &intermediate(&root, -1)),
        "ca-cert.pem",
        "expired at",
    );
    let mut none = params("Intermediate CA", 50);
    none.use_authority_key_identifier_extension = true;
    none.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let unfit = CertifiedIssuer::signed_by(none, KeyPair::generate().unwrap(), &root).unwrap();
    refused(&directory(&root, &unfit), "ca-cert.pem", "keyCertSign");
    let mut short = params("Root CA", 100);
    short.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let short = CertifiedIssuer::self_signed(short, KeyPair::generate().unwrap()).unwrap();
    refused(
        &directory(&short, &intermediate(&short, 50)),
        "ca-cert.pem",
        "longer than its CA allows",
    );
}

#[test]
fn revocation_lists_are_of_our_cas_in_force_and_spare_the_signer() {
    let (root, stranger) = (root(100), root(100));
    let ca = intermediate(&root, 50);
    let dir = directory(&root, &ca);
    let put = |text: &str| fs::write(dir.path().join(LISTS), text).unwrap();
    put(&list(&root, None, Span::days(1)));
    assert!(load(&dir).unwrap().bundle().contains("BEGIN X509 CRL"));
    put(&list(&stranger, None, Span::days(1)));
    refused(&dir, LISTS, "signed by no CA");
    put(&list(&root, None, Span::hours(-1)));
    refused(&dir, LISTS, "has expired");
    put("-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n");
    refused(&dir, LISTS, "revocation list");
    put(&root.pem());
    refused(&dir, LISTS, "no revocation list");
    put(&list(&root, Some(&[0x03, 0xe8]), Span::days(1)));
    refused(&dir, "ca-cert.pem", "revoked");
}

#[test]
fn no_leaf_outlives_its_signer_id_06() {
    let root = root(1);
    let ca = intermediate(&root, 50);
    let signer = load(&directory(&root, &ca)).unwrap();
    let id = "spiffe://cluster.local/ns/full/sa/sleep".parse().unwrap();
    let csr = pki::Request::new(&id).unwrap().csr_pem.clone();
    let issued = crate::sign(&signer, &id, &csr, 0, Span::days(60), now()).unwrap();
    assert_eq!(issued.not_after, signer.not_after());
    assert!(issued.not_after < now() + Span::days(2), "nor the root");
}
