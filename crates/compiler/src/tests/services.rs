//! Services: addresses, ports, endpoints, and the table for plain pods.

use std::net::SocketAddr;

use model::Protocol;

use super::*;

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn cluster_addresses_are_kept_completed_and_chosen() {
    let compiled = secure()
        .object(
            "Service",
            "n/given",
            "spec: {clusterIP: 10.96.3.4, ports: [{port: 80}]}",
        )
        .object(
            "Service",
            "n/both",
            "spec: {clusterIP: 10.96.3.5, clusterIPs: [10.96.3.5, \"fd77:96::5\"], ports: [{port: 80}]}",
        )
        .object("Service", "n/chosen", "spec: {ports: [{port: 80}]}")
        .object(
            "Service",
            "n/headless",
            "spec: {clusterIP: None, ports: [{port: 80}]}",
        )
        .compile();
    assert_eq!(compiled.service("n/given").vips[0], ips(&["10.96.3.4"])[0]);
    assert_eq!(compiled.service("n/given").vips.len(), 2);
    assert_eq!(compiled.service("n/both").vips, ips(&["10.96.3.5", "fd77:96::5"]));
    let chosen = compiled.service("n/chosen").vips;
    assert!(chosen[0].to_string().starts_with("10.96.") && chosen[1].to_string().starts_with("fd77:96::"));
    let headless = compiled.service("n/headless");
    assert!(headless.headless && headless.vips.is_empty());
    let again = secure()
        .object("Service", "n/chosen", "spec: {ports: [{port: 80}]}")
        .compile();
    assert_eq!(
        again.service("n/chosen").vips,
        chosen,
        "other Services do not move it"
    );
}

#[test]
fn a_cluster_address_belongs_to_the_older_service() {
    let compiled = secure()
        .object(
            "Service",
            "n/z",
            "spec: {clusterIP: 10.96.3.4, ports: [{port: 80}]}",
        )
        .object(
            "Service",
            "n/a",
            "spec: {clusterIP: 10.96.3.4, ports: [{port: 80}]}",
        )
        .compile();
    assert!(compiled.service("n/z").vips.contains(&ips(&["10.96.3.4"])[0]));
    assert!(!compiled.service("n/a").vips.contains(&ips(&["10.96.3.4"])[0]));
    told(&compiled, "MW0505", "belongs to `n/z`");
}

#[test]
fn a_cluster_address_outside_of_the_ranges_takes_nobodys_traffic() {
    let spec = "spec: {clusterIP: 10.77.0.2, ports: [{port: 80}]}";
    let compiled = secure()
        .object("Service", "n/thief", spec)
        .pod("n/victim", "web")
        .compile();
    let vips = compiled.service("n/thief").vips;
    assert!(
        vips.len() == 2 && !vips.contains(&ips(&["10.77.0.2"])[0]),
        "{vips:?}"
    );
    told(&compiled, "MW0505", "outside of the mesh's Service ranges");
}

#[test]
fn listed_addresses_that_are_local_to_the_node_are_left_out() {
    for bad in [
        "127.0.0.1",
        "169.254.1.1",
        "0.0.0.0",
        "::1",
        "fe80::1",
        "ff02::1",
        "::ffff:127.0.0.1",
    ] {
        let subsets = format!("subsets: [{{addresses: [{{ip: \"{bad}\"}}], ports: [{{port: 15090}}]}}]");
        let compiled = compile(
            &secure()
                .object("Service", "n/ext", "spec: {ports: [{port: 80}]}")
                .object("Endpoints", "n/ext", &subsets)
                .world(),
        );
        assert!(compiled.service("n/ext").endpoints.is_empty(), "{bad}");
        if !compiled.problems.is_empty() {
            told(&compiled, "MW0510", "local to a machine");
        }
    }
}

