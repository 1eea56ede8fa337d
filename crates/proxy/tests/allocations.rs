//! How often memory is asked for on a request's way: through the caller's proxy, over mutual TLS, through the callee's, to an
//! application that answers 1 KiB, and back. Everything on the way counts, the codecs' and TLS's memory too.
//!
//! The count hardly differs from machine to machine, so that one thing more a request is seen.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "all of it is tests, the functions that they share included"
)]

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use proxy::standalone::{Standalone, run};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// For one request at both proxies together.
const MOST: usize = 54;

/// More than events are kept: from then on one goes for each that comes.
const WARM_UP: usize = 1_500;
const COUNTED: usize = 500;

const CLIENT: &str = "127.0.0.1:18080";
const SERVER: &str = "127.0.0.1:18443";
const APPLICATION: &str = "127.0.0.1:18001";
const BODY: usize = 1024;

/// Leaves the machine's network, so that the ports are free; threads that are made from now on are outside of it too.
fn alone() -> Result<(), String> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map_err(|e| e.to_string())?;
    let up = std::process::Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    match up {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("`ip link set lo up`: {other:?}")),
    }
}

/// Answers each request on each connection, and asks for no memory by it.
fn application() {
    let listener = TcpListener::bind(APPLICATION).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY}\r\n\r\n");
                let answer = [head.as_bytes(), &[b'x'; BODY]].concat();
                let (mut buffer, mut filled) = ([0; 4096], 0);
                while let Ok(read @ 1..) = stream.read(&mut buffer[filled..]) {
                    filled += read;
                    if buffer[..filled].ends_with(b"\r\n\r\n") {
                        stream.write_all(&answer).unwrap();
                        filled = 0;
                    }
                }
            });
        }
    });
}

/// Sends a request and reads the answer. False where it is not the application's.
fn ask(stream: &mut TcpStream) -> std::io::Result<bool> {
    stream.write_all(b"GET /hello?x=1 HTTP/1.1\r\nhost: web.full.svc.cluster.local\r\nuser-agent: curl/8.5.0\r\naccept: */*\r\n\r\n")?;
    let (mut buffer, mut filled) = ([0; 8192], 0);
    loop {
        let end = buffer[..filled].windows(4).position(|bytes| bytes == b"\r\n\r\n");
        match end {
            Some(_) if !buffer.starts_with(b"HTTP/1.1 200 ") => return Ok(false),
            Some(end) if filled >= end + 4 + BODY => return Ok(filled == end + 4 + BODY),
            _ => {}
        }
        match stream.read(&mut buffer[filled..])? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
    }
}

fn id(account: &str) -> String {
    format!("spiffe://cluster.local/ns/full/sa/{account}")
}

fn certificates(directory: &Path) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(directory.join("roots.pem"), ca.pem()).unwrap();
    for account in ["client", "server"] {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id(account).try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &ca).unwrap();
        std::fs::write(directory.join(format!("{account}.pem")), leaf.pem()).unwrap();
        std::fs::write(directory.join(format!("{account}.key")), key.serialize_pem()).unwrap();
    }
}

fn workload(name: &str, inbound: &Value) -> Value {
    json!({"workload": {
        "uid": format!("uid-{name}"), "pod": format!("full/{name}"), "workload": format!("full/{name}"),
        "canonical_name": name, "canonical_revision": "latest", "app": name, "version": "v1",
        "addresses": ["127.0.0.1"], "node": "n", "service_account": name, "identity": id(name), "ready": true,
        "inbound": inbound,
    }})
}

/// A proxy of `name`, with these resources and listeners.
fn proxy(directory: &Path, name: &str, resources: &Value, listeners: &Value) -> Standalone {
    let file = |suffix: &str| directory.join(format!("{name}{suffix}"));
    std::fs::write(file(".json"), resources.to_string()).unwrap();
    let mut config = json!({
        "node": name, "trustDomain": "cluster.local", "roots": "roots.pem", "resources": format!("{name}.json"),
        "threads": 1,
        "workloads": [{"uid": format!("uid-{name}"), "namespace": "full", "name": name, "identity": id(name),
            "addresses": ["127.0.0.1"], "certificate": format!("{name}.pem"), "key": format!("{name}.key")}],
    });
    let all = config.as_object_mut().unwrap();
    all.extend(listeners.as_object().unwrap().clone());
    std::fs::write(file(".config"), config.to_string()).unwrap();
    Standalone::read(&file(".config")).unwrap()
}

