//! What the metrics say of each pair of caller and callee, between two looks. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::inspect::samples::{Sample, samples};

/// Who calls whom, how.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Pair {
    source: (String, String),
    destination: (String, String),
    service: String,
    protocol: String,
}

/// What one reporter has counted of a pair.
#[derive(Clone, PartialEq, Debug, Default)]
struct Counted {
    requests: f64,
    errors: f64,
    denied: f64,
    opened: f64,
    bytes: f64,
    /// By upper bound, in milliseconds; as text, so that it has an order.
    buckets: BTreeMap<String, f64>,
    mutual: bool,
}

/// Counts of all pairs, by reporter.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Totals(BTreeMap<(Pair, bool), Counted>);

/// What went between two looks, a second.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Flow {
    pub(crate) source_namespace: String,
    pub(crate) source_workload: String,
    pub(crate) destination_namespace: String,
    pub(crate) destination_workload: String,
    /// The Service's host; `unknown` where there is none.
    pub(crate) destination_service: String,
    pub(crate) protocol: String,
    /// As `connection_security_policy`.
    pub(crate) security: String,
    /// Requests.
    #[serde(rename = "requestsPerS")]
    pub(crate) rate: f64,
    /// Connections of bytes.
    #[serde(rename = "connectionsPerS")]
    pub(crate) connections: f64,
    /// Requests answered with 5xx, or not at all.
    #[serde(rename = "errorsPerS")]
    pub(crate) errors: f64,
    /// Requests and connections that were refused.
    #[serde(rename = "deniedPerS")]
    pub(crate) denied: f64,
    /// Bytes of connections, both ways.
    #[serde(rename = "bytesPerS")]
    pub(crate) bytes: f64,
    /// Median of the requests' time.
    pub(crate) p50_ms: Option<f64>,
    /// 99 of 100 were faster.
    pub(crate) p99_ms: Option<f64>,
}

impl Totals {
    /// Adds what one proxy says.
    pub(crate) fn add(&mut self, text: &str) {
        for sample in samples(text) {
            let count = match sample.name {
                "istio_requests_total" => |counted: &mut Counted, sample: &Sample<'_>| {
                    counted.requests += sample.value;
                    let code = sample.label("response_code");
                    if code.starts_with('5') || code == "0" {
                        counted.errors += sample.value;
                    }
                },
                "istio_request_duration_milliseconds_bucket" => {
                    |counted: &mut Counted, sample: &Sample<'_>| {
                        let bound = sample.label("le").to_owned();
                        *counted.buckets.entry(bound).or_default() += sample.value;
                    }
                }
                "istio_tcp_connections_opened_total" => |counted: &mut Counted, sample: &Sample<'_>| {
                    counted.opened += sample.value;
                },
                "istio_tcp_sent_bytes_total" | "istio_tcp_received_bytes_total" => {
                    |counted: &mut Counted, sample: &Sample<'_>| counted.bytes += sample.value
                }
                "meshward_denied_total" => |counted: &mut Counted, sample: &Sample<'_>| {
                    counted.denied += sample.value;
                },
                _ => continue,
            };
            let label = |name: &str| sample.label(name).to_owned();
            let pair = Pair {
                source: (label("source_workload_namespace"), label("source_workload")),
                destination: (
                    label("destination_workload_namespace"),
                    label("destination_workload"),
                ),
                service: match sample.label("destination_service") {
                    "unknown" => label("destination_service_name"),
                    host => host.to_owned(),
                },
                protocol: label("request_protocol"),
            };
            let at_destination = sample.label("reporter") == "destination";
            let counted = self.0.entry((pair, at_destination)).or_default();
            counted.mutual |= sample.label("connection_security_policy") == "mutual_tls";
            count(counted, &sample);
        }
    }

    /// What was counted since `before`, a second. Of a pair that both ends tell of the callee's word counts, as it knows how
    /// the application fared; what never got there the caller's proxy tells alone.
    pub(crate) fn since(&self, before: &Self, seconds: f64) -> Vec<Flow> {
        let mut flows: BTreeMap<&Pair, Flow> = BTreeMap::new();
        // The source's come first, and are replaced by the destination's.
        for ((pair, at_destination), now) in &self.0 {
            let then = before.0.get(&(pair.clone(), *at_destination));
            let Some(flow) = flow(pair, now, then, seconds) else {
                continue;
            };
            match flows.get_mut(pair) {
                Some(source) if *at_destination => {
                    let denied = source.denied.max(flow.denied);
                    *source = Flow { denied, ..flow };
                }
                _ => drop(flows.insert(pair, flow)),
            }
        }
        flows.into_values().collect()
    }
}

