//! The next hop: which endpoint, by what transport, and who must be there.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use model::{Reason, SpiffeId, canonical_ip};
use routing::balance;
use snapshot::{ClientTls, Destination, Endpoint, Index, ServiceTarget, Transport};

/// Where one attempt goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Hop {
    /// Where to connect: a workload's address and port, or what was dialled.
    pub(super) address: SocketAddr,
    /// Mutual TLS and with whom, or plaintext.
    pub(super) tls: Option<Tls>,
    /// Whether the address is known to the mesh: then the caller appears there with its own address.
    pub(super) inside: bool,
}

/// What mutual TLS towards a hop needs.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Tls {
    /// `outbound_.PORT_._.HOST` (CM-13); empty where no Service was addressed.
    pub(super) sni: Arc<str>,
    /// Who is accepted at the other end (CM-14); empty accepts nobody (R28).
    pub(super) expected: Arc<[SpiffeId]>,
}

/// Picks the next hop towards a destination that is not among those that were `tried`, while there is one that was not.
///
/// # Errors
/// `NO_ENDPOINT`; `PEER_IDENTITY` where nobody is expected at the other end; or what a DestinationRule's settings that
/// cannot be acted on lead to.
pub(super) fn next(
    index: &Index,
    destination: &Destination,
    dialled_v6: bool,
    tried: &[SocketAddr],
    random: u64,
    load: &Load,
) -> Result<Hop, Reason> {
    match destination {
        Destination::External(address) => Ok(Hop {
            address: *address,
            tls: None,
            inside: false,
        }),
        Destination::Direct {
            address,
            workload,
            service,
        } => {
            let endpoint = || service.as_ref().and_then(|target| endpoint_at(target, *address));
            let (accepts, identity) = match workload {
                Some(workload) => (workload.accepts_mtls(address.port()), workload.identity.clone()),
                None => endpoint().map_or((false, None), |e| {
                    (e.accepts_mtls(address.port()), e.identity.clone())
                }),
            };
            let demanded = service.as_ref().and_then(|target| target.tls);
            let tls = transport(index, demanded, accepts, || Tls {
                sni: service.as_ref().map_or_else(|| Arc::from(""), sni),
                expected: identity.into_iter().collect(),
            })?;
            Ok(Hop {
                address: *address,
                tls,
                inside: workload.is_some(),
            })
        }
        Destination::Service(target) => {
            let candidates = candidates(target, dialled_v6);
            let fresh: Vec<_> = candidates.iter().filter(|c| !tried.contains(&c.1)).collect();
            let all = || candidates.iter().collect();
            let choice: Vec<_> = if fresh.is_empty() { all() } else { fresh };
            let (endpoint, address) =
                balance::pick(&choice, random, |c| load.of(c.1)).ok_or(Reason::NoEndpoint)?;
            let accepts = endpoint.accepts_mtls(address.port());
            let tls = transport(index, target.tls, accepts, || Tls {
                sni: sni(target),
                expected: target.service.identities.as_slice().into(),
            })?;
            Ok(Hop {
                address: *address,
                tls,
                inside: index.pod(address.ip()).is_some(),
            })
        }
    }
}

/// Endpoints with the address that they are reached at: of the family that was dialled where they have one.
fn candidates(target: &ServiceTarget, v6: bool) -> Vec<(&Endpoint, SocketAddr)> {
    let candidates = target.candidates().into_iter();
    let with_address = candidates.filter_map(|(endpoint, port)| {
        let address = endpoint.address(v6)?;
        Some((endpoint, SocketAddr::new(canonical_ip(address), port)))
    });
    with_address.collect()
}

fn endpoint_at(target: &ServiceTarget, address: SocketAddr) -> Option<&Endpoint> {
    let at = |ip: &IpAddr| canonical_ip(*ip) == address.ip();
    let mut endpoints = target.service.endpoints.iter();
    endpoints.find(|endpoint| endpoint.addresses.iter().any(at))
}

fn transport(
    index: &Index,
    demanded: Option<ClientTls>,
    accepts_mtls: bool,
    tls: impl FnOnce() -> Tls,
) -> Result<Option<Tls>, Reason> {
    match Transport::select(index.mesh().auto_mtls, demanded, accepts_mtls) {
        Transport::Plaintext => Ok(None),
        Transport::Mutual => {
            let tls = tls();
            // R28: a client that expects nobody in particular would accept everybody.
            if tls.expected.is_empty() {
                return Err(Reason::PeerIdentity);
            }
            Ok(Some(tls))
        }
        Transport::Refused(reason) => Err(reason),
    }
}

fn sni(target: &ServiceTarget) -> Arc<str> {
    Arc::from(format!("outbound_.{}_._.{}", target.port, target.service.host))
}

/// What is under way to each address. Holds only addresses with something under way, so it is as bounded as the
/// registry is.
#[derive(Clone, Default, Debug)]
pub(super) struct Load(Arc<Mutex<HashMap<SocketAddr, usize>>>);

/// One thing under way to an address, until dropped.
#[derive(Debug)]
pub(super) struct Loaded {
    load: Load,
    address: SocketAddr,
}

impl Load {
    fn of(&self, address: SocketAddr) -> usize {
        self.with(|map| map.get(&address).copied().unwrap_or_default())
    }

    pub(super) fn add(&self, address: SocketAddr) -> Loaded {
        self.with(|map| *map.entry(address).or_default() += 1);
        Loaded {
            load: self.clone(),
            address,
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<SocketAddr, usize>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.load.with(|map| {
            if let Some(count) = map.get_mut(&self.address) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    map.remove(&self.address);
                }
            }
        });
    }
}

/// 64 random bits; where the system gives none, always the same, which spreads badly and breaks nothing.
pub(super) fn random() -> u64 {
    let mut bytes = [0; 8];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}
