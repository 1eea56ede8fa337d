//! The mesh that is attacked, driven by its command line.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::Profile;
use serde_json::Value;

use crate::attempt::Place;

/// Where a pod sees this program.
const PROGRAM: &str = "/run/meshward-workload";
/// How long the mesh may take until all is ready.
const START: &str = "90s";
/// How long a program in a pod may take until it says its first word.
const FIRST_WORD: Duration = Duration::from_secs(20);
/// The most lines that are kept of one program.
const MAX_LINES: usize = 200_000;

/// What the mesh is made of: name and text of each file.
const WORLD: &[(&str, &str)] = &[
    (
        "namespaces.yaml",
        include_str!("../../../samples/survey/namespaces.yaml"),
    ),
    ("full.yaml", include_str!("../../../samples/survey/full.yaml")),
    ("legacy.yaml", include_str!("../../../samples/survey/legacy.yaml")),
    (
        "outside.yaml",
        include_str!("../../../samples/survey/outside.yaml"),
    ),
];
/// What is written for the secure profile besides: Istio's defaults come without any policy.
const POLICIES: (&str, &str) = (
    "policies.yaml",
    include_str!("../../../samples/survey/policies.yaml"),
);

/// A running mesh; ended, and its files taken away, with the value.
#[derive(Debug)]
pub(crate) struct Mesh {
    program: PathBuf,
    name: String,
    dir: PathBuf,
}

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The addresses of a pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pod {
    pub(crate) ip: String,
    pub(crate) ip6: String,
}

impl Mesh {
    /// Starts one under a name of its own and waits until all is ready.
    ///
    /// # Errors
    /// It does not come up; with what it said.
    pub(crate) fn start(profile: Profile) -> Result<Self, String> {
        let program =
            std::env::current_exe().map_err(|error| format!("cannot tell what program this is: {error}"))?;
        let name = format!("survey-{}", std::process::id());
        let dir = std::env::temp_dir().join(format!("meshward-{name}"));
        let written = fs::create_dir_all(&dir).and_then(|()| {
            let policies = (profile == Profile::Secure).then_some(&POLICIES);
            WORLD
                .iter()
                .chain(policies)
                .try_for_each(|(file, text)| fs::write(dir.join(file), text))
        });
        written.map_err(|error| format!("cannot write `{}`: {error}", dir.display()))?;
        let mesh = Self { program, name, dir };
        let dir = mesh.dir.display().to_string();
        let done = mesh.run(
            &[
                "up",
                "--detach",
                "--quiet",
                "--wait",
                START,
                "--profile",
                &profile.to_string(),
                &dir,
            ],
            "",
        )?;
        if done.code != 0 {
            return Err(format!("the mesh did not come up: {}", done.stderr.trim()));
        }
        Ok(mesh)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words).env("MESHWARD_NAME", &self.name);
        command
    }

    /// Runs a command of the program on this mesh.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn run(&self, words: &[&str], input: &str) -> Result<Done, String> {
        let failed = |error: std::io::Error| format!("`meshward {}`: {error}", words.join(" "));
        let mut child = self
            .command(words)
            .stdin(if input.is_empty() {
                Stdio::null()
            } else {
                Stdio::piped()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read says why by its exit code.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().map_err(failed)?;
        Ok(Done {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// What a command prints with `-o json`.
    ///
    /// # Errors
    /// It is not one JSON document.
    pub(crate) fn json(&self, words: &[&str]) -> Result<Value, String> {
        let words: Vec<_> = words.iter().copied().chain(["-o", "json"]).collect();
        let done = self.run(&words, "")?;
        serde_json::from_str(&done.stdout).map_err(|error| {
            let said = done.stderr.trim();
            format!("`meshward {}`: {error}: {said}", words.join(" "))
        })
    }

    /// Runs words of a built-in program in a pod.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn exec(&self, place: Place, words: &[&str]) -> Result<Done, String> {
        self.run(&exec_words(place, words), "")
    }

    /// Starts words of a built-in program in a pod, and returns once it has said its first word.
    ///
    /// # Errors
    /// It ends before, or says nothing.
    pub(crate) fn keep(&self, place: Place, words: &[&str]) -> Result<Kept, String> {
        Kept::start(self.command(&exec_words(place, words)), true)
    }

    /// Follows the access log of all nodes.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn follow(&self) -> Result<Kept, String> {
        Kept::start(self.command(&["logs", "--access", "-f", "-o", "json"]), false)
    }

    /// The pods, by namespace and workload.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub(crate) fn pods(&self) -> Result<BTreeMap<(String, String), Pod>, String> {
        let rows = self.json(&["ps", "-A"])?;
        let text = |row: &Value, name: &str| field(row, &[name]).to_owned();
        let pods = rows.as_array().into_iter().flatten().map(|row| {
            let pod = Pod {
                ip: text(row, "ip"),
                ip6: text(row, "ip6"),
            };
            ((text(row, "namespace"), text(row, "workload")), pod)
        });
        Ok(pods.collect())
    }

    /// What refusals and drops are counted by the proxies of all nodes, by reason.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub(crate) fn counters(&self) -> Result<BTreeMap<String, u64>, String> {
        let texts = self.json(&["metrics"])?;
        let mut counters = BTreeMap::new();
        for line in every_text(&texts).flat_map(str::lines) {
            let known = line.starts_with("meshward_denials_total{")
                || line.starts_with("meshward_capture_dropped_packets_total{");
            let parts = line.rsplit_once(' ').filter(|_| known);
            if let Some((labels, number)) = parts {
                let reason = labels
                    .split("reason=\"")
                    .nth(1)
                    .and_then(|rest| rest.split('"').next());
                let number = number.parse::<f64>().ok().and_then(whole);
                if let (Some(reason), Some(number)) = (reason, number) {
                    *counters.entry(reason.to_owned()).or_insert(0) += number;
                }
            }
        }
        Ok(counters)
    }
}

