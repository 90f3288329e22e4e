//! Makes a decision's writes. Nothing is decided here.

use super::decision::{Action, Decision, ReplicaSetChange};
use super::snapshot::{ReplicaSet, Snapshot};
use super::{release, template};
use crate::api::{ApiError, Resource, resources};
use crate::context::Writer;
use crate::events::Event;
use crate::worker::Failure;
use futures::future::BoxFuture;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use tidegate_crds::{keys, patch};
use tidegate_traffic::{ObjectRef, Write};

/// Tells events; done when they can be found, as far as that does not take long.
pub type Tell<'a> = dyn Fn(Vec<Event>) -> BoxFuture<'a, ()> + Sync + 'a;

/// Makes the writes of `decision` in order, the status last. Stops at the first that fails; what was written stays, and
/// the next pass goes on from there. Events are told just before the status is written: who sees the status finds them.
///
/// # Errors
/// When a write fails.
pub async fn act(
    writer: &Writer<'_>,
    snapshot: &Snapshot,
    decision: &Decision,
    tell: &Tell<'_>,
) -> Result<(), Failure> {
    let mut version = snapshot.rollout.metadata.resource_version.clone();
    for (index, action) in decision.actions.iter().enumerate() {
        if let Err(failure) = make(writer, snapshot, decision, action, &mut version, tell).await {
            let made = decision.news.iter().take(index).flatten().cloned().collect();
            tell(made).await;
            return Err(failure);
        }
    }
    tell(decision.events.clone()).await;
    write_status(writer, snapshot, decision, version).await
}

/// Makes one action.
async fn make(
    writer: &Writer<'_>,
    snapshot: &Snapshot,
    decision: &Decision,
    action: &Action,
    version: &mut Option<String>,
    tell: &Tell<'_>,
) -> Result<(), Failure> {
    let rollout = &snapshot.rollout;
    let (namespace, name) = (rollout.namespace(), rollout.name());
    match action {
        Action::DefaultReplicas => {
            let body = json!({"metadata": {"resourceVersion": version}, "spec": {"replicas": 1}});
            let written = writer.merge(&resources::ROLLOUT, namespace, name, "", &body).await?;
            *version = version_of(&written);
        }
        Action::AnnotateRollout { annotations } => {
            let body = json!({"metadata": {"resourceVersion": version, "annotations": annotations}});
            let written = writer.merge(&resources::ROLLOUT, namespace, name, "", &body).await?;
            *version = version_of(&written);
        }
        Action::AdoptReplicaSet { name, uid } => {
            let body = json!({"metadata": {"uid": uid, "ownerReferences": owner(snapshot)}});
            writer.merge(&resources::REPLICA_SET, namespace, name, "", &body).await?;
        }
        Action::CreateReplicaSet { name, object } => {
            create_replica_set(writer, snapshot, decision, name, object, tell).await?;
        }
        Action::PatchReplicaSet { name, change } => {
            let seen = snapshot.replica_sets.iter().find(|rs| rs.name == *name);
            writer.merge(&resources::REPLICA_SET, namespace, name, "", &replica_set_patch(seen, change)).await?;
        }
        Action::EphemeralMetadata { name, hash, labels, annotations, remembered } => {
            let change = json!({"metadata": {"labels": labels, "annotations": annotations}});
            label_pods(writer, namespace, hash, &change).await?;
            let body = json!({
                "metadata": {"annotations": {keys::EPHEMERAL_METADATA: remembered}},
                "spec": {"template": change},
            });
            writer.merge(&resources::REPLICA_SET, namespace, name, "", &body).await?;
            // Pods that came in between were made from the old template.
            label_pods(writer, namespace, hash, &change).await?;
        }
        Action::DeleteReplicaSet { name, uid } => {
            writer.delete(&resources::REPLICA_SET, namespace, name, uid).await?;
        }
        Action::SelectService { name: service, hash } => {
            let body = json!({
                "metadata": {"annotations": {keys::MANAGED_BY: name}},
                "spec": {"selector": {keys::POD_TEMPLATE_HASH: hash}},
            });
            writer.merge(&resources::SERVICE, namespace, service, "", &body).await?;
        }
        Action::Route(write) => route(writer, write).await?,
        Action::CreateAnalysisRun { object } => {
            create_own(writer, snapshot, &resources::ANALYSIS_RUN, object).await?;
        }
        Action::TerminateAnalysisRun { name } => {
            let body = json!({"spec": {"terminate": true}});
            tolerate_gone(writer.merge(&resources::ANALYSIS_RUN, namespace, name, "", &body).await)?;
        }
        Action::DeleteAnalysisRun { name, uid } => {
            writer.delete(&resources::ANALYSIS_RUN, namespace, name, uid).await?;
        }
        Action::CreateExperiment { object } => {
            create_own(writer, snapshot, &resources::EXPERIMENT, object).await?;
        }
        Action::TerminateExperiment { name } => {
            let body = json!({"spec": {"terminate": true}});
            tolerate_gone(writer.merge(&resources::EXPERIMENT, namespace, name, "", &body).await)?;
        }
        Action::DeleteExperiment { name, uid } => {
            writer.delete(&resources::EXPERIMENT, namespace, name, uid).await?;
        }
        Action::EvictPod { name } => match writer.api.evict(namespace, name).await {
            // A PodDisruptionBudget forbids it now; the next pass tries again.
            Ok(()) | Err(ApiError::TooManyRequests { .. }) => {}
            Err(error) => return Err(error.into()),
        },
        Action::ScaleWorkload { replicas } => {
            let reference = rollout.spec.workload_ref.clone().unwrap_or_default();
            // By an update, not a patch: the peer's ClusterRole grants only that on Deployments.
            let mut workload = writer.api.get(&resources::DEPLOYMENT, namespace, &reference.name).await?;
            release::mark(&mut workload, name);
            workload["spec"]["replicas"] = (*replicas).into();
            let written = writer.api.replace(&resources::DEPLOYMENT, namespace, &reference.name, &workload).await?;
            writer.stores.of(&resources::DEPLOYMENT).apply(written);
        }
    }
    Ok(())
}

