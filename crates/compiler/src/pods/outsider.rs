//! Pods outside the mesh that bring a proxy of their own: what the labels and annotations of Istio's say of it.

use std::collections::BTreeMap;

/// Set by Istio's injector on every pod that has a sidecar (CM-11).
const TLS_MODE: &str = "security.istio.io/tlsMode";
/// Set by Istio on workloads that take HBONE.
const TUNNEL: &str = "networking.istio.io/tunnel";
/// Set by Istio's network plugin on pods behind a ztunnel.
const REDIRECTION: &str = "ambient.istio.io/redirection";

/// The transport of a proxy that is not ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outsider {
    /// Mutual TLS as between Istio's sidecars: the label `security.istio.io/tlsMode: istio`.
    Sidecar,
    /// HBONE: the label `networking.istio.io/tunnel: http`, or the annotation `ambient.istio.io/redirection: enabled`.
    /// It is taken where a pod has both.
    Hbone,
}

/// What a pod says of its own proxy; `None` where it has none. Asked of pods outside the mesh: of one in the mesh we know.
pub fn outsider(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Option<Outsider> {
    let is =
        |map: &BTreeMap<String, String>, key: &str, value: &str| map.get(key).is_some_and(|v| v == value);
    if is(labels, TUNNEL, "http") || is(annotations, REDIRECTION, "enabled") {
        return Some(Outsider::Hbone);
    }
    is(labels, TLS_MODE, "istio").then_some(Outsider::Sidecar)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cm_11_labels_say_what_a_proxy_of_istios_takes() {
        let map = |pairs: &[(&str, &str)]| {
            let owned = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            owned.collect::<BTreeMap<_, _>>()
        };
        let (sidecar, hbone) = (Some(Outsider::Sidecar), Some(Outsider::Hbone));
        for (labels, annotations, expect) in [
            (&[][..], &[][..], None),
            (&[(TLS_MODE, "istio")], &[], sidecar),
            (&[(TLS_MODE, "disabled")], &[], None),
            (&[], &[(TLS_MODE, "istio")], None),
            (&[(TUNNEL, "http")], &[], hbone),
            (&[(TUNNEL, "none")], &[], None),
            (&[], &[(REDIRECTION, "enabled")], hbone),
            (&[], &[(REDIRECTION, "disabled")], None),
            (&[(TLS_MODE, "istio"), (TUNNEL, "http")], &[], hbone),
        ] {
            assert_eq!(
                outsider(&map(labels), &map(annotations)),
                expect,
                "{labels:?} {annotations:?}"
            );
        }
    }
}
