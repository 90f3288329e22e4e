//! `app rollback`.

use super::Target;
use super::connect::Connection;
use super::operation::{is_automated, start};
use super::sync::{USER, verdict};
use super::wait::{self, Goals};
use crate::output::Format;
use anyhow::{Result, bail};
use tidegate_crds::application::{
    Application, Operation, OperationInitiator, RevisionHistory, SyncOperation, SyncStrategy, SyncStrategyForce,
};

/// Goes back to a past deployment: its revision and its source settings, without hooks.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  # To the deployment before the current one
  tidegate app rollback shop

  # To a certain one; `app history` shows them
  tidegate app rollback shop 7 --prune")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Number of the deployment; default: the one before the last
    #[arg(value_name = "ID")]
    id: Option<i64>,
    /// Delete what that deployment did not hold
    #[arg(long)]
    prune: bool,
    /// Give up waiting after so many seconds; 0 is never
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    timeout: u64,
    /// Format of what is printed at the end: wide, name, json or yaml
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "wide")]
    output: Format,
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    let name = connection.name(&args.target.app, args.target.app_namespace.as_deref())?;
    let app = connection.apps(&name.namespace).get(&name.name).await?;
    let operation = build(&app, args.id, args.prune)?;
    start(connection, &app, &operation).await?;
    let goals = Goals { operation: true, ..Default::default() };
    let show = args.output == Format::Wide;
    let app = wait::until(connection, &name, goals, &[], args.timeout, show).await?;
    wait::print_end(connection, &app, &[], args.output).await?;
    verdict(&app, true)
}

/// The deployment to go back to.
fn find(app: &Application, id: Option<i64>) -> Result<&RevisionHistory> {
    let history = &app.status.history;
    match id {
        None => match history.as_slice() {
            [.., before, _] => Ok(before),
            _ => bail!("application '{}' should have at least two successful deployments", app.name()),
        },
        Some(id) => match history.iter().find(|entry| entry.id == id) {
            Some(entry) => Ok(entry),
            None => bail!("application '{}' does not have deployment id '{id}' in history", app.name()),
        },
    }
}

fn build(app: &Application, id: Option<i64>, prune: bool) -> Result<Operation> {
    let entry = find(app, id)?;
    if is_automated(app) {
        bail!("rollback cannot be initiated when auto-sync is enabled");
    }
    let policy = app.spec.sync_policy.clone().unwrap_or_default();
    Ok(Operation {
        sync: Some(SyncOperation {
            revision: entry.revision.clone(),
            revisions: entry.revisions.clone(),
            source: entry.source.clone(),
            sources: entry.sources.clone(),
            prune,
            sync_options: policy.sync_options,
            sync_strategy: Some(SyncStrategy { apply: Some(SyncStrategyForce::default()), hook: None }),
            ..Default::default()
        }),
        initiated_by: Some(OperationInitiator { username: Some(USER.to_owned()), automated: false }),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn app(spec: Value, ids: &[i64]) -> Application {
        let history: Vec<Value> =
            ids.iter().map(|id| json!({"id": id, "revision": format!("r{id}"), "source": {"repoURL": "u"}})).collect();
        serde_json::from_value(json!({"metadata": {"name": "shop"}, "spec": spec, "status": {"history": history}}))
            .unwrap()
    }

    #[test]
    fn goes_to_the_deployment_before_or_to_a_number() {
        let app = app(json!({"syncPolicy": {"syncOptions": ["A=b"]}}), &[3, 4, 5]);
        assert_eq!(
            serde_json::to_value(build(&app, None, true).unwrap()).unwrap(),
            json!({
                "initiatedBy": {"username": "cli"},
                "sync": {
                    "revision": "r4", "prune": true, "source": {"repoURL": "u"}, "syncOptions": ["A=b"],
                    "syncStrategy": {"apply": {}},
                },
            })
        );
        assert_eq!(build(&app, Some(3), false).unwrap().sync.unwrap().revision.as_deref(), Some("r3"));
    }

    #[test]
    fn says_why_not() {
        let text = |app: &Application, id| build(app, id, false).unwrap_err().to_string();
        assert_eq!(
            text(&app(json!({}), &[1]), None),
            "application 'shop' should have at least two successful deployments"
        );
        assert_eq!(
            text(&app(json!({}), &[1, 2]), Some(9)),
            "application 'shop' does not have deployment id '9' in history"
        );
        let auto = app(json!({"syncPolicy": {"automated": {}}}), &[1, 2]);
        assert_eq!(text(&auto, None), "rollback cannot be initiated when auto-sync is enabled");
    }
}
