//! Certificates of a stranger: by Istio's certificate service and a token of the mesh, or forged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use admin::RunDir;
use capture::{Netns, plan};
use identity::{CaClient, CertificateAuthority, TokenFile};
use model::SpiffeId;
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SanType};
use testkit::mesh::Mesh;
use time::{Duration as Span, OffsetDateTime};

/// Files of one identity.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    pub(super) key: PathBuf,
    /// The leaf, and what is between it and a root.
    pub(super) chain: PathBuf,
    /// Whom to believe.
    pub(super) roots: PathBuf,
}

/// Runs openssl; its standard output.
pub(super) fn openssl(words: &[&str]) -> String {
    let done = Command::new("openssl").args(words).output().unwrap();
    assert!(
        done.status.success(),
        "openssl {words:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Has a key of Istio's default kind certified, from within the pod's network, as Istio's agent does.
pub(super) fn issue(mesh: &Mesh, pod: &serde_json::Value, directory: &Path) -> Certificate {
    fs::create_dir_all(directory).unwrap();
    let files = Certificate {
        key: directory.join("key.pem"),
        chain: directory.join("cert-chain.pem"),
        roots: directory.join("root-cert.pem"),
    };
    let request = directory.join("request.pem");
    openssl(&[
        "req",
        "-new",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        files.key.to_str().unwrap(),
        "-out",
        request.to_str().unwrap(),
        "-subj",
        "/O=istio",
    ]);
    let run = RunDir::of(mesh.name()).unwrap();
    let token = token(&run, pod).read().unwrap();
    let ca: SpiffeId = "spiffe://cluster.local/ns/meshward-system/sa/ca".parse().unwrap();
    let service = CaClient::new((plan::HUB_V4, 15012).into(), run.roots(), ca);
    let request = fs::read_to_string(request).unwrap();
    let netns = Netns::open(Path::new(pod["netns"].as_str().unwrap())).unwrap();
    let answer = netns.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(service.sign(&request, &token, Duration::from_secs(3600)))
    });
    let mut chain = answer.unwrap().unwrap();
    fs::write(&files.roots, chain.pop().unwrap()).unwrap();
    fs::write(&files.chain, chain.concat()).unwrap();
    files
}

/// The token that the pod has, as its registration at its node says.
fn token(run: &RunDir, pod: &serde_json::Value) -> TokenFile {
    let files = fs::read_dir(run.workloads(pod["node"].as_str().unwrap())).unwrap();
    let mut registrations = files.map(|file| -> serde_json::Value {
        let text = fs::read(file.unwrap().path()).unwrap();
        serde_json::from_slice(&text).unwrap()
    });
    let own = registrations.find(|r| r["pod"] == pod["name"] && r["namespace"] == pod["namespace"]);
    TokenFile(own.unwrap()["token"].as_str().unwrap().into())
}

/// Who signs a forged certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Signer {
    /// The key of the mesh's own root, which a test can read as root.
    Mesh,
    /// Another CA, of whatever name.
    Other,
    /// Itself.
    Itself,
}

/// What a certificate says that no CA of ours would have signed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forged {
    pub(super) signer: Signer,
    /// Its URI SANs.
    pub(super) uris: &'static [&'static str],
    /// Seconds from now to its beginning and its end.
    pub(super) valid: (i64, i64),
}

/// Makes one.
pub(super) fn forge(mesh: &Mesh, forged: Forged, directory: &Path) -> Certificate {
    fs::create_dir_all(directory).unwrap();
    let run = RunDir::of(mesh.name()).unwrap();
    let root = fs::read_to_string(run.roots()).unwrap();
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.not_before = now + Span::seconds(forged.valid.0);
    params.not_after = now + Span::seconds(forged.valid.1);
    // As RFC 5280 and X509-SVID have it: nothing but what is forged is wrong.
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let uris = forged
        .uris
        .iter()
        .map(|uri| SanType::URI(Ia5String::try_from(*uri).unwrap()));
    params.subject_alt_names = uris.collect();
    if forged.uris.is_empty() {
        params.subject_alt_names = vec![SanType::DnsName(Ia5String::try_from("client.m.svc").unwrap())];
    }
    let key = KeyPair::generate().unwrap();
    let leaf = match forged.signer {
        Signer::Itself => params.self_signed(&key).unwrap(),
        Signer::Mesh => {
            let issuer = Issuer::from_ca_cert_pem(&root, root_key(run.root(), &root).unwrap()).unwrap();
            params.signed_by(&key, &issuer).unwrap()
        }
        Signer::Other => {
            let other = KeyPair::generate().unwrap();
            let issuer = Issuer::from_ca_cert_pem(&root, other).unwrap();
            params.signed_by(&key, &issuer).unwrap()
        }
    };
    let files = Certificate {
        key: directory.join("key.pem"),
        chain: directory.join("cert-chain.pem"),
        roots: run.roots(),
    };
    fs::write(&files.key, key.serialize_pem()).unwrap();
    fs::write(&files.chain, leaf.pem()).unwrap();
    files
}

/// The key of the root, wherever below the mesh's directory the CA keeps it.
fn root_key(directory: &Path, root: &str) -> Option<KeyPair> {
    let wanted = identity::pki::certificates(root).unwrap();
    let mut open = vec![directory.join("ca")];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        if let Ok(key) = KeyPair::from_pem(&text) {
            let public = rcgen::PublicKeyData::der_bytes(&key).to_vec();
            if wanted[0].windows(public.len()).any(|part| part == public) {
                return Some(key);
            }
        }
    }
    None
}
