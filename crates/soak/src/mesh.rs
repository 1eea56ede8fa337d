//! The mesh that is soaked: started by the program itself, reached by its sockets, and taken down whatever comes.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use admin::RunDir;
use admin::verbs::{Apply, Delete, Document, Info, Part, PartOrder, PodRow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinSet;

use crate::news::News;

/// What runs in it.
pub(crate) const WORLD: &str = include_str!("world.yaml");
/// The lifetime of leaves: they are renewed within it.
const LEAF_LIFETIME: &str = "10s";
/// How long a stream or a connection of the load lasts, milliseconds: less than a proxy that stops waits for.
const STREAM_MS: &str = "2000";
/// How long until all must be ready.
const START: &str = "120s";
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(60);

/// A mesh.
pub(crate) struct Mesh {
    exe: PathBuf,
    name: String,
    run: RunDir,
    directory: PathBuf,
}

/// The load of all clients.
pub(crate) struct Load {
    running: JoinSet<Result<(), String>>,
    /// With the end of these the load ends.
    inputs: Vec<ChildStdin>,
}

impl Mesh {
    /// Starts one; returns when all is ready.
    pub(crate) async fn start(quiet: bool) -> Result<Self, String> {
        let exe =
            std::env::current_exe().map_err(|error| format!("cannot tell what program this is: {error}"))?;
        let name = format!("soak-{}", std::process::id());
        let run = RunDir::of(&name).map_err(|error| error.to_string())?;
        let directory = std::env::temp_dir().join(&name);
        std::fs::create_dir_all(&directory)
            .map_err(|error| format!("cannot make `{}`: {error}", directory.display()))?;
        let world = directory.join("world.yaml");
        std::fs::write(&world, WORLD)
            .map_err(|error| format!("cannot write `{}`: {error}", world.display()))?;
        let mesh = Self {
            exe,
            name,
            run,
            directory,
        };
        let mut up = mesh.command(&[
            "up",
            "--detach",
            "--wait",
            START,
            "--leaf-lifetime",
            LEAF_LIFETIME,
        ]);
        up.arg(&world).stdout(Stdio::null());
        if quiet {
            up.arg("--quiet").stderr(Stdio::null());
        }
        let status = up
            .status()
            .await
            .map_err(|error| format!("cannot start a mesh: {error}"))?;
        if status.success() {
            return Ok(mesh);
        }
        mesh.down().await;
        Err("the mesh did not come up".to_owned())
    }

    /// Ends it.
    pub(crate) async fn down(&self) {
        let mut down = self.command(&["down"]);
        let _ = down.stdout(Stdio::null()).stderr(Stdio::null()).status().await;
        let _ = std::fs::remove_dir_all(&self.directory);
    }

    /// The program with these words, on this mesh.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.exe);
        command
            .args(words)
            .env("MESHWARD_NAME", &self.name)
            .kill_on_drop(true);
        command.stdin(Stdio::null());
        command
    }

    /// Begins the load of every client, whose lines go to `news`.
    pub(crate) async fn load(&self, rate: u32, news: &News) -> Result<Load, String> {
        let rows: Vec<PodRow> = self.up("ps", Value::Null).await?;
        let mut running = JoinSet::new();
        let mut inputs = Vec::new();
        let (exe, rate) = (self.exe.display().to_string(), rate.to_string());
        for row in rows.iter().filter(|row| row.workload == "client") {
            let mut words = vec![
                "exec",
                "-i",
                "-n",
                "soak",
                row.name.as_str(),
                "--",
                exe.as_str(),
                "workload",
                "load",
            ];
            words.extend(["--http", "server.soak:8080", "--grpc", "server.soak:7070"]);
            words.extend([
                "--tcp",
                "server.soak:9000",
                "--rate",
                &rate,
                "--stream",
                STREAM_MS,
            ]);
            let mut child = self
                .command(&words)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .map_err(|error| format!("cannot start the load: {error}"))?;
            let out = child.stdout.take().ok_or("the load says nothing")?;
            inputs.extend(child.stdin.take());
            let news = news.of_client();
            running.spawn(async move {
                let mut lines = BufReader::new(out).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    news.take(&line)?;
                }
                ended(child).await
            });
        }
        if running.len() < 2 {
            return Err("there are no two clients".to_owned());
        }
        Ok(Load { running, inputs })
    }

    /// Gives an order to a part.
    pub(crate) async fn order(&self, name: &str, order: PartOrder) -> Result<(), String> {
        let part = Part {
            name: name.to_owned(),
            order,
        };
        self.up::<Value>("part", body(&part)?).await.map(drop)
    }

    /// Kills a part's process, as nobody asks it.
    pub(crate) async fn kill(&self, name: &str) -> Result<(), String> {
        let info: Info = self.up("info", Value::Null).await?;
        let pid = info.processes.get(name).and_then(|pid| i32::try_from(*pid).ok());
        let pid = pid.ok_or_else(|| format!("{name} does not run"))?;
        kill(Pid::from_raw(pid), Signal::SIGKILL).map_err(|error| format!("{name}: {error}"))
    }

    /// Applies objects, and waits so long until they are in force.
    pub(crate) async fn apply(&self, text: String, wait: Duration) -> Result<(), String> {
        let apply = Apply {
            documents: vec![document(text)],
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            dry_run: false,
        };
        self.control::<Value>("apply", body(&apply)?).await.map(drop)
    }

    /// Deletes the objects of a text.
    pub(crate) async fn delete(&self, text: String) -> Result<(), String> {
        let delete = Delete {
            documents: vec![document(text)],
            ..Delete::default()
        };
        self.control::<Value>("delete", body(&delete)?).await.map(drop)
    }

    /// The largest resident memory of a proxy, KiB.
    pub(crate) async fn largest_proxy(&self) -> u64 {
        let Ok(info) = self.up::<Info>("info", Value::Null).await else {
            return 0;
        };
        let proxies = info
            .processes
            .iter()
            .filter(|(name, _)| name.starts_with("proxy-"));
        proxies.map(|(_, pid)| rss(*pid)).max().unwrap_or_default()
    }

    async fn up<T: DeserializeOwned>(&self, verb: &str, body: Value) -> Result<T, String> {
        ask(self.run.up_socket(), verb, body).await
    }

    async fn control<T: DeserializeOwned>(&self, verb: &str, body: Value) -> Result<T, String> {
        ask(self.run.control_socket(), verb, body).await
    }
}

