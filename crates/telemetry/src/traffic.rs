//! What is carried, by Istio's metrics: a series for each pair of ends and way of ending.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use foldhash::HashMap;
use model::Reason;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel, EncodeLabelSet, EncodeMetric, LabelSetEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

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

/// Where Istio sends what leaves the registry, and what it refuses to: `destination_service_name` then.
const PASSTHROUGH: &str = "PassthroughCluster";
const BLACK_HOLE: &str = "BlackHoleCluster";
const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";

/// The labels of a series. Two events of the same labels have the same series: what no label says (a pod, an address)
/// has no part in it.
#[derive(Clone, Debug)]
pub(crate) struct Labels {
    reporter: Reporter,
    source: Arc<Peer>,
    destination: Arc<Peer>,
    service: Option<Arc<str>>,
    /// `destination_service_name` where there is no Service.
    unnamed: &'static str,
    protocol: &'static str,
    /// Of a request; `None` for connections.
    code: Option<u16>,
    grpc: Option<u32>,
    flags: &'static str,
    security: &'static str,
}

impl Labels {
    fn of(event: &Event) -> Self {
        let protocol = match event.protocol {
            // Istio has no other words for what is not HTTP.
            "http" | "grpc" => event.protocol,
            _ => "tcp",
        };
        let unnamed = match (event.reporter, event.reason) {
            _ if event.service.is_some() => "",
            (Reporter::Destination, _) => INBOUND_PASSTHROUGH,
            (Reporter::Source, Some(Reason::EgressUnknown)) => BLACK_HOLE,
            (Reporter::Source, _) if event.destination.workload.is_empty() => PASSTHROUGH,
            (Reporter::Source, _) => "unknown",
        };
        let is_request = event.kind == EventKind::Request;
        let http = event.http.as_ref().filter(|_| is_request);
        Self {
            reporter: event.reporter,
            source: Arc::clone(&event.source),
            destination: Arc::clone(&event.destination),
            service: event.service.clone(),
            unnamed,
            protocol,
            code: is_request.then(|| http.map_or(0, |http| http.code)),
            grpc: http.and_then(|http| http.grpc_status),
            flags: event.flags,
            security: security(event.reporter, event.wire),
        }
    }

    fn ends(&self) -> [(&'static str, &Peer); 2] {
        [("source", &self.source), ("destination", &self.destination)]
    }

    /// What decides whether two are the same.
    fn key(&self) -> impl Eq + Hash + '_ {
        fn end(peer: &Peer) -> (&str, &str, Option<&model::SpiffeId>, &str, &str, (&str, &str)) {
            (
                &peer.namespace,
                &peer.workload,
                peer.principal.as_ref(),
                &peer.app,
                &peer.version,
                (&peer.canonical_name, &peer.canonical_revision),
            )
        }
        (
            end(&self.source),
            end(&self.destination),
            self.service.as_deref(),
            (self.reporter, self.unnamed, self.protocol),
            (self.code, self.grpc, self.flags, self.security),
        )
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Labels {}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// `mutual_tls` where it was; else `none` at the destination, and `unknown` at the source. An Istio sidecar says
/// `unknown` at the source always; ztunnel, which as we do holds both ends' identities, says what was.
fn security(reporter: Reporter, wire: Wire) -> &'static str {
    match (wire, reporter) {
        (Wire::MutualTls | Wire::Hbone | Wire::Local, _) => "mutual_tls",
        (Wire::Plaintext | Wire::Foreign, Reporter::Destination) => "none",
        (Wire::Plaintext | Wire::Foreign, Reporter::Source) => "unknown",
    }
}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        fn known(text: &str) -> &str {
            if text.is_empty() { "unknown" } else { text }
        }
        let mut put = |key: &str, value: &str| (key, value).encode(encoder.encode_label());
        put("reporter", self.reporter.as_str())?;
        for (prefix, peer) in self.ends() {
            let principal = peer
                .principal
                .as_ref()
                .map_or(Cow::Borrowed("unknown"), |id| Cow::Owned(id.to_string()));
            put(&format!("{prefix}_workload"), known(&peer.workload))?;
            put(&format!("{prefix}_workload_namespace"), known(&peer.namespace))?;
            put(&format!("{prefix}_principal"), &principal)?;
            put(&format!("{prefix}_app"), known(&peer.app))?;
            put(&format!("{prefix}_version"), known(&peer.version))?;
            put(
                &format!("{prefix}_canonical_service"),
                known(&peer.canonical_name),
            )?;
            put(
                &format!("{prefix}_canonical_revision"),
                known(&peer.canonical_revision),
            )?;
            let cluster = if peer.workload.is_empty() {
                "unknown"
            } else {
                "Kubernetes"
            };
            put(&format!("{prefix}_cluster"), cluster)?;
        }
        let (host, name, namespace) = self.service();
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
        put("connection_security_policy", self.security)
    }
}

