//! A namespace that is a control plane of its own: its controller, its Applications, one repository, and the hands of
//! a user: git, `argocd`, webhooks.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};
use tidegate_e2e::controller::tidegate_program;
use tidegate_e2e::process::output;
use tidegate_e2e::{Cluster, Controller, Repository, http};

use crate::scene::{self, Scene};

pub const ARGO: &str = "argoproj.io/v1alpha1";
/// The annotation that asks for a comparison.
pub const REFRESH: &str = "argocd.argoproj.io/refresh";

/// A namespace with Applications.
pub struct Plane {
    pub scene: Scene,
    pub controller: Controller,
    pub repository: Repository,
}

impl Deref for Plane {
    type Target = Scene;

    fn deref(&self) -> &Scene {
        &self.scene
    }
}

impl Plane {
    /// A namespace, its controller, and an empty repository of the same name.
    pub async fn new(cluster: &'static Cluster, prefix: &str) -> Result<Self> {
        Self::with_repository(cluster, prefix, "").await
    }

    /// As [`Plane::new`], with a repository whose name begins with `directory`.
    pub async fn with_repository(cluster: &'static Cluster, prefix: &str, directory: &str) -> Result<Self> {
        let (scene, controller) = Scene::with_controller(cluster, prefix, &[]).await?;
        let repository = cluster.git()?.create(&format!("{directory}{}", scene.name()))?;
        Ok(Self { scene, controller, repository })
    }

    /// An Application of a path in the repository, into this namespace; `extra` is merged into its spec.
    pub fn app(&self, name: &str, path: &str, extra: Value) -> Value {
        let mut app = json!({
            "apiVersion": ARGO, "kind": "Application", "metadata": {"name": name},
            "spec": {
                "project": "default",
                "source": {"repoURL": self.repository.http_url(), "targetRevision": "main", "path": path},
                "destination": {"server": "https://kubernetes.default.svc", "namespace": self.name()},
            },
        });
        merge(&mut app["spec"], &extra);
        app
    }

    pub async fn application(&self, name: &str) -> Result<Value> {
        self.get(ARGO, "Application", name).await
    }

    /// Waits until an Application satisfies a condition.
    pub async fn app_is(&self, name: &str, what: &str, condition: impl Fn(&Value) -> Result<()>) -> Result<Value> {
        self.until(&format!("Application {name}: {what}"), async || {
            let app = self.application(name).await?;
            condition(&app)?;
            Ok(app)
        })
        .await
    }

    /// Waits until an Application has applied a commit and found nothing different since.
    pub async fn synced(&self, name: &str, commit: &str) -> Result<Value> {
        self.app_is(name, &format!("synced to {commit}"), |app| {
            ensure!(
                app.pointer("/status/operationState/syncResult/revision") == Some(&json!(commit))
                    && phase(app) == "Succeeded"
                    && sync_status(app) == "Synced"
                    && app.pointer("/status/sync/revision") == Some(&json!(commit)),
                "{}",
                app["status"]
            );
            Ok(())
        })
        .await
    }

    /// Asks for a comparison and waits until it is done.
    pub async fn refresh(&self, name: &str) -> Result<Value> {
        self.patch(ARGO, "Application", name, json!({"metadata": {"annotations": {REFRESH: "normal"}}})).await?;
        self.app_is(name, "refreshed", |app| {
            ensure!(app["metadata"]["annotations"][REFRESH].is_null(), "not yet");
            Ok(())
        })
        .await
    }

    /// Waits until an Application has a condition of this type whose message holds all `parts`, and gives the message.
    pub async fn says(&self, name: &str, type_: &str, parts: &[&str]) -> Result<String> {
        let found = self
            .app_is(name, &format!("{type_} with {parts:?}"), |app| {
                let all = conditions(app);
                let message =
                    all.get(type_).with_context(|| format!("conditions {all:?}, status {}", app["status"]))?;
                ensure!(parts.iter().all(|part| message.contains(part)), "{message:?}");
                Ok(())
            })
            .await?;
        Ok(conditions(&found).remove(type_).unwrap_or_default())
    }

