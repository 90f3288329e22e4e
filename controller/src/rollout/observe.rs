//! Gathers what a decision looks at. Reads only, and from the stores as far as they reach.

use super::act::resource_of;
use super::conditions::selector_text;
use super::experiments;
use super::snapshot::{
    Endpoints, Pod, ReplicaSet, Service, Snapshot, TemplateSet, Workload, service_names, template_names,
};
use super::validate;
use crate::api::{ApiError, Resource, resources};
use crate::cache::{Key, Store};
use crate::context::{Context, Interest, behind, orphans, owned_by};
use crate::worker::Failure;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tidegate_crds::LabelSelector;
use tidegate_crds::analysis::AnalysisTemplateSpec;
use tidegate_crds::rollout::Rollout;
use tidegate_traffic::{Objects, Read, RouterOptions};

/// How long the first list of a kind may take before single objects are read instead.
const SYNC_PATIENCE: Duration = Duration::from_secs(5);

/// Everything that a decision about the Rollout `key` looks at; `None` when there is no such Rollout.
///
/// # Errors
/// When something has to be asked of the API server, and it does not answer.
pub async fn observe(
    context: &Context,
    interest: &Interest,
    router_options: &RouterOptions,
    key: &Key,
) -> Result<Option<Snapshot>, Failure> {
    let stores = &context.stores;
    let Some(value) = stores.rollouts.value(key) else { return Ok(None) };
    let (rollout, dropped) = Rollout::decode(value).map_err(|error| Failure::Error(error.to_string()))?;
    let mut snapshot = Snapshot {
        rollout,
        dropped,
        router_options: router_options.clone(),
        instance_id: context.instance_id(),
        ..Snapshot::default()
    };
    workload(context, interest, key, &mut snapshot).await?;
    let rollout = &snapshot.rollout;
    let uid = rollout.metadata.uid.clone().unwrap_or_default();
    let owned = owned_by(&uid);
    let parse = |index: &str| -> Vec<ReplicaSet> {
        stores.replica_sets.by_index::<Value>(index).iter().filter_map(ReplicaSet::from_value).collect()
    };
    snapshot.replica_sets = parse(&owned);
    let selector = rollout.spec.selector.clone().unwrap_or_default();
    if !is_empty(&selector) {
        snapshot.replica_sets.extend(parse(&orphans(&key.namespace)).into_iter().filter(|rs| selects(&selector, rs)));
    }
    for name in service_names(rollout) {
        if let Some(service) = stores.services.value(&Key::new(&key.namespace, &name)) {
            snapshot.services.insert(name, Service::from_value(&service));
        }
    }
    snapshot.analysis_runs = stores.analysis_runs.by_index(&owned);
    snapshot.experiments = stores.experiments.by_index(&owned);
    snapshot.endpoints = endpoints(context, &snapshot).await;
    snapshot.templates = templates(context, rollout.namespace(), template_names(rollout));
    snapshot.routing = routing(context, interest, key, &snapshot).await?;
    if super::restart::pending(&rollout.status, &rollout.spec) {
        let selector = selector_text(rollout.spec.selector.as_ref());
        let pods = context.api.list(&resources::POD, &key.namespace, &selector).await?;
        snapshot.pods = pods.iter().filter_map(Pod::from_value).collect();
    }
    Ok(Some(snapshot))
}

fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(|l| l.is_empty())
        && selector.match_expressions.as_ref().is_none_or(|e| e.is_empty())
}

/// The selector selects the ReplicaSet's pods.
fn selects(selector: &LabelSelector, rs: &ReplicaSet) -> bool {
    let labels = super::snapshot::text_map(rs.template.pointer("/metadata/labels"));
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|e| {
            let values = e.values.clone().unwrap_or_default();
            let found = labels.get(&e.key);
            match e.operator.as_str() {
                "In" => found.is_some_and(|v| values.contains(v)),
                "NotIn" => found.is_none_or(|v| !values.contains(v)),
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => false,
            }
        })
}

/// With `workloadRef`, takes template and selector from the workload; only in the snapshot, never stored.
async fn workload(context: &Context, interest: &Interest, key: &Key, snapshot: &mut Snapshot) -> Result<(), Failure> {
    let Some(reference) = snapshot.rollout.spec.workload_ref.clone() else { return Ok(()) };
    let (resource, template) = match reference.kind.as_str() {
        "Deployment" => (resources::DEPLOYMENT, "/spec/template"),
        "ReplicaSet" => (resources::REPLICA_SET, "/spec/template"),
        "PodTemplate" => (resources::POD_TEMPLATE, "/template"),
        _ => return Ok(()),
    };
    let found = read(context, interest, &resource, &Key::new(&key.namespace, &reference.name), key).await?;
    let Some(object) = found else { return Ok(()) };
    let template_twice = !validate::is_empty_template(&snapshot.rollout.spec.template);
    snapshot.rollout.spec.template = object.pointer(template).cloned().unwrap_or_default();
    if let Some(labels) = snapshot.rollout.spec.template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut)
    {
        labels.remove("pod-template-hash");
    }
    if let Some(selector) = object.pointer("/spec/selector") {
        let mut selector: LabelSelector = serde_json::from_value(selector.clone()).unwrap_or_default();
        if let Some(labels) = &mut selector.match_labels {
            labels.remove("pod-template-hash");
        }
        snapshot.rollout.spec.selector = Some(selector);
    }
    snapshot.workload = Some(Workload {
        generation: object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0),
        replicas: object.pointer("/spec/replicas").and_then(Value::as_i64).map(|r| r as i32),
        kind: reference.kind,
        template_twice,
    });
    Ok(())
}

