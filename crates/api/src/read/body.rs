//! The typed body of an object whose structure was checked.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::mesh;
use crate::kinds::{
    self, AuthorizationPolicy, ConfigMap, DRY_RUN, Guardrail, Kind, Meta, Namespace, PeerAuthentication, Pod,
    RequestAuthentication, Secret, Selector,
};
use crate::known::KnownKind;
use crate::report::Report;
use crate::yaml::Node;

/// Reads the body. `None` where it does not fit its type, which is reported.
pub(super) fn read(
    known: Option<&KnownKind>,
    meta: &Meta,
    root: &Node,
    invalid: bool,
    report: &mut Report<'_>,
) -> Option<Kind> {
    let Some(known) = known else {
        return Some(Kind::Other);
    };
    if invalid {
        return Some(denied(known.kind, meta, root));
    }
    let mut reader = Typed { root, report };
    Some(match (known.group, known.kind) {
        ("", "Namespace") => Kind::Namespace(Namespace::default()),
        ("", "Pod") => {
            let mut pod: Pod = reader.whole()?;
            pod.metadata = meta.clone();
            Kind::Pod(Box::new(pod))
        }
        ("apps", "Deployment") => Kind::Deployment(Box::new(reader.spec()?)),
        ("apps", "StatefulSet") => Kind::StatefulSet(Box::new(reader.spec()?)),
        ("apps", "DaemonSet") => Kind::DaemonSet(Box::new(reader.spec()?)),
        ("batch", "Job") => Kind::Job(Box::new(reader.spec()?)),
        ("", "Service") => Kind::Service(Box::new(reader.spec()?)),
        ("", "ServiceAccount") => Kind::ServiceAccount(reader.whole()?),
        ("", "Endpoints") => Kind::Endpoints(reader.whole()?),
        ("discovery.k8s.io", "EndpointSlice") => Kind::EndpointSlice(reader.whole()?),
        ("", "ConfigMap") => {
            let config: ConfigMap = reader.whole()?;
            let mesh = mesh::read(meta, &config, root, reader.report)?;
            Kind::ConfigMap(config, mesh.map(Box::new))
        }
        ("", "Secret") => Kind::Secret(secret(root)),
        ("security.istio.io", "PeerAuthentication") => Kind::PeerAuthentication(reader.spec()?),
        ("security.istio.io", "AuthorizationPolicy") => {
            let value = policy_json(root);
            let mut policy: AuthorizationPolicy = reader.typed(value, "spec")?;
            policy.dry_run = dry_run(meta);
            rule_lines(&mut policy.rules, "spec.rules", root);
            Kind::AuthorizationPolicy(Box::new(policy))
        }
        ("security.istio.io", "RequestAuthentication") => {
            let value = targets(spec(root));
            let mut body: RequestAuthentication = reader.typed(value, "spec")?;
            for (index, rule) in body.jwt_rules.iter_mut().enumerate() {
                rule.line = root.span_at(&format!("spec.jwtRules[{index}]")).line;
            }
            Kind::RequestAuthentication(Box::new(body))
        }
        ("meshward.dev", "Guardrail") => {
            let mut guardrail: Guardrail = reader.spec()?;
            rule_lines(&mut guardrail.deny, "spec.deny", root);
            rule_lines(&mut guardrail.ceiling, "spec.ceiling", root);
            Kind::Guardrail(Box::new(guardrail))
        }
        ("networking.istio.io", "DestinationRule") => Kind::DestinationRule(Box::new(reader.spec()?)),
        ("telemetry.istio.io", "Telemetry") => Kind::Telemetry(Box::new(reader.spec()?)),
        ("networking.istio.io", "ServiceEntry") => Kind::ServiceEntry(Box::new(reader.spec()?)),
        ("networking.istio.io", "Sidecar") => Kind::Sidecar(Box::new(reader.spec()?)),
        _ => Kind::Other,
    })
}

/// The object as Kubernetes would store it: the kind filled in, the namespace too.
pub(super) fn complete(json: &mut Value, api_version: &str, kind: &str, meta: &Meta) {
    let Some(map) = json.as_object_mut() else { return };
    map.insert("apiVersion".to_owned(), json!(api_version));
    map.insert("kind".to_owned(), json!(kind));
    if !meta.namespace.is_empty()
        && let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.insert("namespace".to_owned(), json!(meta.namespace));
    }
}

/// Whether the annotation says so, as Go reads booleans; anything else is enforced.
pub(crate) fn dry_run(meta: &Meta) -> bool {
    meta.annotations
        .get(DRY_RUN)
        .and_then(|text| kinds::go_bool(text))
        == Some(true)
}

struct Typed<'a, 't> {
    root: &'a Node,
    report: &'a mut Report<'t>,
}

