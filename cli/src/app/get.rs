//! `app get`.

use super::connect::Connection;
use super::objects::{self, Node};
use super::summary::{self, Surroundings};
use super::{Target, operation};
use crate::output::{Format, Table, age, document, print, without_managed_fields};
use anyhow::{Result, bail};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::watcher;
use std::time::Duration;
use tidegate_crds::application::Application;
use tidegate_crds::project::{AppProject, SyncWindow};
use tidegate_gitops::window;

/// Shows an Application: where it comes from, how it stands, which of its revisions were rejected, and what belongs to
/// it.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  # Look at the source and the cluster again first
  tidegate app get shop --refresh

  # With the last operation, or as a tree down to the pods
  tidegate app get shop --show-operation
  tidegate app get shop -o tree=detailed")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Compare with the source again first
    #[arg(long)]
    refresh: bool,
    /// Compare again first, with manifests rendered anew
    #[arg(long)]
    hard_refresh: bool,
    /// Show the last operation too
    #[arg(long)]
    show_operation: bool,
    /// Show the parameters of Helm and Kustomize too
    #[arg(long)]
    show_params: bool,
    /// Source of which to show the parameters, from 1
    #[arg(long, value_name = "N")]
    source_position: Option<usize>,
    /// Name of the source of which to show the parameters
    #[arg(long, value_name = "NAME", conflicts_with = "source_position")]
    source_name: Option<String>,
    /// Give up a refresh after so many seconds; 0 is never
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    timeout: u64,
    /// Format: wide, tree, tree=detailed, name, json or yaml
    #[arg(short, long, value_name = "FORMAT", default_value = "wide",
        value_parser = ["wide", "tree", "tree=detailed", "name", "json", "yaml"])]
    output: String,
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    let name = connection.name(&args.target.app, args.target.app_namespace.as_deref())?;
    let api = connection.apps(&name.namespace);
    let app = if args.refresh || args.hard_refresh {
        refresh(connection, &name, args.hard_refresh, args.timeout).await?
    } else {
        api.get(&name.name).await?
    };
    match args.output.as_str() {
        "json" | "yaml" => {
            let format = if args.output == "json" { Format::Json } else { Format::Yaml };
            let resource = ApiResource::erase::<Application>(&());
            let api: Api<DynamicObject> = Api::namespaced_with(connection.client.clone(), &name.namespace, &resource);
            return print(&document(&without_managed_fields(api.get(&name.name).await?), format)?);
        }
        "name" => return print(&(name.qualified() + "\n")),
        _ => {}
    }
    let now = Timestamp::now();
    let around = surroundings(connection, &app).await;
    if args.output == "wide" {
        let mut text = summary::full(&app, &around, &[], args.show_operation.then_some(now));
        if args.show_params {
            text.push_str(&parameters(&app, args.source_position, args.source_name.as_deref())?);
        }
        return print(&text);
    }
    let mut text = summary::header(&app, &around);
    if args.show_operation {
        text.push_str(&format!("\n{}", summary::operation(&app, now)));
    }
    let conditions = summary::conditions(&app);
    if !conditions.is_empty() {
        text.push_str(&format!("\n{conditions}"));
    }
    let nodes = objects::tree(connection, &app).await?;
    text.push_str(&format!("\n{}", tree(&nodes, args.output == "tree=detailed", now)));
    print(&text)
}

/// Asks the controller to compare again, and waits until it has.
///
/// # Errors
/// When time runs out, or the Application goes away.
pub async fn refresh(
    connection: &Connection,
    name: &super::connect::AppName,
    hard: bool,
    timeout: u64,
) -> Result<Application> {
    let api = connection.apps(&name.namespace);
    api.patch(&name.name, &PatchParams::default(), &Patch::Merge(operation::refresh(hard))).await?;
    let config = watcher::Config::default().fields(&format!("metadata.name={}", name.name));
    let waiting = async {
        let (store, mut changes) = crate::rollout::live::follow(api, config);
        while let Some(change) = changes.next().await {
            change?;
            let Some(app) = store.state().into_iter().next() else {
                bail!("application '{}' was deleted", name.qualified())
            };
            let asked = app.metadata.annotations.as_ref().is_some_and(|map| map.contains_key(REFRESH));
            if !asked {
                return Ok((*app).clone());
            }
        }
        bail!("the watch of application '{}' ended", name.qualified())
    };
    if timeout == 0 {
        return waiting.await;
    }
    match tokio::time::timeout(Duration::from_secs(timeout), waiting).await {
        Ok(result) => result,
        Err(_) => {
            bail!("timed out ({timeout}s) waiting for the refresh of app \"{}\": is the controller running?", name.name)
        }
    }
}

