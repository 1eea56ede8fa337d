//! `caCertificates`: whose peers which roots vouch for, and what is told where there are none.

use std::sync::Arc;

use jwt::Jwks;

use super::*;
use crate::BUNDLE_SOURCE;

const ROOT: &str = include_str!("root.pem");
const URL: &str = "https://partner.example/bundle";

fn scene(entries: &[&str]) -> Scene {
    let entries: String = entries.iter().map(|entry| format!("    - {entry}\n")).collect();
    let text = "    trustDomain: td1\n    trustDomainAliases: [td2]\n    caCertificates:\n";
    let body = format!("data:\n  mesh: |\n{text}{entries}");
    secure().object("ConfigMap", "istio-system/istio", &body)
}

fn pem() -> String {
    format!("pem: {}", serde_json::to_string(ROOT).unwrap())
}

fn bundles(compiled: &Compiled) -> Vec<(String, String)> {
    let bundles = compiled.mesh().tls.bundles;
    bundles
        .iter()
        .map(|b| (b.trust_domain.to_string(), b.pem.clone()))
        .collect()
}

#[test]
fn roots_vouch_for_the_trust_domains_that_are_named_and_else_for_the_meshs_own() {
    let pem = pem();
    let compiled = scene(&[&format!("{{{pem}, trustDomains: [td3]}}"), &format!("{{{pem}}}")]).compile();
    let of = |trust_domain: &str| (trust_domain.to_owned(), ROOT.to_owned());
    assert_eq!(bundles(&compiled), [of("td3"), of("td1"), of("td2")]);
    assert!(compiled.key_sources.is_empty());
}

/// What is fetched is in force as it was last seen, and until there is something nobody is believed by it.
#[test]
fn roots_of_a_bundle_are_those_that_were_fetched() {
    let scene = scene(&[&format!("{{spiffeBundleUrl: \"{URL}\", trustDomains: [td3]}}")]);
    let source = format!("{}{URL}", BUNDLE_SOURCE);
    let with = |keys: Option<&str>, why: Option<&str>| {
        let mut world = scene.world();
        let fetched = Jwks {
            source: source.clone(),
            keys: keys.map(str::to_owned),
            why: why.map(str::to_owned),
        };
        world.jwks.insert(source.clone(), Arc::new(fetched));
        compile(&world)
    };
    let first = scene.compile();
    assert_eq!(first.key_sources, [(source.clone(), 5_000)].into());
    assert_eq!(bundles(&first), []);
    told(&first, "MW0506", "not in force yet");
    let failed = with(None, Some("no route"));
    assert_eq!(bundles(&failed), []);
    told(
        &failed,
        "MW0506",
        "caCertificates[0].spiffeBundleUrl`: not in force: no route",
    );
    let fetched = with(Some(ROOT), None);
    assert_eq!(bundles(&fetched), [("td3".to_owned(), ROOT.to_owned())]);
    assert_eq!(fetched.problems, []);
    let stale = with(Some(ROOT), Some("no route"));
    assert_eq!(bundles(&stale), [("td3".to_owned(), ROOT.to_owned())]);
    told(&stale, "MW0506", "the last good ones: no route");
    let withdrawn = with(Some(""), None);
    assert_eq!(bundles(&withdrawn), []);
    told(&withdrawn, "MW0506", "holds no roots");
}
