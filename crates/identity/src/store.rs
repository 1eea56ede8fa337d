//! Certificates of the workloads that a proxy stands before: had once, renewed at half life, used for every handshake.
//!
//! One task owns every identity ([`owner`]); handshakes read what it has published and wait for nothing.

mod given;
mod owner;
mod standing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use model::{SpiffeId, TrustDomain};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

use crate::authority::{CertificateAuthority, TokenFile};
use crate::clock::{Clock, SystemClock, Time};
use crate::error::{IssueError, RootsError, TlsError};
use crate::pki::{self, Fingerprint};
use crate::tls::{self, Accepted, Connected, Judged, PeerIdentity};
use crate::verify::{self, Anchors, Peers, Trust, Versions};
use owner::{Command, Owner};
pub use standing::Standing;

/// Commands that wait for the owner.
const QUEUE: usize = 256;

/// How a store works.
#[derive(Clone)]
pub struct StoreOptions {
    /// The lifetime to ask for; zero leaves it to the CA.
    pub lifetime: Duration,
    /// Decides when to renew, and whether certificates are valid.
    pub clock: Arc<dyn Clock>,
    /// Numbers from -1 to 1 that spread renewals and attempts.
    pub jitter: Arc<dyn Fn() -> f64 + Send + Sync>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            lifetime: Duration::ZERO,
            clock: Arc::new(SystemClock),
            jitter: Arc::new(random),
        }
    }
}

impl std::fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreOptions")
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

/// From -1 to 1; 0 where the system gives no random numbers.
fn random() -> f64 {
    let mut bytes = [0; 2];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        return 0.0;
    }
    f64::from(u16::from_be_bytes(bytes)) / f64::from(u16::MAX) * 2.0 - 1.0
}

/// How a certificate stands.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// Whose it is.
    pub id: SpiffeId,
    /// Whether there is one that is valid now.
    pub ready: bool,
    /// The serial number, hex.
    pub serial: Option<String>,
    /// Unix seconds.
    pub not_after: Option<i64>,
    /// The root that it chains to: the fingerprint of what the CA gave as its root, hex.
    pub root: Option<String>,
    /// Why the last attempt failed, if it did.
    pub error: Option<String>,
    /// How many attempts have failed since the last that did not.
    pub failures: u32,
}

/// The store. Cheap to clone; all clones are one. Its task ends with the last of them.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

/// What the owner and the handshakes both see.
pub(crate) struct Shared {
    options: StoreOptions,
    trust: ArcSwap<Trust>,
    /// Written by the owner alone, whole.
    published: ArcSwap<BTreeMap<SpiffeId, Published>>,
}

/// How one identity stands.
#[derive(Clone, Default)]
struct Published {
    current: Option<Arc<Current>>,
    error: Option<IssueError>,
    failures: u32,
}

/// A certificate with its key, and the TLS configurations made from it: made once for each certificate and trust.
struct Current {
    certified: Arc<CertifiedKey>,
    /// What it proves, for a caller of this very proxy.
    peer: PeerIdentity,
    facts: pki::Facts,
    /// The root that the CA gave with it, where it gave one.
    root: Option<Fingerprint>,
    configs: ArcSwapOption<Configs>,
}

struct Configs {
    trust: Arc<Trust>,
    /// SHA-256 of the own leaf.
    leaf: [u8; 32],
    server: ServerConfig,
    client: ClientConfig,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// A store without roots and certificates: every handshake is refused until it has both. To be called within a
    /// tokio runtime, on which its task then runs.
    pub fn new(authority: Arc<dyn CertificateAuthority>, options: StoreOptions) -> Self {
        let shared = Arc::new(Shared {
            options,
            trust: ArcSwap::default(),
            published: ArcSwap::default(),
        });
        let (commands, queue) = mpsc::channel(QUEUE);
        tokio::spawn(Owner::new(authority, Arc::clone(&shared)).run(queue));
        Self { shared, commands }
    }

    /// Sets the roots that peers are verified against, the one that the CA signs by first, and the revocation lists that stand
    /// in the same texts. Where another root becomes the first, certificates of other roots are renewed at once, spread over
    /// a few seconds.
    ///
    /// # Errors
    /// A text is not PEM or holds no certificate, none of the roots can be used, or a list cannot be read; then nothing
    /// changes.
    pub fn set_roots(&self, pem: &[String]) -> Result<(), RootsError> {
        let anchors = Arc::new(Anchors::from_pem(pem)?);
        let mut roots = Vec::new();
        for text in pem {
            roots.extend(pki::certificates(text).map_err(RootsError)?);
        }
        let fingerprints: Arc<[_]> = roots.iter().map(|root| Fingerprint::of(root)).collect();
        let before = self.shared.trust.load().roots.first().copied();
        self.change(|trust| {
            trust.anchors = Arc::clone(&anchors);
            trust.roots = Arc::clone(&fingerprints);
        });
        if before.is_some() && before != fingerprints.first().copied() {
            self.tell(Command::Signer);
        }
        Ok(())
    }

