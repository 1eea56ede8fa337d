//! ServiceEntries that leave to DNS where they are, and those that select workloads; Sidecars for some workloads (semantics 7.4, 7.5).

use std::process::{Child, Stdio};
use std::time::Duration;

use testkit::mesh::{Mesh, within};

use crate::world::{How, attempt, compare, program, start};

/// A pod on its node's own network, where a DNS server can stand that nodes ask.
const RESOLVER: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: resolver, namespace: legacy}
spec:
  selector: {matchLabels: {app: resolver}}
  template:
    metadata: {labels: {app: resolver}}
    spec:
      serviceAccountName: client
      hostNetwork: true
      terminationGracePeriodSeconds: 0
      containers: [{name: app, image: curlimages/curl, command: [sleep, infinity]}]
";

const ALLOW: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow, namespace: m}
spec: {rules: [{from: [{source: {namespaces: [m]}}]}]}
";

const SIDECAR: &str = "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: some, namespace: m}
spec:
  workloadSelector: {labels: {app: client}}
  egress: [{hosts: ['./server.m.svc.cluster.local']}]
";

fn entry(name: &str, host: &str, port: &str, more: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: m}}\nspec:\n  hosts: ['{host}']\n  ports: [{{{port}}}]\n  {more}\n"
    )
}

const HTTP: &str = "number: 8200, name: http, protocol: HTTP";
const TLS: &str = "number: 8243, name: tls, protocol: TLS";
const TCP: &str = "number: 8201, name: tcp, protocol: TCP";

/// A program that is ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A DNS server outside the mesh that knows the unmeshed server under some names.
fn resolver(mesh: &Mesh, ip: &str) -> Ended {
    mesh.apply(RESOLVER);
    let program = program().display().to_string();
    let names = ["ext", "a.wild", "tls", "tcp", "x.dyn", "other"];
    let records: Vec<String> = names
        .iter()
        .map(|name| format!("{name}.example.com={ip}"))
        .collect();
    let mut words = vec![
        "exec", "-n", "legacy", "resolver", "--", &program, "workload", "dns", "5353",
    ];
    words.extend(records.iter().map(String::as_str));
    let mut command = mesh.command(&words);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let serving = Ended(command.spawn().unwrap());
    within(Duration::from_secs(30), "names outside are answered", || {
        mesh.exec("m", "client", &["getent", "hosts", "ext.example.com"])
            .code
            == 0
    });
    serving
}

#[test]
fn eg_17_where_a_host_is_is_what_dns_says_and_not_what_a_client_does() {
    // The nodes' own addresses: one of them has the server.
    let words = [
        "--dns-upstream",
        "192.168.77.10:5353",
        "--dns-upstream",
        "192.168.77.11:5353",
    ];
    let Some(mesh) = start("names", &words) else {
        return;
    };
    let place = |pod: &str| {
        mesh.pod("legacy", pod).unwrap()["ip"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (ip, elsewhere) = (place("server"), place("client"));
    let _serving = resolver(&mesh, &ip);
    mesh.apply(ALLOW);
    let http = |words: &[&str]| mesh.curl("m", "client", words).code.to_string();
    // Of TLS that is carried as it is there is no status where it is refused.
    let https = |words: &[&str]| http(&[&["-k"], words].concat());
    let at = |host: &str, port: u16, ip: &str| format!("{host}.example.com:{port}:{ip}");
    let mut rows = Vec::new();
    let mut row = |id: &str, wanted: &str, got: String| rows.push((id.to_owned(), wanted.to_owned(), got));

    let ext = "http://ext.example.com:8200/";
    row(
        "REGISTRY_ONLY: a name that is known to DNS alone",
        "502",
        http(&[ext]),
    );
    mesh.apply(&entry("ext", "ext.example.com", HTTP, "resolution: DNS"));
    // The clients of before may have kept the answer for a moment.
    within(
        Duration::from_secs(15),
        "the entry's own address is what the name has",
        || http(&[ext]) == "200",
    );
    row("DNS: another address of one's own choice", "403", {
        http(&["--resolve", &at("ext", 8200, &elsewhere), ext])
    });

    mesh.apply(&entry("wild", "*.wild.example.com", HTTP, "resolution: NONE"));
    let wild = "http://a.wild.example.com:8200/";
    row("NONE without addresses: where the name is", "200", http(&[wild]));
    row("R37: where it is not", "403", {
        http(&["--resolve", &at("a.wild", 8200, &elsewhere), wild])
    });
    row("R37: a name that is nowhere", "403", {
        let nobody = "http://nobody.wild.example.com:8200/";
        http(&["--resolve", &at("nobody.wild", 8200, &ip), nobody])
    });

    mesh.apply(&entry("tls", "tls.example.com", TLS, "resolution: NONE"));
    let tls = "https://tls.example.com:8243/";
    row("SNI: where the name is", "200", https(&[tls]));
    row("SNI: where it is not", "0", {
        https(&["--resolve", &at("tls", 8243, &elsewhere), tls])
    });
    row(
        "SNI: another name there",
        "0",
        https(&["https://other.example.com:8243/"]),
    );
    row("no SNI", "0", https(&[&format!("https://{ip}:8243/")]));

    mesh.apply(&entry(
        "dynamic",
        "*.dyn.example.com",
        TLS,
        "resolution: DYNAMIC_DNS",
    ));
    let dynamic = "https://x.dyn.example.com:8243/";
    row("DYNAMIC_DNS: wherever the client dials", "200", {
        https(&["--resolve", &at("x.dyn", 8243, "192.0.2.1"), dynamic])
    });

    let tcp = |to: &str| attempt(&mesh, "m", How::Tcp, to);
    row("TCP before", "refused", tcp(&format!("{ip}:8201")));
    mesh.apply(&entry("tcp", "tcp.example.com", TCP, "resolution: NONE"));
    row("EG-07: where a host of it is", "ok", tcp(&format!("{ip}:8201")));
    row(
        "EG-07: where none is",
        "refused",
        tcp(&format!("{elsewhere}:8201")),
    );

    let selects =
        "resolution: STATIC\n  location: MESH_INTERNAL\n  workloadSelector: {labels: {app: server}}";
    mesh.apply(&entry("own", "own.example.com", HTTP, selects));
    let own = mesh.curl("m", "client", &["http://own.example.com:8200/"]);
    row("workloadSelector", "200", own.code.to_string());
    row("workloadSelector: with identity", "true", {
        own.body
            .contains("spiffe://cluster.local/ns/m/sa/client")
            .to_string()
    });

    row("a Service before a Sidecar", "ok", tcp("server.legacy:7000"));
    mesh.apply(SIDECAR);
    row("a Sidecar for the client", "refused", tcp("server.legacy:7000"));
    row("what it imports", "ok", tcp("server.m:7000"));
    let other = mesh.exec(
        "m",
        "other",
        &[
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "http://server.legacy:8000/",
        ],
    );
    row("a Sidecar for others", "200", other.stdout.trim().to_owned());
    compare(rows);
}
