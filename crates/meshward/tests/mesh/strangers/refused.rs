//! Strangers whose certificates prove nothing here: refused with an alert that says what is wrong, and a line that says why.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use testkit::mesh::within;

use super::certificate::{Certificate, Forged, Signer, forge, issue};
use super::{World, peer_authentication};
use crate::world::{compare, start};

const HOUR: i64 = 3600;
const GOOD: &[&str] = &["spiffe://cluster.local/ns/m/sa/client"];

/// What is wrong, the TLS alert's number (RFC 8446, 6) and words of the log's line.
const FORGED: &[(&str, Forged, &str, &str)] = &[
    (
        "expired",
        Forged {
            signer: Signer::Mesh,
            uris: GOOD,
            valid: (-2 * HOUR, -HOUR),
        },
        "45",
        "expired",
    ),
    (
        "not yet valid",
        Forged {
            signer: Signer::Mesh,
            uris: GOOD,
            valid: (HOUR, 2 * HOUR),
        },
        "45",
        "not yet valid",
    ),
    (
        "of another trust domain",
        Forged {
            signer: Signer::Mesh,
            uris: &["spiffe://evil.example/ns/m/sa/client"],
            valid: (-HOUR, HOUR),
        },
        "46",
        "unknown trust domain `evil.example`",
    ),
    (
        "ID-07, of a trust domain that begins alike",
        Forged {
            signer: Signer::Mesh,
            uris: &["spiffe://cluster.local.evil/ns/m/sa/client"],
            valid: (-HOUR, HOUR),
        },
        "46",
        "unknown trust domain `cluster.local.evil`",
    ),
    (
        "with a name that is no identity",
        Forged {
            signer: Signer::Mesh,
            uris: &[],
            valid: (-HOUR, HOUR),
        },
        "46",
        "URI",
    ),
    (
        "with two identities",
        Forged {
            signer: Signer::Mesh,
            uris: &[
                "spiffe://cluster.local/ns/m/sa/client",
                "spiffe://cluster.local/ns/m/sa/other",
            ],
            valid: (-HOUR, HOUR),
        },
        "46",
        "URI",
    ),
    (
        "signed by itself",
        Forged {
            signer: Signer::Itself,
            uris: GOOD,
            valid: (-HOUR, HOUR),
        },
        "48",
        "unknown issuer",
    ),
    (
        "signed by a CA that has the name of ours",
        Forged {
            signer: Signer::Other,
            uris: GOOD,
            valid: (-HOUR, HOUR),
        },
        "48",
        "unknown issuer",
    ),
];

