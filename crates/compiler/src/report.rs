//! What is told about objects: problems and effects, gathered while compiling.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{Object, ObjectRef, Problem, Severity};

use crate::Effect;
use crate::space::Space;
use crate::view::View;

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

/// The effect of an object, as far as one namespace knows it.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Draft {
    /// Whether it is an object of this namespace that has its effect unless somebody says otherwise.
    known: bool,
    void: bool,
    why: BTreeSet<String>,
    targets: BTreeSet<Arc<str>>,
    nodes: BTreeSet<Arc<str>>,
    shadowed_by: BTreeSet<ObjectRef>,
}

impl Draft {
    fn add(&mut self, other: &Self) {
        self.known |= other.known;
        self.void |= other.void;
        self.why.extend(other.why.iter().cloned());
        self.targets.extend(other.targets.iter().cloned());
        self.nodes.extend(other.nodes.iter().cloned());
        self.shadowed_by.extend(other.shadowed_by.iter().cloned());
    }

    fn finish(self, object: ObjectRef) -> Effect {
        let texts = |set: BTreeSet<Arc<str>>| set.iter().map(|text| text.as_ref().to_owned()).collect();
        Effect {
            object,
            in_force: self.known && !self.void,
            why: self.why.into_iter().collect(),
            targets: texts(self.targets),
            nodes: texts(self.nodes),
            shadowed_by: self.shadowed_by.into_iter().collect(),
        }
    }
}

/// What was told, of one namespace or of the settings.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Said {
    /// Ordered, each once.
    pub(crate) problems: Vec<Problem>,
    effects: BTreeMap<ObjectRef, Draft>,
}

impl Said {
    /// What several have said together.
    pub(crate) fn all<'s>(said: impl Iterator<Item = &'s Self>) -> (Vec<Problem>, Vec<Effect>) {
        let mut problems = Vec::new();
        let mut effects: BTreeMap<&ObjectRef, Draft> = BTreeMap::new();
        for said in said {
            problems.extend(said.problems.iter().cloned());
            for (object, draft) in &said.effects {
                effects.entry(object).or_default().add(draft);
            }
        }
        order(&mut problems);
        let effects = effects.into_iter();
        (
            problems,
            effects
                .map(|(object, draft)| draft.finish(object.clone()))
                .collect(),
        )
    }

    /// What several have said of one object.
    pub(crate) fn effect<'s>(object: &ObjectRef, said: impl Iterator<Item = &'s Self>) -> Option<Effect> {
        let mut whole: Option<Draft> = None;
        for draft in said.filter_map(|said| said.effects.get(object)) {
            whole.get_or_insert_default().add(draft);
        }
        Some(whole?.finish(object.clone()))
    }

    /// Adds what another one has said.
    pub(crate) fn add(&mut self, other: &Self) {
        self.problems.extend(other.problems.iter().cloned());
        order(&mut self.problems);
        for (object, draft) in &other.effects {
            self.effects.entry(object.clone()).or_default().add(draft);
        }
    }
}

/// By place, each once.
pub(crate) fn order(problems: &mut Vec<Problem>) {
    fn key(p: &Problem) -> (&str, u32, u32, &str, &str) {
        (&p.file, p.line, p.column, &p.code, &p.message)
    }
    problems.sort_by(|a, b| {
        let by_place = key(a).cmp(&key(b)).then_with(|| a.object.cmp(&b.object));
        by_place.then_with(|| (&a.path, &a.remedy).cmp(&(&b.path, &b.remedy)))
    });
    problems.dedup();
}

/// Who a pod is, for people, and its node; empty where it has none yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) shown: &'a Arc<str>,
    pub(crate) node: &'a Arc<str>,
}

/// Problems and effects so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Whose report it is.
    own: String,
    /// Objects of the root namespace are in everybody's view: that one tells what is to be said of them as they stand. What
    /// becomes of them before a pod is told by the pod's namespace.
    only_own: bool,
    problems: Vec<Problem>,
    effects: BTreeMap<ObjectRef, Draft>,
    /// Selectors that look for pods in all namespaces, and whether there are some.
    asked: Vec<Asked>,
}

/// A selector, and whether some pod has its labels.
pub(crate) type Asked = (BTreeMap<String, String>, bool);

