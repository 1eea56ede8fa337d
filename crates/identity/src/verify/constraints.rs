//! Name constraints (RFC 5280 section 4.2.1.10): which names a CA may give, of every form that a certificate can carry.
//!
//! A SPIFFE id is a URI, and a CA that may sign for one trust domain alone is bound by a constraint on its host
//! (X509-SVID section 4.2). Of a form that cannot be compared, a constraint refuses every name.

use std::collections::BTreeSet;

use x509_parser::prelude::{GeneralName, NameConstraints};
use x509_parser::x509::X509Name;

use super::certificate::Cert;
use crate::error::PeerProblem;

/// The most comparisons of a name with a constraint for one path.
const MAX_COMPARISONS: usize = 50_000;

/// Compares names, so many times and no more.
#[derive(Debug)]
pub(super) struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Self(MAX_COMPARISONS)
    }
}

impl Budget {
    fn take(&mut self) -> Result<(), PeerProblem> {
        self.0 = self
            .0
            .checked_sub(1)
            .ok_or_else(|| PeerProblem::Other("too many names and name constraints".to_owned()))?;
        Ok(())
    }
}

fn violation() -> PeerProblem {
    PeerProblem::Other("a name that its issuer may not give".to_owned())
}

/// Whether a constraint can be acted on.
///
/// # Errors
/// It has no subtree, or one that is malformed.
pub(super) fn check(constraints: &NameConstraints<'_>) -> Result<(), PeerProblem> {
    let lists = [&constraints.permitted_subtrees, &constraints.excluded_subtrees];
    if lists.iter().all(|l| l.is_none()) {
        return Err(PeerProblem::Malformed);
    }
    for list in lists.into_iter().flatten() {
        if list.is_empty() || !list.iter().all(|s| base_is_well_formed(&s.base)) {
            return Err(PeerProblem::Malformed);
        }
    }
    Ok(())
}

fn base_is_well_formed(base: &GeneralName<'_>) -> bool {
    match base {
        // A leading dot is allowed of URIs and mailboxes only.
        GeneralName::DNSName(host) => host.is_empty() || is_host(host),
        GeneralName::URI(host) => host.is_empty() || is_host(host.strip_prefix('.').unwrap_or(host)),
        GeneralName::RFC822Name(text) => match text.split_once('@') {
            None => text.is_empty() || is_host(text.strip_prefix('.').unwrap_or(text)),
            Some((local, host)) => !local.is_empty() && is_host(host),
        },
        GeneralName::IPAddress(bytes) => match bytes.len() {
            8 | 32 => {
                let mask = bytes.split_at(bytes.len() / 2).1;
                let bits: Vec<bool> = mask
                    .iter()
                    .flat_map(|b| (0..8).map(move |i| b << i & 0x80 != 0))
                    .collect();
                bits.iter().skip_while(|b| **b).all(|b| !b)
            }
            _ => false,
        },
        GeneralName::Invalid(..) => false,
        _ => true,
    }
}

/// Labels of letters, digits, `-` and `_`, joined by single dots; a trust domain is one, too.
fn is_host(text: &str) -> bool {
    let plausible = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    text.len() <= 255
        && text
            .split('.')
            .all(|label| !label.is_empty() && label.bytes().all(plausible))
}

/// Whether a name can be read: what cannot be, cannot be constrained either.
pub(super) fn well_formed(name: &GeneralName<'_>) -> Result<(), PeerProblem> {
    let ascii = match name {
        GeneralName::DNSName(text) | GeneralName::URI(text) | GeneralName::RFC822Name(text) => {
            text.bytes().all(|b| (0x21..0x7f).contains(&b))
        }
        GeneralName::IPAddress(bytes) => matches!(bytes.len(), 4 | 16),
        GeneralName::Invalid(..) => false,
        _ => true,
    };
    if ascii {
        Ok(())
    } else {
        Err(PeerProblem::Malformed)
    }
}

/// Whether the names of `cert` are among those that `constraints` allows.
pub(super) fn admit(
    constraints: &NameConstraints<'_>,
    cert: &Cert<'_>,
    budget: &mut Budget,
) -> Result<(), PeerProblem> {
    let subject = cert.x509.subject();
    // An empty subject is no name.
    if subject.iter_rdn().next().is_some() {
        admit_one(constraints, &GeneralName::DirectoryName(subject.clone()), budget)?;
    }
    // Mailboxes stand in subjects as well (RFC 5280 section 4.2.1.10).
    for mailbox in subject.iter_email() {
        let text = mailbox.as_str().map_err(|_| violation())?;
        admit_one(constraints, &GeneralName::RFC822Name(text), budget)?;
    }
    for name in cert.names() {
        admit_one(constraints, name, budget)?;
    }
    Ok(())
}

