//! What ServiceEntries leave to names: where it is, is what DNS says, never what the client does (R37, EG-17).

use snapshot::{External, NamedEndpoint, Resolution, Service};

use super::*;

const HOST: &str = "ext.example.com";

/// An entry of one port at `vip`; where it lists no address, `vip` only says the port.
fn entry(host: &str, vip: &str, protocol: Protocol, resolution: Resolution) -> Service {
    let unlisted = matches!(resolution, Resolution::None | Resolution::DynamicDns);
    let of_vip = service(&format!("full/{host}"), vip, protocol, vec![]);
    let port = of_vip.ports[0].port;
    Service {
        host: host.parse().unwrap(),
        vips: if unlisted { vec![] } else { of_vip.vips.clone() },
        external: Some(External {
            resolution,
            addresses: vec![],
            export_to: vec![],
            names: match resolution {
                Resolution::Dns | Resolution::DnsRoundRobin => vec![NamedEndpoint {
                    host: host.parse().unwrap(),
                    ports: [(port, port)].into(),
                }],
                _ => vec![],
            },
        }),
        ..of_vip
    }
}

/// One that lists an address, and leads to it.
fn listed(host: &str, address: &str, protocol: Protocol) -> Service {
    let mut service = entry(host, address, protocol, Resolution::None);
    let (ip, _) = address.split_once(':').unwrap();
    service.vips = vec![ip.parse().unwrap()];
    service.external.as_mut().unwrap().addresses = vec![ip.parse().unwrap()];
    service
}

async fn world(entries: Vec<Service>, servers: &[(&str, Kind)]) -> World {
    let mut resources = vec![
        mesh(Egress::RegistryOnly).into(),
        pod("client", CLIENT, Some("client")).into(),
        pod("web-1", "10.77.1.2", Some("web")).into(),
    ];
    resources.extend(entries.into_iter().map(snapshot::Resource::from));
    World::new(resources, servers).await
}

fn know(world: &World, name: &str, addresses: &[&str]) {
    world.outbound().shared.names.know(name, addresses);
}

/// A ClientHello that asks for a name.
fn hello(name: &str) -> Vec<u8> {
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_be_bytes();
    let host = [&[0][..], &length(name.as_bytes()), name.as_bytes()].concat();
    let list = [&length(&host)[..], &host].concat();
    let extension = [&[0, 0][..], &length(&list), &list].concat();
    let extensions = [&length(&extension)[..], &extension].concat();
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0],
        &[0, 2, 0x13, 1],
        &[1, 0],
        &extensions,
    ]
    .concat();
    let message = [&[1, 0][..], &length(&body), &body].concat();
    [&[22, 3, 1][..], &length(&message), &message].concat()
}

#[tokio::test]
async fn an_entry_with_dns_leads_to_where_the_name_is() {
    for resolution in [Resolution::Dns, Resolution::DnsRoundRobin] {
        let entry = entry(HOST, "240.240.0.1:80", Protocol::Http, resolution);
        let world = world(vec![entry], &[("203.0.113.7:80", Kind::Http)]).await;
        know(&world, HOST, &["203.0.113.7", "203.0.113.8", "2001:db8::7"]);
        if resolution == Resolution::Dns {
            world.serve("203.0.113.8:80", Kind::Http);
        }
        let answer = world.ask("240.240.0.1:80", Version::Http1, get(HOST, "/")).await;
        assert_eq!(answer.status, 200, "{resolution:?}");
        let event = world.event().await;
        assert_eq!(event.service.as_deref(), Some(HOST));
        assert_eq!(world.sources(), [None], "in the node's name: it is outside");
    }
}

#[tokio::test]
async fn a_name_without_an_address_is_no_endpoint_and_opens_nothing() {
    let entry = entry(HOST, "240.240.0.1:80", Protocol::Http, Resolution::Dns);
    let world = world(vec![entry], &[("240.240.0.1:80", Kind::Http)]).await;
    let answer = world.ask("240.240.0.1:80", Version::Http1, get(HOST, "/")).await;
    assert_eq!(answer.status, 503);
    assert_eq!(world.event().await.reason, Some(Reason::NoEndpoint));
    // What somebody's DNS says is no reason to ask the node, or a cloud's metadata.
    know(
        &world,
        HOST,
        &["127.0.0.1", "169.254.169.254", "::1", "168.63.129.16"],
    );
    let answer = world.ask("240.240.0.1:80", Version::Http1, get(HOST, "/")).await;
    assert_eq!(answer.status, 503);
    assert!(world.sources().is_empty());
}

#[tokio::test]
async fn a_name_that_is_a_pod_of_the_mesh_is_that_pod() {
    let entry = entry(HOST, "240.240.0.1:8080", Protocol::Http, Resolution::Dns);
    let world = world(vec![entry], &[("10.77.1.2:8080", Kind::MeshHttp("web"))]).await;
    know(&world, HOST, &["10.77.1.2"]);
    let answer = world
        .ask("240.240.0.1:8080", Version::Http1, get(HOST, "/"))
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.seen("peer"), "spiffe://cluster.local/ns/full/sa/client");
}

#[tokio::test]
async fn eg_17_a_claimed_host_is_held_to_where_it_is() {
    let entry = entry("*.example.com", "0.0.0.1:80", Protocol::Http, Resolution::None);
    let servers = [("203.0.113.7:80", Kind::Http), ("198.51.100.66:80", Kind::Http)];
    let world = world(vec![entry], &servers).await;
    know(&world, HOST, &["203.0.113.7"]);
    let ask = async |dialled, host| {
        world
            .ask(dialled, Version::Http1, get(host, "/"))
            .await
            .status
            .as_u16()
    };
    assert_eq!(ask("203.0.113.7:80", HOST).await, 200);
    assert_eq!(world.event().await.reason, None);
    for (dialled, host) in [
        ("198.51.100.66:80", HOST),
        ("203.0.113.7:80", "other.example.com"),
        ("10.77.1.2:80", HOST),
    ] {
        assert_eq!(ask(dialled, host).await, 403, "{dialled} {host}");
        let event = world.event().await;
        assert_eq!(
            (event.reason, event.decision),
            (Some(Reason::HostMismatch), Decision::Deny)
        );
    }
    assert_eq!(world.sources().len(), 1);
}

