//! A steady load while a node's proxy is replaced, restarted and killed.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use testkit::mesh::{Mesh, unavailable};

use crate::world::{own, program};

/// Requests of each kind a second, of each of two clients.
const RATE: &str = "5";

fn start(hint: &str, words: &[&str]) -> Option<Mesh> {
    if let Some(why) = unavailable() {
        println!("{why}");
        return None;
    }
    let world = own("crates/soak/src/world.yaml");
    Some(Mesh::start(program(), hint, &[&world], words))
}

/// The load of all clients.
struct Load(Vec<Child>);

/// What came of it.
#[derive(Debug, Default)]
struct Came {
    done: usize,
    /// Kind, milliseconds of Unix time, why.
    failed: Vec<(String, u64, String)>,
    /// Answers and the highest serial, by pod and kind.
    counted: BTreeMap<String, (u64, u64)>,
}

impl Load {
    fn begin(mesh: &Mesh, seconds: u32) -> Self {
        let rows = mesh.json(&["ps", "-n", "soak"]);
        let clients = rows
            .as_array()
            .unwrap()
            .iter()
            .filter(|row| row["workload"] == "client");
        let (exe, seconds) = (program().display().to_string(), seconds.to_string());
        let started = clients.map(|row| {
            let mut words = vec!["exec", "-n", "soak", row["name"].as_str().unwrap(), "--"];
            words.extend([exe.as_str(), "workload", "load", "--http", "server.soak:8080"]);
            words.extend(["--grpc", "server.soak:7070", "--tcp", "server.soak:9000"]);
            words.extend(["--rate", RATE, "--stream", "1500", "--for", &seconds]);
            let child = mesh.command(&words).stdout(Stdio::piped()).spawn();
            child.unwrap()
        });
        Self(started.collect())
    }

    fn end(self) -> Came {
        let mut came = Came::default();
        for child in self.0 {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success());
            let text = String::from_utf8(output.stdout).unwrap();
            let mut last = Value::Null;
            for line in text.lines() {
                last = serde_json::from_str(line).unwrap();
                came.done += last["done"].as_array().unwrap().len();
                let failed: Vec<_> = serde_json::from_value(last["failed"].clone()).unwrap();
                came.failed.extend(failed);
            }
            let counted: BTreeMap<String, (u64, u64)> =
                serde_json::from_value(last["counted"].clone()).unwrap();
            for (who, (answers, highest)) in counted {
                let of = came.counted.entry(who).or_default();
                *of = (of.0 + answers, of.1.max(highest));
            }
        }
        came
    }
}

