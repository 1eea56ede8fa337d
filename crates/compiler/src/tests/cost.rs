//! What a change costs follows what it touches, not the size of the mesh: work is counted, not timed.

use super::*;

/// Services of a namespace, and pods of a Service, as in `bench/control`.
const SERVICES: usize = 25;
const PODS: usize = 4;

/// A mesh of so many namespaces of [`SERVICES`] Services, with a node for every 50 pods, and a policy for all of it.
fn mesh(namespaces: usize) -> (Spaces, Compilation) {
    let nodes = namespaces * SERVICES * PODS / 50;
    let mut world = World {
        objects: parse(&secure().allow(
            "istio-system/everywhere",
            "action: DENY, rules: [{to: [{operation: {paths: [/x]}}]}]",
        )),
        nodes: (0..nodes).map(|node| format!("n{node}")).collect(),
        ..World::default()
    };
    for namespace in 0..namespaces {
        let name = format!("ns-{namespace}");
        let mut scene = secure().namespace(&name, "istio-injection: enabled");
        scene = scene.allow(&format!("{name}/own"), "rules: [{}]");
        for service in 0..SERVICES {
            scene.age = 1;
            scene = scene.service(
                &format!("{name}/s{service}"),
                "{name: http, port: 80, targetPort: 8080}",
            );
            for pod in 0..PODS {
                let number = (namespace * SERVICES + service) * PODS + pod;
                world.pods.push(Arc::new(one(&name, service, number, nodes)));
            }
        }
        world.objects.extend(parse(&scene));
    }
    let spaces = Spaces::from(&world);
    let mut whole = Compilation::new();
    let touched = whole.update(spaces.clone());
    assert_eq!(touched.pods, namespaces * SERVICES * PODS);
    (spaces, whole)
}

fn parse(scene: &Scene) -> Vec<Arc<Object>> {
    let parsed = api::parse("cost.yaml", scene.yaml.as_bytes());
    parsed.objects.into_iter().map(Arc::new).collect()
}

fn one(namespace: &str, service: usize, number: usize, nodes: usize) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.name = format!("p{number}");
    pod.metadata.namespace = namespace.to_owned();
    pod.metadata.uid = Some(format!("uid-{number}"));
    pod.metadata.labels = labels(&[("app", &format!("s{service}"))]);
    pod.spec.node_name = format!("n{}", number % nodes);
    pod.status.pod_ip = format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255);
    pod.status.set_ready(true);
    pod
}

/// What was done for a change: namespaces and pods that were compiled, resources that are told to whoever asks, nodes that are told
/// something, and how many resources of theirs were put together for that.
type Work = (usize, usize, usize, usize, usize);

fn work(touched: &Touched) -> Work {
    let shared = touched.shared.updated.len() + touched.shared.removed.len();
    let own = touched.nodes.values().map(|resources| resources.own().count());
    (
        touched.compiled.len(),
        touched.pods,
        shared,
        touched.nodes.len(),
        own.sum(),
    )
}

/// Changes of the namespace `ns-0`, each in a mesh of its own.
fn changes(namespaces: usize) -> Vec<(&'static str, Work)> {
    let (spaces, whole) = mesh(namespaces);
    let nodes = spaces.nodes.len();
    let with = |objects: Vec<Arc<Object>>, pods: Vec<Pod>| {
        let (mut spaces, mut whole) = (spaces.clone(), whole.clone());
        let space = spaces.by_name.get("ns-0").unwrap();
        let objects = space.objects.iter().cloned().chain(objects);
        let pods = space.pods.iter().cloned().chain(pods.into_iter().map(Arc::new));
        let space = Space::new(objects.collect(), pods.collect());
        spaces.by_name.insert(Arc::from("ns-0"), Arc::new(space));
        work(&whole.update(spaces))
    };
    let selecting =
        "selector: {matchLabels: {app: s3}}, action: DENY, rules: [{to: [{operation: {paths: [/y]}}]}]";
    let rule = "spec: {host: s3, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}";
    vec![
        (
            "a policy for one workload",
            with(parse(&secure().allow("ns-0/new", selecting)), vec![]),
        ),
        ("an endpoint", with(vec![], vec![one("ns-0", 3, 60_000, nodes)])),
        (
            "a Service",
            with(parse(&secure().service("ns-0/new", "{port: 80}")), vec![]),
        ),
        (
            "a rule",
            with(
                parse(&secure().object("DestinationRule", "ns-0/new", rule)),
                vec![],
            ),
        ),
    ]
}

#[test]
fn a_change_costs_what_it_touches_however_large_the_mesh() {
    let (small, large) = (changes(2), changes(12));
    for ((name, small), (_, large)) in small.iter().zip(&large) {
        let (namespaces, pods, shared, nodes, _) = *large;
        assert_eq!((namespaces, shared, nodes), (small.0, small.2, nodes), "{name}");
        assert_eq!(namespaces, 1, "{name}");
        assert_eq!(pods, small.1, "{name}");
        // Of the policy, the nodes of the four pods; of the endpoint, its own.
        assert!(nodes <= PODS, "{name}: {nodes} nodes are told");
        assert!(
            large.4 <= nodes * 80,
            "{name}: {} resources are put together",
            large.4
        );
        assert!(shared <= 2, "{name}: {shared} resources are told");
    }
}
