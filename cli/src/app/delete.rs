//! `app delete` and `app confirm-deletion`.

use super::connect::{AppName, Connection};
use super::wait::{self, Goals};
use super::{Target, operation};
use crate::grammar::go_bool;
use crate::output::print;
use anyhow::{Result, bail};
use clap::{ArgAction, ValueEnum};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::io::IsTerminal;
use tidegate_crds::application::Application;

const FINALIZER: &str = "resources-finalizer.argocd.argoproj.io";

/// Deletes Applications, and by default what belongs to them.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  # With all objects
  tidegate app delete shop --yes --wait

  # Only the Application; its objects stay
  tidegate app delete shop --cascade=false")]
pub struct Args {
    /// Names, or NAMESPACE/NAME
    #[arg(value_name = "APP", required_unless_present = "selector")]
    apps: Vec<String>,
    /// Those with these labels, as key=value
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Namespace of the Applications, when it is not the control plane's
    #[arg(short = 'N', long, value_name = "NAMESPACE")]
    app_namespace: Option<String>,
    /// Delete the objects of the Application too
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "true",
        default_missing_value = "true", value_parser = go_bool, value_name = "BOOL")]
    cascade: bool,
    /// Wait for the objects of an object (foreground), or leave them to the cluster (background)
    #[arg(short, long, value_enum, value_name = "POLICY", default_value = "foreground")]
    propagation_policy: Propagation,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Wait until it is gone
    #[arg(long)]
    wait: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Propagation {
    Foreground,
    Background,
}

/// Agrees to the deletion of objects that ask for it (`Delete=confirm`, `Prune=confirm`).
#[derive(clap::Args, Debug)]
pub struct ConfirmArgs {
    #[command(flatten)]
    target: Target,
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    let names = wait::names(connection, &args.apps, args.selector.as_deref(), args.app_namespace.as_deref()).await?;
    for name in &names {
        let api = connection.apps(&name.namespace);
        let app = api.get(&name.name).await?;
        if !args.yes && !confirmed(&app, args.cascade)? {
            print(&format!("The command to delete '{}' was cancelled.\n", name.name))?;
            continue;
        }
        let finalizers = finalizers(&app, args.cascade, args.propagation_policy);
        if app.metadata.finalizers.as_deref().unwrap_or_default() != finalizers {
            let patch = json!({"metadata": {"finalizers": if finalizers.is_empty() { Value::Null } else { json!(finalizers) }}});
            api.patch(&name.name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        }
        api.delete(&name.name, &DeleteParams::default()).await?;
        if args.wait {
            let goals = Goals { delete: true, ..Default::default() };
            wait::until(connection, name, goals, &[], 0, false).await?;
        }
        print(&format!("application '{}' deleted\n", name.name))?;
    }
    Ok(())
}

fn confirmed(app: &Application, cascade: bool) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("deleting '{}' needs a yes: repeat with --yes", app.name());
    }
    let what = if cascade { " and all its resources" } else { "" };
    ask(&format!("Are you sure you want to delete '{}'{what}? [y/n] ", app.name()))
}

/// Asks on the terminal.
///
/// # Errors
/// When the terminal cannot be read.
pub fn ask(question: &str) -> Result<bool> {
    print(question)?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// The finalizers that make the controller delete the objects, or not, beside those of others.
fn finalizers(app: &Application, cascade: bool, propagation: Propagation) -> Vec<String> {
    let mut finalizers = app.metadata.finalizers.clone().unwrap_or_default();
    let ours = |finalizer: &String| {
        finalizer.strip_prefix(FINALIZER).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    finalizers.retain(|finalizer| !ours(finalizer));
    if cascade {
        finalizers.push(match propagation {
            Propagation::Foreground => FINALIZER.to_owned(),
            Propagation::Background => format!("{FINALIZER}/background"),
        });
    }
    finalizers
}

pub async fn confirm(args: ConfirmArgs, connection: &Connection) -> Result<()> {
    let name: AppName = connection.name(&args.target.app, args.target.app_namespace.as_deref())?;
    let api = connection.apps(&name.namespace);
    api.patch(&name.name, &PatchParams::default(), &Patch::Merge(operation::approval(jiff::Timestamp::now()))).await?;
    print(&format!("Application '{}' updated successfully\n", name.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_finalizer_says_what_becomes_of_the_objects() {
        let app = |finalizers: &[&str]| -> Application {
            serde_json::from_value(json!({"metadata": {"name": "a", "finalizers": finalizers}})).unwrap()
        };
        let of = |given: &[&str], cascade, propagation| finalizers(&app(given), cascade, propagation);
        assert_eq!(of(&["other"], true, Propagation::Foreground), ["other", FINALIZER]);
        assert_eq!(of(&[FINALIZER], true, Propagation::Background), [format!("{FINALIZER}/background")]);
        let foreground = format!("{FINALIZER}/foreground");
        assert!(of(&[FINALIZER, &foreground], false, Propagation::Foreground).is_empty());
    }
}
