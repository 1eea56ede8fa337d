//! Whether `metadata` names what can be named (RFC 1123, RFC 1035).

use crate::forms::names::{is_label, is_label_key, is_label_value, is_subdomain};
use crate::kinds::Meta;
use crate::known::KnownKind;
use crate::report::Report;
use crate::yaml::Node;

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
