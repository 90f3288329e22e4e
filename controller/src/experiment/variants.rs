//! The variants of an Experiment: their ReplicaSets and Services, and how each of them stands.

use super::decision::Action;
use super::pass::Pass;
use crate::events::Event;
use crate::rollout::{ReplicaSet, ReplicaSetChange, template};
use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tidegate_crds::analysis::AnalysisPhase;
use tidegate_crds::experiment::{ExperimentSpec, ExperimentTemplate, TemplateStatus};
use tidegate_crds::keys;

const PROGRESSING: &str = "Progressing";
const RUNNING: &str = "Running";
const SUCCESSFUL: &str = "Successful";
pub(super) const FAILED: &str = "Failed";
pub(super) const ERROR: &str = "Error";

/// Seconds that a variant has to become available when the Experiment does not say.
const DEFAULT_PROGRESS_DEADLINE: i32 = 600;
/// Seconds for which pods stay after the end when the Experiment does not say.
const DEFAULT_SCALE_DOWN_DELAY: i32 = 30;
/// Seconds after which a Service that is on its way out is looked at again.
const LEFTOVER_RECHECK_SECONDS: i64 = 2;

/// Seconds that a variant has to become available.
pub(super) fn progress_deadline(spec: &ExperimentSpec) -> i64 {
    spec.progress_deadline_seconds.unwrap_or(DEFAULT_PROGRESS_DEADLINE).into()
}

fn completed(status: &TemplateStatus) -> bool {
    matches!(status.status.as_deref(), Some(SUCCESSFUL | FAILED | ERROR))
}

/// Looks how every variant stands; until the end, makes what is missing.
pub(super) fn assess(pass: &mut Pass<'_>) {
    let statuses = pass.spec().templates.iter().map(|template| one(pass, template)).collect();
    pass.status.template_statuses = statuses;
}

fn one(pass: &mut Pass<'_>, template: &ExperimentTemplate) -> TemplateStatus {
    let known = pass.experiment().status.template_statuses.iter().find(|s| s.name == template.name);
    let before = known.cloned().unwrap_or_else(|| TemplateStatus { name: template.name.clone(), ..Default::default() });
    let mut status = before.clone();
    let collisions = pass.snapshot.findings.collisions.get(&template.name).copied().unwrap_or(0);
    if collisions > 0 {
        status.collision_count = Some(status.collision_count.unwrap_or(0) + collisions);
    }
    let rs = pass.snapshot.replica_set(&template.name);
    status.replicas = rs.map_or(0, |rs| rs.current);
    status.updated_replicas = status.replicas;
    status.ready_replicas = rs.map_or(0, |rs| rs.ready);
    status.available_replicas = rs.map_or(0, |rs| rs.available);
    if pass.has_ended() {
        return status;
    }
    let mut moved = count(&before) != count(&status);
    if let Some(why) = pass.snapshot.findings.refused.get(&template.name).filter(|_| !completed(&status)) {
        status.status = Some(ERROR.to_owned());
        status.message = Some(why.clone());
    } else if !completed(&status) {
        moved |= keep_up(pass, template, rs, &mut status);
        if moved || status.last_transition_time.is_none() {
            status.last_transition_time = Some(pass.time());
        }
        if status.status.as_deref() != Some(ERROR) {
            judge(pass, template, rs, &mut status);
        }
    }
    transition(pass, &before, &mut status);
    status
}

fn count(status: &TemplateStatus) -> [i32; 4] {
    [status.replicas, status.updated_replicas, status.ready_replicas, status.available_replicas]
}

/// Tells that the variant stands differently now.
fn transition(pass: &mut Pass<'_>, before: &TemplateStatus, status: &mut TemplateStatus) {
    if before.status == status.status {
        return;
    }
    status.last_transition_time = Some(pass.time());
    let (from, to) = (before.status.as_deref().unwrap_or_default(), status.status.as_deref().unwrap_or_default());
    let mut text = format!("Template '{}' transitioned from {from} -> {to}", status.name);
    if let Some(message) = status.message.as_deref().filter(|m| !m.is_empty()) {
        text = format!("{text}: {message}");
    }
    pass.because(text.clone());
    let reason = format!("Template{to}");
    pass.tell(if matches!(to, FAILED | ERROR) { Event::warning(&reason, text) } else { Event::normal(&reason, text) });
}