#[tokio::test]
async fn eg_17_so_is_a_name_that_tls_asks_for() {
    let entry = entry("*.example.com", "0.0.0.1:443", Protocol::Tls, Resolution::None);
    let servers = [("203.0.113.7:443", Kind::Echo), ("198.51.100.66:443", Kind::Echo)];
    let world = world(vec![entry], &servers).await;
    know(&world, HOST, &["203.0.113.7"]);
    assert_eq!(world.say("203.0.113.7:443", &hello(HOST)).await, hello(HOST));
    assert_eq!(world.event().await.sni.as_deref(), Some(HOST));
    for (dialled, bytes, reason) in [
        ("198.51.100.66:443", hello(HOST), Reason::HostMismatch),
        ("203.0.113.7:443", hello("evil.example"), Reason::EgressUnknown),
        (
            "203.0.113.7:443",
            b"no TLS at all".to_vec(),
            Reason::EgressUnknown,
        ),
    ] {
        assert!(world.say(dialled, &bytes).await.is_empty(), "{dialled}");
        assert_eq!(world.event().await.reason, Some(reason), "{dialled}");
    }
    assert_eq!(world.sources().len(), 1);
}

#[tokio::test]
async fn p_29_a_listed_address_is_no_door_to_other_names() {
    let tls = listed(HOST, "203.0.113.7:443", Protocol::Https);
    let http = listed("web.example.com", "203.0.113.7:80", Protocol::Http);
    let servers = [("203.0.113.7:443", Kind::Echo), ("203.0.113.7:80", Kind::Http)];
    let world = world(vec![tls, http], &servers).await;
    assert_eq!(world.say("203.0.113.7:443", &hello(HOST)).await, hello(HOST));
    assert_eq!(world.event().await.reason, None);
    assert!(
        world
            .say("203.0.113.7:443", &hello("evil.example"))
            .await
            .is_empty()
    );
    assert_eq!(world.event().await.reason, Some(Reason::EgressUnknown));
    let answer = world
        .ask("203.0.113.7:80", Version::Http1, get("evil.example", "/"))
        .await;
    assert_eq!(answer.status, 502);
    assert_eq!(world.event().await.reason, Some(Reason::EgressUnknown));
    let answer = world
        .ask("203.0.113.7:80", Version::Http1, get("web.example.com", "/"))
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(world.sources().len(), 2);
}

#[tokio::test]
async fn eg_07_bytes_go_to_where_a_host_of_the_entry_is() {
    let entries = vec![
        entry("one.example.com", "0.0.0.1:9000", Protocol::Tcp, Resolution::None),
        entry("two.example.com", "0.0.0.1:9000", Protocol::Tcp, Resolution::None),
    ];
    let servers = [
        ("203.0.113.7:9000", Kind::Echo),
        ("198.51.100.66:9000", Kind::Echo),
    ];
    let world = world(entries, &servers).await;
    know(&world, "one.example.com", &["192.0.2.1"]);
    know(&world, "two.example.com", &["203.0.113.7"]);
    assert_eq!(world.say("203.0.113.7:9000", b"hello").await, b"hello");
    assert_eq!(world.event().await.service.as_deref(), Some("two.example.com"));
    assert!(world.say("198.51.100.66:9000", b"hello").await.is_empty());
    assert_eq!(world.event().await.reason, Some(Reason::EgressUnknown));
}

#[tokio::test]
async fn a_host_with_a_wildcard_is_gone_to_where_it_is_wherever_the_client_dialled() {
    let entry = entry(
        "*.example.com",
        "0.0.0.1:443",
        Protocol::Tls,
        Resolution::DynamicDns,
    );
    let servers = [
        ("203.0.113.7:443", Kind::Echo),
        ("198.51.100.66:443", Kind::Closed),
    ];
    let world = world(vec![entry], &servers).await;
    know(&world, HOST, &["203.0.113.7"]);
    assert_eq!(world.say("198.51.100.66:443", &hello(HOST)).await, hello(HOST));
    let event = world.event().await;
    assert_eq!(event.upstream, Some(address("203.0.113.7:443")));
    assert!(
        world
            .say("198.51.100.66:443", &hello("evil.example"))
            .await
            .is_empty()
    );
    assert_eq!(world.event().await.reason, Some(Reason::EgressUnknown));
}

#[tokio::test]
async fn what_goes_by_its_name_stays_until_the_entry_is_gone() {
    let entry = |port| entry("*.example.com", port, Protocol::Tls, Resolution::None);
    let world = world(vec![entry("0.0.0.1:443")], &[("203.0.113.7:443", Kind::Echo)]).await;
    know(&world, HOST, &["203.0.113.7"]);
    let mut open = world.open("203.0.113.7:443");
    let hello = hello(HOST);
    open.write_all(&hello).await.unwrap();
    let mut heard = vec![0; hello.len()];
    open.read_exact(&mut heard).await.unwrap();
    world.change(mesh(Egress::RegistryOnly)).await;
    open.write_all(b"more").await.unwrap();
    open.read_exact(&mut heard[..4]).await.unwrap();
    assert_eq!(&heard[..4], b"more");
    world.change(entry("0.0.0.1:444")).await;
    assert_eq!(world.event().await.reason, Some(Reason::EgressUnknown));
}
