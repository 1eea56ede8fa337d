//! `istio-observed`: what real Istio did in the same worlds with the same requests, under `--profile istio`.
//!
//! Where Meshward differs, the difference is one of [`DIFFERENCES`], each with its reason; anything else fails.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use testkit::conformance::{self, Tally};
use testkit::mesh::{Mesh, unavailable};

const SET: &str = "istio-observed";

/// Groups of cases that are acted on so far; the others are counted as not applicable, with the reason.
const GROUPS: &[(&str, Option<&str>)] = &[
    ("01", None),
    ("02", None),
    ("07", None),
    ("03", None),
    ("03b", None),
    ("04", None),
    ("05", None),
    ("05b", Some("a world of one family")),
    ("05c", None),
    ("05d", Some("a world of one family")),
    ("06", Some("VirtualService is not acted on yet")),
];

/// How many requests are under way at once.
const AT_ONCE: usize = 6;

/// One way in which Meshward is meant to differ from what was observed.
struct Difference {
    /// Its name, in what the test prints.
    name: &'static str,
    /// The row of the semantics.
    id: &'static str,
    /// Why it is right.
    why: &'static str,
    /// Whether this is it.
    is: fn(&Request<'_>, &Seen) -> bool,
}

const DIFFERENCES: &[Difference] = &[
    Difference {
        name: "user 1337 is captured like everybody",
        id: "P30",
        why: "Istio lets the proxy's own user id past the proxy, in plaintext; here it is carried with the pod's identity",
        is: |request, seen| {
            request.value["as"].as_u64() == Some(1337)
                && seen.outcome == "200"
                && seen
                    .xfcc
                    .as_deref()
                    .is_some_and(|xfcc| xfcc.contains(&request.caller()))
        },
    },
    Difference {
        name: "user 1337 is refused like everybody",
        id: "P25",
        why: "Istio lets the proxy's own user id out past REGISTRY_ONLY; here there is no such user",
        is: |request, seen| {
            request.value["as"].as_u64() == Some(1337)
                && request.outcome() == "200"
                && (is_refusal(&seen.outcome) || seen.outcome == "502")
        },
    },
    Difference {
        name: "what is not TCP stays in the pod",
        id: "P16 P30",
        why: "Istio captures TCP alone and lets the rest out, under REGISTRY_ONLY too; here it is dropped, counted and logged",
        is: |request, seen| {
            request.meshed()
                && request.tool() == "udp"
                && request.outcome() == "echoed"
                && seen.outcome == "no-answer"
        },
    },
    Difference {
        name: "a destination in the mesh is reached with identity however it is addressed",
        id: "O-01",
        why: "Istio passes it through in plaintext; here the caller's identity is proven, so that policy can judge it",
        is: |request, seen| {
            request.meshed()
                && request.outcome() != seen.outcome.as_str()
                && matches!(
                    seen.outcome.as_str(),
                    "200" | "503" | "OK" | "echoed" | "http-400"
                )
                && (request.by_address() || request.unrouted())
                && seen
                    .xfcc
                    .as_deref()
                    .is_none_or(|xfcc| xfcc.contains(&request.caller()))
        },
    },
    Difference {
        name: "plaintext upstream, mutual TLS here",
        id: "O-01",
        why: "the same answer, with the caller's identity proven where Istio carried none",
        is: |request, seen| {
            request.meshed()
                && request.outcome() == seen.outcome.as_str()
                && request.xfcc().is_none()
                && seen
                    .xfcc
                    .as_deref()
                    .is_some_and(|xfcc| xfcc.contains(&request.caller()))
        },
    },
    Difference {
        name: "declared HTTP means HTTP",
        id: "section 9, OURS",
        why: "what is not HTTP on a port that is declared so is refused by the caller's own proxy instead of passing unauthenticated",
        is: |request, seen| {
            request.meshed()
                && request.declared_http()
                && matches!(request.tool(), "tcp" | "tls" | "curl")
                && is_refusal(&seen.outcome)
        },
    },
    Difference {
        name: "bytes with an immediate end arrive",
        id: "O-06",
        why: "Istio may reset them while a listener filter waits; here a half-close is carried through",
        is: |request, seen| request.value["halfClose"] == true && seen.outcome == "echoed",
    },
    Difference {
        name: "a server that speaks first is not kept waiting",
        id: "section 9, OURS",
        why: "Istio waits for the client's first bytes without limit; here the wait is bounded, or there is none",
        is: |request, seen| {
            request.value["readFirst"] == true
                && request.outcome().starts_with("no-banner, then echoed")
                && seen.outcome == "echoed"
        },
    },
    Difference {
        name: "the first byte decides whether it can be TLS",
        id: "O-05",
        why: "Istio keeps a plaintext client with a short first segment waiting; here it is served, or refused at once",
        is: |request, seen| {
            request.outcome() == "no-answer" && (seen.outcome == "echoed" || is_refusal(&seen.outcome))
        },
    },
    Difference {
        name: "a destination in the mesh is judged with identity however it is addressed",
        id: "O-01",
        why: "the caller's identity is proven, so a rule that names it applies where Istio passed it by in plaintext",
        is: |request, seen| {
            request.meshed()
                && (request.by_address() || request.unrouted())
                && (is_refusal(&seen.outcome) || seen.outcome == "403")
        },
    },
    Difference {
        name: "what is invalid denies",
        id: "AZ-005",
        why: "Istio's validation calls it an error and its proxies ignore it; here it denies what it targets, and says so",
        is: |request, seen| request.invalid && (is_refusal(&seen.outcome) || seen.outcome == "403"),
    },
    Difference {
        name: "CONNECT is refused by name",
        id: "METHOD_REFUSED",
        why: "refused in both; the status says what was refused",
        is: |request, seen| {
            request.value["method"] == "CONNECT" && matches!(seen.outcome.as_str(), "403" | "405" | "400")
        },
    },
];

/// A request of the data.
struct Request<'a> {
    value: &'a Value,
    world: &'a World,
    /// Whether `istioctl validate` calls the case's configuration an error.
    invalid: bool,
}

