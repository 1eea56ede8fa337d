//! A stock Envoy, configured as Istio's control plane configures a sidecar.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::mesh::within;

use super::certificate::Certificate;
use crate::world::own;

/// The program: `MESHWARD_ENVOY`, else what `./test` installs; `None` after saying so.
pub(super) fn program() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("MESHWARD_ENVOY") {
        return Some(path.into());
    }
    let versions = fs::read_dir(own("target/envoy/lib")).into_iter().flatten();
    let found = versions
        .filter_map(|entry| Some(entry.ok()?.path().join("site-packages/envoy/_bin/envoy")))
        .find(|path| path.is_file());
    if found.is_none() {
        println!("skipped: Envoy is not installed (`./test` installs it below target)");
    }
    found
}

/// A running Envoy.
pub(super) struct Envoy {
    process: Child,
    directory: PathBuf,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Envoy {
    /// Starts one in a network namespace; returns when it says that it is ready.
    pub(super) fn start(program: &Path, netns: &str, directory: &Path, config: &Value) -> Self {
        fs::create_dir_all(directory).unwrap();
        let netns = Path::new(netns)
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap();
        let file = directory.join("envoy.json");
        fs::write(&file, config.to_string()).unwrap();
        let log = File::create(directory.join("envoy.log")).unwrap();
        let process = Command::new("ip")
            .args(["netns", "exec", netns])
            .arg(program)
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level"])
            .arg(std::env::var("MESHWARD_ENVOY_LOG").unwrap_or_else(|_| "warning".to_owned()))
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut envoy = Self {
            process,
            directory: directory.to_owned(),
        };
        within(Duration::from_secs(60), "Envoy is ready", || {
            let ended = envoy.process.try_wait().unwrap();
            assert_eq!(ended, None, "Envoy ended: {}", envoy.log());
            let asked = Command::new("ip")
                .args(["netns", "exec", netns, "curl", "-s", "--max-time", "2"])
                .arg("http://127.0.0.1:15000/ready")
                .output()
                .unwrap();
            asked.stdout.starts_with(b"LIVE")
        });
        envoy
    }

    /// What it has said.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.directory.join("envoy.log")).unwrap_or_default()
    }
}

/// What a port speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Speaks {
    Http1,
    Http2,
    Tcp,
}

/// A whole configuration.
pub(super) fn bootstrap(listeners: Vec<Value>, clusters: Vec<Value>) -> Value {
    json!({
        "node": {"id": "stranger", "cluster": "stranger"},
        "admin": {"address": address("127.0.0.1", 15000)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    })
}

pub(super) fn address(ip: &str, port: u16) -> Value {
    json!({"socket_address": {"address": ip, "port_value": port}})
}

fn typed(kind: &str, mut value: Value) -> Value {
    value["@type"] = json!(format!("type.googleapis.com/{kind}"));
    value
}

/// TLS of one end, as Istio has it: minimum 1.2, the CA's roots, and SPIFFE ids of the peer by prefix or whole.
fn common_tls(certificate: &Certificate, alpn: &[&str], peer: &Value) -> Value {
    json!({
        "alpn_protocols": alpn,
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_2",
            "tls_maximum_protocol_version": "TLSv1_3",
            "cipher_suites": [
                "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384",
                "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256",
                "AES256-GCM-SHA384", "AES128-GCM-SHA256",
            ],
        },
        "tls_certificates": [{
            "certificate_chain": {"filename": certificate.chain},
            "private_key": {"filename": certificate.key},
        }],
        "validation_context": {
            "trusted_ca": {"filename": certificate.roots},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": peer}],
        },
    })
}

/// Mutual TLS towards workloads.
pub(super) fn upstream_tls(certificate: &Certificate, alpn: &[&str], sni: &str, peer: &str) -> Value {
    let mut context = json!({"common_tls_context": common_tls(certificate, alpn, &json!({"exact": peer}))});
    if !sni.is_empty() {
        context["sni"] = json!(sni);
    }
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": typed("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", context),
    })
}

/// Mutual TLS of those who call.
pub(super) fn downstream_tls(certificate: &Certificate, alpn: &[&str]) -> Value {
    let peer = json!({"prefix": "spiffe://cluster.local/"});
    let context = json!({
        "require_client_certificate": true,
        "common_tls_context": common_tls(certificate, alpn, &peer),
    });
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": typed("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", context),
    })
}

