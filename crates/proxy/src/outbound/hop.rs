//! The next hop: which endpoint, by what transport, and who must be there.

use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use foldhash::HashMap;
use model::{Reason, SpiffeId, canonical_ip};
use routing::balance;
use snapshot::{ClientNames, ClientTls, Destination, Endpoint, Index, ServiceTarget, Transport};
use telemetry::Peer;

use super::dial::From;
use super::pool::{Key, SharedKey, Speak};
use super::{event, random};

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
    /// Whether the connection goes by a tunnel at the address's port 15008.
    pub(super) hbone: bool,
}

impl Tls {
    /// What the rule gives is used as given (CM-16); at a tunnel's end it is the endpoint itself that answers, so that both
    /// must hold.
    fn name(&mut self, names: &ClientNames) {
        if let Some(sni) = &names.sni {
            self.sni = Arc::clone(sni);
        }
        match &names.expected {
            Some(expected) if self.hbone => {
                self.expected = self
                    .expected
                    .iter()
                    .filter(|id| expected.contains(id))
                    .cloned()
                    .collect();
            }
            Some(expected) => self.expected = Arc::clone(expected),
            None => {}
        }
    }
}

/// All hops towards a destination, each made ready when it is first taken.
#[derive(Debug)]
pub(super) struct Hops(Vec<Candidate>);

/// One of them. For a Service, an endpoint at the address that it is reached at.
#[derive(Debug)]
struct Candidate {
    address: SocketAddr,
    /// Its place among the Service's endpoints; 0 where there is no choice.
    endpoint: usize,
    prepared: OnceLock<Result<Arc<Prepared>, Reason>>,
}

/// A hop, and what follows from it for all that is sent there.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) hop: Hop,
    /// Who is there, as far as the snapshot knows.
    pub(super) peer: Arc<Peer>,
    /// The same with the identity that it proved last.
    met: Mutex<Option<Arc<Peer>>>,
    /// What its connections were asked for by last.
    key: Mutex<Option<SharedKey>>,
}

impl Hops {
    /// Those towards a destination: of a Service, endpoints at an address of the family that was dialled, where they have one.
    pub(super) fn towards(destination: &Destination, dialled_v6: bool) -> Self {
        let only = |address: &SocketAddr| {
            vec![Candidate {
                address: *address,
                endpoint: 0,
                prepared: OnceLock::new(),
            }]
        };
        Self(match destination {
            Destination::External(address) | Destination::Direct { address, .. } => only(address),
            Destination::Service(target) => candidates(target, dialled_v6),
        })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Picks the next hop: one that is not among those that were `tried`, while there is one that was not. Index and destination
    /// must always be the same.
    ///
    /// # Errors
    /// `NO_ENDPOINT`; `CAPTURE_PORT` for the port of tunnels; `PEER_IDENTITY` where nobody is expected at the other end; or
    /// what a DestinationRule's settings that cannot be acted on lead to.
    pub(super) fn next(
        &self,
        index: &Index,
        destination: &Destination,
        tried: &[SocketAddr],
        random: u64,
        load: &Load<SocketAddr>,
    ) -> Result<Arc<Prepared>, Reason> {
        let is_new = |c: &&Candidate| !tried.contains(&c.address);
        let picked = if tried.is_empty() || !self.0.iter().any(|c| is_new(&c)) {
            balance::pick(&self.0, random, |c| load.of(c.address))
        } else {
            let new: Vec<&Candidate> = self.0.iter().filter(is_new).collect();
            balance::pick(&new, random, |c| load.of(c.address)).copied()
        };
        let picked = picked.ok_or(Reason::NoEndpoint)?;
        let prepare = || {
            let hop = hop(index, destination, picked)?;
            Ok(Arc::new(Prepared {
                peer: event::peer_at(index, hop.address),
                hop,
                met: Mutex::default(),
                key: Mutex::default(),
            }))
        };
        picked.prepared.get_or_init(prepare).clone()
    }
}

impl Prepared {
    /// Who is there, with the identity that it has proven.
    pub(super) fn met(&self, id: &SpiffeId) -> Arc<Peer> {
        let mut met = locked(&self.met);
        match &*met {
            Some(peer) if peer.principal.as_ref() == Some(id) => Arc::clone(peer),
            _ => Arc::clone(met.insert(event::with_principal(&self.peer, id))),
        }
    }

