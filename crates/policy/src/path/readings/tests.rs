use super::*;

#[test]
fn s3_6_the_other_readings_of_each_ambiguity() {
    let rows: &[(&str, &[&str])] = &[
        ("/a/b", &[]),
        ("/a%2fb", &["/a/b"]),
        ("/a%5Cb", &["/a/b"]),
        ("/a\\b", &["/a/b"]),
        ("/a%252fb", &["/a/b"]),
        ("/a%25252fb", &["/a/b"]),
        ("/a;x/b", &["/a/b"]),
        ("/a%3bx", &["/a"]),
        ("/a//b?x//y;z", &["/a/b?x//y;z"]),
        ("/a/./b", &["/a/b"]),
        ("/a/..", &["/"]),
        ("/a/..%2fb", &["/b"]),
        // N-396, as the modes leave it.
        ("/a/..;/b", &["/b"]),
        // Dot segments before slashes are merged, and after.
        ("/a//../b", &["/a/b", "/b"]),
        ("//", &["/"]),
        // What a NUL ends is no reading of ours.
        ("/a;%00", &["/a"]),
        // What only looks like an ambiguity.
        ("/100%", &[]),
        ("/a?b//c", &[]),
    ];
    for (target, expect) in rows {
        assert_eq!(readings(target), *expect, "{target}");
    }
}

#[test]
fn a_path_that_can_only_be_read_in_one_way_is_not_ambiguous() {
    let plain = [
        "/",
        "/a/b",
        "/.well-known/x",
        "/a/..b",
        "/a/...",
        "/a.b/c.",
        "/a%41",
        "/100%25",
        "/a%25zz",
        "/a%252",
        "/a%20b",
        "/a%00",
    ];
    for path in plain {
        assert!(!is_ambiguous(path.as_bytes()), "{path}");
    }
    let ambiguous = [
        "/a;b", "/a\\b", "//a", "/a//", "/./a", "/..", "/a/.", "/a/.%2e", "/a%", "/a%z1", "/a%2F", "/a%5c",
        "/a%2e", "/a%3B", "/a%252e", "/a%25ff",
    ];
    for path in ambiguous {
        assert!(is_ambiguous(path.as_bytes()), "{path}");
    }
}

#[test]
fn an_escaped_percent_is_decoded_where_that_makes_an_escape() {
    let rows = [
        ("/a%252fb", "/a%2fb"),
        ("/a%25252f", "/a%252f"),
        ("/a%25%32%65", "/a%25%32%65"),
        ("/100%25", "/100%25"),
        ("/a%25zz%2f", "/a%25zz%2f"),
    ];
    for (path, expect) in rows {
        assert_eq!(unescape_percent(path.as_bytes()), expect.as_bytes(), "{path}");
    }
}

#[test]
fn parameters_are_stripped_in_each_way_once() {
    let stripped = |path: &str| -> Vec<String> {
        let found = strip_parameters(path.as_bytes()).into_iter();
        found.map(|path| String::from_utf8(path).unwrap()).collect()
    };
    assert_eq!(stripped("/a/b"), Vec::<String>::new());
    assert_eq!(stripped("/a;x/b;y"), ["/a/b"]);
    assert_eq!(stripped("/a%3bx;y/b"), ["/a%3bx/b", "/a/b"]);
    assert_eq!(stripped("/a;x\\b"), ["/a\\b", "/a"]);
}
