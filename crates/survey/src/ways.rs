//! The ways, as data.

mod egress;
mod ingress;
mod own;

use crate::attempt::Attempt;

/// All of them, in the order in which they are tried.
pub(crate) fn all() -> impl Iterator<Item = &'static Attempt> {
    ingress::WAYS.iter().chain(egress::WAYS).chain(own::WAYS)
}

/// Why Istio lets slip what is not TCP.
const TCP_ONLY: &str = "only TCP is captured";

/// Mutual TLS alone, for the whole mesh.
const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
";

/// Nothing out of the registry.
const REGISTRY_ONLY: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: 'outboundTrafficPolicy: {mode: REGISTRY_ONLY}'}
";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::attempt::Sign;

    #[test]
    fn each_way_has_a_name_of_its_own_and_a_row_of_the_semantics() {
        let names: BTreeSet<_> = all().map(|way| way.id).collect();
        assert_eq!(names.len(), all().count());
        for way in all() {
            assert!(!way.of.is_empty() && !way.title.is_empty(), "{}", way.id);
            let record = !matches!(way.sign, Sign::Answered);
            assert_eq!(way.to.place().is_some(), record, "{}", way.id);
        }
    }

    #[test]
    fn the_documentation_has_a_line_for_each() {
        let text = include_str!("../../../docs/survey.md");
        for way in all() {
            let line = format!("| `{}` | {} | {} |", way.id, way.title, way.of);
            assert!(text.contains(&line), "{line}");
            let through = text
                .lines()
                .any(|other| other.starts_with(&line) && other.contains("**let through**"));
            assert_eq!(through, way.lets.is_some(), "{line}");
        }
    }

    #[test]
    fn what_the_survey_is_named_for_is_among_them() {
        let rows: BTreeSet<_> = all().flat_map(|way| way.of.split(' ')).collect();
        for row in [
            "P1", "P15", "P16", "P17", "P18", "P19", "P20", "P21", "P22", "P23", "P24", "P25", "P26", "P27",
            "P29", "P30", "P31", "P36", "P52", "R9", "CAP-16",
        ] {
            assert!(rows.contains(row), "{row}");
        }
    }
}
