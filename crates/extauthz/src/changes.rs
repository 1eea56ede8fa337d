//! What an admitting answer does to a request, and to the response.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Fields that one answer may set, and names that it may remove.
pub(crate) const MAX_FIELDS: usize = 100;

/// Bytes of all that one answer sets.
pub(crate) const MAX_BYTES: usize = 64 * 1024;

/// Fields that belong to one connection, or frame the message.
const OF_HOP: [&str; 9] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What only the proxy says: many an application reads `_` as `-`, so both are the same here.
const CLIENT_CERT: &str = "x-forwarded-client-cert";
const ENVOY: &str = "x-envoy-";
const DECISION: &str = "x-meshward-";
const NEVER_PASSED: [&str; 2] = ["x-envoy-retry-on", "x-envoy-internal"];
const GRPC_STATUS: [&str; 2] = ["grpc-status", "grpc-message"];
const FORWARDED: [&str; 2] = ["x-forwarded-for", "x-forwarded-proto"];

/// A field that an authorizer sets, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// Its name.
    pub name: HeaderName,
    /// Its value.
    pub value: HeaderValue,
    /// How.
    pub how: How,
}

/// How a field is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// In place of what is there.
    Set,
    /// Behind what is there, on a line of its own.
    Add,
    /// Behind what is there, with a comma, and only where something is.
    Join,
    /// Only where nothing is there.
    IfAbsent,
    /// Only where something is there, in its place.
    IfPresent,
}

/// Why a change cannot be made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unfit {
    /// A name or a value that no field has.
    #[error("the answer has a malformed header field")]
    Malformed,
    /// A pseudo-header or Host: the request would be another one than the one that was routed and decided.
    #[error("the answer sets `{0}`, which is not an authorizer's to change")]
    Routing(String),
    /// More than is taken.
    #[error("the answer sets more than is taken")]
    TooMuch,
    /// A query parameter that cannot stand in a target.
    #[error("the answer has a malformed query parameter")]
    Query,
}

/// What an admitting answer changes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Fields of the request.
    pub request: Vec<Field>,
    /// Fields that are removed from the request.
    pub remove: Vec<HeaderName>,
    /// Fields of the response.
    pub response: Vec<Field>,
    /// Query parameters of the request, in place of those of the same name.
    pub set_query: Vec<(String, String)>,
    /// Query parameters that are removed from the request.
    pub remove_query: Vec<String>,
}

impl Changes {
    /// Whether it is within limits.
    pub(crate) fn checked(self) -> Result<Self, Unfit> {
        let fields = self.request.iter().chain(&self.response);
        let bytes: usize = fields.map(|f| f.name.as_str().len() + f.value.len()).sum();
        let query: usize = self
            .set_query
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        let count = self.request.len()
            + self.response.len()
            + self.remove.len()
            + self.set_query.len()
            + self.remove_query.len();
        if count > MAX_FIELDS || bytes + query > MAX_BYTES {
            return Err(Unfit::TooMuch);
        }
        let fits = |text: &str| {
            let plain = |byte: u8| byte.is_ascii_graphic() && !b"#&\"<>\\^`{|}".contains(&byte);
            text.bytes().all(plain)
        };
        let key = |text: &str| !text.is_empty() && fits(text) && !text.contains('=');
        let set = self
            .set_query
            .iter()
            .all(|(name, value)| key(name) && fits(value));
        if !set || !self.remove_query.iter().all(|name| key(name)) {
            return Err(Unfit::Query);
        }
        Ok(self)
    }

    /// Makes the changes to a request. What only a proxy says stays as it is (O-15); returns the names of such fields.
    /// `strict` as `Mesh::strict_hosts`.
    pub fn request(&self, headers: &mut HeaderMap, strict: bool) -> Vec<HeaderName> {
        let mut ignored = Vec::new();
        let mut may = |name: &HeaderName| {
            let ours = is_of_hop(name) || speaks_for_proxy(name, strict);
            if ours && !ignored.contains(name) {
                ignored.push(name.clone());
            }
            !ours
        };
        for field in &self.request {
            if may(&field.name) {
                field.put(headers);
            }
        }
        for name in &self.remove {
            if *name != header::HOST && may(name) {
                headers.remove(name);
            }
        }
        ignored
    }

    /// Makes the changes to a response.
    pub fn response(&self, headers: &mut HeaderMap) {
        put_all(&self.response, headers);
    }

    /// The target with its query changed; `None` where it stays as it is.
    pub fn target(&self, target: &str) -> Option<String> {
        if self.set_query.is_empty() && self.remove_query.is_empty() {
            return None;
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut parts: Vec<String> = query
            .split('&')
            .filter(|part| !part.is_empty())
            .filter(|part| {
                // A name in disguise is the same name to whoever decodes it.
                let name = decoded(part.split_once('=').map_or(*part, |(name, _)| name));
                let set = self.set_query.iter().any(|(key, _)| decoded(key) == name);
                !set && !self.remove_query.iter().any(|key| decoded(key) == name)
            })
            .map(str::to_owned)
            .collect();
        for (key, value) in &self.set_query {
            if !self.remove_query.contains(key) {
                parts.push(format!("{key}={value}"));
            }
        }
        let changed = if parts.is_empty() {
            path.to_owned()
        } else {
            format!("{path}?{}", parts.join("&"))
        };
        (changed != target).then_some(changed)
    }
}

impl Field {
    pub(crate) fn put(&self, headers: &mut HeaderMap) {
        let present = headers.contains_key(&self.name);
        match self.how {
            How::Set => drop(headers.insert(&self.name, self.value.clone())),
            How::Add => drop(headers.append(&self.name, self.value.clone())),
            How::IfAbsent if !present => drop(headers.insert(&self.name, self.value.clone())),
            How::IfPresent if present => drop(headers.insert(&self.name, self.value.clone())),
            How::Join if present => {
                let mut bytes = Vec::new();
                for value in headers.get_all(&self.name) {
                    bytes.extend_from_slice(value.as_bytes());
                    bytes.push(b',');
                }
                bytes.extend_from_slice(self.value.as_bytes());
                if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                    headers.insert(&self.name, value);
                }
            }
            How::IfAbsent | How::IfPresent | How::Join => {}
        }
    }
}

