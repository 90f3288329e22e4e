//! Wires the AnalysisRun controller: what wakes it, and one reconciliation.

use super::act;
use super::measurements::{Measurements, is_orphan};
use super::observe::observe;
use crate::api::Propagation;
use crate::cache::{Change, Key};
use crate::context::{Context, owners};
use crate::events::{About, Event};
use crate::metrics::Metrics;
use crate::worker::{Failure, Next, Passes, Queue};
use k8s_openapi::jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tidegate_analysis::engine::{self, Task};
use tidegate_analysis::provider::Clients;
use tidegate_analysis::provider::job::Elsewhere;
use tidegate_crds::analysis::{AnalysisRun, AnalysisRunStatus, AnalysisTemplateSpec};
use tidegate_crds::keys;

/// Names the namespace in which Jobs run when it is not that of their run.
const JOB_NAMESPACE: &str = "ARGO_ROLLOUTS_ANALYSIS_JOB_NAMESPACE";
/// Names where Prometheus is for metrics that do not say.
const PROMETHEUS_ADDRESS: &str = "ARGO_ROLLOUTS_PROMETHEUS_ADDRESS";

const PASSES: Passes = Passes { time: "analysis_run_reconcile", errors: "analysis_run_reconcile_error" };

/// The AnalysisRun controller.
pub struct Controller {
    context: Context,
    queue: Arc<Queue>,
    measurements: Arc<Measurements>,
    metrics: Arc<Metrics>,
}

