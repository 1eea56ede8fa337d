//! MeshConfig `extensionProviders`, as far as they are external authorizers. Other kinds of providers stay raw.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::MeshConfig;
use crate::forms::durations::duration_ms;
use crate::problem::Span;
use crate::report::Report;
use crate::yaml::Node;

/// One of `extensionProviders`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExtensionProvider {
    /// Its name; empty where it has none.
    pub name: String,
    /// What it is, or what is wrong with it.
    pub kind: Result<ExtensionKind, Vec<ExtensionFault>>,
}

/// What kind of provider it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ExtensionKind {
    /// An external authorizer.
    ExtAuthz(Box<ExtAuthz>),
    /// Another one, by the name of its field. It cannot decide.
    Other(String),
}

/// A value of a provider that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExtensionFault {
    /// The field below the provider: `envoyExtAuthzHttp.port`.
    pub field: String,
    /// Why.
    pub why: String,
}

/// `envoyExtAuthzHttp` or `envoyExtAuthzGrpc`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExtAuthz {
    /// `service`: the namespace where one is written, and the host.
    pub service: (Option<String>, String),
    /// `port`.
    pub port: u16,
    /// `timeout` in milliseconds.
    pub timeout_ms: Option<u64>,
    /// `failOpen`.
    pub fail_open: bool,
    /// `statusOnError`.
    pub status_on_error: Option<u16>,
    /// `clearRouteCache`. Without meaning before a workload, which has one route.
    pub clear_route_cache: bool,
    /// `includeRequestBodyInCheck`.
    pub body: Option<RequestBody>,
    /// What only an authorizer over HTTP has; `None` for gRPC.
    pub http: Option<ExtAuthzHttp>,
}

/// `includeRequestBodyInCheck`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RequestBody {
    /// `maxRequestBytes`.
    #[serde(alias = "max_request_bytes")]
    pub max_request_bytes: u32,
    /// `allowPartialMessage`.
    #[serde(alias = "allow_partial_message")]
    pub allow_partial_message: bool,
    /// `packAsBytes`; gRPC only.
    #[serde(alias = "pack_as_bytes")]
    pub pack_as_bytes: bool,
}

/// Fields of `envoyExtAuthzHttp` alone. Names of header fields are whole, or have `*` at one end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ExtAuthzHttp {
    /// `pathPrefix`.
    pub path_prefix: String,
    /// `includeRequestHeadersInCheck`, or the older `includeHeadersInCheck` where that is empty.
    pub headers: Vec<String>,
    /// `includeAdditionalHeadersInCheck`.
    pub additional: BTreeMap<String, String>,
    /// `headersToUpstreamOnAllow`.
    pub to_upstream: Vec<String>,
    /// `headersToDownstreamOnDeny`.
    pub to_downstream_on_deny: Vec<String>,
    /// `headersToDownstreamOnAllow`.
    pub to_downstream_on_allow: Vec<String>,
}

/// The two messages as they are written; the one over gRPC has the first part.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Written {
    service: String,
    port: u32,
    timeout: Option<String>,
    #[serde(alias = "fail_open")]
    fail_open: bool,
    #[serde(alias = "clear_route_cache")]
    clear_route_cache: bool,
    #[serde(alias = "status_on_error")]
    status_on_error: String,
    #[serde(alias = "include_request_body_in_check")]
    include_request_body_in_check: Option<RequestBody>,
    #[serde(alias = "path_prefix")]
    path_prefix: String,
    #[serde(alias = "include_headers_in_check")]
    include_headers_in_check: Vec<String>,
    #[serde(alias = "include_request_headers_in_check")]
    include_request_headers_in_check: Vec<String>,
    #[serde(alias = "include_additional_headers_in_check")]
    include_additional_headers_in_check: BTreeMap<String, String>,
    #[serde(alias = "headers_to_upstream_on_allow")]
    headers_to_upstream_on_allow: Vec<String>,
    #[serde(alias = "headers_to_downstream_on_deny")]
    headers_to_downstream_on_deny: Vec<String>,
    #[serde(alias = "headers_to_downstream_on_allow")]
    headers_to_downstream_on_allow: Vec<String>,
}

