//! What a metric says about its measurements: how many, how often, and how many may be bad.

use crate::condition;
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_crds::analysis::{AnalysisTemplateSpec, DryRun, MeasurementRetention, Metric};
use tidegate_crds::{IntOrString, duration};

/// How many errors in a row are forgiven when the metric does not say.
pub const CONSECUTIVE_ERROR_LIMIT: i32 = 4;
/// How many measurements are kept when nobody says.
pub const RETENTION: usize = 10;

/// Something wrong with a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, as `metrics[0].interval`; `metrics[0]` for what concerns several fields.
    pub path: String,
    /// What was found and what was expected.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// The whole number in a field that may be a number or a text.
///
/// # Errors
/// When the text is no whole number; the error is the text.
pub fn whole(value: &IntOrString) -> Result<i32, String> {
    match value {
        IntOrString::Int(value) => Ok(*value),
        IntOrString::String(text) => text.trim().parse().map_err(|_| text.clone()),
    }
}

/// How many measurements a metric takes, and how many of them may be bad. A limit of −1 in the metric is none here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Measurements in all; none: until the run is ended.
    pub count: Option<i32>,
    /// Failures that are forgiven.
    pub failure: Option<i32>,
    /// Inconclusive measurements that are forgiven.
    pub inconclusive: Option<i32>,
    /// Errors in a row that are forgiven.
    pub consecutive_error: i32,
    /// Successes in a row that end the metric; none: the metric does not ask.
    pub consecutive_success: Option<i32>,
}

impl Limits {
    /// Reads a metric's limits. What is no number counts as not given; [`validate_metrics`] reports it.
    pub fn of(metric: &Metric) -> Self {
        let number = |field: &Option<IntOrString>| field.as_ref().and_then(|value| whole(value).ok());
        let unless_off = |limit: i32| (limit >= 0).then_some(limit);
        let repeats = metric.interval.as_ref().is_some_and(|interval| !interval.is_empty());
        Self {
            count: match number(&metric.count) {
                None | Some(0) => (!repeats).then_some(1),
                count => count,
            },
            failure: unless_off(number(&metric.failure_limit).unwrap_or(0)),
            inconclusive: unless_off(number(&metric.inconclusive_limit).unwrap_or(0)),
            consecutive_error: number(&metric.consecutive_error_limit).unwrap_or(CONSECUTIVE_ERROR_LIMIT),
            consecutive_success: number(&metric.consecutive_success_limit).filter(|limit| *limit > 0),
        }
    }
}

/// The metric's interval; none when it has none or it is no duration.
pub fn interval(metric: &Metric) -> Option<Duration> {
    span(&metric.interval)
}

/// The metric's delay before its first measurement; none when it has none or it is no duration.
pub fn initial_delay(metric: &Metric) -> Option<Duration> {
    span(&metric.initial_delay)
}

fn span(text: &Option<String>) -> Option<Duration> {
    text.as_deref().filter(|text| !text.is_empty()).and_then(|text| duration::parse(text).ok())
}

/// The name of the first metric that goes on until the run is ended; none when all come to an end.
pub fn indefinite(metrics: &[Metric]) -> Option<&str> {
    metrics.iter().find(|metric| Limits::of(metric).count.is_none()).map(|metric| metric.name.as_str())
}

/// Every metric of the template comes to an end. All analyses but those in the background have to.
pub fn is_finite(spec: &AnalysisTemplateSpec) -> bool {
    indefinite(&spec.metrics).is_none()
}

/// Finds everything that is wrong with metrics, conditions included. Placeholders (`{{args.x}}`) that are not filled in
/// yet are let through.
pub fn validate_metrics(metrics: &[Metric]) -> Vec<Problem> {
    let mut problems = validate_measuring(metrics);
    for (index, metric) in metrics.iter().enumerate() {
        let conditions =
            [("successCondition", &metric.success_condition), ("failureCondition", &metric.failure_condition)];
        for (field, condition) in conditions {
            let Some(condition) = condition.as_deref().filter(|c| !c.is_empty() && !c.contains("{{")) else { continue };
            if let Err(error) = condition::check(condition) {
                let message = format!("{error} in `{condition}`");
                problems.push(Problem { path: format!("metrics[{index}].{field}"), message });
            }
        }
    }
    problems
}

/// Finds what is wrong with metrics, conditions aside: a run with such metrics can not begin.
pub fn validate_measuring(metrics: &[Metric]) -> Vec<Problem> {
    let mut problems = Vec::new();
    if metrics.is_empty() {
        problems.push(Problem { path: "metrics".into(), message: "no metrics specified".into() });
    }
    let mut names = BTreeMap::new();
    for (index, metric) in metrics.iter().enumerate() {
        let mut add = |field: &str, message: String| {
            let dot = if field.is_empty() { "" } else { "." };
            problems.push(Problem { path: format!("metrics[{index}]{dot}{field}"), message });
        };
        if metric.name.is_empty() {
            add("name", "must be set".into());
        } else if let Some(first) = names.insert(metric.name.as_str(), index) {
            add("name", format!("duplicate name '{}', which metrics[{first}] has too", metric.name));
        }
        validate_numbers(metric, &mut add);
        for (field, text) in [("interval", &metric.interval), ("initialDelay", &metric.initial_delay)] {
            if let Some(text) = text.as_deref().filter(|t| !t.is_empty() && !t.contains("{{"))
                && let Err(error) = duration::parse(text)
            {
                add(field, error.to_string());
            }
        }
        let providers = metric.provider.set();
        match providers.len() {
            0 => add("provider", "no provider specified".into()),
            1 => {}
            _ => add("provider", format!("multiple providers specified: {}", providers.join(", "))),
        }
    }
    problems
}

