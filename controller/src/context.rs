//! What every reconciler works with: the API, the stores, the recorder of events.

use crate::api::{Api, ApiResult, PatchCall, PatchKind, Propagation, Resource, resources};
use crate::cache::{Change, ClientOf, Key, OnDemand, Store, key_of};
use crate::events::Recorder;
use crate::options::ControllerOptions;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use tidegate_crds::keys;

/// The stores that are filled from the start.
pub struct Stores {
    /// Rollouts.
    pub rollouts: Arc<Store>,
    /// ReplicaSets with a pod template hash.
    pub replica_sets: Arc<Store>,
    /// Services.
    pub services: Arc<Store>,
    /// AnalysisRuns.
    pub analysis_runs: Arc<Store>,
    /// AnalysisTemplates.
    pub analysis_templates: Arc<Store>,
    /// ClusterAnalysisTemplates.
    pub cluster_analysis_templates: Arc<Store>,
    /// Experiments.
    pub experiments: Arc<Store>,
    /// Jobs that measure.
    pub jobs: Arc<Store>,
    /// Everything else, watched once something uses it.
    pub on_demand: Arc<OnDemand>,
}

/// Index key of objects that a controller owns.
pub fn owned_by(uid: &str) -> String {
    format!("owner/{uid}")
}

/// Index key of an owner itself.
fn with_uid(uid: &str) -> String {
    format!("uid/{uid}")
}

/// The keys in `store`, whose objects are indexed by their uid, of the controlling owners of the object that changed,
/// also when it is gone.
pub fn owners(store: &Store, change: &Change<'_>) -> Vec<Key> {
    let uids = change.index.iter().filter_map(|index| index.strip_prefix("owner/"));
    uids.flat_map(|uid| store.keys_by_index(&with_uid(uid))).collect()
}

/// Index key of ReplicaSets in a namespace that no controller owns.
pub fn orphans(namespace: &str) -> String {
    format!("orphan/{namespace}")
}

/// Index key of Rollouts that name an object.
pub fn naming(kind: &str, namespace: &str, name: &str) -> String {
    format!("{kind}/{namespace}/{name}")
}

/// Index key of Services that a Rollout manages.
pub fn managed(namespace: &str, rollout: &str) -> String {
    format!("managed/{namespace}/{rollout}")
}

/// The owner of `object` that is its controller: kind, name and uid.
pub fn controller_of(object: &Value) -> Option<(&str, &str, &str)> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    let owner = owners.iter().find(|o| o.get("controller") == Some(&Value::Bool(true)))?;
    Some((owner.get("kind")?.as_str()?, owner.get("name")?.as_str()?, owner.get("uid")?.as_str()?))
}

fn owner_index(object: &Value) -> Vec<String> {
    controller_of(object).map(|(_, _, uid)| owned_by(uid)).into_iter().collect()
}

fn uid_index(object: &Value) -> Option<String> {
    object.pointer("/metadata/uid").and_then(Value::as_str).map(with_uid)
}

/// Of kinds that own others, and are owned.
fn owner_and_uid_index(object: &Value) -> Vec<String> {
    owner_index(object).into_iter().chain(uid_index(object)).collect()
}

fn replica_set_index(object: &Value) -> Vec<String> {
    match controller_of(object) {
        Some((_, _, uid)) => vec![owned_by(uid)],
        None => key_of(object).map(|key| orphans(&key.namespace)).into_iter().collect(),
    }
}

fn service_index(object: &Value) -> Vec<String> {
    let Some(key) = key_of(object) else { return Vec::new() };
    let managed_by =
        object.pointer("/metadata/annotations").and_then(|a| a.get(keys::MANAGED_BY)).and_then(Value::as_str);
    managed_by.map(|rollout| managed(&key.namespace, rollout)).into_iter().collect()
}

/// Index key of the objects that say what is behind a Service: its EndpointSlices, and
/// AWS target groups that are bound to it.
pub fn behind(namespace: &str, service: &str) -> String {
    format!("behind/{namespace}/{service}")
}

/// The Services behind which the object that changed is, or was.
pub fn services(change: &Change<'_>) -> impl Iterator<Item = Key> {
    let names = change.index.iter().filter_map(|index| index.strip_prefix("behind/")?.split_once('/'));
    names.map(|(namespace, service)| Key::new(namespace, service))
}

