//! MeshConfig, its `defaultConfig`, and MeshNetworks: what Istio checks once its defaults lie below.
//!
//! A field that is absent has its default, which is fine; one that is written empty is not.

use std::collections::HashSet;

use super::at::At;
use super::{providers, tls, traffic};
use crate::forms::{Verdict, addresses, certificates, durations, hosts, names};
use crate::report::Report;
use crate::yaml::Node;

const SECOND: i128 = 1_000_000_000;
const CURVES: &[&str] = &[
    "P-224",
    "P-256",
    "P-521",
    "P-384",
    "X25519",
    "X25519Kyber768Draft00",
    "X25519MLKEM768",
];
const OF_A_DURATION: &str = "write for example `10s`";
const OF_AN_ADDRESS: &str = "write HOST:PORT";

pub(crate) fn config(root: &Node, path: &str, report: &mut Report<'_>) {
    let at = At::new(root, path);
    at.demand_port(report, "proxyListenPort");
    timeouts(&at, report);
    if let Some(setting) = at.get("localityLbSetting") {
        traffic::locality(&setting, true, report);
    }
    if let Some(setting) = at.get("zoneAwareLbSetting") {
        traffic::zones(&setting, true, report);
    }
    for settings in at.list("serviceSettings") {
        for host in settings.list("hosts") {
            host.demand(
                report,
                hosts::wildcard(host.own()),
                "write a full name, or one as `*.ns.svc.cluster.local`",
            );
        }
    }
    let of_a_domain = "use letters, digits, `-` and `.`, as `cluster.local`";
    if let Some(domain) = at.get("trustDomain") {
        domain.demand(report, hosts::trust_domain(domain.own()), of_a_domain);
    }
    for alias in at.list("trustDomainAliases") {
        alias.demand(report, hosts::trust_domain(alias.own()), of_a_domain);
    }
    roots(&at, report);
    curves(&at, report);
    providers::providers(&at, report);
    if let Some(policy) = at.get("defaultTrafficPolicy") {
        if let Some(pool) = policy.get("connectionPool") {
            traffic::pool(&pool, report);
        }
        if let Some(outliers) = policy.get("outlierDetection") {
            traffic::outliers(&outliers, report);
        }
    }
    if let Some(retries) = at.get("defaultInboundHttpRetryPolicy") {
        inbound_retries(&retries, report);
    }
    if let Some(mode) = at
        .get("outboundTrafficPolicy")
        .and_then(|policy| policy.get("mode"))
        && mode.own() == "ALLOW_ANY_DYNAMIC_DNS"
    {
        mode.warn(
            report,
            "the mode is not acted on: `REGISTRY_ONLY` is in force in its place",
            "write `REGISTRY_ONLY`, and a ServiceEntry for what is called outside",
        );
    }
    for (parent, key) in [("outboundTrafficPolicy", "tls"), ("ca", "tlsSettings")] {
        if let Some(settings) = at.get(parent).and_then(|parent| parent.get(key)) {
            tls::client(&settings, "", report);
        }
    }
    if let Some(proxy) = at.get("defaultConfig") {
        self::proxy(&proxy, report);
    }
}

fn timeouts(at: &At<'_>, report: &mut Report<'_>) {
    if let Some(timeout) = at.get("connectTimeout") {
        let verdict = durations::whole_ms(timeout.own()).and_then(|()| {
            let ns = durations::any(timeout.own())?;
            if ns > 3600 * SECOND {
                return Err(format!("`{}` is more than an hour", timeout.own()));
            }
            Ok(())
        });
        timeout.demand(report, verdict, OF_A_DURATION);
    }
    if let Some(timeout) = at.get("protocolDetectionTimeout") {
        let verdict = durations::not_negative(timeout.own()).and_then(|()| {
            let ns = durations::any(timeout.own())?;
            if ns % 1_000_000 != 0 {
                return Err(format!("`{}` is finer than milliseconds", timeout.own()));
            }
            Ok(())
        });
        timeout.demand(report, verdict, "write for example `5s`, or `0s` for no bound");
    }
}