fn validate_numbers(metric: &Metric, add: &mut impl FnMut(&str, String)) {
    let fields = [
        ("count", &metric.count, 0),
        ("failureLimit", &metric.failure_limit, -1),
        ("inconclusiveLimit", &metric.inconclusive_limit, -1),
        ("consecutiveErrorLimit", &metric.consecutive_error_limit, 0),
        ("consecutiveSuccessLimit", &metric.consecutive_success_limit, 0),
    ];
    let mut open = false;
    for (field, value, least) in fields {
        match value.as_ref().map(whole) {
            None => {}
            Some(Ok(number)) if number >= least => {}
            Some(Ok(number)) => add(field, format!("must be >= {least}, found {number}")),
            Some(Err(text)) if text.contains("{{") => open = true,
            Some(Err(text)) => add(field, format!("must be a whole number, found {text:?}")),
        }
    }
    if open {
        return;
    }
    let limits = Limits::of(metric);
    let given = metric.count.as_ref().and_then(|count| whole(count).ok()).filter(|count| *count > 0);
    if let Some(count) = given {
        let failures = limits.failure.unwrap_or(0);
        let needed = failures.saturating_add(limits.consecutive_success.unwrap_or(0));
        if count < needed {
            let what = if limits.consecutive_success.is_some() {
                "failureLimit + consecutiveSuccessLimit"
            } else {
                "failureLimit"
            };
            add("", format!("count must be >= {what} ({count} < {needed})"));
        }
        let inconclusive = limits.inconclusive.unwrap_or(0);
        if count < inconclusive {
            add("", format!("count must be >= inconclusiveLimit ({count} < {inconclusive})"));
        }
        if count > 1 && metric.interval.as_deref().unwrap_or_default().is_empty() {
            add("", "interval must be specified when count > 1".into());
        }
    }
    let failures_off = metric.failure_limit.as_ref().is_some_and(|limit| whole(limit) == Ok(-1));
    if failures_off && limits.consecutive_success.is_none() {
        add("", "consecutiveSuccessLimit must be > 0 when failureLimit is -1, or nothing can decide".into());
    }
}

/// The names of the metrics that rules for a dry run pick.
///
/// # Errors
/// When a rule is no regular expression, or picks no metric.
pub fn dry_run_names(rules: &[DryRun], metrics: &[Metric]) -> Result<Vec<String>, Problem> {
    let mut names = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        names.extend(picked("dryRun", index, &rule.metric_name, metrics)?);
    }
    Ok(names)
}

/// How many measurements to keep, for the metrics that rules pick.
///
/// # Errors
/// When a rule is no regular expression, or picks no metric.
pub fn retention(rules: &[MeasurementRetention], metrics: &[Metric]) -> Result<BTreeMap<String, usize>, Problem> {
    let mut limits = BTreeMap::new();
    for (index, rule) in rules.iter().enumerate() {
        let limit = usize::try_from(rule.limit).ok().filter(|limit| *limit > 0).unwrap_or(RETENTION);
        for name in picked("measurementRetention", index, &rule.metric_name, metrics)? {
            limits.insert(name, limit);
        }
    }
    Ok(limits)
}

