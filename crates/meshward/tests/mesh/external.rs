//! External authorizers: real ones, as pods in the mesh and outside (semantics 2.13).
//!
//! Open Policy Agent's engine over gRPC and oauth2-proxy over HTTP are built by the set-up (`./test`) from their Go
//! modules into `target/peers`; what needs them says `skipped` where they are not there. Istio's own sample is built in.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use testkit::mesh::{Mesh, unavailable};

use crate::world::{own, program};

/// A program that the set-up has built; `None` after saying why where it has not.
fn peer(name: &str) -> Option<PathBuf> {
    let path = own("target/peers").join(name);
    if path.is_file() {
        return std::fs::canonicalize(path).ok();
    }
    println!("skipped: {name} is not built: `./test peers` builds it where Go is installed");
    None
}

/// The providers of all tests.
const MESH: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - name: sample-http
      envoyExtAuthzHttp:
        service: sample.authz.svc.cluster.local
        port: 8000
        includeRequestHeadersInCheck: [x-ext-authz]
        headersToUpstreamOnAllow: [x-ext-authz-*]
        headersToDownstreamOnDeny: [x-ext-authz-*]
        includeAdditionalHeadersInCheck: {x-ext-authz-additional-header-override: ours}
    - name: sample-grpc
      envoyExtAuthzGrpc: {service: sample.authz.svc.cluster.local, port: 9000}
    - name: plain-grpc
      envoyExtAuthzGrpc: {service: sample.legacy.svc.cluster.local, port: 9000}
    - name: gone
      envoyExtAuthzGrpc: {service: nobody.authz.svc.cluster.local, port: 9000}
    - name: gone-503
      envoyExtAuthzGrpc: {service: nobody.authz.svc.cluster.local, port: 9000, statusOnError: '503'}
    - name: gone-open
      envoyExtAuthzGrpc: {service: nobody.authz.svc.cluster.local, port: 9000, failOpen: true}
    - name: opa
      envoyExtAuthzGrpc:
        service: authz/opa.authz.svc.cluster.local
        port: 9191
        includeRequestBodyInCheck: {maxRequestBytes: 100}
    - name: oauth2-proxy
      envoyExtAuthzHttp:
        service: oauth2-proxy.authz.svc.cluster.local
        port: 4180
        includeRequestHeadersInCheck: [authorization, cookie, x-forwarded-access-token]
        headersToUpstreamOnAllow: [x-auth-request-user]
        headersToDownstreamOnDeny: [content-type, set-cookie]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: all, namespace: m}
spec: {rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: server, namespace: authz}
spec: {rules: [{from: [{source: {principals: [cluster.local/ns/m/sa/server]}}]}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: authz, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: nobody, namespace: authz}
spec: {selector: {app: nobody}, ports: [{name: grpc, port: 9000}]}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: a, namespace: m}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: m, labels: {app: a}}
spec: {serviceAccountName: a, containers: [{name: app, image: curlimages/curl, command: [sleep, infinity]}]}
---
";

/// A Service and a pod of an authorizer.
fn authorizer(namespace: &str, name: &str, image: &str, ports: &str, args: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: {namespace}}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{selector: {{app: {name}}}, ports: [{ports}]}}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}\n\
         spec: {{serviceAccountName: {name}, containers: [{{name: app, image: {image}, args: [{args}]}}]}}\n---\n"
    )
}

fn sample(namespace: &str) -> String {
    let ports = "{name: http, port: 8000}, {name: grpc, port: 9000}";
    authorizer(
        namespace,
        "sample",
        "registry.istio.io/testing/ext-authz",
        ports,
        "",
    )
}

/// A running mesh whose server's pods ask; `more` are further objects.
struct Running {
    mesh: Mesh,
    _directory: tempfile::TempDir,
}

impl Running {
    fn start(hint: &str, more: &str, words: &[&str]) -> Option<Self> {
        if let Some(why) = unavailable() {
            println!("{why}");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("authz.yaml");
        std::fs::write(&path, format!("{MESH}{more}")).unwrap();
        let world = own("crates/meshward/tests/mesh/world.yaml");
        Some(Self {
            mesh: Mesh::start(program(), hint, &[&world, &path], words),
            _directory: directory,
        })
    }

    /// The server's pods ask this provider about everything but `/health`.
    fn ask(&self, provider: &str) {
        self.mesh.apply(&custom(provider));
    }

    fn get(&self, path: &str, words: &[&str]) -> (u16, String) {
        let url = format!("http://server.m:8000{path}");
        let mut all = vec!["-i"];
        all.extend_from_slice(words);
        all.push(&url);
        let said = self.mesh.curl("m", "client", &all);
        (said.code, said.body.to_lowercase())
    }

    fn tcp(&self, from: &str) -> String {
        let program = program().display().to_string();
        let words = [
            program.as_str(),
            "workload",
            "probe",
            "tcp",
            "--addr",
            "server.m:7000",
        ];
        let done = self.mesh.exec("m", from, &words);
        let said: serde_json::Value = serde_json::from_str(&done.stdout).unwrap_or_default();
        said["outcome"].as_str().unwrap_or(&done.stderr).to_owned()
    }
}

fn custom(provider: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: ask, namespace: m}}\nspec:\n  \
         selector: {{matchLabels: {{app: server}}}}\n  action: CUSTOM\n  provider: {{name: {provider}}}\n  rules:\n  \
         - to: [{{operation: {{notPaths: [/health]}}}}]\n"
    )
}

