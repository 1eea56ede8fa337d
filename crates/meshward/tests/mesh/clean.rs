//! Nothing is left behind, whatever ends; parts come back; meshes do not meet; no root is needed.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use testkit::mesh::{Mesh, unavailable, within};

use crate::world::{How, attempt, own, program, start};

/// What of a mesh can be seen from outside: namespaces, processes, its directory.
fn remains(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let prefix = format!("mw-{name}-");
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        if file.starts_with(&prefix) {
            found.push(format!("namespace {file}"));
        }
    }
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = entry.path();
        let environment = std::fs::read(path.join("environ")).unwrap_or_default();
        let marked = format!("MESHWARD_NAME={name}\0");
        let ours = environment.windows(marked.len()).any(|w| w == marked.as_bytes());
        let words = std::fs::read(path.join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        let dead = std::fs::read_to_string(path.join("stat")).is_ok_and(|s| s.contains(") Z "));
        if !dead && (words.contains(&format!("/{name}/")) || (ours && words.contains("meshward"))) {
            found.push(format!("process {}: {words}", path.display()));
        }
    }
    let directory = Path::new("/run/meshward").join(name);
    if directory.exists() {
        found.push(format!("directory {}", directory.display()));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    found.extend(
        mounts
            .lines()
            .filter(|l| l.contains(&prefix))
            .map(|l| format!("mount {l}")),
    );
    found
}

fn kill(pid: u64) {
    let done = Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status()
        .unwrap();
    assert!(done.success());
}

fn processes(mesh: &Mesh) -> serde_json::Map<String, serde_json::Value> {
    mesh.json(&["info"])["processes"].as_object().unwrap().clone()
}

#[test]
fn down_leaves_nothing() {
    let Some(mesh) = start("down", &[]) else {
        return;
    };
    let name = mesh.name().to_owned();
    assert!(!remains(&name).is_empty(), "the test would not see anything");
    let done = mesh.down();
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(remains(&name), Vec::<String>::new());
    let done = mesh.run(&["ps"]);
    assert_eq!(done.code, 2, "{done:?}");
    assert!(done.stderr.contains("meshward up"), "{done:?}");
}

#[test]
fn kill_9_of_up_leaves_remains_that_the_next_command_clears() {
    let Some(mesh) = start("killed", &[]) else {
        return;
    };
    let name = mesh.name().to_owned();
    kill(processes(&mesh)["up"].as_u64().unwrap());
    let done = mesh.down();
    assert_eq!(done.code, 0, "{done:?}");
    within(Duration::from_secs(5), "nothing is left", || {
        remains(&name).is_empty()
    });
}

#[test]
fn kill_9_of_each_part_is_survived() {
    let Some(mesh) = start("parts", &["--profile", "istio"]) else {
        return;
    };
    let before = processes(&mesh);
    for (part, pid) in &before {
        if part == "up" {
            continue;
        }
        kill(pid.as_u64().unwrap());
        within(Duration::from_secs(20), &format!("{part} is back"), || {
            processes(&mesh).get(part).is_some_and(|now| now != pid)
        });
        within(Duration::from_secs(20), &format!("traffic after {part}"), || {
            attempt(&mesh, "m", How::Http, "server.m:8000") == "ok"
                && attempt(&mesh, "m", How::Tcp, "server.m:7000") == "ok"
        });
    }
    // What changes after it is heard.
    mesh.apply("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: none, namespace: m}\nspec: {}\n");
    assert_eq!(attempt(&mesh, "m", How::Http, "server.m:8000"), "403");
}

#[test]
fn two_meshes_stand_side_by_side() {
    let (Some(one), Some(two)) = (start("one", &[]), start("two", &["--profile", "istio"])) else {
        return;
    };
    assert_eq!(attempt(&one, "m", How::Http, "server.m:8000"), "403");
    assert_eq!(attempt(&two, "m", How::Http, "server.m:8000"), "ok");
    assert_eq!(one.down().code, 0);
    assert_eq!(attempt(&two, "m", How::Http, "server.m:8000"), "ok");
}

#[test]
fn without_root_the_same_runs() {
    if let Some(why) = unavailable() {
        println!("{why}");
        return;
    }
    const NOBODY: u32 = 65534;
    let can = Command::new("setpriv")
        .args([
            &format!("--reuid={NOBODY}"),
            &format!("--regid={NOBODY}"),
            "--clear-groups",
        ])
        .args(["unshare", "-Urnm", "true"])
        .status();
    if !can.is_ok_and(|s| s.success()) {
        println!("skipped: no user namespaces for another user");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    // Where the program is built may be closed to others.
    let copy = directory.path().join("meshward");
    std::fs::copy(program(), &copy).unwrap();
    let sources = directory.path().join("httpbin");
    std::fs::create_dir(&sources).unwrap();
    for entry in std::fs::read_dir(own("samples/httpbin")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), sources.join(entry.file_name())).unwrap();
    }
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).unwrap();
    let mesh = Mesh::try_start(&copy, "rootless", &[&sources], &[], Some(NOBODY)).unwrap();
    let said = mesh.curl("full", "sleep", &["http://httpbin:8000/headers"]);
    assert_eq!(said.code, 200, "{said:?}");
    assert!(
        said.body.contains("spiffe://cluster.local/ns/full/sa/sleep"),
        "{said:?}"
    );
    let said = mesh.curl("legacy", "sleep", &["http://httpbin.full:8000/get"]);
    assert_eq!(said.code, 0, "{said:?}");
    let done = mesh.down();
    assert_eq!(done.code, 0, "{done:?}");
}
