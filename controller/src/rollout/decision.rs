//! What is to be done about one Rollout.

use super::conditions::MOVING;
use crate::events::Event;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use tidegate_crds::rollout::RolloutStatus;
use tidegate_traffic::Write;

/// What is to be done about one Rollout.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// The next status. Written last, when all actions went well.
    pub status: RolloutStatus,
    /// Writes, in the order in which they have to be made.
    pub actions: Vec<Action>,
    /// What to tell, in order.
    pub events: Vec<Event>,
    /// Those among them that tell of an action, for each action: they are true as soon as it is made, whatever becomes
    /// of the next one.
    pub news: Vec<Vec<Event>>,
    /// When to look again, if nothing happens before.
    pub wake: Option<Timestamp>,
    /// Why, a line each, for the log.
    pub why: Vec<String>,
    /// When it was made.
    pub at: Timestamp,
}

impl Decision {
    /// All that its status tells anew is how many pods there are by now. Nothing waits for that: decisions are made on
    /// the ReplicaSets, not on these counts.
    pub fn only_counts(&self, before: &RolloutStatus) -> bool {
        if self.status == *before {
            return false;
        }
        let mut status = self.status.clone();
        status.replicas = before.replicas;
        status.updated_replicas = before.updated_replicas;
        status.ready_replicas = before.ready_replicas;
        status.available_replicas = before.available_replicas;
        status.hpa_replicas = before.hpa_replicas;
        status.message.clone_from(&before.message);
        for (condition, old) in status.conditions.iter_mut().zip(&before.conditions) {
            condition.last_update_time.clone_from(&old.last_update_time);
            // That pods of a version have begun to come.
            if condition.reason == MOVING && condition.status == old.status {
                condition.reason.clone_from(&old.reason);
                condition.message.clone_from(&old.message);
            }
        }
        status == *before
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Write the default of `spec.replicas` into the spec.
    DefaultReplicas,
    /// Set annotations of the Rollout.
    AnnotateRollout {
        /// The annotations.
        annotations: BTreeMap<String, String>,
    },
    /// Become the owner of a ReplicaSet that nobody owns.
    AdoptReplicaSet {
        /// Name.
        name: String,
        /// Uid.
        uid: String,
    },
    /// Create a ReplicaSet.
    CreateReplicaSet {
        /// Name.
        name: String,
        /// The whole object.
        object: Value,
    },
    /// Change a ReplicaSet.
    PatchReplicaSet {
        /// Name.
        name: String,
        /// What.
        change: ReplicaSetChange,
    },
    /// Put labels and annotations onto a ReplicaSet's template and its running pods.
    EphemeralMetadata {
        /// Name of the ReplicaSet.
        name: String,
        /// Hash of its pods.
        hash: String,
        /// Labels: the new value, or `None` to remove.
        labels: BTreeMap<String, Option<String>>,
        /// Annotations: the new value, or `None` to remove.
        annotations: BTreeMap<String, Option<String>>,
        /// The annotation that remembers them; `None` to remove it.
        remembered: Option<String>,
    },
    /// Delete a ReplicaSet that is beyond the history limit.
    DeleteReplicaSet {
        /// Name.
        name: String,
        /// Uid.
        uid: String,
    },
    /// Let a Service select the pods with a hash.
    SelectService {
        /// Name.
        name: String,
        /// The hash.
        hash: String,
    },
    /// A write of a traffic router.
    Route(Write),
    /// Create an AnalysisRun.
    CreateAnalysisRun {
        /// The whole object.
        object: Value,
    },
    /// End an AnalysisRun.
    TerminateAnalysisRun {
        /// Name.
        name: String,
    },
    /// Delete an AnalysisRun.
    DeleteAnalysisRun {
        /// Name.
        name: String,
        /// Uid.
        uid: String,
    },
    /// Create an Experiment.
    CreateExperiment {
        /// The whole object.
        object: Value,
    },
    /// End an Experiment.
    TerminateExperiment {
        /// Name.
        name: String,
    },
    /// Delete an Experiment.
    DeleteExperiment {
        /// Name.
        name: String,
        /// Uid.
        uid: String,
    },
    /// Replace a pod.
    EvictPod {
        /// Name.
        name: String,
    },
    /// Scale the workload that `workloadRef` names.
    ScaleWorkload {
        /// Number of pods.
        replicas: i32,
    },
}

/// A change of a ReplicaSet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplicaSetChange {
    /// `spec.replicas`.
    pub replicas: Option<i32>,
    /// `spec.minReadySeconds`.
    pub min_ready_seconds: Option<i32>,
    /// Annotations: the new value, or `None` to remove.
    pub annotations: BTreeMap<String, Option<String>>,
}

impl ReplicaSetChange {
    /// Nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// When an action comes: capacity first, then traffic, then what watches it, then capacity away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The Rollout itself, owners.
    Prepare,
    /// More pods.
    Grow,
    /// Labels and annotations of pods.
    Label,
    /// Services and routes.
    Traffic,
    /// Analyses and experiments.
    Judge,
    /// Fewer pods.
    Shrink,
    /// What is not needed any more.
    Clean,
}
