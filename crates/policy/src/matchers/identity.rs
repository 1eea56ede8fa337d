//! Who calls: identities by component, never as text (semantics 2.6 OURS).

use std::sync::Arc;

use model::{SpiffeId, TrustDomain};

use super::Bias;
use super::text::{Form, glob};

/// What one component of an identity must be.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Component {
    Any,
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
}

impl Component {
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(value) => **value == *text,
            Self::Prefix(value) => text.starts_with(&**value),
            Self::Suffix(value) => text.ends_with(&**value),
        }
    }

    pub(crate) fn exact(&self) -> Option<&str> {
        match self {
            Self::Exact(text) => Some(text),
            _ => None,
        }
    }

    fn partial(form: fn(Box<str>) -> Self, text: &str) -> Self {
        if text.is_empty() {
            Self::Any
        } else {
            form(text.into())
        }
    }
}

/// A value of `principals`, taken apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Principal {
    pub(crate) trust_domain: Component,
    pub(crate) namespace: Component,
    pub(crate) service_account: Component,
}

impl Principal {
    const ANY: Self = Self {
        trust_domain: Component::Any,
        namespace: Component::Any,
        service_account: Component::Any,
    };

    /// `None` where the value matches no identity that the mesh issues (SM-35, say).
    pub(crate) fn parse(value: &str) -> Option<Self> {
        match Form::of(value) {
            Form::Presence => Some(Self::ANY),
            Form::Exact(text) => Self::walk(text.split('/').collect(), Component::Exact, false)
                .filter(|p| p.service_account != Component::Any),
            Form::Prefix(text) => Self::walk(text.split('/').collect(), Component::Prefix, false),
            Form::Suffix(text) => Self::walk(text.rsplit('/').collect(), Component::Suffix, true),
        }
    }

    /// Lays segments over `TD/ns/NS/sa/SA`, from the right if `back`; the last segment is `last`'s, the others exact.
    fn walk(segments: Vec<&str>, last: fn(Box<str>) -> Component, back: bool) -> Option<Self> {
        let mut principal = Self::ANY;
        let end = segments.len().checked_sub(1)?;
        for (i, segment) in segments.into_iter().enumerate() {
            let place = if back { 4_usize.checked_sub(i)? } else { i };
            let component = if i == end {
                Component::partial(last, segment)
            } else {
                Component::Exact(segment.into())
            };
            match place {
                0 => principal.trust_domain = component,
                1 if component.matches("ns") => {}
                2 => principal.namespace = component,
                3 if component.matches("sa") => {}
                4 => principal.service_account = component,
                _ => return None,
            }
        }
        Some(principal)
    }

    fn matches(&self, id: &SpiffeId) -> bool {
        self.service_account.matches(id.service_account())
            && self.namespace.matches(id.namespace())
            && self.trust_domain.matches(id.trust_domain().as_str())
    }

    fn full(&self) -> Option<(&str, &str, &str)> {
        Some((
            self.trust_domain.exact()?,
            self.namespace.exact()?,
            self.service_account.exact()?,
        ))
    }
}

/// The values of `principals`.
#[derive(Debug)]
pub(crate) struct Principals {
    /// All components exact, sorted.
    full: Box<[Principal]>,
    patterns: Box<[Principal]>,
}

impl Principals {
    pub(crate) fn new(principals: impl Iterator<Item = Principal>) -> Self {
        let (mut full, patterns): (Vec<_>, Vec<_>) = principals.partition(|p| p.full().is_some());
        full.sort_unstable();
        full.dedup();
        Self {
            full: full.into(),
            patterns: patterns.into(),
        }
    }

