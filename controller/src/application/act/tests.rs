use super::*;
use crate::api::{Api, ApiResult, resources};
use crate::application::kinds::{Catalogue, Kinds};
use crate::application::live::{Known, LiveState};
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tidegate_crds::patch::merge_apply;
use tidegate_gitops::tracking::Tracking;

/// An API server of one map, which remembers the calls and can refuse some.
#[derive(Default)]
struct Fake {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    calls: Vec<String>,
    /// The next patches that somebody else is faster than.
    conflicts: usize,
    /// Patches are refused, as those of immutable fields are.
    immutable: bool,
}

impl Fake {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn calls(&self) -> Vec<String> {
        self.with(|state| std::mem::take(&mut state.calls))
    }

    fn put(&self, object: &Value) {
        self.with(|state| {
            state.store(object.clone());
        });
    }
}

impl State {
    fn store(&mut self, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        object["metadata"]["uid"] = "u".into();
        self.objects.insert(object::name(&object).to_owned(), object.clone());
        object
    }
}

impl Api for Fake {
    fn get<'a>(&'a self, _: &'a Resource, _: &'a str, name: &'a str) -> BoxFuture<'a, ApiResult<Value>> {
        Box::pin(async move {
            self.with(|state| state.objects.get(name).cloned().ok_or_else(|| ApiError::NotFound(format!("no {name}"))))
        })
    }

    fn list<'a>(&'a self, _: &'a Resource, _: &'a str, _: &'a str) -> BoxFuture<'a, ApiResult<Vec<Value>>> {
        Box::pin(async move { Ok(self.with(|state| state.objects.values().cloned().collect())) })
    }

    fn create<'a>(
        &'a self,
        _: &'a Resource,
        _: &'a str,
        object: &'a Value,
        dry: bool,
    ) -> BoxFuture<'a, ApiResult<Value>> {
        Box::pin(async move {
            self.with(|state| {
                state.calls.push(format!("create{}", if dry { "?" } else { "" }));
                if state.objects.contains_key(object::name(object)) {
                    return Err(ApiError::AlreadyExists("there".into()));
                }
                Ok(if dry { object.clone() } else { state.store(object.clone()) })
            })
        })
    }

    fn patch<'a>(&'a self, call: PatchCall<'a>) -> BoxFuture<'a, ApiResult<Value>> {
        Box::pin(async move {
            self.with(|state| {
                let apply = matches!(call.kind, PatchKind::Apply { .. });
                state.calls.push(if apply { "apply" } else { "patch" }.to_owned());
                if state.immutable {
                    return Err(ApiError::Invalid("field is immutable".into()));
                }
                if state.conflicts > 0 {
                    state.conflicts -= 1;
                    let found = state.objects.get(call.name).cloned();
                    found.map(|mut object| {
                        object["data"]["theirs"] = "new".into();
                        state.store(object)
                    });
                    return Err(ApiError::Conflict("changed".into()));
                }
                let mut object = match state.objects.get(call.name) {
                    Some(object) => object.clone(),
                    None if apply => json!({}),
                    None => return Err(ApiError::NotFound(call.name.into())),
                };
                let expected = object::text(call.body, "/metadata/resourceVersion");
                if !expected.is_empty() && expected != object::text(&object, "/metadata/resourceVersion") {
                    return Err(ApiError::Conflict("version".into()));
                }
                merge_apply(&mut object, call.body);
                Ok(state.store(object))
            })
        })
    }

    fn replace<'a>(
        &'a self,
        _: &'a Resource,
        _: &'a str,
        _: &'a str,
        object: &'a Value,
    ) -> BoxFuture<'a, ApiResult<Value>> {
        Box::pin(async move {
            self.with(|state| {
                state.calls.push("replace".to_owned());
                Ok(state.store(object.clone()))
            })
        })
    }

    fn delete<'a>(
        &'a self,
        _: &'a Resource,
        _: &'a str,
        name: &'a str,
        uid: &'a str,
        propagation: Propagation,
    ) -> BoxFuture<'a, ApiResult<()>> {
        Box::pin(async move {
            self.with(|state| {
                state.calls.push(format!("delete {propagation:?} {uid}"));
                state.objects.remove(name);
                Ok(())
            })
        })
    }

    fn evict<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, ApiResult<()>> {
        Box::pin(async move { Ok(()) })
    }
}

