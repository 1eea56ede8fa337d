//! Decisions of a real Envoy, by the filters that Istio makes of AuthorizationPolicies, and ours by the policies themselves.
//!
//! `MESHWARD_ENVOY` names the program, else it is what `./test` installs; where there is none, this says so and passes.
//! `MESHWARD_ENVOY_CASES` is how many sets of policies are tried, `MESHWARD_ENVOY_REQUESTS` with how many requests each, or
//! connections; `MESHWARD_ENVOY_SEED` makes other ones.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stdout,
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests may panic and report, and this one runs a program"
)]

mod connections;
mod near;
mod server;
mod translate;
#[path = "../conformance/yaml.rs"]
mod yaml;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use policy::{Action, Compat, Context, PolicySet, PolicySpec, authorize};
use serde_json::Value;
use server::{Envoy, Filters, Ranges};
use testkit::decisions::generate::{Choices, PEERS};
use testkit::decisions::{Headers, Request, policy};
use testkit::ports::free_port;
use translate::On;

/// A sequence of bytes that is the same each time (SplitMix64).
struct Bytes(u64);

impl Bytes {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.next() % from.len() as u64).unwrap()].clone()
    }
}

/// One set of policies, what Envoy has of it, and requests near its edges.
struct Case {
    name: String,
    specs: Vec<PolicySpec>,
    filters: Filters,
    context: Context,
    requests: Vec<Request>,
}

/// At the edges of the generator's blocks, once they are of a machine's own network.
const ADDRESSES: [&str; 6] = [
    "127.1.1.1",
    "127.1.1.2",
    "127.1.0.1",
    "127.1.255.255",
    "127.0.255.255",
    "127.2.0.1",
];
const NAMES: [&str; 4] = ["a.com", "b.com", "xa.com", "a.comx"];

