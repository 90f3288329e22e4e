//! Experiments of a Rollout: the one of the current step, and what its verdict means.

use super::canary::Position;
use super::decision::{Action, Stage};
use super::endpoints;
use super::pass::Pass;
use super::replicas;
use super::snapshot::ReplicaSet;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tidegate_analysis::template as arguments;
use tidegate_crds::analysis::AnalysisPhase;
use tidegate_crds::experiment::Experiment;
use tidegate_crds::keys;
use tidegate_crds::rollout::{Canary, ExperimentStep, ExperimentStepTemplate};
use tidegate_traffic::Destination;

/// Keeps the current step's Experiment going and ends all others.
pub(crate) fn run(pass: &mut Pass<'_>, canary: &Canary, at: Position) {
    let idle = pass.promoted() || pass.unproven() || pass.status.abort || pass.status.promote_full;
    let step = replicas::steps(canary).get(at.index).and_then(|s| s.experiment.as_ref()).filter(|_| !idle);
    if let Some(step) = step {
        keep(pass, step, at.index);
    } else if !pass.status.abort {
        pass.status.canary.current_experiment = None;
    }
    end_others(pass, step.is_some());
}

/// No step wants an Experiment.
pub(crate) fn end(pass: &mut Pass<'_>) {
    pass.status.canary.current_experiment = None;
    end_others(pass, false);
}

/// The Experiment that the status names.
pub(crate) fn current<'a>(pass: &Pass<'a>) -> Option<&'a Experiment> {
    let name = pass.status.canary.current_experiment.as_deref()?;
    pass.snapshot.experiments.iter().find(|e| e.name() == name)
}

/// The current step's Experiment was successful.
pub(crate) fn succeeded(pass: &Pass<'_>) -> bool {
    current(pass).is_some_and(|e| e.status.phase == AnalysisPhase::Successful)
}

fn keep(pass: &mut Pass<'_>, step: &ExperimentStep, index: usize) {
    let resumed = pass.resumed();
    let before = current(pass);
    let reuse = before.filter(|e| !(e.status.phase == AnalysisPhase::Inconclusive && resumed));
    if let Some(experiment) = reuse {
        match experiment.status.phase {
            AnalysisPhase::Failed | AnalysisPhase::Error => {
                let why = experiment.status.message.clone().unwrap_or_default();
                pass.abort(format!("Experiment analysis phase is error/failed: {why}"));
            }
            AnalysisPhase::Inconclusive => pass.add_pause("InconclusiveExperiment"),
            _ => {}
        }
        return;
    }
    if pass.halted() || pass.new_rs().is_none() {
        return;
    }
    // Not before: a promotion while the user has paused counts when the pause is over.
    pass.overruled |= before.is_some();
    let base = format!("{}-{}-{}-{index}", pass.rollout().name(), pass.hash, pass.revision);
    let mut name = base.clone();
    let mut attempt = 0;
    while let Some(existing) = pass.snapshot.experiments.iter().find(|e| e.name() == name) {
        if !existing.status.phase.completed() && !existing.spec.terminate && !pass.retried {
            pass.status.canary.current_experiment = Some(name);
            return;
        }
        attempt += 1;
        // It becomes the name of Services, which have no dots.
        name = format!("{base}-{attempt}");
    }
    match object(pass, step, index, &name) {
        Ok(object) => {
            let event = crate::events::Event::normal("ExperimentCreated", format!("Created Experiment '{name}'"));
            pass.because(format!("starts Experiment {name}"));
            pass.act_telling(Stage::Judge, Action::CreateExperiment { object }, event);
            pass.status.canary.current_experiment = Some(name);
        }
        Err(error) => {
            let text =
                format!("cannot make Experiment {name} from spec.strategy.canary.steps[{index}].experiment: {error}");
            pass.tell(crate::events::Event::warning("ReconciliationError", text.clone()));
            pass.because(text);
            pass.wake_after(20);
        }
    }
}

