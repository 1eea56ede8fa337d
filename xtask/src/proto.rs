//! Generates the wire messages of crates/proto.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const FILES: &[&str] = &[
    "envoy/service/auth/v3/external_auth.proto",
    "envoy/service/discovery/v3/discovery.proto",
    "istio/v1/auth/ca.proto",
];

/// Writes crates/proto/src/gen.
pub(crate) fn write(root: &Path) -> Result<(), String> {
    for (name, text) in generate(root)? {
        fs::write(root.join("crates/proto/src/gen").join(name), text).map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn generate(root: &Path) -> Result<BTreeMap<String, String>, String> {
    let out = std::env::temp_dir().join(format!("meshward-proto-{}", std::process::id()));
    fs::create_dir_all(&out).map_err(|e| e.to_string())?;
    let descriptors = protox::compile(FILES, [root.join("crates/proto/proto")]).map_err(|e| e.to_string())?;
    tonic_prost_build::configure()
        .out_dir(&out)
        .build_transport(false)
        .compile_fds(descriptors)
        .map_err(|e| e.to_string())?;
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(&out).map_err(|e| e.to_string())? {
        let path = entry.map_err(|e| e.to_string())?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        files.insert(name, fs::read_to_string(&path).map_err(|e| e.to_string())?);
    }
    fs::remove_dir_all(out).map_err(|e| e.to_string())?;
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_committed_is_what_is_generated() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for (name, text) in generate(root).unwrap() {
            let committed =
                fs::read_to_string(root.join("crates/proto/src/gen").join(&name)).unwrap_or_default();
            assert!(committed == text, "{name} is stale: run `cargo xtask proto`");
        }
    }
}
