//! `app sync`.

use super::connect::{AppName, Connection};
use super::operation::{completed, is_automated, start};
use super::selector::{self, Selector, picks};
use super::wait::{self, Goals};
use crate::output::{Format, print};
use crate::rollout::create::key_value;
use anyhow::{Result, bail};
use tidegate_crds::application::{
    Application, Backoff, Info, Operation, OperationInitiator, Retry, SyncOperation, SyncOperationResource,
    SyncStrategy, SyncStrategyForce,
};

/// Makes the cluster look like the source, and waits until it is done.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  # Sync, and delete what the source no longer holds
  tidegate app sync shop --prune

  # Only one Deployment
  tidegate app sync shop --resource apps:Deployment:web

  # Only see what would happen
  tidegate app sync shop --dry-run

  # A revision that a Rollout had rejected, all the same
  tidegate app sync shop --revision 0123456789abcdef0123456789abcdef01234567")]
pub struct Args {
    /// Names, or NAMESPACE/NAME
    #[arg(value_name = "APP")]
    apps: Vec<String>,
    /// Those with these labels, as key=value
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Those of these projects; repeatable
    #[arg(long, value_name = "PROJECT")]
    project: Vec<String>,
    /// Namespace of the Applications, when it is not the control plane's
    #[arg(short = 'N', long, value_name = "NAMESPACE")]
    app_namespace: Option<String>,
    /// Sync to this revision instead of the one that the source follows
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Revision of the source at the same place in --source-positions or --source-names; repeatable
    #[arg(long, value_name = "REVISION")]
    revisions: Vec<String>,
    /// Position of a source, from 1; repeatable
    #[arg(long, value_name = "N", conflicts_with = "source_names")]
    source_positions: Vec<usize>,
    /// Name of a source; repeatable
    #[arg(long, value_name = "NAME")]
    source_names: Vec<String>,
    /// Delete what the source no longer holds
    #[arg(long)]
    prune: bool,
    /// Only see what would happen
    #[arg(long)]
    dry_run: bool,
    /// Apply alone, or with hooks (the default)
    #[arg(long, value_name = "STRATEGY", value_parser = ["apply", "hook", ""], hide_possible_values = true)]
    strategy: Option<String>,
    /// Delete and create again what cannot be applied
    #[arg(long)]
    force: bool,
    /// Replace objects instead of applying them
    #[arg(long)]
    replace: bool,
    /// Apply on the server
    #[arg(long)]
    server_side: bool,
    /// Only what differs
    #[arg(long)]
    apply_out_of_sync_only: bool,
    /// Only these objects, as GROUP:KIND:[NAMESPACE/]NAME; `!` in front excludes, `*` is any text; repeatable
    #[arg(long, value_name = "RESOURCE", value_parser = Selector::parse)]
    resource: Vec<Selector>,
    /// Only objects with this label, as key=value; repeatable
    #[arg(long, value_name = "LABEL", value_parser = key_value)]
    label: Vec<(String, String)>,
    /// Do not wait
    #[arg(long = "async")]
    async_: bool,
    /// Give up waiting after so many seconds; 0 is never
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    timeout: u64,
    /// How often to try again
    #[arg(long, value_name = "N", default_value_t = 0)]
    retry_limit: i64,
    /// Wait before the first new try
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    retry_backoff_duration: String,
    /// Longest wait before a new try
    #[arg(long, value_name = "DURATION", default_value = "3m0s")]
    retry_backoff_max_duration: String,
    /// How much longer each wait is than the one before
    #[arg(long, value_name = "N", default_value_t = 2)]
    retry_backoff_factor: i64,
    /// Look for the newest revision before a new try
    #[arg(long)]
    retry_refresh: bool,
    /// Information to keep with the operation; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = key_value)]
    info: Vec<(String, String)>,
    /// Show the differences, and ask before going on
    #[arg(long)]
    preview_changes: bool,
    /// Do not ask
    #[arg(long = "assumeYes")]
    assume_yes: bool,
    /// Format of what is printed at the end: wide, name, json or yaml
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "wide")]
    output: Format,
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    let mut names =
        wait::names(connection, &args.apps, args.selector.as_deref(), args.app_namespace.as_deref()).await?;
    if !args.project.is_empty() {
        let api = connection.apps(args.app_namespace.as_deref().unwrap_or(&connection.control_plane));
        for app in api.list(&Default::default()).await?.items {
            if args.project.iter().any(|project| project == super::summary::project(&app)) {
                names.push(AppName::of(&app));
            }
        }
    }
    if names.is_empty() {
        bail!("expected names of Applications, --selector or --project");
    }
    for name in &names {
        one(&args, connection, name).await?;
    }
    Ok(())
}

