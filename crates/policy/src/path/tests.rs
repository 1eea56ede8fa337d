use super::*;
use proptest::prelude::*;

const MODES: [Mode; 4] = [
    Mode::None,
    Mode::Base,
    Mode::MergeSlashes,
    Mode::DecodeAndMergeSlashes,
];

fn run(input: &[u8], mode: Mode) -> String {
    match normalize(input, mode) {
        Ok(path) => path.into_owned(),
        Err(_) => "400".to_owned(),
    }
}

/// Semantics 3.5, block 1: id, input, NONE, BASE, MERGE, DECODE.
const EACH: &str = r"N-002	/app#foo	/app	/app	/app	/app
N-006	/app//	/app//	/app//	/app/	/app/
N-007	/app/%2f	/app/%2f	/app/%2f	/app/%2f	/app/
N-008	/app%2f/	/app%2f/	/app%2f/	/app%2f/	/app/
N-009	/xyz%30..//abc	/xyz%30..//abc	/xyz0..//abc	/xyz0../abc	/xyz0../abc
N-012	/app/\/\/\admin	/app/\/\/\admin	/app//////admin	/app/admin	/app/admin
N-013	/%2Fapp%5cadmin%5Cabc	/%2Fapp%5cadmin%5Cabc	/%2Fapp%5cadmin%5Cabc	/%2Fapp%5cadmin%5Cabc	/app/admin/abc
N-014	/%5Capp%2f%5c%2F%2e%2e%2fadmin%5c\abc	/%5Capp%2f%5c%2F%2e%2e%2fadmin%5c\abc	/%5Capp%2f%5c%2F..%2fadmin%5c/abc	/%5Capp%2f%5c%2F..%2fadmin%5c/abc	/app/admin/abc
N-018	/%c0%2fadmin	/%c0%2fadmin	/%c0%2fadmin	/%c0%2fadmin	/%c0/admin
N-049	/%5c%25	/%5c%25	/%5c%25	/%5c%25	/%25
N-057	/a/%2F%2f/c	/a/%2F%2f/c	/a/%2F%2f/c	/a/%2F%2f/c	/a/c
N-061	/a//b/c/	/a//b/c/	/a//b/c/	/a/b/c/	/a/b/c/
N-063	//a/b/c	//a/b/c	//a/b/c	/a/b/c	/a/b/c
N-064	/a/b/c//	/a/b/c//	/a/b/c//	/a/b/c/	/a/b/c/
N-065	/a///b/c	/a///b/c	/a///b/c	/a/b/c	/a/b/c
N-066	/a//b?a=///c	/a//b?a=///c	/a//b?a=///c	/a/b?a=///c	/a/b?a=///c
N-067	/a//b?	/a//b?	/a//b?	/a/b?	/a/b?
N-068	//a/?b	//a/?b	//a/?b	/a/?b	/a/?b
N-074	/admin#a?b	/admin	/admin	/admin	/admin
N-075	/admin?x#y	/admin?x	/admin?x	/admin?x	/admin?x
N-092	//..//admin	//..//admin	//admin	/admin	/admin
N-093	///	///	///	//	//
N-094	/a//..//b	/a//..//b	/a//b	/a/b	/a/b
N-096	/a%5c..%5cadmin	/a%5c..%5cadmin	/a%5c..%5cadmin	/a%5c..%5cadmin	/admin
N-097	/a%2f..%2fadmin	/a%2f..%2fadmin	/a%2f..%2fadmin	/a%2f..%2fadmin	/admin
N-098	/a%2F%2E%2E%2fadmin	/a%2F%2E%2E%2fadmin	/a%2F..%2fadmin	/a%2F..%2fadmin	/admin
N-101	\\admin	\\admin	//admin	/admin	/admin
N-125	/Admin%2f	/Admin%2f	/Admin%2f	/Admin%2f	/Admin/
N-126	/%2e%2e%2fadmin	/%2e%2e%2fadmin	/..%2fadmin	/..%2fadmin	/admin
N-128	http://h/admin	http://h/admin	/http://h/admin	/http:/h/admin	/http:/h/admin
N-132	/%%32%65/admin	/%%32%65/admin	/%252e/admin	/%252e/admin	/%252e/admin";

