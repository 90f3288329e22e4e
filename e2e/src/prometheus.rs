//! Prometheus, scraping every pod that is annotated `prometheus.io/scrape: "true"` once a second.
//!
//! Debian builds Prometheus without its Kubernetes discovery, so a process of ours tells it about pods: over HTTP, with
//! the same labels.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Json;
use axum::extract::State;
use axum::routing::get;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::reflector::{self, Store, reflector};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};

use crate::http;
use crate::netns::{NODE_IP, NetworkNamespace};
use crate::sandbox::Sandbox;
use crate::session;
use crate::state::StateDir;

pub const PORT: u16 = 9090;
const DISCOVERY_PORT: u16 = 9092;

/// Starts Prometheus. Pods choose another port or path with `prometheus.io/port` and `prometheus.io/path`; series get
/// the labels `namespace` and `pod`, and every label of the pod.
pub fn start(state: &StateDir, sandbox: &Sandbox, namespace: &NetworkNamespace) -> Result<()> {
    let annotation = |name: &str| format!("__meta_kubernetes_pod_annotation_prometheus_io_{name}");
    let config = json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [{
            "job_name": "pods",
            "http_sd_configs": [{
                "url": format!("http://127.0.0.1:{DISCOVERY_PORT}/targets"),
                "refresh_interval": "1s",
            }],
            "relabel_configs": [
                {"action": "keep", "source_labels": [annotation("scrape")], "regex": "true"},
                {"action": "keep", "source_labels": ["__meta_kubernetes_pod_phase"], "regex": "Running"},
                {"action": "replace", "source_labels": [annotation("path")], "regex": "(.+)", "target_label": "__metrics_path__"},
                {
                    "action": "replace", "source_labels": ["__meta_kubernetes_pod_ip", annotation("port")],
                    "regex": "(.+);(.+)", "replacement": "$1:$2", "target_label": "__address__",
                },
                {"action": "labelmap", "regex": "__meta_kubernetes_pod_label_(.+)"},
                {"action": "replace", "source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
                {"action": "replace", "source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
            ],
        }],
    });
    state.write("prometheus.yaml", serde_json::to_string_pretty(&config)?.as_bytes())?;
    let discovery = ["pod-discovery".to_owned(), state.path.display().to_string()];
    let mut discovery = sandbox.start_component("pod-discovery", session::harness_program()?, &discovery)?;
    discovery.wait_ready(Duration::from_secs(15), || {
        answers(namespace, format!("http://127.0.0.1:{DISCOVERY_PORT}/targets"))
    })?;
    let args = [
        format!("--config.file={}", state.join("prometheus.yaml").display()),
        format!("--storage.tsdb.path={}", state.join("prometheus").display()),
        "--storage.tsdb.retention.time=6h".to_owned(),
        format!("--web.listen-address=0.0.0.0:{PORT}"),
        "--log.level=warn".to_owned(),
    ];
    let mut component = sandbox.start_component("prometheus", "prometheus", &args)?;
    component.wait_ready(Duration::from_secs(30), || answers(namespace, format!("http://{NODE_IP}:{PORT}/-/ready")))
}

fn answers(namespace: &NetworkNamespace, url: String) -> bool {
    session::in_cluster(namespace, async || Ok(http::client()?.get(url).send().await?.error_for_status().map(drop)?))
        .is_ok()
}

/// The process that knows the pods.
pub async fn serve_targets(state: &Path) -> Result<()> {
    session::crypto_provider();
    let file = Kubeconfig::read_from(state.join("admin.conf")).context("read the cluster's kubeconfig")?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    let pods: Api<Pod> = Api::all(kube::Client::try_from(config)?);
    let (store, writer) = reflector::store();
    let watch = reflector(writer, watcher(pods, watcher::Config::default())).default_backoff();
    let app = axum::Router::new().route("/targets", get(targets)).with_state(Arc::new(store));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", DISCOVERY_PORT)).await?;
    tokio::select! {
        served = async { axum::serve(listener, app).await } => served.context("serve targets"),
        () = watch.for_each(async |_| {}) => anyhow::bail!("the watch of pods has ended"),
    }
}

async fn targets(State(store): State<Arc<Store<Pod>>>) -> Json<Vec<Value>> {
    Json(store.state().iter().filter_map(|pod| target(pod)).collect())
}

/// A pod as Prometheus' own discovery would describe it, as far as the configuration above asks.
fn target(pod: &Pod) -> Option<Value> {
    let status = pod.status.as_ref()?;
    let address = status.pod_ip.as_ref()?;
    let mut labels = BTreeMap::from([
        ("__meta_kubernetes_namespace".to_owned(), pod.metadata.namespace.clone()?),
        ("__meta_kubernetes_pod_name".to_owned(), pod.metadata.name.clone()?),
        ("__meta_kubernetes_pod_ip".to_owned(), address.clone()),
        ("__meta_kubernetes_pod_phase".to_owned(), status.phase.clone().unwrap_or_default()),
    ]);
    let clean = |key: &str| key.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    for (kind, map) in [("label", &pod.metadata.labels), ("annotation", &pod.metadata.annotations)] {
        for (key, value) in map.iter().flatten() {
            labels.insert(format!("__meta_kubernetes_pod_{kind}_{}", clean(key)), value.clone());
        }
    }
    Some(json!({"targets": [address], "labels": labels}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_becomes_a_target_once_it_has_an_address() {
        let mut pod = json!({
            "metadata": {
                "name": "web-1", "namespace": "shop", "labels": {"app.kubernetes.io/name": "web"},
                "annotations": {"prometheus.io/port": "8080"},
            },
            "status": {"phase": "Running"},
        });
        assert_eq!(target(&serde_json::from_value(pod.clone()).unwrap()), None);
        pod["status"]["podIP"] = json!("10.244.0.9");
        let found = target(&serde_json::from_value(pod).unwrap()).unwrap();
        assert_eq!(found["targets"], json!(["10.244.0.9"]));
        let labels = &found["labels"];
        assert_eq!(labels["__meta_kubernetes_pod_label_app_kubernetes_io_name"], "web");
        assert_eq!(labels["__meta_kubernetes_pod_annotation_prometheus_io_port"], "8080");
        assert_eq!(labels["__meta_kubernetes_namespace"], "shop");
    }
}
