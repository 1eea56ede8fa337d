//! Mutual TLS modes, kinds of clients and ports on real sockets: semantics 1.4 (MT-) and 1.5 (MP-).

use testkit::mesh::Mesh;

use crate::world::{How, attempt, compare, start};

/// Outcomes under DISABLE, PERMISSIVE and STRICT.
type Modes = [&'static str; 3];

/// Rows with a caller outside the mesh.
const PLAIN: &[(&str, How, &str, Modes)] = &[
    ("MT-01", How::Tcp, "server.m:7000", ["ok", "ok", "refused"]),
    ("MT-02", How::Http, "server.m:7080", ["ok", "ok", "refused"]),
    (
        "MT-03 MT-04",
        How::Https,
        "server.m:7443",
        ["ok", "ok", "refused"],
    ),
    ("MT-07", How::Http, "server.m:8000", ["ok", "ok", "refused"]),
    (
        "MT-08 MT-09",
        How::Https,
        "server.m:8000",
        ["refused", "refused", "refused"],
    ),
    (
        "MT-11",
        How::Tcp,
        "server.m:8000",
        ["protocol", "protocol", "refused"],
    ),
    ("MT-12", How::Http, "server.m:8100", ["ok", "ok", "refused"]),
    ("MT-13", How::Http2, "server.m:8100", ["ok", "ok", "refused"]),
    ("MT-14", How::Tcp, "server.m:8101", ["ok", "ok", "refused"]),
    (
        "MT-15 MT-16",
        How::Https,
        "server.m:8143",
        ["ok", "ok", "refused"],
    ),
    ("MT-19", How::Http, "POD:8200", ["ok", "ok", "refused"]),
    ("MT-20", How::Tcp, "POD:8201", ["ok", "ok", "refused"]),
    ("MT-21 MT-22", How::Https, "POD:8243", ["ok", "ok", "refused"]),
    ("MT-24", How::Tcp, "POD:15006", ["refused", "refused", "refused"]),
    ("MT-25", How::Tcp, "POD:15001", ["refused", "refused", "refused"]),
    (
        "MT-27",
        How::Http2,
        "POD:15008",
        ["refused", "refused", "refused"],
    ),
];

/// Rows with a caller in the mesh; under DISABLE a DestinationRule makes it use mutual TLS all the same (CM-06).
const MESH: &[(&str, How, &str, Modes)] = &[
    ("MT-05", How::Tcp, "server.m:7000", ["refused", "ok", "ok"]),
    ("MT-06", How::Http, "server.m:7080", ["refused", "ok", "ok"]),
    ("MT-10", How::Http, "server.m:8000", ["refused", "ok", "ok"]),
    ("MT-10 gRPC", How::Grpc, "server.m:8070", ["refused", "ok", "ok"]),
    ("MT-17", How::Tcp, "server.m:8101", ["refused", "ok", "ok"]),
    ("MT-18", How::Http, "server.m:8100", ["refused", "ok", "ok"]),
    ("MT-23 HTTP", How::Http, "POD:8200", ["ok", "ok", "ok"]),
    ("MT-23 TCP", How::Tcp, "POD:8201", ["ok", "ok", "ok"]),
];

const MUTUAL: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: mutual, namespace: m}
spec: {host: server.m.svc.cluster.local, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}
";

fn peer_authentication(mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: default, namespace: istio-system}}\nspec: {{mtls: {{mode: {mode}}}}}\n"
    )
}

fn fill(mesh: &Mesh, to: &str) -> String {
    let pod = mesh.pod("m", "server").unwrap();
    to.replace("POD", pod["ip"].as_str().unwrap())
}

#[test]
fn mt_every_mode_client_and_port() {
    let Some(mesh) = start("modes", &["--profile", "istio"]) else {
        return;
    };
    let mut rows = Vec::new();
    for (at, mode) in ["DISABLE", "PERMISSIVE", "STRICT"].into_iter().enumerate() {
        mesh.apply(&peer_authentication(mode));
        for (id, how, to, wanted) in PLAIN {
            let got = attempt(&mesh, "legacy", *how, &fill(&mesh, to));
            rows.push((format!("{id} {mode} plain {to}"), wanted[at].to_owned(), got));
        }
        if mode == "DISABLE" {
            mesh.apply(MUTUAL);
        }
        for (id, how, to, wanted) in MESH {
            let got = attempt(&mesh, "m", *how, &fill(&mesh, to));
            rows.push((format!("{id} {mode} mesh {to}"), wanted[at].to_owned(), got));
        }
        if mode == "DISABLE" {
            mesh.delete(MUTUAL);
        }
    }
    compare(rows);
}