/// Fields that only `envoyExtAuthzHttp` has.
const HTTP_ONLY: [&str; 7] = [
    "pathPrefix",
    "includeHeadersInCheck",
    "includeRequestHeadersInCheck",
    "includeAdditionalHeadersInCheck",
    "headersToUpstreamOnAllow",
    "headersToDownstreamOnDeny",
    "headersToDownstreamOnAllow",
];

/// Statuses that Envoy can be told to answer with.
fn is_status(code: u16) -> bool {
    matches!(code, 200..=208 | 226 | 300..=305 | 307 | 308 | 400..=417 | 421..=424)
        || matches!(code, 426 | 428 | 429 | 431 | 500..=508 | 510 | 511)
}

impl MeshConfig {
    /// `extensionProviders`, read one by one: what is wrong with one has no influence on another. Of two of one name
    /// neither can be used.
    pub fn providers(&self) -> Vec<ExtensionProvider> {
        let mut out: Vec<_> = self.extension_providers.iter().map(read).collect();
        let mut seen: BTreeMap<String, u32> = BTreeMap::new();
        for provider in &out {
            *seen.entry(provider.name.clone()).or_default() += 1;
        }
        for provider in &mut out {
            if seen.get(&provider.name).is_some_and(|times| *times > 1) {
                let why = format!("`{}` is the name of more than one provider", provider.name);
                let fault = ExtensionFault {
                    field: "name".to_owned(),
                    why,
                };
                match &mut provider.kind {
                    Err(faults) => faults.push(fault),
                    Ok(_) => provider.kind = Err(vec![fault]),
                }
            }
        }
        out
    }
}

fn read(value: &Value) -> ExtensionProvider {
    let name = value["name"].as_str().unwrap_or_default().to_owned();
    let mut faults = Vec::new();
    let mut fault = |field: &str, why: String| {
        faults.push(ExtensionFault {
            field: field.to_owned(),
            why,
        });
    };
    if !is_label(&name) {
        fault(
            "name",
            format!("`{name}` is no DNS label of at most 63 characters"),
        );
    }
    let fields = value.as_object().into_iter().flatten();
    let kinds: Vec<_> = fields.filter(|(key, _)| *key != "name").collect();
    let (field, body) = match kinds.as_slice() {
        [(field, body)] => (field.as_str(), *body),
        [] => {
            fault(
                "name",
                "the provider has no kind, `envoyExtAuthzGrpc` say".to_owned(),
            );
            return ExtensionProvider {
                name,
                kind: Err(faults),
            };
        }
        _ => {
            fault("name", "a provider is of one kind".to_owned());
            return ExtensionProvider {
                name,
                kind: Err(faults),
            };
        }
    };
    let http = match field {
        "envoyExtAuthzHttp" | "envoy_ext_authz_http" => true,
        "envoyExtAuthzGrpc" | "envoy_ext_authz_grpc" => false,
        other => {
            let kind = if faults.is_empty() {
                Ok(ExtensionKind::Other(other.to_owned()))
            } else {
                Err(faults)
            };
            return ExtensionProvider { name, kind };
        }
    };
    let below = |name: &str| format!("{field}.{name}");
    let kind = match serde_json::from_value::<Written>(body.clone()) {
        Err(error) => {
            // The names of all fields would follow.
            let text = error.to_string();
            let why = text.split(", expected one of").next().unwrap_or_default();
            fault(field, why.to_owned());
            None
        }
        Ok(written) => {
            for only in HTTP_ONLY
                .iter()
                .filter(|only| !http && body.get(**only).is_some())
            {
                fault(&below(only), "only `envoyExtAuthzHttp` has it".to_owned());
            }
            written.checked(http, &mut |name, why| fault(&below(name), why))
        }
    };
    let kind = match kind {
        Some(kind) if faults.is_empty() => Ok(ExtensionKind::ExtAuthz(Box::new(kind))),
        _ => Err(faults),
    };
    ExtensionProvider { name, kind }
}