impl Typed<'_, '_> {
    fn spec<T: DeserializeOwned>(&mut self) -> Option<T> {
        let value = spec(self.root);
        self.typed(value, "spec")
    }

    fn whole<T: DeserializeOwned>(&mut self) -> Option<T> {
        let mut value = self.root.to_json();
        if let Some(map) = value.as_object_mut() {
            // Read apart, tolerantly.
            map.remove("metadata");
        }
        self.typed(value, "")
    }

    fn typed<T: DeserializeOwned>(&mut self, value: Value, path: &str) -> Option<T> {
        match serde_json::from_value(value) {
            Ok(body) => Some(body),
            Err(error) => {
                self.report
                    .error(
                        "MW0202",
                        self.root.span_at(path),
                        format!("the object does not fit its kind: {error}"),
                    )
                    .path(path);
                None
            }
        }
    }
}

fn spec(root: &Node) -> Value {
    match root.child("spec").map(Node::to_json) {
        Some(value @ Value::Object(_)) => value,
        _ => Value::Object(Map::new()),
    }
}

/// `targetRef` joins `targetRefs`.
fn targets(mut spec: Value) -> Value {
    if let Some(map) = spec.as_object_mut()
        && let Some(single) = map.remove("targetRef")
    {
        match map.get_mut("targetRefs").and_then(Value::as_array_mut) {
            Some(list) => list.insert(0, single),
            None => {
                map.insert("targetRefs".to_owned(), json!([single]));
            }
        }
    }
    spec
}

fn policy_json(root: &Node) -> Value {
    let mut value = targets(spec(root));
    if let Some(map) = value.as_object_mut()
        && let Some(provider) = map.remove("provider")
        && let Some(name) = provider.get("name")
    {
        map.insert("provider".to_owned(), name.clone());
    }
    value
}

fn rule_lines(rules: &mut [kinds::Rule], list: &str, root: &Node) {
    for (index, rule) in rules.iter_mut().enumerate() {
        let path = format!("{list}[{index}]");
        rule.line = root.span_at(&path).line;
        for (at, condition) in rule.when.iter_mut().enumerate() {
            condition.line = root.span_at(&format!("{path}.when[{at}]")).line;
        }
    }
}

/// What is left of a security object that cannot be accepted: whom it targets.
fn denied(kind: &str, meta: &Meta, root: &Node) -> Kind {
    let selector = selector(root);
    let target_refs = match targets(spec(root)).get("targetRefs") {
        Some(list) if selector.is_none() => serde_json::from_value(list.clone()).unwrap_or_default(),
        _ => Vec::new(),
    };
    match kind {
        "PeerAuthentication" => Kind::PeerAuthentication(PeerAuthentication {
            selector,
            ..PeerAuthentication::default()
        }),
        "RequestAuthentication" => Kind::RequestAuthentication(Box::new(RequestAuthentication {
            selector,
            target_refs,
            ..RequestAuthentication::default()
        })),
        // Whom it spares can be believed only where all of it can be read.
        "Guardrail" => Kind::Guardrail(Box::default()),
        _ => {
            let action = spec(root)
                .get("action")
                .and_then(|action| serde_json::from_value(action.clone()).ok())
                .unwrap_or_default();
            Kind::AuthorizationPolicy(Box::new(AuthorizationPolicy {
                selector,
                target_refs,
                action,
                dry_run: dry_run(meta),
                ..AuthorizationPolicy::default()
            }))
        }
    }
}

/// The selector, if all of it can be read: `selector` has `matchLabels` alone, and that holds texts alone.
fn selector(root: &Node) -> Option<Selector> {
    let selector = root.child("spec")?.child("selector")?;
    let [(key, labels)] = selector.entries() else {
        return None;
    };
    if key.text != "matchLabels" {
        return None;
    }
    let labels = labels.entries().iter();
    let match_labels = labels
        .map(|(key, value)| Some((key.text.clone(), value.text()?.to_owned())))
        .collect::<Option<_>>()?;
    Some(Selector { match_labels })
}

fn secret(root: &Node) -> Secret {
    let entries = |key: &str| root.child(key).map(Node::entries).unwrap_or_default().iter();
    let mut data: std::collections::BTreeMap<String, Vec<u8>> = entries("data")
        .filter_map(|(key, value)| Some((key.text.clone(), decode(value.text()?)?)))
        .collect();
    let plain =
        entries("stringData").filter_map(|(key, value)| Some((key.text.clone(), value.text()?.into())));
    data.extend(plain);
    let secret_type = root
        .child("type")
        .and_then(Node::text)
        .unwrap_or("Opaque")
        .to_owned();
    Secret { secret_type, data }
}

/// Base64 as Kubernetes takes it: line breaks do not count.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let joined: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
    STANDARD.decode(joined).ok()
}
