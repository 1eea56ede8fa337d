//! What is carried, by Istio's metrics: a series for each pair of ends and way of ending.

mod labels;
mod series;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use foldhash::HashMap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;

use crate::event::{Event, EventKind};
use labels::{Labels, Rest};
use series::{Requests, Series};

/// How many label sets the traffic metrics may hold together. Past it, new flows are counted in
/// `meshward_metrics_series_dropped_total` instead of growing memory without bound.
pub(crate) const SERIES: usize = 20_000;

/// How many series a [`Known`] remembers; others are found by their labels each time.
const KNOWN: usize = 4;

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
        if let Some(connections) = self.series.connections() {
            connections.bytes((now.0.saturating_sub(counted.0), now.1.saturating_sub(counted.1)));
        }
        *counted = now;
    }
}

/// Series that events of one connection have had: the next event that is the same but for what no label says finds its own
/// without a look at its labels. Kept by whoever leaves the events.
#[derive(Debug, Default)]
pub struct Known(Mutex<Vec<(Labels, Arc<Series>)>>);

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

    pub(crate) fn record(&self, event: &Event, known: Option<&Known>) {
        match event.kind {
            EventKind::Request => self.with(event, known, |series| {
                if let Some(requests) = series.requests() {
                    requests.take(event);
                }
                series.decided(event);
            }),
            EventKind::Connection => self.with(event, known, |series| {
                if let Some(connections) = series.connections() {
                    connections.opened.add(1);
                    connections.closed.add(1);
                    connections.bytes((event.bytes_received, event.bytes_sent));
                }
                series.decided(event);
            }),
            EventKind::Drop | EventKind::Dns => {}
        }
    }

    /// A connection is open from now on; its bytes are counted as they go by, whenever somebody looks.
    pub(crate) fn opened(&self, event: &Event, progress: &Arc<Progress>) -> Option<Flow> {
        let series = self.find(Labels::of(event, Rest::of(event).open()))?;
        series.connections()?.opened.add(1);
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
        self.with(event, None, |series| {
            if let Some(connections) = series.connections() {
                connections.closed.add(1);
            }
            series.decided(event);
        });
    }

    /// Counts in the series of an event, where there is one.
    fn with(&self, event: &Event, known: Option<&Known>, count: impl FnOnce(&Series)) {
        let rest = Rest::of(event);
        let Some(known) = known else {
            if let Some(series) = self.find(Labels::of(event, rest)) {
                count(&series);
            }
            return;
        };
        let mut known = locked(&known.0);
        if let Some((_, series)) = known.iter().find(|(labels, _)| labels.are_of(event, &rest)) {
            return count(series);
        }
        let labels = Labels::of(event, rest);
        if let Some(series) = self.find(labels.clone()) {
            count(&series);
            if known.len() >= KNOWN {
                known.remove(0);
            }
            known.push((labels, series));
        }
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
        let series = Arc::new(Series::new(labels.rest().code.is_some()));
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

/// Of a series what a metric tells, where it has that.
type Of = for<'s> fn(&Labels, &'s Series) -> Option<&'s dyn EncodeMetric>;

/// Name without suffix, help, and what of a series.
const METRICS: [(&str, &str, Of); 11] = [
    ("istio_requests", "Requests", |_, s| Some(&s.requests()?.count)),
    (
        "istio_request_duration_milliseconds",
        "Duration of requests",
        |_, s| Some(&s.requests()?.duration),
    ),
    ("istio_request_bytes", "Request body sizes", |_, s| {
        Some(&s.requests()?.request_bytes)
    }),
    ("istio_response_bytes", "Response body sizes", |_, s| {
        Some(&s.requests()?.response_bytes)
    }),
    (
        "istio_request_messages",
        "gRPC messages from callers",
        |labels, s| Some(&of_grpc(labels, s)?.request_messages),
    ),
    (
        "istio_response_messages",
        "gRPC messages to callers",
        |labels, s| Some(&of_grpc(labels, s)?.response_messages),
    ),
    ("istio_tcp_sent_bytes", "Bytes sent to callers", |_, s| {
        Some(&s.connections()?.sent)
    }),
    (
        "istio_tcp_received_bytes",
        "Bytes received from callers",
        |_, s| Some(&s.connections()?.received),
    ),
    ("istio_tcp_connections_opened", "Connections opened", |_, s| {
        Some(&s.connections()?.opened)
    }),
    ("istio_tcp_connections_closed", "Connections closed", |_, s| {
        Some(&s.connections()?.closed)
    }),
    (
        "meshward_denied",
        "Requests and connections that were refused",
        |_, s| (s.denied().get() > 0).then_some(s.denied() as &dyn EncodeMetric),
    ),
];

fn of_grpc<'s>(labels: &Labels, series: &'s Series) -> Option<&'s Requests> {
    series.requests().filter(|_| labels.rest().protocol == "grpc")
}

impl Collector for Traffic {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let all = self.all();
        for (name, help, of) in METRICS {
            let kind = match name {
                "istio_request_duration_milliseconds" | "istio_request_bytes" | "istio_response_bytes" => {
                    MetricType::Histogram
                }
                _ => MetricType::Counter,
            };
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for (labels, series) in &all {
                if let Some(told) = of(labels, series) {
                    told.encode(metric.encode_family(&**labels)?)?;
                }
            }
        }
        Ok(())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
