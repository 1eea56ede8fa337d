mod entries;

use std::net::SocketAddr;

use model::{Host, Profile, Protocol, Reason, SpiffeId, WorkloadId};

use super::*;
use crate::{
    ClientTls, Egress, Endpoint, External, Import, PathNormalization, Resolution, Scope, TlsVersion, XfccMode,
};

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|t| t.parse().unwrap()).collect()
}

fn mesh(strict_hosts: bool, egress: Egress) -> Mesh {
    Mesh {
        profile: Profile::Secure,
        trust_domain: "cluster.local".parse().unwrap(),
        trust_domain_aliases: vec![],
        root_namespace: "istio-system".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        dns_vips: ips(&["10.96.0.10", "fd77:96::a"]),
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
        tls: crate::MeshTls::default(),
        http10: false,
        connect_timeout_ms: 10_000,
        scopes: std::collections::BTreeMap::new(),
    }
}

fn endpoint(uid: &str, address: &[&str], port: (u16, u16), ready: bool) -> Endpoint {
    Endpoint {
        uid: WorkloadUid::new(uid),
        workload: None,
        addresses: ips(address),
        ports: [port].into(),
        ready,
        node: None,
        identity: None,
        plaintext_ports: vec![],
        mtls_ports: vec![],
        hbone: false,
        hostname: Some(uid.to_owned()),
    }
}

fn service(name: &str, vips: &[&str], port: u16, protocol: Protocol, endpoints: Vec<Endpoint>) -> Service {
    let (ns, svc) = name.split_once('/').unwrap();
    Service {
        name: ServiceName::new(ns, svc),
        host: format!("{svc}.{ns}.svc.cluster.local").parse().unwrap(),
        vips: ips(vips),
        headless: vips.is_empty(),
        external_name: None,
        external: None,
        ports: vec![ServicePort {
            name: "p".to_owned(),
            port,
            protocol,
            tls: None,
            tls_by_namespace: [("picky".to_owned(), Some(ClientTls::Disable))].into(),
        }],
        endpoints,
        identities: vec![],
    }
}

fn alias(name: &str, to: &str) -> Service {
    let to: Host = to.parse().unwrap();
    Service {
        headless: false,
        external_name: Some(to),
        ports: vec![],
        ..service(name, &[], 1, Protocol::Tcp, vec![])
    }
}

fn pod(uid: &str, namespace: &str, addresses: &[&str], identity: Option<&str>) -> Workload {
    Workload {
        uid: WorkloadUid::new(uid),
        pod: WorkloadId::new(namespace, uid),
        workload: WorkloadId::new(namespace, uid),
        canonical_name: String::new(),
        canonical_revision: String::new(),
        app: String::new(),
        version: String::new(),
        addresses: ips(addresses),
        node: "node-0".to_owned(),
        service_account: "default".to_owned(),
        identity: identity.map(|i| i.parse::<SpiffeId>().unwrap()),
        ready: true,
        plaintext_ports: vec![],
        mtls_ports: vec![],
        hbone: false,
        inbound: None,
    }
}

const ID: &str = "spiffe://cluster.local/ns/full/sa/web";

/// web (VIP, HTTP 80 -> 8080 on web-1), other (VIP, HTTP 80), db (headless TCP 5432), three aliases.
fn world(mesh: Mesh) -> Index {
    let web = vec![
        endpoint("web-1", &["10.77.0.2", "fd77:1::2"], (80, 8080), true),
        endpoint("web-2", &["10.77.0.3"], (80, 8080), false),
    ];
    let db = vec![
        endpoint("db-0", &["10.77.0.4", "fd77:1::4"], (5432, 5432), true),
        endpoint("db-1", &["10.77.0.5"], (5432, 5432), false),
    ];
    let resources: Resources = [
        Resource::from(mesh),
        service(
            "full/web",
            &["10.96.0.20", "fd77:96::20"],
            80,
            Protocol::Http,
            web,
        )
        .into(),
        service("full/other", &["10.96.0.21"], 80, Protocol::Http, vec![]).into(),
        service("full/db", &[], 5432, Protocol::Tcp, db).into(),
        alias("full/short", "web.full.svc.cluster.local").into(),
        alias("full/outside", "example.com").into(),
        alias("full/loop", "loop.full.svc.cluster.local").into(),
        pod("web-1", "full", &["10.77.0.2", "fd77:1::2"], Some(ID)).into(),
        pod("db-0", "full", &["10.77.0.4", "fd77:1::4"], None).into(),
        pod("plain", "legacy", &["10.77.0.6"], None).into(),
    ]
    .into_iter()
    .collect();
    Index::build(&resources).unwrap()
}

