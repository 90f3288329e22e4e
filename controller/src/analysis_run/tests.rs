use super::Controller;
use crate::api::{Api, ApiError, ApiResult, PatchCall, Propagation, Resource, resources};
use crate::cache::Key;
use crate::context::{Context, Stores};
use crate::events::Recorder;
use crate::metrics::Metrics;
use crate::options::ControllerOptions;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_analysis::provider::Clients;
use tidegate_analysis::provider::job::Elsewhere;
use tokio::sync::watch;
use wiremock::matchers::{header, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

type Objects = BTreeMap<(String, String, String), Value>;

#[derive(Default)]
struct World {
    objects: Objects,
    version: u64,
    /// Status patches that were sent.
    status_writes: u32,
    /// What the next status patches come to: true, they take effect and the answer is lost; false, a conflict.
    trouble: Vec<bool>,
}

/// An API server in memory.
struct Memory {
    world: Mutex<World>,
    stores: Mutex<Option<Arc<Stores>>>,
    changed: watch::Sender<u64>,
}

impl Memory {
    fn id(resource: &Resource, namespace: &str, name: &str) -> (String, String, String) {
        (resource.kind.to_string(), namespace.to_owned(), name.to_owned())
    }

    fn put(&self, id: (String, String, String), mut object: Value) -> Value {
        let stored = {
            let mut world = self.world.lock().unwrap();
            world.version += 1;
            object["metadata"]["resourceVersion"] = world.version.to_string().into();
            world.objects.insert(id, object.clone());
            object
        };
        self.tell();
        stored
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn object(&self, kind: &str, name: &str) -> Option<Value> {
        self.world.lock().unwrap().objects.get(&(kind.to_owned(), "shop".to_owned(), name.to_owned())).cloned()
    }

    fn all(&self, kind: &str) -> Vec<Value> {
        let world = self.world.lock().unwrap();
        world.objects.iter().filter(|((k, ..), _)| k == kind).map(|(_, object)| object.clone()).collect()
    }
}

impl Api for Memory {
    fn get<'a>(&'a self, resource: &'a Resource, namespace: &'a str, name: &'a str) -> BoxFuture<'a, ApiResult<Value>> {
        let found = self.world.lock().unwrap().objects.get(&Self::id(resource, namespace, name)).cloned();
        async move { found.ok_or_else(|| ApiError::NotFound(format!("{name} not found"))) }.boxed()
    }

    fn list<'a>(
        &'a self,
        resource: &'a Resource,
        _: &'a str,
        selector: &'a str,
    ) -> BoxFuture<'a, ApiResult<Vec<Value>>> {
        let (key, value) = selector.split_once('=').unwrap_or_default();
        let mut found = self.all(&resource.kind);
        found.retain(|object| object["metadata"]["labels"][key] == value);
        async move { Ok(found) }.boxed()
    }

    fn create<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        object: &'a Value,
        _: bool,
    ) -> BoxFuture<'a, ApiResult<Value>> {
        async move {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let id = Self::id(resource, namespace, name);
            if self.world.lock().unwrap().objects.contains_key(&id) {
                return Err(ApiError::AlreadyExists(format!("{name} already exists")));
            }
            Ok(self.put(id, object.clone()))
        }
        .boxed()
    }

    fn patch<'a>(&'a self, call: PatchCall<'a>) -> BoxFuture<'a, ApiResult<Value>> {
        async move {
            let id = Self::id(call.resource, call.namespace, call.name);
            let trouble = {
                let mut world = self.world.lock().unwrap();
                world.status_writes += 1;
                let Some(stored) = world.objects.get(&id).cloned() else {
                    return Err(ApiError::NotFound(call.name.to_owned()));
                };
                let wanted = call.body.pointer("/metadata/resourceVersion").and_then(Value::as_str);
                let trouble = world.trouble.pop();
                if trouble == Some(false)
                    || wanted.is_some() && wanted != stored["metadata"]["resourceVersion"].as_str()
                {
                    return Err(ApiError::Conflict("the object has been modified".into()));
                }
                trouble
            };
            let mut object = self.object(&call.resource.kind, call.name).unwrap_or_default();
            tidegate_crds::patch::merge_apply(&mut object, call.body);
            let stored = self.put(id, object);
            if trouble == Some(true) {
                // The watch brings it.
                let stores = self.stores.lock().unwrap().clone().unwrap();
                stores.of(call.resource).apply(stored);
                return Err(ApiError::Timeout(Duration::from_secs(30)));
            }
            Ok(stored)
        }
        .boxed()
    }

    fn replace<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        name: &'a str,
        object: &'a Value,
    ) -> BoxFuture<'a, ApiResult<Value>> {
        async move { Ok(self.put(Self::id(resource, namespace, name), object.clone())) }.boxed()
    }

    fn delete<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        name: &'a str,
        _: &'a str,
        _: Propagation,
    ) -> BoxFuture<'a, ApiResult<()>> {
        async move {
            self.world.lock().unwrap().objects.remove(&Self::id(resource, namespace, name));
            let stores = self.stores.lock().unwrap().clone().unwrap();
            stores.of(resource).remove(&Key::new(namespace, name), 0);
            self.tell();
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
}