async fn one(args: &Args, connection: &Connection, name: &AppName) -> Result<()> {
    let app = connection.apps(&name.namespace).get(&name.name).await?;
    let resources = chosen(args, connection, &app).await?;
    if resources.as_ref().is_some_and(Vec::is_empty) {
        bail!("application '{}': no object is picked by --resource and --label", name.name);
    }
    let operation = build(args, &app, resources.clone().unwrap_or_default())?;
    if args.preview_changes && !super::diff::preview(connection, &app, args.assume_yes).await? {
        return print("Operation cancelled by user\n");
    }
    start(connection, &app, &operation).await?;
    if args.async_ {
        return Ok(());
    }
    let goals = Goals { operation: true, ..Default::default() };
    let show = args.output == Format::Wide;
    let app = wait::until(connection, name, goals, &args.resource, args.timeout, show).await?;
    wait::print_end(connection, &app, &args.resource, args.output).await?;
    verdict(&app, args.prune || args.dry_run || resources.is_some())
}

/// Whether the sync did what it was asked. `pruned` is whether nothing can be left to prune.
pub fn verdict(app: &Application, pruned: bool) -> Result<()> {
    let phase = app.status.operation_state.as_ref().map(|state| state.phase.as_str()).unwrap_or_default();
    if !completed(phase) || phase != "Succeeded" {
        bail!("Operation has completed with phase: {phase}");
    }
    let left = app.status.resources.iter().filter(|resource| resource.requires_pruning).count();
    if !pruned && left > 0 {
        bail!("{left} resources require pruning");
    }
    Ok(())
}

/// The objects to sync; none for all of them.
async fn chosen(args: &Args, connection: &Connection, app: &Application) -> Result<Option<Vec<SyncOperationResource>>> {
    if args.label.is_empty() && args.resource.is_empty() {
        return Ok(None);
    }
    if args.label.is_empty()
        && let Some(exact) = selector::exact(&args.resource)
    {
        return Ok(Some(exact));
    }
    if args.label.is_empty() {
        let fits = |resource: &&tidegate_crds::application::ResourceStatus| {
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            let (group, kind) = (text(&resource.group), text(&resource.kind));
            picks(&args.resource, &group, &kind, &text(&resource.namespace), &text(&resource.name))
        };
        return Ok(Some(app.status.resources.iter().filter(fits).map(operation_resource).collect()));
    }
    let live = super::objects::live(connection, app, &args.resource).await?;
    let labelled = live.iter().filter(|(_, object)| {
        let labels = object.as_ref().and_then(|object| object.metadata.labels.clone()).unwrap_or_default();
        args.label.iter().all(|(key, value)| labels.get(key) == Some(value))
    });
    Ok(Some(labelled.map(|(resource, _)| operation_resource(resource)).collect()))
}

fn operation_resource(resource: &tidegate_crds::application::ResourceStatus) -> SyncOperationResource {
    SyncOperationResource {
        group: resource.group.clone().filter(|group| !group.is_empty()),
        kind: resource.kind.clone().unwrap_or_default(),
        name: resource.name.clone().unwrap_or_default(),
        namespace: resource.namespace.clone().filter(|namespace| !namespace.is_empty()),
    }
}

