//! `restartAt`: replaces the pods that are older than that, a few at a time, by eviction.

use super::decision::{Action, Stage};
use super::pass::Pass;
use super::replicas;
use super::snapshot::ReplicaSet;

/// Seconds after which an eviction that a PodDisruptionBudget refused is tried again.
pub const EVICTION_RETRY_SECONDS: i64 = 30;

/// A restart is asked for and not complete.
pub(crate) fn pending(
    status: &tidegate_crds::rollout::RolloutStatus,
    spec: &tidegate_crds::rollout::RolloutSpec,
) -> bool {
    match (&spec.restart_at, &status.restarted_at) {
        (Some(at), Some(done)) => at.0 > done.0,
        (Some(_), None) => true,
        _ => false,
    }
}

pub(crate) fn run(pass: &mut Pass<'_>) {
    let rollout = pass.rollout();
    let Some(at) = rollout.spec.restart_at.clone().filter(|_| pending(&pass.status, &rollout.spec)) else { return };
    if at.0 > pass.now {
        pass.wake_at(at.0);
        return;
    }
    let strategy = &rollout.spec.strategy;
    let max_unavailable = strategy
        .canary
        .as_ref()
        .and_then(|c| c.max_unavailable.as_ref())
        .or_else(|| strategy.blue_green.as_ref().and_then(|b| b.max_unavailable.as_ref()));
    let total = pass.replicas();
    let mut order: Vec<&ReplicaSet> = pass.stable_rs().into_iter().collect();
    order.extend(pass.new_rs().filter(|_| !pass.promoted()));
    order.extend(pass.others());
    // The pods themselves are counted: what the ReplicaSets say is older than the list, and may hold pods that go.
    let there = |rs: &ReplicaSet| {
        let pods = pass.snapshot.pods.iter().filter(|p| p.hash == rs.hash());
        let available = pods.filter(|p| p.available(rs.min_ready_seconds, pass.now)).count();
        i32::try_from(available).unwrap_or(i32::MAX)
    };
    let missing: i32 = order.iter().map(|rs| (pass.size(rs).max(rs.replicas) - there(rs)).max(0)).sum();
    let mut allowed = replicas::resolve(max_unavailable, total, false).max(1) - missing;
    let mut old = 0;
    for rs in order {
        let mut pods: Vec<_> =
            pass.snapshot.pods.iter().filter(|p| p.hash == rs.hash() && p.created < at.0 && !p.deleting).collect();
        pods.sort_by_key(|p| (p.created, p.name.clone()));
        old += pods.len();
        for pod in pods {
            if allowed <= 0 {
                break;
            }
            allowed -= 1;
            pass.because(format!("replaces pod {}: it is older than restartAt", pod.name));
            pass.act(Stage::Shrink, Action::EvictPod { name: pod.name.clone() });
        }
    }
    if old == 0 {
        pass.status.restarted_at = Some(at);
    } else {
        pass.wake_after(EVICTION_RETRY_SECONDS);
    }
}
