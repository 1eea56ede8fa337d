//! The admin socket: a server of its own, to which every input is sent as one connection.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use admin::verbs::{Apply, Delete, Exec, Get};
use admin::{Call, Failure, Handler};
use serde_json::Value;

/// Longer than any answer takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(20);

static SERVER: LazyLock<Server> = LazyLock::new(Server::start);
/// Calls that were answered: a task that panics answers nothing.
static PANICS: AtomicU64 = AtomicU64::new(0);

struct Server {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

struct Parse;

impl Handler for Parse {
    async fn call(&self, mut call: Call) -> Result<Value, Failure> {
        match call.verb.as_str() {
            "apply" => drop(call.parse::<Apply>()?),
            "delete" => drop(call.parse::<Delete>()?),
            "exec" => drop(call.parse::<Exec>()?),
            _ => drop(call.parse::<Get>()?),
        }
        Ok(Value::Null)
    }
}

impl Server {
    fn start() -> Self {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            hook(info);
        }));
        let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("no directory for a socket: {e}"));
        let path = dir.path().join("admin.sock");
        let at = path.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap_or_else(|e| panic!("no runtime: {e}"));
            let end = runtime.block_on(admin::serve(&at, Arc::new(Parse)));
            panic!("the admin server ended: {end:?}");
        });
        Self { path, _dir: dir }
    }

    fn connect(&self) -> UnixStream {
        for _ in 0..1000 {
            if let Ok(stream) = UnixStream::connect(&self.path) {
                return stream;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("nobody listens at the admin socket");
    }
}

pub(crate) fn run(input: &[u8]) {
    let server = &*SERVER;
    let before = PANICS.load(Ordering::Relaxed);
    let mut stream = server.connect();
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let _ = stream.set_write_timeout(Some(PATIENCE));
    // The server may hang up before it has read everything.
    let _ = stream.write_all(input);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("no answer in {PATIENCE:?}"),
        _ => {}
    }
    assert_eq!(PANICS.load(Ordering::Relaxed), before, "the server panicked");
}