fn flow(pair: &Pair, now: &Counted, then: Option<&Counted>, seconds: f64) -> Option<Flow> {
    let none = Counted::default();
    let then = then.unwrap_or(&none);
    // A proxy that was started anew counts from nothing.
    let grown = |of: fn(&Counted) -> f64| match of(now) - of(then) {
        less if less < 0.0 => of(now),
        more => more,
    };
    let a_second = |of: fn(&Counted) -> f64| grown(of) / seconds.max(0.001);
    let buckets: Vec<(f64, f64)> = now
        .buckets
        .iter()
        .filter_map(|(bound, count)| {
            let before = then.buckets.get(bound).copied().unwrap_or(0.0);
            let bound = match bound.as_str() {
                "+Inf" => f64::INFINITY,
                bound => bound.parse().ok()?,
            };
            Some((bound, (count - before).max(0.0)))
        })
        .collect();
    let flow = Flow {
        source_namespace: pair.source.0.clone(),
        source_workload: pair.source.1.clone(),
        destination_namespace: pair.destination.0.clone(),
        destination_workload: pair.destination.1.clone(),
        destination_service: pair.service.clone(),
        protocol: pair.protocol.clone(),
        security: if now.mutual { "mutual_tls" } else { "none" }.to_owned(),
        rate: a_second(|counted| counted.requests),
        connections: a_second(|counted| counted.opened),
        errors: a_second(|counted| counted.errors),
        denied: a_second(|counted| counted.denied),
        bytes: a_second(|counted| counted.bytes),
        p50_ms: quantile(&buckets, 0.50),
        p99_ms: quantile(&buckets, 0.99),
    };
    let quiet = [flow.rate, flow.connections, flow.denied, flow.bytes]
        .into_iter()
        .all(|value| value == 0.0);
    (!quiet).then_some(flow)
}

/// As PromQL's `histogram_quantile`: straight lines within a bucket.
fn quantile(buckets: &[(f64, f64)], share: f64) -> Option<f64> {
    let mut buckets = buckets.to_vec();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let all = buckets.last().filter(|last| last.1 > 0.0)?.1;
    let rank = all * share;
    let (mut bound, mut below) = (0.0, 0.0);
    for (upper, count) in buckets {
        if count >= rank {
            if upper.is_infinite() {
                return Some(bound);
            }
            let within = count - below;
            let part = if within > 0.0 {
                (rank - below) / within
            } else {
                0.0
            };
            return Some(bound + (upper - bound) * part);
        }
        (bound, below) = (upper, count);
    }
    Some(bound)
}

impl Flow {
    /// Whether either end is of the namespace.
    pub(crate) fn is_asked_for(&self, namespace: Option<&str>) -> bool {
        namespace.is_none_or(|ns| self.source_namespace == ns || self.destination_namespace == ns)
    }

    pub(crate) fn caller(&self) -> String {
        format!("{}/{}", self.source_namespace, self.source_workload)
    }

    pub(crate) fn callee(&self) -> String {
        match self.destination_service.as_str() {
            "" | "unknown" => format!("{}/{}", self.destination_namespace, self.destination_workload),
            service => service.to_owned(),
        }
    }

    pub(crate) fn name(&self) -> (String, String, &str) {
        (self.caller(), self.callee(), &self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, reporter: &str, more: &str, value: u32) -> String {
        format!(
            "{name}{{reporter=\"{reporter}\",source_workload=\"a\",source_workload_namespace=\"n\",destination_workload=\"b\",destination_workload_namespace=\"n\",destination_service=\"b.n.svc.cluster.local\",request_protocol=\"http\",connection_security_policy=\"mutual_tls\"{more}}} {value}\n"
        )
    }

    fn totals(text: &str) -> Totals {
        let mut totals = Totals::default();
        totals.add(text);
        totals
    }

    #[test]
    fn the_callees_word_counts_and_what_never_got_there_is_the_callers() {
        let code = ",response_code=\"200\"";
        let both = line("istio_requests_total", "source", code, 9)
            + &line("istio_requests_total", "destination", code, 4)
            + &line("meshward_denied_total", "source", code, 2);
        let flows = totals(&both).since(&Totals::default(), 2.0);
        assert_eq!(flows.len(), 1);
        assert_eq!((flows[0].rate, flows[0].denied), (2.0, 1.0));
        let one = line("istio_requests_total", "source", ",response_code=\"503\"", 4);
        let flows = totals(&one).since(&Totals::default(), 2.0);
        assert_eq!((flows[0].rate, flows[0].errors), (2.0, 2.0));
    }

    #[test]
    fn a_proxy_that_was_started_anew_counts_from_nothing() {
        let code = ",response_code=\"200\"";
        let before = totals(&line("istio_requests_total", "source", code, 100));
        let now = totals(&line("istio_requests_total", "source", code, 3));
        assert_eq!(now.since(&before, 1.0)[0].rate, 3.0);
        assert!(before.since(&before, 1.0).is_empty(), "nothing went");
    }

    #[test]
    fn times_are_read_from_buckets_as_promql_reads_them() {
        let buckets = [(1.0, 0.0), (5.0, 50.0), (10.0, 100.0), (f64::INFINITY, 100.0)];
        assert_eq!(quantile(&buckets, 0.50), Some(5.0));
        assert_eq!(quantile(&buckets, 0.75), Some(7.5));
        assert_eq!(quantile(&[(1.0, 0.0), (f64::INFINITY, 4.0)], 0.99), Some(1.0));
        assert_eq!(quantile(&[(1.0, 0.0), (f64::INFINITY, 0.0)], 0.5), None);
        assert_eq!(quantile(&[], 0.5), None);
    }
}
