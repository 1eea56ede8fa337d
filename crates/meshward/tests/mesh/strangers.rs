//! Other people's proxies: a stock Envoy set up as Istio sets up a sidecar calls our workloads and is called by them
//! (semantics 1.3, 1.6, 1.7, 5.6). What needs Envoy says `skipped` where it is not there.

mod certificate;
mod envoy;
mod library;
mod migration;
mod refused;
mod streaming;
mod tunnels;

use std::path::PathBuf;

use serde_json::Value;
use testkit::mesh::{Mesh, unavailable};

use crate::world::{compare, own, program};
use certificate::{Certificate, issue};
use envoy::{Envoy, Speaks};

/// Pods of `legacy` that bring a proxy of their own. The application listens on the port of the Service plus 10 000, the
/// proxy on that of the Service.
const PODS: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: sidecar, namespace: legacy}
---
apiVersion: v1
kind: Pod
metadata:
  name: sidecar
  namespace: legacy
  labels: {app: sidecar, security.istio.io/tlsMode: istio}
spec:
  serviceAccountName: sidecar
  containers:
  - name: app
    image: gcr.io/istio-testing/app:latest
    args: [--port=18000, --port=18100, --grpc=18070, --tcp=17000, --tcp=19000, --server-first=19000]
---
apiVersion: v1
kind: Service
metadata: {name: sidecar, namespace: legacy}
spec:
  selector: {app: sidecar}
  ports:
  - {name: http, port: 8000}
  - {name: grpc, port: 8070}
  - {name: tcp, port: 7000}
  - {name: tcp-first, port: 9000}
  - {name: web, port: 8100}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: ambient, namespace: legacy}
---
apiVersion: v1
kind: Pod
metadata:
  name: ambient
  namespace: legacy
  labels: {app: ambient}
  annotations: {ambient.istio.io/redirection: enabled}
spec:
  serviceAccountName: ambient
  containers:
  - name: app
    image: gcr.io/istio-testing/app:latest
    args: [--port=8000, --port=8100, --grpc=8070, --tcp=7000, --tcp=9000, --server-first=9000]
---
apiVersion: v1
kind: Service
metadata: {name: ambient, namespace: legacy}
spec:
  selector: {app: ambient}
  ports:
  - {name: http, port: 8000}
  - {name: grpc, port: 8070}
  - {name: tcp, port: 7000}
  - {name: tcp-first, port: 9000}
  - {name: web, port: 8100}
";

fn peer_authentication(mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: default, namespace: istio-system}}\nspec: {{mtls: {{mode: {mode}}}}}\n"
    )
}

/// Only the principal may call the server of `m`.
fn only(principal: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: only, namespace: m}}\nspec:\n  selector: {{matchLabels: {{app: server}}}}\n  rules: [{{from: [{{source: {{principals: [{principal}]}}}}]}}]\n"
    )
}

const SIDECAR: &str = "spiffe://cluster.local/ns/legacy/sa/sidecar";
const SERVER: &str = "spiffe://cluster.local/ns/m/sa/server";
const CLIENT: &str = "spiffe://cluster.local/ns/m/sa/client";

/// A mesh with a stranger in it.
struct World {
    mesh: Mesh,
    envoy: PathBuf,
    directory: tempfile::TempDir,
}

impl World {
    fn start(hint: &str) -> Option<Self> {
        Self::start_with(hint, true)
    }

    /// As [`Self::start`], where the stranger need not be Envoy.
    fn start_with(hint: &str, needs_envoy: bool) -> Option<Self> {
        if let Some(why) = unavailable() {
            println!("{why}");
            return None;
        }
        let envoy = if needs_envoy {
            envoy::program()?
        } else {
            PathBuf::new()
        };
        let directory = tempfile::tempdir().unwrap();
        let pods = directory.path().join("pods.yaml");
        std::fs::write(&pods, PODS).unwrap();
        let world = own("crates/meshward/tests/mesh/world.yaml");
        let mesh = Mesh::start(program(), hint, &[&world, &pods], &["--profile", "istio"]);
        Some(Self {
            mesh,
            envoy,
            directory,
        })
    }

    fn pod(&self, namespace: &str, name: &str) -> Value {
        self.mesh.pod(namespace, name).unwrap()
    }

    fn ips(&self, namespace: &str, workload: &str) -> Vec<String> {
        let rows = self.mesh.json(&["ps", "-A"]);
        let rows = rows.as_array().unwrap().iter();
        let own = rows.filter(|row| row["namespace"] == namespace && row["workload"] == workload);
        own.map(|row| row["ip"].as_str().unwrap().to_owned()).collect()
    }

