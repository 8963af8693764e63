//! Writes numbers without saying more of them than name, help and value.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Writes what a [`Collector`](crate::Collector) has.
#[derive(Debug)]
pub struct Out<'a>(pub DescriptorEncoder<'a>);

/// One label with a value of a fixed set.
type Label = [(&'static str, &'static str); 1];

impl Out<'_> {
    /// A number that only grows.
    ///
    /// # Errors
    /// If the text cannot be written.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    /// A number with a fraction that only grows.
    ///
    /// # Errors
    /// If the text cannot be written.
    pub fn float_counter(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    /// Numbers that only grow, told apart by one label.
    ///
    /// # Errors
    /// If the text cannot be written.
    pub fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'static str, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (of, value) in values {
            let labels: Label = [(label, of)];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    /// A number that goes up and down.
    ///
    /// # Errors
    /// If the text cannot be written.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Gauge) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        metric.encode_gauge(&value.value())
    }

    /// Numbers that go up and down, told apart by one label.
    ///
    /// # Errors
    /// If the text cannot be written.
    pub fn gauges<G: Gauge>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'static str, G)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (of, value) in values {
            let labels: Label = [(label, of)];
            family.encode_family(&labels)?.encode_gauge(&value.value())?;
        }
        Ok(())
    }

    /// How values are distributed.
    ///
    /// # Errors
    /// If the text cannot be written.
    pub fn histogram(&mut self, name: &str, help: &str, values: &impl Histogram) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(values.sum(), values.count(), &values.buckets(), None)
    }

    /// How values are distributed, told apart by one label.
    ///
    /// # Errors
    /// If the text cannot be written.
    pub fn histograms<'h, H: Histogram + 'h>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'static str, &'h H)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (of, values) in values {
            let labels: Label = [(label, of)];
            let mut metric = family.encode_family(&labels)?;
            metric.encode_histogram::<NoLabelSet>(values.sum(), values.count(), &values.buckets(), None)?;
        }
        Ok(())
    }
}

/// What is counted in buckets.
pub trait Histogram {
    /// All values together.
    fn sum(&self) -> f64;
    /// How many there are.
    fn count(&self) -> u64;
    /// How many are in each bucket, by its upper bound; the last one is infinite.
    fn buckets(&self) -> Vec<(f64, u64)>;
}

/// What a gauge may show.
pub trait Gauge {
    /// It, as it is written.
    fn value(self) -> impl EncodeGaugeValue;
}

impl Gauge for u64 {
    fn value(self) -> impl EncodeGaugeValue {
        self
    }
}

impl Gauge for f64 {
    fn value(self) -> impl EncodeGaugeValue {
        self
    }
}

impl Gauge for usize {
    fn value(self) -> impl EncodeGaugeValue {
        u64::try_from(self).unwrap_or(u64::MAX)
    }
}

impl Gauge for bool {
    fn value(self) -> impl EncodeGaugeValue {
        u64::from(self)
    }
}
