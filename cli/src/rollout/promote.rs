//! `promote`.

use super::patch::{self, Promotion};
use super::{api, apply};
use crate::cluster::Connection;
use crate::output::print;
use anyhow::Result;
use tidegate_crds::rollout::Rollout;

/// Ends a pause, or skips the current step when there is no pause (a running analysis or experiment is skipped too).
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  # End the pause of \"web\"
  tidegate rollout promote web

  # Skip all steps, pauses and analyses that are left
  tidegate rollout promote web --full")]
pub struct Args {
    /// Name of the Rollout
    #[arg(value_name = "ROLLOUT")]
    name: String,
    /// Skip all steps, pauses and analyses that are left
    #[arg(long)]
    full: bool,
    /// Skip the current step (deprecated: `promote` does)
    #[arg(short = 'c', long, conflicts_with = "skip_all_steps")]
    skip_current_step: bool,
    /// Skip all steps (deprecated: use --full)
    #[arg(short = 'a', long)]
    skip_all_steps: bool,
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    for (given, flag, instead) in [
        (args.skip_current_step, "skip-current-step", "promote without a flag skips it"),
        (args.skip_all_steps, "skip-all-steps", "use --full"),
    ] {
        if given {
            eprintln!("Flag --{flag} has been deprecated, {instead}");
        }
    }
    let how = match (args.full, args.skip_current_step, args.skip_all_steps) {
        (true, ..) => Promotion::Full,
        (_, true, _) => Promotion::SkipCurrentStep,
        (_, _, true) => Promotion::SkipAllSteps,
        _ => Promotion::Next,
    };
    let api = api::<Rollout>(connection);
    let rollout = api.get(&args.name).await?;
    apply(&api, &args.name, &patch::promote(&rollout, how)?).await?;
    let fully = if args.full { "fully " } else { "" };
    print(&format!("rollout '{}' {fully}promoted\n", args.name))
}
