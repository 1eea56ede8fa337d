//! An authorizer's answer over gRPC: reading it, and making its changes.

use extauthz::{Answer, Changes};
use http::{HeaderMap, HeaderValue, Uri};

/// What only a proxy says of a request, and what frames and routes it.
const KEPT: [&str; 6] = [
    "x-forwarded-client-cert",
    "x-envoy-peer-metadata",
    "x-forwarded-for",
    "host",
    "content-length",
    "connection",
];

pub(crate) fn run(input: &[u8]) {
    // As it comes, and with the frame right: most of what is to be found lies behind that.
    let _ = extauthz::read::grpc(input);
    match extauthz::read::grpc(&extauthz::frame(input)) {
        Ok(Answer::Allow(changes)) => changed(&changes),
        Ok(Answer::Deny(denied)) => {
            assert!((200..600).contains(&denied.status.as_u16()), "{}", denied.status);
            let mut headers = HeaderMap::new();
            denied.put(&mut headers, true);
            for name in [
                "grpc-status",
                "grpc-message",
                "content-type",
                "content-length",
                "transfer-encoding",
            ] {
                assert!(!headers.contains_key(name), "a refusal sets {name}");
            }
        }
        Err(_) => {}
    }
}

/// Nothing of it speaks for the proxy, and the path stays what it was.
fn changed(changes: &Changes) {
    let mut headers = HeaderMap::new();
    for name in KEPT {
        headers.insert(name, HeaderValue::from_static("ours"));
    }
    changes.request(&mut headers, true);
    for name in KEPT {
        let values: Vec<_> = headers.get_all(name).iter().collect();
        assert_eq!(values, ["ours"], "{name}");
    }
    for name in headers.keys().filter(|name| name.as_str().contains('_')) {
        let dashed = name.as_str().replace('_', "-");
        assert!(dashed != "x-forwarded-client-cert", "{name} passes for it");
    }
    let mut response = HeaderMap::new();
    changes.response(&mut response);
    for name in [
        "content-length",
        "transfer-encoding",
        "connection",
        "grpc-status",
        "x-meshward-decision",
    ] {
        assert!(!response.contains_key(name), "a response gets {name}");
    }
    for target in ["/a", "/a?b=c&%62=d&e"] {
        if let Some(changed) = changes.target(target) {
            let uri: Uri = changed
                .parse()
                .unwrap_or_else(|e| panic!("`{changed}` is no target: {e}"));
            assert_eq!((uri.path(), uri.host()), ("/a", None), "{changed}");
            assert_eq!(changes.target(&changed), None, "twice is once");
        }
    }
}
