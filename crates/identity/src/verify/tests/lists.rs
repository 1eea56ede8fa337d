//! Revocation lists: whose they are, how far they reach, and what is no list that could be relied on.

use super::forged::{inner, parts, resign, tlv};
use super::*;

fn names_of(list: &[u8]) -> Vec<Vec<u8>> {
    parts(inner(&parts(inner(list))[0]))
}

/// The places of a list's fields.
const VERSION: usize = 0;
const ALGORITHM: usize = 1;
const ENTRIES: usize = 5;
const EXTENSIONS: usize = 6;

fn extension(last: u8, critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
    tlv(
        0x30,
        &[&[6, 3, 0x55, 0x1d, last][..], critical, &tlv(4, value)].concat(),
    )
}

fn read(root: &Ca, list: Vec<u8>) -> Result<Anchors, RootsError> {
    Anchors::new(vec![der(root)], vec![CertificateRevocationListDer::from(list)])
}

#[test]
fn a_list_for_a_part_or_by_another_or_of_unknown_meaning_is_not_taken_nor_are_its_roots() {
    let root = root("a");
    let whole = list(&root, &[4711], DAY);
    assert!(names_of(&whole).len() > EXTENSIONS);
    let with = |new: &[Vec<u8>]| {
        let list = resign(&whole, &root, |fields| {
            let all = parts(inner(&fields[EXTENSIONS]));
            fields[EXTENSIONS] = tlv(0xa0, &tlv(0x30, &[inner(&all[0]), &new.concat()].concat()));
        });
        read(&root, list)
    };
    assert!(with(&[]).is_ok());
    assert!(
        with(&[extension(99, false, &[5, 0])]).is_ok(),
        "what is not critical is passed over"
    );
    let scope = tlv(0x30, &[0x81, 1, 0xff]);
    let indirect = tlv(0x30, &[0x84, 1, 0xff]);
    let rows = [
        (
            "an unknown critical extension",
            vec![extension(99, true, &[5, 0])],
        ),
        ("changes only", vec![extension(27, true, &[2, 1, 1])]),
        (
            "changes only, not critical",
            vec![extension(27, false, &[2, 1, 1])],
        ),
        ("leaves only", vec![extension(28, true, &scope)]),
        ("leaves only, not critical", vec![extension(28, false, &scope)]),
        (
            "other issuers' certificates",
            vec![extension(28, true, &indirect)],
        ),
        ("a number twice", vec![extension(20, false, &[2, 1, 2])]),
        (
            "a key twice",
            vec![extension(35, false, &tlv(0x30, &tlv(0x80, &[1; 20])))],
        ),
    ];
    for (what, new) in rows {
        let refused = with(&new);
        assert!(
            matches!(&refused, Err(RootsError(why)) if why.contains("revocation list")),
            "{what}: {refused:?}"
        );
    }
    let edited = |edit: &dyn Fn(&mut Vec<Vec<u8>>)| read(&root, resign(&whole, &root, edit));
    assert!(edited(&|f| drop(f.remove(VERSION))).is_err(), "version 1");
    assert!(edited(&|f| drop(f.remove(4))).is_err(), "without an end");
    let other = tlv(0x30, &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3]);
    assert!(
        edited(&|f| f[ALGORITHM] = other.clone()).is_err(),
        "another algorithm inside"
    );
    let end = |text: &str| tlv(0x17, text.as_bytes());
    assert!(
        edited(&|f| f[4] = end("2901010000Z")).is_err(),
        "an end without seconds"
    );
    assert!(
        read(&root, [&whole[..], &[0]].concat()).is_err(),
        "bytes behind it"
    );
}

/// An entry counts whatever its reason; one that says whose certificate it is belongs to an indirect list.
#[test]
fn whatever_is_listed_is_revoked() {
    let root = root("a");
    let whole = list(&root, &[4711], DAY);
    let direct = leaf(&root, |_| {});
    let entry = |more: &[Vec<u8>]| {
        let list = resign(&whole, &root, |fields| {
            let first = parts(inner(&parts(inner(&fields[ENTRIES]))[0]));
            let extensions = if more.is_empty() {
                vec![]
            } else {
                tlv(0x30, &more.concat())
            };
            let entry = tlv(0x30, &[first[0].clone(), first[1].clone(), extensions].concat());
            fields[ENTRIES] = tlv(0x30, &entry);
        });
        read(&root, list).map(|anchors| judge(&anchors, &direct, &[]))
    };
    let reason = |number: u8| extension(21, false, &[0x0a, 1, number]);
    assert_eq!(entry(&[]).unwrap(), Err(PeerProblem::Revoked));
    // Key compromise, on hold, and `removeFromCRL`, which has no meaning in a whole list.
    for number in [1, 6, 8] {
        match entry(&[reason(number)]) {
            Ok(verdict) => assert_eq!(verdict, Err(PeerProblem::Revoked), "{number}"),
            Err(why) => assert_eq!(number, 8, "{why}"),
        }
    }
    assert!(entry(&[reason(7)]).is_err(), "a reason that there is not");
    assert!(
        entry(&[extension(99, true, &[5, 0])]).is_err(),
        "unknown and critical"
    );
    let issuer = tlv(0x30, &tlv(0xa4, &tlv(0x30, &[])));
    assert!(
        entry(&[extension(29, true, &issuer)]).is_err(),
        "of another issuer"
    );
}