/// Where the variant stands, of [`PROGRESSING`], [`RUNNING`], [`SUCCESSFUL`] and [`FAILED`].
fn judge(pass: &mut Pass<'_>, template: &ExperimentTemplate, rs: Option<&ReplicaSet>, status: &mut TemplateStatus) {
    let desired = template.replicas.unwrap_or(1);
    let available = rs.is_some_and(|rs| !rs.deleting && rs.replicas == desired && rs.available >= desired);
    let over = pass.finishes_at().is_some_and(|at| at <= pass.now);
    let deadline = progress_deadline(pass.spec());
    let since = status.last_transition_time.as_ref().map_or(pass.now, |time| time.0);
    let late_at = since.checked_add(SignedDuration::from_secs(deadline)).unwrap_or(since);
    let next = if pass.spec().terminate || available && over {
        SUCCESSFUL
    } else if available {
        RUNNING
    } else if pass.now > late_at {
        let message = format!("Template '{}' exceeded its progressDeadlineSeconds ({deadline})", template.name);
        status.message = Some(message);
        FAILED
    } else {
        // The deadline has to be over, not only reached.
        pass.wake_at(late_at.checked_add(SignedDuration::from_millis(1)).unwrap_or(late_at));
        PROGRESSING
    };
    status.status = Some(next.to_owned());
}

/// Makes the ReplicaSet and the Service, scales the ReplicaSet. Gives whether the variant's deadline begins anew.
fn keep_up(
    pass: &mut Pass<'_>,
    template: &ExperimentTemplate,
    rs: Option<&ReplicaSet>,
    status: &mut TemplateStatus,
) -> bool {
    if pass.spec().terminate {
        return false;
    }
    let desired = template.replicas.unwrap_or(1);
    let (name, hash, moved) = match rs {
        None => {
            let (name, hash) = create(pass, template, status.collision_count.unwrap_or(0));
            (name, hash, true)
        }
        Some(rs) => {
            let mut change = ReplicaSetChange::default();
            if rs.replicas != desired && !rs.deleting {
                change.replicas = Some(desired);
                scaled(pass, rs, desired);
            }
            // It stands there from the end before a retry.
            if rs.annotations.contains_key(keys::SCALE_DOWN_DEADLINE) {
                change.annotations.insert(keys::SCALE_DOWN_DEADLINE.to_owned(), None);
            }
            let moved = change.replicas.is_some();
            if !rs.deleting {
                patch(pass, Some(&template.name), rs, change);
            }
            (rs.name.clone(), rs.hash().to_owned(), moved)
        }
    };
    status.pod_template_hash = Some(hash.clone());
    let pods = rs.map_or(&template.template, |rs| &rs.template);
    service(pass, template, &name, &hash, pods, status);
    moved
}

fn scaled(pass: &mut Pass<'_>, rs: &ReplicaSet, to: i32) {
    let direction = if rs.replicas < to { "up" } else { "down" };
    let text = format!("Scaled {direction} ReplicaSet {} from {} to {to}", rs.name, rs.replicas);
    pass.because(text.clone());
    pass.tell(Event::normal("ScalingReplicaSet", text));
}

fn patch(pass: &mut Pass<'_>, template: Option<&str>, rs: &ReplicaSet, change: ReplicaSetChange) {
    if !change.is_empty() {
        let template = template.map(str::to_owned);
        pass.act(Action::PatchReplicaSet { template, name: rs.name.clone(), change });
    }
}

