//! Certificates that no library would write, signed by a CA that is believed: what is in them decides, not who signed.

use rcgen::SigningKey as _;

use super::*;

pub(super) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = match u8::try_from(length) {
        Ok(short @ 0..=0x7f) => vec![tag, short],
        Ok(byte) => vec![tag, 0x81, byte],
        Err(_) => [&[tag, 0x82][..], &u16::try_from(length).unwrap().to_be_bytes()].concat(),
    };
    [&head[..], content].concat()
}

/// The elements of a content, whole, each with its tag and length.
pub(super) fn parts(mut content: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while !content.is_empty() {
        let (head, length) = match content[1] {
            short @ 0..=0x7f => (2, usize::from(short)),
            0x81 => (3, usize::from(content[2])),
            _ => (4, usize::from(u16::from_be_bytes([content[2], content[3]]))),
        };
        let (one, rest) = content.split_at(head + length);
        out.push(one.to_vec());
        content = rest;
    }
    out
}

/// The content of one element.
pub(super) fn inner(element: &[u8]) -> &[u8] {
    let head = match element[1] {
        0..=0x7f => 2,
        0x81 => 3,
        _ => 4,
    };
    &element[head..]
}

/// Signs what `edit` makes of the fields of a certificate or list.
pub(super) fn resign(der: &[u8], by: &Ca, edit: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<u8> {
    let whole = parts(inner(der));
    let mut fields = parts(inner(&whole[0]));
    edit(&mut fields);
    signed(&fields.concat(), &whole[1], by)
}

fn signed(fields: &[u8], algorithm: &[u8], by: &Ca) -> Vec<u8> {
    let message = tlv(0x30, fields);
    let signature = by.key().sign(&message).unwrap();
    let bits = tlv(3, &[&[0][..], &signature].concat());
    tlv(0x30, &[&message[..], algorithm, &bits].concat())
}

/// The fields of a certificate of version 3, by their places.
const SERIAL: usize = 1;
const ALGORITHM: usize = 2;
const VALIDITY: usize = 4;
const KEY: usize = 6;
const EXTENSIONS: usize = 7;

fn forged(root: &Ca, edit: impl FnOnce(&mut Vec<Vec<u8>>)) -> CertificateDer<'static> {
    resign(&leaf(root, |_| {}), root, edit).into()
}

fn extension(last: u8, critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
    let content = [&[6, 3, 0x55, 0x1d, last][..], critical, &tlv(4, value)].concat();
    tlv(0x30, &content)
}

/// With another value in place of the extension 2.5.29.`last`, or beside the others.
fn with_extension(fields: &mut [Vec<u8>], last: u8, new: &[u8]) {
    let list = parts(inner(&fields[EXTENSIONS]));
    let kept = parts(inner(&list[0]))
        .into_iter()
        .filter(|e| e[2..7] != [6, 3, 0x55, 0x1d, last]);
    let all: Vec<u8> = kept.chain([new.to_vec()]).flatten().collect();
    fields[EXTENSIONS] = tlv(0xa3, &tlv(0x30, &all));
}

