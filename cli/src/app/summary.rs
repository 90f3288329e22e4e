//! An Application as text: the header, its conditions, its objects, its operation. No I/O.

use super::selector::{Selector, picks};
use crate::output::Table;
use jiff::Timestamp;
use tidegate_crds::Time;
use tidegate_crds::application::{Application, Source, SyncPolicy};

/// What the header says besides the Application itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Surroundings {
    /// Address of the user interface; empty when there is none.
    pub url: String,
    /// `Sync Allowed`, `Manual Allowed` or `Sync Denied`.
    pub sync_window: String,
    /// `kind:schedule:duration` of the windows that apply.
    pub windows: Vec<String>,
}

/// One row of the table of objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceRow {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Sync status; of a hook, its phase.
    pub status: String,
    /// Health; of a hook, what became of its manifest.
    pub health: String,
    /// Phase of a hook.
    pub hook: String,
    /// What the last sync said.
    pub message: String,
}

impl ResourceRow {
    /// What identifies the row.
    pub fn key(&self) -> (String, String, String, String) {
        (self.group.clone(), self.kind.clone(), self.namespace.clone(), self.name.clone())
    }
}

/// A line of the header.
pub fn line(out: &mut String, title: &str, value: &str) {
    out.push_str(format!("{title:<20}{value}").trim_end());
    out.push('\n');
}

/// The header.
pub fn header(app: &Application, around: &Surroundings) -> String {
    let mut out = String::new();
    let destination = &app.spec.destination;
    let server = destination.server.as_deref().filter(|server| !server.is_empty()).or(destination.name.as_deref());
    line(&mut out, "Name:", &format!("{}/{}", app.namespace(), app.name()));
    line(&mut out, "Project:", project(app));
    line(&mut out, "Server:", server.unwrap_or_default());
    line(&mut out, "Namespace:", destination.namespace.as_deref().unwrap_or_default());
    line(&mut out, "URL:", &around.url);
    let sources = sources(app);
    out.push_str(if app.spec.sources.is_empty() { "Source:\n" } else { "Sources:\n" });
    for source in &sources {
        source_lines(&mut out, source);
    }
    line(&mut out, "SyncWindow:", &around.sync_window);
    if !around.windows.is_empty() {
        line(&mut out, "Assigned Windows:", &around.windows.join(","));
    }
    line(&mut out, "Sync Policy:", sync_policy(app.spec.sync_policy.as_ref()));
    line(&mut out, "Sync Status:", &sync_status(app, &sources));
    let health = app.status.health.as_ref();
    let mut text = health.and_then(|health| health.status.clone()).unwrap_or_default();
    if let Some(message) = health.and_then(|health| health.message.as_deref()).filter(|message| !message.is_empty()) {
        text.push_str(&format!(" ({message})"));
    }
    line(&mut out, "Health Status:", &text);
    out
}

/// The AppProject.
pub fn project(app: &Application) -> &str {
    if app.spec.project.is_empty() { "default" } else { &app.spec.project }
}

/// The sources, as a list also when there is one.
pub fn sources(app: &Application) -> Vec<Source> {
    if let Some(hydrator) = &app.spec.source_hydrator {
        return vec![Source {
            repo_url: hydrator.sync_source.repo_url.clone().unwrap_or_else(|| hydrator.dry_source.repo_url.clone()),
            path: Some(hydrator.sync_source.path.clone()),
            target_revision: Some(hydrator.sync_source.target_branch.clone()),
            ..Default::default()
        }];
    }
    if app.spec.sources.is_empty() { app.spec.source.clone().into_iter().collect() } else { app.spec.sources.clone() }
}

fn source_lines(out: &mut String, source: &Source) {
    line(out, "- Repo:", &source.repo_url);
    line(out, "  Target:", source.target_revision.as_deref().unwrap_or_default());
    for (title, value) in [("  Path:", &source.path), ("  Ref:", &source.ref_)] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            line(out, title, value);
        }
    }
    if let Some(helm) = source.helm.as_ref().filter(|helm| !helm.value_files.is_empty()) {
        line(out, "  Helm Values:", &helm.value_files.join(","));
    }
    if let Some(prefix) = source.kustomize.as_ref().and_then(|kustomize| kustomize.name_prefix.as_deref()) {
        line(out, "  Name Prefix:", prefix);
    }
}

fn sync_policy(policy: Option<&SyncPolicy>) -> &'static str {
    match automated(policy) {
        None => "Manual",
        Some(true) => "Automated (Prune)",
        Some(false) => "Automated",
    }
}

/// Whether automated sync is on, and then whether it prunes.
pub fn automated(policy: Option<&SyncPolicy>) -> Option<bool> {
    let automated = policy?.automated.as_ref()?;
    automated.enabled.unwrap_or(true).then_some(automated.prune)
}

fn sync_status(app: &Application, sources: &[Source]) -> String {
    let Some(sync) = &app.status.sync else { return String::new() };
    let mut text = sync.status.clone();
    let (word, known) = match sync.status.as_str() {
        "Synced" => (" to ", true),
        "OutOfSync" => (" from ", true),
        _ => ("", false),
    };
    if known && sources.len() == 1 {
        text.push_str(word);
        text.push_str(target(&sources[0]));
        if let Some(revision) = sync.revision.as_deref().filter(|revision| !revision.is_empty()) {
            text.push_str(&format!(" ({})", short(revision)));
        }
    }
    text
}