impl Controller {
    /// A controller that hears of every change in the stores from now on. Where Prometheus is by default and where Jobs
    /// run is taken from the environment.
    ///
    /// # Errors
    /// When TLS can not be set up.
    pub fn new(context: Context, metrics: Arc<Metrics>) -> Result<Arc<Self>, String> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let clients = Clients::new(variable(PROMETHEUS_ADDRESS)).map_err(|e| crate::api::error_chain(&e))?;
        let elsewhere = Elsewhere { namespace: variable(JOB_NAMESPACE), cluster: false };
        Ok(Self::with(context, metrics, clients, elsewhere))
    }

    /// As [`Controller::new`], with what the environment would say.
    pub fn with(context: Context, metrics: Arc<Metrics>, clients: Clients, elsewhere: Elsewhere) -> Arc<Self> {
        let measurements = Arc::new(Measurements::new(clients, elsewhere));
        let controller = Arc::new(Self { context, queue: Queue::new(), measurements, metrics });
        controller.listen();
        controller
    }

    /// The keys that wait for this controller.
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    fn listen(self: &Arc<Self>) {
        let this = Arc::downgrade(self);
        self.context.stores.analysis_runs.on_change(move |change| {
            let Some(this) = this.upgrade() else { return };
            if change.object.is_none() {
                this.measurements.forget(change.key);
                let labels = [("namespace", &*change.key.namespace), ("name", &*change.key.name)];
                this.metrics.forget("analysis_run_", &labels);
            }
            this.queue.add(change.key.clone());
        });
        let stores = &self.context.stores;
        for templates in [&stores.analysis_templates, &stores.cluster_analysis_templates] {
            let this = Arc::downgrade(self);
            templates.on_change(move |change| {
                if let Some(this) = this.upgrade() {
                    this.count_template(change);
                }
            });
        }
        let this = Arc::downgrade(self);
        self.context.stores.jobs.on_change(move |change| {
            let Some(this) = this.upgrade() else { return };
            this.wake_run_of(change);
        });
    }

    /// Keeps the series of a template.
    fn count_template(&self, change: Change<'_>) {
        let object = [("namespace", &*change.key.namespace), ("name", &*change.key.name)];
        self.metrics.forget("analysis_template_", &object);
        let Some(template) = change.object else { return };
        self.metrics.set("analysis_template_info", "Templates.", &object, 1.0);
        let spec: AnalysisTemplateSpec = tidegate_crds::decode::lenient(template["spec"].clone()).0;
        for metric in &spec.metrics {
            let kind = metric.provider.set().first().copied().unwrap_or_default();
            let mut labels = object.to_vec();
            labels.extend([("type", kind), ("metric", metric.name.as_str())]);
            self.metrics.set("analysis_template_metric_info", "Metrics of templates by provider.", &labels, 1.0);
        }
    }

    /// Wakes the run to which a Job belongs.
    fn wake_run_of(&self, change: Change<'_>) {
        let runs = &self.context.stores.analysis_runs;
        if let Some(job) = change.object {
            let text = |key: &str| job.pointer("/metadata/annotations")?.get(key)?.as_str();
            let namespace = text(keys::ANALYSIS_RUN_NAMESPACE).unwrap_or(&change.key.namespace);
            if let Some(name) = text(keys::ANALYSIS_RUN_NAME) {
                self.queue.add(Key::new(namespace, name));
            }
            return;
        }
        // A Job that is gone is known by its owner.
        owners(runs, &change).into_iter().for_each(|key| self.queue.add(key));
    }

    /// Works until the queue is closed.
    pub async fn run(self: Arc<Self>) {
        let (queue, workers) = (Arc::clone(&self.queue), self.context.options.analysis_workers);
        let resync = self.context.options.resync;
        let metrics = Arc::clone(&self.metrics);
        crate::worker::run("analysis", queue, workers, metrics, move |key| {
            let this = Arc::clone(&self);
            async move { Ok(this.reconcile(&key).await?.within(resync)) }
        })
        .await;
    }

    /// No more work is begun.
    pub fn close(&self) {
        self.queue.close();
    }

    /// One pass over one AnalysisRun.
    ///
    /// # Errors
    /// When something could not be read or written.
    pub async fn reconcile(self: &Arc<Self>, key: &Key) -> Result<Next, Failure> {
        PASSES.count(&self.metrics, &self.context.stores.analysis_runs, key, self.pass(key)).await
    }

    async fn pass(self: &Arc<Self>, key: &Key) -> Result<Next, Failure> {
        let now = Timestamp::now();
        let Some(snapshot) = observe(&self.context, &self.measurements, key, now).await? else {
            self.measurements.forget(key);
            return Ok(Next::WAIT);
        };
        let stored = Arc::clone(&snapshot.run);
        if !self.context.is_ours(stored.metadata.labels.as_ref()) {
            return Ok(Next::WAIT);
        }
        let current = AnalysisRun { status: snapshot.status.clone(), ..(*stored).clone() };
        let decision = engine::decide(&current, &snapshot.measuring, now);
        if decision.delete {
            let writer = crate::context::Writer { api: self.context.api.as_ref(), stores: &self.context.stores };
            let uid = stored.metadata.uid.as_deref().unwrap_or_default();
            let resource = &crate::api::resources::ANALYSIS_RUN;
            writer.delete(resource, &key.namespace, &key.name, uid).await?;
            tracing::info!(namespace = %key.namespace, analysis_run = %key.name, "Deleted: its time after its end is over.");
            return Ok(Next::WAIT);
        }
        act::act(&self.context, &snapshot, &decision).await?;
        for outcome in snapshot.outcomes.iter().filter(|outcome| is_orphan(outcome, &stored.status)) {
            act::delete_job(&self.context, &stored, &outcome.measured.measurement, Propagation::Background).await?;
        }
        self.measurements.stored(key, &snapshot.outcomes);
        self.start(key, &current, &decision.tasks);
        self.told(key, &stored, &decision);
        let look_again = [decision.look_again, snapshot.look_again].into_iter().flatten().min();
        // A measurement that is due at once was started; the floor keeps a mistake from spinning.
        Ok(look_again.map_or(Next::WAIT, |after| Next::after(after.max(Duration::from_millis(20)))))
    }

    /// Starts the measurements that are due, each in a task of its own that wakes the run at its end.
    fn start(self: &Arc<Self>, key: &Key, run: &AnalysisRun, tasks: &[Task]) {
        let run = Arc::new(run.clone());
        for task in tasks {
            let Task::Start { metric } = task else { continue };
            let (queue, wake) = (Arc::clone(&self.queue), key.clone());
            let (api, stores) = (&self.context.api, &self.context.stores);
            self.measurements.start(api, stores, key, &run, metric, move || queue.add(wake));
        }
    }

    /// Tells what happened: events, a line in the log, metrics.
    fn told(&self, key: &Key, run: &AnalysisRun, decision: &engine::Decision) {
        let about = About {
            api_version: tidegate_crds::API_VERSION.to_owned(),
            kind: AnalysisRun::KIND.to_owned(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            uid: run.metadata.uid.clone().unwrap_or_default(),
        };
        let events = decision.events.iter().map(|event| Event {
            warning: event.warning,
            reason: event.reason.clone(),
            message: event.message.clone(),
        });
        self.context.recorder.tell(&about, events);
        let status = &decision.status;
        if status.phase != run.status.phase {
            let why = status.message.as_deref().unwrap_or_default();
            let (from, to) = (run.status.phase.as_str(), status.phase.as_str());
            tracing::info!(namespace = %key.namespace, analysis_run = %key.name, from, to, why, "The analysis changed phase.");
        }
        self.count(key, run, status);
    }

    fn count(&self, key: &Key, run: &AnalysisRun, status: &AnalysisRunStatus) {
        let object = [("namespace", &*key.namespace), ("name", &*key.name)];
        let metrics = &self.metrics;
        let state = [("phase", status.phase.as_str())];
        metrics.state("analysis_run_info", "AnalysisRuns by phase.", &object, &state);
        let help = "AnalysisRuns by phase; analysis_run_info takes its place.";
        metrics.state("analysis_run_phase", help, &object, &state);
        metrics.forget("analysis_run_metric_", &object);
        for metric in &run.spec.metrics {
            let kind = metric.provider.set().first().copied().unwrap_or_default();
            let mut labels = object.to_vec();
            labels.extend([("metric", metric.name.as_str()), ("type", kind)]);
            metrics.set("analysis_run_metric_type", "Metrics of AnalysisRuns by provider.", &labels, 1.0);
            if let Some(result) = status.metric_results.iter().find(|result| result.name == metric.name) {
                let dry = if result.dry_run { "true" } else { "false" };
                labels.extend([("dry_run", dry), ("phase", result.phase.as_str())]);
                metrics.set("analysis_run_metric_phase", "Metrics of AnalysisRuns by phase.", &labels, 1.0);
            }
        }
    }
}
