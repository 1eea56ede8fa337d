//! The mesh that is measured: pods in Services of four, spread over namespaces and nodes.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// Pods of one Service.
pub const PODS_A_SERVICE: usize = 4;
/// Services of one namespace.
pub const SERVICES_A_NAMESPACE: usize = 25;

/// How large.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub pods: usize,
    pub nodes: usize,
}

impl Size {
    pub fn services(self) -> usize {
        self.pods.div_ceil(PODS_A_SERVICE)
    }

    pub fn namespaces(self) -> usize {
        self.services().div_ceil(SERVICES_A_NAMESPACE)
    }
}

pub fn node(index: usize) -> String {
    format!("node-{index}")
}

pub fn namespace(service: usize) -> String {
    format!("ns-{}", service / SERVICES_A_NAMESPACE)
}

pub fn service(index: usize) -> String {
    format!("svc-{index}")
}

/// The objects, a text for each namespace and one for the mesh.
pub fn objects(size: Size) -> Vec<(String, String)> {
    let mut files = vec![(
        "mesh.yaml".to_owned(),
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: istio-system}\nspec: {mtls: {mode: STRICT}}\n".to_owned(),
    )];
    for ns in 0..size.namespaces() {
        let mut text = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: ns-{ns}, labels: {{istio-injection: enabled}}}}\n---\n\
             apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: own, namespace: ns-{ns}}}\n\
             spec: {{rules: [{{from: [{{source: {{namespaces: [ns-{ns}]}}}}]}}]}}\n"
        );
        let first = ns * SERVICES_A_NAMESPACE;
        for index in first..(first + SERVICES_A_NAMESPACE).min(size.services()) {
            let name = service(index);
            let _ = writeln!(text, "---\n{}", service_yaml(&name, &format!("ns-{ns}")));
        }
        files.push((format!("ns-{ns}.yaml"), text));
    }
    files
}

pub fn service_yaml(name: &str, namespace: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}"
    )
}

/// One pod, as Kubernetes would store it. The pods of a Service lie on different nodes.
pub fn pod(index: usize, size: Size) -> Value {
    let service_index = index / PODS_A_SERVICE;
    pod_of(
        &format!("pod-{index}"),
        index,
        service_index,
        &node(index % size.nodes),
    )
}

/// A pod of a Service; `number` makes its address.
pub fn pod_of(name: &str, number: usize, service_index: usize, node: &str) -> Value {
    let (service, namespace) = (service(service_index), namespace(service_index));
    let ip = format!(
        "10.{}.{}.{}",
        128 + number / 62_500,
        number / 250 % 250,
        number % 250 + 1
    );
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": namespace, "uid": format!("uid-{name}"),
            "labels": {"app": service, "version": "v1", "pod-template-hash": "6d5f8"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{service}-6d5f8"), "uid": "u", "controller": true}],
        },
        "spec": {
            "nodeName": node, "serviceAccountName": service,
            "containers": [{"name": "app", "image": "httpbin", "ports": [{"containerPort": 8080}]}],
        },
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

pub fn pods(size: Size) -> Vec<Value> {
    (0..size.pods).map(|index| pod(index, size)).collect()
}
