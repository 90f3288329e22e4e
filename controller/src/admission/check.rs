//! What is wrong with an object of `argoproj.io/v1alpha1`, as far as the object itself shows it.

use crate::experiment;
use crate::rollout::validate;
use regex::Regex;
use serde_json::Value;
use std::fmt;
use tidegate_analysis::arguments;
use tidegate_analysis::metric;
use tidegate_analysis::template::{TemplateError, Templates, run_spec};
use tidegate_crds::analysis::{
    AnalysisRun, AnalysisRunSpec, AnalysisTemplate, AnalysisTemplateSpec, Argument, ClusterAnalysisTemplate, Metric,
};
use tidegate_crds::application::{Application, ApplicationSpec};
use tidegate_crds::application_set::ApplicationSet;
use tidegate_crds::decode::Dropped;
use tidegate_crds::experiment::{Experiment, ExperimentSpec};
use tidegate_crds::project::{AppProject, AppProjectSpec};
use tidegate_crds::rollout::{AnalysisTemplateRef, Rollout};
use tidegate_gitops::{source, window};

/// One thing that is wrong. Shown as `field: message`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Path of the field, as `spec.strategy.canary.steps[2].setWeight`.
    pub field: String,
    /// What was found, and what was expected.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl Finding {
    fn new(field: impl Into<String>, message: impl ToString) -> Self {
        Self { field: field.into(), message: message.to_string() }
    }
}

impl From<validate::Problem> for Finding {
    fn from(problem: validate::Problem) -> Self {
        let text = problem.to_string();
        let message = text.strip_prefix(problem.field.as_str()).and_then(|rest| rest.strip_prefix(": "));
        Self::new(problem.field.as_str(), message.unwrap_or(&text))
    }
}

impl From<metric::Problem> for Finding {
    fn from(problem: metric::Problem) -> Self {
        Self::new(format!("spec.{}", problem.path), problem.message)
    }
}

/// Everything that is wrong with the `spec` of an object, fields included whose type does not fit. What it names may come
/// later, and is not looked for. An object of an unknown kind has no problems.
pub fn problems(object: &Value) -> Vec<Finding> {
    // Only these parts are looked at: the others can be much larger.
    let parts = ["metadata", "spec"].into_iter().filter_map(|key| Some((key.to_owned(), object.get(key)?.clone())));
    let value = Value::Object(parts.collect());
    match object["kind"].as_str().unwrap_or_default() {
        Rollout::KIND => match Rollout::decode(value) {
            Ok((rollout, dropped)) => validate::written(&rollout, &dropped).into_iter().map(Finding::from).collect(),
            Err(error) => vec![Finding::new("metadata", error)],
        },
        Experiment::KIND => of(Experiment::decode(value), |o| experiment_problems(&o.spec)),
        AnalysisTemplate::KIND => of(AnalysisTemplate::decode(value), |o| template_problems(&o.spec)),
        ClusterAnalysisTemplate::KIND => of(ClusterAnalysisTemplate::decode(value), |o| template_problems(&o.spec)),
        AnalysisRun::KIND => of(AnalysisRun::decode(value), |o| run_problems(&o.spec)),
        Application::KIND => of(Application::decode(value), |o| application_problems(&o.spec)),
        AppProject::KIND => of(AppProject::decode(value), |o| project_problems(&o.spec)),
        ApplicationSet::KIND => of(ApplicationSet::decode(value), |_| Vec::new()),
        _ => Vec::new(),
    }
}

fn of<T>(
    decoded: Result<(T, Vec<Dropped>), serde_json::Error>,
    check: impl FnOnce(&T) -> Vec<Finding>,
) -> Vec<Finding> {
    match decoded {
        Ok((object, dropped)) => {
            let misfits = dropped.into_iter().filter(|dropped| dropped.path.starts_with("spec"));
            misfits.map(|dropped| Finding::new(dropped.path, dropped.reason)).chain(check(&object)).collect()
        }
        Err(error) => vec![Finding::new("metadata", error)],
    }
}

fn experiment_problems(spec: &ExperimentSpec) -> Vec<Finding> {
    experiment::validate::own(spec).into_iter().map(Finding::from).collect()
}

