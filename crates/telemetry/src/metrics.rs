//! Istio's metrics, by their names, labels and values (semantics 10; Istio "Standard Metrics").

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::Reason;
use prometheus_client::encoding::{
    EncodeLabel, EncodeLabelSet, EncodeLabelValue, LabelSetEncoder, LabelValueEncoder,
};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::event::{Event, EventKind, Peer, Reporter, Wire};

/// How many label sets the traffic metrics may hold together. Past it, new flows are counted in
/// `meshward_metrics_series_dropped_total` instead of growing memory without bound.
pub(crate) const SERIES: usize = 20_000;

/// Istio's default histogram bounds, for milliseconds and bytes alike.
const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Labels {
    reporter: Reporter,
    source: Arc<Peer>,
    destination: Arc<Peer>,
    service: Option<Arc<str>>,
    protocol: &'static str,
    code: Option<u16>,
    grpc: Option<u32>,
    flags: &'static str,
    wire: Wire,
}

impl Labels {
    fn of(event: &Event) -> Self {
        let bare = |peer: &Arc<Peer>| {
            if peer.address.is_none() {
                Arc::clone(peer)
            } else {
                Arc::new(Peer {
                    address: None,
                    ..(**peer).clone()
                })
            }
        };
        Self {
            reporter: event.reporter,
            source: bare(&event.source),
            destination: bare(&event.destination),
            service: event.service.clone(),
            protocol: event.protocol,
            code: event.http.as_ref().map(|h| h.code),
            grpc: event.http.as_ref().and_then(|h| h.grpc_status),
            flags: event.flags,
            wire: event.wire,
        }
    }

    /// `mutual_tls` and `none` are the destination's to say; the source says `unknown`, as Istio's does.
    fn security(&self) -> &'static str {
        match (self.reporter, self.wire) {
            (Reporter::Source, _) => "unknown",
            (_, Wire::MutualTls | Wire::Hbone | Wire::Local) => "mutual_tls",
            (_, Wire::Plaintext | Wire::Foreign) => "none",
        }
    }
}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        let known = |text: &Arc<str>| -> Arc<str> {
            if text.is_empty() {
                Arc::from("unknown")
            } else {
                Arc::clone(text)
            }
        };
        let principal = |p: &Peer| {
            p.principal
                .as_ref()
                .map_or_else(|| "unknown".to_owned(), ToString::to_string)
        };
        let (s, d) = (&self.source, &self.destination);
        let host = self.service.as_deref().unwrap_or("unknown");
        let (name, namespace) = service_parts(host, d);
        let mut put = |key: &str, value: &str| (key, value).encode(encoder.encode_label());
        put("reporter", self.reporter.as_str())?;
        for (prefix, peer) in [("source", s), ("destination", d)] {
            put(&format!("{prefix}_workload"), &known(&peer.workload))?;
            put(&format!("{prefix}_workload_namespace"), &known(&peer.namespace))?;
            put(&format!("{prefix}_principal"), &principal(peer))?;
            put(&format!("{prefix}_app"), &known(&peer.app))?;
            put(&format!("{prefix}_version"), &known(&peer.version))?;
            put(
                &format!("{prefix}_canonical_service"),
                &known(&peer.canonical_name),
            )?;
            put(
                &format!("{prefix}_canonical_revision"),
                &known(&peer.canonical_revision),
            )?;
            put(
                &format!("{prefix}_cluster"),
                if peer.workload.is_empty() {
                    "unknown"
                } else {
                    "Kubernetes"
                },
            )?;
        }
        put("destination_service", host)?;
        put("destination_service_name", name)?;
        put("destination_service_namespace", namespace)?;
        put("request_protocol", self.protocol)?;
        if let Some(code) = self.code {
            put("response_code", &code.to_string())?;
            let grpc = self.grpc.map(|g| g.to_string()).unwrap_or_default();
            put("grpc_response_status", &grpc)?;
        }
        put("response_flags", self.flags)?;
        put("connection_security_policy", self.security())
    }
}

