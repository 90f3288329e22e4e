//! `app actions`.

use super::Target;
use super::connect::Connection;
use super::objects;
use crate::output::{Table, print};
use crate::rollout::patch::{self as rollout_patch, Patches, Promotion};
use anyhow::{Result, bail};
use jiff::Timestamp;
use kube::Api;
use serde_json::json;
use tidegate_crds::analysis::AnalysisRun;
use tidegate_crds::application::ResourceStatus;
use tidegate_crds::rollout::Rollout;

/// Acts on the objects of an Application: on Rollouts, workloads and AnalysisRuns.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  # What can be done
  tidegate app actions list shop

  # End the pause of a Rollout
  tidegate app actions run shop resume --kind Rollout --resource-name web")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// List what can be done
    List(ListArgs),
    /// Do it
    Run(RunArgs),
}

#[derive(clap::Args, Debug)]
struct ListArgs {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    chosen: Chosen,
}

#[derive(clap::Args, Debug)]
struct RunArgs {
    #[command(flatten)]
    target: Target,
    /// What to do, such as restart, resume, abort, retry, promote-full or pause
    #[arg(value_name = "ACTION")]
    action: String,
    #[command(flatten)]
    chosen: Chosen,
    /// On all objects that fit; without it exactly one has to fit
    #[arg(long)]
    all: bool,
}

/// Which objects.
#[derive(clap::Args, Clone, Debug, Default)]
#[group(skip)]
struct Chosen {
    /// Kind
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// API group
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Namespace
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Name
    #[arg(long, value_name = "NAME")]
    resource_name: Option<String>,
}

impl Chosen {
    fn fits(&self, resource: &ResourceStatus) -> bool {
        let same = |wanted: &Option<String>, found: &Option<String>| {
            wanted.as_deref().is_none_or(|wanted| found.as_deref().unwrap_or_default() == wanted)
        };
        same(&self.kind, &resource.kind)
            && same(&self.group, &resource.group)
            && same(&self.namespace, &resource.namespace)
            && same(&self.resource_name, &resource.name)
    }
}