fn secure() -> Index {
    world(mesh(true, Egress::RegistryOnly))
}

#[test]
fn dns_every_form_of_a_name() {
    let index = secure();
    for name in [
        "web",
        "WEB.",
        "web.full",
        "web.full.svc",
        "web.full.svc.cluster.local",
        "Web.Full.Svc.Cluster.Local.",
    ] {
        assert_eq!(
            index.resolve(name, "full", false, &Lacks::default()),
            Answer::Addresses(ips(&["10.96.0.20"])),
            "{name}"
        );
        assert_eq!(
            index.resolve(name, "full", true, &Lacks::default()),
            Answer::Addresses(ips(&["fd77:96::20"])),
            "{name}"
        );
    }
    assert_eq!(
        index.resolve("web", "legacy", false, &Lacks::default()),
        Answer::NotOurs
    );
    assert_eq!(
        index.resolve("other", "full", true, &Lacks::default()),
        Answer::NoData
    );
}

#[test]
fn dns_headless_pods_aliases_and_nothing() {
    let index = secure();
    let check = |name: &str, v6, expect| {
        assert_eq!(
            index.resolve(name, "full", v6, &Lacks::default()),
            expect,
            "{name} {v6}"
        )
    };
    let v4 = Answer::Addresses(ips(&["10.77.0.4"]));
    let v6 = Answer::Addresses(ips(&["fd77:1::4"]));
    check("db", false, v4.clone());
    check("db.full.svc.cluster.local", true, v6.clone());
    check("db-0.db", false, Answer::NotOurs);
    check("db-0.db.full", false, v4.clone());
    check("db-0.db.full.svc.cluster.local", true, v6);
    check("db-1.db.full.svc.cluster.local", false, Answer::NxDomain);
    check("web-1.web.full.svc.cluster.local", false, Answer::NxDomain);
    check("10-77-0-4.full.pod.cluster.local", false, v4);
    check("10-77-0-4.full.pod.cluster.local", true, Answer::NoData);
    check("10-77-0-4.legacy.pod.cluster.local", false, Answer::NxDomain);
    check("10-99-0-4.full.pod.cluster.local", false, Answer::NxDomain);
    check(
        "short",
        false,
        Answer::Cname("web.full.svc.cluster.local".parse().unwrap()),
    );
    check("outside", true, Answer::Cname("example.com".parse().unwrap()));
    check("full.svc.cluster.local", false, Answer::NoData);
    check("nowhere.svc.cluster.local", false, Answer::NxDomain);
    check("cluster.local", false, Answer::NoData);
    check("nope.full.svc.cluster.local", false, Answer::NxDomain);
    check("nope.full", false, Answer::NotOurs);
    check("example.com", false, Answer::NotOurs);
    check("www.a.example.com", false, Answer::NotOurs);
}

fn goes(index: &Index, dialled: &str, host: Option<&str>) -> String {
    let dialled: SocketAddr = dialled.parse().unwrap();
    match index.outbound("full", dialled, host) {
        Ok(Destination::Service(target)) => format!("{}:{}", target.service.name, target.port),
        Ok(Destination::Direct {
            address,
            workload,
            service,
        }) => {
            let identity = workload
                .and_then(|w| w.identity.clone())
                .map_or("plain", |_| "mesh");
            format!(
                "{address} {identity} {}",
                service.map_or_else(|| "-".to_owned(), |s| s.service.name.to_string())
            )
        }
        Ok(Destination::External(address)) => format!("external {address}"),
        Err(reason) => reason.to_string(),
    }
}

#[test]
fn o_01_a_pod_by_address_is_reached_with_identity() {
    let index = secure();
    assert_eq!(
        goes(&index, "10.77.0.2:8080", None),
        "10.77.0.2:8080 mesh full/web"
    );
    assert_eq!(goes(&index, "10.77.0.2:9999", None), "10.77.0.2:9999 mesh -");
    assert_eq!(
        goes(&index, "[::ffff:10.77.0.2]:8080", None),
        "10.77.0.2:8080 mesh full/web"
    );
    assert_eq!(
        goes(&index, "[fd77:1::4]:5432", None),
        "[fd77:1::4]:5432 plain full/db"
    );
    assert_eq!(
        goes(&index, "10.77.0.5:5432", None),
        "10.77.0.5:5432 plain full/db"
    );
}

