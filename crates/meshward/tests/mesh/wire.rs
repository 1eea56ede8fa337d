//! What crosses the wire between two nodes: mutual TLS, and nothing else that could be read.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::world::start;

#[test]
fn between_nodes_there_is_tls_and_nothing_else() {
    let Some(mesh) = start("wire", &["--profile", "istio"]) else {
        return;
    };
    if Command::new("tcpdump").arg("--version").output().is_err() {
        println!("skipped: tcpdump is not installed");
        return;
    }
    let rows = mesh.json(&["ps", "-n", "m"]);
    let rows = rows.as_array().unwrap();
    let client = rows.iter().find(|r| r["workload"] == "client").unwrap();
    let far = rows
        .iter()
        .find(|r| r["workload"] == "server" && r["node"] != client["node"])
        .unwrap();
    let to = far["ip"].as_str().unwrap();
    let file = std::env::temp_dir().join(format!("meshward-wire-{}.pcap", std::process::id()));
    let hub = format!("/run/netns/mw-{}-hub", mesh.name());
    let mut dump = Command::new("nsenter")
        .arg(format!("--net={hub}"))
        .args(["tcpdump", "--immediate-mode", "-U", "-n", "-i", "any", "-w"])
        .arg(&file)
        .args(["tcp", "and", "host", to])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Listening is announced.
    let mut said = std::io::BufReader::new(dump.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("listening on") {
        line.clear();
        assert!(
            std::io::BufRead::read_line(&mut said, &mut line).unwrap() > 0,
            "tcpdump ended"
        );
    }
    let secret = "a-word-that-nobody-else-says";
    for url in [
        format!("http://{to}:8000/{secret}"),
        format!("http://{to}:7080/{secret}"),
    ] {
        let got = mesh.curl("m", "client", &["-H", &format!("X-Secret: {secret}"), &url]);
        assert_eq!(got.code, 200, "{got:?}");
        assert!(got.body.contains(secret));
    }
    std::thread::sleep(Duration::from_millis(500));
    let _ = Command::new("kill").arg(dump.id().to_string()).status();
    dump.wait().unwrap();
    let seen = std::fs::read(&file).unwrap();
    let _ = std::fs::remove_file(&file);
    let contains = |needle: &[u8]| seen.windows(needle.len()).any(|w| w == needle);
    assert!(seen.len() > 2000, "nothing was seen: {} bytes", seen.len());
    assert!(
        contains(&[0x16, 0x03, 0x01]) && contains(&[0x17, 0x03, 0x03]),
        "no TLS was seen"
    );
    assert!(!contains(secret.as_bytes()), "the secret crossed the wire");
    assert!(
        !contains(b"HTTP/1.1") && !contains(b"PRI * HTTP/2"),
        "plaintext crossed the wire"
    );
}
