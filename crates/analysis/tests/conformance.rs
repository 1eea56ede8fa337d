//! What others observed, asked of `eval`: its decision is to be theirs.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test stops where it fails"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use analysis::{Custom, Eval, Offline, Providers};
use api::Object;
use compiler::Options;
use model::Profile;
use serde_json::{Value, json};
use testkit::conformance::{self, Tally};

fn objects(file: &str, text: &str) -> Vec<Arc<Object>> {
    let parsed = api::parse(file, text.as_bytes());
    parsed.objects.into_iter().map(Arc::new).collect()
}

fn mesh_config(config: &Value) -> Vec<Arc<Object>> {
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"},
        "data": {"mesh": config.to_string()},
    });
    objects("mesh.json", &map.to_string())
}

fn world(objects: Vec<Arc<Object>>) -> Offline {
    world_of(objects, Profile::Istio)
}

fn world_of(objects: Vec<Arc<Object>>, profile: Profile) -> Offline {
    let options = Options {
        profile,
        ..Options::default()
    };
    Offline::assuming(objects, Vec::new(), options).unwrap()
}

/// The answers of `eval` to lines, as a pipeline would have them.
fn eval(world: Offline, providers: Providers, questions: &[Value]) -> Vec<Value> {
    let lines: String = questions.iter().map(|question| format!("{question}\n")).collect();
    let mut eval = Eval::new(world, providers);
    let mut out = Vec::new();
    eval.lines(lines.as_bytes(), &mut out);
    let answers: Vec<Value> = out
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(answers.len(), questions.len());
    assert_eq!(eval.tally().broken, 0, "{answers:?}");
    answers
}

fn caller(id: &str) -> Option<Value> {
    let id: model::SpiffeId = id.parse().ok()?;
    Some(json!({
        "namespace": id.namespace(), "serviceAccount": id.service_account(),
        "trustDomain": id.trust_domain().as_str(),
    }))
}

/// `can-i` walks, `eval` does not: they decide alike, whatever the policies.
#[test]
fn can_i_and_eval_come_to_the_same() {
    for seed in 0..400 {
        let profile = if seed % 2 == 0 {
            Profile::Secure
        } else {
            Profile::Istio
        };
        let mut edges = testkit::edges::Edges::new(seed);
        let policies = edges.policies();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": policies}).to_string();
        let asked: Vec<Value> = (0..20)
            .map(|_| {
                let mut question = edges.request(&policies);
                question["to"] = json!({"namespace": "full", "labels": {"app": "web"}, "port": 80});
                question
            })
            .collect();
        let answers = eval(
            world_of(objects("p.json", &list), profile),
            Providers::new(),
            &asked,
        );
        let mut world = world_of(objects("p.json", &list), profile);
        for (asked, answer) in asked.iter().zip(&answers) {
            let text = asked.to_string();
            let question = serde_json::from_str(&text).unwrap();
            world
                .prepare([&analysis::Question::clone(&question).to].into_iter())
                .unwrap();
            let mut walked = serde_json::to_value(world.ask(&question, &Providers::new(), true)).unwrap();
            let steps = walked.as_object_mut().unwrap().remove("steps");
            assert!(steps.is_some_and(|steps| steps.as_array().is_some_and(|s| s.len() > 1)));
            assert_eq!(walked, *answer, "seed {seed}: {text}");
        }
    }
}

mod oracle {
    use super::*;

    fn question(words: &Value, labels: &Value) -> Option<Value> {
        let mut question = json!({
            "from": null, "protocol": "http", "method": "GET", "path": "/", "host": "example.com",
            "sourceIP": "127.0.0.1",
            "to": {"namespace": "foo", "labels": labels, "port": 80, "ip": "127.0.0.1"},
        });
        for (word, value) in words.as_object().unwrap() {
            match word.as_str() {
                "method" | "path" | "host" | "sni" => question[word] = value.clone(),
                "headers" => {
                    let fields = value.as_object().unwrap().iter();
                    question["headers"] = fields
                        .map(|(name, value)| (name.clone(), json!([value])))
                        .collect();
                }
                "principal" => question["from"] = caller(value.as_str().unwrap())?,
                // Given by PROXY protocol; `source.ip` is the socket's peer.
                "src_ip" if words["xff"].is_null() => question["remoteIP"] = value.clone(),
                "xff" => question["remoteIP"] = value.clone(),
                "src_ip" => {}
                "dst_ip" => question["to"]["ip"] = value.clone(),
                "dst_port" => question["to"]["port"] = value.clone(),
                "jwt" => question["claims"] = value.clone(),
                other => panic!("a request has no {other}"),
            }
        }
        Some(question)
    }

