//! ServiceEntry and Sidecar: what is registered though it lies outside, and what a namespace knows (semantics 7).

use snapshot::{Egress, Resolution};

use super::*;

const OUT: &str = "hosts: [ext.example.com], ports: [{number: 80, name: http, protocol: HTTP}, {number: 90, name: t, protocol: TCP}]";

fn entry(scene: Scene, name: &str, spec: &str) -> Scene {
    scene.object("ServiceEntry", name, &format!("spec: {{{spec}}}"))
}

#[test]
fn an_entry_that_lists_addresses_is_a_service_without_endpoints() {
    let compiled = entry(
        secure(),
        "a/ext",
        &format!("{OUT}, addresses: [192.0.2.7, 198.51.100.0/24], exportTo: ['.', b]"),
    )
    .compile();
    let service = compiled.service("a/ext.example.com");
    let external = service.external.unwrap();
    assert_eq!(external.resolution, Resolution::None);
    assert_eq!(external.addresses.len(), 2);
    assert_eq!(external.export_to, ["a", "b"]);
    assert_eq!(service.vips, ["192.0.2.7".parse::<IpAddr>().unwrap()]);
    assert!(service.endpoints.is_empty());
    let protocols: Vec<_> = service.ports.iter().map(|port| port.protocol).collect();
    assert_eq!(protocols, [model::Protocol::Http, model::Protocol::Tcp]);
    assert!(compiled.effect("ServiceEntry/a/ext").in_force);
    assert!(
        compiled.plain_services.is_empty(),
        "pods outside the mesh dial it as it is"
    );
}

#[test]
fn an_entry_with_endpoints_gets_addresses_and_a_mesh_pod_keeps_its_identity() {
    let compiled = entry(
        secure().pod("full/web", "web"),
        "a/ext",
        &format!(
            "{OUT}, resolution: STATIC, endpoints: [{{address: 192.0.2.7, ports: {{http: 8080}}}}, {{address: 10.77.0.2}}]"
        ),
    )
    .compile();
    let service = compiled.service("a/ext.example.com");
    assert_eq!(service.external.as_ref().unwrap().resolution, Resolution::Static);
    assert_eq!(service.vips.len(), 2, "one a family: {:?}", service.vips);
    let plain = service.endpoints.iter().find(|e| e.identity.is_none()).unwrap();
    assert_eq!(plain.ports, [(80, 8080), (90, 90)].into());
    assert_eq!(
        service
            .identities
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["spiffe://cluster.local/ns/full/sa/default"]
    );
    assert!(!compiled.plain_services.is_empty());
}

#[test]
fn r_37_an_entry_without_addresses_lists_none_and_so_has_to_be_proven() {
    let compiled = entry(secure(), "a/ext", OUT).compile();
    let service = compiled.service("a/ext.example.com");
    assert!(service.external.as_ref().unwrap().is_unlisted());
    assert!(
        service.vips.is_empty(),
        "no address is chosen for what is where it is"
    );
    assert!(compiled.effect("ServiceEntry/a/ext").in_force);
}

#[test]
fn names_are_endpoints_with_dns() {
    for (spec, names) in [
        ("resolution: DNS", vec![("ext.example.com", 80)]),
        ("resolution: DNS_ROUND_ROBIN", vec![("ext.example.com", 80)]),
        (
            "resolution: DNS, endpoints: [{address: one.example.org, ports: {http: 8080}}, {address: 192.0.2.7}]",
            vec![("one.example.org", 8080)],
        ),
    ] {
        let compiled = entry(secure(), "a/ext", &format!("{OUT}, {spec}")).compile();
        let service = compiled.service("a/ext.example.com");
        let external = service.external.clone().unwrap();
        assert!(external.resolution.asks_names(), "{spec}");
        let found = external
            .names
            .iter()
            .map(|named| (named.host.as_str(), named.ports[&80]));
        assert_eq!(found.collect::<Vec<_>>(), names, "{spec}");
        assert_eq!(
            service.endpoints.len(),
            usize::from(spec.contains("192.0.2.7")),
            "{spec}"
        );
        assert_eq!(service.vips.len(), 2, "clients are told of these: {spec}");
        assert!(
            compiled.plain_services.is_empty(),
            "a pod outside the mesh dials it as it is"
        );
    }
    let wild =
        "hosts: ['*.example.com'], ports: [{number: 443, name: tls, protocol: TLS}], resolution: DYNAMIC_DNS";
    let compiled = entry(secure(), "a/wild", wild).compile();
    let service = compiled.service("a/*.example.com");
    assert_eq!(service.external.unwrap().resolution, Resolution::DynamicDns);
    assert!(service.vips.is_empty());
}

