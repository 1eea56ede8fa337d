//! What a real proxy does with requests and connections near the edges of policies made by chance, against what `eval` says of them.

use std::sync::Arc;

use analysis::{Eval, Offline, Providers};
use meshward_http::{Body, HeaderName, HeaderValue, Method, Request, Response, Sender, Version};
use model::{MtlsMode, Profile};
use policy::PolicySpec;
use serde_json::{Value, json};
use snapshot::{Mesh, PathNormalization, Resource};
use testkit::edges::Edges;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::bytes::echo;
use super::http::{H1, answer, application, speak};
use super::world::{Io, World, mesh};

/// Sets of policies, and requests of each: as many as are played in a few seconds. `MESHWARD_EVAL_SETS` asks for more sets.
const SETS: u64 = 40;
const REQUESTS: usize = 40;
/// Each is a handshake.
const CONNECTIONS: usize = 10;

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

fn settings(profile: Profile) -> (Mesh, MtlsMode) {
    match profile {
        Profile::Secure => (mesh(), MtlsMode::Strict),
        Profile::Istio => {
            let mesh = Mesh {
                profile,
                deny_by_default: false,
                path_normalization: PathNormalization::Base,
                strict_paths: false,
                strict_hosts: false,
                ..mesh()
            };
            (mesh, MtlsMode::Permissive)
        }
    }
}

fn sets() -> u64 {
    let asked = std::env::var("MESHWARD_EVAL_SETS").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(SETS)
}

/// Who is called, as `eval` reads it.
fn target(world: &World) -> Value {
    json!({"namespace": "full", "labels": {"app": "web"}, "port": world.port, "ip": "10.77.0.3"})
}

/// The policies are in force, and `eval` knows them.
async fn in_force(world: &World, policies: &[Value], profile: Profile) -> Eval {
    let mut offline = offline(policies, profile);
    let to = target(world).to_string();
    let target = serde_json::from_str(&to).unwrap();
    offline.prepare([&target].into_iter()).unwrap();
    world.policies(travelling(&offline)).await;
    Eval::new(offline, Providers::new())
}

fn said(eval: &mut Eval, words: &Value) -> Value {
    let mut said = Vec::new();
    eval.lines(format!("{words}\n").as_bytes(), &mut said);
    serde_json::from_slice(&said).unwrap()
}

async fn play(profile: Profile, seed: u64) -> usize {
    let (settings, mode) = settings(profile);
    let world = World::serving(mode, model::Protocol::Http, Vec::new(), application).await;
    world.change([settings.into()]).await;
    let mut played = 0;
    for set in 0..sets() {
        let mut edges = Edges::new(seed + set);
        let policies = edges.policies();
        let mut eval = in_force(&world, &policies, profile).await;
        let (mut proven, mut plain) = (None, None);
        for _ in 0..REQUESTS {
            let mut words = edges.request(&policies);
            if profile == Profile::Secure {
                words["from"] = json!({"namespace": "full", "serviceAccount": "client"});
            }
            let Some(request) = request(&words) else { continue };
            words["to"] = target(&world);
            words["sourceIP"] = "10.77.0.2".into();
            let said = said(&mut eval, &words);
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

/// Whether what is sent comes back.
async fn reached(mut stream: impl Io) -> bool {
    let mut byte = [0];
    match stream.write_all(b"not a handshake").await {
        Ok(()) => stream.read(&mut byte).await.is_ok_and(|count| count == 1),
        Err(_) => false,
    }
}

async fn play_connections(profile: Profile, seed: u64) -> [usize; 2] {
    let (settings, mode) = settings(profile);
    let world = World::serving(mode, model::Protocol::Tcp, Vec::new(), echo).await;
    world.change([settings.into()]).await;
    let mut played = [0; 2];
    for set in 0..sets() {
        let seed = seed + set;
        let mut edges = Edges::new(seed).with_connections(world.port);
        let policies = edges.policies();
        let mut eval = in_force(&world, &policies, profile).await;
        for number in 0..CONNECTIONS {
            let proven = profile == Profile::Secure || number % 2 == 0;
            let mut words = json!({"to": target(&world), "sourceIP": "10.77.0.2", "protocol": "tcp"});
            let got = if proven {
                words["from"] = json!({"namespace": "full", "serviceAccount": "client"});
                words["sni"] = "outbound_.80_._.web".into();
                reached(world.mutual(&[b"istio"]).await).await
            } else {
                reached(world.plain().await).await
            };
            let said = said(&mut eval, &words);
            let wanted = if got { "allow" } else { "deny" };
            assert_eq!(
                said["decision"],
                wanted,
                "seed {seed}: eval {said}\nfor {words}\nof {}",
                json!(policies)
            );
            played[usize::from(got)] += 1;
        }
    }
    played
}

#[tokio::test]
async fn eval_says_what_becomes_of_connections_under_the_secure_profile() {
    let [refused, carried] = play_connections(Profile::Secure, 20_000).await;
    assert!(
        refused > 20 && carried > 20,
        "{refused} refused, {carried} carried"
    );
}

#[tokio::test]
async fn eval_says_what_becomes_of_connections_under_istios_profile() {
    let [refused, carried] = play_connections(Profile::Istio, 30_000).await;
    assert!(
        refused > 20 && carried > 20,
        "{refused} refused, {carried} carried"
    );
}
