//! What a peer sends who wants to be believed, or to keep us busy.

use std::time::Instant;

use super::*;

fn named(name: &str) -> impl FnOnce(&mut CertificateParams) {
    let name = name.to_owned();
    move |p| {
        p.distinguished_name = DistinguishedName::new();
        p.distinguished_name.push(DnType::CommonName, name);
    }
}

/// A certificate for the same CA by another issuer.
fn crossed(ca: &Ca, name: &str, by: &Ca) -> CertificateDer<'static> {
    let mut params = ca_params("");
    named(name)(&mut params);
    params.serial_number = Some(SerialNumber::from(8));
    params.signed_by(ca.key(), by).unwrap().into()
}

/// Each CA is certified twice by the next, so that the ways double with each step, and none of them ends at a root.
#[test]
fn a_mesh_of_cross_signed_cas_costs_a_bounded_number_of_signatures() {
    let root = root("a");
    let cas: Vec<(String, Ca)> = (0..9)
        .map(|n| {
            let name = format!("ca {n}");
            let mut params = ca_params("");
            named(&name)(&mut params);
            let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
            (name, ca)
        })
        .collect();
    let mut sent = Vec::new();
    for pair in cas.windows(2) {
        for _ in 0..2 {
            sent.push(crossed(&pair[0].1, &pair[0].0, &pair[1].1));
        }
    }
    assert_eq!(sent.len(), super::super::path::MAX_SENT);
    let anchors = trusting(&[&root], vec![]);
    let leaf = leaf(&cas[0].1, |_| {});
    let begin = Instant::now();
    let verdict = anchors.verify_identity(&leaf, &sent, moment(0), Purpose::Client);
    let Err(PeerProblem::Other(why)) = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!(why, "too many ways to a root");
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    // A way that is there is found among them, whatever the order, as long as it is short.
    let way = under(&root, |p| {
        named("way")(p);
    });
    let leaf = super::leaf(&way, |_| {});
    sent.truncate(15);
    for at in [0, 15] {
        let mut sent = sent.clone();
        sent.insert(at, der(&way));
        assert_eq!(judge(&anchors, &leaf, &sent), Ok(()));
    }
}

#[test]
fn cas_that_certify_each_other_in_a_circle_lead_nowhere_and_to_the_root_where_one_does() {
    let root = root("a");
    let self_made = |name: &str| {
        let mut params = ca_params("");
        named(name)(&mut params);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let (a, b): (Ca, Ca) = (self_made("a1"), self_made("b1"));
    let circle = [crossed(&a, "a1", &b), crossed(&b, "b1", &a)];
    let anchors = trusting(&[&root], vec![]);
    let leaf = leaf(&a, |_| {});
    assert_eq!(judge(&anchors, &leaf, &circle), Err(PeerProblem::UnknownIssuer));
    let way_out = [circle[0].clone(), circle[1].clone(), crossed(&b, "b1", &root)];
    assert_eq!(judge(&anchors, &leaf, &way_out), Ok(()));
    // Nobody stands twice in a path: else three that have certified each other would be gone round until nothing is left to spend.
    let c = self_made("c1");
    let cas = [(&a, "a1"), (&b, "b1"), (&c, "c1")];
    let all: Vec<_> = cas
        .iter()
        .flat_map(|(ca, name)| {
            let others = cas.iter().filter(move |(_, other)| other != name);
            others.map(move |(by, _)| crossed(ca, name, by))
        })
        .collect();
    assert_eq!(judge(&anchors, &leaf, &all), Err(PeerProblem::UnknownIssuer));
}

/// A leaf that is good is no CA, whatever it signs; neither is one whose certificate leaves out that it is one.
#[test]
fn only_cas_sign() {
    let root = root("a");
    let anchors = trusting(&[&root], vec![]);
    let pretender = |edit: &dyn Fn(&mut CertificateParams)| {
        let ca = under(&root, |p| edit(p));
        let below = leaf(&ca, |_| {});
        judge(&anchors, &below, &[der(&ca)])
    };
    assert_eq!(pretender(&|_| {}), Ok(()));
    assert_eq!(
        pretender(&|p| p.is_ca = IsCa::NoCa),
        Err(PeerProblem::Purpose),
        "no basic constraints"
    );
    assert_eq!(
        pretender(&|p| p.is_ca = IsCa::ExplicitNoCa),
        Err(PeerProblem::Purpose),
        "CA is false"
    );
    let as_svid =
        pretender(&|p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign]);
    assert!(as_svid.is_err(), "a CA whose keys sign no certificates");
    assert_eq!(
        pretender(&|p| p.key_usages = vec![]),
        Err(PeerProblem::Purpose),
        "X509-SVID 4.3: it says so"
    );
    let expired = pretender(&|p| p.not_after = at(-1));
    assert_eq!(expired, Err(PeerProblem::Expired));
    let early = pretender(&|p| p.not_before = at(60));
    assert_eq!(early, Err(PeerProblem::NotYetValid));
    let nameless = pretender(&|p| p.distinguished_name = DistinguishedName::new());
    assert!(nameless.is_err(), "{nameless:?}");
    let unknown = pretender(&|p| {
        let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 99], vec![5, 0]);
        extension.set_criticality(true);
        p.custom_extensions = vec![extension];
    });
    assert!(unknown.is_err(), "a critical extension of a CA that nobody knows");
    // Outside of the mesh's identities, too, where a CA need not say that it signs.
    let outside = |edit: &dyn Fn(&mut CertificateParams)| {
        let ca = under(&root, |p| edit(p));
        let below = leaf(&ca, |_| {});
        anchors
            .verify(&below, &[der(&ca)], moment(0), Purpose::Server)
            .is_ok()
    };
    assert!(outside(&|_| {}) && outside(&|p| p.key_usages = vec![]));
    assert!(!outside(&|p| p.is_ca = IsCa::NoCa));
    assert!(!outside(&|p| p.is_ca = IsCa::ExplicitNoCa));
    assert!(!outside(&|p| p.key_usages = vec![KeyUsagePurpose::CrlSign]));
    // The same in a root.
    let mut params = ca_params("b");
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 99], vec![5, 0]);
    extension.set_criticality(true);
    params.custom_extensions = vec![extension];
    let odd = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    assert!(Anchors::new(vec![der(&odd)], vec![]).is_err());
}