impl Labels {
    /// Host, name and namespace: of `httpbin.full.svc.cluster.local` the last two are `httpbin` and `full`; of anything
    /// else the host itself and the workload's namespace.
    fn service(&self) -> (&str, &str, &str) {
        let namespace = match &*self.destination.namespace {
            "" => "unknown",
            namespace => namespace,
        };
        let Some(host) = self.service.as_deref() else {
            return ("unknown", self.unnamed, namespace);
        };
        let mut labels = host.split('.');
        match (labels.next(), labels.next(), labels.next()) {
            (Some(name), Some(namespace), Some("svc")) => (host, name, namespace),
            _ => (host, host, namespace),
        }
    }
}

/// What is counted of one label set. Of requests or of connections: the labels say which.
#[derive(Debug)]
pub(crate) struct Series {
    requests: Counter,
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
    request_messages: Counter,
    response_messages: Counter,
    sent: Counter,
    received: Counter,
    opened: Counter,
    closed: Counter,
    denied: Counter,
}

impl Series {
    fn new(is_request: bool) -> Self {
        // A series of connections has no use for histograms: they are the most of its memory.
        let histogram = || {
            let bounds: &[f64] = if is_request { &BOUNDS } else { &[] };
            Histogram::new(bounds.iter().copied())
        };
        Self {
            requests: Counter::default(),
            duration: histogram(),
            request_bytes: histogram(),
            response_bytes: histogram(),
            request_messages: Counter::default(),
            response_messages: Counter::default(),
            sent: Counter::default(),
            received: Counter::default(),
            opened: Counter::default(),
            closed: Counter::default(),
            denied: Counter::default(),
        }
    }

    fn request(&self, event: &Event) {
        self.requests.inc();
        self.duration.observe(event.duration.as_secs_f64() * 1000.0);
        self.request_bytes.observe(precise(event.bytes_received));
        self.response_bytes.observe(precise(event.bytes_sent));
        if let Some(http) = &event.http {
            self.request_messages.inc_by(http.request_messages);
            self.response_messages.inc_by(http.response_messages);
        }
    }

    fn decided(&self, event: &Event) {
        if event.denied() {
            self.denied.inc();
        }
    }

    fn bytes(&self, (received, sent): (u64, u64)) {
        self.received.inc_by(received);
        self.sent.inc_by(sent);
    }
}

/// Bytes of a connection that is under way, counted by whoever carries them.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes from the caller.
    pub received: AtomicU64,
    /// Bytes to the caller.
    pub sent: AtomicU64,
}

/// A connection that is counted while it is open: dropping it ends that.
#[derive(Debug)]
pub struct Flow {
    traffic: Traffic,
    number: u64,
}

impl Drop for Flow {
    fn drop(&mut self) {
        let live = locked(&self.traffic.0.live).remove(&self.number);
        if let Some(live) = live {
            live.catch_up();
        }
    }
}

#[derive(Debug)]
struct Live {
    series: Arc<Series>,
    progress: Arc<Progress>,
    /// What has been counted so far: received and sent.
    counted: Mutex<(u64, u64)>,
}

impl Live {
    fn catch_up(&self) {
        let mut counted = locked(&self.counted);
        let now = (
            self.progress.received.load(Ordering::Relaxed),
            self.progress.sent.load(Ordering::Relaxed),
        );
        self.series
            .bytes((now.0.saturating_sub(counted.0), now.1.saturating_sub(counted.1)));
        *counted = now;
    }
}

/// All series of traffic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    series: RwLock<HashMap<Arc<Labels>, Arc<Series>>>,
    dropped: Counter,
    live: Mutex<HashMap<u64, Live>>,
    next: AtomicU64,
}

impl Traffic {
    /// Events without a series of their own: too many.
    pub(crate) fn dropped(&self) -> Counter {
        self.0.dropped.clone()
    }

    pub(crate) fn record(&self, event: &Event) {
        match event.kind {
            EventKind::Request => {
                if let Some(series) = self.series(event) {
                    series.request(event);
                    series.decided(event);
                }
            }
            EventKind::Connection => {
                if let Some(series) = self.series(event) {
                    series.opened.inc();
                    series.closed.inc();
                    series.bytes((event.bytes_received, event.bytes_sent));
                    series.decided(event);
                }
            }
            EventKind::Drop | EventKind::Dns => {}
        }
    }

