mod demand;
mod limits;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use policy::{Action, PolicyId, PolicySpec};
use proptest::prelude::*;
use proto::Any;
use proto::envoy::service::discovery::v3::{self as discovery, DeltaDiscoveryResponse};
use snapshot::{Resource, ResourceName, Resources};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::TYPE_URL;
use crate::client::{self, Connect, Held, Options};
use crate::server::{Authenticate, NodeStatus, Server};

const SOON: Duration = Duration::from_secs(10);

/// Plain bytes; the token is the name of the node.
struct Plain;

impl Authenticate for Plain {
    type Io = TcpStream;
    type Peer = ();

    async fn accept(&self, tcp: TcpStream) -> Result<(TcpStream, ()), String> {
        Ok((tcp, ()))
    }

    async fn node(&self, (): &(), token: &str) -> Result<String, String> {
        token
            .strip_prefix("token-of-")
            .map(str::to_owned)
            .ok_or_else(|| "no such token".to_owned())
    }
}

struct Dial(Arc<Mutex<SocketAddr>>, String);

impl Connect for Dial {
    type Io = TcpStream;

    async fn connect(&mut self) -> Result<(TcpStream, String), String> {
        let to = *self.0.lock().unwrap();
        let io = TcpStream::connect(to).await.map_err(|e| e.to_string())?;
        Ok((io, self.1.clone()))
    }
}

async fn serve(server: &Server) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (
        address,
        tokio::spawn(server.clone().serve(listener, Arc::new(Plain))),
    )
}

type Sets = mpsc::UnboundedReceiver<(Resources, u64)>;

/// A client that refuses sets which hold the policy `n/refused`.
fn client(address: &Arc<Mutex<SocketAddr>>, node: &str, token: &str) -> (Sets, JoinHandle<()>) {
    let (send, sets) = mpsc::unbounded_channel();
    let dial = Dial(Arc::clone(address), token.to_owned());
    let options = Options::new(node, || 0.5);
    let task = tokio::spawn(async move {
        client::run(options, dial, move |set, version| {
            if set.get(&ResourceName::from("policy/n/refused")).is_some() {
                return Err("the policy `n/refused` is not understood".to_owned());
            }
            send.send((set, version)).map_err(|e| e.to_string())
        })
        .await
    });
    (sets, task)
}

async fn next(sets: &mut Sets) -> (Resources, u64) {
    timeout(SOON, sets.recv()).await.expect("a set comes").unwrap()
}

async fn until(server: &Server, node: &str, wanted: impl Fn(&NodeStatus) -> bool) -> NodeStatus {
    let mut nodes = server.nodes();
    let found = timeout(SOON, nodes.wait_for(|all| all.get(node).is_some_and(&wanted))).await;
    found.expect("the status comes").unwrap()[node].clone()
}

fn policy(name: &str, line: u32) -> Resource {
    Resource::from(PolicySpec {
        id: PolicyId {
            namespace: "n".to_owned(),
            name: name.to_owned(),
        },
        action: Action::Deny,
        dry_run: false,
        rules: vec![],
        invalid: None,
        origin: policy::Origin {
            file: String::new(),
            line,
        },
    })
}

fn set(policies: &[(&str, u32)]) -> Resources {
    policies.iter().map(|(name, line)| policy(name, *line)).collect()
}

#[tokio::test]
async fn a_new_stream_gets_all_and_then_what_changes() {
    let server = Server::new();
    server.publish("a", set(&[("one", 1), ("two", 1)])).unwrap();
    let (address, _task) = serve(&server).await;
    let (mut sets, _client) = client(&Arc::new(Mutex::new(address)), "a", "token-of-a");
    assert_eq!(next(&mut sets).await.0, set(&[("one", 1), ("two", 1)]));
    for change in [
        set(&[("one", 1), ("two", 1), ("three", 1)]),
        set(&[("one", 2), ("two", 1), ("three", 1)]),
        set(&[("one", 2)]),
        set(&[]),
    ] {
        let version = server.publish("a", change.clone()).unwrap();
        assert_eq!(next(&mut sets).await, (change, version));
        let status = until(&server, "a", |s| s.acked == version).await;
        assert_eq!(
            (status.connected, status.sent, status.nacked),
            (true, version, None)
        );
    }
}

#[tokio::test]
async fn the_same_set_again_is_the_same_version() {
    let server = Server::new();
    let version = server.publish("a", set(&[("one", 1)])).unwrap();
    assert_eq!(server.publish("a", set(&[("one", 1)])).unwrap(), version);
    assert!(server.publish("b", set(&[("one", 1)])).unwrap() > version);
}

