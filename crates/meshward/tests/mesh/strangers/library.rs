//! HBONE with Istio's own library for it (`istio.io/istio/pkg/hbone`), which the set-up builds into `target/peers`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testkit::mesh::within;

use super::certificate::Certificate;
use super::tunnels::{AMBIENT, IN, OUT, TUNNELS};
use super::{CLIENT, SERVER, World, only, peer_authentication, streaming, word};
use crate::world::{compare, own};

/// The library's both ends in the pod `ambient`.
struct Peer {
    process: Child,
    log: PathBuf,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Peer {
    fn start(world: &World, program: &Path, certificate: &Certificate) -> Self {
        let pod = world.pod("legacy", "ambient");
        let netns = Path::new(pod["netns"].as_str().unwrap()).file_name().unwrap();
        let ip = world.ips("m", "server").swap_remove(0);
        let log = world.directory.path().join("library.log");
        let file = File::create(&log).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec"]).arg(netns).arg(program);
        command.arg("-cert").arg(&certificate.chain);
        command.arg("-key").arg(&certificate.key);
        command.arg("-roots").arg(&certificate.roots);
        command.args([
            "-serve",
            ":15008",
            "-proxy",
            &format!("{ip}:15008"),
            "-peer",
            SERVER,
        ]);
        for (local, port) in TUNNELS {
            command.args(["-tunnel", &format!("127.0.0.1:{local}={ip}:{port}")]);
        }
        // A tunnel to somewhere else than to whom it is asked of.
        command.args(["-tunnel", "127.0.0.1:37001=127.0.0.1:7000"]);
        let process = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        let peer = Self { process, log };
        within(Duration::from_secs(20), "the library is ready", || {
            peer.log().contains("ready\n")
        });
        peer
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

#[test]
fn istios_own_hbone_library_and_ours_understand_each_other() {
    let program = own("target/peers/hbone");
    if !program.is_file() {
        println!("skipped: hbone is not built: `./test peers` builds it where Go is installed");
        return;
    }
    let Some(world) = World::start_with("library", false) else {
        return;
    };
    let certificate = world.certificate("ambient");
    let peer = Peer::start(&world, &program, &certificate);
    let _streams = world.streams();
    let stranger = world.pod("legacy", "ambient");
    let _back = streaming::serve(&stranger, 8300);
    world.mesh.apply(&peer_authentication("STRICT"));
    let mut rows = Vec::new();
    for (principal, admitted) in [
        ("cluster.local/ns/legacy/sa/ambient", true),
        ("cluster.local/ns/m/sa/client", false),
    ] {
        world.mesh.apply(&only(principal));
        for (id, how, yes, no) in IN {
            let wanted = if admitted { yes } else { no };
            let got = word(world.call("legacy", "ambient", *how));
            rows.push((format!("in, {principal}: {id}"), (*wanted).to_owned(), got));
        }
        let wanted = if admitted { "streamed" } else { "grpc-status 7" };
        let got = streaming::call(&stranger, ([127, 0, 0, 1], 38300).into());
        rows.push((
            format!("in, {principal}: gRPC, streaming"),
            wanted.to_owned(),
            got,
        ));
    }
    for (id, how, yes, _) in OUT {
        let got = word(world.call("m", "client", *how));
        rows.push((format!("out: {id}"), (*yes).to_owned(), got));
    }
    let to = format!("{}:8300", stranger["ip"].as_str().unwrap());
    let got = streaming::call(&world.pod("m", "client"), to.parse().unwrap());
    rows.push(("out: gRPC, streaming".to_owned(), "streamed".to_owned(), got));
    let log = peer.log();
    compare(rows);
    let line = log.lines().find(|l| l.starts_with("tunnel CONNECT")).unwrap();
    assert!(
        line.contains(CLIENT) && line.contains("k8s.namespace.name=m"),
        "{line}"
    );
    let log = world.mesh.access_log();
    assert!(
        log.iter()
            .any(|l| l["wire"] == "hbone" && l["source"]["principal"] == AMBIENT),
        "{:#?}",
        log.last()
    );
}