impl Came {
    /// Nothing failed, and what the servers counted is what was answered: nothing came twice.
    fn is_whole(&self) {
        assert!(self.failed.is_empty(), "{:#?}", self.failed);
        assert!(self.done > 100, "{self:?}");
        let miscounted: Vec<_> = self
            .counted
            .iter()
            .filter(|(_, (answers, highest))| answers != highest)
            .collect();
        assert!(miscounted.is_empty(), "{miscounted:?}");
        // Seven kinds at two servers.
        assert_eq!(self.counted.len(), 14, "{:?}", self.counted);
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

fn pid(mesh: &Mesh, part: &str) -> u64 {
    mesh.json(&["info"])["processes"][part]
        .as_u64()
        .unwrap_or_default()
}

fn wait(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

#[test]
fn a_proxy_is_replaced_and_no_request_fails() {
    let Some(mesh) = start("replace", &["--leaf-lifetime", "10s"]) else {
        return;
    };
    let load = Load::begin(&mesh, 12);
    wait(3);
    let before = ["proxy-node-0", "proxy-node-1"].map(|part| pid(&mesh, part));
    let done = mesh.json(&["restart"]);
    assert_eq!(done[0]["how"], "replaced", "{done}");
    let after = ["proxy-node-0", "proxy-node-1"].map(|part| pid(&mesh, part));
    assert!(
        before
            .iter()
            .zip(&after)
            .all(|(old, new)| old != new && *new != 0)
    );
    wait(2);
    // Once more, while the first may still be leaving.
    assert_eq!(mesh.run(&["restart", "node-1"]).code, 0);
    load.end().is_whole();
    // Nobody's load is left: the old ones are gone.
    let gone = |pid: &u64| !std::path::Path::new(&format!("/proc/{pid}")).exists();
    testkit::mesh::within(Duration::from_secs(10), "the old proxies have left", || {
        before.iter().all(gone)
    });
}

#[test]
fn proxies_are_replaced_over_and_over_and_no_request_fails() {
    let Some(mesh) = start("again", &[]) else {
        return;
    };
    let load = Load::begin(&mesh, 26);
    wait(2);
    let begin = std::time::Instant::now();
    let mut replaced = 0;
    while begin.elapsed() < Duration::from_secs(18) {
        let done = mesh.json(&["restart"]);
        assert!(
            done[0]["how"] == "replaced" && done[1]["how"] == "replaced",
            "{done}"
        );
        replaced += 2;
    }
    let came = load.end();
    println!("{} requests while {replaced} proxies were replaced", came.done);
    came.is_whole();
}

#[test]
fn a_proxy_is_stopped_and_started_and_no_request_fails() {
    let Some(mesh) = start("stopped", &[]) else {
        return;
    };
    let load = Load::begin(&mesh, 12);
    wait(3);
    let done = mesh.json(&["restart", "--stop-first", "proxy-node-1"]);
    assert_eq!(done[0]["how"], "restarted", "{done}");
    load.end().is_whole();
}

#[test]
fn a_proxy_is_killed_and_only_what_was_open_breaks() {
    let Some(mesh) = start("killed", &[]) else {
        return;
    };
    let load = Load::begin(&mesh, 9);
    wait(3);
    let proxy = pid(&mesh, "proxy-node-1").to_string();
    let at = now();
    assert!(
        std::process::Command::new("kill")
            .args(["-9", &proxy])
            .status()
            .unwrap()
            .success()
    );
    let came = load.end();
    // What broke did so at that moment: who came after waited for the next one.
    let late: Vec<_> = came
        .failed
        .iter()
        .filter(|(_, ended, _)| *ended < at || *ended > at + 1000)
        .collect();
    assert!(late.is_empty(), "killed at {at}: {late:#?}");
    assert_ne!(pid(&mesh, "proxy-node-1").to_string(), proxy);
}

#[test]
fn a_proxy_that_cannot_be_ready_takes_nobodys_place() {
    let Some(mesh) = start("refuse", &[]) else {
        return;
    };
    let before = pid(&mesh, "proxy-node-0");
    // What does not run cannot be replaced, what is no proxy cannot either, and what is not there is named.
    let done = mesh.run(&["restart", "nobody"]);
    assert!(done.code == 1 && done.stderr.contains("proxy-node-0"), "{done:?}");
    let load = Load::begin(&mesh, 8);
    // What nobody has asked for yet is not known without a control plane.
    wait(2);
    // Without a control plane nothing new is ready: the one that runs goes on.
    let stop = |part: &str| {
        let control = pid(&mesh, part).to_string();
        let done = std::process::Command::new("kill")
            .args(["-STOP", &control])
            .status();
        assert!(done.unwrap().success());
        control
    };
    let control = stop("control");
    let done = mesh.run(&["restart", "node-0"]);
    let _ = std::process::Command::new("kill")
        .args(["-CONT", &control])
        .status();
    assert!(done.code == 2 && done.stderr.contains("goes on"), "{done:?}");
    assert_eq!(pid(&mesh, "proxy-node-0"), before);
    load.end().is_whole();
}

#[test]
fn a_soak_ends_without_a_failure() {
    if let Some(why) = unavailable() {
        println!("{why}");
        return;
    }
    // As long as its phases need, or longer; then with as many services at once as the figures have.
    let lasts = std::env::var("MESHWARD_SOAK").unwrap_or_else(|_| "52s".to_owned());
    let services = if lasts == "52s" { "100" } else { "1000" };
    let plot = tempfile::NamedTempFile::new().unwrap();
    let words = [
        "lab",
        "soak",
        "--for",
        &lasts,
        "--rate",
        "3",
        "--services",
        services,
        "-o",
        "json",
        "--plot",
    ];
    let output = std::process::Command::new(program())
        .args(words)
        .arg(plot.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert!(output.status.success() && report["good"] == true, "{report:#}");
    for phase in report["phases"].as_array().unwrap() {
        assert_eq!(phase["failures"], 0, "{phase}");
        assert!(phase["requests"].as_u64().unwrap() > 20, "{phase}");
        assert_eq!(phase["couldNot"], serde_json::json!([]), "{phase}");
    }
    assert!(std::fs::read_to_string(plot.path()).unwrap().starts_with("<svg"));
}

#[test]
fn a_proxy_that_stands_still_for_a_while_loses_nothing() {
    let Some(mesh) = start("still", &[]) else {
        return;
    };
    let load = Load::begin(&mesh, 8);
    wait(2);
    let proxy = pid(&mesh, "proxy-node-1").to_string();
    let signal = |name: &str| {
        let done = std::process::Command::new("kill").args([name, &proxy]).status();
        done.unwrap().success()
    };
    assert!(signal("-STOP"));
    wait(2);
    assert!(signal("-CONT"));
    load.end().is_whole();
}

#[test]
fn a_link_that_is_down_for_a_while_loses_nothing() {
    let Some(mesh) = start("link", &[]) else {
        return;
    };
    let load = Load::begin(&mesh, 10);
    wait(2);
    // The hub's end of the link to node 1: what crosses it is lost until it is up again.
    let hub = format!("mw-{}-hub", mesh.name());
    let ip = |words: &[&str]| {
        let output = std::process::Command::new("ip")
            .args(["-n", &hub])
            .args(words)
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let links = ip(&["-o", "link", "show", "type", "veth"]);
    let names = links
        .lines()
        .filter_map(|line| line.split(": ").nth(1)?.split('@').next());
    let link = names.max().unwrap().to_owned();
    ip(&["link", "set", &link, "down"]);
    wait(2);
    ip(&["link", "set", &link, "up"]);
    load.end().is_whole();
}
