//! What is counted of one label set.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::event::Event;

/// Istio's default histogram bounds, for milliseconds and bytes alike.
const BOUNDS: [f64; BUCKETS] = [
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
const BUCKETS: usize = 19;

/// What is counted of one label set. Of requests or of connections: the labels say which.
#[derive(Debug)]
pub(super) enum Series {
    Requests(Box<Requests>),
    Connections(Connections),
}

#[derive(Debug, Default)]
pub(super) struct Requests {
    pub(super) count: Count,
    pub(super) duration: Spread<Nanoseconds>,
    pub(super) request_bytes: Spread<Bytes>,
    pub(super) response_bytes: Spread<Bytes>,
    pub(super) request_messages: Count,
    pub(super) response_messages: Count,
    pub(super) denied: Count,
}

#[derive(Debug, Default)]
pub(super) struct Connections {
    pub(super) sent: Count,
    pub(super) received: Count,
    pub(super) opened: Count,
    pub(super) closed: Count,
    pub(super) denied: Count,
}

impl Series {
    pub(super) fn new(of_requests: bool) -> Self {
        if of_requests {
            Self::Requests(Box::default())
        } else {
            Self::Connections(Connections::default())
        }
    }

    pub(super) fn requests(&self) -> Option<&Requests> {
        match self {
            Self::Requests(requests) => Some(requests),
            Self::Connections(_) => None,
        }
    }

    pub(super) fn connections(&self) -> Option<&Connections> {
        match self {
            Self::Connections(connections) => Some(connections),
            Self::Requests(_) => None,
        }
    }

    pub(super) fn denied(&self) -> &Count {
        match self {
            Self::Requests(requests) => &requests.denied,
            Self::Connections(connections) => &connections.denied,
        }
    }

    pub(super) fn decided(&self, event: &Event) {
        if event.denied() {
            self.denied().add(1);
        }
    }
}

impl Requests {
    pub(super) fn take(&self, event: &Event) {
        self.count.add(1);
        let duration = u64::try_from(event.duration.as_nanos()).unwrap_or(u64::MAX);
        self.duration.observe(duration);
        self.request_bytes.observe(event.bytes_received);
        self.response_bytes.observe(event.bytes_sent);
        if let Some(http) = &event.http {
            self.request_messages.add(http.request_messages);
            self.response_messages.add(http.response_messages);
        }
    }
}

impl Connections {
    pub(super) fn bytes(&self, (received, sent): (u64, u64)) {
        self.received.add(received);
        self.sent.add(sent);
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, more: u64) {
        if more > 0 {
            self.0.fetch_add(more, Ordering::Relaxed);
        }
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl EncodeMetric for Count {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.encode_counter::<NoLabelSet, _, u64>(&self.get(), None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// What a histogram's values are counted in, and its bounds in that: what is no greater than one falls below it.
pub(super) trait Unit {
    const BOUNDS: [u64; BUCKETS];
    /// How many make one of what the metric is told in.
    const WHOLE: f64;
}

/// Told in milliseconds.
#[derive(Debug, Default)]
pub(super) struct Nanoseconds;

impl Unit for Nanoseconds {
    const BOUNDS: [u64; BUCKETS] = scaled(1_000_000.0);
    const WHOLE: f64 = 1_000_000.0;
}

#[derive(Debug, Default)]
pub(super) struct Bytes;

impl Unit for Bytes {
    const BOUNDS: [u64; BUCKETS] = scaled(1.0);
    const WHOLE: f64 = 1.0;
}

/// [`BOUNDS`] in another unit; below the half of a whole one there is nothing.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    reason = "constants, whole once they are multiplied but for the half that is cut"
)]
const fn scaled(by: f64) -> [u64; BUCKETS] {
    let mut scaled = [0; BUCKETS];
    let mut at = 0;
    while at < BUCKETS {
        scaled[at] = (BOUNDS[at] * by) as u64;
        at += 1;
    }
    scaled
}

/// A histogram with [`BOUNDS`]. Values are whole numbers, so that nobody who counts waits for anybody.
#[derive(Debug)]
pub(super) struct Spread<U> {
    /// The last is what is beyond all bounds.
    buckets: [AtomicU64; BUCKETS + 1],
    sum: AtomicU64,
    unit: std::marker::PhantomData<U>,
}

impl<U> Default for Spread<U> {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            sum: AtomicU64::new(0),
            unit: std::marker::PhantomData,
        }
    }
}

impl<U: Unit> Spread<U> {
    pub(super) fn observe(&self, value: u64) {
        let at = U::BOUNDS.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }
}

impl<U: Unit> EncodeMetric for Spread<U> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let counts = self
            .buckets
            .each_ref()
            .map(|bucket| bucket.load(Ordering::Relaxed));
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(counts).collect();
        let sum = precise(self.sum.load(Ordering::Relaxed)) / U::WHOLE;
        // Told of one reading: the last bucket and the count are the same.
        encoder.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a histogram's sum is a float by its format"
)]
fn precise(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::registry::Registry;

    use super::*;

    /// As [`super::super::Traffic`] has it written.
    #[derive(Debug)]
    struct Alone<U>(std::sync::Arc<Spread<U>>);

    impl<U: Unit + fmt::Debug + Send + Sync + 'static> prometheus_client::collector::Collector for Alone<U> {
        fn encode(
            &self,
            mut encoder: prometheus_client::encoding::DescriptorEncoder<'_>,
        ) -> Result<(), fmt::Error> {
            let metric = encoder.encode_descriptor("x", "X.", None, MetricType::Histogram)?;
            self.0.encode(metric)
        }
    }

    fn written(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    fn both<U: Unit + fmt::Debug + Send + Sync + 'static>(values: &[u64]) -> (String, String) {
        let spread = std::sync::Arc::new(Spread::<U>::default());
        let plain = Histogram::new(BOUNDS);
        for value in values {
            spread.observe(*value);
            plain.observe(precise(*value) / U::WHOLE);
        }
        let (mut ours, mut theirs) = (Registry::default(), Registry::default());
        ours.register_collector(Box::new(Alone(spread)));
        theirs.register("x", "X", plain);
        (written(&ours), written(&theirs))
    }

    #[test]
    fn bounds_belong_to_what_is_below_them() {
        let half_a_millisecond = 500_000;
        let edges = [
            0,
            half_a_millisecond,
            half_a_millisecond + 1,
            1_000_000,
            3_600_000_000_000,
            u64::MAX / 8,
        ];
        let (ours, theirs) = both::<Nanoseconds>(&edges);
        assert_eq!(ours, theirs);
        let (ours, theirs) = both::<Bytes>(&[0, 1, 2, 5, 6, 3_600_000, 3_600_001]);
        assert_eq!(ours, theirs);
    }

    #[test]
    fn a_histogram_of_whole_numbers_is_written_as_any_other() {
        for seed in 0..50_u64 {
            let value = |n: u64| (seed + 1).wrapping_mul(n * n * 7919) >> (n % 24);
            let values: Vec<u64> = (0..seed).map(|n| value(n) % (1 << 40)).collect();
            let (ours, theirs) = both::<Bytes>(&values);
            assert_eq!(ours, theirs, "{values:?}");
        }
    }
}
