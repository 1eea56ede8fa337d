//! What is told of each workload's traffic: Telemetry of the root namespace, of its own, and of its own labels, each over the
//! one before; MeshConfig where none says anything (Istio "Telemetry API").

mod changes;
mod filter;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{CustomTag, MeshConfig, Problem, Severity, TelemetryMode, TelemetryTracing};
use serde_json::Value;
use snapshot::{Service, Tag, Telemetry, TraceProvider, Tracing, WHOLE};

use crate::pods::PodFacts;
use crate::report::{Report, code, tell_nothing_selected};
use crate::view::{Of, View, covers};

/// Percent of requests that begin a trace where nobody says how many (Istio's `PILOT_TRACE_SAMPLING`).
const SAMPLING: f64 = 1.0;

/// How long a collector may take, in milliseconds.
const TIMEOUT_MS: u64 = 5_000;

/// Bytes that a text may have as an attribute, where `maxTagLength` says nothing (Envoy's).
const MAX_TAG_LENGTH: u32 = 256;

/// Attributes that one workload's spans may have besides their own.
const MAX_TAGS: usize = 32;

/// Collectors by name; where one cannot be used, why.
pub(crate) type Tracers = BTreeMap<String, Result<TraceProvider, String>>;

/// All Telemetry objects, by namespace, oldest first.
#[derive(Debug)]
pub(crate) struct Telemetries<'a> {
    root_namespace: &'a str,
    all: Vec<Of<'a, api::Telemetry>>,
    providers: &'a Tracers,
    config: Option<&'a MeshConfig>,
}

/// The expression of an access log's filter.
fn expression(logging: &api::TelemetryLogging) -> Option<&str> {
    logging.filter.as_ref()?.get("expression")?.as_str()
}

impl<'a> Telemetries<'a> {
    pub(crate) fn new(view: &View<'a>, providers: &'a Tracers, report: &mut Report) -> Self {
        let config = view.mesh_config.map(|of| of.body);
        let telemetries = Self {
            root_namespace: view.root_namespace(),
            all: view.telemetries.clone(),
            providers,
            config,
        };
        for of in &telemetries.all {
            telemetries.look_at(view, *of, report);
        }
        telemetries
    }

    /// Tells of an object what is not as written.
    fn look_at(&self, view: &View<'a>, of: Of<'a, api::Telemetry>, report: &mut Report) {
        if of.body.has_targets() {
            let why = "an object with `targetRefs` speaks of gateways and waypoints, which this version does not have";
            report.not_in_force(of.object, why);
            return;
        }
        let is_root = of.namespace() == self.root_namespace;
        tell_nothing_selected(view, of.object, is_root, &of.body.labels(), report);
        for why in changes::unheeded(&of.body.metrics) {
            report.qualify(of.object, why);
        }
        for logging in &of.body.access_logging {
            if let Some(Err(why)) = expression(logging).map(filter::read) {
                let why =
                    format!("`accessLogging.filter` is accepted, not in force, so that all is logged: {why}");
                report.qualify(of.object, why);
            }
            if logging.disabled == Some(true) {
                let why = "`accessLogging.disabled`: what is refused is logged all the same";
                report.qualify(of.object, why.to_owned());
            }
        }
        for (at, tracing) in of.body.tracing.iter().enumerate() {
            if let Some(provider) = tracing.providers.first()
                && let Err(why) = self.provider(&provider.name)
            {
                report.qualify(of.object, format!("no spans: {why}"));
                let problem = Problem::new(
                    Severity::Error,
                    code::PROVIDER,
                    format!("{why}; no spans are sent"),
                )
                .remedy("define it in meshConfig.extensionProviders, with a Service that exists");
                report.tell(
                    of.object,
                    &format!("spec.tracing[{at}].providers[0].name"),
                    problem,
                );
            }
            for (name, tag) in &tracing.custom_tags {
                if read_tag(tag).is_none() {
                    let why =
                        format!("the tag `{name}` is left out: only `literal` and `header` are acted on");
                    report.qualify(of.object, why);
                }
            }
        }
    }

    fn provider(&self, name: &str) -> Result<&TraceProvider, String> {
        match self.providers.get(name) {
            Some(Ok(provider)) => Ok(provider),
            Some(Err(why)) => Err(format!("provider `{name}` cannot be used: {why}")),
            None => Err(format!("provider `{name}` is not defined")),
        }
    }