/// `caCertificates`: what holds no roots must not look as if it did.
fn roots(at: &At<'_>, report: &mut Report<'_>) {
    for entry in at.list("caCertificates") {
        let (pem, url) = (entry.text("pem"), entry.text("spiffeBundleUrl"));
        if pem.is_empty() && url.is_empty() {
            entry.refuse(
                report,
                "it holds no roots",
                "add them under `pem`, or say where they are under `spiffeBundleUrl`",
            );
        }
        if let Some(at) = entry.get("pem").filter(|_| !pem.is_empty())
            && let Err(why) = certificates::roots(pem)
        {
            let remedy = "write each root whole, from `-----BEGIN CERTIFICATE-----` to its `END`";
            at.refuse_secret(report, &why, remedy);
        }
        if let Some(at) = entry.get("spiffeBundleUrl").filter(|_| !url.is_empty()) {
            let host = url
                .strip_prefix("https://")
                .map(|rest| rest.split('/').next().unwrap_or_default());
            if host.is_none_or(str::is_empty) {
                at.refuse(report, "it is not fetched by https", "write `https://HOST/PATH`");
            }
            if entry.count("trustDomains") == 0 {
                at.warn(
                    report,
                    "whoever answers there vouches for this mesh's own workloads",
                    "name under `trustDomains` whose roots they are",
                );
            }
        }
        if entry.count("certSigners") > 0 {
            entry.near("certSigners").warn(
                report,
                "signers of Kubernetes sign nothing here; the roots count for all of their trust domains",
                "leave it out",
            );
        }
        for domain in entry.list("trustDomains") {
            let verdict = hosts::trust_domain(domain.own());
            domain.demand(
                report,
                verdict,
                "use letters, digits, `-` and `.`, as `cluster.local`",
            );
        }
    }
}

fn curves(at: &At<'_>, report: &mut Report<'_>) {
    let mutual = at.get("meshMTLS").and_then(|tls| tls.get("ecdhCurves"));
    if let Some(curves) = mutual.filter(|curves| !curves.node.is_empty_list()) {
        curves.refuse(
            report,
            "the mesh's own TLS does not let curves be chosen",
            "leave it out, or write it under `tlsDefaults`",
        );
    }
    let Some(defaults) = at.get("tlsDefaults") else {
        return;
    };
    let mut seen = HashSet::new();
    for curve in defaults.list("ecdhCurves") {
        let name = curve.own();
        if !name.is_empty() && !CURVES.contains(&name) {
            curve.warn(
                report,
                &format!("the curve `{name}` is not known"),
                &format!("write one of {}", CURVES.join(", ")),
            );
        } else if !seen.insert(name) {
            curve.warn(report, "the curve is named twice", "take one out");
        }
    }
}

fn inbound_retries(retries: &At<'_>, report: &mut Report<'_>) {
    traffic::retries(retries, report);
    if retries.whole("attempts").unwrap_or(0) == 0 && retries.has("backoff") {
        retries.near("backoff").refuse(
            report,
            "without `attempts` nothing is tried again",
            "add `attempts:`, or leave it out",
        );
    }
    for key in [
        "perTryTimeout",
        "retryRemoteLocalities",
        "retryIgnorePreviousHosts",
    ] {
        if let Some(at) = retries.get(key) {
            at.warn(
                report,
                "it has no meaning for requests that arrive",
                "leave it out",
            );
        }
    }
}

/// A ProxyConfig that stands by itself, in an annotation.
pub(crate) fn proxy_config(root: &Node, path: &str, report: &mut Report<'_>) {
    proxy(&At::new(root, path), report);
}

/// `defaultConfig`.
fn proxy(proxy: &At<'_>, report: &mut Report<'_>) {
    for key in ["configPath", "binaryPath", "serviceCluster"] {
        if let Some(at) = proxy.get(key).filter(|at| at.own().is_empty()) {
            at.refuse(report, "it is empty", "give it a text, or leave it out");
        }
    }
    for key in ["proxyAdminPort", "statusPort"] {
        proxy.demand_port(report, key);
    }
    if let Some(drain) = proxy.get("drainDuration") {
        let verdict = durations::whole_ms(drain.own()).and_then(|()| {
            let ns = durations::any(drain.own())?;
            if ns % SECOND != 0 {
                return Err(format!("`{}` is finer than seconds", drain.own()));
            }
            Ok(())
        });
        drain.demand(report, verdict, OF_A_DURATION);
    }
    if let Some(policy) = proxy
        .get("controlPlaneAuthPolicy")
        .filter(|policy| policy.own() == "INHERIT")
    {
        policy.refuse(
            report,
            "there is nothing to inherit it from",
            "write `MUTUAL_TLS` or `NONE`",
        );
    }
    if let Some(address) = proxy.get("discoveryAddress") {
        address.demand(report, addresses::host_and_port(address.own()), OF_AN_ADDRESS);
    }
    for key in ["statsdUdpAddress", "envoyMetricsServiceAddress"] {
        proxy.demand_text(report, key, addresses::host_and_port, OF_AN_ADDRESS);
    }
    for key in ["envoyMetricsService", "envoyAccessLogService"] {
        if let Some(service) = proxy.get(key) {
            service.demand_text(report, "address", addresses::host_and_port, OF_AN_ADDRESS);
        }
    }
    if let Some((key, at)) = proxy
        .map("proxyMetadata")
        .find(|(key, _)| key.text == "ISTIO_META_DNS_AUTO_ALLOCATE")
    {
        at.warn(
            report,
            &format!("`{}` is deprecated", key.text),
            "leave it out: addresses are given to ServiceEntries by the control plane",
        );
    }
    if let Some(tracing) = proxy.get("tracing") {
        self::tracing(&tracing, report);
    }
    if let Some(provider) = proxy.get("privateKeyProvider") {
        key_provider(&provider, report);
    }
    if let Some(settings) = proxy.get("connectionSettings") {
        connection_settings(&settings, report);
    }
}

