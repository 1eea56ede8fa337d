//! What pods ask of Istio's capture and sidecar in annotations, and do not get here: capture is the node's, and so is the proxy.

use crate::report::{Report, join};
use crate::yaml::Node;

/// A pod asks to be left out of capture: nobody is.
const CAPTURE: &str = "MW0801";
/// A pod asks for another proxy than it gets.
const PROXY: &str = "MW0802";
/// A pod takes itself out of the mesh, which it may.
const OUTSIDE: &str = "MW0803";

const OUTBOUND: &str = "take it out; what the pod is to reach outside the mesh is written as a ServiceEntry, where policy can see it";
const INBOUND: &str = "take it out; a port that has to take callers without a certificate gets a PeerAuthentication with `portLevelMtls`, and an ALLOW policy";
const INTERFACES: &str = "take it out; every interface of a pod is captured";

/// Annotations that leave something out of capture, or name all that is captured, and what to write in their place.
const OF_CAPTURE: &[(&str, &str)] = &[
    ("traffic.sidecar.istio.io/excludeOutboundPorts", OUTBOUND),
    ("traffic.sidecar.istio.io/excludeOutboundIPRanges", OUTBOUND),
    ("traffic.sidecar.istio.io/includeOutboundPorts", OUTBOUND),
    ("traffic.sidecar.istio.io/includeOutboundIPRanges", OUTBOUND),
    ("traffic.sidecar.istio.io/excludeInboundPorts", INBOUND),
    ("traffic.sidecar.istio.io/includeInboundPorts", INBOUND),
    ("status.sidecar.istio.io/port", INBOUND),
    ("ambient.istio.io/bypass-inbound-capture", INBOUND),
    ("traffic.sidecar.istio.io/excludeInterfaces", INTERFACES),
    ("traffic.sidecar.istio.io/kubevirtInterfaces", INTERFACES),
    ("istio.io/reroute-virtual-interfaces", INTERFACES),
    ("sidecar.istio.io/interceptionMode", OUTBOUND),
];

/// Annotations that replace or configure the proxy of a pod.
const OF_PROXY: &[&str] = &[
    "proxy.istio.io/overrides",
    "inject.istio.io/templates",
    "sidecar.istio.io/proxyImage",
    "sidecar.istio.io/proxyImageType",
    "sidecar.istio.io/bootstrapOverride",
    "sidecar.istio.io/userVolume",
    "sidecar.istio.io/userVolumeMount",
    "sidecar.istio.io/enableCoreDump",
    "sidecar.istio.io/controlPlaneAuthPolicy",
];

const INJECT: &str = "sidecar.istio.io/inject";

/// The metadata of a pod or of a template of pods, which stands at `path`, and the pod's `spec`.
pub(super) fn pod(metadata: Option<&Node>, spec: Option<&Node>, path: &str, report: &mut Report<'_>) {
    let annotations = metadata.and_then(|metadata| metadata.child("annotations"));
    let path_of = |of: &str, key: &str| join(&join(path, of), key);
    for (key, value) in annotations.map(Node::entries).unwrap_or_default() {
        let (name, text) = (key.text.as_str(), value.text().unwrap_or_default());
        let at = path_of("annotations", name);
        if let Some((_, remedy)) = OF_CAPTURE.iter().find(|(of, _)| *of == name)
            && leaves_out(name, text)
        {
            let why = format!("`{name}` has no effect: capture is the node's, and no pod leaves it");
            let told = report.warning(CAPTURE, key.span, why);
            told.path(at).value(text).remedy(*remedy);
        } else if OF_PROXY.contains(&name) {
            let why = format!(
                "`{name}` has no effect: the proxy is the node's, and no pod chooses or configures it"
            );
            let told = report.warning(PROXY, key.span, why);
            told.path(at)
                .remedy("take it out; settings of the mesh are MeshConfig's");
        }
    }
    for of in ["labels", "annotations"] {
        let said = metadata.and_then(|metadata| metadata.child(of)?.entry(INJECT));
        if let Some((key, value)) = said
            && value.text() == Some("false")
        {
            outside(
                report,
                key.span,
                path_of(of, INJECT),
                &format!("`{INJECT}: \"false\"`"),
            );
        }
    }
    let on_node = spec.and_then(|spec| spec.entry("hostNetwork"));
    if let Some((key, value)) = on_node
        && value.flag() == Some(true)
    {
        let path = match path.strip_suffix("metadata") {
            Some(of) => format!("{of}spec.hostNetwork"),
            None => "spec.hostNetwork".to_owned(),
        };
        outside(report, key.span, path, "`hostNetwork: true`");
    }
}