/// The extended key usage of each CA bounds what it issues, a root's like any other's.
#[test]
fn a_ca_for_other_purposes_makes_no_peers() {
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, ServerAuth};
    let root = root("a");
    let anchors = trusting(&[&root], vec![]);
    let by = |usages: &[ExtendedKeyUsagePurpose]| {
        let ca = under(&root, |p| p.extended_key_usages = usages.to_vec());
        let below = leaf(&ca, |_| {});
        [Purpose::Client, Purpose::Server].map(|purpose| {
            anchors
                .verify_identity(&below, &[der(&ca)], moment(0), purpose)
                .is_ok()
        })
    };
    let by_root = |usages: &[ExtendedKeyUsagePurpose]| {
        let mut params = ca_params("b");
        params.extended_key_usages = usages.to_vec();
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let anchors = trusting(&[&root], vec![]);
        let leaf = leaf(&root, |_| {});
        [Purpose::Client, Purpose::Server]
            .map(|purpose| anchors.verify_identity(&leaf, &[], moment(0), purpose).is_ok())
    };
    for (usages, verdict) in [
        (&[][..], [true, true]),
        (&[Any], [true, true]),
        (&[ClientAuth, ServerAuth], [true, true]),
        (&[ClientAuth], [true, false]),
        (&[ServerAuth], [false, true]),
        (&[CodeSigning], [false, false]),
    ] {
        assert_eq!(by(usages), verdict, "{usages:?}");
        assert_eq!(by_root(usages), verdict, "{usages:?} of a root");
    }
    let any = leaf(&root, |p| p.extended_key_usages = vec![Any]);
    assert_eq!(
        judge(&anchors, &any, &[]),
        Err(PeerProblem::Purpose),
        "a leaf says what it is for"
    );
}

