//! Writing to the destination cluster: the only place where a sync touches anything.

use super::clusters::Cluster;
use super::live::Known;
use crate::api::{ApiError, PatchCall, PatchKind, Propagation, Resource};
use crate::cache::Key as CacheKey;
use futures::StreamExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tidegate_crds::patch::merge_diff;
use tidegate_gitops::diff::three_way::apply_three_way;
use tidegate_gitops::normalize::{self, FIELD_MANAGER, LAST_APPLIED};
use tidegate_gitops::object::{self, Key};
use tidegate_gitops::sync::hook::HOOK_FINALIZER;
use tidegate_gitops::sync::options;
use tidegate_gitops::sync::plan::{Action, Mode, Operation, Step};
use tidegate_gitops::sync::record::Outcome;

/// How many objects are written at the same time.
const PARALLEL: usize = 20;
/// The longest annotations that the API server takes, in bytes.
const ANNOTATION_LIMIT: usize = 262_144;
/// How often a write is tried when somebody else writes in between.
const ATTEMPTS: usize = 5;
/// How long to wait for a definition to be served, and for an object to be gone before it is made anew.
const PATIENCE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(100);

/// Carries out the writes of a step.
pub async fn perform(cluster: &Arc<Cluster>, step: &Step) -> Vec<Option<Outcome>> {
    let mut outcomes = Vec::new();
    let mut stopped = false;
    for group in &step.groups {
        if stopped {
            outcomes.extend(group.iter().map(|_| None));
            continue;
        }
        let mut writes: Vec<BoxFuture<'_, Outcome>> = Vec::new();
        for operation in group {
            writes.push(Box::pin(write(cluster, operation)));
        }
        let written: Vec<Outcome> = futures::stream::iter(writes).buffered(PARALLEL).collect().await;
        stopped = written.iter().any(Result::is_err);
        outcomes.extend(written.into_iter().map(Some));
    }
    outcomes
}

/// The resource of an object.
///
/// # Errors
/// When the cluster does not serve its kind.
pub async fn resource(cluster: &Cluster, api_version: &str, kind: &str) -> Result<Resource, String> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kinds = cluster.catalogue.kinds(|kinds| kinds.find(group, version, kind).is_none()).await?;
    kinds
        .find(group, version, kind)
        .cloned()
        .ok_or_else(|| format!("the server could not find the requested resource: {api_version}, Kind={kind}"))
}

async fn write(cluster: &Arc<Cluster>, operation: &Operation) -> Outcome {
    let key = &operation.key;
    let resource = match resource(cluster, &operation.api_version, &key.kind).await {
        Ok(resource) => resource,
        // What cannot exist need not be deleted.
        Err(_) if !matches!(operation.action, Action::Apply { .. }) => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    let target = Target { cluster, resource: &resource, key, dry_run: operation.dry_run };
    match &operation.action {
        Action::Apply { object, mode, force, .. } => match target.apply(object, mode, *force).await {
            Ok(verb) => {
                if object::is_crd(object) && !operation.dry_run {
                    target.wait_until_served().await;
                }
                Ok(format!("{} {verb}{}", target.shown(), if operation.dry_run { " (dry run)" } else { "" }))
            }
            Err(error) => Err(error.to_string()),
        },
        Action::Prune(propagation) => {
            let propagation = match propagation {
                options::Propagation::Foreground => Propagation::Foreground,
                options::Propagation::Background => Propagation::Background,
                options::Propagation::Orphan => Propagation::Orphan,
            };
            target.delete(propagation).await.map(|()| "pruned".to_owned()).map_err(|e| e.to_string())
        }
        Action::DeleteHook => delete_hook(cluster, &resource, key).await.map(|()| String::new()),
        Action::ReleaseHook => target.release().await.map(|()| String::new()).map_err(|e| e.to_string()),
    }
}

/// Deletes a hook, whatever finalizer of ours it has.
///
/// # Errors
/// As the API says.
pub async fn delete_hook(cluster: &Arc<Cluster>, resource: &Resource, key: &Key) -> Result<(), String> {
    let target = Target { cluster, resource, key, dry_run: false };
    target.release().await.map_err(|e| e.to_string())?;
    target.delete(Propagation::Background).await.map_err(|e| e.to_string())
}

/// Deletes an object.
///
/// # Errors
/// As the API says.
pub async fn delete(
    cluster: &Arc<Cluster>,
    resource: &Resource,
    key: &Key,
    propagation: Propagation,
) -> Result<(), String> {
    Target { cluster, resource, key, dry_run: false }.delete(propagation).await.map_err(|e| e.to_string())
}

/// Makes an object, or takes over the one that is there.
///
/// # Errors
/// As the API says.
pub async fn create(cluster: &Arc<Cluster>, object: &Value) -> Result<(), String> {
    let key = Key::of(object);
    let resource = resource(cluster, object::api_version(object), &key.kind).await?;
    let target = Target { cluster, resource: &resource, key: &key, dry_run: false };
    target.apply(object, &Mode::ClientSide, false).await.map(|_| ()).map_err(|e| e.to_string())
}

struct Target<'a> {
    cluster: &'a Arc<Cluster>,
    resource: &'a Resource,
    key: &'a Key,
    dry_run: bool,
}

