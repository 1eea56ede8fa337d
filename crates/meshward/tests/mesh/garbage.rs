//! Garbage on every port that listens: nothing breaks, nothing leaks, nothing grows.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use testkit::mesh::{Mesh, within};

use crate::world::{How, attempt, program, start};

/// How much a process may have grown, KiB: what it keeps to be told or used again has bounds.
const GROWTH: u64 = 64 * 1024;
/// How many descriptors more it may have: kept connections, and those that close just now.
const DESCRIPTORS: usize = 40;

struct Process {
    part: String,
    pid: u64,
    rss: u64,
    fds: usize,
}

fn processes(mesh: &Mesh) -> Vec<Process> {
    let info = mesh.json(&["info"]);
    let all = info["processes"].as_object().unwrap().iter();
    let process = |(part, pid): (&String, &Value)| {
        let pid = pid.as_u64().unwrap();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        Process {
            part: part.clone(),
            pid,
            rss: rss.unwrap_or_default(),
            fds: std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count),
        }
    };
    all.map(process).collect()
}

/// How long each port is talked to.
fn seconds() -> String {
    std::env::var("MESHWARD_GARBAGE_SECONDS").unwrap_or_else(|_| "2".to_owned())
}

fn words(to: &str, more: &[&str]) -> Vec<String> {
    let exe = program().display().to_string();
    let seconds = seconds();
    let words = [&exe, "workload", "garbage", "--for", &seconds, "--to", to];
    words.iter().chain(more).map(|word| (*word).to_owned()).collect()
}

/// What was said from a pod, as the client tells it.
fn from_pod(mesh: &Mesh, namespace: &str, to: &str, more: &[&str]) -> Value {
    let words = words(to, more);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = mesh.exec(namespace, "client", &words);
    serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{to}: {error}: {done:?}"))
}

#[test]
fn garbage_on_every_port_breaks_nothing_and_leaves_nothing() {
    let Some(mesh) = start("garbage", &["--profile", "istio"]) else {
        return;
    };
    assert_eq!(attempt(&mesh, "m", How::Http, "server.m:8000"), "ok");
    let before = processes(&mesh);
    // What pods reach: captured on the way out and on the way in, of every protocol, and DNS.
    let server = mesh.pod("m", "server").unwrap();
    let ip = server["ip"].as_str().unwrap();
    let inside = [8000, 8070, 7000, 8100, 15008].map(|port| format!("{ip}:{port}"));
    let services = ["server.m:8000".to_owned(), "server.m:9000".to_owned()];
    for (namespace, all) in [("m", services.as_slice()), ("legacy", inside.as_slice())] {
        for to in all {
            let said = from_pod(&mesh, namespace, to, &[]);
            assert!(said["connections"].as_u64() > Some(5), "{namespace} {to}: {said}");
        }
    }
    // Whatever server is asked, the proxy answers.
    for more in [&["--udp"] as &[&str], &[]] {
        let said = from_pod(&mesh, "m", "192.0.2.53:53", more);
        assert!(said["connections"].as_u64() > Some(5), "DNS {more:?}: {said}");
    }
    // What nodes reach: certificates, configuration, metrics.
    for port in mesh.json(&["ports"]).as_array().unwrap() {
        let address = port["address"].as_str().unwrap();
        if address.starts_with("127.") || address.starts_with("[::1]") {
            continue;
        }
        let netns = format!("--net=/run/netns/mw-{}-n0", mesh.name());
        let output = Command::new("nsenter")
            .arg(netns)
            .args(words(address, &[]))
            .output()
            .unwrap();
        let said: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{address}: {e}: {output:?}"));
        assert!(said["connections"].as_u64() > Some(5), "{address}: {said}");
    }
    within(
        Duration::from_secs(30),
        "descriptors are given back, and nothing has grown",
        || {
            let after = processes(&mesh);
            before.iter().zip(&after).all(|(before, after)| {
                assert_eq!(
                    (&before.part, before.pid),
                    (&after.part, after.pid),
                    "a process has ended"
                );
                after.fds <= before.fds + DESCRIPTORS && after.rss <= before.rss + GROWTH
            })
        },
    );
    for part in ["ca", "control", "proxy-node-0", "proxy-node-1"] {
        let logs = std::path::Path::new("/run/meshward")
            .join(mesh.name())
            .join("logs");
        let text = std::fs::read_to_string(logs.join(format!("{part}.log"))).unwrap_or_default();
        assert!(!text.contains("this is a fault of meshward"), "{part}: {text}");
    }
    assert_eq!(attempt(&mesh, "m", How::Http, "server.m:8000"), "ok");
    assert_eq!(attempt(&mesh, "m", How::Grpc, "server.m:8070"), "ok");
}
