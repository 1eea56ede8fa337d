//! Verdicts that a real Envoy gave on policies as Istio translates them.

use std::path::Path;

use policy::path::{Mode, normalize};
use policy::{
    Compat, Context, External, ExternalAnswer, PolicySet, ShadowVerdict, authorize_with, explain_with,
};
use serde_json::Value;

use crate::Tally;
use testkit::decisions::{Claims, Headers, Request, policy};

/// The stub that the verdicts were taken with: gRPC providers were down and fail open, the HTTP one refused.
struct Stub(ExternalAnswer);

impl External for Stub {
    fn answer(&self, _: &str) -> ExternalAnswer {
        self.0
    }
}

pub(crate) fn case(_: &Path, case: &Value, tally: &mut Tally) {
    let id = case["id"].as_str().unwrap();
    let texts = |value: &Value| -> Vec<String> {
        let list = value.as_array().into_iter().flatten();
        list.map(|v| v.as_str().unwrap().to_owned()).collect()
    };
    let mut context = Context {
        compat: Compat::Istio,
        aliases: texts(&case["trust_domain_aliases"])
            .iter()
            .map(|td| td.parse().unwrap())
            .collect(),
        ..Context::default()
    };
    if let Some(td) = case["trust_domain"].as_str() {
        context.trust_domain = td.parse().unwrap();
    }
    let specs: Vec<_> = case["policies"].as_array().unwrap().iter().map(policy).collect();
    let set = PolicySet::compile(&specs, &[], &context);
    let stub = match id {
        _ if id.contains("custom-http") => Stub(ExternalAnswer::Deny),
        _ if id.contains("custom-bad") => Stub(ExternalAnswer::Unasked),
        _ => Stub(ExternalAnswer::Allow),
    };
    let http = case["protocol"].as_str() != Some("tcp");
    for verdict in case["requests"].as_array().unwrap() {
        if !http {
            tally.skip(
                "of TCP, taken where an AUDIT policy refuses and strangers pass an ALLOW; see authz-goldens",
            );
            continue;
        }
        let name = format!("{id} {}", verdict["request"]);
        let Some(mut request) = request(&verdict["request"]) else {
            tally.skip("whose peer has no identity of a mesh's form");
            continue;
        };
        let path = normalize(request.path.as_bytes(), Mode::Base).map(std::borrow::Cow::into_owned);
        let Some(expect) = verdict["allowed"].as_bool() else {
            // Refused by Envoy itself: with a NUL in the path, so are we.
            match path {
                Err(_) => tally.check(&name, &"refused", &"refused"),
                Ok(_) => tally.skip("that Envoy refused as no request"),
            }
            continue;
        };
        request.path = path.unwrap();
        let facts = request.facts();
        let answer = authorize_with(&facts, &set, &stub);
        let explained = explain_with(&facts, &set, &stub);
        let agrees = explained.denied == answer.as_ref().err().map(|d| d.reason);
        let shadow = match &answer {
            Ok(permit) => permit.shadow(),
            Err(denial) => denial.shadow,
        };
        let found = format!("allowed {} explained {agrees}", answer.is_ok());
        let shadows = texts(&verdict["shadow"]);
        let dry = |kind: &str, ours: Option<ShadowVerdict>| {
            let said = shadows
                .iter()
                .find_map(|s| s.strip_prefix(&format!("istio_dry_run_{kind}_.shadow_")))?;
            let ours = match ours {
                Some(ShadowVerdict::Allowed) => "allowed",
                Some(ShadowVerdict::Denied) => "denied",
                None => "absent",
            };
            Some((format!(" {kind} {ours}"), format!(" {kind} {said}")))
        };
        let (mut found, mut wanted) = (found, format!("allowed {expect} explained true"));
        for (ours, said) in [dry("allow", shadow.allow), dry("deny", shadow.deny)]
            .into_iter()
            .flatten()
        {
            found += &ours;
            wanted += &said;
        }
        tally.check(&name, &found, &wanted);
    }
}

/// `None` where the peer's name is no workload's.
fn request(words: &Value) -> Option<Request> {
    let mut request = Request::default();
    for (word, value) in words.as_object().unwrap() {
        let text = || value.as_str().unwrap().to_owned();
        let ip = || value.as_str().unwrap().parse().unwrap();
        match word.as_str() {
            "method" => request.method = text(),
            "path" => request.path = text(),
            "host" => request.authority = text(),
            "headers" => {
                let pairs = value.as_object().unwrap().iter();
                request.headers = Headers(
                    pairs
                        .map(|(n, v)| (n.clone(), v.as_str().unwrap().to_owned()))
                        .collect(),
                );
            }
            "principal" => request.peer = Some(text().parse().ok()?),
            "sni" => request.sni = Some(text()),
            // Given by PROXY protocol: `source.ip` of Istio is the socket's peer, which the verdicts were taken from
            // over loopback.
            "src_ip" => request.remote = ip(),
            "xff" => {}
            "dst_ip" => request.destination = ip(),
            "dst_port" => request.port = u16::try_from(value.as_u64().unwrap()).unwrap(),
            "jwt" => request.claims = Some(Claims(value.clone())),
            other => panic!("a request has no {other}"),
        }
    }
    if let Some(xff) = words["xff"].as_str() {
        request.remote = xff.parse().unwrap();
    }
    Some(request)
}