#[tokio::test]
async fn p_48_a_refusal_keeps_the_last_good_and_is_told() {
    let server = Server::new();
    server.publish("a", set(&[("one", 1)])).unwrap();
    let (address, _task) = serve(&server).await;
    let (mut sets, _client) = client(&Arc::new(Mutex::new(address)), "a", "token-of-a");
    next(&mut sets).await;
    let refused = server.publish("a", set(&[("one", 2), ("refused", 1)])).unwrap();
    let status = until(&server, "a", |s| s.nacked.is_some()).await;
    let why = "the policy `n/refused` is not understood".to_owned();
    assert_eq!(status.nacked, Some((refused, why)));
    assert!(!status.has(refused));
    let good = server.publish("a", set(&[("one", 3)])).unwrap();
    assert_eq!(
        next(&mut sets).await,
        (set(&[("one", 3)]), good),
        "nothing of the refused set came through"
    );
    let status = until(&server, "a", |s| s.acked == good).await;
    assert_eq!(status.nacked, None);
}

#[tokio::test]
async fn a_way_back_to_what_is_held_is_acknowledged_too() {
    let server = Server::new();
    server.publish("a", set(&[("one", 1)])).unwrap();
    let (address, _task) = serve(&server).await;
    let (mut sets, _client) = client(&Arc::new(Mutex::new(address)), "a", "token-of-a");
    next(&mut sets).await;
    server.publish("a", set(&[("refused", 1)])).unwrap();
    until(&server, "a", |s| s.nacked.is_some()).await;
    let back = server.publish("a", set(&[("one", 1)])).unwrap();
    let status = until(&server, "a", |s| s.acked == back).await;
    assert_eq!(status.nacked, None);
    assert!(sets.try_recv().is_err(), "there was nothing to apply");
}

#[tokio::test]
async fn another_control_plane_takes_up_where_the_first_one_ended() {
    let first = Server::new();
    first.publish("a", set(&[("one", 1), ("two", 1)])).unwrap();
    let (address, task) = serve(&first).await;
    let address = Arc::new(Mutex::new(address));
    let (mut sets, _client) = client(&address, "a", "token-of-a");
    next(&mut sets).await;

    let second = Server::new();
    let same = second.publish("a", set(&[("one", 1), ("two", 1)])).unwrap();
    let (moved, _task) = serve(&second).await;
    *address.lock().unwrap() = moved;
    task.abort();
    until(&second, "a", |s| s.acked == same).await;
    until(&first, "a", |s| !s.connected).await;
    assert!(
        sets.try_recv().is_err(),
        "nothing had changed, so nothing was applied"
    );
    second.publish("a", set(&[("two", 1)])).unwrap();
    assert_eq!(next(&mut sets).await.0, set(&[("two", 1)]));
}

#[tokio::test]
async fn r39_a_node_gets_nothing_that_belongs_to_another() {
    let server = Server::new();
    server.publish("a", set(&[("one", 1)])).unwrap();
    server.publish("b", set(&[("two", 1)])).unwrap();
    let (address, _task) = serve(&server).await;
    let address = Arc::new(Mutex::new(address));
    let (mut impostor, _one) = client(&address, "a", "token-of-b");
    let (mut stranger, _two) = client(&address, "a", "nonsense");
    let (mut right, _three) = client(&address, "b", "token-of-b");
    assert_eq!(next(&mut right).await.0, set(&[("two", 1)]));
    assert!(
        timeout(Duration::from_millis(300), impostor.recv())
            .await
            .is_err()
    );
    assert!(stranger.try_recv().is_err());
    assert_eq!(server.nodes().borrow()["a"].sent, 0);
}

#[tokio::test]
async fn a_proxy_that_leaves_is_told_of_changes_until_its_end_and_the_newest_speaks_for_the_node() {
    let server = Server::new();
    server.publish("a", set(&[("one", 1)])).unwrap();
    let (address, _task) = serve(&server).await;
    let address = Arc::new(Mutex::new(address));
    let (mut old, old_task) = client(&address, "a", "token-of-a");
    next(&mut old).await;
    let (mut new, _new_task) = client(&address, "a", "token-of-a");
    next(&mut new).await;
    let version = server.publish("a", set(&[("one", 2)])).unwrap();
    assert_eq!(
        (next(&mut old).await.1, next(&mut new).await.1),
        (version, version)
    );
    old_task.abort();
    let version = server.publish("a", set(&[("one", 3)])).unwrap();
    let status = until(&server, "a", |s| s.acked == version).await;
    assert!(status.connected);
}

#[tokio::test]
async fn where_the_newest_stream_ends_the_one_before_speaks_for_the_node_again() {
    let server = Server::new();
    server.publish("a", set(&[("one", 1)])).unwrap();
    let (address, _task) = serve(&server).await;
    let address = Arc::new(Mutex::new(address));
    let (mut old, _old_task) = client(&address, "a", "token-of-a");
    next(&mut old).await;
    let (mut new, new_task) = client(&address, "a", "token-of-a");
    next(&mut new).await;
    // From now on it refuses what comes.
    drop(new);
    let version = server.publish("a", set(&[("one", 2)])).unwrap();
    assert_eq!(next(&mut old).await.1, version);
    until(&server, "a", |s| s.nacked.is_some()).await;
    new_task.abort();
    let status = until(&server, "a", |s| s.nacked.is_none()).await;
    assert_eq!((status.connected, status.acked), (true, version));
}

