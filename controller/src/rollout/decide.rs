//! The decision about one Rollout: pure, and the same in the controller, the tests and the simulator.
//!
//! A pass identifies the ReplicaSets, lets the strategy act, and closes with what the status tells. It follows what is,
//! never which event came: called twice on the same snapshot it decides the same.

use super::decision::{Action, Decision, Stage};
use super::pass::Pass;
use super::snapshot::Snapshot;
use super::{blue_green, canary, conditions, metadata, restart, revisions, template, validate, workload};
use crate::events::Event;
use k8s_openapi::jiff::Timestamp;
use tidegate_crds::rollout::RolloutDuration;

/// Seconds after which an invalid Rollout is looked at again: a Service that it names may have come.
const INVALID_RECHECK_SECONDS: i64 = 20;

/// What is to be done about the Rollout of `snapshot` at `now`.
pub fn decide(snapshot: &Snapshot, now: Timestamp) -> Decision {
    let mut pass = Pass::new(snapshot, now);
    let rollout = &snapshot.rollout;
    if rollout.metadata.deletion_timestamp.is_some() {
        return pass.finish();
    }
    if rollout.spec.replicas.is_none() {
        // Autoscalers read the spec, so the default has to stand there. The write brings the next pass.
        pass.act(Stage::Prepare, Action::DefaultReplicas);
        return pass.finish();
    }
    if let Some(problem) = problem(snapshot) {
        conditions::invalid(&mut pass, &problem);
        pass.wake_after(INVALID_RECHECK_SECONDS);
        return pass.finish();
    }
    conditions::valid(&mut pass);

    revisions::adopt(&mut pass);
    revisions::identify(&mut pass);
    start_over_if_changed(&mut pass);
    revisions::ensure_new(&mut pass);
    abort_or_retry(&mut pass);
    conditions::started(&mut pass);
    conditions::pauses(&mut pass);
    match (&rollout.spec.strategy.canary, &rollout.spec.strategy.blue_green) {
        (Some(canary), None) => canary::run(&mut pass, canary),
        (None, Some(blue_green)) => blue_green::run(&mut pass, blue_green),
        // Validation has refused everything else.
        _ => {}
    }
    if pass.overruled && pass.resumed() {
        // Nothing else was waiting for the promotion.
        pass.status.controller_pause = false;
    }
    // After the strategy: pods that it is about to add are missing already.
    restart::run(&mut pass);
    // After the strategy: a version that becomes stable in this pass is labelled so before the status says it.
    metadata::run(&mut pass);
    workload::run(&mut pass);
    revisions::clean_up(&mut pass);
    conditions::close(&mut pass);
    pass.finish()
}

/// The first thing that is wrong with the Rollout, in the words of its InvalidSpec condition.
fn problem(snapshot: &Snapshot) -> Option<String> {
    let rollout = &snapshot.rollout;
    if let Some(reference) = &rollout.spec.workload_ref
        && snapshot.workload.is_none()
    {
        let known = matches!(reference.kind.as_str(), "Deployment" | "ReplicaSet" | "PodTemplate");
        let expected = if known { "an existing object" } else { "a Deployment, ReplicaSet or PodTemplate" };
        return Some(format!(
            "spec.workloadRef: Not found: {} {}/{}: expected {expected}",
            reference.kind,
            rollout.namespace(),
            reference.name
        ));
    }
    validate::first(snapshot).map(|p| p.to_string())
}