#[test]
fn p_29_a_plain_pods_address_is_in_no_registry() {
    let served = || vec![endpoint("plain", &["10.77.0.6"], (80, 8080), true)];
    let unknown = Reason::EgressUnknown.as_str();
    for egress in [Egress::RegistryOnly, Egress::AllowAny] {
        let direct = |text: &'static str| match egress {
            Egress::RegistryOnly => unknown,
            Egress::AllowAny => text,
        };
        let index = world(mesh(true, egress));
        assert_eq!(
            goes(&index, "10.77.0.6:8080", None),
            direct("10.77.0.6:8080 plain -")
        );
        assert_eq!(
            goes(&index, "10.77.0.6:8080", Some("10.77.0.6:8080")),
            direct("10.77.0.6:8080 plain -"),
            "the reason is where it goes, not what it is called"
        );
        // Its Service is reached by the Service's address; the pod's own is another one.
        let with = |vips: &[&str]| {
            let resources: Resources = [
                Resource::from(mesh(true, egress)),
                service("legacy/web", vips, 80, Protocol::Http, served()).into(),
                pod("plain", "legacy", &["10.77.0.6"], None).into(),
            ]
            .into_iter()
            .collect();
            Index::build(&resources).unwrap()
        };
        let cluster = with(&["10.96.0.30"]);
        assert_eq!(goes(&cluster, "10.96.0.30:80", None), "legacy/web:80");
        assert_eq!(
            goes(&cluster, "10.77.0.6:8080", None),
            direct("10.77.0.6:8080 plain legacy/web")
        );
        assert_eq!(
            goes(&with(&[]), "10.77.0.6:8080", None),
            "10.77.0.6:8080 plain legacy/web"
        );
    }
}

/// What a ServiceEntry of `namespace/host` declares, with these addresses and one port.
fn external(
    name: &str,
    resolution: Resolution,
    addresses: &[&str],
    port: u16,
    protocol: Protocol,
) -> Service {
    let (_, host) = name.split_once('/').unwrap();
    Service {
        host: host.parse().unwrap(),
        vips: addresses.iter().filter_map(|a| a.parse().ok()).collect(),
        headless: false,
        external: Some(External {
            resolution,
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            export_to: vec![],
            names: vec![],
        }),
        ..service(name, &["192.0.2.1"], port, protocol, vec![])
    }
}

fn with_entries(mesh: Mesh, entries: Vec<Service>) -> Index {
    let web = vec![endpoint("web-1", &["10.77.0.2"], (80, 8080), true)];
    let resources: Resources = [
        Resource::from(mesh),
        service("full/web", &["10.96.0.20"], 80, Protocol::Http, web).into(),
        pod("web-1", "full", &["10.77.0.2"], Some(ID)).into(),
    ]
    .into_iter()
    .chain(entries.into_iter().map(Resource::from))
    .collect();
    Index::build(&resources).unwrap()
}

#[test]
fn eg_17_an_entry_opens_the_addresses_that_it_lists_and_no_host_more() {
    let unknown = Reason::EgressUnknown.as_str();
    for strict in [true, false] {
        let entries = vec![
            external(
                "full/ext.example.com",
                Resolution::None,
                &["192.0.2.7"],
                80,
                Protocol::Http,
            ),
            external(
                "full/*.wild.example",
                Resolution::None,
                &["198.51.100.0/24", "127.0.0.0/8"],
                443,
                Protocol::Tls,
            ),
        ];
        let index = with_entries(mesh(strict, Egress::RegistryOnly), entries);
        let check = |dialled, host, expect: &str| {
            assert_eq!(
                goes(&index, dialled, host),
                expect,
                "strict {strict}: {dialled} {host:?}"
            );
        };
        let there = "192.0.2.7:80 plain full/ext.example.com";
        check("192.0.2.7:80", None, there);
        check("192.0.2.7:80", Some("EXT.example.com:80"), there);
        check("192.0.2.7:81", None, unknown);
        check("192.0.2.8:80", None, unknown);
        check(
            "198.51.100.9:443",
            None,
            "198.51.100.9:443 plain full/*.wild.example",
        );
        check("198.51.101.9:443", None, unknown);
        check("127.0.0.1:443", None, unknown);
        // The host is the client's claim: it opens no address that the entry does not list.
        let claimed = goes(&index, "203.0.113.1:80", Some("ext.example.com"));
        let refused = if strict {
            Reason::HostMismatch.as_str()
        } else {
            unknown
        };
        assert_eq!(claimed, refused, "strict {strict}");
        // The cluster's own stay what they are.
        check("10.96.0.20:80", Some("web.full"), "full/web:80");
    }
}

