//! A mesh under a CA that openssl made, and openssl and stock gRPC as strangers who talk to it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use testkit::mesh::{Mesh, within};

use crate::world::{own, start};

/// The configuration of `openssl ca`, which alone sets both ends of a certificate's time.
const CONFIG: &str = "[ca]\ndefault_ca=d\n[d]\ndatabase=index\nserial=serial\ncrlnumber=crlnumber\nnew_certs_dir=.\ndefault_md=sha256\n\
    default_days=1\ndefault_crl_days=1\npolicy=p\nunique_subject=no\n[p]\ncommonName=optional\norganizationName=optional\n";

/// What a workload's certificate says besides its name.
const LEAF: &str = "basicConstraints=critical,CA:false\nkeyUsage=critical,digitalSignature\n\
    extendedKeyUsage=serverAuth,clientAuth\nauthorityKeyIdentifier=keyid\n";

const WHO: &str = "spiffe://cluster.local/ns/legacy/sa/stranger";

/// A CA in a directory: `cacerts` for the mesh, and peers beside it.
struct Workshop {
    dir: PathBuf,
}

impl Drop for Workshop {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Workshop {
    /// `None` after saying why where there is no openssl.
    fn new(hint: &str) -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            println!("skipped: openssl is not installed");
            return None;
        }
        let dir = std::env::temp_dir().join(format!("meshward-{hint}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("cacerts")).unwrap();
        let this = Self { dir };
        this.authority("root", "/O=Example/CN=Root CA", None);
        this.authority("ca", "/O=Example/CN=Intermediate CA", Some("root"));
        for (from, to) in [
            ("root.pem", "root-cert.pem"),
            ("ca.pem", "ca-cert.pem"),
            ("ca.key", "ca-key.pem"),
        ] {
            std::fs::copy(this.dir.join(from), this.dir.join("cacerts").join(to)).unwrap();
        }
        let chain = this.read("ca.pem") + &this.read("root.pem");
        std::fs::write(this.dir.join("cacerts/cert-chain.pem"), chain).unwrap();
        this.put("openssl.cnf", CONFIG);
        this.put("index", "");
        this.put("serial", "4711\n");
        this.put("crlnumber", "01\n");
        Some(this)
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.dir.join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join(name)).unwrap()
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn openssl(&self, words: &str) {
        let done = Command::new("openssl")
            .args(words.split(' '))
            .current_dir(&self.dir)
            .output()
            .unwrap();
        assert!(
            done.status.success(),
            "openssl {words}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }

    /// What openssl says.
    fn output(&self, words: &str) -> String {
        let done = Command::new("openssl")
            .args(words.split(' '))
            .current_dir(&self.dir)
            .output()
            .unwrap();
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// A CA: a root, or under another.
    fn authority(&self, name: &str, subject: &str, under: Option<&str>) {
        self.put(
            "ext",
            "basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n\
             authorityKeyIdentifier=keyid\n",
        );
        let subject = subject.replace(' ', "_");
        self.openssl(&format!(
            "req -new -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj {subject}"
        ));
        let by = match under {
            None => format!("-signkey {name}.key"),
            Some(ca) => format!("-CA {ca}.pem -CAkey {ca}.key -CAcreateserial"),
        };
        self.openssl(&format!(
            "x509 -req -in {name}.csr {by} -days 30 -extfile ext -out {name}.pem"
        ));
    }

    /// A certificate of this CA with these alternative names and this time.
    fn peer(&self, name: &str, names: &str, time: &str) {
        self.signed(name, names, time, "ca");
    }

    fn signed(&self, name: &str, names: &str, time: &str, ca: &str) {
        self.put("ext", &format!("{LEAF}subjectAltName=critical,{names}\n"));
        self.openssl(&format!(
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /"
        ));
        self.openssl(&format!(
            "ca -batch -notext -config openssl.cnf -cert {ca}.pem -keyfile {ca}.key -in {name}.csr -out {name}.pem -extfile ext {time}"
        ));
    }

    /// Says something to a workload over TLS, as a pod outside the mesh; what comes back, in text and alerts.
    fn call(&self, mesh: &Mesh, to: &str, peer: Option<&str>, more: &[&str]) -> String {
        let ca = self.path("ca.pem");
        let (certificate, key) = match peer {
            Some(name) => (
                self.path(&format!("{name}.pem")),
                self.path(&format!("{name}.key")),
            ),
            None => Default::default(),
        };
        let mut words = vec![
            "exec", "-i", "-n", "legacy", "client", "--", "timeout", "20", "openssl", "s_client", "-connect",
            to,
        ];
        words.extend([
            "-alpn",
            "istio-http/1.1,istio",
            "-servername",
            "outbound_.8000_._.server.m.svc.cluster.local",
        ]);
        if peer.is_some() {
            words.extend(["-cert", &certificate, "-key", &key, "-cert_chain", &ca]);
        }
        words.extend(["-ign_eof"]);
        words.extend(more);
        let mut child = mesh
            .command(&words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Under TLS 1.3 a refusal comes after the handshake (O-16): s_client reads until the end.
        let request = b"GET /headers HTTP/1.1\r\nHost: server.m:8000\r\nConnection: close\r\n\r\n";
        let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), request);
        let done = child.wait_with_output().unwrap();
        format!(
            "{}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        )
    }
}

pub(crate) const ALLOW: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: all, namespace: m}\nspec:\n  rules: [{}]\n";

fn mesh_config(text: &str) -> String {
    let text = text.replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    {text}\n"
    )
}

fn server(mesh: &Mesh) -> String {
    let pod = mesh.pod("m", "server").unwrap();
    format!("{}:8000", pod["ip"].as_str().unwrap())
}

/// What is wrong with a caller's certificate, the alert that it gets, and what the log says.
#[test]
fn strangers_are_refused_with_an_alert_and_a_line_that_says_why() {
    let Some(shop) = Workshop::new("pki") else { return };
    let uri = format!("URI:{WHO}");
    shop.peer("good", &uri, "-days 1");
    shop.peer(
        "expired",
        &uri,
        "-startdate 20200101000000Z -enddate 20210101000000Z",
    );
    shop.peer(
        "future",
        &uri,
        "-startdate 20490101000000Z -enddate 20491231000000Z",
    );
    shop.peer(
        "domain",
        "URI:spiffe://other.example/ns/legacy/sa/stranger",
        "-days 1",
    );
    shop.peer("dns", "DNS:server.m.svc.cluster.local", "-days 1");
    shop.peer(
        "two",
        &format!("{uri},URI:spiffe://cluster.local/ns/m/sa/client"),
        "-days 1",
    );
    shop.peer("form", "URI:spiffe://cluster.local/stranger", "-days 1");
    shop.peer("revoked", &uri, "-days 1");
    shop.openssl("ca -config openssl.cnf -cert ca.pem -keyfile ca.key -revoke revoked.pem");
    shop.openssl("ca -config openssl.cnf -cert ca.pem -keyfile ca.key -gencrl -out cacerts/ca-crl.pem");
    shop.authority("evil", "/O=Example/CN=Intermediate CA", None);
    shop.signed("stranger", &uri, "-days 1", "evil");
    shop.put("self.ext", "");
    shop.openssl(&format!(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout self.key -out self.pem -subj /CN=x -days 1 \
         -addext subjectAltName={uri} -addext keyUsage=critical,digitalSignature -addext basicConstraints=critical,CA:false"
    ));
    let Some(mesh) = start("pki", &["--cacerts", &shop.path("cacerts")]) else {
        return;
    };
    mesh.apply(ALLOW);
    let to = server(&mesh);
    // The mesh's own callers go on under the plugged-in CA.
    let got = mesh.curl("m", "client", &["http://server.m:8000/headers"]);
    assert_eq!(got.code, 200, "{got:?}");
    let good = shop.call(&mesh, &to, Some("good"), &[]);
    assert!(good.contains("HTTP/1.1 200"), "{good}");
    assert!(good.contains("TLSv1.3"), "{good}");
    // Alerts of RFC 8446 section 6.
    let rows = [
        (None, 116, "no certificate"),
        (Some("expired"), 45, "expired"),
        (Some("future"), 45, "not yet valid"),
        (Some("self"), 48, "unknown issuer"),
        (Some("stranger"), 48, "unknown issuer"),
        (Some("domain"), 46, "unknown trust domain `other.example`"),
        (Some("dns"), 46, "no URI SAN"),
        (Some("two"), 46, "several URI SANs"),
        (Some("form"), 46, "not a workload identity"),
        (Some("revoked"), 44, "revoked"),
    ];
    for (peer, alert, why) in rows {
        let before = mesh.access_log().len();
        let said = shop.call(&mesh, &to, peer, &[]);
        assert!(
            said.contains(&format!("SSL alert number {alert}")),
            "{peer:?}: {said}"
        );
        assert!(!said.contains("HTTP/1.1"), "{peer:?}: {said}");
        within(std::time::Duration::from_secs(5), why, || {
            mesh.access_log()
                .iter()
                .skip(before)
                .any(|line| line.to_string().contains(why))
        });
    }

    // Migration: the old trust domain is an alias, and its certificates count (TD, ID-07).
    mesh.apply(&mesh_config("trustDomainAliases: [other.example]"));
    let said = shop.call(&mesh, &to, Some("domain"), &[]);
    assert!(said.contains("HTTP/1.1 200"), "{said}");

    // Roots of another trust domain vouch for it, and for nobody of ours.
    shop.signed(
        "foreign",
        "URI:spiffe://partner.example/ns/a/sa/b",
        "-days 1",
        "evil",
    );
    let pem = shop.read("evil.pem").replace('\n', "\n    ");
    mesh.apply(&mesh_config(&format!(
        "caCertificates:\n- trustDomains: [partner.example]\n  pem: |\n    {pem}"
    )));
    let evil = shop.path("evil.pem");
    let said = shop.call(&mesh, &to, Some("foreign"), &["-cert_chain", &evil]);
    assert!(said.contains("HTTP/1.1 200"), "{said}");
    let said = shop.call(&mesh, &to, Some("stranger"), &["-cert_chain", &evil]);
    assert!(said.contains("SSL alert number 48"), "{said}");
}

/// Semantics 1.7, and lessons.md: `minProtocolVersion` took effect on the wrong side elsewhere.
#[test]
fn tls_1_3_alone_unless_the_mesh_configuration_says_otherwise() {
    let Some(shop) = Workshop::new("tls") else { return };
    shop.peer("good", &format!("URI:{WHO}"), "-days 1");
    let Some(mesh) = start("tls", &["--cacerts", &shop.path("cacerts")]) else {
        return;
    };
    mesh.apply(ALLOW);
    let to = server(&mesh);
    let call = |more: &[&str]| shop.call(&mesh, &to, Some("good"), more);
    let answered = |more: &[&str]| call(more).contains("HTTP/1.1 200");
    let refused = |more: &[&str]| {
        let said = call(more);
        assert!(!said.contains("HTTP/1.1"), "{more:?}: {said}");
        [
            "alert",
            "no protocols available",
            "no suitable",
            "unexpected eof",
            "errno",
        ]
        .iter()
        .any(|word| said.contains(word))
    };
    assert!(answered(&["-tls1_3"]));
    let old = call(&["-tls1_2"]);
    assert!(old.contains("SSL alert number 70"), "{old}");
    // Each offered alone, as the table has it. What this openssl does not know is left out.
    let curves = shop.output("list -tls-groups");
    for curve in ["X25519", "P-256", "P-384", "X25519MLKEM768"] {
        if curve != "X25519MLKEM768" || curves.contains(curve) {
            assert!(answered(&["-curves", curve]), "{curve}");
        }
    }
    for curve in ["P-521", "X448", "ffdhe2048", "ffdhe3072"] {
        assert!(refused(&["-curves", curve]), "{curve}");
    }
    for suite in [
        "TLS_AES_128_GCM_SHA256",
        "TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256",
    ] {
        assert!(answered(&["-tls1_3", "-ciphersuites", suite]), "{suite}");
    }
    for suite in ["TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"] {
        assert!(refused(&["-tls1_3", "-ciphersuites", suite]), "{suite}");
    }

    mesh.apply(&mesh_config("meshMTLS: {minProtocolVersion: TLSV1_2}"));
    let aes256 = ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"];
    let aes128 = ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"];
    assert!(answered(&aes256) && answered(&aes128) && answered(&["-tls1_3"]));
    // The proxies' keys are ECDSA; suites of RSA find nothing to sign with.
    for (suite, why) in [
        ("AES256-GCM-SHA384", "static RSA"),
        ("AES128-GCM-SHA256", "static RSA"),
        ("ECDHE-RSA-AES256-GCM-SHA384", "RSA"),
        ("ECDHE-ECDSA-AES256-SHA384", "CBC"),
        ("ECDHE-ECDSA-AES128-SHA", "CBC and SHA-1"),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", "not in the table"),
        ("ECDHE-ECDSA-AES256-CCM", "CCM"),
        ("DHE-RSA-AES256-GCM-SHA384", "finite fields"),
        ("ECDHE-ECDSA-NULL-SHA", "no encryption"),
        ("AECDH-AES256-SHA", "nobody proven"),
    ] {
        let cipher = format!("{suite}:@SECLEVEL=0");
        assert!(refused(&["-tls1_2", "-cipher", &cipher]), "{suite}: {why}");
    }
    // Before 1.3 the curve of the certificate's key must be among those that the client names.
    for curves in ["P-256", "X25519:P-256"] {
        assert!(answered(&["-tls1_2", "-curves", curves]), "{curves}");
    }
    for version in ["-tls1", "-tls1_1"] {
        assert!(refused(&[version, "-cipher", "ALL:@SECLEVEL=0"]), "{version}");
    }

    mesh.apply(&mesh_config(
        "meshMTLS: {minProtocolVersion: TLSV1_2, cipherSuites: [ECDHE-ECDSA-AES128-GCM-SHA256]}",
    ));
    assert!(answered(&aes128) && answered(&["-tls1_3"]));
    assert!(refused(&aes256));
    mesh.apply(&mesh_config("meshMTLS: {minProtocolVersion: TLSV1_3}"));
    assert!(answered(&["-tls1_3"]));
    assert!(refused(&aes128));
}

/// Semantics 5.2: Istio's CA API as a stock client uses it.
#[test]
fn istios_certificate_service_serves_a_stock_client() {
    let python = own("target/grpc/bin/python");
    if !python.exists() {
        println!("skipped: grpcio is not installed (./test installs it into target/grpc)");
        return;
    }
    let Some(shop) = Workshop::new("caapi") else {
        return;
    };
    let Some(mesh) = start("caapi", &["--cacerts", &shop.path("cacerts")]) else {
        return;
    };
    let ports = mesh.json(&["ports"]);
    let address = ports
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["part"] == "ca")
        .and_then(|row| row["address"].as_str())
        .unwrap()
        .to_owned();
    let hub = format!("--net=/run/netns/mw-{}-hub", mesh.name());
    let script = own("crates/meshward/tests/peers/ca/client.py");
    let roots = shop.path("root.pem");
    let client = |csr: &str, seconds: &str, more: &[&str]| {
        let mut command = Command::new("nsenter");
        command
            .arg(&hub)
            .arg(&python)
            .arg(&script)
            .args([&address, &roots]);
        command.args([&shop.path(csr), seconds]).args(more);
        let done = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if done.status.success() {
            Ok(text(&done.stdout))
        } else {
            Err(text(&done.stderr))
        }
    };
    let ask = |csr: &str, seconds: &str, token: &str| {
        let more = if token.is_empty() { &[][..] } else { &[token][..] };
        client(csr, seconds, more)
    };
    let ask_for = |csr: &str, token: &str, whom: &str| client(csr, "600", &[token, whom]);
    let token = workload_token(Path::new("/run/meshward").join(mesh.name()).as_path(), "client");
    // A key of another kind, and names that are not the caller's: of a request the key alone is taken (ID-02).
    shop.openssl("req -new -newkey rsa:2048 -nodes -keyout a.key -out a.csr -subj /CN=admin -addext subjectAltName=URI:spiffe://cluster.local/ns/kube-system/sa/admin");
    let chain = ask("a.csr", "600", &token).unwrap();
    shop.put("issued.pem", &chain);
    assert_eq!(
        chain.matches("BEGIN CERTIFICATE").count(),
        3,
        "leaf, intermediate, root: {chain}"
    );
    assert!(chain.ends_with(&shop.read("root.pem")), "the root comes last");
    let text = Command::new("openssl")
        .args(["x509", "-noout", "-text", "-in", &shop.path("issued.pem")])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(
        text.contains("URI:spiffe://cluster.local/ns/m/sa/client"),
        "{text}"
    );
    assert!(!text.contains("kube-system") && !text.contains("admin"), "{text}");
    // openssl verifies the chain, too.
    shop.openssl("verify -CAfile root.pem -untrusted ca.pem issued.pem");
    // What it got, it can call with.
    shop.openssl("x509 -in issued.pem -out a.pem");
    mesh.apply(ALLOW);
    let said = shop.call(&mesh, &server(&mesh), Some("a"), &[]);
    assert!(said.contains("HTTP/1.1 200"), "{said}");

    // Refusals, each by its code.
    shop.put(
        "bad.csr",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
    );
    let refused = |csr: &str, seconds: &str, token: &str, code: &str, why: &str| {
        let error = ask(csr, seconds, token).unwrap_err();
        assert!(
            error.contains(code) && error.contains(why),
            "{code} {why}: {error}"
        );
    };
    refused("a.csr", "600", "", "UNAUTHENTICATED", "authorization");
    refused("a.csr", "600", "a.b.c", "UNAUTHENTICATED", "");
    refused("bad.csr", "600", &token, "INVALID_ARGUMENT", "signing request");
    refused("a.csr", "7862400", &token, "INVALID_ARGUMENT", "out of range");
    shop.openssl("req -new -newkey rsa:1024 -nodes -keyout w.key -out w.csr -subj /");
    refused("w.csr", "600", &token, "INVALID_ARGUMENT", "too small");
    for (kind, why) in [
        ("ec -pkeyopt ec_paramgen_curve:secp224r1", "kind of key"),
        ("ec -pkeyopt ec_paramgen_curve:secp256k1", "kind of key"),
    ] {
        shop.openssl(&format!(
            "req -new -newkey {kind} -nodes -keyout w.key -out w.csr -subj /"
        ));
        refused("w.csr", "600", &token, "INVALID_ARGUMENT", why);
    }
    shop.openssl("req -new -sha1 -newkey rsa:2048 -nodes -keyout w.key -out w.csr -subj /");
    refused("w.csr", "600", &token, "INVALID_ARGUMENT", "signature algorithm");
    // Somebody else's key in a request that is signed by one's own.
    shop.openssl("req -new -newkey rsa:2048 -nodes -keyout w.key -out w.csr -subj /");
    shop.openssl("req -in w.csr -outform DER -out w.der");
    let mut der = std::fs::read(shop.dir.join("w.der")).unwrap();
    let last = der.len() - 1;
    der[last] ^= 1;
    std::fs::write(shop.dir.join("w.der"), der).unwrap();
    shop.openssl("req -inform DER -in w.der -out torn.csr");
    refused(
        "torn.csr",
        "600",
        &token,
        "INVALID_ARGUMENT",
        "not by its own key",
    );
    // Longer than any request is, and longer than any message.
    for (length, code) in [(20_000, "INVALID_ARGUMENT"), (200_000, "OUT_OF_RANGE")] {
        let lines = "MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAw\n".repeat(length / 65);
        let text = format!("-----BEGIN CERTIFICATE REQUEST-----\n{lines}-----END CERTIFICATE REQUEST-----\n");
        shop.put("long.csr", &text);
        refused("long.csr", "600", &token, code, "");
    }
    // A request for a CA, and for somebody else in other words, gets what the token is for.
    shop.openssl(
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout c.key -out c.csr -subj /O=system:masters/CN=ca \
         -addext basicConstraints=critical,CA:true -addext keyUsage=critical,keyCertSign,cRLSign \
         -addext subjectAltName=URI:spiffe://cluster.local/ns/m/sa/server,URI:spiffe://cluster.local/ns/m/sa/client,DNS:istiod.istio-system.svc,IP:10.0.0.1",
    );
    shop.put("c.pem", &ask("c.csr", "600", &token).unwrap());
    let text = shop.output("x509 -noout -text -in c.pem");
    assert!(
        text.contains("CA:FALSE") && text.contains("Digital Signature"),
        "{text}"
    );
    assert_eq!(text.matches("URI:").count(), 1, "{text}");
    assert!(
        text.contains("URI:spiffe://cluster.local/ns/m/sa/client"),
        "{text}"
    );
    for word in [
        "Certificate Sign",
        "CRL Sign",
        "istiod",
        "IP Address",
        "system:masters",
        "sa/server",
    ] {
        assert!(!text.contains(word), "{word}: {text}");
    }

    // Tokens: of another audience, of the past, of the future, of an issuer of the same name; and asking for another's (ID-04, ID-05).
    let run = Path::new("/run/meshward").join(mesh.name());
    let issuer = trusted_issuer(&run);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let claims = identity::token::Claims {
        namespace: "m".to_owned(),
        service_account: "client".to_owned(),
        pod_name: "client".to_owned(),
        pod_uid: "u".to_owned(),
        node: "node-0".to_owned(),
    };
    let hour = std::time::Duration::from_secs(3600);
    let made = |audience: &str, from: u64| issuer.issue(&claims, audience, from, hour).unwrap();
    let audience = identity::token::AUDIENCE;
    let good = made(audience, now);
    // The file is looked at again when a key is not known.
    within(std::time::Duration::from_secs(20), "the key is known", || {
        ask("c.csr", "600", &good).is_ok()
    });
    refused("c.csr", "600", &made("other", now), "UNAUTHENTICATED", "audience");
    refused(
        "c.csr",
        "600",
        &made(audience, now - 7200),
        "UNAUTHENTICATED",
        "expired",
    );
    refused("c.csr", "600", &made(audience, now + 7200), "UNAUTHENTICATED", "");
    let stranger = identity::token::Issuer::new(identity::token::ISSUER).unwrap();
    let forged = stranger.issue(&claims, audience, now, hour).unwrap();
    refused("c.csr", "600", &forged, "UNAUTHENTICATED", "");
    let impersonated = "spiffe://cluster.local/ns/m/sa/server";
    let error = ask_for("c.csr", &token, impersonated).unwrap_err();
    assert!(
        error.contains("PERMISSION_DENIED") && error.contains("not for another's"),
        "{error}"
    );
}

/// An issuer whose tokens the mesh believes, made known as a cluster's new key would be.
fn trusted_issuer(run: &Path) -> identity::token::Issuer {
    let issuer = identity::token::Issuer::new(identity::token::ISSUER).unwrap();
    let file = run.join("token-keys.json");
    let keys = |text: &str| -> Vec<serde_json::Value> {
        let set: serde_json::Value = serde_json::from_str(text).unwrap();
        set["keys"].as_array().unwrap().clone()
    };
    let all = [
        keys(&std::fs::read_to_string(&file).unwrap()),
        keys(issuer.jwks()),
    ]
    .concat();
    std::fs::write(&file, serde_json::json!({"keys": all}).to_string()).unwrap();
    issuer
}

/// A token that the mesh made for a workload's service account.
fn workload_token(run: &Path, account: &str) -> String {
    let mut waiting = vec![run.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.is_file()
                && let Ok(text) = std::fs::read_to_string(&path)
                && text.starts_with("ey")
                && claims(&text).is_some_and(|c| {
                    c.contains(&format!("system:serviceaccount:m:{account}\"")) && c.contains("istio-ca")
                })
            {
                return text.trim().to_owned();
            }
        }
    }
    panic!("no token of {account} below {}", run.display());
}

fn claims(token: &str) -> Option<String> {
    let mut parts = token.trim().split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    let done = Command::new("python3")
        .args([
            "-c",
            "import base64,sys; c=sys.argv[1]; print(base64.urlsafe_b64decode(c+'='*(-len(c)%4)).decode())",
            claims,
        ])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    String::from_utf8(done.stdout).ok()
}
