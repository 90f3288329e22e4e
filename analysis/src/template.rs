//! Templates: what a run measures, out of the templates that a Rollout or an Experiment names.

pub use crate::arguments::{ArgumentError, resolve_args};
pub use crate::metric::{Problem, is_finite, validate_metrics};
use std::collections::BTreeSet;
use tidegate_crds::analysis::{AnalysisRunSpec, AnalysisTemplateSpec, Argument, DryRun, MeasurementRetention, Metric};
use tidegate_crds::rollout::AnalysisTemplateRef;

/// Where templates are found.
pub trait Templates {
    /// The template of that name: a ClusterAnalysisTemplate with `cluster_scope`, else an AnalysisTemplate of the
    /// namespace.
    fn template(&self, name: &str, cluster_scope: bool) -> Option<&AnalysisTemplateSpec>;
}

/// Why templates do not make a run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// There is no such template.
    #[error("{} '{name}' is not found", kind(*.cluster_scope))]
    NotFound {
        /// The name.
        name: String,
        /// It would be a ClusterAnalysisTemplate.
        cluster_scope: bool,
    },
    /// Two metrics of different templates, or of one, are the same by name.
    #[error("two metrics have the same name '{0}'")]
    DuplicateMetric(String),
    /// Templates do not agree on a default.
    #[error("Argument `{name}` specified multiple times with different values: '{first}', '{second}'")]
    Conflict {
        /// The argument.
        name: String,
        /// One value.
        first: String,
        /// The other one.
        second: String,
    },
    /// Two rules are for the same pattern.
    #[error("two {list} metric rules have the same name '{pattern}'")]
    DuplicateRule {
        /// Which rules.
        list: &'static str,
        /// The pattern.
        pattern: String,
    },
    /// An argument has no value.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
}

fn kind(cluster_scope: bool) -> &'static str {
    if cluster_scope { "ClusterAnalysisTemplate" } else { "AnalysisTemplate" }
}

/// Makes the specification of a run: the metrics of all templates and of the templates that those name, each template
/// once; `args` override the templates' defaults; `dry_run` and `retention` come before the templates' own.
///
/// Arguments that no template declares are left out. References to templates that form a circle are followed once.
///
/// # Errors
/// When a template is missing, two metrics or rules have the same name, templates have different defaults for an
/// argument, or an argument has no value.
pub fn run_spec(
    refs: &[AnalysisTemplateRef],
    templates: &dyn Templates,
    args: &[Argument],
    dry_run: &[DryRun],
    retention: &[MeasurementRetention],
) -> Result<AnalysisRunSpec, TemplateError> {
    let found = flatten(refs, templates)?;
    let metrics: Vec<Metric> = found.iter().flat_map(|t| t.metrics.iter().cloned()).collect();
    let mut names = BTreeSet::new();
    if let Some(metric) = metrics.iter().find(|m| !names.insert(m.name.as_str())) {
        return Err(TemplateError::DuplicateMetric(metric.name.clone()));
    }
    let dry_run: Vec<DryRun> = dry_run.iter().chain(found.iter().flat_map(|t| &t.dry_run)).cloned().collect();
    distinct("Dry-Run", dry_run.iter().map(|rule| rule.metric_name.as_str()))?;
    let retention: Vec<MeasurementRetention> =
        retention.iter().chain(found.iter().flat_map(|t| &t.measurement_retention)).cloned().collect();
    distinct("Measurement Retention", retention.iter().map(|rule| rule.metric_name.as_str()))?;
    let args = merge_args(args, &declared_args(&found)?)?;
    Ok(AnalysisRunSpec { metrics, args, dry_run, measurement_retention: retention, ..AnalysisRunSpec::default() })
}

