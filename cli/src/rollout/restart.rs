//! `restart`.

use super::{api, apply, name, patch};
use crate::cluster::Connection;
use crate::output::print;
use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use tidegate_crds::duration;
use tidegate_crds::rollout::Rollout;

/// Replaces all pods with new ones of the same version, a few at a time and within PodDisruptionBudgets. It makes no new
/// revision and runs no steps.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  # Replace the pods of \"web\"
  tidegate rollout restart web

  # Replace them in ten minutes
  tidegate rollout restart web --in 10m")]
pub struct Args {
    #[command(flatten)]
    rollouts: name::Rollouts,
    /// When: a time from now, such as 10s or 5m
    #[arg(short, long = "in", value_name = "DURATION", default_value = "0s")]
    in_: String,
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    let wait = duration::parse_or_seconds(&args.in_).context("--in")?;
    let at = Timestamp::now().checked_add(SignedDuration::try_from(wait).context("--in")?).context("--in")?;
    let api = api::<Rollout>(connection);
    for name in &args.rollouts.names {
        apply(&api, name, &patch::restart(at)).await?;
        print(&format!("rollout '{name}' restarts in {}\n", args.in_))?;
    }
    Ok(())
}