/// `httpbin.full.svc.cluster.local` -> (`httpbin`, `full`); anything else -> the host itself and the workload's namespace.
fn service_parts<'a>(host: &'a str, destination: &'a Peer) -> (&'a str, &'a str) {
    let mut labels = host.split('.');
    match (labels.next(), labels.next(), labels.next()) {
        (Some(name), Some(namespace), Some("svc")) => (name, namespace),
        _ if destination.namespace.is_empty() => (host, "unknown"),
        _ => (host, &destination.namespace),
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Text(&'static str);

impl EncodeLabelValue for Text {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.encode(encoder)
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Denial {
    reporter: Text,
    reason: Text,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ExtAuthzLabels {
    provider: String,
    result: Text,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct DropLabels {
    reason: Text,
}

type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

/// All metrics of one proxy.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    duration: Histograms,
    request_bytes: Histograms,
    response_bytes: Histograms,
    tcp_sent: Family<Labels, Counter>,
    tcp_received: Family<Labels, Counter>,
    tcp_opened: Family<Labels, Counter>,
    tcp_closed: Family<Labels, Counter>,
    denials: Family<Denial, Counter>,
    drops: Family<DropLabels, Counter>,
    ext_authz: Family<ExtAuthzLabels, Counter>,
    pub(crate) log_lost: Counter,
    series_dropped: Counter,
    gauges: Family<Vec<(String, String)>, Gauge>,
    series: std::sync::Mutex<std::collections::HashSet<Labels>>,
    series_count: AtomicUsize,
    last_drops: std::sync::Mutex<std::collections::BTreeMap<&'static str, u64>>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::default();
        let requests = Family::<Labels, Counter>::default();
        let histograms = || Histograms::new_with_constructor(histogram as fn() -> Histogram);
        let (duration, request_bytes, response_bytes) = (histograms(), histograms(), histograms());
        let counters = || Family::<Labels, Counter>::default();
        let (tcp_sent, tcp_received, tcp_opened, tcp_closed) =
            (counters(), counters(), counters(), counters());
        let denials = Family::<Denial, Counter>::default();
        let drops = Family::<DropLabels, Counter>::default();
        let ext_authz = Family::<ExtAuthzLabels, Counter>::default();
        let (log_lost, series_dropped) = (Counter::default(), Counter::default());
        let gauges = Family::<Vec<(String, String)>, Gauge>::default();
        registry.register("istio_requests", "Requests", requests.clone());
        registry.register(
            "istio_request_duration_milliseconds",
            "Duration of requests",
            duration.clone(),
        );
        registry.register("istio_request_bytes", "Request body sizes", request_bytes.clone());
        registry.register(
            "istio_response_bytes",
            "Response body sizes",
            response_bytes.clone(),
        );
        registry.register("istio_tcp_sent_bytes", "Bytes sent to callers", tcp_sent.clone());
        registry.register(
            "istio_tcp_received_bytes",
            "Bytes received from callers",
            tcp_received.clone(),
        );
        registry.register(
            "istio_tcp_connections_opened",
            "Connections opened",
            tcp_opened.clone(),
        );
        registry.register(
            "istio_tcp_connections_closed",
            "Connections closed",
            tcp_closed.clone(),
        );
        registry.register(
            "meshward_denials",
            "Refused requests and connections, by reason",
            denials.clone(),
        );
        registry.register(
            "meshward_capture_dropped_packets",
            "Packets that capture dropped, by reason",
            drops.clone(),
        );
        registry.register(
            "meshward_ext_authz",
            "Questions to external authorizers, by what they were found to say",
            ext_authz.clone(),
        );
        registry.register(
            "meshward_log_events_lost",
            "Access-log events that a full queue lost",
            log_lost.clone(),
        );
        registry.register(
            "meshward_metrics_series_dropped",
            "Events without a series of their own: too many",
            series_dropped.clone(),
        );
        registry.register("meshward_state", "State of the proxy, by what", gauges.clone());
        for reporter in [Reporter::Source, Reporter::Destination] {
            for reason in Reason::ALL {
                let _ = denials.get_or_create(&Denial {
                    reporter: Text(reporter.as_str()),
                    reason: Text(reason.as_str()),
                });
            }
        }
        Self {
            registry,
            requests,
            duration,
            request_bytes,
            response_bytes,
            tcp_sent,
            tcp_received,
            tcp_opened,
            tcp_closed,
            denials,
            drops,
            ext_authz,
            log_lost,
            series_dropped,
            gauges,
            series: std::sync::Mutex::default(),
            series_count: AtomicUsize::new(0),
            last_drops: std::sync::Mutex::default(),
        }
    }

    pub(crate) fn record(&self, event: &Event) {
        if let Some(reason) = event.reason {
            self.denials
                .get_or_create(&Denial {
                    reporter: Text(event.reporter.as_str()),
                    reason: Text(reason.as_str()),
                })
                .inc();
        }
        // Names of those that were asked are the mesh's; others are whatever somebody wrote into a policy.
        for asked in &event.ext_authz {
            let known = asked.result != "unasked";
            self.ext_authz
                .get_or_create(&ExtAuthzLabels {
                    provider: if known {
                        asked.provider.to_string()
                    } else {
                        "unknown".to_owned()
                    },
                    result: Text(asked.result),
                })
                .inc();
        }
        let labels = Labels::of(event);
        if !self.admit(&labels) {
            self.series_dropped.inc();
            return;
        }
        match event.kind {
            EventKind::Request => {
                self.requests.get_or_create(&labels).inc();
                self.duration
                    .get_or_create(&labels)
                    .observe(event.duration.as_secs_f64() * 1000.0);
                self.request_bytes
                    .get_or_create(&labels)
                    .observe(precise(event.bytes_received));
                self.response_bytes
                    .get_or_create(&labels)
                    .observe(precise(event.bytes_sent));
            }
            EventKind::Connection => {
                self.tcp_opened.get_or_create(&labels).inc();
                self.tcp_closed.get_or_create(&labels).inc();
                self.tcp_sent.get_or_create(&labels).inc_by(event.bytes_sent);
                self.tcp_received
                    .get_or_create(&labels)
                    .inc_by(event.bytes_received);
            }
            EventKind::Drop | EventKind::Dns => {}
        }
    }

    /// Whether the flow may have series: known, or the bound is not reached.
    fn admit(&self, labels: &Labels) -> bool {
        let Ok(mut known) = self.series.lock() else {
            return false;
        };
        if known.contains(labels) {
            return true;
        }
        if self.series_count.load(Ordering::Relaxed) >= SERIES {
            return false;
        }
        self.series_count.fetch_add(1, Ordering::Relaxed);
        known.insert(labels.clone())
    }

    /// Takes absolute counts of dropped packets, as capture reads them from the kernel.
    pub(crate) fn drops(&self, counts: &[(&'static str, u64)]) {
        let Ok(mut last) = self.last_drops.lock() else {
            return;
        };
        for (reason, now) in counts {
            let before = last.insert(reason, *now).unwrap_or(0);
            let counter = self
                .drops
                .get_or_create(&DropLabels { reason: Text(reason) })
                .clone();
            counter.inc_by(now.saturating_sub(before));
        }
    }

    pub(crate) fn gauge(&self, what: &str, value: i64) {
        self.gauges
            .get_or_create(&vec![("what".to_owned(), what.to_owned())])
            .set(value);
    }

    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut out, &self.registry);
        out
    }
}

fn histogram() -> Histogram {
    Histogram::new(BOUNDS)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a histogram's sum is a float by its format"
)]
fn precise(bytes: u64) -> f64 {
    bytes as f64
}
