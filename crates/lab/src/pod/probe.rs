//! Questions to a container from inside its pod's network: does it listen, does it answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use api::PodSpec;
use capture::Netns;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::Pod;
use super::resolve::Launch;
use crate::answers::exec;

/// How long a connection to a port of the own pod may take.
const CONNECT: Duration = Duration::from_secs(1);
/// How much of an answer is read.
const MAX_ANSWER: u64 = 1024;

/// A `readinessProbe`.
#[derive(Debug)]
pub(super) struct Probe {
    question: Question,
    pub(super) initial_delay: Duration,
    pub(super) period: Duration,
    timeout: Duration,
    pub(super) successes: u32,
    pub(super) failures: u32,
}

#[derive(Debug)]
enum Question {
    Http {
        port: u16,
        path: String,
        headers: Vec<(String, String)>,
    },
    Tcp(u16),
    Exec(Vec<String>),
    /// One that has no meaning here; taken as answered.
    Other,
}

impl Probe {
    /// Reads one as Kubernetes writes it.
    pub(super) fn read(probe: &Value, spec: &PodSpec, container: &str) -> Self {
        let number = |name: &str, default: u64| probe.get(name).and_then(Value::as_u64).unwrap_or(default);
        let count =
            |name: &str, default: u64| u32::try_from(number(name, default)).unwrap_or(u32::MAX).max(1);
        Self {
            question: question(probe, spec, container),
            initial_delay: Duration::from_secs(number("initialDelaySeconds", 0)),
            period: Duration::from_secs(number("periodSeconds", 10).max(1)),
            timeout: Duration::from_secs(number("timeoutSeconds", 1).max(1)),
            successes: count("successThreshold", 1),
            failures: count("failureThreshold", 3),
        }
    }

    /// Asks.
    pub(super) async fn holds(&self, pod: &Pod, netns: &Arc<Netns>, launch: &Launch) -> bool {
        let asked = async {
            match &self.question {
                Question::Http { port, path, headers } => http(netns, &pod.ips, *port, path, headers).await,
                Question::Tcp(port) => connect(netns, &pod.ips, *port).await.is_some(),
                Question::Exec(argv) => exec::quiet(pod, &launch.name, argv, self.timeout).await == Some(0),
                Question::Other => true,
            }
        };
        tokio::time::timeout(self.timeout, asked).await.unwrap_or(false)
    }
}

fn question(probe: &Value, spec: &PodSpec, container: &str) -> Question {
    let port = |of: &Value| -> Option<u16> {
        let port = of.get("port")?;
        match port.as_u64() {
            Some(number) => u16::try_from(number).ok(),
            None => named_port(spec, container, port.as_str()?),
        }
    };
    let text = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).map(str::to_owned);
    if let Some(http) = probe.get("httpGet")
        && let Some(port) = port(http)
    {
        let headers = http.get("httpHeaders").and_then(Value::as_array);
        let header = |of: &Value| Some((text(of, "name")?, text(of, "value")?));
        return Question::Http {
            port,
            path: text(http, "path").unwrap_or_else(|| "/".to_owned()),
            headers: headers
                .map(|all| all.iter().filter_map(header).collect())
                .unwrap_or_default(),
        };
    }
    if let Some(port) = probe
        .get("tcpSocket")
        .or_else(|| probe.get("grpc"))
        .and_then(port)
    {
        return Question::Tcp(port);
    }
    let words = probe
        .get("exec")
        .and_then(|exec| exec.get("command"))
        .and_then(Value::as_array);
    match words {
        Some(words) => Question::Exec(
            words
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
        ),
        None => Question::Other,
    }
}

fn named_port(spec: &PodSpec, container: &str, name: &str) -> Option<u16> {
    let container = spec.containers.iter().find(|c| c.name == container)?;
    let number = name.parse().ok();
    number.or_else(|| {
        container
            .ports
            .iter()
            .find(|port| port.name == name)
            .map(|port| port.container_port)
    })
}

