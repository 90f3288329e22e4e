//! `app wait`, and the waiting that `sync`, `rollback` and `delete` do.

use super::connect::{AppName, Connection};
use super::get::surroundings;
use super::operation::completed;
use super::selector::{Selector, picks};
use super::summary::{self, ResourceRow};
use crate::output::{Format, document, print};
use crate::rollout::live;
use anyhow::{Result, anyhow, bail};
use futures::StreamExt;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use kube::api::ListParams;
use kube::runtime::watcher;
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_crds::application::Application;

/// Waits until Applications are as wanted. Without one of the goals: synced, healthy and without a running operation.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  # Until \"shop\" is synced and healthy, ten minutes at the most
  tidegate app wait shop --timeout 600

  # Until a Rollout in it pauses
  tidegate app wait shop --suspended")]
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
    /// Until synced
    #[arg(long)]
    sync: bool,
    /// Until healthy
    #[arg(long)]
    health: bool,
    /// Until no operation runs
    #[arg(long)]
    operation: bool,
    /// Until suspended
    #[arg(long)]
    suspended: bool,
    /// Until degraded
    #[arg(long)]
    degraded: bool,
    /// Until deleted
    #[arg(long)]
    delete: bool,
    /// Until hydrated
    #[arg(long)]
    hydrated: bool,
    /// Only these objects, as GROUP:KIND:[NAMESPACE/]NAME; `!` in front excludes, `*` is any text; repeatable
    #[arg(long, value_name = "RESOURCE", value_parser = Selector::parse)]
    resource: Vec<Selector>,
    /// Give up after so many seconds; 0 is never
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    timeout: u64,
    /// Format of what is printed at the end: wide, name, json or yaml
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "wide")]
    output: Format,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Goals {
    /// Synced.
    pub sync: bool,
    /// Healthy.
    pub health: bool,
    /// No operation runs, and the cluster was looked at after the last one.
    pub operation: bool,
    /// Suspended. With `health` and `degraded`, either will do.
    pub suspended: bool,
    /// Degraded. With `health` and `suspended`, either will do.
    pub degraded: bool,
    /// Deleted.
    pub delete: bool,
    /// Hydrated.
    pub hydrated: bool,
}

impl Goals {
    /// The goals when none are named.
    fn or_default(self) -> Self {
        if self == Self::default() { Self { sync: true, health: true, operation: true, ..self } } else { self }
    }

    /// Whether the Application is as wanted. `selectors` narrow sync and health to some of its objects.
    pub fn met(self, app: &Application, selectors: &[Selector]) -> bool {
        if self.operation && in_progress(app) {
            return false;
        }
        if self.hydrated {
            let hydration = app.status.source_hydrator.as_ref().and_then(|status| status.current_operation.as_ref());
            if hydration.is_none_or(|operation| operation.phase != "Hydrated") {
                return false;
            }
        }
        if selectors.is_empty() {
            let sync = app.status.sync.as_ref().map(|sync| sync.status.as_str()).unwrap_or_default();
            let health = app.status.health.as_ref().and_then(|health| health.status.as_deref()).unwrap_or_default();
            return self.states_met(sync, health);
        }
        let mut found = false;
        for resource in &app.status.resources {
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            let (group, kind) = (text(&resource.group), text(&resource.kind));
            if !picks(selectors, &group, &kind, &text(&resource.namespace), &text(&resource.name)) {
                continue;
            }
            found = true;
            // Kinds without a health check are as healthy as they can be.
            let health = resource.health.as_ref().and_then(|health| health.status.as_deref()).unwrap_or("Healthy");
            if !self.states_met(resource.status.as_deref().unwrap_or_default(), health) {
                return false;
            }
        }
        found
    }

    fn states_met(self, sync: &str, health: &str) -> bool {
        let any_health = self.health || self.suspended || self.degraded;
        (!self.sync || sync == "Synced")
            && (!any_health
                || (self.health && health == "Healthy")
                || (self.suspended && health == "Suspended")
                || (self.degraded && health == "Degraded"))
    }
}

