//! `abort`.

use super::{api, apply, name, patch};
use crate::cluster::Connection;
use crate::output::print;
use anyhow::Result;
use tidegate_crds::rollout::Rollout;

/// Takes an update back: all traffic goes to the stable version, and the new one is scaled down. It does not touch the
/// manifest: `retry rollout` starts the same update again, and so does applying it with a change.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  # Take the current update of \"web\" back
  tidegate rollout abort web")]
pub struct Args {
    #[command(flatten)]
    rollouts: name::Rollouts,
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    let api = api::<Rollout>(connection);
    for name in &args.rollouts.names {
        apply(&api, name, &patch::abort()).await?;
        print(&format!("rollout '{name}' aborted\n"))?;
    }
    Ok(())
}
