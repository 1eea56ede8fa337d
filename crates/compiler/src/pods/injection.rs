//! Which pods are in the mesh: Istio's labels, in Istio's order (semantics 10.4, CP-01..15).

use std::collections::BTreeMap;

use api::LabelSelector;

/// Namespaces that are never injected (CP-11).
const NEVER: [&str; 4] = [
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "local-path-storage",
];

const INJECT: &str = "sidecar.istio.io/inject";
const REVISION: &str = "istio.io/rev";
const LEGACY: &str = "istio-injection";

/// What decides where labels leave it open.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct InjectionPolicy {
    /// `enableNamespacesByDefault`: namespaces without any label count as labelled.
    pub enable_namespaces_by_default: bool,
    /// `neverInjectSelector`: looked at only where neither label nor annotation says anything. Upstream asks it
    /// before `alwaysInjectSelector`, which can therefore not change the answer for a selected pod.
    pub never: Vec<LabelSelector>,
}

/// What a pod and its namespace say.
#[derive(Clone, Copy, Debug)]
pub struct PodLabels<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// Its labels.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// The pod's labels.
    pub labels: &'a BTreeMap<String, String>,
    /// The pod's annotations.
    pub annotations: &'a BTreeMap<String, String>,
    /// Whether the pod uses the node's network.
    pub host_network: bool,
}

/// Whether the pod is in the mesh. Two questions, as upstream asks them: does a webhook select the pod, by labels
/// alone, and does the injector then want it, by label, annotation and selectors.
pub fn injected(pod: PodLabels<'_>, policy: &InjectionPolicy) -> bool {
    !pod.host_network && !NEVER.contains(&pod.namespace) && selected(pod, policy) && wanted(pod, policy)
}

fn selected(pod: PodLabels<'_>, policy: &InjectionPolicy) -> bool {
    let label = |key: &str| pod.labels.get(key).map(String::as_str);
    let inject = label(INJECT);
    if inject == Some("false") {
        return false;
    }
    // The legacy label of the namespace is looked at first and beats a revision (R48, CP-03, CP-10).
    if let Some(legacy) = pod.namespace_labels.get(LEGACY) {
        return legacy == "enabled";
    }
    if pod.namespace_labels.contains_key(REVISION) || label(REVISION).is_some() {
        return true;
    }
    inject == Some("true") || (policy.enable_namespaces_by_default && inject.is_none())
}

fn wanted(pod: PodLabels<'_>, policy: &InjectionPolicy) -> bool {
    let says = pod.labels.get(INJECT).or_else(|| pod.annotations.get(INJECT));
    match says.map(String::as_str) {
        Some("true") => true,
        Some("false") => false,
        // Anything else counts as nothing said (CP-14).
        _ => !policy
            .never
            .iter()
            .any(|s| !s.is_empty() && s.matches(pod.labels)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> BTreeMap<String, String> {
        let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
        pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    fn check(
        id: &str,
        namespace: &str,
        labels: &str,
        annotations: &str,
        policy: &InjectionPolicy,
        expect: bool,
    ) {
        let (namespace_labels, labels, annotations) = (map(namespace), map(labels), map(annotations));
        let pod = PodLabels {
            namespace: "n",
            namespace_labels: &namespace_labels,
            labels: &labels,
            annotations: &annotations,
            host_network: false,
        };
        assert_eq!(injected(pod, policy), expect, "{id}");
        assert!(
            !injected(
                PodLabels {
                    host_network: true,
                    ..pod
                },
                policy
            ),
            "CP-12 {id}"
        );
        for never in NEVER {
            assert!(
                !injected(
                    PodLabels {
                        namespace: never,
                        ..pod
                    },
                    policy
                ),
                "CP-11 {id}"
            );
        }
    }

    #[test]
    fn cp_01_to_15() {
        const ON: &str = "istio-injection=enabled";
        const OFF: &str = "istio-injection=disabled";
        const YES: &str = "sidecar.istio.io/inject=true";
        const NO: &str = "sidecar.istio.io/inject=false";
        let default = InjectionPolicy::default();
        for (id, namespace, labels, annotations, expect) in [
            ("CP-01", ON, "", "", true),
            ("CP-02", ON, NO, "", false),
            ("CP-02 annotation", ON, "", NO, false),
            ("CP-03", OFF, YES, "", false),
            ("CP-04", "", "", "", false),
            ("CP-05", "", YES, "", true),
            ("CP-05 an annotation does not select", "", "", YES, false),
            ("CP-06", "", "istio.io/rev=X", "", true),
            ("CP-07", "istio.io/rev=X", "", "", true),
            ("CP-08", "istio.io/rev=X", NO, "", false),
            ("CP-09", "istio.io/rev=X", "istio.io/rev=Y", "", true),
            ("CP-10", "istio-injection=enabled istio.io/rev=X", "", "", true),
            (
                "CP-10 disabled",
                "istio-injection=disabled istio.io/rev=X",
                "",
                "",
                false,
            ),
            ("CP-13", ON, YES, NO, true),
            ("CP-14", ON, "sidecar.istio.io/inject=maybe", "", true),
        ] {
            check(id, namespace, labels, annotations, &default, expect);
        }
    }

    #[test]
    fn cp_04_enabled_by_default() {
        let policy = InjectionPolicy {
            enable_namespaces_by_default: true,
            ..InjectionPolicy::default()
        };
        check("CP-04", "", "", "", &policy, true);
        check("CP-04", "", "sidecar.istio.io/inject=false", "", &policy, false);
        check("CP-04", "istio-injection=disabled", "", "", &policy, false);
    }

    #[test]
    fn cp_15_selectors_decide_only_where_nothing_is_said() {
        let selector = |text| {
            vec![LabelSelector {
                match_labels: map(text),
                ..LabelSelector::default()
            }]
        };
        let never = InjectionPolicy {
            never: selector("app=x"),
            ..InjectionPolicy::default()
        };
        let on = "istio-injection=enabled";
        check("CP-15", on, "app=x", "", &never, false);
        check("CP-15", on, "app=y", "", &never, true);
        check(
            "CP-15 label wins",
            on,
            "app=x sidecar.istio.io/inject=true",
            "",
            &never,
            true,
        );
    }
}
