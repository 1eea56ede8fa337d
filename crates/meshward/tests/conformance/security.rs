//! `integration-security`: Istio's own integration tests of mutual TLS and authorization, on a running mesh.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use testkit::conformance::{self, Tally};
use testkit::issuer::encode;
use testkit::mesh::{Mesh, unavailable, within};

const SET: &str = "integration-security";

/// Where the key set is that its tokens are verified by.
const KEYS: &str = "jwt";

/// How many calls are under way at once.
const AT_ONCE: usize = 6;

/// Name, Service port, workload port, flag of the echo application.
const PORTS: &[(&str, u16, u16, &str)] = &[
    ("http", 80, 18080, "--port"),
    ("grpc", 7070, 17070, "--grpc"),
    ("http2", 85, 18085, "--port"),
    ("tcp", 9090, 19090, "--tcp"),
    ("https", 443, 18443, "--port"),
];

/// Each service with its namespace, and whether it is in the mesh.
const SERVICES: &[(&str, &str, bool)] = &[
    ("echo1", "a", true),
    ("echo1", "b", true),
    ("echo1", "c", true),
    ("echo1", "naked", false),
    ("echo2", "a", true),
    ("echo2", "b", true),
];

/// The addresses that the data writes for pods.
const ADDRESSES: &[(&str, &str, &str)] = &[
    ("10.10.1.1", "echo1", "a"),
    ("10.10.1.2", "echo1", "b"),
    ("10.10.2.1", "echo2", "a"),
    ("10.10.2.2", "echo2", "b"),
];

fn world() -> String {
    let mut out = String::new();
    for namespace in ["echo1", "echo2"] {
        let _ = writeln!(
            out,
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n---"
        );
    }
    for (namespace, name, meshed) in SERVICES {
        let args: Vec<_> = PORTS
            .iter()
            .map(|(_, _, port, flag)| format!("{flag}={port}"))
            .chain(["--tls=18443", "--tcp=19092", "--port=18083"].map(str::to_owned))
            .collect();
        let ports: Vec<_> = PORTS
            .iter()
            .map(|(port, number, target, _)| {
                format!("{{name: {port}, port: {number}, targetPort: {target}}}")
            })
            .collect();
        let _ = writeln!(
            out,
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: {namespace}}}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{selector: {{app: {name}}}, ports: [{}]}}\n---\n\
             apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  \
             labels: {{app: {name}, version: v1, sidecar.istio.io/inject: '{meshed}'}}\n\
             spec: {{serviceAccountName: {name}, containers: [{{name: app, image: gcr.io/istio-testing/app, \
             ports: [{{containerPort: 18080}}], args: {args:?}}}]}}\n---",
            ports.join(", ")
        );
    }
    out.push_str(KEY_SERVER);
    out.push_str("---");
    out.push_str(AUTHORIZER);
    out
}

/// The server of key sets that the data speaks of, outside of the mesh; ours serves the text that stands in the path.
const KEY_SERVER: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: jwt-server, namespace: istio-system}\n\
    spec: {selector: {app: jwt-server}, ports: [{name: http, port: 8000, targetPort: 80}]}\n---\n\
    apiVersion: v1\nkind: Pod\nmetadata: {name: jwt-server, namespace: istio-system, labels: {app: jwt-server, \
    sidecar.istio.io/inject: 'false'}}\nspec: {containers: [{name: app, image: kennethreitz/httpbin}]}\n";
const KEYS_AT: &str = "http://jwt-server.istio-system.svc.cluster.local:8000/";

