//! `dump`: what somebody needs to help who cannot look for himself, in one file, without secrets.
//!
//! What holds secrets by its nature (Secrets, tokens, keys) is not asked for. Everything else is looked through all the same
//! before it is written: [`scrub`] has the last word.

mod archive;
pub(crate) mod scrub;

use std::io::Read;
use std::path::{Path, PathBuf};

use admin::Failure;
use admin::verbs::{Access, AccessLine, Found, Get, Info, Page, PageText, PodRow, Snapshot, Status};
use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use self::archive::Archive;
use crate::args::Dump;
use crate::mesh::{Mesh, decode, items, last};
use crate::out::{Done, Out, Stop};

/// Bytes that are kept of the end of a part's log.
const MAX_LOG: u64 = 8 * 1024 * 1024;

/// What stands in the file that says what this is.
const READ_ME: &str = "\
A support bundle of a Meshward mesh.

It holds: versions, what runs and what it listens on, objects as the control plane has them, what is in force, what each
proxy knows and how it stands, public parts of certificates, metrics, health, the access log and the parts' own logs.

It holds no keys, tokens, cookies or passwords: Secrets are left out, values of environment variables and of fields whose names
speak of secrets are replaced, and so is whatever looks like a key or a token. Look through it before you hand it on: what an
application's paths and names say of its users is in it.

errors.txt says what could not be had.
";

pub(crate) async fn dump(mesh: &Mesh, asked: &Dump, out: &mut Out) -> Done {
    let now = OffsetDateTime::now_utc();
    let info = mesh.info().await?;
    let stamp = format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        now.year(),
        u8::from(now.month()),
        now.day(),
        now.hour(),
        now.minute(),
        now.second()
    );
    let name = format!("meshward-{}-{stamp}", info.name);
    let path = asked
        .file
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{name}.tar.gz")));
    let archive = Archive::create(&path, &name, now.unix_timestamp())
        .map_err(|error| Failure::undecided(format!("cannot write `{}`: {error}", path.display())))?;
    let mut bundle = Bundle {
        archive,
        errors: Vec::new(),
        path: &path,
    };
    gather(mesh, &info, &mut bundle).await?;
    let errors = bundle.errors.clone();
    bundle.text("errors.txt", &(errors.join("\n") + "\n"))?;
    let bytes = bundle
        .archive
        .finish()
        .map_err(|error| Failure::undecided(format!("cannot write `{}`: {error}", path.display())))?;
    match asked.output {
        Some(_) => out.json(&json!({ "file": path, "bytes": bytes, "errors": errors }))?,
        None => {
            out.print(&format!("{}\n", path.display()))?;
            for error in &errors {
                out.warn(error);
            }
        }
    }
    Ok(0)
}

/// The file while it is written.
struct Bundle<'p> {
    archive: Archive,
    /// What could not be had: it does not keep the rest from being written.
    errors: Vec<String>,
    path: &'p Path,
}

impl Bundle<'_> {
    fn text(&mut self, name: &str, text: &str) -> Result<(), Stop> {
        let clean = scrub::text(text);
        self.archive.add(name, clean.as_bytes()).map_err(|error| {
            Failure::undecided(format!("cannot write `{}`: {error}", self.path.display())).into()
        })
    }

    fn json(&mut self, name: &str, value: &impl Serialize) -> Result<(), Stop> {
        let mut value = serde_json::to_value(value)?;
        scrub::value(&mut value);
        let text = serde_json::to_string_pretty(&value)? + "\n";
        self.text(name, &text)
    }

    /// The answer; where there is none, that is noted.
    fn had<T>(&mut self, what: &str, answer: Result<T, Stop>) -> Result<Option<T>, Stop> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(Stop::Failed(failure)) => {
                self.errors.push(format!("{what}: {}", failure.message));
                Ok(None)
            }
            Err(gone @ Stop::Gone) => Err(gone),
        }
    }
}

async fn gather(mesh: &Mesh, info: &Info, bundle: &mut Bundle<'_>) -> Result<(), Stop> {
    bundle.text("README.txt", READ_ME)?;
    let version = env!("CARGO_PKG_VERSION");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    bundle.json(
        "version.json",
        &json!({ "meshward": version, "kernel": kernel.trim(), "arch": std::env::consts::ARCH }),
    )?;
    bundle.json("info.json", info)?;
    bundle.json("ports.json", &info.ports)?;
    let rows = async { last::<Vec<PodRow>>(mesh.up("ps", &(), Vec::new()).await?).await };
    let rows = rows.await;
    if let Some(rows) = bundle.had("ps", rows)? {
        bundle.json("pods.json", &rows)?;
    }
    control(mesh, bundle).await?;
    for node in &info.nodes {
        proxy(mesh, node, bundle).await?;
    }
    pages(mesh, info, bundle).await?;
    logs(mesh, bundle)
}

