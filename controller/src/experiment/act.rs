//! Makes a decision's writes. Nothing is decided here: what does not go through is found out, and decided upon anew.

use super::decision::{Action, Decision};
use super::snapshot::{Findings, Owner, Snapshot};
use crate::api::{ApiError, Resource, resources};
use crate::context::Writer;
use crate::events::Event;
use crate::rollout::act::replica_set_patch;
use crate::worker::Failure;
use serde_json::{Value, json};
use tidegate_crds::experiment::ExperimentStatus;
use tidegate_crds::{keys, patch};

/// Why writes ended before their end.
pub(super) enum Stop {
    /// Something was found out; the decision is to be made again with it.
    Found,
    /// The pass is over, and tried again later.
    Failed(Failure),
}

impl From<ApiError> for Stop {
    fn from(error: ApiError) -> Self {
        Self::Failed(error.into())
    }
}

/// Makes the writes of `decision` in order, the status last. Stops at the first that fails; what was written stays, and
/// the next pass goes on from there. What is found out goes into `findings`, what it means for the user into `told`.
pub(super) async fn act(
    writer: &Writer<'_>,
    snapshot: &Snapshot,
    decision: &Decision,
    findings: &mut Findings,
    told: &mut Vec<Event>,
) -> Result<(), Stop> {
    let namespace = snapshot.experiment.namespace();
    for action in &decision.actions {
        match action {
            Action::CreateReplicaSet { template, name, object } => {
                let what = format!("Failed to create ReplicaSet for template '{template}'");
                match writer.create(&resources::REPLICA_SET, namespace, object).await {
                    Ok(_) => {}
                    Err(ApiError::AlreadyExists(_)) => {
                        return Err(taken(writer, snapshot, template, name, findings).await?);
                    }
                    Err(error) => {
                        told.push(Event::warning("ReplicaSetCreateError", format!("{what}: {error}")));
                        return Err(refused(template, &what, error, findings));
                    }
                }
            }
            Action::PatchReplicaSet { template, name, change } => {
                let body = replica_set_patch(None, change);
                match (writer.merge(&resources::REPLICA_SET, namespace, name, "", &body).await, template) {
                    (Ok(_), _) => {}
                    (Err(error @ (ApiError::Invalid(_) | ApiError::Forbidden(_))), Some(template)) => {
                        let what = format!("Unable to scale ReplicaSet for template '{template}'");
                        told.push(Event::warning("ReplicaSetUpdateError", format!("{what}: {error}")));
                        return Err(refused(template, &what, error, findings));
                    }
                    (Err(error), _) => return Err(error.into()),
                }
            }
            Action::CreateService { template, name, object } => {
                match writer.create(&resources::SERVICE, namespace, object).await {
                    Ok(_) => {}
                    Err(ApiError::AlreadyExists(_)) => {
                        return Err(Stop::Failed(learn(writer, &resources::SERVICE, namespace, name).await?));
                    }
                    Err(error) => {
                        let what = format!("Failed to create Service {name} for template '{template}'");
                        return Err(refused(template, &what, error, findings));
                    }
                }
            }
            Action::SelectService { name, hash } => {
                let body = json!({"spec": {"selector": {keys::POD_TEMPLATE_HASH: hash}}});
                writer.merge(&resources::SERVICE, namespace, name, "", &body).await?;
            }
            Action::DeleteService { name, uid } => {
                writer.delete(&resources::SERVICE, namespace, name, uid).await?;
            }
            Action::CreateAnalysisRun { name, object } => {
                match writer.create(&resources::ANALYSIS_RUN, namespace, object).await {
                    Ok(_) => {}
                    Err(ApiError::AlreadyExists(_)) => {
                        return Err(Stop::Failed(learn(writer, &resources::ANALYSIS_RUN, namespace, name).await?));
                    }
                    Err(ApiError::Conflict(message)) => return Err(Stop::Failed(Failure::Stale(message))),
                    Err(error) => {
                        let text = format!("AnalysisRun {namespace}/{name} cannot be created: {error}");
                        return Err(Stop::Failed(Failure::Error(text)));
                    }
                }
            }
            Action::TerminateAnalysisRun { name } => {
                let body = json!({"spec": {"terminate": true}});
                match writer.merge(&resources::ANALYSIS_RUN, namespace, name, "", &body).await {
                    Ok(_) | Err(ApiError::NotFound(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    write_status(writer, snapshot, &decision.status).await
}

/// What the API server does not take now it will not take later; everything else is worth another attempt.
fn refused(template: &str, what: &str, error: ApiError, findings: &mut Findings) -> Stop {
    let text = format!("{what}: {error}");
    match error {
        ApiError::Invalid(_) | ApiError::Forbidden(_) => {
            findings.refused.insert(template.to_owned(), text);
            Stop::Found
        }
        ApiError::Conflict(_) => Stop::Failed(Failure::Stale(text)),
        _ => Stop::Failed(Failure::Error(text)),
    }
}

/// Reads an object that the store did not know, so that the next pass sees it.
async fn learn(writer: &Writer<'_>, resource: &Resource, namespace: &str, name: &str) -> Result<Failure, Stop> {
    let existing = writer.api.get(resource, namespace, name).await?;
    writer.stores.of(resource).apply(existing);
    Ok(Failure::Stale(format!("{} {namespace}/{name} exists already; the cache did not know it yet", resource.kind)))
}

/// The name of a ReplicaSet is taken: by an earlier pass, by an Experiment of the same name that is gone, or by somebody
/// else.
async fn taken(
    writer: &Writer<'_>,
    snapshot: &Snapshot,
    template: &str,
    name: &str,
    findings: &mut Findings,
) -> Result<Stop, Stop> {
    let namespace = snapshot.experiment.namespace();
    let existing = writer.api.get(&resources::REPLICA_SET, namespace, name).await?;
    let owner = Owner::of(&existing);
    let of = existing.pointer("/metadata/annotations").and_then(|a| a.get(keys::EXPERIMENT_TEMPLATE));
    if owner.as_ref().is_some_and(|owner| owner.uid == snapshot.uid()) && of.and_then(Value::as_str) == Some(template) {
        writer.stores.replica_sets.apply(existing);
        let text = format!("ReplicaSet {namespace}/{name} exists already; the cache did not know it yet");
        return Ok(Stop::Failed(Failure::Stale(text)));
    }
    if owner.is_some_and(|owner| owner.is_predecessor(&snapshot.experiment)) {
        let text = format!("ReplicaSet {namespace}/{name} is of an earlier Experiment of this name; waits for its end");
        return Ok(Stop::Failed(Failure::Stale(text)));
    }
    *findings.collisions.entry(template.to_owned()).or_default() += 1;
    Ok(Stop::Found)
}

/// Writes what changed of the status, on the version that was decided upon.
async fn write_status(writer: &Writer<'_>, snapshot: &Snapshot, status: &ExperimentStatus) -> Result<(), Stop> {
    let experiment = &snapshot.experiment;
    let value = |status: &ExperimentStatus| serde_json::to_value(status).unwrap_or_default();
    let Some(change) = patch::merge_diff(&value(&experiment.status), &value(status)) else { return Ok(()) };
    let body = json!({"metadata": {"resourceVersion": experiment.metadata.resource_version}, "status": change});
    match writer.merge_status(&resources::EXPERIMENT, experiment.namespace(), experiment.name(), &body).await {
        // An Experiment that is gone needs no status.
        Ok(_) | Err(ApiError::NotFound(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
