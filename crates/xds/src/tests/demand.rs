//! Services on demand: what is asked for comes with all that it needs, and decides as the whole mesh would.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use model::{Host, Profile, Protocol, ServiceName, WorkloadId, WorkloadUid};
use snapshot::{
    Delta, Egress, Endpoint, Index, Lacks, Mesh, PathNormalization, Service, ServicePort, TlsVersion,
    Workload, XfccMode,
};

use super::*;
use crate::client::Interest;
use crate::server::Update;
use crate::server::testing::Board;

fn mesh(strict_hosts: bool, egress: Egress) -> Mesh {
    Mesh {
        scopes: Default::default(),
        tls: Default::default(),
        profile: Profile::Secure,
        trust_domain: "cluster.local".parse().unwrap(),
        trust_domain_aliases: vec![],
        root_namespace: "istio-system".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        dns_vips: vec![],
        deny_by_default: true,
        egress,
        path_normalization: PathNormalization::Base,
        strict_paths: true,
        strict_hosts,
        jwt_strict: true,
        xfcc: XfccMode::SanitizeSet,
        auto_mtls: true,
        protocol_detection_timeout_ms: None,
        min_tls: TlsVersion::V1_3,
        http10: false,
        connect_timeout_ms: 10_000,
    }
}

fn pod_address(pod: u8) -> IpAddr {
    IpAddr::from([10, 77, 0, pod])
}

fn vip(service: u8) -> IpAddr {
    IpAddr::from([10, 96, 0, service])
}

/// What a Service of the random world is.
#[derive(Clone, Debug)]
struct Shape {
    headless: bool,
    alias: Option<u8>,
    http: bool,
    pods: BTreeSet<u8>,
}

const NAMESPACES: [&str; 2] = ["full", "legacy"];

fn name(service: u8) -> ServiceName {
    ServiceName::new(NAMESPACES[usize::from(service % 2)], &format!("s{}", service / 2))
}

fn host(service: u8) -> String {
    let name = name(service);
    format!("{}.{}.svc.cluster.local", name.name(), name.namespace())
}

fn service(number: u8, shape: &Shape) -> Service {
    let endpoint = |pod: &u8| Endpoint {
        uid: WorkloadUid::new(&format!("pod-{pod}")),
        workload: None,
        addresses: vec![pod_address(*pod)],
        ports: [(80, 8080)].into(),
        ready: !pod.is_multiple_of(3),
        node: None,
        identity: None,
        plaintext_ports: vec![],
        mtls_ports: vec![],
        hostname: shape.headless.then(|| format!("h{pod}")),
        hbone: false,
    };
    let alias: Option<Host> = shape.alias.map(|to| match to % 9 {
        8 => "example.com".parse().unwrap(),
        to => host(to).parse().unwrap(),
    });
    let is_alias = alias.is_some();
    Service {
        external: None,
        name: name(number),
        host: host(number).parse().unwrap(),
        vips: match shape.headless || is_alias {
            true => vec![],
            false => vec![vip(number)],
        },
        headless: shape.headless && !is_alias,
        external_name: alias,
        ports: vec![ServicePort {
            name: "p".to_owned(),
            port: 80,
            protocol: if shape.http { Protocol::Http } else { Protocol::Tcp },
            tls: None,
            tls_by_namespace: [].into(),
        }],
        endpoints: match is_alias {
            true => vec![],
            false => shape.pods.iter().map(endpoint).collect(),
        },
        identities: vec![],
    }
}

fn workload(pod: u8) -> Workload {
    let in_mesh = pod.is_multiple_of(2);
    Workload {
        uid: WorkloadUid::new(&format!("pod-{pod}")),
        pod: WorkloadId::new("full", &format!("pod-{pod}")),
        workload: WorkloadId::new("full", "web"),
        canonical_name: String::new(),
        canonical_revision: String::new(),
        app: String::new(),
        version: String::new(),
        addresses: vec![pod_address(pod)],
        node: "a".to_owned(),
        service_account: "default".to_owned(),
        identity: in_mesh.then(|| "spiffe://cluster.local/ns/full/sa/default".parse().unwrap()),
        ready: true,
        plaintext_ports: vec![],
        mtls_ports: vec![],
        hbone: false,
        inbound: None,
    }
}

fn shapes() -> impl Strategy<Value = Vec<Option<Shape>>> {
    let shape = (
        any::<bool>(),
        proptest::option::weighted(0.3, 0..9_u8),
        any::<bool>(),
        proptest::collection::btree_set(0..6_u8, 0..4),
    );
    let shape = shape.prop_map(|(headless, alias, http, pods)| Shape {
        headless,
        alias,
        http,
        pods,
    });
    proptest::collection::vec(proptest::option::weighted(0.8, shape), 8)
}

