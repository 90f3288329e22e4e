//! Gathers what a decision about a run looks at. Reads only.

use super::measurements::{Measurements, Outcome};
use crate::api::{Api, ApiError, resources};
use crate::cache::Key;
use crate::context::Context;
use crate::worker::Failure;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tidegate_analysis::provider::job;
use tidegate_crds::Time;
use tidegate_crds::analysis::{AnalysisRun, AnalysisRunStatus, Measurement};

/// How long until a pod that has not started is looked at again. Pods are not watched.
const STARTING: Duration = Duration::from_secs(5);

/// What a decision about a run looks at.
pub(super) struct Snapshot {
    /// The run as it is stored.
    pub(super) run: Arc<AnalysisRun>,
    /// Its status with all that came in since.
    pub(super) status: AnalysisRunStatus,
    /// Metrics that are being measured.
    pub(super) measuring: BTreeSet<String>,
    /// What came in since.
    pub(super) outcomes: Vec<Outcome>,
    /// A Job's pods have not started; look again then.
    pub(super) look_again: Option<Duration>,
}

/// Everything that a decision about the run `key` looks at; none when there is no such run.
pub(super) async fn observe(
    context: &Context,
    measurements: &Measurements,
    key: &Key,
    now: Timestamp,
) -> Result<Option<Snapshot>, Failure> {
    let Some(value) = context.stores.analysis_runs.value(key) else { return Ok(None) };
    let (run, dropped) = AnalysisRun::decode(value).map_err(|error| Failure::Error(error.to_string()))?;
    for field in dropped {
        tracing::debug!(analysis_run = %key, path = field.path, reason = field.reason, "A field is left out.");
    }
    let uid = run.metadata.uid.clone().unwrap_or_default();
    let (measuring, outcomes) = measurements.of(key, &uid);
    let mut status = run.status.clone();
    for outcome in &outcomes {
        outcome.record(&mut status);
    }
    let mut look_again = None;
    if !status.phase.completed() {
        for result in &mut status.metric_results {
            let Some(last) = result.measurements.last().filter(|last| last.finished_at.is_none()) else { continue };
            let Some((namespace, name)) = job::reference(last, &run) else { continue };
            let (judged, starting) = judged(context, last, namespace, name, now).await?;
            if starting {
                look_again = Some(STARTING);
            }
            if judged != *last {
                let mut only = AnalysisRunStatus { metric_results: vec![result.clone()], ..Default::default() };
                tidegate_analysis::engine::record(&mut only, &result.name, judged, Default::default(), now);
                if let Some(updated) = only.metric_results.pop() {
                    *result = updated;
                }
            }
        }
    }
    Ok(Some(Snapshot { run: Arc::new(run), status, measuring, outcomes, look_again }))
}

/// How a measurement stands after its Job, and whether the Job's pods have yet to start.
async fn judged(
    context: &Context,
    measurement: &Measurement,
    namespace: &str,
    name: &str,
    now: Timestamp,
) -> Result<(Measurement, bool), Failure> {
    let key = Key::new(namespace, name);
    let job = match context.stores.jobs.value(&key) {
        Some(job) => Some(job),
        // A Job in a namespace that is not watched is not in the store.
        None => match context.api.get(&resources::JOB, namespace, name).await {
            Ok(job) => Some(job),
            Err(ApiError::NotFound(_)) => None,
            Err(error) => return Err(error.into()),
        },
    };
    let starting = job.as_ref().is_some_and(|job| {
        let count = |field: &str| job["status"][field].as_i64().unwrap_or(0);
        count("active") > 0 && count("ready") == 0
    });
    let pods = if starting { pods(context.api.as_ref(), namespace, name).await? } else { Vec::new() };
    let pods: Vec<&Value> = pods.iter().collect();
    let judged = job::judge(measurement, job.as_ref(), &pods, Time(now));
    let starting = starting && !judged.phase.completed();
    Ok((judged, starting))
}

async fn pods(api: &dyn Api, namespace: &str, job: &str) -> Result<Vec<Value>, Failure> {
    match api.list(&resources::POD, namespace, &format!("job-name={job}")).await {
        Ok(pods) => Ok(pods),
        // Without the right to see pods, a Job is judged by what it says itself.
        Err(ApiError::Forbidden(_)) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}