fn tracing(tracing: &At<'_>, report: &mut Report<'_>) {
    // The node's own address is filled in where a proxy starts.
    let local: fn(&str) -> Verdict =
        |text| addresses::host_and_port(&text.replacen("$(HOST_IP)", "127.0.0.1", 1));
    for (key, verdict) in [
        ("zipkin", local),
        ("datadog", local),
        ("lightstep", addresses::host_and_port),
    ] {
        if let Some(tracer) = tracing.get(key) {
            tracer
                .near("address")
                .demand(report, verdict(tracer.text("address")), OF_AN_ADDRESS);
        }
    }
    if let Some(lightstep) = tracing.get("lightstep")
        && lightstep.text("accessToken").is_empty()
    {
        lightstep.refuse(report, "it has no `accessToken`", "add it");
    }
    if let Some(settings) = tracing.get("tlsSettings") {
        tls::client(&settings, "", report);
    }
    for (_, tag) in tracing.map("customTags").filter(|(_, tag)| tag.node.is_null()) {
        tag.refuse(report, "the tag has no value", "say where its value comes from");
    }
}

fn key_provider(provider: &At<'_>, report: &mut Report<'_>) {
    let kinds = ["cryptomb", "qat"];
    let Some(kind) = kinds.iter().find_map(|kind| provider.get(kind)) else {
        return provider.refuse(
            report,
            "it names no provider",
            "add `cryptomb:` or `qat:`, or leave it out",
        );
    };
    if durations::nanoseconds(kind.text("pollDelay")).is_none_or(|ns| ns == 0) {
        kind.near("pollDelay").refuse(
            report,
            "it needs a `pollDelay` above zero",
            "write for example `pollDelay: 10ms`",
        );
    }
}

fn connection_settings(settings: &At<'_>, report: &mut Report<'_>) {
    for key in [
        "httpIdleTimeout",
        "httpMaxConnectionDuration",
        "httpDrainTimeout",
        "httpRequestTimeout",
        "httpRequestHeadersTimeout",
        "httpStreamIdleTimeout",
        "httpMaxStreamDuration",
    ] {
        settings.demand_text(report, key, durations::not_negative, OF_A_DURATION);
    }
    let least = [
        ("listenerPerConnectionBufferLimitBytes", 0),
        ("clusterPerConnectionBufferLimitBytes", 0),
        ("httpMaxConcurrentStreams", 1),
        ("http2InitialStreamWindowSize", 65_535),
        ("http2InitialConnectionWindowSize", 65_535),
        ("listenerConnectionLimit", 1),
        ("globalDownstreamConnectionLimit", 1),
    ];
    for (key, least) in least {
        if settings.whole(key).is_some_and(|value| value < least) {
            settings.near(key).refuse(
                report,
                &format!("it is below {least}"),
                &format!("write {least} or more, or leave it out"),
            );
        }
    }
}

/// MeshNetworks, beside the mesh's configuration.
pub(crate) fn networks(root: &Node, path: &str, report: &mut Report<'_>) {
    for (_, network) in At::new(root, path).map("networks") {
        for endpoint in network.list("endpoints") {
            endpoint.demand_text(
                report,
                "fromCidr",
                addresses::block,
                "write for example 10.0.0.0/8",
            );
            if let Some(registry) = endpoint.get("fromRegistry")
                && !names::is_dns_label(registry.own())
            {
                registry.refuse(
                    report,
                    &format!("`{}` cannot name a registry", registry.own()),
                    "use up to 63 letters, digits and `-`",
                );
            }
        }
        for gateway in network.list("gateways") {
            if let Some(name) = gateway.get("registryServiceName") {
                name.demand(report, hosts::full(name.own()), "write a full name");
            }
            if let Some(address) = gateway.get("address")
                && !addresses::is_ip(address.own())
            {
                address.demand(
                    report,
                    hosts::full(address.own()),
                    "write an address or a full name",
                );
            }
            if gateway.has("port") {
                gateway.demand_port(report, "port");
            } else {
                gateway.refuse(report, "it has no `port`", "add the number of a port");
            }
        }
    }
}
