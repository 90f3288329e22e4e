//! What is wrong with a Rollout.
//!
//! Two pure functions: [`spec`] looks at the Rollout alone, [`references`] at the objects that it names. The controller
//! shows the first problem in the InvalidSpec condition; `lint` and admission show all. The order is therefore part of
//! the interface: the Rollout before its references, and within it from the outside in.

mod canary;
mod labels;
mod pod;
mod references;
#[cfg(test)]
mod tests;

pub use references::{References, references};

use super::Snapshot;
use serde_json::Value;
use std::fmt;
use tidegate_crds::LabelSelector;
use tidegate_crds::decode::Dropped;
use tidegate_crds::rollout::{AntiAffinity, BlueGreen, Rollout, RolloutAnalysis};

/// Revisions that are kept when the Rollout does not say.
const DEFAULT_HISTORY: i32 = 10;
/// Progress deadline when the Rollout does not say, in seconds.
const DEFAULT_DEADLINE: i32 = 600;

/// In which way a field is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is not there.
    Required,
    /// Its value cannot be used.
    Invalid,
    /// Its value is none of those that there are.
    Unsupported,
    /// Its value is there already.
    Duplicate,
    /// It must not be there.
    Forbidden,
    /// It names something that does not exist.
    NotFound,
}

/// One thing that is wrong: where, what was found, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// In which way.
    pub kind: Kind,
    /// Path of the field, as `spec.strategy.canary.steps[2].setWeight`.
    pub field: String,
    /// What is there, as JSON; empty when nothing is.
    pub found: String,
    /// What should be there.
    pub expected: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, found, expected, .. } = self;
        match self.kind {
            Kind::Required => write!(f, "{field}: Required value: {expected}"),
            Kind::Invalid => write!(f, "{field}: Invalid value: {found}: {expected}"),
            Kind::Unsupported => write!(f, "{field}: Unsupported value: {found}: supported values: {expected}"),
            Kind::Duplicate => write!(f, "{field}: Duplicate value: {found}: {expected}"),
            Kind::Forbidden => write!(f, "{field}: Forbidden: {expected}"),
            Kind::NotFound => write!(f, "{field}: Not found: {found}: {expected}"),
        }
    }
}

/// Problems as they are found.
#[derive(Debug, Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, kind: Kind, field: impl Into<String>, found: impl Into<Value>, expected: impl Into<String>) {
        let found = match found.into() {
            Value::Null => String::new(),
            found => found.to_string(),
        };
        self.0.push(Problem { kind, field: field.into(), found, expected: expected.into() });
    }

    fn required(&mut self, field: impl Into<String>, expected: impl Into<String>) {
        self.add(Kind::Required, field, Value::Null, expected);
    }

    fn invalid(&mut self, field: impl Into<String>, found: impl Into<Value>, expected: impl Into<String>) {
        self.add(Kind::Invalid, field, found, expected);
    }

    fn unsupported(&mut self, field: impl Into<String>, found: &str, supported: &[&str]) {
        let quoted: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        self.add(Kind::Unsupported, field, found, quoted.join(", "));
    }

    fn not_negative(&mut self, field: impl Into<String>, value: i64) {
        if value < 0 {
            self.invalid(field, value, "must be greater than or equal to 0");
        }
    }
}

/// What is expected of the template of a Rollout with `workloadRef`.
const TEMPLATE_TWICE: &str = "template must be empty for workload reference rollout";

/// What is wrong with the Rollout itself, first things first. With `workloadRef`, its template and selector are those of
/// the workload. `dropped` are fields that could not be read: the controller works with what is left, as its peer does,
/// and passes none; `lint` and admission pass them.
pub fn spec(rollout: &Rollout, dropped: &[Dropped]) -> Vec<Problem> {
    check(rollout, dropped, true)
}

/// As [`spec`], for a Rollout as its user wrote it: with `workloadRef` there must be no template.
pub fn written(rollout: &Rollout, dropped: &[Dropped]) -> Vec<Problem> {
    check(rollout, dropped, false)
}

