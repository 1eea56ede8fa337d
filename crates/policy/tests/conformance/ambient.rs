//! What Istio hands to an enforcement point that sees connections only, against our decision of a connection.
//!
//! Such a point never matches a DENY that asks for a request only (2.17); ours refuses instead. Where it denies, we must;
//! what an ALLOW admits, must be the same.

use std::net::IpAddr;
use std::path::Path;

use model::Cidr;
use policy::{Compat, Context, PolicySet, authorize};
use serde_json::Value;

use crate::Tally;
use crate::yaml;
use testkit::decisions::{Request, policy};

/// Attributes of connections that ambient takes for those of requests.
const ELSEWHERE: [&str; 5] = [
    "remoteIpBlocks",
    "remote.ip",
    "connection.sni",
    "trustDomain",
    "experimental.",
];

pub(crate) fn case(dir: &Path, case: &Value, tally: &mut Tally) {
    let id = case["id"].as_str().unwrap();
    let file = |value: &Value| yaml::file(&dir.join(value.as_str().unwrap()));
    let inputs: Vec<Value> = file(&case["input"]);
    if inputs
        .iter()
        .any(|object| object["kind"] != "AuthorizationPolicy")
    {
        tally.skip("of PeerAuthentication, which no decision of this crate depends on");
        return;
    }
    let outputs: Vec<Value> = case["outputs"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(file)
        .collect();
    for (mut input, output) in inputs.into_iter().zip(outputs) {
        let deny = output["action"] == "DENY";
        if !deny && let Some(rules) = input["spec"]["rules"].as_array_mut() {
            rules.retain(|rule| !ELSEWHERE.iter().any(|word| rule.to_string().contains(word)));
        }
        let context = Context {
            compat: Compat::Istio,
            ..Context::default()
        };
        let set = PolicySet::compile(&[policy(&input)], &[], &context);
        let (mut matched, mut wrong) = (0, None);
        for request in requests(&output) {
            let ours = authorize(&request.facts(), &set).is_ok();
            let theirs = groups(&output, &request) != deny;
            matched += usize::from(theirs != deny);
            if if deny { ours && !theirs } else { ours != theirs } {
                wrong = Some(format!("{request:?}: admitted {ours}"));
            }
        }
        assert!(matched > 0, "{id}: no request is matched");
        let wrong = wrong.unwrap_or_else(|| "agrees".to_owned());
        tally.check(id, &wrong, &"agrees");
    }
}

/// Any group, all rules of it, any match of each.
fn groups(output: &Value, request: &Request) -> bool {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    list(output, "groups").iter().any(|group| {
        let mut rules = list(group, "rules").into_iter();
        rules.all(|rule| list(&rule, "matches").iter().any(|m| matches(m, request)))
    })
}

/// A match without fields matches nothing.
fn matches(fields: &Value, request: &Request) -> bool {
    let fields = fields.as_object().unwrap();
    !fields.is_empty()
        && fields.iter().all(|(name, values)| {
            let plain = name.strip_prefix("not").unwrap_or(name);
            let any = values
                .as_array()
                .unwrap()
                .iter()
                .any(|value| one(plain, value, request));
            any != name.starts_with("not")
        })
}

fn one(field: &str, value: &Value, request: &Request) -> bool {
    let peer = request.peer.as_ref();
    match field {
        "principals" | "Principals" => {
            peer.is_some_and(|id| form(value, id.to_string().strip_prefix("spiffe://").unwrap()))
        }
        "namespaces" | "Namespaces" => peer.is_some_and(|id| form(value, id.namespace())),
        "serviceAccounts" | "ServiceAccounts" => peer.is_some_and(|id| {
            value["namespace"] == id.namespace() && value["serviceAccount"] == id.service_account()
        }),
        "sourceIps" | "SourceIps" => block(value).contains(request.source),
        "destinationIps" | "DestinationIps" => block(value).contains(request.destination),
        "destinationPorts" | "DestinationPorts" => value.as_u64() == Some(request.port.into()),
        other => panic!("{other} is not known"),
    }
}

fn form(value: &Value, text: &str) -> bool {
    let (kind, wanted) = value.as_object().unwrap().iter().next().unwrap();
    let wanted = wanted.as_str().unwrap_or_default();
    match kind.as_str() {
        "exact" => text == wanted,
        "prefix" => text.starts_with(wanted),
        "suffix" => text.ends_with(wanted),
        "presence" => !text.is_empty(),
        other => panic!("{other} is not known"),
    }
}

fn block(value: &Value) -> Cidr {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = value["address"]
        .as_str()
        .unwrap()
        .chars()
        .filter_map(|c| ALPHABET.find(c));
    let bits = digits.fold(String::new(), |bits, digit| bits + &format!("{digit:06b}"));
    let bytes: Vec<u8> = bits
        .as_bytes()
        .chunks_exact(8)
        .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap())
        .collect();
    let ip = <[u8; 4]>::try_from(&*bytes).map_or_else(
        |_| IpAddr::from(<[u8; 16]>::try_from(&*bytes).unwrap()),
        IpAddr::from,
    );
    Cidr::new(ip, u8::try_from(value["length"].as_u64().unwrap_or(0)).unwrap()).unwrap()
}

/// One for each combination of peer, addresses and port that the output speaks of.
fn requests(output: &Value) -> Vec<Request> {
    let (mut peers, mut ips, mut ports) = (vec![None], vec![IpAddr::from([127, 0, 0, 1])], vec![7]);
    collect(output, &mut |field, value| match field {
        "address" => {}
        "sourceIps" | "destinationIps" | "notSourceIps" | "notDestinationIps" => {
            ips.push(block(value).base())
        }
        "destinationPorts" | "notDestinationPorts" => {
            ports.push(u16::try_from(value.as_u64().unwrap()).unwrap())
        }
        "namespaces" | "notNamespaces" => {
            let text = value.as_object().unwrap().values().next().unwrap();
            for name in ["", "x"] {
                let text = text.as_str().unwrap_or("any").trim_matches('-').to_owned() + name;
                for id in [
                    format!("{text}-a/sa/b"),
                    format!("a-{text}/sa/b"),
                    format!("{text}/sa/b"),
                ] {
                    peers.push(format!("spiffe://cluster.local/ns/{id}").parse().ok());
                }
            }
        }
        "serviceAccounts" | "notServiceAccounts" => {
            let name = |key: &str| value[key].as_str().unwrap().to_owned();
            let id = format!(
                "spiffe://td/ns/{}/sa/{}",
                name("namespace"),
                name("serviceAccount")
            );
            peers.push(id.parse().ok());
        }
        _ => {}
    });
    let mut requests = Vec::new();
    for peer in &peers {
        for source in &ips {
            for destination in &ips {
                for port in &ports {
                    requests.push(Request {
                        http: false,
                        peer: peer.clone(),
                        source: *source,
                        destination: *destination,
                        port: *port,
                        ..Request::default()
                    });
                }
            }
        }
    }
    requests
}

fn collect(value: &Value, visit: &mut dyn FnMut(&str, &Value)) {
    match value {
        Value::Array(list) => list.iter().for_each(|v| collect(v, visit)),
        Value::Object(map) => {
            for (field, inner) in map {
                match inner.as_array() {
                    Some(list) => list.iter().for_each(|v| visit(field, v)),
                    None => visit(field, inner),
                }
                collect(inner, visit);
            }
        }
        _ => {}
    }
}
