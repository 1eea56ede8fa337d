//! What the control plane counts of itself, by the names that Istio's dashboards ask for.
//!
//! Changes are seen by comparing one view with the one before, beside the writer and never within it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use identity::{Clock as _, SystemClock};
use meshward_http::pages::Pages;
use telemetry::{Board, Counts, Spread};
use tokio::sync::watch;
use xds::server::{NodeStatus, Observe, Server};

use super::lists::lists;
use crate::layers::{Held, Key};
use crate::view::View;

/// Seconds, as Istio bounds them.
const SECONDS: &[f64] = &[0.001, 0.01, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0];
/// Bytes, as Istio bounds them.
const BYTES: &[f64] = &[1.0, 1e4, 1e6, 4e6, 1e7, 4e7];

/// `type` of what goes over the streams: there is one type, for which Istio would write its URL.
const TYPE: (&str, &str) = ("type", xds::TYPE_URL);

/// The metrics of a control plane.
#[derive(Debug)]
pub(crate) struct Meters {
    board: Board,
    server: Server,
    view: watch::Receiver<Arc<View>>,
    streams: Counts,
    behind: Counts,
    faults: Counts,
    services: Counts,
    lists_left: Counts,
    lists_until: Counts,
    validated: Validated,
    events: Events,
}

/// `galley_validation_*`: objects that were taken, and that were not.
#[derive(Debug)]
struct Validated {
    passed: Counts,
    failed: Counts,
}

/// What changed.
#[derive(Debug)]
struct Events {
    configuration: Counts,
    registry: Counts,
    triggers: Counts,
    enrolled: Counts,
    convergence: Spread,
}

/// What goes over the streams.
#[derive(Clone, Debug)]
struct Pushed {
    pushes: Counts,
    refusals: Counts,
    bytes: Spread,
    time: Spread,
}

impl Observe for Pushed {
    fn pushed(&self, bytes: usize) {
        self.pushes.add(&[TYPE], 1);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.bytes.observe(&[TYPE], f64::from(bytes));
    }

    fn answered(&self, after: Duration, refused: bool) {
        self.time.observe(&[TYPE], after.as_secs_f64());
        if refused {
            self.refusals.add(&[TYPE], 1);
        }
    }
}

impl Meters {
    /// Of a control plane; what its server sends is counted from now on.
    pub(crate) fn new(server: Server, view: watch::Receiver<Arc<View>>) -> Self {
        let mut board = Board::new("pilot");
        let pushed = Pushed {
            pushes: board.counts("pilot_xds_pushes", "Responses sent to proxies"),
            refusals: board.counts("pilot_total_xds_rejects", "Responses that proxies refused"),
            bytes: board.spread(
                "pilot_xds_config_size_bytes",
                "Sizes of responses, in bytes",
                BYTES,
            ),
            time: board.spread(
                "pilot_xds_push_time",
                "Seconds from a response to its answer",
                SECONDS,
            ),
        };
        pushed.refusals.set(&[TYPE], 0);
        server.observe(Arc::new(pushed.clone()));
        let faults = board.counts(
            "pilot_total_xds_internal_errors",
            "Snapshots that could not be published",
        );
        faults.set(&[], 0);
        let meters = Self {
            streams: board.counts("pilot_xds", "Proxies whose stream is open"),
            behind: board.counts(
                "meshward_proxies_behind",
                "Proxies that have not acknowledged what is published",
            ),
            faults,
            services: board.counts("pilot_services", "Services that are known"),
            lists_left: board.counts(
                "meshward_crl_expiry_seconds",
                "Seconds until a revocation list ends, and with it the trust in its issuer",
            ),
            lists_until: board.counts(
                "meshward_crl_expiry_timestamp",
                "When a revocation list ends, in seconds since 1970",
            ),
            validated: Validated {
                passed: board.counts("galley_validation_passed", "Objects that were found valid"),
                failed: board.counts("galley_validation_failed", "Objects that were found invalid"),
            },
            events: Events {
                configuration: board.counts("pilot_k8s_cfg_events", "Changes of configuration"),
                registry: board.counts("pilot_k8s_reg_events", "Changes of Services and pods"),
                triggers: board.counts("pilot_push_triggers", "Publications, by what led to them"),
                enrolled: board.counts("sidecar_injection_success_total", "Pods taken into the mesh"),
                convergence: board.spread(
                    "pilot_proxy_convergence_time",
                    "Seconds from a publication to a proxy's acknowledgement",
                    SECONDS,
                ),
            },
            board,
            server,
            view,
        };
        // Where nothing was refused yet, that is known.
        meters.validated.failed.set(&[], 0);
        meters.validated.passed.set(&[], 0);
        meters.events.enrolled.set(&[], 0);
        meters
    }

    /// The number of objects of an `apply` that were taken to be read, and that were not.
    pub(crate) fn validated(&self, passed: usize, failed: usize) {
        self.validated.passed.add(&[], number(passed));
        self.validated.failed.add(&[], number(failed));
    }

    /// All of it, as text.
    pub(crate) fn text(&self) -> String {
        let said = self.server.nodes().borrow().clone();
        let view = Arc::clone(&self.view.borrow());
        let connected = said.values().filter(|status| status.connected).count();
        self.streams.set(&[], number(connected));
        let behind = |node: &&String| {
            let wanted = view.versions.get(*node);
            !wanted.is_some_and(|wanted| said.get(*node).is_some_and(|status| status.has(*wanted)))
        };
        self.behind
            .set(&[], number(view.frozen.nodes.iter().filter(behind).count()));
        let services = view.frozen.held().filter(|held| held.key.kind == "Service");
        self.services.set(&[], number(services.count()));
        let now = i64::try_from(SystemClock.now().as_secs()).unwrap_or(i64::MAX);
        for list in lists(&view, now) {
            let issuer = [("issuer", list.issuer.as_str())];
            self.lists_left
                .set(&issuer, u64::try_from(list.left_s).unwrap_or(0));
            self.lists_until
                .set(&issuer, u64::try_from(list.next_update).unwrap_or(0));
        }
        self.board.text()
    }