/// The operation that the flags ask for.
///
/// # Errors
/// When the flags do not fit the Application.
fn build(args: &Args, app: &Application, resources: Vec<SyncOperationResource>) -> Result<Operation> {
    let policy = app.spec.sync_policy.clone().unwrap_or_default();
    let revisions = revisions(args, app)?;
    if is_automated(app) && !args.dry_run {
        // The next comparison would sync back to what the source follows.
        let followed = app.spec.source.as_ref().and_then(|source| source.target_revision.as_deref()).unwrap_or("HEAD");
        let compared = app.status.sync.as_ref().and_then(|sync| sync.revision.as_deref());
        if let Some(wanted) = args.revision.as_deref()
            && wanted != followed
            && Some(wanted) != compared
        {
            bail!("cannot sync to {wanted}: auto-sync currently set to {followed}");
        }
    }
    let mut options = policy.sync_options.clone();
    for (set, option) in [
        (args.replace, "Replace=true"),
        (args.server_side, "ServerSideApply=true"),
        (args.apply_out_of_sync_only, "ApplyOutOfSyncOnly=true"),
    ] {
        if set && !options.iter().any(|known| known == option) {
            options.push(option.to_owned());
        }
    }
    let force = SyncStrategyForce { force: args.force };
    let strategy = match args.strategy.as_deref() {
        Some("apply") => SyncStrategy { apply: Some(force), hook: None },
        _ => SyncStrategy { apply: None, hook: Some(force) },
    };
    let retry = if args.retry_limit != 0 {
        for (flag, text) in [
            ("--retry-backoff-duration", &args.retry_backoff_duration),
            ("--retry-backoff-max-duration", &args.retry_backoff_max_duration),
        ] {
            if let Err(error) = tidegate_crds::duration::parse(text) {
                bail!("{flag}: {error}");
            }
        }
        Some(Retry {
            limit: Some(args.retry_limit),
            backoff: Some(Backoff {
                duration: Some(args.retry_backoff_duration.clone()),
                factor: Some(args.retry_backoff_factor),
                max_duration: Some(args.retry_backoff_max_duration.clone()),
            }),
            refresh: args.retry_refresh,
        })
    } else {
        policy.retry
    };
    Ok(Operation {
        sync: Some(SyncOperation {
            revision: args.revision.clone(),
            revisions,
            prune: args.prune,
            dry_run: args.dry_run,
            sync_strategy: Some(strategy),
            resources,
            sync_options: options,
            ..Default::default()
        }),
        initiated_by: Some(OperationInitiator { username: Some(USER.to_owned()), automated: false }),
        info: args.info.iter().map(|(name, value)| Info { name: name.clone(), value: value.clone() }).collect(),
        retry,
    })
}

/// Who asks, in `initiatedBy`: somebody with a command line.
pub const USER: &str = "cli";

