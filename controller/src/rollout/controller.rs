//! Wires the Rollout controller: what wakes it, and one reconciliation.

use super::aws::Aws;
use super::metrics::PASSES;
use super::observe::{observe, owner_keys};
use super::patience::Patience;
use super::primary::Istio;
use super::snapshot::{DESTINATION_RULE, Snapshot};
use super::telling::Telling;
use super::{act, decide, release, versions};
use crate::cache::Key;
use crate::context::{Context, Interest, Writer, controller_of, managed, naming, owners, services};
use crate::events::{About, Event};
use crate::metrics::Metrics;
use crate::worker::{Failure, Next, Queue};
use futures::future::BoxFuture;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tidegate_crds::experiment::Experiment;
use tidegate_crds::rollout::Rollout;
use tidegate_traffic::RouterOptions;

/// The Rollout controller.
pub struct Controller {
    context: Context,
    queue: Arc<Queue>,
    /// Services that may have lost their Rollout.
    services: Arc<Queue>,
    /// Istio's DestinationRules that may have lost their Rollout.
    rules: Arc<Queue>,
    /// Deployments that may have lost the Rollout that replaced them.
    workloads: Arc<Queue>,
    interest: Arc<Interest>,
    /// Versions of kinds may turn out to be others than those that the process was started with.
    router_options: Mutex<Arc<RouterOptions>>,
    istio: Istio,
    metrics: Arc<Metrics>,
    /// Uids of our Rollouts that came under our eyes.
    greeted: Mutex<BTreeSet<String>>,
    patience: Mutex<Patience>,
    telling: Mutex<Telling>,
    /// Only with `--aws-verify-target-group`.
    aws: Option<Arc<Aws>>,
}

impl Controller {
    /// A controller that hears of every change in the stores from now on.
    pub fn new(context: Context, router_options: RouterOptions, istio: Istio, metrics: Arc<Metrics>) -> Arc<Self> {
        let routers = &context.options.routers;
        let aws = routers.aws_verify_target_group.then(|| {
            Arc::new(Aws::new(&routers.alb_tag_key_resource_id, &routers.aws_target_group_binding_api_version))
        });
        let controller = Arc::new(Self {
            aws,
            context,
            queue: Queue::new(),
            services: Queue::new(),
            rules: Queue::new(),
            workloads: Queue::new(),
            interest: Arc::default(),
            router_options: Mutex::new(Arc::new(router_options)),
            istio,
            metrics,
            greeted: Mutex::default(),
            patience: Mutex::default(),
            telling: Mutex::default(),
        });
        controller.listen();
        controller
    }

