//! Certification paths, X509-SVIDs, SPIFFE ids and plugged-in CAs that others wrote: x509-limbo, go-spiffe, Istio.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops where it fails"
)]

mod limbo;

use std::path::Path;

use identity::pki;
use model::SpiffeUri;
use serde_json::Value;
use testkit::conformance::{self, Tally};

#[test]
fn x509_spiffe() {
    let Some(dir) = conformance::set("x509-spiffe") else {
        return;
    };
    let mut tally = Tally::default();
    for case in conformance::json(&dir.join("cases.json"))["cases"]
        .as_array()
        .unwrap()
    {
        match case["kind"].as_str().unwrap() {
            "path-validation" => limbo::case(&dir, case, &mut tally),
            "spiffe-id" => verdict(case, spiffe_id(case), &mut tally),
            "x509-svid" => verdict(case, svid(&dir, case), &mut tally),
            "ca-bundle" => verdict(case, ca_bundle(&dir, case), &mut tally),
            other => tally.fail(
                case["id"].as_str().unwrap(),
                format!("kind `{other}` is not known"),
            ),
        }
    }
    tally.finish("x509-spiffe");
}

fn verdict(case: &Value, ours: Result<(), String>, tally: &mut Tally) {
    let id = case["id"].as_str().unwrap();
    match (ours, case["expected"] == "SUCCESS") {
        (Ok(()), true) | (Err(_), false) => tally.pass(),
        (Ok(()), false) => tally.fail(id, "accepted, and is to be refused"),
        (Err(why), true) => tally.fail(id, format!("refused: {why}")),
    }
}

fn spiffe_id(case: &Value) -> Result<(), String> {
    let text = case["input"].as_str().unwrap();
    let id: SpiffeUri = text.parse().map_err(|e| format!("{e}"))?;
    assert_eq!(id.to_string(), text, "what is read is what was written");
    Ok(())
}

fn svid(dir: &Path, case: &Value) -> Result<(), String> {
    let read = |key: &str| std::fs::read(dir.join(case[key].as_str().unwrap())).unwrap();
    let as_text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|e| e.to_string());
    let (chain, key) = (as_text(read("certificate"))?, as_text(read("key"))?);
    let (id, _) = pki::read_svid(&chain, &key)?;
    if let Some(wanted) = case["spiffe_id"].as_str() {
        assert_eq!(id.to_string(), wanted);
    }
    Ok(())
}

fn ca_bundle(dir: &Path, case: &Value) -> Result<(), String> {
    let row = &case["row"];
    let path = |value: &Value| {
        let text = value.as_str().unwrap();
        // The rows name files as Istio's own tests do, from beside its test data.
        dir.join(text.replace("../testdata/", "istio-pki/"))
    };
    let files = ca::Files {
        certificate: path(&row["caCertFile"]),
        key: path(&row["caKeyFile"]),
        chain: row["certChainFile"].as_array().map(|list| path(&list[0])),
        roots: path(&row["rootCertFile"]),
        lists: None,
    };
    ca::Root::plugged(
        &files,
        &model::TrustDomain::default(),
        time::OffsetDateTime::now_utc(),
    )
    .map(|_| ())
    .map_err(|e| e.to_string())
}