    /// `argocd` with these arguments, for this control plane.
    pub fn argocd_command(&self, args: &[&str]) -> Result<Command> {
        let mut command = self.cluster.command(&argocd()?.to_string_lossy());
        command.env("ARGOCD_NAMESPACE", self.name()).args(args);
        Ok(command)
    }

    /// Runs `argocd`; fails when it does.
    pub fn argocd(&self, args: &[&str]) -> Result<String> {
        output(&mut self.argocd_command(args)?)
    }

    /// Runs `argocd` to any end: exit code, standard output and error.
    pub fn argocd_ends(&self, args: &[&str]) -> Result<(i32, String, String)> {
        scene::ends(&mut self.argocd_command(args)?)
    }

    /// A Secret of this control plane.
    pub async fn secret(&self, name: &str, type_: Option<&str>, data: Value) -> Result<()> {
        let labels = type_.map_or(json!({}), |type_| json!({"argocd.argoproj.io/secret-type": type_}));
        self.apply(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": labels}, "stringData": data,
        }))
        .await
    }

    /// The value of a key in a ConfigMap; none when either is not there.
    pub async fn value(&self, config_map: &str, key: &str) -> Result<Option<String>> {
        let all = self.list("v1", "ConfigMap").await?;
        let found = all.iter().find(|object| object["metadata"]["name"] == config_map);
        Ok(found.and_then(|object| object["data"][key].as_str()).map(str::to_owned))
    }

    /// Waits until a ConfigMap holds a value, or is gone.
    pub async fn value_is(&self, config_map: &str, key: &str, wanted: Option<&str>) -> Result<()> {
        self.until(&format!("ConfigMap {config_map} to hold {wanted:?}"), async || {
            let found = self.value(config_map, key).await?;
            ensure!(found.as_deref() == wanted, "{found:?}");
            Ok(())
        })
        .await
    }

    /// Calls the webhook: status and answer.
    pub async fn webhook(&self, headers: &[(&str, &str)], body: &[u8]) -> Result<(u16, String)> {
        let mut request = http::client()?.post(self.controller.webhook_url()).body(body.to_vec());
        request = request.header("content-type", "application/json").timeout(Duration::from_secs(20));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.context("call the webhook")?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }
}

/// A merge patch, here.
fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

/// Conditions by type; several of one type together.
pub fn conditions(app: &Value) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for condition in app.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten() {
        let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
        let messages = all.entry(text("type")).or_default();
        messages.push_str(&text("message"));
        messages.push('\n');
    }
    all
}

fn text<'a>(app: &'a Value, pointer: &str) -> &'a str {
    app.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Phase of the last operation.
pub fn phase(app: &Value) -> &str {
    text(app, "/status/operationState/phase")
}

/// Message of the last operation.
pub fn message(app: &Value) -> &str {
    text(app, "/status/operationState/message")
}

/// Whether the cluster is as Git says.
pub fn sync_status(app: &Value) -> &str {
    text(app, "/status/sync/status")
}

/// The policy of an Application that syncs, prunes and heals by itself.
pub fn automated() -> Value {
    json!({"automated": {"prune": true, "selfHeal": true}})
}

/// A ConfigMap as a manifest.
pub fn config_map(name: &str, value: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value},
    })
    .to_string()
}

/// The binary under the name of Argo CD's command.
fn argocd() -> Result<PathBuf> {
    static LINK: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = LINK.get_or_init(|| link().map_err(|error| format!("{error:#}")));
    made.clone().map_err(|error| anyhow!("no argocd: {error}"))
}

fn link() -> Result<PathBuf> {
    let program = tidegate_program()?;
    let directory = program.parent().unwrap_or(Path::new(".")).join("argocd-link");
    std::fs::create_dir_all(&directory)?;
    let link = directory.join("argocd");
    // Another run may do the same at the same time: a name of its own, then over the old one at once.
    let mine = directory.join(format!("link-{}", std::process::id()));
    std::os::unix::fs::symlink(&program, &mine)?;
    std::fs::rename(&mine, &link)?;
    Ok(link)
}
