//! Each group of rules by example: an object, and the field that is refused, or warned of.

use crate::{Severity, parse};

/// What is found of a spec: `!PATH` for an error, `?PATH` for a warning, in the order of the text.
fn found(kind: &str, spec: &str) -> String {
    let group = match kind {
        "AuthorizationPolicy" | "PeerAuthentication" | "RequestAuthentication" => "security.istio.io/v1",
        "Telemetry" => "telemetry.istio.io/v1",
        "WasmPlugin" | "TrafficExtension" => "extensions.istio.io/v1alpha1",
        "EnvoyFilter" => "networking.istio.io/v1alpha3",
        "ProxyConfig" => "networking.istio.io/v1beta1",
        _ => "networking.istio.io/v1",
    };
    let text =
        format!("apiVersion: {group}\nkind: {kind}\nmetadata: {{name: x, namespace: ns}}\nspec: {spec}\n");
    let problems = parse("a.yaml", text.as_bytes()).problems;
    let told = problems
        .iter()
        .filter(|p| p.severity > Severity::Info && p.code != "MW0106");
    let short = |path: &str| path.strip_prefix("spec.").unwrap_or(path).to_owned();
    let marks = told.map(|p| {
        let mark = if p.severity == Severity::Error { '!' } else { '?' };
        format!("{mark}{}", short(&p.path))
    });
    marks.collect::<Vec<_>>().join(" ")
}

fn table(kind: &str, rows: &[(&str, &str)]) {
    for (spec, wanted) in rows {
        assert_eq!(found(kind, spec), *wanted, "{kind} {spec}");
    }
}

#[test]
fn destination_rules() {
    let of = |policy: &str| format!("{{host: a, trafficPolicy: {policy}}}");
    let rows = [
        ("{tls: {mode: SIMPLE}}", ""),
        ("{}", "!trafficPolicy"),
        ("{portLevelSettings: []}", "!trafficPolicy"),
        ("{tls: {mode: MUTUAL, privateKey: /k}}", "!trafficPolicy.tls"),
        (
            "{tls: {mode: SIMPLE, credentialName: c, caCertificates: /c}}",
            "!trafficPolicy.tls.caCertificates",
        ),
        (
            "{tls: {mode: SIMPLE, insecureSkipVerify: true, caCertificates: /c}}",
            "!trafficPolicy.tls.insecureSkipVerify",
        ),
        (
            "{tls: {credentialName: 'configmap://other/c'}}",
            "!trafficPolicy.tls.credentialName",
        ),
        ("{connectionPool: {}}", "!trafficPolicy.connectionPool"),
        (
            "{connectionPool: {tcp: {idleTimeout: 0s, maxConnections: 1}}}",
            "",
        ),
        (
            "{connectionPool: {tcp: {maxConnections: -1}}}",
            "!trafficPolicy.connectionPool.tcp.maxConnections",
        ),
        (
            "{connectionPool: {http: {http2KeepAlive: {interval: 1s}}}}",
            "!trafficPolicy.connectionPool.http.http2KeepAlive",
        ),
        (
            "{outlierDetection: {minHealthPercent: 101}}",
            "!trafficPolicy.outlierDetection.minHealthPercent",
        ),
        (
            "{outlierDetection: {consecutiveErrors: 1}}",
            "?trafficPolicy.outlierDetection.consecutiveErrors",
        ),
        (
            "{loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}",
            "!trafficPolicy.loadBalancer",
        ),
        (
            "{loadBalancer: {consistentHash: {maglev: {tableSize: 10}}}}",
            "!trafficPolicy.loadBalancer.consistentHash.maglev.tableSize",
        ),
        (
            "{loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}}",
            "?trafficPolicy.loadBalancer.localityLbSetting",
        ),
        (
            "{loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 99}}]}}}",
            "!trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to",
        ),
        (
            "{loadBalancer: {warmup: {duration: 1s, aggression: 0}}}",
            "!trafficPolicy.loadBalancer.warmup.aggression",
        ),
        (
            "{tunnel: {targetHost: a.b, targetPort: 0}}",
            "!trafficPolicy.tunnel.targetPort",
        ),
        (
            "{portLevelSettings: [{tls: {}}]}",
            "!trafficPolicy.portLevelSettings[0]",
        ),
    ];
    for (policy, wanted) in rows {
        assert_eq!(found("DestinationRule", &of(policy)), wanted, "{policy}");
    }
    table(
        "DestinationRule",
        &[
            ("{host: a.*}", "!host"),
            ("{host: a, subsets: [{name: v1}, {name: v1}]}", "!subsets[1].name"),
            (
                "{host: a, subsets: [{name: v1, labels: {a: '*'}}]}",
                "!subsets[0].labels.a",
            ),
            ("{host: a, exportTo: ['.', ns]}", "!exportTo[1]"),
            ("{host: a, exportTo: ['~']}", "!exportTo[0]"),
            (
                "{host: a, exportTo: ['*'], workloadSelector: {matchLabels: {a: b}}}",
                "!exportTo[0]",
            ),
            ("{host: a, workloadSelector: {}}", "?workloadSelector"),
        ],
    );
}

