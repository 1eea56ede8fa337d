//! Pods on the node's own network: outsiders like any other, and no stand-in for the node's proxy.

use testkit::mesh::{Mesh, unavailable};

use crate::world::{own, program};

/// A pod of the node's own network, as anybody may have it.
const ATTACKERS: &str = "apiVersion: v1
kind: Pod
metadata: {name: plain, namespace: legacy, labels: {app: plain}}
spec:
  hostNetwork: true
  containers: [{name: sleep, image: docker.io/curlimages/curl, command: [/bin/sleep, infinity]}]
";

/// Opens a connection with the mark of the node proxy's own sockets, and sends a request by it.
const FORGE: &str = "
import socket, sys
s = socket.socket()
s.settimeout(3)
try:
    s.setsockopt(socket.SOL_SOCKET, 36, 0x80)
    marked = 'marked'
except PermissionError:
    marked = 'unmarked'
try:
    s.connect((sys.argv[1], int(sys.argv[2])))
    s.sendall(b'GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n')
    got = s.recv(64)
except OSError as e:
    got = b''
print(marked, 'reached' if b'200 OK' in got else 'refused')
";

#[test]
fn cap_07_cap_16_a_pod_on_the_nodes_network_cannot_pass_for_the_proxy() {
    if let Some(why) = unavailable() {
        println!("{why}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("attackers.yaml");
    std::fs::write(&file, ATTACKERS).unwrap();
    let world = own("crates/meshward/tests/mesh/world.yaml");
    let mesh = Mesh::start(program(), "host", &[&world, &file], &["--nodes", "1"]);
    let rows = mesh.json(&["ps", "-n", "m"]);
    let server = rows
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["workload"] == "server");
    let ip = server.unwrap()["ip"].as_str().unwrap();
    for port in ["8000", "8200"] {
        let done = mesh.exec("legacy", "plain", &["python3", "-c", FORGE, ip, port]);
        assert_eq!(done.stdout.trim(), "unmarked refused", "port {port}: {done:?}");
    }
}
