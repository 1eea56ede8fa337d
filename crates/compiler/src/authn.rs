//! Which connections may come in plaintext: PeerAuthentication, resolved for a workload and its ports
//! (semantics 1.1, 1.2).
//!
//! Under the secure profile the default is STRICT, objects of the root namespace with a selector are honoured
//! (R5), and what the root namespace demands is a floor: objects of other namespaces may raise it and not lower
//! it, unless the root object carries `meshward.dev/floor: "false"` (P19).

pub(crate) mod request;

use std::collections::{BTreeMap, HashMap};

use api::{Guardrail, MtlsMode as Written, MutualTls, PeerAuthentication, Problem, Severity};
use model::MtlsMode;

use crate::authz::Guardrails;
use crate::pods::PodFacts;
use crate::report::{Report, code, tell_nothing_selected};
use crate::view::{Of, View, covers};

/// On a root-namespace object: `"false"` lets lower scopes weaken it.
const FLOOR: &str = "meshward.dev/floor";

type Peer<'a> = Of<'a, PeerAuthentication>;

/// The modes of one workload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Effective {
    /// Of every port that `ports` does not name.
    pub(crate) default: MtlsMode,
    /// Ports that some object names.
    pub(crate) ports: BTreeMap<u16, MtlsMode>,
    /// The object that `default` comes from, as [`snapshot::Inbound::mtls_decided_by`] names it.
    pub(crate) decided_by: Option<String>,
}

impl Effective {
    pub(crate) fn port(&self, port: u16) -> MtlsMode {
        self.ports.get(&port).copied().unwrap_or(self.default)
    }

    /// The two lists by which clients know where mutual TLS is not taken: see [`snapshot::Endpoint`].
    pub(crate) fn for_clients(&self) -> (Vec<u16>, Vec<u16>) {
        let of = |disabled: bool| {
            let ports = self
                .ports
                .iter()
                .filter(move |(_, mode)| (**mode == MtlsMode::Disable) == disabled);
            ports.map(|(port, _)| *port)
        };
        if self.default == MtlsMode::Disable {
            (std::iter::once(0).chain(of(true)).collect(), of(false).collect())
        } else {
            (of(true).collect(), Vec::new())
        }
    }
}

/// The objects by scope, oldest first.
#[derive(Debug)]
pub(crate) struct Authn<'a> {
    secure: bool,
    guardrails: &'a Guardrails<'a>,
    root_namespace: &'a str,
    mesh: Option<Peer<'a>>,
    /// Of the root namespace, with a selector; empty where they are not honoured.
    root: Vec<Peer<'a>>,
    namespaces: HashMap<&'a str, Scope<'a>>,
}

#[derive(Debug, Default)]
struct Scope<'a> {
    plain: Option<Peer<'a>>,
    selecting: Vec<Peer<'a>>,
}

/// A mode and the object that says so.
type Said<'a> = Option<(MtlsMode, Peer<'a>)>;

/// The object that has the last word.
#[derive(Clone, Copy, Debug)]
enum By<'a> {
    Peer(Peer<'a>),
    Rail(Of<'a, Guardrail>),
}

impl By<'_> {
    fn name(self) -> String {
        match self {
            Self::Peer(of) => format!("{}/{}", of.namespace(), of.name()),
            Self::Rail(of) => format!("Guardrail/{}/{}", of.namespace(), of.name()),
        }
    }
}

impl<'a> Authn<'a> {
    pub(crate) fn new(view: &View<'a>, guardrails: &'a Guardrails<'a>, report: &mut Report) -> Self {
        let mut authn = Self {
            secure: view.secure(),
            guardrails,
            root_namespace: view.root_namespace(),
            mesh: None,
            root: Vec::new(),
            namespaces: HashMap::new(),
        };
        for of in &view.peer_authentications {
            if let (Some(why), false) = (&of.object.invalid, authn.secure) {
                report.not_in_force(of.object, why);
                continue;
            }
            if let Some(why) = &of.object.invalid {
                report.qualify(
                    of.object,
                    format!("invalid, therefore STRICT for what it selects: {why}"),
                );
            }
            authn.sort_in(view, *of, report);
        }
        authn
    }

    fn sort_in(&mut self, view: &View<'_>, of: Peer<'a>, report: &mut Report) {
        let is_root = of.namespace() == self.root_namespace;
        let labels = of.body.labels();
        if labels.is_empty() {
            let place = if is_root {
                &mut self.mesh
            } else {
                &mut self.namespaces.entry(of.namespace()).or_default().plain
            };
            match place {
                None => *place = Some(of),
                Some(older) => report.shadowed(of.object, older.object, "metadata.name", "this scope"),
            }
            return;
        }
        if is_root && !self.secure {
            let why = "a selector in the root namespace has no effect under the profile `istio`";
            report.not_in_force(of.object, why);
            let problem = Problem::new(
                Severity::Warning,
                code::NOT_IN_FORCE,
                format!("`{}`: {why}", of.object.reference()),
            );
            report.tell(
                of.object,
                "spec.selector",
                problem.remedy("write one object into each namespace"),
            );
            return;
        }
        tell_nothing_selected(view, of.object, is_root, labels, report);
        if is_root {
            self.root.push(of);
        } else {
            self.namespaces
                .entry(of.namespace())
                .or_default()
                .selecting
                .push(of);
        }
    }

