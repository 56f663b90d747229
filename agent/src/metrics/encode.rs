//! A thin coat over the encoder: a family of samples in one call.

use std::fmt::Error;

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, histogram::Histogram},
};

/// Series of a histogram: its buckets, sum and count. None of ours has more.
const HISTOGRAM: usize = 13;

/// Label names and values.
pub(super) type Labels<'a> = &'a [(&'static str, &'a str)];

/// Where samples go.
pub(super) struct Sink<'a> {
    pub(super) encoder: DescriptorEncoder<'a>,
    /// Series so far.
    pub(super) samples: usize,
}

impl Sink<'_> {
    /// A counter, without its `_total`: the format adds it.
    pub(super) fn counter(
        &mut self,
        name: &str,
        help: &str,
        samples: &[(Labels<'_>, u64)],
    ) -> Result<(), Error> {
        self.samples += samples.len();
        let name = name.strip_suffix("_total").unwrap_or(name);
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in samples {
            if labels.is_empty() {
                family.encode_counter::<[(&str, &str); 0], u64, u64>(value, None)?;
            } else {
                family.encode_family(labels)?.encode_counter::<[(&str, &str); 0], u64, u64>(value, None)?;
            }
        }
        Ok(())
    }

    /// A counter of a fraction of something, such as seconds.
    pub(super) fn counter_f64(
        &mut self,
        name: &str,
        help: &str,
        samples: &[(Labels<'_>, f64)],
    ) -> Result<(), Error> {
        self.samples += samples.len();
        let name = name.strip_suffix("_total").unwrap_or(name);
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in samples {
            if labels.is_empty() {
                family.encode_counter::<[(&str, &str); 0], f64, u64>(value, None)?;
            } else {
                family.encode_family(labels)?.encode_counter::<[(&str, &str); 0], f64, u64>(value, None)?;
            }
        }
        Ok(())
    }

    pub(super) fn gauge(
        &mut self,
        name: &str,
        help: &str,
        samples: &[(Labels<'_>, f64)],
    ) -> Result<(), Error> {
        self.samples += samples.len();
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            if labels.is_empty() {
                family.encode_gauge(value)?;
            } else {
                family.encode_family(labels)?.encode_gauge(value)?;
            }
        }
        Ok(())
    }

    /// An info metric, without its `_info`: the format adds it.
    pub(super) fn info(&mut self, name: &str, help: &str, labels: Labels<'_>) -> Result<(), Error> {
        self.samples += 1;
        let name = name.strip_suffix("_info").unwrap_or(name);
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Info)?;
        family.encode_info(&labels)
    }

    pub(super) fn histogram(
        &mut self,
        name: &str,
        help: &str,
        samples: &[(Labels<'_>, &Histogram)],
    ) -> Result<(), Error> {
        self.samples += samples.len() * HISTOGRAM;
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        if let [([], histogram)] = samples {
            return histogram.encode(family);
        }
        for (labels, histogram) in samples {
            histogram.encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }
}

/// A count as a gauge's value: exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "gauges are floats in the format")]
pub(super) fn float(value: u64) -> f64 {
    value as f64
}
