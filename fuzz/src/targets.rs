use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meshward_http::{Fault, Front};
use model::{Cidr, Host, SpiffeId, TrustDomain};
use policy::path::{Mode, explain, normalize, strict_check};
use prost::Message as _;
use proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use snapshot::{Index, Resource, Resources};
use time::{Duration, OffsetDateTime};

use crate::{Target, admin_line, decisions, ext_authz, http2, tokens, tunnels};

pub(crate) const ALL: &[Target] = &[
    Target {
        name: "yaml",
        run: yaml,
        words: &[
            b"apiVersion: ",
            b"kind: ",
            b"metadata:\n",
            b"spec:\n",
            b"---\n",
            b"&a ",
            b"*a",
            b"<<: *a",
            b"? ",
            b"!!str ",
            b"|\n",
            b">-\n",
            b"- ",
            b"{",
            b"}",
            b"[",
            b"]",
            b"\"",
            b"'",
            b"# ",
            b"\t",
            b"items:\n",
            b"List",
            b"rules:\n",
            b"AuthorizationPolicy",
            b"PeerAuthentication",
            b"DestinationRule",
            b"ConfigMap",
            b"Pod",
            b"Service",
            b"security.istio.io/v1",
            b"mesh: |\n",
            b"0x",
            b"1e999",
            b".inf",
            b"~",
            b"%YAML 1.2\n",
        ],
    },
    Target {
        name: "tunnels",
        run: tunnels::run,
        words: &[
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
            b"\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08",
            b"\x02\x07CONNECT",
            b"\x01\x0b10.0.0.1:80",
            b"\x00\x09:protocol\x09websocket",
            b"\x84",
            b"\x86",
        ],
    },
    Target {
        name: "http2",
        run: http2::run,
        words: &[
            b"\x00\x00\x04\x01\x05\x00\x00\x00\x01\x82\x86\x84\x41\x01a",
            b"\x00\x00\x04\x01\x04\x00\x00\x00\x03",
            b"\x00\x00\x04\x09\x04\x00\x00\x00\x01",
            b"\x00\x00\x05\x00\x01\x00\x00\x00\x01hello",
            b"\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08",
            b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x01\x00",
            b"\x00\x00\x08\x06\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
            b"\x00\x0econtent-length\x015",
            b"\x00\x11transfer-encoding\x07chunked",
            b"\x00\x0aconnection\x05close",
            b"\x00\x02te\x08trailers",
            b"\x82",
            b"\x86",
            b"\x84",
            b"\x41\x01a",
        ],
    },
    Target {
        name: "hpack",
        run: http2::block,
        words: &[
            b"\x82",
            b"\xbe",
            b"\x40\x01a\x01b",
            b"\x00\x03x-a\x01b",
            b"\x10\x03x-a\x01b",
            b"\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf",
            b"\x20",
            b"\x3f\xe1\x1f",
            b"\x58\x86\xa8\xeb\x10\x64\x9c\xbf",
        ],
    },
    Target {
        name: "xds",
        run: xds,
        words: &[
            b"type.googleapis.com/meshward.dev.v1alpha1.Resource",
            b"\x0a",
            b"\x12",
            b"\x1a",
            b"\x22",
        ],
    },
    Target {
        name: "snapshot",
        run: snapshot,
        words: &[
            b"[",
            b"]",
            b"{",
            b"}",
            b"\"",
            b":",
            b",",
            b"null",
            b"true",
            b"\"mesh\"",
            b"\"roots\"",
            b"\"*\"",
            b"-1",
            b"65536",
        ],
    },
    Target {
        name: "client-hello",
        run: client_hello,
        words: &[
            b"\x16\x03\x01",
            b"\x01\x00",
            b"\x00\x00",
            b"\x00\x10",
            b"istio-peer-exchange",
            b"istio",
            b"h2",
        ],
    },
    Target {
        name: "http1",
        run: http1,
        words: &[
            b"GET / HTTP/1.1\r\n",
            b"POST ",
            b"CONNECT ",
            b"Host: a\r\n",
            b"Content-Length: ",
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: upgrade\r\n",
            b"Upgrade: websocket\r\n",
            b"\r\n\r\n",
            b"\r\n",
            b"\n",
            b"0\r\n\r\n",
            b"PRI * HTTP/2.0\r\n",
            b": ",
            b"identity",
            b", ",
            b";",
            b"\0",
            b"Expect: 100-continue\r\n",
        ],
    },
    Target {
        name: "admin-line",
        run: admin_line::run,
        words: &[
            b"{\"verb\":\"get\"",
            b"\"body\":",
            b"{",
            b"}",
            b"[",
            b"]",
            b"\n",
            b"\"",
            b"null",
            b"\\u0000",
            b"1e400",
        ],
    },
    Target {
        name: "ext-authz",
        run: ext_authz::run,
        words: &[
            b"\x0a\x00",
            b"\x0a\x02\x08\x07",
            b"\x1a",
            b"\x12",
            b"\x0a\x17x-forwarded-client-cert",
            b"\x0a\x17x_forwarded_client_cert",
            b"\x0a\x04host",
            b"\x0a\x05:path",
            b"\x0a\x0econtent-length",
            b"\x0a\x0bgrpc-status",
            b"\x12\x02\x08\x01",
            b"\x18\x03",
            b"\r\n",
            b"%62",
        ],
    },
    Target {
        name: "path",
        run: path,
        words: &[
            b"/", b"//", b"%2f", b"%2F", b"%5c", b"%00", b"%25", b"..", b".", b"?", b"#", b";", b"\\",
            b"%2e", b"%",
        ],
    },
    Target {
        name: "authorize",
        run: decisions::authorize_any,
        words: &[b"\0\0\0\0\0\0\0\0", b"\x06", b"\x07", b"\x01\x02"],
    },
    Target {
        name: "obfuscate",
        run: decisions::obfuscate,
        words: &[
            b"/",
            b"//",
            b"/./",
            b"/../",
            b"/x/../",
            b";x",
            b";",
            b"..;/",
            b"%2f",
            b"%2F",
            b"%5c",
            b"\\",
            b"%2e",
            b"%2e%2e",
            b"%3b",
            b"%25",
            b"%252f",
            b"%25%32%66",
            b"%61",
            b"%41",
            b"%c0%af",
            b"%00",
            b"?",
            b"#",
            b"/admin",
            b"/public",
            b"/files/",
            b"/a/b/secret",
            b"/a/b/open",
            b".key",
            b".html",
            b"A",
            b"%",
            b"%2",
            b"2f",
        ],
    },
    Target {
        name: "csr",
        run: csr,
        words: &[
            b"-----BEGIN CERTIFICATE REQUEST-----\n",
            b"-----END CERTIFICATE REQUEST-----\n",
            b"\x30\x82",
            b"\x06\x03",
            b"\x02\x01\x00",
        ],
    },
    Target {
        name: "nflog",
        run: nflog,
        words: &[b"udp\0", b"bad_l2\0", b"\x08\x00", b"\x08\x00\x0a\x00"],
    },
    Target {
        name: "dns",
        run: dns,
        words: &[
            b"\x07default\x03svc\x07cluster\x05local\0",
            b"\x07httpbin",
            b"\x07in-addr\x04arpa\0",
            b"\x03ip6\x04arpa\0",
            b"\xc0\x0c",
            b"\0\x01\0\x01",
            b"\0\x1c\0\x01",
            b"\0\x21\0\x01",
            b"\0\x0c\0\x01",
            b"\0\0\x29\x10\0\0\0\0\0\0\0",
        ],
    },
    Target {
        name: "names",
        run: names,
        words: &[
            b"spiffe://",
            b"/ns/",
            b"/sa/",
            b"cluster.local",
            b"*",
            b".",
            b"::",
            b"/",
            b"%",
            b"10.0.0.0/8",
            b"::ffff:",
        ],
    },
    Target {
        name: "jwt",
        run: tokens::request,
        words: &[
            b"authorization: Bearer ",
            b"\nx-jwt: Tok ",
            b"\ncookie: t=",
            b"?access_token=",
            b"&t=",
            b"OPTIONS ",
            b"\norigin: a\naccess-control-request-method: a\n",
            b"eyJhbGciOiJub25lIn0.",
            b"eyJhbGciOiJIUzI1NiJ9.",
            b"eyJhbGciOiJFUzI1NiJ9.",
            b"e30",
            b".",
            b"=",
            b"%2e",
            b"bearer ",
            b", ",
            b"; ",
            b"\"",
            b"-_",
        ],
    },
    Target {
        name: "jwks",
        run: tokens::keys,
        words: &[
            b"{\"keys\":[",
            b"]}",
            b"\"kty\":\"RSA\",",
            b"\"kty\":\"EC\",",
            b"\"kty\":\"OKP\",",
            b"\"kty\":\"oct\",",
            b"\"crv\":\"P-521\",",
            b"\"crv\":\"Ed25519\",",
            b"\"alg\":\"PS512\",",
            b"\"use\":\"enc\",",
            b"\"key_ops\":[],",
            b"\"kid\":1,",
            b"\"x\":\"AA\",",
            b"\"e\":\"Aw\"",
            b"},{",
            b"null",
            b"\\u0061",
        ],
    },
];

