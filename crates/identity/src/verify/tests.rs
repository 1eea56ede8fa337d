//! Paths made for the purpose: who is believed, and why not.

mod forged;
mod hostile;
mod lists;
mod memory;

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, CustomExtension,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyIdMethod, KeyPair,
    KeyUsagePurpose, NameConstraints, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use time::OffsetDateTime;

use super::{Anchors, Purpose};
use crate::error::{PeerProblem, RootsError};
use crate::pki::FactsError;

/// The time of all tests, Unix seconds.
const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;

type Ca = CertifiedIssuer<'static, KeyPair>;

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(NOW + seconds).unwrap()
}

fn moment(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(NOW + seconds).unwrap()))
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = at(-DAY);
    params.not_after = at(10 * DAY);
    params.use_authority_key_identifier_extension = true;
    params
}

fn root(name: &str) -> Ca {
    let mut params = ca_params(name);
    params.use_authority_key_identifier_extension = false;
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn under(issuer: &Ca, edit: impl FnOnce(&mut CertificateParams)) -> Ca {
    let mut params = ca_params("intermediate");
    params.serial_number = Some(SerialNumber::from(7));
    edit(&mut params);
    CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), issuer).unwrap()
}

fn leaf_params(uri: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.not_before = at(-60);
    params.not_after = at(3600);
    params.serial_number = Some(SerialNumber::from(4711));
    params.use_authority_key_identifier_extension = true;
    params
}

const WHO: &str = "spiffe://td/ns/full/sa/sleep";

fn leaf(issuer: &Ca, edit: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
    let mut params = leaf_params(WHO);
    edit(&mut params);
    params
        .signed_by(&KeyPair::generate().unwrap(), issuer)
        .unwrap()
        .into()
}

fn der(ca: &Ca) -> CertificateDer<'static> {
    ca.der().clone()
}

fn list(issuer: &Ca, revoked: &[u64], until: i64) -> CertificateRevocationListDer<'static> {
    list_of(issuer, revoked, -60, until)
}

fn list_of(issuer: &Ca, revoked: &[u64], from: i64, until: i64) -> CertificateRevocationListDer<'static> {
    list_within(issuer, revoked, from, until)
}

fn list_from(
    issuer: &rcgen::Issuer<'_, &KeyPair>,
    revoked: &[u64],
    until: i64,
) -> CertificateRevocationListDer<'static> {
    list_within(issuer, revoked, -60, until)
}

fn list_within(
    issuer: &rcgen::Issuer<'_, impl rcgen::SigningKey>,
    revoked: &[u64],
    from: i64,
    until: i64,
) -> CertificateRevocationListDer<'static> {
    let revoked_certs = revoked
        .iter()
        .map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: at(-10),
            reason_code: None,
            invalidity_date: None,
        })
        .collect();
    let params = CertificateRevocationListParams {
        this_update: at(from),
        next_update: at(until),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs,
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).unwrap().into()
}

