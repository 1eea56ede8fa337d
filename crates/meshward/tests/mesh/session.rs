//! The session that the README shows, and Istio's own samples as they are.

use std::path::{Path, PathBuf};

use testkit::conformance;
use testkit::mesh::{Mesh, unavailable};

use crate::world::{own, program};

#[test]
fn the_session_of_the_readme() {
    if let Some(why) = unavailable() {
        println!("{why}");
        return;
    }
    let mesh = Mesh::start(program(), "session", &[&own("samples/httpbin")], &[]);
    let rows = mesh.json(&["ps", "-A"]);
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 4, "{rows:#?}");
    for row in rows {
        let full = row["namespace"] == "full";
        assert_eq!(row["inMesh"], full, "{row:#}");
        assert_eq!(row["ready"], true, "{row:#}");
        assert_eq!(row["mtls"].as_str(), full.then_some("STRICT"), "{row:#}");
        for field in ["name", "workload", "serviceAccount", "ip", "ip6", "netns"] {
            assert!(
                row[field].as_str().is_some_and(|t| !t.is_empty()),
                "{field}: {row:#}"
            );
        }
    }
    let said = mesh.curl("full", "sleep", &["http://httpbin:8000/headers"]);
    assert_eq!(said.code, 200, "{said:?}");
    assert!(
        said.body.contains("URI=spiffe://cluster.local/ns/full/sa/sleep"),
        "{said:?}"
    );
    let said = mesh.curl("legacy", "sleep", &["http://httpbin.full:8000/get"]);
    assert_eq!(said.code, 0, "{said:?}");
    let log = mesh.access_log();
    let refused = log.iter().find(|l| l["reason"] == "PLAINTEXT_REFUSED").unwrap();
    assert_eq!(refused["destination"]["namespace"], "full", "{refused:#}");
    assert_eq!(refused["decision"], "deny", "{refused:#}");
    let carried = log
        .iter()
        .find(|l| l["path"] == "/headers" && l["reporter"] == "destination")
        .unwrap();
    assert_eq!(
        carried["source"]["principal"], "spiffe://cluster.local/ns/full/sa/sleep",
        "{carried:#}"
    );
    assert_eq!(carried["decision"], "allow", "{carried:#}");
    assert!(carried["policy"]["name"].is_string(), "{carried:#}");
    let text = mesh.run(&["logs", "-n", "full", "httpbin", "--access"]);
    assert!(text.stdout.contains("PLAINTEXT_REFUSED"), "{text:?}");
    let metrics = mesh.run(&["metrics"]);
    assert!(metrics.stdout.contains("istio_requests_total{"), "{metrics:?}");
    assert!(
        metrics
            .stdout
            .contains("connection_security_policy=\"mutual_tls\""),
        "{metrics:?}"
    );
}

#[test]
fn istios_own_samples_run_as_they_are() {
    let Some(samples) = conformance::directory().map(|d| d.join("samples")) else {
        return;
    };
    if let Some(why) = unavailable() {
        println!("{why}");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let label = directory.path().join("default.yaml");
    std::fs::write(
        &label,
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: default, labels: {istio-injection: enabled}}\n",
    )
    .unwrap();
    let mut sources: Vec<PathBuf> = vec![label];
    for sample in [
        "httpbin/httpbin.yaml",
        "sleep/sleep.yaml",
        "curl/curl.yaml",
        "tcp-echo/tcp-echo.yaml",
    ] {
        let path = samples.join(sample);
        if path.is_file() {
            sources.push(path);
        } else {
            println!("skipped: no {}", path.display());
        }
    }
    let sources: Vec<&Path> = sources.iter().map(PathBuf::as_path).collect();
    let mesh = Mesh::start(program(), "samples", &sources, &["--profile", "istio"]);
    for client in ["sleep", "curl"] {
        let said = mesh.curl("default", client, &["http://httpbin:8000/get"]);
        assert_eq!(said.code, 200, "{client}: {said:?}");
    }
    let me = program().display().to_string();
    let done = mesh.exec(
        "default",
        "curl",
        &[
            &me,
            "workload",
            "probe",
            "tcp",
            "--addr",
            "tcp-echo:9000",
            "--send",
            "world\n",
        ],
    );
    assert!(done.stdout.contains("hello world"), "{done:?}");
}

#[test]
fn what_up_calls_ready_answers_to_pods_outside_the_mesh_at_once() {
    if let Some(why) = unavailable() {
        println!("{why}");
        return;
    }
    const SERVICES: usize = 300;
    let mut world = String::from(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: legacy}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {name: client, namespace: legacy, labels: {app: client}}\n\
         spec: {containers: [{name: c, image: curlimages/curl}]}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {name: server, namespace: legacy, labels: {app: server}}\n\
         spec: {containers: [{name: c, image: kennethreitz/httpbin, ports: [{containerPort: 8000}]}]}\n",
    );
    for number in 0..SERVICES {
        world.push_str(&format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{number}, namespace: legacy}}\n\
             spec: {{selector: {{app: server}}, ports: [{{port: 80, targetPort: 8000}}]}}\n"
        ));
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("world.yaml");
    std::fs::write(&file, world).unwrap();
    let mesh = Mesh::start(program(), "outsiders", &[&file], &[]);
    // The newest is what a table that is behind lacks.
    for number in [SERVICES - 1, 0] {
        let said = mesh.curl("legacy", "client", &[&format!("http://s{number}/get")]);
        assert_eq!(said.code, 200, "s{number}: {said:?}");
    }
}
