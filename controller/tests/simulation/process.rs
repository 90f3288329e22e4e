//! The controller's process: its stores, its queue, and one pass after the other, as the real worker runs them.

use crate::api::SimulatedApi;
use crate::aws::Aws;
use crate::cluster::{Delivery, KINDS, Kind, Millis, NAMESPACE, ROLLOUT, World};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tidegate_controller::api::{Resource, resources};
use tidegate_controller::cache::{Change, Key, Store};
use tidegate_controller::context::{Context, Interest, Stores, Writer, naming, owned_by};
use tidegate_controller::events::{Event, Recorder};
use tidegate_controller::rollout::patience::Patience;
use tidegate_controller::rollout::telling::Telling;
use tidegate_controller::rollout::{act, decide, observe};
use tidegate_controller::worker::Failure;
use tidegate_traffic::RouterOptions;

/// A wake that is due at once waits this long, as in the real controller.
const FLOOR: Millis = 20;
/// Everything is looked at again after this time.
const RESYNC: Millis = 900_000;

/// What became of a pass.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Failed,
    Killed,
}

/// A running controller.
pub struct Process {
    context: Context,
    interest: Arc<Interest>,
    router_options: RouterOptions,
    /// By kind.
    stores: Vec<Arc<Store>>,
    /// The queue holds the Rollout.
    asked: Arc<AtomicBool>,
    /// When the next pass is due.
    pub due: Option<Millis>,
    failures: u32,
    /// Of the controller's memory: a restart forgets it.
    patience: Patience,
    telling: Telling,
    aws: Aws,
    pub events: Vec<Event>,
    pub passes: u64,
}

fn resource(kind: Kind) -> Resource {
    match kind {
        Kind::Rollout => resources::ROLLOUT,
        Kind::ReplicaSet => resources::REPLICA_SET,
        Kind::Service => resources::SERVICE,
        Kind::AnalysisRun => resources::ANALYSIS_RUN,
        Kind::AnalysisTemplate => resources::ANALYSIS_TEMPLATE,
        Kind::Experiment => resources::EXPERIMENT,
        Kind::HttpRoute => Resource::named("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes", true),
        Kind::Ingress => resources::INGRESS,
        Kind::Deployment => resources::DEPLOYMENT,
        Kind::EndpointSlice => resources::ENDPOINT_SLICE,
        Kind::VirtualService
        | Kind::DestinationRule
        | Kind::TrafficSplit
        | Kind::TraefikService
        | Kind::ApisixRoute
        | Kind::Mapping
        | Kind::MeshService
        | Kind::VirtualRouter
        | Kind::VirtualNode => {
            let plural = format!("{}s", kind.as_str().to_lowercase());
            Resource::named(kind.api_version(), kind.as_str(), &plural, true)
        }
    }
}

impl Process {
    /// Starts with empty hands: everything is listed anew.
    pub fn start(world: &Arc<Mutex<World>>, runtime: &tokio::runtime::Runtime) -> Self {
        let _inside = runtime.enter();
        let api = Arc::new(SimulatedApi(Arc::clone(world)));
        let stores = Arc::new(Stores::new(None, NAMESPACE));
        let context = Context {
            api: api.clone(),
            stores: Arc::clone(&stores),
            recorder: Recorder::start(api, "rollouts-controller", |_, _| {}),
            options: Arc::default(),
        };
        let asked = Arc::new(AtomicBool::new(true));
        let interest = Arc::new(Interest::default());
        listen(&stores, &interest, &asked);
        let mut locked = world.lock().unwrap();
        locked.disconnect();
        locked.killed = false;
        locked.say(|| "process    starts".to_owned());
        let by_kind: Vec<Arc<Store>> = KINDS.iter().map(|kind| stores.of(&resource(*kind))).collect();
        for (kind, store) in KINDS.into_iter().zip(&by_kind) {
            store.list_started();
            for (_, object) in locked.of_kind(kind) {
                if kind != Kind::ReplicaSet || is_watched(object) {
                    store.apply(object.clone());
                }
            }
            store.list_done();
        }
        Self {
            context,
            interest,
            router_options: RouterOptions::default(),
            stores: by_kind,
            asked,
            due: Some(locked.now),
            failures: 0,
            patience: Patience::default(),
            telling: Telling::default(),
            aws: Aws::default(),
            events: Vec::new(),
            passes: 0,
        }
    }

    /// Takes in what has arrived.
    pub fn receive(&mut self, world: &mut World) {
        let now = world.now;
        while let Some((&key, _)) = world.deliveries.first_key_value() {
            if key.0 > now {
                break;
            }
            match world.deliveries.remove(&key) {
                Some(Delivery::Event { id, version, object }) => {
                    let store = &self.stores[id.0 as usize];
                    match object {
                        Some(object) => store.apply(Arc::unwrap_or_clone(object)),
                        None => store.remove(&Key::new(NAMESPACE, &id.1), version),
                    }
                }
                Some(Delivery::List { kind, objects }) => {
                    let store = &self.stores[kind as usize];
                    store.list_started();
                    objects.into_iter().for_each(|object| store.apply(Arc::unwrap_or_clone(object)));
                    store.list_done();
                }
                None => {}
            }
        }
        if self.aws.hear(world) {
            self.asked.store(true, Ordering::SeqCst);
        }
        self.asked(now);
    }

    /// The queue's next pass is due at once when somebody asked.
    pub fn asked(&mut self, now: Millis) {
        // An error's back-off holds only as long as nothing new is heard, as in the real queue.
        if self.asked.swap(false, Ordering::SeqCst) {
            self.due = Some(self.due.map_or(now, |due| due.min(now)));
        }
    }