fn yaml(input: &[u8]) {
    let parsed = api::parse("input.yaml", input);
    for object in &parsed.objects {
        let _ = (object.reference(), object.span("spec.rules[0].from[0]"));
    }
    for problem in &parsed.problems {
        let line = problem.one_line();
        assert!(!line.contains('\n'), "a problem of more than one line: {line:?}");
    }
}

fn xds(input: &[u8]) {
    let Ok(response) = DeltaDiscoveryResponse::decode(input) else {
        return;
    };
    let mut held = xds::client::Held::default();
    if let Ok(received) = held.receive(&response) {
        held.keep(received);
        // The same once more changes nothing.
        let again = held.receive(&response);
        let again = again.unwrap_or_else(|e| panic!("taken once and not twice: {e}"));
        assert_eq!(again.resources.len(), held.resources().len());
    }
}

/// What a control plane might send once its frames and versions are right.
fn snapshot(input: &[u8]) {
    let Ok(list) = serde_json::from_slice::<Vec<Resource>>(input) else {
        return;
    };
    let mut resources = Resources::default();
    for resource in list {
        resources.insert(Arc::new(resource));
    }
    let none = Resources::default();
    assert_eq!(none.apply(&none.diff(&resources)), resources);
    let _ = Index::build(&resources);
}

