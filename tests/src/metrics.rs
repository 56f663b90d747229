//! Metrics in the text format of Prometheus.

use std::collections::BTreeMap;

/// The samples of one scrape.
#[derive(Debug, Clone)]
pub struct Metrics(Vec<Sample>);

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    /// None for a fraction: counts are what tests compare.
    value: Option<u64>,
}

impl Metrics {
    pub fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(samples.map(|line| sample(line).unwrap_or_else(|| panic!("no sample: {line}"))).collect())
    }

    /// How many series there are, of this metric or of those whose names begin so.
    pub fn series(&self, prefix: &str) -> usize {
        self.0.iter().filter(|sample| sample.name.starts_with(prefix)).count()
    }

    /// The sum of the samples that have these labels, among others; one must be there.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let has = |sample: &&Sample| {
            let mut labels = labels.iter();
            sample.name == name
                && labels.all(|(key, value)| sample.labels.get(*key).is_some_and(|found| found == value))
        };
        let values: Vec<_> = self.0.iter().filter(has).map(|sample| sample.value).collect();
        assert!(!values.is_empty(), "no sample {name} with {labels:?}");
        values.into_iter().sum::<Option<u64>>().unwrap_or_else(|| panic!("{name} is no whole number"))
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (series, ""),
    };
    // No label value of ours has a quote in it.
    let mut pairs = BTreeMap::new();
    let labels = labels.strip_suffix('"').unwrap_or(labels);
    for pair in labels.split("\",").filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once("=\"")?;
        pairs.insert(key.to_owned(), value.to_owned());
    }
    Some(Sample { name: name.to_owned(), labels: pairs, value: value.trim_end_matches(".0").parse().ok() })
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn samples_are_summed_over_the_labels_that_are_left_open() {
        let metrics = Metrics::parse(
            "# HELP a B.\n# TYPE a counter\na{b=\"1\",c=\"x\"} 2\na{b=\"1\",c=\"y\"} 3\na{b=\"\",c=\"\"} 1\nd 7.0\n",
        );
        assert_eq!(metrics.get("a", &[("c", "y")]), 3);
        assert_eq!(metrics.get("a", &[("b", "1")]), 5);
        assert_eq!(metrics.get("a", &[("b", ""), ("c", "")]), 1);
        assert_eq!(metrics.get("d", &[]), 7);
    }
}