    fn providers(case: &Value) -> Providers {
        let id = case["id"].as_str().unwrap();
        // gRPC providers were down and failed open, the HTTP one refused, a provider that is not there refuses.
        let says = match id.contains("custom-http") || id.contains("custom-bad") {
            true => Custom::Deny,
            false => Custom::Allow,
        };
        let names = case["policies"].as_array().unwrap().iter();
        let names = names.filter_map(|policy| policy["spec"]["provider"]["name"].as_str());
        names.map(|name| (name.to_owned(), says)).collect()
    }

    #[test]
    fn az_sm_rp_what_a_real_envoy_decided() {
        let Some(set) = conformance::set("authz-oracle") else {
            return;
        };
        let data = conformance::json(&set.join("cases.json"));
        let labels = &data["workload"]["labels"];
        let mut tally = Tally::default();
        for case in data["cases"].as_array().unwrap() {
            let id = case["id"].as_str().unwrap();
            if case["protocol"] == "tcp" {
                for _ in case["requests"].as_array().unwrap() {
                    tally.not_applicable("of TCP, taken where strangers pass an ALLOW; see authz-goldens");
                }
                continue;
            }
            let mut all = Vec::new();
            for policy in case["policies"].as_array().unwrap() {
                all.extend(objects("policy.json", &policy.to_string()));
            }
            let invalid = all.iter().any(|object| object.invalid.is_some());
            let mut config = json!({"trustDomainAliases": case["trust_domain_aliases"]});
            if let Some(trust_domain) = case["trust_domain"].as_str() {
                config["trustDomain"] = trust_domain.into();
            }
            if config["trustDomainAliases"].is_null() {
                config["trustDomainAliases"] = json!([]);
            }
            all.extend(mesh_config(&config));
            let (mut asked, mut expected) = (Vec::new(), Vec::new());
            for verdict in case["requests"].as_array().unwrap() {
                let Some(question) = question(&verdict["request"], labels) else {
                    tally.not_applicable("whose peer has no identity of a mesh's form");
                    continue;
                };
                asked.push(question);
                expected.push(verdict);
            }
            let answers = eval(world(all), providers(case), &asked);
            for (answer, verdict) in answers.iter().zip(expected) {
                judge(id, answer, verdict, invalid, &mut tally);
            }
        }
        tally.finish("authz-oracle by eval");
    }

    fn judge(id: &str, answer: &Value, verdict: &Value, invalid: bool, tally: &mut Tally) {
        let name = format!("{id} {}", verdict["request"]);
        let allowed = answer["decision"] == "allow";
        match verdict["allowed"].as_bool() {
            Some(expect) if answer["decision"] != "unknown" && allowed == expect => tally.pass(),
            Some(true) if invalid && answer["reason"] == "DENY_POLICY_INVALID" => {
                tally.not_applicable("of policies that admission refuses: here they deny");
            }
            None if answer["code"] == 400 => tally.pass(),
            None => tally.not_applicable("that Envoy refused as no request"),
            Some(expect) => tally.fail(name, format!("allowed {expect}, here {answer}")),
        }
    }
}

mod observed {
    use super::*;

    /// Who stands in the world: `namespace/pod` to identity and address.
    fn pods(text: &str) -> BTreeMap<String, (Option<String>, String)> {
        let world = world(objects("world.yaml", text));
        let pods = world.compiled().pods.iter();
        pods.map(|pod| {
            let address = pod.ips.first().unwrap().to_string();
            (
                format!("{}/{}", pod.namespace, pod.name),
                (pod.identity.clone(), address),
            )
        })
        .collect()
    }

