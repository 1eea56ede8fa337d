//! A mesh that a test has for itself, and the questions that tests ask of it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use admin::RunDir;
use admin::verbs::{Exec, Exited, Info, Logs, PodRow};
use serde_json::{Value, json};

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct Mesh {
    pub(crate) name: String,
    /// Its sources are in it, and the directory of all meshes.
    pub(crate) dir: tempfile::TempDir,
    /// Words in front of the program's own: who it runs as.
    before: Vec<String>,
    up: Option<Child>,
}

/// `NAME BASE SOURCES [IMAGE=COMMAND]...`
pub(crate) fn parse(words: &[String]) -> cli::Up {
    cli::Up {
        name: words[0].clone(),
        sources: vec![PathBuf::from(&words[1])],
        recursive: false,
        nodes: 2,
        profile: model::Profile::Secure,
        detach: false,
        wait_ms: 10_000,
        local_tls: false,
        json_log: true,
        images: words[2..]
            .iter()
            .map(|pair| {
                pair.split_once('=')
                    .map(|(a, b)| (a.to_owned(), b.to_owned()))
                    .unwrap()
            })
            .collect(),
        json: false,
        leaf_lifetime_s: 0,
        jwks_allow: Vec::new(),
        dns_upstreams: Vec::new(),
        metrics_allow: Vec::new(),
        cacerts: None,
        quiet: false,
    }
}

impl Mesh {
    pub(crate) fn new(name: &str, objects: &str) -> Self {
        Self::with(name, objects, &[])
    }

    pub(crate) fn with(name: &str, objects: &str, before: &[&str]) -> Self {
        let mesh = Self {
            // Others may run the same test.
            name: format!("{name}-{}", std::process::id() % 10_000),
            dir: tempfile::Builder::new().prefix("mw").tempdir().unwrap(),
            before: before.iter().map(|word| (*word).to_owned()).collect(),
            up: None,
        };
        std::fs::create_dir(mesh.sources()).unwrap();
        std::fs::create_dir(mesh.dir.path().join("run")).unwrap();
        mesh.write(objects);
        mesh
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn sources(&self) -> PathBuf {
        self.dir.path().join("sources")
    }

    /// Replaces what is wanted.
    pub(crate) fn write(&self, objects: &str) {
        let new = self.sources().join(".new");
        std::fs::write(&new, objects).unwrap();
        std::fs::rename(new, self.sources().join("all.yaml")).unwrap();
    }

    pub(crate) fn run(&self) -> RunDir {
        RunDir::at(self.dir.path().join("run").join(&self.name))
    }

    /// This program as a part of the mesh's command line.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let exe = std::env::current_exe().unwrap();
        let mut all: Vec<String> = self.before.clone();
        all.push(exe.to_str().unwrap().to_owned());
        all.extend(words.iter().map(|word| (*word).to_owned()));
        let mut command = Command::new(&all[0]);
        command
            .args(&all[1..])
            .env(admin::BASE_VARIABLE, self.dir.path().join("run"));
        command
    }

    pub(crate) fn up(&mut self) {
        self.up_with(&[]);
        self.ready();
    }

    pub(crate) fn up_with(&mut self, images: &[&str]) {
        let sources = self.sources();
        let mut words = vec!["up", &self.name, sources.to_str().unwrap()];
        words.extend(images);
        let log = std::fs::File::create(self.dir.path().join("up.err")).unwrap();
        let child = self
            .command(&words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.up = Some(child.unwrap());
    }

    /// What `up` has told.
    pub(crate) fn told(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("up.err")).unwrap()
    }

    /// Waits until all is ready.
    pub(crate) fn ready(&self) -> Info {
        self.wait("everything to be ready", || self.info().filter(|info| info.ready))
    }