#[test]
fn an_entry_with_endpoints_is_named_by_its_own_addresses() {
    let mut entry = external(
        "full/ext.example.com",
        Resolution::Static,
        &["10.96.7.7"],
        80,
        Protocol::Http,
    );
    entry.endpoints = vec![endpoint("out", &["192.0.2.7"], (80, 8080), true)];
    let mut own = entry.clone();
    own.external.as_mut().unwrap().export_to = vec!["other".to_owned()];
    let index = with_entries(mesh(true, Egress::RegistryOnly), vec![entry]);
    assert_eq!(goes(&index, "10.96.7.7:80", None), "full/ext.example.com:80");
    assert_eq!(
        goes(&index, "10.96.7.7:80", Some("ext.example.com")),
        "full/ext.example.com:80"
    );
    assert_eq!(
        goes(&index, "192.0.2.7:8080", None),
        Reason::EgressUnknown.as_str()
    );
    assert_eq!(
        index.resolve("ext.example.com.", "full", false, &Lacks::default()),
        Answer::Addresses(ips(&["10.96.7.7"]))
    );
    assert_eq!(
        index.resolve("other.example.com", "full", false, &Lacks::default()),
        Answer::NotOurs
    );
    // It is not exported to this client.
    let hidden = with_entries(mesh(true, Egress::RegistryOnly), vec![own]);
    assert_eq!(
        goes(&hidden, "10.96.7.7:80", None),
        Reason::EgressUnknown.as_str()
    );
    assert_eq!(
        hidden.resolve("ext.example.com", "full", false, &Lacks::default()),
        Answer::NotOurs
    );
}

#[test]
fn a_clients_own_namespace_is_believed_before_others() {
    let of = |name| external(name, Resolution::None, &["192.0.2.7"], 80, Protocol::Tcp);
    let both = vec![of("aaa/bank.example"), of("full/bank.example")];
    let index = with_entries(mesh(true, Egress::RegistryOnly), both);
    assert_eq!(
        goes(&index, "192.0.2.7:80", None),
        "192.0.2.7:80 plain full/bank.example"
    );
}

#[test]
fn a_sidecar_bounds_what_a_namespace_knows() {
    let scope = |egress, hosts: &[(&str, &str)]| Scope {
        egress,
        imports: Some(
            hosts
                .iter()
                .map(|(namespace, host)| Import {
                    namespace: Some((*namespace).to_owned()),
                    host: host.parse().unwrap(),
                })
                .collect(),
        ),
    };
    let unknown = Reason::EgressUnknown.as_str();
    for strict in [true, false] {
        let with = |scope: Scope| {
            let mut mesh = mesh(strict, Egress::AllowAny);
            mesh.scopes.insert("full".to_owned(), scope);
            with_entries(mesh, vec![])
        };
        let closed = with(scope(Some(Egress::RegistryOnly), &[("elsewhere", "*")]));
        assert_eq!(goes(&closed, "10.96.0.20:80", None), unknown, "{strict}");
        assert_eq!(goes(&closed, "10.77.0.2:8080", None), unknown, "{strict}");
        assert_eq!(goes(&closed, "192.0.2.7:80", None), unknown, "{strict}");
        let open = with(scope(Some(Egress::RegistryOnly), &[("full", "*")]));
        assert_eq!(goes(&open, "10.96.0.20:80", None), "full/web:80", "{strict}");
        // Imports limit discovery alone: where everything may leave, the mesh stays reached with identity.
        let any = with(scope(None, &[("elsewhere", "*")]));
        assert_eq!(goes(&any, "10.96.0.20:80", None), "full/web:80", "{strict}");
    }
}

