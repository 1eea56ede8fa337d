//! Names and labels as Kubernetes allows them (RFC 1123, RFC 1035).

use crate::kinds::Meta;
use crate::known::KnownKind;
use crate::report::Report;
use crate::yaml::Node;

const MAX_LABEL: usize = 63;
const MAX_SUBDOMAIN: usize = 253;

/// Whether the names are names. Of other people's kinds nothing is known.
pub(crate) fn names(known: Option<&KnownKind>, meta: &Meta, root: &Node, report: &mut Report<'_>) {
    let Some(known) = known else { return };
    let label = known.group.is_empty() && matches!(known.kind, "Namespace" | "Service");
    let (fits, rule) = if label {
        (
            is_label(&meta.name),
            "up to 63 lower-case letters, digits and `-`",
        )
    } else {
        (
            is_subdomain(&meta.name),
            "up to 253 lower-case letters, digits, `-` and `.`",
        )
    };
    if !fits {
        report
            .error(
                "MW0112",
                root.span_at("metadata.name"),
                format!("`{}` cannot be a name", meta.name),
            )
            .path("metadata.name")
            .value(&meta.name)
            .remedy(format!("use {rule}, a letter or digit at both ends"));
    }
    if !meta.namespace.is_empty() && !is_label(&meta.namespace) {
        report
            .error(
                "MW0112",
                root.span_at("metadata.namespace"),
                format!("`{}` cannot be a namespace", meta.namespace),
            )
            .path("metadata.namespace")
            .value(&meta.namespace)
            .remedy("use up to 63 lower-case letters, digits and `-`");
    }
    for (key, value) in &meta.labels {
        if is_label_key(key) && is_label_value(value) {
            continue;
        }
        let path = format!("metadata.labels.{key}");
        report
            .error(
                "MW0112",
                root.span_at(&path),
                format!("`{key}: {value}` cannot be a label"),
            )
            .path(path)
            .value(value)
            .remedy("use up to 63 letters, digits, `-`, `_` and `.`, a letter or digit at both ends");
    }
}

/// RFC 1123's label.
pub(super) fn is_label(text: &str) -> bool {
    text.len() <= MAX_LABEL
        && ends_well(text, |b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_subdomain(text: &str) -> bool {
    let part = |part: &str| {
        ends_well(part, |b| b.is_ascii_lowercase() || b.is_ascii_digit())
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.len() <= MAX_SUBDOMAIN && text.split('.').all(part)
}

fn is_label_key(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    prefix.is_none_or(is_subdomain) && !name.is_empty() && is_label_value(name)
}

fn is_label_value(value: &str) -> bool {
    value.is_empty()
        || (value.len() <= MAX_LABEL
            && ends_well(value, |b| b.is_ascii_alphanumeric())
            && value
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)))
}

fn ends_well(text: &str, fits: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    bytes.first().copied().is_some_and(&fits) && bytes.last().copied().is_some_and(fits)
}
