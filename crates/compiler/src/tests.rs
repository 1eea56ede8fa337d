//! Tests of the whole function, from YAML to snapshots; the modules test their own parts.

mod authn;
mod authz;
mod clients;
mod cost;
mod dialects;
mod egress;
mod external;
mod follow;
mod guardrail;
mod order;
mod requests;
mod roots;
mod services;
mod telemetry;
mod told;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use api::{ContainerPort, OwnerReference, Pod, PodIp};
use model::{Profile, ServiceName, WorkloadUid};
use snapshot::{Mesh, Resource, ResourceName, Service, Workload};

use super::*;

/// A world in the making. Objects are as old as they are far from the end.
#[derive(Clone)]
struct Scene {
    yaml: String,
    age: u32,
    pods: Vec<Pod>,
    profile: Profile,
}

fn istio() -> Scene {
    Scene {
        yaml: String::new(),
        age: 0,
        pods: Vec::new(),
        profile: Profile::Istio,
    }
}

fn secure() -> Scene {
    Scene {
        profile: Profile::Secure,
        ..istio()
    }
}

impl Scene {
    /// An object of `kind`; `rest` is what follows the metadata, `spec` and all. Each is one second younger than the one before.
    fn object(mut self, kind: &str, name: &str, rest: &str) -> Self {
        self.age += 1;
        let version = match kind {
            "PeerAuthentication" | "AuthorizationPolicy" | "RequestAuthentication" => "security.istio.io/v1",
            "DestinationRule" | "ServiceEntry" | "Sidecar" => "networking.istio.io/v1",
            "Guardrail" => "meshward.dev/v1alpha1",
            "NetworkPolicy" => "networking.k8s.io/v1",
            "EndpointSlice" => "discovery.k8s.io/v1",
            "Telemetry" => "telemetry.istio.io/v1",
            "Deployment" => "apps/v1",
            _ => "v1",
        };
        let (ns, name) = name.split_once('/').unwrap_or(("", name));
        let namespace = if ns.is_empty() {
            String::new()
        } else {
            format!(", namespace: \"{ns}\"")
        };
        let (meta, rest) = rest.split_once("META ").map_or(("", rest), |(before, after)| {
            assert!(before.is_empty());
            after.split_once('\n').unwrap_or((after, ""))
        });
        writeln!(
            self.yaml,
            "---\napiVersion: {version}\nkind: {kind}\nmetadata: {{name: \"{name}\"{namespace}, creationTimestamp: \"2026-01-01T00:00:{:02}Z\"{meta}}}\n{rest}",
            self.age
        )
        .unwrap();
        self
    }

    fn namespace(self, name: &str, labels: &str) -> Self {
        let rest = format!("META , labels: {{{labels}}}\n");
        self.object("Namespace", name, &rest)
    }

    fn peer(self, name: &str, spec: &str) -> Self {
        let rest = format!("spec: {{{spec}}}");
        self.object("PeerAuthentication", name, &rest)
    }

    fn allow(self, name: &str, spec: &str) -> Self {
        let rest = format!("spec: {{{spec}}}");
        self.object("AuthorizationPolicy", name, &rest)
    }

    /// A Service with `selector: {app: NAME}`; `ports` as in `{name: http, port: 80, targetPort: 8080}`.
    fn service(self, name: &str, ports: &str) -> Self {
        let (_, app) = name.split_once('/').unwrap();
        let rest = format!("spec: {{selector: {{app: {app}}}, ports: [{ports}]}}");
        self.object("Service", name, &rest)
    }

    /// A ready pod in the mesh, labelled `app: APP`, on node-0.
    fn pod(mut self, name: &str, app: &str) -> Self {
        let last = self.pods.len() + 2;
        let mut pod = Pod::default();
        let (ns, name) = name.split_once('/').unwrap();
        pod.metadata.name = name.to_owned();
        pod.metadata.namespace = ns.to_owned();
        pod.metadata.uid = Some(format!("uid-{name}"));
        pod.metadata.labels = labels(&[("app", app), ("sidecar.istio.io/inject", "true")]);
        pod.spec.node_name = "node-0".to_owned();
        pod.status.phase = "Running".to_owned();
        pod.status.pod_ip = format!("10.77.0.{last}");
        pod.status.pod_ips = vec![PodIp {
            ip: format!("fd77:1::{last:x}"),
        }];
        pod.status.set_ready(true);
        self.pods.push(pod);
        self
    }

