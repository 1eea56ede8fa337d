//! What is looked at of a request, and what may become of it.

/// What is looked at of a request.
pub trait RequestView {
    /// The method.
    fn method(&self) -> &str;
    /// Path and query as routing sees them.
    fn path(&self) -> &str;
    /// `:authority` or Host.
    fn authority(&self) -> &str;
    /// Calls `visit` with each line of a header (name in lower case) until it returns `true`; returns whether it did.
    fn header(&self, name: &str, visit: &mut dyn FnMut(&[u8]) -> bool) -> bool;
}

/// What changes in a request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Edits {
    /// Headers that are removed first, whatever the sender put there. Lower case, each once.
    pub remove: Vec<String>,
    /// Headers that are set after that: names in lower case, each once; values free of control characters, possibly not
    /// ASCII.
    pub set: Vec<(String, String)>,
    /// The new path and query, where a token was taken out of it.
    pub path: Option<String>,
}

impl Edits {
    /// Whether a header that came is taken away. In strict mode one that an application may read as one of those goes with
    /// them: many an application reads `_` as `-`.
    pub fn removes(&self, name: &str, strict: bool) -> bool {
        let same = |own: &String| {
            own.eq_ignore_ascii_case(name)
                || (strict
                    && own
                        .replace('_', "-")
                        .eq_ignore_ascii_case(&name.replace('_', "-")))
        };
        self.remove.iter().any(same)
    }
}

/// Whether it is a CORS preflight, in Envoy's reading: OPTIONS with Origin and Access-Control-Request-Method.
pub(crate) fn is_preflight(request: &dyn RequestView) -> bool {
    let said = |name: &str| request.header(name, &mut |value| !value.is_empty());
    request.method() == "OPTIONS" && said("origin") && said("access-control-request-method")
}

/// Headers that tokens and claims never touch: they frame the message, route it, or say who the peer is.
const RESERVED: &[&str] = &[
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-client-cert",
];

/// The name in lower case, where it is one that may be set and removed.
pub(crate) fn editable(name: &str) -> Option<String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let name = name.to_ascii_lowercase();
    (!name.is_empty() && name.bytes().all(token) && !RESERVED.contains(&name.as_str())).then_some(name)
}