fn picked(list: &str, index: usize, pattern: &str, metrics: &[Metric]) -> Result<Vec<String>, Problem> {
    let problem = |message: String| Problem { path: format!("{list}[{index}]"), message };
    let regex = regex::Regex::new(pattern)
        .map_err(|_| problem(format!("metricName {pattern:?} is not a regular expression")))?;
    let names: Vec<String> = metrics.iter().filter(|m| regex.is_match(&m.name)).map(|m| m.name.clone()).collect();
    if names.is_empty() {
        return Err(problem("Rule didn't match any metric name(s)".to_owned()));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metrics(json: serde_json::Value) -> Vec<Metric> {
        serde_json::from_value(json).unwrap()
    }

    fn one(mut json: serde_json::Value) -> Metric {
        json["name"] = "m".into();
        if json.get("provider").is_none() {
            json["provider"] = json!({"web": {"url": "http://x"}});
        }
        metrics(json!([json])).remove(0)
    }

    fn problems(json: serde_json::Value) -> Vec<String> {
        validate_metrics(&[one(json)]).iter().map(Problem::to_string).collect()
    }

    #[test]
    fn how_many_measurements() {
        for (json, count) in [
            (json!({}), Some(1)),
            (json!({"interval": "1m"}), None),
            (json!({"interval": "1m", "count": 3}), Some(3)),
            (json!({"interval": "1m", "count": "3"}), Some(3)),
            (json!({"interval": "1m", "count": 0}), None),
            (json!({"count": 0}), Some(1)),
        ] {
            let metric = one(json.clone());
            assert_eq!(Limits::of(&metric).count, count, "{json}");
            assert_eq!(
                is_finite(&AnalysisTemplateSpec { metrics: vec![metric], ..Default::default() }),
                count.is_some()
            );
        }
        let limits =
            Limits::of(&one(json!({"failureLimit": -1, "inconclusiveLimit": "2", "consecutiveSuccessLimit": 3})));
        assert_eq!((limits.failure, limits.inconclusive), (None, Some(2)));
        assert_eq!((limits.consecutive_error, limits.consecutive_success), (4, Some(3)));
    }

    #[test]
    fn good_metrics_have_no_problems() {
        for json in [
            json!({}),
            json!({"interval": "30s", "count": 5, "failureLimit": 3, "successCondition": "result[0] > 0.9"}),
            json!({"interval": "{{args.i}}", "count": "{{args.c}}", "failureLimit": "{{args.f}}"}),
            json!({"successCondition": "result > {{args.threshold}}"}),
            json!({"interval": "1m", "count": 5, "failureLimit": 2, "consecutiveSuccessLimit": 3}),
            json!({"interval": "1m", "failureLimit": -1, "consecutiveSuccessLimit": 3}),
        ] {
            assert_eq!(problems(json.clone()), Vec::<String>::new(), "{json}");
        }
    }

    #[test]
    fn bad_metrics_are_named() {
        for (json, expected) in [
            (json!({"count": 2}), "metrics[0]: interval must be specified when count > 1"),
            (json!({"count": 1, "failureLimit": 2}), "metrics[0]: count must be >= failureLimit (1 < 2)"),
            (
                json!({"interval": "1s", "count": 4, "failureLimit": 2, "consecutiveSuccessLimit": 3}),
                "metrics[0]: count must be >= failureLimit + consecutiveSuccessLimit (4 < 5)",
            ),
            (
                json!({"interval": "1s", "count": 1, "inconclusiveLimit": 2}),
                "metrics[0]: count must be >= inconclusiveLimit (1 < 2)",
            ),
            (json!({"failureLimit": -2}), "metrics[0].failureLimit: must be >= -1, found -2"),
            (json!({"consecutiveErrorLimit": -1}), "metrics[0].consecutiveErrorLimit: must be >= 0, found -1"),
            (json!({"count": "five"}), "metrics[0].count: must be a whole number, found \"five\""),
            (
                json!({"interval": "5 minutes"}),
                "metrics[0].interval: \"5 minutes\" is not a duration: expected a number with a unit, such as 30s, 5m or 1h30m",
            ),
            (json!({"provider": {}}), "metrics[0].provider: no provider specified"),
            (
                json!({"provider": {"web": {"url": "x"}, "job": {"spec": {}}}}),
                "metrics[0].provider: multiple providers specified: Web, Job",
            ),
            (
                json!({"successCondition": "result >"}),
                "metrics[0].successCondition: unexpected token EOF (1:8) in `result >`",
            ),
            (
                json!({"failureCondition": "reslt > 1"}),
                "metrics[0].failureCondition: unknown name reslt (1:1) in `reslt > 1`",
            ),
        ] {
            assert_eq!(problems(json.clone()), [expected], "{json}");
        }
        let twice = vec![one(json!({})), one(json!({}))];
        assert_eq!(
            validate_metrics(&twice)[0].to_string(),
            "metrics[1].name: duplicate name 'm', which metrics[0] has too"
        );
        assert_eq!(validate_metrics(&[])[0].to_string(), "metrics: no metrics specified");
        let off = problems(json!({"interval": "1m", "failureLimit": -1}));
        assert_eq!(off.len(), 1, "{off:?}");
    }

    #[test]
    fn rules_pick_by_pattern() {
        let all = metrics(json!([{"name": "error-rate"}, {"name": "latency"}, {"name": "error-budget"}]));
        let dry = |pattern: &str| dry_run_names(&[DryRun { metric_name: pattern.into() }], &all);
        assert_eq!(dry("error.*"), Ok(vec!["error-rate".into(), "error-budget".into()]));
        assert_eq!(dry("^late"), Ok(vec!["latency".into()]));
        assert_eq!(dry("nothing").unwrap_err().to_string(), "dryRun[0]: Rule didn't match any metric name(s)");
        assert!(dry("(").is_err());
        let rule = |pattern: &str, limit| MeasurementRetention { metric_name: pattern.into(), limit };
        let kept = retention(&[rule("error.*", 3), rule("rate", 0)], &all).unwrap();
        assert_eq!(kept, BTreeMap::from([("error-rate".into(), RETENTION), ("error-budget".into(), 3)]));
    }
}