fn client_hello(input: &[u8]) {
    use identity::sniff::{Sniff, client_hello};
    let whole = client_hello(input);
    let _ = meshward_http::sniff::classify(input);
    // A verdict on the first bytes is not taken back when more come.
    for part in [1, 5, 11, input.len() / 2] {
        let first = input.get(..part).map(client_hello);
        if let Some(verdict @ (Sniff::NotTls | Sniff::ClientHello { .. })) = first {
            assert_eq!(verdict, whole, "of {part} bytes");
        }
    }
}

/// How bytes arrive makes no difference: all at once, or in pieces.
fn http1(input: &[u8]) {
    let whole = feed(input, usize::MAX);
    for piece in [1, 7] {
        // Byte by byte is quadratic: not for long inputs.
        if input.len() <= 2048 {
            assert_eq!(feed(input, piece), whole, "in pieces of {piece}");
        }
    }
}

/// How many bytes are handed on, and the fault that ends it.
fn feed(input: &[u8], piece: usize) -> (usize, Option<Fault>) {
    let mut front = Front::default();
    let (mut done, mut shown) = (0, 0);
    while shown < input.len() {
        shown = shown.saturating_add(piece).min(input.len());
        loop {
            let rest = input.get(done..shown).unwrap_or_default();
            match front.advance(rest) {
                Err(fault) => return (done, Some(fault)),
                Ok(taken) => {
                    assert!(taken <= rest.len(), "{taken} of {} bytes", rest.len());
                    done += taken;
                    if front.undecided() {
                        front.decide(false);
                    } else if taken == 0 {
                        break;
                    }
                }
            }
        }
    }
    (done, None)
}