/// Whether an operation runs, or has ended and the controller has not looked at the cluster since.
pub fn in_progress(app: &Application) -> bool {
    if app.operation.is_some() {
        return true;
    }
    let Some(state) = &app.status.operation_state else { return false };
    match (&state.finished_at, &app.status.reconciled_at) {
        _ if !completed(&state.phase) => true,
        (None, _) => true,
        (Some(finished), Some(reconciled)) => reconciled.0 < finished.0,
        (Some(_), None) => true,
    }
}

/// What changed since the last look.
#[derive(Debug, Default)]
struct Progress {
    seen: BTreeMap<(String, String, String, String), ResourceRow>,
    health: String,
}

impl Progress {
    /// Rows that are new or changed. With `strict`, an error when something becomes Degraded.
    fn news(&mut self, app: &Application, selectors: &[Selector], strict: bool) -> Result<Vec<ResourceRow>> {
        let mut news = Vec::new();
        let mut fallen = None;
        for row in summary::resources(app, selectors) {
            let before = self.seen.get(&row.key());
            if before == Some(&row) {
                continue;
            }
            if let Some(before) = before
                && has_fallen(&before.health, &row.health)
            {
                fallen = Some(before.health.clone());
            }
            self.seen.insert(row.key(), row.clone());
            news.push(row);
        }
        let health = app.status.health.as_ref().and_then(|health| health.status.clone()).unwrap_or_default();
        if selectors.is_empty() && has_fallen(&self.health, &health) {
            fallen = Some(self.health.clone());
        }
        self.health = health;
        match fallen {
            Some(before) if strict => {
                bail!("application '{}' health state has transitioned from {before} to Degraded", app.name())
            }
            _ => Ok(news),
        }
    }
}

fn has_fallen(before: &str, now: &str) -> bool {
    now == "Degraded" && !matches!(before, "" | "Degraded" | "Unknown")
}

/// A row of the stream. The widths are the peer's: right-aligned in at least 5, 10, 10, 20, 8, 7 and 10 columns.
fn stream_row(cells: [&str; 9]) -> String {
    const WIDTHS: [usize; 9] = [25, 5, 10, 10, 20, 8, 7, 10, 0];
    let mut line = String::new();
    for (index, (cell, width)) in cells.iter().zip(WIDTHS).enumerate() {
        let text = if index == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
        line.push_str(&text);
        if index + 1 < cells.len() {
            line.push_str("  ");
        }
    }
    line.trim_end().to_owned() + "\n"
}

fn stream_header() -> String {
    stream_row(["TIMESTAMP", "GROUP", "KIND", "NAMESPACE", "NAME", "STATUS", "HEALTH", "HOOK", "MESSAGE"])
}

fn stream(row: &ResourceRow, now: Timestamp, zone: &TimeZone) -> String {
    let stamp = now.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    let (group, kind, namespace, name) = (&row.group, &row.kind, &row.namespace, &row.name);
    stream_row([&stamp, group, kind, namespace, name, &row.status, &row.health, &row.hook, &row.message])
}

/// Watches an Application until the goals are met, and gives it as it is then. With `show`, every change of an object is
/// printed.
///
/// # Errors
/// When time runs out (0 is never), the Application goes away, or, with the goal of health, something becomes degraded.
pub async fn until(
    connection: &Connection,
    name: &AppName,
    goals: Goals,
    selectors: &[Selector],
    timeout: u64,
    show: bool,
) -> Result<Application> {
    let watching = watch(connection, name, goals, selectors, show);
    if timeout == 0 {
        return watching.await;
    }
    match tokio::time::timeout(Duration::from_secs(timeout), watching).await {
        Ok(result) => result,
        Err(_) => bail!("timed out ({timeout}s) waiting for app \"{}\" match desired state", name.name),
    }
}

