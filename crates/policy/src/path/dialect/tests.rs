use super::readings::Unreadable;
use super::*;
use proptest::prelude::*;

#[test]
fn the_annotation_in_all_its_forms() {
    let all: Dialects = "case-insensitive,strip-params,decode=2,collapse".parse().unwrap();
    let expect = Dialect {
        decode: 2,
        ..Dialect::ALL
    };
    assert_eq!((all.others, all.ports.len()), (expect, 0));
    assert_eq!(
        all.others.to_string(),
        "case-insensitive,strip-params,decode=2,collapse"
    );
    let each: Dialects = "8080=decode=1, collapse; 9090 = plain ;*=strip-params"
        .parse()
        .unwrap();
    assert_eq!(each.of(8080).to_string(), "decode=1,collapse");
    assert_eq!(each.of(9090), Dialect::PLAIN);
    assert_eq!(each.of(1).to_string(), "strip-params");
    let one: Dialects = "8080=collapse".parse().unwrap();
    assert!(one.of(9090).is_plain() && !one.is_plain());
    assert!("plain".parse::<Dialects>().unwrap().is_plain());
    let union = each.union(&one);
    assert_eq!(union.of(8080).to_string(), "decode=1,collapse");
    assert_eq!(union.of(9090), Dialect::PLAIN);
    assert_eq!(union.of(7).to_string(), "strip-params");
}

#[test]
fn a_union_has_what_either_has() {
    let all = (0..8_u8).map(|bits| Dialect {
        case_insensitive: bits & 1 > 0,
        strip_params: bits & 2 > 0,
        collapse: bits & 4 > 0,
        decode: bits % 4,
    });
    let all: Vec<Dialect> = all.collect();
    for (a, b) in all.iter().flat_map(|a| all.iter().map(move |b| (*a, *b))) {
        let expect = Dialect {
            case_insensitive: a.case_insensitive || b.case_insensitive,
            strip_params: a.strip_params || b.strip_params,
            collapse: a.collapse || b.collapse,
            decode: a.decode.max(b.decode),
        };
        assert_eq!(a.union(b), expect, "{a} and {b}");
    }
    assert_eq!(Dialects::all().of(80), Dialect::ALL);
}

#[test]
fn what_is_no_annotation() {
    for bad in [
        "",
        ",",
        "Collapse",
        "decode",
        "decode=",
        "decode=0",
        "decode=4",
        "decode=+1",
        "decode=x",
        "lower",
        "80=",
        "0=collapse",
        "65536=collapse",
        "-1=collapse",
        "+1=collapse",
        "=collapse",
        "80=collapse;80=plain",
        "collapse;plain",
        "collapse;",
        "80:collapse",
    ] {
        assert!(bad.parse::<Dialects>().is_err(), "{bad}");
    }
}

fn read(target: &str, words: &str) -> Vec<String> {
    let mut found = readings(target, words.parse().unwrap()).unwrap();
    found.sort();
    found
}

#[test]
fn s3_6_readings_of_each_dialect() {
    let rows: &[(&str, &str, &[&str])] = &[
        ("plain", "/a;b//%2e%2e/c", &[]),
        ("case-insensitive", "/Admin", &[]),
        ("strip-params", "/admin;a=b/x;y?z;", &["/admin/x?z;"]),
        ("strip-params", "/admin%3bx", &["/admin"]),
        ("strip-params", "/a%3bx;y", &["/a", "/a%3bx"]),
        ("strip-params", "/a;x\\b", &["/a", "/a\\b"]),
        ("decode=1", "/a%2fb", &["/a/b"]),
        ("decode=1", "/a%5Cb", &["/a/b", "/a\\b"]),
        ("decode=1", "/a%252fb", &["/a%2fb"]),
        ("decode=2", "/a%252fb", &["/a%2fb", "/a/b"]),
        ("decode=2", "/a%25%32%66b", &["/a%2fb", "/a/b"]),
        ("decode=3", "/a%25252fb", &["/a%252fb", "/a%2fb", "/a/b"]),
        // What has but one reading keeps its spelling.
        ("decode=3", "/100%25", &[]),
        ("decode=3", "/a%20b%c3%a9%22", &[]),
        ("decode=1", "/a%3fb%23c", &[]),
        ("decode=1", "/a%2Eb", &["/a.b"]),
        ("collapse", "/a//b", &["/a/b"]),
        ("collapse", "/a/./b/../c", &["/a/c"]),
        ("collapse", "/a//../b", &["/a/../b", "/a/b", "/b"]),
        ("collapse", "//", &["/"]),
        ("collapse", "/a%2f..%2fb", &[]),
        ("decode=1,collapse", "/a%2f..%2fb", &["/a/../b", "/b"]),
        (
            "strip-params,collapse",
            "/public/..;x/admin",
            &["/admin", "/public/../admin"],
        ),
        // Parameters before decoding, and after.
        ("strip-params,decode=1", "/a;%2fb", &["/a", "/a/b", "/a;/b"]),
    ];
    for (words, target, expect) in rows {
        assert_eq!(read(target, words), *expect, "{words} {target}");
    }
}

#[test]
fn what_cannot_be_judged_is_refused() {
    let read = |target: &str, words: &str| readings(target, words.parse().unwrap());
    assert_eq!(read("/a%00", "decode=1"), Err(Unreadable::Nul));
    assert_eq!(read("/a%2500", "decode=2"), Err(Unreadable::Nul));
    assert_eq!(read("/a%2500", "decode=1"), Ok(vec!["/a%00".to_owned()]));
    let deep = r"//..%25252e%255c/%5c./%252f%25253b..%253b..%253b/%3b/%2541%2f";
    let all = "strip-params,decode=3,collapse";
    assert_eq!(read(deep, all), Err(Unreadable::TooMany));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// More words only add readings, and there are never more than the limit.
    #[test]
    fn a_union_reads_what_each_reads(
        target in prop::collection::vec(prop::sample::select(&["/", "a", ";", "%2f", "%25", "2f", "..", ".", "%3b", "\\"][..]), 0..6),
        bits in any::<[bool; 3]>(),
        decode in 0_u8..=MAX_DECODE,
    ) {
        let target = format!("/{}", target.concat());
        let dialect = Dialect { case_insensitive: bits[0], strip_params: bits[1], collapse: bits[2], decode };
        let (some, all) = (readings(&target, dialect), readings(&target, Dialect::ALL));
        if let Ok(all) = &all {
            prop_assert!(all.len() < 32);
            for reading in some.unwrap() {
                prop_assert!(all.contains(&reading), "{reading}");
            }
        }
    }
}