fn judge(
    anchors: &Anchors,
    leaf: &CertificateDer<'_>,
    sent: &[CertificateDer<'_>],
) -> Result<(), PeerProblem> {
    let client = anchors
        .verify_identity(leaf, sent, moment(0), Purpose::Client)
        .map(|_| ());
    let server = anchors
        .verify_identity(leaf, sent, moment(0), Purpose::Server)
        .map(|_| ());
    assert_eq!(client, server, "both sides judge alike");
    client
}

fn trusting(roots: &[&Ca], lists: Vec<CertificateRevocationListDer<'static>>) -> Anchors {
    Anchors::new(roots.iter().map(|r| der(r)).collect(), lists).unwrap()
}

#[test]
fn a_leaf_of_a_root_and_of_an_intermediate_is_believed_within_its_time() {
    let root = root("a");
    let ca = under(&root, |_| {});
    let anchors = trusting(&[&root], vec![]);
    assert_eq!(judge(&anchors, &leaf(&root, |_| {}), &[]), Ok(()));
    let below = leaf(&ca, |_| {});
    assert_eq!(judge(&anchors, &below, &[der(&ca)]), Ok(()));
    assert_eq!(judge(&anchors, &below, &[]), Err(PeerProblem::UnknownIssuer));
    let when = |seconds| anchors.verify(&below, &[der(&ca)], moment(seconds), Purpose::Client);
    assert_eq!((when(-60), when(3600)), (Ok(()), Ok(())));
    assert_eq!(when(-61), Err(PeerProblem::NotYetValid));
    assert_eq!(when(3601), Err(PeerProblem::Expired));
    let old = leaf(&root, |p| p.not_after = at(20 * DAY));
    let late = anchors.verify(&old, &[], moment(11 * DAY), Purpose::Client);
    assert_eq!(
        late,
        Err(PeerProblem::Expired),
        "a root past its end proves nothing"
    );
}

#[test]
fn id_01_a_leaf_has_exactly_one_uri_and_that_an_identity() {
    let root = root("a");
    let anchors = trusting(&[&root], vec![]);
    let named = |names: Vec<SanType>| judge(&anchors, &leaf(&root, |p| p.subject_alt_names = names), &[]);
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let no = |why| Err(PeerProblem::Identity(why));
    assert_eq!(named(vec![uri(WHO), uri(WHO)]), no(FactsError::SeveralUris));
    assert_eq!(
        named(vec![uri(WHO), uri("spiffe://td/ns/a/sa/b")]),
        no(FactsError::SeveralUris)
    );
    assert_eq!(
        named(vec![SanType::DnsName("a.b".try_into().unwrap())]),
        no(FactsError::NoUri)
    );
    assert_eq!(
        named(vec![uri("spiffe://td/workload")]),
        no(FactsError::NotAnIdentity)
    );
    assert_eq!(
        named(vec![uri(WHO), SanType::DnsName("a.b".try_into().unwrap())]),
        Ok(())
    );
}

#[test]
fn x509_svid_4_a_leaf_signs_handshakes_and_nothing_else() {
    let root = root("a");
    let anchors = trusting(&[&root], vec![]);
    let used = |usages: Vec<KeyUsagePurpose>| judge(&anchors, &leaf(&root, |p| p.key_usages = usages), &[]);
    assert_eq!(used(vec![]), Err(PeerProblem::Purpose));
    assert_eq!(
        used(vec![KeyUsagePurpose::KeyEncipherment]),
        Err(PeerProblem::Purpose)
    );
    assert_eq!(
        used(vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign]),
        Err(PeerProblem::Purpose)
    );
    let ca = leaf(&root, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert_eq!(judge(&anchors, &ca, &[]), Err(PeerProblem::Purpose));
    let only_server = leaf(&root, |p| {
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]
    });
    let as_client = anchors.verify_identity(&only_server, &[], moment(0), Purpose::Client);
    assert_eq!(as_client.map(|_| ()), Err(PeerProblem::Purpose));
}

#[test]
fn a_ca_that_may_sign_for_one_trust_domain_signs_for_no_other() {
    let root = root("a");
    let anchors = trusting(&[&root], vec![]);
    // permittedSubtrees (0xa0) or excludedSubtrees (0xa1) with one URI.
    let bound = |list: u8, host: &str| {
        let length = u8::try_from(host.len()).unwrap();
        let head = [0x30, length + 6, list, length + 4, 0x30, length + 2, 0x86, length];
        let content = [&head[..], host.as_bytes()].concat();
        let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], content);
        extension.set_criticality(true);
        let ca = under(&root, |p| p.custom_extensions = vec![extension]);
        judge(&anchors, &leaf(&ca, |_| {}), &[der(&ca)])
    };
    let refused = |verdict| matches!(verdict, Err(PeerProblem::Other(why)) if why.contains("may not give"));
    assert_eq!(bound(0xa0, "td"), Ok(()));
    assert_eq!(bound(0xa1, "other"), Ok(()));
    assert!(refused(bound(0xa0, "other")));
    assert!(refused(bound(0xa1, "td")));
    assert!(refused(bound(0xa0, ".td")));
    let named = under(&root, |p| {
        p.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("example.com".to_owned())],
            excluded_subtrees: vec![],
        });
    });
    // A constraint on one form of name says nothing of another.
    assert_eq!(judge(&anchors, &leaf(&named, |_| {}), &[der(&named)]), Ok(()));
    let dns = leaf(&named, |p| {
        p.subject_alt_names
            .push(SanType::DnsName("evil.com".try_into().unwrap()))
    });
    assert!(
        matches!(judge(&anchors, &dns, &[der(&named)]), Err(PeerProblem::Other(why)) if why.contains("may not give"))
    );
}

