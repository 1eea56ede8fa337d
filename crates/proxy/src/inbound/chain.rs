//! What a connection is taken as: Istio's inbound filter chains as one function (semantics 1.3).

use model::{MtlsMode, Protocol, Reason};

use super::sniff::First;

/// What to do with a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Chain {
    /// End mutual TLS.
    Mesh(Inside),
    /// Read it as HTTP, in plaintext.
    Http,
    /// Pass its bytes; TLS of the application's own stays what it is, and proves nothing.
    Tcp,
    /// Refuse it.
    Refused(Reason, &'static str),
}

/// What is inside mutual TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Inside {
    Http,
    Tcp,
}

const HTTP_ALPN: [&[u8]; 3] = [b"istio-http/1.0", b"istio-http/1.1", b"istio-h2"];
const TCP_ALPN: [&[u8]; 2] = [b"istio-peer-exchange", b"istio"];

/// Chooses by the port's mode and protocol, and by the first bytes.
pub(super) fn select(mode: MtlsMode, protocol: Protocol, first: &First, http10: bool) -> Chain {
    let tls = matches!(first, First::Tls { .. });
    let istio_http = HTTP_ALPN.iter().any(|alpn| first.offers(alpn));
    let istio_tcp = TCP_ALPN.iter().any(|alpn| first.offers(alpn));
    let plain_http = match first {
        First::Http => true,
        First::Http10 => http10,
        _ => false,
    };
    let strict = mode == MtlsMode::Strict;
    match (mode, protocol) {
        (_, Protocol::Udp) => Chain::Refused(Reason::NoRoute, "the port is declared as UDP"),
        (MtlsMode::Strict, _) if !tls => Chain::Refused(
            Reason::PlaintextRefused,
            match first {
                First::Silent => "no TLS came in time to a port that demands it",
                _ => "plaintext to a port that demands mutual TLS",
            },
        ),
        (MtlsMode::Strict | MtlsMode::Permissive, p) if p.is_http() && tls => {
            if strict || istio_http || istio_tcp {
                Chain::Mesh(Inside::Http)
            } else {
                Chain::Refused(
                    Reason::NoFilterChain,
                    "TLS without a protocol of the mesh's to a port that is declared HTTP",
                )
            }
        }
        (_, p) if p.is_http() => Chain::Http,
        (MtlsMode::Strict, p) if p.is_opaque() => Chain::Mesh(Inside::Tcp),
        (MtlsMode::Permissive, p) if p.is_opaque() && (istio_http || istio_tcp) => Chain::Mesh(Inside::Tcp),
        (_, p) if p.is_opaque() => Chain::Tcp,
        // Not declared.
        (MtlsMode::Disable, _) if plain_http => Chain::Http,
        (MtlsMode::Disable, _) => Chain::Tcp,
        (_, _) if istio_http => Chain::Mesh(Inside::Http),
        (_, _) if istio_tcp || (strict && tls) => Chain::Mesh(Inside::Tcp),
        (_, _) if plain_http => Chain::Http,
        (_, _) => Chain::Tcp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Chain::{Http as H, Tcp as T};
    use MtlsMode::{Disable, Permissive, Strict};

    const M: Chain = Chain::Mesh(Inside::Http);
    const N: Chain = Chain::Mesh(Inside::Tcp);

    fn tls(alpn: &[&str]) -> First {
        First::Tls {
            sni: None,
            alpn: alpn.iter().map(|a| a.as_bytes().to_vec()).collect(),
        }
    }

    /// `None` stands for a refusal.
    fn check(id: &str, first: &First, protocol: Protocol, expect: [Option<Chain>; 3]) {
        for (mode, expect) in [Disable, Permissive, Strict].into_iter().zip(expect) {
            let got = select(mode, protocol, first, false);
            let got = Some(got).filter(|c| !matches!(c, Chain::Refused(..)));
            assert_eq!(got, expect, "{id} {mode}");
        }
    }

    #[test]
    fn mt_01_to_23() {
        use Protocol::{Auto, Http, Tcp};
        let (raw, http) = (First::Other, First::Http);
        let (foreign, none) = (tls(&["h2", "http/1.1"]), tls(&[]));
        let (istio_tcp, istio_http) = (tls(&["istio"]), tls(&["istio-http/1.1"]));
        check("MT-01", &raw, Tcp, [Some(T), Some(T), None]);
        check("MT-02", &http, Tcp, [Some(T), Some(T), None]);
        check("MT-03", &none, Tcp, [Some(T), Some(T), Some(N)]);
        check("MT-04", &foreign, Tcp, [Some(T), Some(T), Some(N)]);
        check("MT-05", &istio_tcp, Tcp, [Some(T), Some(N), Some(N)]);
        check("MT-06", &istio_http, Tcp, [Some(T), Some(N), Some(N)]);
        check("MT-07", &http, Http, [Some(H), Some(H), None]);
        // In DISABLE the codec refuses the bytes; in STRICT the handshake fails without a certificate.
        check("MT-08", &none, Http, [Some(H), None, Some(M)]);
        check("MT-09", &foreign, Http, [Some(H), None, Some(M)]);
        check("MT-10", &istio_http, Http, [Some(H), Some(M), Some(M)]);
        check("MT-11", &raw, Http, [Some(H), Some(H), None]);
        check("MT-12 MT-13 MT-19", &http, Auto, [Some(H), Some(H), None]);
        check("MT-14 MT-20", &raw, Auto, [Some(T), Some(T), None]);
        check("MT-15 MT-21", &none, Auto, [Some(T), Some(T), Some(N)]);
        check("MT-16 MT-22", &foreign, Auto, [Some(T), Some(T), Some(N)]);
        check("MT-17 MT-23", &istio_tcp, Auto, [Some(T), Some(N), Some(N)]);
        check("MT-18 MT-23", &istio_http, Auto, [Some(T), Some(M), Some(M)]);
    }

    #[test]
    fn strict_never_takes_what_is_not_tls() {
        for protocol in [
            Protocol::Http,
            Protocol::Grpc,
            Protocol::Tcp,
            Protocol::Tls,
            Protocol::Auto,
        ] {
            for first in [
                First::Http,
                First::Http10,
                First::Other,
                First::Silent,
                First::Ended,
            ] {
                let got = select(Strict, protocol, &first, true);
                assert!(
                    matches!(got, Chain::Refused(Reason::PlaintextRefused, _)),
                    "{protocol:?} {first:?}"
                );
            }
        }
    }

    #[test]
    fn http_1_0_is_http_where_it_is_wanted() {
        assert_eq!(select(Permissive, Protocol::Auto, &First::Http10, false), T);
        assert_eq!(select(Permissive, Protocol::Auto, &First::Http10, true), H);
        assert_eq!(select(Permissive, Protocol::Http, &First::Http10, false), H);
    }
}
