//! The live objects of an Application.

use super::connect::Connection;
use super::selector::{Selector, picks};
use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiCapabilities, Scope, pinned_kind};
use kube::{Api, Client, ResourceExt};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_crds::application::{Application, ResourceStatus};

/// An object of the tree and what belongs to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Sync status; empty for what the source does not hold.
    pub status: String,
    /// Health; empty when nobody knows.
    pub health: String,
    /// What the last sync or the object says.
    pub message: String,
    /// Why an object is as it is.
    pub reason: String,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// What it owns.
    pub children: Vec<Node>,
}

/// Kinds that are owned by the objects of Applications and that a tree shows.
const OWNED: [(&str, &str, &str); 8] = [
    ("apps", "v1", "ReplicaSet"),
    ("apps", "v1", "ControllerRevision"),
    ("", "v1", "Pod"),
    ("batch", "v1", "Job"),
    ("discovery.k8s.io", "v1", "EndpointSlice"),
    ("argoproj.io", "v1alpha1", "AnalysisRun"),
    ("argoproj.io", "v1alpha1", "Experiment"),
    ("argoproj.io", "v1alpha1", "Application"),
];

/// Finds the APIs of kinds, and asks for each kind once.
pub struct Kinds {
    client: Client,
    known: BTreeMap<(String, String), Option<(ApiResource, ApiCapabilities)>>,
}

impl Kinds {
    /// Knows nothing yet.
    pub fn new(client: Client) -> Self {
        Self { client, known: BTreeMap::new() }
    }

    /// The API of a kind in a namespace; none when the cluster does not have the kind.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub async fn api(
        &mut self,
        group: &str,
        version: &str,
        kind: &str,
        namespace: &str,
    ) -> Result<Option<Api<DynamicObject>>> {
        let client = self.client.clone();
        Ok(self.find(group, version, kind).await?.map(|(resource, capabilities)| match capabilities.scope {
            Scope::Cluster => Api::all_with(client, resource),
            Scope::Namespaced => Api::namespaced_with(client, namespace, resource),
        }))
    }

    /// Whether objects of a kind have a namespace; none when the cluster does not have the kind.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub async fn is_namespaced(&mut self, group: &str, version: &str, kind: &str) -> Result<Option<bool>> {
        let found = self.find(group, version, kind).await?;
        Ok(found.map(|(_, capabilities)| matches!(capabilities.scope, Scope::Namespaced)))
    }

    async fn find(
        &mut self,
        group: &str,
        version: &str,
        kind: &str,
    ) -> Result<Option<&(ApiResource, ApiCapabilities)>> {
        let key = (format!("{group}/{version}"), kind.to_owned());
        if !self.known.contains_key(&key) {
            let found = match pinned_kind(&self.client, &GroupVersionKind::gvk(group, version, kind)).await {
                Ok(found) => Some(found),
                Err(kube::Error::Discovery(_)) => None,
                Err(error) if crate::failure::is_not_found(&error) => None,
                Err(error) => return Err(error).with_context(|| format!("looking for {group}/{version} {kind}")),
            };
            self.known.insert(key.clone(), found);
        }
        Ok(self.known.get(&key).and_then(Option::as_ref))
    }
}

/// Whether the Application's destination is the cluster of this connection.
///
/// # Errors
/// When it is another one, whose objects these commands cannot read.
pub fn require_this_cluster(app: &Application) -> Result<()> {
    let destination = &app.spec.destination;
    let server = destination.server.as_deref().unwrap_or_default().trim_end_matches('/');
    let name = destination.name.as_deref().unwrap_or_default();
    if matches!(server, "" | "https://kubernetes.default.svc") && matches!(name, "" | "in-cluster") {
        return Ok(());
    }
    let target = if server.is_empty() { name } else { server };
    bail!(
        "application '{}' goes to cluster {target:?}; live objects are read from the cluster of the kubeconfig only",
        app.name()
    )
}

fn parts(resource: &ResourceStatus) -> [&str; 5] {
    [&resource.group, &resource.version, &resource.kind, &resource.namespace, &resource.name]
        .map(|part| part.as_deref().unwrap_or_default())
}

/// The live objects that the Application's status names, with their entries; none for one that is missing.
///
/// # Errors
/// When the API server refuses.
pub async fn live(
    connection: &Connection,
    app: &Application,
    selectors: &[Selector],
) -> Result<Vec<(ResourceStatus, Option<DynamicObject>)>> {
    require_this_cluster(app)?;
    let mut kinds = Kinds::new(connection.client.clone());
    let mut found = Vec::new();
    for resource in &app.status.resources {
        let [group, version, kind, namespace, name] = parts(resource);
        if !picks(selectors, group, kind, namespace, name) {
            continue;
        }
        let version = if version.is_empty() { "v1" } else { version };
        let object = match kinds.api(group, version, kind, namespace).await? {
            Some(api) => api.get_opt(name).await.with_context(|| format!("reading {kind} {namespace}/{name}"))?,
            None => None,
        };
        found.push((resource.clone(), object));
    }
    Ok(found)
}

