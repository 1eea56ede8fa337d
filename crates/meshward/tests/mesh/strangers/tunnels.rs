//! HBONE with a stock Envoy at the other end, both ways (MT-26, MT-27, semantics 1.8).

use serde_json::{Value, json};

use super::certificate::Certificate;
use super::envoy::{self, Envoy, Speaks};
use super::{CLIENT, How, SERVER, SIDECAR, World, only, peer_authentication, streaming, word};
use crate::world::compare;

pub(super) const AMBIENT: &str = "spiffe://cluster.local/ns/legacy/sa/ambient";
const PORTS: [u16; 6] = [8000, 8070, 7000, 9000, 8100, 8300];

/// Where an application of the stranger's dials, and the port of the server that the tunnel leads to.
pub(super) const TUNNELS: &[(u16, u16)] = &[
    (38000, 8000),
    (38070, 8070),
    (37000, 7000),
    (39000, 9000),
    (38100, 8100),
    (38101, 8101),
    (38200, 8200),
    (38201, 8201),
    (38300, 8300),
];

impl World {
    /// Starts an Envoy that speaks HBONE before the pod `ambient`: its port 15008, and tunnels to the first server of `m`.
    fn ambient(&self, certificate: &Certificate, allowed: Option<&str>) -> Envoy {
        let pod = self.pod("legacy", "ambient");
        let addresses = ["ip", "ip6"].map(|key| pod[key].as_str().unwrap().to_owned());
        let mut listeners = vec![server(&addresses, certificate, allowed)];
        let mut clusters = Vec::new();
        for port in PORTS {
            let own = [("127.0.0.1".to_owned(), port)];
            clusters.push(envoy::cluster(
                &format!("app-{port}"),
                &own,
                Some(Speaks::Tcp),
                None,
            ));
        }
        let ip = self.ips("m", "server").swap_remove(0);
        let tls = envoy::upstream_tls(certificate, &["h2"], "", SERVER);
        let to = [(ip.clone(), 15008)];
        clusters.push(envoy::cluster("hbone", &to, Some(Speaks::Http2), Some(tls)));
        for (local, port) in TUNNELS {
            let filter = envoy::tcp_proxy("hbone", Some(&format!("{ip}:{port}")));
            listeners.push(envoy::outbound(*local, filter));
        }
        // A tunnel to somewhere else than to whom it is asked of.
        let elsewhere = envoy::tcp_proxy("hbone", Some("127.0.0.1:7000"));
        listeners.push(envoy::outbound(37001, elsewhere));
        let config = envoy::bootstrap(listeners, clusters);
        let directory = self.directory.path().join("ambient");
        Envoy::start(&self.envoy, pod["netns"].as_str().unwrap(), &directory, &config)
    }
}

/// Port 15008: each authority that is an address of the pod leads to the application.
fn server(addresses: &[String; 2], certificate: &Certificate, allowed: Option<&str>) -> Value {
    let hosts = PORTS.map(|port| {
        let [v4, v6] = addresses;
        json!({
            "name": format!("to-{port}"),
            "domains": [format!("{v4}:{port}"), format!("[{v6}]:{port}")],
            "routes": [{"match": {"connect_matcher": {}}, "route": {
                "cluster": format!("app-{port}"),
                "timeout": "0s",
                "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
            }}],
        })
    });
    let told = "tunnel %REQ(:METHOD)% %REQ(:AUTHORITY)% %DOWNSTREAM_PEER_URI_SAN% %REQ(FORWARDED)% %REQ(BAGGAGE)% %RESPONSE_CODE%\n";
    let log = json!({
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
        "log_format": {"text_format_source": {"inline_string": told}},
    });
    let mut manager = json!({
        "stat_prefix": "hbone",
        "codec_type": "HTTP2",
        "http2_protocol_options": {"allow_connect": true},
        "upgrade_configs": [{"upgrade_type": "CONNECT"}],
        "route_config": {"virtual_hosts": hosts},
        "access_log": [{"name": "envoy.access_loggers.stdout", "typed_config": log}],
    });
    manager["http_filters"] = envoy::http_filters(allowed);
    json!({
        "name": "hbone",
        "address": {"socket_address": {"address": "::", "ipv4_compat": true, "port_value": 15008}},
        "filter_chains": [{
            "transport_socket": envoy::downstream_tls(certificate, &["h2"]),
            "filters": [envoy::manager_filter(manager)],
        }],
    })
}

/// Calls of an application behind a stranger's HBONE.
pub(super) const IN: &[(&str, How, &str, &str)] = &[
    ("HTTP/1.1", How::Curl(&["http://127.0.0.1:38000/"]), "200", "403"),
    (
        "HTTP/2",
        How::Curl(&["--http2-prior-knowledge", "http://127.0.0.1:38000/"]),
        "200",
        "403",
    ),
    (
        "gRPC",
        How::Probe(&["grpc", "--addr", "127.0.0.1:38070"]),
        "OK",
        "PermissionDenied",
    ),
    (
        "undeclared protocol, HTTP",
        How::Curl(&["http://127.0.0.1:38100/"]),
        "200",
        "403",
    ),
    (
        "undeclared port, HTTP",
        How::Curl(&["http://127.0.0.1:38200/"]),
        "200",
        "403",
    ),
    (
        "TCP",
        How::Probe(&["tcp", "--addr", "127.0.0.1:37000"]),
        "echoed",
        "closed",
    ),
    (
        "undeclared protocol, TCP",
        How::Probe(&["tcp", "--addr", "127.0.0.1:38101"]),
        "echoed",
        "closed",
    ),
    (
        "undeclared port, TCP",
        How::Probe(&["tcp", "--addr", "127.0.0.1:38201"]),
        "echoed",
        "closed",
    ),
    (
        "TCP, the server speaks first",
        How::Probe(&["tcp", "--addr", "127.0.0.1:39000", "--read-first"]),
        "echoed",
        "closed",
    ),
    (
        "to another place",
        How::Probe(&["tcp", "--addr", "127.0.0.1:37001"]),
        "closed",
        "closed",
    ),
];