    fn last(mut self, change: impl FnOnce(&mut Pod)) -> Self {
        change(self.pods.last_mut().unwrap());
        self
    }

    fn plain(self) -> Self {
        self.last(|pod| {
            pod.metadata.labels.remove("sidecar.istio.io/inject");
        })
    }

    fn world(&self) -> World {
        let parsed = api::parse("test.yaml", self.yaml.as_bytes());
        World {
            objects: parsed.objects.into_iter().map(Arc::new).collect(),
            pods: self.pods.iter().cloned().map(Arc::new).collect(),
            nodes: vec!["node-0".to_owned(), "node-1".to_owned()],
            roots: vec!["ROOT".to_owned()],
            jwks: BTreeMap::new(),
            options: Options {
                profile: self.profile,
                ..Options::default()
            },
        }
    }

    /// Compiles; every object must have been accepted as it is. A provider that cannot be used (MW0115) leaves it so.
    fn compile(&self) -> Compiled {
        let parsed = api::parse("test.yaml", self.yaml.as_bytes());
        let errors: Vec<_> = parsed
            .problems
            .iter()
            .filter(|p| p.severity == api::Severity::Error && p.code != "MW0115")
            .collect();
        assert!(errors.is_empty(), "{errors:#?}\n{}", self.yaml);
        compile(&self.world())
    }
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

/// What a test asks of the outcome.
trait Ask {
    fn mesh(&self) -> Mesh;
    fn service(&self, name: &str) -> Service;
    /// As the pod's own node sees it.
    fn workload(&self, pod: &str) -> Workload;
    fn mtls(&self, pod: &str) -> String;
    fn effect(&self, object: &str) -> &Effect;
    /// `code message` of every problem.
    fn problems(&self) -> Vec<String>;
}

impl Ask for Compiled {
    fn mesh(&self) -> Mesh {
        match self.nodes["node-0"].get(&ResourceName::mesh()).unwrap().as_ref() {
            Resource::Mesh(mesh) => mesh.as_ref().clone(),
            other => panic!("{other:?}"),
        }
    }

    fn service(&self, name: &str) -> Service {
        let name: ServiceName = name.parse().unwrap();
        match self.nodes["node-0"]
            .get(&ResourceName::service(&name))
            .unwrap()
            .as_ref()
        {
            Resource::Service(service) => service.as_ref().clone(),
            other => panic!("{other:?}"),
        }
    }

    fn workload(&self, pod: &str) -> Workload {
        let uid = WorkloadUid::new(&format!("uid-{pod}"));
        match self.nodes["node-0"]
            .get(&ResourceName::workload(&uid))
            .unwrap()
            .as_ref()
        {
            Resource::Workload(workload) => workload.as_ref().clone(),
            other => panic!("{other:?}"),
        }
    }

    fn mtls(&self, pod: &str) -> String {
        let view = self.pods.iter().find(|view| view.name == pod).unwrap();
        view.mtls.clone().unwrap_or_default()
    }

    fn effect(&self, object: &str) -> &Effect {
        let found = self
            .effects
            .iter()
            .find(|effect| effect.object.to_string() == object);
        found.unwrap_or_else(|| panic!("no effect of {object}"))
    }

