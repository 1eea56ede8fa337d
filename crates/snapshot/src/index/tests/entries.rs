//! ServiceEntries that leave to names where they are, and names that TLS and requests claim (semantics 7.3, 7.4).

use super::*;

fn find(index: &Index, dialled: &str, claim: Claim<'_>) -> Result<Destination, Reason> {
    let asker = index.asker("full", None);
    index.find_outbound(asker, dialled.parse().unwrap(), claim, &Lacks::default())
}

/// The entry by which it goes, with `?` where that has to be proven; else what becomes of it.
fn by(index: &Index, dialled: &str, claim: Claim<'_>) -> String {
    let found = find(index, dialled, claim);
    match &found {
        Ok(destination) => {
            let open = if destination.unproven().is_some() { "?" } else { "" };
            match destination {
                Destination::Service(target) => format!("{}{open}", target.service.host),
                Destination::Direct {
                    service: Some(target),
                    ..
                } => format!("{}{open}", target.service.host),
                Destination::Direct { service: None, .. } => "direct".to_owned(),
                Destination::External(_) => "outside".to_owned(),
            }
        }
        Err(reason) => reason.to_string(),
    }
}

fn unlisted(name: &str, port: u16, protocol: Protocol) -> Service {
    external(name, Resolution::None, &[], port, protocol)
}

#[test]
fn r_37_a_host_without_addresses_is_a_claim_that_has_to_be_proven() {
    let unknown = Reason::EgressUnknown.as_str();
    for strict in [true, false] {
        let entries = vec![
            unlisted("full/ext.example.com", 80, Protocol::Http),
            unlisted("full/*.wild.example", 443, Protocol::Tls),
        ];
        let index = with_entries(mesh(strict, Egress::RegistryOnly), entries);
        let check = |dialled, claim, expect: &str| {
            assert_eq!(
                by(&index, dialled, claim),
                expect,
                "strict {strict}: {dialled} {claim:?}"
            );
        };
        check(
            "203.0.113.1:80",
            Claim::Host("EXT.example.com."),
            "ext.example.com?",
        );
        check("203.0.113.1:80", Claim::Host("other.example.com"), unknown);
        check("203.0.113.1:80", Claim::Nothing, unknown);
        check(
            "203.0.113.1:443",
            Claim::Sni(Some("a.wild.example")),
            "*.wild.example?",
        );
        check("203.0.113.1:443", Claim::Sni(Some("a.other.example")), unknown);
        check("203.0.113.1:443", Claim::Sni(None), unknown);
        check("127.0.0.1:443", Claim::Sni(Some("a.wild.example")), unknown);
        // A cluster address is its Service's, whatever name is claimed.
        assert_ne!(
            by(&index, "10.96.0.20:80", Claim::Host("ext.example.com")),
            "ext.example.com?"
        );
    }
}

#[test]
fn eg_07_bytes_to_an_entry_without_addresses() {
    let entries = || vec![unlisted("full/tcp.example.com", 9000, Protocol::Tcp)];
    for (strict, egress, expect) in [
        (true, Egress::RegistryOnly, "tcp.example.com?"),
        (true, Egress::AllowAny, "outside"),
        (false, Egress::RegistryOnly, "tcp.example.com?"),
        (false, Egress::AllowAny, "tcp.example.com?"),
    ] {
        let index = with_entries(mesh(strict, egress), entries());
        assert_eq!(
            by(&index, "203.0.113.1:9000", Claim::Nothing),
            expect,
            "{strict} {egress:?}"
        );
        // Known addresses keep what they are.
        assert_eq!(goes(&index, "10.96.0.20:80", None), "full/web:80");
    }
    let strict = with_entries(mesh(true, Egress::RegistryOnly), entries());
    assert_eq!(
        by(&strict, "10.77.0.2:9000", Claim::Nothing),
        "direct",
        "a pod of the mesh is no host of an entry"
    );
}

