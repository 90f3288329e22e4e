//! The controller against an API server in memory.

use super::super::Controller;
use super::spec;
use crate::api::{Api, ApiError, ApiResult, PatchCall, Propagation, Resource, resources};
use crate::cache::Key;
use crate::context::{Context, Stores};
use crate::events::Recorder;
use crate::metrics::Metrics;
use crate::options::ControllerOptions;
use crate::worker::Failure;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct World {
    objects: BTreeMap<(String, String), Value>,
    version: u64,
    /// What the API server does not take.
    refuses: Option<&'static str>,
}

#[derive(Default)]
struct Memory(Mutex<World>);

impl Memory {
    fn put(&self, kind: &str, mut object: Value) -> Value {
        let mut world = self.0.lock().unwrap();
        world.version += 1;
        object["metadata"]["resourceVersion"] = world.version.to_string().into();
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = format!("uid-{}", world.version).into();
        }
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        world.objects.insert((kind.to_owned(), name), object.clone());
        object
    }

    fn object(&self, kind: &str, name: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.get(&(kind.to_owned(), name.to_owned())).cloned()
    }
}

impl Api for Memory {
    fn get<'a>(&'a self, resource: &'a Resource, _: &'a str, name: &'a str) -> BoxFuture<'a, ApiResult<Value>> {
        async move { self.object(&resource.kind, name).ok_or_else(|| ApiError::NotFound(name.to_owned())) }.boxed()
    }

    fn list<'a>(&'a self, _: &'a Resource, _: &'a str, _: &'a str) -> BoxFuture<'a, ApiResult<Vec<Value>>> {
        async { Ok(Vec::new()) }.boxed()
    }

    fn create<'a>(
        &'a self,
        resource: &'a Resource,
        _: &'a str,
        object: &'a Value,
        _: bool,
    ) -> BoxFuture<'a, ApiResult<Value>> {
        async move {
            if self.0.lock().unwrap().refuses == Some(&resource.kind) {
                return Err(ApiError::Forbidden("exceeded quota".to_owned()));
            }
            if self.object(&resource.kind, object["metadata"]["name"].as_str().unwrap()).is_some() {
                return Err(ApiError::AlreadyExists("already exists".to_owned()));
            }
            Ok(self.put(&resource.kind, object.clone()))
        }
        .boxed()
    }

    fn patch<'a>(&'a self, call: PatchCall<'a>) -> BoxFuture<'a, ApiResult<Value>> {
        async move {
            let Some(mut object) = self.object(&call.resource.kind, call.name) else {
                return Err(ApiError::NotFound(call.name.to_owned()));
            };
            let wanted = call.body.pointer("/metadata/resourceVersion");
            if wanted.is_some() && wanted != object.pointer("/metadata/resourceVersion") {
                return Err(ApiError::Conflict("the object has been modified".to_owned()));
            }
            tidegate_crds::patch::merge_apply(&mut object, call.body);
            Ok(self.put(&call.resource.kind, object))
        }
        .boxed()
    }

    fn replace<'a>(
        &'a self,
        resource: &'a Resource,
        _: &'a str,
        _: &'a str,
        object: &'a Value,
    ) -> BoxFuture<'a, ApiResult<Value>> {
        async move { Ok(self.put(&resource.kind, object.clone())) }.boxed()
    }

    fn delete<'a>(
        &'a self,
        resource: &'a Resource,
        _: &'a str,
        name: &'a str,
        _: &'a str,
        _: Propagation,
    ) -> BoxFuture<'a, ApiResult<()>> {
        async move {
            self.0.lock().unwrap().objects.remove(&(resource.kind.to_string(), name.to_owned()));
            Ok(())
        }
        .boxed()
    }

    fn evict<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, ApiResult<()>> {
        async { Ok(()) }.boxed()
    }
}

struct Bench {
    api: Arc<Memory>,
    stores: Arc<Stores>,
    controller: Arc<Controller>,
    metrics: Arc<Metrics>,
    key: Key,
}

impl Bench {
    fn new(instance: Option<&str>) -> Self {
        let api = Arc::new(Memory::default());
        let stores = Arc::new(Stores::new(None, ""));
        let shared: Arc<dyn Api> = Arc::clone(&api) as Arc<dyn Api>;
        let options = ControllerOptions { instance_id: instance.map(str::to_owned), ..ControllerOptions::default() };
        let context = Context {
            api: Arc::clone(&shared),
            stores: Arc::clone(&stores),
            recorder: Recorder::start(shared, "rollouts-controller", |_, _| {}),
            options: Arc::new(options),
        };
        let metrics = Arc::new(Metrics::default());
        let controller = Controller::new(context, Arc::clone(&metrics));
        let bench = Self { api, stores, controller, metrics, key: Key::new("shop", "exp") };
        let mut spec = spec();
        spec["analyses"] = json!([]);
        bench.apply(&resources::EXPERIMENT, "exp", json!({"metadata": {"uid": "u1"}, "spec": spec}));
        bench
    }