#[test]
fn what_is_revoked_is_refused_whether_leaf_or_intermediate() {
    let root = root("a");
    let ca = under(&root, |_| {});
    let (direct, below) = (leaf(&root, |_| {}), leaf(&ca, |_| {}));
    let none = trusting(&[&root], vec![list(&root, &[], DAY)]);
    assert_eq!(judge(&none, &direct, &[]), Ok(()));
    assert_eq!(judge(&none, &below, &[der(&ca)]), Ok(()));
    let leaf_revoked = trusting(&[&root], vec![list(&root, &[4711], DAY)]);
    assert_eq!(judge(&leaf_revoked, &direct, &[]), Err(PeerProblem::Revoked));
    assert_eq!(
        judge(&leaf_revoked, &below, &[der(&ca)]),
        Ok(()),
        "the same number by another issuer"
    );
    let ca_revoked = trusting(&[&root], vec![list(&root, &[7], DAY)]);
    assert_eq!(judge(&ca_revoked, &below, &[der(&ca)]), Err(PeerProblem::Revoked));
    let by_ca = trusting(&[&root], vec![list(&ca, &[4711], DAY)]);
    assert_eq!(judge(&by_ca, &below, &[der(&ca)]), Err(PeerProblem::Revoked));
}

#[test]
fn a_list_that_has_expired_or_is_anothers_work_closes() {
    let (root, other) = (root("a"), root("b"));
    let direct = leaf(&root, |_| {});
    let stale = trusting(&[&root, &other], vec![list(&root, &[], -1)]);
    assert_eq!(
        judge(&stale, &direct, &[]),
        Err(PeerProblem::RevocationList("has expired".to_owned()))
    );
    assert_eq!(
        judge(&stale, &leaf(&other, |_| {}), &[]),
        Ok(()),
        "another root is not concerned"
    );
    // The newest of two counts.
    let earlier = list_of(&root, &[], -3600, -1);
    for lists in [
        [earlier.clone(), list(&root, &[], DAY)],
        [list(&root, &[], DAY), earlier],
    ] {
        let both = trusting(&[&root], lists.to_vec());
        assert_eq!(both.lists().len(), 1);
        assert_eq!(judge(&both, &direct, &[]), Ok(()));
    }
    let refused = Anchors::new(
        vec![der(&root)],
        vec![CertificateRevocationListDer::from(vec![0x30, 0])],
    );
    assert!(matches!(refused, Err(RootsError(why)) if why.contains("revocation list")));
}

#[test]
fn id_12_roots_of_one_name_and_different_keys_stand_side_by_side() {
    let (old, new) = (root("td"), root("td"));
    let anchors = trusting(&[&old, &new], vec![list(&old, &[4711], DAY)]);
    assert_eq!(
        judge(&anchors, &leaf(&old, |_| {}), &[]),
        Err(PeerProblem::Revoked)
    );
    assert_eq!(
        judge(&anchors, &leaf(&new, |_| {}), &[]),
        Ok(()),
        "the old one's list says nothing of the new one"
    );
    let before = trusting(&[&old], vec![]);
    assert_eq!(
        judge(&before, &leaf(&new, |_| {}), &[]),
        Err(PeerProblem::UnknownIssuer)
    );
}