#[test]
fn an_entry_selects_pods_of_its_namespace() {
    let scene = secure()
        .pod("a/web", "web")
        .pod("a/other", "other")
        .pod("b/also", "web");
    let selects = "resolution: STATIC, location: MESH_INTERNAL, workloadSelector: {labels: {app: web}}";
    let compiled = entry(scene, "a/ext", &format!("{OUT}, {selects}")).compile();
    let service = compiled.service("a/ext.example.com");
    let [endpoint] = service.endpoints.as_slice() else {
        panic!("{:?}", service.endpoints);
    };
    assert_eq!(endpoint.addresses[0].to_string(), "10.77.0.2");
    assert_eq!(endpoint.ports, [(80, 80), (90, 90)].into());
    assert_eq!(service.identities, [endpoint.identity.clone().unwrap()]);
    assert!(compiled.effect("ServiceEntry/a/ext").in_force);
    let nothing = entry(secure(), "a/ext", &format!("{OUT}, {selects}")).compile();
    told(&nothing, "IST0127", "app=web");
}

#[test]
fn what_leads_nowhere_is_not_in_force() {
    for (spec, why) in [
        ("resolution: STATIC", "no endpoints"),
        (
            "resolution: STATIC, endpoints: [{address: 127.0.0.1}]",
            "no address of the network",
        ),
        (
            "resolution: DNS, endpoints: [{address: 169.254.169.254}]",
            "no address of the network",
        ),
    ] {
        let compiled = entry(secure(), "a/ext", &format!("{OUT}, {spec}")).compile();
        let effect = compiled.effect("ServiceEntry/a/ext");
        assert!(!effect.in_force, "{spec}");
        told(&compiled, "MW0501", why);
        let name = ResourceName::service(&ServiceName::new("a", "ext.example.com"));
        assert!(compiled.nodes["node-0"].get(&name).is_none(), "{spec}");
    }
}

#[test]
fn gw_44_tls_that_cannot_be_originated_closes_the_host() {
    let compiled = entry(secure(), "a/ext", &format!("{OUT}, addresses: [192.0.2.7]"))
        .object(
            "DestinationRule",
            "a/ext",
            "spec: {host: ext.example.com, trafficPolicy: {tls: {mode: SIMPLE}}}",
        )
        .compile();
    let service = compiled.service("a/ext.example.com");
    assert_eq!(
        service.ports[0].tls_for("a"),
        Some(snapshot::ClientTls::Unsupported)
    );
    assert!(
        !compiled.problems().iter().any(|p| p.contains("is no Service")),
        "{:?}",
        compiled.problems()
    );
}

#[test]
fn a_sidecar_is_for_its_namespace_and_the_roots_for_those_without() {
    let compiled = istio()
        .object(
            "Sidecar",
            "a/default",
            "spec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}, egress: [{hosts: ['./*', 'istio-system/*', '~/*']}]}",
        )
        .object(
            "Sidecar",
            "istio-system/default",
            "spec: {egress: [{hosts: ['*/*.example.com']}]}",
        )
        .object("Sidecar", "a/younger", "spec: {egress: [{hosts: ['*/*']}]}")
        .compile();
    let mesh = compiled.mesh();
    let own = mesh.scope("a").unwrap();
    assert_eq!(mesh.egress_of("a"), Egress::RegistryOnly);
    assert_eq!(own.imports.as_ref().unwrap().len(), 2);
    assert!(own.knows_all_of("a") && own.knows_all_of("istio-system") && !own.knows_all_of("b"));
    assert_eq!(mesh.egress_of("b"), Egress::AllowAny);
    assert!(!mesh.scope("b").unwrap().knows_all_of("b"));
    assert_eq!(
        compiled.effect("Sidecar/a/younger").shadowed_by.len(),
        1,
        "PA-13 of Sidecars: the oldest"
    );
}

#[test]
fn r_31_a_policy_without_a_mode_is_said() {
    let compiled = istio()
        .object("Sidecar", "a/default", "spec: {outboundTrafficPolicy: {}}")
        .compile();
    assert_eq!(compiled.mesh().egress_of("a"), Egress::RegistryOnly);
    told(&compiled, "MW0506", "without a mode");
}

#[test]
fn a_sidecar_for_some_workloads_is_theirs_alone() {
    let compiled = istio()
        .pod("a/x", "x")
        .pod("a/y", "y")
        .pod("b/w", "x")
        .object(
            "Sidecar",
            "a/some",
            "spec: {workloadSelector: {labels: {app: x}}, outboundTrafficPolicy: {mode: REGISTRY_ONLY}, egress: [{hosts: ['./*']}]}",
        )
        .object("Sidecar", "a/younger", "spec: {workloadSelector: {labels: {app: x}}, egress: [{hosts: ['*/*']}]}")
        .object("Sidecar", "a/nobody", "spec: {workloadSelector: {labels: {app: z}}, egress: [{hosts: ['*/*']}]}")
        .compile();
    let scope = |pod: &str| compiled.workload(pod).inbound.unwrap().scope;
    let own = scope("x");
    assert_eq!(compiled.mesh().scope("a"), None, "it is not for the namespace");
    assert_eq!(scope("y"), None);
    let effect = compiled.effect("Sidecar/a/some");
    assert!(effect.in_force);
    assert_eq!(effect.targets, ["a/x"]);
    assert_eq!(compiled.effect("Sidecar/a/younger").shadowed_by.len(), 1);
    told(&compiled, "IST0127", "app=z");
    let own = own.unwrap();
    assert_eq!(own.egress, Some(Egress::RegistryOnly));
    assert!(own.knows_all_of("a") && !own.knows_all_of("b"));
}
