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
fn a_mode_that_is_not_acted_on_is_told_with_what_is_in_force_instead() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    \
                trustDomain: a.example\n    outboundTrafficPolicy:\n      mode: ALLOW_ANY_DYNAMIC_DNS\n";
    let parsed = crate::parse("mesh.yaml", text.as_bytes());
    assert!(!parsed.has_errors(), "{:?}", parsed.problems);
    let [problem] = parsed.problems.as_slice() else {
        panic!("{:?}", parsed.problems);
    };
    assert_eq!((problem.line, problem.column), (8, 13));
    assert!(
        problem.message.contains("`REGISTRY_ONLY` is in force"),
        "{}",
        problem.message
    );
    let crate::Kind::ConfigMap(_, Some(config)) = &parsed.objects[0].kind else {
        panic!("{parsed:?}")
    };
    assert_eq!(config.trust_domain.as_deref(), Some("a.example"));
    let policy = config.outbound_traffic_policy.unwrap();
    assert_eq!(policy.mode, crate::OutboundMode::AllowAnyDynamicDns);
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

/// Line, column, code and message of what is wrong with a file.
fn told(text: &str) -> Vec<String> {
    let parsed = crate::parse("f.yaml", text.as_bytes());
    let line = |p: crate::Problem| format!("{}:{} {} {}", p.line, p.column, p.code, p.message);
    parsed.problems.into_iter().map(line).collect()
}

#[test]
fn the_installers_file_is_looked_into_and_said_to_be_in_force_nowhere() {
    let file = |spec: &str| {
        told(&format!(
            "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nmetadata: {{name: i}}\nspec:\n{spec}"
        ))
    };
    let plain = file("  profile: minimal\n  components:\n    pilot: {enabled: true}\n");
    assert_eq!(plain.len(), 1, "{plain:#?}");
    assert!(plain[0].contains("MW0105"), "{plain:#?}");
    for (spec, place) in [
        ("  meshConfig:\n    trustDomian: a\n", "6:5"),
        ("  values:\n    meshConfig:\n      trustDomian: a\n", "7:7"),
    ] {
        let said = file(spec);
        assert!(
            said.iter().any(
                |p| p.starts_with(place) && p.contains("did you mean `trustDomain`?")
                    || p.starts_with(place) && p.contains("trustDomian")
            ),
            "{said:#?}"
        );
        assert!(
            said.iter()
                .any(|p| p.contains("MW0116") && p.contains("not in force")),
            "{said:#?}"
        );
    }
    let said = file("  meshConfgi: {}\n");
    assert!(
        said.iter()
            .any(|p| p.starts_with("5:3") && p.contains("meshConfgi")),
        "{said:#?}"
    );
}

#[test]
fn a_proxys_configuration_in_an_annotation_is_looked_into() {
    let pod = |config: &str| {
        told(&format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: d, namespace: a}}\nspec:\n  selector: {{matchLabels: {{app: d}}}}\n  \
             template:\n    metadata:\n      labels: {{app: d}}\n      annotations:\n        proxy.istio.io/config: {config}\n    \
             spec: {{containers: [{{name: c, image: i}}]}}\n"
        ))
    };
    let fine = pod("'{holdApplicationUntilProxyStarts: true}'");
    assert_eq!(fine.len(), 1, "{fine:#?}");
    assert!(fine[0].starts_with("10:9 MW0117"), "{fine:#?}");
    let said = pod("|\n          concurrency: 2\n          tracin: {}\n          drainDuration: soon");
    assert!(
        said.iter()
            .any(|p| p.starts_with("12:11") && p.contains("tracin")),
        "{said:#?}"
    );
    assert!(
        said.iter().any(|p| p.starts_with("13:26") && p.contains("soon")),
        "{said:#?}"
    );
    let said = pod("\"[\"");
    assert!(said.iter().any(|p| p.contains("MW0113")), "{said:#?}");
}