#[test]
fn what_is_not_der_is_no_certificate_whoever_signed_it() {
    let root = root("a");
    let anchors = trusting(&[&root], vec![]);
    let verdict = |edit: &dyn Fn(&mut Vec<Vec<u8>>)| judge(&anchors, &forged(&root, edit), &[]);
    assert_eq!(verdict(&|_| {}), Ok(()), "signed again, it is as good as before");
    let time = |text: &str| tlv(0x17, text.as_bytes());
    let validity = |from: Vec<u8>, to: Vec<u8>| tlv(0x30, &[from, to].concat());
    let (past, future) = ("270101000000Z", "280101000000Z");
    assert_eq!(
        verdict(&|f| f[VALIDITY] = validity(time(past), time(future))),
        Ok(())
    );
    let san = tlv(0x30, &tlv(0x86, WHO.as_bytes()));
    let usage = [3, 2, 7, 0x80];
    type Edit<'e> = Box<dyn Fn(&mut Vec<Vec<u8>>) + 'e>;
    let rows: Vec<(&str, Edit<'_>)> = vec![
        (
            "a time without seconds",
            Box::new(|f| f[VALIDITY] = validity(time("2701010000Z"), time(future))),
        ),
        (
            "a time of a zone",
            Box::new(|f| f[VALIDITY] = validity(time(past), time("280101000000+0100"))),
        ),
        (
            "a fraction of a second",
            Box::new(|f| f[VALIDITY] = validity(time(past), tlv(0x18, b"20280101000000.5Z"))),
        ),
        (
            "three times",
            Box::new(|f| f[VALIDITY] = tlv(0x30, &[time(past), time(future), time(future)].concat())),
        ),
        (
            "a serial number with a zero in front",
            Box::new(|f| f[SERIAL] = vec![2, 3, 0, 0x12, 0x67]),
        ),
        ("a serial number of zero", Box::new(|f| f[SERIAL] = vec![2, 1, 0])),
        (
            "a negative serial number",
            Box::new(|f| f[SERIAL] = vec![2, 2, 0x92, 0x67]),
        ),
        (
            "a serial number of 21 bytes",
            Box::new(|f| f[SERIAL] = tlv(2, &[0x40; 21])),
        ),
        (
            "another algorithm inside",
            Box::new(|f| f[ALGORITHM] = tlv(0x30, &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3])),
        ),
        (
            "a unique id of its subject",
            Box::new(|f| f.insert(EXTENSIONS, tlv(0x82, &[0, 1]))),
        ),
        ("a field behind the last", Box::new(|f| f.push(vec![5, 0]))),
        ("no version", Box::new(|f| drop(f.remove(0)))),
        ("version 2", Box::new(|f| f[0] = vec![0xa0, 3, 2, 1, 1])),
        ("version 4", Box::new(|f| f[0] = vec![0xa0, 3, 2, 1, 3])),
        (
            "an extension twice",
            Box::new(|f| {
                let all = parts(inner(&f[EXTENSIONS]));
                let twice = [inner(&all[0]), &extension(17, true, &san)].concat();
                f[EXTENSIONS] = tlv(0xa3, &tlv(0x30, &twice));
            }),
        ),
        (
            "a truth value of 1",
            Box::new(|f| {
                let mut new = extension(17, true, &san);
                new[9] = 1;
                with_extension(f, 17, &new);
            }),
        ),
        (
            "bytes behind a key usage",
            Box::new(|f| {
                with_extension(f, 15, &extension(15, true, &[&usage[..], &[0]].concat()));
            }),
        ),
        (
            "unused bits of a key usage that are set",
            Box::new(|f| {
                with_extension(f, 15, &extension(15, true, &[3, 2, 7, 0x84]));
            }),
        ),
        (
            "bytes behind the names",
            Box::new(|f| {
                with_extension(f, 17, &extension(17, true, &[&san[..], &[5, 0]].concat()));
            }),
        ),
        (
            "a name of a length in a long form",
            Box::new(|f| {
                let name = [
                    &[0x86, 0x81, u8::try_from(WHO.len()).unwrap()][..],
                    WHO.as_bytes(),
                ]
                .concat();
                with_extension(f, 17, &extension(17, true, &tlv(0x30, &name)));
            }),
        ),
        (
            "an indefinite length",
            Box::new(|f| {
                let names = [&[0x30, 0x80][..], &tlv(0x86, WHO.as_bytes()), &[0, 0]].concat();
                with_extension(f, 17, &extension(17, true, &names));
            }),
        ),
        (
            "no names in the list of names",
            Box::new(|f| with_extension(f, 17, &extension(17, true, &[0x30, 0]))),
        ),
        (
            "a line end in a URI",
            Box::new(|f| {
                let name = tlv(0x86, format!("{WHO}\n").as_bytes());
                with_extension(f, 17, &extension(17, true, &tlv(0x30, &name)));
            }),
        ),
        (
            "a zero in a URI",
            Box::new(|f| {
                let name = tlv(0x86, format!("{WHO}\0.evil").as_bytes());
                with_extension(f, 17, &extension(17, true, &tlv(0x30, &name)));
            }),
        ),
        (
            "a URI beyond ASCII",
            Box::new(|f| {
                let name = tlv(0x86, "spiffe://td/ns/f\u{fc}ll/sa/sleep".as_bytes());
                with_extension(f, 17, &extension(17, true, &tlv(0x30, &name)));
            }),
        ),
        (
            "an address of five bytes",
            Box::new(|f| {
                let names = [tlv(0x86, WHO.as_bytes()), tlv(0x87, &[1, 2, 3, 4, 5])].concat();
                with_extension(f, 17, &extension(17, true, &tlv(0x30, &names)));
            }),
        ),
        (
            "names that are not critical, without a subject",
            Box::new(|f| {
                with_extension(f, 17, &extension(17, false, &san));
            }),
        ),
        (
            "an unknown critical extension",
            Box::new(|f| with_extension(f, 99, &extension(99, true, &[5, 0]))),
        ),
        (
            "critical policies, which nothing acts on",
            Box::new(|f| {
                with_extension(
                    f,
                    32,
                    &extension(32, true, &tlv(0x30, &tlv(0x30, &[6, 3, 0x2a, 3, 4]))),
                );
            }),
        ),
        (
            "critical distribution points, which nothing acts on",
            Box::new(|f| {
                let point = tlv(0xa0, &tlv(0xa0, &tlv(0x86, b"http://a/crl")));
                with_extension(f, 31, &extension(31, true, &tlv(0x30, &tlv(0x30, &point))));
            }),
        ),
        (
            "bounds of names in a leaf",
            Box::new(|f| {
                let bound = tlv(0x30, &tlv(0xa0, &tlv(0x30, &tlv(0x86, b"td"))));
                with_extension(f, 30, &extension(30, true, &bound));
            }),
        ),
        (
            "an extended key usage of nothing",
            Box::new(|f| with_extension(f, 37, &extension(37, false, &[0x30, 0]))),
        ),
        (
            "an authority's name without its key",
            Box::new(|f| {
                let by = [tlv(0xa1, &tlv(0xa4, &[0x30, 0])), vec![0x82, 1, 7]].concat();
                with_extension(f, 35, &extension(35, false, &tlv(0x30, &by)));
            }),
        ),
        (
            "an authority key identifier of another key",
            Box::new(|f| {
                with_extension(f, 35, &extension(35, false, &tlv(0x30, &tlv(0x80, &[1; 20]))));
            }),
        ),
        (
            "a path length in words",
            Box::new(|f| {
                with_extension(f, 19, &extension(19, true, &tlv(0x30, &[0x0c, 1, b'1'])));
            }),
        ),
    ];
    for (what, edit) in rows {
        let verdict = verdict(&*edit);
        assert!(verdict.is_err(), "{what}");
    }
    // What is not acted on and says so is passed over.
    for (what, last, value) in [
        ("an unknown extension", 99, vec![5, 0]),
        (
            "distribution points",
            31,
            tlv(
                0x30,
                &tlv(0x30, &tlv(0xa0, &tlv(0xa0, &tlv(0x86, b"http://a/crl")))),
            ),
        ),
    ] {
        let verdict = verdict(&|f| with_extension(f, last, &extension(last, false, &value)));
        assert_eq!(verdict, Ok(()), "{what}");
    }
    let nameless = forged(&root, |f| with_extension(f, 17, &extension(17, true, &[0x30, 0])));
    let verdict = anchors.verify(&nameless, &[], moment(0), Purpose::Server);
    assert_eq!(
        verdict,
        Err(PeerProblem::Malformed),
        "no names, outside of the mesh"
    );
    let garbage = [&leaf(&root, |_| {})[..], &[0]].concat();
    assert!(judge(&anchors, &garbage.into(), &[]).is_err(), "bytes behind it");
}

