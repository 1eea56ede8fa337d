//! Files that are followed while the mesh runs.

use std::path::Path;
use std::time::{Duration, Instant};

use testkit::mesh::{Mesh, unavailable, within};

use crate::world::{How, WORLD, attempt, program};

const DENY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: edit, namespace: m}\nspec:\n  action: DENY\n  rules:\n  - to: [{operation: {paths: [/]}}]\n";

fn started(directory: &Path) -> Option<Mesh> {
    if let Some(why) = unavailable() {
        println!("{why}");
        return None;
    }
    std::fs::write(directory.join("world.yaml"), WORLD).unwrap();
    Some(Mesh::start(
        program(),
        "live",
        &[directory],
        &["--profile", "istio"],
    ))
}

fn soon(what: &str, so: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    within(Duration::from_secs(10), what, so);
    begin.elapsed()
}

#[test]
fn edits_new_files_and_removed_ones_take_effect() {
    let directory = tempfile::tempdir().unwrap();
    let Some(mesh) = started(directory.path()) else {
        return;
    };
    let http = || attempt(&mesh, "m", How::Http, "server.m:8000");
    assert_eq!(http(), "ok");
    let file = directory.path().join("policy.yaml");
    std::fs::write(&file, DENY).unwrap();
    soon("the new file denies", || http() == "403");
    std::fs::write(&file, DENY.replace("[/]", "[/other]")).unwrap();
    soon("the edit opens", || http() == "ok");
    // A file that breaks: named with its place, and what was in force stays.
    std::fs::write(&file, DENY).unwrap();
    soon("denied again", || http() == "403");
    std::fs::write(
        &file,
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: edit\n",
    )
    .unwrap();
    soon("the broken file is named", || {
        let status = mesh.json(&["status"]).to_string();
        status.contains("policy.yaml") && status.contains("\"line\":")
    });
    assert_eq!(http(), "403");
    std::fs::remove_file(&file).unwrap();
    soon("the removed file opens", || http() == "ok");
    // Replicas follow as well.
    let more = WORLD.replacen("replicas: 2", "replicas: 3", 1);
    std::fs::write(directory.path().join("world.yaml"), more).unwrap();
    soon("a third replica is ready", || {
        let rows = mesh.json(&["ps", "-n", "m"]);
        let servers = rows
            .as_array()
            .unwrap()
            .iter()
            .filter(|r| r["workload"] == "server");
        servers.filter(|r| r["ready"] == true).count() == 3
    });
}

#[test]
fn an_object_that_was_applied_outlives_the_control_plane() {
    let directory = tempfile::tempdir().unwrap();
    let Some(mesh) = started(directory.path()) else {
        return;
    };
    mesh.apply(DENY);
    let control = mesh.json(&["info"])["processes"]["control"].as_u64().unwrap();
    let killed = std::process::Command::new("kill")
        .args(["-9", &control.to_string()])
        .status();
    assert!(killed.unwrap().success());
    soon("control is back", || {
        mesh.run(&["get", "ap", "edit", "-n", "m"]).code == 0
    });
    assert_eq!(attempt(&mesh, "m", How::Http, "server.m:8000"), "403");
    let done = mesh.run(&["delete", "AuthorizationPolicy", "edit", "-n", "m"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(attempt(&mesh, "m", How::Http, "server.m:8000"), "ok");
}
