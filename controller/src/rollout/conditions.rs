//! What the status tells: conditions, counts, phase and message. Other people's tools match on every word.

use super::pass::{Pass, later};
use super::snapshot::ReplicaSet;
use crate::events::Event;
use tidegate_crds::keys;
use tidegate_crds::rollout::{Condition, RolloutStatus};

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const PAUSED: &str = "Paused";
const COMPLETED: &str = "Completed";
const HEALTHY: &str = "Healthy";
const INVALID_SPEC: &str = "InvalidSpec";
const REPLICA_FAILURE: &str = "ReplicaFailure";

const ABORTED: &str = "RolloutAborted";
const DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";
/// Reason of Progressing while pods come and go.
pub(crate) const MOVING: &str = "ReplicaSetUpdated";
const DONE: &str = "NewReplicaSetAvailable";

/// The condition of this type.
pub fn condition<'a>(status: &'a RolloutStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|c| c.type_ == type_)
}

fn is(status: &RolloutStatus, type_: &str, value: &str) -> bool {
    condition(status, type_).is_some_and(|c| c.status == value)
}

fn reason_is(status: &RolloutStatus, reason: &str) -> bool {
    condition(status, PROGRESSING).is_some_and(|c| c.reason == reason)
}

/// Sets a condition. Nothing happens when status and reason are as they were, unless `again`.
fn set(pass: &mut Pass<'_>, type_: &str, status: &str, reason: &str, message: &str, again: bool) {
    let time = pass.time();
    let old = condition(&pass.status, type_).cloned();
    if let Some(old) = &old
        && old.status == status
        && old.reason == reason
        && !again
    {
        return;
    }
    let transition = old.filter(|o| o.status == status).and_then(|o| o.last_transition_time);
    let condition = Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        last_update_time: Some(time.clone()),
        last_transition_time: Some(transition.unwrap_or(time)),
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    match pass.status.conditions.iter_mut().find(|c| c.type_ == type_) {
        Some(place) => *place = condition,
        None => pass.status.conditions.push(condition),
    }
}

fn remove(pass: &mut Pass<'_>, type_: &str) {
    pass.status.conditions.retain(|c| c.type_ != type_);
}

/// The Rollout cannot be worked on.
pub(crate) fn invalid(pass: &mut Pass<'_>, problem: &str) {
    let message = format!("The Rollout {:?} is invalid: {problem}", pass.rollout().name());
    let changed = condition(&pass.status, INVALID_SPEC).is_none_or(|c| c.message != message);
    if changed {
        pass.tell(Event::warning(INVALID_SPEC, message.clone()));
        pass.because(message.clone());
    }
    set(pass, INVALID_SPEC, "True", INVALID_SPEC, &message, changed);
    observed(pass);
    phase(pass);
}

/// Nothing is wrong (any more).
pub(crate) fn valid(pass: &mut Pass<'_>) {
    remove(pass, INVALID_SPEC);
}

fn observed(pass: &mut Pass<'_>) {
    pass.status.observed_generation = Some(pass.rollout().metadata.generation.unwrap_or(0).to_string());
}

/// The Rollout was Healthy at some time.
pub(crate) fn ever_healthy(status: &RolloutStatus) -> bool {
    condition(status, HEALTHY).is_some()
}

/// An update begins: tells it before anything is scaled.
pub(crate) fn started(pass: &mut Pass<'_>) {
    let name = pass.new_name.clone();
    match pass.new_rs() {
        None => {
            set(pass, PROGRESSING, "True", "NewReplicaSetCreated", &format!("Created new replica set {name:?}"), true)
        }
        Some(_) if pass.reset => {
            set(pass, PROGRESSING, "True", "FoundNewReplicaSet", &format!("Found new replica set {name:?}"), true);
        }
        Some(_) => {}
    }
    // Blue-green has nothing to complete before its first version.
    let nothing = pass.stable_hash().is_empty() && pass.rollout().spec.strategy.blue_green.is_some();
    if !pass.promoted() && !nothing && !is(&pass.status, COMPLETED, "False") {
        let (revision, hash) = (pass.revision, pass.hash.clone());
        set(pass, COMPLETED, "False", "RolloutCompleted", "RolloutCompleted", true);
        pass.tell(Event::normal(
            "RolloutNotCompleted",
            format!("Rollout not completed, started update to revision {revision} ({hash})"),
        ));
    }
}

