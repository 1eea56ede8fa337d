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
fn r_37_what_would_open_more_than_it_names_is_not_in_force() {
    for (spec, why) in [
        (OUT.to_owned(), "without addresses"),
        (format!("{OUT}, resolution: DNS"), "not resolved"),
        (
            format!("{OUT}, resolution: STATIC, workloadSelector: {{labels: {{a: b}}}}"),
            "workloadSelector",
        ),
        (
            format!("{OUT}, resolution: STATIC, endpoints: [{{address: 127.0.0.1}}]"),
            "no address of the network",
        ),
    ] {
        let compiled = entry(secure(), "a/ext", &spec).compile();
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
fn a_sidecar_for_some_workloads_is_not_in_force() {
    let compiled = istio()
        .object(
            "Sidecar",
            "a/some",
            "spec: {workloadSelector: {labels: {app: x}}, egress: [{hosts: ['./*']}]}",
        )
        .compile();
    assert!(!compiled.effect("Sidecar/a/some").in_force);
    assert_eq!(compiled.mesh().scope("a"), None);
}