fn world(shapes: &[Option<Shape>], pods: &BTreeSet<u8>) -> Resources {
    let services = (0_u8..)
        .zip(shapes)
        .filter_map(|(n, shape)| Some(Resource::from(service(n, shape.as_ref()?))));
    services
        .chain(pods.iter().map(|pod| Resource::from(workload(*pod))))
        .collect()
}

/// Looks something up in what a proxy holds, and asks for what it lacks until it lacks nothing.
fn on_demand<T>(
    board: &mut Board,
    asked: &mut BTreeSet<ResourceName>,
    look_up: impl Fn(&Index, &Lacks) -> T,
) -> (T, Index) {
    for _ in 0..12 {
        let held: Resources = board
            .target("a", 1, asked)
            .1
            .values()
            .map(|entry| Arc::clone(entry.resource()))
            .collect();
        let index = Index::build_on_demand(&held, None).unwrap();
        let lacks = Lacks::default();
        let found = look_up(&index, &lacks);
        if lacks.is_empty() {
            return (found, index);
        }
        let names = lacks.into_names();
        assert!(names.iter().any(|name| !asked.contains(name)), "{names:?}");
        asked.extend(names);
    }
    panic!("there is no end of what is lacked");
}

proptest! {
    /// Whatever exists, whatever was asked before, and whatever changes in between: the same decision, the same answer.
    #[test]
    fn what_is_asked_for_decides_as_the_whole_mesh_does(
        worlds in proptest::collection::vec((shapes(), proptest::collection::btree_set(0..6_u8, 0..6)), 1..4),
        questions in proptest::collection::vec((0..9_u8, 0..8_u8, 0..10_u8, any::<bool>()), 1..12),
        strict in any::<bool>(),
        closed in any::<bool>(),
    ) {
        let mesh = mesh(strict, if closed { Egress::RegistryOnly } else { Egress::AllowAny });
        let own: Resources = [Resource::from(mesh.clone())].into_iter().collect();
        let mut board = Board::default();
        let mut asked = BTreeSet::new();
        let mut before = Resources::default();
        for (shapes, pods) in &worlds {
            let now = world(shapes, pods);
            board.apply(&Update { shared: before.diff(&now), nodes: [("a".to_owned(), own.clone())].into() });
            let mut whole = now.clone();
            whole.insert(Arc::new(Resource::from(mesh.clone())));
            let whole = Index::build(&whole).unwrap();
            before = now;
            for (form, service, other, v6) in &questions {
                let name = name(*service);
                let text = match form {
                    0 => host(*service),
                    1 => format!("{}.{}", name.name(), name.namespace()),
                    2 => name.name().to_owned(),
                    3 => format!("h{other}.{}", host(*service)),
                    4 => format!("10-77-0-{other}.full.pod.cluster.local"),
                    5 => format!("{}.svc.cluster.local", name.namespace()),
                    6 => pod_address(*other).to_string(),
                    7 => vip(*other).to_string(),
                    _ => "www.example.com".to_owned(),
                };
                let dialled = match other % 3 {
                    0 => SocketAddr::new(vip(*service), 80),
                    1 => SocketAddr::new(pod_address(*other), 8080),
                    _ => SocketAddr::new(IpAddr::from([1, 2, 3, *other]), 80),
                };
                let lacks = Lacks::default();
                let (found, _) = on_demand(&mut board, &mut asked, |index, lacks| {
                    index.resolve(&text, "full", *v6, lacks)
                });
                prop_assert_eq!(found, whole.resolve(&text, "full", *v6, &lacks), "{} of {:?}", text, shapes);
                for authority in [None, Some(text.as_str()), Some("")] {
                    let (found, index) = on_demand(&mut board, &mut asked, |index, lacks| {
                        index.find_outbound(index.asker("full", None), dialled, authority.into(), lacks)
                    });
                    let expected = whole.outbound("full", dialled, authority);
                    prop_assert_eq!(&found, &expected, "{} {:?} {:?}", dialled, authority, shapes);
                    // Whoever answers is known as a pod wherever the whole mesh knows it as one.
                    if let Ok(snapshot::Destination::Service(target)) = &found {
                        for (endpoint, _) in target.candidates() {
                            let at = endpoint.addresses[0];
                            prop_assert_eq!(index.pod(at), whole.pod(at));
                        }
                    }
                }
                prop_assert_eq!(
                    on_demand(&mut board, &mut asked, |index, _| index.declares_http(80)).0,
                    whole.declares_http(80)
                );
            }
        }
    }
}