impl Request<'_> {
    fn text(&self, field: &str) -> &str {
        self.value[field].as_str().unwrap_or_default()
    }

    fn tool(&self) -> &str {
        self.text("tool")
    }

    fn outcome(&self) -> &str {
        self.text("outcome")
    }

    fn xfcc(&self) -> Option<&str> {
        self.value["saw"]["xfcc"].as_str()
    }

    fn source(&self) -> (&str, &str) {
        self.text("from").split_once('/').unwrap_or(("", ""))
    }

    fn meshed(&self) -> bool {
        let (namespace, pod) = self.source();
        self.world
            .pods
            .get(&(namespace.to_owned(), pod.to_owned()))
            .is_some_and(|p| p.identity.is_some())
    }

    /// The caller's identity, as it stands in X-Forwarded-Client-Cert.
    fn caller(&self) -> String {
        let (namespace, pod) = self.source();
        self.world
            .pods
            .get(&(namespace.to_owned(), pod.to_owned()))
            .and_then(|p| p.identity.clone())
            .map_or_else(|| "nobody".to_owned(), |id| format!("URI={id}"))
    }

    fn target(&self) -> &str {
        let text = match self.tool() {
            "curl" | "grpc" => self.text("url"),
            _ => self.text("addr"),
        };
        text.split_once("://").map_or(text, |(_, rest)| rest)
    }

    fn host(&self) -> &str {
        let authority = self.target().split('/').next().unwrap_or_default();
        match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, _)) => address,
            None => authority.split(':').next().unwrap_or_default(),
        }
    }

    fn port(&self) -> u16 {
        let authority = self.target().split('/').next().unwrap_or_default();
        authority
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok())
            .unwrap_or(80)
    }

    /// Whether a pod's address is dialled.
    fn by_address(&self) -> bool {
        let host = self.host();
        host.ends_with(".pod") || host.ends_with(".pod6") || host.parse::<std::net::IpAddr>().is_ok()
    }

    /// Whether Istio found no route, and passed it through.
    fn unrouted(&self) -> bool {
        self.value["access_log"]
            .to_string()
            .contains("PassthroughCluster")
    }

    fn declared_http(&self) -> bool {
        matches!(self.port(), 80 | 7070)
    }
}

/// What came of a request here.
#[derive(Debug, Default)]
struct Seen {
    outcome: String,
    url: Option<String>,
    host: Option<String>,
    xfcc: Option<String>,
    /// The body of an answer, and all that the application says that it received.
    body: String,
    all: String,
}