/// Calls by `openssl s_client` in a network namespace, and sends these bytes and a request. Returns all that it says, and
/// what came.
fn s_client(netns: &str, to: &str, alpn: &str, certificate: Option<&Certificate>, first: &[u8]) -> String {
    let netns = netns.rsplit('/').next().unwrap();
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", netns, "timeout", "10", "openssl", "s_client"])
        .args(["-connect", to, "-alpn", alpn, "-quiet", "-noservername"]);
    if let Some(files) = certificate {
        command.arg("-cert").arg(&files.chain).arg("-key").arg(&files.key);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The refusal may come before it is written.
    let _ = child.stdin.as_mut().unwrap().write_all(
        &[
            first,
            b"GET / HTTP/1.1\r\nHost: server.m\r\nConnection: close\r\n\r\n",
        ]
        .concat(),
    );
    let output = child.wait_with_output().unwrap();
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn alert(said: &str) -> String {
    let number = said.split("SSL alert number ").nth(1);
    let number = number.and_then(|rest| rest.split_whitespace().next());
    number.map_or_else(|| format!("no alert: {said}"), str::to_owned)
}

#[test]
fn certificates_that_prove_nothing_are_refused_by_name() {
    let Some(mesh) = start("refused", &["--profile", "istio"]) else {
        return;
    };
    mesh.apply(&peer_authentication("STRICT"));
    let directory = tempfile::tempdir().unwrap();
    let pod = |namespace: &str, name: &str| mesh.pod(namespace, name).unwrap();
    let server = pod("m", "server")["ip"].as_str().unwrap().to_owned();
    let netns = pod("legacy", "client")["netns"].as_str().unwrap().to_owned();
    let mut rows = Vec::new();
    let refusals = || -> Vec<Value> {
        let log = mesh.access_log().into_iter();
        log.filter(|l| l["reporter"] == "destination" && l["reason"] == "PEER_IDENTITY")
            .collect()
    };
    for port in [8000, 7000, 8200, 15008] {
        let to = format!("{server}:{port}");
        let alpn = match port {
            8000 => "istio-http/1.1",
            15008 => "h2",
            _ => "istio",
        };
        for (at, (id, forged, number, words)) in FORGED.iter().enumerate() {
            let files = forge(&mesh, *forged, &directory.path().join(format!("{at}")));
            let before = refusals().len();
            let said = s_client(&netns, &to, alpn, Some(&files), b"");
            rows.push((format!("{port}, {id}"), (*number).to_owned(), alert(&said)));
            within(Duration::from_secs(5), "the refusal is told of", || {
                refusals().len() > before
            });
            let told = refusals().pop().unwrap()["message"].to_string();
            let words = (*words).to_owned();
            let got = if told.contains(&words) {
                words.clone()
            } else {
                told
            };
            rows.push((format!("{port}, {id}, the line"), words, got));
        }
        // None at all: under TLS 1.3 the alert comes after the client's handshake (O-16).
        let before = refusals().len();
        let said = s_client(&netns, &to, alpn, None, b"");
        rows.push((format!("{port}, without"), "116".to_owned(), alert(&said)));
        within(Duration::from_secs(5), "the refusal is told of", || {
            refusals().len() > before
        });
        let told = refusals().pop().unwrap()["message"].to_string();
        assert!(told.contains("no certificate"), "{told}");
    }
    // The same client with a certificate of the mesh is served.
    let good = issue(&mesh, &pod("m", "client"), &directory.path().join("good"));
    let said = s_client(
        &netns,
        &format!("{server}:8000"),
        "istio-http/1.1",
        Some(&good),
        b"",
    );
    let ok = if said.contains("HTTP/1.1 200") {
        "200".to_owned()
    } else {
        said
    };
    rows.push(("good".to_owned(), "200".to_owned(), ok));
    compare(rows);
}

#[test]
fn a_stranger_whose_certificate_proves_nothing_is_not_talked_to() {
    let Some(world) = World::start("unproven") else {
        return;
    };
    let mut rows = Vec::new();
    for (at, (id, forged, _, words)) in FORGED.iter().enumerate() {
        let directory = world.directory.path().join(format!("forged-{at}"));
        let mut forged = *forged;
        if forged.uris == GOOD {
            forged.uris = &["spiffe://cluster.local/ns/legacy/sa/sidecar"];
        }
        let files = forge(&world.mesh, forged, &directory);
        let _envoy = world.sidecar(false, &files, None);
        let said = world.mesh.curl("m", "client", &["http://sidecar.legacy:8000/"]);
        rows.push(((*id).to_owned(), "503".to_owned(), said.code.to_string()));
        let log = world.mesh.access_log();
        let told = log
            .iter()
            .rfind(|l| l["reporter"] == "source" && l["reason"] == "PEER_IDENTITY");
        let told = told.map_or_else(String::new, |line| line["message"].to_string());
        let words = (*words).to_owned();
        let got = if told.contains(&words) {
            words.clone()
        } else {
            told
        };
        rows.push((format!("{id}, the line"), words, got));
    }
    compare(rows);
}

#[test]
fn whoever_offers_only_the_metadata_exchange_is_served_with_it_and_without() {
    let Some(mesh) = start("exchange", &["--profile", "istio"]) else {
        return;
    };
    mesh.apply(&peer_authentication("STRICT"));
    let directory = tempfile::tempdir().unwrap();
    let pod = |namespace: &str, name: &str| mesh.pod(namespace, name).unwrap();
    let server = pod("m", "server")["ip"].as_str().unwrap().to_owned();
    let netns = pod("legacy", "client")["netns"].as_str().unwrap().to_owned();
    let good = issue(&mesh, &pod("m", "client"), directory.path());
    // As a sidecar's filter writes it: a mark, a length, and a message that says what nobody believes.
    let telling = [
        &[0x3d, 0x23, 0x04, 0x67, 0, 0, 0, 12][..],
        b"i am the king"[..12].as_ref(),
    ]
    .concat();
    for port in [8000, 7080] {
        let to = format!("{server}:{port}");
        for (first, told) in [(&b""[..], false), (&telling, true)] {
            let said = s_client(&netns, &to, "istio-peer-exchange", Some(&good), first);
            assert!(said.contains("HTTP/1.1 200"), "{port}: {said}");
            assert!(!said.contains("king"), "{port}: {said}");
            assert_eq!(said.contains("google.protobuf.Struct"), told, "{port}: {said}");
        }
    }
}