/// The first problem of a Rollout as the controller sees it: with itself, or with what it names.
pub fn first(snapshot: &Snapshot) -> Option<Problem> {
    let found = References {
        services: &snapshot.services,
        templates: &snapshot.templates.0,
        routing: &snapshot.routing,
        options: &snapshot.router_options,
        complete: true,
    };
    if snapshot.workload.as_ref().is_some_and(|w| w.template_twice) {
        let mut problems = Problems::default();
        problems.add(Kind::Forbidden, "spec.template", Value::Null, TEMPLATE_TWICE);
        return problems.0.into_iter().next();
    }
    let own = spec(&snapshot.rollout, &[]).into_iter().next();
    own.or_else(|| references(&snapshot.rollout, &found).into_iter().next())
}

fn check(rollout: &Rollout, dropped: &[Dropped], resolved: bool) -> Vec<Problem> {
    let mut problems = Problems::default();
    let spec = &rollout.spec;
    for field in dropped.iter().filter(|field| field.path.starts_with("spec")) {
        problems.add(Kind::Invalid, &field.path, Value::Null, &field.reason);
    }
    problems.not_negative("spec.replicas", spec.replicas.unwrap_or(1).into());
    let has_template = resolved || spec.workload_ref.is_none();
    if let Some(reference) = &spec.workload_ref {
        check_workload_ref(reference, &mut problems);
        if !resolved && !is_empty_template(&spec.template) {
            problems.add(Kind::Forbidden, "spec.template", Value::Null, TEMPLATE_TWICE);
        }
    }
    if has_template {
        check_selector(spec.selector.as_ref(), "spec.selector", &mut problems);
        pod::check(&spec.template, spec.selector.as_ref(), "spec.template", &mut problems);
    }
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    problems.not_negative("spec.minReadySeconds", min_ready.into());
    let history = spec.revision_history_limit.unwrap_or(DEFAULT_HISTORY);
    problems.not_negative("spec.revisionHistoryLimit", history.into());
    let deadline = spec.progress_deadline_seconds.unwrap_or(DEFAULT_DEADLINE);
    problems.not_negative("spec.progressDeadlineSeconds", deadline.into());
    if deadline <= min_ready {
        let expected = format!("must be greater than minReadySeconds ({min_ready})");
        problems.invalid("spec.progressDeadlineSeconds", deadline, expected);
    }
    match (&spec.strategy.canary, &spec.strategy.blue_green) {
        (None, None) => problems.required("spec.strategy", "one of canary and blueGreen"),
        (Some(_), Some(_)) => {
            problems.invalid("spec.strategy", "canary and blueGreen", "exactly one of the two");
        }
        (None, Some(blue_green)) => check_blue_green(blue_green, history, &mut problems),
        (Some(canary), None) => canary::check(rollout, canary, &mut problems),
    }
    problems.0
}

fn check_workload_ref(reference: &tidegate_crds::rollout::WorkloadRef, problems: &mut Problems) {
    let group = reference.api_version.split_once('/').map_or("", |(group, _)| group);
    let known = matches!((group, reference.kind.as_str()), ("apps", "Deployment" | "ReplicaSet") | ("", "PodTemplate"));
    if !known {
        let found = format!("{} {}", reference.api_version, reference.kind);
        let expected = "apps/v1 Deployment, apps/v1 ReplicaSet or v1 PodTemplate";
        problems.invalid("spec.workloadRef", found, expected);
    }
    if reference.name.is_empty() {
        problems.required("spec.workloadRef.name", "the name of the workload");
    }
    if let Some(mode) = reference.scale_down.as_deref()
        && !matches!(mode, "" | "never" | "onsuccess" | "progressively")
    {
        problems.unsupported("spec.workloadRef.scaleDown", mode, &["never", "onsuccess", "progressively"]);
    }
}

/// Whether a template says nothing: it is absent, or has neither labels nor containers nor anything else.
pub(crate) fn is_empty_template(template: &Value) -> bool {
    fn empty(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Object(map) => map.iter().all(|(key, value)| key == "creationTimestamp" || empty(value)),
            Value::Array(list) => list.is_empty(),
            _ => false,
        }
    }
    empty(template)
}

/// What is wrong with a pod template and its selector, which stand beside each other at `path`.
pub(crate) fn pods(template: &Value, selector: Option<&LabelSelector>, path: &str) -> Vec<Problem> {
    let mut problems = Problems::default();
    check_selector(selector, &format!("{path}.selector"), &mut problems);
    pod::check(template, selector, &format!("{path}.template"), &mut problems);
    problems.0
}