struct Pod {
    ip: String,
    ip6: String,
    identity: Option<String>,
}

/// A running world.
struct World {
    mesh: Mesh,
    pods: BTreeMap<(String, String), Pod>,
    hosts: BTreeMap<String, String>,
    /// Whether the pods that were observed had both families.
    both: bool,
}

impl World {
    fn start(set: &Path, name: &str) -> Self {
        let manifest = set.join("worlds").join(format!("{name}.yaml"));
        let mesh = Mesh::start(
            Path::new(env!("CARGO_BIN_EXE_meshward")),
            "observed",
            &[&manifest],
            &["--profile", "istio"],
        );
        let rows = mesh.json(&["ps", "-A"]);
        let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
        let pods = rows.as_array().unwrap().iter().map(|row| {
            let pod = Pod {
                ip: text(row, "ip"),
                ip6: text(row, "ip6"),
                identity: row["identity"].as_str().map(str::to_owned),
            };
            ((text(row, "namespace"), text(row, "name")), pod)
        });
        let pods = pods.collect();
        let hosts: PathBuf = set.join("worlds").join(format!("{name}.hosts.json"));
        let hosts = if hosts.is_file() {
            serde_json::from_value(conformance::json(&hosts)).unwrap()
        } else {
            BTreeMap::new()
        };
        Self {
            mesh,
            pods,
            hosts,
            both: name.contains("ipv6"),
        }
    }

    /// `$ip_NS_POD` and `$ip6_NS_POD` replaced.
    fn filled(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for ((namespace, pod), found) in &self.pods {
            let name = format!("{namespace}_{pod}").replace('-', "_");
            out = out.replace(&format!("$ip6_{name}"), &found.ip6);
            out = out.replace(&format!("$ip_{name}"), &found.ip);
        }
        out
    }

    /// Applies the documents of a text, those of one kind and namespace at different times: the oldest may decide.
    fn apply(&self, text: &str) -> testkit::mesh::Done {
        let mut steps: Vec<(Vec<String>, String)> = Vec::new();
        for document in text.split("\n---") {
            let line = |key: &str| {
                document
                    .lines()
                    .map(str::trim)
                    .find(|l| l.starts_with(key))
                    .unwrap_or_default()
            };
            let what = format!("{} {}", line("kind:"), line("namespace:"));
            match steps.iter_mut().find(|(kinds, _)| !kinds.contains(&what)) {
                Some((kinds, step)) => {
                    kinds.push(what);
                    step.push_str("\n---\n");
                    step.push_str(document);
                }
                None => steps.push((vec![what], document.to_owned())),
            }
        }
        let mut worst = testkit::mesh::Done {
            code: 0,
            stdout: String::new(),
            stderr: String::new(),
        };
        for (at, (_, step)) in steps.iter().enumerate() {
            if at > 0 {
                // Creation is told in seconds.
                std::thread::sleep(std::time::Duration::from_millis(1100));
            }
            let done = self.mesh.run_with(&["apply", "-f", "-"], step);
            worst.code = worst.code.max(done.code);
            worst.stdout.push_str(&done.stdout);
            worst.stderr.push_str(&done.stderr);
        }
        worst
    }

    /// Whether names are answered with IPv4 addresses alone, as in the world that was observed.
    fn v4(&self) -> bool {
        !self.both
    }

    /// The address of a name that DNS does not know: `POD.NS.pod`, `POD.NS.pod6`, or a name outside the cluster.
    fn address(&self, host: &str) -> Option<String> {
        let of = |namespace: &str, pod: &str| self.pods.get(&(namespace.to_owned(), pod.to_owned()));
        if let Some((pod, namespace)) = host.strip_suffix(".pod").and_then(|h| h.split_once('.')) {
            return of(namespace, pod).map(|p| p.ip.clone());
        }
        if let Some((pod, namespace)) = host.strip_suffix(".pod6").and_then(|h| h.split_once('.')) {
            return of(namespace, pod).map(|p| p.ip6.clone());
        }
        let (namespace, pod) = self.hosts.get(host)?.split_once('/')?;
        of(namespace, pod).map(|p| p.ip.clone())
    }

