//! `app manifests`.

use super::connect::Connection;
use super::targets::{self, Installation};
use super::{Target, objects};
use crate::output::{Format, document, print, without_managed_fields};
use anyhow::Result;
use clap::ValueEnum;
use serde_json::Value;
use tidegate_gitops::diff::mask;

/// Prints the manifests of an Application. Values of Secrets are masked.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  # What the source holds
  tidegate app manifests shop

  # What it held at a revision, and what is in the cluster
  tidegate app manifests shop --revision v1
  tidegate app manifests shop --source live")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Where from: git or live
    #[arg(long, value_enum, value_name = "SOURCE", default_value = "git")]
    source: Source,
    /// Revision instead of the one that the source follows
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Revisions, one a source; repeatable
    #[arg(long, value_name = "REVISION", conflicts_with = "revision")]
    revisions: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Source {
    Git,
    Live,
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    let name = connection.name(&args.target.app, args.target.app_namespace.as_deref())?;
    let app = connection.apps(&name.namespace).get(&name.name).await?;
    let mut manifests: Vec<Value> = match args.source {
        Source::Live => {
            let live = objects::live(connection, &app, &[]).await?;
            let objects = live.into_iter().filter_map(|(_, object)| object.map(without_managed_fields));
            objects.map(serde_json::to_value).collect::<Result<_, _>>()?
        }
        Source::Git => {
            let revisions = args.revision.into_iter().chain(args.revisions).collect();
            let installation = Installation::read(connection).await?;
            targets::targets(connection, &app, revisions, &installation, false).await?
        }
    };
    let mut out = String::new();
    for manifest in &mut manifests {
        mask::mask(&mut [manifest], &[]);
        out.push_str("---\n");
        out.push_str(&document(manifest, Format::Yaml)?);
    }
    print(&out)
}
