//! Policy on HTTP, gRPC and TCP, in both families, over replicas, and on connections that are already open.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::world::{How, attempt, compare, start};

/// Opens a namespace to one caller.
fn allow(extra: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: allow, namespace: m}}\nspec:\n  selector: {{matchLabels: {{app: server}}}}\n  rules:\n  - from: [{{source: {{principals: [cluster.local/ns/m/sa/client]}}}}]\n{extra}"
    )
}

#[test]
fn one_caller_is_admitted_and_the_other_is_not() {
    let Some(mesh) = start("policy", &[]) else {
        return;
    };
    mesh.apply(&allow(""));
    let mut rows = Vec::new();
    for (how, to) in [
        (How::Http, "server.m:8000"),
        (How::Http2, "server.m:8000"),
        (How::Grpc, "server.m:8070"),
        (How::Tcp, "server.m:7000"),
        (How::Http, "server.m:8100"),
        (How::Tcp, "server.m:8101"),
        (How::Http, "direct.m:8000"),
        (How::Tcp, "direct.m:7000"),
    ] {
        let got = attempt(&mesh, "m", how, to);
        rows.push((format!("client {how:?} {to}"), "ok".to_owned(), got));
    }
    let other = |words: &[&str]| mesh.curl("m", "other", words);
    for family in ["-4", "-6"] {
        let got = mesh.curl("m", "client", &[family, "http://server.m:8000/"]);
        rows.push((format!("client {family}"), "200".to_owned(), got.code.to_string()));
        let got = other(&[family, "http://server.m:8000/"]);
        rows.push((format!("other {family}"), "403".to_owned(), got.code.to_string()));
        rows.push((
            format!("other {family} body"),
            "RBAC: access denied".to_owned(),
            got.body.clone(),
        ));
    }
    compare(rows);
    let denied = mesh.exec(
        "m",
        "other",
        &[&program(), "workload", "probe", "grpc", "--addr", "server.m:8070"],
    );
    assert!(denied.stdout.contains("PermissionDenied"), "{denied:?}");
    let denied = mesh.exec(
        "m",
        "other",
        &[&program(), "workload", "probe", "tcp", "--addr", "server.m:7000"],
    );
    assert!(
        denied.stdout.contains("reset") || denied.stdout.contains("closed"),
        "{denied:?}"
    );
    // The identity arrives, and one that the caller made up does not.
    let said = mesh.curl(
        "m",
        "client",
        &[
            "-H",
            "X-Forwarded-Client-Cert: By=spiffe://evil;URI=spiffe://evil/admin",
            "http://server.m:8000/",
        ],
    );
    assert!(
        said.body.contains("URI=spiffe://cluster.local/ns/m/sa/client"),
        "{said:?}"
    );
    assert!(
        said.body.contains("By=spiffe://cluster.local/ns/m/sa/server"),
        "{said:?}"
    );
    assert!(!said.body.contains("evil"), "{said:?}");
}

fn program() -> String {
    crate::world::program().display().to_string()
}

