//! SPIFFE bundles: the roots of a trust domain as somebody else publishes them (SPIFFE Trust Domain and Bundle, section 4).
//!
//! A bundle is taken whole or not at all: the one before stays in use, and why is told. One that holds no roots is a bundle,
//! too: its trust domain has withdrawn what it had.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use identity::Anchors;
use serde::Deserialize;

/// The most keys of one bundle; as many certificates as are taken of one text elsewhere.
const MAX_KEYS: usize = 64;
/// The shortest pause that a bundle may ask for before it is fetched again.
const MIN_HINT: Duration = Duration::from_secs(60);
/// The longest.
const MAX_HINT: Duration = Duration::from_secs(60 * 60);

/// The roots of a trust domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Bundle {
    /// PEM; empty where there are none.
    pub(super) roots: String,
    /// When to look again, where the bundle says so.
    pub(super) refresh: Option<Duration>,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Key>,
    #[serde(default)]
    spiffe_refresh_hint: Option<u64>,
}

/// A key, as far as it is looked at.
#[derive(Deserialize)]
struct Key {
    #[serde(default, rename = "use")]
    purpose: Option<String>,
    #[serde(default)]
    x5c: Vec<String>,
}

/// Reads a bundle.
///
/// # Errors
/// It is none, or one of its roots cannot be used.
pub(super) fn read(text: &str) -> Result<Bundle, String> {
    let document: Document = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if document.keys.len() > MAX_KEYS {
        return Err(format!("more than {MAX_KEYS} keys"));
    }
    let mut roots = String::new();
    // Keys for other uses are others' to read, and those for none are nobody's (section 4.2.2).
    let own = |key: &&Key| key.purpose.as_deref() == Some("x509-svid");
    for (at, key) in document.keys.iter().enumerate().filter(|(_, key)| own(key)) {
        let [certificate] = key.x5c.as_slice() else {
            return Err(format!("`keys[{at}].x5c` is not one certificate"));
        };
        let der = STANDARD
            .decode(certificate)
            .map_err(|_| format!("`keys[{at}].x5c` is no base64"))?;
        let root = pem(&der);
        Anchors::from_pem(std::slice::from_ref(&root)).map_err(|error| format!("`keys[{at}]`: {error}"))?;
        roots.push_str(&root);
    }
    Ok(Bundle {
        roots,
        refresh: document
            .spiffe_refresh_hint
            .map(|seconds| Duration::from_secs(seconds).clamp(MIN_HINT, MAX_HINT)),
    })
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at_checked(64).unwrap_or((rest, ""));
        out.push_str(line);
        out.push('\n');
        rest = more;
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use serde_json::json;

    use super::*;

    fn certificate(is_ca: IsCa) -> String {
        let mut params = CertificateParams::default();
        params.is_ca = is_ca;
        let key = KeyPair::generate().unwrap();
        STANDARD.encode(params.self_signed(&key).unwrap().der())
    }

    fn root() -> String {
        certificate(IsCa::Ca(BasicConstraints::Unconstrained))
    }

    #[test]
    fn the_roots_of_a_bundle_are_its_keys_for_x509_svids() {
        let (a, b) = (root(), root());
        let document = json!({
            "spiffe_sequence": 7,
            "spiffe_refresh_hint": 300,
            "keys": [
                {"kty": "EC", "use": "x509-svid", "x5c": [a], "crv": "P-256"},
                {"kty": "EC", "use": "jwt-svid", "kid": "k", "x": "", "y": ""},
                {"kty": "EC", "x5c": ["not looked at"]},
                {"kty": "EC", "use": "x509-svid", "x5c": [b]},
            ],
        });
        let bundle = read(&document.to_string()).unwrap();
        assert_eq!(identity::pki::certificates(&bundle.roots).unwrap().len(), 2);
        assert_eq!(bundle.refresh, Some(Duration::from_secs(300)));
        let pauses = [(0, 60), (59, 60), (61, 61), (u64::MAX, 3600)];
        for (hint, pause) in pauses {
            let bundle = read(&json!({"keys": [], "spiffe_refresh_hint": hint}).to_string()).unwrap();
            assert_eq!(bundle.refresh, Some(Duration::from_secs(pause)));
            assert_eq!(bundle.roots, "", "its roots are withdrawn");
        }
    }

    #[test]
    fn a_bundle_is_taken_whole_or_not_at_all() {
        let good = root();
        let with = |key: serde_json::Value| {
            let first = json!({"kty": "EC", "use": "x509-svid", "x5c": [good]});
            read(&json!({"keys": [first, key]}).to_string()).unwrap_err()
        };
        let of = |x5c: serde_json::Value| with(json!({"kty": "EC", "use": "x509-svid", "x5c": x5c}));
        assert!(of(json!([])).contains("keys[1].x5c` is not one certificate"));
        assert!(of(json!([good, good])).contains("is not one certificate"));
        assert!(of(json!(["!"])).contains("no base64"));
        assert!(of(json!(["AAAA"])).contains("trust roots"));
        let leaf = certificate(IsCa::ExplicitNoCa);
        assert!(of(json!([leaf])).contains("keys[1]"), "no CA");
        let many: Vec<_> = (0..=MAX_KEYS).map(|_| json!({"kty": "EC"})).collect();
        assert!(
            read(&json!({"keys": many}).to_string())
                .unwrap_err()
                .contains("more than 64")
        );
        for text in ["", "<html>", "[]", "{}", "{\"keys\": {}}", "{\"keys\": [7]}"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
