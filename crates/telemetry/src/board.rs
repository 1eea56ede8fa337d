//! Metrics of the parts that carry no traffic: the control plane and the certificate authority.
//!
//! Their names are Istio's (`pilot_*`, `citadel_*`, `galley_*`), which end as they please; OpenMetrics would put `_total`
//! behind each counter. So they are of type `unknown`, and keep the names by which dashboards ask.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

use crate::process::Process;

/// How many label sets one metric of a board may hold; further ones are counted together under no labels.
pub(crate) const LABEL_SETS: usize = 1000;

/// The metrics of one part.
pub struct Board(Registry);

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").finish_non_exhaustive()
    }
}

/// The version and the process.
pub(crate) fn common(registry: &mut Registry, component: &'static str) {
    let build = Counts::default();
    build.set(&[("component", component), ("tag", env!("CARGO_PKG_VERSION"))], 1);
    registry.register("istio_build", "The version that runs", build.0.family.clone());
    registry.register_collector(Box::new(Process));
}

impl Board {
    /// With the version (`istio_build{component}`: `pilot`, `citadel`) and what the kernel says of the process.
    pub fn new(component: &'static str) -> Self {
        let mut registry = Registry::default();
        common(&mut registry, component);
        Self(registry)
    }

    /// A number by labels, under exactly that name.
    pub fn counts(&mut self, name: &'static str, help: &'static str) -> Counts {
        let counts = Counts::default();
        self.0.register(name, help, counts.0.family.clone());
        counts
    }

    /// A histogram by labels, with those bounds.
    pub fn spread(&mut self, name: &'static str, help: &'static str, bounds: &'static [f64]) -> Spread {
        let family = Family::new_with_constructor(Bounds(bounds));
        self.0.register(name, help, family.clone());
        Spread(family)
    }

    /// All of it in OpenMetrics text.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut out, &self.0);
        out
    }
}

type LabelSet = Vec<(&'static str, String)>;

fn owned(labels: &[(&'static str, &str)]) -> LabelSet {
    labels
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect()
}

/// A number by labels. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    family: Family<LabelSet, Number>,
    sets: AtomicU64,
}

impl Counts {
    /// Adds to it.
    pub fn add(&self, labels: &[(&'static str, &str)], more: u64) {
        self.with(labels, |number| {
            number.0.fetch_add(more, Ordering::Relaxed);
        });
    }

    /// Makes it that.
    pub fn set(&self, labels: &[(&'static str, &str)], value: u64) {
        self.with(labels, |number| number.0.store(value, Ordering::Relaxed));
    }

    fn with(&self, labels: &[(&'static str, &str)], change: impl FnOnce(&Number)) {
        let labels = owned(labels);
        if let Some(known) = self.0.family.get(&labels) {
            return change(&known);
        }
        let bound = u64::try_from(LABEL_SETS).unwrap_or(u64::MAX);
        let full = self.0.sets.fetch_add(1, Ordering::Relaxed) >= bound;
        change(
            &self
                .0
                .family
                .get_or_create(if full { const { &Vec::new() } } else { &labels }),
        );
    }
}

/// A number that goes by the name that it was given.
#[derive(Clone, Debug, Default)]
struct Number(Arc<AtomicU64>);

impl TypedMetric for Number {
    const TYPE: MetricType = MetricType::Unknown;
}

impl EncodeMetric for Number {
    fn encode(&self, encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        ConstGauge::new(precise(self.0.load(Ordering::Relaxed))).encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// A histogram by labels. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Spread(Family<LabelSet, Histogram, Bounds>);

impl Spread {
    /// Takes a value.
    pub fn observe(&self, labels: &[(&'static str, &str)], value: f64) {
        self.0.get_or_create(&owned(labels)).observe(value);
    }
}

#[derive(Clone, Copy, Debug)]
struct Bounds(&'static [f64]);

impl prometheus_client::metrics::family::MetricConstructor<Histogram> for Bounds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a sample is a float by its format")]
fn precise(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_as_they_were_given() {
        let mut board = Board::new("pilot");
        let pushes = board.counts("pilot_xds_pushes", "Pushes");
        pushes.add(&[("type", "cds")], 2);
        pushes.add(&[("type", "cds")], 1);
        board
            .counts("sidecar_injection_success_total", "Injections")
            .add(&[], 4);
        let sizes = board.spread("pilot_xds_config_size_bytes", "Sizes", &[1.0, 10.0]);
        sizes.observe(&[("type", "cds")], 5.0);
        let text = board.text();
        for line in [
            "pilot_xds_pushes{type=\"cds\"} 3.0",
            "sidecar_injection_success_total{} 4.0",
            "pilot_xds_config_size_bytes_bucket{le=\"10.0\",type=\"cds\"} 1",
        ] {
            assert!(text.lines().any(|l| l.starts_with(line)), "{line} not in {text}");
        }
        assert!(text.contains("istio_build{component=\"pilot\",tag=\""), "{text}");
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn label_sets_are_bounded() {
        let mut board = Board::new("pilot");
        let counts = board.counts("x", "x");
        for n in 0..LABEL_SETS + 5 {
            counts.add(&[("n", &n.to_string())], 1);
        }
        let lines = board.text();
        assert_eq!(lines.lines().filter(|l| l.starts_with("x{n")).count(), LABEL_SETS);
        assert!(lines.lines().any(|l| l.starts_with("x{} 5")), "{lines}");
    }
}
