//! Guardrail: what tenants cannot weaken.

use serde::{Deserialize, Serialize};

use super::security::{MutualTls, Rule};

/// What holds for the workloads of some namespaces, whatever their own objects say. It has its effect in the root
/// namespace alone.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Guardrail {
    /// The namespaces; a `*` at one end stands for any text. Empty means all.
    pub namespaces: Vec<String>,
    /// Namespaces that are left out, in the same form.
    pub not_namespaces: Vec<String>,
    /// The least that PeerAuthentications may ask for.
    pub mtls: Option<MutualTls>,
    /// What is refused, whatever allows it.
    pub deny: Vec<Rule>,
    /// The most that any ALLOW can grant: what no rule of it matches is refused. Absent means no bound.
    pub ceiling: Vec<Rule>,
}

impl Guardrail {
    /// Whether it holds for workloads of the namespace.
    pub fn covers(&self, namespace: &str) -> bool {
        let among = |list: &[String]| list.iter().any(|pattern| matches(pattern, namespace));
        (self.namespaces.is_empty() || among(&self.namespaces)) && !among(&self.not_namespaces)
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), _) => name.ends_with(end),
        (None, Some(start)) => name.starts_with(start),
        (None, None) => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_named_or_end_in_a_star() {
        let covers = |namespaces: &[&str], not: &[&str], name: &str| {
            let own = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
            Guardrail {
                namespaces: own(namespaces),
                not_namespaces: own(not),
                ..Guardrail::default()
            }
            .covers(name)
        };
        assert!(covers(&[], &[], "any"));
        assert!(covers(&["team-*", "*-prod"], &[], "team-a"));
        assert!(covers(&["team-*", "*-prod"], &[], "shop-prod"));
        assert!(covers(&["*"], &[], "any"));
        assert!(!covers(&["team"], &[], "team-a"));
        assert!(!covers(&["team-*"], &["team-ops"], "team-ops"));
        assert!(!covers(&[], &["*"], "any"));
    }
}