fn object(pass: &Pass<'_>, step: &ExperimentStep, index: usize, name: &str) -> Result<Value, String> {
    let rollout = pass.rollout();
    let whole = serde_json::to_value(rollout).unwrap_or_default();
    let mut templates = Vec::new();
    for (i, template) in step.templates.iter().enumerate() {
        templates.push(variant(pass, template).ok_or_else(|| {
            format!("templates[{i}].specRef: found {:?}, expected \"stable\" or \"canary\"", template.spec_ref)
        })?);
    }
    let mut analyses = Vec::new();
    for analysis in &step.analyses {
        let args = arguments::resolve_args(&analysis.args, &whole, pass.stable_hash(), &pass.hash)
            .map_err(|error| error.to_string())?;
        let mut entry = json!({"name": analysis.name, "templateName": analysis.template_name, "args": args});
        if analysis.cluster_scope {
            entry["clusterScope"] = true.into();
        }
        if analysis.required_for_completion {
            entry["requiredForCompletion"] = true.into();
        }
        analyses.push(entry);
    }
    let mut spec = json!({"templates": templates, "analyses": analyses, "dryRun": step.dry_run});
    if let Some(duration) = &step.duration {
        spec["duration"] = duration.as_str().into();
    }
    if let Some(seconds) = step.scale_down_delay_seconds {
        spec["scaleDownDelaySeconds"] = seconds.into();
    }
    if let Some(seconds) = rollout.spec.progress_deadline_seconds {
        spec["progressDeadlineSeconds"] = seconds.into();
    }
    if let Some(metadata) = &step.analysis_run_metadata {
        spec["analysisRunMetadata"] = json!(metadata);
    }
    let mut labels = json!({keys::POD_TEMPLATE_HASH: pass.hash, keys::STEP_INDEX: index.to_string()});
    if !pass.snapshot.instance_id.is_empty() {
        labels[keys::INSTANCE_ID] = pass.snapshot.instance_id.as_str().into();
    }
    Ok(json!({
        "apiVersion": tidegate_crds::API_VERSION,
        "kind": Experiment::KIND,
        "metadata": {
            "name": name,
            "namespace": rollout.namespace(),
            "labels": labels,
            "annotations": {keys::REVISION: pass.revision.to_string()},
            "ownerReferences": pass.owner_reference(),
        },
        "spec": spec,
    }))
}

/// A variant: the pods of one version, with labels of its own.
fn variant(pass: &Pass<'_>, template: &ExperimentStepTemplate) -> Option<Value> {
    let rollout = pass.rollout();
    let source: Value = match template.spec_ref.as_str() {
        "canary" => rollout.spec.template.clone(),
        "stable" => without_hash(pass.stable_rs()?),
        _ => return None,
    };
    let mut pods = source;
    if let Some(metadata) = &template.metadata {
        for (part, map) in [("labels", &metadata.labels), ("annotations", &metadata.annotations)] {
            for (key, value) in map {
                super::template::set(&mut pods, &["metadata", part, key], value.as_str().into());
            }
        }
    }
    let mut selector =
        serde_json::to_value(template.selector.as_ref().or(rollout.spec.selector.as_ref())).unwrap_or_default();
    if template.selector.is_none()
        && let Some(metadata) = &template.metadata
    {
        for (key, value) in &metadata.labels {
            if selector.pointer("/matchLabels").and_then(|m| m.get(key)).is_some() {
                super::template::set(&mut selector, &["matchLabels", key], value.as_str().into());
            }
        }
    }
    let mut variant = json!({"name": template.name, "template": pods, "selector": selector});
    if let Some(pods) = template.replicas {
        variant["replicas"] = pods.into();
    }
    if let Some(seconds) = rollout.spec.min_ready_seconds {
        variant["minReadySeconds"] = seconds.into();
    }
    match (&template.service, template.weight) {
        (Some(service), _) => variant["service"] = json!(service),
        // Traffic needs a destination.
        (None, Some(_)) => variant["service"] = json!({}),
        (None, None) => {}
    }
    Some(variant)
}

fn without_hash(rs: &ReplicaSet) -> Value {
    let mut template = rs.template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(keys::POD_TEMPLATE_HASH);
    }
    template
}

