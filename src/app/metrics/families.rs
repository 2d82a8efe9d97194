//! Writes metric families to an encoder of `prometheus-client`. A family without series is left out.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::core::duration_histogram::DurationHistogram;

/// The name of a label and its value.
pub(super) type MetricLabel<'r> = (&'static str, &'r str);

pub(super) struct Families<'a>(DescriptorEncoder<'a>);

impl<'a> Families<'a> {
    pub(super) fn of(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder)
    }

    /// Writes counters. The encoder adds `_total` to the name.
    pub(super) fn counters<'r, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = ([MetricLabel<'r>; N], u64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, series, |mut series, count| {
            series.encode_counter::<NoLabelSet, _, u64>(&count, None)
        })
    }

    /// Writes gauges.
    pub(super) fn gauges<'r, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = ([MetricLabel<'r>; N], f64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, series, |mut series, value| series.encode_gauge(&value))
    }

    /// Writes histograms of durations, in seconds.
    pub(super) fn histograms<'r, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = ([MetricLabel<'r>; N], &'r DurationHistogram)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Histogram, series, |mut series, histogram| {
            let edge =
                |edge: Option<std::time::Duration>| edge.map_or(f64::INFINITY, |edge| edge.as_secs_f64());
            let buckets: Vec<_> = histogram.buckets().map(|(upper, count)| (edge(upper), count)).collect();
            let sum = histogram.sum().as_secs_f64();
            series.encode_histogram::<NoLabelSet>(sum, histogram.count(), &buckets, None)
        })
    }

    fn family<'r, T, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        series: impl IntoIterator<Item = ([MetricLabel<'r>; N], T)>,
        write: impl Fn(MetricEncoder<'_>, T) -> fmt::Result,
    ) -> fmt::Result {
        let mut series = series.into_iter().peekable();
        if series.peek().is_none() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in series {
            write(family.encode_family(&labels)?, value)?;
        }
        Ok(())
    }
}
