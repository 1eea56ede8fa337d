//! What clients are told: auto-mTLS facts and DestinationRules, CM-01 to CM-17.

use snapshot::{ClientNames, ClientTls, Transport};

use super::*;

/// A Service `n/web` on port 80 that ends at 8080.
fn web(scene: Scene) -> Scene {
    scene.service("n/web", "{name: http, port: 80, targetPort: 8080}")
}

fn rule(scene: Scene, name: &str, host: &str, policy: &str) -> Scene {
    scene.object(
        "DestinationRule",
        name,
        &format!("spec: {{host: {host}, trafficPolicy: {{{policy}}}}}"),
    )
}

/// How a client in namespace `c` reaches each endpoint.
fn transports(compiled: &Compiled, client: &str) -> Vec<Transport> {
    let service = compiled.service("n/web");
    let port = &service.ports[0];
    let auto = compiled.mesh().auto_mtls;
    let each = service.endpoints.iter();
    each.map(|e| Transport::select(auto, port.tls_for(client).as_ref(), e.accepts_mtls(e.ports[&80])))
        .collect()
}

fn check(id: &str, scene: Scene, expect: &[Transport]) -> Compiled {
    let compiled = scene.compile();
    assert_eq!(transports(&compiled, "c"), expect, "{id}");
    compiled
}

#[test]
fn cm_01_to_05_auto_mtls() {
    check("CM-01", web(istio()).pod("n/a", "web"), &[Transport::Mutual]);
    check(
        "CM-02",
        web(istio()).pod("n/a", "web").plain(),
        &[Transport::Plaintext],
    );
    let disabled = "selector: {matchLabels: {app: web}}, portLevelMtls: {8080: {mode: DISABLE}}";
    check(
        "CM-03",
        web(istio()).peer("n/p", disabled).pod("n/a", "web"),
        &[Transport::Plaintext],
    );
    let all =
        "selector: {matchLabels: {app: web}}, mtls: {mode: DISABLE}, portLevelMtls: {9000: {mode: STRICT}}";
    let compiled = check(
        "CM-03",
        web(istio()).peer("n/p", all).pod("n/a", "web"),
        &[Transport::Plaintext],
    );
    assert!(compiled.service("n/web").endpoints[0].accepts_mtls(9000));
    assert!(compiled.workload("a").accepts_mtls(9000) && !compiled.workload("a").accepts_mtls(8080));
    let mixed = web(istio()).pod("n/a", "web").pod("n/b", "web").plain();
    check("CM-04", mixed, &[Transport::Mutual, Transport::Plaintext]);
    let off = istio().object(
        "ConfigMap",
        "istio-system/istio",
        "data:\n  mesh: |\n    enableAutoMtls: false\n",
    );
    check("CM-05", web(off).pod("n/a", "web"), &[Transport::Plaintext]);
}

#[test]
fn cm_06_to_08_rules() {
    let with = |policy| rule(web(istio()), "n/r", "web", policy);
    check(
        "CM-06",
        with("tls: {mode: ISTIO_MUTUAL}").pod("n/a", "web").plain(),
        &[Transport::Mutual],
    );
    let strict = with("tls: {mode: DISABLE}")
        .peer("n/p", "mtls: {mode: STRICT}")
        .pod("n/a", "web");
    check("CM-07", strict, &[Transport::Plaintext]);
    let refused = Transport::select(true, Some(&ClientTls::Unsupported), true);
    let compiled = check("CM-08", with("tls: {mode: SIMPLE}").pod("n/a", "web"), &[refused]);
    told(&compiled, "MW0501", "connections to the host are refused");
    let names = "tls: {mode: ISTIO_MUTUAL, sni: other, subjectAltNames: [x, \"spiffe://d/ns/n/sa/b\"]}";
    let named = check("CM-16", with(names).pod("n/a", "web"), &[Transport::Mutual]);
    told(&named, "MW0508", "no certificate of a mesh carries the name `x`");
    let expected = ClientNames {
        sni: Some("other".into()),
        expected: Some(["spiffe://d/ns/n/sa/b".parse().unwrap()].into()),
    };
    assert_eq!(tls(&named, "c"), Some(ClientTls::Named(expected.into())));
    let nobody = "tls: {mode: ISTIO_MUTUAL, subjectAltNames: [x]}";
    let nobody = check("CM-16", with(nobody).pod("n/a", "web"), &[Transport::Mutual]);
    let Some(ClientTls::Named(names)) = tls(&nobody, "c") else {
        panic!("no names");
    };
    assert_eq!(
        names.expected.as_deref(),
        Some([].as_slice()),
        "nobody is accepted"
    );
}

#[test]
fn cm_09_a_port_block_replaces_the_whole_under_istio_only() {
    let policy = "tls: {mode: DISABLE}, portLevelSettings: [{port: {number: 80}, connectionPool: {tcp: {maxConnections: 9}}}]";
    check(
        "CM-09",
        rule(web(istio()), "n/r", "web", policy).pod("n/a", "web"),
        &[Transport::Mutual],
    );
    check(
        "R29",
        rule(web(secure()), "n/r", "web", policy).pod("n/a", "web"),
        &[Transport::Plaintext],
    );
    let own = "tls: {mode: DISABLE}, portLevelSettings: [{port: {number: 80}, tls: {mode: ISTIO_MUTUAL}}]";
    check(
        "CM-09",
        rule(web(istio()), "n/r", "web", own).pod("n/a", "web"),
        &[Transport::Mutual],
    );
    let other = "tls: {mode: DISABLE}, portLevelSettings: [{port: {number: 81}, tls: {mode: ISTIO_MUTUAL}}]";
    check(
        "CM-09",
        rule(web(istio()), "n/r", "web", other).pod("n/a", "web"),
        &[Transport::Plaintext],
    );
}