/// Sets fields of a response, but for those that frame it, those that are the proxy's own, and gRPC's status: what was
/// refused must not look like success.
pub(crate) fn put_all(fields: &[Field], headers: &mut HeaderMap) {
    for field in fields {
        let name = field.name.as_str();
        let ours = name.starts_with(DECISION) || GRPC_STATUS.contains(&name);
        if !is_of_hop(&field.name) && !ours {
            field.put(headers);
        }
    }
}

/// Whether a field belongs to one connection, or frames the message.
pub(crate) fn is_of_hop(name: &HeaderName) -> bool {
    OF_HOP.contains(&name.as_str())
}

fn speaks_for_proxy(name: &HeaderName, strict: bool) -> bool {
    let dashed = name.as_str().replace('_', "-");
    dashed == CLIENT_CERT
        || dashed.starts_with(DECISION)
        || NEVER_PASSED.contains(&dashed.as_str())
        || (strict && (dashed.starts_with(ENVOY) || FORWARDED.contains(&dashed.as_str())))
}

/// A name of a query as a server reads it.
fn decoded(text: &str) -> Vec<u8> {
    let hex = |byte: Option<&u8>| byte.and_then(|b| char::from(*b).to_digit(16));
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let pair = (hex(bytes.get(at + 1)), hex(bytes.get(at + 2)));
        match (byte, pair) {
            (b'%', (Some(high), Some(low))) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 3;
            }
            (b'+', _) => {
                out.push(b' ');
                at += 1;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &'static str, value: &'static str, how: How) -> Field {
        Field {
            name: HeaderName::from_static(name),
            value: HeaderValue::from_static(value),
            how,
        }
    }

    fn lines(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn fields_are_set_as_envoy_sets_them() {
        let mut headers = HeaderMap::new();
        for name in ["a", "b", "c", "d", "e"] {
            headers.append(name, HeaderValue::from_static("old"));
        }
        let changes = Changes {
            request: vec![
                field("a", "new", How::Set),
                field("b", "new", How::Add),
                field("c", "new", How::Join),
                field("d", "new", How::IfAbsent),
                field("e", "new", How::IfPresent),
                field("f", "new", How::Set),
                field("g", "new", How::Add),
                field("h", "new", How::Join),
                field("i", "new", How::IfAbsent),
                field("j", "new", How::IfPresent),
            ],
            remove: vec![HeaderName::from_static("g")],
            ..Changes::default()
        };
        assert_eq!(changes.request(&mut headers, true), Vec::<HeaderName>::new());
        assert_eq!(
            lines(&headers),
            [
                "a=new",
                "b=new",
                "b=old",
                "c=old,new",
                "d=old",
                "e=new",
                "f=new",
                "i=new"
            ]
        );
    }

    #[test]
    fn o_15_an_authorizer_cannot_speak_for_a_proxy() {
        let names = [
            "x-forwarded-client-cert",
            "x_forwarded_client_cert",
            "x-envoy-internal",
            "x-envoy-peer-metadata",
            "x-forwarded-for",
            "x-meshward-decision",
            "connection",
            "content-length",
            "transfer-encoding",
        ];
        let changes = Changes {
            request: names.iter().map(|name| field(name, "forged", How::Set)).collect(),
            remove: names.iter().map(|name| HeaderName::from_static(name)).collect(),
            ..Changes::default()
        };
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-client-cert", HeaderValue::from_static("By=true"));
        headers.insert("content-length", HeaderValue::from_static("3"));
        let before = headers.clone();
        assert_eq!(changes.request(&mut headers, true).len(), names.len());
        assert_eq!(headers, before);
        let mut headers = HeaderMap::new();
        changes.request(&mut headers, false);
        // Set, and then removed: both are what Istio's proxy would do.
        assert_eq!(lines(&headers), Vec::<String>::new());
    }

    #[test]
    fn query_parameters_are_set_and_removed_by_whatever_name_they_go() {
        let changes = Changes {
            set_query: vec![("a".to_owned(), "1".to_owned())],
            remove_query: vec!["b".to_owned()],
            ..Changes::default()
        };
        for (target, expect) in [
            ("/x", Some("/x?a=1")),
            ("/x?a=0&c=2&b=3", Some("/x?c=2&a=1")),
            ("/x?%61=0&%62=1&c", Some("/x?c&a=1")),
            ("/x?a=1", None),
        ] {
            assert_eq!(changes.target(target).as_deref(), expect, "{target}");
        }
        assert_eq!(Changes::default().target("/x?a=0"), None);
    }

    #[test]
    fn what_cannot_stand_in_a_target_is_not_taken() {
        for (key, value) in [
            ("a b", "1"),
            ("a", "1&b=2"),
            ("a", "1#x"),
            ("", "1"),
            ("a=", "1"),
            ("a", "\u{e9}"),
        ] {
            let changes = Changes {
                set_query: vec![(key.to_owned(), value.to_owned())],
                ..Changes::default()
            };
            assert_eq!(changes.checked(), Err(Unfit::Query), "{key} {value}");
        }
        let many = Changes {
            remove: vec![HeaderName::from_static("a"); MAX_FIELDS + 1],
            ..Changes::default()
        };
        assert_eq!(many.checked(), Err(Unfit::TooMuch));
    }
}