async fn watch(
    connection: &Connection,
    name: &AppName,
    goals: Goals,
    selectors: &[Selector],
    show: bool,
) -> Result<Application> {
    let api = connection.apps(&name.namespace);
    let mut last = match api.get_opt(&name.name).await? {
        Some(app) => app,
        None if goals.delete => return Ok(Application::default()),
        None => bail!("application '{}' not found", name.qualified()),
    };
    let config = watcher::Config::default().fields(&format!("metadata.name={}", name.name));
    let (store, mut changes) = live::follow(api, config);
    let mut progress = Progress::default();
    let zone = TimeZone::system();
    let mut header = show;
    while let Some(change) = changes.next().await {
        change?;
        let Some(app) = store.state().into_iter().next() else {
            return if goals.delete {
                Ok(last)
            } else {
                Err(anyhow!("application '{}' was deleted", name.qualified()))
            };
        };
        last = (*app).clone();
        let news = progress.news(&last, selectors, goals.health)?;
        if show {
            let mut out = String::new();
            if std::mem::take(&mut header) {
                out.push_str(&stream_header());
            }
            let now = Timestamp::now();
            out.extend(news.iter().map(|row| stream(row, now, &zone)));
            print(&out)?;
        }
        if !goals.delete && goals.met(&last, selectors) {
            return Ok(last);
        }
    }
    bail!("the watch of application '{}' ended", name.qualified())
}