    fn certificate(&self, name: &str) -> Certificate {
        issue(
            &self.mesh,
            &self.pod("legacy", name),
            &self.directory.path().join(name),
        )
    }

    /// Starts the sidecar: its own ports, and what its application dials on loopback to reach the server of `m`.
    fn sidecar(&self, strict: bool, certificate: &Certificate, allowed: Option<&str>) -> Envoy {
        let pod = self.pod("legacy", "sidecar");
        let (mut listeners, mut clusters) = (Vec::new(), Vec::new());
        for (port, speaks) in [
            (8000, Speaks::Http1),
            (8070, Speaks::Http2),
            (7000, Speaks::Tcp),
            (9000, Speaks::Tcp),
            (8100, Speaks::Http1),
            (8300, Speaks::Http2),
        ] {
            listeners.push(envoy::inbound(port, speaks, strict, allowed, certificate));
            let own = [("127.0.0.1".to_owned(), port + 10_000)];
            let speaks = (speaks == Speaks::Tcp).then_some(speaks);
            clusters.push(envoy::cluster(&format!("inbound-{port}"), &own, speaks, None));
        }
        let servers = self.ips("m", "server");
        for (local, port, speaks) in OUTBOUND {
            let name = format!("outbound-{local}");
            let endpoints: Vec<_> = servers.iter().map(|ip| (ip.clone(), *port)).collect();
            let alpn: &[&str] = match speaks {
                Speaks::Http1 => &["istio-http/1.1", "istio", "http/1.1"],
                Speaks::Http2 => &["istio-h2", "istio", "h2"],
                Speaks::Tcp => &["istio-peer-exchange", "istio"],
            };
            let sni = format!("outbound_.{port}_._.server.m.svc.cluster.local");
            let tls = envoy::upstream_tls(certificate, alpn, &sni, SERVER);
            clusters.push(envoy::cluster(&name, &endpoints, Some(*speaks), Some(tls)));
            let filter = match speaks {
                Speaks::Tcp => envoy::tcp_proxy(&name, None),
                _ => envoy::http(&name, false, None),
            };
            listeners.push(envoy::outbound(*local, filter));
        }
        let config = envoy::bootstrap(listeners, clusters);
        let directory = self.directory.path().join("sidecar");
        Envoy::start(&self.envoy, pod["netns"].as_str().unwrap(), &directory, &config)
    }

    /// What a call from a pod comes to.
    fn call(&self, namespace: &str, pod: &str, how: How) -> String {
        match how {
            How::Curl(words) => self.mesh.curl(namespace, pod, words).code.to_string(),
            How::Probe(words) => self.probe(namespace, pod, words),
        }
    }

    /// gRPC services that stream, at port 8300 of each server of `m`.
    fn streams(&self) -> Vec<streaming::Echo> {
        let rows = self.mesh.json(&["ps", "-A"]);
        let rows = rows.as_array().unwrap().iter();
        let own = rows.filter(|row| row["namespace"] == "m" && row["workload"] == "server");
        own.map(|pod| streaming::serve(pod, 8300)).collect()
    }

    fn probe(&self, namespace: &str, pod: &str, words: &[&str]) -> String {
        let me = program().display().to_string();
        let words: Vec<&str> = [me.as_str(), "workload", "probe"]
            .into_iter()
            .chain(words.iter().copied())
            .collect();
        let done = self.mesh.exec(namespace, pod, &words);
        let said: Value = serde_json::from_str(&done.stdout).unwrap_or_default();
        said["outcome"]
            .as_str()
            .map_or_else(|| format!("the probe failed: {done:?}"), str::to_owned)
    }
}

/// Where the stranger's application dials, the server's port behind it, and what is spoken there.
const OUTBOUND: &[(u16, u16, Speaks)] = &[
    (28000, 8000, Speaks::Http1),
    (28002, 8000, Speaks::Http2),
    (28070, 8070, Speaks::Http2),
    (28100, 8100, Speaks::Http1),
    (28102, 8100, Speaks::Http2),
    (28200, 8200, Speaks::Http1),
    (28300, 8300, Speaks::Http2),
    (27000, 7000, Speaks::Tcp),
    (28101, 8101, Speaks::Tcp),
    (28201, 8201, Speaks::Tcp),
    (29000, 9000, Speaks::Tcp),
];

