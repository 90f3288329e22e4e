//! `status`.

use super::{api, live, phase};
use crate::cluster::Connection;
use crate::failure;
use crate::output::print;
use anyhow::{Context, Result, bail};
use clap::ArgAction;
use futures::StreamExt;
use kube::runtime::watcher;
use std::time::Duration;
use tidegate_crds::duration;
use tidegate_crds::rollout::Rollout;

/// Watches a Rollout until it is healthy, which is success, or degraded, which is not. A pause is waited out.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  # Wait until \"web\" is healthy
  tidegate rollout status web

  # Say how it stands now
  tidegate rollout status web --watch=false

  # Fail when it takes more than a minute
  tidegate rollout status web --timeout 60s")]
pub struct Args {
    /// Name of the Rollout
    #[arg(value_name = "ROLLOUT")]
    name: String,
    /// Watch until it is done; false: say how it stands now
    #[arg(short, long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "true",
        default_missing_value = "true", value_parser = crate::grammar::go_bool, value_name = "BOOL")]
    watch: bool,
    /// Give up after this time, such as 1s, 2m or 3h; 0 is never
    #[arg(short, long, value_name = "DURATION", default_value = "0s")]
    timeout: String,
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    let limit = duration::parse(&args.timeout).context("--timeout")?;
    let api = api::<Rollout>(connection);
    let rollout = api.get(&args.name).await.map_err(|error| not_found(error, "rollout", &args.name))?;
    if !args.watch {
        let (phase, message) = phase::of(&rollout);
        print(&format!("{}\n", line(&phase, &message)))?;
        return if phase == "Degraded" { Err(degraded(&message)) } else { Ok(()) };
    }
    let watching = watch(connection, &args.name);
    if limit == Duration::ZERO {
        return watching.await;
    }
    match tokio::time::timeout(limit, watching).await {
        Ok(result) => result,
        Err(_) => bail!("Rollout status watch exceeded timeout"),
    }
}

async fn watch(connection: &Connection, name: &str) -> Result<()> {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let (store, mut changes) = live::follow(api::<Rollout>(connection), config);
    let mut shown = String::new();
    while let Some(change) = changes.next().await {
        change?;
        let Some(rollout) = store.state().into_iter().next() else { bail!("rollout.argoproj.io \"{name}\" not found") };
        let (phase, message) = phase::of(&rollout);
        let line = with_reason(&phase, &message);
        if line != shown {
            print(&format!("{line}\n"))?;
            shown = line;
        }
        match phase.as_str() {
            "Healthy" => return Ok(()),
            "Degraded" => return Err(degraded(&message)),
            _ => {}
        }
    }
    bail!("the watch of rollout \"{name}\" ended")
}

/// As it stands now: a phase in which a Rollout stays is said alone, one that passes with its reason.
fn line(phase: &str, message: &str) -> String {
    match phase {
        "Healthy" | "Degraded" => phase.to_owned(),
        _ => with_reason(phase, message),
    }
}

/// As a watch tells it.
fn with_reason(phase: &str, message: &str) -> String {
    if message.is_empty() { phase.to_owned() } else { format!("{phase} - {message}") }
}

fn degraded(message: &str) -> anyhow::Error {
    anyhow::anyhow!("The rollout is in a degraded state with message: {message}")
}

/// The error for an object that does not exist, with the kind in the singular as the read commands say it.
pub fn not_found(error: kube::Error, kind: &str, name: &str) -> anyhow::Error {
    if failure::is_not_found(&error) {
        return anyhow::anyhow!("{kind}.argoproj.io \"{name}\" not found");
    }
    error.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_why_only_while_it_passes() {
        assert_eq!(line("Paused", "BlueGreenPause"), "Paused - BlueGreenPause");
        assert_eq!(line("Progressing", ""), "Progressing");
        assert_eq!(line("Degraded", "RolloutAborted: x"), "Degraded");
        assert_eq!(line("Healthy", ""), "Healthy");
        assert_eq!(with_reason("Degraded", "RolloutAborted: x"), "Degraded - RolloutAborted: x");
        assert_eq!(with_reason("Healthy", ""), "Healthy");
    }
}