fn proxies(directory: &Path) -> [Standalone; 2] {
    let [client, server, application]: [SocketAddr; 3] =
        [CLIENT, SERVER, APPLICATION].map(|at| at.parse().unwrap());
    let mesh = json!({"mesh": {
        "profile": "secure", "trust_domain": "cluster.local", "trust_domain_aliases": [],
        "root_namespace": "istio-system", "cluster_domain": "cluster.local", "dns_vips": [],
        "deny_by_default": true, "egress": "REGISTRY_ONLY", "path_normalization": "BASE", "strict_paths": true,
        "strict_hosts": true, "jwt_strict": true, "xfcc": "SANITIZE_SET", "auto_mtls": true,
        "protocol_detection_timeout_ms": null, "min_tls": "TLSV1_3", "http10": false, "connect_timeout_ms": 5000,
    }});
    let service = json!({"service": {
        "name": "full/web", "host": "web.full.svc.cluster.local", "vips": [client.ip()], "headless": false,
        "external_name": null, "identities": [id("server")],
        "ports": [{"name": "http", "port": client.port(), "protocol": "http", "tls": null}],
        "endpoints": [{"uid": "s", "workload": null, "addresses": [server.ip()],
            "ports": {client.port().to_string(): server.port()}, "ready": true, "node": null,
            "identity": id("server"), "plaintext_ports": [], "mtls_ports": []}],
    }});
    let inbound = json!({
        "ports": [{"port": application.port(), "protocol": "http", "mtls": "STRICT", "service": null}],
        "default_mtls": "STRICT", "mtls_decided_by": null, "policies": [{"namespace": "full", "name": "a"}],
    });
    let policy = json!({"policy": {
        "id": {"namespace": "full", "name": "a"}, "action": "ALLOW",
        "rules": [{"from": [{"principals": ["cluster.local/ns/full/sa/client"]}], "to": [], "when": [], "line": 1}],
    }});
    [
        proxy(
            directory,
            "client",
            &json!([mesh, workload("client", &Value::Null), service]),
            &json!({"outbound": [{"listen": client, "workload": "uid-client"}]}),
        ),
        proxy(
            directory,
            "server",
            &json!([mesh, workload("server", &inbound), policy]),
            &json!({"inbound": [{"listen": server, "workload": "uid-server", "to": application}]}),
        ),
    ]
}

/// One test, so that no other one's memory is counted.
#[test]
fn a_request_asks_for_memory_a_few_times_only() {
    if let Err(why) = alone() {
        println!("skipped: no network namespace: {why}");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path());
    application();
    for config in proxies(directory.path()) {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(run(config)).unwrap();
        });
    }
    let begin = Instant::now();
    let mut stream = loop {
        let opened = TcpStream::connect(CLIENT).and_then(|mut stream| Ok((ask(&mut stream)?, stream)));
        match opened {
            Ok((true, stream)) => break stream,
            other => assert!(begin.elapsed() < Duration::from_secs(60), "no answer: {other:?}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    stream.set_nodelay(true).unwrap();
    for _ in 0..WARM_UP {
        assert!(ask(&mut stream).unwrap());
    }
    let once = |stream: &mut TcpStream| {
        let region = Region::new(ALLOCATOR);
        for _ in 0..COUNTED {
            assert!(ask(stream).unwrap());
        }
        let change = region.change();
        change.allocations + change.reallocations
    };
    // The least of three: certificates are looked at and idle things dropped now and then.
    let least = (0..3).map(|_| once(&mut stream)).min().unwrap();
    let each = least.div_ceil(COUNTED);
    println!("memory is asked for {each} times a request, at both proxies together");
    assert!(each <= MOST, "{each} times a request, {MOST} are allowed");
    assert!(each > 5, "nothing was counted");
}
