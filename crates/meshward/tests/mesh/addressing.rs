//! A mesh client that dials what it should not, or names what it does not dial: semantics 15 (O-01 to O-05).

use crate::world::{How, attempt, compare, probe_with, start};

#[test]
fn o_01_to_o_05_on_real_sockets() {
    let Some(mesh) = start("names", &[]) else {
        return;
    };
    mesh.apply(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: allow, namespace: m}\nspec:\n  rules:\n  - from: [{source: {namespaces: [m]}}]\n",
    );
    let pod = mesh.pod("m", "server").unwrap();
    let (ip, ip6) = (pod["ip"].as_str().unwrap(), pod["ip6"].as_str().unwrap());
    let mut rows = Vec::new();
    let mut row = |id: &str, wanted: &str, got: String| rows.push((id.to_owned(), wanted.to_owned(), got));
    // Reached with identity, however it is addressed.
    for to in [
        format!("{ip}:8000"),
        format!("[{ip6}]:8000"),
        format!("{ip}:8200"),
    ] {
        let said = mesh.curl("m", "client", &["-g", &format!("http://{to}/")]);
        row(&format!("O-01 {to}"), "200", said.code.to_string());
        let proven = said.body.contains("URI=spiffe://cluster.local/ns/m/sa/client");
        row(&format!("O-01 {to} with identity"), "true", proven.to_string());
    }
    let host = |name: &str| {
        mesh.curl(
            "m",
            "client",
            &["-H", &format!("Host: {name}"), "http://server.m:8000/"],
        )
    };
    let unknown = host("nobody.knows.example");
    row(
        "O-01 unknown Host at a known address",
        "200",
        unknown.code.to_string(),
    );
    // The dialled address and the Host belong to one service, or it is refused.
    let other = mesh.curl(
        "m",
        "client",
        &["-H", "Host: server.legacy", "http://server.m:8000/"],
    );
    row(
        "O-02 the Host of another service",
        "true",
        (other.code >= 400).to_string(),
    );
    for name in ["SERVER.m", "server.m.", "server.m.svc.cluster.local.", "server"] {
        row(&format!("O-03 {name}"), "200", host(name).code.to_string());
    }
    // A short first segment does not hang.
    let short = probe_with(
        &mesh,
        "m",
        "tcp",
        "server.m:7000",
        &["--send", "x\n", "--wait", "4"],
    );
    row("O-05 two bytes", "echoed", short);
    let first = probe_with(
        &mesh,
        "m",
        "tcp",
        "server.m:9000",
        &["--read-first", "--wait", "4"],
    );
    row("a server that speaks first", "echoed", first);
    // Who calls its own Service is judged like everybody, by its own identity; its own address never leaves the pod.
    let name = pod["name"].as_str().unwrap();
    let own = || mesh.curl("m", name, &["http://server.m:8000/"]);
    let address = || mesh.curl("m", name, &[&format!("http://{ip}:8000/")]);
    let said = own();
    row("O-17 own Service", "200", said.code.to_string());
    let proven = said.body.contains("URI=spiffe://cluster.local/ns/m/sa/server");
    row("O-17 own Service with identity", "true", proven.to_string());
    let said = address();
    row("O-17 own address", "200", said.code.to_string());
    let carried = said.body.contains("URI=spiffe://");
    row("O-17 own address, carried", "false", carried.to_string());
    mesh.apply(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: own, namespace: m}\nspec:\n  action: DENY\n  rules:\n  - from: [{source: {principals: [cluster.local/ns/m/sa/server]}}]\n",
    );
    row("O-17 own Service, denied", "403", own().code.to_string());
    row("O-17 own address, denied", "200", address().code.to_string());
    // Out of the registry.
    row(
        "EG-01 unknown address",
        "refused",
        attempt(&mesh, "m", How::Tcp, "192.0.2.1:9"),
    );
    row("EG-01 unknown name", "true", {
        let said = mesh.curl("m", "client", &["http://192.0.2.1/"]);
        (said.code == 502).to_string()
    });
    // Not TCP: dropped.
    let udp = probe_with(&mesh, "m", "udp", &format!("{ip}:5300"), &["--wait", "1"]);
    row("P16 UDP", "true", (udp != "echoed").to_string());
    let ping = mesh.exec("m", "client", &["ping", "-c", "1", "-W", "1", ip]);
    row("P29 ICMP", "true", (ping.code != 0).to_string());
    compare(rows);
}

#[test]
fn dns_answers_every_form_of_a_name_in_both_families() {
    let Some(mesh) = start("dns", &["--profile", "istio"]) else {
        return;
    };
    let mut rows = Vec::new();
    for from in ["m", "legacy"] {
        for name in [
            "server",
            "server.m",
            "server.m.svc",
            "server.m.svc.cluster.local",
            "direct.m",
        ] {
            for (family, sign) in [("ahostsv4", '.'), ("ahostsv6", ':')] {
                let done = mesh.exec(from, "client", &["getent", family, name]);
                let found = done.code == 0 && done.stdout.contains(sign);
                rows.push((
                    format!("{from}: {family} {name}"),
                    "true".to_owned(),
                    found.to_string(),
                ));
            }
        }
        let done = mesh.exec(from, "client", &["getent", "hosts", "nobody.m"]);
        rows.push((
            format!("{from}: nobody.m"),
            "false".to_owned(),
            (done.code == 0).to_string(),
        ));
    }
    let addresses = mesh.exec("m", "client", &["getent", "ahostsv4", "direct.m"]);
    let count = addresses.stdout.lines().filter(|l| l.contains("STREAM")).count();
    rows.push((
        "a headless name has every pod".to_owned(),
        "2".to_owned(),
        count.to_string(),
    ));
    compare(rows);
}