/// Prints an Application as the commands do at their end.
///
/// # Errors
/// When it cannot be printed.
pub async fn print_end(
    connection: &Connection,
    app: &Application,
    selectors: &[Selector],
    format: Format,
) -> Result<()> {
    print(&match format {
        Format::Json | Format::Yaml => document(app, format)?,
        Format::Name => AppName::of(app).qualified() + "\n",
        Format::Wide => {
            let around = surroundings(connection, app).await;
            format!("\n{}", summary::full(app, &around, selectors, Some(Timestamp::now())))
        }
    })
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    let goals = Goals {
        sync: args.sync,
        health: args.health,
        operation: args.operation,
        suspended: args.suspended,
        degraded: args.degraded,
        delete: args.delete,
        hydrated: args.hydrated,
    }
    .or_default();
    let names = names(connection, &args.apps, args.selector.as_deref(), args.app_namespace.as_deref()).await?;
    let show = args.output == Format::Wide;
    for name in &names {
        match until(connection, name, goals, &args.resource, args.timeout, show).await {
            Ok(_) if goals.delete => print(&format!("application '{}' deleted\n", name.name))?,
            Ok(app) => print_end(connection, &app, &args.resource, args.output).await?,
            Err(error) => {
                if let Ok(Some(app)) = connection.apps(&name.namespace).get_opt(&name.name).await {
                    print_end(connection, &app, &args.resource, args.output).await?;
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

/// The Applications that are named, and those with the labels.
///
/// # Errors
/// When a name is none, or no Application has the labels.
pub async fn names(
    connection: &Connection,
    apps: &[String],
    selector: Option<&str>,
    namespace: Option<&str>,
) -> Result<Vec<AppName>> {
    let mut names = apps.iter().map(|app| connection.name(app, namespace)).collect::<Result<Vec<_>>>()?;
    if let Some(selector) = selector {
        let api = connection.apps(namespace.unwrap_or(&connection.control_plane));
        let found = api.list(&ListParams::default().labels(selector)).await?;
        if found.items.is_empty() && names.is_empty() {
            bail!("no apps match selector {selector}");
        }
        names.extend(found.items.iter().map(AppName::of));
    }
    names.sort();
    names.dedup();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn app(status: Value) -> Application {
        serde_json::from_value(
            json!({"metadata": {"name": "shop", "namespace": "argocd"}, "spec": {}, "status": status}),
        )
        .unwrap()
    }

    fn state(sync: &str, health: &str) -> Application {
        app(json!({"sync": {"status": sync}, "health": {"status": health}}))
    }

    #[test]
    fn goals_are_met_by_states() {
        let default = Goals::default().or_default();
        assert!(default.met(&state("Synced", "Healthy"), &[]));
        assert!(!default.met(&state("OutOfSync", "Healthy"), &[]));
        assert!(!default.met(&state("Synced", "Suspended"), &[]));
        let paused = Goals { suspended: true, health: true, ..Default::default() };
        assert!(paused.met(&state("OutOfSync", "Suspended"), &[]));
        assert!(paused.met(&state("OutOfSync", "Healthy"), &[]));
        assert!(!paused.met(&state("Synced", "Degraded"), &[]));
    }

    #[test]
    fn an_operation_is_over_when_the_cluster_was_looked_at_again() {
        let of = |phase: &str, finished: Option<&str>, reconciled: Option<&str>| {
            in_progress(&app(
                json!({"operationState": {"phase": phase, "finishedAt": finished}, "reconciledAt": reconciled}),
            ))
        };
        assert!(!in_progress(&app(json!({}))));
        assert!(of("Running", None, None));
        assert!(of("Running", Some("2026-01-01T00:00:00Z"), Some("2026-01-01T00:00:01Z")), "a retry is to come");
        assert!(of("Succeeded", Some("2026-01-01T00:00:05Z"), Some("2026-01-01T00:00:04Z")));
        assert!(!of("Succeeded", Some("2026-01-01T00:00:05Z"), Some("2026-01-01T00:00:05Z")));
        assert!(of("Failed", Some("2026-01-01T00:00:05Z"), None));
    }

    #[test]
    fn selected_objects_decide_alone() {
        let app = app(json!({
            "sync": {"status": "OutOfSync"},
            "resources": [
                {"kind": "Service", "name": "a", "status": "Synced"},
                {"kind": "ConfigMap", "name": "b", "status": "OutOfSync"}],
        }));
        let select = |text: &str| vec![Selector::parse(text).unwrap()];
        let goals = Goals { sync: true, health: true, ..Default::default() };
        assert!(goals.met(&app, &select(":Service:a")));
        assert!(!goals.met(&app, &select(":ConfigMap:b")));
        assert!(!goals.met(&app, &select(":Secret:c")), "an object that is not there is not ready");
    }

    #[test]
    fn prints_each_change_once_and_stops_at_a_fall() {
        let with = |health: &str| {
            app(
                json!({"resources": [{"group": "apps", "kind": "Deployment", "namespace": "shop", "name": "web", "status": "Synced",
                "health": {"status": health}}]}),
            )
        };
        let mut progress = Progress::default();
        assert_eq!(progress.news(&with("Progressing"), &[], true).unwrap().len(), 1);
        assert!(progress.news(&with("Progressing"), &[], true).unwrap().is_empty());
        let error = progress.news(&with("Degraded"), &[], true).unwrap_err().to_string();
        assert_eq!(error, "application 'shop' health state has transitioned from Progressing to Degraded");
        assert_eq!(Progress::default().news(&with("Degraded"), &[], true).unwrap().len(), 1, "it was degraded before");
    }

    #[test]
    fn rows_have_the_peers_widths() {
        let row = ResourceRow {
            group: "apps".into(),
            kind: "Deployment".into(),
            namespace: "shop".into(),
            name: "web".into(),
            status: "Synced".into(),
            health: "Healthy".into(),
            message: "m".into(),
            ..Default::default()
        };
        let zone = TimeZone::fixed(jiff::tz::offset(-7));
        assert_eq!(
            stream_header() + &stream(&row, "2026-01-02T03:04:05Z".parse().unwrap(), &zone),
            "\
TIMESTAMP                  GROUP        KIND   NAMESPACE                  NAME    STATUS   HEALTH        HOOK  MESSAGE
2026-01-01T20:04:05-07:00   apps  Deployment        shop                   web    Synced  Healthy              m
"
        );
    }
}