/// A proxy of the node `a` that asks.
async fn asking(address: &Arc<Mutex<SocketAddr>>) -> (Sets, Interest, JoinHandle<()>) {
    let (send, sets) = mpsc::unbounded_channel();
    let dial = Dial(Arc::clone(address), "token-of-a".to_owned());
    let options = Options::new("a", || 0.5);
    let interest = options.interest.clone();
    let task = tokio::spawn(async move {
        client::run(options, dial, move |set, version| {
            send.send((set, version)).map_err(|e| e.to_string())
        })
        .await
    });
    (sets, interest, task)
}

fn names(set: &Resources) -> Vec<String> {
    set.iter().map(|(name, _)| name.to_string()).collect()
}

fn simple(pods: &[u8]) -> Shape {
    Shape {
        headless: false,
        alias: None,
        http: false,
        pods: pods.iter().copied().collect(),
    }
}

fn shared(from: &Resources, to: &Resources) -> Update {
    Update {
        shared: from.diff(to),
        ..Update::default()
    }
}

#[tokio::test]
async fn a_service_comes_with_what_it_needs_and_is_followed_until_it_is_given_back() {
    let server = Server::new();
    server.publish("a", set(&[("one", 1)])).unwrap();
    let pods: BTreeSet<u8> = [1, 2, 3, 4].into();
    let first = world(&[Some(simple(&[1, 2])), Some(simple(&[3]))], &pods);
    server.update(&shared(&Resources::default(), &first));
    let (address, _task) = serve(&server).await;
    let (mut sets, interest, _client) = asking(&Arc::new(Mutex::new(address))).await;
    assert_eq!(
        names(&next(&mut sets).await.0),
        ["policy/n/one"],
        "nothing unasked"
    );

    let question = ResourceName::from("service/full/s0");
    interest.add(std::slice::from_ref(&question)).unwrap();
    let all = [
        "policy/n/one",
        "service/full/s0",
        "workload/pod-1",
        "workload/pod-2",
    ];
    assert_eq!(names(&next(&mut sets).await.0), all);

    // An endpoint more is told; another Service's is not.
    let second = world(&[Some(simple(&[1, 2, 4])), Some(simple(&[]))], &pods);
    let before = server.nodes().borrow()["a"].published;
    let versions = server.update(&shared(&first, &second)).versions;
    assert!(versions["a"] > before);
    let mut more = all.to_vec();
    more.push("workload/pod-4");
    assert_eq!(names(&next(&mut sets).await.0), more);
    until(&server, "a", |s| s.acked == versions["a"]).await;
    let third = world(&[Some(simple(&[1, 2, 4])), Some(simple(&[3]))], &pods);
    assert_eq!(server.update(&shared(&second, &third)).versions, versions);

    interest.remove(&[question]);
    assert_eq!(names(&next(&mut sets).await.0), ["policy/n/one"]);
    assert_eq!(server.update(&shared(&third, &first)).versions, versions);
    assert!(sets.try_recv().is_err());
}