    fn question(request: &Value, pods: &BTreeMap<String, (Option<String>, String)>) -> Value {
        let (identity, address) = &pods[request["from"].as_str().unwrap()];
        let http = request["tool"] != "tcp";
        let (host, path) = match request["url"].as_str() {
            Some(url) => {
                let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
                rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()))
            }
            None => (request["addr"].as_str().unwrap(), ""),
        };
        let (name, port) = host.split_once(':').unwrap_or((host, "80"));
        let port: u16 = port.parse().unwrap();
        let mut parts = name.split('.');
        let (service, namespace) = (parts.next().unwrap(), parts.next().unwrap());
        let to = match parts.next() {
            Some("pod") => json!({"namespace": namespace, "workload": service, "port": port}),
            _ => json!({"namespace": namespace, "service": service, "port": port}),
        };
        let mut question = json!({
            "from": identity.as_deref().and_then(caller), "sourceIP": address, "to": to,
            "protocol": if http { "http" } else { "tcp" },
        });
        if !http {
            return question;
        }
        question["host"] = host.into();
        question["path"] = if request["tool"] == "grpc" {
            "/proto.EchoTestService/Echo".into()
        } else {
            path.into()
        };
        question["method"] = match request["tool"] == "grpc" {
            true => "POST".into(),
            false => request["method"].as_str().unwrap_or("GET").into(),
        };
        let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let fields = request["headers"].as_object().into_iter().flatten();
        let mut add = |name: &str, value: &str| {
            if name.eq_ignore_ascii_case("host") {
                question["host"] = value.into();
            } else {
                headers.entry(name.to_owned()).or_default().push(value.to_owned());
            }
        };
        for (name, value) in fields {
            add(name, value.as_str().unwrap());
        }
        for line in request["args"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if let Some((name, value)) = line.split_once(": ") {
                add(name, value);
            }
        }
        question["headers"] = json!(headers);
        question
    }

    #[test]
    fn az_n_what_real_istio_did() {
        let Some(set) = conformance::set("istio-observed") else {
            return;
        };
        let cases = conformance::json(&set.join("cases.json"));
        let mut tally = Tally::default();
        for case in cases.as_array().unwrap() {
            let id = case["id"].as_str().unwrap();
            if !id.starts_with("03-") && !id.starts_with("03b-") {
                continue;
            }
            let file = set
                .join("worlds")
                .join(format!("{}.yaml", case["world"].as_str().unwrap()));
            let text = std::fs::read_to_string(&file).unwrap();
            let pods = pods(&text);
            let mut config = case["config"].as_str().unwrap().to_owned();
            for (pod, (_, address)) in &pods {
                config = config.replace(&format!("$ip_{}", pod.replace(['/', '-'], "_")), address);
            }
            let mut all = objects("world.yaml", &text);
            let policies = objects("config.yaml", &config);
            let invalid = policies.iter().any(|object| object.invalid.is_some());
            all.extend(policies);
            if case["meshConfig"].is_object() {
                all.extend(mesh_config(&case["meshConfig"]));
            }
            let requests = case["requests"].as_array().unwrap();
            let questions: Vec<Value> = requests.iter().map(|request| question(request, &pods)).collect();
            // A provider that MeshConfig does not have refuses (semantics 2.13).
            let nosuch = Providers::from([("nosuch".to_owned(), Custom::Deny)]);
            let answers = eval(world(all), nosuch, &questions);
            for (request, answer) in requests.iter().zip(&answers) {
                judge(id, request, answer, invalid, &mut tally);
            }
        }
        tally.finish("istio-observed 03, 03b by eval");
    }

    fn judge(id: &str, request: &Value, answer: &Value, invalid: bool, tally: &mut Tally) {
        let outcome = request["outcome"].as_str().unwrap();
        let wanted = match outcome {
            "200" | "OK" | "echoed" => "allow",
            "403" | "PermissionDenied" | "closed" | "400" => "deny",
            _ => return tally.not_applicable("that came to nothing that policy decides"),
        };
        let passed_by = request["access_log"].to_string().contains("PassthroughCluster");
        if answer["decision"] == wanted && (outcome != "400" || answer["code"] == 400) {
            return tally.pass();
        }
        if answer["decision"] == "deny" && invalid && answer["reason"] == "DENY_POLICY_INVALID" {
            return tally.not_applicable("of policies that validation refuses: here they deny (AZ-005)");
        }
        if passed_by {
            return tally.not_applicable("that Istio passed by without identity (O-01)");
        }
        tally.fail(
            format!("{id} {}", request["id"]),
            format!("{outcome}, here {answer}"),
        );
    }
}