/// The Application's objects, with what they own below them.
///
/// # Errors
/// When the API server refuses.
pub async fn tree(connection: &Connection, app: &Application) -> Result<Vec<Node>> {
    let live = live(connection, app, &[]).await?;
    let namespaces: BTreeSet<String> =
        live.iter().filter_map(|(_, object)| object.as_ref()?.metadata.namespace.clone()).collect();
    let mut kinds = Kinds::new(connection.client.clone());
    let mut owned = Vec::new();
    for namespace in &namespaces {
        for (group, version, kind) in OWNED {
            let Some(api) = kinds.api(group, version, kind, namespace).await? else { continue };
            // What the user may not read is left out of the tree.
            if let Ok(list) = api.list(&ListParams::default()).await {
                owned.extend(list.items.into_iter().map(|object| (kind, object)));
            }
        }
    }
    Ok(live.iter().map(|(status, object)| root(app, status, object.as_ref(), &owned)).collect())
}

fn root(
    app: &Application,
    status: &ResourceStatus,
    object: Option<&DynamicObject>,
    owned: &[(&str, DynamicObject)],
) -> Node {
    let [group, _, kind, namespace, name] = parts(status);
    let results = app.status.operation_state.as_ref().and_then(|state| state.sync_result.as_ref());
    let message = results.into_iter().flat_map(|results| &results.resources).find(|result| {
        (result.group.as_str(), result.kind.as_str(), result.namespace.as_str(), result.name.as_str())
            == (group, kind, namespace, name)
    });
    let health = status.health.as_ref();
    Node {
        kind: kind.to_owned(),
        name: name.to_owned(),
        status: status.status.clone().unwrap_or_default(),
        health: health.and_then(|health| health.status.clone()).unwrap_or_default(),
        message: message.and_then(|result| result.message.clone()).unwrap_or_default(),
        reason: health.and_then(|health| health.message.clone()).unwrap_or_default(),
        created: object.and_then(|object| object.creation_timestamp()).map(|time| time.0),
        children: object.map(|object| children(object, owned)).unwrap_or_default(),
    }
}

/// What an object owns, the oldest first.
fn children(owner: &DynamicObject, owned: &[(&str, DynamicObject)]) -> Vec<Node> {
    let Some(uid) = owner.metadata.uid.as_deref() else { return Vec::new() };
    let mut nodes: Vec<Node> = owned
        .iter()
        .filter(|(_, object)| object.metadata.owner_references.iter().flatten().any(|reference| reference.uid == uid))
        .map(|(kind, object)| Node {
            kind: (*kind).to_owned(),
            name: object.name_any(),
            created: object.creation_timestamp().map(|time| time.0),
            children: children(object, owned),
            ..Default::default()
        })
        .collect();
    nodes.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object(name: &str, owner: &str) -> DynamicObject {
        let owners = json!([{"apiVersion": "v1", "kind": "Any", "name": owner, "uid": owner}]);
        serde_json::from_value(json!({"metadata": {"name": name, "uid": name, "ownerReferences": owners}})).unwrap()
    }

    #[test]
    fn owners_have_their_objects_below_them() {
        let owned = [
            ("Pod", object("web-1-b", "web-1")),
            ("Pod", object("web-1-a", "web-1")),
            ("ReplicaSet", object("web-1", "web")),
            ("Pod", object("x", "y")),
        ];
        let nodes = children(&object("web", ""), &owned);
        assert_eq!(nodes.len(), 1);
        assert_eq!((nodes[0].kind.as_str(), nodes[0].name.as_str()), ("ReplicaSet", "web-1"));
        let names: Vec<&str> = nodes[0].children.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["web-1-a", "web-1-b"]);
    }

    #[test]
    fn other_clusters_are_refused_by_name() {
        let to = |destination: Value| -> Application {
            serde_json::from_value(json!({"metadata": {"name": "shop"}, "spec": {"destination": destination}})).unwrap()
        };
        assert!(require_this_cluster(&to(json!({"server": "https://kubernetes.default.svc"}))).is_ok());
        assert!(require_this_cluster(&to(json!({"name": "in-cluster"}))).is_ok());
        let error = require_this_cluster(&to(json!({"server": "https://other:6443"}))).unwrap_err().to_string();
        assert!(error.contains("https://other:6443"), "{error}");
    }
}