impl Load {
    /// Ends it, and waits until what is under way has ended.
    pub(crate) async fn end(mut self) -> Result<(), String> {
        self.inputs.clear();
        while let Some(ended) = self.running.join_next().await {
            ended.map_err(|error| error.to_string())??;
        }
        Ok(())
    }
}

async fn ended(mut child: Child) -> Result<(), String> {
    let status = child.wait().await.map_err(|error| error.to_string())?;
    if status.success() {
        return Ok(());
    }
    Err(format!("the load ended early: {status}"))
}

async fn ask<T: DeserializeOwned>(socket: PathBuf, verb: &str, body: Value) -> Result<T, String> {
    let asked = tokio::time::timeout(ANSWER, async {
        let answer = admin::call(&socket, verb, body, Vec::new())
            .await
            .map_err(|error| error.to_string())?;
        let value = answer.finish().await.map_err(|failure| failure.message)?;
        serde_json::from_value(value).map_err(|error| format!("`{verb}`: {error}"))
    });
    asked.await.map_err(|_| format!("`{verb}`: no answer in time"))?
}

fn body(of: &impl Serialize) -> Result<Value, String> {
    serde_json::to_value(of).map_err(|error| error.to_string())
}

fn document(text: String) -> Document {
    Document {
        file: "soak".to_owned(),
        text,
    }
}

fn rss(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}