impl Written {
    /// What it says, where that can be said; what is wrong with it goes to `fault`.
    fn checked(self, http: bool, fault: &mut dyn FnMut(&str, String)) -> Option<ExtAuthz> {
        let (namespace, host) = match self.service.split_once('/') {
            Some((namespace, host)) => (Some(namespace.to_owned()), host.to_owned()),
            None => (None, self.service.clone()),
        };
        if host.is_empty() || host.contains('/') || namespace.as_deref() == Some("") {
            fault(
                "service",
                format!("`{}` is not `[<namespace>/]<host>`", self.service),
            );
        }
        let port = u16::try_from(self.port).unwrap_or_default();
        if port == 0 {
            fault("port", format!("{} is no port from 1 to 65535", self.port));
        }
        let timeout_ms = self.timeout.as_deref().and_then(duration_ms);
        if let Some(text) = &self.timeout
            && timeout_ms.is_none_or(|ms| ms == 0)
        {
            fault(
                "timeout",
                format!("`{text}` is not a duration above zero, such as `2s`"),
            );
        }
        let status_on_error = Some(self.status_on_error.as_str()).filter(|text| !text.is_empty());
        let status = status_on_error.map(|text| text.parse().ok().filter(|code| is_status(*code)));
        if status == Some(None) {
            let text = &self.status_on_error;
            fault(
                "statusOnError",
                format!("`{text}` is no status that can be answered with"),
            );
        }
        if self
            .include_request_body_in_check
            .is_some_and(|body| body.max_request_bytes == 0)
        {
            fault(
                "includeRequestBodyInCheck.maxRequestBytes",
                "must be above zero".to_owned(),
            );
        }
        if !self.path_prefix.is_empty() && !self.path_prefix.starts_with('/') {
            fault(
                "pathPrefix",
                format!("`{}` does not begin with `/`", self.path_prefix),
            );
        } else if self.path_prefix.contains(['?', '#', ' ']) {
            fault(
                "pathPrefix",
                format!("`{}` is more than a path", self.path_prefix),
            );
        }
        for (field, patterns) in [
            ("includeHeadersInCheck", &self.include_headers_in_check),
            (
                "includeRequestHeadersInCheck",
                &self.include_request_headers_in_check,
            ),
            ("headersToUpstreamOnAllow", &self.headers_to_upstream_on_allow),
            ("headersToDownstreamOnDeny", &self.headers_to_downstream_on_deny),
            ("headersToDownstreamOnAllow", &self.headers_to_downstream_on_allow),
        ] {
            for pattern in patterns.iter().filter(|pattern| !is_pattern(pattern)) {
                let why = format!("`{pattern}` is no name of a header field, whole or with `*` at one end");
                fault(field, why);
            }
        }
        for name in self.include_additional_headers_in_check.keys() {
            if !is_name(name) {
                let why = format!("`{name}` is no name of a header field");
                fault("includeAdditionalHeadersInCheck", why);
            }
        }
        let headers = if self.include_request_headers_in_check.is_empty() {
            self.include_headers_in_check
        } else {
            self.include_request_headers_in_check
        };
        Some(ExtAuthz {
            service: (namespace, host),
            port,
            timeout_ms,
            fail_open: self.fail_open,
            status_on_error: status.flatten(),
            clear_route_cache: self.clear_route_cache,
            body: self.include_request_body_in_check,
            http: http.then_some(ExtAuthzHttp {
                path_prefix: self.path_prefix,
                headers,
                additional: self.include_additional_headers_in_check,
                to_upstream: self.headers_to_upstream_on_allow,
                to_downstream_on_deny: self.headers_to_downstream_on_deny,
                to_downstream_on_allow: self.headers_to_downstream_on_allow,
            }),
        })
    }
}