/// Whether every port takes connections, at the pod's address or on its loopback.
pub(super) async fn listens(netns: &Arc<Netns>, ips: &[IpAddr], ports: &[u16]) -> bool {
    for port in ports {
        if connect(netns, ips, *port).await.is_none() {
            return false;
        }
    }
    true
}

async fn connect(netns: &Arc<Netns>, ips: &[IpAddr], port: u16) -> Option<TcpStream> {
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let targets: Vec<SocketAddr> = ips
        .iter()
        .copied()
        .chain(loopback)
        .map(|ip| SocketAddr::from((ip, port)))
        .collect();
    let netns = Arc::clone(netns);
    // A socket stays in the namespace of the thread that made it.
    let sockets = tokio::task::spawn_blocking(move || {
        let made = |target: SocketAddr| {
            let socket = if target.is_ipv4() {
                TcpSocket::new_v4()
            } else {
                TcpSocket::new_v6()
            };
            Some((socket.ok()?, target))
        };
        netns
            .run(move || targets.into_iter().filter_map(made).collect::<Vec<_>>())
            .unwrap_or_default()
    });
    for (socket, target) in sockets.await.unwrap_or_default() {
        if let Ok(Ok(stream)) = tokio::time::timeout(CONNECT, socket.connect(target)).await {
            return Some(stream);
        }
    }
    None
}

async fn http(
    netns: &Arc<Netns>,
    ips: &[IpAddr],
    port: u16,
    path: &str,
    headers: &[(String, String)],
) -> bool {
    let Some(mut stream) = connect(netns, ips, port).await else {
        return false;
    };
    let host = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("host"))
        .map(|(_, value)| value.as_str());
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: kube-probe/1.30\r\nAccept: */*\r\nConnection: close\r\n",
        host.unwrap_or("localhost")
    );
    for (name, value) in headers
        .iter()
        .filter(|(name, _)| !name.eq_ignore_ascii_case("host"))
    {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    if stream.write_all(request.as_bytes()).await.is_err() {
        return false;
    }
    let mut answer = Vec::new();
    let mut stream = stream.take(MAX_ANSWER);
    while answer.len() < 12 {
        match stream.read_buf(&mut answer).await {
            Ok(1..) => {}
            _ => return false,
        }
    }
    let code = answer
        .get(9..12)
        .and_then(|code| std::str::from_utf8(code).ok()?.parse::<u16>().ok());
    answer.starts_with(b"HTTP/1.") && code.is_some_and(|code| (200..400).contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn probes_are_read_as_kubernetes_writes_them() {
        let spec: PodSpec = serde_json::from_value(json!({
            "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}],
        }))
        .unwrap();
        let read = |value| Probe::read(&value, &spec, "c");
        let http = read(
            json!({"httpGet": {"port": "web", "path": "/ok"}, "periodSeconds": 2, "failureThreshold": 1}),
        );
        assert!(matches!(&http.question, Question::Http { port: 8080, path, .. } if path == "/ok"));
        assert_eq!(
            (http.period, http.failures, http.successes),
            (Duration::from_secs(2), 1, 1)
        );
        assert!(matches!(
            read(json!({"tcpSocket": {"port": 9000}})).question,
            Question::Tcp(9000)
        ));
        let exec = read(json!({"exec": {"command": ["cat", "/tmp/ok"]}}));
        assert!(matches!(exec.question, Question::Exec(words) if words == ["cat", "/tmp/ok"]));
    }

    #[tokio::test]
    async fn a_server_is_asked_over_its_socket() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            for answer in ["HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 503 No\r\n\r\n"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut seen = [0; 4];
                stream.read_exact(&mut seen).await.unwrap();
                assert_eq!(&seen, b"GET ");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let netns = Arc::new(Netns::current().unwrap());
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        assert!(http(&netns, &[], port, "/", &[]).await);
        assert!(!http(&netns, &[], port, "/", &[]).await);
    }
}
