//! Wires the Experiment controller: what wakes it, what it reads, and its writes.

use super::decide::{Action, Decision, Snapshot, decide};
use crate::api::{ApiError, Resource, resources};
use crate::cache::Key;
use crate::context::{Context, Writer, controller_of, owned_by};
use crate::events::About;
use crate::metrics::Metrics;
use crate::rollout::{ReplicaSet, TemplateSet};
use crate::worker::{Failure, Next, Queue};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_crds::analysis::{AnalysisTemplate, ClusterAnalysisTemplate};
use tidegate_crds::experiment::Experiment;
use tidegate_crds::patch;

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

    fn listen(self: &Arc<Self>) {
        let stores = &self.context.stores;
        let this = Arc::downgrade(self);
        stores.experiments.on_change(move |change| {
            let Some(this) = this.upgrade() else { return };
            if change.object.is_none() {
                let labels = [("namespace", &*change.key.namespace), ("name", &*change.key.name)];
                this.metrics.forget("experiment_", &labels);
            }
            this.queue.add(change.key.clone());
        });
        for store in [&stores.replica_sets, &stores.analysis_runs] {
            let this = Arc::downgrade(self);
            store.on_change(move |change| {
                let Some(this) = this.upgrade() else { return };
                match change.object {
                    Some(object) => {
                        if let Some((Experiment::KIND, name, _)) = controller_of(object) {
                            this.queue.add(Key::new(&change.key.namespace, name));
                        }
                    }
                    // Its owner's uid stands in the index.
                    None => {
                        let experiments = &this.context.stores.experiments;
                        for key in experiments.keys_in(&change.key.namespace) {
                            if experiments.uid(&key).is_some_and(|uid| change.index.contains(&owned_by(&uid))) {
                                this.queue.add(key);
                            }
                        }
                    }
                }
            });
        }
    }

    /// Works until the queue is closed.
    pub async fn run(self: Arc<Self>) {
        let (queue, workers) = (Arc::clone(&self.queue), self.context.options.experiment_workers);
        let resync = self.context.options.resync;
        crate::worker::run("experiment", queue, workers, move |key| {
            let this = Arc::clone(&self);
            async move {
                let next = this.reconcile(&key).await?;
                Ok(Next::after(next.after.map_or(resync, |after| after.min(resync))))
            }
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
        let begun = Instant::now();
        let result = self.pass(key).await;
        if self.context.stores.experiments.contains(key) {
            let labels = [("namespace", &*key.namespace), ("name", &*key.name)];
            let help = "Seconds that a pass over an Experiment took.";
            self.metrics.observe("experiment_reconcile", help, &labels, begun.elapsed().as_secs_f64());
            let help = "Passes over an Experiment that failed.";
            let failed = if result.is_err() { 1.0 } else { 0.0 };
            self.metrics.count("experiment_reconcile_error", help, &labels, failed);
        }
        result
    }

    async fn pass(&self, key: &Key) -> Result<Next, Failure> {
        let Some(snapshot) = self.observe(key)? else { return Ok(Next::WAIT) };
        if !self.context.is_ours(snapshot.experiment.metadata.labels.as_ref()) {
            return Ok(Next::WAIT);
        }
        let now = Timestamp::now();
        let decision = decide(&snapshot, now);
        self.act(&snapshot, &decision).await?;
        let phase = decision.status.phase.as_str();
        let object = [("namespace", &*key.namespace), ("name", &*key.name)];
        for family in ["experiment_info", "experiment_phase"] {
            self.metrics.forget(family, &object);
            let labels = [object[0], object[1], ("phase", phase)];
            self.metrics.set(family, "Experiments by phase.", &labels, 1.0);
        }
        let about = About {
            api_version: tidegate_crds::API_VERSION.to_owned(),
            kind: Experiment::KIND.to_owned(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            uid: snapshot.experiment.metadata.uid.clone().unwrap_or_default(),
        };
        for event in &decision.events {
            tracing::info!(namespace = %key.namespace, experiment = %key.name, "{}", event.message);
        }
        self.context.recorder.tell(&about, decision.events);
        Ok(decision.wake.map_or(Next::WAIT, |at| {
            let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            Next::after(wait.max(Duration::from_millis(20)))
        }))
    }

    fn observe(&self, key: &Key) -> Result<Option<Snapshot>, Failure> {
        let stores = &self.context.stores;
        let Some(value) = stores.experiments.value(key) else { return Ok(None) };
        let (experiment, _) = Experiment::decode(value).map_err(|error| Failure::Error(error.to_string()))?;
        let uid = experiment.metadata.uid.clone().unwrap_or_default();
        let owned = owned_by(&uid);
        let mut snapshot = Snapshot { instance_id: self.context.instance_id(), ..Snapshot::default() };
        snapshot.replica_sets =
            stores.replica_sets.by_index::<Value>(&owned).iter().filter_map(ReplicaSet::from_value).collect();
        snapshot.analysis_runs = stores.analysis_runs.by_index(&owned);
        for template in &experiment.spec.templates {
            let Some(service) = &template.service else { continue };
            let name = service.name.clone().unwrap_or_else(|| format!("{}-{}", experiment.name(), template.name));
            let found = stores.services.value(&Key::new(&key.namespace, &name));
            if found.as_ref().and_then(controller_of).is_some_and(|(_, _, owner)| owner == uid) {
                snapshot.services.insert(name);
            }
        }
        snapshot.templates = self.templates(&experiment);
        snapshot.experiment = experiment;
        Ok(Some(snapshot))
    }

    fn templates(&self, experiment: &Experiment) -> TemplateSet {
        let stores = &self.context.stores;
        let mut set = TemplateSet::default();
        let mut open: Vec<(String, bool)> =
            experiment.spec.analyses.iter().map(|a| (a.template_name.clone(), a.cluster_scope)).collect();
        while let Some((name, cluster)) = open.pop() {
            if set.0.contains_key(&(name.clone(), cluster)) {
                continue;
            }
            let spec = if cluster {
                stores.cluster_analysis_templates.get::<ClusterAnalysisTemplate>(&Key::new("", &name)).map(|t| t.spec)
            } else {
                let key = Key::new(experiment.namespace(), &name);
                stores.analysis_templates.get::<AnalysisTemplate>(&key).map(|t| t.spec)
            };
            if let Some(spec) = spec {
                open.extend(spec.templates.iter().map(|t| (t.template_name.clone(), t.cluster_scope)));
                set.0.insert((name, cluster), spec);
            }
        }
        set
    }

    async fn act(&self, snapshot: &Snapshot, decision: &Decision) -> Result<(), Failure> {
        let experiment = &snapshot.experiment;
        let namespace = experiment.namespace();
        let writer = Writer { api: self.context.api.as_ref(), stores: &self.context.stores };
        for action in &decision.actions {
            match action {
                Action::CreateReplicaSet(object) => {
                    self.create(&writer, snapshot, &resources::REPLICA_SET, object).await?
                }
                Action::CreateService(object) => self.create(&writer, snapshot, &resources::SERVICE, object).await?,
                Action::CreateAnalysisRun(object) => {
                    self.create(&writer, snapshot, &resources::ANALYSIS_RUN, object).await?
                }
                Action::PatchReplicaSet(name, patch) => {
                    writer.merge(&resources::REPLICA_SET, namespace, name, "", patch).await?;
                }
                Action::DeleteService(name) => writer.delete(&resources::SERVICE, namespace, name, "").await?,
                Action::TerminateAnalysisRun(name) => {
                    let body = json!({"spec": {"terminate": true}});
                    match writer.merge(&resources::ANALYSIS_RUN, namespace, name, "", &body).await {
                        Ok(_) | Err(ApiError::NotFound(_)) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
        let value = |status| serde_json::to_value(status).unwrap_or_default();
        let Some(status) = patch::merge_diff(&value(&experiment.status), &value(&decision.status)) else {
            return Ok(());
        };
        let body = json!({"metadata": {"resourceVersion": experiment.metadata.resource_version}, "status": status});
        match writer.merge_status(&resources::EXPERIMENT, namespace, experiment.name(), &body).await {
            Ok(_) | Err(ApiError::NotFound(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Creates an object that an earlier pass may have created and could not note. One of somebody else's is an error
    /// that names it.
    async fn create(
        &self,
        writer: &Writer<'_>,
        snapshot: &Snapshot,
        resource: &Resource,
        object: &Value,
    ) -> Result<(), Failure> {
        let namespace = snapshot.experiment.namespace();
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        match writer.create(resource, namespace, object).await {
            Ok(_) => Ok(()),
            Err(ApiError::AlreadyExists(_)) => {
                let existing = writer.api.get(resource, namespace, name).await?;
                let uid = snapshot.experiment.metadata.uid.as_deref();
                let ours = controller_of(&existing).map(|(_, _, owner)| owner) == uid;
                writer.stores.of(resource).apply(existing);
                if ours {
                    return Err(Failure::Stale(format!("{} {namespace}/{name} exists already", resource.kind)));
                }
                Err(Failure::Error(format!("{} {namespace}/{name} exists and belongs to somebody else", resource.kind)))
            }
            Err(error) => {
                Err(Failure::Error(format!("{} {namespace}/{name} cannot be created: {error}", resource.kind)))
            }
        }
    }
}