const REFRESH: &str = "argocd.argoproj.io/refresh";

/// What the header says besides the Application. What cannot be read is left out: it is not what the user asked for.
pub async fn surroundings(connection: &Connection, app: &Application) -> Surroundings {
    let settings: Api<ConfigMap> = Api::namespaced(connection.client.clone(), &connection.control_plane);
    let url = settings.get_opt("argocd-cm").await.ok().flatten().and_then(|map| map.data?.get("url").cloned());
    let url = url.filter(|url| !url.is_empty()).map(|url| match app.namespace() == connection.control_plane {
        true => format!("{}/applications/{}", url.trim_end_matches('/'), app.name()),
        false => format!("{}/applications/{}/{}", url.trim_end_matches('/'), app.namespace(), app.name()),
    });
    let projects: Api<AppProject> = Api::namespaced(connection.client.clone(), &connection.control_plane);
    let project = projects.get_opt(summary::project(app)).await.ok().flatten().unwrap_or_default();
    let (sync_window, windows) = windows(app, &project.spec.sync_windows, Timestamp::now());
    Surroundings { url: url.unwrap_or_default(), sync_window, windows }
}

/// What the project's sync windows say now, and those that are about the Application.
fn windows(app: &Application, windows: &[SyncWindow], now: Timestamp) -> (String, Vec<String>) {
    let destination = &app.spec.destination;
    let subject = window::Subject {
        application: app.name(),
        namespace: destination.namespace.as_deref().unwrap_or_default(),
        server: destination.server.as_deref().unwrap_or_default(),
        cluster: destination.name.as_deref().unwrap_or_default(),
    };
    let verdict = window::verdict(windows, &subject, now);
    let state = match (verdict.blocks_auto, verdict.blocks_manual) {
        (false, _) => "Sync Allowed",
        (true, false) => "Manual Allowed",
        (true, true) => "Sync Denied",
    };
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let assigned = windows.iter().filter(|window| window::is_about(window, &subject));
    let texts = assigned.map(|w| format!("{}:{}:{}", text(&w.kind), text(&w.schedule), text(&w.duration)));
    (state.to_owned(), texts.collect())
}

/// Parameters of one source.
fn parameters(app: &Application, position: Option<usize>, name: Option<&str>) -> Result<String> {
    let sources = summary::sources(app);
    let index = match (position, name) {
        (Some(0), _) => bail!("--source-position counts from 1"),
        (Some(position), _) => position - 1,
        (None, Some(name)) => match sources.iter().position(|source| source.name.as_deref() == Some(name)) {
            Some(index) => index,
            None => bail!("application '{}' has no source named {name:?}", app.name()),
        },
        (None, None) => 0,
    };
    let Some(source) = sources.get(index) else {
        bail!("application '{}' has {} sources, none at position {}", app.name(), sources.len(), index + 1);
    };
    let mut table = Table::with_header(&["NAME", "VALUE"]);
    if let Some(helm) = &source.helm {
        for parameter in &helm.parameters {
            table.push(vec![parameter.name.clone(), parameter.value.clone()]);
        }
    }
    if let Some(kustomize) = &source.kustomize {
        for image in &kustomize.images {
            table.push(vec!["image".to_owned(), image.clone()]);
        }
    }
    Ok(format!("\n{}", table.render()))
}

/// The tree of objects.
pub fn tree(nodes: &[Node], detailed: bool, now: Timestamp) -> String {
    let mut table = Table::with_header(match detailed {
        false => &["KIND/NAME", "STATUS", "HEALTH", "MESSAGE"],
        true => &["KIND/NAME", "STATUS", "HEALTH", "AGE", "MESSAGE", "REASON"],
    });
    for node in nodes {
        rows(&mut table, node, "", "", detailed, now);
    }
    table.render()
}

