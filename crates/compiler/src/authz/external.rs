//! External authorizers: which MeshConfig defines, where each is reached, and what is told of those that cannot be asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{AuthorizationPolicy, ExtAuthz, ExtensionKind, MeshConfig, Problem, Severity};
use policy::{Action, PolicySpec};
use snapshot::{CheckBody, HeaderPattern, HttpCheck, Provider, ProviderKind, Resource, Service};

use crate::report::{Report, code};
use crate::view::Of;

/// How long an authorizer may take, in milliseconds, where MeshConfig says nothing: secure (P59).
const TIMEOUT_MS: u64 = 1_000;

/// And under Istio's profile: its value (R18).
const ISTIO_TIMEOUT_MS: u64 = 600_000;

/// The longest time that can be asked for.
const MAX_TIMEOUT_MS: u64 = 600_000;

/// Authorizers that MeshConfig may define; the others cannot be asked.
const MAX_PROVIDERS: usize = 64;

/// How much of a body an authorizer can see.
const MAX_CHECK_BODY: u32 = 4 * 1024 * 1024;

/// What an authorizer over HTTP is answered by where it gave no answer.
const FORBIDDEN: u16 = 403;

/// The authorizers by name; where one cannot be asked, why.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Providers {
    by_name: BTreeMap<String, Result<Arc<Resource>, String>>,
    /// What is not as written, by name.
    qualified: BTreeMap<String, Vec<String>>,
    /// How many are open where they give no answer.
    fail_open: BTreeSet<String>,
}

impl Providers {
    /// `services` are those that have one of [`Self::hosts`], at least.
    pub(crate) fn new(config: Option<Of<'_, MeshConfig>>, secure: bool, services: &[Arc<Service>]) -> Self {
        let mut out = Self::default();
        let Some(config) = config else {
            return out;
        };
        for (at, written) in config.body.providers().into_iter().enumerate() {
            let name = written.name.clone();
            let resource = match written.kind {
                _ if at >= MAX_PROVIDERS => Err(format!("more than {MAX_PROVIDERS} providers are defined")),
                Err(faults) => Err(faults.first().map_or_else(
                    || "it cannot be read".to_owned(),
                    |fault| format!("`{}`: {}", fault.field, fault.why),
                )),
                Ok(ExtensionKind::Other(kind)) => Err(format!("`{kind}` is no external authorizer")),
                Ok(ExtensionKind::ExtAuthz(written)) => out.resource(&name, &written, secure, services),
            };
            out.by_name.insert(name, resource.map(Arc::new));
        }
        out
    }

    /// The hosts that providers of MeshConfig name.
    pub(crate) fn hosts(config: Of<'_, MeshConfig>) -> Vec<String> {
        let each = config.body.providers().into_iter();
        each.filter_map(|written| match written.kind {
            Ok(ExtensionKind::ExtAuthz(written)) => Some(written.service.1),
            _ => None,
        })
        .collect()
    }

    fn resource(
        &mut self,
        name: &str,
        written: &ExtAuthz,
        secure: bool,
        services: &[Arc<Service>],
    ) -> Result<Resource, String> {
        let service = find(written, services)?;
        let default = if secure { TIMEOUT_MS } else { ISTIO_TIMEOUT_MS };
        let timeout_ms = written.timeout_ms.unwrap_or(default);
        let mut qualify = |why: String| self.qualified.entry(name.to_owned()).or_default().push(why);
        if timeout_ms > MAX_TIMEOUT_MS {
            qualify(format!("`timeout` is held to {} s", MAX_TIMEOUT_MS / 1000));
        }
        let body = written.body.map(|body| {
            if body.max_request_bytes > MAX_CHECK_BODY {
                qualify(format!("`maxRequestBytes` is held to {MAX_CHECK_BODY}"));
            }
            CheckBody {
                max_bytes: body.max_request_bytes.min(MAX_CHECK_BODY),
                partial: body.allow_partial_message,
                as_bytes: body.pack_as_bytes,
            }
        });
        if written.fail_open {
            self.fail_open.insert(name.to_owned());
        }
        let patterns = |list: &[String]| list.iter().map(|text| HeaderPattern::new(text)).collect();
        let kind = match &written.http {
            None => ProviderKind::Grpc,
            Some(http) => ProviderKind::Http(HttpCheck {
                path_prefix: http.path_prefix.clone(),
                headers: patterns(&http.headers),
                additional: additional(&http.additional)?,
                to_upstream: patterns(&http.to_upstream),
                to_downstream_on_deny: patterns(&http.to_downstream_on_deny),
                to_downstream_on_allow: patterns(&http.to_downstream_on_allow),
            }),
        };
        Ok(Resource::from(Provider {
            name: name.to_owned(),
            service: service.name.clone(),
            port: written.port,
            kind,
            timeout_ms: timeout_ms.min(MAX_TIMEOUT_MS),
            fail_open: written.fail_open,
            status_on_error: written.status_on_error.unwrap_or(FORBIDDEN),
            body,
        }))
    }

