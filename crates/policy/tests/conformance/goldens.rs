//! The filters that Istio translates policies into, evaluated on requests near their values.

use std::net::IpAddr;
use std::path::Path;

use model::{Cidr, Reason};
use policy::{Compat, Context, PolicySet, ShadowVerdict, authorize};
use regex::Regex;
use serde_json::Value;

use crate::Tally;
use crate::yaml;
use testkit::decisions::{Claims, Headers, Request, policy};

/// How many requests each case is tried with.
const PROBES: usize = 1500;

pub(crate) fn case(dir: &Path, case: &Value, tally: &mut Tally) {
    let id = case["id"].as_str().unwrap();
    let specs: Vec<_> = yaml::file(&dir.join(case["input"].as_str().unwrap()))
        .iter()
        .filter(|object| object["kind"] == "AuthorizationPolicy")
        .map(|object| {
            let mut object = object.clone();
            // The workload of the goldens is in `foo`.
            if object["metadata"]["namespace"].is_null() {
                object["metadata"]["namespace"] = "foo".into();
            }
            policy(&object)
        })
        .collect();
    let outputs = case["outputs"].as_array().unwrap().iter();
    let filters: Vec<Value> = outputs
        .flat_map(|file| yaml::file(&dir.join(file.as_str().unwrap())))
        .collect();
    let mut context = Context {
        compat: Compat::Istio,
        ..Context::default()
    };
    if let Some(td) = case["trust_domain"].as_str() {
        context.trust_domain = td.parse().unwrap();
    }
    let aliases = case["trust_domain_aliases"].as_array().into_iter().flatten();
    context.aliases = aliases.map(|td| td.as_str().unwrap().parse().unwrap()).collect();
    let set = PolicySet::compile(&specs, &[], &context);
    let words = Words::of(&filters);
    let mut seed = 1;
    for _ in 0..PROBES {
        let mut request = words.request(&mut seed);
        request.http = case["protocol"] == "http";
        let expect = evaluate(&filters, &request);
        let found = ours(&set, &request);
        if found != expect {
            tally.check(
                &format!("{id} {request:?}"),
                &format!("{found:?}"),
                &format!("{expect:?}"),
            );
            return;
        }
    }
    tally.check(id, &"agrees", &"agrees");
}

/// What the filters of one workload make of a request.
#[derive(PartialEq, Eq, Debug, Default)]
struct Outcome {
    denied: bool,
    /// An external authorizer would be asked, or nobody can be.
    custom: bool,
    audit: bool,
    dry_allow: Option<bool>,
    dry_deny: Option<bool>,
}

fn ours(set: &PolicySet, request: &Request) -> Outcome {
    let answer = authorize(&request.facts(), set);
    let (audit, shadow) = match &answer {
        Ok(permit) => (permit.audit(), permit.shadow()),
        Err(denial) => (denial.audit, denial.shadow),
    };
    let reason = answer.err().map(|d| d.reason);
    let passes = |verdict: Option<ShadowVerdict>| verdict.map(|v| v == ShadowVerdict::Allowed);
    Outcome {
        denied: reason.is_some_and(|reason| reason != Reason::DenyCustom),
        custom: reason == Some(Reason::DenyCustom),
        audit,
        dry_allow: passes(shadow.allow),
        dry_deny: passes(shadow.deny),
    }
}

fn evaluate(filters: &[Value], request: &Request) -> Outcome {
    let mut outcome = Outcome::default();
    for filter in filters {
        let config = &filter["typedConfig"];
        if !config["@type"].as_str().unwrap().contains(".rbac.") {
            continue;
        }
        if let Some(rules) = config.get("rules") {
            let matched = first(rules, request);
            match rules["action"].as_str() {
                Some("DENY") if matched.as_ref().is_some_and(|name| name.contains("CUSTOM")) => {
                    outcome.custom = true
                }
                Some("DENY") => outcome.denied |= matched.is_some(),
                Some("LOG") => outcome.audit |= matched.is_some(),
                _ => outcome.denied |= matched.is_none(),
            }
        }
        if let Some(rules) = config.get("shadowRules") {
            let matched = first(rules, request);
            match config["shadowRulesStatPrefix"].as_str().unwrap() {
                "istio_dry_run_allow_" => outcome.dry_allow = Some(matched.is_some()),
                "istio_dry_run_deny_" => outcome.dry_deny = Some(matched.is_none()),
                _ => outcome.custom |= matched.is_some(),
            }
        }
    }
    outcome
}

