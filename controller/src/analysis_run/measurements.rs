//! Measurements that are being taken, and those that are not in a status yet.

use crate::api::{Api, ApiError, resources};
use crate::cache::Key;
use crate::context::Stores;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use tidegate_analysis::arguments::{self, Values};
use tidegate_analysis::provider::job::{self, Elsewhere};
use tidegate_analysis::provider::{Clients, Measured, failed};
use tidegate_crds::Time;
use tidegate_crds::analysis::{AnalysisPhase, AnalysisRun, AnalysisRunStatus, Metric};
use tokio::sync::Semaphore;

/// How many measurements are taken at the same time.
const AT_ONCE: usize = 256;

/// What a measurement came to.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) metric: String,
    /// How many measurements the metric had when this one began. One that is in the status already is known by it.
    ordinal: i64,
    pub(super) measured: Measured,
    ended: Timestamp,
}

impl Outcome {
    /// Puts the outcome into a status, unless it is there already: a write can take effect though its answer is lost.
    pub(super) fn record(&self, status: &mut AnalysisRunStatus) {
        if ordinal(status, &self.metric) != self.ordinal || in_flight(status, &self.metric) {
            return;
        }
        let Measured { measurement, metadata } = self.measured.clone();
        tidegate_analysis::engine::record(status, &self.metric, measurement, metadata, self.ended);
    }
}

fn ordinal(status: &AnalysisRunStatus, metric: &str) -> i64 {
    let result = status.metric_results.iter().find(|result| result.name == metric);
    result.map_or(0, |result| i64::from(result.count) + i64::from(result.error))
}

fn in_flight(status: &AnalysisRunStatus, metric: &str) -> bool {
    let result = status.metric_results.iter().find(|result| result.name == metric);
    result.and_then(|result| result.measurements.last()).is_some_and(|last| last.finished_at.is_none())
}

enum State {
    Measuring,
    Done(Box<Outcome>),
}

#[derive(Default)]
struct Slot {
    uid: String,
    metrics: BTreeMap<String, State>,
}

/// The measurements of all runs that are not in a status yet.
pub(super) struct Measurements {
    slots: Mutex<HashMap<Key, Slot>>,
    clients: Clients,
    elsewhere: Elsewhere,
    limit: Arc<Semaphore>,
}

