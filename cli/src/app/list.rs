//! `app list`.

use super::connect::{AppName, Connection};
use super::selector::wildcard;
use super::summary;
use crate::output::{Format, Table, document, print, without_managed_fields};
use anyhow::Result;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams};
use std::collections::BTreeMap;
use tidegate_crds::application::Application;

/// Lists Applications.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  # All Applications of the control plane's namespace
  tidegate app list

  # Names of those of a project, everywhere
  tidegate app list -A -p team -o name")]
pub struct Args {
    /// Only with these labels, as key=value
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Only of this project; repeatable
    #[arg(short, long, value_name = "PROJECT")]
    project: Vec<String>,
    /// Only from this repository
    #[arg(short, long, value_name = "URL")]
    repo: Option<String>,
    /// Only to this cluster, by name or address
    #[arg(short, long, value_name = "CLUSTER")]
    cluster: Option<String>,
    /// Only from this path; `*` is any text
    #[arg(short = 'P', long, value_name = "PATH")]
    path: Option<String>,
    /// Namespace of the Applications, when it is not the control plane's
    #[arg(short = 'N', long, value_name = "NAMESPACE")]
    app_namespace: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Format: wide, name, json or yaml
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "wide")]
    output: Format,
}

impl Args {
    fn fits(&self, app: &Application) -> bool {
        let destination = &app.spec.destination;
        let sources = summary::sources(app);
        (self.project.is_empty() || self.project.iter().any(|project| project == summary::project(app)))
            && self
                .repo
                .as_deref()
                .is_none_or(|repo| sources.iter().any(|source| same_repository(&source.repo_url, repo)))
            && self.cluster.as_deref().is_none_or(|cluster| {
                destination.server.as_deref() == Some(cluster) || destination.name.as_deref() == Some(cluster)
            })
            && self.path.as_deref().is_none_or(|pattern| {
                sources.iter().any(|source| source.path.as_deref().is_some_and(|path| wildcard(pattern, path)))
            })
    }
}

/// Whether two addresses are the same but for case and `.git`.
fn same_repository(a: &str, b: &str) -> bool {
    let plain = |url: &str| url.trim_end_matches('/').trim_end_matches(".git").to_ascii_lowercase();
    plain(a) == plain(b)
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    let namespace = args.app_namespace.as_deref().unwrap_or(&connection.control_plane);
    let mut params = ListParams::default();
    if let Some(selector) = &args.selector {
        params = params.labels(selector);
    }
    if matches!(args.output, Format::Json | Format::Yaml) {
        let resource = ApiResource::erase::<Application>(&());
        let api: Api<DynamicObject> = match args.all_namespaces {
            true => Api::all_with(connection.client.clone(), &resource),
            false => Api::namespaced_with(connection.client.clone(), namespace, &resource),
        };
        let mut items = Vec::new();
        for object in api.list(&params).await?.items {
            let app: Application = serde_json::from_value(serde_json::to_value(&object)?)?;
            if args.fits(&app) {
                items.push(without_managed_fields(object));
            }
        }
        return print(&document(&items, args.output)?);
    }
    let api: Api<Application> = match args.all_namespaces {
        true => Api::all(connection.client.clone()),
        false => connection.apps(namespace),
    };
    let apps: Vec<Application> = api.list(&params).await?.items.into_iter().filter(|app| args.fits(app)).collect();
    print(&match args.output {
        Format::Name => apps.iter().map(|app| AppName::of(app).qualified() + "\n").collect(),
        _ => table(&apps),
    })
}

fn table(apps: &[Application]) -> String {
    let mut table = Table::with_header(&[
        "NAME",
        "CLUSTER",
        "NAMESPACE",
        "PROJECT",
        "STATUS",
        "HEALTH",
        "SYNCPOLICY",
        "CONDITIONS",
        "REPO",
        "PATH",
        "TARGET",
    ]);
    for app in apps {
        let destination = &app.spec.destination;
        let source = summary::sources(app).into_iter().next().unwrap_or_default();
        let server =
            destination.server.clone().filter(|server| !server.is_empty()).or_else(|| destination.name.clone());
        let policy = match summary::automated(app.spec.sync_policy.as_ref()) {
            None => "Manual",
            Some(true) => "Auto-Prune",
            Some(false) => "Auto",
        };
        table.push(vec![
            AppName::of(app).qualified(),
            server.unwrap_or_default(),
            destination.namespace.clone().unwrap_or_default(),
            summary::project(app).to_owned(),
            app.status.sync.as_ref().map(|sync| sync.status.clone()).unwrap_or_default(),
            app.status.health.as_ref().and_then(|health| health.status.clone()).unwrap_or_default(),
            policy.to_owned(),
            conditions(app),
            source.repo_url,
            source.path.unwrap_or_default(),
            source.target_revision.unwrap_or_default(),
        ]);
    }
    table.render()
}

/// Types of conditions with how often they occur.
fn conditions(app: &Application) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for condition in &app.status.conditions {
        *counts.entry(&condition.type_).or_default() += 1;
    }
    if counts.is_empty() {
        return "<none>".to_owned();
    }
    let texts: Vec<String> = counts
        .into_iter()
        .map(|(type_, count)| if count > 1 { format!("{type_}({count})") } else { type_.to_owned() })
        .collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn app(name: &str, spec: Value, status: Value) -> Application {
        serde_json::from_value(
            json!({"metadata": {"name": name, "namespace": "argocd"}, "spec": spec, "status": status}),
        )
        .unwrap()
    }

    #[test]
    fn lists_in_the_peers_columns() {
        let conditions = json!([{"type": "SyncError"}, {"type": "ComparisonError"}, {"type": "SyncError"}]);
        let apps = [
            app(
                "shop",
                json!({"destination": {"server": "https://k", "namespace": "shop"}, "source": {"repoURL": "https://g/r.git", "path": "p", "targetRevision": "main"}, "syncPolicy": {"automated": {}}}),
                json!({"sync": {"status": "Synced"}, "health": {"status": "Healthy"}}),
            ),
            app(
                "a",
                json!({"destination": {"name": "in-cluster"}, "project": "team"}),
                json!({"conditions": conditions}),
            ),
        ];
        assert_eq!(
            table(&apps),
            "\
NAME         CLUSTER     NAMESPACE  PROJECT  STATUS  HEALTH   SYNCPOLICY  CONDITIONS                    REPO             PATH  TARGET
argocd/shop  https://k   shop       default  Synced  Healthy  Auto        <none>                        https://g/r.git  p     main
argocd/a     in-cluster             team                      Manual      ComparisonError,SyncError(2)
"
        );
    }

    #[test]
    fn repositories_are_the_same_without_git_and_case() {
        assert!(same_repository("https://Git.example/a.git", "https://git.example/a"));
        assert!(!same_repository("https://git.example/a", "https://git.example/b"));
    }
}