/// Index of the kinds that are watched on demand.
fn on_demand_index(object: &Value) -> Vec<String> {
    let Some(key) = key_of(object) else { return Vec::new() };
    let service = match object.get("kind").and_then(Value::as_str) {
        Some("EndpointSlice") => object.pointer("/metadata/labels").and_then(|l| l.get("kubernetes.io/service-name")),
        Some("TargetGroupBinding") => object.pointer("/spec/serviceRef/name"),
        _ => None,
    };
    service.and_then(Value::as_str).map(|service| behind(&key.namespace, service)).into_iter().collect()
}

/// The objects that a Rollout names, as index keys, so that a change of one of them finds the Rollout.
fn rollout_index(object: &Value) -> Vec<String> {
    let Ok((rollout, _)) = tidegate_crds::rollout::Rollout::decode(object.clone()) else { return Vec::new() };
    let namespace = rollout.namespace();
    let mut index: BTreeSet<String> = uid_index(object).into_iter().collect();
    index.extend(crate::rollout::service_names(&rollout).iter().map(|name| naming("Service", namespace, name)));
    let rule = crate::rollout::destination_rule_name(&rollout);
    index.extend(rule.map(|name| naming(crate::rollout::DESTINATION_RULE, namespace, name)));
    let workload = rollout.spec.workload_ref.as_ref().filter(|workload| workload.kind == "Deployment");
    index.extend(workload.map(|workload| naming("Deployment", namespace, &workload.name)));
    for (name, cluster) in crate::rollout::template_names(&rollout) {
        index.insert(if cluster {
            naming("ClusterAnalysisTemplate", "", &name)
        } else {
            naming("AnalysisTemplate", namespace, &name)
        });
    }
    index.into_iter().collect()
}

impl Stores {
    /// Empty stores. With a client, kinds that are asked for later are watched through it.
    pub fn new(client: Option<ClientOf>, namespace: &str) -> Self {
        Self {
            rollouts: Store::indexed_by_spec(resources::ROLLOUT, rollout_index),
            replica_sets: Store::new(resources::REPLICA_SET, replica_set_index),
            services: Store::new(resources::SERVICE, service_index),
            analysis_runs: Store::new(resources::ANALYSIS_RUN, owner_and_uid_index),
            analysis_templates: Store::new(resources::ANALYSIS_TEMPLATE, |_| Vec::new()),
            cluster_analysis_templates: Store::new(resources::CLUSTER_ANALYSIS_TEMPLATE, |_| Vec::new()),
            experiments: Store::new(resources::EXPERIMENT, owner_and_uid_index),
            jobs: Store::new(resources::JOB, owner_index),
            on_demand: OnDemand::new(client, namespace, on_demand_index),
        }
    }

    /// The stores that a process fills from the start: all, or in namespaced mode those of namespaced kinds, since a
    /// Role cannot grant others.
    pub fn watched(&self, namespaced: bool) -> Vec<(Arc<Store>, &'static str)> {
        self.fixed().into_iter().filter(|(store, _)| !namespaced || store.resource.namespaced).collect()
    }

    /// All stores that are filled from the start, with the label selector of their watch.
    pub fn fixed(&self) -> Vec<(Arc<Store>, &'static str)> {
        vec![
            (Arc::clone(&self.rollouts), ""),
            (Arc::clone(&self.replica_sets), keys::POD_TEMPLATE_HASH),
            (Arc::clone(&self.services), ""),
            (Arc::clone(&self.analysis_runs), ""),
            (Arc::clone(&self.analysis_templates), ""),
            (Arc::clone(&self.cluster_analysis_templates), ""),
            (Arc::clone(&self.experiments), ""),
            (Arc::clone(&self.jobs), keys::ANALYSIS_RUN_UID),
        ]
    }

    /// The store that holds objects of this kind.
    pub fn of(&self, resource: &Resource) -> Arc<Store> {
        let fixed = self.fixed().into_iter().map(|(store, _)| store);
        fixed.into_iter().find(|s| s.resource == *resource).unwrap_or_else(|| self.on_demand.store(resource))
    }
}

/// Which reconcilers want to hear of a change of an object that is watched on demand.
#[derive(Default)]
pub struct Interest {
    map: Mutex<Interests>,
}