/// Notes in the Progressing condition that an update paused, goes on, or is tried again.
pub(crate) fn pauses(pass: &mut Pass<'_>) {
    let paused = pass.rollout().spec.paused || pass.pause_is_on();
    if pass.retried {
        set(pass, PROGRESSING, "Unknown", "RolloutRetry", "Retrying Rollout after abort", true);
    } else if !paused && reason_is(&pass.status, "RolloutPaused") {
        set(pass, PROGRESSING, "Unknown", "RolloutResumed", "Rollout is resumed", true);
    }
}

/// The new version is the stable one from now on.
pub(crate) fn promoted(pass: &mut Pass<'_>, reason: &str) {
    let (revision, hash, time) = (pass.revision, pass.hash.clone(), pass.time());
    if let Some(rs) = pass.new_rs().filter(|rs| rs.annotations.contains_key(keys::ABORTED)) {
        pass.annotate_rs(rs, keys::ABORTED, None);
    }
    pass.status.stable_rs = Some(hash.clone());
    pass.status.promote_full = false;
    pass.status.abort = false;
    pass.status.aborted_at = None;
    pass.status.controller_pause = false;
    pass.status.pause_conditions = None;
    pass.tell(Event::normal(
        "RolloutCompleted",
        format!("Rollout completed update to revision {revision} ({hash}): {reason}"),
    ));
    pass.because(format!("revision {revision} is stable now: {reason}"));
    set(pass, COMPLETED, "True", "RolloutCompleted", "RolloutCompleted", true);
    if let Some(duration) = &mut pass.status.duration {
        duration.finished_at = Some(time);
        duration.manual_pause_started_at = None;
        duration.completion_status = Some(
            match reason {
                "Full promotion requested" => "FastPromoted",
                "Fast rollback" | "Rollback within window" => "FastRolledBack",
                _ => "Promoted",
            }
            .to_owned(),
        );
    }
}

/// Closes the pass: everything that the status tells about what is and what was decided.
pub(crate) fn close(pass: &mut Pass<'_>) {
    counts(pass);
    aborted(pass);
    availability(pass);
    let paused = pass.rollout().spec.paused || pass.pause_is_on();
    let healthy = is_healthy(pass);
    if !pass.status.abort || pass.promoted() {
        let value = if paused { "True" } else { "False" };
        if paused || condition(&pass.status, PAUSED).is_some() {
            set(pass, PAUSED, value, "RolloutPaused", "Rollout is paused", false);
        }
        progress(pass, paused, healthy);
    }
    if pass.promoted() {
        set(pass, COMPLETED, "True", "RolloutCompleted", "RolloutCompleted", false);
    }
    if healthy && !paused {
        set(pass, HEALTHY, "True", "RolloutHealthy", "Rollout is healthy", false);
    } else if condition(&pass.status, HEALTHY).is_some() {
        set(pass, HEALTHY, "False", "RolloutHealthy", "Rollout is not healthy", false);
    }
    failure(pass);
    clock(pass);
    observed(pass);
    phase(pass);
}

/// Pods that cannot be created (a quota, an admission webhook): what the ReplicaSet's controller says of the newest
/// version, or of any other.
fn failure(pass: &mut Pass<'_>) {
    let new = pass.new_rs().and_then(|rs| rs.failure.clone());
    let Some((reason, message)) = new.or_else(|| pass.owned().find_map(|rs| rs.failure.clone())) else {
        remove(pass, REPLICA_FAILURE);
        return;
    };
    let told = condition(&pass.status, REPLICA_FAILURE).is_some_and(|c| c.message == message);
    if !told {
        pass.because(format!("pods cannot be created: {message}"));
    }
    set(pass, REPLICA_FAILURE, "True", &reason, &message, !told);
}

