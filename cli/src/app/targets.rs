//! What the source of an Application says, rendered here and now, as the controller would.

use super::connect::Connection;
use super::objects::Kinds;
use super::summary;
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::ListParams;
use kube::discovery::Discovery;
use serde_json::Value;
use std::sync::Arc;
use std::time::Instant;
use tidegate_crds::application::Application;
use tidegate_gitops::engine::{Engine, EngineSettings, Freshness, ManifestRequest};
use tidegate_gitops::normalize::{CompareOptions, IgnoreStatus};
use tidegate_gitops::object::{self, Key};
use tidegate_gitops::render::RenderSettings;
use tidegate_gitops::secret::Repositories;
use tidegate_gitops::tracking::{self, Method, Tracking};

/// The installation's settings, as far as comparing needs them.
pub struct Installation {
    /// How objects are marked.
    pub tracking: Tracking,
    /// What comparisons leave out.
    pub compare: CompareOptions,
    settings: Value,
}

impl Installation {
    /// Reads `argocd-cm`. An installation without one has the defaults.
    ///
    /// # Errors
    /// When the API server refuses, or a setting does not fit.
    pub async fn read(connection: &Connection) -> Result<Self> {
        let maps: Api<ConfigMap> = Api::namespaced(connection.client.clone(), &connection.control_plane);
        let settings = serde_json::to_value(maps.get_opt("argocd-cm").await?.unwrap_or_default())?;
        Self::of(settings)
    }

    fn of(settings: Value) -> Result<Self> {
        let get = |key: &str| settings["data"][key].as_str().filter(|text| !text.is_empty());
        let method = Method::parse(get("application.resourceTrackingMethod").unwrap_or_default())
            .map_err(anyhow::Error::msg)
            .context("ConfigMap argocd-cm")?;
        let defaults = Tracking::default();
        let tracking = Tracking {
            method,
            label_key: get("application.instanceLabelKey").map_or(defaults.label_key, str::to_owned),
            installation_id: get("installationID").map(str::to_owned),
        };
        let mut compare = CompareOptions::default();
        if let Some(text) = get("resource.compareoptions") {
            let options: Value =
                serde_saphyr::from_str(text).context("ConfigMap argocd-cm: resource.compareoptions")?;
            compare.ignore_aggregated_roles = options["ignoreAggregatedRoles"] == true;
            compare.ignore_status = match options["ignoreResourceStatusField"].as_str() {
                Some("none" | "off") => IgnoreStatus::None,
                Some("crd") => IgnoreStatus::Crd,
                _ => IgnoreStatus::All,
            };
        }
        Ok(Self { tracking, compare, settings })
    }
}

/// The manifests that the Application's sources hold, marked and with their namespaces, hooks among them.
///
/// # Errors
/// When a source cannot be read or rendered.
pub async fn targets(
    connection: &Connection,
    app: &Application,
    revisions: Vec<String>,
    installation: &Installation,
    hard: bool,
) -> Result<Vec<Value>> {
    let directory = tempfile::tempdir().context("making a directory for repositories")?;
    let mut render = RenderSettings::default();
    render.apply_config_map(&installation.settings);
    let settings = EngineSettings { render, ..Default::default() };
    let engine = Engine::new(directory.path(), settings).context("starting to render")?;
    engine.set_repositories(repositories(connection).await?);
    let (kube_version, api_versions) = cluster(connection).await?;
    let namespace = app.spec.destination.namespace.clone().unwrap_or_default();
    let outside = app.namespace() != connection.control_plane;
    let now = Instant::now();
    let request = ManifestRequest {
        app_name: app.name().to_owned(),
        app_namespace: if outside { app.namespace().to_owned() } else { String::new() },
        project: summary::project(app).to_owned(),
        destination_namespace: namespace.clone(),
        sources: summary::sources(app),
        revisions,
        kube_version,
        api_versions,
        freshness: if hard { Freshness::Hard(now) } else { Freshness::Since(now) },
    };
    let manifests = engine.manifests(&request).await?;
    let instance = tracking::instance_name(&connection.control_plane, app.namespace(), app.name());
    let mut kinds = Kinds::new(connection.client.clone());
    let mut targets = Vec::new();
    for manifest in manifests.manifests.iter() {
        let mut target = Value::clone(manifest);
        place(&mut target, &namespace, &mut kinds).await?;
        installation.tracking.mark(&mut target, &instance, &namespace);
        targets.push(target);
    }
    Ok(targets)
}