const ALLOW: [&str; 2] = ["-H", "x-ext-authz: allow"];
const DENY: [&str; 2] = ["-H", "x-ext-authz: deny"];

#[test]
fn az_071_to_075_istios_sample_in_the_mesh_and_outside() {
    let more = [sample("authz"), sample("legacy")].concat();
    let Some(running) = Running::start("extauthz", &more, &[]) else {
        return;
    };
    for provider in ["sample-http", "sample-grpc", "plain-grpc"] {
        running.ask(provider);
        let (code, body) = running.get("/", &ALLOW);
        assert_eq!(code, 200, "AZ-071 {provider}: {body}");
        assert!(
            body.contains("x-ext-authz-check-result:allowed"),
            "{provider}: {body}"
        );
        assert!(
            body.contains("uri=spiffe://cluster.local/ns/m/sa/client"),
            "{provider}: {body}"
        );
        let (code, body) = running.get("/", &DENY);
        assert_eq!(code, 403, "AZ-072 {provider}: {body}");
        assert!(
            body.contains("denied by ext_authz for not found header"),
            "{provider}: {body}"
        );
        assert!(
            body.contains("x-ext-authz-check-result: denied"),
            "{provider}: {body}"
        );
        for words in [&ALLOW, &DENY] {
            assert_eq!(running.get("/health", words).0, 200, "AZ-073 {provider}");
        }
        // Connections, by the caller's service account; the authorizer over HTTP cannot be asked about them (R17).
        let expect = if provider == "sample-http" {
            "reset"
        } else {
            "echoed"
        };
        assert_eq!(running.tcp("a"), expect, "AZ-074 {provider}");
        assert_ne!(running.tcp("client"), "echoed", "AZ-075 {provider}");
    }
    let grpc = |header: &str| {
        let program = program().display().to_string();
        let words = [
            program.as_str(),
            "workload",
            "probe",
            "grpc",
            "--addr",
            "server.m:8070",
            "--header",
            header,
        ];
        running.mesh.exec("m", "client", &words).stdout
    };
    assert!(grpc("x-ext-authz=allow").contains("OK"));
    assert!(grpc("x-ext-authz=deny").contains("PermissionDenied"));
    let log = running.mesh.access_log();
    let refused = log
        .iter()
        .find(|line| line["reason"] == "DENY_CUSTOM" && line["details"] == "ext_authz_denied");
    let refused = refused.unwrap_or_else(|| panic!("{log:#?}"));
    assert_eq!(
        (&refused["flags"], &refused["policy"]["name"]),
        (&"UAEX".into(), &"ask".into())
    );
    // The authorizer in the mesh is called in the server's name, over mutual TLS.
    let called = log
        .iter()
        .filter(|line| line["destination"]["namespace"] == "authz");
    let called: Vec<_> = called.filter(|line| line["kind"] == "request").collect();
    assert!(!called.is_empty());
    for line in called {
        assert_eq!(
            line["source"]["principal"], "spiffe://cluster.local/ns/m/sa/server",
            "{line:#}"
        );
        assert!(
            matches!(line["wire"].as_str(), Some("mutual_tls" | "local")),
            "{line:#}"
        );
    }
    let metrics = running.mesh.run(&["metrics"]).stdout;
    assert!(
        metrics.contains("meshward_ext_authz_total{provider=\"sample-grpc\",result=\"denied\"}"),
        "{metrics}"
    );
}