/// NONE leaves the input; the others agree.
const AGREE: &[(&str, &[u8], &str)] = &[
    ("N-004", b"/app/../admin", "/admin"),
    ("N-010", b"/app/%2E./admin", "/admin"),
    ("N-011", b"/app\\admin", "/app/admin"),
    ("N-015", b"/app//../admin", "/app/admin"),
    ("N-016", b"/app//../../admin", "/admin"),
    ("N-017", b"/%c0%2e%c0%2e/admin", "/%c0.%c0./admin"),
    ("N-042", b"/admin%00", "400"),
    ("N-043", b"/a/b/../c", "/a/c"),
    ("N-044", b"/a/b/./c", "/a/b/c"),
    ("N-045", b"a/b/../c", "/a/c"),
    ("N-046", b"/a/b/../../../../c", "/c"),
    ("N-047", b"/a/..\\c", "/c"),
    ("N-050", b"/a/b/%2E%2E/c", "/a/c"),
    ("N-051", b"/a/b/%2E./c", "/a/c"),
    ("N-052", b"/a/b/%2E/c", "/a/b/c"),
    ("N-053", b"..", "/"),
    ("N-054", b"/../a/b", "/a/b"),
    ("N-055", b"/./a/b", "/a/b"),
    ("N-058", b"/xyz/.%00../abc", "400"),
    ("N-059", b"/xyz/%00.%00./abc", "400"),
    ("N-060", b"/xyz/AAAAA%%0000/abc", "400"),
    ("N-070", b"/admin/..?x=1", "/?x=1"),
    ("N-071", b"/admin/.?x=%2e%2e", "/admin/?x=%2e%2e"),
    ("N-077", b"/%61dmin", "/admin"),
    ("N-078", b"/%41dmin", "/Admin"),
    ("N-083", b"/%25%32%65/admin", "/%252e/admin"),
    ("N-084", b"/a/%2e", "/a/"),
    ("N-085", b"/a/%2e%2e", "/"),
    ("N-086", b"/a/.", "/a/"),
    ("N-087", b"/a/..", "/"),
    ("N-090", b"/a;/../b", "/b"),
    ("N-095", b"/a/b//../../c", "/a/c"),
    ("N-099", b"/a\\..\\admin", "/admin"),
    ("N-100", b"\\admin", "/admin"),
    ("N-102", b"/a b", "/a%20b"),
    ("N-104", b"/a\"b", "/a%22b"),
    ("N-105", b"/a<b>", "/a%3Cb%3E"),
    ("N-106", b"/a{b}|c", "/a%7Bb%7D%7Cc"),
    ("N-107", b"/a^b`c", "/a%5Eb%60c"),
    ("N-111", b"/~a%7Eb", "/~a~b"),
    ("N-113", b"/a\x7fb", "/a%7Fb"),
    ("N-114", b"/caf\xc3\xa9", "/caf%C3%A9"),
    ("N-119", b"/a\x09b", "/a%09b"),
    ("N-120", b"*", "/*"),
    ("N-122", b"", "/"),
    ("N-123", b"admin", "/admin"),
    ("N-124", b"../admin", "/admin"),
    ("N-127", b"/a%00b", "400"),
    ("N-130", b"/a/..%00/b", "400"),
    ("N-035", b"/..;/admin", "/admin"),
    ("N-089", b"/a/..;/b", "/b"),
    ("N-091", b"/.;/admin", "/admin"),
    ("N-131", b"/a/%2e.;/b", "/a/..;/b"),
    ("N-389", b"/a/..;x=1/b", "/b"),
    ("N-390", b"/a/.;x/b", "/a/b"),
    ("N-391", b"/a/..;", "/"),
    ("N-392", b"/a/..;?q", "/?q"),
    ("N-393", b"/a/.;", "/a/"),
    ("N-394", b"/a/...;/b", "/a/...;/b"),
    ("N-395", b"/a/..%3b/b", "/a/..%3b/b"),
    ("N-396", b"/a/%2e%2e;/b", "/a/..;/b"),
];

