//! Peers that are gone without a word, and those that take nothing: noticed, ended and freed, and nobody else waits for them.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::mesh::{Mesh, unavailable, within};

use crate::world::{How, attempt, program};

/// How long a connection may be silent before it is broken (`capture::socket::PEER_TIMEOUT`), and as much again for a slow
/// machine.
const NOTICED: Duration = Duration::from_secs(240);
/// What all readers that take nothing may cost a proxy, KiB: what each may hold, several times.
const HELD: u64 = 48 * 1024;
/// Slow readers of each kind.
const READERS: usize = 12;

/// A caller on one node, a callee on the other.
const WORLD: &str = "apiVersion: v1
kind: Namespace
metadata: {name: m, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: m}
spec:
  nodeName: node-0
  containers: [{name: c, image: curlimages/curl, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: m, labels: {app: server}}
spec:
  nodeName: node-1
  containers:
  - name: c
    image: endless
    ports: [{containerPort: 8000}, {containerPort: 9000}]
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: m}
spec:
  selector: {app: server}
  ports: [{name: http, port: 8000}, {name: tcp, port: 9000}]
";

/// Serves HTTP on 8000, with an answer that does not end at `/endless` and how many of those there are at `/`; on 9000 a
/// connection gets the same, or back what it sends where it begins with a line.
const SERVER: &str = r#"
import http.server, socket, socketserver, threading
lock, open_now = threading.Lock(), 0
def pour(write):
    global open_now
    with lock: open_now += 1
    try:
        while True: write(b'x' * 65536)
    except OSError: pass
    finally:
        with lock: open_now -= 1
class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        body = str(open_now).encode()
        endless = self.path == '/endless'
        self.send_response(200)
        self.send_header('content-length', str(1 << 40 if endless else len(body)))
        self.end_headers()
        if endless:
            pour(self.wfile.write)
            self.close_connection = True
        else: self.wfile.write(body)
    def log_message(self, *_): pass
class Lines(socketserver.BaseRequestHandler):
    def handle(self):
        global open_now
        first = self.request.recv(100)
        if first.startswith(b'pour'): return pour(self.request.sendall)
        with lock: open_now += 1
        try:
            while first:
                self.request.sendall(first)
                first = self.request.recv(100)
        except OSError: pass
        finally:
            with lock: open_now -= 1
