//! The mesh's configuration by example.

fn read(data: &str) -> Vec<String> {
    let text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n{data}"
    );
    let parsed = crate::parse("mesh.yaml", text.as_bytes());
    let broken = parsed.has_errors();
    assert_eq!(parsed.objects.is_empty(), broken, "{:#?}", parsed.problems);
    assert_eq!(parsed.rejected.is_empty(), !broken);
    parsed
        .problems
        .into_iter()
        .map(|p| {
            format!(
                "{}:{}: {} ({})",
                p.line,
                p.column,
                p.message,
                p.remedy.unwrap_or_default()
            )
        })
        .collect()
}

#[test]
fn a_mesh_configuration_that_cannot_be_read_is_not_silent() {
    assert_eq!(
        read("  mesh: |\n    trustDomain: a.example\n"),
        Vec::<String>::new()
    );
    let said = read(
        "  mesh: |-\n\n    trustDomain: a.example\n    outboundTrafficPolicy: {mode: NOTHING}\n    trustDomainAliases: 3\n",
    );
    assert_eq!(said.len(), 2, "{said:#?}");
    assert!(
        said[0].starts_with("8:35: `data.mesh.outboundTrafficPolicy.mode` cannot be `NOTHING`"),
        "{said:#?}"
    );
    assert!(
        said[1].starts_with("9:25: `data.mesh.trustDomainAliases` must be a list"),
        "{said:#?}"
    );
    let said = read("  mesh: |\n    trustDomain: [\n");
    assert!(said[0].starts_with("6:"), "{said:#?}");
}

#[test]
fn a_key_of_the_mesh_configuration_that_is_not_known_is_told_with_its_place() {
    let said = read("  mesh: |\n    # a comment\n    trustDomian: a\n    defaultConfig:\n      tracin: {}\n");
    assert_eq!(
        said,
        [
            "7:5: unknown field `data.mesh.trustDomian` (did you mean `trustDomain`?)",
            "9:7: unknown field `data.mesh.defaultConfig.tracin` (did you mean `tracing`?)"
        ]
    );
}

#[test]
fn a_mesh_configuration_in_quotes_is_placed_where_it_stands() {
    let said = read("  mesh: \"trustDomain: -a\\nrootNamespace: b\"\n");
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(
        said[0].starts_with("5:9: `data.mesh.trustDomain`: `-a` is not"),
        "{said:#?}"
    );
}

#[test]
fn networks_are_read_beside_the_mesh_configuration() {
    let networks = |gateway: &str| {
        read(&format!(
            "  meshNetworks: |\n    networks:\n      n1:\n        gateways:\n        - {{{gateway}}}\n"
        ))
    };
    assert_eq!(networks("address: 1.2.3.4, port: 80"), Vec::<String>::new());
    for wrong in [
        "address: 1nv@lid, port: 80",
        "address: 1.2.3.4",
        "port: 0",
        "prt: 1",
    ] {
        assert!(!networks(wrong).is_empty(), "{wrong}");
    }
}

#[test]
fn a_provider_that_cannot_be_used_is_an_error_and_leaves_the_rest_in_force() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    \
                trustDomain: a.example\n    extensionProviders:\n    - name: t\n      zipkin: {service: a.b:1, port: 1}\n    \
                - {name: t, prometheus: {}, stackdriver: {}}\n";
    let parsed = crate::parse("mesh.yaml", text.as_bytes());
    let told: Vec<_> = parsed
        .problems
        .iter()
        .map(|p| (p.line, p.code.as_ref(), p.severity))
        .collect();
    let error = crate::Severity::Error;
    assert_eq!(
        told,
        [(9, "MW0115", error), (10, "MW0115", error), (10, "MW0115", error)]
    );
    let crate::Kind::ConfigMap(_, Some(config)) = &parsed.objects[0].kind else {
        panic!("{parsed:?}")
    };
    assert_eq!(config.trust_domain.as_deref(), Some("a.example"));
}
