//! What is wrong with an Experiment.

use super::analyses;
use super::arguments::Asked;
use super::snapshot::Snapshot;
use super::variants::progress_deadline;
use crate::rollout::validate::{Kind, Problem, pods};
use serde_json::Value;
use std::collections::BTreeSet;
use tidegate_crds::experiment::{ExperimentAnalysis, ExperimentSpec, ExperimentTemplate};

/// What is wrong, in the words of the InvalidSpec condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) text: String,
    /// It is with something that the Experiment names, and may be mended without touching it.
    pub(super) may_come: bool,
}

/// The first thing that is wrong: with the Experiment itself, then with what it names.
pub(super) fn first(snapshot: &Snapshot) -> Option<Trouble> {
    if let Some(problem) = own(&snapshot.experiment.spec) {
        return Some(Trouble { text: problem.to_string(), may_come: false });
    }
    let spec = &snapshot.experiment.spec;
    // From the start of the analyses on, what is missing shows in their status.
    if snapshot.experiment.status.available_at.is_some() {
        return None;
    }
    spec.analyses.iter().enumerate().find_map(|(i, analysis)| {
        let text = reference(snapshot, analysis)?;
        Some(Trouble { text: format!("spec.analyses[{i}]: {text}"), may_come: true })
    })
}

fn reference(snapshot: &Snapshot, analysis: &ExperimentAnalysis) -> Option<String> {
    let args = analyses::values(analysis, |_| Some("x".to_owned())).ok()?;
    match analyses::run_spec(snapshot, analysis, &args) {
        Err(error) => Some(error),
        Ok(run) => tidegate_analysis::template::validate_metrics(&run.metrics)
            .first()
            .map(|problem| format!("template {:?}: {problem}", analysis.template_name)),
    }
}

fn problem(kind: Kind, field: String, found: impl Into<Value>, expected: impl Into<String>) -> Problem {
    let found = match found.into() {
        Value::Null => String::new(),
        found => found.to_string(),
    };
    Problem { kind, field, found, expected: expected.into() }
}

/// The first thing that is wrong with the Experiment itself.
pub(crate) fn own(spec: &ExperimentSpec) -> Option<Problem> {
    if spec.templates.is_empty() {
        return Some(problem(Kind::Required, "spec.templates".to_owned(), Value::Null, "at least one variant"));
    }
    let mut names = BTreeSet::new();
    for (index, template) in spec.templates.iter().enumerate() {
        let path = format!("spec.templates[{index}]");
        if !names.insert(template.name.as_str()) {
            let expected = "every variant needs a name of its own";
            return Some(problem(Kind::Duplicate, format!("{path}.name"), template.name.as_str(), expected));
        }
        let found = variant(spec, template, &path);
        if found.is_some() {
            return found;
        }
    }
    if let Some(duration) = &spec.duration
        && let Err(error) = tidegate_crds::duration::parse(duration)
    {
        return Some(problem(Kind::Invalid, "spec.duration".to_owned(), duration.as_str(), error.to_string()));
    }
    for (field, seconds) in [
        ("spec.progressDeadlineSeconds", spec.progress_deadline_seconds),
        ("spec.scaleDownDelaySeconds", spec.scale_down_delay_seconds),
    ] {
        if let Some(seconds) = seconds.filter(|s| *s < 0) {
            return Some(problem(Kind::Invalid, field.to_owned(), seconds, "must be greater than or equal to 0"));
        }
    }
    let mut names = BTreeSet::new();
    for (index, analysis) in spec.analyses.iter().enumerate() {
        let path = format!("spec.analyses[{index}]");
        if analysis.name.is_empty() {
            return Some(problem(Kind::Required, format!("{path}.name"), Value::Null, "the name of the analysis"));
        }
        if !names.insert(analysis.name.as_str()) {
            let expected = "every analysis needs a name of its own";
            return Some(problem(Kind::Duplicate, format!("{path}.name"), analysis.name.as_str(), expected));
        }
        if analysis.template_name.is_empty() {
            let expected = "the name of an analysis template";
            return Some(problem(Kind::Required, format!("{path}.templateName"), Value::Null, expected));
        }
        let known = |asked: Asked<'_>| match asked {
            Asked::Hash(name) | Asked::ReplicaSet(name) if !spec.templates.iter().any(|t| t.name == name) => None,
            _ => Some(String::new()),
        };
        if let Err(error) = analyses::values(analysis, known) {
            let expected = format!(
                "{error}: expected templates.<name>.podTemplateHash, templates.<name>.replicaset.name, \
                 experiment.availableAt or experiment.finishedAt"
            );
            return Some(problem(Kind::Invalid, format!("{path}.args"), Value::Null, expected));
        }
    }
    None
}

fn variant(spec: &ExperimentSpec, template: &ExperimentTemplate, path: &str) -> Option<Problem> {
    if template.name.is_empty() {
        return Some(problem(Kind::Required, format!("{path}.name"), Value::Null, "the name of the variant"));
    }
    for (field, number) in [("replicas", template.replicas), ("minReadySeconds", template.min_ready_seconds)] {
        if let Some(number) = number.filter(|n| *n < 0) {
            let expected = "must be greater than or equal to 0";
            return Some(problem(Kind::Invalid, format!("{path}.{field}"), number, expected));
        }
    }
    let min_ready = template.min_ready_seconds.unwrap_or(0);
    let deadline = progress_deadline(spec);
    if i64::from(min_ready) > deadline {
        let expected = format!("must not be greater than progressDeadlineSeconds ({deadline})");
        return Some(problem(Kind::Invalid, format!("{path}.minReadySeconds"), min_ready, expected));
    }
    pods(&template.template, template.selector.as_ref(), path).into_iter().next()
}