#[test]
fn the_bytes_of_a_direct_response_are_base64() {
    let answer = |bytes: &str| {
        format!("{{hosts: [a.b], http: [{{directResponse: {{status: 200, body: {{bytes: '{bytes}'}}}}}}]}}")
    };
    for bytes in ["aGVsbG8=", "aGVsbG8", "_-8", "_-8=", "aGVsbG8hIQ==", ""] {
        assert_eq!(found("VirtualService", &answer(bytes)), "", "{bytes}");
    }
    for bytes in ["hello!", "aGVsb", "aGVsbG8==", "aGVs=bG8", "====", "a b="] {
        assert_eq!(
            found("VirtualService", &answer(bytes)),
            "?http[0].directResponse.body.bytes",
            "{bytes}"
        );
    }
}

#[test]
fn virtual_services() {
    let to = "route: [{destination: {host: a}}]";
    let route = |more: &str| format!("{{hosts: [a.b], http: [{{{to}, {more}}}]}}");
    let rows = [
        ("timeout: 1s", ""),
        ("timeout: 0s", "!http[0].timeout"),
        ("redirect: {uri: /}", "!http[0].route"),
        ("match: [{uri: {regex: '('}}]", "!http[0].match[0].uri.regex"),
        (
            "match: [{method: {prefix: ''}}]",
            "!http[0].match[0].method.prefix",
        ),
        ("match: [{uri: {prefix: ''}}]", ""),
        (
            "match: [{headers: {'@request.auth.claims.a': {exact: b}}}]",
            "!http[0].match[0].headers.@request.auth.claims.a",
        ),
        (
            "match: [{headers: {'a b': {exact: b}}}]",
            "!http[0].match[0].headers.a b",
        ),
        ("match: [{port: 70000}]", "!http[0].match[0].port"),
        ("rewrite: {}", "!http[0].rewrite"),
        (
            "rewrite: {uri: /, uriRegexRewrite: {match: a, rewrite: b}}",
            "!http[0].rewrite.uriRegexRewrite",
        ),
        (
            "retries: {attempts: 1, retryOn: '200,nothing'}",
            "!http[0].retries.retryOn",
        ),
        ("retries: {retryOn: 5xx}", "!http[0].retries"),
        ("fault: {}", "!http[0].fault"),
        (
            "fault: {abort: {httpStatus: 601}}",
            "!http[0].fault.abort.httpStatus",
        ),
        (
            "fault: {abort: {grpcStatus: NOPE}}",
            "!http[0].fault.abort.grpcStatus",
        ),
        (
            "fault: {delay: {fixedDelay: 1s, percentage: {value: 0.00001}}}",
            "!http[0].fault.delay.percentage.value",
        ),
        (
            "mirrorPercent: 101",
            "!http[0].mirrorPercent ?http[0].mirrorPercent",
        ),
        (
            "mirror: {host: a}, mirrors: [{destination: {host: b}}]",
            "!http[0].mirrors",
        ),
        (
            "corsPolicy: {allowOrigins: [{exact: ''}]}",
            "!http[0].corsPolicy.allowOrigins[0]",
        ),
        (
            "corsPolicy: {allowMethods: [get], maxAge: 1500ms}",
            "!http[0].corsPolicy.allowMethods[0] !http[0].corsPolicy.maxAge",
        ),
        (
            "headers: {request: {set: {host: a}}, response: {add: {host: a}}}",
            "!http[0].headers.response.add.host",
        ),
        (
            "headers: {request: {set: {host: a}}}, rewrite: {authority: b}",
            "!http[0].headers.request.set.host",
        ),
        ("delegate: {name: a}", "!http[0].route"),
    ];
    for (more, wanted) in rows {
        assert_eq!(found("VirtualService", &route(more)), wanted, "{more}");
    }
    table(
        "VirtualService",
        &[
            ("{hosts: [a.b]}", "!spec"),
            (
                "{hosts: ['*'], http: [{route: [{destination: {host: a}}]}]}",
                "!hosts[0]",
            ),
            (
                "{hosts: ['*'], gateways: [g], http: [{route: [{destination: {host: a}}]}]}",
                "",
            ),
            (
                "{hosts: ['*.b', a.b], http: [{route: [{destination: {host: a}}]}]}",
                "!hosts[1]",
            ),
            (
                "{gateways: [g], http: [{route: [{destination: {host: a}}]}]}",
                "!gateways",
            ),
            (
                "{hosts: [a.b], gateways: [n/g.x], http: [{route: [{destination: {host: a}}]}]}",
                "!gateways[0]",
            ),
            (
                "{hosts: [a.b], http: [{route: [{destination: {host: '*'}}]}]}",
                "!http[0].route[0].destination.host",
            ),
            (
                "{hosts: [a.b], tcp: [{route: [{destination: {host: a}}, {destination: {host: b}}]}]}",
                "!tcp[0].route",
            ),
            (
                "{hosts: [a.b], tls: [{match: [{sniHosts: [c.d]}], route: [{destination: {host: a}}]}]}",
                "!tls[0].match[0].sniHosts[0]",
            ),
            (
                "{hosts: [a.b], tls: [{match: [], route: [{destination: {host: a}}]}]}",
                "!tls[0].match",
            ),
            (
                "{hosts: [a.b], tcp: [{route: [{destination: {host: a}}]}, {route: [{destination: {host: b}}]}]}",
                "?tcp[1]",
            ),
        ],
    );
}