/// Whether the value of an annotation asks for less capture than there is.
fn leaves_out(name: &str, value: &str) -> bool {
    let value = value.trim();
    match name {
        "sidecar.istio.io/interceptionMode" => value.eq_ignore_ascii_case("NONE"),
        "ambient.istio.io/bypass-inbound-capture" => value == "true",
        _ if name.contains("/include") => value != "*",
        _ => !value.is_empty(),
    }
}

fn outside(report: &mut Report<'_>, span: crate::Span, path: String, what: &str) {
    let why =
        format!("{what} keeps the pod out of the mesh: it has no identity, and nothing is enforced for it");
    let told = report.info(OUTSIDE, span, why);
    told.path(path)
        .remedy("take it out, unless that is what is wanted");
}

#[cfg(test)]
mod tests {
    use crate::Severity;

    fn told(text: &str) -> Vec<String> {
        let parsed = crate::parse("p.yaml", text.as_bytes());
        assert!(!parsed.has_errors(), "{:?}", parsed.problems);
        let own = parsed.problems.iter().filter(|p| p.code.starts_with("MW08"));
        own.map(|p| {
            assert!(p.remedy.is_some(), "{p}");
            let level = if p.severity == Severity::Warning {
                ""
            } else {
                " info"
            };
            format!("{}:{}:{} {}{level} {}", p.file, p.line, p.column, p.code, p.path)
        })
        .collect()
    }

    fn pod(annotations: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  namespace: n\n  annotations:\n    {annotations}\nspec:\n  containers:\n  - {{name: c, image: i}}\n"
        )
    }

    #[test]
    fn cap_10_what_asks_for_less_capture_is_told_with_its_place() {
        for (annotation, expect) in [
            ("traffic.sidecar.istio.io/excludeOutboundPorts: \"80\"", "MW0801"),
            (
                "traffic.sidecar.istio.io/excludeOutboundIPRanges: 0.0.0.0/0",
                "MW0801",
            ),
            (
                "traffic.sidecar.istio.io/includeOutboundIPRanges: 10.0.0.0/8",
                "MW0801",
            ),
            ("traffic.sidecar.istio.io/includeInboundPorts: \"\"", "MW0801"),
            ("traffic.sidecar.istio.io/excludeInterfaces: eth1", "MW0801"),
            ("sidecar.istio.io/interceptionMode: NONE", "MW0801"),
            ("status.sidecar.istio.io/port: \"15099\"", "MW0801"),
            ("sidecar.istio.io/proxyImage: evil/proxy", "MW0802"),
            ("sidecar.istio.io/bootstrapOverride: mine", "MW0802"),
        ] {
            let (name, _) = annotation.split_once(": ").unwrap();
            let line = format!("p.yaml:7:5 {expect} metadata.annotations.{name}");
            assert_eq!(told(&pod(annotation)), [line], "{annotation}");
        }
        for harmless in [
            "traffic.sidecar.istio.io/includeInboundPorts: \"*\"",
            "traffic.sidecar.istio.io/includeOutboundIPRanges: \"*\"",
            "traffic.sidecar.istio.io/excludeInboundPorts: \"\"",
            "sidecar.istio.io/interceptionMode: TPROXY",
            "prometheus.io/scrape: \"true\"",
        ] {
            assert!(told(&pod(harmless)).is_empty(), "{harmless}");
        }
    }

    #[test]
    fn p_23_a_template_is_looked_at_as_a_pod_is() {
        let text = "apiVersion: apps/v1
kind: Deployment
metadata:
  name: d
  namespace: n
spec:
  selector:
    matchLabels: {app: d}
  template:
    metadata:
      labels:
        app: d
        sidecar.istio.io/inject: \"false\"
      annotations:
        traffic.sidecar.istio.io/excludeInboundPorts: \"22\"
    spec:
      hostNetwork: true
      containers:
      - {name: c, image: i}
";
        assert_eq!(
            told(text),
            [
                "p.yaml:13:9 MW0803 info spec.template.metadata.labels.sidecar.istio.io/inject",
                "p.yaml:15:9 MW0801 spec.template.metadata.annotations.traffic.sidecar.istio.io/excludeInboundPorts",
                "p.yaml:17:7 MW0803 info spec.template.spec.hostNetwork",
            ]
        );
    }
}
