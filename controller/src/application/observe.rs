//! Reading what a reconciliation looks at: manifests, live objects, projects, clusters.

use super::clusters::Cluster;
use super::kinds::Kinds;
use super::live::Known;
use super::snapshot::{Desired, Undesired};
use crate::api::{ApiError, Resource};
use crate::cache::Key as CacheKey;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tidegate_crds::application::{Application, ResourceResult, Source};
use tidegate_gitops::engine::{Engine, Freshness, ManifestRequest};
use tidegate_gitops::health;
use tidegate_gitops::normalize::ignore::IgnoreRules;
use tidegate_gitops::object::{self, Key};
use tidegate_gitops::sync::plan::Live;
use tidegate_gitops::sync::rejected::Content;
use tidegate_gitops::tracking::Tracking;

/// What manifests are asked for.
pub(super) struct Question<'a> {
    pub app: &'a Application,
    /// Name in tracking marks.
    pub instance: &'a str,
    /// Whether the Application lives outside the control plane's namespace.
    pub is_outside: bool,
    pub sources: Vec<Source>,
    pub revisions: Vec<String>,
    pub freshness: Freshness,
    pub namespace: &'a str,
    pub kinds: &'a Arc<Kinds>,
    pub tracking: &'a Tracking,
}

/// Why there is no answer.
pub(super) struct NoAnswer {
    pub why: Undesired,
    pub is_transient: bool,
}

fn request(question: &Question<'_>) -> ManifestRequest {
    ManifestRequest {
        app_name: question.app.name().to_owned(),
        app_namespace: if question.is_outside { question.app.namespace().to_owned() } else { String::new() },
        project: question.app.spec.project().to_owned(),
        destination_namespace: question.namespace.to_owned(),
        sources: question.sources.clone(),
        revisions: question.revisions.clone(),
        kube_version: question.kinds.kube_version.clone(),
        api_versions: Arc::clone(&question.kinds.api_versions),
        freshness: question.freshness,
    }
}

/// Asks the engine. `is_known` is told the key of the manifests and may say that they need not be made into targets.
pub(super) async fn desired(
    engine: &Engine,
    question: &Question<'_>,
    is_known: impl FnOnce(&str) -> bool,
) -> Result<Option<Desired>, NoAnswer> {
    let manifests = engine.manifests(&request(question)).await.map_err(|error| NoAnswer {
        why: Undesired { message: error.to_string(), invalid_spec: error.is_invalid_spec() },
        is_transient: error.is_transient(),
    })?;
    if is_known(&manifests.key) {
        return Ok(None);
    }
    let types = manifests.sources.iter().filter_map(|s| s.source_type.map(|t| t.to_string()));
    Ok(Some(Desired {
        content: Content { revisions: manifests.revisions(), tree: manifests.key.clone() },
        sources: question.sources.clone(),
        source_types: types.collect(),
        targets: manifests.manifests.iter().map(|manifest| target(manifest, question)).collect(),
        repeated: manifests.repeated.clone(),
    }))
}

/// A manifest as it shall be in the cluster.
pub(super) fn target(manifest: &Value, question: &Question<'_>) -> Value {
    let mut target = manifest.clone();
    let (group, kind) = (object::group(&target).to_owned(), object::kind(&target).to_owned());
    if question.kinds.is_namespaced(&group, &kind) {
        if object::namespace(&target).is_empty() && !question.namespace.is_empty() {
            object::child(&mut target, "metadata")["namespace"] = question.namespace.into();
        }
    } else if let Some(metadata) = target.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("namespace");
    }
    question.tracking.mark(&mut target, question.instance, question.namespace);
    target
}

/// The live objects of an Application.
#[derive(Default)]
pub(super) struct Found {
    pub live: BTreeMap<Key, Live>,
    pub namespaced: BTreeSet<Key>,
    pub unknown_kinds: BTreeSet<(String, String)>,
    pub unlisted: Vec<String>,
}

/// Which live objects are looked for.
pub(super) struct Search<'a> {
    pub cluster: &'a Arc<Cluster>,
    pub kinds: &'a Kinds,
    /// The Application.
    pub app: &'a CacheKey,
    pub instance: &'a str,
    /// Objects that are named, with the version to read them in.
    pub named: Vec<(Key, String)>,
    /// Kinds in which the Application may have further objects: group, version, kind.
    pub kinds_used: BTreeSet<(String, String, String)>,
    pub ignore: &'a IgnoreRules,
    pub results: &'a [ResourceResult],
    pub patience: Duration,
}