/// Where a running Experiment's share of the traffic goes: to the variants that serve and that a data plane can reach.
pub(crate) fn destinations(pass: &mut Pass<'_>, canary: &Canary, at: Position) -> Vec<Destination> {
    let Some(step) = replicas::steps(canary).get(at.index).and_then(|s| s.experiment.as_ref()) else {
        return Vec::new();
    };
    let Some(experiment) = current(pass).filter(|e| e.status.phase == AnalysisPhase::Running) else {
        return Vec::new();
    };
    if pass.status.abort || pass.promoted() {
        return Vec::new();
    }
    let ports = ports(pass, canary);
    let weighted = step.templates.iter().filter_map(|t| Some((t.name.as_str(), t.weight?)));
    let serving = weighted.filter_map(|(name, weight)| {
        let status = experiment.status.template_statuses.iter().find(|s| s.name == name)?;
        (status.available_replicas > 0).then_some(())?;
        Some(Destination {
            service: status.service_name.clone()?,
            hash: status.pod_template_hash.clone().unwrap_or_default(),
            weight,
            ports: ports.clone(),
        })
    });
    serving.filter(|destination| endpoints::await_variant(pass, &destination.service)).collect()
}

/// The Services that a running Experiment has made for its variants.
pub(crate) fn services(experiments: &[Experiment]) -> impl Iterator<Item = &str> {
    let running = experiments.iter().filter(|e| e.status.phase == AnalysisPhase::Running);
    running.flat_map(|e| &e.status.template_statuses).filter_map(|status| status.service_name.as_deref())
}

/// An Experiment's Service offers each port of the pods under its own number: which one that is for each port of the
/// canary's Service.
fn ports(pass: &Pass<'_>, canary: &Canary) -> BTreeMap<i32, i32> {
    let containers = pass.rollout().spec.template.pointer("/spec/containers").and_then(Value::as_array);
    let ports = containers.into_iter().flatten().filter_map(|c| c.get("ports")?.as_array()).flatten();
    let numbered: Vec<(Option<&str>, i32)> = ports
        .filter_map(|p| {
            Some((p.get("name").and_then(Value::as_str), p.get("containerPort")?.as_i64()?.try_into().ok()?))
        })
        .collect();
    let behind = |target: &IntOrString| match target {
        IntOrString::Int(number) => numbered.iter().find(|(_, n)| n == number),
        IntOrString::String(name) => numbered.iter().find(|(n, _)| *n == Some(name.as_str())),
    };
    let services = super::traffic::pairs(pass, canary).into_iter().map(|pair| pair.canary);
    let services = services.filter_map(|name| pass.snapshot.services.get(&name));
    let pairs = services.flat_map(|service| &service.ports);
    pairs.filter_map(|(port, target)| Some((*port, behind(target)?.1))).collect()
}

/// Ends Experiments that are not wanted any more, and deletes those beyond the history limits.
fn end_others(pass: &mut Pass<'_>, wanted: bool) {
    let name = pass.status.canary.current_experiment.clone();
    let mut finished = Vec::new();
    for experiment in &pass.snapshot.experiments {
        let current = name.as_deref() == Some(experiment.name());
        if experiment.status.phase.completed() {
            if !current {
                finished.push(experiment);
            }
        } else if !(experiment.spec.terminate || current && wanted) {
            pass.because(format!("ends Experiment {}: it is not needed any more", experiment.name()));
            pass.act(Stage::Judge, Action::TerminateExperiment { name: experiment.name().to_owned() });
        }
    }
    let history = pass.rollout().spec.analysis.clone().unwrap_or_default();
    for (successful, limit) in
        [(true, history.successful_run_history_limit), (false, history.unsuccessful_run_history_limit)]
    {
        let limit = usize::try_from(limit.unwrap_or(5)).unwrap_or(0);
        let mut kept: Vec<_> =
            finished.iter().filter(|e| (e.status.phase == AnalysisPhase::Successful) == successful).collect();
        kept.sort_by_key(|e| (e.metadata.creation_timestamp.as_ref().map(|t| t.0), e.name().to_owned()));
        for experiment in kept.iter().take(kept.len().saturating_sub(limit)) {
            let uid = experiment.metadata.uid.clone().unwrap_or_default();
            pass.act(Stage::Clean, Action::DeleteExperiment { name: experiment.name().to_owned(), uid });
        }
    }
}
