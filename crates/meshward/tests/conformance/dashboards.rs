//! `dashboards`: the queries of Istio's Grafana dashboards, asked of a real Prometheus that scrapes a running mesh.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::conformance::{self, Tally};
use testkit::mesh::{Mesh, unavailable, within};

const SET: &str = "dashboards";

/// Metrics that are somebody else's, by how their names begin, and whose.
const OTHERS: &[(&str, &str)] = &[
    ("container_", "cAdvisor's metrics of containers"),
    ("go_", "Go's runtime"),
    (
        "sidecar_injection_failure",
        "no webhook injects, so none can fail",
    ),
];

/// A caller's work: every kind of traffic, again and again until it is ended. 7080 is declared as TCP; 7000 is declared by
/// two Services, of which a callee's proxy, as Istio's, names the same one for whichever was called.
const CALLS: &str = r#"
while :; do
  curl -s -m 5 -o /dev/null -X POST -d 0123456789 http://server.m:8000/
  curl -s -m 5 -o /dev/null http://server.m:8000/denied
  curl -s -m 5 -o /dev/null -X POST -d 0123456789 http://server.legacy:8000/
  curl -s -m 5 -o /dev/null http://server.m:7080/
  "$0" workload probe tcp --addr server.legacy:7000 --send hello >/dev/null
  "$0" workload probe grpc --addr server.m:8070 >/dev/null
done
"#;

const POLICY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: denied, namespace: m}
spec:
  action: DENY
  rules: [{to: [{operation: {paths: [/denied], ports: ['8000']}}]}]
";

/// Grafana's variables in the dashboard of that name.
fn variables(dashboard: &str) -> &'static [(&'static str, &'static str)] {
    match dashboard {
        name if name.contains("service") => &[
            ("$service", "server.m.svc.cluster.local"),
            ("$qrep", "destination"),
            ("$srcns", ".*"),
            ("$srcwl", ".*"),
            ("$dstns", ".*"),
            ("$dstwl", ".*"),
        ],
        _ => &[
            ("$namespace", "m"),
            ("$workload", "client|server"),
            ("$qrep", "destination"),
            ("$srcns", ".*"),
            ("$srcwl", ".*"),
            ("$dstsvc", ".*"),
        ],
    }
}

#[test]
fn istios_dashboards_find_what_they_ask_for() {
    let Some(set) = conformance::set(SET) else { return };
    if let Some(why) = unavailable().or_else(no_prometheus) {
        println!("{why}");
        return;
    }
    let world = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mesh/world.yaml");
    let program = Path::new(env!("CARGO_BIN_EXE_meshward"));
    let mesh = Mesh::start(program, "dash", &[&world], &["--profile", "istio"]);
    mesh.apply(POLICY);
    let prometheus = Prometheus::start(&mesh);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for namespace in ["m", "legacy"] {
            let (mesh, stop) = (&mesh, &stop);
            scope.spawn(move || calls(mesh, namespace, stop));
        }
        let answered = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            ask_all(&prometheus, &conformance::json(&set.join("queries.json")))
        }));
        stop.store(true, Ordering::Relaxed);
        match answered {
            Ok(tally) => tally.finish(SET),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
}

fn no_prometheus() -> Option<String> {
    let there = |program: &str| {
        Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok()
    };
    if !there("prometheus") {
        return Some(format!("skipped: {SET}: prometheus is not installed"));
    }
    if !Path::new("/run/netns").is_dir() {
        return Some(format!("skipped: {SET}: no network namespaces by name"));
    }
    None
}

fn calls(mesh: &Mesh, namespace: &str, stop: &AtomicBool) {
    let program = mesh.program().display().to_string();
    let script = ["timeout", "5", "sh", "-c", CALLS, &program];
    while !stop.load(Ordering::Relaxed) {
        mesh.exec(namespace, "client", &script);
    }
}