/// Who an issuer says that its own issuer was, is a hint (RFC 5280 section 4.2.1.1; RFC 4158 section 3.5.12 warns of more):
/// only the key decides. Many private CAs write it, roots among them (`authorityKeyIdentifier=keyid,issuer:always`).
#[test]
fn issuer_and_serial_number_beside_the_key_are_hints() {
    let root = root("a");
    let id = inner_key_id(&leaf(&root, |_| {}));
    let by = |serial: u8| {
        let name = tlv(0xa1, &tlv(0xa4, &parts(inner(&parts(inner(root.der()))[0]))[3]));
        tlv(0x30, &[tlv(0x80, &id), name, vec![0x82, 1, serial]].concat())
    };
    let named = resign(root.der(), &root, |f| {
        with_extension(f, 35, &extension(35, false, &by(1)))
    });
    let anchors = Anchors::new(vec![named.into()], vec![]).unwrap();
    assert_eq!(judge(&anchors, &leaf(&root, |_| {}), &[]), Ok(()));
    let hinted = forged(&root, |f| with_extension(f, 35, &extension(35, false, &by(9))));
    assert_eq!(
        judge(&anchors, &hinted, &[]),
        Ok(()),
        "a serial number that was the issuer's once"
    );
    // A root that says it was signed by another key has not signed itself.
    let other = tlv(0x30, &tlv(0x80, &[1; 20]));
    let torn = resign(root.der(), &root, |f| {
        with_extension(f, 35, &extension(35, false, &other))
    });
    assert!(Anchors::new(vec![torn.into()], vec![]).is_err());
}

