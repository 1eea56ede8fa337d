//! Paths that no path in normal form matches: policies are compared with what routing sees, and are not brought into that
//! form themselves (semantics 3.6, R50).

use api::Severity;
use policy::path::{Mode, normalize};
use snapshot::Mesh;

use super::{Findings, code};

/// Stands for what a wildcard may be.
const ANY: &str = "x";

pub(super) fn not_normal(mesh: &Mesh, findings: &mut Findings<'_>) {
    let mode = mesh.path_mode();
    let policy = findings.policy;
    for (at, rule) in policy.rules.iter().enumerate() {
        for (to, item) in rule.to.iter().enumerate() {
            let operation = &item.operation;
            for (name, values) in [("paths", &operation.paths), ("notPaths", &operation.not_paths)] {
                for (value, text) in values.iter().enumerate() {
                    let path = format!("spec.rules[{at}].to[{to}].operation.{name}[{value}]");
                    check(text, mode, &path, findings);
                }
            }
        }
    }
}

fn check(text: &str, mode: Mode, path: &str, findings: &mut Findings<'_>) {
    // These never match for a reason that reading has told of.
    if text.contains(['?', '#']) || !text.starts_with(['/', '*']) {
        return;
    }
    let Some(normal) = otherwise(text, mode) else {
        return;
    };
    let effect = match findings.denies() {
        true => "it denies nothing",
        false => "it never matches",
    };
    let message = format!("`{text}` is not as paths are when they are compared: {effect} (R50)");
    let remedy = match normal {
        Some(normal) => format!("write `{normal}`"),
        None => "leave out what is refused before it is compared".to_owned(),
    };
    findings.tell(path, Severity::Error, code::PATH_NOT_NORMAL, message, &remedy);
}

/// Where no path in normal form matches the value: what was most likely meant, if that can be said.
fn otherwise(text: &str, mode: Mode) -> Option<Option<String>> {
    let (before, inner, after) = match (text.strip_prefix('*'), text.strip_suffix('*')) {
        _ if text == "*" => return None,
        (Some(end), _) => ("/x", end, ""),
        (None, Some(start)) => ("", start, ANY),
        (None, None) => ("", text, ""),
    };
    // A template's operators stand for whole segments.
    let literal = inner.replace("{**}", ANY).replace("{*}", ANY);
    let sample = format!("{before}{literal}{after}");
    match normalize(sample.as_bytes(), mode) {
        Ok(normal) if normal == sample => None,
        Ok(_) if literal != inner => Some(None),
        Ok(normal) => {
            let shown = normal
                .strip_prefix(before)
                .and_then(|rest| rest.strip_suffix(after));
            let (star, end) = (
                if before.is_empty() { "" } else { "*" },
                if after.is_empty() { "" } else { "*" },
            );
            Some(shown.map(|shown| format!("{star}{shown}{end}")))
        }
        Err(_) => Some(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r_50_what_can_match_is_told_from_what_cannot() {
        let base = Mode::Base;
        let merge = Mode::MergeSlashes;
        for (text, mode, wanted) in [
            ("/a/b", merge, None),
            ("/a//b", base, None),
            ("/a//b", merge, Some(Some("/a/b"))),
            ("/a/../b", base, Some(Some("/b"))),
            ("/%61dmin", base, Some(Some("/admin"))),
            ("/a/..", base, Some(Some("/"))),
            ("/a%2Fb", merge, None),
            ("/a%2Fb", Mode::DecodeAndMergeSlashes, Some(Some("/a/b"))),
            ("/a/../b", Mode::None, None),
            ("/a\\b", base, Some(Some("/a/b"))),
            ("/a b", base, Some(Some("/a%20b"))),
            ("/a%00", base, Some(None)),
            // A prefix that what follows may still make another segment of.
            ("/a/..*", base, None),
            ("/a/.*", base, None),
            ("/a%2*", base, None),
            ("/a//*", merge, Some(Some("/a/*"))),
            ("/a/../b*", base, Some(Some("/b*"))),
            ("*.css", merge, None),
            ("*//b", merge, Some(Some("*/b"))),
            ("*", merge, None),
            ("/a/{*}/b", merge, None),
            ("/a//{*}", merge, Some(None)),
        ] {
            let found = otherwise(text, mode);
            assert_eq!(found.as_ref().map(Option::as_deref), wanted, "{text} {mode:?}");
        }
    }
}
