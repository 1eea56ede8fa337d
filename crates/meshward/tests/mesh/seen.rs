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

const DENIED: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: denied, namespace: m}
spec: {action: DENY, rules: [{to: [{operation: {paths: [/denied], ports: ['8000']}}]}]}
";

#[test]
fn top_shows_who_calls_whom_and_what_is_refused() {
    let Some(mesh) = start("top", &["--profile", "istio"]) else {
        return;
    };
    mesh.apply(DENIED);
    let script = "i=0; while [ $i -lt 40 ]; do curl -s -o /dev/null http://server:8000/ http://server:8000/denied; i=$((i+1)); done";
    std::thread::scope(|scope| {
        scope.spawn(|| mesh.exec("m", "client", &["sh", "-c", script]));
        let flow = (0..20)
            .map(|_| mesh.json(&["top", "--once", "--interval", "1s"]))
            .find_map(|told| {
                let flows = told["flows"].as_array()?.clone();
                flows
                    .into_iter()
                    .find(|flow| flow["sourceWorkload"] == "client" && flow["protocol"] == "http")
            })
            .unwrap_or_else(|| panic!("no call is seen"));
        assert_eq!(
            flow["destinationService"], "direct.m.svc.cluster.local",
            "{flow:#}"
        );
        assert_eq!(flow["security"], "mutual_tls", "{flow:#}");
        assert!(flow["requestsPerS"].as_f64().unwrap() > 0.5, "{flow:#}");
        assert!(flow["deniedPerS"].as_f64().unwrap() > 0.2, "{flow:#}");
        let (p50, p99) = (flow["p50Ms"].as_f64().unwrap(), flow["p99Ms"].as_f64().unwrap());
        assert!(p50 > 0.0 && p50 <= p99, "{flow:#}");
        let text = mesh.run(&["top", "--once", "-n", "m"]);
        assert!(
            text.stdout.contains("CALLER") || text.stdout.contains("nothing is called"),
            "{text:?}"
        );
        let none = mesh.json(&["top", "--once", "-n", "nowhere"]);
        assert_eq!(none["flows"], serde_json::json!([]));
    });
}

#[test]
fn refusals_are_followed_as_they_come() {
    use std::io::BufRead as _;
    let Some(mesh) = start("follow", &["--profile", "istio"]) else {
        return;
    };
    mesh.apply(DENIED);
    let mut follow = Command::new(mesh.program())
        .args(["logs", "--name", mesh.name(), "--denied", "-f", "-o", "json"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (send, lines) = std::sync::mpsc::channel();
    let out = std::io::BufReader::new(follow.stdout.take().unwrap());
    std::thread::spawn(move || {
        out.lines()
            .map_while(Result::ok)
            .for_each(|line| drop(send.send(line)))
    });
    for _ in 0..3 {
        assert_eq!(mesh.curl("m", "client", &["http://server:8000/"]).code, 200);
        assert_eq!(mesh.curl("m", "client", &["http://server:8000/denied"]).code, 403);
        // Packets that capture drops are refusals too, and come by themselves.
        let line = std::iter::from_fn(|| lines.recv_timeout(std::time::Duration::from_secs(20)).ok())
            .map(|line| serde_json::from_str::<Value>(&line).unwrap())
            .find(|line| line["path"] == "/denied" && line["reporter"] == "destination")
            .unwrap_or_else(|| panic!("no refusal is told"));
        assert_eq!(line["decision"], "deny", "{line:#}");
        assert_eq!(line["policy"]["name"], "denied", "{line:#}");
    }
    let _ = follow.kill();
    let _ = follow.wait();
}

const SECRETS: &str = r#"
apiVersion: v1
kind: Secret
metadata: {name: db, namespace: m}
stringData: {password: hunter2-secret}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: app, namespace: m}
data:
  key.pem: |
    -----BEGIN EC PRIVATE KEY-----
    aHVudGVyMi1wZW0=
    -----END EC PRIVATE KEY-----
  password: hunter2-config
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata:
  name: jwt
  namespace: m
  annotations: {meshward.dev/jwt-allow-hmac: "true"}
spec:
  jwtRules:
  - issuer: me
    jwks: '{"keys":[{"kty":"oct","alg":"HS256","kid":"a","k":"aHVudGVyMi1od2Fj"}]}'
"#;

#[test]
fn a_bundle_holds_what_helps_and_no_secret() {
    let Some(mesh) = start("bundle", &["--profile", "istio"]) else {
        return;
    };
    mesh.run_with(&["apply", "-f", "-"], SECRETS);
    let jwt = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJodW50ZXIyIn0.aHVudGVyMg";
    let bearer = format!("authorization: Bearer {jwt}");
    for words in [
        vec!["http://server:8000/a?access_token=hunter2-query"],
        vec!["-H", &bearer, "http://server:8000/b"],
        vec![
            "-H",
            "authorization: Basic aHVudGVyMi1iYXNpYw==",
            "http://server:8000/c",
        ],
    ] {
        mesh.curl("m", "client", &words);
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bundle.tar.gz");
    let told = mesh.json(&["dump", file.to_str().unwrap()]);
    assert_eq!(told["errors"], serde_json::json!([]), "{told:#}");
    let unpacked = Command::new("tar")
        .args(["-xzf", file.to_str().unwrap(), "--strip-components=1", "-C"])
        .arg(dir.path())
        .status()
        .unwrap();
    assert!(unpacked.success());
    for name in [
        "README.txt",
        "version.json",
        "info.json",
        "ports.json",
        "pods.json",
        "status.json",
        "objects.json",
        "errors.txt",
        "proxies/node-0/state.json",
        "proxies/node-1/access.jsonl",
        "snapshots/node-0.json",
        "metrics/control.txt",
        "metrics/ca.txt",
        "metrics/proxy-node-0.txt",
        "health/proxy-node-1.txt",
        "logs/control.log",
        "logs/proxy-node-0.log",
    ] {
        let found = std::fs::metadata(dir.path().join(name));
        assert!(found.is_ok_and(|found| found.len() > 0), "no {name}");
    }
    // Tokens of the mesh's own, and its keys, as they are on disk.
    let run = Path::new("/run/meshward").join(mesh.name());
    let mut own: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(run.join("tokens"))
        .into_iter()
        .flatten()
        .flatten()
    {
        own.push(std::fs::read_to_string(entry.path()).unwrap().trim().to_owned());
    }
    assert!(!own.is_empty() || !run.exists(), "there are tokens to look for");
    let mut files = vec![dir.path().to_owned()];
    let mut seen = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(
                std::fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            continue;
        }
        if path == file {
            continue;
        }
        seen += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.display();
        for secret in [
            "hunter2",
            "PRIVATE KEY",
            "aHVudGVyMi",
            "eyJhbGciOi",
            "Bearer ey",
            "Basic aH",
        ] {
            // What the bundle says of itself may name what it has not.
            let told = name.to_string().ends_with("README.txt");
            assert!(told || !text.contains(secret), "{secret} in {name}");
        }
        for token in &own {
            assert!(!text.contains(token.as_str()), "a token of the mesh in {name}");
        }
    }
    assert!(seen > 15, "{seen}");
    let again = mesh.run(&["dump", file.to_str().unwrap()]);
    assert_ne!(again.code, 0, "nothing is written over");
}
