//! The same world gives the same outcome, in whatever order it is told; and a large one is quick.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn rich() -> Scene {
    secure()
        .namespace("n", "istio-injection: enabled")
        .peer("istio-system/m", "mtls: {mode: STRICT}")
        .peer("istio-system/m2", "mtls: {mode: PERMISSIVE}")
        .peer("n/p", "mtls: {mode: PERMISSIVE}")
        .peer(
            "n/w1",
            "selector: {matchLabels: {app: web}}, portLevelMtls: {80: {mode: DISABLE}}",
        )
        .peer(
            "n/w2",
            "selector: {matchLabels: {app: web}}, portLevelMtls: {81: {mode: DISABLE}}",
        )
        .allow("istio-system/all", "")
        .allow("n/a", "rules: [{}]")
        .allow(
            "n/d",
            "action: DENY, selector: {matchLabels: {app: web}}, rules: [{}]",
        )
        .service("n/web", "{name: http, port: 80, targetPort: 8080}")
        .object(
            "Service",
            "n/web2",
            "spec: {selector: {app: web}, ports: [{name: tcp, port: 90, targetPort: 8080}]}",
        )
        .service("n/db", "{port: 5432}")
        .object(
            "DestinationRule",
            "n/r",
            "spec: {host: web, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}",
        )
        .object(
            "DestinationRule",
            "m/r",
            "spec: {host: web.n.svc.cluster.local, trafficPolicy: {tls: {mode: DISABLE}}}",
        )
        .object(
            "DestinationRule",
            "n/r2",
            "spec: {host: web, trafficPolicy: {tls: {mode: DISABLE}}}",
        )
        .object(
            "RequestAuthentication",
            "n/jwt",
            "spec: {jwtRules: [{issuer: i, jwks: '{\"keys\":[]}'}]}",
        )
        .pod("n/x", "web")
        .pod("n/y", "web")
        .pod("n/z", "db")
}

fn shuffled<T: Clone>(items: &[T], keys: &[u32]) -> Vec<T> {
    let mut keyed: Vec<_> = items.iter().cloned().enumerate().collect();
    keyed.sort_by_key(|(i, _)| keys.get(*i).copied().unwrap_or_default());
    keyed.into_iter().map(|(_, item)| item).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn compile_is_blind_to_order(objects in proptest::collection::vec(any::<u32>(), 32), pods in proptest::collection::vec(any::<u32>(), 8)) {
        let world = rich().world();
        let expect = compile(&world);
        let other = World {
            objects: shuffled(&world.objects, &objects),
            pods: shuffled(&world.pods, &pods),
            nodes: world.nodes.iter().rev().cloned().collect(),
            ..world
        };
        prop_assert_eq!(compile(&other), expect);
    }

    #[test]
    fn p19_no_object_outside_the_root_weakens_the_floor(modes in proptest::collection::vec(0_usize..4, 3)) {
        let names = ["UNSET", "DISABLE", "PERMISSIVE", "STRICT"];
        let [ns, wl, port] = [0, 1, 2].map(|i| names[modes[i]]);
        let compiled = secure()
            .peer("istio-system/m", "mtls: {mode: STRICT}")
            .peer("n/p", &format!("mtls: {{mode: {ns}}}"))
            .peer("n/w", &format!("selector: {{matchLabels: {{app: web}}}}, mtls: {{mode: {wl}}}, portLevelMtls: {{80: {{mode: {port}}}}}"))
            .pod("n/web", "web")
            .compile();
        prop_assert_eq!(compiled.mtls("web"), "STRICT");
    }
}

#[test]
fn what_is_compiled_survives_the_wire() {
    let compiled = compile(&rich().world());
    for (name, resource) in compiled.nodes["node-0"].iter() {
        let text = serde_json::to_string(resource.as_ref()).unwrap();
        let read: Resource = serde_json::from_str(&text).unwrap();
        assert_eq!(&read, resource.as_ref(), "{name}");
        assert_eq!(&read.name(), name);
    }
    let index = snapshot::Index::build(&compiled.nodes["node-0"]).unwrap();
    let web = index
        .service_by_host("web.n", "elsewhere", &snapshot::Lacks::default())
        .unwrap();
    assert!(index.vip(web.vips[0], 80).unwrap().1.is_some());
    assert!(!index.policies(&WorkloadUid::new("uid-x")).unwrap().is_empty());
}

#[test]
fn two_objects_of_one_name_are_told() {
    let mut scene = secure().allow("n/a", "rules: [{}]").pod("n/web", "web");
    let twin = scene
        .yaml
        .replace("00:00:01Z", "00:00:02Z")
        .replace("rules: [{}]", "action: DENY");
    let mut world = scene.world();
    scene.yaml = twin;
    world.objects.extend(scene.world().objects);
    let compiled = compile(&world);
    told(&compiled, "MW0509", "is defined twice");
    assert_eq!(compiled.effects.len(), 1);
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the test measures; the product does not"
)]
fn a_thousand_pods_are_quick() {
    let mut scene = secure()
        .allow("istio-system/all", "")
        .peer("istio-system/m", "mtls: {mode: STRICT}");
    for ns in 0..20 {
        scene.age = 0;
        scene = scene.allow(&format!("n{ns}/a"), "rules: [{}]");
        for app in 0..10 {
            scene = scene.service(&format!("n{ns}/app{app}"), "{name: http, port: 80}");
            for pod in 0..5 {
                scene = scene.pod(&format!("n{ns}/p{ns}-{app}-{pod}"), &format!("app{app}"));
            }
        }
    }
    for (i, pod) in scene.pods.iter_mut().enumerate() {
        pod.status.pod_ip = format!("10.77.{}.{}", i / 250, i % 250 + 1);
        pod.status.pod_ips.clear();
    }
    let world = scene.world();
    let start = Instant::now();
    let compiled = compile(&world);
    let took = start.elapsed();
    assert_eq!(compiled.pods.len(), 1000);
    assert_eq!(compiled.nodes["node-0"].len(), 1 + 1 + 200 + 1000 + 21);
    // Generous, for an unoptimised build on a busy machine; quadratic work would take many times as long.
    assert!(took < Duration::from_secs(3), "{took:?}");
}
