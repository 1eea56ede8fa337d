//! Host names in rules: short names, wildcards, and which of several is the most specific (semantics 6.6).

use model::{Host, HostError};

/// A host as a rule names it: one name, every name below a suffix, or every name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Pattern {
    /// One name.
    Exact(Host),
    /// `*.suffix`; the text here starts with its dot.
    Suffix(String),
    /// `*`.
    Any,
}

impl Pattern {
    /// Reads the host of a rule that lives in `namespace`: a name without a dot is a Service of the *rule's*
    /// namespace, whoever the client is; any other is taken as it stands.
    ///
    /// # Errors
    /// The text is not a host name, or has a `*` elsewhere than as its first label.
    pub fn parse(text: &str, namespace: &str, cluster_domain: &str) -> Result<Self, HostError> {
        let host: Host = text.parse()?;
        let name = host.as_str();
        if name == "*" {
            return Ok(Self::Any);
        }
        if let Some(suffix) = name.strip_prefix('*') {
            let plain = suffix.len() > 1 && suffix.starts_with('.') && !suffix.contains('*');
            return plain
                .then(|| Self::Suffix(suffix.to_owned()))
                .ok_or_else(|| HostError(text.to_owned()));
        }
        if name.contains('*') {
            return Err(HostError(text.to_owned()));
        }
        let short = !name.contains(['.', ':']);
        let full = short.then(|| format!("{name}.{namespace}.svc.{cluster_domain}").parse());
        full.unwrap_or(Ok(host)).map(Self::Exact)
    }

    /// Whether the pattern covers the name. A suffix does not cover itself: `*.a.b` is not `a.b`.
    pub fn matches(&self, host: &Host) -> bool {
        match self {
            Self::Exact(own) => own == host,
            Self::Suffix(suffix) => host.as_str().len() > suffix.len() && host.as_str().ends_with(suffix),
            Self::Any => true,
        }
    }

    /// Larger is more specific: an exact name before any suffix, a longer suffix before a shorter one.
    pub fn specificity(&self) -> usize {
        match self {
            Self::Exact(_) => usize::MAX,
            Self::Suffix(suffix) => suffix.len(),
            Self::Any => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, host: &str, expect: bool) {
        let pattern = Pattern::parse(pattern, "rule-ns", "cluster.local").unwrap();
        assert_eq!(
            pattern.matches(&host.parse().unwrap()),
            expect,
            "{pattern:?} {host}"
        );
    }

    #[test]
    fn short_names_belong_to_the_namespace_of_the_rule() {
        check("reviews", "reviews.rule-ns.svc.cluster.local", true);
        check("reviews", "reviews.client-ns.svc.cluster.local", false);
        check("Reviews.", "reviews.rule-ns.svc.cluster.local", true);
        check("reviews.other", "reviews.other.svc.cluster.local", false);
        check("10.0.0.1", "10.0.0.1", true);
    }

    #[test]
    fn wildcards() {
        check("*", "anything.at.all", true);
        check("*.local", "a.ns.svc.cluster.local", true);
        check("*.b.c", "a.b.c", true);
        check("*.b.c", "b.c", false);
        check("*.b.c", "xb.c", false);
        for bad in ["*b.c", "a.*", "*.*.c", ""] {
            assert!(Pattern::parse(bad, "n", "d").is_err(), "{bad}");
        }
    }

    #[test]
    fn specificity_orders_exact_then_longest_suffix() {
        let of = |text| Pattern::parse(text, "n", "d").unwrap().specificity();
        assert!(of("a.b.c") > of("*.b.c") && of("*.b.c") > of("*.c") && of("*.c") > of("*"));
    }
}