impl Bench {
    fn new() -> Self {
        let api =
            Arc::new(Memory { world: Mutex::default(), stores: Mutex::default(), changed: watch::Sender::new(0) });
        let stores = Arc::new(Stores::new(None, ""));
        *api.stores.lock().unwrap() = Some(Arc::clone(&stores));
        let shared: Arc<dyn Api> = Arc::clone(&api) as Arc<dyn Api>;
        let context = Context {
            api: Arc::clone(&shared),
            stores: Arc::clone(&stores),
            recorder: Recorder::start(shared, "rollouts-controller", |_, _| {}),
            options: Arc::new(ControllerOptions::default()),
        };
        let metrics = Arc::new(Metrics::default());
        let clients = Clients::new(None).unwrap();
        let controller = Controller::with(context, Arc::clone(&metrics), clients, Elsewhere::default());
        tokio::spawn(Arc::clone(&controller).run());
        Self { api, stores, controller, metrics }
    }

    /// Puts an object into the cluster, as a user or another controller does.
    fn apply(&self, resource: &Resource, name: &str, mut object: Value) {
        object["metadata"]["name"] = name.into();
        object["metadata"]["namespace"] = "shop".into();
        let stored = self.api.put(Memory::id(resource, "shop", name), object);
        if resource.kind != "Pod" && resource.kind != "Secret" {
            self.stores.of(resource).apply(stored);
        }
    }

    fn run(&self, spec: Value) {
        self.apply(&resources::ANALYSIS_RUN, "run", json!({"metadata": {"uid": "uid-1"}, "spec": spec}));
    }

    fn status(&self) -> Value {
        self.api.object("AnalysisRun", "run").map(|run| run["status"].clone()).unwrap_or_default()
    }