    /// Counts changes for ever.
    pub(crate) async fn follow(self: Arc<Self>) -> Result<(), String> {
        let (mut views, mut nodes) = (self.view.clone(), self.server.nodes());
        let mut before = Arc::<View>::default();
        let mut waiting: BTreeMap<String, (u64, Instant)> = BTreeMap::new();
        loop {
            let now = Arc::clone(&views.borrow_and_update());
            if now.frozen.revision != before.frozen.revision {
                self.changed(&before, &now);
                for (node, version) in &now.versions {
                    if before.versions.get(node) != Some(version) {
                        waiting.insert(node.clone(), (*version, Instant::now()));
                    }
                }
                before = now;
            }
            self.converged(&mut waiting, &nodes.borrow_and_update());
            tokio::select! {
                changed = views.changed() => changed.map_err(|_| "the plane has ended".to_owned())?,
                changed = nodes.changed() => changed.map_err(|_| "the server has ended".to_owned())?,
            }
        }
    }

    fn converged(&self, waiting: &mut BTreeMap<String, (u64, Instant)>, said: &BTreeMap<String, NodeStatus>) {
        waiting.retain(|node, (version, since)| {
            let has = said.get(node).is_some_and(|status| status.has(*version));
            if has {
                let convergence = &self.events.convergence;
                convergence.observe(&[], since.elapsed().as_secs_f64());
            }
            !has
        });
    }

    fn changed(&self, before: &View, now: &View) {
        let mut configuration = false;
        let names = now.whole.differs_from(&before.whole);
        for (held, event) in differences(before, now, &names) {
            let key = &held.key;
            if event != "delete" {
                let refused = held.object.refused(now.frozen.profile).is_some();
                self.validated(usize::from(!refused), usize::from(refused));
            }
            let counts = match kind_of(key) {
                Some(_) => &self.events.registry,
                None => {
                    configuration = true;
                    &self.events.configuration
                }
            };
            let kind = kind_of(key).unwrap_or(&key.kind);
            counts.add(&[("type", kind), ("event", event)], 1);
        }
        self.faults.add(&[], number(now.unpublished()));
        let pods = |view: &View| -> BTreeSet<String> {
            let all = names.iter().flat_map(|name| view.whole.pods_of(name));
            all.filter(|pod| pod.in_mesh).map(|pod| pod.uid).collect()
        };
        let (had, has) = (pods(before), pods(now));
        self.events
            .enrolled
            .add(&[], number(has.difference(&had).count()));
        let mut pods = 0;
        for (some, others, event) in [(&has, &had, "add"), (&had, &has, "delete")] {
            let many = some.difference(others).count();
            pods += many;
            if many > 0 {
                let labels = [("type", "Pods"), ("event", event)];
                self.events.registry.add(&labels, number(many));
            }
        }
        let trigger = match (configuration, pods) {
            (true, _) => "config",
            (false, 1..) => "endpoint",
            (false, 0) => "global",
        };
        self.events.triggers.add(&[("type", trigger)], 1);
    }
}

/// What Istio counts as its registry and not as its configuration.
fn kind_of(key: &Key) -> Option<&'static str> {
    match (key.group.as_str(), key.kind.as_str()) {
        ("", "Service") => Some("Services"),
        ("", "Namespace") => Some("Namespaces"),
        ("discovery.k8s.io", "EndpointSlice") => Some("EndpointSlice"),
        ("", "Pod") => Some("Pods"),
        _ => None,
    }
}

/// What differs in these namespaces: `add`, `update`, `delete`.
fn differences<'a>(
    before: &'a View,
    now: &'a View,
    names: &BTreeSet<Arc<str>>,
) -> Vec<(&'a Held, &'static str)> {
    let mut found: Vec<(&Held, &str)> = Vec::new();
    for name in names {
        let of = |view: &'a View| view.frozen.in_force.get(name).map(AsRef::as_ref);
        let (was, is) = (of(before), of(now));
        let other = |view: Option<&'a BTreeMap<Key, Vec<Arc<Held>>>>, key: &Key| {
            view.and_then(|space| space.get(key))
        };
        for (key, held) in was.into_iter().flatten() {
            if other(is, key).is_none() {
                found.extend(held.iter().map(|held| (&**held, "delete")));
            }
        }
        for (key, held) in is.into_iter().flatten() {
            let Some(old) = other(was, key) else {
                found.extend(held.iter().map(|held| (&**held, "add")));
                continue;
            };
            let pairs = old
                .iter()
                .zip(held)
                .filter(|(a, b)| !Arc::ptr_eq(a, b) && a.digest != b.digest);
            found.extend(pairs.map(|(_, held)| (&**held, "update")));
            found.extend(held.iter().skip(old.len()).map(|held| (&**held, "add")));
            found.extend(old.iter().skip(held.len()).map(|held| (&**held, "delete")));
        }
    }
    found
}

impl Pages for Meters {
    fn metrics(&self) -> String {
        self.text()
    }

    fn missing(&self) -> Vec<String> {
        let view = self.view.borrow();
        let mut missing = Vec::new();
        if view.frozen.revision == 0 {
            missing.push("nothing is published yet".to_owned());
        }
        if view.frozen.roots.is_empty() {
            missing.push("no trust bundle yet".to_owned());
        }
        missing
    }
}

fn number(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
