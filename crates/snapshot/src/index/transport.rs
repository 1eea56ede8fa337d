//! How a client's proxy speaks to an endpoint (semantics 1.6).

use model::Reason;

use crate::ClientTls;

/// What goes over the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// What the application sent, as it is.
    Plaintext,
    /// Mutual TLS of the mesh, with the workload's certificate; the peer must prove an identity that is expected.
    Mutual,
    /// Nothing: the connection is refused.
    Refused(Reason),
}

impl Transport {
    /// Decides for one endpoint: `tls` is what a DestinationRule demands, `accepts_mtls` what the endpoint says
    /// of itself ([`crate::Endpoint::accepts_mtls`], [`crate::Workload::accepts_mtls`]).
    pub fn select(auto_mtls: bool, tls: Option<&ClientTls>, accepts_mtls: bool) -> Self {
        match tls {
            Some(ClientTls::Disable) => Self::Plaintext,
            Some(ClientTls::IstioMutual | ClientTls::Named(_)) => Self::Mutual,
            Some(ClientTls::Unsupported) => Self::Refused(Reason::TlsHandshake),
            None if auto_mtls && accepts_mtls => Self::Mutual,
            None => Self::Plaintext,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cm_01_to_07() {
        let check = |auto, tls, accepts, expect| assert_eq!(Transport::select(auto, tls, accepts), expect);
        check(true, None, true, Transport::Mutual);
        check(true, None, false, Transport::Plaintext);
        check(false, None, true, Transport::Plaintext);
        check(true, Some(&ClientTls::IstioMutual), false, Transport::Mutual);
        check(false, Some(&ClientTls::IstioMutual), true, Transport::Mutual);
        check(true, Some(&ClientTls::Disable), true, Transport::Plaintext);
    }

    #[test]
    fn gw_44_settings_without_meaning_never_become_plaintext() {
        for accepts in [true, false] {
            let got = Transport::select(true, Some(&ClientTls::Unsupported), accepts);
            assert_eq!(got, Transport::Refused(Reason::TlsHandshake));
        }
    }
}