/// `object` without what only the API server writes.
fn writable(object: &Value) -> Value {
    let mut object = object.clone();
    if let Value::Object(map) = &mut object {
        map.remove("status");
        if let Some(Value::Object(metadata)) = map.get_mut("metadata") {
            for field in ["creationTimestamp", "managedFields", "resourceVersion", "generation", "uid", "selfLink"] {
                metadata.remove(field);
            }
        }
    }
    object
}

/// `object` with the annotation that says what was applied.
fn with_last_applied(object: &Value) -> Result<Value, ApiError> {
    let mut bare = object.clone();
    object::remove_metadata(&mut bare, "annotations", LAST_APPLIED);
    let text = format!("{bare}\n");
    if text.len() > ANNOTATION_LIMIT {
        return Err(ApiError::Invalid(format!(
            "metadata.annotations: Too long: the object has {} bytes, client-side apply takes at most {ANNOTATION_LIMIT}; use ServerSideApply=true",
            text.len()
        )));
    }
    object::set_annotation(&mut bare, LAST_APPLIED, &text);
    Ok(bare)
}

impl Target<'_> {
    /// `deployment.apps/web`
    fn shown(&self) -> String {
        let kind = self.key.kind.to_lowercase();
        let Key { group, name, .. } = self.key;
        if group.is_empty() { format!("{kind}/{name}") } else { format!("{kind}.{group}/{name}") }
    }

    async fn read(&self) -> Result<Option<Value>, ApiError> {
        match self.cluster.api.get(self.resource, &self.key.namespace, &self.key.name).await {
            Ok(live) => {
                self.cluster.live.put(self.resource, live.clone());
                Ok(Some(live))
            }
            Err(ApiError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What is held, else what the API server says.
    async fn known(&self) -> Result<Option<Value>, ApiError> {
        match self.held() {
            Known::Object(object) => Ok(Some(*object)),
            _ => self.read().await,
        }
    }

    fn held(&self) -> Known {
        self.cluster.live.get(self.resource, &CacheKey::new(&self.key.namespace, &self.key.name))
    }

    fn wrote(&self, answer: Value) {
        if !self.dry_run {
            self.cluster.live.put(self.resource, answer);
        }
    }

    async fn create(&self, object: &Value) -> Result<(), ApiError> {
        let answer = self.cluster.api.create(self.resource, &self.key.namespace, object, self.dry_run).await?;
        self.wrote(answer);
        Ok(())
    }

    async fn patch(&self, kind: PatchKind, body: &Value) -> Result<Value, ApiError> {
        let call = PatchCall {
            resource: self.resource,
            namespace: &self.key.namespace,
            name: &self.key.name,
            subresource: "",
            kind,
            body,
            dry_run: self.dry_run,
        };
        let answer = self.cluster.api.patch(call).await?;
        self.wrote(answer.clone());
        Ok(answer)
    }

    async fn apply(&self, object: &Value, mode: &Mode, force: bool) -> Result<&'static str, ApiError> {
        let object = writable(object);
        let outcome = match mode {
            Mode::ClientSide => self.apply_client_side(&object).await,
            Mode::ServerSide { migrate } => self.apply_server_side(&object, migrate.as_deref()).await,
            Mode::Replace => self.replace(&object, force).await,
        };
        match outcome {
            // What cannot be changed is made anew, when that was allowed.
            Err(ApiError::Invalid(_) | ApiError::Conflict(_)) if force && !self.dry_run => {
                self.recreate(&object, mode).await
            }
            other => other,
        }
    }

    async fn apply_client_side(&self, object: &Value) -> Result<&'static str, ApiError> {
        let target = with_last_applied(object)?;
        let mut live = match self.held() {
            Known::Object(object) => Some(*object),
            // Whether that is still so, the attempt to make it tells.
            Known::Absent => None,
            Known::Unread => self.read().await?,
        };
        for _ in 0..ATTEMPTS {
            let Some(found) = &live else {
                match self.create(&target).await {
                    Ok(()) => return Ok("created"),
                    Err(ApiError::AlreadyExists(_)) => {
                        live = self.read().await?;
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            };
            let last = normalize::last_applied(found);
            let mut merged = apply_three_way(last.as_ref(), found, &target);
            // The object is read in the version that it is written in.
            merged["apiVersion"] = object["apiVersion"].clone();
            let mut base = found.clone();
            base["apiVersion"] = object["apiVersion"].clone();
            let Some(mut patch) = merge_diff(&base, &merged) else { return Ok("unchanged") };
            object::child(&mut patch, "metadata")["resourceVersion"] =
                object::text(found, "/metadata/resourceVersion").into();
            match self.patch(PatchKind::Merge, &patch).await {
                Ok(answer) => {
                    let same =
                        answer.pointer("/metadata/resourceVersion") == found.pointer("/metadata/resourceVersion");
                    return Ok(if same { "unchanged" } else { "configured" });
                }
                Err(ApiError::Conflict(_) | ApiError::NotFound(_)) => live = self.read().await?,
                Err(error) => return Err(error),
            }
        }
        Err(ApiError::Conflict(format!("{} is changed by somebody else again and again", self.shown())))
    }

    async fn apply_server_side(&self, object: &Value, migrate: Option<&str>) -> Result<&'static str, ApiError> {
        if let Some(manager) = migrate.filter(|_| !self.dry_run) {
            self.migrate(manager).await?;
        }
        self.patch(PatchKind::Apply { manager: FIELD_MANAGER, force: true }, object).await?;
        Ok("serverside-applied")
    }

    /// Makes the fields of another manager ours, so that those which are no longer said go.
    async fn migrate(&self, manager: &str) -> Result<(), ApiError> {
        for _ in 0..ATTEMPTS {
            // The held object may lack other managers' fields, but it has the annotation that client-side apply leaves.
            let Some(live) = self.known().await? else { return Ok(()) };
            if object::annotation(&live, LAST_APPLIED).is_none() {
                return Ok(());
            }
            let Some(live) = self.read().await? else { return Ok(()) };
            let Some(fields) = migrated(&live, manager) else { return Ok(()) };
            let version = object::text(&live, "/metadata/resourceVersion");
            let mut body = json!({"metadata": {"resourceVersion": version, "managedFields": fields}});
            body["metadata"]["annotations"] = json!({LAST_APPLIED: null});
            match self.patch(PatchKind::Merge, &body).await {
                Ok(_) | Err(ApiError::NotFound(_)) => return Ok(()),
                Err(ApiError::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(ApiError::Conflict(format!("{} is changed by somebody else again and again", self.shown())))
    }

    async fn replace(&self, object: &Value, force: bool) -> Result<&'static str, ApiError> {
        let is_kept = object::is_crd(object) || (self.key.kind == "Namespace" && self.key.group.is_empty());
        let Some(live) = self.read().await? else {
            self.create(object).await?;
            return Ok("created");
        };
        if self.dry_run {
            return Ok("replaced");
        }
        if force && !is_kept {
            return self.recreate(object, &Mode::Replace).await;
        }
        let mut object = object.clone();
        object::child(&mut object, "metadata")["resourceVersion"] =
            object::text(&live, "/metadata/resourceVersion").into();
        // What the API server gave a Service cannot be taken from it.
        if self.key.kind == "Service" && self.key.group.is_empty() {
            for field in ["clusterIP", "clusterIPs"] {
                if let (None, Some(given)) = (object["spec"].get(field), live["spec"].get(field)) {
                    object["spec"][field] = given.clone();
                }
            }
        }
        let answer = self.cluster.api.replace(self.resource, &self.key.namespace, &self.key.name, &object).await?;
        self.wrote(answer);
        Ok("replaced")
    }

    async fn recreate(&self, object: &Value, mode: &Mode) -> Result<&'static str, ApiError> {
        self.delete(Propagation::Foreground).await?;
        let deadline = tokio::time::Instant::now() + crate::api::CALL_TIMEOUT;
        while self.read().await?.is_some() {
            if tokio::time::Instant::now() > deadline {
                return Err(ApiError::Other(format!("{} is still being deleted", self.shown())));
            }
            tokio::time::sleep(POLL).await;
        }
        let object = if *mode == Mode::ClientSide { with_last_applied(object)? } else { object.clone() };
        self.create(&object).await?;
        Ok("replaced")
    }

    async fn delete(&self, propagation: Propagation) -> Result<(), ApiError> {
        let Some(live) = self.read().await? else {
            self.cluster.live.gone(self.resource, &CacheKey::new(&self.key.namespace, &self.key.name));
            return Ok(());
        };
        let uid = object::text(&live, "/metadata/uid");
        self.cluster.api.delete(self.resource, &self.key.namespace, &self.key.name, uid, propagation).await
    }

    /// Removes the finalizer of hooks.
    async fn release(&self) -> Result<(), ApiError> {
        for _ in 0..ATTEMPTS {
            let Some(live) = self.read().await? else { return Ok(()) };
            let all = object::list(&live, "/metadata/finalizers");
            let rest: Vec<&Value> = all.iter().filter(|f| *f != HOOK_FINALIZER).collect();
            if rest.len() == all.len() {
                return Ok(());
            }
            let version = object::text(&live, "/metadata/resourceVersion");
            let body = json!({"metadata": {"resourceVersion": version, "finalizers": rest}});
            match self.patch(PatchKind::Merge, &body).await {
                Ok(_) | Err(ApiError::NotFound(_)) => return Ok(()),
                Err(ApiError::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(ApiError::Conflict(format!("{} is changed by somebody else again and again", self.shown())))
    }

    /// Waits a moment for a definition to be served, so that its resources can follow.
    async fn wait_until_served(&self) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < deadline {
            if let Ok(Some(live)) = self.read().await {
                let established =
                    |c: &Value| object::text(c, "/type") == "Established" && object::text(c, "/status") == "True";
                if object::list(&live, "/status/conditions").iter().any(established) {
                    break;
                }
            }
            tokio::time::sleep(POLL).await;
        }
        self.cluster.catalogue.outdate();
    }
}

/// `managedFields` in which the fields of `manager` are ours; `None` when it owns none.
fn migrated(live: &Value, manager: &str) -> Option<Vec<Value>> {
    let entries = object::list(live, "/metadata/managedFields");
    let is = |entry: &Value, manager: &str, operation: &str| {
        object::text(entry, "/manager") == manager
            && object::text(entry, "/operation") == operation
            && object::text(entry, "/subresource").is_empty()
    };
    let theirs = entries.iter().find(|e| is(e, manager, "Update"))?;
    let mut fields = theirs.get("fieldsV1").cloned().unwrap_or_else(|| json!({}));
    let mut ours = entries.iter().find(|e| is(e, FIELD_MANAGER, "Apply")).cloned().unwrap_or_else(|| {
        let mut entry = theirs.clone();
        entry["manager"] = FIELD_MANAGER.into();
        entry["operation"] = "Apply".into();
        entry
    });
    // The annotation of client-side apply goes with its manager.
    if let Some(annotations) = fields.pointer_mut("/f:metadata/f:annotations").and_then(Value::as_object_mut) {
        annotations.remove(&format!("f:{LAST_APPLIED}"));
    }
    unite(&mut fields, ours.get("fieldsV1").unwrap_or(&Value::Null));
    ours["fieldsV1"] = fields;
    let mut all: Vec<Value> =
        entries.iter().filter(|e| !is(e, manager, "Update") && !is(e, FIELD_MANAGER, "Apply")).cloned().collect();
    all.push(ours);
    Some(all)
}

/// Adds the fields of one set to another.
fn unite(to: &mut Value, from: &Value) {
    let (Value::Object(to), Value::Object(from)) = (to, from) else { return };
    for (key, value) in from {
        unite(to.entry(key.clone()).or_insert_with(|| json!({})), value);
    }
}

#[cfg(test)]
mod tests;
