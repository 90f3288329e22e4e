//! Rollout, AnalysisRun, Experiment, ApplicationSet, Workflow.

use super::{Health, condition, is_true, message};
use crate::object;
use serde_json::Value;
use tidegate_crds::keys::WORKLOAD_GENERATION;

/// Whether `observed`, a number in a text, is what `generation` is. A text that is no number belongs to controllers that
/// did not count generations; such a status cannot be told to be stale.
fn is_behind(generation: Option<i64>, observed: &str) -> bool {
    match (generation, observed.parse::<i64>()) {
        (Some(generation), Ok(observed)) => generation != observed,
        (Some(_), Err(_)) => observed.is_empty(),
        _ => false,
    }
}

pub(super) fn rollout(live: &Value) -> Health {
    let waiting = || Health::progressing("Waiting for rollout spec update to be observed");
    let observed = object::text(live, "/status/observedGeneration");
    if is_behind(object::integer(live, "/metadata/generation"), observed) {
        return waiting();
    }
    if let Some(workload) = object::annotation(live, WORKLOAD_GENERATION)
        && workload != object::text(live, "/status/workloadObservedGeneration")
    {
        return waiting();
    }
    let text = object::text(live, "/status/message");
    match object::text(live, "/status/phase") {
        "Healthy" => Health::healthy(text),
        "Degraded" => Health::degraded(text),
        "Progressing" => Health::progressing(text),
        "Paused" => Health::suspended(text),
        "" => Health::progressing("Waiting for rollout to report its phase"),
        other => Health::unknown(format!("status.phase: found {other:?}")),
    }
}

pub(super) fn analysis_run(live: &Value) -> Health {
    let text = object::text(live, "/status/message");
    let or = |default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    match object::text(live, "/status/phase") {
        "Pending" => Health::progressing("Analysis run is running"),
        "Running" => Health::progressing("Analysis run is running"),
        "Successful" => Health::healthy("Analysis run completed successfully"),
        "Failed" => Health::degraded(or("Analysis run failed")),
        "Error" => Health::degraded(or("Analysis run had an error")),
        "Inconclusive" => Health::unknown(or("Analysis run inconclusive")),
        _ => Health::progressing("Waiting for analysis run to finish: status has not been reconciled."),
    }
}

pub(super) fn experiment(live: &Value) -> Health {
    let text = object::text(live, "/status/message");
    let or = |default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    match object::text(live, "/status/phase") {
        "Pending" => Health::progressing("Experiment is pending"),
        "Running" => Health::progressing("Experiment is running"),
        "Successful" => Health::healthy("Experiment is successful"),
        "Failed" => Health::degraded(or("Experiment has failed")),
        "Error" => Health::degraded(or("Experiment had an error")),
        "Inconclusive" => Health::unknown(or("Experiment is inconclusive")),
        _ => Health::progressing("Waiting for experiment to finish: status has not been reconciled."),
    }
}

pub(super) fn application_set(live: &Value) -> Health {
    if let Some(failed) = condition(live, "ErrorOccurred").filter(|c| is_true(c)) {
        return Health::degraded(message(failed));
    }
    if let Some(progressing) = condition(live, "RolloutProgressing").filter(|c| is_true(c)) {
        return Health::progressing(message(progressing));
    }
    match condition(live, "ResourcesUpToDate").filter(|c| is_true(c)) {
        Some(done) => Health::healthy(message(done)),
        None => Health::progressing("Waiting for health status to be determined"),
    }
}

pub(super) fn workflow(live: &Value) -> Health {
    let text = object::text(live, "/status/message");
    match object::text(live, "/status/phase") {
        "" | "Pending" | "Running" => Health::progressing(text),
        "Succeeded" => Health::healthy(text),
        "Failed" | "Error" => Health::degraded(text),
        _ => Health::unknown(text),
    }
}
