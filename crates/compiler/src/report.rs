//! What is told about objects: problems and effects, gathered while compiling.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use api::{Object, ObjectRef, Problem, Severity};

use crate::Effect;
use crate::view::{Of, View};

/// Stable codes of findings; Istio's where the finding is the same.
pub(crate) mod code {
    /// A reference leads nowhere.
    pub(crate) const NOT_FOUND: &str = "IST0101";
    /// A label or annotation has a value that is not known.
    pub(crate) const NAMESPACE_LABELS: &str = "IST0123";
    /// A selector selects nothing.
    pub(crate) const SELECTS_NOTHING: &str = "IST0127";
    /// A DestinationRule's host is no Service.
    pub(crate) const UNKNOWN_HOST: &str = "IST0174";
    /// A security object that is not in force.
    pub(crate) const NOT_IN_FORCE: &str = "MW0501";
    /// An older object of the same scope is used instead.
    pub(crate) const SHADOWED: &str = "MW0502";
    /// An object that would weaken what the root namespace demands.
    pub(crate) const FLOOR: &str = "MW0503";
    /// Two Services say different protocols for one workload port.
    pub(crate) const PORT_CONFLICT: &str = "MW0504";
    /// A cluster address that cannot be used, or none left.
    pub(crate) const CLUSTER_ADDRESS: &str = "MW0505";
    /// A MeshConfig value that cannot be used.
    pub(crate) const MESH_CONFIG: &str = "MW0506";
    /// A DestinationRule takes encryption away.
    pub(crate) const PLAINTEXT: &str = "MW0507";
    /// A pod cannot have an identity.
    pub(crate) const IDENTITY: &str = "MW0508";
    /// An endpoint that is no address of the network.
    pub(crate) const LOCAL_ADDRESS: &str = "MW0510";
    /// A policy that the decision cannot use.
    pub(crate) const DEFECTIVE: &str = "MW0511";
    /// A policy that grants more than a Guardrail's ceiling lets it.
    pub(crate) const CEILING: &str = "MW0512";
    /// A path dialect that is none.
    pub(crate) const PATH_DIALECT: &str = "MW0513";
    /// The keys of an issuer cannot be had, or come on a way that proves nothing.
    pub(crate) const KEYS: &str = "MW0522";
    /// An external authorizer that cannot be asked.
    pub(crate) const PROVIDER: &str = "MW0514";
    /// Two objects of one name.
    pub(crate) const DUPLICATE: &str = "MW0509";
}

/// The effect of an object while it is being found out.
#[derive(Debug, Default)]
struct Draft {
    in_force: bool,
    why: BTreeSet<String>,
    targets: BTreeSet<String>,
    nodes: BTreeSet<String>,
    shadowed_by: BTreeSet<ObjectRef>,
}

/// Problems and effects so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    problems: Vec<Problem>,
    effects: BTreeMap<ObjectRef, Draft>,
    told: HashSet<(ObjectRef, String)>,
}

impl Report {
    pub(crate) fn new(view: &View<'_>) -> Self {
        let mut report = Self::default();
        let security = view.peer_authentications.iter().map(|of| of.object);
        let security = security.chain(view.authorization_policies.iter().map(|of| of.object));
        let security = security.chain(view.guardrails.iter().map(|of| of.object));
        let security = security.chain(view.request_authentications.iter().map(|of| of.object));
        let told = view.telemetries.iter().map(|of| of.object);
        let security = security.chain(told);
        let security = security.chain(view.destination_rules.iter().map(|of| of.object));
        let security = security.chain(view.service_entries.iter().map(|of| of.object));
        for object in security.chain(view.sidecars.iter().map(|of| of.object)) {
            report.effects.insert(
                object.reference(),
                Draft {
                    in_force: true,
                    ..Draft::default()
                },
            );
        }
        for (object, used) in &view.duplicates {
            let message = format!(
                "`{}` is defined twice; the other definition is used",
                object.reference()
            );
            let remedy = format!(
                "remove this one or the one at {}:{}",
                used.origin.file, used.origin.line
            );
            report.tell(
                object,
                "metadata.name",
                Problem::new(Severity::Error, code::DUPLICATE, message).remedy(remedy),
            );
        }
        report.namespaces(view);
        report
    }

    /// A finding at a field of an object.
    pub(crate) fn tell(&mut self, object: &Object, path: &str, problem: Problem) {
        self.problems.push(object.problem(problem, path));
    }

    /// A finding that several pods lead to, told once.
    pub(crate) fn tell_once(&mut self, object: &Object, path: &str, problem: Problem) {
        if self.told.insert((object.reference(), problem.message.clone())) {
            self.tell(object, path, problem);
        }
    }