class Threads(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address, daemon_threads, request_queue_size = True, True, 100
    address_family = socket.AF_INET6
threading.Thread(target=Threads(('', 9000), Lines).serve_forever, daemon=True).start()
print('ready', flush=True)
Threads(('', 8000), Web).serve_forever()
"#;

/// Holds connections that say nothing, and tells when all of them have ended.
const HOLDER: &str = r#"
import socket, select, sys
held = []
for _ in range(int(sys.argv[1])):
    one = socket.create_connection(('server', 9000)); one.sendall(b'hello\n'); one.recv(100); held.append(one)
print('held', flush=True)
while held:
    for one in select.select(held, [], [])[0]:
        try: data = one.recv(100)
        except OSError: data = b''
        if not data: held.remove(one)
print('ended', flush=True)
"#;

/// Asks for what does not end, half of it over HTTP, and takes a byte a second of each.
const READER: &str = r#"
import socket, sys, time
held = []
for at in range(2 * int(sys.argv[1])):
    one = socket.create_connection(('server', 8000 if at % 2 else 9000))
    one.sendall(b'GET /endless HTTP/1.1\r\nhost: server\r\n\r\n' if at % 2 else b'pour')
    one.recv(1); held.append(one)
print('held', flush=True)
while True:
    time.sleep(1)
    for one in held:
        try: one.recv(1)
        except OSError: pass
"#;

struct World {
    mesh: Mesh,
    _dir: tempfile::TempDir,
}

fn start(hint: &str) -> Option<World> {
    if let Some(why) = unavailable() {
        println!("{why}");
        return None;
    }
    if Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: python3 is not installed");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let (world, script) = (dir.path().join("world.yaml"), dir.path().join("server.py"));
    std::fs::write(&world, WORLD).unwrap();
    std::fs::write(&script, SERVER).unwrap();
    let image = format!("endless=python3 {}", script.display());
    let mesh = Mesh::start(
        program(),
        hint,
        &[&world],
        &["--profile", "istio", "--image", &image],
    );
    Some(World { mesh, _dir: dir })
}

/// A script that runs in the client's pod.
struct Script {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Script {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl World {
    fn run(&self, script: &str, count: usize) -> Script {
        let count = count.to_string();
        let words = ["exec", "-n", "m", "client", "--", "python3", "-c", script, &count];
        let mut child = self.mesh.command(&words).stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Script { child, said }
    }

    /// What the server has open that does not end, or only when its caller says so.
    fn open(&self) -> Option<usize> {
        let said = self.mesh.curl("m", "client", &["http://server:8000/"]);
        said.body.parse().ok().filter(|_| said.code == 200)
    }

    /// Connections of each proxy, and descriptors and resident KiB of its process.
    fn proxies(&self) -> Vec<(u64, usize, u64)> {
        let info = self.mesh.json(&["info"]);
        let proxies = self.mesh.json(&["proxies"]);
        let of = |proxy: &Value| {
            let part = format!("proxy-{}", proxy["node"].as_str().unwrap());
            let pid = info["processes"][part].as_u64().unwrap();
            let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let rss = rss.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            (
                proxy["connections"].as_u64().unwrap(),
                fds,
                rss.unwrap_or_default(),
            )
        };
        proxies.as_array().unwrap().iter().map(of).collect()
    }

    /// Sets the hub's end of the link to node 1 up or down.
    fn link(&self, state: &str) {
        let hub = format!("mw-{}-hub", self.mesh.name());
        let ip = |words: &[&str]| {
            let output = Command::new("ip").args(["-n", &hub]).args(words).output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        };
        let links = ip(&["-o", "link", "show", "type", "veth"]);
        let names = links
            .lines()
            .filter_map(|line| line.split(": ").nth(1)?.split('@').next());
        ip(&["link", "set", names.max().unwrap(), state]);
    }
}

#[test]
fn a_peer_that_vanishes_is_noticed_and_all_of_it_is_freed() {
    let Some(world) = start("vanish") else { return };
    let count = 10;
    assert_eq!(world.open(), Some(0));
    let before = world.proxies();
    let mut holder = world.run(HOLDER, count);
    assert_eq!(holder.line(), "held");
    assert_eq!(world.open(), Some(count));
    assert!(world.proxies().iter().all(|(open, ..)| *open >= 10));
    world.link("down");
    let begin = Instant::now();
    // Nobody says a word, and nobody closes anything but the proxies: that of the caller tells it, that of the callee its
    // application.
    assert_eq!(holder.line(), "ended");
    within(NOTICED, "both proxies have freed what was open", || {
        let after = world.proxies();
        before
            .iter()
            .zip(&after)
            .all(|(before, after)| after.0 <= before.0 && after.1 <= before.1 + 8)
    });
    println!("a peer that had vanished was noticed after {:?}", begin.elapsed());
    world.link("up");
    within(Duration::from_secs(60), "the way is there again", || {
        world.open() == Some(0)
    });
}

#[test]
fn slow_readers_are_ended_and_nobody_else_waits_for_them() {
    let Some(world) = start("slow") else { return };
    assert_eq!(world.open(), Some(0));
    let before = world.proxies();
    let mut reader = world.run(READER, READERS);
    assert_eq!(reader.line(), "held");
    let begin = Instant::now();
    let mut most = 0;
    within(NOTICED, "what is not read is ended", || {
        // The same caller, by the same connection between the proxies: it is answered all the same.
        let open = world.open();
        assert!(open.is_some(), "others wait after {:?}", begin.elapsed());
        most = most.max(open.unwrap_or_default());
        for (before, after) in before.iter().zip(&world.proxies()) {
            assert!(after.2 <= before.2 + HELD, "{before:?} {after:?}");
        }
        most >= READERS && open == Some(0)
    });
    println!("slow readers were ended after {:?}", begin.elapsed());
    drop(reader);
    within(Duration::from_secs(30), "all of it is freed", || {
        let after = world.proxies();
        before
            .iter()
            .zip(&after)
            .all(|(before, after)| after.0 <= before.0 && after.1 <= before.1 + 8)
    });
    assert_eq!(attempt(&world.mesh, "m", How::Http, "server.m:8000"), "ok");
}
