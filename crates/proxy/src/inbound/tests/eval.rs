//! What a real proxy does with requests near the edges of policies made by chance, against what `eval` says of them.

use std::sync::Arc;

use analysis::{Eval, Offline, Providers};
use meshward_http::{Body, HeaderName, HeaderValue, Method, Request, Response, Sender, Version};
use model::{MtlsMode, Profile};
use policy::PolicySpec;
use serde_json::{Value, json};
use snapshot::{Mesh, PathNormalization, Resource};
use testkit::edges::Edges;

use super::http::{H1, answer, application, speak};
use super::world::{World, mesh};

/// Sets of policies, and requests of each: as many as are played in a few seconds. `MESHWARD_EVAL_SETS` asks for more sets.
const SETS: u64 = 40;
const REQUESTS: usize = 40;

/// What files with these policies come to, by the code of the mesh.
fn offline(policies: &[Value], profile: Profile) -> Offline {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": policies});
    let parsed = api::parse("policies.json", list.to_string().as_bytes());
    assert_eq!(parsed.objects.len(), policies.len(), "{:?}", parsed.problems);
    let objects = parsed.objects.into_iter().map(Arc::new).collect();
    let options = compiler::Options {
        profile,
        ..compiler::Options::default()
    };
    Offline::assuming(objects, Vec::new(), options).unwrap()
}

fn request(words: &Value) -> Option<Request> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::from_bytes(words["method"].as_str()?.as_bytes()).ok()?;
    *request.uri_mut() = words["path"].as_str()?.parse().ok()?;
    let fields = request.headers_mut();
    fields.insert("host", HeaderValue::from_str(words["host"].as_str()?).ok()?);
    for (name, values) in words["headers"].as_object().into_iter().flatten() {
        for value in values.as_array()? {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            fields.append(name, HeaderValue::from_str(value.as_str()?).ok()?);
        }
    }
    Some(request)
}

/// The policies as they travel to a proxy.
fn travelling(world: &Offline) -> Vec<PolicySpec> {
    let resources = world
        .compiled()
        .nodes
        .values()
        .flat_map(|resources| resources.iter());
    let policies = resources.filter_map(|(_, resource)| match resource.as_ref() {
        Resource::Policy(spec) => Some(PolicySpec::clone(spec)),
        _ => None,
    });
    policies.collect()
}

/// Sends a request over a connection that is kept, or a new one where that is at its end.
async fn send(world: &World, words: &Value, kept: &mut Option<Sender>, mut request: Request) -> Response {
    loop {
        let mut sender = match (kept.take(), words["from"].is_null()) {
            (Some(sender), _) => sender,
            (None, true) => speak(world.plain().await, Version::Http1).await,
            (None, false) => speak(world.mutual(H1).await, Version::Http1).await,
        };
        match sender.send(request).await {
            Ok(response) => {
                *kept = Some(sender);
                return response;
            }
            Err(unsent) => request = *unsent.request.expect("not a byte of it was sent"),
        }
    }
}

async fn play(profile: Profile, seed: u64) -> usize {
    let settings = match profile {
        Profile::Secure => mesh(),
        Profile::Istio => Mesh {
            profile,
            deny_by_default: false,
            path_normalization: PathNormalization::Base,
            strict_paths: false,
            strict_hosts: false,
            ..mesh()
        },
    };
    let mode = match profile {
        Profile::Secure => MtlsMode::Strict,
        Profile::Istio => MtlsMode::Permissive,
    };
    let world = World::serving(mode, model::Protocol::Http, Vec::new(), application).await;
    world.change([settings.into()]).await;
    let mut played = 0;
    let sets = std::env::var("MESHWARD_EVAL_SETS")
        .ok()
        .and_then(|n| n.parse().ok());
    for set in 0..sets.unwrap_or(SETS) {
        let mut edges = Edges::new(seed + set);
        let policies = edges.policies();
        let to =
            json!({"namespace": "full", "labels": {"app": "web"}, "port": world.port, "ip": "10.77.0.3"});
        let mut offline = offline(&policies, profile);
        let target = to.to_string();
        let target = serde_json::from_str(&target).unwrap();
        offline.prepare([&target].into_iter()).unwrap();
        world.policies(travelling(&offline)).await;
        let mut eval = Eval::new(offline, Providers::new());
        let (mut proven, mut plain) = (None, None);
        for _ in 0..REQUESTS {
            let mut words = edges.request(&policies);
            if profile == Profile::Secure {
                words["from"] = json!({"namespace": "full", "serviceAccount": "client"});
            }
            let Some(request) = request(&words) else { continue };
            words["to"] = to.clone();
            words["sourceIP"] = "10.77.0.2".into();
            let mut said = Vec::new();
            eval.lines(format!("{words}\n").as_bytes(), &mut said);
            let said: Value = serde_json::from_slice(&said).unwrap();
            let sender = if words["from"].is_null() {
                &mut plain
            } else {
                &mut proven
            };
            let got = answer(send(&world, &words, sender, request).await).await;
            let seed = seed + set;
            assert_eq!(
                said["code"],
                got.status,
                "seed {seed}: the proxy {}, eval {said}\nfor {words}\nof {}",
                got.status,
                json!(policies)
            );
            played += 1;
        }
    }
    played
}

#[tokio::test]
async fn eval_says_what_the_proxy_does_under_the_secure_profile() {
    assert!(play(Profile::Secure, 0).await > 1_000);
}

#[tokio::test]
async fn eval_says_what_the_proxy_does_under_istios_profile() {
    assert!(play(Profile::Istio, 10_000).await > 1_000);
}