    /// What is told of a workload's traffic.
    pub(crate) fn of(&self, pod: &PodFacts, report: &mut Report) -> Telemetry {
        let mut telemetry = Telemetry::default();
        let mut draft = Draft::new(self.config);
        let mut metrics = changes::Sides::default();
        for of in self.applicable(pod, report) {
            report.applies(of.object, pod.place());
            if let Some(tracing) = of.body.tracing.first() {
                draft.add(tracing);
            }
            metrics.add(&of.body.metrics);
            for logging in &of.body.access_logging {
                let off = logging.disabled.unwrap_or(false);
                let mode = logging.matches.mode;
                // What cannot be acted on leaves nothing out.
                let read = expression(logging).map(|text| filter::read(text).ok().map(Arc::new));
                if mode != TelemetryMode::Server {
                    telemetry.client_log_off = off;
                    if let Some(filter) = &read {
                        telemetry.client_log.clone_from(filter);
                    }
                }
                if mode != TelemetryMode::Client {
                    telemetry.server_log_off = off;
                    if let Some(filter) = &read {
                        telemetry.server_log.clone_from(filter);
                    }
                }
            }
        }
        telemetry.tracing = draft.finish(self);
        (telemetry.client_metrics, telemetry.server_metrics) = metrics.finish();
        telemetry
    }

    /// Of the mesh, of the namespace, of the workload: the oldest of each.
    fn applicable(&self, pod: &PodFacts, report: &mut Report) -> Vec<Of<'a, api::Telemetry>> {
        let mut found: [Option<Of<'a, api::Telemetry>>; 3] = [None; 3];
        for of in self.all.iter().filter(|of| !of.body.has_targets()) {
            let (root, own) = (
                of.namespace() == self.root_namespace,
                of.namespace() == pod.namespace(),
            );
            let labels = of.body.labels();
            let level = match (root, own, labels.is_empty()) {
                (true, _, true) => 0,
                (false, true, true) => 1,
                (true, _, false) | (_, true, false) if covers(&labels, pod.labels()) => 2,
                _ => continue,
            };
            match found.get_mut(level) {
                Some(Some(older)) => {
                    let what = "what is told of the traffic";
                    report.shadowed(of.object, older.object, "spec", what);
                }
                Some(place) => *place = Some(*of),
                None => {}
            }
        }
        found.into_iter().flatten().collect()
    }
}

/// What the objects come to so far.
struct Draft {
    provider: Option<String>,
    sampling: f64,
    client: bool,
    server: bool,
    propagate: bool,
    tags: BTreeMap<String, CustomTag>,
    enabled: bool,
}

impl Draft {
    fn new(config: Option<&MeshConfig>) -> Self {
        let percent = config
            .and_then(|config| config.default_config.pointer("/tracing/sampling"))
            .and_then(Value::as_f64);
        Self {
            provider: config.and_then(|config| config.default_providers.tracing.first().cloned()),
            sampling: percent.unwrap_or(SAMPLING),
            client: true,
            server: true,
            propagate: true,
            tags: BTreeMap::new(),
            enabled: config.and_then(|config| config.enable_tracing).unwrap_or(true),
        }
    }

    fn add(&mut self, tracing: &TelemetryTracing) {
        // Whoever writes an object wants traces, whatever MeshConfig's older switch says.
        self.enabled = true;
        if let Some(provider) = tracing.providers.first() {
            self.provider = Some(provider.name.clone());
        }
        if let Some(percent) = tracing.random_sampling_percentage {
            self.sampling = percent;
        }
        if let Some(disabled) = tracing.disable_span_reporting {
            let mode = tracing.matches.mode;
            if mode != TelemetryMode::Server {
                self.client = !disabled;
            }
            if mode != TelemetryMode::Client {
                self.server = !disabled;
            }
        }
        if let Some(disabled) = tracing.disable_context_propagation {
            self.propagate = !disabled;
        }
        if !tracing.custom_tags.is_empty() {
            self.tags.clone_from(&tracing.custom_tags);
        }
    }

    fn finish(self, all: &Telemetries<'_>) -> Option<Tracing> {
        let name = self.provider.filter(|_| self.enabled)?;
        let provider = all.provider(&name).ok()?.clone();
        let tags = self.tags.iter().take(MAX_TAGS);
        Some(Tracing {
            provider,
            sampling: share(self.sampling),
            client: self.client,
            server: self.server,
            propagate: self.propagate,
            tags: tags
                .filter_map(|(name, tag)| Some((name.clone(), read_tag(tag)?)))
                .collect(),
        })
    }
}