    pub(crate) fn matches(&self, id: &SpiffeId) -> bool {
        let wanted = (id.trust_domain().as_str(), id.namespace(), id.service_account());
        self.full
            .binary_search_by(|p| p.full().cmp(&Some(wanted)))
            .is_ok()
            || self.patterns.iter().any(|p| p.matches(id))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Principal> {
        self.full.iter().chain(&self.patterns)
    }
}

/// Whether namespaces and service accounts of foreign trust domains count.
///
/// Upstream does not look at the trust domain (TD-15). A name of a foreign domain is not the local one (R32): it opens
/// nothing, but is still refused what the local one is refused.
#[derive(Clone, Debug)]
pub(crate) struct Domains(Option<Arc<[TrustDomain]>>);

impl Domains {
    /// Every trust domain.
    pub(crate) const ANY: Self = Self(None);

    pub(crate) fn known(domains: Arc<[TrustDomain]>) -> Self {
        Self(Some(domains))
    }

    fn admits(&self, id: &SpiffeId, bias: Bias) -> bool {
        bias == Bias::Wide
            || self
                .0
                .as_ref()
                .is_none_or(|known| known.contains(id.trust_domain()))
    }
}

/// The values of `namespaces`.
#[derive(Debug)]
pub(crate) struct Namespaces {
    values: Box<[Box<str>]>,
    domains: Domains,
    /// Upstream's `/ns/VALUE/` anywhere in the identity, where `*` crosses slashes.
    anywhere: bool,
}

impl Namespaces {
    pub(crate) fn new<'a>(values: impl Iterator<Item = &'a str>, domains: Domains, anywhere: bool) -> Self {
        Self {
            values: values.map(Into::into).collect(),
            domains,
            anywhere,
        }
    }

    pub(crate) fn matches(&self, id: &SpiffeId, bias: Bias) -> bool {
        // What upstream refuses by its expression is refused here too, what it admits by that is not (R32).
        let anywhere = self.anywhere || bias == Bias::Wide;
        let covers = |value: &str| Self::covers(value, id.namespace(), anywhere);
        self.domains.admits(id, bias) && self.values.iter().any(|value| covers(value))
    }

    fn covers(value: &str, namespace: &str, anywhere: bool) -> bool {
        let (value, text) = (value.as_bytes(), namespace.as_bytes());
        let mut covered = glob(value, text.len(), |i| text.get(i).copied());
        if anywhere && !covered {
            let tail = b"/sa";
            let at = |i: usize| text.get(i).or_else(|| tail.get(i - text.len())).copied();
            covered = glob(value, text.len() + tail.len(), at)
                || (namespace == "ns" && glob(value, 2, |i| b"sa".get(i).copied()));
        }
        covered
    }

    /// The namespaces without wildcard; `None` where one has any, or may match something else.
    pub(crate) fn exact(&self) -> Option<&[Box<str>]> {
        let special = |v: &str| v.contains(['*', '/']) || v == "sa";
        (!self.values.iter().any(|v| special(v))).then_some(&self.values)
    }
}

/// The values of `serviceAccounts`: namespace and name.
#[derive(Debug)]
pub(crate) struct ServiceAccounts {
    /// Sorted.
    values: Box<[(Box<str>, Box<str>)]>,
    domains: Domains,
}

impl ServiceAccounts {
    /// `namespace` is the policy's, for values without one.
    pub(crate) fn new<'a>(values: impl Iterator<Item = &'a str>, namespace: &str, domains: Domains) -> Self {
        let split = |value: &'a str| {
            let (ns, sa) = value.split_once('/').unwrap_or((namespace, value));
            (ns.into(), sa.into())
        };
        let mut values: Vec<_> = values.map(split).collect();
        values.sort_unstable();
        Self {
            values: values.into(),
            domains,
        }
    }

    pub(crate) fn matches(&self, id: &SpiffeId, bias: Bias) -> bool {
        let wanted = (id.namespace(), id.service_account());
        let find = |(ns, sa): &(Box<str>, Box<str>)| (&**ns, &**sa).cmp(&wanted);
        self.domains.admits(id, bias) && self.values.binary_search_by(find).is_ok()
    }

    pub(crate) fn all(&self) -> &[(Box<str>, Box<str>)] {
        &self.values
    }
}