fn rows(table: &mut Table, node: &Node, branch: &str, below: &str, detailed: bool, now: Timestamp) {
    let mut row = vec![format!("{branch}{}/{}", node.kind, node.name), node.status.clone(), node.health.clone()];
    if detailed {
        row.push(node.created.map(|at| age(Some(at), now)).unwrap_or_default());
    }
    row.push(node.message.clone());
    if detailed {
        row.push(node.reason.clone());
    }
    table.push(row);
    for (index, child) in node.children.iter().enumerate() {
        let (limb, gap) = if index + 1 == node.children.len() { ("└─", "  ") } else { ("├─", "│ ") };
        rows(table, child, &format!("{below}{limb}"), &format!("{below}{gap}"), detailed, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(kind: &str, name: &str, children: Vec<Node>) -> Node {
        Node {
            kind: kind.into(),
            name: name.into(),
            created: Some("2026-01-01T00:00:00Z".parse().unwrap()),
            children,
            ..Default::default()
        }
    }

    #[test]
    fn draws_a_tree() {
        let pods = |set: &str| vec![node("Pod", &format!("{set}-a"), vec![]), node("Pod", &format!("{set}-b"), vec![])];
        let sets = vec![node("ReplicaSet", "web-1", pods("web-1")), node("ReplicaSet", "web-2", vec![])];
        let mut rollout = node("Rollout", "web", sets);
        (rollout.status, rollout.health, rollout.message) =
            ("Synced".into(), "Suspended".into(), "CanaryPauseStep".into());
        let now = "2026-01-08T00:00:00Z".parse().unwrap();
        let nodes = [node("Service", "web", vec![]), rollout];
        assert_eq!(
            tree(&nodes, false, now),
            "\
KIND/NAME           STATUS  HEALTH     MESSAGE
Service/web
Rollout/web         Synced  Suspended  CanaryPauseStep
├─ReplicaSet/web-1
│ ├─Pod/web-1-a
│ └─Pod/web-1-b
└─ReplicaSet/web-2
"
        );
        assert!(tree(&nodes, true, now).contains("Rollout/web         Synced  Suspended  7d   CanaryPauseStep"));
    }

    #[test]
    fn says_what_sync_windows_allow() {
        let app: Application = serde_json::from_value(json!({"metadata": {"name": "shop"}})).unwrap();
        let window = |kind: &str, manual: bool| -> SyncWindow {
            serde_json::from_value(json!({
                "kind": kind, "schedule": "0 22 * * *", "duration": "8h", "applications": ["*"], "manualSync": manual,
            }))
            .unwrap()
        };
        let (inside, outside) = ("2026-01-01T23:00:00Z".parse().unwrap(), "2026-01-01T12:00:00Z".parse().unwrap());
        let denied = [window("deny", false)];
        assert_eq!(windows(&app, &denied, inside), ("Sync Denied".into(), vec!["deny:0 22 * * *:8h".into()]));
        assert_eq!(windows(&app, &denied, outside).0, "Sync Allowed");
        assert_eq!(windows(&app, &[window("deny", true)], inside).0, "Manual Allowed");
        assert_eq!(windows(&app, &[], inside), ("Sync Allowed".into(), vec![]));
    }

    #[test]
    fn shows_parameters_of_a_source() {
        let app: Application = serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": {"sources": [
            {"repoURL": "r", "kustomize": {"images": ["a:1"]}},
            {"repoURL": "s", "name": "chart", "helm": {"parameters": [{"name": "x", "value": "1"}]}}]}}))
        .unwrap();
        assert_eq!(parameters(&app, Some(2), None).unwrap(), "\nNAME  VALUE\nx     1\n");
        assert_eq!(parameters(&app, None, Some("chart")).unwrap(), "\nNAME  VALUE\nx     1\n");
        assert!(parameters(&app, None, None).unwrap().contains("a:1"));
        assert!(parameters(&app, Some(3), None).is_err());
        assert!(parameters(&app, None, Some("nope")).is_err());
    }
}
