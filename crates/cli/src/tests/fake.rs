//! A mesh of scripted answers behind real sockets.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use admin::{Call, Failure, Handler, RunDir};
use serde_json::{Value, json};

use crate::args::Colour;
use crate::mesh::Mesh;
use crate::out::Out;
use crate::{Ask, Command, args};

/// What one verb answers.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) items: Vec<Value>,
    pub(super) end: Result<Value, Failure>,
    /// Whether the answer stays open after the items until the caller hangs up.
    pub(super) stays: bool,
}

impl Script {
    pub(super) fn items(items: impl IntoIterator<Item = Value>) -> Self {
        Self {
            items: items.into_iter().collect(),
            end: Ok(Value::Null),
            stays: false,
        }
    }

    pub(super) fn ok(value: Value) -> Self {
        Self {
            end: Ok(value),
            ..Self::items([])
        }
    }

    pub(super) fn fails(failure: Failure) -> Self {
        Self {
            end: Err(failure),
            ..Self::items([])
        }
    }
}

/// What a verb does with the descriptors that come with it.
type WithFds = Box<dyn Fn(Vec<OwnedFd>) + Send + Sync>;

/// One socket's answers, and what was asked of it.
#[derive(Default)]
pub(super) struct Desk {
    scripts: BTreeMap<&'static str, Script>,
    asked: Mutex<Vec<(String, Value)>>,
    with_fds: Option<WithFds>,
    hung_up: tokio::sync::Notify,
}

impl Desk {
    pub(super) fn answers(mut self, verb: &'static str, script: Script) -> Self {
        self.scripts.insert(verb, script);
        self
    }

    pub(super) fn with_fds(mut self, act: impl Fn(Vec<OwnedFd>) + Send + Sync + 'static) -> Self {
        self.with_fds = Some(Box::new(act));
        self
    }

    pub(super) fn asked(&self) -> Vec<(String, Value)> {
        self.asked.lock().unwrap().clone()
    }

    /// Returns when a caller of an answer that stays open is gone.
    pub(super) async fn hung_up(&self) {
        self.hung_up.notified().await;
    }
}

impl Handler for Desk {
    async fn call(&self, mut call: Call) -> Result<Value, Failure> {
        self.asked
            .lock()
            .unwrap()
            .push((call.verb.clone(), call.body.clone()));
        let Some(script) = self.scripts.get(call.verb.as_str()).cloned() else {
            return Err(Failure::usage(format!("no verb `{}`", call.verb)));
        };
        let fds = std::mem::take(&mut call.fds);
        if let Some(act) = &self.with_fds {
            tokio::task::block_in_place(|| act(fds));
        }
        for item in &script.items {
            let _ = call.items.send(item).await;
        }
        if script.stays {
            call.items.closed().await;
            self.hung_up.notify_one();
        }
        script.end
    }
}

/// What a command printed, and its exit code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Said {
    pub(super) code: u8,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Said {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A mesh whose parts are [`Desk`]s.
pub(super) struct Fake {
    pub(super) dir: tempfile::TempDir,
    run: RunDir,
}

/// Bytes that were written, kept.
#[derive(Clone, Default)]
pub(super) struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Fake {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::at(dir.path().join("mesh"));
        run.create().unwrap();
        Self { dir, run }
    }

    pub(super) fn mesh(&self) -> Mesh {
        Mesh::at("default", self.run.clone())
    }

    pub(super) async fn up(&self, desk: Desk) -> Arc<Desk> {
        serve(&self.run.up_socket(), desk).await
    }

    /// An `up` that knows these nodes.
    pub(super) async fn nodes(&self, nodes: &[&str]) -> Arc<Desk> {
        let info = json!({
            "name": "default", "profile": "secure", "nodes": nodes, "processes": {"up": 7}, "ready": true,
            "waitingFor": [], "sources": [], "ports": [],
        });
        let page = json!({ "status": 200, "text": "citadel_server_csr_count 1\n# EOF\n" });
        let desk = Desk::default()
            .answers("info", Script::ok(info))
            .answers("page", Script::ok(page));
        self.up(desk).await
    }

    pub(super) async fn control(&self, desk: Desk) -> Arc<Desk> {
        serve(&self.run.control_socket(), desk).await
    }

    pub(super) async fn ca(&self, desk: Desk) -> Arc<Desk> {
        serve(&self.run.ca_socket(), desk).await
    }

    pub(super) async fn proxy(&self, node: &str, desk: Desk) -> Arc<Desk> {
        serve(&self.run.proxy_socket(node), desk).await
    }

    /// Runs a command line on it.
    pub(super) async fn run(&self, words: &[&str]) -> Said {
        let (stdout, stderr) = (Kept::default(), Kept::default());
        let code = self.run_to(words, stdout.clone(), stderr.clone()).await;
        Said {
            code,
            stdout: stdout.text(),
            stderr: stderr.text(),
        }
    }

    pub(super) async fn run_to(
        &self,
        words: &[&str],
        stdout: impl Write + Send + 'static,
        stderr: impl Write + Send + 'static,
    ) -> u8 {
        let words = std::iter::once("meshward")
            .chain(words.iter().copied())
            .map(Into::into)
            .collect();
        let Command::Ask(Ask { asked, colour, .. }) = args::parse(words).unwrap() else {
            panic!("not a question");
        };
        assert_eq!(colour, Colour::Auto);
        let mut out = Out::to(stdout, stderr);
        let done = crate::asked(&self.mesh(), &asked, &mut out).await;
        out.finish(done)
    }
}

async fn serve(path: &std::path::Path, desk: Desk) -> Arc<Desk> {
    let desk = Arc::new(desk);
    let (at, answering) = (path.to_owned(), Arc::clone(&desk));
    tokio::spawn(async move { admin::serve(&at, answering).await });
    while tokio::net::UnixStream::connect(path).await.is_err() {
        tokio::task::yield_now().await;
    }
    desk
}