/// A leaf and its issuer speak of one key, or neither of them speaks of any.
#[test]
fn both_key_identifiers_are_there_or_neither_is() {
    let root = root("a");
    let without = |der: &[u8], last: u8| {
        resign(der, &root, |fields| {
            let list = parts(inner(&fields[EXTENSIONS]));
            let all = parts(inner(&list[0])).into_iter();
            let kept: Vec<u8> = all
                .filter(|e| e[2..7] != [6, 3, 0x55, 0x1d, last])
                .flatten()
                .collect();
            fields[EXTENSIONS] = tlv(0xa3, &tlv(0x30, &kept));
        })
    };
    let plain = leaf(&root, |_| {});
    let mute = without(&plain, 35);
    let trusting = |der: Vec<u8>| Anchors::new(vec![der.into()], vec![]).unwrap();
    let (named, nameless) = (trusting(root.der().to_vec()), trusting(without(root.der(), 14)));
    let mute = CertificateDer::from(mute);
    assert_eq!(judge(&named, &plain, &[]), Ok(()));
    assert!(judge(&named, &mute, &[]).is_err());
    assert!(judge(&nameless, &plain, &[]).is_err());
    assert_eq!(judge(&nameless, &mute, &[]), Ok(()));
}

/// RSA keys by their size and exponent, bit by bit.
#[test]
fn an_rsa_key_has_2048_to_8192_bits_and_an_odd_exponent() {
    let root = root("a");
    let anchors = trusting(&[&root], vec![]);
    let key = |bytes: usize, first: u8, exponent: &[u8]| {
        let mut modulus = vec![0x55; bytes];
        modulus[0] = first;
        if first >= 0x80 {
            modulus.insert(0, 0);
        }
        let numbers = [tlv(2, &modulus), tlv(2, exponent)].concat();
        let algorithm = [&[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1][..], &[5, 0]].concat();
        let bits = [&[0][..], &tlv(0x30, &numbers)].concat();
        let info = tlv(0x30, &[tlv(0x30, &algorithm), tlv(3, &bits)].concat());
        judge(&anchors, &forged(&root, |f| f[KEY] = info), &[])
    };
    let common = [1, 0, 1];
    assert_eq!(key(256, 0x80, &common), Ok(()));
    assert_eq!(key(1024, 0xff, &[3]), Ok(()));
    for (what, verdict) in [
        ("2047 bits", key(256, 0x7f, &common)),
        ("2040 bits", key(255, 0x80, &common)),
        ("8200 bits", key(1025, 0x80, &common)),
        ("an exponent of 1", key(256, 0x80, &[1])),
        ("an even exponent", key(256, 0x80, &[4])),
    ] {
        assert!(verdict.is_err(), "{what}");
    }
    // Curves and kinds by their names.
    let ec = |curve: &[u8]| {
        let algorithm = [&[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1][..], curve].concat();
        let info = tlv(0x30, &[tlv(0x30, &algorithm), tlv(3, &[0, 4, 1, 1])].concat());
        judge(&anchors, &forged(&root, |f| f[KEY] = info), &[])
    };
    assert_eq!(
        ec(&[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]),
        Ok(()),
        "P-256"
    );
    assert!(ec(&[6, 5, 0x2b, 0x81, 4, 0, 0x21]).is_err(), "P-224");
    assert!(ec(&[6, 5, 0x2b, 0x81, 4, 0, 0x0a]).is_err(), "secp256k1");
    let dsa = tlv(0x30, &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x38, 4, 1]);
    let info = tlv(0x30, &[dsa, tlv(3, &[0, 2, 1, 1])].concat());
    assert!(
        judge(&anchors, &forged(&root, |f| f[KEY] = info), &[]).is_err(),
        "DSA"
    );
}

