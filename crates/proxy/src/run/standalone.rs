//! A proxy that is told everything by files: for a machine outside of every node, a gateway, or a measurement.
//!
//! It carries and decides by the same code as a node's proxy. What is different is where it hears of things: its
//! listeners are ordinary ones instead of captured traffic, certificates are given instead of asked for, and the
//! resources come from a file instead of a control plane. Files that change are taken over while it runs; one that cannot
//! be used leaves what was in force, and is told of.

mod config;
#[cfg(test)]
mod tests;

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::{CertificateAuthority, IssueError, Signing};
use snapshot::{Resource, Resources};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::trust::Trust;
use super::{Before, Tasks, live, share, started};
use crate::locals::Locals;
use crate::shared::{Shared, Stage};
use crate::store::Store;
use crate::{Config, Registration, inbound, outbound, web};
pub use config::{Inbound, Outbound, Place, Standalone};

/// How often files are looked at.
const REREAD: Duration = Duration::from_secs(5);
/// The largest file of resources, bytes.
const MAX_RESOURCES: u64 = 64 * 1024 * 1024;
/// The largest certificate, key or bundle, bytes.
const MAX_PEM: u64 = 1024 * 1024;

/// Runs until told to stop, as [`crate::run`] does.
///
/// # Errors
/// It cannot start, or a part of it broke: one sentence.
///
/// The future is boxed so that the code of all that it does is made with this crate, and not once more with the caller.
pub fn run(config: Standalone) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> {
    Box::pin(until_told(config))
}

async fn until_told(config: Standalone) -> Result<(), String> {
    live(
        async || made(&config),
        async |shared, tasks, taking, _| start(config.clone(), shared, tasks, taking).await,
    )
    .await
}

fn made(config: &Standalone) -> Result<(Shared, Before), String> {
    let (mut shared, before) = share(settings(config), Arc::new(Nobody), Before::default())?;
    // The files tell all: there is nobody who could be asked for more.
    shared.store = Store::new();
    shared.locals = Locals::of(registrations(config));
    shared.apps = inbound::Apps::plain();
    Ok((shared, before))
}

/// What all proxies have. Nothing dials a control plane or a CA: no task that would is started.
fn settings(config: &Standalone) -> Config {
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    Config {
        node: config.node.clone(),
        trust_domain: config.trust_domain.clone(),
        control: nowhere,
        ca: nowhere,
        roots: config.roots.clone(),
        token: PathBuf::new(),
        workloads: PathBuf::new(),
        socket: PathBuf::new(),
        access_log: config.access_log.clone(),
        log_format: config.log_format,
        local_tls: false,
        metrics: config.metrics.clone(),
        metrics_allow: config.metrics_allow.clone(),
        dns_upstreams: Vec::new(),
        leaf_lifetime_s: 0,
        take_over: false,
        keeper: None,
    }
}

fn registrations(config: &Standalone) -> impl Iterator<Item = Registration> {
    config
        .workloads
        .iter()
        .enumerate()
        .map(|(at, place)| Registration {
            mark: mark(at),
            uid: place.uid.clone(),
            namespace: place.namespace.clone(),
            pod: place.name.clone(),
            identity: Some(place.identity.clone()),
            addresses: place.addresses.clone(),
            token: PathBuf::new(),
        })
}

/// The mark that stands for a workload, by its place among them.
fn mark(at: usize) -> u32 {
    capture::FIRST_POD_MARK.saturating_add(u32::try_from(at).unwrap_or(u32::MAX))
}

async fn start(
    config: Standalone,
    shared: &Arc<Shared>,
    tasks: &mut Tasks,
    taking: &mut JoinSet<()>,
) -> Result<(), String> {
    // The generator of random numbers takes a while to be ready: nobody's first request is to wait for it.
    let _ = aws_lc_rs::rand::fill(&mut [0; 8]);
    let trust = Trust::new(shared.identities.clone());
    let mut files = Files::new(config);
    files.take(shared, &trust).await?;
    let config = files.config.clone();
    let bind = async |address| {
        let listener = async {
            let listener = TcpListener::bind(address).await?;
            capture::socket::notice_silence(&listener)?;
            Ok::<_, std::io::Error>(listener)
        };
        listener
            .await
            .map_err(|error| format!("cannot listen on {address}: {error}"))
    };
    for own in &config.outbound {
        let listener = bind(own.listen).await?;
        if let Some((at, _)) = config.place(&own.workload) {
            let dialled = own.dialled.unwrap_or(own.listen);
            taking.spawn(outbound::serve_for(
                Arc::clone(shared),
                listener,
                mark(at),
                dialled,
                own.keep,
            ));
        }
    }
    for own in &config.inbound {
        let listener = bind(own.listen).await?;
        if let Some((at, _)) = config.place(&own.workload) {
            taking.spawn(inbound::serve_for(Arc::clone(shared), listener, mark(at), own.to));
        }
    }
    web::start(shared, tasks, Stage::Starting)?;
    let all = Arc::clone(shared);
    tasks.spawn(async move {
        all.registry.follow(&all.store).await;
        Ok(())
    });
    tasks.spawn(started(Arc::clone(shared)));
    let all = Arc::clone(shared);
    tasks.spawn(async move {
        let mut complained = String::new();
        loop {
            tokio::time::sleep(REREAD).await;
            match files.take(&all, &trust).await {
                Ok(()) => complained.clear(),
                Err(why) if why != complained => {
                    tracing::error!("what was in force stays: {why}");
                    complained = why;
                }
                Err(_) => {}
            }
        }
    });
    Ok(())
}

