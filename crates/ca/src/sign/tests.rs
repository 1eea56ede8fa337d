use base64::Engine as _;
use identity::pki;
use model::TrustDomain;
use proptest::prelude::*;
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519,
    PKCS_RSA_SHA256, RsaKeySize, SignatureAlgorithm,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateSigningRequestDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn root() -> Root {
    Root::generate(&TrustDomain::default(), now()).unwrap()
}

fn id(sa: &str) -> SpiffeId {
    SpiffeId::new(TrustDomain::default(), "full", sa).unwrap()
}

/// A request with everything in it that must not be taken.
fn greedy(key: &KeyPair) -> String {
    let mut params = CertificateParams::new(vec!["evil.example".to_owned(), "10.0.0.1".to_owned()]).unwrap();
    for uri in [
        "spiffe://cluster.local/ns/kube-system/sa/admin",
        "spiffe://other/ns/a/sa/b",
    ] {
        params
            .subject_alt_names
            .push(SanType::URI(uri.try_into().unwrap()));
    }
    params.distinguished_name.push(rcgen::DnType::CommonName, "admin");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.serialize_request(key).unwrap().pem().unwrap()
}

fn issue(csr: &str) -> Result<Issued, SignError> {
    sign(&root(), &id("sleep"), csr, 0, Duration::HOUR, now())
}

fn generate(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

#[test]
fn id_02_nothing_but_the_key_is_taken() {
    let key = generate(&PKCS_ECDSA_P256_SHA256);
    let issued = issue(&greedy(&key)).unwrap();
    let der = pki::certificates(&issued.leaf).unwrap();
    let facts = pki::facts(&der[0]).unwrap();
    assert_eq!((facts.id, facts.subject.as_str()), (id("sleep"), ""));
    assert_eq!(facts.not_before, now().unix_timestamp() - 120);
    assert_eq!(facts.serial, issued.serial);
    let (_, leaf) = X509Certificate::from_der(&der[0]).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), 1);
    assert!(
        names.critical,
        "an empty subject makes it critical (RFC 5280, 4.2.1.6)"
    );
    assert!(!leaf.is_ca());
    let usage = leaf.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.key_encipherment());
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth && !extended.code_signing && !extended.any);
    assert_eq!(
        leaf.public_key().subject_public_key.data.as_ref(),
        rcgen::PublicKeyData::der_bytes(&key)
    );
}

#[test]
fn one_key_twice_has_two_serials() {
    let csr = greedy(&generate(&PKCS_ECDSA_P256_SHA256));
    let (a, b) = (issue(&csr).unwrap().serial, issue(&csr).unwrap().serial);
    assert!(a != b && a.len() == 32, "{a} {b}");
}

#[test]
fn id_03_a_request_that_is_not_signed_by_its_key() {
    let good = pki::Request::new(&id("sleep")).unwrap().csr_pem.clone();
    let other = pki::Request::new(&id("sleep")).unwrap().csr_pem.clone();
    let der = |pem: &str| {
        CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
            .unwrap()
            .to_vec()
    };
    let (good, other) = (der(&good), der(&other));
    // The public key of another in a request that was signed with ours.
    let key_of = |der: &[u8]| {
        let (_, csr) = x509_parser::certification_request::X509CertificationRequest::from_der(der).unwrap();
        csr.certification_request_info
            .subject_pki
            .subject_public_key
            .data
            .to_vec()
    };
    let (ours, theirs) = (key_of(&good), key_of(&other));
    let at = good.windows(ours.len()).position(|w| w == ours).unwrap();
    let mut swapped = good.clone();
    swapped[at..at + theirs.len()].copy_from_slice(&theirs);
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut longer = good.clone();
    longer.push(0);
    for bad in [&swapped, &flipped, &longer] {
        let refused = issue(&to_pem(bad));
        assert!(matches!(refused, Err(SignError::Request(_))), "{refused:?}");
    }
    assert!(issue(&to_pem(&good)).is_ok());
}

fn to_pem(der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
}

#[test]
fn kinds_of_keys() {
    for (algorithm, expect) in [
        (&PKCS_ECDSA_P256_SHA256, "P-256"),
        (&PKCS_ECDSA_P384_SHA384, "P-384"),
        (&PKCS_ED25519, "Ed25519"),
    ] {
        let issued = issue(&greedy(&generate(algorithm))).unwrap();
        assert_eq!(issued.key, expect);
    }
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let issued = issue(&greedy(&rsa)).unwrap();
    assert_eq!(issued.key, "RSA");
    let refused = issue(&greedy(&generate(&PKCS_ECDSA_P521_SHA512)));
    assert!(matches!(refused, Err(SignError::Request(_))), "{refused:?}");
}

#[test]
fn small_rsa_keys_are_refused() {
    // Made with `openssl req -new -newkey rsa:1024 -nodes -subj / -sha256`.
    let small = include_str!("rsa1024.pem");
    let refused = issue(small);
    assert!(matches!(refused, Err(SignError::Request(_))), "{refused:?}");
}

#[test]
fn id_06_lifetimes() {
    let root = root();
    let csr = pki::Request::new(&id("sleep")).unwrap().csr_pem.clone();
    let at = |asked, now| sign(&root, &id("sleep"), &csr, asked, Duration::HOUR, now);
    let end = |asked| at(asked, now()).map(|i| (i.not_after - now()).whole_seconds());
    assert_eq!(end(0), Ok(3600));
    assert_eq!(end(-5), Ok(3600));
    assert_eq!(end(i64::MIN), Ok(3600));
    assert_eq!(end(60), Ok(60));
    assert_eq!(end(7200), Ok(3600));
    for asked in [91 * 86400, i64::MAX] {
        assert_eq!(end(asked), Err(SignError::Lifetime { asked }));
    }
    let late = root.not_after() - Duration::minutes(1);
    assert_eq!(at(0, late).unwrap().not_after, root.not_after());
    assert_eq!(at(0, root.not_after()).unwrap_err(), SignError::RootExpired);
}

#[test]
fn the_leaf_chains_to_the_root() {
    let root = root();
    let csr = pki::Request::new(&id("sleep")).unwrap().csr_pem.clone();
    let issued = sign(&root, &id("sleep"), &csr, 0, Duration::HOUR, now()).unwrap();
    assert_eq!(issued.root, root.pem());
    let der = |pem: &str| pki::certificates(pem).unwrap().remove(0);
    let mut store = rustls::RootCertStore::empty();
    store.add(der(&issued.root)).unwrap();
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(store.into(), identity::crypto())
            .build()
            .unwrap();
    let at = |seconds: i64| {
        let time = u64::try_from(now().unix_timestamp() + seconds).unwrap();
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(time));
        rustls::server::danger::ClientCertVerifier::verify_client_cert(
            &*verifier,
            &der(&issued.leaf),
            &[],
            time,
        )
    };
    assert!(at(0).is_ok() && at(3599).is_ok() && at(-119).is_ok());
    assert!(at(3601).is_err() && at(-121).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_text_is_refused(text in ".{0,300}") {
        prop_assert!(csr::read(&text).is_err());
    }

    #[test]
    fn damaged_requests_never_panic(at in 0_usize..400, with in any::<u8>()) {
        let csr = pki::Request::new(&id("sleep")).unwrap().csr_pem.clone();
        let mut bytes = csr.into_bytes();
        if let Some(byte) = bytes.get_mut(at) {
            *byte = with;
        }
        if let Ok(text) = String::from_utf8(bytes) {
            let _ = csr::read(&text);
        }
    }
}