/// The authority key identifier of a leaf.
fn inner_key_id(leaf: &[u8]) -> Vec<u8> {
    let fields = parts(inner(&parts(inner(leaf))[0]));
    let list = parts(inner(&fields[EXTENSIONS]));
    let found = parts(inner(&list[0]))
        .into_iter()
        .find(|e| e[2..7] == [6, 3, 0x55, 0x1d, 35])
        .unwrap();
    let value = parts(inner(&found)).pop().unwrap();
    inner(&parts(inner(inner(&value)))[0]).to_vec()
}

/// With name constraints of these bytes in an intermediate.
fn bounded(root: &Ca, constraints: &[u8]) -> Ca {
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], constraints.to_vec());
    extension.set_criticality(true);
    under(root, |p| p.custom_extensions = vec![extension])
}

#[test]
fn bounds_of_names_that_cannot_be_read_to_the_end_close() {
    let root = root("a");
    let anchors = trusting(&[&root], vec![]);
    let subtree = |host: &str| tlv(0x30, &tlv(0x86, host.as_bytes()));
    let verdict = |constraints: &[u8]| {
        let ca = bounded(&root, constraints);
        judge(&anchors, &leaf(&ca, |_| {}), &[der(&ca)])
    };
    let permitted = tlv(0xa0, &subtree("td"));
    let excluded = tlv(0xa1, &subtree("td"));
    assert_eq!(verdict(&tlv(0x30, &permitted)), Ok(()));
    let rows: [(&str, Vec<u8>); 7] = [
        (
            "what is excluded counts though it is permitted",
            [&permitted[..], &excluded].concat(),
        ),
        (
            "excluded ones that are no names",
            [&permitted[..], &tlv(0xa1, &[5, 0])].concat(),
        ),
        (
            "permitted ones behind the excluded",
            [tlv(0xa1, &subtree("other")), tlv(0xa0, &subtree("other"))].concat(),
        ),
        (
            "excluded ones twice",
            [tlv(0xa1, &subtree("other")), excluded.clone()].concat(),
        ),
        (
            "a minimum",
            tlv(0xa0, &tlv(0x30, &[&tlv(0x86, b"td")[..], &[0x80, 1, 1]].concat())),
        ),
        ("no list", vec![]),
        ("empty lists", [tlv(0xa0, &[]), tlv(0xa1, &[])].concat()),
    ];
    for (what, content) in rows {
        let verdict = verdict(&tlv(0x30, &content));
        assert!(verdict.is_err(), "{what}");
    }
    // A base that is no name of its form bounds nothing that could be compared.
    for (tag, base) in [
        (0x82, &b".td"[..]),
        (0x82, b"t..d"),
        (0x82, b"*.td"),
        (0x86, b"."),
        (0x86, b"spiffe://td"),
        (0x81, b"@td"),
        (0x81, b"a@b@c"),
        (0x87, &[10, 1, 0, 0, 255, 0, 255, 0]),
        (0x87, &[10, 1, 0, 0]),
        (0x89, b"td"),
    ] {
        let list = tlv(0xa1, &tlv(0x30, &tlv(tag, base)));
        let verdict = verdict(&tlv(0x30, &list));
        assert!(verdict.is_err(), "{tag:02x} {base:?}");
    }
    // Of a form that cannot be compared, every name is refused; of others it says nothing.
    let other = tlv(
        0x30,
        &tlv(0xa1, &tlv(0x30, &tlv(0xa0, &[6, 3, 0x2a, 3, 4, 0xa0, 2, 5, 0]))),
    );
    assert_eq!(verdict(&other), Ok(()));
    let ca = bounded(&root, &other);
    let named = leaf(&ca, |p| {
        p.subject_alt_names
            .push(SanType::OtherName((vec![1, 2, 3, 5], "x".into())));
    });
    assert!(judge(&anchors, &named, &[der(&ca)]).is_err());
}

