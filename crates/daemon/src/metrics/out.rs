//! Writes numbers without saying more of them than name, help and value.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet};
use prometheus_client::metrics::MetricType;

pub(super) struct Out<'a>(pub(super) DescriptorEncoder<'a>);

/// One label with a value of a fixed set.
type Label = [(&'static str, &'static str); 1];

impl Out<'_> {
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    pub(super) fn float_counter(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    pub(super) fn counters(
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

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl Gauge) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        metric.encode_gauge(&value.value())
    }

    pub(super) fn gauges<G: Gauge>(
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
}

/// What a gauge may show.
pub(super) trait Gauge {
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
