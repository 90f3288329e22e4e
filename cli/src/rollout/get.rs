//! `get`.

use super::info::{self, Objects};
use super::live::{self, Live};
use super::status::not_found;
use super::tree;
use crate::cluster::Connection;
use crate::output::{Format, Paint, document, print, without_managed_fields};
use anyhow::{Result, bail};
use futures::StreamExt;
use futures::stream::SelectAll;
use jiff::Timestamp;
use kube::Api;
use kube::api::{ApiResource, DynamicObject};
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::{Lookup, Store};
use kube::runtime::watcher;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::io::IsTerminal;
use std::time::Duration;
use tidegate_crds::experiment::Experiment;
use tidegate_crds::rollout::Rollout;

/// Shows a Rollout or an Experiment with its revisions, ReplicaSets, pods, experiments, analyses and their jobs.
#[derive(clap::Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  # Show \"web\" and follow what happens to it
  tidegate rollout get web --watch

  # Show an Experiment
  tidegate rollout get experiment compare

Icons: ⟳ Rollout  # revision  ⧉ ReplicaSet  □ Pod  Σ Experiment  α AnalysisRun  ⊞ Job"
)]
pub struct Args {
    #[command(subcommand)]
    kind: Option<Kind>,
    #[command(flatten)]
    rollout: Option<Target>,
}

#[derive(clap::Subcommand, Debug)]
enum Kind {
    /// Show a Rollout
    #[command(visible_aliases = ["ro", "rollouts"])]
    Rollout(Target),
    /// Show an Experiment
    #[command(visible_aliases = ["exp", "experiments"])]
    Experiment(Target),
}

#[derive(clap::Args, Debug)]
struct Target {
    /// Name
    #[arg(value_name = "NAME")]
    name: String,
    /// Follow what happens, until interrupted
    #[arg(short, long)]
    watch: bool,
    /// No colours
    #[arg(long)]
    no_color: bool,
    /// End after so many seconds; 0 is never
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    timeout_seconds: u64,
    /// Format: wide (the tree), name, json or yaml (the object)
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    match (args.kind, args.rollout) {
        (Some(Kind::Experiment(target)), _) => show::<Experiment>(target, connection).await,
        (Some(Kind::Rollout(target)), _) | (None, Some(target)) => show::<Rollout>(target, connection).await,
        (None, None) => bail!("expected the name of a Rollout"),
    }
}

/// A kind that can be shown as a tree.
trait Shown:
    kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + Lookup<DynamicType = ()>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    const SINGULAR: &'static str;
    /// Everything there is to say, without ages.
    type Info: PartialEq;
    fn info(&self, objects: &Objects) -> Self::Info;
    fn text(info: &Self::Info, now: Timestamp, paint: Paint) -> String;
}

impl Shown for Rollout {
    const SINGULAR: &'static str = "rollout";
    type Info = info::RolloutInfo;
    fn info(&self, objects: &Objects) -> Self::Info {
        info::rollout(self, objects)
    }
    fn text(info: &Self::Info, now: Timestamp, paint: Paint) -> String {
        tree::rollout(info, now, paint)
    }
}

impl Shown for Experiment {
    const SINGULAR: &'static str = "experiment";
    type Info = info::ExperimentInfo;
    fn info(&self, objects: &Objects) -> Self::Info {
        info::experiment(self, objects)
    }
    fn text(info: &Self::Info, now: Timestamp, paint: Paint) -> String {
        tree::experiment(info, now, paint)
    }
}