    /// Puts an object into the cluster, as somebody else does, and lets the controller see it.
    fn apply(&self, resource: &Resource, name: &str, object: Value) {
        self.stores.of(resource).apply(self.unseen(resource, name, object));
    }

    /// Puts an object into the cluster that the controller does not see.
    fn unseen(&self, resource: &Resource, name: &str, mut object: Value) -> Value {
        object["metadata"]["name"] = name.into();
        object["metadata"]["namespace"] = "shop".into();
        self.api.put(&resource.kind, object)
    }

    fn status(&self) -> Value {
        self.api.object("Experiment", "exp").unwrap()["status"].clone()
    }

    async fn pass(&self) -> Result<(), Failure> {
        self.controller.reconcile(&self.key).await.map(|_| ())
    }
}

#[tokio::test]
async fn makes_the_variants_and_writes_the_status_into_the_object() {
    let bench = Bench::new(None);
    bench.pass().await.unwrap();
    let rs = bench.api.object("ReplicaSet", "exp-a").unwrap();
    let service = bench.api.object("Service", "exp-a").unwrap();
    assert_eq!(rs["metadata"]["labels"], service["spec"]["selector"]);
    assert_eq!(rs["metadata"]["annotations"]["experiment.argoproj.io/name"], "exp");
    assert_eq!(rs["metadata"]["annotations"]["experiment.argoproj.io/template-name"], "a");
    assert_eq!(bench.status()["phase"], "Pending");
    let mut ready = rs;
    ready["status"] = json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 2});
    bench.apply(&resources::REPLICA_SET, "exp-a", ready);
    bench.pass().await.unwrap();
    assert_eq!(bench.status()["phase"], "Running");
    let series = "experiment_info{namespace=\"shop\",name=\"exp\",phase=\"Running\"} 1";
    assert!(bench.metrics.render().contains(series));
    bench.stores.experiments.remove(&bench.key, 0);
    assert!(!bench.metrics.render().contains("name=\"exp\""));
}

#[tokio::test]
async fn a_name_that_is_taken_leads_to_another_in_the_same_pass() {
    let bench = Bench::new(None);
    bench.unseen(&resources::REPLICA_SET, "exp-a", json!({"metadata": {}, "spec": {"replicas": 7}}));
    bench.pass().await.unwrap();
    assert_eq!(bench.api.object("ReplicaSet", "exp-a").unwrap()["spec"]["replicas"], 7);
    assert!(bench.api.object("ReplicaSet", "exp-a-1").is_some() && bench.api.object("Service", "exp-a-1").is_some());
    assert_eq!(bench.status()["templateStatuses"][0]["collisionCount"], 1);
}

#[tokio::test]
async fn what_an_earlier_pass_or_experiment_left_is_known_for_what_it_is() {
    let owned = |uid: &str| {
        json!({"metadata": {
            "labels": {"rollouts-pod-template-hash": "h"},
            "annotations": {"experiment.argoproj.io/template-name": "a"},
            "ownerReferences": [{"kind": "Experiment", "name": "exp", "uid": uid, "controller": true}],
        }, "spec": {"replicas": 2, "template": spec()["templates"][0]["template"]}})
    };
    let bench = Bench::new(None);
    bench.unseen(&resources::REPLICA_SET, "exp-a", owned("u1"));
    assert!(matches!(bench.pass().await, Err(Failure::Stale(_))), "the cache did not know it");
    bench.pass().await.unwrap();
    assert_eq!(bench.status()["templateStatuses"][0]["podTemplateHash"], "h");

    let bench = Bench::new(None);
    bench.unseen(&resources::REPLICA_SET, "exp-a", owned("older"));
    assert!(matches!(bench.pass().await, Err(Failure::Stale(_))), "it waits for the garbage collector");
    assert!(bench.api.object("ReplicaSet", "exp-a-1").is_none());
    bench.api.0.lock().unwrap().objects.retain(|(kind, _), _| kind != "ReplicaSet");
    bench.pass().await.unwrap();
    assert!(bench.api.object("ReplicaSet", "exp-a").is_some());
}

#[tokio::test]
async fn a_refusal_shows_in_the_status() {
    for (kind, what) in [
        ("ReplicaSet", "Failed to create ReplicaSet for template 'a': exceeded quota"),
        ("Service", "Failed to create Service exp-a for template 'a': exceeded quota"),
    ] {
        let bench = Bench::new(None);
        bench.api.0.lock().unwrap().refuses = Some(kind);
        bench.pass().await.unwrap();
        let status = bench.status();
        assert_eq!((&status["phase"], &status["message"]), (&json!("Error"), &json!(what)));
    }
}

#[tokio::test]
async fn others_have_their_own_controller() {
    let bench = Bench::new(Some("blue"));
    bench.pass().await.unwrap();
    assert!(bench.api.object("ReplicaSet", "exp-a").is_none() && bench.status().is_null());
}