/// Reads an object of a kind that is watched on demand, and hears of its changes from now on.
async fn read(
    context: &Context,
    interest: &Interest,
    resource: &Resource,
    object: &Key,
    who: &Key,
) -> Result<Option<Value>, Failure> {
    interest.add(resource, object, who);
    if *resource == resources::REPLICA_SET {
        // The store of ReplicaSets holds only those with a pod template hash of ours.
        return one(context, resource, object).await;
    }
    let store = context.stores.of(resource);
    if synced(&store).await {
        return Ok(store.value(object));
    }
    one(context, resource, object).await
}

async fn synced(store: &Store) -> bool {
    store.is_synced() || store.listed(SYNC_PATIENCE).await
}

/// What EndpointSlices say of the Services, where traffic goes by them. A Service without a slice is left out: it has no
/// selector, or we may not look.
async fn endpoints(context: &Context, snapshot: &Snapshot) -> BTreeMap<String, Endpoints> {
    let strategy = &snapshot.rollout.spec.strategy;
    let routed = strategy.canary.as_ref().is_some_and(|c| c.traffic_routing.is_some());
    let mut found = BTreeMap::new();
    if !routed && strategy.blue_green.is_none() {
        return found;
    }
    let store = context.stores.of(&resources::ENDPOINT_SLICE);
    if !synced(&store).await {
        return found;
    }
    for name in snapshot.services.keys() {
        let slices: Vec<Value> = store.by_index(&behind(snapshot.rollout.namespace(), name));
        if !slices.is_empty() {
            found.insert(name.clone(), Endpoints::from_slices(&slices));
        }
    }
    // These have a selector, and may be so young that they have no slice yet.
    for name in experiments::services(&snapshot.experiments) {
        let slices: Vec<Value> = store.by_index(&behind(snapshot.rollout.namespace(), name));
        found.insert(name.to_owned(), Endpoints::from_slices(&slices));
    }
    found
}

async fn one(context: &Context, resource: &Resource, object: &Key) -> Result<Option<Value>, Failure> {
    match context.api.get(resource, &object.namespace, &object.name).await {
        Ok(value) => Ok(Some(value)),
        Err(ApiError::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The analysis templates with these names in `namespace`, or of the cluster where the flag is set, and those that they
/// name.
pub(crate) fn templates(context: &Context, namespace: &str, names: BTreeSet<(String, bool)>) -> TemplateSet {
    let mut set = TemplateSet::default();
    let mut open: Vec<(String, bool)> = names.into_iter().collect();
    while let Some((name, cluster)) = open.pop() {
        if set.0.contains_key(&(name.clone(), cluster)) {
            continue;
        }
        let spec: Option<AnalysisTemplateSpec> = if cluster {
            let store = &context.stores.cluster_analysis_templates;
            store.get::<tidegate_crds::analysis::ClusterAnalysisTemplate>(&Key::new("", &name)).map(|t| t.spec)
        } else {
            let store = &context.stores.analysis_templates;
            store.get::<tidegate_crds::analysis::AnalysisTemplate>(&Key::new(namespace, &name)).map(|t| t.spec)
        };
        if let Some(spec) = spec {
            open.extend(spec.templates.iter().map(|t| (t.template_name.clone(), t.cluster_scope)));
            set.0.insert((name, cluster), spec);
        }
    }
    set
}

/// What the routers ask to see; one answer can lead to the next question.
async fn routing(context: &Context, interest: &Interest, key: &Key, snapshot: &Snapshot) -> Result<Objects, Failure> {
    let mut objects = Objects::default();
    let Some(canary) = &snapshot.rollout.spec.strategy.canary else { return Ok(objects) };
    let Ok(routers) = tidegate_traffic::routers(&key.name, &key.namespace, canary, &snapshot.router_options) else {
        return Ok(objects);
    };
    let mut asked: Vec<Read> = Vec::new();
    loop {
        let open: Vec<Read> =
            routers.iter().flat_map(|r| r.reads(&objects)).filter(|read| !asked.contains(read)).collect();
        if open.is_empty() {
            return Ok(objects);
        }
        for question in open {
            match &question {
                Read::Object(target) => {
                    let resource = resource_of(target);
                    let object = Key::new(&target.namespace, &target.name);
                    if let Some(value) = read(context, interest, &resource, &object, key).await? {
                        objects.0.insert(target.clone(), value);
                    }
                }
                Read::Select { api_version, kind, plural, namespace, selector } => {
                    let resource = Resource::named(api_version, kind, plural, true);
                    let store = context.stores.of(&resource);
                    if !synced(&store).await {
                        continue;
                    }
                    for object in store.keys() {
                        let elsewhere = namespace.as_ref().is_some_and(|n| **n != *object.namespace);
                        let Some(value) = (!elsewhere).then(|| store.value(&object)).flatten() else { continue };
                        let labels = super::snapshot::text_map(value.pointer("/metadata/labels"));
                        if matches(selector, &labels) {
                            interest.add(&resource, &object, key);
                            let target = tidegate_traffic::ObjectRef::new(
                                api_version,
                                kind,
                                plural,
                                &object.namespace,
                                &object.name,
                            );
                            objects.0.insert(target, value);
                        }
                    }
                }
            }
            asked.push(question);
        }
    }
}

fn matches(selector: &LabelSelector, labels: &std::collections::BTreeMap<String, String>) -> bool {
    selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value))
}

/// The Rollouts that a ReplicaSet, AnalysisRun or Experiment belongs to.
pub(crate) fn owner_keys(object: &Value) -> BTreeSet<Key> {
    let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    owners
        .into_iter()
        .flatten()
        .filter(|o| o.get("kind").and_then(Value::as_str) == Some(Rollout::KIND))
        .filter_map(|o| Some(Key::new(namespace, o.get("name")?.as_str()?)))
        .collect()
}
