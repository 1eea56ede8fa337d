//! What is to run, typed: the objects of the control plane's `desired`, read by the same parser that read the user's files.

use std::collections::{BTreeMap, BTreeSet};

use admin::verbs::Desired;
use api::{Kind, Meta, PodSpec, PodTemplate};
use compiler::{InjectionPolicy, PodLabels, injected};
use sha2::{Digest, Sha256};

/// A namespace and a name in it.
pub(crate) type Key = (String, String);

/// All that pods are made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Labels of the namespaces that were written.
    pub(crate) namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// What makes pods, ordered.
    pub(crate) owners: BTreeMap<OwnerKey, Owner>,
    pub(crate) accounts: BTreeSet<Key>,
    pub(crate) config_maps: BTreeMap<Key, BTreeMap<String, String>>,
    pub(crate) secrets: BTreeMap<Key, BTreeMap<String, Vec<u8>>>,
}

/// Names something that makes pods.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct OwnerKey {
    pub(crate) namespace: String,
    pub(crate) kind: OwnerKind,
    pub(crate) name: String,
}

/// The kinds that make pods; a Pod makes itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum OwnerKind {
    Deployment,
    StatefulSet,
    DaemonSet,
    Job,
    Pod,
}

impl OwnerKind {
    /// As in `kind`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::Job => "Job",
            Self::Pod => "Pod",
        }
    }

    /// The words before the slash of `deploy/NAME`.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "deploy" | "deployment" | "deployments" => Some(Self::Deployment),
            "sts" | "statefulset" | "statefulsets" => Some(Self::StatefulSet),
            "ds" | "daemonset" | "daemonsets" => Some(Self::DaemonSet),
            "job" | "jobs" => Some(Self::Job),
            "po" | "pod" | "pods" => Some(Self::Pod),
            _ => None,
        }
    }
}

/// Something that makes pods.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) template: PodTemplate,
    /// Of the template, and of whether it is in the mesh: pods with another one are out of date.
    pub(crate) hash: String,
    /// Whether its pods are in the mesh.
    pub(crate) mesh: bool,
    pub(crate) shape: Shape,
}

/// How many pods, and which.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    Replicas(u32),
    Ordinals {
        replicas: u32,
        service: String,
    },
    PerNode,
    UntilDone {
        parallelism: u32,
        completions: u32,
        backoff_limit: u32,
        suspended: bool,
    },
    One,
}

impl Wanted {
    /// Reads the objects. One that cannot be read is left out, and named in the log: the control plane has told its user.
    pub(crate) fn read(desired: &Desired) -> Self {
        let mut wanted = Self::default();
        for value in &desired.objects {
            let text = value.to_string();
            let parsed = api::parse("desired", text.as_bytes());
            for reference in &parsed.rejected {
                tracing::warn!(%reference, "the control plane wants an object that cannot be read");
            }
            for object in parsed.objects {
                wanted.add(object.meta, object.kind);
            }
        }
        wanted.place();
        wanted
    }

    fn add(&mut self, meta: Meta, kind: Kind) {
        let key = (meta.namespace.clone(), meta.name.clone());
        let (kind, shape, template) = match kind {
            Kind::Namespace(_) => {
                self.namespaces.insert(meta.name, meta.labels);
                return;
            }
            Kind::ServiceAccount(_) => {
                self.accounts.insert(key);
                return;
            }
            Kind::ConfigMap(map, _) => {
                self.config_maps.insert(key, map.data);
                return;
            }
            Kind::Secret(secret) => {
                self.secrets.insert(key, secret.data);
                return;
            }
            Kind::Deployment(body) => (
                OwnerKind::Deployment,
                Shape::Replicas(body.replicas.unwrap_or(1)),
                body.template,
            ),
            Kind::StatefulSet(body) => (
                OwnerKind::StatefulSet,
                Shape::Ordinals {
                    replicas: body.replicas.unwrap_or(1),
                    service: body.service_name,
                },
                body.template,
            ),
            Kind::DaemonSet(body) => (OwnerKind::DaemonSet, Shape::PerNode, body.template),
            Kind::Job(body) => {
                let parallelism = body.parallelism.unwrap_or(1);
                let shape = Shape::UntilDone {
                    parallelism,
                    // Without a number it is done when any pod is: the same as one, as far as it goes here.
                    completions: body.completions.unwrap_or_else(|| parallelism.max(1)),
                    backoff_limit: body.backoff_limit.unwrap_or(6),
                    suspended: body.suspend,
                };
                (OwnerKind::Job, shape, body.template)
            }
            Kind::Pod(pod) => {
                let template = PodTemplate {
                    metadata: meta.clone(),
                    spec: pod.spec,
                };
                (OwnerKind::Pod, Shape::One, template)
            }
            _ => return,
        };
        let owner = Owner {
            hash: String::new(),
            mesh: false,
            template,
            shape,
        };
        let key = OwnerKey {
            namespace: key.0,
            kind,
            name: key.1,
        };
        self.owners.insert(key, owner);
    }

