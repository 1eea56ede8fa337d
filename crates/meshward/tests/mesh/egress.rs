//! What leaves the mesh, and by which entry: semantics 7 on real sockets.

use std::time::Duration;

use testkit::mesh::within;

use crate::world::{How, attempt, compare, start};

/// The unmeshed server by a name outside the cluster, with endpoints.
fn by_endpoint(ip: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: partner, namespace: m}}\nspec:\n  hosts: [partner.example.com]\n  resolution: STATIC\n  ports: [{{number: 80, name: http, protocol: HTTP}}]\n  endpoints: [{{address: {ip}, ports: {{http: 8000}}}}]\n"
    )
}

/// The same by its address.
fn by_address(ip: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: direct, namespace: m}}\nspec:\n  hosts: [direct.example.com]\n  addresses: [{ip}]\n  ports: [{{number: 8201, name: tcp, protocol: TCP}}]\n"
    )
}

const SIDECAR: &str = "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: m}
spec:
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
  egress: [{hosts: ['./server.m.svc.cluster.local']}]
";

#[test]
fn eg_17_entries_open_what_they_list_and_a_sidecar_closes_the_rest() {
    let Some(mesh) = start("egress", &[]) else {
        return;
    };
    mesh.apply(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: allow, namespace: m}\nspec:\n  rules:\n  - from: [{source: {namespaces: [m]}}]\n",
    );
    let server = mesh.pod("legacy", "server").unwrap();
    let (ip, ip6) = (server["ip"].as_str().unwrap(), server["ip6"].as_str().unwrap());
    let tcp = |to: &str| attempt(&mesh, "m", How::Tcp, to);
    let http = |words: &[&str]| mesh.curl("m", "client", words).code.to_string();
    let mut rows = Vec::new();
    let mut row = |id: &str, wanted: &str, got: String| rows.push((id.to_owned(), wanted.to_owned(), got));

    // As installed, and on a port that no headless Service has: an address of a pod outside the mesh is in no registry.
    row("P29 before", "refused", tcp(&format!("{ip}:8201")));
    row("P29 before, IPv6", "refused", tcp(&format!("[{ip6}]:8201")));
    row("its Service", "ok", tcp("server.legacy:7000"));

    mesh.apply(&by_address(ip));
    row("EG-17 the listed address", "ok", tcp(&format!("{ip}:8201")));
    row("EG-17 another port of it", "refused", tcp(&format!("{ip}:8200")));
    row("EG-17 another address", "refused", tcp("192.0.2.1:8201"));
    row("EG-17 its other family", "refused", tcp(&format!("[{ip6}]:8201")));

    mesh.apply(&by_endpoint(ip));
    row("by name", "200", http(&["http://partner.example.com/"]));
    let at = format!("partner.example.com:80:{ip}");
    row(
        "R37 the name at an address of one's own choice",
        "true",
        (mesh
            .curl("m", "client", &["--resolve", &at, "http://partner.example.com/"])
            .code
            >= 400)
            .to_string(),
    );

    // What one namespace is to know.
    mesh.apply(SIDECAR);
    row("imported", "ok", tcp("server.m:7000"));
    row("not imported", "refused", tcp("server.legacy:7000"));
    row(
        "an entry that is not imported",
        "refused",
        tcp(&format!("{ip}:8201")),
    );
    mesh.delete(SIDECAR);

    // Without the entry it is as before, also for what is open.
    mesh.delete(&by_address(ip));
    row("after", "refused", tcp(&format!("{ip}:8201")));
    mesh.delete(&by_endpoint(ip));
    compare(rows);
    let log = mesh.access_log();
    let refused = |line: &&serde_json::Value| line["reason"] == "EGRESS_UNKNOWN";
    assert!(log.iter().filter(refused).count() >= 7, "{log:#?}");
    let carried = log.iter().any(|line| line["service"] == "direct.example.com");
    assert!(carried, "{log:#?}");
    within(Duration::from_secs(5), "the name is nobody's again", || {
        mesh.exec("m", "client", &["getent", "hosts", "partner.example.com"])
            .code
            != 0
    });
}
