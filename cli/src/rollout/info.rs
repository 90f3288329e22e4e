//! What there is to say about a Rollout or an Experiment: objects in, plain values out. No I/O and no clock of its own.

use super::phase;
use super::pod::PodInfo;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_crds::analysis::{AnalysisPhase, AnalysisRun};
use tidegate_crds::experiment::Experiment;
use tidegate_crds::rollout::{Canary, Rollout, RolloutStatus};
use tidegate_crds::{ObjectMeta, keys};

/// The objects of one namespace that a Rollout or an Experiment may own. What belongs to others is left out by the
/// owner references.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// ReplicaSets.
    pub replica_sets: Vec<ReplicaSet>,
    /// Pods.
    pub pods: Vec<Pod>,
    /// Experiments.
    pub experiments: Vec<Experiment>,
    /// AnalysisRuns.
    pub analysis_runs: Vec<AnalysisRun>,
}

/// A Rollout and what belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutInfo {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// `Healthy`, `Degraded`, `Progressing` or `Paused`.
    pub status: String,
    /// Why; may be empty.
    pub message: String,
    /// `Canary`, `BlueGreen`, or empty when there is none.
    pub strategy: &'static str,
    /// `i/n`; none without steps.
    pub step: Option<String>,
    /// Weight that the steps ask for; none for blue-green.
    pub set_weight: Option<i32>,
    /// Weight that the canary has; none for blue-green.
    pub actual_weight: Option<i32>,
    /// Images of the ReplicaSets that have pods, in the order of their names.
    pub images: Vec<ImageInfo>,
    /// `spec.replicas`.
    pub desired: i32,
    /// `status.replicas`.
    pub current: i32,
    /// `status.updatedReplicas`.
    pub updated: i32,
    /// `status.readyReplicas`.
    pub ready: i32,
    /// `status.availableReplicas`.
    pub available: i32,
    /// ReplicaSets, Experiments and AnalysisRuns by revision, newest first.
    pub revisions: Vec<RevisionInfo>,
}

/// What belongs to one revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RevisionInfo {
    /// Number; 0 when nobody wrote one.
    pub number: i64,
    /// ReplicaSets.
    pub replica_sets: Vec<ReplicaSetInfo>,
    /// Experiments.
    pub experiments: Vec<ExperimentInfo>,
    /// AnalysisRuns.
    pub analysis_runs: Vec<AnalysisRunInfo>,
}

/// An image and what it is used for.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageInfo {
    /// Image.
    pub image: String,
    /// `stable`, `canary`, `active`, `preview`, or `Σ:` and the name of an experiment's template.
    pub tags: Vec<String>,
}

/// A ReplicaSet.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaSetInfo {
    /// Name.
    pub name: String,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// `Healthy`, `Progressing`, `Degraded` or `ScaledDown`.
    pub status: &'static str,
    /// `stable`, `canary`, `active`, `preview`.
    pub tags: Vec<String>,
    /// Template of the experiment that it belongs to.
    pub template: Option<String>,
    /// When it will be scaled down.
    pub scale_down_at: Option<Timestamp>,
    /// Images of its containers.
    pub images: Vec<String>,
    /// Available pods.
    pub available: i32,
    /// Pods.
    pub pods: Vec<PodInfo>,
}

/// An AnalysisRun.
#[derive(Clone, Debug, PartialEq)]
pub struct AnalysisRunInfo {
    /// Name.
    pub name: String,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Phase.
    pub status: AnalysisPhase,
    /// Measurements by outcome.
    pub successful: i32,
    /// Measurements that failed.
    pub failed: i32,
    /// Measurements that said neither.
    pub inconclusive: i32,
    /// Measurements that could not be made.
    pub error: i32,
    /// Jobs of the measurements.
    pub jobs: Vec<JobInfo>,
}