/// Unchanged in all four modes.
const SAME: &str = "N-001 / N-003 /app/ N-005 /app N-019 /0x2e0x2e/admin N-020 /0x2e0x2e0x2fadmin N-021 /0x2e0x2e0x5cadmin \
    N-022 /0x2f0x2fadmin N-023 /0x5c0x5cadmin N-024 /%25c0%25ae%25c1%259cadmin N-025 /%25c0%25ae%25c0%25ae/admin \
    N-026 /%25c0%25afadmin N-027 /%25c1%259cadmin N-028 /%252e%252e/admin N-029 /%252e%252e%252fadmin N-030 /%c1%9cadmin \
    N-031 /%c0%ae%c0%ae/admin N-032 /%c0%afadmin N-033 /.../admin N-034 /..../admin N-036 /;/admin N-037 /admin;a=b \
    N-038 /admin;a=b/xyz N-039 /admin,a=b/xyz N-040 /Admin N-041 /ADMIN N-048 /%c0%af N-056 /A/B/C N-062 /a \
    N-069 /admin?x=/../y N-072 /admin%3Fx=1 N-073 /admin%23frag N-076 /a?b=%2F%2f//.. N-079 /admin% N-080 /admin%2 \
    N-081 /admin%zz N-082 /%2561dmin N-088 /a/... N-103 /a%20b N-108 /a'b(c)*! N-109 /a:b@c N-110 /a=b+c N-112 /a[b] \
    N-115 /caf%C3%A9 N-116 /caf%c3%a9 N-117 /a%0d%0ab N-118 /a%09b N-121 /* N-129 /a?%00";

#[test]
fn n_001_to_132_and_389_to_396() {
    for row in EACH.lines() {
        let cells: Vec<&str> = row.split('\t').collect();
        for (mode, expect) in MODES.into_iter().zip(&cells[2..]) {
            assert_eq!(run(cells[1].as_bytes(), mode), *expect, "{} {mode:?}", cells[0]);
        }
    }
    for (row, input, expect) in AGREE {
        assert_eq!(run(input, Mode::None).as_bytes(), *input, "{row} NONE");
        for mode in &MODES[1..] {
            assert_eq!(run(input, *mode), *expect, "{row} {mode:?}");
        }
    }
    let words: Vec<&str> = SAME.split_whitespace().collect();
    for pair in words.chunks(2) {
        for mode in MODES {
            assert_eq!(run(pair[1].as_bytes(), mode), pair[1], "{} {mode:?}", pair[0]);
        }
    }
    assert_eq!(EACH.lines().count() + AGREE.len() + words.len() / 2, 140);
}

#[test]
fn n_133_to_388_every_escape() {
    for value in 0..=255_u8 {
        let input = format!("/admin%{value:02x}");
        let expect = match value {
            0 => "400".to_owned(),
            b'/' | b'\\' => "/admin/".to_owned(),
            b'-' | b'.' | b'_' | b'~' => format!("/admin{}", char::from(value)),
            _ if value.is_ascii_alphanumeric() => format!("/admin{}", char::from(value)),
            _ => input.clone(),
        };
        assert_eq!(
            run(input.as_bytes(), Mode::DecodeAndMergeSlashes),
            expect,
            "{input}"
        );
    }
}

#[test]
fn nothing_is_copied_where_nothing_changes() {
    for mode in MODES {
        assert!(
            matches!(normalize(b"/a/b?c=%2f", mode), Ok(Cow::Borrowed("/a/b?c=%2f"))),
            "{mode:?}"
        );
        assert!(
            matches!(normalize(b"/a/b#c", mode), Ok(Cow::Borrowed("/a/b"))),
            "{mode:?}"
        );
    }
    assert_eq!(normalize(b"/a\xff", Mode::None), Err(PathError::NotAscii));
    assert_eq!(normalize(b"/a\0", Mode::None), Err(PathError::Nul));
}

#[test]
fn s3_6_strict() {
    let rows: &[(&str, Option<PathError>)] = &[
        ("/a/b", None),
        ("/a//b", None),
        ("/a%20b", None),
        ("/100%25", None),
        ("/a;b=c", None),
        ("/.well-known/x", None),
        ("/a/...", None),
        ("/a?x=/../%2f%zz", None),
        ("/a%2Fb", Some(PathError::Slash)),
        ("/a%5cb", Some(PathError::Slash)),
        ("/a\\b", Some(PathError::Slash)),
        ("/a%00", Some(PathError::Nul)),
        ("/a\0", Some(PathError::Nul)),
        ("/a b", Some(PathError::NotAscii)),
        ("/caf\u{e9}", Some(PathError::NotAscii)),
        ("/a/../b", Some(PathError::DotSegment)),
        ("/a/./b", Some(PathError::DotSegment)),
        ("/a/..", Some(PathError::DotSegment)),
        ("/a/%2e%2E/b", Some(PathError::DotSegment)),
        ("/a/.%2e/b", Some(PathError::DotSegment)),
        ("/a/..;x/b", Some(PathError::DotSegment)),
        ("/a/%2e%2e;/b", Some(PathError::DotSegment)),
        ("/a/..%3b/b", Some(PathError::DotSegment)),
        ("/a%", Some(PathError::Percent)),
        ("/a%2", Some(PathError::Percent)),
        ("/a%zz", Some(PathError::Percent)),
        ("/a%252e", Some(PathError::Percent)),
        ("/a%25%32%65", Some(PathError::Percent)),
        ("/a%2525", Some(PathError::Percent)),
        ("/%c0%ae%c0%ae/admin", Some(PathError::Percent)),
    ];
    for (path, expect) in rows {
        assert_eq!(strict_check(path.as_bytes()).err(), *expect, "{path}");
    }
}

