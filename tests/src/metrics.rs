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

    /// The same with counters as they have grown since; what goes up and down stays as it is.
    pub(crate) fn since(mut self, before: &Self) -> Self {
        const COUNTERS: [&str; 4] = ["_total", "_count", "_sum", "_bucket"];
        for sample in &mut self.0 {
            let is_counter = COUNTERS.iter().any(|ending| sample.name.ends_with(ending));
            let same = |old: &&Sample| old.name == sample.name && old.labels == sample.labels;
            let old = before.0.iter().find(same).filter(|_| is_counter).and_then(|old| old.value);
            sample.value = sample.value.map(|value| value - old.unwrap_or_default());
        }
        self
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

    #[test]
    fn counters_are_seen_from_a_moment_on() {
        let before = Metrics::parse("a_total{b=\"1\"} 2\ng 5\nh_sum 0.5\n");
        let metrics = Metrics::parse("a_total{b=\"1\"} 7\na_total{b=\"2\"} 3\ng 4\nh_sum 1.5\n");
        let metrics = metrics.since(&before);
        assert_eq!(metrics.get("a_total", &[("b", "1")]), 5);
        assert_eq!(metrics.get("a_total", &[]), 8);
        assert_eq!(metrics.get("g", &[]), 4);
    }
}