/// Of a million.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "held to 0 to 1 000 000 before"
)]
fn share(percent: f64) -> u32 {
    let whole = f64::from(WHOLE);
    (percent / 100.0 * whole).round().clamp(0.0, whole) as u32
}

fn read_tag(tag: &CustomTag) -> Option<Tag> {
    match (&tag.literal, &tag.header) {
        (Some(literal), None) => Some(Tag::Literal(literal.value.clone())),
        (None, Some(header)) => Some(Tag::Header {
            name: header.name.to_ascii_lowercase(),
            default: header.default_value.clone(),
        }),
        _ => None,
    }
}

/// The hosts that collectors of MeshConfig are at.
pub(crate) fn hosts(config: &MeshConfig) -> Vec<String> {
    let each = config.extension_providers.iter();
    each.filter_map(|written| {
        let service = text(written.get("opentelemetry")?, "service");
        Some(
            service
                .split_once('/')
                .map_or(service.as_str(), |(_, host)| host)
                .to_owned(),
        )
    })
    .collect()
}

fn text(value: &Value, field: &str) -> String {
    let text = value.get(field).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}

/// The collectors of MeshConfig. `services` are those that have one of [`hosts`], at least.
pub(crate) fn tracers(config: &MeshConfig, services: &[Arc<Service>]) -> Tracers {
    let mut out = BTreeMap::new();
    for written in &config.extension_providers {
        let name = text(written, "name");
        let Some(body) = written.get("opentelemetry") else {
            let kind = written
                .as_object()
                .and_then(|fields| fields.keys().find(|key| *key != "name"));
            let kind = kind.cloned().unwrap_or_default();
            out.insert(
                name,
                Err(format!(
                    "of the kinds of tracers only `opentelemetry` is acted on, it is `{kind}`"
                )),
            );
            continue;
        };
        let read = || -> Result<TraceProvider, String> {
            let service = find(&text(body, "service"), services)?;
            let port = body.get("port").and_then(Value::as_u64).unwrap_or_default();
            let http = body.get("http");
            let (over, metadata) = match http {
                Some(http) => (http, http.get("headers")),
                None => {
                    let grpc = body.get("grpc").unwrap_or(&Value::Null);
                    (grpc, grpc.get("initialMetadata"))
                }
            };
            let timeout = over
                .get("timeout")
                .and_then(Value::as_str)
                .and_then(api::duration_ms);
            let path = http.map(|http| match text(http, "path") {
                path if path.is_empty() => "/v1/traces".to_owned(),
                path => path,
            });
            let headers = metadata.and_then(Value::as_array).into_iter().flatten();
            Ok(TraceProvider {
                name: name.clone(),
                service: service.name.clone(),
                port: u16::try_from(port).unwrap_or_default(),
                path,
                headers: headers
                    .map(|header| (text(header, "name").to_ascii_lowercase(), text(header, "value")))
                    .collect(),
                timeout_ms: timeout
                    .filter(|ms| *ms > 0)
                    .unwrap_or(TIMEOUT_MS)
                    .min(TIMEOUT_MS * 6),
                max_tag_length: body
                    .get("maxTagLength")
                    .and_then(Value::as_u64)
                    .and_then(|length| u32::try_from(length).ok())
                    .filter(|length| *length > 0)
                    .unwrap_or(MAX_TAG_LENGTH),
            })
        };
        let provider = read();
        out.insert(name.clone(), provider);
    }
    out
}

/// The Service that `[NAMESPACE/]HOST` names.
fn find<'s>(written: &str, services: &'s [Arc<Service>]) -> Result<&'s Service, String> {
    let (namespace, host) = match written.split_once('/') {
        Some((namespace, host)) => (Some(namespace), host),
        None => (None, written),
    };
    let mut found = services.iter().filter(|service| {
        service.host.as_str().eq_ignore_ascii_case(host)
            && namespace.is_none_or(|wanted| wanted == service.name.namespace())
    });
    match (found.next(), found.next()) {
        (Some(service), None) => Ok(service),
        (Some(_), Some(_)) => Err(format!(
            "more than one Service has the host `{host}`; name its namespace"
        )),
        (None, _) => Err(format!("there is no Service with the host `{host}`")),
    }
}
