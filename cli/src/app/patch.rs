//! `app patch`.

use super::Target;
use super::connect::Connection;
use crate::output::{Format, document, print, without_managed_fields};
use anyhow::{Context, Result};
use clap::ValueEnum;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, PatchParams};
use serde_json::Value;
use tidegate_crds::application::Application;

/// Patches an Application.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  tidegate app patch shop --patch '{\"spec\": {\"source\": {\"targetRevision\": \"v2\"}}}' --type merge
  tidegate app patch shop --patch '[{\"op\": \"replace\", \"path\": \"/spec/source/path\", \"value\": \"b\"}]'")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// The patch, as JSON
    #[arg(long, value_name = "JSON")]
    patch: String,
    /// Its kind: json (RFC 6902) or merge (RFC 7386)
    #[arg(long = "type", value_enum, value_name = "TYPE", default_value = "json")]
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Json,
    Merge,
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    let name = connection.name(&args.target.app, args.target.app_namespace.as_deref())?;
    let resource = ApiResource::erase::<Application>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(connection.client.clone(), &name.namespace, &resource);
    let params = PatchParams::default();
    let body: Value = serde_json::from_str(&args.patch).context("--patch is not JSON")?;
    let patched = match args.kind {
        Kind::Merge => api.patch(&name.name, &params, &kube::api::Patch::Merge(body)).await?,
        Kind::Json => {
            let body: json_patch::Patch = serde_json::from_value(body).context("--patch is not a JSON patch")?;
            api.patch(&name.name, &params, &kube::api::Patch::Json::<()>(body)).await?
        }
    };
    print(&document(&without_managed_fields(patched), Format::Yaml)?)
}
