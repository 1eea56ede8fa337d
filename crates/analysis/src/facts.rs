//! A question as the decision looks at it.

use jwt::Edits;
use model::SpiffeId;
use policy::{Claim, ClaimLookup, HeaderLookup};
use serde_json::Value;
use snapshot::{Mesh, XfccMode};

use crate::question::Headers;

const CLIENT_CERT: &str = "x-forwarded-client-cert";
const FORWARDED_FOR: &str = "x-forwarded-for";

/// The hash of a certificate that nobody has: what a real one is, only the handshake shows.
const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The header fields that are left when a proxy has taken away what speaks for proxies, and has said itself who calls.
pub(crate) struct Fields<'q> {
    headers: &'q Headers<'q>,
    strict: bool,
    xfcc: XfccMode,
    peer: Option<&'q SpiffeId>,
    own: Option<&'q SpiffeId>,
    edits: Edits,
}

impl<'q> Fields<'q> {
    pub(crate) fn new(
        headers: &'q Headers<'q>,
        mesh: &Mesh,
        peer: Option<&'q SpiffeId>,
        own: Option<&'q SpiffeId>,
    ) -> Self {
        Self {
            headers,
            strict: mesh.strict_hosts,
            xfcc: mesh.xfcc,
            peer,
            own,
            edits: Edits::default(),
        }
    }

    /// What request authentication changes.
    pub(crate) fn edit(&mut self, edits: Edits) {
        self.edits = edits;
    }

    fn values<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        let fields = self
            .headers
            .0
            .iter()
            .filter(move |(key, _)| key.eq_ignore_ascii_case(name));
        fields.flat_map(|(_, values)| values).map(|value| &**value)
    }

    /// X-Forwarded-Client-Cert as the application gets it, but for the certificate's hash; `None` for plaintext (5.6).
    fn client_cert(&self) -> Option<String> {
        let peer = self.peer?;
        let by = self.own.map(|own| format!("By={own};")).unwrap_or_default();
        let element = format!("{by}Hash={NO_HASH};Subject=\"\";URI={peer}");
        Some(match self.xfcc {
            XfccMode::SanitizeSet => element,
            XfccMode::AppendForward => self
                .values(CLIENT_CERT)
                .chain([&*element])
                .collect::<Vec<_>>()
                .join(","),
        })
    }
}

impl HeaderLookup for Fields<'_> {
    fn any(&self, name: &str, visit: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        if name == CLIENT_CERT {
            return self.client_cert().is_some_and(|value| visit(value.as_bytes()));
        }
        let set = self.edits.set.iter().filter(|(own, _)| own == name);
        if set.map(|(_, value)| value).any(|value| visit(value.as_bytes())) {
            return true;
        }
        if self.edits.removes(name, self.strict) {
            return false;
        }
        let mut values = self.values(name).peekable();
        if values.peek().is_none() || policy::speaks_for_proxy(name, self.strict) {
            return false;
        }
        values.any(|value| visit(value.as_bytes()))
    }
}

/// The right-most entry of X-Forwarded-For, which Istio's sidecars believe (R10).
pub(crate) fn forwarded_for(headers: &Headers<'_>) -> Option<std::net::IpAddr> {
    let mut named = headers
        .0
        .iter()
        .filter(|(key, _)| key.eq_ignore_ascii_case(FORWARDED_FOR));
    let last = named.next_back()?.1.last()?;
    let address = last.rsplit(',').next()?.trim().parse().ok()?;
    Some(model::canonical_ip(address))
}

pub(crate) struct Claims<'q>(pub(crate) &'q Value);

impl ClaimLookup for Claims<'_> {
    fn any(&self, path: &[String], visit: &mut dyn FnMut(Claim<'_>) -> bool) -> bool {
        let mut at = self.0;
        for key in path {
            match at.get(key) {
                Some(next) => at = next,
                None => return false,
            }
        }
        let mut one = |value: &Value| match value {
            Value::String(text) => visit(Claim::Text(text)),
            Value::Number(_) | Value::Bool(_) => visit(Claim::Scalar(&value.to_string())),
            Value::Null | Value::Array(_) | Value::Object(_) => false,
        };
        match at {
            Value::Array(items) => items.iter().any(one),
            other => one(other),
        }
    }
}