/// Who is interested in what, both ways round.
#[derive(Default)]
struct Interests {
    of: BTreeMap<(Resource, Key), BTreeSet<Key>>,
    by: BTreeMap<Key, BTreeSet<(Resource, Key)>>,
}

impl Interest {
    /// `who` wants to hear of changes of the object.
    pub fn add(&self, resource: &Resource, object: &Key, who: &Key) {
        let mut map = self.map.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let what = (resource.clone(), object.clone());
        if map.of.entry(what.clone()).or_default().insert(who.clone()) {
            map.by.entry(who.clone()).or_default().insert(what);
        }
    }

    /// Who wants to hear of it.
    pub fn of(&self, resource: &Resource, object: &Key) -> BTreeSet<Key> {
        let map = self.map.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        map.of.get(&(resource.clone(), object.clone())).cloned().unwrap_or_default()
    }

    /// `who` is gone.
    pub fn forget(&self, who: &Key) {
        let mut map = self.map.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for what in map.by.remove(who).unwrap_or_default() {
            if let Some(interested) = map.of.get_mut(&what) {
                interested.remove(who);
                if interested.is_empty() {
                    map.of.remove(&what);
                }
            }
        }
    }
}

/// What every reconciler works with.
#[derive(Clone)]
pub struct Context {
    /// The API.
    pub api: Arc<dyn Api>,
    /// The stores.
    pub stores: Arc<Stores>,
    /// The recorder of events.
    pub recorder: Recorder,
    /// Settings of the process.
    pub options: Arc<ControllerOptions>,
}

impl Context {
    /// The object carries this process's instance id, or none when the process has none.
    pub fn is_ours(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        let id = labels.and_then(|l| l.get(keys::INSTANCE_ID)).map(String::as_str).unwrap_or_default();
        id == self.options.instance_id.as_deref().unwrap_or_default()
    }

    /// The process's instance id, or an empty text.
    pub fn instance_id(&self) -> String {
        self.options.instance_id.clone().unwrap_or_default()
    }
}

/// Writes that enter the stores with the answer, so that the next decision sees them.
pub struct Writer<'a> {
    /// The API.
    pub api: &'a dyn Api,
    /// The stores.
    pub stores: &'a Stores,
}

impl Writer<'_> {
    /// Creates an object.
    ///
    /// # Errors
    /// As the API says.
    pub async fn create(&self, resource: &Resource, namespace: &str, object: &Value) -> ApiResult<Value> {
        let created = self.api.create(resource, namespace, object, false).await?;
        self.stores.of(resource).apply(created.clone());
        Ok(created)
    }

    /// Changes an object by a merge patch.
    ///
    /// # Errors
    /// As the API says. An object that is gone leaves its store too.
    pub async fn merge(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        subresource: &str,
        body: &Value,
    ) -> ApiResult<Value> {
        let call = PatchCall { resource, namespace, name, subresource, kind: PatchKind::Merge, body, dry_run: false };
        let patched = self.api.patch(call).await?;
        if subresource.is_empty() || subresource == "status" {
            self.stores.of(resource).apply(patched.clone());
        }
        Ok(patched)
    }

    /// Writes the status of a kind that has no status subresource of ours. Where another definition of the kind is
    /// installed that has one, a write to the object leaves the status as it was; then the subresource is written.
    ///
    /// # Errors
    /// As the API says.
    pub async fn merge_status(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        body: &Value,
    ) -> ApiResult<Value> {
        let written = self.merge(resource, namespace, name, "", body).await?;
        let mut wanted = written.clone();
        tidegate_crds::patch::merge_apply(&mut wanted["status"], &body["status"]);
        if wanted["status"] == written["status"] {
            return Ok(written);
        }
        let mut body = body.clone();
        body["metadata"]["resourceVersion"] =
            written.pointer("/metadata/resourceVersion").cloned().unwrap_or(Value::Null);
        self.merge(resource, namespace, name, "status", &body).await
    }

    /// Deletes an object and its dependents.
    ///
    /// # Errors
    /// As the API says; an object that is gone already is no error.
    pub async fn delete(&self, resource: &Resource, namespace: &str, name: &str, uid: &str) -> ApiResult<()> {
        self.api.delete(resource, namespace, name, uid, Propagation::Background).await?;
        Ok(())
    }
}