fn admit_one(
    constraints: &NameConstraints<'_>,
    name: &GeneralName<'_>,
    budget: &mut Budget,
) -> Result<(), PeerProblem> {
    for excluded in constraints.excluded_subtrees.iter().flatten() {
        budget.take()?;
        if same_form(name, &excluded.base) && covers(&excluded.base, name, true).unwrap_or(true) {
            return Err(violation());
        }
    }
    let (mut asked, mut found) = (false, false);
    for permitted in constraints.permitted_subtrees.iter().flatten() {
        budget.take()?;
        if same_form(name, &permitted.base) {
            asked = true;
            found |= covers(&permitted.base, name, false).unwrap_or(false);
        }
    }
    if asked && !found { Err(violation()) } else { Ok(()) }
}

fn same_form(a: &GeneralName<'_>, b: &GeneralName<'_>) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

/// Whether a name lies in a subtree; `None` where that cannot be said. A wildcard lies in a subtree that is `excluded`
/// as soon as one of the names that it stands for does.
fn covers(base: &GeneralName<'_>, name: &GeneralName<'_>, excluded: bool) -> Option<bool> {
    match (base, name) {
        (GeneralName::DNSName(base), GeneralName::DNSName(name)) => dns(base, name, excluded),
        (GeneralName::IPAddress(base), GeneralName::IPAddress(name)) => Some(ip(base, name)),
        (GeneralName::RFC822Name(base), GeneralName::RFC822Name(name)) => mailbox(base, name),
        (GeneralName::URI(base), GeneralName::URI(name)) => uri_host(name).map(|host| host_in(base, host)),
        (GeneralName::DirectoryName(base), GeneralName::DirectoryName(name)) => directory(base, name),
        _ => None,
    }
}