    /// A finding that belongs to no object.
    pub(crate) fn tell_all(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// The object decides for a target, on a node.
    pub(crate) fn applies<T>(&mut self, of: &Of<'_, T>, target: String, node: &str) {
        let draft = self.draft(of.object);
        draft.targets.insert(target);
        if !node.is_empty() {
            draft.nodes.insert(node.to_owned());
        }
    }

    /// The object is in force, but not as written. Whether that was not known yet.
    pub(crate) fn qualify(&mut self, object: &Object, why: String) -> bool {
        self.draft(object).why.insert(why)
    }

    /// The object has no effect at all.
    pub(crate) fn not_in_force(&mut self, object: &Object, why: &str) {
        let draft = self.draft(object);
        draft.in_force = false;
        draft.why.insert(why.to_owned());
    }

    /// The object has no effect, and somebody relies on it: an error.
    pub(crate) fn unheeded(&mut self, object: &Object, path: &str, why: &str, remedy: &str) {
        self.not_in_force(object, why);
        let message = format!("`{}` is accepted, not in force: {why}", object.reference());
        self.tell(
            object,
            path,
            Problem::new(Severity::Error, code::NOT_IN_FORCE, message).remedy(remedy),
        );
    }

    /// An older object of the same scope is used in its place (R38).
    pub(crate) fn shadowed(&mut self, object: &Object, by: &Object, path: &str, what: &str) {
        if !self.draft(object).shadowed_by.insert(by.reference()) {
            return;
        }
        let message = format!(
            "`{}` is older and decides {what}; this one has no effect there",
            by.reference()
        );
        let remedy = "merge the two objects, or delete the older one";
        self.tell(
            object,
            path,
            Problem::new(Severity::Warning, code::SHADOWED, message).remedy(remedy),
        );
    }

    /// Security kinds that are not acted on. The reader has told of them, with the place; here they get their effect.
    pub(crate) fn unsupported(&mut self, view: &View<'_>) {
        for object in &view.unsupported {
            self.not_in_force(
                object,
                &format!("{} is not acted on by this version", object.kind_name),
            );
        }
    }

    fn namespaces(&mut self, view: &View<'_>) {
        for object in view.namespaces.values() {
            let labels = &object.meta.labels;
            if labels.contains_key("istio-injection") && labels.contains_key("istio.io/rev") {
                let message =
                    "the labels `istio-injection` and `istio.io/rev` are both set; `istio-injection` decides";
                let problem = Problem::new(Severity::Warning, code::NAMESPACE_LABELS, message);
                self.tell(object, "metadata.labels", problem.remedy("keep one of them"));
            }
            if labels
                .get("istio.io/dataplane-mode")
                .is_some_and(|mode| mode == "ambient")
            {
                let message = "the label `istio.io/dataplane-mode: ambient` is not acted on; pods without an injection label are outside the mesh";
                let problem = Problem::new(Severity::Error, code::NOT_IN_FORCE, message);
                self.tell(
                    object,
                    "metadata.labels",
                    problem.remedy("label the namespace `istio-injection: enabled`"),
                );
            }
        }
    }

    fn draft(&mut self, object: &Object) -> &mut Draft {
        self.effects.entry(object.reference()).or_default()
    }

    /// Everything, in an order that follows from the content alone.
    pub(crate) fn finish(mut self) -> (Vec<Problem>, Vec<Effect>) {
        fn key(p: &Problem) -> (&str, u32, u32, &str, &str) {
            (&p.file, p.line, p.column, &p.code, &p.message)
        }
        self.problems
            .sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.object.cmp(&b.object)));
        self.problems.dedup();
        let effects = self.effects.into_iter().map(|(object, draft)| Effect {
            object,
            in_force: draft.in_force,
            why: draft.why.into_iter().collect(),
            targets: draft.targets.into_iter().collect(),
            nodes: draft.nodes.into_iter().collect(),
            shadowed_by: draft.shadowed_by.into_iter().collect(),
        });
        (self.problems, effects.collect())
    }
}

/// A selector that no pod has the labels of.
pub(crate) fn nothing_selected(labels: &BTreeMap<String, String>) -> Problem {
    let asked: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    Problem::new(
        Severity::Warning,
        code::SELECTS_NOTHING,
        format!(
            "no pod has the labels `{}` that the selector asks for",
            asked.join(",")
        ),
    )
    .remedy("compare the labels with those of the pods, `meshward get pods -o wide`")
}
