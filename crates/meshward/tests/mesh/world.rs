//! The world that most tests live in, and the ways to call into it.

use std::path::{Path, PathBuf};

use testkit::mesh::{Mesh, unavailable};

/// The program.
pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_meshward"))
}

/// A checkout's own file.
pub(crate) fn own(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Namespace `m` is meshed, `legacy` is not; both have a `client` and a `server` with ports of every kind.
///
/// | port | application | declared as |
/// |---|---|---|
/// | 7000 | TCP echo | tcp |
/// | 7080 | HTTP | tcp |
/// | 7443 | HTTPS | tcp |
/// | 8000 | HTTP | http |
/// | 8070 | gRPC | grpc |
/// | 8100 | HTTP | nothing that is known |
/// | 8101 | TCP echo | nothing that is known |
/// | 8143 | HTTPS | nothing that is known |
/// | 9000 | TCP, the server speaks first | tcp |
/// | 8200 | HTTP | not at all |
/// | 8201 | TCP echo | not at all |
/// | 8243 | HTTPS | not at all |
pub(crate) const WORLD: &str = include_str!("world.yaml");

/// The world of [`WORLD`], running; `None` after saying why where it cannot.
pub(crate) fn start(hint: &str, words: &[&str]) -> Option<Mesh> {
    if let Some(why) = unavailable() {
        println!("{why}");
        return None;
    }
    // Followed as long as the mesh runs: it stays where it is.
    let world = own("crates/meshward/tests/mesh/world.yaml");
    Some(Mesh::start(program(), hint, &[&world], words))
}

/// What a caller gets, in a word: `ok`, `refused`, `protocol` for an answer that says that it was no HTTP, a status.
pub(crate) fn attempt(mesh: &Mesh, from: &str, how: How, to: &str) -> String {
    match how {
        How::Tcp => word(&probe(mesh, from, "tcp", to)),
        How::Grpc => word(&probe(mesh, from, "grpc", to)),
        How::Http => http(mesh, from, &[&format!("http://{to}/")]),
        How::Http2 => http(mesh, from, &["--http2-prior-knowledge", &format!("http://{to}/")]),
        How::Https => http(mesh, from, &["-k", &format!("https://{to}/")]),
    }
}

/// How a caller calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum How {
    /// Bytes that are not HTTP.
    Tcp,
    /// HTTP/1.1.
    Http,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// TLS of the application's own, HTTP inside.
    Https,
    /// gRPC.
    Grpc,
}

/// Runs a built-in probe and returns its outcome.
pub(crate) fn probe(mesh: &Mesh, from: &str, tool: &str, to: &str) -> String {
    probe_with(mesh, from, tool, to, &[])
}

/// As [`probe`], with further words.
pub(crate) fn probe_with(mesh: &Mesh, from: &str, tool: &str, to: &str, more: &[&str]) -> String {
    let program = program().display().to_string();
    let mut words = vec![program.as_str(), "workload", "probe", tool, "--addr", to];
    words.extend_from_slice(more);
    let done = mesh.exec(from, "client", &words);
    let said: serde_json::Value = serde_json::from_str(&done.stdout).unwrap_or_default();
    said["outcome"]
        .as_str()
        .map_or_else(|| format!("the probe failed: {done:?}"), str::to_owned)
}

fn word(outcome: &str) -> String {
    match outcome {
        "echoed" | "OK" => "ok",
        "http-400" => "protocol",
        "reset" | "closed" | "refused" | "no-answer" | "timeout" | "Unavailable" => "refused",
        other => other,
    }
    .to_owned()
}

fn http(mesh: &Mesh, from: &str, words: &[&str]) -> String {
    let said = mesh.curl(from, "client", words);
    match said.code {
        0 => "refused".to_owned(),
        200 => "ok".to_owned(),
        400 => "protocol".to_owned(),
        // A mesh client's own proxy answers for a callee that refused it.
        503 | 502 => "refused".to_owned(),
        other => other.to_string(),
    }
}

/// Compares a table of outcomes and fails with all rows that differ.
pub(crate) fn compare(rows: Vec<(String, String, String)>) {
    let wrong: Vec<_> = rows
        .iter()
        .filter(|(_, wanted, got)| wanted != got)
        .map(|(id, wanted, got)| format!("{id}: wanted {wanted}, got {got}"))
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} rows:\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n")
    );
    assert!(!rows.is_empty());
}