    fn play(&self, request: &Request<'_>) -> Seen {
        let (namespace, pod) = request.source();
        let mut program = Vec::new();
        if let Some(uid) = request.value["as"].as_u64() {
            program.extend([
                "setpriv".to_owned(),
                format!("--reuid={uid}"),
                format!("--regid={uid}"),
                "--clear-groups".to_owned(),
            ]);
        }
        match request.tool() {
            "curl" => program.extend(self.curl(request)),
            tool => program.extend(self.probe(tool, request)),
        }
        let words: Vec<_> = program.iter().map(String::as_str).collect();
        let done = self.mesh.exec(namespace, pod, &words);
        if request.tool() == "curl" {
            of_curl(&done.stdout, done.code)
        } else {
            of_probe(&done.stdout, &format!("{done:?}"))
        }
    }

    fn curl(&self, request: &Request<'_>) -> Vec<String> {
        let mut words: Vec<String> = [
            "curl",
            "-s",
            "-g",
            "--path-as-is",
            "--max-time",
            "8",
            "-o",
            "-",
            "-w",
            "\n%{http_code}",
        ]
        .map(str::to_owned)
        .into();
        if self.v4() && !request.host().ends_with("pod6") {
            words.push("-4".to_owned());
        }
        if let Some(address) = self.address(request.host()) {
            let address = if address.contains(':') {
                format!("[{address}]")
            } else {
                address
            };
            words.push("--resolve".to_owned());
            words.push(format!("{}:{}:{address}", request.host(), request.port()));
        }
        if let Some(method) = request.value["method"].as_str() {
            words.extend(["-X".to_owned(), method.to_owned()]);
        }
        for (name, value) in request.value["headers"].as_object().into_iter().flatten() {
            let one = std::slice::from_ref(value);
            for value in value.as_array().map_or(one, Vec::as_slice) {
                let value = value.as_str().unwrap_or_default();
                // With a colon and nothing behind it, curl leaves a field out.
                let line = match self.filled(value) {
                    empty if empty.is_empty() => format!("{name};"),
                    value => format!("{name}: {value}"),
                };
                words.extend(["-H".to_owned(), line]);
            }
        }
        if let Some(body) = request.value["body"].as_str() {
            words.extend(["--data-binary".to_owned(), body.to_owned()]);
        }
        for argument in request.value["args"].as_array().into_iter().flatten() {
            words.push(argument.as_str().unwrap_or_default().to_owned());
        }
        words.push(self.filled(request.text("url")));
        words
    }

    fn probe(&self, tool: &str, request: &Request<'_>) -> Vec<String> {
        let mut words = vec![
            env!("CARGO_BIN_EXE_meshward").to_owned(),
            "workload".to_owned(),
            "probe".to_owned(),
            tool.to_owned(),
            "--addr".to_owned(),
        ];
        let target = self.filled(request.target());
        let address = match self.address(request.host()) {
            Some(address) if address.contains(':') => format!("[{address}]:{}", request.port()),
            Some(address) => format!("{address}:{}", request.port()),
            None => target.split('/').next().unwrap_or_default().to_owned(),
        };
        words.push(address);
        if self.v4() {
            words.push("--ipv4".to_owned());
        }
        if tool == "grpc" {
            words.extend(["--authority".to_owned(), target]);
            for (name, value) in request.value["headers"].as_object().into_iter().flatten() {
                let value = value.as_str().unwrap_or_default();
                words.extend(["--header".to_owned(), format!("{name}={value}")]);
            }
        }
        for (field, option) in [("send", "--send"), ("sni", "--sni")] {
            if let Some(value) = request.value[field].as_str() {
                words.extend([option.to_owned(), value.to_owned()]);
            }
        }
        if let Some(wait) = request.value["wait"].as_f64() {
            words.extend(["--wait".to_owned(), wait.to_string()]);
        }
        for (field, option) in [("readFirst", "--read-first"), ("halfClose", "--half-close")] {
            if request.value[field] == true {
                words.push(option.to_owned());
            }
        }
        if let Some(alpn) = request.value["alpn"].as_array() {
            let list: Vec<_> = alpn.iter().filter_map(Value::as_str).collect();
            words.extend(["--alpn".to_owned(), list.join(",")]);
        }
        words
    }
}