/// A configuration whose key sets are served by [`KEY_SERVER`].
fn with_keys(config: &str, keys: &str) -> String {
    let config = config.replace(
        &format!("{KEYS_AT}jwks?delay=500ms"),
        &format!("{KEYS_AT}delay/0.5"),
    );
    let ours = format!("{KEYS_AT}base64/{}", encode(keys));
    config.replace(&format!("{KEYS_AT}jwks"), &ours)
}
/// Istio's sample of an external authorizer, and the providers that the data names.
const AUTHORIZER: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: ext-authz}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: ext-authz, namespace: ext-authz}
---
apiVersion: v1
kind: Service
metadata: {name: ext-authz, namespace: ext-authz}
spec: {selector: {app: ext-authz}, ports: [{name: http, port: 8000}, {name: grpc, port: 9000}]}
---
apiVersion: v1
kind: Pod
metadata: {name: ext-authz, namespace: ext-authz, labels: {app: ext-authz, sidecar.istio.io/inject: 'true'}}
spec: {serviceAccountName: ext-authz, containers: [{name: app, image: registry.istio.io/testing/ext-authz, ports: [{containerPort: 8000}]}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - name: ext-authz-http
      envoyExtAuthzHttp:
        service: ext-authz/ext-authz.ext-authz.svc.cluster.local
        port: 8000
        includeRequestHeadersInCheck: [x-ext-authz]
        headersToUpstreamOnAllow: [x-ext-authz-*]
        headersToDownstreamOnDeny: [x-ext-authz-*]
        includeAdditionalHeadersInCheck: {x-ext-authz-additional-header-override: override-value}
    - name: ext-authz-grpc
      envoyExtAuthzGrpc:
        service: ext-authz/ext-authz.ext-authz.svc.cluster.local
        port: 9000
---
";

/// Why a case does not concern what runs here yet.
fn not_applicable(case: &Value, config: &str) -> Option<&'static str> {
    let call = &case["call"];
    if call["from"].is_string() {
        return Some("gateways are not acted on yet");
    }
    if config.contains("VirtualService") || config.contains("kind: Gateway") {
        return Some("VirtualService and Gateway are not acted on yet");
    }
    if case["secret"].is_string() || !call["from"]["client_certificate_trust_domain"].is_null() {
        return Some("a client with a certificate of its own");
    }
    if call["to"]["service"]
        .as_str()
        .is_some_and(|s| s.starts_with("server-naked"))
    {
        return Some("a server with a certificate of its own");
    }
    None
}

/// What came of a call.
#[derive(Debug)]
struct Got {
    allowed: bool,
    /// Whether somebody refused it: a call that never came about (no name, no pod, no listener) is neither.
    refused: bool,
    status: u16,
    xfcc: bool,
    /// What the application says that it received.
    received: String,
    all: String,
}

struct World {
    /// Followed as long as the mesh runs.
    _directory: tempfile::TempDir,
    mesh: Mesh,
    addresses: BTreeMap<&'static str, String>,
}

impl World {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("world.yaml");
        std::fs::write(&path, world()).unwrap();
        let mesh = Mesh::start(
            Path::new(env!("CARGO_BIN_EXE_meshward")),
            "security",
            &[&path],
            &["--profile", "istio"],
        );
        let addresses = ADDRESSES.iter().map(|(written, namespace, pod)| {
            let row = mesh.pod(namespace, pod).unwrap();
            (*written, row["ip"].as_str().unwrap().to_owned())
        });
        let addresses = addresses.collect();
        Self {
            mesh,
            addresses,
            _directory: directory,
        }
    }

    /// Waits until the keys of a configuration are there, or cannot be.
    fn wait_for_keys(&self, config: &str) {
        if config.contains("jwksUri") {
            within(Duration::from_secs(20), "keys are fetched or not", || {
                !self.mesh.run(&["status"]).stdout.contains("not fetched yet")
            });
        }
    }

    fn filled(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for (written, real) in &self.addresses {
            out = out.replace(written, real);
        }
        out
    }

    fn call(&self, call: &Value) -> Got {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (from, to) = (&call["from"], &call["to"]);
        let namespace = from["namespace"].as_str().unwrap_or("echo1");
        let source = from["service"].as_str().unwrap_or("a");
        let port = match &call["port"] {
            Value::Number(number) => number.as_u64().and_then(|n| u16::try_from(n).ok()).unwrap_or(0),
            name => PORTS
                .iter()
                .find(|p| Some(p.0) == name.as_str())
                .map_or(0, |p| p.1),
        };
        let host = match (call["direct_to_pod_ip"] == true, to["ip"].as_str()) {
            (true, Some(ip)) => self.filled(ip),
            _ => format!("{}.{}", text(&to["service"]), text(&to["namespace"])),
        };
        let path = call["path"].as_str().unwrap_or("/");
        match call["protocol"].as_str().unwrap_or_default() {
            "TCP" => self.probe(namespace, source, "tcp", &format!("{host}:{port}"), &[]),
            "GRPC" => {
                let fields = call["headers"].as_object().into_iter().flatten();
                let fields: Vec<_> = fields
                    .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
                    .collect();
                self.probe(namespace, source, "grpc", &format!("{host}:{port}"), &fields)
            }
            protocol => {
                let mut words = vec!["--path-as-is".to_owned()];
                match protocol {
                    "HTTP2" => words.push("--http2-prior-knowledge".to_owned()),
                    "HTTPS" => words.push("-k".to_owned()),
                    "WEBSOCKET" => words.extend(
                        [
                            "--max-time",
                            "2",
                            "-H",
                            "Connection: Upgrade",
                            "-H",
                            "Upgrade: websocket",
                            "-H",
                            "Sec-WebSocket-Version: 13",
                            "-H",
                            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
                        ]
                        .map(str::to_owned),
                    ),
                    _ => {}
                }
                if let Some(method) = call["method"].as_str() {
                    words.extend(["-X".to_owned(), method.to_owned()]);
                }
                for (name, value) in call["headers"].as_object().into_iter().flatten() {
                    let value = value.as_str().unwrap_or_default();
                    words.extend(["-H".to_owned(), format!("{name}: {value}")]);
                }
                // The policies name IPv4 addresses.
                words.push("-4".to_owned());
                let scheme = if protocol == "HTTPS" { "https" } else { "http" };
                words.push(format!("{scheme}://{host}:{port}{path}"));
                let words: Vec<_> = words.iter().map(String::as_str).collect();
                let said = self.mesh.curl(namespace, source, &words);
                // The proxy of a caller takes every connection: one that fails was reset by it at once.
                let meshed = SERVICES.contains(&(namespace, source, true));
                Got {
                    allowed: matches!(said.code, 101 | 200..=299),
                    refused: match said.code {
                        // curl: TLS could not be begun, an empty answer, a reset while sending or receiving.
                        0 => matches!(said.exit, 16 | 35 | 52 | 55 | 56 | 92) || (said.exit == 7 && meshed),
                        code => matches!(code, 401 | 403 | 503),
                    },
                    status: said.code,
                    xfcc: said.body.to_lowercase().contains("x-forwarded-client-cert"),
                    received: said.body.to_lowercase(),
                    all: format!("{said:?}"),
                }
            }
        }
    }

    fn probe(&self, namespace: &str, source: &str, tool: &str, to: &str, fields: &[String]) -> Got {
        let program = env!("CARGO_BIN_EXE_meshward");
        let mut words = vec![program, "workload", "probe", tool, "--ipv4", "--addr", to];
        words.extend(fields.iter().flat_map(|field| ["--header", field.as_str()]));
        let done = self.mesh.exec(namespace, source, &words);
        let said: Value = serde_json::from_str(&done.stdout).unwrap_or_default();
        let outcome = said["outcome"].as_str().unwrap_or_default();
        let data = said["data"].as_str().unwrap_or_default().to_lowercase();
        Got {
            allowed: matches!(outcome, "echoed" | "OK"),
            refused: matches!(outcome, "reset" | "closed" | "PermissionDenied" | "Unavailable"),
            status: match outcome {
                "OK" => 200,
                "PermissionDenied" => 403,
                _ => 0,
            },
            xfcc: data.contains("x-forwarded-client-cert"),
            received: data,
            all: format!("{done:?}"),
        }
    }
}

