//! TLS of the application's own, with a certificate made at start.

use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use crate::Exit;

/// A self-signed server, HTTP/2 and HTTP/1.1 by ALPN.
pub(super) fn acceptor() -> Result<TlsAcceptor, Exit> {
    let refused = |e: &dyn std::fmt::Display| Exit::usage(format!("no certificate: {e}"));
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "server".to_owned()])
        .map_err(|e| refused(&e))?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| refused(&e))?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .map_err(|e| refused(&e))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