fn number(name: &str, default: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// The addresses and ports of a machine in place of those that the generator speaks of.
fn here(specs: &[PolicySpec], ports: [u16; 2]) -> Vec<PolicySpec> {
    let text = serde_json::to_string(specs).unwrap();
    let text = text
        .replace("\"10.", "\"127.")
        .replace("\"0080\"", &format!("\"0{}\"", ports[0]))
        .replace("\"80\"", &format!("\"{}\"", ports[0]))
        .replace("\"81\"", &format!("\"{}\"", ports[1]));
    let mut specs: Vec<PolicySpec> = serde_json::from_str(&text).unwrap();
    for spec in &mut specs {
        // Whoever would be asked is not there.
        if matches!(spec.action, Action::Custom { .. }) {
            spec.action = Action::Deny;
        }
    }
    specs
}

/// What can come over the wire of the request; Envoy knows no v4-mapped addresses (SM-27), and folds server names.
fn sendable(mut request: Request, bytes: &mut Bytes, ports: [u16; 2]) -> Request {
    request.http = true;
    request.port = bytes.pick(&ports);
    request.source = bytes.pick(&ADDRESSES).parse().unwrap();
    request.destination = bytes.pick(&ADDRESSES).parse().unwrap();
    let remote = [
        "127.1.1.1",
        "127.2.0.1",
        "11.0.0.1",
        "fd00::1",
        "fd00::2",
        "fd01::1",
    ];
    request.remote = bytes.pick(&remote).parse().unwrap();
    let names = names();
    request.sni = request.peer.as_ref().and_then(|_| bytes.pick(&names));
    for (text, other) in [
        (&mut request.method, "PUT"),
        (&mut request.authority, "c.com"),
        (&mut request.path, "/c"),
    ] {
        if text.is_empty() {
            *text = other.to_owned();
        }
    }
    request
}

/// What a handshake may ask for.
fn names() -> Vec<Option<String>> {
    let asked = NAMES.iter().map(|name| Some((*name).to_owned()));
    std::iter::once(None).chain(asked).collect()
}

/// Which cases are made.
fn seed() -> u64 {
    u64::try_from(number("MESHWARD_ENVOY_SEED", 1)).unwrap()
}

fn generated(count: usize, requests: usize, ports: [u16; 2]) -> Vec<Case> {
    let mut bytes = Bytes(seed());
    let case = |at: usize| {
        let specs = here(&Choices(&bytes.take(600)).policies(), ports);
        let patterns = near::Patterns::of(&specs);
        let request = |_| {
            let chosen = bytes.take(40);
            let request = sendable(Choices(&chosen).request(), &mut bytes, ports);
            patterns.shift(request, &mut bytes)
        };
        Case {
            name: format!("generated {at}"),
            requests: (0..requests).map(request).collect(),
            filters: Filters {
                deny: translate::of(&specs, &Action::Deny, On::Requests),
                allow: translate::of(&specs, &Action::Allow, On::Requests),
            },
            specs,
            context: context(&Value::Null),
        }
    };
    (0..count).map(case).collect()
}

fn context(case: &Value) -> Context {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let aliases = case["trust_domain_aliases"].as_array().into_iter().flatten();
    let domain = text(&case["trust_domain"]).unwrap_or_else(|| "cluster.local".to_owned());
    Context {
        trust_domain: domain.parse().unwrap(),
        aliases: aliases.map(|td| td.as_str().unwrap().parse().unwrap()).collect(),
        compat: Compat::Istio,
        ..Context::default()
    }
}

/// What Istio made of its policies: the case, the policies, and the filters' rules by action.
fn goldens(protocol: &str) -> Vec<(Value, Vec<PolicySpec>, Vec<Value>)> {
    let Some(dir) = testkit::conformance::set("authz-goldens") else {
        return Vec::new();
    };
    let cases = testkit::conformance::json(&dir.join("cases.json"));
    let read = |case: &Value| {
        let file = |value: &Value| yaml::file(&dir.join(value.as_str().unwrap()));
        let objects = file(&case["input"]).into_iter();
        let specs = objects.map(|mut object| {
            if object["metadata"]["namespace"].is_null() {
                object["metadata"]["namespace"] = "foo".into();
            }
            PolicySpec::clone(&policy(&object))
        });
        let filters = case["outputs"].as_array().unwrap().iter().flat_map(file);
        let rules = filters.filter_map(|filter| filter["typedConfig"].get("rules").cloned());
        (case.clone(), specs.collect(), rules.collect())
    };
    let all = cases["cases"].as_array().unwrap().iter();
    all.filter(|case| case["protocol"] == protocol && case["custom_builder"].is_null())
        .map(read)
        .collect()
}

/// The translation of this test is Istio's, where Istio's is known.
#[test]
fn policies_are_translated_as_istio_does() {
    // The reader of the goldens takes the brackets off.
    let names = regex::Regex::new(r"-rule\[([0-9]+)\]").unwrap();
    for (protocol, on) in [("http", On::Requests), ("tcp", On::Connections)] {
        let mut compared = 0;
        for (case, specs, rules) in goldens(protocol) {
            if !case["trust_domain"].is_null() {
                continue;
            }
            for action in [Action::Allow, Action::Deny, Action::Audit] {
                let in_force: Vec<PolicySpec> = specs.iter().filter(|s| !s.dry_run).cloned().collect();
                let Some(ours) = translate::of(&in_force, &action, on) else {
                    continue;
                };
                let ours: Value =
                    serde_json::from_str(&names.replace_all(&ours.to_string(), "-rule$1")).unwrap();
                let theirs = rules.iter().find(|rules| rules["action"] == ours["action"]);
                assert_eq!(Some(sorted(&ours)), theirs.map(sorted), "{}", case["id"]);
                compared += 1;
            }
        }
        println!("translation: {compared} {protocol} filters compared");
    }
}

/// With lists in one order: of what must all hold none is first.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(list) => {
            let mut list: Vec<Value> = list.iter().map(sorted).collect();
            list.sort_by_key(Value::to_string);
            list.into()
        }
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), sorted(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

/// Istio's own filters, and requests of the words that they hold.
fn from_goldens(requests: usize, ports: [u16; 2]) -> Vec<Case> {
    let mut bytes = Bytes(2);
    let mut cases = Vec::new();
    for (case, specs, rules) in goldens("http") {
        let local = |value: &Value| -> Value {
            let text = value.to_string().replace("\"destinationPort\":80,", "");
            let text = text.replace(
                "\"destinationPort\":80}",
                &format!("\"destinationPort\":{}}}", ports[0]),
            );
            serde_json::from_str(&text).unwrap()
        };
        let of = |action: &Value| rules.iter().find(|rules| rules["action"] == *action).map(local);
        let words = words(&specs);
        let peers = peers(&specs);
        let pick = |bytes: &mut Bytes, other: &str| match bytes.next() % 3 {
            1.. if !words.is_empty() => bytes.pick(&words),
            _ => other.to_owned(),
        };
        let request = |_| {
            let mut peer = peers.clone();
            peer.push(String::new());
            let plain = |text: String, other: &str| match text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'.')
            {
                true => text,
                false => other.to_owned(),
            };
            let path = pick(&mut bytes, "/x");
            let request = Request {
                peer: bytes.pick(&peer).parse().ok(),
                path: if path.starts_with('/') {
                    path
                } else {
                    "/x".to_owned()
                },
                method: bytes.pick(&["GET", "POST", "PUT"]).to_owned(),
                authority: plain(pick(&mut bytes, "x.com"), "y.com"),
                headers: Headers(vec![("X-abc".to_owned(), plain(pick(&mut bytes, "abc1"), "z"))]),
                claims: (bytes.next().is_multiple_of(2)).then(|| {
                    let iss = pick(&mut bytes, "i");
                    testkit::decisions::Claims(serde_json::json!({"iss": iss, "sub": bytes.pick(&["", "u"])}))
                }),
                ..Request::default()
            };
            sendable(request, &mut bytes, ports)
        };
        cases.push(Case {
            name: case["id"].as_str().unwrap().to_owned(),
            requests: (0..requests).map(request).collect(),
            filters: Filters {
                deny: of(&Value::from("DENY")),
                allow: of(&Value::Null),
            },
            specs: here(&specs, ports),
            context: context(&case),
        });
    }
    cases
}