/// A CA that is bound by its own certificate is bound in whatever it certifies, new certificates for its own name among it.
#[test]
fn bounds_hold_below_cas_that_certify_themselves_anew() {
    let root = root("a");
    let anchors = trusting(&[&root], vec![]);
    let bound = under(&root, |p| {
        p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let host = b"td";
        let content = [&[0x30, 8, 0xa0, 6, 0x30, 4, 0x86, 2][..], host].concat();
        p.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 30], content)];
    });
    let anew = under(&bound, |_| {});
    let sent = [der(&anew), der(&bound)];
    assert_eq!(
        judge(&anchors, &leaf(&anew, |_| {}), &sent),
        Ok(()),
        "self-issued: it does not count"
    );
    let foreign = leaf(&anew, |p| {
        p.subject_alt_names = vec![SanType::URI("spiffe://other/ns/a/sa/b".try_into().unwrap())];
    });
    assert!(judge(&anchors, &foreign, &sent).is_err());
    // A leaf is bound even where it bears its issuer's name.
    let namesake = leaf(&bound, |p| {
        p.distinguished_name
            .push(DnType::OrganizationName, "intermediate");
        p.subject_alt_names = vec![SanType::URI("spiffe://other/ns/a/sa/b".try_into().unwrap())];
    });
    assert!(judge(&anchors, &namesake, &[der(&bound)]).is_err());
    let another = under(&anew, named("another"));
    let sent = [der(&another), der(&anew), der(&bound)];
    assert!(
        judge(&anchors, &leaf(&another, |_| {}), &sent).is_err(),
        "of another name: it counts"
    );
    // The names of CAs between are bound, too, and those of self-issued ones are not (RFC 5280 section 6.1.3).
    let free = under(&root, |p| {
        let content = [&[0x30, 8, 0xa0, 6, 0x30, 4, 0x86, 2][..], b"td"].concat();
        p.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 30], content)];
    });
    let foreign = |p: &mut CertificateParams| {
        p.subject_alt_names = vec![SanType::URI("spiffe://other/x".try_into().unwrap())];
    };
    let same = under(&free, foreign);
    assert_eq!(
        judge(&anchors, &leaf(&same, |_| {}), &[der(&same), der(&free)]),
        Ok(())
    );
    let other = under(&free, |p| {
        named("other")(p);
        foreign(p);
    });
    assert!(judge(&anchors, &leaf(&other, |_| {}), &[der(&other), der(&free)]).is_err());
}

/// The bounds of a root bind what is below it.
#[test]
fn a_root_may_be_bound_in_names_and_in_depth() {
    let bound = |edit: &dyn Fn(&mut CertificateParams)| {
        let mut params = ca_params("a");
        edit(&mut params);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let only = |host: &'static [u8; 2]| {
        move |p: &mut CertificateParams| {
            let content = [&[0x30, 8, 0xa0, 6, 0x30, 4, 0x86, 2][..], host].concat();
            p.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 30], content)];
        }
    };
    for (host, verdict) in [(b"td", true), (b"no", false)] {
        let root = bound(&only(host));
        let anchors = trusting(&[&root], vec![]);
        assert_eq!(judge(&anchors, &leaf(&root, |_| {}), &[]).is_ok(), verdict);
    }
    let flat: Ca = bound(&|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let anchors = trusting(&[&flat], vec![]);
    assert_eq!(judge(&anchors, &leaf(&flat, |_| {}), &[]), Ok(()));
    let ca = under(&flat, |_| {});
    assert!(judge(&anchors, &leaf(&ca, |_| {}), &[der(&ca)]).is_err());
}

/// As many intermediates as are allowed, and one more.
#[test]
fn a_path_has_at_most_six_intermediates_and_twelve_certificates() {
    let root = root("a");
    let anchors = trusting(&[&root], vec![]);
    let mut cas = vec![under(&root, named("0"))];
    let verdict = |cas: &[Ca]| {
        let sent: Vec<_> = cas.iter().map(der).collect();
        judge(&anchors, &leaf(cas.last().unwrap(), |_| {}), &sent)
    };
    for n in 1..6 {
        cas.push(under(cas.last().unwrap(), named(&n.to_string())));
    }
    assert_eq!(verdict(&cas), Ok(()));
    cas.push(under(cas.last().unwrap(), named("6")));
    assert!(matches!(verdict(&cas), Err(PeerProblem::Other(why)) if why.contains("too long")));
    // Self-issued ones do not count, and still there is an end.
    let mut cas = vec![under(&root, |_| {})];
    while cas.len() < 11 {
        cas.push(under(cas.last().unwrap(), |_| {}));
    }
    assert_eq!(verdict(&cas), Ok(()));
    cas.push(under(cas.last().unwrap(), |_| {}));
    assert_eq!(verdict(&cas), Err(PeerProblem::UnknownIssuer));
}

/// Keys that are too small or of unknown kinds, in leaves and in CAs, however strong what signed them.
#[test]
fn weak_keys_are_refused_at_every_place() {
    use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
    let root = root("a");
    let anchors = trusting(&[&root], vec![]);
    let small = rcgen::SubjectPublicKeyInfo::from_der(include_bytes!("rsa1024.spki.der")).unwrap();
    let weak: CertificateDer<'static> = leaf_params(WHO).signed_by(&small, &root).unwrap().into();
    assert!(
        matches!(judge(&anchors, &weak, &[]), Err(PeerProblem::Other(why)) if why.contains("kind or size"))
    );
    for kind in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let key = KeyPair::generate_for(kind).unwrap();
        let strong: CertificateDer<'static> = leaf_params(WHO).signed_by(&key, &root).unwrap().into();
        assert_eq!(judge(&anchors, &strong, &[]), Ok(()), "{kind:?}");
    }
}