#[test]
fn gateways_and_sidecars() {
    let port = "port: {number: 443, name: a, protocol: HTTPS}, hosts: ['*']";
    let server = |tls: &str| format!("{{servers: [{{{port}, tls: {tls}}}]}}");
    let rows = [
        ("{mode: SIMPLE, credentialName: c}", ""),
        ("{mode: SIMPLE}", "!servers[0].tls !servers[0].tls"),
        (
            "{mode: MUTUAL, serverCertificate: /a, privateKey: /b}",
            "!servers[0].tls",
        ),
        (
            "{mode: ISTIO_MUTUAL, credentialName: c}",
            "!servers[0].tls.credentialName",
        ),
        (
            "{mode: SIMPLE, credentialName: c, credentialNames: [d]}",
            "!servers[0].tls !servers[0].tls.credentialNames",
        ),
        ("{mode: PASSTHROUGH, caCrl: /c}", "?servers[0].tls.caCrl"),
        (
            "{mode: SIMPLE, credentialName: c, cipherSuites: [x, AES128-SHA, AES128-SHA]}",
            "?servers[0].tls.cipherSuites[0] ?servers[0].tls.cipherSuites[2]",
        ),
        (
            "{mode: SIMPLE, credentialName: c, minProtocolVersion: TLSV1_0}",
            "?servers[0].tls.minProtocolVersion",
        ),
    ];
    for (tls, wanted) in rows {
        assert_eq!(found("Gateway", &server(tls)), wanted, "{tls}");
    }
    table(
        "Gateway",
        &[
            ("{}", "!spec"),
            (
                "{servers: [{port: {number: 80, name: a, protocol: HTTP}, hosts: [a]}]}",
                "!servers[0].hosts[0]",
            ),
            (
                "{servers: [{port: {number: 443, name: a, protocol: HTTPS}, hosts: ['*']}]}",
                "!servers[0]",
            ),
            (
                "{servers: [{port: {number: 80, name: a, protocol: HTTP}, hosts: ['*'], tls: {httpsRedirect: true}}]}",
                "",
            ),
            (
                "{servers: [{port: {number: 80, name: a, protocol: HTTP}, hosts: ['*'], bind: x}]}",
                "!servers[0].bind",
            ),
            (
                "{servers: [{port: {number: 1, name: a, protocol: TCP}, hosts: ['*'], bind: 'unix:///a'}]}",
                "!servers[0].port.number",
            ),
        ],
    );
    table(
        "Sidecar",
        &[
            ("{}", "!spec"),
            ("{egress: [{hosts: ['*/*']}]}", ""),
            ("{egress: [{hosts: [a.b]}]}", "!egress[0].hosts[0]"),
            ("{egress: [{hosts: ['./*', './a.b']}]}", "?egress[0].hosts[1]"),
            ("{egress: [{hosts: ['./*']}, {hosts: ['./*']}]}", "!egress[0]"),
            ("{egress: [{port: {number: 0}, hosts: ['./*']}]}", "!egress[0]"),
            (
                "{ingress: [{port: {number: 80, protocol: HTTP}, defaultEndpoint: '1.2.3.4:80'}]}",
                "!ingress[0].defaultEndpoint",
            ),
            (
                "{ingress: [{port: {number: 80, protocol: HTTP}, tls: {mode: SIMPLE, serverCertificate: a, privateKey: b}}]}",
                "!ingress[0].port.protocol",
            ),
            (
                "{ingress: [{port: {number: 80}}, {port: {number: 80}}]}",
                "!ingress[1].port.number",
            ),
            (
                "{outboundTrafficPolicy: {mode: REGISTRY_ONLY, egressProxy: {host: a.b, port: {number: 1}}}}",
                "!outboundTrafficPolicy.egressProxy",
            ),
        ],
    );
}