#[test]
fn eg_01_istio_an_unknown_host_is_refused_where_nothing_may_leave() {
    let closed = world(mesh(false, Egress::RegistryOnly));
    let unknown = Reason::EgressUnknown.as_str();
    assert_eq!(goes(&closed, "10.96.0.20:80", Some("example.com")), unknown);
    assert_eq!(goes(&closed, "10.96.0.20:80", Some("web")), "full/web:80");
    // Nor is a pod's own address a listener of Istio's, unless a headless Service has it.
    assert_eq!(goes(&closed, "10.77.0.2:8080", None), unknown);
    assert_eq!(
        goes(&closed, "10.77.0.4:5432", None),
        "10.77.0.4:5432 plain full/db"
    );
}

#[test]
fn an_endpoint_of_two_services_is_the_headless_ones() {
    let both = || vec![endpoint("x", &["10.77.0.9"], (80, 80), true)];
    let resources: Resources = [
        Resource::from(mesh(true, Egress::RegistryOnly)),
        service("full/a", &["10.96.0.1"], 80, Protocol::Http, both()).into(),
        service("full/b", &[], 80, Protocol::Tcp, both()).into(),
    ]
    .into_iter()
    .collect();
    let index = Index::build(&resources).unwrap();
    assert_eq!(goes(&index, "10.77.0.9:80", None), "10.77.0.9:80 plain full/b");
    assert_eq!(
        goes(&index, "10.77.0.9:80", Some("a")),
        "10.77.0.9:80 plain full/a"
    );
}

#[test]
fn o_01_an_unknown_host_at_a_known_address_is_that_services_traffic() {
    let index = secure();
    for host in ["example.com", "nope", "1.2.3.4", "WEB.full:80", "web.", ""] {
        assert_eq!(goes(&index, "10.96.0.20:80", Some(host)), "full/web:80", "{host}");
    }
    assert_eq!(
        goes(&index, "10.77.0.2:9999", Some("nope")),
        "10.77.0.2:9999 mesh -"
    );
}

#[test]
fn o_02_secure_address_and_host_must_belong_to_one_service() {
    let index = secure();
    let mismatch = Reason::HostMismatch.as_str();
    let check = |dialled, host, expect: &str| {
        assert_eq!(goes(&index, dialled, Some(host)), expect, "{dialled} {host}");
    };
    check("10.96.0.20:80", "other", mismatch);
    check("10.96.0.20:80", "web", "full/web:80");
    check("10.96.0.20:80", "short", "full/web:80");
    check("10.96.0.20:80", "[fd77:96::20]", "full/web:80");
    check("10.96.0.20:80", "10.96.0.21", mismatch);
    check("10.96.0.20:80", "web:x", mismatch);
    check("10.77.0.2:8080", "web:8080", "10.77.0.2:8080 mesh full/web");
    check("10.77.0.2:8080", "other", mismatch);
    check("10.77.0.2:8080", "10.77.0.2", "10.77.0.2:8080 mesh full/web");
    check(
        "10.77.0.2:8080",
        "[fd77:1::2]:8080",
        "10.77.0.2:8080 mesh full/web",
    );
    check("10.77.0.2:8080", "10.77.0.4", mismatch);
    check("10.77.0.4:5432", "db-0.db.full", "10.77.0.4:5432 plain full/db");
    check("10.77.0.2:8080", "db-0.db.full", mismatch);
    check("1.2.3.4:80", "web", mismatch);
    check("1.2.3.4:80", "example.com", Reason::EgressUnknown.as_str());
    let open = world(mesh(true, Egress::AllowAny));
    assert_eq!(goes(&open, "1.2.3.4:80", Some("web")), mismatch);
    assert_eq!(
        goes(&open, "1.2.3.4:80", Some("example.com")),
        "external 1.2.3.4:80"
    );
    assert_eq!(goes(&open, "1.2.3.4:80", Some("loop")), "external 1.2.3.4:80");
}

#[test]
fn o_02_istio_the_host_alone_chooses_on_http_ports() {
    let index = world(mesh(false, Egress::AllowAny));
    let check = |dialled, host, expect: &str| {
        assert_eq!(goes(&index, dialled, Some(host)), expect, "{dialled} {host}");
    };
    check("1.2.3.4:80", "web", "full/web:80");
    check("10.96.0.21:80", "web.full.svc.cluster.local.", "full/web:80");
    check("1.2.3.4:81", "web", "external 1.2.3.4:81");
    check("1.2.3.4:5432", "db", "external 1.2.3.4:5432");
    check("10.96.0.20:80", "example.com", "full/web:80");
    let closed = world(mesh(false, Egress::RegistryOnly));
    assert_eq!(goes(&closed, "1.2.3.4:80", Some("web")), "full/web:80");
    assert_eq!(
        goes(&closed, "1.2.3.4:80", Some("foo")),
        Reason::EgressUnknown.as_str()
    );
}