    /// Tells of a CUSTOM policy whose authorizer cannot be asked, or not as it is written.
    pub(super) fn tell(&self, of: Of<'_, AuthorizationPolicy>, report: &mut Report) {
        let name = of.body.provider.as_deref().unwrap_or_default();
        let why = match self.by_name.get(name) {
            Some(Ok(_)) => {
                for why in self.qualified.get(name).into_iter().flatten() {
                    report.qualify(of.object, format!("provider `{name}`: {why}"));
                }
                if self.fail_open.contains(name) {
                    let why =
                        format!("provider `{name}` has `failOpen`: what it gives no answer on is admitted");
                    report.qualify(of.object, why);
                }
                return;
            }
            Some(Err(why)) => format!("provider `{name}` cannot be asked: {why}"),
            None if self.by_name.is_empty() => {
                format!("provider `{name}` is not defined: meshConfig has no `extensionProviders`")
            }
            None => {
                let known: Vec<_> = self.by_name.keys().map(|name| format!("`{name}`")).collect();
                format!("provider `{name}` is not defined; there are {}", known.join(", "))
            }
        };
        report.qualify(of.object, format!("denies what it matches: {why}"));
        let message = format!("{why}; the policy denies what it matches");
        let problem = Problem::new(Severity::Error, code::PROVIDER, message)
            .remedy("define it in meshConfig.extensionProviders, with a Service that exists");
        report.tell(of.object, "spec.provider.name", problem);
    }

    /// What the policies of a node ask, each once.
    pub(super) fn of<'p>(
        &self,
        policies: impl Iterator<Item = &'p PolicySpec>,
    ) -> impl Iterator<Item = Arc<Resource>> {
        let named: BTreeSet<&str> = policies
            .filter_map(|spec| match &spec.action {
                Action::Custom { provider } => Some(provider.as_str()),
                _ => None,
            })
            .collect();
        let found: Vec<_> = named
            .into_iter()
            .filter_map(|name| self.by_name.get(name)?.as_ref().ok().cloned())
            .collect();
        found.into_iter()
    }
}

/// The Service that the host names, in the namespace that is named; else the only one that has it.
fn find<'s>(written: &ExtAuthz, services: &'s [Arc<Service>]) -> Result<&'s Service, String> {
    let (namespace, host) = &written.service;
    let mut found = services.iter().filter(|service| {
        service.host.as_str().eq_ignore_ascii_case(host)
            && namespace
                .as_deref()
                .is_none_or(|wanted| wanted == service.name.namespace())
    });
    let service = match (found.next(), found.next()) {
        (Some(service), None) => service,
        (Some(_), Some(_)) => {
            return Err(format!(
                "more than one Service has the host `{host}`; name its namespace"
            ));
        }
        (None, _) => return Err(format!("no Service has the host `{host}`")),
    };
    if service.external_name.is_some() {
        return Err(format!(
            "`{}` is an ExternalName, which has no endpoints",
            service.name
        ));
    }
    if !service.ports.iter().any(|port| port.port == written.port) {
        return Err(format!("Service `{}` has no port {}", service.name, written.port));
    }
    Ok(service)
}

/// Fields that are sent in any case. Of Envoy's command operators `%REQ(NAME)%` is known.
fn additional(fields: &BTreeMap<String, String>) -> Result<Vec<(String, String)>, String> {
    let one = |(name, value): (&String, &String)| {
        if value
            .bytes()
            .any(|byte| byte < b' ' && byte != b'\t' || byte == 0x7f)
        {
            return Err(format!("the value of `{name}` is none of a header field"));
        }
        if !only_known_operators(value) {
            return Err(format!(
                "`{value}`: of the operators in `%` only `%REQ(NAME)%` is known"
            ));
        }
        Ok((name.to_ascii_lowercase(), value.clone()))
    };
    fields.iter().map(one).collect()
}

fn only_known_operators(value: &str) -> bool {
    let mut parts = value.split('%');
    parts.next();
    loop {
        // What is between two signs is an operator, or nothing, which stands for the sign itself.
        match (parts.next(), parts.next()) {
            (None, _) => return true,
            (Some(operator), Some(_)) => {
                let name = operator
                    .strip_prefix("REQ(")
                    .and_then(|rest| rest.strip_suffix(')'));
                if !operator.is_empty()
                    && name.is_none_or(|name| name.is_empty() || name.contains(['(', '?']))
                {
                    return false;
                }
            }
            (Some(_), None) => return false,
        }
    }
}