#[test]
fn sni_is_compared_with_the_hosts_of_what_was_dialled() {
    let unknown = Reason::EgressUnknown.as_str();
    for (strict, protocol, foreign_at_single) in [
        (true, Protocol::Tls, unknown),
        (true, Protocol::Https, unknown),
        (true, Protocol::Auto, unknown),
        // Istio: a single address says enough (7.3).
        (false, Protocol::Tls, "one.example.com"),
        (false, Protocol::Auto, "one.example.com"),
    ] {
        let entry = |name, addresses: &[&str]| external(name, Resolution::None, addresses, 443, protocol);
        let entries = vec![
            entry("full/one.example.com", &["192.0.2.7"]),
            entry("full/two.example.com", &["192.0.2.7"]),
            entry("full/block.example.com", &["198.51.100.0/24"]),
        ];
        let index = with_entries(mesh(strict, Egress::RegistryOnly), entries);
        let check = |dialled, sni, expect: &str| {
            let got = by(&index, dialled, Claim::Sni(sni));
            assert_eq!(got, expect, "strict {strict} {protocol:?}: {dialled} {sni:?}");
        };
        check("192.0.2.7:443", Some("one.example.com"), "one.example.com");
        check("192.0.2.7:443", Some("TWO.example.com."), "two.example.com");
        check("192.0.2.7:443", Some("evil.example"), foreign_at_single);
        check("192.0.2.7:443", None, "one.example.com");
        check("198.51.100.9:443", Some("block.example.com"), "block.example.com");
        // A name of one entry at the address of another is neither's.
        check("192.0.2.7:443", Some("block.example.com"), foreign_at_single);
        if protocol != Protocol::Auto {
            check("198.51.100.9:443", Some("evil.example"), unknown);
            check("198.51.100.9:443", None, unknown);
        }
        let asker = index.asker("full", None);
        let found = find(&index, "192.0.2.7:443", Claim::Nothing);
        assert_eq!(
            index.asks_name(asker, 443, &found),
            Some(protocol != Protocol::Auto)
        );
        let web = find(&index, "10.96.0.20:80", Claim::Nothing);
        assert_eq!(
            index.asks_name(asker, 80, &web),
            None,
            "the mesh's own are not asked"
        );
    }
}

#[test]
fn p_29_another_name_at_a_registered_server_is_refused_under_registry_only() {
    let unknown = Reason::EgressUnknown.as_str();
    let entries = || {
        vec![external(
            "full/ext.example.com",
            Resolution::None,
            &["192.0.2.7"],
            80,
            Protocol::Http,
        )]
    };
    for strict in [true, false] {
        let index = with_entries(mesh(strict, Egress::RegistryOnly), entries());
        assert_eq!(
            by(&index, "192.0.2.7:80", Claim::Host("evil.example")),
            unknown,
            "{strict}"
        );
        assert_eq!(
            by(&index, "192.0.2.7:80", Claim::Host("ext.example.com")),
            "ext.example.com"
        );
        let open = with_entries(mesh(strict, Egress::AllowAny), entries());
        assert_eq!(
            by(&open, "192.0.2.7:80", Claim::Host("evil.example")),
            "ext.example.com"
        );
    }
    let strict = with_entries(mesh(true, Egress::RegistryOnly), entries());
    assert_eq!(
        by(&strict, "192.0.2.7:80", Claim::Host("192.0.2.7")),
        "ext.example.com"
    );
    assert_eq!(by(&strict, "192.0.2.7:80", Claim::Host("")), "ext.example.com");
}

#[test]
fn an_entry_whose_endpoints_are_names_is_told_to_workloads_of_the_mesh_alone() {
    let entry = external(
        "full/ext.example.com",
        Resolution::Dns,
        &["240.240.0.1"],
        80,
        Protocol::Http,
    );
    let index = with_entries(mesh(true, Egress::RegistryOnly), vec![entry]);
    let lacks = Lacks::default();
    assert_eq!(
        index.resolve("ext.example.com", "full", false, &lacks),
        Answer::Addresses(ips(&["240.240.0.1"]))
    );
    assert_eq!(
        index.resolve_plain("ext.example.com", "full", false, &lacks),
        Answer::NotOurs
    );
    assert_eq!(
        by(&index, "240.240.0.1:80", Claim::Host("ext.example.com")),
        "ext.example.com"
    );
    // Where it is, is ours to find out: who dials an address itself has not gone to the entry.
    assert_eq!(
        by(&index, "203.0.113.1:80", Claim::Host("ext.example.com")),
        Reason::HostMismatch.as_str()
    );
}

#[test]
fn a_sidecar_for_a_workload_decides_for_it_and_for_no_other() {
    let mut web = pod("web-1", "full", &["10.77.0.2"], Some(ID));
    web.inbound = Some(crate::Inbound {
        ports: vec![],
        default_mtls: model::MtlsMode::Strict,
        policies: vec![],
        authentications: vec![],
        mtls_decided_by: None,
        path_dialects: Default::default(),
        scope: Some(Scope {
            egress: Some(Egress::RegistryOnly),
            imports: Some(vec![]),
        }),
        telemetry: crate::Telemetry::default(),
    });
    let resources: Resources = [
        Resource::from(mesh(true, Egress::AllowAny)),
        service("full/web", &["10.96.0.20"], 80, Protocol::Http, vec![]).into(),
        web.into(),
    ]
    .into_iter()
    .collect();
    let index = Index::build(&resources).unwrap();
    let goes = |uid: Option<&str>, dialled: &str| {
        let uid = uid.map(WorkloadUid::new);
        let asker = index.asker("full", uid.as_ref());
        index.find_outbound(asker, dialled.parse().unwrap(), Claim::Nothing, &Lacks::default())
    };
    for dialled in ["203.0.113.1:80", "10.96.0.20:80"] {
        assert_eq!(
            goes(Some("web-1"), dialled),
            Err(Reason::EgressUnknown),
            "{dialled}"
        );
        assert!(
            goes(Some("other"), dialled).is_ok() && goes(None, dialled).is_ok(),
            "{dialled}"
        );
    }
}
