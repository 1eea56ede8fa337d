//! Fields of Istio's kinds, one file a group (istio.io/api: the schemas of its CRDs, and `mesh/v1alpha1`).

mod common;
mod entries;
mod extensions;
mod gateways;
mod mesh;
mod operator;
mod providers;
mod proxy;
mod routes;
mod security;
mod telemetry;
mod traffic;

use super::Field;
pub(super) use mesh::{MESH_CONFIG, MESH_NETWORKS};
pub(super) use proxy::PROXY_CONFIG;

/// The fields of a kind besides `apiVersion`, `kind` and `metadata`.
pub(super) fn of(group: &str, kind: &str) -> Option<&'static [Field]> {
    match (group, kind) {
        ("security.istio.io", "PeerAuthentication") => Some(security::PEER_AUTHENTICATION),
        ("security.istio.io", "AuthorizationPolicy") => Some(security::AUTHORIZATION_POLICY),
        ("security.istio.io", "RequestAuthentication") => Some(security::REQUEST_AUTHENTICATION),
        ("meshward.dev", "Guardrail") => Some(security::GUARDRAIL),
        ("networking.istio.io", "DestinationRule") => Some(traffic::DESTINATION_RULE),
        ("networking.istio.io", "VirtualService") => Some(routes::VIRTUAL_SERVICE),
        ("networking.istio.io", "Gateway") => Some(gateways::GATEWAY),
        ("networking.istio.io", "Sidecar") => Some(gateways::SIDECAR),
        ("networking.istio.io", "ServiceEntry") => Some(entries::SERVICE_ENTRY),
        ("networking.istio.io", "WorkloadEntry") => Some(entries::WORKLOAD_ENTRY),
        ("networking.istio.io", "WorkloadGroup") => Some(entries::WORKLOAD_GROUP),
        ("networking.istio.io", "EnvoyFilter") => Some(extensions::ENVOY_FILTER),
        ("networking.istio.io", "ProxyConfig") => Some(telemetry::PROXY_CONFIG),
        ("extensions.istio.io", "WasmPlugin") => Some(extensions::WASM_PLUGIN),
        ("extensions.istio.io", "TrafficExtension") => Some(extensions::TRAFFIC_EXTENSION),
        ("install.istio.io", "IstioOperator") => Some(operator::ISTIO_OPERATOR),
        ("telemetry.istio.io", "Telemetry") => Some(telemetry::TELEMETRY),
        _ => None,
    }
}