/// Counts and selector.
fn counts(pass: &mut Pass<'_>) {
    let sum = |of: fn(&ReplicaSet) -> i32| pass.owned().map(of).sum::<i32>();
    let (replicas, ready, available) = (sum(|rs| rs.current), sum(|rs| rs.ready), sum(|rs| rs.available));
    let updated = pass.new_rs().map_or(0, |rs| rs.current);
    let selector = selector_text(pass.rollout().spec.selector.as_ref());
    let blue_green = pass.rollout().spec.strategy.blue_green.is_some();
    let active = pass.status.blue_green.active_selector.clone().filter(|_| blue_green);
    let active_rs = active.as_deref().and_then(|hash| pass.rs_by_hash(hash));
    let status = &mut pass.status;
    status.replicas = Some(replicas);
    status.updated_replicas = Some(updated);
    if blue_green {
        let of_active = |of: fn(&ReplicaSet) -> i32| active_rs.map_or(0, of);
        status.ready_replicas = Some(of_active(|rs| rs.ready));
        status.available_replicas = Some(of_active(|rs| rs.available));
        status.hpa_replicas = Some(of_active(|rs| rs.current));
        status.selector = Some(match active {
            Some(hash) => format!("{selector},{}={hash}", keys::POD_TEMPLATE_HASH),
            None => selector,
        });
    } else {
        status.ready_replicas = Some(ready);
        status.available_replicas = Some(available);
        status.hpa_replicas = Some(replicas);
        status.selector = Some(selector);
    }
}

/// A selector in the form of the command line.
pub(crate) fn selector_text(selector: Option<&tidegate_crds::LabelSelector>) -> String {
    let Some(selector) = selector else { return String::new() };
    let mut parts: Vec<String> =
        selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    for expression in selector.match_expressions.iter().flatten() {
        let values = expression.values.clone().unwrap_or_default().join(",");
        parts.push(match expression.operator.as_str() {
            "In" => format!("{} in ({values})", expression.key),
            "NotIn" => format!("{} notin ({values})", expression.key),
            "DoesNotExist" => format!("!{}", expression.key),
            _ => expression.key.clone(),
        });
    }
    parts.join(",")
}

/// Notes a new abort.
fn aborted(pass: &mut Pass<'_>) {
    let Some(reason) = pass.aborting.take().filter(|_| pass.status.aborted_at.is_none()) else { return };
    let revision = pass.revision;
    let mut message = format!("Rollout aborted update to revision {revision}");
    if !reason.is_empty() {
        message = format!("{message}: {reason}");
    }
    pass.status.aborted_at = Some(pass.time());
    pass.status.promote_full = false;
    let steps = pass.status.current_step_index.is_some();
    pass.status.current_step_index = steps.then_some(0);
    pass.clear_pauses();
    set(pass, PROGRESSING, "False", ABORTED, &message, true);
    pass.tell(Event::warning(ABORTED, message.clone()));
    pass.because(message);
    // The next pass takes the traffic and the pods back.
    pass.wake_at(pass.now);
    let time = pass.time();
    if let Some(duration) = &mut pass.status.duration {
        duration.finished_at = Some(time);
        duration.completion_status = Some("Aborted".to_owned());
    }
}

fn availability(pass: &mut Pass<'_>) {
    let total = pass.replicas();
    let available = if pass.rollout().spec.strategy.blue_green.is_some() {
        let active = pass.status.blue_green.active_selector.clone().unwrap_or_default();
        pass.rs_by_hash(&active).map_or(0, |rs| rs.available)
    } else {
        pass.owned().map(|rs| rs.available).sum()
    };
    if available >= total {
        set(pass, AVAILABLE, "True", "AvailableReason", "Rollout has minimum availability", false);
    } else {
        set(pass, AVAILABLE, "False", "AvailableReason", "Rollout does not have minimum availability", false);
    }
}