#[test]
fn egress_by_mode() {
    assert_eq!(
        goes(&secure(), "1.2.3.4:443", None),
        Reason::EgressUnknown.as_str()
    );
    let open = world(mesh(true, Egress::AllowAny));
    assert_eq!(goes(&open, "1.2.3.4:443", None), "external 1.2.3.4:443");
    assert_eq!(
        goes(&open, "10.96.0.20:81", None),
        Reason::NoRoute.as_str(),
        "a cluster address goes nowhere else"
    );
}

#[test]
fn egress_never_leads_to_the_node_itself() {
    let open = world(mesh(true, Egress::AllowAny));
    for local in [
        "127.0.0.1:80",
        "0.0.0.0:80",
        "[::1]:80",
        "[::]:80",
        "169.254.1.1:80",
        "[ff02::1]:80",
        "[::ffff:127.0.0.1]:80",
    ] {
        assert_eq!(
            goes(&open, local, None),
            Reason::EgressUnknown.as_str(),
            "{local}"
        );
    }
    let istio = world(mesh(false, Egress::AllowAny));
    assert_eq!(goes(&istio, "127.0.0.1:80", None), Reason::EgressUnknown.as_str());
    assert_eq!(
        goes(&istio, "169.254.169.254:80", None),
        "external 169.254.169.254:80"
    );
}

#[test]
fn a_destination_rule_of_the_clients_namespace_decides_for_it_alone() {
    let index = secure();
    let tls = |namespace| match index.outbound(namespace, "10.96.0.20:80".parse().unwrap(), None) {
        Ok(Destination::Service(target)) => target.tls,
        other => panic!("{other:?}"),
    };
    assert_eq!(tls("picky"), Some(ClientTls::Disable));
    assert_eq!(tls("full"), None);
}

#[test]
fn candidates_are_ready_and_serve_the_port() {
    let index = secure();
    let Ok(Destination::Service(target)) = index.outbound("full", "10.96.0.20:80".parse().unwrap(), None)
    else {
        panic!("not a service");
    };
    let uids: Vec<_> = target
        .candidates()
        .iter()
        .map(|(e, port)| format!("{} {port}", e.uid))
        .collect();
    assert_eq!(uids, ["web-1 8080"]);
}

#[test]
fn an_address_that_two_pods_claim_is_the_mesh_pods() {
    for (a, b) in [("a", "b"), ("b", "a")] {
        let resources: Resources = [
            Resource::from(mesh(true, Egress::RegistryOnly)),
            pod(a, "full", &["10.77.0.9"], None).into(),
            pod(b, "full", &["10.77.0.9"], Some(ID)).into(),
        ]
        .into_iter()
        .collect();
        let index = Index::build(&resources).unwrap();
        let held = index.pod("10.77.0.9".parse().unwrap()).unwrap();
        assert_eq!(held.uid.as_str(), b);
    }
}

#[test]
fn r34_policy_sets_are_shared_and_a_missing_policy_is_none_the_less_there() {
    let id = |name: &str| PolicyId {
        namespace: "full".to_owned(),
        name: name.to_owned(),
    };
    let inbound = |names: &[&str]| crate::Inbound {
        ports: vec![],
        default_mtls: model::MtlsMode::Strict,
        policies: names.iter().map(|n| id(n)).collect(),
        authentications: vec![],
        mtls_decided_by: None,
        path_dialects: Default::default(),
        scope: None,
        telemetry: crate::Telemetry::default(),
    };
    let with = |uid, names| Workload {
        inbound: Some(inbound(names)),
        ..pod(uid, "full", &[], Some(ID))
    };
    let resources: Resources = [
        Resource::from(mesh(true, Egress::RegistryOnly)),
        with("a", &["gone"]).into(),
        with("b", &["gone"]).into(),
        with("c", &[]).into(),
        pod("d", "full", &[], None).into(),
    ]
    .into_iter()
    .collect();
    let index = Index::build(&resources).unwrap();
    let of = |uid| index.policies(&WorkloadUid::new(uid));
    assert!(Arc::ptr_eq(of("a").unwrap(), of("b").unwrap()));
    assert!(!of("a").unwrap().is_empty());
    assert!(of("c").unwrap().is_empty());
    assert!(of("d").is_none());
}