impl Measurements {
    pub(super) fn new(clients: Clients, elsewhere: Elsewhere) -> Self {
        Self { slots: Mutex::default(), clients, elsewhere, limit: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Slot>> {
        self.slots.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The run is gone.
    pub(super) fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    /// The metrics of a run that are being measured, and the outcomes that wait for its status.
    pub(super) fn of(&self, key: &Key, uid: &str) -> (BTreeSet<String>, Vec<Outcome>) {
        let mut slots = self.lock();
        let (mut measuring, mut outcomes) = (BTreeSet::new(), Vec::new());
        if slots.get(key).is_some_and(|slot| slot.uid != uid) {
            // Another run had this name before.
            slots.remove(key);
        }
        for (metric, state) in slots.get(key).into_iter().flat_map(|slot| &slot.metrics) {
            match state {
                State::Measuring => {
                    measuring.insert(metric.clone());
                }
                State::Done(outcome) => outcomes.push((**outcome).clone()),
            }
        }
        outcomes.sort_by_key(|outcome| outcome.ended);
        (measuring, outcomes)
    }

    /// The outcomes are in the status.
    pub(super) fn stored(&self, key: &Key, outcomes: &[Outcome]) {
        let mut slots = self.lock();
        let Some(slot) = slots.get_mut(key) else { return };
        for outcome in outcomes {
            // A measurement that was started since stands at the same place.
            if matches!(slot.metrics.get(&outcome.metric), Some(State::Done(done)) if done.ordinal == outcome.ordinal) {
                slot.metrics.remove(&outcome.metric);
            }
        }
        if slot.metrics.is_empty() {
            slots.remove(key);
        }
    }

    /// Begins a measurement, unless the metric is being measured. `done` is called at its end.
    pub(super) fn start(
        self: &Arc<Self>,
        api: &Arc<dyn Api>,
        stores: &Arc<Stores>,
        key: &Key,
        run: &Arc<AnalysisRun>,
        metric: &str,
        done: impl FnOnce() + Send + 'static,
    ) {
        let uid = run.metadata.uid.clone().unwrap_or_default();
        {
            let mut slots = self.lock();
            let slot = slots.entry(key.clone()).or_default();
            if slot.uid != uid {
                *slot = Slot { uid: uid.clone(), metrics: BTreeMap::new() };
            }
            if slot.metrics.contains_key(metric) {
                return;
            }
            slot.metrics.insert(metric.to_owned(), State::Measuring);
        }
        let (this, api, stores) = (Arc::clone(self), Arc::clone(api), Arc::clone(stores));
        let (run, key, metric) = (Arc::clone(run), key.clone(), metric.to_owned());
        tokio::spawn(async move {
            // The semaphore is never closed.
            let _permit = Arc::clone(&this.limit).acquire_owned().await;
            // A task of its own: should it panic, the metric must not be taken for measured for ever.
            let task = {
                let (this, run, metric) = (Arc::clone(&this), Arc::clone(&run), metric.clone());
                tokio::spawn(async move { this.measure(api.as_ref(), &stores, &run, &metric).await })
            };
            let measured = task.await.unwrap_or_else(|error| Measured {
                measurement: failed(Timestamp::now(), format!("the measurement ended early: {error}")),
                ..Measured::default()
            });
            let ordinal = ordinal(&run.status, &metric);
            let outcome = Outcome { metric: metric.clone(), ordinal, measured, ended: Timestamp::now() };
            {
                let mut slots = this.lock();
                if let Some(slot) = slots.get_mut(&key).filter(|slot| slot.uid == uid) {
                    slot.metrics.insert(metric, State::Done(Box::new(outcome)));
                }
            }
            done();
        });
    }

    async fn measure(&self, api: &dyn Api, stores: &Stores, run: &AnalysisRun, name: &str) -> Measured {
        let started = Timestamp::now();
        let error = |message: String| Measured { measurement: failed(started, message), ..Measured::default() };
        let Some((metric, secrets)) = (match resolved(api, run, name).await {
            Ok(resolved) => resolved,
            Err(message) => return error(message),
        }) else {
            return error(format!("there is no metric {name:?}"));
        };
        if metric.provider.job.is_none() {
            return self.clients.measure(&metric, &secrets).await;
        }
        match self.create_job(api, stores, run, &metric).await {
            Ok(job) => Measured { measurement: job::started(&job, Time(started)), ..Measured::default() },
            Err(message) => error(arguments::redact(&message, &secrets)),
        }
    }

    async fn create_job(
        &self,
        api: &dyn Api,
        stores: &Stores,
        run: &AnalysisRun,
        metric: &Metric,
    ) -> Result<Value, String> {
        let job = job::build(run, metric, &self.elsewhere)?;
        let text = |field: &str| job["metadata"][field].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        let created = match api.create(&resources::JOB, &namespace, &job, false).await {
            Ok(created) => created,
            Err(ApiError::AlreadyExists(message)) => {
                // Created before, and the answer or the status was lost.
                let found = api.get(&resources::JOB, &namespace, &name).await.map_err(|error| error.to_string())?;
                if !job::belongs(&found, run) {
                    return Err(format!("cannot create job {name:?}: {message}, and it belongs to somebody else"));
                }
                found
            }
            Err(error) => return Err(format!("cannot create job {name:?}: {error}")),
        };
        stores.jobs.apply(created.clone());
        Ok(created)
    }
}

/// A metric with its arguments filled in, and the secrets among them.
async fn resolved(api: &dyn Api, run: &AnalysisRun, name: &str) -> Result<Option<(Metric, Vec<String>)>, String> {
    let (mut values, mut secrets) = (Values::new(), Vec::new());
    for arg in &run.spec.args {
        let reference = arg.value_from.as_ref().and_then(|from| from.secret_key_ref.as_ref());
        let value = match (reference, &arg.value) {
            (Some(reference), _) => {
                let secret = api
                    .get(&resources::SECRET, run.namespace(), &reference.name)
                    .await
                    .map_err(|error| format!("args.{}: cannot read Secret {:?}: {error}", arg.name, reference.name))?;
                let secret = secret_text(&secret, &reference.key).ok_or_else(|| {
                    format!("args.{}: key '{}' does not exist in secret '{}'", arg.name, reference.key, reference.name)
                })?;
                secrets.push(secret.clone());
                secret
            }
            (None, Some(value)) => value.clone(),
            (None, None) => return Err(format!("args.{} was not resolved", arg.name)),
        };
        values.insert(arg.name.clone(), value);
    }
    for metric in &run.spec.metrics {
        let filled =
            arguments::substitute(metric, &values).map_err(|error| arguments::redact(&error.to_string(), &secrets))?;
        // The name can be templated too, and is known by what it becomes.
        if filled.name == name {
            return Ok(Some((filled, secrets)));
        }
    }
    Ok(None)
}

fn secret_text(secret: &Value, key: &str) -> Option<String> {
    use base64::Engine;
    let data = secret.get("data")?.get(key)?.as_str()?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(data).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The outcome is a Job that goes on, for a run that has its verdict.
pub(super) fn is_orphan(outcome: &Outcome, status: &AnalysisRunStatus) -> bool {
    status.phase.completed() && outcome.measured.measurement.phase == AnalysisPhase::Running
}