/// The revisions by source, for an Application with several.
fn revisions(args: &Args, app: &Application) -> Result<Vec<String>> {
    if args.revisions.is_empty() {
        return Ok(Vec::new());
    }
    let sources = &app.spec.sources;
    let positions: Vec<usize> = match (args.source_positions.is_empty(), args.source_names.is_empty()) {
        (false, _) => args.source_positions.clone(),
        (true, false) => args
            .source_names
            .iter()
            .map(|name| match sources.iter().position(|source| source.name.as_deref() == Some(name)) {
                Some(index) => Ok(index + 1),
                None => bail!("application '{}' has no source named {name:?}", app.name()),
            })
            .collect::<Result<_>>()?,
        (true, true) => bail!("--revisions needs --source-positions or --source-names"),
    };
    if positions.len() != args.revisions.len() {
        bail!("{} --revisions do not fit {} sources", args.revisions.len(), positions.len());
    }
    let mut revisions: Vec<String> =
        sources.iter().map(|source| source.target_revision.clone().unwrap_or_default()).collect();
    for (position, revision) in positions.iter().zip(&args.revisions) {
        match position.checked_sub(1).and_then(|index| revisions.get_mut(index)) {
            Some(slot) => slot.clone_from(revision),
            None => bail!("application '{}' has {} sources, none at position {position}", app.name(), sources.len()),
        }
    }
    Ok(revisions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::{Value, json};

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Args {
        Program::try_parse_from(std::iter::once("sync").chain(line.split_whitespace())).unwrap().args
    }

    fn app(spec: Value, status: Value) -> Application {
        serde_json::from_value(json!({"metadata": {"name": "shop"}, "spec": spec, "status": status})).unwrap()
    }

    #[test]
    fn builds_the_operation() {
        let manual =
            app(json!({"syncPolicy": {"syncOptions": ["CreateNamespace=true"], "retry": {"limit": 3}}}), json!({}));
        let of = |line: &str| serde_json::to_value(build(&args(line), &manual, vec![]).unwrap()).unwrap();
        assert_eq!(
            of("shop"),
            json!({
                "initiatedBy": {"username": "cli"},
                "retry": {"limit": 3},
                "sync": {"syncStrategy": {"hook": {}}, "syncOptions": ["CreateNamespace=true"]},
            })
        );
        assert_eq!(
            of(
                "shop --prune --dry-run --strategy apply --force --revision v1 --server-side --replace --apply-out-of-sync-only \
                --retry-limit 5 --retry-backoff-duration 1s --retry-refresh --info a=b"
            ),
            json!({
                "initiatedBy": {"username": "cli"},
                "info": [{"name": "a", "value": "b"}],
                "retry": {"limit": 5, "refresh": true, "backoff": {"duration": "1s", "factor": 2, "maxDuration": "3m0s"}},
                "sync": {
                    "revision": "v1", "prune": true, "dryRun": true, "syncStrategy": {"apply": {"force": true}},
                    "syncOptions": ["CreateNamespace=true", "Replace=true", "ServerSideApply=true", "ApplyOutOfSyncOnly=true"],
                },
            })
        );
        assert!(build(&args("shop --retry-limit 1 --retry-backoff-duration soon"), &manual, vec![]).is_err());
    }

    #[test]
    fn automated_sync_follows_its_own_revision() {
        let spec = json!({"source": {"targetRevision": "main"}, "syncPolicy": {"automated": {}}});
        let auto = app(spec, json!({"sync": {"revision": "rejected"}}));
        let error = build(&args("shop --revision other"), &auto, vec![]).unwrap_err().to_string();
        assert_eq!(error, "cannot sync to other: auto-sync currently set to main");
        assert!(build(&args("shop --revision main"), &auto, vec![]).is_ok());
        assert!(build(&args("shop --revision other --dry-run"), &auto, vec![]).is_ok());
        assert!(build(&args("shop --revision rejected"), &auto, vec![]).is_ok(), "an explicit sync clears a rejection");
    }

    #[test]
    fn revisions_go_to_their_sources() {
        let many =
            app(json!({"sources": [{"targetRevision": "a"}, {"targetRevision": "b", "name": "second"}]}), json!({}));
        let of = |line: &str| revisions(&args(line), &many);
        assert_eq!(of("shop --revisions x --source-positions 2").unwrap(), ["a", "x"]);
        assert_eq!(of("shop --revisions x --source-names second").unwrap(), ["a", "x"]);
        assert!(of("shop --revisions x --source-positions 3").is_err());
        assert!(of("shop --revisions x --source-positions 0").is_err());
        assert!(of("shop --revisions x").is_err());
        assert!(of("shop --revisions x --source-names nope").is_err());
    }

    #[test]
    fn says_when_a_sync_did_not_do_it_all() {
        let of = |phase: &str, pruned: bool| {
            let status =
                json!({"operationState": {"phase": phase}, "resources": [{"kind": "A", "requiresPruning": true}]});
            verdict(&app(json!({}), status), pruned).map_err(|error| error.to_string())
        };
        assert_eq!(of("Succeeded", true), Ok(()));
        assert_eq!(of("Succeeded", false), Err("1 resources require pruning".into()));
        assert_eq!(of("Failed", true), Err("Operation has completed with phase: Failed".into()));
    }
}
