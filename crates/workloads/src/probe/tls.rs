//! TLS without a client certificate and without judging the server's: what a stranger would try.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{AlertDescription, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::{Ask, Outcome, connect, failure, talk};

pub(super) async fn probe(ask: &Ask) -> Outcome {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let Ok(builder) = builder else {
        return Outcome::word("tls:no-provider");
    };
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    config.alpn_protocols = ask.alpn.iter().map(|a| a.clone().into_bytes()).collect();
    config.enable_sni = ask.sni.is_some();
    let name = ServerName::try_from(ask.sni.clone().unwrap_or_else(|| "probe.invalid".to_owned()));
    let Ok(name) = name else {
        return Outcome::word("tls:bad-name");
    };
    let stream = match connect(ask).await {
        Ok(stream) => stream,
        Err(outcome) => return outcome,
    };
    match TlsConnector::from(Arc::new(config)).connect(name, stream).await {
        Err(error) => Outcome::word(why(&error)),
        // Under TLS 1.3 a server that wants a certificate says so only after the client is content (O-16).
        Ok(stream) => {
            let mut outcome = talk(Alerts(stream), ask).await;
            if outcome.word == "error" {
                outcome.word = "tls:TLSV13_ALERT_CERTIFICATE_REQUIRED".to_owned();
            }
            outcome
        }
    }
}

fn why(error: &std::io::Error) -> String {
    match error.get_ref().and_then(|e| e.downcast_ref::<Error>()) {
        Some(Error::AlertReceived(AlertDescription::CertificateRequired)) => {
            "tls:TLSV13_ALERT_CERTIFICATE_REQUIRED".to_owned()
        }
        Some(Error::AlertReceived(alert)) => format!("tls:{alert:?}"),
        Some(Error::InvalidMessage(_)) => "tls:WRONG_VERSION_NUMBER".to_owned(),
        Some(other) => format!("tls:{other}"),
        None if error.kind() == std::io::ErrorKind::UnexpectedEof => "tls:None".to_owned(),
        None => failure(error).to_owned(),
    }
}

/// Turns an alert that comes as a read error into an error that is told apart from the network's.
struct Alerts<IO>(IO);

impl<IO: tokio::io::AsyncRead + Unpin> tokio::io::AsyncRead for Alerts<IO> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let polled = std::pin::Pin::new(&mut self.0).poll_read(cx, buf);
        polled.map_err(|e| {
            if e.kind() == std::io::ErrorKind::InvalidData {
                std::io::Error::from_raw_os_error(nix::libc::EPROTO)
            } else {
                e
            }
        })
    }
}

impl<IO: tokio::io::AsyncWrite + Unpin> tokio::io::AsyncWrite for Alerts<IO> {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Accepts any server: a probe asks what it gets, not from whom.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        m: &[u8],
        c: &CertificateDer<'_>,
        d: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(m, c, d, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        m: &[u8],
        c: &CertificateDer<'_>,
        d: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(m, c, d, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