fn version_of(object: &Value) -> Option<String> {
    object.pointer("/metadata/resourceVersion").and_then(Value::as_str).map(str::to_owned)
}

fn tolerate_gone(result: Result<Value, ApiError>) -> Result<(), Failure> {
    match result {
        Ok(_) | Err(ApiError::NotFound(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Writes what changed of the status, on the version that was decided upon: a user's promote or abort in between must
/// not get lost.
async fn write_status(
    writer: &Writer<'_>,
    snapshot: &Snapshot,
    decision: &Decision,
    version: Option<String>,
) -> Result<(), Failure> {
    let rollout = &snapshot.rollout;
    let Some(body) = status_patch(&rollout.status, &decision.status) else { return Ok(()) };
    let mut body = body;
    body["metadata"] = json!({"resourceVersion": version});
    // A Rollout that is gone needs no status.
    tolerate_gone(writer.merge(&resources::ROLLOUT, rollout.namespace(), rollout.name(), "status", &body).await)
}

/// The merge patch from one status to another; `None` when nothing changed.
pub fn status_patch(
    before: &tidegate_crds::rollout::RolloutStatus,
    after: &tidegate_crds::rollout::RolloutStatus,
) -> Option<Value> {
    if before == after {
        return None;
    }
    let value = |status| serde_json::to_value(status).unwrap_or_default();
    patch::merge_diff(&value(before), &value(after)).map(|status| json!({"status": status}))
}

fn owner(snapshot: &Snapshot) -> Value {
    json!([{
        "apiVersion": tidegate_crds::API_VERSION, "kind": "Rollout", "name": snapshot.rollout.name(),
        "uid": snapshot.rollout.metadata.uid, "controller": true, "blockOwnerDeletion": true,
    }])
}

/// Pods are taken away only on the version that was decided upon: some that were not ready then may serve by now.
pub(crate) fn replica_set_patch(seen: Option<&ReplicaSet>, change: &ReplicaSetChange) -> Value {
    let mut spec = Map::new();
    if let Some(replicas) = change.replicas {
        spec.insert("replicas".to_owned(), replicas.into());
    }
    if let Some(seconds) = change.min_ready_seconds {
        spec.insert("minReadySeconds".to_owned(), seconds.into());
    }
    let mut body = Map::new();
    if !spec.is_empty() {
        body.insert("spec".to_owned(), Value::Object(spec));
    }
    if !change.annotations.is_empty() {
        body.insert("metadata".to_owned(), json!({"annotations": change.annotations}));
    }
    if let Some(seen) = seen.filter(|rs| change.replicas.is_some_and(|pods| pods < rs.replicas)) {
        let metadata = body.entry("metadata").or_insert_with(|| json!({}));
        metadata["resourceVersion"] = seen.resource_version.as_str().into();
    }
    Value::Object(body)
}

async fn create_replica_set(
    writer: &Writer<'_>,
    snapshot: &Snapshot,
    decision: &Decision,
    name: &str,
    object: &Value,
    tell: &Tell<'_>,
) -> Result<(), Failure> {
    let rollout = &snapshot.rollout;
    let namespace = rollout.namespace();
    match writer.create(&resources::REPLICA_SET, namespace, object).await {
        Ok(_) => return Ok(()),
        Err(ApiError::AlreadyExists(_)) => {}
        Err(error) => {
            let text = format!("ReplicaSet {namespace}/{name} cannot be created: {error}");
            if report_create_failure(writer, snapshot, decision.at, &text).await? {
                tell(vec![Event::warning(CREATE_FAILED, text.clone())]).await;
            }
            return Err(Failure::Error(text));
        }
    }
    let existing = writer.api.get(&resources::REPLICA_SET, namespace, name).await?;
    let parsed = ReplicaSet::from_value(&existing).unwrap_or_default();
    writer.stores.replica_sets.apply(existing);
    let ours = parsed.owner.as_deref() == rollout.metadata.uid.as_deref();
    if ours && template::same(&parsed.template, &rollout.spec.template, super::revisions::ephemeral(&parsed)) {
        return Err(Failure::Stale(format!("ReplicaSet {name} exists already; the cache did not know it yet")));
    }
    let count = rollout.status.collision_count.unwrap_or(0) + 1;
    let body = json!({
        "metadata": {"resourceVersion": rollout.metadata.resource_version},
        "status": {"collisionCount": count},
    });
    match writer.merge(&resources::ROLLOUT, namespace, rollout.name(), "status", &body).await {
        Ok(_) | Err(ApiError::Conflict(_)) => {
            Err(Failure::Stale(format!("another ReplicaSet has the name {name}; trying another hash")))
        }
        Err(error) => Err(error.into()),
    }
}

/// Reason of condition and event when a ReplicaSet cannot be created.
const CREATE_FAILED: &str = "ReplicaSetCreateError";

/// A ReplicaSet that the API server refuses shows in the Rollout's conditions. Says whether it did not show there yet.
async fn report_create_failure(
    writer: &Writer<'_>,
    snapshot: &Snapshot,
    now: Timestamp,
    text: &str,
) -> Result<bool, Failure> {
    let rollout = &snapshot.rollout;
    let mut conditions = rollout.status.conditions.clone();
    let known = conditions.iter().any(|c| c.reason == CREATE_FAILED && c.message == text);
    if known {
        return Ok(false);
    }
    let now = tidegate_crds::Time(crate::api::whole_seconds(now));
    conditions.retain(|c| c.type_ != "Progressing");
    conditions.push(tidegate_crds::rollout::Condition {
        type_: "Progressing".to_owned(),
        status: "False".to_owned(),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now),
        reason: CREATE_FAILED.to_owned(),
        message: text.to_owned(),
    });
    let body = json!({"status": {
        "conditions": conditions, "phase": "Degraded", "message": format!("{CREATE_FAILED}: {text}"),
    }});
    tolerate_gone(writer.merge(&resources::ROLLOUT, rollout.namespace(), rollout.name(), "status", &body).await)?;
    Ok(true)
}

/// Creates an object that may have been created by a pass that could not note it.
async fn create_own(
    writer: &Writer<'_>,
    snapshot: &Snapshot,
    resource: &Resource,
    object: &Value,
) -> Result<(), Failure> {
    let namespace = snapshot.rollout.namespace();
    match writer.create(resource, namespace, object).await {
        Ok(_) => Ok(()),
        Err(ApiError::AlreadyExists(_)) => {
            let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            let existing = writer.api.get(resource, namespace, name).await?;
            writer.stores.of(resource).apply(existing);
            Err(Failure::Stale(format!("{} {namespace}/{name} exists already", resource.kind)))
        }
        Err(error) => Err(Failure::Error(format!("{} cannot be created: {error}", resource.kind))),
    }
}

async fn label_pods(writer: &Writer<'_>, namespace: &str, hash: &str, change: &Value) -> Result<(), Failure> {
    let selector = format!("{}={hash}", keys::POD_TEMPLATE_HASH);
    for mut pod in writer.api.list(&resources::POD, namespace, &selector).await? {
        if has(&pod, change) {
            continue;
        }
        patch::merge_apply(&mut pod, change);
        let name = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        // By an update, not a patch: the peer's ClusterRole grants only that on pods.
        tolerate_gone(writer.api.replace(&resources::POD, namespace, &name, &pod).await)?;
    }
    Ok(())
}

/// The object has all labels and annotations of `change`, and none of those that it removes.
fn has(object: &Value, change: &Value) -> bool {
    ["labels", "annotations"].iter().all(|part| {
        let wanted: BTreeMap<String, Option<String>> = change
            .pointer(&format!("/metadata/{part}"))
            .and_then(|v| serde_json::from_value(v.clone()).ok())
            .unwrap_or_default();
        let found = super::snapshot::text_map(object.pointer(&format!("/metadata/{part}")));
        wanted.iter().all(|(key, value)| found.get(key) == value.as_ref())
    })
}

/// The kind behind a router's reference.
pub(crate) fn resource_of(target: &ObjectRef) -> Resource {
    Resource::named(&target.api_version, &target.kind, &target.plural, !target.namespace.is_empty())
}

async fn route(writer: &Writer<'_>, write: &Write) -> Result<(), Failure> {
    let target = write.target();
    let resource = resource_of(target);
    let failed = |error: ApiError| match error {
        ApiError::Conflict(message) | ApiError::AlreadyExists(message) => Failure::Stale(message),
        other => Failure::Error(format!("{target} cannot be written: {other}")),
    };
    match write {
        Write::Create { object, .. } => {
            writer.create(&resource, &target.namespace, object).await.map_err(failed)?;
        }
        Write::Patch { patch, .. } => {
            writer.merge(&resource, &target.namespace, &target.name, "", patch).await.map_err(failed)?;
        }
        Write::Delete { .. } => {
            writer.delete(&resource, &target.namespace, &target.name, "").await.map_err(failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::KubeApi;
    use crate::context::Stores;
    use std::sync::Mutex;
    use wiremock::matchers::{method, path_regex};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    #[tokio::test]
    async fn what_happened_is_told_although_the_next_write_fails() {
        let server = MockServer::start().await;
        let answer = |kind: &str, status: u16, body: Value| {
            Mock::given(method("PATCH"))
                .and(path_regex(format!("/{kind}/")))
                .respond_with(ResponseTemplate::new(status).set_body_json(body))
        };
        let conflict =
            json!({"kind": "Status", "status": "Failure", "reason": "Conflict", "code": 409, "message": "x"});
        answer("rollouts", 200, json!({"metadata": {"name": "web", "namespace": "shop"}})).mount(&server).await;
        answer("services", 409, conflict).mount(&server).await;
        let client = kube::Client::try_from(kube::Config::new(server.uri().parse().unwrap())).unwrap();
        let (api, stores) = (KubeApi::new(client, |_, _, _| {}), Stores::new(None, ""));
        let writer = Writer { api: &api, stores: &stores };
        let event = |reason: &str| Event::normal(reason, "x");
        let decision = Decision {
            actions: vec![
                Action::AnnotateRollout { annotations: BTreeMap::new() },
                Action::SelectService { name: "web".into(), hash: "2".into() },
            ],
            news: vec![vec![event("RolloutUpdated")], vec![event("SwitchService")]],
            events: vec![event("RolloutUpdated"), event("SwitchService"), event("RolloutCompleted")],
            ..Decision::default()
        };
        let told = Mutex::new(Vec::new());
        let tell = |events: Vec<Event>| -> BoxFuture<'_, ()> {
            told.lock().unwrap().extend(events);
            Box::pin(std::future::ready(()))
        };
        let metadata = json!({"metadata": {"name": "web", "namespace": "shop"}});
        let rollout = tidegate_crds::rollout::Rollout::decode(metadata).unwrap().0;
        let snapshot = Snapshot { rollout, ..Snapshot::default() };
        let outcome = act(&writer, &snapshot, &decision, &tell).await;
        assert!(outcome.is_err());
        assert_eq!(*told.lock().unwrap(), [event("RolloutUpdated")]);
    }
}
