//! A namespace for one test, and a look at everything in it when the test fails.

use std::fmt::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Event, Namespace, Pod, ServiceAccount};
use kube::api::{DeleteParams, DynamicObject, LogParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// A namespace with a name of its own, deleted when dropped (without waiting; `TIDEGATE_E2E_KEEP=1` keeps it).
pub struct TestNamespace {
    pub name: String,
    pub client: kube::Client,
    cluster: &'static Cluster,
}

impl Cluster {
    /// Makes a namespace whose name begins with `prefix`, ready to take pods.
    pub async fn namespace(&'static self, prefix: &str) -> Result<TestNamespace> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let client = self.client().await?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}-{}-{number}", std::process::id());
        let namespace = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"tidegate.dev/test": prefix}},
        }))?;
        Api::<Namespace>::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .with_context(|| format!("create namespace {name}"))?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &name);
        crate::wait_for(&format!("service account {name}/default"), Duration::from_secs(30), async || {
            accounts.get("default").await.map(drop).context("default")
        })
        .await?;
        Ok(TestNamespace { name, client, cluster: self })
    }
}

impl TestNamespace {
    pub fn cluster(&self) -> &'static Cluster {
        self.cluster
    }

    /// An API for a namespaced kind, in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Applies every document of a YAML text, in this namespace where it names none.
    pub async fn apply(&self, yaml: &str) -> Result<()> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).context("YAML to apply")?;
        for mut document in documents.into_iter().filter(|document| !document.is_null()) {
            if document["metadata"]["namespace"].is_null() {
                document["metadata"]["namespace"] = json!(self.name);
            }
            crate::apply::apply(&self.client, &document).await?;
        }
        Ok(())
    }

    /// Waits for a condition; when it does not come, the error shows the whole namespace beside the last answer.
    pub async fn wait_for<T>(
        &self,
        what: &str,
        timeout: Duration,
        condition: impl AsyncFnMut() -> Result<T>,
    ) -> Result<T> {
        match crate::wait_for(what, timeout, condition).await {
            Ok(value) => Ok(value),
            Err(error) => Err(anyhow::anyhow!("{error:#}\n{}", self.describe().await)),
        }
    }

    /// Everything of interest in the namespace, for a person who looks for the reason of a failure.
    pub async fn describe(&self) -> String {
        let mut text = format!("--- namespace {} ---\n", self.name);
        for (group, version, kind) in [
            ("argoproj.io", "v1alpha1", "Application"),
            ("argoproj.io", "v1alpha1", "Rollout"),
            ("argoproj.io", "v1alpha1", "AnalysisRun"),
            ("argoproj.io", "v1alpha1", "Experiment"),
            ("gateway.networking.k8s.io", "v1", "HTTPRoute"),
        ] {
            self.describe_kind(&mut text, &GroupVersionKind::gvk(group, version, kind)).await;
        }
        self.describe_replica_sets(&mut text).await;
        self.describe_pods(&mut text).await;
        self.describe_events(&mut text).await;
        text
    }

    async fn describe_kind(&self, text: &mut String, kind: &GroupVersionKind) {
        let resource = ApiResource::from_gvk(kind);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.name, &resource);
        // The kind may not be installed.
        let Ok(list) = api.list(&Default::default()).await else { return };
        for object in list {
            let shown = json!({
                "annotations": object.metadata.annotations, "generation": object.metadata.generation,
                "spec": object.data["spec"], "status": object.data["status"],
            });
            writeln!(text, "{} {}: {shown}", kind.kind, object.name_any()).ok();
        }
    }

    async fn describe_replica_sets(&self, text: &mut String) {
        let api: Api<k8s_openapi::api::apps::v1::ReplicaSet> = self.api();
        for set in api.list(&Default::default()).await.map(|list| list.items).unwrap_or_default() {
            let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default();
            let status = set.status.clone().unwrap_or_default();
            let (ready, available) = (status.ready_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0));
            let have = status.replicas;
            let name = set.name_any();
            writeln!(text, "ReplicaSet {name}: wanted {wanted}, have {have}, ready {ready}, available {available}")
                .ok();
        }
    }

    async fn describe_pods(&self, text: &mut String) {
        let api: Api<Pod> = self.api();
        for pod in api.list(&Default::default()).await.map(|list| list.items).unwrap_or_default() {
            let status = pod.status.clone().unwrap_or_default();
            let name = pod.name_any();
            let phase = status.phase.unwrap_or_default();
            let containers = status.container_statuses.unwrap_or_default();
            let ready = containers.iter().filter(|container| container.ready).count();
            writeln!(text, "Pod {name}: {phase}, {ready} of {} containers ready", containers.len()).ok();
            if ready < containers.len() {
                for container in &containers {
                    writeln!(text, "  {}: {:?}", container.name, container.state).ok();
                }
                let lines = LogParams { tail_lines: Some(5), ..LogParams::default() };
                if let Ok(log) = api.logs(&name, &lines).await {
                    writeln!(text, "  log: {}", log.trim()).ok();
                }
            }
        }
    }

    async fn describe_events(&self, text: &mut String) {
        let api: Api<Event> = self.api();
        let mut events = api.list(&Default::default()).await.map(|list| list.items).unwrap_or_default();
        events.sort_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0));
        let from = events.len().saturating_sub(30);
        for event in &events[from..] {
            let object = &event.involved_object;
            let (kind, name) = (object.kind.as_deref().unwrap_or("?"), object.name.as_deref().unwrap_or("?"));
            let (reason, message) = (event.reason.as_deref().unwrap_or(""), event.message.as_deref().unwrap_or(""));
            writeln!(text, "Event {kind} {name}: {reason}: {message}").ok();
        }
    }
}

impl Drop for TestNamespace {
    fn drop(&mut self) {
        if std::env::var_os("TIDEGATE_E2E_KEEP").is_some() {
            return;
        }
        let (client, name) = (self.client.clone(), self.name.clone());
        // On the test's runtime, which is given a moment for it at its end. A namespace that stays goes with the cluster.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let api: Api<Namespace> = Api::all(client);
            tokio::task::block_in_place(|| {
                runtime.block_on(async {
                    tokio::time::timeout(Duration::from_secs(2), api.delete(&name, &DeleteParams::default()))
                        .await
                        .ok();
                });
            });
        }
    }
}
