//! Makes a decision's writes. Nothing is decided here.

use super::observe::Snapshot;
use crate::api::{ApiError, Propagation, resources};
use crate::cache::Key;
use crate::context::{Context, Writer, owned_by};
use crate::worker::Failure;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tidegate_analysis::engine::{Decision, Task};
use tidegate_analysis::provider::job;
use tidegate_crds::analysis::{AnalysisRun, AnalysisRunStatus, Measurement};
use tidegate_crds::patch;

/// Ends measurements and writes the status, in this order: were it the other way round, a crash in between would leave
/// a Job of which nobody knows any more. Gives whether the status was written.
pub(super) async fn act(context: &Context, snapshot: &Snapshot, decision: &Decision) -> Result<bool, Failure> {
    let run = &*snapshot.run;
    for task in &decision.tasks {
        match task {
            Task::Terminate { measurement, .. } => {
                delete_job(context, run, measurement, Propagation::Foreground).await?
            }
            Task::Collect { measurement, .. } => delete_job(context, run, measurement, Propagation::Background).await?,
            Task::Start { .. } | Task::Resume { .. } => {}
        }
    }
    let written = write_status(context, run, &decision.status).await?;
    if decision.status.phase.completed() && written {
        delete_unknown_jobs(context, run, &decision.status).await?;
    }
    Ok(written)
}

/// Deletes the Job of a measurement. That it is gone already is fine.
pub(super) async fn delete_job(
    context: &Context,
    run: &AnalysisRun,
    measurement: &Measurement,
    propagation: Propagation,
) -> Result<(), Failure> {
    let Some((namespace, name)) = job::reference(measurement, run) else { return Ok(()) };
    match context.api.delete(&resources::JOB, namespace, name, "", propagation).await {
        Ok(()) | Err(ApiError::NotFound(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Writes what changed of the status, on the version that was decided upon. A run that is gone needs none.
async fn write_status(context: &Context, run: &AnalysisRun, status: &AnalysisRunStatus) -> Result<bool, Failure> {
    let Some(mut body) = status_patch(&run.status, status) else { return Ok(false) };
    body["metadata"] = json!({"resourceVersion": run.metadata.resource_version});
    let writer = Writer { api: context.api.as_ref(), stores: &context.stores };
    match writer.merge_status(&resources::ANALYSIS_RUN, run.namespace(), run.name(), &body).await {
        Ok(_) => Ok(true),
        Err(ApiError::NotFound(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The merge patch from one status to another; none when nothing changed.
fn status_patch(before: &AnalysisRunStatus, after: &AnalysisRunStatus) -> Option<Value> {
    let value = |status| serde_json::to_value(status).unwrap_or_default();
    patch::merge_diff(&value(before), &value(after)).map(|status| json!({"status": status}))
}

/// A run that has its verdict leaves no Job running that its status does not know: one can be left when the controller
/// was stopped between creating it and writing the status.
async fn delete_unknown_jobs(context: &Context, run: &AnalysisRun, status: &AnalysisRunStatus) -> Result<(), Failure> {
    let uid = run.metadata.uid.as_deref().unwrap_or_default();
    let known: BTreeSet<(&str, &str)> = status
        .metric_results
        .iter()
        .flat_map(|result| &result.measurements)
        .filter_map(|measurement| job::reference(measurement, run))
        .collect();
    for job in context.stores.jobs.by_index::<Value>(&owned_by(uid)) {
        let Some(Key { namespace, name }) = crate::cache::key_of(&job) else { continue };
        let conditions = job["status"]["conditions"].as_array();
        let finished = conditions.is_some_and(|all| {
            all.iter().any(|c| c["status"] == "True" && (c["type"] == "Complete" || c["type"] == "Failed"))
        });
        if !finished && !known.contains(&(&*namespace, &*name)) {
            context.api.delete(&resources::JOB, &namespace, &name, "", Propagation::Background).await?;
        }
    }
    Ok(())
}