    pub(crate) fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let since = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            if since.elapsed() > LIMIT {
                let logs = self.run().logs();
                let control = std::fs::read_to_string(logs.join("control.log")).unwrap_or_default();
                let missing = self.info().map(|info| info.waiting_for);
                panic!("waited for {what}\n{}\n{missing:?}\n{control}", self.told());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn info(&self) -> Option<Info> {
        let info = self.ask("info").ok()?;
        Some(serde_json::from_value(info).unwrap())
    }

    /// Asks as whoever the mesh is of: nobody else is answered.
    fn ask(&self, verb: &str) -> Result<Value, String> {
        let socket = self.run().up_socket();
        if self.before.is_empty() {
            return ask(&socket, verb, Value::Null, Vec::new());
        }
        let words = ["ask", socket.to_str().unwrap(), verb, "null"];
        let output = self.command(&words).output().unwrap();
        serde_json::from_slice(&output.stdout)
            .map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// All pods; none while nobody answers.
    pub(crate) fn ps(&self) -> Vec<PodRow> {
        let asked = self.ask("ps");
        asked
            .map(|rows| serde_json::from_value(rows).unwrap())
            .unwrap_or_default()
    }

    /// The pods of a workload that are not on their way out.
    pub(crate) fn pods(&self, workload: &str) -> Vec<PodRow> {
        let mut rows = self.ps();
        rows.retain(|row| row.workload == workload && row.phase != "Terminating");
        rows
    }

    /// Waits until the workload has one pod that fits.
    pub(crate) fn pod(&self, workload: &str, fits: impl Fn(&PodRow) -> bool) -> PodRow {
        self.wait(&format!("a pod of {workload}"), || {
            self.pods(workload).into_iter().find(|row| fits(row))
        })
    }

    /// The code and what was printed.
    pub(crate) fn exec(&self, target: &str, script: &str, input: &str) -> Result<(i32, String), String> {
        let (stdin, mut write) = std::io::pipe().unwrap();
        let (mut read, stdout) = std::io::pipe().unwrap();
        let fds = vec![
            OwnedFd::from(stdin),
            OwnedFd::from(stdout.try_clone().unwrap()),
            OwnedFd::from(stdout),
        ];
        write.write_all(input.as_bytes()).unwrap();
        drop(write);
        let asked = ask(&self.run().up_socket(), "exec", json!(exec(target, script)), fds);
        let exited: Exited = serde_json::from_value(asked?).unwrap();
        let mut output = String::new();
        read.read_to_string(&mut output).unwrap();
        Ok((exited.code, output))
    }

    pub(crate) fn logs(&self, target: &str) -> Vec<String> {
        let body = Logs {
            namespace: "ns".to_owned(),
            target: target.to_owned(),
            container: None,
            follow: false,
            tail: None,
        };
        let mut lines = Vec::new();
        runtime().block_on(async {
            let mut answer = admin::call(&self.run().up_socket(), "logs", json!(body), Vec::new())
                .await
                .unwrap();
            while let Some(line) = answer.item().await {
                lines.push(line.as_str().unwrap().to_owned());
            }
        });
        lines
    }

    /// What the control plane was told.
    pub(crate) fn reported(&self) -> Vec<Value> {
        let reported = ask(&self.run().control_socket(), "reported", Value::Null, Vec::new()).unwrap();
        serde_json::from_value(reported).unwrap()
    }

    pub(crate) fn pid(&self, process: &str) -> Option<u32> {
        self.info()?.processes.get(process).copied()
    }

    /// Ends it by `down`, and sees that nothing is left.
    pub(crate) fn down(&mut self) {
        let down = self.command(&["down", &self.name]).output().unwrap();
        let text = String::from_utf8_lossy(&down.stderr);
        assert_eq!(down.status.code(), Some(0), "{text}");
        if let Some(mut up) = self.up.take() {
            up.wait().unwrap();
        }
        self.nothing_is_left();
    }

    pub(crate) fn nothing_is_left(&self) {
        assert_eq!(self.namespaces(), Vec::<String>::new());
        assert!(!self.run().root().exists());
        assert_eq!(self.processes(), Vec::<String>::new());
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(&format!("mw-{}-", self.name)), "{mounts}");
    }

    pub(crate) fn namespaces(&self) -> Vec<String> {
        capture::Netns::list(&format!("mw-{}-", self.name)).unwrap()
    }

    /// Processes that have to do with this mesh: by words, for a process of any user's.
    pub(crate) fn processes(&self) -> Vec<String> {
        let marker = self.dir.path().to_str().unwrap();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            let ours = String::from_utf8_lossy(&environment).contains(marker) || words.contains(marker);
            if ours && !words.is_empty() {
                found.push(format!("{:?} {words}", entry.file_name()));
            }
        }
        found
    }

    /// Ends `up` with a signal and waits for it; its exit code.
    pub(crate) fn signal(&mut self, signal: rustix::process::Signal) -> Option<i32> {
        let mut up = self.up.take().unwrap();
        let pid = rustix::process::Pid::from_child(&up);
        rustix::process::kill_process(pid, signal).unwrap();
        up.wait().unwrap().code()
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if let Some(mut up) = self.up.take() {
            if std::thread::panicking() {
                println!("{}", self.told());
            }
            let _ = up.kill();
            let _ = up.wait();
            let _ = self.command(&["down", &self.name]).output();
        }
    }
}

pub(crate) fn exec(target: &str, script: &str) -> Exec {
    Exec {
        namespace: "ns".to_owned(),
        target: target.to_owned(),
        container: None,
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        tty: false,
        env: BTreeMap::new(),
    }
}

/// `SOCKET VERB BODY`: the answer as JSON; of `exec` only its exit code, for the command prints.
pub(crate) fn ask_and_print(words: &[String]) -> u8 {
    let [socket, verb, body] = words else {
        panic!("{words:?}");
    };
    let own = || -> Vec<OwnedFd> {
        let own = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
        vec![
            own(std::io::stdin().as_fd()),
            own(std::io::stdout().as_fd()),
            own(std::io::stderr().as_fd()),
        ]
    };
    let fds = if verb == "exec" { own() } else { Vec::new() };
    match ask(Path::new(socket), verb, serde_json::from_str(body).unwrap(), fds) {
        Ok(answer) if verb == "exec" => {
            let exited: Exited = serde_json::from_value(answer).unwrap();
            u8::try_from(exited.code).unwrap()
        }
        Ok(answer) => {
            println!("{answer}");
            0
        }
        Err(why) => {
            eprintln!("{why}");
            1
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

pub(crate) fn ask(socket: &Path, verb: &str, body: Value, fds: Vec<OwnedFd>) -> Result<Value, String> {
    let asking = async {
        let answer = admin::call(socket, verb, body, fds)
            .await
            .map_err(|error| error.to_string())?;
        answer.finish().await.map_err(|failure| failure.message)
    };
    runtime().block_on(async { tokio::time::timeout(LIMIT, asking).await.unwrap() })
}