/// Only the issuer says what it revoked: a list of its name by anybody else closes, and one by a key that may not, too.
#[test]
fn a_list_counts_by_its_signature_and_not_by_its_name() {
    let root = root("a");
    let direct = leaf(&root, |_| {});
    let mut params = ca_params("a");
    params.use_authority_key_identifier_extension = false;
    params.key_identifier_method = KeyIdMethod::PreSpecified(vec![1; 20]);
    let forger = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    // Without a key identifier it could be the root's.
    let forged = resign(&list(&forger, &[], DAY), &forger, |fields| {
        let number = extension(20, false, &[2, 1, 1]);
        fields[5] = tlv(0xa0, &tlv(0x30, &number));
    });
    let verdict = judge(&read(&root, forged).unwrap(), &direct, &[]);
    assert_eq!(
        verdict,
        Err(PeerProblem::RevocationList("is not signed by it".to_owned()))
    );
    let mut damaged = list(&root, &[], DAY).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let verdict = judge(&read(&root, damaged).unwrap(), &direct, &[]);
    assert!(
        matches!(verdict, Err(PeerProblem::RevocationList(_))),
        "{verdict:?}"
    );

    // A CA whose key usage leaves out revocation lists: rcgen signs for it all the same, through another set of parameters.
    let mute = under(&root, |p| p.key_usages = vec![KeyUsagePurpose::KeyCertSign]);
    let listed = list_by(mute.key(), &ca_params("intermediate"), &[], DAY);
    let anchors = trusting(&[&root], vec![listed]);
    let verdict = judge(&anchors, &leaf(&mute, |_| {}), &[der(&mute)]);
    assert!(
        matches!(&verdict, Err(PeerProblem::RevocationList(why)) if why.contains("cRLSign")),
        "{verdict:?}"
    );
}

fn list_by(
    key: &KeyPair,
    params: &CertificateParams,
    revoked: &[u64],
    until: i64,
) -> CertificateRevocationListDer<'static> {
    let issuer = rcgen::Issuer::from_params(params, key);
    list_from(&issuer, revoked, until)
}

/// An issuer's name is one name in every writing: a list must not be passed over for the kind of its strings.
#[test]
fn a_list_binds_its_issuer_however_the_name_is_written() {
    use rcgen::DnValue;
    let root = root("Example");
    let ca = under(&root, |_| {});
    let (direct, below) = (leaf(&root, |_| {}), leaf(&ca, |_| {}));
    for (ca, name, path, sent) in [
        (&root, "EXAMPLE", &direct, vec![]),
        (&ca, "Intermediate", &below, vec![der(&ca)]),
    ] {
        let mut params = ca_params("");
        params.distinguished_name = DistinguishedName::new();
        let value = DnValue::PrintableString(name.try_into().unwrap());
        params.distinguished_name.push(DnType::OrganizationName, value);
        let revoking = list_by(ca.key(), &params, &[4711], DAY);
        let anchors = trusting(&[&root], vec![revoking]);
        assert_eq!(judge(&anchors, path, &sent), Err(PeerProblem::Revoked), "{name}");
        // Somebody else's of such a name says nothing.
        let other = KeyPair::generate().unwrap();
        let anchors = trusting(&[&root], vec![list_by(&other, &params, &[4711], DAY)]);
        assert_eq!(judge(&anchors, path, &sent), Ok(()), "{name}");
    }
}

/// To the second, by the clock that is handed in.
#[test]
fn a_list_closes_at_its_end() {
    let root = root("a");
    let long = leaf(&root, |p| p.not_after = at(2 * DAY));
    let anchors = trusting(&[&root], vec![list(&root, &[], DAY)]);
    let when = |seconds| anchors.verify(&long, &[], moment(seconds), Purpose::Client);
    assert_eq!(when(DAY - 1), Ok(()));
    assert_eq!(
        when(DAY),
        Err(PeerProblem::RevocationList("has expired".to_owned()))
    );
    let ca = under(&root, |_| {});
    let of_ca = trusting(&[&root], vec![list(&ca, &[], -1)]);
    let below = judge(&of_ca, &leaf(&ca, |_| {}), &[der(&ca)]);
    assert_eq!(below, Err(PeerProblem::RevocationList("has expired".to_owned())));
    let [status] = &anchors.lists()[..] else {
        panic!("one list")
    };
    assert_eq!(
        (status.next_update, status.issuer.contains("O=a")),
        (NOW + DAY, true)
    );
}

#[test]
fn a_long_list_is_searched_and_not_read_for_each_peer() {
    let root = root("a");
    let ca = under(&root, |_| {});
    let revoked: Vec<u64> = (100_000..150_000).collect();
    let anchors = trusting(
        &[&root],
        vec![list(&root, &revoked, DAY), list(&ca, &revoked, DAY)],
    );
    let good = leaf(&ca, |_| {});
    let bad = leaf(&ca, |p| p.serial_number = Some(SerialNumber::from(149_999_u64)));
    assert_eq!(judge(&anchors, &bad, &[der(&ca)]), Err(PeerProblem::Revoked));
    assert_eq!(judge(&anchors, &good, &[der(&ca)]), Ok(()));
    let begin = std::time::Instant::now();
    for _ in 0..20 {
        assert_eq!(judge(&anchors, &good, &[der(&ca)]), Ok(()));
    }
    // A list of this length takes more than this alone to be hashed, as tests are built.
    println!("40 judgements under two lists of 50 000: {:?}", begin.elapsed());
    let many = vec![list(&root, &[], DAY); 65];
    assert!(
        matches!(Anchors::new(vec![der(&root)], many), Err(RootsError(why)) if why.contains("more than 64"))
    );
}