#[test]
fn a_root_that_cannot_be_used_is_left_out_and_alone_is_an_error() {
    let good = root("a");
    let mut params = ca_params("");
    params.distinguished_name = DistinguishedName::new();
    let nameless = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let both = Anchors::new(vec![der(&nameless), der(&good)], vec![]).unwrap();
    assert_eq!(judge(&both, &leaf(&good, |_| {}), &[]), Ok(()));
    let refused = judge(&both, &leaf(&nameless, |_| {}), &[]);
    assert!(refused.is_err(), "{refused:?}");
    assert!(Anchors::new(vec![der(&nameless)], vec![]).is_err());
    assert!(Anchors::new(vec![], vec![]).is_err());
    assert_eq!(
        judge(&Anchors::default(), &leaf(&good, |_| {}), &[]),
        Err(PeerProblem::UnknownIssuer)
    );
}

#[test]
fn paths_are_no_longer_than_their_cas_and_we_allow() {
    let root = root("a");
    let first = under(&root, |p| {
        p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        p.distinguished_name.push(DnType::CommonName, "1");
    });
    let second = under(&first, |p| p.distinguished_name.push(DnType::CommonName, "2"));
    let anchors = trusting(&[&root], vec![]);
    assert_eq!(judge(&anchors, &leaf(&first, |_| {}), &[der(&first)]), Ok(()));
    let sent = [der(&second), der(&first)];
    let long = judge(&anchors, &leaf(&second, |_| {}), &sent);
    assert!(matches!(long, Err(PeerProblem::Other(why)) if why.contains("longer than its CA allows")));
    let none = anchors.clone().with_max_intermediates(0);
    assert!(matches!(
        judge(&none, &leaf(&first, |_| {}), &[der(&first)]),
        Err(PeerProblem::Other(_))
    ));
    let many = vec![der(&first); 17];
    assert!(
        matches!(judge(&anchors, &leaf(&first, |_| {}), &many), Err(PeerProblem::Other(why)) if why.contains("more than"))
    );
}

/// webpki is the other opinion: what it refuses, we refuse, but for what it says itself that it does not look into.
#[test]
fn whatever_webpki_refuses_is_refused() {
    let (root, stranger) = (root("a"), root("b"));
    let ca = under(&root, |_| {});
    let leaves = [
        leaf(&root, |_| {}),
        leaf(&ca, |_| {}),
        leaf(&stranger, |_| {}),
        leaf(&root, |p| p.not_after = at(-1)),
        leaf(&root, |p| {
            p.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning]
        }),
        leaf(&root, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
    ];
    let anchor = [webpki::anchor_from_trusted_cert(root.der()).unwrap()];
    let anchors = trusting(&[&root], vec![]);
    let sent = [der(&ca)];
    let mut compared = 0;
    for leaf in &leaves {
        for index in 0..leaf.len() {
            let mut bytes = leaf.to_vec();
            // Each byte damaged once, and the whole as it is.
            if let Some(byte) = bytes.get_mut(index)
                && index > 0
            {
                *byte ^= 0x41;
            }
            let damaged = CertificateDer::from(bytes);
            let theirs = webpki::EndEntityCert::try_from(&damaged).and_then(|end| {
                let usage = webpki::KeyUsage::client_auth();
                let all = super::algorithms().all;
                end.verify_for_usage(all, &anchor, &sent, moment(0), usage, None, None)
                    .map(|_| ())
            });
            let ours = anchors.verify(&damaged, &sent, moment(0), Purpose::Client);
            if theirs.is_err() {
                assert!(ours.is_err(), "byte {index}: {theirs:?}");
                compared += 1;
            }
        }
    }
    assert!(compared > 1000, "{compared}");
}