/// All templates, those of the namespace first.
fn flatten<'a>(
    refs: &[AnalysisTemplateRef],
    templates: &'a dyn Templates,
) -> Result<Vec<&'a AnalysisTemplateSpec>, TemplateError> {
    let mut seen = BTreeSet::new();
    let (mut namespaced, mut cluster) = (Vec::new(), Vec::new());
    // Depth first, in the order in which they are named.
    let mut open: Vec<AnalysisTemplateRef> = refs.iter().rev().cloned().collect();
    while let Some(next) = open.pop() {
        if !seen.insert((next.cluster_scope, next.template_name.clone())) {
            continue;
        }
        let Some(template) = templates.template(&next.template_name, next.cluster_scope) else {
            return Err(TemplateError::NotFound { name: next.template_name, cluster_scope: next.cluster_scope });
        };
        open.extend(template.templates.iter().rev().cloned());
        if next.cluster_scope { &mut cluster } else { &mut namespaced }.push(template);
    }
    namespaced.append(&mut cluster);
    Ok(namespaced)
}

fn distinct<'a>(list: &'static str, patterns: impl Iterator<Item = &'a str>) -> Result<(), TemplateError> {
    let mut seen = BTreeSet::new();
    for pattern in patterns {
        if !seen.insert(pattern) {
            return Err(TemplateError::DuplicateRule { list, pattern: pattern.to_owned() });
        }
    }
    Ok(())
}

/// The arguments that templates declare, with the default that one of them has.
fn declared_args(templates: &[&AnalysisTemplateSpec]) -> Result<Vec<Argument>, TemplateError> {
    let mut declared: Vec<Argument> = Vec::new();
    for arg in templates.iter().flat_map(|t| &t.args) {
        let Some(earlier) = declared.iter_mut().find(|earlier| earlier.name == arg.name) else {
            declared.push(arg.clone());
            continue;
        };
        match (&earlier.value, &arg.value) {
            (Some(first), Some(second)) if first != second => {
                let (name, first, second) = (arg.name.clone(), first.clone(), second.clone());
                return Err(TemplateError::Conflict { name, first, second });
            }
            (None, _) if arg.value.is_some() || earlier.value_from.is_none() => *earlier = arg.clone(),
            _ => {}
        }
    }
    Ok(declared)
}

