//! `tidegate app …`, which is also `argocd app …`: Applications, on the cluster directly.
//!
//! The commands write what a person would write (`.operation`, annotations, the spec) and watch what the controller
//! makes of it; they do no work of their own in the cluster.

mod actions;
pub mod argocd;
mod connect;
mod create;
mod delete;
mod diff;
mod get;
mod history;
mod list;
mod manifests;
mod objects;
mod operation;
mod patch;
mod resources;
mod rollback;
mod selector;
mod set;
mod spec_flags;
mod summary;
mod sync;
mod targets;
mod terminate;
mod wait;

use anyhow::Result;
use clap::{Args, Subcommand};
use connect::Flags;

/// The flags that every command takes, and the command.
#[derive(Args, Debug)]
pub struct Grammar {
    #[command(flatten)]
    pub flags: Flags,
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// List Applications
    List(list::Args),
    /// Show an Application: where it comes from, how it stands, what belongs to it
    Get(get::Args),
    /// Show how the cluster differs from the source
    Diff(diff::Args),
    /// Make the cluster look like the source
    Sync(Box<sync::Args>),
    /// Wait until Applications are synced and healthy
    Wait(wait::Args),
    /// Show past deployments
    History(history::Args),
    /// Go back to a past deployment
    Rollback(rollback::Args),
    /// Print the manifests of an Application
    Manifests(manifests::Args),
    /// Show the objects of an Application
    Resources(resources::Args),
    /// Delete Applications, and by default what belongs to them
    Delete(delete::Args),
    /// Agree to the deletion of objects that ask for it
    ConfirmDeletion(delete::ConfirmArgs),
    /// End the operation that is running
    TerminateOp(terminate::Args),
    /// Create an Application
    Create(Box<create::Args>),
    /// Change an Application
    Set(Box<set::Args>),
    /// Take settings of an Application away
    Unset(set::UnsetArgs),
    /// Patch an Application
    Patch(patch::Args),
    /// Act on the objects of an Application
    Actions(actions::Args),
}

/// Runs a command of `tidegate app`.
///
/// # Errors
/// Whatever goes wrong.
pub async fn run(grammar: Grammar) -> Result<()> {
    dispatch(grammar.command, &grammar.flags).await
}

async fn dispatch(command: Command, flags: &Flags) -> Result<()> {
    let connection = flags.connect().await?;
    match command {
        Command::List(args) => list::run(args, &connection).await,
        Command::Get(args) => get::run(args, &connection).await,
        Command::Diff(args) => diff::run(args, &connection).await,
        Command::Sync(args) => sync::run(*args, &connection).await,
        Command::Wait(args) => wait::run(args, &connection).await,
        Command::History(args) => history::run(args, &connection).await,
        Command::Rollback(args) => rollback::run(args, &connection).await,
        Command::Manifests(args) => manifests::run(args, &connection).await,
        Command::Resources(args) => resources::run(args, &connection).await,
        Command::Delete(args) => delete::run(args, &connection).await,
        Command::ConfirmDeletion(args) => delete::confirm(args, &connection).await,
        Command::TerminateOp(args) => terminate::run(args, &connection).await,
        Command::Create(args) => create::run(*args, &connection).await,
        Command::Set(args) => set::run(*args, &connection).await,
        Command::Unset(args) => set::unset(args, &connection).await,
        Command::Patch(args) => patch::run(args, &connection).await,
        Command::Actions(args) => actions::run(args, &connection).await,
    }
}

/// The Application that a command is about.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// Name, or NAMESPACE/NAME
    #[arg(value_name = "APP")]
    pub app: String,
    /// Namespace of the Application, when it is not the control plane's
    #[arg(short = 'N', long, value_name = "NAMESPACE")]
    pub app_namespace: Option<String>,
}
