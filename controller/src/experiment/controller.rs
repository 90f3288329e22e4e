//! Wires the Experiment controller: what wakes it, and one reconciliation.

use super::act::{Stop, act};
use super::decide::decide;
use super::observe::observe;
use super::snapshot::Findings;
use crate::cache::{Change, Key};
use crate::context::{Context, Writer, controller_of, owners};
use crate::events::About;
use crate::metrics::Metrics;
use crate::worker::{Failure, Next, Passes, Queue};
use k8s_openapi::jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tidegate_crds::analysis::AnalysisPhase;
use tidegate_crds::experiment::Experiment;

/// How often one pass decides anew because a write found something out.
const ATTEMPTS: usize = 8;

const PASSES: Passes = Passes { time: "experiment_reconcile", errors: "experiment_reconcile_error" };

/// The Experiment controller.
pub struct Controller {
    context: Context,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
}

impl Controller {
    /// A controller that hears of every change in the stores from now on.
    pub fn new(context: Context, metrics: Arc<Metrics>) -> Arc<Self> {
        let controller = Arc::new(Self { context, queue: Queue::new(), metrics });
        controller.listen();
        controller
    }

    /// The keys that wait for this controller.
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    fn listen(self: &Arc<Self>) {
        let stores = &self.context.stores;
        let on = |wake: fn(&Self, Change<'_>)| {
            let this = Arc::downgrade(self);
            move |change: Change<'_>| {
                if let Some(this) = this.upgrade() {
                    wake(&this, change);
                }
            }
        };
        stores.experiments.on_change(on(|this, change| {
            if change.object.is_none() {
                let labels = [("namespace", &*change.key.namespace), ("name", &*change.key.name)];
                this.metrics.forget("experiment_", &labels);
            }
            this.queue.add(change.key.clone());
        }));
        stores.replica_sets.on_change(on(Self::wake_owner));
        stores.analysis_runs.on_change(on(Self::wake_owner));
        stores.services.on_change(on(|this, change| {
            if change.object.is_none() {
                this.wake_unfinished(&change.key.namespace);
            } else {
                this.wake_owner(change);
            }
        }));
        for templates in [&stores.analysis_templates, &stores.cluster_analysis_templates] {
            templates.on_change(on(|this, change| {
                // At the start all Experiments are looked at anyway.
                if !change.initial {
                    this.wake_unfinished(&change.key.namespace);
                }
            }));
        }
    }

    /// Wakes the Experiment to which an object belongs.
    fn wake_owner(&self, change: Change<'_>) {
        let experiments = &self.context.stores.experiments;
        match change.object.map(controller_of) {
            Some(Some((kind, name, _))) if kind == Experiment::KIND => {
                self.queue.add(Key::new(&change.key.namespace, name));
            }
            Some(_) => {}
            // What is gone is known by its owner.
            None => owners(experiments, &change).into_iter().for_each(|key| self.queue.add(key)),
        }
    }

    /// Wakes the Experiments of a namespace, or of all, that have not ended.
    fn wake_unfinished(&self, namespace: &str) {
        let experiments = &self.context.stores.experiments;
        let keys = if namespace.is_empty() { experiments.keys() } else { experiments.keys_in(namespace) };
        for key in keys {
            let value = experiments.value(&key).unwrap_or_default();
            let phase = value.pointer("/status/phase").cloned().unwrap_or_default();
            if !serde_json::from_value::<AnalysisPhase>(phase).is_ok_and(AnalysisPhase::completed) {
                self.queue.add(key);
            }
        }
    }

    /// Works until the queue is closed.
    pub async fn run(self: Arc<Self>) {
        let (queue, workers) = (Arc::clone(&self.queue), self.context.options.experiment_workers);
        let resync = self.context.options.resync;
        let metrics = Arc::clone(&self.metrics);
        crate::worker::run("experiment", queue, workers, metrics, move |key| {
            let this = Arc::clone(&self);
            async move { Ok(this.reconcile(&key).await?.within(resync)) }
        })
        .await;
    }

    /// No more work is begun.
    pub fn close(&self) {
        self.queue.close();
    }

    /// One pass over one Experiment.
    ///
    /// # Errors
    /// When something could not be read or written.
    pub async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        PASSES.count(&self.metrics, &self.context.stores.experiments, key, self.pass(key)).await
    }

    async fn pass(&self, key: &Key) -> Result<Next, Failure> {
        let mut findings = Findings::default();
        for _ in 0..ATTEMPTS {
            let Some(snapshot) = observe(&self.context, key, &findings)? else { return Ok(Next::WAIT) };
            let experiment = &snapshot.experiment;
            if !self.context.is_ours(experiment.metadata.labels.as_ref()) {
                return Ok(Next::WAIT);
            }
            let now = Timestamp::now();
            let decision = decide(&snapshot, now);
            let writer = Writer { api: self.context.api.as_ref(), stores: &self.context.stores };
            let mut told = Vec::new();
            let written = act(&writer, &snapshot, &decision, &mut findings, &mut told).await;
            let about = about(key, experiment.metadata.uid.as_deref().unwrap_or_default());
            self.context.recorder.tell(&about, told);
            match written {
                Ok(()) => {}
                Err(Stop::Found) => continue,
                Err(Stop::Failed(failure)) => return Err(failure),
            }
            for why in &decision.why {
                tracing::info!(namespace = %key.namespace, experiment = %key.name, "{why}");
            }
            self.context.recorder.tell(&about, decision.events);
            self.count(key, decision.status.phase);
            return Ok(decision.wake.map_or(Next::WAIT, |at| {
                let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                // What is due at once was done; the floor keeps a mistake from spinning.
                Next::after(wait.max(Duration::from_millis(20)))
            }));
        }
        Err(Failure::Stale(format!("after {ATTEMPTS} attempts there is no free name for a ReplicaSet")))
    }

    fn count(&self, key: &Key, phase: AnalysisPhase) {
        let object = [("namespace", &*key.namespace), ("name", &*key.name)];
        let state = [("phase", phase.as_str())];
        self.metrics.state("experiment_info", "Experiments by phase.", &object, &state);
        let help = "Experiments by phase; experiment_info takes its place.";
        self.metrics.state("experiment_phase", help, &object, &state);
    }
}

fn about(key: &Key, uid: &str) -> About {
    About {
        api_version: tidegate_crds::API_VERSION.to_owned(),
        kind: Experiment::KIND.to_owned(),
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        uid: uid.to_owned(),
    }
}