#[test]
fn entries() {
    table(
        "ServiceEntry",
        &[
            (
                "{hosts: [a.b], ports: [{number: 80, name: h, protocol: HTTP}], resolution: DNS}",
                "",
            ),
            ("{hosts: [a.b], addresses: [1.2.3.4/8], resolution: DNS}", "!spec"),
            ("{hosts: ['*.b'], resolution: DNS}", "!hosts[0]"),
            (
                "{hosts: [a.b], resolution: STATIC, endpoints: [{address: c.d}]}",
                "!endpoints[0].address",
            ),
            (
                "{hosts: [a.b], ports: [{number: 80, name: h}], resolution: STATIC, endpoints: [{address: 1.2.3.4, ports: {x: 1}}]}",
                "!endpoints[0].ports.x",
            ),
            ("{hosts: [a.b], resolution: DYNAMIC_DNS}", "!hosts[0]"),
            (
                "{hosts: ['*.b'], resolution: DYNAMIC_DNS, ports: [{number: 80, name: h, protocol: TCP}]}",
                "!ports[0].protocol",
            ),
            (
                "{hosts: [a.b, c.d], resolution: DNS, ports: [{number: 80, name: h, protocol: TCP}]}",
                "!ports[0]",
            ),
            (
                "{hosts: [a.b], ports: [{number: 80, name: h}], resolution: NONE}",
                "?ports[0]",
            ),
            (
                "{hosts: [a.b], workloadSelector: {labels: {a: '*'}}, resolution: STATIC}",
                "!workloadSelector.labels.a",
            ),
        ],
    );
    table(
        "WorkloadEntry",
        &[
            ("{address: 1.2.3.4}", ""),
            ("{address: a_b}", "!address"),
            ("{network: n}", "?spec"),
            ("{address: 'unix:///a', ports: {a: 1}}", "!spec"),
            ("{address: 1.2.3.4, labels: {'-a': b}}", "!labels.-a"),
        ],
    );
    table(
        "WorkloadGroup",
        &[
            ("{template: {}}", ""),
            ("{template: {}, probe: {}}", "!probe"),
            ("{template: {}, probe: {exec: {command: []}}}", "!probe.exec"),
            (
                "{template: {}, probe: {httpGet: {port: 80, scheme: FTP}}}",
                "!probe.httpGet.scheme",
            ),
        ],
    );
}