/// A Job that measures.
#[derive(Clone, Debug, PartialEq)]
pub struct JobInfo {
    /// Name.
    pub name: String,
    /// When the measurement began.
    pub created: Option<Timestamp>,
    /// Phase of the measurement.
    pub status: AnalysisPhase,
}

/// An Experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct ExperimentInfo {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Phase.
    pub status: AnalysisPhase,
    /// Why; may be empty.
    pub message: String,
    /// Images of the ReplicaSets that have pods, in the order of their names.
    pub images: Vec<ImageInfo>,
    /// ReplicaSets.
    pub replica_sets: Vec<ReplicaSetInfo>,
    /// AnalysisRuns.
    pub analysis_runs: Vec<AnalysisRunInfo>,
}

/// Everything about a Rollout.
pub fn rollout(ro: &Rollout, objects: &Objects) -> RolloutInfo {
    let (status, message) = phase::of(ro);
    let mut revisions: BTreeMap<i64, RevisionInfo> = BTreeMap::new();
    for rs in objects.replica_sets.iter().filter(|rs| owned_by(&rs.metadata, &ro.metadata)) {
        at(&mut revisions, &rs.metadata).replica_sets.push(replica_set(rs, Some(ro), &objects.pods));
    }
    for exp in objects.experiments.iter().filter(|exp| owned_by(&exp.metadata, &ro.metadata)) {
        at(&mut revisions, &exp.metadata).experiments.push(experiment(exp, objects));
    }
    for run in objects.analysis_runs.iter().filter(|run| owned_by(&run.metadata, &ro.metadata)) {
        at(&mut revisions, &run.metadata).analysis_runs.push(analysis_run(run));
    }
    let mut revisions: Vec<RevisionInfo> = revisions.into_values().rev().collect();
    for revision in &mut revisions {
        revision.replica_sets.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
        revision.experiments.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
        revision.analysis_runs.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    }
    let weights = ro.spec.strategy.canary.as_ref().map(|canary| {
        let set = set_weight(canary, &ro.status);
        (set, actual_weight(canary, &ro.status, set, &revisions))
    });
    RolloutInfo {
        name: ro.name().to_owned(),
        namespace: ro.namespace().to_owned(),
        created: created(&ro.metadata),
        status,
        message,
        strategy: strategy(ro),
        step: step(ro),
        set_weight: weights.map(|(set, _)| set),
        actual_weight: weights.map(|(_, actual)| actual),
        images: images(
            revisions
                .iter()
                .flat_map(|revision| &revision.replica_sets)
                .chain(revisions.iter().flat_map(|r| &r.experiments).flat_map(|experiment| &experiment.replica_sets)),
        ),
        desired: ro.spec.replicas.unwrap_or(1),
        current: ro.status.replicas.unwrap_or(0),
        updated: ro.status.updated_replicas.unwrap_or(0),
        ready: ro.status.ready_replicas.unwrap_or(0),
        available: ro.status.available_replicas.unwrap_or(0),
        revisions,
    }
}

/// The entry of the revision that the object belongs to.
fn at<'a>(revisions: &'a mut BTreeMap<i64, RevisionInfo>, meta: &ObjectMeta) -> &'a mut RevisionInfo {
    let number = revision(meta);
    revisions.entry(number).or_insert_with(|| RevisionInfo { number, ..Default::default() })
}

/// Everything about an Experiment.
pub fn experiment(exp: &Experiment, objects: &Objects) -> ExperimentInfo {
    let mut replica_sets: Vec<_> = objects
        .replica_sets
        .iter()
        .filter(|rs| owned_by(&rs.metadata, &exp.metadata))
        .map(|rs| replica_set(rs, None, &objects.pods))
        .collect();
    replica_sets.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    let mut analysis_runs: Vec<_> =
        objects.analysis_runs.iter().filter(|run| owned_by(&run.metadata, &exp.metadata)).map(analysis_run).collect();
    analysis_runs.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    ExperimentInfo {
        name: exp.name().to_owned(),
        namespace: exp.namespace().to_owned(),
        created: created(&exp.metadata),
        status: exp.status.phase,
        message: exp.status.message.clone().unwrap_or_default(),
        images: images(replica_sets.iter()),
        replica_sets,
        analysis_runs,
    }
}

