//! What is to be done about one Experiment.

use crate::events::Event;
use crate::rollout::ReplicaSetChange;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use tidegate_crds::experiment::ExperimentStatus;

/// What is to be done about one Experiment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// The next status. Written last, when all actions went well.
    pub status: ExperimentStatus,
    /// Writes, in the order in which they have to be made.
    pub actions: Vec<Action>,
    /// What to tell, in order.
    pub events: Vec<Event>,
    /// When to look again, if nothing happens before.
    pub wake: Option<Timestamp>,
    /// Why, a line each, for the log.
    pub why: Vec<String>,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create the ReplicaSet of a template.
    CreateReplicaSet {
        /// Name of the template.
        template: String,
        /// Name of the ReplicaSet.
        name: String,
        /// The whole object.
        object: Value,
    },
    /// Change a ReplicaSet.
    PatchReplicaSet {
        /// Name of the template; none when it is not in the Experiment any more.
        template: Option<String>,
        /// Name of the ReplicaSet.
        name: String,
        /// What.
        change: ReplicaSetChange,
    },
    /// Create the Service of a template.
    CreateService {
        /// Name of the template.
        template: String,
        /// Name of the Service.
        name: String,
        /// The whole object.
        object: Value,
    },
    /// Let a Service select the pods with a hash.
    SelectService {
        /// Name.
        name: String,
        /// The hash.
        hash: String,
    },
    /// Delete a Service.
    DeleteService {
        /// Name.
        name: String,
        /// Uid.
        uid: String,
    },
    /// Create an AnalysisRun.
    CreateAnalysisRun {
        /// Name.
        name: String,
        /// The whole object.
        object: Value,
    },
    /// End an AnalysisRun.
    TerminateAnalysisRun {
        /// Name.
        name: String,
    },
}