    /// Says of each owner whether its pods are in the mesh (CP-01..15). The control plane asks the same question of the
    /// same labels, so a namespace whose labels change has its pods replaced.
    fn place(&mut self) {
        let none = BTreeMap::new();
        let policy = InjectionPolicy::default();
        for (key, owner) in &mut self.owners {
            let meta = &owner.template.metadata;
            let labels = PodLabels {
                namespace: &key.namespace,
                namespace_labels: self.namespaces.get(&key.namespace).unwrap_or(&none),
                labels: &meta.labels,
                annotations: &meta.annotations,
                host_network: owner.template.spec.host_network,
            };
            owner.mesh = injected(labels, &policy);
            owner.hash = template_hash(&owner.template, owner.mesh);
        }
    }

    /// Whether pods may run as the account: a Kubernetes cluster makes `default` by itself, and no other.
    pub(crate) fn has_account(&self, namespace: &str, spec: &PodSpec) -> bool {
        let account = spec.service_account();
        account == "default"
            || self
                .accounts
                .contains(&(namespace.to_owned(), account.to_owned()))
    }
}

/// Changes with whatever a pod of the template would have, and not with what others note on it.
fn template_hash(template: &PodTemplate, mesh: bool) -> String {
    let meta = &template.metadata;
    let text = serde_json::json!([meta.labels, meta.annotations, template.spec, mesh]).to_string();
    letters(&[&text], 10)
}

/// A name of `length` characters that follows from the words, in the letters that Kubernetes uses for such: none that
/// would make a word.
pub(crate) fn letters(words: &[&str], length: usize) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut digest = Sha256::new();
    for word in words {
        digest.update(word.as_bytes());
        digest.update([0]);
    }
    let bytes = digest.finalize();
    let letter = |byte: &u8| {
        ALPHABET
            .get(usize::from(*byte) % ALPHABET.len())
            .map(|b| char::from(*b))
    };
    bytes.iter().take(length).filter_map(letter).collect()
}

/// Something in the form of a UUID that follows from the words.
pub(crate) fn uuid(words: &[&str]) -> String {
    let mut digest = Sha256::new();
    for word in words {
        digest.update(word.as_bytes());
        digest.update([0]);
    }
    let hex: String = digest
        .finalize()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let part = |from, to| hex.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-{}-{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(annotation: &str, image: &str) -> Desired {
        Desired {
            objects: vec![json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "web", "namespace": "n", "annotations": {"note": annotation}},
                "spec": {
                    "replicas": 3,
                    "selector": {"matchLabels": {"app": "web"}},
                    "template": {
                        "metadata": {"labels": {"app": "web"}},
                        "spec": {"containers": [{"name": "c", "image": image}]},
                    },
                },
            })],
            ..Desired::default()
        }
    }

    fn hash(desired: &Desired) -> String {
        let wanted = Wanted::read(desired);
        wanted.owners.values().next().unwrap().hash.clone()
    }

    #[test]
    fn a_template_hash_changes_with_the_template_alone() {
        let first = hash(&deployment("a", "x/httpbin"));
        assert_eq!(first, hash(&deployment("b", "x/httpbin")));
        assert_ne!(first, hash(&deployment("a", "y/httpbin")));
        assert_eq!(first.len(), 10);
    }

    #[test]
    fn cp_01_a_namespace_that_joins_the_mesh_has_its_pods_replaced() {
        let mut desired = deployment("a", "x/httpbin");
        let outside = Wanted::read(&desired).owners.into_values().next().unwrap();
        desired.objects.push(json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "n", "labels": {"istio-injection": "enabled"}},
        }));
        let inside = Wanted::read(&desired).owners.into_values().next().unwrap();
        assert!(!outside.mesh && inside.mesh);
        assert_ne!(outside.hash, inside.hash);
    }

    #[test]
    fn only_the_account_default_is_there_by_itself() {
        let wanted = Wanted::read(&Desired {
            objects: vec![json!({
                "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a", "namespace": "n"},
            })],
            ..Desired::default()
        });
        let named = |name: &str| PodSpec {
            service_account_name: name.to_owned(),
            ..PodSpec::default()
        };
        assert!(wanted.has_account("n", &named("a")));
        assert!(wanted.has_account("n", &named("")));
        assert!(!wanted.has_account("m", &named("a")));
    }

    #[test]
    fn a_uuid_has_its_form() {
        let uuid = uuid(&["a", "b"]);
        let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
    }
}