/// The files, as they were last taken.
struct Files {
    config: Arc<Standalone>,
    /// Certificate and key of each workload.
    pairs: Vec<(String, String)>,
    /// Roots and resources.
    mesh: (String, String),
    version: u64,
    /// What they looked like from outside.
    stamps: Vec<Stamp>,
}

impl Files {
    fn new(config: Standalone) -> Self {
        Self {
            pairs: vec![Default::default(); config.workloads.len()],
            config: Arc::new(config),
            mesh: Default::default(),
            version: 0,
            stamps: Vec::new(),
        }
    }

    /// Takes over what has changed.
    async fn take(&mut self, shared: &Shared, trust: &Trust) -> Result<(), String> {
        let config = Arc::clone(&self.config);
        let stamps = blocking(move || config.files().map(stamp).collect()).await?;
        if stamps != self.stamps {
            self.read(shared, trust).await?;
            self.stamps = stamps;
        }
        Ok(())
    }

    async fn read(&mut self, shared: &Shared, trust: &Trust) -> Result<(), String> {
        for (place, held) in self.config.workloads.iter().zip(&mut self.pairs) {
            let pair = (
                read(&place.certificate, MAX_PEM).await?,
                read(&place.key, MAX_PEM).await?,
            );
            if pair == *held {
                continue;
            }
            let unusable = |why: String| format!("certificate `{}`: {why}", place.certificate.display());
            let id = shared.identities.give(&pair.0, &pair.1).await.map_err(unusable)?;
            if id != place.identity {
                shared.identities.forget(&id);
                return Err(unusable(format!(
                    "it is for `{id}`, not for `{}`",
                    place.identity
                )));
            }
            *held = pair;
        }
        let mesh = (
            read(&self.config.roots, MAX_PEM).await?,
            read(&self.config.resources, MAX_RESOURCES).await?,
        );
        if mesh == self.mesh {
            return Ok(());
        }
        let resources = self.resources(&mesh)?;
        shared
            .store
            .swap_with(&resources, self.version + 1, |index| trust.follow(index))
            .map_err(|why| format!("resources `{}`: {why}", self.config.resources.display()))?;
        self.version += 1;
        tracing::info!(
            version = self.version,
            resources = resources.len(),
            "a snapshot is in force"
        );
        self.mesh = mesh;
        Ok(())
    }

    fn resources(&self, (roots, text): &(String, String)) -> Result<Resources, String> {
        let unusable = |why: String| format!("resources `{}`: {why}", self.config.resources.display());
        let list: Vec<Resource> = serde_json::from_str(text).map_err(|e| unusable(e.to_string()))?;
        let count = list.len();
        let mut resources: Resources = list.into_iter().collect();
        // Of two with one name only one would count, and nobody could say which.
        if resources.len() != count {
            return Err(unusable("two have the same name".to_owned()));
        }
        resources.insert(Arc::new(Resource::Roots(vec![roots.clone()])));
        Ok(resources)
    }
}

/// When a file was changed last, how long it is, and which file it is; `None` where it is not there.
type Stamp = Option<(SystemTime, u64, u64)>;

fn stamp(path: &Path) -> Stamp {
    let seen = std::fs::metadata(path).ok()?;
    Some((seen.modified().ok()?, seen.len(), seen.ino()))
}

async fn read(path: &Path, limit: u64) -> Result<String, String> {
    let path = path.to_owned();
    blocking(move || {
        let unread = |e: std::io::Error| format!("cannot read `{}`: {e}", path.display());
        let file = std::fs::File::open(&path).map_err(unread)?;
        let mut text = String::new();
        file.take(limit + 1).read_to_string(&mut text).map_err(unread)?;
        if u64::try_from(text.len()).unwrap_or(u64::MAX) > limit {
            return Err(format!("`{}` is larger than {limit} bytes", path.display()));
        }
        Ok(text)
    })
    .await?
}

/// Does what may wait for a disk where nobody else waits for it.
async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(act).await.map_err(|e| e.to_string())
}

/// There is no CA.
struct Nobody;

impl CertificateAuthority for Nobody {
    fn sign<'a>(&'a self, _: &'a str, _: &'a str, _: Duration) -> Signing<'a> {
        Box::pin(async { Err(IssueError::Refused("certificates are given by files".to_owned())) })
    }
}