#[test]
fn s3_6_workloads_that_read_paths_alike_share_a_set_and_others_do_not() {
    let with = |uid, dialects: &str| Workload {
        inbound: Some(crate::Inbound {
            ports: vec![],
            default_mtls: model::MtlsMode::Strict,
            authentications: vec![],
            policies: vec![],
            mtls_decided_by: None,
            path_dialects: dialects.parse().unwrap(),
            scope: None,
            telemetry: crate::Telemetry::default(),
        }),
        ..pod(uid, "full", &[], Some(ID))
    };
    let (a, plain) = (with("a", "8080=collapse"), with("c", "plain"));
    let json = serde_json::to_string(&plain).unwrap();
    assert!(!json.contains("path_dialects"), "{json}");
    for workload in [&a, &plain] {
        let text = serde_json::to_string(workload).unwrap();
        assert_eq!(serde_json::from_str::<Workload>(&text).unwrap(), *workload);
    }
    let resources: Resources = [
        Resource::from(mesh(true, Egress::RegistryOnly)),
        a.into(),
        with("b", "8080=collapse").into(),
        plain.into(),
    ]
    .into_iter()
    .collect();
    let index = Index::build(&resources).unwrap();
    let of = |uid| index.policies(&WorkloadUid::new(uid)).unwrap();
    assert!(Arc::ptr_eq(of("a"), of("b")) && !Arc::ptr_eq(of("a"), of("c")));
}

#[test]
fn an_index_that_follows_another_decides_by_its_own_resources() {
    let spec = |name: &str, rules: usize| PolicySpec {
        id: PolicyId {
            namespace: "full".to_owned(),
            name: name.to_owned(),
        },
        action: policy::Action::Allow,
        dry_run: false,
        rules: vec![policy::RuleSpec::default(); rules],
        invalid: None,
        origin: policy::Origin::default(),
    };
    let with = |a: usize, b: usize| -> Resources {
        let (a, b) = (spec("a", a), spec("b", b));
        let workload = Workload {
            inbound: Some(crate::Inbound {
                ports: vec![],
                default_mtls: model::MtlsMode::Strict,
                authentications: vec![],
                policies: vec![a.id.clone(), b.id.clone()],
                mtls_decided_by: None,
                path_dialects: Default::default(),
                scope: None,
                telemetry: crate::Telemetry::default(),
            }),
            ..pod("a", "full", &[], Some(ID))
        };
        [
            Resource::from(mesh(true, Egress::RegistryOnly)),
            workload.into(),
            Resource::Policy(Arc::new(a)),
            Resource::Policy(Arc::new(b)),
        ]
        .into_iter()
        .collect()
    };
    let facts = policy::Facts {
        peer: None,
        source_ip: [127, 0, 0, 1].into(),
        remote_ip: [127, 0, 0, 1].into(),
        destination_ip: [127, 0, 0, 1].into(),
        destination_port: 80,
        sni: None,
        http: None,
    };
    let uid = WorkloadUid::new("a");
    let mut held = Index::build(&with(0, 0)).unwrap();
    for (a, b) in [(1, 0), (0, 0), (0, 1), (1, 1), (0, 0)] {
        held = Index::build_after(&with(a, b), Some(&held)).unwrap();
        let permit = policy::authorize(&facts, held.policies(&uid).unwrap());
        let by = permit
            .ok()
            .and_then(|permit| permit.policy().map(|id| id.name.clone()));
        let expect = match (a, b) {
            (1, _) => Some("a".to_owned()),
            (_, 1) => Some("b".to_owned()),
            _ => None,
        };
        assert_eq!(by, expect, "{a} {b}");
    }
}

#[test]
fn a_set_without_settings_is_refused() {
    assert_eq!(
        Index::build(&Resources::default()).unwrap_err(),
        IndexError::NoMesh
    );
}

mod authentication {
    use jwt::{AuthenticationSpec, Jwks, KeySource, RuleSpec};
    use policy::Invalid;

    use super::*;
    use crate::Inbound;

    const SOURCE: &str = "https://issuer.example.com/keys";

    fn id(name: &str) -> PolicyId {
        PolicyId {
            namespace: "full".to_owned(),
            name: name.to_owned(),
        }
    }