/// `Canary`, `BlueGreen`, or empty when the spec names none.
pub fn strategy(ro: &Rollout) -> &'static str {
    match (&ro.spec.strategy.canary, &ro.spec.strategy.blue_green) {
        (Some(_), _) => "Canary",
        (None, Some(_)) => "BlueGreen",
        (None, None) => "",
    }
}

/// `i/n` of a canary with steps.
pub fn step(ro: &Rollout) -> Option<String> {
    let steps = ro.spec.strategy.canary.as_ref()?.steps.as_deref().unwrap_or_default();
    let index = ro.status.current_step_index?;
    (!steps.is_empty()).then(|| format!("{index}/{}", steps.len()))
}

/// The largest weight: 100, unless the router counts differently.
fn max_weight(canary: &Canary) -> i32 {
    canary.traffic_routing.as_ref().and_then(|routing| routing.max_traffic_weight).unwrap_or(100)
}

/// The weight that the steps up to now ask for.
pub fn set_weight(canary: &Canary, status: &RolloutStatus) -> i32 {
    if status.abort {
        return 0;
    }
    let steps = canary.steps.as_deref().unwrap_or_default();
    let index = usize::try_from(status.current_step_index.unwrap_or(0)).unwrap_or(0);
    if index >= steps.len() {
        return max_weight(canary);
    }
    steps[..=index].iter().rev().find_map(|step| step.set_weight).unwrap_or(0)
}

/// The weight that the canary has: what was last written to the router, or its share of the available pods.
fn actual_weight(canary: &Canary, status: &RolloutStatus, set: i32, revisions: &[RevisionInfo]) -> i32 {
    let steps = canary.steps.as_deref().unwrap_or_default();
    let index = usize::try_from(status.current_step_index.unwrap_or(0)).unwrap_or(0);
    if index >= steps.len() {
        return max_weight(canary);
    }
    let total = status.available_replicas.unwrap_or(0);
    if total == 0 {
        return 0;
    }
    if canary.traffic_routing.is_some() {
        return status.canary.weights.as_ref().map_or(set, |weights| weights.canary.weight);
    }
    let canary_pods: i32 = revisions
        .iter()
        .flat_map(|revision| &revision.replica_sets)
        .filter(|rs| rs.tags.iter().any(|tag| tag == "canary"))
        .map(|rs| rs.available)
        .sum();
    canary_pods * 100 / total
}

fn replica_set(rs: &ReplicaSet, ro: Option<&Rollout>, pods: &[Pod]) -> ReplicaSetInfo {
    let hash = rs.metadata.labels.as_ref().and_then(|labels| labels.get(keys::POD_TEMPLATE_HASH));
    let annotation = |key: &str| rs.metadata.annotations.as_ref().and_then(|map| map.get(key));
    let status = replica_set_status(rs);
    let mut pods: Vec<PodInfo> =
        pods.iter().filter(|pod| owned_by(&pod.metadata, &rs.metadata)).map(PodInfo::of).collect();
    pods.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    ReplicaSetInfo {
        name: rs.metadata.name.clone().unwrap_or_default(),
        created: created(&rs.metadata),
        status,
        tags: match (ro, hash) {
            (Some(ro), Some(hash)) => tags(ro, hash),
            _ => Vec::new(),
        },
        template: annotation(keys::EXPERIMENT_TEMPLATE).cloned(),
        scale_down_at: annotation(keys::SCALE_DOWN_DEADLINE)
            .filter(|_| status != "ScaledDown")
            .and_then(|text| text.parse().ok()),
        images: rs
            .spec
            .as_ref()
            .and_then(|spec| spec.template.as_ref()?.spec.as_ref())
            .map(|spec| spec.containers.iter().filter_map(|container| container.image.clone()).collect())
            .unwrap_or_default(),
        available: rs.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0),
        pods,
    }
}