fn first(rules: &Value, request: &Request) -> Option<String> {
    let policies = rules["policies"].as_object()?;
    let any = |list: &Value| list.as_array().unwrap().iter().any(|node| holds(node, request));
    let found = policies
        .iter()
        .find(|(_, p)| any(&p["permissions"]) && any(&p["principals"]));
    found.map(|(name, _)| name.clone())
}

/// A permission or a principal.
fn holds(node: &Value, request: &Request) -> bool {
    let (kind, value) = node.as_object().unwrap().iter().next().unwrap();
    let list = |key: &str| {
        value[key]
            .as_array()
            .unwrap()
            .iter()
            .map(|node| holds(node, request))
    };
    match kind.as_str() {
        "any" => true,
        "andRules" => list("rules").all(|h| h),
        "orRules" => list("rules").any(|h| h),
        "andIds" => list("ids").all(|h| h),
        "orIds" => list("ids").any(|h| h),
        "notRule" | "notId" => !holds(value, request),
        "destinationPort" => value.as_u64() == Some(request.port.into()),
        "destinationIp" => block(value, request.destination),
        "directRemoteIp" => block(value, request.source),
        "remoteIp" => block(value, request.remote),
        "requestedServerName" => text(value, request.sni.as_deref().unwrap_or_default()),
        "authenticated" => {
            let name = value.get("principalName").unwrap();
            request
                .peer
                .as_ref()
                .is_some_and(|id| text(name, &id.to_string()))
        }
        "urlPath" => text(&value["path"], request.path.split('?').next().unwrap()),
        "header" => header(value, request),
        "uriTemplate" => {
            let template = regex::escape(value["typedConfig"]["pathTemplate"].as_str().unwrap());
            let operand = r"A-Za-z0-9._~%!$&'()+,;:@=*-";
            let regex = template
                .replace(r"\{\*\*\}", &format!("[{operand}/]*"))
                .replace(r"\{\*\}", &format!("[{operand}]+"));
            let path = request.path.split('?').next().unwrap();
            Regex::new(&format!("^{regex}$")).unwrap().is_match(path)
        }
        "metadata" => metadata(value, request),
        "sourcedMetadata" => metadata(&value["metadataMatcher"], request),
        other => panic!("{other} is not known"),
    }
}

fn header(value: &Value, request: &Request) -> bool {
    let values: Vec<&str> = match value["name"].as_str().unwrap().to_lowercase().as_str() {
        ":method" => vec![&request.method],
        ":authority" => vec![&request.authority],
        name => {
            let all = request.headers.0.iter();
            all.filter(|(n, _)| n.to_lowercase() == name)
                .map(|(_, v)| v.as_str())
                .collect()
        }
    };
    if value["presentMatch"] == true {
        return !values.is_empty();
    }
    values
        .iter()
        .any(|v| text(value.get("stringMatch").unwrap_or(value), v))
}

/// Claims lie below the filter's name, or below `request.auth`.
fn metadata(value: &Value, request: &Request) -> bool {
    let (Some(claims), "istio_authn" | "envoy.filters.http.jwt_authn") =
        (&request.claims, value["filter"].as_str().unwrap())
    else {
        return false;
    };
    let mut at = &claims.0;
    for step in value["path"].as_array().unwrap() {
        match step["key"].as_str().unwrap() {
            "payload" => {}
            key => at = &at[key],
        }
    }
    let wanted = &value["value"];
    let wanted = wanted.get("listMatch").map_or(wanted, |list| &list["oneOf"]);
    let wanted = wanted.get("stringMatch").unwrap_or_else(|| &wanted["orMatch"]);
    let each = at
        .as_array()
        .map_or_else(|| vec![at], |list| list.iter().collect());
    each.iter().any(|v| v.as_str().is_some_and(|v| text(wanted, v)))
}