fn judge(case: &Value, got: &Got) -> Result<(), String> {
    let (call, expect) = (&case["call"], &case["expect"]);
    let allowed = expect["outcome"] == "allow";
    if got.allowed != allowed || got.refused == allowed {
        return Err(format!("wanted {}, got {}", expect["outcome"], got.all));
    }
    if let Some(status) = expect["status"].as_u64()
        && got.status != 101
        && u64::from(got.status) != status
    {
        return Err(format!("wanted status {status}, got {}", got.all));
    }
    for (name, value) in expect["headers_seen_by_server"].as_object().into_iter().flatten() {
        let (name, value) = (name.to_lowercase(), value.as_str().unwrap_or_default());
        let there = got
            .received
            .contains(&format!("requestheader={name}:{}", value.to_lowercase()));
        if got.allowed && there == value.is_empty() {
            return Err(format!("wanted {name}: {value}, got {}", got.all));
        }
    }
    let observable = expect["mtls_observable"] != false;
    let http = matches!(call["protocol"].as_str(), Some("HTTP" | "HTTP2" | "GRPC"));
    if let (Some(mtls), true, true, true) = (expect["mtls"].as_bool(), observable, http, got.allowed)
        && got.xfcc != mtls
    {
        return Err(format!("wanted mutual TLS {mtls}, got {}", got.all));
    }
    Ok(())
}