/// Gives a namespaced object without a namespace the destination's, and takes the namespace of a cluster-scoped one away.
async fn place(target: &mut Value, namespace: &str, kinds: &mut Kinds) -> Result<()> {
    let Key { group, kind, namespace: own, .. } = Key::of(target);
    let namespaced = kinds.is_namespaced(&group, object::version(target), &kind).await?;
    match namespaced {
        Some(true) if own.is_empty() && !namespace.is_empty() => {
            object::child(target, "metadata")["namespace"] = namespace.into();
        }
        Some(false) => {
            if let Some(metadata) = target.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("namespace");
            }
        }
        _ => {}
    }
    Ok(())
}

/// Credentials and trusted keys of repositories.
async fn repositories(connection: &Connection) -> Result<Repositories> {
    let secrets: Api<Secret> = Api::namespaced(connection.client.clone(), &connection.control_plane);
    let mut repositories = Repositories::new();
    let labelled = ListParams::default().labels("argocd.argoproj.io/secret-type in (repository,repo-creds)");
    for secret in secrets.list(&labelled).await.context("reading repository Secrets")?.items {
        if let Err(invalid) = repositories.add_secret(&serde_json::to_value(&secret)?) {
            tracing::warn!("{invalid}");
        }
    }
    let maps: Api<ConfigMap> = Api::namespaced(connection.client.clone(), &connection.control_plane);
    if let Some(map) = maps.get_opt("argocd-tls-certs-cm").await? {
        repositories.set_certificates(&serde_json::to_value(map)?);
    }
    if let Some(map) = maps.get_opt("argocd-ssh-known-hosts-cm").await? {
        repositories.set_known_hosts(&serde_json::to_value(map)?);
    }
    Ok(repositories)
}

/// The cluster's version and what it serves.
async fn cluster(connection: &Connection) -> Result<(String, Arc<[String]>)> {
    let version = connection.client.apiserver_version().await.context("asking the API server for its version")?;
    let discovery = Discovery::new(connection.client.clone())
        .run_aggregated()
        .await
        .context("asking the API server for what it serves")?;
    let mut served = Vec::new();
    for group in discovery.groups() {
        for version in group.versions() {
            let name = if group.name().is_empty() { version.to_owned() } else { format!("{}/{version}", group.name()) };
            served.extend(
                group.versioned_resources(version).into_iter().map(|(resource, _)| format!("{name}/{}", resource.kind)),
            );
            served.push(name);
        }
    }
    served.sort();
    served.dedup();
    Ok((version.git_version, served.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_the_installations_settings() {
        let plain = Installation::of(json!({})).unwrap();
        assert_eq!(plain.tracking, Tracking::default());
        assert_eq!(plain.compare, CompareOptions::default());
        let data = json!({
            "application.resourceTrackingMethod": "label",
            "application.instanceLabelKey": "shop/app",
            "installationID": "one",
            "resource.compareoptions": "ignoreAggregatedRoles: true\nignoreResourceStatusField: none\n",
        });
        let set = Installation::of(json!({ "data": data })).unwrap();
        assert_eq!((set.tracking.method, set.tracking.label_key.as_str()), (Method::Label, "shop/app"));
        assert_eq!(set.tracking.installation_id.as_deref(), Some("one"));
        assert!(set.compare.ignore_aggregated_roles);
        assert_eq!(set.compare.ignore_status, IgnoreStatus::None);
        let wrong = Installation::of(json!({"data": {"application.resourceTrackingMethod": "both"}}));
        assert!(wrong.is_err());
    }
}