/// A new pod template or other steps end what was under way.
fn start_over_if_changed(pass: &mut Pass<'_>) {
    let rollout = pass.rollout();
    let canary = rollout.spec.strategy.canary.as_ref();
    let step_hash = canary.map(|c| template::hash(&serde_json::to_value(&c.steps).unwrap_or_default(), None));
    let generation = rollout.metadata.generation.unwrap_or(0).to_string();
    let seen = pass.status.observed_generation.as_deref() == Some(generation.as_str());
    let old_hash = pass.status.current_pod_hash.clone();
    let template_changed = old_hash.as_ref().is_some_and(|h| *h != pass.hash);
    // The hash of another controller's making: with the generation that it has seen, the steps are the same.
    let steps_changed = !seen && old_hash.is_some() && pass.status.current_step_hash != step_hash;
    pass.status.current_pod_hash = Some(pass.hash.clone());
    pass.status.current_step_hash = step_hash;
    let steps = canary.map(|c| super::replicas::steps(c).len());
    if old_hash.is_none() {
        pass.status.current_step_index = steps.filter(|n| *n > 0).map(|_| 0);
        start_clock(pass);
    }
    if !(template_changed || steps_changed) {
        return;
    }
    pass.reset = true;
    if template_changed {
        close_clock(pass);
        start_clock(pass);
    }
    pass.clear_pauses();
    pass.status.abort = false;
    pass.status.aborted_at = None;
    pass.status.promote_full = false;
    pass.status.canary.current_step_analysis_run_status = None;
    pass.status.canary.current_background_analysis_run_status = None;
    pass.status.canary.current_experiment = None;
    pass.status.canary.step_plugin_statuses.clear();
    pass.status.blue_green.pre_promotion_analysis_run_status = None;
    pass.status.blue_green.post_promotion_analysis_run_status = None;
    pass.status.blue_green.scale_up_preview_check_point = false;
    if template_changed {
        pass.status.restarted_at = rollout.spec.restart_at.clone();
    }
    let Some(steps) = steps else { return };
    let mut index = 0;
    if pass.promoted() {
        index = steps;
        if template_changed && steps > 0 {
            pass.tell(Event::normal("SkipSteps", "Rollback to stable ReplicaSets"));
        }
    } else if template_changed && revisions::in_rollback_window(pass) {
        index = steps;
        if steps > 0 {
            pass.tell(Event::normal("SkipSteps", "Rollback to active ReplicaSets within RollbackWindow"));
        }
    }
    pass.status.current_step_index = (steps > 0).then_some(index as i32);
    pass.because(if template_changed { "the pod template changed" } else { "the steps changed" });
}

/// Notes when an abort began, and when it was taken back.
fn abort_or_retry(pass: &mut Pass<'_>) {
    if pass.status.promote_full && pass.status.abort && pass.status.aborted_at.is_some() {
        // The promotion was asked for after the abort, and so takes it back; an abort during a promotion ends that.
        pass.status.abort = false;
        pass.because("somebody promotes after the abort");
    }
    if pass.status.promote_full && !pass.promoted() {
        pass.clear_pauses();
    }
    if pass.status.abort && pass.promoted() {
        // There is nothing to take back.
        pass.status.abort = false;
    }
    if pass.status.abort && pass.status.aborted_at.is_none() {
        pass.aborting = Some(conditions::missed_deadline(pass).unwrap_or_default());
    }
    if !pass.status.abort && pass.status.aborted_at.is_some() {
        pass.retried = true;
        pass.status.aborted_at = None;
        pass.status.canary.current_step_analysis_run_status = None;
        pass.status.canary.current_background_analysis_run_status = None;
        pass.status.canary.current_experiment = None;
        pass.status.blue_green.pre_promotion_analysis_run_status = None;
        pass.status.blue_green.post_promotion_analysis_run_status = None;
        start_clock(pass);
        pass.because("somebody retries after the abort");
    }
}

fn start_clock(pass: &mut Pass<'_>) {
    pass.status.duration =
        Some(RolloutDuration { rollout_started_at: Some(pass.time()), ..RolloutDuration::default() });
}

/// An update that another one overtakes.
fn close_clock(pass: &mut Pass<'_>) {
    let time = pass.time();
    if let Some(duration) = pass.status.duration.as_mut().filter(|d| d.finished_at.is_none()) {
        duration.finished_at = Some(time);
        duration.completion_status = Some("Superseded".to_owned());
    }
}

#[cfg(test)]
mod tests;
