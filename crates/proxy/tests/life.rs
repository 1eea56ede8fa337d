//! A proxy from start to end, alone in a network namespace of its own.
#![allow(
    clippy::unwrap_used,
    reason = "all of it is tests, the functions that they share included"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use proxy::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const METRICS: &str = "127.0.0.1:15090";

fn config(directory: &Path) -> Config {
    std::fs::create_dir(directory.join("workloads")).unwrap();
    let at = |name: &str| directory.join(name).display().to_string();
    let text = format!(
        r#"{{"node": "node-1", "trustDomain": "cluster.local", "control": "127.0.0.1:1", "ca": "127.0.0.1:2",
            "roots": "{}", "token": "{}", "workloads": "{}", "socket": "{}", "accessLog": "{}",
            "logFormat": "text", "metrics": ["{METRICS}"]}}"#,
        at("roots.pem"),
        at("token"),
        at("workloads"),
        at("socket"),
        at("access.log"),
    );
    let path = directory.join("config.json");
    std::fs::write(&path, text).unwrap();
    Config::read(&path).unwrap()
}

async fn get(path: &str) -> std::io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(METRICS).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Leaves the machine's network; threads that are made from now on are outside of it too.
fn alone() -> Result<(), String> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map_err(|e| e.to_string())?;
    let up = std::process::Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    match up {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("`ip link set lo up`: {other:?}")),
    }
}

#[tokio::test]
async fn it_starts_refuses_and_drains() {
    if let Err(why) = alone() {
        eprintln!("skipped: no network namespace: {why}");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let socket = config.socket.clone();
    let running = tokio::spawn(proxy::run(config));
    let begin = Instant::now();
    while !socket.exists() || get("/healthz/live").await.is_err() {
        assert!(!running.is_finished(), "{:?}", running.await);
        assert!(begin.elapsed() < Duration::from_secs(10), "it does not start");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let ready = get("/healthz/ready").await.unwrap();
    assert!(
        ready.contains(" 503 ") && ready.contains("no snapshot yet"),
        "{ready}"
    );
    assert!(!nix::sys::prctl::get_dumpable().unwrap());
    // What was not captured is nobody's: the connection is reset, and an event left.
    let mut stray = tokio::net::TcpStream::connect("127.0.0.1:15001").await.unwrap();
    let _ = stray.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(stray.read_u8().await.is_err());
    let metrics = get("/metrics").await.unwrap();
    let refused = r#"meshward_denials_total{reporter="source",reason="UNKNOWN_WORKLOAD"} 1"#;
    assert!(metrics.contains(refused), "{metrics}");

    nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(6), running).await;
    assert_eq!(ended.unwrap().unwrap(), Ok(()));
}
