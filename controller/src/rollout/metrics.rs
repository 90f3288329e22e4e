//! What the metrics tell of Rollouts.

use crate::cache::Key;
use crate::metrics::Metrics;
use crate::worker::Passes;
use tidegate_crds::rollout::{Rollout, RolloutDuration, RolloutStatus};

/// How passes over Rollouts are counted.
pub(crate) const PASSES: Passes = Passes { time: "rollout_reconcile", errors: "rollout_reconcile_error" };

/// Upper bounds of the histograms of whole updates, in seconds: from half a minute to two days.
const UPDATE_BOUNDS: [f64; 13] =
    [30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14_400.0, 43_200.0, 86_400.0, 172_800.0];

/// What a Rollout's status tells now.
pub(crate) fn decided(metrics: &Metrics, key: &Key, rollout: &Rollout, status: &RolloutStatus) {
    let object = [("namespace", &*key.namespace), ("name", &*key.name)];
    let (strategy, router) = match (&rollout.spec.strategy.canary, &rollout.spec.strategy.blue_green) {
        (Some(canary), _) => ("canary", canary.traffic_routing.as_ref().map_or("", router_name)),
        (_, Some(_)) => ("blueGreen", ""),
        _ => ("", ""),
    };
    let phase = metric_phase(status);
    let state = [("strategy", strategy), ("traffic_router", router), ("phase", phase)];
    metrics.state("rollout_info", "Rollouts by strategy, router and phase.", &object, &state);
    let state = [("strategy", strategy), ("phase", phase)];
    metrics.state("rollout_phase", "Rollouts by phase; rollout_info takes its place.", &object, &state);
    let desired = rollout.spec.replicas.unwrap_or(1);
    let available = status.available_replicas.unwrap_or(0);
    for (name, help, value) in [
        ("rollout_info_replicas_desired", "Pods that a Rollout is to have.", desired),
        ("rollout_info_replicas_available", "Available pods of a Rollout.", available),
        (
            "rollout_info_replicas_unavailable",
            "Pods of a Rollout that are not available.",
            status.replicas.unwrap_or(0) - available,
        ),
        ("rollout_info_replicas_updated", "Pods of a Rollout's newest version.", status.updated_replicas.unwrap_or(0)),
    ] {
        metrics.set(name, help, &object, f64::from(value));
    }
}

/// An update came to its end when its status was written: adds what it took to the histograms.
pub(crate) fn finished(metrics: &Metrics, before: &RolloutStatus, after: &RolloutStatus) {
    let end = |status: &RolloutStatus| status.duration.as_ref().and_then(|d| d.finished_at.clone());
    let Some(duration) = after.duration.as_ref().filter(|_| end(before) != end(after)) else { return };
    let RolloutDuration { rollout_started_at: Some(start), finished_at: Some(end), .. } = duration else { return };
    let whole = (end.0.as_second() - start.0.as_second()).max(0);
    let paused = duration.total_manual_pause_duration_seconds.unwrap_or(0).clamp(0, whole);
    let labels = [("status", duration.completion_status.as_deref().unwrap_or_default())];
    for (name, help, seconds) in [
        ("rollout_duration_seconds", "Seconds from the begin of an update to its end.", whole),
        (
            "rollout_progression_duration_seconds",
            "The same without the time for which people were waited for.",
            whole - paused,
        ),
        ("rollout_manual_pause_duration_seconds", "Seconds for which an update waited for people.", paused),
    ] {
        metrics.observe_within(name, help, &UPDATE_BOUNDS, &labels, seconds as f64);
    }
}

/// A Rollout is gone, and its series with it.
pub(crate) fn forget(metrics: &Metrics, key: &Key) {
    metrics.forget("rollout_", &[("namespace", &key.namespace), ("name", &key.name)]);
}

fn router_name(routing: &tidegate_crds::rollout::TrafficRouting) -> &'static str {
    match routing {
        r if r.istio.is_some() => "Istio",
        r if r.nginx.is_some() => "Nginx",
        r if r.alb.is_some() => "ALB",
        r if r.smi.is_some() => "SMI",
        r if r.ambassador.is_some() => "Ambassador",
        r if r.app_mesh.is_some() => "AppMesh",
        r if r.traefik.is_some() => "Traefik",
        r if r.apisix.is_some() => "Apisix",
        r if r.plugins.contains_key(tidegate_traffic::GATEWAY_API_PLUGIN) => "GatewayAPI",
        _ => "",
    }
}

/// The phase in the words of the metrics.
fn metric_phase(status: &RolloutStatus) -> &'static str {
    let reason = |wanted: &str| status.conditions.iter().any(|c| c.reason == wanted);
    if status.conditions.iter().any(|c| c.type_ == "InvalidSpec") {
        "InvalidSpec"
    } else if reason("RolloutAborted") {
        "Abort"
    } else if reason("ProgressDeadlineExceeded") {
        "Timeout"
    } else if reason("ReplicaSetCreateError") {
        "Error"
    } else {
        match status.phase.as_deref() {
            Some("Healthy") => "Completed",
            Some("Paused") => "Paused",
            Some("Degraded") => "Error",
            _ => "Progressing",
        }
    }
}
