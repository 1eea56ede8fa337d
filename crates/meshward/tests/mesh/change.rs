//! Nothing fails while things change: certificates and roots rotated, the control plane and the certificate authority away,
//! under a steady load that is counted at both ends. Faults are real: SIGKILL, SIGSTOP, a full disk.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::mesh::{Mesh, unavailable, within};

use crate::world::program;

/// A caller on one node, a callee on the other, and a policy that admits the one to the other.
const WORLD: &str = "apiVersion: v1
kind: Namespace
metadata: {name: m, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: m}
spec:
  nodeName: node-0
  serviceAccountName: client
  containers: [{name: c, image: curlimages/curl, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: m, labels: {app: server}}
spec:
  nodeName: node-1
  serviceAccountName: server
  containers: [{name: c, image: traffic, ports: [{containerPort: 8000}, {containerPort: 9000}]}]
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: m}
spec:
  selector: {app: server}
  ports: [{name: http, port: 8000}, {name: tcp, port: 9000}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: client, namespace: m}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: server, namespace: m}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: client, namespace: m}
spec:
  rules: [{from: [{source: {principals: [cluster.local/ns/m/sa/client]}}]}]
";

struct World {
    mesh: Mesh,
    _dir: tempfile::TempDir,
}

/// The world, with certificates of that lifetime; `None` after saying why where it cannot be.
fn start(hint: &str, lifetime: &str) -> Option<World> {
    if let Some(why) = unavailable() {
        println!("{why}");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("world.yaml");
    std::fs::write(&path, WORLD).unwrap();
    let image = format!("traffic={} workload traffic serve 8000 9000", program().display());
    let words = ["--leaf-lifetime", lifetime, "--image", &image];
    let mesh = Mesh::start(program(), hint, &[&path], &words);
    Some(World { mesh, _dir: dir })
}

/// A load that runs.
struct Load {
    child: Child,
    until: Instant,
}

impl World {
    fn load(&self, seconds: u64) -> Load {
        let program = program().display().to_string();
        let seconds_text = seconds.to_string();
        let words = [
            "exec",
            "-n",
            "m",
            "client",
            "--",
            &program,
            "workload",
            "traffic",
            "call",
            "--http",
            "server:8000",
            "--tcp",
            "server:9000",
            "--every",
            "40",
            "--for",
            &seconds_text,
        ];
        let mut command = self.mesh.command(&words);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Load {
            child,
            until: Instant::now() + Duration::from_secs(seconds),
        }
    }

    /// What the server has counted.
    fn counts(&self) -> Value {
        let said = self.mesh.curl("m", "client", &["http://server:8000/counts"]);
        serde_json::from_str(&said.body).unwrap_or_else(|error| panic!("{error}: {said:?}"))
    }

    fn ca(&self) -> Value {
        self.mesh.json(&["ca", "status"])
    }

    fn stage(&self) -> String {
        let done = self.mesh.run(&["ca", "status", "-o", "json"]);
        let status: Value = serde_json::from_str(&done.stdout).unwrap_or_default();
        status["stage"].as_str().unwrap_or_default().to_owned()
    }

    fn pid(&self, part: &str) -> Option<u64> {
        self.mesh.json(&["info"])["processes"][part].as_u64()
    }

    fn signal(&self, part: &str, signal: &str) {
        let pid = self.pid(part).unwrap().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Ends a part and waits until the lab has started another.
    fn kill(&self, part: &str) {
        let before = self.pid(part).unwrap();
        self.signal(part, "-KILL");
        within(Duration::from_secs(20), "the part is there again", || {
            self.pid(part).is_some_and(|pid| pid != before)
        });
    }

    /// The configuration of a part: without it, it cannot be started again.
    fn config(&self, part: &str) -> PathBuf {
        let pid = self.pid(part).unwrap();
        let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        let words: Vec<&str> = words.split('\0').collect();
        let at = words.iter().position(|word| *word == "--config").unwrap();
        PathBuf::from(words[at + 1])
    }

    /// The value of a metric of a node's proxy; of the first series that begins so.
    fn metric(&self, node: &str, series: &str) -> f64 {
        let text = self.mesh.run(&["metrics", node]).stdout;
        let line = text.lines().find(|line| line.starts_with(series));
        let value = line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok());
        value.unwrap_or_else(|| panic!("no {series} in {text}"))
    }

    fn status(&self) -> String {
        let done = self.mesh.run(&["status"]);
        done.stdout + &done.stderr
    }
}

impl Load {
    fn lasts(&self) -> bool {
        Instant::now() < self.until
    }

    /// What was counted by the caller.
    fn end(self) -> Value {
        let output = self.child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{error}: {text} {}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// Sees that nothing failed, and that the callee got exactly what was sent. `before` is what it had counted before.
fn nothing_failed(counted: &Value, before: &Value, after: &Value) {
    let mut sums = [0_u64; 3];
    for (name, way) in counted.as_object().unwrap() {
        assert_eq!(way["sent"], way["good"], "{name}: {counted:#}");
        assert!(way["sent"].as_u64().unwrap() > 50, "{name}: {counted:#}");
        let at = ["http1", "http2", "tcp"]
            .iter()
            .position(|way| name.starts_with(way))
            .unwrap();
        sums[at] += way["sent"].as_u64().unwrap();
    }
    let got = |what: &str| after[what].as_u64().unwrap() - before[what].as_u64().unwrap();
    // Asking for the counts is not counted.
    assert_eq!(
        sums,
        [got("http1"), got("http2"), got("tcp")],
        "{counted:#}\n{before} {after}"
    );
    println!("{sums:?} requests (HTTP/1.1, HTTP/2, lines), none failed");
}

/// What must hold at any time of a rotation.
fn sound(status: &Value) {
    let roots = status["roots"].as_array().unwrap();
    let holders = status["holders"].as_array().unwrap();
    // One that is stopped for the moment says nothing.
    let there = holders.iter().filter(|holder| holder["away"].is_null()).count();
    let all = u64::try_from(there).unwrap();
    match status["stage"].as_str().unwrap() {
        "distributing" => {
            assert_eq!(roots.len(), 2, "{status:#}");
            assert_eq!(
                (&roots[0]["signs"], &roots[1]["signs"]),
                (&true.into(), &false.into())
            );
            assert_eq!(
                roots[1]["certificates"], 0,
                "signed before it was trusted: {status:#}"
            );
        }
        "renewing" => assert_eq!(roots[0]["trustedBy"].as_u64(), Some(all), "{status:#}"),
        _ => {
            assert_eq!(roots.len(), 1, "{status:#}");
            let held: u64 = holders.iter().map(|h| h["valid"].as_u64().unwrap()).sum();
            assert_eq!(
                roots[0]["certificates"].as_u64(),
                Some(held),
                "withdrawn too early: {status:#}"
            );
        }
    }
}

#[test]
fn the_root_is_rotated_through_both_stages_under_load_and_nothing_fails() {
    let Some(world) = start("rotate", "10s") else {
        return;
    };
    let before = world.counts();
    let load = world.load(50);
    let mut signing = world.ca()["roots"][0]["fingerprint"].clone();
    let mut seen = Vec::new();
    let mut rotations = 0;
    while load.until.saturating_duration_since(Instant::now()) > Duration::from_secs(18) {
        assert_eq!(world.mesh.run(&["ca", "rotate"]).code, 0);
        let again = world.mesh.run(&["ca", "rotate"]);
        assert!(again.code == 1 && again.stderr.contains("under way"), "{again:?}");
        within(Duration::from_secs(30), "the rotation ends", || {
            let status = world.ca();
            sound(&status);
            let stage = status["stage"].as_str().unwrap().to_owned();
            if seen.last() != Some(&stage) {
                seen.push(stage);
            }
            status["stage"] == "steady"
        });
        let status = world.ca();
        assert_ne!(status["roots"][0]["fingerprint"], signing);
        signing = status["roots"][0]["fingerprint"].clone();
        rotations += 1;
    }
    assert!(rotations >= 2 && load.lasts(), "{rotations}");
    assert_eq!(seen[..3], ["distributing", "renewing", "steady"]);
    // What is withdrawn is trusted by nobody any more.
    within(Duration::from_secs(5), "the old root is forgotten", || {
        let status = world.ca();
        let mut holders = status["holders"].as_array().unwrap().iter();
        holders.all(|holder| holder["roots"] == serde_json::json!([signing]))
    });
    let counted = load.end();
    nothing_failed(&counted, &before, &world.counts());
    println!("{rotations} rotations of the root");
}

#[test]
fn a_rotation_survives_the_end_of_the_authority_and_of_the_control_plane_in_each_stage() {
    let Some(world) = start("cut", "60s") else { return };
    world.signal("proxy-node-1", "-STOP");
    assert_eq!(world.mesh.run(&["ca", "rotate"]).code, 0);
    let waits = || {
        let status = world.ca();
        sound(&status);
        status["waitingFor"].to_string()
    };
    within(Duration::from_secs(20), "node-1 alone is waited for", || {
        let waits = waits();
        waits.contains("node-1 does not say") && !waits.contains("node-0") && !waits.contains("control")
    });
    world.kill("ca");
    world.kill("control");
    within(Duration::from_secs(20), "the authority answers", || {
        world.stage() == "distributing"
    });
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(world.stage(), "distributing", "one holder has not the new root");
    world.signal("proxy-node-1", "-CONT");
    within(Duration::from_secs(20), "the new root signs", || {
        world.stage() == "renewing"
    });
    world.signal("proxy-node-1", "-STOP");
    world.kill("ca");
    world.kill("control");
    within(Duration::from_secs(20), "the authority answers", || {
        world.stage() == "renewing"
    });
    assert!(waits().contains("node-1 does not say that it has no certificate of the old root"));
    world.signal("proxy-node-1", "-CONT");
    // After its restart the authority does not know who else has certificates of before: it waits for their end.
    within(Duration::from_secs(20), "all have renewed", || {
        !waits().contains("node-")
    });
    within(Duration::from_secs(90), "the old root is withdrawn", || {
        world.stage() == "steady"
    });
    sound(&world.ca());
    assert_eq!(world.counts()["http1"], 0);
}

#[test]
fn a_node_that_was_away_for_a_whole_rotation_comes_back_by_the_bundle() {
    let Some(world) = start("missed", "10s") else {
        return;
    };
    let before = world.ca()["roots"][0]["fingerprint"].clone();
    world.signal("proxy-node-1", "-STOP");
    // Whatever it holds has ended after one lifetime: it is waited for no longer, in either stage.
    assert_eq!(world.mesh.run(&["ca", "rotate"]).code, 0);
    within(Duration::from_secs(60), "the rotation ends without it", || {
        world.stage() == "steady"
    });
    assert_ne!(world.ca()["roots"][0]["fingerprint"], before);
    let held = |world: &World| world.ca()["holders"].to_string();
    assert!(held(&world).contains("no answer within"));
    world.signal("proxy-node-1", "-CONT");
    within(Duration::from_secs(30), "it carries traffic again", || {
        world
            .mesh
            .curl("m", "client", &["http://server:8000/counts"])
            .code
            == 200
    });
    within(Duration::from_secs(30), "it has the control plane again", || {
        world.metric("node-1", "meshward_xds_connected") == 1.0
    });
    sound(&world.ca());
}

#[test]
fn the_control_plane_away_or_killed_costs_nothing_and_is_said() {
    let Some(world) = start("away", "10s") else { return };
    let before = world.counts();
    let load = world.load(95);
    // Killed: the lab starts another.
    world.kill("control");
    within(Duration::from_secs(20), "the proxies are connected again", || {
        ["node-0", "node-1"]
            .iter()
            .all(|node| world.metric(node, "meshward_xds_connected") == 1.0)
    });
    // Stopped: alive and mute, as a machine out of memory is.
    world.signal("control", "-STOP");
    within(Duration::from_secs(30), "the proxies have noticed", || {
        ["node-0", "node-1"]
            .iter()
            .all(|node| world.metric(node, "meshward_xds_connected") == 0.0)
    });
    assert!(world.metric("node-0", "meshward_xds_last_update_seconds") > 5.0);
    let said = world.status();
    assert!(
        said.contains("not heard of for") && said.contains("does not answer"),
        "{said}"
    );
    let proxies = world.mesh.run(&["proxies"]).stdout;
    assert!(proxies.contains("silent for"), "{proxies}");
    assert!(world.metric("node-0", "meshward_certificate_expiry_seconds") > 0.0);
    world.signal("control", "-CONT");
    // Gone, and not to be started for a while.
    let config = world.config("control");
    let aside = config.with_extension("aside");
    std::fs::rename(&config, &aside).unwrap();
    world.signal("control", "-KILL");
    std::thread::sleep(Duration::from_secs(22));
    assert!(
        world.metric("node-1", "meshward_certificate_expiry_seconds") > 0.0,
        "certificates are renewed all the same"
    );
    assert_eq!(world.metric("node-1", "meshward_xds_connected"), 0.0);
    std::fs::rename(&aside, &config).unwrap();
    within(Duration::from_secs(30), "all is well again", || {
        !world.status().contains("not heard of for")
    });
    assert_eq!(world.metric("node-1", "meshward_xds_connected"), 1.0);
    // The authority as well: shorter than half a lifetime.
    world.kill("ca");
    assert!(load.lasts());
    let counted = load.end();
    nothing_failed(&counted, &before, &world.counts());
}

#[test]
fn a_certificate_that_has_ended_is_not_used_and_all_is_well_once_the_authority_is_back() {
    let Some(world) = start("ended", "10s") else {
        return;
    };
    let load = world.load(45);
    std::thread::sleep(Duration::from_secs(3));
    world.signal("ca", "-STOP");
    within(Duration::from_secs(30), "the certificates have ended", || {
        ["node-0", "node-1"].iter().all(|node| {
            let text = world.mesh.run(&["metrics", node]).stdout;
            let ended =
                |line: &str| line.starts_with("meshward_certificate_expiry_seconds{") && line.contains("} -");
            text.lines().any(|line| ended(line) && line.contains("/ns/m/"))
        })
    });
    // Nothing new is begun, and it is said why.
    let refused = world.mesh.curl(
        "m",
        "client",
        &["http://server:8000/counts", "-H", "connection: close"],
    );
    assert_ne!(refused.code, 200, "{refused:?}");
    let said = world.status();
    assert!(said.contains("ended") && said.contains("not used"), "{said}");
    within(Duration::from_secs(15), "what fails is counted", || {
        world.metric("node-0", "meshward_certificate_failures") > 0.0
    });
    world.signal("ca", "-CONT");
    within(
        Duration::from_secs(12),
        "new connections are carried again",
        || {
            world
                .mesh
                .curl("m", "client", &["http://server:8000/counts"])
                .code
                == 200
        },
    );
    within(Duration::from_secs(12), "nothing is amiss", || {
        !world.status().contains("not used")
    });
    let counted = load.end();
    // What was begun before went on all the while.
    assert_eq!(
        counted["tcp-kept"]["sent"], counted["tcp-kept"]["good"],
        "{counted:#}"
    );
    assert_ne!(
        counted["tcp-new"]["sent"], counted["tcp-new"]["good"],
        "{counted:#}"
    );
}

#[test]
fn a_full_disk_stops_a_rotation_and_nothing_else() {
    let Some(world) = start("full", "10s") else { return };
    let dir = world.config("ca").parent().unwrap().with_file_name("ca");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=32k,mode=700", "tmpfs"])
        .arg(&dir)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("skipped: no file system can be mounted");
        return;
    }
    let filler = dir.join("filler");
    let before = world.counts();
    let load = world.load(12);
    let mut size = 32 * 1024;
    while std::fs::write(&filler, vec![0; size]).is_err() {
        size -= 4096;
    }
    let full = world.mesh.run(&["ca", "rotate"]);
    assert!(
        full.code == 2 && full.stderr.contains("No space left on device"),
        "{full:?}"
    );
    assert_eq!(world.stage(), "steady");
    assert_eq!(
        std::fs::read_dir(&dir).unwrap().count(),
        1,
        "nothing half written"
    );
    std::fs::remove_file(&filler).unwrap();
    assert_eq!(world.mesh.run(&["ca", "rotate", "--wait", "30s"]).code, 0);
    sound(&world.ca());
    let counted = load.end();
    nothing_failed(&counted, &before, &world.counts());
    let _ = Command::new("umount").arg("-l").arg(&dir).status();
}