/// A path goes by names as well as by keys: what a key signed as one CA, it did not sign as another.
#[test]
fn a_ca_signs_by_its_name() {
    let root = root("a");
    let anchors = trusting(&[&root], vec![]);
    let ca = under(&root, named("one"));
    let below = leaf(&ca, |_| {});
    assert_eq!(judge(&anchors, &below, &[crossed(&ca, "one", &root)]), Ok(()));
    assert_eq!(
        judge(&anchors, &below, &[crossed(&ca, "two", &root)]),
        Err(PeerProblem::UnknownIssuer)
    );
    let mut params = ca_params("b");
    params.use_authority_key_identifier_extension = false;
    let renamed = params.self_signed(root.key()).unwrap();
    let anchors = Anchors::new(vec![renamed.der().clone()], vec![]).unwrap();
    assert_eq!(
        judge(&anchors, &leaf(&root, |_| {}), &[]),
        Err(PeerProblem::UnknownIssuer)
    );
}

/// A certificate that is no CA's and says that it signs certificates is neither.
#[test]
fn a_leaf_that_would_sign_is_none_outside_of_the_mesh_either() {
    let root = root("a");
    let anchors = trusting(&[&root], vec![]);
    for (usages, fit) in [
        (vec![KeyUsagePurpose::DigitalSignature], true),
        (
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign],
            false,
        ),
    ] {
        let leaf = leaf(&root, |p| p.key_usages = usages);
        let verdict = anchors.verify(&leaf, &[], moment(0), Purpose::Server);
        assert_eq!(verdict.is_ok(), fit, "{verdict:?}");
    }
}

/// Roots are believed without proof, but not without the marks of a CA, and not where what they say of themselves cannot be.
#[test]
fn a_root_is_a_cas_certificate_or_none() {
    use super::forged::{inner, parts, resign, tlv};
    let root = root("a");
    let taken = |der: Vec<u8>| Anchors::new(vec![der.into()], vec![]).is_ok();
    let with = |edit: &dyn Fn(&mut CertificateParams)| {
        let mut params = ca_params("b");
        edit(&mut params);
        taken(
            params
                .self_signed(&KeyPair::generate().unwrap())
                .unwrap()
                .der()
                .to_vec(),
        )
    };
    assert!(with(&|_| {}));
    assert!(!with(&|p| p.is_ca = IsCa::NoCa), "no basic constraints");
    assert!(!with(&|p| p.is_ca = IsCa::ExplicitNoCa), "CA is false");
    assert!(
        !with(&|p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature]),
        "no keyCertSign"
    );
    assert!(
        !with(&|p| p.distinguished_name = DistinguishedName::new()),
        "no name"
    );
    let edited = |edit: &dyn Fn(&mut Vec<Vec<u8>>)| taken(resign(root.der(), &root, edit));
    assert!(edited(&|_| {}));
    assert!(!taken([&root.der()[..], &[0]].concat()), "bytes behind it");
    let other = tlv(0x30, &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3]);
    assert!(!edited(&|f| f[2] = other.clone()), "another algorithm inside");
    assert!(!edited(&|f| drop(f.remove(0))), "extensions in version 1");
    let plain = |f: &mut Vec<Vec<u8>>| {
        f.pop();
        f.remove(0);
    };
    assert!(edited(&plain), "version 1 has none");
    assert!(
        !edited(&|f| {
            plain(f);
            f[4] = vec![0x30, 0];
        }),
        "version 1 has a name"
    );
    let uncritical = |f: &mut Vec<Vec<u8>>| {
        let list = parts(inner(&f[7]));
        let mut extensions = parts(inner(&list[0]));
        for extension in &mut extensions {
            let fields = parts(inner(extension));
            let (Some(first), Some(last)) = (fields.first(), fields.last()) else {
                continue;
            };
            *extension = tlv(0x30, &[&first[..], last].concat());
        }
        f[7] = tlv(0xa3, &tlv(0x30, &extensions.concat()));
    };
    assert!(!edited(&uncritical), "basic constraints that are not critical");
}
