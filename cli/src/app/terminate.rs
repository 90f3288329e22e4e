//! `app terminate-op`.

use super::Target;
use super::connect::Connection;
use crate::output::print;
use anyhow::{Result, bail};
use kube::api::{Patch, PatchParams};
use serde_json::json;

/// Ends the operation that is running.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    target: Target,
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    let name = connection.name(&args.target.app, args.target.app_namespace.as_deref())?;
    let api = connection.apps(&name.namespace);
    let app = api.get(&name.name).await?;
    let running = app.operation.is_some() && app.status.operation_state.is_some();
    if !running {
        bail!("Unable to terminate operation. No operation is in progress");
    }
    let patch = json!({"status": {"operationState": {"phase": "Terminating"}}});
    api.patch(&name.name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    print(&format!("Application '{}' operation terminating\n", name.name))
}