/// A template by itself: other templates may add metrics and arguments to it, a Rollout values for its arguments.
fn template_problems(spec: &AnalysisTemplateSpec) -> Vec<Finding> {
    struct Alone<'a>(&'a AnalysisTemplateSpec);
    impl Templates for Alone<'_> {
        fn template(&self, _: &str, _: bool) -> Option<&AnalysisTemplateSpec> {
            Some(self.0)
        }
    }
    let mut found: Vec<Finding> = if spec.metrics.is_empty() && !spec.templates.is_empty() {
        Vec::new()
    } else {
        metric::validate_metrics(&spec.metrics).into_iter().map(Finding::from).collect()
    };
    let rules = [
        ("dryRun", spec.dry_run.iter().map(|rule| &rule.metric_name).collect::<Vec<_>>()),
        ("measurementRetention", spec.measurement_retention.iter().map(|rule| &rule.metric_name).collect()),
    ];
    for (list, patterns) in rules {
        for (index, pattern) in patterns.into_iter().enumerate().filter(|(_, pattern)| Regex::new(pattern).is_err()) {
            let message = format!("metricName {pattern:?} is not a regular expression");
            found.push(Finding::new(format!("spec.{list}[{index}]"), message));
        }
    }
    let given = |arg: &Argument| Argument { name: arg.name.clone(), value: Some(String::new()), value_from: None };
    let args: Vec<Argument> = spec.args.iter().map(given).collect();
    let alone = AnalysisTemplateSpec { templates: Vec::new(), ..spec.clone() };
    let itself = [AnalysisTemplateRef::default()];
    match run_spec(&itself, &Alone(&alone), &args, &[], &[]) {
        Err(error @ TemplateError::Conflict { .. }) => found.push(Finding::new("spec.args", error)),
        Err(error @ TemplateError::DuplicateRule { list: "Dry-Run", .. }) => {
            found.push(Finding::new("spec.dryRun", error));
        }
        Err(error @ TemplateError::DuplicateRule { .. }) => {
            found.push(Finding::new("spec.measurementRetention", error));
        }
        // Metrics with the same name are among the metrics' own problems; the others need more than one template.
        _ => {}
    }
    found
}

/// A run is complete: its arguments have values, and all its rules are about its own metrics.
fn run_problems(spec: &AnalysisRunSpec) -> Vec<Finding> {
    let mut values = match arguments::values_without_secrets(&spec.args) {
        Ok(values) => values,
        Err(error) => return vec![Finding::new("spec.args", error)],
    };
    // A Secret's value is not known here: what contains it stays open.
    for arg in &spec.args {
        if arg.value_from.as_ref().is_some_and(|from| from.secret_key_ref.is_some()) {
            values.insert(arg.name.clone(), format!("{{{{args.{}}}}}", arg.name));
        }
    }
    let mut metrics: Vec<Metric> = Vec::new();
    for (index, metric) in spec.metrics.iter().enumerate() {
        match arguments::substitute(metric, &values) {
            Ok(metric) => metrics.push(metric),
            Err(error) => return vec![Finding::new(format!("spec.metrics[{index}]"), error)],
        }
    }
    let mut found = metric::validate_metrics(&metrics);
    found.extend(metric::dry_run_names(&spec.dry_run, &metrics).err());
    found.extend(metric::retention(&spec.measurement_retention, &metrics).err());
    found.into_iter().map(Finding::from).collect()
}

fn application_problems(spec: &ApplicationSpec) -> Vec<Finding> {
    let mut found = Vec::new();
    let sources = spec.sources();
    if sources.is_empty() {
        let expected =
            "spec.source.repoURL and either spec.source.path, spec.source.chart, or spec.source.ref are required";
        found.push(Finding::new("spec.source", expected));
    }
    for (index, source) in sources.iter().enumerate() {
        let Err(error) = source::validate(source) else { continue };
        let field = if spec.source_hydrator.is_some() {
            "spec.sourceHydrator".to_owned()
        } else if spec.sources.is_empty() {
            "spec.source".to_owned()
        } else {
            format!("spec.sources[{index}]")
        };
        found.push(Finding::new(field, error));
    }
    let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    match (given(&spec.destination.server), given(&spec.destination.name)) {
        (true, true) => {
            let expected = "application destination can't have both name and server defined";
            found.push(Finding::new("spec.destination", expected));
        }
        (false, false) => {
            found.push(Finding::new("spec.destination", "Destination server missing from app spec"));
        }
        _ => {}
    }
    found
}

fn project_problems(spec: &AppProjectSpec) -> Vec<Finding> {
    let windows = spec.sync_windows.iter().enumerate();
    let invalid = windows.filter_map(|(index, window)| Some((index, window::check(window).err()?)));
    invalid.map(|(index, error)| Finding::new(format!("spec.syncWindows[{index}].{}", error.field), error)).collect()
}

#[cfg(test)]
mod tests;
