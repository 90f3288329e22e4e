//! Rollout: a workload that is updated step by step.

mod routing;
mod status;
mod strategy;

use crate::resource::custom_resource;
use crate::{LabelSelector, Time, schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use routing::*;
pub use status::*;
pub use strategy::*;

custom_resource! {
    /// A workload whose new versions come step by step (canary) or side by side (blue-green).
    Rollout, "rollouts", kube::core::NamespaceResourceScope, RolloutSpec, RolloutStatus
}

/// What the user asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct RolloutSpec {
    /// Number of pods wanted. Default 1; the controller writes the default into the spec so that autoscalers find it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Selects the pods. Immutable. Required unless `workloadRef` is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// The pods to run, as a `core/v1` PodTemplateSpec. Kept as it was written.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schemars(schema_with = "schema::any_object")]
    pub template: Value,
    /// Takes the pod template from another workload instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_ref: Option<WorkloadRef>,
    /// Seconds for which a pod has to be ready before it counts as available. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_ready_seconds: Option<i32>,
    /// Within how many revisions going back skips the steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback_window: Option<RollbackWindow>,
    /// How to update. Exactly one of `canary` and `blueGreen`.
    pub strategy: Strategy,
    /// How many old ReplicaSets to keep for a rollback. Default 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision_history_limit: Option<i32>,
    /// Halts the update; scaling goes on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Seconds without progress after which an update counts as failed. Default 600.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress_deadline_seconds: Option<i32>,
    /// Aborts the update when the progress deadline passes. Default false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub progress_deadline_abort: bool,
    /// Pods created before this time are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_at: Option<Time>,
    /// How many finished AnalysisRuns and Experiments to keep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub analysis: Option<AnalysisHistory>,
}

/// Names the workload whose pod template a Rollout uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadRef {
    /// `apps/v1` for a Deployment or ReplicaSet, `v1` for a PodTemplate.
    pub api_version: String,
    /// `Deployment`, `ReplicaSet` or `PodTemplate`.
    pub kind: String,
    /// Name in the Rollout's namespace.
    pub name: String,
    /// What happens to the workload's own pods: `never` (default), `onsuccess` or `progressively`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_down: Option<String>,
}

/// Within how many revisions going back skips the steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct RollbackWindow {
    /// Number of revisions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revisions: Option<i32>,
}

/// How many finished AnalysisRuns and Experiments to keep.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct AnalysisHistory {
    /// Default 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub successful_run_history_limit: Option<i32>,
    /// Failed, errored and inconclusive ones. Default 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsuccessful_run_history_limit: Option<i32>,
}

/// How to update. Exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Strategy {
    /// Both versions stand side by side; a Service selector switches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blue_green: Option<BlueGreen>,
    /// The new version takes over step by step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
}