/// Id, port, outcome from outside, outcome from the mesh.
type Case = (&'static str, u16, &'static str, &'static str);

fn workload(mode: &str, port: u16, port_mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: ports, namespace: m}}\nspec:\n  selector: {{matchLabels: {{app: server}}}}\n  mtls: {{mode: {mode}}}\n  portLevelMtls: {{{port}: {{mode: {port_mode}}}}}\n"
    )
}

#[test]
fn mp_ports_of_their_own() {
    let Some(mesh) = start("ports", &["--profile", "istio"]) else {
        return;
    };
    let mut rows = Vec::new();
    // Mode of the workload, of port 8200 (which no Service declares), and (id, port, from outside, from the mesh).
    let table: &[(&str, &str, &[Case])] = &[
        (
            "STRICT",
            "DISABLE",
            &[("MP-01", 8000, "refused", "ok"), ("MP-02", 8200, "ok", "ok")],
        ),
        (
            "DISABLE",
            "STRICT",
            &[
                ("MP-03", 8000, "ok", "ok"),
                ("MP-04", 8100, "ok", "ok"),
                ("MP-05", 8200, "refused", "ok"),
            ],
        ),
        (
            "DISABLE",
            "PERMISSIVE",
            &[("MP-06", 8000, "ok", "ok"), ("MP-07", 8200, "ok", "ok")],
        ),
    ];
    for (mode, port_mode, cases) in table {
        mesh.apply(&workload(mode, 8200, port_mode));
        for (id, port, plain, meshed) in *cases {
            let to = fill(&mesh, &format!("POD:{port}"));
            rows.push((
                format!("{id} plain"),
                (*plain).to_owned(),
                attempt(&mesh, "legacy", How::Http, &to),
            ));
            rows.push((
                format!("{id} mesh"),
                (*meshed).to_owned(),
                attempt(&mesh, "m", How::Http, &to),
            ));
        }
    }
    mesh.delete(&workload("STRICT", 8200, "STRICT"));
    // MP-12: what is closed by policy is closed whatever the mode.
    mesh.apply(&format!("{}---{LISTED}", peer_authentication("DISABLE")));
    for (port, wanted) in [(8000, "ok"), (8100, "403"), (8200, "403")] {
        let to = fill(&mesh, &format!("POD:{port}"));
        let got = attempt(&mesh, "legacy", How::Http, &to);
        rows.push((format!("MP-12 port {port}"), wanted.to_owned(), got));
    }
    let got = attempt(&mesh, "legacy", How::Tcp, &fill(&mesh, "POD:8201"));
    rows.push(("MP-12 TCP".to_owned(), "refused".to_owned(), got));
    compare(rows);
}

const LISTED: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: listed, namespace: m}
spec:
  selector: {matchLabels: {app: server}}
  rules:
  - to: [{operation: {ports: ['8000']}}]
";

#[test]
fn the_secure_default_refuses_what_istio_lets_in() {
    let Some(mesh) = start("floor", &[]) else {
        return;
    };
    let mut rows = Vec::new();
    let every = [
        (How::Http, "server.m:8000"),
        (How::Http, "server.m:8100"),
        (How::Tcp, "server.m:7000"),
        (How::Tcp, "server.m:8101"),
        (How::Https, "server.m:8143"),
        (How::Http, "POD:8200"),
        (How::Tcp, "POD:8201"),
    ];
    for (how, to) in every {
        let got = attempt(&mesh, "legacy", how, &fill(&mesh, to));
        rows.push((format!("plain {to}"), "refused".to_owned(), got));
        let wanted = if how == How::Http { "403" } else { "refused" };
        let got = attempt(&mesh, "m", how, &fill(&mesh, to));
        rows.push((format!("no ALLOW: {how:?} {to}"), wanted.to_owned(), got));
    }
    compare(rows);
    let log = mesh.access_log();
    let has = |reason: &str| log.iter().any(|line| line["reason"] == reason);
    assert!(has("PLAINTEXT_REFUSED"), "{log:#?}");
    assert!(has("DENY_DEFAULT"), "{log:#?}");
}