#[test]
fn target_ports_by_number_name_and_pod() {
    let with_port = |number| {
        move |pod: &mut Pod| {
            let port = ContainerPort {
                name: "web".to_owned(),
                container_port: number,
                ..ContainerPort::default()
            };
            pod.spec.containers = vec![api::Container {
                ports: vec![port],
                ..api::Container::default()
            }];
        }
    };
    let compiled = secure()
        .service("n/web", "{name: a, port: 80, targetPort: web}, {name: b, port: 81, targetPort: 9}, {name: c, port: 82}, {name: d, port: 83, targetPort: nope}")
        .pod("n/x", "web")
        .last(with_port(8080))
        .pod("n/y", "web")
        .last(with_port(8081))
        .compile();
    let service = compiled.service("n/web");
    let maps: Vec<_> = service.endpoints.iter().map(|e| e.ports.clone()).collect();
    assert_eq!(
        maps,
        [
            [(80, 8080), (81, 9), (82, 82)].into(),
            [(80, 8081), (81, 9), (82, 82)].into()
        ]
    );
    told(&compiled, "IST0101", "named `nope`");
    assert!(!compiled.problems().iter().any(|p| p.contains("named `web`")));
}

#[test]
fn a_named_target_port_is_one_of_the_same_transport() {
    let port = |protocol: &str, number| ContainerPort {
        name: "dns".to_owned(),
        container_port: number,
        protocol: Some(protocol.to_owned()),
        ..ContainerPort::default()
    };
    let compiled = secure()
        .service("n/web", "{name: tcp-dns, port: 5300, targetPort: dns}")
        .pod("n/x", "web")
        .last(|pod| {
            let ports = vec![port("UDP", 1), port("TCP", 2)];
            pod.spec.containers = vec![api::Container {
                ports,
                ..api::Container::default()
            }];
        })
        .compile();
    assert_eq!(compiled.service("n/web").endpoints[0].ports[&5300], 2);
}

#[test]
fn readiness_and_its_exception() {
    let unready = |scene: Scene| {
        scene
            .pod("n/x", "web")
            .last(|pod| pod.status.set_ready(false))
            .compile()
    };
    let closed = unready(secure().service("n/web", "{port: 80}"));
    assert!(!closed.service("n/web").endpoints[0].ready);
    let open = unready(secure().object(
        "Service",
        "n/web",
        "spec: {publishNotReadyAddresses: true, selector: {app: web}, ports: [{port: 80}]}",
    ));
    assert!(open.service("n/web").endpoints[0].ready);
}

#[test]
fn stateful_pods_are_known_by_name() {
    let compiled = secure()
        .object(
            "Service",
            "n/db",
            "spec: {clusterIP: None, selector: {app: db}, ports: [{port: 5432}]}",
        )
        .pod("n/db-0", "db")
        .last(|pod| {
            let owner = OwnerReference {
                kind: "StatefulSet".to_owned(),
                name: "db".to_owned(),
                ..OwnerReference::default()
            };
            pod.metadata.owner_references = vec![owner];
        })
        .pod("n/named", "db")
        .last(|pod| {
            pod.spec.hostname = "primary".to_owned();
            pod.spec.subdomain = "db".to_owned();
        })
        .pod("n/unnamed", "db")
        .compile();
    let names: Vec<_> = compiled
        .service("n/db")
        .endpoints
        .iter()
        .map(|e| e.hostname.clone())
        .collect();
    assert_eq!(names, [Some("db-0".to_owned()), Some("primary".to_owned()), None]);
}

#[test]
fn listed_endpoints_are_pods_where_the_address_is_a_pods() {
    let compiled = secure()
        .object("Service", "n/ext", "spec: {ports: [{name: pg, port: 5432}]}")
        .object("Endpoints", "n/ext", "subsets: [{addresses: [{ip: 10.77.0.2}, {ip: 192.168.77.1}], notReadyAddresses: [{ip: 192.168.77.2}], ports: [{name: pg, port: 15432}]}]")
        .pod("m/db", "db")
        .compile();
    let service = compiled.service("n/ext");
    let got: Vec<_> = service
        .endpoints
        .iter()
        .map(|e| {
            (
                e.addresses[0].to_string(),
                e.ready,
                e.identity.is_some(),
                e.ports[&5432],
            )
        })
        .collect();
    let mut want = vec![
        ("10.77.0.2".to_owned(), true, true, 15432),
        ("192.168.77.1".to_owned(), true, false, 15432),
        ("192.168.77.2".to_owned(), false, false, 15432),
    ];
    want.sort();
    let mut sorted = got;
    sorted.sort();
    assert_eq!(sorted, want);
    let inbound = compiled.workload("db").inbound.unwrap();
    assert_eq!(
        inbound.ports[0].port, 15432,
        "the Service declares the pod's port"
    );
}