/// Puts given values over declared defaults.
fn merge_args(given: &[Argument], declared: &[Argument]) -> Result<Vec<Argument>, TemplateError> {
    let merged = |declared: &Argument| {
        let given =
            given.iter().rev().find(|g| g.name == declared.name && (g.value.is_some() || g.value_from.is_some()));
        let arg = given.unwrap_or(declared).clone();
        if arg.value.is_none() && arg.value_from.is_none() {
            return Err(ArgumentError::Missing(arg.name).into());
        }
        Ok(arg)
    };
    declared.iter().map(merged).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    #[derive(Default)]
    struct Store(BTreeMap<(String, bool), AnalysisTemplateSpec>);

    impl Store {
        fn with(mut self, name: &str, cluster_scope: bool, spec: serde_json::Value) -> Self {
            self.0.insert((name.into(), cluster_scope), serde_json::from_value(spec).unwrap());
            self
        }
    }

    impl Templates for Store {
        fn template(&self, name: &str, cluster_scope: bool) -> Option<&AnalysisTemplateSpec> {
            self.0.get(&(name.to_owned(), cluster_scope))
        }
    }

    fn refs(names: &[&str]) -> Vec<AnalysisTemplateRef> {
        names
            .iter()
            .map(|name| AnalysisTemplateRef {
                template_name: name.trim_start_matches('^').to_owned(),
                cluster_scope: name.starts_with('^'),
            })
            .collect()
    }

    fn args(pairs: &[(&str, &str)]) -> Vec<Argument> {
        let arg = |(name, value): &(&str, &str)| Argument {
            name: (*name).into(),
            value: Some((*value).into()),
            value_from: None,
        };
        pairs.iter().map(arg).collect()
    }

    fn names(spec: &AnalysisRunSpec) -> Vec<&str> {
        spec.metrics.iter().map(|m| m.name.as_str()).collect()
    }

    #[test]
    fn templates_of_templates_count_once() {
        let store = Store::default()
            .with(
                "a",
                false,
                json!({"metrics": [{"name": "a"}], "templates": [
                {"templateName": "b"}, {"templateName": "c", "clusterScope": true}]}),
            )
            .with(
                "b",
                false,
                json!({"metrics": [{"name": "b"}], "templates": [{"templateName": "d"}, {"templateName": "a"}]}),
            )
            .with("c", true, json!({"metrics": [{"name": "c"}]}))
            .with("d", false, json!({"metrics": [{"name": "d"}]}))
            .with("only", false, json!({"templates": [{"templateName": "d"}]}));
        let run = |list: &[&str]| run_spec(&refs(list), &store, &[], &[], &[]).unwrap();
        assert_eq!(names(&run(&["a"])), ["a", "b", "d", "c"]);
        assert_eq!(names(&run(&["^c", "d", "a", "a"])), ["d", "a", "b", "c"]);
        assert_eq!(names(&run(&["only"])), ["d"]);
        let missing = run_spec(&refs(&["^x"]), &store, &[], &[], &[]).unwrap_err();
        assert_eq!(missing.to_string(), "ClusterAnalysisTemplate 'x' is not found");
    }

    #[test]
    fn names_are_unique() {
        let store = Store::default()
            .with(
                "a",
                false,
                json!({"metrics": [{"name": "m"}], "dryRun": [{"metricName": "m"}],
                "measurementRetention": [{"metricName": "m", "limit": 3}]}),
            )
            .with("b", false, json!({"metrics": [{"name": "m"}]}));
        let run = |list: &[&str], dry: &[DryRun], kept: &[MeasurementRetention]| {
            run_spec(&refs(list), &store, &[], dry, kept).map_err(|e| e.to_string())
        };
        assert_eq!(run(&["a", "b"], &[], &[]), Err("two metrics have the same name 'm'".into()));
        let dry = [DryRun { metric_name: "m".into() }];
        assert_eq!(run(&["a"], &dry, &[]), Err("two Dry-Run metric rules have the same name 'm'".into()));
        let kept = [MeasurementRetention { metric_name: "m".into(), limit: 1 }];
        assert_eq!(
            run(&["a"], &[], &kept),
            Err("two Measurement Retention metric rules have the same name 'm'".into())
        );
        let spec = run(&["b"], &dry, &kept).unwrap();
        assert_eq!((spec.dry_run, spec.measurement_retention), (dry.to_vec(), kept.to_vec()));
    }

    #[test]
    fn arguments_merge() {
        let store = Store::default()
            .with("a", false, json!({"args": [{"name": "x"}, {"name": "y", "value": "1"}]}))
            .with("b", false, json!({"args": [{"name": "x", "value": "2"}, {"name": "y"}]}))
            .with("c", false, json!({"args": [{"name": "y", "value": "9"}]}))
            .with(
                "s",
                false,
                json!({"args": [{"name": "t", "valueFrom": {"secretKeyRef": {"name": "n", "key": "k"}}}]}),
            );
        let run = |list: &[&str], given: &[Argument]| {
            run_spec(&refs(list), &store, given, &[], &[]).map(|spec| spec.args).map_err(|e| e.to_string())
        };
        assert_eq!(run(&["a", "b"], &[]), Ok(args(&[("x", "2"), ("y", "1")])));
        assert_eq!(run(&["a"], &args(&[("x", "7"), ("y", "8"), ("other", "0")])), Ok(args(&[("x", "7"), ("y", "8")])));
        assert_eq!(run(&["a"], &[]), Err("args.x was not resolved".into()));
        assert_eq!(
            run(&["a", "c"], &args(&[("x", "1")])),
            Err("Argument `y` specified multiple times with different values: '1', '9'".into())
        );
        let secret = run(&["s"], &[]).unwrap();
        assert_eq!(secret[0].value_from.as_ref().unwrap().secret_key_ref.as_ref().unwrap().name, "n");
        assert_eq!(run(&["s"], &args(&[("t", "plain")])), Ok(args(&[("t", "plain")])));
    }
}