fn of_curl(stdout: &str, exit: i32) -> Seen {
    let (body, code) = stdout.rsplit_once('\n').unwrap_or(("", stdout));
    let outcome = match (exit, code.trim()) {
        // An upgrade that is answered is not ended by curl.
        (28, "101") => "200".to_owned(),
        (_, code) if code != "000" && !code.is_empty() && exit != 1 => code.to_owned(),
        (6, _) => "dns".to_owned(),
        (7, _) => "refused".to_owned(),
        (28, _) => "timeout".to_owned(),
        (52, _) => "closed-without-answer".to_owned(),
        (35 | 55 | 56, _) => "reset".to_owned(),
        (other, _) => format!("curl-{other}"),
    };
    let mut seen = said(body);
    body.clone_into(&mut seen.body);
    seen.outcome = outcome;
    seen.all = format!("{stdout:?} exit {exit}");
    seen
}

fn of_probe(stdout: &str, all: &str) -> Seen {
    let value: Value = serde_json::from_str(stdout).unwrap_or_default();
    let mut seen = said(value["data"].as_str().unwrap_or_default());
    seen.outcome = value["outcome"].as_str().unwrap_or("the probe failed").to_owned();
    seen.all = all.to_owned();
    seen
}

/// What the echo application says that it received.
fn said(body: &str) -> Seen {
    let mut seen = Seen::default();
    for line in body.lines() {
        if let Some(value) = line.strip_prefix("URL=") {
            seen.url = Some(value.to_owned());
        } else if let Some(value) = line.strip_prefix("Host=") {
            seen.host = Some(value.to_owned());
        } else if let Some(value) = line.strip_prefix("RequestHeader=") {
            let (name, value) = value.split_once(':').unwrap_or((value, ""));
            if name.eq_ignore_ascii_case("x-forwarded-client-cert") {
                seen.xfcc = Some(without_hash(value));
            }
        }
    }
    seen
}

fn without_hash(xfcc: &str) -> String {
    let parts: Vec<_> = xfcc.split(';').filter(|p| !p.starts_with("Hash=")).collect();
    parts.join(";")
}

fn is_refusal(outcome: &str) -> bool {
    matches!(
        outcome,
        "reset" | "closed" | "closed-without-answer" | "no-answer"
    ) || outcome.starts_with("no-banner, then reset")
        || outcome.starts_with("no-banner, then closed")
        || outcome.starts_with("tls:")
}

/// `None` where it came out alike.
fn differs(request: &Request<'_>, seen: &Seen) -> Option<String> {
    let wanted = request.outcome();
    // A reset that comes at once is one of connecting, to curl.
    let refused = is_refusal(&seen.outcome) || (request.tool() == "curl" && seen.outcome == "refused");
    let alike = wanted == seen.outcome || (is_refusal(wanted) && refused);
    if !alike {
        return Some(format!("outcome {} instead of {wanted}", seen.outcome));
    }
    if let (Some(body), "curl", "401" | "403") = (request.value["body_out"].as_str(), request.tool(), wanted)
        && body != seen.body
    {
        return Some(format!("body {:?} instead of {body}", seen.body));
    }
    let saw = &request.value["saw"];
    if request.tool() == "curl" && saw.is_object() && wanted.starts_with('2') {
        for (field, found) in [("url", &seen.url), ("host", &seen.host)] {
            if let Some(expected) = saw[field].as_str()
                && found.as_deref() != Some(expected)
            {
                return Some(format!("{field} {found:?} instead of {expected}"));
            }
        }
        for (name, value) in saw["headers"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            if is_applications(name) && received(&seen.body, name) != value {
                return Some(format!(
                    "{name} {:?} instead of {value}",
                    received(&seen.body, name)
                ));
            }
        }
        if identities(saw["xfcc"].as_str()) != identities(seen.xfcc.as_deref()) {
            return Some(format!("xfcc {:?} instead of {}", seen.xfcc, saw["xfcc"]));
        }
    }
    None
}