async fn show<K: Shown>(target: Target, connection: &Connection) -> Result<()> {
    let paint = Paint::for_stdout(target.no_color);
    let name = target.name.as_str();
    match target.output {
        Some(format @ (Format::Json | Format::Yaml)) => {
            let resource = ApiResource::erase::<K>(&());
            let api: Api<DynamicObject> =
                Api::namespaced_with(connection.client.clone(), &connection.namespace, &resource);
            let object = api.get(name).await.map_err(|error| not_found(error, K::SINGULAR, name))?;
            return print(&document(&without_managed_fields(object), format)?);
        }
        Some(Format::Name) => {
            super::api::<K>(connection).get(name).await.map_err(|error| not_found(error, K::SINGULAR, name))?;
            return print(&format!("{}.argoproj.io/{name}\n", K::SINGULAR));
        }
        Some(Format::Wide) | None => {}
    }
    let object = super::api::<K>(connection).get(name).await.map_err(|error| not_found(error, K::SINGULAR, name))?;
    if !target.watch {
        let objects = live::objects(connection).await?;
        return print(&K::text(&object.info(&objects), Timestamp::now(), paint));
    }
    let watching = follow::<K>(connection, name, paint);
    if target.timeout_seconds == 0 {
        return watching.await;
    }
    tokio::time::timeout(Duration::from_secs(target.timeout_seconds), watching).await.unwrap_or(Ok(()))
}

/// How often the screen may change.
const REDRAW: Duration = Duration::from_millis(200);
/// After how many redraw times the ages on a terminal are brought up to date.
const AGES: u32 = 5;

/// How long the first drawing waits for all kinds; one that the cluster does not have never comes.
const PATIENCE: Duration = Duration::from_secs(2);

/// Draws the tree again whenever something in it changes; on a terminal in place, and every second for the ages.
async fn follow<K: Shown>(connection: &Connection, name: &str, paint: Paint) -> Result<()> {
    let terminal = std::io::stdout().is_terminal();
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let (store, own): (Store<K>, _) = live::follow(super::api::<K>(connection), config);
    let (live, mut changes) = Live::start(connection);
    changes.push(own);
    let mut ticks = tokio::time::interval(REDRAW);
    let (mut dirty, mut quiet) = (false, 0);
    let mut known = false;
    let begun = tokio::time::Instant::now();
    let mut drawn: Option<K::Info> = None;
    loop {
        tokio::select! {
            change = next(&mut changes) => {
                change?;
                dirty = true;
            }
            _ = ticks.tick() => {
                quiet += 1;
                let due = terminal && quiet >= AGES;
                if !dirty && !due {
                    continue;
                }
                let Some(object) = store.state().into_iter().next() else {
                    // The first list may still be on its way; later, an empty store is a deletion.
                    if known && dirty {
                        return print(&format!("{} \"{name}\" deleted\n", K::SINGULAR));
                    }
                    continue;
                };
                known = true;
                if drawn.is_none() && !live.is_complete() && begun.elapsed() < PATIENCE {
                    continue;
                }
                let info = object.info(&live.objects());
                let changed = drawn.as_ref() != Some(&info);
                if changed || terminal {
                    let text = K::text(&info, Timestamp::now(), paint);
                    print(&if terminal { in_place(&text) } else { format!("{text}\n") })?;
                }
                drawn = Some(info);
                (dirty, quiet) = (false, 0);
            }
        }
    }
}

async fn next(changes: &mut SelectAll<futures::stream::BoxStream<'static, Result<()>>>) -> Result<()> {
    match changes.next().await {
        Some(change) => change,
        None => bail!("all watches ended"),
    }
}

/// The text over what is on the screen, without a flicker: each line cleared to its end, then what is left below.
fn in_place(text: &str) -> String {
    let mut out = String::from("\u{1b}[H");
    for line in text.lines() {
        out.push_str(line);
        out.push_str("\u{1b}[K\n");
    }
    out.push_str("\u{1b}[J");
    out
}

/// Follows a Rollout or an Experiment, as `get --watch` does.
///
/// # Errors
/// As `get`.
pub async fn watch(kind: &str, name: String, no_color: bool, connection: &Connection) -> Result<()> {
    let target = Target { name, watch: true, no_color, timeout_seconds: 0, output: None };
    match kind {
        "Experiment" => show::<Experiment>(target, connection).await,
        _ => show::<Rollout>(target, connection).await,
    }
}