    /// The roots in force, by their fingerprints, hex, in the order of the bundle.
    pub fn roots(&self) -> Vec<String> {
        let trust = self.shared.trust.load();
        trust.roots.iter().map(ToString::to_string).collect()
    }

    /// Tells the owner, now or as soon as it has room.
    fn tell(&self, command: Command) {
        if let Err(mpsc::error::TrySendError::Full(command)) = self.commands.try_send(command) {
            let commands = self.commands.clone();
            tokio::spawn(async move { commands.send(command).await });
        }
    }

    /// Sets whose peers are believed: those of the mesh's trust domain and its aliases (ID-07). Until then, nobody.
    pub fn set_trust_domains(&self, own: TrustDomain, aliases: Vec<TrustDomain>) {
        let domains: std::collections::BTreeSet<_> = [own].into_iter().chain(aliases).collect();
        self.change(|trust| trust.domains.clone_from(&domains));
    }

    /// Demands TLS 1.3, which is the default, or allows 1.2 besides it (`meshMTLS.minProtocolVersion`).
    pub fn set_min_tls(&self, v13_only: bool) {
        self.change(|trust| trust.v12 = !v13_only);
    }

    /// Sets the suites of TLS 1.2 by OpenSSL's names, in order of preference; none leaves them as [`crate::crypto`] has them
    /// (`meshMTLS.cipherSuites`). Names that are not known are passed over.
    pub fn set_suites(&self, suites: &[String]) {
        self.change(|trust| trust.suites = suites.to_vec());
    }

    /// Sets the roots that vouch for peers of one trust domain each, in PEM, and for nobody else (`caCertificates`). The
    /// mesh's own roots go on vouching for its own trust domains. A text that cannot be used is left out; which, and why.
    pub fn set_bundles(&self, bundles: &[(TrustDomain, String)]) -> Vec<RootsError> {
        let mut texts: BTreeMap<TrustDomain, Vec<String>> = BTreeMap::new();
        for (trust_domain, pem) in bundles {
            texts.entry(trust_domain.clone()).or_default().push(pem.clone());
        }
        let (mut taken, mut errors) = (BTreeMap::new(), Vec::new());
        for (trust_domain, pem) in texts {
            match Anchors::from_pem(&pem) {
                Ok(anchors) => drop(taken.insert(trust_domain, anchors)),
                Err(RootsError(why)) => errors.push(RootsError(format!("of `{trust_domain}`: {why}"))),
            }
        }
        let taken = Arc::new(taken);
        self.change(|trust| trust.bundles = Arc::clone(&taken));
        errors
    }

    fn change(&self, edit: impl Fn(&mut Trust)) {
        self.shared.trust.rcu(|trust| trust.changed(&edit));
    }

    /// Sees to it that there is a certificate, and returns once there is. From then on it is renewed at half life,
    /// with the token that the file then holds. Callers at the same time share one attempt.
    ///
    /// While the CA is out of reach or the token is not there yet, this waits and attempts go on: bound it from outside.
    ///
    /// # Errors
    /// The CA refused, is not the one that is meant, or answered with something unusable. Attempts go on in the
    /// background, and asking again brings the next one forward.
    pub async fn ensure(&self, id: &SpiffeId, token: TokenFile) -> Result<(), IssueError> {
        let (answer, answered) = oneshot::channel();
        let command = Command::Ensure {
            id: id.clone(),
            token,
            answer,
        };
        self.commands
            .send(command)
            .await
            .map_err(|_| IssueError::GivenUp)?;
        answered.await.unwrap_or(Err(IssueError::GivenUp))
    }

    /// Drops an identity and ends its renewal, as soon as the store's task comes to it.
    pub fn forget(&self, id: &SpiffeId) {
        self.tell(Command::Forget { id: id.clone() });
    }

    /// Whether there is a certificate that is valid now.
    pub fn ready(&self, id: &SpiffeId) -> bool {
        self.current(id).is_ok()
    }

    /// How all certificates stand, in order.
    pub fn status(&self) -> Vec<CertificateStatus> {
        let now = self.shared.now();
        self.shared
            .published
            .load()
            .iter()
            .map(|(id, published)| {
                let facts = published.current.as_ref().map(|c| &c.facts);
                CertificateStatus {
                    id: id.clone(),
                    ready: facts.is_some_and(|f| now < f.not_after),
                    serial: facts.map(|f| f.serial.clone()),
                    not_after: facts.map(|f| f.not_after),
                    root: published
                        .current
                        .as_ref()
                        .and_then(|c| c.root)
                        .map(|root| root.to_string()),
                    failures: published.failures,
                    error: published.error.as_ref().map(ToString::to_string),
                }
            })
            .collect()
    }

