//! Header fields on their way out.

use meshward_http::{HeaderMap, HeaderName, HeaderValue, Request, Version, header, version_of};
use model::Text;
use policy::reads_as;

use super::random;

/// What workloads must not say of themselves: their proxy's word alone counts at the other end (SANITIZE).
const FORWARDED_CLIENT_CERT: &str = "x-forwarded-client-cert";
/// Fields between Envoys.
const ENVOY: &str = "x-envoy-";
/// Those of them that Envoy itself never passes on.
const NEVER_PASSED: [&str; 2] = ["x-envoy-retry-on", "x-envoy-internal"];
pub(crate) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Fields that belong to one connection (RFC 9110, 7.6.1).
static HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::TE,
    header::UPGRADE,
];

/// What a request that asks for an upgrade asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asks {
    Nothing,
    WebSocket,
    Other,
}

pub(crate) fn asks(request: &Request) -> Asks {
    let mut wanted = request.headers().get_all(header::UPGRADE).iter();
    match (version_of(request), wanted.next(), wanted.next()) {
        (Version::Http2, ..) | (_, None, _) => Asks::Nothing,
        // Who does not name it in Connection does not ask, or not us (RFC 9110, 7.8): it came by somebody who passed on
        // what he did not understand, and who would take what follows an upgrade for HTTP.
        _ if !connection(request.headers()).any(|option| option.eq_ignore_ascii_case("upgrade")) => {
            Asks::Nothing
        }
        (_, Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"websocket") => Asks::WebSocket,
        // Nobody has to take the offer of HTTP/2.
        (_, Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"h2c") => Asks::Nothing,
        _ => Asks::Other,
    }
}

/// Whether the caller speaks gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value.starts_with(b"application/grpc") && !value.starts_with(b"application/grpc-web")
    })
}

/// Makes the fields of a request those of the next hop, and returns its id.
pub(crate) fn outgoing(headers: &mut HeaderMap, upgrade: bool, strict: bool) -> Text {
    silence(headers, strict);
    // The codec has promised the caller its `100 Continue`; nobody after it is asked.
    headers.remove(header::EXPECT);
    leave_hop(headers, upgrade);
    if strict || !headers.contains_key(&FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO.clone(), HeaderValue::from_static("http"));
    }
    identified(headers)
}

/// Makes the fields of a request those that an application gets, and returns its id. Who calls is said elsewhere.
pub(crate) fn incoming(headers: &mut HeaderMap, upgrade: bool, strict: bool) -> Text {
    headers.remove(header::EXPECT);
    leave_hop(headers, upgrade);
    if strict || !headers.contains_key(&FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO.clone(), HeaderValue::from_static("http"));
    }
    identified(headers)
}

/// The id of a request, made where it has none.
fn identified(headers: &mut HeaderMap) -> Text {
    match headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok()) {
        Some(id) if !id.is_empty() => id.into(),
        _ => {
            let id = request_id();
            if let Ok(value) = HeaderValue::from_bytes(&id) {
                headers.insert(REQUEST_ID.clone(), value);
            }
            std::str::from_utf8(&id).unwrap_or_default().into()
        }
    }
}

/// The request in the version of the connection that it goes by, its framing said where the codec would guess it.
pub(crate) fn versioned(mut request: Request, version: Version) -> Request {
    let unsized_body = !request.body().is_over() && !request.headers().contains_key(header::CONTENT_LENGTH);
    match version {
        Version::Http1 => {
            *request.version_mut() = http::Version::HTTP_11;
            // Without it the body of a GET would be taken for none.
            if unsized_body {
                let chunked = HeaderValue::from_static("chunked");
                request.headers_mut().insert(header::TRANSFER_ENCODING, chunked);
            }
        }
        Version::Http2 => {
            *request.version_mut() = http::Version::HTTP_2;
            request.headers_mut().remove(header::TRANSFER_ENCODING);
        }
    }
    request
}

/// The status of gRPC that stands for one of HTTP.
pub(crate) fn grpc_status(status: u16) -> u32 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// An answer of gRPC in trailers-only form.
pub(crate) fn grpc_answer(status: u16, text: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(grpc_status(status)));
    if let Ok(text) = HeaderValue::try_from(text.replace('%', "%25"))
        && !text.is_empty()
    {
        headers.insert("grpc-message", text);
    }
    headers
}

