//! Certificates of the workloads that a proxy stands before: had once, renewed at half life, used for every handshake.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use model::{SpiffeId, TrustDomain};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::authority::{CertificateAuthority, TokenFile};
use crate::error::{IssueError, RootsError, TlsError};
use crate::pki;
use crate::tls::{self, Accepted, Connected, PeerIdentity};
use crate::verify::{self, Certified, Whom};

/// The first wait after a refusal, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// How many TLS configurations of one identity are kept: one for each ALPN list and set of expected peers.
const CONFIGS: usize = 256;

/// What time it is.
pub trait Clock: Send + Sync + 'static {
    /// Now, as seconds since 1970.
    fn now(&self) -> Duration;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

/// How a store works.
#[derive(Clone)]
pub struct StoreOptions {
    /// The lifetime to ask for; zero leaves it to the CA.
    pub lifetime: Duration,
    /// Seconds since 1970, for deciding when to renew.
    pub clock: Arc<dyn Clock>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            lifetime: Duration::ZERO,
            clock: Arc::new(SystemClock),
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

/// How a certificate stands.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// Whose it is.
    pub id: SpiffeId,
    /// Whether there is one.
    pub ready: bool,
    /// The serial number, hex.
    pub serial: Option<String>,
    /// Unix seconds.
    pub not_after: Option<i64>,
    /// Why the last attempt failed, if it did.
    pub error: Option<String>,
}

/// The store. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    authority: Arc<dyn CertificateAuthority>,
    options: StoreOptions,
    trust: ArcSwap<Trust>,
    identities: Mutex<HashMap<SpiffeId, Arc<Identity>>>,
}