#[test]
fn explain_names_each_step() {
    let steps = explain(b"/a%2f..//b?x#y", Mode::DecodeAndMergeSlashes).unwrap();
    let expect = [
        ("received", "/a%2f..//b?x#y"),
        ("fragment cut", "/a%2f..//b?x"),
        ("slashes decoded", "/a/..//b?x"),
        ("canonical", "//b?x"),
        ("slashes merged", "/b?x"),
    ];
    assert_eq!(steps, expect.map(|(name, text)| (name, text.to_owned())));
    assert_eq!(explain(b"/%00", Mode::Base), Err(PathError::Nul));
}

#[test]
fn a_refused_path_shows_how_far_it_came() {
    let steps = |steps: &[(&'static str, &str)]| -> Vec<(&'static str, String)> {
        steps
            .iter()
            .map(|(name, text)| (*name, (*text).to_owned()))
            .collect()
    };
    let expect = steps(&[
        ("received", "/a%2f%00#x"),
        ("fragment cut", "/a%2f%00"),
        ("slashes decoded", "/a/%00"),
    ]);
    assert_eq!(
        trace(b"/a%2f%00#x", Mode::DecodeAndMergeSlashes),
        (expect, Some(PathError::Nul))
    );
    let expect = steps(&[("received", "/a"), ("fragment cut", "/a"), ("canonical", "/a")]);
    assert_eq!(trace(b"/a", Mode::Base), (expect, None));
}

#[test]
fn a_path_ends_before_query_and_fragment() {
    let rows = [
        ("/a?b#c", "/a"),
        ("/a#b?c", "/a"),
        ("/a", "/a"),
        ("?", ""),
        ("", ""),
    ];
    for (target, path) in rows {
        assert_eq!(without_query(target), path, "{target}");
    }
}

fn targets() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "/", "/", ".", "..", "a", "%2e", "%2f", "%5c", "\\", ";", "%25", "%", "2e", "?", "#", "%41", "%3b",
        "2", "e", " ",
    ];
    prop::collection::vec(prop::sample::select(PIECES), 0..12).prop_map(|v| v.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn strict_paths_settle_in_one_step(text in targets()) {
        if strict_check(text.as_bytes()).is_ok() && text.starts_with('/') {
            for mode in MODES {
                let once = run(text.as_bytes(), mode);
                prop_assert_eq!(run(once.as_bytes(), mode), once.clone());
                let path = without_query(&once);
                prop_assert!(!path.contains("/../") && !path.contains("/./") && !path.ends_with("/.."), "{}", path);
            }
        }
    }

    #[test]
    fn slashes_are_merged(text in targets()) {
        for mode in [Mode::MergeSlashes, Mode::DecodeAndMergeSlashes] {
            if let Ok(path) = normalize(text.as_bytes(), mode) {
                let path = without_query(&path);
                prop_assert!(path == "//" || !path.contains("//"), "{}", path);
                prop_assert!(path.starts_with('/'));
            }
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        for mode in MODES {
            let answer = normalize(&bytes, mode);
            prop_assert_eq!(explain(&bytes, mode).is_ok(), answer.is_ok());
            if let Ok(path) = answer {
                let steps = explain(&bytes, mode).unwrap();
                prop_assert_eq!(&steps.last().unwrap().1, &path);
                // No reading is the path itself, and there are few.
                let others = readings(&path);
                prop_assert!(others.len() < 30 && others.iter().all(|other| *other != path));
            }
        }
        let _ = strict_check(&bytes);
    }

    #[test]
    fn a_strict_path_in_merged_form_has_few_other_readings(text in targets()) {
        if strict_check(text.as_bytes()).is_ok() && text.starts_with('/') {
            let path = run(text.as_bytes(), Mode::MergeSlashes);
            // What is left is whether a backend drops parameters, and `//`.
            if !path.contains(';') && !path.contains("%3b") && without_query(&path) != "//" {
                prop_assert_eq!(readings(&path), Vec::<String>::new());
            }
        }
    }
}