    /// The modes of a pod; tells which objects decide, which are shadowed, and which were held to the floor.
    pub(crate) fn effective(&self, pod: &PodFacts, report: &mut Report) -> Effective {
        // Objects of the root namespace are none of these: their scope is the mesh.
        let scope = self.namespaces.get(pod.namespace());
        let root_wl = oldest(&self.root, pod, report);
        let wl = scope.and_then(|scope| oldest(&scope.selecting, pod, report));
        let ns = scope.and_then(|scope| scope.plain);
        let root = said(root_wl).or_else(|| said(self.mesh));
        let lower = said(wl).or_else(|| said(ns));
        let mut heed = Heed {
            pod,
            report,
            authn: self,
        };
        let default = heed.mode(lower, root);
        let mut ports = BTreeMap::new();
        let named = |of: Option<Peer<'a>>| of.into_iter().flat_map(|of| of.body.port_level_mtls.iter());
        for (port, _) in named(root_wl).chain(named(wl)) {
            let lower = said_of_port(wl, *port).or(lower);
            let root = said_of_port(root_wl, *port).or(root);
            ports.insert(*port, heed.mode(lower, root).0);
        }
        Effective {
            default: default.0,
            ports,
            decided_by: default.1.map(By::name),
        }
    }

    fn base(&self) -> MtlsMode {
        if self.secure {
            MtlsMode::Strict
        } else {
            MtlsMode::Permissive
        }
    }
}

struct Heed<'x, 'a> {
    pod: &'x PodFacts,
    report: &'x mut Report,
    authn: &'x Authn<'a>,
}

impl<'a> Heed<'_, 'a> {
    /// The mode in force: the lower scope's, held to the root's where that is a floor.
    fn mode(&mut self, lower: Said<'a>, root: Said<'a>) -> (MtlsMode, Option<By<'a>>) {
        let (mode, by) = match (lower, root) {
            (None, None) => (self.authn.base(), None),
            (None, Some((mode, by))) => (mode, Some(by)),
            (Some((mode, by)), root) => {
                match root.filter(|(floor, of)| self.is_floor(*of) && mode < *floor) {
                    None => (mode, Some(by)),
                    Some((floor, root)) => {
                        let name = format!("{}/{}", root.namespace(), root.name());
                        let remedy =
                            format!("ask for an exception: annotate `{name}` with `{FLOOR}: \"false\"`");
                        self.clamped(by, (mode, floor), &format!("`{name}`"), remedy);
                        (floor, Some(root))
                    }
                }
            }
        };
        let counts = self.pod.in_mesh && self.pod.live;
        if let Some(by) = by.filter(|_| counts) {
            self.report.applies(by.object, self.pod.place());
        }
        let Some((floor, rail)) = self.authn.guardrails.floor(self.pod.namespace()) else {
            return (mode, by.map(By::Peer));
        };
        if counts {
            self.report.applies(rail.object, self.pod.place());
        }
        if mode >= floor {
            return (mode, by.map(By::Peer));
        }
        if let Some(lower) = by {
            let demands = format!("Guardrail `{}/{}`", rail.namespace(), rail.name());
            let remedy = "have the namespace left out by its `notNamespaces`".to_owned();
            self.clamped(lower, (mode, floor), &demands, remedy);
        }
        (floor, Some(By::Rail(rail)))
    }

    fn is_floor(&self, of: Peer<'a>) -> bool {
        self.authn.secure && of.object.meta.annotations.get(FLOOR).map(String::as_str) != Some("false")
    }

    fn clamped(&mut self, lower: Peer<'a>, (mode, floor): (MtlsMode, MtlsMode), root: &str, remedy: String) {
        let why = format!("{mode} held to the floor {floor} of {root}");
        if !self.report.qualify(lower.object, why) {
            return;
        }
        let message = format!(
            "{mode} would weaken {floor}, which {root} demands of the whole mesh; {floor} stays in force (floor)"
        );
        let problem = Problem::new(Severity::Error, code::FLOOR, message).remedy(remedy);
        self.report.tell(lower.object, "spec", problem);
    }
}

/// The oldest of the objects that select the pod; the others are told that it shadows them.
fn oldest<'a>(list: &[Peer<'a>], pod: &PodFacts, report: &mut Report) -> Option<Peer<'a>> {
    let mut selecting = list.iter().filter(|of| covers(of.body.labels(), pod.labels()));
    let winner = *selecting.next()?;
    if pod.in_mesh {
        selecting.for_each(|of| {
            report.shadowed(
                of.object,
                winner.object,
                "spec.selector",
                "workloads that both select",
            );
        });
    }
    Some(winner)
}

/// The mode of an object; `None` where it inherits. What cannot be read is STRICT.
fn said(of: Option<Peer<'_>>) -> Said<'_> {
    let of = of?;
    if of.object.invalid.is_some() {
        return Some((MtlsMode::Strict, of));
    }
    Some((mode(of.body.mtls)?, of))
}

fn said_of_port(of: Option<Peer<'_>>, port: u16) -> Said<'_> {
    let of = of.filter(|of| of.object.invalid.is_none())?;
    Some((mode(of.body.port_level_mtls.get(&port).copied())?, of))
}

fn mode(written: Option<MutualTls>) -> Option<MtlsMode> {
    match written?.mode {
        Written::Unset => None,
        Written::Disable => Some(MtlsMode::Disable),
        Written::Permissive => Some(MtlsMode::Permissive),
        Written::Strict => Some(MtlsMode::Strict),
    }
}
