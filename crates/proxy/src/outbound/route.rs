//! Routes: where a workload's requests for one authority go, found once for as long as the snapshot is the same.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use foldhash::HashMap;
use model::{Protocol, Text};
use snapshot::{Destination, Index};

use super::event;
use super::hop::Hops;
use super::plan::Kept;

/// Routes that are remembered. Where there would be more, all are forgotten: each is found again as it was the first time.
const MAX_ROUTES: usize = 1024;

/// And hops of all of them.
const MAX_HOPS: usize = 16_384;

/// Bytes of an authority that one is remembered for; a name in DNS and its port have fewer.
const MAX_AUTHORITY: usize = 512;

/// How long a route is used without having been looked up again. What is looked up counts as in use, which the control plane
/// is told of by rounds of 15 s.
const FRESH: Duration = Duration::from_secs(3);

/// Where requests go.
#[derive(Debug)]
pub(super) struct Route {
    /// The snapshot by which it was decided; held by nobody for this.
    index: Weak<Index>,
    found: Instant,
    pub(super) kept: Arc<Kept>,
    pub(super) destination: Destination,
    /// The host of the Service that was addressed.
    pub(super) host: Option<Arc<str>>,
    pub(super) protocol: Protocol,
    pub(super) hops: Hops,
}

impl Route {
    /// One that was just decided.
    pub(super) fn new(index: &Arc<Index>, kept: Arc<Kept>, destination: Destination, v6: bool) -> Self {
        Self {
            index: Arc::downgrade(index),
            found: Instant::now(),
            kept,
            host: event::host(&destination),
            protocol: protocol(&destination),
            hops: Hops::towards(&destination, v6),
            destination,
        }
    }

    /// Whether it was decided by that snapshot.
    pub(super) fn is_by(&self, index: &Arc<Index>) -> bool {
        std::ptr::eq(self.index.as_ptr(), Arc::as_ptr(index))
    }
}

fn protocol(destination: &Destination) -> Protocol {
    match destination {
        Destination::Service(target) => target.protocol,
        Destination::Direct { service, .. } => {
            service.as_ref().map_or(Protocol::Auto, |target| target.protocol)
        }
        Destination::External(_) => Protocol::Auto,
    }
}

/// What a route depends on besides the snapshot: the workload's mark, what it dialled, and the authority that its request names.
type Asked = (u32, SocketAddr, Text);

/// Routes that are remembered.
#[derive(Debug, Default)]
pub(super) struct Routes(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    routes: HashMap<Asked, Arc<Route>>,
    hops: usize,
}

impl Routes {
    /// A route that was found lately. Whether it was by the snapshot in force is for the asker to see.
    pub(super) fn get(&self, asked: &Asked, now: Instant) -> Option<Arc<Route>> {
        let known = self.known();
        let route = known.routes.get(asked)?;
        let fresh = now.saturating_duration_since(route.found) < FRESH;
        fresh.then(|| Arc::clone(route))
    }

    /// Remembers one.
    pub(super) fn keep(&self, asked: Asked, route: &Arc<Route>) {
        let hops = route.hops.len();
        if hops > MAX_HOPS || asked.2.len() > MAX_AUTHORITY {
            return;
        }
        let mut known = self.known();
        if let Some(before) = known.routes.remove(&asked) {
            known.hops = known.hops.saturating_sub(before.hops.len());
        }
        if known.routes.len() >= MAX_ROUTES || known.hops.saturating_add(hops) > MAX_HOPS {
            *known = Known::default();
        }
        known.hops = known.hops.saturating_add(hops);
        known.routes.insert(asked, Arc::clone(route));
    }

    /// Forgets all: what they hold is of a snapshot that is not in force any more, or nobody asks.
    pub(super) fn clear(&self) {
        *self.known() = Known::default();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::world::{mesh, service};
    use super::*;
    use snapshot::{Egress, Resource, Resources};

    fn index() -> Arc<Index> {
        let resources: Resources = [
            Resource::from(mesh(Egress::AllowAny)),
            service("full/web", "10.96.0.20:80", Protocol::Http, vec![]).into(),
        ]
        .into_iter()
        .collect();
        Arc::new(Index::build(&resources).unwrap())
    }

    fn asked(authority: &str) -> Asked {
        (7, "1.2.3.4:80".parse().unwrap(), authority.into())
    }

    fn route(index: &Arc<Index>) -> Arc<Route> {
        let (_, dialled, authority) = asked("web");
        let destination = Destination::External(dialled);
        let kept = Arc::new(Kept::new("full", dialled, Some(authority)));
        Arc::new(Route::new(index, kept, destination, false))
    }

    #[test]
    fn a_route_is_of_one_snapshot_and_holds_it_not() {
        let (one, other) = (index(), index());
        let route = route(&one);
        assert!(route.is_by(&one) && !route.is_by(&other));
        drop(one);
        assert!(route.index.upgrade().is_none());
    }

    #[test]
    fn a_route_is_looked_up_again_before_the_control_plane_takes_it_for_unused() {
        let routes = Routes::default();
        let route = route(&index());
        routes.keep(asked("web"), &route);
        assert!(routes.get(&asked("web"), route.found).is_some());
        assert!(routes.get(&asked("other"), route.found).is_none());
        assert!(routes.get(&asked("web"), route.found + FRESH).is_none());
    }

    #[test]
    fn whoever_names_very_many_hosts_takes_no_more_room() {
        let routes = Routes::default();
        let route = route(&index());
        for n in 0..3 * MAX_ROUTES {
            routes.keep(asked(&n.to_string()), &route);
            routes.keep(asked(&n.to_string()), &route);
            let known = routes.known();
            assert!(known.routes.len() <= MAX_ROUTES);
            assert_eq!(known.hops, known.routes.len(), "each has one hop");
        }
        routes.clear();
        assert_eq!(routes.known().hops, 0);
        routes.keep(asked(&"x".repeat(MAX_AUTHORITY + 1)), &route);
        assert!(routes.known().routes.is_empty());
    }
}
