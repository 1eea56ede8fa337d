//! Names and labels as Kubernetes allows them (RFC 1123, RFC 1035), and as Istio reads them.

/// The longest label, in bytes.
pub(crate) const MAX_LABEL: usize = 63;
const MAX_SUBDOMAIN: usize = 253;

/// RFC 1123's label, in lower case as Kubernetes has it.
pub(crate) fn is_label(text: &str) -> bool {
    is_dns_label(text) && !text.bytes().any(|b| b.is_ascii_uppercase())
}

/// RFC 1123's label in any case, which is what Istio takes for hosts, subsets and ports.
pub(crate) fn is_dns_label(text: &str) -> bool {
    text.len() <= MAX_LABEL && dns_label_of_any_length(text)
}

fn dns_label_of_any_length(text: &str) -> bool {
    ends_well(text, |b| b.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// RFC 1123's subdomain: labels of any length between dots, in lower case.
pub(crate) fn is_subdomain(text: &str) -> bool {
    text.len() <= MAX_SUBDOMAIN
        && text.split('.').all(dns_label_of_any_length)
        && !text.bytes().any(|b| b.is_ascii_uppercase())
}

/// The key of a label: a name, behind a subdomain and `/` where it has one.
pub(crate) fn is_label_key(key: &str) -> bool {
    let (prefix, name) = split_key(key);
    prefix.is_none_or(is_subdomain) && !name.is_empty() && is_label_value(name)
}

/// The value of a label; it may be empty.
pub(crate) fn is_label_value(value: &str) -> bool {
    value.len() <= MAX_LABEL && is_long_label_value(value)
}

/// The key of a label as Istio reads it: the prefix in any case.
pub(crate) fn is_istio_label_key(key: &str) -> bool {
    let (prefix, name) = split_key(key);
    prefix.is_none_or(|p| p.len() <= MAX_SUBDOMAIN && p.split('.').all(dns_label_of_any_length))
        && !name.is_empty()
        && is_label_value(name)
}

/// The value of a label as Istio reads it: of any length, which the schema bounds.
pub(crate) fn is_long_label_value(value: &str) -> bool {
    value.is_empty()
        || (ends_well(value, |b| b.is_ascii_alphanumeric())
            && value
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)))
}

fn split_key(key: &str) -> (Option<&str>, &str) {
    match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    }
}

fn ends_well(text: &str, fits: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    bytes.first().copied().is_some_and(&fits) && bytes.last().copied().is_some_and(fits)
}
