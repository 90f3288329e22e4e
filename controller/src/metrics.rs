//! The process's metrics, under the peers' names so that dashboards and alerts go on working.
//!
//! Series name objects only where dashboards need them, and go with their object; nothing else has a label whose values
//! grow with use.

pub mod process;

use crate::api::Resource;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard};

/// Upper bounds of the histograms, in seconds.
const BUCKETS: [f64; 11] = [0.01, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Between the labels of a series: sorts before everything that a label may hold, so that the series of one object lie
/// side by side.
const SEPARATOR: &str = "\u{1}";

/// What a family of series measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Clone, Debug)]
struct Histogram {
    buckets: Box<[u64]>,
    count: u64,
    sum: f64,
}

#[derive(Clone, Debug)]
enum Value {
    Number(f64),
    Histogram(Box<Histogram>),
}

struct Family {
    help: &'static str,
    kind: Kind,
    /// Upper bounds of a histogram's buckets.
    bounds: &'static [f64],
    /// Labels in the exposition format to the value.
    series: BTreeMap<String, Value>,
}

impl Family {
    fn new(help: &'static str, kind: Kind, bounds: &'static [f64]) -> Self {
        Self { help, kind, bounds, series: BTreeMap::new() }
    }

    /// Removes the series whose first labels are `start`.
    fn forget(&mut self, start: &str) {
        let is_one = |series: &str| {
            series.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with(SEPARATOR))
        };
        let begun = self.series.range::<str, _>((Bound::Included(start), Bound::Unbounded)).map(|(series, _)| series);
        let gone: Vec<String> = begun.take_while(|series| is_one(series)).cloned().collect();
        for series in gone {
            self.series.remove(&series);
        }
    }
}

/// The process's metrics.
#[derive(Default)]
pub struct Metrics {
    families: Mutex<BTreeMap<&'static str, Family>>,
    before: Mutex<Vec<Collector>>,
}

/// Brings series up to date that are not worth it at every change.
type Collector = Box<dyn Fn(&Metrics) + Send + Sync>;

/// Labels of a series.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

impl Metrics {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Family>> {
        self.families.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn update(
        &self,
        name: &'static str,
        help: &'static str,
        kind: Kind,
        bounds: &'static [f64],
        labels: Labels<'_>,
        change: impl FnOnce(&mut Value),
    ) {
        let series = text_of(labels);
        let mut families = self.lock();
        let family = families.entry(name).or_insert_with(|| Family::new(help, kind, bounds));
        let empty = || match kind {
            Kind::Histogram => {
                Value::Histogram(Box::new(Histogram { buckets: vec![0; bounds.len()].into(), count: 0, sum: 0.0 }))
            }
            _ => Value::Number(0.0),
        };
        change(family.series.entry(series).or_insert_with(empty));
    }

    /// Calls `collector` before every [`Metrics::render`].
    pub fn before_render(&self, collector: impl Fn(&Self) + Send + Sync + 'static) {
        self.before.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(Box::new(collector));
    }

    /// Adds to a counter.
    pub fn count(&self, name: &'static str, help: &'static str, labels: Labels<'_>, by: f64) {
        self.update(name, help, Kind::Counter, &[], labels, |value| {
            if let Value::Number(number) = value {
                *number += by;
            }
        });
    }

    /// Sets a counter that is counted elsewhere.
    pub fn total(&self, name: &'static str, help: &'static str, labels: Labels<'_>, to: f64) {
        self.update(name, help, Kind::Counter, &[], labels, |value| *value = Value::Number(to));
    }

    /// Sets a gauge.
    pub fn set(&self, name: &'static str, help: &'static str, labels: Labels<'_>, to: f64) {
        self.update(name, help, Kind::Gauge, &[], labels, |value| *value = Value::Number(to));
    }

    /// Sets a gauge that is 1 for the state that an object is in, told by the labels in `state`; the series of the state
    /// before goes.
    pub fn state(&self, name: &'static str, help: &'static str, object: Labels<'_>, state: Labels<'_>) {
        let mut series = text_of(object);
        let first = series.len();
        append(&mut series, state);
        let mut families = self.lock();
        let family = families.entry(name).or_insert_with(|| Family::new(help, Kind::Gauge, &[]));
        if !family.series.contains_key(&series) {
            family.forget(&series[..first]);
            family.series.insert(series, Value::Number(1.0));
        }
    }

    /// Adds an observation in seconds to a histogram.
    pub fn observe(&self, name: &'static str, help: &'static str, labels: Labels<'_>, seconds: f64) {
        self.observe_within(name, help, &BUCKETS, labels, seconds);
    }

    /// Adds an observation in seconds to a histogram with these upper bounds.
    pub fn observe_within(
        &self,
        name: &'static str,
        help: &'static str,
        bounds: &'static [f64],
        labels: Labels<'_>,
        seconds: f64,
    ) {
        self.update(name, help, Kind::Histogram, bounds, labels, |value| {
            let Value::Histogram(histogram) = value else { return };
            for (bound, bucket) in bounds.iter().zip(&mut histogram.buckets) {
                *bucket += u64::from(seconds <= *bound);
            }
            histogram.count += 1;
            histogram.sum += seconds;
        });
    }