    /// What a connection there must agree in, for the caller with that identity and certificate.
    pub(super) fn key(&self, caller: &SpiffeId, leaf: [u8; 32], from: From, speak: Speak) -> SharedKey {
        let mut held = locked(&self.key);
        match &*held {
            Some(key) if (key.leaf, key.speak, key.from) == (leaf, speak, from) && key.caller == *caller => {
                key.clone()
            }
            _ => {
                let key = Key {
                    caller: caller.clone(),
                    leaf,
                    from,
                    to: self.hop.address,
                    tls: self.hop.tls.clone(),
                    speak,
                };
                held.insert(key.into()).clone()
            }
        }
    }
}

/// The hop to a candidate of a destination.
fn hop(index: &Index, destination: &Destination, candidate: &Candidate) -> Result<Hop, Reason> {
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
            let port = address.port();
            let (accepts, identity, hbone) = match workload {
                Some(own) => (own.accepts_mtls(port), own.identity.clone(), own.hbone),
                None => endpoint().map_or((false, None, false), |e| {
                    (e.accepts_mtls(port), e.identity.clone(), e.hbone)
                }),
            };
            let demanded = service.as_ref().and_then(|target| target.tls.as_ref());
            let tls = transport(index, demanded, accepts, port, || Tls {
                sni: service.as_ref().map_or_else(|| Arc::from(""), sni),
                expected: identity.into_iter().collect(),
                hbone,
            })?;
            Ok(Hop {
                address: *address,
                tls,
                inside: workload.is_some(),
            })
        }
        Destination::Service(target) => {
            let address = candidate.address;
            let endpoint = target.service.endpoints.get(candidate.endpoint);
            let endpoint = endpoint.ok_or(Reason::NoEndpoint)?;
            let port = address.port();
            let accepts = endpoint.accepts_mtls(port);
            let tls = transport(index, target.tls.as_ref(), accepts, port, || Tls {
                sni: sni(target),
                // By HBONE it is the endpoint that is meant, and not anyone of the Service.
                expected: match &endpoint.identity {
                    Some(own) if endpoint.hbone => Arc::from([own.clone()]),
                    _ => target.service.identities.as_slice().into(),
                },
                hbone: endpoint.hbone,
            })?;
            Ok(Hop {
                address,
                tls,
                inside: index.pod(address.ip()).is_some(),
            })
        }
    }
}

