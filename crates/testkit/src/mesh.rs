//! A mesh, started by the very program that users start, and ended whatever becomes of the test.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a mesh may take until all is ready, in a debug build on a busy machine.
const START: &str = "90s";

/// A running mesh.
#[derive(Debug)]
pub struct Mesh {
    program: PathBuf,
    name: String,
    /// The user that it is run as, by `setpriv`, where not our own.
    uid: Option<u32>,
}

/// What a command of the mesh's came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Done {
    /// The exit code; -1 where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Why no mesh can run here; the test prints it and passes.
pub fn unavailable() -> Option<String> {
    if effective_uid() == 0 {
        return None;
    }
    let tried = Command::new("unshare")
        .args(["-Urnm", "true"])
        .stderr(Stdio::null())
        .status();
    match tried {
        Ok(status) if status.success() => None,
        _ => Some("skipped: neither root nor user namespaces".to_owned()),
    }
}

fn effective_uid() -> u32 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find(|l| l.starts_with("Uid:"))?.to_owned();
            line.split_whitespace().nth(2)?.parse().ok()
        })
        .unwrap_or(u32::MAX)
}

impl Mesh {
    /// Starts a mesh from sources (files or directories) with further words for `up`; returns when all is ready.
    ///
    /// # Panics
    /// It does not come up: with what it said.
    pub fn start(program: &Path, hint: &str, sources: &[&Path], words: &[&str]) -> Self {
        match Self::try_start(program, hint, sources, words, None) {
            Ok(mesh) => mesh,
            Err(done) => panic!("the mesh did not come up: {done:?}"),
        }
    }

    /// As [`Self::start`], as another user where one is given.
    ///
    /// # Errors
    /// What `up` said.
    pub fn try_start(
        program: &Path,
        hint: &str,
        sources: &[&Path],
        words: &[&str],
        uid: Option<u32>,
    ) -> Result<Self, Done> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mesh = Self {
            program: program.to_owned(),
            name: format!("{hint}-{}-{number}", std::process::id() % 100_000),
            uid,
        };
        let mut up: Vec<String> = ["up", "--detach", "--wait", START].map(str::to_owned).into();
        up.extend(words.iter().map(|w| (*w).to_owned()));
        up.extend(sources.iter().map(|s| s.display().to_string()));
        let up: Vec<&str> = up.iter().map(String::as_str).collect();
        let done = mesh.run(&up);
        if done.code == 0 { Ok(mesh) } else { Err(done) }
    }

    /// The mesh's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// A command of the program on this mesh, not started yet.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = match self.uid {
            None => Command::new(&self.program),
            Some(uid) => {
                let mut command = Command::new("setpriv");
                command.args([
                    &format!("--reuid={uid}"),
                    &format!("--regid={uid}"),
                    "--clear-groups",
                ]);
                command.arg(&self.program);
                command
            }
        };
        command.args(words).env("MESHWARD_NAME", &self.name);
        command
    }

    /// Runs a command of the program on this mesh.
    pub fn run(&self, words: &[&str]) -> Done {
        self.run_with(words, "")
    }

    /// As [`Self::run`], with something on standard input.
    ///
    /// # Panics
    /// The program cannot be started.
    pub fn run_with(&self, words: &[&str], input: &str) -> Done {
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
            .unwrap_or_else(|e| panic!("{}: {e}", self.program.display()));
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child
            .wait_with_output()
            .unwrap_or_else(|e| panic!("{words:?}: {e}"));
        Done {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a program in a pod.
    pub fn exec(&self, namespace: &str, target: &str, program: &[&str]) -> Done {
        let mut words = vec!["exec", "-n", namespace, target, "--"];
        words.extend_from_slice(program);
        self.run(&words)
    }

    /// Runs curl in a pod with `-s` and a time limit, and returns its status code (0 where there was no answer), its exit
    /// code and the body.
    pub fn curl(&self, namespace: &str, target: &str, words: &[&str]) -> Curled {
        let mut program = vec![
            "curl",
            "-s",
            "--max-time",
            "10",
            "-o",
            "-",
            "-w",
            "\n%{http_code}",
        ];
        program.extend_from_slice(words);
        let done = self.exec(namespace, target, &program);
        let (body, code) = done.stdout.rsplit_once('\n').unwrap_or(("", &done.stdout));
        Curled {
            code: code.trim().parse().unwrap_or(0),
            exit: done.code,
            body: body.to_owned(),
            stderr: done.stderr,
        }
    }

    /// Applies objects and waits until they are in force.
    ///
    /// # Panics
    /// They are not taken.
    pub fn apply(&self, yaml: &str) {
        let done = self.run_with(&["apply", "-f", "-"], yaml);
        assert_eq!(done.code, 0, "apply: {done:?}\n{yaml}");
    }

    /// Deletes the objects of a text.
    ///
    /// # Panics
    /// They are not deleted.
    pub fn delete(&self, yaml: &str) {
        let done = self.run_with(&["delete", "-f", "-"], yaml);
        assert_eq!(done.code, 0, "delete: {done:?}\n{yaml}");
    }

    /// What a command prints with `-o json`.
    ///
    /// # Panics
    /// It is not one JSON document.
    pub fn json(&self, words: &[&str]) -> Value {
        let words: Vec<_> = words.iter().copied().chain(["-o", "json"]).collect();
        let done = self.run(&words);
        serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{words:?}: {e}: {done:?}"))
    }

    /// The row of a pod, by its name or by the name of what owns it.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Value> {
        let rows = self.json(&["ps", "-A"]);
        rows.as_array()?
            .iter()
            .find(|row| row["namespace"] == namespace && (row["name"] == name || row["workload"] == name))
            .cloned()
    }

    /// The access log so far, of all proxies, each line whole.
    pub fn access_log(&self) -> Vec<Value> {
        let done = self.run(&["logs", "--access", "-o", "json"]);
        serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("logs --access: {e}: {done:?}"))
    }

    /// Ends it.
    pub fn down(&self) -> Done {
        self.run(&["down"])
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let _ = self.down();
    }
}

/// What curl said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Curled {
    /// The status code; 0 where there was no answer.
    pub code: u16,
    /// curl's exit code.
    pub exit: i32,
    /// The body.
    pub body: String,
    /// What else it said.
    pub stderr: String,
}

/// Asks again until it is so; for what comes about by itself.
///
/// # Panics
/// It is not so within the time.
pub fn within(limit: Duration, what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    loop {
        if so() {
            return;
        }
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