/// `base` and everything below it. What is no host, and no wildcard in place of a first label, cannot be compared.
fn dns(base: &str, name: &str, excluded: bool) -> Option<bool> {
    if !is_host(name.strip_prefix("*.").unwrap_or(name)) {
        return None;
    }
    let (base, name) = (base.to_ascii_lowercase(), name.to_ascii_lowercase());
    let below = |name: &str, base: &str| {
        base.is_empty()
            || name
                .strip_suffix(base)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    if below(&name, &base) {
        return Some(true);
    }
    // `*.a` stands for `b.a`, so that it must not pass where `b.a` may not.
    Some(excluded && name.strip_prefix("*.").is_some_and(|parent| below(&base, parent)))
}

fn ip(base: &[u8], name: &[u8]) -> bool {
    let (network, mask) = base.split_at(base.len() / 2);
    network.len() == name.len()
        && network
            .iter()
            .zip(mask)
            .zip(name)
            .all(|((network, mask), byte)| network & mask == byte & mask)
}

/// A mailbox as written, all of a host, or all of the hosts below one. Nothing in it is a pattern.
fn mailbox(base: &str, name: &str) -> Option<bool> {
    let (local, host) = name.rsplit_once('@')?;
    Some(match base.rsplit_once('@') {
        Some((base_local, base_host)) => base_local == local && base_host.eq_ignore_ascii_case(host),
        None => host_in(base, host),
    })
}

/// `.base` holds the hosts below it, `base` that host alone, and an empty one all.
fn host_in(base: &str, host: &str) -> bool {
    let (base, host) = (base.to_ascii_lowercase(), host.to_ascii_lowercase());
    match base.strip_prefix('.') {
        Some(_) => host.len() > base.len() && host.ends_with(&base),
        None => base.is_empty() || base == host,
    }
}

/// The host of a URI with an authority; of a SPIFFE id the trust domain. An address is no host that a constraint could
/// name, and neither is what is percent-encoded (RFC 5280 section 4.2.1.10).
fn uri_host(uri: &str) -> Option<&str> {
    let (scheme, rest) = uri.split_once("://")?;
    if !scheme
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    let is_address = host
        .rsplit('.')
        .next()
        .is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
    (is_host(host) && !is_address).then_some(host)
}

/// Whether the names of `base` are the first ones of `name`. Text is compared without regard to case, to the kind of
/// string and to how many spaces there are (RFC 5280 section 7.1). Letters beyond ASCII have many spellings, and some kinds
/// of string are read in many ways: that such a text is another one cannot be said.
fn directory(base: &X509Name<'_>, name: &X509Name<'_>) -> Option<bool> {
    let mut names = name.iter_rdn();
    let mut sure = true;
    for wanted in base.iter_rdn() {
        let Some(found) = names.next() else {
            return Some(false);
        };
        let (wanted, found) = (Attributes::of(wanted), Attributes::of(found));
        if wanted.types != found.types {
            return Some(false);
        }
        if wanted.texts != found.texts {
            if wanted.plain && found.plain {
                return Some(false);
            }
            sure = false;
        }
    }
    sure.then_some(true)
}

/// Whether two names are one, as far as that can be said; of those that have been written by one CA.
pub(super) fn same_name(one: &X509Name<'_>, other: &X509Name<'_>) -> bool {
    one.iter_rdn().count() == other.iter_rdn().count() && directory(one, other).unwrap_or(true)
}

/// The attributes of a relative name, in the form in which they are compared.
struct Attributes {
    types: BTreeSet<String>,
    texts: BTreeSet<(String, Vec<u8>)>,
    /// Whether all texts are printable ASCII in kinds of string that have one reading.
    plain: bool,
}

impl Attributes {
    fn of(rdn: &x509_parser::x509::RelativeDistinguishedName<'_>) -> Self {
        let mut all = Self {
            types: BTreeSet::new(),
            texts: BTreeSet::new(),
            plain: true,
        };
        for attribute in rdn.iter() {
            let kind = attribute.attr_type().to_id_string();
            let value = match attribute.as_str() {
                Ok(text) => {
                    all.plain &= text.bytes().all(|b| (0x20..0x7f).contains(&b));
                    let words: Vec<_> = text.split_whitespace().collect();
                    words.join(" ").to_lowercase().into_bytes()
                }
                Err(_) => {
                    all.plain = false;
                    attribute.as_slice().to_vec()
                }
            };
            all.types.insert(kind.clone());
            all.texts.insert((kind, value));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_constraint_bounds_the_trust_domain_and_never_the_text() {
        let covers = |base: &str, uri: &str| covers(&GeneralName::URI(base), &GeneralName::URI(uri), false);
        assert_eq!(covers("td", "spiffe://td/ns/a/sa/b"), Some(true));
        assert_eq!(covers("td", "spiffe://td.evil/ns/a/sa/b"), Some(false));
        assert_eq!(covers("td", "spiffe://evil/td"), Some(false));
        assert_eq!(covers("td", "spiffe://td@evil/ns/a/sa/b"), Some(false));
        assert_eq!(covers(".td", "spiffe://a.td/x"), Some(true));
        assert_eq!(covers(".td", "spiffe://td/x"), Some(false));
        assert_eq!(covers("td", "urn:td"), None);
        // Whatever is no name of a host is neither inside nor outside.
        for uri in [
            "spiffe://10.0.0.1/x",
            "spiffe://[::1]/x",
            "spiffe://td./x",
            "spiffe://t%64/x",
            "spiffe:///td",
            "spiffe:/a://td/x",
            "mailto:a?b=://td",
            "spiffe://td\\@evil/x",
        ] {
            let host = covers("td", uri);
            assert!(host.is_none() || host == Some(false), "{uri}: {host:?}");
        }
        assert_eq!(covers("td", "spiffe://10.0.0.1/x"), None);
        assert_eq!(covers("td", "spiffe:/a://td/x"), None);
        assert_eq!(
            covers("TD", "spiffe://td:443/x"),
            Some(true),
            "a port is not of the host"
        );
        assert_eq!(covers("td", "spiffe://u:p@td/x"), Some(true), "nor is who asks");
        assert_eq!(covers("", "spiffe://td/x"), Some(true), "an empty one holds all");
    }

    #[test]
    fn a_name_that_is_no_host_is_within_no_bounds_of_hosts() {
        for name in [
            "evil.example.",
            "a*.evil.example",
            "*.*.example",
            ".evil.example",
            "a..b",
            "*",
        ] {
            assert_eq!(dns("evil.example", name, true), None, "{name}");
        }
        let constraints = |permitted: bool| {
            let list = vec![x509_parser::prelude::GeneralSubtree {
                base: GeneralName::DNSName("evil.example"),
            }];
            NameConstraints {
                permitted_subtrees: permitted.then(|| list.clone()),
                excluded_subtrees: (!permitted).then_some(list),
            }
        };
        for permitted in [true, false] {
            let dotted = GeneralName::DNSName("evil.example.");
            assert!(admit_one(&constraints(permitted), &dotted, &mut Budget::default()).is_err());
        }
    }

    #[test]
    fn a_wildcard_never_slips_past_an_exclusion() {
        assert_eq!(dns("foo.example.com", "*.example.com", true), Some(true));
        assert_eq!(dns("foo.example.com", "*.example.com", false), Some(false));
        assert_eq!(dns("example.com", "*.example.com", false), Some(true));
        assert_eq!(dns("example.com", "badexample.com", true), Some(false));
    }

    #[test]
    fn addresses_are_compared_under_their_mask() {
        assert!(ip(&[10, 1, 0, 0, 255, 255, 0, 0], &[10, 1, 9, 9]));
        assert!(!ip(&[10, 1, 0, 0, 255, 255, 0, 0], &[10, 2, 9, 9]));
        assert!(!ip(&[10, 1, 0, 0, 255, 255, 0, 0], &[0; 16]));
        assert!(!base_is_well_formed(&GeneralName::IPAddress(&[
            10, 1, 0, 0, 255, 0, 255, 0
        ])));
    }
}