#[derive(Clone, Default)]
struct Trust {
    roots: Arc<[CertificateDer<'static>]>,
    domains: Arc<BTreeSet<TrustDomain>>,
    v12: bool,
}

struct Identity {
    state: watch::Sender<State>,
    task: Mutex<Option<tokio::task::AbortHandle>>,
}

#[derive(Clone, Default)]
struct State {
    current: Option<Arc<Current>>,
    error: Option<IssueError>,
}

/// ALPN list and expected peers.
type ClientKey = (Vec<Vec<u8>>, Vec<SpiffeId>);

/// A certificate and the TLS configurations made from it; a rotation or new trust makes a new one.
struct Current {
    certified: Certified,
    leaf: Vec<u8>,
    facts: pki::Facts,
    servers: Mutex<BTreeMap<Vec<Vec<u8>>, Arc<ServerConfig>>>,
    clients: Mutex<BTreeMap<ClientKey, Arc<ClientConfig>>>,
}

impl Current {
    fn forget_configs(&self) {
        if let (Ok(mut servers), Ok(mut clients)) = (self.servers.lock(), self.clients.lock()) {
            servers.clear();
            clients.clear();
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// A store without roots and certificates: every handshake is refused until it has both.
    pub fn new(authority: Arc<dyn CertificateAuthority>, options: StoreOptions) -> Self {
        Self(Arc::new(Inner {
            authority,
            options,
            trust: ArcSwap::default(),
            identities: Mutex::default(),
        }))
    }

    /// Sets the roots that peers are verified against.
    ///
    /// # Errors
    /// A text is not PEM or holds no certificate; then nothing changes.
    pub fn set_roots(&self, pem: &[String]) -> Result<(), RootsError> {
        let mut roots = Vec::new();
        for text in pem {
            roots.extend(pki::certificates(text).map_err(RootsError)?);
        }
        if roots.is_empty() {
            return Err(RootsError("none given".to_owned()));
        }
        self.change(|trust| trust.roots = Arc::from(roots.clone()));
        Ok(())
    }

    /// Sets whose peers are believed: those of the mesh's trust domain and its aliases (ID-07).
    pub fn set_trust_domains(&self, own: TrustDomain, aliases: Vec<TrustDomain>) {
        let domains: Arc<BTreeSet<_>> = Arc::new([own].into_iter().chain(aliases).collect());
        self.change(|trust| trust.domains = Arc::clone(&domains));
    }

    /// Allows TLS 1.2 besides 1.3, or not (`meshMTLS.minProtocolVersion`).
    pub fn set_min_tls(&self, v13_only: bool) {
        self.change(|trust| trust.v12 = !v13_only);
    }

    fn change(&self, edit: impl Fn(&mut Trust)) {
        self.0.trust.rcu(|trust| {
            let mut next = Trust::clone(trust);
            edit(&mut next);
            next
        });
        if let Ok(identities) = self.0.identities.lock() {
            for identity in identities.values() {
                if let Some(current) = &identity.state.borrow().current {
                    current.forget_configs();
                }
            }
        }
    }

    /// Sees to it that there is a certificate, and returns when there is one or the first attempt has failed.
    /// From then on it is renewed at half life. Callers at the same time share one attempt.
    ///
    /// # Errors
    /// Why the attempt failed; attempts go on in the background.
    pub async fn ensure(&self, id: &SpiffeId, token: TokenFile) -> Result<(), IssueError> {
        let mut state = {
            let Ok(mut identities) = self.0.identities.lock() else {
                return Err(IssueError::Authority("the store is broken".to_owned()));
            };
            let identity = identities.entry(id.clone()).or_insert_with(|| {
                let identity = Arc::new(Identity {
                    state: watch::Sender::new(State::default()),
                    task: Mutex::new(None),
                });
                let task = tokio::spawn(renew(
                    Arc::clone(&self.0),
                    id.clone(),
                    Arc::clone(&identity),
                    token,
                ));
                if let Ok(mut slot) = identity.task.lock() {
                    *slot = Some(task.abort_handle());
                }
                identity
            });
            identity.state.subscribe()
        };
        let settled = state.wait_for(|s| s.current.is_some() || s.error.is_some()).await;
        match settled.map(|s| (s.current.is_some(), s.error.clone())) {
            Ok((true, _)) => Ok(()),
            Ok((false, Some(error))) => Err(error),
            _ => Err(IssueError::Authority("given up".to_owned())),
        }
    }

    /// Drops an identity and ends its renewal.
    pub fn forget(&self, id: &SpiffeId) {
        let gone = self.0.identities.lock().ok().and_then(|mut all| all.remove(id));
        if let Some(task) = gone.and_then(|identity| identity.task.lock().ok().and_then(|mut t| t.take())) {
            task.abort();
        }
    }

    /// Whether there is a certificate.
    pub fn ready(&self, id: &SpiffeId) -> bool {
        self.current(id).is_ok()
    }

    /// How all certificates stand, in order.
    pub fn status(&self) -> Vec<CertificateStatus> {
        let Ok(identities) = self.0.identities.lock() else {
            return Vec::new();
        };
        let mut all: Vec<_> = identities
            .iter()
            .map(|(id, identity)| {
                let state = identity.state.borrow();
                CertificateStatus {
                    id: id.clone(),
                    ready: state.current.is_some(),
                    serial: state.current.as_ref().map(|c| c.facts.serial.clone()),
                    not_after: state.current.as_ref().map(|c| c.facts.not_after),
                    error: state.error.as_ref().map(ToString::to_string),
                }
            })
            .collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    fn current(&self, id: &SpiffeId) -> Result<Arc<Current>, TlsError> {
        let not_ready = || TlsError::NotReady(id.clone());
        let identity = self
            .0
            .identities
            .lock()
            .ok()
            .and_then(|all| all.get(id).cloned())
            .ok_or_else(not_ready)?;
        let current = identity.state.borrow().current.clone().ok_or_else(not_ready)?;
        let now = i64::try_from(self.0.options.clock.now().as_secs()).unwrap_or(i64::MAX);
        if now >= current.facts.not_after {
            Err(not_ready())
        } else {
            Ok(current)
        }
    }

    /// Ends TLS for the workload `id`: a client certificate is demanded and verified.
    ///
    /// # Errors
    /// There is no certificate yet, or the handshake failed, and by whose doing.
    pub async fn accept<IO>(&self, id: &SpiffeId, io: IO, alpn: &[&[u8]]) -> Result<Accepted<IO>, TlsError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let current = self.current(id)?;
        let config = self.server_config(&current, alpn)?;
        tls::accept(config, io).await
    }

    /// The server's side for transports that do their own accepting (the control plane's).
    ///
    /// # Errors
    /// There is no certificate yet.
    pub fn server(&self, id: &SpiffeId, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
        let current = self.current(id)?;
        self.server_config(&current, alpn)
    }

    /// Begins TLS as the workload `id`; the peer must prove one of `expected`.
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
        let current = self.current(id)?;
        let config = self.client_config(&current, expected, alpn)?;
        tls::connect(config, io, sni, expected).await
    }

    /// The proof for a caller whose workload stands behind this very proxy: its certificate is here and valid.
    ///
    /// # Errors
    /// There is no certificate yet.
    pub fn local_peer(&self, id: &SpiffeId) -> Result<PeerIdentity, TlsError> {
        let current = self.current(id)?;
        Ok(PeerIdentity::local(id.clone(), &current.leaf))
    }

    fn server_config(&self, current: &Current, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
        let key: Vec<Vec<u8>> = alpn.iter().map(|a| a.to_vec()).collect();
        if let Some(found) = current.servers.lock().ok().and_then(|s| s.get(&key).cloned()) {
            return Ok(found);
        }
        let trust = self.0.trust.load();
        let mut config = verify::server_config(
            &trust.roots,
            &trust.domains,
            Arc::clone(&current.certified),
            trust.v12,
        )
        .map_err(TlsError::Handshake)?;
        config.alpn_protocols = key.clone();
        let config = Arc::new(config);
        if let Ok(mut servers) = current.servers.lock().map(bounded) {
            servers.insert(key, Arc::clone(&config));
        }
        Ok(config)
    }

    fn client_config(
        &self,
        current: &Current,
        expected: &[SpiffeId],
        alpn: &[&[u8]],
    ) -> Result<Arc<ClientConfig>, TlsError> {
        let key = (
            alpn.iter().map(|a| a.to_vec()).collect::<Vec<_>>(),
            expected.to_vec(),
        );
        if let Some(found) = current.clients.lock().ok().and_then(|s| s.get(&key).cloned()) {
            return Ok(found);
        }
        let trust = self.0.trust.load();
        let certified = Some((Arc::clone(&current.certified), trust.v12));
        let mut config = verify::client_config(&trust.roots, Whom::Ids(Arc::from(expected)), certified)
            .map_err(TlsError::Handshake)?;
        config.alpn_protocols.clone_from(&key.0);
        let config = Arc::new(config);
        if let Ok(mut clients) = current.clients.lock().map(bounded) {
            clients.insert(key, Arc::clone(&config));
        }
        Ok(config)
    }
}

/// Empties a map that has reached its bound; it fills again with what is in use.
fn bounded<K, V>(
    mut map: std::sync::MutexGuard<'_, BTreeMap<K, V>>,
) -> std::sync::MutexGuard<'_, BTreeMap<K, V>> {
    if map.len() >= CONFIGS {
        map.clear();
    }
    map
}

/// Has a certificate issued, and again at half life, for ever.
async fn renew(store: Arc<Inner>, id: SpiffeId, identity: Arc<Identity>, token: TokenFile) {
    let mut backoff = BACKOFF.0;
    loop {
        let wait = match issue(&store, &id, &token).await {
            Ok(current) => {
                backoff = BACKOFF.0;
                let wait = until_half_life(&current.facts, store.options.clock.now());
                tracing::info!(%id, serial = current.facts.serial, "certificate issued");
                identity.state.send_modify(|s| {
                    *s = State {
                        current: Some(Arc::new(current)),
                        error: None,
                    }
                });
                wait
            }
            Err(error) => {
                tracing::warn!(%id, %error, "no certificate");
                identity.state.send_modify(|s| s.error = Some(error));
                let wait = backoff;
                backoff = (backoff * 2).min(BACKOFF.1);
                wait
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Half of what is left of the certificate's own lifetime, counted from its middle.
fn until_half_life(facts: &pki::Facts, now: Duration) -> Duration {
    let middle = facts.not_before + (facts.not_after - facts.not_before) / 2;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    Duration::from_secs(u64::try_from(middle - now).unwrap_or(0).max(1))
}

async fn issue(store: &Inner, id: &SpiffeId, token: &TokenFile) -> Result<Current, IssueError> {
    let request = pki::Request::new(id).map_err(IssueError::Answer)?;
    let bearer = token.read()?;
    let pem = store
        .authority
        .sign(&request.csr_pem, &bearer, store.options.lifetime)
        .await?;
    let mut chain = Vec::new();
    for text in &pem {
        chain.extend(pki::certificates(text).map_err(IssueError::Answer)?);
    }
    // The root comes last and peers have it: it is not sent.
    if chain.len() > 1 {
        chain.pop();
    }
    let leaf = chain
        .first()
        .ok_or_else(|| IssueError::Answer("no certificate".to_owned()))?
        .to_vec();
    let facts = pki::facts(&leaf).map_err(IssueError::Answer)?;
    if facts.id != *id {
        return Err(IssueError::Answer(format!("it is for `{}`", facts.id)));
    }
    let certified = rustls::sign::CertifiedKey::from_der(chain, request.private_key(), &verify::provider())
        .map_err(|e| IssueError::Answer(e.to_string()))?;
    Ok(Current {
        certified: Arc::new(certified),
        leaf,
        facts,
        servers: Mutex::default(),
        clients: Mutex::default(),
    })
}