#[test]
fn endpoint_slices_by_label() {
    let compiled = secure()
        .object("Service", "n/ext", "spec: {ports: [{port: 80}]}")
        .object(
            "EndpointSlice",
            "n/ext-1",
            "META , labels: {kubernetes.io/service-name: ext}\naddressType: IPv4\nendpoints: [{addresses: [192.168.77.1]}, {addresses: [192.168.77.2], conditions: {ready: false}}]\nports: [{port: 8080}]",
        )
        .compile();
    let service = compiled.service("n/ext");
    let got: Vec<_> = service
        .endpoints
        .iter()
        .map(|e| (e.addresses[0].to_string(), e.ready, e.ports[&80]))
        .collect();
    assert_eq!(
        got,
        [
            ("192.168.77.1".to_owned(), true, 8080),
            ("192.168.77.2".to_owned(), false, 8080)
        ]
    );
}

#[test]
fn external_names() {
    let compiled = secure()
        .object(
            "Service",
            "n/out",
            "spec: {type: ExternalName, externalName: Example.com}",
        )
        .compile();
    let service = compiled.service("n/out");
    assert_eq!(service.external_name.unwrap().as_str(), "example.com");
    assert!(service.vips.is_empty() && service.endpoints.is_empty());
}

#[test]
fn pd_protocols_and_the_oldest_service_on_a_shared_port() {
    let two = |first: &str, second: &str| {
        secure()
            .object("Service", first, "spec: {selector: {app: web}, ports: [{name: tcp-x, port: 80, targetPort: 8080}]}")
            .object("Service", second, "spec: {selector: {app: web}, ports: [{name: tcp-x, appProtocol: http, port: 80, targetPort: 8080}]}")
            .pod("n/web", "web")
            .compile()
    };
    for (first, second) in [("n/a", "n/b"), ("n/b", "n/a")] {
        let compiled = two(first, second);
        let inbound = compiled.workload("web").inbound.unwrap();
        assert_eq!(inbound.ports.len(), 1);
        assert_eq!(
            (
                inbound.ports[0].protocol,
                inbound.ports[0].service.clone().unwrap().to_string()
            ),
            (Protocol::Tcp, first.to_owned())
        );
        assert_eq!(
            compiled.service(second).ports[0].protocol,
            Protocol::Http,
            "clients follow the Service that they use (PD-08)"
        );
        told(&compiled, "MW0504", "port 8080 of the pods is declared as TCP");
    }
}

#[test]
fn pd_13_udp_is_kept_for_plain_pods_and_not_let_in() {
    let compiled = secure()
        .service("n/web", "{name: dns, port: 53, protocol: UDP, targetPort: 5353}, {name: dns-tcp, port: 53, protocol: TCP, targetPort: 5354}")
        .pod("n/web", "web")
        .compile();
    let service = compiled.service("n/web");
    assert_eq!(service.ports[0].protocol, Protocol::Tcp, "TCP is found first");
    assert_eq!(service.endpoints[0].ports[&53], 5354);
    assert_eq!(compiled.workload("web").inbound.unwrap().ports.len(), 1);
    assert!(compiled.plain_services.iter().any(|plain| plain.udp));
}

#[test]
fn plain_pods_reach_ready_endpoints_of_the_family() {
    let compiled = secure()
        .service("n/web", "{port: 80, targetPort: 8080}")
        .pod("n/x", "web")
        .pod("n/y", "web")
        .last(|pod| pod.status.set_ready(false))
        .compile();
    let of = |v6: bool| {
        compiled
            .plain_services
            .iter()
            .find(|plain| plain.vip.is_ipv6() == v6)
            .unwrap()
    };
    assert_eq!(
        (of(false).port, of(false).endpoints.clone()),
        (80, vec!["10.77.0.2:8080".parse::<SocketAddr>().unwrap()])
    );
    assert_eq!(
        of(true).endpoints,
        ["[fd77:1::2]:8080".parse::<SocketAddr>().unwrap()]
    );
}