fn text(matcher: &Value, value: &str) -> bool {
    let fold = matcher["ignoreCase"] == true;
    let lower = |text: &str| {
        if fold {
            text.to_lowercase()
        } else {
            text.to_owned()
        }
    };
    let value = lower(value);
    let (kind, wanted) = matcher
        .as_object()
        .unwrap()
        .iter()
        .find(|(key, _)| *key != "ignoreCase")
        .unwrap();
    let wanted = || lower(wanted.as_str().unwrap());
    match kind.as_str() {
        "exact" => value == wanted(),
        "prefix" => value.starts_with(&wanted()),
        "suffix" => value.ends_with(&wanted()),
        "safeRegex" => {
            let regex = matcher["safeRegex"]["regex"].as_str().unwrap();
            Regex::new(&format!("^(?:{regex})$")).unwrap().is_match(&value)
        }
        other => panic!("{other} is not known"),
    }
}

fn block(value: &Value, ip: IpAddr) -> bool {
    let length = value["prefixLen"].as_u64().unwrap_or_default();
    let base = value["addressPrefix"].as_str().unwrap().parse().unwrap();
    Cidr::new(base, u8::try_from(length).unwrap())
        .unwrap()
        .contains(ip)
}

/// What the filters speak of.
#[derive(Debug, Default)]
struct Words(Vec<String>);

impl Words {
    fn of(filters: &[Value]) -> Self {
        let mut words = Self::default();
        filters.iter().for_each(|filter| words.collect(filter));
        words.0.sort();
        words.0.dedup();
        words
    }

    fn collect(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.0.push(text.clone()),
            Value::Number(number) => self.0.push(number.to_string()),
            Value::Array(list) => list.iter().for_each(|v| self.collect(v)),
            Value::Object(map) => map.values().for_each(|v| self.collect(v)),
            _ => {}
        }
    }

    /// A request of these words, by a sequence that is the same each time.
    fn request(&self, seed: &mut u64) -> Request {
        let mut random = |n: usize| {
            *seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(*seed >> 33).unwrap() % n.max(1)
        };
        let mut pick = |of: &[String], other: &str| match random(of.len() + 1) {
            0 => other.to_owned(),
            at => of[at - 1].clone(),
        };
        let some =
            |f: &dyn Fn(&str) -> Option<String>| self.0.iter().filter_map(|w| f(w)).collect::<Vec<String>>();
        let plain = some(&|w| (!w.contains(['/', ' '])).then(|| w.to_owned()));
        let paths = some(&|w| w.starts_with('/').then(|| w.to_owned()));
        let ips = some(&|w| w.parse::<IpAddr>().ok().map(|_| w.to_owned()));
        let ports = some(&|w| w.parse::<u16>().ok().map(|_| w.to_owned()));
        let peers: Vec<String> = self.0.iter().flat_map(|word| peers(word)).collect();
        Request {
            peer: pick(&peers, "").parse().ok(),
            source: pick(&ips, "127.0.0.1").parse().unwrap(),
            remote: pick(&ips, "127.0.0.1").parse().unwrap(),
            destination: pick(&ips, "127.0.0.1").parse().unwrap(),
            port: pick(&ports, "7").parse().unwrap(),
            sni: Some(pick(&plain, "sni")).filter(|sni| sni != "sni"),
            method: pick(&plain, "GET"),
            authority: pick(&plain, "h"),
            path: pick(&paths, "/"),
            headers: Headers(vec![(pick(&plain, "x"), pick(&plain, "v"))]),
            claims: Some(Claims(serde_json::json!({
                "iss": pick(&plain, "i"), "sub": pick(&plain, "s"), "aud": [pick(&plain, "a")], "azp": pick(&plain, "p"),
            }))),
            ..Request::default()
        }
    }
}

/// Identities near what a filter asks for.
fn peers(word: &str) -> Vec<String> {
    let exact = word.parse::<model::SpiffeId>().map(|id| id.to_string());
    let clean = word.replace('\\', "");
    let namespace = clean.strip_prefix(".*/ns/").and_then(|w| w.strip_suffix("/.*"));
    let any_domain = clean.strip_prefix("spiffe://.*");
    let domain = clean.strip_prefix("spiffe://").map(|rest| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        rest.chars().take_while(|c| plain(*c)).collect::<String>()
    });
    let mut peers: Vec<String> = exact.into_iter().collect();
    peers.extend(namespace.map(|ns| format!("spiffe://cluster.local/ns/{ns}/sa/x")));
    peers.extend(any_domain.map(|rest| format!("spiffe://x{rest}")));
    for end in ["", "x"] {
        peers.extend(
            domain
                .as_ref()
                .map(|td| format!("spiffe://{td}{end}/ns/foo/sa/x")),
        );
    }
    peers
}
