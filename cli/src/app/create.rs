//! `app create`.

use super::connect::{AppName, Connection};
use super::spec_flags::{SpecFlags, object};
use crate::output::print;
use crate::rollout::create::key_value;
use crate::rollout::{lint, read_file};
use anyhow::{Context, Result, bail};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tidegate_crds::API_VERSION;
use tidegate_crds::application::Application;

/// Creates an Application.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  # From a directory in Git
  tidegate app create shop --repo https://git.example/shop.git --path overlays/prod \\
      --dest-server https://kubernetes.default.svc --dest-namespace shop --sync-policy automated --auto-prune

  # From a chart
  tidegate app create redis --repo https://charts.example --helm-chart redis --revision 1.2.x --dest-namespace redis \\
      --dest-name in-cluster -p auth.enabled=false

  # From files
  tidegate app create -f apps.yaml --upsert")]
pub struct Args {
    /// Name, or NAMESPACE/NAME
    #[arg(value_name = "APP", required_unless_present = "file")]
    app: Option<String>,
    /// Namespace of the Application, when it is not the control plane's
    #[arg(short = 'N', long, value_name = "NAMESPACE")]
    app_namespace: Option<String>,
    /// File with Applications; - is standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<String>,
    /// Change the Application when it is there already
    #[arg(long)]
    upsert: bool,
    /// Label of the Application; repeatable
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = key_value)]
    label: Vec<(String, String)>,
    /// Annotation of the Application; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = key_value)]
    annotations: Vec<(String, String)>,
    /// Delete its objects with the Application
    #[arg(long)]
    set_finalizer: bool,
    #[command(flatten)]
    spec: SpecFlags,
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    let mut apps = match &args.file {
        Some(path) => lint::documents(&read_file(path)?).with_context(|| path.clone())?,
        None => vec![json!({"apiVersion": API_VERSION, "kind": "Application", "metadata": {}, "spec": {}})],
    };
    if apps.is_empty() {
        bail!("{} holds no Application", args.file.as_deref().unwrap_or_default());
    }
    if apps.len() > 1 && args.app.is_some() {
        bail!("{} holds {} Applications, so none can be named", args.file.as_deref().unwrap_or_default(), apps.len());
    }
    for app in &mut apps {
        if app["kind"] != Application::KIND {
            bail!("found kind {}, expected Application", app["kind"]);
        }
        let name = complete(&args, connection, app)?;
        let state = write(&args, connection, &name, app).await?;
        print(&format!("application '{}' {state}\n", name.name))?;
    }
    Ok(())
}

/// Puts the flags into the Application and gives its name.
fn complete(args: &Args, connection: &Connection, app: &mut Value) -> Result<AppName> {
    let metadata = object(app, "metadata");
    let in_file = metadata["name"].as_str().map(str::to_owned);
    let text = match (&args.app, in_file) {
        (Some(given), Some(found)) if given.rsplit('/').next() != Some(&found) => {
            bail!("app name '{given}' does not match app spec metadata.name '{found}'")
        }
        (Some(given), _) => given.clone(),
        (None, Some(found)) => found,
        (None, None) => bail!("metadata.name: missing"),
    };
    let namespace = args.app_namespace.clone().or_else(|| metadata["namespace"].as_str().map(str::to_owned));
    let name = connection.name(&text, namespace.as_deref())?;
    metadata["name"] = json!(name.name);
    metadata["namespace"] = json!(name.namespace);
    for (key, entries) in [("labels", &args.label), ("annotations", &args.annotations)] {
        for (entry, value) in entries {
            object(metadata, key)[entry] = json!(value);
        }
    }
    if args.set_finalizer {
        metadata["finalizers"] = json!(["resources-finalizer.argocd.argoproj.io"]);
    }
    args.spec.apply(app, None)?;
    if app["spec"]["project"].as_str().unwrap_or_default().is_empty() {
        app["spec"]["project"] = json!("default");
    }
    Ok(name)
}

async fn write(args: &Args, connection: &Connection, name: &AppName, app: &Value) -> Result<&'static str> {
    let resource = ApiResource::erase::<Application>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(connection.client.clone(), &name.namespace, &resource);
    let Some(known) = api.get_opt(&name.name).await? else {
        api.create(&PostParams::default(), &serde_json::from_value(app.clone())?).await?;
        return Ok("created");
    };
    let known = serde_json::to_value(known)?;
    let Some(patch) = change(&known, app) else { return Ok("unchanged") };
    if !args.upsert {
        bail!("existing application spec is different, use upsert flag to force update");
    }
    api.patch(&name.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok("updated")
}

/// The patch that gives a known Application the spec, and adds the labels, annotations and finalizers.
fn change(known: &Value, wanted: &Value) -> Option<Value> {
    let mut patch = json!({});
    if let Some(spec) = tidegate_crds::patch::merge_diff(&known["spec"], &wanted["spec"]) {
        patch["spec"] = spec;
    }
    for key in ["labels", "annotations", "finalizers"] {
        let Some(wanted) = wanted["metadata"].get(key) else { continue };
        let mut merged = known["metadata"].get(key).cloned().unwrap_or(Value::Null);
        tidegate_crds::patch::merge_apply(&mut merged, wanted);
        if Some(&merged) != known["metadata"].get(key) {
            object(&mut patch, "metadata")[key] = merged;
        }
    }
    (patch != json!({})).then_some(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_only_what_differs() {
        let known = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"project": "default", "source": {"path": "p"}}, "status": {}});
        assert_eq!(
            change(&known, &json!({"metadata": {}, "spec": {"project": "default", "source": {"path": "p"}}})),
            None
        );
        let wanted =
            json!({"metadata": {"labels": {"b": "2"}}, "spec": {"project": "default", "source": {"path": "q"}}});
        assert_eq!(
            change(&known, &wanted),
            Some(json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"source": {"path": "q"}}}))
        );
    }
}