#[test]
fn of_many_streams_of_a_node_the_oldest_are_found() {
    let mut streams = crate::server::testing::Streams::default();
    let numbers: Vec<_> = (0..5).map(|_| streams.begin()).collect();
    assert_eq!(streams.newer_than(numbers[0]), 4);
    assert_eq!(streams.newer_than(numbers[4]), 0);
    assert!(!streams.end(numbers[0]));
    for number in &numbers[1..4] {
        assert!(!streams.end(*number));
    }
    assert!(streams.end(numbers[4]));
    assert!(streams.begin() > numbers[4]);
}

fn wire(name: &str, body: &[u8]) -> discovery::Resource {
    discovery::Resource {
        name: name.to_owned(),
        aliases: vec![],
        version: crate::wire::version(body),
        resource: Some(Any {
            type_url: TYPE_URL.to_owned(),
            value: body.to_vec(),
        }),
    }
}

fn response(resources: Vec<discovery::Resource>) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        system_version_info: "7".to_owned(),
        resources,
        type_url: TYPE_URL.to_owned(),
        nonce: "n".to_owned(),
        removed_resources: vec![],
    }
}

#[test]
fn r7_whatever_is_not_understood_refuses_the_whole_response() {
    let good = serde_json::to_vec(&policy("one", 1)).unwrap();
    let other = serde_json::to_vec(&policy("two", 1)).unwrap();
    let unknown_field =
        String::from_utf8(good.clone())
            .unwrap()
            .replacen("{\"id\"", "{\"newer\":1,\"id\"", 1);
    assert!(unknown_field.contains("newer"));
    let held = Held::default();
    let check = |response: &DeltaDiscoveryResponse, says: &str| {
        let error = held.receive(response).unwrap_err();
        assert!(error.contains(says), "{error}");
    };
    assert!(held.receive(&response(vec![wire("policy/n/one", &good)])).is_ok());

    let broken = |bad| response(vec![wire("policy/n/two", &other), bad]);
    check(&broken(wire("policy/n/one", b"{")), "is not understood");
    check(&broken(wire("policy/n/one", unknown_field.as_bytes())), "newer");
    check(&broken(wire("policy/n/three", &good)), "holds `policy/n/one`");
    check(&broken(wire("policy/n/two", &other)), "comes twice");
    let mut bad = wire("policy/n/one", &good);
    bad.version = "0".to_owned();
    check(&broken(bad), "not what its version says");
    let mut bad = wire("policy/n/one", &good);
    bad.resource = None;
    check(&broken(bad), "no content");
    let mut bad = response(vec![wire("policy/n/one", &good)]);
    bad.removed_resources = vec!["policy/n/one".to_owned()];
    check(&bad, "comes twice");
    bad = response(vec![]);
    bad.type_url = "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned();
    check(&bad, "not asked for");
    bad = response(vec![]);
    bad.system_version_info = "x".to_owned();
    check(&bad, "no number");
}

#[test]
fn pauses_grow_and_are_spread() {
    let pauses = |jitter: f64| -> Vec<_> {
        let mut options = Options::new("a", move || jitter);
        (0..40).map(|n| client::pause(&mut options, n)).collect()
    };
    let (least, most) = (pauses(0.0), pauses(1.0));
    assert_eq!(
        (least[0], most[0]),
        (Duration::from_millis(10), Duration::from_millis(20))
    );
    assert!(least.is_sorted() && most.is_sorted());
    assert_eq!(least[39], Duration::from_millis(2500));
    assert_eq!(most[39], Duration::from_secs(5));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is published, refused sets among it, in whatever rhythm: the client ends with the last set.
    #[test]
    fn the_client_converges(publishes in proptest::collection::vec(
        (proptest::collection::btree_map(0..6_u8, 0..3_u32, 0..5), any::<bool>(), any::<bool>()), 1..12))
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::new();
            server.publish("a", set(&[("first", 0)])).unwrap();
            let (address, _task) = serve(&server).await;
            let (mut sets, _client) = client(&Arc::new(Mutex::new(address)), "a", "token-of-a");
            let mut last = Resources::default();
            for (policies, refused, wait) in &publishes {
                let mut resources: Resources =
                    policies.iter().map(|(n, line)| policy(&n.to_string(), *line)).collect();
                last = resources.clone();
                if *refused {
                    resources.insert(Arc::new(policy("refused", 0)));
                }
                let version = server.publish("a", resources).unwrap();
                if *wait {
                    until(&server, "a", |s| {
                        s.acked >= version || s.nacked.as_ref().is_some_and(|n| n.0 >= version)
                    }).await;
                }
            }
            let version = server.publish("a", last.clone()).unwrap();
            until(&server, "a", |s| s.acked >= version).await;
            let mut held = Resources::default();
            while let Ok((set, _)) = sets.try_recv() {
                held = set;
            }
            prop_assert_eq!(held, last);
            Ok(())
        })?;
    }

    #[test]
    fn bytes_from_anywhere_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200), name in ".{0,20}") {
        let _ = Held::default().receive(&response(vec![wire(&name, &body)]));
    }
}