/// An action and what it writes. None: it makes no sense now.
type Action = (&'static str, Option<Patches>);

/// What can be done to a Rollout.
fn rollout_actions(rollout: &Rollout, now: Timestamp) -> Vec<Action> {
    let status = &rollout.status;
    let paused = rollout.spec.paused || !status.pause_conditions.as_deref().unwrap_or_default().is_empty();
    let updating = status.current_pod_hash != status.stable_rs;
    let has_steps =
        rollout.spec.strategy.canary.as_ref().is_some_and(|c| c.steps.as_ref().is_some_and(|s| !s.is_empty()));
    let resume = Patches {
        spec: rollout.spec.paused.then(|| json!({"spec": {"paused": false}})),
        status: status.pause_conditions.as_ref().map(|_| json!({"status": {"pauseConditions": null}})),
    };
    let status_patch = |how| rollout_patch::promote(rollout, how).ok();
    vec![
        ("abort", (updating && !status.abort).then(rollout_patch::abort)),
        ("pause", (!rollout.spec.paused).then(rollout_patch::pause)),
        ("promote-full", updating.then(|| status_patch(Promotion::Full)).flatten()),
        ("restart", Some(rollout_patch::restart(now))),
        ("resume", paused.then_some(resume)),
        ("retry", status.abort.then(rollout_patch::retry_rollout)),
        ("skip-current-step", (updating && has_steps).then(|| status_patch(Promotion::SkipCurrentStep)).flatten()),
    ]
}

/// What can be done to a workload of the `apps` group.
fn workload_actions(kind: &str, object: &serde_json::Value, now: Timestamp) -> Vec<Action> {
    let at = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let restart =
        json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": at}}}}});
    let patch = |spec| Some(Patches { spec: Some(spec), status: None });
    let mut actions = vec![("restart", patch(restart))];
    if kind == "Deployment" {
        let paused = object["spec"]["paused"] == true;
        actions.push(("pause", patch(json!({"spec": {"paused": true}})).filter(|_| !paused)));
        actions.push(("resume", patch(json!({"spec": {"paused": false}})).filter(|_| paused)));
    }
    actions
}

/// What can be done to an object.
fn actions(resource: &ResourceStatus, object: &serde_json::Value, now: Timestamp) -> Vec<Action> {
    let kind = resource.kind.as_deref().unwrap_or_default();
    match (resource.group.as_deref().unwrap_or_default(), kind) {
        ("argoproj.io", "Rollout") => match Rollout::decode(object.clone()) {
            Ok((rollout, _)) => rollout_actions(&rollout, now),
            Err(_) => Vec::new(),
        },
        ("argoproj.io", "AnalysisRun") => {
            let done = AnalysisRun::decode(object.clone()).is_ok_and(|(run, _)| run.status.phase.completed());
            vec![("terminate", (!done).then(rollout_patch::terminate))]
        }
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet") => workload_actions(kind, object, now),
        _ => Vec::new(),
    }
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    let (target, chosen) = match &args.command {
        Command::List(list) => (&list.target, &list.chosen),
        Command::Run(run) => (&run.target, &run.chosen),
    };
    let name = connection.name(&target.app, target.app_namespace.as_deref())?;
    let app = connection.apps(&name.namespace).get(&name.name).await?;
    let now = Timestamp::now();
    let mut found = Vec::new();
    for (resource, object) in objects::live(connection, &app, &[]).await? {
        if let Some(object) = object.filter(|_| chosen.fits(&resource)) {
            let value = serde_json::to_value(&object)?;
            let actions = actions(&resource, &value, now);
            found.push((resource, actions));
        }
    }
    match &args.command {
        Command::List(_) => {
            let mut table = Table::with_header(&["GROUP", "KIND", "NAME", "ACTION", "DISABLED"]);
            for (resource, actions) in &found {
                for (action, patches) in actions {
                    let text = |value: &Option<String>| value.clone().unwrap_or_default();
                    table.push(vec![
                        text(&resource.group),
                        text(&resource.kind),
                        text(&resource.name),
                        (*action).to_owned(),
                        patches.is_none().to_string(),
                    ]);
                }
            }
            print(&table.render())
        }
        Command::Run(args) => execute(args, connection, found).await,
    }
}

async fn execute(args: &RunArgs, connection: &Connection, found: Vec<(ResourceStatus, Vec<Action>)>) -> Result<()> {
    let able: Vec<(ResourceStatus, Option<Patches>)> = found
        .into_iter()
        .filter_map(|(resource, actions)| {
            let (_, patches) = actions.into_iter().find(|(action, _)| *action == args.action)?;
            Some((resource, patches))
        })
        .collect();
    if able.is_empty() {
        bail!("no object that fits has an action {:?}; `app actions list` shows what there is", args.action);
    }
    if able.len() > 1 && !args.all {
        bail!("{} objects fit: name one with --resource-name, or say --all", able.len());
    }
    let mut kinds = objects::Kinds::new(connection.client.clone());
    for (resource, patches) in able {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let (kind, name, namespace) = (text(&resource.kind), text(&resource.name), text(&resource.namespace));
        let Some(patches) = patches else {
            bail!("{kind} {namespace}/{name}: action {:?} is disabled in its current state", args.action);
        };
        let version = resource.version.as_deref().unwrap_or("v1");
        let Some(api) = kinds.api(&text(&resource.group), version, &kind, &namespace).await? else {
            bail!("the cluster has no kind {kind}");
        };
        let api: Api<_> = api;
        crate::rollout::apply(&api, &name, &patches).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn available(group: &str, kind: &str, object: Value) -> Vec<(&'static str, bool)> {
        let resource = ResourceStatus { group: Some(group.into()), kind: Some(kind.into()), ..Default::default() };
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        actions(&resource, &object, now).into_iter().map(|(name, patches)| (name, patches.is_some())).collect()
    }

    #[test]
    fn rollouts_offer_what_makes_sense_now() {
        let pause = json!([{"reason": "CanaryPauseStep", "startTime": "2026-01-01T00:00:00Z"}]);
        let paused = json!({
            "metadata": {"name": "web"},
            "spec": {"strategy": {"canary": {"steps": [{"pause": {}}]}}},
            "status": {"stableRS": "a", "currentPodHash": "b", "pauseConditions": pause},
        });
        let yes = |name| (name, true);
        assert_eq!(
            available("argoproj.io", "Rollout", paused),
            [
                yes("abort"),
                yes("pause"),
                yes("promote-full"),
                yes("restart"),
                yes("resume"),
                ("retry", false),
                yes("skip-current-step")
            ]
        );
        let done = json!({"metadata": {"name": "web"}, "spec": {"strategy": {"blueGreen": {}}}, "status": {"stableRS": "a", "currentPodHash": "a"}});
        let names: Vec<_> = available("argoproj.io", "Rollout", done)
            .into_iter()
            .filter(|(_, can)| *can)
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["pause", "restart"]);
    }

    #[test]
    fn workloads_and_runs_have_actions_and_others_have_none() {
        assert_eq!(
            available("apps", "Deployment", json!({"spec": {}})),
            [("restart", true), ("pause", true), ("resume", false)]
        );
        assert_eq!(available("apps", "DaemonSet", json!({})), [("restart", true)]);
        let run = json!({"metadata": {"name": "a"}, "status": {"phase": "Successful"}});
        assert_eq!(available("argoproj.io", "AnalysisRun", run), [("terminate", false)]);
        assert!(available("", "ConfigMap", json!({})).is_empty());
    }
}