#[derive(Clone, Copy)]
enum How {
    Curl(&'static [&'static str]),
    Probe(&'static [&'static str]),
}

/// Calls of the stranger's application through its proxy; what they come to where they are admitted, and where not.
const IN: &[(&str, How, &str, &str)] = &[
    ("HTTP/1.1", How::Curl(&["http://127.0.0.1:28000/"]), "200", "403"),
    (
        "HTTP/2",
        How::Curl(&["--http2-prior-knowledge", "http://127.0.0.1:28002/"]),
        "200",
        "403",
    ),
    (
        "gRPC",
        How::Probe(&["grpc", "--addr", "127.0.0.1:28070"]),
        "OK",
        "PermissionDenied",
    ),
    (
        "undeclared protocol, HTTP/1.1",
        How::Curl(&["http://127.0.0.1:28100/"]),
        "200",
        "403",
    ),
    (
        "undeclared protocol, HTTP/2",
        How::Curl(&["--http2-prior-knowledge", "http://127.0.0.1:28102/"]),
        "200",
        "403",
    ),
    (
        "undeclared port, HTTP/1.1",
        How::Curl(&["http://127.0.0.1:28200/"]),
        "200",
        "403",
    ),
    (
        "TCP",
        How::Probe(&["tcp", "--addr", "127.0.0.1:27000"]),
        "echoed",
        "closed",
    ),
    (
        "undeclared protocol, TCP",
        How::Probe(&["tcp", "--addr", "127.0.0.1:28101"]),
        "echoed",
        "closed",
    ),
    (
        "undeclared port, TCP",
        How::Probe(&["tcp", "--addr", "127.0.0.1:28201"]),
        "echoed",
        "closed",
    ),
    (
        "TCP, the server speaks first",
        How::Probe(&["tcp", "--addr", "127.0.0.1:29000", "--read-first"]),
        "echoed",
        "closed",
    ),
];

fn word(outcome: String) -> String {
    match outcome.as_str() {
        "reset" | "closed" | "no-answer" | "no-banner, then reset" | "no-banner, then closed" => {
            "closed".to_owned()
        }
        _ => outcome,
    }
}

#[test]
fn a_sidecar_of_istios_calls_our_workloads() {
    let Some(world) = World::start("sidecar-in") else {
        return;
    };
    let certificate = world.certificate("sidecar");
    let _envoy = world.sidecar(true, &certificate, None);
    let _streams = world.streams();
    let mut rows = Vec::new();
    for mode in ["PERMISSIVE", "STRICT"] {
        world.mesh.apply(&peer_authentication(mode));
        for (principal, admitted) in [
            ("cluster.local/ns/legacy/sa/sidecar", true),
            ("cluster.local/ns/m/sa/client", false),
        ] {
            world.mesh.apply(&only(principal));
            for (id, how, yes, no) in IN {
                let wanted = if admitted { yes } else { no };
                let got = word(world.call("legacy", "sidecar", *how));
                rows.push((format!("{mode}, {principal}: {id}"), (*wanted).to_owned(), got));
            }
            let wanted = if admitted { "streamed" } else { "grpc-status 7" };
            let got = streaming::call(&world.pod("legacy", "sidecar"), ([127, 0, 0, 1], 28300).into());
            rows.push((
                format!("{mode}, {principal}: gRPC, streaming"),
                wanted.to_owned(),
                got,
            ));
        }
    }
    compare(rows);
    // The stranger holds to how many streams we take on a connection, and opens another.
    world.mesh.apply(&only("cluster.local/ns/legacy/sa/sidecar"));
    let stranger = world.pod("legacy", "sidecar");
    let held = streaming::many(&stranger, ([127, 0, 0, 1], 28300).into(), 250);
    assert_eq!(held, Ok(250));
    // XFCC is ours to say: the application of the stranger cannot (ID-08).
    world.mesh.apply(&only("cluster.local/ns/legacy/sa/sidecar"));
    let forged = "X-Forwarded-Client-Cert: URI=spiffe://cluster.local/ns/m/sa/forged";
    let said = world
        .mesh
        .curl("legacy", "sidecar", &["-H", forged, "http://127.0.0.1:28000/"]);
    let told: Vec<_> = said
        .body
        .lines()
        .filter(|l| l.to_ascii_lowercase().contains("forwarded-client-cert"))
        .collect();
    assert_eq!(told.len(), 1, "{said:?}");
    assert!(told[0].contains(&format!("By={SERVER};Hash=")), "{told:?}");
    assert!(told[0].ends_with(&format!(";URI={SIDECAR}")), "{told:?}");
    assert!(told[0].contains("Subject=\"\""), "{told:?}");
    assert!(!said.body.contains("forged"), "{said:?}");
    // The log names it.
    let log = world.mesh.access_log();
    let line = log
        .iter()
        .rfind(|l| l["reporter"] == "destination" && l["source"]["principal"] == SIDECAR)
        .unwrap();
    assert_eq!(line["decision"], "allow", "{line:#}");
}

