//! Deployment, StatefulSet, DaemonSet, ReplicaSet.

use super::{Health, condition, count, is_true, message};
use crate::object;
use serde_json::Value;

fn is_observed(live: &Value) -> bool {
    count(live, "/metadata/generation") <= count(live, "/status/observedGeneration")
}

/// `spec.replicas`; the API server's default is 1.
fn wanted(live: &Value) -> i64 {
    object::integer(live, "/spec/replicas").unwrap_or(1)
}

pub(super) fn deployment(live: &Value) -> Health {
    if live.pointer("/spec/paused").and_then(Value::as_bool) == Some(true) {
        return Health::suspended("Deployment is paused");
    }
    if !is_observed(live) {
        return Health::progressing(
            "Waiting for rollout to finish: observed deployment generation less than desired generation",
        );
    }
    if condition(live, "Progressing").is_some_and(|c| object::text(c, "/reason") == "ProgressDeadlineExceeded") {
        return Health::degraded(format!("Deployment {:?} exceeded its progress deadline", object::name(live)));
    }
    let wanted = wanted(live);
    let (all, updated, available) = (
        count(live, "/status/replicas"),
        count(live, "/status/updatedReplicas"),
        count(live, "/status/availableReplicas"),
    );
    if updated < wanted {
        return Health::progressing(format!(
            "Waiting for rollout to finish: {updated} out of {wanted} new replicas have been updated..."
        ));
    }
    if all > updated {
        let old = all - updated;
        return Health::progressing(format!(
            "Waiting for rollout to finish: {old} old replicas are pending termination..."
        ));
    }
    if available < updated {
        return Health::progressing(format!(
            "Waiting for rollout to finish: {available} of {updated} updated replicas are available..."
        ));
    }
    Health::healthy("")
}

pub(super) fn stateful_set(live: &Value) -> Health {
    let observed = count(live, "/status/observedGeneration");
    if observed == 0 || observed < count(live, "/metadata/generation") {
        return Health::progressing("Waiting for statefulset spec update to be observed...");
    }
    let wanted = wanted(live);
    let ready = count(live, "/status/readyReplicas");
    if ready < wanted {
        return Health::progressing(format!("Waiting for {} pods to be ready...", wanted - ready));
    }
    let strategy = object::text(live, "/spec/updateStrategy/type");
    let partition = object::integer(live, "/spec/updateStrategy/rollingUpdate/partition").filter(|p| *p > 0);
    let updated = count(live, "/status/updatedReplicas");
    if strategy == "RollingUpdate"
        && let Some(partition) = partition
    {
        let expected = wanted - partition;
        if updated < expected {
            return Health::progressing(format!(
                "Waiting for partitioned roll out to finish: {updated} out of {expected} new pods have been updated..."
            ));
        }
        return Health::healthy(format!("partitioned roll out complete: {updated} new pods have been updated..."));
    }
    if strategy == "OnDelete" {
        return Health::healthy(format!("statefulset has {ready} ready pods"));
    }
    let (update, current) =
        (object::text(live, "/status/updateRevision"), object::text(live, "/status/currentRevision"));
    if update != current {
        return Health::progressing(format!(
            "waiting for statefulset rolling update to complete {updated} pods at revision {update}..."
        ));
    }
    let pods = count(live, "/status/currentReplicas");
    Health::healthy(format!("statefulset rolling update complete {pods} pods at revision {current}..."))
}

pub(super) fn daemon_set(live: &Value) -> Health {
    if !is_observed(live) {
        return Health::progressing(
            "Waiting for rollout to finish: observed daemon set generation less than desired generation",
        );
    }
    let name = object::name(live);
    let wanted = count(live, "/status/desiredNumberScheduled");
    let updated = count(live, "/status/updatedNumberScheduled");
    if object::text(live, "/spec/updateStrategy/type") == "OnDelete" {
        return Health::healthy(format!("daemon set {updated} out of {wanted} new pods have been updated"));
    }
    if updated < wanted {
        return Health::progressing(format!(
            "Waiting for daemon set {name:?} rollout to finish: {updated} out of {wanted} new pods have been updated..."
        ));
    }
    let available = count(live, "/status/numberAvailable");
    if available < wanted {
        return Health::progressing(format!(
            "Waiting for daemon set {name:?} rollout to finish: {available} of {wanted} updated pods are available..."
        ));
    }
    Health::healthy("")
}

pub(super) fn replica_set(live: &Value) -> Health {
    if !is_observed(live) {
        return Health::progressing(
            "Waiting for rollout to finish: observed replica set generation less than desired generation",
        );
    }
    if let Some(failure) = condition(live, "ReplicaFailure").filter(|c| is_true(c)) {
        return Health::degraded(message(failure));
    }
    let (wanted, available) = (wanted(live), count(live, "/status/availableReplicas"));
    if available < wanted {
        return Health::progressing(format!(
            "Waiting for rollout to finish: {available} out of {wanted} new replicas are available..."
        ));
    }
    Health::healthy("")
}