/// Removes what a workload says in its proxy's place (O-15). Many a backend reads `_` as `-`, so both are the same here.
fn silence(headers: &mut HeaderMap, strict: bool) {
    let speaks_for_proxy = |name: &HeaderName| {
        // All of them begin so; most others do not, and are not looked at any further.
        if !name.as_str().starts_with('x') {
            return false;
        }
        let name = name.as_str();
        reads_as(name, FORWARDED_CLIENT_CERT)
            || (strict
                && name
                    .get(..ENVOY.len())
                    .is_some_and(|begin| reads_as(begin, ENVOY)))
            || NEVER_PASSED.iter().any(|never| reads_as(name, never))
    };
    let names: Vec<HeaderName> = headers.keys().filter(|n| speaks_for_proxy(n)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Removes what belongs to the connection that the message came by. An upgrade keeps asking for itself.
pub(crate) fn leave_hop(headers: &mut HeaderMap, upgrade: bool) {
    if !headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        return;
    }
    let named: Vec<HeaderName> = connection(headers).filter_map(|name| name.parse().ok()).collect();
    let trailers = headers
        .get_all(header::TE)
        .iter()
        .any(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    let wanted = headers.get(header::UPGRADE).cloned().filter(|_| upgrade);
    for name in named {
        headers.remove(name);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if let Some(wanted) = wanted {
        headers.insert(header::UPGRADE, wanted);
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    }
}

/// The options of the connection that the message came by.
fn connection(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::CONNECTION).into_iter();
    let texts = lines.filter_map(|value| value.to_str().ok());
    texts.flat_map(|value| value.split(',')).map(str::trim)
}

/// A random UUID (RFC 9562, version 4), as text.
fn request_id() -> [u8; 36] {
    let mut bytes: [u8; 16] = random::bytes();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let mut id = [b'-'; 36];
    let mut digits = id.iter_mut();
    for (at, byte) in bytes.into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            digits.next();
        }
        for digit in [byte >> 4, byte & 15] {
            if let Some(place) = digits.next() {
                *place = if digit < 10 {
                    b'0' + digit
                } else {
                    b'a' + digit - 10
                };
            }
        }
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn o_15_a_workload_cannot_speak_for_its_proxy() {
        let said = [
            ("x-forwarded-client-cert", "By=a"),
            ("x-forwarded-client-cert", "URI=b"),
            ("x_forwarded-client_cert", "URI=c"),
            ("x-envoy-internal", "true"),
            ("x-envoy-original-path", "/a"),
            ("x-forwarded-for", "1.2.3.4"),
        ];
        for (strict, expect) in [
            (true, ["x-forwarded-for"].as_slice()),
            (false, &["x-envoy-original-path", "x-forwarded-for"]),
        ] {
            let mut map = headers(&said);
            silence(&mut map, strict);
            let mut left: Vec<_> = map.keys().map(HeaderName::as_str).collect();
            left.sort_unstable();
            assert_eq!(left, expect);
        }
    }

    #[test]
    fn fields_of_the_connection_stay_behind() {
        let mut map = headers(&[
            ("connection", "keep-alive, x-mine"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("x-yours", "2"),
        ]);
        leave_hop(&mut map, false);
        let left: Vec<_> = map.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-yours", "te"]);
    }

    #[test]
    fn an_upgrade_keeps_asking_for_itself() {
        let mut map = headers(&[
            ("connection", "Upgrade, x-mine"),
            ("upgrade", "websocket"),
            ("x-mine", "1"),
        ]);
        leave_hop(&mut map, true);
        assert_eq!(map["connection"], "Upgrade");
        assert_eq!(map["upgrade"], "websocket");
        assert!(!map.contains_key("x-mine"));
    }

    #[test]
    fn an_upgrade_is_asked_for_by_the_connection_too() {
        for (fields, expect) in [
            (
                [("connection", "x, Upgrade"), ("upgrade", "WebSocket")],
                Asks::WebSocket,
            ),
            ([("connection", "upgrade"), ("upgrade", "spdy")], Asks::Other),
            ([("connection", "upgrade"), ("upgrade", "h2c")], Asks::Nothing),
            (
                [("connection", "keep-alive"), ("upgrade", "websocket")],
                Asks::Nothing,
            ),
            ([("x", "upgrade"), ("upgrade", "spdy")], Asks::Nothing),
        ] {
            let mut request = Request::new(meshward_http::Body::empty());
            *request.headers_mut() = headers(&fields);
            assert_eq!(asks(&request), expect, "{fields:?}");
        }
    }

    #[test]
    fn ids_are_kept_and_made() {
        let mut map = headers(&[("x-request-id", "mine")]);
        assert_eq!(outgoing(&mut map, false, true), "mine");
        let mut map = HeaderMap::new();
        let id = outgoing(&mut map, false, true);
        assert_eq!(map["x-request-id"], id.as_str());
        let hyphens = id.match_indices('-').map(|(at, _)| at);
        assert_eq!(hyphens.collect::<Vec<_>>(), [8, 13, 18, 23]);
        assert_eq!((id.len(), id.as_bytes()[14]), (36, b'4'));
        assert!(matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
        assert_ne!(id, outgoing(&mut HeaderMap::new(), false, true));
    }
}