    /// Removes the series whose first labels are `labels`, from the families that begin with `prefix`. What it takes
    /// depends on the number of these series, not on that of the others.
    pub fn forget(&self, prefix: &str, labels: Labels<'_>) {
        let start = text_of(labels);
        for (_, family) in self.lock().iter_mut().filter(|(name, _)| name.starts_with(prefix)) {
            family.forget(&start);
        }
    }

    /// All series in the Prometheus text format.
    pub fn render(&self) -> String {
        for collector in self.before.lock().unwrap_or_else(std::sync::PoisonError::into_inner).iter() {
            collector(self);
        }
        let mut text = String::new();
        for (name, family) in self.lock().iter() {
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
            for (labels, value) in &family.series {
                let labels = labels.replace(SEPARATOR, ",");
                match value {
                    Value::Number(number) if labels.is_empty() => {
                        let _ = writeln!(text, "{name} {number}");
                    }
                    Value::Number(number) => {
                        let _ = writeln!(text, "{name}{{{labels}}} {number}");
                    }
                    Value::Histogram(histogram) => {
                        let comma = if labels.is_empty() { "" } else { "," };
                        for (bound, bucket) in family.bounds.iter().zip(&histogram.buckets) {
                            let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {bucket}");
                        }
                        let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {}", histogram.count);
                        let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
                        let _ = writeln!(text, "{name}_sum{labels} {}", histogram.sum);
                        let _ = writeln!(text, "{name}_count{labels} {}", histogram.count);
                    }
                }
            }
        }
        text
    }

    /// A call to the API server.
    pub fn api_call(&self, resource: &Resource, verb: &str, code: u16) {
        let code = code.to_string();
        let labels = [
            ("kind", resource.plural.as_ref()),
            ("namespace", ""),
            ("name", ""),
            ("verb", verb),
            ("status_code", &code),
        ];
        self.count("controller_clientset_k8s_request_total", "Calls to the API server.", &labels, 1.0);
    }

    /// An event was told.
    pub fn event(&self, kind: &str, namespace: &str, name: &str, warning: bool, reason: &str) {
        let labels = [
            ("namespace", namespace),
            ("name", name),
            ("type", if warning { "Warning" } else { "Normal" }),
            ("reason", reason),
        ];
        let family = match kind {
            "Rollout" => "rollout_events_total",
            "AnalysisRun" => "analysis_run_events_total",
            "Experiment" => "experiment_events_total",
            _ => "application_events_total",
        };
        self.count(family, "Events told.", &labels, 1.0);
    }
}

/// Labels, joined by a sign that no value has; [`Metrics::render`] makes commas of it.
fn text_of(labels: Labels<'_>) -> String {
    let length = |(key, value): &(&str, &str)| key.len() + value.len() + r#"="""#.len() + SEPARATOR.len();
    let mut text = String::with_capacity(labels.iter().map(length).sum());
    append(&mut text, labels);
    text
}

fn append(text: &mut String, labels: Labels<'_>) {
    for (key, value) in labels {
        if !text.is_empty() {
            text.push_str(SEPARATOR);
        }
        text.push_str(key);
        text.push_str("=\"");
        let mut rest = *value;
        while let Some(at) = rest.find(['\\', '"', '\n']) {
            text.push_str(&rest[..at]);
            text.push_str(match &rest[at..=at] {
                "\n" => "\\n",
                "\"" => "\\\"",
                _ => "\\\\",
            });
            rest = &rest[at + 1..];
        }
        text.push_str(rest);
        text.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_the_text_format_and_forgets_with_the_object() {
        let metrics = Metrics::default();
        metrics.count("a_total", "A.", &[("x", "1,\"2\"")], 2.0);
        metrics.set("rollout_info", "R.", &[("namespace", "n"), ("name", "one"), ("phase", "Paused")], 1.0);
        metrics.set("rollout_info", "R.", &[("namespace", "n"), ("name", "two"), ("phase", "Paused")], 1.0);
        for phase in ["Paused", "Healthy", "Healthy"] {
            metrics.state("state", "S.", &[("name", "a\\b\nc")], &[("phase", phase)]);
            metrics.state("state", "S.", &[("name", "a")], &[("phase", "Paused")]);
        }
        metrics.observe("h", "H.", &[], 0.2);
        metrics.forget("rollout_", &[("namespace", "n"), ("name", "one")]);
        let text = metrics.render();
        assert!(text.contains("a_total{x=\"1,\\\"2\\\"\"} 2\n"), "{text}");
        let states: Vec<&str> = text.lines().filter(|line| line.starts_with("state")).collect();
        let expected = [r#"state{name="a",phase="Paused"} 1"#, r#"state{name="a\\b\nc",phase="Healthy"} 1"#];
        assert_eq!(states, expected);
        assert!(
            !text.contains("name=\"one\"")
                && text.contains("rollout_info{namespace=\"n\",name=\"two\",phase=\"Paused\"} 1")
        );
        assert!(
            text.contains("h_bucket{le=\"0.25\"} 1\n")
                && text.contains("h_bucket{le=\"0.15\"} 0\n")
                && text.contains("h_count 1")
        );
    }
}