async fn control(mesh: &Mesh, bundle: &mut Bundle<'_>) -> Result<(), Stop> {
    let status = async { last::<Status>(mesh.control("status", &()).await?).await };
    let status = status.await;
    if let Some(status) = bundle.had("status", status)? {
        bundle.json("status.json", &status)?;
    }
    let all = Get {
        kind: "all".to_owned(),
        namespace: None,
        name: None,
    };
    let objects = async { items::<Found>(mesh.control("get", &all).await?).await };
    let objects = objects.await;
    if let Some(objects) = bundle.had("objects", objects)? {
        let told: Vec<Value> = objects
            .iter()
            .filter(|found| found.object.get("kind").and_then(Value::as_str) != Some("Secret"))
            .map(serde_json::to_value)
            .collect::<Result<_, _>>()?;
        bundle.json("objects.json", &told)?;
    }
    let snapshots = async { items::<Snapshot>(mesh.control("snapshots", &()).await?).await };
    let snapshots = snapshots.await;
    for snapshot in bundle.had("snapshots", snapshots)?.unwrap_or_default() {
        bundle.json(&format!("snapshots/{}.json", snapshot.node), &snapshot)?;
    }
    Ok(())
}

async fn proxy(mesh: &Mesh, node: &str, bundle: &mut Bundle<'_>) -> Result<(), Stop> {
    let told = async { last::<Value>(mesh.proxy(node, "proxy", &()).await?).await };
    let told = told.await;
    if let Some(told) = bundle.had(&format!("proxy of node {node}"), told)? {
        bundle.json(&format!("proxies/{node}/state.json"), &told)?;
    }
    let lines = async {
        let answer = mesh.proxy(node, "access", &Access::default()).await?;
        items::<AccessLine>(answer).await
    };
    let lines = lines.await;
    if let Some(lines) = bundle.had(&format!("access log of node {node}"), lines)? {
        let mut text = String::new();
        for mut line in lines {
            scrub::value(&mut line.event);
            text.push_str(&serde_json::to_string(&line.event)?);
            text.push('\n');
        }
        bundle.text(&format!("proxies/{node}/access.jsonl"), &text)?;
    }
    Ok(())
}

/// Metrics and health of every part.
async fn pages(mesh: &Mesh, info: &Info, bundle: &mut Bundle<'_>) -> Result<(), Stop> {
    let nodes = info.nodes.iter().map(|node| format!("proxy-{node}"));
    let parts = ["control", "ca"].map(str::to_owned).into_iter().chain(nodes);
    for part in parts {
        for (path, file) in [("/metrics", "metrics"), ("/healthz/ready", "health")] {
            let page = Page {
                part: part.clone(),
                path: path.to_owned(),
            };
            let told =
                async { decode::<PageText>(mesh.up("page", &page, Vec::new()).await?.finish().await?) };
            let told = told.await;
            if let Some(told) = bundle.had(&format!("{path} of {part}"), told)? {
                let text = match path {
                    "/metrics" => told.text,
                    _ => format!("{}\n{}", told.status, told.text),
                };
                bundle.text(&format!("{file}/{part}.txt"), &text)?;
            }
        }
    }
    Ok(())
}

/// What the parts themselves have written. What pods print is theirs, and is left out.
fn logs(mesh: &Mesh, bundle: &mut Bundle<'_>) -> Result<(), Stop> {
    let directory = mesh.logs();
    let Ok(entries) = std::fs::read_dir(&directory) else {
        bundle
            .errors
            .push(format!("logs: `{}` cannot be read", directory.display()));
        return Ok(());
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    for file in files.iter().filter(|file| is_a_parts(file)) {
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        match tail(file) {
            Ok(text) => bundle.text(&format!("logs/{name}"), &text)?,
            Err(error) => bundle.errors.push(format!("logs: `{name}`: {error}")),
        }
    }
    Ok(())
}

fn is_a_parts(file: &Path) -> bool {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    file.is_file() && (matches!(&*name, "up" | "ca" | "control") || name.starts_with("proxy-"))
}

fn tail(file: &Path) -> std::io::Result<String> {
    use std::io::{Seek, SeekFrom};
    let mut open = std::fs::File::open(file)?;
    let length = open.metadata()?.len();
    open.seek(SeekFrom::Start(length.saturating_sub(MAX_LOG)))?;
    let mut bytes = Vec::new();
    open.take(MAX_LOG).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
