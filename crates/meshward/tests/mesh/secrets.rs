//! Keys and tokens stay where they belong: in no word, environment or log, and in no file that others may read.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::world::start;

/// The shortest part of a key that is looked for, characters.
const LINE: usize = 40;

/// What must not be seen: each token, and each whole line of each private key.
fn secrets(text: &str) -> Vec<String> {
    if text.starts_with("ey") && text.matches('.').count() == 2 {
        return vec![text.trim().to_owned()];
    }
    if !text.contains("PRIVATE KEY-----") {
        return Vec::new();
    }
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('-') && line.len() >= LINE);
    lines.map(str::to_owned).collect()
}

/// So much of a secret as tells which it is.
fn shown(secret: &str) -> String {
    secret.chars().take(8).collect()
}

fn files(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![below.to_owned()];
    while let Some(path) = waiting.pop() {
        let Ok(meta) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        if meta.is_dir() {
            waiting.extend(
                std::fs::read_dir(&path)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| entry.path()),
            );
        } else if meta.is_file() {
            found.push(path);
        }
    }
    found
}

#[test]
fn keys_and_tokens_are_in_no_words_environments_and_logs_and_in_no_file_that_others_read() {
    let Some(mesh) = start("secrets", &[]) else { return };
    mesh.run_with(&["apply", "-f", "-"], crate::pki::ALLOW);
    let got = mesh.curl("m", "client", &["http://server.m:8000/headers"]);
    assert_eq!(got.code, 200, "{got:?}");
    let run = Path::new("/run/meshward").join(mesh.name());
    let (mut secret, mut holders) = (BTreeSet::new(), BTreeSet::new());
    for path in files(&run) {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let found = secrets(&text);
        if found.is_empty() {
            continue;
        }
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has the mode {mode:o}", path.display());
        secret.extend(found);
        holders.insert(path);
    }
    let tokens = secret.iter().filter(|text| text.starts_with("ey")).count();
    assert!(
        tokens >= 5 && secret.len() > tokens,
        "{tokens} tokens, {} in all",
        secret.len()
    );
    let clean = |text: &str, place: &str| {
        assert!(!text.contains("PRIVATE KEY"), "a key in {place}");
        for one in &secret {
            assert!(!text.contains(one.as_str()), "{}.. in {place}", shown(one));
        }
    };

    // Every file beside those that hold one is without: logs, configurations, what the parts keep.
    let mut logs = 0;
    for path in files(&run) {
        if !holders.contains(&path) {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
            logs += usize::from(path.extension().is_some_and(|e| e == "log"));
            clean(&text, &path.display().to_string());
        }
    }
    assert!(logs >= 4, "{logs} logs of parts");

    // Every process of the machine, whosever it is.
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        for name in ["cmdline", "environ"] {
            let path = entry.path().join(name);
            let bytes = std::fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            for one in &secret {
                assert!(
                    !text.contains(one.as_str()),
                    "{}.. in {}",
                    shown(one),
                    path.display()
                );
            }
        }
    }

    // No part leaves a core.
    let processes = mesh.json(&["info"])["processes"].as_object().unwrap().clone();
    let mut parts = 0;
    for (name, pid) in &processes {
        if name == "ca" || name == "control" || name.starts_with("proxy") {
            let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
            let line = limits
                .lines()
                .find(|line| line.starts_with("Max core file size"))
                .unwrap();
            let words: Vec<_> = line.split_whitespace().collect();
            assert_eq!(words[4..6], ["0", "0"], "{name}: {line}");
            parts += 1;
        }
    }
    assert_eq!(parts, 4, "{processes:?}");
}