#[test]
fn cm_12_headless_is_decided_endpoint_by_endpoint() {
    let scene = istio().object(
        "Service",
        "n/web",
        "spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80}]}",
    );
    check(
        "CM-12",
        scene.pod("n/a", "web").pod("n/b", "web").plain(),
        &[Transport::Mutual, Transport::Plaintext],
    );
}

#[test]
fn cm_14_17_clients_know_whom_to_expect_without_a_rule() {
    let scene = web(istio())
        .peer("n/p", "mtls: {mode: STRICT}")
        .pod("n/b", "web")
        .last(|pod| pod.spec.service_account_name = "b".to_owned())
        .pod("n/a", "web")
        .last(|pod| pod.spec.service_account_name = "a".to_owned())
        .pod("n/p", "web")
        .plain();
    let compiled = check(
        "CM-17",
        scene,
        &[Transport::Mutual, Transport::Mutual, Transport::Plaintext],
    );
    let identities: Vec<_> = compiled
        .service("n/web")
        .identities
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        identities,
        [
            "spiffe://cluster.local/ns/n/sa/a",
            "spiffe://cluster.local/ns/n/sa/b"
        ],
        "CM-14"
    );
}

fn tls(compiled: &Compiled, client: &str) -> Option<ClientTls> {
    compiled.service("n/web").ports[0].tls_for(client)
}

#[test]
fn s6_6_client_then_service_then_root_namespace() {
    let full = "web.n.svc.cluster.local";
    let mutual = "tls: {mode: ISTIO_MUTUAL}";
    let root = |s| rule(s, "istio-system/r", "\"*.local\"", "tls: {mode: DISABLE}");
    let compiled = root(web(istio())).pod("n/a", "web").compile();
    assert_eq!(tls(&compiled, "c"), Some(ClientTls::Disable));
    let compiled = rule(root(web(istio())), "n/s", "web", mutual)
        .pod("n/a", "web")
        .compile();
    assert_eq!(tls(&compiled, "c"), Some(ClientTls::IstioMutual));
    assert_eq!(compiled.effect("DestinationRule/n/s").targets, ["n/web"]);
    let compiled = rule(
        rule(root(web(istio())), "n/s", "web", mutual),
        "c/own",
        full,
        "tls: {mode: DISABLE}",
    )
    .pod("n/a", "web")
    .compile();
    assert_eq!(
        (tls(&compiled, "c"), tls(&compiled, "d")),
        (Some(ClientTls::Disable), Some(ClientTls::IstioMutual))
    );
    let silent = rule(
        root(web(istio())),
        "c/own",
        full,
        "connectionPool: {tcp: {maxConnections: 1}}",
    )
    .pod("n/a", "web")
    .compile();
    assert_eq!(
        (tls(&silent, "c"), tls(&silent, "d")),
        (None, Some(ClientTls::Disable)),
        "the first rule decides, whole"
    );
}

#[test]
fn s6_6_short_names_belong_to_the_rule() {
    let compiled = rule(web(istio()), "c/own", "web", "tls: {mode: DISABLE}")
        .pod("n/a", "web")
        .compile();
    assert_eq!(tls(&compiled, "c"), None);
    told(&compiled, "IST0174", "the host `web` is no Service");
}

#[test]
fn s6_6_specific_hosts_first_and_the_oldest_of_equals() {
    let disable = "tls: {mode: DISABLE}";
    let mutual = "tls: {mode: ISTIO_MUTUAL}";
    let scene = rule(web(istio()), "n/wild", "\"*.n.svc.cluster.local\"", disable);
    let scene = rule(scene, "n/exact", "web", mutual);
    let compiled = rule(scene, "n/late", "web.n.svc.cluster.local", disable)
        .pod("n/a", "web")
        .compile();
    assert_eq!(tls(&compiled, "c"), Some(ClientTls::IstioMutual));
    assert_eq!(
        compiled.effect("DestinationRule/n/late").shadowed_by[0].name,
        "exact"
    );
}

#[test]
fn s6_6_export_to() {
    let export = |to: &str| {
        let spec =
            format!("spec: {{host: web, exportTo: [{to}], trafficPolicy: {{tls: {{mode: DISABLE}}}}}}");
        web(istio())
            .object("DestinationRule", "n/r", &spec)
            .pod("n/a", "web")
            .compile()
    };
    let seen = |compiled: &Compiled| ["n", "c", "d"].map(|client| tls(compiled, client).is_some());
    assert_eq!(seen(&export("\"*\"")), [true, true, true]);
    assert_eq!(seen(&export("\".\"")), [true, false, false]);
    assert_eq!(seen(&export("c")), [false, true, false]);
}

#[test]
fn p57_an_edge_turned_plaintext_is_told_under_secure() {
    let compiled = rule(web(secure()), "n/r", "web", "tls: {mode: DISABLE}")
        .pod("n/a", "web")
        .compile();
    told(&compiled, "MW0507", "plaintext because this rule says so");
}
