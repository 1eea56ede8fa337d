//! Other names of the mesh's trust domain in policy values (semantics 2.15).

use std::sync::Arc;

use model::TrustDomain;

use crate::context::Context;

/// The name that always means "this mesh" (TD-14).
const THIS_MESH: &str = "cluster.local";

/// The mesh's trust domain, then its aliases in order.
pub(super) fn domains(context: &Context) -> Arc<[TrustDomain]> {
    std::iter::once(&context.trust_domain)
        .chain(&context.aliases)
        .cloned()
        .collect()
}

/// A value of `principals` for every name of the mesh.
pub(super) fn principal(value: &str, known: &[TrustDomain]) -> Vec<String> {
    let unchanged = || vec![value.to_owned()];
    let Some((domain, path)) = value.split_once('/') else {
        return unchanged();
    };
    if domain == "*" || path.split('/').count() != 4 || !is_this_mesh(domain, known) {
        return unchanged();
    }
    let mut values: Vec<String> = Vec::with_capacity(known.len());
    for td in known {
        // What the wildcard covers already keeps its text.
        let covered = domain.strip_prefix('*').is_some_and(|s| td.as_str().ends_with(s));
        let copy = if covered {
            value.to_owned()
        } else {
            format!("{td}/{path}")
        };
        if !values.contains(&copy) {
            values.push(copy);
        }
    }
    values
}

fn is_this_mesh(domain: &str, known: &[TrustDomain]) -> bool {
    let covers = |td: &TrustDomain| {
        let td = td.as_str();
        td == domain
            || domain.strip_suffix('*').is_some_and(|p| td.starts_with(p))
            || domain.strip_prefix('*').is_some_and(|s| td.ends_with(s))
    };
    domain == THIS_MESH || known.iter().any(covers)
}

/// A value of `trustDomains` for every name of the mesh.
pub(super) fn trust_domain(value: &str, known: &[TrustDomain]) -> Vec<String> {
    if known.iter().any(|td| td.as_str() == value) {
        known.iter().map(ToString::to_string).collect()
    } else {
        vec![value.to_owned()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Id, trust domain, aliases, values, result.
    type Row = (
        &'static str,
        &'static str,
        &'static [&'static str],
        &'static [&'static str],
        &'static [&'static str],
    );

    #[test]
    fn td_01_to_14_principals() {
        let rows: &[Row] = &[
            (
                "TD-01",
                "cluster.local",
                &[],
                &["cluster.local/ns/foo/sa/bar"],
                &["cluster.local/ns/foo/sa/bar"],
            ),
            ("TD-02", "cluster.local", &[], &["*"], &["*"]),
            // Five parts, or it is left alone.
            (
                "four parts",
                "td2",
                &["td1"],
                &["td1/ns/foo/*", "td1/ns/foo"],
                &["td1/ns/foo/*", "td1/ns/foo"],
            ),
            (
                "TD-03",
                "cluster.local",
                &[],
                &["*/ns/foo/sa/bar"],
                &["*/ns/foo/sa/bar"],
            ),
            (
                "TD-04",
                "td2",
                &["td1"],
                &["td1/ns/foo/sa/bar"],
                &["td2/ns/foo/sa/bar", "td1/ns/foo/sa/bar"],
            ),
            (
                "TD-05",
                "td1",
                &["cluster.local"],
                &["cluster.local/ns/foo/sa/bar", "cluster.local/ns/yyy/sa/zzz"],
                &[
                    "td1/ns/foo/sa/bar",
                    "cluster.local/ns/foo/sa/bar",
                    "td1/ns/yyy/sa/zzz",
                    "cluster.local/ns/yyy/sa/zzz",
                ],
            ),
            (
                "TD-06",
                "td1",
                &["cluster.local"],
                &["*/ns/foo/sa/bar", "*sa/zzz", "*"],
                &["*/ns/foo/sa/bar", "*sa/zzz", "*"],
            ),
            (
                "TD-07",
                "td2",
                &["td1", "cluster.local"],
                &["cluster.local/ns/foo/sa/bar", "td1/ns/yyy/sa/zzz"],
                &[
                    "td2/ns/foo/sa/bar",
                    "td1/ns/foo/sa/bar",
                    "cluster.local/ns/foo/sa/bar",
                    "td2/ns/yyy/sa/zzz",
                    "td1/ns/yyy/sa/zzz",
                    "cluster.local/ns/yyy/sa/zzz",
                ],
            ),
            (
                "TD-08",
                "td2",
                &["foo-td1", "cluster.local"],
                &["*-td1/ns/foo/sa/bar"],
                &[
                    "td2/ns/foo/sa/bar",
                    "*-td1/ns/foo/sa/bar",
                    "cluster.local/ns/foo/sa/bar",
                ],
            ),
            (
                "TD-09",
                "td1",
                &["td2"],
                &["some-td/ns/foo/sa/bar"],
                &["some-td/ns/foo/sa/bar"],
            ),
            (
                "TD-10",
                "td1",
                &["td2", "some-td"],
                &["some-td/ns/foo/sa/bar"],
                &["td1/ns/foo/sa/bar", "td2/ns/foo/sa/bar", "some-td/ns/foo/sa/bar"],
            ),
            (
                "TD-11",
                "new-td",
                &["td2", "td3"],
                &["td1/ns/some-ns/sa/some-sa", "td2/ns/foo/sa/bar"],
                &[
                    "td1/ns/some-ns/sa/some-sa",
                    "new-td/ns/foo/sa/bar",
                    "td2/ns/foo/sa/bar",
                    "td3/ns/foo/sa/bar",
                ],
            ),
            (
                "TD-12",
                "new-td",
                &["td2", "td3"],
                &["/ns/some-ns/sa/some-sa"],
                &["/ns/some-ns/sa/some-sa"],
            ),
            (
                "TD-13",
                "new-td",
                &["old-td"],
                &["*-td/ns/some-ns/sa/some-sa"],
                &["*-td/ns/some-ns/sa/some-sa"],
            ),
            (
                "TD-14",
                "td1",
                &[],
                &["cluster.local/ns/a/sa/b"],
                &["td1/ns/a/sa/b"],
            ),
        ];
        for (row, td, aliases, values, expect) in rows {
            let context = Context {
                trust_domain: td.parse().unwrap(),
                aliases: aliases.iter().map(|a| a.parse().unwrap()).collect(),
                ..Context::default()
            };
            let known = domains(&context);
            let found: Vec<String> = values.iter().flat_map(|v| principal(v, &known)).collect();
            assert_eq!(found, *expect, "{row}");
        }
    }

    #[test]
    fn s2_15_trust_domains() {
        let known: Vec<TrustDomain> = ["td1", "td2"].map(|td| td.parse().unwrap()).into();
        assert_eq!(trust_domain("td2", &known), ["td1", "td2"]);
        assert_eq!(trust_domain("td*", &known), ["td*"]);
        assert_eq!(trust_domain("td3", &known), ["td3"]);
    }
}