fn ask_all(prometheus: &Prometheus, queries: &Value) -> Tally {
    // Two scrapes with traffic between them are what every rate needs.
    for needed in [
        r#"rate(istio_requests_total{reporter="source",connection_security_policy="unknown"}[10s]) > 0"#,
        r#"rate(istio_requests_total{reporter="destination",connection_security_policy="none"}[10s]) > 0"#,
        r#"rate(istio_requests_total{response_code="403"}[10s]) > 0"#,
        r#"rate(istio_requests_total{request_protocol="grpc"}[10s]) > 0"#,
        r#"rate(istio_request_messages_total[10s]) > 0"#,
        r#"rate(istio_tcp_received_bytes_total{reporter="source",connection_security_policy="mutual_tls"}[10s]) > 0"#,
        r#"rate(istio_tcp_received_bytes_total{reporter="destination",connection_security_policy="none"}[10s]) > 0"#,
        r#"count(up{job="mesh"} == 1) == 4"#,
    ] {
        within(Duration::from_secs(60), needed, || {
            !prometheus.ask(needed).is_empty()
        });
    }
    let mut tally = Tally::default();
    for query in queries.as_array().unwrap() {
        let (dashboard, text) = (
            query["dashboard"].as_str().unwrap(),
            query["expr"].as_str().unwrap(),
        );
        if let Some((_, whose)) = OTHERS
            .iter()
            .find(|(prefix, _)| names(text).any(|n| n.starts_with(prefix)))
        {
            tally.not_applicable(*whose);
            continue;
        }
        let mut asked = text.replace("$__rate_interval", "15s");
        for (variable, value) in variables(dashboard) {
            asked = asked.replace(variable, value);
        }
        // A moment without traffic is no answer to whether a query finds any.
        let end = Instant::now() + Duration::from_secs(20);
        let found = loop {
            let found = prometheus.ask(&asked);
            if found.iter().any(|value| value.is_finite()) || Instant::now() > end {
                break found;
            }
            std::thread::sleep(Duration::from_millis(500));
        };
        if found.iter().any(|value| value.is_finite()) {
            tally.pass();
        } else {
            let panel = query["panel"].as_str().unwrap_or_default();
            tally.fail(
                format!("{dashboard}: {panel}"),
                format!("{asked} gives {found:?}"),
            );
        }
    }
    // What it scraped twice, or out of order, would be a fault that no query shows.
    for fault in [
        "prometheus_target_scrapes_sample_duplicate_timestamp_total",
        "prometheus_target_scrapes_sample_out_of_order_total",
        "prometheus_target_scrapes_exceeded_sample_limit_total",
    ] {
        let found = prometheus.ask(fault);
        assert!(found.iter().all(|value| *value == 0.0), "{fault}: {found:?}");
    }
    tally
}

/// The words of a query.
fn names(query: &str) -> impl Iterator<Item = &str> {
    query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
}

/// A Prometheus in the namespace of a mesh's hub, from where it reaches every part.
struct Prometheus {
    process: Child,
    netns: String,
    _dir: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    fn start(mesh: &Mesh) -> Self {
        let ports = mesh.json(&["ports"]);
        let mut targets: BTreeMap<String, String> = BTreeMap::new();
        for port in ports.as_array().unwrap() {
            let metrics = port["purpose"].as_str().unwrap().starts_with("metrics");
            let address = port["address"].as_str().unwrap();
            if metrics && !address.starts_with('[') {
                targets.insert(port["part"].as_str().unwrap().to_owned(), address.to_owned());
            }
        }
        let netns = format!("mw-{}-hub", mesh.name());
        let targets: Vec<String> = targets.values().map(|target| format!("\"{target}\"")).collect();
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
             scrape_configs:\n\
             - job_name: mesh\n  static_configs: [{{targets: [{}]}}]\n\
             - job_name: own\n  static_configs: [{{targets: [\"127.0.0.1:9090\"]}}]\n",
            targets.join(",")
        );
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let process = Command::new("ip")
            .args(["netns", "exec", &netns, "prometheus", "--log.level=error"])
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg("--web.listen-address=127.0.0.1:9090")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let prometheus = Self {
            process,
            netns,
            _dir: dir,
        };
        within(Duration::from_secs(60), "prometheus answers", || {
            !prometheus.ask("up").is_empty()
        });
        prometheus
    }

    /// The values of an instant query now.
    fn ask(&self, query: &str) -> Vec<f64> {
        let output = Command::new("ip")
            .args([
                "netns",
                "exec",
                &self.netns,
                "curl",
                "-s",
                "-G",
                "--data-urlencode",
            ])
            .arg(format!("query={query}"))
            .arg("http://127.0.0.1:9090/api/v1/query")
            .output()
            .unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let Some(result) = answer["data"]["result"].as_array() else {
            assert!(answer["error"].is_null(), "{query}: {answer}");
            return Vec::new();
        };
        result
            .iter()
            .filter_map(|series| series["value"][1].as_str()?.parse().ok())
            .collect()
    }
}