fn is_label(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(fits) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_pattern(text: &str) -> bool {
    let name = text.strip_suffix('*').or_else(|| text.strip_prefix('*'));
    is_name(name.unwrap_or(text))
}

/// A token (RFC 9110, 5.6.2), without `*`.
fn is_name(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(token)
}

/// Tells what is wrong with external authorizers, each at its line. The mesh configuration stays in force without them. What
/// every provider must have is told by the check of the mesh configuration.
pub(crate) fn check(config: &MeshConfig, root: &Node, span: Span, report: &mut Report<'_>) {
    let nodes = root.child("extensionProviders");
    let authorizers = ["envoyExtAuthzHttp", "envoyExtAuthzGrpc"];
    for (at, provider) in config.providers().iter().enumerate() {
        let raw = config.extension_providers.get(at);
        if !authorizers
            .iter()
            .any(|kind| raw.is_some_and(|raw| raw.get(kind).is_some()))
        {
            continue;
        }
        let place = nodes
            .and_then(|list| list.items().get(at))
            .map_or(span, |node| node.span);
        for fault in provider.kind.as_ref().err().into_iter().flatten() {
            let field = format!("extensionProviders[{at}].{}", fault.field);
            let message = format!("`data.mesh.{field}`: {}", fault.why);
            // Istio takes any name.
            let draft = if fault.field == "name" {
                report.warning("MW0114", place, message)
            } else {
                report.error("MW0115", place, message)
            };
            draft
                .path(format!("data.mesh.{field}"))
                .remedy("write it as Istio's MeshConfig has it; policies that name this provider deny what they match");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn providers(yaml: &str) -> (Vec<ExtensionProvider>, Vec<String>) {
        let body: String = yaml.lines().map(|line| format!("    {line}\n")).collect();
        let text = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n{body}"
        );
        let parsed = crate::parse("mesh.yaml", text.as_bytes());
        let config = parsed.objects.iter().find_map(|object| match &object.kind {
            crate::Kind::ConfigMap(_, Some(config)) => Some(config.providers()),
            _ => None,
        });
        let said = parsed
            .problems
            .into_iter()
            .map(|p| format!("{}: {}: {}", p.line, p.code, p.message));
        (config.unwrap_or_default(), said.collect())
    }

    #[test]
    fn s2_13_both_kinds_are_read_with_every_field() {
        let (found, said) = providers(
            "extensionProviders:
- name: http
  envoyExtAuthzHttp:
    service: foo/authz.foo.svc.cluster.local
    port: 8000
    timeout: 0.5s
    failOpen: true
    clearRouteCache: true
    statusOnError: '503'
    pathPrefix: /check
    includeHeadersInCheck: [x-old]
    includeRequestHeadersInCheck: [x-custom-*, '*-suffix', Cookie]
    includeAdditionalHeadersInCheck: {x-a: b}
    includeRequestBodyInCheck: {maxRequestBytes: 100, allowPartialMessage: true, packAsBytes: true}
    headersToUpstreamOnAllow: [authorization]
    headersToDownstreamOnDeny: [set-cookie]
    headersToDownstreamOnAllow: [x-seen]
- name: grpc
  envoyExtAuthzGrpc: {service: authz.foo.svc.cluster.local, port: 9000}
- name: tracer
  zipkin: {service: zipkin.istio-system.svc.cluster.local, port: 9411}",
        );
        assert_eq!(said, Vec::<String>::new());
        let [http, grpc, other] = found.as_slice() else {
            panic!("{found:#?}")
        };
        let Ok(ExtensionKind::ExtAuthz(http)) = &http.kind else {
            panic!("{http:#?}")
        };
        let expect = ExtAuthz {
            service: (Some("foo".to_owned()), "authz.foo.svc.cluster.local".to_owned()),
            port: 8000,
            timeout_ms: Some(500),
            fail_open: true,
            status_on_error: Some(503),
            clear_route_cache: true,
            body: Some(RequestBody {
                max_request_bytes: 100,
                allow_partial_message: true,
                pack_as_bytes: true,
            }),
            http: Some(ExtAuthzHttp {
                path_prefix: "/check".to_owned(),
                headers: ["x-custom-*", "*-suffix", "Cookie"].map(str::to_owned).into(),
                additional: [("x-a".to_owned(), "b".to_owned())].into(),
                to_upstream: vec!["authorization".to_owned()],
                to_downstream_on_deny: vec!["set-cookie".to_owned()],
                to_downstream_on_allow: vec!["x-seen".to_owned()],
            }),
        };
        assert_eq!(**http, expect);
        let Ok(ExtensionKind::ExtAuthz(grpc)) = &grpc.kind else {
            panic!("{grpc:#?}")
        };
        assert_eq!((grpc.http.as_ref(), grpc.timeout_ms), (None, None));
        assert_eq!(other.kind, Ok(ExtensionKind::Other("zipkin".to_owned())));
    }

    #[test]
    fn s2_13_what_is_wrong_is_told_with_its_line_and_leaves_the_others_alone() {
        for (body, field) in [
            (
                "{name: Bad_Name, envoyExtAuthzGrpc: {service: a, port: 1}}",
                "name",
            ),
            ("{name: a}", "name"),
            (
                "{name: a, envoyExtAuthzGrpc: {service: a, port: 1}, zipkin: {}}",
                "name",
            ),
            (
                "{name: a, envoyExtAuthzGrpc: {port: 1}}",
                "envoyExtAuthzGrpc.service",
            ),
            (
                "{name: a, envoyExtAuthzGrpc: {service: a/b/c, port: 1}}",
                "envoyExtAuthzGrpc.service",
            ),
            (
                "{name: a, envoyExtAuthzGrpc: {service: a, port: 0}}",
                "envoyExtAuthzGrpc.port",
            ),
            (
                "{name: a, envoyExtAuthzGrpc: {service: a, port: 65536}}",
                "envoyExtAuthzGrpc.port",
            ),
            (
                "{name: a, envoyExtAuthzGrpc: {service: a, port: 1, timeout: soon}}",
                "envoyExtAuthzGrpc.timeout",
            ),
            (
                "{name: a, envoyExtAuthzGrpc: {service: a, port: 1, statusOnError: '999'}}",
                "envoyExtAuthzGrpc.statusOnError",
            ),
            (
                "{name: a, envoyExtAuthzGrpc: {service: a, port: 1, pathPrefix: /a}}",
                "envoyExtAuthzGrpc.pathPrefix",
            ),
            (
                "{name: a, envoyExtAuthzGrpc: {service: a, port: 1, failClosed: true}}",
                "envoyExtAuthzGrpc",
            ),
            (
                "{name: a, envoyExtAuthzHttp: {service: a, port: 1, pathPrefix: check}}",
                "envoyExtAuthzHttp.pathPrefix",
            ),
            (
                "{name: a, envoyExtAuthzHttp: {service: a, port: 1, headersToUpstreamOnAllow: ['*']}}",
                "envoyExtAuthzHttp.headersToUpstreamOnAllow",
            ),
            (
                "{name: a, envoyExtAuthzHttp: {service: a, port: 1, includeRequestBodyInCheck: {}}}",
                "envoyExtAuthzHttp.includeRequestBodyInCheck.maxRequestBytes",
            ),
        ] {
            let yaml = format!(
                "extensionProviders:\n- {body}\n- {{name: good, envoyExtAuthzGrpc: {{service: a, port: 1}}}}"
            );
            let (found, said) = providers(&yaml);
            let [broken, good] = found.as_slice() else {
                panic!("{found:#?}")
            };
            assert!(broken.kind.is_err() && good.kind.is_ok(), "{body}");
            let code = if field == "name" { "MW0114" } else { "MW0115" };
            let expect = format!("7: {code}: `data.mesh.extensionProviders[0].{field}`");
            let common = "7: MW0115: `data.mesh.extensionProviders[0]`";
            assert!(
                said.iter()
                    .any(|text| text.contains(&expect) || text.contains(common)),
                "{body}: {said:#?}"
            );
        }
    }

    #[test]
    fn of_two_of_one_name_neither_can_be_used() {
        let one = "- {name: a, envoyExtAuthzGrpc: {service: a, port: 1}}";
        let (found, said) = providers(&format!("extensionProviders:\n{one}\n{one}"));
        assert!(found.iter().all(|provider| provider.kind.is_err()));
        assert!(
            said.iter().any(|text| text.contains("have this name")),
            "{said:?}"
        );
    }
}