fn check_selector(selector: Option<&LabelSelector>, path: &str, problems: &mut Problems) {
    let Some(selector) = selector else {
        problems.required(path, "the labels that select the pods");
        return;
    };
    labels::check_selector(selector, path, problems);
    let empty = |count: Option<usize>| count.unwrap_or(0) == 0;
    if empty(selector.match_labels.as_ref().map(|m| m.len()))
        && empty(selector.match_expressions.as_ref().map(Vec::len))
    {
        problems.invalid(path, serde_json::json!({}), "must select by at least one label");
    }
}

fn check_blue_green(blue_green: &BlueGreen, history: i32, problems: &mut Problems) {
    let path = "spec.strategy.blueGreen";
    let preview = blue_green.preview_service.as_deref().unwrap_or_default();
    if blue_green.active_service.is_empty() {
        problems.required(format!("{path}.activeService"), "the Service that users reach");
    } else if blue_green.active_service == preview {
        let expected = "must differ from previewService";
        problems.invalid(format!("{path}.activeService"), preview, expected);
    }
    if let Some(limit) = blue_green.scale_down_delay_revision_limit.filter(|limit| *limit > history) {
        let expected = format!("must not be greater than revisionHistoryLimit ({history})");
        problems.invalid(format!("{path}.scaleDownDelayRevisionLimit"), limit, expected);
    }
    let analyses = [
        ("prePromotionAnalysis", &blue_green.pre_promotion_analysis),
        ("postPromotionAnalysis", &blue_green.post_promotion_analysis),
    ];
    for (field, analysis) in analyses {
        analysis.iter().for_each(|analysis| check_args(analysis, &format!("{path}.{field}"), problems));
    }
    check_anti_affinity(blue_green.anti_affinity.as_ref(), &format!("{path}.antiAffinity"), problems);
}

fn check_anti_affinity(anti_affinity: Option<&AntiAffinity>, path: &str, problems: &mut Problems) {
    let Some(anti_affinity) = anti_affinity else { return };
    let preferred = &anti_affinity.preferred_during_scheduling_ignored_during_execution;
    let required = &anti_affinity.required_during_scheduling_ignored_during_execution;
    if preferred.is_some() == required.is_some() {
        let found = if preferred.is_some() { "both" } else { "neither" };
        let expected = "exactly one of preferredDuringSchedulingIgnoredDuringExecution and \
                        requiredDuringSchedulingIgnoredDuringExecution";
        problems.invalid(path, found, expected);
    }
    if let Some(preferred) = preferred.as_ref().filter(|p| !(1..=100).contains(&p.weight)) {
        let field = format!("{path}.preferredDuringSchedulingIgnoredDuringExecution.weight");
        problems.invalid(field, preferred.weight, "must be between 1 and 100");
    }
}

fn check_args(analysis: &RolloutAnalysis, path: &str, problems: &mut Problems) {
    check_arguments(&analysis.args, &format!("{path}.args"), problems);
}

/// Values from `metadata` are those of the downward API; every other path is looked up in the Rollout when it is needed.
fn check_arguments(args: &[tidegate_crds::analysis::AnalysisRunArgument], path: &str, problems: &mut Problems) {
    for (index, arg) in args.iter().enumerate() {
        let from = arg.value_from.as_ref();
        let Some(field) = from.and_then(|from| from.field_ref.as_ref()).map(|field| field.field_path.as_str()) else {
            continue;
        };
        let subscript = |prefix: &str| {
            let key = field.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']")?;
            (!key.is_empty()).then_some(())
        };
        let metadata = field == "metadata" || field.starts_with("metadata.");
        let whole = ["name", "namespace", "uid", "labels", "annotations"].iter();
        let known = whole.clone().any(|name| field.strip_prefix("metadata.") == Some(*name))
            || subscript("metadata.labels").is_some()
            || subscript("metadata.annotations").is_some();
        if metadata && !known {
            let field_path = format!("{path}[{index}].valueFrom.fieldRef.fieldPath");
            let expected = "metadata.name, metadata.namespace, metadata.uid, metadata.labels['<key>'], \
                            metadata.annotations['<key>'], or a field outside metadata";
            problems.invalid(field_path, field, expected);
        }
    }
}