/// The values of policies, without their wildcards.
fn words(specs: &[PolicySpec]) -> Vec<String> {
    fn collect(value: &Value, out: &mut Vec<String>) {
        match value {
            Value::String(text) if !text.is_empty() => out.push(text.replace('*', "x")),
            Value::Array(list) => list.iter().for_each(|v| collect(v, out)),
            Value::Object(map) => map.values().for_each(|v| collect(v, out)),
            _ => {}
        }
    }
    let mut out = Vec::new();
    for spec in specs {
        collect(&serde_json::to_value(&spec.rules).unwrap(), &mut out);
    }
    out
}

/// Identities near what the policies of the goldens name.
fn peers(specs: &[PolicySpec]) -> Vec<String> {
    let mut out = Vec::new();
    for word in words(specs) {
        let forms = [
            format!("spiffe://{word}"),
            format!("spiffe://cluster.local/ns/{word}/sa/x"),
            format!("spiffe://{word}/ns/foo/sa/x"),
            format!("spiffe://td1/{}", word.split_once('/').unwrap_or_default().1),
        ];
        let known = forms
            .into_iter()
            .filter(|id| id.parse::<model::SpiffeId>().is_ok());
        out.extend(known);
    }
    out.sort();
    out.dedup();
    out.truncate(20);
    out
}

/// What decided here, and the rules that it decided by.
fn decided(case: &Case, request: &Request) -> String {
    let set = compiled(case, Compat::Istio);
    let explained = policy::explain(&request.facts(), &set);
    let rule = explained.policy.as_ref().zip(explained.rule);
    let written = rule.and_then(|(id, rule)| {
        let spec = case.specs.iter().find(|spec| spec.id == *id)?;
        Some((&spec.action, spec.rules.get(rule)?))
    });
    format!("{:?} {written:?} {:?}", explained.denied, explained.near_miss)
}

fn compiled(case: &Case, compat: Compat) -> PolicySet {
    let specs: Vec<Arc<PolicySpec>> = case.specs.iter().cloned().map(Arc::new).collect();
    let context = Context {
        compat,
        ..case.context.clone()
    };
    PolicySet::compile(&specs, &[], &context)
}