#[test]
fn integration_security() {
    let Some(set) = conformance::set(SET) else {
        return;
    };
    if let Some(why) = unavailable() {
        println!("{why}");
        return;
    }
    let scenarios = conformance::json(&set.join("scenarios.json"));
    let only = std::env::var("MESHWARD_CONFORMANCE_CASE").unwrap_or_default();
    let mut tally = Tally::default();
    // Cases of one configuration are played together.
    let mut by_config: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for case in scenarios["cases"].as_array().unwrap() {
        if !case["id"].as_str().unwrap_or_default().contains(&only) {
            continue;
        }
        let file = case["config"].as_str().unwrap_or_default();
        let config = std::fs::read_to_string(set.join(file)).unwrap_or_default();
        match not_applicable(case, &config) {
            Some(why) => tally.not_applicable(why),
            None => by_config.entry(file).or_default().push(case),
        }
    }
    // Beside this set, whichever sets are asked for.
    let keys = std::fs::read_to_string(set.join("..").join(KEYS).join("istio/jwks.json")).unwrap_or_default();
    let world = World::start();
    let tally = Mutex::new(tally);
    // Who names the authorizer over HTTP is to be answered the same by the one over gRPC, as upstream plays both.
    let both = by_config.into_iter().flat_map(|(file, cases)| {
        let config = std::fs::read_to_string(set.join(file)).unwrap_or_default();
        let config = with_keys(&world.filled(&config), &keys);
        let only_http = config.contains("ext-authz-http") && !config.contains("ext-authz-grpc");
        let grpc = only_http.then(|| config.replace("ext-authz-http", "ext-authz-grpc"));
        let again = grpc.map(|grpc| (file, cases.clone(), grpc, false));
        [(file, cases, config, true)].into_iter().chain(again)
    });
    for (file, cases, config, counts) in both.collect::<Vec<_>>() {
        let done = world.mesh.run_with(&["apply", "-f", "-"], &config);
        if done.code != 0 {
            println!("note: {file}: apply: {}{}", done.stdout, done.stderr);
        }
        world.wait_for_keys(&config);
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let got = world.call(&case["call"]);
                        let mut tally = tally.lock().unwrap();
                        match judge(case, &got) {
                            // A case is counted once, however often it is played.
                            Ok(()) if counts => tally.pass(),
                            Ok(()) => {}
                            Err(why) => tally.fail(case["id"].as_str().unwrap_or_default(), why),
                        }
                    }
                });
            }
        });
        let _ = world.mesh.run_with(&["delete", "-f", "-"], &config);
    }
    drop(world);
    tally.into_inner().unwrap().finish(SET);
}
