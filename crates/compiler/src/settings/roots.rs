//! `caCertificates`: roots of peers beside the mesh's own, as they are written or where they are published.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{MeshConfig, Severity};
use jwt::Jwks;
use model::TrustDomain;
use snapshot::Bundle;

use super::Reader;

/// What a source begins with at which a SPIFFE bundle is published, by https; what comes of it are roots in PEM, none where
/// it holds none.
pub(crate) const SOURCE: &str = "bundle:";

/// How long a bundle may take to come, in milliseconds.
const TIMEOUT_MS: u64 = 5_000;

/// Where bundles have to be fetched from, and how long that may take, in milliseconds.
pub(crate) fn wanted(config: &MeshConfig) -> impl Iterator<Item = (String, u64)> {
    let urls = config
        .ca_certificates
        .iter()
        .map(|entry| entry.spiffe_bundle_url.as_str());
    urls.filter(|url| !url.is_empty())
        .map(|url| (format!("{SOURCE}{url}"), TIMEOUT_MS))
}

/// The roots that are there. Those that are not leave nobody believed.
pub(super) fn bundles(
    config: &MeshConfig,
    own: &[TrustDomain],
    fetched: &BTreeMap<String, Arc<Jwks>>,
    reader: &mut Reader<'_, '_>,
) -> Vec<Bundle> {
    let mut bundles = Vec::new();
    for (at, entry) in config.ca_certificates.iter().enumerate() {
        let named: Vec<_> = entry
            .trust_domains
            .iter()
            .filter_map(|text| reader.trust_domain("caCertificates.trustDomains", Some(text)))
            .collect();
        // Names that are all wrong must not become "any".
        let domains = if entry.trust_domains.is_empty() {
            own.to_vec()
        } else {
            named
        };
        let pem = if entry.spiffe_bundle_url.is_empty() {
            Some(entry.pem.clone())
        } else {
            published(at, &entry.spiffe_bundle_url, fetched, reader)
        };
        let Some(pem) = pem else { continue };
        bundles.extend(domains.into_iter().map(|trust_domain| Bundle {
            trust_domain,
            pem: pem.clone(),
        }));
    }
    bundles
}

/// The roots that a bundle held when it was last seen.
fn published(
    at: usize,
    url: &str,
    fetched: &BTreeMap<String, Arc<Jwks>>,
    reader: &mut Reader<'_, '_>,
) -> Option<String> {
    let field = format!("caCertificates[{at}].spiffeBundleUrl");
    let Some(held) = fetched.get(&format!("{SOURCE}{url}")) else {
        reader.tell(
            Severity::Warning,
            &format!("`{field}`: not in force yet: the bundle has not been fetched"),
        );
        return None;
    };
    match (&held.keys, &held.why) {
        (None, why) => {
            let why = why.as_deref().unwrap_or("the bundle has not been fetched");
            reader.left_out(&field, &format!("not in force: {why}"));
        }
        (Some(_), Some(why)) => reader.tell(
            Severity::Warning,
            &format!("`{field}`: the roots are the last good ones: {why}"),
        ),
        (Some(roots), None) if roots.is_empty() => reader.tell(
            Severity::Warning,
            &format!("`{field}`: the bundle holds no roots, so that nobody is believed by it"),
        ),
        (Some(_), None) => {}
    }
    held.keys.clone().filter(|roots| !roots.is_empty())
}
