//! How a Rollout stands, as a client sees it: what the controller stored, unless the controller has yet to look.

use tidegate_crds::keys;
use tidegate_crds::rollout::Rollout;

/// Phase and message. The stored ones, or `Progressing` while the controller has not seen the newest spec.
pub fn of(ro: &Rollout) -> (String, String) {
    let progressing = |message: &str| ("Progressing".to_owned(), message.to_owned());
    if !generation_observed(ro) {
        return progressing("waiting for rollout spec update to be observed");
    }
    if ro.spec.workload_ref.is_some() && !workload_observed(ro) {
        return progressing("waiting for rollout spec update to be observed for the reference workload");
    }
    let status = &ro.status;
    let stored = status.phase.as_deref().unwrap_or_default();
    let pauses = status.pause_conditions.as_deref().unwrap_or_default();
    if stored == "Paused" && !ro.spec.paused && pauses.is_empty() && status.controller_pause {
        return progressing("waiting for rollout to unpause");
    }
    if !stored.is_empty() {
        return (stored.to_owned(), status.message.clone().unwrap_or_default());
    }
    derived(ro)
}

/// The phase of a Rollout whose controller stores none (the peer before 1.0).
fn derived(ro: &Rollout) -> (String, String) {
    let status = &ro.status;
    let text = |phase: &str, message: String| (phase.to_owned(), message);
    for condition in &status.conditions {
        if condition.type_ == "InvalidSpec" {
            return text("Degraded", format!("{}: {}", condition.type_, condition.message));
        }
    }
    for condition in &status.conditions {
        if matches!(condition.reason.as_str(), "RolloutAborted" | "ProgressDeadlineExceeded") {
            return text("Degraded", format!("{}: {}", condition.reason, condition.message));
        }
    }
    if ro.spec.paused {
        return text("Paused", "manually paused".to_owned());
    }
    if let Some(pause) = status.pause_conditions.as_deref().unwrap_or_default().first() {
        return text("Paused", pause.reason.clone());
    }
    let desired = ro.spec.replicas.unwrap_or(1);
    let updated = status.updated_replicas.unwrap_or(0);
    let progressing = |message: &str| text("Progressing", message.to_owned());
    if updated < desired {
        return progressing("more replicas need to be updated");
    }
    if status.available_replicas.unwrap_or(0) < updated {
        return progressing("updated replicas are still becoming available");
    }
    if ro.spec.strategy.blue_green.is_some() {
        if status.blue_green.active_selector.is_none() || status.blue_green.active_selector != status.current_pod_hash {
            return progressing("active service cutover pending");
        }
        if status.stable_rs.is_some() && status.stable_rs != status.current_pod_hash {
            return progressing("waiting for analysis to complete");
        }
    } else {
        let routed = ro.spec.strategy.canary.as_ref().is_some_and(|canary| canary.traffic_routing.is_some());
        if !routed && status.replicas.unwrap_or(0) > updated {
            return progressing("old replicas are pending termination");
        }
        if status.stable_rs.is_none() || status.stable_rs != status.current_pod_hash {
            return progressing("waiting for all steps to complete");
        }
    }
    text("Healthy", String::new())
}

/// Whether the status is about the newest spec. Objects without a generation (files) count as observed.
fn generation_observed(ro: &Rollout) -> bool {
    let Some(generation) = ro.metadata.generation else { return true };
    match ro.status.observed_generation.as_deref().map(str::parse::<i64>) {
        Some(Ok(observed)) => observed >= generation,
        // Before 1.0 the peer stored a hash here.
        Some(Err(_)) => true,
        None => false,
    }
}

/// Whether the status is about the newest template of the workload that `workloadRef` names.
fn workload_observed(ro: &Rollout) -> bool {
    let annotation = ro.metadata.annotations.as_ref().and_then(|map| map.get(keys::WORKLOAD_GENERATION));
    annotation.is_none_or(|generation| ro.status.workload_observed_generation.as_ref() == Some(generation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn phase(spec: Value, status: Value) -> (String, String) {
        of(&serde_json::from_value(
            json!({"metadata": {"name": "web", "generation": 2}, "spec": spec, "status": status}),
        )
        .unwrap())
    }

    #[test]
    fn is_what_the_controller_stored() {
        let (phase, message) =
            phase(json!({}), json!({"observedGeneration": "2", "phase": "Degraded", "message": "RolloutAborted: bad"}));
        assert_eq!((phase.as_str(), message.as_str()), ("Degraded", "RolloutAborted: bad"));
    }

    #[test]
    fn is_progressing_while_the_controller_has_yet_to_look() {
        let wait = |spec, status| phase(spec, status).1;
        assert_eq!(
            wait(json!({}), json!({"observedGeneration": "1", "phase": "Healthy"})),
            "waiting for rollout spec update to be observed"
        );
        assert_eq!(
            wait(json!({}), json!({"observedGeneration": "2", "phase": "Paused", "controllerPause": true})),
            "waiting for rollout to unpause"
        );
        let workload: Rollout = serde_json::from_value(json!({
            "metadata": {"annotations": {"rollout.argoproj.io/workload-generation": "3"}},
            "spec": {"workloadRef": {"name": "web"}},
            "status": {"phase": "Healthy", "workloadObservedGeneration": "2"},
        }))
        .unwrap();
        assert!(of(&workload).1.ends_with("for the reference workload"));
    }

    #[test]
    fn is_worked_out_when_none_is_stored() {
        let cases = [
            (
                json!({"replicas": 5, "strategy": {"canary": {}}}),
                json!({"updatedReplicas": 3}),
                "Progressing",
                "more replicas need to be updated",
            ),
            (json!({"paused": true}), json!({}), "Paused", "manually paused"),
            (
                json!({}),
                json!({"conditions": [{"type": "Progressing", "reason": "RolloutAborted", "message": "m"}]}),
                "Degraded",
                "RolloutAborted: m",
            ),
            (
                json!({"strategy": {"blueGreen": {}}}),
                json!({"updatedReplicas": 1, "availableReplicas": 1, "currentPodHash": "a", "blueGreen": {"activeSelector": "b"}}),
                "Progressing",
                "active service cutover pending",
            ),
            (
                json!({"strategy": {"canary": {}}}),
                json!({"replicas": 1, "updatedReplicas": 1, "availableReplicas": 1, "currentPodHash": "a", "stableRS": "a"}),
                "Healthy",
                "",
            ),
        ];
        for (spec, mut status, expected, message) in cases {
            status["observedGeneration"] = json!("2");
            assert_eq!(phase(spec, status), (expected.to_owned(), message.to_owned()));
        }
    }
}