    /// The keys that wait for this controller.
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    fn listen(self: &Arc<Self>) {
        let stores = Arc::clone(&self.context.stores);
        let this = Arc::clone(self);
        stores.rollouts.on_change(move |change| {
            match change.object {
                Some(object) => this.greet(change.key, object, change.initial),
                None => this.gone(change.key, change.uid),
            }
            // Services and DestinationRules that it named before or names now.
            for index in change.index {
                if let Some(name) = index.strip_prefix(&format!("Service/{}/", change.key.namespace)) {
                    this.services.add(Key::new(&change.key.namespace, name));
                }
                if let Some(name) = index.strip_prefix(&format!("{DESTINATION_RULE}/{}/", change.key.namespace)) {
                    this.rules.add(Key::new(&change.key.namespace, name));
                }
                if change.object.is_none()
                    && let Some(name) = index.strip_prefix(&format!("Deployment/{}/", change.key.namespace))
                {
                    this.workloads.add(Key::new(&change.key.namespace, name));
                }
            }
            this.queue.add(change.key.clone());
        });
        let own = |queue: &Arc<Queue>| {
            let queue = Arc::clone(queue);
            let rollouts = Arc::clone(&self.context.stores.rollouts);
            move |change: crate::cache::Change<'_>| match change.object {
                Some(object) => owner_keys(object).into_iter().for_each(|key| queue.add(key)),
                None => owners(&rollouts, &change).into_iter().for_each(|key| queue.add(key)),
            }
        };
        stores.replica_sets.on_change(own(&self.queue));
        stores.analysis_runs.on_change(own(&self.queue));
        stores.experiments.on_change(own(&self.queue));
        let this = Arc::clone(self);
        stores.services.on_change(move |change| {
            this.wake_naming("Service", change.key);
            this.services.add(change.key.clone());
        });
        let this = Arc::clone(self);
        stores.analysis_templates.on_change(move |change| this.wake_naming("AnalysisTemplate", change.key));
        let this = Arc::clone(self);
        stores
            .cluster_analysis_templates
            .on_change(move |change| this.wake_naming("ClusterAnalysisTemplate", change.key));
        let this = Arc::clone(self);
        stores.on_demand.on_change(move |resource, change| {
            for service in services(&change) {
                this.wake_naming("Service", &service);
                this.wake_experimenting(&service);
            }
            for key in this.interest.of(resource, change.key) {
                this.queue.add(key);
            }
        });
    }

    fn wake_naming(&self, kind: &str, object: &Key) {
        for key in self.context.stores.rollouts.keys_by_index(&naming(kind, &object.namespace, &object.name)) {
            self.queue.add(key);
        }
    }

    /// Wakes the Rollout whose Experiment has made the Service.
    fn wake_experimenting(&self, service: &Key) {
        let stores = &self.context.stores;
        let Some(object) = stores.services.value(service) else { return };
        let Some((Experiment::KIND, name, _)) = controller_of(&object) else { return };
        let Some(experiment) = stores.experiments.value(&Key::new(&service.namespace, name)) else { return };
        owner_keys(&experiment).into_iter().for_each(|key| self.queue.add(key));
    }

    /// Tells that a Rollout came under this controller's eyes, once in its life.
    fn greet(&self, key: &Key, object: &Value, initial: bool) {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let known =
            object.pointer("/status/observedGeneration").is_some() || initial && object.pointer("/status").is_some();
        let labels = super::snapshot::text_map(object.pointer("/metadata/labels"));
        if !self.context.is_ours(Some(&labels)) {
            return;
        }
        let uid = text("/metadata/uid");
        let first = self.greeted.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(uid.clone());
        if first && !known {
            let about = about(&key.namespace, &key.name, &uid);
            let message = format!("Rollout resource added to informer: {key}");
            self.context.recorder.tell(&about, [Event::normal("RolloutAddedToInformer", message)]);
        }
    }

    fn gone(&self, key: &Key, uid: &str) {
        // One of another instance is that one's to tell of.
        if self.greeted.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(uid) {
            let message = format!("Rollout {key} is deleted.");
            let event = Event::normal("RolloutDeleted", message);
            self.context.recorder.tell(&about(&key.namespace, &key.name, uid), [event]);
        }
        self.interest.forget(key);
        if let Some(aws) = &self.aws {
            aws.forget(key);
        }
        self.patience().forget(key);
        self.telling().done(key);
        super::metrics::forget(&self.metrics, key);
        for service in self.context.stores.services.keys_by_index(&managed(&key.namespace, &key.name)) {
            self.services.add(service);
        }
    }

    /// Works until the queues are closed.
    pub async fn run(self: Arc<Self>) {
        let options = Arc::clone(&self.context.options);
        let (this, resync) = (Arc::clone(&self), options.resync);
        let (queue, workers) = (Arc::clone(&self.queue), options.rollout_workers);
        let rollouts = crate::worker::run("rollout", queue, workers, Arc::clone(&self.metrics), move |key| {
            let this = Arc::clone(&this);
            async move { Ok(this.reconcile(&key).await?.within(resync)) }
        });
        let this = Arc::clone(&self);
        let (queue, workers) = (Arc::clone(&self.services), options.service_workers);
        let services = crate::worker::run("service", queue, workers, Arc::clone(&self.metrics), move |key| {
            let this = Arc::clone(&this);
            async move { release::service(&this.context, &key).await }
        });
        let this = Arc::clone(&self);
        let (queue, workers) = (Arc::clone(&self.rules), options.service_workers);
        let rules = crate::worker::run("destinationrule", queue, workers, Arc::clone(&self.metrics), move |key| {
            let this = Arc::clone(&this);
            async move { release::destination_rule(&this.context, &this.router_options(), &key).await }
        });
        let this = Arc::clone(&self);
        let workloads =
            crate::worker::run("workload", Arc::clone(&self.workloads), 1, Arc::clone(&self.metrics), move |key| {
                let this = Arc::clone(&this);
                async move { release::workload(&this.context, &key).await }
            });
        let left_behind = async {
            for key in release::workloads_left_behind(&self.context).await {
                self.workloads.add(key);
            }
            // Elsewhere a rule of a Rollout that is not known here may be that of another cluster's.
            if self.istio == Istio::Here {
                for key in release::rules_left_behind(&self.context, &self.router_options()).await {
                    self.rules.add(key);
                }
            }
        };
        tokio::join!(rollouts, services, rules, workloads, left_behind);
    }

    /// No more work is begun.
    pub fn close(&self) {
        self.queue.close();
        self.services.close();
        self.rules.close();
        self.workloads.close();
    }

    fn router_options(&self) -> Arc<RouterOptions> {
        Arc::clone(&self.router_options.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn telling(&self) -> MutexGuard<'_, Telling> {
        self.telling.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn patience(&self) -> MutexGuard<'_, Patience> {
        self.patience.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// One pass over one Rollout.
    ///
    /// # Errors
    /// When something could not be read or written.
    pub async fn reconcile(&self, key: &Key) -> Result<Next, Failure> {
        PASSES.count(&self.metrics, &self.context.stores.rollouts, key, self.pass(key)).await
    }

    /// What a decision about a Rollout of ours looks at.
    async fn snapshot(&self, key: &Key) -> Result<Option<Snapshot>, Failure> {
        let ours = |snapshot: &Snapshot| self.context.is_ours(snapshot.rollout.metadata.labels.as_ref());
        let observed = observe(&self.context, &self.interest, &self.router_options(), key).await?.filter(ours);
        let Some(snapshot) = &observed else { return Ok(None) };
        let Some(served) = versions::served(self.context.api.as_ref(), snapshot).await else { return Ok(observed) };
        let served = Arc::new(served);
        *self.router_options.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::clone(&served);
        Ok(observe(&self.context, &self.interest, &served, key).await?.filter(ours))
    }

    async fn pass(&self, key: &Key) -> Result<Next, Failure> {
        let Some(mut snapshot) = self.snapshot(key).await? else { return Ok(Next::WAIT) };
        if let Some(aws) = &self.aws {
            aws.look(&self.context, key, &mut snapshot, &self.queue);
        }
        let now = Timestamp::now();
        let mut decision = decide(&snapshot, now);
        for why in &decision.why {
            tracing::info!(namespace = %key.namespace, rollout = %key.name, "{why}");
        }
        super::metrics::decided(&self.metrics, key, &snapshot.rollout, &decision.status);
        let held = self.patience().hold(key, &mut decision, &snapshot.rollout.status, now);
        let wait = [decision.wake.map(|at| at.duration_since(now)), held].into_iter().flatten().min();
        let wait = wait.map(|wait| Duration::try_from(wait).unwrap_or_default());
        let writer = Writer { api: self.context.api.as_ref(), stores: &self.context.stores };
        let about = about(&key.namespace, &key.name, snapshot.rollout.metadata.uid.as_deref().unwrap_or_default());
        let recorder = &self.context.recorder;
        let tell = |events| -> BoxFuture<'_, ()> {
            let fresh = self.telling().fresh(key, events);
            if fresh.is_empty() {
                return Box::pin(std::future::ready(()));
            }
            recorder.tell(&about, fresh);
            Box::pin(recorder.told(&about))
        };
        act::act(&writer, &snapshot, &decision, &tell).await?;
        self.telling().done(key);
        super::metrics::finished(&self.metrics, &snapshot.rollout.status, &decision.status);
        // A wake at once comes through the status write already; the floor keeps a mistake from spinning.
        Ok(wait.map_or(Next::WAIT, |wait| Next::after(wait.max(Duration::from_millis(20)))))
    }
}

fn about(namespace: &str, name: &str, uid: &str) -> About {
    About {
        api_version: tidegate_crds::API_VERSION.to_owned(),
        kind: Rollout::KIND.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
    }
}