/// A cluster of addresses.
pub(super) fn cluster(
    name: &str,
    endpoints: &[(String, u16)],
    speaks: Option<Speaks>,
    tls: Option<Value>,
) -> Value {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(ip, port)| json!({"endpoint": {"address": address(ip, *port)}}))
        .collect();
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    });
    let protocol = match speaks {
        Some(Speaks::Tcp) => None,
        Some(Speaks::Http1) => Some(json!({"explicit_http_config": {"http_protocol_options": {}}})),
        Some(Speaks::Http2) => Some(json!({"explicit_http_config": {"http2_protocol_options": {}}})),
        None => Some(
            json!({"use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}}}),
        ),
    };
    if let Some(protocol) = protocol {
        let kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        cluster["typed_extension_protocol_options"] = json!({kind: typed(kind, protocol)});
    }
    if let Some(tls) = tls {
        cluster["transport_socket"] = tls;
    }
    cluster
}

/// The filter that carries bytes.
pub(super) fn tcp_proxy(cluster: &str, tunnel: Option<&str>) -> Value {
    let mut proxy = json!({"stat_prefix": cluster, "cluster": cluster});
    if let Some(authority) = tunnel {
        proxy["tunneling_config"] = json!({"hostname": authority});
    }
    json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": typed("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", proxy),
    })
}

/// Only the identity may call.
fn rules(allowed: &str) -> Value {
    json!({"action": "ALLOW", "policies": {"one": {
        "permissions": [{"any": true}],
        "principals": [{"authenticated": {"principal_name": {"exact": allowed}}}],
    }}})
}

/// What decides and routes requests.
pub(super) fn http_filters(allowed: Option<&str>) -> Value {
    let mut filters = Vec::new();
    if let Some(allowed) = allowed {
        filters.push(json!({
            "name": "envoy.filters.http.rbac",
            "typed_config": typed("envoy.extensions.filters.http.rbac.v3.RBAC", json!({"rules": rules(allowed)})),
        }));
    }
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": typed("envoy.extensions.filters.http.router.v3.Router", json!({})),
    }));
    json!(filters)
}

/// The filter that reads HTTP; `allowed` is the one identity that may call.
pub(super) fn http(cluster: &str, inbound: bool, allowed: Option<&str>) -> Value {
    let mut manager = json!({
        "stat_prefix": cluster,
        "codec_type": "AUTO",
        "forward_client_cert_details": if inbound { "APPEND_FORWARD" } else { "SANITIZE" },
        "route_config": {"virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}}],
        }]},
        "http_filters": http_filters(allowed),
    });
    if inbound {
        manager["set_current_client_cert_details"] = json!({"subject": true, "dns": true, "uri": true});
    }
    manager_filter(manager)
}

pub(super) fn manager_filter(manager: Value) -> Value {
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": typed(
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            manager,
        ),
    })
}

/// What an application of the same pod dials.
pub(super) fn outbound(port: u16, filter: Value) -> Value {
    json!({
        "name": format!("outbound-{port}"),
        "address": address("127.0.0.1", port),
        "filter_chains": [{"filters": [filter]}],
    })
}

const ISTIO_HTTP: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];
const ISTIO_TCP: [&str; 2] = ["istio-peer-exchange", "istio"];

/// A port of the pod, with the filter chains of semantics 1.3: `strict`, or permissive.
pub(super) fn inbound(
    port: u16,
    speaks: Speaks,
    strict: bool,
    allowed: Option<&str>,
    certificate: &Certificate,
) -> Value {
    let cluster = format!("inbound-{port}");
    let filters = |allowed: Option<&str>| match speaks {
        Speaks::Tcp => {
            let mut filters = Vec::new();
            if let Some(allowed) = allowed {
                let kind = "envoy.extensions.filters.network.rbac.v3.RBAC";
                let rbac = json!({"stat_prefix": "tcp.", "rules": rules(allowed)});
                filters
                    .push(json!({"name": "envoy.filters.network.rbac", "typed_config": typed(kind, rbac)}));
            }
            filters.push(tcp_proxy(&cluster, None));
            json!(filters)
        }
        _ => json!([http(&cluster, true, allowed)]),
    };
    // Istio's has `istio-peer-exchange` in front on TCP ports, for a filter that a stock Envoy has not.
    let alpn = ["h2", "http/1.1"];
    let mut matched = json!({"transport_protocol": "tls"});
    if !strict {
        let all: Vec<_> = ISTIO_HTTP.iter().chain(&ISTIO_TCP).collect();
        matched["application_protocols"] = json!(all);
    }
    let mut chains = vec![json!({
        "filter_chain_match": matched,
        "transport_socket": downstream_tls(certificate, &alpn),
        "filters": filters(allowed),
    })];
    if !strict {
        chains.push(json!({
            "filter_chain_match": {"transport_protocol": "raw_buffer"},
            "filters": filters(None),
        }));
    }
    json!({
        "name": cluster,
        "address": {"socket_address": {"address": "::", "ipv4_compat": true, "port_value": port}},
        "listener_filters": [{
            "name": "envoy.filters.listener.tls_inspector",
            "typed_config": typed("envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector", json!({})),
        }],
        "listener_filters_timeout": "0s",
        "filter_chains": chains,
    })
}