    /// Waits until the cluster is as wanted.
    async fn until<R>(&self, what: &str, wanted: impl Fn(&Self) -> Option<R>) -> R {
        let mut changed = self.api.changed.subscribe();
        let wait = async {
            loop {
                changed.borrow_and_update();
                if let Some(found) = wanted(self) {
                    return found;
                }
                changed.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
        waited.unwrap_or_else(|_| panic!("not in time: {what}; status {}", self.status()))
    }

    async fn verdict(&self) -> (String, String) {
        self.until("a verdict", |bench| {
            let status = bench.status();
            status.get("completedAt")?;
            let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
            Some((text("phase"), text("message")))
        })
        .await
    }

    async fn job(&self) -> Value {
        self.until("a Job in the status", |bench| {
            bench.status().pointer("/metricResults/0/measurements/0/metadata/job-name")?;
            bench.api.all("Job").pop()
        })
        .await
    }

    fn change_job(&self, job: &Value, status: Value) {
        let mut job = job.clone();
        job["status"] = status;
        let name = job["metadata"]["name"].as_str().unwrap().to_owned();
        self.apply(&resources::JOB, &name, job);
    }
}

async fn server() -> MockServer {
    let server = MockServer::start().await;
    let answer = |code: u16, body: Value| ResponseTemplate::new(code).set_body_json(body);
    Mock::given(path("/good")).respond_with(answer(200, json!({"rate": 0.99}))).mount(&server).await;
    Mock::given(path("/bad")).respond_with(answer(200, json!({"rate": 0.1}))).mount(&server).await;
    let slow = answer(200, json!({"rate": 0.99})).set_delay(Duration::from_secs(60));
    Mock::given(path("/slow")).respond_with(slow).mount(&server).await;
    Mock::given(path("/secret"))
        .and(header("x-token", "t0k3n"))
        .respond_with(answer(200, json!({"rate": 1})))
        .mount(&server)
        .await;
    server
}

fn web(server: &MockServer, name: &str, more: Value) -> Value {
    let mut metric = json!({
        "name": name,
        "successCondition": "result > 0.9",
        "provider": {"web": {"url": format!("{}/{name}", server.uri()), "jsonPath": "{$.rate}"}},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        metric[key] = value.clone();
    }
    metric
}

fn job_metric() -> Value {
    json!({"name": "smoke", "provider": {"job": {"spec": {"template": {}}}}})
}

#[tokio::test]
async fn a_verdict_comes_soon_and_in_few_writes() {
    let (bench, server) = (Bench::new(), server().await);
    bench.run(json!({"metrics": [web(&server, "good", json!({}))]}));
    assert_eq!(bench.verdict().await, ("Successful".to_owned(), String::new()));
    let status = bench.status();
    assert_eq!(status["runSummary"], json!({"count": 1, "successful": 1}));
    assert_eq!(status["metricResults"][0]["measurements"][0]["value"], "0.99");
    assert!(bench.api.world.lock().unwrap().status_writes <= 3);
    bench
        .until("the events", |bench| {
            let events = bench.api.all("Event");
            let mut reasons: Vec<&str> = events.iter().map(|event| event["reason"].as_str().unwrap()).collect();
            reasons.sort_unstable();
            (reasons == ["AnalysisRunSuccessful", "MetricSuccessful"]).then_some(())
        })
        .await;
    let series = "analysis_run_info{namespace=\"shop\",name=\"run\",phase=\"Successful\"} 1";
    bench.until("the metrics", |bench| bench.metrics.render().contains(series).then_some(())).await;
}

#[tokio::test]
async fn a_slow_provider_holds_up_nothing() {
    let (bench, server) = (Bench::new(), server().await);
    bench.run(json!({"metrics": [web(&server, "slow", json!({})), web(&server, "good", json!({})), web(&server, "bad", json!({}))]}));
    let (phase, message) = bench.verdict().await;
    assert_eq!(phase, "Failed");
    assert_eq!(message, "Metric \"bad\" assessed Failed due to failed (1) > failureLimit (0)");
}

#[tokio::test]
async fn measurements_repeat_in_their_interval() {
    let (bench, server) = (Bench::new(), server().await);
    bench.run(json!({"metrics": [web(&server, "good", json!({"interval": "20ms", "count": 3}))]}));
    assert_eq!(bench.verdict().await.0, "Successful");
    assert_eq!(bench.status()["metricResults"][0]["count"], 3);
    assert_eq!(server.received_requests().await.unwrap().len(), 3);
}

#[tokio::test]
async fn secrets_are_read_at_the_measurement_and_told_nowhere() {
    let (bench, server) = (Bench::new(), server().await);
    let arg = json!({"name": "token", "valueFrom": {"secretKeyRef": {"name": "api", "key": "token"}}});
    let mut metric = web(&server, "secret", json!({"consecutiveErrorLimit": 0}));
    metric["provider"]["web"]["headers"] = json!([{"key": "x-token", "value": "{{args.token}}"}]);
    bench.apply(&resources::SECRET, "api", json!({"data": {"token": "dDBrM24="}}));
    bench.run(json!({"args": [arg], "metrics": [metric]}));
    assert_eq!(bench.verdict().await.0, "Successful");
    assert!(!bench.api.object("AnalysisRun", "run").unwrap().to_string().contains("t0k3n"));
}

#[tokio::test]
async fn a_missing_secret_is_named() {
    let (bench, server) = (Bench::new(), server().await);
    let arg = json!({"name": "token", "valueFrom": {"secretKeyRef": {"name": "api", "key": "nope"}}});
    let metric = web(&server, "secret", json!({"consecutiveErrorLimit": 0}));
    bench.apply(&resources::SECRET, "api", json!({"data": {"token": "dDBrM24="}}));
    bench.run(json!({"args": [arg], "metrics": [metric]}));
    let (phase, message) = bench.verdict().await;
    assert_eq!(phase, "Error");
    assert!(message.contains("args.token: key 'nope' does not exist in secret 'api'"), "{message}");
}

#[tokio::test]
async fn a_job_is_a_measurement() {
    for (status, phase) in [
        (json!({"conditions": [{"type": "Complete", "status": "True"}]}), "Successful"),
        (json!({"conditions": [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}]}), "Failed"),
    ] {
        let bench = Bench::new();
        bench.run(json!({"metrics": [job_metric()]}));
        let job = bench.job().await;
        assert_eq!(job["metadata"]["name"], "uid-1.smoke.1");
        assert_eq!(bench.status()["phase"], "Running");
        bench.change_job(&job, status);
        assert_eq!(bench.verdict().await.0, phase);
        assert_eq!(bench.api.all("Job").len(), 1);
    }
}

#[tokio::test]
async fn a_job_without_its_image_is_inconclusive() {
    let bench = Bench::new();
    bench.run(json!({"metrics": [job_metric()]}));
    let job = bench.job().await;
    let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}});
    let pod = json!({"metadata": {"labels": {"job-name": "uid-1.smoke.1"}},
        "status": {"containerStatuses": [{"name": "c", "state": waiting}]}});
    bench.apply(&resources::POD, "p", pod);
    bench.change_job(&job, json!({"active": 1, "ready": 0}));
    let (phase, message) = bench.verdict().await;
    assert_eq!(phase, "Inconclusive");
    assert!(message.contains("can not get its image: ImagePullBackOff: no such image"), "{message}");
}

