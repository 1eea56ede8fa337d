//! The names that people have for kinds.

use api::{KnownKind, known_kinds};

/// Short names, as `kubectl` and Istio's definitions have them: group, kind, names.
const SHORT: &[(&str, &str, &[&str])] = &[
    ("", "Namespace", &["ns"]),
    ("", "Pod", &["po"]),
    ("", "Service", &["svc"]),
    ("", "ServiceAccount", &["sa"]),
    ("", "Endpoints", &["ep"]),
    ("", "ConfigMap", &["cm"]),
    ("", "Node", &["no"]),
    ("", "Event", &["ev"]),
    ("", "LimitRange", &["limits"]),
    ("", "ResourceQuota", &["quota"]),
    ("", "PersistentVolume", &["pv"]),
    ("", "PersistentVolumeClaim", &["pvc"]),
    ("", "ReplicationController", &["rc"]),
    ("apps", "Deployment", &["deploy"]),
    ("apps", "StatefulSet", &["sts"]),
    ("apps", "DaemonSet", &["ds"]),
    ("apps", "ReplicaSet", &["rs"]),
    ("batch", "CronJob", &["cj"]),
    ("networking.k8s.io", "Ingress", &["ing"]),
    ("networking.k8s.io", "NetworkPolicy", &["netpol"]),
    ("security.istio.io", "PeerAuthentication", &["pa"]),
    ("security.istio.io", "AuthorizationPolicy", &["ap"]),
    ("security.istio.io", "RequestAuthentication", &["ra"]),
    ("meshward.dev", "Guardrail", &["guard"]),
    ("networking.istio.io", "DestinationRule", &["dr"]),
    ("networking.istio.io", "Gateway", &["gw"]),
    ("networking.istio.io", "ServiceEntry", &["se"]),
    ("networking.istio.io", "VirtualService", &["vs"]),
    ("networking.istio.io", "WorkloadEntry", &["we"]),
    ("networking.istio.io", "WorkloadGroup", &["wg"]),
    ("telemetry.istio.io", "Telemetry", &["telemetry"]),
    ("extensions.istio.io", "TrafficExtension", &["te"]),
    ("gateway.networking.k8s.io", "GatewayClass", &["gc"]),
    ("gateway.networking.k8s.io", "Gateway", &["gtw"]),
    ("gateway.networking.k8s.io", "ReferenceGrant", &["refgrant"]),
    ("gateway.networking.k8s.io", "BackendTLSPolicy", &["btlspolicy"]),
    ("gateway.networking.k8s.io", "ListenerSet", &["lset"]),
];

/// A group and a kind of it.
pub(crate) type GroupKind = (String, String);

/// The kinds that a word means: a kind, its plural or a short name, in any case, with `.GROUP` behind it where two groups
/// have one; `present` are kinds that the world holds, for those of nobody here.
///
/// # Errors
/// It means none; the text says which word is near.
pub(crate) fn resolve(
    word: &str,
    present: impl Iterator<Item = GroupKind>,
) -> Result<Vec<GroupKind>, String> {
    let lower = word.to_lowercase();
    let (name, group) = match lower.split_once('.') {
        Some((name, group)) => (name, Some(group)),
        None => (lower.as_str(), None),
    };
    let fits_group =
        |own: &str| group.is_none_or(|group| own == group || own.starts_with(&format!("{group}.")));
    let known = known_kinds()
        .iter()
        .filter(|kind| fits_group(kind.group) && names(kind).iter().any(|own| own == name))
        .map(|kind| (kind.group.to_owned(), kind.kind.to_owned()));
    let mut found: Vec<GroupKind> = known.collect();
    found.extend(present.filter(|(group, kind)| {
        let own = kind.to_lowercase();
        fits_group(group) && (own == name || format!("{own}s") == name)
    }));
    found.sort();
    found.dedup();
    if found.is_empty() {
        let all: Vec<String> = known_kinds().iter().flat_map(names).collect();
        let near = api::nearest(name, all.iter().map(String::as_str));
        return Err(match near {
            Some(near) => format!("`{word}` is no kind; did you mean `{near}`?"),
            None => format!(
                "`{word}` is no kind; write for example `svc`, `deploy`, `authorizationpolicies` or `all`"
            ),
        });
    }
    Ok(found)
}

fn names(kind: &KnownKind) -> Vec<String> {
    let short = SHORT
        .iter()
        .find(|(group, name, _)| *group == kind.group && *name == kind.kind)
        .map_or(&[][..], |(_, _, short)| short);
    let own = [kind.kind.to_lowercase(), kind.plural.to_owned()];
    own.into_iter()
        .chain(short.iter().map(|name| (*name).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_that_people_have_is_understood() {
        let cases = [
            ("svc", "Service"),
            ("Services", "Service"),
            ("service", "Service"),
            ("po", "Pod"),
            ("pods", "Pod"),
            ("deploy", "Deployment"),
            ("deployments.apps", "Deployment"),
            ("sts", "StatefulSet"),
            ("ds", "DaemonSet"),
            ("cm", "ConfigMap"),
            ("sa", "ServiceAccount"),
            ("ns", "Namespace"),
            ("ep", "Endpoints"),
            ("vs", "VirtualService"),
            ("dr", "DestinationRule"),
            ("se", "ServiceEntry"),
            ("gw", "Gateway"),
            ("pa", "PeerAuthentication"),
            ("ap", "AuthorizationPolicy"),
            ("AuthorizationPolicies", "AuthorizationPolicy"),
            ("ra", "RequestAuthentication"),
            ("netpol", "NetworkPolicy"),
            ("job", "Job"),
            ("Widgets", "Widget"),
        ];
        for (word, kind) in cases {
            let present = std::iter::once(("example.com".to_owned(), "Widget".to_owned()));
            let found = resolve(word, present).unwrap();
            assert_eq!(
                found.iter().map(|(_, kind)| kind.as_str()).collect::<Vec<_>>(),
                [kind],
                "{word}"
            );
        }
        let both = resolve("gateways", std::iter::empty()).unwrap();
        assert_eq!(both.len(), 2, "two groups have it");
        let one = resolve("gateways.networking.istio.io", std::iter::empty()).unwrap();
        assert_eq!(one, [("networking.istio.io".to_owned(), "Gateway".to_owned())]);
    }

    #[test]
    fn a_word_that_is_none_names_the_nearest() {
        let error = |word| resolve(word, std::iter::empty()).unwrap_err();
        assert!(
            error("authorizationpolicie").contains("authorizationpolic"),
            "{}",
            error("authorizationpolicie")
        );
        assert!(error("deplyments").contains("`deployments`"));
        assert!(error("zzz").contains("for example"));
    }

    #[test]
    fn the_table_names_kinds_that_there_are_and_each_short_name_once() {
        let mut all = std::collections::BTreeSet::new();
        for (group, kind, short) in SHORT {
            assert!(
                known_kinds().iter().any(|k| k.group == *group && k.kind == *kind),
                "{kind}"
            );
            for name in *short {
                assert!(all.insert(*name), "{name}");
            }
        }
    }
}
