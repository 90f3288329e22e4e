//! `tidegate rollout …`, which is also the kubectl plugin.

mod abort;
pub mod create;
mod get;
pub mod info;
pub mod lint;
mod list;
pub mod live;
mod name;
pub mod patch;
mod pause;
pub mod phase;
pub mod pod;
mod promote;
mod restart;
mod retry;
mod set_image;
mod status;
mod terminate;
mod tree;
mod undo;

use crate::cluster::{Connection, Flags};
use crate::failure;
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use kube::Api;
use kube::api::{Patch, PatchParams};
use patch::Patches;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// The flags that every command takes, and the command.
#[derive(Args, Debug)]
pub struct Grammar {
    #[command(flatten)]
    pub cluster: Flags,
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Show a Rollout or an Experiment with all that belongs to it, as a tree
    Get(get::Args),
    /// List Rollouts or Experiments
    List(list::Args),
    /// Wait until a Rollout is healthy, and say how it stands
    Status(status::Args),
    /// Go on: end a pause, skip a step, or skip all that is left
    Promote(promote::Args),
    /// Take an update back: all traffic goes to the stable version
    Abort(abort::Args),
    /// Start an aborted Rollout or a failed Experiment again
    Retry(retry::Args),
    /// Go back to an earlier revision
    Undo(undo::Args),
    /// Halt an update
    Pause(pause::Args),
    /// Change images
    Set(set_image::Args),
    /// Replace all pods with new ones of the same version
    Restart(restart::Args),
    /// End an AnalysisRun or an Experiment
    Terminate(terminate::Args),
    /// Create Rollouts, Experiments, analysis templates and runs
    Create(create::Args),
    /// Check manifests without a cluster
    Lint(lint::Args),
    /// Not part of this binary yet
    #[command(hide = true)]
    Dashboard(Rest),
    /// Not part of this binary yet
    #[command(hide = true)]
    Notifications(Rest),
    /// Print a completion script for a shell
    Completion(crate::grammar::CompletionArgs),
    /// Print the version
    Version(crate::grammar::VersionArgs),
}

/// Whatever else stands on the command line.
#[derive(Args, Debug)]
pub struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<String>,
}

/// How the commands call themselves to the API server: the peer's name, which ignore rules may name.
const AGENT: &str = "kubectl-argo-rollouts";

/// Runs a command. `Completion` and `Version` are the grammar's.
///
/// # Errors
/// Whatever goes wrong.
pub async fn run(grammar: Grammar) -> Result<()> {
    let flags = grammar.cluster;
    flags.start_log();
    match grammar.command {
        Command::Get(args) => get::run(args, &flags.connect(AGENT).await?).await,
        Command::List(args) => list::run(args, &flags.connect(AGENT).await?).await,
        Command::Status(args) => status::run(args, &flags.connect(AGENT).await?).await,
        Command::Promote(args) => promote::run(args, &flags.connect(AGENT).await?).await,
        Command::Abort(args) => abort::run(args, &flags.connect(AGENT).await?).await,
        Command::Retry(args) => retry::run(args, &flags.connect(AGENT).await?).await,
        Command::Undo(args) => undo::run(args, &flags.connect(AGENT).await?).await,
        Command::Pause(args) => pause::run(args, &flags.connect(AGENT).await?).await,
        Command::Set(args) => set_image::run(args, &flags.connect(AGENT).await?).await,
        Command::Restart(args) => restart::run(args, &flags.connect(AGENT).await?).await,
        Command::Terminate(args) => terminate::run(args, &flags.connect(AGENT).await?).await,
        Command::Create(args) => create::run(args, &flags.connect(AGENT).await?).await,
        Command::Lint(args) => lint::run(&args),
        Command::Dashboard(_) => anyhow::bail!(
            "the dashboard is not part of this binary yet; `get rollout NAME --watch` shows a Rollout live in the terminal"
        ),
        Command::Notifications(_) => {
            anyhow::bail!("the notifications commands are not part of this binary yet")
        }
        Command::Completion(_) | Command::Version(_) => Ok(()),
    }
}

/// Applies merge patches as every client of this API does: the status on its subresource, or on the object itself where
/// the kind has no such subresource.
///
/// # Errors
/// When the API server refuses.
pub async fn apply<K>(api: &Api<K>, name: &str, patches: &Patches) -> Result<()>
where
    K: Clone + DeserializeOwned + Debug,
{
    let params = PatchParams::default();
    if let Some(patch) = &patches.spec {
        api.patch(name, &params, &Patch::Merge(patch)).await?;
    }
    if let Some(patch) = &patches.status {
        match api.patch_status(name, &params, &Patch::Merge(patch)).await {
            Err(error) if failure::is_not_found(&error) => {
                api.patch(name, &params, &Patch::Merge(patch)).await?;
            }
            other => {
                other?;
            }
        }
    }
    Ok(())
}

/// The API of a kind in the connection's namespace.
pub fn api<K>(connection: &Connection) -> Api<K>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
    K::DynamicType: Default,
{
    Api::namespaced(connection.client.clone(), &connection.namespace)
}

/// Reads the text of a file, or of standard input for `-`.
///
/// # Errors
/// When it cannot be read.
pub fn read_file(path: &str) -> Result<String> {
    if path == "-" {
        return std::io::read_to_string(std::io::stdin()).context("reading standard input");
    }
    std::fs::read_to_string(path).with_context(|| format!("reading {path}"))
}

#[cfg(test)]
mod tests;