    /// Ends TLS for the workload `id`: a client certificate is demanded and verified. The first protocol of `alpn` that
    /// the client offers too is agreed on; a client that offers none of them is refused, one that offers nothing is not.
    ///
    /// # Errors
    /// There is no certificate yet, or the handshake failed, and by whose doing.
    pub async fn accept<IO>(&self, id: &SpiffeId, io: IO, alpn: &[&[u8]]) -> Result<Accepted<IO>, TlsError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let configs = self.configs(id)?;
        let mut config = configs.server.clone();
        config.alpn_protocols = owned(alpn);
        let (stream, peer) = tls::accept(config, io, &self.judged(&configs)).await?;
        let (_, connection) = stream.get_ref();
        let sni = connection.server_name().map(str::to_owned);
        let alpn = connection.alpn_protocol().map(<[u8]>::to_vec);
        Ok(Accepted {
            standing: Standing::of(id, &configs, &peer),
            stream,
            peer,
            sni,
            alpn,
        })
    }

    /// Begins TLS as the workload `id`; the peer must prove one of `expected`. An empty `sni` sends none.
    ///
    /// That the peer takes our certificate is known only at the first read ([`TlsError::late`], O-16).
    ///
    /// # Errors
    /// Nobody is expected (R28), there is no certificate yet, or the handshake failed, and by whose doing.
    pub async fn connect<IO>(
        &self,
        id: &SpiffeId,
        io: IO,
        sni: &str,
        expected: &[SpiffeId],
        alpn: &[&[u8]],
    ) -> Result<Connected<IO>, TlsError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        if expected.is_empty() {
            return Err(TlsError::NobodyExpected);
        }
        let configs = self.configs(id)?;
        let mut config = configs.client.clone();
        config.alpn_protocols = owned(alpn);
        config
            .dangerous()
            .set_certificate_verifier(Arc::new(peers(&configs.trust, expected)));
        let (stream, peer) = tls::connect(config, io, sni, &self.judged(&configs)).await?;
        let (_, connection) = stream.get_ref();
        let alpn = connection.alpn_protocol().map(<[u8]>::to_vec);
        Ok(Connected {
            standing: Standing::of(id, &configs, &peer),
            stream,
            peer,
            alpn,
        })
    }

    fn judged<'s>(&'s self, configs: &'s Configs) -> Judged<'s> {
        Judged {
            memory: &configs.trust.memory,
            clock: self.shared.options.clock.as_ref(),
        }
    }

    /// The proof for a caller whose workload stands behind this very proxy: its certificate is here and valid.
    ///
    /// # Errors
    /// There is no certificate yet.
    pub fn local_peer(&self, id: &SpiffeId) -> Result<PeerIdentity, TlsError> {
        Ok(self.current(id)?.peer.clone())
    }

    /// The SHA-256 of an identity's certificate, DER.
    ///
    /// # Errors
    /// There is no certificate yet.
    pub fn leaf_of(&self, id: &SpiffeId) -> Result<[u8; 32], TlsError> {
        Ok(*self.current(id)?.peer.leaf_sha256())
    }

    fn current(&self, id: &SpiffeId) -> Result<Arc<Current>, TlsError> {
        let published = self.shared.published.load();
        let current = published.get(id).and_then(|p| p.current.as_ref());
        current
            .filter(|c| self.shared.now() < c.facts.not_after)
            .cloned()
            .ok_or_else(|| TlsError::NotReady(id.clone()))
    }

    /// The configurations of an identity, made again only when its certificate or what is believed has changed.
    fn configs(&self, id: &SpiffeId) -> Result<Arc<Configs>, TlsError> {
        let current = self.current(id)?;
        let trust = self.shared.trust.load_full();
        if trust.anchors.is_empty() {
            return Err(TlsError::NoRoots);
        }
        if let Some(configs) = current.configs.load_full()
            && Arc::ptr_eq(&configs.trust, &trust)
        {
            return Ok(configs);
        }
        let time = Arc::new(Time(Arc::clone(&self.shared.options.clock)));
        let fail = |e: rustls::Error| TlsError::Handshake(e.to_string());
        let certified = Arc::clone(&current.certified);
        let server =
            verify::server_config(&trust, Arc::clone(&certified), Arc::clone(&time) as _).map_err(fail)?;
        // Nobody is expected here; each connection says whom it expects.
        let nobody = Arc::new(peers(&trust, &[]));
        let versions = Versions {
            v12: trust.v12,
            suites: &trust.suites,
        };
        let client = verify::client_config(nobody, Some(certified), versions, time).map_err(fail)?;
        let configs = Arc::new(Configs {
            trust,
            leaf: *current.peer.leaf_sha256(),
            server,
            client,
        });
        current.configs.store(Some(Arc::clone(&configs)));
        Ok(configs)
    }
}

impl Shared {
    /// Unix seconds.
    fn now(&self) -> i64 {
        i64::try_from(self.options.clock.now().as_secs()).unwrap_or(i64::MAX)
    }
}

fn peers(trust: &Trust, expected: &[SpiffeId]) -> Peers {
    Peers {
        anchors: Arc::clone(&trust.anchors),
        domains: Some(trust.domains.clone()),
        bundles: Arc::clone(&trust.bundles),
        expected: Some(Arc::from(expected)),
        memory: Arc::clone(&trust.memory),
    }
}

fn owned(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|a| a.to_vec()).collect()
}

#[cfg(test)]
mod tests;
