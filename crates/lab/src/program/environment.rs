//! The environment of a container: literal values, ConfigMaps, Secrets and facts of the pod, and `$(NAME)`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::{ConfigKeyRef, Container, EnvVarSource, Meta};

use crate::desired::{Key, Wanted};

/// Where programs are looked for unless the container says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a container may ask about its pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) meta: &'a Meta,
    pub(crate) account: &'a str,
    pub(crate) node: &'a str,
    pub(crate) node_ips: &'a [IpAddr],
    pub(crate) ips: &'a [IpAddr],
    pub(crate) hostname: &'a str,
}

/// All variables of the container, ordered by name.
///
/// # Errors
/// A ConfigMap, Secret, key or field is not there and not optional; the text names it.
pub(crate) fn of(
    container: &Container,
    facts: Facts<'_>,
    wanted: &Wanted,
) -> Result<BTreeMap<String, String>, String> {
    let mut all: BTreeMap<String, String> = [("PATH", PATH), ("HOME", "/"), ("HOSTNAME", facts.hostname)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let key = |name: &str| -> Key { (facts.meta.namespace.clone(), name.to_owned()) };
    for from in &container.env_from {
        if let Some(map) = &from.config_map_ref {
            match wanted.config_maps.get(&key(&map.name)) {
                Some(data) => all.extend(
                    data.iter()
                        .map(|(k, v)| (format!("{}{k}", from.prefix), v.clone())),
                ),
                None if map.optional => {}
                None => return Err(format!("configmap `{}` not found", map.name)),
            }
        }
        if let Some(secret) = &from.secret_ref {
            match wanted.secrets.get(&key(&secret.name)) {
                Some(data) => all.extend(data.iter().map(|(k, v)| (format!("{}{k}", from.prefix), text(v)))),
                None if secret.optional => {}
                None => return Err(format!("secret `{}` not found", secret.name)),
            }
        }
    }
    for variable in &container.env {
        let value = match &variable.value_from {
            None => Some(expand(&variable.value, &all)),
            Some(source) => from_source(source, facts, wanted)?,
        };
        if let Some(value) = value {
            all.insert(variable.name.clone(), value);
        }
    }
    Ok(all)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn from_source(source: &EnvVarSource, facts: Facts<'_>, wanted: &Wanted) -> Result<Option<String>, String> {
    let key = |of: &ConfigKeyRef| -> Key { (facts.meta.namespace.clone(), of.name.clone()) };
    let found = |what: &str, of: &ConfigKeyRef, there: bool, value: Option<String>| match value {
        Some(value) => Ok(Some(value)),
        None if of.optional => Ok(None),
        None if there => Err(format!("couldn't find key `{}` in {what} `{}`", of.key, of.name)),
        None => Err(format!("{what} `{}` not found", of.name)),
    };
    if let Some(of) = &source.config_map_key_ref {
        let map = wanted.config_maps.get(&key(of));
        return found(
            "configmap",
            of,
            map.is_some(),
            map.and_then(|map| map.get(&of.key).cloned()),
        );
    }
    if let Some(of) = &source.secret_key_ref {
        let secret = wanted.secrets.get(&key(of));
        let value = secret
            .and_then(|secret| secret.get(&of.key))
            .map(|bytes| text(bytes));
        return found("secret", of, secret.is_some(), value);
    }
    match &source.field_ref {
        Some(field) => field_of(&field.field_path, facts).map(Some),
        None => Ok(None),
    }
}

fn field_of(path: &str, facts: Facts<'_>) -> Result<String, String> {
    let list = |ips: &[IpAddr]| ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
    let first = |ips: &[IpAddr]| ips.first().map(IpAddr::to_string).unwrap_or_default();
    let meta = facts.meta;
    let entry = |map: &BTreeMap<String, String>, key: &str| map.get(key).cloned().unwrap_or_default();
    let quoted = |prefix: &str| path.strip_prefix(prefix)?.strip_suffix("']");
    if let Some(key) = quoted("metadata.labels['") {
        return Ok(entry(&meta.labels, key));
    }
    if let Some(key) = quoted("metadata.annotations['") {
        return Ok(entry(&meta.annotations, key));
    }
    Ok(match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "spec.nodeName" => facts.node.to_owned(),
        "spec.serviceAccountName" => facts.account.to_owned(),
        "status.podIP" => first(facts.ips),
        "status.podIPs" => list(facts.ips),
        "status.hostIP" => first(facts.node_ips),
        "status.hostIPs" => list(facts.node_ips),
        other => return Err(format!("fieldRef: there is no field `{other}`")),
    })
}

/// Puts values for `$(NAME)` where the name is known; `$$` stands for `$`.
pub(crate) fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(escaped) = after.strip_prefix('$') {
            out.push('$');
            rest = escaped;
            continue;
        }
        let name = after.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        match name.and_then(|(name, behind)| Some((known.get(name)?, behind))) {
            Some((value, behind)) => {
                out.push_str(value);
                rest = behind;
            }
            None => {
                out.push('$');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn references_are_expanded_once_and_only_where_they_are_known() {
        let known = known(&[("A", "1"), ("B", "$(A)")]);
        for (text, expect) in [
            ("x$(A)y", "x1y"),
            ("$(B)", "$(A)"),
            ("$(C)", "$(C)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
        ] {
            assert_eq!(expand(text, &known), expect, "{text}");
        }
    }

    fn check(yaml: &str) -> Result<BTreeMap<String, String>, String> {
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: n, labels: {{app: web}}}}\n\
             spec:\n  containers:\n  - name: c\n    image: i\n{yaml}"
        );
        let others = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: m, namespace: n}\ndata: {K: v, L: w}\n\
                      ---\napiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: n}\nstringData: {P: hidden}\n";
        let parsed = api::parse("t", format!("{pod}{others}").as_bytes());
        let objects = parsed.objects.iter().map(|object| object.json.clone()).collect();
        let wanted = Wanted::read(&admin::verbs::Desired {
            objects,
            ..Default::default()
        });
        let owner = wanted.owners.values().next().unwrap();
        let ips = ["10.77.0.2".parse().unwrap(), "fd77::2".parse().unwrap()];
        let facts = Facts {
            meta: &owner.template.metadata,
            account: "default",
            node: "node-0",
            node_ips: &[],
            ips: &ips,
            hostname: "p",
        };
        of(owner.template.spec.containers.first().unwrap(), facts, &wanted)
    }

    #[test]
    fn values_come_from_everywhere() {
        let env = check(
            "    envFrom:\n    - prefix: X_\n      configMapRef: {name: m}\n    - secretRef: {name: gone, optional: true}\n    env:\n\
             \x20   - {name: PLAIN, value: 'a $(X_K)'}\n\
             \x20   - {name: KEY, valueFrom: {configMapKeyRef: {name: m, key: L}}}\n\
             \x20   - {name: SECRET, valueFrom: {secretKeyRef: {name: s, key: P}}}\n\
             \x20   - {name: MISSING, valueFrom: {secretKeyRef: {name: s, key: Q, optional: true}}}\n\
             \x20   - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}\n\
             \x20   - {name: LABEL, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['app']\"}}}\n",
        )
        .unwrap();
        for (name, value) in [
            ("PLAIN", "a v"),
            ("KEY", "w"),
            ("SECRET", "hidden"),
            ("IP", "10.77.0.2"),
            ("LABEL", "web"),
            ("HOSTNAME", "p"),
        ] {
            assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!env.contains_key("MISSING"));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (yaml, expect) in [
            (
                "    envFrom:\n    - configMapRef: {name: gone}\n",
                "configmap `gone` not found",
            ),
            (
                "    env:\n    - {name: A, valueFrom: {configMapKeyRef: {name: m, key: Z}}}\n",
                "couldn't find key `Z` in configmap `m`",
            ),
            (
                "    env:\n    - {name: A, valueFrom: {fieldRef: {fieldPath: spec.other}}}\n",
                "fieldRef: there is no field `spec.other`",
            ),
        ] {
            assert_eq!(check(yaml).unwrap_err(), expect);
        }
    }
}