/// What the ReplicaSet with this hash is to the Rollout.
fn tags(ro: &Rollout, hash: &str) -> Vec<String> {
    let is = |field: &Option<String>| field.as_deref() == Some(hash);
    let mut tags = Vec::new();
    if ro.spec.strategy.canary.is_some() {
        if is(&ro.status.stable_rs) {
            tags.push("stable");
        } else if is(&ro.status.current_pod_hash) {
            tags.push("canary");
        }
    }
    if ro.spec.strategy.blue_green.is_some() {
        if is(&ro.status.stable_rs) {
            tags.push("stable");
        }
        if is(&ro.status.blue_green.active_selector) {
            tags.push("active");
        } else if is(&ro.status.blue_green.preview_selector) {
            tags.push("preview");
        }
    }
    tags.into_iter().map(str::to_owned).collect()
}

fn replica_set_status(rs: &ReplicaSet) -> &'static str {
    let wanted = rs.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    if wanted == 0 {
        return "ScaledDown";
    }
    let Some(status) = &rs.status else { return "Progressing" };
    if rs.metadata.generation.unwrap_or(0) > status.observed_generation.unwrap_or(0) {
        return "Progressing";
    }
    let failed = status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True");
    if failed {
        "Degraded"
    } else if status.available_replicas.unwrap_or(0) < wanted {
        "Progressing"
    } else {
        "Healthy"
    }
}

fn analysis_run(run: &AnalysisRun) -> AnalysisRunInfo {
    let results = &run.status.metric_results;
    let sum = |count: fn(&tidegate_crds::analysis::MetricResult) -> i32| results.iter().map(count).sum();
    AnalysisRunInfo {
        name: run.name().to_owned(),
        created: created(&run.metadata),
        status: run.status.phase,
        successful: sum(|result| result.successful),
        failed: sum(|result| result.failed),
        inconclusive: sum(|result| result.inconclusive),
        error: sum(|result| result.error),
        jobs: results
            .iter()
            .flat_map(|result| &result.measurements)
            .filter_map(|measurement| {
                Some(JobInfo {
                    name: measurement.metadata.get("job-name")?.clone(),
                    created: measurement.started_at.as_ref().map(|time| time.0),
                    status: measurement.phase,
                })
            })
            .collect(),
    }
}

/// Images of the ReplicaSets that have pods, in the order of their names.
fn images<'a>(replica_sets: impl Iterator<Item = &'a ReplicaSetInfo>) -> Vec<ImageInfo> {
    let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for rs in replica_sets.filter(|rs| rs.status != "ScaledDown") {
        for image in rs.images.iter().collect::<BTreeSet<_>>() {
            let tags = found.entry(image).or_default();
            for tag in rs.tags.iter().cloned().chain(rs.template.iter().map(|template| format!("Σ:{template}"))) {
                if !tags.contains(&tag) {
                    tags.push(tag);
                }
            }
        }
    }
    found.into_iter().map(|(image, tags)| ImageInfo { image: image.to_owned(), tags }).collect()
}

/// Whether `owner` owns the object.
fn owned_by(meta: &ObjectMeta, owner: &ObjectMeta) -> bool {
    let Some(uid) = owner.uid.as_deref() else { return false };
    meta.owner_references.iter().flatten().any(|reference| reference.uid == uid)
}

/// The revision that the object's annotation names, or 0.
pub fn revision(meta: &ObjectMeta) -> i64 {
    meta.annotations.as_ref().and_then(|map| map.get(keys::REVISION)?.parse().ok()).unwrap_or(0)
}

/// When the object was made.
pub fn created(meta: &ObjectMeta) -> Option<Timestamp> {
    meta.creation_timestamp.as_ref().map(|time| time.0)
}