#[tokio::test]
async fn two_proxies_of_a_node_each_get_what_they_ask_for() {
    let server = Server::new();
    server.publish("a", set(&[("one", 1)])).unwrap();
    let pods: BTreeSet<u8> = [1, 2, 4].into();
    let first = world(&[Some(simple(&[1])), Some(simple(&[4]))], &pods);
    let second = world(&[Some(simple(&[1, 2])), Some(simple(&[4]))], &pods);
    server.update(&shared(&Resources::default(), &first));
    let (address, _task) = serve(&server).await;
    let address = Arc::new(Mutex::new(address));
    let (mut old, old_interest, old_client) = asking(&address).await;
    next(&mut old).await;
    let (mut new, new_interest, _new_client) = asking(&address).await;
    next(&mut new).await;
    // Also the older one's questions are answered, and neither's are the other's.
    new_interest
        .add(&[ResourceName::from("service/legacy/s0")])
        .unwrap();
    old_interest
        .add(&[ResourceName::from("service/full/s0")])
        .unwrap();
    let of_new = ["policy/n/one", "service/legacy/s0", "workload/pod-4"];
    assert_eq!(names(&next(&mut new).await.0), of_new);
    let of_old = ["policy/n/one", "service/full/s0", "workload/pod-1"];
    assert_eq!(names(&next(&mut old).await.0), of_old);
    let version = server.update(&shared(&first, &second)).versions["a"];
    assert_eq!(names(&next(&mut old).await.0).len(), 4);
    // The newest speaks for the node, which is as far although nothing of this was for it.
    until(&server, "a", |s| s.acked == version).await;
    assert!(new.try_recv().is_err());
    // What the one that has left asked for concerns the node no more.
    old_client.abort();
    let (mut from, mut to) = (&second, &first);
    timeout(SOON, async {
        loop {
            let before = server.nodes().borrow()["a"].published;
            if server.update(&shared(from, to)).versions["a"] == before {
                break;
            }
            std::mem::swap(&mut from, &mut to);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("its questions are forgotten");
    assert!(server.nodes().borrow()["a"].connected);
}

#[tokio::test]
async fn that_there_is_nothing_is_an_answer_and_what_is_made_later_is_told() {
    let server = Server::new();
    server.publish("a", set(&[])).unwrap();
    let (address, _task) = serve(&server).await;
    let (mut sets, interest, _client) = asking(&Arc::new(Mutex::new(address))).await;
    next(&mut sets).await;
    let questions = ["service/full/s0", "address/10.77.0.1", "namespace/full"].map(ResourceName::from);
    interest.add(&questions).unwrap();
    let set = next(&mut sets).await.0;
    for question in &questions {
        let answer = set.get(question).map(AsRef::as_ref);
        assert_eq!(answer, Some(&Resource::Absent(question.clone())));
    }
    let now = world(&[Some(simple(&[1]))], &[1].into());
    server.update(&shared(&Resources::default(), &now));
    let set = next(&mut sets).await.0;
    assert!(matches!(
        set.get(&questions[0]).unwrap().as_ref(),
        Resource::Service(_)
    ));
    assert!(
        matches!(set.get(&questions[1]).unwrap().as_ref(), Resource::Address(at) if at.serving.len() == 1)
    );
    assert!(matches!(
        set.get(&questions[2]).unwrap().as_ref(),
        Resource::Namespace(_)
    ));
    server.update(&shared(&now, &Resources::default()));
    let set = next(&mut sets).await.0;
    assert!(
        questions
            .iter()
            .all(|q| matches!(set.get(q).unwrap().as_ref(), Resource::Absent(_)))
    );
}

#[tokio::test]
async fn another_control_plane_is_asked_for_all_that_is_in_use() {
    let first = Server::new();
    first.publish("a", set(&[("one", 1)])).unwrap();
    let now = world(&[Some(simple(&[1]))], &[1].into());
    first.update(&shared(&Resources::default(), &now));
    let (address, task) = serve(&first).await;
    let address = Arc::new(Mutex::new(address));
    let (mut sets, interest, _client) = asking(&address).await;
    next(&mut sets).await;
    interest.add(&[ResourceName::from("service/full/s0")]).unwrap();
    let held = next(&mut sets).await.0;
    assert_eq!(held.len(), 3);

    let second = Server::new();
    second.publish("a", set(&[("one", 1)])).unwrap();
    second.update(&shared(&Resources::default(), &now));
    let (moved, _task) = serve(&second).await;
    *address.lock().unwrap() = moved;
    task.abort();
    until(&first, "a", |s| !s.connected).await;
    // What is asked for while nobody is there is asked when somebody is.
    interest.add(&[ResourceName::from("service/full/none")]).unwrap();
    let set = next(&mut sets).await.0;
    assert_eq!(set.len(), 4, "{:?}", names(&set));
    assert_eq!(
        held.diff(&set).updated.len(),
        1,
        "what was held is not sent again"
    );
}

#[tokio::test]
async fn only_what_may_be_asked_for_is_answered() {
    let server = Server::new();
    server.publish("a", set(&[])).unwrap();
    server.publish("b", set(&[("secret", 1)])).unwrap();
    let (address, _task) = serve(&server).await;
    let (mut sets, interest, _client) = asking(&Arc::new(Mutex::new(address))).await;
    next(&mut sets).await;
    interest.add(&[ResourceName::from("policy/n/secret")]).unwrap();
    // The stream ends, and so does the next one: what belongs to another node is not to be had by its name.
    until(&server, "a", |s| !s.connected).await;
    assert!(timeout(Duration::from_millis(200), sets.recv()).await.is_err());
}

#[test]
fn there_is_an_end_of_what_may_be_asked_for() {
    let interest = Interest::default();
    let name = |n: usize| ResourceName::from(format!("service/n/s{n}").as_str());
    let many: Vec<_> = (0..crate::MAX_QUESTIONS).map(name).collect();
    interest.add(&many).unwrap();
    interest.add(&many).unwrap();
    assert!(interest.add(&[name(crate::MAX_QUESTIONS)]).is_err());
    interest.remove(&[name(0)]);
    interest.add(&[name(crate::MAX_QUESTIONS)]).unwrap();
}

#[test]
fn a_delta_that_changes_nothing_concerns_nobody() {
    let mut board = Board::default();
    let own: Resources = [Resource::Roots(vec![])].into_iter().collect();
    let update = Update {
        shared: Delta::default(),
        nodes: [("a".to_owned(), own)].into(),
    };
    assert_eq!(board.apply(&update).0.len(), 1);
    assert!(board.apply(&update).0.is_empty());
}