#[tokio::test]
async fn to_end_a_run_ends_its_jobs() {
    let bench = Bench::new();
    bench.run(json!({"metrics": [job_metric()]}));
    bench.job().await;
    let mut run = bench.api.object("AnalysisRun", "run").unwrap();
    run["spec"]["terminate"] = true.into();
    bench.apply(&resources::ANALYSIS_RUN, "run", run);
    assert_eq!(bench.verdict().await.0, "Inconclusive");
    bench.until("the Job to go", |bench| bench.api.all("Job").is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_job_that_was_created_before_is_taken_up() {
    let bench = Bench::new();
    let labels = json!({"analysisrun.argoproj.io/uid": "uid-1"});
    let done = json!({"conditions": [{"type": "Complete", "status": "True"}]});
    bench.apply(&resources::JOB, "uid-1.smoke.1", json!({"metadata": {"labels": labels}, "status": done}));
    bench.run(json!({"metrics": [job_metric()]}));
    assert_eq!(bench.verdict().await.0, "Successful");

    let bench = Bench::new();
    bench.apply(&resources::JOB, "uid-1.smoke.1", json!({"metadata": {}}));
    let mut metric = job_metric();
    metric["consecutiveErrorLimit"] = 0.into();
    bench.run(json!({"metrics": [metric]}));
    let (phase, message) = bench.verdict().await;
    assert_eq!(phase, "Error");
    assert!(message.contains("belongs to somebody else"), "{message}");
}

#[tokio::test]
async fn a_job_that_is_gone_is_an_error() {
    let bench = Bench::new();
    let mut metric = job_metric();
    metric["consecutiveErrorLimit"] = 0.into();
    bench.run(json!({"metrics": [metric]}));
    let job = bench.job().await;
    bench
        .api
        .delete(&resources::JOB, "shop", job["metadata"]["name"].as_str().unwrap(), "", Propagation::Background)
        .await
        .unwrap();
    let mut run = bench.api.object("AnalysisRun", "run").unwrap();
    run["metadata"]["annotations"] = json!({"touched": "true"});
    bench.apply(&resources::ANALYSIS_RUN, "run", run);
    let (phase, message) = bench.verdict().await;
    assert_eq!(phase, "Error");
    assert!(message.contains("is gone: it was deleted"), "{message}");
}

#[tokio::test]
async fn no_measurement_is_lost_or_counted_twice() {
    let (bench, server) = (Bench::new(), server().await);
    bench.api.world.lock().unwrap().trouble = vec![true, false, true, true, false, true];
    bench.run(json!({"metrics": [web(&server, "good", json!({"interval": "10ms", "count": 4}))]}));
    assert_eq!(bench.verdict().await.0, "Successful");
    let result = bench.status()["metricResults"][0].clone();
    assert_eq!((result["count"].clone(), result["successful"].clone()), (json!(4), json!(4)));
    assert_eq!(result["measurements"].as_array().unwrap().len(), 4);
    assert_eq!(server.received_requests().await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_finished_run_goes_in_its_time() {
    let (bench, server) = (Bench::new(), server().await);
    let strategy = json!({"secondsAfterSuccess": 0, "secondsAfterCompletion": 1000});
    bench.run(json!({"metrics": [web(&server, "good", json!({}))], "ttlStrategy": strategy}));
    bench.until("the run to go", |bench| bench.api.all("AnalysisRun").is_empty().then_some(())).await;
    bench.controller.close();
}
