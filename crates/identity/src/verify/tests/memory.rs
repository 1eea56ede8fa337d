//! What is remembered of chains, and until when.

use std::sync::Arc;

use model::SpiffeId;

use super::super::memory::{Chain, MAX_REMEMBERED, good_until};
use super::super::{Peers, Trust};
use super::*;

fn trust(anchors: Anchors) -> Trust {
    Trust {
        anchors: Arc::new(anchors),
        domains: ["td".parse().unwrap()].into(),
        ..Trust::default()
    }
}

fn peers(trust: &Trust, expected: Option<&str>) -> Peers {
    Peers {
        anchors: Arc::clone(&trust.anchors),
        domains: Some(trust.domains.clone()),
        bundles: Arc::clone(&trust.bundles),
        expected: expected.map(|id| Arc::from([id.parse::<SpiffeId>().unwrap()])),
        memory: Arc::clone(&trust.memory),
    }
}

/// As a peer of this side, at that second.
fn shown(
    trust: &Trust,
    leaf: &CertificateDer<'_>,
    sent: &[CertificateDer<'_>],
    at: i64,
) -> Result<(), PeerProblem> {
    peers(trust, None).judge(leaf, sent, moment(at), Purpose::Client)
}

fn end(seconds: i64) -> i64 {
    NOW + seconds
}

#[test]
fn a_verdict_is_found_again_for_the_same_chain_and_use_and_for_no_other() {
    let root = root("a");
    let ca = under(&root, |_| {});
    let trust = trust(trusting(&[&root], vec![]));
    let (own, other) = (leaf(&ca, |_| {}), leaf(&ca, |_| {}));
    shown(&trust, &own, &[der(&ca)], 0).unwrap();
    let found = |purpose, leaf: &CertificateDer<'_>, sent: &[CertificateDer<'_>]| {
        let chain = Chain::of(purpose, leaf, sent);
        trust.memory.recall(&chain, moment(0)).is_some()
    };
    assert!(found(Purpose::Client, &own, &[der(&ca)]));
    assert!(!found(Purpose::Server, &own, &[der(&ca)]));
    assert!(!found(Purpose::Client, &other, &[der(&ca)]));
    assert!(!found(Purpose::Client, &own, &[]));
    assert!(!found(Purpose::Client, &own, &[der(&ca), der(&ca)]));
    let mut bent = own.to_vec();
    *bent.last_mut().unwrap() ^= 1;
    assert!(!found(
        Purpose::Client,
        &CertificateDer::from(bent.clone()),
        &[der(&ca)]
    ));
    // And it is judged anew, as the bytes that it is.
    assert!(shown(&trust, &CertificateDer::from(bent), &[der(&ca)], 0).is_err());
    // The same bytes in other pieces are another chain.
    let joined = CertificateDer::from([own.to_vec(), ca.der().to_vec()].concat());
    assert!(!found(Purpose::Client, &joined, &[]));
}

#[test]
fn who_is_expected_is_asked_each_time() {
    let root = root("a");
    let trust = trust(trusting(&[&root], vec![]));
    let own = leaf(&root, |_| {});
    for _ in 0..2 {
        let as_server = |expected| peers(&trust, Some(expected)).judge(&own, &[], moment(0), Purpose::Server);
        assert_eq!(as_server(WHO), Ok(()));
        let refused = as_server("spiffe://td/ns/full/sa/other");
        assert_eq!(refused, Err(PeerProblem::Unexpected(WHO.parse().unwrap())));
    }
}

#[test]
fn nothing_bad_is_remembered() {
    let (root, other) = (root("a"), root("b"));
    let trust = trust(trusting(&[&root], vec![list(&root, &[4711], DAY)]));
    assert_eq!(
        shown(&trust, &leaf(&other, |_| {}), &[], 0),
        Err(PeerProblem::UnknownIssuer)
    );
    assert_eq!(
        shown(&trust, &leaf(&root, |_| {}), &[], 0),
        Err(PeerProblem::Revoked)
    );
    let stranger = leaf(&root, |p| {
        p.serial_number = Some(SerialNumber::from(1));
        p.subject_alt_names = vec![SanType::URI(
            "spiffe://td.evil/ns/full/sa/sleep".try_into().unwrap(),
        )];
    });
    assert!(matches!(
        shown(&trust, &stranger, &[], 0),
        Err(PeerProblem::TrustDomain(_))
    ));
    assert_eq!(trust.memory.len(), 0);
}

#[test]
fn no_verdict_outlives_the_leaf() {
    let root = root("a");
    let trust = trust(trusting(&[&root], vec![]));
    let own = leaf(&root, |_| {});
    assert_eq!(shown(&trust, &own, &[], 0), Ok(()));
    assert_eq!(shown(&trust, &own, &[], 3600), Ok(()));
    assert_eq!(shown(&trust, &own, &[], 3601), Err(PeerProblem::Expired));
    // A clock that goes back asks again.
    assert_eq!(shown(&trust, &own, &[], -60), Ok(()));
    assert_eq!(shown(&trust, &own, &[], -61), Err(PeerProblem::NotYetValid));
}

