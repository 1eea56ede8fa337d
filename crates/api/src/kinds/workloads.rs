//! Kubernetes' kinds that run something, as far as they matter here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Meta;

/// Namespace. All that matters is in its metadata.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Namespace {}

/// Pod, whole, so that it travels as the Kubernetes object that it is.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Kubernetes', name by name")]
pub struct Pod {
    pub metadata: Meta,
    pub spec: PodSpec,
    pub status: PodStatus,
}

/// `template` of what makes pods.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Kubernetes', name by name")]
pub struct PodTemplate {
    pub metadata: Meta,
    pub spec: PodSpec,
}

/// Deployment, StatefulSet, DaemonSet: the `spec`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Kubernetes', name by name")]
pub struct Workload {
    /// 1 where absent; without meaning for a DaemonSet.
    pub replicas: Option<u32>,
    pub selector: LabelSelector,
    pub template: PodTemplate,
    /// StatefulSet only: the headless Service.
    pub service_name: String,
    pub paused: bool,
}

/// Job: the `spec`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Kubernetes', name by name")]
pub struct Job {
    pub parallelism: Option<u32>,
    pub completions: Option<u32>,
    pub backoff_limit: Option<u32>,
    pub suspend: bool,
    pub template: PodTemplate,
}

/// A Kubernetes label selector.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Kubernetes', name by name")]
pub struct LabelSelector {
    pub match_labels: BTreeMap<String, String>,
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

/// `matchExpressions[]`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Kubernetes', name by name")]
pub struct LabelSelectorRequirement {
    pub key: String,
    pub operator: String,
    pub values: Vec<String>,
}

impl LabelSelector {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    /// Whether the labels fulfil it. An operator that is unknown fulfils nothing.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let listed = self
            .match_labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value));
        listed
            && self.match_expressions.iter().all(|wanted| {
                let value = labels.get(&wanted.key);
                match wanted.operator.as_str() {
                    "In" => value.is_some_and(|value| wanted.values.contains(value)),
                    "NotIn" => value.is_none_or(|value| !wanted.values.contains(value)),
                    "Exists" => value.is_some(),
                    "DoesNotExist" => value.is_none(),
                    _ => false,
                }
            })
    }
}

/// A pod's `spec`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Kubernetes', name by name")]
pub struct PodSpec {
    pub containers: Vec<Container>,
    pub init_containers: Vec<Container>,
    /// `default` where empty.
    pub service_account_name: String,
    pub host_network: bool,
    pub node_name: String,
    pub node_selector: BTreeMap<String, String>,
    pub hostname: String,
    pub subdomain: String,
    pub restart_policy: Option<String>,
    pub termination_grace_period_seconds: Option<u64>,
    pub security_context: Option<SecurityContext>,
    pub volumes: Vec<Value>,
}

impl PodSpec {
    /// The service account, `default` where none is named.
    pub fn service_account(&self) -> &str {
        if self.service_account_name.is_empty() {
            "default"
        } else {
            &self.service_account_name
        }
    }
}

/// `containers[]`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Kubernetes', name by name")]
pub struct Container {
    pub name: String,
    pub image: String,
    pub command: Vec<String>,
    pub args: Vec<String>,
    pub working_dir: String,
    pub env: Vec<EnvVar>,
    pub env_from: Vec<EnvFrom>,
    pub ports: Vec<ContainerPort>,
    pub security_context: Option<SecurityContext>,
    pub readiness_probe: Option<Value>,
    pub liveness_probe: Option<Value>,
    pub startup_probe: Option<Value>,
    pub restart_policy: Option<String>,
    pub volume_mounts: Vec<Value>,
}

/// `env[]`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Kubernetes', name by name")]
pub struct EnvVar {
    pub name: String,
    pub value: String,
    pub value_from: Option<EnvVarSource>,
}

/// `env[].valueFrom`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Kubernetes', name by name")]
pub struct EnvVarSource {
    pub config_map_key_ref: Option<ConfigKeyRef>,
    pub secret_key_ref: Option<ConfigKeyRef>,
    pub field_ref: Option<FieldRef>,
}

/// `configMapKeyRef`, `secretKeyRef`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Kubernetes', name by name")]
pub struct ConfigKeyRef {
    pub name: String,
    pub key: String,
    pub optional: bool,
}

/// `fieldRef`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Kubernetes', name by name")]
pub struct FieldRef {
    pub field_path: String,
}

/// `envFrom[]`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Kubernetes', name by name")]
pub struct EnvFrom {
    pub prefix: String,
    pub config_map_ref: Option<NameRef>,
    pub secret_ref: Option<NameRef>,
}

/// A reference by name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Kubernetes', name by name")]
pub struct NameRef {
    pub name: String,
    pub optional: bool,
}

/// `containers[].ports[]`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Kubernetes', name by name")]
pub struct ContainerPort {
    pub name: String,
    pub container_port: u16,
    /// `TCP` where absent.
    pub protocol: Option<String>,
    pub host_port: Option<u16>,
}

/// `securityContext` of a pod or a container.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Kubernetes', name by name")]
pub struct SecurityContext {
    pub run_as_user: Option<u32>,
    pub run_as_group: Option<u32>,
    pub run_as_non_root: Option<bool>,
    pub privileged: Option<bool>,
    pub capabilities: Option<Capabilities>,
}

/// `capabilities`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Kubernetes', name by name")]
pub struct Capabilities {
    pub add: Vec<String>,
    pub drop: Vec<String>,
}

/// A pod's `status`, as far as it is known.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: String,
    /// The first address.
    #[serde(rename = "podIP")]
    pub pod_ip: String,
    /// All addresses.
    #[serde(rename = "podIPs")]
    pub pod_ips: Vec<PodIp>,
    /// The node's address.
    #[serde(rename = "hostIP")]
    pub host_ip: String,
    /// The condition `Ready`.
    pub conditions: Vec<Value>,
    /// Kept raw.
    pub container_statuses: Vec<Value>,
}

impl PodStatus {
    /// All addresses that parse, the first one first, each once.
    pub fn addresses(&self) -> Vec<std::net::IpAddr> {
        let mut out: Vec<std::net::IpAddr> = Vec::new();
        let texts = std::iter::once(&self.pod_ip).chain(self.pod_ips.iter().map(|entry| &entry.ip));
        for ip in texts.filter_map(|text| text.parse().ok()) {
            if !out.contains(&ip) {
                out.push(ip);
            }
        }
        out
    }

    /// Whether the condition `Ready` is `True`.
    pub fn ready(&self) -> bool {
        self.conditions.iter().any(|condition| {
            condition.get("type").and_then(Value::as_str) == Some("Ready")
                && condition.get("status").and_then(Value::as_str) == Some("True")
        })
    }

    /// Sets the condition `Ready`.
    pub fn set_ready(&mut self, ready: bool) {
        self.conditions
            .retain(|condition| condition.get("type").and_then(Value::as_str) != Some("Ready"));
        let status = if ready { "True" } else { "False" };
        self.conditions
            .push(serde_json::json!({"type": "Ready", "status": status}));
    }
}

/// `podIPs[]`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodIp {
    /// The address.
    pub ip: String,
}