/// The revision that a source follows.
fn target(source: &Source) -> &str {
    source.target_revision.as_deref().filter(|revision| !revision.is_empty()).unwrap_or("HEAD")
}

/// The first seven characters of a commit; other revisions whole.
pub fn short(revision: &str) -> &str {
    let is_commit = revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_commit { &revision[..7] } else { revision }
}

/// `target (sha7)`, as histories show revisions.
pub fn target_and_commit(source: &Source, revision: &str) -> String {
    let commit = short(revision);
    match target(source) {
        target if revision.is_empty() || target == revision || target == commit => target.to_owned(),
        target => format!("{target} ({commit})"),
    }
}

/// A time as the tables show it.
pub fn time(time: Option<&Time>) -> String {
    time.map(|time| time.0.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()).unwrap_or_default()
}

/// The table of conditions; empty without any. Revisions that a Rollout rejected show here.
pub fn conditions(app: &Application) -> String {
    if app.status.conditions.is_empty() {
        return String::new();
    }
    let mut table = Table::with_header(&["CONDITION", "MESSAGE", "LAST TRANSITION"]);
    for condition in &app.status.conditions {
        table.push(vec![
            condition.type_.clone(),
            one_line(&condition.message),
            time(condition.last_transition_time.as_ref()),
        ]);
    }
    table.render()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The objects: first those of the last sync in its order, then the others in the order of their names.
pub fn resources(app: &Application, selectors: &[Selector]) -> Vec<ResourceRow> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let mut left: Vec<ResourceRow> = app
        .status
        .resources
        .iter()
        .map(|resource| ResourceRow {
            group: text(&resource.group),
            kind: text(&resource.kind),
            namespace: text(&resource.namespace),
            name: text(&resource.name),
            status: text(&resource.status),
            health: resource.health.as_ref().map(|health| text(&health.status)).unwrap_or_default(),
            ..Default::default()
        })
        .collect();
    left.sort_by_key(ResourceRow::key);
    let mut rows = Vec::new();
    let results = app.status.operation_state.as_ref().and_then(|state| state.sync_result.as_ref());
    for result in results.into_iter().flat_map(|results| &results.resources) {
        let mut row = ResourceRow {
            group: result.group.clone(),
            kind: result.kind.clone(),
            namespace: result.namespace.clone(),
            name: result.name.clone(),
            status: text(&result.hook_phase),
            health: text(&result.status),
            hook: text(&result.hook_type),
            message: one_line(result.message.as_deref().unwrap_or_default()),
        };
        let known = left.iter().position(|other| other.key() == row.key());
        match known {
            Some(index) if row.hook.is_empty() => {
                let now = left.remove(index);
                (row.status, row.health) = (now.status, now.health);
            }
            Some(index) => {
                left.remove(index);
            }
            None if row.hook.is_empty() => (row.status, row.health) = (row.health, String::new()),
            None => {}
        }
        rows.push(row);
    }
    rows.extend(left);
    rows.retain(|row| picks(selectors, &row.group, &row.kind, &row.namespace, &row.name));
    rows
}

/// The table of objects.
pub fn resource_table(rows: &[ResourceRow]) -> String {
    let mut table = Table::with_header(&["GROUP", "KIND", "NAMESPACE", "NAME", "STATUS", "HEALTH", "HOOK", "MESSAGE"]);
    for row in rows {
        let row = row.clone();
        table.push(vec![row.group, row.kind, row.namespace, row.name, row.status, row.health, row.hook, row.message]);
    }
    table.render()
}

/// The block about the last operation; empty without one.
pub fn operation(app: &Application, now: Timestamp) -> String {
    let Some(state) = &app.status.operation_state else { return String::new() };
    let mut out = String::new();
    if state.operation.sync.is_some() {
        line(&mut out, "Operation:", "Sync");
        let result = state.sync_result.as_ref();
        match result.map(|result| result.revisions.as_slice()) {
            Some(revisions @ [_, ..]) => line(&mut out, "Sync Revisions:", &revisions.join(", ")),
            _ => line(&mut out, "Sync Revision:", result.map(|result| result.revision.as_str()).unwrap_or_default()),
        }
    }
    line(&mut out, "Phase:", &state.phase);
    line(&mut out, "Start:", &time(state.started_at.as_ref()));
    let finished = state.finished_at.as_ref();
    line(&mut out, "Finished:", &finished.map(|at| time(Some(at))).unwrap_or_else(|| "<none>".to_owned()));
    if let Some(started) = &state.started_at {
        let seconds = finished.map_or(now, |at| at.0).as_second() - started.0.as_second();
        let length = std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        line(&mut out, "Duration:", &tidegate_crds::duration::format(length));
    }
    if let Some(message) = state.message.as_deref().filter(|message| !message.is_empty()) {
        line(&mut out, "Message:", message);
    }
    out
}

/// What `get` shows, and `sync`, `wait` and `rollback` at their end.
pub fn full(
    app: &Application,
    around: &Surroundings,
    selectors: &[Selector],
    operation_at: Option<Timestamp>,
) -> String {
    let mut out = header(app, around);
    if let Some(now) = operation_at {
        let block = operation(app, now);
        if !block.is_empty() {
            out.push('\n');
            out.push_str(&block);
        }
    }
    let conditions = conditions(app);
    if !conditions.is_empty() {
        out.push('\n');
        out.push_str(&conditions);
    }
    let rows = resources(app, selectors);
    if !rows.is_empty() {
        out.push('\n');
        out.push_str(&resource_table(&rows));
    }
    out
}

#[cfg(test)]
mod tests;
