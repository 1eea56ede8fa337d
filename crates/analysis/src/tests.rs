use std::sync::Arc;

use compiler::Options;
use model::Profile;

use super::*;

const WORLD: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: a, labels: {istio-injection: enabled}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: a}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {serviceAccountName: web, containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: a}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: plain, namespace: b}
spec:
  selector: {matchLabels: {app: plain}}
  template:
    metadata: {labels: {app: plain}}
    spec: {containers: [{name: c, image: i}]}
";

fn offline(profile: Profile) -> Offline {
    let parsed = api::parse("world.yaml", WORLD.as_bytes());
    assert!(!parsed.has_errors(), "{:?}", parsed.problems);
    let objects = parsed.objects.into_iter().map(Arc::new).collect();
    let options = Options {
        profile,
        ..Options::default()
    };
    Offline::new(objects, Vec::new(), options).unwrap()
}

fn question(json: &str) -> Question<'_> {
    serde_json::from_str(json).unwrap()
}

#[test]
fn plaintext_is_refused_by_the_mode_before_any_policy() {
    let world = offline(Profile::Secure);
    let asked = question(r#"{"id": 7, "to": {"namespace": "a", "service": "web", "port": 80}}"#);
    let answer = world.ask(&asked, &Providers::new(), true);
    assert_eq!(answer.decision, Decision::Deny);
    assert_eq!(answer.reason, "PLAINTEXT_REFUSED");
    assert_eq!(answer.id, Some(7.into()));
    assert!(answer.steps.iter().any(|s| s.stage == "tls"), "{answer:?}");
}

#[test]
fn outside_the_mesh_nothing_is_refused() {
    let world = offline(Profile::Secure);
    // There is only one port.
    let asked = question(r#"{"to": {"namespace": "a", "service": "web"}}"#);
    assert_eq!(asked.to.port, 0);
    let asked = question(r#"{"to": {"namespace": "b", "workload": "plain", "port": 80}}"#);
    let answer = world.ask(&asked, &Providers::new(), false);
    assert_eq!(
        (answer.decision, &*answer.reason),
        (Decision::Allow, "NOT_IN_MESH")
    );
}

#[test]
fn what_is_not_there_is_unknown_and_said() {
    let world = offline(Profile::Secure);
    for (asked, why) in [
        (
            r#"{"to": {"namespace": "a", "workload": "no", "port": 1}}"#,
            "a/no",
        ),
        (
            r#"{"to": {"namespace": "a", "service": "no", "port": 1}}"#,
            "a/no",
        ),
        (
            r#"{"to": {"namespace": "a", "service": "web", "port": 81}}"#,
            "81",
        ),
        (r#"{"to": {"namespace": "a", "port": 81}}"#, "neither"),
    ] {
        let answer = world.ask(&question(asked), &Providers::new(), false);
        assert_eq!(answer.decision, Decision::Unknown, "{asked}");
        assert!(answer.reason.contains(why), "{asked}: {}", answer.reason);
    }
}

#[test]
fn labels_stand_for_a_workload_that_need_not_exist() {
    let mut world = offline(Profile::Secure);
    let asked = question(r#"{"to": {"namespace": "a", "labels": {"app": "new"}, "port": 9}}"#);
    world.prepare([&asked.to].into_iter()).unwrap();
    let answer = world.ask(&asked, &Providers::new(), false);
    assert_eq!(answer.reason, "PLAINTEXT_REFUSED");
}

#[test]
fn unknown_fields_of_a_question_are_refused() {
    let wrong =
        serde_json::from_str::<Question<'_>>(r#"{"to": {"namespace": "a", "port": 1}, "methood": "GET"}"#);
    assert!(wrong.is_err());
}

/// The codes that are found beyond the world's own, with what they are about.
fn found(profile: Profile, text: &str) -> Vec<(String, String)> {
    let mut objects = Vec::new();
    for text in [WORLD, text] {
        let parsed = api::parse("world.yaml", text.as_bytes());
        let wrong = |p: &&api::Problem| p.severity == api::Severity::Error && p.code != "MW0106";
        assert_eq!(parsed.problems.iter().find(wrong), None);
        objects.extend(parsed.objects.into_iter().map(Arc::new));
    }
    let options = Options {
        profile,
        ..Options::default()
    };
    let world = Offline::new(objects, Vec::new(), options).unwrap();
    let found = world.lint().into_iter();
    found
        .inspect(|p| {
            assert!(
                p.line > 0 && p.remedy.is_some() && p.file == "world.yaml",
                "{p:?}"
            )
        })
        .map(|p| (p.code.to_string(), p.path))
        .collect()
}

fn authorization(action: &str, rule: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: a}}\nspec:\n  selector: {{matchLabels: {{app: web}}}}\n  action: {action}\n  rules:\n  - {rule}\n"
    )
}

#[track_caller]
fn finds(action: &str, rule: &str, code: &str, path: &str) {
    let all = found(Profile::Secure, &authorization(action, rule));
    assert!(
        all.contains(&(code.to_owned(), path.to_owned())),
        "{rule}: {all:?}"
    );
}

#[track_caller]
fn silent(action: &str, rule: &str, code: &str) {
    let all = found(Profile::Secure, &authorization(action, rule));
    assert!(all.iter().all(|(found, _)| found != code), "{rule}: {all:?}");
}

#[test]
fn r_50_paths_that_are_not_in_normal_form_are_found() {
    let at = "spec.rules[0].to[0].operation.";
    finds(
        "ALLOW",
        "to: [{operation: {paths: [/ok, /a//b]}}]",
        "MW0701",
        &format!("{at}paths[1]"),
    );
    finds(
        "DENY",
        "to: [{operation: {notPaths: [/a/./b*]}}]",
        "MW0701",
        &format!("{at}notPaths[0]"),
    );
    silent(
        "ALLOW",
        "to: [{operation: {paths: [/a/b, /c/*, \"*.css\", \"*\", \"/x/{*}/y\"]}}]",
        "MW0701",
    );
    // It is the mode of the mesh that counts: BASE keeps slashes.
    let twice = authorization("ALLOW", "to: [{operation: {paths: [/a//b]}}]");
    assert_eq!(found(Profile::Istio, &twice), []);
}

#[test]
fn p_4_patterns_that_fail_open_are_found() {
    finds(
        "DENY",
        "to: [{operation: {paths: [/admin*]}}]",
        "MW0702",
        "spec.rules[0]",
    );
    finds(
        "DENY",
        "when: [{key: \"request.headers[x]\", values: [a]}]",
        "MW0702",
        "spec.rules[0]",
    );
    finds(
        "ALLOW",
        "from: [{source: {notNamespaces: [b]}}]",
        "MW0702",
        "spec.rules[0]",
    );
    finds(
        "ALLOW",
        "when: [{key: source.ip, notValues: [10.0.0.1]}]",
        "MW0702",
        "spec.rules[0]",
    );
    silent("DENY", "to: [{operation: {notPaths: [/public*]}}]", "MW0702");
    silent("DENY", "from: [{source: {namespaces: [b]}}]", "MW0702");
    silent("DENY", "from: [{source: {notPrincipals: [\"*\"]}}]", "MW0702");
    silent(
        "ALLOW",
        "to: [{operation: {paths: [/public*], methods: [GET]}}]",
        "MW0702",
    );
}

#[test]
fn p_12_hosts_on_a_workload_are_found_and_at_a_gateway_not() {
    let at = "spec.rules[0].to[0].operation.hosts";
    finds(
        "ALLOW",
        "to: [{operation: {hosts: [\"*.example.com\"]}}]",
        "MW0703",
        at,
    );
    finds(
        "ALLOW",
        "when: [{key: \"request.headers[:authority]\", values: [a]}]",
        "MW0703",
        "spec.rules[0].when[0].values",
    );
    silent(
        "ALLOW",
        "when: [{key: \"request.headers[x-host]\", values: [a]}]",
        "MW0703",
    );
    let gateway = authorization("ALLOW", "to: [{operation: {hosts: [\"*.example.com\"]}}]")
        .replace("app: web", "istio: ingressgateway");
    assert_eq!(found(Profile::Secure, &gateway), []);
}

#[test]
fn p_11_an_exact_host_without_the_form_with_a_port_is_found() {
    let at = "spec.rules[0].to[0].operation.hosts[0]";
    let exact = authorization("ALLOW", "to: [{operation: {hosts: [a.example]}}]");
    let has =
        |profile: Profile, text: &str| found(profile, text).contains(&("MW0704".to_owned(), at.to_owned()));
    assert!(has(Profile::Istio, &exact));
    for hosts in [
        "[a.example, \"a.example:*\"]",
        "[a.example, \"a.example:8080\"]",
        "[\"*.example\"]",
    ] {
        let text = authorization("ALLOW", &format!("to: [{{operation: {{hosts: {hosts}}}}}]"));
        assert!(!has(Profile::Istio, &text), "{hosts}");
    }
}

const TOKENS: &str = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: jwt, namespace: a}\nspec:\n  selector: {matchLabels: {app: web}}\n  jwtRules: [{issuer: \"https://i\", jwksUri: \"https://i/keys\"}]\n";

#[test]
fn p_56_a_token_that_nobody_demands_is_found() {
    let code = ("MW0705".to_owned(), "spec.jwtRules".to_owned());
    assert_eq!(found(Profile::Secure, TOKENS), std::slice::from_ref(&code));
    let with = |policy: String| found(Profile::Secure, &format!("{TOKENS}---\n{policy}"));
    let unrelated = authorization("ALLOW", "from: [{source: {namespaces: [a]}}]");
    assert!(with(unrelated).contains(&code));
    let demands = authorization("DENY", "from: [{source: {notRequestPrincipals: [\"*\"]}}]");
    assert!(!with(demands.clone()).contains(&code));
    let of_root = demands
        .replace("namespace: a", "namespace: istio-system")
        .replace("  selector: {matchLabels: {app: web}}\n", "");
    assert!(!with(of_root).contains(&code));
    let by_claim = authorization(
        "ALLOW",
        "when: [{key: \"request.auth.claims[role]\", values: [x]}]",
    );
    assert!(!with(by_claim).contains(&code));
    let of_others = demands.replace("app: web", "app: other");
    assert!(with(of_others).contains(&code));
}

#[test]
fn a_port_that_no_selected_workload_declares_is_found() {
    // 80 is the Service's, 8080 the workload's.
    finds(
        "ALLOW",
        "to: [{operation: {ports: [\"80\"]}}]",
        "MW0706",
        "spec.rules[0].to[0].operation.ports[0]",
    );
    finds(
        "ALLOW",
        "when: [{key: destination.port, values: [\"81\"]}]",
        "MW0706",
        "spec.rules[0].when[0].values[0]",
    );
    silent("ALLOW", "to: [{operation: {ports: [\"8080\"]}}]", "MW0706");
    let nobody =
        authorization("ALLOW", "to: [{operation: {ports: [\"80\"]}}]").replace("app: web", "app: nobody");
    assert_eq!(found(Profile::Secure, &nobody), []);
}

/// The world of [`WORLD`] with more objects in it.
fn with(profile: Profile, text: &str) -> Offline {
    let mut objects = Vec::new();
    for text in [WORLD, text] {
        let parsed = api::parse("world.yaml", text.as_bytes());
        assert!(!parsed.has_errors(), "{:?}", parsed.problems);
        objects.extend(parsed.objects.into_iter().map(Arc::new));
    }
    let options = Options {
        profile,
        ..Options::default()
    };
    Offline::assuming(objects, Vec::new(), options).unwrap()
}

fn asked(world: &Offline, providers: &Providers, more: &str) -> Answer {
    let text = format!(
        r#"{{"from": {{"namespace": "a", "serviceAccount": "x"}}, "to": {{"namespace": "a", "service": "web", "port": 80}}, "path": "/"{more}}}"#
    );
    world.ask(&question(&text), providers, true)
}

#[test]
fn o_15_what_a_caller_says_in_a_proxys_place_decides_nothing() {
    let header = |name: &str| {
        authorization(
            "ALLOW",
            &format!("when: [{{key: \"request.headers[{name}]\", values: [\"*\"]}}]"),
        )
    };
    let admits = |profile: Profile, name: &str| {
        let world = with(profile, &header(name));
        let fields = format!(r#", "headers": {{"{name}": ["1"]}}"#);
        asked(&world, &Providers::new(), &fields).decision == Decision::Allow
    };
    for (name, secure, istio) in [
        ("x-mine", true, true),
        ("X-Forwarded-For", false, true),
        ("x-envoy-peer", false, true),
        ("x-envoy-internal", false, false),
        // The proxy says who calls, whoever else says so.
        ("x-forwarded-client-cert", true, true),
    ] {
        assert_eq!(
            (admits(Profile::Secure, name), admits(Profile::Istio, name)),
            (secure, istio),
            "{name}"
        );
    }
}

#[test]
fn id_08_r9_who_calls_is_what_the_proxy_says_and_not_the_caller() {
    let rule = |value: &str| {
        authorization(
            "ALLOW",
            &format!("when: [{{key: \"request.headers[x-forwarded-client-cert]\", values: [\"{value}\"]}}]"),
        )
    };
    let forged = r#", "headers": {"x-forwarded-client-cert": ["URI=spiffe://evil/ns/a/sa/x"]}"#;
    let decision =
        |profile, value: &str| asked(&with(profile, &rule(value)), &Providers::new(), forged).decision;
    assert_eq!(
        decision(Profile::Secure, "*URI=spiffe://cluster.local/ns/a/sa/x"),
        Decision::Allow
    );
    assert_eq!(
        decision(Profile::Secure, "By=spiffe://cluster.local/ns/a/sa/web;*"),
        Decision::Allow
    );
    assert_eq!(decision(Profile::Secure, "URI=spiffe://evil*"), Decision::Deny);
    // Upstream passes on what a mesh peer sent.
    assert_eq!(decision(Profile::Istio, "URI=spiffe://evil*"), Decision::Allow);
}

#[test]
fn r10_istios_profile_believes_the_last_hop() {
    let rule = authorization("ALLOW", "from: [{source: {remoteIpBlocks: [10.9.9.9]}}]");
    let fields = r#", "sourceIP": "10.0.0.1", "headers": {"x-forwarded-for": ["1.1.1.1, 10.9.9.9"]}"#;
    let decision = |profile| asked(&with(profile, &rule), &Providers::new(), fields).decision;
    assert_eq!(decision(Profile::Istio), Decision::Allow);
    assert_eq!(decision(Profile::Secure), Decision::Deny);
}

#[test]
fn what_hangs_on_somebody_whose_answer_is_not_known_is_unknown_and_nothing_else_is() {
    let ask = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: ask, namespace: a}\nspec:\n  action: CUSTOM\n  provider: {name: opa}\n  rules: [{to: [{operation: {paths: [/x]}}]}]\n";
    let open = authorization("ALLOW", "to: [{operation: {paths: [/, /x]}}]");
    let world = with(Profile::Secure, &format!("{ask}---\n{open}"));
    let decision = |path: &str, says: Option<Custom>| {
        let providers = says.map(|says| ("opa".to_owned(), says)).into_iter().collect();
        let text = format!(
            r#"{{"from": {{"namespace": "a", "serviceAccount": "x"}}, "to": {{"namespace": "a", "service": "web", "port": 80}}, "path": "{path}"}}"#
        );
        world.ask(&question(&text), &providers, false).decision
    };
    assert_eq!(decision("/", None), Decision::Allow, "nobody is asked");
    assert_eq!(decision("/x", None), Decision::Unknown);
    assert_eq!(decision("/x", Some(Custom::Unknown)), Decision::Unknown);
    assert_eq!(decision("/x", Some(Custom::Allow)), Decision::Allow);
    assert_eq!(decision("/x", Some(Custom::Deny)), Decision::Deny);
    assert_eq!(
        decision("/other", None),
        Decision::Deny,
        "refused whatever it says"
    );
}

#[test]
fn replicas_that_differ_are_said_and_those_that_do_not_are_one() {
    let canary = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: canary, namespace: a}\nspec:\n  selector: {matchLabels: {app: web, track: canary}}\n  template:\n    metadata: {labels: {app: web, track: canary}}\n    spec: {containers: [{name: c, image: i}]}\n";
    let open = authorization("ALLOW", "to: [{operation: {paths: [/]}}]");
    let same = with(Profile::Secure, &format!("{canary}---\n{open}"));
    let answer = asked(&same, &Providers::new(), "");
    assert_eq!((answer.decision, answer.replicas.len()), (Decision::Allow, 0));
    let deny = open
        .replace("name: p,", "name: d,")
        .replace("ALLOW", "DENY")
        .replace("app: web", "track: canary");
    let differ = with(Profile::Secure, &format!("{canary}---\n{open}---\n{deny}"));
    let answer = asked(&differ, &Providers::new(), "");
    assert_eq!(answer.decision, Decision::Unknown);
    let said: Vec<_> = answer
        .replicas
        .iter()
        .map(|r| (r.pods.join(" "), r.decision))
        .collect();
    assert_eq!(
        said,
        [
            ("a/canary-0".to_owned(), Decision::Deny),
            ("a/web-0".to_owned(), Decision::Allow)
        ]
    );
}

#[test]
fn labels_beyond_the_limit_are_forgotten_and_no_answer_changes() {
    let mut world = with(
        Profile::Secure,
        &authorization("ALLOW", "to: [{operation: {paths: [/]}}]"),
    );
    let line = |n: usize, app: &str| {
        format!(
            r#"{{"id": {n}, "from": {{"namespace": "a", "serviceAccount": "x"}}, "to": {{"namespace": "a", "labels": {{"app": "{app}", "n": "{n}"}}, "port": 9}}, "path": "/"}}"#
        )
    };
    let text: Vec<String> = (0..1_500)
        .map(|n| line(n, if n % 2 == 0 { "web" } else { "other" }))
        .collect();
    let many = |from: usize| {
        text.iter()
            .map(|t| question(t).to)
            .skip(from)
            .take(1_000)
            .collect::<Vec<_>>()
    };
    for from in [0, 500, 0] {
        world.prepare(many(from).iter()).unwrap();
    }
    assert!(world.pods().len() < MAX_LABELLED + 10);
    let mut eval = Eval::new(world, Providers::new());
    let mut out = Vec::new();
    eval.lines(text.join("\n").as_bytes(), &mut out);
    assert_eq!(
        (eval.tally().allowed, eval.tally().denied, eval.tally().unknown),
        (750, 750, 0)
    );
}

#[test]
fn whatever_stands_on_a_line_there_is_one_answer_to_it() {
    let line = r#"{"id": [1, "é\n"], "from": {"namespace": "a", "serviceAccount": "x"}, "to": {"namespace": "a", "labels": {"app": "web"}, "port": 80}, "path": "/a\u002fb%2f..;x", "headers": {"x": ["y", ""]}, "sourceIP": "::1", "claims": {"a": {"b": [1]}}}"#;
    let mut eval = Eval::new(
        with(
            Profile::Secure,
            &authorization("ALLOW", "to: [{operation: {paths: [/]}}]"),
        ),
        Providers::new(),
    );
    let mut text = Vec::new();
    let mut lines = 0;
    for at in 0..line.len() {
        for byte in [0, b'"', b'{', b'[', b'9', b'\\', 0xff] {
            let mut broken = line.as_bytes().to_vec();
            broken[at] = byte;
            text.extend(broken);
            text.push(b'\n');
            lines += 1;
        }
        text.extend(&line.as_bytes()[..at]);
        text.push(b'\n');
        lines += usize::from(at > 0);
    }
    let mut out = Vec::new();
    eval.lines(&text, &mut out);
    let answers: Vec<serde_json::Value> = out
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(answers.len(), lines);
    let tally = eval.tally();
    assert_eq!(
        usize::try_from(tally.allowed + tally.denied + tally.unknown + tally.broken).unwrap(),
        lines
    );
    for answer in answers.iter().filter(|answer| answer["error"].is_string()) {
        let error = answer["error"].as_str().unwrap();
        assert!(
            error.starts_with("line ") && error.contains(" column "),
            "{error}"
        );
        assert_eq!(answer["decision"], "unknown");
    }
}

/// A token of issuer `i1`, by the secret below, until 2033.
const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJpMSIsInN1YiI6InUiLCJleHAiOjIwMDAwMDAwMDAsInJvbGUiOiJhdWRpdG9yIn0.9PHHqevOHZCjajxuXEmk2VpPReoChuVbimEVhDbe5Ok";

#[test]
fn jw_08_jw_09_a_token_is_verified_as_the_proxy_does() {
    let world = |keys: &str| {
        with(
            Profile::Secure,
            &format!(
                "apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: r, namespace: a, annotations: {{meshward.dev/jwt-allow-hmac: \"true\"}}}}
spec: {{jwtRules: [{{issuer: i1, {keys}, outputClaimToHeaders: [{{header: x-role, claim: role}}]}}]}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: p, namespace: a}}
spec:
  rules:
  - to: [{{operation: {{paths: [/claim]}}}}]
    when: [{{key: \"request.auth.claims[role]\", values: [auditor]}}]
  - to: [{{operation: {{paths: [/header]}}}}]
    when: [{{key: \"request.headers[x-role]\", values: [auditor]}}]
  - to: [{{operation: {{paths: [/bearer]}}}}]
    when: [{{key: \"request.headers[authorization]\", values: [\"*\"]}}]
"
            ),
        )
    };
    let inline =
        "jwks: '{\"keys\": [{\"kty\": \"oct\", \"k\": \"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"}]}'";
    let ask = |keys: &str, path: &str, more: &str| {
        let line = format!(
            r#"{{"from": {{"namespace": "a", "serviceAccount": "x"}}, "to": {{"namespace": "a", "labels": {{"app": "web"}}, "port": 80}}, "path": "{path}"{more}}}"#
        );
        let mut world = world(keys);
        let question = question(&line);
        world.prepare(std::iter::once(&question.to)).unwrap();
        let answer = world.ask(&question, &Providers::new(), true);
        (answer.decision, answer.code, answer.reason.to_string())
    };
    let at = |time: u64| format!(r#", "token": "{TOKEN}", "time": {time}"#);
    let good = at(1_900_000_000);
    assert_eq!(ask(inline, "/claim", &good).0, Decision::Allow);
    // Policy sees what the application will: the header of the claim, and no token.
    assert_eq!(ask(inline, "/header", &good).0, Decision::Allow);
    assert_eq!(ask(inline, "/bearer", &good).0, Decision::Deny);
    let forged = r#", "headers": {"x-role": ["auditor"]}"#;
    assert_eq!(ask(inline, "/header", forged).0, Decision::Deny);
    let late = ask(inline, "/claim", &at(2_000_000_061));
    assert_eq!(late, (Decision::Deny, 401, "JWT_INVALID".to_owned()));
    let untimed = ask(inline, "/claim", &format!(r#", "token": "{TOKEN}""#));
    assert!(
        untimed.0 == Decision::Unknown && untimed.2.contains("give `time`"),
        "{untimed:?}"
    );
    let unknown = ask("jwksUri: \"https://i1/keys\"", "/claim", &good);
    assert!(
        unknown.0 == Decision::Unknown && unknown.2.contains("the keys of `i1`"),
        "{unknown:?}"
    );
}
