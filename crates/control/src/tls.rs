//! Who may have a snapshot: a node's proxy, proven by its certificate and by a token that names the node (R39, ID-14).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use admin::trust::{Holding, Leaf};
use identity::token::{AUDIENCE, ISSUER, Verifier};
use identity::{
    CaClient, CertificateAuthority, CertificateStatus, Clock, Store, StoreOptions, SystemClock, TokenFile,
};
use model::SpiffeId;
use tokio::net::TcpStream;
use xds::server::Authenticate;

use crate::config::{Config, NODE_ACCOUNT, OWN_ACCOUNT, SYSTEM_NAMESPACE};

/// The service account of the certificate authority.
const CA_ACCOUNT: &str = "ca";
/// What is spoken over TLS.
const ALPN: &[&[u8]] = &[b"h2"];
/// How long to wait before asking for our certificate again, where the CA said no.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// The largest set of keys, in bytes.
const MAX_KEYS: u64 = 256 * 1024;

fn id(config: &Config, account: &str) -> Result<SpiffeId, String> {
    SpiffeId::new(config.trust_domain.clone(), SYSTEM_NAMESPACE, account).map_err(|error| error.to_string())
}

/// The certificate service of the mesh.
///
/// # Errors
/// Its identity cannot be made.
pub(crate) fn authority(config: &Config) -> Result<CaClient, String> {
    Ok(CaClient::new(
        config.ca,
        config.roots.clone(),
        id(config, CA_ACCOUNT)?,
    ))
}

/// Our own certificate, and how peers are judged.
#[derive(Debug)]
pub(crate) struct Gate {
    store: Store,
    own: SpiffeId,
    node: SpiffeId,
    token: TokenFile,
    token_keys: PathBuf,
}

impl Gate {
    /// A gate that lets nobody in until it has roots and [`Self::enter`] has had a certificate.
    ///
    /// # Errors
    /// An identity cannot be made.
    pub(crate) fn new(config: &Config, authority: Arc<dyn CertificateAuthority>) -> Result<Self, String> {
        let id = |account| id(config, account);
        let store = Store::new(authority, StoreOptions::default());
        store.set_trust_domains(config.trust_domain.clone(), Vec::new());
        Ok(Self {
            store,
            own: id(OWN_ACCOUNT)?,
            node: id(NODE_ACCOUNT)?,
            token: TokenFile(config.token.clone()),
            token_keys: config.token_keys.clone(),
        })
    }

    /// Whom peers are verified against.
    ///
    /// # Errors
    /// The text is no bundle; the roots before stay.
    pub(crate) fn set_roots(&self, pem: &str) -> Result<(), String> {
        self.store
            .set_roots(&[pem.to_owned()])
            .map_err(|error| error.to_string())
    }

    /// Has our certificate, however long it takes; the store renews it from then on.
    pub(crate) async fn enter(&self) {
        while let Err(error) = self.store.ensure(&self.own, self.token.clone()).await {
            tracing::warn!("no certificate of my own yet: {error}");
            tokio::time::sleep(ASK_AGAIN).await;
        }
        tracing::info!(id = %self.own, "own certificate");
    }

    /// What we believe and show.
    pub(crate) fn holding(&self) -> Holding {
        let leaf = |one: CertificateStatus| {
            Some(Leaf {
                id: one.id.to_string(),
                root: one.root,
                not_after: one.not_after?,
            })
        };
        Holding {
            roots: self.store.roots(),
            leaves: self.store.status().into_iter().filter_map(leaf).collect(),
        }
    }

    /// The keys are read anew each time: they are few, streams are rare, and a key that was taken out must not count.
    fn verify(&self, token: &str) -> Result<String, String> {
        let text = read_keys(&self.token_keys)?;
        let verifier = Verifier::new(&text, ISSUER, AUDIENCE).map_err(|error| error.to_string())?;
        let now = SystemClock.now().as_secs();
        let claims = verifier.verify(token, now).map_err(|error| error.to_string())?;
        if claims.namespace != SYSTEM_NAMESPACE || claims.service_account != NODE_ACCOUNT {
            return Err(format!(
                "the token is of `{}/{}`, which is no node's",
                claims.namespace, claims.service_account
            ));
        }
        if claims.node.is_empty() {
            return Err("the token names no node".to_owned());
        }
        Ok(claims.node)
    }
}

fn read_keys(path: &std::path::Path) -> Result<String, String> {
    use std::io::Read as _;
    let broken = |error: std::io::Error| format!("token keys `{}`: {error}", path.display());
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(broken)?;
    // What is cut off is no JSON any more.
    file.take(MAX_KEYS).read_to_string(&mut text).map_err(broken)?;
    Ok(text)
}

impl Authenticate for Gate {
    type Io = identity::ServerStream<TcpStream>;
    type Peer = SpiffeId;

    async fn accept(&self, tcp: TcpStream) -> Result<(Self::Io, SpiffeId), String> {
        let accepted = self
            .store
            .accept(&self.own, tcp, ALPN)
            .await
            .map_err(|error| error.to_string())?;
        let peer = accepted.peer.id();
        if *peer != self.node {
            return Err(format!("`{peer}` is no node's proxy"));
        }
        Ok((accepted.stream, self.node.clone()))
    }

    async fn node(&self, _peer: &SpiffeId, token: &str) -> Result<String, String> {
        self.verify(token)
    }
}
