//! WebSocket: the connection switches, and frames go both ways, whichever way it takes.

use crate::world::start;

/// Asks for a WebSocket, sends the frame `hi` once it has one, and prints the status line and the frame that comes.
const SCRIPT: &str = r#"
exec 3<>/dev/tcp/server.m/8000 || exit 1
printf 'GET / HTTP/1.1\r\nHost: server.m:8000\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' >&3
printf 'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n' >&3
IFS= read -r -t 10 status <&3
while IFS= read -r -t 10 line <&3 && [ "$line" != $'\r' ]; do :; done
printf '\x81\x82\x00\x00\x00\x00hi' >&3
frame=$(timeout 10 head -c 4 <&3 | od -An -tx1)
echo "${status%$'\r'} |$frame"
"#;

fn frames(hint: &str, words: &[&str]) {
    let Some(mesh) = start(hint, words) else {
        return;
    };
    let done = mesh.exec("m", "client", &["bash", "-c", SCRIPT]);
    assert_eq!(
        done.stdout.trim(),
        "HTTP/1.1 101 Switching Protocols | 81 02 68 69",
        "{words:?}: {done:?}"
    );
}

#[test]
fn between_nodes() {
    frames("ws", &["--profile", "istio"]);
}

#[test]
fn inside_a_node() {
    frames("ws-here", &["--profile", "istio", "--nodes", "1"]);
}

#[test]
fn inside_a_node_over_tls() {
    frames("ws-tls", &["--profile", "istio", "--nodes", "1", "--local-tls"]);
}