    fn problems(&self) -> Vec<String> {
        self.problems
            .iter()
            .map(|p| format!("{} {}", p.code, p.message))
            .collect()
    }
}

/// Asserts that a problem of the code mentions the text.
fn told(compiled: &Compiled, code: &str, text: &str) {
    let problems = compiled.problems();
    assert!(
        problems.iter().any(|p| p.starts_with(code) && p.contains(text)),
        "{code} {text}: {problems:#?}"
    );
}

#[test]
fn every_node_gets_all_but_only_its_own_pods_inbound() {
    let compiled = secure()
        .allow("istio-system/nothing", "")
        .allow("a/one", "rules: [{}]")
        .pod("a/x", "web")
        .pod("a/y", "web")
        .last(|pod| pod.spec.node_name = "node-1".to_owned())
        .pod("b/z", "web")
        .compile();
    let here = &compiled.nodes["node-0"];
    let there = &compiled.nodes["node-1"];
    let inbound = |node: &Resources, pod: &str| match node
        .get(&ResourceName::workload(&WorkloadUid::new(pod)))
        .unwrap()
        .as_ref()
    {
        Resource::Workload(workload) => workload.inbound.is_some(),
        other => panic!("{other:?}"),
    };
    assert!(inbound(here, "uid-x") && !inbound(here, "uid-y"));
    assert!(!inbound(there, "uid-x") && inbound(there, "uid-y"));
    assert!(here.get(&ResourceName::roots()).is_some());
    let only_b = secure().allow("a/one", "rules: [{}]").pod("b/z", "web").compile();
    let policies = only_b.nodes["node-0"]
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("policy/"));
    assert_eq!(
        policies.count(),
        0,
        "a policy that no pod of the node needs stays away"
    );
}

#[test]
fn workloads_say_who_they_are() {
    let compiled = secure()
        .pod("full/web-7d9f-abc", "web")
        .last(|pod| {
            pod.spec.service_account_name = "httpbin".to_owned();
            pod.metadata.labels.insert("version".to_owned(), "v1".to_owned());
            pod.metadata
                .labels
                .insert("pod-template-hash".to_owned(), "7d9f".to_owned());
            pod.metadata.owner_references = vec![OwnerReference {
                kind: "ReplicaSet".to_owned(),
                name: "web-7d9f".to_owned(),
                controller: Some(true),
                ..OwnerReference::default()
            }];
        })
        .pod("full/plain", "x")
        .plain()
        .compile();
    let web = compiled.workload("web-7d9f-abc");
    assert_eq!(web.workload.to_string(), "full/web");
    assert_eq!(
        web.identity.unwrap().to_string(),
        "spiffe://cluster.local/ns/full/sa/httpbin"
    );
    assert_eq!(
        (web.canonical_name.as_str(), web.canonical_revision.as_str()),
        ("web", "v1")
    );
    assert_eq!((web.app.as_str(), web.version.as_str()), ("web", "v1"));
    let plain = compiled.workload("plain");
    assert_eq!((plain.identity, plain.inbound), (None, None));
    assert_eq!(
        (plain.service_account.as_str(), plain.canonical_revision.as_str()),
        ("default", "latest")
    );
    let view = compiled.pods.iter().find(|view| view.name == "plain").unwrap();
    assert_eq!(
        (view.in_mesh, view.mtls.clone(), view.policies.clone()),
        (false, None, None)
    );
}

#[test]
fn a_pod_that_has_ended_is_no_workload() {
    let compiled = secure()
        .service("a/web", "{port: 80}")
        .pod("a/x", "web")
        .last(|pod| pod.status.phase = "Succeeded".to_owned())
        .compile();
    assert!(compiled.service("a/web").endpoints.is_empty());
    let uid = WorkloadUid::new("uid-x");
    assert!(
        compiled.nodes["node-0"]
            .get(&ResourceName::workload(&uid))
            .is_none()
    );
    assert_eq!(compiled.pods.len(), 1, "people still see it");
}

#[test]
fn namespaces_decide_injection_by_their_labels() {
    let bare = |scene: Scene| scene.plain();
    let compiled = bare(
        secure()
            .namespace("on", "istio-injection: enabled")
            .pod("on/a", "x"),
    );
    let compiled = bare(compiled.pod("off/b", "x")).compile();
    let in_mesh: Vec<_> = compiled
        .pods
        .iter()
        .map(|pod| (pod.name.as_str(), pod.in_mesh))
        .collect();
    assert_eq!(in_mesh, [("b", false), ("a", true)]);
}