/// Calls of our client to the stranger's Service; what they come to where its proxy admits them, and where not.
const OUT: &[(&str, How, &str, &str)] = &[
    (
        "HTTP/1.1",
        How::Curl(&["http://sidecar.legacy:8000/"]),
        "200",
        "403",
    ),
    (
        "HTTP/2",
        How::Curl(&["--http2-prior-knowledge", "http://sidecar.legacy:8000/"]),
        "200",
        "403",
    ),
    (
        "gRPC",
        How::Probe(&["grpc", "--addr", "sidecar.legacy:8070"]),
        "OK",
        "PermissionDenied",
    ),
    (
        "undeclared protocol, HTTP/1.1",
        How::Curl(&["http://sidecar.legacy:8100/"]),
        "200",
        "403",
    ),
    (
        "undeclared protocol, HTTP/2",
        How::Curl(&["--http2-prior-knowledge", "http://sidecar.legacy:8100/"]),
        "200",
        "403",
    ),
    (
        "TCP",
        How::Probe(&["tcp", "--addr", "sidecar.legacy:7000"]),
        "echoed",
        "closed",
    ),
    (
        "TCP, the server speaks first",
        How::Probe(&["tcp", "--addr", "sidecar.legacy:9000", "--read-first"]),
        "echoed",
        "closed",
    ),
];

#[test]
fn a_sidecar_of_istios_is_called_by_our_workloads() {
    let Some(world) = World::start("sidecar-out") else {
        return;
    };
    let certificate = world.certificate("sidecar");
    for (strict, allowed, admitted) in [
        (false, None, true),
        (true, Some(CLIENT), true),
        (true, Some(SIDECAR), false),
    ] {
        let _envoy = world.sidecar(strict, &certificate, allowed);
        let mut rows = Vec::new();
        for (id, how, yes, no) in OUT {
            let wanted = if admitted { yes } else { no };
            let got = word(world.call("m", "client", *how));
            rows.push((
                format!("strict {strict}, {allowed:?}: {id}"),
                (*wanted).to_owned(),
                got,
            ));
        }
        let stranger = world.pod("legacy", "sidecar");
        let _streams = streaming::serve(&stranger, 18300);
        let to = format!("{}:8300", stranger["ip"].as_str().unwrap());
        let got = streaming::call(&world.pod("m", "client"), to.parse().unwrap());
        let wanted = if admitted { "streamed" } else { "grpc-status 7" };
        rows.push((
            format!("strict {strict}, {allowed:?}: gRPC, streaming"),
            wanted.to_owned(),
            got,
        ));
        compare(rows);
        if admitted {
            // The identity arrives: also where the stranger's proxy would have taken plaintext (CM-11).
            let said = world.mesh.curl("m", "client", &["http://sidecar.legacy:8000/"]);
            assert!(said.body.contains(&format!("By={SIDECAR};")), "{said:?}");
            assert!(said.body.contains(&format!("URI={CLIENT}")), "{said:?}");
        }
    }
    // Whoever answers at the address must be who is meant: the certificate of another is refused, with a line that says so.
    let other = issue(
        &world.mesh,
        &world.pod("m", "other"),
        &world.directory.path().join("other"),
    );
    let _envoy = world.sidecar(true, &other, None);
    let said = world.mesh.curl("m", "client", &["http://sidecar.legacy:8000/"]);
    assert_eq!(said.code, 503, "{said:?}");
    let log = world.mesh.access_log();
    let refused = log
        .iter()
        .rfind(|l| l["reporter"] == "source" && l["reason"] == "PEER_IDENTITY");
    let refused = refused.unwrap_or_else(|| panic!("{:#?}", log.last()));
    assert!(
        refused
            .to_string()
            .contains("unexpected identity `spiffe://cluster.local/ns/m/sa/other`"),
        "{refused:#}"
    );
}
