//! What is known of a connection or a request when it is decided.

use std::net::IpAddr;

use model::SpiffeId;

/// All that a decision may look at. Borrowed: building it allocates nothing.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The identity that the peer proved by mutual TLS; `None` for plaintext and for TLS that was not terminated.
    pub peer: Option<&'a SpiffeId>,
    /// The address of the directly connected peer (`source.ip`), v4-mapped addresses unmapped.
    pub source_ip: IpAddr,
    /// The original client as far as it is believed (`remote.ip`, semantics 2.9).
    pub remote_ip: IpAddr,
    /// The workload's address that was dialled (`destination.ip`).
    pub destination_ip: IpAddr,
    /// The workload port, never the Service port (`destination.port`).
    pub destination_port: u16,
    /// SNI of the terminated handshake (`connection.sni`).
    pub sni: Option<&'a str>,
    /// The request; `None` where the connection is opaque TCP, and then 2.11 applies.
    pub http: Option<HttpFacts<'a>>,
}

/// What is known of an HTTP request.
#[derive(Clone, Copy)]
pub struct HttpFacts<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// `:authority` or Host, as sent, with its port.
    pub authority: &'a str,
    /// The path with its query, normalised by the mesh's mode: the very value that routing sees and the backend receives.
    pub path: &'a str,
    /// The other header fields.
    pub headers: &'a dyn HeaderLookup,
    /// The claims of the verified token; `None` where the request carries none (RP-13).
    pub claims: Option<&'a dyn ClaimLookup>,
}

impl std::fmt::Debug for HttpFacts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpFacts")
            .field("method", &self.method)
            .field("authority", &self.authority)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Header fields by name. `name` is given in lower case; each value is visited as it stood on its own line.
pub trait HeaderLookup {
    /// Calls `visit` with each value of the field until it returns `true`; returns whether it did.
    fn any(&self, name: &str, visit: &mut dyn FnMut(&[u8]) -> bool) -> bool;

    /// Whether the field occurs at all.
    fn present(&self, name: &str) -> bool {
        self.any(name, &mut |_| true)
    }
}

/// The claims of a verified token.
pub trait ClaimLookup {
    /// Calls `visit` with the value at `path` (`["realm_access", "roles"]`), or with each element where it is a
    /// list, until it returns `true`; returns whether it did. Objects are not visited.
    fn any(&self, path: &[String], visit: &mut dyn FnMut(Claim<'_>) -> bool) -> bool;
}

/// One value of a claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim<'a> {
    /// A string.
    Text(&'a str),
    /// A number or a boolean in its JSON spelling. Upstream never matches these (R25).
    Scalar(&'a str),
}