fn cluster() -> (Arc<Fake>, Arc<Cluster>) {
    let api = Arc::new(Fake::default());
    let cluster = Cluster {
        server: String::new(),
        name: String::new(),
        project: String::new(),
        api: Arc::clone(&api) as Arc<dyn Api>,
        live: LiveState::new(None, "", Tracking::default(), |_, _| {}),
        catalogue: Catalogue::fixed(Kinds::new([resources::CONFIG_MAP, resources::JOB], "v1.36.0")),
    };
    (api, Arc::new(cluster))
}

fn map(data: Value) -> Value {
    let mut object =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "ns"}, "data": data});
    Tracking::default().mark(&mut object, "web", "ns");
    object
}

fn operation(object: &Value, mode: Mode, force: bool, dry_run: bool) -> Operation {
    Operation {
        key: Key::of(object),
        api_version: object::api_version(object).to_owned(),
        action: Action::Apply { object: Box::new(object.clone()), mode, force, validate: true },
        dry_run,
        result: None,
    }
}

async fn apply(cluster: &Arc<Cluster>, object: &Value) -> Outcome {
    write(cluster, &operation(object, Mode::ClientSide, false, false)).await
}

#[tokio::test]
async fn client_side_apply_creates_changes_and_leaves_alone() {
    let (api, cluster) = cluster();
    assert_eq!(apply(&cluster, &map(json!({"a": "1", "b": "1"}))).await, Ok("configmap/c created".into()));
    assert_eq!(apply(&cluster, &map(json!({"a": "1", "b": "1"}))).await, Ok("configmap/c unchanged".into()));
    assert_eq!(api.calls(), ["create"], "what is as it should be is not written");
    assert_eq!(apply(&cluster, &map(json!({"a": "2"}))).await, Ok("configmap/c configured".into()));
    let stored = api.with(|state| state.objects["c"]["data"].clone());
    assert_eq!(stored, json!({"a": "2"}), "what was applied and is no longer said is gone");
    let Known::Object(held) = cluster.live.get(&resources::CONFIG_MAP, &CacheKey::new("ns", "c")) else {
        panic!("held")
    };
    assert_eq!(held["data"], json!({"a": "2"}), "the next decision sees it");
}

#[tokio::test]
async fn somebody_elses_change_in_between_is_kept() {
    let (api, cluster) = cluster();
    apply(&cluster, &map(json!({"a": "1"}))).await.expect("created");
    api.with(|state| state.conflicts = 2);
    assert_eq!(apply(&cluster, &map(json!({"a": "2"}))).await, Ok("configmap/c configured".into()));
    assert_eq!(api.with(|state| state.objects["c"]["data"].clone()), json!({"a": "2", "theirs": "new"}));
    api.with(|state| state.conflicts = 100);
    assert!(apply(&cluster, &map(json!({"a": "3"}))).await.is_err_and(|e| e.contains("again and again")));
}

#[tokio::test]
async fn what_cannot_be_changed_is_made_anew_only_by_force() {
    let (api, cluster) = cluster();
    apply(&cluster, &map(json!({"a": "1"}))).await.expect("created");
    api.with(|state| state.immutable = true);
    let target = map(json!({"a": "2"}));
    assert_eq!(apply(&cluster, &target).await, Err("field is immutable".into()));
    api.calls();
    let forced = write(&cluster, &operation(&target, Mode::ClientSide, true, false)).await;
    assert_eq!(forced, Ok("configmap/c replaced".into()));
    assert_eq!(api.calls(), ["patch", "delete Foreground u", "create"]);
}