/// Makes the ReplicaSet. Its hash is of the Experiment as well as of the pods: a Service that selects a Rollout's pods
/// must never reach those of an Experiment.
fn create(pass: &mut Pass<'_>, variant: &ExperimentTemplate, collisions: i32) -> (String, String) {
    let experiment = pass.experiment();
    let mut pods = variant.template.clone();
    if let Some(labels) = pods.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(keys::POD_TEMPLATE_HASH);
    }
    let identity = json!({"experiment": experiment.name(), "template": variant.name, "pods": pods});
    let hash = template::hash(&identity, Some(collisions));
    let mut name = format!("{}-{}", experiment.name(), variant.name);
    if collisions > 0 {
        name = format!("{name}-{collisions}");
    }
    let mut selector = serde_json::to_value(variant.selector.clone().unwrap_or_default()).unwrap_or_default();
    template::set(&mut selector, &["matchLabels", keys::POD_TEMPLATE_HASH], hash.as_str().into());
    let desired = variant.replicas.unwrap_or(1);
    let mut object = json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": name,
            "namespace": experiment.namespace(),
            "labels": labels(&pods, &hash),
            "annotations": {
                keys::EXPERIMENT_NAME: experiment.name(),
                keys::EXPERIMENT_TEMPLATE: variant.name,
            },
            "ownerReferences": pass.owner_reference(),
        },
        "spec": {"replicas": desired, "selector": selector, "template": template::with_hash(&pods, &hash)},
    });
    if let Some(seconds) = variant.min_ready_seconds.filter(|s| *s > 0) {
        object["spec"]["minReadySeconds"] = seconds.into();
    }
    let text = format!("Created ReplicaSet {name} with size {desired}");
    pass.because(text.clone());
    pass.tell(Event::normal("NewReplicaSetCreated", text));
    pass.act(Action::CreateReplicaSet { template: variant.name.clone(), name: name.clone(), object });
    (name, hash)
}

/// The labels of a variant's pods.
fn labels(pods: &Value, hash: &str) -> Value {
    let mut labels = pods.pointer("/metadata/labels").filter(|labels| labels.is_object()).cloned().unwrap_or(json!({}));
    labels[keys::POD_TEMPLATE_HASH] = hash.into();
    labels
}

/// Makes the variant's Service when it is asked for, and takes away one that is not asked for any more.
fn service(
    pass: &mut Pass<'_>,
    template: &ExperimentTemplate,
    rs_name: &str,
    hash: &str,
    pods: &Value,
    status: &mut TemplateStatus,
) {
    let ports = ports(pods);
    let wanted = template.service.as_ref().filter(|_| !ports.is_empty());
    let name = wanted.map(|s| s.name.as_deref().filter(|n| !n.is_empty()).unwrap_or(rs_name).to_owned());
    if status.service_name != name {
        remove_service(pass, status);
    }
    let Some(name) = name else { return };
    let Some(existing) = pass.snapshot.services.get(&name) else {
        let object = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": name, "namespace": pass.experiment().namespace(),
                "annotations": {
                    keys::EXPERIMENT_NAME: pass.experiment().name(), keys::EXPERIMENT_TEMPLATE: template.name,
                },
                "ownerReferences": pass.owner_reference(),
            },
            "spec": {"selector": labels(pods, hash), "ports": ports},
        });
        pass.because(format!("creates Service {name} for template '{}'", template.name));
        pass.act(Action::CreateService { template: template.name.clone(), name: name.clone(), object });
        status.service_name = Some(name);
        return;
    };
    if pass.snapshot.own_service(&name).is_some() {
        if existing.hash != hash {
            pass.act(Action::SelectService { name: name.clone(), hash: hash.to_owned() });
        }
        status.service_name = Some(name);
    } else if existing.owner.as_ref().is_some_and(|owner| owner.is_predecessor(pass.experiment())) {
        pass.wake_at(pass.after(LEFTOVER_RECHECK_SECONDS));
    } else {
        let owner = existing.owner.as_ref().map_or("nobody".to_owned(), |o| format!("{} {}", o.kind, o.name));
        status.status = Some(ERROR.to_owned());
        status.message = Some(format!(
            "Failed to create Service {name} for template '{}': there is one already, and it belongs to {owner}",
            template.name
        ));
    }
}

/// Takes away the Service that the status names, when it is the Experiment's.
fn remove_service(pass: &mut Pass<'_>, status: &mut TemplateStatus) {
    let Some(name) = status.service_name.take() else { return };
    if let Some(service) = pass.snapshot.own_service(&name) {
        let uid = service.uid.clone();
        pass.because(format!("deletes Service {name}: it is not needed any more"));
        pass.act(Action::DeleteService { name, uid });
    }
}