impl Report {
    /// Of a namespace, with what can be said of its objects by a look at each.
    pub(crate) fn new(view: &View<'_>) -> Self {
        let mut report = Self {
            own: view.own.to_owned(),
            only_own: true,
            ..Self::default()
        };
        let security = view.peer_authentications.iter().map(|of| of.object);
        let security = security.chain(view.authorization_policies.iter().map(|of| of.object));
        let security = security.chain(view.guardrails.iter().map(|of| of.object));
        let security = security.chain(view.request_authentications.iter().map(|of| of.object));
        let told = view.telemetries.iter().map(|of| of.object);
        let security = security.chain(told);
        let security = security.chain(view.destination_rules.iter().copied());
        let security = security.chain(view.service_entries.iter().map(|of| of.object));
        for object in security.chain(view.sidecars.iter().map(|of| of.object)) {
            if let Some(draft) = report.draft(object) {
                draft.known = true;
            }
        }
        for (object, used) in view.duplicates {
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
        report.namespace(view);
        report.unsupported(view);
        report
    }

    /// Of objects wherever they lie.
    pub(crate) fn of_all() -> Self {
        Self::default()
    }

    /// Whether from here on only what is said of the namespace's own objects counts: while objects are looked at as they
    /// stand, not before pods and Services.
    pub(crate) fn only_own(&mut self, only: bool) {
        self.only_own = only;
    }

    /// Whether what is told of an object is kept.
    pub(crate) fn hears(&self, object: &Object) -> bool {
        !self.only_own || Space::of(object) == self.own
    }

    /// A finding at a field of an object.
    pub(crate) fn tell(&mut self, object: &Object, path: &str, problem: Problem) {
        if self.hears(object) {
            self.problems.push(object.problem(problem, path));
        }
    }

    /// A finding that belongs to no object.
    pub(crate) fn tell_all(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// The object decides for a pod.
    pub(crate) fn applies(&mut self, object: &Object, pod: Place<'_>) {
        self.applies_to(object, pod.shown);
        if !pod.node.is_empty()
            && let Some(draft) = self.draft(object)
            && !draft.nodes.contains(pod.node)
        {
            draft.nodes.insert(Arc::clone(pod.node));
        }
    }

    /// The object decides for a target.
    pub(crate) fn applies_to(&mut self, object: &Object, target: &Arc<str>) {
        if let Some(draft) = self.draft(object)
            && !draft.targets.contains(target)
        {
            draft.targets.insert(Arc::clone(target));
        }
    }

    /// The object is in force, but not as written. Whether that was not known yet.
    pub(crate) fn qualify(&mut self, object: &Object, why: String) -> bool {
        self.draft(object).is_some_and(|draft| draft.why.insert(why))
    }

    /// The object has no effect at all.
    pub(crate) fn not_in_force(&mut self, object: &Object, why: &str) {
        if let Some(draft) = self.draft(object) {
            draft.void = true;
            draft.why.insert(why.to_owned());
        }
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
        let is_new = self
            .draft(object)
            .is_some_and(|draft| draft.shadowed_by.insert(by.reference()));
        if !is_new {
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
    fn unsupported(&mut self, view: &View<'_>) {
        for object in &view.unsupported {
            self.not_in_force(
                object,
                &format!("{} is not acted on by this version", object.kind_name),
            );
        }
    }

    fn namespace(&mut self, view: &View<'_>) {
        let Some(object) = view.namespace else { return };
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

    fn draft(&mut self, object: &Object) -> Option<&mut Draft> {
        self.hears(object)
            .then(|| self.effects.entry(object.reference()).or_default())
    }

    /// Everything, in an order that follows from the content alone, and what was asked of all namespaces.
    pub(crate) fn finish(mut self) -> (Said, Vec<Asked>) {
        order(&mut self.problems);
        let said = Said {
            problems: self.problems,
            effects: self.effects,
        };
        (said, self.asked)
    }
}

/// Tells a selector that no pod has the labels of; `is_root` looks for pods in all namespaces.
pub(crate) fn tell_nothing_selected(
    view: &View<'_>,
    object: &Object,
    is_root: bool,
    labels: &BTreeMap<String, String>,
    report: &mut Report,
) {
    if labels.is_empty() || !report.hears(object) {
        return;
    }
    let found = view.selects_something(is_root, labels);
    if is_root {
        report.asked.push((labels.clone(), found));
    }
    if !found {
        report.tell(object, "spec.selector", nothing_selected(labels));
    }
}

/// Tells a selector for pods of the object's own namespace, which is the one that is compiled, that no pod has the labels of.
pub(crate) fn tell_nothing_selected_of(
    view: &View<'_>,
    object: &Object,
    path: &str,
    labels: &BTreeMap<String, String>,
    report: &mut Report,
) {
    if report.hears(object) && !view.selects_something(false, labels) {
        report.tell(object, path, nothing_selected(labels));
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