/// Endpoints with the address that they are reached at: of the family that was dialled where they have one.
fn candidates(target: &ServiceTarget, v6: bool) -> Vec<Candidate> {
    let endpoints = target.service.endpoints.iter().enumerate();
    let candidates = endpoints.filter_map(|(at, endpoint)| {
        let port = endpoint.ports.get(&target.port).filter(|_| endpoint.ready)?;
        let address = endpoint.address(v6)?;
        Some(Candidate {
            address: SocketAddr::new(canonical_ip(address), *port),
            endpoint: at,
            prepared: OnceLock::new(),
        })
    });
    candidates.collect()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn endpoint_at(target: &ServiceTarget, address: SocketAddr) -> Option<&Endpoint> {
    let at = |ip: &IpAddr| canonical_ip(*ip) == address.ip();
    let mut endpoints = target.service.endpoints.iter();
    endpoints.find(|endpoint| endpoint.addresses.iter().any(at))
}

fn transport(
    index: &Index,
    demanded: Option<&ClientTls>,
    accepts_mtls: bool,
    port: u16,
    tls: impl FnOnce() -> Tls,
) -> Result<Option<Tls>, Reason> {
    match Transport::select(index.mesh().auto_mtls, demanded, accepts_mtls) {
        Transport::Plaintext => Ok(None),
        // What takes mutual TLS of the mesh takes nothing but tunnels there.
        Transport::Mutual if port == capture::HBONE_PORT => Err(Reason::CapturePort),
        Transport::Mutual => {
            let mut tls = tls();
            if let Some(ClientTls::Named(names)) = demanded {
                tls.name(names);
            }
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

/// How much is under way, to each address or of each workload. Holds only those with something under way, so it is as
/// bounded as the registry is.
#[derive(Debug)]
pub(super) struct Load<K: Eq + Hash>(Arc<Mutex<HashMap<K, usize>>>);

/// One thing under way, until dropped.
#[derive(Debug)]
pub(super) struct Loaded<K: Copy + Eq + Hash> {
    load: Load<K>,
    key: K,
}

impl<K: Copy + Eq + Hash> Load<K> {
    pub(super) fn of(&self, key: K) -> usize {
        self.with(|map| map.get(&key).copied().unwrap_or_default())
    }

    pub(super) fn add(&self, key: K) -> Loaded<K> {
        self.with(|map| *map.entry(key).or_default() += 1);
        Loaded {
            load: Self(Arc::clone(&self.0)),
            key,
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<K, usize>) -> T) -> T {
        act(&mut locked(&self.0))
    }
}

impl<K: Eq + Hash> Default for Load<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Copy + Eq + Hash> Drop for Loaded<K> {
    fn drop(&mut self) {
        self.load.with(|map| {
            if let Some(count) = map.get_mut(&self.key) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    map.remove(&self.key);
                }
            }
        });
    }
}

/// 64 random bits; where the system gives none, always the same, which spreads badly and breaks nothing.
pub(super) fn random() -> u64 {
    u64::from_ne_bytes(random::bytes())
}

#[cfg(test)]
mod tests {
    use super::super::tests::world::{endpoint, mesh, plain, pod, service};
    use super::*;
    use model::Protocol;
    use snapshot::{Egress, Resource, Resources, Service, Workload};

    const VIP: &str = "10.96.0.20:80";

    fn index(service: Service, workloads: &[Workload]) -> Index {
        let mut resources: Resources = [Resource::from(mesh(Egress::AllowAny)), service.into()]
            .into_iter()
            .collect();
        for workload in workloads {
            resources.insert(Arc::new(workload.clone().into()));
        }
        Index::build(&resources).unwrap()
    }

    fn to(index: &Index, dialled: &str, tried: &[SocketAddr]) -> Result<Hop, Reason> {
        let dialled: SocketAddr = dialled.parse().unwrap();
        let destination = index.outbound("full", dialled, None)?;
        let hops = Hops::towards(&destination, dialled.is_ipv6());
        let next = hops.next(index, &destination, tried, 0, &Load::default())?;
        Ok(next.hop.clone())
    }

    fn id(account: &str) -> SpiffeId {
        format!("spiffe://cluster.local/ns/full/sa/{account}")
            .parse()
            .unwrap()
    }

    #[test]
    fn cm_01_to_07_and_gw_44_for_a_service() {
        let mesh_pod = pod("web-1", "10.77.1.2", Some("web"));
        let plain_pod = plain("web-1", "10.77.1.2");
        let mut shy = pod("web-1", "10.77.1.2", Some("web"));
        shy.plaintext_ports = vec![8080];
        for (workload, demanded, expect) in [
            (&mesh_pod, None, Ok(true)),
            (&plain_pod, None, Ok(false)),
            (&shy, None, Ok(false)),
            (&shy, Some(ClientTls::IstioMutual), Ok(true)),
            (&mesh_pod, Some(ClientTls::Disable), Ok(false)),
            (&mesh_pod, Some(ClientTls::Unsupported), Err(Reason::TlsHandshake)),
            // R28: nobody is known who could be expected.
            (
                &plain_pod,
                Some(ClientTls::IstioMutual),
                Err(Reason::PeerIdentity),
            ),
        ] {
            let mut at = endpoint(workload, 80, 8080);
            at.plaintext_ports.clone_from(&workload.plaintext_ports);
            let mut web = service("full/web", VIP, Protocol::Http, vec![at]);
            web.ports[0].tls.clone_from(&demanded);
            let index = index(web, std::slice::from_ref(workload));
            let hop = to(&index, VIP, &[]);
            assert_eq!(
                hop.as_ref().map(|hop| hop.tls.is_some()).map_err(|r| *r),
                expect,
                "{demanded:?}"
            );
            if let Ok(Hop { tls: Some(tls), .. }) = hop {
                assert_eq!(tls.sni.as_ref(), "outbound_.80_._.web.full.svc.cluster.local");
                assert_eq!(tls.expected.as_ref(), [id("web")]);
            }
        }
    }

    #[test]
    fn cm_16_names_of_a_rule_are_used_as_given() {
        let web_pod = pod("web-1", "10.77.1.2", Some("web"));
        let names = |sni: Option<&str>, expected: Option<&[&str]>| {
            let expected = expected.map(|all| all.iter().map(|account| id(account)).collect());
            let sni = sni.map(Arc::from);
            Some(ClientTls::Named(Arc::new(ClientNames { sni, expected })))
        };
        let own = "outbound_.80_._.web.full.svc.cluster.local";
        for (given, sni, expected) in [
            (names(None, Some(&["other"])), own, Ok(vec!["other"])),
            (names(None, Some(&["a", "b"])), own, Ok(vec!["a", "b"])),
            (names(Some("x"), None), "x", Ok(vec!["web"])),
            (names(None, Some(&[])), own, Err(Reason::PeerIdentity)),
        ] {
            let mut web = service(
                "full/web",
                VIP,
                Protocol::Http,
                vec![endpoint(&web_pod, 80, 8080)],
            );
            web.ports[0].tls = given;
            let index = index(web, std::slice::from_ref(&web_pod));
            let hop = to(&index, VIP, &[]);
            let got = hop.map(|hop| hop.tls.unwrap());
            if let Ok(tls) = &got {
                assert_eq!(tls.sni.as_ref(), sni);
            }
            let expected = expected.map(|all| all.into_iter().map(id).collect::<Vec<_>>());
            assert_eq!(got.map(|tls| tls.expected.to_vec()), expected);
        }
    }

    #[test]
    fn o_01_a_pod_that_is_dialled_by_its_address_is_reached_with_identity() {
        let workload = pod("web-1", "10.77.1.2", Some("web"));
        let index = index(service("full/other", VIP, Protocol::Http, vec![]), &[workload]);
        let hop = to(&index, "10.77.1.2:9999", &[]).unwrap();
        let tls = hop.tls.unwrap();
        assert_eq!(
            (tls.sni.as_ref(), tls.expected.as_ref()),
            ("", [id("web")].as_slice())
        );
        assert!(hop.inside);
    }

    #[test]
    fn a_pod_behind_hbone_is_reached_by_a_tunnel_and_by_nothing_else() {
        let mut ambient = pod("web-1", "10.77.1.2", Some("web"));
        ambient.hbone = true;
        // Modes mean nothing to it (semantics 1.8).
        ambient.plaintext_ports = vec![0];
        let other = pod("other-1", "10.77.1.3", Some("other"));
        let mut at = endpoint(&ambient, 80, 8080);
        at.hbone = true;
        at.plaintext_ports = vec![0];
        let mut web = service("full/web", VIP, Protocol::Http, vec![at]);
        web.identities.push(id("other"));
        let index = index(web, &[ambient, other]);
        for dialled in [VIP, "10.77.1.2:8080", "10.77.1.2:9999"] {
            let tls = to(&index, dialled, &[]).unwrap().tls.unwrap();
            assert!(tls.hbone, "{dialled}");
            assert_eq!(tls.expected.as_ref(), [id("web")], "{dialled}");
        }
        for mesh in ["10.77.1.2:15008", "10.77.1.3:15008"] {
            assert_eq!(to(&index, mesh, &[]), Err(Reason::CapturePort));
        }
        assert!(!to(&index, "10.77.1.3:8080", &[]).unwrap().tls.unwrap().hbone);
    }

    #[test]
    fn what_is_outside_gets_what_the_caller_sends() {
        let index = index(service("full/other", VIP, Protocol::Http, vec![]), &[]);
        let hop = to(&index, "1.2.3.4:443", &[]).unwrap();
        assert_eq!((hop.tls, hop.inside), (None, false));
    }

    #[test]
    fn the_family_that_was_dialled_comes_first() {
        let mut workload = pod("web-1", "10.77.1.2", Some("web"));
        workload.addresses.push("fd77:1:1::2".parse().unwrap());
        let mut web = service(
            "full/web",
            VIP,
            Protocol::Http,
            vec![endpoint(&workload, 80, 8080)],
        );
        web.vips.push("fd77:96::20".parse().unwrap());
        let index = index(web, &[workload]);
        for (dialled, expect) in [
            (VIP, "10.77.1.2:8080"),
            ("[fd77:96::20]:80", "[fd77:1:1::2]:8080"),
        ] {
            assert_eq!(to(&index, dialled, &[]).unwrap().address, expect.parse().unwrap());
        }
    }

    #[test]
    fn what_was_tried_is_tried_again_only_where_nothing_else_is_left() {
        let pods = [
            pod("a", "10.77.1.2", Some("web")),
            pod("b", "10.77.1.3", Some("web")),
        ];
        let endpoints = pods.iter().map(|pod| endpoint(pod, 80, 8080)).collect();
        let index = index(service("full/web", VIP, Protocol::Http, endpoints), &pods);
        let [a, b] = ["10.77.1.2:8080", "10.77.1.3:8080"].map(|text| text.parse().unwrap());
        for (tried, expect) in [([a].as_slice(), b), ([b].as_slice(), a)] {
            assert_eq!(to(&index, VIP, tried).unwrap().address, expect);
        }
        assert!(to(&index, VIP, &[a, b]).is_ok());
    }

    #[test]
    fn the_idler_of_two_is_taken() {
        let pods = [
            pod("a", "10.77.1.2", Some("web")),
            pod("b", "10.77.1.3", Some("web")),
        ];
        let endpoints = pods.iter().map(|pod| endpoint(pod, 80, 8080)).collect();
        let index = index(service("full/web", VIP, Protocol::Http, endpoints), &pods);
        let destination = index.outbound("full", VIP.parse().unwrap(), None).unwrap();
        let load = Load::default();
        let busy = load.add("10.77.1.2:8080".parse().unwrap());
        for random in [0, 1 << 40, u64::MAX] {
            let hops = Hops::towards(&destination, false);
            let next = hops.next(&index, &destination, &[], random, &load).unwrap();
            assert_eq!(next.hop.address, "10.77.1.3:8080".parse().unwrap());
        }
        drop(busy);
        assert!(load.with(|map| map.is_empty()));
    }
}