#[tokio::test]
async fn a_dry_run_leaves_no_trace() {
    let (api, cluster) = cluster();
    let asked = write(&cluster, &operation(&map(json!({})), Mode::ClientSide, false, true)).await;
    assert_eq!(asked, Ok("configmap/c created (dry run)".into()));
    assert!(api.with(|state| state.objects.is_empty()));
    assert!(matches!(cluster.live.get(&resources::CONFIG_MAP, &CacheKey::new("ns", "c")), Known::Absent));
}

#[tokio::test]
async fn a_hook_is_released_before_it_is_deleted() {
    let (api, cluster) = cluster();
    api.put(&json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "ns", "finalizers": [HOOK_FINALIZER, "mine"]}}));
    let key = Key::new("batch", "Job", "ns", "j");
    delete_hook(&cluster, &resources::JOB, &key).await.expect("deleted");
    assert_eq!(api.calls(), ["patch", "delete Background u"]);
    delete_hook(&cluster, &resources::JOB, &key).await.expect("what is gone is gone");
}

#[tokio::test]
async fn a_failure_stops_the_groups_that_follow() {
    let (api, cluster) = cluster();
    api.put(&map(json!({})));
    api.with(|state| state.immutable = true);
    let unknown = json!({"apiVersion": "x/v1", "kind": "Thing", "metadata": {"name": "t"}});
    let group = |object: &Value| vec![operation(object, Mode::ClientSide, false, false)];
    let step = Step {
        groups: vec![group(&unknown), group(&map(json!({"a": "1"})))],
        results: Vec::new(),
        phase: tidegate_gitops::sync::OperationPhase::Running,
        message: String::new(),
        on_failure: None,
        requeue: None,
        is_wave: true,
    };
    let outcomes = perform(&cluster, &step).await;
    assert!(outcomes[0].as_ref().is_some_and(|o| o.as_ref().is_err_and(|e| e.contains("x/v1, Kind=Thing"))));
    assert_eq!(outcomes[1], None);
}

#[test]
fn fields_of_client_side_apply_become_ours() {
    let live = json!({"metadata": {"managedFields": [
        {"manager": "kubectl-client-side-apply", "operation": "Update", "apiVersion": "v1",
         "fieldsV1": {"f:data": {"f:a": {}}, "f:metadata": {"f:annotations": {"f:kubectl.kubernetes.io/last-applied-configuration": {}, "f:x": {}}}}},
        {"manager": "argocd-controller", "operation": "Apply", "apiVersion": "v1", "fieldsV1": {"f:data": {"f:b": {}}}},
        {"manager": "other", "operation": "Update", "fieldsV1": {}},
    ]}});
    let fields = migrated(&live, "kubectl-client-side-apply").expect("fields");
    assert_eq!(fields.len(), 2);
    assert_eq!(
        fields[1]["fieldsV1"],
        json!({"f:data": {"f:a": {}, "f:b": {}}, "f:metadata": {"f:annotations": {"f:x": {}}}})
    );
    assert_eq!(migrated(&live, "nobody"), None);
}

#[test]
fn what_was_applied_is_noted_and_limited() {
    let object = json!({"kind": "ConfigMap", "metadata": {"annotations": {LAST_APPLIED: "old"}}, "data": {"a": "b"}});
    let noted = with_last_applied(&object).expect("fits");
    let text = object::annotation(&noted, LAST_APPLIED).expect("annotation");
    assert_eq!(serde_json::from_str::<Value>(text).expect("json")["data"]["a"], "b");
    assert!(!text.contains("old"));
    let big = json!({"data": {"a": "x".repeat(ANNOTATION_LIMIT)}});
    assert!(with_last_applied(&big).is_err_and(|e| e.to_string().contains("ServerSideApply=true")));
}