    /// One pass over the Rollout.
    pub fn pass(&mut self, world: &Arc<Mutex<World>>) -> Outcome {
        self.passes += 1;
        self.due = None;
        let key = Key::new(NAMESPACE, ROLLOUT);
        let observed = observe::observe(&self.context, &self.interest, &self.router_options, &key).now_or_never();
        let mut snapshot = match observed {
            None => return Outcome::Killed,
            Some(Err(failure)) => return self.failed(world, &failure),
            Some(Ok(None)) => {
                self.due = Some(world.lock().unwrap().now + RESYNC);
                return Outcome::Done;
            }
            Some(Ok(Some(snapshot))) => snapshot,
        };
        self.aws.look(&mut world.lock().unwrap(), &mut snapshot);
        let now = world.lock().unwrap().timestamp();
        let mut decision = decide(&snapshot, now);
        {
            let mut world = world.lock().unwrap();
            world.invariants.progress.pass_begun = world.now;
            crate::progress::in_order(&mut world, &snapshot, &decision);
            if world.random.permille(20) && decide(&snapshot, now) != decision {
                world.violated("decide is not pure: the same snapshot gave two decisions");
            }
            for why in &decision.why {
                world.say(|| format!("decides    {why}"));
            }
        }
        let held = self.patience.hold(&key, &mut decision, &snapshot.rollout.status, now);
        let wait = [decision.wake.map(|at| at.duration_since(now)), held].into_iter().flatten().min();
        let wait = wait.map(|wait| i64::try_from(wait.as_millis()).unwrap_or(RESYNC));
        let begun = world.lock().unwrap().now;
        let writer = Writer { api: self.context.api.as_ref(), stores: &self.context.stores };
        let told = Mutex::new(Vec::new());
        let tell = |events| -> BoxFuture<'_, ()> {
            told.lock().unwrap().extend(events);
            Box::pin(std::future::ready(()))
        };
        let outcome = act::act(&writer, &snapshot, &decision, &tell).now_or_never();
        let told = self.telling.fresh(&key, told.into_inner().unwrap());
        {
            let mut world = world.lock().unwrap();
            for event in &told {
                world.say(|| format!("event      {} {}", event.reason, event.message));
            }
        }
        self.events.extend(told);
        match outcome {
            None => return Outcome::Killed,
            Some(Err(failure)) => return self.failed(world, &failure),
            Some(Ok(())) => self.telling.done(&key),
        }
        self.failures = 0;
        let world = world.lock().unwrap();
        let after = wait.map_or(RESYNC, |wait| wait.clamp(FLOOR, RESYNC));
        self.due = Some(world.now + after - (world.now - begun).min(0));
        self.asked(world.now);
        Outcome::Done
    }

    fn failed(&mut self, world: &Arc<Mutex<World>>, failure: &Failure) -> Outcome {
        self.failures += 1;
        let mut world = world.lock().unwrap();
        world.say(|| format!("fails      {failure:?}"));
        let delay = 50i64.saturating_mul(1 << (self.failures - 1).min(16)).min(60_000);
        self.due = Some(world.now + delay);
        self.asked(world.now);
        Outcome::Failed
    }
}

/// The controller watches ReplicaSets with a pod template hash only.
fn is_watched(object: &serde_json::Value) -> bool {
    object["metadata"]["labels"].get(tidegate_crds::keys::POD_TEMPLATE_HASH).is_some()
}

/// What wakes the real controller wakes this one.
fn listen(stores: &Arc<Stores>, interest: &Arc<Interest>, asked: &Arc<AtomicBool>) {
    let flag = || Arc::clone(asked);
    let rollout = flag();
    stores.rollouts.on_change(move |_| rollout.store(true, Ordering::SeqCst));
    let own = |asked: Arc<AtomicBool>, rollouts: Arc<Store>| {
        move |change: Change<'_>| {
            let ours = match change.object {
                Some(object) => {
                    let owners = object.pointer("/metadata/ownerReferences").and_then(|o| o.as_array());
                    owners.into_iter().flatten().any(|o| o["kind"] == "Rollout" && o["name"] == ROLLOUT)
                }
                None => {
                    let uid = rollouts.uid(&Key::new(NAMESPACE, ROLLOUT));
                    uid.is_some_and(|uid| change.index.contains(&owned_by(&uid)))
                }
            };
            if ours {
                asked.store(true, Ordering::SeqCst);
            }
        }
    };
    stores.replica_sets.on_change(own(flag(), Arc::clone(&stores.rollouts)));
    stores.analysis_runs.on_change(own(flag(), Arc::clone(&stores.rollouts)));
    stores.experiments.on_change(own(flag(), Arc::clone(&stores.rollouts)));
    let named = |kind: &'static str, asked: Arc<AtomicBool>, rollouts: Arc<Store>| {
        move |change: Change<'_>| {
            if !rollouts.keys_by_index(&naming(kind, NAMESPACE, &change.key.name)).is_empty() {
                asked.store(true, Ordering::SeqCst);
            }
        }
    };
    stores.services.on_change(named("Service", flag(), Arc::clone(&stores.rollouts)));
    stores.analysis_templates.on_change(named("AnalysisTemplate", flag(), Arc::clone(&stores.rollouts)));
    let (asked, interest) = (flag(), Arc::clone(interest));
    stores.on_demand.on_change(move |resource, change| {
        if !interest.of(resource, change.key).is_empty() {
            asked.store(true, Ordering::SeqCst);
        }
    });
}