/// The Progressing condition, and the deadline behind it.
fn progress(pass: &mut Pass<'_>, paused: bool, healthy: bool) {
    let name = pass.new_name.clone();
    if paused && !pass.promoted() {
        set(pass, PROGRESSING, "Unknown", "RolloutPaused", "Rollout is paused", false);
        return;
    }
    if healthy {
        set(pass, PROGRESSING, "True", DONE, &format!("ReplicaSet {name:?} has successfully progressed."), false);
        return;
    }
    let before = &pass.rollout().status;
    let moved = pass.scaled
        || pass.status.updated_replicas > before.updated_replicas
        || pass.status.ready_replicas > before.ready_replicas
        || pass.status.available_replicas > before.available_replicas
        || pass.status.current_step_index != before.current_step_index
        || pass.status.stable_rs != before.stable_rs
        || pass.status.canary.weights.as_ref().map(|w| w.canary.weight)
            != before.canary.weights.as_ref().map(|w| w.canary.weight);
    let done_before = reason_is(&pass.status, DONE);
    let new_replica_set = pass.new_rs().is_none();
    if moved && !new_replica_set {
        set(pass, PROGRESSING, "True", MOVING, &format!("ReplicaSet {name:?} is progressing."), true);
        return;
    }
    if done_before && pass.promoted() {
        // Complete, but pods went away: not the update's doing, so the deadline has no say.
        set(pass, PROGRESSING, "True", "ReplicaSetNotAvailable", "Rollout does not have minimum availability", false);
        return;
    }
    if reason_is(&pass.status, DEADLINE_EXCEEDED) {
        // Also when the abort was asked for after the deadline.
        abort_late(pass);
        return;
    }
    if reason_is(&pass.status, "ReplicaSetNotAvailable") {
        return;
    }
    deadline(pass);
}

fn deadline(pass: &mut Pass<'_>) {
    let rollout = pass.rollout();
    let waits_for_others = rollout.spec.paused
        || rollout.spec.strategy.canary.as_ref().is_some_and(|canary| {
            let index = usize::try_from(pass.status.current_step_index.unwrap_or(0)).unwrap_or(0);
            super::replicas::steps(canary)
                .get(index)
                .is_some_and(|s| s.pause.is_some() || s.analysis.is_some() || s.experiment.is_some())
        })
        || pass.status.blue_green.pre_promotion_analysis_run_status.as_ref().is_some_and(|r| !r.status.completed())
        || pass.status.blue_green.post_promotion_analysis_run_status.as_ref().is_some_and(|r| !r.status.completed())
        || (pass.promoted() && pass.others().iter().any(|rs| rs.deadline().is_some() && rs.replicas > 0));
    let seconds = i64::from(rollout.spec.progress_deadline_seconds.unwrap_or(600));
    let since = condition(&pass.status, PROGRESSING).and_then(|c| c.last_update_time.clone());
    let (Some(since), false) = (since, waits_for_others) else { return };
    let end = later(since.0, seconds);
    if end > pass.now {
        pass.wake_at(later(end, 1));
        return;
    }
    let name = pass.new_name.clone();
    let message = format!("ReplicaSet {name:?} has timed out progressing.");
    set(pass, PROGRESSING, "False", DEADLINE_EXCEEDED, &message, false);
    pass.because(message);
    abort_late(pass);
}

/// How the update missed its deadline, where the user wants it taken back for that.
pub(crate) fn missed_deadline(pass: &Pass<'_>) -> Option<String> {
    let progressing = condition(&pass.status, PROGRESSING).filter(|c| c.reason == DEADLINE_EXCEEDED)?;
    pass.rollout().spec.progress_deadline_abort.then(|| progressing.message.clone())
}

/// Takes an update back that missed its deadline, where the user wants that.
fn abort_late(pass: &mut Pass<'_>) {
    if pass.rollout().spec.progress_deadline_abort && !pass.promoted() && !pass.stable_hash().is_empty() {
        pass.status.abort = true;
        pass.wake_at(pass.now);
    }
}

/// The update is complete and all pods are there.
fn is_healthy(pass: &Pass<'_>) -> bool {
    let total = pass.replicas();
    let Some(new) = pass.new_rs() else { return false };
    // Old versions that go away afterwards take nothing from it.
    let resting = pass.size(new) == new.replicas;
    let complete = pass.promoted() && new.replicas == total && new.available >= total && resting;
    let strategy = &pass.rollout().spec.strategy;
    if let Some(canary) = &strategy.canary {
        let drained =
            canary.traffic_routing.is_some() || pass.others().iter().all(|rs| rs.replicas == 0 && rs.current == 0);
        return complete && drained;
    }
    complete && pass.status.blue_green.active_selector.as_deref() == Some(pass.hash.as_str())
}

