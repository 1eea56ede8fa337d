//! x509-limbo: certification paths, each with a verdict. A case is judged by what its certificates are and by the
//! features that it names.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use identity::{Anchors, Purpose, pki};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use serde_json::Value;
use testkit::conformance::{self, Tally};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::prelude::{FromDer as _, ParsedExtension, X509Certificate};

/// Features that ask for something that a mesh does not: why.
const FEATURES: [(&str, &str); 6] = [
    (
        "pedantic-webpki-eku",
        "of the browsers' rules on extended key usage: X509-SVID 4.4 lets it be absent and says nothing of critical",
    ),
    (
        "pedantic-public-suffix-wildcard",
        "of public suffixes, which concern who issues for the public",
    ),
    ("pedantic-rfc5280", "of points that RFC 5280 leaves open"),
    (
        "rfc5280-incompatible-with-webpki",
        "that refuse name constraints for not being critical: ours act on them all the same",
    ),
    (
        "has-cert-policies",
        "of certificate policies, which a mesh has none of",
    ),
    (
        "no-cert-policies",
        "of certificate policies, which a mesh has none of",
    ),
];

/// Families of cases, by the beginning of the id.
const FAMILIES: [(&str, &str); 1] = [("webpki::cn", "of common names, which nothing here reads")];

struct Case<'c> {
    id: &'c str,
    json: &'c Value,
    leaf: CertificateDer<'static>,
    sent: Vec<CertificateDer<'static>>,
    now: UnixTime,
    ok: bool,
}

pub(crate) fn case(dir: &Path, entry: &Value, tally: &mut Tally) {
    let json = conformance::json(&dir.join(entry["files"][0].as_str().unwrap()));
    let id = json["id"].as_str().unwrap();
    let ok = json["expected_result"] == "SUCCESS";
    if let Some(why) = not_applicable(id, &json, ok) {
        tally.not_applicable(why);
        return;
    }
    let Ok(leaf) = pki::certificates(text(&json["peer_certificate"])).map(|mut c| c.remove(0)) else {
        return if ok {
            tally.fail(id, "the leaf is no PEM")
        } else {
            tally.pass()
        };
    };
    let case = Case {
        id,
        leaf,
        sent: certificates(&json["untrusted_intermediates"]),
        now: moment(&json["validation_time"]),
        ok,
        json: &json,
    };
    let verdict = judge(&case);
    match (&verdict, case.ok) {
        (Ok(()), true) | (Err(_), false) => tally.pass(),
        (Ok(()), false) => tally.fail(id, "accepted, and is to be refused"),
        (Err(why), true) => tally.fail(id, format!("refused: {why}")),
    }
}

fn not_applicable(id: &str, json: &Value, ok: bool) -> Option<&'static str> {
    let features: Vec<&str> = json["features"].as_array().unwrap().iter().map(text).collect();
    if let Some((_, why)) = FEATURES.iter().find(|(name, _)| features.contains(name)) {
        return Some(why);
    }
    if let Some((_, why)) = FAMILIES.iter().find(|(name, _)| id.starts_with(name)) {
        return Some(why);
    }
    let leaf = pki::certificates(text(&json["peer_certificate"])).ok()?.remove(0);
    let (_, leaf) = X509Certificate::from_der(&leaf).ok()?;
    if ok && leaf.is_ca() {
        return Some("that accept a CA as a peer, which X509-SVID 4.1 forbids");
    }
    let names_issuer = |der: &CertificateDer<'_>| {
        let (_, root) = X509Certificate::from_der(der).unwrap();
        root.extensions().iter().any(|e| match e.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.authority_cert_serial.is_some(),
            _ => false,
        })
    };
    if !ok && id.starts_with("webpki::") && certificates(&json["trusted_certs"]).iter().any(names_issuer) {
        return Some("of roots that name their own issuer beside its key, which is for browsers to refuse");
    }
    None
}

/// One case, both ways round: as the side that it is of, and, where that says something, as the other.
fn judge(case: &Case<'_>) -> Result<(), String> {
    let lists = case.json["crls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|list| CertificateRevocationListDer::from_pem_slice(text(list).as_bytes()).unwrap())
        .collect();
    let mut anchors =
        Anchors::new(certificates(&case.json["trusted_certs"]), lists).map_err(|e| e.to_string())?;
    if let Some(most) = case.json["max_chain_depth"].as_u64() {
        anchors = anchors.with_max_intermediates(usize::try_from(most).unwrap());
    }
    let own = if case.json["validation_kind"] == "CLIENT" {
        Purpose::Client
    } else {
        Purpose::Server
    };
    let other = if own == Purpose::Client {
        Purpose::Server
    } else {
        Purpose::Client
    };
    let verify = |purpose| anchors.verify(&case.leaf, &case.sent, case.now, purpose);
    let path = verify(own);
    if serves_both(&case.leaf) {
        let back = verify(other);
        assert_eq!(path, back, "{}: the two sides differ", case.id);
    }
    path.map_err(|e| e.to_string())?;
    match &case.json["expected_peer_name"] {
        Value::Null => Ok(()),
        name => {
            let name = ServerName::try_from(text(&name["value"]).to_owned()).map_err(|e| e.to_string())?;
            anchors
                .verify_name(&case.leaf, &case.sent, case.now, &name)
                .map_err(|e| e.to_string())
        }
    }
}

fn serves_both(leaf: &CertificateDer<'_>) -> bool {
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else {
        return true;
    };
    match leaf.extended_key_usage() {
        Ok(Some(usage)) => usage.value.client_auth && usage.value.server_auth,
        _ => true,
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn certificates(list: &Value) -> Vec<CertificateDer<'static>> {
    let list = list.as_array().unwrap();
    list.iter()
        .flat_map(|pem| pki::certificates(text(pem)).unwrap_or_default())
        .collect()
}

fn moment(value: &Value) -> UnixTime {
    let since = match value.as_str() {
        None => SystemTime::now().duration_since(UNIX_EPOCH).unwrap(),
        Some(text) => {
            let at = OffsetDateTime::parse(text, &Rfc3339).unwrap().unix_timestamp();
            Duration::from_secs(u64::try_from(at).unwrap())
        }
    };
    UnixTime::since_unix_epoch(since)
}
