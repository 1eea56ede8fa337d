//! TLS settings: of clients (DestinationRule, MeshConfig) and of servers (Gateway, Sidecar).

use std::collections::HashSet;

use super::at::At;
use crate::report::Report;

const CONFIG_MAP: &str = "configmap://";
/// The suites that BoringSSL has, by OpenSSL's names.
const SUITES: &[&str] = &[
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
];

/// `tls` of a client. The namespace is that of the object; empty where it has none.
pub(super) fn client(tls: &At<'_>, namespace: &str, report: &mut Report<'_>) {
    let set = |key: &str| !tls.text(key).is_empty();
    if let Some(name) = tls.text("credentialName").strip_prefix(CONFIG_MAP) {
        let (given, rest) = name.split_once('/').unwrap_or(("", ""));
        if given != namespace || given.is_empty() || rest.split('/').next().unwrap_or_default().is_empty() {
            tls.near("credentialName").refuse(
                report,
                "a ConfigMap is named with the namespace of this object",
                "write `configmap://NAMESPACE/NAME`",
            );
        }
    }
    let mode = tls.text("mode");
    let unverified = tls.flag("insecureSkipVerify");
    let trusted = set("caCertificates")
        || tls.count("subjectAltNames") > 0
        || mode == "SIMPLE" && set("credentialName");
    if unverified && trusted && matches!(mode, "SIMPLE" | "MUTUAL") {
        tls.near("insecureSkipVerify").refuse(
            report,
            "the server is not verified, and yet there is what it would be verified by",
            "leave `insecureSkipVerify` out",
        );
    }
    if matches!(mode, "SIMPLE" | "MUTUAL") && set("credentialName") {
        let beside = ["clientCertificate", "caCertificates", "privateKey", "caCrl"];
        if let Some(key) = beside.into_iter().find(|key| set(key)) {
            tls.near(key).refuse(
                report,
                "with `credentialName` the certificates come from there",
                "keep `credentialName` or the files",
            );
        }
        return;
    }
    if mode == "MUTUAL" {
        for key in ["clientCertificate", "privateKey"] {
            if !set(key) {
                tls.refuse(
                    report,
                    &format!("MUTUAL needs `{key}`"),
                    "name the file, or a Secret by `credentialName`",
                );
            }
        }
    }
}

/// `tls` of a server.
pub(super) fn server(tls: &At<'_>, report: &mut Report<'_>) {
    suites(tls, report);
    let old = matches!(tls.text("minProtocolVersion"), "TLSV1_0" | "TLSV1_1");
    if old && tls.count("cipherSuites") == 0 {
        tls.near("minProtocolVersion").warn(
            report,
            "no suite that is on by default works with TLS below 1.2",
            "write `TLSV1_2`, or name the suites under `cipherSuites`",
        );
    }
    let mode = tls.text("mode");
    if mode == "ISTIO_MUTUAL" {
        for key in CERTIFICATES.iter().filter(|key| is_set(tls, key)) {
            tls.near(key).refuse(
                report,
                "ISTIO_MUTUAL uses the mesh's certificates",
                "leave it out, or write `mode: MUTUAL`",
            );
        }
        return;
    }
    if matches!(mode, "" | "PASSTHROUGH" | "AUTO_PASSTHROUGH") {
        let all = CERTIFICATES.iter().chain(&["caCrl"]);
        if let Some(key) = all.copied().find(|key| is_set(tls, key)) {
            tls.near(key).warn(
                report,
                "PASSTHROUGH ends no TLS: the certificates are ignored",
                "leave them out, or write `mode: SIMPLE`",
            );
        }
    }
    sources(tls, report);
    let ends = matches!(mode, "SIMPLE" | "MUTUAL" | "OPTIONAL_MUTUAL");
    if ends && (is_set(tls, "credentialName") || is_set(tls, "credentialNames")) {
        return;
    }
    if ends {
        certificates(tls, mode, report);
    }
    if is_set(tls, "caCrl") && mode == "SIMPLE" {
        tls.near("caCrl").refuse(
            report,
            "SIMPLE asks clients for no certificate that could be revoked",
            "leave it out, or write `mode: MUTUAL`",
        );
    } else if is_set(tls, "caCrl") && is_set(tls, "credentialName") {
        tls.near("caCrl").refuse(
            report,
            "with `credentialName` the list comes from there",
            "put it into the Secret",
        );
    }
}

const CERTIFICATES: &[&str] = &[
    "serverCertificate",
    "privateKey",
    "caCertificates",
    "tlsCertificates",
    "credentialName",
    "credentialNames",
];

fn is_set(tls: &At<'_>, key: &str) -> bool {
    !tls.text(key).is_empty() || tls.count(key) > 0
}

fn sources(tls: &At<'_>, report: &mut Report<'_>) {
    let files = is_set(tls, "serverCertificate") && is_set(tls, "privateKey");
    let others = ["credentialName", "credentialNames", "tlsCertificates"];
    let mut there: Vec<_> = others.into_iter().filter(|key| is_set(tls, key)).collect();
    if files {
        there.insert(0, "serverCertificate");
    }
    if let [first, .., last] = there.as_slice() {
        tls.near(last).refuse(
            report,
            &format!("the certificate comes from `{first}` already"),
            "name one source of certificates",
        );
    }
}

fn certificates(tls: &At<'_>, mode: &str, report: &mut Report<'_>) {
    if mode != "SIMPLE" && !is_set(tls, "caCertificates") {
        tls.refuse(
            report,
            &format!("{mode} needs `caCertificates` to verify clients by"),
            "name the file, or a Secret by `credentialName`",
        );
    }
    let listed: Vec<_> = tls.list("tlsCertificates").collect();
    let all = if listed.is_empty() {
        vec![tls.clone()]
    } else {
        listed
    };
    for pair in all {
        for key in ["serverCertificate", "privateKey"] {
            if pair.text(key).is_empty() {
                pair.refuse(
                    report,
                    &format!("{mode} needs `{key}`"),
                    "name the file, or a Secret by `credentialName`",
                );
            }
        }
    }
}

fn suites(tls: &At<'_>, report: &mut Report<'_>) {
    let mut seen = HashSet::new();
    for suite in tls.list("cipherSuites") {
        let name = suite.own();
        // `-SUITE` and `+SUITE` are operations on the list, and `ALL` is all of them.
        let read = name.is_empty()
            || name == "ALL"
            || !name.starts_with(char::is_alphanumeric)
            || SUITES.contains(&name);
        if !read {
            let remedy = crate::suggest::nearest(name, SUITES.iter().copied()).map_or_else(
                || "take it out".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            suite.warn(
                report,
                &format!("the suite `{name}` is not known, and ignored"),
                &remedy,
            );
        } else if !seen.insert(name) {
            suite.warn(
                report,
                &format!("the suite `{name}` is named twice"),
                "take one out",
            );
        }
    }
}
