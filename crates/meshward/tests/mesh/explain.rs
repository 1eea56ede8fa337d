//! What explains, asked of a running mesh: it must say what the mesh does.

use serde_json::Value;

use crate::world::{How, attempt, start};

const POLICY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: allow, namespace: m}\nspec:\n  selector: {matchLabels: {app: server}}\n  rules:\n  - from: [{source: {serviceAccounts: [m/client]}}]\n    to: [{operation: {paths: [/open*], methods: [GET]}}]\n  - from: [{source: {serviceAccounts: [m/client]}}]\n    to: [{operation: {ports: [\"7000\"]}}]\n";

#[test]
fn can_i_says_what_the_mesh_then_does_and_why_explains_what_it_did() {
    let Some(mesh) = start("explain", &[]) else {
        return;
    };
    mesh.apply(POLICY);
    let mut wrong = Vec::new();
    for (account, path) in [
        ("client", "/open/x"),
        ("client", "/closed"),
        ("client", "/open/../closed"),
        ("client", "/closed//x"),
        ("other", "/open/x"),
    ] {
        let got = mesh.curl(
            "m",
            account,
            &["--path-as-is", &format!("http://server.m:8000{path}")],
        );
        let from = format!("m/{account}");
        let said = mesh.run(&[
            "can-i",
            "-o",
            "json",
            "--from",
            &from,
            "--to",
            "m/server:8000",
            "--path",
            path,
        ]);
        let answer: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|e| panic!("{e}: {said:?}"));
        let code = u64::from(got.code);
        if answer["code"].as_u64() != Some(code) {
            wrong.push(format!("{account} {path}: the mesh {code}, can-i {answer}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // By the id that the caller got.
    let got = mesh.curl("m", "other", &["-i", "http://server.m:8000/open"]);
    assert_eq!(got.code, 403);
    let denied = |log: &Value| log["decision"] == "deny" && log["destination"]["namespace"] == "m";
    let last = |log: Vec<Value>| log.into_iter().rfind(denied).unwrap();
    let line = last(mesh.access_log());
    let id = line["decisionId"].as_str().unwrap().to_owned();
    // The policy of today is another one; the explanation is of the one that decided.
    mesh.delete(POLICY);
    let said = mesh.run(&["why", &id]);
    assert_eq!(said.code, 0, "{said:?}");
    for part in [
        "m/other",
        "GET /open",
        "DENY_NO_ALLOW (403)",
        "closest: AuthorizationPolicy m/allow rule 0",
        "serviceAccounts: `m/other` of trust domain `cluster.local` is not among `m/client`",
    ] {
        assert!(said.stdout.contains(part), "{part}: {}", said.stdout);
    }
    let by_request = line["requestId"].as_str().unwrap();
    let said = mesh.json(&["why", by_request]);
    assert_eq!(said[0]["id"], id.as_str());

    // A connection of bytes has its id in the log.
    mesh.apply(POLICY);
    assert_eq!(attempt(&mesh, "m", How::Tcp, "server.m:7000"), "ok");
    let program = mesh.program().display().to_string();
    let words = [&program, "workload", "probe", "tcp", "--addr", "server.m:7000"];
    let done = mesh.exec("m", "other", &words);
    assert!(
        done.stdout.contains("reset") || done.stdout.contains("closed"),
        "{done:?}"
    );
    let said = mesh.json(&["why", "--last", "-n", "m", "server"]);
    assert_eq!(said[0]["port"], 7000, "{said}");
    assert_eq!(said[0]["request"], Value::Null);

    let said = mesh.run(&["explain", "policy", "-n", "m", "svc/server"]);
    assert!(said.stdout.contains("ALLOW  m/allow  rule 0"), "{said:?}");
    assert_eq!(mesh.run(&["why", "nobody-was-told-this"]).code, 1);
}