/// The kinds that the Application had objects of, those of its hooks included.
pub(super) fn kinds_used(app: &Application) -> BTreeSet<(String, String, String)> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let last = app.status.operation_state.as_ref().and_then(|s| s.sync_result.as_ref());
    let applied = last.into_iter().flat_map(|result| &result.resources);
    let mut kinds: BTreeSet<_> = applied.map(|r| (r.group.clone(), r.version.clone(), r.kind.clone())).collect();
    kinds.extend(app.status.resources.iter().map(|r| (text(&r.group), text(&r.version), text(&r.kind))));
    kinds
}

/// Looks for live objects: in what is watched, and by reading what is not held.
///
/// # Errors
/// When an object cannot be read.
pub(super) async fn live(search: &Search<'_>) -> Result<Found, String> {
    let mut found = Found::default();
    let mut wanted: BTreeSet<(Resource, CacheKey)> = BTreeSet::new();
    let mut named: Vec<(Key, Resource)> = Vec::new();
    for (key, version) in &search.named {
        let Some(resource) = search.kinds.find(&key.group, version, &key.kind) else {
            found.unknown_kinds.insert((key.group.clone(), key.kind.clone()));
            found.namespaced.insert(key.clone());
            continue;
        };
        if resource.namespaced {
            found.namespaced.insert(key.clone());
        }
        wanted.insert((resource.clone(), CacheKey::new(&key.namespace, &key.name)));
        named.push((key.clone(), resource.clone()));
    }
    let mut resources: BTreeSet<Resource> = wanted.iter().map(|(resource, _)| resource.clone()).collect();
    for (group, version, kind) in &search.kinds_used {
        // A kind that is read already is read once, in the version of the targets.
        if !resources.iter().any(|r| r.group == group.as_str() && r.kind == kind.as_str()) {
            let resource = search.kinds.find(group, version, kind).or_else(|| search.kinds.find(group, "", kind));
            resources.extend(resource.cloned());
        }
    }
    search.cluster.live.want(search.app, wanted, &resources);
    for (resource, why) in search.cluster.live.synced(&resources, search.patience).await {
        found.unlisted.push(format!("cannot list {} ({}): {why}", resource.plural, resource.api_version()));
    }
    if !found.unlisted.is_empty() {
        return Ok(found);
    }
    let read_by = |key: &Key| {
        let is_running = |r: &ResourceResult| {
            r.hook_phase.as_deref() == Some("Running")
                && r.group == key.group
                && r.kind == key.kind
                && r.name == key.name
        };
        search.ignore.needs_managed_fields(key) || search.results.iter().any(is_running)
    };
    for (key, resource) in &named {
        let cache_key = CacheKey::new(&key.namespace, &key.name);
        let held = match search.cluster.live.get(resource, &cache_key) {
            Known::Object(object) if !search.ignore.needs_managed_fields(key) => Some(*object),
            // What this operation just applied and the watch has not told yet is asked for.
            Known::Absent if !read_by(key) => None,
            _ => read(search.cluster, resource, key).await?,
        };
        if let Some(object) = held {
            let health = health::of(&object);
            found.live.insert(key.clone(), Live { object, health });
        }
    }
    for resource in &resources {
        for object in search.cluster.live.owned(resource, search.instance) {
            let key = Key::of(&object);
            if resource.namespaced {
                found.namespaced.insert(key.clone());
            }
            found.live.entry(key).or_insert_with(|| {
                let health = health::of(&object);
                Live { object, health }
            });
        }
    }
    Ok(found)
}

async fn read(cluster: &Arc<Cluster>, resource: &Resource, key: &Key) -> Result<Option<Value>, String> {
    match cluster.api.get(resource, &key.namespace, &key.name).await {
        Ok(object) => {
            cluster.live.put(resource, object.clone());
            Ok(Some(object))
        }
        Err(ApiError::NotFound(_)) => {
            cluster.live.gone(resource, &CacheKey::new(&key.namespace, &key.name));
            Ok(None)
        }
        Err(error) => Err(format!("cannot read {} {}/{}: {error}", key.kind, key.namespace, key.name)),
    }
}