/// The ports of all containers, each once. A Service with several ports needs a name for each.
fn ports(pods: &Value) -> Vec<Value> {
    let containers = pods.pointer("/spec/containers").and_then(Value::as_array);
    let all: Vec<&Value> = containers
        .into_iter()
        .flatten()
        .filter_map(|c| c.get("ports").and_then(Value::as_array))
        .flatten()
        .filter(|port| port.get("containerPort").is_some_and(Value::is_i64))
        .collect();
    let (mut seen, mut names, mut ports) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for port in &all {
        let number = port.get("containerPort").and_then(Value::as_i64).unwrap_or_default();
        let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
        if !seen.insert((number, protocol)) {
            continue;
        }
        let mut entry = json!({"port": number, "targetPort": number, "protocol": protocol});
        let own = port.get("name").and_then(Value::as_str).filter(|name| !name.is_empty() && !names.contains(*name));
        let name = match own {
            Some(name) => name.to_owned(),
            None if all.len() > 1 => format!("{}-{number}", protocol.to_ascii_lowercase()),
            None => String::new(),
        };
        if !name.is_empty() {
            entry["name"] = name.as_str().into();
        }
        names.insert(name);
        ports.push(entry);
    }
    ports
}

/// The worst of all variants as the phase that it gives the experiment, and why.
pub(super) fn worst(pass: &Pass<'_>) -> (AnalysisPhase, Option<String>) {
    let mut worst = (0, AnalysisPhase::Successful, None);
    for status in &pass.status.template_statuses {
        let (rank, phase) = match status.status.as_deref() {
            Some(SUCCESSFUL) => (0, AnalysisPhase::Successful),
            Some(RUNNING) => (1, AnalysisPhase::Running),
            Some(ERROR) => (3, AnalysisPhase::Error),
            Some(FAILED) => (4, AnalysisPhase::Failed),
            _ => (2, AnalysisPhase::Pending),
        };
        if rank > worst.0 {
            worst = (rank, phase, status.message.clone());
        }
    }
    (worst.1, worst.2)
}

/// The experiment ends, and with it every variant that has not ended before.
pub(super) fn close(pass: &mut Pass<'_>) {
    let mut statuses = std::mem::take(&mut pass.status.template_statuses);
    for status in statuses.iter_mut().filter(|status| !completed(status)) {
        let before = status.clone();
        status.status = Some(SUCCESSFUL.to_owned());
        transition(pass, &before, status);
    }
    pass.status.template_statuses = statuses;
}

/// After the end, takes away the pods in their time, and Services behind which there are none.
pub(super) fn take_down(pass: &mut Pass<'_>) {
    for rs in &pass.snapshot.replica_sets {
        scale_down(pass, rs);
    }
    let mut statuses = std::mem::take(&mut pass.status.template_statuses);
    for status in &mut statuses {
        let rs = pass.snapshot.replica_set(&status.name);
        if rs.is_none_or(|rs| rs.replicas == 0 && rs.available == 0) {
            remove_service(pass, status);
        }
    }
    pass.status.template_statuses = statuses;
}

/// Takes away the pods of variants that are not in the Experiment any more.
pub(super) fn drop_strangers(pass: &mut Pass<'_>) {
    for rs in &pass.snapshot.replica_sets {
        let template = rs.annotations.get(keys::EXPERIMENT_TEMPLATE);
        if !pass.spec().templates.iter().any(|t| Some(&t.name) == template) {
            scale_down(pass, rs);
        }
    }
}

fn scale_down(pass: &mut Pass<'_>, rs: &ReplicaSet) {
    if rs.replicas == 0 || rs.deleting {
        return;
    }
    let delay = pass.spec().scale_down_delay_seconds.unwrap_or(DEFAULT_SCALE_DOWN_DELAY);
    let mut change = ReplicaSetChange::default();
    match rs.deadline() {
        _ if delay <= 0 => change.replicas = Some(0),
        Some(at) if at > pass.now => pass.wake_at(at),
        Some(_) => change.replicas = Some(0),
        None => {
            let at = crate::api::whole_seconds(pass.after(delay.into()));
            change.annotations.insert(keys::SCALE_DOWN_DEADLINE.to_owned(), Some(at.to_string()));
            pass.wake_at(at);
        }
    }
    if change.replicas.is_some() {
        scaled(pass, rs, 0);
    }
    patch(pass, None, rs, change);
}