/// Calls of our client's to the Service behind HBONE.
pub(super) const OUT: &[(&str, How, &str, &str)] = &[
    (
        "HTTP/1.1",
        How::Curl(&["http://ambient.legacy:8000/"]),
        "200",
        "503",
    ),
    (
        "HTTP/2",
        How::Curl(&["--http2-prior-knowledge", "http://ambient.legacy:8000/"]),
        "200",
        "503",
    ),
    (
        "gRPC",
        How::Probe(&["grpc", "--addr", "ambient.legacy:8070"]),
        "OK",
        "Unavailable",
    ),
    (
        "undeclared protocol",
        How::Curl(&["http://ambient.legacy:8100/"]),
        "200",
        "503",
    ),
    (
        "TCP",
        How::Probe(&["tcp", "--addr", "ambient.legacy:7000"]),
        "echoed",
        "closed",
    ),
    (
        "TCP, the server speaks first",
        How::Probe(&["tcp", "--addr", "ambient.legacy:9000", "--read-first"]),
        "echoed",
        "closed",
    ),
];

#[test]
fn hbone_of_a_stranger_reaches_our_workloads() {
    let Some(world) = World::start("hbone-in") else {
        return;
    };
    let certificate = world.certificate("ambient");
    let _envoy = world.ambient(&certificate, None);
    let _streams = world.streams();
    let mut rows = Vec::new();
    for mode in ["DISABLE", "PERMISSIVE", "STRICT"] {
        world.mesh.apply(&peer_authentication(mode));
        for (principal, admitted) in [
            ("cluster.local/ns/legacy/sa/ambient", true),
            ("cluster.local/ns/m/sa/client", false),
        ] {
            world.mesh.apply(&only(principal));
            for (id, how, yes, no) in IN {
                let wanted = if admitted { yes } else { no };
                let got = word(world.call("legacy", "ambient", *how));
                rows.push((format!("{mode}, {principal}: {id}"), (*wanted).to_owned(), got));
            }
            let wanted = if admitted { "streamed" } else { "grpc-status 7" };
            let got = streaming::call(&world.pod("legacy", "ambient"), ([127, 0, 0, 1], 38300).into());
            rows.push((
                format!("{mode}, {principal}: gRPC, streaming"),
                wanted.to_owned(),
                got,
            ));
        }
    }
    compare(rows);
    // The application is told who calls, by us.
    world.mesh.apply(&only("cluster.local/ns/legacy/sa/ambient"));
    let forged = "X-Forwarded-Client-Cert: URI=spiffe://cluster.local/ns/m/sa/forged";
    let said = world
        .mesh
        .curl("legacy", "ambient", &["-H", forged, "http://127.0.0.1:38000/"]);
    assert!(said.body.contains(&format!("URI={AMBIENT}")), "{said:?}");
    assert!(
        !said.body.contains("forged") || said.body.contains(&format!(",By={SERVER}")),
        "{said:?}"
    );
    let log = world.mesh.access_log();
    let line = log
        .iter()
        .rfind(|l| l["reporter"] == "destination" && l["wire"] == "hbone" && l["decision"] == "allow");
    let line = line.unwrap_or_else(|| panic!("{:#?}", log.last()));
    assert_eq!(line["source"]["principal"], AMBIENT, "{line:#}");
}

#[test]
fn our_workloads_reach_a_stranger_by_hbone() {
    let Some(world) = World::start("hbone-out") else {
        return;
    };
    let certificate = world.certificate("ambient");
    for (allowed, admitted) in [(Some(CLIENT), true), (Some(SIDECAR), false)] {
        let envoy = world.ambient(&certificate, allowed);
        let mut rows = Vec::new();
        for (id, how, yes, no) in OUT {
            let wanted = if admitted { yes } else { no };
            let got = word(world.call("m", "client", *how));
            rows.push((format!("{allowed:?}: {id}"), (*wanted).to_owned(), got));
        }
        let stranger = world.pod("legacy", "ambient");
        let _streams = streaming::serve(&stranger, 8300);
        let to = format!("{}:8300", stranger["ip"].as_str().unwrap());
        let got = streaming::call(&world.pod("m", "client"), to.parse().unwrap());
        let wanted = if admitted { "streamed" } else { "grpc-status 14" };
        rows.push((format!("{allowed:?}: gRPC, streaming"), wanted.to_owned(), got));
        let log = envoy.log();
        compare(rows);
        let tunnels: Vec<_> = log.lines().filter(|l| l.starts_with("tunnel CONNECT")).collect();
        assert!(!tunnels.is_empty(), "{log}");
        for line in tunnels {
            assert!(line.contains(CLIENT) && line.contains("for="), "{line}");
            assert!(line.contains("k8s.namespace.name=m"), "{line}");
        }
    }
    // Whoever answers must be who is meant.
    let other = super::issue(
        &world.mesh,
        &world.pod("m", "other"),
        &world.directory.path().join("other"),
    );
    let _envoy = world.ambient(&other, None);
    let said = world.mesh.curl("m", "client", &["http://ambient.legacy:8000/"]);
    assert_eq!(said.code, 503, "{said:?}");
    let log = world.mesh.access_log();
    let refused = log
        .iter()
        .rfind(|l| l["reporter"] == "source" && l["reason"] == "PEER_IDENTITY");
    let refused = refused.unwrap_or_else(|| panic!("{:#?}", log.last()));
    assert!(refused.to_string().contains("unexpected identity"), "{refused:#}");
}