    fn spec(name: &str) -> AuthenticationSpec {
        AuthenticationSpec {
            id: id(name),
            rules: vec![RuleSpec {
                issuer: "issuer".to_owned(),
                audiences: vec![],
                keys: KeySource::Fetched(SOURCE.to_owned()),
                from_headers: vec![],
                from_params: vec![],
                from_cookies: vec![],
                output_payload_to_header: None,
                output_claim_to_headers: vec![],
                forward_original_token: false,
                space_delimited_claims: vec![],
                required: false,
                allow_hmac: false,
                allow_missing_exp: false,
                line: 0,
            }],
            invalid: None,
            origin: policy::Origin::default(),
        }
    }

    fn jwks(keys: &str) -> Resource {
        Resource::from(Jwks {
            source: SOURCE.to_owned(),
            keys: Some(keys.to_owned()),
            why: None,
        })
    }

    fn guarded(uid: &str, list: &[&str]) -> Resource {
        Resource::from(Workload {
            inbound: Some(Inbound {
                ports: vec![],
                default_mtls: model::MtlsMode::Strict,
                policies: vec![],
                authentications: list.iter().map(|name| id(name)).collect(),
                mtls_decided_by: None,
                path_dialects: Default::default(),
                scope: None,
                telemetry: crate::Telemetry::default(),
            }),
            ..pod(uid, "full", &[], Some(ID))
        })
    }

    fn set(more: &[Resource]) -> Resources {
        let mesh = Resource::from(mesh(true, Egress::RegistryOnly));
        std::iter::once(mesh).chain(more.iter().cloned()).collect()
    }

    fn of<'a>(index: &'a Index, uid: &str) -> &'a Arc<Authentication> {
        index.authentication(&WorkloadUid::new(uid)).unwrap()
    }

    #[test]
    fn one_that_would_come_out_the_same_is_kept_and_one_that_would_not_is_made_anew() {
        let base = [guarded("a", &["ra"]), spec("ra").into(), jwks("1")];
        let first = Index::build(&set(&base)).unwrap();
        let grown = [&base[..], &[guarded("0", &["ra"]), guarded("b", &[])]].concat();
        let second = Index::build_after(&set(&grown), Some(&first)).unwrap();
        assert!(Arc::ptr_eq(of(&first, "a"), of(&second, "a")));
        assert!(
            Arc::ptr_eq(of(&first, "a"), of(&second, "0")),
            "one for all with the same list"
        );
        assert!(of(&second, "b").authenticator().is_empty() && !of(&second, "a").authenticator().is_empty());
        let rotated = [guarded("a", &["ra"]), spec("ra").into(), jwks("2")];
        let third = Index::build_after(&set(&rotated), Some(&second)).unwrap();
        assert!(!Arc::ptr_eq(of(&second, "a"), of(&third, "a")), "other keys");
        let fewer = [guarded("a", &["ra"]), spec("ra").into()];
        let fourth = Index::build_after(&set(&fewer), Some(&third)).unwrap();
        assert!(!Arc::ptr_eq(of(&third, "a"), of(&fourth, "a")), "no keys");
    }

    struct Nothing;

    impl jwt::RequestView for Nothing {
        fn method(&self) -> &str {
            "GET"
        }

        fn path(&self) -> &str {
            "/"
        }

        fn authority(&self) -> &str {
            "web"
        }

        fn header(&self, _: &str, _: &mut dyn FnMut(&[u8]) -> bool) -> bool {
            false
        }
    }

    fn refusal(by: &Authentication) -> Option<(PolicyId, Reason)> {
        let answer = by
            .authenticator()
            .authenticate(&Nothing, 0, &jwt::Memory::default());
        answer.unwrap_err().policy
    }

    #[test]
    fn r34_one_that_is_missing_or_invalid_refuses_and_names_the_object() {
        let index = Index::build(&set(&[guarded("a", &["gone", "ra"]), spec("ra").into()])).unwrap();
        assert_eq!(
            refusal(of(&index, "a")),
            Some((id("gone"), Reason::DenyPolicyMissing))
        );
        let invalid = AuthenticationSpec {
            invalid: Some(Invalid {
                reason: Reason::DenyPolicyInvalid,
                why: "because".to_owned(),
            }),
            ..spec("ra")
        };
        let index = Index::build(&set(&[guarded("a", &["ra"]), invalid.into()])).unwrap();
        assert_eq!(
            refusal(of(&index, "a")),
            Some((id("ra"), Reason::DenyPolicyInvalid))
        );
        assert!(index.authentication(&WorkloadUid::new("b")).is_none());
    }
}
