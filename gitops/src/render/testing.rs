//! The real render worker, and sources in local repositories, for tests.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use super::{Files, RenderError, RenderRequest, RenderSettings, Rendered, Tools, cluster_mark, render};
use crate::repo::testing::Upstream;
use crate::repo::{Remotes, Settings, Snapshot};
use crate::secret::Repositories;

/// The worker, built from its sources once in a test run unless `TIDEGATE_RENDER_WORKER` names one.
pub(crate) fn worker() -> PathBuf {
    static WORKER: OnceLock<PathBuf> = OnceLock::new();
    WORKER
        .get_or_init(|| {
            if let Some(named) = std::env::var_os("TIDEGATE_RENDER_WORKER") {
                return named.into();
            }
            let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
            let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| manifest.join("../target"), PathBuf::from);
            let dir = target.join("render-worker");
            std::fs::create_dir_all(&dir).unwrap();
            let dir = dir.canonicalize().unwrap();
            let building = dir.join(format!("building-{}", std::process::id()));
            let output = Command::new("go")
                .args(["build", "-trimpath", "-ldflags", "-s -w", "-o"])
                .arg(&building)
                .arg(".")
                .current_dir(manifest.join("render-worker"))
                .env("CGO_ENABLED", "0")
                .output()
                .unwrap_or_else(|error| {
                    panic!("the render worker's tests need Go (go.dev) in PATH to build gitops/render-worker: {error}")
                });
            assert!(output.status.success(), "go build: {}", String::from_utf8_lossy(&output.stderr));
            let path = dir.join("tidegate-render-worker");
            std::fs::rename(&building, &path).unwrap();
            path
        })
        .clone()
}

pub(crate) fn with_worker() -> RenderSettings {
    RenderSettings { worker: Some(worker()), ..RenderSettings::default() }
}

/// Settings under which no tool is found.
pub(crate) fn without_tools() -> RenderSettings {
    RenderSettings { search_path: Some("/nonexistent".into()), ..RenderSettings::default() }
}

pub(crate) struct Bench {
    pub upstream: Upstream,
    pub settings: RenderSettings,
    tools: Tools,
    remotes: Remotes,
}

impl Bench {
    pub fn new(settings: RenderSettings) -> Bench {
        let upstream = Upstream::new();
        let remotes = Remotes::new(&upstream.cache(), Settings::default()).unwrap();
        Bench { upstream, tools: Tools::new(&settings), settings, remotes }
    }

    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    async fn snapshot(&self) -> Snapshot {
        let commit = self.upstream.commit("change");
        let repositories = Repositories::new();
        let url = self.upstream.url();
        let (remote, access) = self.remotes.remote(&url, &repositories.find(&url, ""), &repositories).unwrap();
        remote.snapshot(&access, &commit, None).await.unwrap()
    }

    /// Commits what was written and renders a source; `repoURL` is filled in. The repository lends itself as `$self`.
    pub async fn render(&self, source: Value) -> Result<Rendered, RenderError> {
        let mut source = source;
        source["repoURL"] = self.upstream.url().into();
        let source = serde_json::from_value(source).unwrap();
        let snapshot = self.snapshot().await;
        let lent = BTreeMap::from([("self".to_string(), snapshot.clone())]);
        let api_versions = ["apps/v1".to_string(), "example.org/v1/Widget".to_string()];
        let files = Files::new(snapshot, lent, cluster_mark("1.36", &api_versions));
        render(&RenderRequest {
            source: &source,
            files: &files,
            app_name: "shop",
            app_namespace: "",
            project: "default",
            destination_namespace: "prod",
            kube_version: "1.36",
            api_versions: &api_versions,
            settings: &self.settings,
            tools: &self.tools,
            repositories: &Repositories::new(),
        })
        .await
    }
}

/// `Kind/name` of each manifest, in order.
pub(crate) fn names(rendered: &Rendered) -> Vec<String> {
    rendered
        .manifests
        .iter()
        .map(|m| {
            let get = |pointer: &str| m.pointer(pointer).and_then(Value::as_str).unwrap_or("?").to_string();
            format!("{}/{}", get("/kind"), get("/metadata/name"))
        })
        .collect()
}
