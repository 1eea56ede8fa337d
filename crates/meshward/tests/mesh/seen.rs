//! What can be seen of a mesh from outside: ports, pages, metrics, logs without secrets.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use testkit::mesh::Mesh;

use crate::world::start;

/// Runs a program in a network namespace; `None` where that has no name here.
fn inside(netns: &str, program: &[&str]) -> Option<String> {
    if !Path::new("/run/netns").join(netns).exists() {
        println!("skipped: no network namespace `{netns}` by name");
        return None;
    }
    let output = Command::new("ip")
        .args(["netns", "exec", netns])
        .args(program)
        .output()
        .unwrap();
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn ports(mesh: &Mesh) -> Vec<Value> {
    mesh.json(&["ports"]).as_array().unwrap().clone()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap()
}

/// Every part's pages: its name, the hub's namespace, and the address.
fn pages(mesh: &Mesh) -> Vec<(String, String)> {
    let ports = ports(mesh);
    let pages = ports
        .iter()
        .filter(|port| text(port, "purpose").starts_with("metrics"));
    pages
        .map(|port| (text(port, "part").to_owned(), text(port, "address").to_owned()))
        .collect()
}

#[test]
fn every_port_that_a_part_listens_on_is_listed_and_no_other() {
    let Some(mesh) = start("ports", &[]) else { return };
    let ports = ports(&mesh);
    let spaces: BTreeSet<&str> = ports.iter().map(|port| text(port, "netns")).collect();
    // The hub and two nodes.
    assert_eq!(spaces.len(), 3, "{spaces:?}");
    for netns in spaces {
        let Some(said) = inside(netns, &["ss", "-H", "-l", "-n", "-t", "-u"]) else {
            return;
        };
        let kernel: BTreeSet<(String, String)> = said
            .lines()
            .map(|line| {
                let fields: Vec<&str> = line.split_ascii_whitespace().collect();
                (fields[0].to_owned(), fields[4].to_owned())
            })
            .collect();
        let listed: BTreeSet<(String, String)> = ports
            .iter()
            .filter(|port| text(port, "netns") == netns)
            .map(|port| {
                (
                    text(port, "transport").to_owned(),
                    text(port, "address").to_owned(),
                )
            })
            .collect();
        assert_eq!(kernel, listed, "{netns}");
    }
    for port in &ports {
        for field in ["part", "purpose", "reach", "authentication"] {
            assert!(!text(port, field).is_empty(), "{field}: {port:#}");
        }
    }
}

#[test]
fn every_part_says_that_it_is_ready_and_serves_nothing_but_its_pages() {
    let Some(mesh) = start("pages", &[]) else { return };
    let hub = format!("mw-{}-hub", mesh.name());
    let pages = pages(&mesh);
    let parts: BTreeSet<&str> = pages.iter().map(|(part, _)| part.as_str()).collect();
    let wanted = ["ca", "control", "proxy-node-0", "proxy-node-1"];
    assert_eq!(parts, wanted.into_iter().collect());
    for (part, address) in &pages {
        let get = |path: &str, more: &[&str]| {
            let url = format!("http://{address}{path}");
            let mut words = vec!["curl", "-s", "-m", "5", "-o", "-", "-w", "\n%{http_code}", &url];
            words.extend_from_slice(more);
            inside(&hub, &words)
        };
        for (path, status, begins) in [
            ("/healthz/ready", "200", "ready\n"),
            ("/healthz/live", "200", "live\n"),
            ("/metrics", "200", "# HELP "),
            ("/debug/config_dump", "404", "not found\n"),
        ] {
            let Some(said) = get(path, &[]) else { return };
            assert!(said.starts_with(begins), "{part} {path}: {said}");
            assert!(said.ends_with(&format!("\n{status}")), "{part} {path}: {said}");
        }
        let said = get("/metrics", &["-X", "POST"]).unwrap();
        assert!(said.ends_with("\n405"), "{part}: {said}");
    }
}

#[test]
fn the_metrics_of_every_part_are_at_hand() {
    let Some(mesh) = start("meters", &[]) else { return };
    let texts = mesh.json(&["metrics"]);
    for (part, samples) in [
        (
            "control",
            [
                "pilot_xds{} 2.0",
                "pilot_xds_pushes{type=",
                "istio_build{component=\"pilot\"",
                "pilot_proxy_convergence_time_bucket{",
            ],
        ),
        (
            "ca",
            [
                "citadel_server_csr_count{} ",
                "citadel_server_success_cert_issuance_count{} ",
                "citadel_server_root_cert_expiry_timestamp{} ",
                "process_resident_memory_bytes ",
            ],
        ),
        (
            "node-0",
            [
                "envoy_cluster_upstream_cx_active{cluster_name=\"xds-grpc\"} 1",
                "istio_build{component=\"proxy\"",
                "meshward_denials_total{",
                "process_cpu_seconds_total ",
            ],
        ),
    ] {
        let told = texts[part]
            .as_str()
            .unwrap_or_else(|| panic!("{part}: {texts:#}"));
        for sample in samples {
            let found = told.lines().any(|line| line.starts_with(sample));
            assert!(found, "{part}: no {sample}: {told}");
        }
    }
    let one = mesh.run(&["metrics", "ca"]);
    assert!(one.stdout.contains("citadel_server_csr_count{} "), "{one:?}");
}

#[test]
fn a_token_in_a_query_is_in_nobodys_log() {
    let Some(mesh) = start("redact", &["--profile", "istio"]) else {
        return;
    };
    let jwt = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2lnbmF0dXJl";
    let url = format!("http://server:8000/a?x=1&access_token=hunter2&mine={jwt}");
    let said = mesh.curl("m", "client", &[&url]);
    assert_eq!(said.code, 200, "{said:?}");
    let log = mesh.access_log();
    for reporter in ["source", "destination"] {
        let line = log
            .iter()
            .find(|line| {
                line["reporter"] == reporter
                    && line["path"]
                        .as_str()
                        .is_some_and(|path| path.starts_with("/a?x=1"))
            })
            .unwrap_or_else(|| panic!("no line of the {reporter}: {log:#?}"));
        let wanted = "/a?x=1&access_token=REDACTED&mine=REDACTED";
        assert_eq!(line["path"], wanted, "{line:#}");
    }
    let all = mesh.run(&["logs", "--access"]).stdout;
    assert!(!all.contains("hunter2") && !all.contains(jwt), "{all}");
}
