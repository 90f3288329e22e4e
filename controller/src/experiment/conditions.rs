//! Conditions of an Experiment.

use super::pass::Pass;
use super::variants;
use crate::events::Event;
use k8s_openapi::jiff::Timestamp;
use tidegate_crds::analysis::AnalysisPhase;
use tidegate_crds::rollout::Condition;

const INVALID: &str = "InvalidSpec";

/// Something is wrong with the Experiment; told once for each text.
pub(super) fn invalid(pass: &mut Pass<'_>, text: &str) {
    let known = pass.status.conditions.iter().any(|c| c.type_ == INVALID && c.message == text);
    if !known {
        pass.tell(Event::warning(INVALID, text));
        pass.because(format!("waits: {text}"));
        set(pass, INVALID, true, INVALID, text);
    }
}

/// Since when something is wrong.
pub(super) fn invalid_since(pass: &Pass<'_>) -> Option<Timestamp> {
    let condition = pass.status.conditions.iter().find(|c| c.type_ == INVALID)?;
    condition.last_transition_time.as_ref().map(|time| time.0)
}

/// Nothing is wrong any more.
pub(super) fn valid(pass: &mut Pass<'_>) {
    pass.status.conditions.retain(|c| c.type_ != INVALID);
}

/// How far the Experiment is.
pub(super) fn progress(pass: &mut Pass<'_>) {
    let name = pass.experiment().name();
    let late = pass.status.template_statuses.iter().any(|t| t.status.as_deref() == Some(variants::FAILED));
    let phase = pass.status.phase;
    let (progresses, reason, message) = match phase {
        AnalysisPhase::Unset | AnalysisPhase::Pending => {
            (true, "ReplicaSetUpdated", format!("Experiment {name:?} is progressing."))
        }
        AnalysisPhase::Running => (true, "NewReplicaSetAvailable", format!("Experiment {name:?} is running.")),
        AnalysisPhase::Successful => {
            (false, "ExperimentCompleted", format!("Experiment {name:?} has successfully ran and completed."))
        }
        AnalysisPhase::Failed if late => {
            (false, "ProgressDeadlineExceeded", format!("Experiment {name:?} has timed out progressing."))
        }
        bad => {
            let why = pass.status.message.as_deref().unwrap_or_default();
            (false, "ExperimentCompleted", format!("Experiment {name:?} ended {}: {why}", bad.as_str()))
        }
    };
    set(pass, "Progressing", progresses, reason, &message);
    let runs = phase == AnalysisPhase::Running;
    if runs || pass.status.conditions.iter().any(|c| c.type_ == "Running") {
        set(pass, "Running", runs, reason, &message);
    }
    if phase.completed() {
        set(pass, "Completed", true, reason, &message);
    }
    let refused = pass.status.template_statuses.iter().find(|t| t.status.as_deref() == Some(variants::ERROR));
    if let Some(text) = refused.and_then(|t| t.message.clone()) {
        set(pass, "ReplicaFailure", true, "FailedCreate", &text);
    }
}

fn set(pass: &mut Pass<'_>, type_: &str, holds: bool, reason: &str, message: &str) {
    let now = pass.time();
    let status = if holds { "True" } else { "False" };
    let mut next = Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now),
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    let conditions = &mut pass.status.conditions;
    match conditions.iter_mut().find(|c| c.type_ == type_) {
        Some(before) if before.status == status && before.reason == reason && before.message == message => {}
        Some(before) => {
            if before.status == status && before.last_transition_time.is_some() {
                next.last_transition_time = before.last_transition_time.take();
            }
            *before = next;
        }
        None => conditions.push(next),
    }
}
