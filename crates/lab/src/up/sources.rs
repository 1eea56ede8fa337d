//! The sources that the user names: made absolute, and looked at for what has to be known before anything starts.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use admin::RunDir;
use api::Kind;
use control::Source;
use model::TrustDomain;

use crate::site::write_private;

/// Istio's trust domain where nobody says another.
const TRUST_DOMAIN: &str = "cluster.local";
/// The most that is read from standard input.
const MAX_STDIN: u64 = 16 * 1024 * 1024;
/// How deep directories are looked into.
const MAX_DEPTH: usize = 32;

/// Makes them absolute; standard input is read to its end and kept in a file.
///
/// # Errors
/// One is not there, or cannot be read.
pub(super) fn resolve(named: &[PathBuf], run: &RunDir) -> Result<Vec<Source>, String> {
    let mut sources = Vec::new();
    for path in named {
        if path.as_os_str() == "-" {
            if sources.iter().any(|source: &Source| source.shown == "<stdin>") {
                return Err("`-` is named twice: standard input can be read once".to_owned());
            }
            sources.push(stdin(run)?);
            continue;
        }
        let absolute = fs::canonicalize(path).map_err(|error| format!("`{}`: {error}", path.display()))?;
        let shown = path.to_string_lossy().trim_end_matches('/').to_owned();
        let shown = if shown.is_empty() { "/".to_owned() } else { shown };
        sources.push(Source {
            path: absolute,
            shown,
        });
    }
    Ok(sources)
}

fn stdin(run: &RunDir) -> Result<Source, String> {
    let mut text = Vec::new();
    std::io::stdin()
        .take(MAX_STDIN + 1)
        .read_to_end(&mut text)
        .map_err(|error| format!("cannot read standard input: {error}"))?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_STDIN {
        return Err(format!("standard input is longer than {MAX_STDIN} bytes"));
    }
    let path = run.root().join("stdin.yaml");
    write_private(&path, &text).map_err(|error| format!("cannot write `{}`: {error}", path.display()))?;
    Ok(Source {
        path,
        shown: "<stdin>".to_owned(),
    })
}

/// The trust domain that MeshConfig says in the sources, Istio's default where none does or it cannot be read: the control
/// plane then says what is wrong with it.
pub(super) fn trust_domain(sources: &[Source], recursive: bool) -> TrustDomain {
    let mut files = Vec::new();
    for source in sources {
        let depth = if recursive { MAX_DEPTH } else { 1 };
        collect(&source.path, depth, true, &mut files);
    }
    files.sort();
    let said = files
        .iter()
        .filter_map(|file| fs::read(file).ok())
        .find_map(|text| in_text(&text));
    said.or_else(|| TRUST_DOMAIN.parse().ok()).unwrap_or_default()
}

fn in_text(text: &[u8]) -> Option<TrustDomain> {
    // Most files hold none, and reading one costs.
    if !text.windows(11).any(|word| word == b"trustDomain") {
        return None;
    }
    let parsed = api::parse("", text);
    parsed.objects.iter().find_map(|object| match &object.kind {
        Kind::ConfigMap(_, Some(mesh)) => mesh.trust_domain.as_deref()?.replace('@', ".").parse().ok(),
        _ => None,
    })
}

fn collect(path: &Path, depth: usize, named: bool, files: &mut Vec<PathBuf>) {
    if path.is_dir() {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        for entry in entries {
            let below = entry.path();
            if below.is_dir() && depth > 1 {
                collect(&below, depth - 1, false, files);
            } else if below.is_file() {
                collect(&below, 0, false, files);
            }
        }
        return;
    }
    let extension = path.extension().and_then(|extension| extension.to_str());
    if named || matches!(extension, Some("yaml" | "yml" | "json")) {
        files.push(path.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh_config(domain: &str) -> String {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\n\
             data:\n  mesh: |\n    trustDomain: {domain}\n"
        )
    }

    #[test]
    fn the_trust_domain_is_mesh_configs() {
        let dir = tempfile::tempdir().unwrap();
        let sources = [Source {
            path: dir.path().to_owned(),
            shown: "d".to_owned(),
        }];
        assert_eq!(trust_domain(&sources, true).as_str(), "cluster.local");
        let below = dir.path().join("below");
        fs::create_dir(&below).unwrap();
        fs::write(below.join("mesh.yaml"), mesh_config("example.org")).unwrap();
        assert_eq!(trust_domain(&sources, false).as_str(), "cluster.local");
        assert_eq!(trust_domain(&sources, true).as_str(), "example.org");
        fs::write(below.join("mesh.yaml"), mesh_config("not a domain")).unwrap();
        assert_eq!(trust_domain(&sources, true).as_str(), "cluster.local");
    }

    #[test]
    fn sources_keep_the_users_name() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::at(dir.path().join("run"));
        let named = PathBuf::from(format!("{}/", dir.path().display()));
        let sources = resolve(&[named], &run).unwrap();
        let first = sources.first().unwrap();
        assert_eq!(first.shown, dir.path().display().to_string());
        assert!(
            resolve(&[PathBuf::from("/nowhere/at/all")], &run)
                .unwrap_err()
                .contains("`/nowhere/at/all`")
        );
    }
}