#[test]
fn an_excluded_name_is_excluded_in_every_writing() {
    use rcgen::DnValue;
    let root = root("a");
    let anchors = trusting(&[&root], vec![]);
    let name = tlv(
        0x30,
        &tlv(
            0x31,
            &tlv(0x30, &[&[6, 3, 0x55, 4, 10][..], &tlv(0x0c, b"Evil")].concat()),
        ),
    );
    let list = |tag| tlv(0x30, &tlv(tag, &tlv(0x30, &tlv(0xa4, &name))));
    let called = |tag: u8, value: DnValue| {
        let ca = bounded(&root, &list(tag));
        let leaf = leaf(&ca, |p| {
            p.distinguished_name.push(DnType::OrganizationName, value)
        });
        judge(&anchors, &leaf, &[der(&ca)])
    };
    let (permitted, excluded) = (0xa0, 0xa1);
    assert_eq!(called(excluded, DnValue::Utf8String("Good".into())), Ok(()));
    assert_eq!(
        called(permitted, DnValue::PrintableString("EVIL".try_into().unwrap())),
        Ok(())
    );
    for value in [
        DnValue::Utf8String("evil".into()),
        DnValue::Utf8String("  Evil ".into()),
        DnValue::PrintableString("Evil".try_into().unwrap()),
        DnValue::BmpString("Evil".try_into().unwrap()),
        DnValue::TeletexString("Evil".try_into().unwrap()),
        DnValue::UniversalString("Evil".try_into().unwrap()),
        DnValue::Utf8String("Ev\u{ad}il".into()),
        DnValue::Utf8String("\u{ff25}vil".into()),
        DnValue::Utf8String("Evil\0".into()),
    ] {
        let shown = format!("{value:?}");
        assert!(called(excluded, value).is_err(), "{shown}");
    }
    let mail = tlv(0x30, &tlv(0xa0, &tlv(0x30, &tlv(0x81, b"good.example"))));
    let ca = bounded(&root, &mail);
    for (mailbox, verdict) in [("a@good.example", true), ("a@evil.example", false)] {
        let leaf = leaf(&ca, |p| {
            let kind = DnType::CustomDnType(vec![1, 2, 840, 113549, 1, 9, 1]);
            p.distinguished_name
                .push(kind, DnValue::Ia5String(mailbox.try_into().unwrap()));
        });
        assert_eq!(judge(&anchors, &leaf, &[der(&ca)]).is_ok(), verdict, "{mailbox}");
    }
}