#[test]
fn profiles_and_mesh_config() {
    let config = |text: &str| {
        secure().object(
            "ConfigMap",
            "istio-system/istio",
            &format!("data:\n  mesh: |\n{text}"),
        )
    };
    let of = |scene: Scene| scene.compile().mesh();
    let ours = of(secure());
    assert!(ours.deny_by_default && ours.strict_hosts && ours.strict_paths);
    assert_eq!(
        (ours.egress, ours.xfcc, ours.min_tls),
        (
            snapshot::Egress::RegistryOnly,
            snapshot::XfccMode::SanitizeSet,
            snapshot::TlsVersion::V1_3
        )
    );
    assert_eq!(ours.path_normalization, snapshot::PathNormalization::MergeSlashes);
    let dynamic = |scene: Scene| {
        let mesh = "data:\n  mesh: |\n    trustDomain: td1\n    outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}\n";
        let mesh = of(scene.object("ConfigMap", "istio-system/istio", mesh));
        (mesh.trust_domain.as_str().to_owned(), mesh.egress)
    };
    // What is not acted on is closed, and takes nothing else with it.
    for scene in [secure(), istio()] {
        assert_eq!(dynamic(scene), ("td1".to_owned(), snapshot::Egress::RegistryOnly));
    }
    let theirs = of(istio());
    assert!(!theirs.deny_by_default && !theirs.strict_hosts && !theirs.strict_paths);
    assert_eq!(
        (theirs.egress, theirs.xfcc, theirs.min_tls),
        (
            snapshot::Egress::AllowAny,
            snapshot::XfccMode::AppendForward,
            snapshot::TlsVersion::V1_2
        )
    );
    assert_eq!(
        (theirs.path_normalization, theirs.protocol_detection_timeout_ms),
        (snapshot::PathNormalization::Base, None)
    );
    let set = of(config(
        "    trustDomain: td1\n    trustDomainAliases: [td2]\n    rootNamespace: root\n    enableAutoMtls: false\n    \
         outboundTrafficPolicy: {mode: ALLOW_ANY}\n    protocolDetectionTimeout: 100ms\n    meshMTLS: {minProtocolVersion: TLSV1_2}\n",
    ));
    assert_eq!(
        (set.trust_domain.as_str(), set.trust_domain_aliases[0].as_str()),
        ("td1", "td2")
    );
    let tls = |text: &str| {
        let mesh = of(config(text));
        (mesh.min_tls, mesh.tls)
    };
    let (least, bounds) = tls(
        "    meshMTLS: {minProtocolVersion: TLSV1_2, cipherSuites: [ECDHE-RSA-AES128-GCM-SHA256, AES256-SHA]}\n",
    );
    assert_eq!(least, snapshot::TlsVersion::V1_2);
    assert_eq!(bounds.cipher_suites, ["ECDHE-RSA-AES128-GCM-SHA256"]);
    // Of suites none of which is spoken here, none is put in their place.
    let (least, bounds) = tls("    meshMTLS: {minProtocolVersion: TLSV1_2, cipherSuites: [AES256-SHA]}\n");
    assert_eq!(
        (least, bounds),
        (snapshot::TlsVersion::V1_3, snapshot::MeshTls::default())
    );
    let mut fixed = config("    trustDomain: td1\n").world();
    fixed.options.trust_domain = Some("td2".parse().unwrap());
    assert_eq!(compile(&fixed).mesh().trust_domain.as_str(), "td2");
    assert_eq!(
        (set.root_namespace.as_str(), set.auto_mtls, set.egress),
        ("root", false, snapshot::Egress::AllowAny)
    );
    assert_eq!(
        (set.protocol_detection_timeout_ms, set.min_tls),
        (Some(100), snapshot::TlsVersion::V1_2)
    );
}
