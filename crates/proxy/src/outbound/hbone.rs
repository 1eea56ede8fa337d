//! HBONE towards a workload that stands behind a proxy of Istio's ambient mode: a tunnel within mutual TLS to its port 15008.
//!
//! Each tunnel has a connection of its own. What is carried in it is what the caller's application sends, HTTP included.

use std::net::SocketAddr;
use std::time::Duration;

use meshward_http::{Authority, HeaderMap, HeaderValue, TunnelError, header, open_tunnel};
use model::Reason;

use super::answer::Failure;
use super::dial::Link;
use super::hop::{Hop, Tls};
use super::{Client, Outbound};

impl Outbound {
    /// Opens a tunnel to a hop.
    ///
    /// # Errors
    /// There is none, and not a byte of what is to be carried has left.
    pub(super) async fn tunnel(
        &self,
        client: &Client,
        hop: &Hop,
        tls: &Tls,
        limit: Duration,
    ) -> Result<Link, Failure> {
        let to = SocketAddr::new(hop.address.ip(), capture::HBONE_PORT);
        let io = self.open(client, hop, to, limit).await?;
        let outer = Tls {
            // As ztunnel does: who is meant is said by the expected identity alone.
            sni: "".into(),
            ..tls.clone()
        };
        let link = self.secure(client, Some(&outer), io, &[b"h2"]).await?;
        if link.alpn.as_deref() != Some(b"h2") {
            let why = "the other end does not speak HTTP/2 at its port of HBONE";
            return Err(Failure::unreachable(Reason::ProtocolError, why));
        }
        let authority = Authority::try_from(hop.address.to_string())
            .map_err(|_| Failure::unreachable(Reason::ProtocolError, "the address is no authority"))?;
        let opened = open_tunnel(link.io, authority, fields(client)).await;
        let io = opened.map_err(|error| match (link.late.refusal(), &error) {
            (Some(refusal), _) => {
                Failure::unreachable(Reason::TlsHandshake, &format!("TLS error: {refusal}"))
            }
            (None, TunnelError::Refused(_)) => Failure::of(Reason::UpstreamReset).because(&error.to_string()),
            (None, _) => Failure::unreachable(Reason::ConnectFailed, &error.to_string()),
        })?;
        Ok(Link {
            io: Box::new(io),
            peer: link.peer,
            alpn: None,
            late: link.late,
            standing: None,
        })
    }
}

/// What a tunnel tells of its caller, for logs and metrics at the other end.
fn fields(client: &Client) -> HeaderMap {
    let mut fields = HeaderMap::new();
    // An IPv6 address stands in brackets, and both in quotes, because of the colons (RFC 7239, 6).
    if let Ok(value) = HeaderValue::try_from(format!("for=\"{}\"", client.address)) {
        fields.insert(header::FORWARDED, value);
    }
    let source = &client.source;
    let members = [
        ("k8s.namespace.name", &source.namespace),
        ("k8s.deployment.name", &source.workload),
        ("service.name", &source.canonical_name),
        ("service.version", &source.canonical_revision),
    ];
    let baggage = members.map(|(key, value)| format!("{key}={value}")).join(",");
    if let Ok(value) = HeaderValue::try_from(baggage) {
        fields.insert("baggage", value);
    }
    fields
}