/// Every text of a document, however deep.
fn every_text(value: &Value) -> Box<dyn Iterator<Item = &str> + '_> {
    match value {
        Value::String(text) => Box::new(std::iter::once(text.as_str())),
        Value::Array(list) => Box::new(list.iter().flat_map(every_text)),
        Value::Object(map) => Box::new(map.values().flat_map(every_text)),
        _ => Box::new(std::iter::empty()),
    }
}

/// A counter is whole, whatever its form.
fn whole(number: f64) -> Option<u64> {
    format!("{number:.0}").parse().ok()
}

/// A text of a document; empty where there is none.
pub(crate) fn field<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    let mut at = Some(value);
    for step in path {
        at = at.and_then(|value| value.get(step));
    }
    at.and_then(Value::as_str).unwrap_or_default()
}

fn exec_words<'a>(place: Place, words: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["exec", "-n", place.namespace, place.workload, "--"];
    if words.first() != Some(&"sh") {
        all.extend([PROGRAM, "workload"]);
    }
    all.extend_from_slice(words);
    all
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let _ = self.run(&["down"], "");
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A program that runs beside, and the lines that it has said so far; ended with the value.
#[derive(Debug)]
pub(crate) struct Kept {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Kept {
    fn start(mut command: Command, speaks: bool) -> Result<Self, String> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("a program in a pod: {error}"))?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (first, spoken) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            let lines = Arc::clone(&lines);
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                    if lines.len() < MAX_LINES {
                        lines.push(line);
                    }
                    // Only the first is waited for.
                    let _ = first.send(());
                }
            });
        }
        let kept = Self { child, lines };
        if speaks && spoken.recv_timeout(FIRST_WORD).is_err() {
            return Err("a program in a pod said nothing, or could not be started".to_owned());
        }
        Ok(kept)
    }

    /// How many lines there are.
    pub(crate) fn len(&self) -> usize {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The lines from the one of that number on, those that are JSON.
    pub(crate) fn since(&self, from: usize) -> Vec<Value> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let new = lines.get(from..).unwrap_or_default();
        new.iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