/// A header as the application says that it received it; several lines of it joined by commas, as the data has them.
fn received(body: &str, name: &str) -> String {
    let lines = body
        .lines()
        .filter_map(|line| line.strip_prefix("RequestHeader=")?.split_once(':'));
    let values: Vec<_> = lines
        .filter(|(own, _)| own.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .collect();
    values.join(",")
}

/// Whether a header is none of a proxy's or of the caller's program.
fn is_applications(name: &str) -> bool {
    let name = name.to_lowercase();
    let others = [
        "x-envoy-",
        "x-request-id",
        "x-forwarded-",
        "content-",
        "user-agent",
        "accept",
    ];
    !name.is_empty() && !others.iter().any(|other| name.starts_with(other))
}

fn identities(xfcc: Option<&str>) -> Vec<String> {
    let mut found: Vec<_> = xfcc
        .unwrap_or_default()
        .split([';', ','])
        .filter(|part| part.starts_with("By=") || part.starts_with("URI="))
        .map(str::to_owned)
        .collect();
    found.sort();
    found
}

/// The configuration of a case, MeshConfig included.
fn config(case: &Value, world: &World) -> String {
    let mut text = world.filled(case["config"].as_str().unwrap_or_default());
    if case["meshConfig"].is_object() {
        let mesh = serde_json::to_string(&case["meshConfig"]).unwrap();
        let quoted = serde_json::to_string(&mesh).unwrap();
        text.push_str(&format!(
            "\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata: {{mesh: {quoted}}}\n"
        ));
    }
    text
}

fn play_case(case: &Value, world: &World, tally: &Mutex<Tally>) {
    let id = case["id"].as_str().unwrap_or_default();
    let text = config(case, world);
    let has_config = text.lines().any(|l| !l.trim().is_empty() && l.trim() != "---");
    if has_config {
        let done = world.apply(&text);
        let broken = case["validate"]["ok"] == false
            || case["refused_by_crd"].is_string()
            || case["refused_by_crd"] == true
            || !case["rejected_by_proxy"].is_null();
        if done.code != 0 && !broken {
            println!("note: {id}: apply: {}{}", done.stdout, done.stderr);
        }
    }
    let invalid = case["validate"]["ok"] == false;
    let requests: Vec<_> = case["requests"].as_array().into_iter().flatten().collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(value) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let request = Request {
                        value,
                        world,
                        invalid,
                    };
                    let seen = world.play(&request);
                    judge(id, &request, &seen, tally);
                }
            });
        }
    });
    if has_config {
        let _ = world.mesh.run_with(&["delete", "-f", "-"], &text);
    }
}

fn judge(case: &str, request: &Request<'_>, seen: &Seen, tally: &Mutex<Tally>) {
    let name = format!("{case}: {}", request.text("id"));
    let mut tally = tally.lock().unwrap();
    let Some(difference) = differs(request, seen) else {
        tally.pass();
        return;
    };
    match DIFFERENCES.iter().find(|d| (d.is)(request, seen)) {
        Some(meant) => {
            println!(
                "differs as meant ({}, {}): {name}: {difference}: {}",
                meant.id, meant.name, meant.why
            );
            tally.pass();
        }
        None => tally.fail(name, format!("{difference} ({})", seen.all)),
    }
}

#[test]
fn istio_observed() {
    let Some(set) = conformance::set(SET) else {
        return;
    };
    if let Some(why) = unavailable() {
        println!("{why}");
        return;
    }
    let cases = conformance::json(&set.join("cases.json"));
    let only = std::env::var("MESHWARD_CONFORMANCE_CASE").unwrap_or_default();
    let tally = Mutex::new(Tally::default());
    let mut worlds: BTreeMap<String, World> = BTreeMap::new();
    for case in cases.as_array().unwrap() {
        let id = case["id"].as_str().unwrap_or_default();
        if !id.contains(&only) {
            continue;
        }
        let group = id.split('-').next().unwrap_or_default();
        let requests = case["requests"].as_array().map_or(0, Vec::len);
        let verdict = GROUPS.iter().find(|(name, _)| *name == group);
        let reason = match verdict {
            Some((_, None)) => None,
            Some((_, Some(why))) => Some(*why),
            None => Some("a group that is not known"),
        };
        if let Some(why) = reason {
            for _ in 0..requests {
                tally.lock().unwrap().not_applicable(why);
            }
            continue;
        }
        let name = case["world"].as_str().unwrap_or_default().to_owned();
        let world = worlds
            .entry(name.clone())
            .or_insert_with(|| World::start(&set, &name));
        play_case(case, world, &tally);
    }
    drop(worlds);
    tally.into_inner().unwrap().finish(SET);
}
