//! `pause`.

use super::{api, apply, name, patch};
use crate::cluster::Connection;
use crate::output::print;
use anyhow::Result;
use tidegate_crds::rollout::Rollout;

/// Halts the update where it stands, by `spec.paused`. Scaling goes on. `promote` resumes.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  # Halt the update of \"web\"
  tidegate rollout pause web")]
pub struct Args {
    #[command(flatten)]
    rollouts: name::Rollouts,
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    let api = api::<Rollout>(connection);
    for name in &args.rollouts.names {
        apply(&api, name, &patch::pause()).await?;
        print(&format!("rollout '{name}' paused\n"))?;
    }
    Ok(())
}
