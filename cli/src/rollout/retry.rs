//! `retry`.

use super::{api, apply, name, patch};
use crate::cluster::Connection;
use crate::output::print;
use anyhow::Result;
use tidegate_crds::experiment::Experiment;
use tidegate_crds::rollout::Rollout;

/// Starts an aborted Rollout from its first step, or a finished Experiment from the beginning.
#[derive(clap::Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  # Start the aborted update of \"web\" again
  tidegate rollout retry rollout web

  # Run an Experiment again
  tidegate rollout retry experiment compare"
)]
pub struct Args {
    #[command(subcommand)]
    kind: Option<Kind>,
    #[command(flatten)]
    rollouts: Option<name::Rollouts>,
}

#[derive(clap::Subcommand, Debug)]
enum Kind {
    /// Start aborted Rollouts again
    #[command(visible_aliases = ["ro", "rollouts"])]
    Rollout(name::Rollouts),
    /// Run Experiments again
    #[command(visible_aliases = ["exp", "experiments"])]
    Experiment {
        /// Names of Experiments
        #[arg(value_name = "EXPERIMENT", required = true)]
        names: Vec<String>,
    },
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    if let Some(Kind::Experiment { names }) = args.kind {
        let api = api::<Experiment>(connection);
        for name in &names {
            apply(&api, name, &patch::retry_experiment()).await?;
            print(&format!("experiment '{name}' retried\n"))?;
        }
        return Ok(());
    }
    let names = match (args.kind, args.rollouts) {
        (Some(Kind::Rollout(rollouts)), _) | (_, Some(rollouts)) => rollouts.names,
        _ => Vec::new(),
    };
    let api = api::<Rollout>(connection);
    for name in &names {
        apply(&api, name, &patch::retry_rollout()).await?;
        print(&format!("rollout '{name}' retried\n"))?;
    }
    Ok(())
}
