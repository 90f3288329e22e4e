//! `crds`.

use crate::output::print;
use anyhow::Result;

/// Prints the CustomResourceDefinitions as YAML.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  # Install or upgrade them; they are too large for client-side apply
  tidegate crds | kubectl apply --server-side --force-conflicts -f -")]
pub struct Args {}

pub fn run() -> Result<()> {
    let files = tidegate_crds::manifests::files()?;
    print(&files.iter().map(|(_, yaml)| format!("---\n{yaml}")).collect::<String>())
}