    /// A connection is open from now on; its bytes are counted as they go by, whenever somebody looks.
    pub(crate) fn opened(&self, event: &Event, progress: &Arc<Progress>) -> Option<Flow> {
        let mut open = Labels::of(event);
        // Nobody knows yet how it will end.
        open.flags = "-";
        let series = self.find(open)?;
        series.opened.inc();
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let live = Live {
            series,
            progress: Arc::clone(progress),
            counted: Mutex::default(),
        };
        locked(&self.0.live).insert(number, live);
        Some(Flow {
            traffic: self.clone(),
            number,
        })
    }

    /// The end of a connection that was told to be open.
    pub(crate) fn closed(&self, event: &Event, flow: Flow) {
        drop(flow);
        if let Some(series) = self.series(event) {
            series.closed.inc();
            series.decided(event);
        }
    }

    fn series(&self, event: &Event) -> Option<Arc<Series>> {
        self.find(Labels::of(event))
    }

    /// The series of the labels: known, or made where the bound is not reached.
    fn find(&self, labels: Labels) -> Option<Arc<Series>> {
        let known = |map: &HashMap<Arc<Labels>, Arc<Series>>| map.get(&labels).cloned();
        let read = self.0.series.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = known(&read) {
            return Some(series);
        }
        drop(read);
        let mut write = self.0.series.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = known(&write) {
            return Some(series);
        }
        if write.len() >= SERIES {
            self.0.dropped.inc();
            return None;
        }
        let series = Arc::new(Series::new(labels.code.is_some()));
        write.insert(Arc::new(labels), Arc::clone(&series));
        Some(series)
    }

    fn all(&self) -> Vec<(Arc<Labels>, Arc<Series>)> {
        for live in locked(&self.0.live).values() {
            live.catch_up();
        }
        let series = self.0.series.read().unwrap_or_else(PoisonError::into_inner);
        series
            .iter()
            .map(|(labels, series)| (Arc::clone(labels), Arc::clone(series)))
            .collect()
    }
}

/// Name without suffix, help, of which series, and what of one.
type Metric = (
    &'static str,
    &'static str,
    fn(&Labels, &Series) -> bool,
    fn(&Series) -> &dyn EncodeMetric,
);

const METRICS: [Metric; 11] = [
    ("istio_requests", "Requests", of_requests, |s| &s.requests),
    (
        "istio_request_duration_milliseconds",
        "Duration of requests",
        of_requests,
        |s| &s.duration,
    ),
    ("istio_request_bytes", "Request body sizes", of_requests, |s| {
        &s.request_bytes
    }),
    ("istio_response_bytes", "Response body sizes", of_requests, |s| {
        &s.response_bytes
    }),
    (
        "istio_request_messages",
        "gRPC messages from callers",
        of_grpc,
        |s| &s.request_messages,
    ),
    (
        "istio_response_messages",
        "gRPC messages to callers",
        of_grpc,
        |s| &s.response_messages,
    ),
    (
        "istio_tcp_sent_bytes",
        "Bytes sent to callers",
        of_connections,
        |s| &s.sent,
    ),
    (
        "istio_tcp_received_bytes",
        "Bytes received from callers",
        of_connections,
        |s| &s.received,
    ),
    (
        "istio_tcp_connections_opened",
        "Connections opened",
        of_connections,
        |s| &s.opened,
    ),
    (
        "istio_tcp_connections_closed",
        "Connections closed",
        of_connections,
        |s| &s.closed,
    ),
    (
        "meshward_denied",
        "Requests and connections that were refused",
        that_were_refused,
        |s| &s.denied,
    ),
];

fn of_requests(labels: &Labels, _: &Series) -> bool {
    labels.code.is_some()
}

fn of_grpc(labels: &Labels, _: &Series) -> bool {
    labels.code.is_some() && labels.protocol == "grpc"
}

fn of_connections(labels: &Labels, _: &Series) -> bool {
    labels.code.is_none()
}

fn that_were_refused(_: &Labels, series: &Series) -> bool {
    series.denied.get() > 0
}

impl Collector for Traffic {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let all = self.all();
        for (name, help, concerns, of) in METRICS {
            let kind = match name {
                "istio_request_duration_milliseconds" | "istio_request_bytes" | "istio_response_bytes" => {
                    MetricType::Histogram
                }
                _ => MetricType::Counter,
            };
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for (labels, series) in all.iter().filter(|(labels, series)| concerns(labels, series)) {
                of(series).encode(metric.encode_family(&**labels)?)?;
            }
        }
        Ok(())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a histogram's sum is a float by its format"
)]
fn precise(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests;