/// What the strict profile lets through has one form: to bring it into that once more changes nothing.
/// (Without it `/%2e;a` becomes `/.;a`, and that `/`: what others' proxies were seen to do.)
fn path(input: &[u8]) {
    let strict = strict_check(input).is_ok();
    for mode in [
        Mode::None,
        Mode::Base,
        Mode::MergeSlashes,
        Mode::DecodeAndMergeSlashes,
    ] {
        let once = normalize(input, mode);
        assert_eq!(explain(input, mode).is_ok(), once.is_ok(), "{mode:?}");
        if let Ok(once) = once
            && strict
        {
            let twice = normalize(once.as_bytes(), mode);
            assert_eq!(twice.as_deref(), Ok(&*once), "{mode:?} is not stable");
        }
    }
}

struct Authority {
    root: ca::Root,
    id: SpiffeId,
    now: OffsetDateTime,
}

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
    let domain: TrustDomain = "cluster.local".parse().unwrap_or_else(|e| panic!("{e}"));
    let id = "spiffe://cluster.local/ns/a/sa/b".parse();
    let now = OffsetDateTime::now_utc();
    Authority {
        root: ca::Root::generate(&domain, now).unwrap_or_else(|e| panic!("{e}")),
        id: id.unwrap_or_else(|e| panic!("{e}")),
        now,
    }
});

/// The text as it is, or else the bytes as what the text would hold.
fn csr(input: &[u8]) {
    let pem = match std::str::from_utf8(input) {
        Ok(text) if text.contains("-----BEGIN") => text.to_owned(),
        _ => format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            STANDARD.encode(input)
        ),
    };
    let Authority { root, id, now } = &*AUTHORITY;
    let _ = ca::sign(root, id, &pem, 0, Duration::hours(1), *now);
}

static WORLD: LazyLock<Index> = LazyLock::new(|| {
    let text = include_bytes!("../corpus/snapshot/resources");
    let list: Vec<Resource> = serde_json::from_slice(text).unwrap_or_else(|e| panic!("{e}"));
    let mut resources = Resources::default();
    for resource in list {
        resources.insert(Arc::new(resource));
    }
    Index::build(&resources).unwrap_or_else(|e| panic!("{e}"))
});

/// What is answered is an answer, to this question, and no larger than passes everywhere.
fn dns(input: &[u8]) {
    let reply = proxy::dns_reply(input, &WORLD);
    if reply.is_empty() {
        return;
    }
    assert_eq!(reply.get(..2), input.get(..2), "another question's id");
    assert!(reply.get(2).is_some_and(|flags| flags & 0x80 != 0), "no answer");
    assert!(reply.len() <= 1232, "{} bytes", reply.len());
}

fn nflog(input: &[u8]) {
    for report in capture::nflog::parse(input) {
        let _ = report.reason.name();
    }
}

/// What was parsed is written in a form that parses to the same.
fn names(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(id) = text.parse::<SpiffeId>() {
        assert_eq!(id.to_string().parse().ok(), Some(id), "{text:?}");
    }
    if let Ok(host) = text.parse::<Host>() {
        assert_eq!(host.to_string().parse().ok(), Some(host), "{text:?}");
    }
    if let Ok(cidr) = text.parse::<Cidr>() {
        assert_eq!(cidr.to_string().parse().ok(), Some(cidr), "{text:?}");
    }
    if let Ok(domain) = text.parse::<TrustDomain>() {
        assert_eq!(domain.to_string().parse().ok(), Some(domain), "{text:?}");
    }
    let _ = api::duration_ms(text);
}