#[test]
fn no_verdict_outlives_an_intermediate_a_root_or_a_list() {
    let sooner = |p: &mut CertificateParams| p.not_after = at(100);
    let (lasting, ending) = (root("a"), {
        let mut params = ca_params("b");
        params.use_authority_key_identifier_extension = false;
        sooner(&mut params);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    });
    let ca = under(&lasting, sooner);
    let below = leaf(&ca, |_| {});
    let direct = leaf(&ending, |_| {});
    let by_list = leaf(&lasting, |_| {});
    let listed = vec![list(&lasting, &[], 101)];
    let stale = PeerProblem::RevocationList("has expired".to_owned());
    let cases = [
        (
            trusting(&[&lasting], vec![]),
            below,
            vec![der(&ca)],
            PeerProblem::Expired,
        ),
        (trusting(&[&ending], vec![]), direct, vec![], PeerProblem::Expired),
        (trusting(&[&lasting], listed), by_list, vec![], stale),
    ];
    for (anchors, leaf, sent, problem) in cases {
        assert_eq!(
            good_until(&anchors, &leaf, &sent, moment(0)),
            end(100),
            "{problem}"
        );
        let trust = trust(anchors);
        assert_eq!(shown(&trust, &leaf, &sent, 0), Ok(()));
        assert_eq!(shown(&trust, &leaf, &sent, 100), Ok(()));
        let late = shown(&trust, &leaf, &sent, 101);
        assert!(
            late == Err(PeerProblem::UnknownIssuer) || late == Err(problem),
            "{late:?}"
        );
    }
}

#[test]
fn what_had_ended_before_was_no_part_of_a_path_and_bounds_nothing() {
    let (root, old) = (root("a"), root("b"));
    let ca = under(&root, |p| p.not_after = at(-10));
    let anchors = trusting(&[&root, &old], vec![list(&old, &[], -5)]);
    let own = leaf(&root, |_| {});
    assert_eq!(good_until(&anchors, &own, &[der(&ca)], moment(0)), end(3600));
}

#[test]
fn another_state_of_what_is_believed_begins_without_memory() {
    let root = root("a");
    let before = trust(trusting(&[&root], vec![]));
    let own = leaf(&root, |_| {});
    assert_eq!(shown(&before, &own, &[], 0), Ok(()));
    assert_eq!(before.memory.len(), 1);
    let other = super::root("b");
    let others = Arc::new(trusting(&[&other], vec![]));
    let revoking = Arc::new(trusting(&[&root], vec![list(&root, &[4711], DAY)]));
    let withdrawn = before.changed(|trust| trust.anchors = Arc::clone(&others));
    assert_eq!(shown(&withdrawn, &own, &[], 0), Err(PeerProblem::UnknownIssuer));
    let revoked = before.changed(|trust| trust.anchors = Arc::clone(&revoking));
    assert_eq!(shown(&revoked, &own, &[], 0), Err(PeerProblem::Revoked));
    let elsewhere = before.changed(|trust| trust.domains = ["other".parse().unwrap()].into());
    assert!(matches!(
        shown(&elsewhere, &own, &[], 0),
        Err(PeerProblem::TrustDomain(_))
    ));
    let versions = [&before, &withdrawn].map(|trust| trust.version);
    assert_eq!(versions, [0, 1]);
}

#[test]
fn roots_of_one_trust_domain_are_remembered_as_theirs() {
    let (root, other) = (root("a"), root("b"));
    let bundle = trusting(&[&other], vec![list(&other, &[], 101)]);
    let trust = Trust {
        bundles: Arc::new([("td".parse().unwrap(), bundle)].into()),
        ..trust(trusting(&[&root], vec![]))
    };
    let own = leaf(&other, |_| {});
    assert_eq!(shown(&trust, &own, &[], 0), Ok(()));
    assert_eq!(shown(&trust, &own, &[], 100), Ok(()));
    assert!(shown(&trust, &own, &[], 101).is_err());
}

#[test]
fn the_memory_is_bounded_and_forgets_what_was_not_asked_for() {
    let root = root("a");
    let trust = trust(trusting(&[&root], vec![]));
    let (own, ca) = (leaf(&root, |_| {}), under(&root, |_| {}));
    let facts = crate::pki::facts(&own).unwrap();
    let chain = |number: usize| {
        let junk = CertificateDer::from(number.to_be_bytes().to_vec());
        Chain::of(Purpose::Client, &own, &[der(&ca), junk])
    };
    let known = |number| trust.memory.recall(&chain(number), moment(0)).is_some();
    for number in 0..5 * MAX_REMEMBERED {
        trust.memory.keep(chain(number), facts.clone(), moment(0), end(1));
        assert!(known(0), "{number}: it is asked for all the time");
    }
    assert!(trust.memory.len() <= 2 * MAX_REMEMBERED, "{}", trust.memory.len());
    assert!(known(5 * MAX_REMEMBERED - 1));
    assert!(!known(1));
}