#[test]
fn requests_are_spread_over_replicas_on_both_nodes() {
    let Some(mesh) = start("spread", &["--profile", "istio"]) else {
        return;
    };
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..24 {
        let said = mesh.curl("m", "client", &["http://server.m:8000/"]);
        assert_eq!(said.code, 200, "{said:?}");
        let host = said
            .body
            .lines()
            .find_map(|l| l.strip_prefix("Hostname="))
            .unwrap()
            .to_owned();
        *seen.entry(host).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
    let rows = mesh.json(&["ps", "-n", "m"]);
    let nodes: std::collections::BTreeSet<_> = rows
        .as_array()
        .unwrap()
        .iter()
        .filter(|r| r["workload"] == "server")
        .map(|r| r["node"].to_string())
        .collect();
    assert_eq!(nodes.len(), 2, "{rows:#}");
}

#[test]
fn paths_and_methods_decide_and_the_near_tricks_do_not_help() {
    let Some(mesh) = start("paths", &[]) else {
        return;
    };
    mesh.apply(&allow(
        "    to: [{operation: {methods: [GET], paths: [/public/*]}}]\n",
    ));
    let code = |words: &[&str]| mesh.curl("m", "client", words).code;
    assert_eq!(code(&["http://server.m:8000/public/a?b=c"]), 200);
    assert_eq!(code(&["http://server.m:8000/private"]), 403);
    assert_eq!(code(&["-X", "POST", "http://server.m:8000/public/a"]), 403);
    for trick in [
        "/public/../private",
        "/public/%2e%2e/private",
        "/public/..%2fprivate",
        "/public/..;/private",
    ] {
        let got = code(&["--path-as-is", &format!("http://server.m:8000{trick}")]);
        assert!(got == 403 || got == 400, "{trick}: {got}");
    }
}

/// Talks to a TCP port for as long as it is let: returns when the connection is gone, or after the time.
fn open_connection(mesh: &testkit::mesh::Mesh, to: &str) -> std::process::Child {
    let (host, port) = to.split_once(':').unwrap();
    let script = format!(
        "exec 3<>/dev/tcp/{host}/{port}; echo hello >&3; while read -r -t 30 line <&3; do echo \"$line\"; done; echo gone"
    );
    mesh.command(&["exec", "-n", "m", "client", "--", "bash", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

#[test]
fn p55_a_policy_change_closes_open_connections() {
    let Some(mesh) = start("open", &[]) else {
        return;
    };
    mesh.apply(&allow(""));
    let mut child = open_connection(&mesh, "server.m:7000");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The echo has come back: the connection is open.
    let until_hello = lines.by_ref().map(Result::unwrap).find(|l| l.contains("hello"));
    assert!(until_hello.is_some());
    let denied = Instant::now();
    let denial = allow("")
        .replace("metadata: {name: allow", "metadata: {name: deny")
        .replace("spec:\n", "spec:\n  action: DENY\n");
    mesh.apply(&denial);
    let applied = denied.elapsed();
    assert!(lines.map(Result::unwrap).any(|l| l == "gone"));
    let closed = denied.elapsed();
    child.wait().unwrap();
    println!("apply returned after {applied:?}, the connection was closed after {closed:?}");
    assert!(closed < Duration::from_secs(3), "{closed:?}");
    assert_eq!(attempt(&mesh, "m", How::Tcp, "server.m:7000"), "refused");
    assert_eq!(attempt(&mesh, "m", How::Http, "server.m:8000"), "403");
    let log = mesh.access_log();
    assert!(
        log.iter().any(|line| line["reason"] == "POLICY_CHANGED"),
        "{log:#?}"
    );
    mesh.delete(&denial);
    assert_eq!(attempt(&mesh, "m", How::Http, "server.m:8000"), "ok");
}

#[test]
fn a_policy_that_is_invalid_denies_and_is_shown() {
    let Some(mesh) = start("invalid", &[]) else {
        return;
    };
    mesh.apply(&allow(""));
    assert_eq!(attempt(&mesh, "m", How::Http, "server.m:8000"), "ok");
    let broken = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: broken, namespace: m}\nspec:\n  action: DENY\n  rules:\n  - from: [{source: {ipBlocks: [not-an-address]}}]\n";
    let done = mesh.run_with(&["apply", "-f", "-"], broken);
    assert_eq!(done.code, 65, "{done:?}");
    let said = format!("{}{}", done.stdout, done.stderr);
    assert!(
        said.contains("rejected") && said.contains("<stdin>:7:") && said.contains("not-an-address"),
        "{said}"
    );
    assert_eq!(attempt(&mesh, "m", How::Http, "server.m:8000"), "403");
    let status = mesh.json(&["status"]);
    assert!(status.to_string().contains("\"rejected\""), "{status:#}");
    mesh.delete(broken);
    assert_eq!(attempt(&mesh, "m", How::Http, "server.m:8000"), "ok");
}

#[test]
fn exec_passes_streams_and_exit_codes_through() {
    let Some(mesh) = start("exec", &[]) else {
        return;
    };
    let done = mesh.exec("m", "client", &["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(
        (done.code, done.stdout.as_str(), done.stderr.as_str()),
        (7, "out\n", "err\n")
    );
    let mut child = mesh
        .command(&["exec", "-i", "-n", "m", "client", "--", "tr", "a-z", "A-Z"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"through\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"THROUGH\n");
    let done = mesh.exec("m", "nobody", &["true"]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stderr.contains("nobody"), "{done:?}");
}

#[test]
fn p_18_a_tenant_cannot_grant_more_than_the_ceiling_nor_lower_the_floor() {
    let Some(mesh) = start("ceiling", &["--profile", "istio"]) else {
        return;
    };
    mesh.apply(
        "apiVersion: meshward.dev/v1alpha1
kind: Guardrail
metadata: {name: tenants, namespace: istio-system}
spec:
  namespaces: [m]
  mtls: {mode: STRICT}
  deny: [{to: [{operation: {paths: [/internal]}}]}]
  ceiling: [{from: [{source: {principals: [cluster.local/ns/m/sa/client]}}]}]
",
    );
    let tenant = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: open, namespace: m}
spec: {rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: weak, namespace: m}
spec: {mtls: {mode: DISABLE}}
";
    // It is taken, and held to the guardrail, which is said.
    let done = mesh.run_with(&["apply", "-f", "-"], tenant);
    assert!(done.code == 1 && done.stdout.contains("(floor)"), "{done:?}");
    let code = |namespace: &str, from: &str, url: &str| mesh.curl(namespace, from, &[url]).code;
    assert_eq!(code("m", "client", "http://server.m:8000/"), 200);
    assert_eq!(code("m", "other", "http://server.m:8000/"), 403);
    assert_eq!(code("m", "client", "http://server.m:8000/internal"), 403);
    assert_eq!(code("legacy", "client", "http://server.m:8000/"), 0, "plaintext");
    let status = mesh.json(&["status"]);
    let why = |name: &str| {
        let objects = status["objects"].as_array().unwrap();
        let found = objects.iter().find(|o| o["name"] == name);
        found.unwrap_or_else(|| panic!("{status:#}"))["why"].to_string()
    };
    assert!(
        why("open")
            .contains("clamped by the ceiling of Guardrail `istio-system/tenants`: for example `GET /`"),
        "{}",
        why("open")
    );
    assert!(
        why("weak").contains("DISABLE held to the floor STRICT"),
        "{}",
        why("weak")
    );
    let denied = mesh.json(&["logs", "--denied"]);
    assert!(
        denied.to_string().contains("guardrail:tenants:ceiling"),
        "{denied:#}"
    );
}