/// How long somebody has been waited for.
fn clock(pass: &mut Pass<'_>) {
    let waits = pass.rollout().spec.paused
        || (pass.pause_is_on() && {
            let canary = pass.rollout().spec.strategy.canary.as_ref();
            let index = usize::try_from(pass.status.current_step_index.unwrap_or(0)).unwrap_or(0);
            let step = canary.and_then(|c| super::replicas::steps(c).get(index));
            step.and_then(|s| s.pause.as_ref()).is_none_or(|p| p.duration.is_none())
        });
    let time = pass.time();
    let Some(duration) = pass.status.duration.as_mut().filter(|d| d.finished_at.is_none()) else { return };
    match (waits, duration.manual_pause_started_at.take()) {
        (true, start) => duration.manual_pause_started_at = Some(start.unwrap_or(time)),
        (false, Some(start)) => {
            let waited = time.0.as_second() - start.0.as_second();
            duration.total_manual_pause_duration_seconds =
                Some(duration.total_manual_pause_duration_seconds.unwrap_or(0) + waited.max(0));
        }
        (false, None) => {}
    }
}

/// Phase and message: the first that fits.
fn phase(pass: &mut Pass<'_>) {
    let (phase, message) = phase_of(pass);
    pass.status.phase = Some(phase.to_owned());
    pass.status.message = (!message.is_empty()).then_some(message);
}

fn phase_of(pass: &Pass<'_>) -> (&'static str, String) {
    let status = &pass.status;
    if let Some(invalid) = condition(status, INVALID_SPEC) {
        return ("Degraded", format!("InvalidSpec: {}", invalid.message));
    }
    if let Some(bad) = status.conditions.iter().find(|c| c.reason == ABORTED || c.reason == DEADLINE_EXCEEDED) {
        return ("Degraded", format!("{}: {}", bad.reason, bad.message));
    }
    if pass.rollout().spec.paused {
        return ("Paused", "manually paused".to_owned());
    }
    if let Some(pause) = status.pause_conditions.iter().flatten().next() {
        return ("Paused", pause.reason.clone());
    }
    let progressing = |message: &str| ("Progressing", message.to_owned());
    if super::restart::pending(status, &pass.rollout().spec)
        && pass.rollout().spec.restart_at.as_ref().is_some_and(|at| at.0 <= pass.now)
    {
        return progressing("rollout is restarting");
    }
    let updated = status.updated_replicas.unwrap_or(0);
    if updated < pass.replicas() {
        return progressing("more replicas need to be updated");
    }
    if status.available_replicas.unwrap_or(0) < updated {
        return progressing("updated replicas are still becoming available");
    }
    if let Some(blue_green) = &pass.rollout().spec.strategy.blue_green {
        if status.blue_green.active_selector.as_deref() != Some(pass.hash.as_str()) {
            return progressing("active service cutover pending");
        }
        if !pass.promoted() {
            let run = status.blue_green.post_promotion_analysis_run_status.as_ref();
            let judged = blue_green.post_promotion_analysis.is_none() || run.is_some_and(|r| r.status.completed());
            return progressing(if judged {
                "waiting for post-promotion verification to complete"
            } else {
                "waiting for analysis to complete"
            });
        }
    } else {
        let routed = pass.rollout().spec.strategy.canary.as_ref().is_some_and(|c| c.traffic_routing.is_some());
        if !routed && status.replicas.unwrap_or(0) > updated {
            return progressing("old replicas are pending termination");
        }
        if !pass.promoted() {
            return progressing("waiting for all steps to complete");
        }
    }
    ("Healthy", String::new())
}

impl Pass<'_> {
    /// The controller paused for a reason that stands.
    pub(crate) fn pause_is_on(&self) -> bool {
        self.status.pause_conditions.as_ref().is_some_and(|p| !p.is_empty())
    }
}
