//! The classic text format of Prometheus, from `OpenMetrics`.
//!
//! They differ in what names a family: of a counter `x` with the sample `x_total`, `OpenMetrics`
//! describes `x` and the classic format `x_total`. Exemplars, which only `OpenMetrics` has, are
//! not used.

/// `open_metrics` in the text format 0.0.4.
pub(super) fn classic(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    // A help line comes before the type that decides its name.
    let mut help = None;
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(_), what) => help = Some(what.unwrap_or_default()),
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", kind),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    _ => ("", kind),
                };
                if let Some(help) = help.take() {
                    push(&mut text, &["# HELP ", name, suffix, " ", help]);
                }
                push(&mut text, &["# TYPE ", name, suffix, " ", kind]);
            }
            (Some("#"), ..) => {}
            _ => push(&mut text, &[line]),
        }
    }
    text
}

fn push(text: &mut String, parts: &[&str]) {
    text.extend(parts.iter().copied());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use prometheus_client::encoding::text::encode;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::metrics::info::Info;
    use prometheus_client::registry::{Registry, Unit};

    use super::classic;

    /// One metric of each kind that the agent has.
    fn open_metrics() -> String {
        let mut registry = Registry::with_prefix("tellwire");
        let events = Family::<[(&str, String); 1], Counter>::default();
        events.get_or_create(&[("action", "exec".into())]).inc_by(3);
        events.get_or_create(&[("action", "# TYPE a\n\"b\" counter".into())]).inc();
        registry.register("events", "Events by action", events);
        let bytes = Counter::<u64>::default();
        registry.register_with_unit("output", "Bytes written", Unit::Bytes, bytes);
        let attached = Gauge::<i64>::default();
        attached.set(1);
        registry.register("probe_attached", "Whether a probe is attached", attached);
        let delivery = Histogram::new([0.01, 1.0]);
        delivery.observe(0.5);
        registry.register_with_unit(
            "event_delivery",
            "From the kernel until written",
            Unit::Seconds,
            delivery,
        );
        registry.register("build", "What this is", Info::new([("version", "1.2.3")]));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn families_have_the_names_of_the_classic_format_and_samples_stay() {
        let open_metrics = open_metrics();
        let text = classic(&open_metrics);
        let (described, samples): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with('#'));
        assert_eq!(
            described,
            [
                "# HELP tellwire_events_total Events by action.",
                "# TYPE tellwire_events_total counter",
                "# HELP tellwire_output_bytes_total Bytes written.",
                "# TYPE tellwire_output_bytes_total counter",
                "# HELP tellwire_probe_attached Whether a probe is attached.",
                "# TYPE tellwire_probe_attached gauge",
                "# HELP tellwire_event_delivery_seconds From the kernel until written.",
                "# TYPE tellwire_event_delivery_seconds histogram",
                "# HELP tellwire_build_info What this is.",
                "# TYPE tellwire_build_info gauge",
            ]
        );
        let unchanged: Vec<_> = open_metrics.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(samples, unchanged);
        assert!(samples.contains(&r#"tellwire_build_info{version="1.2.3"} 1"#), "{samples:?}");
    }

    #[test]
    fn promtool_finds_no_fault() {
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool is missing: install the package prometheus");
        promtool.stdin.take().unwrap().write_all(classic(&open_metrics()).as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert_eq!((output.status.code(), String::from_utf8_lossy(&said).as_ref()), (Some(0), ""));
    }
}
