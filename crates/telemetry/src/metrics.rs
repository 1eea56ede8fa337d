//! Istio's metrics, by their names, labels and values (semantics 10; Istio "Standard Metrics").

use std::fmt;
use std::sync::Arc;

use model::Reason;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::board;
use crate::event::{Event, Reporter};
use crate::traffic::{Flow, Known, Progress, Traffic};

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

/// All metrics of one proxy.
pub(crate) struct Metrics {
    registry: Registry,
    traffic: Traffic,
    denials: Family<Denial, Counter>,
    drops: Family<DropLabels, Counter>,
    ext_authz: Family<ExtAuthzLabels, Counter>,
    pub(crate) log_lost: Counter,
    pub(crate) spans: SpanCounts,
    gauges: Family<Vec<(String, String)>, Gauge>,
    upstream: Family<Vec<(&'static str, &'static str)>, Gauge>,
    last_drops: std::sync::Mutex<std::collections::BTreeMap<&'static str, u64>>,
}

/// What became of spans.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpanCounts {
    pub(crate) sent: Counter,
    pub(crate) lost: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::default();
        board::common(&mut registry, "proxy");
        let traffic = Traffic::default();
        let denials = Family::<Denial, Counter>::default();
        let drops = Family::<DropLabels, Counter>::default();
        let ext_authz = Family::<ExtAuthzLabels, Counter>::default();
        let log_lost = Counter::default();
        let spans = SpanCounts::default();
        let gauges = Family::<Vec<(String, String)>, Gauge>::default();
        let upstream = Family::<Vec<(&'static str, &'static str)>, Gauge>::default();
        registry.register_collector(Box::new(traffic.clone()));
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
            "meshward_spans_sent",
            "Spans that a collector has taken",
            spans.sent.clone(),
        );
        registry.register(
            "meshward_spans_lost",
            "Spans that a full queue lost, or that no collector took",
            spans.lost.clone(),
        );
        registry.register(
            "meshward_metrics_series_dropped",
            "Events without a series of their own: too many",
            traffic.dropped(),
        );
        registry.register("meshward_state", "State of the proxy, by what", gauges.clone());
        registry.register(
            "envoy_cluster_upstream_cx_active",
            "Open connections, by to whom: xds-grpc is the control plane",
            upstream.clone(),
        );
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
            traffic,
            denials,
            drops,
            ext_authz,
            log_lost,
            spans,
            gauges,
            upstream,
            last_drops: std::sync::Mutex::default(),
        }
    }

    pub(crate) fn opened(&self, event: &Event, progress: &Arc<Progress>) -> Option<Flow> {
        self.traffic.opened(event, progress)
    }

    /// Counts an event; `flow` is its connection's, where it was told to be open, and `known` what others of its
    /// connection were counted in.
    pub(crate) fn record(&self, event: &Event, flow: Option<Flow>, known: Option<&Known>) {
        self.decided(event);
        match flow {
            Some(flow) => self.traffic.closed(event, flow),
            None => self.traffic.record(event, known),
        }
    }

    fn decided(&self, event: &Event) {
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

    /// Whether the control plane's stream is open.
    pub(crate) fn control_connected(&self, connected: bool) {
        self.upstream
            .get_or_create(&vec![("cluster_name", "xds-grpc")])
            .set(i64::from(connected));
    }

    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut out, &self.registry);
        out
    }
}
