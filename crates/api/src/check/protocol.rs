//! The protocols that a port can be declared to speak (semantics 9), by their names in any case.

use super::at::At;
use crate::report::Report;
use crate::suggest;

const KNOWN: &[&str] = &[
    "HTTP",
    "HTTPS",
    "HTTP2",
    "GRPC",
    "GRPC-WEB",
    "TCP",
    "TLS",
    "UDP",
    "MONGO",
    "REDIS",
    "MYSQL",
    "HTTP_PROXY",
];

pub(super) fn is_known(name: &str) -> bool {
    one_of(name, KNOWN)
}

pub(super) fn is_http(name: &str) -> bool {
    one_of(name, &["HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY"])
}

pub(super) fn is_tls(name: &str) -> bool {
    one_of(name, &["HTTPS", "TLS"])
}

/// Whether it is carried as bytes.
pub(super) fn is_tcp(name: &str) -> bool {
    one_of(name, &["TCP", "HTTPS", "TLS", "MONGO", "REDIS", "MYSQL"])
}

/// An error where the name is there and not known.
pub(super) fn demand(port: &At<'_>, report: &mut Report<'_>) {
    let name = port.text("protocol");
    if !name.is_empty() && !is_known(name) {
        refuse(&port.near("protocol"), report);
    }
}

pub(super) fn refuse(at: &At<'_>, report: &mut Report<'_>) {
    let name = at.own();
    let remedy = suggest::nearest(name, KNOWN.iter().copied()).map_or_else(
        || format!("write one of {}", KNOWN.join(", ")),
        |near| format!("did you mean `{near}`?"),
    );
    at.refuse(report, &format!("the protocol `{name}` is not known"), &remedy);
}

pub(super) fn one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}