#[test]
fn p_59_an_authorizer_that_is_down_denies_within_bound() {
    let Some(running) = Running::start("extdown", "", &[]) else {
        return;
    };
    for (provider, code) in [
        ("gone", 403),
        ("gone-503", 503),
        ("gone-open", 200),
        ("unknown", 403),
    ] {
        let policy = custom(provider);
        let done = running.mesh.run_with(&["apply", "-f", "-"], &policy);
        let since = Instant::now();
        let (got, body) = running.get("/", &[]);
        assert_eq!(got, code, "{provider}: {body} {done:?}");
        assert!(
            since.elapsed() < Duration::from_secs(3),
            "{provider}: {:?}",
            since.elapsed()
        );
        let status = running.mesh.json(&["status"]).to_string();
        assert_eq!(
            status.contains("provider `unknown` is not defined"),
            provider == "unknown",
            "{status}"
        );
        assert_eq!(
            status.contains("has `failOpen`"),
            provider == "gone-open",
            "{status}"
        );
    }
    let log = running.mesh.access_log();
    let result = |result: &str| log.iter().any(|line| line["extAuthz"][0]["result"] == result);
    assert!(
        result("error") && result("failure_mode_allowed") && result("unasked"),
        "{log:#?}"
    );
}

#[test]
fn opa_over_grpc_decides_requests_connections_and_bodies() {
    let Some(opa) = peer("opa-authz") else { return };
    let policy = own("crates/meshward/tests/peers/opa/policy.rego");
    let args = format!(
        "-addr, ':9191', -policy, {}",
        std::fs::canonicalize(policy).unwrap().display()
    );
    let more = authorizer(
        "authz",
        "opa",
        "openpolicyagent/opa",
        "{name: grpc, port: 9191}",
        &args,
    );
    let image = format!("opa={}", opa.display());
    let Some(running) = Running::start("extopa", &more, &["--image", &image]) else {
        return;
    };
    running.ask("opa");
    let (code, body) = running.get(
        "/a?checked=no&x=1",
        &[ALLOW.as_slice(), &["-H", "x-secret: 1"]].concat(),
    );
    assert_eq!(code, 200, "{body}");
    for expect in ["x-user:opa", "x-checked: opa", "url=/a?x=1&checked=yes"] {
        assert!(body.contains(expect), "{expect}: {body}");
    }
    assert!(
        !body.contains("x-secret") && !body.contains("forged"),
        "O-15: {body}"
    );
    assert!(
        body.contains("uri=spiffe://cluster.local/ns/m/sa/client"),
        "{body}"
    );
    let (code, body) = running.get("/", &DENY);
    assert_eq!(
        (code, body.contains("denied by ext_authz")),
        (403, true),
        "{body}"
    );
    // By what the body says, and not where it says too much.
    let (code, body) = running.get("/", &["-d", "please let me in"]);
    assert_eq!(code, 200, "{body}");
    assert_eq!(running.get("/", &["-d", "anybody there"]).0, 403);
    let long = "let me in ".repeat(50);
    assert_eq!(running.get("/", &["-d", &long]).0, 413);
    assert_eq!(running.tcp("a"), "echoed");
    assert_ne!(running.tcp("client"), "echoed");
}

#[test]
fn oauth2_proxy_over_http_redirects_browsers_and_admits_who_has_a_password() {
    let Some(proxy) = peer("oauth2-proxy") else { return };
    let directory = tempfile::tempdir().unwrap();
    let passwords = directory.path().join("passwords");
    // `user` with the password `secret`.
    std::fs::write(&passwords, "user:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n").unwrap();
    let words = [
        "--http-address=0.0.0.0:4180",
        "--provider=github",
        "--client-id=id",
        "--client-secret=secret",
        "--cookie-secret=0123456789abcdef",
        "--email-domain=*",
        "--upstream=static://200",
        "--skip-provider-button=true",
        "--set-xauthrequest=true",
        &format!("--htpasswd-file={}", passwords.display()),
    ]
    .map(|word| format!("'{word}'"))
    .join(", ");
    let ports = "{name: http, port: 4180}";
    let more = authorizer(
        "authz",
        "oauth2-proxy",
        "quay.io/oauth2-proxy/oauth2-proxy",
        ports,
        &words,
    );
    let image = format!("oauth2-proxy={}", proxy.display());
    let Some(running) = Running::start("extoauth", &more, &["--image", &image]) else {
        return;
    };
    running.ask("oauth2-proxy");
    let (code, body) = running.get("/private", &["-H", "accept: text/html"]);
    assert_eq!(code, 302, "{body}");
    assert!(
        body.contains("location: https://github.com/login/oauth/authorize"),
        "{body}"
    );
    assert!(body.contains("set-cookie: _oauth2_proxy_csrf"), "{body}");
    let (code, body) = running.get("/private", &["-u", "user:secret"]);
    assert_eq!(code, 200, "{body}");
    assert!(body.contains("url=/private"), "{body}");
    assert_ne!(running.get("/private", &["-u", "user:wrong"]).0, 200);
    assert_eq!(running.get("/health", &[]).0, 200);
}
