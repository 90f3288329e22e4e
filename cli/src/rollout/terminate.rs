//! `terminate`.

use super::{api, apply, patch};
use crate::cluster::Connection;
use crate::output::print;
use anyhow::Result;
use tidegate_crds::analysis::AnalysisRun;
use tidegate_crds::experiment::Experiment;

/// Ends an AnalysisRun or an Experiment now. What it has measured so far decides its verdict.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  tidegate rollout terminate analysisrun web-5d4f9-2
  tidegate rollout terminate experiment compare")]
pub struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(clap::Subcommand, Debug)]
enum Kind {
    /// End AnalysisRuns
    #[command(name = "analysisrun", visible_aliases = ["ar", "analysisruns"])]
    AnalysisRun {
        /// Names of AnalysisRuns
        #[arg(value_name = "ANALYSISRUN", required = true)]
        names: Vec<String>,
    },
    /// End Experiments
    #[command(visible_aliases = ["exp", "experiments"])]
    Experiment {
        /// Names of Experiments
        #[arg(value_name = "EXPERIMENT", required = true)]
        names: Vec<String>,
    },
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    match args.kind {
        Kind::AnalysisRun { names } => {
            let api = api::<AnalysisRun>(connection);
            for name in &names {
                apply(&api, name, &patch::terminate()).await?;
                print(&format!("analysisRun '{name}' terminated\n"))?;
            }
        }
        Kind::Experiment { names } => {
            let api = api::<Experiment>(connection);
            for name in &names {
                apply(&api, name, &patch::terminate()).await?;
                print(&format!("experiment '{name}' terminated\n"))?;
            }
        }
    }
    Ok(())
}