#[test]
fn telemetry_and_extensions() {
    table(
        "Telemetry",
        &[
            ("{tracing: [{}, {}]}", "?tracing"),
            (
                "{tracing: [{randomSamplingPercentage: 101}]}",
                "!tracing[0].randomSamplingPercentage",
            ),
            (
                "{metrics: [{overrides: [{tagOverrides: {a: {}}}]}]}",
                "!metrics[0].overrides[0].tagOverrides.a",
            ),
            (
                "{accessLogging: [{filter: {expression: 'a >'}}]}",
                "!accessLogging[0].filter.expression",
            ),
            (
                "{selector: {matchLabels: {a: b}}, targetRef: {kind: Service, name: s}}",
                "!targetRef",
            ),
        ],
    );
    table(
        "ProxyConfig",
        &[
            ("{concurrency: -1}", "!concurrency"),
            ("{selector: {matchLabels: {a: '*'}}}", "!selector.matchLabels.a"),
        ],
    );
    table(
        "WasmPlugin",
        &[
            ("{url: oci://a/b}", ""),
            ("{url: ftp://a}", "!url"),
            ("{url: a.b/c, sha256: abc}", "!sha256"),
            (
                "{url: a, vmConfig: {env: [{name: A}, {name: A}]}}",
                "!vmConfig.env",
            ),
            (
                "{url: a, match: [{ports: [{number: 0}]}]}",
                "!match[0].ports[0].number",
            ),
        ],
    );
    table(
        "TrafficExtension",
        &[
            ("{}", "!spec"),
            ("{lua: {inlineCode: x}}", ""),
            ("{lua: {inlineCode: x}, wasm: {url: a}}", "!spec"),
        ],
    );
    table(
        "EnvoyFilter",
        &[
            (
                "{configPatches: [{applyTo: CLUSTER, patch: {operation: REMOVE}}]}",
                "?spec",
            ),
            (
                "{configPatches: [{applyTo: CLUSTER, patch: {operation: ADD}}]}",
                "?spec !configPatches[0].patch",
            ),
            (
                "{configPatches: [{applyTo: CLUSTER, match: {listener: {}}, patch: {operation: REMOVE}}]}",
                "?spec !configPatches[0].match.listener",
            ),
            (
                "{configPatches: [{applyTo: CLUSTER, match: {proxy: {proxyVersion: '('}}, patch: {operation: REMOVE}}]}",
                "?spec !configPatches[0].match.proxy.proxyVersion",
            ),
        ],
    );
}

#[test]
fn security_kinds_by_their_schema() {
    let long = "x".repeat(64);
    assert_eq!(
        found(
            "PeerAuthentication",
            &format!("{{selector: {{matchLabels: {{a: {long}}}}}}}")
        ),
        "!selector.matchLabels.a"
    );
    table(
        "RequestAuthentication",
        &[
            ("{jwtRules: [{issuer: a, jwksUri: 'https://a/b'}]}", ""),
            (
                "{jwtRules: [{issuer: a, jwksUri: 'https://a', jwks: '{\"keys\": []}'}]}",
                "!jwtRules[0]",
            ),
            (
                "{jwtRules: [{issuer: a, jwks: '{\"keys\": [{\"kty\": \"RSA\"}]}'}]}",
                "!jwtRules[0].jwks",
            ),
            ("{jwtRules: [{issuer: a, timeout: 1us}]}", "!jwtRules[0].timeout"),
            ("{jwtRules: [{jwksUri: 'https://a'}]}", "!jwtRules[0]"),
        ],
    );
    let deny = |rule: &str| {
        found(
            "AuthorizationPolicy",
            &format!("{{action: DENY, rules: [{rule}]}}"),
        )
    };
    assert_eq!(deny("{to: [{operation: {paths: [/a]}}]}"), "?rules[0]");
    assert_eq!(deny("{to: [{operation: {paths: [/a], ports: ['80']}}]}"), "");
    assert_eq!(
        deny("{to: [{operation: {ports: ['+80']}}]}"),
        "!rules[0].to[0].operation.ports[0]"
    );
    assert_eq!(deny("{from: [{source: {namespaces: [a]}}]}"), "");
    assert_eq!(
        deny("{from: [{source: {namespaces: [a]}}], to: [{operation: {methods: [GET]}}]}"),
        "?rules[0]"
    );
    assert_eq!(
        found(
            "AuthorizationPolicy",
            "{action: CUSTOM, provider: {name: My_Provider.x}, rules: [{}]}"
        ),
        ""
    );
}
