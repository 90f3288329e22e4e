//! `workloadRef`: what becomes of the referenced workload's own pods.

use super::decision::{Action, Stage};
use super::pass::Pass;

/// Scales the workload down as the Rollout takes over. Never scales it up.
pub(crate) fn run(pass: &mut Pass<'_>) {
    let Some(workload) = &pass.snapshot.workload else {
        pass.status.workload_observed_generation = None;
        return;
    };
    pass.status.workload_observed_generation = Some(workload.generation.to_string());
    let mode = pass.rollout().spec.workload_ref.as_ref().and_then(|r| r.scale_down.as_deref()).unwrap_or("never");
    let Some(pods) = workload.replicas.filter(|r| *r > 0 && workload.kind == "Deployment") else { return };
    let total = pass.replicas();
    let ready: i32 = pass.owned().map(|rs| rs.ready.min(rs.available)).sum();
    let done = pass.promoted() && pass.new_rs().is_some_and(|rs| rs.available >= total);
    let target = match mode {
        // Also after the first revision: a re-applied Deployment would run beside the Rollout for ever.
        "onsuccess" if done => 0,
        "progressively" if done => 0,
        "progressively" if pass.promoted() => pods.min((total - ready).max(0)),
        _ => return,
    };
    if target < pods {
        pass.because(format!("scales the referenced Deployment down to {target}: the Rollout has {ready} ready pods"));
        pass.act(Stage::Shrink, Action::ScaleWorkload { replicas: target });
    }
}