/// Which bytes the operators of a path template take.
fn operators(ports: [u16; 2]) -> Vec<Case> {
    let mut bytes = Bytes(3);
    let case = |template: &&str| {
        let rules = serde_json::json!([{"to": [{"operation": {"paths": [template]}}]}]);
        let object =
            serde_json::json!({"metadata": {"name": "p", "namespace": "foo"}, "spec": {"rules": rules}});
        let specs = vec![PolicySpec::clone(&policy(&object))];
        let sent = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
        let request = |byte: u8| {
            let path = format!("/a/b{}c", char::from(byte));
            let request = Request {
                path,
                ..Request::default()
            };
            sendable(request, &mut bytes, ports)
        };
        Case {
            name: format!("operators of {template}"),
            requests: (0..=255).filter(sent).map(request).collect(),
            filters: Filters {
                deny: None,
                allow: translate::of(&specs, &Action::Allow, On::Requests),
            },
            specs,
            context: context(&Value::Null),
        }
    };
    ["/a/{*}", "/a/{**}"].iter().map(case).collect()
}

#[test]
fn envoy_decides_as_we_do() {
    let Some(program) = server::program() else {
        println!("envoy: skipped: no Envoy here (`./test` installs it, or set MESHWARD_ENVOY)");
        return;
    };
    let ports = [free_port(), free_port()];
    let requests = number("MESHWARD_ENVOY_REQUESTS", 50);
    let mut cases = generated(number("MESHWARD_ENVOY_CASES", 100), requests, ports);
    cases.extend(from_goldens(requests, ports));
    cases.extend(operators(ports));
    let mut peers: Vec<String> = PEERS.iter().skip(1).map(|peer| (*peer).to_owned()).collect();
    for case in &cases {
        let asked = case.requests.iter().filter_map(|request| request.peer.as_ref());
        peers.extend(asked.map(ToString::to_string));
    }
    peers.sort();
    peers.dedup();
    let ranges = Ranges {
        peers,
        names: names(),
        sources: ADDRESSES.iter().map(|ip| ip.parse::<IpAddr>().unwrap()).collect(),
    };
    let filters: Vec<&Filters> = cases.iter().map(|case| &case.filters).collect();
    let deciding = |dir: &std::path::Path| {
        let listener = |port: &u16| server::requests(*port, &filters, dir);
        ports.iter().map(listener).collect()
    };
    let envoy = Envoy::start(&program, "requests", &ranges, deciding);
    let (asked, admitted, next) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let wrong = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = envoy.client();
                while let Some((at, case)) = {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    cases.get(at).map(|case| (at, case))
                } {
                    let sets = [Compat::Istio, Compat::Secure].map(|compat| compiled(case, compat));
                    for request in &case.requests {
                        let status = client.ask(at, request);
                        let theirs = match status {
                            200 => true,
                            403 => false,
                            other => panic!("{}: {request:?}: {other}", case.name),
                        };
                        asked.fetch_add(1, Ordering::Relaxed);
                        admitted.fetch_add(usize::from(theirs), Ordering::Relaxed);
                        if let Some(why) = difference(&sets, request, theirs) {
                            let told =
                                format!("{}: {why}: {request:?}\n{}", case.name, decided(case, request));
                            wrong.lock().unwrap().push(told);
                        }
                    }
                }
            });
        }
    });
    let (asked, admitted) = (asked.into_inner(), admitted.into_inner());
    let wrong = wrong.into_inner().unwrap();
    println!(
        "envoy: {asked} requests, {admitted} admitted, {} decided otherwise",
        wrong.len()
    );
    assert!(
        wrong.is_empty(),
        "{}",
        wrong.iter().take(5).cloned().collect::<Vec<_>>().join("\n")
    );
    assert!(
        admitted > asked / 20 && admitted < asked,
        "the requests are near no edge"
    );
}

/// Istio's semantics are Envoy's. The secure ones admit nothing that Envoy refuses, but for what a template's operators take
/// (R4) in an ALLOW.
fn difference([istio, secure]: &[PolicySet; 2], request: &Request, theirs: bool) -> Option<&'static str> {
    let ours = |set: &PolicySet| authorize(&request.facts(), set).is_ok();
    if ours(istio) != theirs {
        return Some(if theirs {
            "only Envoy admits"
        } else {
            "only we admit"
        });
    }
    let r4 = request
        .path
        .contains(['[', '|', '{', '"', '<', '>', '^', '`', '\\', '}', ']']);
    (!theirs && !r4 && ours(secure)).then_some("the secure semantics open")
}
