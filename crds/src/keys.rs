//! Labels, annotations and finalizers that are interface: other people's tools read and write them.

/// Label and Service selector key that holds the hash of a pod template.
pub const POD_TEMPLATE_HASH: &str = "rollouts-pod-template-hash";
/// Revision number, on ReplicaSets, Rollouts, AnalysisRuns and Experiments.
pub const REVISION: &str = "rollout.argoproj.io/revision";
/// Comma list of the revisions that a ReplicaSet had before its current one.
pub const REVISION_HISTORY: &str = "rollout.argoproj.io/revision-history";
/// `spec.replicas` of the Rollout at the last sync, on its ReplicaSets. A difference tells a scaling from an update.
pub const DESIRED_REPLICAS: &str = "rollout.argoproj.io/desired-replicas";
/// Generation of the workload that `workloadRef` names, on the Rollout.
pub const WORKLOAD_GENERATION: &str = "rollout.argoproj.io/workload-generation";
/// JSON of the labels and annotations that were put onto a ReplicaSet's pods for the time of an update.
pub const EPHEMERAL_METADATA: &str = "rollout.argoproj.io/ephemeral-metadata";
/// RFC 3339 time after which an old ReplicaSet is scaled down. Without a prefix, as the peer writes it.
pub const SCALE_DOWN_DEADLINE: &str = "scale-down-deadline";
/// On a ReplicaSet whose update was aborted, until it becomes the stable version after all: it stands until its time is
/// over, but nobody goes back to it as to a version that was in use. Tidegate's own.
pub const ABORTED: &str = "rollout.tidegate.dev/aborted";
/// Label of a Deployment that a Rollout with `workloadRef` has scaled down. Tidegate's own.
pub const SCALED_DOWN: &str = "rollout.tidegate.dev/scaled-down";
/// Annotation of such a Deployment: the Rollout. Tidegate's own.
pub const SCALED_DOWN_BY: &str = "rollout.tidegate.dev/scaled-down-by";
/// Annotation of such a Deployment: how many pods it had. Tidegate's own.
pub const SCALED_DOWN_FROM: &str = "rollout.tidegate.dev/scaled-down-from";
/// Name of the Rollout that manages a Service, DestinationRule or VirtualNode.
pub const MANAGED_BY: &str = "argo-rollouts.argoproj.io/managed-by-rollouts";
/// Label that hands an object to the controller with that instance id.
pub const INSTANCE_ID: &str = "argo-rollouts.argoproj.io/controller-instance-id";
/// Annotation of notifications that were sent; never copied to ReplicaSets.
pub const NOTIFIED: &str = "notified.notifications.argoproj.io";
/// Annotation of client-side apply; never copied to ReplicaSets.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Label of AnalysisRuns: `Step`, `Background`, `PrePromotion` or `PostPromotion`.
pub const ROLLOUT_TYPE: &str = "rollout-type";
/// Label of AnalysisRuns of a step: its index.
pub const STEP_INDEX: &str = "step-index";
/// On ReplicaSets of an Experiment: the Experiment's name.
pub const EXPERIMENT_NAME: &str = "experiment.argoproj.io/name";
/// On ReplicaSets of an Experiment: the template's name.
pub const EXPERIMENT_TEMPLATE: &str = "experiment.argoproj.io/template-name";
/// Annotations of Jobs that measure: name, namespace and metric of the AnalysisRun.
pub const ANALYSIS_RUN_NAME: &str = "analysisrun.argoproj.io/name";
/// See [`ANALYSIS_RUN_NAME`].
pub const ANALYSIS_RUN_NAMESPACE: &str = "analysisrun.argoproj.io/namespace";
/// See [`ANALYSIS_RUN_NAME`].
pub const ANALYSIS_RUN_METRIC: &str = "analysisrun.argoproj.io/metric-name";
/// Label of Jobs that measure: uid of the AnalysisRun.
pub const ANALYSIS_RUN_UID: &str = "analysisrun.argoproj.io/uid";
/// On Ingresses: which annotations belong to which Rollout.
pub const MANAGED_ALB_ANNOTATIONS: &str = "rollouts.argoproj.io/managed-alb-annotations";
